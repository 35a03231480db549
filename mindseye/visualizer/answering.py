"""What a prepared network answers pictures, as maps: only the network runs in another precision than float32."""

from typing import NamedTuple

from torch import Tensor

from mindseye.networks.maps import as_maps
from mindseye.networks.preparing import PreparedNetwork


class Answered(NamedTuple):
    """The answer to images [c, ch, S, S]."""

    raw: Tensor  # of the target layer, as its module gives it
    activation: Tensor  # the same as maps [c, D, H', W'], float32
    previous: Tensor | None  # [c, …] float32: what enters that layer, or another one's output before it
    way: tuple[Tensor, ...]  # [c, D_l, H_l, W_l] each: of the layers on the way, in their order
    early: Tensor | None  # [c, D_e, H_e, W_e] float32: of the early layer, where one was asked for


def answer(network: PreparedNetwork, images: Tensor) -> Answered:
    """One pass over images [c, ch, S, S] in 0..1. Raises ValueError for an answer that is no maps, see `as_maps`."""
    (target, previous, way), early = network.with_early(images)
    side = images.shape[-1]
    activation = as_maps(target, network.layer, network.layout(network.layer, side)).float()
    between = tuple(
        as_maps(raw, name, network.layout(name, side)) for raw, name in zip(way, network.way, strict=True)
    )
    previous = None if previous is None else previous.float()
    return Answered(target, activation, previous, between, None if early is None else _early(network, early, side))


def answer_early(network: PreparedNetwork, images: Tensor) -> Tensor:
    """The early layer's maps [c, D_e, H_e, W_e] alone, float32, without gradient."""
    return _early(network, network.look_early(images), images.shape[-1])


def _early(network: PreparedNetwork, raw: Tensor, side: int) -> Tensor:
    name = str(network.early)
    return as_maps(raw, name, network.layout(name, side)).float()

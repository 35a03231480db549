"""What the chosen photographs are answered with: each facet's target, and the layers on the way to it.

Shapes: C facets of N photographs, ch colours, S pixels a side; a layer of D channels answers with maps [D, H', W'].
"""

import functools
import inspect
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from mindseye.facets.cache import Cache
from mindseye.facets.grouping import recall
from mindseye.facets.survey import Survey, to_unit
from mindseye.facets.way_statistics import IMAGE, WayStatistics, joined, moments, of_photographs
from mindseye.networks.chance import seeded
from mindseye.networks.maps import as_maps
from mindseye.networks.preparing import PreparedNetwork
from mindseye.provenance import code_of
from mindseye.tensors import tensors_sha256

BLENDING_CODE = code_of(__file__, inspect.getfile(moments))  # what the cache's keys say of the program


@dataclass(frozen=True)
class Blend:
    """What the chosen photographs of every facet are answered with, weighted by w of Eq. 1."""

    maps: Tensor  # [C, D, H', W']: Σ w·a, the targets
    power: Tensor  # [C, D]: Σ w·mean_p a²
    way: tuple[WayStatistics, ...]  # the image itself and each layer on the way; () where the network has none
    recalled: dict[str, bool]  # "targets" and "way": whether it was out of the cache


def blend_chosen(
    network: PreparedNetwork, seen: Survey, images: Tensor, chosen: Tensor, weights: Tensor, cache: Cache | None
) -> Blend:
    """The chosen photographs, uint8 `images` [C, N, ch, S, S], go through the network once more, and once only.

    Targets are of the survey's maps where it has kept them. chosen: rows of the survey [C, N]; weights: w [C, N].
    """
    key = {
        "survey": seen.key,
        "chosen": chosen.tolist(),
        "weights": tensors_sha256({"weights": weights}),
        "code": BLENDING_CODE,
    }
    look = functools.cache(lambda: look_at(network, images, weights))
    if seen.maps is not None:
        blended = [_blend(seen.maps[row], w) for w, row in zip(weights, chosen, strict=True)]
        maps, power, recalled = *_stacked(blended), False
    else:
        kept, recalled = recall(cache, "targets", key, lambda: dict(zip(("targets", "power"), look()[:2], strict=True)))
        maps, power = kept["targets"], kept["power"]
    if not network.way:
        return Blend(maps, power, (), {"targets": recalled, "way": False})
    layers = (IMAGE, *network.way)

    def on_the_way() -> dict[str, Tensor]:
        named = look()[2].items()
        return {f"{name} {kind}": tensor for name, statistics in named for kind, tensor in statistics.tensors().items()}

    tensors, way_recalled = recall(cache, "way", {**key, "layers": list(layers)}, on_the_way)
    kinds = ("mean", "std", "quantiles")
    way = tuple(WayStatistics(name, *(tensors[f"{name} {kind}"] for kind in kinds)) for name in layers)
    return Blend(maps, power, way, {"targets": recalled, "way": way_recalled})


@torch.no_grad()
def look_at(
    network: PreparedNetwork, images: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor, Mapping[str, WayStatistics]]:
    """(Σ w·a, Σ w·mean_p a², statistics of the image and of each layer on the way) of uint8 images [C, N, ch, S, S].

    The maps of one facet's photographs at a time.
    """
    device = network.mean.device
    blended = []
    parts: dict[str, list[WayStatistics]] = {name: [] for name in (IMAGE, *network.way)}
    for photographs, w in zip(images, weights, strict=True):
        seen = to_unit(photographs, device)
        with seeded(0):
            target, _, way = network(seen)
        maps = as_maps(target, network.layer, network.layout(network.layer, seen.shape[-1])).float()
        blended.append(_blend(maps, w.to(device)))
        if network.way:
            parts[IMAGE].append(of_photographs(IMAGE, seen.cpu(), w))
        for name, answer in zip(network.way, way, strict=True):
            maps = as_maps(answer, name, network.layout(name, seen.shape[-1])).float()
            parts[name].append(of_photographs(name, maps.cpu(), w))
    return *_stacked(blended), {name: joined(own) for name, own in parts.items() if own}


def _blend(maps: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Σ w·a and Σ w·mean_p a² of one facet: maps [N, D, H', W'], w [N] -> [D, H', W'], [D]."""
    return torch.einsum("n,ndhw->dhw", weights, maps), weights @ maps.square().mean(dim=(2, 3))


def _stacked(blended: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    targets, power = zip(*blended, strict=True)
    return torch.stack(targets).cpu(), torch.stack(power).cpu()

"""The anchor: an early layer answers a picture as it answers the one that it started from, place by place.

What a photograph gains when it is pushed towards a facet is to be seen in that photograph, so that it must stay one.
Pixels would hold what a layer does not see, the target layer what is to be changed; an early layer holds edges, colours
and their places (Hamblin, Fel, Saha, Konkle & Alvarez, Feature Accentuation, 2024).
"""

from typing import Literal

from torch import Tensor

from mindseye.fields import Text, Weight, value
from mindseye.networks.network import Network
from mindseye.networks.preparing import PreparedNetwork
from mindseye.networks.way import resolve_early

SMALL = 1e-12


def anchor_distance(maps: Tensor, start: Tensor) -> Tensor:
    """‖a − a₀‖²/‖a₀‖² over channels and map: [c, D, H', W'] twice -> [c], 0 where the picture is still its start.

    Feature Accentuation's Euclidean distance at a layer, squared, and relative to the start's own size in place of a
    weight by the first gradients, so that one means the same at every layer and network; 1 is as far as a picture that
    the layer does not answer at all.
    """
    off = (maps - start).flatten(1).square().sum(dim=1)
    return off / (start.flatten(1).square().sum(dim=1) + SMALL)


@value
class Anchor:
    """How strongly, and where, pictures are held to what they started from."""

    weight: Weight = 0.0
    """Of the term in the loss; 0 is off. For `canvas.init=photograph`, mostly."""
    layer: Literal["auto"] | Text = "auto"
    """auto, the first of `mindseye.networks.way.layers_on_the_way`, or the name of a layer before the target."""


def anchor_of(objective: object) -> Anchor | None:
    """How an objective holds pictures to their start; None where it does not, or knows no such thing."""
    anchor = getattr(objective, "anchor", None)
    return anchor if isinstance(anchor, Anchor) and anchor.weight else None


def early_of(network: Network | PreparedNetwork, layer: str, objective: object) -> str | None:
    """The exact name of the layer before `layer` at which an objective anchors pictures; None where it does not.

    Raises ValueError for one that it cannot be.
    """
    anchor = anchor_of(objective)
    if anchor is None:
        return None
    if isinstance(network, Network):
        return resolve_early(network, layer, anchor.layer)
    if network.early is None:
        raise ValueError(
            f"{network.layer} is prepared without an early layer, at which the objective anchors pictures: give the "
            "network itself, or prepare(…, early=NAME)"
        )
    return network.early if anchor.layer == "auto" else network.resolve(anchor.layer)

"""Matching: the layers on the way to the target answer a picture as they answer the facet's own photographs.

The target layer says what is to be seen; between it and the image there are many ways to make it answer, most of which
no photograph takes. Two one-dimensional Wasserstein distances a channel, of one picture to its own facet's photographs:
`moments`, that of two Gaussians, W₂² = (μ̂ − μ)² + (σ̂ − σ)²; `sorted`, that of the values themselves, the distance of
the sorted ones (VITAL: Görgün, Schiele & Fischer, ICCV 2025). Both are relative to the photographs' own size, so that a
weight means the same at every layer, network and number of channels.
"""

import functools
import operator
from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from mindseye.facets.way_statistics import IMAGE, WayStatistics, moments, quantiles_of
from mindseye.fields import Names, Weight, value

Form = Literal["moments", "sorted"]
SMALL = 1e-12


def moments_distance(maps: Tensor, reference: WayStatistics) -> Tensor:
    """(‖μ̂ − μ‖ + ‖σ̂ − σ‖) / (‖μ‖ + ‖σ‖), norms over channels: maps [c, D, H', W'] -> [c]. 0 is the photographs'."""
    mean, std = moments(maps)
    off = _norm(mean - reference.mean) + _norm(std - reference.std)
    return off / (reference.mean.norm(dim=1) + reference.std.norm(dim=1) + SMALL)


def sorted_distance(maps: Tensor, reference: WayStatistics) -> Tensor:
    """‖sort(â) − q‖ / ‖q‖ over channels and quantiles: maps [c, D, H', W'] -> [c]."""
    off = (quantiles_of(reference.layer, maps, reference.quantiles.shape[2]) - reference.quantiles).flatten(1)
    return _norm(off) / (reference.quantiles.flatten(1).norm(dim=1) + SMALL)


def _norm(x: Tensor) -> Tensor:
    """‖x‖ over the second dimension, whose gradient is 0 at x = 0."""
    return (x.square().sum(dim=1) + SMALL).sqrt() - SMALL**0.5


@value
class Matching:
    """How strongly, in what form and at which layers pictures are held to their photographs."""

    weight: Weight = 50.0
    """Of the term in the loss, 0 is off; `Schedules.matching` lets it fall."""
    form: Form = "moments"
    """moments: each channel's mean and deviation; sorted: its values in order (VITAL's)."""
    layers: Literal["auto"] | Names = "auto"
    """auto: two blocks of each resolution before the target (see `mindseye.networks.way.layers_on_the_way`); or a list
    of names of layers before it."""

    def __call__(self, way: Sequence[Tensor], references: Sequence[WayStatistics]) -> Tensor:
        """The mean distance over the layers: way, each [c, D_l, H_l, W_l], and the same facets' references -> [c]."""
        each = [
            # Colours are three channels and far from Gaussian: their values themselves are matched in any form.
            sorted_distance(maps, reference)
            if self.form == "sorted" or reference.layer == IMAGE
            else moments_distance(maps, reference)
            for maps, reference in zip(way, references, strict=True)
        ]
        # One after the other: torch's mean takes another order for another number of facets at hand.
        return functools.reduce(operator.add, each) / len(each)

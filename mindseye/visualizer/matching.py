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

import torch
from torch import Tensor

from mindseye.facets.way_statistics import IMAGE, WayStatistics, deviation, mean_and_variance, quantiles_of
from mindseye.fields import Names, Weight, value

Form = Literal["moments", "sorted"]
SMALL = 1e-12


def moments_distance(maps: Tensor, reference: WayStatistics) -> Tensor:
    """(‖μ̂ − μ‖ + ‖σ̂ − σ‖) / (‖μ‖ + ‖σ‖), norms over channels: maps [c, D, H', W'] -> [c]. 0 is the photographs'."""
    return moments_distances([(maps, reference)])[0]


def moments_distances(pairs: Sequence[tuple[Tensor, WayStatistics]]) -> list[Tensor]:
    """`moments_distance` of the maps and the reference of each of several layers: [c] each.

    All their channels beside one another, so that a step is a few long operations and not many short ones, each of
    which costs a device as much as a long one.
    """
    if not pairs:
        return []
    found = [mean_and_variance(maps) for maps, _ in pairs]
    mean, variance = (torch.cat(layers, dim=1) for layers in zip(*found, strict=True))  # [c, ΣD] each
    mu = torch.cat([reference.mean for _, reference in pairs], dim=1)
    sigma = torch.cat([reference.std for _, reference in pairs], dim=1)
    off, size = torch.stack([mean - mu, deviation(variance) - sigma]), torch.stack([mu, sigma])  # [2, c, ΣD] each
    channels = [reference.mean.shape[1] for _, reference in pairs]

    def squares(x: Tensor) -> Tensor:
        """Their sum over each layer's own channels: [L, 2, c]."""
        return torch.stack([layer.sum(dim=2) for layer in x.square().split(channels, dim=2)])

    return list((_root(squares(off)).sum(dim=1) / (squares(size).sqrt().sum(dim=1) + SMALL)).unbind())


def sorted_distance(maps: Tensor, reference: WayStatistics) -> Tensor:
    """‖sort(â) − q‖ / ‖q‖ over channels and quantiles: maps [c, D, H', W'] -> [c]."""
    off = (quantiles_of(reference.layer, maps, reference.quantiles.shape[2]) - reference.quantiles).flatten(1)
    return _root(off.square().sum(dim=1)) / (reference.quantiles.flatten(1).norm(dim=1) + SMALL)


def _root(squares: Tensor) -> Tensor:
    """√x of sums of squares, whose gradient at 0 is 0 for what was squared."""
    return (squares + SMALL).sqrt() - SMALL**0.5


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
        pairs = list(zip(way, references, strict=True))
        # Colours are three channels and far from Gaussian: their values themselves are matched in any form.
        by_values = [pair for pair in pairs if self.form == "sorted" or pair[1].layer == IMAGE]
        by_moments = [pair for pair in pairs if self.form == "moments" and pair[1].layer != IMAGE]
        each = [sorted_distance(*pair) for pair in by_values]
        each += moments_distances(by_moments)
        # One after the other: torch's mean takes another order for another number of facets at hand.
        return functools.reduce(operator.add, each) / len(each)

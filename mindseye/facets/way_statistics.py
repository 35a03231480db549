"""What the layers on the way to the target answer, as distributions: a channel's mean, deviation and quantiles.

Shapes: B images, C facets of N photographs, D channels, P = H'·W' positions of a layer's map.
"""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

QUANTILES = 64  # equal shares of a channel's values
# Of colours, which every objective that matches asks for at every step, whatever it costs: larger pictures are read at
# every second, third, … row and column. The views move these over the picture.
MOST_PIXELS = 4096
SMALLEST_VARIANCE = 1e-12
IMAGE = "image"  # the layer before all layers: the picture itself


@dataclass(frozen=True)
class WayStatistics:
    """How one layer on the way answers each facet's photographs, weighted by w of Eq. 1 (the paper's)."""

    layer: str  # its exact name; IMAGE is the picture itself, whose channels are its colours
    mean: Tensor  # [C, D]: μ = Σ_n w_n · mean_p a_{n,d,p}
    std: Tensor  # [C, D]: σ, σ² = Σ_n w_n · (var_p + mean_p²)_{n,d} − μ², so the spread between photographs counts
    quantiles: Tensor  # [C, D, Q]: Σ_n w_n · sort_p(a_{n,d}), Q equal shares, see `quantiles_of`

    def tensors(self) -> dict[str, Tensor]:
        """All its tensors by name."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "layer"}

    def of(self, facets: slice) -> "WayStatistics":
        """Those of some of the facets."""
        return WayStatistics(self.layer, *(tensor[facets] for tensor in self.tensors().values()))

    def to(self, device: torch.device) -> "WayStatistics":
        """The same on another device."""
        return WayStatistics(self.layer, *(tensor.to(device) for tensor in self.tensors().values()))


class _Moments(torch.autograd.Function):
    """Mean and variance over positions, [B, D] each, of maps [B, D, H', W'].

    One pass there and one back, where autograd's own would take a pass for every operation: on the large maps of the
    first layers memory is what costs. Both are in float32 at least, whatever the maps are in, and summed around the
    mean, not as the difference of two large numbers.
    """

    @staticmethod
    def forward(ctx: Any, maps: Tensor) -> tuple[Tensor, Tensor]:
        wide = torch.promote_types(maps.dtype, torch.float32)
        if maps.device.type == "cpu":
            # What BatchNorm does in training. Where channels lie last torch's var_mean takes twenty times as long.
            running = torch.zeros(maps.shape[1], dtype=wide)  # stays as it is; the answer has its precision
            each = [torch.batch_norm_update_stats(image[None], running, running, 0.0) for image in maps]
            mean, variance = (torch.stack(images) for images in zip(*each, strict=True))
        else:
            variance, mean = torch.var_mean(maps.to(wide), dim=(2, 3), correction=0)
        ctx.save_for_backward(maps, mean)
        return mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, mean_gradient: Tensor, variance_gradient: Tensor) -> Tensor:
        maps, mean = ctx.saved_tensors
        positions = maps[0, 0].numel()
        slope = variance_gradient * (2 / positions)
        constant = torch.addcmul(mean_gradient / positions, slope, mean, value=-1)  # of slope · (maps − mean)
        constant, slope = (x.to(maps.dtype)[:, :, None, None] for x in (constant, slope))
        return torch.addcmul(constant, maps, slope)


def mean_and_variance(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Of each channel over positions: maps [B, D, H', W'] -> [B, D] twice, differentiable, float32 at least."""
    mean, variance = _Moments.apply(maps)
    return mean, variance


def deviation(variance: Tensor) -> Tensor:
    """The root of a variance of at least SMALLEST_VARIANCE, so that a silent channel's gradient is 0 and not NaN."""
    return variance.clamp(min=SMALLEST_VARIANCE).sqrt()


def moments(maps: Tensor) -> tuple[Tensor, Tensor]:
    """The mean and the standard deviation of each channel over positions: maps [B, D, H', W'] -> [B, D] twice."""
    mean, variance = mean_and_variance(maps)
    return mean, deviation(variance)


class _SortedMeans(torch.autograd.Function):
    """The means of `quantiles`: maps [B, D, H', W'] -> [B, D, count], with a gradient for every position.

    What is kept for the way back is the order of the values, and not the values.
    """

    @staticmethod
    def forward(ctx: Any, maps: Tensor, count: int) -> Tensor:
        ctx.shape, ctx.dtype = maps.shape, maps.dtype
        values = maps.flatten(2).to(torch.promote_types(maps.dtype, torch.float32))
        if not ctx.needs_input_grad[0] and maps.device.type == "cpu" and type(values) is Tensor:
            # A tenth of the time of torch's, which keeps where each value was.
            values = torch.from_numpy(np.sort(values.numpy(), axis=2))
        else:
            values, order = values.sort(dim=2)
            ctx.save_for_backward(order)
        return _means_of_shares(values, count)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        [order] = ctx.saved_tensors
        # A mean's gradient is spread over its own values: the same map from steps to steps, the other way round.
        positions = order.shape[2]
        by_rank = _means_of_shares(gradient, positions) * (gradient.shape[2] / positions)
        return torch.empty_like(by_rank).scatter_(2, order, by_rank).to(ctx.dtype).reshape(ctx.shape), None


def quantiles(maps: Tensor, count: int = QUANTILES) -> Tensor:
    """Each channel's values in order, as the means of `count` equal shares: [B, D, H', W'] -> [B, D, count].

    The mean of the quantile function over (q, q + 1)/count. A value on the border of two shares counts in both by its
    parts, so that maps of any number of positions compare, and every position has a gradient.
    """
    means: Tensor = _SortedMeans.apply(maps, count)
    return means


def colour_quantiles(images: Tensor, count: int = QUANTILES) -> Tensor:
    """Each colour's values in order, read in the middle of `count` equal shares: [B, ch, S, S] -> [B, ch, count].

    Values between two of the sorted ones are interpolated. Of at most MOST_PIXELS pixels, of which the read ones alone
    have a gradient: sorting all would make a step of a small network a quarter longer.
    """
    step = max(1, -(-images.shape[-1] // int(MOST_PIXELS**0.5)))
    values = images[:, :, ::step, ::step].flatten(2).float().sort(dim=2).values
    last = values.shape[2] - 1
    place = (torch.arange(count, device=images.device, dtype=torch.float32) + 0.5) / count * (last + 1) - 0.5
    place = place.clamp(0, last)
    lower = place.floor().long()
    upper = (lower + 1).clamp(max=last)
    return torch.lerp(values[:, :, lower], values[:, :, upper], place - lower)


def quantiles_of(layer: str, maps: Tensor, count: int = QUANTILES) -> Tensor:
    """`quantiles` of a layer's maps, `colour_quantiles` of the picture's own."""
    return (colour_quantiles if layer == IMAGE else quantiles)(maps, count)


def _means_of_shares(steps: Tensor, count: int) -> Tensor:
    """A function on 0..1 of n equal steps, [..., n], as the means of `count` equal shares of 0..1: [..., count]."""
    n = steps.shape[-1]
    if n == count:
        return steps
    border = torch.arange(count + 1, device=steps.device) * n
    whole, part = border // count, (border % count) / count
    # In float64, since it is differences of long sums that count.
    below = torch.nn.functional.pad(steps.cumsum(dim=-1, dtype=torch.float64), (1, 0))
    reached = below[..., whole] + part * steps[..., whole.clamp(max=n - 1)]
    return (reached.diff(dim=-1) * (count / n)).to(steps.dtype)


def of_photographs(layer: str, maps: Tensor, weights: Tensor) -> WayStatistics:
    """The statistics of one facet's photographs: maps [N, D, H', W'], weights w [N] summing to 1 -> those of C = 1."""
    mean, std = moments(maps.double())
    w = weights.double()[:, None]
    mu = (w * mean).sum(dim=0)
    variance = (w * (std.square() + mean.square())).sum(dim=0) - mu.square()
    q = torch.einsum("n,ndq->dq", weights, quantiles_of(layer, maps))
    return WayStatistics(layer, mu[None].float(), deviation(variance)[None].float(), q[None].float())


def joined(parts: list[WayStatistics]) -> WayStatistics:
    """Those of several facets as one."""
    named = [part.tensors() for part in parts]
    return WayStatistics(parts[0].layer, *(torch.cat([tensors[name] for tensors in named]) for name in named[0]))

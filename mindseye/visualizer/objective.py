"""What is minimised: L = AD − DM + λ·P (Eq. 2-4), per facet and by name. Facets never mix.

Shapes: c facets at hand of C, D channels, H'×W' maps; a = activation of the target layer, t = target activation,
a_{i−1} = activation of the previous layer.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Literal, Protocol

import torch
from torch import Tensor

from mindseye.visualizer.distance import AdaptiveDistance
from mindseye.visualizer.filters import total_variation

Match = Literal["cosine", "dot_product", "dot_product_cosine"]
Distance = Literal["relative", "summed", "elementwise"]
Channels = Literal["own", "every_facet"]
Reduction = Literal["mean", "sum"]
Adaptive = Literal["trained", "fixed", "restarted"]

SMALL = 1e-12


@dataclass(frozen=True)
class LossTerms:
    """Every term of the loss, each [c], before its weight; `total` is their weighted sum."""

    dm: Tensor  # DM, the activation that is maximised
    mdist: Tensor  # the distance to the target, before the robust loss
    ad: Tensor  # AD, its negative log-likelihood
    penalty: Tensor  # P, without λ
    tv: Tensor  # total variation of the image, 0..1 per pixel
    total: Tensor

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """The names in order."""
        return tuple(field.name for field in fields(cls))

    def stacked(self) -> Tensor:
        """All terms without their graph: [terms, c]."""
        return torch.stack([getattr(self, name).detach() for name in self.names()])


class LossFunction(Protocol):
    """What the visualiser asks of an objective: `Objective` is one, a class of the user's own may be another.

    Facets must not mix: each of the [c] numbers it gives depends on one facet's images and activations alone.
    """

    @property
    def gain(self) -> float:
        """s; `fidelity.relative_distance` is measured to s·t, 1 where the objective knows no such thing."""

    @property
    def adaptive(self) -> Adaptive:
        """Whether (r, b) are trained, fixed, or restarted each step together with the optimiser."""

    def adaptive_distance(self, facets: int) -> AdaptiveDistance:
        """The (r, b) it starts with, for so many facets; `AdaptiveDistance(facets, trainable=False)` where unused."""

    def weights(self, lam: float, facets: int) -> dict[str, float]:
        """By what dm, ad, penalty and tv are multiplied in the total, for λ = `lam` and C = `facets`; 0 is off.

        `gradient_norms` takes each weighted term's own gradient by it.
        """

    def __call__(
        self,
        a: Tensor,
        previous: Tensor,
        images: Tensor,
        targets: Tensor,
        top_k: Tensor,
        facets: slice,
        adaptive: AdaptiveDistance,
        lam: float,
    ) -> LossTerms:
        """The terms, each [c], for the facets `facets` of C; `total` is what is minimised.

        a [c, D, H', W'], previous [c, …] and images [c, ch, S, S] are theirs; targets [C, D, H', W'], top_k [C, k] and
        `adaptive` those of all C, so `targets[facets]` and `top_k[facets]` are theirs.
        """


def dot_product(a: Tensor, t: Tensor) -> Tensor:
    """DM as printed (Eq. 2), Σ_j ⟨a_j, t_j⟩ over channels and map: [c, k, H', W'] twice -> [c]."""
    return (a * t).flatten(1).sum(dim=1)


def cosine(a: Tensor, t: Tensor) -> Tensor:
    """DM with a bound: the cosine of the whole top-k maps, in −1..1: [c, k, H', W'] twice -> [c]."""
    return torch.nn.functional.cosine_similarity(a.flatten(1), t.flatten(1), dim=1, eps=SMALL)


def dot_product_cosine(a: Tensor, t: Tensor, power: float = 2.0, least: float = 0.1) -> Tensor:
    """lucid's way: ⟨a, t⟩ · max(cos, 0.1)^2, unbounded but only in the target's direction: twice [c, k, H', W'] -> [c].

    The dot product is the mean over the map, so that the sizes of maps do not count. (`direction` with `cossim_pow` in
    lucid's optvis/objectives.py; Olah et al. 2017.)
    """
    positions = a[0, 0].numel()
    return dot_product(a, t) / positions * cosine(a, t).clamp(min=least) ** power


def summed_distance(a: Tensor, t: Tensor) -> Tensor:
    """mdist as printed (Eq. 3), Σ_j ‖a_j − t_j‖, one norm a channel: [c, k, H', W'] twice -> [c]."""
    return ((a - t).flatten(2).square().sum(dim=2) + SMALL).sqrt().sum(dim=1)


def relative_distance(a: Tensor, t: Tensor) -> Tensor:
    """‖a − t‖/‖t‖ over channels and map, so that it means the same on every network, layer and k: -> [c]."""
    difference = ((a - t).flatten(1).square().sum(dim=1) + SMALL).sqrt()
    return difference / (t.flatten(1).norm(dim=1) + SMALL)


@dataclass(frozen=True)
class Objective:
    """Which terms, over which channels, how strongly. The defaults are the calibrated objective.

    dm, ad, penalty, tv: weights of the terms; 0 switches one off. The penalty's comes on top of the scheduled λ.
    match: DM as the cosine, the dot product as printed, or their product (lucid's way, to compare with).
    distance: mdist relative to the target, `summed` over channels as printed, or `elementwise`, where AD is the mean
        over all D channels of each channel's own (the released program).
    gain: s; the distance is measured to s·t. 1 reproduces the facet, more exaggerates it evenly.
    pooled: use the means over the map in place of the maps.
    channels: `own` top-k channels, or those of every facet, each facet's DM summed and everything else taken C²
        times, as the released program does. (Other facets' channels, never their images or targets.)
    reduction: P as the mean or the sum of |a_{i−1}|.
    adaptive: (r, b) trained; fixed at their start; or restarted each step together with the optimiser.
    r, b: where Barron's scale and shape start.
    """

    dm: float = 8.0
    ad: float = 1.0
    penalty: float = 1.0
    tv: float = 3.0
    match: Match = "cosine"
    distance: Distance = "relative"
    gain: float = 2.5
    pooled: bool = False
    channels: Channels = "own"
    reduction: Reduction = "mean"
    adaptive: Adaptive = "trained"
    r: float = 1.0
    b: float = 1.0

    def __post_init__(self) -> None:
        for name in ("dm", "ad", "penalty", "tv"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"objective.{name}={getattr(self, name)}: 0 (off) or a positive weight is right")
        if not self.gain > 0:
            raise ValueError(f"objective.gain={self.gain}: above 0 is right, 1 reproduces the facet")
        self.adaptive_distance(1)  # which knows what r and b can be
        if self.dm == 0 and self.ad == 0:
            raise ValueError("objective.dm and objective.ad are both 0: nothing would be drawn; keep one of them")
        if self.distance == "elementwise" and not self.pooled:
            raise ValueError("objective.distance=elementwise is over channels, so it needs objective.pooled=true")

    def adaptive_distance(self, facets: int) -> AdaptiveDistance:
        """The (r, b) that this objective starts with, for so many facets."""
        return AdaptiveDistance(facets, scale=self.r, shape=self.b, trainable=self.adaptive == "trained")

    def weights(self, lam: float, facets: int) -> dict[str, float]:
        """What each term is multiplied by in the total, for λ = `lam` and C = `facets`: a sign, a weight, a count."""
        times = 1 if self.channels == "own" else facets**2
        return {
            "dm": -self.dm,
            "ad": times * self.ad,
            "penalty": times * self.penalty * lam,
            "tv": self.tv,
        }

    def __call__(
        self,
        a: Tensor,
        previous: Tensor,
        images: Tensor,
        targets: Tensor,
        top_k: Tensor,
        facets: slice,
        adaptive: AdaptiveDistance,
        lam: float,
    ) -> LossTerms:
        """All terms for the facets `facets` of C.

        a [c, D, H', W'], previous [c, …], images [c, ch, S, S] are theirs; targets [C, D, H', W'], top_k [C, k] and
        `adaptive` those of all C; lam is λ at this step.
        """
        t, own = targets[facets], top_k[facets]
        if len(a) > 1 or a.device.type != "cpu":
            return self._terms(a, previous, images, t, own, top_k, facets, adaptive, lam)
        # torch shares a single long sum out among its threads, but not one of several: one facet is taken twice, so
        # that it gives the same bits alone as among others.
        a, previous, images, t, own = (torch.cat([x, x]) for x in (a, previous, images, t, own))
        twice = self._terms(a, previous, images, t, own, top_k, facets, adaptive, lam)
        return LossTerms(*(getattr(twice, name)[:1] for name in LossTerms.names()))

    def _terms(
        self,
        a: Tensor,
        previous: Tensor,
        images: Tensor,
        t: Tensor,
        own: Tensor,
        top_k: Tensor,
        facets: slice,
        adaptive: AdaptiveDistance,
        lam: float,
    ) -> LossTerms:
        """The same for targets t and channels `own` of the facets at hand."""
        if self.pooled:
            a, t = (x.mean(dim=(2, 3), keepdim=True) for x in (a, t))
        a_top, t_top = take_channels(a, own), take_channels(t, own)
        if self.channels == "own":
            dm, times = self._match(a_top, t_top), 1
        else:
            every = [top_k[c].expand(len(t), -1) for c in range(len(top_k))]
            # One after the other: torch's sum takes another order for another number of facets at hand.
            dm = a.new_zeros(len(a))
            for j in every:
                dm = dm + self._match(take_channels(a, j), take_channels(t, j))
            times = len(top_k) ** 2
        if self.distance == "relative":
            mdist = relative_distance(a_top, self.gain * t_top)
            ad = adaptive(mdist, facets)
        elif self.distance == "summed":
            mdist = summed_distance(a_top, self.gain * t_top)
            ad = adaptive(mdist, facets)
        else:
            difference = (a - self.gain * t).flatten(1)
            mdist = difference.abs().mean(dim=1)
            # The released program divides by the number of images too: its mean runs over facets and channels.
            ad = adaptive(difference, facets).mean(dim=1) / len(top_k)
        everywhere = tuple(range(1, previous.ndim))  # no flattening: it would copy maps that lie channels last
        p = previous.abs()
        penalty = p.mean(dim=everywhere) if self.reduction == "mean" else p.sum(dim=everywhere)
        tv = total_variation(images)
        total = times * (self.ad * ad + self.penalty * lam * penalty) - self.dm * dm
        if self.tv:
            total = total + self.tv * tv
        return LossTerms(dm, mdist, ad, penalty, tv, total)

    def _match(self, a: Tensor, t: Tensor) -> Tensor:
        match = {"cosine": cosine, "dot_product": dot_product, "dot_product_cosine": dot_product_cosine}
        return match[self.match](a, t)


def gradient_norms(terms: LossTerms, weights: Mapping[str, float], images: Tensor) -> Tensor:
    """How strongly each term alone pulls at the pictures: ‖∂(w·term)/∂image‖, [4, c] for the first of GRADIENTS.

    terms: of `images` [c, ch, S, S] in 0..1, whose graph is kept; weights: of `Objective.weights`. A term without
    weight, or that the image has no part in, has 0. One pass back through the network for each of the others.
    """
    norms = []
    for name in GRADIENTS[:-1]:
        weight, term, gradient = weights.get(name, 0), getattr(terms, name), None
        if weight and term.requires_grad:
            [gradient] = torch.autograd.grad((weight * term).sum(), images, retain_graph=True, allow_unused=True)
        norms.append(images.new_zeros(len(images)) if gradient is None else gradient.flatten(1).norm(dim=1))
    return torch.stack(norms).detach()


GRADIENTS = ("dm", "ad", "penalty", "tv", "total")


def take_channels(maps: Tensor, channels: Tensor) -> Tensor:
    """maps [c, D, H', W'], channels [c, k] -> [c, k, H', W']: to each facet its own."""
    return maps.gather(1, channels[:, :, None, None].expand(-1, -1, *maps.shape[2:]))

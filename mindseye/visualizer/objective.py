"""What is minimised: L = AD − DM + λ·P (Eq. 2-4) and what stands beside it, per facet and by name. Facets never mix.

Shapes: c facets at hand of C, D channels, H'×W' maps; a = activation of the target layer, t = target activation,
a_{i−1} = activation of the previous layer.
"""

import functools
import math
import operator
from collections.abc import Iterable, Mapping
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from mindseye.fields import Weight, value
from mindseye.visualizer.anchor import Anchor, anchor_distance
from mindseye.visualizer.distance import LARGEST_SCALE, SHAPE_RANGE, SMALLEST_SCALE, AdaptiveDistance
from mindseye.visualizer.filters import total_variation
from mindseye.visualizer.matching import Matching
from mindseye.visualizer.terms import Adaptive, LossFunction, LossTerms, Seen, gradient_names, own_terms

Match = Literal["cosine", "dot_product", "dot_product_cosine"]
Distance = Literal["relative", "summed", "elementwise"]
Channels = Literal["own", "every_facet"]
Reduction = Literal["mean", "sum"]

SMALL = 1e-12


def matching_of(objective: LossFunction) -> Matching | None:
    """How an objective matches the layers on the way; None where it does not, or knows no such thing."""
    matching = getattr(objective, "matching", None)
    return matching if isinstance(matching, Matching) and matching.weight else None


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


def as_strong(t: Tensor, strength: Tensor) -> Tensor:
    """t [c, k, H', W'] scaled to the norm `strength` [c]."""
    return t * (strength / (t.flatten(1).norm(dim=1) + SMALL))[:, None, None, None]


def strength(a: Tensor, photographs: Tensor, gain: float) -> Tensor:
    """(log(‖a‖/‖a‖ of the photographs) − log s)² over channels and map: a [c, k, H', W'], photographs [c] -> [c].

    0 where a is s times as strong as the photographs' own maps. A logarithm, so that twice too strong and half as
    strong count alike, and no scale of the layer's counts.
    """
    ratio = (a.flatten(1).square().sum(dim=1) + SMALL).sqrt() / (photographs + SMALL)
    return (ratio.log() - math.log(gain)).square()


def penalty(previous: Tensor, reduction: Reduction = "mean") -> Tensor:
    """P (Eq. 4), the mean or the sum of |a_{i−1}|: previous [c, …] -> [c]."""
    everywhere = tuple(range(1, previous.ndim))  # no flattening: it would copy maps that lie channels last
    return previous.abs().mean(dim=everywhere) if reduction == "mean" else previous.abs().sum(dim=everywhere)


def _repeated(tensors: Iterable[Tensor], times: int) -> list[Tensor]:
    """Each [c, …] so many times over: [times·c, …]."""
    return [x if times == 1 else torch.cat([x] * times) for x in tensors]


def take_channels(maps: Tensor, channels: Tensor) -> Tensor:
    """maps [c, D, H', W'], channels [c, k] -> [c, k, H', W']: to each facet its own."""
    return maps.gather(1, channels[:, :, None, None].expand(-1, -1, *maps.shape[2:]))


@value
class Objective:
    """Which terms, over which channels, how strongly. The defaults are the calibrated objective."""

    dm: Weight = 8.0
    """Weight of DM, the match of the top-k maps with the target's; 0 switches it off, as it does every term."""
    ad: Weight = 1.0
    """Weight of AD, the adaptive distance to the target."""
    strength: Weight = 40.0
    """Weight of (log(‖a‖ / that of the photographs) − log gain)²; `schedule.strength` has its share."""
    penalty: Weight = 1.0
    """Weight of P, on top of the scheduled λ (`schedule.penalty`)."""
    tv: Weight = 5.0
    """Weight of the picture's total variation."""
    matching: Matching = Matching()
    """How pictures are held to their photographs at the layers on the way, and how strongly."""
    anchor: Anchor = Anchor()
    """How pictures are held to what they started from, at an early layer, and how strongly; off by default. Its term
    stands with those of one's own, as `anchor`, where it is on."""
    match: Match = "cosine"
    """DM as the cosine, the dot_product as printed, or their product, dot_product_cosine (lucid's way)."""
    distance: Distance = "relative"
    """mdist relative to the target, summed over channels as printed, or elementwise, where AD is the mean over all D
    channels of each channel's own (the released program)."""
    gain: Annotated[float, Field(gt=0)] = 1.0
    """s: `strength` holds ‖a‖ to s times that of the photographs, and the relative distance is measured to the target
    of that strength (a blend of maps that are strong in different places is weaker than any of them). 1 is as strong as
    the photographs, more exaggerates. The other distances are measured to s·t."""
    pooled: bool = False
    """Use the means over the map in place of the maps."""
    channels: Channels = "own"
    """The facet's own top-k channels, or those of every_facet, each facet's DM summed and everything else taken C²
    times, as the released program does. (Other facets' channels, never their images or targets.)"""
    reduction: Reduction = "mean"
    """P as the mean or the sum of |a_{i−1}|."""
    adaptive: Adaptive = "trained"
    """Barron's (r, b) trained, fixed at their start, or restarted each step together with the optimiser."""
    r: Annotated[float, Field(gt=SMALLEST_SCALE, le=LARGEST_SCALE)] = 1.0
    """Where Barron's scale starts."""
    b: Annotated[float, Field(gt=SHAPE_RANGE[0], lt=SHAPE_RANGE[1])] = 1.0
    """Where Barron's shape starts."""

    def __post_init__(self) -> None:
        if self.dm == 0 and self.ad == 0 and self.matching.weight == 0:
            raise ValueError("dm, ad and matching.weight are all 0: nothing would be drawn; keep one")
        if self.distance == "elementwise" and not self.pooled:
            raise ValueError("distance=elementwise is over channels: it needs pooled")

    def adaptive_distance(self, facets: int) -> AdaptiveDistance:
        """The (r, b) that this objective starts with, for so many facets."""
        return AdaptiveDistance(facets, scale=self.r, shape=self.b, trainable=self.adaptive == "trained")

    def weights(self, now: Mapping[str, float], facets: int) -> dict[str, float]:
        """What each term is multiplied by in the total: a sign, a weight, a scheduled value, a count of C = `facets`.

        now: the scheduled values of the step.
        """
        times = 1 if self.channels == "own" else facets**2
        return {
            "dm": -self.dm,
            "ad": times * self.ad,
            "strength": self.strength * now["strength"],
            "matching": self.matching.weight * now["matching"],
            "penalty": times * self.penalty * now["penalty"],
            "tv": self.tv,
            **({"anchor": self.anchor.weight} if self.anchor.weight else {}),
        }

    def extra(self, seen: Seen) -> Mapping[str, Tensor]:
        """Terms of a subclass's own by their names, each [c]; its `weights` says by what each is multiplied."""
        return {}

    def __call__(self, seen: Seen) -> LossTerms:
        """All terms for the facets at hand."""
        c = len(seen.activation)
        # torch shares a single long sum out among its threads, but not one of several: one facet is taken twice, so
        # that it gives the same bits alone as among others.
        times = 2 if c == 1 and seen.activation.device.type == "cpu" else 1
        terms = self._terms(seen, times)
        weights = self.weights(seen.now, len(seen.targets))
        # As they are seen, not twice: a term of one's own may look at anything.
        extra = own_terms(self, self.extra(seen), self._anchor(seen, weights, times), weights, c)
        terms |= zip(extra, _repeated(extra.values(), times), strict=True)
        # One after the other: torch's sum takes another order for another number of facets at hand.
        weighted = [weight * terms[name] for name, weight in weights.items() if weight]
        # Schedules may let every weight fall to 0.
        terms["total"] = functools.reduce(operator.add, weighted) if weighted else 0 * seen.images.sum(dim=(1, 2, 3))
        ours = {name: term[:c] if times > 1 else term for name, term in terms.items() if name not in extra}
        return LossTerms(**ours, extra=extra)

    def _terms(self, seen: Seen, times: int) -> dict[str, Tensor]:
        """Its terms by name, each [times·c], of everything `times` over."""
        a, previous, images, t, own, *way = _repeated(
            (seen.activation, seen.previous, seen.images, seen.target, seen.top_k, *seen.way), times
        )
        if self.pooled:
            a, t = (x.mean(dim=(2, 3), keepdim=True) for x in (a, t))
        a_top, t_top = take_channels(a, own), take_channels(t, own)
        dm = self._match(a_top, t_top) if self.channels == "own" else self._match_every(a, t, seen.channels)
        # Means over the map have their place no more: blended, they are as strong as the photographs' own.
        photographed = t_top.flatten(1).norm(dim=1) if self.pooled else seen.strengths[seen.facets]
        mdist, ad = self._distance(a, t, a_top, t_top, photographed, seen)
        matched = self.matching.weight and seen.references
        return {
            "dm": dm,
            "mdist": mdist,
            "ad": ad,
            "strength": strength(a_top, photographed, self.gain),
            "penalty": penalty(previous, self.reduction),
            "matching": self.matching(way, seen.photographs) if matched else torch.zeros_like(dm),
            "tv": total_variation(images),
        }

    def _anchor(self, seen: Seen, weights: object, times: int) -> dict[str, Tensor]:
        """The anchor's term [c] by its name, where it is on."""
        if not isinstance(weights, Mapping) or "anchor" not in weights:
            return {}
        if seen.early is None or seen.early_start is None:
            raise ValueError("the anchor is on, and what it looks at was not recorded: draw with `fit`")
        return {"anchor": anchor_distance(*_repeated((seen.early, seen.early_start), times))[: len(seen.early)]}

    def _match_every(self, a: Tensor, t: Tensor, channels: Tensor) -> Tensor:
        """DM summed over the channels of every facet: the released program's."""
        # One after the other: torch's sum takes another order for another number of facets at hand.
        dm = a.new_zeros(len(a))
        for j in channels:
            j = j.expand(len(t), -1)
            dm = dm + self._match(take_channels(a, j), take_channels(t, j))
        return dm

    def _distance(
        self, a: Tensor, t: Tensor, a_top: Tensor, t_top: Tensor, photographed: Tensor, seen: Seen
    ) -> tuple[Tensor, Tensor]:
        """mdist and AD."""
        if self.distance == "elementwise":
            difference = (a - self.gain * t).flatten(1)
            mdist = difference.abs().mean(dim=1)
            # The released program divides by the number of images too: its mean runs over facets and channels.
            return mdist, seen.adaptive(difference, seen.facets).mean(dim=1) / len(seen.targets)
        if self.distance == "summed":
            mdist = summed_distance(a_top, self.gain * t_top)
        else:
            mdist = relative_distance(a_top, self.gain * as_strong(t_top, photographed))
        return mdist, seen.adaptive(mdist, seen.facets)

    def _match(self, a: Tensor, t: Tensor) -> Tensor:
        match = {"cosine": cosine, "dot_product": dot_product, "dot_product_cosine": dot_product_cosine}
        return match[self.match](a, t)


def gradient_norms(terms: LossTerms, weights: Mapping[str, float], images: Tensor) -> Tensor:
    """How strongly each term alone pulls at the pictures: ‖∂(w·term)/∂image‖, of `gradient_names` but the total's.

    terms: of `images` [c, ch, S, S] in 0..1, whose graph is kept; weights: of `Objective.weights`. A term without
    weight, or that the image has no part in, has 0. One pass back through the network for each of the others.
    """
    norms, known = [], terms.by_name()
    for name in gradient_names(terms.extra)[:-1]:
        weight, term, gradient = weights.get(name, 0), known[name], None
        if weight and term is not None and term.requires_grad:
            [gradient] = torch.autograd.grad((weight * term).sum(), images, retain_graph=True, allow_unused=True)
        norms.append(images.new_zeros(len(images)) if gradient is None else gradient.flatten(1).norm(dim=1))
    return torch.stack(norms).detach()



"""What is minimised: L = AD − DM + λ·P (Eq. 2-4) and what stands beside it, per facet and by name. Facets never mix.

Shapes: c facets at hand of C, D channels, H'×W' maps; a = activation of the target layer, t = target activation,
a_{i−1} = activation of the previous layer.
"""

import functools
import math
import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from numbers import Real
from typing import Annotated, Literal, Protocol

import torch
from pydantic import Field
from torch import Tensor

from mindseye.facets.way_statistics import WayStatistics
from mindseye.fields import Weight, value
from mindseye.visualizer.anchor import Anchor, anchor_distance
from mindseye.visualizer.distance import LARGEST_SCALE, SHAPE_RANGE, SMALLEST_SCALE, AdaptiveDistance
from mindseye.visualizer.filters import total_variation
from mindseye.visualizer.matching import Matching
from mindseye.words import called, did_you_mean, on_one_line, with_class

Match = Literal["cosine", "dot_product", "dot_product_cosine"]
Distance = Literal["relative", "summed", "elementwise"]
Channels = Literal["own", "every_facet"]
Reduction = Literal["mean", "sum"]
Adaptive = Literal["trained", "fixed", "restarted"]

SMALL = 1e-12


@dataclass(frozen=True)
class Seen:
    """What an objective sees: what the network answers the pictures of c facets at hand, and what is known of all C."""

    activation: Tensor  # [c, D, H', W']: a, of the target layer
    previous: Tensor  # [c, …]: a_{i−1}
    way: tuple[Tensor, ...]  # each [c, D_l, H_l, W_l]: the pictures, then the layers on the way that were asked for
    images: Tensor  # [c, ch, S, S] in 0..1: the pictures themselves, as no view has moved them
    targets: Tensor  # [C, D, H', W']: t of all facets
    strengths: Tensor  # [C]: ‖a‖ of the photographs' own top-k maps
    channels: Tensor  # [C, k] int64: the top-k of all facets
    references: tuple[WayStatistics, ...]  # of all facets: how their photographs are answered on the way
    facets: slice  # which of the C are at hand
    adaptive: AdaptiveDistance  # (r, b) of all facets
    now: Mapping[str, float]  # the scheduled values of this step by name, see `Schedules`; λ is `penalty`
    early: Tensor | None = None  # [c, D_e, H_e, W_e]: of the layer that the objective anchors at; None without one
    early_start: Tensor | None = None  # of the pictures that these started from, in the same views, without gradient

    @property
    def target(self) -> Tensor:
        """t of the facets at hand: [c, D, H', W']."""
        return self.targets[self.facets]

    @property
    def top_k(self) -> Tensor:
        """The top-k channels of the facets at hand: [c, k] int64."""
        return self.channels[self.facets]

    @property
    def photographs(self) -> tuple[WayStatistics, ...]:
        """How the photographs of the facets at hand are answered on the way."""
        return tuple(reference.of(self.facets) for reference in self.references)


@dataclass(frozen=True, kw_only=True)
class LossTerms:
    """Every term of the loss, each [c], before its weight, or None; `total` is their weighted sum."""

    dm: Tensor | None = None  # DM, the activation that is maximised
    mdist: Tensor | None = None  # the distance to the target, before the robust loss
    ad: Tensor | None = None  # AD, its negative log-likelihood
    strength: Tensor | None = None  # (log(‖a‖ / ‖a‖ of the photographs) − log s)²
    matching: Tensor | None = None  # the distance to the photographs at the layers on the way
    penalty: Tensor | None = None  # P, without λ
    tv: Tensor | None = None  # total variation of the image, 0..1 per pixel
    total: Tensor
    extra: Mapping[str, Tensor] = field(default_factory=dict)  # terms of one's own by their names

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """The names in order, but for those of one's own."""
        return tuple(term.name for term in fields(cls) if term.name != "extra")

    def by_name(self) -> dict[str, Tensor | None]:
        """Every term, those of one's own last."""
        return {name: getattr(self, name) for name in self.names()} | dict(self.extra)

    def stacked(self) -> Tensor:
        """All terms without their graph, 0 where there is none: [terms, c]."""
        terms = self.by_name().values()
        return torch.stack([torch.zeros_like(self.total) if term is None else term.detach() for term in terms])


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

    def weights(self, now: Mapping[str, float], facets: int) -> dict[str, float]:
        """By what the terms are multiplied in the total, for a step's scheduled values and C = `facets`; 0 is off.

        `gradient_norms` takes each weighted term's own gradient by it.
        """

    def __call__(self, seen: Seen) -> LossTerms:
        """The terms, each [c], for the facets at hand; `total` is what is minimised."""


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
        a, previous, images, t, own = seen.activation, seen.previous, seen.images, seen.target, seen.top_k
        way, photographs = list(seen.way), seen.photographs
        early = [] if seen.early is None or seen.early_start is None else [seen.early, seen.early_start]
        alone = len(a) == 1 and a.device.type == "cpu"
        if alone:
            # torch shares a single long sum out among its threads, but not one of several: one facet is taken twice,
            # so that it gives the same bits alone as among others.
            early = [torch.cat([x, x]) for x in early]
            a, previous, images, t, own, *way = (torch.cat([x, x]) for x in (a, previous, images, t, own, *way))
        if self.pooled:
            a, t = (x.mean(dim=(2, 3), keepdim=True) for x in (a, t))
        a_top, t_top = take_channels(a, own), take_channels(t, own)
        dm = self._match(a_top, t_top) if self.channels == "own" else self._match_every(a, t, seen.channels)
        # Means over the map have their place no more: blended, they are as strong as the photographs' own.
        photographed = t_top.flatten(1).norm(dim=1) if self.pooled else seen.strengths[seen.facets]
        mdist, ad = self._distance(a, t, a_top, t_top, photographed, seen)
        strong = strength(a_top, photographed, self.gain)
        everywhere = tuple(range(1, previous.ndim))  # no flattening: it would copy maps that lie channels last
        p = previous.abs()
        penalty = p.mean(dim=everywhere) if self.reduction == "mean" else p.sum(dim=everywhere)
        matching = self.matching(way, photographs) if self.matching.weight and photographs else torch.zeros_like(dm)
        terms = {
            "dm": dm, "mdist": mdist, "ad": ad, "strength": strong, "matching": matching, "penalty": penalty,
            "tv": total_variation(images),
        }  # fmt: skip
        weights = self.weights(seen.now, len(seen.targets))
        # As they are seen, not twice: a term of one's own may look at anything.
        extra = dict(_extra_of(self, self.extra(seen)))
        if isinstance(weights, Mapping) and "anchor" in weights:
            if "anchor" in extra:
                raise ValueError(f"the objective, {called(self)}, has a term anchor of its own: call it otherwise")
            if not early:
                raise ValueError("the anchor is on, and what it looks at was not recorded: draw with `fit`")
            terms["anchor"] = anchor_distance(*early)
            extra["anchor"] = terms["anchor"][: len(seen.target)]
        check_names(self, extra, weights)
        for name, term in extra.items():
            _check_term(self, name, term, len(seen.target))
            terms.setdefault(name, torch.cat([term, term]) if alone else term)
        # One after the other: torch's sum takes another order for another number of facets at hand.
        weighted = [weight * terms[name] for name, weight in weights.items() if weight]
        # Schedules may let every weight fall to 0.
        terms["total"] = functools.reduce(operator.add, weighted) if weighted else 0 * images.sum(dim=(1, 2, 3))
        ours = {name: term[:1] if alone else term for name, term in terms.items() if name not in extra}
        return LossTerms(**ours, extra=extra)

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


GRADIENTS = ("dm", "ad", "strength", "matching", "penalty", "tv", "total")
TAKEN = (*LossTerms.names(), "step", "facet", "r", "b")  # columns of the history that no own term can be called


def gradient_names(extra: Iterable[str]) -> tuple[str, ...]:
    """The terms whose own gradients are noted, with those of one's own; the total's is the last."""
    return (*GRADIENTS[:-1], *extra, GRADIENTS[-1])


def check_names(objective: object, extra: object, weights: object) -> None:
    """Raises ValueError, in one line, for own terms and weights that are none by their names, for an own term without a
    name or weight, and for a weight without a term."""
    whose = f"the objective, {called(objective)},"
    extra = _extra_of(objective, extra)
    if not isinstance(weights, Mapping):
        raise ValueError(
            f"weights() of {whose} must give {{NAME: number}}, a number for each term, not "
            f"{called(weights)}"
        )
    for name in extra:
        if not str(name).isidentifier() or name in TAKEN or name.startswith(("gradient_", "schedule_")):
            raise ValueError(
                f"a term of {whose} must have a word of letters, digits and _ as its name, but none of "
                f"{', '.join(TAKEN)}, not {name!r}"
            )
        if name not in weights:
            raise ValueError(f"{whose} has a term {name} without a weight: its weights() must name it")
    known = (*LossTerms.names(), *extra)
    for name, weight in weights.items():
        if name not in known:
            raise ValueError(
                f"{whose} has a weight for {name} and no such term{did_you_mean(str(name), known)}"
            )
        # What lies on a device is not looked at: it would be waited for.
        if not (isinstance(weight, Tensor) or (isinstance(weight, Real) and math.isfinite(weight))):
            shown = weight if isinstance(weight, Real) else called(weight)
            raise ValueError(f"the weight of {name} of {whose} must be a finite number, not {shown}")


def _extra_of(objective: object, extra: object) -> Mapping[str, Tensor]:
    """The own terms. Raises ValueError where they are none by their names."""
    if isinstance(extra, Mapping):
        return extra
    raise ValueError(
        f"extra of the objective, {called(objective)}, must give {{NAME: tensor}}, one real number a facet for each "
        f"name, not {called(extra)}"
    )


def _check_term(objective: object, name: str, term: object, facets: int) -> None:
    whose = f"the objective, {called(objective)},"
    if not isinstance(term, Tensor):
        raise ValueError(f"{name} of {whose} must be a tensor [{facets}], not {called(term)}")
    if term.shape != (facets,) or not term.is_floating_point():
        kind = "" if term.is_floating_point() else f" of {str(term.dtype).removeprefix('torch.')}"
        raise ValueError(
            f"{name} of {whose} must be [{facets}], one real number a facet, not "
            f"{list(term.shape)}{kind}"
        )


def check_terms(objective: object, terms: object, facets: int) -> None:
    """Raises ValueError, in one line, where an objective gives anything but one number a facet in each term."""
    if not isinstance(terms, LossTerms):
        raise ValueError(
            f"the objective, {called(objective)}, must give LossTerms(total=…, …), not {called(terms)}"
        )
    _extra_of(objective, terms.extra)
    for name, term in terms.by_name().items():
        if term is not None or name == "total" or name in terms.extra:
            _check_term(objective, name, term, facets)


def check_objective(objective: LossFunction, seen: Seen) -> LossTerms:
    """Its terms of what it may see, once, before anything is drawn. Raises ValueError in one line where it fails."""
    try:
        terms = objective(seen)
        weights = objective.weights(seen.now, len(seen.targets))
    except Exception as error:  # code of the user's own may do anything
        raise ValueError(failure_of(objective, error)) from error
    check_terms(objective, terms, len(seen.target))
    check_names(objective, terms.extra, weights)
    _check_finite(objective, terms, seen)
    return terms


def failure_of(objective: object, error: Exception) -> str:
    """One line for what an objective raises."""
    if not isinstance(error, ValueError):
        return f"the objective, {called(objective)}, failed: {with_class(error, place=True)}"
    reason = on_one_line(error)
    return reason if "objective" in reason else f"the objective, {called(objective)}: {reason}"


def _check_finite(objective: object, terms: LossTerms, seen: Seen) -> None:
    """Raises ValueError for an own term or a total that is no number for any facet, though the layer answers all."""
    answered = bool((seen.strengths > 0).all() and seen.activation.isfinite().all() and seen.previous.isfinite().all())
    for name, term in {**terms.extra, "total": terms.total}.items():
        if answered and not term.isfinite().any():
            raise ValueError(
                f"{name} of the objective, {called(objective)}, must be a finite number, not {term.tolist()[0]}, which "
                "it is for pictures of noise"
            )


def take_channels(maps: Tensor, channels: Tensor) -> Tensor:
    """maps [c, D, H', W'], channels [c, k] -> [c, k, H', W']: to each facet its own."""
    return maps.gather(1, channels[:, :, None, None].expand(-1, -1, *maps.shape[2:]))

"""What an objective sees and gives, and what is wrong with one of the user's own.

Shapes: c facets at hand of C, D channels, H'×W' maps, S×S pictures.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from numbers import Real
from typing import Literal, Protocol

import torch
from torch import Tensor

from mindseye.facets.way_statistics import WayStatistics
from mindseye.visualizer.distance import AdaptiveDistance
from mindseye.words import called, did_you_mean, on_one_line, with_class

Adaptive = Literal["trained", "fixed", "restarted"]


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


def own_terms(
    objective: object, extra: object, ours: Mapping[str, Tensor], weights: object, facets: int
) -> dict[str, Tensor]:
    """The terms of one's own and `ours` that stand among them, [facets] each, as one.

    Raises ValueError, in one line, where they are none: see `check_names`, `check_terms`.
    """
    extra = _extra_of(objective, extra)
    for name in ours:
        if name in extra:
            raise ValueError(f"the objective, {called(objective)}, has a term {name} of its own: call it otherwise")
    both = {**extra, **ours}
    check_names(objective, both, weights)
    for name, term in both.items():
        _check_term(objective, name, term, facets)
    return both


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

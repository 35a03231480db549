"""What cannot be drawn is said before any photograph is looked at: two pictures of noise stand for the facets."""

import torch

from mindseye.facets.way_statistics import IMAGE, joined, of_photographs
from mindseye.networks.chance import seeded
from mindseye.networks.preparing import PreparedNetwork
from mindseye.visualizer.answering import answer
from mindseye.visualizer.distance import AdaptiveDistance
from mindseye.visualizer.method import Method
from mindseye.visualizer.terms import LossFunction, Seen, check_objective, failure_of
from mindseye.words import called

PICTURES = 2  # as many facets: one number a facet is then not taken for one number in all


def try_out(network: PreparedNetwork, method: Method, k: int, side: int) -> int:
    """How many channels the layer has. Raises ValueError, in one line, where they are fewer than k, and for an
    objective that gives what is none.

    side: of the pictures, in pixels. The network looks at them once.
    """
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(PICTURES, network.channels, side, side, generator=generator).to(network.mean.device)
    with seeded(0):
        answered = answer(network, images.requires_grad_())
    a = answered.activation
    D = a.shape[1]
    if k > D:
        raise ValueError(f"k must be 1 to {D} (the channels of {network.layer}), not {k}")
    if answered.previous is None or not a.requires_grad:
        return D  # the fit says what is missing, in its own words
    way = dict(zip((IMAGE, *network.way), (images, *answered.way), strict=True))
    early = answered.early
    weights = torch.ones(1, device=a.device)
    seen = Seen(
        activation=a,
        previous=answered.previous,
        way=tuple(way.values()),
        images=images,
        targets=a.detach().flip(0),
        strengths=a.detach()[:, :k].flatten(1).norm(dim=1),
        channels=torch.arange(k, device=a.device).expand(PICTURES, -1),
        references=tuple(
            joined([of_photographs(name, maps.detach()[c : c + 1], weights) for c in range(PICTURES)])
            for name, maps in way.items()
        ),
        facets=slice(0, PICTURES),
        adaptive=_adaptive(method.objective).to(a.device),
        now=method.schedule.at(1, method.steps),
        early=early,
        early_start=None if early is None else early.detach().flip(0),
    )
    terms = check_objective(method.objective, seen)
    if not terms.total.requires_grad:
        raise ValueError(
            f"total of the objective, {called(method.objective)}, has no gradient: it must be computed from what it "
            "sees, without detach() or no_grad()"
        )
    return D


def _adaptive(objective: LossFunction) -> AdaptiveDistance:
    try:
        adaptive = objective.adaptive_distance(PICTURES)
    except Exception as error:  # code of the user's own may do anything
        raise ValueError(failure_of(objective, error)) from error
    if not isinstance(adaptive, AdaptiveDistance):
        raise ValueError(
            f"adaptive_distance of the objective, {called(objective)}, must give an AdaptiveDistance, not "
            f"{called(adaptive)}"
        )
    return adaptive

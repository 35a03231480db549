"""Would the same facets come out again? Discovery's clusters, drawn again of slightly other activations."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

# Noise of float32's rounding and of TF32's, as shares of the activations, and how often each is drawn.
ROUNDING, TF32 = 1e-6, 1e-3
KINDS_OF_DRAW = ("rounding", "tf32", "subsets")  # of draws, by name
SUBSET = 0.8  # of the photographs, in the third kind of draw
MOST = 600  # photographs that draws are made of; of more, so many by the seed
MOST_CHEAP = 5000  # where a draw takes no t-SNE, of a layer that has few channels
MOST_VALUES = MOST * 2048  # photographs times channels there: with more the components would cost too much
FIRM = 0.6  # a facet below it should not be trusted (Hennig 2007); above 0.75 it is stable
STAYS = 0.75  # a photograph stays with its facet in so many of the draws, or it stands for nothing


@dataclass(frozen=True)
class Draws:
    """What a discovery can afford: how many of each kind of draw, and of how many photographs at most."""

    counts: tuple[int, int, int]  # noise of rounding, of TF32, subsets
    most: int

    @classmethod
    def affordable(cls, channels: int, *, cheap: bool) -> "Draws":
        """At a layer of so many channels; `cheap` where no draw takes a t-SNE.

        >>> Draws.affordable(2048, cheap=True), Draws.affordable(64, cheap=True).most
        (Draws(counts=(1, 1, 6), most=600), 5000)
        """
        if not cheap:
            return cls((1, 1, 2), MOST)
        return cls((1, 1, 6), max(MOST, min(MOST_CHEAP, MOST_VALUES // channels)))


@dataclass(frozen=True)
class Firmness:
    """How firm C clusters of M photographs are. All in 0..1 but `agreement`, which can be a little below 0."""

    agreement: Tensor  # [3]: mean adjusted Rand index with the clusters as they are: rounding, TF32, subsets
    facets: Tensor  # [C]: of each facet the mean Jaccard index with what it is like most, least of the three kinds
    stays: Tensor  # [M]: in how many of the draws a photograph is with its facet

    def tensors(self) -> dict[str, Tensor]:
        """By name, to be kept."""
        return {"agreement": self.agreement, "facets": self.facets, "stays": self.stays}


def measure_firmness(
    means: Tensor,
    labels: Tensor,
    facets: int,
    space: Tensor,
    again: Callable[[Tensor, int], Tensor],
    *,
    draws: Draws | None = None,
    seed: int = 0,
) -> Firmness:
    """Cluster slightly other activations again: channel means [M, D] and their labels [M] -> how firm these are.

    `again(means, seed)` clusters other channel means [m, D] into labels [m]. Of more than `draws.most` photographs so
    many are drawn; the others stay as the nearest drawn one in `space` [M, P].
    """
    from sklearn.metrics import adjusted_rand_score

    draws = Draws.affordable(means.shape[1], cheap=True) if draws is None else draws
    M = len(means)
    generator = np.random.default_rng([seed, M, facets])
    drawn = torch.arange(M)
    if draws.most < M:
        drawn = torch.from_numpy(np.sort(generator.choice(M, draws.most, replace=False)))
    stayed, counted = torch.zeros(M), torch.zeros(M)
    agreement, jaccards = [], []
    number = 0
    for noise, count in zip((ROUNDING, TF32, 0.0), draws.counts, strict=True):
        scores, alike = [], []
        for _ in range(count):
            number += 1
            rows = drawn
            if noise == 0.0:
                kept = generator.choice(len(drawn), max(1, round(SUBSET * len(drawn))), replace=False)
                rows = drawn[np.sort(kept)]
            values = means[rows]
            if noise:
                factor = generator.standard_normal(values.shape, dtype=np.float32)
                values = values * (1 + noise * torch.from_numpy(factor))
            before = labels[rows]
            try:
                now = again(values, seed + number)
            except ValueError:  # fewer different photographs than facets: nothing holds
                now = torch.zeros_like(before)
            scores.append(float(adjusted_rand_score(before.numpy(), now.numpy())))
            overlap = _jaccard(before, now, facets)
            alike.append(overlap.max(dim=1).values)
            stayed[rows] += (overlap.argmax(dim=1)[before] == now).float()
            counted[rows] += 1
        agreement.append(float(np.mean(scores)))
        jaccards.append(torch.stack(alike).nanmean(dim=0))
    stays = stayed / counted.clamp(min=1)
    if draws.most < M:
        stays = stays[drawn[_nearest(space, space[drawn])]]
    worst = torch.stack(jaccards).nan_to_num(nan=1.0).amin(dim=0)
    return Firmness(torch.tensor(agreement), worst.float(), stays)


def _jaccard(before: Tensor, now: Tensor, facets: int) -> Tensor:
    """|both|/|either| of each old cluster with each new one: labels [m] twice -> [C, C]; NaN for an empty old one."""
    old = torch.nn.functional.one_hot(before, facets).double()
    new = torch.nn.functional.one_hot(now, facets).double()
    both = old.T @ new
    either = old.sum(dim=0)[:, None] + new.sum(dim=0)[None] - both
    return torch.where(old.sum(dim=0)[:, None] > 0, both / either.clamp(min=1), torch.nan)


def _nearest(points: Tensor, among: Tensor) -> Tensor:
    """Which of `among` [m, P] each point [M, P] is nearest to: int64 [M]."""
    return torch.cat([torch.cdist(chunk.double(), among.double()).argmin(dim=1) for chunk in points.split(4096)])

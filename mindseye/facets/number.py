"""How many kinds of photographs are there, if any: silhouette and firmness over C."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mindseye.facets.clusters import cluster
from mindseye.facets.firmness import MOST, SUBSET

TRIED = range(2, 13)
MOST_KINDS = 12  # the largest C that is tried
CLOUDS = 3  # of one normal distribution, that a silhouette is held against
SUBSETS = 6
STARTS = 20  # of k-means here: many C are tried
KINDS = 0.15  # of the silhouette above a cloud's: below, the photographs are one continuum
FIRM = 0.75  # mean adjusted Rand index of subsets' clusters: below, C is not taken


@dataclass(frozen=True)
class Choice:
    """What was found for every C that was tried, and the best of them."""

    numbers: tuple[int, ...]  # C
    silhouette: tuple[float, ...]  # mean over photographs (Rousseeuw 1987), −1 to 1
    cloud: tuple[float, ...]  # the same of points of one normal distribution with these variances
    firmness: tuple[float, ...]  # mean adjusted Rand index of the clusters of 80 % of the photographs with those of all
    best: int
    reason: str  # in one line

    @property
    def excess(self) -> tuple[float, ...]:
        """How far each silhouette is above that of one cloud."""
        return tuple(a - b for a, b in zip(self.silhouette, self.cloud, strict=True))

    @property
    def kinds(self) -> bool:
        """Whether the photographs fall into kinds; else they are one continuum, and any cut is as good."""
        place = self.numbers.index(self.best)
        return self.excess[place] >= KINDS and self.firmness[place] >= FIRM


def choose_number(
    points: Tensor,
    again: Callable[[Tensor], Tensor],
    numbers: Sequence[int] = TRIED,
    *,
    seed: int = 0,
    stage: Callable[[str, float | None], None] | None = None,
) -> Choice:
    """Try every C of `numbers` on points [M, P], of more than MOST photographs on so many.

    `again(rows)` gives the photographs `rows` (indices [m]) as points [m, P] of their own, found without the others.
    Best is the C whose silhouette is farthest above a cloud's, of those that are firm on subsets; where none is, the
    firmest.
    Raises ValueError where there are too few different photographs for any of them.
    """
    from sklearn.metrics import silhouette_score

    generator = np.random.default_rng(seed)
    drawn = torch.arange(len(points))
    if len(points) > MOST:
        drawn = torch.from_numpy(np.sort(generator.choice(len(points), MOST, replace=False)))
    kept = points[drawn]
    distinct = len(torch.unique(kept, dim=0))
    tried = [C for C in numbers if 2 <= C < min(distinct, len(kept))]
    if not tried and distinct > 2:
        asked = ", ".join(map(str, numbers))
        raise ValueError(f"C must be 2 to {distinct - 1}, fewer than there are different photographs, not {asked}")
    if not tried:
        given = " or C=2" if distinct == 2 else ""
        raise ValueError(f"to try C takes more than 2 different photographs, not {distinct}: give C=1{given}")
    deviations = kept.double().std(dim=0).numpy()
    rows: list[tuple[float, float, float]] = []
    for place, C in enumerate(tried):
        if stage is not None:
            stage(f"trying C={C}", place / len(tried))
        labels, _ = cluster(kept, C, seed=seed, starts=STARTS)
        clouds = []
        for number in range(CLOUDS):
            cloud = torch.from_numpy(generator.standard_normal(tuple(kept.shape)) * deviations)
            of_cloud, _ = cluster(cloud, C, seed=seed + number, starts=STARTS // 2)
            clouds.append(float(silhouette_score(cloud.numpy(), of_cloud.numpy())))
        own = float(silhouette_score(kept.double().numpy(), labels.numpy()))
        rows.append((own, float(np.mean(clouds)), _on_subsets(drawn, labels, again, C, generator)))
    silhouettes, clouds_of, firm = (tuple(round(value, 4) for value in column) for column in zip(*rows, strict=True))
    best = _best(silhouettes, clouds_of, firm)
    return Choice(tuple(tried), silhouettes, clouds_of, firm, tried[best], _reason(tried, silhouettes, clouds_of, firm))


def _on_subsets(
    drawn: Tensor, labels: Tensor, again: Callable[[Tensor], Tensor], C: int, generator: np.random.Generator
) -> float:
    from sklearn.metrics import adjusted_rand_score

    scores = []
    for number in range(SUBSETS):
        size = max(1, round(SUBSET * len(drawn)))
        part = torch.from_numpy(np.sort(generator.choice(len(drawn), size, replace=False)))
        try:
            other, _ = cluster(again(drawn[part]), C, seed=number, starts=STARTS)
            scores.append(float(adjusted_rand_score(labels[part].numpy(), other.numpy())))
        except ValueError:  # fewer different photographs than C
            scores.append(0.0)
    return float(np.mean(scores))


def _best(silhouettes: Sequence[float], clouds: Sequence[float], firm: Sequence[float]) -> int:
    places = range(len(firm))
    holding = [place for place in places if firm[place] >= FIRM]
    if not holding:
        return max(places, key=lambda place: firm[place])
    return max(holding, key=lambda place: silhouettes[place] - clouds[place])


def _reason(tried: Sequence[int], silhouettes: Sequence[float], clouds: Sequence[float], firm: Sequence[float]) -> str:
    best = _best(silhouettes, clouds, firm)
    shown = f"silhouette {silhouettes[best]:.2f} (one cloud's {clouds[best]:.2f}), firmness {firm[best]:.2f}"
    if firm[best] < FIRM:
        return (
            f"these photographs are one continuum at this layer; no C is firm, C={tried[best]} is the firmest: {shown}"
        )
    if silhouettes[best] - clouds[best] < KINDS:
        return f"these photographs are one continuum at this layer; C={tried[best]} cuts it best: {shown}"
    return f"C={tried[best]} tells kinds apart best: {shown}"

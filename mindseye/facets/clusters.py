"""Photographs into C kinds: k-means on the principal components, on t-SNE's plane, or on what many t-SNEs agree on."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from mindseye.facets.one_thread import one_thread

Clustering = Literal["components", "embedding", "consensus"]
STARTS = 500  # of k-means: the best of so many; with fewer another seed finds another best one now and then
STARTS_IN_EMBEDDING = 100  # a plane has fewer of them
MOST_FOR_STARTS = 5000  # photographs that the starts are tried on; with more, all then join the best one's centres
MOST_AT_ONCE = 1_000_000  # distances, of several starts
MOST_ITERATIONS = 300
RUNS = 20  # t-SNEs of a consensus


@dataclass(frozen=True)
class Clusters:
    """C clusters, numbered by size, the largest first."""

    labels: Tensor  # [M] int64
    centres: Tensor  # [C, P]: the mean of each one's members in the space
    space: Tensor  # [M, P], in which distances from the centres are taken


def find_clusters(
    way: Clustering,
    reduced: Tensor,
    flat: Callable[[Tensor, int], Tensor],
    facets: int,
    *,
    seed: int = 0,
    starts: int = STARTS,
    runs: int = RUNS,
) -> Clusters:
    """Principal components [M, P] -> clusters, by `way`; `flat(reduced, seed)` gives a t-SNE [M, 2].

    `components`: k-means on the components. `embedding`: on t-SNE's plane, as the paper does. `consensus`: k-means on
    how `runs` t-SNEs of different seeds cluster the photographs (k-means-based consensus, Wu et al. 2015). Raises
    ValueError for more facets than different photographs.
    """
    if way == "consensus":
        votes = []
        for run in range(runs):
            few = min(starts, STARTS_IN_EMBEDDING)
            labels, _ = cluster(flat(reduced, seed + run), facets, seed=seed + run, starts=few)
            votes.append(torch.nn.functional.one_hot(labels, facets).double())
        labels, _ = cluster(torch.cat(votes, dim=1), facets, seed=seed, starts=starts)
        space = reduced
    else:
        space = flat(reduced, seed) if way == "embedding" else reduced
        starts = min(starts, STARTS_IN_EMBEDDING) if way == "embedding" else starts
        labels, _ = cluster(space, facets, seed=seed, starts=starts)
    return Clusters(labels, means_of(space, labels, facets), space)


def cluster(points: Tensor, facets: int, *, seed: int = 0, starts: int = STARTS) -> tuple[Tensor, Tensor]:
    """k-means, the best of `starts`, of points [M, P] -> (labels [M], centres [C, P]); cluster 0 is the largest.

    Of equally large ones the one with the earliest photograph comes first. One thread: the same input and seed give
    the same bytes.
    """
    distinct = len(torch.unique(points, dim=0))
    if facets > distinct:
        raise ValueError(
            f"C={facets} facets need at least as many different photographs; the layer tells {distinct} apart: "
            f"take C={distinct} or fewer, or more photographs"
        )
    generator = np.random.default_rng(seed)
    rows = points.double().numpy()
    rows = rows - rows.mean(axis=0)  # squares of small numbers keep more digits
    with one_thread():
        tried = rows
        if len(rows) > MOST_FOR_STARTS:
            tried = rows[generator.choice(len(rows), MOST_FOR_STARTS, replace=False)]
            if len(np.unique(tried, axis=0)) < facets:  # all but copies of very few
                tried = rows
        at_once = max(1, MOST_AT_ONCE // (len(tried) * facets))
        runs = []
        for first in range(0, starts, at_once):
            runs.append(lloyd(tried, spread_out(tried, facets, min(at_once, starts - first), generator)))
        centres = min(runs, key=lambda run: run[2])[1]
        best = lloyd(rows, centres[None])
    labels = by_size(torch.from_numpy(best[0]), facets)
    return labels, means_of(points, labels, facets)


def spread_out(rows: np.ndarray, C: int, starts: int, generator: np.random.Generator) -> np.ndarray:
    """Centres to start from, far apart: greedy k-means++ (Arthur & Vassilvitskii 2007), [M, P] -> [starts, C, P]."""
    M = len(rows)
    candidates = 2 + int(np.log(C))
    squares = (rows**2).sum(axis=1)

    def to(chosen: np.ndarray) -> np.ndarray:
        """Squared distances of every row from rows `chosen` [...]: [..., M]."""
        return (squares + squares[chosen][..., None] - 2 * rows[chosen] @ rows.T).clip(min=0)

    picked = [generator.integers(M, size=starts)]
    nearest = to(picked[0])
    for _ in range(C - 1):
        # In proportion to the squared distance from the nearest centre so far; of several draws the best is taken.
        shares = nearest.cumsum(axis=1)
        at = generator.random((starts, candidates)) * shares[:, -1:]
        drawn = np.stack([np.searchsorted(shares[r], at[r], side="right") for r in range(starts)]).clip(max=M - 1)
        reached = np.minimum(nearest[:, None], to(drawn))
        best = reached.sum(axis=2).argmin(axis=1)
        picked.append(drawn[np.arange(starts), best])
        nearest = reached[np.arange(starts), best]
    return rows[np.stack(picked, axis=1)]


def lloyd(rows: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """k-means from several sets of centres at once: [M, P], [R, C, P] -> the best one's (labels [M], centres, inertia).

    Until no photograph changes. A centre that has none left moves to the one farthest from its own centre.
    """
    R, C, _ = centres.shape
    centres = centres.copy()
    labels = np.full((R, len(rows)), -1)
    inertia = np.full(R, np.inf)
    going = np.arange(R)
    squares = (rows**2).sum(axis=1)
    for _ in range(MOST_ITERATIONS):
        held = centres[going]
        apart = (held**2).sum(axis=2)[:, :, None] - 2 * held @ rows.T  # [r, C, M], without the rows' own squares
        now = apart.argmin(axis=1)
        inertia[going] = (apart.min(axis=1) + squares).sum(axis=1)
        changed = (now != labels[going]).any(axis=1)
        labels[going] = now
        going = going[changed]
        if not len(going):
            break
        members = (labels[going][:, None] == np.arange(C)[None, :, None]).astype(rows.dtype)
        sizes = members.sum(axis=2)
        centres[going] = (members @ rows) / sizes.clip(min=1)[:, :, None]
        for run, c in zip(*np.nonzero(sizes == 0), strict=True):
            own = centres[going[run]][labels[going[run]]]
            centres[going[run], c] = rows[((rows - own) ** 2).sum(axis=1).argmax()]
    best = int(inertia.argmin())
    return labels[best].astype(np.int64), centres[best], float(inertia[best])


def by_size(labels: Tensor, facets: int) -> Tensor:
    """Labels [M] numbered anew: the largest cluster 0, of equally large ones the one with the earliest member first."""
    sizes = labels.bincount(minlength=facets).tolist()
    first = [int((labels == c).nonzero()[0]) if sizes[c] else len(labels) for c in range(facets)]
    order = sorted(range(facets), key=lambda c: (-sizes[c], first[c]))
    rank = torch.empty(facets, dtype=torch.int64)
    rank[order] = torch.arange(facets)
    return rank[labels]


def means_of(points: Tensor, labels: Tensor, facets: int) -> Tensor:
    """The mean of each cluster's points: [M, P], labels [M] -> float32 [C, P]."""
    sums = torch.zeros(facets, points.shape[1], dtype=torch.float64).index_add_(0, labels, points.double())
    return (sums / labels.bincount(minlength=facets).clamp(min=1)[:, None]).float()


def nearest_cluster(points: Tensor, centres: Tensor) -> Tensor:
    """The cluster whose centre is nearest: [H, P], [C, P] -> int64 [H]."""
    apart = torch.cdist(points.double(), centres.double(), compute_mode="donot_use_mm_for_euclid_dist")
    return apart.argmin(dim=1)

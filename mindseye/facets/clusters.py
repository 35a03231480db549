"""Photographs into C kinds: k-means on the principal components, on t-SNE's plane, or on what many t-SNEs agree on."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

Clustering = Literal["components", "embedding", "consensus"]
STARTS = 100  # of k-means: the best of so many
MOST_FOR_STARTS = 5000  # photographs that the starts are tried on; with more, all then join the best one's centres
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
    known: Tensor | None = None,
) -> Clusters:
    """Principal components [M, P] -> clusters, by `way`; `flat(reduced, seed)` gives a t-SNE [M, 2].

    `components`: k-means on the components. `embedding`: on t-SNE's plane, as the paper does. `consensus`: k-means on
    how `runs` t-SNEs of different seeds cluster the photographs (k-means-based consensus, Wu et al. 2015). `known`:
    labels [M] whose centres k-means tries beside its own `starts`. Raises ValueError for more facets than different
    photographs.
    """
    if way == "consensus":
        votes = []
        for run in range(runs):
            labels, _ = cluster(flat(reduced, seed + run), facets, seed=seed + run, starts=starts)
            votes.append(torch.nn.functional.one_hot(labels, facets).double())
        labels, _ = cluster(torch.cat(votes, dim=1), facets, seed=seed, starts=starts)
        space = reduced
    else:
        space = flat(reduced, seed) if way == "embedding" else reduced
        labels, _ = cluster(space, facets, seed=seed, starts=starts, known=known)
    return Clusters(labels, means_of(space, labels, facets), space)


def cluster(
    points: Tensor, facets: int, *, seed: int = 0, starts: int = STARTS, known: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """k-means, the best of `starts`, of points [M, P] -> (labels [M], centres [C, P]); cluster 0 is the largest.

    Of equally large ones the one with the earliest photograph comes first. `known`: labels whose centres are one more
    start. One thread: the same input and seed give the same bytes.
    """
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    distinct = len(torch.unique(points, dim=0))
    if facets > distinct:
        raise ValueError(
            f"C={facets} facets need at least as many different photographs; the layer tells {distinct} apart: "
            f"take C={distinct} or fewer, or more photographs"
        )
    rows = points.double().numpy()
    with threadpool_limits(limits=1):
        tried = rows
        if len(rows) > MOST_FOR_STARTS:
            tried = rows[np.random.default_rng(seed).choice(len(rows), MOST_FOR_STARTS, replace=False)]
        if tried is not rows and len(np.unique(tried, axis=0)) < facets:
            tried = rows  # all but copies of very few
        fitted = KMeans(facets, n_init=starts, random_state=seed).fit(tried)
        if tried is not rows:
            fitted = KMeans(facets, n_init=1, init=fitted.cluster_centers_).fit(rows)
        if known is not None and len(known.unique()) == facets:
            centres = means_of(points, known, facets).double().numpy()
            other = KMeans(facets, n_init=1, init=centres).fit(rows)
            fitted = min(fitted, other, key=lambda one: one.inertia_)
    labels = by_size(torch.from_numpy(fitted.labels_.astype(np.int64)), facets)
    return labels, means_of(points, labels, facets)


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

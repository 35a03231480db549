"""From channel means to two dimensions (PCA, t-SNE), and from there to clusters (k-means)."""

import numpy as np
import torch
from torch import Tensor

FEWEST_FOR_TSNE = 6  # below this t-SNE has no neighbourhoods to keep: the principal components are the embedding


def embed(means: Tensor, *, components: int = 50, perplexity: float = 30.0, seed: int = 0) -> Tensor:
    """Channel means [M, D] -> two-dimensional embeddings [M, 2]: PCA to min(components, M, D), then t-SNE.

    `perplexity` is lowered to (M − 1)/3 where there are too few photographs for it. With fewer than
    FEWEST_FOR_TSNE different ones the first two principal components are the embedding. One thread, so that the sums
    inside are always taken in the same order: the same input and seed give the same bytes.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    M, D = means.shape
    different = len(torch.unique(means, dim=0))  # copies of one photograph count once
    if different == 1:
        return torch.zeros(M, 2)
    with threadpool_limits(limits=1):
        reduced = PCA(min(components, M, D), svd_solver="full", random_state=seed).fit_transform(
            means.numpy().astype(np.float64)
        )
        if different < FEWEST_FOR_TSNE:
            flat = np.zeros((M, 2))
            flat[:, : min(2, reduced.shape[1])] = reduced[:, :2]
            return torch.from_numpy(flat).float()
        tsne = TSNE(2, perplexity=min(perplexity, (M - 1) / 3), init="pca", random_state=seed, n_jobs=1)
        if reduced.shape[1] == 1:  # its PCA start needs two columns
            reduced = np.hstack([reduced, np.zeros_like(reduced)])
        return torch.from_numpy(tsne.fit_transform(reduced)).float()


def cluster(embedding: Tensor, facets: int, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """k-means over embeddings [M, 2] -> (labels [M], centres [C, 2]); cluster 0 is the largest, C−1 the smallest."""
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    distinct = len(torch.unique(embedding, dim=0))
    if facets > distinct:
        raise ValueError(
            f"C={facets} facets need at least as many different photographs; the layer tells {distinct} apart: "
            f"take C={distinct} or fewer, or more photographs"
        )
    with threadpool_limits(limits=1):
        fitted = KMeans(facets, n_init=10, random_state=seed).fit(embedding.numpy().astype(np.float64))
    sizes = np.bincount(fitted.labels_, minlength=facets)
    order = np.argsort(-sizes, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(facets)
    labels = torch.from_numpy(rank[fitted.labels_].astype(np.int64))
    return labels, torch.from_numpy(fitted.cluster_centers_[order]).float()

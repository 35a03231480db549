"""Which kinds of stimuli a layer sees: activations -> PCA -> t-SNE -> k-means -> weights (the paper's section 3.1)."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from mindseye.facets.photographs import Photographs, SkippedFile
from mindseye.facets.targets import FacetTargets, top_channels
from mindseye.networks.network import Network
from mindseye.networks.recording import record

Weighting = Literal["calibrated", "published"]
Selection = Literal["nearest", "nearest_members", "farthest"]
Progress = Callable[[int, int], None]
log = logging.getLogger(__name__)

ONE_PHOTOGRAPH = 0.9  # a weight above which a facet is hardly a blend any more
FEWEST_FOR_TSNE = 6  # below this t-SNE has no neighbourhoods to keep: the principal components are the embedding


@dataclass(frozen=True)
class Survey:
    """What the layer says of each readable photograph: its channel means, not its maps, so memory is M·D numbers."""

    means: Tensor  # [M, D]
    photographs: Photographs  # the M readable ones, `skipped` complete


@torch.no_grad()
def survey(
    network: Network,
    photographs: Photographs,
    layer: str,
    *,
    batch_size: int = 16,
    progress: Progress | None = None,
) -> Survey:
    """Run every photograph up to `layer`, never past it, and keep the spatial mean of each channel.

    A file that cannot be read is left out and named in `photographs.skipped`. Raises ValueError where none is left,
    where the layer's output has no channels (see `as_maps`) or holds NaN or infinite values.
    """
    device = network.mean.device
    means: list[Tensor] = []
    readable: list[int] = []
    skipped: list[SkippedFile] = []
    with record(network, layer) as tape:
        for indices, images, unreadable in photographs.batches(batch_size):
            skipped += unreadable
            if indices:
                try:
                    answer = tape(to_unit(images, device))
                except (RuntimeError, AssertionError) as error:
                    # An image smaller than the network's kernels and strides, or not of its one size.
                    reason = (str(error).splitlines() or [type(error).__name__])[0]
                    size = photographs.size
                    raise ValueError(
                        f"{network.name} cannot look at {size}×{size} images up to {layer} ({reason}); "
                        "try another images.size"
                    ) from error
                means.append(as_maps(answer, layer).flatten(2).mean(dim=2).float().cpu())
                readable += indices
            if progress is not None:
                progress(len(readable) + len(skipped), len(photographs))
    _say_skipped([*photographs.skipped, *skipped])
    if not readable:
        reason = f"{skipped[0].path}: {skipped[0].reason}" if skipped else "there are none"
        raise ValueError(f"none of the {len(photographs)} photographs under {photographs.root} is readable ({reason})")
    kept = Photographs(
        root=photographs.root,
        paths=tuple(photographs.paths[index] for index in readable),
        size=photographs.size,
        channels=photographs.channels,
        skipped=(*photographs.skipped, *skipped),
    )
    everything = torch.cat(means)
    bad = ~everything.isfinite().all(dim=1)
    if bad.any():
        first = kept.paths[int(bad.nonzero()[0])]
        raise ValueError(
            f"layer {layer} gives NaN or infinite activations for {int(bad.sum())} of {len(kept)} photographs, "
            f"the first {first}; check the network's weights and its mean and std"
        )
    return Survey(everything, kept)


def _say_skipped(skipped: Sequence[SkippedFile]) -> None:
    """Every file in the log; on the terminal, which shows warnings, the first of them and how many there are."""
    for file in skipped:
        log.info("skipped %s: %s", file.path, file.reason)
    if skipped:
        more = f" and {len(skipped) - 1} more (named in the log)" if len(skipped) > 1 else ""
        log.warning("skipped %s: %s%s", skipped[0].path, skipped[0].reason, more)


def to_unit(images: Tensor, device: torch.device) -> Tensor:
    """uint8 images on any device -> float32 in 0..1 on `device`."""
    return images.to(device, non_blocking=True).float() / 255


def as_maps(activation: Tensor, layer: str) -> Tensor:
    """A layer's output as maps [B, D, H', W']; a pooled one [B, D] has maps of one pixel. ValueError for the rest."""
    if activation.ndim == 4:
        return activation
    if activation.ndim == 2:
        return activation[:, :, None, None]
    raise ValueError(
        f"layer {layer} gives a tensor of shape {list(activation.shape)}; a visualisation needs maps [B, D, H, W] or "
        "pooled channels [B, D]: `mindseye layers` lists the layers that have them"
    )


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


def choose(embedding: Tensor, labels: Tensor, centres: Tensor, N: int, selection: Selection) -> tuple[Tensor, Tensor]:
    """Per centre the N photographs that stand for it: (indices [C, N], Euclidean distances [C, N]), sorted by distance.

    `nearest`: the nearest of all, as in the paper; `nearest_members`: of the cluster's own members, where it has N
    (else the nearest of all fill up); `farthest`: the farthest of all, as the released program takes them.
    """
    distances = torch.cdist(centres.double(), embedding.double(), compute_mode="donot_use_mm_for_euclid_dist").float()
    if selection == "farthest":
        order = (-distances).argsort(dim=1, stable=True)[:, :N]
    elif selection == "nearest_members":
        foreign = labels[None, :] != torch.arange(len(centres))[:, None]
        order = (distances + foreign * (2 * distances.max() + 1)).argsort(dim=1, stable=True)[:, :N]
    else:
        order = distances.argsort(dim=1, stable=True)[:, :N]
    return order, distances.gather(1, order)


def facet_weights(distances: Tensor, weighting: Weighting = "calibrated", gamma: float | None = None) -> Tensor:
    """Eq. 1: how much each photograph counts, softmax over N of 1/(d + γ): distances [C, N] -> weights [C, N].

    `published`: γ = 1e-5 on the distances as they are. (The print, exp(d⁻¹ + γ), lets γ cancel and divides by zero at
    d = 0.) `calibrated`: the distances are first divided by their mean over N, since t-SNE's scale is arbitrary, and
    γ = 0.1, so that no single photograph takes all the weight. The maximum is subtracted inside softmax: a plain exp
    overflows float32 for d < 0.0113.
    """
    if weighting == "calibrated":
        scale = distances.mean(dim=1, keepdim=True)
        distances = torch.where(scale > 0, distances / scale, torch.ones_like(distances))
        gamma = 0.1 if gamma is None else gamma
    elif weighting == "published":
        gamma = 1e-5 if gamma is None else gamma
    else:
        raise ValueError(f"facets.weighting={weighting}: calibrated or published is right")
    return torch.softmax(1 / (distances.double() + gamma), dim=1).float()


def discover_facets(
    network: Network,
    photographs: Photographs,
    layer: str,
    *,
    facets: int = 4,
    k: int = 50,
    N: int = 10,
    weighting: Weighting = "calibrated",
    selection: Selection = "nearest",
    gamma: float | None = None,
    components: int = 50,
    perplexity: float = 30.0,
    batch_size: int = 16,
    seed: int = 0,
    progress: Progress | None = None,
) -> FacetTargets:
    """Find `facets` kinds of stimuli among the photographs and make each one's target (METHOD: Eq. 1).

    Per k-means centre `N` photographs are blended by `facet_weights` into a first image and a target activation; the
    `k` channels with the largest mean in the target are its top-k. Fewer than N photographs: all of them. The same
    arguments give the same bytes. Raises ValueError, in one line, for what cannot be done.
    """
    layer = network.resolve(layer)
    if facets < 1 or N < 1:
        raise ValueError(f"C and N are at least 1, not {facets} and {N}")
    if facets > len(photographs):
        raise ValueError(
            f"C={facets} facets need at least as many photographs; {photographs.root} holds {len(photographs)}"
        )
    seen = survey(network, photographs, layer, batch_size=batch_size, progress=progress)
    if not 1 <= k <= seen.means.shape[1]:
        raise ValueError(f"k={k}: layer {layer} has {seen.means.shape[1]} channels, so k is 1 to {seen.means.shape[1]}")
    embedding = embed(seen.means, components=components, perplexity=perplexity, seed=seed)
    labels, centres = cluster(embedding, facets, seed=seed)
    chosen, distances = choose(embedding, labels, centres, N, selection)
    weights = facet_weights(distances, weighting, gamma)
    if chosen.numel() > len(seen.photographs):
        log.warning(
            "%d photographs are fewer than C·N = %d·%d: some stand in several facets",
            len(seen.photographs), facets, chosen.shape[1],
        )  # fmt: skip
    for c, weight in enumerate(weights.max(dim=1).values.tolist()):
        if weight > ONE_PHOTOGRAPH and weights.shape[1] > 1:
            log.info(
                "facet %d is %.0f %% one photograph, right at its centre; a larger facets.gamma spreads the weights",
                c, 100 * weight,
            )  # fmt: skip
    images = torch.stack([torch.stack([seen.photographs.read(int(i)) for i in row]) for row in chosen])
    maps = _blend_activations(network, layer, images, weights)
    return FacetTargets(
        layer=layer,
        root=str(seen.photographs.root),
        paths=seen.photographs.paths,
        skipped=seen.photographs.skipped,
        initial=torch.einsum("cn,cnxyz->cxyz", weights, images.float() / 255).clamp(0, 1),
        maps=maps,
        channels=top_channels(maps, k),
        weights=weights,
        chosen=chosen,
        distances=distances,
        photographs=images,
        embedding=embedding,
        labels=labels,
        centres=centres,
        mean_activation=seen.means.mean(dim=0),
    )


@torch.no_grad()
def _blend_activations(network: Network, layer: str, images: Tensor, weights: Tensor) -> Tensor:
    """Σ w·a per facet, the maps of one facet's N photographs at a time: uint8 [C, N, ch, S, S] -> [C, D, H', W']."""
    device = network.mean.device
    blended = []
    with record(network, layer) as tape:
        for photographs, w in zip(images, weights, strict=True):
            maps = as_maps(tape(to_unit(photographs, device)), layer).float()
            blended.append(torch.einsum("n,ndhw->dhw", w.to(device), maps).cpu())
    return torch.stack(blended)

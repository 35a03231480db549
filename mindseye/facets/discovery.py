"""Which kinds of stimuli a layer sees: activations -> PCA -> t-SNE -> k-means -> weights (the paper's section 3.1)."""

import logging
from typing import Literal

import torch
from torch import Tensor

from mindseye.facets.embedding import cluster, embed
from mindseye.facets.photographs import Photographs
from mindseye.facets.survey import Progress, as_maps, survey, to_unit
from mindseye.facets.targets import FacetTargets, top_channels
from mindseye.networks.network import Network
from mindseye.networks.recording import record

Weighting = Literal["calibrated", "published"]
Selection = Literal["nearest", "nearest_members", "farthest"]
log = logging.getLogger(__name__)

ONE_PHOTOGRAPH = 0.9  # a weight above which a facet is hardly a blend any more


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

"""Which kinds of stimuli a layer sees: activations -> PCA -> t-SNE -> k-means -> weights (the paper's section 3.1)."""

import hashlib
import inspect
import logging
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from mindseye.facets.cache import Cache
from mindseye.facets.embedding import Method, Stage, cluster, embed, pick_method
from mindseye.facets.photographs import Photographs, UnreadablePhotograph, printable
from mindseye.facets.survey import (
    Progress,
    Survey,
    changed_since,
    code_of,
    content_of,
    say_changed,
    survey,
    to_unit,
    versions,
)
from mindseye.facets.targets import FacetTargets, top_channels
from mindseye.facets.way_statistics import IMAGE, WayStatistics, joined, moments, of_photographs
from mindseye.networks.maps import as_maps
from mindseye.networks.network import Network, check_network
from mindseye.networks.preparing import PreparedNetwork, prepare
from mindseye.networks.way import Way, resolve_way

Weighting = Literal["calibrated", "published"]
Selection = Literal["nearest", "nearest_members", "farthest"]
log = logging.getLogger(__name__)

# What the cache's keys say of the program.
EMBEDDING_CODE = code_of(inspect.getfile(embed))
BLENDING_CODE = code_of(__file__, inspect.getfile(moments))

FEW_LEVELS = 32  # of 256: 12-bit counts in 16-bit files have at most 17, the darkest folder of photographs more
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
    network: Network | PreparedNetwork,
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
    tsne: Method = "auto",
    subsample: int = 5000,
    way: Way = "auto",
    batch_size: int = 16,
    seed: int = 0,
    workers: int | None = None,
    cache: Cache | None = None,
    progress: Progress | None = None,
    stage: Stage | None = None,
) -> FacetTargets:
    """Find `facets` kinds of stimuli among the photographs and make each one's target (Eq. 1).

    Channel means -> PCA -> t-SNE -> k-means; per centre `N` photographs are blended into a first image and a target
    activation (the paper's section 3.1). The same arguments give the same bytes, with a `cache` or without.

    network: of `load_network`. photographs: of `load_photographs`. layer: the exact name of a module, or the paper's
    spelling of it; `layer_table` lists them.

    facets: how many, C, 1 or more and at most as many as photographs. k: how many channels of each facet count, those
    with the largest mean in its target, 1 to the layer's D. N: photographs of each facet, 1 or more; where there are
    fewer, all of them.

    weighting: "calibrated" divides the distances by their mean before Eq. 1, "published" takes them as they are.
    gamma: γ of Eq. 1, above 0, a larger one spreads the weights over more photographs; None is 0.1 where calibrated,
    1e-5 where published. selection: which photographs stand for a centre: the "nearest" of all, the "nearest_members"
    of its own cluster, or the "farthest", as the released program takes them.

    components: of the PCA, 1 or more, cut down to the photographs and channels there are. perplexity: of the t-SNE,
    about how many neighbours a photograph has in it, cut down to (M − 1)/3 of M photographs. tsne: how it is computed:
    "barnes_hut" by scikit-learn, "fft" by openTSNE (the extra `tsne`), "subsample", which embeds so many photographs
    and places the others between them, or "auto", barnes_hut for so many or fewer, else fft where it is installed.
    subsample: that number of photographs, at least 6. seed: of PCA, t-SNE and k-means.

    way: the layers on the way to the target whose answers to the photographs are kept, for an objective to match:
    "auto" finds them (see `mindseye.networks.way.layers_on_the_way`), names pick others, () is none. A network that is
    prepared already has its own.

    batch_size: photographs that go through the network at once, 1 or more. workers: processes that read photographs;
    0 is none, None by their number and the cores. cache: where what the network says of the photographs and their
    embedding is kept, a `mindseye.facets.cache.Cache`; None is nowhere. progress: called with (photographs read, of how
    many). stage: called with (what is going on then, how much of it is done in 0..1 or None).

    Raises ValueError, in one line, for what cannot be done.

    >>> from mindseye.demo.photographs import write_photographs
    >>> from mindseye.facets.photographs import load_photographs
    >>> from mindseye.networks import load_network
    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> _ = write_photographs(folder.name, "padlock", 12, seed=0)
    >>> photographs = load_photographs(folder.name, size=32)
    >>> targets = discover_facets(load_network("demo"), photographs, "layer3.0", facets=2, k=8, N=4)
    >>> targets.initial.shape, targets.channels.shape, targets.weights.shape
    (torch.Size([2, 3, 32, 32]), torch.Size([2, 8]), torch.Size([2, 4]))
    >>> folder.cleanup()
    """
    check_network(network)
    if not isinstance(photographs, Photographs):
        raise ValueError(
            f"the photographs are a {type(photographs).__name__}: load_photographs(FOLDER, size=…) gives what is right"
        )
    layer = network.resolve(layer)
    if facets < 1 or N < 1:
        raise ValueError(f"C and N are at least 1, not {facets} and {N}")
    if facets > len(photographs):
        raise ValueError(
            f"C={facets} facets need at least as many photographs; {photographs.root} holds {len(photographs)}"
        )
    if isinstance(network, Network):
        network = prepare(network, layer, way=resolve_way(network, layer, way))
    # What cannot be done is refused before the photographs are read.
    pick_method(len(photographs), tsne, subsample)

    def check_k(D: int) -> None:
        if not 1 <= k <= D:
            raise ValueError(f"k={k}: layer {layer} has {D} channels, so k is 1 to {D}")

    seen = survey(
        network,
        photographs,
        layer,
        batch_size=batch_size,
        workers=workers,
        cache=cache,
        content=content_of(photographs),
        check=check_k,
        progress=progress,
    )
    check_k(seen.means.shape[1])
    if seen.key is None:  # the photographs changed meanwhile
        cache = None
    # All that `embed` is told, so that the cache's key can leave nothing out.
    settings: dict[str, Any] = {
        "components": components, "perplexity": perplexity, "tsne": tsne, "subsample": subsample, "seed": seed,
    }  # fmt: skip
    key = {
        "survey": seen.key,
        "settings": settings,
        "code": EMBEDDING_CODE,
        "versions": versions("scikit-learn", "numpy", "scipy", "openTSNE"),
    }
    embedding, embedding_recalled = _recall(cache, "embedding", key, lambda: embed(seen.means, **settings, stage=stage))
    if stage is not None:
        stage(f"clustering {len(embedding):,} photographs", None)
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
    images, unchanged = _read_chosen(seen, chosen)
    if not unchanged:
        cache = None
    levels = int(images.amax()) - int(images.amin()) + 1
    if levels < FEW_LEVELS:
        log.warning(
            "the photographs use %d of 256 levels of brightness, and the network sees no finer ones: raw counts need "
            "images.black and images.white, the values in the files that become 0 and 1",
            levels,
        )
    maps, maps_recalled = _target_maps(network, seen, images, chosen, weights, cache)
    between, way_recalled = _way_statistics(network, seen, images, chosen, weights, cache)
    channels = top_channels(maps, k)
    _refuse_silence(maps, channels, layer)
    recalled = {"survey": seen.recalled, "embedding": embedding_recalled, "targets": maps_recalled, "way": way_recalled}
    if cache is not None and any(recalled.values()):
        what = ", ".join(name for name, from_cache in recalled.items() if from_cache)
        log.info("from the cache %s: %s of %d photographs", cache.folder, what, len(seen.photographs))
    return FacetTargets(
        layer=layer,
        root=str(seen.photographs.root),
        paths=seen.photographs.paths,
        skipped=seen.photographs.skipped,
        initial=torch.einsum("cn,cnxyz->cxyz", weights, images.float() / 255).clamp(0, 1),
        maps=maps,
        channels=channels,
        weights=weights,
        chosen=chosen,
        distances=distances,
        photographs=images,
        embedding=embedding,
        labels=labels,
        centres=centres,
        mean_activation=seen.means.mean(dim=0),
        way=between,
        content=seen.content.sha256(seen.photographs) if unchanged and seen.content is not None else "",
    )


def _read_chosen(seen: Survey, chosen: Tensor) -> tuple[Tensor, bool]:
    """The chosen photographs, uint8 [C, N, ch, S, S], and whether they are still those of the survey.

    Raises ValueError where one cannot be read any more.
    """
    images = {}
    for index in chosen.unique().tolist():
        try:
            images[index] = seen.photographs.read(index)
        except UnreadablePhotograph as error:
            path = printable(str(seen.photographs.root / seen.photographs.paths[index]))
            raise ValueError(f"{path} was looked at and cannot be read any more: {error}") from error
    others = [] if seen.content is None else changed_since(seen.content, seen.photographs, list(images))
    if others:
        say_changed(others)
    return torch.stack([torch.stack([images[i] for i in row]) for row in chosen.tolist()]), not others


def _recall(
    cache: Cache | None, kind: str, key: Mapping[str, object], make: Callable[[], Tensor]
) -> tuple[Tensor, bool]:
    """One tensor out of the cache, or made and kept there: (tensor, whether it was there)."""
    if cache is None:
        return make(), False
    fetched = cache.fetch(kind, key, lambda: {kind: make()})
    return fetched.tensors[kind], not fetched.made


def _target_maps(
    network: PreparedNetwork,
    seen: Survey,
    images: Tensor,
    chosen: Tensor,
    weights: Tensor,
    cache: Cache | None,
) -> tuple[Tensor, bool]:
    """Σ w·a per facet, [C, D, H', W'], out of the survey's maps where it has them: (maps, whether from the cache).

    Else the chosen photographs go through the network again, as they lie in `images` [C, N, ch, S, S].
    """
    if seen.maps is not None:
        blended = [torch.einsum("n,ndhw->dhw", w, seen.maps[row]) for w, row in zip(weights, chosen, strict=True)]
        return torch.stack(blended), False
    key = _blending_key(seen, chosen, weights)
    return _recall(cache, "targets", key, lambda: _blend_activations(network, images, weights))


def _blending_key(seen: Survey, chosen: Tensor, weights: Tensor) -> dict[str, object]:
    """All that what is blended out of the chosen photographs depends on."""
    return {
        "survey": seen.key,
        "chosen": chosen.tolist(),
        "weights": hashlib.sha256(weights.contiguous().numpy().tobytes()).hexdigest(),
        "code": BLENDING_CODE,
    }


def _way_statistics(
    network: PreparedNetwork,
    seen: Survey,
    images: Tensor,
    chosen: Tensor,
    weights: Tensor,
    cache: Cache | None,
) -> tuple[tuple[WayStatistics, ...], bool]:
    """How the layers on the way answer the chosen photographs [C, N, ch, S, S]: (one a layer, whether from the cache)."""
    if not network.way:
        return (), False
    layers = (IMAGE, *network.way)

    def look() -> dict[str, Tensor]:
        found = _look_on_the_way(network, images, weights)
        return {f"{name} {kind}": tensor for name, one in found.items() for kind, tensor in one.tensors().items()}

    if cache is None:
        tensors, recalled = look(), False
    else:
        fetched = cache.fetch("way", {**_blending_key(seen, chosen, weights), "layers": list(layers)}, look)
        tensors, recalled = fetched.tensors, not fetched.made
    kinds = ("mean", "std", "quantiles")
    return tuple(WayStatistics(name, *(tensors[f"{name} {kind}"] for kind in kinds)) for name in layers), recalled


@torch.no_grad()
def _look_on_the_way(network: PreparedNetwork, images: Tensor, weights: Tensor) -> dict[str, WayStatistics]:
    """By layer; one facet's photographs at a time."""
    device = network.mean.device
    parts: dict[str, list[WayStatistics]] = {name: [] for name in (IMAGE, *network.way)}
    for photographs, w in zip(images, weights, strict=True):
        seen = to_unit(photographs, device)
        parts[IMAGE].append(of_photographs(IMAGE, seen.cpu(), w))
        for name, answer in zip(network.way, network(seen).way, strict=True):
            maps = as_maps(answer, name, network.prefix_tokens).float()
            parts[name].append(of_photographs(name, maps.cpu(), w))
    return {name: joined(found) for name, found in parts.items()}


def _refuse_silence(maps: Tensor, channels: Tensor, layer: str) -> None:
    """A target of zeros cannot be reached or missed: there is nothing to draw."""
    for c in range(len(maps)):
        if not maps[c, channels[c]].any():
            raise ValueError(
                f"layer {layer} answers none of the photographs of facet {c} (its top-k channels are 0 everywhere); "
                "take another layer"
            )


@torch.no_grad()
def _blend_activations(network: PreparedNetwork, images: Tensor, weights: Tensor) -> Tensor:
    """Σ w·a per facet, the maps of one facet's N photographs at a time: uint8 [C, N, ch, S, S] -> [C, D, H', W']."""
    device = network.mean.device
    blended = []
    for photographs, w in zip(images, weights, strict=True):
        answer = network(to_unit(photographs, device))[0]
        maps = as_maps(answer, network.layer, network.prefix_tokens).float()
        blended.append(torch.einsum("n,ndhw->dhw", w.to(device), maps).cpu())
    return torch.stack(blended)

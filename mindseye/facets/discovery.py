"""Which kinds of stimuli a layer sees: activations -> PCA -> t-SNE -> k-means -> weights (the paper's section 3.1)."""

import hashlib
import logging
from dataclasses import replace
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from mindseye.facets.blending import blend_chosen
from mindseye.facets.cache import Cache
from mindseye.facets.clarity import clarity, redundancy
from mindseye.facets.clusters import Clustering, means_of
from mindseye.facets.content import changed_since, content_of, say_changed
from mindseye.facets.decoding import UnreadablePhotograph
from mindseye.facets.embedding import Method, Stage, pick_method
from mindseye.facets.firmness import STAYS
from mindseye.facets.grouping import GroupingSettings, group_photographs
from mindseye.facets.number import MOST_KINDS
from mindseye.facets.photographs import Photographs
from mindseye.facets.survey import Progress, Survey, survey
from mindseye.facets.targets import FacetTargets, top_channels
from mindseye.networks.network import Network, check_network
from mindseye.networks.preparing import PreparedNetwork, prepare
from mindseye.networks.way import Way, resolve_way
from mindseye.words import printable

Weighting = Literal["calibrated", "published"]
Selection = Literal["staying", "nearest", "nearest_members", "farthest"]
log = logging.getLogger(__name__)

FEW_LEVELS = 32  # of 256: 12-bit counts in 16-bit files have at most 17, the darkest folder of photographs more
MOST_HELD_OUT = 0.5  # share of the photographs
BISECTIONS = 100
AMPLE = 5  # so many times C·N photographs, and some can be held out


def choose(
    space: Tensor,
    labels: Tensor,
    centres: Tensor,
    N: int,
    selection: Selection,
    stays: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Per centre the N photographs that stand for it: (indices [C, N], Euclidean distances [C, N]), the nearest first.

    `nearest`: the nearest of all, as in the paper; `nearest_members`: of the cluster's own members, where it has N
    (else the nearest of all fill up); `staying`: of those members that stay with it, `stays` [M] at least STAYS, then
    of the other members, then of all; `farthest`: the farthest of all, as the released program takes them.
    """
    distances = torch.cdist(centres.double(), space.double(), compute_mode="donot_use_mm_for_euclid_dist").float()
    if selection == "farthest":
        order = (-distances).argsort(dim=1, stable=True)[:, :N]
        return order, distances.gather(1, order)
    rank = torch.zeros_like(distances)
    if selection in ("nearest_members", "staying"):
        rank += (labels[None, :] != torch.arange(len(centres))[:, None]) * 2.0
    if selection == "staying" and stays is not None:
        rank = torch.where((rank == 0) & (stays < STAYS)[None, :], 1.0, rank)
    order = (distances + rank * (2 * distances.max() + 1)).argsort(dim=1, stable=True)[:, :N]
    return order, distances.gather(1, order)


def facet_weights(
    distances: Tensor,
    weighting: Weighting = "calibrated",
    gamma: float | None = None,
    effective: float | None = None,
) -> Tensor:
    """Eq. 1: how much each photograph counts, softmax over N of 1/(d + γ): distances [C, N] -> weights [C, N].

    `published`: γ = 1e-5 on the distances as they are. (The print, exp(d⁻¹ + γ), lets γ cancel and divides by zero at
    d = 0.) `calibrated`: the distances are first divided by their mean over N, since their scale is arbitrary, and
    γ = 0.1. The maximum is subtracted inside softmax: a plain exp overflows float32 for d < 0.0113.

    `effective`: softmax of β/(d + γ) instead, β ≥ 0 solved for each facet so that 1/Σw², the effective number of its
    photographs, is this; where there are no more than so many, they count alike. None: β = 1, as printed.
    """
    if weighting == "calibrated":
        scale = distances.mean(dim=1, keepdim=True)
        distances = torch.where(scale > 0, distances / scale, torch.ones_like(distances))
        gamma = 0.1 if gamma is None else gamma
    elif weighting == "published":
        gamma = 1e-5 if gamma is None else gamma
    else:
        raise ValueError(f"facets.weighting={weighting}: calibrated or published is right")
    if not gamma > 0:
        raise ValueError(f"facets.gamma={gamma}: a number above 0 is right")
    exponents = 1 / (distances.double() + gamma)
    if effective is None:
        return torch.softmax(exponents, dim=1).float()
    return _weights_of(exponents, effective)


def _weights_of(exponents: Tensor, effective: float) -> Tensor:
    """softmax(β·x) of exponents x [C, N] with 1/Σw² = `effective`: bisection, since 1/Σw² falls as β grows."""
    if not effective >= 1:
        raise ValueError(f"facets.effective={effective}: a number of at least 1, or null, is right")
    x = exponents - exponents.max(dim=1, keepdim=True).values
    spread = (-x).amax(dim=1, keepdim=True)
    x = torch.where(spread > 0, x / spread, 0.0)  # 0 to −1, so that one range of β suits every facet
    low, high = torch.zeros_like(spread), torch.full_like(spread, 1e9)
    for _ in range(BISECTIONS):
        # Geometric once both are positive: β runs over many orders of magnitude.
        middle = torch.where(low > 1e-6, (low * high).sqrt(), high.clamp(max=1e3) / 2)
        weights = torch.softmax(middle * x, dim=1)
        more = 1 / weights.square().sum(dim=1, keepdim=True) > effective
        low, high = torch.where(more, middle, low), torch.where(more, high, middle)
    return torch.softmax(low * x, dim=1).float()


def discover_facets(
    network: Network | PreparedNetwork,
    photographs: Photographs,
    layer: str,
    *,
    facets: int | Literal["auto"] = 4,
    k: int = 50,
    N: int = 10,
    clusters: Clustering = "components",
    weighting: Weighting = "calibrated",
    effective: float | None = 6.0,
    selection: Selection = "staying",
    gamma: float | None = None,
    components: int = 10,
    perplexity: float = 30.0,
    tsne: Method = "auto",
    subsample: int = 5000,
    way: Way = "auto",
    held_out: float = 0.2,
    batch_size: int = 16,
    seed: int = 0,
    workers: int | None = None,
    cache: Cache | None = None,
    progress: Progress | None = None,
    stage: Stage | None = None,
) -> FacetTargets:
    """Find `facets` kinds of stimuli among the photographs and make each one's target (Eq. 1).

    Channel means -> PCA -> k-means (the paper: PCA -> t-SNE -> k-means); per centre `N` photographs are blended into a
    first image and a target activation (the paper's section 3.1). The same arguments give the same bytes, with a
    `cache` or without. Everything the network says is in float32, without TF32.

    network: of `load_network`. photographs: of `load_photographs`. layer: the exact name of a module, or the paper's
    spelling of it; `layer_table` lists them.

    facets: how many, C, 1 or more and at most as many as photographs; "auto" tries 2 to 12 (see `choose_number`).
    k: how many channels of each facet count, those with the largest mean in its target, 1 to the layer's D.
    N: photographs of each facet, 1 or more; where there are fewer, all of them.

    clusters: where they are looked for: among the "components" of the PCA of the channel means' directions, in the
    "embedding" of the t-SNE, as the paper does, or by the "consensus" of many t-SNEs. Distances in Eq. 1 are taken in
    the space that was clustered (of a consensus in the components).

    weighting: "calibrated" divides the distances by their mean before Eq. 1, "published" takes them as they are.
    gamma: γ of Eq. 1, above 0, a larger one spreads the weights over more photographs; None is 0.1 where calibrated,
    1e-5 where published. effective: 1/Σw² of each facet, how many photographs its blend amounts to, 1 or more, by the
    temperature of Eq. 1; N or more is all alike, None Eq. 1 as printed. selection: which photographs stand for a
    centre: the nearest "staying" ones, members of its cluster that are firmly so (see `measure_firmness`), the
    "nearest" of all, as the paper has it, the "nearest_members" of its own cluster, or the "farthest", as the released
    program takes them.

    components: of the PCA, 1 or more, cut down to the photographs and channels there are. perplexity: of the t-SNE,
    about how many neighbours a photograph has in it, cut down to (M − 1)/3 of M photographs. tsne: how it is computed:
    "barnes_hut" by scikit-learn, "fft" by openTSNE (the extra `tsne`), "subsample", which embeds so many photographs
    and places the others between them, or "auto", barnes_hut for so many or fewer, else fft where it is installed.
    subsample: that number of photographs, at least 6. seed: of PCA, t-SNE and k-means.

    way: the layers on the way to the target whose answers to the photographs are kept, for an objective to match:
    "auto" finds them (see `mindseye.networks.way.layers_on_the_way`), names pick others, () is none. A network that is
    prepared already has its own. held_out: share of the photographs, 0 to 0.5, drawn by `seed`, that take part in
    nothing but the measures that need them; 0 where there are fewer than 5·C·N.

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
    if N < 1 or (facets != "auto" and facets < 1):
        raise ValueError(f"C and N are at least 1, not {facets} and {N}")
    if facets != "auto" and facets > len(photographs):
        raise ValueError(
            f"C={facets} facets need at least as many photographs; {photographs.root} holds {len(photographs)}"
        )
    check_settings(clusters, effective, held_out)
    if isinstance(network, Network):
        network = prepare(network, layer, way=resolve_way(network, layer, way))
    # What cannot be done is refused before the photographs are read.
    pick_method(len(photographs), tsne, subsample)

    def check_k(D: int) -> None:
        if not 1 <= k <= D:
            raise ValueError(f"k={k}: layer {layer} has {D} channels, so k is 1 to {D}")

    everything = survey(
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
    check_k(everything.means.shape[1])
    seen, aside = set_aside(everything, held_out, (MOST_KINDS if facets == "auto" else facets) * N, seed)
    if seen.key is None:  # the photographs changed meanwhile
        cache = None
    settings = GroupingSettings(clusters, components, perplexity, tsne, subsample, seed)
    group = group_photographs(seen, facets, settings, cache, stage)
    facets = len(group.centres)
    chosen, distances = choose(group.space, group.labels, group.centres, N, selection, group.firmness.stays)
    weights = facet_weights(distances, weighting, gamma, effective)
    if chosen.numel() > len(seen.photographs):
        log.warning(
            "%d photographs are fewer than C·N = %d·%d: some stand in several facets",
            len(seen.photographs), facets, chosen.shape[1],
        )  # fmt: skip
    if stage is not None:
        stage(f"blending {chosen.numel():,} photographs", None)
    images, unchanged = _read_chosen(seen, chosen)
    if not unchanged:
        cache = None
    levels = int(images.amax()) - int(images.amin()) + 1
    if levels < FEW_LEVELS:
        black, white = photographs.black, photographs.white
        log.warning(
            "the photographs use %d of 256 levels of brightness%s",
            levels,
            ", and the network sees no finer ones: raw counts need images.black and images.white, the values in the "
            "files that become 0 and 1"
            if black is None
            else f" between images.black={black:g} and images.white={white:g}: nearer to their counts, there are more",
        )
    blend = blend_chosen(network, seen, images, chosen, weights, cache)
    channels = top_channels(blend.maps, k)
    _refuse_silence(blend.maps, channels, layer)
    recalled = {"survey": seen.recalled, **group.recalled, **blend.recalled}
    if cache is not None and any(recalled.values()):
        what = ", ".join(name for name, from_cache in recalled.items() if from_cache)
        log.info("from the cache %s: %s of %d photographs", cache.folder, what, len(seen.photographs))
    mean = seen.means.mean(dim=0)
    features = seen.means[chosen]
    targets = FacetTargets(
        layer=layer,
        root=str(seen.photographs.root),
        paths=seen.photographs.paths,
        skipped=seen.photographs.skipped,
        initial=torch.einsum("cn,cnxyz->cxyz", weights, images.float() / 255).clamp(0, 1),
        maps=blend.maps,
        power=blend.power,
        channels=channels,
        weights=weights,
        chosen=chosen,
        distances=distances,
        photographs=images,
        embedding=group.embedding,
        labels=group.labels,
        centres=means_of(group.embedding, group.labels, facets),
        mean_activation=mean,
        way=blend.way,
        content=seen.content.sha256(seen.photographs) if unchanged and seen.content is not None else "",
        held_out=aside.photographs.paths,
        held_out_labels=group.place(aside.means),
        firmness=group.firmness.facets,
        agreement=group.firmness.agreement,
        stays=group.firmness.stays,
        clarity=clarity(features, mean),
        redundancy=redundancy(features, mean),
    )
    _warn_of_facets(targets.marks())
    return targets


def check_settings(clusters: str, effective: float | None, held_out: float) -> None:
    """Raises ValueError, in one line, for a value that cannot be meant."""
    if clusters not in get_args(Clustering):
        raise ValueError(f"facets.clusters={clusters}: {', '.join(get_args(Clustering))} are right")
    if effective is not None and not effective >= 1:
        raise ValueError(f"facets.effective={effective}: a number of at least 1, or null, is right")
    if not 0 <= held_out <= MOST_HELD_OUT:
        raise ValueError(f"images.held_out={held_out}: a share of 0 to {MOST_HELD_OUT} is right")


def set_aside(seen: Survey, share: float, needed: int, seed: int) -> tuple[Survey, Survey]:
    """(the photographs that facets are looked for in, those held out): none where there are fewer than AMPLE·needed.

    share: of the photographs, drawn by `seed`; needed: C·N, by the largest C that is tried.
    """
    M = len(seen.photographs)
    count = round(share * M) if AMPLE * needed <= M else 0
    drawn = np.random.default_rng([seed, M]).permutation(M)
    kept, aside = sorted(drawn[count:].tolist()), sorted(drawn[:count].tolist())
    if count:
        log.info("%d of %d photographs are held out: they take part in nothing but measures", count, M)
    return _some_of(seen, kept), _some_of(seen, aside)


def _some_of(seen: Survey, rows: list[int]) -> Survey:
    """What the layer says of some of the photographs."""
    if len(rows) == len(seen.photographs):
        return seen
    return replace(
        seen,
        means=seen.means[rows],
        maps=None if seen.maps is None else seen.maps[rows],
        photographs=replace(seen.photographs, paths=tuple(seen.photographs.paths[row] for row in rows)),
        key=None if seen.key is None else {**seen.key, "rows": hashlib.sha256(repr(rows).encode()).hexdigest()},
        content=None if seen.content is None else seen.content.of(rows),
    )


def _warn_of_facets(marks: list[list[str]]) -> None:
    """One line for facets that would not come out again, one for those that are hardly a blend."""
    advice = {
        "not firm": "would hardly come out again: mindseye facets C=2..12 looks for a firmer number of facets",
        "one photograph": "more than half the weight is one photograph's, and so will the picture be: "
        "facets.effective=6 or a larger facets.gamma spreads it",
    }
    for mark, text in advice.items():
        marked = [str(c) for c, own in enumerate(marks) if mark in own]
        if marked:
            log.warning("facet%s %s: %s", "" if len(marked) == 1 else "s", ", ".join(marked), text)


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


def _refuse_silence(maps: Tensor, channels: Tensor, layer: str) -> None:
    """A target of zeros cannot be reached or missed: there is nothing to draw."""
    for c in range(len(maps)):
        if not maps[c, channels[c]].any():
            raise ValueError(
                f"layer {layer} answers none of the photographs of facet {c} (its top-k channels are 0 everywhere); "
                "take another layer"
            )

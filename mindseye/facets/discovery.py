"""Which kinds of stimuli a layer sees: activations -> PCA -> t-SNE -> k-means -> weights (the paper's section 3.1)."""

import hashlib
import logging
from dataclasses import replace
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mindseye.facets.blending import Blend, blend_chosen
from mindseye.facets.cache import Cache
from mindseye.facets.clarity import clarity, redundancy
from mindseye.facets.clusters import means_of
from mindseye.facets.content import changed_since, content_of, say_changed
from mindseye.facets.decoding import UnreadablePhotograph
from mindseye.facets.embedding import Stage, pick_method
from mindseye.facets.firmness import STAYS
from mindseye.facets.grouping import Group, group_photographs
from mindseye.facets.number import MOST_KINDS
from mindseye.facets.photographs import Photographs
from mindseye.facets.survey import Passing, Progress, Survey, survey
from mindseye.facets.targets import FacetTargets, top_channels
from mindseye.networks.network import Network, check_network
from mindseye.networks.preparing import PreparedNetwork, prepare
from mindseye.networks.way import resolve_way
from mindseye.settings import Facets
from mindseye.words import called, printable

Weighting = Literal["calibrated", "published"]
Selection = Literal["staying", "nearest", "nearest_members", "farthest"]
log = logging.getLogger(__name__)

DARK = 64  # of 256: where the brightest value lies below, photographs are counts of a much smaller range
FEW_LEVELS = 32  # of 256: 12-bit counts in 16-bit files have at most 17, the darkest folder of photographs more
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
        raise ValueError(f"weighting must be calibrated or published, not {weighting}")
    if not gamma > 0:
        raise ValueError(f"gamma must be above 0, not {gamma}")
    exponents = 1 / (distances.double() + gamma)
    if effective is None:
        return torch.softmax(exponents, dim=1).float()
    return _weights_of(exponents, effective)


def _weights_of(exponents: Tensor, effective: float) -> Tensor:
    """softmax(β·x) of exponents x [C, N] with 1/Σw² = `effective`: bisection, since 1/Σw² falls as β grows."""
    if not effective >= 1:
        raise ValueError(f"effective must be a number of 1 or more, or None, not {effective}")
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
    facets: Facets = Facets(),
    *,
    cache: Cache | None = None,
    progress: Progress | None = None,
    stage: Stage | None = None,
) -> FacetTargets:
    """Find `facets.C` kinds of stimuli among the photographs and make each one's target (Eq. 1).

    Channel means -> PCA -> k-means (the paper: PCA -> t-SNE -> k-means); per centre `facets.N` photographs are blended
    into a first image and a target activation (the paper's section 3.1). The same arguments give the same bytes, with a
    `cache` or without. Everything the network says is in float32, without TF32.

    network: of `load_network`. photographs: of `load_photographs`. layer: the exact name of a module, or the paper's
    spelling of it; `layer_table` lists them. facets: how many, how they are found, and what stands for each.

    cache: where what the network says of the photographs and their embedding is kept, a `mindseye.facets.cache.Cache`;
    None is nowhere. progress: called with (photographs read, of how many). stage: called with (what is going on then,
    how much of it is done in 0..1 or None).

    Raises ValueError, in one line, for what cannot be done.

    >>> from mindseye.demo.photographs import write_photographs
    >>> from mindseye.facets.photographs import load_photographs
    >>> from mindseye.networks import load_network
    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> _ = write_photographs(folder.name, "padlock", 12, seed=0)
    >>> photographs = load_photographs(folder.name, size=32)
    >>> targets = discover_facets(load_network("demo"), photographs, "layer3.0", Facets(C=2, k=8, N=4))
    >>> targets.initial.shape, targets.channels.shape, targets.weights.shape
    (torch.Size([2, 3, 32, 32]), torch.Size([2, 8]), torch.Size([2, 4]))
    >>> folder.cleanup()
    """
    _check_given(network, photographs, facets)
    layer = network.resolve(layer)
    if isinstance(network, Network):
        network = prepare(network, layer, way=resolve_way(network, layer, facets.way))
    # What cannot be done is refused before the photographs are read.
    pick_method(len(photographs), facets.tsne, facets.subsample)
    everything = _survey(network, photographs, layer, facets, cache, progress)
    most = MOST_KINDS if facets.C == "auto" else facets.C
    seen, aside = set_aside(everything, facets.held_out, most * facets.N, facets.seed)
    if seen.key is None:  # the photographs changed meanwhile
        cache = None
    group = group_photographs(seen, facets, cache, stage)
    chosen = _choose_photographs(seen, group, facets, stage)
    if not chosen.unchanged:
        cache = None
    blend = blend_chosen(network, seen, chosen.images, chosen.indices, chosen.weights, cache)
    channels = top_channels(blend.maps, facets.k)
    _refuse_silence(blend.maps, channels, layer)
    recalled = {"survey": seen.recalled, **group.recalled, **blend.recalled}
    if cache is not None and any(recalled.values()):
        kinds = ", ".join(name for name, from_cache in recalled.items() if from_cache)
        log.info("from the cache %s: %s of %d photographs", cache.folder, kinds, len(seen.photographs))
    targets = _targets(layer, seen, aside, group, chosen, blend, channels)
    if facets.selection == "farthest":
        targets = replace(targets, farthest=True)
        log.info("what stands for a facet is the farthest from it, as was asked, and is mostly others'")
    _warn_of_facets(targets.marks())
    return targets


def _survey(
    network: PreparedNetwork,
    photographs: Photographs,
    layer: str,
    facets: Facets,
    cache: Cache | None,
    progress: Progress | None,
) -> Survey:
    """What the layer says of every photograph. Raises ValueError where it has fewer than k channels."""

    def check_k(D: int) -> None:
        if facets.k > D:
            raise ValueError(f"k must be 1 to {D} (the channels of {layer}), not {facets.k}")

    everything = survey(
        network,
        photographs,
        layer,
        Passing(batch_size=facets.batch_size, workers=facets.workers, progress=progress),
        cache=cache,
        content=content_of(photographs),
        check=check_k,
    )
    check_k(everything.means.shape[1])
    return everything


class Chosen(NamedTuple):
    """The photographs that stand for each facet."""

    indices: Tensor  # [C, N] int64
    distances: Tensor  # [C, N], to their centre
    weights: Tensor  # [C, N]: w of Eq. 1
    images: Tensor  # uint8 [C, N, ch, S, S]
    unchanged: bool  # whether they are still those of the survey


def _choose_photographs(seen: Survey, group: Group, facets: Facets, stage: Stage | None) -> Chosen:
    """Those that stand for each centre, weighted by Eq. 1, and read."""
    indices, distances = choose(
        group.space, group.labels, group.centres, facets.N, facets.selection, group.firmness.stays
    )
    weights = facet_weights(distances, facets.weighting, facets.gamma, facets.effective)
    if indices.numel() > len(seen.photographs):
        log.warning(
            "%d photographs are fewer than C·N = %d·%d: some stand in several facets",
            len(seen.photographs), len(group.centres), indices.shape[1],
        )  # fmt: skip
    if stage is not None:
        stage(f"blending {indices.numel():,} photographs", None)
    images, unchanged = _read_chosen(seen, indices)
    _warn_of_levels(images, seen.photographs.black, seen.photographs.white)
    return Chosen(indices, distances, weights, images, unchanged)


def _targets(
    layer: str, seen: Survey, aside: Survey, group: Group, chosen: Chosen, blend: Blend, channels: Tensor
) -> FacetTargets:
    """Everything that is known of the facets, as one value."""
    mean, features = seen.means.mean(dim=0), seen.means[chosen.indices]
    return FacetTargets(
        layer=layer,
        root=str(seen.photographs.root),
        paths=seen.photographs.paths,
        skipped=seen.photographs.skipped,
        initial=torch.einsum("cn,cnxyz->cxyz", chosen.weights, chosen.images.float() / 255).clamp(0, 1),
        maps=blend.maps,
        power=blend.power,
        channels=channels,
        weights=chosen.weights,
        chosen=chosen.indices,
        distances=chosen.distances,
        photographs=chosen.images,
        embedding=group.embedding,
        labels=group.labels,
        centres=means_of(group.embedding, group.labels, len(group.centres)),
        mean_activation=mean,
        way=blend.way,
        content=seen.content.sha256(seen.photographs) if chosen.unchanged and seen.content is not None else "",
        held_out=aside.photographs.paths,
        held_out_labels=group.place(aside.means),
        firmness=group.firmness.facets,
        agreement=group.firmness.agreement,
        stays=group.firmness.stays,
        clarity=clarity(features, mean),
        redundancy=redundancy(features, mean),
    )


def _check_given(network: object, photographs: object, facets: object) -> None:
    """Raises ValueError, in one line, for what is given in place of a network, photographs or Facets, or too few."""
    check_network(network)
    if not isinstance(photographs, Photographs):
        raise ValueError(
            f"the photographs must be what load_photographs(FOLDER, size=…) gives, not {called(photographs)}"
        )
    if not isinstance(facets, Facets):
        raise ValueError(f"the facets must be Facets(C=…, k=…), not {called(facets)}")
    if facets.C != "auto" and len(photographs) < facets.C:
        raise ValueError(
            f"C={facets.C} facets need at least as many photographs; {photographs.root} holds {len(photographs)}"
        )


def set_aside(seen: Survey, share: float, needed: int, seed: int) -> tuple[Survey, Survey]:
    """(the photographs that facets are looked for in, those held out): none where there are fewer than AMPLE·needed.

    share: of the photographs, drawn by `seed`; needed: C·N, by the largest C that is tried. Of copies, byte for byte,
    none is held out where another one takes part: it would be no photograph that nothing was made of.
    """
    M = len(seen.photographs)
    count = round(share * M) if AMPLE * needed <= M else 0
    drawn = np.random.default_rng([seed, M]).permutation(M).tolist()
    contents = range(M) if seen.content is None else seen.content.hashes
    taking_part = {contents[row] for row in drawn[count:]}
    aside = sorted(row for row in drawn[:count] if contents[row] not in taking_part)
    kept = sorted(set(drawn) - set(aside))
    if aside:
        log.info("%d of %d photographs are held out: they take part in nothing but measures", len(aside), M)
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


def _warn_of_levels(images: Tensor, black: float | None, white: float | None) -> None:
    """One line where photographs, uint8, use so few levels that raw counts may have been cut down to 256."""
    levels = int(images.amax()) - int(images.amin()) + 1
    brightest = int(images.amax())
    if black is None and (levels < FEW_LEVELS or brightest < DARK):
        log.warning(
            "the photographs use %d of 256 levels of brightness, the brightest is %d, and the network sees no finer "
            "ones: raw counts need black and white, the values in the files that become 0 and 1",
            levels, brightest,
        )  # fmt: skip
    elif levels < FEW_LEVELS:
        log.warning(
            "the photographs use %d of 256 levels of brightness between black=%g and white=%g: nearer to their counts, "
            "there are more",
            levels, black, white,
        )  # fmt: skip


def _warn_of_facets(marks: list[list[str]]) -> None:
    """One line for the facets of each mark."""
    advice = {
        "not firm": "would hardly come out again: mindseye facets C=2..12 looks for a firmer number of facets",
        "one photograph": "more than half the weight is one photograph's, and so will the picture be: "
        "effective=6 or a larger gamma spreads it",
        "mostly others'": "more than half the weight is on photographs of other facets, and so is the picture: "
        "fewer facets, or N and effective no larger than the facet, leave it its own",
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

"""What can be measured of a visualisation without a person: each figure per facet, and each beside its baselines.

Pictures are [C, ch, S, S] in 0..1, measured as they are (no transformation, float32). v is the activation of facet
c's picture at the target layer, t its target; both restricted to the facet's top-k channels where "top-k" is said.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mindseye.facets.targets import FacetTargets
from mindseye.facets.way_statistics import IMAGE
from mindseye.networks.chance import seeded
from mindseye.networks.maps import as_maps
from mindseye.networks.network import Network
from mindseye.networks.preparing import PreparedNetwork, prepare
from mindseye.results.judges import TransferReference, transfer, unit
from mindseye.results.likeness import broad_structure, centred_cosine, copy, path, retrieval, share_of_the_way
from mindseye.results.measures import TAKEN, flat, weight_in
from mindseye.results.where import channel_weights
from mindseye.visualizer.filters import total_variation
from mindseye.visualizer.objective import as_strong, cosine, relative_distance, take_channels
from mindseye.words import called

Figures = dict[str, Any]  # names -> a number, or a group of such
# A measure of one's own: (pictures [C, ch, S, S] in 0..1, their activations [C, D, H', W'] at the target layer, the
# targets) -> [C]. Everything is on the CPU, in float32; `targets.maps` and `targets.channels` are t and the top-k.
Metric = Callable[[Tensor, Tensor, FacetTargets], Tensor]


def fidelity(v: Tensor, t: Tensor, strength: Tensor, gain: float = 1.0) -> dict[str, Tensor]:
    """How nearly a picture's top-k maps v [C, k, H', W'] are the target's t: each figure [C].

    strength [C]: how strong the photographs' own maps are, their ‖a‖; a blend of them, t, is weaker.

    cosine: of the whole maps, 1 is the same pattern, whatever its strength.
    relative_distance: ‖v − s·t‖/‖s·t‖ with t of that strength, s = `gain` the exaggeration asked for; 0 is exact.
    magnitude: ‖v‖ / strength, whatever the signs; s is what was asked for, 1 is as strong as the photographs, 10 and
    more is runaway activation.
    """
    return {
        "cosine": cosine(v, t),
        "relative_distance": relative_distance(v, gain * as_strong(t, strength)),
        "magnitude": v.flatten(1).norm(dim=1) / strength,
    }


def selectivity(v: Tensor, top_k: Tensor) -> Tensor:
    """Share of the layer's total activation Σ|v| that falls in the facet's top-k channels: v [C, D, H', W'] -> [C].

    In 0..1; a larger share is less entanglement.
    """
    strength = v.abs().flatten(2).sum(dim=2)
    return strength.gather(1, top_k).sum(dim=1) / strength.sum(dim=1).clamp(min=1e-12)


def log_spectrum(images: Tensor) -> Tensor:
    """Radially averaged log power spectrum of each image: [n, ch, S, S] in 0..1 -> [n, S // 2].

    log10 of the mean of |FFT|² over all frequencies of f − ½ to f + ½ cycles per image, f = 1 … S/2, of the mean over
    channels, after its own mean is taken off and a Hann window is laid over it: without one, the jump from one border
    to the opposite shows as power at every frequency. Photographs fall as about 1/f² (Field 1987; van der Schaaf & van
    Hateren 1996).
    """
    S = images.shape[-1]
    grey = images.double().mean(dim=1)
    window = torch.hann_window(S, periodic=False, dtype=torch.float64, device=images.device)
    window = window[:, None] * window[None, :]
    mean = (grey * window).sum(dim=(1, 2), keepdim=True) / window.sum()
    power = torch.fft.fft2((grey - mean) * window, norm="ortho").abs().square()
    f = torch.fft.fftfreq(S, d=1 / S, dtype=torch.float64, device=images.device)
    ring = (f[:, None].square() + f[None, :].square()).sqrt().round().long().clamp(max=S // 2 + 1).flatten()
    sums = power.new_zeros(len(images), S // 2 + 2).index_add_(1, ring, power.flatten(1))
    counts = ring.bincount(minlength=S // 2 + 2)
    # A floor far below what 8 bits can say (1/255² / 12 of quantisation noise): flat images have a spectrum too.
    return (sums / counts)[:, 1 : S // 2 + 1].clamp(min=1e-8).log10()


def spectral_distance(images: Tensor, photographs: Tensor) -> Tensor:
    """How far a picture's spectrum is from its facet's photographs': [C, ch, S, S], uint8 [C, N, ch, S, S] -> [C].

    Root mean square over the frequencies of the difference of `log_spectrum` to the mean of the photographs'; 0 is
    theirs, 1 is ten times (or a tenth of) their power throughout.
    """
    natural = torch.stack([log_spectrum(facet.float() / 255).mean(dim=0) for facet in photographs])
    return (log_spectrum(images.float()) - natural).square().mean(dim=1).sqrt().float()


def diversity(v: Tensor) -> Tensor | None:
    """How unlike the other facets' pictures each one is: activations v [C, D, H', W'] -> [C]; None for one facet.

    Mean over the others of 1 − cosine of the Gram matrices G = A·Aᵀ over the map (Gatys et al. 2015; as a measure of
    diversity Olah et al. 2017): which channels answer together, wherever. 0 is the same texture; the mean over facets
    is the mean over all pairs.
    """
    if len(v) < 2:
        return None
    flat = v.double().flatten(2)
    if flat.shape[1] > flat.shape[2]:
        # ⟨A·Aᵀ, B·Bᵀ⟩ = ‖Aᵀ·B‖²: the smaller of the two products.
        products = torch.stack([torch.stack([(a.T @ b).square().sum() for b in flat]) for a in flat])
    else:
        grams = torch.einsum("cdp,cep->cde", flat, flat).flatten(1)
        products = grams @ grams.T
    norms = products.diagonal().clamp(min=1e-300).sqrt()
    unlike = 1 - products / (norms[:, None] * norms[None, :])
    known = unlike.isfinite()  # not so for a facet that the layer answers with NaN: the others do without it
    unlike = torch.where(known, unlike, 0).fill_diagonal_(0)
    others = known.sum(dim=1) - 1
    return torch.where(others > 0, unlike.sum(dim=1) / others, math.nan).clamp(0, 1).float()


# ---- the layers on the way -------------------------------------------------------------------------------------------


class OnTheWay(NamedTuple):
    """A layer on the way to the target, the target's own among them, and how it answers the facets' photographs."""

    layer: str  # its exact name
    photographs: Tensor  # [C, N, D]: channel means


class Photographed(NamedTuple):
    """What the facets' photographs are answered, in one pass of them."""

    way: list[OnTheWay]  # the layers in order, the target's own last
    evidence: Tensor  # [C, N, H', W']: Σ_j t̄_j·a_j at the target's layer, see `mindseye.results.where`


@torch.no_grad()
def look_at_photographs(
    network: Network | PreparedNetwork, targets: FacetTargets, *, batch_size: int = 16
) -> Photographed:
    """What `path` holds pictures against, and where in each photograph its facet is, found once for all of them.

    The layers on the way are what a prepared network records; of another network those that the targets know.
    """
    prepared = _up_to_the_target(network, targets)
    shape = tuple(targets.chosen.shape)
    weights = channel_weights(targets.maps, targets.channels).repeat_interleave(shape[1], dim=0)
    answered = _answered(prepared, targets.photographs.flatten(0, 1), batch_size, weights=weights)
    way = [OnTheWay(layer, means.unflatten(0, shape)) for layer, means in answered.means.items()]
    return Photographed(way, answered.evidence.unflatten(0, shape))


def on_the_way(network: Network | PreparedNetwork, targets: FacetTargets, *, batch_size: int = 16) -> list[OnTheWay]:
    """`way` of `look_at_photographs` alone."""
    return look_at_photographs(network, targets, batch_size=batch_size).way


def _up_to_the_target(network: Network | PreparedNetwork, targets: FacetTargets) -> PreparedNetwork:
    way = () if isinstance(network, PreparedNetwork) else targets.way
    known = [statistics.layer for statistics in way if statistics.layer != IMAGE]
    return prepare(network, targets.layer, way=known)


class _Answered(NamedTuple):
    maps: Tensor  # [n, D, H', W'] of the target's layer; none where they were not asked for
    means: dict[str, Tensor]  # by layer, channel means [n, D_l]
    evidence: Tensor  # [n, H', W'], the target's maps summed by the weights; none where there were none


def _answered(
    network: PreparedNetwork, images: Tensor, batch_size: int, *, maps: bool = False, weights: Tensor | None = None
) -> _Answered:
    """What the layers on the way and the target's answer images [n, ch, S, S], in one pass; weights [n, D]."""
    layers, kept = (*network.way, network.layer), []
    summed: list[Tensor] = []
    means: dict[str, list[Tensor]] = {layer: [] for layer in layers}
    for first, batch in enumerate(images.split(batch_size)):
        with seeded(0):
            answers = network(unit(batch, network.mean.device))
        for layer, answer in zip(layers, (*answers.way, answers.target), strict=True):
            activation = as_maps(answer, layer, network.layout(layer, batch.shape[-1])).float()
            means[layer].append(activation.flatten(2).mean(dim=2).cpu())
        if maps:
            kept.append(activation.cpu())  # the target's is the last
        if weights is not None:
            own = weights[first * batch_size :][: len(batch)].to(activation.device)
            summed.append(torch.einsum("nd,ndhw->nhw", own, activation).cpu())
    together = {layer: torch.cat(parts) for layer, parts in means.items()}
    nothing = torch.empty(0)
    return _Answered(torch.cat(kept) if kept else nothing, together, torch.cat(summed) if summed else nothing)


@torch.no_grad()
def measure_path(
    network: Network | PreparedNetwork,
    targets: FacetTargets,
    images: Tensor,
    way: Sequence[OnTheWay],
    *,
    batch_size: int = 16,
) -> list[Figures]:
    """`path` of `measure` alone, for each facet: one pass of its picture, pictures [C, ch, S, S] in 0..1."""
    answered = _answered(_up_to_the_target(network, targets), images.cpu(), batch_size)
    return [row_of(_path(answered.means, way), c) for c in range(targets.C)]


def _path(means: Mapping[str, Tensor], way: Sequence[OnTheWay]) -> Figures:
    """Of pictures' channel means by layer. Where nothing but the target was looked at there is no way to take a mean
    over: `mean` is NaN.
    """
    layers, mean = path([means[layer] for layer, _ in way], [photographs for _, photographs in way])
    at = dict(zip([layer for layer, _ in way], layers, strict=True))
    return {"target": layers[-1], "mean": mean if len(way) > 1 else torch.full_like(mean, torch.nan), "layers": at}


@dataclass(frozen=True)
class Measuring:
    """What pictures are measured by, beside their own network.

    gain: s, by which targets are multiplied. transfer: other networks that judge. metrics: the user's own, by their
    names. way: of `on_the_way` of the same network, found by who measures for None; empty, there is no path.
    """

    gain: float = 1.0
    transfer: Sequence[TransferReference] = ()
    metrics: Mapping[str, Metric] | None = None
    way: Sequence[OnTheWay] | None = None
    batch_size: int = 16


@torch.no_grad()
def measure(
    network: Network | PreparedNetwork, targets: FacetTargets, images: Tensor, measuring: Measuring = Measuring()
) -> list[Figures]:
    """Every figure of one picture per facet: a nested dictionary for each of the C facets.

    fidelity (with `pooled`, the same on the means over the map), selectivity, retrieval, diversity (None for a single
    facet), naturalness.tv (total variation over the mean of the facet's photographs': 1 is as smooth as they are; None
    where they are flat), naturalness.spectrum (see `spectral_distance`), copy (see `likeness.copy`, of
    `broad_structure`), path (see `likeness.path`; at the `target`'s layer, over all layers on the way as `mean`, None
    where the network records none, each of the `layers`), and transfer where other networks are given (the first one's
    figures by their plain names; of several each one's under `networks`). The user's own stand under their
    names; ValueError where one does not give C numbers.
    """
    prepared, images = _up_to_the_target(network, targets), images.cpu()
    gain, references, batch_size = measuring.gain, measuring.transfer, measuring.batch_size
    v, drawn, _ = _answered(prepared, images, batch_size, maps=True)
    way = on_the_way(prepared, targets, batch_size=batch_size) if measuring.way is None else measuring.way
    top, t_top = take_channels(v, targets.channels), take_channels(targets.maps, targets.channels)
    means, t_means = top.mean(dim=(2, 3), keepdim=True), t_top.mean(dim=(2, 3), keepdim=True)
    similarity = centred_cosine(v.flatten(2).mean(2), targets.maps.flatten(2).mean(2), targets.mean_activation)
    natural = torch.stack([total_variation(facet.float() / 255).mean() for facet in targets.photographs])
    figures: Figures = {
        "fidelity": {
            **fidelity(top, t_top, targets.strength(), gain),
            # Means of a blend are those of its photographs: nothing is lost in them.
            "pooled": fidelity(means, t_means, t_means.flatten(1).norm(dim=1), gain),
        },
        "selectivity": selectivity(v, targets.channels),
        "retrieval": retrieval(similarity),
        "naturalness": {
            "tv": total_variation(images.float()) / natural,
            "spectrum": spectral_distance(images, targets.photographs),
        },
        "diversity": apart if (apart := diversity(v)) is not None else [math.nan] * targets.C,
        "copy": copy(broad_structure(images), _photographs_from_afar(targets)),
    }
    if way:
        figures["path"] = _path(drawn, way)
    for name, metric in (measuring.metrics or {}).items():
        figures[name] = own_measure(name, metric, images, v, targets)
    if references:
        each = [transfer(images, reference, batch_size=batch_size) for reference in references]
        figures["transfer"] = dict(each[0])
        if len(references) > 1:
            named = {reference.name: seen for reference, seen in zip(references, each, strict=True)}
            figures["transfer"]["networks"] = named
    return [row_of(figures, c) for c in range(targets.C)]


def _photographs_from_afar(targets: FacetTargets) -> Tensor:
    """[C, N, ch·32²], a facet at a time: as floats they are four times as large."""
    return torch.stack([broad_structure(facet.float() / 255) for facet in targets.photographs])


def own_measure(name: str, metric: Metric, images: Tensor, v: Tensor, targets: FacetTargets) -> Tensor:
    """What a user's measure says of pictures [C, ch, S, S] with activations v [C, D, H', W']: [C], float32.

    Raises ValueError where that fails, or is not one number a facet.
    """
    try:
        figure = torch.as_tensor(metric(images.float(), v, targets)).detach().cpu()
    except Exception as error:  # a function of the user's own may do anything; the log has where
        raise ValueError(f"the measure {name} failed: {type(error).__name__}: {error}") from error
    if figure.shape != (targets.C,) or figure.is_complex():
        raise ValueError(
            f"the measure {name} must give one real number for each of {targets.C} facets, [{targets.C}], "
            f"not a tensor of shape {list(figure.shape)}"
        )
    return figure.float()


def check_names(metrics: Mapping[str, Metric]) -> None:
    """Raises ValueError for a measure that is no function, or whose name is taken or no word."""
    if not isinstance(metrics, Mapping):
        raise ValueError(
            f"metrics is {called(metrics)}: it must be functions by their names, {{'contrast': contrast}}"
        )
    for name, metric in metrics.items():
        if not name.isidentifier() or name in TAKEN:
            raise ValueError(
                f"the name of a measure must be a word of letters, digits and _, and none of {', '.join(TAKEN)}, "
                f"not {name!r}"
            )
        if not callable(metric):
            raise ValueError(
                f"the measure {name} must be a function (images, activations, targets) -> [C], "
                f"not {called(metric)}"
            )


def row_of(figures: Figures, c: int) -> Figures:
    """What figures of all facets, each [C], are of facet c."""
    return {name: row_of(x, c) if isinstance(x, dict) else rounded(float(x[c])) for name, x in figures.items()}


def rounded(value: float) -> float | None:
    """None where there is no figure (a target of all zeros has no magnitude): JSON has no NaN."""
    return round(value, 6) if math.isfinite(value) else None


def summarise(rows: Sequence[Figures]) -> Figures:
    """The mean of every figure over the facets that have it, in the same shape; None where none has.

    A share of a way is weighted by the way, see `measures.weight_of`.
    """
    named = [flat(row) for row in rows]

    def mean(name: str) -> float | None:
        given = [(row[name], weight_in(row, name)) for row in named if row[name] is not None]
        return round(sum(x * w for x, w in given) / sum(w for _, w in given), 6) if given else None

    def of(part: Figures, prefix: str) -> Figures:
        return {
            name: of(value, f"{prefix}{name}.") if isinstance(value, dict) else mean(f"{prefix}{name}")
            for name, value in part.items()
        }

    return of(rows[0], "")


def baselines(
    network: Network | PreparedNetwork, targets: FacetTargets, measuring: Measuring = Measuring(), *, seed: int = 0
) -> dict[str, list[Figures]]:
    """The same figures for three pictures that nobody drew: per facet, to hold the visualisation's against.

    initial: the blend it starts from; nearest: the photograph with the largest weight; noise: independent uniform
    pixels. measuring: as in `measure`, so that its distances stand beside the visualisation's.
    """
    if measuring.way is None:
        measuring = replace(measuring, way=on_the_way(network, targets, batch_size=measuring.batch_size))
    generator = torch.Generator().manual_seed(seed)
    pictures = {
        "initial": targets.initial,
        "nearest": targets.nearest(),
        "noise": torch.rand(targets.initial.shape, generator=generator),
    }
    return {
        name: measure(network, targets, images, measuring) for name, images in pictures.items()
    }


def with_gains(rows: Sequence[Figures], compared: Mapping[str, Sequence[Figures]]) -> list[Figures]:
    """The same rows, in `transfer` the share of the way from the initial blend to the nearest photograph.

    gain: of its cosine, agreement_gain: of its agreement, where there is one; see `likeness.share_of_the_way`, None
    where the nearest is not clearly above the blend. way, agreement_way: nearest − initial, by which facets count in a
    mean of shares. compared: of `baselines`, whose own rows may be among `rows`: initial has 0 and nearest 1. Where
    several networks judge, each one's under `networks`.
    """

    def gained(row: Figures, start: Figures, goal: Figures) -> Figures:
        added: Figures = {}
        for prefix, figure in (("", "cosine"), ("agreement_", "agreement")):
            if figure in row:
                values = [math.nan if x[figure] is None else x[figure] for x in (row, start, goal)]
                added[f"{prefix}gain"] = rounded(float(share_of_the_way(*torch.tensor(values))))
                added[f"{prefix}way"] = rounded(values[2] - values[1])
        networks = {
            name: gained(figures, start["networks"][name], goal["networks"][name])
            for name, figures in row.get("networks", {}).items()
        }
        return {**row, **added, **({"networks": networks} if networks else {})}

    return [
        {**row, "transfer": gained(row["transfer"], start["transfer"], goal["transfer"])} if "transfer" in row else row
        for row, start, goal in zip(rows, compared["initial"], compared["nearest"], strict=True)
    ]


def adjusted_rand_index(labels: Tensor, truth: Sequence[object]) -> float:
    """Agreement of two groupings of the same M things, corrected for chance (Hubert & Arabie 1985): 1 is the same."""
    from sklearn.metrics import adjusted_rand_score

    names = sorted({str(value) for value in truth})
    return float(adjusted_rand_score([names.index(str(value)) for value in truth], labels.tolist()))

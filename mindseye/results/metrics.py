"""What can be measured of a visualisation without a person: each figure per facet, and each beside its baselines.

Pictures are [C, ch, S, S] in 0..1, measured as they are (no transformation, float32). v is the activation of facet
c's picture at the target layer, t its target; both restricted to the facet's top-k channels where "top-k" is said.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mindseye.facets.cache import Cache
from mindseye.facets.photographs import Photographs
from mindseye.facets.survey import survey, to_unit
from mindseye.facets.targets import FacetTargets
from mindseye.networks.maps import as_maps
from mindseye.networks.network import Network, check_network
from mindseye.networks.preparing import PreparedNetwork, prepare
from mindseye.networks.recording import record
from mindseye.visualizer.filters import total_variation
from mindseye.visualizer.objective import cosine, relative_distance, take_channels

Figures = dict[str, Any]  # names -> a number, or a group of such
# A measure of one's own: (pictures [C, ch, S, S] in 0..1, their activations [C, D, H', W'] at the target layer, the
# targets) -> [C]. Everything is on the CPU, in float32; `targets.maps` and `targets.channels` are t and the top-k.
Metric = Callable[[Tensor, Tensor, FacetTargets], Tensor]
# What metrics.json says of a facet besides measures of one's own, which cannot have these names.
TAKEN = ("facet", "baselines", "fidelity", "selectivity", "retrieval", "naturalness", "diversity", "transfer", "facets")


def fidelity(v: Tensor, t: Tensor, gain: float = 1.0) -> dict[str, Tensor]:
    """How nearly a picture's top-k maps v [C, k, H', W'] are the target's t: each figure [C].

    cosine: of the whole maps, 1 is the same pattern, whatever its strength.
    relative_distance: ‖v − s·t‖/‖s·t‖, s = `gain` the exaggeration that was asked for; 0 is exact.
    magnitude: mean v / mean t; s is what was asked for, 10 and more is runaway activation.
    """
    mean = t.flatten(1).mean(dim=1)
    return {
        "cosine": cosine(v, t),
        "relative_distance": relative_distance(v, gain * t),
        "magnitude": v.flatten(1).mean(dim=1) / mean,
    }


def selectivity(v: Tensor, top_k: Tensor) -> Tensor:
    """Share of the layer's total activation Σ|v| that falls in the facet's top-k channels: v [C, D, H', W'] -> [C].

    In 0..1; a larger share is less entanglement.
    """
    strength = v.abs().flatten(2).sum(dim=2)
    return strength.gather(1, top_k).sum(dim=1) / strength.sum(dim=1).clamp(min=1e-12)


def centred_cosine(v: Tensor, t: Tensor, mean: Tensor) -> Tensor:
    """Every picture against every target: cosine of channel means v [C, D], t [C, D] about `mean` [D] -> [C, C]."""
    v, t = v - mean, t - mean
    return torch.nn.functional.normalize(v, dim=1) @ torch.nn.functional.normalize(t, dim=1).T


def retrieval(similarity: Tensor) -> Tensor:
    """1 where facet c's own target is the most similar of the C to its picture, else 0: [C, C] -> [C]."""
    similarity = similarity.nan_to_num(nan=-math.inf)  # a facet without a target is nobody's nearest
    return (similarity.argmax(dim=1) == torch.arange(len(similarity), device=similarity.device)).float()


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


@dataclass(frozen=True)
class TransferReference:
    """What another network, which has no part in drawing, sees in the same photographs."""

    name: str  # the network's
    network: Network  # that judges
    layer: str  # the exact name of its layer
    targets: Tensor  # [C, D2]: weighted channel means of the facet's photographs
    mean: Tensor  # [D2] over all M photographs
    classes: Tensor | None  # [C]: the class it sees most in the facet's photographs; None where it has no classes

    def __repr__(self) -> str:
        """One line for a prompt."""
        return f"<TransferReference {self.name} at {self.layer}: {len(self.targets)} facets>"


@torch.no_grad()
def transfer_reference(
    network: Network,
    layer: str,
    targets: FacetTargets,
    photographs: Photographs,
    *,
    batch_size: int = 16,
    workers: int | None = None,
    cache: Cache | None = None,
) -> TransferReference:
    """What another network sees at its `layer` in the facets' photographs, for `visualize(..., references=[...])`.

    network: of `load_network`, one that takes as many channels as the one that draws. layer: a name of its own.
    targets: of `discover_facets`. photographs: all that the facets were found among, about whose mean activation
    likenesses are measured. batch_size: photographs that go through the network at once. workers: processes that read
    photographs; 0 is none, None by their number and the cores. cache: where what the network says of the photographs is
    kept, the same for every cell of a sweep; None is nowhere.

    Raises ValueError for an unknown layer, where no photograph is readable, and where the layer gives no finite maps.
    """
    check_network(network)
    layer = network.resolve(layer)
    device = network.mean.device
    # Of the maps only the means are needed: none is kept.
    everything = survey(network, photographs, layer, batch_size=batch_size, keep_maps=0, workers=workers, cache=cache)
    C, N = targets.chosen.shape
    images = targets.photographs.flatten(0, 1)
    means = _batched(lambda x: pooled(network, layer, x), images, batch_size, device).reshape(C, N, -1)
    probabilities = _probabilities(network, images, batch_size, device)
    classes = None
    if probabilities is not None:
        seen = torch.einsum("cn,cnd->cd", targets.weights, probabilities.reshape(C, N, -1))
        classes = seen.argmax(dim=1)
    weighted = torch.einsum("cn,cnd->cd", targets.weights, means)
    return TransferReference(network.name, network, layer, weighted, everything.means.mean(dim=0), classes)


@torch.no_grad()
def transfer(images: Tensor, reference: TransferReference, *, batch_size: int = 16) -> dict[str, Tensor]:
    """Does another network see the facet in the picture? Each figure [C].

    cosine: of its channel means about the mean of all photographs, to the facet's own weighted photographs'.
    retrieval: 1 where no other facet's photographs are nearer.
    agreement: probability it gives to the class that it sees most in the facet's photographs (no labels needed).
    """
    device = reference.network.mean.device
    v = _batched(lambda x: pooled(reference.network, reference.layer, x), images, batch_size, device)
    similarity = centred_cosine(v, reference.targets, reference.mean)
    figures = {"cosine": similarity.diagonal(), "retrieval": retrieval(similarity)}
    probabilities = None
    if reference.classes is not None:
        probabilities = _probabilities(reference.network, images, batch_size, device)
    if reference.classes is not None and probabilities is not None:
        figures["agreement"] = probabilities.gather(1, reference.classes[:, None])[:, 0]
    return figures


def pooled(network: Network, layer: str, images: Tensor) -> Tensor:
    """Channel means of a layer: images [B, ch, S, S] in 0..1 -> [B, D]."""
    with record(network, layer) as tape:
        return as_maps(tape(images), layer, network.prefix_tokens).float().flatten(2).mean(dim=2)


def _probabilities(network: Network, images: Tensor, batch_size: int, device: torch.device) -> Tensor | None:
    """[n, classes], or None where the network's output is not [B, classes]."""
    first = network(_unit(images[:1], device))
    if not isinstance(first, Tensor) or first.ndim != 2 or first.shape[1] < 2:
        return None
    return _batched(lambda x: network(x).float().softmax(dim=1), images, batch_size, device)


def _unit(images: Tensor, device: torch.device) -> Tensor:
    return to_unit(images, device) if images.dtype == torch.uint8 else images.to(device)


def _batched(run: Callable[[Tensor], Tensor], images: Tensor, batch_size: int, device: torch.device) -> Tensor:
    return torch.cat([run(_unit(batch, device)).cpu() for batch in images.split(batch_size)])


@torch.no_grad()
def measure(
    network: Network | PreparedNetwork,
    targets: FacetTargets,
    images: Tensor,
    *,
    gain: float = 1.0,
    references: Sequence[TransferReference] = (),
    measures: Mapping[str, Metric] | None = None,
    batch_size: int = 16,
) -> list[Figures]:
    """Every figure of one picture per facet: a nested dictionary for each of the C facets.

    fidelity (with `pooled`, the same on the means over the map), selectivity, retrieval, diversity (None for a single
    facet), naturalness.tv (total variation over the mean of the facet's photographs': 1 is as smooth as they are; None
    where they are flat), naturalness.spectrum (see `spectral_distance`), and transfer where other networks are given
    (the first one's figures by their plain names; of several each one's under `networks`). `measures` are the user's
    own, under their names; ValueError where one does not give C numbers.
    """
    prepared = prepare(network, targets.layer)

    def answer(pictures: Tensor) -> Tensor:
        return as_maps(prepared(pictures)[0], targets.layer, prepared.prefix_tokens).float()

    v = _batched(answer, images, batch_size, prepared.mean.device)
    top, t_top = take_channels(v, targets.channels), take_channels(targets.maps, targets.channels)
    means, t_means = top.mean(dim=(2, 3), keepdim=True), t_top.mean(dim=(2, 3), keepdim=True)
    similarity = centred_cosine(v.flatten(2).mean(2), targets.maps.flatten(2).mean(2), targets.mean_activation)
    natural = torch.stack([total_variation(facet.float() / 255).mean() for facet in targets.photographs])
    figures: Figures = {
        "fidelity": {**fidelity(top, t_top, gain), "pooled": fidelity(means, t_means, gain)},
        "selectivity": selectivity(v, targets.channels),
        "retrieval": retrieval(similarity),
        "naturalness": {
            "tv": total_variation(images.float()) / natural,
            "spectrum": spectral_distance(images, targets.photographs),
        },
        "diversity": apart if (apart := diversity(v)) is not None else [math.nan] * targets.C,
    }
    for name, metric in (measures or {}).items():
        figures[name] = own_measure(name, metric, images, v, targets)
    if references:
        each = [transfer(images, reference, batch_size=batch_size) for reference in references]
        figures["transfer"] = dict(each[0])
        if len(references) > 1:
            named = {reference.name: said for reference, said in zip(references, each, strict=True)}
            figures["transfer"]["networks"] = named
    return [_row(figures, c) for c in range(targets.C)]


def own_measure(name: str, metric: Metric, images: Tensor, v: Tensor, targets: FacetTargets) -> Tensor:
    """What a user's measure says of pictures [C, ch, S, S] with activations v [C, D, H', W']: [C], float32.

    Raises ValueError where that fails, or is not one number a facet.
    """
    try:
        said = torch.as_tensor(metric(images.float(), v, targets)).detach().cpu()
    except Exception as error:  # a function of the user's own may do anything; the log has where
        raise ValueError(f"the measure {name} failed: {type(error).__name__}: {error}") from error
    if said.shape != (targets.C,) or said.is_complex():
        raise ValueError(
            f"the measure {name} gives a tensor of shape {list(said.shape)} for {targets.C} facets: "
            f"[{targets.C}], one real number each, is right"
        )
    return said.float()


def check_names(measures: Mapping[str, Metric]) -> None:
    """Raises ValueError for a measure that is no function, or whose name is taken or no word."""
    if not isinstance(measures, Mapping):
        raise ValueError(
            f"measures is a {type(measures).__name__}: functions by their names are right, {{'contrast': contrast}}"
        )
    for name, metric in measures.items():
        if not name.isidentifier() or name in TAKEN:
            raise ValueError(
                f"a measure cannot be called {name!r}: a word of letters, digits and _ is right, but none of "
                f"{', '.join(TAKEN)}"
            )
        if not callable(metric):
            raise ValueError(
                f"the measure {name} is a {type(metric).__name__}: a function (images, activations, targets) -> [C] "
                "is right"
            )


def _row(figures: Figures, c: int) -> Figures:
    return {name: _row(x, c) if isinstance(x, dict) else rounded(float(x[c])) for name, x in figures.items()}


def rounded(value: float) -> float | None:
    """None where there is no figure (a target of all zeros has no magnitude): JSON has no NaN."""
    return round(value, 6) if math.isfinite(value) else None


def numbers(figures: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Every figure by its dotted name, those that there are.

    >>> dict(numbers({"fidelity": {"cosine": 1, "magnitude": None}}))
    {'fidelity.cosine': 1.0}
    """
    for name, value in figures.items():
        if isinstance(value, Mapping):
            yield from numbers(value, f"{prefix}{name}.")
        elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            yield f"{prefix}{name}", float(value)


def summarise(rows: Sequence[Figures]) -> Figures:
    """The mean of every figure over the facets that have it, in the same shape; None where none has."""
    summary: Figures = {}
    for name, value in rows[0].items():
        if isinstance(value, dict):
            summary[name] = summarise([row[name] for row in rows])
        else:
            given = [row[name] for row in rows if row[name] is not None]
            summary[name] = round(sum(given) / len(given), 6) if given else None
    return summary


def baselines(
    network: Network | PreparedNetwork,
    targets: FacetTargets,
    *,
    gain: float = 1.0,
    references: Sequence[TransferReference] = (),
    measures: Mapping[str, Metric] | None = None,
    seed: int = 0,
    batch_size: int = 16,
) -> dict[str, list[Figures]]:
    """The same figures for three pictures that nobody drew: per facet, to hold the visualisation's against.

    initial: the blend it starts from; nearest: the photograph with the largest weight; noise: independent uniform
    pixels. `gain`: s as in `measure`, so that the distances stand beside the visualisation's.
    """
    generator = torch.Generator().manual_seed(seed)
    pictures = {
        "initial": targets.initial,
        "nearest": targets.nearest(),
        "noise": torch.rand(targets.initial.shape, generator=generator),
    }
    return {
        name: measure(
            network, targets, images, gain=gain, references=references, measures=measures, batch_size=batch_size
        )
        for name, images in pictures.items()
    }


def adjusted_rand_index(labels: Tensor, truth: Sequence[object]) -> float:
    """Agreement of two groupings of the same M things, corrected for chance (Hubert & Arabie 1985): 1 is the same."""
    from sklearn.metrics import adjusted_rand_score

    names = sorted({str(value) for value in truth})
    return float(adjusted_rand_score([names.index(str(value)) for value in truth], labels.tolist()))

"""Further networks, which have no part in drawing, as judges: does what they see in a picture make it the facet's?"""

import math
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, normalize

from mindseye.facets.cache import Cache
from mindseye.facets.photographs import Photographs
from mindseye.facets.survey import Passing, survey, to_unit
from mindseye.facets.targets import FacetTargets
from mindseye.networks.chance import seeded
from mindseye.networks.layers import resolve_layer
from mindseye.networks.maps import as_maps
from mindseye.networks.modules import as_it_was, part_at
from mindseye.networks.network import Network, check_network
from mindseye.networks.recording import record
from mindseye.networks.tf32 import tf32
from mindseye.results.likeness import centred_cosine, copy, forced_choice, retrieval

FINEST = 16  # positions a side of a judge's maps that copies are looked for in
EXPLANATIONS = 9  # photographs that stand in for the picture in the forced choice (Borowski et al. 2021)
ROUNDING = 1e-3  # by which a probability may lie outside of 0..1


@dataclass(frozen=True)
class TransferReference:
    """What another network, which has no part in drawing, sees in the same photographs."""

    name: str  # the network's
    network: Network  # that judges
    layer: str  # the exact name of its layer
    means: Tensor  # [C, N, D2]: channel means of the facets' photographs
    maps: Tensor  # [C, N, P]: its maps of them, about `mean`, of norm 1, see `_normalised`
    weights: Tensor  # [C, N]: of the photographs, Eq. 1
    mean: Tensor  # [D2] over all M photographs
    held_out: Tensor  # [H, D2]: channel means of photographs that took no part in discovery
    held_out_labels: Tensor  # [H]: the facet of each
    classes: Tensor | None  # [C]: the class it sees most in the facet's photographs; None where it has no classes
    unit: float | None  # of its outputs: 1 where they are probabilities, 100 percentages, None logits; see `unit_of`

    @property
    def targets(self) -> Tensor:
        """[C, D2]: weighted channel means of the facet's photographs."""
        return torch.einsum("cn,cnd->cd", self.weights, self.means)

    def __repr__(self) -> str:
        """One line for a prompt."""
        return f"<TransferReference {self.name} at {self.layer}: {len(self.means)} facets>"


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
    """What another network sees at its `layer` in the facets' photographs, for `visualize(..., transfer=[...])`.

    network: of `load_network`, one that takes as many channels as the one that draws. layer: a name of its own.
    targets: of `discover_facets`; its held-out photographs, where it has any, are read here, for the forced choice.
    photographs: all that the facets were found among, about whose mean activation likenesses are measured.
    batch_size: photographs that go through the network at once. workers: processes that read photographs; 0 is none,
    None by their number and the cores. cache: where what the network says of the photographs is kept, the same for
    every cell of a sweep; None is nowhere.

    Raises ValueError for an unknown layer, where no photograph is readable, and where the layer gives no finite maps.
    """
    check_network(network)
    layer = network.resolve(layer)

    def mean_activations(some: Photographs) -> tuple[Tensor, tuple[str, ...]]:
        # Of the maps only the means are needed: none is kept.
        seen = survey(network, some, layer, Passing(batch_size, keep_maps=0, workers=workers), cache=cache)
        return seen.means, seen.photographs.paths

    mean = mean_activations(photographs)[0].mean(dim=0)
    C, N = targets.chosen.shape
    looked = _look(network, layer, targets.photographs.flatten(0, 1), batch_size, classes=True)
    maps = _normalised(looked.maps, mean).unflatten(0, (C, N))
    held_out, labels = mean.new_empty(0, len(mean)), targets.held_out_labels
    if targets.held_out:
        held_out, readable = mean_activations(replace(photographs, paths=targets.held_out, skipped=()))
        named = dict(zip(targets.held_out, labels.tolist(), strict=True))
        labels = torch.tensor([named[path] for path in readable])
    classes, unit = None, None
    if looked.outputs is not None:
        unit = unit_of(looked.outputs)
        seen = _probabilities(looked.outputs, unit)
        classes = torch.einsum("cn,cnd->cd", targets.weights, seen.unflatten(0, (C, N))).argmax(dim=1)
    return TransferReference(
        name=network.name,
        network=network,
        layer=layer,
        means=looked.means.unflatten(0, (C, N)),
        maps=maps,
        weights=targets.weights,
        mean=mean,
        held_out=held_out,
        held_out_labels=labels,
        classes=classes,
        unit=unit,
    )


@torch.no_grad()
def check_layer(network: Network, layer: str, side: int) -> None:
    """Raises ValueError where a layer gives no maps for images of `side` pixels: one of noise is looked at."""
    noise = torch.rand(1, network.channels, side, side, generator=torch.Generator().manual_seed(0))
    _look(network, layer, noise, 1, classes=False)


def unit_of(outputs: Tensor) -> float | None:
    """In what a network's outputs [n, classes] for photographs are: 1 in probabilities, 100 in percentages, 1000 in per
    mille and so on, None in logits or logarithms of probabilities.

    Rows >= 0 that all sum to one number are probabilities times it: what a softmax gives, in whatever unit. Of rows
    that are all alike, or one, any numbers do, so that these must sum to a power of ten. A sigmoid for each class gives
    rows within 0..1, which are probabilities of their own.
    """
    outputs = outputs.double()
    sums = outputs.sum(dim=1)
    total = float(sums.mean())
    if not math.isfinite(total):
        return None
    power = total > 0 and math.isclose(total, 10 ** round(math.log10(total)), rel_tol=ROUNDING)
    several = bool(((outputs - outputs[:1]).abs() > ROUNDING * total).any())
    positive = total > 0 and bool((outputs >= -ROUNDING * total).all())
    if positive and bool(((sums - total).abs() <= ROUNDING * total).all()) and (several or power):
        return float(10 ** round(math.log10(total))) if power else total
    return 1.0 if bool((outputs >= -ROUNDING).all() and (outputs <= 1 + ROUNDING).all()) else None


def _probabilities(outputs: Tensor, unit: float | None) -> Tensor:
    return outputs.softmax(dim=1) if unit is None else outputs / unit


@torch.no_grad()
def transfer(images: Tensor, reference: TransferReference, *, batch_size: int = 16) -> dict[str, Tensor]:
    """Does another network see the facet in the picture? Each figure [C].

    cosine: of its channel means about the mean of all photographs, to the facet's own weighted photographs'.
    retrieval: 1 where no other facet's photographs are nearer.
    copy: see `likeness.copy`, of its maps about the same mean.
    forced_choice, forced_choice_smooth: see `likeness.forced_choice`, the picture being the explanation, likeness the
    cosine of channel means; forced_choice_photographs, …_smooth: with the nine photographs of the largest weights as
    explanation, whatever the picture. These four where there are held-out photographs.
    agreement: probability it gives to the class that it sees most in the facet's photographs (no labels needed).
    accuracy, accuracy5: 1 where that class is the first, or one of the first five, of the picture's. The last three
    where the network has classes; accuracy5 where it has more than five.
    """
    looked = _look(reference.network, reference.layer, images, batch_size, classes=reference.classes is not None)
    similarity = centred_cosine(looked.means, reference.targets, reference.mean)
    figures = {
        "cosine": similarity.diagonal(),
        "retrieval": retrieval(similarity),
        "copy": copy(_normalised(looked.maps, reference.mean), reference.maps),
    }
    if len(reference.held_out):
        drawn = centred_cosine(reference.held_out, looked.means, reference.mean)
        figures["forced_choice"], figures["forced_choice_smooth"] = forced_choice(drawn, reference.held_out_labels)
        nearest = reference.weights.argsort(dim=1, descending=True, stable=True)[:, :EXPLANATIONS]
        shown = reference.means.gather(1, nearest[:, :, None].expand(-1, -1, len(reference.mean)))
        natural = centred_cosine(reference.held_out, shown.flatten(0, 1), reference.mean)
        natural = natural.unflatten(1, tuple(nearest.shape)).mean(dim=2)
        share, smooth = forced_choice(natural, reference.held_out_labels)
        figures |= {"forced_choice_photographs": share, "forced_choice_photographs_smooth": smooth}
    if reference.classes is not None and looked.outputs is not None:
        seen = _probabilities(looked.outputs, reference.unit)
        figures["agreement"] = seen.gather(1, reference.classes[:, None])[:, 0]
        # Of the outputs themselves: a softmax makes many of them 0. Of equal ones the class is the last, since a
        # network that tells nothing apart is not right.
        own = looked.outputs.gather(1, reference.classes[:, None])
        rank = (looked.outputs >= own).sum(dim=1)
        figures["accuracy"] = torch.where(own[:, 0].isnan(), torch.nan, (rank <= 1).float())
        if looked.outputs.shape[1] > 5:
            figures["accuracy5"] = torch.where(own[:, 0].isnan(), torch.nan, (rank <= 5).float())
    return figures


@torch.no_grad()
def judge_features(images: Tensor, reference: TransferReference, *, batch_size: int = 16) -> Tensor:
    """What `transfer.cosine` compares: channel means about the mean of all photographs: [C, ch, S, S] -> [C, D2]."""
    looked = _look(reference.network, reference.layer, images, batch_size, classes=False)
    return looked.means - reference.mean


class _Looked(NamedTuple):
    means: Tensor  # [n, D]: of each channel over its whole map
    maps: Tensor  # [n, D, h, w] of at most FINEST positions a side
    outputs: Tensor | None  # [n, classes]; None where they were not asked for, or are no such thing


def _look(network: Network, layer: str, images: Tensor, batch_size: int, *, classes: bool) -> _Looked:
    """One pass over images [n, ch, S, S]: what the layer says and, with `classes`, what the network ends in."""
    device = network.mean.device
    with tf32(False):
        parts = [_look_once(network, layer, unit(batch, device), classes) for batch in images.split(batch_size)]
    outputs = [part.outputs for part in parts if part.outputs is not None]
    together = torch.cat(outputs) if len(outputs) == len(parts) else None
    return _Looked(torch.cat([part.means for part in parts]), torch.cat([part.maps for part in parts]), together)


def _look_once(network: Network, layer: str, images: Tensor, classes: bool) -> _Looked:
    outputs = None
    if classes:
        module, call = resolve_layer(network.body, layer)
        answers: list[Tensor] = []

        def keep(module: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> None:
            if call is None:
                answers.clear()  # the last call is the layer's
            answers.append(output.clone())  # what comes after may write into it

        handle = nn.Module.register_forward_hook(part_at(network.body, module), keep)
        try:
            with seeded(0), as_it_was(network.body):
                outputs = network(images)
        finally:
            handle.remove()
        answer = answers[call or 0]
        known = isinstance(outputs, Tensor) and outputs.ndim == 2 and outputs.shape[1] > 1
        known = known and not network.unloaded  # its file lacks a head, at least
        outputs = outputs.float().cpu() if known else None
    else:
        with seeded(0), record(network, layer) as tape:
            answer = tape(images)
    maps = as_maps(answer, layer, network.layout(layer, images.shape[-1])).float()
    side = min(FINEST, maps.shape[-1])
    return _Looked(maps.flatten(2).mean(dim=2).cpu(), adaptive_avg_pool2d(maps, side).cpu(), outputs)


def _normalised(maps: Tensor, mean: Tensor) -> Tensor:
    """Maps [n, D, h, w] about the channels' means [D] over all photographs, as vectors of norm 1: [n, D·h·w]."""
    return normalize((maps - mean[:, None, None]).flatten(1), dim=1)


def unit(images: Tensor, device: torch.device) -> Tensor:
    """Images in 0..1 or uint8, on the device in 0..1."""
    return to_unit(images, device) if images.dtype == torch.uint8 else images.to(device)

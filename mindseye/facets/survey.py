"""What a layer says of every photograph: one pass up to the layer, kept for whoever asks the same again."""

import inspect
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from mindseye.facets.cache import Cache
from mindseye.facets.content import Content, changed_since, content_of, say_changed
from mindseye.facets.decoding import UnreadablePhotograph, read_photograph
from mindseye.facets.photographs import Photographs, SkippedFile
from mindseye.networks.architecture import architecture
from mindseye.networks.chance import seeded
from mindseye.networks.folding import fold_norms
from mindseye.networks.layouts import observe
from mindseye.networks.maps import Layout, as_maps
from mindseye.networks.merging import MergedNetwork, merge, share_weights
from mindseye.networks.network import Network
from mindseye.networks.places import Places
from mindseye.networks.preparing import PreparedNetwork, prepare
from mindseye.networks.recording import Tape
from mindseye.networks.tf32 import tf32
from mindseye.networks.tracing import straight_program
from mindseye.provenance import code_of, versions
from mindseye.tensors import tensors_sha256
from mindseye.words import with_class

Progress = Callable[[int, int], None]
log = logging.getLogger(__name__)

KEEP_MAPS = 512 * 2**20  # bytes; up to here the maps of all photographs are kept, beyond only their means
# bytes that one pass over several layers may keep: the largest four layers' maps. Reading photographs once more costs
# less than a machine that runs out of memory.
TOGETHER = 4 * KEEP_MAPS


@dataclass(frozen=True)
class Survey:
    """What the layer says of each of the M readable photographs.

    The maps are kept where those of all the photographs listed are at most KEEP_MAPS bytes: by their sizes alone, so
    that what is computed from them is the same with a cache and without.
    """

    means: Tensor  # [M, D]: the spatial mean of each channel
    maps: Tensor | None  # [M, D, H', W'] float32
    photographs: Photographs  # the M readable ones, `skipped` complete
    key: dict[str, object] | None  # all that the above depends on, for the cache; None where there is none to use
    recalled: bool  # out of the cache
    content: Content | None = None  # of the photographs; None where it is not known, or changed meanwhile


@dataclass(frozen=True)
class Passing:
    """How photographs are passed through a network, and who is told how far that is."""

    batch_size: int = 16
    keep_maps: int = KEEP_MAPS  # bytes, see `Survey`
    workers: int | None = None  # see `Photographs.batches`
    progress: Progress | None = None  # (photographs that are done, all)


def survey(
    network: Network | PreparedNetwork,
    photographs: Photographs,
    layer: str,
    passing: Passing = Passing(),
    *,
    cache: Cache | None = None,
    content: Content | None = None,
    check: Callable[[int], None] | None = None,
) -> Survey:
    """Run every photograph up to `layer`, never past it, or recall from the cache what was seen then.

    A file that cannot be read is left out and named in `photographs.skipped`. `content`: see `content_of`, where it is
    known already. `check(D)`, which may raise, is told the layer's channels before any photograph is looked at. Files
    that change while they are looked at are named in a warning, and then nothing is kept.

    Raises ValueError where no file is readable, where the layer's output has no channels (see `as_maps`) or holds NaN
    or infinite values.
    """
    network = prepare(network, layer)
    unreadable: list[SkippedFile] = []
    others: list[str] = []

    def look() -> dict[str, Tensor]:
        if check is not None:
            check(map_shape(network, photographs)[1])
        [table], readable, skipped = _look(network, photographs, passing)
        unreadable[:] = skipped
        others[:] = changed_since(content, photographs) if content is not None else ()
        return table.seen(photographs, readable)

    def unchanged() -> bool:
        return not others

    key, recalled = None, False
    if cache is None:
        seen = look()
    else:
        content = content_of(photographs) if content is None else content
        sha256 = content.sha256(photographs)
        key = survey_key(network, photographs, layer, passing, sha256)
        fetched = cache.fetch("survey", key, look, unchanged)
        seen, recalled = fetched.tensors, not fetched.made
        if recalled and (skipped := _skipped_again(photographs, seen["readable"])) is None:
            # A file that could not be read then can be read now: it was the disk's fault, not the file's.
            cache.discard("survey", key)
            seen, recalled = cache.fetch("survey", key, look, unchanged).tensors, False
        elif recalled:
            unreadable[:] = skipped or ()
            _say_skipped([*photographs.skipped, *unreadable])
            if passing.progress is not None:
                passing.progress(len(photographs), len(photographs))
    readable = seen["readable"].tolist()
    kept = replace(
        photographs,
        paths=tuple(photographs.paths[index] for index in readable),
        skipped=(*photographs.skipped, *unreadable),
    )
    if others:
        say_changed(others)
        key = content = None
    if key is not None:
        # What comes of it depends on which files could be read, too.
        key = {**key, "readable": tensors_sha256({"readable": seen["readable"]})}
    content = None if content is None else content.of(readable)
    return Survey(seen["means"], seen.get("maps"), kept, key, recalled, content)


def survey_together(
    network: Network,
    photographs: Photographs,
    layers: Sequence[str],
    passing: Passing = Passing(),
    *,
    cache: Cache | None = None,
) -> None:
    """Put into the cache what `survey` would put there for each of `layers`, to the same byte, in one pass.

    Only what the cache does not hold is looked at; who asks for one of the layers meanwhile waits. Layers that together
    keep more than TOGETHER bytes need several passes. This is economy alone: without a cache nothing is done, and a
    layer whose `survey` would fail, or that has no program to merge with others (see `merge`), is left to that, with a
    line in the log. The arguments are those of `survey`; its own `layer` is the exact name, as `Network.resolve` gives
    it. Raises ValueError for an unknown layer, ChildProcessError where a process that reads photographs dies.
    """
    if cache is None:
        return
    prepared: dict[str, PreparedNetwork] = {}
    weights: dict[str, Tensor] = {}
    for layer in dict.fromkeys(map(network.resolve, layers)):
        try:
            part = prepare(network, layer)
        except ValueError as error:
            _leave_out(layer, error)
            continue
        if part.traced:
            share_weights(part, weights)
            prepared[layer] = part
        else:
            _leave_out(layer, f"{part.name} runs by hooks")
    content = content_of(photographs)
    sha256 = content.sha256(photographs)
    keys = {
        layer: survey_key(part, photographs, layer, passing, sha256) for layer, part in prepared.items()
    }

    def look(missing: list[str]) -> Iterator[tuple[str, dict[str, Tensor]]]:
        sizes: dict[str, int] = {}
        for layer in missing:
            try:
                size = _kept_bytes(prepared[layer], photographs, passing.keep_maps)
            except ValueError as error:
                _leave_out(layer, error)
                continue
            if size > cache.limit_bytes:
                _leave_out(layer, "what it says is larger than the limit of the cache")
            else:
                sizes[layer] = size
        passes = _passes(sizes)
        for number, together in enumerate(passes):
            merged = merge([prepared.pop(layer) for layer in together], photographs.size)
            if merged is None:
                continue
            log.info("looking at %d photographs up to %s", len(photographs), ", ".join(merged.layers))
            tell = None if passing.progress is None else _share_of(passing.progress, number, len(passes))
            tables, readable, _ = _look(merged, photographs, replace(passing, progress=tell))
            if others := changed_since(content, photographs):
                say_changed(others)
                return
            while tables:
                table = tables.pop(0)  # so that none is held longer than it takes to keep it
                try:
                    yield table.layer, table.seen(photographs, readable)
                except ValueError as error:
                    _leave_out(table.layer, error)

    try:
        cache.fill("survey", keys, look)
    except ValueError as error:  # no photograph is readable, say
        _leave_out(", ".join(keys), error)


def _kept_bytes(network: PreparedNetwork, photographs: Photographs, keep_maps: int) -> int:
    """What a survey keeps. Raises ValueError as `map_shape` does."""
    shape = map_shape(network, photographs)
    maps = _map_bytes(len(photographs), shape)
    return 4 * len(photographs) * shape[1] + (maps if maps <= keep_maps else 0)


@torch.no_grad()
def map_shape(network: PreparedNetwork, photographs: Photographs) -> torch.Size:
    """[1, D, H', W'] of what the layer gives for one such photograph, by an image of zeros: none is read.

    Raises ValueError where the network cannot look at such images or the layer has no maps.
    """
    side = photographs.size
    image = torch.zeros(1, photographs.channels, side, side, device=network.mean.device)
    return as_maps(_answers(network, image, side)[0], network.layer, network.layout(network.layer, side)).shape


def _share_of(progress: Progress, number: int, passes: int) -> Progress:
    """The progress of one of several passes, told as that of all."""
    return lambda done, count: progress(number * count + done, passes * count)


def _passes(sizes: Mapping[str, int]) -> list[list[str]]:
    """The layers by passes, each of at most TOGETHER bytes, or of one layer."""
    passes: list[list[str]] = []
    held = 0
    for layer, size in sizes.items():
        if not passes or held + size > TOGETHER:
            passes.append([])
            held = 0
        passes[-1].append(layer)
        held += size
    return passes


def _leave_out(layer: str, reason: object) -> None:
    log.info("layer %s is not looked at together with others: %s", layer, reason)


class _Table:
    """What one layer says of the photographs, a row for each readable one: means, and maps where they are small."""

    def __init__(self, layer: str, layout: Layout | None, count: int, keep_maps: int) -> None:
        self.layer = layer
        self._layout = layout
        self._count, self._keep_maps = count, keep_maps
        self._means = self._maps = torch.empty(0)
        self._keeping = False
        self._filled = 0

    def add(self, answer: Tensor) -> None:
        """The layer's output for the next photographs. Raises ValueError where it has no channels."""
        answer = as_maps(answer, self.layer, self._layout).float()
        if not self._filled:  # the first batch says how large everything will be
            shape = torch.Size((self._count, *answer.shape[1:]))
            self._keeping = _map_bytes(self._count, shape) <= self._keep_maps
            self._means = torch.empty(shape[:2])
            self._maps = torch.empty(shape) if self._keeping else self._maps
        rows = slice(self._filled, self._filled + len(answer))
        self._means[rows] = answer.flatten(2).mean(dim=2).cpu()
        if self._keeping:
            self._maps[rows] = answer.cpu()
        self._filled = rows.stop

    def seen(self, photographs: Photographs, readable: list[int]) -> dict[str, Tensor]:
        """All of it, as it is kept. Raises ValueError for NaN and infinite values."""
        means = self._means[: self._filled]
        bad = ~means.isfinite().all(dim=1)
        if bad.any():
            first = photographs.paths[readable[int(bad.nonzero()[0])]]
            raise ValueError(
                f"layer {self.layer} gives NaN or infinite activations for {int(bad.sum())} of {len(readable)} "
                f"photographs, the first {first}; check the network's weights and its mean and std"
            )
        seen = {"means": means, "readable": torch.tensor(readable)}
        return seen | {"maps": self._maps[: self._filled]} if self._keeping else seen


@torch.no_grad()
def _look(
    network: PreparedNetwork | MergedNetwork, photographs: Photographs, passing: Passing
) -> tuple[list[_Table], list[int], list[SkippedFile]]:
    """One pass over the photographs: a table for each layer, the indices [M] of the readable files, the others."""
    layers = network.layers if isinstance(network, MergedNetwork) else (network.layer,)
    side, count = photographs.size, len(photographs)
    tables = [_Table(layer, network.layout(layer, side), count, passing.keep_maps) for layer in layers]
    readable: list[int] = []
    skipped: list[SkippedFile] = []
    for indices, images, unreadable in photographs.batches(passing.batch_size, workers=passing.workers):
        skipped += unreadable
        if indices:
            answers = _answers(network, to_unit(images, network.mean.device), photographs.size)
            for table, answer in zip(tables, answers, strict=True):
                table.add(answer)
            readable += indices
        if passing.progress is not None:
            passing.progress(len(readable) + len(skipped), len(photographs))
    _say_skipped([*photographs.skipped, *skipped])
    if not readable:
        reason = f"{skipped[0].path}: {skipped[0].reason}" if skipped else "there are none"
        raise ValueError(f"none of the {len(photographs)} photographs under {photographs.root} is readable ({reason})")
    return tables, readable, skipped


def _answers(network: PreparedNetwork | MergedNetwork, images: Tensor, size: int) -> tuple[Tensor, ...]:
    """What each layer gives for the images [B,ch,H,W]."""
    try:
        with seeded(0):  # of a network that draws by chance: what is kept is the same every time
            return network(images) if isinstance(network, MergedNetwork) else network(images)[:1]
    except torch.OutOfMemoryError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"no memory left for {len(images)} photographs of {size}×{size} at once ({reason}); a smaller "
            "batch_size or size needs less"
        ) from error
    except ValueError:  # says what is right itself
        raise
    except Exception as error:
        first = network.first if isinstance(network, MergedNetwork) else network
        last = network.layers[-1] if isinstance(network, MergedNetwork) else network.layer
        # A tracer writes its own word for the size into what a network asserts.
        reason = re.sub(r"Proxy\([^)]*\)", str(size), with_class(error, place=True))
        line = f"{network.name} cannot look at {size}×{size} images up to {last} ({reason})"
        if _is_of_sizes(network, images, size, first.size, reason):
            other = f"try another size of the images, its own is {first.size}"
            line += f"; {other if size != first.size else 'say which side the network was made for'}"
        raise ValueError(line) from error


def _is_of_sizes(
    network: PreparedNetwork | MergedNetwork, images: Tensor, size: int, own: int, reason: str
) -> bool:
    """Whether an error is of the size of images [B,ch,H,W]: it does not come where they have the network's own, or, of
    that size itself, is another one (or none) where they have another."""

    def of_side(side: int) -> str | None:
        try:
            with torch.no_grad(), seeded(0):
                network(images.new_zeros(1, images.shape[1], side, side))
        except Exception as error:
            return with_class(error, place=True)
        return None

    if size != own:
        return of_side(own) is None
    named = _OF_SIZES.search(reason) is not None and _OF_OTHERS.search(reason) is None
    return named and of_side(size + size // 2 + 8) != reason


_OF_SIZES = re.compile(r"\b(sizes?|shapes?|kernel|height|width|dimensions?|multiply|invalid for input)\b", re.I)
_OF_OTHERS = re.compile(r"\b(channels|devices?|cuda|meta|dtype|driver|backend)\b", re.I)


def _map_bytes(count: int, shape: torch.Size) -> int:
    """What `count` maps [_, D, H', W'] take in float32."""
    return 4 * count * shape[1:].numel()


def _skipped_again(photographs: Photographs, readable: Tensor) -> list[SkippedFile] | None:
    """The files a recalled survey left out, with the reasons they give today; None where one can be read today."""
    skipped = []
    for index in sorted(set(range(len(photographs))) - set(readable.tolist())):
        try:
            photographs.read(index)
        except UnreadablePhotograph as reason:
            skipped.append(SkippedFile(photographs.paths[index], str(reason)))
        else:
            return None
    return skipped


def _say_skipped(skipped: Sequence[SkippedFile]) -> None:
    """Every file in the log; on the terminal, which shows warnings, the first of them and how many there are."""
    for file in skipped:
        log.info("skipped %s: %s", file.shown, file.reason)
    if skipped:
        more = f" and {len(skipped) - 1} more (each in the log, at level INFO)" if len(skipped) > 1 else ""
        log.warning("skipped %s: %s%s", skipped[0].shown, skipped[0].reason, more)


def to_unit(images: Tensor, device: torch.device) -> Tensor:
    """uint8 images on any device -> float32 in 0..1 on `device`."""
    return images.to(device, non_blocking=True).float() / 255


# ---- all that a survey depends on --------------------------------------------------------------------------------


def survey_key(
    network: PreparedNetwork,
    photographs: Photographs,
    layer: str,
    passing: Passing,
    content: str | None = None,
) -> dict[str, object]:
    """What must be the same for a survey to be the same, as JSON: the bytes of all files and weights among it.

    File names are not: identical files in the same order give the same survey in any folder. Nor are the number of
    threads and the model of the accelerator, which change last digits alone: the cells of a sweep share what the first
    of them saw. `content`: see `content_of`, where it is known already.
    """
    return {
        "network": {
            "name": network.name,
            "sha256": network.fingerprint(),
            "architecture": architecture(network.program()),
        },
        "layer": layer,
        "photographs": {
            "count": len(photographs),
            "sha256": content_of(photographs).sha256(photographs) if content is None else content,
            "size": photographs.size,
            "channels": photographs.channels,
            "window": [photographs.black, photographs.white],
        },
        "batch_size": passing.batch_size,
        "keep_maps": passing.keep_maps,
        "device": network.mean.device.type,
        "precision": network.precision,
        "code": _CODE,
        "versions": versions("torch", "pillow", "numpy"),
    }


_LOOKING: tuple[Any, ...] = (
    Photographs, read_photograph, PreparedNetwork, MergedNetwork, Tape, Survey, as_maps, observe, Places,
    straight_program, fold_norms, tf32,
)  # fmt: skip
_CODE = code_of(*map(inspect.getfile, _LOOKING))

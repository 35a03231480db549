"""What a layer says of every photograph: one pass up to the layer, kept for whoever asks the same again."""

import functools
import hashlib
import importlib.metadata
import inspect
import logging
import marshal
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mindseye.facets.cache import Cache
from mindseye.facets.decoding import UnreadablePhotograph, read_photograph
from mindseye.facets.photographs import Photographs, SkippedFile
from mindseye.files import printable
from mindseye.networks.chance import seeded
from mindseye.networks.layouts import observe
from mindseye.networks.maps import Layout, as_maps
from mindseye.networks.merging import MergedNetwork, merge, share_weights
from mindseye.networks.modules import every_module, saved_tensors, tensors
from mindseye.networks.network import Network, in_one_line
from mindseye.networks.preparing import PreparedNetwork, prepare
from mindseye.networks.recording import Tape
from mindseye.networks.tf32 import tf32

Progress = Callable[[int, int], None]
log = logging.getLogger(__name__)

KEEP_MAPS = 512 * 2**20  # bytes; up to here the maps of all photographs are kept, beyond only their means
# bytes that one pass over several layers may keep: the largest four layers' maps. Reading photographs once more costs
# less than a machine that runs out of memory.
TOGETHER = 4 * KEEP_MAPS
HASHERS = 4  # threads that read files to hash them


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
    content: "Content | None" = None  # of the photographs; None where it is not known, or changed meanwhile


def survey(
    network: Network | PreparedNetwork,
    photographs: Photographs,
    layer: str,
    *,
    batch_size: int = 16,
    keep_maps: int = KEEP_MAPS,
    workers: int | None = None,
    cache: Cache | None = None,
    content: "Content | None" = None,
    check: Callable[[int], None] | None = None,
    progress: Progress | None = None,
) -> Survey:
    """Run every photograph up to `layer`, never past it, or recall from the cache what was seen then.

    A file that cannot be read is left out and named in `photographs.skipped`. `keep_maps`: see `Survey`, in bytes.
    `workers`: see `Photographs.batches`. `content`: see `content_of`, where it is known already. `check(D)`, which
    may raise, is told the layer's channels before any photograph is looked at. Files that change
    while they are looked at are named in a warning, and then nothing is kept.

    Raises ValueError where no file is readable, where the layer's output has no channels (see `as_maps`) or holds NaN
    or infinite values.
    """
    network = prepare(network, layer)
    unreadable: list[SkippedFile] = []
    others: list[str] = []

    def look() -> dict[str, Tensor]:
        if check is not None:
            check(map_shape(network, photographs)[1])
        [table], readable, skipped = _look(network, photographs, batch_size, keep_maps, workers, progress)
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
        key = survey_key(
            network, photographs, layer, batch_size=batch_size, keep_maps=keep_maps, content=sha256
        )
        fetched = cache.fetch("survey", key, look, unchanged)
        seen, recalled = fetched.tensors, not fetched.made
        if recalled and (said := _skipped_again(photographs, seen["readable"])) is None:
            # A file that could not be read then can be read now: it was the disk's fault, not the file's.
            cache.discard("survey", key)
            seen, recalled = cache.fetch("survey", key, look, unchanged).tensors, False
        elif recalled:
            unreadable[:] = said or ()
            _say_skipped([*photographs.skipped, *unreadable])
            if progress is not None:
                progress(len(photographs), len(photographs))
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
        key = {**key, "readable": hashlib.sha256(seen["readable"].numpy().tobytes()).hexdigest()}
    content = None if content is None else content.of(readable)
    return Survey(seen["means"], seen.get("maps"), kept, key, recalled, content)


def survey_together(
    network: Network,
    photographs: Photographs,
    layers: Sequence[str],
    *,
    batch_size: int = 16,
    keep_maps: int = KEEP_MAPS,
    workers: int | None = None,
    cache: Cache | None = None,
    progress: Progress | None = None,
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
            one = prepare(network, layer)
        except ValueError as error:
            _leave_out(layer, error)
            continue
        if one.traced:
            share_weights(one, weights)
            prepared[layer] = one
        else:
            _leave_out(layer, f"{one.name} runs by hooks")
    content = content_of(photographs)
    sha256 = content.sha256(photographs)
    keys = {
        layer: survey_key(one, photographs, layer, batch_size=batch_size, keep_maps=keep_maps, content=sha256)
        for layer, one in prepared.items()
    }

    def look(missing: list[str]) -> Iterator[tuple[str, dict[str, Tensor]]]:
        sizes: dict[str, int] = {}
        for layer in missing:
            try:
                size = _kept_bytes(prepared[layer], photographs, keep_maps)
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
            tell = None if progress is None else _share_of(progress, number, len(passes))
            tables, readable, _ = _look(merged, photographs, batch_size, keep_maps, workers, tell)
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
    network: PreparedNetwork | MergedNetwork,
    photographs: Photographs,
    batch_size: int,
    keep_maps: int,
    workers: int | None,
    progress: Progress | None,
) -> tuple[list[_Table], list[int], list[SkippedFile]]:
    """One pass over the photographs: a table for each layer, the indices [M] of the readable files, the others."""
    layers = network.layers if isinstance(network, MergedNetwork) else (network.layer,)
    side, count = photographs.size, len(photographs)
    tables = [_Table(layer, network.layout(layer, side), count, keep_maps) for layer in layers]
    readable: list[int] = []
    skipped: list[SkippedFile] = []
    for indices, images, unreadable in photographs.batches(batch_size, workers=workers):
        skipped += unreadable
        if indices:
            answers = _answers(network, to_unit(images, network.mean.device), photographs.size)
            for table, answer in zip(tables, answers, strict=True):
                table.add(answer)
            readable += indices
        if progress is not None:
            progress(len(readable) + len(skipped), len(photographs))
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
            "facets.batch_size or images.size needs less"
        ) from error
    except ValueError:  # says what is right itself
        raise
    except Exception as error:
        first = network.first if isinstance(network, MergedNetwork) else network
        last = network.layers[-1] if isinstance(network, MergedNetwork) else network.layer
        # A tracer writes its own word for the size into what a network asserts.
        reason = re.sub(r"Proxy\([^)]*\)", str(size), in_one_line(error))
        said = f"{network.name} cannot look at {size}×{size} images up to {last} ({reason})"
        if _is_of_sizes(network, images, size, first.size, reason):
            other = f"try another images.size, its own is {first.size}"
            said += f"; {other if size != first.size else 'give the side it was made for, network.size=…'}"
        raise ValueError(said) from error


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
            return in_one_line(error)
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
    *,
    batch_size: int,
    keep_maps: int,
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
        "batch_size": batch_size,
        "keep_maps": keep_maps,
        "device": network.mean.device.type,
        "precision": network.precision,
        "code": _CODE,
        "versions": versions("torch", "pillow", "numpy"),
    }


def architecture(body: nn.Module) -> str:
    """sha256 of how a network computes, beside its weights: its modules, their settings, the files they come from, and
    in what precision and order its weights lie (the fingerprint of a prepared network is the original's).

    Buffers that are not saved count by their content, as do a module's public attributes that are tensors, numbers or
    texts. Functions that a module's file imports from elsewhere, and other attributes that it does not print, are not
    seen.
    """
    # Where a module prints a function, the address of that is not the architecture's.
    parts = [f"{place}: {type(module).__name__}({module.extra_repr()})" for place, module in every_module(body)]
    printed = "\n".join([str(body), *parts])  # the parts too: a module may say of itself whatever it likes
    digest = hashlib.sha256(re.sub(r" at 0x[0-9a-f]+", "", printed).encode())
    saved = saved_tensors(body)
    for name, weight in saved.items():
        digest.update(f"{name} {weight.dtype} {weight.stride()}\n".encode())
    for name, buffer in tensors(body):
        if name not in saved:
            digest.update(f"{name} {_tensor_sha256(buffer)}\n".encode())
    for place, module in every_module(body):
        for name, value in vars(module).items():
            if not name.startswith("_"):
                said = _tensor_sha256(value) if isinstance(value, Tensor) else _plain(value)
                digest.update(f"{place}.{name} {said}\n".encode())
    sources: set[str] = set()
    for _, module in every_module(body):
        generated = None
        with suppress(Exception):  # a property of other people's classes
            generated = getattr(module, "code", None)  # torch.fx's and torch.jit's modules are their own source
        if isinstance(generated, str):
            digest.update(generated.encode())
        kind: Any = type(module)  # hashable, which mypy denies of a metaclass's class
        sources.add(_source_sha256(kind))
    digest.update("".join(sorted(sources)).encode())
    return digest.hexdigest()


def _tensor_sha256(tensor: Tensor) -> str:
    digest = hashlib.sha256(f"{tensor.dtype} {list(tensor.shape)}\0".encode())
    digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _plain(value: object) -> str:
    """A number, a text, or a list of such; anything else says nothing."""
    if value is None or isinstance(value, bool | int | float | str):
        return repr(value)
    if isinstance(value, list | tuple):
        return f"({', '.join(map(_plain, value))})"
    return ""


@functools.cache  # what runs is the class as it was when it was read, whatever becomes of its file meanwhile
def _source_sha256(kind: type[nn.Module]) -> str:
    try:
        return _file_sha256(inspect.getfile(kind))
    except (TypeError, OSError):  # a class written in a notebook
        return hashlib.sha256(marshal.dumps(kind.forward.__code__)).hexdigest()


def code_of(*files: str) -> str:
    """sha256 over the content of source files, whatever their order and place: another program may compute otherwise.

    Nobody has to remember to raise a version when a computation changes. To be asked when the files are imported: who
    edits them during a sweep does not change what runs. A file that cannot be read counts by name.
    """
    return hashlib.sha256("".join(sorted(_file_sha256(file) for file in files)).encode()).hexdigest()


def versions(*packages: str) -> dict[str, str | None]:
    """The installed version of each package; None where it is not installed."""
    found: dict[str, str | None] = {}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    return found


_State = tuple[int, int, int, int] | None  # of a file: its inode, size, times of change; None where there is none


@dataclass(frozen=True)
class Content:
    """What M files held when they were hashed."""

    hashes: tuple[str, ...]  # sha256 of each; of one that cannot be read, why
    states: tuple[_State, ...]  # when it was hashed: a file whose state is the same was not written to since

    def sha256(self, photographs: Photographs) -> str:
        """Over the bytes of all files in order, and their suffixes, which tell arrays from pictures."""
        digest = hashlib.sha256()
        for path, said in zip(photographs.paths, self.hashes, strict=True):
            digest.update(f"{Path(path).suffix.lower()}\0{said}\n".encode())
        return digest.hexdigest()

    def of(self, indices: Sequence[int]) -> "Content":
        """Of some of the files."""
        return Content(tuple(self.hashes[i] for i in indices), tuple(self.states[i] for i in indices))


def content_of(photographs: Photographs) -> Content:
    """Read and hash every file."""
    hashes: list[str] = []
    states: list[_State] = []
    for said, state in _of_each(_hashed, photographs, range(len(photographs))):
        hashes.append(said)
        states.append(state)
    return Content(tuple(hashes), tuple(states))


def changed_since(content: Content, photographs: Photographs, indices: Sequence[int] | None = None) -> list[str]:
    """Which of these files (None: of all) have other bytes than when they were hashed, by name.

    Only those whose size, inode or times are not as they were are read for it.
    """
    indices = range(len(photographs)) if indices is None else indices
    states = zip(indices, _of_each(_state, photographs, indices), strict=True)
    touched = [index for index, state in states if state is None or state != content.states[index]]
    said = zip(touched, _of_each(_hashed, photographs, touched), strict=True)
    return [photographs.paths[index] for index, (now, _) in said if now != content.hashes[index]]


def say_changed(names: Sequence[str]) -> None:
    """One warning: what comes of a look at them is of no bytes that are known."""
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    log.warning("%s%s changed while the photographs were looked at: nothing is kept of them", printable(names[0]), more)


def _of_each(ask: Callable[[Path], Any], photographs: Photographs, indices: Sequence[int]) -> Iterator[Any]:
    with ThreadPoolExecutor(HASHERS) as pool:  # hashlib lets other threads run meanwhile
        for first in range(0, len(indices), 4096):
            files = [photographs.root / photographs.paths[index] for index in indices[first : first + 4096]]
            yield from pool.map(ask, files)


def _hashed(path: str | Path) -> tuple[str, _State]:
    try:
        with open(path, "rb") as file:
            state = _state(file.fileno())  # before it is read: what is written meanwhile changes it
            return hashlib.file_digest(file, "sha256").hexdigest(), state
    except OSError as error:
        return f"{Path(path).name}: {type(error).__name__}", None


def _state(file: Path | int) -> _State:
    try:
        status = os.stat(file)
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _file_sha256(path: str | Path) -> str:
    return _hashed(path)[0]


_LOOKING: tuple[Any, ...] = (
    Photographs, read_photograph, PreparedNetwork, MergedNetwork, Tape, Survey, as_maps, observe, tf32,
)  # fmt: skip
_CODE = code_of(*map(inspect.getfile, _LOOKING))

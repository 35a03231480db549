"""What a layer says of every photograph: one pass up to the layer, kept for whoever asks the same again."""

import functools
import hashlib
import importlib.metadata
import inspect
import logging
import marshal
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from mindseye.facets.cache import Cache
from mindseye.facets.photographs import Photographs, SkippedFile, UnreadablePhotograph
from mindseye.networks.network import Network
from mindseye.networks.preparing import PreparedNetwork, prepare
from mindseye.networks.recording import Tape

Progress = Callable[[int, int], None]
log = logging.getLogger(__name__)

KEEP_MAPS = 512 * 2**20  # bytes; up to here the maps of all photographs are kept, beyond only their means
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
    key: dict[str, object] | None  # all that the above depends on, for the cache; None where there is none
    recalled: bool  # out of the cache


def survey(
    network: Network | PreparedNetwork,
    photographs: Photographs,
    layer: str,
    *,
    batch_size: int = 16,
    keep_maps: int = KEEP_MAPS,
    workers: int | None = None,
    cache: Cache | None = None,
    progress: Progress | None = None,
) -> Survey:
    """Run every photograph up to `layer`, never past it, or recall from the cache what was seen then.

    A file that cannot be read is left out and named in `photographs.skipped`. `keep_maps`: see `Survey`, in bytes.
    `workers`: see `Photographs.batches`. Raises ValueError where no file is readable, where the layer's output has no
    channels (see `as_maps`) or holds NaN or infinite values.
    """
    network = prepare(network, layer)
    unreadable: list[SkippedFile] = []

    def look() -> dict[str, Tensor]:
        tensors, skipped = _look(network, photographs, layer, batch_size, keep_maps, workers, progress)
        unreadable[:] = skipped
        return tensors

    key, recalled = None, False
    if cache is None:
        seen = look()
    else:
        key = survey_key(network, photographs, layer, batch_size=batch_size, keep_maps=keep_maps)
        fetched = cache.fetch("survey", key, look)
        seen, recalled = fetched.tensors, not fetched.made
        if recalled and (said := _skipped_again(photographs, seen["readable"])) is None:
            # A file that could not be read then can be read now: it was the disk's fault, not the file's.
            cache.discard("survey", key)
            seen, recalled = look(), False
        elif recalled:
            unreadable[:] = said
            _say_skipped([*photographs.skipped, *unreadable])
            if progress is not None:
                progress(len(photographs), len(photographs))
    kept = Photographs(
        root=photographs.root,
        paths=tuple(photographs.paths[index] for index in seen["readable"].tolist()),
        size=photographs.size,
        channels=photographs.channels,
        skipped=(*photographs.skipped, *unreadable),
    )
    return Survey(seen["means"], seen.get("maps"), kept, key, recalled)


@torch.no_grad()
def _look(
    network: PreparedNetwork,
    photographs: Photographs,
    layer: str,
    batch_size: int,
    keep_maps: int,
    workers: int | None,
    progress: Progress | None,
) -> tuple[dict[str, Tensor], list[SkippedFile]]:
    """One pass over the photographs: means [M, D], readable [M] (their indices) and, where small, maps."""
    device = network.mean.device
    means = maps = torch.empty(0)
    keeping = False
    readable: list[int] = []
    skipped: list[SkippedFile] = []
    for indices, images, unreadable in photographs.batches(batch_size, workers=workers):
        skipped += unreadable
        if indices:
            answer = _answer(network, to_unit(images, device), photographs.size)
            answer = as_maps(answer, layer).float()
            if not readable:  # the first batch says how large everything will be
                shape = (len(photographs), *answer.shape[1:])
                means, keeping = torch.empty(shape[:2]), 4 * torch.Size(shape).numel() <= keep_maps
                maps = torch.empty(shape) if keeping else maps
            rows = slice(len(readable), len(readable) + len(indices))
            means[rows] = answer.flatten(2).mean(dim=2).cpu()
            if keeping:
                maps[rows] = answer.cpu()
            readable += indices
        if progress is not None:
            progress(len(readable) + len(skipped), len(photographs))
    _say_skipped([*photographs.skipped, *skipped])
    if not readable:
        reason = f"{skipped[0].path}: {skipped[0].reason}" if skipped else "there are none"
        raise ValueError(f"none of the {len(photographs)} photographs under {photographs.root} is readable ({reason})")
    means = means[: len(readable)]
    bad = ~means.isfinite().all(dim=1)
    if bad.any():
        first = photographs.paths[readable[int(bad.nonzero()[0])]]
        raise ValueError(
            f"layer {layer} gives NaN or infinite activations for {int(bad.sum())} of {len(readable)} photographs, "
            f"the first {first}; check the network's weights and its mean and std"
        )
    seen = {"means": means, "readable": torch.tensor(readable)}
    return (seen | {"maps": maps[: len(readable)]} if keeping else seen), skipped


def _answer(network: PreparedNetwork, images: Tensor, size: int) -> Tensor:
    try:
        return network(images)[0]
    except (RuntimeError, AssertionError) as error:
        # An image smaller than the network's kernels and strides, or not of its one size.
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"{network.name} cannot look at {size}×{size} images up to {network.layer} ({reason}); "
            "try another images.size"
        ) from error


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
        log.info("skipped %s: %s", file.path, file.reason)
    if skipped:
        more = f" and {len(skipped) - 1} more (named in the log)" if len(skipped) > 1 else ""
        log.warning("skipped %s: %s%s", skipped[0].path, skipped[0].reason, more)


# ---- activations -------------------------------------------------------------------------------------------------


def to_unit(images: Tensor, device: torch.device) -> Tensor:
    """uint8 images on any device -> float32 in 0..1 on `device`."""
    return images.to(device, non_blocking=True).float() / 255


def as_maps(activation: Tensor, layer: str) -> Tensor:
    """A layer's output as maps [B, D, H', W']; a pooled one [B, D] has maps of one pixel. ValueError for the rest.

    Images are square here, and so are maps: of four dimensions whose second and third are equal and the fourth is not,
    the fourth is the channels' (Swin transformers give [B, H', W', D]), and it is put first.
    """
    if activation.ndim == 4:
        _, first, second, last = activation.shape
        return activation.permute(0, 3, 1, 2) if first == second != last else activation
    if activation.ndim == 2:
        return activation[:, :, None, None]
    raise ValueError(
        f"layer {layer} gives a tensor of shape {list(activation.shape)}; a visualisation needs maps [B, D, H, W] or "
        "pooled channels [B, D]: `mindseye layers` lists the layers that have them"
    )


# ---- all that a survey depends on --------------------------------------------------------------------------------


def survey_key(
    network: PreparedNetwork, photographs: Photographs, layer: str, *, batch_size: int, keep_maps: int
) -> dict[str, object]:
    """What must be the same for a survey to be the same, as JSON: the bytes of all files and weights among it.

    File names are not: identical files in the same order give the same survey in any folder. Nor are the number of
    threads and the model of the accelerator, which change last digits alone: the cells of a sweep share what the first
    of them saw.
    """
    return {
        "network": {
            "name": network.name,
            "sha256": network.fingerprint(),
            "architecture": architecture(network.body),
        },
        "layer": layer,
        "photographs": {
            "count": len(photographs),
            "sha256": _content(photographs),
            "size": photographs.size,
            "channels": photographs.channels,
        },
        "batch_size": batch_size,
        "keep_maps": keep_maps,
        "device": network.mean.device.type,
        "precision": torch.get_float32_matmul_precision(),
        "code": _CODE,
        "versions": versions("torch", "pillow", "numpy"),
    }


def architecture(body: nn.Module) -> str:
    """sha256 of how a network computes, beside its weights: its modules, their settings, the files they come from, and
    in what precision and order its weights lie (the fingerprint of a prepared network is the original's).

    Functions that a module's file imports from elsewhere, and attributes that it does not print, are not seen.
    """
    # Where a module prints a function, the address of that is not the architecture's.
    digest = hashlib.sha256(re.sub(r" at 0x[0-9a-f]+", "", str(body)).encode())
    for name, weight in body.state_dict().items():
        digest.update(f"{name} {weight.dtype} {weight.stride()}\n".encode())
    sources: set[str] = set()
    for module in body.modules():
        generated = None
        with suppress(Exception):  # a property of other people's classes
            generated = getattr(module, "code", None)  # torch.fx's and torch.jit's modules are their own source
        if isinstance(generated, str):
            digest.update(generated.encode())
        sources.add(_source_sha256(type(module)))
    digest.update("".join(sorted(sources)).encode())
    return digest.hexdigest()


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


def _content(photographs: Photographs) -> str:
    """sha256 over the bytes of all files in order, and their suffixes, which tell arrays from pictures."""
    digest = hashlib.sha256()
    with ThreadPoolExecutor(HASHERS) as pool:  # hashlib lets other threads run meanwhile
        for first in range(0, len(photographs), 4096):
            paths = photographs.paths[first : first + 4096]
            files = [photographs.root / path for path in paths]
            for path, said in zip(paths, pool.map(_file_sha256, files), strict=True):
                digest.update(f"{Path(path).suffix.lower()}\0{said}\n".encode())
    return digest.hexdigest()


def _file_sha256(path: str | Path) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return f"{Path(path).name}: {type(error).__name__}"


_CODE = code_of(*map(inspect.getfile, (Photographs, PreparedNetwork, Tape, Survey)))

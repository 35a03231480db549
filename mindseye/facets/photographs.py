"""Real images in: which files there are, and one square picture out of each, or one line that says why not."""

import html
import multiprocessing
import numbers
import os
import signal
import stat
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from mindseye.facets.pictures import inline_png, strip

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm", ".jp2", ".avif", ".npy"}
)

SHOWN = 8  # photographs in a notebook
FEWEST_FOR_WORKERS = 500  # below this a folder is read before workers would have started to pay
MOST_WORKERS = 16  # what keeps one accelerator busy
# Workers decode with PIL and numpy and never touch the device, so on Linux they are forked, as torch's DataLoader does:
# in milliseconds, sharing the memory of the torch that is already loaded, without importing the caller's script again,
# also where CUDA is in use. Elsewhere forking is unsafe (macOS) or missing (Windows) and spawning has to do.
START = "fork" if sys.platform == "linux" else "spawn"
# How many times as large as needed a JPEG stays when it is decoded at a half, a quarter or an eighth of its size. 3 is
# from where Pillow calls the result almost indistinguishable from a full decode (Image.thumbnail's `reducing_gap`).
REDUCING_GAP = 3.0

# Decoded, a picture takes 4 bytes a pixel, and twice that while it is cropped: this bounds it, whatever a small file
# says of itself. It is where Pillow begins to warn; large JPEGs are decoded smaller and stay far below.
MOST_PIXELS = 89_478_485

Window = tuple[float, float]  # black and white: the values in a file that become 0 and 255
_ELSE = "; for raw counts give images.black and images.white, the values that become 0 and 1"

Batch = tuple[list[int], Tensor, list["SkippedFile"]]


class UnreadablePhotograph(ValueError):
    """One file that cannot be used; the message is the reason alone, without the path."""


@dataclass(frozen=True)
class SkippedFile:
    """A file under the root that is not used. `path` is relative to the root; `reason` is one line."""

    path: str
    reason: str

    @property
    def shown(self) -> str:
        """The path in one line that can be printed, whatever bytes and line breaks the name has."""
        return printable(self.path)


def printable(name: str) -> str:
    r"""A file's name as it is where it can be printed, else in quotes with escapes.

    >>> printable("a b.png"), printable("a\nb.png")
    ('a b.png', "'a\\nb.png'")
    """
    return name if name.isprintable() else ascii(name)


@dataclass(frozen=True)
class Photographs:
    """Files that will be read as square images of `size` pixels and `channels` channels.

    Nothing is decoded before it is asked for, by `read` or `batches`.
    """

    root: Path  # the folder
    paths: tuple[str, ...]  # relative to root and sorted, so that the same folder always gives the same order
    size: int  # the side in pixels
    channels: int = 3  # 3 is RGB, 1 luminance, any other number is read from .npy arrays
    skipped: tuple[SkippedFile, ...] = ()  # found unusable while listing: not regular, broken links
    black: float | None = None  # the value in the files that becomes 0: see `load_photographs`
    white: float | None = None  # and the one that becomes 1

    def __len__(self) -> int:
        return len(self.paths)

    def __repr__(self) -> str:
        """One line for a prompt, which would otherwise print every path."""
        more = f", {len(self.skipped)} skipped" if self.skipped else ""
        shape = f"{self.channels} × {self.size} × {self.size}"
        return f"<Photographs: {len(self)} under {printable(str(self.root))}, read as {shape}{more}>"

    def _repr_html_(self) -> str:
        """What a notebook shows: the first SHOWN that can be read, and how many there are."""
        shown: list[Tensor] = []
        for index in range(len(self)):
            if len(shown) == SHOWN or index >= 4 * SHOWN:  # a folder of damaged files is not read to its end
                break
            with suppress(UnreadablePhotograph):
                shown.append(self.read(index))
        pictures = inline_png(strip(shown), "the first photographs") if shown else ""
        return f"<p>{html.escape(repr(self)[1:-1])}</p>{pictures}"

    def read(self, index: int) -> Tensor:
        """Photograph `index` as uint8 [channels, size, size]. Raises UnreadablePhotograph."""
        path = self.root / self.paths[index]
        return read_photograph(path, self.size, self.channels, self.black, self.white)

    def batches(self, batch_size: int, *, workers: int | None = None) -> Iterator[Batch]:
        """All photographs in order: (indices, uint8 [≤ batch_size, channels, size, size], files skipped meanwhile).

        `workers` processes decode one batch ahead each; 0 reads here, one file after the other; None is
        `automatic_workers`. The batches are the same bytes whatever it is, and workers + 2 of them is all that is ever
        held. A batch may be empty of images where every file in it was unreadable. Raises ChildProcessError, in one
        line, where a worker dies.
        """
        if batch_size < 1 or (workers is not None and workers < 0):
            raise ValueError(f"batch_size is at least 1 and workers at least 0 or null, not {batch_size} and {workers}")
        ranges = [range(first, min(first + batch_size, len(self))) for first in range(0, len(self), batch_size)]
        workers = min(automatic_workers(len(self)) if workers is None else workers, len(ranges))
        if workers:
            yield from _read_ahead(self, ranges, workers)
        else:
            for indices in ranges:
                readable, images, skipped = _read_batch(self, indices)
                yield readable, torch.from_numpy(images), skipped


def automatic_workers(count: int) -> int:
    """How many processes read `count` photographs: one a core, one core left for the network; none for few files.

    None either where processes can only be spawned (each would import torch and the caller's script anew), or where
    this is itself a daemon process, which may have no children.
    """
    if count < FEWEST_FOR_WORKERS or START != "fork" or multiprocessing.current_process().daemon:
        return 0
    return min(len(os.sched_getaffinity(0)) - 1, MOST_WORKERS)


def _read_batch(photographs: Photographs, indices: Sequence[int]) -> tuple[list[int], np.ndarray, list[SkippedFile]]:
    images = np.empty((len(indices), photographs.channels, photographs.size, photographs.size), np.uint8)
    readable: list[int] = []
    skipped: list[SkippedFile] = []
    for index in indices:
        try:
            images[len(readable)] = photographs.read(index).numpy()
            readable.append(index)
        except UnreadablePhotograph as reason:
            skipped.append(SkippedFile(photographs.paths[index], str(reason)))
    return readable, images[: len(readable)], skipped


def _read_ahead(photographs: Photographs, ranges: Sequence[range], workers: int) -> Iterator[Batch]:
    """Worker w of W decodes batches w, w + W, …, each into a pipe of its own, and these are read in turn.

    A pipe that is full makes its worker wait, so memory is bounded without any accounting, and one whose worker has
    died ends, so nothing waits for ever. torch's DataLoader was tried: it raises a worker's death out of a signal
    handler, wherever the caller happens to be (in the network's forward pass, say), and draws from torch's global
    random numbers. Pixels go through the pipe, since shared memory is small in containers and costs file descriptors.
    """
    Image.init()  # every decoder is imported before the fork: an import lock held by a thread would never be released
    context = multiprocessing.get_context(START)
    readers: list[Connection] = []
    processes = []
    try:
        for worker in range(workers):
            reader, writer = context.Pipe(duplex=False)
            readers.append(reader)
            process = context.Process(  # type: ignore[attr-defined]
                target=_work, args=(photographs, ranges[worker::workers], writer, readers), daemon=True
            )
            process.start()
            processes.append(process)
            writer.close()  # the worker's is the only end to write into, so the pipe ends with the worker
        for number, indices in enumerate(ranges):
            try:
                readable, skipped = readers[number % workers].recv()
                images = torch.empty(
                    (len(readable), photographs.channels, photographs.size, photographs.size), dtype=torch.uint8
                )
                if readable:
                    readers[number % workers].recv_bytes_into(images.flatten().numpy())
            except (EOFError, OSError) as error:
                raise ChildProcessError(_said_of_death(processes[number % workers], photographs, indices)) from error
            yield readable, images, skipped
    finally:
        # Killed, not asked: they hold nothing but pixels, and one in the middle of a decoder would not listen.
        for process in processes:
            process.kill()
        for process in processes:
            process.join()
        for reader in readers:
            reader.close()


def _work(photographs: Photographs, ranges: Sequence[range], writer: Connection, readers: list[Connection]) -> None:
    """What a worker does until it is done, killed, or its pipe has no reader any more: then its parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which ends its workers
    for name in ("SIGTERM", "SIGUSR1", "SIGUSR2"):  # whatever handler was inherited, it was not meant for a worker
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_DFL)
    torch.set_num_threads(1)  # OpenMP's threads do not survive a fork, and the cores are all taken
    for reader in readers:  # inherited: while any process can read, a write never fails
        reader.close()
    try:
        for indices in ranges:
            readable, images, skipped = _read_batch(photographs, indices)
            writer.send((readable, skipped))
            if readable:
                writer.send_bytes(images.reshape(-1))  # type: ignore[arg-type]
    except BrokenPipeError:
        pass


def _said_of_death(process: multiprocessing.Process, photographs: Photographs, indices: range) -> str:
    process.join(timeout=5)
    code = process.exitcode
    how = f"was killed ({signal.Signals(-code).name})" if code is not None and code < 0 else f"ended with code {code}"
    return (
        f"a worker process {how} while it read {printable(photographs.paths[indices[0]])} to "
        f"{printable(photographs.paths[indices[-1]])}: "
        "no memory left, or a damaged file that crashes its decoder; fewer workers need less, and workers=0 reads "
        "without any"
    )


def load_photographs(
    root: str | os.PathLike[str],
    size: int = 224,
    channels: int = 3,
    black: float | None = None,
    white: float | None = None,
) -> Photographs:
    """List the images in a folder, or in its class folders, to any depth.

    `root` is the folder, `~` is expanded. `size` is the side in pixels that every image gets (the central square,
    resized with antialiasing); `channels` is what the network takes: 3 (RGB), 1 (luminance), or any other number for
    .npy arrays of that many channels. `black` and `white`, for raw counts: the values in the files that become 0 and 1,
    what lies between them linearly; None takes integers by their whole range and floats as 0..1.

    Links to folders are followed once. Raises FileNotFoundError where there is no such folder or no image in it,
    ValueError for a wrong size, number of channels, black or white.

    >>> from mindseye.demo.photographs import write_photographs
    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> _ = write_photographs(folder.name, "padlock", 3, seed=0)
    >>> photographs = load_photographs(folder.name, size=32)
    >>> len(photographs), photographs.read(0).shape
    (3, torch.Size([3, 32, 32]))
    >>> folder.cleanup()
    """
    folder = photograph_folder(root)
    for name, value in (("size", size), ("channels", channels)):
        if not isinstance(value, numbers.Integral) or value < 1:
            raise ValueError(
                f"{name}={value}: one whole number of at least 1 is right; images are square, size is their side in "
                "pixels, and channels is how many numbers the network's mean has"
            )
    if (black is None) != (white is None) or (black is not None and black == white):
        raise ValueError(
            f"images.black={black} and images.white={white}: two different numbers, the values in the files that "
            "become 0 and 1, or neither is right"
        )
    paths, skipped = _list_files(folder)
    if not paths:
        tried = f" ({len(skipped)} unusable: {skipped[0].shown}: {skipped[0].reason})" if skipped else ""
        raise FileNotFoundError(f"no images under {root}{tried}; looked for {', '.join(sorted(SUFFIXES))}")
    return Photographs(folder, tuple(paths), size, channels, tuple(skipped), black, white)


def photograph_folder(root: str | os.PathLike[str]) -> Path:
    """The folder, `~` expanded. Raises FileNotFoundError where there is none."""
    try:
        folder = Path(root).expanduser()
    except RuntimeError:  # ~nobody
        folder = Path(root)
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "does not exist"
        raise FileNotFoundError(f"images.root={root} {what}; name a folder of images or of class folders")
    return folder


def _list_files(root: Path) -> tuple[list[str], list[SkippedFile]]:
    paths: list[str] = []
    skipped: list[SkippedFile] = []
    seen: set[tuple[int, int]] = set()

    def cannot_list(error: OSError) -> None:
        skipped.append(SkippedFile(os.path.relpath(error.filename, root), error.strerror or "cannot be listed"))

    for folder, folders, files in os.walk(root, followlinks=True, onerror=cannot_list):
        try:
            status = os.stat(folder)
        except OSError as error:  # gone since it was listed
            cannot_list(error)
            folders.clear()
            continue
        if (status.st_dev, status.st_ino) in seen:  # a link back to a folder already walked
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if name.startswith(".") or Path(name).suffix.lower() not in SUFFIXES:
                continue
            path = os.path.join(folder, name)
            relative = os.path.relpath(path, root)
            try:
                regular = stat.S_ISREG(os.stat(path).st_mode)
            except OSError as error:
                skipped.append(SkippedFile(relative, f"broken link ({error.strerror})"))
                continue
            if regular:
                paths.append(relative)
            else:  # opening a FIFO would wait for ever
                skipped.append(SkippedFile(relative, "not a regular file"))
    return sorted(paths), skipped


def read_photograph(
    path: str | os.PathLike[str],
    size: int,
    channels: int = 3,
    black: float | None = None,
    white: float | None = None,
) -> Tensor:
    """One file as uint8 [channels, size, size]: upright (EXIF), its central square, resized with antialiasing.

    Greyscale, palette, CMYK, 16-bit and transparent images (over white) become `channels` channels of 8 bits; of an
    animation the first frame. `.npy` holds [H, W], [H, W, ch] or [ch, H, W]. Integers of 8 and 16 bits are taken by
    their whole range, floats as 0..1. With `black` and `white`, for raw counts, these values, of any numeric type,
    become 0 and 255, what lies between them linearly, and what lies outside is cut off; without, 12-bit counts in
    16-bit files would have 17 levels. A JPEG at least 2·REDUCING_GAP times as large as needed is decoded at a half, a
    quarter or an eighth of its size, in a third of the time.
    A picture of more than MOST_PIXELS is not decoded. Raises UnreadablePhotograph with the reason in one line.
    """
    window = None if black is None or white is None else (black, white)
    try:
        if Path(path).suffix.lower() == ".npy":
            return _resize_array(_read_array(path, channels, window), size)
        if channels not in (1, 3):
            raise UnreadablePhotograph(f"the network takes {channels} channels: give .npy arrays of that many")
        with warnings.catch_warnings(), Image.open(path) as image:
            warnings.simplefilter("ignore")  # a file that can be read is read, whatever its decoder thinks of it
            image.draft(None, (round(REDUCING_GAP * size),) * 2)  # does nothing to other formats
            _check_pixels(*image.size)
            square = _central_square(image)
            return _to_tensor(_to_channels(square, channels, window).resize((size, size), Image.Resampling.BICUBIC))
    except UnreadablePhotograph:
        raise
    except Image.DecompressionBombError as error:
        raise UnreadablePhotograph(f"too many pixels: {error}") from error
    except UnidentifiedImageError as error:  # its message names the path, which is known
        raise UnreadablePhotograph("holds no picture in a format that is known here") from error
    except OSError as error:
        raise UnreadablePhotograph(" ".join((error.strerror or f"OSError: {error}").split())) from error
    except Exception as error:  # image decoders raise anything at all: struct.error, SyntaxError, EOFError …
        raise UnreadablePhotograph(" ".join(f"{type(error).__name__}: {error}".split())) from error


def _check_pixels(width: int, height: int) -> None:
    if width * height > MOST_PIXELS:
        raise UnreadablePhotograph(f"too many pixels: {width} × {height}; {MOST_PIXELS:,} is the most that is decoded")


def _central_square(image: Image.Image) -> Image.Image:
    """Crop before anything else, so that a 30,000 × 1 image never grows to 30,000 × size."""
    image = ImageOps.exif_transpose(image)
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return image.crop((left, top, left + side, top + side))


def _to_channels(image: Image.Image, channels: int, window: Window | None) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        image, window = _to_8_bits(image, window), None
    if "A" in image.mode or "a" in image.mode or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    image = image.convert("L" if channels == 1 else "RGB")
    return image if window is None else Image.fromarray(_between(np.asarray(image), window))


def _between(values: np.ndarray, window: Window) -> np.ndarray:
    """Any numbers as uint8: black and what lies beyond it 0, white 255, linear between."""
    black, white = window
    shares = (values.astype(np.float32) - np.float32(black)) / np.float32(white - black)
    if not np.isfinite(shares).all():
        raise UnreadablePhotograph("holds NaN or infinite values")
    return np.rint(shares.clip(0, 1) * 255).astype(np.uint8)


def _to_8_bits(image: Image.Image, window: Window | None) -> Image.Image:
    """By the window; without one 16-bit integers by their full range, floating point by 0..1."""
    if window is not None:
        return Image.fromarray(_between(np.asarray(image), window))
    values = np.asarray(image, dtype=np.float64)
    if not np.isfinite(values).all():
        raise UnreadablePhotograph("holds NaN or infinite values")
    if image.mode == "F":
        if values.min() < 0 or values.max() > 1:
            raise UnreadablePhotograph(f"floating-point pixels must lie in 0..1{_ELSE}")
        values = values * 255
    else:
        values = values / 257 if image.mode.startswith("I;16") or values.max() > 255 else values
    return Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8))


def _to_tensor(image: Image.Image) -> Tensor:
    array = np.asarray(image, dtype=np.uint8)
    # A copy, since PIL's own buffer is read-only; numpy's, since torch would start all its threads for so little.
    return torch.from_numpy(np.moveaxis(array.reshape(*array.shape[:2], -1), -1, 0).copy())


def _read_array(path: str | os.PathLike[str], channels: int, window: Window | None) -> np.ndarray:
    array = np.load(path, allow_pickle=False, mmap_mode="r")
    if not isinstance(array, np.ndarray):
        array.close()
        raise UnreadablePhotograph("is an archive of arrays, not one array")
    if array.ndim == 2:
        array = array[None]
    if array.ndim == 3 and array.shape[0] != channels and array.shape[-1] == channels:
        array = np.moveaxis(array, -1, 0)
    if array.ndim != 3 or array.shape[0] != channels:
        raise UnreadablePhotograph(f"holds an array of shape {list(array.shape)}; [{channels}, H, W] is right")
    side = min(array.shape[1:])
    if side == 0:
        raise UnreadablePhotograph(f"holds an array of shape {list(array.shape)}: no pixels")
    _check_pixels(side, side * -(-channels // 3))
    top, left = (array.shape[1] - side) // 2, (array.shape[2] - side) // 2
    values = np.array(array[:, top : top + side, left : left + side])
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    if window is not None and values.dtype.kind in "iuf":
        return _between(values, window)
    if values.dtype == np.uint8:
        return values
    if values.dtype == np.uint16:
        return np.rint(values / 257).astype(np.uint8)
    if values.dtype == np.bool_ or np.issubdtype(values.dtype, np.floating):
        if not np.isfinite(values).all() or values.min() < 0 or values.max() > 1:
            raise UnreadablePhotograph(f"floating-point values must be finite and in 0..1{_ELSE}")
        return np.rint(values * 255.0).astype(np.uint8)
    raise UnreadablePhotograph(f"holds {values.dtype} values; uint8, uint16 or floats in 0..1 are right{_ELSE}")


def _resize_array(array: np.ndarray, size: int) -> Tensor:
    """Any number of channels: each is resized as a greyscale picture, by the same filter as a photograph's."""
    planes = [Image.fromarray(plane).resize((size, size), Image.Resampling.BICUBIC) for plane in array]
    return torch.from_numpy(np.stack([np.asarray(plane) for plane in planes]))

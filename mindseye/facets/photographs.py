"""Real images in: which files there are, and one square picture out of each, or one line that says why not."""

import html
import json
import logging
import multiprocessing
import numbers
import os
import re
import signal
import stat
import sys
import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mindseye.facets.decoding import UnreadablePhotograph, channels_come_last, read_photograph, suffixes
from mindseye.facets.pictures import inline_png, strip
from mindseye.files import photograph_folder
from mindseye.words import printable

SHOWN = 8  # photographs in a notebook
FEWEST_FOR_WORKERS = 500  # below this a folder is read before workers would have started to pay
MOST_WORKERS = 16  # what keeps one accelerator busy
# Workers decode with PIL and numpy and never touch the device, so on Linux they are forked, as torch's DataLoader does:
# in milliseconds, sharing the memory of the torch that is already loaded, without importing the caller's script again,
# also where CUDA is in use. Elsewhere forking is unsafe (macOS) or missing (Windows) and spawning has to do.
START = "fork" if sys.platform == "linux" else "spawn"
SIGNALS = {getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2") if hasattr(signal, name)}
log = logging.getLogger(__name__)

# Pictures by their suffix that no decoder here reads: named, where other files (lists, notes) are passed over.
_OTHERS = """
    .heic .heif .heics .hif .jxl .jxr .wdp .hdp .jls .bpg .flif .exr .hdr .dpx .cin .pam .mng .jng .xcf .kra .svg
    .svgz .eps .ps .wmf .emf .djvu .raw .dng .cr2 .cr3 .crw .nef .nrw .arw .srf .sr2 .orf .rw2 .rwl .raf .pef .srw
    .x3f .3fr .iiq .dcr .kdc .mrw .erf .mef .mos .dcm .dicom .ima .nii .nrrd .mha .mhd .mgz .npz .czi .lif .lsm .nd2
    .oib .oif .vsi .svs .ndpi .mrxs .scn .bif .zvi .sid .ecw .ktx .ktx2 .astc
"""
OTHER_PICTURES = frozenset(_OTHERS.split())
# What files of pictures begin with, for those whose names end in no suffix at all or in one that says nothing.
_PICTURE = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n|GIF8[79]a|II\*\0|MM\0\*|RIFF....WEBP|\0\0\0\x0cjP  |....ftyp(?:heic|heix|mif1|avif)|"
    rb"\x93NUMPY",
    re.DOTALL,
)
# Suffixes that say for certain that a file is something else: millions of lists and notes are not opened.
_NOTES = """
    .txt .md .json .jsonl .xml .csv .tsv .yaml .yml .toml .ini .cfg .log .html .htm .css .js .py .pyc .ipynb .sh .m
    .r .zip .tar .gz .tgz .bz2 .xz .zst .7z .rar .db .sqlite .lmdb .mdb .parquet .arrow .feather .tfrecord .pkl
    .pickle .pt .pth .ckpt .safetensors .onnx .bin .mp4 .mov .avi .mkv .webm .wav .mp3 .flac .doc .docx .xls .xlsx
    .ppt .pptx .lnk .url .part .tmp .lock .yolo .mtl .obj .ply .stl .ai .pdf .h5 .hdf .hdf5 .grib .bufr .nc .mat
"""
NO_PICTURES = frozenset(_NOTES.split())
PACKED = frozenset({".gz", ".bz2", ".xz", ".zst", ".zip", ".z", ".lz4"})
# What a run leaves beside pictures of somebody's own where these lie in the same folder.
OF_A_RUN = frozenset({"facets", "targets", "checkpoint", "figures", "wandb", "csv", "tensorboard"})
SHEET = "facets.png"
NUMBER = "number-of-facets.png"  # of `mindseye facets`, into the folder that one is in
# And what is beside the picture of each facet, wherever that was copied to.
OF_A_FACET = frozenset({"visualization.png", "initial.png", "nearest.png"})
# Folders of file systems and their servers, which hold thumbnails and what was deleted.
OF_THE_SYSTEM = frozenset(
    {"@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "@thumb", "$recycle.bin", "__macosx",
     "lost+found", "system volume information"}
)  # fmt: skip
_WANDB_RUN = re.compile(r"(offline-)?run-\d{8}_\d{6}-")
_FIGURE = re.compile(r"fig[1-4]_\w+")  # of `mindseye figures --out`, each as PDF and as PNG
MOST_MANIFEST = 256 << 20  # bytes of a sweep's manifest.json

Batch = tuple[list[int], Tensor, list["SkippedFile"]]


@dataclass(frozen=True)
class SkippedFile:
    """A file under the root that is not used. `path` is relative to the root; `reason` is one line."""

    path: str
    reason: str

    @property
    def shown(self) -> str:
        """The path in one line that can be printed, whatever bytes and line breaks the name has."""
        return printable(self.path)


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
        return read_photograph(
            path, self.size, self.channels, self.black, self.white, channels_last=lambda: self._channels_last
        )

    @cached_property
    def _channels_last(self) -> bool | None:
        """Of arrays that could be read either way: as the others are; None where these do not tell."""
        arrays = (self.root / path for path in self.paths if path.lower().endswith(".npy"))
        return channels_come_last(arrays, self.channels)

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
            with _signals_held():
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


@contextmanager
def _signals_held() -> Iterator[None]:
    """A signal to all processes of a terminal or job comes after this, also to one that is begun meanwhile: not before
    that has said which it heeds."""
    came: list[int] = []
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():  # another thread than this may be told of a signal
        known = {own: signal.getsignal(own) for own in SIGNALS}
        before = {own: handler for own, handler in known.items() if handler is not None}
    for own in before:
        signal.signal(own, lambda number, _: came.append(number))
    masked = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS) if hasattr(signal, "pthread_sigmask") else None
    try:
        yield
    finally:
        for own, handler in before.items():
            signal.signal(own, handler)
        if masked is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, masked)
        for number in came:
            signal.raise_signal(number)


def _work(photographs: Photographs, ranges: Sequence[range], writer: Connection, readers: list[Connection]) -> None:
    """What a worker does until it is done, killed, or its pipe has no reader any more: then its parent is gone."""
    for own in SIGNALS:  # Ctrl-C is the parent's, which ends its workers; no handler of its was meant for a worker
        signal.signal(own, signal.SIG_IGN if own == signal.SIGINT else signal.SIG_DFL)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
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

    Files whose names end as those of Pillow's formats do, or in .npy, are listed; pictures of other kinds are named in
    `skipped`. What mindseye itself has made (runs, sweeps, copied galleries) and what servers keep beside photographs
    (@eaDir, say) is left out, with one warning. Links to folders are followed once. Raises FileNotFoundError where
    there is no such folder or no image in it, ValueError for a wrong size, number of channels, black or white.

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
                f"{name} must be one whole number of 1 or more, not {value}; images are square, size is their side in "
                "pixels, and channels is how many numbers the network's mean has"
            )
    if (black is None) != (white is None) or (black is not None and black == white):
        raise ValueError(
            "black and white must be two different numbers, the values in the files that become 0 and 1, or both be "
            f"None, not {black} and {white}"
        )
    paths, skipped, left_out = list_photographs(folder)
    if left_out:
        more = f" and {len(left_out) - 1} more" if len(left_out) > 1 else ""
        log.warning(
            "%s%s below %s: left out, since mindseye or the system has made them, and no camera",
            printable(left_out[0]), more, printable(str(root)),
        )  # fmt: skip
    if not paths:
        tried = f" ({len(skipped)} unusable: {skipped[0].shown}: {skipped[0].reason})" if skipped else ""
        raise FileNotFoundError(f"no images under {root}{tried}; looked for {', '.join(sorted(suffixes()))}")
    return Photographs(folder, tuple(paths), size, channels, tuple(skipped), black, white)


def list_photographs(root: Path) -> tuple[list[str], list[SkippedFile], list[str]]:
    """(files to be read, files that cannot be, folders and files that are left out), all relative to root."""
    paths: list[str] = []
    skipped: list[SkippedFile] = []
    left_out: list[str] = []
    seen: set[tuple[int, int]] = set()
    usable = suffixes()

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
        ours: set[str] = set()
        if _made_here(folder, set(folders), set(files)):
            own = [name for name in files if Path(name).suffix.lower() in usable and name not in {SHEET, *OF_A_FACET}]
            if not own and folder != str(root):
                left_out.append(os.path.relpath(folder, root))
                folders.clear()
                continue
            ours = {name for name in (*folders, *files) if name in {SHEET, *OF_A_RUN, *OF_A_FACET}}
        if set(files) >= OF_A_FACET:
            ours |= {"photographs", "steps"} & set(folders)
        ours |= {name for name in (*folders, *files) if name.lower() in OF_THE_SYSTEM or name == NUMBER}
        stems = {name[:-4] for name in files if name.endswith(".pdf") and _FIGURE.match(name)}
        ours |= {f"{stem}.png" for stem in stems} & set(files) | {f"{stem}.pdf" for stem in stems}
        left_out += [os.path.relpath(os.path.join(folder, name), root) for name in ours]
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in ours)
        for name in sorted(files):
            if name in ours:
                continue
            path = os.path.join(folder, name)
            relative, reason = os.path.relpath(path, root), _why_not(path, usable)
            if reason is None:
                paths.append(relative)
            elif reason:
                skipped.append(SkippedFile(relative, reason))
    return sorted(paths), skipped, sorted(left_out)


def _why_not(path: str, usable: Collection[str]) -> str | None:
    """Why a file is no photograph that can be read; "" of one that nobody takes for one, None of one that is."""
    name = os.path.basename(path)
    stem, suffix = os.path.splitext(name.lower())
    if suffix in PACKED and not name.startswith("."):
        inside = os.path.splitext(stem)[1]
        if inside in usable:
            return f"nothing here reads {inside}{suffix}: unpack it"
        suffix = inside if inside in OTHER_PICTURES else suffix
    if name.startswith(".") or suffix in NO_PICTURES - set(usable):
        return ""
    try:
        regular = stat.S_ISREG(os.stat(path).st_mode)
    except OSError as error:
        return f"broken link ({error.strerror})" if suffix in usable else ""
    if suffix in usable:
        return None if regular else "not a regular file"  # opening a FIFO would wait for ever
    if suffix in OTHER_PICTURES:
        return f"nothing here reads {suffix}: {'give .npy arrays' if suffix == '.npz' else 'save it as JPEG or PNG'}"
    if regular and _begins_as_a_picture(path):
        return "holds a picture, and its name does not end as one's: rename it"
    return ""


def _made_here(folder: str, folders: set[str], files: set[str]) -> bool:
    """Whether a folder is a run of mindseye's, also one at work or failed, a sweep, a copied gallery's, or wandb's."""
    if "status.json" in files and (".hydra" in folders or files & {"run.log", "running.lock", "config.yaml"}):
        return True
    if files >= OF_A_FACET:
        return True
    if "facets" in folders and os.path.isfile(os.path.join(folder, "facets", "00", "visualization.png")):
        return True
    if os.path.basename(folder) == "wandb" and any(_WANDB_RUN.match(name) for name in folders):
        return True
    if "manifest.json" in files:  # many programs have a file of that name
        try:
            place = os.path.join(folder, "manifest.json")
            if os.path.getsize(place) > MOST_MANIFEST:
                return False
            manifest = json.loads(Path(place).read_bytes())
        except (OSError, ValueError, RecursionError):
            return False
        return isinstance(manifest, dict) and {"cells", "commands", "config_sha256"} <= manifest.keys()
    return False


def _begins_as_a_picture(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return _PICTURE.match(file.read(16)) is not None
    except OSError:
        return False

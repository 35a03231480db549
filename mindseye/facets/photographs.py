"""Real images in: which files there are, and one square picture out of each, or one line that says why not."""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm", ".jp2", ".avif", ".npy"}
)


class UnreadablePhotograph(ValueError):
    """One file that cannot be used; the message is the reason alone, without the path."""


@dataclass(frozen=True)
class SkippedFile:
    """A file under the root that is not used. `path` is relative to the root; `reason` is one line."""

    path: str
    reason: str


@dataclass(frozen=True)
class Photographs:
    """Files that will be read as square images of `size` pixels and `channels` channels.

    `paths` are relative to `root` and sorted, so the same folder always gives the same order. Nothing is decoded
    before it is asked for; `skipped` holds the files found unusable while listing (not regular, broken links).
    """

    root: Path
    paths: tuple[str, ...]
    size: int
    channels: int = 3
    skipped: tuple[SkippedFile, ...] = ()

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, index: int) -> Tensor:
        """Photograph `index` as uint8 [channels, size, size]. Raises UnreadablePhotograph."""
        return read_photograph(self.root / self.paths[index], self.size, self.channels)

    def batches(self, batch_size: int) -> Iterator[tuple[list[int], Tensor, list[SkippedFile]]]:
        """All photographs in order: (indices, uint8 [≤ batch_size, channels, size, size], files skipped meanwhile).

        Only one batch is held at a time. A batch may be empty of images where every file in it was unreadable.
        """
        for first in range(0, len(self), batch_size):
            indices, images, skipped = [], [], []
            for index in range(first, min(first + batch_size, len(self))):
                try:
                    images.append(self.read(index))
                    indices.append(index)
                except UnreadablePhotograph as reason:
                    skipped.append(SkippedFile(self.paths[index], str(reason)))
            shape = (0, self.channels, self.size, self.size)
            yield indices, torch.stack(images) if images else torch.empty(shape, dtype=torch.uint8), skipped


def load_photographs(root: str | os.PathLike[str], size: int = 224, channels: int = 3) -> Photographs:
    """List the images in a folder, or in its class folders, to any depth.

    `size` is the side in pixels that every image gets (the central square, resized with antialiasing); `channels` is
    what the network takes: 3 (RGB), 1 (luminance), or any other number for .npy arrays of that many channels.
    Links to folders are followed once. Raises FileNotFoundError where there is no such folder or no image in it.
    """
    folder = Path(root).expanduser()
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "does not exist"
        raise FileNotFoundError(f"images.root={root} {what}; name a folder of images or of class folders")
    if size < 1 or channels < 1:
        raise ValueError(f"images.size and the network's channels are at least 1, not {size} and {channels}")
    paths, skipped = _list_files(folder)
    if not paths:
        tried = f" ({len(skipped)} unusable: {skipped[0].path}: {skipped[0].reason})" if skipped else ""
        raise FileNotFoundError(f"no images under images.root={root}{tried}; looked for {', '.join(sorted(SUFFIXES))}")
    return Photographs(folder, tuple(paths), size, channels, tuple(skipped))


def _list_files(root: Path) -> tuple[list[str], list[SkippedFile]]:
    paths: list[str] = []
    skipped: list[SkippedFile] = []
    seen: set[tuple[int, int]] = set()

    def cannot_list(error: OSError) -> None:
        skipped.append(SkippedFile(os.path.relpath(error.filename, root), error.strerror or "cannot be listed"))

    for folder, folders, files in os.walk(root, followlinks=True, onerror=cannot_list):
        status = os.stat(folder)
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


def read_photograph(path: str | os.PathLike[str], size: int, channels: int = 3) -> Tensor:
    """One file as uint8 [channels, size, size]: upright (EXIF), its central square, resized with antialiasing.

    Greyscale, palette, CMYK, 16-bit and transparent images (over white) become `channels` channels of 8 bits; of an
    animation the first frame. `.npy` holds [H, W], [H, W, ch] or [ch, H, W], integers or 0..1 floats.
    Raises UnreadablePhotograph with the reason in one line.
    """
    try:
        if Path(path).suffix.lower() == ".npy":
            return _resize_array(_read_array(path, channels), size)
        if channels not in (1, 3):
            raise UnreadablePhotograph(f"the network takes {channels} channels: give .npy arrays of that many")
        with Image.open(path) as image:
            square = _central_square(image)
            return _to_tensor(_to_channels(square, channels).resize((size, size), Image.Resampling.BICUBIC))
    except UnreadablePhotograph:
        raise
    except Image.DecompressionBombError as error:
        raise UnreadablePhotograph(f"too many pixels: {error}") from error
    except Exception as error:  # image decoders raise anything at all: struct.error, SyntaxError, EOFError …
        raise UnreadablePhotograph(" ".join(f"{type(error).__name__}: {error}".split())) from error


def _central_square(image: Image.Image) -> Image.Image:
    """Crop before anything else, so that a 30,000 × 1 image never grows to 30,000 × size."""
    image = ImageOps.exif_transpose(image)
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return image.crop((left, top, left + side, top + side))


def _to_channels(image: Image.Image, channels: int) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        image = _to_8_bits(image)
    if "A" in image.mode or "a" in image.mode or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("L" if channels == 1 else "RGB")


def _to_8_bits(image: Image.Image) -> Image.Image:
    """16-bit integers by their full range; floating point by 0..1."""
    values = np.asarray(image, dtype=np.float64)
    if not np.isfinite(values).all():
        raise UnreadablePhotograph("holds NaN or infinite values")
    if image.mode == "F":
        if values.min() < 0 or values.max() > 1:
            raise UnreadablePhotograph("floating-point pixels must lie in 0..1")
        values = values * 255
    else:
        values = values / 257 if image.mode.startswith("I;16") or values.max() > 255 else values
    return Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8))


def _to_tensor(image: Image.Image) -> Tensor:
    array = np.array(image, dtype=np.uint8)  # a copy: PIL's own buffer is read-only
    return torch.from_numpy(array).reshape(*array.shape[:2], -1).permute(2, 0, 1).contiguous()


def _read_array(path: str | os.PathLike[str], channels: int) -> np.ndarray:
    array = np.load(path, allow_pickle=False, mmap_mode="r")
    if array.ndim == 2:
        array = array[None]
    if array.ndim == 3 and array.shape[0] != channels and array.shape[-1] == channels:
        array = np.moveaxis(array, -1, 0)
    if array.ndim != 3 or array.shape[0] != channels:
        raise UnreadablePhotograph(f"holds an array of shape {list(array.shape)}; [{channels}, H, W] is right")
    side = min(array.shape[1:])
    top, left = (array.shape[1] - side) // 2, (array.shape[2] - side) // 2
    values = np.array(array[:, top : top + side, left : left + side])
    if values.dtype == np.uint8:
        return values
    if values.dtype == np.uint16:
        return np.rint(values / 257).astype(np.uint8)
    if values.dtype == np.bool_ or np.issubdtype(values.dtype, np.floating):
        if not np.isfinite(values).all() or values.min() < 0 or values.max() > 1:
            raise UnreadablePhotograph("floating-point values must be finite and in 0..1")
        return np.rint(values * 255.0).astype(np.uint8)
    raise UnreadablePhotograph(f"holds {values.dtype} values; uint8, uint16 or floats in 0..1 are right")


def _resize_array(array: np.ndarray, size: int) -> Tensor:
    """Any number of channels: each is resized as a greyscale picture, by the same filter as a photograph's."""
    planes = [Image.fromarray(plane).resize((size, size), Image.Resampling.BICUBIC) for plane in array]
    return torch.from_numpy(np.stack([np.asarray(plane) for plane in planes]))

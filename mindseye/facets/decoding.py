"""One file to one square picture of bytes, or one line that says why not. Nothing here lists folders."""

import os
import warnings
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from mindseye.words import on_one_line, with_class

# How many times as large as needed a JPEG stays when it is decoded at a half, a quarter or an eighth of its size. 3 is
# from where Pillow calls the result almost indistinguishable from a full decode (Image.thumbnail's `reducing_gap`).
REDUCING_GAP = 3.0

# Decoded, a picture takes 4 bytes a pixel, and twice that while it is cropped: this bounds it, whatever a small file
# says of itself. It is where Pillow begins to warn; large JPEGs are decoded smaller and stay far below.
MOST_PIXELS = 89_478_485

# Pillow has no decoder of its own for these: it hands them to a program beside it (Ghostscript), to the system's, or
# to nobody.
NOT_DECODED = frozenset({"EPS", "WMF", "BUFR", "GRIB", "HDF5", "MPEG", "IPTC"})

MAKER = "mindseye"  # what PNGs and WebPs that are drawn here have as their Software
SOFTWARE = 0x0131  # its number in EXIF
Window = tuple[float, float]  # black and white: the values in a file that become 0 and 255
_ELSE = "; for raw counts give black and white, the values that become 0 and 1"


class UnreadablePhotograph(ValueError):
    """One file that cannot be used; the message is the reason alone, without the path."""


def formats() -> list[str]:
    """The names of the formats that Pillow decodes by itself, those of plug-ins that are imported among them."""
    Image.init()
    return [name for name in Image.ID if name not in NOT_DECODED]


def suffixes() -> frozenset[str]:
    """What the names of usable files end in, in small letters: Pillow's own of its formats, and .npy."""
    decoded = set(formats())
    known = Image.registered_extensions()
    return frozenset({".npy", *(suffix for suffix, name in known.items() if name in decoded)})


def read_photograph(
    path: str | os.PathLike[str],
    size: int,
    channels: int = 3,
    black: float | None = None,
    white: float | None = None,
    *,
    drawn_too: bool = False,
    channels_last: Callable[[], bool | None] | None = None,
) -> Tensor:
    """One file as uint8 [channels, size, size]: upright (EXIF), its central square, resized with antialiasing.

    Greyscale, palette, CMYK, 16-bit and transparent images (over white) become `channels` channels of 8 bits; of an
    animation the first frame. `.npy` holds [H, W], [H, W, ch] or [ch, H, W]; `channels_last()` says which where both
    would do. Integers are taken by the whole range of the type that the file says it has, whatever values there are (8
    or 16 bits; 12 in a TIFF, a PGM's largest value), floats as 0..1. With `black` and `white`, for raw counts, these
    values, of any numeric type, become 0 and 255, what lies between them linearly, and what lies outside is cut off;
    without, 12-bit counts in 16-bit files would have 17 levels. They are held against the numbers in the file: a file
    whose numbers its decoder does not give (16-bit colours, which Pillow reads as 8), or whose type ends below them, is
    refused.

    A JPEG at least 2·REDUCING_GAP times as large as needed is decoded at a half, a quarter or an eighth of its size, in
    a third of the time. A picture of more than MOST_PIXELS is not decoded, nor one of a format that Pillow leaves to
    another program, nor one that says that mindseye has drawn it, unless `drawn_too`. Raises UnreadablePhotograph with
    the reason in one line.
    """
    window = None if black is None or white is None else (black, white)
    try:
        if Path(path).suffix.lower() == ".npy":
            return _resize_array(_read_array(path, channels, window, channels_last), size)
        if channels not in (1, 3):
            raise UnreadablePhotograph(f"the network takes {channels} channels: give .npy arrays of that many")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a file that can be read is read, whatever its decoder thinks of it
            with Image.open(path, formats=formats()) as image:
                if not drawn_too and _is_drawn_here(image):
                    raise UnreadablePhotograph("is a picture that mindseye has drawn, and no photograph")
                image.draft(None, (round(REDUCING_GAP * size),) * 2)  # does nothing to other formats
                _check_pixels(*image.size)
                scale = _scale(image)
                square = _central_square(image)
                return _to_tensor(_to_channels(square, channels, scale, window).resize((size, size), RESAMPLING))
    except UnreadablePhotograph:
        raise
    except Image.DecompressionBombError as error:
        raise UnreadablePhotograph(f"too many pixels: {error}") from error
    except UnidentifiedImageError as error:  # its message names the path, which is known
        raise UnreadablePhotograph("holds no picture in a format that is known here") from error
    except OSError as error:
        raise UnreadablePhotograph(on_one_line(error.strerror or f"OSError: {error}")) from error
    except Exception as error:  # image decoders raise anything at all: struct.error, SyntaxError, EOFError …
        raise UnreadablePhotograph(with_class(error)) from error


def _is_drawn_here(image: Image.Image) -> bool:
    said = image.getexif().get(SOFTWARE) if image.format == "WEBP" else image.info.get("Software")
    return said == MAKER


RESAMPLING = Image.Resampling.BICUBIC


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


# ---- what the numbers of a file are, and what its decoder makes of them -------------------------------------------


@dataclass(frozen=True)
class _Scale:
    """The range of a file's numbers, by what its head says of their type, and of what Pillow makes of them.

    Pillow gives number · decoded/most: a colour of 16 bits as 8, a PGM's counts up to 4095 as 0..65535, 4 bits as 8.
    """

    most: float | None  # the largest number that the type holds; None: it says nothing of the range (32 bits, signed)
    decoded: float  # what Pillow makes of it
    white_is_zero: bool = False  # the file's 0 is white
    turned: bool = False  # and Pillow has turned that round
    known: bool = True  # False: a format of which it is not known here what Pillow makes of its numbers

    def numbers(self, values: np.ndarray) -> np.ndarray:
        """The file's own, from what Pillow gave. Raises UnreadablePhotograph where that cannot be told any more."""
        if not self.known:
            raise UnreadablePhotograph(
                "is of a format whose own numbers are not known here, and black and white are values in "
                "the file: give .npy arrays, PNG or TIFF"
            )
        if self.most is None:
            return values
        if self.most > self.decoded:
            bits = round(self.most + 1).bit_length() - 1
            raise UnreadablePhotograph(
                f"holds {bits}-bit colours, which are read as {'16' if self.decoded > 255 else '8'}, and black "
                "and white are values in the file: give .npy arrays"
            )
        own = np.rint(values * (self.most / self.decoded)) if self.most != self.decoded else values
        return self.most - own if self.turned else own


def _scale(image: Image.Image) -> _Scale:
    """Of an image that is opened and not decoded yet."""
    if image.mode == "F":  # as it is, TIFF's white_is_zero aside
        inverted = image.format == "TIFF" and _tag(image, 262, 1) == 0
        return _Scale(None, 1, white_is_zero=inverted, known=image.format in ("TIFF", "PPM"))
    tiles = image.tile  # type: ignore[attr-defined]
    codec, _, _, arguments = tiles[0][:4] if tiles else ("", None, 0, "")
    given = arguments if isinstance(arguments, tuple) else (arguments,)
    raw = str(given[0]) if given else ""
    whole = 65535.0 if image.mode.startswith("I") else 255.0
    if image.format == "TIFF":
        return _tiff_scale(image, whole)
    if image.format == "PNG":
        if image.mode == "P" or ";" not in raw:
            return _Scale(1 if image.mode == "1" else 255, 255)
        return _Scale(2.0 ** int("".join(filter(str.isdigit, raw.partition(";")[2]))) - 1, whole)
    if image.format == "PPM":
        if image.mode == "1":
            return _Scale(1, 255, white_is_zero=True, turned=True)
        return _Scale(float(given[1]) if codec.startswith("ppm") else whole, whole)
    if image.format == "JPEG2000":
        depth, most_bits = _jpeg2000_bits(image), 16 if whole > 255 else 8
        if depth is None:
            return _Scale(None, whole, known=False)
        most = 2**depth - 1
        return _Scale(most, most << most_bits - depth if depth <= most_bits else whole)
    if image.format in ("JPEG", "MPO", "WEBP", "GIF"):
        return _Scale(255, 255)
    if image.format in ("BMP", "DIB") and ";1" not in raw:  # of 5 or 6 bits a colour
        return _Scale(255, 255)
    return _Scale(None if whole > 255 else 255, whole, known=False)


def _tag(image: Image.Image, number: int, default: int) -> int:
    value = image.tag_v2.get(number, default)  # type: ignore[attr-defined]
    return max(value) if isinstance(value, tuple) else value


def _tiff_scale(image: Image.Image, whole: float) -> _Scale:
    bits, signed, inverted = _tag(image, 258, 1), _tag(image, 339, 1) == 2, _tag(image, 262, 1) == 0
    if image.mode in ("P", "PA"):  # the palette's colours
        return _Scale(255, 255)
    if signed and bits < 16:
        raise UnreadablePhotograph("holds signed bytes, which are read as if they had no sign: give .npy arrays")
    if signed or bits > 16:
        return _Scale(None, whole, white_is_zero=inverted)
    most = 2.0**bits - 1
    if image.mode.startswith("I"):  # 12 bits stay as they are
        return _Scale(most, most, white_is_zero=inverted)
    return _Scale(most, whole, white_is_zero=inverted, turned=inverted)


def _jpeg2000_bits(image: Image.Image) -> int | None:
    """Bits of a number, as the code stream's head says (ISO 15444-1, A.5.1); None for signed ones, and for none."""
    file = image.fp  # type: ignore[attr-defined]
    place = file.tell()
    file.seek(0)
    head = file.read(1 << 16)
    file.seek(place)
    start = head.find(b"\xff\x4f\xff\x51")  # SOC, SIZ
    depth = head[start + 42] if 0 <= start < len(head) - 42 else 255
    return None if depth & 0x80 else depth + 1


# ---- to 8 bits ----------------------------------------------------------------------------------------------------


def _to_channels(image: Image.Image, channels: int, scale: _Scale, window: Window | None) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        image = Image.fromarray(_to_8_bits(image, scale, window))
    elif window is not None:
        image = _windowed(image, scale, window)
    if "A" in image.mode or "a" in image.mode or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("L" if channels == 1 else "RGB")


def _to_8_bits(image: Image.Image, scale: _Scale, window: Window | None) -> np.ndarray:
    """Of one channel of more than 8 bits: by the window, or by the whole range that the file's type has."""
    values = np.asarray(image, dtype=np.float64)
    if window is not None:
        return _between(scale.numbers(values), window, scale.most)
    if not np.isfinite(values).all():
        raise UnreadablePhotograph("holds NaN or infinite values")
    if image.mode == "F":
        if values.min() < 0 or values.max() > 1:
            raise UnreadablePhotograph(f"floating-point pixels must lie in 0..1{_ELSE}")
    elif scale.most is None:
        raise UnreadablePhotograph(f"holds numbers of a type that says nothing of their range{_ELSE}")
    shares = (values / scale.decoded).clip(0, 1)
    return np.rint((1 - shares if scale.white_is_zero else shares) * 255).astype(np.uint8)


def _windowed(image: Image.Image, scale: _Scale, window: Window) -> Image.Image:
    """The colours of an image of 8 bits, or of what Pillow makes 8 bits of, between black and white; alpha stays."""
    if "transparency" in image.info or image.mode in ("PA", "La", "RGBa"):
        image = image.convert("RGBA")
    elif image.mode in ("P", "YCbCr", "RGBX"):
        image = image.convert("RGB")
    elif image.mode == "1":
        image = image.convert("L")
    if image.mode not in ("L", "LA", "RGB", "RGBA"):
        raise UnreadablePhotograph(f"holds {image.mode} colours, of which black and white mean nothing")
    bands = image.split()
    count = len(bands) - image.mode.endswith("A")
    shown = [Image.fromarray(_between(scale.numbers(np.asarray(band)), window, scale.most)) for band in bands[:count]]
    return Image.merge(image.mode, [*shown, *bands[count:]])


def _between(values: np.ndarray, window: Window, most: float | None) -> np.ndarray:
    """Any numbers as uint8: black and what lies beyond it 0, white 255, linear between.

    most: the largest number that their type holds, where it has one.
    """
    black, white = window
    if most is not None and max(window) > most:
        raise UnreadablePhotograph(
            f"holds numbers of 0 to {most:.0f}, and images.{'white' if white > black else 'black'}={max(window):g} "
            "lies beyond: they are no counts of that range"
        )
    shares = (values.astype(np.float32) - np.float32(black)) / np.float32(white - black)
    if not np.isfinite(shares).all():
        raise UnreadablePhotograph("holds NaN or infinite values")
    return np.rint(shares.clip(0, 1) * 255).astype(np.uint8)


def _to_tensor(image: Image.Image) -> Tensor:
    array = np.asarray(image, dtype=np.uint8)
    # A copy, since PIL's own buffer is read-only; numpy's, since torch would start all its threads for so little.
    return torch.from_numpy(np.moveaxis(array.reshape(*array.shape[:2], -1), -1, 0).copy())


def channels_come_last(paths: Iterable[Path], channels: int) -> bool | None:
    """Where the channels of a set of arrays stand, by the files of which it is plain; None where these differ, or none
    is. Heads are read, nothing else."""
    told = set()
    for path in paths:
        with suppress(Exception):  # a file that cannot be read is named when it is
            shape = np.load(path, allow_pickle=False, mmap_mode="r").shape
            if len(shape) == 3 and (shape[0] == channels) != (shape[-1] == channels):
                told.add(shape[-1] == channels)
        if len(told) == 2:
            return None
    return told.pop() if told else None


def _read_array(
    path: str | os.PathLike[str], channels: int, window: Window | None, channels_last: Callable[[], bool | None] | None
) -> np.ndarray:
    array = np.load(path, allow_pickle=False, mmap_mode="r")
    if not isinstance(array, np.ndarray):
        array.close()
        raise UnreadablePhotograph("is an archive of arrays, not one array")
    if array.ndim == 2:
        array = array[None]
    either = array.ndim == 3 and array.shape[0] == array.shape[-1] == channels > 3
    last = channels_last() if either and channels_last is not None else None
    if either and last is None:
        raise UnreadablePhotograph(
            f"holds an array of shape {list(array.shape)}, of which the channels may be the first dimension or the "
            "last: cut it to another height or width"
        )
    if (either and last) or (array.ndim == 3 and array.shape[0] != channels and array.shape[-1] == channels):
        array = np.moveaxis(array, -1, 0)
    if array.ndim != 3 or array.shape[0] != channels:
        raise UnreadablePhotograph(f"holds an array of shape {list(array.shape)}, which must be [{channels}, H, W]")
    side = min(array.shape[1:])
    if side == 0:
        raise UnreadablePhotograph(f"holds an array of shape {list(array.shape)}: no pixels")
    _check_pixels(side, side * -(-channels // 3))
    top, left = (array.shape[1] - side) // 2, (array.shape[2] - side) // 2
    values = np.array(array[:, top : top + side, left : left + side])
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    if window is not None and values.dtype.kind in "iufb":
        most = None if values.dtype.kind == "f" else 1 if values.dtype.kind == "b" else np.iinfo(values.dtype).max
        return _between(values, window, most)
    if values.dtype == np.uint8:
        return values
    if values.dtype == np.uint16:
        return np.rint(values / 257).astype(np.uint8)
    if values.dtype == np.bool_ or np.issubdtype(values.dtype, np.floating):
        if not np.isfinite(values).all() or values.min() < 0 or values.max() > 1:
            raise UnreadablePhotograph(f"floating-point values must be finite and in 0..1{_ELSE}")
        return np.rint(values * 255.0).astype(np.uint8)
    raise UnreadablePhotograph(f"holds {values.dtype} values, which must be uint8, uint16 or floats in 0..1{_ELSE}")


def _resize_array(array: np.ndarray, size: int) -> Tensor:
    """Any number of channels: each is resized as a greyscale picture, by the same filter as a photograph's."""
    planes = [Image.fromarray(plane).resize((size, size), RESAMPLING) for plane in array]
    return torch.from_numpy(np.stack([np.asarray(plane) for plane in planes]))

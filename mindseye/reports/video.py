"""The iterations of a run as a film: all facets side by side, a frame for each step of which the pictures were kept."""

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Literal, get_args

from PIL import Image, ImageDraw, ImageFont

from mindseye.facets.pictures import MADE_HERE_EXIF
from mindseye.files import write_atomically
from mindseye.results.pictures import BACKGROUND, FAINT, GAP, INK, explained, font, starred

Form = Literal["mp4", "webp"]
IN_A_ROW = 5  # facets at most
SMALLEST = 180  # pixels: smaller pictures are enlarged by a whole factor until they reach it
BAR, LABEL = 30, 18  # pixels: of the step counter, of the facet's number
LAST_MS = 2000  # how long a WebP shows its last frame before it starts again


def write_video(
    snapshots: Mapping[int, Sequence[Path]],
    path: Path,
    form: Form,
    *,
    steps: int | None = None,
    fps: float = 4.0,
    marks: Sequence[str] = (),
) -> Path:
    """Write the pictures of `snapshots` (step -> a file per facet, as `snapshot_files` gives them) as one film.

    `webp` is animated and needs nothing more; `mp4` (H.264) needs PyAV, the extra `video`. `steps` is the run's number
    of steps, for the counter; `fps` frames per second; `marks` what to know of each facet, "" for nothing: one that
    has some gets an asterisk, which the last lines explain, as in a figure. Raises ValueError, in one line, where
    there are no pictures, where one cannot be read, or where PyAV is missing.
    """
    if not snapshots:
        raise ValueError("no pictures of single iterations were kept: snapshots=N keeps them every N steps")
    check_film(form, fps)
    return write_frames(frames(snapshots, steps or max(snapshots), marks), len(snapshots), path, form, fps)


def write_frames(pictures: Iterator[Image.Image], count: int, path: Path, form: Form, fps: float) -> Path:
    """Write `count` pictures of one size, whose sides are even, as one film."""
    encode = _webp if form == "webp" else _mp4
    write_atomically(path, encode(pictures, count, fps))
    return path


def check_film(form: str, fps: float) -> None:
    """Raises ValueError for a form or a number of frames per second that there is no film of."""
    if form not in get_args(Form):
        raise ValueError(f"the form must be {' or '.join(get_args(Form))}, not {form}")
    if not 0.1 <= fps <= 120:
        raise ValueError(f"there must be 0.1 to 120 frames per second, not {fps:g}")


def frames(snapshots: Mapping[int, Sequence[Path]], steps: int, marks: Sequence[str] = ()) -> Iterator[Image.Image]:
    """One after the other, all of one size, whose sides are even, as H.264 needs it."""
    digits = len(str(steps))
    large, small = font(15), font(12)
    for step in sorted(snapshots):
        pictures = [_opened(file) for file in snapshots[step]]
        C, side = len(pictures), pictures[0].width
        labels = starred([f"facet {c}" for c in range(C)], marks)
        tile = side * max(1, -(-SMALLEST // side))
        rows = math.ceil(C / IN_A_ROW)
        columns = math.ceil(C / rows)
        label = LABEL if C > 1 or any(marks) else 0
        width = GAP + columns * (tile + GAP)
        foot = _lines(explained(marks), small, width - 2 * GAP)
        grid = BAR + rows * (tile + label + GAP)
        height = grid + len(foot) * LABEL
        frame = Image.new("RGB", (width + width % 2, height + height % 2), BACKGROUND)
        draw = ImageDraw.Draw(frame)
        draw.text((GAP, 6), f"step {step:>{digits}} of {steps}", fill=INK, font=large)
        for c, picture in enumerate(pictures):
            left, top = GAP + c % columns * (tile + GAP), BAR + c // columns * (tile + label + GAP)
            frame.paste(picture.resize((tile, tile), Image.Resampling.LANCZOS), (left, top))
            if label:
                draw.text((left, top + tile + 1), labels[c], fill=FAINT, font=small)
        for number, line in enumerate(foot):
            draw.text((GAP, grid + number * LABEL - 2), line, fill=FAINT, font=small)
        yield frame


def _lines(text: str, face: ImageFont.FreeTypeFont, room: int) -> list[str]:
    """A text in lines of at most `room` pixels, broken between words."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and face.getlength(longer) <= room:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def _opened(file: Path) -> Image.Image:
    try:
        with Image.open(file) as opened:
            return opened.convert("RGB")
    except Exception as error:  # decoders raise anything at all
        raise ValueError(f"{file} is no readable picture ({' '.join(str(error).split())})") from error


def _webp(pictures: Iterator[Image.Image], count: int, fps: float) -> bytes:
    stored = io.BytesIO()
    durations = [round(1000 / fps)] * (count - 1) + [LAST_MS]
    first = next(pictures)
    film = {"save_all": True, "append_images": pictures, "duration": durations, "loop": 0}
    first.save(stored, "WEBP", quality=90, method=4, exif=MADE_HERE_EXIF, **film)
    return stored.getvalue()


def _mp4(pictures: Iterator[Image.Image], count: int, fps: float) -> bytes:
    from fractions import Fraction

    try:
        import av
    except ImportError:
        raise ValueError(
            "an MP4 needs PyAV: pip install 'mindseye[video]'; an animated WebP does without it"
        ) from None
    stored = io.BytesIO()
    first = next(pictures)
    # bitexact leaves out the library's version
    with av.open(stored, "w", format="mp4", options={"fflags": "+bitexact"}) as film:
        stream = film.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000))
        stream.width, stream.height, stream.pix_fmt = first.width, first.height, "yuv420p"  # what every player shows
        stream.options = {"crf": "16", "preset": "slow"}
        for picture in chain([first], pictures):
            film.mux(stream.encode(av.VideoFrame.from_image(picture)))
        film.mux(stream.encode())
    return stored.getvalue()

"""Tensors as picture files, and the contact sheet that shows a whole run at a glance."""

import os
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from mindseye.facets.pictures import to_picture
from mindseye.facets.targets import FacetTargets
from mindseye.results.measures import MEASURES, numbers

BACKGROUND, INK, FAINT = (255, 255, 255), (28, 28, 30), (110, 110, 116)
GAP, MARGIN, LABEL_WIDTH, HEADING = 10, 24, 190, 92


def font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans as matplotlib ships it: Pillow's own font lacks ×, Greek letters and most of Unicode."""
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"), size)


def starred(labels: Sequence[str], marks: Sequence[str]) -> list[str]:
    """The labels of facets, those of marked ones with an asterisk; marks: "" for a facet without, none for no facet."""
    return [f"{label}{'*' if c < len(marks) and marks[c] else ''}" for c, label in enumerate(labels)]


def explained(marks: Sequence[str]) -> str:
    """What the asterisks of `starred` stand for, "" where there are none.

    >>> explained(["", "not firm", "not firm, one photograph"])
    '* not firm, one photograph'
    """
    words = dict.fromkeys(word for own in marks for word in own.split(", ") if word)
    return f"* {', '.join(words)}" if words else ""


def from_picture(path: str | os.PathLike[str]) -> Tensor:
    """A picture file as uint8 [1 or 3, height, width]. Raises ValueError, in one line, where it cannot be read."""
    try:
        with Image.open(path) as opened:
            array = np.array(opened if opened.mode == "L" else opened.convert("RGB"))
    except Exception as error:  # decoders raise anything at all: for a broken PNG a SyntaxError
        raise ValueError(f"{path} is no readable picture ({' '.join(str(error).split())})") from error
    return torch.from_numpy(array[None] if array.ndim == 2 else array.transpose(2, 0, 1).copy())


def contact_sheet(
    targets: FacetTargets,
    images: Tensor,
    labels: Sequence[Sequence[str]],
    *,
    title: str,
    subtitle: str = "",
    photographs: int = 4,
    tile: int | None = None,
) -> Image.Image:
    """A row per facet: its nearest photographs with their weights, the initial image, the visualisation.

    images [C, ch, S, S] in 0..1; labels: lines of text for each facet's first column. `tile` is the side of every
    picture; by default its own size, or the whole multiple of it that first reaches 180 pixels. Every column has the
    same scale.
    """
    S = images.shape[-1]
    tile = tile or S * max(1, -(-180 // S))
    shown = min(photographs, targets.photographs.shape[1])
    columns = shown + 2
    width = 2 * MARGIN + LABEL_WIDTH + columns * tile + (columns - 1) * GAP + 2 * GAP
    row_height = tile + 22 + GAP
    height = 2 * MARGIN + HEADING + targets.C * row_height
    sheet = Image.new("RGB", (width, height), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    large, medium, small = (font(size) for size in (22, 14, 12))
    draw.text((MARGIN, MARGIN), title, fill=INK, font=large)
    draw.text((MARGIN, MARGIN + 32), subtitle, fill=FAINT, font=medium)

    def left(column: int) -> int:
        # the two last columns stand a little apart from the photographs
        return MARGIN + LABEL_WIDTH + column * (tile + GAP) + (GAP if column >= shown else 0)

    heads = ["nearest photographs", *[""] * (shown - 1), "initial image", "visualisation"]
    for column, head in enumerate(heads):
        draw.text((left(column), MARGIN + HEADING - 24), head, fill=INK, font=medium)
    for c in range(targets.C):
        top = MARGIN + HEADING + c * row_height
        order = targets.weights[c].argsort(descending=True, stable=True)[:shown]
        pictures = [*targets.photographs[c, order], targets.initial[c], images[c]]
        captions = [f"weight {float(targets.weights[c, i]):.2f}" for i in order] + ["", ""]
        for column, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
            placed = to_picture(targets.shown(picture)).convert("RGB").resize((tile, tile), Image.Resampling.LANCZOS)
            sheet.paste(placed, (left(column), top))
            draw.text((left(column), top + tile + 3), caption, fill=FAINT, font=small)
        draw.text((MARGIN, top), f"facet {c}", fill=INK, font=large)
        for number, text in enumerate(labels[c]):
            draw.text((MARGIN, top + 36 + 20 * number), text, fill=INK if number else FAINT, font=medium)
    return sheet


def band_sheet(targets: FacetTargets, images: Tensor, *, title: str) -> Image.Image:
    """Every band in grey: two rows per facet, the initial image and the visualisation, images [C, ch, S, S] in 0..1."""
    C, ch, S = images.shape[:3]
    tile = S * max(1, -(-96 // S))
    heading, row = MARGIN + 58, tile + GAP
    width = 2 * MARGIN + LABEL_WIDTH + ch * (tile + GAP)
    sheet = Image.new("RGB", (width, heading + 2 * C * row + MARGIN), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN, MARGIN), title, fill=INK, font=font(22))
    for band in range(ch):
        draw.text((MARGIN + LABEL_WIDTH + band * (tile + GAP), heading - 20), f"band {band}", fill=INK, font=font(14))
    for c in range(C):
        for place, (name, image) in enumerate((("initial image", targets.initial[c]), ("visualisation", images[c]))):
            top = heading + (2 * c + place) * row
            draw.text((MARGIN, top), f"facet {c}", fill=INK, font=font(16))
            draw.text((MARGIN, top + 24), name, fill=FAINT, font=font(14))
            for band in range(ch):
                grey = to_picture(image[band : band + 1]).convert("RGB").resize((tile, tile), Image.Resampling.LANCZOS)
                sheet.paste(grey, (MARGIN + LABEL_WIDTH + band * (tile + GAP), top))
    return sheet


def facet_labels(targets: FacetTargets, rows: Sequence[dict]) -> list[list[str]]:
    """What a facet's first column says: how many photographs it stands for, since when it is stopped, its measures."""
    sizes = targets.labels.bincount(minlength=targets.C).tolist()
    labels = []
    for size, marks, row in zip(sizes, targets.marks(), rows, strict=True):
        lines = [f"{size} photograph{'s' if size != 1 else ''}", *marks]
        if "stopped" in row:
            lines.append(f"stopped at step {row['stopped']['step']}")
        figures = dict(numbers(row))
        shown = [measure for measure in MEASURES.values() if measure.sheet and measure.name in figures]
        lines += [f"{measure.sheet} {figures[measure.name]:.2f}" for measure in shown]
        labels.append(lines)
    return labels

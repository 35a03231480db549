"""The paper's figures 1 to 4 from plain values, for print: vector PDF and PNG of the same size.

Every function returns a matplotlib figure as wide as a column or a page of the paper; `save_figure` writes it. Within a
figure all pictures have the same scale. They are embedded as they are, pixel by pixel, and text stays text. Colours are
Okabe & Ito's (2008), which the colour-blind can tell apart, and go with shapes, which survive a grey print. The user's
own matplotlib settings have no part in it, and nothing that changes from call to call is written.

Images are [C, ch, S, S] in 0..1, or uint8.
"""

import io
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain, pairwise
from pathlib import Path

import matplotlib
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, get_font
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path as MatplotlibPath
from matplotlib.textpath import TextToPath
from torch import Tensor

from mindseye.facets.decoding import MAKER
from mindseye.facets.pictures import to_picture
from mindseye.facets.targets import FacetTargets
from mindseye.files import write_atomically
from mindseye.reports.flow import Partition, Ribbon, arrange, assign, kinds, overlaps, ribbons, shared_photographs
from mindseye.results.pictures import explained, starred

COLUMN, PAGE = 3.5, 7.16  # inches: the widths of a column and of a page of IEEE's two-column papers
TALLEST = 9.2  # inches
DPI = 300
TEXT, SMALL = 8.0, 7.0  # points
GAP, ROW_GAP, SIDE = 0.05, 0.09, 0.19  # inches: between pictures, between rows, for a label that is turned
LARGEST = 1.6  # inches: the side of a picture at most
WEIGHTS = 10  # photographs of a facet that figure 2 shows at most
MANY = 5000  # points of a map above which they are drawn as pixels in the PDF, too
INK, FAINT, FRAME = "#1c1c1e", "#58585c", "#b0b0b4"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P")
STYLE = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so that every machine draws the same
    "font.size": TEXT,
    "text.color": INK,
    "text.parse_math": False,  # names of files and networks may have a $
    "pdf.fonttype": 42,  # TrueType: text that can be searched and copied, as publishers ask for
    "pdf.compression": 9,
    "savefig.dpi": DPI,
    "axes.linewidth": 0.5,
}
_in_style = style.context(STYLE, after_reset=True)


@_in_style
def visualizations(
    images: Tensor,
    photographs: Tensor | None = None,
    *,
    labels: Sequence[str] | None = None,
    marks: Sequence[str] = (),
    heading: str = "",
    width: float | None = None,
) -> Figure:
    """Fig. 1: the visualisation of each facet in a row, above it its nearest photographs, if given.

    photographs [C, n, ch, S, S], the nearest first: n rows. labels: C texts below; "facet c" by default. marks: what
    to know of each, as in metrics.json, "" for nothing; a facet that has some gets an asterisk, which a last line
    explains. `width` in inches; a column for up to 4 facets, else a page. More than 10 facets go on in further rows.
    """
    C, above = len(images), 0 if photographs is None else photographs.shape[1]
    labels = starred([f"facet {c}" for c in range(C)] if labels is None else labels, marks)
    foot = explained(marks)
    width = width or (COLUMN if C <= 4 else PAGE)
    blocks = math.ceil(C / 10)
    columns = math.ceil(C / blocks)
    tile = min(LARGEST, (width - SIDE - (columns - 1) * GAP) / columns)
    block = (above + 1) * (tile + GAP) + _line(SMALL)
    page = _Page(width, _head(heading) + blocks * block + (blocks - 1) * ROW_GAP + _head(foot))
    start = (width - SIDE - columns * tile - (columns - 1) * GAP) / 2 + SIDE
    page.head(heading, start)
    page.foot(foot, start)
    for number in range(blocks):
        top = _head(heading) + number * (block + ROW_GAP)
        shown = range(number * columns, min(C, (number + 1) * columns))
        for place, c in enumerate(shown):
            left = start + place * (tile + GAP)
            for n in range(above):
                page.picture(photographs[c, n], left, top + n * (tile + GAP), tile)
            page.picture(images[c], left, top + above * (tile + GAP), tile)
            page.words(labels[c], left + tile / 2, top + block - _line(SMALL), size=SMALL, align="center", room=tile)
        if above:
            name = "photographs" if above > 1 else "photograph"
            page.turned(name, start, top + (above * (tile + GAP) - GAP) / 2, above * tile)
            page.turned("visualisation", start, top + above * (tile + GAP) + tile / 2, tile)
    return page.figure


@_in_style
def feature_space(targets: FacetTargets, *, facets: Sequence[int] | None = None, heading: str = "") -> Figure:
    """Fig. 2: the map of all photographs with their clusters, and beside it what each facet is blended of.

    A cross is a k-means centre. From it lines run to the N photographs that the facet's target is made of, thicker for
    a larger weight (Eq. 1). They stand on the right, the largest weight first, with their weights, beside the part of
    the map around the centre. Both axes of a map have the same scale, since distances are what weights come from.
    `facets`: those that are listed; all by default. A page wide; more than 13 listed facets are taller than a page.
    """
    listed = range(targets.C) if facets is None else facets
    N = targets.chosen.shape[1]
    shown = min(N, WEIGHTS)
    side = 2.35
    right = side + 0.16
    # A row: a square map of the facet alone, as high as its label, photographs and weights together.
    lines = 2 if len(listed) <= 2 and shown > 5 else 1
    across = math.ceil(shown / lines)
    labelled = (lines + 1) * _line(SMALL)
    tile = min(0.62, (PAGE - right - labelled - across * GAP - 0.03) / (across + lines))
    row = labelled + lines * tile
    start = right + row + GAP + 0.03
    of = f"{shown} of {N}" if shown < N else str(N)
    note = f"× k-means centre; lines to the {N} photographs that each facet is blended of"
    rows_top = _line(SMALL) + 0.04
    body = max(side + 0.03 + _line(SMALL) * 2, rows_top + len(listed) * (row + ROW_GAP) - ROW_GAP)
    gap = min(0.25, (body - rows_top - len(listed) * row) / max(1, len(listed) - 1))
    page = _Page(PAGE, _head(heading) + body)
    page.head(heading)
    top = _head(heading)
    everything = _map_axes(page, 0, top, side)
    _points(everything, targets, min(14.0, max(1.0, 2500 / len(targets.paths))))
    for c in listed:
        _chosen(everything, targets, c, 0.5)
    _centres(everything, targets)
    for number, part in enumerate(_two_lines(note, side)):
        page.words(part, 0, top + side + number * _line(SMALL) + 0.03, size=SMALL, colour=FAINT, room=side)
    page.words(
        f"each facet's surroundings, and its {of} photographs with their weights",
        right, top, size=SMALL, colour=FAINT, room=PAGE - right,
    )  # fmt: skip
    sizes, marks = targets.labels.bincount(minlength=targets.C).tolist(), targets.marks()
    for number, c in enumerate(listed):
        above = top + rows_top + number * (row + gap)
        closer = _map_axes(page, right, above, row)
        _points(closer, targets, 6.0)
        _chosen(closer, targets, c, 0.8)
        closer.plot(*targets.centres[c].tolist(), marker="x", color=INK, markersize=4, markeredgewidth=1, zorder=6)
        _around(closer, targets, c)
        mark = page.axes(start, above, 0.1, _line(SMALL))
        mark.set(xlim=(-1, 1), ylim=(-1, 1))
        mark.axis("off")
        mark.plot(0, 0.1, clip_on=False, markersize=4.5, markeredgewidth=0, linestyle="none", **_look(c))
        page.words(f"facet {c}", start + 0.14, above, size=SMALL)
        cluster = f"cluster of {sizes[c]} photograph{'s' if sizes[c] != 1 else ''}"
        page.words(", ".join([cluster, *marks[c]]), start + 0.6, above, size=SMALL, colour=FAINT)
        order = targets.weights[c].argsort(descending=True, stable=True)[:shown].tolist()
        for place, n in enumerate(order):
            left = start + place % across * (tile + GAP)
            upper = above + _line(SMALL) + place // across * (tile + _line(SMALL))
            page.picture(targets.shown(targets.photographs[c, n]), left, upper, tile)
            weight = f"{float(targets.weights[c, n]):.2f}"
            page.words(weight, left + tile / 2, upper + tile + 0.01, size=SMALL, align="center")
    return page.figure


@_in_style
def iterations(
    target: Tensor,
    snapshots: Mapping[int, Tensor],
    *,
    initial: Tensor | None = None,
    labels: Sequence[str] | None = None,
    marks: Sequence[str] = (),
    heading: str = "",
    width: float = PAGE,
) -> Figure:
    """Fig. 3: a row per facet: its target image, the initial image if given, and the picture after some iterations.

    target, initial [C, ch, S, S]: the target image is the photograph nearest to the centre. snapshots: iteration -> the
    pictures [C, ch, S, S] after it. As many of them as fit are shown, evenly spaced, the last always. labels, marks: as
    in figure 1. Raises ValueError where there is none.
    """
    if not snapshots:
        raise ValueError("no pictures of single iterations were kept: snapshots=N keeps them every N steps")
    C = len(target)
    labels = starred([f"facet {c}" for c in range(C)] if labels is None else labels, marks)
    foot = explained(marks)
    side = SIDE if C > 1 else 0.0
    narrowest = _width(f"Iteration {max(snapshots)}", SMALL) + 0.02
    fit = int((width - side + GAP) / (narrowest + GAP))
    shown = evenly(sorted(snapshots), max(1, min(5, fit - (1 if initial is None else 2))))
    columns: list[tuple[str, Tensor]] = [("Target image", target)]
    columns += [] if initial is None else [("Initial image", initial)]
    columns += [(f"Iteration {step}", snapshots[step]) for step in shown]
    tile = (width - side - (len(columns) - 1) * GAP) / len(columns)
    tile = min(LARGEST, tile, (TALLEST - _head(heading) - _line(SMALL) - _head(foot)) / C - GAP)
    page = _Page(width, _head(heading) + _line(SMALL) + C * (tile + GAP) - GAP + _head(foot))
    start = (width - side - len(columns) * tile - (len(columns) - 1) * GAP) / 2 + side
    page.head(heading, start)
    page.foot(foot, start)
    for place, (name, pictures) in enumerate(columns):
        left, top = start + place * (tile + GAP), _head(heading)
        page.words(name, left + tile / 2, top, size=SMALL, align="center", room=tile + GAP)
        for c in range(C):
            page.picture(pictures[c], left, top + _line(SMALL) + c * (tile + GAP), tile)
    if C > 1:
        for c in range(C):
            page.turned(labels[c], start, _head(heading) + _line(SMALL) + c * (tile + GAP) + tile / 2, tile)
    return page.figure


@dataclass(frozen=True)
class DrawnLayer:
    """One layer of figure 4: what its row is called, its facets and their visualisations [C, ch, S, S]."""

    label: str
    targets: FacetTargets
    images: Tensor


@_in_style
def layers_by_targets(rows: Sequence[DrawnLayer], *, heading: str = "") -> Figure:
    """Fig. 4: a row per layer, a column per target: the photograph nearest to the centre, and the visualisation.

    A layer has facets of its own. Where all look at the same photographs, columns hold facets that belong together, see
    `match_facets`: those of the last layer in their order, and of every other layer what shares most photographs with
    them; "overlap" says how much. Facets that are marked have an asterisk, as in figure 1. A page wide. Raises
    ValueError without rows.
    """
    if not rows:
        raise ValueError("figure 4 needs the visualisations of at least one layer")
    last = rows[-1].targets
    matched = [
        match_facets(row.targets.labels, last.labels, last.C) if _comparable(row.targets, last) else None
        for row in rows
    ]
    C = max(row.targets.C for row in rows)
    beside = C <= 4
    name_width = 0.98
    cell = (PAGE - name_width - (C - 1) * 2 * GAP) / C
    tile = (cell - GAP / 2) / 2 if beside else cell
    stack = 1 if beside else 2  # pictures on top of each other
    heads = _line(SMALL) if beside else 0.0
    marks = [[", ".join(words) for words in row.targets.marks()] for row in rows]
    foot = explained([*chain(*marks)])
    around = _head(heading) + heads + _head(foot)
    spare = TALLEST - around - len(rows) * (_line(SMALL) + ROW_GAP + (stack - 1) * GAP / 2)
    tile = min(LARGEST, tile, spare / (len(rows) * stack))
    block = stack * tile + (stack - 1) * GAP / 2 + _line(SMALL)
    page = _Page(PAGE, around + len(rows) * (block + ROW_GAP) - ROW_GAP)
    page.head(heading)
    page.foot(foot)
    for number, (row, match) in enumerate(zip(rows, matched, strict=True)):
        top = _head(heading) + heads + number * (block + ROW_GAP)
        D = row.targets.maps.shape[1]
        page.words(row.label, 0, top, room=name_width - GAP)
        page.words(f"top {row.targets.k} of {D}", 0, top + _line(TEXT), size=SMALL, colour=FAINT)
        nearest = row.targets.nearest()
        for column in range(row.targets.C):
            c = column if match is None else match[0][column]
            left = name_width + column * (cell + 2 * GAP)
            across = tile + GAP / 2
            second = (left + across, top) if beside else (left, top + across)
            page.picture(row.targets.shown(nearest[c]), left, top, tile)
            page.picture(row.images[c], *second, tile)
            if beside and number == 0:
                page.words("photograph", left + tile / 2, top - heads, size=SMALL, align="center", room=tile)
                page.words("visualisation", second[0] + tile / 2, top - heads, size=SMALL, align="center", room=tile)
            own = match is None or row is rows[-1]
            long, short = (starred([label], marks[number][c : c + 1])[0] for label in (f"facet {c}", str(c)))
            caption = long if own else f"{long}, overlap {match[1][column]:.2f}"
            wide = 2 * tile + GAP / 2 if beside else tile
            if not own and _width(caption, SMALL) > wide:
                caption = f"{short}, {match[1][column]:.2f}"
            page.words(caption, left, top + block - _line(SMALL) + 0.01, size=SMALL, colour=FAINT, room=wide)
    return page.figure


@_in_style
def grid(
    rows: Sequence[str],
    columns: Sequence[str],
    pictures: Mapping[tuple[int, int], Tensor],
    captions: Mapping[tuple[int, int], str],
    *,
    heading: str = "",
) -> Figure:
    """Pictures [ch, S, S] by (row, column) with a label for each of both, and a line below each; places may be empty.

    A page wide at most, and no taller than one. Raises ValueError where pictures would be smaller than a tenth of an
    inch.
    """
    name_width = min(1.6, max(0.5, max(_width(row, TEXT) for row in rows) + GAP))
    heads = _line(SMALL)
    each = (PAGE - name_width - (len(columns) - 1) * GAP) / len(columns)
    below = _line(SMALL) if captions else 0.0
    spare = TALLEST - _head(heading) - heads - len(rows) * (below + GAP)
    tile = min(LARGEST, each, spare / len(rows))
    if tile < 0.1:
        raise ValueError(f"{len(rows)} × {len(columns)} pictures do not fit on a page: show fewer rows or columns")
    width = max(COLUMN, name_width + len(columns) * (tile + GAP) - GAP)
    page = _Page(width, _head(heading) + heads + len(rows) * (tile + below + GAP))
    page.head(heading)
    for place, name in enumerate(columns):
        left = name_width + place * (tile + GAP)
        page.words(name, left + tile / 2, _head(heading), size=SMALL, align="center", room=tile)
    for number, name in enumerate(rows):
        top = _head(heading) + heads + number * (tile + below + GAP)
        page.words(name, 0, top, room=name_width - GAP)
        for place in range(len(columns)):
            left = name_width + place * (tile + GAP)
            if (number, place) in pictures:
                page.picture(pictures[number, place], left, top, tile)
            if caption := captions.get((number, place), ""):
                page.words(caption, left + tile / 2, top + tile, size=SMALL, colour=FAINT, align="center", room=tile)
    return page.figure


def match_facets(labels: Tensor, reference: Tensor, C: int) -> tuple[list[int], list[float]]:
    """Which facets of two clusterings of the same photographs belong together: labels, reference [M] in 0..C−1.

    The one-to-one assignment with the largest sum of overlaps |A ∩ B| / |A ∪ B| (Jaccard 1912; Kuhn 1955). For each of
    the reference's C facets: the facet that belongs to it, and their overlap, 1 where they hold the same photographs.
    """
    names = range(len(labels))
    first, second = Partition("", names, reference.numpy(), C), Partition("", names, labels.numpy(), C)
    overlap = overlaps(shared_photographs(first, second), first.sizes, second.sizes)
    pairs = assign(overlap)
    return [c for _, c in pairs], [float(overlap[pair]) for pair in pairs]


@dataclass(frozen=True)
class FlowColumn:
    """One column of figure 5: a set of facets and their visualisations [C, ch, S, S]."""

    facets: Partition
    images: Tensor


@_in_style
def facet_flow(columns: Sequence[FlowColumn], *, heading: str = "") -> Figure:
    """Fig. 5: facets along a swept setting: a column per value, ribbons as thick as the photographs that two share.

    A ribbon has the colour of the facet that it comes from, and is dark where the two are assigned to each other, see
    `mindseye.reports.flow`. Facets that share most of their photographs with one of the first column have its colour.
    A page wide. Raises ValueError for fewer than two columns.
    """
    if len(columns) < 2:
        raise ValueError(f"figure 5 needs the facets of two cells or more, not {len(columns)}")
    partitions = [column.facets for column in columns]
    between = [ribbons(before, after) for before, after in pairwise(partitions)]
    colours, orders = kinds(partitions), arrange([partition.C for partition in partitions], between)
    tile, bar, gap = 0.34, 0.05, 0.06
    step = (PAGE - tile - 2 * bar) / (len(columns) - 1)
    room = TALLEST - _head(heading) - _line(SMALL) - max(partition.C for partition in partitions) * gap
    scale = min(2.6, room / 2) / max(len(partition.names) for partition in partitions)
    tile = min(tile, room / 2 / max(partition.C for partition in partitions), step / 2)
    top = _head(heading) + _line(SMALL) + 0.03
    placed: list[dict[int, tuple[float, float]]] = []  # facet -> the upper end of its bar, and where its slot begins
    lowest = top
    for partition, order in zip(partitions, orders, strict=True):
        own, y = {}, top
        for c in order:
            high = partition.sizes[c] * scale
            slot = max(tile, high)
            own[c] = (y + (slot - high) / 2, y + (slot - tile) / 2)
            y += slot + gap
        placed.append(own)
        lowest = max(lowest, y - gap)
    page = _Page(PAGE, lowest)
    page.head(heading)
    canvas = page.axes(0, 0, page.width, page.height)
    canvas.set(xlim=(0, page.width), ylim=(page.height, 0))
    canvas.set_axis_off()
    wide = tile + 2 * bar
    for i, flow in enumerate(between):
        leaving = sorted(flow, key=lambda r: (orders[i].index(r.before), orders[i + 1].index(r.after)))
        arriving = sorted(flow, key=lambda r: (orders[i + 1].index(r.after), orders[i].index(r.before)))
        starts, ends = _stacked(leaving, placed[i], scale, "before"), _stacked(arriving, placed[i + 1], scale, "after")
        for ribbon in flow:
            ends_at = (i * step + wide, (i + 1) * step)
            colour = COLOURS[colours[i][ribbon.before] % len(COLOURS)]
            _ribbon(canvas, ends_at, (starts[ribbon], ends[ribbon]), ribbon.shared * scale, colour, ribbon.assigned)
    for i, column in enumerate(columns):
        left = i * step
        align = "left" if i == 0 else "right" if i == len(columns) - 1 else "center"
        anchor = {"left": left, "right": left + wide, "center": left + wide / 2}[align]
        page.words(column.facets.label, anchor, top - _line(SMALL) - 0.03, size=SMALL, align=align, room=step * 0.9)
        for c, (upper, picture) in placed[i].items():
            colour = COLOURS[colours[i][c] % len(COLOURS)]
            high = column.facets.sizes[c] * scale
            for x in (left, left + bar + tile):
                canvas.add_patch(Rectangle((x, upper), bar, high, facecolor=colour, edgecolor="none"))
            page.picture(column.images[c], left + bar, picture, tile)
            number = page.figure.axes[-1].annotate(
                str(c), (0, 1), (2, -2), xycoords="axes fraction", textcoords="offset points", size=SMALL, va="top"
            )
            number.set_bbox({"boxstyle": "round,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.8})
    return page.figure


def _stacked(
    flow: Sequence[Ribbon], placed: Mapping[int, tuple[float, float]], scale: float, side: str
) -> dict[Ribbon, float]:
    """Where each ribbon begins on its facet's bar, one below the other."""
    used: dict[int, float] = {}
    begins = {}
    for ribbon in flow:
        c = ribbon.before if side == "before" else ribbon.after
        begins[ribbon] = placed[c][0] + used.get(c, 0.0)
        used[c] = used.get(c, 0.0) + ribbon.shared * scale
    return begins


def _ribbon(
    axes: Axes, across: tuple[float, float], down: tuple[float, float], thick: float, colour: str, assigned: bool
) -> None:
    """A band from left to right between two bars, bent like an S."""
    (left, right), (start, end), middle = across, down, sum(across) / 2
    upper = [(left, start), (middle, start), (middle, end), (right, end)]
    lower = [(right, end + thick), (middle, end + thick), (middle, start + thick), (left, start + thick)]
    curve = [MatplotlibPath.CURVE4] * 3
    codes = [MatplotlibPath.MOVETO, *curve, MatplotlibPath.LINETO, *curve, MatplotlibPath.CLOSEPOLY]
    shape = MatplotlibPath([*upper, *lower, upper[0]], codes)
    axes.add_patch(PathPatch(shape, facecolor=colour, edgecolor="none", alpha=0.6 if assigned else 0.28))


def evenly(values: Sequence[int], count: int) -> list[int]:
    """At most `count` of the values, every n-th one counted back from the last.

    >>> evenly([20, 40, 60, 80, 100], 3), evenly([20, 40], 5)
    ([20, 60, 100], [20, 40])
    """
    return list(values[:: -math.ceil(len(values) / count)][::-1])


@_in_style
def save_figure(figure: Figure, place: Path) -> list[Path]:
    """Write place.pdf and place.png, each as a whole or not at all; the same figure gives the same bytes."""
    pictures = [image for axes in figure.axes for image in axes.images]
    written = []
    for form, interpolation, metadata in (
        ("pdf", "none", {"Creator": "mindseye", "Producer": None, "CreationDate": None}),
        ("png", "lanczos", {"Software": MAKER}),
    ):
        for picture in pictures:
            # "none" has the PDF embed the pixels themselves; the PNG has its own, between which they are interpolated.
            picture.set_interpolation(interpolation)
        stored = io.BytesIO()
        figure.savefig(stored, format=form, metadata=metadata)
        written.append(place.with_name(f"{place.name}.{form}"))
        write_atomically(written[-1], stored.getvalue())
    return written


# ---- the page ------------------------------------------------------------------------------------------------------


class _Page:
    """A figure on which things are placed in inches from the top left corner."""

    def __init__(self, width: float, height: float) -> None:
        self.width, self.height = width, math.ceil(height * DPI - 1e-6) / DPI
        self.figure = Figure(figsize=(self.width, self.height), facecolor="white")

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        place = (left / self.width, 1 - (top + height) / self.height, width / self.width, height / self.height)
        return self.figure.add_axes(place)

    def picture(self, image: Tensor, left: float, top: float, side: float) -> None:
        axes = self.axes(left, top, side, side)
        axes.set_axis_off()
        axes.imshow(to_picture(image).convert("RGB"), aspect="auto", interpolation="none")

    def words(
        self,
        text: str,
        left: float,
        top: float,
        *,
        size: float = TEXT,
        align: str = "left",
        colour: str = INK,
        room: float | None = None,
    ) -> None:
        """One line, on a baseline that is the same for all texts of a size; shortened to `room` inches."""
        text = readable(text) if room is None else fitted(text, size, room)
        y = 1 - (top + 0.8 * size / 72) / self.height
        self.figure.text(left / self.width, y, text, size=size, color=colour, ha=align, va="baseline")

    def turned(self, text: str, right: float, middle: float, room: float) -> None:
        """A label read from below, beside what starts at `right`."""
        x, y = (right - 0.04) / self.width, 1 - middle / self.height
        shown = fitted(text, SMALL, room)
        self.figure.text(x, y, shown, size=SMALL, rotation=90, ha="right", va="center")

    def head(self, text: str, left: float = 0.0) -> None:
        if text:
            self.words(text, left, 0, size=SMALL, colour=FAINT, room=self.width - left)

    def foot(self, text: str, left: float = 0.0) -> None:
        if text:
            self.words(text, left, self.height - _line(SMALL), size=SMALL, colour=FAINT, room=self.width - left)


def _line(size: float) -> float:
    """The height of a line of text of so many points, in inches."""
    return 1.3 * size / 72


def _head(heading: str) -> float:
    return _line(SMALL) + 0.04 if heading else 0.0



def _look(c: int) -> dict[str, str]:
    """Colour and shape of facet c: both differ between the first six, one of them between the first 36."""
    turn, place = divmod(c, len(COLOURS))
    return {"color": COLOURS[place], "marker": MARKERS[(place + turn) % len(MARKERS)]}


def _map_axes(page: _Page, left: float, top: float, side: float) -> Axes:
    """A square with a thin frame and no numbers: t-SNE's axes have no unit, but they have one scale."""
    axes = page.axes(left + 0.01, top + 0.01, side - 0.02, side - 0.02)
    axes.set_aspect("equal", adjustable="datalim")
    axes.set(xticks=[], yticks=[])
    axes.margins(0.06)
    for spine in axes.spines.values():
        spine.set_color(FRAME)
    return axes


def _points(axes: Axes, targets: FacetTargets, area: float) -> None:
    """Every photograph in its cluster's colour and shape, of so many square points."""
    points, labels = targets.embedding.numpy(), targets.labels.numpy()
    for c in range(targets.C):
        own = points[labels == c].T
        axes.scatter(*own, s=area, linewidths=0, alpha=0.75, rasterized=len(points) > MANY, zorder=2, **_look(c))


def _chosen(axes: Axes, targets: FacetTargets, c: int, width: float) -> None:
    """Rings around the photographs that facet c is blended of; lines to them, `width` points for the largest weight."""
    centre, strongest = targets.centres[c].tolist(), max(float(targets.weights[c].max()), 1e-12)
    for n, index in enumerate(targets.chosen[c].tolist()):
        x, y = zip(centre, targets.embedding[index].tolist(), strict=True)
        share = float(targets.weights[c, n]) / strongest
        axes.plot(x, y, color=INK, linewidth=(0.3 + 0.7 * share) * width, zorder=3, solid_capstyle="butt")
    rings = targets.embedding[targets.chosen[c]].numpy().T
    axes.scatter(*rings, s=18 * width, facecolors="none", edgecolors=INK, linewidths=0.6 * width, zorder=4)


def _centres(axes: Axes, targets: FacetTargets) -> None:
    box = {"boxstyle": "round,pad=0.12", "facecolor": "white", "edgecolor": "none", "alpha": 0.8}
    for c, centre in enumerate(targets.centres.tolist()):
        axes.plot(*centre, marker="x", color="white", markersize=6.5, markeredgewidth=2.6, zorder=5)
        axes.plot(*centre, marker="x", color=INK, markersize=5.5, markeredgewidth=1.3, zorder=6)
        axes.annotate(str(c), centre, (5, 5), textcoords="offset points", size=SMALL, bbox=box, zorder=7)


def _around(axes: Axes, targets: FacetTargets, c: int) -> None:
    """Show what lies around centre c, up to the farthest photograph that the facet is blended of."""
    centre = targets.centres[c]
    reach = 1.2 * float((targets.embedding[targets.chosen[c]] - centre).abs().max()) or 1.0
    x, y = centre.tolist()
    axes.set(xlim=(x - reach, x + reach), ylim=(y - reach, y + reach))


def _comparable(targets: FacetTargets, other: FacetTargets) -> bool:
    return targets.paths == other.paths and targets.C == other.C


# ---- text ----------------------------------------------------------------------------------------------------------


def readable(text: str) -> str:
    """The text in one line, with □ for what cannot be printed or what the font lacks."""
    known = _known_characters()
    return "".join(letter if letter.isprintable() and ord(letter) in known else "□" for letter in text)


def fitted(text: str, size: float, room: float) -> str:
    """`readable`, with … in place of its middle where it is wider than `room` inches at `size` points."""
    text = readable(text)
    if _width(text, size) <= room:
        return text
    # the most letters that fit: no more than `most`, and `kept` do
    kept, most = 0, len(text) - 1
    while kept < most:
        half = (kept + most + 1) // 2
        kept, most = (half, most) if _width(_shortened(text, half), size) <= room else (kept, half - 1)
    return _shortened(text, kept)


def _shortened(text: str, kept: int) -> str:
    return f"{text[: (kept + 1) // 2]}…{text[len(text) - kept // 2 :]}"


@cache
def _known_characters() -> frozenset[int]:
    return frozenset(get_font(str(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf")).get_charmap())


def _width(text: str, size: float) -> float:
    """Inches."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        font = FontProperties(family="DejaVu Sans", size=size)
        return TextToPath().get_text_width_height_descent(text, font, ismath=False)[0] / 72


def _two_lines(text: str, room: float) -> list[str]:
    """The text's words in one line or two."""
    words = text.split()
    for count in range(len(words), 0, -1):
        if _width(" ".join(words[:count]), SMALL) <= room:
            return [" ".join(words[:count]), " ".join(words[count:])] if count < len(words) else [text]
    return [text]

"""Pictures in rows and columns, for print or as a film: a sweep's own grids, and any view of the gallery's page."""

import io
import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from PIL import Image

from mindseye.commands.gallery import runs_below
from mindseye.files import plain_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

    from mindseye.reports.video import Form

Line = Mapping[str, str]  # the values of some axes by their keys
LAYER = ("layer", "depth")  # the settings that figure 4 has rows for
MOST_ROWS = 12  # of a sweep's own grid on one page
LAYS_OUT = ("outerRows", "rows", "outerColumns", "columns")
FILES = {"nearest photograph": "nearest.png", "initial image": "initial.png", "visualisation": "visualization.png"}
FRAME_DPI = 150
_UNDRAWN = {
    "filter": "a filter", "bound": "a bound on the measure", "sort": "another order than as swept",
    "folded": "seeds folded away", "as": "differences, transparency or a heat map",
}  # fmt: skip


@dataclass(frozen=True)
class View:
    """What stands in the rows and columns, and where all other axes stand."""

    pictures: "Pictures"
    rows: Sequence[Line]
    columns: Sequence[Line]
    held: Line
    measure: str  # whose value stands below a picture

    @property
    def shown(self) -> set[str]:
        """The axes that are rows or columns."""
        return {key for line in (*self.rows, *self.columns) for key in line}

    def figure(self) -> "Figure":
        """The grid as a figure. Raises ValueError where it does not fit on a page."""
        from mindseye.reports.figures import grid

        cells = {
            (i, j): self.pictures.cell({**self.held, **row, **column}, self.measure)
            for i, row in enumerate(self.rows)
            for j, column in enumerate(self.columns)
        }
        pictures = {place: image for place, (image, _) in cells.items() if image is not None}
        captions = {place: words for place, (_, words) in cells.items() if words}
        heading = " · ".join(f"{key} {self.held[key]}" for key in self._axes_left())
        if captions:
            heading = " · ".join(filter(None, [heading, f"below: {self.measure}"]))
        return grid(_in_words(self.rows), _in_words(self.columns), pictures, captions, heading=heading)

    def film(self, along: str, path: Path, form: "Form", fps: float) -> Path:
        """A frame for every value of an axis that is neither rows nor columns. Raises ValueError for any other."""
        from mindseye.reports.video import check_film, write_frames

        check_film(form, fps)
        if along not in (free := self._axes_left()):
            raise ValueError(f"--along {along}: {', '.join(free) or 'nothing'} can be played along in this view")
        frames = list(self._frames(along))
        # Figures may differ in height, where the pictures of some values have no figures below them.
        width, height = (2 * math.ceil(max(side) / 2) for side in zip(*(frame.size for frame in frames), strict=True))
        canvas = [Image.new("RGB", (width, height), "white") for _ in frames]
        for whole, frame in zip(canvas, frames, strict=True):
            whole.paste(frame)
        return write_frames(iter(canvas), len(canvas), path, form, fps)

    def _axes_left(self) -> list[str]:
        """The axes that are neither rows nor columns."""
        return [key for key, values in self.pictures.axes.items() if len(values) > 1 and key not in self.shown]

    def _frames(self, along: str) -> "Iterator[Image.Image]":
        for value in self.pictures.axes[along]:
            stored = io.BytesIO()
            frame = replace(self, held={**self.held, along: value})
            frame.figure().savefig(stored, format="png", dpi=FRAME_DPI)
            yield Image.open(stored).convert("RGB")


@dataclass(frozen=True)
class Pictures:
    """All pictures of the runs in a folder, by the value that each has on every axis."""

    folder: Path
    overview: Mapping[str, Any]  # of `mindseye.reports.gallery.collect`
    axes: Mapping[str, list[str]]  # settings, then facet and picture

    @classmethod
    def of(cls, folder: Path, paths: Collection[str] | None = None) -> "Pictures":
        """Of all runs in the folder, or of those at these paths."""
        from mindseye.reports.gallery import collect

        notes: list[str] = []
        runs = [run for run in runs_below(folder, notes) if paths is None or run.path in paths]
        overview: Mapping[str, Any] = collect(folder, runs, notes=notes)["overview"]  # type: ignore[assignment]
        axes = {axis["key"]: list(axis["values"]) for axis in overview["axes"]}
        most = max((len(run["facets"]) for run in overview["runs"]), default=1)
        axes["facet"] = [str(c) for c in range(max(1, most))]
        axes["picture"] = list(overview["pictures"])
        return cls(folder, overview, axes)

    @property
    def settings(self) -> list[str]:
        """The axes that are settings with several values."""
        return [axis["key"] for axis in self.overview["axes"] if len(axis["values"]) > 1]

    def first(self) -> Line:
        """Where every axis begins, at the visualisation."""
        return {**{key: values[0] for key, values in self.axes.items()}, "picture": "visualisation"}

    def place(self, run: Mapping[str, Any]) -> Line:
        """Where one of the overview's runs stands on the axes that are settings."""
        return {axis["key"]: axis["values"][at] for axis, at in zip(self.overview["axes"], run["at"], strict=True)}

    def lines(self, *keys: str) -> list[Line]:
        """A line for each value of the last axis within each of those before it."""
        lines: list[Line] = [{}]
        for key in filter(None, keys):
            lines = [{**line, key: value} for line in lines for value in self.axes[key]]
        return lines

    def cell(self, place: Line, measure: str) -> "tuple[Tensor | None, str]":
        """The picture of a place, None where there is none, and what stands below it."""
        from mindseye.results.pictures import from_picture

        run = next((run for run in self.overview["runs"] if self.place(run).items() <= place.items()), None)
        facets = run["facets"] if run else []
        number = int(place["facet"])
        if run is None or number >= len(facets) or facets[number] is None:
            return None, "" if run is None or facets else str(run["status"])
        folder = self.folder / run["path"] / "facets" / f"{number:02d}"
        kind = place["picture"]
        names = [FILES[kind]] if kind in FILES else [
            f"steps/{name}" for name in self.overview["steps"][facets[number]["steps"]]
            if f"step {int(name.removesuffix('.webp'))}" == kind
        ]  # fmt: skip
        if not names or not (folder / names[0]).is_file():
            return None, ""
        measures = [measure["name"] for measure in self.overview["measures"]]
        value = facets[number]["measures"][measures.index(measure)] if measure in measures else None
        words = f"{value:.3f}" if value is not None and kind == "visualisation" else ""
        return from_picture(plain_file(folder / names[0], self.folder)), words


def read_view(folder: Path, words: str) -> View:
    """What the words of the page's address ask for. Raises ValueError for what is not there, or cannot be drawn."""
    fields = dict(parse_qsl(words.lstrip("#"), keep_blank_values=True))
    if fields.get("view", "grid") != "grid" or "rows" not in fields or "columns" not in fields:
        raise ValueError("--view takes the words that Save gives in the gallery's grid: rows=…&columns=…&at.…")
    for name, undrawn in _UNDRAWN.items():
        if fields.get(name) and not (name == "sort" and fields[name] == "swept"):
            line = f"--view has {undrawn}, which is drawn on the page alone: clear it, and save the view again"
            raise ValueError(line)
    pictures = Pictures.of(folder)
    axes, held = pictures.axes, dict(pictures.first())
    laid_out = {name: fields.get(name, "") for name in LAYS_OUT}
    for name, key in laid_out.items():
        if key and key not in axes:
            raise ValueError(f"--view {name}={key}: there is no such axis; there are {', '.join(axes)}")
    for key, values in axes.items():
        given = fields.get(f"at.{key}", held[key])
        if given not in values:
            raise ValueError(f"--view at.{key}={given}: {', '.join(values)} are there")
        held[key] = given
    rows, columns = (pictures.lines(*(laid_out[name] for name in side)) for side in (LAYS_OUT[:2], LAYS_OUT[2:]))
    return View(pictures, rows, columns, held, fields.get("measure", ""))


def views_of_sweep(folder: Path, paths: Collection[str]) -> dict[str, View]:
    """The grids of a sweep's runs at these paths, by the names of their files; none of a sweep over layers alone.

    Two settings that vary are rows and columns, and each facet has a view; else a row is a run and a column a facet.
    Below a picture stands what runs are compared by.
    """
    pictures = Pictures.of(folder, paths)
    varying, measure = pictures.settings, pictures.overview["usual"] or ""
    if all(key in LAYER for key in varying):
        return {}
    held: dict[str, Line]
    if len(varying) == 2:
        rows, columns = (pictures.lines(key) for key in varying)
        held = {f"grid_facet_{int(c):02d}": {**pictures.first(), "facet": c} for c in pictures.axes["facet"]}
    else:
        places = [pictures.place(run) for run in pictures.overview["runs"]]
        rows, columns = [{key: place[key] for key in varying} for place in places], pictures.lines("facet")
        held = {"grid": pictures.first()}
    pages = [rows[first : first + MOST_ROWS] for first in range(0, len(rows), MOST_ROWS)]
    return {
        name + (f"_{number}" if len(pages) > 1 else ""): View(pictures, page, columns, place, measure)
        for name, place in held.items()
        for number, page in enumerate(pages, 1)
    }


def _in_words(lines: Sequence[Line]) -> list[str]:
    """Each line's values, with the last part of their keys where that is enough to tell them apart.

    >>> _in_words([{"objective.gain": "1", "facet": "0"}, {"objective.gain": "2", "facet": "0"}])
    ['gain 1 · facet 0', 'gain 2 · facet 0']
    """
    ends = Counter(key.rpartition(".")[2] for key in {key for line in lines for key in line})
    named = {key: key if ends[key.rpartition(".")[2]] > 1 else key.rpartition(".")[2] for line in lines for key in line}
    return [" · ".join(f"{named[key]} {value}" for key, value in line.items()) for line in lines]

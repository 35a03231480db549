"""A view of the gallery's grid for print, or as a film along one of its axes: from the words of the page's address."""

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
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

LAYS_OUT = ("outerRows", "rows", "outerColumns", "columns")
FILES = {"nearest photograph": "nearest.png", "initial image": "initial.png", "visualisation": "visualization.png"}
FRAME_DPI = 150
_UNDRAWN = {
    "filter": "a filter", "bound": "a bound on the measure", "sort": "another order than as swept",
    "folded": "seeds folded away", "as": "differences, transparency or a heat map",
}  # fmt: skip


@dataclass(frozen=True)
class View:
    """Which axes are rows and columns, and where all others stand."""

    folder: Path
    overview: Mapping[str, Any]  # of `mindseye.reports.gallery.collect`
    axes: Mapping[str, list[str]]
    laid_out: Mapping[str, str]  # of LAYS_OUT: the key of an axis, "" for none
    held: Mapping[str, str]
    measure: str

    def figure(self) -> "Figure":
        """The grid as a figure. Raises ValueError where it does not fit on a page."""
        from mindseye.reports.figures import grid

        rows, columns = (self._lines(outer, inner) for outer, inner in (LAYS_OUT[:2], LAYS_OUT[2:]))
        cells = {
            (i, j): self._cell({**self.held, **row, **column})
            for i, row in enumerate(rows)
            for j, column in enumerate(columns)
        }
        pictures = {place: image for place, (image, _) in cells.items() if image is not None}
        captions = {place: words for place, (_, words) in cells.items() if words}
        shown = set(self.laid_out.values())
        heading = " · ".join(
            f"{key} {self.held[key]}" for key, values in self.axes.items() if len(values) > 1 and key not in shown
        )
        if captions:
            heading = " · ".join(filter(None, [heading, f"below: {self.measure}"]))
        return grid(_in_words(rows), _in_words(columns), pictures, captions, heading=heading)

    def film(self, along: str, path: Path, form: "Form", fps: float) -> Path:
        """A frame for every value of an axis that is neither rows nor columns. Raises ValueError for any other."""
        from mindseye.reports.video import check_film, write_frames

        check_film(form, fps)
        free = [key for key, values in self.axes.items() if len(values) > 1 and key not in self.laid_out.values()]
        if along not in free:
            raise ValueError(f"--along {along}: {', '.join(free) or 'nothing'} can be played along in this view")
        frames = list(self._frames(along))
        # Figures may differ in height, where the pictures of some values have no figures below them.
        width, height = (2 * math.ceil(max(side) / 2) for side in zip(*(frame.size for frame in frames), strict=True))
        canvas = [Image.new("RGB", (width, height), "white") for _ in frames]
        for whole, frame in zip(canvas, frames, strict=True):
            whole.paste(frame)
        return write_frames(iter(canvas), len(canvas), path, form, fps)

    def _frames(self, along: str) -> "Iterator[Image.Image]":
        for value in self.axes[along]:
            stored = io.BytesIO()
            held = {**self.held, along: value}
            one = View(self.folder, self.overview, self.axes, self.laid_out, held, self.measure)
            one.figure().savefig(stored, format="png", dpi=FRAME_DPI)
            yield Image.open(stored).convert("RGB")

    def _lines(self, outer: str, inner: str) -> list[dict[str, str]]:
        """What each row, or column, stands for: a value of the inner axis within one of the outer."""
        keys = [self.laid_out[name] for name in (outer, inner) if self.laid_out[name]]
        lines: list[dict[str, str]] = [{}]
        for key in keys:
            lines = [{**line, key: value} for line in lines for value in self.axes[key]]
        return lines

    def _cell(self, place: Mapping[str, str]) -> "tuple[Tensor | None, str]":
        """The picture of a place, None where there is none, and what stands below it."""
        from mindseye.results.pictures import from_picture

        at = [self.axes[axis["key"]].index(place[axis["key"]]) for axis in self.overview["axes"]]
        run = next((run for run in self.overview["runs"] if run["at"] == at), None)
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
        value = facets[number]["measures"][measures.index(self.measure)] if self.measure in measures else None
        words = f"{value:.3f}" if value is not None and kind == "visualisation" else ""
        return from_picture(plain_file(folder / names[0], self.folder)), words


def read_view(folder: Path, words: str) -> View:
    """What the words of the page's address ask for. Raises ValueError for what is not there, or cannot be drawn."""
    from mindseye.reports.gallery import collect

    said = dict(parse_qsl(words.lstrip("#"), keep_blank_values=True))
    if said.get("view", "grid") != "grid" or "rows" not in said or "columns" not in said:
        raise ValueError("--view takes the words that Save gives in the gallery's grid: rows=…&columns=…&at.…")
    for name, what in _UNDRAWN.items():
        if said.get(name) and not (name == "sort" and said[name] == "swept"):
            raise ValueError(f"--view has {what}, which is drawn on the page alone: clear it, and save the view again")
    notes: list[str] = []
    overview: Mapping[str, Any] = collect(folder, list(runs_below(folder, notes)), notes=notes)["overview"]  # type: ignore[assignment]
    axes = {axis["key"]: list(axis["values"]) for axis in overview["axes"]}
    most = max((len(run["facets"]) for run in overview["runs"]), default=1)
    axes["facet"] = [str(c) for c in range(max(1, most))]
    axes["picture"] = list(overview["pictures"])
    laid_out = {name: said.get(name, "") for name in LAYS_OUT}
    for name, key in laid_out.items():
        if key and key not in axes:
            raise ValueError(f"--view {name}={key}: there is no such axis; there are {', '.join(axes)}")
    held = {key: values[0] for key, values in axes.items()} | {"picture": "visualisation"}
    for key, values in axes.items():
        given = said.get(f"at.{key}", held[key])
        if given not in values:
            raise ValueError(f"--view at.{key}={given}: {', '.join(values)} are there")
        held[key] = given
    return View(folder, overview, axes, laid_out, held, said.get("measure", ""))


def _in_words(lines: Sequence[Mapping[str, str]]) -> list[str]:
    return [" · ".join(f"{key} {value}" for key, value in line.items()) for line in lines]

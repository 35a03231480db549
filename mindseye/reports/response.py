"""Does a swept setting show? How far apart the pictures of neighbouring cells are, beside those of unlike facets."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from safetensors.numpy import load

from mindseye.files import MOST_TENSOR_BYTES, read_plain
from mindseye.results.run_status import FEATURES

Row = Mapping[str, object]
Features = dict[str, np.ndarray]  # by who sees them, [C, D] of norm 1


@dataclass(frozen=True)
class Response:
    """What one swept setting does to the pictures, as one network (or the low-passed pixels) sees them."""

    setting: str  # objective.gain
    seen_by: str  # transfer.NAME, or pixels
    value: float  # 0: the sweep shows nothing; 1: neighbouring cells differ as facets do
    pairs: int  # of pictures of one facet in neighbouring cells


def responses(rows: Sequence[Row], folder: Path) -> list[Response]:
    """The response to every setting that takes several numbers, as every judge and the pixels see it.

    rows: of `mindseye.sweeps.summary.read_rows`; folder: the sweep's. With d = 1 − cosine of features (`features` of
    `Visualization`): the mean of d between the pictures of one facet in two cells that are neighbours along the
    setting and agree in all others, over the mean of d between the facets of one of these cells. A facet is the same
    in two cells where it is made of the same photographs. A setting without such pairs has none, nor has one whose
    cells have a single facet, or no features (earlier runs').
    """
    drawn = [row for row in rows if row.get("facet") is not None and row.get("stopped.step") is None]
    cells: dict[str, dict[int, object]] = {}  # -> facet -> the photographs it is made of
    overrides: dict[str, dict[str, object]] = {}
    for row in drawn:
        cells.setdefault(str(row["cell"]), {})[int(str(row["facet"]))] = row.get("photographs")
        overrides[str(row["cell"])] = {name: value for name, value in row.items() if name.startswith("override.")}
    seen = {cell: read_features(folder / cell, folder) for cell in cells}
    names = {name for features in seen.values() for name in features}
    judges = sorted(names, key=lambda name: (name == "pixels", name))
    shown = []
    for setting in dict.fromkeys(name for given in overrides.values() for name in given):
        neighbours = list(_neighbours(overrides, setting))
        for judge in judges:
            known = [pair for pair in neighbours if all(judge in seen[cell] for cell in pair)]
            alike = [
                1 - float(seen[cell][judge][c] @ seen[neighbour][judge][c])
                for cell, neighbour in known
                for c, photographs in cells[cell].items()
                if c in cells[neighbour] and cells[neighbour][c] == photographs
            ]
            taking_part = {cell for pair in known for cell in pair}
            unlike = [d for cell in taking_part for d in _distances_between(seen[cell][judge][sorted(cells[cell])])]
            if alike and unlike and np.mean(unlike) > 0:
                value = float(np.mean(alike) / np.mean(unlike))
                shown.append(Response(setting.removeprefix("override."), judge, value, len(alike)))
    return shown


def read_features(cell: Path, within: Path) -> Features:
    """What `features.safetensors` of a run holds, each row of norm 1; nothing where it is missing or damaged."""
    try:
        stored = load(read_plain(cell / FEATURES, within, MOST_TENSOR_BYTES))
    except Exception:  # a run of an earlier version has none, and a damaged file makes the reader raise anything
        return {}
    return {
        name: values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)
        for name, values in ((name, values.astype(float)) for name, values in stored.items() if values.ndim == 2)
        if np.isfinite(values).all()
    }


def _neighbours(overrides: Mapping[str, Mapping[str, object]], setting: str) -> Iterator[tuple[str, str]]:
    """Cells that agree in all other settings, next to each other along this one; none where it is no number."""
    lines: dict[tuple, list[tuple[float, str]]] = {}
    for cell, given in overrides.items():
        value = given.get(setting)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return
        others = tuple(sorted((name, str(value)) for name, value in given.items() if name != setting))
        lines.setdefault(others, []).append((float(value), cell))
    for line in lines.values():
        line.sort()
        yield from ((cell, neighbour) for (_, cell), (_, neighbour) in pairwise(line))


def _distances_between(features: np.ndarray) -> list[float]:
    """1 − cosine of each pair of facets [C, D]."""
    unlike = 1 - features @ features.T
    return [float(d) for d in unlike[np.triu_indices(len(features), k=1)]]


def in_words(shown: Sequence[Response], setting: str) -> str:
    """One line on a setting; "" where there is nothing to say.

    >>> in_words([Response("k", "transfer.resnet18", 0.4567, 8), Response("k", "pixels", 0.1, 8)], "k")
    'response to k: 0.46 in resnet18, 0.10 in pixels (0: nothing shows; 1: cells differ as facets do)'
    """
    own = [response for response in shown if response.setting == setting]
    values = [f"{response.value:.2f} in {response.seen_by.removeprefix('transfer.')}" for response in own]
    return f"response to {setting}: {', '.join(values)} (0: nothing shows; 1: cells differ as facets do)" * bool(values)

"""A sweep's cells with the seeds folded away: the mean of every measure and its interval over the seeds."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mindseye.results.measures import weight_in, worse

LEVEL = 0.95


@dataclass(frozen=True)
class FoldedCell:
    """All cells that differ in seeds alone."""

    settings: Mapping[str, str]
    means: Mapping[str, float]  # measure -> the mean over seeds of the mean over each cell's facets
    halves: Mapping[str, float]  # half of its 95 % interval; NaN for one seed
    seeds: int


def fold(rows: Sequence[Mapping[str, object]], away: Sequence[str], measures: Sequence[str]) -> list[FoldedCell]:
    """The cells of a sweep's summary (`read_rows`) with the settings `away` folded away, in the summary's order.

    A cell's facets count by `weight_in`, as everywhere; the interval is Student's, t·s/√n over n seeds (of several
    settings over the n combinations of their values), since facets of one cell are no draws of their own. Facets that
    were stopped have no part in it, as in a run's own summary; what no facet has is left out.
    """
    values: dict[tuple[tuple[str, str], ...], dict[tuple[str, ...], dict[str, list[tuple[float, float]]]]] = {}
    for row in rows:
        if row.get("facet") is None or row.get("stopped.step") is not None:
            continue
        given = {name.removeprefix("override."): str(row[name]) for name in row if name.startswith("override.")}
        seed = tuple(given.pop(setting, "") for setting in away)
        cell = values.setdefault(tuple(given.items()), {}).setdefault(seed, {})
        for measure in measures:
            value = row.get(measure)
            if isinstance(value, int | float) and not isinstance(value, bool):
                cell.setdefault(measure, []).append((float(value), weight_in(row, measure)))
    folded = []
    for settings, seeds in values.items():
        means, halves = {}, {}
        for measure in measures:
            numbers = [_average(cell[measure]) for cell in seeds.values() if measure in cell]
            if numbers:
                means[measure], halves[measure] = mean_and_half(numbers)
        folded.append(FoldedCell(dict(settings), means, halves, len(seeds)))
    return folded


def _average(weighted: Sequence[tuple[float, float]]) -> float:
    return float(np.average([value for value, _ in weighted], weights=[weight for _, weight in weighted]))


def mean_and_half(values: Sequence[float]) -> tuple[float, float]:
    """The mean of n numbers and half of its 95 % interval, t(n−1)·s/√n; NaN where n is 1."""
    from scipy.stats import t

    if len(values) < 2:
        return float(np.mean(values)), math.nan
    quantile = float(t.ppf((1 + LEVEL) / 2, len(values) - 1))
    return float(np.mean(values)), quantile * float(np.std(values, ddof=1)) / math.sqrt(len(values))


def ranked(cells: Sequence[FoldedCell], measure: str) -> list[FoldedCell]:
    """Cells that have the measure, the best mean first."""
    known = [cell for cell in cells if measure in cell.means]
    return sorted(known, key=lambda cell: worse(measure, cell.means[measure]))


def as_csv(cells: Sequence[FoldedCell]) -> str:
    """A line per cell, in full digits: its settings, seeds, and every measure's mean and half interval."""
    settings = list(dict.fromkeys(name for cell in cells for name in cell.settings))
    measures = list(dict.fromkeys(name for cell in cells for name in cell.means))
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow([*settings, "seeds", *(name for measure in measures for name in (measure, f"{measure}.half"))])
    for cell in cells:
        numbers = [of.get(measure, "") for measure in measures for of in (cell.means, cell.halves)]
        told = ["" if isinstance(number, float) and math.isnan(number) else number for number in numbers]
        writer.writerow([*(cell.settings.get(name, "") for name in settings), cell.seeds, *told])
    return text.getvalue()

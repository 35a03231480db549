"""The facets of a sweep's cells in the order of one setting, for the flow between them (`mindseye.reports.flow`)."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from mindseye.reports.flow import Partition, samples
from mindseye.results.stored_facets import StoredFacets, read_stored_facets, worlds
from mindseye.sweeps.manifest import Cell, as_written
from mindseye.sweeps.status import SweepStatus
from mindseye.sweeps.summary import Row


@dataclass(frozen=True)
class FlowCell:
    """The folder of one cell and the facets that it keeps, called by the cell's value of the setting."""

    folder: Path
    facets: Partition


def swept_settings(sweep: SweepStatus) -> list[str]:
    """The settings of which the sweep's cells have more than one value."""
    values: dict[str, set[str]] = {}
    for cell, _ in sweep.cells:
        for key, value in _given(cell).items():
            values.setdefault(key, set()).add(value)
    return [key for key, different in values.items() if len(different) > 1]


def flows_along(sweep: SweepStatus, setting: str) -> list[tuple[str, list[FlowCell]]]:
    """(the other settings, the cells in the setting's order) wherever facets of the same photographs change along it.

    Numbers are ordered by size, anything else as swept. Cells that are not completed, or keep no facets that can be
    read, are left out; of flows through the same facets, under another k, say, there is the first alone.
    """
    others = sorted(set(swept_settings(sweep)) - {setting})
    lines: dict[str, list[tuple[str, Cell]]] = {}
    for cell, status in sweep.cells:
        given = _given(cell)
        if status.status == "completed" and setting in given:
            held = " ".join(f"{key}={given[key]}" for key in others if key in given)
            lines.setdefault(held, []).append((given[setting], cell))
    flows: dict[tuple[object, ...], tuple[str, list[FlowCell]]] = {}
    for held, line in lines.items():
        read: list[tuple[str, Path, StoredFacets]] = []
        for value, cell in _in_order(line):
            folder = sweep.folder / cell.folder
            try:
                read.append((value, folder, read_stored_facets(folder)))
            except (OSError, ValueError):
                continue
        cells, of_world = [], []
        for (value, folder, stored), world in zip(read, worlds([stored for *_, stored in read]), strict=True):
            names = tuple((world, path) for path in stored.paths)
            cells.append(FlowCell(folder, Partition(value, names, stored.labels, len(stored.centres))))
            of_world.append(world)
        through = [(cell.facets.names, cell.facets.labels.tobytes()) for cell in cells]
        if len(set(through)) > 1 and any(a == b for a, b in pairwise(of_world)):
            flows.setdefault((*through, *(cell.facets.label for cell in cells)), (held, cells))
    return list(flows.values())


def with_samples(sweep: SweepStatus, rows: Sequence[Row]) -> list[Row]:
    """The rows of the sweep's summary, each facet's with its `sample`, see `mindseye.reports.flow.samples`.

    Facets of other networks and layers are of others. A cell that keeps no facets that can be read has none.
    """
    cells: dict[object, tuple[object, StoredFacets]] = {}
    for row in rows:
        if row.get("facet") is not None and row["cell"] not in cells:
            try:
                stored = read_stored_facets(sweep.folder / str(row["cell"]))
            except (OSError, ValueError):
                continue
            cells[row["cell"]] = (row.get("network"), stored)
    partitions = []
    for (network, stored), world in zip(cells.values(), worlds([facets for _, facets in cells.values()]), strict=True):
        names = [(network, stored.layer, world, path) for path in stored.paths]
        partitions.append(Partition("", names, stored.labels, len(stored.centres)))
    of_cell = dict(zip(cells, samples(partitions), strict=True))
    named = []
    for row in rows:
        own, facet = of_cell.get(row["cell"], []), row.get("facet")
        named.append({**row, "sample": own[facet]} if isinstance(facet, int) and facet < len(own) else dict(row))
    return named


def _given(cell: Cell) -> dict[str, str]:
    pairs = (as_written(word).partition("=") for word in cell.overrides)
    return {key.lstrip("+"): value for key, _, value in pairs}


def _in_order(line: list[tuple[str, Cell]]) -> list[tuple[str, Cell]]:
    try:
        return sorted(line, key=lambda pair: float(pair[0]))
    except ValueError:
        return line

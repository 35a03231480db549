"""All that a sweep found, in one table: a row per cell and facet, as CSV for people and Parquet for programs."""

import csv
import hashlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mindseye.files import read_plain, write_atomically
from mindseye.results.measures import COLUMNS, column_order, flat, weight_in, worse
from mindseye.sweeps.manifest import as_written
from mindseye.sweeps.status import SweepStatus

Row = dict[str, object]


def read_rows(sweep: SweepStatus) -> list[Row]:
    """A row per cell and facet; one row without a facet for a cell that is not completed, with its status and reason.

    Columns: cell, status, reason, one `override.KEY` for each key that any cell overrides, network, layer (its exact
    name), channels (how many it has), facet, photographs (which
    it is made of, as a hash), the facet's measures with dots between groups and names, `timing.…`, path (the facet's
    folder, below the sweep's).
    """
    rows: list[Row] = []
    for cell, status in sweep.cells:
        given = dict(word.partition("=")[::2] for word in cell.overrides)
        start: Row = {"cell": cell.folder, "status": status.status, "reason": status.reason}
        start |= {f"override.{key.lstrip('+')}": _value(value) for key, value in given.items()}
        metrics = _metrics(sweep.folder / cell.folder) if status.status == "completed" else None
        if metrics is None:
            if status.status == "completed":
                start |= {"status": "failed", "reason": "its metrics.json is missing or damaged"}
            rows.append(start)
            continue
        start |= _looked_with(metrics.get("provenance"))
        timing = {f"timing.{name}": value for name, value in metrics.get("timing", {}).items()}
        for facet in metrics["facets"]:
            measures = flat({name: value for name, value in facet.items() if name not in ("facet", "baselines")})
            number = facet["facet"]
            path = f"{cell.folder}/facets/{number:02d}"
            known = _photographs(sweep.folder / path)
            rows.append({**start, "facet": number, "photographs": known, **measures, **timing, "path": path})
    return rows


def _looked_with(provenance: Any) -> Row:
    """The network, its layer and that one's channels, whatever the overrides call them."""
    known = flat(provenance) if isinstance(provenance, dict) else {}
    keys = zip(COLUMNS, ("network.name", "targets.layer", "targets.channels"), strict=True)
    return {name: known[key] for name, key in keys if isinstance(known.get(key), str | int)}


def _photographs(facet: Path) -> str | None:
    """Which photographs a facet is made of, as a hash: the same in two cells only where they look at the same facet."""
    try:
        photographs = json.loads(read_plain(facet / "photographs.json", facet.parent.parent.parent))
        names = sorted(str(photograph["path"]) for photograph in photographs)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return hashlib.sha256(json.dumps(names).encode()).hexdigest()[:16]


def _metrics(folder: Path) -> dict | None:
    try:
        metrics = json.loads(read_plain(folder / "metrics.json", folder.parent))
        facets = [facet["facet"] for facet in metrics["facets"]]
        whole = all(type(number) is int and number >= 0 for number in facets)
        return metrics if whole and isinstance(metrics.get("timing", {}), dict) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _value(text: str) -> object:
    """An override's value as a number where it is one."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    value = as_written(text)
    quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
    return value[1:-1] if quoted else value


def write_summary(folder: Path, rows: Sequence[Row]) -> list[Path]:
    """summary.csv and summary.parquet in the sweep's folder. Columns that hold texts and numbers become texts."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    # Cells added later may have keys that the first ones lack: what belongs together stands together all the same.
    names = sorted({name: None for row in rows for name in row}, key=_place)
    table = {name: _of_one_kind([row.get(name) for row in rows]) for name in names}
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(names)
    writer.writerows(zip(*(["" if value is None else value for value in table[name]] for name in names), strict=True))
    stored = io.BytesIO()
    pq.write_table(pa.table(table), stored)
    written = [folder / "summary.csv", folder / "summary.parquet"]
    write_atomically(written[0], text.getvalue().encode())
    write_atomically(written[1], stored.getvalue())
    return written


def _place(column: str) -> tuple[int, tuple[int, str]]:
    """Measures stand together, in the order of their table."""
    order = ("cell", "status", "reason", "override", *COLUMNS, "facet", "photographs", "", "timing", "path")
    group = column.partition(".")[0]
    known = column in order or group in ("override", "timing")
    return order.index(group if known else ""), (0, "") if known else column_order(column)


def _of_one_kind(values: list[Any]) -> list[Any]:
    kinds = {type(value) for value in values if value is not None}
    if kinds == {int, float}:
        return [None if value is None else float(value) for value in values]
    if len(kinds) > 1:
        return [None if value is None else str(value) for value in values]
    return values


def ranked(rows: Sequence[Row], measure: str) -> list[tuple[str, float]]:
    """Completed cells by the mean of a measure over their facets, the best first: (cell, mean).

    As in a run's own summary, facets that were stopped have no part in it, and shares of a way are weighted by it.
    """
    values: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        value = row.get(measure)
        if isinstance(value, int | float) and row.get("stopped.step") is None:
            values.setdefault(str(row["cell"]), []).append((float(value), weight_in(row, measure)))
    means = [(cell, sum(x * w for x, w in weighted) / sum(w for _, w in weighted)) for cell, weighted in values.items()]
    return sorted(means, key=lambda pair: worse(measure, pair[1]))

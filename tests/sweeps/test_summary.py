import csv
import json

import pyarrow.parquet as pq
import pytest

from mindseye.results.run_status import RunStatus, write_status
from mindseye.sweeps.manifest import add_cells
from mindseye.sweeps.status import read_sweep
from mindseye.sweeps.summary import ranked, read_rows, write_summary


def metrics(*cosines):
    return {
        "facets": [
            {"facet": c, "fidelity": {"cosine": cosine, "magnitude": None}, "baselines": {"noise": {"retrieval": 0}}}
            for c, cosine in enumerate(cosines)
        ],
        "timing": {"fit_s": 1.5},
    }


@pytest.fixture
def sweep(tmp_path):
    grid = [("k=4", "network=demo"), ("k=8", "network=demo"), ("k=16", "network=resnet18"), ("k=8", "C=9")]
    cells = add_cells(tmp_path, grid, [], "")
    for cell, content in zip(cells, [metrics(0.5, 0.7), metrics(0.9)], strict=False):
        write_status(tmp_path / cell.folder, RunStatus(status="completed"))
        (tmp_path / cell.folder / "metrics.json").write_text(json.dumps(content))
    write_status(tmp_path / cells[2].folder, RunStatus(status="failed", reason="no <such> layer"))
    write_status(tmp_path / cells[3].folder, RunStatus(status="completed"))  # but its metrics.json is gone
    return read_sweep(tmp_path)


def test_a_row_per_cell_and_facet_and_one_for_a_cell_that_failed(sweep):
    rows = read_rows(sweep)
    assert [(row["override.k"], row.get("facet"), row["status"]) for row in rows] == [
        (4, 0, "completed"), (4, 1, "completed"), (8, 0, "completed"),
        (16, None, "failed"), (8, None, "to be continued"),
    ]  # fmt: skip
    assert rows[0]["fidelity.cosine"] == 0.5
    assert rows[1]["path"].endswith("/facets/01")
    assert rows[3]["reason"] == "no <such> layer"
    assert not any(name.startswith("baselines") for row in rows for name in row)


def test_both_files_hold_every_row_and_column(sweep, tmp_path):
    rows = read_rows(sweep)
    text, table = write_summary(tmp_path, rows)
    read = list(csv.DictReader(text.open()))
    stored = pq.read_table(table)
    assert len(read) == stored.num_rows == 5
    assert stored.column_names == list(read[0])
    assert set(stored.column_names) == {name for row in rows for name in row}
    assert stored.column("override.k").to_pylist() == [4, 4, 8, 16, 8]
    assert [float(row["fidelity.cosine"] or "nan") for row in read][:3] == [0.5, 0.7, 0.9]
    names = stored.column_names
    assert names.index("override.C") < names.index("facet") < names.index("fidelity.cosine") < names.index("path")


def test_measures_stand_together_in_the_order_of_their_table(tmp_path):
    names = ["cell", "facet", "transfer.gain", "path.mean", "copy", "mine", "path.layers.a.1", "timing.fit_s", "path"]
    _, table = write_summary(tmp_path, [dict.fromkeys(sorted(names), 1)])
    assert pq.read_table(table).column_names == names


def test_cells_are_ranked_by_the_mean_over_their_facets(sweep):
    rows = read_rows(sweep)
    assert [round(mean, 6) for _, mean in ranked(rows, "fidelity.cosine")] == [0.9, 0.6]
    for row in rows:
        figure = row.get("fidelity.cosine")
        row["naturalness.spectrum"], row["naturalness.tv"] = figure, None if figure is None else 1.8 - figure
    assert [round(mean, 6) for _, mean in ranked(rows, "naturalness.spectrum")] == [0.6, 0.9]  # the smaller is better
    assert [round(mean, 6) for _, mean in ranked(rows, "naturalness.tv")] == [0.9, 1.2]  # the nearer to 1 is better


def test_shares_of_a_way_are_ranked_by_the_ratio_of_mean_differences():
    """Of the mean of the ratios the first cell would be the worse one; those of an earlier run count alike."""
    shares = {"a": [(0.5, 0.4), (-2.0, 0.06)], "b": [(0.1, 0.4), (0.1, 0.06)], "c": [(0.1, None), (-0.3, None)]}
    rows = [
        {"cell": cell, "transfer.gain": gain, "transfer.way": way} for cell, own in shares.items() for gain, way in own
    ]
    assert ranked(rows, "transfer.gain") == [
        ("a", pytest.approx(0.08 / 0.46)), ("b", pytest.approx(0.1)), ("c", pytest.approx(-0.1)),
    ]  # fmt: skip

"""Seeds folded away: means and intervals by hand, and by their promise, that 95 of 100 hold the true mean."""

import csv
import math

import numpy as np
import pytest

from mindseye.commands.report import report
from mindseye.reports.cells import as_csv, fold, mean_and_half, ranked
from mindseye.sweeps.manifest import add_cells


def rows(values):
    """values: {(k, seed): [a value per facet]}"""
    return [
        {"override.k": k, "override.seed": seed, "facet": c, "fidelity.cosine": value}
        for (k, seed), facets in values.items()
        for c, value in enumerate(facets)
    ]


def test_a_cell_is_the_mean_over_seeds_of_the_means_over_facets():
    cells = fold(rows({(1, 0): [0.1, 0.3], (1, 1): [0.4], (2, 0): [0.9]}), ["seed"], ["fidelity.cosine", "copy"])
    first, second = cells
    assert (first.settings, first.seeds) == ({"k": "1"}, 2)
    assert first.means == {"fidelity.cosine": pytest.approx(0.3)}
    assert first.halves["fidelity.cosine"] == pytest.approx(12.7062 * 0.1)  # t of one degree of freedom, s = 0.1414
    assert math.isnan(second.halves["fidelity.cosine"])
    assert [cell.settings["k"] for cell in ranked(cells, "fidelity.cosine")] == ["2", "1"]
    table = list(csv.DictReader(as_csv(cells).splitlines()))
    assert table[1] == {"k": "2", "seeds": "1", "fidelity.cosine": "0.9", "fidelity.cosine.half": ""}


def test_seeds_of_several_settings_are_folded_together():
    """Under the other seeds of the second one a cell would else stand there twice, each with half of its seeds."""
    given = [
        {"override.k": 5, "override.seed": a, "override.mine.seed": b, "facet": 0, "copy": value}
        for (a, b), value in {(0, 0): 0.1, (0, 1): 0.2, (1, 0): 0.3, (1, 1): 0.4}.items()
    ]
    [cell] = fold(given, ["seed", "mine.seed"], ["copy"])
    assert (dict(cell.settings), cell.seeds) == ({"k": "5"}, 4)
    assert (cell.means["copy"], cell.halves["copy"]) == tuple(map(pytest.approx, mean_and_half([0.1, 0.2, 0.3, 0.4])))


def test_stopped_facets_have_no_part_in_it():
    given = rows({(1, 0): [0.5, 0.1]})
    given[1]["stopped.step"] = 3
    [cell] = fold(given, ["seed"], ["fidelity.cosine"])
    assert cell.means == {"fidelity.cosine": 0.5}


def test_shares_of_a_way_count_by_the_way():
    given = [
        {"override.seed": 0, "facet": c, "transfer.gain": gain, "transfer.way": way}
        for c, (gain, way) in enumerate([(0.5, 0.4), (-2.0, 0.06)])
    ]
    [cell] = fold(given, ["seed"], ["transfer.gain"])
    assert cell.means["transfer.gain"] == pytest.approx((0.5 * 0.4 - 2 * 0.06) / 0.46)


def test_the_interval_holds_the_true_mean_95_times_of_100():
    drawn = np.random.default_rng(0).normal(3, 2, (4000, 4))
    inside = [abs(mean - 3) <= half for mean, half in map(mean_and_half, drawn)]
    assert np.mean(inside) == pytest.approx(0.95, abs=0.012)


def test_the_report_tells_cells_over_their_seeds(tmp_path, make_run, capsys):
    words = [(f"k={k}", f"seed={seed}") for k in (5, 9) for seed in (0, 1, 2)]
    for n, cell in enumerate(add_cells(tmp_path, words, [], "")):
        make_run(tmp_path / cell.folder, facets=1, cosine=n / 10, overrides=cell.overrides)
    report([str(tmp_path), "--by", "k", "--measures", "fidelity.cosine"])
    half = 4.30265 * 0.1 / math.sqrt(3)
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if "±" in line and "=" in line]
    assert lines == [["k=9", "0.400", "±", f"{half:.3f}", "3"], ["k=5", "0.100", "±", f"{half:.3f}", "3"]]
    table = list(csv.DictReader((tmp_path / "cells.csv").read_text().splitlines()))
    assert [row["k"] for row in table] == ["9", "5"]
    assert float(table[1]["fidelity.cosine.half"]) == pytest.approx(half, rel=1e-4)

"""Facets from one clustering to the next: overlaps, the assignment, what splits and merges. Every figure by hand."""

import csv
import itertools

import numpy as np
import pytest

from mindseye.commands.report import report
from mindseye.reports.flow import (
    Partition,
    arrange,
    as_csv,
    assign,
    chance,
    kinds,
    overlaps,
    ribbons,
    samples,
    shared_photographs,
    transitions,
)
from mindseye.sweeps.manifest import add_cells


def partition(text, label=""):
    """Photograph i is in the facet that the i-th digit says."""
    labels = np.array([int(digit) for digit in text])
    return Partition(label, [f"p{i}" for i in range(len(text))], labels, int(labels.max()) + 1)


def test_overlap_is_intersection_over_union_of_the_photographs():
    one, other = partition("000011112222"), partition("000122221111")
    shared = shared_photographs(one, other)
    assert shared.tolist() == [[3, 1, 0], [0, 0, 4], [0, 4, 0]]
    expected = [[3 / 4, 1 / 8, 0], [0, 0, 1], [0, 4 / 5, 0]]
    assert overlaps(shared, one.sizes, other.sizes) == pytest.approx(np.array(expected))
    back = overlaps(shared_photographs(other, one), other.sizes, one.sizes)
    assert np.array_equal(back.T, overlaps(shared, one.sizes, other.sizes))


def test_photographs_are_told_by_their_names_alone():
    lonely = partition("0011")
    mixed = Partition("", ["p3", "p1", "p0", "p2"], np.array([1, 0, 0, 1]), 2)
    assert [(r.before, r.after, r.overlap) for r in ribbons(lonely, mixed)] == [(0, 0, 1.0), (1, 1, 1.0)]
    elsewhere = Partition("", ["a", "b"], np.array([0, 1]), 2)
    assert ribbons(lonely, elsewhere) == []
    assert transitions(lonely, elsewhere) == ["no photograph in common"]
    # Photographs that only one of the two looks at, held out by the other's seed say, say nothing of what they share.
    more = Partition("", ["p0", "p1", "x", "y"], np.array([0, 0, 0, 0]), 1)
    assert [(r.shared, r.overlap) for r in ribbons(lonely, more)] == [(2, 1.0)]
    held_out = Partition("", ["p1", "p2", "p3"], np.array([0, 1, 1]), 2)
    assert transitions(lonely, held_out) == ["2 of 2 hold"]


def test_the_assignment_has_the_largest_sum_of_all():
    drawn = np.random.default_rng(0)
    for _ in range(20):
        overlap = drawn.random((4, 5))
        best = max(sum(overlap[i, j] for i, j in enumerate(order)) for order in itertools.permutations(range(5), 4))
        assert sum(overlap[i, j] for i, j in assign(overlap)) == pytest.approx(best)


def test_facets_that_have_nothing_to_do_with_each_other_overlap_by_chance():
    drawn = np.random.default_rng(1)
    names = range(200_000)
    one, other = (Partition("", names, drawn.integers(0, C, len(names)), C) for C in (3, 5))
    overlap = np.mean([ribbon.overlap for ribbon in ribbons(one, other)])
    assert overlap == pytest.approx(chance(3, 5), rel=0.02)


def test_one_kind_of_photographs_has_one_number_whatever_each_run_calls_it():
    first, swapped = partition("000011112222"), partition("222200001111")
    assert kinds([first, swapped]) == [[0, 1, 2], [1, 2, 0]]
    split = partition("000011112233")  # facet 2 of the first is now two, half each
    assert kinds([first, split]) == [[0, 1, 2], [0, 1, 2, 3]]
    scattered = partition("012301230123")  # by chance alone: its facets are kinds of their own
    numbers = kinds([first, scattered])[1]
    assert len(set(numbers)) == 4
    assert kinds([]) == []
    # Facets that are like none of the first are kinds of their own, also beside one another.
    texts = ("00000000001111111111", "00000000001112222222", "00011111112222222222")
    found = kinds([partition(text) for text in texts])
    assert found[0] == [0, 1]
    assert len(set(found[1]) | set(found[2])) == 4


def test_no_two_facets_of_a_run_have_one_number():
    drawn = np.random.default_rng(2)
    many = [
        Partition("", range(60), drawn.permutation(np.arange(60) % C), C) for C in drawn.integers(2, 9, 20).tolist()
    ]
    for partition, numbers in zip(many, kinds(many), strict=True):
        assert len(set(numbers)) == partition.C


def test_what_is_grouped_anew_is_as_many_samples_as_the_coarsest_grouping_has_facets():
    two, again, four = partition("00001111"), partition("11110000"), partition("00112233")
    assert samples([four, two, again]) == [[0, 0, 1, 1], [0, 1], [1, 0]]
    drawn = np.random.default_rng(3)
    many = [Partition("", range(90), drawn.permutation(np.arange(90) % 5), 5) for _ in range(10)]
    assert {number for given in samples(many) for number in given} == set(range(5))
    elsewhere = Partition("", ["a", "b"], np.array([0, 1]), 2)
    more = Partition("", ["p0", "x"], np.array([0, 1]), 2)  # of x no other knows anything
    assert samples([two, elsewhere, more]) == [[0, 1], [2, 3], [0, 4]]
    assert samples([]) == []


def test_a_report_counts_facets_of_several_seeds_as_samples(tmp_path, make_run, keep_facets):
    """Under three seeds other photographs are held out, so that no two facets are of the same: two samples all told."""
    words = [(f"k={k}", f"seed={seed}") for k in (1, 2) for seed in range(3)]
    for cell in add_cells(tmp_path, words, [], ""):
        seed = int(cell.overrides[1].removeprefix("seed="))
        names = [f"p{i:02d}.png" for i in range(10) if i % 3 != seed]
        labels = [(int(name[1:3]) < 5) != (seed == 1) for name in names]
        run = make_run(tmp_path / cell.folder, overrides=cell.overrides)
        keep_facets(run, [int(label) for label in labels], names=names)
    report([str(tmp_path), "--by", "k"])
    rows = list(csv.DictReader((tmp_path / "report.csv").read_text().splitlines()))
    assert {(row["pairs"], row["facets"]) for row in rows if row["difference"]} == {("6", "2")}
    assert "sample" not in {row["measure"] for row in rows}  # which is no measure


def test_splits_merges_and_what_holds():
    one = partition("000000111122223333")
    assert transitions(one, one) == ["4 of 4 hold"]
    assert transitions(one, partition("000444111122223333")) == ["0 splits into 0 and 4", "3 of 4 hold"]
    assert transitions(partition("000444111122223333"), one) == ["0 and 4 merge into 0", "3 of 5 hold"]
    # Facet 2 goes to four others, a quarter each; what is called 2 then is one of its photographs.
    assert transitions(partition("0000001111112222333333"), partition("0000001111110123333333")) == [
        "2 dissolves", "3 of 4 hold"
    ]  # fmt: skip
    # Facet 3 has a third of its photographs from each other one.
    assert transitions(partition("000000111111222222"), partition("000033111133222233")) == ["3 is new", "3 of 3 hold"]


def crossings(partitions, orders):
    count = 0
    for (one, other), (above, below) in zip(itertools.pairwise(partitions), itertools.pairwise(orders), strict=True):
        lines = [(above.index(r.before), below.index(r.after), r.shared) for r in ribbons(one, other)]
        count += sum(m * n for (a, b, m), (c, d, n) in itertools.combinations(lines, 2) if (a - c) * (b - d) < 0)
    return count


def test_the_order_of_facets_crosses_fewer_ribbons():
    partitions = [partition("000111222333"), partition("333222111000"), partition("222333000111")]
    plain = [list(range(4))] * 3
    assert crossings(partitions, plain) > 0
    between = [ribbons(one, other) for one, other in itertools.pairwise(partitions)]
    assert crossings(partitions, arrange([4] * 3, between)) == 0
    lonely = [partition("0011"), partition("01"), partition("10")]  # p2 and p3 are not in the others
    between = [ribbons(one, other) for one, other in itertools.pairwise(lonely)]
    assert arrange([2, 2, 2], between) == [[0, 1], [0, 1], [1, 0]]


def test_the_report_by_a_setting_under_which_facets_change_tells_their_flow(tmp_path, make_run, keep_facets, capsys):
    words = [(f"C={C}", f"k={k}") for C in (10, 9, 2) for k in (1, 2)]
    labels = {"10": [*range(10)] * 2, "9": [*range(9), 0, *range(9), 0], "2": [0] * 5 + [1] * 5 + [0] * 5 + [1] * 5}
    for cell in add_cells(tmp_path, words, [], ""):
        given = labels[cell.overrides[0].removeprefix("C=")]
        keep_facets(make_run(tmp_path / cell.folder, facets=len(set(given)), overrides=cell.overrides), given)
    report([str(tmp_path), "--by", "C"])
    rows = list(csv.DictReader((tmp_path / "flow.csv").read_text().splitlines()))
    # By size, and once for both k, which look at the same facets.
    assert list(dict.fromkeys((row["C.from"], row["C.to"]) for row in rows)) == [("2", "9"), ("9", "10")]
    assert {row["held"] for row in rows} == {"k=1"}
    assert "C 9 → 10 (k=1): 0 splits into 0 and 9; 8 of 9 hold" in capsys.readouterr().out
    with pytest.raises(ValueError, match="--by depth"):
        report([str(tmp_path), "--by", "depth"])


def test_facets_that_differ_in_every_cell_have_a_flow_and_no_differences(tmp_path, make_run, keep_facets, capsys):
    for cell, given in zip(
        add_cells(tmp_path, [("layer=a",), ("layer=b",)], [], ""), ([0, 0, 1, 1], [0, 1, 0, 1]), strict=True
    ):
        keep_facets(make_run(tmp_path / cell.folder, overrides=cell.overrides), given)
    report([str(tmp_path), "--by", "layer"])
    assert capsys.readouterr().out.splitlines() == [
        "layer a → b: 0 splits into 0 and 1; 1 splits into 0 and 1; 0 and 1 merge into 0; 0 and 1 merge into 1; "
        "0 of 2 hold",
        str(tmp_path / "flow.csv"),
    ]
    assert not (tmp_path / "report.csv").exists()


def test_the_csv_holds_every_ribbon_in_full_digits():
    partitions = [partition("0001112", "early"), partition("0011122", "late")]
    rows = list(csv.DictReader(as_csv("layer", [("k=10", partitions)]).splitlines()))
    assert len(rows) == len(ribbons(*partitions))
    first = rows[0]
    assert (first["held"], first["layer.from"], first["layer.to"], first["shared"]) == ("k=10", "early", "late", "2")
    assert float(first["overlap"]) == 2 / 3
    assert (first["photographs.from"], first["photographs.to"], first["assigned"]) == ("3", "2", "1")

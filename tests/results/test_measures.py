"""The one table of measures, held against what a run really gives and what the docs really say."""

from pathlib import Path

import pytest

import mindseye as me
from mindseye.results.measures import MEASURES, RANKED, TAKEN, USUAL, known, numbers, usual, worse

DOCS = (Path(__file__).parents[2] / "docs/metrics.md").read_text()


@pytest.fixture(scope="module")
def figures(network, targets, photographs):
    judge = me.transfer_reference(network, "layer4.0", targets, photographs)
    result = me.visualize(
        network, targets, me.Method(steps=1), me.Running(accelerator="cpu"), transfer=[judge, judge]
    )
    return {name: value for row in result.metrics["facets"] for name, value in row.items() if name != "baselines"}


def test_every_figure_of_a_run_is_in_the_table(figures):
    unknown = [name for name, _ in numbers(figures) if name != "facet" and known(name) is None]
    assert not unknown
    assert set(figures) - set(TAKEN) == set()


def test_every_measure_is_given_by_a_run_or_needs_what_this_one_lacks(figures):
    lacking = {name for name in MEASURES if "forced_choice" in name or name == "transfer.agreement_gain"}
    given = {name for name, _ in numbers(figures)}
    assert set(MEASURES) - given - lacking - {"transfer.gain"} == set()


@pytest.mark.parametrize("name", MEASURES)
def test_every_measure_is_explained(name):
    assert f"`{name}`" in DOCS or name.startswith("fidelity.pooled.")
    assert len(MEASURES[name].about) > 10


def test_what_is_usual_is_the_first_that_every_cell_has():
    assert usual([]) == "fidelity.cosine"
    assert usual([USUAL, USUAL]) == "transfer.gain"
    assert usual([USUAL, USUAL[1:]]) == "transfer.cosine"
    assert usual([USUAL, USUAL[2:]]) == "path.target"
    assert not any(MEASURES[name].falls_with for name in USUAL[:3])  # neither k nor C decides who is first
    assert set(USUAL) <= set(RANKED)


def test_which_way_is_better():
    assert sorted([0.2, 1.8, 0.9], key=lambda value: worse("naturalness.tv", value)) == [0.9, 0.2, 1.8]
    assert sorted([0.2, 1.8, 0.9], key=lambda value: worse("copy", value)) == [0.2, 0.9, 1.8]
    assert sorted([0.2, 1.8, 0.9], key=lambda value: worse("one_s_own", value)) == [1.8, 0.9, 0.2]

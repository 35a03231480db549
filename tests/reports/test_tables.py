"""The table at the end of a run: whole words on a terminal of 80 columns."""

import io
from types import SimpleNamespace

import pytest
from rich.console import Console

from mindseye.reports.tables import closing_table

FIGURES = {
    "fidelity": {"cosine": -0.55, "relative_distance": 0.71, "magnitude": 10.94},
    "selectivity": 0.52,
    "retrieval": 1.0,
    "naturalness": {"tv": 15.45},
    "path": {"mean": -1.67, "layers": {"features.1": -12.5}},
    "copy": 1.25,
    "facets": {"firmness": 0.41, "effective": 5.99, "clarity": 0.77, "redundancy": -0.13},
}
JUDGE = {
    "transfer": {
        "cosine": -0.33, "retrieval": 0.25, "agreement": 0.21, "gain": -0.47, "accuracy": 0.5, "copy": 0.98,
        "forced_choice": 0.61,
    }
}  # fmt: skip


@pytest.mark.parametrize("figures", [FIGURES, FIGURES | JUDGE])
def test_it_fits_a_screen_of_80_columns(figures):
    stopped = {"facet": 2, "stopped": {"step": 120, "why": "the loss is no longer finite"}, **figures}
    marked = {"facet": 11, "marks": "not firm, one photograph, mostly others'", **figures}
    metrics = {"facets": [marked, stopped], "summary": figures, "baselines": {"nearest": figures}}
    screen = io.StringIO()
    run = SimpleNamespace(metrics=metrics, title="net · conv3", subtitle="top 16 of 64 channels")
    Console(file=screen, width=80).print(closing_table(run))
    printed = screen.getvalue()
    assert "…" not in printed
    judged = ["trans-", "agree-", "accu-", "forced", "0.21", "-0.47", "0.61", "0.98"] if "transfer" in figures else []
    facets = ["not firm", "one photograph", "mostly others'", "0.41", "5.99"]
    words = ["fide-", "tivity", "photos", "path", "-1.67", "1.25", *facets, *judged]
    assert max(map(len, printed.splitlines())) <= 80
    assert not [word for word in words if word not in printed]


def test_each_of_several_judges_has_its_table():
    first, second = JUDGE["transfer"] | {"cosine": 0.11}, JUDGE["transfer"] | {"cosine": 0.22}
    figures = FIGURES | {"transfer": {**first, "networks": {"resnet18": first, "b": second}}}
    metrics = {"facets": [{"facet": 0, **figures}], "summary": figures, "baselines": {"nearest": figures}}
    screen = io.StringIO()
    Console(file=screen, width=80).print(closing_table(SimpleNamespace(metrics=metrics, title="net", subtitle="top")))
    first, second = screen.getvalue().split("as resnet18 sees them")[1].split("as b sees them")
    assert first.count("0.11") == second.count("0.22") == 3
    assert "as another network" not in screen.getvalue()

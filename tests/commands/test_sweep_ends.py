"""What a sweep looks at together, and what it compares its cells by: as the cells are set, whatever file sets it."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
from hydra.types import RunMode
from omegaconf import OmegaConf

from mindseye.commands import stages
from mindseye.commands.checking import check
from mindseye.commands.composing import compose
from mindseye.commands.stages import layers_of_the_sweep
from mindseye.commands.sweeping import SweepEnd, say_failures, summarise_sweep
from mindseye.provenance import file_sha256
from mindseye.results.run_status import RunStatus, write_status
from mindseye.sweeps.inputs import INPUTS
from mindseye.sweeps.manifest import add_cells
from mindseye.sweeps.status import read_sweep


def beside(cells, mine, settings, folder, network, monkeypatch):
    """The layers that a cell of overrides `mine` looks at beside its own, which `settings` resolve to."""
    add_cells(folder, cells, [], "")
    hydra = SimpleNamespace(
        mode=RunMode.MULTIRUN, sweep=SimpleNamespace(dir=str(folder)), overrides=SimpleNamespace(task=list(mine))
    )
    monkeypatch.setattr(stages.HydraConfig, "get", lambda: hydra)
    run = replace(check(compose([])), **settings)
    return layers_of_the_sweep(run, SimpleNamespace(network=network, layer=network.resolve(run.layer, run.depth)))


CASES = {
    "an experiment's layer": ([("k=4",), ("k=8",)], {"layer": "layer2.0"}, []),
    "an experiment's depth": ([("k=4",), ("k=8",)], {"depth": "early"}, []),
    "its layer, and depths that it hides": ([("depth=early",), ("depth=middle",)], {"layer": "layer1.0"}, []),
    "swept layers": ([("layer=layer2.0",), ("layer=layer3.0",)], {"layer": "layer2.0"}, ["layer3.0"]),
    "swept depths": ([("depth=early",), ("depth=late",)], {"depth": "early"}, ["layer4.0"]),
    "some that say it and some that do not": ([("k=4",), ("layer=layer3.0",)], {"layer": "layer2.0"}, ["layer3.0"]),
    "this one says it, another does not": ([("layer=layer3.0",), ("k=4",)], {"layer": "layer3.0"}, []),
    "nobody says anything": ([("k=4",), ("k=8",)], {}, []),
}


@pytest.mark.parametrize("case", CASES)
def test_only_layers_that_cells_ask_for_are_looked_at_together(case, network, tmp_path, monkeypatch):
    cells, settings, others = CASES[case]
    assert beside(cells, cells[0], settings, tmp_path, network, monkeypatch) == others


MEASURED = {
    "an experiment's file": (["measure: naturalness.tv\n"] * 2, [("k=4",), ("k=8",)], "naturalness.tv"),
    "the command line": (
        ["measure: selectivity\n"] * 2, [("k=4", "measure=selectivity"), ("k=8", "measure=selectivity")], "selectivity",
    ),
    "one's own measure": (["measure: sharpness\n"] * 2, [("k=4",), ("k=8",)], "sharpness"),
    "each cell another": (
        ["measure: selectivity\n", "measure: diversity\n"], [("measure=selectivity",), ("measure=diversity",)],
        "fidelity.cosine",
    ),
    "nothing": (["measure: null\n"] * 2, [("k=4",), ("k=8",)], "fidelity.cosine"),
    "damaged files": (["[", "{"], [("k=4",), ("k=8",)], "fidelity.cosine"),
}  # fmt: skip


@pytest.mark.parametrize("case", MEASURED)
def test_the_closing_table_is_by_the_measure_of_the_cells(case, make_run, tmp_path, capsys):
    configs, grid, measure = MEASURED[case]
    for cell, config in zip(add_cells(tmp_path, grid, [], ""), configs, strict=True):
        make_run(tmp_path / cell.folder, config=config, overrides=cell.overrides)
    SweepEnd().on_multirun_end(OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}}}))
    [heading] = [line for line in capsys.readouterr().out.splitlines() if "seconds" in line]
    assert heading.split() == ["cell", measure, "seconds"]


@pytest.mark.parametrize("changed", [0, 1, 2])
def test_what_changed_while_a_sweep_ran_is_told_at_its_end(changed, make_run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "best.pth").write_text("of the last training")
    now = file_sha256("best.pth")
    for number, cell in enumerate(add_cells(tmp_path / "sweep", [("k=4",), ("k=8",)], [], "")):
        run = make_run(tmp_path / "sweep" / cell.folder, overrides=cell.overrides)
        metrics = json.loads((run / "metrics.json").read_text())
        inputs = {"files": {"best.pth": "0" * 64 if number < changed else now}, "photographs": None}
        (run / "metrics.json").write_text(json.dumps({**metrics, "provenance": {INPUTS: inputs}}))
    SweepEnd().on_multirun_end(OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path / "sweep")}}}))
    told = capsys.readouterr().err
    expected = f"mindseye: {changed} of 2 completed cells are of what has changed since (best.pth) and stay as they are"
    assert (expected in told) == bool(changed)
    assert ("changed since" in told) == bool(changed)


def test_cells_that_fail_alike_are_said_once(tmp_path, capsys):
    grid = [("images.root=far", f"k={k}") for k in range(1, 12)]
    for cell in add_cells(tmp_path, grid, [], ""):
        reason = "k must be 1 to 4" if "k=11" in cell.overrides else "no memory"
        write_status(tmp_path / cell.folder, RunStatus(status="failed", reason=reason, overrides=cell.overrides))
        (tmp_path / cell.folder / "run.log").touch()
    say_failures(read_sweep(tmp_path))
    alike, named, log, alone, _, left = capsys.readouterr().err.splitlines()
    assert alike == "mindseye: failed, 10 cells alike: no memory"
    assert named.split() == [*" ".join(f"k={k};" for k in range(1, 9)).split(), "and", "2", "more"]
    assert log.endswith("run.log")
    assert alone == "mindseye: failed: images.root=far k=11: k must be 1 to 4"
    assert left.startswith("mindseye: 11 of 11 cells failed")


def test_what_every_swept_value_is_refused_for_is_said_once(tmp_path, capsys):
    for cell in add_cells(tmp_path, [(f"k={k}", f"seed={seed}") for k in (400, 401) for seed in (0, 1)], [], ""):
        reason = f"k must be 1 to 160, not {cell.overrides[0][2:]}"
        write_status(tmp_path / cell.folder, RunStatus(status="failed", reason=reason, overrides=cell.overrides))
    say_failures(read_sweep(tmp_path))
    first, *_ = capsys.readouterr().err.splitlines()
    assert first == "mindseye: failed, 4 cells alike: k must be 1 to 160, not …"


def test_a_single_cell_is_one_cell(make_run, tmp_path, capsys):
    [cell] = add_cells(tmp_path, [("k=4",)], [], "")
    make_run(tmp_path / cell.folder, overrides=cell.overrides)
    summarise_sweep(read_sweep(tmp_path), None)
    assert "1 cell: 1 completed" in capsys.readouterr().out

import json
import multiprocessing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mindseye.sweeps.manifest import Manifest, add_cells, cell_folder, cell_id, layers_beside

GRID = [(f"k={k}", f"C={C}") for k in (4, 8) for C in (2, 3)]


def test_a_cell_is_known_by_its_overrides_in_any_order():
    assert cell_id(["k=4", "C=2"]) == cell_id(["C=2", "k=4"])
    assert cell_id(["k=4", "k=8"]) == cell_id(["k=8"])
    assert len({cell_id(overrides) for overrides in GRID}) == 4


def test_cells_come_back_as_they_were_written(tmp_path):
    cells = add_cells(tmp_path, GRID, ["k=4,8", "C=2,3"], "abc")
    again = Manifest.read(tmp_path)
    assert list(again.cells.values()) == cells
    assert again.commands == [("k=4,8", "C=2,3")]
    assert again.config_sha256 == "abc"
    assert again.created > 0


def test_a_changed_grid_only_adds_cells(tmp_path):
    before = add_cells(tmp_path, GRID, ["k=4,8", "C=2,3"], "abc")
    asked = add_cells(tmp_path, [*GRID[:2], ("k=16", "C=2")], ["k=4,16"], "other")
    after = Manifest.read(tmp_path)
    assert asked[:2] == before[:2]
    assert list(after.cells.values()) == [*before, asked[2]]
    assert len(after.commands) == 2
    assert after.config_sha256 == "abc"


@given(st.lists(st.text(max_size=40), max_size=6))
def test_a_cell_s_folder_is_one_name_below_the_sweep_s(values):
    overrides = [f"key{number}={value}" for number, value in enumerate(values)]
    folder = cell_folder(overrides)
    assert len(folder.encode()) <= 255
    assert Path(folder).name == folder
    assert folder not in (".", "..")
    assert folder.endswith(cell_id(overrides))


def test_a_sweep_is_not_mixed_with_another_folder_s(tmp_path):
    """The same overrides may mean other photographs there."""
    add_cells(tmp_path, GRID, [], "", "/here")
    add_cells(tmp_path, GRID, [], "", "/here")
    with pytest.raises(ValueError, match="was begun in /here"):
        add_cells(tmp_path, GRID, [], "", "/there")
    assert Manifest.read(tmp_path).started_from == "/here"


def test_a_folder_is_named_for_what_varies_and_no_two_cells_share_one(tmp_path):
    cells = add_cells(tmp_path, [("images.root=/a/b", *overrides) for overrides in GRID], [], "")
    assert [cell.folder[:-11] for cell in cells] == ["k=4,C=2", "k=4,C=3", "k=8,C=2", "k=8,C=3"]
    alike = [cell_folder([f"images.root=/{'x' * 300}{end}"]) for end in "ab"]
    assert alike[0] != alike[1]


def add_some(folder, first):
    for k in range(first, first + 10):
        add_cells(folder, [(f"k={k}",)], [f"k={k}"], "")


def test_two_commands_on_one_sweep_lose_no_cell(tmp_path):
    context = multiprocessing.get_context("fork")
    both = [context.Process(target=add_some, args=(tmp_path, first)) for first in (0, 10)]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
    assert len(Manifest.read(tmp_path).cells) == 20


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{", '{"format": 2}', '{"format": 1, "cells": 3}', "null"],
)
def test_a_damaged_manifest_costs_one_line_and_stays(content, tmp_path):
    (tmp_path / "manifest.json").write_text(content)
    for use in (lambda: Manifest.read(tmp_path), lambda: add_cells(tmp_path, GRID, [], "")):
        with pytest.raises(ValueError, match="no readable manifest"):
            use()
    assert (tmp_path / "manifest.json").read_text() == content


@pytest.mark.parametrize("folder", ["../up", "/etc", "..", "a/b"])
def test_no_cell_leaves_the_sweep_s_folder(folder, tmp_path):
    add_cells(tmp_path, GRID, [], "")
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    manifest["cells"][0]["folder"] = folder
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="no folder of a cell"):
        Manifest.read(tmp_path)


def test_layers_looked_at_together_are_those_of_the_same_photographs_and_network(tmp_path):
    add_cells(
        tmp_path,
        [
            ("network=resnet18", "depth=early", "k=4"),
            ("network=resnet18", "depth=early", "k=8"),
            ("network=resnet18", "layer='6.20'", "objective=published"),
            ("network=resnet50", "depth=late"),
            ("network=resnet18", "depth=late", "images.size=64"),
            ("network=resnet18", "depth=late", "seed=1"),
        ],
        [],
        "",
    )
    layers = layers_beside(Manifest.read(tmp_path), ["network=resnet18", "depth=early", "C=3"])
    assert layers == [(None, "early"), ("6.20", None)]

"""A cell that is done is held against what its words mean now: weights, code, settings, photographs, by their bytes."""

import json
import os
import shutil
from pathlib import Path

import pytest
from PIL import Image

from mindseye.facets.content import content_of
from mindseye.facets.photographs import load_photographs
from mindseye.provenance import file_sha256
from mindseye.sweeps import inputs
from mindseye.sweeps.inputs import INPUTS, changed_cells, note_inputs
from mindseye.sweeps.manifest import Cell

CELLS = [Cell("0000000000", "k=4", ("k=4",)), Cell("1111111111", "k=5", ("k=5",))]


@pytest.fixture
def done(tmp_path, monkeypatch):
    """Two completed cells of a network's file and code, one's own settings and four photographs, given relatively."""
    monkeypatch.chdir(tmp_path)
    for name in ("best.pth", "net.py", "judge.pth", "mine.yaml"):
        Path(name).write_text(name)
    for number in range(4):
        Path("shown/a").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (number, 0, 0)).save(f"shown/a/{number}.png")
    Path("shown/broken.png").write_text("no picture")
    write(tmp_path)
    return tmp_path


def write(place, content=True):
    photographs = load_photographs("shown", 8)
    noted = note_inputs(
        {name: file_sha256(name) for name in ("best.pth", "net.py", "judge.pth", "mine.yaml")}, "shown", photographs
    )
    readable = load_photographs("shown/a", 8)
    inputs = {
        "provenance": {
            INPUTS: noted,
            "photographs": {"sha256": content_of(readable).sha256(readable) if content else None},
        },
        "photographs": {"skipped_files": [{"path": "broken.png", "reason": "no picture"}]},
    }
    for cell in CELLS:
        (place / cell.folder).mkdir(exist_ok=True)
        (place / cell.folder / "metrics.json").write_text(json.dumps(inputs))


def changed(place):
    changed = changed_cells(place, CELLS)
    assert not changed or list(changed) == [cell.id for cell in CELLS]
    return changed.get(CELLS[0].id, [])


@pytest.mark.parametrize("content", [True, False])
def test_what_is_as_it_was_has_not_changed(done, content):
    write(done, content)
    assert changed(done) == []


@pytest.mark.parametrize("name", ["best.pth", "net.py", "judge.pth", "mine.yaml"])
def test_files_of_other_bytes_and_missing_ones_have_changed(name, done):
    before = os.stat(name)
    Path(name).write_text(name.upper())  # as long, and
    os.utime(name, ns=(before.st_atime_ns, before.st_mtime_ns))  # no later
    assert changed(done) == [name]
    Path(name).write_text(name)
    assert changed(done) == []
    Path(name).unlink()
    assert changed(done) == [name]


def add(place):
    Image.new("RGB", (8, 8)).save("shown/new.png")


def remove(place):
    Path("shown/a/2.png").unlink()


def repaint(place):
    Image.new("RGB", (8, 8), (200, 0, 0)).save("shown/a/2.png")


def rename(place):
    Path("shown/a/2.png").rename("shown/a/2b.png")


def exchange(place):
    for one, other in (("1", "c"), ("2", "1"), ("c", "2")):
        Path(f"shown/a/{one}.png").rename(f"shown/a/{other}.png")


def take_away(place):
    shutil.rmtree("shown")


@pytest.mark.parametrize("change", [add, remove, repaint, rename, exchange, take_away])
def test_so_have_photographs(change, done):
    change(done)
    assert changed(done) == ["shown"]


def test_copied_or_touched_they_are_the_same(done):
    shutil.copytree("shown", "copy", copy_function=shutil.copyfile)
    shutil.rmtree("shown")
    os.rename("copy", "shown")
    for path in Path("shown").rglob("*.png"):
        os.utime(path, (1, 1))
    Path("shown/notes.txt").write_text("no picture")
    assert changed(done) == []


def test_each_file_and_folder_is_looked_at_once_and_photographs_are_not_read_where_nothing_was_touched(
    done, monkeypatch
):
    asked = []
    monkeypatch.setattr(inputs, "file_sha256", lambda path: asked.append(path) or file_sha256(path))
    monkeypatch.setattr("mindseye.facets.survey.content_of", None)
    assert changed(done) == []
    assert sorted(asked) == ["best.pth", "judge.pth", "mine.yaml", "net.py"]


def test_results_that_say_nothing_of_it_have_not_changed(done):
    """Those of earlier versions, and damaged ones, which the summary names."""
    for content in ("{}", "{", '{"provenance": {}}', "[]", "null"):
        for cell in CELLS:
            (done / cell.folder / "metrics.json").write_text(content)
        assert changed(done) == []
    shutil.rmtree(done / CELLS[0].folder)
    assert changed(done) == []


# What may be written where the inputs are: a folder of cells may be anybody's.
NONSENSE = (
    3, [], "files", {"files": 3}, {"files": []}, {"files": {"a": 3}}, {"photographs": 3}, {"photographs": {}},
    {"photographs": {"root": 3, "names": [], "states": {}}},
)  # fmt: skip


@pytest.mark.parametrize("said", NONSENSE, ids=str)
def test_damaged_inputs_end_nothing(said, done):
    for cell in CELLS:
        (done / cell.folder / "metrics.json").write_text(json.dumps({"provenance": {INPUTS: said}}))
    changed(done)

"""The notebooks run whole, in a directory of their own, and show what they promise."""

import os
import re
from pathlib import Path

import pytest

jupytext = pytest.importorskip("jupytext")
nbclient = pytest.importorskip("nbclient")

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.py"))
# What each shows at the least: drawn figures and files, and results that show themselves with pictures inside.
PROMISED = {"quickstart": (3, 2), "your_own_network": (5, 3), "compare_a_sweep": (6, 0)}


def test_all_are_promised_something():
    assert {path.stem for path in NOTEBOOKS} == {*PROMISED}


@pytest.mark.parametrize("path", [*NOTEBOOKS, FOLDER / "README.md"], ids=lambda path: path.stem)
def test_what_is_installed_is_this_checkout(path):
    assert re.findall(r"pip install (\S+)", path.read_text()) == ["'.[notebooks]'"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_text_is_as_jupytext_writes_it(path):
    """What goes into Jupyter and comes back is the same file, so that a review shows what was changed alone."""
    notebook = jupytext.read(path)
    written = jupytext.writes(notebook, fmt="py:percent")
    # Which jupytext wrote it is no change.
    assert re.sub(r"#       (format|jupytext)_version: .*\n", "", written) == path.read_text()
    assert not [cell for cell in notebook.cells if cell.get("outputs")]


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs_whole_and_shows_its_pictures(path, tmp_path, monkeypatch):
    monkeypatch.delenv("MPLBACKEND", raising=False)  # the suite's: a notebook draws into itself
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # other tests have the other cores, and threads that wait spin
    for name in ("TMPDIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
        (tmp_path / name).mkdir()
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(FOLDER.parent), os.environ.get("PYTHONPATH", "")]))
    empty = tmp_path / "empty"
    empty.mkdir()
    notebook = jupytext.read(path)
    client = nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(empty)}})
    client.execute()  # raises where a cell does
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert not [output for output in outputs if output.output_type == "error"]
    shown = [output.data for output in outputs if "data" in output]
    drawn, results = PROMISED[path.stem]
    assert sum("image/png" in data for data in shown) >= drawn
    assert sum("data:image/png" in data.get("text/html", "") for data in shown) >= results
    assert not [*empty.iterdir()]  # nothing is left beside it

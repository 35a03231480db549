"""`mindseye -m` and `mindseye sweep` through the real command: whole, broken, stopped and killed sweeps."""

import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time

import pyarrow.parquet as pq
import pytest

from mindseye.results.run_folder import read_run
from mindseye.results.run_status import read_status
from mindseye.sweeps.manifest import Manifest, as_written
from mindseye.sweeps.status import read_sweep

COMMAND = [sys.executable, "-m", "mindseye.commands.main"]
SMALL = ["experiment=smoke", "steps=2"]
FILES = ("images.safetensors", "history.parquet", "facets.png", "facets/01/visualization.png", "targets/targets.json")


def environment(place):
    return {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "120", "MINDSEYE_CACHE": str(place / "cache")}


def run(*words, cwd, command=COMMAND):
    return subprocess.run(
        [*command, *words], cwd=cwd, env=environment(cwd), capture_output=True, text=True, timeout=280, check=False
    )


def cells_of(folder):
    """Cell folders by what varies: the part of the name before the id."""
    return {cell.folder[:-11]: folder / cell.folder for cell in Manifest.read(folder).cells.values()}


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    place = tmp_path_factory.mktemp("grid")
    done = run("-m", *SMALL, "k=4,8", "C=2,3", "hydra.sweep.dir=sweep", cwd=place)
    assert done.returncode == 0, done.stderr
    return place, done


def test_every_cell_has_a_folder_of_its_own_and_a_place_in_the_summary(grid):
    place, done = grid
    folder = place / "sweep"
    cells = cells_of(folder)
    assert list(cells) == ["k=4,C=2", "k=4,C=3", "k=8,C=2", "k=8,C=3"]
    assert read_sweep(folder).counts()["completed"] == 4
    table = pq.read_table(folder / "summary.parquet").to_pylist()
    assert len(table) == 2 * (2 + 3)
    assert {(row["override.k"], row["override.C"]) for row in table} == {(4, 2), (4, 3), (8, 2), (8, 3)}
    for name, cell in cells.items():
        found = read_run(cell).metrics
        rows = [row for row in table if row["cell"] == cell.name]
        assert [row["fidelity.cosine"] for row in rows] == [facet["fidelity"]["cosine"] for facet in found["facets"]]
        assert all((folder / row["path"] / "visualization.png").is_file() for row in rows)
        status = read_status(cell)
        assert status.measure == found["summary"]["fidelity"]["cosine"]
        assert f"k={status.overrides[2][2:]}" in name
    assert "4 cells: 4 completed" in done.stdout
    means = [float(found) for found in re.findall(r"^\d +k=\d C=\d +(\d\.\d{4}) ", done.stdout, re.M)]
    assert len(means) == 4
    assert means == sorted(means, reverse=True)


# Who starts it and tells of every network that is made.
WATCHED = """
import sys
from mindseye.commands.main import main
from mindseye.networks.network import Network

made = Network.__init__

def told(*arguments, **settings):
    print("a network is made")
    made(*arguments, **settings)

Network.__init__ = told
main(sys.argv[1:])
"""


def test_a_finished_sweep_costs_nothing_and_a_changed_grid_only_the_new_cells(grid):
    place, _ = grid
    folder = place / "sweep"
    before = {name: (cell / "status.json").stat().st_mtime_ns for name, cell in cells_of(folder).items()}
    again = ["-m", *SMALL, "k=4,8", "C=2,3", "hydra.sweep.dir=sweep"]
    done = run(*again, cwd=place, command=[sys.executable, "-c", WATCHED])
    assert done.returncode == 0, done.stderr
    assert "a network is made" not in done.stdout
    assert "4 of 4 cells are done already" in done.stdout + done.stderr
    words = ["-m", *SMALL, "k=4,16", "C=2", "hydra.sweep.dir=sweep"]
    done = run(*words, cwd=place, command=[sys.executable, "-c", WATCHED])
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("a network is made") == 1
    cells = cells_of(folder)
    assert list(cells) == [*before, "k=16"]
    assert {name: (cells[name] / "status.json").stat().st_mtime_ns for name in before} == before
    assert "5 cells: 5 completed" in done.stdout


KILLER = """
import os
import re
import signal

import torch
from torch import nn


def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 16, 3, 2))


class OutOfMemory(nn.Module):
    def forward(self, images):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")


def hungry():
    return nn.Sequential(nn.Conv2d(3, 8, 3), OutOfMemory(), nn.Conv2d(8, 16, 3, 2))


def killed():
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_3_of_12_cells_fail_each_in_its_own_way_and_the_other_9_are_completed(tmp_path):
    (tmp_path / "nets.py").write_text(KILLER)
    (tmp_path / "no_images").mkdir()
    network = ["network=callable", "network.mean=[0.5,0.5,0.5]", "network.std=[0.2,0.2,0.2]", "hydra.sweep.dir=sweep"]
    # An unknown layer, a network that has no memory left, a folder without images: three cells of twelve.
    for words in (
        ["network.target=nets.py:build", "layer=0,2", "k=2,4", "C=2,3", "seed=0,1"],
        ["network.target=nets.py:build", "layer=9"],
        ["network.target=nets.py:hungry", "layer=2"],
        ["network.target=nets.py:build", "layer=2", "images.root=no_images"],
        ["network.target=nets.py:build", "layer=0", "k=3"],
    ):
        chosen = words if len(words) < 4 else [word.replace("seed=0,1", "seed=0") for word in words]
        done = run("-m", *SMALL, *network, *chosen, cwd=tmp_path)
    found = read_sweep(tmp_path / "sweep")
    assert found.counts() == {"waiting": 0, "running": 0, "completed": 9, "failed": 3, "to be continued": 0}
    assert done.returncode == 1
    reasons = {status.reason for _, status in found.of("failed")}
    for said in ("there is no layer '9'", "CUDA out of memory", "no images under images.root=no_images"):
        assert any(said in reason for reason in reasons), reasons
        assert said in done.stderr
    assert done.stderr.count("mindseye: failed: ") == 3
    assert "--failed tries them again" in done.stderr
    for cell, status in found.of("failed"):
        assert f"mindseye: failed: {as_written(' '.join(cell.overrides))}: {status.reason}" in done.stderr
        assert "Traceback" in (tmp_path / "sweep" / cell.folder / "run.log").read_text()
    rows = pq.read_table(tmp_path / "sweep" / "summary.parquet").to_pylist()
    assert sum(row["status"] == "failed" for row in rows) == 3
    # What was wrong is mended: asked for, the failed cells alone are run again.
    (tmp_path / "nets.py").write_text(KILLER.replace("OutOfMemory(), nn", "nn.ReLU(), nn"))
    again = run("sweep", "resume", "sweep", cwd=tmp_path)
    assert again.returncode == 1
    assert read_sweep(tmp_path / "sweep").count("failed") == 3
    again = run("sweep", "resume", "sweep", "--failed", cwd=tmp_path)
    assert again.returncode == 1
    assert read_sweep(tmp_path / "sweep").counts()["completed"] == 10


def wait_for(folder, ready, process, seconds=120):
    deadline = time.monotonic() + seconds
    while not ready():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


LONG = ["experiment=smoke", "steps=400", "snapshots=100", "objective.gain=1,2"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    place = tmp_path_factory.mktemp("undisturbed")
    done = run("-m", *LONG, "hydra.sweep.dir=sweep", cwd=place)
    assert done.returncode == 0, done.stderr
    return place / "sweep"


@pytest.mark.parametrize(("number", "code"), [("SIGTERM", 75), ("SIGUSR1", 75), ("SIGINT", 130), ("SIGKILL", -9)])
def test_a_sweep_that_is_stopped_goes_on_where_it_was_to_the_same_bytes(number, code, undisturbed, tmp_path):
    words = ["-m", *LONG, "hydra.sweep.dir=sweep", "checkpoint=1"]
    begun = subprocess.Popen(
        [*COMMAND, *words], cwd=tmp_path, env=environment(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    folder = tmp_path / "sweep"

    def in_the_second_fit():
        if not (folder / "manifest.json").exists():
            return False
        second = list(cells_of(folder).values())[1]
        return (read_status(second).step or 0) > 20 and (number != "SIGKILL" or (second / "checkpoint").exists())

    wait_for(folder, in_the_second_fit, begun)
    begun.send_signal(getattr(signal, number))
    _, errors = begun.communicate(timeout=10)  # it saves its state and ends within that
    assert begun.returncode == code, errors
    found = read_sweep(folder)
    assert found.counts() == {"waiting": 0, "running": 0, "completed": 1, "failed": 0, "to be continued": 1}
    shown = run("sweep", "status", "sweep", cwd=tmp_path).stdout
    assert "1 completed" in shown
    assert "1 to be continued" in shown
    if number != "SIGKILL":
        assert f"mindseye sweep resume {folder} goes on" in errors
    [(cell, before)] = found.of("to be continued")
    resumed = run("sweep", "resume", "sweep", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert read_status(folder / cell.folder).tries == 2
    assert "goes on after step" in (folder / cell.folder / "run.log").read_text()
    for mine, theirs in zip(cells_of(folder).values(), cells_of(undisturbed).values(), strict=True):
        for name in FILES:
            if name != "targets/targets.json":
                assert (mine / name).read_bytes() == (theirs / name).read_bytes(), name
        steps = sorted(path.name for path in (mine / "facets/00/steps").iterdir())
        assert steps == sorted(path.name for path in (theirs / "facets/00/steps").iterdir())
        told, other = (json.loads((one / "metrics.json").read_text()) for one in (mine, theirs))
        assert told["facets"] == other["facets"]
        assert not (mine / "checkpoint").exists()


COUNTED = """
import sys, torch
from mindseye.networks.preparing import PreparedNetwork
from mindseye.facets import survey
from mindseye.commands.main import main

real = survey.to_unit

def counted(images, device):
    with open("seen", "a") as file:
        print(len(images), file=file)
    return real(images, device)

survey.to_unit = counted
main(sys.argv[1:])
"""


def test_a_sweep_over_four_layers_reads_the_photographs_once(tmp_path):
    words = ["layer=layer1.0,layer2.0,layer3.0.conv1,layer4.0", "k=4,8", "hydra.sweep.dir=sweep"]
    done = run("-m", *SMALL, *words, cwd=tmp_path, command=[sys.executable, "-c", COUNTED])
    assert done.returncode == 0, done.stderr
    assert sum(map(int, (tmp_path / "seen").read_text().split())) == 24
    assert read_sweep(tmp_path / "sweep").counts()["completed"] == 8


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sweep", "status", "nowhere"], "holds no sweep"),
        (["sweep", "resume", "nowhere"], "holds no sweep"),
        (["sweep", "resume", "nowhere", "k=4"], "only hydra"),
        (["-m", "k=4,kk"], "a whole number"),
        (["measure=fidelity"], "fidelity.cosine"),
        (["measure=transfer.cosine"], "transfer=NETWORK"),
    ],
)
def test_what_is_wrong_costs_one_line(words, message, tmp_path):
    done = run(*words, cwd=tmp_path)
    assert done.returncode == 1
    [line] = done.stderr.strip().splitlines()
    assert line.startswith("mindseye: ")
    assert message in line


def write_cells(folder, count):
    """A sweep of so many completed cells, their computation alone left out."""
    from mindseye.results.run_status import RunStatus, write_status
    from mindseye.sweeps.manifest import add_cells

    facets = [{"facet": c, "fidelity": {"cosine": 0.9}, "retrieval": 1.0} for c in range(4)]
    axes = itertools.product(range(1, 11), range(1, 11), range(10))
    grid = [(*SMALL, f"k={k}", f"C={C}", f"seed={seed}") for k, C, seed in axes]
    words = [*SMALL, "k=range(1,11)", "C=range(1,11)", "seed=range(10)"]
    for cell in add_cells(folder, grid[:count], words, ""):
        write_status(folder / cell.folder, RunStatus(status="completed", seconds=60, overrides=cell.overrides))
        (folder / cell.folder / "metrics.json").write_text(json.dumps({"facets": facets, "timing": {"fit_s": 1.0}}))
    return folder


@pytest.mark.slow
def test_a_thousand_cells_are_shown_and_resumed_in_seconds_and_no_more_memory(tmp_path):
    peak = {}
    for count in (10, 1000):
        folder = write_cells(tmp_path / str(count), count)
        for verb in ("status", "resume"):
            script = (
                "import resource, sys\nfrom mindseye.commands.main import main\ntry:\n    main(sys.argv[1:])\n"
                "finally:\n    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
            )
            began = time.monotonic()
            done = run("sweep", verb, str(folder), cwd=tmp_path, command=[sys.executable, "-c", script])
            seconds = time.monotonic() - began
            assert done.returncode == 0, done.stderr
            assert f"{count} completed" in done.stdout
            assert seconds < 3
            peak[verb, count] = int(done.stdout.split()[-1])
    for verb in ("status", "resume"):
        assert peak[verb, 1000] < 1.2 * peak[verb, 10] + 20_000  # KiB


def test_a_killed_process_does_not_take_its_neighbours_with_it(tmp_path):
    """joblib gives up all jobs where one is killed; the sweep goes on with the others."""
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    (tmp_path / "nets.py").write_text(KILLER)
    done = run(
        "-m", *SMALL, "network=callable", "network.mean=[0.5,0.5,0.5]", "network.std=[0.2,0.2,0.2]", "layer=2", "k=2,3",
        "network.target=nets.py:build,nets.py:killed", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2",
        "hydra.sweep.dir=sweep", cwd=tmp_path,
    )  # fmt: skip
    found = read_sweep(tmp_path / "sweep")
    assert found.counts() == {"waiting": 0, "running": 0, "completed": 2, "failed": 2, "to be continued": 0}, done.stderr
    assert done.returncode == 1
    for cell, status in found.of("failed"):
        assert "network.target=nets.py:killed" in map(as_written, cell.overrides)
        assert "its process died" in status.reason

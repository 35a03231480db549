"""`mindseye -m` and `mindseye sweep` through the real command: whole, broken, stopped and killed sweeps."""

import itertools
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time

import pyarrow.parquet as pq
import pytest
import warm

from mindseye.results.run_folder import read_run
from mindseye.results.run_status import read_status
from mindseye.sweeps.manifest import Manifest, as_written
from mindseye.sweeps.status import read_sweep

COMMAND = [sys.executable, "-m", "mindseye.commands.main"]
SMALL = ["experiment=smoke", "steps=2"]
BYTES = (".safetensors", ".parquet", ".png", ".webp")


def environment(place):
    return {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "120", "MINDSEYE_CACHE": str(place / "cache")}


def run(*words, cwd, program=None):
    """The real command, or a Python program around it."""
    how = COMMAND[1:] if program is None else ("-c", program)
    return warm.python(*how, *words, cwd=cwd, env=environment(cwd), timeout=280)


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
        metrics = read_run(cell).metrics
        rows = [row for row in table if row["cell"] == cell.name]
        assert [row["fidelity.cosine"] for row in rows] == [facet["fidelity"]["cosine"] for facet in metrics["facets"]]
        assert all((folder / row["path"] / "visualization.png").is_file() for row in rows)
        status = read_status(cell)
        assert status.measure == metrics["summary"]["path"]["target"]
        assert f"k={status.overrides[2][2:]}" in name
    assert "4 cells: 4 completed" in done.stdout
    assert f"{folder}/gallery.html" in done.stdout
    assert all((place / "gallery.html").is_file() for place in (folder, *cells.values()))
    means = [float(mean) for mean in re.findall(r"^\d +k=\d C=\d +(\d\.\d{4}) ", done.stdout, re.M)]
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
    done = run(*again, cwd=place, program=WATCHED)
    assert done.returncode == 0, done.stderr
    assert "a network is made" not in done.stdout
    assert "4 of 4 cells are done already" in done.stdout + done.stderr
    words = ["-m", *SMALL, "k=4,16", "C=2", "hydra.sweep.dir=sweep"]
    done = run(*words, cwd=place, program=WATCHED)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("a network is made") == 1
    cells = cells_of(folder)
    assert list(cells) == [*before, "k=16"]
    assert {name: (cells[name] / "status.json").stat().st_mtime_ns for name in before} == before
    assert "5 cells: 5 completed" in done.stdout


NETS = """
import os
import shutil
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

CASE = """# @package _global_
defaults:
  - smoke
  - override /network: callable
network: {target: "nets.py:build", mean: [0.5, 0.5, 0.5], std: [0.2, 0.2, 0.2]}
layer: "2"
"""
WRONG = {  # an unknown layer, no memory left, a folder without images
    "layer": (CASE.replace('"2"', '"9"'), "there is no layer '9'"),
    "memory": (CASE.replace("build", "hungry"), "CUDA out of memory"),
    "images": (CASE + "images: {root: no_images}\n", "no images under no_images"),
}


@pytest.fixture
def nets(tmp_path):
    """A folder with a network to import, an empty one, and experiments of one's own: one right, three wrong."""
    (tmp_path / "nets.py").write_text(NETS)
    (tmp_path / "no_images").mkdir()
    experiments = tmp_path / "mine" / "experiment"
    experiments.mkdir(parents=True)
    for name, content in {"right": CASE, **{name: content for name, (content, _) in WRONG.items()}}.items():
        (experiments / f"{name}.yaml").write_text(content)
    return tmp_path


def test_3_of_5_cells_fail_each_in_its_own_way_and_the_other_2_are_completed(nets):
    for words in (["experiment=right", "k=2,3", "C=2"], ["experiment=layer,memory,images", "k=2"]):
        done = run("--config-dir", "mine", "-m", "steps=1", *words, "hydra.sweep.dir=sweep", cwd=nets)
    folder = nets / "sweep"
    sweep = read_sweep(folder)
    assert sweep.counts() == {"waiting": 0, "running": 0, "completed": 2, "failed": 3, "to be continued": 0}
    assert done.returncode == 1
    assert done.stderr.count("mindseye: failed: ") == 3
    assert "--failed tries them again" in done.stderr
    for cell, status in sweep.of("failed"):
        reason = WRONG[cell.overrides[1].partition("=")[2]][1]
        assert reason in status.reason
        assert f"mindseye: failed: {as_written(' '.join(cell.overrides))}: {status.reason}" in done.stderr
        assert "Traceback" in (folder / cell.folder / "run.log").read_text()
    rows = pq.read_table(folder / "summary.parquet").to_pylist()
    assert sum(row["status"] == "failed" for row in rows) == 3
    # What was wrong with one of them is mended: asked for, the failed cells alone are run again.
    (nets / "nets.py").write_text(NETS.replace("OutOfMemory(), nn", "nn.ReLU(), nn"))
    before = {cell.id: status.started for cell, status in sweep.of("completed")}
    (folder / "summary.csv").unlink()
    (folder / "summary.csv").mkdir()  # what failed is said, and the code right, also where no summary can be written
    again = run("sweep", "resume", "sweep", "--failed", "hydra/launcher=basic", cwd=nets)
    assert again.returncode == 1
    assert "could not be written" in again.stderr
    assert again.stderr.count("mindseye: failed: ") == 2
    after = read_sweep(folder)
    assert after.counts() == {"waiting": 0, "running": 0, "completed": 3, "failed": 2, "to be continued": 0}
    assert {cell.id: status.started for cell, status in after.of("completed") if cell.id in before} == before


def wait_for(ready, process, seconds=120):
    deadline = time.monotonic() + seconds
    while not ready():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


LONG = ["experiment=smoke", "steps=2,1500", "snapshots=100", "hydra.sweep.dir=sweep"]


@pytest.mark.long
def test_a_sweep_that_is_stopped_again_and_again_goes_on_where_it_was_to_the_same_bytes(tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    done = run("-m", *LONG, cwd=whole)
    assert done.returncode == 0, done.stderr
    folder = broken / "sweep"
    words = ["-m", *LONG, "checkpoint=1"]

    def step():
        cells = list(cells_of(folder).values()) if (folder / "manifest.json").exists() else []
        return (read_status(cells[1]).step or 0) if len(cells) == 2 else 0

    def kept():
        return list(folder.glob("*/checkpoint/fit-0-of-1.safetensors"))

    for tries, (number, code) in enumerate((("SIGTERM", 75), ("SIGUSR1", 75), ("SIGINT", 130), ("SIGKILL", -9)), 1):
        before = step()
        begun = subprocess.Popen(
            [*COMMAND, *words], cwd=broken, env=environment(broken), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        wait_for(lambda: step() > before + 20 and (number != "SIGKILL" or kept()), begun)  # noqa: B023
        began = time.monotonic()
        for _ in range(1 if number == "SIGINT" else 3):  # schedulers send some twice
            begun.send_signal(getattr(signal, number))
            time.sleep(0.01)
        _, errors = begun.communicate(timeout=60)
        assert time.monotonic() - began < 10  # its state is saved within that
        assert begun.returncode == code, errors
        sweep = read_sweep(folder)
        assert sweep.counts() == {"waiting": 0, "running": 0, "completed": 1, "failed": 0, "to be continued": 1}
        [(cell, status)] = sweep.of("to be continued")
        assert status.tries == tries
        assert number == "SIGKILL" or f"mindseye sweep resume {folder} goes on" in errors
        words = ["sweep", "resume", "sweep"]
    resumed = run(*words, cwd=broken)
    assert resumed.returncode == 0, resumed.stderr
    assert read_status(folder / cell.folder).tries == 5
    assert (folder / cell.folder / "run.log").read_text().count("the fit goes on after step") == 4
    for mine, theirs in zip(cells_of(folder).values(), cells_of(whole / "sweep").values(), strict=True):
        files = sorted(path.relative_to(theirs) for path in theirs.rglob("*") if path.suffix in BYTES)
        assert files == sorted(path.relative_to(mine) for path in mine.rglob("*") if path.suffix in BYTES)
        for name in files:
            assert (mine / name).read_bytes() == (theirs / name).read_bytes(), name
        told, other = (json.loads((run / "metrics.json").read_text()) for run in (mine, theirs))
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
    words = ["layer=layer1.0,layer2.0,layer3.0.conv1,layer4.0", "k=4", "hydra.sweep.dir=sweep"]
    done = run("-m", *SMALL, *words, cwd=tmp_path, program=COUNTED)
    assert done.returncode == 0, done.stderr
    assert sum(map(int, (tmp_path / "seen").read_text().split())) == 24
    assert read_sweep(tmp_path / "sweep").counts()["completed"] == 4


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sweep", "status", "nowhere"], "holds no sweep"),
        (["sweep", "resume", "nowhere"], "holds no sweep"),
        (["sweep", "resume", "nowhere", "k=4"], "only hydra.… and logger can be changed"),
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


def test_cells_of_unlike_k_are_ranked_by_what_k_does_not_decide(tmp_path):
    from mindseye.commands.sweeping import pick_measure, remarks
    from mindseye.sweeps.status import SweepStatus

    def rows(*measures, **overrides):
        given = {f"override.{key}": values for key, values in overrides.items()}
        return [
            {"cell": f"cell {n}", "facet": 0, **{key: values[n] for key, values in given.items()}}
            | dict.fromkeys(measures, 0.5)
            for n in range(2)
        ]

    none = SweepStatus(tmp_path, ())
    judged = rows("transfer.gain", "transfer.cosine", "path.target", "fidelity.cosine", "selectivity", k=[4, 16])
    assert pick_measure(judged, None) == "transfer.gain"
    assert remarks(none, judged, "transfer.gain") == []
    [line] = remarks(none, judged, "fidelity.cosine")
    assert line == "fidelity.cosine depends on k whatever is drawn: compare cells of one k, or by measure=transfer.gain"
    assert pick_measure(rows("path.target", "fidelity.cosine", k=[4, 16]), None) == "path.target"
    assert remarks(none, rows("path.target", "fidelity.cosine", k=[4, 4]), "fidelity.cosine") == []
    alone = rows("fidelity.cosine", k=[4, 16])  # of one facet
    assert pick_measure(alone, None) == "fidelity.cosine"
    assert remarks(none, alone, "fidelity.cosine")[0].endswith("compare cells of one k")
    assert remarks(none, rows("retrieval", C=[2, 4]), "retrieval")[0].startswith("retrieval depends on C")


def test_a_ranking_by_means_over_other_layers_is_told(tmp_path):
    from mindseye.commands.sweeping import remarks
    from mindseye.sweeps.status import SweepStatus

    rows = [
        {"cell": str(n), "facet": 0, "path.mean": 0.5, **{f"path.layers.{layer}": 0.5 for layer in layers}}
        for n, layers in enumerate(("ab", "ab", "abc"))
    ]
    none = SweepStatus(tmp_path, ())
    assert remarks(none, rows[:2], "path.mean") == []
    assert remarks(none, rows, "path.target") == []
    assert remarks(none, rows, "path.mean") == [
        "path.mean is of other layers in some cells: compare cells of the same, or by measure=path.target"
    ]


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
    peak, seconds = {}, {}
    for count in (10, 1000):
        folder = write_cells(tmp_path / str(count), count)
        for verb in ("status", "resume"):
            script = (
                "import resource, sys\nfrom mindseye.commands.main import main\ntry:\n    main(sys.argv[1:])\n"
                "finally:\n    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
            )
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            done = subprocess.run(
                [sys.executable, "-c", script, "sweep", verb, str(folder)],
                cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True, timeout=60, check=False,
            )  # fmt: skip
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            seconds[verb, count] = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            assert done.returncode == 0, done.stderr
            assert f"{count} completed" in done.stdout
            peak[verb, count] = int(done.stdout.split()[-1])
    for verb in ("status", "resume"):
        assert seconds[verb, 1000] < 4 * seconds[verb, 10]  # mostly imports: no machine's speed decides
        assert peak[verb, 1000] < 1.2 * peak[verb, 10] + 20_000  # KiB


@pytest.mark.long
def test_a_killed_process_does_not_take_its_neighbours_with_it(nets):
    """joblib gives up all jobs where one is killed; the sweep goes on with the others."""
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    words = ["-m", "experiment=right", "steps=1", "k=2,3", "network.target=nets.py:build,nets.py:killed"]
    words += ["C=3", "trainer.devices=2", "trainer.accelerator=cpu"]  # processes of a worker's own
    launcher = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "hydra.sweep.dir=sweep"]
    done = run("--config-dir", "mine", *words, *launcher, cwd=nets)
    sweep = read_sweep(nets / "sweep")
    assert sweep.counts() == {"waiting": 0, "running": 0, "completed": 2, "failed": 2, "to be continued": 0}
    assert done.returncode == 1
    for cell, status in sweep.of("failed"):
        assert "network.target=nets.py:killed" in map(as_written, cell.overrides)
        assert "its process died" in status.reason


@pytest.mark.slow
def test_a_sweep_in_several_processes_is_stopped_as_a_whole_and_leaves_no_orphans(tmp_path):
    words = ["-m", "experiment=smoke", "steps=5000", "k=4,6,8", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    begun = subprocess.Popen(
        [*COMMAND, *words, "hydra.sweep.dir=sweep"], cwd=tmp_path, env=environment(tmp_path), stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    folder = tmp_path / "sweep"

    def both():
        running = read_sweep(folder).of("running") if (folder / "manifest.json").exists() else []
        return [status for _, status in running if (status.step or 0) > 20]

    wait_for(lambda: len(both()) == 2, begun)
    at_work = both()
    begun.send_signal(signal.SIGTERM)
    _, errors = begun.communicate(timeout=60)
    assert begun.returncode == 75, errors
    assert f"mindseye sweep resume {folder} goes on" in errors
    assert len(list(folder.glob("*/checkpoint/fit-0-of-1.safetensors"))) == 2
    assert read_sweep(folder).count("running") == 0
    for status in at_work:
        with pytest.raises(ProcessLookupError):
            os.kill(status.pid, 0)


NETWORK = """
import torch
from torch import nn

def build():
    return nn.Sequential(nn.Conv2d(3, 16, 3, stride=2), nn.ReLU(), nn.Conv2d(16, 16, 3))
"""


def train(place, seed):
    """A weights file of another content under the same name."""
    program = f"import torch, own; torch.manual_seed({seed}); torch.save(own.build().state_dict(), 'best.pth')"
    done = warm.python("-c", program, cwd=place, env=environment(place), timeout=60)
    assert done.returncode == 0, done.stderr


def test_cells_of_what_has_changed_since_are_told_and_drawn_anew_when_asked(tmp_path, photograph_folder):
    shutil.copytree(photograph_folder, tmp_path / "shown")
    (tmp_path / "own.py").write_text(NETWORK)
    settings = tmp_path / "mine" / "length" / "short.yaml"
    settings.parent.mkdir(parents=True)
    settings.write_text("# @package _global_\nsteps: 2\n")
    train(tmp_path, 1)
    words = [
        "--config-dir=mine", "-m", "network=callable", "network.target=own.py:build", "network.mean=[0.5,0.5,0.5]",
        "network.std=[0.2,0.2,0.2]", "network.weights=best.pth", "layer='2'", "images.root=shown", "images.size=32",
        "C=2", "facets.N=3", "length=short", "hydra.sweep.dir=sweep",
    ]  # fmt: skip

    def pictures():
        return [(cell / "images.safetensors").read_bytes() for cell in cells_of(tmp_path / "sweep").values()]

    def asked(*more):
        done = run(*more, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return " ".join(done.stderr.split())

    assert "changed since" not in asked(*words, "k=4,5")
    first = pictures()
    train(tmp_path, 2)
    told = asked(*words, "k=4,5,6")
    assert "2 of 2 completed cells are of what has changed since (best.pth) and stay as they are" in told
    assert f"mindseye sweep resume {tmp_path}/sweep --changed draws them anew" in told
    second = pictures()
    assert second[:2] == first
    told = asked("sweep", "resume", "sweep", "--changed")
    assert "2 of 3 completed cells are of what has changed since (best.pth): they are drawn anew" in told
    third = pictures()
    assert [one == other for one, other in zip(second, third, strict=True)] == [False, False, True]
    (tmp_path / "own.py").write_text(NETWORK.replace("ReLU", "Sigmoid"))
    settings.write_text("# @package _global_\nsteps: 3\n")
    min((tmp_path / "shown").glob("*.png")).unlink()
    told = asked(*words, "k=4,5,6")
    assert f"3 of 3 completed cells are of what has changed since (own.py, {settings}, shown)" in told
    assert pictures() == third

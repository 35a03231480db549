"""A running array on a real Slurm: one cell is asked to go, one is requeued, one is killed; the bytes are the same."""

import json
import os
import subprocess
import time
from pathlib import Path

import pytest

from cluster.nodes import Node, eventually, mindseye_command
from mindseye.results.run_folder import read_run
from mindseye.sweeps.manifest import Cell, Manifest

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

# Long enough to be met in the middle; the state is saved every second, for the cell that is killed without a warning.
SWEEP = ["-m", "experiment=smoke", "steps=600", "snapshots=100", "checkpoint=1", "k=4,6,8", "C=2,3"]
WITHIN_S = 10  # of a signal, all that is needed to go on is on disk


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Path:
    """The same six cells without Slurm, in as many threads."""
    place = tmp_path_factory.mktemp("undisturbed")
    done = subprocess.run(
        mindseye_command(*SWEEP, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "hydra.sweep.dir=sweep"),
        cwd=place, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return place / "sweep"


def said(folder: Path) -> dict:
    """What a cell's status.json says, word for word; whether its process lives is asked inside the node alone."""
    try:
        return json.loads((folder / "status.json").read_text())
    except FileNotFoundError:
        return {"status": "waiting", "step": None}


def drawing(folder: Path) -> bool:
    """Whether the cell is in its fit, a tenth of the steps behind it."""
    status = said(folder)
    return status["status"] == "running" and (status["step"] or 0) >= 60


def saved_since(folder: Path, moment: float) -> bool:
    """Whether the cell has put its state on disk after a moment."""
    return any(file.stat().st_mtime > moment for file in (folder / "checkpoint").glob("fit-*"))


def stopped_within(folder: Path, seconds: float) -> float:
    """Wait until the cell is to be continued, with its state on disk; how long that took."""
    begun = time.monotonic()
    eventually(lambda: said(folder)["status"] == "to be continued", timeout=seconds, every=0.05)
    assert list((folder / "checkpoint").glob("fit-*.safetensors"))
    return time.monotonic() - begun


def state(slurm: Node, job: str) -> str:
    """Slurm's word for a job: PENDING, RUNNING, ...; nothing where it is none any more."""
    return slurm.run("squeue", "--noheader", "--array", "--jobs", job, "--format=%T").stdout.strip()


def start_at_once(slurm: Node, job: str) -> None:
    """Without the two minutes that Slurm lets a requeued job wait."""
    eventually(lambda: state(slurm, job) == "PENDING", timeout=40)
    done = slurm.run("scontrol", "update", f"jobid={job}", "starttime=now")
    assert done.returncode == 0, done.stderr


@pytest.mark.timeout(600)
def test_preempted_requeued_and_killed_cells_come_to_the_same_bytes(slurm, undisturbed, tmp_path):
    folder = tmp_path / "sweep"
    on_slurm = ["hydra/launcher=slurm", "hydra.launcher.partition=debug", f"hydra.sweep.dir={folder}"]
    sweep = slurm.start(*mindseye_command(*SWEEP, *on_slurm), cwd=tmp_path)
    try:
        submitted = eventually(lambda: list(folder.glob(".submitit/*/*_submission.sh")), timeout=60)
        array = submitted[0].name.split("_")[0]
        cells: list[Cell] = list(Manifest.read(folder).cells.values())
        assert len(cells) == 6
        asked, requeued, killed = (folder / cell.folder for cell in cells[:3])

        # A preemption as submitit knows it, and the warning before the time is over.
        eventually(lambda: drawing(asked), timeout=90)
        # To the job's step: to a whole job of an array Slurm 22.05 gives it, says that it could not, and does so again.
        assert slurm.run("scancel", "--signal=USR2", f"{array}_0.0").returncode == 0
        assert stopped_within(asked, WITHIN_S) < WITHIN_S
        assert "SIGUSR2" in said(asked)["reason"]

        # An administrator, or Slurm's own preemption: TERM, and KILL when KillWait is over. At once, while it draws:
        # nothing waits for the scheduler before all three are stopped.
        eventually(lambda: drawing(requeued), timeout=90)
        assert slurm.run("scontrol", "requeue", f"{array}_1").returncode == 0
        assert stopped_within(requeued, WITHIN_S) < WITHIN_S
        assert "SIGTERM" in said(requeued)["reason"]

        # No memory left, say: nobody is asked.
        eventually(lambda: drawing(killed), timeout=120)
        moment = time.time()
        eventually(lambda: saved_since(killed, moment), timeout=20, every=0.02)
        assert slurm.run("scancel", "--signal=KILL", f"{array}_2.0").returncode == 0
        table = slurm.mindseye("sweep", "status", str(folder), cwd=tmp_path).stdout
        assert "6 cells:" in table
        assert "to be continued" in table
        for number in (0, 1):
            start_at_once(slurm, f"{array}_{number}")
    finally:
        done = slurm.finish(sweep, timeout=240)

    assert done.returncode == 1, done.stderr
    assert f"Slurm job {array}_2 ended without a result" in done.stderr
    assert f"mindseye sweep resume {folder} --failed tries them again" in done.stderr
    states = {cell.folder: said(folder / cell.folder) for cell in cells}
    assert [states[cell.folder]["status"] for cell in cells] == ["completed"] * 2 + ["failed"] + ["completed"] * 3
    assert [states[cell.folder]["tries"] for cell in cells if cell is not cells[2]] == [2, 2, 1, 1, 1]
    table = slurm.mindseye("sweep", "status", str(folder), cwd=tmp_path).stdout
    assert "5 completed" in table
    assert "1 failed" in table

    resumed = slurm.mindseye("sweep", "resume", str(folder), "--failed", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert "6 cells: 6 completed" in resumed.stdout
    for cell in cells:
        run, expected = read_run(folder / cell.folder), read_run(undisturbed / cell.folder)
        for file in ("images.safetensors", "facets.png", "facets/00/steps/0100.webp", "facets/01/steps/0600.webp"):
            assert (run.folder / file).read_bytes() == (expected.folder / file).read_bytes(), (cell.folder, file)
        assert run.history == expected.history
        assert not (run.folder / "checkpoint").exists()
    # They went on in the middle: what is logged at a tenth of the steps is there once.
    for stopped in (asked, requeued, killed):
        assert (stopped / "run.log").read_text().count("step 60/600") == 1

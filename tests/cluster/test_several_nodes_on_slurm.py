"""One run on two nodes of a real Slurm, by srun and as cells of a sweep: one node's bytes, also after a preemption."""

import json
import os
import subprocess
import time
from pathlib import Path

import pytest

from cluster.nodes import Node, eventually, mindseye_command

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

# A fit of many times the 2 s between two words of status.json: a quick machine must not be done unseen.
RUN = ["experiment=smoke", "steps=600", "snapshots=100", "cache=off", "checkpoint=1"]
ON_TWO = ["trainer.nodes=2", "trainer.accelerator=cpu"]
SRUN = ["srun", "-N2", "--ntasks-per-node=1", "--label"]
LONG_S = 280


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Path:
    """The same run without Slurm, in as many threads."""
    place = tmp_path_factory.mktemp("alone")
    done = subprocess.run(
        mindseye_command(*RUN, "hydra.run.dir=run"), cwd=place, env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=LONG_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return place / "run"


def assert_same(run: Path, other: Path) -> None:
    """To the bit, and nothing is left of what the nodes said."""
    for name in ("images.safetensors", "facets.png", "facets/02/steps/0100.webp", "targets/targets.safetensors"):
        assert (run / name).read_bytes() == (other / name).read_bytes(), name
    assert not (run / "checkpoint").exists()


def said(folder: Path) -> dict:
    """What status.json says."""
    try:
        return json.loads((folder / "status.json").read_text())
    except FileNotFoundError:
        return {"status": "waiting", "step": None}


def drawing(folder: Path) -> bool:
    """Whether the run is some steps into its fit."""
    now = said(folder)
    assert now["status"] in ("waiting", "running"), f"it is {now['status']} before it was seen drawing"
    return now["status"] == "running" and (now["step"] or 0) >= 20


@pytest.mark.timeout(900)
def test_srun_on_two_nodes_is_preempted_and_goes_on_to_one_nodes_bytes(two_nodes: Node, alone, tmp_path):
    begun = two_nodes.start(*SRUN, *mindseye_command(*RUN, *ON_TWO), cwd=tmp_path)
    [folder] = eventually(lambda: list(tmp_path.glob("outputs/slurm-*")), timeout=90)
    eventually(lambda: drawing(folder), timeout=200)
    job = folder.name.removeprefix("slurm-")
    assert two_nodes.run("scancel", "--signal=TERM", job).returncode == 0
    stopped = two_nodes.finish(begun, timeout=LONG_S)
    assert stopped.returncode == 75, stopped.stderr
    lines = [line for line in stopped.stderr.splitlines() if "mindseye:" in line]
    assert len(lines) == 1, stopped.stderr
    assert lines[0] == f"0: mindseye: SIGTERM; the same command with hydra.run.dir={folder} goes on"
    assert said(folder)["status"] == "to be continued"
    again = two_nodes.run(
        *SRUN, *mindseye_command(*RUN, *ON_TWO, f"hydra.run.dir={folder}"), cwd=tmp_path, timeout=LONG_S
    )
    assert again.returncode == 0, again.stderr
    assert not [line for line in again.stdout.splitlines() if line.startswith("1:")]
    assert "the fit goes on after step" in (folder / "run.log").read_text()
    assert said(folder)["tries"] == 2
    assert_same(folder, alone)


@pytest.mark.timeout(600)
def test_a_node_that_is_killed_ends_the_other_in_one_line(two_nodes: Node, tmp_path):
    """Nobody is asked: the other one misses its signs of life."""
    begun = two_nodes.start(*SRUN, *mindseye_command(*RUN, "steps=100000", *ON_TWO, "hydra.run.dir=run"), cwd=tmp_path)
    folder = tmp_path / "run"
    eventually(lambda: drawing(folder), timeout=200)
    lock = folder / "checkpoint" / "nodes" / "1-of-2.lock"
    pid = next(line.removeprefix("pid=") for line in lock.read_text().splitlines() if line.startswith("pid="))
    killed = time.monotonic()
    try:
        assert two_nodes.run("kill", "-KILL", pid).returncode == 0
        ended = two_nodes.finish(begun, timeout=LONG_S)
    finally:
        two_nodes.run("scancel", f"--user={os.getuid()}")
    assert time.monotonic() - killed < 130
    assert ended.returncode != 0
    [line] = [line for line in ended.stderr.splitlines() if "mindseye:" in line]
    assert line.startswith("0: mindseye: node 1 (")
    assert "is gone: no sign of life for 90 s" in line
    assert said(folder)["status"] == "failed"


@pytest.mark.timeout(900)
def test_cells_of_a_sweep_take_two_nodes_each(two_nodes: Node, alone, tmp_path):
    """The launcher asks for the nodes, and for as many GPUs on each as there are devices."""
    asked = ["hydra/launcher=slurm", "hydra.launcher.partition=debug", "hydra.launcher.mem_gb=2"]
    asked += ["hydra.launcher.cpus_per_task=1", "hydra.sweep.dir=sweep"]
    done = two_nodes.mindseye(
        "-m", *RUN, "k=8,20", "trainer.nodes=2", "trainer.devices=2", "C=4", *asked, cwd=tmp_path, timeout=600
    )
    assert done.returncode == 0, done.stderr
    script = next(tmp_path.glob("sweep/.submitit/*/*_submission.sh")).read_text()
    for line in ("--nodes=2", "--ntasks-per-node=1", "--gpus-per-node=2"):
        assert f"#SBATCH {line}\n" in script
    cells = list(tmp_path.glob("sweep/k=*"))
    assert sorted(said(cell)["status"] for cell in cells) == ["completed"] * 2
    assert not list(tmp_path.glob("sweep/k=*/checkpoint"))


def test_what_srun_starts_wrongly_is_one_line_a_task(two_nodes: Node, tmp_path):
    for words, line in (
        (["trainer.nodes=2"], "nodes=2: Slurm has started 4 tasks on 2 nodes: srun -N2 --ntasks-per-node=1"),
        (["trainer.devices=2", "trainer.accelerator=cpu"], "devices=2: one task draws on all 2 devices by itself"),
    ):
        done = two_nodes.run(
            "srun", "-N2", "-n4", "--label", *mindseye_command(*RUN, *words, "hydra.run.dir=run"), cwd=tmp_path
        )
        assert done.returncode != 0
        told = sorted(line for line in done.stderr.splitlines() if "mindseye:" in line)
        assert len(told) == 4, done.stderr
        assert all(reported.startswith(f"{task}: mindseye: {line}") for task, reported in enumerate(told))
    assert not (tmp_path / "run" / "status.json").exists()

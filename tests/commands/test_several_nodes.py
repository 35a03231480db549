"""The command as Slurm starts it on several nodes: two processes play them. tests/cluster has a real Slurm."""

import os
import signal
import time

import pytest
import warm

from mindseye.results.run_folder import read_run
from mindseye.results.run_status import read_status

COMMAND = ("-m", "mindseye.commands.main")
SMOKE = ["experiment=smoke", "cache=off"]
FAILS_THERE = """
import os

import torch
from torch import nn


def build():
    if os.environ["SLURM_PROCID"] == "1":
        raise OSError("no weights here")
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 16, 3, 2))
"""


def task(number, of=2, step=0):
    """What srun -N2 --ntasks-per-node=1 says to a task."""
    names = {"PROCID": number, "JOB_ID": 12, "STEP_ID": step, "STEP_NUM_NODES": of, "STEP_NUM_TASKS": of}
    return {**os.environ, "OMP_NUM_THREADS": "1", **{f"SLURM_{name}": str(value) for name, value in names.items()}}


def begin(number, *words, cwd, step=0):
    return warm.Begun([*COMMAND, *SMOKE, "trainer.nodes=2", *words], cwd, task(number, step=step), 400)


def command(*words, cwd, **environment):
    env = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    return warm.python(*COMMAND, *SMOKE, *words, cwd=cwd, env=env, timeout=240)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_two_nodes_draw_what_one_draws_and_are_stopped_and_gone_on_from_as_one(tmp_path):
    """The signal comes to the second node alone. Only the first keeps a log, a status, and the tracker's file."""
    words = ["steps=120", "snapshots=40", "logger=csv"]
    tasks = [begin(number, *words, cwd=tmp_path) for number in (1, 0)]
    folder = tmp_path / "outputs" / "slurm-12.0"  # the same for both, without being told
    until = time.monotonic() + 300
    while (read_status(folder).step or 0) < 10:
        assert time.monotonic() < until
        time.sleep(0.1)
    os.kill(tasks[0].pid, signal.SIGTERM)
    second, first = (task.wait() for task in tasks)
    assert (first.returncode, second.returncode) == (75, 75)
    assert first.stderr.startswith("mindseye: SIGTERM after step ")
    assert first.stderr.endswith(f"; the same command with hydra.run.dir={folder} goes on\n")
    assert second.stderr == second.stdout == ""
    status = read_status(folder)
    assert status.status == "to be continued"
    assert {file.name for file in (folder / "checkpoint").glob("fit-?-of-2.safetensors")} == {
        "fit-0-of-2.safetensors", "fit-1-of-2.safetensors",
    }  # fmt: skip

    again = [begin(number, *words, f"hydra.run.dir={folder}", cwd=tmp_path, step=1) for number in (1, 0)]
    second, first = (task.wait() for task in again)
    assert (first.returncode, second.returncode) == (0, 0), (first.stderr, second.stderr)
    assert second.stderr == second.stdout == ""
    assert "facets.png" in first.stdout
    assert not (folder / "checkpoint").exists()
    alone = command(*words, "hydra.run.dir=alone", cwd=tmp_path)
    assert alone.returncode == 0, alone.stderr
    for name in ("images.safetensors", "facets.png", "facets/02/steps/0080.webp", "targets/targets.safetensors"):
        assert (folder / name).read_bytes() == (tmp_path / "alone" / name).read_bytes(), name
    assert read_run(folder).history == read_run(tmp_path / "alone").history
    assert (folder / "csv" / "metrics.csv").read_bytes() == (tmp_path / "alone/csv/metrics.csv").read_bytes()
    assert (folder / "run.log").read_text().count(": drawing") == 2  # it was begun twice, by two tasks each time


def test_what_fails_on_one_node_ends_all_in_one_line_before_any_photograph_is_read(tmp_path):
    (tmp_path / "mine.py").write_text(FAILS_THERE)
    network = ["network=callable", "network.target=mine.py:build", "network.mean=[0,0,0]", "network.std=[1,1,1]"]
    tasks = [begin(number, *network, "layer=2", "hydra.run.dir=run", cwd=tmp_path) for number in (1, 0)]
    second, first = (task.wait() for task in tasks)
    assert (first.returncode, second.returncode) == (1, 1)
    assert "no weights here" in second.stderr
    [line] = first.stderr.splitlines()
    assert line.startswith("mindseye: node 1 (")
    assert "no weights here" in line
    status = read_status(tmp_path / "run")
    assert status.status == "failed"
    assert status.reason.startswith("node 1 (")
    assert not (tmp_path / "run" / "photographs").exists()


def test_who_starts_several_tasks_for_one_run_is_told_that_one_is_right(tmp_path):
    """As Lightning's users start them. Nothing is begun."""
    devices = ("trainer.devices=2", "trainer.accelerator=cpu")
    done = command(*devices, "hydra.run.dir=run", cwd=tmp_path, WORLD_SIZE="2")
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert line.startswith("mindseye: devices=2: one task draws on all 2 devices by itself, and this is one of torch")
    alone = command("trainer.nodes=2", "hydra.run.dir=run", cwd=tmp_path)
    assert alone.returncode == 1
    assert alone.stderr.startswith("mindseye: nodes=2: this is no task of a Slurm allocation: srun -N2")
    assert len(alone.stderr.splitlines()) == 1
    assert not (tmp_path / "run" / "status.json").exists()


def test_a_second_task_in_the_same_folder_is_told_that_one_is_right(tmp_path):
    from mindseye.results.run_status import occupy

    with occupy(tmp_path / "run"):
        done = command("hydra.run.dir=run", cwd=tmp_path, SLURM_STEP_NUM_TASKS="2")
    assert done.returncode == 1
    assert "another process" in done.stderr
    assert "this is one of Slurm's 2 tasks (SLURM_STEP_NUM_TASKS), and one is right for a run: srun -n1" in done.stderr

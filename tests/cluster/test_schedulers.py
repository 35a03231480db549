"""The same cells on a real Slurm, on a real Ray, and one after the other: each on its own GPU, the same bytes."""

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from cluster.nodes import Node, mindseye_command
from mindseye.facets.cache import Cache
from mindseye.results.run_folder import StoredRun, read_run

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

# A network whose making leaves a note of where it happened. 16 channels: a cell with k=20 fails.
WITNESS = """
import json, os, uuid
from pathlib import Path

import torch
from torch import nn


def build():
    names = ("CUDA_VISIBLE_DEVICES", "MINDSEYE_CACHE", "SLURM_CPUS_PER_TASK", "SLURM_ARRAY_TASK_ID", "OMP_NUM_THREADS")
    seen = {name: os.environ.get(name) for name in names}
    seen |= {"folder": os.getcwd(), "threads": torch.get_num_threads(), "pid": os.getpid()}
    Path("seen").mkdir(exist_ok=True)
    Path("seen", uuid.uuid4().hex).write_text(json.dumps(seen))
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 16, 3, 2), nn.BatchNorm2d(16))
"""
SWEEP = [
    "-m", "experiment=smoke", "network=callable", "network.target=witness.py:build", "network.mean=[0.5,0.5,0.5]",
    "network.std=[0.25,0.25,0.25]", "layer=2", "hydra.sweep.dir=sweep", "cache.folder=shared",
]  # fmt: skip
GRID = ["k=4,6,8,20", "C=2,3"]
SIX = {(k, C) for k in (4, 6, 8) for C in (2, 3)}  # those of the grid that can be drawn
ON_SLURM = ["hydra/launcher=slurm", "hydra.launcher.partition=debug"]
ON_RAY = ["hydra/launcher=ray", "hydra.launcher.ray.init.address=127.0.0.1:6399"]


@dataclass
class Swept:
    """What is left of a sweep: its cells by (k, C), and what the network saw when it was made."""

    folder: Path
    returncode: int
    stderr: str

    def cells(self) -> dict[tuple[int, int], StoredRun]:
        """The completed ones."""
        runs = [read_run(file.parent) for file in self.folder.glob("sweep/**/metrics.json")]
        configs = [yaml.safe_load((run.folder / "config.yaml").read_text()) for run in runs]
        return {(config["k"], config["C"]): run for config, run in zip(configs, runs, strict=True)}

    def seen(self) -> list[dict]:
        """A note a job."""
        return [json.loads(file.read_text()) for file in (self.folder / "seen").iterdir()]


def sweep(node: Node, folder: Path, *overrides: str, **environment: str) -> Swept:
    """`mindseye -m …` inside the node, in a folder with the network's file."""
    (folder / "witness.py").write_text(WITNESS)
    done = node.mindseye(*SWEEP, *overrides, cwd=folder, **environment)
    return Swept(folder, done.returncode, done.stderr)


@pytest.fixture(scope="module")
def one_by_one(tmp_path_factory) -> Swept:
    """The cells by Hydra's basic launcher, each job in one thread as everywhere in these tests."""
    folder = tmp_path_factory.mktemp("basic")
    (folder / "witness.py").write_text(WITNESS)
    done = subprocess.run(
        mindseye_command(*SWEEP, *GRID, "hydra/launcher=basic"), cwd=folder, capture_output=True, text=True,
        timeout=150, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    swept = Swept(folder, done.returncode, done.stderr)
    assert set(swept.cells()) == SIX, swept.stderr
    return swept


def assert_six_as_one_by_one(swept: Swept, reference: Swept) -> None:
    """The six cells are, to the byte, what the basic launcher drew, and the two that fail stopped none of them."""
    assert swept.returncode == 1
    assert "k must be 1 to 16 (the channels of 2)" in swept.stderr
    cells, expected = swept.cells(), reference.cells()
    assert set(cells) == SIX
    for cell, run in cells.items():
        for name in ("images.safetensors", "facets.png", "targets/targets.safetensors"):
            assert (run.folder / name).read_bytes() == (expected[cell].folder / name).read_bytes(), (cell, name)


def assert_a_gpu_each(swept: Swept) -> None:
    """Every job saw one GPU of two, both had work, and all met in the folder where the command was given."""
    jobs = swept.seen()
    assert len(jobs) == 8
    assert {job["CUDA_VISIBLE_DEVICES"] for job in jobs} == {"0", "1"}
    assert all(job["folder"] == str(swept.folder) for job in jobs)
    assert all(job["threads"] == 1 for job in jobs)
    surveys = [entry for entry in Cache(swept.folder / "shared", 10**9).entries() if entry.kind == "survey"]
    assert len(surveys) == 1


def test_cells_on_slurm_as_the_launcher_stands(slurm, one_by_one, tmp_path):
    swept = sweep(slurm, tmp_path, *GRID, *ON_SLURM)
    assert_six_as_one_by_one(swept, one_by_one)
    assert_a_gpu_each(swept)
    jobs = swept.seen()
    assert sorted(job["SLURM_ARRAY_TASK_ID"] for job in jobs) == list("01234567")
    # The launcher's own figures came through, also where srun must be told.
    assert {job["SLURM_CPUS_PER_TASK"] for job in jobs} == {"4"}
    asked = next(tmp_path.glob("sweep/.submitit/*/*_submission.sh")).read_text()
    for line in ("--gpus-per-node=1", "--mem=16GB", "--time=240", "--signal=USR2@120", "--requeue", "--array=0-7%8"):
        assert f"#SBATCH {line}\n" in asked


def test_cells_on_ray(ray, one_by_one, tmp_path):
    """The workers start in another folder and without this shell's environment: both are handed on."""
    swept = sweep(ray, tmp_path, *GRID, *ON_RAY, MINDSEYE_CACHE=str(tmp_path / "cache"))
    assert_six_as_one_by_one(swept, one_by_one)
    assert_a_gpu_each(swept)
    jobs = swept.seen()
    assert {job["MINDSEYE_CACHE"] for job in jobs} == {str(tmp_path / "cache")}
    assert len({job["pid"] for job in jobs}) == 8  # a fresh process each
    assert "validated against ConfigStore" not in swept.stderr


def test_ray_on_this_machine_by_one_override(ray, tmp_path):
    """Without a cluster the launcher starts Ray here; without a GPU it says what to do, and does not wait for one."""
    refused = sweep(ray, tmp_path, "k=4", "hydra/launcher=ray")
    assert refused.returncode == 1
    assert refused.stderr.startswith("mindseye: hydra.launcher.ray.remote.num_gpus=1: this machine has no GPU")
    assert len(refused.stderr.strip().splitlines()) == 1
    swept = sweep(ray, tmp_path, "k=4", "C=2", "hydra/launcher=ray", "hydra.launcher.ray.remote.num_gpus=0")
    assert swept.returncode == 0, swept.stderr
    assert set(swept.cells()) == {(4, 2)}

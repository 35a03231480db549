"""Launchers as far as one machine without a scheduler goes; tests/cluster has the real ones."""

import json
import os
import subprocess
import sys
from pathlib import Path

import joblib
import pytest
import yaml
from hydra.core.config_store import ConfigStore

from mindseye.commands.composing import ConfigurationError, compose
from mindseye.commands.launchers import anchored, check_launcher, enter
from mindseye.results.run_folder import read_run

# A network that notes how many threads its process has. 16 channels: a cell with k=20 fails.
NETWORK = """
import json, os
from pathlib import Path

import torch
from torch import nn


def build():
    Path("seen").mkdir(exist_ok=True)
    Path("seen", str(os.getpid())).write_text(json.dumps(torch.get_num_threads()))
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 16, 3, 2))
"""


@pytest.mark.long
def test_joblib_divides_the_threads_and_a_failing_cell_stops_no_other(tmp_path):
    (tmp_path / "my.py").write_text(NETWORK)
    network = ["network=callable", "network.target=my.py:build", "network.mean=[0,0,0]", "network.std=[1,1,1]"]
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    overrides = ["k=20,4,6", "layer=2", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "hydra.sweep.dir=sweep"]
    done = subprocess.run(
        [sys.executable, "-m", "mindseye.commands.main", "-m", "experiment=smoke", *network, *overrides],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "k must be 1 to 16 (the channels of 2), not 20" in done.stderr
    runs = [read_run(file.parent) for file in tmp_path.glob("sweep/**/metrics.json")]
    assert sorted(yaml.safe_load((run.folder / "config.yaml").read_text())["k"] for run in runs) == [4, 6]
    threads = [json.loads(file.read_text()) for file in (tmp_path / "seen").iterdir()]
    assert len(threads) == 2  # processes, for three cells
    assert set(threads) == {max(1, joblib.cpu_count() // 2)}


@pytest.mark.parametrize(
    ("word", "is_now"),
    [
        ("hydra.sweep.dir=~/k", f"hydra.sweep.dir={Path.home()}/k"),
        ("hydra.sweep.dir='~/my k'", f"hydra.sweep.dir='{Path.home()}/my k'"),
        ("hydra.sweep.dir=~mine", "hydra.sweep.dir=${hydra.runtime.cwd}/~mine"),
        ("hydra.sweep.dir=${oc.env:HOME}/k", "hydra.sweep.dir=${oc.env:HOME}/k"),
        ("images.root=photos", "images.root=photos"),
    ],
)
def test_a_sweep_folder_means_the_same_everywhere(word, is_now):
    assert anchored(word) == is_now


def test_a_machine_without_the_folder_says_so(tmp_path):
    with pytest.raises(ConfigurationError, match="start it from a folder that all machines share"):
        enter(str(tmp_path / "gone"))


def test_a_launcher_that_is_not_installed_is_named_in_one_line(monkeypatch):
    compose([])  # Hydra has loaded what there is
    stored = ConfigStore.instance().repo["hydra"]["launcher"]
    for name in ("submitit_slurm.yaml", "ray.yaml"):
        monkeypatch.delitem(stored, name, raising=False)
    import hydra_plugins

    # What Hydra has loaded is put back behind the one without its parts.
    monkeypatch.setattr(hydra_plugins, "mindseye_launchers", None, raising=False)
    monkeypatch.delattr(hydra_plugins, "mindseye_launchers")
    for module in [name for name in sys.modules if name.startswith("hydra_plugins.") and "launcher" in name]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "hydra_plugins.hydra_ray_launcher", None)
    with pytest.raises(ConfigurationError, match=r"^hydra/launcher=slurm needs .*: pip install 'mindseye\[slurm\]'$"):
        check_launcher(["hydra/launcher=slurm"])
    with pytest.raises(ConfigurationError, match=r"^hydra/launcher=ray needs .*: pip install 'mindseye\[ray\]'$"):
        check_launcher(["hydra/launcher=ray"])
    check_launcher(["hydra/launcher=joblib", "k=3,4"])


@pytest.mark.long
def test_a_sweep_is_resumed_from_another_folder_with_another_launcher(tmp_path, photograph_folder):
    """What is relative in its cells starts where the sweep did; the first launcher's settings are not the next's."""
    (tmp_path / "photos").symlink_to(photograph_folder)
    (tmp_path / "elsewhere").mkdir()
    command = [sys.executable, "-m", "mindseye.commands.main"]
    begun = ["-m", "experiment=smoke", "k=4,6", "images.root=photos", "hydra.sweep.dir=sweep", "hydra/launcher=joblib"]
    first = subprocess.run(
        [*command, *begun, "hydra.launcher.n_jobs=1"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert first.returncode == 0, first.stderr
    [lost] = (tmp_path / "sweep").glob("k=6-*")
    for name in ("status.json", "metrics.json"):
        (lost / name).unlink()
    again = subprocess.run(
        [*command, "sweep", "resume", "../sweep", "hydra/launcher=basic"],
        cwd=tmp_path / "elsewhere", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert again.returncode == 0, again.stderr
    assert read_run(lost).metrics["status"] == "completed"


@pytest.fixture
def _on_a_cluster(monkeypatch):
    pytest.importorskip("submitit")
    pytest.importorskip("ray")
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")


@pytest.mark.usefixtures("_on_a_cluster")
def test_jobs_ask_for_as_many_gpus_and_nodes_as_a_run_takes():
    """And for none where it computes on a CPU."""
    for words, gpus in ((["trainer.devices=2"], 2), ([], 1), (["trainer.devices=2", "trainer.accelerator=cpu"], None)):
        for name in ("slurm", "ray"):
            check_launcher([f"hydra/launcher={name}", *words])
        slurm = compose(["hydra/launcher=slurm", "trainer.nodes=3", *words], with_hydra=True).hydra.launcher
        ray = compose(["hydra/launcher=ray", *words], with_hydra=True).hydra.launcher
        assert (slurm.nodes, slurm.tasks_per_node, slurm.gpus_per_node) == (3, 1, gpus)
        assert ray.ray.remote.num_gpus == gpus


@pytest.mark.usefixtures("_on_a_cluster")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["=slurm", "trainer.devices=2", "gpus_per_node=1"], "hydra.launcher.gpus_per_node=1: trainer.devices=2 says"),
        (["=slurm", "gpus_per_node=8"], "hydra.launcher.gpus_per_node=8: trainer.devices=1 says"),
        (["=slurm", "trainer.devices=2", "gpus_per_node=null", "gres=gpu:a100:1"], "hydra.launcher.gres=gpu:a100:1:"),
        (["=ray", "trainer.devices=2", "ray.remote.num_gpus=0.5"], r"hydra\.launcher\.ray\.remote\.num_gpus=0\.5: "),
        (["=slurm", "trainer.accelerator=cpu", "gpus_per_node=1"], ".*computes on no GPU; leave it out"),
        (["=slurm", "trainer.devices=1,2"], r"trainer\.devices=1,2: all jobs of a sweep ask for as much"),
        (["=ray", "trainer.nodes=2"], r"trainer\.nodes=2: the cells of a sweep .*hydra/launcher=slurm alone"),
    ],
)
def test_jobs_that_would_fail_after_they_were_queued_are_refused_before(words, said):
    keys = {"=": "hydra/launcher", "g": "hydra.launcher.", "r": "hydra.launcher."}
    with pytest.raises(ConfigurationError, match=f"^{said}") as raised:
        check_launcher([f"{keys.get(word[0], '')}{word}" for word in words])
    assert "\n" not in str(raised.value)


@pytest.mark.usefixtures("_on_a_cluster")
@pytest.mark.parametrize(
    "words",
    [
        ["hydra/launcher=slurm", "hydra.launcher.gpus_per_node=null"],
        ["hydra/launcher=slurm", "trainer.devices=2", "hydra.launcher.gpus_per_node=null", "hydra.launcher.gres=gpu:2"],
        ["hydra/launcher=ray", "hydra.launcher.ray.remote.num_gpus=0.5"],
        ["hydra/launcher=ray", "trainer.devices=2", "hydra.launcher.ray.remote.num_gpus=0"],
    ],
)
def test_other_ways_to_ask_are_taken(words):
    check_launcher(words)


def test_cells_of_several_nodes_need_a_launcher_that_gives_them():
    for words in (["trainer.nodes=2"], ["trainer.nodes=2", "hydra/launcher=joblib"], ["trainer.nodes=1,2"]):
        with pytest.raises(ConfigurationError, match=r"^trainer\.nodes="):
            check_launcher(words)
    check_launcher(["trainer.nodes=2"], sweeps=False)

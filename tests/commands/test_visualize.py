"""The real command, in a process of its own, on tiny real inputs."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import warm
import yaml
from PIL import Image

from mindseye.commands.composing import config_folder
from mindseye.results.run_folder import read_run

EXPERIMENTS = sorted(path.stem for path in (config_folder() / "experiment").glob("*.yaml"))
EXPERIMENTS.remove("search")  # in test_search.py


COMMAND = ("-m", "mindseye.commands.main")


def environment():
    return {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "100"}


def mindseye(*arguments, cwd, timeout=240):
    return warm.python(*COMMAND, *arguments, cwd=cwd, env=environment(), timeout=timeout)


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """One run of the smoke experiment, from a directory that is not the project's, as a user starts it."""
    place = tmp_path_factory.mktemp("smoke")
    done = subprocess.run(
        [sys.executable, *COMMAND, "experiment=smoke", "hydra.run.dir=run"],
        cwd=place, env=environment(), capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return place / "run", done


def test_the_whole_line_runs(smoke):
    folder, done = smoke
    metrics = read_run(folder).metrics
    assert metrics["status"] == "completed"
    assert set(metrics["timing"]) >= {"discovery_s", "fit_s", "step_ms", "total_s"}
    assert "ari" in metrics["summary"]["facets"]
    assert metrics["provenance"]["seed"] == 0
    assert "facets.png" in done.stdout
    assert "noise" in done.stdout
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert (config["k"], config["C"], config["steps"]) == (8, 3, 4)
    assert (folder / "run.log").stat().st_size > 0
    assert "step 4/4" in (folder / "run.log").read_text()


# What makes an experiment small. A sweep goes over what it sweeps over itself, but for what only a large network has.
SMALL = ["images.size=48", "images.count=24", "facets.N=4", "steps=2", "network=demo"]
SIZES = {
    "sweep_k_C": ["k=4,8", "C=2,3"],
    "fig4_screw": ["k=8", "C=3", "layer=layer2.0,layer4.0"],
    "ablate_losses": ["k=8", "C=3", "ablation=none,lucid", "seed=0,1"],
}
CELLS = {
    "sweep_architectures": 3, "sweep_layers": 4, "sweep_k_C": 4, "fig4_screw": 2, "ablate_losses": 4, "accentuate": 3
}  # fmt: skip


# Of several cells each; sweep_k_C stands for them.
SWEEPS = {"ablate_losses", "accentuate", "fig4_screw", "sweep_architectures", "sweep_layers"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "experiment", [pytest.param(name, marks=pytest.mark.long) if name in SWEEPS else name for name in EXPERIMENTS]
)
def test_every_experiment_runs(experiment, tmp_path):
    overrides = [f"experiment={experiment}", *SMALL, *SIZES.get(experiment, ["k=8", "C=3"])]
    if "transfer: " in (config_folder() / f"experiment/{experiment}.yaml").read_text():
        overrides.append("transfer=demo")  # whose real judge is downloaded
    done = mindseye(*overrides, "hydra.run.dir=run", "hydra.sweep.dir=run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    runs = [read_run(file.parent) for file in (tmp_path / "run").rglob("metrics.json")]
    assert len(runs) == CELLS.get(experiment, 1)
    assert all(run.metrics["status"] == "completed" for run in runs)


def test_the_same_command_gives_the_same_bytes_on_one_device_or_two(smoke, tmp_path):
    done = mindseye("experiment=smoke", "hydra.run.dir=again", "trainer.devices=2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    first, again = smoke[0], tmp_path / "again"
    for name in ("images.safetensors", "facets.png", "facets/01/visualization.png", "targets/targets.safetensors"):
        assert (first / name).read_bytes() == (again / name).read_bytes()


@pytest.mark.parametrize(
    "overrides",
    [
        ("objective=published",),
        pytest.param(("objective=released",), marks=pytest.mark.long),
        ("canvas=maco", "canvas.init=noise", "facets_per_batch=1", "previous=conv1"),
        pytest.param(
            ("logger=csv", "layer=layer2.0.conv1", "optimizer=sgd", "filters=none", "schedule=constant"),
            marks=pytest.mark.long,
        ),
        ("transfer=demo", "transfer.demo.layer=layer3.0", "facets.selection=nearest_members"),
    ],
    ids=lambda overrides: overrides[0],
)
def test_presets_and_options_run(overrides, tmp_path):
    done = mindseye("experiment=smoke", *overrides, "hydra.run.dir=run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    metrics = read_run(tmp_path / "run").metrics
    if "transfer=demo" in overrides:
        assert set(metrics["summary"]["transfer"]) >= {"cosine", "retrieval", "agreement"}
        assert "transfer" in metrics["baselines"]["initial"]
    if "logger=csv" in overrides:
        assert "loss/total" in next((tmp_path / "run").rglob("metrics.csv")).read_text()


def test_a_sweep_makes_a_run_folder_a_cell(tmp_path):
    done = mindseye("-m", "experiment=smoke", "k=4,8", "steps=2", "hydra.sweep.dir=sweep", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    runs = [read_run(file.parent) for file in (tmp_path / "sweep").glob("*/metrics.json")]
    assert sorted(yaml.safe_load((run.folder / "config.yaml").read_text())["k"] for run in runs) == [4, 8]
    assert all(run.metrics["status"] == "completed" for run in runs)


def test_one_s_own_photographs_bad_files_among_them(tmp_path):
    folder = tmp_path / "mine" / "class <b>a</b>"
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for i in range(9):
        array = generator.integers(0, 256, (40, 50, 3), dtype=np.uint8) // (1 + i % 3)
        Image.fromarray(array).convert(["RGB", "L", "CMYK"][i % 3]).save(folder / f"{i}.jpg")
    (folder / "broken.jpg").write_bytes((folder / "0.jpg").read_bytes()[:300])
    (folder / "empty.png").touch()
    done = mindseye("experiment=smoke", "images.root=mine", "hydra.run.dir=run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    photographs = read_run(tmp_path / "run").metrics["photographs"]
    assert (photographs["used"], photographs["skipped"]) == (9, 2)
    assert {file["path"].split("/")[-1] for file in photographs["skipped_files"]} == {"broken.jpg", "empty.png"}
    log = (tmp_path / "run" / "run.log").read_text()
    assert "broken.jpg" in log
    assert "empty.png" in log
    assert "skipped" in done.stderr
    assert (log + done.stderr).count("the demo's network looks at the photographs") == 2


NETWORK = """
import torch
from torch import nn


def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(6, 8, 3), nn.ReLU(), nn.Conv2d(8, 16, 3, 2), nn.BatchNorm2d(16))
"""


def test_one_s_own_network_of_six_channels_with_layers_that_are_numbers(tmp_path):
    (tmp_path / "my_network.py").write_text(NETWORK)
    (tmp_path / "scans").mkdir()
    generator = np.random.default_rng(0)
    for i in range(9):
        np.save(tmp_path / "scans" / f"{i}.npy", generator.integers(0, 256, (6, 40, 40), dtype=np.uint8))
    overrides = ["network=callable", "network.target=my_network.py:build", "layer=2", "previous=0", "images.root=scans"]
    normalised = [f"network.{name}=[{','.join(['0.5'] * 6)}]" for name in ("mean", "std")]
    done = mindseye("experiment=smoke", *overrides, *normalised, "hydra.run.dir=run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert read_run(tmp_path / "run").images.shape == (3, 6, 48, 48)
    assert "the demo's network" not in done.stderr


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["kk=3"], "did you mean k?"),
        (["images.root=nowhere"], "does not exist"),
        (["k=1000"], "k must be 1 to 160"),
        (["C=25", "images.count=24"], "C=25 facets need at least as many photographs"),
        (["layer=layer3.9"], "nearest"),
        (["network.weights=no.pth"], "no.pth"),
        (["images.kind=unicorn"], "padlock"),
        (["objective.r=0.01"], "objective.r must be a number above 0.05"),
        (["previous=layer9"], "nearest"),
        (["facets_per_batch=0"], "1 or more or null, not 0"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_bad_input_costs_one_clear_line(overrides, message, tmp_path):
    done = mindseye("experiment=smoke", *overrides, "hydra.run.dir=run", cwd=tmp_path)
    assert done.returncode == 1
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("mindseye: ")
    assert message in lines[0]
    assert not (tmp_path / "run" / "metrics.json").exists()


def test_a_mistake_in_a_second_start_leaves_the_finished_run(smoke, tmp_path):
    shutil.copytree(smoke[0], tmp_path / "run")
    done = mindseye("experiment=smoke", "layer=nowhere", "hydra.run.dir=run", cwd=tmp_path)
    assert done.returncode == 1
    assert (read_run(tmp_path / "run").images == read_run(smoke[0]).images).all()
    assert (tmp_path / "run" / "facets" / "00" / "visualization.png").is_file()


def test_a_picture_drawn_here_is_no_photograph_but_can_be_started_from(smoke, tmp_path):
    drawn = smoke[0] / "facets" / "00" / "visualization.png"
    done = mindseye("experiment=smoke", "steps=1", f"canvas.init={drawn}", "hydra.run.dir=again", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    refused = mindseye("experiment=smoke", f"images.root={drawn.parent}", "hydra.run.dir=wrong", cwd=tmp_path)
    assert refused.returncode == 1


def test_layers_lists_a_network_s_layers(tmp_path):
    done = mindseye("layers", "network=demo", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "layer4.0" in done.stdout
    assert mindseye("layers", "network=nothing", cwd=tmp_path).returncode == 1


@pytest.mark.parametrize("verb", ["layers", "facets"])
def test_a_network_of_one_s_own_files_is_listed_and_looked_into(verb, tmp_path):
    (tmp_path / "mine" / "network").mkdir(parents=True)
    (tmp_path / "mine" / "network" / "small.yaml").write_text(
        "# Of one's own\n_target_: mindseye.networks.demo_network\nname: small\n"
    )
    more = ["C=2..3", "layer=layer4.0", *SMALL[:3]] if verb == "facets" else []
    done = mindseye(verb, "network=small", "--config-dir", "mine", *more, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "small" in done.stdout
    nowhere = mindseye(verb, "--config-dir", "nowhere", cwd=tmp_path)
    assert nowhere.returncode == 1
    assert "--config-dir=nowhere: there is no such folder" in nowhere.stderr


def test_version_and_help(tmp_path):
    assert mindseye("--version", cwd=tmp_path).stdout.startswith("mindseye 0.")
    assert "network" in mindseye("--help", cwd=tmp_path).stdout


def test_metrics_are_plain_json_without_nan(smoke):
    def refuse(name):
        raise AssertionError(name)

    json.loads((smoke[0] / "metrics.json").read_text(), parse_constant=refuse)

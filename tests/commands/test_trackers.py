"""wandb and TensorBoard by the real command, read back from what they wrote."""

import base64
import hashlib
import json
import os
import struct
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import warm
from packaging.version import Version
from PIL import Image

from mindseye.commands.checking import check_overrides
from mindseye.commands.composing import ConfigurationError, compose, plain
from mindseye.commands.tracking import check_trackers, described, make_trackers
from mindseye.facets.targets import FacetTargets
from mindseye.results.run_folder import read_run
from mindseye.sweeps.manifest import add_cells


def mindseye(*arguments, cwd, program=None, **variables):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
    start = ["-c", program] if program else ["-m", "mindseye.commands.main"]
    return warm.python(*start, *arguments, cwd=cwd, env=environment, timeout=240)


# As Lightning has it in a packed Slurm task, from SLURM_PROCID, when it is imported.
RANK_1 = """
import sys
from pytorch_lightning.utilities import rank_zero_only
from mindseye.commands.main import main
rank_zero_only.rank = 1
main(sys.argv[1:])
"""


def records(run):
    """What wandb's own reader finds in an offline run."""
    if Version(version("wandb")) < Version("0.31"):
        pytest.skip("this release of wandb has no reader of offline runs")
    wandb = Path(sys.executable).with_name("wandb")
    [log] = run.glob("wandb/offline-run-*/run-*.wandb")
    asked = subprocess.run(
        [wandb, "leet", "inspect", "--json", log], capture_output=True, text=True, timeout=60, check=True
    )
    return [json.loads(line) for line in asked.stdout.splitlines()]


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """Two cells in one process, with all trackers on, in an environment that gives it a rank; and standard error."""
    place = tmp_path_factory.mktemp("tracked")
    done = mindseye(
        "-m", "experiment=smoke", "k=4,8", "logger=[wandb,tensorboard,csv]", "gradients=2", "snapshots=2",
        "hydra.sweep.dir=night/sweep", cwd=place, program=RANK_1,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return sorted(path.parent for path in (place / "night" / "sweep").glob("*/metrics.json")), done.stderr


@pytest.fixture(scope="module")
def sweep(swept):
    return swept[0]


@pytest.fixture(scope="module")
def written(sweep):
    return [records(run) for run in sweep]


def history(read):
    return [record["history"]["item"] for record in read if record["type"] == "history"]


def test_every_cell_is_a_run_of_its_own_grouped_by_the_sweep(sweep, written):
    runs = [record["run"] for read in written for record in read if record["type"] == "run"]
    assert len({run["run_id"] for run in runs}) == 2
    assert {run["run_group"] for run in runs} == {"night/sweep"}
    assert {run["job_type"] for run in runs} == {"smoke"}
    assert [run["display_name"] for run in runs] == [run.name for run in sweep]
    assert [("k=4" in run["tags"], "k=8" in run["tags"]) for run in runs] == [(True, False), (False, True)]
    for read in written:
        assert [record["exit"]["exit_code"] for record in read if record["type"] == "exit"] == [0]


def test_config_says_which_file_each_group_is_from(written):
    for read in written:
        [begun] = [record["run"] for record in read if record["type"] == "run" and record["run"].get("config")]
        choices = begun["config"]["update"]["choices"]
        assert (choices["experiment"], choices["network"]) == ("smoke", "demo")
        assert not [name for name in choices if name.startswith("hydra/")]


def test_config_is_the_run_s(written):
    for k, read in zip((4, 8), written, strict=True):
        config = {}
        for record in read:
            config |= record.get("config", {}).get("update", {})
        assert config["k"] == k
        assert config["looking"] == {"network": "demo", "layer": "layer4.0", "channels": 160}
        assert config["objective"]["gain"] == 1


def test_scalars_are_the_history_s_and_the_metrics_in_named_panels(sweep, written):
    for run, read in zip(sweep, written, strict=True):
        stored = read_run(run)
        items = history(read)
        panels = {name.split("/")[0] for item in items for name in item if "/" in name}
        assert panels >= {"loss", "distance", "schedule", "gradient", "metrics"}
        assert all("trainer/global_step" in item for item in items)
        [last] = [item for item in items if "loss/total" in item]
        assert last["trainer/global_step"] == 4
        assert last["loss/total"] == pytest.approx(sum(stored.history["total"][-3:]) / 3, rel=1e-5)
        norms = [item["trainer/global_step"] for item in items if "gradient/dm" in item]
        assert norms == [1, 2, 4]
        [measured] = [item for item in items if "metrics/fidelity.cosine" in item]
        assert measured["metrics/fidelity.cosine"] == stored.metrics["summary"]["fidelity"]["cosine"]
        noise = stored.metrics["baselines"]["noise"]["fidelity"]["cosine"]
        assert measured["metrics/noise/fidelity.cosine"] == noise


def test_pictures_are_there_and_not_black(sweep, written):
    for run, read in zip(sweep, written, strict=True):
        shown = [item for item in history(read) if item.get("visualization._type") == "images/separated"]
        assert [item["trainer/global_step"] for item in shown] == [0, 2, 4]
        [files] = run.glob("wandb/offline-run-*/files")
        for item in shown:
            assert len(item["visualization.filenames"]) == 3
            for name in item["visualization.filenames"]:
                assert 30 < np.asarray(Image.open(files / name)).mean() < 225
                assert Image.open(files / name).info["Software"] == "mindseye"  # and is taken for no photograph
        for key in ("map", "facets"):
            [item] = [item for item in history(read) if f"{key}.filenames" in item]
            picture = Image.open(files / item[f"{key}.filenames"][0])
            assert np.asarray(picture).std() > 10
            assert picture.info["Software"] == "mindseye"


def test_the_table_has_a_row_a_facet_with_pictures_and_measures(sweep, written):
    for run, k in zip(sweep, (4, 8), strict=True):
        [file] = run.glob("wandb/offline-run-*/files/media/table/facets_table*.json")
        table = json.loads(file.read_text())
        pictured = ["facet", "nearest photographs", "initial image", "visualization"]
        assert table["columns"][:8] == ["network", "layer", "k", "C", *pictured]
        assert [row[:5] for row in table["data"]] == [["demo", "layer4.0", k, 3, c] for c in range(3)]
        heaviest = FacetTargets.load(run / "targets").weights.amax(dim=1).tolist()
        weight = table["columns"].index("nearest photograph's weight")
        assert [row[weight] for row in table["data"]] == pytest.approx(heaviest, abs=1e-6)
        marks = [", ".join(own) for own in FacetTargets.load(run / "targets").marks()]
        assert [row[table["columns"].index("marks")] for row in table["data"]] == marks
        column = table["columns"].index("fidelity.cosine")
        facets = read_run(run).metrics["facets"]
        assert [row[column] for row in table["data"]] == [facet["fidelity"]["cosine"] for facet in facets]
        # Its pictures lie in the run folder, not in the user's own: three a facet, the photographs side by side.
        staged = [path for path in run.glob("wandb/artifacts/staging/*") if path.read_bytes()[:4] == b"\x89PNG"]
        widths = sorted(Image.open(path).width for path in staged)
        assert widths == 6 * [48] + 3 * [4 * 48]
        assert all(30 < np.asarray(Image.open(path)).mean() < 225 for path in staged)
        assert {Image.open(path).info["Software"] for path in staged} == {"mindseye"}


def test_the_artifact_is_the_run_folder(sweep, written):
    for run, read in zip(sweep, written, strict=True):
        artifacts = [record["artifact"] for record in read if record["type"] == "artifact"]
        [artifact] = [artifact for artifact in artifacts if artifact["type"] == "run"]
        held = {entry["path"]: entry for entry in artifact["manifest"]["contents"]}
        assert set(held) >= {
            "metrics.json", "config.yaml", "history.parquet", "images.safetensors", "facets/00/visualization.png",
            "gallery.html", "run.log",
        }  # fmt: skip
        assert not [name for name in held if name.split("/")[0] in ("wandb", "photographs", "checkpoint")]
        assert Path(held["metrics.json"]["local_path"]).samefile(run / "metrics.json")
        for entry in held.values():  # what an upload would find now is what was noted then
            content = Path(entry["local_path"]).read_bytes()
            assert base64.b64encode(hashlib.md5(content).digest()).decode() == entry["digest"], entry["path"]


def test_tensorboard_has_curves_and_pictures(sweep):
    for run in sweep:
        figures = {}
        for file in sorted(run.glob("tensorboard/events.out.tfevents.*")):
            for step, value in events(file):
                figures.setdefault(value.tag, []).append((step, value))
        total = dict(figures["loss/total"])
        stored = read_run(run)
        assert total[4].simple_value == pytest.approx(sum(stored.history["total"][-3:]) / 3, rel=1e-5)
        assert [step for step, _ in figures["visualization/facet_02"]] == [0, 2, 4]
        assert "measures/fidelity.cosine" in figures  # of the table of runs, HPARAMS
        assert "_hparams_/session_start_info" in figures
        assert "metrics/fidelity.cosine" in figures
        assert figures["map"][0][1].image.encoded_image_string.startswith(b"\x89PNG")


def events(file):
    """(step, value) of an event file: length, its checksum, content, its checksum; again and again."""
    from tensorboardX.proto.event_pb2 import Event

    content, at = file.read_bytes(), 0
    while at < len(content):
        [length] = struct.unpack("<Q", content[at : at + 8])
        event = Event.FromString(content[at + 12 : at + 12 + length])
        at += 16 + length
        yield from ((event.step, value) for value in event.summary.value)


def test_no_network_costs_the_tracker_and_not_the_run(tmp_path):
    done = mindseye(
        "experiment=smoke", "logger=wandb", "logger.wandb.offline=false", "logger.wandb.settings.init_timeout=3",
        "hydra.run.dir=run", cwd=tmp_path, WANDB_BASE_URL="http://127.0.0.1:9", WANDB_API_KEY="0" * 40,
        WANDB_MODE="online",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert read_run(tmp_path / "run").metrics["status"] == "completed"
    assert done.stderr.count("WandbLogger is left alone from here on, the run goes on:") == 1


def test_a_place_where_wandb_cannot_write_is_said(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "wandb").touch()
    done = mindseye("experiment=smoke", "logger=wandb", "hydra.run.dir=run", cwd=tmp_path, TMPDIR=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert read_run(tmp_path / "run").metrics["status"] == "completed"
    lines = [line for line in done.stderr.splitlines() if "wandb" in line.lower()]
    assert any("left alone" in line or "wandb cannot write to" in line for line in lines), lines


@pytest.mark.long
@pytest.mark.parametrize("name", ["RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK"])
def test_no_rank_silences_a_tracker(name, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "mindseye.commands.main", "experiment=smoke", "logger=[wandb,csv]", "hydra.run.dir=run"],
        cwd=tmp_path, env={**os.environ, name: "3"}, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "loss/total" in (tmp_path / "run" / "csv" / "metrics.csv").read_text()
    assert len(list(tmp_path.glob("run/wandb/offline-run-*/run-*.wandb"))) == 1


@pytest.mark.parametrize("loggers", ["wandb,tensorboard", "tensorboard,wandb", "csv,wandb,tensorboard"])
def test_a_tracker_that_cannot_be_made_costs_no_network_and_leaves_no_trace(loggers, tmp_path):
    """Another logger, already made, has told nobody by then; the next cell finds the environment as it was."""
    program = """
import os, sys
from mindseye.commands import composing, stages, tracking
from mindseye.commands.main import main
sys.modules["tensorboard"] = sys.modules["tensorboardX"] = None
import pytorch_lightning.loggers.tensorboard as tensorboard
import lightning_fabric.loggers.tensorboard as fabric
fabric._TENSORBOARD_AVAILABLE = fabric._TENSORBOARDX_AVAILABLE = False
tensorboard._TENSORBOARD_AVAILABLE = tensorboard._TENSORBOARDX_AVAILABLE = False
make, before = composing.make, os.environ.copy()
def made(node, place):
    assert place != "network", "the network was asked for"
    return make(node, place)
stages.make = tracking.make = made
try:
    main(sys.argv[1:])
finally:
    print({name for name in os.environ if "WANDB" in name and os.environ.get(name) != before.get(name)})
"""
    words = ["experiment=smoke", f"logger=[{loggers}]", "hydra.run.dir=run"]
    done = mindseye(*words, cwd=tmp_path, program=program)
    assert done.returncode == 1
    assert done.stderr.startswith("mindseye: logger")
    assert "the network was asked for" not in done.stderr
    assert not list(tmp_path.glob("run/wandb/offline-run-*"))
    assert not (tmp_path / "run" / "csv" / "metrics.csv").exists()
    assert done.stdout.strip() == "set()"


def test_wandb_itself_prints_nothing(swept):
    assert "wandb" not in swept[1]


def test_no_place_to_write_costs_the_tracker_and_not_the_run(tmp_path):
    (tmp_path / "file").touch()
    done = mindseye(
        "experiment=smoke", "logger=[tensorboard,csv]", f"logger.tensorboard.save_dir={tmp_path}/file",
        "hydra.run.dir=run", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("TensorBoardLogger is left alone from here on, the run goes on:") == 1
    assert "loss/total" in (tmp_path / "run" / "csv" / "metrics.csv").read_text()
    assert read_run(tmp_path / "run").metrics["status"] == "completed"


def test_wandb_that_is_not_installed_is_named_with_its_extra(monkeypatch):
    asked = {name: plain(compose([f"logger={name}"]).logger)[name] for name in ("wandb", "tensorboard", "csv")}
    check_trackers(asked)  # as it is here
    mlflow = {"mine": {"_target_": "pytorch_lightning.loggers.MLFlowLogger"}}
    for package in ("wandb", "tensorboard", "mlflow"):
        monkeypatch.setitem(sys.modules, package, None)
    check_trackers({"tensorboard": asked["tensorboard"], "wandb": None, "csv": asked["csv"]})  # there is tensorboardX
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    needed = {"wandb": r"'mindseye\[wandb\]'", "tensorboard": r"'mindseye\[tensorboard\]'"}
    for name, mend in needed.items():
        with pytest.raises(ConfigurationError, match=rf"^logger={name} needs {name}: pip install {mend}; logger=csv"):
            check_trackers({"csv": asked["csv"], name: asked[name]})
    with pytest.raises(ConfigurationError, match=r"^logger=mine needs mlflow: pip install mlflow;"):
        check_trackers(mlflow)


def test_a_sweep_whose_tracker_is_not_installed_is_refused_and_goes_on_with_another(tmp_path):
    """Before a cell or a folder is there; where the package went meanwhile, the cells go on with another tracker."""
    without = """
import sys
from mindseye.commands.main import main
sys.modules["wandb"] = None
main(sys.argv[1:])
"""
    words = ("-m", "experiment=smoke", "steps=1", "k=4,8", "logger=[wandb,csv]", "hydra.sweep.dir=sweep")
    done = mindseye(*words, cwd=tmp_path, program=without)
    assert done.returncode == 1
    assert done.stderr == "mindseye: logger=wandb needs wandb: pip install 'mindseye[wandb]'; logger=csv does without\n"
    assert list(tmp_path.iterdir()) == []
    grid = [("experiment=smoke", "steps=1", f"k={k}", "logger=[wandb,csv]", "logger.wandb.tags=[a]") for k in (4, 8)]
    cells = add_cells(tmp_path / "sweep", grid, words[1:-1], "", str(tmp_path))
    done = mindseye("sweep", "resume", "sweep", cwd=tmp_path, program=without)
    assert done.stderr.startswith("mindseye: logger=wandb needs wandb")
    done = mindseye("sweep", "resume", "sweep", "logger=csv", cwd=tmp_path, program=without)
    assert done.returncode == 0, done.stderr
    for cell in cells:
        assert (tmp_path / "sweep" / cell.folder / "csv" / "metrics.csv").is_file()
        assert not (tmp_path / "sweep" / cell.folder / "wandb").exists()


def test_tags_are_what_tells_a_run_from_others(tmp_path, monkeypatch):
    grid = [("network=resnet18", f"k={k}", "images.root=a", "logger=wandb") for k in (4, 8)]
    add_cells(tmp_path / "sweep", grid, [], "")
    node = {"_target_": "pytorch_lightning.loggers.WandbLogger", "tags": None, "group": None}
    settings = described(node, tmp_path / "run", grid[0], tmp_path / "sweep", None)
    assert settings["tags"] == ["k=4"]
    alone = described(node, tmp_path / "run", grid[0], None, None)
    assert alone["tags"] == ["network=resnet18", "k=4"]
    monkeypatch.setenv("WANDB_TAGS", "mine")
    monkeypatch.setenv("WANDB_RUN_GROUP", "ours")
    assert not {"tags", "group"} & set(described(node, tmp_path / "run", grid[0], tmp_path / "sweep", None))
    assert described({**node, "tags": ["a"]}, tmp_path / "run", grid[0], None, None)["tags"] == ["a"]


def test_all_that_says_where_a_run_is_found_can_be_set(tmp_path):
    expected = {
        "name": "ours", "tags": ["a", "b"], "notes": "why", "project": "p", "entity": "team", "group": "g",
        "resume": "must",
    }  # fmt: skip
    words = [f"logger.wandb.{key}={value if key != 'tags' else '[a,b]'}" for key, value in expected.items()]
    node = {**plain(compose(["logger=wandb", *words]).logger)["wandb"], "save_dir": str(tmp_path)}
    [tracker] = make_trackers({"wandb": node}, tmp_path, ["k=5"], sweep=tmp_path / "s", experiment=None)
    told = tracker.logger._wandb_init
    assert {key: list(told[key]) if key == "tags" else told[key] for key in expected} == expected
    left_open = plain(compose(["logger=wandb"]).logger)["wandb"]
    [tracker] = make_trackers(
        {"wandb": {**left_open, "save_dir": str(tmp_path)}}, tmp_path, ["k=5"], sweep=None, experiment=None
    )
    assert tracker.logger._wandb_init["resume"] == "allow"


def test_wandb_s_own_places_can_be_named(monkeypatch):
    monkeypatch.setenv("WANDB_PROJECT", "ours")
    words = ["logger=wandb", "logger.wandb.entity=team", "logger.wandb.notes=why"]
    check_overrides(words)
    node = plain(compose(words).logger)["wandb"]
    assert (node["project"], node["entity"], node["notes"]) == ("ours", "team", "why")
    monkeypatch.delenv("WANDB_PROJECT")
    assert plain(compose(words).logger)["wandb"]["project"] == "mindseye"

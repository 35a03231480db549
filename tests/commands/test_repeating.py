"""`mindseye --from RUN_FOLDER`: the same bytes again, and one line where something is not as it was."""

import json
import os
import shutil

import pytest
import warm
import yaml

from mindseye.commands.composing import ConfigurationError
from mindseye.commands.grammar import is_plain
from mindseye.commands.repeating import differences, read_earlier, repeated_folder

GIVEN = ["experiment=smoke", "k=6", "objective.gain=2.0", "filters=blur", "layer=layer3.0"]


def mindseye(*arguments, cwd):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "100"}
    return warm.python("-m", "mindseye.commands.main", *arguments, cwd=cwd, env=environment, timeout=240)


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    place = tmp_path_factory.mktemp("first")
    done = mindseye(*GIVEN, "hydra.run.dir=run", cwd=place)
    assert done.returncode == 0, done.stderr
    return place / "run"


def test_a_run_repeated_from_its_folder_gives_the_same_bytes(first, tmp_path):
    done = mindseye("--from", str(first), "cache=off", "hydra.run.dir=again", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "not as in" not in done.stderr
    again = tmp_path / "again"
    for name in ("images.safetensors", "targets/targets.safetensors", "facets/01/visualization.png", "history.parquet"):
        assert (first / name).read_bytes() == (again / name).read_bytes(), name
    before, now = (json.loads((place / "metrics.json").read_text()) for place in (first, again))
    assert {**before["provenance"], "config_sha256": 0, "targets": 0} == {
        **now["provenance"], "config_sha256": 0, "targets": 0,
    }  # fmt: skip


def test_what_is_given_beside_it_wins_and_the_rest_stays(first, tmp_path):
    done = mindseye(f"--from={first}", "k=4", "objective=published", "steps=1", "hydra.run.dir=again", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    config = yaml.safe_load((tmp_path / "again/config.yaml").read_text())
    assert (config["k"], config["steps"], config["layer"], config["objective"]["gain"]) == (4, 1, "layer3.0", 1.0)
    assert config["filters"]["blur"] is not None
    assert not (tmp_path / "outputs").exists()


def test_what_is_not_as_it_was_is_said_in_one_line(first, tmp_path):
    shutil.copytree(first, tmp_path / "run")
    metrics = json.loads((first / "metrics.json").read_text())
    provenance = metrics["provenance"]
    provenance["versions"]["torch"] = "1.0"
    provenance["network"]["sha256"] = provenance["photographs"]["sha256"] = "0" * 64
    provenance["device"]["name"] = "abacus"
    (tmp_path / "run/metrics.json").write_text(json.dumps(metrics))
    config = (first / "config.yaml").read_text().replace("perplexity: 30", "perplexity: 7")
    (tmp_path / "run/config.yaml").write_text(config)
    done = mindseye("--from", "run", "hydra.run.dir=again", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    [line] = [line for line in done.stderr.splitlines() if line.startswith("mindseye: not as in")]
    for difference in ("torch 1.0 →", "weights", "photographs", "device.name abacus →", "facets.perplexity 7.0 → 30.0"):
        assert difference in line


def test_equal_provenances_do_not_differ(first):
    provenance = read_earlier(first).provenance
    assert differences(provenance, provenance) == []


def test_overrides_come_from_the_folder_and_none_from_hydra(first):
    earlier = read_earlier(first)
    assert list(earlier.overrides) == GIVEN
    assert earlier.overrides_beside(["k=3", "-m", "objective=released"]) == [
        "experiment=smoke", "filters=blur", "layer=layer3.0",
    ]  # fmt: skip


def test_code_is_run_only_where_it_is_named_again(first, tmp_path):
    shutil.copytree(first, tmp_path / "run")
    words = ["network=callable", "network.target=my.py:build", "network.mean=[0.5]", "network.std=[0.5]"]
    status = json.loads((first / "status.json").read_text())
    (tmp_path / "run/status.json").write_text(json.dumps({**status, "overrides": words}))
    earlier = read_earlier(tmp_path / "run")
    with pytest.raises(ConfigurationError, match=r"giving it again: mindseye --from .* network.target=my.py:build"):
        earlier.overrides_beside(["k=3"])
    assert earlier.overrides_beside(["network.target=my.py:build"]) == [words[0], *words[2:]]


@pytest.mark.parametrize(
    "word",
    [
        "network=resnet18", "transfer=[demo,timm]", "transfer.demo.layer='6.20'", "optimizer=sgd",
        "experiment=fig1_banana", "k=10", "layer=layer3.5.conv1", "previous=null", "facets.gamma=1e-3",
        "images.root='~/my photos, and more: $5'",
        "network.weights=a/b.pth", "+optimizer.betas=[0.9, 0.99]", "network.layers={early: layer1, late: layer4.1}",
        "filters.blur.every=3", "++trainer.devices=2", "network=checkpoint", "compile=true", "+metrics.own.sigma=0.5",
        "canvas=null", "depth=early", "length=published", "network.mean=[0.5]", "schedule.lr=[0.1,0.0]", "layer=",
    ],
)  # fmt: skip
def test_plain_settings_are_taken_from_the_folder(word):
    assert is_plain(word)


def test_a_group_s_file_of_one_s_own_is_found_where_its_folder_is_given_again(first, tmp_path):
    (tmp_path / "own/experiment").mkdir(parents=True)
    (tmp_path / "own/experiment/mine.yaml").write_text("# @package _global_\nk: 7\n")
    shutil.copytree(first, tmp_path / "run")
    status = json.loads((first / "status.json").read_text())
    words = ["experiment=mine", "C=2", "steps=1", "images.count=16"]
    (tmp_path / "run/status.json").write_text(json.dumps({**status, "overrides": words}))
    done = mindseye("--from", "run", "--config-dir=own", "hydra.run.dir=again", "--cfg", "job", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load(done.stdout)["k"] == 7


@pytest.mark.parametrize(
    ("arguments", "folder", "rest"),
    [
        (["k=3"], None, ["k=3"]),
        (["--from", "a", "k=3"], "a", ["k=3"]),
        (["k=3", "--from=a b"], "a b", ["k=3"]),
        (["-m", "--from", "a", "-r"], "a", ["-m", "-r"]),
    ],
)
def test_where_the_folder_stands(arguments, folder, rest):
    found, others = repeated_folder(arguments)
    assert (None if found is None else str(found), others) == (folder, rest)


@pytest.mark.parametrize("arguments", [["--from"], ["--from", "-m"], ["k=3", "--from"]])
def test_a_folder_is_needed(arguments):
    with pytest.raises(ConfigurationError, match="needs the folder"):
        repeated_folder(arguments)


@pytest.mark.parametrize("gone", ["metrics.json", "config.yaml", "status.json"])
def test_a_folder_that_says_too_little_is_one_line(first, tmp_path, gone):
    shutil.copytree(first, tmp_path / "run")
    (tmp_path / "run" / gone).unlink()
    with pytest.raises(ConfigurationError, match="--from"):
        read_earlier(tmp_path / "run")

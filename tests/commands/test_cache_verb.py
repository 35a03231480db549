"""What is kept between runs, through the real command."""

import json
import os

import pytest
import warm

from mindseye.results.run_folder import read_run
from mindseye.sweeps.manifest import Manifest

# The real command, beside which stands who counts: per cell, how many images enter the network while its facets are
# found. (Later the pictures go through it too, and among these are photographs.)
COUNTED = """
import dataclasses, sys, torch
from mindseye.facets import discovery
from mindseye.commands.main import main

real, counts, arguments = discovery.discover_facets, sys.argv[1], sys.argv[2:]

def counted(network, *arguments, **settings):
    batches = []

    def enter(body, images):
        if isinstance(images[0], torch.Tensor):
            batches.append(len(images[0]))

    handle = network.body.register_forward_pre_hook(enter)
    found = real(network, *arguments, **settings)
    handle.remove()
    with open(counts, "a") as file:
        print(sum(batches), dataclasses.replace(found, root="").content_hash(), file=file)
    return found

discovery.discover_facets = counted
main(arguments)
"""


def python(*arguments, cwd, cache=None):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "100"}
    if cache is not None:
        environment["MINDSEYE_CACHE"] = str(cache)
    return warm.python(*arguments, cwd=cwd, env=environment, timeout=280)


def mindseye(*arguments, cwd, cache=None):
    return python("-m", "mindseye.commands.main", *arguments, cwd=cwd, cache=cache)


def counted(*arguments, cwd, cache=None):
    """Per cell: how many images entered the network during discovery, and the hash of what was found."""
    done = python("-c", COUNTED, "counts", *arguments, "experiment=smoke", "steps=1", cwd=cwd, cache=cache)
    assert done.returncode == 0, done.stderr
    lines = (cwd / "counts").read_text().split()
    (cwd / "counts").unlink()
    return [int(count) for count in lines[::2]], lines[1::2]


def test_a_sweep_over_k_C_gain_and_objective_looks_at_the_photographs_once(tmp_path):
    cells = ["-m", "k=5,10", "C=2,3", "hydra.sweep.dir=sweep"]
    counts, hashes = counted(*cells, cwd=tmp_path, cache=tmp_path / "cache")
    # An image of zeros first, which says how many channels k may be of; and for each C the photographs that stand for
    # its facets once more, N = 4 each, for what the layers on the way answer to them.
    assert counts == [1 + 24 + 2 * 4, 3 * 4, 0, 0]
    last = list(Manifest.read(tmp_path / "sweep").cells.values())[-1]
    log = (tmp_path / "sweep" / last.folder / "run.log").read_text()
    assert log.count("from the cache") == 1
    assert "survey, embedding, clusters" in log
    other = ["-m", "objective=calibrated,published", "objective.gain=3", "hydra.sweep.dir=later"]
    counts, later = counted(*other, cwd=tmp_path, cache=tmp_path / "cache")
    assert counts == 2 * [0]
    assert len({*hashes, *later}) == 6


def test_without_a_cache_nothing_is_written_and_the_same_comes_out(tmp_path):
    runs = {}
    for folder, *overrides in (
        ("on", f"cache.folder={tmp_path / 'here'}"),
        ("again", f"cache.folder={tmp_path / 'here'}"),
        ("off", "cache=off"),
        ("unwritable", "cache.folder=/proc/no/such"),
    ):
        runs[folder] = counted(*overrides, f"hydra.run.dir={folder}", cwd=tmp_path, cache=tmp_path / "other")
    assert [count for [count], _ in runs.values()] == [1 + 24 + 3 * 4, 0, 1 + 24 + 3 * 4, 1 + 24 + 3 * 4]
    assert len({name for _, [name] in runs.values()}) == 1
    assert len({(tmp_path / folder / "images.safetensors").read_bytes() for folder in runs}) == 1
    assert not (tmp_path / "other").exists()
    assert (tmp_path / "unwritable" / "run.log").read_text().count("going on without it") == 1
    assert all(read_run(tmp_path / folder).metrics["status"] == "completed" for folder in runs)


def test_another_network_that_judges_is_asked_once_too(tmp_path):
    for folder in ("first", "second"):
        judged = ["transfer=demo", "transfer.demo.layer=layer3.0", f"hydra.run.dir={folder}"]
        assert mindseye("experiment=smoke", "steps=1", *judged, cwd=tmp_path, cache=tmp_path / "c").returncode == 0
    shown = mindseye("cache", cwd=tmp_path, cache=tmp_path / "c").stdout
    assert shown.count("survey") == 2
    pictures = [
        json.loads((tmp_path / folder / "metrics.json").read_text())["facets"] for folder in ("first", "second")
    ]
    assert pictures[0] == pictures[1]


def test_the_verb_shows_and_clears(tmp_path):
    cache = tmp_path / "c"
    empty = mindseye("cache", cwd=tmp_path, cache=cache)
    assert empty.returncode == 0
    assert f"{cache}: 0 entries" in empty.stdout
    assert not cache.exists()
    mindseye("experiment=smoke", "steps=1", "hydra.run.dir=run", cwd=tmp_path, cache=cache)
    (cache / "mine.txt").write_text("mine")
    shown = mindseye("cache", "cache.limit_gb=1.5", cwd=tmp_path, cache=cache).stdout
    assert "4 entries" in shown
    assert "of 1.5 GB" in shown
    for word in ("survey", "embedding", "clusters", "way", "demo", "layer4.0", "24 × 48²"):
        assert word in shown
    named = mindseye("cache", "clear", f"cache.folder={cache}", cwd=tmp_path)
    assert "4 entries deleted" in named.stdout
    assert [path.name for path in cache.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["cache", "empty"], "takes clear and cache.folder=FOLDER, not empty"),
        (["cache", "cache.folder=/proc/version"], "cannot be used"),
        (["cache", "clear", "cache.folder=/proc/version"], "cannot be used"),
        (["cache", "cache.limit_gb=0"], "no cache"),
        (["cache", "cache.limit=3"], "cache.limit_gb"),
        (["experiment=smoke", "cache.limit_gb=-1"], "0 or more, not -1"),
        (["experiment=smoke", "cache=sometimes"], "there are off, on"),
    ],
)
def test_what_is_wrong_costs_one_line(words, message, tmp_path):
    done = mindseye(*words, cwd=tmp_path)
    assert done.returncode == 1
    [line] = done.stderr.strip().splitlines()
    assert line.startswith("mindseye: ")
    assert message in line

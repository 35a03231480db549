"""Whatever is fed to what reads files and names: an answer, or one line that says what is wrong."""

import contextlib
import json
import os
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from mindseye.commands.figures import of_run
from mindseye.commands.gallery import make_gallery
from mindseye.commands.repeating import read_earlier
from mindseye.facets import FacetTargets
from mindseye.facets.photographs import UnreadablePhotograph, read_photograph
from mindseye.networks.layers import resolve_layer
from mindseye.reports.ablation import compare
from mindseye.results.run_folder import read_run, snapshot_files
from mindseye.results.run_status import read_status
from mindseye.sweeps.manifest import Manifest, add_cells
from mindseye.sweeps.status import read_sweep
from mindseye.sweeps.summary import read_rows, write_summary

KEPT = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
# The same examples every time: what a suite finds today it must find tomorrow.
FEW = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=KEPT)
MANY = settings(max_examples=2000, deadline=None, derandomize=True, suppress_health_check=KEPT)


@contextlib.contextmanager
def one_line(*kinds):
    """Nothing but these errors, each a line."""
    try:
        yield
    except kinds as error:
        message = str(error)
    else:
        message = "fine"
    assert message.strip()
    assert "\n" not in message


# ---- pictures ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """One small file of each format, as bytes by its suffix."""
    place = tmp_path_factory.mktemp("pictures")
    image = Image.linear_gradient("L").resize((20, 12)).convert("RGB")
    for suffix in ("jpg", "png", "webp", "tif", "gif", "bmp", "ppm", "jp2"):
        image.save(place / f"a.{suffix}")
    import numpy as np

    np.save(place / "a.npy", np.zeros((3, 9, 9), np.uint8))
    return {path.suffix: path.read_bytes() for path in sorted(place.iterdir())}


edits = st.lists(
    st.tuples(
        st.floats(0, 1, exclude_max=True), st.sampled_from(("set", "cut", "insert", "double")), st.binary(max_size=9)
    ),
    max_size=6,
)


def edited(content, changes):
    content = bytearray(content)
    for where, how, new in changes:
        place = int(where * len(content))
        if how == "set":
            content[place : place + len(new)] = new
        elif how == "cut":
            del content[place:]
        elif how == "insert":
            content[place:place] = new
        else:
            content[place:place] = content[max(0, place - 9) : place]
    return bytes(content)


def read_one(pictures, path, suffix, changes, size, channels):
    file = path / f"a{suffix}"
    file.write_bytes(edited(pictures[suffix], changes))
    with one_line(UnreadablePhotograph):
        image = read_photograph(file, size, channels)
        assert image.shape == (channels, size, size)
        assert image.dtype == torch.uint8


SUFFIXES = st.sampled_from((".jpg", ".png", ".webp", ".tif", ".gif", ".bmp", ".ppm", ".jp2", ".npy"))


@FEW
@given(suffix=SUFFIXES, changes=edits, size=st.integers(1, 40), channels=st.sampled_from((1, 3)))
def test_any_bytes_are_a_picture_or_one_line(pictures, tmp_path, suffix, changes, size, channels):
    read_one(pictures, tmp_path, suffix, changes, size, channels)


@pytest.mark.long
@MANY
@given(suffix=SUFFIXES, changes=edits, size=st.integers(1, 40), channels=st.sampled_from((1, 3)))
def test_thousands_of_damaged_pictures(pictures, tmp_path, suffix, changes, size, channels):
    read_one(pictures, tmp_path, suffix, changes, size, channels)


# ---- names of layers ----------------------------------------------------------------------------------------------

names = st.one_of(
    st.text(max_size=40),
    st.lists(
        st.sampled_from(("layer", "layer1", "4", "6", "0", "conv1", "downsample", ".", "@", "..", "²", "9" * 30)),
        max_size=8,
    ).map("".join),
    st.sampled_from(("layer3.0", "6.0.conv1", "layer6.0", "conv1@0", "weight", "__class__", "training", "forward")),
)  # fmt: skip


@settings(FEW, max_examples=200)
@given(name=names)
def test_any_name_is_a_layer_or_one_line(network, name):
    with one_line(ValueError):
        path, call = resolve_layer(network.body, name)
        assert network.body.get_submodule(path) is not network.body
        assert call is None or call >= 0


# ---- run folders --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole_run(network, targets, tmp_path_factory):
    """A sweep of one real run, drawn in two steps."""
    import mindseye as me

    sweep = tmp_path_factory.mktemp("sweep")
    [cell] = add_cells(sweep, [("k=8",)], ["k=8"], "0" * 64)
    result = me.visualize(network, targets, me.Method(steps=2), me.Running(snapshots=1, accelerator="cpu"))
    result.save(sweep / cell.folder, config="k: 8\n")
    targets.save(sweep / cell.folder / "targets")
    status = {"status": "completed", "overrides": ["k=8"]}
    (sweep / cell.folder / "status.json").write_text(json.dumps(status))
    return sweep


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.just("../../x"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(
        ("facets", "facet", "provenance", "network", "name", "timing", "summary", "cells", "id", "folder", "format",
         "overrides", "commands", "path", "weight", "status", "step", "a.b", "", "layer", "paths")), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip
FILES = (
    "metrics.json", "images.safetensors", "history.parquet", "config.yaml", "status.json", "facets/00/photographs.json",
    "facets/00/nearest.png", "facets/01/steps/0001.webp", "targets/targets.json", "targets/targets.safetensors",
    "../manifest.json",
)  # fmt: skip


def damage(place, name, changes, value, how):
    """Bytes changed, or JSON of another kind within or in place of the file's, or the file gone or a folder."""
    path = place / name
    content = path.read_bytes()
    if how == "bytes" or (how in ("within", "json") and path.suffix not in (".json", ".yaml", ".parquet")):
        path.write_bytes(edited(content, changes))
    elif path.suffix == ".parquet":
        column = value if isinstance(value, list) else [value]
        with contextlib.suppress(Exception):  # not every list is a column
            pq.write_table(pa.table({"step": column, "facet": column}), path)
    elif how == "json":
        path.write_text(json.dumps(value))
    elif how == "within":
        settings = json.loads(content) if path.suffix == ".json" else {"k": 8}
        if isinstance(settings, dict) and settings:
            settings[sorted(settings)[len(changes) % len(settings)]] = value
        elif settings:
            settings[0] = value
        path.write_text(json.dumps(settings))
    else:
        path.unlink()
        if how == "folder":
            path.mkdir()


def read_all(sweep):
    """Everything that reads run folders, on one that may be damaged."""
    [place] = [path for path in sweep.iterdir() if path.is_dir()]
    read_status(place)
    with one_line(ValueError):
        read_run(place)
    with one_line(ValueError):
        snapshot_files(place)
    with one_line(ValueError):
        FacetTargets.load(place / "targets")
    with one_line(ValueError):
        read_earlier(place)
    with one_line(ValueError):
        Manifest.read(sweep)
    with one_line(ValueError, OSError):
        make_gallery(sweep)
    with one_line(ValueError):
        rows = read_rows(read_sweep(sweep))
        write_summary(sweep, rows)
        compare(rows, "k", "8")
    return place


hows = st.sampled_from(("bytes", "json", "within", "within", "gone", "folder"))


def one_damaged(whole_run, place, name, changes, value, how):
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(whole_run, place)
    [run] = [path for path in place.iterdir() if path.is_dir()]
    damage(run, name, changes, value, how)
    return read_all(place)


@FEW
@given(name=st.sampled_from(FILES), changes=edits, value=json_values, how=hows)
def test_any_run_folder_is_read_or_one_line(whole_run, tmp_path, name, changes, value, how):
    one_damaged(whole_run, tmp_path / "run", name, changes, value, how)


@pytest.mark.long
@settings(MANY, max_examples=120)
@given(name=st.sampled_from(FILES), changes=edits, value=json_values, how=hows)
def test_hundreds_of_damaged_run_folders_and_their_figures(whole_run, tmp_path, name, changes, value, how):
    run = one_damaged(whole_run, tmp_path / "run", name, changes, value, how)
    if Path(name).parts[0] in ("targets", "facets", "images.safetensors"):
        with one_line(ValueError, OSError):
            of_run(run, None, 1, None)


def test_the_whole_one_is_read(whole_run, tmp_path):
    shutil.copytree(whole_run, tmp_path / "run")
    run = read_all(tmp_path / "run")
    assert len(read_run(run).images) == 3
    assert os.listdir(tmp_path / "run" / run.name)
    assert (tmp_path / "run/gallery.html").is_file()
    assert set(of_run(run, None, 1, None)) == {"fig1_visualizations", "fig2_feature_space", "fig3_iterations"}

import base64
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import nn

import mindseye as me
from mindseye.facets.decoding import UnreadablePhotograph
from mindseye.facets.photographs import load_photographs
from mindseye.facets.pictures import to_picture
from mindseye.reports.figures import save_figure
from mindseye.reports.gallery.collecting import ListedRun, collect
from mindseye.results.pictures import contact_sheet, facet_labels, from_picture
from mindseye.results.run_folder import read_run, write_atomically


@pytest.fixture(scope="module")
def result(network, targets):
    return me.visualize(network, targets, me.Method(steps=4), me.Running(snapshots=2, accelerator="cpu"))


def test_a_run_folder_is_read_back_as_it_was(result, tmp_path):
    folder = result.save(tmp_path / "run", config="k: 8\n")
    stored = read_run(folder)
    assert torch.equal(stored.images, result.images)
    assert stored.metrics == json.loads(json.dumps(result.metrics))
    assert stored.history["total"] == pytest.approx(result.fit.history["total"])
    assert (folder / "config.yaml").read_text() == "k: 8\n"


def test_everything_the_folder_promises(result, targets, tmp_path):
    folder = result.save(tmp_path / "run", config="")
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    steps = {"steps/0002.webp", "steps/0004.webp"}
    small = {f"photographs/{n:02d}.webp" for n in range(targets.chosen.shape[1])}
    facet = {"visualization.png", "initial.png", "nearest.png", "photographs.json", *steps, *small}
    facet |= {"where.json", "heat.webp", "crops.webp", "transparency.webp"}
    expected = {"config.yaml", "metrics.json", "history.parquet", "images.safetensors", "facets.png"}
    expected |= {"features.safetensors"}
    expected |= {"targets/targets.json", "targets/targets.safetensors"}
    assert files == expected | {f"facets/{c:02d}/{name}" for c in range(3) for name in facet}
    shown = np.asarray(Image.open(folder / "facets/01/visualization.png"))
    assert np.abs(shown / 255 - result.images[1].permute(1, 2, 0).numpy()).max() <= 0.5 / 255 + 1e-6
    listed = json.loads((folder / "facets/02/photographs.json").read_text())
    assert sum(entry["weight"] for entry in listed) == pytest.approx(1, abs=1e-4)
    assert [entry["weight"] for entry in listed] == sorted((entry["weight"] for entry in listed), reverse=True)
    assert listed[0]["path"] in targets.paths
    heaviest = int(targets.weights[2].argmax())
    small = np.asarray(Image.open(folder / "facets/02/photographs/00.webp")).astype(int)
    assert np.abs(small - targets.photographs[2, heaviest].permute(1, 2, 0).numpy()).mean() < 8


def test_what_is_drawn_is_no_photograph_by_whatever_name_it_goes(result, tmp_path):
    run, place = result.save(tmp_path / "run", config=""), tmp_path / "photographs"
    facet = run / "facets" / "00"
    drawn = [run / "facets.png", facet / "initial.png", facet / "visualization.png", facet / "transparency.webp"]
    drawn += [path for path in save_figure(Figure(), tmp_path / "fig1") if path.suffix == ".png"]
    drawn += sorted((facet / "steps").glob("*.webp"))[-1:]
    place.mkdir()
    for number, picture in enumerate(drawn):
        shutil.copy(picture, place / f"holiday {number}{picture.suffix}")
    Image.open(drawn[0]).save(place / "saved anew.png")  # by whoever wants it as one
    shutil.copy(facet / "nearest.png", place / "the nearest.png")  # which is a photograph
    photographs = load_photographs(place, 8)
    assert len(photographs) == 2 + len(drawn) == 8
    for index in range(len(drawn)):
        with pytest.raises(UnreadablePhotograph, match="is a picture that mindseye has drawn"):
            photographs.read(index)
    assert photographs.read(len(drawn)).shape == photographs.read(len(drawn) + 1).shape == (3, 8, 8)


def test_what_a_notebook_shows_is_no_photograph_where_it_is_saved(result, targets, photographs, tmp_path):
    shown = "".join(value._repr_html_() for value in (result, targets, photographs))
    pictures = re.findall(r"data:image/png;base64,([^\"]+)", shown)
    assert len(pictures) == 1 + 2 * targets.C + 1
    for number, picture in enumerate(pictures):
        (tmp_path / f"{number}.png").write_bytes(base64.b64decode(picture))
    found = load_photographs(tmp_path, 8)
    for index in range(len(pictures)):
        with pytest.raises(UnreadablePhotograph, match="is a picture that mindseye has drawn"):
            found.read(index)


def test_metrics_have_the_names_that_other_tools_rely_on(result):
    metrics = result.metrics
    for figures in (metrics["summary"], *metrics["baselines"].values(), *metrics["facets"]):
        assert set(figures["fidelity"]) >= {"cosine", "relative_distance", "magnitude"}
        assert "selectivity" in figures
        assert "tv" in figures["naturalness"]
    assert set(metrics["baselines"]) == {"initial", "nearest", "noise"}
    assert set(metrics["timing"]) >= {"fit_s", "step_ms"}
    assert metrics["status"] == "completed"
    assert metrics["photographs"] == {"used": 24, "skipped": 0, "skipped_files": []}
    assert len(metrics["provenance"]["network"]["sha256"]) == 64


def test_the_previous_layer_may_be_named_as_in_the_paper(photographs):
    resnet = me.load_network("resnet18", weights=None, size=48)
    targets = me.discover_facets(resnet, photographs, "layer2.0", me.Facets(C=2, k=5, N=3))
    penalties = [
        me.visualize(resnet, targets, me.Method(steps=1, previous=previous), me.Running(accelerator="cpu")).fit.history[
            "penalty"
        ]
        for previous in ("4.0", "layer1.0", None)
    ]
    assert penalties[0] == penalties[1] != penalties[2]


@pytest.mark.parametrize("name", ["images.safetensors", "history.parquet"])
def test_a_flipped_bit_is_seen(name, result, tmp_path):
    """Wherever it is: neither safetensors nor Parquet has a sum of its own that is checked."""
    folder = result.save(tmp_path / "run")
    content = (folder / name).read_bytes()
    for place in (len(content) // 3, len(content) // 2, len(content) - 9):
        flipped = bytearray(content)
        flipped[place] ^= 1
        (folder / name).write_bytes(flipped)
        with pytest.raises(ValueError, match="damaged"):
            read_run(folder)
    if name == "history.parquet":
        listed = collect(tmp_path, [ListedRun("run")])["overview"]["runs"][0]
        assert (listed["status"], listed["reason"][:9]) == ("completed", "no curves")


def test_a_run_of_a_version_without_hashes_is_read(result, tmp_path):
    folder = result.save(tmp_path / "run")
    metrics = json.loads((folder / "metrics.json").read_text())
    assert set(metrics.pop("files")) == {"images.safetensors", "history.parquet"}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    assert read_run(folder).metrics == metrics


def test_a_folder_without_metrics_is_no_run(result, tmp_path):
    folder = result.save(tmp_path / "run")
    (folder / "metrics.json").unlink()
    with pytest.raises(ValueError, match="no completed run"):
        read_run(folder)
    result.save(folder)
    (folder / "images.safetensors").write_bytes(b"\x00")
    with pytest.raises(ValueError, match="damaged"):
        read_run(folder)


WRITE = """
import os, signal, sys
from pathlib import Path
from mindseye import files

left = int(sys.argv[2])

def trace(frame, event, argument):
    global left
    if frame.f_code.co_filename != files.__file__:
        return None
    if event == "line":
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
    return trace

sys.settrace(trace)
files.write_atomically(Path(sys.argv[1]), b"new" * 70_000)
"""


def test_a_writer_killed_before_any_of_its_lines_leaves_the_old_file_or_the_new_one(tmp_path):
    """A real process, killed with SIGKILL before each line of the writing in turn."""
    path = tmp_path / "file"
    old, new = b"old" * 70_000, b"new" * 70_000
    contents = []
    for lines in range(100):
        path.write_bytes(old)
        writer = subprocess.run([sys.executable, "-c", WRITE, str(path), str(lines)], check=False)
        contents.append(path.read_bytes())
        if writer.returncode == 0:
            break
        assert writer.returncode == -signal.SIGKILL
    assert len(contents) > 8  # that many lines at least were come to
    changed = contents.index(new)
    assert set(contents[:changed]) == {old}
    assert set(contents[changed:]) == {new}


def test_a_file_is_on_the_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    """Else a machine that stops may leave the name with nothing in it."""
    done = []

    def fsync(descriptor):
        done.append(os.fstat(descriptor).st_size)

    def replace(source, destination):
        done.append(Path(destination).name)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    write_atomically(tmp_path / "file", bytes(200_000))
    assert done == [200_000, "file"]


def test_what_a_killed_writer_left_half_written_goes_with_the_next_run(result, tmp_path):
    others = (".gallery.html.12-0123abcd", ".notes.txt", ".a.12-0123", "other/.a.1-0123abcd")
    kept = [tmp_path / name for name in others]
    left = [tmp_path / name for name in (".status.json.12-0123abcd", "targets/.a.json.7-00000000", ".writing/facets/a")]
    left += [tmp_path / "facets/00" / name for name in (".initial.png.1-aaaaaaaa", "steps/.0001.webp.99-0a0b0c0d")]
    for path in (*kept, *left):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("half")
    result.save(tmp_path)
    assert all(path.exists() for path in kept)
    assert not any(path.exists() for path in left)


@pytest.mark.parametrize("name", ["facets/mine.txt", "targets/shooting.md"])
def test_a_folder_of_somebody_s_own_is_not_replaced(result, tmp_path, name):
    (tmp_path / name).parent.mkdir()
    (tmp_path / name).write_text("mine")
    with pytest.raises(ValueError, match="which is no run's: save the run in another folder"):
        result.save(tmp_path)
    assert (tmp_path / name).read_text() == "mine"
    assert not (tmp_path / "metrics.json").exists()


def test_a_write_that_fails_leaves_nothing_behind(tmp_path):
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError):  # noqa: PT011 - which one depends on the system
        write_atomically(tmp_path / "taken", b"content")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


@pytest.mark.parametrize("ch", [1, 2, 3, 6])
def test_pictures_of_any_number_of_channels(ch):
    picture = to_picture(torch.full((ch, 4, 4), 0.5))
    assert picture.mode == ("RGB" if ch >= 3 else "L")
    assert set(np.asarray(picture).ravel()) == {128}


def test_contact_sheet_shows_every_picture_unscaled_where_it_is_large_enough(targets, result):
    sheet = contact_sheet(targets, result.images, facet_labels(targets, result.metrics["facets"]), title="a", tile=48)
    array = np.asarray(sheet).astype(int)
    for picture in (targets.initial[2], result.images[0], targets.nearest()[1]):
        wanted = np.asarray(to_picture(picture)).astype(int)
        windows = np.lib.stride_tricks.sliding_window_view(array[..., 0], (48, 48))
        nearest = np.abs(windows[:, :, ::6, ::6] - wanted[::6, ::6, 0]).sum(axis=(2, 3)).min()
        assert nearest == 0


def test_a_run_read_back_has_its_targets_and_settings(tmp_path, network, targets):
    result = me.visualize(network, targets, me.Method(steps=1), me.Running(accelerator="cpu"))
    again = read_run(result.save(tmp_path / "run", config="k: 8\nfacets: {N: 4}\n"))
    assert again.settings == {"k": 8, "facets": {"N": 4}}
    assert again.targets.content_hash() == targets.content_hash()
    assert read_run(result.save(tmp_path / "bare")).settings == {}
    for damaged in ("[1]", "a: &a [1]\nb: *a", "a: ["):
        (tmp_path / "run" / "config.yaml").write_text(damaged)
        with pytest.raises(ValueError, match=r"config.yaml is damaged") as error:
            read_run(tmp_path / "run").settings  # noqa: B018
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("bands", [(), (5, 3, 1)])
def test_every_band_of_six_is_seen_and_those_in_colour_are_named_and_chosen(bands, tmp_path):
    generator = torch.Generator().manual_seed(0)
    layer = nn.Sequential(nn.Conv2d(6, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3))
    network = me.load_network(layer, mean=[0.5] * 6, std=[0.25] * 6, size=32)
    for number in range(12):
        np.save(tmp_path / f"{number}.npy", torch.rand(6, 32, 32, generator=generator).numpy())
    shown = me.load_photographs(tmp_path, 32, 6)
    targets = replace(me.discover_facets(network, shown, "2", me.Facets(C=2, k=2, N=3)), bands=bands)
    again = me.FacetTargets.load(targets.save(tmp_path / "targets"))
    assert again.bands == bands
    result = me.visualize(network, targets, me.Method(steps=1), me.Running(accelerator="cpu"))
    assert f"bands {'5, 3, 1' if bands else '0, 1, 2'} of 6 as red, green, blue" in result.subtitle
    place = result.save(tmp_path / "run")
    drawn = from_picture(place / "facets" / "00" / "visualization.png").float() / 255
    assert torch.allclose(drawn, result.images[0, list(bands or (0, 1, 2))], atol=0.003)
    with Image.open(place / "bands.png") as sheet:
        assert sheet.width > 6 * 96
        assert sheet.height > 4 * 96
    with pytest.raises(ValueError, match="bands must be three numbers of 0 to 5"):
        replace(targets, bands=(0, 1, 6))._check()

"""Which files of a folder are photographs: all that can be decoded, none that mindseye or a file server has made."""

import json
import logging
import shutil

import numpy as np
import pytest
from PIL import Image

from mindseye.facets.decoding import NOT_DECODED
from mindseye.facets.photographs import load_photographs
from mindseye.files import write_atomically
from mindseye.reports.gallery import ListedRun, copy_gallery
from mindseye.results.run_status import RunRecord, RunStatus, write_status
from mindseye.sweeps.manifest import add_cells


@pytest.fixture
def place(tmp_path):
    """A folder with one photograph in it."""
    Image.new("RGB", (8, 8), "olive").save(tmp_path / "mine.png")
    return tmp_path


SAVED = (
    ("jfif", "JPEG"), ("jpe", "JPEG"), ("JPG", "JPEG"), ("tga", "TGA"), ("pnm", "PPM"), ("pbm", "PPM"), ("dib", "DIB"),
    ("pcx", "PCX"), ("ico", "ICO"), ("sgi", "SGI"), ("jpx", "JPEG2000"), ("apng", "PNG"), ("dds", "DDS"),
    ("qoi", "QOI"),
)  # fmt: skip


def test_every_format_that_is_decoded_is_found_by_its_names(place):
    Image.init()
    written = {"mine.png"}
    for suffix, form in SAVED:
        if form in Image.SAVE:  # older Pillows write no QOI
            Image.new("RGB", (16, 16), (128,) * 3).save(place / f"{suffix}.{suffix}", form)
            written.add(f"{suffix}.{suffix}")
    photographs = load_photographs(place, 16)
    assert set(photographs.paths) == written
    for index in range(len(photographs)):
        assert photographs.read(index).shape == (3, 16, 16)


@pytest.mark.parametrize(
    "name",
    [
        "a.heic", "a.HEIC", "a.jxl", "a.dng", "a.CR3", "a.dcm", "a.svg", "a.npz",
        "a.exr", "a.nii", "a.czi", "a.eps", "a.nii.gz", "a.dcm.bz2",
    ],
)
def test_pictures_that_nothing_here_reads_are_named(name, place):
    (place / name).write_bytes(b"whatever it is")
    [skipped] = load_photographs(place, 8).skipped
    assert skipped.path == name
    assert f"nothing here reads {name[1:].lower().removesuffix('.gz').removesuffix('.bz2')}" in skipped.reason


@pytest.mark.parametrize("name", ["a.png.gz", "a.JPG.GZ", "a.tif.zst", "a.npy.xz", "scan 1.2.jpeg.zip"])
def test_packed_pictures_are_named(name, place):
    (place / name).write_bytes(b"packed")
    (place / "labels.txt.gz").write_bytes(b"no picture")
    [skipped] = load_photographs(place, 8).skipped
    assert skipped.path == name
    assert skipped.reason.endswith(": unpack it")


@pytest.mark.parametrize("name", ["IMG_0001", "a.jpg_original", "a.jpeg~", "a.png?size=large", "a.blob"])
def test_so_are_pictures_whose_names_do_not_say_so(name, place):
    shutil.copy(place / "mine.png", place / name)
    photographs = load_photographs(place, 8)
    assert photographs.paths == ("mine.png",)
    assert [file.path for file in photographs.skipped] == [name]
    np.save(place / "array", np.zeros((8, 8)))
    (place / "array.npy").rename(place / "array")
    assert len(load_photographs(place, 8).skipped) == 2


def test_lists_and_notes_are_passed_over_in_silence(place, caplog):
    names = ("labels.csv", "factors.json", "readme.txt", "LICENSE", "a.xml", "a.mp4", "Thumbs.db", "a.mat", "a.h5")
    for name in names:
        (place / name).write_text("no picture")
    photographs = load_photographs(place, 8)
    assert (photographs.paths, photographs.skipped, caplog.text) == (("mine.png",), (), "")


@pytest.mark.parametrize("name", ["@eaDir", "#recycle", "#snapshot", "$RECYCLE.BIN", "__MACOSX", "lost+found"])
def test_what_servers_keep_beside_photographs_is_none(name, place, caplog):
    (place / "class" / name).mkdir(parents=True)
    shutil.copy(place / "mine.png", place / "class" / name / "SYNOPHOTO_THUMB_S.jpg")
    with caplog.at_level(logging.WARNING):
        assert load_photographs(place, 8).paths == ("mine.png",)
    assert f"class/{name} below" in caplog.text
    assert len(caplog.records) == 1


# ---- its own -----------------------------------------------------------------------------------------------------


def add_picture(folder, name="facets/00/visualization.png"):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), "teal").save(folder / name)


def completed(folder, make_run):
    make_run(folder)
    add_picture(folder, "facets.png")


def saved_from_python(folder, make_run):
    make_run(folder)
    (folder / "status.json").unlink()
    (folder / "config.yaml").unlink()


def at_work(folder, make_run):
    """Before it has anything else: as the run that looks for its photographs finds itself."""
    with RunRecord(folder, ["k=4"], "key"):
        add_picture(folder, "photographs/padlock.png")
        shutil.copytree(folder, folder.with_name("copy"))
    shutil.rmtree(folder)
    folder.with_name("copy").rename(folder)


def failed(folder, make_run):
    write_status(folder, RunStatus(status="failed", reason="no memory"))
    (folder / "run.log").write_text("…")
    add_picture(folder, "photographs/padlock.png")


def killed_at_a_checkpoint(folder, make_run):
    failed(folder, make_run)
    add_picture(folder, "checkpoint/scratch.png")


def a_sweep(folder, make_run):
    [cell] = add_cells(folder, [("k=4",)], ["k=4"], "")
    make_run(folder / cell.folder)
    add_picture(folder, "figures/fig4_layers.png")


def a_sweep_whose_cell_is_no_run_yet(folder, make_run):
    [cell] = add_cells(folder, [("k=4",)], ["k=4"], "")
    add_picture(folder / cell.folder, "photographs/padlock.png")


def a_copied_gallery(folder, make_run):
    run = make_run(folder.parents[2] / "elsewhere")
    copy_gallery(run, folder, [ListedRun(".", RunStatus(status="completed"))])


@pytest.mark.parametrize(
    "make",
    [
        completed, saved_from_python, at_work, failed, killed_at_a_checkpoint, a_sweep,
        a_sweep_whose_cell_is_no_run_yet, a_copied_gallery,
    ],
)  # fmt: skip
def test_what_mindseye_has_made_is_left_out_in_one_line(make, tmp_path, make_run, caplog):
    place = tmp_path / "shown"
    place.mkdir()
    Image.new("RGB", (8, 8)).save(place / "mine.png")
    make(place / "outputs" / "2026-11-28", make_run)
    with caplog.at_level(logging.WARNING):
        photographs = load_photographs(place, 8)
    assert photographs.paths == ("mine.png",)
    assert not photographs.skipped
    assert [record.getMessage().partition(" below")[0] for record in caplog.records] == ["outputs/2026-11-28"]
    for number in range(3):
        make_run(place / "outputs" / str(number))
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        assert load_photographs(place, 8).paths == ("mine.png",)
    [record] = caplog.records
    assert "outputs/0 and 3 more" in record.getMessage()


def test_so_are_what_a_tracker_keeps_and_figures_wherever_they_are_written(place, caplog):
    """logger.wandb.save_dir and `mindseye figures --out` may name any folder; `mindseye facets` writes where one is."""
    facets_picture = "number-of-facets.png"
    add_picture(place, "wandb/offline-run-20261128_104500-0a1b2c3d/files/media/images/facets_1.png")
    for suffix in ("png", "pdf"):
        (place / f"fig1_visualizations.{suffix}").write_bytes((place / "mine.png").read_bytes())
    (place / facets_picture).write_bytes((place / "mine.png").read_bytes())
    (place / "fig4_tree.png").write_bytes((place / "mine.png").read_bytes())  # somebody's own
    photographs = load_photographs(place, 8)
    assert (photographs.paths, photographs.skipped) == (("fig4_tree.png", "mine.png"), ())
    [record] = caplog.records
    assert "and 3 more" in record.getMessage()


def test_a_facet_is_known_wherever_it_was_copied_to(place, make_run, tmp_path_factory):
    run = make_run(tmp_path_factory.mktemp("elsewhere"))
    shutil.copytree(run / "facets", place / "best ones")
    shutil.copytree(run / "facets" / "00", place / "class")
    shutil.copy(place / "mine.png", place / "class" / "another.png")  # somebody's own among them
    assert load_photographs(place, 8).paths == ("class/another.png", "mine.png")


def test_a_run_written_among_photographs_leaves_them_photographs(place, make_run):
    """hydra.run.dir, or a name given to `Visualization.save`, may be a folder of photographs, the root among them."""
    (place / "class").mkdir()
    shutil.copy(place / "mine.png", place / "class" / "mine.png")
    for folder in (place, place / "class"):
        make_run(folder)
        add_picture(folder, "facets.png")
        add_picture(folder, "figures/fig1.png")
    assert load_photographs(place, 8).paths == ("class/mine.png", "mine.png")


def test_the_photographs_of_a_run_are_read_where_it_is_named(place, make_run):
    """The demo's drawn ones lie in its run folder."""
    run = make_run(place / "outputs" / "run")
    add_picture(run, "photographs/padlock.png")
    assert load_photographs(run, 8).paths == ("photographs/padlock.png",)
    assert load_photographs(run / "photographs", 8).paths == ("padlock.png",)


def test_files_of_the_same_names_that_are_not_its_own_leave_a_folder_as_it_is(place):
    folder = place / "album"
    add_picture(folder, "cover.png")
    add_picture(folder, "facets/a.png")
    write_atomically(folder / "manifest.json", json.dumps({"name": "an app", "icons": []}).encode())
    (folder / "status.json").write_text("{}")
    (folder / "metrics.json").write_text("{}")
    assert load_photographs(place, 8).paths == ("album/cover.png", "album/facets/a.png", "mine.png")


def test_nothing_but_its_own_pictures_is_no_photograph(tmp_path, make_run):
    make_run(tmp_path / "run")
    with pytest.raises(FileNotFoundError, match="no images under"):
        load_photographs(tmp_path, 8)


def test_formats_that_are_left_to_other_programs_are_none_of_ours(place):
    Image.init()
    for suffix, form in Image.registered_extensions().items():
        if form in NOT_DECODED:
            (place / f"a{suffix}").write_bytes(b"")
    photographs = load_photographs(place, 8)
    assert photographs.paths == ("mine.png",)

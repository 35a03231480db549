import faulthandler
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import mindseye.facets.decoding
import mindseye.facets.photographs
from mindseye.facets.photographs import (
    FEWEST_FOR_WORKERS,
    Photographs,
    UnreadablePhotograph,
    automatic_workers,
    load_photographs,
    read_photograph,
)


def gradient(width=40, height=30):
    """RGB whose red grows to the right and whose green grows downwards."""
    array = np.zeros((height, width, 3), np.uint8)
    array[..., 0] = np.linspace(0, 255, width)[None, :]
    array[..., 1] = np.linspace(0, 255, height)[:, None]
    return Image.fromarray(array)


def mean(tensor):
    return tensor.float().mean().item()


def test_a_square_image_of_the_right_size_is_read_as_it_is(tmp_path):
    gradient(32, 32).save(tmp_path / "a.png")
    read = read_photograph(tmp_path / "a.png", 32)
    assert read.dtype.is_floating_point is False
    assert np.array_equal(read.permute(1, 2, 0).numpy(), np.asarray(gradient(32, 32)))


def test_the_central_square_is_taken(tmp_path):
    image = Image.new("RGB", (90, 30), "black")
    image.paste((255, 255, 255), (30, 0, 60, 30))
    image.save(tmp_path / "wide.png")
    assert mean(read_photograph(tmp_path / "wide.png", 10)) == 255


@pytest.mark.parametrize("mode", ["L", "LA", "P", "1", "RGBA", "CMYK", "YCbCr", "I;16", "F"])
def test_every_mode_becomes_eight_bit_rgb(tmp_path, mode):
    """A mid-grey picture stays mid-grey, whatever the file stores it as."""
    if mode == "I;16":
        image = Image.fromarray(np.full((20, 20), 128 * 257, np.uint16))
    elif mode == "F":
        image = Image.fromarray(np.full((20, 20), 128 / 255, np.float32))
    elif mode == "1":
        image = Image.new("1", (20, 20), 1)
    else:
        image = Image.new("RGB", (20, 20), (128, 128, 128)).convert(mode)
    name = tmp_path / ("a.tif" if mode in ("CMYK", "F", "YCbCr", "I;16") else "a.png")
    # Pillow 10.3 to 12.1 cannot read the uncompressed YCbCr that they write; most such files are JPEG inside.
    image.save(name, compression="jpeg" if mode == "YCbCr" else None)
    read = read_photograph(name, 16)
    assert read.shape == (3, 16, 16)
    expected = 255 if mode == "1" else 128
    assert abs(mean(read) - expected) <= 3
    grey = read_photograph(name, 16, channels=1)
    assert grey.shape == (1, 16, 16)
    assert abs(mean(grey) - expected) <= 3


def test_transparency_lies_over_white(tmp_path):
    Image.new("RGBA", (10, 10), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    assert mean(read_photograph(tmp_path / "clear.png", 8)) == 255
    palette = Image.new("P", (10, 10), 0)
    palette.save(tmp_path / "palette.png", transparency=0)
    assert mean(read_photograph(tmp_path / "palette.png", 8)) == 255


def test_sideways_photographs_are_set_upright(tmp_path):
    image = Image.new("RGB", (20, 20), "black")
    image.paste((255, 0, 0), (0, 0, 20, 10))  # red above
    exif = Image.Exif()
    exif[0x0112] = 3  # turned by 180°
    image.save(tmp_path / "a.png", exif=exif)
    read = read_photograph(tmp_path / "a.png", 20)
    assert mean(read[0, 12:]) > 250
    assert mean(read[0, :8]) < 5


def test_an_animation_gives_its_first_frame(tmp_path):
    frames = [Image.new("RGB", (10, 10), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    read = read_photograph(tmp_path / "a.gif", 8)
    assert mean(read[0]) > 250
    assert mean(read[2]) < 5


def test_very_long_and_very_small_images(tmp_path):
    Image.new("RGB", (30_000, 1), (10, 20, 30)).save(tmp_path / "line.png")
    Image.new("RGB", (1, 1), (10, 20, 30)).save(tmp_path / "dot.png")
    for name in ("line.png", "dot.png"):
        assert read_photograph(tmp_path / name, 64)[:, 5, 5].tolist() == [10, 20, 30]


@pytest.mark.parametrize("layout", ["[ch,H,W]", "[H,W,ch]"])
def test_arrays_of_any_number_of_channels(tmp_path, layout):
    array = np.random.default_rng(0).integers(0, 256, (6, 16, 16), dtype=np.uint8)
    np.save(tmp_path / "a.npy", array if layout == "[ch,H,W]" else np.moveaxis(array, 0, -1))
    assert np.array_equal(read_photograph(tmp_path / "a.npy", 16, channels=6).numpy(), array)
    np.save(tmp_path / "b.npy", array.astype(np.float64) / 255)
    assert np.array_equal(read_photograph(tmp_path / "b.npy", 16, channels=6).numpy(), array)


@pytest.mark.parametrize("shape", [(6, 16, 6), (6, 6, 6), (6, 5, 6)])
def test_an_array_whose_channels_may_be_first_or_last_is_refused(tmp_path, shape):
    np.save(tmp_path / "a.npy", np.zeros(shape, dtype=np.uint8))
    with pytest.raises(UnreadablePhotograph, match="the channels may be the first dimension or the last"):
        read_photograph(tmp_path / "a.npy", 16, channels=6)


@pytest.mark.parametrize("last", [True, False])
def test_an_array_that_could_be_read_either_way_is_read_as_the_others_are(tmp_path, last):
    either = np.random.default_rng(0).integers(0, 256, (6, 9, 6), dtype=np.uint8)
    np.save(tmp_path / "a.npy", either)
    np.save(tmp_path / "b.npy", np.zeros((9, 9, 6) if last else (6, 9, 9), dtype=np.uint8))
    np.save(tmp_path / "flat.npy", np.zeros((9, 9), dtype=np.uint8))
    (tmp_path / "damaged.npy").write_bytes(b"none")
    photographs = load_photographs(tmp_path, 6, channels=6)
    expected = np.moveaxis(either, -1, 0) if last else either
    middle = expected[:, :, 1:7] if last else expected[:, 1:7]
    assert np.array_equal(photographs.read(photographs.paths.index("a.npy")).numpy(), middle)
    for reader in pickle.loads(pickle.dumps(photographs)), Photographs(tmp_path, photographs.paths, 6, 6):
        assert np.array_equal(reader.read(photographs.paths.index("a.npy")).numpy(), middle)
    np.save(tmp_path / "c.npy", np.zeros((6, 9, 9) if last else (9, 9, 6), dtype=np.uint8))
    with pytest.raises(UnreadablePhotograph, match="the channels may be the first dimension or the last"):
        load_photographs(tmp_path, 6, channels=6).read(0)


def test_raw_counts_between_black_and_white(tmp_path):
    """The same counts by whatever file: black is 0, white is 255, linear between, cut off outside."""
    counts = np.array([[100, 500, 1350], [2200, 4095, 925], [500, 500, 500]])
    right = np.array([[0, 0, 127.5], [255, 255, 63.75], [0, 0, 0]])
    np.save(tmp_path / "a.npy", counts.astype(np.uint16))
    np.save(tmp_path / "b.npy", counts.astype(">f4"))
    np.save(tmp_path / "c.npy", counts.astype(np.int64)[None])
    Image.fromarray(counts.astype(np.uint16)).save(tmp_path / "d.png")
    Image.fromarray(counts.astype(np.float32)).save(tmp_path / "e.tif")
    for file in sorted(tmp_path.iterdir()):
        read = read_photograph(file, 3, 1, black=500, white=2200).numpy()[0]
        assert np.abs(read - right).max() <= 0.5, file.name
    negative = read_photograph(tmp_path / "a.npy", 3, 1, black=2200, white=500).numpy()[0]
    assert np.abs(negative - (255 - right)).max() <= 0.5
    grey = np.array([[50, 60, 100], [10, 250, 75], [50, 50, 50]], dtype=np.uint8)
    Image.fromarray(np.stack([grey, 255 - grey, grey], axis=2)).save(tmp_path / "f.png")
    read = read_photograph(tmp_path / "f.png", 3, 3, black=50, white=100).numpy()
    assert read[0].tolist() == [[0, 51, 255], [0, 255, 128], [0, 0, 0]]
    assert read[1, 0, 0] == 255
    np.save(tmp_path / "g.npy", np.array([[np.nan]]))
    with pytest.raises(UnreadablePhotograph, match="NaN"):
        read_photograph(tmp_path / "g.npy", 3, 1, black=0, white=1)
    with pytest.raises(UnreadablePhotograph, match=r"int64 values.*black and white"):
        read_photograph(tmp_path / "c.npy", 3, 1)


@pytest.mark.parametrize(("black", "white"), [(0, None), (None, 4095), (7, 7)])
def test_black_and_white_are_two_numbers(tmp_path, black, white):
    gradient().save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=f"black and white must be two different numbers.*, not {black} and {white}"):
        load_photographs(tmp_path, black=black, white=white)


def test_unreadable_files_say_why(tmp_path):
    gradient().save(tmp_path / "whole.jpg")
    content = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "truncated.jpg").write_bytes(content[: len(content) // 2])
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("no picture")
    np.save(tmp_path / "objects.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    np.save(tmp_path / "nan.npy", np.full((3, 4, 4), np.nan))
    np.save(tmp_path / "shape.npy", np.zeros((5, 4, 4)))
    for name in ("truncated.jpg", "empty.png", "text.jpg", "objects.npy", "nan.npy", "shape.npy"):
        with pytest.raises(UnreadablePhotograph) as caught:
            read_photograph(tmp_path / name, 8)
        assert str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(UnreadablePhotograph, match="4 channels"):
        read_photograph(tmp_path / "whole.jpg", 8, channels=4)


def test_a_folder_is_listed_to_any_depth_in_a_fixed_order(tmp_path):
    for name in ("b/2.png", "b/1.JPG", "a/x/3.webp", "0.bmp"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        gradient().save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / ".hidden.png").write_bytes(b"")
    photographs = load_photographs(tmp_path, 16)
    assert photographs.paths == ("0.bmp", "a/x/3.webp", "b/1.JPG", "b/2.png")
    [(indices, images, skipped)] = photographs.batches(8)
    assert indices == [0, 1, 2, 3]
    assert images.shape == (4, 3, 16, 16)
    assert not skipped


def test_pipes_broken_links_and_loops_neither_hang_nor_hide(tmp_path):
    gradient().save(tmp_path / "a.png")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "broken.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "loop").symlink_to(tmp_path)
    photographs = load_photographs(tmp_path, 16)
    assert photographs.paths == ("a.png",)
    assert {file.path for file in photographs.skipped} == {"pipe.png", "broken.png"}


def test_unusable_folders_are_named_in_one_line(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        load_photographs(tmp_path / "missing", 16)
    with pytest.raises(FileNotFoundError, match="no images under"):
        load_photographs(tmp_path, 16)
    (tmp_path / "file.png").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match="is a file"):
        load_photographs(tmp_path / "file.png", 16)


def test_batches_leave_out_what_cannot_be_read(tmp_path):
    gradient().save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"broken")
    gradient().save(tmp_path / "c.png")
    batches = list(load_photographs(tmp_path, 16).batches(2))
    assert [indices for indices, _, _ in batches] == [[0], [2]]
    assert [file.path for _, _, skipped in batches for file in skipped] == ["b.png"]


def test_large_jpegs_are_decoded_smaller_and_look_the_same(tmp_path, monkeypatch):
    generator = np.random.default_rng(0)
    array = generator.integers(0, 256, (60, 80, 3), dtype=np.uint8)
    Image.fromarray(array).resize((1280, 960), Image.Resampling.BICUBIC).save(tmp_path / "a.jpg", quality=90)
    reduced = read_photograph(tmp_path / "a.jpg", 64).float()
    assert torch.equal(reduced, read_photograph(tmp_path / "a.jpg", 64).float())
    monkeypatch.setattr(mindseye.facets.decoding, "REDUCING_GAP", 1000.0)
    whole = read_photograph(tmp_path / "a.jpg", 64).float()
    assert not torch.equal(reduced, whole)
    assert (reduced - whole).square().mean().sqrt() < 2.5


# ---- worker processes ------------------------------------------------------------------------------------------


@pytest.fixture
def many(tmp_path):
    """Sixty files, three of them unreadable; a batch of eight is more than a pipe holds, so that workers wait."""
    generator = np.random.default_rng(0)
    for i in range(60):
        name = tmp_path / f"{i:02d}.png"
        if i in (3, 40, 41):
            name.write_bytes(b"no picture")
        else:
            Image.fromarray(generator.integers(0, 256, (80, 80, 3), dtype=np.uint8)).save(name)
    return load_photographs(tmp_path, 72)


def whole(batches):
    return [(indices, images.numpy().tobytes(), tuple(images.shape), skipped) for indices, images, skipped in batches]


@pytest.mark.parametrize("batch_size", [1, 8, 100])
@pytest.mark.parametrize("workers", [1, 2, 5])
def test_any_number_of_workers_gives_the_same_bytes(many, workers, batch_size):
    torch.randn(300, 300) @ torch.randn(300, 300)  # threads are running when the workers are forked
    expected = whole(many.batches(batch_size, workers=0))
    assert whole(many.batches(batch_size, workers=workers)) == expected
    assert whole(many.batches(batch_size)) == expected
    assert [file.path for *_, skipped in expected for file in skipped] == ["03.png", "40.png", "41.png"]
    assert not multiprocessing.active_children()


def test_random_numbers_are_left_as_they_are(many):
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    list(many.batches(8, workers=2))
    assert torch.equal(torch.rand(2), expected)


def test_few_photographs_are_read_without_workers(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    monkeypatch.setattr(mindseye.facets.photographs, "START", "fork")
    assert automatic_workers(FEWEST_FOR_WORKERS - 1) == 0
    assert automatic_workers(FEWEST_FOR_WORKERS) == 7
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(200)), raising=False)
    assert automatic_workers(100_000) == 16
    monkeypatch.setattr(mindseye.facets.photographs, "START", "spawn")
    assert automatic_workers(100_000) == 0


@pytest.mark.parametrize(("batch_size", "workers"), [(0, None), (8, -1)])
def test_impossible_batches_are_refused(many, batch_size, workers):
    with pytest.raises(ValueError, match="at least"):
        next(many.batches(batch_size, workers=workers))


def test_a_killed_worker_is_one_line(many):
    batches = many.batches(8, workers=2)
    next(batches)
    victim = multiprocessing.active_children()[0]
    os.kill(victim.pid, signal.SIGKILL)
    with pytest.raises(ChildProcessError, match=r"was killed \(SIGKILL\) while it read \d\d.png to \d\d.png") as caught:
        list(batches)
    assert "\n" not in str(caught.value)
    assert not multiprocessing.active_children()


@pytest.mark.skipif(mindseye.facets.photographs.START != "fork", reason="a spawned worker does not see the patch")
def test_a_decoder_that_crashes_is_one_line_with_the_files(many, monkeypatch):
    def crash(path, *asked, **named):
        if path.name == "13.png":
            faulthandler.disable()  # pytest's, which would write a page
            os.kill(os.getpid(), signal.SIGSEGV)
        return read_photograph(path, *asked, **named)

    monkeypatch.setattr(mindseye.facets.photographs, "read_photograph", crash)
    with pytest.raises(ChildProcessError, match=r"SIGSEGV\) while it read 08.png to 15.png") as caught:
        list(many.batches(8, workers=3))
    assert "\n" not in str(caught.value)


def test_nobody_is_left_when_the_caller_stops_early(many):
    batches = many.batches(8, workers=3)
    next(batches)
    assert len(multiprocessing.active_children()) == 3
    batches.close()
    assert not multiprocessing.active_children()


# As people write it, without `if __name__ == "__main__"`.
SCRIPT = """
import multiprocessing, sys, time
from mindseye.facets.photographs import load_photographs
batches = load_photographs(sys.argv[1], 72).batches(8, workers=2)
next(batches)
print(*(child.pid for child in multiprocessing.active_children()), flush=True)
time.sleep(60)
"""


def running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
@pytest.mark.parametrize("beside", ["", "threading.Thread(target=time.sleep, args=(30,), daemon=True).start()"])
def test_a_worker_that_just_begins_hears_no_interrupt(many, beside):
    """beside: another thread, which the system may choose to tell of a signal."""
    slow = f"""
import os, threading, time
from multiprocessing import util

{beside}

def slowly():
    os.write(1, b"begun\\n")
    time.sleep(1)

util._close_stdin = slowly  # what a process does first
"""
    program = subprocess.Popen(
        [sys.executable, "-c", slow + SCRIPT, str(many.root)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert program.stdout.readline() == "begun\n"
    os.killpg(program.pid, signal.SIGINT)
    errors = program.communicate(timeout=60)[1]  # when all that have its end of the pipe are gone
    assert program.returncode != 0
    assert errors.count("Traceback") - errors.count("Exception ignored in") == 1, errors


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_orphans_whatever_ends_the_program(many, how):
    program = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(many.root)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    workers = [int(pid) for pid in program.stdout.readline().split()]
    assert len(workers) == 2
    if how == signal.SIGINT:
        os.killpg(program.pid, how)  # as a terminal does: every process of the group
    else:
        program.send_signal(how)
    assert program.wait(timeout=30) != 0
    errors = program.stderr.read()  # its own traceback, none from a worker; one may be of what a destructor left
    assert errors.count("Traceback") - errors.count("Exception ignored in") == (how == signal.SIGINT), errors
    deadline = time.monotonic() + 30
    while any(running(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(running(pid) for pid in workers)

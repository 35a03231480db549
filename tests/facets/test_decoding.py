"""The numbers in a file are what black and white mean, whatever its decoder makes of them; no scale is an image's."""

import io
import logging
import shutil
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from mindseye.facets.decoding import UnreadablePhotograph, read_photograph
from mindseye.facets.discovery import discover_facets
from mindseye.facets.photographs import load_photographs
from mindseye.networks.network import Network
from mindseye.settings import Facets

COUNTS = np.linspace(0, 4095, 64).round().astype(np.uint16).reshape(8, 8)
WHOLE = np.rint(COUNTS / 4095 * 255)


def png(array, depth, colour):
    """An array [H, W, ...] of numbers of `depth` bits as a PNG of that colour type (ISO 15948)."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width = array.shape[:2]
    if depth < 8:
        bits = np.unpackbits(array.astype(np.uint8)[..., None], axis=2)[..., 8 - depth :].reshape(height, -1)
        rows = [np.packbits(row).tobytes() for row in bits]
    else:
        rows = [row.astype(">u2" if depth == 16 else "u1").tobytes() for row in array]
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def tiff(array, bits, photometric=1, sample=1):
    """An array [H, W] or [H, W, samples] as an uncompressed TIFF; of 12 bits, two numbers in three bytes."""
    height, width, samples = (*array.shape, 1)[:3]
    if bits == 12:
        pairs = array.reshape(-1, 2).astype(int)
        packed = [pairs[:, 0] >> 4, (pairs[:, 0] & 15) << 4 | pairs[:, 1] >> 8, pairs[:, 1] & 255]
        data = np.stack(packed, axis=1).astype(np.uint8).tobytes()
    elif bits == 4:
        data = (array[:, ::2] << 4 | array[:, 1::2]).astype(np.uint8).tobytes()
    else:
        data = array.astype(f"<{'ui'[sample - 1]}{bits // 8}").tobytes()
    tags = [(256, width), (257, height), (258, bits), (259, 1), (262, photometric), (273, 8), (277, samples),
            (278, height), (279, len(data)), (339, sample)]  # fmt: skip
    entries = b""
    extra = b""
    place = 8 + len(data)
    for number, value in tags:
        if number in (258, 339) and samples > 1:
            offset = place + 2 + 12 * len(tags) + 4 + len(extra)
            extra += struct.pack(f"<{samples}H", *[value] * samples)
            entries += struct.pack("<HHII", number, 3, samples, offset)
        else:
            entries += struct.pack("<HHII", number, 4, 1, value)
    return b"II*\0" + struct.pack("<I", place) + data + struct.pack("<H", len(tags)) + entries + bytes(4) + extra


def pnm(array, most, kind=5):
    height, width = array.shape[:2]
    head = f"P{kind}\n# a camera's\n{width} {height}\n{most}\n".encode()
    if kind in (2, 3):
        return head + " ".join(map(str, array.ravel())).encode()
    return head + array.astype(">u2" if most > 255 else "u1").tobytes()


def jp2(array):
    stored = io.BytesIO()
    Image.fromarray(array).save(stored, "JPEG2000", irreversible=False)
    return stored.getvalue()


def three(array):
    return np.repeat(array[..., None], 3, axis=2)


def four(array):
    return np.concatenate([three(array), np.full((*array.shape, 1), 65535)], axis=2)


# Files of counts 0..4095 whose numbers are to be had, each by its suffix.
READABLE = {
    "16-bit.png": png(COUNTS, 16, 0),
    "12-bit.tif": tiff(COUNTS, 12),
    "16-bit.tif": tiff(COUNTS, 16),
    "16-bit white is 0.tif": tiff(COUNTS, 16, photometric=0),
    "signed.tif": tiff(COUNTS, 16, sample=2),
    "32-bit.tif": tiff(COUNTS, 32),
    "4095.pgm": pnm(COUNTS, 4095),
    "4095 plain.pgm": pnm(COUNTS, 4095, 2),
    "5000.pgm": pnm(COUNTS, 5000),
    "65535.pgm": pnm(COUNTS, 65535),
    "lossless.jp2": jp2(COUNTS),
}
# And those whose numbers Pillow does not give.
LOST = {
    "rgb.png": png(three(COUNTS), 16, 2),
    "rgba.png": png(four(COUNTS), 16, 6),
    "la.png": png(np.stack([COUNTS, np.full_like(COUNTS, 65535)], axis=2), 16, 4),
    "rgb.tif": tiff(three(COUNTS), 16, photometric=2),
    "rgb.ppm": pnm(three(COUNTS), 4095, 6),
    "rgb plain.ppm": pnm(three(COUNTS), 4095, 3),
}


def read(tmp_path, name, content, size=8, channels=1, **window):
    (tmp_path / name).write_bytes(content)
    return read_photograph(tmp_path / name, size, channels, **window).numpy()


@pytest.mark.parametrize("name", READABLE)
def test_black_and_white_are_held_against_the_numbers_in_the_file(name, tmp_path):
    shown = read(tmp_path, name, READABLE[name], black=0, white=4095)
    assert np.abs(shown[0] - WHOLE).max() <= 0.5
    colours = read(tmp_path, name, READABLE[name], channels=3, black=0, white=4095)
    assert np.array_equal(colours, shown.repeat(3, 0))


@pytest.mark.parametrize("name", LOST)
def test_colours_that_are_read_with_fewer_bits_are_refused_where_black_and_white_are_given(name, tmp_path):
    with pytest.raises(UnreadablePhotograph, match=r"-bit colours, which are read as 8, .* give \.npy arrays"):
        read(tmp_path, name, LOST[name], channels=3, black=0, white=4095)


@pytest.mark.parametrize("name", LOST)
def test_without_black_and_white_they_are_taken_by_their_whole_range(name, tmp_path):
    most = 4095 if name.endswith(".ppm") else 65535
    shown = read(tmp_path, name, LOST[name], channels=3)
    assert np.abs(shown[0] - COUNTS / most * 255).max() <= 1


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("4.png", lambda few: png(few, 4, 0)),
        ("4.tif", lambda few: tiff(few, 4)),
        ("15.pgm", lambda few: pnm(few, 15)),
        ("15 plain.pgm", lambda few: pnm(few, 15, 2)),
        ("8.tif", lambda few: tiff(few, 8)),
        ("8.png", lambda few: png(few, 8, 0)),
    ],
)
def test_so_are_numbers_of_few_bits_which_a_decoder_stretches(name, content, tmp_path):
    few = np.arange(16).reshape(4, 4)
    shown = read(tmp_path, name, content(few), 4, black=3, white=12)
    assert np.abs(shown[0] - ((few - 3) / 9).clip(0, 1) * 255).max() <= 0.5


def test_numbers_whose_0_is_white_are_the_file_s_own_between_black_and_white_and_turned_without(tmp_path):
    grey = np.arange(64).reshape(8, 8)
    for name, content, most in (
        ("8.tif", tiff(grey, 8, photometric=0), 255),
        ("16.tif", tiff(grey * 1000, 16, photometric=0), 65.535),
    ):
        own = read(tmp_path, name, content, black=0, white=63 if most == 255 else 63000)
        assert np.abs(own[0] - grey / 63 * 255).max() <= 0.5
        assert np.abs(read(tmp_path, name, content)[0] - (1 - grey / most) * 255).max() <= 0.5


@pytest.mark.parametrize(("black", "white"), [(None, None), (0, 4095)])
@pytest.mark.parametrize(
    "name", ["4095.pgm", "4095 plain.pgm", "16-bit.png", "12-bit.tif", "16-bit.tif", "lossless.jp2"]
)
def test_no_scale_depends_on_an_image(name, black, white, tmp_path):
    """One and the same number is the same grey, whatever else is in the picture."""
    kinds = {
        "4095.pgm": lambda counts: pnm(counts, 4095), "4095 plain.pgm": lambda counts: pnm(counts, 4095, 2),
        "16-bit.png": lambda counts: png(counts, 16, 0), "12-bit.tif": lambda counts: tiff(counts, 12),
        "16-bit.tif": lambda counts: tiff(counts, 16), "lossless.jp2": jp2,
    }  # fmt: skip
    greys = set()
    for most in (200, 255, 256, 4095):
        counts = np.full((8, 8), 200, np.uint16)
        counts[0] = most
        greys.add(int(read(tmp_path, name, kinds[name](counts), black=black, white=white)[0, 7, 7]))
    assert len(greys) == 1


@pytest.mark.parametrize("most", [100, 255, 256, 70000])
@pytest.mark.parametrize("content", [lambda few: tiff(few, 32), lambda few: tiff(few, 32, sample=2)])
def test_numbers_of_a_type_without_a_range_need_black_and_white(most, content, tmp_path):
    numbers = np.full((4, 4), most)
    with pytest.raises(UnreadablePhotograph, match=r"nothing of their range; .* black and white"):
        read(tmp_path, "a.tif", content(numbers))
    assert read(tmp_path, "a.tif", content(numbers), 4, black=0, white=2 * most).mean() == pytest.approx(127.5, abs=0.6)


def test_bytes_in_a_folder_of_counts_are_named_and_not_drawn_black(tmp_path, caplog):
    grey = np.full((8, 8), 128, np.uint8)
    Image.fromarray(grey).save(tmp_path / "a.png")
    Image.fromarray(grey).save(tmp_path / "b.jpg")
    np.save(tmp_path / "c.npy", grey)
    np.save(tmp_path / "d.npy", grey > 0)
    for number in range(4):
        np.save(tmp_path / f"e{number}.npy", COUNTS + number)
    shown = load_photographs(tmp_path, 8, 1, black=0, white=4095)
    [(indices, _, skipped)] = shown.batches(100)
    assert [shown.paths[index] for index in indices] == [f"e{number}.npy" for number in range(4)]
    assert [file.path for file in skipped] == ["a.png", "b.jpg", "c.npy", "d.npy"]
    assert all("white=4095 lies beyond" in file.reason for file in skipped)
    negative = load_photographs(tmp_path, 8, 1, black=4095, white=0)
    with pytest.raises(UnreadablePhotograph, match=r"black=4095 lies beyond"):
        negative.read(0)


def test_few_levels_between_black_and_white_are_not_told_to_give_them(tmp_path, caplog):
    for number in range(8):
        np.save(tmp_path / f"{number}.npy", np.random.default_rng(number).integers(0, 30, (8, 8), dtype=np.uint16))
    torch.manual_seed(0)
    network = Network(nn.Sequential(nn.Conv2d(1, 4, 3)), [0.0], [1.0], "counts", 8)
    with caplog.at_level(logging.WARNING):
        discover_facets(network, load_photographs(tmp_path, 8, 1, black=0, white=4095), "0", Facets(C=1, k=1, N=8))
    assert "levels of brightness between black=0 and white=4095" in caplog.text
    assert "need" not in caplog.text


@pytest.mark.parametrize(("most", "told"), [(10_000, True), (60_000, False)])
def test_counts_far_below_their_type_s_range_are_told_to_give_black_and_white(most, told, tmp_path, caplog):
    for number in range(8):
        np.save(tmp_path / f"{number}.npy", np.random.default_rng(number).integers(0, most, (8, 8), dtype=np.uint16))
    network = Network(nn.Sequential(nn.Conv2d(1, 4, 3)), [0.0], [1.0], "counts", 8)
    with caplog.at_level(logging.WARNING):
        discover_facets(network, load_photographs(tmp_path, 8, 1), "0", Facets(C=1, k=1, N=8))
    assert ("the brightest is 39, and the network sees no finer ones: raw counts need black" in caplog.text) == told


def test_what_is_transparent_is_white_between_any_black_and_white(tmp_path):
    Image.new("RGBA", (8, 8), (60, 60, 60, 0)).save(tmp_path / "a.png")
    for black, white in ((0, 100), (255, 0), (200, 255)):
        assert read_photograph(tmp_path / "a.png", 8, 3, black, white).min() == 255
    Image.new("LA", (8, 8), (50, 255)).save(tmp_path / "b.png")
    assert read_photograph(tmp_path / "b.png", 8, 3, 0, 100).unique().tolist() == [128]


@pytest.mark.parametrize(
    ("mode", "suffix"), [("CMYK", "tif"), ("LAB", "tif"), ("CMYK", "jpg"), ("RGB", "tga"), ("L", "pcx")]
)
def test_what_has_no_counts_that_are_known_is_refused_where_black_and_white_are_given(mode, suffix, tmp_path):
    Image.new(mode, (8, 8)).save(tmp_path / f"a.{suffix}")
    assert read_photograph(tmp_path / f"a.{suffix}", 8, 3).shape == (3, 8, 8)
    with pytest.raises(UnreadablePhotograph, match="black and white"):
        read_photograph(tmp_path / f"a.{suffix}", 8, 3, 0, 100)


def test_no_file_is_handed_to_another_program(tmp_path, monkeypatch):
    """Pillow gives PostScript to Ghostscript, whatever the file's name ends in."""
    called = tmp_path / "called"
    program = tmp_path / "bin" / "gs"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ntouch '{called}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    assert shutil.which("gs") == str(program)
    script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"
    for name in ("a.png", "a.eps"):
        with pytest.raises(UnreadablePhotograph, match="no picture in a format"):
            read(tmp_path, name, script)
    assert not called.exists()

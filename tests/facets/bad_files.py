"""A folder of bad and odd files, built here: what each holds, and whether it can be read."""

import io
import os
import random
import struct
import zlib
from dataclasses import dataclass

import numpy as np
from PIL import Image

GREY = 128


@dataclass(frozen=True)
class Odd:
    """One file below the root: what it must come to."""

    name: str
    kind: str  # good: read, with these values; bad: named; maybe: either, since a flipped bit need not show; hidden
    mean: float | None = None  # of a good one's pixels, 0 to 255
    near: float = 4.0


def picture(width=24, height=24, mode="RGB"):
    """Smooth, so that JPEG keeps it; its mean is GREY."""
    x = np.linspace(-60, 60, width)[None, :] + np.linspace(-40, 40, height)[:, None]
    image = Image.fromarray(np.clip(GREY + x, 0, 255).astype(np.uint8))
    return image.convert("RGB").convert(mode) if mode != "L" else image


def encoded(image, form, **settings):
    stored = io.BytesIO()
    image.save(stored, form, **settings)
    return stored.getvalue()


FORMS = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP", "tif": "TIFF", "gif": "GIF", "bmp": "BMP", "ppm": "PPM"}


def build(root, *, deep=1):
    """Fill the folder; what each file is. `deep` times as many damaged ones."""
    kinds = []

    def put(name, content, kind, mean=None, near=4.0):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        kinds.append(Odd(name, kind, mean, near))

    whole = {suffix: encoded(picture(), form) for suffix, form in FORMS.items()}
    whole["jp2"] = encoded(picture(), "JPEG2000")
    draw = random.Random(0)
    for suffix, content in whole.items():
        put(f"whole/{suffix}.{suffix}", content, "good", GREY)
        for cut in range(12 * deep):
            length = draw.randrange(len(content) * 3 // 4)
            # a text format's first half, and a GIF's, are a picture still
            put(f"cut/{suffix}-{cut}.{suffix}", content[:length], "maybe" if suffix in ("jp2",) else "bad")
        for flip in range(14 * deep):
            damaged = bytearray(content)
            for _ in range(draw.choice((1, 1, 3, 20))):
                damaged[draw.randrange(len(damaged))] ^= 1 << draw.randrange(8)
            put(f"flipped/{suffix}-{flip}.{suffix}", bytes(damaged), "maybe")
        put(f"noise/{suffix}.{suffix}", draw.randbytes(500), "bad")
        put(f"empty/{suffix}.{suffix}", b"", "bad")
        raw = suffix in ("ppm", "bmp")  # any bytes are pixels
        put(f"magic/{suffix}.{suffix}", content[:16] + draw.randbytes(300), "maybe" if raw else "bad")
    _odd_ones(put)
    _arrays(put)
    _bombs(put)
    for name in NAMES:
        put(f"names/{name}.png", whole["png"], "good", GREY)
    put("names/no suffix", whole["png"], "bad")
    put("names/.hidden.png", whole["png"], "hidden")
    _special(root, whole["png"], kinds)
    return kinds


NAMES = (
    "a\nb", "a\r\n\tb", "'quoted'", '"twice"', "back\\slash", "emoji 🙂🏳️‍🌈", "ünï cödé", "\u202eright to left", "-rf",
    "$(touch ran)", "`ran`", "%s%n", "{0}", "<script>", "a;b|c&d", "*?[x]", " ", "x" * 251, "🙂" * 62,
    "\x07bell", "con", "1,2", "k=3", "[red]markup[/red]", "\udcff\udcfe no UTF-8",
)  # fmt: skip


def _odd_ones(put):
    """Whole files of every mode and layout, each of which must be read rightly."""
    for mode in ("L", "LA", "P", "RGBA", "CMYK", "YCbCr", "LAB", "1"):
        form = "TIFF" if mode in ("CMYK", "YCbCr", "LAB") else "PNG"
        suffix = "tif" if form == "TIFF" else "png"
        flat = Image.new("RGB", (20, 20), (GREY,) * 3)
        image = Image.new("1", (20, 20), 1) if mode == "1" else _in_mode(flat, mode)
        put(f"odd/{mode}.{suffix}", encoded(image, form), "good", 255 if mode == "1" else GREY, 6)
    put("odd/cmyk.jpg", encoded(picture(mode="CMYK"), "JPEG"), "good", GREY, 6)
    put("odd/progressive.jpg", encoded(picture(200, 100), "JPEG", progressive=True), "good", GREY)
    put("odd/16 bits.png", encoded(Image.fromarray(np.full((9, 9), GREY * 257, np.uint16)), "PNG"), "good", GREY)
    put("odd/16 bits.tif", encoded(Image.fromarray(np.full((9, 9), GREY * 257, np.uint16)), "TIFF"), "good", GREY)
    put("odd/floats.tif", encoded(Image.fromarray(np.full((9, 9), GREY / 255, np.float32)), "TIFF"), "good", GREY)
    put("odd/floats outside.tif", encoded(Image.fromarray(np.full((9, 9), 7, np.float32)), "TIFF"), "bad")
    put("odd/nan.tif", encoded(Image.fromarray(np.full((9, 9), np.nan, np.float32)), "TIFF"), "bad")
    for compression in ("tiff_lzw", "tiff_deflate", "packbits", "tiff_jpeg"):
        put(f"odd/{compression}.tif", encoded(picture(), "TIFF", compression=compression), "good", GREY)
    put("odd/one pixel.png", encoded(Image.new("RGB", (1, 1), (GREY,) * 3), "PNG"), "good", GREY)
    put("odd/one pixel.gif", encoded(Image.new("L", (1, 1), GREY), "GIF"), "good", GREY)
    for width, height in ((30_000, 1), (1, 30_000), (30_000, 3), (65_500, 1)):
        for suffix, form in (("png", "PNG"), ("jpg", "JPEG"), ("tif", "TIFF")):
            flat = Image.new("L", (width, height), GREY)
            put(f"odd/{width}x{height}.{suffix}", encoded(flat, form), "good", GREY)
    put("odd/interlaced.gif", encoded(picture(mode="P"), "GIF", interlace=1), "good", GREY, 6)
    put("odd/lossless.webp", encoded(picture(), "WEBP", lossless=True), "good", GREY)
    frames = [Image.new("RGB", (10, 10), (grey,) * 3) for grey in (GREY, 0, 255)]
    for suffix, form in (("gif", "GIF"), ("webp", "WEBP"), ("png", "PNG"), ("tif", "TIFF")):
        content = encoded(frames[0], form, save_all=True, append_images=frames[1:])
        put(f"odd/animated.{suffix}", content, "good", GREY)
    for orientation in range(0, 10):
        exif = Image.Exif()
        exif[0x0112] = orientation
        put(f"odd/turned {orientation}.jpg", encoded(picture(40, 20), "JPEG", exif=exif), "good", GREY)
    put("odd/exif of noise.jpg", encoded(picture(), "JPEG", exif=b"Exif\0\0" + bytes(range(200))), "good", GREY)
    put("odd/profile of noise.png", encoded(picture(), "PNG", icc_profile=bytes(range(200))), "good", GREY)
    clear = Image.new("RGBA", (9, 9), (0, 0, 0, 0))
    put("odd/clear.png", encoded(clear, "PNG"), "good", 255)
    put("odd/clear.webp", encoded(clear, "WEBP", lossless=True), "good", 255)
    for suffix, form in (("png", "JPEG"), ("jpg", "PNG"), ("gif", "WEBP"), ("webp", "GIF"), ("JPG", "TIFF")):
        put(f"odd/really a {form}.{suffix}", encoded(picture(), form), "good", GREY)
    tail = encoded(picture(), "JPEG") + b"<html>" * 1000
    put("odd/something behind it.jpg", tail, "good", GREY)
    for name, content in (("text", b"no picture"), ("page", b"<html></html>"), ("zip", b"PK\3\4" + bytes(60)),
                          ("pickle", b"\x80\x04\x95"), ("vector", b"<svg xmlns='http://www.w3.org/2000/svg'/>")):
        put(f"odd/{name}.jpg", content, "bad")  # fmt: skip


def _in_mode(image, mode):
    if mode != "LAB":
        return image.convert(mode)
    from PIL import ImageCms

    return ImageCms.profileToProfile(
        image, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )


def _arrays(put):
    """.npy files, for three channels."""

    def saved(array, **settings):
        stored = io.BytesIO()
        np.save(stored, array, **settings)
        return stored.getvalue()

    flat = np.full((3, 8, 8), GREY)
    put("arrays/bytes.npy", saved(flat.astype(np.uint8)), "good", GREY)
    put("arrays/last.npy", saved(np.moveaxis(flat, 0, -1).astype(np.uint8)), "good", GREY)
    put("arrays/turned.npy", saved(np.asfortranarray(flat.astype(np.uint8))), "good", GREY)
    put("arrays/words.npy", saved((flat * 257).astype(np.uint16)), "good", GREY)
    put("arrays/big endian.npy", saved((flat * 257).astype(">u2")), "good", GREY)
    put("arrays/halves.npy", saved((flat / 255).astype(np.float16)), "good", GREY)
    put("arrays/booleans.npy", saved(np.ones((3, 8, 8), bool)), "good", 255)
    for name, array in (
        ("grey", np.zeros((8, 8), np.uint8)), ("four", np.zeros((4, 8, 8), np.uint8)),
        ("none", np.zeros((3, 0, 8), np.uint8)),
        ("deep", np.zeros((1, 3, 8, 8), np.uint8)), ("scalar", np.uint8(3)), ("signed", flat.astype(np.int32)),
        ("complex", flat.astype(complex)), ("nan", np.full((3, 8, 8), np.nan)), ("inf", np.full((3, 8, 8), np.inf)),
        ("negative", -flat / 255), ("large", flat.astype(float)), ("fields", np.zeros((3, 8, 8), [("a", int)])),
        ("dates", np.zeros((3, 8, 8), "datetime64[s]")), ("text", np.full((3, 8, 8), "a")),
    ):  # fmt: skip
        put(f"arrays/{name}.npy", saved(array), "bad")
    put("arrays/objects.npy", saved(np.array([{}, 1], dtype=object), allow_pickle=True), "bad")
    stored = io.BytesIO()
    np.savez(stored, a=flat)
    put("arrays/archive.npy", stored.getvalue(), "bad")
    content = saved(flat.astype(np.uint8))
    for cut in (0, 5, 40, 100, len(content) - 1):
        put(f"arrays/cut {cut}.npy", content[:cut], "bad")
    assert b"(3, 8, 8), }        " in content
    put("arrays/lies.npy", content.replace(b"(3, 8, 8), }        ", b"(3, 99999, 99999), }"), "bad")


def _bombs(put):
    """Small files that say they are large, and some that are."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    def png(width, height, *chunks, depth=8, colour=0):
        head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
        return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + b"".join(chunks) + chunk(b"IEND", b"")

    rows = zlib.compress(bytes(1 << 20), 9)
    for side in (2**31 - 1, 100_000, 20_000, 12_000, 9_500):
        put(f"bombs/{side}.png", png(side, side, chunk(b"IDAT", rows)), "bad")
    square = 9_400  # 88 million pixels: large, and not too large
    row = zlib.compressobj(9)
    body = b"".join(row.compress(b"\0" + bytes([GREY]) * square) for _ in range(square)) + row.flush()
    put("bombs/whole.png", png(square, square, chunk(b"IDAT", body)), "good", GREY)
    text = zlib.compress(bytes(200 << 20), 9)
    for kind in (b"zTXt", b"iCCP"):
        body = png(9, 9, chunk(kind, b"a\0\0" + text), chunk(b"IDAT", zlib.compress(bytes(90))))
        put(f"bombs/{kind.decode()}.png", body, "maybe")
    put("bombs/screen.gif", b"GIF89a" + struct.pack("<HH", 65535, 65535) + encoded(picture(), "GIF")[10:], "bad")
    put("bombs/head.bmp", encoded(picture(), "BMP")[:18] + struct.pack("<ii", 60_000, 60_000) + bytes(300), "bad")
    put("bombs/head.ppm", b"P6 60000 60000 255\n" + bytes(300), "bad")
    jpeg = bytearray(encoded(picture(), "JPEG"))
    place = jpeg.index(b"\xff\xc0")
    jpeg[place + 5 : place + 9] = struct.pack(">HH", 65_500, 65_500)
    put("bombs/head.jpg", bytes(jpeg), "bad")
    tiff = bytearray(encoded(picture(), "TIFF"))
    put("bombs/loop.tif", bytes(tiff[:4]) + struct.pack("<I", 8) + struct.pack("<H", 0) + struct.pack("<I", 8), "bad")


def _special(root, content, found):
    place = root / "special"
    place.mkdir()
    os.mkfifo(place / "pipe.png")
    (place / "broken.png").symlink_to(place / "nowhere.png")
    (place / "itself.png").symlink_to(place / "itself.png")
    (place / "device.png").symlink_to("/dev/zero")
    for name in ("pipe", "broken", "itself", "device"):
        found.append(Odd(f"special/{name}.png", "bad"))
    (place / "round").symlink_to(root)
    (place / "here").symlink_to(".")
    (place / "there.png").mkdir()
    (place / "there.png/inside.png").write_bytes(content)
    found.append(Odd("special/there.png/inside.png", "good", GREY))
    (place / "link.png").symlink_to(place / "there.png/inside.png")
    found.append(Odd("special/link.png", "good", GREY))

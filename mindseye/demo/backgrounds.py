"""Backgrounds of the demo's photographs: what lies behind the objects, drawn from a random generator and lit."""

import math
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

from mindseye.demo.shapes import Array, Colour, smooth


def _noise(generator: np.random.Generator, size: int, across: int, down: int) -> Array:
    # Smooth noise [size,size] in about [-1,1] with so many cells across and down.
    cells = generator.uniform(-1.0, 1.0, (down + 3, across + 3)).astype(np.float32)
    edge = (1.0, 1.0, across + 2.0, down + 2.0)  # leave the border out, where interpolation runs flat
    return np.asarray(Image.fromarray(cells).resize((size, size), Image.Resampling.BICUBIC, box=edge))


def _clouds(generator: np.random.Generator, size: int, cells: int, octaves: int) -> Array:
    return sum(_noise(generator, size, cells * 2**i, cells * 2**i) * 0.5**i for i in range(octaves))


def _relight(colour: Array, height: Array, light: Array, strength: float) -> Array:
    # Light and shade of a bumpy surface: brighter where it faces the light.
    down, across = np.gradient(height)
    facing = -(across * light[0] + down * light[1]) * strength * len(height) / 96.0
    return colour * (1.0 + np.clip(facing, -0.45, 0.6))


def _paint_over(*stops: Colour) -> Array:
    return np.array(stops, dtype=np.float32)[:, :, None, None]


def _ramp(first: Colour, second: Colour, share: Array) -> Array:
    start, end = _paint_over(first, second)
    return start + np.clip(share, 0.0, 1.0) * (end - start)


def grid(size: int) -> tuple[Array, Array]:
    """Coordinates of a picture's pixel centres, right and down in [-1,1]: two float32 [size,size], not to write to."""
    steps = (np.arange(size, dtype=np.float32) + 0.5) * (2.0 / size) - 1.0
    return np.broadcast_to(steps, (size, size)), np.broadcast_to(steps[:, None], (size, size))


def _wood(generator: np.random.Generator, size: int, light: Array) -> Array:
    x, y = grid(size)
    if generator.random() < 0.5:
        x, y = y, x
    dark, pale = [
        ((0.36, 0.22, 0.13), (0.58, 0.38, 0.23)),
        ((0.55, 0.40, 0.26), (0.78, 0.62, 0.44)),
        ((0.42, 0.38, 0.34), (0.64, 0.60, 0.55)),
    ][generator.integers(3)]
    wide = generator.uniform(0.42, 0.62)
    place = y / wide + generator.uniform(0.0, 1.0) + 8.0
    plank = np.floor(place).astype(int)
    shift = generator.uniform(-1.0, 1.0, 32).astype(np.float32)[plank]
    warp = _noise(generator, size, 2, 5)
    rings = np.sin(24.0 * y + 5.0 * warp + 2.0 * x * shift + 20.0 * shift)
    streaks = _noise(generator, size, 4, 60) if y[0, 0] != y[1, 0] else _noise(generator, size, 60, 4)
    seam = smooth(np.abs(place - plank - 0.5), 0.465, 0.495)
    share = 0.5 + 0.22 * rings + 0.28 * streaks + 0.30 * shift
    return _relight(_ramp(dark, pale, share), 0.25 * streaks, light, 0.5) * (1.0 - 0.6 * seam)


def _cloth(generator: np.random.Generator, size: int, light: Array) -> Array:
    x, y = grid(size)
    turn = generator.uniform(-0.6, 0.6)
    across, along = math.cos(turn) * x + math.sin(turn) * y, math.cos(turn) * y - math.sin(turn) * x
    weave = np.sin(62.0 * across) * np.sin(62.0 * along)
    first, second = [
        ((0.80, 0.76, 0.68), (0.90, 0.87, 0.80)),
        ((0.34, 0.44, 0.56), (0.48, 0.58, 0.68)),
        ((0.66, 0.42, 0.38), (0.78, 0.56, 0.50)),
        ((0.44, 0.52, 0.42), (0.58, 0.65, 0.54)),
    ][generator.integers(4)]
    colour = _ramp(first, second, 0.5 + 0.4 * weave + 0.2 * _noise(generator, size, 40, 40))
    stripes = smooth(np.sin(generator.uniform(7.0, 11.0) * across), 0.55, 0.75)
    colour = colour + 0.35 * stripes * (_paint_over((0.95, 0.93, 0.88))[0] - colour)
    return _relight(colour, 5.0 * _clouds(generator, size, 2, 2), light, 0.9)


def _grass(generator: np.random.Generator, size: int, light: Array) -> Array:
    wide = size * 2
    picture = Image.new("RGB", (wide, wide), (38, 62, 22))
    pen = ImageDraw.Draw(picture)
    count = 520
    roots = generator.uniform(-0.1, 1.1, (count, 2)) * wide
    tips = roots + np.stack([generator.normal(0.0, 0.06, count), -generator.uniform(0.08, 0.24, count)], 1) * wide
    shade = np.linspace(0.35, 1.0, count) * generator.uniform(0.75, 1.1, count)
    hue = generator.uniform(0.0, 1.0, count)
    width = max(1, round(wide / 64))
    for root, tip, value, yellow in zip(roots.tolist(), tips.tolist(), shade.tolist(), hue.tolist(), strict=True):
        green = (int(value * (70 + 60 * yellow)), int(value * (135 + 25 * yellow)), int(value * (36 + 20 * yellow)))
        pen.line((*root, *tip), fill=green, width=width)
    small = np.asarray(picture.reduce(2), dtype=np.float32).transpose(2, 0, 1) / 255.0
    return small * (1.0 + 0.25 * _noise(generator, size, 3, 3))


def _sand(generator: np.random.Generator, size: int, light: Array) -> Array:
    x, y = grid(size)
    turn = generator.uniform(-0.5, 0.5)
    along = y + turn * x + 0.16 * _noise(generator, size, 3, 3)
    ripples = np.sin(generator.uniform(9.0, 16.0) * along)
    grains = generator.uniform(-1.0, 1.0, (size, size)).astype(np.float32)
    colour = _ramp((0.74, 0.60, 0.42), (0.90, 0.79, 0.60), 0.5 + 0.25 * ripples + 0.22 * grains)
    return _relight(colour, 0.9 * ripples + 0.16 * grains + 0.5 * _noise(generator, size, 9, 9), light, 0.45)


def _brick(generator: np.random.Generator, size: int, light: Array) -> Array:
    x, y = grid(size)
    high = generator.uniform(0.26, 0.36)
    rough = 0.02 * _noise(generator, size, 14, 14)
    row = (y + rough) / high + 12.0 + generator.uniform(0.0, 1.0)
    level = np.floor(row)
    place = (x + rough) / (2.3 * high) + 12.0 + 0.5 * (level % 2.0) + generator.uniform(0.0, 1.0)
    column = np.floor(place)
    gap = np.minimum((0.5 - np.abs(row - level - 0.5)) * high, (0.5 - np.abs(place - column - 0.5)) * 2.3 * high)
    block = smooth(gap, 0.012, 0.035)
    lot = generator.uniform(-1.0, 1.0, 97).astype(np.float32)[(level * 31 + column * 17).astype(int) % 97]
    clay, fired = [
        ((0.52, 0.26, 0.19), (0.72, 0.42, 0.30)),
        ((0.60, 0.52, 0.44), (0.78, 0.70, 0.60)),
        ((0.66, 0.64, 0.62), (0.84, 0.82, 0.79)),
    ][generator.integers(3)]
    coarse = _clouds(generator, size, 14, 3)
    bricks = _ramp(clay, fired, 0.5 + 0.35 * lot + 0.25 * coarse)
    colour = bricks * block + (1.0 - block) * _paint_over((0.64, 0.60, 0.55))[0] * (1.0 + 0.1 * coarse)
    return _relight(colour, 0.7 * block + 0.25 * coarse, light, 0.6)


def _plaster(generator: np.random.Generator, size: int, light: Array) -> Array:
    shades = ((0.82, 0.78, 0.70), (0.62, 0.72, 0.74), (0.80, 0.66, 0.56), (0.72, 0.74, 0.62), (0.52, 0.56, 0.62))
    tint = _paint_over(shades[generator.integers(len(shades))])[0]
    lumps = _clouds(generator, size, 7, 4)
    return _relight(tint * (1.0 + 0.10 * _clouds(generator, size, 2, 2)), lumps, light, 0.45)


# name -> function of (generator, size, direction to the light) that gives colours [3,size,size]
BACKGROUNDS: dict[str, Callable[[np.random.Generator, int, Array], Array]] = {
    "wood": _wood,
    "cloth": _cloth,
    "grass": _grass,
    "sand": _sand,
    "brick": _brick,
    "plaster": _plaster,
}

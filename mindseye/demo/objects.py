"""Draws each kind of object of the demo as a small relief: height, colour and material at every pixel.

A shape is a signed distance (negative inside) in object units, y pointing down; an object fits a circle of radius 1.
Drawings know nothing of light, position or background: those belong to mindseye.demo.photographs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

Array = np.ndarray
Colour = tuple[float, float, float]

STEEL: Colour = (0.70, 0.72, 0.76)
BRASS: Colour = (0.85, 0.66, 0.30)
DARK: Colour = (0.05, 0.05, 0.06)
CREAM: Colour = (0.97, 0.91, 0.72)
RED, GREEN, BLUE, HEIGHT, METAL, GLOSS, GLOW, COVER = range(8)


@dataclass
class Sheet:
    """One object's drawing surface.

    x, y: float32 [h,w], object coordinates of the pixel centres; pixel: width of a pixel in object units;
    planes: float32 [8,h,w], premultiplied by coverage: red, green, blue, height, metal, gloss, glow, cover.
    """

    x: Array
    y: Array
    pixel: float
    planes: Array


def paint(
    sheet: Sheet,
    distance: Array,
    height: Array | float,
    colour: Colour | Array,
    metal: float = 0.0,
    gloss: float = 0.3,
    glow: float = 0.0,
    opacity: float = 1.0,
) -> None:
    """Lays one part over the sheet where distance [h,w] is negative, with a one-pixel soft edge.

    height: above the table, object units; colour: red, green, blue in [0,1], or float32 [3,h,w];
    metal, gloss, glow, opacity: in [0,1]. Height and gloss ignore opacity, so that clear glass still shines.
    """
    inside = np.clip(0.5 - distance / sheet.pixel, 0.0, 1.0)
    seen = inside * opacity
    planes = sheet.planes
    tint = np.asarray(colour, dtype=np.float32)
    planes[:3] += seen * ((tint if tint.ndim == 3 else tint[:, None, None]) - planes[:3])
    for index, value in ((HEIGHT, height), (METAL, metal), (GLOSS, gloss), (GLOW, glow)):
        planes[index] += inside * (value - planes[index])
    planes[COVER] += seen * (1.0 - planes[COVER])


def length(x: Array, y: Array) -> Array:
    """Euclidean length of [h,w] vectors; several times faster than numpy.hypot."""
    return np.sqrt(x * x + y * y)


def box(x: Array, y: Array, half_width: float | Array, half_height: float, corner: float) -> Array:
    """Distance to a rectangle round the origin whose corners have the radius `corner`."""
    across, along = np.abs(x) - (half_width - corner), np.abs(y) - (half_height - corner)
    outside = length(np.maximum(across, 0.0), np.maximum(along, 0.0))
    return outside + np.minimum(np.maximum(across, along), 0.0) - corner


def ellipse(x: Array, y: Array, wide: float, high: float) -> Array:
    """Approximate distance to an ellipse with the half axes `wide` and `high`."""
    first = length(x / wide, y / high)
    second = length(x / wide**2, y / high**2)
    return first * (first - 1.0) / np.maximum(second, 1e-4)


def rod(x: Array, y: Array, start: tuple[float, float], end: tuple[float, float], thick: float, thin: float) -> Array:
    """Distance to a round-ended rod that tapers from radius `thick` at start to `thin` at end."""
    run, rise = end[0] - start[0], end[1] - start[1]
    along = np.clip(((x - start[0]) * run + (y - start[1]) * rise) / (run * run + rise * rise), 0.0, 1.0)
    return length(x - start[0] - along * run, y - start[1] - along * rise) - (thick + (thin - thick) * along)


def turned(x: Array, y: Array, degrees: float) -> tuple[Array, Array]:
    """Coordinates in a frame turned clockwise by `degrees` about the origin."""
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return cosine * x + sine * y, cosine * y - sine * x


def bulge(distance: Array, radius: float) -> Array:
    """Height of a flat slab whose edge is rounded off with `radius`; a tube where the shape is 2·radius wide."""
    depth = np.clip(-distance / radius, 0.0, 1.0)
    return radius * np.sqrt(depth * (2.0 - depth))


def smooth(value: Array, low: float, high: float) -> Array:
    """0 below `low`, 1 above `high`, an S-shaped ramp between."""
    ramp = np.clip((value - low) / (high - low), 0.0, 1.0)
    return ramp * ramp * (3.0 - 2.0 * ramp)


def mix(first: Colour | Array, second: Colour | Array, share: Array) -> Array:
    """Colour [3,h,w] that goes from first to second as share [h,w] goes from 0 to 1."""
    start, end = (np.asarray(c, dtype=np.float32) for c in (first, second))
    start, end = (c if c.ndim == 3 else c[:, None, None] for c in (start, end))
    return start + share * (end - start)


def mottle(x: Array, y: Array, scale: float, phase: float) -> Array:
    """Irregular blotches in about [-1,1], `scale` waves per unit: cheap, smooth and turning with the object."""
    first = np.sin(scale * x + 1.7 * np.sin(0.8 * scale * y + phase) + 3.0 * phase)
    return 0.5 * first + 0.5 * np.sin(1.3 * scale * y + 1.9 * np.sin(0.7 * scale * x - phase) + phase)


def darker(colour: Colour, share: float) -> Colour:
    """The colour multiplied by `share`."""
    return (colour[0] * share, colour[1] * share, colour[2] * share)


def _shackle(sheet: Sheet, x: Array, y: Array, free: float) -> None:
    arch = np.abs(length(x, np.minimum(y, 0.0)) - 0.36) - 0.095
    # Below the arch the two legs run straight; the right one may end early (an open lock).
    legs = np.maximum(np.abs(np.abs(x) - 0.36) - 0.095, np.where(x > 0, y - free, y - 0.5))
    distance = np.where(y < 0, arch, legs)
    paint(sheet, distance, 0.02 + bulge(distance, 0.095), STEEL, metal=1.0, gloss=0.9)


def _keyhole(sheet: Sheet, x: Array, y: Array, size: float, base: float) -> None:
    hole = np.minimum(length(x, y) - size, box(x, y - 1.5 * size, size * (0.3 + 0.22 * y / size), 1.3 * size, 0.02))
    paint(sheet, hole - 0.25 * size, base + 0.02, BRASS, metal=0.8, gloss=0.8)
    paint(sheet, hole, base - 0.12, DARK, gloss=0.1)


def _lock_body(sheet: Sheet, tint: Colour, stout: float) -> None:
    x, y = sheet.x, sheet.y - 0.35
    distance = box(x, y, 0.56 + 0.1 * stout, 0.46, 0.13)
    grooves = np.minimum(np.abs(y + 0.27), np.abs(y - 0.30))
    height = 0.16 + bulge(distance, 0.14) - 0.03 * (1.0 - smooth(grooves, 0.0, 0.035))
    brushed = 1.0 + 0.05 * np.sin(170.0 * y + 9.0 * np.sin(5.0 * x)) + 0.04 * np.sin(61.0 * y)
    paint(sheet, distance, height, np.asarray(tint, np.float32)[:, None, None] * brushed, metal=0.75, gloss=0.8)
    rivets = length(np.abs(x) - 0.43, np.abs(y) - 0.375) - 0.035
    paint(sheet, rivets, 0.3 + bulge(rivets, 0.035), STEEL, metal=0.9, gloss=0.9)
    _keyhole(sheet, x, y + 0.06, 0.085, 0.3)


def padlock_closed(sheet: Sheet, tint: Colour, stout: float) -> None:
    """A locked padlock from the front."""
    _shackle(sheet, sheet.x, sheet.y + 0.42, 0.5)
    _lock_body(sheet, tint, stout)


def padlock_open(sheet: Sheet, tint: Colour, stout: float) -> None:
    """A padlock whose shackle is pulled up and swung aside."""
    # The shackle reaches far to the left, so body and all are drawn smaller and to the right.
    moved = replace(sheet, x=1.12 * sheet.x - 0.20, y=1.12 * sheet.y - 0.08, pixel=1.12 * sheet.pixel)
    x, y = turned(moved.x + 0.36, moved.y + 0.1, -42.0 - 22.0 * stout)
    _shackle(moved, x - 0.36, y + 0.45, 0.16)
    _lock_body(moved, tint, stout)


def padlock_keyhole(sheet: Sheet, tint: Colour, stout: float) -> None:
    """The keyhole of a padlock from close by; the body runs past the picture's edge on most sides."""
    x, y = sheet.x, sheet.y
    distance = box(x, y, 0.98, 0.9 + 0.08 * stout, 0.2)
    brushed = 1.0 + 0.03 * np.sin(90.0 * y + 0.6 * np.sin(3.0 * x)) + 0.025 * np.sin(37.0 * y)
    body = np.asarray(tint, np.float32)[:, None, None] * brushed
    paint(sheet, distance, bulge(distance, 0.22), body, metal=0.7, gloss=0.7)
    radius = length(x, y)
    plate = radius - 0.66
    rings = 0.035 * np.cos(52.0 * radius) * smooth(radius, 0.36, 0.42) * (1.0 - smooth(radius, 0.56, 0.62))
    paint(sheet, plate, 0.22 + bulge(plate, 0.09) + rings, darker(tint, 1.1), metal=0.8, gloss=0.9)
    _keyhole(sheet, x, y + 0.14, 0.17, 0.3)


def _rod_of_screw(sheet: Sheet, tint: Colour, stout: float, bottom: float) -> None:
    # The tip lies at y = bottom; whatever reaches below 0.98 is left out.
    x, y = sheet.x, sheet.y
    core = (0.135 + 0.05 * stout) * (1.0 - smooth(y, bottom - 0.5, bottom + 0.06))
    wave = np.abs(((y * 8.0 - x * 1.2) % 1.0) - 0.5) * 2.0  # slanted triangle wave: the thread
    threaded = smooth(y, -0.55, -0.45)
    radius = core * (0.86 + 0.30 * threaded * wave)
    distance = np.maximum(np.abs(x) - radius, np.maximum(-0.8 - y, y - min(bottom, 0.98)))
    height = np.sqrt(np.maximum(radius * radius - x * x, 0.0)) + 0.035 * threaded * wave
    paint(sheet, distance, height, tint, metal=1.0, gloss=0.9)
    head = np.maximum(np.abs(x) - np.clip(0.40 - 1.1 * (y + 0.86), 0.1, 0.40), np.abs(y + 0.76) - 0.18)
    paint(sheet, head, np.sqrt(np.maximum(0.17 - x * x, 0.0)) * 0.8, tint, metal=1.0, gloss=0.9)
    rim = box(x, y + 0.92, 0.41, 0.055, 0.04)
    paint(sheet, rim, 0.05 + np.sqrt(np.maximum(0.18 - x * x, 0.0)), tint, metal=1.0, gloss=1.0)


def screw_lying(sheet: Sheet, tint: Colour, stout: float) -> None:
    """A screw from the side, head up; the pose turns it."""
    _rod_of_screw(sheet, tint, stout, 0.98)


def screw_upright(sheet: Sheet, tint: Colour, stout: float) -> None:
    """A screw driven half-way down into the edge of a plank."""
    x, y = sheet.x, sheet.y
    _rod_of_screw(sheet, tint, stout, 1.3)
    plank = box(x, y - 0.72, 0.98, 0.34, 0.05)
    grain = 0.5 + 0.5 * np.sin(38.0 * y + 4.0 * np.sin(2.3 * x + 3.0 * stout) + 2.0 * np.sin(5.0 * y))
    wood = mix((0.80, 0.60, 0.38), (0.62, 0.42, 0.24), grain)
    paint(sheet, plank, 0.1 + bulge(plank, 0.1) + 0.008 * grain, wood, gloss=0.15)
    collar = ellipse(x, y - 0.39, 0.30, 0.055)
    paint(sheet, collar, 0.25 + bulge(collar, 0.05), STEEL, metal=1.0, gloss=0.9)


def screw_head(sheet: Sheet, tint: Colour, stout: float) -> None:
    """A screw's head from above with its cross-shaped slot."""
    x, y = sheet.x, sheet.y
    radius = length(x, y)
    distance = radius - 0.84
    dome = 0.3 * np.sqrt(np.maximum(1.0 - (radius / 1.05) ** 2, 0.0))
    turning = 1.0 + 0.04 * np.sin(90.0 * radius)
    steel = np.asarray(tint, np.float32)[:, None, None] * turning
    paint(sheet, distance, dome + bulge(distance, 0.12), steel, metal=1.0, gloss=0.9)
    wide = 0.11 + 0.04 * stout
    cross = np.minimum(box(x, y, 0.56, wide, 0.05), box(x, y, wide, 0.56, 0.05))
    cross = np.minimum(cross, length(x, y) - 0.23)
    paint(sheet, cross - 0.03, 0.38, darker(tint, 1.1), metal=1.0, gloss=1.0)
    paint(sheet, cross, 0.36 - 1.2 * np.clip(-cross, 0.0, 0.16), darker(tint, 0.32), metal=0.8, gloss=0.5)


def _one_banana(sheet: Sheet, x: Array, y: Array, tint: Colour, fat: float, phase: float) -> None:
    # A bent tube: the centre of the bend lies above, the stem at the right end.
    radius = length(x, y + 0.62)
    angle = np.arctan2(x, y + 0.62)
    share = angle / 1.12
    half = fat * np.sqrt(np.clip(1.0 - np.abs(share) ** 3.2, 0.0, 1.0))
    side = (radius - 0.92) / np.maximum(half, 0.02)
    body = np.maximum(np.abs(radius - 0.92) - half, np.abs(angle) * 0.92 - 1.02)
    stem = np.maximum(np.abs(radius - 0.90) - 0.055, np.abs(angle - 1.17) * 0.9 - 0.21)
    paint(sheet, stem, 0.1 + bulge(stem, 0.055), mix((0.62, 0.62, 0.20), (0.30, 0.20, 0.10), smooth(angle, 1.22, 1.36)))
    ridge = np.exp(-((side - 0.15) / 0.10) ** 2) + 0.8 * np.exp(-((side + 0.55) / 0.10) ** 2)
    height = half * np.sqrt(np.maximum(1.0 - side * side, 0.0)) + 0.02 * ridge
    skin = mix(tint, (0.55, 0.66, 0.18), smooth(share, 0.55, 1.05) * 0.8)
    skin = mix(skin, darker(tint, 0.72), 0.35 * ridge)
    freckles = smooth(mottle(x, y, 23.0, phase), 0.55, 0.75) * 0.45
    skin = mix(skin, (0.36, 0.22, 0.08), freckles)
    skin = mix(skin, (0.22, 0.15, 0.07), smooth(-share, 0.86, 0.93))
    paint(sheet, body, height, skin, gloss=0.28)


def banana_single(sheet: Sheet, tint: Colour, stout: float) -> None:
    """One banana lying on its side."""
    _one_banana(sheet, sheet.x, sheet.y + 0.05, tint, 0.22 + 0.05 * stout, 6.0 * stout)


def banana_bunch(sheet: Sheet, tint: Colour, stout: float) -> None:
    """Four bananas that share one stem."""
    for index in range(4):
        # Each turns about the shared stem, which is where a single one has its own.
        x, y = turned(sheet.x - 0.62, sheet.y + 0.52, 14.0 - 24.0 * index)
        shade = 0.84 + 0.05 * index
        x, y = 1.2 * x + 0.80, 1.2 * y - 0.24
        _one_banana(sheet, x, y, darker(tint, shade), 0.19 + 0.03 * stout, index + 5.0 * stout)
    knot = rod(sheet.x, sheet.y, (0.74, -0.70), (0.60, -0.50), 0.09, 0.12)
    paint(sheet, knot, 0.25 + bulge(knot, 0.1), (0.45, 0.36, 0.14))


def banana_peeled(sheet: Sheet, tint: Colour, stout: float) -> None:
    """A banana held upright, its upper half bare and three strips of peel hanging down."""
    x = sheet.x + 0.10 * np.sin(1.7 * sheet.y + 0.4)
    y = sheet.y
    fat = 0.215 + 0.04 * stout
    lower = rod(x, y, (0.0, 0.1), (0.0, 0.80), fat, 0.13)
    stem = rod(x, y, (0.0, 0.8), (0.02, 0.98), 0.07, 0.05)
    paint(sheet, stem, 0.05 + bulge(stem, 0.06), (0.38, 0.28, 0.12))
    paint(sheet, lower, bulge(lower, fat), mix(tint, darker(tint, 0.75), smooth(np.sin(34.0 * x), 0.7, 1.0)), gloss=0.3)
    flesh = rod(x, y, (0.0, -0.70), (0.0, 0.15), 0.15, fat - 0.01)
    strings = smooth(np.sin(42.0 * x + 1.5 * np.sin(5.0 * y)), 0.6, 1.0)
    paint(sheet, flesh, 0.05 + bulge(flesh, fat), mix(CREAM, (0.88, 0.78, 0.52), 0.4 * strings), gloss=0.15)
    pale = (0.97, 0.91, 0.66)
    for side in (-1.0, 1.0):
        # A strip of peel bends outwards and down; its pale inside shows, framed by the skin.
        path = ((0.08, 0.28), (0.24, 0.08), (0.42, 0.04), (0.56, 0.18), (0.65, 0.40), (0.67, 0.64))
        girth = (0.15, 0.145, 0.135, 0.12, 0.09, 0.04)
        strip = rod(side * x, y, path[0], path[1], girth[0], girth[1])
        for joint in range(1, 5):
            strip = np.minimum(strip, rod(side * x, y, path[joint], path[joint + 1], girth[joint], girth[joint + 1]))
        paint(sheet, strip, 0.12 + bulge(strip, 0.14), mix(tint, pale, smooth(-strip, 0.02, 0.06)), gloss=0.25)
    front = rod(x, y, (0.0, 0.14), (0.04, 0.60), 0.16, 0.05)
    paint(sheet, front, 0.26 + bulge(front, 0.14), mix(tint, pale, smooth(-front, 0.03, 0.07)), gloss=0.3)


def banana_slice(sheet: Sheet, tint: Colour, stout: float) -> None:
    """One slice across a banana, with its peel."""
    x, y = sheet.x, sheet.y
    radius, angle = length(x, y), np.arctan2(y, x)
    outline = 0.92 * (1.0 + 0.03 * np.cos(5.0 * angle + stout))
    edge = radius - outline
    paint(sheet, edge, 0.25 + bulge(edge, 0.12), tint, gloss=0.3)
    # Three lobes meet in the middle, each with a row of tiny seeds.
    lobes = smooth(np.abs(np.cos(1.5 * angle)), 0.25, 0.0) * smooth(radius, 0.55, 0.1)
    ring = smooth(radius, 0.30, 0.60) * smooth(radius, 0.82, 0.60)
    flesh = mix(mix(CREAM, (0.93, 0.82, 0.52), 0.7 * ring), (0.84, 0.70, 0.42), 0.8 * lobes)
    seeds = smooth(np.cos(6.0 * angle), 0.55, 0.95) * smooth(np.abs(radius - 0.22), 0.10, 0.03)
    flesh = mix(flesh, (0.52, 0.36, 0.20), 0.75 * seeds)
    paint(sheet, edge + 0.10, 0.37 - 0.03 * smooth(radius, 0.3, 0.0) - 0.02 * seeds, flesh, gloss=0.35)


def _mug_wall(sheet: Sheet, x: Array, y: Array, tint: Colour, side: float) -> None:
    # The ear first: the wall covers its ends. `side` is 1 for an ear at the right, -1 at the left.
    ear = np.abs(length((side * x - 0.50) * 1.15, y - 0.04) - 0.31) - 0.075
    paint(sheet, ear, 0.25 + bulge(ear, 0.075), tint, gloss=0.8)
    half = 0.54 - 0.05 * y
    wall = np.maximum(np.abs(x) - half, -0.62 - y)
    wall = np.maximum(wall, y - 0.56 - 0.14 * np.sqrt(np.maximum(1.0 - (x / 0.54) ** 2, 0.0)))
    round_ = 1.15 * np.sqrt(np.maximum(half * half - x * x, 0.0))
    bands = smooth(np.abs(y - 0.28 - 0.12 * np.sqrt(np.maximum(1.0 - (x / 0.54) ** 2, 0.0))), 0.08, 0.10)
    paint(sheet, wall, round_, mix((0.96, 0.94, 0.89), tint, bands), gloss=0.8)


def _mug(sheet: Sheet, x: Array, y: Array, tint: Colour, side: float) -> None:
    _mug_wall(sheet, x, y, tint, side)
    rim = ellipse(x, y + 0.62, 0.57, 0.17)
    paint(sheet, rim, 0.3 + bulge(rim, 0.03), mix(tint, (1.0, 1.0, 1.0), np.float32(0.35)), gloss=0.9)
    hollow = rim + 0.045
    paint(sheet, hollow, 0.12, mix(darker(tint, 0.35), darker(tint, 0.8), smooth(x, -0.5, 0.5)), gloss=0.4)
    coffee = np.maximum(ellipse(x, y + 0.56, 0.50, 0.12), hollow)
    paint(sheet, coffee, 0.12, mix((0.16, 0.08, 0.03), (0.45, 0.27, 0.13), smooth(x - y, -0.4, 0.9)), gloss=0.9)


def mug_side(sheet: Sheet, tint: Colour, stout: float) -> None:
    """A mug of coffee on the table, seen from a little above."""
    _mug(sheet, sheet.x + 0.16, sheet.y * (1.1 - 0.15 * stout) - 0.02, tint, 1.0)


def mug_above(sheet: Sheet, tint: Colour, stout: float) -> None:
    """A mug of coffee from straight above."""
    x, y = sheet.x + 0.12, sheet.y
    ear = box(x - 0.82, y, 0.24, 0.10, 0.09)
    paint(sheet, ear, 0.2 + bulge(ear, 0.1), tint, gloss=0.8)
    radius = length(x, y)
    outer = radius - 0.70
    paint(sheet, outer, 0.3 + bulge(outer, 0.055), mix(tint, (1.0, 1.0, 1.0), np.float32(0.25)), gloss=0.9)
    paint(sheet, radius - 0.60, 0.25, mix(darker(tint, 0.30), darker(tint, 0.85), smooth(x + y, -0.6, 0.6)), gloss=0.5)
    swirl = np.sin(9.0 * radius + 3.0 * np.arctan2(y, x) + 6.0 * stout)
    foam = smooth(swirl + 0.5 * mottle(x, y, 9.0, stout), 0.3, 1.2) * (1.0 - smooth(radius, 0.30, 0.5))
    coffee = mix(mix((0.22, 0.11, 0.05), (0.52, 0.32, 0.16), smooth(radius, 0.30, 0.56)), (0.93, 0.83, 0.66), foam)
    paint(sheet, radius - 0.56, 0.24, coffee, gloss=0.8)


def mug_stack(sheet: Sheet, tint: Colour, stout: float) -> None:
    """Three mugs standing in one another, ears to either side."""
    zoom = 1.75
    for index in range(3):
        x, y = sheet.x * zoom, (sheet.y - 0.52 + 0.50 * index) * zoom
        shade = (tint, (0.93, 0.90, 0.84), darker(tint, 0.62))[index]
        _mug(sheet, x + 0.06 * math.sin(2.0 * index + 9.0 * stout), y, shade, 1.0 - 2.0 * (index % 2))


def mug_saucer(sheet: Sheet, tint: Colour, stout: float) -> None:
    """A mug on a wide saucer with a spoon and a biscuit."""
    x, y = sheet.x, sheet.y
    for wide, high, share, lift in ((0.98, 0.36, 1.0, 0.10), (0.84, 0.27, 0.86, 0.06), (0.62, 0.19, 1.0, 0.07)):
        plate = ellipse(x, y - 0.50, wide, high)
        paint(sheet, plate, lift + bulge(plate, 0.05), darker((0.96, 0.94, 0.90), share), gloss=0.8)
    zoom = 1.75 - 0.15 * stout
    _mug(sheet, x * zoom + 0.12, (y - 0.08) * zoom, tint, 1.0)
    handle = rod(x, y, (-0.88, 0.42), (-0.30, 0.70), 0.035, 0.025)
    spoon = np.minimum(handle, ellipse(x + 0.20, y - 0.73, 0.15, 0.085))
    paint(sheet, spoon, 0.2 + bulge(spoon, 0.05), STEEL, metal=1.0, gloss=0.9)
    biscuit = ellipse(x - 0.52, y - 0.66, 0.20, 0.13)
    crumb = 0.15 + bulge(biscuit, 0.06) + 0.015 * mottle(x, y, 40.0, stout)
    paint(sheet, biscuit, crumb, (0.80, 0.55, 0.27), gloss=0.1)


def _blade(sheet: Sheet, x: Array, y: Array, tint: Colour, half: float, phase: float) -> None:
    # A pointed oval from y = -0.9 (tip) to 0.6 (foot), folded along its rib, with slanting side veins.
    share = np.clip((y + 0.92) / 1.54, 0.0, 1.0)
    outline = half * np.maximum(np.sin(math.pi * share**1.15), 0.0) ** 0.85 * (1.0 + 0.03 * np.sin(44.0 * y))
    away = np.abs(x)
    distance = np.maximum((away - outline) * 0.85, np.abs(y + 0.15) - 0.77)
    stalk = rod(x, y, (0.0, 0.55), (0.07, 0.98), 0.035, 0.045)
    paint(sheet, stalk, 0.04 + bulge(stalk, 0.03), darker(tint, 0.7))
    vein = np.abs(np.sin(17.0 * (y + 0.75 * away)))
    lines = (1.0 - smooth(vein, 0.0, 0.34)) * smooth(away, 0.0, 0.03)
    rib = 1.0 - smooth(away, 0.012, 0.035)
    height = 0.06 + 0.20 * away + 0.025 * vein - 0.10 * smooth(away, 0.6 * half, half) + 0.03 * rib
    leaf = mix(tint, darker(tint, 0.72), smooth(mottle(x, y, 7.0, phase), 0.0, 0.9) * 0.6)
    leaf = mix(leaf, CREAM, 0.28 * lines + 0.5 * rib)
    paint(sheet, distance, height, leaf, gloss=0.4)


def leaf_single(sheet: Sheet, tint: Colour, stout: float) -> None:
    """One pointed oval leaf with its veins."""
    _blade(sheet, sheet.x, sheet.y, tint, 0.42 + 0.14 * stout, 6.0 * stout)


def leaf_lobed(sheet: Sheet, tint: Colour, stout: float) -> None:
    """A maple leaf: five pointed lobes round the foot of the stalk."""
    x, y = sheet.x, sheet.y - 0.22
    stalk = rod(x, y, (0.0, 0.1), (0.10, 0.76), 0.03, 0.04)
    paint(sheet, stalk, 0.04 + bulge(stalk, 0.03), darker(tint, 0.7))
    radius, angle = length(x, y), np.arctan2(x, -y)  # angle 0 points at the middle lobe
    lobe = math.radians(52.0)
    near = np.clip(np.round(angle / lobe), -2.0, 2.0)
    off = angle - near * lobe
    reach = (1.10 - 0.15 * np.abs(near)) * (0.94 + 0.12 * stout)
    tooth = 0.05 * np.abs(np.sin(11.0 * radius))
    wedge = np.abs(np.sin(np.clip(off, -1.5, 1.5))) * radius
    across = 0.34 * np.clip(1.0 - radius / reach, 0.0, 1.0) ** 0.75 + tooth * smooth(radius, 0.2, 0.4)
    across = np.where(radius < 0.34, np.maximum(across, 0.34 - 0.10 * np.abs(near)), across)
    distance = np.maximum((wedge - across) * 0.8, np.maximum(radius - reach, np.abs(angle) - 2.45))
    rib = 1.0 - smooth(wedge, 0.008, 0.03)
    vein = np.abs(np.sin(15.0 * (radius - 0.8 * wedge)))
    lines = (1.0 - smooth(vein, 0.0, 0.3)) * smooth(radius, 0.15, 0.35)
    leaf = mix(tint, (0.86, 0.66, 0.20), 0.5 * smooth(mottle(x, y, 5.0, 6.0 * stout), -0.2, 0.9))
    leaf = mix(leaf, CREAM, 0.22 * lines + 0.5 * rib)
    paint(sheet, distance, 0.06 + 0.30 * wedge + 0.04 * vein + 0.03 * rib, leaf, gloss=0.35)


def leaf_sprig(sheet: Sheet, tint: Colour, stout: float) -> None:
    """A twig with pairs of small leaflets."""
    x, y = sheet.x + 0.10 * np.sin(2.2 * sheet.y), sheet.y
    stem = rod(x, y, (0.0, -0.72), (0.0, 0.98), 0.018, 0.035)
    paint(sheet, stem, 0.08 + bulge(stem, 0.025), (0.42, 0.30, 0.16))
    spacing = 0.36
    row = np.clip(np.round((y + 0.18) / spacing), -1.0, 2.0)
    across, along = turned(np.abs(x) - 0.04, y + 0.06 - row * spacing, -38.0)
    share = np.clip(across / (0.66 - 0.05 * np.abs(row)), 0.0, 1.0)
    outline = (0.15 + 0.05 * stout) * np.sin(math.pi * share**0.85)
    side = np.abs(along)
    leaflet = np.maximum(side - outline, -across)
    shade = mix(tint, darker(tint, 0.68), smooth(np.sin(2.0 * row + 1.5 * (x > 0)), -1.0, 1.0))
    paint(sheet, leaflet, 0.10 + 0.35 * side, mix(shade, CREAM, 0.45 * (1.0 - smooth(side, 0.008, 0.024))), gloss=0.45)
    top = np.maximum(np.abs(x) - 0.15 * np.sin(math.pi * np.clip((y + 1.0) / 0.5, 0.0, 1.0)), np.abs(y + 0.75) - 0.25)
    paint(sheet, top, 0.10 + 0.35 * np.abs(x), tint, gloss=0.45)


def mushroom_side(sheet: Sheet, tint: Colour, stout: float) -> None:
    """A toadstool from the side: domed spotted cap, pale stalk with a ring."""
    x, y = sheet.x, sheet.y
    half = 0.15 + 0.06 * stout + 0.07 * smooth(y, 0.5, 0.95)
    stalk = np.maximum(np.abs(x) - half, np.abs(y - 0.36) - 0.58)
    fibres = smooth(np.sin(55.0 * x), 0.2, 1.0)
    flesh = mix((0.94, 0.90, 0.80), (0.80, 0.73, 0.60), 0.5 * fibres)
    paint(sheet, stalk, np.sqrt(np.maximum(half * half - x * x, 0.0)), flesh)
    skirt = np.maximum(np.abs(x) - 0.16 - 0.45 * (y - 0.22), np.abs(y - 0.31) - 0.08)
    paint(sheet, skirt, 0.25, mix((0.95, 0.91, 0.82), (0.78, 0.70, 0.58), smooth(np.sin(40.0 * x), 0.0, 1.0)))
    under = ellipse(x, y - 0.06, 0.80, 0.15)
    gills = mix((0.90, 0.83, 0.68), (0.58, 0.47, 0.34), smooth(np.sin(70.0 * x), -0.3, 1.0))
    paint(sheet, under, 0.12 + bulge(under, 0.05), gills)
    cap = np.maximum(ellipse(x, y - 0.08, 0.88, 0.92), y - 0.06 - 0.09 * np.sqrt(np.maximum(1.0 - (x / 0.9) ** 2, 0.0)))
    dome = np.sqrt(np.maximum(1.0 - (x / 0.90) ** 2 - ((y - 0.1) / 0.96) ** 2, 0.0))
    paint(sheet, cap, 0.1 + 0.62 * dome, tint, gloss=0.65)
    for across, above, size in ((-0.40, -0.28, 0.12), (0.02, -0.55, 0.13), (0.34, -0.20, 0.14), (-0.08, -0.12, 0.10),
                                (0.68, -0.06, 0.07), (-0.68, -0.04, 0.08), (0.44, -0.54, 0.07), (-0.34, -0.62, 0.06)):
        spot = length(x - across, y - above) - size * (0.8 + 0.3 * stout)
        paint(sheet, spot, 0.13 + 0.62 * dome + bulge(spot, 0.05), (0.97, 0.94, 0.86), gloss=0.2)


def mushroom_above(sheet: Sheet, tint: Colour, stout: float) -> None:
    """A toadstool's round spotted cap from above."""
    x, y = sheet.x, sheet.y
    radius = length(x, y)
    dome = 0.62 * np.sqrt(np.maximum(1.0 - (radius / 0.92) ** 2, 0.0))
    paint(sheet, radius - 0.90, dome, mix(tint, darker(tint, 1.35), smooth(radius, 0.62, 0.9) * 0.6), gloss=0.65)
    for index in range(13):
        turn, away = 2.399963 * index + 6.0 * stout, 0.225 * math.sqrt(index + 0.3)  # a sunflower's spiral
        spot = length(x - away * math.cos(turn), y - away * math.sin(turn)) - 0.07 - 0.06 * abs(math.sin(1.7 * index))
        paint(sheet, spot, dome + 0.6 * bulge(spot, 0.05), (0.97, 0.94, 0.86), gloss=0.2)


def mushroom_slim(sheet: Sheet, tint: Colour, stout: float) -> None:
    """One thin brown mushroom of a clump, with a bell-shaped cap."""
    x, y = sheet.x, sheet.y
    middle = x - 0.10 * np.sin(2.0 * y + 5.0 * stout)
    stalk = np.maximum(np.abs(middle) - 0.10, np.abs(y - 0.30) - 0.68)
    paint(sheet, stalk, bulge(stalk, 0.1), mix((0.92, 0.86, 0.72), (0.60, 0.46, 0.30), smooth(y, -0.2, 1.0)))
    cap = np.maximum(ellipse(x, y + 0.26, 0.46, 0.66), y + 0.22 - 0.06 * np.cos(6.0 * x))
    dome = np.sqrt(np.maximum(1.0 - (x / 0.48) ** 2 - ((y + 0.26) / 0.70) ** 2, 0.0))
    brown = mix(darker(tint, 0.75), (0.92, 0.74, 0.45), smooth(y, -0.75, -0.25))
    brown = mix(brown, darker(tint, 0.6), 0.4 * smooth(np.sin(38.0 * x), 0.5, 1.0))
    paint(sheet, cap, 0.1 + 0.45 * dome, brown, gloss=0.5)


def mushroom_gills(sheet: Sheet, tint: Colour, stout: float) -> None:
    """A mushroom from below: rays of gills round the cut stalk."""
    x, y = sheet.x, sheet.y
    radius, angle = length(x, y), np.arctan2(y, x)
    edge = radius - 0.90 * (1.0 + 0.02 * np.sin(5.0 * angle + 6.0 * stout))
    paint(sheet, edge, 0.15 + bulge(edge, 0.1), tint, gloss=0.4)
    rays = np.sin(46.0 * angle + 0.8 * np.sin(6.0 * radius)) * smooth(radius, 0.15, 0.45)
    gills = mix((0.93, 0.85, 0.70), (0.52, 0.38, 0.26), smooth(rays, -0.5, 1.0) * 0.85)
    paint(sheet, edge + 0.09, 0.20 - 0.14 * (radius - 0.5) ** 2 - 0.015 * rays, gills, gloss=0.1)
    stalk = radius - 0.21
    rings = 0.5 + 0.5 * np.sin(60.0 * radius)
    paint(sheet, stalk, 0.35 + bulge(stalk, 0.08), mix((0.97, 0.93, 0.84), (0.85, 0.77, 0.62), 0.5 * rings), gloss=0.1)


def _socket(sheet: Sheet, x: Array, y: Array) -> None:
    # The metal screw base of a lamp, 0.46 wide and 0.4 high, from y = 0.
    wave = np.abs(((y * 9.0 - x * 0.8) % 1.0) - 0.5)
    half = 0.215 + 0.05 * wave
    base = np.maximum(np.abs(x) - half, np.abs(y - 0.18) - 0.19)
    paint(sheet, base, np.sqrt(np.maximum(half * half - x * x, 0.0)) + 0.05 * wave, STEEL, metal=1.0, gloss=0.9)
    foot = box(x, y - 0.41, 0.11, 0.05, 0.04)
    paint(sheet, foot, 0.05 + bulge(foot, 0.05), DARK, gloss=0.6)


def _glass(x: Array, y: Array) -> Array:
    # The pear shape of a lamp: a ball round (0, -0.28) that runs into a neck at y = 0.5.
    ball = length(x, y + 0.28) - 0.62
    neck = np.maximum(np.abs(x) - 0.24 - 0.25 * (0.5 - y) ** 2, np.abs(y - 0.3) - 0.24)
    blend = np.clip(0.5 + 0.5 * (neck - ball) / 0.2, 0.0, 1.0)
    return neck + (ball - neck) * blend - 0.2 * blend * (1.0 - blend)


def bulb_off(sheet: Sheet, tint: Colour, stout: float) -> None:
    """A clear glass lamp, not burning, with its filament."""
    x, y = sheet.x * (1.1 - 0.1 * stout), sheet.y
    glass = _glass(x, y)
    round_ = 0.1 + bulge(glass, 0.62)
    wires = rod(np.abs(x), y, (0.08, 0.5), (0.20, -0.22), 0.02, 0.016)
    coil = np.maximum(np.abs(y + 0.22 - 0.06 * np.sin(48.0 * x)) - 0.022, np.abs(x) - 0.20)
    paint(sheet, glass, round_, mix((0.86, 0.92, 0.95), tint, np.float32(0.25)), gloss=1.0, opacity=0.30)
    paint(sheet, np.abs(glass + 0.025) - 0.025, round_, (0.90, 0.95, 0.97), gloss=1.0, opacity=0.45)
    paint(sheet, np.minimum(wires, coil), round_, (0.30, 0.26, 0.22), metal=0.5, gloss=1.0)
    _socket(sheet, x, y - 0.50)


def bulb_lit(sheet: Sheet, tint: Colour, stout: float) -> None:
    """A burning lamp; it lights the background round it."""
    x, y = sheet.x * (1.1 - 0.1 * stout), sheet.y
    glass = _glass(x, y)
    core = smooth(length(x, 0.85 * (y + 0.25)), 0.72, 0.10)
    paint(sheet, glass, 0.1 + bulge(glass, 0.62), mix((1.0, 0.72, 0.30), (1.0, 0.99, 0.88), core), gloss=0.4, glow=1.0)
    _socket(sheet, x, y - 0.50)


def bulb_fairy(sheet: Sheet, tint: Colour, stout: float) -> None:
    """One small coloured lamp of a garland, hanging from its holder."""
    x, y = sheet.x, sheet.y
    glass = ellipse(x, y - 0.22, 0.44 + 0.08 * stout, 0.66)
    bright = mix(tint, (1.0, 0.97, 0.85), smooth(-length(x, y - 0.1), -0.5, 0.0) * 0.8)
    paint(sheet, glass, 0.1 + bulge(glass, 0.44), bright, gloss=1.0, glow=0.55)
    holder = box(x, y + 0.60, 0.24, 0.28, 0.08)
    paint(sheet, holder, 0.1 + bulge(holder, 0.2), (0.10, 0.16, 0.12), gloss=0.5)


def bulb_spiral(sheet: Sheet, tint: Colour, stout: float) -> None:
    """An energy-saving lamp: a white tube wound into a spiral."""
    x, y = sheet.x, sheet.y
    white = mix((0.97, 0.97, 0.95), tint, np.float32(0.12))
    for index in range(4):
        level = -0.72 + 0.25 * index
        reach = (0.26, 0.40, 0.47, 0.42)[index] * (0.92 + 0.16 * stout)
        back = rod(x, y, (reach, level + 0.10), (-reach, level + 0.20), 0.085, 0.085)
        paint(sheet, back, 0.02 + bulge(back, 0.085), darker((0.90, 0.91, 0.90), 0.7), gloss=0.5)
    for index in range(4):
        level = -0.72 + 0.25 * index
        reach = (0.26, 0.40, 0.47, 0.42)[index] * (0.92 + 0.16 * stout)
        front = rod(x, y, (-reach, level - 0.03), (reach, level + 0.09), 0.10, 0.10)
        paint(sheet, front, 0.15 + bulge(front, 0.1), white, gloss=0.9, glow=0.08)
    holder = np.maximum(np.abs(x) - 0.38 + 0.32 * smooth(y, 0.36, 0.62), np.abs(y - 0.40) - 0.19)
    paint(sheet, holder, 0.1 + bulge(holder, 0.3), (0.93, 0.93, 0.91), gloss=0.6)
    _socket(sheet, x, y - 0.56)


def _crook(sheet: Sheet, x: Array, y: Array, top: float) -> None:
    # Shaft from `top` down to a J-shaped wooden handle.
    shaft = rod(x, y, (0.0, top), (0.0, 0.72), 0.03, 0.03)
    paint(sheet, shaft, 0.05 + bulge(shaft, 0.03), STEEL, metal=1.0, gloss=0.9)
    hook, ends = np.abs(length(x - 0.15, y - 0.74) - 0.15), length(np.abs(x - 0.15) - 0.15, y - 0.74)
    bend = np.where(y > 0.74, hook, ends) - 0.05
    grip = np.minimum(bend, rod(x, y, (0.0, 0.56), (0.0, 0.74), 0.05, 0.05))
    paint(sheet, grip, 0.05 + bulge(grip, 0.05), (0.48, 0.28, 0.13), gloss=0.7)


def umbrella_open(sheet: Sheet, tint: Colour, stout: float) -> None:
    """An open umbrella from the side with its shaft and crook."""
    x, y = sheet.x, sheet.y
    _crook(sheet, x, y, -0.9)
    tip = rod(x, y, (0.0, -0.98), (0.0, -0.70), 0.02, 0.035)
    paint(sheet, tip, 0.1 + bulge(tip, 0.03), STEEL, metal=1.0, gloss=0.9)
    wide, high = 0.94, 0.72 + 0.12 * stout
    share = np.clip(x / (wide * np.sqrt(np.clip(1.0 - ((y - 0.02) / high) ** 2, 0.01, 1.0))), -1.0, 1.0)
    panel = np.arcsin(share) / math.pi * 5.0 + 2.5  # five panels of cloth are seen
    sag = np.abs(np.sin(math.pi * panel))
    canopy = np.maximum(ellipse(x, y - 0.02, wide, high), y + 0.10 * sag - 0.02)
    dome = np.sqrt(np.maximum(1.0 - (x / wide) ** 2 - ((y - 0.02) / high) ** 2, 0.0))
    cloth = mix(tint, mix(tint, (1.0, 0.98, 0.94), np.float32(0.75)), (np.floor(panel) % 2.0 == 1.0).astype(np.float32))
    paint(sheet, canopy, 0.1 + 0.45 * dome + 0.07 * sag, cloth, gloss=0.3)


def umbrella_above(sheet: Sheet, tint: Colour, stout: float) -> None:
    """An open umbrella from above: eight panels round the tip."""
    x, y = sheet.x, sheet.y
    radius, panel = length(x, y), (np.arctan2(y, x) / math.tau + 1.0) * 8.0
    sag = np.abs(np.sin(math.pi * panel))
    edge = (radius - 0.94 + 0.09 * sag) * 0.95
    pale = mix(tint, (1.0, 0.98, 0.94), np.float32(0.45 + 0.45 * stout))
    cloth = mix(tint, pale, (np.floor(panel) % 2.0 == 1.0).astype(np.float32))
    paint(sheet, edge, 0.15 + 0.50 * np.sqrt(np.maximum(1.0 - radius**2, 0.0)) + 0.14 * sag * radius, cloth, gloss=0.3)
    knob = radius - 0.055
    paint(sheet, knob, 0.8 + bulge(knob, 0.05), STEEL, metal=1.0, gloss=1.0)


def umbrella_folded(sheet: Sheet, tint: Colour, stout: float) -> None:
    """A rolled-up umbrella, tied with a strap."""
    x, y = sheet.x, sheet.y
    _crook(sheet, x, y, -0.98)
    half = (0.06 + (0.11 + 0.04 * stout) * smooth(y, -0.85, 0.15)) * (1.0 - 0.5 * smooth(y, 0.30, 0.48))
    roll = np.maximum(np.abs(x) - half, np.abs(y + 0.19) - 0.67)
    fold = np.abs(np.sin(7.0 * x / np.maximum(half, 0.05) * 0.55 + 4.0 * y))
    height = np.sqrt(np.maximum(half * half - x * x, 0.0)) + 0.05 * fold
    paint(sheet, roll, 0.05 + height, mix(darker(tint, 0.6), tint, smooth(fold, 0.0, 0.5)), gloss=0.3)
    strap = np.maximum(np.abs(y - 0.08 - 0.15 * x) - 0.045, np.abs(x) - half - 0.012)
    paint(sheet, strap, 0.12 + np.sqrt(np.maximum(half * half - x * x, 0.0)), darker(tint, 0.45), gloss=0.4)


def rail(sheet: Sheet, tint: Colour, stout: float) -> None:
    """A steel bar across the picture from which small padlocks hang."""
    bar = np.abs(sheet.y) - 0.04
    paint(sheet, bar, bulge(bar, 0.04), STEEL, metal=1.0, gloss=0.9)


def cable(sheet: Sheet, tint: Colour, stout: float) -> None:
    """A dark cable that sags across the picture; mindseye.demo.photographs hangs lamps along the same curve."""
    sag = np.abs(sheet.y + 0.35 - 0.35 * (1.0 - sheet.x**2)) * 0.8 - 0.022
    paint(sheet, sag, bulge(sag, 0.022), (0.10, 0.14, 0.11), gloss=0.4)


Drawing = Callable[[Sheet, Colour, float], None]

# kind -> facet -> (what draws one object of it, how its objects are laid out)
DRAWINGS: dict[str, dict[str, tuple[Drawing, str]]] = {
    "padlock": {
        "closed": (padlock_closed, "one"),
        "open": (padlock_open, "one"),
        "row": (padlock_closed, "row"),
        "keyhole": (padlock_keyhole, "close"),
    },
    "screw": {
        "lying": (screw_lying, "slanted"),
        "upright": (screw_upright, "one"),
        "head": (screw_head, "close"),
        "several": (screw_lying, "scattered"),
    },
    "banana": {
        "single": (banana_single, "one"),
        "bunch": (banana_bunch, "one"),
        "peeled": (banana_peeled, "one"),
        "sliced": (banana_slice, "scattered"),
    },
    "mug": {
        "side": (mug_side, "one"),
        "above": (mug_above, "turned"),
        "stack": (mug_stack, "one"),
        "saucer": (mug_saucer, "one"),
    },
    "leaf": {
        "single": (leaf_single, "slanted"),
        "lobed": (leaf_lobed, "one"),
        "sprig": (leaf_sprig, "one"),
        "several": (leaf_single, "scattered"),
    },
    "mushroom": {
        "side": (mushroom_side, "one"),
        "above": (mushroom_above, "turned"),
        "clump": (mushroom_slim, "clump"),
        "gills": (mushroom_gills, "turned"),
    },
    "bulb": {
        "clear": (bulb_off, "one"),
        "lit": (bulb_lit, "one"),
        "garland": (bulb_fairy, "garland"),
        "spiral": (bulb_spiral, "one"),
    },
    "umbrella": {
        "open": (umbrella_open, "one"),
        "above": (umbrella_above, "turned"),
        "folded": (umbrella_folded, "slanted"),
        "several": (umbrella_above, "scattered"),
    },
}

# kind -> the colours its objects come in, red, green, blue in [0,1]
TINTS: dict[str, tuple[Colour, ...]] = {
    "padlock": (BRASS, (0.80, 0.58, 0.26), STEEL, (0.72, 0.22, 0.18), (0.22, 0.36, 0.62), (0.24, 0.46, 0.32)),
    "screw": (STEEL, (0.80, 0.66, 0.34), (0.86, 0.74, 0.46), (0.46, 0.47, 0.50), (0.74, 0.52, 0.38)),
    "banana": ((0.98, 0.82, 0.18), (0.95, 0.76, 0.14), (0.90, 0.84, 0.26), (0.99, 0.86, 0.32)),
    "mug": ((0.78, 0.20, 0.17), (0.16, 0.42, 0.62), (0.20, 0.52, 0.44), (0.92, 0.62, 0.20), (0.44, 0.34, 0.58)),
    "leaf": ((0.28, 0.52, 0.16), (0.42, 0.60, 0.18), (0.80, 0.36, 0.10), (0.86, 0.60, 0.14), (0.66, 0.18, 0.12)),
    "mushroom": ((0.80, 0.12, 0.08), (0.76, 0.26, 0.10), (0.62, 0.36, 0.16), (0.84, 0.44, 0.14)),
    "bulb": ((0.90, 0.22, 0.18), (0.96, 0.66, 0.14), (0.20, 0.62, 0.34), (0.22, 0.46, 0.86), (0.72, 0.30, 0.70)),
    "umbrella": ((0.82, 0.16, 0.18), (0.14, 0.36, 0.66), (0.94, 0.70, 0.14), (0.16, 0.52, 0.44), (0.46, 0.24, 0.52)),
}

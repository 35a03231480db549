"""Drawings of things that are made: padlocks, screws, lamps and umbrellas, and the rail and cable that some hang from.

Each function lays one object over a sheet: `tint` is its colour, `stout` its build from slender 0 to stout 1.
"""

import math
from dataclasses import replace

import numpy as np

from mindseye.demo.shapes import (
    BRASS,
    DARK,
    STEEL,
    Array,
    Colour,
    Sheet,
    box,
    bulge,
    darker,
    ellipse,
    length,
    mix,
    rod,
    smooth,
    turned,
)


def _shackle(sheet: Sheet, x: Array, y: Array, free: float) -> None:
    arch = np.abs(length(x, np.minimum(y, 0.0)) - 0.36) - 0.095
    # Below the arch the two legs run straight; the right one may end early (an open lock).
    legs = np.maximum(np.abs(np.abs(x) - 0.36) - 0.095, np.where(x > 0, y - free, y - 0.5))
    distance = np.where(y < 0, arch, legs)
    sheet.paint(distance, 0.02 + bulge(distance, 0.095), STEEL, metal=1.0, gloss=0.9)


def _keyhole(sheet: Sheet, x: Array, y: Array, size: float, base: float) -> None:
    hole = np.minimum(length(x, y) - size, box(x, y - 1.5 * size, size * (0.3 + 0.22 * y / size), 1.3 * size, 0.02))
    sheet.paint(hole - 0.25 * size, base + 0.02, BRASS, metal=0.8, gloss=0.8)
    sheet.paint(hole, base - 0.12, DARK, gloss=0.1)


def _lock_body(sheet: Sheet, tint: Colour, stout: float) -> None:
    x, y = sheet.x, sheet.y - 0.35
    distance = box(x, y, 0.56 + 0.1 * stout, 0.46, 0.13)
    grooves = np.minimum(np.abs(y + 0.27), np.abs(y - 0.30))
    height = 0.16 + bulge(distance, 0.14) - 0.03 * (1.0 - smooth(grooves, 0.0, 0.035))
    brushed = 1.0 + 0.05 * np.sin(170.0 * y + 9.0 * np.sin(5.0 * x)) + 0.04 * np.sin(61.0 * y)
    sheet.paint(distance, height, np.asarray(tint, np.float32)[:, None, None] * brushed, metal=0.75, gloss=0.8)
    rivets = length(np.abs(x) - 0.43, np.abs(y) - 0.375) - 0.035
    sheet.paint(rivets, 0.3 + bulge(rivets, 0.035), STEEL, metal=0.9, gloss=0.9)
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
    sheet.paint(distance, bulge(distance, 0.22), body, metal=0.7, gloss=0.7)
    radius = length(x, y)
    plate = radius - 0.66
    rings = 0.035 * np.cos(52.0 * radius) * smooth(radius, 0.36, 0.42) * (1.0 - smooth(radius, 0.56, 0.62))
    sheet.paint(plate, 0.22 + bulge(plate, 0.09) + rings, darker(tint, 1.1), metal=0.8, gloss=0.9)
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
    sheet.paint(distance, height, tint, metal=1.0, gloss=0.9)
    head = np.maximum(np.abs(x) - np.clip(0.40 - 1.1 * (y + 0.86), 0.1, 0.40), np.abs(y + 0.76) - 0.18)
    sheet.paint(head, np.sqrt(np.maximum(0.17 - x * x, 0.0)) * 0.8, tint, metal=1.0, gloss=0.9)
    rim = box(x, y + 0.92, 0.41, 0.055, 0.04)
    sheet.paint(rim, 0.05 + np.sqrt(np.maximum(0.18 - x * x, 0.0)), tint, metal=1.0, gloss=1.0)


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
    sheet.paint(plank, 0.1 + bulge(plank, 0.1) + 0.008 * grain, wood, gloss=0.15)
    collar = ellipse(x, y - 0.39, 0.30, 0.055)
    sheet.paint(collar, 0.25 + bulge(collar, 0.05), STEEL, metal=1.0, gloss=0.9)


def screw_head(sheet: Sheet, tint: Colour, stout: float) -> None:
    """A screw's head from above with its cross-shaped slot."""
    x, y = sheet.x, sheet.y
    radius = length(x, y)
    distance = radius - 0.84
    dome = 0.3 * np.sqrt(np.maximum(1.0 - (radius / 1.05) ** 2, 0.0))
    turning = 1.0 + 0.04 * np.sin(90.0 * radius)
    steel = np.asarray(tint, np.float32)[:, None, None] * turning
    sheet.paint(distance, dome + bulge(distance, 0.12), steel, metal=1.0, gloss=0.9)
    wide = 0.11 + 0.04 * stout
    cross = np.minimum(box(x, y, 0.56, wide, 0.05), box(x, y, wide, 0.56, 0.05))
    cross = np.minimum(cross, length(x, y) - 0.23)
    sheet.paint(cross - 0.03, 0.38, darker(tint, 1.1), metal=1.0, gloss=1.0)
    sheet.paint(cross, 0.36 - 1.2 * np.clip(-cross, 0.0, 0.16), darker(tint, 0.32), metal=0.8, gloss=0.5)


def _socket(sheet: Sheet, x: Array, y: Array) -> None:
    # The metal screw base of a lamp, 0.46 wide and 0.4 high, from y = 0.
    wave = np.abs(((y * 9.0 - x * 0.8) % 1.0) - 0.5)
    half = 0.215 + 0.05 * wave
    base = np.maximum(np.abs(x) - half, np.abs(y - 0.18) - 0.19)
    sheet.paint(base, np.sqrt(np.maximum(half * half - x * x, 0.0)) + 0.05 * wave, STEEL, metal=1.0, gloss=0.9)
    foot = box(x, y - 0.41, 0.11, 0.05, 0.04)
    sheet.paint(foot, 0.05 + bulge(foot, 0.05), DARK, gloss=0.6)


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
    sheet.paint(glass, round_, mix((0.86, 0.92, 0.95), tint, np.float32(0.25)), gloss=1.0, opacity=0.30)
    sheet.paint(np.abs(glass + 0.025) - 0.025, round_, (0.90, 0.95, 0.97), gloss=1.0, opacity=0.45)
    sheet.paint(np.minimum(wires, coil), round_, (0.30, 0.26, 0.22), metal=0.5, gloss=1.0)
    _socket(sheet, x, y - 0.50)


def bulb_lit(sheet: Sheet, tint: Colour, stout: float) -> None:
    """A burning lamp; it lights the background round it."""
    x, y = sheet.x * (1.1 - 0.1 * stout), sheet.y
    glass = _glass(x, y)
    core = smooth(length(x, 0.85 * (y + 0.25)), 0.72, 0.10)
    sheet.paint(glass, 0.1 + bulge(glass, 0.62), mix((1.0, 0.72, 0.30), (1.0, 0.99, 0.88), core), gloss=0.4, glow=1.0)
    _socket(sheet, x, y - 0.50)


def bulb_fairy(sheet: Sheet, tint: Colour, stout: float) -> None:
    """One small coloured lamp of a garland, hanging from its holder."""
    x, y = sheet.x, sheet.y
    glass = ellipse(x, y - 0.22, 0.44 + 0.08 * stout, 0.66)
    bright = mix(tint, (1.0, 0.97, 0.85), smooth(-length(x, y - 0.1), -0.5, 0.0) * 0.8)
    sheet.paint(glass, 0.1 + bulge(glass, 0.44), bright, gloss=1.0, glow=0.55)
    holder = box(x, y + 0.60, 0.24, 0.28, 0.08)
    sheet.paint(holder, 0.1 + bulge(holder, 0.2), (0.10, 0.16, 0.12), gloss=0.5)


def bulb_spiral(sheet: Sheet, tint: Colour, stout: float) -> None:
    """An energy-saving lamp: a white tube wound into a spiral."""
    x, y = sheet.x, sheet.y
    white = mix((0.97, 0.97, 0.95), tint, np.float32(0.12))
    for index in range(4):
        level = -0.72 + 0.25 * index
        reach = (0.26, 0.40, 0.47, 0.42)[index] * (0.92 + 0.16 * stout)
        back = rod(x, y, (reach, level + 0.10), (-reach, level + 0.20), 0.085, 0.085)
        sheet.paint(back, 0.02 + bulge(back, 0.085), darker((0.90, 0.91, 0.90), 0.7), gloss=0.5)
    for index in range(4):
        level = -0.72 + 0.25 * index
        reach = (0.26, 0.40, 0.47, 0.42)[index] * (0.92 + 0.16 * stout)
        front = rod(x, y, (-reach, level - 0.03), (reach, level + 0.09), 0.10, 0.10)
        sheet.paint(front, 0.15 + bulge(front, 0.1), white, gloss=0.9, glow=0.08)
    holder = np.maximum(np.abs(x) - 0.38 + 0.32 * smooth(y, 0.36, 0.62), np.abs(y - 0.40) - 0.19)
    sheet.paint(holder, 0.1 + bulge(holder, 0.3), (0.93, 0.93, 0.91), gloss=0.6)
    _socket(sheet, x, y - 0.56)


def _crook(sheet: Sheet, x: Array, y: Array, top: float) -> None:
    # Shaft from `top` down to a J-shaped wooden handle.
    shaft = rod(x, y, (0.0, top), (0.0, 0.72), 0.03, 0.03)
    sheet.paint(shaft, 0.05 + bulge(shaft, 0.03), STEEL, metal=1.0, gloss=0.9)
    hook, ends = np.abs(length(x - 0.15, y - 0.74) - 0.15), length(np.abs(x - 0.15) - 0.15, y - 0.74)
    bend = np.where(y > 0.74, hook, ends) - 0.05
    grip = np.minimum(bend, rod(x, y, (0.0, 0.56), (0.0, 0.74), 0.05, 0.05))
    sheet.paint(grip, 0.05 + bulge(grip, 0.05), (0.48, 0.28, 0.13), gloss=0.7)


def umbrella_open(sheet: Sheet, tint: Colour, stout: float) -> None:
    """An open umbrella from the side with its shaft and crook."""
    x, y = sheet.x, sheet.y
    _crook(sheet, x, y, -0.9)
    tip = rod(x, y, (0.0, -0.98), (0.0, -0.70), 0.02, 0.035)
    sheet.paint(tip, 0.1 + bulge(tip, 0.03), STEEL, metal=1.0, gloss=0.9)
    wide, high = 0.94, 0.72 + 0.12 * stout
    share = np.clip(x / (wide * np.sqrt(np.clip(1.0 - ((y - 0.02) / high) ** 2, 0.01, 1.0))), -1.0, 1.0)
    panel = np.arcsin(share) / math.pi * 5.0 + 2.5  # five panels of cloth are seen
    sag = np.abs(np.sin(math.pi * panel))
    canopy = np.maximum(ellipse(x, y - 0.02, wide, high), y + 0.10 * sag - 0.02)
    dome = np.sqrt(np.maximum(1.0 - (x / wide) ** 2 - ((y - 0.02) / high) ** 2, 0.0))
    cloth = mix(tint, mix(tint, (1.0, 0.98, 0.94), np.float32(0.75)), (np.floor(panel) % 2.0 == 1.0).astype(np.float32))
    sheet.paint(canopy, 0.1 + 0.45 * dome + 0.07 * sag, cloth, gloss=0.3)


def umbrella_above(sheet: Sheet, tint: Colour, stout: float) -> None:
    """An open umbrella from above: eight panels round the tip."""
    x, y = sheet.x, sheet.y
    radius, panel = length(x, y), (np.arctan2(y, x) / math.tau + 1.0) * 8.0
    sag = np.abs(np.sin(math.pi * panel))
    edge = (radius - 0.94 + 0.09 * sag) * 0.95
    pale = mix(tint, (1.0, 0.98, 0.94), np.float32(0.45 + 0.45 * stout))
    cloth = mix(tint, pale, (np.floor(panel) % 2.0 == 1.0).astype(np.float32))
    sheet.paint(edge, 0.15 + 0.50 * np.sqrt(np.maximum(1.0 - radius**2, 0.0)) + 0.14 * sag * radius, cloth, gloss=0.3)
    knob = radius - 0.055
    sheet.paint(knob, 0.8 + bulge(knob, 0.05), STEEL, metal=1.0, gloss=1.0)


def umbrella_folded(sheet: Sheet, tint: Colour, stout: float) -> None:
    """A rolled-up umbrella, tied with a strap."""
    x, y = sheet.x, sheet.y
    _crook(sheet, x, y, -0.98)
    half = (0.06 + (0.11 + 0.04 * stout) * smooth(y, -0.85, 0.15)) * (1.0 - 0.5 * smooth(y, 0.30, 0.48))
    roll = np.maximum(np.abs(x) - half, np.abs(y + 0.19) - 0.67)
    fold = np.abs(np.sin(7.0 * x / np.maximum(half, 0.05) * 0.55 + 4.0 * y))
    height = np.sqrt(np.maximum(half * half - x * x, 0.0)) + 0.05 * fold
    sheet.paint(roll, 0.05 + height, mix(darker(tint, 0.6), tint, smooth(fold, 0.0, 0.5)), gloss=0.3)
    strap = np.maximum(np.abs(y - 0.08 - 0.15 * x) - 0.045, np.abs(x) - half - 0.012)
    sheet.paint(strap, 0.12 + np.sqrt(np.maximum(half * half - x * x, 0.0)), darker(tint, 0.45), gloss=0.4)


def rail(sheet: Sheet, tint: Colour, stout: float) -> None:
    """A steel bar across the picture from which small padlocks hang."""
    bar = np.abs(sheet.y) - 0.04
    sheet.paint(bar, bulge(bar, 0.04), STEEL, metal=1.0, gloss=0.9)


def cable(sheet: Sheet, tint: Colour, stout: float) -> None:
    """A dark cable that sags across the picture; mindseye.demo.photographs hangs lamps along the same curve."""
    sag = np.abs(sheet.y + 0.35 - 0.35 * (1.0 - sheet.x**2)) * 0.8 - 0.022
    sheet.paint(sag, bulge(sag, 0.022), (0.10, 0.14, 0.11), gloss=0.4)

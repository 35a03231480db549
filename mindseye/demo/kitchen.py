"""Drawings of what lies about in a kitchen: bananas, mugs, leaves and mushrooms.

Each function lays one object over a sheet: `tint` is its colour, `stout` its build from slender 0 to stout 1.
"""

import math

import numpy as np

from mindseye.demo.shapes import (
    CREAM,
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
    mottle,
    rod,
    smooth,
    turned,
)


def _one_banana(sheet: Sheet, x: Array, y: Array, tint: Colour, fat: float, phase: float) -> None:
    # A bent tube: the centre of the bend lies above, the stem at the right end.
    radius = length(x, y + 0.62)
    angle = np.arctan2(x, y + 0.62)
    share = angle / 1.12
    half = fat * np.sqrt(np.clip(1.0 - np.abs(share) ** 3.2, 0.0, 1.0))
    side = (radius - 0.92) / np.maximum(half, 0.02)
    body = np.maximum(np.abs(radius - 0.92) - half, np.abs(angle) * 0.92 - 1.02)
    stem = np.maximum(np.abs(radius - 0.90) - 0.055, np.abs(angle - 1.17) * 0.9 - 0.21)
    sheet.paint(stem, 0.1 + bulge(stem, 0.055), mix((0.62, 0.62, 0.20), (0.30, 0.20, 0.10), smooth(angle, 1.22, 1.36)))
    ridge = np.exp(-((side - 0.15) / 0.10) ** 2) + 0.8 * np.exp(-((side + 0.55) / 0.10) ** 2)
    height = half * np.sqrt(np.maximum(1.0 - side * side, 0.0)) + 0.02 * ridge
    skin = mix(tint, (0.55, 0.66, 0.18), smooth(share, 0.55, 1.05) * 0.8)
    skin = mix(skin, darker(tint, 0.72), 0.35 * ridge)
    freckles = smooth(mottle(x, y, 23.0, phase), 0.55, 0.75) * 0.45
    skin = mix(skin, (0.36, 0.22, 0.08), freckles)
    skin = mix(skin, (0.22, 0.15, 0.07), smooth(-share, 0.86, 0.93))
    sheet.paint(body, height, skin, gloss=0.28)


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
    sheet.paint(knot, 0.25 + bulge(knot, 0.1), (0.45, 0.36, 0.14))


def banana_peeled(sheet: Sheet, tint: Colour, stout: float) -> None:
    """A banana held upright, its upper half bare and three strips of peel hanging down."""
    x = sheet.x + 0.10 * np.sin(1.7 * sheet.y + 0.4)
    y = sheet.y
    fat = 0.215 + 0.04 * stout
    lower = rod(x, y, (0.0, 0.1), (0.0, 0.80), fat, 0.13)
    stem = rod(x, y, (0.0, 0.8), (0.02, 0.98), 0.07, 0.05)
    sheet.paint(stem, 0.05 + bulge(stem, 0.06), (0.38, 0.28, 0.12))
    sheet.paint(lower, bulge(lower, fat), mix(tint, darker(tint, 0.75), smooth(np.sin(34.0 * x), 0.7, 1.0)), gloss=0.3)
    flesh = rod(x, y, (0.0, -0.70), (0.0, 0.15), 0.15, fat - 0.01)
    strings = smooth(np.sin(42.0 * x + 1.5 * np.sin(5.0 * y)), 0.6, 1.0)
    sheet.paint(flesh, 0.05 + bulge(flesh, fat), mix(CREAM, (0.88, 0.78, 0.52), 0.4 * strings), gloss=0.15)
    pale = (0.97, 0.91, 0.66)
    for side in (-1.0, 1.0):
        # A strip of peel bends outwards and down; its pale inside shows, framed by the skin.
        path = ((0.08, 0.28), (0.24, 0.08), (0.42, 0.04), (0.56, 0.18), (0.65, 0.40), (0.67, 0.64))
        girth = (0.15, 0.145, 0.135, 0.12, 0.09, 0.04)
        strip = rod(side * x, y, path[0], path[1], girth[0], girth[1])
        for joint in range(1, 5):
            strip = np.minimum(strip, rod(side * x, y, path[joint], path[joint + 1], girth[joint], girth[joint + 1]))
        sheet.paint(strip, 0.12 + bulge(strip, 0.14), mix(tint, pale, smooth(-strip, 0.02, 0.06)), gloss=0.25)
    front = rod(x, y, (0.0, 0.14), (0.04, 0.60), 0.16, 0.05)
    sheet.paint(front, 0.26 + bulge(front, 0.14), mix(tint, pale, smooth(-front, 0.03, 0.07)), gloss=0.3)


def banana_slice(sheet: Sheet, tint: Colour, stout: float) -> None:
    """One slice across a banana, with its peel."""
    x, y = sheet.x, sheet.y
    radius, angle = length(x, y), np.arctan2(y, x)
    outline = 0.92 * (1.0 + 0.03 * np.cos(5.0 * angle + stout))
    edge = radius - outline
    sheet.paint(edge, 0.25 + bulge(edge, 0.12), tint, gloss=0.3)
    # Three lobes meet in the middle, each with a row of tiny seeds.
    lobes = smooth(np.abs(np.cos(1.5 * angle)), 0.25, 0.0) * smooth(radius, 0.55, 0.1)
    ring = smooth(radius, 0.30, 0.60) * smooth(radius, 0.82, 0.60)
    flesh = mix(mix(CREAM, (0.93, 0.82, 0.52), 0.7 * ring), (0.84, 0.70, 0.42), 0.8 * lobes)
    seeds = smooth(np.cos(6.0 * angle), 0.55, 0.95) * smooth(np.abs(radius - 0.22), 0.10, 0.03)
    flesh = mix(flesh, (0.52, 0.36, 0.20), 0.75 * seeds)
    sheet.paint(edge + 0.10, 0.37 - 0.03 * smooth(radius, 0.3, 0.0) - 0.02 * seeds, flesh, gloss=0.35)


def _mug_wall(sheet: Sheet, x: Array, y: Array, tint: Colour, side: float) -> None:
    # The ear first: the wall covers its ends. `side` is 1 for an ear at the right, -1 at the left.
    ear = np.abs(length((side * x - 0.50) * 1.15, y - 0.04) - 0.31) - 0.075
    sheet.paint(ear, 0.25 + bulge(ear, 0.075), tint, gloss=0.8)
    half = 0.54 - 0.05 * y
    wall = np.maximum(np.abs(x) - half, -0.62 - y)
    wall = np.maximum(wall, y - 0.56 - 0.14 * np.sqrt(np.maximum(1.0 - (x / 0.54) ** 2, 0.0)))
    round_ = 1.15 * np.sqrt(np.maximum(half * half - x * x, 0.0))
    bands = smooth(np.abs(y - 0.28 - 0.12 * np.sqrt(np.maximum(1.0 - (x / 0.54) ** 2, 0.0))), 0.08, 0.10)
    sheet.paint(wall, round_, mix((0.96, 0.94, 0.89), tint, bands), gloss=0.8)


def _mug(sheet: Sheet, x: Array, y: Array, tint: Colour, side: float) -> None:
    _mug_wall(sheet, x, y, tint, side)
    rim = ellipse(x, y + 0.62, 0.57, 0.17)
    sheet.paint(rim, 0.3 + bulge(rim, 0.03), mix(tint, (1.0, 1.0, 1.0), np.float32(0.35)), gloss=0.9)
    hollow = rim + 0.045
    sheet.paint(hollow, 0.12, mix(darker(tint, 0.35), darker(tint, 0.8), smooth(x, -0.5, 0.5)), gloss=0.4)
    coffee = np.maximum(ellipse(x, y + 0.56, 0.50, 0.12), hollow)
    sheet.paint(coffee, 0.12, mix((0.16, 0.08, 0.03), (0.45, 0.27, 0.13), smooth(x - y, -0.4, 0.9)), gloss=0.9)


def mug_side(sheet: Sheet, tint: Colour, stout: float) -> None:
    """A mug of coffee on the table, seen from a little above."""
    _mug(sheet, sheet.x + 0.16, sheet.y * (1.1 - 0.15 * stout) - 0.02, tint, 1.0)


def mug_above(sheet: Sheet, tint: Colour, stout: float) -> None:
    """A mug of coffee from straight above."""
    x, y = sheet.x + 0.12, sheet.y
    ear = box(x - 0.82, y, 0.24, 0.10, 0.09)
    sheet.paint(ear, 0.2 + bulge(ear, 0.1), tint, gloss=0.8)
    radius = length(x, y)
    outer = radius - 0.70
    sheet.paint(outer, 0.3 + bulge(outer, 0.055), mix(tint, (1.0, 1.0, 1.0), np.float32(0.25)), gloss=0.9)
    sheet.paint(radius - 0.60, 0.25, mix(darker(tint, 0.30), darker(tint, 0.85), smooth(x + y, -0.6, 0.6)), gloss=0.5)
    swirl = np.sin(9.0 * radius + 3.0 * np.arctan2(y, x) + 6.0 * stout)
    foam = smooth(swirl + 0.5 * mottle(x, y, 9.0, stout), 0.3, 1.2) * (1.0 - smooth(radius, 0.30, 0.5))
    coffee = mix(mix((0.22, 0.11, 0.05), (0.52, 0.32, 0.16), smooth(radius, 0.30, 0.56)), (0.93, 0.83, 0.66), foam)
    sheet.paint(radius - 0.56, 0.24, coffee, gloss=0.8)


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
        sheet.paint(plate, lift + bulge(plate, 0.05), darker((0.96, 0.94, 0.90), share), gloss=0.8)
    zoom = 1.75 - 0.15 * stout
    _mug(sheet, x * zoom + 0.12, (y - 0.08) * zoom, tint, 1.0)
    handle = rod(x, y, (-0.88, 0.42), (-0.30, 0.70), 0.035, 0.025)
    spoon = np.minimum(handle, ellipse(x + 0.20, y - 0.73, 0.15, 0.085))
    sheet.paint(spoon, 0.2 + bulge(spoon, 0.05), STEEL, metal=1.0, gloss=0.9)
    biscuit = ellipse(x - 0.52, y - 0.66, 0.20, 0.13)
    crumb = 0.15 + bulge(biscuit, 0.06) + 0.015 * mottle(x, y, 40.0, stout)
    sheet.paint(biscuit, crumb, (0.80, 0.55, 0.27), gloss=0.1)


def _blade(sheet: Sheet, x: Array, y: Array, tint: Colour, half: float, phase: float) -> None:
    # A pointed oval from y = -0.9 (tip) to 0.6 (foot), folded along its rib, with slanting side veins.
    share = np.clip((y + 0.92) / 1.54, 0.0, 1.0)
    outline = half * np.maximum(np.sin(math.pi * share**1.15), 0.0) ** 0.85 * (1.0 + 0.03 * np.sin(44.0 * y))
    away = np.abs(x)
    distance = np.maximum((away - outline) * 0.85, np.abs(y + 0.15) - 0.77)
    stalk = rod(x, y, (0.0, 0.55), (0.07, 0.98), 0.035, 0.045)
    sheet.paint(stalk, 0.04 + bulge(stalk, 0.03), darker(tint, 0.7))
    vein = np.abs(np.sin(17.0 * (y + 0.75 * away)))
    lines = (1.0 - smooth(vein, 0.0, 0.34)) * smooth(away, 0.0, 0.03)
    rib = 1.0 - smooth(away, 0.012, 0.035)
    height = 0.06 + 0.20 * away + 0.025 * vein - 0.10 * smooth(away, 0.6 * half, half) + 0.03 * rib
    leaf = mix(tint, darker(tint, 0.72), smooth(mottle(x, y, 7.0, phase), 0.0, 0.9) * 0.6)
    leaf = mix(leaf, CREAM, 0.28 * lines + 0.5 * rib)
    sheet.paint(distance, height, leaf, gloss=0.4)


def leaf_single(sheet: Sheet, tint: Colour, stout: float) -> None:
    """One pointed oval leaf with its veins."""
    _blade(sheet, sheet.x, sheet.y, tint, 0.42 + 0.14 * stout, 6.0 * stout)


def leaf_lobed(sheet: Sheet, tint: Colour, stout: float) -> None:
    """A maple leaf: five pointed lobes round the foot of the stalk."""
    x, y = sheet.x, sheet.y - 0.22
    stalk = rod(x, y, (0.0, 0.1), (0.10, 0.76), 0.03, 0.04)
    sheet.paint(stalk, 0.04 + bulge(stalk, 0.03), darker(tint, 0.7))
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
    sheet.paint(distance, 0.06 + 0.30 * wedge + 0.04 * vein + 0.03 * rib, leaf, gloss=0.35)


def leaf_sprig(sheet: Sheet, tint: Colour, stout: float) -> None:
    """A twig with pairs of small leaflets."""
    x, y = sheet.x + 0.10 * np.sin(2.2 * sheet.y), sheet.y
    stem = rod(x, y, (0.0, -0.72), (0.0, 0.98), 0.018, 0.035)
    sheet.paint(stem, 0.08 + bulge(stem, 0.025), (0.42, 0.30, 0.16))
    spacing = 0.36
    row = np.clip(np.round((y + 0.18) / spacing), -1.0, 2.0)
    across, along = turned(np.abs(x) - 0.04, y + 0.06 - row * spacing, -38.0)
    share = np.clip(across / (0.66 - 0.05 * np.abs(row)), 0.0, 1.0)
    outline = (0.15 + 0.05 * stout) * np.sin(math.pi * share**0.85)
    side = np.abs(along)
    leaflet = np.maximum(side - outline, -across)
    shade = mix(tint, darker(tint, 0.68), smooth(np.sin(2.0 * row + 1.5 * (x > 0)), -1.0, 1.0))
    sheet.paint(leaflet, 0.10 + 0.35 * side, mix(shade, CREAM, 0.45 * (1.0 - smooth(side, 0.008, 0.024))), gloss=0.45)
    top = np.maximum(np.abs(x) - 0.15 * np.sin(math.pi * np.clip((y + 1.0) / 0.5, 0.0, 1.0)), np.abs(y + 0.75) - 0.25)
    sheet.paint(top, 0.10 + 0.35 * np.abs(x), tint, gloss=0.45)


def mushroom_side(sheet: Sheet, tint: Colour, stout: float) -> None:
    """A toadstool from the side: domed spotted cap, pale stalk with a ring."""
    x, y = sheet.x, sheet.y
    half = 0.15 + 0.06 * stout + 0.07 * smooth(y, 0.5, 0.95)
    stalk = np.maximum(np.abs(x) - half, np.abs(y - 0.36) - 0.58)
    fibres = smooth(np.sin(55.0 * x), 0.2, 1.0)
    flesh = mix((0.94, 0.90, 0.80), (0.80, 0.73, 0.60), 0.5 * fibres)
    sheet.paint(stalk, np.sqrt(np.maximum(half * half - x * x, 0.0)), flesh)
    skirt = np.maximum(np.abs(x) - 0.16 - 0.45 * (y - 0.22), np.abs(y - 0.31) - 0.08)
    sheet.paint(skirt, 0.25, mix((0.95, 0.91, 0.82), (0.78, 0.70, 0.58), smooth(np.sin(40.0 * x), 0.0, 1.0)))
    under = ellipse(x, y - 0.06, 0.80, 0.15)
    gills = mix((0.90, 0.83, 0.68), (0.58, 0.47, 0.34), smooth(np.sin(70.0 * x), -0.3, 1.0))
    sheet.paint(under, 0.12 + bulge(under, 0.05), gills)
    cap = np.maximum(ellipse(x, y - 0.08, 0.88, 0.92), y - 0.06 - 0.09 * np.sqrt(np.maximum(1.0 - (x / 0.9) ** 2, 0.0)))
    dome = np.sqrt(np.maximum(1.0 - (x / 0.90) ** 2 - ((y - 0.1) / 0.96) ** 2, 0.0))
    sheet.paint(cap, 0.1 + 0.62 * dome, tint, gloss=0.65)
    for across, above, size in ((-0.40, -0.28, 0.12), (0.02, -0.55, 0.13), (0.34, -0.20, 0.14), (-0.08, -0.12, 0.10),
                                (0.68, -0.06, 0.07), (-0.68, -0.04, 0.08), (0.44, -0.54, 0.07), (-0.34, -0.62, 0.06)):
        spot = length(x - across, y - above) - size * (0.8 + 0.3 * stout)
        sheet.paint(spot, 0.13 + 0.62 * dome + bulge(spot, 0.05), (0.97, 0.94, 0.86), gloss=0.2)


def mushroom_above(sheet: Sheet, tint: Colour, stout: float) -> None:
    """A toadstool's round spotted cap from above."""
    x, y = sheet.x, sheet.y
    radius = length(x, y)
    dome = 0.62 * np.sqrt(np.maximum(1.0 - (radius / 0.92) ** 2, 0.0))
    sheet.paint(radius - 0.90, dome, mix(tint, darker(tint, 1.35), smooth(radius, 0.62, 0.9) * 0.6), gloss=0.65)
    for index in range(13):
        turn, away = 2.399963 * index + 6.0 * stout, 0.225 * math.sqrt(index + 0.3)  # a sunflower's spiral
        spot = length(x - away * math.cos(turn), y - away * math.sin(turn)) - 0.07 - 0.06 * abs(math.sin(1.7 * index))
        sheet.paint(spot, dome + 0.6 * bulge(spot, 0.05), (0.97, 0.94, 0.86), gloss=0.2)


def mushroom_slim(sheet: Sheet, tint: Colour, stout: float) -> None:
    """One thin brown mushroom of a clump, with a bell-shaped cap."""
    x, y = sheet.x, sheet.y
    middle = x - 0.10 * np.sin(2.0 * y + 5.0 * stout)
    stalk = np.maximum(np.abs(middle) - 0.10, np.abs(y - 0.30) - 0.68)
    sheet.paint(stalk, bulge(stalk, 0.1), mix((0.92, 0.86, 0.72), (0.60, 0.46, 0.30), smooth(y, -0.2, 1.0)))
    cap = np.maximum(ellipse(x, y + 0.26, 0.46, 0.66), y + 0.22 - 0.06 * np.cos(6.0 * x))
    dome = np.sqrt(np.maximum(1.0 - (x / 0.48) ** 2 - ((y + 0.26) / 0.70) ** 2, 0.0))
    brown = mix(darker(tint, 0.75), (0.92, 0.74, 0.45), smooth(y, -0.75, -0.25))
    brown = mix(brown, darker(tint, 0.6), 0.4 * smooth(np.sin(38.0 * x), 0.5, 1.0))
    sheet.paint(cap, 0.1 + 0.45 * dome, brown, gloss=0.5)


def mushroom_gills(sheet: Sheet, tint: Colour, stout: float) -> None:
    """A mushroom from below: rays of gills round the cut stalk."""
    x, y = sheet.x, sheet.y
    radius, angle = length(x, y), np.arctan2(y, x)
    edge = radius - 0.90 * (1.0 + 0.02 * np.sin(5.0 * angle + 6.0 * stout))
    sheet.paint(edge, 0.15 + bulge(edge, 0.1), tint, gloss=0.4)
    rays = np.sin(46.0 * angle + 0.8 * np.sin(6.0 * radius)) * smooth(radius, 0.15, 0.45)
    gills = mix((0.93, 0.85, 0.70), (0.52, 0.38, 0.26), smooth(rays, -0.5, 1.0) * 0.85)
    sheet.paint(edge + 0.09, 0.20 - 0.14 * (radius - 0.5) ** 2 - 0.015 * rays, gills, gloss=0.1)
    stalk = radius - 0.21
    rings = 0.5 + 0.5 * np.sin(60.0 * radius)
    sheet.paint(stalk, 0.35 + bulge(stalk, 0.08), mix((0.97, 0.93, 0.84), (0.85, 0.77, 0.62), 0.5 * rings), gloss=0.1)

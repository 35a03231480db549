"""The kinds of object of the demo: their facets, what draws each of them, how it is laid out, and the colours.

A drawing is a small relief: height, colour and material at every pixel (mindseye.demo.shapes). It knows nothing of
light, position or background: those belong to mindseye.demo.photographs.
"""

from collections.abc import Callable

from mindseye.demo.hardware import (
    bulb_fairy,
    bulb_lit,
    bulb_off,
    bulb_spiral,
    padlock_closed,
    padlock_keyhole,
    padlock_open,
    screw_head,
    screw_lying,
    screw_upright,
    umbrella_above,
    umbrella_folded,
    umbrella_open,
)
from mindseye.demo.kitchen import (
    banana_bunch,
    banana_peeled,
    banana_single,
    banana_slice,
    leaf_lobed,
    leaf_single,
    leaf_sprig,
    mug_above,
    mug_saucer,
    mug_side,
    mug_stack,
    mushroom_above,
    mushroom_gills,
    mushroom_side,
    mushroom_slim,
)
from mindseye.demo.shapes import BRASS, STEEL, Colour, Sheet

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

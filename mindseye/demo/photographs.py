"""Photographs of the demo: generated from a seed, with the factors that made each of them known.

Every photograph shows one kind of object in one of the kind's four facets. The facet is what a good reading of a
network's layer should find again; pose, colour, number, background and lighting vary freely across it.
"""

import json
import math
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from mindseye.demo.backgrounds import BACKGROUNDS, grid
from mindseye.demo.hardware import cable, rail
from mindseye.demo.objects import DRAWINGS, TINTS, Drawing
from mindseye.demo.shapes import BLUE, COVER, GLOSS, GLOW, HEIGHT, METAL, RED, Array, Colour, Sheet, smooth

KINDS: dict[str, tuple[str, ...]] = {kind: tuple(facets) for kind, facets in DRAWINGS.items()}

# Objects are drawn this many times finer than the photograph and averaged down.
_FINER = 3


@dataclass(frozen=True)
class Factors:
    """What generated one photograph; render() needs nothing else.

    pose: degrees clockwise from the facet's own upright; position: centre, right and down, where the picture spans
    [-1,1]; scale: radius of the object, or of the whole arrangement, in the same unit; number: objects shown;
    colour: red, green, blue in [0,1]; proportion: slender 0 to stout 1; background: a key of BACKGROUNDS;
    lighting: where the light comes from, degrees clockwise from straight above, in [-75,75];
    brightness: of the light, about 1; warmth: -1 bluish to 1 yellowish; grain: seed of all small detail.
    """

    kind: str
    facet: str
    pose: float
    position: tuple[float, float]
    scale: float
    number: int
    colour: Colour
    proportion: float
    background: str
    lighting: float
    brightness: float
    warmth: float
    grain: int


def sample_factors(kind: str, facet: str, generator: np.random.Generator) -> Factors:
    """Draws the factors of one photograph of `facet` of `kind`, everything but the facet at random."""
    layout = DRAWINGS[kind][facet][1]
    lean, number, scale = {
        "one": (14.0, (1, 1), (0.66, 0.82)),
        "close": (25.0, (1, 1), (0.92, 1.12)),
        "turned": (180.0, (1, 1), (0.70, 0.88)),
        "slanted": (18.0, (1, 1), (0.74, 0.90)),
        "scattered": (180.0, (5, 7), (0.78, 0.92)),
        "row": (6.0, (3, 5), (0.90, 1.00)),
        "clump": (8.0, (3, 5), (0.80, 0.92)),
        "garland": (8.0, (5, 6), (0.92, 1.00)),
    }[layout]
    tints = TINTS[kind]
    tint = np.clip(np.array(tints[generator.integers(len(tints))]) * generator.uniform(0.9, 1.1, 3), 0.0, 1.0)
    return Factors(
        kind=kind,
        facet=facet,
        pose=round(float(generator.uniform(-lean, lean)), 2),
        position=tuple(round(float(value), 3) for value in generator.uniform(-0.09, 0.09, 2)),
        scale=round(float(generator.uniform(*scale)), 3),
        number=int(generator.integers(number[0], number[1] + 1)),
        colour=tuple(round(float(value), 3) for value in tint),
        proportion=round(float(generator.uniform(0.0, 1.0)), 3),
        background=str(generator.choice(list(BACKGROUNDS))),
        lighting=round(float(generator.uniform(-75.0, 75.0)), 2),
        brightness=round(float(generator.uniform(0.88, 1.12)), 3),
        warmth=round(float(generator.uniform(-1.0, 1.0)), 3),
        grain=int(generator.integers(2**31)),
    )


def _blurred(plane: Array, radius: float, shift: tuple[float, float] = (0.0, 0.0)) -> Array:
    # A twice box-blurred copy of a plane in [0,1.5], moved right and down by `shift` pixels. Pillow blurs bytes only;
    # 170 steps per unit are finer than the pictures show.
    picture = Image.fromarray(np.clip(plane * 170.0, 0.0, 255.0).astype(np.uint8))
    if shift != (0.0, 0.0):
        move = (1, 0, -shift[0], 0, 1, -shift[1])
        picture = picture.transform(picture.size, Image.Transform.AFFINE, move, Image.Resampling.BILINEAR)
    blur = ImageFilter.BoxBlur(radius)
    return np.asarray(picture.filter(blur).filter(blur), dtype=np.float32) / 170.0


def _shaded(sheet: Sheet, light: Array) -> tuple[Array, Array]:
    # Colours [3,h,w] (premultiplied) and cover [h,w] of a drawn sheet in the light.
    planes = sheet.planes
    down, across = np.gradient(planes[HEIGHT], sheet.pixel)
    upright = 1.0 / np.sqrt(1.0 + across * across + down * down)
    facing_x, facing_y = -across * upright, -down * upright
    lambert = facing_x * light[0] + facing_y * light[1] + upright * light[2]
    # A mirror sees the room: the sky above, a dark floor line, and the lamp as a soft bright patch.
    mirror_x, mirror_y = 2.0 * upright * facing_x, 2.0 * upright * facing_y
    mirror_z = 2.0 * upright * upright - 1.0
    toward = mirror_x * light[0] + mirror_y * light[1] + mirror_z * light[2]
    lamp = smooth(toward, 0.80, 0.99)
    room = 0.42 + 0.42 * smooth(-mirror_y + 0.5 * mirror_x * light[0], -0.75, 0.85) + 0.55 * smooth(toward, 0.25, 0.95)
    room -= 0.22 * smooth(mirror_y, 0.15, 0.45) * (1.0 - smooth(mirror_y, 0.55, 0.9))
    crease = _blurred(planes[HEIGHT], 0.05 / sheet.pixel) - planes[HEIGHT]
    hidden = 1.0 - np.clip(1.6 * crease, 0.0, 0.55) * planes[COVER]
    matt = (0.34 + 0.10 * upright + 0.74 * np.maximum(lambert, 0.0)) * hidden
    lit = matt + planes[METAL] * (room * hidden - matt)
    lit += planes[GLOW] * (1.08 - lit)
    shine = planes[GLOSS] * (0.75 * lamp * lamp * lamp + 0.06 * (1.0 - upright))
    return planes[RED : BLUE + 1] * lit + shine, planes[COVER]


def _average(planes: Array) -> Array:
    # [n, _FINER·h, _FINER·w] -> [n,h,w]; sums of slices take a fifth of the time of a mean over a reshaped array.
    rows = sum(planes[:, first::_FINER] for first in range(_FINER))
    return sum(rows[:, :, first::_FINER] for first in range(_FINER)) * np.float32(1.0 / _FINER**2)


@dataclass(frozen=True)
class Placement:
    """Where one object of a photograph stands: centre and radius in units of half the picture, turn in degrees."""

    drawing: Drawing
    centre: tuple[float, float]
    radius: float
    turn: float
    colour: Colour
    proportion: float


def _add(canvas: Array, placement: Placement, light: Array) -> None:
    # Draws one object into canvas [3,size,size] in place: its shadow first, then the lit object.
    size = canvas.shape[-1]
    half = size / 2.0
    reach = 1.06 * placement.radius * half
    centre = [half * (1.0 + value) for value in placement.centre]
    left, top = (max(0, math.floor(value - reach)) for value in centre)
    right, bottom = (min(size, math.ceil(value + reach)) for value in centre)
    if right - left < 4 or bottom - top < 4:
        return
    unit = 1.0 / (placement.radius * half)
    steps_x = ((np.arange((right - left) * _FINER) + 0.5) / _FINER + left - centre[0]) * unit
    steps_y = ((np.arange((bottom - top) * _FINER) + 0.5) / _FINER + top - centre[1]) * unit
    cosine, sine = math.cos(math.radians(placement.turn)), math.sin(math.radians(placement.turn))
    x = (cosine * steps_x + (sine * steps_y)[:, None]).astype(np.float32)
    y = (-sine * steps_x + (cosine * steps_y)[:, None]).astype(np.float32)
    sheet = Sheet(x, y, unit / _FINER, np.zeros((8, *x.shape), np.float32))
    placement.drawing(sheet, placement.colour, placement.proportion)
    colour, cover = _shaded(sheet, light)
    small = _average(np.concatenate([colour, cover[None], sheet.planes[GLOW][None]]))
    mask = np.zeros((2, size, size), np.float32)
    mask[:, top:bottom, left:right] = small[3:]
    _cast(canvas, mask[0] * (1.0 - 0.8 * mask[1]), light, placement.radius * half)
    if mask[1].max() > 0.3:
        halo = np.minimum(_blurred(mask[1], 0.30 * placement.radius * half), 1.0)
        tint = np.asarray(placement.colour if placement.radius < 0.5 else (1.0, 0.80, 0.45), np.float32)
        canvas += canvas * halo * tint[:, None, None] * 1.2
    region = canvas[:, top:bottom, left:right]
    region *= 1.0 - small[3]
    region += small[:3]


def _cast(canvas: Array, cover: Array, light: Array, reach: float) -> None:
    # A long soft shadow away from the light, and a short dark one where the object touches the ground.
    for far, soft, dark in ((0.22, 0.085, 0.46), (0.06, 0.035, 0.38)):
        shift = (float(-light[0] * far * reach), float(-light[1] * far * reach))
        canvas *= 1.0 - dark * _blurred(cover, soft * reach, shift)


def _placements(factors: Factors, generator: np.random.Generator) -> list[Placement]:
    # The objects of a photograph in the order they are laid down.
    drawing, layout = DRAWINGS[factors.kind][factors.facet]
    across, down = factors.position
    scale, count = factors.scale, factors.number

    def placed(right: float, below: float, radius: float, turn: float, tint: Colour | None = None) -> Placement:
        share = float(np.clip(factors.proportion + generator.uniform(-0.15, 0.15), 0.0, 1.0))
        return Placement(drawing, (across + right, down + below), radius, turn, tint or factors.colour, share)

    def sibling() -> Colour:
        tints = TINTS[factors.kind]
        return tints[generator.integers(len(tints))]

    if layout == "slanted":
        return [placed(0.0, 0.0, scale, 42.0 + factors.pose)]
    if layout == "scattered":
        # Evenly round the centre with one in the middle, then shaken.
        places = [placed(*generator.uniform(-0.08, 0.08, 2), 0.40 * scale, generator.uniform(-180.0, 180.0))]
        for index in range(count - 1):
            angle = math.radians(factors.pose) + math.tau * (index + generator.uniform(-0.12, 0.12)) / (count - 1)
            away = scale * generator.uniform(0.62, 0.74)
            tint = sibling() if factors.kind in ("leaf", "umbrella") else None
            radius, turn = scale * generator.uniform(0.34, 0.44), generator.uniform(-180.0, 180.0)
            places.append(placed(away * math.cos(angle), away * math.sin(angle), radius, turn, tint))
        return places
    if layout == "row":
        level, slope = -0.28 * scale, math.tan(math.radians(factors.pose))
        places = [Placement(rail, (across, down + level), 1.6, factors.pose, factors.colour, 0.5)]
        radius = 1.15 * scale / count + 0.06
        for index in range(count):
            right = 2.0 * scale * ((index + 0.5) / count - 0.5)
            # The inside of the shackle's arch rests on the rail.
            below = level + right * slope + 0.685 * radius - 0.06
            places.append(placed(right, below, radius, generator.uniform(-9.0, 9.0), sibling()))
        return places
    if layout == "clump":
        places = []
        for index in range(count):
            right = 1.25 * scale * ((index + 0.5) / count - 0.5) + generator.uniform(-0.05, 0.05)
            radius = scale * generator.uniform(0.52, 0.78)
            places.append(placed(right, 0.62 - radius, radius, 32.0 * right + generator.uniform(-7.0, 7.0)))
        return places
    if layout == "garland":
        places = [Placement(cable, (across, down), 1.25, 0.0, factors.colour, 0.5)]
        for index in range(count):
            right = 2.1 * ((index + 0.5) / count - 0.5)
            below = 1.25 * (-0.35 + 0.35 * (1.0 - (right / 1.25) ** 2)) + 0.22
            places.append(placed(right, below, 1.3 * scale / count, generator.uniform(-14.0, 14.0), sibling()))
        return places
    return [placed(0.0, 0.0, scale, factors.pose)]


def render(factors: Factors, size: int = 96, seed: int | None = None) -> Array:
    """Takes the photograph that the factors describe: uint8 [size,size,3].

    seed: of the small detail (texture, scatter); None takes the factors' own grain.
    """
    generator = np.random.default_rng(factors.grain if seed is None else seed)
    turn = math.radians(factors.lighting)
    light = np.array([math.sin(turn) * 0.68, -math.cos(turn) * 0.68, 0.73], dtype=np.float32)
    canvas = BACKGROUNDS[factors.background](generator, size, light)
    dusk = 0.62 if factors.kind == "bulb" and factors.facet in ("lit", "garland") else 0.92
    x, y = grid(size)
    # The side nearer the light is brighter, and the background falls off towards the corners.
    canvas = canvas * (dusk * (1.0 + 0.16 * (x * light[0] + y * light[1])) * (1.0 - 0.12 * (x * x + y * y)))
    for placement in _placements(factors, generator):
        _add(canvas, placement, light)
    cast = np.array([1.0 + 0.05 * factors.warmth, 1.0, 1.0 - 0.07 * factors.warmth], dtype=np.float32)
    exposed = np.maximum(canvas, 0.0) * (factors.brightness * cast)[:, None, None]
    exposed = exposed * (1.16 + 0.10 * exposed) / (1.0 + 0.28 * exposed * exposed)  # a film's shoulder: no hard white
    exposed += generator.normal(0.0, 0.005, (size, size)).astype(np.float32)
    return (np.clip(exposed, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8).transpose(1, 2, 0)


def _balanced(kinds: Sequence[str], count: int, generator: np.random.Generator) -> list[Factors]:
    # Factors of `count` photographs: every facet of every kind as often as any other, give or take one, shuffled.
    facets = [(kind, facet) for kind in kinds for facet in KINDS[kind]]
    chosen = [facets[index % len(facets)] for index in range(count)]
    return [sample_factors(*chosen[index], generator) for index in generator.permutation(count)]


def generate(
    kinds: str | Sequence[str], count: int, size: int = 96, seed: int = 0
) -> tuple[Array, list[Factors]]:
    """Photographs of one kind or several in memory: uint8 [count,3,size,size], and the factors of each."""
    names = [kinds] if isinstance(kinds, str) else list(kinds)
    factors = _balanced(names, count, np.random.default_rng(seed))
    images = np.empty((count, 3, size, size), dtype=np.uint8)
    for index, each in enumerate(factors):
        images[index] = render(each, size).transpose(2, 0, 1)
    return images, factors


def _listed(table: Path) -> set[str]:
    # Names of photographs in a table that write_photographs left. Only names as it makes them count: the table may
    # be cut short, or be another program's file of that name, and what it lists is going to be deleted.
    try:
        names = json.loads(table.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return set()
    made = re.compile(rf"({'|'.join(KINDS)})_[0-9]{{4,}}\.png")
    return {name for name in names if made.fullmatch(name)} if isinstance(names, dict) else set()


def write_photographs(
    folder: str | os.PathLike[str], kind: str = "padlock", count: int = 160, size: int = 96, seed: int = 0
) -> list[Factors]:
    """Writes folder/<kind>_0000.png … and folder/factors.json, and returns the factors in file order.

    Facets are evenly represented and shuffled, so a file's name says nothing of its facet. The same arguments give
    the same bytes. factors.json maps file name to factors; it comes last, by a rename, so where it stands the
    photographs are whole. An earlier set in the folder, also one cut short, is deleted first; other files stay.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown kind {kind!r}; known: {', '.join(KINDS)}")
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    final, draft, scratch = target / "factors.json", target / "factors.json.part", target / "photograph.part"
    factors = _balanced([kind], count, np.random.default_rng(seed))
    table = {f"{kind}_{index:04d}.png": asdict(each) for index, each in enumerate(factors)}
    # While the folder changes, the draft lists what may lie there, so that the next call can clear up after a crash.
    earlier = _listed(draft) | _listed(final)
    if final.exists():
        final.replace(draft)
    for name in earlier:
        (target / name).unlink(missing_ok=True)
    draft.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    for name, each in zip(table, factors, strict=True):
        Image.fromarray(render(each, size)).save(scratch, "PNG")
        scratch.replace(target / name)  # so that a process that is killed leaves no half picture
    draft.replace(final)
    return factors

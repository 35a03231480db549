"""What the demo's drawings are made of: the sheet they are drawn on, and shapes, heights and colours to lay on it.

A shape is a signed distance (negative inside) in object units, y pointing down; an object fits a circle of radius 1.
"""

import math
from dataclasses import dataclass

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
        self,
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
        inside = np.clip(0.5 - distance / self.pixel, 0.0, 1.0)
        seen = inside * opacity
        planes = self.planes
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

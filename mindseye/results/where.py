"""Where a facet is: in each of its photographs, and in its own picture. As numbers, and as the files that show them.

In a photograph n of facet c the heat map is

    h_n(p) = max(0, Σ_{j ∈ top-k} t̄_j · a_{n,j}(p)) / max_{n,p} of the same,

with a_{n,j} the layer's map of channel j, and t̄_j the mean over the map of the facet's target: the weight by which the
channel was chosen. It is a class activation map (Zhou et al. 2016) with the facet's target in place of a classifier's
weights. 1 is the strongest place among all of the facet's photographs, so that these can be held against each other.

In its picture the transparency is T = Σ|∂L/∂x| over steps and channels (MACO, Fel et al., NeurIPS 2023). Where a
network strides, its gradient lies on the grids of its strides: a pixel under more taps of a convolution gets more of
it, in dots and chequers (Odena et al., Distill 2016) that say nothing of the picture. So T is shown `smoothed` at the
coarsest of these grids, as fine as the heat maps are.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from mindseye.facets.pictures import as_webp, to_picture
from mindseye.facets.targets import FacetTargets
from mindseye.networks.chance import seeded
from mindseye.networks.preparing import PreparedNetwork
from mindseye.networks.receptive_field import FieldTracker, Span

QUALITY = 80  # of a WebP
TILE, CROP = 64, 72  # pixels of a heat map's side, and of a crop's longer side at most
OPAQUE = 0.8  # the share of pixels below the one from which on a picture is opaque, as MACO's own program has it
FILES = ("where.json", "heat.webp", "crops.webp", "transparency.webp")


@dataclass(frozen=True)
class Where:
    """Of C facets of N photographs, of S pixels a side, at a layer that answers with maps H'×W'."""

    transparency: Tensor  # [C, S, S]: Σ|∂L/∂x| of each facet's picture
    heat: Tensor | None = None  # [C, N, H', W'] in 0..1; None where the layer has no places, see `reason`
    field: tuple[Span, Span] | None = None  # rows and columns that a unit sees, in pixels; None: not known
    reason: str = ""  # why there is no heat map
    stride: int = 1  # pixels from unit to unit of the coarsest map on the way to the layer


def channel_weights(maps: Tensor, channels: Tensor) -> Tensor:
    """t̄_j of each facet's top-k channels, 0 for all others: targets [C, D, H', W'], channels [C, k] -> [C, D]."""
    means = maps.flatten(2).mean(dim=2)
    return torch.zeros_like(means).scatter(1, channels, means.gather(1, channels))


def heat_maps(evidence: Tensor) -> Tensor:
    """h from Σ_j t̄_j·a_j [C, N, H', W'], in 0..1: below 0 nothing is, and the largest of each facet is 1.

    A facet that is nowhere above 0 has 0 everywhere.
    """
    positive = evidence.clamp(min=0)
    largest = positive.flatten(1).amax(dim=1)[:, None, None, None]
    return positive / torch.where(largest > 0, largest, 1)


def look_where(network: PreparedNetwork, targets: FacetTargets, evidence: Tensor, transparency: Tensor) -> Where:
    """Everything at hand put together; `evidence` is of `mindseye.results.metrics.look_at_photographs`."""
    S = targets.initial.shape[-1]
    field, stride = field_and_stride(network, S)
    if evidence[0, 0].numel() == 1:
        reason = f"{targets.layer} answers with one number a channel, without a place"
        return Where(transparency, reason=reason, stride=stride)
    if field is None:  # the map's own size says more
        stride = max(stride, round(S / max(evidence.shape[2:])))
    return Where(transparency, heat_maps(evidence), field, stride=stride)


def field_and_stride(network: PreparedNetwork, side: int) -> tuple[tuple[Span, Span] | None, int]:
    """Which rows and columns of an image of `side` pixels a unit of the network's layer sees, and how many pixels lie
    from unit to unit of the coarsest map of more than one place on the way there.

    The field is None where it cannot be told, behind attention say, and the stride is what was seen until then: see
    `mindseye.networks.receptive_field`.
    """
    with torch.inference_mode(), seeded(0):
        images = torch.zeros(1, network.channels, side, side, device=network.mean.device)
        tracker = FieldTracker(images)
        with tracker:
            answer = network(images).target
        spans = tracker.spans(answer)
    layout = network.layout(network.layer, side)
    stride = round(tracker.largest_jump)
    if layout is None or layout.rows not in spans or layout.columns not in spans:
        return None, stride
    return (spans[layout.rows], spans[layout.columns]), stride


def peak_window(heat: Tensor, field: tuple[Span, Span]) -> tuple[int, int, int, int] | None:
    """What the unit at the peak of a heat map [H', W'] sees: left, top, right, bottom in pixels, the ends left out.

    It may reach beyond the image. None where the heat map is 0 everywhere.
    """
    if not heat.any():
        return None
    row, column = divmod(int(heat.argmax()), heat.shape[1])
    (top, bottom), (left, right) = (
        (math.floor(span.start + span.jump * u), math.ceil(span.end + span.jump * u) + 1)
        for span, u in zip(field, (row, column), strict=True)
    )
    return left, top, right, bottom


def smoothed(transparency: Tensor, stride: int) -> Tensor:
    """T of one picture [S, S], averaged over the pixels nearer than `stride`, with weights that fall linearly to 0.

    Such a mean, a window of `stride` pixels laid over T twice, has zeros of second order at the period `stride` and at
    all that divide it. So it takes away the grid of every stride on the way, also where random views turned and scaled
    it, and leaves what is broader. It is also how the heat maps are laid over the photographs, bilinearly from units a
    stride apart: neither tells of anything finer than the layer does. At the edges it is over the pixels there are.
    """
    at = torch.arange(len(transparency), device=transparency.device)
    weights = (stride - (at[:, None] - at).abs()).clamp(min=0).to(transparency.dtype)
    weights /= weights.sum(dim=1, keepdim=True)
    return weights @ transparency @ weights.T


def opacity(transparency: Tensor) -> Tensor:
    """α = min(1, T/T_80) of one picture, [S, S] -> 0..1, with T_80 the 80th percentile; 0 where there is nothing."""
    ordered = transparency.flatten().sort().values
    most = ordered[round(OPAQUE * (len(ordered) - 1))]
    largest = most if most > 0 else ordered[-1]
    return (transparency / largest).clamp(0, 1) if largest > 0 else torch.zeros_like(transparency)


# ---- files -----------------------------------------------------------------------------------------------------------


def where_files(where: Where, targets: FacetTargets, image: Tensor, c: int, order: Sequence[int]) -> dict[str, bytes]:
    """The files of a facet by their names, of FILES: its picture [ch, S, S], its photographs in the order given.

    where.json: `map` [H', W'], `side` S, `field` [height, width] in pixels (null: not known), `windows`, one [left,
    top, right, bottom] a photograph in shares of its side (null where there is none); or `reason` alone. heat.webp,
    grey: a heat map a photograph, one below the other. crops.webp: likewise the windows, what is outside of the
    photograph transparent; where the field is as large as a photograph there is none. transparency.webp: the picture
    with α of `opacity` of T `smoothed`.
    """
    files = {}
    if where.transparency[c].any():
        picture = to_picture(targets.shown(image)).convert("RGB")
        picture.putalpha(to_picture(opacity(smoothed(where.transparency[c], where.stride))[None]))
        files["transparency.webp"] = as_webp(picture, QUALITY)
    if where.heat is None:
        return {**files, "where.json": json.dumps({"reason": where.reason}).encode()}
    heat, S = where.heat[c, list(order)], targets.initial.shape[-1]
    shown: dict[str, object] = {"map": [*heat.shape[1:]], "side": S, "field": None, "windows": [None] * len(order)}
    files["heat.webp"] = as_webp(_below_each_other([_heat_tile(heat_map) for heat_map in heat]), QUALITY)
    if where.field is not None:
        size = [span.pixels for span in where.field]
        bounded = max(size) < math.inf
        windows = [peak_window(heat_map, where.field) if bounded else None for heat_map in heat]
        shown["field"] = [int(min(side, 1 << 20)) for side in size]
        shown["windows"] = [window and [round(edge / S, 4) for edge in window] for window in windows]
        if min(size) < S and any(windows):
            photographs = [targets.shown(targets.photographs[c, n]) for n in order]
            files["crops.webp"] = as_webp(_below_each_other(_crops(photographs, windows)), QUALITY)
    return {**files, "where.json": json.dumps(shown).encode()}


def _heat_tile(heat: Tensor) -> Image.Image:
    """Laid over the whole photograph: bilinear, each unit in the middle of its share."""
    tile = torch.nn.functional.interpolate(heat[None, None], size=(TILE, TILE), mode="bilinear", align_corners=False)
    return to_picture(tile[0])


def _crops(
    photographs: Sequence[Tensor], windows: Sequence[tuple[int, int, int, int] | None]
) -> list[Image.Image]:
    left, top, right, bottom = next(window for window in windows if window)
    width, height = right - left, bottom - top
    shrunk = max(1.0, max(width, height) / CROP)
    tiles = []
    for photograph, window in zip(photographs, windows, strict=True):
        whole = to_picture(photograph).convert("RGBA")
        tile = whole.crop(window) if window else Image.new("RGBA", (width, height))  # beyond its edges: transparent
        tiles.append(tile.resize((round(width / shrunk), round(height / shrunk)), Image.Resampling.LANCZOS))
    return tiles


def _below_each_other(tiles: Sequence[Image.Image]) -> Image.Image:
    width, height = tiles[0].size
    sheet = Image.new(tiles[0].mode, (width, height * len(tiles)))
    for place, tile in enumerate(tiles):
        sheet.paste(tile, (0, place * height))
    return sheet

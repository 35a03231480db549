"""Where a facet is, on networks and objectives whose answer is known."""

import io
import json
from dataclasses import dataclass

import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.models.vision_transformer import VisionTransformer

import mindseye as me
from mindseye.networks import Network
from mindseye.networks.preparing import prepare
from mindseye.networks.receptive_field import Span
from mindseye.results.metrics import look_at_photographs
from mindseye.results.where import (
    TILE,
    Where,
    channel_weights,
    field_and_stride,
    heat_maps,
    look_where,
    opacity,
    peak_window,
    smoothed,
    where_files,
)
from mindseye.visualizer.canvas import PixelCanvas
from mindseye.visualizer.fitting import fit
from mindseye.visualizer.objective import Objective
from mindseye.visualizer.terms import LossTerms

S, SPOT, STRIDE = 48, 6, 2


@pytest.fixture(scope="module")
def spotted(tmp_path_factory):
    """Twelve grey photographs, each with a red spot somewhere else."""
    folder = tmp_path_factory.mktemp("spotted")
    places = torch.randint(4, S - SPOT - 4, (12, 2), generator=torch.Generator().manual_seed(3)).tolist()
    for number, (top, left) in enumerate(places):
        picture = Image.new("RGB", (S, S), (90 + 5 * number,) * 3)
        picture.paste((255, 0, 0), (left, top, left + SPOT, top + SPOT))
        picture.save(folder / f"{number:02d}.png")
    return me.load_photographs(folder, size=S)


def looks_for_red(*behind) -> Network:
    """Channel 0 answers red alone, 3 pixels wide, every 2 pixels; channel 1 nothing, channel 2 brightness backwards."""
    red = nn.Conv2d(3, 3, 3, stride=STRIDE, padding=1)
    with torch.no_grad():
        red.weight.zero_()
        red.bias.zero_()
        red.weight[0] = torch.tensor([1.0, -0.5, -0.5])[:, None, None] / 9
        red.weight[2] = -1.0
    return Network(nn.Sequential(red, nn.ReLU(), *behind), [0.0] * 3, [1.0] * 3, "red", S)


def of(network, photographs, layer):
    """Targets of two facets, and where they are."""
    targets = me.discover_facets(network, photographs, layer, me.Facets(C=2, k=1, N=4, way=()))
    prepared = prepare(network, layer)
    evidence = look_at_photographs(prepared, targets).evidence
    return targets, look_where(prepared, targets, evidence, torch.zeros(2, S, S))


@pytest.fixture(scope="module")
def red(spotted):
    return of(looks_for_red(), spotted, "1")


def spot_of(photograph):
    """Left, top, right, bottom of the spot in a photograph uint8 [3, S, S]."""
    rows, columns = torch.nonzero(photograph[1] < 20, as_tuple=True)
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


def test_the_peak_lies_where_the_channel_looks(red):
    targets, where = red
    assert where.heat.shape == (2, 4, S // STRIDE, S // STRIDE)
    assert (targets.channels == 0).all()
    for c in range(2):
        assert where.heat[c].max() == 1
        for n in range(4):
            left, top, right, bottom = spot_of(targets.photographs[c, n])
            x0, y0, x1, y1 = peak_window(where.heat[c, n], where.field)
            assert (x1 - x0, y1 - y0) == (3, 3)
            assert left <= x0 < x1 <= right  # all that the unit sees is red
            assert top <= y0 < y1 <= bottom
            # and nothing answers where no unit sees any red
            outside = where.heat[c, n].clone()
            outside[(top - 2) // STRIDE : bottom // STRIDE + 2, (left - 2) // STRIDE : right // STRIDE + 2] = 0
            assert outside.max() < 1e-6


def test_the_files_show_the_photograph_at_its_peak(red):
    targets, where = red
    order = [2, 0, 3, 1]
    files = where_files(where, targets, targets.initial[0], 0, order)
    assert set(files) == {"where.json", "heat.webp", "crops.webp"}  # nothing was drawn: no transparency
    content = json.loads(files["where.json"])
    assert (content["map"], content["side"], content["field"]) == ([S // STRIDE, S // STRIDE], S, [3, 3])
    heat, crops = (Image.open(io.BytesIO(files[name])) for name in ("heat.webp", "crops.webp"))
    assert (heat.size, crops.size) == ((TILE, 4 * TILE), (3, 12))
    for place, n in enumerate(order):
        left, top, right, bottom = (edge * TILE / S for edge in spot_of(targets.photographs[0, n]))
        middle = int((left + right) / 2), int(place * TILE + (top + bottom) / 2)
        assert heat.convert("L").getpixel(middle) > 200
        assert heat.convert("L").getpixel(((middle[0] + TILE // 2) % TILE, middle[1])) < 30
        red, green, blue = crops.convert("RGB").getpixel((1, 3 * place + 1))
        assert red > 200 > 60 > max(green, blue)


def test_by_hand():
    """Two channels of four count, by the means of the target; what speaks against it is nothing."""
    maps = torch.tensor([[1.0, 3.0], [-1.0, -1.0], [4.0, 2.0], [0.0, 0.0]])[None, :, None]
    weights = channel_weights(maps, torch.tensor([[2, 0]]))
    assert weights.tolist() == [[2, 0, 3, 0]]
    evidence = torch.tensor([[[[8.0, -4.0]], [[2.0, 0.0]]], [[[-1.0, -2.0]], [[0.0, 0.0]]]])
    assert heat_maps(evidence).tolist() == [[[[1, 0]], [[0.25, 0]]], [[[0, 0]], [[0, 0]]]]
    heat = torch.zeros(4, 5)
    assert peak_window(heat, (Span(), Span())) is None
    heat[2, 1] = 0.5
    assert peak_window(heat, (Span(-3, 3, 4), Span(-1, 2.5, 8))) == (7, 5, 12, 12)
    ramp = torch.arange(1.0, 101).reshape(10, 10)
    assert (opacity(ramp) == 1).sum() == 21  # the 80th percentile itself is opaque
    assert opacity(ramp)[0, 0] == pytest.approx(1 / 80)
    assert not opacity(torch.zeros(3, 3)).any()


def test_a_layer_without_places_says_so(spotted):
    targets, where = of(looks_for_red(nn.AdaptiveAvgPool2d(1), nn.Flatten()), spotted, "3")
    assert where.heat is None
    files = where_files(where, targets, targets.initial[0], 0, [0, 1])
    assert json.loads(files["where.json"]) == {"reason": "3 answers with one number a channel, without a place"}
    assert list(files) == ["where.json"]


def test_tokens_have_places_but_no_field(spotted):
    torch.manual_seed(0)
    body = VisionTransformer(S, patch_size=8, num_layers=1, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=5)
    targets, where = of(Network(body, [0.5] * 3, [0.25] * 3, "vit", S), spotted, "encoder.layers.encoder_layer_0")
    assert where.heat.shape == (2, 4, 6, 6)
    assert where.field is None
    files = where_files(where, targets, targets.initial[1], 1, [0, 1])
    assert set(files) == {"where.json", "heat.webp"}
    assert json.loads(files["where.json"])["field"] is None
    assert where.stride == 8  # a patch


def test_a_field_as_large_as_the_photograph_has_no_crops(spotted):
    wide = nn.Conv2d(3, 2, 49, padding=24)
    targets, where = of(looks_for_red(nn.AdaptiveAvgPool2d(4), wide), spotted, "3")
    assert min(span.pixels for span in where.field) >= S
    assert set(where_files(where, targets, targets.initial[0], 0, [0, 1])) == {"where.json", "heat.webp"}
    network = prepare(looks_for_red(nn.Conv2d(3, 2, 5, stride=2)), "2")
    assert field_and_stride(network, S) == ((Span(-1, 9, 4), Span(-1, 9, 4)), 4)


@dataclass(frozen=True)
class Slope(Objective):
    """L = Σ slope·x: its gradient is the slope, at every step."""

    def __call__(self, seen):
        slope = slope_of(seen.images.shape[1:])
        return LossTerms(total=(seen.images * slope).sum(dim=(1, 2, 3)) + 0 * seen.activation.sum(dim=(1, 2, 3)))


def slope_of(shape):
    return torch.linspace(-1, 1, shape.numel()).reshape(shape) / 100


@pytest.mark.parametrize("facets_per_batch", [None, 2])
def test_transparency_is_the_sum_of_absolute_gradients(network, targets, facets_per_batch):
    method = me.Method(steps=5, canvas=PixelCanvas, objective=Slope(), filters=[])
    made = fit(network, targets, method, me.Running(accelerator="cpu", gradients=2, facets_per_batch=facets_per_batch))
    wanted = 5 * slope_of(made.images.shape[1:]).abs().sum(dim=0)
    assert torch.allclose(made.transparency, wanted.expand(3, -1, -1), rtol=1e-5, atol=1e-7)
    files = where_files(Where(made.transparency, reason="none"), targets, made.images[1], 1, [0])
    clear = Image.open(io.BytesIO(files["transparency.webp"]))
    assert clear.mode == "RGBA"
    alpha = torch.tensor(list(clear.getchannel("A").tobytes())).reshape(wanted.shape) / 255
    assert (alpha - opacity(wanted)).abs().max() < 0.01


def grid_of(stride, side):
    """|∂L/∂x| [side, side] of the sum of a strided convolution, its 3×3 taps all alike, behind another of stride 2."""
    image = torch.zeros(1, 1, side, side, requires_grad=True)
    taps = torch.ones(1, 1, 3, 3)
    halved = nn.functional.conv2d(image, taps, stride=2, padding=1)
    nn.functional.conv2d(halved, taps, stride=stride // 2, padding=1).sum().backward()
    return image.grad[0, 0].abs()


def middle_and_breadth(pull):
    """Mean and standard deviation of where it lies [S, S], rows before columns."""
    at = torch.arange(len(pull), dtype=pull.dtype)
    shares = torch.stack([pull.sum(dim=1), pull.sum(dim=0)]) / pull.sum()
    middle = (shares * at).sum(dim=1)
    return middle, (shares * (at - middle[:, None]) ** 2).sum(dim=1).sqrt()


@pytest.mark.parametrize("stride", [4, 8, 16])
def test_the_grid_of_strides_is_smoothed_away_and_a_blob_stays(stride):
    side = 128
    grid = grid_of(stride, side)
    inside = slice(2 * stride, -2 * stride)  # away from the edge, where fewer units look
    assert grid[inside, inside].std() > 0.5 * grid.mean()  # dots and chequers before
    even = smoothed(grid, stride)[inside, inside]
    assert even.std() < 1e-5 * even.mean()
    at = torch.arange(side)
    blob = torch.exp(-((at[:, None] - 70) ** 2 + (at - 50) ** 2) / (2 * 16**2))
    pull = blob * grid
    shown = smoothed(pull, stride)
    middle, breadth = middle_and_breadth(shown)
    assert torch.allclose(middle, torch.tensor([70.0, 50.0]), atol=1)
    assert torch.allclose(breadth, torch.tensor([16.0, 16.0]), rtol=0.1)
    row, column = divmod(int(shown.argmax()), side)
    assert max(abs(row - 70), abs(column - 50)) <= stride / 2
    for dim in (0, 1):  # no dots: from pixel to pixel it changes as little as anything so broad
        assert pull.diff(dim=dim).abs().max() > 0.4 * pull.max()
        assert shown.diff(dim=dim).abs().max() < 0.08 * shown.max()
    assert torch.equal(smoothed(pull, 1), pull)  # no stride, nothing to take away


def test_the_picture_is_as_transparent_as_its_smoothed_pull(spotted):
    """Of the coarsest map on the way, though the layer itself has no places."""
    targets, where = of(looks_for_red(nn.MaxPool2d(3), nn.AdaptiveAvgPool2d(1), nn.Flatten()), spotted, "4")
    assert where.stride == 6
    where = Where(torch.rand(2, S, S, generator=torch.Generator().manual_seed(0)), reason="none", stride=6)
    clear = Image.open(io.BytesIO(where_files(where, targets, targets.initial[0], 0, [0])["transparency.webp"]))
    alpha = torch.tensor(list(clear.getchannel("A").tobytes())).reshape(S, S) / 255
    assert (alpha - opacity(smoothed(where.transparency[0], 6))).abs().max() < 0.005

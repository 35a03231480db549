"""Layer names in both spellings, and the table: its shapes against real passes, its fields against gradients."""

import copy
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torchvision import models

from mindseye.networks.layers import LayerRow, layer_table, paper_name, resolve_layer
from mindseye.networks.network import Network

CONFIGS = Path(__file__).parents[2] / "conf" / "network"


def network_of(body: nn.Module, size: int = 64, channels: int = 3, layers: dict[str, str] | None = None) -> Network:
    return Network(body, [0.5] * channels, [0.25] * channels, name="test", size=size, layers=layers)


def table_of(body: nn.Module, size: int = 64, channels: int = 3) -> dict[str, LayerRow]:
    return {row.name: row for row in layer_table(network_of(body, size, channels))}


# ---- names ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    with torch.device("meta"):  # names alone
        return models.resnet50(weights=None)


@pytest.mark.parametrize(
    ("name", "path", "call"),
    [
        ("layer6.5.conv1", "layer3.5.conv1", None),
        ("6.5.conv1", "layer3.5.conv1", None),
        ("layer7.2", "layer4.2", None),
        ("7", "layer4", None),
        ("layer5", "layer2", None),
        ("0", "conv1", None),
        ("layer4.2", "layer4.2", None),  # exact wins over the paper's layer1.2
        ("4.2", "layer1.2", None),
        ("layer3.5.relu@0", "layer3.5.relu", 0),
        ("6.5.relu@2", "layer3.5.relu", 2),
        ("fc", "fc", None),
    ],
)
def test_both_spellings(resnet: nn.Module, name: str, path: str, call: int | None) -> None:
    assert resolve_layer(resnet, name) == (path, call)


def test_the_papers_spelling_counts_the_children_of_a_sequential(resnet: nn.Module) -> None:
    """Independent of the rule: the paper's program indexes nn.Sequential(*children)."""
    sequential = nn.Sequential(*resnet.children())
    for path, module in resnet.named_modules():
        if path:
            paper = paper_name(resnet, path)
            assert sequential.get_submodule(paper) is module
            assert resolve_layer(resnet, paper) == (path, None)
            assert resolve_layer(resnet, path) == (path, None)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("layer3.5.conv9", "layer3.5.conv1"),
        ("Layer3.5.conv1", "layer3.5.conv1"),
        ("layer3.6", "layer3.5"),
        ("layer6.9.conv1", "layer3.0.conv1|conv1"),
        ("backbone.downsample", "layer1.0.downsample"),
        ("zzz", "conv1, bn1"),
        ("", "conv1, bn1"),
        ("@1", "conv1, bn1"),
    ],
)
def test_an_unknown_name_lists_the_nearest(resnet: nn.Module, name: str, nearest: str) -> None:
    with pytest.raises(ValueError, match=f"there is no layer.*({nearest})") as error:
        resolve_layer(resnet, name)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["relu@", "relu@x", "relu@-1", "relu@1@2"])
def test_a_wrong_call(resnet: nn.Module, name: str) -> None:
    with pytest.raises(ValueError, match="after @ stands the number of the call"):
        resolve_layer(resnet, name)


def test_only_residual_networks_have_the_papers_spelling() -> None:
    body = nn.Sequential(*[nn.Identity() for _ in range(9)])
    assert resolve_layer(body, "6") == ("6", None)
    assert paper_name(body, "6") is None
    with pytest.raises(ValueError, match="there is no layer 'layer6'"):
        resolve_layer(body, "layer6")


# ---- the table --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["resnet18", "shufflenet_v2_x0_5", "efficientnet_b0", "squeezenet1_1"])
def test_shapes_and_calls_are_those_of_a_real_pass(name: str) -> None:
    network = network_of(models.get_model(name, weights=None))
    shapes: dict[str, list[torch.Size]] = {}
    for path, module in network.body.named_modules():
        module.register_forward_hook(
            lambda module, entering, output, path=path: shapes.setdefault(path, []).append(output.shape)
        )
    with torch.no_grad():
        network(torch.rand(1, 3, 64, 64))
    own = copy.deepcopy(shapes)  # the table's passes are heard by these hooks too
    hooks_before = sum(len(module._forward_hooks) for module in network.modules())
    rows = layer_table(network)
    assert sum(len(module._forward_hooks) for module in network.modules()) == hooks_before
    assert {row.name for row in rows} == set(own) - {""}
    for row in rows:
        shape = own[row.name][-1]
        assert row.calls == len(own[row.name])
        assert row.channels == shape[1]
        assert row.map_size == (tuple(shape[2:]) if len(shape) == 4 else None)


@pytest.mark.parametrize(
    ("name", "layer", "published"),
    [
        # Araujo, Norris and Sim, Computing Receptive Fields of Convolutional Neural Networks, 2019
        ("alexnet", "features.12", 195),
        ("vgg16", "features.30", 212),
        # by hand: 11 after the stem, then 2·jump for each 3x3 convolution; torchvision strides in a stage's first
        ("resnet50", "layer4.2", 11 + 2 * (3 * 4 + (4 + 3 * 8) + (8 + 5 * 16) + (16 + 2 * 32))),
        ("densenet121", "features.denseblock4", 2071),
    ],
)
def test_published_receptive_fields(name: str, layer: str, published: int) -> None:
    assert table_of(models.get_model(name, weights=None), 224)[layer].receptive_field == (published, published)


class Branches(nn.Module):
    """Branches of different reach side by side, of which none is centred on the others."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 2, 3, stride=2)
        self.wide = nn.Conv2d(2, 2, (1, 7), stride=2, padding=(0, 3))
        self.tall = nn.Sequential(nn.ZeroPad2d((0, 0, 4, 1)), nn.Conv2d(2, 2, (5, 1), stride=2), nn.Conv2d(2, 2, 1))
        self.pool = nn.AvgPool2d(3, 2, 1)
        self.last = nn.Conv2d(6, 2, 3, padding=2, dilation=2)

    def forward(self, maps: Tensor) -> Tensor:
        maps = self.stem(maps)
        parts = [self.wide(maps), self.tall(maps)[:, :, : maps.shape[2] // 2 + 1], self.pool(maps)]
        size = min(part.shape[2] for part in parts)
        return self.last(torch.cat([part[:, :, :size, :size] for part in parts], 1))


class Hourglass(nn.Module):
    """Down and up again, with a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(1, 2, 4, stride=4)
        self.up = nn.ConvTranspose2d(2, 1, 4, stride=4)
        self.smooth = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, maps: Tensor) -> Tensor:
        return self.smooth(self.up(self.down(maps)) + maps)


def reach(body: nn.Module, side: int) -> tuple[int, int]:
    """Height and width of the pixels that a unit in the middle of the map depends on, by gradients, all weights 1."""
    body = body.double().eval()
    with torch.no_grad():
        for parameter in body.parameters():
            parameter.fill_(1.0 if parameter.ndim > 1 else 0.0)
    x = torch.ones(1, 1, side, side, dtype=torch.float64, requires_grad=True)
    maps = body(x)
    # of all units near the middle the widest: upsampling gives neighbours fields of different sizes
    sizes = []
    for row in range(maps.shape[2] // 2 - 2, maps.shape[2] // 2 + 3):
        (gradient,) = torch.autograd.grad(maps[0, 0, row, row], x, retain_graph=True)
        rows, columns = gradient[0, 0].nonzero().T
        sizes.append((int(rows.max() - rows.min()) + 1, int(columns.max() - columns.min()) + 1))
    return max(size[0] for size in sizes), max(size[1] for size in sizes)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["convolution", "pooling"]),
            st.tuples(st.integers(1, 4), st.integers(1, 4)),
            st.integers(1, 2),
            st.integers(0, 1),
            st.integers(1, 2),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_receptive_fields_agree_with_gradients(parts: list[tuple[str, tuple[int, int], int, int, int]]) -> None:
    modules: list[nn.Module] = []
    for kind, kernel, stride, padding, dilation in parts:
        if kind == "convolution":
            modules.append(nn.Conv2d(1, 1, kernel, stride, padding, dilation))
        else:
            modules.append(nn.AvgPool2d(kernel, stride, min(padding, min(kernel) // 2)))
        modules.append(nn.ReLU())
    body = nn.Sequential(*modules)
    row = table_of(nn.Sequential(body), 220, channels=1)["0"]
    assert row.receptive_field == reach(body, 220)


def test_receptive_fields_of_branches_agree_with_gradients() -> None:
    body = Branches()
    field = table_of(nn.Sequential(body), 96, channels=1)["0"].receptive_field
    assert field == reach(body, 96)


def upsampling(mode: str) -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 1, 3, stride=2), nn.Upsample(scale_factor=2, mode=mode), nn.Conv2d(1, 1, 3))


@pytest.mark.parametrize(
    "body", [Hourglass(), upsampling("nearest"), upsampling("bilinear")], ids=["transposed", "nearest", "bilinear"]
)
def test_upsampling_gives_an_upper_bound(body: nn.Module) -> None:
    field = table_of(nn.Sequential(body), 64, channels=1)["0"].receptive_field
    found = reach(body, 64)
    assert found[0] <= field[0] <= found[0] + 4


def test_whole_image_unknown_and_no_map() -> None:
    table = table_of(models.resnet18(weights=None))
    assert table["avgpool"].receptive_field == (math.inf, math.inf)
    assert table["fc"].map_size is None
    assert table["fc"].channels == 1000
    swin = table_of(models.swin_t(weights=None))
    assert swin["features.1.0"].map_size == (16, 16)  # its channels come last
    assert swin["features.1.0"].channels == 96
    assert swin["permute"].map_size == (2, 2)
    assert swin["permute"].receptive_field is None  # attention ended the account
    assert swin["features.0.0"].receptive_field == (4, 4)
    vit = table_of(models.vit_b_32(weights=None), 224)
    assert vit["encoder.layers.encoder_layer_0"].map_size == (7, 7)  # 49 tokens behind the class token
    assert vit["encoder.layers.encoder_layer_0"].channels == 768


def test_depths_and_paper_names_stand_in_the_table() -> None:
    layers = {"early": "layer2.0", "middle": "6.1.conv1", "late": "layer4.1.relu@0"}
    rows = layer_table(network_of(models.resnet18(weights=None), layers=layers))
    assert {row.name: row.depth for row in rows if row.depth} == {
        "layer2.0": "early",
        "layer3.1.conv1": "middle",
        "layer4.1.relu": "late",
    }
    assert {row.name: row.paper for row in rows}["layer3.1.conv1"] == "6.1.conv1"
    assert {row.name: row.calls for row in rows}["layer4.1.relu"] == 2


def test_a_network_that_looks_at_its_values() -> None:
    """Such a network cannot be followed without computing."""

    class Looking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 2, 5)

        def forward(self, maps: Tensor) -> Tensor:
            return self.conv(maps) if float(maps.sum()) < 1 else maps

    assert table_of(Looking(), 20, channels=1)["conv"].receptive_field == (5, 5)


def test_an_image_too_small_for_the_network() -> None:
    with pytest.raises(ValueError, match=r"test cannot read an image of 20×20: .*size"):
        table_of(models.alexnet(weights=None), 20)


# ---- the command ------------------------------------------------------------------------------------------------


def test_the_command_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    from mindseye.commands.layers import layers

    layers(["network=resnet50", "--filter", "layer3.5"])
    printed = capsys.readouterr().out
    (row,) = [line.split() for line in printed.splitlines() if line.startswith("layer3.5.conv1 ")]
    assert row == ["layer3.5.conv1", "6.5.conv1", "Conv2d", "256", "14", "235", "middle"]
    assert "layer3.5.bn1" not in printed
    assert not [line for line in printed.splitlines() if line.startswith("layer3.4")]
    assert "on the way to layer3.5.conv1 (middle): relu, layer1.0, layer1.2, layer2.1, layer2.3, layer3.1" in printed
    layers(["network=torchvision", "network.name=regnet_y_400mf", "--all", "--size", "64"])
    printed = capsys.readouterr().out
    assert "trunk_output.block3.block3-0.f.a.1" in printed
    assert "image 64×64" in printed
    assert max(len(line) for line in printed.splitlines()) <= 100

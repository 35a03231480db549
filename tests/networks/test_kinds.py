"""Networks beyond classifiers: transformers, encoders of other tasks, odd channels and ranges, compiled programs."""

import itertools

import pytest
import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models.swin_transformer import SwinTransformer
from torchvision.models.vision_transformer import VisionTransformer

from mindseye.facets.discovery import discover_facets
from mindseye.networks import Network, TimmSource, TorchvisionSource, layer_table, load_network, record
from mindseye.networks.maps import Layout, as_maps, prefix_tokens
from mindseye.networks.preparing import prepare
from mindseye.settings import Facets, Running
from mindseye.visualizer.fitting import fit
from mindseye.visualizer.method import Method


def tiny_transformer(image_size: int, num_classes: int = 5, weights: None = None) -> VisionTransformer:
    torch.manual_seed(0)
    return VisionTransformer(
        image_size, patch_size=8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=num_classes
    )


def tiny_vit(size: int = 48) -> Network:
    return Network(tiny_transformer(size), [0.5] * 3, [0.25] * 3, "vit", size)


def drawn(network: Network, photographs, layer: str, k: int = 4):
    targets = discover_facets(network, photographs, layer, Facets(C=2, k=k, N=3))
    done = fit(network, targets, Method(steps=3), Running(accelerator="cpu"))
    # it starts from the facet's blend, and must have gone somewhere
    assert done.images.isfinite().all()
    assert (done.images - targets.initial).abs().max() > 0.01
    return targets, done


# ---- tokens -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("before", "behind"), [(0, 0), (2, 0), (1, 3), (0, 1)])
@pytest.mark.parametrize("tokens", [1, 2])
def test_tokens_lie_down_row_by_row_without_those_around_them(before, behind, tokens):
    length = before + 9 + behind
    sequence = torch.arange(2 * length * 4).reshape(2, length, 4).float()
    given = sequence if tokens == 1 else sequence.transpose(1, 2)
    layout = Layout(3, 3 - tokens, tokens=tokens, before=before, behind=behind)
    maps = as_maps(given, "block", layout)
    assert maps.shape == (2, 4, 3, 3)
    for row in range(3):
        for column in range(3):
            assert torch.equal(maps[:, :, row, column], sequence[:, before + 3 * row + column])


@pytest.mark.parametrize("order", [*itertools.permutations((1, 2, 3))])
def test_maps_in_any_order_have_their_channels_put_first(order):
    channels, rows, columns = order
    maps = torch.rand(2, 5, 3, 4)
    given = maps.permute(0, *(1 + order.index(dim) for dim in (1, 2, 3)))
    assert torch.equal(as_maps(given, "conv", Layout(4, channels, rows=rows, columns=columns)), maps)


def test_what_has_no_layout_is_refused_in_one_line():
    tokens = Layout(3, 2, tokens=1)
    for shape, layout in (((2, 60, 8), tokens), ((2, 9, 8), None), ((2, 3, 4, 5), tokens), ((2,), None)):
        with pytest.raises(ValueError, match="layer head gives a tensor of shape") as error:
            as_maps(torch.zeros(shape), "head", layout)
        assert "\n" not in str(error.value)


def test_a_bright_patch_is_where_it_is_in_the_image():
    """The map of tokens is the image's own layout, by a patch embedding that knows nothing but brightness."""
    network = tiny_vit()
    with torch.no_grad():
        network.body.conv_proj.weight.fill_(1 / (3 * 64))
        network.body.conv_proj.bias.zero_()
        network.body.encoder.pos_embedding.zero_()
    images = torch.zeros(1, 3, 48, 48)
    images[:, :, 16:24, 32:40] = 1
    with torch.no_grad(), record(network, "encoder.dropout") as tape:
        maps = as_maps(tape(images), "encoder.dropout", network.layout("encoder.dropout"))[0, 0]
    assert maps.shape == (6, 6)
    assert divmod(int(maps.argmax()), 6) == (2, 4)


@pytest.mark.parametrize("layer", ["encoder.layers.encoder_layer_1", "encoder.layers.encoder_layer_0.mlp", "conv_proj"])
def test_a_vision_transformer_is_drawn(photographs, layer):
    network = tiny_vit()
    assert prefix_tokens(network.body) == 1
    targets, _ = drawn(network, photographs, layer)
    assert targets.maps.shape[2:] == (6, 6)
    rows = {row.name: row for row in layer_table(network)}
    assert rows[layer].map_size == (6, 6)
    assert rows[layer].channels == targets.maps.shape[1]
    assert rows[layer].weighted


def test_a_prepared_transformer_answers_as_before():
    network = tiny_vit()
    images = torch.rand(3, 3, 48, 48)
    layer = "encoder.layers.encoder_layer_1"
    with torch.no_grad(), record(network, layer) as tape:
        right = tape(images)
        answer, previous, _ = prepare(network, layer)(images)
    assert torch.allclose(answer, right, atol=1e-5)
    assert torch.allclose(previous, tape.previous, atol=1e-5)


def test_a_swin_transformer_has_its_channels_last(photographs):
    torch.manual_seed(0)
    body = SwinTransformer([4, 4], 16, [2, 2], [2, 2], [4, 4], num_classes=3)
    network = Network(body, [0.5] * 3, [0.25] * 3, "swin", 48)
    targets, _ = drawn(network, photographs, "features.1")
    assert targets.maps.shape[1:] == (16, 12, 12)
    assert {row.name: row.map_size for row in layer_table(network)}["features.1"] == (12, 12)


@pytest.mark.parametrize(
    ("name", "layer", "prefix"),
    [
        ("vit_tiny_patch16_224", "blocks.1", 1),
        ("deit_tiny_distilled_patch16_224", "blocks.1", 2),
        ("vit_small_patch14_reg4_dinov2", "blocks.1", 5),
    ],
)
def test_timm_s_transformers_of_another_size(name, layer, prefix):
    """Built for the size that is asked for; the class token and what stands beside it are no part of the map."""
    network = TimmSource(name, None, size=56).load()
    assert network.size == 56
    assert network.prefix_tokens == prefix
    side = 56 // (14 if "patch14" in name else 16)
    rows = {row.name: row for row in layer_table(network)}
    assert rows[layer].map_size == (side, side)
    with torch.no_grad(), record(network, layer) as tape:
        assert as_maps(tape(torch.rand(1, 3, 56, 56)), layer, network.layout(layer)).shape[2:] == (side, side)


def test_torchvision_s_transformer_of_another_size_keeps_its_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(models, "get_model_builder", lambda name: tiny_transformer)
    usual = TorchvisionSource("vit_b_32", None, size=16).load()
    nn.init.normal_(usual.body.encoder.pos_embedding)
    torch.save(usual.body.state_dict(), tmp_path / "vit.pth")
    larger = TorchvisionSource("vit_b_32", tmp_path / "vit.pth", size=24).load()
    assert larger.size == 24
    before, after = usual.body.state_dict(), larger.body.state_dict()
    assert after["encoder.pos_embedding"].shape == (1, 10, 16)
    assert torch.equal(after["encoder.pos_embedding"][:, 0], before["encoder.pos_embedding"][:, 0])
    # the corners of the image stay its corners
    assert torch.allclose(after["encoder.pos_embedding"][0, [1, 3, 7, 9]], before["encoder.pos_embedding"][0, 1:])
    assert all(torch.equal(after[key], before[key]) for key in before if key != "encoder.pos_embedding")


# ---- encoders of other tasks ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "layer"),
    [("lraspp_mobilenet_v3_large", "backbone.4"), ("ssdlite320_mobilenet_v3_large", "backbone.features.0.4")],
)
def test_encoders_of_segmentation_and_detection(photographs, name, layer):
    network = TorchvisionSource(name, None, size=48).load()
    rows = {row.name: row for row in layer_table(network)}
    assert rows[layer].map_size == (6, 6)
    targets, _ = drawn(network, photographs, layer)
    assert targets.maps.shape[1:] == (rows[layer].channels, 6, 6)


def test_a_detector_reads_as_it_was_trained_and_takes_its_own_weights(tmp_path):
    from torchvision.models import detection

    torch.manual_seed(0)
    whole = detection.ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=3)
    torch.save({"model": whole.state_dict()}, tmp_path / "detector.pth")
    network = TorchvisionSource("ssdlite320_mobilenet_v3_large", tmp_path / "detector.pth").load()
    assert network.mean.flatten().tolist() == whole.transform.image_mean == [0.5] * 3
    assert torch.equal(network.body.backbone.features[0][0][0].weight, whole.backbone.features[0][0][0].weight)
    images = torch.rand(1, 3, 64, 64)
    whole.eval()
    with torch.no_grad():
        right = whole.backbone((images - 0.5) / 0.5)
        assert all(torch.equal(network(images)[key], right[key]) for key in right)


def test_a_model_of_no_images_is_refused():
    with pytest.raises(ValueError, match="torchvision has no model 'r3d_18' of images"):
        TorchvisionSource("r3d_18", None).load()
    with pytest.raises(ValueError, match=r"the nearest names are .*deeplabv3_resnet50"):
        TorchvisionSource("deeplab_resnet50", None).load()


# ---- compiled programs ------------------------------------------------------------------------------------------


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.block = nn.Sequential(nn.Conv2d(8, 6, 3, stride=2), nn.BatchNorm2d(6), nn.ReLU())

    def forward(self, images: Tensor) -> Tensor:
        return self.block(self.conv(images).relu())


def exported(**more) -> torch.export.ExportedProgram:
    torch.manual_seed(0)
    return torch.export.export(Small().eval(), (torch.rand(2, 3, 48, 48),), **more)


def test_a_program_of_torch_export_is_drawn(photographs, tmp_path):
    program = exported(dynamic_shapes=({0: torch.export.Dim("batch", max=64)},))
    network = load_network(program, mean=[0.5] * 3, std=[0.5] * 3, size=48)
    targets, _ = drawn(network, photographs, "block.0")
    assert targets.maps.shape[1:] == (6, 22, 22)
    torch.manual_seed(0)
    body = Small().eval()
    images = torch.rand(3, 3, 48, 48)
    answer, previous, _ = prepare(network, "block.0")(images)
    with torch.no_grad():
        assert torch.allclose(previous, body.conv((images - 0.5) / 0.5).relu(), atol=1e-5)
        assert torch.allclose(answer, body.block[0](previous), atol=1e-5)


@pytest.mark.filterwarnings("ignore:.*torch.jit")
@pytest.mark.parametrize(
    ("given", "message"),
    [
        (lambda: exported(), "the network was exported for 2 images at once: export it for any number"),
        (lambda: exported().module(), "give the ExportedProgram itself"),
        (lambda: torch.jit.script(Small()), "TorchScript program, which nothing can look into: give the nn.Module"),
        (lambda: 3, "the network must be a name, .* or an nn.Module, not 3"),
    ],
)
def test_programs_that_cannot_be_looked_into(given, message):
    with pytest.raises(ValueError, match=message) as error:
        load_network(given(), mean=[0.5] * 3, std=[0.5] * 3)
    assert "\n" not in str(error.value)


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_weights_in_a_torchscript_file(tmp_path):
    torch.jit.save(torch.jit.script(Small()), tmp_path / "net.pt")
    with pytest.raises(ValueError, match=r"net.pt is a TorchScript program: save torch.jit.load\('net.pt'\)"):
        load_network(Small(), tmp_path / "net.pt", mean=[0.5] * 3, std=[0.5] * 3)


# ---- channels, ranges, sizes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 4, 6])
def test_other_numbers_of_channels(channels, tmp_path):
    import numpy as np

    from mindseye.facets import load_photographs

    generator = np.random.default_rng(0)
    for i in range(8):
        np.save(tmp_path / f"{i}.npy", generator.integers(0, 256, (channels, 32, 32), dtype=np.uint8))
    network = TimmSource("test_resnet", None, mean=[0.4] * channels, std=[0.2] * channels).load()
    photographs = load_photographs(tmp_path, size=32, channels=channels)
    _, done = drawn(network, photographs, "layer2.0")
    assert done.images.shape == (2, channels, 32, 32)


def test_a_network_that_reads_0_to_255():
    class Keeps(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            self.seen = images
            return images

    body = Keeps()
    network = load_network(body, mean=[0.0] * 3, std=[1 / 255] * 3)
    network(torch.full((1, 3, 4, 4), 0.5))
    assert torch.allclose(body.seen, torch.full((1, 3, 4, 4), 127.5))


def test_another_size_than_its_own_is_said_with_what_is_right(photographs):
    with pytest.raises(ValueError, match=r"vit cannot look at 48×48 images up to encoder.ln .*its own is 32"):
        discover_facets(tiny_vit(32), photographs, "encoder.ln", Facets(C=2, k=2, N=2))


def test_a_buffer_of_five_dimensions_stops_nothing():
    """timm's Swin has one; torch lays out four dimensions with channels last, and refuses five."""

    class Biased(Small):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("bias", torch.ones(1, 6, 1, 1, 1))

        def forward(self, images: Tensor) -> Tensor:
            return (super().forward(images).unsqueeze(-1) + self.bias).squeeze(-1)

    body = nn.Sequential(Biased(), nn.Conv2d(6, 4, 1))
    prepared = prepare(Network(body, [0.5] * 3, [0.5] * 3, "biased", 32), "1")
    assert prepared.traced
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.allclose(prepared(images)[0], body((images - 0.5) / 0.5), atol=1e-5)


class TakesMore(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3)

    def forward(self, images: Tensor, meta: Tensor) -> Tensor:
        return self.conv(images) * meta


class TakesABatch(TakesMore):
    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        return self.conv(batch["image"])


class TakesAPair(TakesMore):
    def forward(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        images, _, _, _ = batch
        return self.conv(images)


class TakesAnObject(TakesMore):
    def forward(self, batch: object) -> Tensor:
        return self.conv(batch.images)


@pytest.mark.parametrize("kind", [TakesMore, TakesABatch, TakesAPair, TakesAnObject])
@pytest.mark.filterwarnings("ignore:Using a non-tuple sequence")
def test_a_forward_of_something_else_than_images_is_one_line(photographs, kind):
    network = load_network(kind(), mean=[0.5] * 3, std=[0.5] * 3, size=48)
    for look in (lambda: discover_facets(network, photographs, "conv", Facets(C=2, k=2)), lambda: network(IMAGES)):
        with pytest.raises(ValueError, match="wrap one that takes something else in a module") as caught:
            look()
        assert "\n" not in str(caught.value)
        assert kind is TakesMore or "of test_kinds.py" in str(caught.value)


IMAGES = torch.rand(1, 3, 32, 32)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_a_network_in_another_precision_is_copied_into_float32(photographs, dtype):
    """The caller's own stays as it is, and the layer gives what it gives, up to the rounding of the weights."""
    body = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU())
    right = body.eval()(IMAGES * 2 - 1).detach()
    network = load_network(body.to(dtype), mean=[0.5] * 3, std=[0.5] * 3, size=48)
    assert {weight.dtype for weight in body.parameters()} == {dtype}
    assert torch.allclose(network(IMAGES), right, atol=0.02)
    found = discover_facets(network, photographs, "2", Facets(C=2, k=2, N=2))
    assert found.maps.isfinite().all()
    plain = nn.Sequential(nn.Conv2d(3, 6, 3))
    assert load_network(plain, mean=[0.5] * 3, std=[0.5] * 3).body is plain  # no copy where none is needed

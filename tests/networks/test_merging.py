"""Layers answered together answer as they do alone, to the last bit."""

import logging

import pytest
import torch
from torch import nn
from torch.nn.functional import dropout

from mindseye.networks import Network, load_network, preparing
from mindseye.networks.merging import merge, share_weights
from mindseye.networks.preparing import prepare

# Early, middle and late layers of a small member of every family, and convolutions whose BatchNorm follows.
FAMILIES = {
    "resnet18": ("layer2.0", "layer3.1.conv1", "layer4.1", "layer2.0.relu@0", "bn1", "conv1", "fc"),
    "resnet50": ("layer2.0", "layer3.5.conv1", "layer4.2", "layer3.5.bn1"),
    "resnext50_32x4d": ("layer2.0", "layer3.5.conv2", "layer4.2"),
    "densenet121": ("features.denseblock2", "features.denseblock3.denselayer9.conv1", "features.norm5",
                    "features.denseblock3.denselayer9.norm1"),
    "mobilenet_v2": ("features.6", "features.10", "features.18", "features.10.conv.2"),
    "mobilenet_v3_small": ("features.4", "features.8.block.3.0", "features.12"),
    "efficientnet_b0": ("features.3", "features.5.1.block.1.0", "features.8"),
    "squeezenet1_1": ("features.4", "features.7", "features.12", "features.10.expand3x3"),
    "vgg11_bn": ("features.4", "features.18", "features.19", "features"),
    "inception_v3": ("Mixed_5d", "Mixed_6b.branch7x7_1.conv", "Mixed_7c"),
    "convnext_tiny": ("features.3", "features.5.3.block.0", "features.7"),
    "regnet_y_400mf": ("trunk_output.block2", "trunk_output.block3.block3-2.f.b.0", "trunk_output"),
    "shufflenet_v2_x1_0": ("stage2", "stage3.2.branch2.0", "conv5"),
}  # fmt: skip


def unsettle(module):
    """Statistics as after training: those of a fresh BatchNorm fold to nothing."""
    generator = torch.Generator().manual_seed(1)
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.running_mean.normal_(0, 0.2, generator=generator)
            part.running_var.uniform_(0.5, 2, generator=generator)


def network_of(body, size=16):
    torch.manual_seed(0)
    unsettle(body)
    return Network(body, (0.4,) * 3, (0.3,) * 3, "own", size, layers={})


@torch.no_grad()
def assert_the_same(network, layers, size=16):
    """Merged from the deepest layer and from the first, for a whole batch and an odd rest. Returns the last of them."""
    prepared = [prepare(network, layer) for layer in layers]
    assert all(one.traced for one in prepared)
    for ordered, batch in ((prepared[::-1], 16), (prepared, 5)):
        merged = merge(ordered, size)
        assert merged.layers == tuple(one.layer for one in ordered)
        images = torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(2))
        given = images.clone()
        for one, answer in zip(ordered, merged(given), strict=True):
            alone = one(images.clone())[0]
            assert torch.equal(answer, alone), one.layer
            assert answer.stride() == alone.stride(), one.layer
        assert torch.equal(given, images)  # a careless program would write into them
    return merged


def calls(merged, kind=nn.Conv2d):
    """How many modules of a kind one pass calls."""
    modules = dict(merged.body.named_modules())
    steps = [step for step in merged.body.graph.nodes if step.op == "call_module"]
    return sum(isinstance(modules[step.target], kind) for step in steps)


# Those that are slow, and of parts that others have too.
LARGE = {"resnet50", "resnext50_32x4d", "densenet121", "inception_v3", "convnext_tiny"}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.long) if name in LARGE else name for name in FAMILIES]
)
def test_every_family_to_the_last_bit(name):
    torch.manual_seed(0)
    size = 80 if name == "inception_v3" else 48
    network = load_network(name, weights=None, size=size)
    if name == "vgg11_bn":
        network.body.classifier = nn.Identity()  # half a gigabyte
    unsettle(network)
    assert_the_same(network, FAMILIES[name], size)


def test_what_layers_have_in_common_is_computed_once():
    network = load_network("resnet18", weights=None, size=64)
    layers = ("layer1.0", "layer2.0", "layer3.1", "layer4.1")
    merged = merge([prepare(network, layer) for layer in layers], 64)
    assert calls(merged) == 20  # a ResNet-18's convolutions
    with_conv = merge([prepare(network, layer) for layer in (*layers, "layer3.1.conv1")], 64)
    assert calls(with_conv) == 21  # that one with its BatchNorm and without
    assert calls(with_conv, nn.BatchNorm2d) == 0


class Rewriting(nn.Module):
    """Everything is written over by what comes next."""

    def __init__(self):
        super().__init__()
        self.first = nn.ReLU(inplace=True)  # into the images themselves
        self.conv = nn.Conv2d(3, 8, 3)
        self.same = nn.Identity()
        self.act = nn.Hardswish(inplace=True)
        self.again = nn.ReLU6(inplace=True)
        self.end = nn.Conv2d(8, 4, 1)

    def forward(self, x):
        x = self.conv(self.first(x))
        self.act(self.same(x))  # what comes back is not taken: x has changed
        self.again(x)
        return self.end(x).add_(1)


def test_what_another_layer_reads_is_not_written_over():
    network = network_of(Rewriting())
    assert_the_same(network, ("first", "conv", "same", "act", "end"))
    assert_the_same(network, ("conv", "end"))


class Viewing(nn.Module):
    """Writes through views, of which the whole is read no more, or is."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.flat = nn.Flatten(2)
        self.act = nn.ReLU(inplace=True)
        self.end = nn.Conv1d(8, 4, 1)
        self.part = nn.ReLU(inplace=True)
        self.last = nn.Conv1d(4, 4, 1)

    def forward(self, x):
        x = self.end(self.act(self.flat(self.conv(x))))
        self.part(x[:, :2])
        return self.last(x)


def test_writing_through_views(caplog):
    network = network_of(Viewing())
    assert_the_same(network, ("conv", "flat", "act", "end"))
    prepared = [prepare(network, layer) for layer in ("conv", "last", "end")]
    with caplog.at_level(logging.INFO):
        merged = merge(prepared, 16)
    assert merged.layers == ("conv", "end")
    assert "layer last is not merged" in caplog.text
    images = torch.rand(3, 3, 16, 16)
    for one, answer in zip((prepared[0], prepared[2]), merged(images), strict=True):
        assert torch.equal(one(images)[0], answer)
    assert merge([prepared[1]], 16) is None
    assert merge([], 16) is None


class Zeros(nn.Module):
    """Numbers that are equal and not the same."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Identity(), nn.Identity()

    def forward(self, x):
        one = self.one(x.abs() * 0.0)
        return self.two(x.abs() * -0.0) + one


def test_equal_numbers_that_compute_otherwise_are_two_steps():
    merged = assert_the_same(network_of(Zeros()), ("one", "two"))
    one, two = merged(torch.rand(1, 3, 16, 16))
    assert not one.signbit().any()
    assert two.signbit().all()


class Chance(nn.Module):
    def __init__(self):
        super().__init__()
        self.before = nn.Conv2d(3, 4, 3)
        self.after = nn.Conv2d(4, 4, 3)

    def forward(self, x):
        return self.after(dropout(self.before(x), training=True))


def test_a_layer_that_would_answer_otherwise_is_left_out(caplog, monkeypatch):
    monkeypatch.setattr(preparing, "TOLERANCE", float("inf"))  # else it is not traced: it never answers the same twice
    network = network_of(Chance())
    prepared = [prepare(network, layer) for layer in ("before", "after")]
    with caplog.at_level(logging.INFO):
        merged = merge(prepared, 16)
    assert merged.layers == ("before",)
    assert "layer after is not merged with others (its answer would not be the same to the last bit)" in caplog.text


def test_what_cannot_be_merged_is_refused():
    network = load_network("demo")
    prepared = prepare(network, "layer2.0")
    other = load_network("demo")
    other.body.conv1.weight.data[0] += 1
    with pytest.raises(ValueError, match="another network"):
        merge([prepared, prepare(other, "layer3.0")], 96)
    with pytest.raises(ValueError, match="no float32 program"):
        merge([prepared, prepare(network, "layer3.0").in_precision("bfloat16")], 96)
    with pytest.raises(ValueError, match=r"takes images \[B,3,H,W\]"):
        merge([prepared], 96)(torch.rand(1, 1, 96, 96))


def test_shared_weights_are_the_same_weights_once():
    network = load_network("resnet18", weights=None, size=64)
    unsettle(network)
    layers = ("layer3.1.conv1", "layer4.1", "layer2.0")
    prepared = [prepare(network, layer) for layer in layers]
    images = torch.rand(2, 3, 64, 64)
    before = [one(images)[0] for one in prepared]
    known = {}
    for one in prepared:
        share_weights(one, known)
    assert all(torch.equal(one(images)[0], was) for one, was in zip(prepared, before, strict=True))
    held = {weight.data_ptr(): weight.numel() for one in prepared for weight in one.body.parameters()}
    deepest = sum(weight.numel() for weight in prepared[1].body.parameters())
    twice = prepared[0].body.get_submodule("body.layer3.1.conv1").weight.numel()  # not folded there
    assert sum(held.values()) == deepest + twice

"""A prepared network answers as the network does, and nothing of it means anything else."""

import copy
import gc
import pickle
import weakref

import pytest
import torch
from torch import nn
from torchvision.ops.misc import FrozenBatchNorm2d

from mindseye.networks import Network, load_network, record
from mindseye.networks.preparing import PreparedNetwork, prepare

# A late and an inner layer of a small member of every family: the inner one is a convolution whose BatchNorm follows.
FAMILIES = {
    "resnet18": ("layer4.1", "layer3.1.conv1"),
    "resnet50": ("layer4.2", "layer3.5.conv1"),
    "resnext50_32x4d": ("layer4.2", "layer3.5.conv2"),
    "wide_resnet50_2": ("layer3.5", "layer3.5.conv3"),
    "densenet121": ("features.denseblock4", "features.denseblock3.denselayer9.conv1"),
    "mobilenet_v2": ("features.18", "features.10.conv.2"),
    "mobilenet_v3_small": ("features.12", "features.8.block.3.0"),
    "efficientnet_b0": ("features.8", "features.5.1.block.1.0"),
    "squeezenet1_1": ("features.12", "features.10.expand3x3"),
    "vgg11_bn": ("features", "features.18"),
    "inception_v3": ("Mixed_7c", "Mixed_6b.branch7x7_1.conv"),
    "googlenet": ("inception5b", "inception4c.branch2.1.conv"),
    "convnext_tiny": ("features.7", "features.5.3.block.0"),
    "regnet_y_400mf": ("trunk_output", "trunk_output.block3.block3-2.f.b.0"),
    "regnet_x_400mf": ("trunk_output", "trunk_output.block3.block3-2.f.c.0"),
    "shufflenet_v2_x1_0": ("conv5", "stage3.2.branch2.0"),
    "mnasnet1_0": ("layers", "layers.11.0.layers.3"),
}


def unsettle(module):
    """Statistics and weights as after training: those of a fresh BatchNorm fold to nothing."""
    generator = torch.Generator().manual_seed(1)
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm | FrozenBatchNorm2d):
            if part.running_mean is not None:
                part.running_mean.normal_(0, 0.2, generator=generator)
                part.running_var.uniform_(0.5, 2, generator=generator)
            if part.weight is not None:
                part.weight.data.uniform_(0.5, 1.5, generator=generator)
                part.bias.data.normal_(0, 0.2, generator=generator)


def network_of(body, channels=3, size=32):
    torch.manual_seed(0)
    unsettle(body)
    return Network(body, [0.4] * channels, [0.3] * channels, "own", size, layers={})


def answers(network, layer, previous, images):
    with torch.no_grad(), record(network, layer, previous) as tape:
        target = tape(images)
        return target, tape.previous


def relative(a, b):
    return float((a - b).norm() / b.norm())


def batch_norms(module):
    return sum(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in module.modules())


# Larger brothers of others that are tried, and of the same parts.
BROTHERS = {"resnext50_32x4d", "wide_resnet50_2", "regnet_x_400mf", "mnasnet1_0"}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.long) if name in BROTHERS else name for name in FAMILIES]
)
def test_every_family_answers_as_before(name):
    torch.manual_seed(0)
    network = load_network(name, weights=None, size=96)
    unsettle(network)
    images = torch.rand(2, 3, 96, 96)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    for layer in FAMILIES[name]:
        prepared = prepare(network, layer)
        assert prepared.traced, layer
        target, previous = answers(network, layer, None, images)
        with torch.no_grad():
            looked = prepared(images)
        drawn = prepared(images.clone().requires_grad_())  # by other kernels
        for a, p, _ in (looked, drawn):
            assert relative(a.detach(), target) < 1e-4, layer
            assert relative(p.detach(), previous) < 1e-4, layer
        if any(isinstance(part, nn.BatchNorm2d) for part in network.modules()):
            assert prepared.folded > 0
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_gradients_are_the_network_s_own():
    torch.manual_seed(0)
    network = load_network("resnet18", weights=None, size=64)
    unsettle(network)
    images = torch.rand(2, 3, 64, 64)
    weight = torch.randn(2, 256, 4, 4)

    def gradient(run):
        leaf = images.clone().requires_grad_()
        (run(leaf) * weight).sum().backward()
        return leaf.grad

    with record(network, "layer3.1.conv1") as tape:
        right = gradient(tape)
    assert relative(gradient(lambda x: prepare(network, "layer3.1.conv1")(x)[0]), right) < 0.02  # ReLUs at their kinks


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.relu = nn.ReLU(inplace=True)
        self.after = nn.Conv2d(8, 4, 1)

    def forward(self, x):
        return self.after(self.relu(self.norm(self.conv(x))))


@pytest.mark.parametrize(
    ("layer", "previous", "left"),
    [
        ("after", None, 0),
        ("relu", None, 0),  # what enters it is the BatchNorm's output, and it is then written over
        ("norm", None, 1),  # what enters it is the convolution's own output
        ("after", "conv", 1),
        ("after", "norm", 0),
        ("conv", None, 0),  # nothing past the target is kept
    ],
)
def test_a_convolution_that_is_asked_for_keeps_its_batch_norm(layer, previous, left):
    network = network_of(Block())
    prepared = prepare(network, layer, previous)
    assert prepared.traced
    assert batch_norms(prepared) == left
    images = torch.rand(2, 3, 16, 16)
    for answer, right in zip(prepared(images)[:2], answers(network, layer, previous, images), strict=True):
        assert relative(answer, right) < 1e-5


class Shared(nn.Module):
    """One convolution in front of two BatchNorms, and one whose output goes two ways."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.one, self.two = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
        self.fork = nn.Conv2d(3, 3, 3, padding=1)
        self.three = nn.BatchNorm2d(3)
        self.end = nn.Conv2d(3, 2, 1)

    def forward(self, x):
        x = self.two(self.conv(self.one(self.conv(x))))
        fork = self.fork(x)
        return self.end(self.three(fork) + fork)


def test_shared_convolutions_stay_as_they_are():
    network = network_of(Shared())
    prepared = prepare(network, "end")
    assert (prepared.folded, batch_norms(prepared)) == (0, 3)
    images = torch.rand(1, 3, 16, 16)
    assert relative(prepared(images)[0], answers(network, "end", None, images)[0]) < 1e-5


@pytest.mark.parametrize("norm", [nn.BatchNorm2d(8, affine=False), FrozenBatchNorm2d(8)], ids=["bare", "frozen"])
def test_other_kinds_of_batch_norm(norm):
    network = network_of(nn.Sequential(nn.Conv2d(3, 8, 3), norm, nn.ReLU(), nn.Conv2d(8, 4, 1)))
    prepared = prepare(network, "3")
    assert prepared.folded == 1
    images = torch.rand(1, 3, 16, 16)
    assert relative(prepared(images)[0], answers(network, "3", None, images)[0]) < 1e-5


def test_a_batch_norm_of_the_batch_s_own_statistics_is_not_folded():
    network = network_of(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, track_running_stats=False), nn.ReLU()), 3)
    assert prepare(network, "2").folded == 0


def test_timm_batch_norms_with_activations():
    pytest.importorskip("timm")
    torch.manual_seed(0)
    network = load_network("timm/mobilenetv3_small_050", weights=None, mean=[0.5] * 3, std=[0.5] * 3, size=64)
    unsettle(network)
    prepared = prepare(network, "blocks.4")
    assert prepared.traced
    assert prepared.folded > 20
    assert batch_norms(prepared) == 0
    images = torch.rand(2, 3, 64, 64)
    assert relative(prepared(images)[0], answers(network, "blocks.4", None, images)[0]) < 1e-4


def test_a_module_called_several_times_is_meant_by_its_last_call_or_the_named_one():
    network = load_network("resnet18", weights=None, size=64)
    images = torch.rand(1, 3, 64, 64)
    for layer in ("layer2.0.relu", "layer2.0.relu@0", "layer2.0.relu@1"):
        prepared = prepare(network, layer)
        assert prepared.traced
        for answer, right in zip(prepared(images)[:2], answers(network, layer, None, images), strict=True):
            assert relative(answer, right) < 1e-5


class Moody(nn.Module):
    """What it computes depends on the image: no tracer can follow."""

    def __init__(self):
        super().__init__()
        self.bright, self.dark = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)
        self.end = nn.Conv2d(4, 2, 1)

    def forward(self, x):
        return self.end(self.bright(x) if x.mean() > 0 else self.dark(x))


def test_a_network_that_cannot_be_traced_runs_by_hooks():
    network = network_of(Moody())
    prepared = prepare(network, "end")
    assert not prepared.traced
    for images in (torch.rand(1, 3, 16, 16) * 0.2, 0.8 + torch.rand(1, 3, 16, 16) * 0.2):
        assert torch.equal(prepared(images)[0], answers(network, "end", None, images)[0])
    with pytest.raises(ValueError, match="give compile=false"):
        prepared.compile()


class Forgetful(nn.Module):
    """Traces well, and wrongly: the tracer sees one of the two ways."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.calls = 0

    def forward(self, x):
        self.calls += isinstance(x, torch.Tensor)
        return self.conv(x) if isinstance(x, torch.Tensor) else self.conv(x * 2)


def test_a_trace_that_answers_otherwise_is_not_taken():
    body = nn.Sequential(Forgetful(), nn.ReLU())
    network = network_of(body)
    prepared = prepare(network, "1")
    assert not prepared.traced
    images = torch.rand(1, 3, 16, 16)
    assert torch.equal(prepared(images)[0], answers(network, "1", None, images)[0])


def test_only_the_way_to_the_target_is_kept():
    network = load_network("resnet18", weights=None, size=64)
    prepared = prepare(network, "layer2.0")
    kept = sum(parameter.numel() for parameter in prepared.parameters())
    way = [network.body.conv1, network.body.layer1, network.body.layer2[0]]
    assert kept <= sum(parameter.numel() for part in way for parameter in part.parameters())
    gone = weakref.ref(network.body.layer4)
    del network, way
    gc.collect()
    assert gone() is None


def test_prepared_is_prepared():
    network = load_network("demo")
    prepared = prepare(network, "layer3.0", "conv1")
    assert prepare(prepared, "layer3.0") is prepared
    assert prepare(prepared, "layer3.0", "conv1") is prepared
    assert prepared.fingerprint() == network.fingerprint()
    assert prepared.resolve(depth="middle") == "layer3.0"
    with pytest.raises(ValueError, match=r"prepared for layer layer3.0, not layer2.0"):
        prepare(prepared, "layer2.0")
    with pytest.raises(ValueError, match=r"without the previous layer layer1.0"):
        prepare(prepared, "layer3.0", "layer1.0")
    with pytest.raises(ValueError, match=r"takes images \[B,3,H,W\]"):
        prepared(torch.rand(1, 4, 96, 96))
    with pytest.raises(ValueError, match="precision must be one of float32, tf32, bfloat16, float16, not double"):
        prepared.in_precision("double")
    assert not any(parameter.requires_grad for parameter in prepared.parameters())
    assert not prepared.train().training


def test_copies_and_pickles_draw_the_same():
    """Also once it has run: the weights as oneDNN lays them out can be neither copied nor pickled."""
    prepared = prepare(load_network("demo"), "layer3.0")
    images = torch.rand(2, 3, 96, 96)

    def gradient(network):
        leaf = images.clone().requires_grad_()
        network(leaf)[0].square().sum().backward()
        return leaf.grad

    right = gradient(prepared)
    for other in (copy.deepcopy(prepared), pickle.loads(pickle.dumps(prepared))):
        assert torch.equal(gradient(other), right)


def test_a_wrong_layer_costs_one_line():
    network = load_network("demo")
    with pytest.raises(ValueError, match="there is no layer 'layer9'"):
        prepare(network, "layer9")
    with pytest.raises(ValueError, match="has not run when"):
        prepare(network, "layer2.0", "layer3.0")


@pytest.mark.parametrize(("precision", "tolerance"), [("bfloat16", 0.05), ("float16", 0.01)])
def test_low_precision_is_the_network_s_alone(precision, tolerance):
    network = load_network("demo")
    prepared = prepare(network, "layer4.0")
    low = prepared.in_precision(precision)
    assert low.in_precision(precision) is low
    images = torch.rand(2, 3, 96, 96, requires_grad=True)
    right = answers(network, "layer4.0", None, images)[0]
    target, previous, _ = low(images)
    assert target.dtype == previous.dtype == torch.float32
    assert {part.weight.dtype for part in low.modules() if isinstance(part, nn.Conv2d)} == {getattr(torch, precision)}
    assert 1e-5 < relative(target.detach(), right) < tolerance
    (2 * target).mean().backward()
    assert images.grad.dtype == torch.float32
    leaf = images.detach().clone().requires_grad_()
    (2 * prepared(leaf)[0]).mean().backward()
    assert relative(images.grad, leaf.grad) < 10 * tolerance
    # the float32 network has stayed as it was
    assert {parameter.dtype for parameter in prepared.parameters()} == {torch.float32}


@pytest.mark.slow
def test_compiled_answers_as_before():
    network = load_network("demo")
    prepared = prepare(network, "layer3.0")
    images = torch.rand(2, 3, 96, 96)
    right = prepared(images)
    compiled = copy.deepcopy(prepared).compile()
    assert compiled.compiled
    for answer, expected in zip(compiled(images)[:2], right[:2], strict=True):
        assert relative(answer, expected) < 1e-4


def test_no_hooks_are_left_behind():
    network = load_network("demo")
    assert isinstance(prepare(network, "layer3.0"), PreparedNetwork)
    assert all(not part._forward_hooks and not part._forward_pre_hooks for part in network.modules())


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e8])
def test_float16_gradients_neither_vanish_nor_overflow_whatever_their_size(size):
    """A factor for each picture, a power of two that is taken off again at the entrance."""
    prepared = prepare(load_network("demo"), "layer2.0")
    low = prepared.in_precision("float16")
    images = torch.rand(2, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    each = torch.tensor([1.0, 1e-4])  # two pictures of unlike strength
    gradients = []
    for one in (prepared, low):
        x = images.clone().requires_grad_()
        a, previous, _ = one(x)
        loss = size * each * (a.flatten(1).sum(dim=1) + previous.flatten(1).square().sum(dim=1))
        [gradient] = torch.autograd.grad(loss.sum(), x)
        gradients.append(gradient)
    right, rounded = gradients
    for picture in range(2):
        assert rounded[picture].isfinite().all()
        assert (right[picture] - rounded[picture]).norm() < 0.02 * right[picture].norm()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_weight_map_and_gradient_lies_channels_last(channels, precision):
    """A strided 1x1 convolution among them: its weights are contiguous either way, and one gradient laid out otherwise
    makes every sum and ReLU behind it mix both."""
    body = nn.Sequential(
        nn.Conv2d(channels, 32, 3, 2, 1), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 16, 1, 2), nn.ReLU(),
        nn.Conv2d(16, 16, 3, 1, 1, groups=16), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(), nn.Conv2d(32, 16, 1),
    )  # fmt: skip
    prepared = prepare(network_of(body, channels), "9").in_precision(precision)
    prepared = pickle.loads(pickle.dumps(copy.deepcopy(prepared)))
    assert prepared.traced
    for weight in prepared.body.parameters():
        if weight.ndim == 4:
            assert weight.stride() == torch.empty(weight.shape, memory_format=torch.channels_last).stride()
    seen, otherwise = set(), set()

    def look(what, tensor):
        seen.add(what)
        if not tensor.is_contiguous(memory_format=torch.channels_last):
            otherwise.add(what)

    def follow(name, answer):
        look(f"map {name}", answer)
        answer.register_hook(lambda gradient: look(f"gradient {name}", gradient))

    for name, module in prepared.body.named_modules():
        if isinstance(module, nn.Conv2d | nn.ReLU):
            module.register_forward_hook(lambda _, __, answer, name=name: follow(name, answer))
    target = prepared(torch.rand(2, channels, 32, 32, requires_grad=True)).target
    target.backward(torch.rand(target.shape).to(memory_format=torch.channels_last))
    assert len(seen) == 18
    assert otherwise == set()

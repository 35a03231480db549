"""What a tape promises: the target as a whole pass would give it, nothing run past it, nothing left behind."""

import ctypes
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile
from torchvision import models

from mindseye.networks.network import Network
from mindseye.networks.recording import record


def network_of(body: nn.Module) -> Network:
    return Network(body, mean=[0.4, 0.5, 0.6], std=[0.2, 0.25, 0.3], name="test", size=32)


def images(side: int = 32, count: int = 2) -> Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(3))


def hooks_on(network: nn.Module) -> int:
    return sum(
        len(held)
        for module in network.modules()
        for held in (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks)
    )


class Bomb(nn.Module):
    def forward(self, maps: Tensor) -> Tensor:
        raise AssertionError("computed past the target")


class Counter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.passes = 0

    def forward(self, maps: Tensor) -> Tensor:
        self.passes += 1
        return maps


class Repeating(nn.Module):
    """One convolution and one activation called `times` times: like torchvision's relu, or a recurrent network."""

    def __init__(self, times: int = 3) -> None:
        super().__init__()
        self.times = times
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.after = Counter()

    def forward(self, maps: Tensor) -> Tensor:
        for _ in range(self.times):
            maps = self.relu(self.conv(maps))
        return self.after(maps)


class SizeDependent(Repeating):
    """As many calls as the image has blocks of 8 pixels, decided by values, which no tracing can follow."""

    def forward(self, maps: Tensor) -> Tensor:
        for _ in range(int(maps[0, 0].numel() ** 0.5) // 8):
            maps = self.relu(self.conv(maps))
        return self.after(maps)


class Functional(nn.Module):
    """Writes into its layers' outputs by functions, which no look at the modules could tell."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3)
        self.conv2 = nn.Conv2d(4, 5, 3)

    def forward(self, maps: Tensor) -> Tensor:
        maps = self.conv1(maps)
        maps = F.relu_(maps)
        maps += 1
        return self.conv2(maps)


# ---- the activation ---------------------------------------------------------------------------------------------

ARCHITECTURES: list[tuple[str, int, list[str]]] = [
    ("resnet18", 64, ["layer3.1.conv1", "layer3.1.relu", "relu", "layer2.0.bn2", "layer4"]),
    ("densenet121", 64, ["features.denseblock2.denselayer3", "features.transition1.conv", "features.norm5"]),
    ("googlenet", 64, ["inception3a.branch2.0.bn", "inception4a"]),
    ("inception_v3", 96, ["Mixed_6a", "Mixed_5c.branch5x5_2"]),
    ("mobilenet_v2", 64, ["features.10.conv.0.0", "features.10"]),
    ("squeezenet1_1", 64, ["features.7.squeeze", "features.12"]),
    ("vgg11", 64, ["features.8", "features.9"]),
    ("regnet_y_400mf", 64, ["trunk_output.block2", "trunk_output.block3.block3-0.f.a.1"]),
    ("efficientnet_b0", 64, ["features.3.0.block.1.1", "features.4"]),
    ("convnext_tiny", 64, ["features.3.1"]),
    ("vit_b_32", 224, ["conv_proj", "encoder.layers.encoder_layer_1"]),
]


@pytest.mark.parametrize(("name", "side", "layers"), ARCHITECTURES, ids=[row[0] for row in ARCHITECTURES])
def test_target_is_the_whole_passes_activation(name: str, side: int, layers: list[str]) -> None:
    torch.manual_seed(0)
    arguments = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    network = network_of(models.get_model(name, weights=None, **arguments))
    photographs = images(side)
    for layer in layers:
        seen: list[Tensor] = []
        handle = network.body.get_submodule(layer).register_forward_hook(
            lambda module, entering, output, seen=seen: seen.append(output.clone())
        )
        with torch.no_grad():
            network(photographs)
        handle.remove()
        drawn = photographs.clone().requires_grad_()
        with record(network, layer) as tape:
            target = tape(drawn)
        assert target is tape.target
        # attention takes another road where no gradient is wanted, and rounds differently
        assert torch.allclose(target, seen[-1], atol=1e-4 if name == "vit_b_32" else 0, rtol=0)
        assert tape.previous is not None
        assert tape.previous.ndim == target.ndim or name == "vit_b_32"
        (gradient,) = torch.autograd.grad(target.square().sum() + tape.previous.abs().sum(), drawn)
        assert gradient.isfinite().all()
        assert gradient.flatten(1).abs().amax(1).min() > 0
    assert hooks_on(network) == 0


@settings(max_examples=25, deadline=None)
@given(
    kinds=st.lists(st.sampled_from(["conv", "relu", "norm", "hardtanh"]), min_size=2, max_size=6),
    data=st.data(),
)
def test_any_layer_of_any_chain(kinds: list[str], data: st.DataObject) -> None:
    """Target and previous are the chain's own first parts, although the activations write into their input."""
    torch.manual_seed(len(kinds))
    build: dict[str, Callable[[], nn.Module]] = {
        "conv": lambda: nn.Conv2d(3, 3, 3, padding=1),
        "relu": lambda: nn.ReLU(inplace=True),
        "norm": lambda: nn.InstanceNorm2d(3),
        "hardtanh": lambda: nn.Hardtanh(-0.2, 0.3, inplace=True),
    }
    # torch itself refuses gradients through two writers in a row
    assume(not any({one, two} <= {"relu", "hardtanh"} for one, two in pairwise(kinds)))
    network = network_of(nn.Sequential(*(build[kind]() for kind in kinds)))
    target = data.draw(st.integers(0, len(kinds) - 1), label="target")
    previous = data.draw(st.integers(0, target - 1) | st.none(), label="previous") if target else None
    x = images(8).requires_grad_()
    states = [(x - network.mean) / network.std]
    for part in network.body:
        states.append(part(states[-1].clone()))
    expected = states[target] if previous is None else states[previous + 1]
    with record(network, str(target), None if previous is None else str(previous)) as tape:
        tape(x)
    assert torch.equal(tape.target, states[target + 1])
    assert torch.equal(tape.previous, expected)
    weights = torch.randn_like(states[0])

    def slope(first: Tensor, second: Tensor) -> Tensor:
        return torch.autograd.grad((first * weights).sum() + (second.abs() * weights).sum(), x, retain_graph=True)[0]

    assert torch.allclose(slope(tape.target, tape.previous), slope(states[target + 1], expected), atol=1e-6)


# ---- nothing past the target, nothing left behind ---------------------------------------------------------------


def test_nothing_after_the_target_is_computed() -> None:
    network = network_of(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), Bomb()))
    with record(network, "1") as tape:
        assert tape(images()).shape == (2, 4, 30, 30)
        assert tape(images()).min() >= 0
    network = network_of(Repeating())
    with record(network, "relu") as tape:
        tape(images())
    assert network.body.after.passes == 0


def test_hooks_are_gone_after_success_and_after_exceptions() -> None:
    network = network_of(nn.Sequential(nn.Conv2d(3, 4, 3), Bomb(), nn.ReLU()))
    with record(network, "0", None) as tape:
        assert hooks_on(network) == 0
        tape(images())
        assert hooks_on(network) == 0
    with record(network, "2", "0") as tape, pytest.raises(RuntimeError, match="past the target"):
        tape(images())
    assert hooks_on(network) == 0
    with pytest.raises(KeyError), record(network, "0") as tape:
        {}[tape(images())]  # the pass succeeds, the with-block does not
    assert hooks_on(network) == 0
    with record(network, "0") as tape, pytest.raises(ValueError, match=r"takes images \[B,3,H,W\]"):
        tape(torch.rand(2, 1, 32, 32))
    assert hooks_on(network) == 0


def test_the_users_own_hooks_stay_and_count() -> None:
    network = network_of(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()))
    network.body[0].register_forward_hook(lambda module, entering, output: output * 0 + 7)
    with record(network, "0") as tape:
        assert (tape(images()) == 7).all()
    assert hooks_on(network) == 1


def test_tapes_side_by_side_and_one_inside_the_other() -> None:
    network = network_of(Repeating())
    with record(network, "relu") as outer, record(network, "conv@0") as inner:
        late, early = outer(images()), inner(images())
        assert torch.equal(outer(images()), late)
        with record(network, "relu@1", "relu@0") as between:
            between(images())
    x = (images() - network.mean) / network.std
    conv = network.body.conv
    assert torch.equal(early, conv(x))
    assert torch.equal(between.previous, conv(x).relu())
    assert torch.equal(between.target, conv(conv(x).relu()).relu())
    assert torch.equal(late, conv(conv(conv(x).relu()).relu()).relu())


def test_a_closed_tape_keeps_its_tensors_and_runs_no_more() -> None:
    network = network_of(Repeating())
    with record(network, "conv") as tape:
        target = tape(images())
    assert tape.target is target
    with pytest.raises(ValueError, match="closed"):
        tape(images())


# ---- calls ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("build", [Repeating, SizeDependent], ids=["traceable", "untraceable"])
def test_the_last_call_is_meant_and_at_picks_another(build: type[Repeating]) -> None:
    network = network_of(build())
    x = images(24)
    states = [(x - network.mean) / network.std]
    for _ in range(3):
        states.append(network.body.conv(states[-1]).relu())
    for layer, call in (("relu", 2), ("relu@2", 2), ("relu@0", 0), ("relu@1", 1)):
        with record(network, layer) as tape:
            assert torch.equal(tape(x), states[call + 1])
            assert torch.equal(tape.previous, network.body.conv(states[call]))
    with record(network, "relu@3") as tape, pytest.raises(ValueError, match=r"called 3 times.*the last is relu@2"):
        tape(x)


def test_a_number_of_calls_that_changes_with_the_images() -> None:
    network = network_of(SizeDependent())
    with record(network, "relu") as tape:
        for side in (32, 16, 16):
            x = images(side)
            assert torch.equal(tape(x), network(x))


def test_a_network_whose_end_refuses_the_image() -> None:
    """A small image may be too small for what comes after the target, whether or not the network can be traced."""

    class Picky(SizeDependent):
        def forward(self, maps: Tensor) -> Tensor:
            if float(maps.sum()) > 1e9:
                return maps
            return F.conv2d(self.relu(self.conv(maps)), torch.ones(1, 3, 99, 99))

    with record(network_of(Picky()), "relu") as tape:
        assert tape(images(8)).shape == (2, 3, 8, 8)


def test_one_module_under_two_names() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU())
            self.second = nn.Sequential(nn.Conv2d(3, 3, 1), self.first[1])

        def forward(self, maps: Tensor) -> Tensor:
            return self.second(self.first(maps))

    network = network_of(Shared())
    whole = network(images())
    with record(network, "first.1") as one, record(network, "second.1") as other, record(network, "first.1@0") as early:
        assert torch.equal(one(images()), whole)
        assert torch.equal(other(images()), whole)
        assert torch.equal(early(images()), network.body.first((images() - network.mean) / network.std))


# ---- the previous layer -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_previous_holds_its_values_from_before_they_are_written_over(mode: type) -> None:
    network = network_of(Functional())
    with mode():
        x = (images() - network.mean) / network.std
        before = network.body.conv1(x)
        with record(network, "conv2", "conv1") as named, record(network, "conv2") as entering:
            for _ in range(2):
                named(images())
                entering(images())
                assert torch.equal(named.previous, before)
                assert torch.equal(entering.previous, before.relu() + 1)
                assert torch.equal(named.target, network.body.conv2(before.relu() + 1))


def test_an_in_place_first_module_leaves_the_image_alone() -> None:
    network = Network(nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(3, 2, 1)), [0.0] * 3, [1.0] * 3, "test")
    x = images().requires_grad_()
    with record(network, "0") as tape:
        tape(x).sum().backward()
        assert torch.equal(tape.previous, x)
    assert torch.equal(x, images())
    assert torch.equal(x.grad, (x > 0).float())


def test_a_list_of_maps_is_joined_along_its_channels() -> None:
    network = network_of(models.densenet121(weights=None))
    with record(network, "features.denseblock1.denselayer3") as tape:
        tape(images(64))
    with record(network, "features.denseblock1.denselayer3.norm1") as norm:
        norm(images(64))
    assert torch.equal(tape.previous, norm.previous)


@pytest.mark.parametrize(
    ("layer", "previous", "message"),
    [
        ("conv1", "conv2", "'conv2' has not run when 'conv1' is reached"),
        ("conv1", "conv1", "'conv1' has not run"),
        ("conv3", None, "there is no layer 'conv3'; the nearest names are conv2, conv1"),
        ("conv2", "cnv1", "there is no layer 'cnv1'; the nearest names are conv1"),
    ],
)
def test_wrong_names_say_what_would_be_right(layer: str, previous: str | None, message: str) -> None:
    network = network_of(Functional())
    with pytest.raises(ValueError, match=message), record(network, layer, previous) as tape:
        tape(images())
    assert hooks_on(network) == 0


def test_layers_that_give_no_tensor_or_take_no_part() -> None:
    class Pair(nn.Module):
        def forward(self, maps: Tensor) -> tuple[Tensor, Tensor]:
            return maps, maps

    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pair, self.unused, self.conv = Pair(), nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)

        def forward(self, maps: Tensor) -> Tensor:
            return self.conv(self.pair(maps)[0])

    network = network_of(Odd())
    for layer, previous, message in (
        ("pair", None, "'pair' gives a tuple, not one tensor"),
        ("conv", "pair", "previous layer 'pair' gives no single tensor"),
        ("unused", None, "'unused' takes no part"),
    ):
        with pytest.raises(ValueError, match=message), record(network, layer, previous) as tape:
            tape(images())


# ---- surroundings -----------------------------------------------------------------------------------------------


def test_autocast_memory_format_and_modes() -> None:
    network = network_of(models.resnet18(weights=None))
    with record(network, "layer2.0.conv2") as tape:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert tape(images().requires_grad_()).dtype == torch.bfloat16
        assert tape.target.requires_grad
        with torch.no_grad():
            assert not tape(images()).requires_grad
        with torch.inference_mode():
            assert tape(images()).is_inference()
        plain = tape(images())
        network.to(memory_format=torch.channels_last)
        assert tape(images().contiguous(memory_format=torch.channels_last)).is_contiguous(
            memory_format=torch.channels_last
        )
        assert torch.allclose(tape.target, plain, atol=1e-4)


# ---- what a pass writes into the network's own tensors, and what it does not ----------------------------------------


class Writes(nn.Module):
    """A convolution, a norm and a convolution; before these, in the passes that `when` names, a write."""

    def __init__(self, write: Callable[["Writes"], object], when: Callable[[int, Tensor], bool]) -> None:
        super().__init__()
        self.first, self.norm, self.second = nn.Conv2d(3, 6, 3, 2), nn.BatchNorm2d(6), nn.Conv2d(6, 4, 3)
        written: list[bool] = []  # of each pass; what stands on the module itself would be taken off again

        def forward(maps: Tensor) -> Tensor:
            written.append(when(len(written), maps))
            if written[-1]:
                write(self)
            return self.second(self.norm(self.first(maps)))

        self.forward = forward
        self.written = lambda: list(written)
        self.eval().requires_grad_(False)


def trains_the_norm(body: Writes) -> None:
    body.norm.train()(torch.arange(48.0).reshape(2, 6, 2, 2))
    body.norm.eval()


def replaces_the_data(body: Writes) -> None:
    body.second.weight.data = body.second.weight.data * 1.5


def replaces_the_parameter(body: Writes) -> None:
    body.second.weight = nn.Parameter(body.second.weight.detach() * 1.5)


WRITES: dict[str, Callable[[Writes], object]] = {
    "in place": lambda body: body.second.weight.mul_(1.5),
    "through data": lambda body: body.second.weight.data.mul_(1.5),
    "through numpy": lambda body: np.negative(body.second.weight.numpy(), out=body.second.weight.numpy()),
    "through dlpack": lambda body: torch.from_dlpack(body.second.weight.detach()).mul_(1.5),
    "through its storage": lambda body: body.second.weight.untyped_storage().fill_(0),
    "through its address": lambda body: ctypes.memset(body.second.weight.data_ptr(), 0, 64),
    "many at once": lambda body: torch._foreach_mul_([body.second.weight.data], 1.5),
    "batch statistics": trains_the_norm,
    "other data": replaces_the_data,
    "another parameter": replaces_the_parameter,
}
WHEN: dict[str, Callable[[int, Tensor], bool]] = {
    "each pass": lambda earlier, maps: True,
    "the fourth": lambda earlier, maps: earlier == 3,
    "one image": lambda earlier, maps: len(maps) == 1,
    "no gradient": lambda earlier, maps: not torch.is_grad_enabled(),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
@pytest.mark.parametrize("when", WHEN.values(), ids=WHEN)
@pytest.mark.parametrize("allocated", [True, False], ids=["by torch", "by numpy"])
def test_what_any_pass_writes_is_taken_off_again(write, when, allocated: bool) -> None:
    body = Writes(write, when)
    if not allocated:
        body.second.weight = nn.Parameter(torch.from_numpy(body.second.weight.numpy().copy()), requires_grad=False)
    before = {name: tensor.clone() for name, tensor in body.state_dict().items()}
    weight, network, answers = body.second.weight, network_of(body), []
    with record(network, "second@0") as tape:
        for count, gradient in ((2, True), (2, True), (1, True), (2, True), (2, False), (2, True)):
            with torch.set_grad_enabled(gradient):
                answers.append(tape(images(count=count).requires_grad_())[0].detach())
            assert body.second.weight is weight
            assert all(torch.equal(tensor, before[name]) for name, tensor in body.state_dict().items())
    for first, wrote in zip(answers, body.written(), strict=True):
        for second, as_well in zip(answers, body.written(), strict=True):
            assert torch.allclose(first, second, atol=1e-6) == (wrote == as_well)


def most_allocated(step: Callable[[], object]) -> int:
    """Bytes that the operation of a step that takes most of them takes."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        step()
    return max(event.self_cpu_memory_usage for event in profiled.events())


@pytest.mark.parametrize("kind", [models.resnet18, models.vit_b_32, models.densenet121])
def test_an_ordinary_network_is_not_copied(kind: Callable[[], nn.Module]) -> None:
    """Nor is its largest layer alone: no operation takes half as much memory, the images being small."""
    network = network_of(kind(weights=None).eval().requires_grad_(False))
    weights = [*network.body.parameters()]
    side = 224 if kind is models.vit_b_32 else 32
    layer = [path for path, part in network.body.named_modules() if isinstance(part, nn.Conv2d | nn.LayerNorm)][-1]
    addresses = [weight.data_ptr() for weight in weights]
    pixels = images(side, 1).requires_grad_()
    with record(network, layer) as tape:
        assert most_allocated(lambda: tape(pixels).sum().backward()) < max(weight.nbytes for weight in weights) / 2
    assert pixels.grad is not None
    assert [weight.data_ptr() for weight in weights] == addresses  # those of whoever looks at them through NumPy stay


def test_an_assertion_in_an_owner_s_forward_is_told_in_one_line():
    class Particular(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x):
            assert x.shape[-1] == 50, "of 50 pixels a side"
            return self.conv(x)

    network = Network(Particular(), [0.5] * 3, [0.5] * 3, "test")
    with record(network, "conv") as tape, pytest.raises(RuntimeError, match="of 50 pixels a side") as caught:
        tape(torch.rand(1, 3, 32, 32))
    assert "\n" not in str(caught.value)
    assert "the forward of" in str(caught.value)

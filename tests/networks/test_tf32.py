"""A GPU's TF32, which none of these tests has: convolutions that round to 10 bits as cuDNN's do where it is allowed."""

import pytest
import torch
from torch.overrides import TorchFunctionMode

from mindseye.facets import discover_facets, load_photographs
from mindseye.networks import demo_network, record
from mindseye.networks.merging import merge
from mindseye.networks.preparing import TOLERANCE, prepare
from mindseye.networks.tf32 import tf32
from mindseye.results.judges import transfer, transfer_reference
from mindseye.settings import Facets, Running
from mindseye.visualizer.fitting import fit
from mindseye.visualizer.method import Method
from mindseye.visualizer.objective import Objective

CONVOLUTIONS = getattr(torch.backends.cudnn, "conv", torch.backends.cudnn)


def is_allowed():
    return getattr(CONVOLUTIONS, "fp32_precision", None) == "tf32" or getattr(CONVOLUTIONS, "allow_tf32", None) is True


def settings():
    places = (torch.backends.cuda.matmul, CONVOLUTIONS)
    return [getattr(place, "fp32_precision", None) or place.allow_tf32 for place in places]


def rounded(values):
    """To 10 bits of mantissa, the nearest, ties to even."""
    bits = values.detach().contiguous().view(torch.int32)
    bits = (bits + 0xFFF + ((bits >> 13) & 1)) & ~0x1FFF
    return bits.view(torch.float32).requires_grad_(values.requires_grad)


class Ampere(TorchFunctionMode):
    """Convolutions as cuDNN's: arguments rounded where TF32 is allowed, sums in float32.

    asked: whether it was allowed, for each convolution of several images; those of one ask for a shape or an order.
    """

    def __init__(self):
        super().__init__()
        self.asked = []

    def __torch_function__(self, function, types, arguments=(), named=None):
        if getattr(function, "__name__", "") == "conv2d":
            if len(arguments[0]) > 1 and arguments[0].device.type != "meta":
                self.asked.append(is_allowed())
            if is_allowed():
                arguments = (rounded(arguments[0]), rounded(arguments[1]), *arguments[2:])
        return function(*arguments, **(named or {}))


@pytest.fixture(autouse=True)
def as_torch_has_it():
    """A process of a user's: cuDNN's convolutions in TF32, and products too."""
    before, convolutions = torch.get_float32_matmul_precision(), settings()[1]
    torch.set_float32_matmul_precision("high")
    assert is_allowed()
    yield
    torch.set_float32_matmul_precision(before)
    assert settings()[1] == convolutions


@pytest.fixture
def ampere():
    with Ampere() as mode:
        yield mode


def relative(a, b):
    return float((a - b).norm() / b.norm())


def test_rounding_is_to_ten_bits():
    x = torch.tensor([1 + 2.0**-10, 1 + 2.0**-11, 1 + 3 * 2.0**-11, 1 - 2.0**-13, -3.0])
    assert rounded(x).tolist() == [1 + 2.0**-10, 1, 1 + 2 * 2.0**-10, 1, -3.0]


@pytest.mark.parametrize("allowed", [False, True])
def test_settings_hold_inside_and_are_put_back(allowed):
    before = settings()
    with tf32(allowed):
        assert settings()[0] in ("ieee", False)
        assert is_allowed() == allowed
    assert settings() == before
    with pytest.raises(RuntimeError), tf32(allowed):
        raise RuntimeError
    assert settings() == before
    assert torch.get_float32_matmul_precision() == "high"


def test_a_folded_network_is_a_program_where_convolutions_are_in_tf32(ampere):
    network = demo_network()
    images = torch.rand(2, 3, network.size, network.size)
    prepared = prepare(network, "layer3.0")
    assert prepared.traced
    assert prepared.folded > 0
    assert merge([prepared, prepare(network, "layer2.0")], network.size).layers == ("layer3.0", "layer2.0")
    with torch.no_grad(), record(network, "layer3.0") as tape:
        rough = tape(images)  # the network by itself, as torch is set: the comparison would have failed
        with tf32(False):
            right = tape(images)
        assert relative(rough, right) > TOLERANCE
        assert relative(prepared(images).target, right) < TOLERANCE


def test_tf32_is_a_precision(ampere):
    prepared = prepare(demo_network(), "layer3.0")
    images = torch.rand(2, 3, 64, 64)
    quick = prepared.in_precision("tf32")
    assert TOLERANCE < relative(quick(images).target, prepared(images).target) < 1e-2
    with pytest.raises(ValueError, match="in tf32 already"):
        quick.in_precision("bfloat16")


@pytest.fixture(scope="module")
def targets(tmp_path_factory):
    from mindseye.demo.photographs import write_photographs

    folder = tmp_path_factory.mktemp("photographs")
    write_photographs(folder, "padlock", 8, seed=3)
    network = demo_network()
    photographs = load_photographs(folder, size=32)
    return network, photographs, discover_facets(network, photographs, "layer2.0", Facets(C=2, k=4, N=2))


@pytest.mark.parametrize("precision", ["float32", "tf32"])
def test_a_fit_goes_forward_and_back_in_its_precision(targets, precision):
    network, _, found = targets
    forth, back = [], []

    class Watched(Objective):
        def __call__(self, seen):
            forth.append(is_allowed())
            seen.activation.register_hook(lambda _: back.append(is_allowed()))
            return super().__call__(seen)

    fit(network, found, Method(steps=2, precision=precision, objective=Watched()), Running(accelerator="cpu"))
    assert len(forth) == 2
    assert len(back) >= 2  # the first step looks back once more
    assert {*forth, *back} == {precision == "tf32"}


def test_discovery_and_judges_look_in_full_float32(targets, ampere):
    network, photographs, found = targets
    ampere.asked.clear()
    discover_facets(network, photographs, "layer2.0", Facets(C=2, k=4, N=2))
    reference = transfer_reference(network, "layer3.0", found, photographs)
    transfer(found.initial, reference)
    assert ampere.asked
    assert not any(ampere.asked)

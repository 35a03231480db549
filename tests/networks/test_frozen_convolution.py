"""A frozen convolution is a convolution: its answers and its input's gradient are those of nn.Conv2d."""

import copy
import io
import itertools

import pytest
import torch
from torch import nn

from mindseye.networks.frozen_convolution import FrozenConv2d

SHAPES = [
    (kernel, stride, padding, channels)
    for kernel, stride, padding, channels in itertools.product(
        [1, 2, 3, 4, 7, (1, 7)], [1, 2, 3, 4, (2, 1)], [0, 1, 3, (0, 2)], [3, 18]
    )
]


def both(convolution, images):
    """(answer, input's gradient) of a convolution for a weighted sum of its answer."""
    images = images.clone().requires_grad_()
    answer = convolution(images)
    weights = torch.randn(answer.shape, generator=torch.Generator().manual_seed(1)).to(answer.dtype)
    (answer * weights).sum().backward()
    return answer.detach(), images.grad


def relative(a, b):
    return float((a.double() - b.double()).norm() / b.double().norm())


@pytest.mark.parametrize("size", [(17, 20), (16, 16), (11, 13)])
def test_every_shape_answers_and_returns_gradients_as_the_plain_one(size):
    torch.manual_seed(0)
    worst = {}
    for kernel, stride, padding, channels in SHAPES:
        plain = nn.Conv2d(channels, 6, kernel, stride, padding, bias=channels == 3)
        frozen = FrozenConv2d.of(plain)
        images = torch.randn(2, channels, *size)
        pairs = zip(both(frozen, images), both(plain, images), strict=True)
        worst[kernel, stride, padding, channels] = [relative(a, b) for a, b in pairs]
    assert all(error < 1e-5 for errors in worst.values() for error in errors), worst  # NaN is not


def test_dilated_and_of_a_layout_with_channels_first():
    torch.manual_seed(0)
    plain = nn.Conv2d(5, 6, 3, padding=2, dilation=2)
    for images in (torch.randn(2, 5, 12, 12), torch.randn(2, 5, 12, 12).to(memory_format=torch.channels_last)):
        for a, b in zip(both(FrozenConv2d.of(plain), images), both(plain, images), strict=True):
            assert relative(a, b) < 1e-5


def test_another_size_and_batch_than_the_first():
    """The layout is chosen at the first call."""
    torch.manual_seed(0)
    plain = nn.Conv2d(3, 6, 7, 2, 3)
    frozen = FrozenConv2d.of(plain)
    for shape in ((2, 3, 32, 32), (4, 3, 33, 47), (1, 3, 9, 8)):
        images = torch.randn(shape)
        for a, b in zip(both(frozen, images), both(plain, images), strict=True):
            assert relative(a, b) < 1e-5


def test_what_does_not_suit():
    for other in (
        nn.Conv2d(4, 4, 3, groups=2),
        nn.Conv2d(4, 4, 3, padding="same"),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
        nn.ConvTranspose2d(4, 4, 3),
        FrozenConv2d(4, 4, 3),
    ):
        assert not FrozenConv2d.suits(other)


def test_copies_files_and_other_precisions_follow_the_weights():
    torch.manual_seed(0)
    frozen = FrozenConv2d.of(nn.Conv2d(3, 6, 3, 1, 1))
    images = torch.randn(2, 3, 8, 8)
    first = both(frozen, images)
    file = io.BytesIO()
    torch.save(frozen, file)
    file.seek(0)
    for other in (copy.deepcopy(frozen), torch.load(file, weights_only=False)):
        assert all(torch.equal(a, b) for a, b in zip(both(other, images), first, strict=True))
        assert list(other.state_dict()) == ["weight", "bias"]
    double = copy.deepcopy(frozen).double()
    for a, b in zip(both(double, images.double()), first, strict=True):
        assert relative(b, a) < 1e-5
    low = copy.deepcopy(frozen).to(torch.bfloat16)
    answer, gradient = both(low, images)
    assert (answer.dtype, gradient.dtype) == (torch.bfloat16, torch.float32)
    assert relative(answer, first[0]) < 0.02
    assert relative(gradient, first[1]) < 0.02


def test_nothing_is_kept_of_what_enters():
    """Its weights have no gradient, for which alone the images would be needed."""
    frozen = FrozenConv2d.of(nn.Conv2d(3, 6, 3, 1, 1))
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        frozen(torch.randn(2, 3, 8, 8, requires_grad=True))
    assert kept == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_what_torch_computes_is_the_same_to_the_bit_and_lies_as_what_it_was_given(layout, dtype):
    """Strides that are not turned into a convolution: 1x1 shortcuts are the common ones."""
    torch.manual_seed(0)
    for kernel, stride, side in itertools.product([1, 2, 3, 5], [2, 3], [7, 16]):
        plain = nn.Conv2d(32, 48, kernel, stride, padding=kernel // 2)
        plain.weight.data = torch.empty_like(plain.weight, memory_format=layout).copy_(plain.weight.detach())
        frozen = FrozenConv2d.of(plain).to(dtype)
        size = torch.Size((2, 32, side, side))
        given = torch.randn(frozen(torch.randn(size, dtype=dtype)).shape).to(dtype, memory_format=layout)
        gradient = frozen.input_gradient(given, size)
        assert gradient.is_contiguous(memory_format=layout), (kernel, stride, side)
        own = torch.nn.grad.conv2d_input(size, frozen.weight, given, frozen.stride, frozen.padding)
        assert torch.equal(gradient, own), (kernel, stride, side)

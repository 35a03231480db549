from dataclasses import replace

import pytest
import torch

from mindseye.facets import FacetTargets
from mindseye.facets.way_statistics import (
    IMAGE,
    QUANTILES,
    colour_quantiles,
    joined,
    moments,
    of_photographs,
    quantiles,
    quantiles_of,
)
from mindseye.networks.preparing import prepare
from mindseye.visualizer.fitting import prepare_for
from mindseye.visualizer.matching import Matching
from mindseye.visualizer.method import Method
from mindseye.visualizer.objective import Objective


def maps(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_moments_are_mean_and_deviation_whatever_the_layout(layout):
    x = maps(3, 5, 6, 7).contiguous(memory_format=layout) + 2
    mean, std = moments(x)
    assert torch.allclose(mean, x.mean(dim=(2, 3)), atol=1e-6)
    assert torch.allclose(std, x.flatten(2).std(dim=2, correction=0), atol=1e-5)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_moments_have_the_right_gradient(layout):
    x = maps(2, 3, 4, 4).double().contiguous(memory_format=layout).requires_grad_()
    assert torch.autograd.gradcheck(moments, (x,))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_deviation_beside_a_large_mean_is_no_difference_of_large_numbers(layout, dtype):
    x = (maps(2, 8, 56, 56) / 4 + 100).to(dtype).contiguous(memory_format=layout)
    std = moments(x)[1]
    assert torch.allclose(std, x.double().flatten(2).std(dim=2, correction=0).float(), rtol=1e-3)


def test_one_position_is_its_mean_and_has_no_deviation():
    mean, std = moments(maps(2, 3, 1, 1))
    assert torch.equal(mean, maps(2, 3, 1, 1).flatten(1))
    assert std.max() <= 1e-6


def test_a_silent_channel_has_no_gradient_and_no_nan():
    x = torch.zeros(1, 2, 3, 3, requires_grad=True)
    mean, std = moments(x)
    (std.sum() + mean.square().sum()).backward()
    assert torch.equal(x.grad, torch.zeros_like(x))


def test_half_precision_is_summed_in_float32():
    x = (maps(1, 2, 64, 64) + 100).bfloat16()
    mean, _ = moments(x)
    assert mean.dtype == torch.float32
    assert torch.allclose(mean, x.float().mean(dim=(2, 3)), rtol=1e-6)


@pytest.mark.parametrize("of", [quantiles, colour_quantiles])
def test_quantiles_of_a_ramp_are_the_ramp(of):
    """The values 0…63 of 64 equal shares are themselves, of 4 shares the means of their sixteens, in any order."""
    ramp = torch.arange(64.0)[torch.randperm(64, generator=torch.Generator().manual_seed(1))].reshape(1, 1, 8, 8)
    assert of(ramp, 64).flatten().tolist() == list(range(64))
    assert of(ramp, 4).flatten().tolist() == pytest.approx([7.5, 23.5, 39.5, 55.5])


@pytest.mark.parametrize(
    ("values", "count", "means"),
    [
        ([1.0, 6.0, 2.0], 2, [4 / 3, 14 / 3]),  # (1 + ½·2)/1½, (½·2 + 6)/1½
        ([3.0, 0.0, 2.0, 1.0], 3, [0.25, 1.5, 2.75]),  # a third of 1 counts below, two thirds in the middle
        ([5.0, 1.0], 3, [1.0, 3.0, 5.0]),  # fewer values than shares: half of the second is 1, half is 5
        ([1.0, 1.0, 1.0, 9.0], 2, [1.0, 5.0]),
    ],
)
def test_a_value_on_a_border_counts_in_both_shares_by_its_parts(values, count, means):
    assert quantiles(torch.tensor(values).reshape(1, 1, 1, -1), count).flatten().tolist() == pytest.approx(means)


@pytest.mark.parametrize("side", [5, 8, 65, 80])
def test_every_position_has_a_gradient(side):
    """That of the mean of all means is 1/positions for each, however many there are."""
    x = maps(1, 2, side, side).requires_grad_()
    quantiles(x).mean(dim=2).sum().backward()
    assert torch.allclose(x.grad, torch.full_like(x, 1 / side**2), rtol=1e-4)


@pytest.mark.parametrize("count", [4, 7, 25, 64])
def test_quantiles_have_the_right_gradient(count):
    x = maps(2, 3, 5, 5).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda y: quantiles(y, count), (x,))


def test_samples_of_different_sizes_agree():
    """The same values thrice are the same distribution; two samples of one distribution are nearly."""
    x = maps(1, 2, 7, 9)
    assert torch.allclose(quantiles(torch.cat([x, x, x], dim=3)), quantiles(x), atol=1e-6)
    small, large = (torch.rand(1, 1, n, n, generator=torch.Generator().manual_seed(n)) for n in (40, 111))
    even = (torch.arange(QUANTILES) + 0.5) / QUANTILES
    # The standard error of a median of 40² uniform values is ½/40.
    assert (quantiles(small) - even).abs().max() < 0.05
    assert (quantiles(large) - even).abs().max() < 0.02


def test_quantiles_of_half_precision_are_of_its_values_in_float32():
    x = maps(1, 2, 9, 9).bfloat16().requires_grad_()
    measured = quantiles(x)
    assert torch.equal(measured, quantiles(x.detach().float()))
    measured.sum().backward()
    assert x.grad.dtype == torch.bfloat16


def test_colours_are_read_on_a_lattice_and_layers_everywhere():
    x = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    assert torch.equal(quantiles_of(IMAGE, x), colour_quantiles(x[:, :, ::2, ::2]))
    assert torch.equal(quantiles_of("layer", x), quantiles(x))


def test_quantiles_of_one_position_are_its_value():
    assert quantiles(torch.full((1, 2, 1, 1), 3.0)).tolist() == [[[3.0] * QUANTILES] * 2]


def test_the_spread_between_photographs_counts():
    """Two flat photographs of 1 and 3, weights ¼ and ¾: μ = 2.5, σ² = ¼·1 + ¾·9 − 6.25."""
    flat = torch.stack([torch.full((1, 4, 4), 1.0), torch.full((1, 4, 4), 3.0)])
    statistics = of_photographs("layer", flat, torch.tensor([0.25, 0.75]))
    assert statistics.mean.item() == pytest.approx(2.5)
    assert statistics.std.item() == pytest.approx((0.25 + 0.75 * 9 - 6.25) ** 0.5)
    assert statistics.quantiles.flatten().tolist() == pytest.approx([2.5] * QUANTILES)


def test_one_photograph_is_its_own_statistics():
    x = maps(1, 5, 6, 6)
    statistics = of_photographs("layer", x, torch.ones(1))
    mean, std = moments(x)
    assert torch.allclose(statistics.mean, mean, atol=1e-6)
    assert torch.allclose(statistics.std, std, atol=1e-6)


def test_facets_are_joined_in_order_and_taken_apart_again():
    parts = [of_photographs("layer", maps(2, 3, 4, 4, seed=seed), torch.tensor([0.5, 0.5])) for seed in range(3)]
    together = joined(parts)
    assert together.layer == "layer"
    assert together.mean.shape == (3, 3)
    for c, part in enumerate(parts):
        assert all(
            torch.equal(tensor, part.tensors()[name]) for name, tensor in together.of(slice(c, c + 1)).tensors().items()
        )


def test_targets_keep_them_through_a_file(targets, tmp_path):
    """Saved, hashed and read back; a statistic that is changed is damage."""
    back = FacetTargets.load(targets.save(tmp_path))
    assert [layer.layer for layer in back.way] == [layer.layer for layer in targets.way]
    assert back.way[0].layer == IMAGE
    assert len(back.way) > 2
    for one, other in zip(back.way, targets.way, strict=True):
        assert all(torch.equal(tensor, other.tensors()[name]) for name, tensor in one.tensors().items())
    assert back.content_hash() == targets.content_hash()
    changed = replace(targets, way=(replace(targets.way[0], std=targets.way[0].std + 1), *targets.way[1:]))
    assert changed.content_hash() != targets.content_hash()


def test_the_image_s_statistics_are_those_of_the_photographs_pixels(targets):
    pixels = targets.photographs.double() / 255
    means = torch.einsum("cn,cnx->cx", targets.weights.double(), pixels.mean(dim=(3, 4)))
    assert torch.allclose(targets.way[0].mean.double(), means, atol=1e-6)


def test_what_is_to_be_matched_and_is_not_known_is_said(network, targets):
    without = replace(targets, way=targets.way[:2])
    asked = Method(objective=Objective(matching=Matching(layers=[targets.way[2].layer])))
    with pytest.raises(ValueError, match="do not say how the photographs are answered at"):
        prepare_for(network, without, asked)
    with pytest.raises(ValueError, match="prepare"):
        prepare_for(prepare(network, targets.layer), targets, asked)
    assert prepare_for(network, targets, Method(objective=Objective(matching=Matching(weight=0)))).way == ()
    assert prepare_for(network, targets).way == tuple(layer.layer for layer in targets.way[1:])


@pytest.mark.parametrize("side", [3, 8, 9])
def test_quantiles_are_the_same_bits_with_and_without_a_gradient(side):
    x = torch.randn(2, 5, side, side).relu().contiguous(memory_format=torch.channels_last)
    assert torch.equal(quantiles(x), quantiles(x.clone().requires_grad_()).detach())

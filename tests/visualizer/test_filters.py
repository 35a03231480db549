import math
import re

import numpy as np
import pytest
import skimage.data
import torch
from skimage.restoration import denoise_tv_bregman

from mindseye.demo.photographs import generate
from mindseye.visualizer import filters
from mindseye.visualizer.callbacks import TVDenoise
from mindseye.visualizer.filters import blend, centre_mask, gaussian_blur, rof_energy, total_variation, tv_denoise


def noisy(ch=3, side=32, seed=0):
    return torch.rand(2, ch, side, side, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("sigma", [0.001, 0.02, 0.5])
@pytest.mark.parametrize("side", [32, 33, 5])
def test_blur_keeps_constants_and_the_range(sigma, side):
    constant = torch.full((1, 1, side, side), 0.3)
    assert torch.allclose(gaussian_blur(constant, sigma), constant, atol=1e-6)
    blurred = gaussian_blur(noisy(side=side), sigma)
    assert blurred.shape == (2, 3, side, side)
    assert blurred.min() >= 0
    assert blurred.max() <= 1


def test_blur_of_a_point_is_a_gaussian():
    point = torch.zeros(1, 1, 65, 65)
    point[..., 32, 32] = 1
    row = gaussian_blur(point, 3 / 65)[0, 0, 32]
    offset = torch.arange(65) - 32
    expected = torch.exp(-(offset.float() ** 2) / (2 * 9))
    inside = offset.abs() <= 8
    assert torch.allclose(row[inside] / row[32], expected[inside], atol=1e-3)


@pytest.mark.parametrize("side", [16, 33, 224])
def test_a_blur_of_less_than_a_quarter_of_a_pixel_is_none_that_bytes_show(side):
    """A chequerboard is what any blur changes most."""
    board = (torch.arange(side)[:, None] + torch.arange(side)) % 2
    board = board.float()[None, None]
    for pixels, least, most in ((0.25, 0.2, 0.5), (1 / 6, 0, 1e-4), (0.112, 0, 1e-5), (0.45, 10, 255)):
        change = 255 * (gaussian_blur(board, pixels / side) - board).abs().max()
        assert least <= change < most


def test_blur_means_the_same_at_every_resolution():
    small = torch.zeros(1, 1, 40, 40)
    small[..., 20:] = 1
    large = small.repeat_interleave(2, 2).repeat_interleave(2, 3)
    halved = torch.nn.functional.avg_pool2d(gaussian_blur(large, 0.05), 2)
    assert torch.allclose(gaussian_blur(small, 0.05), halved, atol=0.03)


def real(name, side=64):
    """A photograph that comes with scikit-image, shrunk: [1, ch, side, side] in 0..1."""
    image = torch.from_numpy(np.atleast_3d(getattr(skimage.data, name)())).permute(2, 0, 1)[None] / 255
    shorter = min(image.shape[2:])
    return torch.nn.functional.interpolate(image[..., :shorter, :shorter], (side, side), mode="area")


def drawn(side=64):
    """Photographs drawn by the demo, [4, 3, side, side] in 0..1."""
    images, _ = generate(["padlock"], 4, size=side)
    return torch.from_numpy(images) / 255


def test_rof_energy_by_hand():
    image = torch.tensor([[0.0, 0.3], [0.4, 1.0]])[None, None].repeat(2, 3, 1, 1)
    variation = 0.5 + 0.7 + 0.6  # the corner's is 5 tenths: 3 to the right, 4 down
    assert rof_energy(image, image, 7.0).tolist() == pytest.approx([3 * variation] * 2)
    assert rof_energy(image, image + 0.1, 7.0).tolist() == pytest.approx([3 * (variation + 3.5 * 4 * 0.01)] * 2)


@pytest.mark.parametrize("weight", [1.0, 2.0, 8.0, 20.0, 31.9, 32.0, 45.0, 90.0, 180.0, 200.0])
def test_denoising_comes_nearer_the_minimum_than_scikit_image(weight):
    images = [real(name) for name in ("astronaut", "camera", "coffee", "rocket", "brick", "coins")]
    for noisy_images in (*images, real("chelsea", 97), drawn()):
        own = rof_energy(tv_denoise(noisy_images, weight), noisy_images, weight)
        theirs = rof_energy(tv_denoise(noisy_images, weight, backend="skimage"), noisy_images, weight)
        assert (own <= theirs).all()
        assert (own < rof_energy(noisy_images, noisy_images, weight)).all()


@pytest.mark.parametrize("weight", [4.0, 60.0])
def test_tolerance_bounds_how_far_above_the_minimum(weight):
    """No image has less energy than the true minimum, so none may lie further below than the tolerance allows."""
    images = real("astronaut").double()
    best = rof_energy(tv_denoise(images, weight, iterations=2000, tolerance=1e-6), images, weight)
    variation = rof_energy(images, images, weight)
    for tolerance in (0.1, 0.02, 0.001):
        energy = rof_energy(tv_denoise(images, weight, iterations=500, tolerance=tolerance), images, weight)
        assert (energy <= best + tolerance * variation).all()
        assert (energy >= best - 1e-6 * variation).all()


@pytest.mark.parametrize("vertical", [False, True])
@pytest.mark.parametrize("weight", [2.0, 3.0, 50.0])
def test_denoising_a_step_moves_its_sides_together_by_one_over_weight_and_width(weight, vertical):
    """Per row the energy is |b − a| + weight/2 · (m (a − a₀)² + n (b − b₀)²), least at a₀ + 1/(weight·m)."""
    m, n = 5, 11
    step = torch.cat([torch.full((1, 1, 16, m), 0.2), torch.full((1, 1, 16, n), 0.9)], dim=3)
    low, high = 0.2 + 1 / (weight * m), 0.9 - 1 / (weight * n)
    expected = torch.cat([torch.full((1, 1, 16, m), low), torch.full((1, 1, 16, n), high)], dim=3)
    if vertical:
        step, expected = step.mT, expected.mT
    denoised = tv_denoise(step.double(), weight, iterations=2000, tolerance=1e-8)
    assert torch.allclose(denoised, expected.double(), atol=1e-3)
    assert torch.allclose(tv_denoise(step, weight), expected, atol=0.05)


def test_denoising_tends_to_the_image_and_to_its_mean():
    images = real("coffee")
    assert torch.allclose(tv_denoise(images, 1e6), images, atol=1e-5)
    mean = images.mean(dim=(2, 3), keepdim=True)
    assert torch.allclose(tv_denoise(images, 1e-3, iterations=500, tolerance=1e-6), mean.expand_as(images), atol=0.01)


def test_denoising_keeps_constants_means_and_the_range():
    constant = torch.full((1, 3, 33, 33), 0.3)
    assert torch.allclose(tv_denoise(constant, 3.0), constant, atol=1e-6)
    for images in (noisy(), real("camera")):
        for weight in (0.1, 5.0, 100.0):
            denoised = tv_denoise(images, weight)
            assert (denoised.amin((2, 3)) >= images.amin((2, 3))).all()
            assert (denoised.amax((2, 3)) <= images.amax((2, 3))).all()
            assert torch.allclose(denoised.mean((2, 3)), images.mean((2, 3)), atol=5e-3)


def test_denoising_a_larger_weight_stays_nearer():
    images = noisy()
    assert (tv_denoise(images, 2.0) - images).norm() > (tv_denoise(images, 20.0) - images).norm()
    assert (total_variation(tv_denoise(images, 2.0)) < total_variation(images)).all()


@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (3, 3), (1, 9), (9, 1), (2, 7), (31, 31), (37, 70)])
@pytest.mark.parametrize("weight", [0.5, 40.0])
@pytest.mark.parametrize("backend", ["primal_dual", "skimage"])
def test_denoising_takes_every_size(shape, weight, backend):
    if backend == "skimage" and 1 in shape:
        pytest.skip("scikit-image reads beyond a side of one")
    images = torch.rand(2, 3, *shape, generator=torch.Generator().manual_seed(0))
    denoised = tv_denoise(images, weight, backend=backend)
    assert denoised.shape == images.shape
    assert denoised.isfinite().all()
    assert tv_denoise(images[:0], weight, backend=backend).shape == (0, 3, *shape)


@pytest.mark.parametrize("weight", [2.0, 60.0])
@pytest.mark.parametrize("side", [33, 200])  # 200² pixels are more than torch gives to one thread
def test_denoising_in_a_batch_is_denoising_alone_to_the_bit(weight, side):
    images = torch.cat([real(name, side) for name in ("astronaut", "coffee", "rocket")])
    images[1] = images[1] / 10  # takes other numbers of iterations
    together = tv_denoise(images, weight)
    assert torch.equal(tv_denoise(images, weight), together)
    for index in range(3):
        assert torch.equal(tv_denoise(images[index : index + 1], weight)[0], together[index])
        for channel in range(3):
            alone = tv_denoise(images[index : index + 1, channel : channel + 1], weight)
            assert torch.equal(alone[0, 0], together[index, channel])


@pytest.mark.parametrize("weight", [2.0, 60.0])
def test_denoising_on_another_device_ends_where_it_does_on_a_cpu(weight):
    """There all planes are computed together to the last iteration, and the host is never asked."""
    planes = torch.cat([real(name, 50) for name in ("astronaut", "coffee")])[:, 0]
    planes[1] = planes[1] / 10  # takes another number of iterations
    alone = filters._tv_minimum(planes, weight, 50, 0.02)
    with torch.device("meta"):
        elsewhere = filters._tv_primal_dual(torch.empty(2, 50, 50), weight, 50, 0.02)[0]
    assert elsewhere.device.type == "meta"
    together = filters._tv_primal_dual(planes, weight, 50, 0.02)[0]
    assert torch.allclose(together, alone, atol=1e-6)
    exact = filters._tv_primal_dual(planes, weight, 2000, 0.0)[0]
    assert (together - exact).abs().amax() > 1e-4  # it ends before


def test_denoising_keeps_the_type_passes_no_gradient_and_ignores_autocast():
    images = real("astronaut").requires_grad_()
    expected = tv_denoise(images, 5.0)
    assert not expected.requires_grad
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(tv_denoise(images, 5.0), expected)
    with torch.inference_mode():
        assert torch.equal(tv_denoise(images.detach() * 1, 5.0), expected)
    assert torch.equal(tv_denoise(images.detach().to(memory_format=torch.channels_last), 5.0), expected)
    for dtype, atol in ((torch.float64, 1e-3), (torch.bfloat16, 2e-2)):
        converted = tv_denoise(images.to(dtype), 5.0)
        assert converted.dtype == dtype
        assert torch.allclose(converted.float(), expected, atol=atol)


def test_denoising_by_scikit_image_is_scikit_images():
    images = noisy()
    expected = denoise_tv_bregman(images[1].double().numpy(), weight=5.0, max_num_iter=7, eps=1e-8, channel_axis=0)
    own = tv_denoise(images, 5.0, iterations=7, tolerance=1e-8, backend="skimage")[1]
    assert np.allclose(own.numpy(), expected, atol=1e-6)
    expected = denoise_tv_bregman(images[0].double().numpy(), weight=5.0, channel_axis=0)
    assert np.allclose(tv_denoise(images, 5.0, backend="skimage")[0].numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 1, 24, 24), (3, 1, 20, 30), (2, 1, 31, 17), (2, 2, 20, 30), (1, 3, 9, 24)])
@pytest.mark.parametrize("backend", ["primal_dual", "skimage"])
def test_denoising_leaves_a_picture_the_way_round_it_is(backend, shape):
    """Applied again and again, as a run does, whatever the number of channels: near the picture, not its transpose."""
    images = real("camera", 31)[..., : shape[2], : shape[3]].expand(shape).contiguous()
    images = images * torch.linspace(0.5, 1, shape[3])  # one that is not its own transpose
    denoised = images
    for _ in range(3):
        denoised = tv_denoise(denoised, 60.0, backend=backend)
    assert denoised.shape == images.shape
    assert (denoised - images).abs().mean() < 0.03
    if shape[2] == shape[3]:
        assert (denoised - images.mT).abs().mean() > 0.1


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_scikit_image_gives_one_channel_what_it_gives_the_first_of_several(channels):
    """A channel is denoised by itself; the first starts from nothing that another left."""
    images = noisy(ch=channels, side=24)
    together = tv_denoise(images, 8.0, backend="skimage")[:, :1]
    assert torch.allclose(tv_denoise(images[:, :1], 8.0, backend="skimage"), together, atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 3, 1, 9), (1, 1, 9, 1), (2, 1, 1, 1)])
def test_scikit_image_is_not_given_sides_beyond_which_it_reads(shape):
    with pytest.raises(ValueError, match=r"backend=skimage takes sides of 2 pixels or more, not .*primal_dual"):
        tv_denoise(torch.rand(shape), 8.0, backend="skimage")


# ---- what scikit-image itself holds its denoisers to, for both backends ----------------------------------------------


def chequered(side=64):
    """A dark frame around a field of tiles, 0 and 0.9, with noise: [1, 1, side, side]."""
    tiles = (torch.arange(side)[:, None] // 8 + torch.arange(side) // 8) % 2
    image = 0.9 * tiles.float()
    image[:8] = image[-8:] = 0
    image[:, :8] = image[:, -8:] = 0
    return (image + 0.05 * torch.randn(side, side, generator=torch.Generator().manual_seed(0)))[None, None].clamp(0, 1)


BOTH = pytest.mark.parametrize("backend", ["primal_dual", "skimage"])


@BOTH
def test_flat_regions_become_flatter_and_edges_stay(backend):
    image = chequered()
    denoised = tv_denoise(image, 10.0, backend=backend)
    frame, tile = (..., slice(1, 7), slice(1, 63)), (..., slice(18, 22), slice(18, 22))
    for flat in (frame, tile):
        assert denoised[flat].std() < 0.5 * image[flat].std()
    inside, outside = denoised[0, 0, 18:22, 18:22].mean(), denoised[0, 0, 18:22, 26:30].mean()
    assert (inside - outside).abs() > 0.5


@BOTH
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_type_of_number_comes_back_as_it_was(backend, dtype):
    denoised = tv_denoise(chequered().to(dtype), 10.0, backend=backend)
    assert denoised.dtype == dtype
    reference = tv_denoise(chequered(), 10.0, backend=backend)
    assert torch.allclose(denoised.float(), reference, atol=0.02 if dtype.itemsize == 2 else 1e-3)


@BOTH
def test_the_same_channel_three_times_is_denoised_as_one(backend):
    image = chequered(32)
    smoothed = tv_denoise(image, 10.0, backend=backend)
    three = tv_denoise(image.repeat(1, 3, 1, 1), 10.0, backend=backend)
    if backend == "primal_dual":
        assert torch.equal(three, smoothed.expand_as(three))
    else:  # a channel begins with what scikit-image left of the one before
        assert (three - smoothed).abs().mean() < 0.01


@BOTH
def test_a_smaller_weight_has_less_variation(backend):
    variations = [total_variation(tv_denoise(chequered(), weight, backend=backend)).item() for weight in (2, 5, 20, 80)]
    assert variations == sorted(variations)
    assert variations[-1] < total_variation(chequered()).item()


@BOTH
def test_what_was_noise_is_nearer_the_picture(backend):
    """By the structural similarity to the picture without noise."""
    from skimage.metrics import structural_similarity

    clean = real("camera")
    noise = 0.15 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))
    noisy_image = (clean + noise).clamp(0, 1)

    def similarity(image):
        return structural_similarity(clean[0, 0].numpy(), image[0, 0].numpy(), data_range=1.0)

    assert similarity(tv_denoise(noisy_image, 10.0, backend=backend)) > similarity(noisy_image) + 0.1


@BOTH
def test_a_picture_turned_or_mirrored_is_denoised_as_it_was(backend):
    image = real("camera", 40)
    denoised = tv_denoise(image, 10.0, backend=backend)
    for turn in (lambda one: one.mT, lambda one: one.flip(2), lambda one: one.flip(3)):
        # Differences are forward ones, so that corners turn to a hair.
        assert (tv_denoise(turn(image), 10.0, backend=backend) - turn(denoised)).abs().mean() < 0.01


WRONG = [
    ({"iterations": 0}, "iterations must be a whole number of 1 or more or null, not 0"),
    ({"tolerance": -0.1}, "tolerance must be a number of 0 or more or null, not -0.1"),
    ({"tolerance": math.nan}, "tolerance must be a number of 0 or more or null, not nan"),
    ({"backend": "bregman"}, "backend must be primal_dual or skimage, not bregman"),
]


@pytest.mark.parametrize(("wrong", "said"), WRONG)
def test_a_wrong_denoising_is_refused_in_one_line(wrong, said):
    for call in (TVDenoise, lambda **wrong: tv_denoise(noisy(), 5.0, **wrong)):
        with pytest.raises(ValueError, match=f"^{re.escape(said)}$"):
            call(**wrong)


@pytest.mark.parametrize("weight", [0.0, -1.0, math.nan, math.inf])
def test_a_wrong_weight_is_refused_in_one_line(weight):
    with pytest.raises(ValueError, match=f"^weight must be a number above 0, not {weight}$"):
        tv_denoise(noisy(), weight)


def test_the_callback_denoises_as_it_is_told():
    images, now = real("camera"), {"denoise_weight": 320.0}
    assert torch.equal(TVDenoise().filtered(images, now), tv_denoise(images, 5.0))
    told = TVDenoise(iterations=3, tolerance=0.0, backend="skimage").filtered(images, now)
    assert torch.equal(told, tv_denoise(images, 5.0, iterations=3, tolerance=0.0, backend="skimage"))


@pytest.mark.parametrize("side", [1, 2, 31, 32])
@pytest.mark.parametrize("sigma", [0.05, 0.4, 50.0])
def test_mask_is_one_in_the_middle_and_symmetric(side, sigma):
    mask = centre_mask(side, sigma)
    assert mask.shape == (side, side)
    assert mask.max() == 1
    assert torch.allclose(mask, mask.T)
    assert torch.allclose(mask, mask.flip(0), atol=1e-6)
    if side > 2:
        assert mask.min() == pytest.approx(0, abs=1e-6)
        assert mask[0, 0] <= mask[0, side // 2] < mask[side // 2, side // 2]


def test_a_wider_mask_lets_more_through():
    assert centre_mask(32, 0.2).mean() < centre_mask(32, 0.5).mean()


def test_blend():
    before, after = torch.zeros(1, 1, 4, 4), torch.ones(1, 1, 4, 4)
    mask = centre_mask(4, 0.5)
    assert torch.equal(blend(before, after, mask)[0, 0], mask)
    assert torch.equal(blend(before, after, None), after)


def test_total_variation_by_hand():
    image = torch.tensor([[0.0, 1.0], [0.0, 0.5]])[None, None]
    assert total_variation(image).item() == pytest.approx((1.0 + 0.5) / 2 + (0 + 0.5) / 2)
    assert total_variation(torch.full((3, 2, 5, 5), 0.4)).tolist() == [0, 0, 0]

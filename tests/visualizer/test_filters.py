import numpy as np
import pytest
import torch
from skimage.restoration import denoise_tv_bregman

from mindseye.visualizer.filters import blend, centre_mask, gaussian_blur, total_variation, tv_denoise


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


def test_blur_means_the_same_at_every_resolution():
    small = torch.zeros(1, 1, 40, 40)
    small[..., 20:] = 1
    large = small.repeat_interleave(2, 2).repeat_interleave(2, 3)
    halved = torch.nn.functional.avg_pool2d(gaussian_blur(large, 0.05), 2)
    assert torch.allclose(gaussian_blur(small, 0.05), halved, atol=0.03)


def rof_energy(image, noisy_image, weight):
    """Total variation (isotropic) + weight/2 · squared difference, of one channel-first image."""
    dx = np.diff(image, axis=2, append=image[:, :, -1:])
    dy = np.diff(image, axis=1, append=image[:, -1:, :])
    return np.sqrt(dx**2 + dy**2).sum() + weight / 2 * ((image - noisy_image) ** 2).sum()


@pytest.mark.parametrize("weight", [2.0, 8.0])
def test_denoising_lowers_the_rudin_osher_fatemi_energy(weight):
    images = noisy()
    denoised = tv_denoise(images, weight)
    for before, after in zip(images.numpy(), denoised.numpy(), strict=True):
        assert rof_energy(after, before, weight) < 0.8 * rof_energy(before, before, weight)
    assert (total_variation(denoised) < total_variation(images)).all()
    assert torch.allclose(denoised.mean(dim=(2, 3)), images.mean(dim=(2, 3)), atol=1e-2)


def test_denoising_a_larger_weight_stays_nearer():
    images = noisy()
    assert (tv_denoise(images, 2.0) - images).norm() > (tv_denoise(images, 20.0) - images).norm()


def test_denoising_treats_every_image_and_channel_for_itself():
    images = noisy()
    alone = denoise_tv_bregman(images[1, 2].double().numpy(), weight=5.0, max_num_iter=1000, eps=1e-8)
    together = tv_denoise(images, 5.0, max_iterations=1000, tolerance=1e-8)[1, 2]
    assert np.allclose(together.numpy(), alone, atol=1e-5)


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

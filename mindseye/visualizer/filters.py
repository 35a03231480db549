"""Filters on batches of images: Gaussian blur, total-variation denoising, the centre mask."""

import math

import numpy as np
import torch
from torch import Tensor


def gaussian_blur(images: Tensor, sigma: float) -> Tensor:
    """Images [C, ch, S, S] blurred with a Gaussian of `sigma` (> 0) times the side; the range of values is kept.

    The border is reflected. The kernel reaches 3 σ, at most to the image's own size.
    """
    from kornia.filters import gaussian_blur2d

    side = images.shape[-1]
    pixels = sigma * side
    reach = min(max(1, math.ceil(3 * pixels)), (side - 1) // 2)
    return gaussian_blur2d(images, (2 * reach + 1, 2 * reach + 1), (pixels, pixels), border_type="reflect")


def tv_denoise(images: Tensor, weight: float, *, max_iterations: int = 100, tolerance: float = 1e-3) -> Tensor:
    """Rudin-Osher-Fatemi denoising by split Bregman, each image and channel: [C, ch, S, S] in 0..1 -> the same.

    Minimises total variation + weight/2 · squared difference (Getreuer, IPOL 2012; scikit-image's solver, isotropic):
    a smaller weight denoises more.
    """
    from skimage.restoration import denoise_tv_bregman

    host = images.detach().cpu().double().numpy()
    denoised = [
        denoise_tv_bregman(image, weight=weight, max_num_iter=max_iterations, eps=tolerance, channel_axis=0)
        for image in host
    ]
    return torch.from_numpy(np.stack(denoised)).to(images)


def centre_mask(size: int, sigma: float, device: torch.device | None = None) -> Tensor:
    """A Gaussian of `sigma` (> 0) times the side about the centre, stretched to 0 (corners) .. 1 (centre): [S, S].

    The stretch makes a wide mask still reach 0 in the corners (as in the released program).
    """
    if size <= 2:  # every pixel is equally far from the centre
        return torch.ones(size, size, device=device)
    position = (torch.arange(size, device=device, dtype=torch.float32) + 0.5) / size - 0.5
    squared = position[:, None] ** 2 + position[None, :] ** 2
    # expm1 keeps the digits where σ is so wide that the mask is 1 − a small number everywhere.
    depth = -torch.expm1(-squared / (2 * sigma**2))
    return 1 - (depth - depth.min()) / (depth.max() - depth.min())


def blend(images: Tensor, filtered: Tensor, mask: Tensor | None) -> Tensor:
    """Filtered where the mask [S, S] is 1, as before where it is 0; everywhere filtered without a mask."""
    return filtered if mask is None else torch.lerp(images, filtered, mask)


def total_variation(images: Tensor) -> Tensor:
    """Mean |∂x| + mean |∂y| of each image, anisotropic, in the images' units per pixel: [B, ch, H, W] -> [B]."""
    horizontal = (images[..., :, 1:] - images[..., :, :-1]).abs().flatten(1).mean(dim=1)
    vertical = (images[..., 1:, :] - images[..., :-1, :]).abs().flatten(1).mean(dim=1)
    return horizontal + vertical

"""Filters on batches of images: Gaussian blur, total-variation denoising, the centre mask."""

import math
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from mindseye.fields import check

TVBackend = Literal["primal_dual", "skimage"]

FIRST_LOOK = 4  # the iteration after which denoising first asks whether it is done


def gaussian_blur(images: Tensor, sigma: float) -> Tensor:
    """Images [C, ch, S, S] blurred with a Gaussian of `sigma` (> 0) times the side; the range of values is kept.

    The border is reflected. The kernel reaches 3 σ, at most to the image's own size. It is sampled at the pixels: below
    a σ of a quarter of a pixel it changes none by half of 1/255, below a sixth it is the identity up to float32's
    rounding. At 224 pixels a quarter of one is a fraction of 0.0011, below which the default schedule is for the last
    two fifths of its steps.
    """
    from kornia.filters import gaussian_blur2d

    side = images.shape[-1]
    pixels = sigma * side
    reach = min(max(1, math.ceil(3 * pixels)), (side - 1) // 2)
    # Python numbers: kornia checks them on the host and fills its kernel on the device, so that nobody waits.
    return gaussian_blur2d(images, (2 * reach + 1, 2 * reach + 1), (pixels, pixels), border_type="reflect")


def tv_denoise(
    images: Tensor,
    weight: float,
    *,
    iterations: int | None = None,
    tolerance: float | None = None,
    backend: TVBackend = "primal_dual",
) -> Tensor:
    """Rudin-Osher-Fatemi denoising, each channel of each image by itself: [B, ch, H, W] in 0..1 -> the same.

    Minimises `rof_energy`; the smaller the weight (> 0, one over pixels), the smoother the result. Half precision is
    computed in float32. It passes no gradient.

    `primal_dual`: Chambolle and Pock 2011, algorithm 2, on the images' own device, for weights below 32 started from
    a rough solution at half the size. A channel is done when its duality gap, which bounds how far its energy is above
    the minimum, is at most `tolerance` (0.02) of the energy it came with (its total variation), or after `iterations`
    (50). It is done alone, so an image comes out the same to the bit in any batch on a CPU. Values stay within the
    channel's own.

    `skimage`: `skimage.restoration.denoise_tv_bregman` in float64 on the host, until an iteration changes the image by
    at most `tolerance` (0.001) root mean square, or for `iterations` (100). Its split Bregman shrinks a gradient of
    length s to s · 2·weight·s/(2·weight·s + 1) where the energy asks for max(s − 1/(2·weight), 0), so that it stays
    above the minimum however long it runs, and its start for a channel is what it left of the one before.

    Raises ValueError, in one line, for a value that is none of these.
    """
    check_tv_options(iterations, tolerance, backend)
    check("weight", weight, Annotated[float, Field(gt=0)])
    images = images.detach()
    if not images.numel():
        return images.clone()
    if backend == "skimage":
        return _tv_skimage(images, weight, iterations or 100, 1e-3 if tolerance is None else tolerance)
    planes = images.flatten(0, 1)
    planes = (planes if planes.dtype == torch.float64 else planes.float()).contiguous()
    # Threads know nothing of the caller's inference mode and could not write into its tensors.
    with torch.inference_mode(False), torch.no_grad(), torch.autocast(images.device.type, enabled=False):
        denoised = _tv_minimum(planes, weight, iterations or 50, 0.02 if tolerance is None else tolerance)
        # The minimum lies within the channel's values, and to clip can only lower the energy.
        denoised = denoised.clamp(planes.amin((1, 2), keepdim=True), planes.amax((1, 2), keepdim=True))
    return denoised.view(images.shape).to(images)


def check_tv_options(iterations: int | None, tolerance: float | None, backend: str) -> None:
    """Raises WrongField, a ValueError of one line, about the first option of `tv_denoise` that is wrong."""
    check("iterations", iterations, Annotated[int, Field(ge=1)] | None)
    check("tolerance", tolerance, Annotated[float, Field(ge=0)] | None)
    check("backend", backend, TVBackend)


def rof_energy(images: Tensor, noisy: Tensor, weight: float) -> Tensor:
    """Rudin, Osher and Fatemi's energy of images as denoised versions of noisy ones: 2 × [B, ch, H, W] -> [B].

    Σ sqrt((∂x u)² + (∂y u)²) + weight/2 · Σ (u − noisy)² over pixels and channels, with forward differences that are 0
    across the far border: isotropic within a channel, channels uncoupled. `weight` is scikit-image's: the λ of the
    formula in its documentation, by its program's update of u, not the λ/2 that is written beside it.
    """
    horizontal = torch.nn.functional.pad(images[..., :, 1:] - images[..., :, :-1], (0, 1))
    vertical = torch.nn.functional.pad(images[..., 1:, :] - images[..., :-1, :], (0, 0, 0, 1))
    variation = (horizontal.square() + vertical.square()).sqrt().flatten(1).sum(dim=1)
    return variation + weight / 2 * (images - noisy).square().flatten(1).sum(dim=1)


def _tv_skimage(images: Tensor, weight: float, iterations: int, tolerance: float) -> Tensor:
    from skimage.restoration import denoise_tv_bregman

    if min(images.shape[2:]) < 2:
        raise ValueError(
            f"tv_denoise: backend=skimage takes sides of 2 pixels or more, not {list(images.shape[2:])}; primal_dual "
            "takes any"
        )

    def denoise(image: np.ndarray) -> np.ndarray:
        # Told of a channel axis of length 1, it squeezes that away and moves another one in its place.
        alone = len(image) == 1
        settings = {"weight": weight, "max_num_iter": iterations, "eps": tolerance}
        denoised = denoise_tv_bregman(image[0] if alone else image, **settings, channel_axis=None if alone else 0)
        return denoised[None] if alone else denoised

    denoised = np.stack([denoise(image) for image in images.cpu().double().numpy()])
    return torch.from_numpy(denoised).to(images)


def _tv_minimum(planes: Tensor, weight: float, iterations: int, tolerance: float) -> Tensor:
    """Planes [N, H, W] -> the denoised ones; each comes out the same among others."""
    if planes.device.type != "cpu":
        return _tv_primal_dual(planes, weight, iterations, tolerance)[0]
    # Side by side, each until it is done: to share a plane's short operations among threads takes longer than they do.
    with ThreadPoolExecutor(torch.get_num_threads()) as threads:
        each = threads.map(lambda plane: _tv_primal_dual(plane, weight, iterations, tolerance)[0], planes.split(1))
        return torch.cat(list(each))


def _tv_primal_dual(
    planes: Tensor, weight: float, iterations: int, tolerance: float | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Planes f [N, H, W] -> the denoised ones u and the dual field's two components, all [N, H, W].

    min_u max_|p|≤1 ⟨∇u, p⟩ + weight/2 ‖u − f‖²: projected ascent in p and descent in u by turns, u extrapolated, the
    step sizes fitted at every turn to the strong convexity `weight`. A plane is given as it was when its duality gap
    was first seen to be small enough; None takes all iterations.
    """
    if weight < 32 and min(planes.shape[1:]) >= 4:
        # Wide flat regions are found where they are few pixels. Pixels of twice the side have twice the weight;
        # more than ten iterations there save none here.
        coarse = torch.nn.functional.avg_pool2d(planes[:, None], 2, ceil_mode=True)[:, 0]
        _, px, py = _tv_primal_dual(coarse, 2 * weight, min(iterations, 10), None)
        px, py = _finer(px, dim=2, shape=planes.shape), _finer(py, dim=1, shape=planes.shape)
    else:
        px, py = torch.zeros_like(planes), torch.zeros_like(planes)
    dx, dy = torch.zeros_like(planes), torch.zeros_like(planes)  # of a gradient; across the far border always 0
    u = planes + _divergence(px, py) / weight
    ahead, result = u.clone(), u
    if tolerance is not None:
        _gradient_(planes, dx, dy)
        allowed = tolerance * torch.hypot(dx, dy).sum(dim=(1, 2))
        going_on = torch.ones_like(allowed, dtype=torch.bool)
    primal_step, look = 1 / weight, FIRST_LOOK
    for iteration in range(1, iterations + 1):
        dual_step = 1 / (8 * primal_step)  # 8 bounds the squared norm of the gradient
        share = 1 / (1 + primal_step * weight)
        momentum = 1 / math.sqrt(1 + 2 * weight * primal_step)
        _gradient_(ahead, dx, dy)
        px.add_(dx, alpha=dual_step)
        py.add_(dy, alpha=dual_step)
        shrink = (px * px).addcmul_(py, py).clamp_(min=1).rsqrt_()
        px.mul_(shrink)
        py.mul_(shrink)
        new = torch.lerp(planes, u, share).add_(_divergence(px, py), alpha=primal_step * share)
        torch.lerp(u, new, 1 + momentum, out=ahead)
        u = new
        primal_step *= momentum
        if tolerance is None:
            result = u
        elif iteration in (look, iterations):
            look += max(2, look // 4)  # to look costs as much as an iteration
            result = torch.where(going_on[:, None, None], u, result)
            _gradient_(u, dx, dy)
            going_on &= _duality_gap(u, planes, px, py, dx, dy, weight) > allowed
            # Elsewhere to know whether all are done is to wait for the device, for longer than the rest would take.
            if planes.device.type == "cpu" and not going_on.any():
                break
    return result, px, py


def _gradient_(u: Tensor, dx: Tensor, dy: Tensor) -> None:
    """Forward differences of u [N, H, W] into dx and dy, whose last column and last row stay as they are."""
    torch.sub(u[:, :, 1:], u[:, :, :-1], out=dx[:, :, :-1])
    torch.sub(u[:, 1:], u[:, :-1], out=dy[:, :-1])


def _divergence(px: Tensor, py: Tensor) -> Tensor:
    """The negative adjoint of the gradient: [N, H, W] twice -> [N, H, W]. The far border's columns and rows are 0."""
    divergence = px + py
    divergence[:, :, 1:] -= px[:, :, :-1]
    divergence[:, 1:] -= py[:, :-1]
    return divergence


def _duality_gap(
    u: Tensor, f: Tensor, px: Tensor, py: Tensor, dx: Tensor, dy: Tensor, weight: float
) -> Tensor:
    """The duality gap of each plane, all [N, H, W], (dx, dy) = ∇u -> [N].

    The gap, energy + ‖div p‖²/(2·weight) + ⟨div p, f⟩, is written as
    Σ(|∇u| − ⟨∇u, p⟩) + weight/2 ‖u − f − div p/weight‖²: no term is negative, so that nothing cancels in float32.
    """
    apart = (torch.hypot(dx, dy) - dx * px - dy * py).sum(dim=(1, 2))
    residual = u - f - _divergence(px, py) / weight
    return apart + weight / 2 * residual.square().sum(dim=(1, 2))


def _finer(field: Tensor, *, dim: int, shape: torch.Size) -> Tensor:
    """The dual field's component along dim (1 or 2), [N, h, w], for pixels of half the side: `shape` [N, H, W].

    A difference within a coarse pixel gets the mean of those at its two sides; across the far border it is 0.
    """
    size = field.shape[dim]
    fine = field.new_empty(len(field), field.shape[1], 2, field.shape[2], 2)
    within, at_side = fine.unbind(4 if dim == 2 else 2)
    other = 2 if dim == 2 else 3  # the finer pixels of the other direction have the same
    before = torch.cat([torch.zeros_like(field.narrow(dim, 0, 1)), field.narrow(dim, 0, size - 1)], dim)
    within.copy_(torch.lerp(before, field, 0.5).unsqueeze(other))
    at_side.copy_(field.unsqueeze(other))
    fine = fine.flatten(3).flatten(1, 2)[:, : shape[1], : shape[2]].contiguous()
    fine.select(dim, shape[dim] - 1).zero_()
    return fine


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

"""Filters on batches of images: Gaussian blur, total-variation denoising, the centre mask."""

import math
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

TVBackend = Literal["primal_dual", "skimage"]

# Pixels that denoising works on at once on a CPU: they stay in the cache, and torch gives no more to one thread.
BAND = 32768


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
    a rough solution at half the size. On the CPU a channel is done when its duality gap, which bounds how far its
    energy is above the minimum, is at most `tolerance` (0.02) of the energy it came with (its total variation), or
    after `iterations` (50). It is done alone, so an image comes out the same to the bit in any batch. On other devices
    to look at the gap is to wait for the device, so there every channel takes all `iterations` and `tolerance` is not
    used. Values stay within the channel's own.

    `skimage`: `skimage.restoration.denoise_tv_bregman` in float64 on the host, until an iteration changes the image by
    at most `tolerance` (0.001) root mean square, or for `iterations` (100). Its split Bregman shrinks a gradient of
    length s to s · 2·weight·s/(2·weight·s + 1) where the energy asks for max(s − 1/(2·weight), 0), so that it stays
    above the minimum however long it runs, and its start for a channel is what it left of the one before.

    Wrong values raise a ValueError.
    """
    check_tv_options(iterations, tolerance, backend, place="tv_denoise: ")
    if not (math.isfinite(weight) and weight > 0):
        raise ValueError(f"tv_denoise: weight={weight}: a number above 0 is right")
    images = images.detach()
    if not images.numel():
        return images.clone()
    if backend == "skimage":
        return _tv_skimage(images, weight, iterations or 100, 1e-3 if tolerance is None else tolerance)
    planes = images.flatten(0, 1)
    planes = (planes if planes.dtype == torch.float64 else planes.float()).contiguous()
    # Threads know nothing of the caller's inference mode and could not write into its tensors.
    with torch.inference_mode(False), torch.no_grad(), torch.autocast(images.device.type, enabled=False):
        denoised, _, _ = _tv_primal_dual(planes, weight, iterations or 50, 0.02 if tolerance is None else tolerance)
        # The minimum lies within the channel's values, and to clip can only lower the energy.
        denoised = denoised.clamp(planes.amin((1, 2), keepdim=True), planes.amax((1, 2), keepdim=True))
    return denoised.view(images.shape).to(images)


def check_tv_options(iterations: int | None, tolerance: float | None, backend: str, *, place: str) -> None:
    """Raises a ValueError of one line, beginning with `place`, about the first option of `tv_denoise` that is wrong."""
    if iterations is not None and iterations < 1:
        raise ValueError(f"{place}iterations={iterations}: 1 or more is right, or null for the backend's own")
    if tolerance is not None and not (math.isfinite(tolerance) and tolerance >= 0):
        raise ValueError(f"{place}tolerance={tolerance}: 0 or more is right, or null for the backend's own")
    if backend not in get_args(TVBackend):
        raise ValueError(f"{place}backend={backend}: {' or '.join(get_args(TVBackend))} is right")


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
        found = denoise_tv_bregman(image[0] if alone else image, **settings, channel_axis=None if alone else 0)
        return found[None] if alone else found

    denoised = np.stack([denoise(image) for image in images.cpu().double().numpy()])
    return torch.from_numpy(denoised).to(images)


def _tv_primal_dual(
    planes: Tensor, weight: float, iterations: int, tolerance: float | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Planes [N, H, W] -> the denoised ones and the dual field's two components, all [N, H, W].

    tolerance: None takes all iterations, as every device but the CPU does.
    """
    count, height, width = planes.shape
    if weight < 32 and min(height, width) >= 4:
        # Wide flat regions are found where they are few pixels. Pixels of twice the side have twice the weight;
        # more than ten iterations there save none here.
        coarse = torch.nn.functional.avg_pool2d(planes[:, None], 2, ceil_mode=True)[:, 0]
        _, px, py = _tv_primal_dual(coarse, 2 * weight, min(iterations, 10), None)
        px, py = _finer(px, dim=2, shape=planes.shape), _finer(py, dim=1, shape=planes.shape)
    else:
        px, py = torch.zeros_like(planes), torch.zeros_like(planes)
    u = torch.empty_like(planes)
    # Rows one after the other, so that differences to the right and below are those of two shifted views of one
    # contiguous run. Across the far border the field is held at 0, so that rows do not mix.
    f, u_run, px_run, py_run = (each.view(count, -1) for each in (planes, u, px, py))
    if planes.device.type == "cpu":

        def descend(plane: int) -> None:
            one = slice(plane, plane + 1)
            _descend(f[one], u_run[one], px_run[one], py_run[one], width, BAND, weight, iterations, tolerance)

        # Planes side by side, each in one thread: to share every short operation among threads, as torch does with
        # more than a band's pixels, takes longer than the operation, and far longer on a busy machine.
        with ThreadPoolExecutor(torch.get_num_threads()) as threads:
            list(threads.map(descend, range(count)))
    else:
        _descend(f, u_run, px_run, py_run, width, height * width, weight, iterations, None)
    return u, px, py


def _descend(
    f: Tensor,
    u: Tensor,
    px: Tensor,
    py: Tensor,
    width: int,
    band: int,
    weight: float,
    iterations: int,
    tolerance: float | None,
) -> None:
    """Writes the denoised f into u and its dual field into px and py, where that one starts: all [N, H·W].

    min_u max_|p|≤1 ⟨∇u, p⟩ + weight/2 ‖u − f‖²: projected ascent in p and descent in u by turns, u extrapolated, the
    step sizes fitted at every turn to the strong convexity `weight`. Ends by the duality gap of all planes together;
    never where `tolerance` is None.
    """
    # A step is taken in bands of rows, `band` pixels or fewer, which stay in the cache. It reads `ahead` below the
    # band, not yet overwritten, and the field above it, already new: the same step as in one go.
    rows, pixels = max(1, band // width) * width, f.shape[1]
    bands = [(start, min(start + rows, pixels)) for start in range(0, pixels, rows)]
    scratch = torch.empty_like(f[:, :rows]), torch.empty_like(f[:, :rows])
    result, ahead = u, torch.empty_like(u)
    for start, stop in bands:
        u[:, start:stop].copy_(f[:, start:stop])
        _add_divergence(_divergence_views(u, px, py, width, start, stop), 1 / weight)
        ahead[:, start:stop].copy_(u[:, start:stop])

    def views(u: Tensor, ahead: Tensor) -> list[tuple]:
        """What a step touches of each band, cut once: to cut costs as much as to compute."""
        return [
            (
                _gradient_views(ahead, px, py, width, start, stop),
                _divergence_views(ahead, px, py, width, start, stop),
                (f[:, start:stop], u[:, start:stop], scratch[0][:, : stop - start]),
                px[:, start + width - 1 : stop : width],
            )
            for start, stop in bands
        ]

    now, following = views(u, ahead), views(ahead, u)
    if tolerance is not None:
        allowed = tolerance * sum(_variation(f, width, start, stop, scratch) for start, stop in bands)
    primal_step, look = 1 / weight, 8 if weight < 32 else 4
    for iteration in range(1, iterations + 1):
        dual_step = 1 / (8 * primal_step)  # 8 bounds the squared norm of the gradient
        share = 1 / (1 + primal_step * weight)
        momentum = 1 / math.sqrt(1 + 2 * weight * primal_step)
        for gradient, divergence, (f_band, u_band, norm), far_border in now:
            (x, right, left), (y, below, above) = gradient
            x.add_(right, alpha=dual_step).sub_(left, alpha=dual_step)
            y.add_(below, alpha=dual_step).sub_(above, alpha=dual_step)
            far_border.zero_()
            new, px_band, py_band = divergence[0]
            torch.mul(px_band, px_band, out=norm).addcmul_(py_band, py_band).clamp_(min=1).rsqrt_()
            px_band.mul_(norm)
            py_band.mul_(norm)
            torch.lerp(f_band, u_band, share, out=new)
            _add_divergence(divergence, primal_step * share)
            torch.lerp(u_band, new, 1 + momentum, out=u_band)
        u, ahead, now, following = ahead, u, following, now
        primal_step *= momentum
        if tolerance is not None and iteration == look:
            gap = _duality_gap(u, f, px, py, weight, width, bands, scratch)
            if gap <= allowed:
                break
            # The gap falls about as one over the square of the iterations, and to look costs as much as one.
            short = gap / allowed if allowed > 0 and gap < math.inf else math.inf
            look += max(2, math.ceil(look * min(short**0.55 - 1, 1)))
    if result is not u:
        for start, stop in bands:
            result[:, start:stop].copy_(u[:, start:stop])


def _gradient_views(u: Tensor, px: Tensor, py: Tensor, width: int, start: int, stop: int) -> tuple:
    """(px, u to the right, u), (py, u below, u): the band start..stop of [N, H·W], where there are such neighbours."""
    right, below = min(stop, u.shape[1] - 1), max(start, min(stop, u.shape[1] - width))
    return (
        (px[:, start:right], u[:, start + 1 : right + 1], u[:, start:right]),
        (py[:, start:below], u[:, start + width : below + width], u[:, start:below]),
    )


def _divergence_views(u: Tensor, px: Tensor, py: Tensor, width: int, start: int, stop: int) -> tuple:
    """(u, px, py), (u, px to the left), (u, py above): the band start..stop of [N, H·W], where there are such."""
    left, above = max(start, 1), min(stop, max(start, width))
    return (
        (u[:, start:stop], px[:, start:stop], py[:, start:stop]),
        (u[:, left:stop], px[:, left - 1 : stop - 1]),
        (u[:, above:stop], py[:, above - width : stop - width]),
    )


def _add_divergence(views: tuple, factor: float) -> None:
    """u + factor · div p, in place; div is the negative adjoint of the gradient."""
    (u, px, py), (u_right, px_left), (u_below, py_above) = views
    u.add_(px, alpha=factor).add_(py, alpha=factor)
    u_right.sub_(px_left, alpha=factor)
    u_below.sub_(py_above, alpha=factor)


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


def _variation(u: Tensor, width: int, start: int, stop: int, gradient: tuple[Tensor, Tensor]) -> float:
    """Σ|∇u| over the band start..stop of [N, H·W]; ∇u itself is left in gradient, two [N, at least stop − start]."""
    horizontal, vertical = (each[:, : stop - start] for each in gradient)
    right, below = min(stop, u.shape[1] - 1), max(start, min(stop, u.shape[1] - width))
    torch.sub(u[:, start + 1 : right + 1], u[:, start:right], out=horizontal[:, : right - start])
    torch.sub(u[:, start + width : below + width], u[:, start:below], out=vertical[:, : below - start])
    horizontal[:, width - 1 :: width] = 0
    vertical[:, below - start :] = 0
    return horizontal.square().addcmul_(vertical, vertical).sqrt_().sum().item()


def _duality_gap(
    u: Tensor,
    f: Tensor,
    px: Tensor,
    py: Tensor,
    weight: float,
    width: int,
    bands: list[tuple[int, int]],
    scratch: tuple[Tensor, Tensor],
) -> float:
    """The duality gap of planes [N, H·W], summed.

    The gap, energy + ‖div p‖²/(2·weight) + ⟨div p, f⟩, is written as
    Σ(|∇u| − ⟨∇u, p⟩) + weight/2 ‖u − f − div p/weight‖²: no term is negative, so that nothing cancels in float32.
    """
    gap = 0.0
    for start, stop in bands:
        first, second = (each[:, : stop - start] for each in scratch)
        variation = _variation(u, width, start, stop, scratch)
        along = first.mul_(px[:, start:stop]).addcmul_(second, py[:, start:stop]).sum().item()
        residual = torch.sub(u[:, start:stop], f[:, start:stop], out=first)
        divergence = _divergence_views(residual, px[:, start:stop], py[:, start:stop], width, 0, stop - start)
        _add_divergence(divergence, -1 / weight)
        if start:  # the field that flows in from the band above
            residual[:, :width].add_(py[:, start - width : start], alpha=1 / weight)
        gap += variation - along + weight / 2 * torch.linalg.vector_norm(residual).item() ** 2
    return gap


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

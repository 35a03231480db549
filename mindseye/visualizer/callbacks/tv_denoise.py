"""Split-Bregman total-variation denoising of the pictures."""

from torch import Tensor

from mindseye.visualizer.callbacks.periodic import PeriodicFilter
from mindseye.visualizer.filters import tv_denoise


class TVDenoise(PeriodicFilter):
    """Every so many steps: Rudin-Osher-Fatemi denoising with weight `schedules.denoise_weight` / side.

    A weight is one over a length: of two sizes of the same picture the larger needs the smaller weight per pixel for
    the same effect.
    """

    def filtered(self, images: Tensor, now: dict[str, float]) -> Tensor:
        """[C, ch, S, S] in 0..1 -> the same, denoised."""
        return tv_denoise(images, now["denoise_weight"] / images.shape[-1])

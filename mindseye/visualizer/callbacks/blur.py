"""Gaussian blur of the pictures."""

from torch import Tensor

from mindseye.visualizer.callbacks.periodic import PeriodicFilter
from mindseye.visualizer.filters import gaussian_blur


class Blur(PeriodicFilter):
    """Every so many steps: Gaussian blur with σ = `schedule.blur_sigma`. `every` and `where`: see `PeriodicFilter`."""

    def filtered(self, images: Tensor, now: dict[str, float]) -> Tensor:
        """[C, ch, S, S] -> the same, blurred."""
        return gaussian_blur(images, now["blur_sigma"])

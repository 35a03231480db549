"""Total-variation denoising of the pictures."""

from typing import Annotated

from pydantic import Field
from torch import Tensor

from mindseye.fields import Count
from mindseye.visualizer.callbacks.periodic import PeriodicFilter, Where
from mindseye.visualizer.filters import TVBackend, check_tv_options, tv_denoise


class TVDenoise(PeriodicFilter):
    """Every so many steps: Rudin-Osher-Fatemi denoising with weight `schedule.denoise_weight` / side.

    A weight is one over a length: of two sizes of the same picture the larger needs the smaller weight per pixel for
    the same effect.

    `every` and `where`: see `PeriodicFilter`. iterations: at most so many, 1 or more. tolerance: how near the minimum
    is near enough, 0 or more; None of either is the backend's own, see `tv_denoise`. backend: `primal_dual`, on the
    pictures' device; `skimage`, scikit-image's split Bregman on the host. Wrong values raise a ValueError.
    """

    def __init__(
        self,
        every: Count = 10,
        where: Where = "centre",
        iterations: Count | None = None,
        tolerance: Annotated[float, Field(ge=0)] | None = None,
        backend: TVBackend = "primal_dual",
    ) -> None:
        super().__init__(every, where)
        check_tv_options(iterations, tolerance, backend)
        self.iterations = iterations
        self.tolerance = tolerance
        self.backend = backend

    def filtered(self, images: Tensor, now: dict[str, float]) -> Tensor:
        """[C, ch, S, S] in 0..1 -> the same, denoised."""
        weight = now["denoise_weight"] / images.shape[-1]
        return tv_denoise(images, weight, iterations=self.iterations, tolerance=self.tolerance, backend=self.backend)

"""How each facet's image is moved before the network sees it, so that the picture holds under small changes of view."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Transformations:
    """The ranges that one random view is drawn from, uniformly; all 0 is no transformation.

    jitter: largest shift, fraction of the side. scale: largest relative enlargement or reduction. rotation: largest
    angle in degrees. noise: standard deviation of Gaussian noise added to the 0..1 image that the network sees.
    every: steps for which one view is kept.
    """

    jitter: float = 0.05
    scale: float = 0.2
    rotation: float = 10.0
    noise: float = 0.0
    every: int = 1

    def __post_init__(self) -> None:
        limits = {"jitter": 0.5, "scale": 0.9, "rotation": 180.0, "noise": 1.0}
        for name, largest in limits.items():
            if not 0 <= vars(self)[name] <= largest:
                raise ValueError(f"transformations.{name}={vars(self)[name]}: 0 to {largest:g} is right")
        if self.every < 1:
            raise ValueError(f"transformations.every={self.every}: 1 or more steps is right")

    @property
    def moves(self) -> bool:
        """Whether any view differs from the image itself (noise apart)."""
        return bool(self.jitter or self.scale or self.rotation)

    def draw(self, facets: int, generator: torch.Generator, strength: float = 1.0) -> Tensor:
        """One view for each facet: affine matrices [facets, 2, 3] in the coordinates of `affine_grid` (−1 to 1).

        Every range is taken `strength` (0 to 1) times. Always the same number of random numbers, whatever the ranges:
        switching one off leaves the others' draws.
        """
        u = torch.rand(facets, 4, generator=generator, device=generator.device) * 2 - 1
        u = strength * u
        angle = u[:, 0] * math.radians(self.rotation)
        zoom = 1 / (1 + u[:, 1] * self.scale)
        cos, sin = torch.cos(angle) * zoom, torch.sin(angle) * zoom
        shift = u[:, 2:] * (2 * self.jitter)
        rows = torch.stack([cos, -sin, shift[:, 0], sin, cos, shift[:, 1]], dim=1)
        return rows.reshape(facets, 2, 3)


def view(images: Tensor, matrices: Tensor) -> Tensor:
    """Images [c, ch, S, S] seen through affine matrices [c, 2, 3]: bilinear, borders reflected, differentiable."""
    grid = F.affine_grid(matrices.to(images.dtype), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)

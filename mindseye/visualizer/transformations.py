"""How each facet's image is moved before the network sees it, so that the picture holds under small changes of view."""

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from mindseye.fields import Count, value


@value
class Transformations:
    """The ranges that one random view is drawn from, uniformly; all 0 is no transformation."""

    jitter: Annotated[float, Field(ge=0, le=0.5)] = 0.05
    """Largest shift, fraction of the side."""
    scale: Annotated[float, Field(ge=0, le=0.9)] = 0.2
    """Largest relative enlargement or reduction."""
    rotation: Annotated[float, Field(ge=0, le=180)] = 10.0
    """Largest angle, degrees."""
    noise: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Standard deviation of Gaussian noise added to the 0..1 image that the network sees."""
    every: Count = 1
    """Steps for which one view is kept."""

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

"""The centre mask on every step's change of the image."""

from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from mindseye.visualizer.filters import centre_mask
from mindseye.visualizer.module import FacetVisualizer


class GradientMask(pl.Callback):
    """Lets the middle of the image change in full and the corners not at all: σ = `schedule.mask_sigma`.

    What is masked is the *update* of the picture, not the gradient of the parameters: Adam divides a constant factor
    of the gradient out again, and a spectral canvas has no gradient per pixel. For plain SGD the two are the same.
    """

    def __init__(self) -> None:
        self._before: Tensor | None = None

    @torch.no_grad()
    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: FacetVisualizer, batch: Any, batch_idx: int
    ) -> None:
        """Remember the picture before the step."""
        self._before = pl_module.canvas.latent().clone()

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: FacetVisualizer, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Let through what the mask lets through."""
        canvas = pl_module.canvas
        mask = centre_mask(canvas.side, pl_module.now["mask_sigma"], pl_module.device)
        canvas.set_latent_(torch.lerp(self._before, canvas.latent(), mask))
        self._before = None

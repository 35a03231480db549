"""What every filter that runs each so many steps shares: when it is its turn, and where in the picture it works."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from torch import Tensor

from mindseye.fields import Count, check
from mindseye.visualizer.filters import blend, centre_mask
from mindseye.visualizer.module import FacetVisualizer

Where = Literal["centre", "everywhere"]


class PeriodicFilter(pl.Callback):
    """Applies `filtered` to the pictures after every `every`-th step and encodes them back into the canvas.

    every: steps from one time to the next. where: `centre` blends the result in by the centre mask, as in the paper
    (noise may then pile up outside); `everywhere` takes it whole.
    """

    def __init__(self, every: Count = 10, where: Where = "centre") -> None:
        check("every", every, Count)
        check("where", where, Where)
        self.every = every
        self.where = where

    @abstractmethod
    def filtered(self, images: Tensor, now: dict[str, float]) -> Tensor:
        """Images [C, ch, S, S] in 0..1, and the scheduled values -> filtered images of the same shape."""

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: FacetVisualizer, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """After step t = batch_idx + 1, where t is a multiple of `every`."""
        if (batch_idx + 1) % self.every:
            return
        images, now = pl_module.images(), pl_module.now
        filtered = self.filtered(images, now)
        if not isinstance(filtered, Tensor) or filtered.shape != images.shape:
            given = list(filtered.shape) if isinstance(filtered, Tensor) else type(filtered).__name__
            raise ValueError(f"a filter must give pictures {list(images.shape)} as it takes them, not {given}")
        mask = None
        if self.where == "centre":
            mask = centre_mask(pl_module.canvas.side, now["mask_sigma"], pl_module.device)
        pl_module.canvas.encode(blend(images, filtered, mask))


class FunctionFilter(PeriodicFilter):
    """A function as a filter: `function` of images [C, ch, S, S] in 0..1 gives images of the same shape.

    What it gives is taken whole, everywhere in the picture. every: steps from one time to the next, 1 or more.
    """

    def __init__(self, function: Callable[[Tensor], Tensor], every: Count = 10) -> None:
        super().__init__(every, where="everywhere")
        self.function = function

    def filtered(self, images: Tensor, now: dict[str, float]) -> Tensor:
        """What the function gives."""
        return self.function(images)

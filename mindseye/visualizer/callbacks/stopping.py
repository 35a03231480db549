"""Stops facets whose numbers are no longer finite."""

from typing import Any

import pytorch_lightning as pl
import torch

from mindseye.visualizer.module import FacetVisualizer
from mindseye.visualizer.stopping import Held
from mindseye.visualizer.terms import LossTerms


class Stopping(pl.Callback):
    """After each step: pictures that it has spoilt, and those stopped before, are what they were before it.

    It must come after the filters, which change stopped facets too, and before all that looks at the pictures.
    """

    def __init__(self) -> None:
        self._held = Held()

    @torch.no_grad()
    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: FacetVisualizer, batch: Any, batch_idx: int
    ) -> None:
        """Remember every picture."""
        self._held.hold(pl_module.canvas.of_facets())

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: FacetVisualizer, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """After step t = batch_idx + 1."""
        total = pl_module.terms[LossTerms.names().index("total")]
        if pl_module.stops.mark(total, pl_module.canvas.of_facets(), batch_idx + 1):
            self._held.put_back(pl_module.canvas.of_facets(), pl_module.stops.at > 0)

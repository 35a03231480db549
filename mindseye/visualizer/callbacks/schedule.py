"""Linear decays, step by step (Eq. 5)."""

from typing import Any

import pytorch_lightning as pl

from mindseye.visualizer.module import FacetVisualizer


class Schedule(pl.Callback):
    """Before each step: the scheduled values into `module.now`, the learning rate into the image's optimiser."""

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: FacetVisualizer, batch: Any, batch_idx: int
    ) -> None:
        """Step t = batch_idx + 1 of T."""
        pl_module.now = pl_module.method.schedule.at(batch_idx + 1, pl_module.steps)
        for group in pl_module.optimizers()[0].param_groups:
            group["lr"] = pl_module.now["lr"]

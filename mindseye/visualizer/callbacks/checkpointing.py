"""Keeps the fit on disk, and ends it where a signal asks for that."""

import logging
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from mindseye.visualizer.callbacks.snapshots import Snapshots
from mindseye.visualizer.checkpoints import Checkpoint, read_state, write_state
from mindseye.visualizer.facet_sharding import Share
from mindseye.visualizer.module import FacetVisualizer

log = logging.getLogger(__name__)


class Checkpointing(pl.Callback):
    """Writes `checkpoint` every so many seconds, after the last step, and after the step in which a signal came.

    It must be the last callback: what it writes is the state after everything else that a step brings. It looks at the
    clock where the history has just waited for the device, every `share.watchers.every` steps. Each snapshot is a file
    of its own, written once. `share.signals`, if there are any, are watched from the first step on.

    Lightning goes on in the middle of an epoch from a checkpoint that was written in on_train_batch_end.
    """

    def __init__(self, checkpoint: Checkpoint, snapshots: Snapshots, share: Share) -> None:
        self.checkpoint = checkpoint
        self.snapshots = snapshots
        self.share = share
        self.signals = share.signals
        self.seconds_before = 0.0  # what was spent before this fit went on from a checkpoint
        self._begun = self._saved = 0.0
        self._written: dict[int, str] = {}  # step -> the file of its snapshot

    def setup(self, trainer: pl.Trainer, pl_module: FacetVisualizer, stage: str) -> None:
        """The clock starts."""
        self._begun = self._saved = time.monotonic()

    def on_train_start(self, trainer: pl.Trainer, pl_module: FacetVisualizer) -> None:
        """From here on a signal waits for the end of its step. Lightning's own SIGTERM handler has just been set."""
        if trainer.global_step:
            log.info("the fit goes on after step %d of %d", trainer.global_step, pl_module.steps)
        if self.signals is not None:
            self.signals.watch()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: FacetVisualizer, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """After step t = batch_idx + 1."""
        step = batch_idx + 1
        asked = self.signals is not None and bool(self.signals.noted)
        due = step % self.share.watchers.every == 0 and time.monotonic() - self._saved >= self.checkpoint.every_s
        if asked or due or step == pl_module.steps:
            trainer.save_checkpoint(self._file(), weights_only=False)
            self._saved = time.monotonic()
        if asked:
            self.signals.deliver(step)

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: FacetVisualizer, checkpoint: dict[str, Any]) -> None:
        """Snapshots first: a checkpoint names only those that are there."""
        for step, images in self.snapshots.images.items():
            if step not in self._written:
                path = self._file(f"step-{step}")
                write_state(path, self.checkpoint.key, {"images": images})
                self._written[step] = path.name
        checkpoint["snapshot_files"] = self._written

    def on_load_checkpoint(self, trainer: pl.Trainer, pl_module: FacetVisualizer, checkpoint: dict[str, Any]) -> None:
        """The snapshots that the checkpoint names."""
        self._written = dict(checkpoint["snapshot_files"])
        self.snapshots.images = {
            step: read_state(Path(self.checkpoint.folder) / name, self.checkpoint.key)["images"]
            for step, name in self._written.items()
        }

    def state_dict(self) -> dict[str, Any]:
        """Seconds spent so far."""
        return {"seconds": self.seconds_before + time.monotonic() - self._begun}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As it was."""
        self.seconds_before = state_dict["seconds"]

    def _file(self, part: str = "") -> Path:
        return self.checkpoint.file(part, self.share.process, self.share.of)

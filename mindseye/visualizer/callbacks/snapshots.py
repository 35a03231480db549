"""The pictures on the way, and the loss terms of every step."""

import logging
import math
from collections.abc import Callable, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import Logger
from torch import Tensor

from mindseye.fields import Count, check
from mindseye.visualizer.module import FacetVisualizer
from mindseye.visualizer.stopping import nothing_left
from mindseye.visualizer.tracking import columns_of, track_pictures, track_steps

log = logging.getLogger(__name__)


class Snapshots(pl.Callback):
    """Keeps the pictures after every `every`-th step, as uint8 [C, ch, S, S] on the host: `images[step]`.

    `first` is what the fit started from, kept where a tracker is told of it as of step 0.
    """

    def __init__(self, every: Count = 20) -> None:
        check("every", every, Count)
        self.every = every
        self.images: dict[int, Tensor] = {}
        self.first: Tensor | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: FacetVisualizer) -> None:
        """Before step 1, of a fit that goes on not again."""
        if trainer.global_step == 0:
            self.first = to_bytes(pl_module.images()).cpu()
            track_pictures(trainer.loggers, self.first, 0)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: FacetVisualizer, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """After step t = batch_idx + 1."""
        if (batch_idx + 1) % self.every == 0:
            self.images[batch_idx + 1] = to_bytes(pl_module.images()).cpu()
            track_pictures(trainer.loggers, self.images[batch_idx + 1], batch_idx + 1)


def to_bytes(images: Tensor) -> Tensor:
    """0..1 -> uint8, rounded to the nearest of 256 levels."""
    return (images * 255).round().clamp(0, 255).to(torch.uint8)


class History(pl.Callback):
    """Loss terms, (r, b), scheduled values of every step, and the gradients' norms where they were taken.

    They stay on the device until `flush_every` steps are together, so that the loop waits for the device only then.
    `report`, if given, is called at each flush with (step, {term: mean over the facets}). Where several processes share
    the facets, rows and means are over this one's. A facet that was stopped has NaN from that step on, and no part in
    means; it is said once, in one line. Where none is left, a ValueError says why.
    """

    def __init__(self, flush_every: int = 10, report: Callable[[int, dict[str, float]], None] | None = None) -> None:
        self.flush_every = flush_every
        self.report = report
        self.rows: list[Tensor] = []  # each [steps, columns, c] on the host, see columns_of
        self.extra: tuple[str, ...] = ()  # the objective's own terms
        self.scheduled: list[dict[str, float]] = []
        self._waiting: list[Tensor] = []
        self._told = 0  # steps that the trackers know of

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: FacetVisualizer, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """After step t = batch_idx + 1."""
        adaptive, own = pl_module.adaptive, pl_module.own
        self.extra = pl_module.extra or ()
        parts = [pl_module.terms, adaptive.r[None, own], adaptive.b[None, own], pl_module.gradients]
        self._waiting.append(torch.cat(parts))
        self.scheduled.append(dict(pl_module.now))
        if (batch_idx + 1) % self.flush_every == 0 or batch_idx + 1 == pl_module.steps:
            self._flush(trainer, pl_module, batch_idx + 1)

    def on_train_start(self, trainer: pl.Trainer, pl_module: FacetVisualizer) -> None:
        """Trackers that begin anew where a fit goes on are told again what they knew."""
        forgetful = [tracker for tracker in trainer.loggers if getattr(tracker, "forgets", False)]
        self._tell(forgetful, 1, self._told, self.flush_every, last=self._told)

    def retell(self, trackers: Sequence[Logger], every: int) -> None:
        """Tell trackers of all the steps there were so far, each `every`-th and the last."""
        self._tell(trackers, 1, len(self.scheduled), every, last=len(self.scheduled))

    def _tell(self, trackers: Sequence[Logger], first: int, step: int, every: int, last: int) -> None:
        """Of the steps first to step."""
        if first <= step:
            rows, now = torch.cat(self.rows)[first - 1 : step], self.scheduled[first - 1 : step]
            track_steps(trackers, rows, now, first, every=every, last=last, extra=self.extra)

    def _flush(self, trainer: pl.Trainer, pl_module: FacetVisualizer, step: int) -> None:
        self._gather(pl_module, step)
        rows = self.rows[-1]
        if self.report is not None:
            self.report(step, dict(zip(columns_of(self.extra), rows[-1].nanmean(dim=1).tolist(), strict=True)))
        # Also what an interruption has brought to the host between two flushes.
        self._tell(trainer.loggers, self._told + 1, step, self.flush_every, last=pl_module.steps)
        self._told = step

    def _gather(self, pl_module: FacetVisualizer, step: int) -> None:
        """Bring what waits on the device to the host, up to this step."""
        if not self._waiting:
            return
        rows = torch.stack(self._waiting).cpu()
        self._waiting.clear()
        self.rows.append(rows)
        first, stopped = step - len(rows) + 1, pl_module.stopped()
        for c, stop in stopped.items():
            rows[max(0, stop.step - first) :, :, c - pl_module.own.start] = math.nan
            if stop.step >= first and len(stopped) < pl_module.facets:
                log.warning(
                    "facet %d is stopped at step %d, where %s: it stays as it was, the others go on",
                    c, stop.step, stop.reason,
                )  # fmt: skip
        if len(stopped) == pl_module.facets:
            raise ValueError(nothing_left(stopped))

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: FacetVisualizer, checkpoint: dict[str, Any]) -> None:
        """Everything up to this step, also between two flushes."""
        self._gather(pl_module, len(self.scheduled))
        checkpoint["history"] = {**self.kept(), "told": self._told}

    def on_load_checkpoint(self, trainer: pl.Trainer, pl_module: FacetVisualizer, checkpoint: dict[str, Any]) -> None:
        """As it was."""
        self.take(checkpoint["history"])
        self._told = checkpoint["history"].get("told", 0)

    def kept(self) -> dict[str, Any]:
        """All rows as a table [steps, columns, c] and the scheduled values, float64 [steps, names]."""
        scheduled = [list(values.values()) for values in self.scheduled]
        return {
            "rows": torch.cat(self.rows) if self.rows else torch.empty(0, len(columns_of(self.extra)), 0),
            "extra": list(self.extra),
            "names": list(self.scheduled[0]) if self.scheduled else [],
            "scheduled": torch.tensor(scheduled, dtype=torch.float64),
        }

    def take(self, kept: dict[str, Any]) -> None:
        """What `kept` gave, in place of what there is."""
        self.rows, self.extra = [kept["rows"]], tuple(kept.get("extra", ()))
        self.scheduled = [dict(zip(kept["names"], values, strict=True)) for values in kept["scheduled"].tolist()]

    def table(self) -> dict[str, list[float | None]]:
        """A column each: step, facet, every loss term, r, b, gradient norms and scheduled values; a row per step and
        facet. Gradient norms are None where they were not taken, and no column where they never were; everything is
        None from the step on in which a facet was stopped."""
        everything = torch.cat(self.rows) if self.rows else torch.empty(0, len(columns_of(self.extra)), 0)
        T, _, C = everything.shape
        columns: dict[str, list[float | None]] = {
            "step": [t + 1 for t in range(T) for _ in range(C)],
            "facet": [c for _ in range(T) for c in range(C)],
        }
        for index, name in enumerate(columns_of(self.extra)):
            values = everything[:, index].flatten()
            if not (name.startswith("gradient_") and values.isnan().all()):
                columns[name] = [None if math.isnan(value) else value for value in values.tolist()]
        for name in self.scheduled[0] if self.scheduled else ():
            # λ's schedule and the penalty it multiplies would otherwise share a name
            columns[f"schedule_{name}"] = [values[name] for values in self.scheduled for _ in range(C)]
        return columns

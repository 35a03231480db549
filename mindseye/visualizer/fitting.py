"""One call that draws all facets: canvas, module, callbacks and Lightning's trainer put together."""

import logging
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import Logger
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from mindseye.facets.targets import FacetTargets
from mindseye.networks.network import Network
from mindseye.visualizer.callbacks import History, Schedule, Snapshots
from mindseye.visualizer.canvas import Canvas, FourierCanvas
from mindseye.visualizer.data import FacetTargetsDataModule
from mindseye.visualizer.module import FacetVisualizer
from mindseye.visualizer.objective import Objective
from mindseye.visualizer.schedules import Schedules
from mindseye.visualizer.transformations import Transformations

MakeCanvas = Callable[[Tensor, Tensor], Canvas]
Report = Callable[[int, dict[str, float]], None]


@dataclass(frozen=True)
class Fit:
    """What the optimisation gives. Everything is on the host."""

    images: Tensor  # [C, ch, S, S] in 0..1
    snapshots: dict[int, Tensor]  # step -> uint8 [C, ch, S, S]
    history: dict[str, list[float]]  # see callbacks.History.table
    seconds: float
    step_ms: float  # the median of the steps after the first few


def calibrated_adam(parameters: Iterator[nn.Parameter]) -> Optimizer:
    """The default optimiser of the image; its learning rate comes from the schedule."""
    return Adam(parameters, lr=1.0, betas=(0.9, 0.99))


class _StepClock(pl.Callback):
    """When each step ended, by the host's clock."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: object) -> None:
        self.ends.append(time.perf_counter())

    def median_ms(self) -> float:
        if len(self.ends) < 2:
            return float("nan")
        gaps = torch.tensor(self.ends, dtype=torch.float64).diff() * 1000
        return float(gaps[min(5, len(gaps) - 1) :].median())  # the first steps choose kernels and fill caches


def fit(
    network: Network,
    targets: FacetTargets,
    *,
    steps: int = 200,
    objective: Objective | None = None,
    canvas: MakeCanvas = FourierCanvas,
    schedules: Schedules | None = None,
    transformations: Transformations | None = None,
    optimizer: Callable[[Iterator[nn.Parameter]], Optimizer] = calibrated_adam,
    adaptive_lr: float = 0.02,
    filters: Sequence[pl.Callback] = (),
    previous: str | None = None,
    facets_per_batch: int | None = None,
    seed: int = 0,
    accelerator: str = "auto",
    devices: int = 1,
    precision: str = "32-true",
    snapshots_every: int = 50,
    logger: Logger | None = None,
    report: Report | None = None,
    log_every: int = 10,
) -> Fit:
    """Draw every facet of `targets`.

    canvas(initial [C, ch, S, S], photographs [C, N, ch, S, S]) makes the trainable images. filters: callbacks that run
    after each step, in order; none by default. previous: the layer that the penalty P is on, by default the
    tensor entering the target. report(step, terms) is called every `log_every` steps with means over the facets.
    The other arguments are those of FacetVisualizer and of Lightning's Trainer. Raises ValueError in one line.
    """
    if steps < 1:
        raise ValueError(f"steps={steps}: 1 or more is right")
    if facets_per_batch is not None and facets_per_batch < 1:
        raise ValueError(f"facets_per_batch={facets_per_batch}: 1 or more is right, null for all at once")
    if devices != 1:
        raise ValueError(f"trainer.devices={devices}: one run uses one device; 1 is right")
    device = network.mean.device
    trainable = canvas(targets.initial, targets.photographs.float() / 255)
    module = FacetVisualizer(
        network,
        targets.layer,
        trainable,
        objective or Objective(),
        schedules or Schedules(),
        Transformations() if transformations is None else transformations,
        optimizer,
        facets=targets.C,
        steps=steps,
        previous=None if previous is None else network.resolve(previous),
        facets_per_batch=facets_per_batch,
        adaptive_lr=adaptive_lr,
        seed=seed,
    )
    history, snapshots, clock = History(log_every, report), Snapshots(snapshots_every), _StepClock()
    callbacks = [
        Schedule(), *filters, history, snapshots, clock
    ]  # fmt: skip
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="mindseye-") as scratch, _quiet_lightning():
        trainer = pl.Trainer(
            accelerator=accelerator,
            devices=devices,
            precision=precision,
            max_epochs=1,
            logger=logger or False,
            callbacks=callbacks,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=scratch,
        )
        try:
            trainer.fit(module, datamodule=FacetTargetsDataModule(targets, steps))
        except SystemExit:  # what Lightning makes of Ctrl-C
            if trainer.interrupted:
                raise KeyboardInterrupt from None
            raise
    images = module.images().cpu().float()
    network.to(device)  # Lightning leaves everything on the CPU
    lost = [c for c in range(targets.C) if not images[c].isfinite().all()]
    if lost:
        raise ValueError(f"the picture of facet {lost[0]} is no longer finite: try a smaller schedule.lr.start")
    return Fit(
        images=images,
        snapshots=snapshots.images,
        history=history.table(),
        seconds=time.perf_counter() - started,
        step_ms=clock.median_ms(),
    )


class _quiet_lightning:
    """Lightning's notes on hardware and loaders are for its own users; ours get a progress bar and a table."""

    def __enter__(self) -> None:
        self._logger = logging.getLogger("pytorch_lightning")
        self._level = self._logger.level
        self._logger.setLevel(logging.WARNING)
        self._warnings = warnings.catch_warnings()
        self._warnings.__enter__()
        warnings.filterwarnings("ignore", module="pytorch_lightning")

    def __exit__(self, *exception: object) -> None:
        self._warnings.__exit__(*exception)
        self._logger.setLevel(self._level)

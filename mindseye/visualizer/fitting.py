"""One call that draws all facets: canvas, module, callbacks and Lightning's trainer put together."""

import itertools
import logging
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.loggers import Logger
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from mindseye.facets.targets import FacetTargets
from mindseye.networks.network import Network
from mindseye.networks.preparing import Precision, PreparedNetwork, prepare
from mindseye.visualizer.callbacks import History, Schedule, Snapshots
from mindseye.visualizer.canvas import Canvas, FourierCanvas
from mindseye.visualizer.data import FacetTargetsDataModule
from mindseye.visualizer.module import FacetVisualizer
from mindseye.visualizer.objective import Objective
from mindseye.visualizer.schedules import Schedules
from mindseye.visualizer.transformations import Transformations

MakeCanvas = Callable[[Tensor, Tensor], Canvas]
Report = Callable[[int, dict[str, float]], None]
Announce = Callable[[str], None]
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fit:
    """What the optimisation gives. Everything is on the host."""

    images: Tensor  # [C, ch, S, S] in 0..1
    snapshots: dict[int, Tensor]  # step -> uint8 [C, ch, S, S]
    history: dict[str, list[float]]  # see callbacks.History.table
    seconds: float
    step_ms: float  # the median after the first few steps


def calibrated_adam(parameters: Iterator[nn.Parameter]) -> Optimizer:
    """The default optimiser of the image, Adam without momentum; its learning rate comes from the schedule.

    RMSprop (Tieleman & Hinton 2012) with Adam's correction of the first steps; docs/performance.md has it beside Adam.
    """
    return Adam(parameters, lr=1.0, betas=(0.0, 0.9))


class _StepClock(pl.Callback):
    """What a step takes by the host's clock, read only where the host has just waited for the device (History)."""

    def __init__(self, every: int) -> None:
        self.every = every
        self.read: list[tuple[int, float]] = []  # (steps done, seconds)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.read.append((0, time.perf_counter()))

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: FacetVisualizer, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if (batch_idx + 1) % self.every == 0 or batch_idx + 1 == pl_module.steps:
            self.read.append((batch_idx + 1, time.perf_counter()))

    def median_ms(self) -> float:
        gaps = [1000 * (t1 - t0) / (n1 - n0) for (n0, t0), (n1, t1) in itertools.pairwise(self.read)]
        return statistics.median(gaps[1:] or gaps)  # the first steps choose kernels and fill caches


class _WarmUp(pl.Callback):
    """Says that the network is being compiled, and has it done before the first step."""

    def __init__(self, announce: Announce | None) -> None:
        self.announce = announce

    def on_train_start(self, trainer: pl.Trainer, pl_module: FacetVisualizer) -> None:
        if self.announce is not None:
            self.announce("compiling the network (about a minute, once)")
        began = time.perf_counter()
        pl_module.warm_up()
        log.info("compiled in %.0f s", time.perf_counter() - began)


def fit(
    network: Network | PreparedNetwork,
    targets: FacetTargets,
    *,
    steps: int = 80,
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
    precision: Precision = "float32",
    compile: bool = False,
    snapshots_every: int = 20,
    logger: Logger | None = None,
    report: Report | None = None,
    announce: Announce | None = None,
    log_every: int = 10,
) -> Fit:
    """Draw every facet of `targets`.

    canvas(initial [C, ch, S, S], photographs [C, N, ch, S, S]) makes the trainable images. filters: callbacks that run
    after each step, in order; none by default. previous: the layer that the penalty P is on, by default the
    tensor entering the target. precision and compile: how the network runs, see `mindseye.networks.preparing`; pictures
    and sums stay in float32. report(step, terms) is called every `log_every` steps with means over the facets,
    announce(what) when something begins that has no steps. The other arguments are those of FacetVisualizer and of
    Lightning's Trainer. Raises ValueError in one line.
    """
    if steps < 1:
        raise ValueError(f"steps={steps}: 1 or more is right")
    if facets_per_batch is not None and facets_per_batch < 1:
        raise ValueError(f"facets_per_batch={facets_per_batch}: 1 or more is right, null for all at once")
    if devices != 1:
        raise ValueError(f"trainer.devices={devices}: one run uses one device; 1 is right")
    device = network.mean.device
    prepared = prepare(network, targets.layer, previous).in_precision(precision)
    if compile:
        prepared.compile()
    trainable = canvas(targets.initial, targets.photographs.float() / 255)
    module = FacetVisualizer(
        prepared,
        trainable,
        objective or Objective(),
        schedules or Schedules(),
        Transformations() if transformations is None else transformations,
        optimizer,
        facets=targets.C,
        steps=steps,
        facets_per_batch=facets_per_batch,
        adaptive_lr=adaptive_lr,
        seed=seed,
    )
    history, snapshots, clock = History(log_every, report), Snapshots(snapshots_every), _StepClock(log_every)
    callbacks = [Schedule(), *filters, history, snapshots, clock]
    if compile:
        callbacks.insert(0, _WarmUp(announce))
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="mindseye-") as scratch, _quiet_lightning():
        trainer = pl.Trainer(
            accelerator=accelerator,
            devices=devices,
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

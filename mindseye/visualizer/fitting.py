"""One call that draws all facets: canvas, module, callbacks and Lightning's trainer put together."""

import copy
import inspect
import logging
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import Logger
from pytorch_lightning.plugins.environments import LightningEnvironment
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from mindseye.facets.targets import FacetTargets
from mindseye.facets.way_statistics import IMAGE
from mindseye.networks.network import Network
from mindseye.networks.preparing import Precision, PreparedNetwork, prepare
from mindseye.signals import SignalWatch
from mindseye.visualizer.callbacks import Checkpointing, FunctionFilter, History, Schedule, Snapshots, Stopping
from mindseye.visualizer.canvas import Canvas, FourierCanvas
from mindseye.visualizer.checkpoints import Checkpoint, SafetensorsIO, read_state
from mindseye.visualizer.data import FacetTargetsDataModule
from mindseye.visualizer.facet_sharding import RESULT, FacetSharding, SharedOut, Voice
from mindseye.visualizer.module import FacetVisualizer
from mindseye.visualizer.objective import LossFunction, Objective, matching_of
from mindseye.visualizer.quiet import quiet_lightning
from mindseye.visualizer.schedules import Schedules
from mindseye.visualizer.stopping import Stopped, nothing_left
from mindseye.visualizer.tracking import as_rank_zero, as_trackers, track_pictures
from mindseye.visualizer.transformations import Transformations

Filter = pl.Callback | Callable[[Tensor], Tensor]  # a function runs every 10 steps, see FunctionFilter
MakeCanvas = Callable[[Tensor, Tensor], Canvas]
Report = Callable[[int, dict[str, float]], None]
Announce = Callable[[str], None]
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fit:
    """What the optimisation gives. Everything is on the host."""

    images: Tensor  # [C, ch, S, S] in 0..1
    snapshots: dict[int, Tensor]  # the pictures on the way: step -> uint8 [C, ch, S, S]
    history: dict[str, list[float | None]]  # columns step, facet, loss terms, r, b, schedules; a row per step and facet
    seconds: float  # all of it, those before an interruption too
    step_ms: float  # the median after the first few steps
    stopped: dict[int, Stopped]  # facet -> since when and why it is as it is; empty where all went well

    def __repr__(self) -> str:
        """One line for a prompt, which would otherwise print every pixel."""
        return f"<Fit of {len(self.images)} facets: {self.history['step'][-1]} steps, {self.seconds:.1f} s>"


def calibrated_adam(parameters: Iterator[nn.Parameter]) -> Optimizer:
    """The default optimiser of the image, Adam without momentum; its learning rate comes from the schedule.

    RMSprop (Tieleman & Hinton 2012) with Adam's correction of the first steps.
    """
    return Adam(parameters, lr=1.0, betas=(0.0, 0.9))


class _StepClock(pl.Callback):
    """What a step takes by the host's clock, read only where the host has just waited for the device (History)."""

    def __init__(self, every: int) -> None:
        self.every = every
        self.gaps: list[float] = []  # milliseconds a step, one number between two readings
        self._last = (0, 0.0)  # (steps done, seconds)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._last = (trainer.global_step, time.perf_counter())

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: FacetVisualizer, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if (batch_idx + 1) % self.every == 0 or batch_idx + 1 == pl_module.steps:
            (n0, t0), self._last = self._last, (batch_idx + 1, time.perf_counter())
            self.gaps.append(1000 * (self._last[1] - t0) / (self._last[0] - n0))

    def state_dict(self) -> dict[str, Any]:
        return {"gaps": list(self.gaps)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.gaps = list(state_dict["gaps"])


class _WarmUp(pl.Callback):
    """Has the network compiled before the first step, and says so."""

    def __init__(self, announce: Announce | None) -> None:
        self.announce = announce

    def on_train_start(self, trainer: pl.Trainer, pl_module: FacetVisualizer) -> None:
        if trainer.global_step == pl_module.steps:  # a finished fit, read back
            return
        pl_module.check_gradient()
        if self.announce is not None:
            self.announce("compiling the network (about a minute, once)")
        began = time.perf_counter()
        pl_module.network.compile()
        pl_module.warm_up()
        log.info("compiled in %.0f s", time.perf_counter() - began)


@as_rank_zero()
def fit(
    network: Network | PreparedNetwork,
    targets: FacetTargets,
    *,
    steps: int = 80,
    objective: LossFunction | None = None,
    canvas: MakeCanvas = FourierCanvas,
    schedules: Schedules | None = None,
    transformations: Transformations | None = None,
    optimizer: Callable[[Iterator[nn.Parameter]], Optimizer] = calibrated_adam,
    adaptive_lr: float = 0.02,
    filters: Sequence[Filter] = (),
    previous: str | None = None,
    facets_per_batch: int | None = None,
    seed: int = 0,
    accelerator: str = "auto",
    devices: int = 1,
    precision: Precision = "float32",
    compile: bool = False,
    snapshots_every: int = 20,
    gradients_every: int | None = None,
    logger: Logger | Sequence[Logger] | None = None,
    report: Report | None = None,
    announce: Announce | None = None,
    log_every: int = 10,
    checkpoint: Checkpoint | None = None,
) -> Fit:
    """Draw every facet of `targets`.

    canvas(initial [C, ch, S, S], photographs [C, N, ch, S, S]) makes the trainable images. filters: callbacks that run
    after each step, in order, or functions of the images [C, ch, S, S] in 0..1; none by default. previous: the layer
    that the penalty P is on, by default the tensor entering the target. devices: processes, each with a device of its
    own, that share the facets out among them; on a CPU they also share out the threads. precision and compile: how the
    network runs, see `mindseye.networks.preparing`; pictures and sums stay in float32. report(step, terms) is called
    every `log_every` steps with means over the facets (with several devices, over those of the first), announce(what)
    when something begins that has no steps. logger: one of Lightning's, or several, see `mindseye.visualizer.tracking`;
    with several devices they are told everything at the end. gradients_every: see FacetVisualizer. The other arguments
    are those of FacetVisualizer and of Lightning's Trainer.

    checkpoint: where the fit is kept while it runs, and gone on from. While the steps run SIGTERM, SIGINT, SIGUSR1 and
    SIGUSR2 then wait for the end of their step: the checkpoint is written and the handler that stood before is called.
    Where there was none, `Interrupted` is raised; where it returns, the fit goes on. A second SIGINT goes to that
    handler at once.

    A facet whose loss, gradient or picture is no longer finite is stopped: it stays as it was before that step,
    and the others' bits are those of a fit without it. `Fit.stopped` and one line in the log say so.

    Raises ValueError in one line; also where every facet is stopped.
    """
    objective = Objective() if objective is None else objective
    transformations = Transformations() if transformations is None else transformations
    check_parts(targets, objective, canvas, filters)
    if steps < 1:
        raise ValueError(f"steps={steps}: 1 or more is right")
    if gradients_every is not None and gradients_every < 1:
        raise ValueError(f"gradients_every={gradients_every}: 1 or more steps is right, None for never")
    if facets_per_batch is not None and facets_per_batch < 1:
        raise ValueError(f"facets_per_batch={facets_per_batch}: 1 or more is right, null for all at once")
    processes = count_processes(devices, targets.C, accelerator)
    device = network.mean.device
    prepared = prepare_for(network, targets, objective, previous).in_precision(precision)
    if compile:
        if not prepared.traced:
            prepared.compile()  # says why it cannot be
        prepared = copy.copy(prepared)  # the caller's own stays as it is
        if gradients_every is not None:
            log.info("compile=true: the terms' own gradients are not noted, since a compiled program goes back once")
    if precision == "float16" and device.type == "cpu":
        log.warning(
            "precision=float16 on a CPU takes many times as long as float32; bfloat16 is right where it computes in it"
        )
    if precision == "tf32" and (device.type != "cuda" or torch.cuda.get_device_capability(device) < (8, 0)):
        log.info("precision=tf32: %s has no TF32; the network computes in float32", device)
    check_deterministic(device, transformations)
    module = FacetVisualizer(
        prepared,
        canvas(targets.initial, targets.photographs.float() / 255),
        objective,
        schedules or Schedules(),
        transformations,
        optimizer,
        facets=targets.C,
        steps=steps,
        facets_per_batch=facets_per_batch,
        adaptive_lr=adaptive_lr,
        seed=seed,
        gradients_every=gradients_every,
    )
    voice = Voice()
    if processes > 1:
        prepared.to("cpu")
        if device.type == "cuda":
            torch.cuda.empty_cache()  # the first process draws on the same one
        heard = (report and voice.report, announce and voice.announce)
    else:
        heard = (report, announce)
    callbacks = _callbacks(filters, heard, compile, snapshots_every, log_every, checkpoint)
    matched = (IMAGE, *prepared.way) if matching_of(objective) and targets.way else ()
    data = FacetTargetsDataModule(targets, steps, matched)
    trackers = as_trackers(logger)
    started = time.perf_counter()
    try:
        with tempfile.TemporaryDirectory(prefix="mindseye-") as scratch, quiet_lightning():
            if checkpoint is not None:
                checkpoint.check(processes)
            files = checkpoint or Checkpoint(Path(scratch), "")
            settings = {
                "accelerator": accelerator,
                "devices": processes,
                "logger": trackers if processes == 1 and trackers else False,
                "callbacks": callbacks,
                "plugins": [LightningEnvironment(), SafetensorsIO(files.key)],
                "default_root_dir": scratch,
            }
            if processes == 1:
                parts = [_draw(settings, module, data, checkpoint)]
            else:
                launcher = SharedOut(processes, voice, _part, files, checkpoint, report, announce)
                parts = _draw_shares(settings, module, data, launcher)
    finally:
        network.to(device)  # Lightning leaves everything on the CPU
    fitted, history = _whole(parts, started)
    if processes > 1:
        with as_rank_zero():  # Lightning counted from the NODE_RANK of whatever started this
            history.retell(trackers, log_every)
            for step, images in fitted.snapshots.items():
                track_pictures(trackers, images, step)
            for tracker in trackers:
                tracker.save()
    return fitted


def prepare_for(
    network: Network | PreparedNetwork, targets: FacetTargets, objective: LossFunction, previous: str | None = None
) -> PreparedNetwork:
    """The network up to the target, with the layers on the way that the objective matches.

    Raises ValueError where `targets` do not say what the photographs are answered there.
    """
    matching = matching_of(objective)
    known = tuple(statistics.layer for statistics in targets.way if statistics.layer != IMAGE)
    if matching is None:
        wanted: tuple[str, ...] = ()
    elif matching.layers == "auto":
        wanted = known
    else:
        wanted = tuple(dict.fromkeys(map(network.resolve, matching.layers)))
    if lacking := [name for name in wanted if name not in known]:
        raise ValueError(
            f"the targets do not say how the photographs are answered at {', '.join(lacking)}, where they are to be "
            "matched: discover_facets(…, way=[…]) finds it out"
        )
    prepared = prepare(network, targets.layer, previous, wanted)
    if wanted and prepared.way != wanted:
        raise ValueError(
            f"the network is prepared for {', '.join(prepared.way)} on the way, the objective matches "
            f"{', '.join(wanted)}: prepare it for these"
        )
    return prepared


def check_parts(targets: object, objective: object, canvas: object, filters: object) -> None:
    """Raises ValueError, in one line, for a part of one's own that is given as what it is not."""
    if not isinstance(targets, FacetTargets):
        raise ValueError(f"the targets are a {type(targets).__name__}: discover_facets gives what is right")
    if isinstance(objective, type):
        raise ValueError(f"the objective is the class {objective.__name__}: one of it is right, {objective.__name__}()")
    wanted = ("gain", "adaptive", "adaptive_distance", "weights", "__call__")
    lacking = [name for name in wanted if not hasattr(objective, name)]
    if lacking:
        raise ValueError(
            f"the objective, {_called(objective)}, has no {', '.join(lacking)}: one of a class with what LossFunction "
            "lists is right, or of a subclass of Objective"
        )
    if isinstance(canvas, nn.Module):
        kind = type(canvas).__name__
        raise ValueError(f"the canvas is one {kind}: the class is right, {kind}, called with the photographs later")
    if not isinstance(filters, list | tuple):
        raise ValueError(f"filters is {_called(filters)}: a list of them is right")
    for one in filters:
        if isinstance(one, type):
            raise ValueError(f"a filter is the class {one.__name__}: one of it is right, {one.__name__}()")
        if isinstance(one, pl.callbacks.Checkpoint):
            raise ValueError(f"a filter is {_called(one)}: a fit keeps its own state, see `checkpoint`")
        if not (isinstance(one, pl.Callback) or callable(one)):
            raise ValueError(
                f"a filter is {_called(one)}: one of a subclass of PeriodicFilter, or a function of images, is right"
            )


def _called(thing: object) -> str:
    return f"the function {thing.__name__}" if inspect.isfunction(thing) else f"a {type(thing).__name__}"


def count_processes(devices: int, facets: int, accelerator: str) -> int:
    """How many processes draw so many facets. Raises ValueError where there are not as many devices."""
    if devices < 1:
        raise ValueError(f"trainer.devices={devices}: 1 or more is right")
    processes = min(devices, facets)
    if processes < devices:
        log.info("%d facets are shared out among %d devices, not %d", facets, processes, devices)
    if processes > 1 and accelerator != "cpu":
        gpus = torch.cuda.device_count()
        if gpus == 0 and torch.backends.mps.is_available():
            gpus = 1
        if processes > gpus and (gpus or accelerator != "auto"):
            raise ValueError(
                f"trainer.devices={devices}: this machine has {gpus} GPU{'s' * (gpus != 1)}; "
                f"{max(gpus, 1)} is right, or trainer.accelerator=cpu"
            )
    return processes


def check_deterministic(device: torch.device, transformations: Transformations) -> None:
    """Raises ValueError where torch is told to compute as it cannot: a GPU's views have one form of gradient alone."""
    strict = torch.are_deterministic_algorithms_enabled() and not torch.is_deterministic_algorithms_warn_only_enabled()
    if strict and device.type == "cuda" and transformations.moves:
        raise ValueError(
            "torch.use_deterministic_algorithms(True): the gradient of random views has no deterministic form on a "
            "GPU: add warn_only=True, or draw with Transformations(0, 0, 0)"
        )


def _callbacks(
    filters: Sequence[Filter],
    heard: tuple[Report | None, Announce | None],
    compile: bool,
    snapshots_every: int,
    log_every: int,
    checkpoint: Checkpoint | None,
) -> list[pl.Callback]:
    """All callbacks in the order in which they must run."""
    report, announce = heard
    snapshots = Snapshots(snapshots_every)
    own = [one if isinstance(one, pl.Callback) else FunctionFilter(one) for one in filters]
    callbacks = [Schedule(), *own, Stopping(), History(log_every, report), snapshots, _StepClock(log_every)]
    if compile:
        callbacks.insert(0, _WarmUp(announce))
    if checkpoint is not None:
        callbacks.append(Checkpointing(checkpoint, snapshots, log_every))
    return callbacks


def _trainer(settings: dict[str, Any], strategy: FacetSharding | str) -> pl.Trainer:
    return pl.Trainer(
        **settings,
        strategy=strategy,
        max_epochs=1,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def _draw(
    settings: dict[str, Any], module: FacetVisualizer, data: FacetTargetsDataModule, checkpoint: Checkpoint | None
) -> dict[str, Any]:
    """In this process, on one device."""
    trainer = _trainer(settings, "auto")
    if checkpoint is None:
        _fit(trainer, module, data)
        return _part(trainer)
    if checkpoint.file().exists():
        trainer.ckpt_path = str(checkpoint.file())
    signals = SignalWatch()
    # Not the last of them: Lightning puts those behind it that installed packages bring.
    next(one for one in trainer.callbacks if type(one) is Checkpointing).signals = signals
    try:
        _fit(trainer, module, data)
        signals.deliver(module.steps)  # what came after the last step
    finally:
        signals.put_back()
    return _part(trainer)


def _draw_shares(
    settings: dict[str, Any], module: FacetVisualizer, data: FacetTargetsDataModule, launcher: SharedOut
) -> list[dict[str, Any]]:
    """In processes of their own, a device each."""
    files = [launcher.files.file(RESULT, rank, launcher.processes) for rank in range(launcher.processes)]
    if not all(path.exists() for path in files):
        _fit(_trainer(settings, FacetSharding(launcher)), module, data)
    return [read_state(path, launcher.files.key) for path in files]


def _fit(trainer: pl.Trainer, module: FacetVisualizer, data: FacetTargetsDataModule) -> None:
    try:
        trainer.fit(module, datamodule=data)
    except SystemExit as ended:
        if isinstance(ended.__context__, KeyboardInterrupt):  # what Lightning makes of Ctrl-C
            raise KeyboardInterrupt from None
        raise


def _part(trainer: pl.Trainer) -> dict[str, Any]:
    """What one process has drawn."""
    by_kind = {type(callback): callback for callback in trainer.callbacks}
    kept = by_kind.get(Checkpointing)
    return {
        "images": trainer.lightning_module.images().cpu().float(),
        "history": by_kind[History].kept(),
        "snapshots": by_kind[Snapshots].images,
        "gaps": by_kind[_StepClock].gaps,
        "stopped": [(c, said.step, said.why) for c, said in trainer.lightning_module.stopped().items()],
        "seconds_before": 0.0 if kept is None else kept.seconds_before,
    }


def _whole(parts: list[dict[str, Any]], started: float) -> tuple[Fit, History]:
    """The parts of all processes, in the order of their facets."""
    images = torch.cat([part["images"] for part in parts])
    stopped = {c: Stopped(step, why) for part in parts for c, step, why in part["stopped"]}
    if len(stopped) == len(images):
        raise ValueError(nothing_left(stopped))
    spoilt = [c for c in range(len(images)) if not images[c].isfinite().all()]
    if spoilt:
        raise ValueError(f"the picture of facet {spoilt[0]} was not finite before the first step: see its canvas")
    history = History()
    rows = torch.cat([part["history"]["rows"] for part in parts], dim=2)
    history.take({**parts[0]["history"], "rows": rows})
    gaps = [max(each) for each in zip(*(part["gaps"] for part in parts), strict=False)]
    fitted = Fit(
        images=images,
        snapshots={step: torch.cat([part["snapshots"][step] for part in parts]) for step in parts[0]["snapshots"]},
        history=history.table(),
        seconds=max(part["seconds_before"] for part in parts) + time.perf_counter() - started,
        step_ms=statistics.median(gaps[1:] or gaps),  # the first steps choose kernels and fill caches
        stopped=stopped,
    )
    return fitted, history

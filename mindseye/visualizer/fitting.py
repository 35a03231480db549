"""One call that draws all facets: canvas, module, callbacks and Lightning's trainer put together."""

import copy
import logging
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.environments import LightningEnvironment
from pytorch_lightning.profilers import PassThroughProfiler
from torch import Tensor

from mindseye.facets.targets import FacetTargets
from mindseye.facets.way_statistics import IMAGE
from mindseye.networks.network import Network
from mindseye.networks.preparing import PreparedNetwork, prepare
from mindseye.settings import Running
from mindseye.signals import SignalWatch
from mindseye.visualizer.anchor import early_of
from mindseye.visualizer.callbacks import (
    Checkpointing,
    Compiling,
    FunctionFilter,
    History,
    Schedule,
    Snapshots,
    Stopping,
)
from mindseye.visualizer.checkpoints import Checkpoint, SafetensorsIO, read_state
from mindseye.visualizer.data import FacetTargetsDataModule
from mindseye.visualizer.devices import count_processes
from mindseye.visualizer.facet_sharding import RESULT, Part, Share, SharedOut
from mindseye.visualizer.identity import ADDRESS, identity
from mindseye.visualizer.method import Method
from mindseye.visualizer.module import FacetVisualizer
from mindseye.visualizer.nodes import Node, joined, share_of
from mindseye.visualizer.objective import matching_of
from mindseye.visualizer.quiet import quiet_lightning
from mindseye.visualizer.stopping import Stopped, nothing_left
from mindseye.visualizer.tracking import as_rank_zero, as_trackers, track_pictures
from mindseye.visualizer.transformations import Transformations
from mindseye.visualizer.watching import Watchers, check_filters
from mindseye.words import called

Filter = pl.Callback | Callable[[Tensor], Tensor]  # a function runs every 10 steps, see FunctionFilter
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
    transparency: Tensor  # [C, S, S]: Σ|∂L/∂x| over steps and channels, see `FacetVisualizer`
    extra: tuple[str, ...] = ()  # the objective's own terms, columns of the history

    def __repr__(self) -> str:
        """One line for a prompt, which would otherwise print every pixel."""
        return f"<Fit of {len(self.images)} facets: {self.history['step'][-1]} steps, {self.seconds:.1f} s>"


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


@as_rank_zero()
def fit(
    network: Network | PreparedNetwork,
    targets: FacetTargets,
    method: Method = Method(),
    running: Running = Running(),
    watchers: Watchers = Watchers(),
) -> Fit:
    """Draw every facet of `targets`, as `method` says; `running` says where, and on a CPU changes no bit of a picture.

    `running.folder` is where the fit is kept while it runs, and gone on from: by whoever asks for the same network,
    targets and method, whatever its `running`, but for the number of devices and nodes. While the steps run SIGTERM,
    SIGINT, SIGUSR1 and SIGUSR2 then wait for the end of their step: the checkpoint is written and the handler that
    stood before is called. Where there was none, `Interrupted` is raised; where it returns, the fit goes on. A second
    SIGINT goes to that handler at once.

    A facet whose loss, gradient or picture is no longer finite is stopped: it stays as it was before that step,
    and the others' bits are those of a fit without it. `Fit.stopped` and one line in the log say so.

    With `running.nodes` every node's task calls it with the same, and each is given the whole; loggers and `report` are
    the first's alone.

    Raises ValueError in one line; also where every facet is stopped. ChildProcessError where what ended another node's
    task ends this one.
    """
    check_targets(targets)
    check_asked(method, running, watchers)
    with joined(running.nodes, running.folder) as node:
        watchers = watchers if node is None or node.is_first else watchers.silenced()
        processes = count_processes(running.devices, targets.C, running.accelerator, running.nodes)
        prepared = _prepared_for_drawing(network, targets, method, running)
        # As it was given: what is drawn with changes the filters' own attributes.
        key = "" if running.folder is None else fit_key(prepared, targets, method)
        canvas = method.canvas(targets.initial, targets.photographs.float() / 255)
        matched = (IMAGE, *prepared.way) if matching_of(method.objective) and targets.way else ()
        work = _Work(
            FacetVisualizer(prepared, canvas, method, running, targets.C),
            FacetTargetsDataModule(targets, method.steps, matched),
            None if running.folder is None else Checkpoint(Path(running.folder), key, running.checkpoint),
        )
        started = time.perf_counter()
        with _left_as_it_was(network):
            if work.checkpoint is not None:
                check = partial(work.checkpoint.check, processes)
                if node is None:
                    check()
                else:
                    node.agree(key, check)
            if processes == 1 and node is None:
                with _signals_watched(work) as signals:
                    parts = [_draw(work, Share(0, 1, watchers, signals))]
            else:
                parts = _draw_shares(work, processes, watchers, node)
        fitted, history = _put_together(parts, started)
        if processes > 1 or node is not None:
            _retell(fitted, history, parts, watchers)
        return fitted


def _prepared_for_drawing(
    network: Network | PreparedNetwork, targets: FacetTargets, method: Method, running: Running
) -> PreparedNetwork:
    """The network as it is drawn with. Raises ValueError for what cannot be computed, and says what is in vain."""
    device = network.mean.device
    prepared = prepare_for(network, targets, method).in_precision(method.precision)
    if running.compile:
        if not prepared.traced:
            prepared.compile()  # says why it cannot be
        prepared = copy.copy(prepared)  # the caller's own stays as it is
        if running.gradients is not None:
            log.info("compile=true: the terms' own gradients are not noted, since a compiled program goes back once")
    if method.precision == "float16" and device.type == "cpu":
        log.warning(
            "precision=float16 on a CPU takes many times as long as float32; take bfloat16 where it computes in it"
        )
    if method.precision == "tf32" and (device.type != "cuda" or torch.cuda.get_device_capability(device) < (8, 0)):
        log.info("precision=tf32: %s has no TF32; the network computes in float32", device)
    check_deterministic(device, method.transformations)
    check_filters(method.filters)
    return prepared


@contextmanager
def _left_as_it_was(network: Network | PreparedNetwork) -> Iterator[None]:
    """Lightning leaves everything on the CPU, and torch's switches as the trainer had them."""
    device, anomalies, benchmark = network.mean.device, torch.is_anomaly_enabled(), torch.backends.cudnn.benchmark
    try:
        yield
    finally:
        network.to(device)
        torch.autograd.set_detect_anomaly(anomalies)
        torch.backends.cudnn.benchmark = benchmark


def fit_key(network: PreparedNetwork, targets: FacetTargets, method: Method) -> str:
    """sha256 over all that decides a bit of the pictures: network, targets and method."""
    modules = ADDRESS.sub("", repr(network.body))  # weights alone do not say what is computed with them
    asked = (network.layer, network.previous, network.way, network.early, modules, network.fingerprint())
    # The same wherever the photographs lie.
    return identity(asked, replace(targets, root="").content_hash(), replace(method, previous=network.previous))


def prepare_for(
    network: Network | PreparedNetwork, targets: FacetTargets, method: Method = Method()
) -> PreparedNetwork:
    """The network up to the target, with the layers on the way that the objective matches, and the early one at which
    it anchors pictures.

    Raises ValueError where `targets` do not say what the photographs are answered there, or the network is prepared
    for others.
    """
    matching = matching_of(method.objective)
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
            "matched: discover_facets(…, Facets(way=[…])) finds it out"
        )
    early = early_of(network, targets.layer, method.objective)
    prepared = prepare(network, targets.layer, method.previous, wanted, early)
    if wanted and prepared.way != wanted:
        raise ValueError(
            f"the network is prepared for {', '.join(prepared.way)} on the way, the objective matches "
            f"{', '.join(wanted)}: prepare it for these"
        )
    return prepared


def check_targets(targets: object) -> None:
    """Raises ValueError, in one line, for what is given in place of targets."""
    if not isinstance(targets, FacetTargets):
        raise ValueError(f"the targets must be what discover_facets gives, not {called(targets)}")


def check_asked(method: object, running: object, watchers: object) -> None:
    """Raises ValueError, in one line, for what is given in place of a Method, a Running or Watchers."""
    asked = (("method", method, Method), ("running", running, Running), ("watchers", watchers, Watchers))
    for name, given, kind in asked:
        if not isinstance(given, kind):
            raise ValueError(f"{name} must be {kind.__name__}(…), not {called(given)}")


def check_deterministic(device: torch.device, transformations: Transformations) -> None:
    """Raises ValueError where torch is told to compute as it cannot: a GPU's views have one form of gradient alone."""
    strict = torch.are_deterministic_algorithms_enabled() and not torch.is_deterministic_algorithms_warn_only_enabled()
    if strict and device.type == "cuda" and transformations.moves:
        raise ValueError(
            "torch.use_deterministic_algorithms(True): the gradient of random views has no deterministic form on a "
            "GPU: add warn_only=True, or draw with Transformations(jitter=0, scale=0, rotation=0)"
        )


@dataclass(frozen=True)
class _Work:
    """A fit, whoever draws it."""

    module: FacetVisualizer
    data: FacetTargetsDataModule
    checkpoint: Checkpoint | None


@contextmanager
def _signals_watched(work: _Work) -> Iterator[SignalWatch | None]:
    """The signals that wait for the end of a step, where the fit is kept."""
    if work.checkpoint is None:
        yield None
        return
    signals = SignalWatch()
    try:
        yield signals
        signals.deliver(work.module.steps)  # what came after the last step
    finally:
        signals.put_back()


def _draw_shares(work: _Work, processes: int, watchers: Watchers, node: Node | None) -> list[Part]:
    """In processes of their own, a device each; of several nodes everybody's parts, once all have drawn theirs."""
    network = work.module.network
    device = network.mean.device
    network.to("cpu")
    if device.type == "cuda":
        torch.cuda.empty_cache()  # the first process draws on the same one
    with tempfile.TemporaryDirectory(prefix="mindseye-") as scratch:
        files, watched = work.checkpoint or Checkpoint(Path(scratch)), work.checkpoint is not None
        shares = SharedOut(processes, partial(_draw, work), files, watchers, watched, node)
        if not all(files.file(RESULT, process, processes).exists() for process in shares.own):
            shares.run(Path(scratch), work.module.steps)
        if node is not None:
            _wait_for_all(node, "drawn", work.module.steps)
        parts = [read_state(files.file(RESULT, process, processes), files.key) for process in range(processes)]
        if node is not None:
            _wait_for_all(node, "read", work.module.steps)  # from here on the checkpoint may be discarded
        return parts


def _wait_for_all(node: Node, stage: str, steps: int) -> None:
    """Until every node is so far; a signal meanwhile goes to the handler that stood before."""
    node.say(stage)
    signals = SignalWatch()
    signals.watch()
    try:
        node.wait(stage, meanwhile=lambda: signals.deliver(steps) if signals.noted else None)
    finally:
        signals.put_back()


@as_rank_zero()
def _draw(work: _Work, share: Share) -> Part:
    """One share, all facets perhaps, on one device."""
    module, running = work.module, work.module.running
    if share.of > 1:
        module.keep(share_of(module.facets, share.process, share.of))
    with tempfile.TemporaryDirectory(prefix="mindseye-") as scratch, quiet_lightning(), _ctrl_c():
        trainer = pl.Trainer(
            **_device(running, share),
            logger=as_trackers(share.watchers.logger) or False,
            callbacks=_callbacks(work, share),
            plugins=[LightningEnvironment(), SafetensorsIO("" if work.checkpoint is None else work.checkpoint.key)],
            default_root_dir=scratch,
            log_every_n_steps=share.watchers.every,
            profiler=running.profiler,
            detect_anomaly=running.detect_anomaly or torch.is_anomaly_enabled(),
            benchmark=running.benchmark,
            max_epochs=1,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        if work.checkpoint is not None and (mine := work.checkpoint.file("", share.process, share.of)).exists():
            trainer.ckpt_path = str(mine)
        trainer.fit(module, datamodule=work.data)
        return _drawn_part(trainer)


def _device(running: Running, share: Share) -> dict[str, Any]:
    """Lightning's accelerator and device: of several processes, the one of this."""
    if share.of == 1:
        return {"accelerator": running.accelerator, "devices": 1}
    if running.accelerator != "cpu" and torch.cuda.is_available():
        return {"accelerator": "cuda", "devices": [share.device]}
    return {"accelerator": "cpu", "devices": 1}


def _callbacks(work: _Work, share: Share) -> list[pl.Callback]:
    """All callbacks in the order in which they must run."""
    running, every = work.module.running, share.watchers.every
    snapshots = Snapshots(running.snapshots)
    own = [given if isinstance(given, pl.Callback) else FunctionFilter(given) for given in work.module.method.filters]
    callbacks = [Schedule(), *own, Stopping(), History(every, share.watchers.report), snapshots, _StepClock(every)]
    callbacks += share.watchers.callbacks
    if running.compile:
        callbacks.insert(0, Compiling(share.watchers.announce))
    if work.checkpoint is not None:
        callbacks.append(Checkpointing(work.checkpoint, snapshots, share))
    return callbacks


@contextmanager
def _ctrl_c() -> Iterator[None]:
    """Ctrl-C stays what it is: Lightning ends the process for it."""
    try:
        yield
    except SystemExit as ended:
        if isinstance(ended.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise


def _drawn_part(trainer: pl.Trainer) -> Part:
    """What one process has drawn."""
    if not isinstance(trainer.profiler, PassThroughProfiler):
        log.info("profile of the fit:\n%s", trainer.profiler.summary())
    by_kind = {type(callback): callback for callback in trainer.callbacks}
    kept = by_kind.get(Checkpointing)
    return {
        "images": trainer.lightning_module.images().cpu().float(),
        "transparency": trainer.lightning_module.transparency.cpu(),
        "history": by_kind[History].kept(),
        "snapshots": by_kind[Snapshots].images,
        "first": by_kind[Snapshots].first,
        "gaps": by_kind[_StepClock].gaps,
        "stopped": [(c, stop.step, stop.why) for c, stop in trainer.lightning_module.stopped().items()],
        "seconds_before": 0.0 if kept is None else kept.seconds_before,
    }


def _retell(fitted: Fit, history: History, parts: list[Part], watchers: Watchers) -> None:
    """To trackers, which no process but this one may hear, what all of them have drawn."""
    trackers = as_trackers(watchers.logger)
    history.retell(trackers, watchers.every)
    if all(part["first"] is not None for part in parts):
        track_pictures(trackers, torch.cat([part["first"] for part in parts]), 0)
    for step, images in fitted.snapshots.items():
        track_pictures(trackers, images, step)
    for tracker in trackers:
        tracker.save()


def _put_together(parts: list[Part], started: float) -> tuple[Fit, History]:
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
        transparency=torch.cat([part["transparency"] for part in parts]),
        extra=history.extra,
    )
    return fitted, history

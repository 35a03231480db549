"""One job, from its settings to its result: what Hydra calls."""

import logging
import time
from collections.abc import Mapping
from contextlib import ExitStack
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from mindseye.commands import verbosity
from mindseye.commands.checking import check
from mindseye.commands.constructors import check_constructors
from mindseye.commands.endings import told_in_one_line
from mindseye.commands.gallery import try_gallery
from mindseye.commands.helping import handed_out, is_helper, let_go, nodes_of
from mindseye.commands.launchers import enter
from mindseye.commands.parts import Parts, check_early, make_method, make_parts
from mindseye.commands.progress import JobProgress
from mindseye.commands.repeating import EarlierRun, tell_differences
from mindseye.commands.stages import Shown, discover, judges, load, load_judges, prepare_drawing, show
from mindseye.commands.tracking import tracked
from mindseye.files import hash_of
from mindseye.reports.tables import closing_table
from mindseye.results.measures import numbers, usual
from mindseye.results.run_status import RunRecord
from mindseye.settings import Run
from mindseye.sweeps.inputs import INPUTS
from mindseye.visualizer.nodes import check_alone, joined

if TYPE_CHECKING:
    from mindseye.results.visualization import Visualization
    from mindseye.visualizer.nodes import Node
    from mindseye.visualizer.watching import Watchers

CHECKPOINT = "checkpoint"  # in the run's folder, while it runs
# What --from named, for the job that Hydra calls in this process.
repeated: ContextVar[EarlierRun | None] = ContextVar("repeated", default=None)
log = logging.getLogger(__name__)


def run(config: DictConfig) -> float | None:
    """One job: network and photographs -> facets -> pictures -> results.

    Returns the measure to compare by, see `measure` in the settings; None where there is none, and where the job is
    somebody else's, whose work is as good as ours: of another process at the same cell, or of the first node's task.
    """
    with Job(config) as record:
        if record is None:
            return None
        if record.completed is not None:
            return record.completed.measure
        started, settings = time.perf_counter(), checked(config)
        parts = make_parts(settings, record.folder)
        looking = load(settings, parts.method)
        drawing = prepare_drawing(settings, looking, parts.method)
        judging = load_judges(settings, looking)
        # From here on Lightning, which takes seconds to import: what is wrong has been said by now.
        from mindseye.results.visualization import visualize

        shown = show(settings, looking, record.folder, parts.files)
        with tracked(parts.trackers, config, record.folder, drawing.about), progress_of(settings, shown) as progress:
            targets, discovery_s = discover(settings, looking, shown, progress)
            del looking  # the whole network, of which drawing needs the way to the layer alone
            references = judges(settings, judging, targets, shown.cache)
            watchers = watchers_of(record, progress, parts)
            running = replace(settings.running, folder=str(record.folder / CHECKPOINT))
            result = visualize(
                drawing.network, targets, drawing.method, running,
                transfer=references, metrics=parts.metrics, watchers=watchers,
            )  # fmt: skip
            kept = keep(result, Notes(started, discovery_s, shown), settings, config, record)
            tell_trackers(parts, record.folder, result, progress)
        say_where(result, record.folder, kept.page)
        return kept.measure
    return None


class Job:
    """What every job stands in: `with Job(config) as record`, None where there is nothing left to do.

    How it is doing stands in the run folder's status.json. In a sweep, a cell that is completed already stays as it is:
    `record.completed`. A signal (SIGTERM, SIGUSR1, SIGUSR2) ends the run with exit code TO_BE_CONTINUED, after whatever
    handler the scheduler's own library had set for it, which puts the job back into the queue. What the user can mend
    (ValueError, OSError, and RuntimeError, which networks raise) ends a single run with one line; in a sweep it fails
    the cell alone. Either way the run folder's run.log has the whole traceback.

    On several nodes each node's task comes here: the first keeps the folder and says what there is to say, the others
    draw with it, and of them only what went wrong there is heard.
    """

    def __init__(self, config: DictConfig) -> None:
        hydra_config = HydraConfig.get()
        self.config = config
        self.nodes, self.devices = nodes_of(config)
        self.record = RunRecord(
            Path(hydra_config.runtime.output_dir),
            list(hydra_config.overrides.task),
            hash_of(OmegaConf.to_yaml(config).encode()),  # unresolved: the same wherever the run folder lies
            keep_completed=hydra_config.mode == RunMode.MULTIRUN,
        )
        self._left = ExitStack()

    def __enter__(self) -> RunRecord | None:
        helps = is_helper(self.nodes)
        with ExitStack() as entered:
            signals = entered.enter_context(told_in_one_line(self.record, helps=helps))
            if self.nodes == 1:
                check_alone(self.devices)
            node = entered.enter_context(joined(self.nodes, self.record.folder / CHECKPOINT))
            if node is not None and helps:
                with signals.insisted():
                    help_draw(checked(self.config), node)
                return None
            entered.enter_context(self.record)
            entered.enter_context(signals.insisted())
            if self.record.completed is not None:
                log.info("completed already: %s", self.record.folder)
                let_go()
            self._left = entered.pop_all()
            return self.record
        return None  # somebody else is at the cell, or the first node's task has heard what went wrong

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return self._left.__exit__(kind, error, trace)


def checked(config: DictConfig) -> Run:
    """The settings of the job, where the command was given."""
    hydra_config = HydraConfig.get()
    if not hydra_config.job.chdir:
        enter(hydra_config.runtime.cwd)
    return check(config)


def help_draw(run: Run, node: "Node") -> None:
    """All that a task does that is not the first: its share of the pictures, of the facets that the first has found."""
    check_constructors(run.parts)
    method = make_method(run)
    check_early(run)
    drawing = prepare_drawing(run, load(run, method), method)
    from mindseye.visualizer.fitting import fit, prepare_for  # Lightning: what is wrong has been said by now

    if (targets := handed_out(node)) is None:  # a sweep's cell that was completed before
        return
    prepared = prepare_for(drawing.network, targets, drawing.method)
    fit(prepared, targets, drawing.method, replace(run.running, folder=str(node.folder)))
    node.wait("done", [0])


def progress_of(run: Run, shown: Shown) -> JobProgress:
    """The bar over the whole run."""
    from mindseye.facets.number import MOST_KINDS

    most = MOST_KINDS if run.facets.C == "auto" else run.facets.C
    looks = 4 + 6 * sum(node is not None for node in run.parts["transfer"].values())
    return JobProgress(
        verbosity.console(),
        photographs=len(shown.photographs),
        pictures=most,
        steps=run.drawing.steps,
        measures=looks,
    )


def watchers_of(record: RunRecord, progress: JobProgress, parts: Parts) -> "Watchers":
    """Who is told of the drawing: the run's status, the bar, the trackers, callbacks."""
    from mindseye.visualizer.watching import Watchers

    progress.stage("drawing")

    def report(step: int, terms: dict[str, float]) -> None:
        record.progress(step, parts.method.steps)
        progress.drawing(step, terms)

    return Watchers(report=report, announce=progress.stage, logger=parts.trackers, callbacks=parts.callbacks)


class Notes(NamedTuple):
    """What only the command knows of a result."""

    started: float  # by time.perf_counter
    discovery_s: float
    shown: Shown


class Kept(NamedTuple):
    """What comes of a run."""

    measure: float | None  # by which a sweep compares it
    page: Path | None  # of the gallery, where there is one


def keep(result: "Visualization", notes: Notes, run: Run, config: DictConfig, record: RunRecord) -> Kept:
    """The result in the run's folder, which is complete from here on, and the gallery beside it."""
    from mindseye.visualizer.checkpoints import Checkpoint

    complete(result, notes, config)
    measure = measure_of(result.metrics["summary"], run.measure)
    result.save(record.folder, config=OmegaConf.to_yaml(config, resolve=True))
    record.complete(measure)  # whatever becomes of what follows, the result is there
    Checkpoint(record.folder / CHECKPOINT).discard()
    let_go()
    return Kept(measure, try_gallery(record.folder))


def complete(result: "Visualization", notes: Notes, config: DictConfig) -> None:
    """Add to the measures what only the command knows."""
    from mindseye.results.metrics import adjusted_rand_index

    metrics, factors = result.metrics, notes.shown.factors
    if factors is not None:
        ari = adjusted_rand_index(result.targets.labels, [factors[name] for name in result.targets.paths])
        metrics["summary"]["facets"]["ari"] = round(ari, 6)
    metrics["timing"]["discovery_s"] = round(notes.discovery_s, 3)
    metrics["timing"]["total_s"] = round(time.perf_counter() - notes.started, 3)
    metrics["provenance"]["config_sha256"] = hash_of(OmegaConf.to_yaml(config, resolve=True).encode())
    metrics["provenance"][INPUTS] = notes.shown.inputs


def measure_of(summary: Mapping[str, Any], name: str | None) -> float | None:
    """A figure of `metrics.json`'s summary by its dotted name, the usual one for None.

    None, with a warning, where the run has none such.
    """
    figures = dict(numbers(summary))
    name = usual([figures]) if name is None else name
    if name not in figures:
        log.warning("measure=%s: this run has no such figure", name)
    return figures.get(name)


def tell_trackers(parts: Parts, folder: Path, result: "Visualization", progress: JobProgress) -> None:
    """Pictures, map, table and the run folder for those trackers that have a place for them."""
    if not parts.trackers:
        return
    from mindseye.reports.tracking import track_result  # matplotlib

    progress.stage("telling the trackers")
    track_result(
        parts.trackers,
        folder,
        targets=result.targets,
        images=result.images,
        metrics=result.metrics,
        steps=parts.method.steps,
    )


def say_where(result: "Visualization", folder: Path, page: Path | None) -> None:
    """The closing table, where the files are, and what is other than in the run that was repeated."""
    console = verbosity.console()
    console.print(closing_table(result))
    for name in ("facets.png", "facets", "metrics.json", *([page.name] if page else [])):
        console.print(f"{folder / name}", soft_wrap=True, highlight=False, markup=False)
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        return
    if verbosity.is_quiet():
        print(folder, flush=True)
    if (earlier := repeated.get()) is not None:
        tell_differences(earlier, folder)

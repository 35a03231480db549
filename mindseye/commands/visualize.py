"""`mindseye`: one run from photographs and a network to pictures, by Hydra's grammar."""

import argparse
import logging
import os
import re
import sys
import time
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mindseye.commands import verbosity
from mindseye.commands.checking import check, check_one_run, check_overrides, searched
from mindseye.commands.composing import CONFIG_NAME, ConfigurationError, compose, composition_error, config_folder
from mindseye.commands.constructors import check_constructors, compose_known
from mindseye.commands.endings import told_in_one_line
from mindseye.commands.gallery import try_gallery
from mindseye.commands.grammar import choices, parsed, quoted
from mindseye.commands.helping import hand_out, help_draw, is_helper, let_go, meet, nodes_of
from mindseye.commands.launchers import anchored, check_launcher, enter
from mindseye.commands.progress import JobProgress
from mindseye.commands.repeating import EarlierRun, read_earlier, repeated_folder, tell_differences
from mindseye.commands.stages import (
    check_early,
    discover,
    find_photographs,
    input_files,
    judges,
    load,
    load_judges,
    make_callbacks,
    make_method,
    make_metrics,
    open_cache,
    prepare_drawing,
)
from mindseye.commands.tracking import make_trackers, tracked
from mindseye.files import hash_of
from mindseye.provenance import file_sha256
from mindseye.reports.tables import closing_table
from mindseye.results.measures import numbers, usual
from mindseye.results.run_status import RunRecord
from mindseye.settings import Run, plain_settings
from mindseye.sweeps.inputs import INPUTS, note_inputs
from mindseye.visualizer.nodes import check_alone, joined

if TYPE_CHECKING:
    from pytorch_lightning import Callback

    from mindseye.facets.targets import FacetTargets
    from mindseye.results.visualization import Visualization
    from mindseye.visualizer.method import Method
    from mindseye.visualizer.tracking import Tracker
    from mindseye.visualizer.watching import Watchers

# What --from named, for the job that Hydra calls in this process.
_repeated: ContextVar[EarlierRun | None] = ContextVar("repeated", default=None)
log = logging.getLogger(__name__)


def visualize(arguments: Sequence[str]) -> None:
    """Check every override, then hand over to Hydra, which calls `run` for each job."""
    folder, arguments = repeated_folder(arguments)
    many = any(re.fullmatch(r"-\w*m\w*|--mul\w*|\+*hydra\.mode=MULTIRUN", word) for word in arguments)
    arguments = [anchored(quoted(word, sweeps=many)) for word in arguments]
    earlier = None
    if folder is not None:
        earlier = read_earlier(folder)
        arguments = [*earlier.overrides_beside(arguments), *arguments]
    parser = get_args_parser()
    parser.prog, parser.usage = "mindseye", "mindseye [options] [KEY=VALUE …]; mindseye --help says more"
    asked = parser.parse_intermixed_args(arguments)
    if earlier is not None and not asked.multirun:
        asked.overrides.append("hydra.mode=RUN")  # a cell of an experiment is one run
        arguments.append("hydra.mode=RUN")
    check_flags(asked)
    # Hydra itself takes options in front of the settings or behind them, not among them.
    arguments = [*(word for word in arguments if word not in asked.overrides), *asked.overrides]
    shows_only = asked.help or asked.hydra_help or asked.info or asked.cfg or asked.shell_completion
    where = searched(asked.config_dir)
    if not shows_only:
        many = many or sweeps(where, asked.overrides)
        if not many:
            check_one_run(asked.overrides)
        check_overrides([*where, *asked.overrides])
        check_launcher([*where, *asked.overrides], sweeps=many)
    elif asked.info or asked.cfg:
        check_one_run(asked.overrides, "--cfg and --info show one")
        composed = compose_known([*where, *asked.overrides])
        if asked.cfg == "job" and not (asked.resolve or asked.package or asked.multirun):
            print(commented(composed), end="")
            return
    token = _repeated.set(earlier)
    try:
        hand_over(arguments)
    finally:
        _repeated.reset(token)


def sweeps(where: Sequence[str], words: Sequence[str]) -> bool:
    """Whether a file, an experiment's say, makes a sweep of it."""
    named = [word for word in words if word.lstrip("+").partition("=")[0] in ("experiment", "ablation", "hydra.mode")]
    # of several values, each of which makes one of it or none
    first = [choices(override)[0] for override in parsed(named)]
    return bool(named) and compose([*where, *first], with_hydra=True).hydra.mode == RunMode.MULTIRUN


def commented(config: DictConfig) -> str:
    """The configuration as YAML, with what each plain setting is behind it, as its field says it.

    >>> from omegaconf import OmegaConf
    >>> print(commented(OmegaConf.create({"k": 20, "cache": {"folder": "x", "limit_gb": 1}})).splitlines()[-1])
      limit_gb: 1  # of 10⁹ bytes; what was used last stays. 0: no cache
    """
    lines, group, fields = [], "", plain_settings()
    for line in OmegaConf.to_yaml(config).splitlines():
        indent = len(line) - len(line.lstrip())
        name = line.strip().partition(":")[0].strip("'")
        group = name if indent == 0 else group
        field = fields.get({0: name, 2: f"{group}.{name}"}.get(indent, ""))
        text = "" if field is None else " ".join((field.description or "").split()).rstrip(".")
        lines.append(f"{line}  # {text[:1].lower()}{text[1:]}" if text else line)
    return "\n".join(lines) + "\n"


def check_flags(asked: argparse.Namespace) -> None:
    """Refuse flags of Hydra's that mean nothing here, or too much."""
    if asked.experimental_rerun:
        raise ConfigurationError(
            "--experimental-rerun reads a pickle, which may run anything: mindseye --from RUN_FOLDER repeats a run"
        )
    if asked.config_name or asked.config_path:
        raise ConfigurationError(
            "--config-name, --config-path: there is one configuration; --config-dir=FOLDER adds files of your own to "
            "its groups, FOLDER/experiment/mine.yaml say, for experiment=mine"
        )


def hand_over(arguments: Sequence[str]) -> None:
    """Let Hydra run the job or the sweep of jobs, without looking at the overrides first.

    Raises ConfigurationError, in one line, for what it cannot compose.
    """
    sys.argv = ["mindseye", *arguments]
    told = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises what it would else print, often as a traceback
    try:
        with verbosity.unfailing_output():
            hydra.main(version_base="1.3", config_path=str(config_folder()), config_name=CONFIG_NAME)(run)()
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigurationError(composition_error(error)) from error
    finally:
        if told is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = told


def run(config: DictConfig) -> float | None:
    """One job. Returns the measure to compare by, see `measure` in conf/visualize.yaml.

    How it is doing stands in the run folder's status.json. In a sweep, a cell that is completed already comes back at
    once. What was interrupted goes on where it was. A signal (SIGTERM, SIGUSR1, SIGUSR2) ends the run with exit code
    TO_BE_CONTINUED, after whatever handler the scheduler's own library had set for it, which puts the job back into
    the queue. What the user can mend (ValueError, OSError, and RuntimeError, which networks raise) ends a single run
    with one line; in a sweep it fails the cell alone. Either way the run folder's run.log has the whole traceback.

    On several nodes each node's task comes here: the first keeps the folder and says what there is to say, the others
    draw with it, and of them only what went wrong there is heard.
    """
    hydra_config = HydraConfig.get()
    folder = Path(hydra_config.runtime.output_dir)
    in_sweep = hydra_config.mode == RunMode.MULTIRUN
    # Unresolved: the same wherever the run folder lies.
    key = hash_of(OmegaConf.to_yaml(config).encode())
    nodes, devices = nodes_of(config)
    helps = is_helper(nodes)
    record = RunRecord(folder, list(hydra_config.overrides.task), key, keep_completed=in_sweep)
    with told_in_one_line(record, helps=helps) as signals:
        if nodes == 1:
            check_alone(devices)
        with joined(nodes, folder / "checkpoint") as node:
            if node is not None and helps:
                with signals.insisted():
                    help_draw(_checked(config), node)
                return None
            with record, signals.insisted():
                if record.completed is not None:
                    log.info("completed already: %s", folder)
                    let_go()
                    return record.completed.measure
                measure = _run(_checked(config), config, record)
            if not in_sweep and (earlier := _repeated.get()) is not None:
                tell_differences(earlier, folder)
            return measure
    return None  # somebody else is at the cell, whose work is as good as ours, or the first node's task has heard of it


def _checked(config: DictConfig) -> Run:
    """The settings of the job, where the command was given."""
    hydra_config = HydraConfig.get()
    if not hydra_config.job.chdir:
        enter(hydra_config.runtime.cwd)
    return check(config)


def _run(run: Run, config: DictConfig, record: RunRecord) -> float | None:
    """Network and photographs -> facets -> pictures -> results; `config` is what is written beside the result."""
    started, folder = time.perf_counter(), record.folder
    parts = make_parts(run, folder)
    looking = load(run, parts.method)
    drawing = prepare_drawing(run, looking, parts.method)
    judging = load_judges(run, looking)
    about = {"network": looking.network.name, "layer": looking.layer, "channels": drawing.channels}
    # From here on Lightning, which takes seconds to import: what is wrong has been said by now.
    from mindseye.results.visualization import visualize as draw

    meet()
    photographs, factors = find_photographs(run, looking.prepared, folder)
    inputs = note_inputs(parts.files, run.images.root, photographs)
    cache = open_cache(run.cache)
    with tracked(parts.trackers, config, folder, about), progress_of(run, len(photographs)) as progress:
        begun = time.perf_counter()
        targets = discover(run, looking, photographs, cache, progress)
        times = {"discovery_s": time.perf_counter() - begun}
        del looking  # the whole network, of which drawing needs the way to the layer alone
        hand_out(targets)
        references = judges(run, judging, targets, cache)
        watchers = watchers_of(record, progress, parts)
        running = replace(run.running, folder=str(folder / "checkpoint"))
        result = draw(
            drawing.network, targets, drawing.method, running,
            transfer=references, metrics=parts.metrics, watchers=watchers,
        )  # fmt: skip
        times["total_s"] = time.perf_counter() - started
        complete(result.metrics, targets, factors, times, config)
        result.metrics["provenance"][INPUTS] = inputs
        measure = measure_of(result.metrics["summary"], run.measure)
        page = keep(result, measure, config, record)
        tell_trackers(parts.trackers, folder, result, run.drawing.steps, progress)
    say_where(result, folder, page)
    return measure


class Parts(NamedTuple):
    """What a run is made of besides its networks and photographs."""

    method: "Method"
    metrics: dict[str, Any]
    trackers: list["Tracker"]
    callbacks: list["Callback"]
    files: dict[str, str]  # the sha256 of every file that the settings name


def make_parts(run: Run, folder: Path) -> Parts:
    """Everything cheap, first: a wrong value in any of it costs no reading of networks or photographs."""
    check_constructors(run.parts)
    method, metrics = make_method(run), make_metrics(run)
    trackers = trackers_of(run, folder)
    callbacks = make_callbacks(run, trackers)
    check_early(run)
    files = {path: file_sha256(path) for path in input_files(run, HydraConfig.get())}  # before they are read
    tell_of_the_demo(run)
    return Parts(method, metrics, trackers, callbacks, files)


def keep(result: "Visualization", measure: float | None, config: DictConfig, record: RunRecord) -> Path | None:
    """The result in the run's folder, which is complete from here on; the page of the gallery, where there is one."""
    from mindseye.visualizer.checkpoints import Checkpoint

    result.save(record.folder, config=OmegaConf.to_yaml(config, resolve=True))
    record.complete(measure)  # whatever becomes of what follows, the result is there
    Checkpoint(record.folder / "checkpoint").discard()
    let_go()
    return try_gallery(record.folder)


def trackers_of(run: Run, folder: Path) -> list["Tracker"]:
    """The trackers of the group `logger`, told of which sweep and experiment the run is."""
    hydra_config = HydraConfig.get()
    sweep = Path(hydra_config.sweep.dir).absolute() if hydra_config.mode == RunMode.MULTIRUN else None
    choices = hydra_config.runtime.choices
    return make_trackers(
        run.parts["logger"],
        folder,
        hydra_config.overrides.task,
        sweep=sweep,
        experiment=choices.get("experiment"),
        choices=choices,
    )


def tell_of_the_demo(run: Run) -> None:
    """A warning where the demo's network looks at the user's photographs, for want of any other."""
    if run.images.root is not None and network_is_unsaid(HydraConfig.get()):
        log.warning("the demo's network looks at the photographs, since none is named: network=resnet50, say")


def progress_of(run: Run, photographs: int) -> JobProgress:
    """The bar over the whole run."""
    from mindseye.facets.number import MOST_KINDS

    most = MOST_KINDS if run.facets.C == "auto" else run.facets.C
    looks = 4 + 6 * sum(node is not None for node in run.parts["transfer"].values())
    return JobProgress(
        verbosity.console(), photographs=photographs, pictures=most, steps=run.drawing.steps, measures=looks
    )


def watchers_of(record: RunRecord, progress: JobProgress, parts: Parts) -> "Watchers":
    """Who is told of the drawing: the run's status, the bar, the trackers, callbacks."""
    from mindseye.visualizer.watching import Watchers

    progress.stage("drawing")

    def report(step: int, terms: dict[str, float]) -> None:
        record.progress(step, parts.method.steps)
        progress.drawing(step, terms)

    return Watchers(report=report, announce=progress.stage, logger=parts.trackers, callbacks=parts.callbacks)


def tell_trackers(
    trackers: Sequence["Tracker"], folder: Path, result: "Visualization", steps: int, progress: JobProgress
) -> None:
    """Pictures, map, table and the run folder for those trackers that have a place for them."""
    if not trackers:
        return
    from mindseye.reports.tracking import track_result  # matplotlib

    progress.stage("telling the trackers")
    track_result(
        trackers,
        folder,
        targets=result.targets,
        images=result.images,
        metrics=result.metrics,
        steps=steps,
    )


def say_where(result: "Visualization", folder: Path, page: Path | None) -> None:
    """The closing table, and where the files are."""
    console = verbosity.console()
    console.print(closing_table(result))
    for name in ("facets.png", "facets", "metrics.json", *([page.name] if page else [])):
        console.print(f"{folder / name}", soft_wrap=True, highlight=False, markup=False)
    if verbosity.is_quiet() and HydraConfig.get().mode != RunMode.MULTIRUN:
        print(folder, flush=True)


def network_is_unsaid(hydra_config: Any) -> bool:
    """Whether the network is the demo's for want of any other; of a sweep's cells the first alone is asked."""
    first = hydra_config.mode != RunMode.MULTIRUN or hydra_config.job.num == 0
    given = any(word.lstrip("+").startswith("network") for word in hydra_config.overrides.task)
    return first and not given and hydra_config.runtime.choices.get("network") == "demo"


def measure_of(summary: Mapping[str, Any], name: str | None) -> float | None:
    """A figure of `metrics.json`'s summary by its dotted name, the usual one for None.

    None, with a warning, where the run has none such.
    """
    figures = dict(numbers(summary))
    name = usual([figures]) if name is None else name
    if name not in figures:
        log.warning("measure=%s: this run has no such figure", name)
    return figures.get(name)


def complete(
    metrics: dict,
    targets: "FacetTargets",
    factors: dict[str, str] | None,
    times: Mapping[str, float],
    config: DictConfig,
) -> None:
    """Add to the measures what only the command knows: the demo's true facets, whole times, the configuration."""
    from mindseye.results.metrics import adjusted_rand_index

    if factors is not None:
        ari = adjusted_rand_index(targets.labels, [factors[name] for name in targets.paths])
        metrics["summary"]["facets"]["ari"] = round(ari, 6)
    metrics["timing"].update({name: round(seconds, 3) for name, seconds in times.items()})
    metrics["provenance"]["config_sha256"] = hash_of(OmegaConf.to_yaml(config, resolve=True).encode())

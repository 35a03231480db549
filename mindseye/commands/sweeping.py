"""What happens around the cells of `mindseye -m`: which are run, in which order, and what is said at the end."""

import hashlib
import io
import json
import logging
import os
import re
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import redirect_stderr, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import yaml
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig, OmegaConf

import mindseye
from mindseye.commands import verbosity
from mindseye.commands.composing import ConfigurationError, config_folder
from mindseye.commands.gallery import try_gallery
from mindseye.commands.grammar import escaped
from mindseye.files import read_plain, write_atomically
from mindseye.reports.tables import ranking_table
from mindseye.results.measures import MEASURES, numbers, path_layers, usual
from mindseye.results.run_status import SILENT, RunStatus, read_status, write_status
from mindseye.settings import defaults
from mindseye.signals import TO_BE_CONTINUED, Interrupted, Interruptible
from mindseye.sweeps.inputs import changed_cells
from mindseye.sweeps.manifest import Cell, Manifest, add_cells, as_written
from mindseye.sweeps.status import DONE, SweepStatus, read_sweep, varying_overrides
from mindseye.sweeps.summary import ranked, read_rows, write_summary
from mindseye.words import counted, one_line, printable

log = logging.getLogger(__name__)

NAMED_CELLS = 8  # of those that failed alike
SHOWN = 20  # cells in the closing table; summary.csv has all
MOST_CONFIG_BYTES = 1 << 20  # of a cell's config.yaml
CHANGED = 3  # files and folders that have changed and are named
SAVED_S = 15.0  # cells that are told to stop save their state within 10 s
TRIED = 4096  # bytes that must find room in a run folder
DEATHS = 2  # so often a cell's process may die, the second time with no other beside it


@dataclass(frozen=True)
class Resuming:
    """Which cells of a sweep are run, and how."""

    known_cells: bool = False  # those of the manifest, whatever the overrides ask for
    retry_failed: bool = False
    retry_changed: bool = False  # completed ones whose weights, code or photographs have changed
    at_once: int | None = None  # cells; None: all
    trackers: Sequence[str] = ()  # overrides of the group `logger` in place of the cells' own


def run_sweep(
    launcher: Launcher, config: DictConfig, words: Sequence[str], loader: ConfigLoader, resuming: Resuming
) -> list[JobReturn]:
    """Launch every cell that is not done, `resuming.at_once` at a time. Nothing that happens to a cell is raised here.

    words: the task's overrides, swept ones among them; or, of known cells, whatever began the sweep. loader:
    Hydra's, which knows the options that glob(*) stands for. Exits with 1, and one line, where the sweep's folder
    cannot be read or written.
    """
    folder = Path(str(config.hydra.sweep.dir)).absolute()
    try:
        todo = _to_do(config, folder, words, loader, resuming)
        with _interruptible(launcher, folder):
            return _launch_all(launcher, folder, todo, resuming.at_once, resuming.trackers)
    except (ValueError, OSError) as error:  # Hydra would print a traceback
        print(f"mindseye: {one_line(error)}", file=sys.stderr)
        raise SystemExit(1) from None
    except Interrupted as stop:
        jobs = "its Slurm jobs go on; when they have ended, " if type(launcher).__name__ == "SlurmLauncher" else ""
        print(f"mindseye: {stop}; {jobs}mindseye sweep resume {folder} goes on", file=sys.stderr)
        raise SystemExit(TO_BE_CONTINUED) from None


def _to_do(
    config: DictConfig, folder: Path, words: Sequence[str], loader: ConfigLoader, resuming: Resuming
) -> list[Cell]:
    """The cells there is something to do for, after the manifest has all of them."""
    command = [*_own_folders(config), *OmegaConf.to_container(config.hydra.overrides.hydra), *words]
    cells = _cells_of(folder) if resuming.known_cells else _cells_asked_for(folder, words, loader, command)
    if (begun_with := Manifest.read(folder).config_sha256) != configuration_sha256():
        _warn(
            f"{folder} was begun with another version of mindseye or its configuration ({begun_with:.8}…): cells that "
            "are completed stay as they are; another hydra.sweep.dir starts anew"
        )
    changed, remark = _changed(folder, cells)
    if changed and resuming.retry_changed:
        _warn(f"{remark}: they are drawn anew")
        for cell in changed:
            write_status(folder / cell.folder, RunStatus(overrides=cell.overrides))
    todo = [cell for cell in cells if _is_open(folder, cell, resuming.retry_failed)]
    if changed and todo and not resuming.retry_changed:  # else the end says it at once
        _warn(_cells_stay(remark, folder))
    if len(todo) < len(cells):
        log.info("%d of %d cells are done already", len(cells) - len(todo), len(cells))
    if resuming.retry_failed:
        for cell in todo:
            if (status := read_status(folder / cell.folder)).status == "failed":
                write_status(folder / cell.folder, RunStatus(overrides=cell.overrides, seconds=status.seconds))
    if todo:
        write_atomically(folder / "multirun.yaml", OmegaConf.to_yaml(config).encode())
    return todo


def _warn(remark: str) -> None:
    """On standard error: the log of this process, which no run folder has, goes to Hydra's, on standard output."""
    print(f"mindseye: {remark}", file=sys.stderr)


def _changed(folder: Path, cells: Sequence[Cell]) -> tuple[list[Cell], str]:
    """Completed cells that are of other weights, code or photographs than there are now, and a line that says so."""
    completed = [cell for cell in cells if read_status(folder / cell.folder).status == "completed"]
    changed = changed_cells(folder, completed)
    names = list(dict.fromkeys(name for others in changed.values() for name in others))
    more = f" and {len(names) - CHANGED} more" if len(names) > CHANGED else ""
    remark = f"{len(changed)} of {len(completed)} completed cells are of what has changed since"
    remark = f"{remark} ({', '.join(map(printable, names[:CHANGED]))}{more})"
    return [cell for cell in completed if cell.id in changed], remark


def _cells_stay(remark: str, folder: Path) -> str:
    return f"{remark} and stay as they are: mindseye sweep resume {folder} --changed draws them anew"


def _interruptible(launcher: Launcher, folder: Path) -> Interruptible:
    """A signal that ends this process is handed on to the cells that run in processes of its own, and waited for.

    With joblib and Ray they would be orphans, or be killed with what they have not saved. Slurm's jobs go on without
    this process, and in one process the cell at hand takes its signals itself.
    """

    def hand_on(signum: int) -> None:
        here = [pair for pair in read_sweep(folder).of("running") if pair[1].host == socket.gethostname()]
        for _, status in here:
            with suppress(OSError):
                os.kill(status.pid, signum)
        deadline = time.monotonic() + SAVED_S
        while time.monotonic() < deadline and any(
            (now := read_status(folder / cell.folder)).status == "running" and now.pid == status.pid
            for cell, status in here
        ):
            time.sleep(0.2)

    return Interruptible(hand_on if type(launcher).__name__ in ("JoblibLauncher", "RayLauncher") else None)


def configuration_sha256() -> str:
    """Of the version, the settings' defaults and every file in conf/: what cells come to beside their overrides."""
    digest = hashlib.sha256(f"{mindseye.__version__}\0{json.dumps(defaults())}".encode())
    root = config_folder()
    for file in sorted(root.rglob("*.yaml")):
        digest.update(file.relative_to(root).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def _own_folders(config: DictConfig) -> list[str]:
    """The user's folder of configuration files (--config-dir) as an override, so that `resume` finds it again."""
    sources = config.hydra.runtime.config_sources
    own = [source.path for source in sources if source.provider == "command-line"]
    return [f"hydra.searchpath=[{escaped('file://' + path)}]" for path in own]


def _cells_of(folder: Path) -> list[Cell]:
    cells = list(Manifest.read(folder).cells.values())
    if not cells:
        raise ConfigurationError(f"{folder} holds no sweep to go on with")
    return cells


def _cells_asked_for(folder: Path, words: Sequence[str], loader: ConfigLoader, command: Sequence[str]) -> list[Cell]:
    overrides = OverridesParser.create(loader).parse_overrides(list(words))
    [grid] = BasicSweeper.split_arguments(overrides, None)
    return add_cells(folder, grid, command, configuration_sha256(), os.getcwd())


def _is_open(folder: Path, cell: Cell, retry_failed: bool) -> bool:
    """Whether there is something to do for a cell; a running one is somebody else's."""
    status = read_status(folder / cell.folder).status
    return status not in (*DONE, "running") or (status == "failed" and retry_failed)


def with_trackers(overrides: Sequence[str], trackers: Sequence[str]) -> list[str]:
    """A cell's overrides with `trackers` in place of its own of the group logger.

    >>> with_trackers(["k=4", "logger=[wandb,csv]", "logger.wandb.tags=[a]"], ["logger=csv"])
    ['k=4', 'logger=csv']
    >>> with_trackers(["k=4", "logger=wandb"], ["logger.wandb.offline=false"])
    ['k=4', 'logger=wandb', 'logger.wandb.offline=false']
    """
    keys = {word.lstrip("+").partition("=")[0] for word in trackers}
    replaced = ("logger.",) if "logger" in keys else ()
    own = [(word, word.lstrip("+").partition("=")[0]) for word in overrides]
    return [*(word for word, key in own if key not in keys and not key.startswith(replaced)), *trackers]


def _launch_all(
    launcher: Launcher, folder: Path, todo: list[Cell], at_once: int | None, trackers: Sequence[str]
) -> list[JobReturn]:
    """Launch the cells, and those again that were swept away when another cell's process died.

    Some launchers give up all jobs where one is killed. Who died may have been the one without memory or its neighbour,
    so each is then given a second try by itself.
    """
    returns: list[JobReturn] = []
    batches = [todo[first : first + (at_once or len(todo))] for first in range(0, len(todo), at_once or len(todo) or 1)]
    deaths: dict[str, int] = {}
    launched = 0
    while batches:
        batch = batches.pop(0)
        problem: BaseException | None = None
        results: Sequence[JobReturn] = []
        place = f"hydra.sweep.dir={escaped(str(folder))}"
        jobs = [
            [*with_trackers(cell.overrides, trackers), place, f"hydra.sweep.subdir={escaped(cell.folder)}"]
            for cell in batch
        ]
        try:
            results = launcher.launch(jobs, initial_job_idx=launched)
        except (Exception, SystemExit) as error:  # whatever a launcher raises where it lost a job
            # By its name: Hydra imports its plugins anew, so that a class may stand beside itself.
            if isinstance(error, SystemExit) and type(launcher).__name__ == "BasicLauncher":
                raise  # it was this process that was told to stop
            log.info("the launcher gave up", exc_info=True)
            # Where a log cannot be opened, only the cause names the file.
            problem = error.__cause__ if isinstance(error.__cause__, OSError) else error
        launched += len(batch)
        returns += results
        for cell, result in zip(batch, results, strict=False):
            _note_failure(folder, cell, result)
        if problem is None:
            continue
        left = [cell for cell in batch if _is_open(folder, cell, retry_failed=False)]
        waiting = [cell for cell in left if read_status(folder / cell.folder).status == "waiting"]
        died = [cell for cell in left if cell not in waiting]
        if len(waiting) == len(batch):  # nothing has begun: it is the launcher's own trouble
            for cell in waiting:
                _fail(folder, cell, one_line(problem))
            continue
        for cell in died:
            deaths[cell.id] = deaths.get(cell.id, 0) + 1
            if deaths[cell.id] >= DEATHS or len(batch) == 1:
                _fail(folder, cell, f"its process died ({one_line(problem)})")
        alone = [[cell] for cell in died if read_status(folder / cell.folder).status != "failed"]
        batches = [*([waiting] if waiting else []), *alone, *batches]
    return returns


def _note_failure(folder: Path, cell: Cell, result: JobReturn) -> None:
    """A job that failed without writing it down: its configuration cannot be composed, say, or it was killed."""
    if result.status != JobStatus.FAILED:
        return
    try:
        with redirect_stderr(io.StringIO()):  # Hydra writes the overrides there, once for each cell
            result.return_value  # noqa: B018  raises what the job raised
    except Exception as error:
        status = read_status(folder / cell.folder)
        # A launcher that lost a job knows it; the status says `running` for a while where the job was on another host.
        killed = status.reason == SILENT or (status.status == "running" and isinstance(error, ChildProcessError))
        if status.status == "waiting" or killed:
            _fail(folder, cell, one_line(error))


def _fail(folder: Path, cell: Cell, reason: str) -> None:
    before = read_status(folder / cell.folder)
    write_status(folder / cell.folder, replace(before, status="failed", reason=reason, overrides=cell.overrides))


class SweepEnd(Callback):
    """Before a run its folder is tried. Before the first cell, with -q, Hydra is told to be quiet.

    After the last cell: summary, gallery.html, a table, every failure; the exit code says what is left.
    """

    def on_run_start(self, config: DictConfig, config_name: str | None = None) -> None:
        """Exits with 1, and one line, where the run folder cannot be written: Hydra's own error would not name it."""
        folder = Path(str(config.hydra.run.dir)).absolute()
        try:
            write_atomically(folder / ".tried", bytes(TRIED))
            (folder / ".tried").unlink(missing_ok=True)  # another node's task tries it too
        except OSError as error:
            print(f"mindseye: the run folder {folder} cannot be written: {error.strerror}", file=sys.stderr)
            raise SystemExit(1) from None

    def on_multirun_start(self, config: DictConfig, config_name: str | None = None) -> None:
        """Hydra says which cells it launches, on standard output."""
        if verbosity.is_quiet():
            logging.getLogger("hydra").setLevel(logging.WARNING)

    def on_multirun_end(self, config: DictConfig, config_name: str | None = None) -> None:
        """Exits with 1 where a cell failed, with 75 where one is to be continued or waiting."""
        folder = Path(str(config.hydra.sweep.dir)).absolute()
        try:
            sweep = read_sweep(folder) if Manifest.read(folder).cells else None
        except (ValueError, OSError) as error:
            print(f"mindseye: {one_line(error)}", file=sys.stderr)
            raise SystemExit(1) from None
        if sweep is None:  # another sweeper than ours, which reports by itself
            return
        try:
            summarise_sweep(sweep, _chosen_measure(sweep))
        except Exception as error:  # a full disk, a damaged run: what failed must be said all the same
            log.info("no summary", exc_info=True)
            print(f"mindseye: the summary of {folder} could not be written: {one_line(error)}", file=sys.stderr)
        say_failures(sweep)
        changed, remark = _changed(folder, [cell for cell, _ in sweep.cells])
        if changed:  # perhaps while the sweep ran
            _warn(_cells_stay(remark, folder))
        if sweep.count("failed"):
            raise SystemExit(1)
        if sweep.unfinished() or sweep.count("running"):
            raise SystemExit(TO_BE_CONTINUED)


def summarise_sweep(sweep: SweepStatus, measure: str | None) -> None:
    """Write the summary's files and the gallery, and print the best cells."""
    rows = read_rows(sweep)
    written = write_summary(sweep.folder, rows)
    if (page := try_gallery(sweep.folder)) is not None:
        written.append(page)
    console = verbosity.console()
    chosen = pick_measure(rows, chosen=measure)
    cells = {cell.folder: (cell, status) for cell, status in sweep.cells}
    told_apart = varying_overrides([cell for cell, _ in sweep.cells])
    best = [(told_apart[cells[name][0].id], mean, cells[name][1].seconds) for name, mean in ranked(rows, chosen)]
    counts = ", ".join(f"{count} {state}" for state, count in sweep.counts().items() if count)
    console.print(ranking_table(f"{counted(len(sweep.cells), 'cell')}: {counts}", chosen, best, SHOWN))
    for line in remarks(sweep, rows, chosen):
        console.print(line, soft_wrap=True, highlight=False, markup=False)
    for path in written:
        console.print(str(path), soft_wrap=True, highlight=False, markup=False)
    if verbosity.is_quiet():
        print(sweep.folder, flush=True)


def _chosen_measure(sweep: SweepStatus) -> str | None:
    """`measure` of the completed cells, whatever sets it, an experiment's file say; None where they do not agree."""
    completed = [cell for cell, _ in sweep.of("completed")]
    measures = {word for cell in completed for word in cell.overrides if word.lstrip("+").startswith("measure=")}
    if not completed or len(measures) > 1:
        return None
    first = sweep.folder / completed[0].folder
    with suppress(OSError, ValueError, yaml.YAMLError, AttributeError, RecursionError):
        value = yaml.safe_load(read_plain(first / "config.yaml", first, MOST_CONFIG_BYTES)).get("measure")
        return value if isinstance(value, str) else None
    return None


def pick_measure(rows: Sequence[dict], chosen: str | None) -> str:
    """What cells are compared by where nobody says, see `mindseye.results.measures.usual`."""
    if chosen is not None:
        return chosen
    cells: dict[str, set[str]] = {}
    for row in rows:
        if "facet" in row:
            cells.setdefault(row["cell"], set()).update(name for name, _ in numbers(row))
    return usual(cells.values())


def remarks(sweep: SweepStatus, rows: Sequence[dict], measure: str) -> list[str]:
    """What to know of the ranking, a line each: that the measure cannot rank such cells, which settings show."""
    from mindseye.reports.response import in_words, responses

    lines = []
    known = MEASURES.get(measure)
    if known is not None and known.falls_with:
        values = {row.get(f"override.{known.falls_with}") for row in rows if "facet" in row}
        if len(values) > 1:
            other = pick_measure(rows, None)
            advice = "" if MEASURES[other].falls_with else f", or by measure={other}"
            setting = known.falls_with
            lines.append(f"{measure} depends on {setting} whatever is drawn: compare cells of one {setting}{advice}")
    if measure == "path.mean" and len({frozenset(path_layers(row)) for row in rows if measure in row}) > 1:
        lines.append("path.mean is of other layers in some cells: compare cells of the same, or by measure=path.target")
    shown = responses(rows, sweep.folder)
    return lines + [in_words(shown, setting) for setting in dict.fromkeys(response.setting for response in shown)]


def without_values(reason: str, swept: str) -> str:
    """A reason without the swept values of the settings it names, so that cells which fail alike are told once.

    >>> without_values("k must be 1 to 160, not 400", "k=400 C=1")
    'k must be 1 to 160, not …'
    """
    for key, value in re.findall(r"([^\s=]+)=(\S+)", swept):
        if re.search(rf"(?<![\w.]){re.escape(key)}(?![\w.])", reason):
            reason = re.sub(rf"(?<![\w.]){re.escape(value)}(?![\w.])", "…", reason)
    return reason


def say_failures(sweep: SweepStatus) -> None:
    """On standard error: the failed cells by their reasons, each once, with a log of it, and how to go on."""
    alike: dict[str, list[tuple[Cell, str]]] = {}
    told_apart = varying_overrides([cell for cell, _ in sweep.cells])
    for cell, status in sweep.of("failed"):
        kind = without_values(status.reason, told_apart[cell.id])
        alike.setdefault(kind, []).append((cell, status.reason))
    for kind, failed in alike.items():
        cells, reasons = [cell for cell, _ in failed], {reason for _, reason in failed}
        reason = reasons.pop() if len(reasons) == 1 else kind
        if len(cells) == 1:
            print(f"mindseye: failed: {as_written(' '.join(cells[0].overrides))}: {reason}", file=sys.stderr)
        else:
            named = "; ".join(told_apart[cell.id] for cell in cells[:NAMED_CELLS])
            more = f"; and {len(cells) - NAMED_CELLS} more" if len(cells) > NAMED_CELLS else ""
            print(f"mindseye: failed, {len(cells)} cells alike: {reason}\n    {named}{more}", file=sys.stderr)
        written = sweep.folder / cells[0].folder / "run.log"
        if written.is_file():  # Hydra's other job_logging writes none of this name
            print(f"    {written}", file=sys.stderr)
    whole = counted(len(sweep.cells), "cell")
    if sweep.count("failed"):
        print(
            f"mindseye: {sweep.count('failed')} of {whole} failed; "
            f"mindseye sweep resume {sweep.folder} --failed tries them again",
            file=sys.stderr,
        )
    if left := len(sweep.unfinished()):
        print(
            f"mindseye: {left} of {whole} {'is' if left == 1 else 'are'} not done; "
            f"mindseye sweep resume {sweep.folder} goes on",
            file=sys.stderr,
        )
    for cell, status in sweep.of("running"):
        where = f"pid {status.pid} on {status.host}"
        print(f"mindseye: {as_written(' '.join(cell.overrides))} is at work elsewhere ({where})", file=sys.stderr)

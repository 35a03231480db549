"""`mindseye sweep status FOLDER`: how a sweep is doing; `mindseye sweep resume FOLDER`: run what is left of it."""

import argparse
import re
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from mindseye.commands.progress import readable_seconds
from mindseye.sweeps.manifest import Manifest
from mindseye.sweeps.status import SweepStatus, read_sweep, varying_overrides
from mindseye.words import counted

REFRESH_S = 2.0
STYLES = {"completed": "green", "running": "cyan", "failed": "red", "to be continued": "yellow", "waiting": "dim"}
WIDTH = 120  # columns of a table in a pipe, which has no width of its own
MOST_ROWS = 40  # of cells that are running, failed or to be continued


def sweep(arguments: list[str]) -> None:
    """Show or go on with a sweep. Raises ValueError where the folder holds none."""
    parser = argparse.ArgumentParser(
        prog="mindseye sweep",
        description="What `mindseye -m …` left in its folder (hydra.sweep.dir), also while it runs on other machines.",
        epilog="example: mindseye sweep status multirun/2026-11-23/12-00-00 --watch",
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="status | resume")
    status = verbs.add_parser(
        "status",
        help="cells done, running, failed, and the time left",
        epilog="example: mindseye sweep status my_sweep --watch",
    )
    status.add_argument("folder", type=Path)
    status.add_argument("--watch", action="store_true", help="refresh until every cell is done")
    resume = verbs.add_parser(
        "resume",
        help="run the cells that are not done, continuing interrupted ones, with other trackers if asked (logger=csv)",
        epilog="example: mindseye sweep resume my_sweep --failed hydra/launcher=joblib",
    )
    resume.add_argument("folder", type=Path)
    resume.add_argument("--failed", action="store_true", help="failed cells again, too")
    resume.add_argument(
        "--changed", action="store_true", help="completed cells again, too, whose weights, code or photographs changed"
    )
    resume.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="of hydra and logger, e.g. another hydra/launcher=joblib"
    )
    asked, more = parser.parse_known_args(arguments)
    if more and (asked.verb != "resume" or any(word.startswith("-") for word in more)):
        parser.error(f"unrecognized arguments: {' '.join(more)}")
    if asked.verb == "status":
        show(asked.folder, watch=asked.watch)
    else:
        go_on(asked.folder, [*asked.overrides, *more], failed=asked.failed, changed=asked.changed)


def show(folder: Path, *, watch: bool) -> None:
    """Print the table once, or again and again until nothing is running or waiting any more."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    sweep = read_sweep(folder)
    if not (watch and console.is_terminal):
        console.print(status_table(sweep))
        return
    with Live(status_table(sweep), console=console, auto_refresh=False) as live:
        while sweep.count("running") or sweep.count("waiting"):
            time.sleep(REFRESH_S)
            sweep = read_sweep(folder)
            live.update(status_table(sweep), refresh=True)


def go_on(folder: Path, overrides: Sequence[str], *, failed: bool, changed: bool) -> None:
    """Start what is left of the sweep as it was last started, with other settings of Hydra's own where given."""
    from mindseye.commands.visualize import hand_over

    trackers = [word for word in overrides if re.match(r"\+?logger[.=]", word)]
    foreign = [word for word in overrides if not word.lstrip("+~").startswith("hydra") and word not in trackers]
    if foreign:
        raise ValueError(
            f"{foreign[0]}: a sweep goes on with its own cells; only hydra.… and logger can be changed "
            f"(mindseye -m {foreign[0]} … hydra.sweep.dir={folder} adds cells)"
        )
    manifest = Manifest.read(folder.expanduser())
    if not manifest.commands:
        raise ValueError(f"{folder} holds no sweep: there is no manifest.json, which `mindseye -m …` writes")
    settings = ("hydra.sweep.dir=", "hydra.sweep.subdir=", "hydra.sweeper.cells=", "hydra.sweeper.retry_",
                "hydra.sweeper.trackers=")  # fmt: skip
    last = [word for word in manifest.commands[-1] if not word.startswith(settings)]
    if any(word.startswith("hydra/launcher=") for word in overrides):  # another one has other settings
        last = [word for word in last if not word.lstrip("+~").startswith(("hydra/launcher=", "hydra.launcher."))]
    place = str(folder.expanduser().absolute())
    from mindseye.commands.grammar import escaped, quoted
    from mindseye.commands.launchers import check_launcher, enter

    trackers = [quoted(word, sweeps=False) for word in trackers]
    overrides = [quoted(word) for word in overrides if word.startswith("hydra")]
    check_launcher([*last, *overrides])
    check_trackers_of(manifest, last, trackers)
    if manifest.started_from:  # what is relative in the overrides starts there
        enter(manifest.started_from)
    hand_over(
        [
            "-m", *last, *overrides, f"hydra.sweep.dir={escaped(place)}", "hydra.sweeper.cells=known",
            f"hydra.sweeper.trackers=[{','.join(map(escaped, trackers))}]",
            f"hydra.sweeper.retry_failed={str(failed).lower()}",
            f"hydra.sweeper.retry_changed={str(changed).lower()}",
        ]
    )  # fmt: skip


def check_trackers_of(manifest: Manifest, last: Sequence[str], trackers: Sequence[str]) -> None:
    """Refuse trackers whose packages are not installed, of any cell, before one is started."""
    from mindseye.commands.composing import compose, plain
    from mindseye.commands.sweeping import with_trackers
    from mindseye.commands.tracking import check_trackers

    where = [word for word in last if word.startswith("hydra.searchpath=")]
    keys = ("logger", "experiment", "+logger", "+experiment")
    asked = {
        tuple(word for word in with_trackers(cell.overrides, trackers) if re.split(r"[.=]", word)[0] in keys)
        for cell in manifest.cells.values()
    }
    for words in sorted(asked):
        check_trackers(plain(compose([*where, *words]).logger))


def status_table(sweep: SweepStatus) -> Table:
    """Counts and time left in the title; a row for each cell that is running, failed or to be continued."""
    counts = "  ".join(f"[{STYLES[state]}]{number} {state}[/]" for state, number in sweep.counts().items() if number)
    left = sweep.seconds_left()
    if left:
        counts += f"  about {readable_seconds(left)} left"
    title = f"{counted(len(sweep.cells), 'cell')}: {counts}"
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
    table.add_column("status", no_wrap=True)
    table.add_column("cell", overflow="fold")
    table.add_column("step", justify="right", no_wrap=True)
    table.add_column("seconds", justify="right", no_wrap=True)
    table.add_column("", overflow="fold")
    told_apart = varying_overrides([cell for cell, _ in sweep.cells])
    shown = [pair for state in ("running", "failed", "to be continued") for pair in sweep.of(state)]
    for cell, status in shown[:MOST_ROWS]:
        step = "" if status.step is None else f"{status.step}/{status.steps}"
        where = f"pid {status.pid} on {status.host}" if status.status == "running" else status.reason
        table.add_row(
            f"[{STYLES[status.status]}]{status.status}[/]", escape(told_apart[cell.id]), step, f"{status.seconds:.0f}",
            escape(where),
        )  # fmt: skip
    if len(shown) > MOST_ROWS:
        table.add_row("…", f"{len(shown) - MOST_ROWS} more", "", "", "")
    return table

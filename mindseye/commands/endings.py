"""How a job ends early: a line on standard error, an exit code, and the whole traceback in its log."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode

from mindseye.commands import verbosity
from mindseye.commands.helping import write_no_log
from mindseye.results.run_status import Occupied, RunRecord
from mindseye.signals import CTRL_C, TO_BE_CONTINUED, Interrupted, Interruptible
from mindseye.visualizer.nodes import Elsewhere, tasks_beside

log = logging.getLogger(__name__)


@contextmanager
def told_in_one_line(record: RunRecord, *, helps: bool) -> Iterator[Interruptible]:
    """What ends a job early is a line on standard error and an exit code; in a sweep an error fails the cell alone.

    helps: whether this is not the first node's task, which logs it and says it for all.
    """
    if helps:
        write_no_log()
    with (
        verbosity.unfailing_output(),
        verbosity.log_on_terminal(),
        Interruptible() as signals,
        _ended_in_one_line(record, signals, helps=helps),
    ):
        yield signals


@contextmanager
def _ended_in_one_line(record: RunRecord, signals: Interruptible, *, helps: bool) -> Iterator[None]:
    hydra_config = HydraConfig.get()
    folder, in_sweep = record.folder, hydra_config.mode == RunMode.MULTIRUN
    say = silence if helps else tell
    try:
        yield
    except (Interrupted, KeyboardInterrupt) as stop:
        by_hand = isinstance(stop, KeyboardInterrupt)
        again = f"the same command with hydra.run.dir={folder}"
        if in_sweep:
            again = f"mindseye sweep resume {Path(hydra_config.sweep.dir).absolute()}"
        if record.is_complete and not in_sweep:
            say(f"{'interrupted' if by_hand else stop}; the run is complete: {folder}")
            raise SystemExit(CTRL_C if by_hand else 0) from None
        say(f"{'interrupted' if by_hand else stop}; {again} goes on")
        if isinstance(stop, KeyboardInterrupt):
            raise SystemExit(CTRL_C) from None
        handler = signals.handler_before(stop.signum)
        if handler is not None:  # submitit's, say: it asks the scheduler for another turn, and ends the process
            handler(stop.signum, None)
        if not (helps and in_sweep):  # Slurm may end a whole job with the first task that ends, and the first goes on
            raise SystemExit(TO_BE_CONTINUED) from None
    except Occupied as error:
        if in_sweep:
            log.warning("%s", error)
            return
        beside = tasks_beside()
        say(f"{error}" if beside is None else f"{error}; this is {beside}, and one is right for a run: srun -n1")
        raise SystemExit(1) from None
    except Exception as error:
        logging.getLogger("mindseye.run").info("failed", exc_info=True)
        if helps and in_sweep:  # the first task has heard of it
            return
        if in_sweep or not isinstance(error, ValueError | OSError | RuntimeError):
            raise
        if helps and isinstance(error, Elsewhere):
            raise SystemExit(1) from None
        written = folder / "run.log"  # Hydra's other job_logging writes none of this name
        logged = is_a_programs_mistake(error) and not helps and written.is_file()
        where = f"; the traceback is in {written}" if logged else ""
        tell(f"{' '.join(str(error).split())}{where}")
        raise SystemExit(1) from None


def tell(line: str) -> None:
    """What a person must know, on standard error."""
    print(f"mindseye: {line}", file=sys.stderr)


def silence(line: str) -> None:
    """The first node's task says it."""


def is_a_programs_mistake(error: BaseException) -> bool:
    """Whether what is said in one line was first raised as something that a program's author needs the traceback of."""
    cause = error.__cause__
    while isinstance(cause, ValueError | OSError | HydraException):
        cause = cause.__cause__
    return cause is not None

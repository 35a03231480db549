"""How a run is doing, on disk: who is at it, how far it is, what became of it. Nothing heavy is imported here.

`status.json` in the run folder says it; `running.lock` beside it, whose modification time a thread of the owner's
moves every few seconds, says that the owner is alive. Both are read by others, also on other hosts, at any moment.
"""

import json
import logging
import math
import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Literal, get_args

from filelock import SoftFileLease

from mindseye.files import read_plain, write_atomically
from mindseye.leases import take
from mindseye.signals import Interrupted
from mindseye.words import one_line

log = logging.getLogger(__name__)

State = Literal["waiting", "running", "completed", "failed", "to be continued"]
STATUS, LOCK = "status.json", "running.lock"
MOST_BYTES = 1 << 20  # of status.json
RESULT = "metrics.json"  # the file that is written last
FILES = "files"  # its key for the sha256 of each file that is computed with again: {name: 64 hex digits}
FEATURES = "features.safetensors"  # what judges see of the pictures, see `Visualization.features`
LEASE_S = 30.0  # without a sign of life for so long an owner on another host counts as dead
BEAT_S = 3.0
CLOCKS_S = 60.0  # on top of it for who only looks: clocks of hosts differ, and NFS shows times late
SILENT = "its process ended without a word"
SAY_S = 2.0  # a running run says how far it is at most so often


@dataclass(frozen=True)
class RunStatus:
    """What `status.json` says. Times are seconds since the epoch; None and "" where there is nothing to say."""

    status: State = "waiting"
    reason: str = ""  # of a failure or an interruption, one line
    step: int | None = None
    steps: int | None = None
    started: float | None = None  # this try
    updated: float | None = None
    seconds: float = 0.0  # spent on it in all tries
    tries: int = 0
    measure: float | None = None  # what the run returned
    overrides: tuple[str, ...] = ()
    config_sha256: str = ""
    host: str = ""
    pid: int | None = None
    pid_namespace: str = ""  # in which that number is the process's: containers of one host name have their own


def read_status(folder: str | os.PathLike[str]) -> RunStatus:
    """The status of a run folder; `waiting` where there is none, or no readable one.

    One that says `running` while nobody is at it any more, or `completed` where the run is no more, comes back as
    `to be continued`.
    """
    place = Path(folder)
    try:
        stored = json.loads(read_plain(place / STATUS, place, MOST_BYTES))
        known = {field.name for field in fields(RunStatus)}
        status = RunStatus(**{name: value for name, value in stored.items() if name in known})
        status = replace(status, overrides=tuple(str(word) for word in status.overrides))
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return RunStatus()
    if status.status not in get_args(State) or not _as_declared(status):
        return RunStatus()
    if status.status == "running" and not _is_alive(place, status):
        return replace(status, status="to be continued", reason=SILENT)
    if status.status == "completed" and not (place / RESULT).is_file():
        return replace(status, status="to be continued", reason=f"{RESULT} is missing")
    return status


def _as_declared(status: RunStatus) -> bool:
    """Whether every value is of its kind: what stands in the file may have been written by anybody."""
    texts = (status.reason, status.config_sha256, status.host, status.pid_namespace)
    whole, numbers = (status.step, status.steps, status.pid), (status.started, status.updated, status.measure)
    return (
        all(value is None or (type(value) is int and 0 <= value < 2**31) for value in whole)
        and all(value is None or type(value) in (int, float) for value in numbers)
        and type(status.seconds) in (int, float)
        and math.isfinite(status.seconds)
        and all(type(value) is str for value in texts)
    )


def write_status(folder: str | os.PathLike[str], status: RunStatus) -> None:
    """Put `status.json` into the run folder, as a whole or not at all."""
    write_atomically(Path(folder) / STATUS, json.dumps(asdict(status), indent=1).encode())


def _is_alive(folder: Path, status: RunStatus) -> bool:
    try:
        silence = time.time() - (folder / LOCK).stat().st_mtime
    except OSError:
        return False
    here = (status.host, status.pid_namespace) == (socket.gethostname(), _pid_namespace())
    if here and status.pid is not None:
        return _process_exists(status.pid) and silence < LEASE_S + CLOCKS_S
    return silence < LEASE_S + CLOCKS_S


def _pid_namespace() -> str:
    """Linux' own name of it; "" where there are none, or where it cannot be known."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _process_exists(pid: int) -> bool:
    if os.name != "posix":  # there os.kill(pid, 0) would end it
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


class Occupied(ValueError):
    """Another process is at work in the run folder."""


@contextmanager
def occupy(folder: Path) -> Iterator[None]:
    """Be the one that works in the run folder. Raises Occupied where another process does.

    A dead owner's place is taken over: at once on its own host, else after LEASE_S without a sign of life.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = SoftFileLease(folder / LOCK, lease_duration=LEASE_S, heartbeat_interval=BEAT_S)

    def who() -> str:
        owner = lock.owner
        return f" (pid {owner.pid} on {owner.hostname.partition('?')[0]})" if owner else ""

    def say() -> None:
        most = 2 * BEAT_S + 1.5 * LEASE_S
        log.warning("%s: a process%s was at work here; looking for at most %.0f s if it still is", folder, who(), most)

    if not take(lock, BEAT_S, wait=False, waiting=say):
        raise Occupied(f"another process{who()} is at work in {folder}: wait, or take another folder")
    try:
        yield
    finally:
        with suppress(OSError):
            lock.release()


class RunRecord:
    """Keeps `status.json` up to date while the run goes on: `with RunRecord(folder, …) as record`.

    Entered, it says `running`. `progress` says how far it is, `complete` that it is done. Left by an exception it says
    `failed` with the reason in one line, or `to be continued` after an interruption; the exception goes on. It holds
    the folder meanwhile, see `occupy`.

    keep_completed: a run of the same configuration that is completed by then, perhaps by somebody else meanwhile, stays
    as it is: `completed` is its status, and nothing is written.
    """

    def __init__(
        self, folder: Path, overrides: Sequence[str], config_sha256: str, *, keep_completed: bool = False
    ) -> None:
        self.folder = folder
        self.completed: RunStatus | None = None
        self._keep_completed = keep_completed
        self._status = RunStatus(status="running", overrides=tuple(overrides), config_sha256=config_sha256)
        self._said = 0.0
        self._begun = 0.0
        self._before = 0.0  # seconds of earlier tries
        self._place = occupy(folder)

    def __enter__(self) -> "RunRecord":
        self._place.__enter__()
        try:
            self._begin()
        except BaseException:  # nobody leaves what was not entered
            self._place.__exit__(None, None, None)
            raise
        return self

    def _begin(self) -> None:
        earlier = read_status(self.folder)
        same = earlier.config_sha256 == self._status.config_sha256
        if self._keep_completed and same and earlier.status == "completed":
            self.completed = earlier
            return
        again = same and earlier.status != "completed"
        self._begun = time.monotonic()
        self._before = earlier.seconds if again else 0.0
        self._status = replace(
            self._status,
            started=time.time(),
            tries=earlier.tries + 1 if again else 1,
            host=socket.gethostname(),
            pid=os.getpid(),
            pid_namespace=_pid_namespace(),
        )
        self._write()

    @property
    def is_complete(self) -> bool:
        """Whether `complete` was called, or the run was completed by an earlier one."""
        return self.completed is not None or self._status.status == "completed"

    def progress(self, step: int, steps: int) -> None:
        """`step` of `steps` are done; written every SAY_S seconds at most, and where the disk lets it."""
        self._status = replace(self._status, step=step, steps=steps)
        if time.monotonic() - self._said >= SAY_S:
            with suppress(OSError):  # what the run found must not be lost for this
                self._write()

    def complete(self, measure: float | None) -> None:
        """The run is done, and its folder is whole."""
        self._status = replace(self._status, status="completed", measure=measure)
        self._write()

    def _write(self) -> None:
        self._said = time.monotonic()
        seconds = self._before + self._said - self._begun
        self._status = replace(self._status, updated=time.time(), seconds=round(seconds, 3))
        write_status(self.folder, self._status)

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        try:
            if error is not None and not self.is_complete:
                stopped = isinstance(error, Interrupted | KeyboardInterrupt)
                reason = "Ctrl-C" if isinstance(error, KeyboardInterrupt) else one_line(error)
                self._status = replace(self._status, status="to be continued" if stopped else "failed", reason=reason)
                with suppress(OSError):  # a full disk must not hide what went wrong
                    self._write()
        finally:
            self._place.__exit__(None, None, None)

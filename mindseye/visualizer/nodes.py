"""One fit on several nodes of a Slurm allocation: a task on each, which meet in a folder that all of them see.

Every node draws its share of the facets, and nothing travels but what is drawn, see `facet_sharding`. Here is only what
the tasks say to one another: how far each is, what went wrong, and that it is alive. Nothing heavy is imported.
"""

import json
import os
import shutil
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from filelock import SoftFileLease

from mindseye.files import read_plain, write_atomically
from mindseye.leases import signs_of_life, take
from mindseye.signals import Interrupted
from mindseye.words import counted, one_line

# How far a node is: its task has begun, can draw, has found the facets, knows that its checkpoint may be gone on from,
# has drawn its share, has read everybody's, and has kept the result. Only the first finds and keeps.
STAGES = ("there", "ready", "found", "drawing", "drawn", "read", "done")
FAILED, INTERRUPTED = "failed", "interrupted"
FOLDER = "nodes"
MOST_BYTES = 1 << 20  # of what a node says
LEASE_S, BEAT_S = 30.0, 3.0
SILENCE_S = 90.0  # a node that shows no sign of life for so long is gone; NFS shows one up to 60 s late
COME_S = 600.0  # a task that has not begun so long after this one does not come: imports from a slow disk take minutes
LOOK_S = 0.5  # so often a node looks how far the others are
LEAVE_S = 10.0  # that the first waits for the others to have left, before it clears up


def share_of(facets: int, process: int, of: int) -> slice:
    """The facets of one of so many processes: as even as can be, in order.

    >>> [share_of(5, process, 3) for process in range(3)]
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    size, more = divmod(facets, of)
    first = process * size + min(process, more)
    return slice(first, first + size + (process < more))


@dataclass(frozen=True)
class Task:
    """One node's task of a run: its number, 0 the first, of how many, and a name that no other start of them has."""

    number: int
    of: int
    start: str


def task_of(nodes: int, environment: Mapping[str, str] = os.environ) -> Task:
    """This process as a task of Slurm's. Raises ValueError, in one line, where there is not one on each of `nodes`."""
    right = f"srun -N{nodes} --ntasks-per-node=1 starts one on each of {nodes} nodes; nodes=1 draws on this one alone"
    job, number = environment.get("SLURM_JOB_ID"), environment.get("SLURM_PROCID")
    if job is None or number is None:
        raise ValueError(f"nodes={nodes}: this is no task of a Slurm allocation: {right}")
    given = int(environment.get("SLURM_STEP_NUM_NODES") or environment.get("SLURM_NNODES") or 1)
    tasks = int(environment.get("SLURM_STEP_NUM_TASKS") or 1)
    if (given, tasks) != (nodes, nodes):
        started = f"{counted(tasks, 'task')} on {counted(given, 'node')}"
        raise ValueError(f"nodes={nodes}: Slurm has started {started}: {right}")
    start = (job, environment.get("SLURM_STEP_ID", "0"), environment.get("SLURM_RESTART_COUNT", "0"))
    return Task(int(number), nodes, ".".join(start))


def tasks_beside(environment: Mapping[str, str] = os.environ) -> str | None:
    """Where this process is one of several that Slurm or torchrun has started alike: how many, in words; else None."""
    for name, launcher in (("SLURM_STEP_NUM_TASKS", "Slurm's"), ("WORLD_SIZE", "torchrun's")):
        number = environment.get(name, "")
        if number.isdecimal() and int(number) > 1:
            return f"one of {launcher} {number} tasks ({name})"
    return None


def check_alone(devices: int, environment: Mapping[str, str] = os.environ) -> None:
    """Raises ValueError where several tasks were started for the devices of one run, as other programs need it."""
    beside = tasks_beside(environment)
    if devices > 1 and beside is not None:
        name = beside.rpartition("(")[2].rstrip(")")
        raise ValueError(
            f"devices={devices}: one task draws on all {devices} devices by itself, and this is {beside}: start one "
            f"(srun -n1), or by nodes=M one on each of M nodes; where each draws another run: env -u {name} mindseye …"
        )


class Elsewhere(ChildProcessError):
    """What ended another node's task ends this one's."""


class Report(NamedTuple):
    """What a node's task said last."""

    state: str  # a stage, FAILED or INTERRUPTED
    text: str
    host: str


class Node:
    """This node's task among the others of a run: `with Node(folder, task) as node`.

    Left by an exception, it says so to the others, whom that ends too. The first to leave in peace waits for the others
    to have left, and removes what they said.

    folder: of the fit. Raises ValueError where another process is at work as this node.
    """

    def __init__(self, folder: Path, task: Task) -> None:
        self.folder = folder
        self.place = folder / FOLDER
        self.number, self.of, self.start = task.number, task.of, task.start
        self.others = [number for number in range(self.of) if number != self.number]
        self._lock = SoftFileLease(self._file(self.number, "lock"), lease_duration=LEASE_S, heartbeat_interval=BEAT_S)
        self._seen: dict[int, tuple[object, float]] = {}  # another's last sign of life, and when it was new here
        self._begun = 0.0
        self._stage, self._text = -1, ""

    @property
    def is_first(self) -> bool:
        """Whether it is the one that everybody else's share comes to."""
        return self.number == 0

    def __enter__(self) -> "Node":
        self.place.mkdir(parents=True, exist_ok=True)
        if not take(self._lock, BEAT_S, wait=False):
            raise ValueError(f"another process is at work as node {self.number} of {self.of} in {self.folder}")
        self._begun = time.monotonic()
        self.say("there")
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        with suppress(OSError):  # a full disk must not hide what went wrong: the others miss the sign of life
            if isinstance(error, Interrupted | KeyboardInterrupt):
                self.say(INTERRUPTED, str(getattr(error, "signum", int(signal.SIGINT))))
            elif error is not None and not isinstance(error, Elsewhere):  # whoever it came from has said it
                self.say(FAILED, one_line(error))
        with suppress(OSError):
            self._lock.release()
        if error is None and self.is_first:
            self._clear_up()

    def say(self, state: str, text: str = "") -> None:
        """How far it is, or what ended it, and a text for those who wait for that. It never goes back, and a stage's
        text stays for who is late."""
        if state in STAGES:
            if STAGES.index(state) <= self._stage:
                return
            self._stage = STAGES.index(state)
            text = self._text = text or self._text
        report = {"start": self.start, "state": state, "text": text, "host": socket.gethostname()}
        write_atomically(self._file(self.number, "json"), json.dumps(report).encode())

    def hear(self, number: int) -> Report | None:
        """What a node said last, in this start of the run; None before its first word."""
        try:
            stored = json.loads(read_plain(self._file(number, "json"), self.place, MOST_BYTES))
            start, *words = (str(stored[name]) for name in ("start", "state", "text", "host"))
        except (OSError, ValueError, TypeError, KeyError):
            return None
        return Report(*words) if start == self.start and words[0] in (*STAGES, FAILED, INTERRUPTED) else None

    def wait(
        self, stage: str, on: list[int] | None = None, meanwhile: Callable[[], None] = lambda: None
    ) -> list[Report]:
        """Until the nodes `on`, all others by default, are at least so far; what they say then, in that order.

        meanwhile: called again and again. Raises what `ended` raises, and Interrupted or KeyboardInterrupt where
        another node was interrupted.
        """
        numbers = self.others if on is None else on
        while True:
            meanwhile()
            if (signum := self.ended(stage)) is not None:
                raise KeyboardInterrupt if signum == signal.SIGINT else Interrupted(signum)
            reports = [self.hear(number) for number in numbers]
            reached = [report for report in reports if report is not None and _is_at(report, stage)]
            if len(reached) == len(numbers):
                return reached
            time.sleep(LOOK_S)

    def ended(self, stage: str = STAGES[-1]) -> int | None:
        """The signal that interrupted another node, None where all go on. Signs of life are asked of those that are not
        so far as `stage`. Raises Elsewhere, in one line, where one has failed, is gone or does not come.
        """
        interrupted = None
        now, silent = time.monotonic(), []
        for number in self.others:
            report = self.hear(number)
            if report is not None and report.state == FAILED:
                raise Elsewhere(f"node {number} ({report.host}): {report.text}")
            if report is not None and report.state == INTERRUPTED:
                interrupted = int(report.text)
            elif report is None and now - self._begun > COME_S:
                silent.append(f"node {number} has not begun within {COME_S / 60:.0f} minutes: see what srun says of it")
            elif report is not None and not _is_at(report, stage):
                sign = signs_of_life(str(self._file(number, "lock")))
                if self._seen.get(number, ((), 0.0))[0] != sign:
                    self._seen[number] = (sign, now)
                elif now - self._seen[number][1] > SILENCE_S:
                    silent.append(f"node {number} ({report.host}) is gone: no sign of life for {SILENCE_S:.0f} s")
        if interrupted is None and silent:
            raise Elsewhere(silent[0])
        return interrupted

    def agree(self, key: str, prepare: Callable[[], None]) -> None:
        """All begin to draw: the first, when it has done what is to be done before, the others when it has, and where
        they draw the same. Raises ValueError where this node would draw something else, by `key`."""
        self.say("ready")
        if self.is_first:
            self.wait("ready")
            prepare()
        elif self.wait("drawing", [0])[0].text != key:
            raise ValueError(
                f"{socket.gethostname()} would draw something else than the first node: network, facets, method or the "
                "version of mindseye differ between them"
            )
        self.say("drawing", key)

    def share(self, processes: int) -> range:
        """Of all processes of the fit those of this node."""
        own = share_of(processes, self.number, self.of)
        return range(own.start, own.stop)

    def _file(self, number: int, kind: str) -> Path:
        return self.place / f"{number}-of-{self.of}.{kind}"

    def _clear_up(self) -> None:
        until = time.monotonic() + LEAVE_S
        while any(signs_of_life(str(self._file(number, "lock"))) for number in self.others):
            if time.monotonic() > until:  # its last word stays for who is late
                return
            time.sleep(LOOK_S / 5)
        shutil.rmtree(self.place, ignore_errors=True)
        with suppress(OSError):
            self.folder.rmdir()


def _is_at(report: Report, stage: str) -> bool:
    return report.state in STAGES and STAGES.index(report.state) >= STAGES.index(stage)


_here: ContextVar[Node | None] = ContextVar("node", default=None)
_starts: Counter[Path] = Counter()  # of this process in each folder, as often as the other nodes' processes there


@contextmanager
def joined(nodes: int, folder: str | os.PathLike[str] | None) -> Iterator[Node | None]:
    """This node among the others of the run that is kept in `folder`, None where a run takes one node.

    Inside another of the same folder it is that one's. Raises ValueError, in one line, see `task_of`.
    """
    if nodes == 1:
        yield None
        return
    if folder is None:
        raise ValueError(f"nodes={nodes}: the nodes meet in a folder that all of them see: Running(folder=…)")
    place = Path(folder).absolute()
    if (node := _here.get()) is not None and node.folder == place:
        yield node
        return
    task = task_of(nodes)
    _starts[place] += 1
    with Node(place, Task(task.number, task.of, f"{task.start}.{_starts[place]}")) as node:
        token = _here.set(node)
        try:
            yield node
        finally:
            _here.reset(token)


def here() -> Node | None:
    """The node that `joined` was entered for, None where a run takes one node."""
    return _here.get()

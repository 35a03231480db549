"""One fit in several processes, a device each: every process draws its own share of the facets.

Facets never mix, so there is no gradient to exchange and nobody to wait for: a share is a fit of its own, by a Trainer
of one device, in a process that is spawned.
"""

import logging
import multiprocessing
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Callable
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import connection, get_context, parent_process
from operator import attrgetter
from pathlib import Path
from typing import Any

import torch

from mindseye.signals import SIGNALS, Interrupted, SignalWatch
from mindseye.visualizer.checkpoints import Checkpoint, write_state
from mindseye.visualizer.nodes import LOOK_S, Node
from mindseye.visualizer.watching import Watchers

RESULT = "result"  # the part of a process's files that holds what it has drawn
log = logging.getLogger(__name__)


Part = dict[str, Any]  # what a process has drawn, as `write_state` takes it


@dataclass(frozen=True)
class Share:
    """Which process of how many, who listens to it, the signals that it watches, if it does, and its device here."""

    process: int
    of: int
    watchers: Watchers
    signals: SignalWatch | None
    device: int = 0


class _ToParent(logging.Handler):
    """What a process logs, handed to its parent, whose log is where people look."""

    def __init__(self, send: Callable[[tuple], None]) -> None:
        super().__init__()
        self.send = send

    def emit(self, record: logging.LogRecord) -> None:
        """Only the line itself."""
        self.send(("log", record.name, record.levelno, record.getMessage()))


class SharedOut:
    """Starts the processes, hears them, hands signals on to them, and brings their errors out as its own.

    draw: what each process does with its share; it must be possible to pickle it. files: where each writes what it has
    drawn, as the part RESULT. watchers: who is told of the first process's share. watched: signals wait for the end of
    a step, see `fit`. node: of several nodes this one, whose processes alone are started; what ends another ends it.
    """

    def __init__(
        self,
        processes: int,
        draw: Callable[[Share], Part],
        files: Checkpoint,
        watchers: Watchers,
        watched: bool,
        node: Node | None = None,
    ) -> None:
        self.processes = processes
        self.node = node
        self.own = range(processes) if node is None else node.share(processes)
        self.steps = 0
        self.draw = draw
        self.files = files
        self.watchers = watchers
        self.signals = SignalWatch(again=self._at_once, tell=self.kill) if watched else None
        self._running: list[Any] = []

    def run(self, scratch: Path, steps: int) -> None:
        """Have every process draw its `steps` until all are done, again and again where a signal's handler returns."""
        try:
            # By value: torch would else put every weight into shared memory, a file descriptor each.
            sent = pickle.dumps(self.draw)
        except Exception as error:
            raise ValueError(_cannot_be_sent(self.processes, error)) from error
        # Through a file: a pipe would hold the parent up until each process has imported torch, one after the other.
        letter = scratch / "letter"
        letter.write_bytes(sent)
        self.steps = steps
        try:
            if self.signals is not None:
                self.signals.watch()
            while (ended := self._run(letter)) is not None:
                signum, step = ended
                if self.signals is None or not self.signals.noted:  # it came to a child alone, or to another node
                    raise Interrupted(signum, step)
                self.signals.deliver(step)
            if self.signals is not None:
                self.signals.deliver(steps)  # what came after the last step
        finally:
            if self.signals is not None:
                self.signals.put_back()

    def kill(self, signum: int) -> None:
        """Hand a signal on to every process that is alive."""
        for process in self._running:
            if process.is_alive():
                with suppress(ProcessLookupError):
                    os.kill(process.pid, signum)

    def _at_once(self, signum: int) -> None:
        """The same signal for the second time."""
        self._end()
        self.signals.hand_on(signum, None)

    def _end(self) -> None:
        for process in self._running:
            process.kill()
        for process in self._running:
            process.join()

    def _run(self, letter: Path) -> tuple[int, int] | None:
        """One life of all processes. Returns (signal, first step of any at which it was seen), None where all drew."""
        ended: tuple[int, int] | None = None
        try:
            voices = self._start(letter)
            while voices:
                if self.node is not None and ended is None and (signum := self.node.ended("drawn")) is not None:
                    self.kill(signum)
                    ended = (signum, self.steps)
                for heard in connection.wait(list(voices), None if self.node is None else LOOK_S):
                    process = voices[heard]
                    try:
                        message = heard.recv()
                    except (EOFError, OSError):
                        process.join()
                        message = ("gone", process.exitcode)
                    kind, *content = message
                    if kind in ("report", "announce"):
                        getattr(self.watchers, kind)(*content)
                    elif kind == "log":
                        name, level, line = content
                        logging.getLogger(name).log(level, "%s", line)
                    elif kind == "raised":
                        raise _error(content[0])
                    else:
                        del voices[heard]
                        ended = self._what_ended(kind, content, ended)
        finally:
            self._end()
        return ended

    def _what_ended(self, kind: str, content: list[Any], ended: tuple[int, int] | None) -> tuple[int, int] | None:
        if kind == "interrupted":
            signum, step = content
            if ended is None and not self.signals.noted:
                self.kill(signum)  # all or none
            return (signum, step if ended is None else min(step, ended[1]))
        if kind == "gone":
            if self.signals is not None and self.signals.noted:
                return ended or (self.signals.noted[0], 0)
            code = content[0]
            how = signal.Signals(-code).name if code < 0 else f"exit status {code}"
            raise RuntimeError(f"one of {self.processes} processes is gone ({how})")
        return ended

    def _start(self, letter: Path) -> dict[Any, Any]:
        """Every process, by the end of its pipe."""
        context = get_context("spawn")
        setting = _Setting.of_this_process(len(self.own))
        heard = [name for name in ("report", "announce") if getattr(self.watchers, name) is not None]
        silent = self.watchers.silenced()
        self._running, voices = [], {}
        with _signals_held_back(), _spawning():
            for device, rank in enumerate(self.own):
                hear, speak = context.Pipe(duplex=False)
                telling = {name: partial(_tell, speak, name) for name in heard if rank == 0}
                share = Share(rank, self.processes, replace(silent, **telling), None, device)
                process = context.Process(
                    target=_draw_share,
                    args=(share, letter, speak, setting, self.files, self.signals is not None),
                    daemon=True,
                )
                process.start()
                speak.close()
                self._running.append(process)
                voices[hear] = process
        return voices


@contextmanager
def _spawning() -> Any:
    """A process is told its parent's start method, and one of joblib's workers has one that only joblib knows."""
    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method("spawn", force=True)
    try:
        yield
    finally:
        with suppress(ValueError):
            multiprocessing.set_start_method(before, force=True)


@contextmanager
def _signals_held_back() -> Any:
    """Processes started meanwhile hold signals back until they can take them; this one does for as long."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # it lets signals through once it has started
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@dataclass(frozen=True)
class _Setting:
    """How torch computes in the parent, and what is logged there, so that its children do alike."""

    threads: int
    log_level: int
    deterministic: bool
    warn_only: bool
    switches: tuple[tuple[str, str, Any], ...]  # (the module, its attribute, the value)

    @classmethod
    def of_this_process(cls, processes: int) -> "_Setting":
        return cls(
            max(1, torch.get_num_threads() // processes),
            logging.getLogger("mindseye").getEffectiveLevel(),
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
            tuple((place, name, _attribute(place, name)) for place, name in _switches()),
        )

    def take(self) -> None:
        torch.set_num_threads(self.threads)
        torch.use_deterministic_algorithms(self.deterministic, warn_only=self.warn_only)
        for place, name, value in self.switches:
            if _attribute(place, name) != value:
                setattr(attrgetter(place)(torch.backends) if place else torch.backends, name, value)


def _attribute(place: str, name: str) -> Any:
    return attrgetter(f"{place}.{name}" if place else name)(torch.backends)


def _switches() -> list[tuple[str, str]]:
    """Of torch.backends: all that changes what is computed, wider ones before those that may differ from them."""
    switches = [("cudnn", "enabled"), ("cudnn", "benchmark"), ("cudnn", "deterministic")]
    switches += [("cuda.matmul", f"allow_{kind}_reduced_precision_reduction") for kind in ("fp16", "bf16")]
    if not hasattr(torch.backends.cuda.matmul, "fp32_precision"):  # before torch 2.9
        return [*switches, ("cuda.matmul", "allow_tf32"), ("cudnn", "allow_tf32")]
    places = ("", "cudnn", "mkldnn", "cuda.matmul", "cudnn.conv", "cudnn.rnn", "mkldnn.conv", "mkldnn.matmul")
    return [*switches, *((place, "fp32_precision") for place in places)]


def _tell(speak: Any, kind: str, *content: Any) -> None:
    speak.send((kind, *content))


def _draw_share(share: Share, letter: Path, speak: Any, setting: _Setting, files: Checkpoint, watched: bool) -> None:
    """All that a process does."""
    signals = None
    if watched:
        # A signal to a whole group comes twice, by itself and from the parent: it counts once.
        signals = SignalWatch(dict.fromkeys(SIGNALS, signal.SIG_IGN), again=lambda signum: None)
        signals.watch()
    else:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's, who ends all
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    logging.getLogger("mindseye").setLevel(setting.log_level)
    logging.getLogger("mindseye").addHandler(_ToParent(speak.send))
    try:
        setting.take()
        try:
            draw: Callable[[Share], Part] = pickle.loads(letter.read_bytes())
        except (ImportError, AttributeError, pickle.UnpicklingError) as error:
            raise ValueError(_cannot_be_sent(share.of, error)) from error
        part = draw(replace(share, signals=signals))
        write_state(files.file(RESULT, share.process, share.of), files.key, part)
        speak.send(("drawn",))
    except Interrupted as interrupted:
        speak.send(("interrupted", interrupted.signum, interrupted.step))
    except BaseException as error:
        speak.send(("raised", _portable(error)))


def _end_with_parent() -> None:
    """Nobody is left to draw for once the parent is gone."""
    connection.wait([parent_process().sentinel])
    os._exit(1)


def _portable(error: BaseException) -> bytes:
    error.add_note("".join(traceback.format_exception(error)))
    with suppress(Exception):
        content = pickle.dumps(error)
        pickle.loads(content)
        return content
    return pickle.dumps(RuntimeError(f"{type(error).__name__}: {error}"))


def _error(content: bytes) -> BaseException:
    return pickle.loads(content)


def _cannot_be_sent(processes: int, error: Exception) -> str:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return (
        f"devices={processes}: something of this fit cannot be sent to another process ({reason}); devices=1 does "
        "without"
    )

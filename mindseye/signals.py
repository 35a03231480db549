"""Signals that ask a program to stop: what they raise, and how they wait until the import or step at hand is done."""

import _thread
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

# What schedulers and people send. SIGUSR1 and SIGUSR2 are unknown to Windows.
SIGNALS: tuple[int, ...] = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGUSR1", "SIGUSR2") if hasattr(signal, name)
)


TO_BE_CONTINUED = 75  # the exit code of a run that was interrupted and goes on when it is started again (EX_TEMPFAIL)
CTRL_C = 130  # of what a person stopped, as shells count it
LOOK_S = 0.02  # so often it is looked whether an import is over


class Interrupted(BaseException):
    """A signal for which the program had no handler of its own ended the run, the fit after step `step`.

    Like KeyboardInterrupt no Exception, so that nothing takes it for a failure. The checkpoint holds that step; None
    where who raises it does not know how far the fit is.
    """

    def __init__(self, signum: int, step: int | None = None) -> None:
        super().__init__(signum, step)
        self.signum = signum
        self.step = step

    def __str__(self) -> str:
        name = signal.Signals(self.signum).name
        return name if self.step is None else f"{name} after step {self.step}"


class Interruptible:
    """`with Interruptible() as signals:` SIGTERM, SIGUSR1 and SIGUSR2 raise Interrupted, and SIGINT what it did before.

    Never in the middle of an import: there it may be swallowed, come out as an ImportError, and leave half a module
    behind. Such a signal waits until no import is at work. Once one is raised, SIGTERM, SIGUSR1 and SIGUSR2 say nothing
    new (schedulers send some twice). One that was swallowed all the same is raised where the block ends; `insisted` is
    for those that came out as an error. `first(signum)`, if given, is called before Interrupted is raised.

    `told` is the signal that was raised, None before. Only the main thread hears signals, elsewhere nothing happens.
    """

    def __init__(self, first: Callable[[int], None] | None = None) -> None:
        self.told: int | None = None
        self._first = first
        self._before: dict[int, Any] = {}
        self._imports = 0  # at work when the block began
        self._waiting: dict[int, bool] = {}  # signals that came during an import -> whether they were sent again
        self._lock = threading.Lock()

    def __enter__(self) -> "Interruptible":
        self._imports = _imports_at_work(sys._getframe())
        if threading.current_thread() is threading.main_thread():
            handlers = {signum: signal.getsignal(signum) for signum in SIGNALS}
            self._before = {n: handler for n, handler in handlers.items() if n != signal.SIGINT or callable(handler)}
            for signum in self._before:
                signal.signal(signum, self._hear)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        with self._lock:
            left = [*self._waiting, *([] if self.told is None else [self.told])]
            self._waiting = {}
        leaving = error is not None and not isinstance(error, Exception)  # the process is about to end
        for signum, handler in self._before.items():
            ignored = signal.getsignal(signum) == signal.SIG_IGN  # by a block inside this one
            if leaving and signum != signal.SIGINT and (ignored or self.told is not None):
                signal.signal(signum, signal.SIG_IGN)  # the fit may have put this block's handler back after its own
            else:
                signal.signal(signum, signal.SIG_DFL if handler is None else handler)
        if left and not leaving:
            raise _raised_by(left[0]) from error

    def handler_before(self, signum: int) -> Callable[[int, FrameType | None], Any] | None:
        """Somebody else's Python handler that stood before, a scheduler's library's say."""
        handler = self._before.get(signum)
        block = getattr(handler, "__self__", None)
        if isinstance(block, Interruptible):
            return block.handler_before(signum)
        return handler if callable(handler) else None

    @contextmanager
    def insisted(self) -> Iterator[None]:
        """An error that comes after a signal was raised is what somebody has made of it: it is the signal again."""
        try:
            yield
        except Exception as error:
            if self.told is None:
                raise
            raise _raised_by(self.told) from error

    def _hear(self, signum: int, frame: FrameType | None) -> None:
        if self.told not in (None, signal.SIGINT) and signum != signal.SIGINT:
            return  # the fit has put this handler back after its own
        if _imports_at_work(frame) > self._imports:
            if signum not in self._waiting:
                # Not threading.Thread, whose lock the main thread may hold just now.
                _thread.start_new_thread(self._send_again, (signum,))
            self._waiting[signum] = False
            return
        self._waiting.pop(signum, None)
        if signum == signal.SIGINT:
            try:
                self._before[signum](signum, frame)
            except KeyboardInterrupt:
                self.told = self.told or signum
                raise
            return
        self.told = signum
        for number in self._before:
            if number != signal.SIGINT:
                signal.signal(number, signal.SIG_IGN)  # the same news again must not disturb the leaving
        if self._first is not None:
            self._first(signum)
        raise Interrupted(signum)

    def _send_again(self, signum: int) -> None:
        """In a thread of its own: once the main thread is done with its imports, the signal comes again."""
        main = threading.main_thread().ident or 0
        while True:
            time.sleep(LOOK_S)
            with self._lock:  # the block does not end between the look and the signal
                if signum not in self._waiting:
                    return
                if self._waiting[signum] or _imports_at_work(sys._current_frames().get(main)) > self._imports:
                    continue
                self._waiting[signum] = True
                if hasattr(signal, "pthread_kill"):
                    signal.pthread_kill(main, signum)  # it wakes from whatever it waits for
                else:
                    _thread.interrupt_main(signal.Signals(signum))


def _raised_by(signum: int) -> BaseException:
    return KeyboardInterrupt() if signum == signal.SIGINT else Interrupted(signum)


def _imports_at_work(frame: FrameType | None) -> int:
    """How many calls of the import system are on a thread's stack."""
    count = 0
    while frame is not None:
        count += frame.f_code.co_filename == "<frozen importlib._bootstrap>"
        frame = frame.f_back
    return count


class SignalWatch:
    """Notes SIGTERM, SIGINT, SIGUSR1 and SIGUSR2, to be handed on to the handlers that stood before when it suits.

    Those are the handlers in force when the watch is made, or `previous`. What they ignore, or what was installed from
    outside Python, is not watched; nor is anything outside the main thread, where Python allows no handlers.
    Told again, a signal is no other news (schedulers send some twice), but for a person's second Ctrl-C: `again`, or by
    default the handler that stood before, gets it at once. `tell`, if given, is called with each noted signal, inside
    the signal's handler.
    """

    def __init__(
        self,
        previous: Mapping[int, Any] | None = None,
        again: Callable[[int], None] | None = None,
        tell: Callable[[int], None] | None = None,
    ) -> None:
        if previous is None:
            now = {signum: signal.getsignal(signum) for signum in SIGNALS}
            previous = {
                signum: handler for signum, handler in now.items() if callable(handler) or handler == signal.SIG_DFL
            }
        self._previous = previous
        self._again = again
        self._tell = tell
        self.noted: list[int] = []

    def watch(self) -> None:
        """From now on signals are noted."""
        if threading.current_thread() is threading.main_thread():
            for signum in self._previous:
                signal.signal(signum, self._note)

    def put_back(self) -> None:
        """The handlers that stood before are in force again."""
        if threading.current_thread() is threading.main_thread():
            for signum, handler in self._previous.items():
                signal.signal(signum, handler)

    def deliver(self, step: int) -> None:
        """Put the former handlers back and call those of the signals noted; where they return, watch again.

        Raises what they raise, and Interrupted where there was none.
        """
        self.put_back()
        noted, self.noted = self.noted, []
        for signum in noted:
            handler = self._previous[signum]
            if not callable(handler):
                raise Interrupted(signum, step)
            handler(signum, sys._getframe())
        self.watch()

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if signum not in self.noted:
            self.noted.append(signum)
            if self._tell is not None:
                self._tell(signum)
        elif signum != signal.SIGINT:
            return
        elif self._again is not None:
            self._again(signum)
        else:
            self.hand_on(signum, frame)

    def hand_on(self, signum: int, frame: FrameType | None) -> None:
        """The signal goes to the handler that stood before, at once."""
        self.put_back()
        handler = self._previous[signum]
        if callable(handler):
            handler(signum, frame)
        else:
            signal.raise_signal(signum)
        self.watch()

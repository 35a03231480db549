"""Signals that ask a program to stop, noted until the step at hand is done."""

import signal
import sys
import threading
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any

# What schedulers and people send. SIGUSR1 and SIGUSR2 are unknown to Windows.
SIGNALS: tuple[int, ...] = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGUSR1", "SIGUSR2") if hasattr(signal, name)
)


TO_BE_CONTINUED = 75  # the exit code of a run that was interrupted and goes on when it is started again (EX_TEMPFAIL)
CTRL_C = 130  # of what a person stopped, as shells count it


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
            found = {signum: signal.getsignal(signum) for signum in SIGNALS}
            previous = {
                signum: handler for signum, handler in found.items() if callable(handler) or handler == signal.SIG_DFL
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

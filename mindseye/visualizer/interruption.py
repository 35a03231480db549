"""A run that was told to stop and can be continued. Nothing heavy is imported here."""

import signal

SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2") if hasattr(signal, name)
)  # a person's, a scheduler's last word, and its two warnings; Windows has not all of them
TO_BE_CONTINUED = 75  # the exit code of a run that was interrupted and goes on when started again (EX_TEMPFAIL)


class Interrupted(BaseException):
    """A signal ended the run, `step` steps of the fit done and saved (None: not that far).

    Not an Exception: whoever handles errors must not take it for one.
    """

    def __init__(self, signum: int, step: int | None = None) -> None:
        self.signum, self.step = signum, step
        where = "before the first step" if step is None else f"after step {step}"
        super().__init__(f"{signal.Signals(signum).name} {where}")

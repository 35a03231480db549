"""How much the command says: `-q` the run folder alone, `-v` also the project's log, down to DEBUG, on stderr."""

import contextlib
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

from rich.console import Console

# In the environment, not in the configuration: it reaches the processes of a sweep, and a run is the same run however
# much is said of it.
VARIABLE = "MINDSEYE_VERBOSITY"
WORDS = {"-q": "quiet", "--quiet": "quiet", "-v": "verbose", "--verbose": "verbose"}


def take_verbosity(arguments: Sequence[str]) -> list[str]:
    """The arguments without -q, -v and their long forms, after those are noted; the last one counts."""
    asked = [WORDS[word] for word in arguments if word in WORDS]
    if asked:
        os.environ[VARIABLE] = asked[-1]
    return [word for word in arguments if word not in WORDS]


def is_quiet() -> bool:
    """Whether nothing but the run folder is to be said on standard output."""
    return os.environ.get(VARIABLE) == "quiet"


def console() -> Console:
    """Standard output; where it is to be quiet, nothing."""
    return Console(quiet=is_quiet())


class _Unfailing:
    """A stream that is silent once it cannot be written to: its reader is gone, or its disk full."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError:
            self._be_silent()
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            self._be_silent()

    def _be_silent(self) -> None:
        with contextlib.suppress(OSError, ValueError):  # what is kept of the text would fail again at the end
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def unfailing_output() -> Iterator[None]:
    """What is said of a run must not cost the run: `mindseye | head` goes on without a word when head is done."""
    out: Any = _Unfailing(sys.stdout)
    err: Any = _Unfailing(sys.stderr)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        yield


@contextmanager
def log_on_terminal() -> Iterator[None]:
    """With -v, the project's log below WARNING, which the terminal shows anyway, on standard error meanwhile.

    A log that cannot be written, on a full disk say, prints no traceback for each line from here on, in this process.
    """
    logging.raiseExceptions = False
    if os.environ.get(VARIABLE) != "verbose":
        yield
        return
    project = logging.getLogger("mindseye")
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s", "%H:%M:%S"))
    handler.addFilter(lambda record: record.levelno < logging.WARNING)
    before = project.level
    project.addHandler(handler)
    project.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        project.setLevel(before)
        project.removeHandler(handler)

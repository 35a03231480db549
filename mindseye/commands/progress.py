"""What a person sees while a run goes on: a bar over the whole job on a terminal, a few lines anywhere else."""

import logging
import sys
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

log = logging.getLogger(__name__)

STEP_COST = 3  # forward and backward pass of one picture, in forward passes


class JobProgress:
    """One bar over reading the photographs, drawing and measuring, its length in forward passes of one image.

    `photographs`, `pictures` (C) and `steps` say how much there is to do; `measures` how often each picture is looked
    at in the end. Away from a terminal every tenth of the steps is a line on standard output instead.
    """

    def __init__(self, console: Console, *, photographs: int, pictures: int, steps: int, measures: int = 4) -> None:
        self._live = console.is_terminal
        self._console = console
        self._steps = steps
        self._photographs = photographs
        self._pictures = pictures
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn(), console=console
        )
        total = photographs + pictures * (STEP_COST * steps + measures)
        self._task = self._progress.add_task("starting", total=total)
        self._said = 0

    def __enter__(self) -> "JobProgress":
        if self._live:
            self._progress.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._live:
            self._progress.stop()

    def reading(self, done: int, total: int) -> None:
        """So many photographs have been through the network."""
        self._say(f"reading {total} photographs", done * self._photographs / max(total, 1))

    def stage(self, what: str) -> None:
        """A stage without steps of its own begins."""
        if self._live:
            self._progress.update(self._task, description=what)
        log.info(what)

    def drawing(self, step: int, terms: dict[str, float]) -> None:
        """Step `step` is done; `terms` are means over the facets."""
        names = {"total": "loss", "dm": "DM", "mdist": "mdist", "ad": "AD", "penalty": "P", "tv": "TV"}
        said = "  ".join(f"{label} {terms[name]:.3g}" for name, label in names.items())
        self._say(f"step {step}/{self._steps}  {said}", self._photographs + self._pictures * STEP_COST * step)
        if step * 10 // self._steps > self._said:
            self._said = step * 10 // self._steps
            log.info("step %d/%d  %s", step, self._steps, said)
            if not self._live:
                print(f"step {step}/{self._steps}  {said}", file=sys.stdout, flush=True)

    def _say(self, what: str, completed: float) -> None:
        if self._live:
            self._progress.update(self._task, description=what, completed=completed)

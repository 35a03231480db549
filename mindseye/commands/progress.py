"""What a person sees while a run goes on: a bar over the whole job on a terminal, a few lines anywhere else."""

import logging
import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

log = logging.getLogger(__name__)

STEP_COST = 3  # forward and backward pass of one picture, in forward passes
WORTH_SAYING = 2.0  # seconds that a stage has lasted before its time left is worth a guess


class JobProgress:
    """One bar over reading the photographs, drawing and measuring, its length in forward passes of one image.

    `photographs`, `pictures` (C) and `steps` say how much there is to do; `measures` how often each picture is looked
    at in the end. What comes between has no part in the bar: it is named before it, with the time it will still take
    where that is known, and the clock behind it shows that the run is alive. Away from a terminal every tenth of the
    steps is a line on standard output instead.
    """

    def __init__(self, console: Console, *, photographs: int, pictures: int, steps: int, measures: int = 4) -> None:
        self._live = console.is_interactive and console.file.isatty()  # FORCE_COLOR makes no terminal of a file
        self._quiet = console.quiet
        self._console = console
        self._steps = steps
        self._photographs = photographs
        self._pictures = pictures
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
        )
        self._measures = measures
        self._task = self._progress.add_task("starting", total=self._total())
        self._said = 0
        self._stage = ""
        self._since = 0.0  # when that stage, or what is known of its length, began
        self._begun = 0.0  # how much of it was done then

    def __enter__(self) -> "JobProgress":
        if self._live:
            self._progress.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._live:
            self._progress.stop()

    def _total(self) -> int:
        return self._photographs + self._pictures * (STEP_COST * self._steps + self._measures)

    def found(self, pictures: int) -> None:
        """So many facets were found: as many pictures are drawn."""
        self._pictures = pictures
        self._progress.update(self._task, total=self._total())

    def reading(self, done: int, total: int) -> None:
        """So many photographs have been through the network."""
        self._say(f"reading {total:,} photographs", done * self._photographs / max(total, 1))

    def stage(self, stage: str, done: float | None = None) -> None:
        """A stage without a part in the bar begins, or goes on; `done` is how much of it is done, 0..1, if known."""
        now = time.monotonic()
        if stage != self._stage:
            log.info(stage)
            self._stage, self._since, self._begun = stage, now, 0.0
        if done is None:
            self._since = now  # what is measured begins after this: looking for neighbours, before iterations
            self._describe(stage)
            return
        seconds = now - self._since
        left = ""
        if seconds >= WORTH_SAYING and self._begun < done < 1:
            left = f", {readable_seconds(seconds * (1 - done) / (done - self._begun))} left"
        self._describe(f"{stage}: {done:.0%}{left}")

    def drawing(self, step: int, terms: dict[str, float]) -> None:
        """Step `step` is done; `terms` are means over the facets. After the last one the pictures are measured."""
        names = {"total": "loss", "dm": "DM", "mdist": "mdist", "ad": "AD", "penalty": "P", "tv": "TV"}
        shown = "  ".join(f"{label} {terms[name]:.3g}" for name, label in names.items())
        self._say(f"step {step}/{self._steps}  {shown}", self._photographs + self._pictures * STEP_COST * step)
        if step * 10 // self._steps > self._said:
            self._said = step * 10 // self._steps
            log.info("step %d/%d  %s", step, self._steps, shown)
            if not self._live and not self._quiet:
                print(f"step {step}/{self._steps}  {shown}", file=sys.stdout, flush=True)
        if step == self._steps:
            self.stage("measuring")

    def _say(self, line: str, completed: float) -> None:
        if self._live:
            self._progress.update(self._task, description=line, completed=completed)

    def _describe(self, line: str) -> None:
        if self._live:
            self._progress.update(self._task, description=line)


def readable_seconds(seconds: float) -> str:
    """A length of time for people: 40 s, 3 min, 2 h 05 min.

    >>> [readable_seconds(s) for s in (0.4, 40, 190, 7500)]
    ['1 s', '40 s', '3 min', '2 h 05 min']
    """
    if seconds < 59.5:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"

"""Who listens while facets are drawn, and changes nothing."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pytorch_lightning.loggers import Logger

Report = Callable[[int, dict[str, float]], None]
Announce = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Watchers:
    """Who is told of a fit.

    report: called every `every` steps with (step, {term: mean over the facets}), of several devices over the facets of
    the first. announce: called with one line of text when something begins that has no steps. logger: one of
    Lightning's loggers, or several, see `mindseye.visualizer.tracking`; with several devices they are told everything
    at the end.
    """

    report: Report | None = None
    announce: Announce | None = None
    logger: Logger | Sequence[Logger] | None = None
    every: int = 10

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ValueError(f"every must be 1 step or more, not {self.every}")

"""Who listens while facets are drawn, and changes nothing."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pytorch_lightning import Callback
from pytorch_lightning.loggers import Logger

from mindseye.fields import Count, check
from mindseye.visualizer.onlookers import TELL_LOGGERS, why_not, why_not_a_filter
from mindseye.words import called

Report = Callable[[int, dict[str, float]], None]
Announce = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Watchers:
    """Who is told of a fit.

    report: called every `every` steps with (step, {term: mean over the facets}), of several devices over the facets of
    the first. announce: called with one line of text when something begins that has no steps. logger: one of
    Lightning's loggers, or several, see `mindseye.visualizer.tracking`; with several devices they are told everything
    at the end. callbacks: of Lightning's, who look on: they run after all that draws, and what one changes is not
    asked for where a fit goes on from its folder (that is what `Method.filters` are for).
    """

    report: Report | None = None
    announce: Announce | None = None
    logger: Logger | Sequence[Logger] | None = None
    every: int = 10
    callbacks: Sequence[Callback] = ()

    def __post_init__(self) -> None:
        _check_logger(self.logger)
        if not isinstance(self.callbacks, list | tuple):
            raise ValueError(f"callbacks must be a list, not {called(self.callbacks)}")
        for callback in self.callbacks:
            _check_callback(callback, told=bool(self.logger))
        for name, given in (("report", self.report), ("announce", self.announce)):
            if given is not None and not callable(given):
                raise ValueError(f"{name} must be a function, not {called(given)}")
        check("every", self.every, Count)

    def silenced(self) -> "Watchers":
        """For one of several processes: nobody is told, and callbacks that tell loggers alone stay away."""
        kept = [callback for callback in self.callbacks if not {*names_of(callback)} & {*TELL_LOGGERS}]
        return Watchers(every=self.every, callbacks=kept)


def names_of(value: object) -> list[str]:
    """The names of its class and of those above."""
    return [kind.__name__ for kind in type(value).__mro__]


def _check_logger(logger: object) -> None:
    """Raises ValueError for what is none of Lightning's loggers, a name say."""
    if logger is None:
        return
    for given in logger if isinstance(logger, list | tuple) else [logger]:
        if not hasattr(given, "log_metrics"):
            shown = f"the text {given!r}" if isinstance(given, str) else called(given)
            raise ValueError(
                "the logger must be one of Lightning's, pytorch_lightning.loggers.CSVLogger(FOLDER) say, or a list of "
                f"them, not {shown}"
            )


def _check_callback(callback: object, *, told: bool) -> None:
    """Raises ValueError for what is no callback, and for one that cannot look on here."""
    if not isinstance(callback, Callback):
        package = type(callback).__module__.partition(".")[0]
        where = f" of the package {package}" if "Callback" in names_of(callback) else ""
        raise ValueError(
            f"a callback must be one of a subclass of pytorch_lightning.Callback, not {called(callback)}{where}"
        )
    if (why := why_not(names_of(callback), told=told)) is not None:
        raise ValueError(f"{called(callback)} {why}")


def check_filters(filters: Sequence[object]) -> None:
    """Raises ValueError for a callback that cannot run here, or changes no picture."""
    for given in filters:
        names = names_of(given)
        if not isinstance(given, Callback) and not callable(given):
            raise ValueError(f"a filter must be a function or of pytorch_lightning.Callback, not {called(given)}")
        if isinstance(given, Callback) and (why := why_not_a_filter(names)) is not None:
            raise ValueError(f"a filter is {called(given)}, which {why}")

"""Lightning's loggers as trackers that no run ends by, and the names that everything has in them."""

import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import numpy as np
from PIL import Image
from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor

from mindseye.facets.pictures import as_png, to_picture
from mindseye.visualizer.terms import LossTerms, gradient_names
from mindseye.words import on_one_line

T = TypeVar("T")
log = logging.getLogger(__name__)

DISTANCE = ("mdist", "r", "b")
STEP_S, LIMIT_S = 60.0, 600.0  # that a call within the fit may take, and any other: wandb itself waits for 300 at most
LOOK_S = 0.1  # so often it is looked meanwhile whether TensorBoard's own thread lives
AXIS = "trainer/global_step"  # Lightning's name of the one axis that all wandb panels share


def columns_of(extra: Iterable[str] = ()) -> tuple[str, ...]:
    """The columns of a step's history, in order; `extra` are the objective's own terms."""
    extra = tuple(extra)
    return (*LossTerms.names(), *extra, "r", "b", *(f"gradient_{name}" for name in gradient_names(extra)))


@contextmanager
def as_rank_zero() -> Iterator[None]:
    """While it lasts this process is the one whose loggers write, whatever its environment says.

    Lightning takes a rank from RANK, LOCAL_RANK, SLURM_PROCID or JSM_NAMESPACE_RANK when it is imported, and above 0
    all that a logger is told goes nowhere. Here every process is a run of its own, a packed Slurm task or not.
    """
    before = rank_zero_only.rank
    rank_zero_only.rank = 0
    try:
        yield
    finally:
        rank_zero_only.rank = before


def as_files(pictures: Sequence[Image.Image], folder: str) -> list[str]:
    """PNGs that say who has made them, which wandb copies as they are; pictures it would write itself, without that."""
    files = [Path(folder) / f"{number:02d}.png" for number in range(len(pictures))]
    for file, picture in zip(files, pictures, strict=True):
        file.write_bytes(as_png(picture))
    return [str(file) for file in files]


class Tracker(Logger):
    """A Lightning logger whose failures are said once, in one line; from then on it is left alone.

    To be stuck is a failure too: each call is made in a thread of its own, and waited for only so long. Steps are those
    of the fit, from 1 on. `pictures` and `picture` reach wandb and TensorBoard; others have no place for them.
    """

    def __init__(self, logger: Logger) -> None:
        super().__init__()
        self.logger = logger
        self.failed = False
        self._settings: Any = None  # of the run, as `log_hyperparams` was given them
        self._done: threading.Event | None = None  # set when the last call has come back
        kinds = {base.__name__ for base in type(logger).__mro__}
        self.is_wandb = "WandbLogger" in kinds
        self.is_tensorboard = "TensorBoardLogger" in kinds
        self.forgets = "CSVLogger" in kinds  # begins anew where a run goes on: it must be told what was before

    def attempt(self, action: Callable[[Logger], T], limit_s: float = LIMIT_S, *, ends: bool = False) -> T | None:
        """What `action(logger)` gives; None where it fails, is not back after limit_s, or the logger failed before.

        ends: it is the last one, after which a writing thread may be gone.
        """
        if self.failed:
            return None
        try:
            return self._call(action, limit_s, ends)
        except Exception as error:  # whatever a tracker raises: no disk, no network, a bug of its own
            self.failed = True
            _let_go(self.logger)
            reason = on_one_line(error) or type(error).__name__
            log.warning("%s is left alone from here on, the run goes on: %s", type(self.logger).__name__, reason)
            log.info("what it raised", exc_info=error)
            return None

    def _call(self, action: Callable[[Logger], T], limit_s: float, ends: bool) -> T:
        given: list[T] = []
        raised: list[BaseException] = []
        before, done = self._done, threading.Event()

        def call() -> None:
            try:
                if before is not None:
                    before.wait()  # an interruption has left it at work
                given.append(action(self.logger))
            except BaseException as error:
                raised.append(error)
            done.set()

        _check_alive(self.logger)
        # Not Thread.join: interrupted by a signal, it takes the thread for ended.
        self._done = done
        threading.Thread(target=call, name="tracker", daemon=True).start()
        deadline = time.monotonic() + limit_s
        while not done.wait(LOOK_S):
            if not ends:
                _check_alive(self.logger)
            if time.monotonic() > deadline:
                raise TimeoutError(f"it did not come back within {limit_s:.0f} seconds")
        if raised:
            raise raised[0]
        return given[0]

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Numbers by their panel's name: loss/dm."""
        self.attempt(lambda logger: logger.log_metrics(dict(metrics), step), STEP_S)

    def log_hyperparams(self, params: Any, *args: Any) -> None:
        """The configuration."""
        self._settings = params
        self.attempt(lambda logger: logger.log_hyperparams(params))

    def log_measures(self, measures: Mapping[str, float]) -> None:
        """For TensorBoard's table of runs, HPARAMS: the configuration again, with what came of it."""
        if self.is_tensorboard and self._settings is not None:
            self.attempt(lambda logger: logger.log_hyperparams(self._settings, dict(measures)))

    def pictures(self, name: str, images: Tensor, step: int) -> None:
        """uint8 [C, ch, S, S] with 1 or 3 channels: bytes, since wandb makes floats in 0..1 black."""
        if images.shape[1] not in (1, 3):
            return
        if self.is_wandb:
            captions = [f"facet {c}" for c in range(len(images))]
            self._log_images(name, [to_picture(image) for image in images], step, STEP_S, captions)
        elif self.is_tensorboard:
            for c, image in enumerate(images):
                self.attempt(
                    lambda logger, c=c, image=image: logger.experiment.add_image(f"{name}/facet_{c:02d}", image, step),
                    STEP_S,
                )

    def picture(self, name: str, picture: np.ndarray, step: int) -> None:
        """One picture, uint8 [height, width, 3]."""
        if self.is_wandb:
            self._log_images(name, [Image.fromarray(picture)], step, LIMIT_S)
        elif self.is_tensorboard:
            self.attempt(lambda logger: logger.experiment.add_image(name, picture, step, dataformats="HWC"))

    def _log_images(
        self, name: str, pictures: Sequence[Image.Image], step: int, limit_s: float, caption: list[str] | None = None
    ) -> None:
        about = {"caption": caption} if caption else {}

        def log_files(logger: Any) -> None:
            with TemporaryDirectory() as folder:
                logger.log_image(name, as_files(pictures, folder), step=step, **about)

        self.attempt(log_files, limit_s)

    def save(self) -> None:
        """Write what waits."""
        self.attempt(lambda logger: logger.save())
        if self.is_tensorboard:
            self.attempt(lambda logger: logger.experiment.flush())

    def finalize(self, status: str) -> None:
        """The fit is over; more may be logged, so that nothing is closed yet.

        TensorBoard's writer names its file by the second: opened again at once, it would write over what there is.
        """
        self.save()

    def finish(self, failed: bool) -> None:
        """The run is over, so that the next one of this process gets its own."""
        self.attempt(lambda logger: logger.finalize("failed" if failed else "success"), ends=True)
        if self.is_wandb:
            experiment = getattr(self.logger, "_experiment", None)  # without making one now
            if experiment is not None:
                self.failed = False  # it must be ended, too, where it has failed
                self.attempt(lambda logger: experiment.finish(exit_code=int(failed)))

    @property
    def name(self) -> str | None:
        """The logger's."""
        return self.attempt(lambda logger: logger.name)

    @property
    def version(self) -> int | str | None:
        """The logger's."""
        return self.attempt(lambda logger: logger.version)

    @property
    def save_dir(self) -> str | None:
        """The logger's."""
        return self.attempt(lambda logger: logger.save_dir)


def _event_writer(logger: Logger) -> Any:
    """tensorboardX's, where the logger has one. Nothing is made by asking."""
    return getattr(getattr(getattr(logger, "_experiment", None), "file_writer", None), "event_writer", None)


def _check_alive(logger: Logger) -> None:
    """Raise where the thread has died by which tensorboardX writes: nobody empties its queue, and it would wait."""
    worker = getattr(_event_writer(logger), "_worker", None)
    if isinstance(worker, threading.Thread) and not worker.is_alive():
        raise OSError("the thread that writes its file has died, of a full disk say")


def _let_go(logger: Logger) -> None:
    """The end of the process does not wait for what tensorboardX's dead thread would have to write."""
    writer = _event_writer(logger)
    if hasattr(writer, "_closed"):
        writer._closed = True
    cancel = getattr(getattr(writer, "_event_queue", None), "cancel_join_thread", None)
    if cancel is not None:
        cancel()


def as_trackers(loggers: Logger | Sequence[Logger] | None) -> list[Tracker]:
    """One logger, several or none, as trackers."""
    if loggers is None:
        return []
    several = [loggers] if isinstance(loggers, Logger) else loggers
    return [logger if isinstance(logger, Tracker) else Tracker(logger) for logger in several]


def track_steps(
    trackers: Iterable[Logger],
    rows: Tensor,
    scheduled: Sequence[Mapping[str, float]],
    first: int,
    *,
    every: int,
    last: int,
    extra: Sequence[str] = (),
) -> None:
    """Tell of the steps from `first` on: rows [steps, columns, C] on the host and their scheduled values.

    extra: the objective's own terms, see `columns_of`.

    Means over the facets that were not stopped, of each `every`-th step and of step `last`, in panels loss, distance,
    schedule; gradient norms in gradient, wherever they were taken.
    """
    trackers = list(trackers)
    if not trackers:
        return
    for step, row, now in zip(range(first, first + len(rows)), rows.nanmean(dim=2).tolist(), scheduled, strict=True):
        means = dict(zip(columns_of(extra), row, strict=True))
        gradients = {f"gradient/{name}": means[f"gradient_{name}"] for name in gradient_names(extra)}
        told = {name: value for name, value in gradients.items() if math.isfinite(value)}
        if step % every == 0 or step == last:
            told |= {
                f"{'distance' if name in DISTANCE else 'loss'}/{name}": means[name]
                for name in (*LossTerms.names(), *extra, "r", "b")
            }
            told |= {f"schedule/{name}": value for name, value in now.items()}
        if told:
            for tracker in trackers:
                tracker.log_metrics(told, step)


def track_pictures(trackers: Iterable[Logger], images: Tensor, step: int) -> None:
    """Tell of the pictures after a step, uint8 [C, ch, S, S] on the host."""
    for tracker in trackers:
        if isinstance(tracker, Tracker):
            tracker.pictures("visualization", images, step)

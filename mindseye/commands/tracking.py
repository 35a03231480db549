"""The trackers of the group `logger`, told what a run is and of which sweep."""

import hashlib
import importlib.util
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from mindseye.commands.composing import ConfigurationError, make
from mindseye.files import read_plain, write_atomically

if TYPE_CHECKING:
    from mindseye.visualizer.tracking import Tracker

LONGEST_TAG, LONGEST_GROUP = 64, 128  # what wandb takes
log = logging.getLogger(__name__)


def check_trackers(words: Sequence[str]) -> None:
    """Refuse wandb where it is asked for and not installed: it is an extra."""
    asked = any(re.match(r"\+?logger=.*\bwandb\b", word) for word in words)
    if asked and importlib.util.find_spec("wandb") is None:
        raise ConfigurationError("logger=wandb needs wandb: pip install 'mindseye[wandb]'; logger=csv does without")


def make_trackers(
    loggers: Mapping[str, Any], folder: Path, overrides: Sequence[str], *, sweep: Path | None, experiment: str | None
) -> list["Tracker"]:
    """Every tracker of the group `logger`. Nothing is written yet and nobody told: it costs nothing to ask early.

    Raises ValueError for one that cannot be made because a package is missing, or a setting is wrong.
    """
    nodes = {name: node for name, node in loggers.items() if node is not None}
    if not nodes:
        return []
    from mindseye.visualizer.tracking import Tracker

    trackers = []
    for name, node in nodes.items():
        if node["_target_"].endswith(".WandbLogger"):
            node = described(node, folder, overrides, sweep, experiment)
        try:
            logger = make(node, f"logger.{name}")
        except ModuleNotFoundError as error:
            raise ValueError(f"logger: {' '.join(str(error).split())}") from error
        # Lightning names it even where nobody has; wandb warns of that.
        getattr(logger, "_wandb_init", {}).pop("anonymous", None)
        trackers.append(Tracker(logger))
    return trackers


@contextmanager
def tracked(trackers: Sequence["Tracker"], config: DictConfig, folder: Path) -> Iterator[None]:
    """The trackers are told of the run, and ended with it, so that the next cell of this process gets its own.

    One that fails is left alone. A run that goes on after an interruption goes on in wandb as well. The environment is
    afterwards as it was, but for WANDB_SILENT, since wandb has a last word when the process ends.
    """
    if not trackers:
        yield
        return
    from mindseye.visualizer.tracking import as_rank_zero

    before = {name: os.environ.get(name) for name in ("WANDB_DATA_DIR", "WANDB_MODE")}
    failed = True
    with as_rank_zero():
        try:
            if any(tracker.is_wandb for tracker in trackers):
                os.environ.setdefault("WANDB_SILENT", "true")  # it talks into progress bars; we say where it writes
                # Else pictures of tables would be kept in the user's own folders.
                os.environ.setdefault("WANDB_DATA_DIR", str(folder / "wandb"))
            for tracker in trackers:
                tracker.log_hyperparams(OmegaConf.to_container(config, resolve=True))
                if tracker.is_wandb and not tracker.failed:
                    place, asked = tracker.attempt(lambda logger: logger.experiment.dir), tracker.save_dir
                    log.info("wandb writes to %s", Path(place).parent if place else None)
                    if place and asked and Path(asked).absolute() not in Path(place).parents:
                        log.warning("wandb cannot write to %s; it writes to %s", asked, Path(place).parent)
            yield
            failed = False
            with suppress(OSError):
                _kept_id(folder).unlink(missing_ok=True)
        finally:
            for tracker in trackers:
                tracker.finish(failed)
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


def described(
    node: Mapping[str, Any], folder: Path, overrides: Sequence[str], sweep: Path | None, experiment: str | None
) -> dict[str, Any]:
    """wandb's settings with what the user left open: name, group, job_type, tags, and the id of a run that goes on."""
    open_ones = {
        "name": folder.name,
        "group": None if sweep is None else f"{sweep.parent.name}/{sweep.name}"[-LONGEST_GROUP:],
        "job_type": experiment or "visualize",
        "tags": [tag if len(tag) <= LONGEST_TAG else f"{tag[: LONGEST_TAG - 1]}…" for tag in overrides],
        "id": _id(folder),
    }
    return {**open_ones, **{name: value for name, value in node.items() if value is not None}}


def _id(folder: Path) -> str:
    """Of this run; the same again where it was not completed and goes on."""
    kept, fresh = _kept_id(folder), hashlib.sha256(os.urandom(16)).hexdigest()[:12]
    with suppress(OSError, ValueError):  # then wandb cannot write there either, and says so
        if kept.is_file():
            return read_plain(kept, folder).decode()
        write_atomically(kept, fresh.encode())
    return fresh


def _kept_id(folder: Path) -> Path:
    return folder / "wandb" / "unfinished_id"

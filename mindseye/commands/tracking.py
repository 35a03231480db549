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
from mindseye.commands.grammar import PATHS
from mindseye.fields import fits
from mindseye.files import read_plain, write_atomically
from mindseye.sweeps.manifest import Manifest

if TYPE_CHECKING:
    from mindseye.visualizer.tracking import Tracker

LONGEST_TAG, LONGEST_GROUP = 64, 128  # what wandb takes
# What Lightning's loggers import, one of several, and the extra that brings it.
NEEDED = {
    "WandbLogger": (("wandb",), "wandb"),
    "TensorBoardLogger": (("tensorboard", "tensorboardX"), "tensorboard"),
    "MLFlowLogger": (("mlflow",), ""),
    "CometLogger": (("comet_ml",), ""),
    "NeptuneLogger": (("neptune",), ""),
}
# What wandb takes from the environment where nobody says it, and what stands there else.
FROM_ENVIRONMENT = {
    "name": "WANDB_NAME", "group": "WANDB_RUN_GROUP", "job_type": "WANDB_JOB_TYPE", "tags": "WANDB_TAGS",
}  # fmt: skip
log = logging.getLogger(__name__)


def check_trackers(nodes: Mapping[str, Any]) -> None:
    """Refuse a tracker whose package is not installed, and waits of no time. Nothing of it is imported.

    nodes: those of the group `logger`.
    """
    for name, node in nodes.items():
        if node is None:
            continue
        packages, extra = NEEDED.get(node["_target_"].rpartition(".")[2], ((), ""))
        if packages and all(importlib.util.find_spec(package) is None for package in packages):
            mend = f"'mindseye[{extra}]'" if extra else packages[0]
            raise ConfigurationError(f"logger={name} needs {packages[0]}: pip install {mend}; logger=csv does without")
        settings = node.get("settings") or {}
        if not isinstance(settings, Mapping):
            raise ConfigurationError(f"logger.{name}.settings must be settings by their names, not {settings}")
        for key, seconds in settings.items():
            if key.endswith("_timeout") and fits(seconds, float) and seconds <= 0:
                raise ConfigurationError(f"logger.{name}.settings.{key} must be above 0, in seconds, not {seconds}")


def make_trackers(
    loggers: Mapping[str, Any],
    folder: Path,
    overrides: Sequence[str],
    *,
    sweep: Path | None,
    experiment: str | None,
    choices: Mapping[str, Any] | None = None,
) -> list["Tracker"]:
    """Every tracker of the group `logger`. Nothing is written yet and nobody told: it costs nothing to ask early.

    choices: which file each group of the configuration is from, which wandb gets beside the configuration: its runs can
    then be grouped by `objective`, too, whose own settings are many.

    Raises ValueError for one that cannot be made because a package is missing, or a setting is wrong.
    """
    nodes = {name: node for name, node in loggers.items() if node is not None}
    if not nodes:
        return []
    from mindseye.visualizer.tracking import Tracker

    trackers = []
    for name, node in nodes.items():
        if node["_target_"].endswith(".WandbLogger"):
            chosen = {name: str(option) for name, option in (choices or {}).items() if option}
            named = {name: option for name, option in chosen.items() if not name.startswith("hydra/")}
            node = {"config": {"choices": named}, **described(node, folder, overrides, sweep, experiment)}
        try:
            logger = make(node, f"logger.{name}")
        except ModuleNotFoundError as error:
            raise ValueError(f"logger: {' '.join(str(error).split())}") from error
        # Lightning names it even where nobody has; wandb warns of that.
        getattr(logger, "_wandb_init", {}).pop("anonymous", None)
        trackers.append(Tracker(logger))
    return trackers


@contextmanager
def tracked(
    trackers: Sequence["Tracker"], config: DictConfig, folder: Path, about: Mapping[str, object]
) -> Iterator[None]:
    """The trackers are told of the run and ended with it, so that the next cell of this process gets its own.

    They get its configuration and, as `looking`, what it is `about`. One that fails is left alone. A run that goes on
    after an interruption goes on in wandb as well. The environment is afterwards as it was, but for WANDB_SILENT, since
    wandb has a last word when the process ends.
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
                settings: Any = OmegaConf.to_container(config, resolve=True)
                tracker.log_hyperparams({**settings, "looking": dict(about)})
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
    """wandb's settings with what the user left open: name, group, job_type, tags, and the id of a run that goes on.

    What wandb's own variables of the environment say is left to it.
    """
    open_ones = {
        "name": folder.name,
        "group": None if sweep is None else group_of(sweep),
        "job_type": experiment or "visualize",
        "tags": [_short(tag) for tag in telling(overrides, sweep)],
        "id": _id(folder),
    }
    open_ones = {name: value for name, value in open_ones.items() if not os.environ.get(FROM_ENVIRONMENT.get(name, ""))}
    return {**open_ones, **{name: value for name, value in node.items() if value is not None}}


def telling(overrides: Sequence[str], sweep: Path | None) -> list[str]:
    """The overrides that tell a run from others: in a sweep what varies, else all but places and trackers."""
    cells = []
    if sweep is not None:
        with suppress(ValueError):  # damaged: then as of a run by itself
            cells = [cell.overrides for cell in Manifest.read(sweep).cells.values()]
    if len(cells) > 1:
        common = set.intersection(*map(set, cells))
        return [word for word in overrides if word not in common]
    keys = [word.partition("=")[0] for word in overrides]
    silent = [bool(re.match(r"\+?logger\b", key) or PATHS.fullmatch(key)) for key in keys]
    return [word for word, left_out in zip(overrides, silent, strict=True) if not left_out]


def _short(tag: str) -> str:
    return tag if len(tag) <= LONGEST_TAG else f"{tag[: LONGEST_TAG - 1]}…"


def group_of(sweep: Path) -> str:
    """The group of a sweep's runs, by the sweep's folder."""
    return f"{sweep.parent.name}/{sweep.name}"[-LONGEST_GROUP:]


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

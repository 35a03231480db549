"""What is wrong in a configuration, said in one line before any work starts."""

import os
import re
import typing
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationToMissingValueError, OmegaConfBaseException

from mindseye.commands.composing import ConfigurationError, config_folder, groups, options, plain
from mindseye.commands.constructors import (
    check_arguments,
    check_constructors,
    check_onlookers,
    check_replaced,
    compose_known,
    networks,
    with_dots,
)
from mindseye.commands.grammar import MOST_CELLS, choices, escaped, parsed
from mindseye.commands.meant import no_such_setting
from mindseye.commands.tracking import check_trackers
from mindseye.fields import Start, annotation_of
from mindseye.fields import check as check_value
from mindseye.files import file_of_function, photograph_folder
from mindseye.results.measures import MEASURES, RANKED
from mindseye.settings import GROUPS, MADE, NAMED, Run, UnknownSetting, plain_settings
from mindseye.words import called, did_you_mean

HYDRAS_FOLDERS = ("hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir")
# Where sweepers that search say whether they look for the smallest or the largest: their words for it.
SEARCHES = {
    "hydra.sweeper.direction": ("minimize", "maximize"),  # optuna
    "hydra.sweeper.optim.maximize": (False, True),  # nevergrad
    "hydra.sweeper.ax_config.experiment.minimize": (True, False),
}
STARTS = typing.get_args(Start)  # the words of canvas.init; any other is a path


def check(config: DictConfig) -> Run:
    """The values of a configuration. Refuses missing, unknown or out-of-range plain settings; imports no torch.

    What only Hydra can answer, in a job, is left at its default here.
    """
    settings = with_dots(plain(config))
    for group in (*MADE, *NAMED):
        _check_nodes(group, settings.get(group))
    try:
        run = Run.of(_without_hydras_own(settings))
    except UnknownSetting as error:
        raise ConfigurationError(no_such_setting(error.key, error.known)) from error
    except ValueError as error:
        raise ConfigurationError(str(error)) from error
    known = (*RANKED, *(settings["metrics"] or {}))
    if run.measure is not None and run.measure not in known:
        raise ConfigurationError(
            f"measure must be {', '.join(known)} or null, not {run.measure}{did_you_mean(run.measure, known)}"
        )
    check_trackers(run.parts["logger"])
    if "lr" in run.parts["optimizer"]:
        raise ConfigurationError("optimizer.lr: the learning rate is schedule.lr, a list [start, end]")
    return run


def _without_hydras_own(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Without the plain settings that refer to what Hydra knows in a job alone, where they are looked at again."""
    left = {key: value for key, value in settings.items() if not (isinstance(value, str) and "${hydra:" in value)}
    for group in GROUPS:
        if isinstance(left.get(group), dict):
            left[group] = _without_hydras_own(left[group])
    return left


def _check_nodes(group: str, settings: Any) -> None:
    """A group with a constructor is a mapping with its _target_, one of several a mapping of such by their names."""
    if group in ("metrics", "callbacks") and settings is None:
        return
    if not isinstance(settings, dict):
        own = f"give +metrics.NAME._target_={settings if '.' in str(settings) else 'my.module.function'}"
        raise ConfigurationError(f"{group}={settings}: {own if group == 'metrics' else _options(group)}")
    for name, node in (settings if group in NAMED else {"": settings}).items():
        place = f"{group}.{name}" if name else group
        if node is None and name:
            continue
        if group in ("metrics", "callbacks") and not (isinstance(node, dict) and "_target_" in node):
            kind = "function" if group == "metrics" else "Class"
            raise ConfigurationError(f"{place}={node}: give {place}._target_=my.module.{kind}")
        if not isinstance(node, dict):
            raise ConfigurationError(f"{place}={node}: {place}.KEY=… sets one of its settings; null switches it off")
        if not isinstance(node.get("_target_"), str):
            raise ConfigurationError(f"{place}._target_ must be the path of a class, not {node.get('_target_')}")


def _options(group: str) -> str:
    if group not in groups():
        return f"{group}.NAME=… sets one of them"
    return f"{group}=NAME takes one of {', '.join(options(group))}"


def searched(folder: str | None) -> list[str]:
    """The override by which Hydra looks into a folder of one's own too (--config-dir); none for None.

    Raises ConfigurationError for a folder that is not there or holds what is no settings.
    """
    if not folder:
        return []
    check_own_files(Path(folder))
    return [f"hydra.searchpath=[{escaped(f'file://{Path(folder).absolute()}')}]"]


def check_own_files(folder: Path) -> None:
    """Refuse files of one's own (--config-dir) that are no settings, which Hydra would pass over in silence."""
    if not folder.is_dir():
        raise ConfigurationError(f"--config-dir={folder}: there is no such folder")
    for file in sorted(path for group in groups() for path in (folder / group).glob("*.yaml")):
        try:
            settings = yaml.safe_load(file.read_bytes())
        except Exception as error:  # what damaged YAML makes its parser raise
            raise ConfigurationError(f"{file}: no readable YAML ({error})") from error
        if not isinstance(settings, dict | None):
            raise ConfigurationError(f"{file}: must hold settings, key: value, not {called(settings)}")


def check_one_run(arguments: Sequence[str], instead: str = "mindseye -m … sweeps over them") -> None:
    """Refuse several values of a setting where one run is asked for; `instead` would be right."""
    for override in parsed([word for word in arguments if not word.startswith("-")]):
        if override.is_sweep_override():
            key, values = override.key_or_group, override.get_value_string()
            both = f", {key}=[{values}] has all at once" if _takes_several(override) else ""
            line = f"{override.input_line}: these are several values, and a run takes one: {instead}{both}"
            raise ConfigurationError(line)


def _takes_several(override: Override) -> bool:
    return override.key_or_group in NAMED and not isinstance(override.value(), IntervalSweep | RangeSweep)


def check_overrides(arguments: Sequence[str]) -> None:
    """Refuse wrong command-line overrides, every swept value among them, before Hydra starts any job.

    What an experiment sweeps over (`hydra.sweeper.params`) is looked at too.
    """
    given = parsed([word for word in arguments if not word.startswith("-")])
    hydras = [override for override in given if override.key_or_group.startswith("hydra")]
    overrides = [override for override in given if override not in hydras]
    for override in overrides:
        if override.is_delete():
            raise ConfigurationError(
                f"{override.input_line}: settings stay in the configuration; give {override.key_or_group} another "
                "value (0 or null switches most things off)"
            )
        value = override.value()
        if override.key_or_group in groups() and (isinstance(value, int | float | dict) or value == ""):
            raise ConfigurationError(f"{override.input_line}: {_options(override.key_or_group)}")
    first = {override.key_or_group: choices(override)[0] for override in overrides}
    composed = compose_known([*(override.input_line for override in hydras), *first.values()], with_hydra=True)
    params = _sweeper_params(composed)
    swept = parsed([f"{key}={values}" for key, values in params.items()])
    own_sweeper = str(composed.hydra.sweeper.get("_target_")).endswith(".ResumingSweeper")
    if not own_sweeper:
        swept = [override for override in swept if not override.is_sweep_override() or override.is_discrete_sweep()]
    added = [override for override in swept if override.key_or_group not in first]
    overrides = [*added, *overrides]
    if own_sweeper:
        _check_grid(overrides)
    first = {override.key_or_group: choices(override)[0] for override in overrides}
    where = [override.input_line for override in hydras if override.key_or_group == "hydra.searchpath"]
    without_hydra = OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"])
    runs = [check(compose_known([*where, *first.values()]) if added else without_hydra)]
    _check_direction(composed, runs[0].measure)
    _check_hydras_folders(composed)
    here = _runs_here(composed)
    for override in overrides:
        alone = override.key_or_group in plain_settings() and override.key_or_group != "measure"
        if override.is_discrete_sweep() and alone:  # nothing else depends on their values
            for value in islice(override.sweep_iterator(), MOST_CELLS):
                _check_alone(override.key_or_group, getattr(value, "text", value), here)
            continue
        for other in choices(override)[1:]:
            task = compose_known([*where, *(first | {override.key_or_group: other}).values()])
            runs.append(check(task))
    for run in runs if here else ():
        check_photographs(run.images.root)
        check_start(run.parts)
        check_targets(run.parts)
    for run in runs:
        check_layers(run)
    # The rest needs the constructors themselves, and they torch.
    for run in runs:
        check_onlookers(run.parts)
    check_replaced(runs[0].parts, {override.key_or_group for override in overrides}, composed.hydra.runtime.choices)
    for run in runs:
        check_constructors(run.parts)


def _check_alone(key: str, value: Any, here: bool) -> None:
    """One of many values of a plain setting, on which nothing else depends."""
    if isinstance(value, str) and "${hydra:" in value:  # looked at again in the job
        return
    try:
        check_value(key, value, annotation_of(plain_settings()[key]))
    except ValueError as error:
        raise ConfigurationError(str(error)) from error
    if here and key == "images.root":
        check_photographs(None if value is None else str(value))


def _runs_here(composed: DictConfig) -> bool:
    """Whether jobs find files where this process does: on this machine, in this directory."""
    launcher = str(composed.hydra.launcher.get("_target_"))
    return launcher.endswith((".BasicLauncher", ".JoblibLauncher")) and composed.hydra.job.get("chdir") is not True


def check_targets(parts: Mapping[str, Any]) -> None:
    """Refuse a file of a network's function that is not there. Imports nothing of it."""
    for place, node in networks(parts):
        target = node.get("target")
        if isinstance(target, str) and "${" not in target and _is_ours(node):
            try:
                file_of_function(target)
            except (ValueError, OSError) as error:
                reason = f": {error}".replace(f": {target!r} is", " is")
                raise ConfigurationError(f"{place}.target={target}{reason}") from error


def check_photographs(root: str | None) -> None:
    """Refuse a folder that is none."""
    if root is None or "${" in root:
        return
    try:
        photograph_folder(root)
    except FileNotFoundError as error:
        raise ConfigurationError(f"images.root={error}") from error


def start_file(parts: Mapping[str, Any]) -> str | None:
    """The path of the image that the pictures start from, where `canvas.init` is one; `~` expanded."""
    canvas = parts["canvas"]
    init = canvas.get("init")
    # A canvas of one's own may mean anything by it.
    ours = str(canvas["_target_"]).startswith("mindseye.visualizer.canvas.")
    if not ours or init is None or init in STARTS or "${" in str(init):
        return None
    return os.path.expanduser(str(init))


def check_start(parts: Mapping[str, Any]) -> None:
    """Refuse a start that is neither one of the words nor a file."""
    path = start_file(parts)
    if path is not None and not os.path.isfile(path):
        init = parts["canvas"]["init"]
        kind = "a folder" if os.path.isdir(path) else "no file"
        raise ConfigurationError(
            f"canvas.init must be {', '.join(STARTS)} or the path of an image, not {init}, which is {kind}"
            f"{did_you_mean(str(init), STARTS)}"
        )


def check_layers(run: Run) -> None:
    """Refuse networks none of whose layers is chosen: neither by its name nor by a depth that the network names."""
    for place, node in networks(run.parts):
        layer, depth = (run.layer, run.depth) if place == "network" else (node.get("layer"), "late")
        if layer is not None or not isinstance(depth, str) or "${" in depth or not _is_ours(node):
            continue
        named = node.get("layers")
        if named is None:
            target = str(node.get("target", ""))
            # A checkpoint of an architecture by its name has the layers of that, whatever it is called.
            name = target if re.fullmatch(r"\w+", target) else str(node.get("name") or re.split(r"[.:]", target)[-1])
            # The networks that have files in conf/ name their layers themselves, see KNOWN_LAYERS.
            known = (config_folder() / "network" / f"{name}.yaml").is_file()
        else:
            known = not isinstance(named, dict) or named.get(depth) is not None
        if not known:
            key = "layer" if place == "network" else f"{place}.layer"
            raise ConfigurationError(
                f"{key} must be given: {place} names none for depth={depth}; give {key}=NAME (`mindseye layers` lists "
                f"them) or {place}.layers={{early: …, middle: …, late: …}}"
            )


def _is_ours(node: Mapping[str, Any]) -> bool:
    """Whether its settings mean what those in conf/network mean."""
    return str(node["_target_"]).startswith("mindseye.networks.")


def _check_hydras_folders(composed: DictConfig) -> None:
    for key in HYDRAS_FOLDERS:
        try:
            folder = OmegaConf.select(composed, key, throw_on_missing=True)
        except InterpolationToMissingValueError:  # the number of a job, say
            continue
        except OmegaConfBaseException as error:
            raise ConfigurationError(f"{key}: {str(error).splitlines()[0]}") from error
        if not isinstance(folder, str) or not folder.strip():
            raise ConfigurationError(f"{key} must be the path of a folder, not {'null' if folder is None else folder}")


def _sweeper_params(composed: DictConfig) -> Mapping[str, Any]:
    """What Hydra's own part says to sweep over; refuses a sweeper or launcher that is none."""
    sweeper, launcher = composed.hydra.get("sweeper"), composed.hydra.get("launcher")
    for name, node in (("sweeper", sweeper), ("launcher", launcher)):
        if not isinstance(node, DictConfig) or not isinstance(node.get("_target_"), str):
            options = "mindseye, basic" if name == "sweeper" else "basic, joblib, slurm, ray"
            raise ConfigurationError(f"hydra.{name}={node}: hydra/{name}=NAME takes one; there are {options}")
    check_arguments(plain(sweeper), "hydra.sweeper")
    params = sweeper.get("params")
    if params is not None and not isinstance(params, DictConfig):
        raise ConfigurationError(f"hydra.sweeper.params must be a mapping {{override: values}}, not {params}")
    return params or {}


def _check_direction(composed: DictConfig, measure: str | None) -> None:
    """Refuse a search for the worst: other people's sweepers minimise where nobody says otherwise."""
    larger = measure is None or (measure in MEASURES and MEASURES[measure].better == "larger")
    smaller = measure in MEASURES and MEASURES[measure].better == "smaller"
    for key, (down, up) in SEARCHES.items():
        direction = OmegaConf.select(composed, key)
        direction = getattr(direction, "name", direction)
        if (larger and direction == down) or (smaller and direction == up):
            best = f"{'largest' if larger else 'smallest'} {measure or 'transfer.gain or path.target'}"
            right = str(up if larger else down).lower()
            raise ConfigurationError(
                f"{key}={str(direction).lower()} looks for the worst, since the {best} is the best: {key}={right}"
            )


def _check_grid(overrides: Sequence[Override]) -> None:
    cells = 1
    for override in overrides:
        value = override.value()
        if isinstance(value, IntervalSweep):
            raise ConfigurationError(
                f"{override.input_line}: a grid needs single values, as in {override.key_or_group}=1,2 or range(1,5)"
            )
        if override.is_sweep_override():
            cells *= sum(1 for _ in override.sweep_iterator())
        if cells > MOST_CELLS:
            raise ConfigurationError(f"{override.input_line}: makes a sweep of {cells:,} cells; at most {MOST_CELLS:,}")

"""Composing the configuration by Hydra, and its errors in our words."""

import contextlib
import inspect
import os
import pkgutil
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from mindseye.commands.meant import no_such_option, no_such_setting
from mindseye.fields import WrongField
from mindseye.settings import MADE, defaults
from mindseye.sweeps.manifest import cell_folder
from mindseye.words import with_class

CONFIG_NAME = "visualize"
SPECIAL_KEYS = {"_target_", "_partial_", "_convert_", "_recursive_", "_args_"}

# conf/hydra/launcher/ has files of the names that the launchers' packages give to their own: those are replaced, and
# stay what ours are validated against, which Hydra warns of.
warnings.filterwarnings("ignore", message=r"\s*'hydra/launcher/(ray|joblib)' is validated against ConfigStore")
# Where each cell of a sweep goes. Hydra's workers import this file with the task, before they need it.
OmegaConf.register_new_resolver("cell_folder", lambda overrides: cell_folder(list(overrides)), replace=True)
# Where a run goes: tasks of several nodes do not begin within the same second, and their job is one.
OmegaConf.register_new_resolver("run_name", lambda nodes, now: run_name(nodes, now), replace=True)
# What a job of a launcher asks for: a GPU for every device.
OmegaConf.register_new_resolver("gpus_of", lambda accelerator, devices: gpus_of(accelerator, devices), replace=True)


def run_name(nodes: object, now: str) -> str:
    """The name of a run's folder: the moment, or what every node's task of one job knows."""
    job, step = os.environ.get("SLURM_JOB_ID"), os.environ.get("SLURM_STEP_ID", "0")
    return now if nodes == 1 or job is None else f"slurm-{job}.{step}"


def gpus_of(accelerator: object, devices: object) -> object:
    """How many GPUs a run computes on, None for none."""
    return None if accelerator == "cpu" else devices


class ConfigurationError(ValueError):
    """What is wrong with the configuration and what would be right, in one line."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


class UnknownKey(ConfigurationError):
    """A key of an override that stands nowhere in the configuration."""

    def __init__(self, key: str) -> None:
        super().__init__(_unknown_key(key))
        self.key = key


def config_folder() -> Path:
    """conf/ as it travels: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "conf", package.parent / "conf"):
        if (folder / f"{CONFIG_NAME}.yaml").is_file():
            return folder
    raise ConfigurationError(f"{package} was installed without its configuration (conf/{CONFIG_NAME}.yaml)")


def compose(overrides: Sequence[str], *, with_hydra: bool = False) -> DictConfig:
    """The whole configuration for these overrides, Hydra's own part with it if asked. Raises ConfigurationError."""
    try:
        return _compose(overrides, with_hydra)
    except Exception as error:  # of files that are no mappings Hydra's and YAML's own readers raise anything at all
        if (key := _key_unknown(str(error))) is not None:
            raise UnknownKey(key) from error
        raise ConfigurationError(composition_error(error)) from error


def _compose(overrides: Sequence[str], with_hydra: bool = False) -> DictConfig:
    everyones = GlobalHydra.instance()
    before, everyones.hydra = everyones.hydra, None
    try:
        with initialize_config_dir(str(config_folder()), version_base="1.3"):
            return hydra_compose(CONFIG_NAME, list(overrides), return_hydra_config=with_hydra)
    finally:
        everyones.hydra = before  # of a program of the user's own that Hydra runs


def composition_error(error: Exception) -> str:
    """What Hydra or OmegaConf say of a configuration that cannot be composed, and what would be right."""
    if isinstance(error, InstantiationException) and error.__cause__ is not None:
        if isinstance(error.__cause__, ValueError | OSError):
            return str(error.__cause__)  # the constructor's own one-line complaint in place of Hydra's wrapping of it
        target = re.search(r"'([^']+)'", str(error))
        return f"{target[1] if target else 'it'} failed: {with_class(error.__cause__, place=True)}"
    if isinstance(error, RecursionError):
        return "the configuration refers to itself without end"
    text = str(error)
    if (key := _key_unknown(text)) is not None:
        return _unknown_key(key)
    if "Config group override must be a string or a list. Got NoneType" in text:
        return "a group of the configuration is none of its files by GROUP=none, not by GROUP=null"
    if "Could not load 'hydra/launcher/submitit_slurm'" in text:
        return "hydra/launcher=slurm needs a package that is not installed: pip install 'mindseye[slurm]'"
    if missing := re.search(r"Could not (?:find|load) '((?:hydra/)?\w+)/([^']+)'", text):
        group, name = missing.groups()
        listed = re.search(r"Available options in '[^']+':\n(.*?)\nConfig", text, re.S)
        if listed:
            return no_such_option(group, name, listed[1].split())
        # One of several, logger=[csv,foo], of which Hydra lists no others.
        folders = re.findall(r"path=file://([^\n]+)", text)
        own = {file.stem for folder in folders for file in Path(folder, group).glob("*.yaml")}
        return no_such_option(group, name, sorted({*options(group), *own}), several=True)
    if isinstance(error, TypeError) and "'NoneType'" in text:  # logger=[csv,null], in which Hydra looks for a comma
        return "null is none of a group's files: leave it out of the list; GROUP=none is none of them at all"
    if within := re.search(r"invalid literal for int\(\) with base 10: '([^']*)'", text):
        return f"a list has no setting {within[1]}: give the whole list, schedule.lr=[0.06,0.005] say"
    if there := re.search(r"An item is already at '([^']+)'", text):
        return f"{there[1]} is there already: give {there[1]}=…, without a +"
    if twice := re.match(r"Multiple values for ([^ ]+)\. To", text):
        return f"{twice[1]} is given twice, by {twice[1]}=… or +{twice[1]}=…: give {twice[1]}=… once"
    if isinstance(error.__cause__, OmegaConfBaseException):  # "Error merging override k=x", and why
        text = f"{text}: {str(error.__cause__).split(chr(10))[0]}"
    return text.split("\nSee https")[0] or type(error).__name__


def _key_unknown(text: str) -> str | None:
    """The key that Hydra or OmegaConf say is none."""
    match = re.search(r"Could not override '([^']+)'", text) or re.search(r"Key '([^']+)' is not in struct", text)
    return match and match[1]


def _unknown_key(key: str) -> str:
    return no_such_setting(key, _settings_by_default(), "; mindseye --cfg job shows all", options_with(key))


def options_with(key: str) -> list[str]:
    """Of a group that takes one file those whose own settings have a key: `checkpoint` has network.path."""
    group, _, inner = key.partition(".")
    if group not in MADE or not inner:
        return []
    held = {name: OmegaConf.load(config_folder() / group / f"{name}.yaml") for name in options(group)}
    return [name for name, settings in held.items() if inner in _keys(OmegaConf.to_container(settings, resolve=False))]


@lru_cache
def _settings_by_default() -> Sequence[str]:
    composed: Any = OmegaConf.to_container(_compose([]), resolve=False)
    return (*_keys(composed), *groups())


def make(node: Mapping[str, Any], place: str = "", *, partial: bool = False) -> Any:
    """What a constructor of the configuration gives, by Hydra; `place` is where it stands. Raises ConfigurationError.

    A source within it (`network: ${network}`) is given as the network that it loads. partial: the function itself, with
    the node's keys as its first arguments, and not what it gives.
    """
    try:
        inside = {key: _loading(value) for key, value in node.items()}
        if partial:
            return instantiate(inside, _partial_=True, _convert_="all")
        return instantiate(inside, _convert_="all")
    except InstantiationException as error:
        within = re.search(r"full_key: (\S+)", str(error))
        where = ".".join(filter(None, (place, within and within[1])))
        message = composition_error(error)
        if where and isinstance(error.__cause__, WrongField) and error.__cause__.name:
            message = f"{where}.{message}"  # which begins with the field's name
        elif where and not message.startswith(where):
            message = f"{where}: {message}"
        raise ConfigurationError(message) from error


def _loading(value: Any) -> Any:
    """Plain settings in which what makes a source is told to load it."""
    if isinstance(value, list):
        return [_loading(inner) for inner in value]
    if not isinstance(value, Mapping):
        return value
    inside = {key: _loading(inner) for key, inner in value.items()}
    if "_target_" not in inside:
        return inside
    from mindseye.networks import Source

    with contextlib.suppress(Exception):  # what cannot be imported is said where it is made
        target = pkgutil.resolve_name(str(inside["_target_"]))
        if inspect.isclass(target) and issubclass(target, Source):
            return {"_target_": f"{Source.__module__}.loaded", "source": inside}
    return inside


def make_metric(node: Mapping[str, Any], place: str) -> Any:
    """A metric of the user's own: an object of a class, or a function as it is, with further keys as arguments."""
    return make(node, place, partial=not inspect.isclass(pkgutil.resolve_name(node["_target_"])))


def _keys(settings: Any, prefix: str = "") -> Iterator[str]:
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from _keys(value, f"{prefix}{key}.")
        elif key not in SPECIAL_KEYS:
            yield f"{prefix}{key}"


def _store() -> None:
    """What is not written in conf/, since something else says it.

    `settings`, with which conf/visualize.yaml begins: every plain setting as its field has it. And transfer=NAME:
    another network that judges the pictures, what network=NAME is, at a layer of its own.
    """
    store = ConfigStore.instance()
    plain = defaults()
    del plain["images"]["root"]  # conf/images/ has it: what must be given is not laid over what is there
    store.store(name="settings", node=plain)
    for name in options("network"):
        store.store(group="transfer", name=name, node={"defaults": [{f"/network@{name}": name}], name: {"layer": None}})


@lru_cache
def groups() -> Sequence[str]:
    """The folders of conf/ but Hydra's own."""
    return tuple(sorted(path.name for path in config_folder().iterdir() if path.is_dir() and path.name != "hydra"))


def options(group: str) -> list[str]:
    """The names that a group can be given."""
    names = {file.stem for file in (config_folder() / group).glob("*.yaml")}
    return sorted(names | set(options("network")) if group == "transfer" else names)


def plain(config: DictConfig | ListConfig, place: str = "") -> Any:
    """The configuration as plain values, interpolations resolved; what only Hydra can answer, in a job, stays text.

    Raises ConfigurationError for what must be given and is not.
    """
    try:
        raw: Any = OmegaConf.to_container(config, resolve=False, throw_on_missing=True)
    except MissingMandatoryValue as error:
        raise ConfigurationError(f"{error.full_key} must be given: {error.full_key}=…") from error
    within: Any = config
    if isinstance(raw, str) or raw is None:  # an interpolation to nothing
        return raw
    listed = isinstance(raw, list)
    values: dict[Any, Any] = {}
    for key, value in enumerate(raw) if listed else raw.items():
        where = f"{place}.{key}" if place else str(key)
        if isinstance(value, str) and "${" in value:
            try:
                answer = within[key]
                values[key] = plain(answer, where) if isinstance(answer, DictConfig | ListConfig) else answer
            except Exception as error:  # whatever a resolver raises
                if "${hydra:" not in value:
                    reason = "it refers to itself" if isinstance(error, RecursionError) else str(error).split("\n")[0]
                    raise ConfigurationError(f"{where}={value}: {reason}") from error
                values[key] = value
        else:
            values[key] = plain(within[key], where) if isinstance(value, dict | list) else value
    return list(values.values()) if listed else values


_store()

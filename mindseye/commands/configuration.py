"""Composing the configuration and refusing what is wrong in it before any work starts, in one line."""

import difflib
import importlib.util
import inspect
import math
import os
import pkgutil
import re
import sys
import traceback
import types
import typing
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict
from omegaconf.errors import InterpolationToMissingValueError, OmegaConfBaseException

from mindseye.commands.signatures import Signature, read_signature
from mindseye.results.measures import RANKED
from mindseye.sweeps.manifest import cell_folder

CONFIG_NAME = "visualize"
METRICS = "metrics"  # the key of the user's own measures
MISSING = "???"
# conf/hydra/launcher/ has files of the names that the launchers' packages give to their own: those are replaced, and
# stay what ours are validated against, which Hydra warns of.
warnings.filterwarnings("ignore", message=r"\s*'hydra/launcher/(ray|joblib)' is validated against ConfigStore")
SPECIAL_KEYS = {"_target_", "_partial_", "_convert_", "_recursive_", "_args_"}

# What the root's own keys may be: type, least value, whether null is allowed.
ROOT = {
    "layer": (str, None, True),
    "depth": (str, None, True),
    "previous": (str, None, True),
    "k": (int, 1, False),
    "C": (int, 1, False),
    "steps": (int, 1, False),
    "seed": (int, 0, False),
    "facets_per_batch": (int, 1, True),
    "snapshots": (int, 1, False),
    "gradients": (int, 1, True),
    "checkpoint": (float, 1, False),
    "precision": (str, None, False),
    "compile": (bool, None, False),
    "measure": (str, None, True),
}
# Groups without a constructor: their keys, in the same form.
PLAIN = {
    "images.root": (str, None, True),
    "images.size": (int, 1, True),
    "images.black": (float, None, True),
    "images.white": (float, None, True),
    "images.held_out": (float, 0, False),
    "images.kind": (str, None, False),
    "images.count": (int, 1, False),
    "facets.clusters": (str, None, False),
    "facets.weighting": (str, None, False),
    "facets.effective": (float, 1, True),
    "facets.selection": (str, None, False),
    "facets.N": (int, 1, False),
    "facets.gamma": (float, 1e-9, True),
    "facets.components": (int, 1, False),
    "facets.perplexity": (float, 1, False),
    "facets.tsne": (str, None, False),
    "facets.subsample": (int, 6, False),
    "facets.batch_size": (int, 1, False),
    "facets.workers": (int, 0, True),
    "cache.folder": (str, None, True),
    "cache.limit_gb": (float, 0, False),
    "trainer.accelerator": (str, None, False),
    "trainer.devices": (int, 1, False),
}
PLAIN_SETTINGS = {**ROOT, **PLAIN}
PLAIN_GROUPS = ("images", "facets", "cache", "trainer")
NAMED_GROUPS = ("filters", "logger", "transfer")  # each of their keys has a constructor, or is null
SETTING_GROUPS = ("experiment", "length", "ablation")  # set keys of others and have none of their own
# What is more is a slip, or more than what is underneath can take.
MOST = {
    "seed": 2**32 - 1,  # of numpy's and scikit-learn's generators
    "steps": 10_000_000,
    "images.size": 8192,
    "images.count": 1_000_000,
    "images.held_out": 0.5,
    "facets.workers": 256,
    "cache.limit_gb": 1_000_000_000,
}
MOST_OF_ANY = 1_000_000_000
WORDS = {"C": "auto"}  # what a number may be instead
CONSTRUCTORS_OF = ("mindseye", "torch", "pytorch_lightning", "wandb", "hydra_plugins")  # the packages that conf/ names
MOST_CELLS = 100_000  # of a sweep
# Keys whose values are files or folders, whatever group they stand in: images.root, transfer.demo.weights,
# logger.csv.save_dir, network.target (my/net.py:build), hydra.run.dir.
PATHS = re.compile(
    r"\+{0,2}(?:[\w/@-]+\.)*(?:path|weights|root|folder|file|target|(?:sub)?dir|\w+_(?:path|folder|file|root|(?:sub)?dir))"
)
# Of these no other value can be meant by a comma: they are not swept.
ONE_PATH = re.compile(r"\+{0,2}hydra\.(?:run|sweep)\.(?:sub)?dir")
HYDRAS_FOLDERS = ("hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir")
CHOICES = {
    "depth": ("early", "middle", "late"),
    "facets.clusters": ("components", "embedding", "consensus"),
    "facets.weighting": ("calibrated", "published"),
    "facets.selection": ("staying", "nearest", "nearest_members", "farthest"),
    "facets.tsne": ("auto", "barnes_hut", "fft", "subsample"),
    "trainer.accelerator": ("auto", "cpu", "gpu", "cuda", "mps"),
    "precision": ("float32", "tf32", "bfloat16", "float16"),
    "measure": RANKED,
}

# Where each cell of a sweep goes. Hydra's workers import this file with the task, before they need it.
OmegaConf.register_new_resolver("cell_folder", lambda overrides: cell_folder(list(overrides)), replace=True)


class ConfigurationError(ValueError):
    """What is wrong with the configuration and what would be right, in one line."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


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
        raise ConfigurationError(composition_error(error)) from error


def _compose(overrides: Sequence[str], with_hydra: bool = False) -> DictConfig:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        return hydra_compose(CONFIG_NAME, list(overrides), return_hydra_config=with_hydra)


def composition_error(error: Exception) -> str:
    """What Hydra or OmegaConf say of a configuration that cannot be composed, and what would be right."""
    if isinstance(error, InstantiationException) and error.__cause__ is not None:
        if isinstance(error.__cause__, ValueError | OSError):
            return str(error.__cause__)  # the constructor's own one-line complaint in place of Hydra's wrapping of it
        return _failure(error)
    if isinstance(error, RecursionError):
        return "the configuration refers to itself without end"
    text = str(error)
    unknown = re.search(r"Could not override '([^']+)'", text) or re.search(r"Key '([^']+)' is not in struct", text)
    if unknown:
        return _unknown_key(unknown.group(1))
    missing = re.search(r"Could not find '([^']+)/([^'/]+)'.*?Available options in '[^']+':\n(.*?)\nConfig", text, re.S)
    if missing:
        group, name, options = missing.groups()
        names = [option.strip() for option in options.split("\n") if option.strip()]
        if group == "network" and (":" in name or name.endswith(".py")):
            function = name if ":" in name else f"{name}:FUNCTION"
            return f"network={name}: for a network of your own network=callable network.target={function} is right"
        return f"{group}={name}: there is no such {group}{_nearest(name, names)}; there are {', '.join(names)}"
    # One of several, logger=[csv,foo], which Hydra says in other words.
    among = re.search(r"Could not load '([^'/]+)/([^'/]+)'", text)
    if among and among[1] in _groups():
        group, name = among.groups()
        files = (file for folder in re.findall(r"path=file://([^\n]+)", text) for file in Path(folder, group).glob("*"))
        names = sorted({file.stem for file in files if file.suffix == ".yaml"})
        return f"{group}: there is no {name}{_nearest(name, names)}; there are {', '.join(names)}"
    if "Could not load 'hydra/launcher/submitit_slurm'" in text:
        return "hydra/launcher=slurm needs a package that is not installed: pip install 'mindseye[slurm]'"
    if twice := re.match(r"Multiple values for ([^ ]+)\. To", text):
        return f"{twice[1]} is given twice, by {twice[1]}=… or +{twice[1]}=…: give {twice[1]}=… once"
    if isinstance(error.__cause__, OmegaConfBaseException):  # "Error merging override k=x", and why
        text = f"{text}: {str(error.__cause__).split(chr(10))[0]}"
    return text.split("\nSee https")[0] or type(error).__name__


def _failure(error: InstantiationException) -> str:
    """What went wrong in somebody's constructor, and in which line of its file, in place of Hydra's wrapping of it."""
    cause = error.__cause__
    assert cause is not None
    target = re.search(r"'([^']+)'", str(error))
    place = re.search(r"full_key: (\S+)", str(error))
    lines = re.sub(r"\x1b\[[\d;]*m", "", f"{type(cause).__name__}: {cause}").split("\n")
    said = " ".join(lines[:2] if lines[0].endswith(":") else lines[:1])  # what is missing of a state dict, say
    frames = [one for one in traceback.extract_tb(cause.__traceback__) if _is_ones_own(one.filename)]
    own = [one for one in frames if one.filename == frames[0].filename]  # not what it calls
    line = f" in line {own[-1].lineno} of {own[-1].filename}" if own else ""
    return f"{f'{place[1]}: ' if place else ''}{target[1] if target else 'it'} failed{line}: {said}"


def _is_ones_own(file: str) -> bool:
    """Whether code lies outside this package and all that is installed."""
    package = str(Path(__file__).resolve().parent.parent)
    return not file.startswith(("<", package, sys.prefix, sys.base_prefix)) and "site-packages" not in file


def _unknown_key(key: str) -> str:
    return f"{key}: there is no such setting{_nearest(key, _settings_by_default()) or '; mindseye --cfg job shows all'}"


@lru_cache
def _settings_by_default() -> Sequence[str]:
    return (*_keys(OmegaConf.to_container(_compose([]), resolve=False)), *_groups())


def make(node: DictConfig, *, partial: bool = False) -> Any:
    """Hydra's instantiate, with lists and dicts of Python's own. Raises ConfigurationError.

    partial: the function itself, with the node's keys as its first arguments, and not what it gives.
    """
    try:
        if partial:
            return instantiate(node, _partial_=True, _convert_="all")
        return instantiate(node, _convert_="all")
    except InstantiationException as error:
        raise ConfigurationError(composition_error(error)) from error


def make_metric(node: DictConfig) -> Any:
    """A measure of the user's own: an object of a class, or a function as it is, with further keys as arguments."""
    return make(node, partial=not inspect.isclass(pkgutil.resolve_name(node._target_)))


def _keys(settings: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from _keys(value, f"{prefix}{key}.")
        elif key not in SPECIAL_KEYS:
            yield f"{prefix}{key}"


@lru_cache
def _groups() -> Sequence[str]:
    return tuple(
        sorted(path.name for path in config_folder().iterdir() if path.is_dir() and path.name != "hydra")
    )


def _nearest(name: str, known: Sequence[str]) -> str:
    spelled = {other.lower(): other for other in known}  # K may be meant for k
    near = [spelled[found] for found in difflib.get_close_matches(name.lower(), spelled, n=2, cutoff=0.5)]
    # A key given without its group, or under the wrong one: gain, loss.gain -> objective.gain.
    near += [other for other in known if other.split(".")[-1] == name.split(".")[-1] and other not in near]
    return f"; did you mean {' or '.join(near[:3])}?" if near else ""


def quoted(word: str, *, sweeps: bool = True) -> str:
    """An override with what Hydra's grammar would read otherwise, or not at all, in quotes.

    Number-like names of layers: one may be called 6.20, which YAML reads as 6.2. And the paths of files, which may hold
    any character. What a comma parts may be values of a sweep, each a path, unless there is a file or folder of the
    whole name, the key is one of Hydra's own folders, or the command has no sweeps; what looks like choice(…) needs
    quotes of its own.

    >>> quoted("images.root=~/my photos"), quoted("images.root=a,b"), quoted("images.root='a b'")
    ("images.root='~/my photos'", 'images.root=a,b', "images.root='a b'")
    >>> quoted("network.weights=k=4/a.pth,k=5/a.pth"), quoted("hydra.run.dir=sweep/k=4,C=2-215ce75af8")
    ("network.weights='k=4/a.pth','k=5/a.pth'", "hydra.run.dir='sweep/k=4,C=2-215ce75af8'")
    """
    key, _, path = word.partition("=")
    settled = re.match(r"['\"\[{]|\w+\(", path) or ("," in path and re.search(r"['\"]|\\,", path))
    if PATHS.fullmatch(key) and not settled:
        there = any(os.path.exists(os.path.expanduser(name)) for name in (path, path.rpartition(":")[0]) if name)
        whole = not sweeps or "," not in path or ONE_PATH.fullmatch(key) or there
        return f"{key}={','.join(map(_quoted_path, [path] if whole else path.split(',')))}"
    found = re.fullmatch(r"(\+{0,2}(?:layer|previous|transfer\.\w+\.layer)=)(.+)", word)
    if not found:
        return word
    names = found[2].split(",")
    return found[1] + ",".join(f"'{name}'" if re.fullmatch(r"[\d._e]+", name) else name for name in names)


def _quoted_path(path: str) -> str:
    return path if re.fullmatch(r"[\w./\\:+*@?|$%{}-]*", path, re.ASCII) else escaped(path)


def escaped(text: str) -> str:
    """A text as a value in Hydra's grammar, whatever characters it has.

    >>> print(escaped("a b,c='d'"))
    'a b,c=\\'d\\''
    """
    # Backslashes are taken literally but in front of a quote, where each must be doubled.
    doubled = re.sub(r"(\\*)'", lambda found: found[1] * 2 + r"\'", text)
    return "'" + re.sub(r"(\\+)$", lambda found: found[1] * 2, doubled) + "'"


def check_own_files(folder: Path) -> None:
    """Refuse files of one's own (--config-dir) that are no settings, which Hydra would pass over in silence."""
    if not folder.is_dir():
        raise ConfigurationError(f"--config-dir={folder}: there is no such folder")
    for file in sorted(path for group in _groups() for path in (folder / group).glob("*.yaml")):
        try:
            said = yaml.safe_load(file.read_bytes())
        except Exception as error:  # what damaged YAML makes its parser raise
            raise ConfigurationError(f"{file}: no readable YAML ({error})") from error
        if not isinstance(said, dict | None):
            raise ConfigurationError(f"{file}: holds a {type(said).__name__}; settings, key: value, are right")


def check_overrides(arguments: Sequence[str]) -> None:
    """Refuse wrong command-line overrides, every swept value among them, before Hydra starts any job.

    What an experiment sweeps over (`hydra.sweeper.params`) is looked at too.
    """
    given = _parsed([word for word in arguments if not word.startswith("-")])
    hydras = [one for one in given if one.key_or_group.startswith("hydra")]
    overrides = [one for one in given if one not in hydras]
    for one in overrides:
        if one.is_delete():
            raise ConfigurationError(
                f"{one.input_line}: settings stay in the configuration; give {one.key_or_group} another value "
                "(0 or null switches most things off)"
            )
        value = one.value()
        if one.key_or_group in _groups() and (isinstance(value, int | float | dict) or value == ""):
            raise ConfigurationError(f"{one.input_line}: {_options(one.key_or_group)}")
    first = {one.key_or_group: _choices(one)[0] for one in overrides}
    composed = compose([*(one.input_line for one in hydras), *first.values()], with_hydra=True)
    params = _sweeper_params(composed)
    swept = _parsed([f"{key}={values}" for key, values in params.items()])
    own_sweeper = str(composed.hydra.sweeper.get("_target_")).endswith(".ResumingSweeper")
    if not own_sweeper:
        swept = [one for one in swept if not one.is_sweep_override() or one.is_discrete_sweep()]
    added = [one for one in swept if one.key_or_group not in first]
    overrides = [*added, *overrides]
    if own_sweeper:
        _check_grid(overrides)
    first = {one.key_or_group: _choices(one)[0] for one in overrides}
    where = [one.input_line for one in hydras if one.key_or_group == "hydra.searchpath"]
    if added:
        task = compose([*where, *first.values()])
    else:
        task = composed.copy()
        with open_dict(task):
            del task["hydra"]
    _check_replaced(task, {one.key_or_group for one in overrides}, composed.hydra.runtime.choices)
    check(task)
    _check_hydras_folders(composed)
    if here := _runs_here(composed):
        check_files(task)
    check_layers(task)
    for one in overrides:
        alone = one.key_or_group in PLAIN_SETTINGS and one.key_or_group != "measure"
        if one.is_discrete_sweep() and alone:  # nothing else depends on their values
            for value in islice(one.sweep_iterator(), MOST_CELLS):
                value = getattr(value, "text", value)
                check_setting(one.key_or_group, value)
                if here and one.key_or_group == "images.root":
                    _check_photographs(value)
            continue
        for other in _choices(one)[1:]:
            task = compose([*where, *(other if key == one.key_or_group else value for key, value in first.items())])
            check(task)
            if here:
                check_files(task)
            check_layers(task)


def _check_replaced(config: DictConfig, given: Collection[str], choices: Mapping[str, Any]) -> None:
    """Say it where a constructor of one's own is given the settings that the group's file has for another."""
    for key in given:
        place, dot, last = key.rpartition(".")
        group = place.partition(".")[0]
        node = OmegaConf.select(config, place) if dot and last == "_target_" and group in _groups() else None
        if not isinstance(node, DictConfig) or not isinstance(node.get("_target_"), str):
            continue
        own_packages({"_target_": node._target_})
        told = takes(node._target_, place)
        extra = {*SPECIAL_KEYS, *told.hints, *_beside(place)}
        left = [str(name) for name in node if name not in extra and f"{place}.{name}" not in given]
        if left and not told.open_ended:
            raise ConfigurationError(
                f"{node._target_} takes no {left[0]}, which {group}={choices.get(group)} gives to {place}: write "
                f"my_conf/{group}/NAME.yaml with `_target_: {node._target_}`, and give --config-dir my_conf "
                f"{group}=NAME"
            )


def _runs_here(composed: DictConfig) -> bool:
    """Whether jobs find files where this process does: on this machine, in this directory."""
    launcher = str(composed.hydra.launcher.get("_target_"))
    return launcher.endswith((".BasicLauncher", ".JoblibLauncher")) and composed.hydra.job.get("chdir") is not True


def check_files(config: DictConfig) -> None:
    """Refuse a folder of photographs, or a file of a network's function, that is not there. Imports nothing of them."""
    _check_photographs(_settings(config.images).get("root"))
    for place, node in _networks(config):
        target = node.get("target")
        if not isinstance(target, str) or "${" in target or not _is_ours(node):
            continue
        file, _, function = target.rpartition(":")
        if target.endswith(".py"):
            raise ConfigurationError(
                f"{place}.target={target} is a file: {target}:FUNCTION is right, the function that builds the network"
            )
        if function and file.endswith(".py") and not os.path.isfile(os.path.expanduser(file)):
            raise ConfigurationError(f"{place}.target={target}: there is no file {file} (looked in {os.getcwd()})")


def _check_photographs(root: Any) -> None:
    if root is None or "${" in str(root):
        return
    folder = os.path.expanduser(str(root))
    if not os.path.isdir(folder):
        what = "is a file, not a folder" if os.path.exists(folder) else "does not exist"
        raise ConfigurationError(f"images.root={root} {what}; name a folder of images or of class folders")


def check_layers(config: DictConfig) -> None:
    """Refuse networks none of whose layers is chosen: neither by its name nor by a depth that the network names."""
    for place, node in _networks(config):
        layer, depth = (config.layer, config.depth) if place == "network" else (node.get("layer"), "late")
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
                f"{key} must be given: {place} names none for depth={depth}; {key}=NAME (`mindseye layers` lists them) "
                f"or {place}.layers={{early: …, middle: …, late: …}} is right"
            )


def _networks(config: DictConfig) -> Iterator[tuple[str, Mapping[str, Any]]]:
    yield "network", _settings(config.network)
    yield from _named(_settings(config.transfer), "transfer")


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
            raise ConfigurationError(f"{key}={'' if folder is None else folder}: the path of a folder is right")


def _sweeper_params(composed: DictConfig) -> Mapping[str, Any]:
    """What Hydra's own part says to sweep over; refuses a sweeper or launcher that is none."""
    sweeper, launcher = composed.hydra.get("sweeper"), composed.hydra.get("launcher")
    for name, node in (("sweeper", sweeper), ("launcher", launcher)):
        if not isinstance(node, DictConfig) or not isinstance(node.get("_target_"), str):
            options = "mindseye, basic" if name == "sweeper" else "basic, joblib, slurm, ray"
            raise ConfigurationError(f"hydra.{name}={node}: hydra/{name}=NAME takes one; there are {options}")
    _check_constructors(_settings(sweeper), "hydra.sweeper")
    params = sweeper.get("params")
    if params is not None and not isinstance(params, DictConfig):
        raise ConfigurationError(f"hydra.sweeper.params={params}: a mapping {{override: values}} is right")
    return params or {}


def _check_grid(overrides: Sequence[Override]) -> None:
    cells = 1
    for one in overrides:
        value = one.value()
        if isinstance(value, IntervalSweep):
            raise ConfigurationError(
                f"{one.input_line}: a grid needs single values, as in {one.key_or_group}=1,2 or range(1,5)"
            )
        if one.is_sweep_override():
            cells *= sum(1 for _ in one.sweep_iterator())
        if cells > MOST_CELLS:
            raise ConfigurationError(f"{one.input_line}: makes a sweep of {cells:,} cells; at most {MOST_CELLS:,}")


def _parsed(words: Sequence[str]) -> list[Override]:
    overrides: list[Override] = []
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        parser = OverridesParser.create(GlobalHydra.instance().config_loader())  # which glob(*) asks for options
    for word in words:
        try:
            overrides += parser.parse_overrides([word])
        except Exception as error:  # a number of too many digits, brackets nested too deeply: not only Hydra's own
            lines = str(error).split("\nSee https")[0].split("\n")
            if lines[-1].strip() == "^":  # under the character that is wrong
                place = lines[-1].index("^")
                lines = [f"not readable from {word[place : place + 10]!r} on; what is no plain word goes into quotes"]
            reason = lines[-1] or "not readable"
            raise ConfigurationError(f"{word}: write key=value, or a command first ({reason})") from error
    return overrides


def _choices(override: Override) -> list[str]:
    """Every single override that a swept one stands for, at most 1,000 of them; of an interval its ends."""
    if not override.is_sweep_override():
        return [override.input_line or ""]
    key = override.get_key_element()
    value = override.value()
    if isinstance(value, IntervalSweep):
        return [f"{key}={value.start}", f"{key}={value.end}"]
    if isinstance(value, RangeSweep):
        if not value.step:
            raise ConfigurationError(f"{override.input_line}: a step of 0 reaches no end")
        assert value.start is not None  # Hydra's own check
        assert value.stop is not None
        if (value.stop - value.start) / value.step > MOST_CELLS:
            raise ConfigurationError(f"{override.input_line}: more than {MOST_CELLS:,} values")
    try:
        values = [f"{key}={one}" for one in islice(override.sweep_string_iterator(), 1000)]
    except Exception as error:  # of a sort of words and numbers, a range among choices: not only Hydra's own
        raise ConfigurationError(f"{override.input_line}: {composition_error(error)}") from error
    if not values:
        raise ConfigurationError(f"{override.input_line}: there is no value in it")
    return values


def is_plain(word: str) -> bool:
    r"""Whether an override does no more than to give settings plain values, and groups the names of their files.

    An allow-list, for words that somebody else has written. What it lets through names no code: no interpolation, since
    resolvers may make anything of it, none of the keys that Hydra instantiates by, no `target` and no `arguments`,
    which networks import and call, no other package, no path of a file of settings, nothing of Hydra's own.

    >>> is_plain("k=10"), is_plain("network=resnet50"), is_plain("canvas._target_=os.system"), is_plain("k=$\\{C\\}")
    (True, True, False, False)
    """
    try:
        [override] = _parsed([word])
        value = override.value()
    except Exception:  # what cannot be read is not plain
        return False
    key = override.key_or_group
    names = key.split(".")
    known = names[0] in (*ROOT, *_groups(), METRICS) and all(map(_is_plain_name, names))
    if not known or override.package is not None or override.is_delete() or override.is_sweep_override():
        return False
    if key in _groups():
        return all(one is None or (type(one) is str and _is_plain_name(one)) for one in _listed(value))
    return _is_plain_value(value)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _is_plain_name(name: object) -> bool:
    plain = type(name) is int or (type(name) is str and re.fullmatch(r"[A-Za-z0-9][\w-]*", name, re.ASCII) is not None)
    return plain and name not in ("target", "arguments")


def _is_plain_value(value: object) -> bool:
    """A number, a text without interpolations, a list or mapping of such; not what Hydra makes of a function."""
    if isinstance(value, dict):
        return all(_is_plain_name(key) and _is_plain_value(inner) for key, inner in value.items())
    if isinstance(value, list):
        return all(map(_is_plain_value, value))
    return value is None or type(value) in (bool, int, float) or (type(value) is str and "${" not in value)


def check(config: DictConfig) -> None:
    """Refuse missing, mistyped or out-of-range settings and unknown constructor arguments. Loads no network."""
    settings = _settings(config)
    own_packages(settings)
    for key, value in settings.items():
        if key not in PLAIN_SETTINGS and key not in (*_groups(), METRICS):
            raise ConfigurationError(f"{key}: there is no such setting{_nearest(key, [*PLAIN_SETTINGS, *_groups()])}")
        if key in _groups():
            _check_group(key, value)
    for key in (*ROOT, *_groups(), METRICS):
        if key not in settings and key not in SETTING_GROUPS:
            raise ConfigurationError(f"{key} must stay in the configuration: it has been deleted (~{key})")
    for key in PLAIN_SETTINGS:
        group, _, name = key.rpartition(".")
        within = settings[group] if group else settings
        if name in within:
            check_setting(key, within[name], settings[METRICS] or ())
    for name, node in (settings[METRICS] or {}).items():
        if node is not None and not (isinstance(node, dict) and "_target_" in node):
            raise ConfigurationError(f"{METRICS}.{name}={node}: {METRICS}.{name}._target_=my.module.function is right")
    if str(settings["measure"]).startswith("transfer.") and not any(settings["transfer"].values()):
        raise ConfigurationError(f"measure={settings['measure']}: needs a network that judges, transfer=NETWORK")
    images, C = settings["images"], settings["C"]
    black, white = images.get("black"), images.get("white")
    if (black is None) != (white is None) or (black is not None and black == white):
        raise ConfigurationError(
            f"images.black={black} and images.white={white}: two different numbers, the values in the files that "
            "become 0 and 1, or neither is right"
        )
    drawn = images.get("count") if images.get("root") is None else None
    if _is_number(C, int) and _is_number(drawn, int) and drawn < C:  # either may be text that Hydra answers in the job
        raise ConfigurationError(
            f"C={C} facets need at least as many photographs; images.count={drawn} are drawn"
        )
    for place, node in (("network", settings["network"]), *_named(settings["transfer"], "transfer")):
        _check_network(node, place)
    for place, node in _named(settings["logger"], "logger"):
        for name, value in (node.get("settings") or {}).items():
            if name.endswith("_timeout") and _is_number(value, float) and value <= 0:
                raise ConfigurationError(f"{place}.settings.{name}={value}: above 0 is right, in seconds")
    if "lr" in settings["optimizer"]:
        raise ConfigurationError("optimizer.lr: the learning rate is schedule.lr.start and schedule.lr.end")
    for name, group in settings.items():
        if isinstance(group, dict):
            _check_constructors(group, name)


def _options(group: str) -> str:
    names = sorted(file.stem for file in (config_folder() / group).glob("*.yaml"))
    return f"{group}=NAME takes one of {', '.join(names)}"


def _named(group: Mapping[str, Any], name: str) -> list[tuple[str, Mapping[str, Any]]]:
    return [(f"{name}.{key}", node) for key, node in group.items() if node is not None]


def _check_network(node: Mapping[str, Any], place: str) -> None:
    """What a network's constructor would refuse only once its weights are there."""
    for name, most in (("size", MOST["images.size"]), ("num_classes", MOST_OF_ANY)):
        value: Any = node.get(name)
        if _is_number(value, int) and not 1 <= value <= most:
            raise ConfigurationError(f"{place}.{name}={value}: a whole number of 1 to {most:,} is right")
    mean, std = node.get("mean"), node.get("std")
    for name, values in (("mean", mean), ("std", std)):
        listed = isinstance(values, list) and all(_is_number(value, float) for value in values)
        if not listed and not (values is None or isinstance(values, str)):  # null, or what is told elsewhere
            said = f"[{values}]" if _is_number(values, float) else "[0.5]"
            raise ConfigurationError(
                f"{place}.{name}={values}: a list of one number per channel is right, {said} for one channel"
            )
    if isinstance(std, list) and not all(value > 0 for value in std):
        raise ConfigurationError(f"{place}.std={std}: every number must be above 0")
    if isinstance(mean, list) and isinstance(std, list) and (len(mean) != len(std) or not mean):
        raise ConfigurationError(f"{place}.mean has {len(mean)} numbers and {place}.std {len(std)}: one per channel")


def _settings(config: DictConfig | ListConfig, place: str = "") -> Any:
    """The configuration as plain values, interpolations resolved; what only Hydra can answer, in a job, stays text."""
    raw: Any = OmegaConf.to_container(config, resolve=False)
    within: Any = config
    if isinstance(raw, str) or raw is None:  # an interpolation to nothing
        return raw
    listed = isinstance(raw, list)
    plain: dict[Any, Any] = {}
    for key, value in enumerate(raw) if listed else raw.items():
        where = f"{place}.{key}" if place else str(key)
        if isinstance(value, str) and "${" in value:
            try:
                answer = within[key]
                plain[key] = _settings(answer, where) if isinstance(answer, DictConfig | ListConfig) else answer
            except Exception as error:  # whatever a resolver raises
                if "${hydra:" not in value:
                    reason = "it refers to itself" if isinstance(error, RecursionError) else str(error).split("\n")[0]
                    raise ConfigurationError(f"{where}={value}: {reason}") from error
                plain[key] = value
        else:
            plain[key] = _settings(within[key], where) if isinstance(value, dict | list) else value
    return list(plain.values()) if listed else plain


def _check_group(group: str, settings: Any) -> None:
    """A group is a mapping; of a group with a constructor one with its _target_, of several such a mapping of them."""
    if group in SETTING_GROUPS:
        return
    if not isinstance(settings, dict):
        raise ConfigurationError(f"{group}={settings}: {_options(group)}")
    if group in PLAIN_GROUPS:
        for name in settings:
            key = f"{group}.{name}"
            if key not in PLAIN_SETTINGS:
                raise ConfigurationError(
                    f"{key}: there is no such setting{_nearest(key, [*PLAIN_SETTINGS, *_groups()])}"
                )
        return
    nodes = settings if group in NAMED_GROUPS else {"": settings}
    for name, node in nodes.items():
        place = f"{group}.{name}" if name else group
        if node is None and name:
            continue
        if not isinstance(node, dict):
            right = "null switches it off" if group == "filters" else f"{group}=NAME takes one, null switches it off"
            raise ConfigurationError(f"{place}={node}: {place}.KEY=… sets one of its settings; {right}")
        if not isinstance(node.get("_target_"), str):
            raise ConfigurationError(f"{place}._target_={node.get('_target_')}: the path of a class is right")


def own_packages(settings: Any) -> None:
    """Let dotted paths name what lies in the current directory, after all that is installed.

    Only where one does that is not installed: in a folder of somebody else's a file that is called as a package that is
    not there, timm.py say, must not be taken for it.
    """
    if os.getcwd() not in sys.path and any(map(_is_elsewhere, _constructors(settings))):
        sys.path.append(os.getcwd())


def _constructors(node: Any) -> Iterator[str]:
    """Every _target_ in it."""
    for key, value in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        if key == "_target_" and isinstance(value, str):
            yield value
        else:
            yield from _constructors(value)


def _is_elsewhere(target: str) -> bool:
    """Whether it is of a package that conf/ does not name and that is not installed."""
    package = target.partition(".")[0]
    if package in CONSTRUCTORS_OF or package in sys.modules:
        return False
    try:
        return importlib.util.find_spec(package) is None
    except ValueError:  # of a name that is none
        return False


def check_setting(key: str, value: Any, own_measures: Collection[str] = ()) -> None:
    """Refuse a value that a setting of the root or of a plain group cannot have."""
    if value == MISSING:
        raise ConfigurationError(f"{key} must be given: {key}=…")
    if isinstance(value, str) and "${hydra:" in value:  # looked at again in the job
        return
    _check_plain(key, value, *PLAIN_SETTINGS[key])
    choices = CHOICES.get(key, (value,))
    if key == "measure":
        choices = (*choices, *own_measures)
    if value is not None and value not in choices:
        near = _nearest(str(value), choices)
        raise ConfigurationError(f"{key}={value}: {', '.join(choices)} are right{near}")


def _check_plain(key: str, value: Any, kind: type, least: float | None, optional: bool) -> None:
    if key in WORDS and value == WORDS[key]:
        return
    if value is None:
        if not optional:
            raise ConfigurationError(f"{key}=null: {in_words(kind, least)} is right")
        return
    if kind is str:  # a folder may be called 2012
        right = value != "" and (isinstance(value, str) or _is_number(value, float))
    elif kind is bool:
        right = isinstance(value, bool)
    else:
        right = _is_number(value, kind) and (least is None or value >= least)
    most = MOST.get(key, MOST_OF_ANY)
    if not right or (kind in (int, float) and value > most):
        top = f" and at most {most:,}" if right else ""
        other = " or null" if optional else f" or {WORDS[key]}" if key in WORDS else ""
        raise ConfigurationError(f"{key}={value}: {in_words(kind, least)}{top}{other} is right")


def _is_number(value: Any, kind: type) -> bool:
    """A whole number, or with kind=float any finite one."""
    if isinstance(value, bool) or not isinstance(value, int | float if kind is float else int):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer that no float holds
        return False


def in_words(kind: type, least: float | None) -> str:
    """What a plain setting of this type and least value takes: a whole number of at least 1."""
    names = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
    return names[kind] + (f" of at least {least}" if least is not None else "")


def _check_constructors(node: Mapping[str, Any], place: str) -> None:
    """Every node with a _target_ holds only what that constructor takes, of the types it takes."""
    target = node.get("_target_")
    if target is not None:
        _check_arguments(takes(target, place), node, place)
    for key, child in node.items():
        if isinstance(child, dict):
            _check_constructors(child, f"{place}.{key}")


def takes(target: str, place: str) -> Signature:
    """What a constructor takes: by its source where that tells, since importing torch takes seconds, else imported."""
    told = read_signature(target)
    if told is not None:
        return told
    try:
        constructor = pkgutil.resolve_name(target)
    except Exception as error:
        raise ConfigurationError(f"{place}._target_={target}: cannot be imported ({error})") from error
    try:
        parameters = inspect.signature(constructor).parameters
    except TypeError:
        raise ConfigurationError(f"{place}._target_={target}: is no function or class") from None
    except ValueError:  # written in C, without a signature
        return Signature({}, True)
    open_ended = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    made = constructor.__init__ if inspect.isclass(constructor) else constructor
    try:
        hints = typing.get_type_hints(made)
    except Exception:  # annotations of other people's constructors need not resolve
        hints = {}
    return Signature({name: hints.get(name, Any) for name in parameters}, open_ended)


def _beside(place: str) -> Collection[str]:
    """Keys of a node that are not its constructor's: the layer of a network that judges is the command's own."""
    return ("layer",) if place.startswith("transfer.") else ()


def _check_arguments(takes: Signature, node: Mapping[str, Any], place: str) -> None:
    for key, value in node.items():
        if key in SPECIAL_KEYS or key in _beside(place):
            continue
        if key not in takes.hints and not takes.open_ended:
            raise ConfigurationError(f"{place}.{key}: there is no such setting{_nearest(key, list(takes.hints))}")
        if value == MISSING:
            raise ConfigurationError(f"{place}.{key} must be given: {place}.{key}=…")
        constructed = isinstance(value, dict) and "_target_" in value
        interpolated = isinstance(value, str) and "${" in value
        hint = takes.hints.get(key, Any)
        if not constructed and not interpolated and not fits(value, hint):
            raise ConfigurationError(f"{place}.{key}={value}: {described(hint)} is right")


def fits(value: Any, hint: Any) -> bool:
    """Whether a value out of YAML can stand for an annotated argument; annotations not understood take anything."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return value in arguments
    if origin in (Union, types.UnionType):
        return any(fits(value, one) for one in arguments)
    if hint in (type(None), None):
        return value is None
    if hint is bool:
        return isinstance(value, bool)
    if hint in (int, float):
        return _is_number(value, hint)
    if hint is str or hint is Path:
        return isinstance(value, str)
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
        return isinstance(value, dict)
    if origin is tuple or (isinstance(origin, type) and issubclass(origin, Sequence)):
        kinds = [one for one in arguments if one is not Ellipsis]
        return isinstance(value, list) and all(fits(item, kinds[0]) for item in value if kinds)
    return True


def described(hint: Any) -> str:
    """An annotation in words, as YAML would have it; empty where YAML cannot write the type."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return " or ".join(str(one) for one in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(said for one in arguments if (said := described(one))))
    names = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", type(None): "null"}
    if hint in names:
        return names[hint]
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return "a mapping {name: value}"
    if arguments and (inner := described(arguments[0])):
        return f"a list, each {inner},"
    return ""  # a type that YAML cannot write

"""Composing the configuration and refusing what is wrong in it before any work starts, in one line."""

import difflib
import inspect
import math
import os
import pkgutil
import re
import sys
import types
import typing
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mindseye.commands.signatures import Signature, read_signature
from mindseye.sweeps.manifest import cell_folder
from mindseye.sweeps.summary import MEASURES

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
    "images.size": (int, 8, True),
    "images.kind": (str, None, False),
    "images.count": (int, 1, False),
    "facets.weighting": (str, None, False),
    "facets.selection": (str, None, False),
    "facets.N": (int, 1, False),
    "facets.gamma": (float, 1e-9, True),
    "facets.components": (int, 1, False),
    "facets.perplexity": (float, 0, False),
    "facets.tsne": (str, None, False),
    "facets.subsample": (int, 100, False),
    "facets.batch_size": (int, 1, False),
    "facets.workers": (int, 0, True),
    "cache.folder": (str, None, True),
    "cache.limit_gb": (float, 0, False),
    "trainer.accelerator": (str, None, False),
    "trainer.devices": (int, 1, False),
}
PLAIN_SETTINGS = {**ROOT, **PLAIN}
PLAIN_GROUPS = ("images", "facets", "cache", "trainer")
CHOICES = {
    "depth": ("early", "middle", "late"),
    "facets.weighting": ("calibrated", "published"),
    "facets.selection": ("nearest", "nearest_members", "farthest"),
    "facets.tsne": ("auto", "barnes_hut", "fft", "subsample"),
    "trainer.accelerator": ("auto", "cpu", "gpu", "cuda", "mps"),
    "precision": ("float32", "bfloat16", "float16"),
    "measure": tuple(MEASURES),
}

# Where each cell of a sweep goes. Hydra's workers import this file with the task, before they need it.
OmegaConf.register_new_resolver("cell_folder", lambda overrides: cell_folder(list(overrides)), replace=True)


class ConfigurationError(ValueError):
    """What is wrong with the configuration and what would be right, in one line."""


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
    except (HydraException, OmegaConfBaseException, FileNotFoundError) as error:
        raise ConfigurationError(_one_line(error)) from error


def _compose(overrides: Sequence[str], with_hydra: bool = False) -> DictConfig:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        return hydra_compose(CONFIG_NAME, list(overrides), return_hydra_config=with_hydra)


def _one_line(error: Exception) -> str:
    text = str(error)
    unknown = re.search(r"Could not override '([^']+)'", text) or re.search(r"Key '([^']+)' is not in struct", text)
    if unknown:
        return _unknown_key(unknown.group(1))
    missing = re.search(r"Could not find '([^']+)/([^'/]+)'.*?Available options in '[^']+':\n(.*?)\nConfig", text, re.S)
    if missing:
        group, name, options = missing.groups()
        names = [option.strip() for option in options.split("\n") if option.strip()]
        return f"{group}={name}: there is no such {group}{_nearest(name, names)}; there are {', '.join(names)}"
    if "Could not load 'hydra/launcher/submitit_slurm'" in text:
        return "hydra/launcher=slurm needs a package that is not installed: pip install 'mindseye[slurm]'"
    return text.split("\nSee https")[0]


def _unknown_key(key: str) -> str:
    known = [*_keys(OmegaConf.to_container(_compose([]), resolve=False)), *_groups()]
    return f"{key}: there is no such setting{_nearest(key, known) or '; README.md lists them'}"


def make(node: DictConfig, *, partial: bool = False) -> Any:
    """Hydra's instantiate, with the constructor's own one-line complaint in place of Hydra's wrapping of it.

    partial: the function itself, with the node's keys as its first arguments, and not what it gives.
    """
    try:
        return instantiate(node, _partial_=True) if partial else instantiate(node)
    except InstantiationException as error:
        if isinstance(error.__cause__, ValueError | FileNotFoundError):
            raise ConfigurationError(str(error.__cause__)) from error
        raise


def make_metric(node: DictConfig) -> Any:
    """A measure of the user's own: an object of a class, or a function as it is, with further keys as arguments."""
    return make(node, partial=not inspect.isclass(pkgutil.resolve_name(node._target_)))


def _keys(settings: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from _keys(value, f"{prefix}{key}.")
        elif key not in SPECIAL_KEYS:
            yield f"{prefix}{key}"


def _groups() -> list[str]:
    return sorted(path.name for path in config_folder().iterdir() if path.is_dir() and path.name != "hydra")


def _nearest(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=2, cutoff=0.5)
    # A key given without its group, or under the wrong one: gain, loss.gain -> objective.gain.
    near += [other for other in known if other.split(".")[-1] == name.split(".")[-1] and other not in near]
    return f"; did you mean {' or '.join(near[:3])}?" if near else ""


def quoted(word: str) -> str:
    """An override with number-like layer names in quotes: a layer may be called 6.20, which YAML reads as 6.2."""
    found = re.fullmatch(r"(\+{0,2}(?:layer|previous|transfer\.\w+\.layer)=)(.+)", word)
    if not found:
        return word
    names = found[2].split(",")
    return found[1] + ",".join(f"'{name}'" if re.fullmatch(r"[\d._e]+", name) else name for name in names)


def escaped(text: str) -> str:
    """A text as a value in Hydra's grammar, whatever characters it has.

    >>> print(escaped("a b,c='d'"))
    'a b,c=\\'d\\''
    """
    # Backslashes are taken literally but in front of a quote, where each must be doubled.
    doubled = re.sub(r"(\\*)'", lambda found: found[1] * 2 + r"\'", text)
    return "'" + re.sub(r"(\\+)$", lambda found: found[1] * 2, doubled) + "'"


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
    first = {one.key_or_group: _choices(one)[0] for one in overrides}
    composed = compose([*(one.input_line for one in hydras), *first.values()], with_hydra=True)
    params = OmegaConf.select(composed, "hydra.sweeper.params") or {}
    swept = _parsed([f"{key}={values}" for key, values in params.items()])
    swept = [one for one in swept if not one.is_sweep_override() or one.is_discrete_sweep()]  # no other sweeper's
    overrides = [*(one for one in swept if one.key_or_group not in first), *overrides]
    first = {one.key_or_group: _choices(one)[0] for one in overrides}
    where = [one.input_line for one in hydras if one.key_or_group == "hydra.searchpath"]
    check(compose([*where, *first.values()]))
    for one in overrides:
        alone = one.key_or_group in PLAIN_SETTINGS and one.key_or_group != "measure"
        if one.is_sweep_override() and alone:  # nothing else depends on their values
            for value in one.sweep_iterator():
                check_setting(one.key_or_group, getattr(value, "text", value))
            continue
        for other in _choices(one)[1:]:
            check(compose([*where, *(other if key == one.key_or_group else value for key, value in first.items())]))


def _parsed(words: Sequence[str]) -> list[Override]:
    overrides: list[Override] = []
    for word in words:
        try:
            overrides += OverridesParser.create().parse_overrides([word])
        except HydraException as error:
            reason = str(error).split("\nSee https")[0].split("\n")[-1]
            raise ConfigurationError(f"{word}: write key=value, or a command first ({reason})") from error
    return overrides


def _choices(override: Override) -> list[str]:
    """Every single override that a swept one stands for, at most 1,000 of them."""
    if not override.is_sweep_override():
        return [override.input_line or ""]
    key = override.get_key_element()
    values = []
    for value in override.sweep_string_iterator():
        values.append(f"{key}={value}")
        if len(values) == 1000:
            break
    return values


def check(config: DictConfig) -> None:
    """Refuse missing, mistyped or out-of-range settings and unknown constructor arguments. Loads no network."""
    own_packages()
    settings: Any = OmegaConf.to_container(config, resolve=False)
    known = PLAIN_SETTINGS
    present = [*settings, *(f"{group}.{name}" for group in PLAIN_GROUPS for name in settings.get(group) or ())]
    for key in present:
        if key not in known and key not in (*_groups(), METRICS):
            raise ConfigurationError(f"{key}: there is no such setting{_nearest(key, [*known, *_groups()])}")
    for key in (*ROOT, *_groups(), METRICS):
        if key not in settings and key not in ("experiment", "length", "ablation"):  # these set keys of others
            raise ConfigurationError(f"{key} must stay in the configuration: it has been deleted (~{key})")
    for key in known:
        group, _, name = key.rpartition(".")
        within = settings[group] if group else settings
        if name in within:
            check_setting(key, within[name], settings[METRICS] or ())
    for name, node in (settings[METRICS] or {}).items():
        if node is not None and not (isinstance(node, dict) and "_target_" in node):
            raise ConfigurationError(f"{METRICS}.{name}={node}: {METRICS}.{name}._target_=my.module.function is right")
    if str(settings["measure"]).startswith("transfer.") and not any((settings["transfer"] or {}).values()):
        raise ConfigurationError(f"measure={settings['measure']}: needs a network that judges, transfer=NETWORK")
    if "lr" in (settings["optimizer"] or {}):
        raise ConfigurationError("optimizer.lr: the learning rate is schedule.lr.start and schedule.lr.end")
    for name, group in settings.items():
        if isinstance(group, dict):
            _check_constructors(group, name)


def own_packages() -> None:
    """Let dotted paths name what lies in the current directory, after all that is installed."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())


def check_setting(key: str, value: Any, own_measures: Collection[str] = ()) -> None:
    """Refuse a value that a setting of the root or of a plain group cannot have."""
    if value == MISSING:
        raise ConfigurationError(f"{key} must be given: {key}=…")
    _check_plain(key, value, *PLAIN_SETTINGS[key])
    choices = CHOICES.get(key, (value,))
    if key == "measure":
        choices = (*choices, *own_measures)
    if value is not None and value not in choices:
        near = _nearest(str(value), choices)
        raise ConfigurationError(f"{key}={value}: {', '.join(choices)} are right{near}")


def _check_plain(key: str, value: Any, kind: type, least: float | None, optional: bool) -> None:
    if value is None:
        if not optional:
            raise ConfigurationError(f"{key}=null: {_said(kind, least)} is right")
        return
    right = isinstance(value, kind) or (kind is float and isinstance(value, int))
    right = right and (kind is str or math.isfinite(value))
    if kind is str and isinstance(value, int | float) and not isinstance(value, bool):
        right = True  # a folder may be called 2012
    if (isinstance(value, bool) and kind is not bool) or not right or (least is not None and value < least):
        raise ConfigurationError(f"{key}={value}: {_said(kind, least)}{' or null' if optional else ''} is right")


def _said(kind: type, least: float | None) -> str:
    names = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
    return names[kind] + (f" of at least {least}" if least is not None else "")


def _check_constructors(node: Mapping[str, Any], place: str) -> None:
    """Every node with a _target_ holds only what that constructor takes, of the types it takes."""
    target = node.get("_target_")
    if target is not None:
        _check_arguments(_takes(target, place), node, place)
    for key, child in node.items():
        if isinstance(child, dict):
            _check_constructors(child, f"{place}.{key}")


def _takes(target: str, place: str) -> Signature:
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
    except ValueError:  # builtins have none
        return Signature({}, True)
    open_ended = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    made = constructor.__init__ if inspect.isclass(constructor) else constructor
    try:
        hints = typing.get_type_hints(made)
    except Exception:  # annotations of other people's constructors need not resolve
        hints = {}
    return Signature({name: hints.get(name, Any) for name in parameters}, open_ended)


def _check_arguments(takes: Signature, node: Mapping[str, Any], place: str) -> None:
    # The layer is the command's own, beside what a network that judges takes
    extra = {"layer"} if place.startswith("transfer.") else set()
    for key, value in node.items():
        if key in SPECIAL_KEYS or key in extra:
            continue
        if key not in takes.hints and not takes.open_ended:
            raise ConfigurationError(f"{place}.{key}: there is no such setting{_nearest(key, list(takes.hints))}")
        if value == MISSING:
            raise ConfigurationError(f"{place}.{key} must be given: {place}.{key}=…")
        constructed = isinstance(value, dict) and "_target_" in value
        interpolated = isinstance(value, str) and "${" in value
        hint = takes.hints.get(key, Any)
        if not constructed and not interpolated and not fits(value, hint):
            raise ConfigurationError(f"{place}.{key}={value}: {_described(hint)} is right")


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
        number = isinstance(value, (int, float) if hint is float else int) and not isinstance(value, bool)
        return number and math.isfinite(value)
    if hint is str or hint is Path:
        return isinstance(value, str)
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
        return isinstance(value, dict)
    if origin is tuple or (isinstance(origin, type) and issubclass(origin, Sequence)):
        kinds = [one for one in arguments if one is not Ellipsis]
        return isinstance(value, list) and all(fits(item, kinds[0]) for item in value if kinds)
    return True


def _described(hint: Any) -> str:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return " or ".join(str(one) for one in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(said for one in arguments if (said := _described(one))))
    names = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", type(None): "null"}
    if hint in names:
        return names[hint]
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return "a mapping {name: value}"
    if arguments and (inner := _described(arguments[0])):
        return f"a list, each {inner},"
    return ""  # a type that YAML cannot write

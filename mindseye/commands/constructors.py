"""What the constructors take that the configuration names; they are imported, and torch with them."""

import importlib.util
import inspect
import os
import pkgutil
import re
import sys
import typing
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from omegaconf import DictConfig

from mindseye.commands.composing import (
    SPECIAL_KEYS,
    ConfigurationError,
    UnknownKey,
    compose,
    groups,
    options,
    options_with,
    plain,
)
from mindseye.commands.meant import a_file_of_its_own, led_to, no_such_part, no_such_setting
from mindseye.fields import annotation_of, described, fields_of, is_value
from mindseye.fields import check as check_value
from mindseye.settings import MADE, NAMED
from mindseye.visualizer.onlookers import of_lightning, why_not, why_not_a_filter
from mindseye.words import nearest

CONSTRUCTORS_OF = ("mindseye", "torch", "pytorch_lightning", "wandb", "hydra_plugins")  # the packages that conf/ names


class Arguments(typing.NamedTuple):
    """The parameters of a callable by name, `self` left out, with their annotations; Any where one says nothing."""

    hints: Mapping[str, Any]
    open_ended: bool  # takes any further ones


def with_dots(settings: Any) -> Any:
    """Every `_target_` as Hydra takes it, with dots alone: `module:Class` and `folder/file.py:Class` mean the same.

    Raises ConfigurationError for a file that has no dotted path.
    """
    if isinstance(settings, list):
        return [with_dots(value) for value in settings]
    if not isinstance(settings, dict):
        return settings
    return {
        key: _dotted(value) if key == "_target_" and isinstance(value, str) else with_dots(value)
        for key, value in settings.items()
    }


def _dotted(target: str) -> str:
    place, colon, name = target.rpartition(":")
    if not colon:
        return target
    module = place.removeprefix("./").removesuffix(".py").replace("/", ".") if place.endswith(".py") else place
    if not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*", f"{module}.{name}"):
        raise ConfigurationError(
            f"_target_={target}: give package.module.{name or 'NAME'}, which lies where Python looks or in this folder"
        )
    return f"{module}.{name}"


def check_constructors(parts: Mapping[str, Any]) -> None:
    """Every constructor in the configuration holds only what it takes, of the types that it takes. It is imported."""
    own_packages(parts)
    for place, node in parts.items():
        if isinstance(node, Mapping):
            check_arguments(node, place)
    for place, node in networks(parts):
        _check_source(node, place)


def networks(parts: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(place, node) of the network that draws and of those that judge."""
    yield "network", parts["network"]
    yield from ((f"transfer.{name}", node) for name, node in (parts.get("transfer") or {}).items() if node)


def _check_source(node: Mapping[str, Any], place: str) -> None:
    """What names a network is made, which loads nothing: its settings go together."""
    from mindseye.networks import Source

    kind = _resolved(node["_target_"], place)
    if not (inspect.isclass(kind) and issubclass(kind, Source)) or "${" in str(node):  # looked at again in the job
        return
    try:
        kind(**{key: value for key, value in node.items() if key not in (*SPECIAL_KEYS, *_keys_of_the_command(place))})
    except (TypeError, ValueError) as error:  # the latter begins with a field's name
        raise ConfigurationError(f"{place}{'.' if isinstance(error, ValueError) else ': '}{error}") from error


def check_onlookers(parts: Mapping[str, Any]) -> None:
    """Refuse callbacks whose classes cannot run here, also among filters."""
    own_packages(parts)
    told = any(node is not None for node in parts["logger"].values())
    for group in ("callbacks", "filters"):
        for name, node in (parts[group] or {}).items():
            if node is not None:
                _check_onlooker(str(node["_target_"]), f"{group}.{name}", told=told)


# What to type for what the reasons of `why_not` speak of.
TYPED = {
    "a CSV file": "logger=csv",
    "a learning rate that falls": "schedule.lr=[START,END]",
    "the weights of": "network.weights=FILE",
    "one of the callbacks": "callbacks=NAME",
    "the callback model_summary": "callbacks=model_summary",
}


def _check_onlooker(target: str, place: str, *, told: bool) -> None:
    """told: whether there is a tracker. Lightning's own are known before they are imported."""
    package, _, name = target.rpartition(".")
    within = package.startswith(("pytorch_lightning.", "lightning.pytorch."))
    kinds: Collection[str] = (of_lightning(name) or (name,)) if within else ()
    if not within and inspect.isclass(constructor := _resolved(target, place)):
        kinds = [kind.__name__ for kind in constructor.__mro__]
        if place.startswith("callbacks.") and "Callback" not in kinds:
            raise ConfigurationError(f"{place}: {target} is no subclass of pytorch_lightning.Callback")
    why = why_not(kinds, told=told) if place.startswith("callbacks.") else why_not_a_filter(kinds)
    if why is not None:
        typed = next((f" ({word})" for phrase, word in TYPED.items() if phrase in why), "")
        raise ConfigurationError(f"{place}: {name} {why}{typed}")


def check_arguments(node: Mapping[str, Any], place: str) -> None:
    """A node at `place` and all within it hold what their constructors take. Raises ConfigurationError."""
    target = node.get("_target_")
    if isinstance(target, str):
        takes = arguments_of(target, place)
        for key, value in node.items():
            if key not in SPECIAL_KEYS and key not in _keys_of_the_command(place):
                _check_argument(takes, key, value, f"{place}.{key}", target)
    for key, child in node.items():
        if isinstance(child, Mapping):
            check_arguments(child, f"{place}.{key}")


def _check_argument(takes: Arguments, name: str, value: Any, key: str, target: str) -> None:
    if name not in takes.hints and not takes.open_ended:
        raise ConfigurationError(_not_taken(key, target, takes))
    hint = takes.hints.get(name, Any)
    told_elsewhere = (isinstance(value, Mapping) and "_target_" in value) or (isinstance(value, str) and "${" in value)
    if told_elsewhere or not described(hint):
        return
    try:
        check_value(key, value, hint)
    except ValueError as error:
        raise ConfigurationError(str(error)) from error


def _not_taken(key: str, target: str, takes: Arguments) -> str:
    place = key.rpartition(".")[0]
    names = [*takes.hints, *_keys_of_the_command(place)]
    otherwise = f"; {target} takes {', '.join(names) or 'none'}"
    return no_such_setting(key, [f"{place}.{name}" for name in names], otherwise, options_with(key))


def compose_known(overrides: Sequence[str], *, with_hydra: bool = False) -> DictConfig:
    """As `compose`. Where a key is none, the line says what the part takes that is chosen, which is imported for it."""
    try:
        return compose(overrides, with_hydra=with_hydra)
    except UnknownKey as error:
        raise ConfigurationError(_what_takes(error.key, overrides) or str(error)) from error


def _what_takes(key: str, overrides: Sequence[str]) -> str | None:
    """One line for a key that no file has, of a part that is made by a constructor; None where it is not."""
    group, *names = key.split(".")
    led = led_to(key)
    if group not in (*MADE, *NAMED) or not names or key == "optimizer.lr":  # which is not for its class
        return None
    try:
        node: Any = with_dots(plain(compose([_may_add(word) for word in overrides])))
    except ConfigurationError:  # more is wrong
        return None
    own_packages(node)
    place, target, within = "", "", [group, *names[:-1]]
    for name in within:
        node = node.get(name) if isinstance(node, Mapping) else None
        place = f"{place}.{name}" if place else name
        target = str(node.get("_target_", "")) if isinstance(node, Mapping) else ""
        if not target and group in NAMED and place.count(".") == 1:
            return None if led and group == "logger" else no_such_part(key, options(group) if group in groups() else [])
    [word] = [word for word in overrides if word.partition("=")[0] == key][-1:] or [f"{key}=…"]
    if within[-1] == "arguments":  # of a network's function, whatever that takes
        return f"{key}: no file sets it: +{word} adds it"
    if not target:
        return None
    others = [str(name) for name in node if name != names[-1] and name not in SPECIAL_KEYS]
    if target.partition(".")[0] in CONSTRUCTORS_OF and nearest(names[-1], others, likeness=0.7):
        # a slip, which the file tells without torch
        return no_such_setting(key, [f"{place}.{name}" for name in others])
    takes = arguments_of(target, place)
    if names[-1] in takes.hints or (takes.open_ended and not led):
        return f"{key}: no file sets it, and {target} takes it: +{word} adds it"
    return _not_taken(key, target, takes)


def _may_add(word: str) -> str:
    """An override as one that may add a key, where it is of a group with constructors."""
    group = word.partition("=")[0].partition(".")[0]
    return f"++{word}" if group in (*MADE, *NAMED) and "." in word.partition("=")[0] else word


def check_replaced(parts: Mapping[str, Any], given: Collection[str], chosen: Mapping[str, Any]) -> None:
    """Say it where a constructor of one's own is given the settings that the group's file has for another."""
    for key in given:
        place, dot, last = key.rpartition(".")
        node: Any = parts
        for name in place.split("."):
            node = node.get(name) if isinstance(node, Mapping) else None
        if not (dot and last == "_target_" and isinstance(node, Mapping)):
            continue
        group, target = place.partition(".")[0], node["_target_"]
        own_packages({"_target_": target})
        takes = arguments_of(target, place)
        extra = {*SPECIAL_KEYS, *takes.hints, *_keys_of_the_command(place)}
        left = [str(name) for name in node if name not in extra and f"{place}.{name}" not in given]
        if left and not takes.open_ended:
            mend = a_file_of_its_own(group, target, partial=node.get("_partial_") is True)
            raise ConfigurationError(
                f"{target} takes no {left[0]}, which {group}={chosen.get(group)} gives to {place}: {mend}"
            )


@lru_cache
def arguments_of(target: str, place: str) -> Arguments:
    """What a constructor takes. Raises ConfigurationError where it cannot be imported, or is none."""
    constructor = _resolved(target, place)
    fields = {}
    if is_value(constructor):
        fields = {name: annotation_of(field) for name, field in fields_of(constructor).items()}
        if not _has_an_init_of_its_own(constructor):
            for name in inspect.get_annotations(constructor):
                if name not in fields and "ClassVar" not in str(inspect.get_annotations(constructor)[name]):
                    raise ConfigurationError(
                        f"{target}.{name} is no setting yet: write @value above the class (from mindseye.fields import "
                        "value), which makes its annotated names settings"
                    )
            return Arguments(fields, False)
    try:
        # Of a value's subclass inspect would tell the value's own.
        parameters = inspect.signature(constructor.__init__ if fields else constructor).parameters
    except TypeError:
        raise ConfigurationError(f"{place}._target_={target}: is no function or class") from None
    except ValueError:  # written in C, without a signature
        return Arguments({}, True)
    open_ended = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    try:
        hints = typing.get_type_hints(
            constructor.__init__ if inspect.isclass(constructor) else constructor, include_extras=True
        )
    except Exception:  # annotations of other people's constructors need not resolve
        hints = {}
    by_name = [name for name, parameter in parameters.items() if parameter.kind is not parameter.VAR_KEYWORD]
    named = {name: hints.get(name, Any) for name in by_name}
    if fields:
        named.pop("self", None)
    # What a subclass of a value takes further it hands on.
    return Arguments({**(fields if open_ended else {}), **named}, open_ended and not fields)


def _resolved(target: str, place: str) -> Any:
    try:
        return pkgutil.resolve_name(target)
    except Exception as error:  # whatever a module raises that is imported
        other = "pytorch_lightning" + target.removeprefix("lightning.pytorch")
        meant = f"; give {other}" if target.startswith("lightning.pytorch.") else ""
        raise ConfigurationError(f"{place}._target_={target}: cannot be imported ({error}){meant}") from error


def _has_an_init_of_its_own(constructor: type) -> bool:
    """Whether a class derived from a value writes its own __init__, without being made a value itself."""
    first = next(base for base in constructor.__mro__ if "__init__" in vars(base))
    return "__pydantic_fields__" not in vars(first)


def _keys_of_the_command(place: str) -> Collection[str]:
    """Keys of a node that are not its constructor's: the layer of a network that judges is the command's own."""
    return ("layer",) if place.startswith("transfer.") else ()


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

"""What the constructors take that the configuration names; they are imported, and torch with them."""

import importlib.util
import inspect
import os
import pkgutil
import sys
import typing
from collections.abc import Collection, Iterator, Mapping
from functools import lru_cache
from typing import Any

from mindseye.commands.composing import SPECIAL_KEYS, ConfigurationError
from mindseye.commands.meant import no_such_setting
from mindseye.fields import annotation_of, described, fields_of, is_value
from mindseye.fields import check as check_value

CONSTRUCTORS_OF = ("mindseye", "torch", "pytorch_lightning", "wandb", "hydra_plugins")  # the packages that conf/ names


class Arguments(typing.NamedTuple):
    """The parameters of a callable by name, `self` left out, with their annotations; Any where one says nothing."""

    hints: Mapping[str, Any]
    open_ended: bool  # takes any further ones


def check_constructors(parts: Mapping[str, Any]) -> None:
    """Every constructor in the configuration holds only what it takes, of the types that it takes. It is imported."""
    own_packages(parts)
    for place, node in parts.items():
        if isinstance(node, Mapping):
            check_arguments(node, place)


def check_arguments(node: Mapping[str, Any], place: str) -> None:
    """A node at `place` and all within it hold what their constructors take. Raises ConfigurationError."""
    target = node.get("_target_")
    if isinstance(target, str):
        takes = arguments_of(target, place)
        for key, value in node.items():
            if key not in SPECIAL_KEYS and key not in _beside(place):
                _check_argument(takes, key, value, f"{place}.{key}")
    for key, child in node.items():
        if isinstance(child, Mapping):
            check_arguments(child, f"{place}.{key}")


def _check_argument(takes: Arguments, name: str, value: Any, key: str) -> None:
    if name not in takes.hints and not takes.open_ended:
        raise ConfigurationError(no_such_setting(key, _beside_it(key, takes)))
    hint = takes.hints.get(name, Any)
    told_elsewhere = (isinstance(value, Mapping) and "_target_" in value) or (isinstance(value, str) and "${" in value)
    if told_elsewhere or not described(hint):
        return
    try:
        check_value(key, value, hint)
    except ValueError as error:
        raise ConfigurationError(str(error)) from error


def _beside_it(key: str, takes: Arguments) -> list[str]:
    return [f"{key.rpartition('.')[0]}.{name}" for name in takes.hints]


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
        extra = {*SPECIAL_KEYS, *takes.hints, *_beside(place)}
        left = [str(name) for name in node if name not in extra and f"{place}.{name}" not in given]
        if left and not takes.open_ended:
            raise ConfigurationError(
                f"{target} takes no {left[0]}, which {group}={chosen.get(group)} gives to {place}: write "
                f"my_conf/{group}/NAME.yaml with `_target_: {target}`, and give --config-dir my_conf {group}=NAME"
            )


@lru_cache
def arguments_of(target: str, place: str) -> Arguments:
    """What a constructor takes. Raises ConfigurationError where it cannot be imported, or is none."""
    try:
        constructor = pkgutil.resolve_name(target)
    except Exception as error:
        raise ConfigurationError(f"{place}._target_={target}: cannot be imported ({error})") from error
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
    named = {name: hints.get(name, Any) for name, one in parameters.items() if one.kind is not one.VAR_KEYWORD}
    if fields:
        named.pop("self", None)
    # What a subclass of a value takes further it hands on.
    return Arguments({**(fields if open_ended else {}), **named}, open_ended and not fields)


def _has_an_init_of_its_own(constructor: type) -> bool:
    """Whether a class derived from a value writes its own __init__, without being made a value itself."""
    first = next(one for one in constructor.__mro__ if "__init__" in vars(one))
    return "__pydantic_fields__" not in vars(first)


def _beside(place: str) -> Collection[str]:
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

"""What Lightning's save_hyperparameters left in a checkpoint, read without running any of it."""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from mindseye.networks.unpickling import Unread, unpickled

PATHS = ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")


class Names(dict[str, Any]):
    """Values by their names, which are its attributes too: Lightning and omegaconf have both."""

    def __getattr__(self, name: str) -> Any:
        if name not in self:
            raise AttributeError(name)
        return self[name]


@dataclass(frozen=True)
class Kept:
    """What a network was called with."""

    values: Mapping[str, Any] = field(default_factory=dict)  # without those that are not read
    unread: Mapping[str, str] = field(default_factory=dict)  # name -> the class of what is, or holds, an object
    argument: str | None = None  # the one that had all of them, where they were saved as one


def read_hyperparameters(path: Path) -> Kept:
    """The hyper_parameters of a checkpoint; nothing where there are none. Its tensors are not read.

    Paths, namespaces and omegaconf's containers come as plain values; what holds another object (a functools.partial, a
    class of somebody's own) is not read, since making it would run the file's code.
    """
    if path.suffix == ".safetensors":
        return Kept()
    try:
        saved = unpickled(path, mmap=True)
    except Exception:  # no file of this kind, or one of before torch 1.6; who reads its tensors says what is wrong
        return Kept()
    held = _plain(saved.get("hyper_parameters")) if isinstance(saved, Mapping) else None
    if not isinstance(held, Mapping):
        return Kept()
    unread = {str(name): kind for name, value in held.items() if (kind := _unread_in(value))}
    values = Names({str(name): value for name, value in held.items() if str(name) not in unread})
    argument = saved.get("hparams_name")
    return Kept(values, unread, argument if isinstance(argument, str) else None)


def _plain(value: Any) -> Any:
    """The value with paths, namespaces and omegaconf's containers as what they hold."""
    if isinstance(value, Mapping):
        return Names({name: _plain(inner) for name, inner in value.items()})
    if isinstance(value, list | tuple) and type(value) in (list, tuple):
        return type(value)(map(_plain, value))
    if not isinstance(value, Unread):
        return value
    package, name = value.kind.partition(".")[0], value.kind.rpartition(".")[2]
    state = value.state if isinstance(value.state, Mapping) else {}
    if package == "pathlib" and name in PATHS and all(isinstance(part, str) for part in value.made_of):
        return Path(PurePath(*value.made_of))
    if value.kind == "argparse.Namespace":
        return argparse.Namespace(**{str(name): _plain(inner) for name, inner in state.items()})
    if package == "omegaconf" and name in ("DictConfig", "ListConfig"):
        return _plain(state.get("_content"))
    if package == "omegaconf" and "_val" in state:
        return _plain(state["_val"])
    return value


def _unread_in(value: Any) -> str:
    """The class of an object that is not read, in a plain value or what it holds; "" where there is none."""
    if isinstance(value, Unread) or (isinstance(value, type) and issubclass(value, Unread)):
        return value.kind
    inner: Any = ()
    if isinstance(value, Mapping):
        inner = value.values()
    elif isinstance(value, argparse.Namespace):
        inner = vars(value).values()
    elif isinstance(value, list | tuple | set):
        inner = value
    return next(filter(None, map(_unread_in, inner)), "")

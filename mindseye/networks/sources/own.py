"""Networks of one's own: a module, what a function builds, and a training checkpoint in an architecture."""

import inspect
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mindseye.fields import Side
from mindseye.networks.hyperparameters import read_hyperparameters
from mindseye.networks.network import KNOWN_LAYERS, Network
from mindseye.networks.sources.accepting import accepted
from mindseye.networks.sources.finding import find_callable
from mindseye.networks.sources.source import SIZE, Loaded, Mean, Preprocessing, Source, Std
from mindseye.networks.sources.torchvision_models import TorchvisionSource
from mindseye.networks.weight_files import existing_file, read_state_dict
from mindseye.networks.weights import fit_names, load_weights
from mindseye.words import with_article, with_class

log = logging.getLogger(__name__)
UNKNOWN_NORMALISATION = "give mean and std, one number per channel: your own network's normalisation is not known"


@dataclass(frozen=True)
class ModuleSource(Source):
    """An nn.Module itself, or a program of torch.export that was exported for any number of images.

    module: itself. weights: a file with a state dict to load into it. mean, std, size, layers, prefix: see `Source`.
    """

    module: "nn.Module | torch.export.ExportedProgram"
    weights: str | Path | None = None
    mean: Mean = field(kw_only=True)
    std: Std = field(kw_only=True)
    size: Side = field(default=SIZE, kw_only=True)

    def load(self) -> Network:
        """The network, frozen and in evaluation mode. Raises ValueError, FileNotFoundError."""
        file = None if self.weights is None else existing_file(self.weights)
        body = accepted(self.module, "the network", self.mean, self.std, self.size)
        loaded = _with_weights(body, file, type(self.module).__name__, self.prefix)
        return self.network(type(body).__name__.lower(), loaded, Preprocessing(self.mean, self.std, self.size))


@dataclass(frozen=True)
class CallableSource(Source):
    """Whatever nn.Module a function (or class) returns that takes [B,ch,H,W], ch being the length of mean and std.

    A program of torch.export is one as well, where it was exported for any number of images.

    target: "package.module.function" or "package.module:function", importable also from the current directory, or
    "path/to/file.py:function"; a class and its own constructor as well, "package.module.Net.from_name". arguments: what
    it is called with, before those that Lightning's save_hyperparameters left in the file. weights: a file with a state
    dict to load into what it returns. name: in titles and tables; None: the class's or the function's.
    mean, std, size, layers, prefix: see `Source`.
    """

    target: str
    arguments: Mapping[str, Any] | None = None
    weights: str | Path | None = None
    name: str | None = field(default=None, kw_only=True)
    mean: Mean = field(kw_only=True)
    std: Std = field(kw_only=True)
    size: Side = field(default=SIZE, kw_only=True)

    def load(self) -> Network:
        """The network, frozen and in evaluation mode.

        Raises ValueError, also where the function fails, with the line in which it does; FileNotFoundError.
        """
        function = find_callable(self.target)
        file = None if self.weights is None else existing_file(self.weights)
        made = self._called(function, file)
        body = accepted(made, f"what {self.target} returned", self.mean, self.std, self.size)
        name = self.name or _title(function, self.target, body)
        try:
            loaded = _with_weights(body, file, name, self.prefix)
        except ValueError as error:
            takes = ", ".join(_takes(function)[0])
            if "does not fit" not in str(error) or not takes:
                raise
            raise ValueError(f"{error}; {self.target} takes {takes}: arguments={{NAME: value}}") from error
        return self.network(name, loaded, Preprocessing(self.mean, self.std, self.size))

    def _called(self, function: Callable[..., Any], file: Path | None) -> Any:
        """What the function returns for the given arguments and those that the file keeps."""
        given = dict(self.arguments or {})
        kept, unread = ({}, "") if file is None else _kept_arguments(function, file)
        if taken := {name: value for name, value in kept.items() if name not in given}:
            shown = ", ".join(f"{name}={value}" for name, value in taken.items())
            log.info("%s is called with %s, the hyper_parameters of %s", self.target, shown, file)
        arguments = {**taken, **given}
        try:
            inspect.signature(function).bind(**arguments)
        except TypeError as error:
            raise ValueError(
                f"{self.target} cannot be called with arguments {arguments}: {error}{unread}; "
                "arguments={NAME: value} gives it some"
            ) from None
        except ValueError:
            pass  # a builtin has no signature to check
        try:
            return function(**arguments)
        except (ValueError, OSError):
            raise
        except Exception as error:
            raise ValueError(f"{self.target} failed: {with_class(error, place=True)}{unread}") from error


@dataclass(frozen=True)
class CheckpointSource(Source):
    """The weights of a training checkpoint (Lightning's .ckpt, a .pth) in an architecture.

    Whatever prefix the trainer gave the weights' names ("model.", "net.", "module.", "backbone.") is found and taken
    off; `prefix` says which of several that fit.

    path: the file: .ckpt, .pth, .safetensors. target: a torchvision name, or a dotted path as of `CallableSource`.
    arguments: what that is called with, before those that the checkpoint keeps; torchvision's own function as well.
    mean, std: as in training; of a torchvision name None is as of `TorchvisionSource`, and of a function of one's own
    there is no default. size: None is a torchvision name's own, else 224. name: in titles and tables; None: the
    target's. layers: see `Source`.
    """

    path: str | Path
    target: str
    arguments: Mapping[str, Any] | None = None
    name: str | None = field(default=None, kw_only=True)

    def load(self) -> Network:
        """The network, frozen and in evaluation mode. Raises ValueError, FileNotFoundError."""
        if "." in self.target or ":" in self.target:
            if self.mean is None or self.std is None:
                raise ValueError(UNKNOWN_NORMALISATION)
            own = {**self.shared, "size": SIZE if self.size is None else self.size}
            return CallableSource(self.target, self.arguments, existing_file(self.path), name=self.name, **own).load()
        more = dict(self.arguments or {})
        classes = more.pop("num_classes", None)
        network = TorchvisionSource(self.target, existing_file(self.path), classes, more, **self.shared).load()
        network.name = self.name or self.target
        return network


def _with_weights(body: nn.Module, file: Path | None, name: str, prefix: str | None) -> Loaded:
    if file is None:
        return Loaded(body)
    return Loaded(body, load_weights(fit_names(read_state_dict(file), body, file, prefix), body, file, name))


def _title(function: Callable[..., Any], target: str, body: nn.Module) -> str:
    """What a network of one's own is called: by its class, which says more than build; of torch's classes by the
    function, as networks are whose layers are known by it."""
    last = re.split(r"[.:]", target)[-1]
    package = str(getattr(function, "__module__", "")).partition(".")[0]
    own = type(body).__module__.partition(".")[0] not in ("torch", "torchvision", "timm", "mindseye")
    named = last in KNOWN_LAYERS or package in ("torchvision", "timm")
    return type(body).__name__ if own and not named else last


def _takes(function: Callable[..., Any]) -> tuple[list[str], bool]:
    """The names that a function or class is called with, none of one without a signature; whether it takes any other,
    by **kwargs."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return [], False
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    names = [parameter.name for parameter in parameters if parameter.kind in by_name]
    return names, any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters)


def _kept_arguments(function: Callable[..., Any], file: Path) -> tuple[dict[str, Any], str]:
    """What a function takes of the hyper_parameters in a checkpoint, as Lightning has it, and what of them is not read.

    All of them where it takes any name; as one argument where they were saved as one that it takes.
    """
    kept, (names, any_other) = read_hyperparameters(file), _takes(function)
    if kept.argument is not None and kept.argument in names:
        taken, unread = {kept.argument: kept.values} if kept.values else {}, kept.unread
    else:
        taken = {name: value for name, value in kept.values.items() if any_other or name in names}
        unread = {name: kind for name, kind in kept.unread.items() if any_other or name in names}
    told = [f"; {name} in {file} is {with_article(kind)}, which is not read" for name, kind in sorted(unread.items())]
    return taken, "".join(told)

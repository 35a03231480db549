"""A frozen network by name, file or dotted path, with its own normalisation."""

import functools
import hashlib
import importlib
import importlib.util
import inspect
import logging
import re
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from mindseye.networks.chance import seeded
from mindseye.networks.modules import every_module, in_single, tensors
from mindseye.networks.network import KNOWN_LAYERS, Network, check_normalisation, check_side, materialise
from mindseye.networks.weights import (
    STATE_DICT_FILES,
    Saved,
    StateDict,
    class_count,
    existing_file,
    fit_names,
    load_weights,
    read_hyperparameters,
    read_state_dict,
    weights_file,
)
from mindseye.words import called, nearest, with_article, with_class

log = logging.getLogger(__name__)

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
UNKNOWN_NORMALISATION = "give mean and std, one number per channel: your own network's normalisation is not known"
Built = TypeVar("Built")
Family = Literal["classification", "segmentation", "detection"]  # of torchvision's models

# ---- the five ways to a network ---------------------------------------------------------------------------------


def torchvision_network(
    name: str,
    weights: str | Path | None = "DEFAULT",
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    size: int | None = None,
    layers: Mapping[str, str] | None = None,
    num_classes: int | None = None,
    arguments: Mapping[str, Any] | None = None,
    prefix: str | None = None,
) -> Network:
    """A torchvision model for classification or segmentation, or the backbone of one for detection.

    weights: None (random), "DEFAULT" or another of its published weights (downloaded once), or a file with a state
    dict. mean, std, size: None takes what the published weights were evaluated with; of a file that is one of them, by
    its name or its hash, that one's; of any other what all of the name have in common, where they have it. A
    vision transformer of another size has its position embeddings interpolated. layers: what its depths early, middle
    and late are called. num_classes: None reads it from the file, 1000 otherwise (segmentation: 21); a detection
    network's heads have no part in what is looked into. arguments: further ones of torchvision's own function, such as
    {"transform_input": False} of an inception_v3 that was trained without. prefix: which of several weights in the
    file, by the keys and the beginning of the names that lead to them, joined by dots ("teacher.backbone").

    Raises ValueError, FileNotFoundError.
    """
    from torchvision import models

    family = _torchvision_family(name)
    builder = models.get_model_builder(name)
    published = models.get_model_weights(name)
    weights = _plain_name(weights, published)
    path = weights_file(weights)
    entry = None
    if weights is not None and path is None:
        if weights not in published.__members__:  # DEFAULT is among them
            raise ValueError(
                f"{name} has no weights {str(weights)!r}: give null, {', '.join(published.__members__)}, "
                f"or a file ({' '.join(STATE_DICT_FILES)})"
            )
        entry = published[str(weights)]
    own = entry if path is None else _published(path, published)
    reading = _reading(name, [*published] if own is None else [own])
    if (mean is None or std is None) and reading.mean is None and path is not None:
        raise ValueError(
            f"{name} has published weights of several mean and std, and {path.name} is none of them: give mean and std "
            "as in its training, one number per channel"
        )
    side = reading.size
    builder = _with_arguments(name, builder, arguments, warn=path is not None and own is None)
    saved: Saved | None = None
    if path is not None:
        saved = read_state_dict(path)
    elif entry is not None and name.startswith("vit_") and size not in (None, side):
        saved = {"": _downloaded(name, lambda: entry.get_state_dict(progress=False, check_hash=True), entry.url)}
    size = size if size is not None else side
    body: Any
    unloaded: frozenset[str] | None = None
    try:
        if entry is not None and saved is None:
            body = _downloaded(name, lambda: builder(weights=entry, progress=False), entry.url)
        else:
            source = path if path is not None else Path(str(weights))
            body, unloaded = _torchvision_body(name, family, builder, num_classes, size, saved, source, prefix)
    except TypeError as error:
        raise ValueError(f"torchvision's {name} cannot be built with {dict(arguments or {})}: {error}") from error
    classes = own.meta["categories"] if own is not None and family == "classification" else None
    if classes is not None and not any(one.shape[:1] == (len(classes),) for _, one in tensors(body)):
        classes = None  # a file of other classes that has the published one's name
    if family == "detection":
        mean = mean if mean is not None else body.transform.image_mean
        std = std if std is not None else body.transform.image_std
        body = _DetectionBackbone(body.backbone)
    mean = mean if mean is not None else reading.mean or IMAGENET_MEAN
    std = std if std is not None else reading.std or IMAGENET_STD
    return Network(body, mean, std, name, size, layers, classes, unloaded)


def _plain_name(weights: Any, published: Any) -> Any:
    """The name of torchvision's weights out of its enumeration's entry, or of that as a text; anything else as it is.

    Raises ValueError for those of another network, whose names are the same.
    """
    found = re.fullmatch(r"(?:torchvision\.models\.)?(\w+_Weights)\.(\w+)", str(weights))
    if found is None:
        return weights
    if found[1] != published.__name__:
        raise ValueError(f"{weights} is of another network: there are {', '.join(map(str, published))}")
    return found[2]


def timm_network(
    name: str,
    weights: str | Path | None = "DEFAULT",
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    size: int | None = None,
    layers: Mapping[str, str] | None = None,
    num_classes: int | None = None,
    prefix: str | None = None,
) -> Network:
    """A timm model. weights: None (random), "DEFAULT" (downloaded once), or a file with a state dict.

    mean, std, size: None takes timm's own for this model; the length of a given mean is the number of channels. A model
    of one image size alone (vision transformers) is built for another where one is given. prefix: as in
    `torchvision_network`.

    Raises ValueError (also where timm is not installed), FileNotFoundError.
    """
    try:
        import timm
        from timm.data import resolve_model_data_config
    except ImportError:
        raise ValueError("a timm network needs timm: pip install 'mindseye[timm]'") from None
    if not timm.is_model(name):
        raise ValueError(f"timm has no model {name!r}{_nearest(name.split('.')[0], timm.list_models())}")
    path = weights_file(weights)
    if path is None and weights not in (None, "DEFAULT"):
        raise ValueError(f"timm weights are null, DEFAULT, or a file; a tag goes into the name ({name}.{weights})")

    def build(classes: int | None) -> nn.Module:
        arguments: dict[str, Any] = {} if classes is None else {"num_classes": classes}
        if mean is not None:
            arguments["in_chans"] = len(mean)
        published = timm.get_pretrained_cfg(name)
        if size is not None and published is not None and published.fixed_input_size:
            arguments["img_size"] = size
        pretrained = weights == "DEFAULT"
        try:
            return _downloaded(name, lambda: timm.create_model(name, pretrained=pretrained, **arguments))
        except TypeError as error:  # it takes no such argument
            raise ValueError(f"timm cannot build {name} with {arguments}: {error}; size=null is its own") from error

    saved = None if path is None else read_state_dict(path)
    body = build(num_classes)
    unloaded = None
    if saved is not None and path is not None:
        state = fit_names(saved, body, path, prefix)
        built_with = int(getattr(body, "num_classes", 0))
        if num_classes is None and (classes := class_count(state, body, built_with)) is not None:
            body = build(classes)
        unloaded = load_weights(state, body, path, name)
    data = resolve_model_data_config(body)
    if path is not None and (mean is None or std is None):
        data = {**data, **_timm_normalisation(name, path)}
    size = size if size is not None else data["input_size"][-1]
    return Network(
        body,
        mean if mean is not None else data["mean"],
        std if std is not None else data["std"],
        name,
        size,
        layers,
        unloaded=unloaded,
    )


def _timm_normalisation(name: str, path: Path) -> dict[str, tuple[float, ...]]:
    """mean and std of a timm name whose weights come from a file: what all of its published weights have in common.

    A name with its tag is one of them, as is a file of the name that timm downloads. Raises ValueError where they
    differ, with what to give.
    """
    import timm

    tags = [name] if "." in name else [*timm.list_models(f"{name}.*", pretrained=True)]
    known = {tag: config for tag in tags if (config := timm.get_pretrained_cfg(tag)) is not None}
    known = {tag: config for tag, config in known.items() if Path(str(config.url)).name == path.name} or known
    found = {(tuple(config.mean), tuple(config.std)): tag for tag, config in known.items()}
    if len(found) > 1:
        one, other = sorted(found.values())[:2]
        raise ValueError(
            f"timm's weights of {name} are of several mean and std ({one}, {other}): give the name with its tag, or "
            f"mean and std as in the training of {path.name}"
        )
    return {key: value for mean, std in found for key, value in (("mean", mean), ("std", std))}


def callable_network(
    target: str,
    arguments: Mapping[str, Any] | None = None,
    weights: str | Path | None = None,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    size: int = 224,
    layers: Mapping[str, str] | None = None,
    name: str | None = None,
    prefix: str | None = None,
) -> Network:
    """Whatever nn.Module a function (or class) returns that takes [B,ch,H,W], ch being the length of mean and std.

    A program of torch.export is one as well, where it was exported for any number of images.

    target: "package.module.function" or "package.module:function", importable also from the current directory, or
    "path/to/file.py:function"; a class and its own constructor as well, "package.module.Net.from_name". arguments: what
    it is called with, before those that Lightning's save_hyperparameters left in the file. weights: a file with a state
    dict to load into what it returns; prefix: as in `torchvision_network`.

    Raises ValueError, also where the function fails, with the line in which it does; FileNotFoundError.
    """
    function = _find_callable(target)
    given_by = dict(arguments or {})
    file = None if weights is None else existing_file(weights)
    kept = {} if file is None else _kept_arguments(function, file)
    if taken := {key: one for key, one in kept.items() if key not in given_by}:
        shown = ", ".join(f"{key}={one}" for key, one in taken.items())
        log.info("%s is called with %s, the hyper_parameters of %s", target, shown, file)
    called_with = {**taken, **given_by}
    try:
        inspect.signature(function).bind(**called_with)
    except TypeError as error:
        raise ValueError(
            f"{target} cannot be called with arguments {called_with}: {error}; network.arguments={{NAME: value}} "
            "gives it some"
        ) from None
    except ValueError:
        pass  # a builtin has no signature to check
    try:
        given = function(**called_with)
    except (ValueError, OSError):
        raise
    except Exception as error:
        raise ValueError(f"{target} failed: {with_class(error, place=True)}") from error
    body = _looked_into(given, f"what {target} returned", mean, std, size)
    name = name or _title(function, target, body)
    try:
        unloaded = None if file is None else _load_file(file, body, name, prefix)
    except ValueError as error:
        takes = ", ".join(_parameters(function))
        if "does not fit" not in str(error) or not takes:
            raise
        raise ValueError(f"{error}; {target} takes {takes}: network.arguments={{NAME: value}}") from error
    return Network(body, mean, std, name, size, layers, unloaded=unloaded)


def _title(function: Callable[..., Any], target: str, body: nn.Module) -> str:
    """What a network of one's own is called: by its class, which says more than build; of torch's classes by the
    function, as networks are whose layers are known by it."""
    last = re.split(r"[.:]", target)[-1]
    package = str(getattr(function, "__module__", "")).partition(".")[0]
    own = type(body).__module__.partition(".")[0] not in ("torch", "torchvision", "timm", "mindseye")
    named = last in KNOWN_LAYERS or package in ("torchvision", "timm")
    return type(body).__name__ if own and not named else last


def _parameters(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """What a function or class is called with by name; nothing of one without a signature."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return {}
    several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD, inspect.Parameter.POSITIONAL_ONLY)
    return {name: one for name, one in parameters.items() if one.kind not in several}


def _kept_arguments(function: Callable[..., Any], file: Path) -> dict[str, Any]:
    """The hyper_parameters in a checkpoint that a function takes by name."""
    takes = _parameters(function)
    return {name: one for name, one in read_hyperparameters(file).items() if name in takes} if takes else {}


def _load_file(path: Path, body: nn.Module, name: str, prefix: str | None) -> frozenset[str]:
    """Load a file's weights into the body; the names for which it has none: see `load_weights`."""
    return load_weights(fit_names(read_state_dict(path), body, path, prefix), body, path, name)


def checkpoint_network(
    path: str | Path,
    target: str,
    arguments: Mapping[str, Any] | None = None,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    size: int | None = None,
    layers: Mapping[str, str] | None = None,
    name: str | None = None,
    prefix: str | None = None,
) -> Network:
    """The weights of a training checkpoint (Lightning's .ckpt, a .pth) in an architecture.

    target: a torchvision name, or a dotted path as in `callable_network`, called with `arguments`. Whatever prefix
    the trainer gave the weights' names ("model.", "net.", "module.", "backbone.") is found and taken off; `prefix` says
    which of several that fit, as in `torchvision_network`. mean, std: as
    in training; of a torchvision name None is as in `torchvision_network`, and of a function of one's own there is no
    default. size: None is a torchvision name's own, else 224.

    Raises ValueError, FileNotFoundError.
    """
    if "." in target or ":" in target:
        if mean is None or std is None:
            raise ValueError(UNKNOWN_NORMALISATION)
        side = size if size is not None else 224
        file = existing_file(path)
        return callable_network(
            target, arguments, file, mean=mean, std=std, size=side, layers=layers, name=name, prefix=prefix
        )
    more = dict(arguments or {})
    num_classes = more.pop("num_classes", None)
    network = torchvision_network(target, existing_file(path), mean, std, size, layers, num_classes, more, prefix)
    network.name = name or target
    return network


def demo_network(
    weights: str | Path | None = "packaged",
    layers: Mapping[str, str] | None = None,
    size: int = 96,
    name: str = "demo",
) -> Network:
    """The small network that comes with the package, trained on its generated photographs; no download.

    weights: "packaged" (or "DEFAULT"), a file, or None (random). layers: what its depths early, middle and late are
    called.
    """
    from mindseye.demo import network as demo

    own = "packaged" if weights == "DEFAULT" else weights
    body = demo.demo_network(weights=own if own in ("packaged", None) else existing_file(own))
    return Network(body, demo.MEAN, demo.STD, name, size, layers, demo.CLASSES)


def load_network(
    name: "str | nn.Module | torch.export.ExportedProgram" = "resnet50",
    weights: str | Path | Enum | None = "DEFAULT",
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    size: int | None = None,
    layers: Mapping[str, str] | None = None,
    num_classes: int | None = None,
    arguments: Mapping[str, Any] | None = None,
    prefix: str | None = None,
    seed: int = 0,
) -> Network:
    """A network by what names it, frozen and with its own normalisation.

    name: a torchvision name, "demo", "timm/<name>", a dotted path or a file's function (`my_net.py:build`); or an
    nn.Module itself, or a program of torch.export.

    It is frozen and in evaluation mode (a given module itself is: pass a copy to go on training it), and takes images
    [B,ch,H,W] in 0..1, ch being the length of mean and std. It computes in float32, as pictures are: of a module in
    another precision a copy is taken.

    weights: None (random), "DEFAULT" (the network's own), another of torchvision's ("IMAGENET1K_V1", or as its own
    enumeration has it), or a file with a state dict. mean, std: on images in 0..1, one number a channel; a module or a
    dotted path has no default for them. size: the side in pixels that photographs are best read at. layers: the names
    of its depths, {"early": ..., "middle": ..., "late": ...}. num_classes: of a torchvision or timm model, where the
    file does not say. arguments: what a dotted path or torchvision's function is
    called with. prefix: which of several weights in the file, by the keys and the beginning of the names that lead to
    them, joined by dots ("state_dict_ema", "teacher.backbone"). seed: of weights that are random; the process's own
    generators are left as they are.

    >>> load_network("demo").resolve(depth="early")
    'layer2.0'
    >>> own = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))
    >>> load_network(own, mean=[0.5], std=[0.25], size=32).channels
    1

    Raises ValueError, FileNotFoundError.
    """
    _refuse_file(name)
    with seeded(seed):
        network = _by_name(name, weights, mean, std, size, layers, num_classes, arguments, prefix)
    if not isinstance(name, str) or (not name.startswith("timm/") and ("." in name or ":" in name)):
        warn_of_no_training(network)
    return network


def _by_name(
    name: "str | nn.Module | torch.export.ExportedProgram",
    weights: Any,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    size: int | None,
    layers: Mapping[str, str] | None,
    num_classes: int | None,
    arguments: Mapping[str, Any] | None,
    prefix: str | None,
) -> Network:
    if isinstance(name, str) and name == "demo":
        _refuse_arguments(name, arguments)
        return demo_network(weights, layers, size if size is not None else 96)
    if isinstance(name, str) and name.startswith("timm/"):
        _refuse_arguments(name, arguments)
        return timm_network(name.removeprefix("timm/"), weights, mean, std, size, layers, num_classes, prefix)
    if isinstance(name, str) and not ("." in name or ":" in name):
        return torchvision_network(name, weights, mean, std, size, layers, num_classes, arguments, prefix)
    if mean is None or std is None:
        raise ValueError(UNKNOWN_NORMALISATION)
    side = size if size is not None else 224
    own_file = None if weights in (None, "DEFAULT") else existing_file(weights)
    if isinstance(name, str):
        return callable_network(
            name, arguments, own_file, mean=mean, std=std, size=side, layers=layers, prefix=prefix
        )
    _refuse_arguments("a module", arguments)
    body, kind = _looked_into(name, "the network", mean, std, side), type(name).__name__
    unloaded = None if own_file is None else _load_file(own_file, body, kind, prefix)
    return Network(body, mean, std, type(body).__name__.lower(), side, layers, unloaded=unloaded)


def warn_of_no_training(network: Network) -> None:
    """Ask for the weights where no file was loaded and every BatchNorm is as it was made: mean 0, variance 1.

    A picture of them looks no worse to the measures of the network itself. Counters of batches say nothing: converted
    files have them as 0.
    """
    if network.unloaded is not None:
        return
    starts = {"running_mean": 0, "running_var": 1}
    named = [(starts.get(name.rpartition(".")[2]), tensor) for name, tensor in tensors(network.body)]
    statistics = [(start, tensor) for start, tensor in named if start is not None]
    if statistics and all(torch.equal(buffer, torch.full_like(buffer, start)) for start, buffer in statistics):
        log.warning(
            "%s has seen no training: its BatchNorm is as it was made. Where are its weights? network.weights=FILE",
            network.name,
        )


def _nearest(name: str, known: Sequence[str]) -> str:
    near = nearest(name, known)
    return f"; the nearest names are {', '.join(near)}" if near else ""


def _refuse_file(name: object) -> None:
    """Raises ValueError where a network is named by a file that holds none, with what to give instead."""
    if name is None or isinstance(name, bool | int | float | type):
        raise ValueError(
            "the network must be a name, a function of a file (my_net.py:build), a dotted path or an nn.Module, not "
            f"{name.__name__ if isinstance(name, type) else name}"
        )
    if not isinstance(name, str | Path):
        return
    path = Path(name)
    if path.suffix == ".pt2":
        raise ValueError(
            f"{str(name)!r} is a program of torch.export: load_network(torch.export.load({str(name)!r}), mean=…, std=…)"
        )
    if path.suffix in STATE_DICT_FILES and (path.suffix != ".bin" or path.expanduser().is_file()):
        raise ValueError(
            f"{str(name)!r} is a file of weights, which do not say what network they are of: "
            f"load_network(build(), weights={str(name)!r}, mean=…, std=…) with the function that builds it, or "
            f"load_network('resnet18', weights={str(name)!r}) with a name of torchvision's"
        )
    if isinstance(name, Path):
        raise ValueError(
            f"the network is a path: give the text {str(name) + ':FUNCTION'!r}, with the function that builds it, or "
            "what that returns"
        )


def _looked_into(given: object, what: str, mean: Sequence[float], std: Sequence[float], size: int) -> nn.Module:
    """A module on whose layers hooks can stand. Raises ValueError, with what to give instead, where there is none."""
    check_normalisation(mean, std)
    if isinstance(given, torch.export.ExportedProgram):
        images = next(node.meta["val"] for node in given.graph.nodes if node.name in given.graph_signature.user_inputs)
        if isinstance(images.shape[0], int):
            raise ValueError(
                f"{what} was exported for {images.shape[0]} images at once: export it for any number, with "
                "torch.export.export(…, dynamic_shapes=({0: torch.export.Dim('batch')},))"
            )
        return torch.export.unflatten(given)
    if isinstance(given, torch.jit.ScriptModule):
        raise ValueError(
            f"{what} is a TorchScript program, which nothing can look into: give the nn.Module it was made of, with "
            "torch.jit.load(file).state_dict() as its weights, or export it with torch.export"
        )
    if not isinstance(given, nn.Module):
        raise ValueError(f"{what} must be a torch.nn.Module, not {called(given)}")
    if isinstance(given, torch.fx.GraphModule) and "train" in vars(given):  # whose train() is one that refuses
        raise ValueError(
            f"{what} is the flat module of a program of torch.export, whose layers are none any more: give the "
            "ExportedProgram itself"
        )
    _refuse_packed(given, what)
    single = _in_single(given, what)
    materialise(single, len(mean), check_side(size), what)
    return single


def _in_single(body: nn.Module, what: str) -> nn.Module:
    """The module itself where all its numbers are float32, as pictures are; else a copy in which they are."""
    others = {str(one.dtype) for _, one in tensors(body) if one.is_floating_point()} - {"torch.float32"}
    if not others:
        return body
    log.info("%s has numbers in %s: a copy in float32 is looked into", what, ", ".join(sorted(others)))
    return in_single(body)


def _refuse_packed(body: nn.Module, what: str) -> None:
    """Raises ValueError for weights in whole numbers, through which no gradient goes, and for sparse ones."""
    for path, part in every_module(body):
        kind = type(part)
        whole = [one for one in part._parameters.values() if one is not None and not one.is_floating_point()]
        packed = "quantized" in kind.__module__.split(".") and not hasattr(part, "fake_quant_enabled")
        if any(one is not None and one.layout != torch.strided for one in part._parameters.values()):
            raise ValueError(
                f"{what} has sparse weights ({path or 'itself'} is {with_article(kind.__name__)}): give them as "
                "weight.to_dense()"
            )
        if packed or any(not one.is_complex() for one in whole):
            raise ValueError(
                f"{what} is quantised ({path or 'itself'} is {with_article(kind.__name__)}): no gradient goes through "
                "it; give the network that it was made of"
            )


# ---- building ---------------------------------------------------------------------------------------------------


class _DetectionBackbone(nn.Module):
    """The backbone under the name it has in the whole network, which takes lists of images and looks for boxes."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Tensor) -> Any:
        """What the backbone gives for normalised images [B,3,H,W]."""
        return self.backbone(images)


def _torchvision_family(name: str) -> Family:
    """Which kind of model a name is of. Raises ValueError where it is of none that takes images [B,3,H,W]."""
    from torchvision import models

    homes: dict[Family, ModuleType] = {
        "classification": models, "segmentation": models.segmentation, "detection": models.detection,
    }  # fmt: skip
    known = {family: models.list_models(module=home) for family, home in homes.items()}
    for family, names in known.items():
        if name in names:
            return family
    everything = [one for names in known.values() for one in names]
    raise ValueError(f"torchvision has no model {name!r} of images{_nearest(name, everything)}")


@dataclass(frozen=True)
class _Reading:
    """How published weights are read: mean and std None where they differ among several."""

    mean: Sequence[float] | None
    std: Sequence[float] | None
    size: int


def _reading(name: str, entries: Sequence[Any]) -> _Reading:
    """What these published weights were evaluated with, as far as it is the same for all of them."""
    said = [entry.transforms() for entry in entries]
    normalisations = {
        (tuple(one.mean), tuple(one.std)) for one in said if hasattr(one, "mean") and hasattr(one, "std")
    }
    sizes = {int(one.crop_size[0]) for one in said if hasattr(one, "crop_size")}
    if len(normalisations) > 1:
        return _Reading(None, None, sizes.pop() if len(sizes) == 1 else 224)
    mean, std = normalisations.pop() if normalisations else (IMAGENET_MEAN, IMAGENET_STD)
    return _Reading(mean, std, sizes.pop() if len(sizes) == 1 else 224)


def _published(path: Path, published: Any) -> Any:
    """Which of torchvision's published weights a file is, by its name or by its sha256; None where it is none."""
    digest: str | None = None
    for entry in published:
        if Path(entry.url).name == path.name:
            return entry
        if (found := re.search(r"-([0-9a-f]{8,})\.", Path(entry.url).name)) is not None:
            if digest is None:
                with path.open("rb") as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
            if digest.startswith(found[1]):
                return entry
    return None


_RESCALES = ("googlenet", "inception_v3")  # which torchvision has with and without `transform_input`


def _with_arguments(
    name: str, builder: Callable[..., nn.Module], arguments: Mapping[str, Any] | None, *, warn: bool
) -> Callable[..., nn.Module]:
    """torchvision's function with further arguments; `warn` where its `transform_input` is a guess."""
    given = dict(arguments or {})
    if name in _RESCALES and "transform_input" not in given:
        given["transform_input"] = True  # as the published weights were trained
        if warn:
            log.warning(
                "%s is taken with transform_input=true, as its published weights are: where yours were trained "
                "without, give arguments={transform_input: false}",
                name,
            )

    return functools.partial(builder, **given) if given else builder


def _refuse_arguments(name: str, arguments: Mapping[str, Any] | None) -> None:
    if arguments:
        raise ValueError(f"arguments are for a function of your own or torchvision's: {name} takes none")


def _torchvision_body(
    name: str,
    family: Family,
    builder: Callable[..., nn.Module],
    num_classes: int | None,
    size: int,
    saved: Saved | None,
    source: Path,
    prefix: str | None,
) -> tuple[nn.Module, frozenset[str] | None]:
    """The model with a file's weights, or random ones, and as many classes as the file has; what the file lacks."""
    usual = {"classification": 1000, "segmentation": 21, "detection": 91}[family]
    arguments: dict[str, Any] = {"weights": None}
    if family != "classification":
        arguments["weights_backbone"] = None
    if name in _RESCALES:
        arguments.update(aux_logits=False, init_weights=saved is None)  # auxiliary heads are not looked into
    if name.startswith("vit_"):
        arguments["image_size"] = size
    body = builder(num_classes=num_classes or usual, **arguments)
    if saved is None:
        return body, None
    if name.startswith("densenet"):
        saved = {key: _new_densenet_names(state) for key, state in saved.items()}
    state = fit_names(saved, body, source, prefix)
    if family == "detection":
        backbone = {key.removeprefix("backbone."): state[key] for key in state if key.startswith("backbone.")}
        lacking = load_weights(backbone, body.get_submodule("backbone"), source, name)
        return body, frozenset(f"backbone.{key}" for key in lacking)
    if name in _RESCALES or family == "segmentation":
        state = {key: value for key, value in state.items() if not key.lower().startswith("aux")}
    if name.startswith("vit_"):
        state = _for_size(state, body, size)
    if num_classes is None and (classes := class_count(state, body, usual)) is not None:
        body = builder(num_classes=classes, **arguments)
    return body, load_weights(state, body, source, name)


def _new_densenet_names(state: StateDict) -> StateDict:
    """"denselayer1.norm.1.weight" of old files is "denselayer1.norm1.weight" today."""
    return OrderedDict((re.sub(r"\.(norm|conv)\.([12])\.", r".\1\2.", key), state[key]) for key in state)


def _for_size(state: StateDict, body: nn.Module, size: int) -> StateDict:
    """torchvision's vision transformer with its position embeddings interpolated to images of another size."""
    from torchvision.models.vision_transformer import interpolate_embeddings

    if "encoder.pos_embedding" not in state:
        return state  # what is missing is said when it is loaded
    return interpolate_embeddings(size, body.patch_size, OrderedDict(state))


def _downloaded(name: str, build: Callable[[], Built], url: str | None = None) -> Built:
    try:
        return build()
    except TypeError:
        raise
    except Exception as error:  # each hub has its own errors for no network, no such file, a broken file
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        place = None if url is None else Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name
        put = f"; in a sweep over networks put it at {place}" if place else ""
        raise ValueError(
            f"cannot download the weights of {name} ({reason}): give a file instead, network.weights=PATH{put}"
        ) from error


@contextmanager
def _importable_from(folder: Path) -> Iterator[None]:
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def _find_callable(target: str) -> Callable[..., Any]:
    """The function or class that "package.module.function" or "path/to/file.py:function" names."""
    place, colon, attribute = target.rpartition(":")
    if not colon and target.endswith(".py"):
        raise ValueError(f"{target!r} is a file: give {target}:FUNCTION, the function of it that builds the network")
    if not colon and "." in target:
        place, attribute = _module_and_attribute(target)
    if not place or not attribute:
        raise ValueError(f"{target!r} names no function: write package.module.function or path/to/file.py:function")
    found: Any = _module_of_file(Path(place).expanduser()) if place.endswith(".py") else _module_of_name(place, target)
    for name in attribute.split("."):
        if not hasattr(found, name):
            known = [one for one in dir(found) if callable(getattr(found, one, None)) and not one.startswith("_")]
            raise ValueError(f"{place} has no function {attribute!r}{_nearest(name, known)}")
        found = getattr(found, name)
    if not callable(found):
        raise ValueError(f"{target!r} must be a function or a class, not {called(found)}")
    return found


def _module_and_attribute(target: str) -> tuple[str, str]:
    """A dotted path where its module ends: the longest beginning that is one, before the last name."""
    parts = target.split(".")
    with _importable_from(Path.cwd()):
        for cut in range(len(parts) - 1, 1, -1):
            place = ".".join(parts[:cut])
            try:
                if importlib.util.find_spec(place) is not None:
                    return place, ".".join(parts[cut:])
            except ModuleNotFoundError as error:  # what is before it is no package
                if error.name is None or not place.startswith(error.name):
                    return place, ".".join(parts[cut:])  # something else is missing: who imports it says so
    if len(parts) == 2 or _is_module(parts[0]):
        return parts[0], ".".join(parts[1:])
    return ".".join(parts[:-1]), parts[-1]


def _is_module(name: str) -> bool:
    with _importable_from(Path.cwd()):
        return bool(name) and importlib.util.find_spec(name) is not None


def _module_of_name(place: str, target: str) -> ModuleType:
    with _importable_from(Path.cwd()):
        try:
            return importlib.import_module(place)
        except ModuleNotFoundError as error:
            raise ValueError(f"cannot import {place!r} of {target!r} from {Path.cwd()}: {error}") from None


def _module_of_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {str(path)!r} (looked in {Path.cwd()})")
    path = path.resolve()
    name = f"{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickling look a class's module up there
    with _importable_from(path.parent):
        spec.loader.exec_module(module)
    return module

"""A frozen network by name, file or dotted path, with its own normalisation."""

import difflib
import hashlib
import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from mindseye.networks.network import Network
from mindseye.networks.weights import (
    STATE_DICT_FILES,
    class_count,
    existing_file,
    fit_names,
    load_weights,
    read_state_dict,
    weights_file,
)

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# ---- the five ways to a network ---------------------------------------------------------------------------------


def torchvision_network(
    name: str,
    weights: str | Path | None = "DEFAULT",
    mean: Sequence[float] | None = IMAGENET_MEAN,
    std: Sequence[float] | None = IMAGENET_STD,
    size: int | None = 224,
    layers: Mapping[str, str] | None = None,
    num_classes: int | None = None,
) -> Network:
    """A torchvision classification model.

    weights: None (random), "DEFAULT" or another of its published weights (downloaded once), or a file with a state
    dict. mean, std, size: None takes what the published weights were evaluated with, ImageNet's and 224 otherwise.
    num_classes: None reads it from the file, 1000 otherwise.

    Raises ValueError, FileNotFoundError.
    """
    from torchvision import models

    builder = _torchvision_builder(name)
    published = models.get_model_weights(name)
    path = weights_file(weights)
    entry = None
    if weights is not None and path is None:
        if weights not in published.__members__:  # DEFAULT is among them
            raise ValueError(
                f"{name} has no weights {str(weights)!r}: give null, {', '.join(published.__members__)}, "
                f"or a file ({' '.join(STATE_DICT_FILES)})"
            )
        entry = published[str(weights)]
    evaluated = entry.transforms() if entry is not None else None
    mean = mean if mean is not None else getattr(evaluated, "mean", IMAGENET_MEAN)
    std = std if std is not None else getattr(evaluated, "std", IMAGENET_STD)
    size = size if size is not None else getattr(evaluated, "crop_size", [224])[0]
    if entry is not None:
        body = _downloaded(name, lambda: builder(weights=entry, progress=False))
        return Network(body, mean, std, name, size, layers, entry.meta["categories"])
    return Network(_torchvision_body(name, builder, num_classes, path), mean, std, name, size, layers)


def timm_network(
    name: str,
    weights: str | Path | None = "DEFAULT",
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    size: int | None = None,
    layers: Mapping[str, str] | None = None,
    num_classes: int | None = None,
) -> Network:
    """A timm model. weights: None (random), "DEFAULT" (downloaded once), or a file with a state dict.

    mean, std, size: None takes timm's own for this model; the length of a given mean is the number of channels.

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
    state = None if path is None else read_state_dict(path)

    def build(classes: int | None) -> nn.Module:
        arguments: dict[str, Any] = {} if classes is None else {"num_classes": classes}
        if mean is not None:
            arguments["in_chans"] = len(mean)
        pretrained = weights == "DEFAULT"
        return _downloaded(name, lambda: timm.create_model(name, pretrained=pretrained, **arguments))

    body = build(num_classes)
    if state is not None and path is not None:
        state = fit_names(state, body)
        if num_classes is None and (classes := class_count(state, body, body.num_classes)) is not None:
            body = build(classes)
        load_weights(state, body, path, name)
    data = resolve_model_data_config(body)
    size = size if size is not None else data["input_size"][-1]
    return Network(body, mean or data["mean"], std or data["std"], name, size, layers)


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
) -> Network:
    """Whatever nn.Module a function (or class) returns that takes [B,ch,H,W], ch being the length of mean and std.

    target: "package.module.function", importable also from the current directory, or "path/to/file.py:function";
    arguments: what it is called with; weights: a file with a state dict to load into what it returns.

    Raises ValueError, FileNotFoundError.
    """
    function = _find_callable(target)
    try:
        inspect.signature(function).bind(**(arguments or {}))
    except TypeError as error:
        raise ValueError(f"{target} cannot be called with arguments {dict(arguments or {})}: {error}") from None
    except ValueError:
        pass  # a builtin has no signature to check
    body = function(**(arguments or {}))
    if not isinstance(body, nn.Module):
        raise ValueError(f"{target} returned a {type(body).__name__}: it must return a torch.nn.Module")
    name = name or target.rpartition(":")[2].rpartition(".")[2]
    if weights is not None:
        path = existing_file(weights)
        load_weights(fit_names(read_state_dict(path), body), body, path, name)
    return Network(body, mean, std, name, size, layers)


def checkpoint_network(
    path: str | Path,
    target: str,
    arguments: Mapping[str, Any] | None = None,
    *,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    size: int = 224,
    layers: Mapping[str, str] | None = None,
    name: str | None = None,
) -> Network:
    """The weights of a training checkpoint (Lightning's .ckpt, a .pth) in an architecture.

    target: a torchvision name, or a dotted path as in `callable_network`, called with `arguments`. Whatever prefix
    the trainer gave the weights' names ("model.", "net.", "module.", "backbone.") is found and taken off.

    Raises ValueError, FileNotFoundError.
    """
    if "." in target or ":" in target:
        return callable_network(
            target, arguments, existing_file(path), mean=mean, std=std, size=size, layers=layers, name=name
        )
    if set(arguments or {}) - {"num_classes"}:
        raise ValueError(f"torchvision's {target} takes num_classes alone as argument, not {sorted(arguments or {})}")
    num_classes = (arguments or {}).get("num_classes")
    network = torchvision_network(target, existing_file(path), mean, std, size, layers, num_classes)
    network.name = name or target
    return network


def demo_network(
    weights: str | Path | None = "packaged",
    layers: Mapping[str, str] | None = None,
    size: int = 96,
    name: str = "demo",
) -> Network:
    """The small network that comes with the package, trained on its generated photographs; no download.

    weights: "packaged", or None (random).
    """
    from mindseye.demo import network as demo

    body = demo.demo_network(weights=weights)
    return Network(body, demo.MEAN, demo.STD, name, size, layers, demo.CLASSES)


def load_network(
    name: str | nn.Module = "resnet50",
    weights: str | Path | None = "DEFAULT",
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    size: int | None = None,
    layers: Mapping[str, str] | None = None,
    num_classes: int | None = None,
    arguments: Mapping[str, Any] | None = None,
) -> Network:
    """A network by what names it: a torchvision name, "demo", "timm/<name>", a dotted path, or an nn.Module itself.

    weights: None (random), "DEFAULT" (the network's own), or a file with a state dict. mean, std: a module or a
    dotted path has no default for them. arguments: what a dotted path is called with.

    Raises ValueError, FileNotFoundError.
    """
    if not isinstance(name, nn.Module) and name == "demo":
        own = "packaged" if weights == "DEFAULT" else weights
        return demo_network(own, layers, size if size is not None else 96)
    if isinstance(name, str) and name.startswith("timm/"):
        return timm_network(name.removeprefix("timm/"), weights, mean, std, size, layers, num_classes)
    if isinstance(name, str) and not ("." in name or ":" in name):
        return torchvision_network(name, weights, mean, std, size, layers, num_classes)
    if mean is None or std is None:
        raise ValueError("give mean and std, one number per channel: your own network's normalisation is not known")
    side = size if size is not None else 224
    own_file = None if weights in (None, "DEFAULT") else existing_file(weights)
    if isinstance(name, str):
        return callable_network(name, arguments, own_file, mean=mean, std=std, size=side, layers=layers)
    if own_file is not None:
        load_weights(fit_names(read_state_dict(own_file), name), name, own_file, type(name).__name__)
    return Network(name, mean, std, type(name).__name__.lower(), side, layers)


def _nearest(name: str, known: Sequence[str]) -> str:
    nearest = difflib.get_close_matches(name, known, n=4, cutoff=0.5)
    return f"; the nearest names are {', '.join(nearest)}" if nearest else ""


# ---- building ---------------------------------------------------------------------------------------------------


def _torchvision_builder(name: str) -> Callable[..., nn.Module]:
    from torchvision import models

    known = models.list_models(module=models)  # the classification models alone
    if name not in known:
        raise ValueError(f"torchvision has no classification model {name!r}{_nearest(name, known)}")
    return models.get_model_builder(name)


def _torchvision_body(
    name: str, builder: Callable[..., nn.Module], num_classes: int | None, path: Path | None
) -> nn.Module:
    """The model with the weights of a file, or random ones; as many classes as the file has."""
    arguments: dict[str, Any] = {"weights": None}
    if name in ("googlenet", "inception_v3"):
        # As with the published weights: these two rescale their input, and need no auxiliary heads to look inside.
        arguments.update(aux_logits=False, transform_input=True, init_weights=path is None)
    body = builder(num_classes=num_classes or 1000, **arguments)
    if path is None:
        return body
    state = read_state_dict(path)
    if name.startswith("densenet"):
        state = type(state)((re.sub(r"\.(norm|conv)\.([12])\.", r".\1\2.", key), state[key]) for key in state)
    state = fit_names(state, body)
    if name in ("googlenet", "inception_v3"):
        state = {key: value for key, value in state.items() if not key.lower().startswith("aux")}
    if num_classes is None and (classes := class_count(state, body, 1000)) is not None:
        body = builder(num_classes=classes, **arguments)
    load_weights(state, body, path, name)
    return body


def _downloaded(name: str, build: Callable[[], nn.Module]) -> nn.Module:
    try:
        return build()
    except Exception as error:  # each hub has its own errors for no network, no such file, a broken file
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"cannot download the weights of {name} ({reason}): give a file instead, network.weights=PATH"
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
    if not colon:
        place, _, attribute = target.rpartition(".")
    if not place or not attribute:
        raise ValueError(f"{target!r} names no function: write package.module.function or path/to/file.py:function")
    module = _module_of_file(Path(place).expanduser()) if place.endswith(".py") else _module_of_name(place, target)
    found = getattr(module, attribute, None)
    if not callable(found):
        known = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        raise ValueError(f"{place} has no function {attribute!r}{_nearest(attribute, known)}")
    return found


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

"""A frozen network by what names it, with its own normalisation."""

import logging
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mindseye.fields import Side
from mindseye.networks.chance import seeded
from mindseye.networks.modules import tensors
from mindseye.networks.network import Network
from mindseye.networks.sources.own import UNKNOWN_NORMALISATION, CallableSource, ModuleSource
from mindseye.networks.sources.source import SIZE, Published, Source
from mindseye.networks.sources.timm_models import TimmSource
from mindseye.networks.sources.torchvision_models import TorchvisionSource
from mindseye.networks.weight_files import STATE_DICT_FILES, existing_file
from mindseye.words import called

log = logging.getLogger(__name__)


def load_network(
    name: "str | nn.Module | torch.export.ExportedProgram" = "resnet50",
    weights: str | Path | Enum | None = "DEFAULT",
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    size: int | None = None,
    layers: Mapping[str, str] | None = None,
    prefix: str | None = None,
) -> Network:
    """A network by what names it, frozen and with its own normalisation.

    name: a torchvision name, "demo", "timm/<name>", a dotted path or a file's function (`my_net.py:build`); or an
    nn.Module itself, or a program of torch.export.

    It is frozen and in evaluation mode (a given module itself is: pass a copy to go on training it), and takes images
    [B,ch,H,W] in 0..1, ch being the length of mean and std. It computes in float32, as pictures are: of a module in
    another precision a copy is taken.

    weights: None (random, the same every time), "DEFAULT" (the network's own), another of torchvision's
    ("IMAGENET1K_V1", or as its own enumeration has it), or a file with a state dict. mean, std: on images in 0..1, one
    number a channel; a module or a dotted path has no default for them. size: the side in pixels that photographs are
    best read at. layers: the names of its depths, {"early": ..., "middle": ..., "late": ...}. prefix: which of several
    weights in the file, by the keys and the beginning of the names that lead to them, joined by dots
    ("state_dict_ema", "teacher.backbone").

    What is built with arguments of its own, or with another number of classes, has a source that says so:
    `mindseye.networks.TorchvisionSource("inception_v3", "own.pth", arguments={"transform_input": False}).load()`.

    >>> load_network("demo").resolve(depth="early")
    'layer2.0'
    >>> own = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))
    >>> load_network(own, mean=[0.5], std=[0.25], size=32).channels
    1

    Raises ValueError, FileNotFoundError.
    """
    _refuse_no_name(name)
    with seeded(0):
        if name == "demo":
            asked = {"mean": mean, "std": std, "prefix": prefix}
            if given := [key for key, value in asked.items() if value is not None]:
                raise ValueError(f"the demo's network has its own normalisation and weights: it takes no {given[0]}")
            return demo_network(weights, layers, 96 if size is None else size)
        reads = {"mean": mean, "std": std, "size": size, "layers": layers, "prefix": prefix}
        source = _source(name, weights, reads)
        network = source.load()
    if isinstance(source, CallableSource | ModuleSource):
        warn_of_no_training(network)
    return network


def _source(
    name: "str | nn.Module | torch.export.ExportedProgram", weights: Any, reads: Mapping[str, Any]
) -> Source:
    """What loads a network that is named so; `reads`: what every source has."""
    if isinstance(name, str) and name.startswith("timm/"):
        return TimmSource(name.removeprefix("timm/"), weights, **reads)
    if isinstance(name, str) and "." not in name and ":" not in name:
        return TorchvisionSource(name, weights, **reads)
    if reads["mean"] is None or reads["std"] is None:
        raise ValueError(UNKNOWN_NORMALISATION)
    own = {**reads, "size": SIZE if reads["size"] is None else reads["size"]}
    file = None if weights == "DEFAULT" else weights
    return CallableSource(name, None, file, **own) if isinstance(name, str) else ModuleSource(name, file, **own)


def demo_network(
    weights: Published | Enum = "packaged",
    layers: Mapping[str, str] | None = None,
    size: Side = 96,
    name: str = "demo",
) -> Network:
    """The small network that comes with the package, trained on its generated photographs; no download.

    weights: "packaged" (or "DEFAULT"), a file, or None (random). layers: what its depths early, middle and late are
    called.
    """
    from mindseye.demo import network as demo

    own = "packaged" if weights == "DEFAULT" else weights
    body = demo.demo_network(weights=own if own in ("packaged", None) else existing_file(own))  # type: ignore[arg-type]
    return Network(body, demo.MEAN, demo.STD, name, size, layers, demo.CLASSES)


def warn_of_no_training(network: Network, setting: str = "weights") -> None:
    """Ask for the weights, by `setting`, where no file was loaded and every BatchNorm is as it was made.

    That is with mean 0 and variance 1. A picture of them looks no worse to the measures of the network itself. Counters
    of batches say nothing: converted files have them as 0.
    """
    if network.unloaded is not None:
        return
    starts = {"running_mean": 0, "running_var": 1}
    named = [(starts.get(name.rpartition(".")[2]), tensor) for name, tensor in tensors(network.body)]
    statistics = [(start, tensor) for start, tensor in named if start is not None]
    if statistics and all(torch.equal(buffer, torch.full_like(buffer, start)) for start, buffer in statistics):
        log.warning(
            "%s has seen no training: its BatchNorm is as it was made. Where are its weights? %s=FILE",
            network.name,
            setting,
        )


def _refuse_no_name(name: object) -> None:
    """Raises ValueError where what names a network names none, a file of weights say, with what to give instead."""
    if isinstance(name, Source):
        raise ValueError(f"{called(name)} needs no load_network: its own load() gives the network")
    if isinstance(name, Network):
        raise ValueError("this is what load_network gives already: take it as it is")
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

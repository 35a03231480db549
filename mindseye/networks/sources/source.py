"""What every source of a network has: how the network reads images, and which weights of a file are its own."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, TypeVar

import torch
from pydantic import Field
from torch import nn

from mindseye.fields import Side, Words
from mindseye.networks.network import Network, check_normalisation
from mindseye.words import first_line, nearest

Built = TypeVar("Built")
Mean = Annotated[Sequence[float], Words("a list of one number per channel ([0.5] for one)")]
Std = Annotated[Sequence[Annotated[float, Field(gt=0)]], Words("a list of one number above 0 per channel")]
Published = Annotated[str | Path | None, Words("the name of published weights, a file or null (random ones)")]
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
SIZE = 224  # pixels, where nothing says otherwise


@dataclass(frozen=True)
class Preprocessing:
    """How a network reads images: on values in 0..1, a number a channel; None where it is not known."""

    mean: Sequence[float] | None
    std: Sequence[float] | None
    size: int


@dataclass(frozen=True)
class Loaded:
    """A module with its weights."""

    body: nn.Module
    unloaded: frozenset[str] | None = None  # names of weights that its file lacks; None: there was no file
    classes: Sequence[str] | None = None  # names of its outputs, where they are known


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a network comes from; None leaves what is its own.

    mean, std: on images in 0..1, one number a channel. size: the side in pixels that photographs are best read at.
    layers: what its depths are called, {early: …, middle: …, late: …}. prefix: which of several weights in the file, by
    the keys and the beginning of the names that lead to them, joined by dots ("state_dict_ema", "teacher.backbone");
    None: those that fit.
    """

    mean: Mean | None = None
    std: Std | None = None
    size: Side | None = None
    layers: Mapping[str, str] | None = None
    prefix: str | None = None

    def __post_init__(self) -> None:
        """Raises ValueError for mean and std that do not go together."""
        if self.mean is not None and self.std is not None:
            check_normalisation(self.mean, self.std)

    def load(self) -> Network:
        """The network, frozen and in evaluation mode. Raises ValueError, FileNotFoundError."""
        raise NotImplementedError

    @property
    def shared(self) -> dict[str, Any]:
        """What every source has, by name."""
        return {entry.name: getattr(self, entry.name) for entry in fields(Source)}

    def preprocessing(self, own: Preprocessing) -> Preprocessing:
        """How images are read: as this source says, and for the rest as it is the network's own."""
        given: dict[str, Any] = {"mean": self.mean, "std": self.std, "size": self.size}
        return replace(own, **{name: value for name, value in given.items() if value is not None})

    def network(self, name: str, loaded: Loaded, reading: Preprocessing) -> Network:
        """What is loaded under its name; of a normalisation that nothing says, ImageNet's."""
        mean = IMAGENET_MEAN if reading.mean is None else reading.mean
        std = IMAGENET_STD if reading.std is None else reading.std
        network = Network(loaded.body, mean, std, name, reading.size, self.layers, loaded.classes)
        network.unloaded = loaded.unloaded
        return network


def nearest_names(name: str, known: Sequence[str]) -> str:
    """The end of a message about an unknown name."""
    near = nearest(name, known)
    return f"; the nearest names are {', '.join(near)}" if near else ""


def downloaded(name: str, build: Callable[[], Built], url: str | None = None) -> Built:
    """What `build` gives, which may download weights. Raises ValueError where it cannot, with where to put a file.

    A TypeError is the caller's: of an argument that is none.
    """
    try:
        return build()
    except TypeError:
        raise
    except Exception as error:  # each hub has its own errors for no network, no such file, a broken file
        place = None if url is None else Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name
        put = f"; in a sweep over networks put it at {place}" if place else ""
        raise ValueError(
            f"cannot download the weights of {name} ({first_line(error)}): give a file instead, weights=PATH{put}"
        ) from error


def loaded(source: Source) -> Network:
    """What a source loads: for configurations, which can call a function and no method."""
    return source.load()

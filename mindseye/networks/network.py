"""The value every other room works with: a frozen network with its own normalisation."""

import math
import numbers
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin

from mindseye.networks.chance import seeded
from mindseye.networks.layers import resolve_layer
from mindseye.networks.layouts import Observation, observe
from mindseye.networks.maps import Layout, prefix_tokens
from mindseye.networks.modules import (
    apply_to_tensors,
    as_it_was,
    evaluate,
    every_module,
    every_name,
    freeze,
    memory,
    saved_tensors,
    tensors,
)
from mindseye.tensors import tensors_sha256
from mindseye.words import called, with_class

# The layers of the depths early, middle and late; conf/network has the same, and a test compares them.
# Where the paper shows a layer of the network, it is among them.
KNOWN_LAYERS = {
    "resnet18": {"early": "layer2.0", "middle": "layer3.1.conv1", "late": "layer4.1"},
    "resnet50": {"early": "layer2.0", "middle": "layer3.5.conv1", "late": "layer4.2"},
    "resnet152": {"early": "layer2.0", "middle": "layer3.18.conv3", "late": "layer4.2"},
    "wide_resnet101_2": {"early": "layer2.0", "middle": "layer3.12.conv3", "late": "layer4.2"},
    "resnext101_32x8d": {"early": "layer2.0", "middle": "layer3.12.conv3", "late": "layer4.2"},
    "mobilenet_v2": {"early": "features.6", "middle": "features.10", "late": "features.18"},
    "squeezenet1_1": {"early": "features.4", "middle": "features.7", "late": "features.12"},
    "demo": {"early": "layer2.0", "middle": "layer3.0", "late": "layer4.0"},
}


NEARLY_CONSTANT = 0.1  # (1 - 0)/std below which a network cannot tell black from white: it was trained at about 3 to 5
FARTHEST_MEAN = 3.5  # from the middle of the range 0..1


_OF_WHAT_IS_GIVEN = re.compile(r"Tensor|unpack")


class Network(nn.Module):
    """A frozen network in evaluation mode with its own normalisation.

    The module itself is frozen: to go on training it, give a copy (copy.deepcopy).

    forward: images [B,ch,H,W] in 0..1 -> body((images - mean) / std).

    Attributes: `name`; `body`, whose module paths are the layer names; `mean` and `std` [ch,1,1]; `channels` ch;
    `size`, the side in pixels its photographs are best read at; `layers`, the layer names of the depths early,
    middle, late; `classes`, the names of its outputs where they are known; `unloaded`, the names of weights that its
    file lacks (None: there was no file); `prefix_tokens`, how many tokens of a transformer stand before the image's
    (None: it does not say); `told`, the layers of which `prepare` has said what it depends on.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        body: nn.Module,
        mean: Sequence[float],
        std: Sequence[float],
        name: str,
        size: int = 224,
        layers: Mapping[str, str] | None = None,
        classes: Sequence[str] | None = None,
    ) -> None:
        """Raises ValueError where mean, std and the first convolution disagree, or a depth names an unknown layer."""
        super().__init__()
        check_normalisation(mean, std)
        self.name = name
        self.channels, self.size = len(mean), check_side(size)
        self.body = body
        evaluate(body)
        self.training = False
        freeze(body)
        device = next((tensor.device for _, tensor in tensors(body) if isinstance(tensor, nn.Parameter)), None)
        self.register_buffer("mean", torch.tensor([float(value) for value in mean], device=device)[:, None, None])
        self.register_buffer("std", torch.tensor([float(value) for value in std], device=device)[:, None, None])
        self.prefix_tokens = prefix_tokens(body)
        self._observed: dict[int, Observation] = {}
        self.told: set[str] = set()
        self._hashed: tuple[tuple[Any, ...], str] | None = None
        given = KNOWN_LAYERS.get(name, {}) if layers is None else layers
        self.layers = {depth: layer for depth, layer in given.items() if layer is not None}
        self.classes = None if classes is None else tuple(classes)
        self.unloaded: frozenset[str] | None = None
        for layer in self.layers.values():
            resolve_layer(body, layer)
        _check_channels(self)

    def forward(self, images: Tensor) -> Any:
        """What the body gives for images [B,ch,H,W] in 0..1.

        Raises ValueError for another number of channels, and where the body takes something else than images.
        """
        if images.ndim != 4 or images.shape[1] != self.channels:
            raise ValueError(
                f"{self.name} takes images [B,{self.channels},H,W]; these are {list(images.shape)}"
                f" (the length of its mean and std, {self.channels}, is its number of channels)"
            )
        try:
            return self.body((images - self.mean) / self.std)
        except (RuntimeError, MemoryError):  # of the size, or of memory: who runs it says what is wrong
            raise
        except Exception as error:  # the owner's own code
            said = f"the forward of {self.name} fails for images {list(images.shape)} ({with_class(error, place=True)})"
            if isinstance(error, AssertionError):  # of the size, mostly
                raise RuntimeError(said) from error
            if isinstance(error, TypeError | IndexError) or _OF_WHAT_IS_GIVEN.search(str(error)):
                said += (
                    ": it must take them alone, as one tensor [B,ch,H,W]; wrap one that takes something else in a "
                    "module that does"
                )
            raise ValueError(said) from error

    def train(self, mode: bool = True) -> "Network":
        """Stays in evaluation mode: a trainer calls train() on all it holds, and batch statistics must not move.

        The body's own train() is not called: see `evaluate`.
        """
        evaluate(self)
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Network":
        """What moves a module to a device, through no method of the body's that is meant for something else."""
        if recurse:
            apply_to_tensors(self.body, fn)
        return super()._apply(fn, recurse=False)

    def named_modules(
        self, memo: set[nn.Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Module]]:
        """As of any module, for a trainer that walks it, through none of the body's own methods."""
        seen = set() if memo is None else memo
        for path, part in every_name(self):
            if not (remove_duplicate and part in seen):
                seen.add(part)
                yield ".".join(filter(None, (prefix, path))), part

    def __repr__(self) -> str:
        """One line for a prompt; `network.body` prints its modules."""
        parts = (part._parameters.values() for _, part in every_module(self.body))
        weights = sum(weight.numel() for weight in {weight for own in parts for weight in own} if weight is not None)
        named = ", ".join(f"{depth} {layer}" for depth, layer in self.layers.items())
        size = f"{self.channels} channels, {self.size} pixels, {weights:,} weights"
        return f"<Network {self.name}: {size}{named and ' · '}{named}>"

    def resolve(self, layer: str | None = None, depth: str | None = None) -> str:
        """The exact name of `layer` (in any spelling), or else of the layer at `depth`: early, middle or late.

        A given `layer` wins over `depth`. Raises ValueError, naming what there is, where neither is known.
        """
        if layer is None:
            if depth is None:
                raise ValueError("give a layer, or a depth: " + (", ".join(self.layers) or "the network names none"))
            if depth not in self.layers:
                known = f"it has {', '.join(self.layers)}" if self.layers else "it has none"
                raise ValueError(
                    f"{self.name} names no layer for depth {depth!r} ({known}): give layer=... (`mindseye layers` "
                    "lists them), or the network's layers by its depths, {early: ..., middle: ..., late: ...}"
                )
            layer = self.layers[depth]
        if isinstance(layer, str) and layer in self.layers and layer not in dict(every_module(self.body)):
            raise ValueError(
                f"there is no layer {layer!r}: it is a depth of {self.name}, and layer={self.layers[layer]} is its "
                f"layer (depth={layer}; in Python network.layers[{layer!r}])"
            )
        path, call = resolve_layer(self.body, layer)
        return path if call is None else f"{path}@{call}"

    def layout(self, layer: str, side: int | None = None) -> Layout | None:
        """What the dimensions of a layer's output mean, for images of `side` pixels (None: the network's own size).

        None where it cannot be told. The first question takes some passes, which are remembered.
        """
        pixels = side if side is not None else self.size
        if pixels not in self._observed:
            self._observed[pixels] = observe(self, pixels)
        return self._observed[pixels].layout(*resolve_layer(self.body, layer))

    def fingerprint(self) -> str:
        """sha256 (hex) over the name and each weight's name, dtype, shape and bytes: one network, one fingerprint.

        It is remembered, and taken anew where a weight is not as it was: see `checksum`.
        """
        state = saved_tensors(self)
        known = (self.name, tuple((key, value.dtype, value.shape, checksum(value)) for key, value in state.items()))
        if self._hashed is not None and self._hashed[0] == known:
            return self._hashed[1]
        self._hashed = known, tensors_sha256(state, f"{self.name}\0")
        return self._hashed[1]


def checksum(weight: Tensor) -> tuple[int, int, int]:
    """Where a weight lies, how often it was written into, and the sum of its bits as whole numbers, which also changes
    where somebody writes past torch's count (`.data`): 10 times as fast as a hash."""
    if weight.is_meta:
        return 0, weight._version, 0
    flat = weight.detach().contiguous().reshape(-1).view(torch.uint8)
    words = flat.view(torch.int32) if flat.numel() % 4 == 0 and flat.storage_offset() % 4 == 0 else flat
    return memory(weight), weight._version, int(words.sum(dtype=torch.int64))


def materialise(body: nn.Module, channels: int, size: int, title: str) -> None:
    """Lazy modules get their shapes from one image of zeros, and become the ordinary ones that they stand for.

    Raises ValueError where the forward fails.
    """
    evaluate(body)
    lazy = [part for _, part in every_module(body) if isinstance(part, LazyModuleMixin)]
    if not lazy:
        return
    device = next((tensor.device for _, tensor in tensors(body)), None)
    try:
        with torch.no_grad():
            body(torch.zeros(1, channels, size, size, device=device))
    except Exception as error:  # the owner's own code
        raise ValueError(
            f"{title} has lazy modules ({type(lazy[0]).__name__}), which would have their shapes from one image "
            f"{[1, channels, size, size]}, but its forward fails ({with_class(error, place=True)}): run it "
            "once before you give it"
        ) from error


def check_network(network: object) -> None:
    """Raises ValueError for what is no `Network`, prepared or not, with what makes one of it."""
    if hasattr(network, "resolve") and hasattr(network, "fingerprint"):
        return
    if isinstance(network, nn.Module):
        kind = type(network).__name__
        raise ValueError(f"the network is a bare {kind}: load_network(module, mean=…, std=…, size=…) makes one of it")
    if callable(getattr(network, "load", None)):
        raise ValueError(f"the network is {called(network)}, which names one: its load() gives the network")
    raise ValueError(f"the network must be what load_network gives, not {called(network)}")


def check_side(size: object) -> int:
    """The side of square images in pixels. Raises ValueError for what is no whole number of at least 1."""
    if not isinstance(size, numbers.Integral) or int(size) < 1:
        raise ValueError(f"size must be a whole number of 1 or more, the side of square images in pixels, not {size}")
    return int(size)


def check_normalisation(mean: Sequence[float], std: Sequence[float]) -> None:
    """Raises ValueError for what is not one number a channel each, of images in 0..1, with what to give."""
    if not (hasattr(mean, "__len__") and hasattr(std, "__len__")):
        raise ValueError(
            f"mean and std must be lists of one number per channel, [0.5] for one channel, not {mean} and {std}"
        )
    if len(mean) != len(std) or len(mean) == 0:
        raise ValueError(f"mean has {len(mean)} numbers and std {len(std)}: give one of each per channel")
    try:
        means, stds = [float(value) for value in mean], [float(value) for value in std]
    except (TypeError, ValueError):
        raise ValueError(
            f"mean and std must be lists of one number per channel, [0.485, 0.456, 0.406], not {mean} and {std}"
        ) from None
    if not all(value > 0 for value in stds):
        raise ValueError(f"std {stds} must be above 0 in every channel")
    if not all(map(math.isfinite, means + stds)):
        raise ValueError(f"mean {means} and std {stds} must be finite")
    # Black and white lie 1/std apart for the network. Of a window (`images.black`, `images.white`) the mean may be
    # outside, but not by several times its width.
    constant = max(1 / value for value in stds) < NEARLY_CONSTANT
    if constant or any(abs(value - 0.5) > FARTHEST_MEAN for value in means):
        white = 255 if max(*means, *stds) <= 1.2 * 255 else None
        by_white = [f"[{', '.join(f'{value / white:.4g}' for value in values)}]" for values in (means, stds) if white]
        right = (
            f"divided by 255 they are mean={by_white[0]} std={by_white[1]}"
            if white
            else "of values from black to white they are (mean - black) / (white - black) and std / (white - black)"
        )
        raise ValueError(
            f"mean={_short(means)} and std={_short(stds)} are not of images in 0..1, which is what the network is "
            f"given: {right}"
        )


def _short(values: Sequence[float]) -> str:
    return f"[{', '.join(f'{value:g}' for value in values)}]"


def _check_channels(network: Network) -> None:
    """Raises ValueError where the first convolution that is called takes another number of channels."""
    convolutions = [(path, part) for path, part in every_module(network.body) if isinstance(part, nn.Conv2d)]
    if not convolutions or convolutions[0][1].in_channels == network.channels:
        return
    # The first one registered need not be the first one called: ask a small pass.
    called: list[str] = []
    handles = [
        nn.Module.register_forward_pre_hook(part, lambda module, arguments, path=path: called.append(path))
        for path, part in convolutions
    ]
    weight = convolutions[0][1].weight
    images = weight.new_zeros(1, network.channels, network.size, network.size)
    try:
        with torch.no_grad(), seeded(0), as_it_was(network.body):
            network.body(images)
    except Exception:
        pass  # refused by the first convolution, as expected, or by something else that is not ours to judge
    finally:
        for handle in handles:
            handle.remove()
    first = dict(convolutions).get(called[0]) if called else None
    if first is not None and first.in_channels != network.channels:
        raise ValueError(
            f"{network.name}: the length of mean and std is {network.channels}, but the first convolution "
            f"({called[0]}) takes {first.in_channels} channels: give as many numbers for each"
        )

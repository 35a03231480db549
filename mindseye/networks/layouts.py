"""Which dimension of a layer's output is the batch's, which are the map and which the channels: found by passes.

No length says what a dimension means: 64 channels on a map of 64×32 look like a map of 64×64. So the network sees small
batches of other numbers and images of other heights and widths. The dimension that follows the number is the batch's;
those that follow the height and the width are the map, one that follows both are its tokens, and the one that follows
nothing is the channels'. Where a network takes images of one size, or brings them to one itself, the map is followed
through its operations (`FieldTracker`), and beyond those tokens are known by the size of a map that was seen before.
Tokens that do not stand row by row are put in order (`Places`), those that are no grid, and what none of this tells,
have no layout.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from mindseye.networks.chance import seeded
from mindseye.networks.maps import POOLED, Layout
from mindseye.networks.modules import as_it_was, every_module, replaced, tensors
from mindseye.networks.places import Places, order_on_a_grid, sequences
from mindseye.networks.receptive_field import FieldTracker, Spans

FEW, MORE = 2, 3  # images in a batch


class Observed(Protocol):
    """What `observe` needs of a network: see `mindseye.networks.network.Network`."""

    body: nn.Module
    channels: int
    prefix_tokens: int | None


@dataclass
class Seen:
    """What one call of a module gave; `shape` is empty where it is no tensor of real numbers."""

    shape: tuple[int, ...] = ()
    spans: Spans = field(default_factory=dict)
    joins: int = 0  # how many sequences were put together before
    grid: int = 0  # how many positions the last map had that could be followed
    places: dict[int, Tensor] = field(default_factory=dict)  # in the image, along a dimension that may be of tokens


@dataclass
class Passed:
    """What the modules gave in one pass, by path, call by call, and the error that ended it early."""

    calls: dict[str, list[Seen]] = field(default_factory=dict)
    grids: list[tuple[int, int]] = field(default_factory=list)  # of the maps that could be followed, in order
    joins: list[tuple[int, ...]] = field(default_factory=list)  # lengths of sequences that were put together, in order
    error: Exception | None = None

    def shape(self, path: str, call: int) -> tuple[int, ...]:
        """Empty where the pass did not come so far."""
        calls = self.calls.get(path, [])
        return calls[call].shape if call < len(calls) else ()


@dataclass
class Observation:
    """A network as it answers images of one size, and of others."""

    base: Passed
    more: Passed  # images
    taller: Passed  # images, and so on; empty where the network takes none
    wider: Passed
    larger: Passed  # both
    growth: float  # of their sides
    batch: int
    prefix: int | None  # tokens before the image's, as the network says it

    def layout(self, path: str, call: int | None = None) -> Layout | None:
        """Of a module's output at its call, or its last; None where it cannot be told."""
        calls = self.base.calls.get(path, [])
        call = len(calls) - 1 if call is None else call
        if not 0 <= call < len(calls) or not calls[call].shape:
            return None
        shape, spans = calls[call].shape, calls[call].spans
        more = self.more.shape(path, call)
        if len(shape) < 2 or shape[0] != self.batch or (more and more != (MORE, *shape[1:])):
            return None
        if len(shape) == 2:
            return None if any(self._following(path, call, shape)) else POOLED
        rows, columns = self._following(path, call, shape)
        tall, wide, both = sorted(rows - columns), sorted(columns - rows), sorted(rows & columns)
        map_dims: list[int] = []
        if both and not tall and not wide and len(both) == 1 and len(shape) == 3:
            return self._sequence(path, call, both[0])
        if len(tall) == 1 and len(wide) == 1 and not both:
            map_dims = [tall[0], wide[0]]
        elif len(spans) == 2 and not both and set(tall + wide) <= set(spans):  # one side, or both, of a fixed length
            map_dims = sorted(spans)
            if tall == [map_dims[1]] or wide == [map_dims[0]]:
                map_dims.reverse()
        elif not rows | columns:
            return self._fixed(path, call)
        if len(map_dims) == 2 and len(shape) == 4:
            return _of_map(*map_dims)
        return None

    def _following(self, path: str, call: int, shape: tuple[int, ...]) -> tuple[set[int], set[int]]:
        """The dimensions that follow the height, and those that follow the width."""
        tall, wide = self.taller.shape(path, call), self.wider.shape(path, call)
        if len(tall) == len(wide) == len(shape):
            dims = range(1, len(shape))
            return {dim for dim in dims if tall[dim] != shape[dim]}, {dim for dim in dims if wide[dim] != shape[dim]}
        large = self.larger.shape(path, call)
        if len(large) != len(shape):
            return set(), set()
        changed = [dim for dim in range(1, len(shape)) if large[dim] != shape[dim]]
        # A side grows as the image's does, a number of tokens as its square.
        steep = {dim for dim in changed if math.log(large[dim] / shape[dim]) > 1.5 * math.log(self.growth)}
        sides = [dim for dim in changed if dim not in steep]
        if len(sides) != 2:
            return steep | set(sides), steep | set(sides)
        return steep | {sides[0]}, steep | {sides[1]}

    def _sequence(self, path: str, call: int, tokens: int) -> Layout | None:
        """Tokens whose number follows the image's size: by how much tells how many are the image's."""
        seen = self.base.calls[path][call]
        length = seen.shape[tokens]
        tall, large = self.taller.shape(path, call), self.larger.shape(path, call)
        if tall and large:
            # g² of them become g·h and h²: twice the first difference off the second leaves (h − g)².
            one_side, both_sides = tall[tokens] - length, large[tokens] - length
            step = math.isqrt(max(both_sides - 2 * one_side, 0))
            return self._with_tokens(seen, tokens, (one_side // step) ** 2) if step else None
        if not large:
            return None
        sides = []
        for side in range(1, math.isqrt(length) + 1):
            grown = side**2 + large[tokens] - length
            if grown >= 0 and _is_square(grown):
                sides.append((abs(math.isqrt(grown) - self.growth * side), side))
        return self._with_tokens(seen, tokens, min(sides)[1] ** 2) if sides else None

    def _with_tokens(self, seen: Seen, tokens: int, patches: int) -> Layout | None:
        """Where the image's are among them: where they were put together with others, else as the network says.

        None where they come from a grid that is no square, though their number may be one.
        """
        if patches in self._positions() and (math.isqrt(patches),) * 2 not in self.base.grids:
            return None
        length, channels = seen.shape[tokens], 3 - tokens
        before = _before(self.base.joins[: seen.joins], patches).get(length)
        if before is None and self.prefix is not None and length - patches == self.prefix:
            before = self.prefix
        if before is None or before + patches > length:
            return None
        places = seen.places.get(tokens)
        order = () if places is None else order_on_a_grid(places[before : before + patches])
        if order is None:
            return None
        return Layout(3, channels, tokens=tokens, before=before, behind=length - patches - before, order=order)

    def _positions(self) -> set[int]:
        """How many positions the maps have that could be followed."""
        return {rows * columns for rows, columns in self.base.grids}

    def _fixed(self, path: str, call: int) -> Layout | None:
        """Where nothing follows the images: by the maps that were seen before."""
        seen = self.base.calls[path][call]
        shape = seen.shape
        one_size = not self.taller.shape(path, call) and not self.larger.shape(path, call)
        if len(shape) == 3:
            joins = self.base.joins[: seen.joins]
            positions = self._positions()
            ends = {length: grid for grid in positions for length in _before(joins, grid)}
            ends |= {grid + (self.prefix or 0): grid for grid in positions}
            dims = [dim for dim in (1, 2) if shape[dim] in ends]
            if len(dims) == 2 and self.prefix:  # as many channels as patches: with its class token it is the tokens
                dims = [dim for dim in dims if shape[dim] - self.prefix in positions]
            if len(dims) == 1:
                return self._with_tokens(seen, dims[0], ends[shape[dims[0]]])
            prefix = self.prefix or 0
            dims = [dim for dim in (1, 2) if 1 < shape[dim] - prefix <= seen.grid and _is_square(shape[dim] - prefix)]
            if one_size and len(dims) == 1 and not any(dim in ends for dim in shape[1:]):
                places = seen.places.get(dims[0])
                order = () if places is None else order_on_a_grid(places[prefix:])
                return None if order is None else Layout(3, 3 - dims[0], tokens=dims[0], before=prefix, order=order)
        if len(shape) == 4:
            if shape[2:] == (1, 1):
                return _of_map(2, 3)
            if shape[1:3] == (1, 1):
                return _of_map(1, 2)
            lengths = {call.shape[1] for calls in self.base.calls.values() for call in calls if len(call.shape) == 3}
            pairs = [
                pair
                for pair in ((1, 2), (2, 3))
                if shape[pair[0]] == shape[pair[1]]
                and (shape[pair[0]] ** 2 in self._positions() or (one_size and shape[pair[0]] ** 2 <= seen.grid))
                and shape[pair[0]] not in lengths  # attention, of each token to each
            ]
            if len(pairs) == 1:
                return _of_map(*pairs[0])
        return None


def _of_map(rows: int, columns: int) -> Layout:
    return Layout(4, 6 - rows - columns, rows=rows, columns=columns)


def _is_square(number: int) -> bool:
    return math.isqrt(number) ** 2 == number


def _before(joins: Sequence[tuple[int, ...]], patches: int) -> dict[int, int]:
    """By the length of a sequence that the image's tokens are in, how many others stand before them."""
    before = {patches: 0}
    for lengths in joins:
        places = [place for place, length in enumerate(lengths) if length in before]
        if len(places) == 1:
            ahead = sum(lengths[: places[0]]) + before[lengths[places[0]]]
            before.setdefault(sum(lengths), ahead)
    return before


def observe(network: Observed, size: int) -> Observation:
    """Passes of images of `size` pixels and of others, computed on no device where that is possible."""
    device: str | None = "meta"
    batch, base = FEW, _pass(network, FEW, size, size, device, track=True)
    for other, where, track in ((FEW, None, True), (1, None, True), (FEW, None, False)):
        if base.error is None:
            break
        if len((again := _pass(network, other, size, size, where, track=track)).calls) > len(base.calls):
            batch, device, base = other, where, again
    more = _pass(network, MORE, size, size, device) if batch != 1 else Passed()
    best, reached, growth = (Passed(), Passed(), Passed()), 0, 1.0
    # On a device twice the side would cost four times the time and memory.
    for side in (2 * size, size + size // 2, size // 2) if device == "meta" else (size // 2, 2 * size):
        if side in (0, size):
            continue
        sides = ((side, size), (size, side), (side, side))
        taller, wider, larger = (_pass(network, batch, *both, device) for both in sides)
        reach = max(min(len(taller.calls), len(wider.calls)), len(larger.calls))
        if reach > reached:
            best, reached, growth = (taller, wider, larger), reach, side / size
        if all(passed.error is None for passed in best):
            break
    return Observation(base, more, *best, growth, batch, network.prefix_tokens)


def _pass(
    network: Observed, batch: int, height: int, width: int, device: str | None, *, track: bool = False
) -> Passed:
    """One pass of images of zeros on `device` (None: where the network lies), to its end or its error.

    track: follow the map through every operation, which takes some time.
    """
    given = [tensor for _, tensor in tensors(network.body) if tensor.is_floating_point()]
    like = next((tensor for tensor in given), torch.zeros(()))
    place = like.device if device is None else torch.device(device)
    passed = Passed()
    with torch.inference_mode() if track or device is not None else torch.no_grad():
        images = torch.zeros(batch, network.channels, height, width, dtype=like.dtype, device=place)
        tracker = _Joining(images, passed) if track else None
        constants = dict(tensors(network.body))
        try:
            with (
                seeded(0),
                replaced(network.body, lambda tensor: tensor if device is None else tensor.to(place)),
                as_it_was(network.body),  # copies nothing on a device where there is nothing to copy
                _listening(network.body, passed, tracker),
            ):
                if tracker is None:
                    network.body(images)
                else:
                    for name, stands_in in tensors(network.body):
                        tracker.places.know(stands_in, constants[name])
                    with tracker:
                        network.body(images)
        except Exception as error:  # a network that takes no such images, or looks at values
            passed.error = error
    return passed


class _Joining(FieldTracker):
    """Follows maps, where their numbers go, and what sequences are put together of."""

    def __init__(self, images: Tensor, passed: Passed) -> None:
        super().__init__(images)
        self._passed, self._images = passed, images
        self.places = Places()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        output = super().__torch_dispatch__(func, types, args, kwargs)
        self.places.follow(func, args, dict(kwargs or {}), output, self.depends_on_the_images)
        if isinstance(output, Tensor):
            if func.__name__.partition(".")[0] == "cat" and output.ndim == 3:
                dim = args[1] if len(args) > 1 else dict(kwargs or {}).get("dim", 0)
                self._passed.joins.append(tuple(part.shape[dim] for part in args[0]))
            spans = self.spans(output)
            if len(spans) == 2 and min(output.shape[dim] for dim in spans) < self._images.shape[-1]:
                rows, columns = sorted(spans)
                self._passed.grids.append((output.shape[rows], output.shape[columns]))
                if self.places.of(output) is None:
                    self.places.begin(output, rows, columns)
        return output


@contextmanager
def _listening(body: nn.Module, passed: Passed, tracker: _Joining | None) -> Iterator[None]:
    handles = []
    try:
        for path, module in every_module(body):

            def listen(module: nn.Module, arguments: tuple[Any, ...], output: Any, path: str = path) -> None:
                seen = Seen(joins=len(passed.joins), grid=math.prod(passed.grids[-1]) if passed.grids else 0)
                if isinstance(output, Tensor) and not output.is_complex():
                    seen.shape = tuple(output.shape)
                    seen.spans = {} if tracker is None else tracker.spans(output)
                    seen.places = {} if tracker is None else sequences(tracker.places.of(output))
                passed.calls.setdefault(path, []).append(seen)

            handles.append(nn.Module.register_forward_hook(module, listen))
        yield
    finally:
        for handle in handles:
            handle.remove()

"""Where in the image each number of a tensor belongs, followed through whatever moves numbers about.

A sequence of g² tokens need not lie row by row on a g×g grid: they may have been cut into windows, read column by
column, turned round, sorted by what is in them, or be the g² of them that were kept. So beside each tensor that comes
from a map goes one of the same shape that holds the place of each number, and what moves the numbers moves the places.
What computes with numbers leaves them where they are. What is not known has no places, and nothing is said of it.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

NOT_OF_THE_IMAGE, ANYWHERE = -1, -2
_SIDE = 2**15  # longest side of a map
_MOST = 2**22  # numbers in a tensor whose places are followed: a whole network's are kept at once
_VIEWS = {"view", "_unsafe_view", "_reshape_alias", "reshape"}
_MOVES = {
    "permute", "transpose", "t", "slice", "select", "unsqueeze", "squeeze", "expand", "repeat", "unfold", "clone",
    "alias", "flip", "roll", "split", "split_with_sizes", "chunk", "unbind",
}  # fmt: skip
_JOINS = {"cat", "stack"}
_PICKS = {"index", "index_select", "gather"}
_SORTS = {"sort", "topk", "argsort", "masked_select"}
_SCATTERS = {
    "scatter", "scatter_add", "scatter_reduce", "index_copy", "index_put", "index_add", "masked_scatter", "put",
    "rot90",
}  # fmt: skip
_ByContent = Callable[[Tensor], bool]
_REDUCTIONS = {"mean", "sum", "amax", "amin", "max", "min"}
_MIXES_THE_LAST = {"linear", "mm", "addmm"}


class Places:
    """The places in the image of the tensors of one pass. Use under `torch.inference_mode()`, see `FieldTracker`."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[Tensor, Tensor]] = {}  # the tensors are kept so that no id is used twice

    def of(self, tensor: Tensor) -> Tensor | None:
        """The place of each number, in the tensor's own shape; None where it is not known."""
        found = self._known.get(id(tensor))
        return None if found is None else found[1]

    def begin(self, tensor: Tensor, rows: int, columns: int) -> None:
        """Have a map begin whose rows and columns are these dimensions."""
        height, width = tensor.shape[rows], tensor.shape[columns]
        if tensor.numel() > _MOST or max(height, width) >= _SIDE:
            return
        row, column = (torch.arange(side, dtype=torch.int32) for side in (height, width))
        row = row.reshape([-1 if dim == rows else 1 for dim in range(tensor.ndim)])
        column = column.reshape([-1 if dim == columns else 1 for dim in range(tensor.ndim)])
        self._known[id(tensor)] = (tensor, (row * _SIDE + column).expand(tensor.shape))

    def follow(
        self, func: Any, args: tuple[Any, ...], named: Mapping[str, Any], output: Any, by_content: _ByContent
    ) -> None:
        """Note where the numbers of an operation's output are. by_content: whether a tensor depends on the images."""
        given = [output] if isinstance(output, Tensor) else list(output) if isinstance(output, list | tuple) else []
        if not all(isinstance(one, Tensor) for one in given):
            return
        if not any(self.of(one) is not None for one in _tensors(args)) or sum(one.numel() for one in given) > _MOST:
            return
        if func.__name__.partition(".")[0].rstrip("_") in _SCATTERS:  # in place, too
            self._known |= {id(one): (one, _anywhere(one)) for one in given}
        if any(id(one) in self._known for one in given):
            return
        for tensor, places in zip(given, self._moved(func, args, named, given, by_content), strict=True):
            if places is not None and places.shape == tensor.shape:
                self._known[id(tensor)] = (tensor, places)

    def _moved(
        self, func: Any, args: tuple[Any, ...], named: Mapping[str, Any], given: list[Tensor], by_content: _ByContent
    ) -> Sequence[Tensor | None]:
        name = func.__name__.partition(".")[0]
        first = args[0] if isinstance(args[0], Tensor) else None
        places = None if first is None else self.of(first)
        if name in _JOINS:
            parts = [self.of(one) for one in args[0]]
            outside = [torch.full(one.shape, NOT_OF_THE_IMAGE, dtype=torch.int32) for one in args[0]]
            joined = [b if a is None else a for a, b in zip(parts, outside, strict=True)]
            return [func(joined, *args[1:], **named)]
        if name in _SORTS:
            return [_anywhere(one) for one in given]
        if name in _VIEWS:
            return [None if places is None else places.reshape(given[0].shape)]
        if name in _PICKS and places is not None:
            picking = _tensors((*args[1:], *named.values()))
            if any(one.is_meta or by_content(one) for one in picking):
                return [_anywhere(given[0])]
            return [func(places, *_on_cpu(args[1:]), **named)]
        if name in _MOVES and places is not None:
            moved = func(places, *args[1:], **named)
            return [moved] if isinstance(moved, Tensor) else moved
        if name in _REDUCTIONS and places is not None and len(args) > 1 and not isinstance(args[1], Tensor):
            # of what is put together the first: of windows their upper left corner
            return [places.amin(args[1], *args[2:3])] * len(given)
        if len(given) != 1:
            return [None] * len(given)
        return [self._computed(name, args, given[0])]

    def _computed(self, name: str, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
        """Of numbers that are computed with: those of the first tensor of the same shape whose places are known."""
        inputs = [(one, places) for one in _tensors(args) if (places := self.of(one)) is not None]
        if name in _MIXES_THE_LAST:
            for one, places in inputs:
                if one.shape[:-1] == output.shape[:-1] and bool((places == places[..., :1]).all()):
                    return places[..., :1].expand(output.shape)
            return None
        return next((places for one, places in inputs if one.shape == output.shape), None)


def _anywhere(tensor: Tensor) -> Tensor:
    return torch.full(tensor.shape, ANYWHERE, dtype=torch.int32)


def sequences(places: Tensor | None) -> dict[int, Tensor]:
    """Of a tensor with three dimensions, the first the batch's: the places along those that can be a sequence."""
    if places is None or places.ndim != 3:
        return {}
    rows, columns = places[0, :, :1], places[0, :1, :]
    found = {1: rows[:, 0]} if bool((places[0] == rows).all()) else {}
    return found | ({2: columns[0]} if bool((places[0] == columns).all()) else {})


def order_on_a_grid(places: Tensor) -> tuple[int, ...] | None:
    """In which order g² places lie row by row on a g×g grid, () where they do as they stand; None where they do not.

    >>> order_on_a_grid(torch.tensor([0, 1, _SIDE, _SIDE + 1])), order_on_a_grid(torch.tensor([0, _SIDE, 1, _SIDE + 1]))
    ((), (0, 2, 1, 3))
    >>> order_on_a_grid(torch.tensor([0, 1, 2, _SIDE])) is None
    True
    """
    side = math.isqrt(len(places))
    if side**2 != len(places) or bool((places < 0).any()):
        return None
    order = places.argsort(stable=True)
    rows = (places[order] // _SIDE).unflatten(0, (side, side))
    columns = (places[order] % _SIDE).unflatten(0, (side, side))
    even = bool((rows == rows[:, :1]).all() and (columns == columns[:1]).all())
    if not (even and bool((rows[:, 0].diff() > 0).all() and (columns[0].diff() > 0).all())):
        return None
    return () if torch.equal(order, torch.arange(len(places))) else tuple(order.tolist())


def _tensors(args: Sequence[Any]) -> list[Tensor]:
    found: list[Tensor] = []
    for part in args:
        found += [part] if isinstance(part, Tensor) else _tensors(part) if isinstance(part, list | tuple) else []
    return found


def _on_cpu(args: Sequence[Any]) -> list[Any]:
    return [
        part.cpu() if isinstance(part, Tensor) else _on_cpu(part) if isinstance(part, list | tuple) else part
        for part in args
    ]

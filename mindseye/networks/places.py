"""Where in the image each number of a tensor belongs, followed through whatever moves numbers about.

A sequence of g² tokens need not lie row by row on a g×g grid: they may have been cut into windows, read column by
column, turned round, sorted by what is in them, or be the g² of them that were kept. So beside each tensor that comes
from a map goes one of the same shape that holds the place of each number, and what moves the numbers moves the places:
slices, windows, joins, indices, and products with a constant matrix that takes of one number more than of all others.
What is computed number by number (torch marks these operations) or around each place (`_AROUND`) leaves them where
they are, and so does a product with what depends on the images: what attention gives is at the places of its queries.
After any other operation, one that nobody has thought of included, they are anywhere, and no order is told. Where they
are added to numbers whose places are sure (the residual stream), those hold; where two sure ones differ, neither does.

No places, and nothing is said of their order, have: what a constant matrix mixes of many of them (token mixing, the
merging of patches), the numbers that another number of positions is computed of, and tensors of more than `_MOST`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mindseye.networks.modules import memory

NOT_OF_THE_IMAGE, ANYWHERE = -1, -2
_SIDE = 2**15  # longest side of a map
_MOST = 2**22  # numbers in a tensor whose places are followed: a whole network's are kept at once
_VIEWS = {"view", "_unsafe_view", "_reshape_alias", "reshape"}
_MOVES = {
    "permute", "transpose", "t", "slice", "select", "unsqueeze", "squeeze", "expand", "repeat", "unfold", "clone",
    "alias", "flip", "roll", "rot90", "split", "split_with_sizes", "chunk", "unbind", "detach", "diagonal",
    "pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "native_channel_shuffle",
}  # fmt: skip
_JOINS = {"cat", "stack"}
_PICKS = {"index", "index_select", "gather", "take"}
_ByContent = Callable[[Tensor], bool]
_REDUCTIONS = {"mean", "sum", "amax", "amin", "max", "min"}
_PRODUCTS = {"linear": 0, "mm": 0, "bmm": 0, "addmm": 1, "baddbmm": 1}  # and where the first factor stands
_AROUND = {
    "_to_copy", "lift_fresh", "fill", "zero", "native_dropout", "hardswish", "glu", "_prelu_kernel",
    "log_sigmoid_forward", "rrelu_with_noise", "view_as_real", "view_as_complex", "constant_pad_nd", "reflection_pad2d",
    "replication_pad2d", "_softmax", "_safe_softmax", "_log_softmax", "logsumexp", "cumsum", "std",
    "var", "var_mean", "prod", "linalg_vector_norm", "batch_norm", "native_batch_norm", "_native_batch_norm_legit",
    "_native_batch_norm_legit_no_training", "_batch_norm_impl_index", "cudnn_batch_norm", "native_layer_norm",
    "native_group_norm", "_fused_rms_norm", "conv1d", "conv2d", "conv3d", "convolution", "conv_transpose2d",
    "deform_conv2d", "im2col", "col2im", "lstm", "gru", "avg_pool1d", "avg_pool2d", "avg_pool3d", "max_pool2d",
    "max_pool2d_with_indices", "_adaptive_avg_pool2d", "adaptive_max_pool2d", "upsample_nearest2d",
    "_upsample_nearest_exact2d", "upsample_bilinear2d", "upsample_bicubic2d", "_upsample_bilinear2d_aa",
    "_upsample_bicubic2d_aa", "_fft_r2c", "_fft_c2r", "_fft_c2c", "_native_multi_head_attention",
    "_transformer_encoder_layer_fwd",
}  # fmt: skip
_MAKES = {"zeros_like", "ones_like", "empty_like", "full_like", "rand_like", "randn_like"}  # new numbers


class Places:
    """The places in the image of the tensors of one pass. Use under `torch.inference_mode()`, see `FieldTracker`."""

    def __init__(self) -> None:
        # the tensors are kept so that no id is used twice
        self._known: dict[int, tuple[Tensor, Tensor | None]] = {}
        self._values: dict[int, tuple[Tensor, Tensor]] = {}
        self._written: dict[int, Tensor] = {}  # memory of which a part was written over

    def of(self, tensor: Tensor) -> Tensor | None:
        """The place of each number, in the tensor's own shape; None where it is not known."""
        if self._written and memory(tensor) in self._written:
            return _anywhere(tensor)
        return self._known.get(id(tensor), (tensor, None))[1]

    def know(self, tensor: Tensor, value: Tensor) -> None:
        """Of a constant its value, where it is on no device itself."""
        if tensor.is_meta:
            self._values[id(tensor)] = tensor, value

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
        given = [one for one in given if isinstance(one, Tensor)]
        name = func.__name__.partition(".")[0]
        if not any(self.of(one) is not None for one in _tensors(args)):
            self._follow_value(func, name, args, named, given, by_content)
            for one in filter(by_content, given):  # what it may be a part of is not to look again
                self._known.setdefault(id(one), (one, None))
            return
        if sum(one.numel() for one in given) > _MOST:
            return
        if name.endswith("_") and not name.endswith("__"):
            for into in _tensors(args[:1]):
                self._write(name[:-1], _is_number_by_number(func), into, args[1:])
            return
        if any(argument.is_out for argument in func._schema.arguments):
            for into in given:
                self._write(name, _is_number_by_number(func), into, args)
            return
        if any(id(one) in self._known for one in given):  # by the operations that it is made of
            return
        for tensor, places in zip(given, self._moved(func, name, args, named, given, by_content), strict=True):
            right = places is not None and places.shape == tensor.shape
            self._known[id(tensor)] = (tensor, places if right else None)

    def _follow_value(
        self, func: Any, name: str, args: tuple[Any, ...], named: Mapping[str, Any], given: list[Tensor],
        by_content: _ByContent,
    ) -> None:  # fmt: skip
        """Note the value of a constant that is on no device: of a weight that is only moved, and of whole numbers."""
        if func._schema.is_mutable:  # it is not done to the owner's own numbers; they are not known any more
            gone = {memory(one) for one in (*_tensors(args), *given)}
            self._values = {key: value for key, value in self._values.items() if memory(value[0]) not in gone}
            return
        if len(given) != 1 or not given[0].is_meta or given[0].numel() > _MOST or by_content(given[0]):
            return
        counted = not given[0].is_floating_point() and (_is_number_by_number(func) or name == "arange")
        if counted or name in _VIEWS | _MOVES | {"_to_copy"}:
            values = self._as_values(args)
            if not any(value.is_meta for value in _tensors(values)):
                self.know(given[0], func(*values, **{**named, "device": "cpu"} if "device" in named else named))

    def _write(self, name: str, number_by_number: bool, into: Tensor, args: tuple[Any, ...]) -> None:
        """Something is written into a tensor, which may be a part of another."""
        before, copied = self.of(into), name == "copy"
        if before is not None and not copied and (number_by_number or name in _AROUND):
            return
        places = self._computed(args, into) if number_by_number or copied else _anywhere(into)
        if before is None and into.untyped_storage().nbytes() == into.numel() * into.element_size():
            self._known[id(into)] = (into, places)
        elif places is not None or copied:
            self._written[memory(into)] = into

    def _moved(
        self, func: Any, name: str, args: tuple[Any, ...], named: Mapping[str, Any], given: list[Tensor],
        by_content: _ByContent,
    ) -> Sequence[Tensor | None]:  # fmt: skip
        first = args[0] if isinstance(args[0], Tensor) else None
        places = None if first is None else self.of(first)
        if name in _MAKES:
            return [None] * len(given)
        if name in _JOINS:
            parts = [self.of(one) for one in args[0]]
            outside = [torch.full(one.shape, NOT_OF_THE_IMAGE, dtype=torch.int32) for one in args[0]]
            joined = [b if a is None else a for a, b in zip(parts, outside, strict=True)]
            return [func(joined, *args[1:], **named)]
        if name in _VIEWS:
            return [None if places is None else places.reshape(given[0].shape)]
        if name in _PICKS and places is not None:
            picking = self._as_values(args[1:])
            if any(map(by_content, _tensors(args[1:]))) or any(one.is_meta for one in _tensors(picking)):
                return [_anywhere(given[0])]
            return [func(places, *picking, **named)]
        if name in _MOVES and places is not None:
            moved = func(places, *args[1:], **named)
            return [moved] if isinstance(moved, Tensor) else moved
        if name in _REDUCTIONS and places is not None and len(args) > 1 and not isinstance(args[1], Tensor):
            # of what is put together the first: of windows their upper left corner
            return [places.amin(args[1], *args[2:3])] * len(given)
        if name.startswith("_scaled_dot_product"):
            return [self._of_rows(args[0], given[0]), *[None] * (len(given) - 1)]
        if name in _PRODUCTS:
            return [self._multiplied(name, args, given[0], by_content)]
        if _is_number_by_number(func) or name in _AROUND or name in _REDUCTIONS:
            return [self._computed(args, one) for one in given]
        return [_anywhere(one) for one in given]

    def _computed(self, args: Sequence[Any], output: Tensor) -> Tensor | None:
        """Of numbers that are computed with: those of the tensors of the same shape whose places are sure."""
        alike = [places for one in _tensors(args) if one.shape == output.shape and (places := self.of(one)) is not None]
        if len(alike) < 2:
            return alike[0] if alike else None
        sure = [places for places in alike if int(places.amin()) != ANYWHERE] or alike
        return sure[0] if all(torch.equal(sure[0], places) for places in sure[1:]) else _anywhere(output)

    def _multiplied(self, name: str, args: Sequence[Any], output: Tensor, by_content: _ByContent) -> Tensor | None:
        """Of a product of two matrices, [..., i, k] and [..., k, j]: sums over k."""
        left, right = args[_PRODUCTS[name] :][:2]
        if by_content(left) and by_content(right):
            rows = self._of_rows(left, output)
            return self._computed(args, output) if rows is None else rows
        for one, other, turned in ((left, right, False), (right, left, True)):
            places = self.of(one)
            if places is None or by_content(other):
                continue
            places, shape = (places.mT, output.mT.shape) if turned else (places, output.shape)
            if places.shape[:-1] != shape[:-1]:
                return None
            if bool((places == places[..., :1]).all()):
                moved = places[..., :1].expand(shape)
            else:
                matrix = self._value(other)
                if matrix.is_meta:
                    return _anywhere(output)
                taken = _mostly_taken(matrix if turned or name == "linear" else matrix.mT)
                if taken is None:
                    return None
                moved = places[..., taken]
            return moved.mT if turned else moved
        return self._computed(args, output)

    def _of_rows(self, queries: Tensor, output: Tensor) -> Tensor | None:
        """Where each row of a tensor is at one place, and each of the output is computed of one: these."""
        places = self.of(queries)
        if places is None or places.shape[:-1] != output.shape[:-1] or not bool((places == places[..., :1]).all()):
            return None
        return places[..., :1].expand(output.shape)

    def _value(self, tensor: Tensor) -> Tensor:
        """Of a constant its numbers, on no device still where they are not known."""
        value = self._values[id(tensor)][1] if id(tensor) in self._values else tensor
        return value if value.is_meta else value.detach().cpu()

    def _as_values(self, args: Sequence[Any]) -> list[Any]:
        return [
            self._value(part)
            if isinstance(part, Tensor)
            else self._as_values(part)
            if isinstance(part, list | tuple)
            else part
            for part in args
        ]


def _is_number_by_number(func: Any) -> bool:
    return torch.Tag.pointwise in func.tags


def _mostly_taken(matrix: Tensor) -> Tensor | None:
    """Of a matrix [..., N, K] the column k of which each row has more than of all others together; None where there is
    a row that has none, or the matrices of a batch differ.

    >>> _mostly_taken(torch.tensor([[0.1, 0.0, 3.0], [0.2, 0.5, 0.2]])), _mostly_taken(torch.ones(2, 2))
    (tensor([2, 1]), None)
    """
    weights = matrix.abs().float().reshape(-1, *matrix.shape[-2:])
    most, taken = weights.max(-1)
    if bool((2 * most <= weights.sum(-1)).any()) or bool((taken != taken[:1]).any()):
        return None
    return taken[0]


def _anywhere(tensor: Tensor) -> Tensor:
    return torch.full((), ANYWHERE, dtype=torch.int32).expand(tensor.shape)


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

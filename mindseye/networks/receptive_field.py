"""Which pixels a unit of a map can see: the theoretical receptive field, followed through one forward pass.

Assumptions. The image has no borders, so that every unit of a map has a field of the same size. What reaches a unit
from the whole image at once is left out: the gate of a squeeze-and-excitation block, the statistics of a
normalisation. Where upsampling, a transposed convolution or an uneven adaptive pooling gives neighbours fields of
different sizes, the field is an upper bound. Attention ends the account: what comes after it has no field here.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

_EVERYTHING = math.inf


@dataclass(frozen=True)
class Span:
    """Along one axis, unit u sees the input pixels from `start + jump·u` to `end + jump·u`, both included."""

    start: float = 0
    end: float = 0
    jump: float = 1

    @property
    def pixels(self) -> float:
        """The size of the field in pixels; infinite for the whole image."""
        return self.end - self.start + 1 if math.isinf(self.end) else math.ceil(self.end) - math.floor(self.start) + 1

    def window(self, kernel: int, stride: float, padding: int, dilation: int = 1) -> "Span":
        """The span after a convolution or pooling."""
        before, after = padding, (kernel - 1) * dilation - padding
        return Span(self.start - before * self.jump, self.end + after * self.jump, self.jump * stride)

    def spread(self, kernel: int, stride: int, padding: int, dilation: int) -> "Span":
        """The span after a transposed convolution: unit o hears the inputs u = (o + padding - tap·dilation)/stride."""
        first, last = (padding - (kernel - 1) * dilation) / stride, padding / stride
        return Span(self.start + first * self.jump, self.end + last * self.jump, self.jump / stride)

    def shifted(self, units: int, step: int = 1) -> "Span":
        """The span where unit 0 is the former unit `units`, and each step takes `step` former ones."""
        return Span(self.start + units * self.jump, self.end + units * self.jump, self.jump * step)

    def pooled_to(self, size: int, outputs: int) -> "Span":
        """The span after an adaptive pooling from `size` units to `outputs`."""
        if size == outputs:
            return self
        if outputs == 1:
            return Span(-_EVERYTHING, _EVERYTHING, self.jump * size)
        kernel = size // outputs if size % outputs == 0 else math.ceil(size / outputs) + 1
        return self.window(kernel, size / outputs, 0)

    def resized(self, scale: float, reach: float) -> "Span":
        """The span after an upsampling by `scale` that reads up to `reach` units to either side."""
        centre = (0.5 / scale - 0.5) * self.jump
        return Span(self.start + centre - reach * self.jump, self.end + centre + reach * self.jump, self.jump / scale)


Spans = dict[int, Span]  # the spatial dimensions of a tensor, each with its span


class FieldTracker(TorchDispatchMode):
    """Follows the spans of every tensor that is computed from `images` [B,ch,H,W] while it is active.

    Use under `torch.inference_mode()`: only there does an operation hand on the tensor objects seen here.
    """

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        # the tensors are kept so that no id is used twice
        self._known: dict[int, tuple[Tensor, Spans]] = {id(images): (images, {2: Span(), 3: Span()})}

    def spans(self, tensor: Tensor) -> Spans:
        """The spans of a tensor by dimension; empty where it has no map that could be followed."""
        return self._known[id(tensor)][1] if id(tensor) in self._known else {}

    def depends_on_the_images(self, tensor: Tensor) -> bool:
        """Whether a tensor was computed from them, or from what was."""
        return id(tensor) in self._known

    @property
    def largest_jump(self) -> float:
        """The pixels from unit to unit of the coarsest map of more than one place that was followed; 1 at least."""
        known = self._known.values()
        return max(span.jump for tensor, spans in known for dim, span in spans.items() if tensor.shape[dim] > 1)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        named = dict(kwargs or {})
        name = func.__name__.partition(".")[0]
        if name not in _RULES:
            with self:
                parts = func.decompose(*args, **named)
            if parts is not NotImplemented:
                return parts
        output = func(*args, **named)
        inputs = [tensor for tensor in _all_tensors(args) if id(tensor) in self._known]
        for tensor in _all_tensors((output,)):
            if not inputs:
                self._known.pop(id(tensor), None)  # not computed from the images
            elif name in _RULES:
                spans = self.spans(args[0])
                self._known[id(tensor)] = (tensor, _RULES[name](spans, tensor, args, named) if spans else {})
            else:
                self._known[id(tensor)] = (tensor, self._same_map(tensor, inputs))
        return output

    def _same_map(self, output: Tensor, inputs: list[Tensor]) -> Spans:
        """Any other operation: the union of the fields of the inputs that have the output's own map."""
        union: Spans = {}
        alike = [tensor for tensor in inputs if tensor.ndim == output.ndim]
        for tensor in alike:
            spans = self.spans(tensor)
            if any(tensor.shape[dim] != output.shape[dim] for dim in spans):
                continue
            for dim, span in spans.items():
                other = union.get(dim, span)
                union[dim] = Span(min(span.start, other.start), max(span.end, other.end), span.jump)
        # an input of the same map whose own field is not known makes the whole unknown
        lost = any(
            not self.spans(tensor) and all(tensor.shape[dim] == output.shape[dim] for dim in union) for tensor in alike
        )
        return {} if lost else union


def _all_tensors(args: Sequence[Any]) -> list[Tensor]:
    inside = []
    for part in args:
        inside += [part] if isinstance(part, Tensor) else _all_tensors(part) if isinstance(part, list | tuple) else []
    return inside


# ---- one rule for each operation that changes the map: (spans of the first input, output, args, kwargs) -> spans ---


def _convolution(spans: Spans, output: Tensor, args: tuple[Any, ...], named: Mapping[str, Any]) -> Spans:
    weight, stride, padding, dilation, transposed = args[1], *args[3:7]
    changed: Spans = {}
    for dim, span in spans.items():
        if dim < 2:
            return {}
        kernel = weight.shape[dim]
        step, margin, gap = (_of_axis(values, dim - 2) for values in (stride, padding, dilation))
        changed[dim] = (span.spread if transposed else span.window)(kernel, step, margin, gap)
    return changed


def _pooling(spans: Spans, output: Tensor, args: tuple[Any, ...], named: Mapping[str, Any], dilated: bool) -> Spans:
    kernel = args[1]
    stride = args[2] if len(args) > 2 and args[2] else kernel
    padding = args[3] if len(args) > 3 else 0
    dilation = args[4] if dilated and len(args) > 4 else 1
    first = output.ndim - (1 if isinstance(kernel, int) else len(kernel))
    at = {dim: dim - first for dim in spans}
    return {
        dim: span.window(*(_of_axis(values, at[dim]) for values in (kernel, stride, padding, dilation)))
        for dim, span in spans.items()
    }


def _max_pooling(spans: Spans, output: Tensor, args: tuple[Any, ...], named: Mapping[str, Any]) -> Spans:
    return _pooling(spans, output, args, named, dilated=True)


def _average_pooling(spans: Spans, output: Tensor, args: tuple[Any, ...], named: Mapping[str, Any]) -> Spans:
    return _pooling(spans, output, args, named, dilated=False)


def _adaptive_pooling(spans: Spans, output: Tensor, args: tuple[Any, ...], named: Mapping[str, Any]) -> Spans:
    return {dim: span.pooled_to(args[0].shape[dim], output.shape[dim]) for dim, span in spans.items()}


def _reduction(spans: Spans, output: Tensor, args: tuple[Any, ...], named: Mapping[str, Any]) -> Spans:
    ndim = args[0].ndim
    dims = args[1] if len(args) > 1 and args[1] is not None else list(range(ndim))
    reduced = {dim % ndim for dim in ([dims] if isinstance(dims, int) else dims)}
    if output.ndim == ndim:  # keepdim
        everything = Span(-_EVERYTHING, _EVERYTHING)
        return {dim: everything if dim in reduced else span for dim, span in spans.items()}
    kept = [dim for dim in range(ndim) if dim not in reduced]
    return {kept.index(dim): span for dim, span in spans.items() if dim in kept}


def _permutation(spans: Spans, output: Tensor, args: tuple[Any, ...], named: Mapping[str, Any]) -> Spans:
    ndim = output.ndim
    return {new: spans[old % ndim] for new, old in enumerate(args[1]) if old % ndim in spans}


def _transposition(spans: Spans, output: Tensor, args: tuple[Any, ...], named: Mapping[str, Any]) -> Spans:
    order = list(range(output.ndim))
    first, second = args[1], args[2]
    order[first], order[second] = order[second], order[first]
    return {new: spans[old] for new, old in enumerate(order) if old in spans}


def _viewing(spans: Spans, output: Tensor, args: tuple[Any, ...], named: Mapping[str, Any]) -> Spans:
    """A reshape keeps the map where it leaves all from the first spatial dimension on as it is, or nothing changes."""
    old, new = tuple(args[0].shape), tuple(output.shape)
    if old == new:
        return spans
    tail = len(old) - min(spans)
    if tail > len(new) or old[-tail:] != new[-tail:]:
        return {}
    return {dim + len(new) - len(old): span for dim, span in spans.items()}


def _slicing(spans: Spans, output: Tensor, args: tuple[Any, ...], named: Mapping[str, Any]) -> Spans:
    dim = (args[1] if len(args) > 1 else 0) % output.ndim
    start = args[2] if len(args) > 2 and args[2] is not None else 0
    step = args[4] if len(args) > 4 else 1
    size = args[0].shape[dim]
    first = min(size, start if start >= 0 else max(0, start + size))
    return {at: span.shifted(first, step) if at == dim else span for at, span in spans.items()}


def _selection(spans: Spans, output: Tensor, args: tuple[Any, ...], named: Mapping[str, Any]) -> Spans:
    gone = args[1] % args[0].ndim
    return {dim - (dim > gone): span for dim, span in spans.items() if dim != gone}


def _unsqueezing(spans: Spans, output: Tensor, args: tuple[Any, ...], named: Mapping[str, Any]) -> Spans:
    new = args[1] % output.ndim
    return {dim + (dim >= new): span for dim, span in spans.items()}


def _padding(spans: Spans, output: Tensor, args: tuple[Any, ...], named: Mapping[str, Any]) -> Spans:
    widths = args[1]  # (before, after) of the last dimension, then of the one before it, …
    left = {output.ndim - 1 - pair: widths[2 * pair] for pair in range(len(widths) // 2)}
    return {dim: span.shifted(-left.get(dim, 0)) for dim, span in spans.items()}


def _resizing(spans: Spans, output: Tensor, args: tuple[Any, ...], named: Mapping[str, Any], reach: float) -> Spans:
    return {dim: span.resized(output.shape[dim] / args[0].shape[dim], reach) for dim, span in spans.items()}


def _nearest_resizing(spans: Spans, output: Tensor, args: tuple[Any, ...], named: Mapping[str, Any]) -> Spans:
    return _resizing(spans, output, args, named, reach=0.5)


def _linear_resizing(spans: Spans, output: Tensor, args: tuple[Any, ...], named: Mapping[str, Any]) -> Spans:
    return _resizing(spans, output, args, named, reach=1)


def _last_dimension(spans: Spans, output: Tensor, args: tuple[Any, ...], named: Mapping[str, Any]) -> Spans:
    """A linear layer mixes the last dimension: a map is kept where its channels come last."""
    return {} if args[0].ndim - 1 in spans else spans


def _of_axis(values: int | Sequence[int], axis: int) -> int:
    return values if isinstance(values, int) else values[axis if len(values) > 1 else 0]


_RULES = {
    "convolution": _convolution,
    "max_pool2d": _max_pooling,
    "max_pool2d_with_indices": _max_pooling,
    "avg_pool2d": _average_pooling,
    "_adaptive_avg_pool2d": _adaptive_pooling,
    "adaptive_max_pool2d": _adaptive_pooling,
    "mean": _reduction,
    "sum": _reduction,
    "amax": _reduction,
    "permute": _permutation,
    "transpose": _transposition,
    "view": _viewing,
    "_unsafe_view": _viewing,
    "_reshape_alias": _viewing,
    "slice": _slicing,
    "select": _selection,
    "unsqueeze": _unsqueezing,
    "constant_pad_nd": _padding,
    "reflection_pad2d": _padding,
    "replication_pad2d": _padding,
    "upsample_nearest2d": _nearest_resizing,
    "upsample_bilinear2d": _linear_resizing,
    "linear": _last_dimension,
}


def input_field(spans: Spans) -> tuple[float, float] | None:
    """The receptive field (height, width) in pixels of a [B,D,H',W'] map; infinite: the whole image; None: unknown."""
    return (spans[2].pixels, spans[3].pixels) if set(spans) == {2, 3} else None

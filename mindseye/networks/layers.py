"""Layer names: exact module paths, the paper's spelling, and the table of all layers of a network."""

import difflib
import html
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from mindseye.networks.maps import channels_come_last, token_grid
from mindseye.networks.modules import as_it_was
from mindseye.networks.receptive_field import FieldTracker, input_field

# A residual network of torchvision's build has its four stages as children 4 to 7 of the body.
_FIRST_STAGE = 4
_STAGES = ("layer1", "layer2", "layer3", "layer4")


def resolve_layer(body: nn.Module, name: str) -> tuple[str, int | None]:
    """The module path that `name` means in `body`, and which of the module's calls in one pass.

    An exact path wins. Otherwise, in a residual network, the paper's spelling counts the children of the network as
    an `nn.Sequential`: `6.5.conv1` and `layer6.5.conv1` are `layer3.5.conv1`. `name@0` is the module's first call in
    one pass, `name@1` its second; without `@` the call index is None, the last call.

    Raises ValueError for an unknown name, with the nearest names that exist.
    """
    if not isinstance(name, str):
        raise ValueError(f"layer={name}: the name of a module is right, as layer_table lists them")
    path, at, call = name.partition("@")
    if at and not call.isdecimal():
        raise ValueError(f"layer {name!r}: after @ stands the number of the call, from 0, as in {path + '@0'!r}")
    found = path if _has_module(body, path) else _from_paper(body, path)
    if found is None:
        raise ValueError(f"there is no layer {path!r}; {_nearest(body, path)}")
    return found, int(call) if at else None


def paper_name(body: nn.Module, path: str) -> str | None:
    """The paper's spelling of a module path (`layer3.5.conv1` -> `6.5.conv1`), None where it has none."""
    children = [child for child, _ in body.named_children()]
    head, dot, rest = path.partition(".")
    if not _is_residual(children) or head not in children:
        return None
    return f"{children.index(head)}{dot}{rest}"


@dataclass(frozen=True)
class LayerRow:
    """One layer of a network, as it answers an image of a certain size."""

    name: str  # the module's path, which is its exact name
    paper: str | None  # the paper's spelling, where the network has one
    kind: str  # the module's class
    channels: int | None  # None where the layer gives no tensor
    map_size: tuple[int, int] | None  # height, width in units, of tokens their grid's; None where it has none
    receptive_field: tuple[float, float] | None  # height, width in pixels; infinite: the whole image; None: unknown
    depth: str | None  # early, middle, late, where the network's config names it
    calls: int  # in one pass; the row describes the last
    weighted: bool  # holds a convolution or a linear layer: one people choose, unlike a norm, activation or pooling

    @property
    def choice(self) -> bool:
        """Whether it is one to look into: it has a map, and weights of its own or a depth's name."""
        return self.depth is not None or (self.map_size is not None and self.weighted)


class LayerTable(list[LayerRow]):
    """The rows of `layer_table`, shown as a table of those that are a choice."""

    HEADS = ("layer", "kind", "channels", "map", "receptive field", "depth")

    def _cells(self) -> list[tuple[str, ...]]:
        rows = [row for row in self if row.choice]
        return [
            (row.name, row.kind, str(row.channels), side(row.map_size), side(row.receptive_field), row.depth or "")
            for row in rows
        ]

    def __repr__(self) -> str:
        table = [self.HEADS, *self._cells()]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        padded = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in table)
        return "\n".join(line.rstrip() for line in padded)

    def _repr_html_(self) -> str:
        rows = ["".join(f"<td>{html.escape(cell)}</td>" for cell in cells) for cells in self._cells()]
        head = "".join(f"<th>{cell}</th>" for cell in self.HEADS)
        body = "".join(f"<tr>{row}</tr>" for row in rows)
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def side(size: tuple[float, float] | None) -> str:
    """24×17, or 24 alone for a square; "all" for the whole image, "" where it is not known.

    >>> side((24, 17)), side((24, 24)), side((math.inf, math.inf))
    ('24×17', '24', 'all')
    """
    if size is None:
        return ""
    height, width = ("all" if math.isinf(length) else str(int(length)) for length in size)
    return height if height == width else f"{height}×{width}"


class _Described(Protocol):
    """What `layer_table` needs of a network: see `mindseye.networks.network.Network`."""

    name: str
    body: nn.Module
    layers: dict[str, str]
    channels: int
    size: int
    prefix_tokens: int | None


def layer_table(network: _Described, size: int | None = None) -> LayerTable:
    """All layers that a pass over one image calls, in their order in the network; at a prompt it is a table.

    network: of `load_network`. size: the side of the image in pixels; None is the network's own. Receptive fields rest
    on the assumptions of `mindseye.networks.receptive_field`.

    Raises ValueError where the network cannot read an image of that size.
    """
    pixels = size if size is not None else network.size
    try:
        answers = _answers(network, pixels, "meta")  # shapes alone: nothing is computed
    except Exception:  # a network that looks at values or makes tensors on a device of its own
        try:
            answers = _answers(network, pixels, None)
        except Exception as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ValueError(f"{network.name} cannot read an image of {pixels}×{pixels}: {reason}") from error
    aliases = {resolve_layer(network.body, layer)[0]: depth for depth, layer in network.layers.items()}
    rows = LayerTable()
    for path, module in network.body.named_modules():
        if path == "" or path not in answers:
            continue
        answer = answers[path]
        rows.append(
            LayerRow(
                name=path,
                paper=paper_name(network.body, path),
                kind=type(module).__name__,
                channels=answer.channels,
                map_size=answer.map_size,
                receptive_field=answer.field,
                depth=aliases.get(path),
                calls=answer.calls,
                weighted=any(isinstance(part, _WEIGHTED) for part in module.modules()),
            )
        )
    return rows


_WEIGHTED = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)


@dataclass
class _Answer:
    """What a layer gave at its last call."""

    calls: int = 0
    channels: int | None = None
    map_size: tuple[int, int] | None = None
    field: tuple[float, float] | None = None

    def see(self, output: Any, tracker: FieldTracker, prefix: int | None) -> None:
        self.calls += 1
        self.channels = self.map_size = self.field = None
        if not isinstance(output, Tensor) or output.ndim < 2:
            return
        spans = tracker.spans(output)
        # where the map could not be followed (attention), a square one is known by its shape: the image is square
        if set(spans) == {2, 3} or (not spans and output.ndim == 4 and output.shape[2] == output.shape[3]):
            self.channels, self.map_size = output.shape[1], (output.shape[2], output.shape[3])
            self.field = input_field(spans)
            return
        self.channels = output.shape[-1]  # tokens [B,T,D], maps with their channels last, pooled channels [B,D]
        if output.ndim == 4 and (set(spans) == {1, 2} or (not spans and channels_come_last(tuple(output.shape)))):
            self.map_size = (output.shape[1], output.shape[2])
            self.field = input_field({dim + 1: span for dim, span in spans.items()})
        elif output.ndim == 3 and (grid := token_grid(output.shape[1], prefix)) is not None:
            self.map_size = (grid[1], grid[1])


def _answers(network: _Described, side: int, device: str | None) -> dict[str, _Answer]:
    """By module path, what each called module gave in one pass over an image on `device` (None: where it lies)."""
    tensors = {**dict(network.body.named_parameters()), **dict(network.body.named_buffers())}
    if device is not None:
        tensors = {name: tensor.to(device) for name, tensor in tensors.items()}
    like = next((tensor for tensor in tensors.values() if tensor.is_floating_point()), torch.zeros((), device=device))
    answers: dict[str, _Answer] = {}
    with torch.inference_mode():
        images = torch.zeros(1, network.channels, side, side, dtype=like.dtype, device=like.device)
        tracker = FieldTracker(images)
        with as_it_was(network.body), _listening(network.body, answers, tracker, network.prefix_tokens), tracker:
            torch.func.functional_call(network.body, tensors, (images,))
    return answers


@contextmanager
def _listening(
    body: nn.Module, answers: dict[str, _Answer], tracker: FieldTracker, prefix: int | None
) -> Iterator[None]:
    handles = []
    try:
        for path, module in body.named_modules():

            def listen(module: nn.Module, arguments: tuple[Any, ...], output: Any, path: str = path) -> None:
                answers.setdefault(path, _Answer()).see(output, tracker, prefix)

            handles.append(module.register_forward_hook(listen))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _has_module(body: nn.Module, path: str) -> bool:
    try:
        return path != "" and body.get_submodule(path) is not body
    except AttributeError:
        return False


def _is_residual(children: list[str]) -> bool:
    return tuple(children[_FIRST_STAGE : _FIRST_STAGE + len(_STAGES)]) == _STAGES


def _from_paper(body: nn.Module, path: str) -> str | None:
    children = [child for child, _ in body.named_children()]
    head, dot, rest = path.removeprefix("layer").partition(".")
    if not _is_residual(children) or not head.isdecimal() or int(head) >= len(children):
        return None
    found = children[int(head)] + dot + rest
    return found if _has_module(body, found) else None


def _nearest(body: nn.Module, path: str) -> str:
    paths = [known for known, _ in body.named_modules() if known]
    if not paths:
        return "the network has no named modules"
    nearest = difflib.get_close_matches(path, paths, n=4, cutoff=0.5)
    last = path.rpartition(".")[2]
    # a right last component in a wrong place is a frequent slip
    alike = [known for known in paths if known.rpartition(".")[2] == last and known not in nearest]
    nearest += alike[: 6 - len(nearest)]
    if not nearest:
        return f"the network's parts are {', '.join(child for child, _ in body.named_children())}"
    return f"the nearest names are {', '.join(nearest)}"

"""Layer names: exact module paths, the paper's spelling, and the table of all layers of a network."""

import html
import math
from dataclasses import dataclass
from typing import Protocol

from torch import nn

from mindseye.networks.layouts import observe
from mindseye.networks.modules import children, every_module, part_at
from mindseye.networks.receptive_field import input_field
from mindseye.words import called, first_line, nearest

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
        raise ValueError(f"layer must be the name of a module, as layer_table lists them, not {name}")
    path, at, call = name.partition("@")
    if at and not call.isdecimal():
        raise ValueError(f"layer {name!r}: after @ stands the number of the call, from 0, as in {path + '@0'!r}")
    known = path if _has_module(body, path) else _from_paper(body, path)
    if known is None:
        raise ValueError(f"there is no layer {path!r}; {_nearest(body, path)}")
    return known, int(call) if at else None


def paper_name(body: nn.Module, path: str) -> str | None:
    """The paper's spelling of a module path (`layer3.5.conv1` -> `6.5.conv1`), None where it has none."""
    names = [*children(body)]
    head, dot, rest = path.partition(".")
    if not _is_residual(names) or head not in names:
        return None
    return f"{names.index(head)}{dot}{rest}"


@dataclass(frozen=True)
class LayerRow:
    """One layer of a network, as it answers an image of a certain size."""

    name: str  # the module's path, which is its exact name
    paper: str | None  # the paper's spelling, where the network has one
    kind: str  # the module's class
    channels: int | None  # None where the layer gives no tensor, or one of which it cannot be told
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

    Raises ValueError for what is no network, and where the network cannot read an image of that size.
    """
    if not hasattr(network, "body"):
        raise ValueError(f"the network must be what load_network gives, not {called(network)}")
    pixels = size if size is not None else network.size
    seen = observe(network, pixels)
    if (error := seen.base.error) is not None:
        raise ValueError(f"{network.name} cannot read an image of {pixels}×{pixels}: {first_line(error)}") from error
    aliases = {resolve_layer(network.body, layer)[0]: depth for depth, layer in network.layers.items()}
    rows = LayerTable()
    for path, module in every_module(network.body):
        if path == "" or path not in seen.base.calls:
            continue
        calls = seen.base.calls[path]
        last, layout = calls[-1], seen.layout(path)
        fields = {} if layout is None else {2: last.spans.get(layout.rows or 0), 3: last.spans.get(layout.columns or 0)}
        rows.append(
            LayerRow(
                name=path,
                paper=paper_name(network.body, path),
                kind=type(module).__name__,
                channels=None if layout is None else last.shape[layout.channels],
                map_size=None if layout is None else layout.grid(last.shape),
                receptive_field=input_field({dim: span for dim, span in fields.items() if span is not None}),
                depth=aliases.get(path),
                calls=len(calls),
                weighted=any(isinstance(part, _WEIGHTED) for _, part in every_module(module)),
            )
        )
    return rows


_WEIGHTED = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)


def _has_module(body: nn.Module, path: str) -> bool:
    try:
        return path != "" and part_at(body, path) is not body
    except AttributeError:
        return False


def _is_residual(names: list[str]) -> bool:
    return tuple(names[_FIRST_STAGE : _FIRST_STAGE + len(_STAGES)]) == _STAGES


def _from_paper(body: nn.Module, path: str) -> str | None:
    names = [*children(body)]
    head, dot, rest = path.removeprefix("layer").partition(".")
    if not _is_residual(names) or not head.isdecimal() or int(head) >= len(names):
        return None
    name = names[int(head)] + dot + rest
    return name if _has_module(body, name) else None


def _nearest(body: nn.Module, path: str) -> str:
    paths = [known for known, _ in every_module(body) if known]
    if not paths:
        return "the network has no named modules"
    near = nearest(path, paths)
    last = path.rpartition(".")[2]
    # a right last component in a wrong place is a frequent slip
    alike = [known for known in paths if known.rpartition(".")[2] == last and known not in near]
    near += alike[: 6 - len(near)]
    if not near:
        return f"the network's parts are {', '.join(children(body))}"
    return f"the nearest names are {', '.join(near)}"

"""`mindseye layers network=resnet50`: a table of a network's layers, to choose one from."""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from mindseye.networks import LayerRow, Network

_WIDTH = 100  # columns; wider is hard to read, and a pipe has no width of its own


def layers(arguments: list[str]) -> None:
    """Print the layers of the network that Hydra's overrides choose: `network=resnet50`, `network.name=densenet121`.

    The weights play no part in the table and are not loaded. Raises ValueError, FileNotFoundError for a network that
    cannot be built.
    """
    parser = argparse.ArgumentParser(
        prog="mindseye layers",
        description="A table of a network's layers: name, the paper's name, kind, channels, map size, receptive field.",
        epilog="example: mindseye layers network=resnet50 --filter layer3.5",
    )
    parser.add_argument("overrides", nargs="*", metavar="network=NAME", help="as for mindseye itself")
    parser.add_argument("--config-dir", metavar="FOLDER", help="files of your own, FOLDER/network/mine.yaml")
    parser.add_argument("--filter", default="", metavar="TEXT", help="only layers whose name or kind contains TEXT")
    parser.add_argument("--all", action="store_true", help="also norms, activations, poolings, layers without a map")
    parser.add_argument("--size", type=int, default=None, help="side of the image in pixels (the network's own)")
    options = parser.parse_intermixed_args(arguments)
    network = _build(options.overrides, options.config_dir)
    from mindseye.networks import layer_table

    rows = layer_table(network, options.size)
    shown = [row for row in rows if (options.all or row.choice) and _matches(row, options.filter)]
    console = Console()
    if not console.is_terminal or console.width > _WIDTH:
        console = Console(width=_WIDTH)
    pixels = options.size if options.size is not None else network.size
    console.print(_table(f"{network.name}, image {pixels}×{pixels}", shown))
    console.print(
        f"{len(shown)} of {len(rows)} layers{'' if options.all else '; --all shows every one'}. "
        "field: receptive field in pixels, as if the image had no borders; global gates are not counted.",
        style="dim",
        highlight=False,
    )
    from mindseye.networks.way import layers_on_the_way

    for depth, layer in network.layers.items():
        way = ", ".join(layers_on_the_way(network, layer)) or "none has a map"
        console.print(f"on the way to {layer} ({depth}): {way}", style="dim", highlight=False, soft_wrap=True)


def _build(overrides: list[str], own: str | None) -> "Network":
    from mindseye.commands.checking import check, searched
    from mindseye.commands.constructors import check_constructors, compose_known
    from mindseye.commands.grammar import quoted
    from mindseye.commands.stages import make_network

    node = check(compose_known([*searched(own), *(quoted(word, sweeps=False) for word in overrides)])).parts["network"]
    check_constructors({"network": node})
    # A table needs no weights, and none should be downloaded for it; a file of one's own says what the network is like.
    loads_code = str(node["_target_"]).endswith(".CallableSource")
    return make_network(node if loads_code or "weights" not in node else {**node, "weights": None}, "network")


def _matches(row: "LayerRow", text: str) -> bool:
    return any(text.lower() in field.lower() for field in (row.name, row.paper or "", row.kind))


def _table(title: str, rows: "Sequence[LayerRow]") -> Table:
    from mindseye.networks.layers import side

    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    has_paper = any(row.paper is not None for row in rows)
    table.add_column("layer", overflow="fold")
    if has_paper:
        table.add_column("in the paper", overflow="fold")
    table.add_column("kind", overflow="ellipsis", no_wrap=True)
    for heading in ("channels", "map", "field"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("depth", no_wrap=True)
    for row in rows:
        paper = [row.paper or ""] if has_paper else []
        kind = row.kind if row.calls == 1 else f"{row.kind} ×{row.calls}"
        channels = "" if row.channels is None else str(row.channels)
        style = "bold" if row.depth else None
        table.add_row(
            row.name,
            *paper,
            kind,
            channels,
            side(row.map_size),
            side(row.receptive_field),
            row.depth or "",
            style=style,
        )
    return table

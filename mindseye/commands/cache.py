"""`mindseye cache`: what is kept between runs, and how much room it takes; `mindseye cache clear` deletes it."""

import argparse
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mindseye.commands.checking import check
from mindseye.commands.composing import ConfigurationError, compose
from mindseye.commands.grammar import quoted
from mindseye.words import readable_size

if TYPE_CHECKING:
    from mindseye.facets.cache import Cache, Entry

_WIDTH = 100  # columns; wider is hard to read, and a pipe has no width of its own


def cache(arguments: list[str]) -> None:
    """Show or clear the cache that `mindseye` uses, or the one that `cache.folder=FOLDER` names.

    Raises ValueError where the folder cannot be read or not be cleared.
    """
    parser = argparse.ArgumentParser(
        prog="mindseye cache",
        description="What is kept between runs: the folder, its limit, and a table by kind, network, layer and set of "
        "photographs. `mindseye cache clear` deletes all of it, and nothing else in the folder.",
        epilog="examples: mindseye cache; mindseye cache clear cache.folder=/scratch/mindseye",
    )
    parser.add_argument("words", nargs="*", metavar="clear | cache.folder=FOLDER", help="as for mindseye itself")
    words = parser.parse_args(arguments).words
    overrides = [word for word in words if word != "clear"]
    wrong = [word for word in overrides if not word.startswith("cache.")]
    if wrong:
        raise ConfigurationError(f"mindseye cache takes clear and cache.folder=FOLDER, not {wrong[0]}")
    store = _open(overrides)
    try:
        if len(overrides) < len(words):
            count, freed = store.clear()
            print(f"{store.folder}: {_counted(count)} deleted, {readable_size(freed)} freed")
        else:
            _show(store)
    except OSError as error:
        raise ValueError(f"cache.folder={store.folder} cannot be used: {error.strerror or error}") from error


def _open(overrides: Sequence[str]) -> "Cache":
    from mindseye.commands.stages import open_cache

    opened = open_cache(check(compose([quoted(word, sweeps=False) for word in overrides])).cache)
    if opened is None:
        raise ConfigurationError("cache.limit_gb=0 is no cache: there is nothing to show or clear")
    return opened


def _show(store: "Cache") -> None:
    entries = store.entries()
    total = sum(entry.size for entry in entries)
    console = Console()
    if not console.is_terminal or console.width > _WIDTH:
        console = Console(width=_WIDTH)
    print(f"{store.folder}: {_counted(len(entries))}, {readable_size(total)} of {readable_size(store.limit_bytes)}")
    if entries:
        console.print(_table(entries))


def _table(entries: "Sequence[Entry]") -> Table:
    """A row for all entries of one kind, network, layer and set of photographs; the one used last first."""
    rows: dict[tuple[str, ...], list[Entry]] = {}
    for entry in entries:
        rows.setdefault(_subject(entry), []).append(entry)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("kind", "network", "layer"):
        table.add_column(heading, overflow="fold")
    for heading in ("photographs", "entries", "size", "last use"):
        table.add_column(heading, justify="right", no_wrap=True)
    for (kind, network, layer, photographs), group in sorted(rows.items()):
        size = readable_size(sum(entry.size for entry in group))
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(max(entry.used for entry in group)))
        table.add_row(kind, escape(network), escape(layer), photographs, str(len(group)), size, used)
    return table


def _subject(entry: "Entry") -> tuple[str, str, str, str]:
    """Kind, network, layer, photographs, as far as the entry's key names them."""
    key = entry.key
    survey = key.get("survey", key)
    if not isinstance(survey, Mapping) or not entry.kind:
        return entry.kind or "damaged", "", "", ""
    network, photographs = survey.get("network", {}), survey.get("photographs", {})
    return (
        entry.kind,
        str(network.get("name", "")),
        str(survey.get("layer", "")),
        f"{photographs.get('count', '')} × {photographs.get('size', '')}²",
    )


def _counted(count: int) -> str:
    return f"{count} entry" if count == 1 else f"{count} entries"

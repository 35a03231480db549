"""Which cells a sweep has: `manifest.json` in its folder. How each is doing, its own folder says.

A cell is known by its overrides, whatever their order, so that a changed grid only adds cells, and one that was begun
is found again under any number. Nothing heavy is imported here.
"""

import hashlib
import json
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from filelock import SoftFileLease

from mindseye.files import read_plain, write_atomically
from mindseye.leases import take

MANIFEST = "manifest.json"
FORMAT = 1
MOST_BYTES = 256 << 20  # more than a sweep of as many cells as may be takes
_LONGEST = 100  # characters of a cell's folder; file systems take 255 bytes
_LEASE_S = 20.0

# What decides which photographs a cell looks at and through which network. Cells that agree in these, and differ in the
# layer, can look at the photographs together.
_LOOKING = ("network", "images", "seed", "cache", "trainer", "precision", "experiment")
_LAYER = ("layer", "depth")


@dataclass(frozen=True)
class Cell:
    """One run of a sweep."""

    id: str  # 10 hex digits of its overrides' sha256
    folder: str  # below the sweep's
    overrides: tuple[str, ...]


@dataclass
class Manifest:
    """The cells of the sweep in `folder`, in the order in which they came, and the commands that asked for them."""

    folder: Path
    cells: dict[str, Cell] = field(default_factory=dict)
    commands: list[tuple[str, ...]] = field(default_factory=list)
    config_sha256: str = ""  # of the configuration without overrides, and the version, when the sweep was begun
    created: float = 0.0  # seconds since the epoch
    started_from: str = ""  # the folder in which the sweep was begun: relative ones in the overrides start there

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """Read it; empty where there is none. Raises ValueError where it is damaged."""
        path = Path(folder) / MANIFEST
        try:
            stored = json.loads(read_plain(path, path.parent, MOST_BYTES))
            if stored["format"] != FORMAT:
                raise ValueError(f"written in another format than {FORMAT}")
            cells = [Cell(cell["id"], cell["folder"], tuple(cell["overrides"])) for cell in stored["cells"]]
            words = [word for cell in cells for word in (cell.id, *cell.overrides)]
            for word in (*words, *(word for command in stored["commands"] for word in command)):
                if not isinstance(word, str):
                    raise ValueError(f"{word!r} is no text")
            for cell in cells:
                if not re.fullmatch(r"[\w.=,+@~-]+", cell.folder) or cell.folder in (".", ".."):
                    raise ValueError(f"{cell.folder!r} is no folder of a cell")
            commands = [tuple(words) for words in stored["commands"]]
            known = {cell.id: cell for cell in cells}
            created, there = float(stored["created"]), str(stored["started_from"])
            return cls(Path(folder), known, commands, str(stored["config_sha256"]), created, there)
        except FileNotFoundError:
            return cls(Path(folder), created=time.time())
        except (ValueError, KeyError, TypeError, AttributeError, OSError, RecursionError) as error:
            raise ValueError(f"{path} is no readable manifest of a sweep ({type(error).__name__}: {error})") from error

    def write(self) -> None:
        """Put it into the sweep's folder, as a whole or not at all."""
        stored = {
            "format": FORMAT,
            "created": self.created,
            "config_sha256": self.config_sha256,
            "started_from": self.started_from,
            "commands": [list(words) for words in self.commands],
            "cells": [
                {"id": cell.id, "folder": cell.folder, "overrides": list(cell.overrides)}
                for cell in self.cells.values()
            ],
        }
        write_atomically(self.folder / MANIFEST, json.dumps(stored, indent=1).encode())


def add_cells(
    folder: Path, asked: Iterable[Sequence[str]], command: Sequence[str], config_sha256: str, started_from: str = ""
) -> list[Cell]:
    """Add what is not there yet to the sweep's manifest; the cells for all that was `asked`, in its order.

    asked: the overrides of each cell. started_from: the folder the command was given in. Two commands on one sweep may
    do this at once. Raises ValueError for a damaged manifest, and for a sweep that was begun in another folder, where
    the same overrides may mean other photographs; the manifest is then left as it is.
    """
    folder.mkdir(parents=True, exist_ok=True)
    wanted = [tuple(overrides) for overrides in asked]
    varying = _varying(wanted) or None
    lock = SoftFileLease(folder / "manifest.lock", lease_duration=_LEASE_S, heartbeat_interval=_LEASE_S / 10)
    take(lock, _LEASE_S / 10, wait=True)
    try:
        manifest = Manifest.read(folder)
        if manifest.cells and manifest.started_from not in ("", started_from):
            raise ValueError(
                f"{folder} was begun in {manifest.started_from}, where its relative folders start; give the command "
                "there, or take another hydra.sweep.dir"
            )
        manifest.started_from = started_from
        manifest.config_sha256 = manifest.config_sha256 or config_sha256
        cells = {}
        for overrides in wanted:
            identity = cell_id(overrides)
            known = manifest.cells.get(identity)
            cell = known or Cell(identity, cell_folder(overrides, varying), overrides)
            cells[identity] = manifest.cells[identity] = cell
        if tuple(command) not in manifest.commands:
            manifest.commands.append(tuple(command))
        manifest.write()
    finally:
        lock.release()
    return list(cells.values())


def cell_id(overrides: Sequence[str]) -> str:
    """The same for the same overrides in any order of their keys (of one key twice the last counts).

    >>> cell_id(["k=10", "C=4"]) == cell_id(["C=4", "k=10"]) != cell_id(["C=4", "k=20"])
    True
    """
    settled = dict(word.partition("=")[::2] for word in overrides)
    return hashlib.sha256(json.dumps(sorted(settled.items())).encode()).hexdigest()[:10]


def as_written(word: str) -> str:
    r"""An override as a person would write it, without what Hydra's grammar puts before special characters.

    >>> as_written(r"network.target=my/net.py\:build")
    'network.target=my/net.py:build'
    """
    return re.sub(r"\\(.)", r"\1", word)


def cell_folder(overrides: Sequence[str], varying: Sequence[str] | None = None) -> str:
    """A name that people can read, and that no other cell has: what varies in the sweep, and the cell's id.

    >>> cell_folder(["network=resnet50", "k=10", "images.root=/data/a b"], ["network", "k"])
    'network=resnet50,k=10-215ce75af8'
    """
    words = [word for word in overrides if varying is None or word.partition("=")[0] in varying]
    readable = re.sub(r"[^A-Za-z0-9._=,+-]+", "_", as_written(",".join(word.lstrip("+~") for word in words)))
    readable = readable[: _LONGEST - 11].strip("._,-")
    return f"{readable}-{cell_id(overrides)}" if readable else cell_id(overrides)


def _varying(cells: Sequence[Sequence[str]]) -> list[str]:
    """The keys whose values differ between cells, in the order of the overrides."""
    values: dict[str, set[str]] = {}
    for overrides in cells:
        for word in overrides:
            key, _, value = word.partition("=")
            values.setdefault(key, set()).add(value)
    return [key for key, seen in values.items() if len(seen) > 1]


def layers_beside(manifest: Manifest, overrides: Sequence[str]) -> list[tuple[str | None, str | None]]:
    """(layer, depth) of every cell that looks at the same photographs through the same network as these overrides do.

    Its own is among them; None where an override does not name one.
    """
    mine = _looking(overrides)
    layers: dict[tuple[str | None, str | None], None] = {}
    for cell in manifest.cells.values():
        if _looking(cell.overrides) == mine:
            given = dict(word.partition("=")[::2] for word in cell.overrides)
            layer, depth = (given[name].strip("'\"") if name in given else None for name in _LAYER)
            layers[layer, depth] = None
    return list(layers)


def _looking(overrides: Sequence[str]) -> list[str]:
    keys = ("facets.batch_size", *_LOOKING)
    return sorted(word for word in overrides if word.lstrip("+~").partition("=")[0].startswith(keys))

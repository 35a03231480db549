"""What a run was computed from, by its bytes, so that a cell which is done can be held against what lies there now.

A cell is known by what was asked for. The same words may mean other weights, other code and other photographs a day
later, and its result is then of a network that is no more.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mindseye.files import read_plain
from mindseye.provenance import file_sha256
from mindseye.sweeps.manifest import Cell

if TYPE_CHECKING:
    from mindseye.facets.photographs import Photographs

INPUTS = "inputs"  # its key in metrics.json's provenance


def note_inputs(files: Mapping[str, str], root: str | None, photographs: "Photographs") -> dict[str, Any]:
    """What is kept of a run: the sha256 of each file by its path as it was given, and which photographs lie there.

    root: their folder as it was given; None where the photographs are the run's own.
    """
    shown = None if root is None else {"root": root, **_listing(photographs.root, photographs.paths)}
    return {"files": dict(files), "photographs": shown}


def _listing(root: Path, paths: Sequence[str]) -> dict[str, str]:
    """Two hashes: of the names alone, and of names, sizes and times, by which nothing need be read again."""
    states = []
    for path in paths:
        try:
            status = os.stat(root / path)
            states.append([path, status.st_size, status.st_mtime_ns])
        except OSError:
            states.append([path, 0, 0])
    return {"names": _hash(list(paths)), "states": _hash(states)}


def _hash(inputs: object) -> str:
    return hashlib.sha256(json.dumps(inputs).encode()).hexdigest()


def changed_cells(folder: Path, cells: Iterable[Cell]) -> dict[str, list[str]]:
    """The completed ones among `cells` whose inputs are no longer as they were: cell id -> what has changed, by name.

    Each file and folder is looked at once, however many cells name it; photographs are read again only where a size or
    a time has changed. Relative paths start here, as they do in the cells. What earlier versions wrote says nothing.
    """
    now = cache(file_sha256)
    shown = cache(_same_photographs)
    changed = {}
    for cell in cells:
        others = []
        with suppress(KeyError, TypeError, AttributeError, ValueError):  # earlier versions' results, and damaged ones
            metrics = _metrics(folder / cell.folder)
            noted = metrics["provenance"][INPUTS]
            others += [path for path, sha256 in noted["files"].items() if now(path) != sha256]
            if (kept := noted["photographs"]) is not None:
                unread = tuple(file["path"] for file in metrics["photographs"]["skipped_files"])
                content = metrics["provenance"]["photographs"]["sha256"]
                if not shown(kept["root"], kept["names"], kept["states"], content, unread):
                    others.append(kept["root"])
        if others:
            changed[cell.id] = others
    return changed


def _metrics(folder: Path) -> Mapping[str, Any]:
    try:
        content = read_plain(folder / "metrics.json", folder)
        return json.loads(content) if f'"{INPUTS}"'.encode() in content else {}
    except (OSError, ValueError, RecursionError):
        return {}


def _same_photographs(root: str, names: str, states: str, content: str | None, unread: tuple[str, ...]) -> bool:
    """Whether the folder holds the same photographs, by their bytes where their sizes or times are others.

    content: the sha256 over those that could be read, None where it is not known; unread: the others.
    """
    from mindseye.facets.content import content_of
    from mindseye.facets.photographs import Photographs, list_photographs

    place = Path(root).expanduser()
    paths, _, _ = list_photographs(place)
    listing = _listing(place, paths)
    if listing["names"] != names:
        return False
    if listing["states"] == states or content is None:
        return listing["states"] == states
    left_out = set(unread)
    readable = Photographs(place, tuple(path for path in paths if path not in left_out), 1)
    return content_of(readable).sha256(readable) == content

"""Which photographs they were, by their bytes, and whether they still are."""

import hashlib
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mindseye.facets.photographs import Photographs
from mindseye.words import printable

HASHERS = 4  # threads that read files to hash them
log = logging.getLogger(__name__)

_State = tuple[int, int, int, int] | None  # of a file: its inode, size, times of change; None where there is none


@dataclass(frozen=True)
class Content:
    """What M files held when they were hashed."""

    hashes: tuple[str, ...]  # sha256 of each; of one that cannot be read, why
    states: tuple[_State, ...]  # when it was hashed: a file whose state is the same was not written to since

    def sha256(self, photographs: Photographs) -> str:
        """Over the bytes of all files in order, and their suffixes, which tell arrays from pictures."""
        digest = hashlib.sha256()
        for path, sha256 in zip(photographs.paths, self.hashes, strict=True):
            digest.update(f"{Path(path).suffix.lower()}\0{sha256}\n".encode())
        return digest.hexdigest()

    def of(self, indices: Sequence[int]) -> "Content":
        """Of some of the files."""
        return Content(tuple(self.hashes[i] for i in indices), tuple(self.states[i] for i in indices))


_hashed_last: dict[tuple[Path, tuple[str, ...]], Content] = {}  # one at most


def content_of(photographs: Photographs) -> Content:
    """The hash of every file. Those that this process hashed last, and whose states are as they were, it does not read
    again: a run's judges, and the next cells of a sweep, look at the same photographs."""
    of = (photographs.root, tuple(photographs.paths))
    known, every = _hashed_last.get(of), range(len(photographs))
    states = [] if known is None else list(_of_each(_state, photographs, every))
    fresh = [i for i in every if known is None or states[i] is None or states[i] != known.states[i]]
    read = dict(zip(fresh, _of_each(_hashed, photographs, fresh), strict=True))
    hashed = [read[i] if known is None or i in read else (known.hashes[i], known.states[i]) for i in every]
    content = Content(tuple(sha256 for sha256, _ in hashed), tuple(state for _, state in hashed))
    _hashed_last.clear()
    _hashed_last[of] = content
    return content


def changed_since(content: Content, photographs: Photographs, indices: Sequence[int] | None = None) -> list[str]:
    """Which of these files (None: of all) have other bytes than when they were hashed, by name.

    Only those whose size, inode or times are not as they were are read for it.
    """
    indices = range(len(photographs)) if indices is None else indices
    states = zip(indices, _of_each(_state, photographs, indices), strict=True)
    touched = [index for index, state in states if state is None or state != content.states[index]]
    hashed = zip(touched, _of_each(_hashed, photographs, touched), strict=True)
    return [photographs.paths[index] for index, (now, _) in hashed if now != content.hashes[index]]


def say_changed(names: Sequence[str]) -> None:
    """One warning: what comes of a look at them is of no bytes that are known."""
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    log.warning("%s%s changed while the photographs were looked at: nothing is kept of them", printable(names[0]), more)


def _of_each(ask: Callable[[Path], Any], photographs: Photographs, indices: Sequence[int]) -> Iterator[Any]:
    with ThreadPoolExecutor(HASHERS) as pool:  # hashlib lets other threads run meanwhile
        for first in range(0, len(indices), 4096):
            files = [photographs.root / photographs.paths[index] for index in indices[first : first + 4096]]
            yield from pool.map(ask, files)


def _hashed(path: str | Path) -> tuple[str, _State]:
    try:
        with open(path, "rb") as file:
            state = _state(file.fileno())  # before it is read: what is written meanwhile changes it
            return hashlib.file_digest(file, "sha256").hexdigest(), state
    except OSError as error:
        return f"{Path(path).name}: {type(error).__name__}", None


def _state(file: Path | int) -> _State:
    try:
        status = os.stat(file)
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns

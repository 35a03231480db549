"""Files that are whole or not there, and that lie where they seem to. Nothing heavy is imported here."""

import errno
import functools
import hashlib
import operator
import os
import re
import secrets
import shutil
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

MOST_BYTES = 64 << 20  # of one text file of a run: more is none that a run writes
MOST_TENSOR_BYTES = 16 << 30  # of one file of tensors


class NotPlain(OSError):
    """What lies there is a link, a pipe, a device or a folder: it is not read."""


def plain_file(path: Path, within: Path) -> Path:
    """The path of a file that is reached from `within` through no link: what stands in a folder is read, and no more.

    Raises FileNotFoundError where there is none, NotPlain where it is a link, lies behind one, or is no regular file.
    """
    inside = path.relative_to(within).parts  # ValueError for a path elsewhere
    place, status = os.fspath(within), None
    for name in inside:
        place = os.path.join(place, name)
        try:
            status = os.lstat(place)
        except (FileNotFoundError, NotADirectoryError):
            raise FileNotFoundError(f"{path} is missing") from None
        if name == ".." or stat.S_ISLNK(status.st_mode):
            raise NotPlain(f"{place} is a link, and what it leads to is not read")
    if not stat.S_ISREG((status or os.stat(place)).st_mode):  # opening a FIFO would wait for ever
        raise NotPlain(f"{path} is no regular file")
    return path


def open_plain(path: Path) -> BinaryIO:
    """A regular file that is no link, opened for reading without waiting, as for a pipe. Raises NotPlain, OSError.

    It is looked at once it is open, so that nothing can take its place in between.
    """
    flags = (getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY", "O_CLOEXEC"))
    try:
        file = os.fdopen(os.open(path, os.O_RDONLY | functools.reduce(operator.or_, flags)), "rb")
    except IsADirectoryError as error:
        raise NotPlain(f"{path} is no regular file") from error
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):  # a link; a socket
            raise NotPlain(f"{path} is no regular file") from error
        raise
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise NotPlain(f"{path} is no regular file")
    return file


def read_plain(path: Path, within: Path, most: int = MOST_BYTES) -> bytes:
    """The bytes of a file that is reached from `within` through no link, at most `most` of them.

    So everything is read that lies in a folder of anybody's. Raises FileNotFoundError, NotPlain and other OSErrors,
    ValueError where it is larger.
    """
    with open_plain(plain_file(path, within)) as file:
        if os.fstat(file.fileno()).st_size > most:
            raise ValueError(f"{path} has more than {most:,} bytes")
        return file.read()


def hash_of(content: bytes) -> str:
    """sha256, 64 hex digits."""
    return hashlib.sha256(content).hexdigest()


def check_hash(name: str, content: bytes, hashes: Mapping[str, str]) -> None:
    """Raises ValueError where a file is not as its hash says; one that has none among `hashes` is."""
    if name in hashes and hash_of(content) != hashes[name]:
        raise ValueError(f"{name} is not as it was written: its sha256 is another")


_SCRATCH = re.compile(r"\.(?!gallery\.html).+\.\d+-[0-9a-f]{8}")  # a gallery is anybody's


def remove_scratch(folder: Path) -> None:
    """Delete what killed writers left half-written in the folder, if it is no link. Only for who alone writes there."""
    if folder.is_symlink():
        return
    with suppress(OSError):
        for name in os.listdir(folder):
            if _SCRATCH.fullmatch(name):
                with suppress(OSError):
                    os.unlink(folder / name)


def write_atomically(path: Path, content: bytes) -> None:
    """The file is either as before or all of `content`, whatever happens meanwhile.

    Raises OSError; where the disk is full, or what its owner may use of it, it says how many bytes are needed.
    """
    # Not the process's number alone: two containers may have the same on one shared folder.
    scratch = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(scratch, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(scratch, path)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            with suppress(OSError):
                scratch.unlink()  # before it is looked how much is free
            raise OSError(error.errno, _no_room(path, len(content), str(error.strerror)), str(path)) from error
        raise
    finally:
        with suppress(OSError):  # what went wrong before is what is to be said
            scratch.unlink()


def _no_room(path: Path, needed: int, reason: str) -> str:
    with suppress(OSError):
        here = next(place for place in path.absolute().parents if place.is_dir())
        return f"{reason}: {needed} bytes are needed, and {shutil.disk_usage(here).free} are free"
    return f"{reason}: {needed} bytes are needed"


def photograph_folder(root: str | os.PathLike[str]) -> Path:
    """A folder of photographs, `~` expanded. Raises FileNotFoundError where there is none."""
    try:
        folder = Path(root).expanduser()
    except RuntimeError:  # ~nobody
        folder = Path(root)
    if not folder.is_dir():
        fault = "is a file, not a folder" if folder.exists() else "does not exist"
        raise FileNotFoundError(f"{root} {fault}; name a folder of images or of class folders")
    return folder


def file_of_function(target: str) -> Path | None:
    """The file of what `path/to/file.py:function` names, `~` expanded; None for a dotted path. It is not imported.

    Raises ValueError where no function is named, FileNotFoundError.
    """
    place, _, _ = target.rpartition(":")
    if target.endswith(".py"):
        raise ValueError(f"{target!r} is a file: give {target}:FUNCTION, the function of it that builds the network")
    if not place.endswith(".py"):
        return None
    path = Path(place).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {str(path)!r} (looked in {Path.cwd()})")
    return path

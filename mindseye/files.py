"""Files that are whole or not there, and that lie where they seem to. Nothing heavy is imported here."""

import os
import secrets
from pathlib import Path


def plain_file(path: Path, within: Path) -> Path:
    """The path of a file that is reached from `within` through no link: what stands in a folder is read, and no more.

    Raises FileNotFoundError where there is none, OSError where it is a link, lies behind one, or is no regular file.
    """
    inside = path.relative_to(within).parts  # ValueError for a path elsewhere
    place = within
    for name in inside:
        place = place / name
        if name == ".." or place.is_symlink():
            raise OSError(f"{place} is a link, and what it leads to is not read")
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing")
    if not path.is_file():  # opening a FIFO would wait for ever
        raise OSError(f"{path} is no regular file")
    return path


def write_atomically(path: Path, content: bytes) -> None:
    """The file is either as before or all of `content`, whatever happens meanwhile."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not the process's number alone: two containers may have the same on one shared folder.
    scratch = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}")
    try:
        with open(scratch, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)

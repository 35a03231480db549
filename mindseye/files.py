"""Files that are whole or not there. Nothing heavy is imported here."""

import os
import secrets
from pathlib import Path


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

"""What a result came from: files by their bytes, installed versions, the checkout."""

import hashlib
import importlib.metadata
import os
import subprocess
from pathlib import Path


def file_sha256(path: str | Path) -> str:
    """Of a file's bytes, `~` expanded; "" where it cannot be read, or is a pipe, which would be waited for."""
    place = os.path.expanduser(path)
    try:
        if not os.path.isfile(place):
            return ""
        with open(place, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def code_of(*files: str) -> str:
    """sha256 over the content of source files, whatever their order and place: another program may compute otherwise.

    Nobody has to remember to raise a version when a computation changes. To be asked when the files are imported: who
    edits them during a sweep does not change what runs. A file that cannot be read counts by name.
    """
    return hashlib.sha256("".join(sorted(file_sha256(file) or Path(file).name for file in files)).encode()).hexdigest()


def versions(*packages: str) -> dict[str, str | None]:
    """The installed version of each package; None where it is not installed."""
    known: dict[str, str | None] = {}
    for package in packages:
        try:
            known[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            known[package] = None
    return known


def git_commit() -> str | None:
    """Of the checkout that this package is run from; None where it is installed."""
    here = Path(__file__).resolve().parent.parent
    if not (here / ".git").exists():
        return None
    try:
        asked = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return asked.stdout.strip()

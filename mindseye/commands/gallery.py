"""`mindseye gallery FOLDER`: one page, gallery.html, that shows a run, a sweep, or all runs below a folder."""

import argparse
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from mindseye.reports.gallery import ListedRun, copy_gallery, write_gallery
from mindseye.results.run_status import STATUS, RunStatus, read_status
from mindseye.sweeps.manifest import MANIFEST, as_written
from mindseye.sweeps.status import read_sweep
from mindseye.words import one_line

log = logging.getLogger(__name__)

_DEEPEST = 5  # levels below FOLDER at which runs are looked for: multirun/DATE/TIME/CELL has four


def gallery(arguments: list[str]) -> None:
    """Write the page. Raises ValueError where the folder holds no run, or cannot be written to."""
    parser = argparse.ArgumentParser(
        prog="mindseye gallery",
        description="Write FOLDER/gallery.html, a page for any browser that shows the runs below FOLDER: a sweep "
        "(hydra.sweep.dir), one run (hydra.run.dir), or a folder of such folders. It needs the folder beside it, and "
        "nothing else.",
        epilog="example: mindseye gallery multirun/2026-11-23/12-00-00",
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument(
        "--copy",
        type=Path,
        metavar="PLACE",
        help="write the page into the new folder PLACE, with the pictures that it shows and nothing else, to be sent "
        "or published",
    )
    blind = parser.add_argument_group("a blind test")
    blind.add_argument(
        "--blind",
        action="store_true",
        help="write FOLDER/blind.html instead: which of two held-out photographs belongs to a facet's picture? The key "
        "stays in FOLDER; `mindseye report FOLDER --answers FILE` turns people's answers into accuracies",
    )
    blind.add_argument("--questions", type=int, default=60, metavar="N", help="how many; default: 60")
    blind.add_argument("--seed", type=int, default=0, help="another one draws other questions; default: 0")
    blind.add_argument(
        "--images", type=Path, metavar="FOLDER", help="where the photographs lie now; default: where they were"
    )
    asked = parser.parse_args(arguments)
    folder = asked.folder.expanduser()
    copy = asked.copy.expanduser() if asked.copy else None
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder")
    try:
        if asked.blind:
            images = asked.images.expanduser() if asked.images else None
            print(make_blind_test(folder, copy, asked.questions, asked.seed, images))
        else:
            print(make_gallery(folder, copy))
    except OSError as error:
        why = str(error) if isinstance(error, FileExistsError) and not error.errno else error.strerror or error
        name = "blind.html" if asked.blind else "gallery.html"
        raise ValueError(f"{copy or folder}/{name} cannot be written: {why}") from error


def make_gallery(folder: Path, copy: Path | None = None) -> Path:
    """gallery.html for whatever runs are in the folder, there or, with its pictures, in the folder `copy`.

    ValueError where there is no run, OSError as writing has it.
    """
    notes: list[str] = []
    runs = list(runs_below(folder, notes))
    if not runs:
        raise ValueError(f"{folder} holds no run and no sweep: nothing in it has a {STATUS} or a metrics.json")
    if copy is not None:
        return copy_gallery(folder, copy, runs, notes=notes)
    return write_gallery(folder, runs, notes=notes)


def make_blind_test(
    folder: Path, copy: Path | None = None, questions: int = 60, seed: int = 0, images: Path | None = None
) -> Path:
    """blind.html for the completed runs in the folder, there or, with its pictures, in the new folder `copy`.

    Raises ValueError and OSError as `write_blind_test` has them, FileExistsError where `copy` has something in it.
    """
    from mindseye.reports.blind import write_blind_test  # torch

    if seed < 0:
        raise ValueError(f"--seed must be 0 or more, not {seed}")
    if copy is not None and copy.is_dir() and any(copy.iterdir()):
        raise FileExistsError(f"{copy} is not empty: name a new folder")
    runs = list(runs_below(folder, []))
    return write_blind_test(folder, runs, questions=questions, seed=seed, images=images, place=copy)


def try_gallery(folder: Path) -> Path | None:
    """The same at the end of a run or a sweep: None, and a warning, where it fails."""
    try:
        return make_gallery(folder)
    except Exception as error:  # whatever it is, it must not cost a run that is done
        log.warning("no gallery.html in %s: %s", folder, one_line(error))
        log.debug("the gallery failed", exc_info=True)
        return None


def runs_below(folder: Path, notes: list[str]) -> Iterator[ListedRun]:
    """The folder itself where it is a run, or else every run below it, cells of a sweep in the sweep's order.

    What a person should know of what was found is added to `notes`.
    """
    if _is_run(folder):
        yield _listed(folder, ".", read_status(folder))
        return
    yield from _runs_below(folder, folder, notes, 0)


def _runs_below(folder: Path, place: Path, notes: list[str], depth: int) -> Iterator[ListedRun]:
    if (place / MANIFEST).is_file():
        try:
            sweep = read_sweep(place)
        except ValueError as error:
            notes.append(f"{MANIFEST} is damaged, so cells that were not begun are missing here: {one_line(error)}")
        else:
            for cell, status in sweep.cells:
                path = (place / cell.folder).relative_to(folder).as_posix()
                overrides = tuple(as_written(str(word)) for word in cell.overrides)
                yield ListedRun(path, status, overrides, place.relative_to(folder).as_posix())
            return
    try:
        # os.path.isdir, unlike the entries of os.scandir, says no to a link that leads to itself
        inside = sorted(name for name in os.listdir(place) if not name.startswith(".") and os.path.isdir(place / name))
    except OSError as error:
        notes.append(f"{place.relative_to(folder)} cannot be read: {one_line(error)}")
        return
    for name in inside:
        below = place / name
        if _is_run(below):
            yield _listed(below, below.relative_to(folder).as_posix(), read_status(below))
        elif depth + 1 < _DEEPEST and not below.is_symlink():
            yield from _runs_below(folder, below, notes, depth + 1)


def _is_run(folder: Path) -> bool:
    return any((folder / name).is_file() for name in (STATUS, "metrics.json"))


def _listed(folder: Path, path: str, status: RunStatus) -> ListedRun:
    return ListedRun(path, status, tuple(as_written(word) for word in status.overrides))

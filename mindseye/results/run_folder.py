"""A run on disk: every file written whole or not at all, metrics.json last, so that its presence means completed."""

import io
import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from mindseye.facets.pictures import as_png, as_webp, to_picture
from mindseye.facets.targets import FacetTargets
from mindseye.files import (
    MOST_BYTES,
    MOST_TENSOR_BYTES,
    check_hash,
    hash_of,
    read_plain,
    remove_scratch,
    write_atomically,
)
from mindseye.results.pictures import band_sheet, contact_sheet, facet_labels
from mindseye.results.run_status import FEATURES, FILES
from mindseye.results.where import where_files
from mindseye.words import called, with_class

if TYPE_CHECKING:
    from mindseye.results.visualization import Visualization

WRITING = ".writing"  # the folder in a run folder where a result is put together
# The folders of an earlier run that a new one's replace, and what a run has in them.
REPLACED = {"facets": re.compile(r"\d{2,}|\..*"), "targets": re.compile(r"targets\.(json|safetensors)|\..*")}
RESULTS = ("images.safetensors", "history.parquet")  # what is computed with again
MOST_CONFIG_BYTES = 1 << 20  # of config.yaml
THUMBNAILS, THUMBNAIL = 20, 128  # photographs of a facet at most, and pixels of their longer side


def write_run(folder: Path, result: "Visualization", config: str | None = None) -> None:
    """Everything a run leaves behind; config: what config.yaml holds.

    An earlier run's result stays as it is until all of this one's is on disk; what a killed one left half-written goes.
    Raises ValueError where `facets` or `targets` in the folder hold something that is no run's, OSError as writing has
    it.
    """
    _check_replaceable(folder)
    written = folder / WRITING
    shutil.rmtree(written, ignore_errors=True)
    remove_scratch(folder)
    try:
        _write_all(written, result, config)
        _put_in_place(written, folder)
    except OSError:
        shutil.rmtree(written, ignore_errors=True)  # on a full disk it would be in the way
        raise


def _write_all(written: Path, result: "Visualization", config: str | None) -> None:
    targets, images, snapshots = result.targets, result.images, result.fit.snapshots
    targets.save(written / "targets")
    if config is not None:
        write_atomically(written / "config.yaml", config.encode())
    tensors = save_tensors({"images": images.contiguous()})
    write_atomically(written / "images.safetensors", tensors)
    if result.features:
        features = {name: x.contiguous() for name, x in result.features.items()}
        write_atomically(written / FEATURES, save_tensors(features))
    table = io.BytesIO()
    pq.write_table(pa.table({name: list(values) for name, values in result.fit.history.items()}), table)
    write_atomically(written / "history.parquet", table.getvalue())
    nearest = targets.nearest()
    # As many digits as the last step needs, so that names sort in the order of the steps.
    digits = max(4, *(len(str(step)) for step in snapshots)) if snapshots else 4
    for c in range(targets.C):
        place = written / "facets" / f"{c:02d}"
        for name, image in (("visualization", images[c]), ("initial", targets.initial[c]), ("nearest", nearest[c])):
            picture = to_picture(targets.shown(image))
            write_atomically(place / f"{name}.png", as_png(picture, drawn=name != "nearest"))
        write_atomically(place / "photographs.json", json.dumps(_photographs(targets, c), indent=1).encode())
        order = targets.weights[c].argsort(descending=True, stable=True)[:THUMBNAILS].tolist()
        for number, n in enumerate(order):
            small = _thumbnail(targets.shown(targets.photographs[c, n]))
            write_atomically(place / "photographs" / f"{number:02d}.webp", small)
        if result.where is not None:
            for name, content in where_files(result.where, targets, images[c], c, order).items():
                write_atomically(place / name, content)
        for step, pictures in snapshots.items():
            small = as_webp(to_picture(targets.shown(pictures[c])), 90)
            write_atomically(place / "steps" / f"{step:0{digits}d}.webp", small)
    labels = facet_labels(targets, result.metrics["facets"])
    sheet = contact_sheet(targets, images, labels, title=result.title, subtitle=result.subtitle)
    write_atomically(written / "facets.png", as_png(sheet))
    if images.shape[1] not in (1, 3):
        write_atomically(written / "bands.png", as_png(band_sheet(targets, images, title=result.title)))
    hashes = {name: hash_of(content) for name, content in zip(RESULTS, (tensors, table.getvalue()), strict=True)}
    write_atomically(written / "metrics.json", json.dumps({**result.metrics, FILES: hashes}, indent=1).encode())


def _check_replaceable(folder: Path) -> None:
    """Somebody may save a run into a folder of theirs."""
    for name, ours in REPLACED.items():
        place = folder / name
        other = [name for name in (os.listdir(place) if place.is_dir() else ()) if not ours.fullmatch(name)]
        if other:
            raise ValueError(f"{place} holds {min(other)}, which is no run's: save the run in another folder")


def _put_in_place(written: Path, folder: Path) -> None:
    """The new result where the earlier one is, by renaming alone: metrics.json goes first and comes last."""
    (folder / "metrics.json").unlink(missing_ok=True)
    for name in sorted(os.listdir(written), key=lambda name: (name == "metrics.json", name)):
        place = folder / name
        if place.is_symlink():
            place.unlink()
        elif place.is_dir():
            shutil.rmtree(place)  # an earlier run may have had more facets or steps
        os.replace(written / name, place)
    written.rmdir()


def _thumbnail(photograph: Tensor) -> bytes:
    """For the gallery, which shows nothing from outside of the run folder."""
    picture = to_picture(photograph).convert("RGB")
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    return as_webp(picture, 80, drawn=False)


def _photographs(targets: FacetTargets, c: int) -> list[dict[str, object]]:
    """The N photographs of a facet, the one with the largest weight first."""
    order = targets.weights[c].argsort(descending=True, stable=True).tolist()
    return [
        {
            "path": targets.paths[int(targets.chosen[c, n])],
            "weight": round(float(targets.weights[c, n]), 6),
            "distance": round(float(targets.distances[c, n]), 6),
        }
        for n in order
    ]


@dataclass(frozen=True)
class StoredRun:
    """A completed run read back. Its targets and settings are read when they are asked for."""

    folder: Path  # where it lies
    metrics: dict  # what metrics.json holds, without the hashes of the files
    images: Tensor  # [C, ch, S, S] in 0..1
    history: dict[str, list[float]]  # columns step, facet, loss terms …; of a `Visualization` it is fit.history

    @cached_property
    def targets(self) -> FacetTargets:
        """The facets that were drawn. Raises ValueError where the folder has none that can be read."""
        return FacetTargets.load(self.folder / "targets")

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The configuration that the command ran with, nested; empty of a run that was saved from Python without one.

        Raises ValueError where it cannot be read.
        """
        try:
            written = read_plain(self.folder / "config.yaml", self.folder, MOST_CONFIG_BYTES)
        except FileNotFoundError:
            return {}
        try:
            if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(written, yaml.SafeLoader)):
                raise ValueError("it has aliases, which no run writes")
            settings = yaml.safe_load(written)
            if not isinstance(settings, dict):
                raise ValueError("it holds no settings")
        except Exception as error:  # what damaged YAML makes its parser raise
            raise ValueError(f"{self.folder / 'config.yaml'} is damaged ({with_class(error)})") from error
        return settings

    def __repr__(self) -> str:
        """One line for a prompt, which would otherwise print every pixel."""
        return f"<StoredRun {self.folder}: {len(self.images)} facets>"


def read_run(folder: str | os.PathLike[str]) -> StoredRun:
    """Read a run folder, what `Visualization.save` or the command wrote.

    folder: the run's; `~` is expanded. Raises ValueError, in one line, where it holds no completed run.

    The folder may be anybody's: JSON, safetensors and Parquet are read, nothing in them is run, no link is followed.
    """
    if not isinstance(folder, str | os.PathLike):
        raise ValueError(f"the folder must be a path, not {called(folder)}")
    place = Path(folder).expanduser()
    if not (place / "metrics.json").is_file():
        raise ValueError(f"{place} holds no completed run: metrics.json, which is written last, is missing")
    try:
        written = read_plain(place / "metrics.json", place, MOST_BYTES)
        tensors, table = (read_plain(place / name, place, MOST_TENSOR_BYTES) for name in RESULTS)
        metrics = json.loads(written)
        hashes = metrics.pop(FILES, {})  # a run of an earlier version has none
        for name, content in zip(RESULTS, (tensors, table), strict=True):
            check_hash(name, content, hashes)
        images = load_tensors(tensors)["images"]
        history = pq.read_table(pa.BufferReader(table)).to_pydict()
    except Exception as error:
        raise ValueError(f"{place} is damaged ({type(error).__name__}: {' '.join(str(error).split())})") from error
    if not (_are_metrics(metrics) and _are_images(images) and _is_history(history)):
        raise ValueError(f"{place} is damaged: its images, history or metrics are not what a run writes")
    return StoredRun(place, metrics, images, history)


def _are_metrics(metrics: object) -> bool:
    if not isinstance(metrics, dict):
        return False
    source = metrics.get("provenance", {})
    parts = [source, *(metrics.get(name, {}) for name in ("summary", "baselines", "timing"))]
    if isinstance(source, dict):
        parts += [source.get(name, {}) for name in ("network", "targets", "versions", "device")]
    facets = metrics.get("facets", [])
    return isinstance(facets, list) and all(isinstance(part, dict) for part in (*parts, *facets))


def _are_images(images: Tensor) -> bool:
    return images.ndim == 4 and images.numel() > 0 and images.is_floating_point() and bool(images.isfinite().all())


def _is_history(history: Mapping[str, Sequence[object]]) -> bool:
    steps = history.get("step", [])
    return len(steps) > 0 and all(type(step) is int for step in steps)


def snapshot_files(folder: str | os.PathLike[str]) -> dict[int, list[Path]]:
    """The pictures on the way: step -> a file for each facet, steps rising; empty where none were kept.

    What has another name than a run gives, or is a link, is none of them. Raises ValueError, in one line, where the
    facets do not have the same steps.
    """
    snapshots: dict[int, list[Path]] = {}
    facets = Path(folder) / "facets"
    places = [] if facets.is_symlink() else sorted(_numbered(facets, r"(\d{1,9})"))
    for _, place in places:
        if (place / "steps").is_symlink():
            continue
        for step, file in _numbered(place / "steps", r"(\d{1,9})\.webp"):
            if file.is_file():  # a pipe would be waited for
                snapshots.setdefault(step, []).append(file)
    if any(len(files) != len(places) for files in snapshots.values()):
        raise ValueError(f"{folder} is damaged: its facets do not have pictures of the same steps")
    return dict(sorted(snapshots.items()))


def _numbered(folder: Path, pattern: str) -> list[tuple[int, Path]]:
    """What is in a folder under a name of this pattern, with the number in it; no links."""
    if not folder.is_dir():
        return []
    named = [(re.fullmatch(pattern, path.name, re.ASCII), path) for path in folder.iterdir() if not path.is_symlink()]
    return [(int(match[1]), path) for match, path in named if match]

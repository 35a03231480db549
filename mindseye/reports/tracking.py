"""What a finished run leaves with its trackers: measures, the sheet of all facets, the map, a table, the run folder."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mindseye.facets.pictures import to_picture
from mindseye.facets.targets import FacetTargets
from mindseye.reports.figures import feature_space
from mindseye.results.measures import numbers
from mindseye.visualizer.tracking import AXIS, Tracker, as_files

# Of a run folder's artifact: what trackers wrote themselves, the photographs, and what is there while the run is.
LEFT_OUT = ("wandb", "tensorboard", "csv", "checkpoint", "photographs", "running.lock", "status.json")
CHANGING = ("run.log", "gallery.html")  # written to later, so that the artifact has a copy of its own
PICTURED = ("facet", "nearest photographs", "initial image", "visualization")
NEAREST = 4  # photographs of a facet in the table
DPI = 150


def track_result(
    trackers: Sequence[Tracker], folder: Path, *, targets: FacetTargets, images: Tensor, metrics: Mapping, steps: int
) -> None:
    """Tell every tracker of a finished run: images [C, ch, S, S] in 0..1 and metrics as in the run folder `folder`.

    Numbers go to all, in panel metrics, pictures to wandb and TensorBoard, the table and the artifact to wandb.
    """
    told = [tracker for tracker in trackers if not tracker.failed]
    if not told:
        return
    figures = dict(numbers(metrics["summary"]))
    for tracker in told:
        tracker.log_measures({f"measures/{name}": value for name, value in figures.items()})
    for name, values in metrics["baselines"].items():
        figures |= {f"{name}/{key}": value for key, value in numbers(values)}
    for tracker in told:
        tracker.log_metrics({f"metrics/{name}": value for name, value in figures.items()}, steps)
    drawing = [tracker for tracker in told if tracker.is_wandb or tracker.is_tensorboard]
    if drawing:
        sheet = np.asarray(Image.open(folder / "facets.png").convert("RGB"))
        for tracker in drawing:
            tracker.picture("facets", sheet, steps)
        feature_map = drawing[0].attempt(lambda logger: _drawn(targets))
        for tracker in drawing if feature_map is not None else ():
            tracker.picture("map", feature_map, steps)
    for tracker in told:
        if tracker.is_wandb:
            tracker.attempt(lambda logger: _log_table(logger.experiment, targets, images, metrics, steps))
            tracker.attempt(lambda logger: logger.experiment.log_artifact(_artifact(folder, logger.experiment.id)))


def _drawn(targets: FacetTargets) -> np.ndarray:
    """The map of all photographs as a picture: uint8 [height, width, 3]."""
    stored = io.BytesIO()
    feature_space(targets).savefig(stored, format="png", dpi=DPI)
    return np.asarray(Image.open(stored).convert("RGB"))


def _log_table(experiment: Any, targets: FacetTargets, images: Tensor, metrics: Mapping, steps: int) -> None:
    with TemporaryDirectory() as folder:
        experiment.log({"facets_table": _table(targets, images, metrics, folder), AXIS: steps})


def _table(targets: FacetTargets, images: Tensor, metrics: Mapping, folder: str) -> object:
    """A wandb.Table with a row per facet; what the run was tells the rows of joined tables apart. Its pictures lie in
    the folder until it is logged."""
    import wandb

    about = {
        "network": metrics["provenance"]["network"]["name"], "layer": targets.layer,
        "k": targets.channels.shape[1], "C": targets.C,
    }  # fmt: skip

    rows = [
        dict(numbers({k: v for k, v in row.items() if k not in ("facet", "baselines")})) for row in metrics["facets"]
    ]
    names, marks = list(dict.fromkeys(name for row in rows for name in row)), targets.marks()
    table = wandb.Table(columns=[*about, *PICTURED, "nearest photograph's weight", "marks", *names])
    for c, row in enumerate(rows):
        order = targets.weights[c].argsort(descending=True, stable=True)[:NEAREST].tolist()
        strip = torch.cat([targets.shown(targets.photographs[c, n]) for n in order], dim=2)
        place = Path(folder, f"{c:03d}")
        place.mkdir()
        pictures = [to_picture(image) for image in (strip, *map(targets.shown, (targets.initial[c], images[c])))]
        row_pictures = as_files(pictures, str(place))
        paths = ", ".join(targets.paths[int(targets.chosen[c, n])] for n in order)
        table.add_data(
            *about.values(),
            c,
            wandb.Image(row_pictures[0], caption=paths),
            *map(wandb.Image, row_pictures[1:]),
            round(float(targets.weights[c].max()), 6),
            ", ".join(marks[c]),
            *(row.get(name) for name in names),
        )
    return table


def _artifact(folder: Path, run_id: str) -> object:
    """The run folder as a wandb.Artifact, without photographs and what trackers wrote there themselves."""
    import wandb

    artifact = wandb.Artifact(f"run-{run_id}", type="run")
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if name.parts[0] not in LEFT_OUT and path.is_file() and not path.is_symlink():  # what it leads to is not ours
            policy = "mutable" if name.as_posix() in CHANGING else "immutable"  # a second copy of these alone
            artifact.add_file(str(path), name=name.as_posix(), policy=policy)
    return artifact

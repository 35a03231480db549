"""`mindseye figures FOLDER`: the paper's figures of a run, and a sweep's pictures as grids, from its files alone."""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mindseye.commands.flows import flows_along, swept_settings
from mindseye.commands.views import LAYER, read_view, views_of_sweep
from mindseye.files import hash_of, plain_file
from mindseye.sweeps.manifest import MANIFEST, Cell, cell_folder
from mindseye.sweeps.status import SweepStatus, read_sweep

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

    from mindseye.facets.targets import FacetTargets
    from mindseye.reports.figures import DrawnLayer
    from mindseye.results.run_folder import StoredRun

LONGEST = 120  # characters of a figure's name


def figures(arguments: list[str]) -> None:
    """Write what the folder allows. Raises ValueError, in one line, where it allows nothing."""
    parser = argparse.ArgumentParser(
        prog="mindseye figures",
        description="Makes the paper's figures as PDF and PNG at print size: of a run 1 (visualisations), 2 (map and "
        "weights) and 3 (iterations); of a sweep 4 (layers × targets), 5 (how facets flow along a setting under which "
        "they change), and grids of its pictures.",
        epilog="example: mindseye figures outputs/2026-11-23/12-00-00 --facets 0 2 --video mp4",
    )
    parser.add_argument("folder", type=Path, help="of a run (hydra.run.dir) or a sweep (hydra.sweep.dir)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where to put them; default: FOLDER/figures")
    parser.add_argument("--facets", type=int, nargs="+", metavar="C", help="only these facets, in this order")
    parser.add_argument("--photographs", type=int, default=1, metavar="N", help="nearest in figure 1; 0: none")
    parser.add_argument("--width", choices=["column", "page"], help="of figures 1 and 3")
    parser.add_argument("--video", choices=["mp4", "webp"], help="the iterations of a run as a film, too")
    parser.add_argument("--view", metavar="VIEW", help="a view of the gallery's grid, as its Save gives it: one figure")
    parser.add_argument("--along", metavar="KEY", help="with --view and --video: a frame for each value of this axis")
    parser.add_argument("--fps", type=float, default=4.0, help="frames of it per second; default: 4")
    asked = parser.parse_args(arguments)
    folder = asked.folder.expanduser()
    out = (asked.out or folder / "figures").expanduser()
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder")
    if asked.video:
        from mindseye.reports.video import check_film

        check_film(asked.video, asked.fps)
    if asked.along and not (asked.view and asked.video):
        raise ValueError("--along is for a film of a view: give --view and --video, too")
    if asked.view:
        view = read_view(folder, asked.view)
        if asked.video and not asked.along:
            raise ValueError("--video of a view needs --along KEY, the axis that it plays along")
        if asked.along:
            print(view.film(asked.along, out / f"view.{asked.video}", asked.video, asked.fps))
            return
        drawn = {"view": view.figure()}
    elif (folder / MANIFEST).is_file():
        if asked.video or asked.facets:
            raise ValueError(f"{folder} is a sweep: --video and --facets are for the folder of one of its runs")
        drawn = of_sweep(folder)
    else:
        drawn = of_run(folder, asked.facets, asked.photographs, asked.width)
    from mindseye.reports.figures import save_figure

    for name, figure in drawn.items():
        for path in save_figure(figure, out / name):
            print(path)
    if asked.video:
        print(film(folder, out / f"iterations.{asked.video}", asked.video, asked.fps))


def of_run(folder: Path, facets: Sequence[int] | None, photographs: int, width: str | None) -> "dict[str, Figure]":
    """Figures 1 to 3 of a run folder by their files' names; what it does not allow is named on standard error."""
    import torch

    from mindseye.reports.figures import COLUMN, PAGE, feature_space, iterations, visualizations
    from mindseye.results.run_folder import read_run, snapshot_files

    run = read_run(folder)
    C = len(run.images)
    listed = list(range(C)) if facets is None else list(facets)
    if wrong := [c for c in listed if not 0 <= c < C]:
        raise ValueError(f"--facets {wrong[0]}: the run has facets 0 to {C - 1}")
    if photographs < 0:
        raise ValueError(f"--photographs must be 0 or more, not {photographs}")
    # A run that was saved from Python has no targets.
    targets = _targets(folder) if (folder / "targets").is_dir() else None
    if targets is not None and targets.C != C:
        raise ValueError(f"{folder} is damaged: it has {C} pictures of {targets.C} facets")
    heading = heading_of(run, targets)
    labels, marks = [f"facet {c}" for c in listed], marks_of(run, listed)
    inches = {None: None, "column": COLUMN, "page": PAGE}[width]
    nearest, initial = (_pictures_named(folder, listed, name) for name in ("nearest", "initial"))
    above = None
    if photographs and targets is not None:
        order = targets.weights.argsort(dim=1, descending=True, stable=True)[:, :photographs]
        above = torch.stack([targets.shown(targets.photographs[c, order[c]]) for c in listed])
    elif photographs:
        above = nearest[:, None]
    images = torch.stack([_picture_of(run, c) for c in listed])
    first = visualizations(images, above, labels=labels, marks=marks, heading=heading, width=inches)
    drawn = {"fig1_visualizations": first}
    if targets is None:
        _left_out("figure 2", f"{folder / 'targets'}, the facets themselves, is missing")
    else:
        drawn["fig2_feature_space"] = feature_space(targets, facets=listed, heading=heading)
    files = snapshot_files(folder)
    if not files:
        _left_out("figure 3", f"{folder} keeps no pictures of single iterations; snapshots=N keeps them every N steps")
    else:
        if any(len(of_step) != C for of_step in files.values()):
            raise ValueError(f"{folder} is damaged: pictures of single iterations of some facets are missing")
        pictures = {step: _read([files[step][c] for c in listed]) for step in files}
        pictures[max(run.history["step"])] = images  # the last one as it is, without WebP's losses
        drawn["fig3_iterations"] = iterations(
            nearest, pictures, initial=initial, labels=labels, marks=marks, heading=heading, width=inches or PAGE
        )
    return drawn


def of_sweep(folder: Path) -> "dict[str, Figure]":
    """Figure 4 of a sweep over layers, one for each combination of what else was swept; figure 5 along every setting
    under which facets change; and of whatever else was swept the pictures as grids. Cells that are not completed are
    named."""
    sweep = read_sweep(folder)
    completed = [cell for cell, status in sweep.cells if status.status == "completed"]
    for cell, status in sweep.cells:
        if status.status != "completed":
            _left_out(cell.folder, f"it is {status.status}")
    if len(completed) < 2:
        raise ValueError(
            f"{folder} has no two completed cells to be held against each other; for figures 1 to 3 name the folder of "
            "one of its cells"
        )
    grids = views_of_sweep(folder, [cell.folder for cell in completed])
    return {**_layers(folder, completed), **_flows(sweep), **{name: view.figure() for name, view in grids.items()}}


def _flows(sweep: SweepStatus) -> "dict[str, Figure]":
    """Figure 5 along every swept setting under which facets change."""
    from mindseye.reports.figures import FlowColumn, facet_flow
    from mindseye.results.run_folder import read_run

    drawn = {}
    for setting in swept_settings(sweep):
        flows = flows_along(sweep, setting)
        for held, cells in flows:
            columns = [FlowColumn(cell.facets, _all_seen(read_run(cell.folder))) for cell in cells]
            name = f"fig5_flow_{setting}" + (f"_{held.replace(' ', ',')}" if len(flows) > 1 else "")
            title = f"facets along {setting}: ribbons are the photographs that two share"
            heading = f"{title} · {held}" if held else title
            drawn[_file_name(name)] = facet_flow(columns, heading=heading)
    return drawn


def _file_name(name: str) -> str:
    """What a file can be called; where that is another name, or a shorter one, no other name's."""
    plain = re.sub(r"[^\w.,=+-]", "_", name)
    if plain == name and len(name) <= LONGEST:
        return name
    return f"{plain[: LONGEST - 11]}-{hash_of(name.encode())[:10]}"


def _layers(folder: Path, completed: Sequence[Cell]) -> "dict[str, Figure]":
    """Figure 4 of cells that differ in the layer alone; empty where there are none."""
    from mindseye.reports.figures import layers_by_targets

    groups: dict[tuple[str, ...], list[Cell]] = {}
    for cell in completed:
        groups.setdefault(_all_but_the_layer(cell), []).append(cell)
    groups = {others: cells for others, cells in groups.items() if len(cells) > 1}
    if not groups:
        return {}
    varying = {word.partition("=")[0] for word in set.union(*map(set, groups)) - set.intersection(*map(set, groups))}
    drawn = {}
    for others, cells in groups.items():
        rows, heading = [], ""
        for cell in cells:
            row, heading = _layer_row(folder / cell.folder)
            rows.append(row)
        name = "fig4_layers" if len(groups) == 1 else f"fig4_layers_{cell_folder(others, sorted(varying))}"
        drawn[name] = layers_by_targets(rows, heading=heading)
    return drawn


def _picture_of(run: "StoredRun", c: int) -> "Tensor":
    """Facet c's picture, of more than three bands those that the run itself shows."""
    return _all_seen(run)[c]


def _all_seen(run: "StoredRun") -> "Tensor":
    return run.images if run.images.shape[1] <= 3 else run.targets.shown(run.images)


def _no_link(folder: Path) -> Path:
    if folder.is_symlink():
        raise ValueError(f"{folder} is a link, and what it leads to is not read")
    return folder


def film(folder: Path, path: Path, form: str, fps: float) -> Path:
    """The iterations of a run as one file, from the initial image to the visualisation."""
    from mindseye.reports.video import write_video
    from mindseye.results.run_folder import read_run, snapshot_files

    run, shown = read_run(folder), snapshot_files(folder)
    steps, C = max(map(int, run.history["step"])), len(run.images)
    if shown:
        first, last = (
            [plain_file(folder / "facets" / f"{c:02d}" / f"{name}.png", folder) for c in range(C)]
            for name in ("initial", "visualization")
        )
        shown = {0: first, **shown, steps: last}
    return write_video(shown, path, form, steps=steps, fps=fps, marks=marks_of(run, range(C)))


def marks_of(run: "StoredRun", facets: Sequence[int]) -> list[str]:
    """What to know of each facet, as the run's metrics say it; "" for nothing."""
    rows = {row.get("facet"): row for row in run.metrics.get("facets", ()) if isinstance(row, dict)}
    return [str(rows.get(c, {}).get("marks", "")) for c in facets]


def heading_of(run: "StoredRun", targets: "FacetTargets | None") -> str:
    """Network, layer and k, as far as the folder says."""
    network = str(run.metrics.get("provenance", {}).get("network", {}).get("name", ""))
    layer = str(run.metrics.get("provenance", {}).get("targets", {}).get("layer", ""))
    top = "" if targets is None else f"top {targets.k} of {targets.maps.shape[1]} channels"
    return " · ".join(part for part in (network, layer, top) if part)


def _layer_row(folder: Path) -> "tuple[DrawnLayer, str]":
    from mindseye.reports.figures import DrawnLayer
    from mindseye.results.run_folder import read_run

    run, targets = read_run(_no_link(folder)), _targets(folder)
    if len(run.images) != targets.C:
        raise ValueError(f"{folder} is damaged: it has {len(run.images)} pictures of {targets.C} facets")
    network = run.metrics.get("provenance", {}).get("network", {}).get("name", "")
    M = len(targets.paths)
    shared = f"a column: facets that share most of {M} photographs with the last layer's; facet, overlap"
    heading = f"{network} · {shared}" if network else shared
    return DrawnLayer(targets.layer, targets, targets.shown(run.images)), heading


def _targets(folder: Path) -> "FacetTargets":
    from mindseye.facets.targets import FacetTargets

    if (folder / "targets").is_symlink():
        raise ValueError(f"{folder / 'targets'} is a link, and what it leads to is not read")
    return FacetTargets.load(folder / "targets")


def _all_but_the_layer(cell: Cell) -> tuple[str, ...]:
    return tuple(sorted(word for word in cell.overrides if word.lstrip("+").partition("=")[0] not in LAYER))


def _pictures_named(folder: Path, facets: Sequence[int], name: str) -> "Tensor":
    return _read([plain_file(folder / "facets" / f"{c:02d}" / f"{name}.png", folder) for c in facets])


def _read(files: Sequence[Path]) -> "Tensor":
    import torch

    from mindseye.results.pictures import from_picture

    pictures = [from_picture(file) for file in files]
    if len({picture.shape for picture in pictures}) > 1:
        raise ValueError(f"{files[0].parent.parent} is damaged: its pictures are of several sizes")
    return torch.stack(pictures)


def _left_out(figure: str, why: str) -> None:
    print(f"mindseye: {figure} is left out: {why}", file=sys.stderr)

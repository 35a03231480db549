"""A wandb workspace for a project of runs: pictures on one step axis, the facets' table, curves, bars, settings.

wandb-workspaces makes it; nothing here asks a server before `save`.
"""

import importlib.util
import json
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mindseye.words import one_line

if TYPE_CHECKING:
    from wandb_workspaces.workspaces import Section, Workspace

# By how far to trust them: what another network sees, then what the layer itself does.
MEASURES = (
    "transfer.gain", "transfer.cosine", "transfer.retrieval", "transfer.forced_choice", "fidelity.cosine",
    "path.target",
)  # fmt: skip
# What trackers are told, by the names in `visualizer.tracking`, which would bring torch and Lightning along.
AXIS = "trainer/global_step"
CURVES = (
    "loss/dm", "loss/ad", "loss/strength", "loss/matching", "loss/penalty", "loss/tv", "loss/total", "distance/mdist",
    "distance/r", "distance/b",
)  # fmt: skip
MOST_RUNS = 100  # in a panel: wandb's own default is 10
NAMED = "choices"  # where a run's configuration has the files it took from groups: choices.objective is published


def check_installed() -> None:
    """Raise ValueError where wandb-workspaces is not there: it comes with the extra wandb."""
    if importlib.util.find_spec("wandb_workspaces") is None:
        raise ValueError("a dashboard needs wandb-workspaces: pip install 'mindseye[wandb]'")


def workspace(
    entity: str, project: str, *, by: Sequence[str] = (), group: str | None = None, name: str = "mindseye"
) -> "Workspace":
    """The workspace, not saved yet.

    by: configuration keys that runs are grouped by, dotted ones too, the swept settings say; none is the runs' own
    group, their sweep. Curves and bars are then means over the runs of a group, with their standard error: of seeds,
    where all else is named. group: show the runs of this sweep alone.
    """
    os.environ.setdefault("WANDB_SILENT", "true")  # it has a word on settings that it does without
    import wandb_workspaces.workspaces as ws

    keys: list[ws.Config | ws.Metric] = [ws.Config(key) for key in by]
    return ws.Workspace(
        entity=entity,
        project=project,
        name=name,
        sections=[_pictures(), _measures(), _facets(), _curves(), _settings(by)],
        settings=ws.WorkspaceSettings(x_axis=AXIS, max_runs=MOST_RUNS, group_by_prefix="first"),
        runset_settings=ws.RunsetSettings(
            groupby=keys or [ws.Metric("Group")],
            filters="" if group is None else ws.And(ws.Metric("Group") == group),
            pinned_columns=[*(f"config:{key}" for key in by), *(f"summary:metrics/{measure}" for measure in MEASURES)],
        ),
    )


def _pictures() -> "Section":
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws

    half, whole = wr.Layout(w=12, h=14), wr.Layout(w=24, h=14)
    panels = [
        wr.MediaBrowser(
            title="A run in each row, its steps side by side", media_keys=["visualization"], mode="grid",
            grid_x_axis="step", grid_y_axis="run", layout=whole,
        ),
        wr.MediaBrowser(
            title="Runs side by side, the slider is the step", media_keys=["visualization"], mode="gallery",
            gallery_axis="step", num_columns=2, layout=whole,
        ),
        wr.MediaBrowser(title="All facets", media_keys=["facets"], mode="gallery", gallery_axis="run", layout=half),
        wr.MediaBrowser(title="Maps", media_keys=["map"], mode="gallery", gallery_axis="run", layout=half),
    ]  # fmt: skip
    return ws.Section(name="Pictures", panels=panels, is_open=True, layout_settings=_layout(columns=1))


def _measures() -> "Section":
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws

    panels = [
        wr.BarPlot(
            title=f"{measure}: mean of a group, ± standard error", metrics=[f"metrics/{measure}"], orientation="v",
            groupby_aggfunc="mean", groupby_rangefunc="stderr", max_bars_to_show=MOST_RUNS,
        )
        for measure in MEASURES
    ]  # fmt: skip
    return ws.Section(name="Measures", panels=panels, is_open=True, layout_settings=_layout(columns=3))


def _facets() -> "Section":
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws

    table = wr.WeavePanelSummaryTable(table_name="facets_table", layout=wr.Layout(w=24, h=14))
    return ws.Section(name="Facets", panels=[table], is_open=True, layout_settings=_layout(columns=1))


def _curves() -> "Section":
    """Of losses, the distance, and the gradient of each term, which may lie decades apart."""
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws

    def lines(title: str, *keys: str, every: str | None = None) -> wr.LinePlot:
        return wr.LinePlot(
            title=title, x=AXIS, y=list(keys), metric_regex=every, log_y=True if every else None,
            groupby_aggfunc="mean", groupby_rangefunc="stderr", max_runs_to_show=MOST_RUNS,
        )  # fmt: skip

    # By a pattern, so that terms of one's own are there, too.
    panels = [lines("Which term draws: gradient/", every="gradient/.*"), *(lines(key, key) for key in CURVES)]
    return ws.Section(name="Curves", panels=panels, is_open=True, layout_settings=_layout(columns=3))


def _settings(by: Sequence[str]) -> "Section":
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws

    best = f"metrics/{MEASURES[0]}"
    scatter = [wr.ScatterPlot(x=wr.Config(key), y=wr.SummaryMetric(best), title=f"{best} by {key}") for key in by]
    panels = [*scatter, wr.ParameterImportancePlot(with_respect_to=best), wr.RunComparer(diff_only="split")]
    return ws.Section(name="Settings", panels=panels, layout_settings=_layout(columns=2))


def _layout(columns: int) -> object:
    import wandb_workspaces.workspaces as ws

    return ws.SectionLayoutSettings(columns=columns, rows=2)


def as_json(made: "Workspace") -> str:
    """What would be sent, as wandb has it."""
    return json.dumps(made._to_model().model_dump(by_alias=True, exclude_none=True), indent=1)


def save(made: "Workspace") -> str:
    """Save it as a new view of the project, and say its address. Raises ValueError, in one line, where that fails."""
    try:
        return str(made.save().url)
    except Exception as error:  # no account, no network, no such project: each in a class of wandb's own
        raise ValueError(
            f"the dashboard was not saved ({one_line(error)}): wandb login, and name a project of yours; --json prints "
            "it without a server"
        ) from error

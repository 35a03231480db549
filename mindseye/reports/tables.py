"""What a run came to, on one screen of 80 columns, and which cells of a sweep are the best."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Group
from rich.markup import escape
from rich.table import Table

from mindseye.results.measures import MEASURES, OWN_TERMS, is_own, numbers

if TYPE_CHECKING:
    from mindseye.results.visualization import Visualization


def closing_table(result: "Visualization") -> Group:
    """A row per facet, then their mean and the three baselines' means, without those facets that were stopped.

    What each other network sees, and what is known of the facets themselves, stand in tables of their own.
    """
    metrics = result.metrics
    summary = dict(numbers(metrics["summary"]))
    names = [name for name, measure in MEASURES.items() if measure.column and name in summary]
    judged = [name for name in names if name.startswith("transfer.")]
    of_facets = [name for name in names if name.startswith("facets.")]
    title = f"{result.title}\n{result.subtitle}"
    tables = [_table(metrics, [name for name in names if name not in (*judged, *of_facets)], title)]
    judges = metrics["summary"].get("transfer", {}).get("networks", {})
    for judge in judges:
        tables.append(_table(_as_seen_by(judge, metrics), judged, f"as {judge} sees them"))
    if judged and not judges:
        tables.append(_table(metrics, judged, "as another network sees them"))
    own = [name for name in summary if is_own(name)]
    if own:
        tables.append(_table(metrics, own, "measures and terms of your own"))
    if of_facets:
        tables.append(_table({**metrics, "baselines": {}}, of_facets, "the facets themselves"))
    return Group(*tables)


def _as_seen_by(judge: str, metrics: dict) -> dict:
    """The same with the figures of one of several networks that judge in place of the first one's."""

    def of(row: dict) -> dict:
        return {**row, "transfer": row["transfer"]["networks"][judge]}

    return {
        "facets": [of(row) for row in metrics["facets"]],
        "summary": of(metrics["summary"]),
        "baselines": {name: of(row) for name, row in metrics["baselines"].items()},
    }


def _table(metrics: dict, names: list[str], title: str) -> Table:
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), expand=False)
    table.add_column("facet", no_wrap=True)
    for name in names:
        column = MEASURES[name].column if name in MEASURES else name.removeprefix(OWN_TERMS)
        table.add_column(column, justify="right", no_wrap=name in MEASURES)
    for row in metrics["facets"]:
        marks = "".join(f"\n{mark}" for mark in str(row.get("marks", "")).split(", ") if mark)
        stopped = f" (stopped\nat step {row['stopped']['step']})" if "stopped" in row else ""
        table.add_row(f"{row['facet']}{marks}{stopped}", *_shown(row, names))
    table.add_section()
    table.add_row("mean", *_shown(metrics["summary"], names), style="bold")
    for label, figures in metrics["baselines"].items():
        table.add_row(label, *_shown(figures, names), style="dim")
    return table


def _shown(figures: dict, names: list[str]) -> list[str]:
    known = dict(numbers(figures))
    return [f"{known[name]:.2f}" if name in known else "" for name in names]


def ranking_table(title: str, measure: str, cells: Sequence[tuple[str, float, float]], most: int) -> Table:
    """The first `most` of cells, each (what tells it apart, the mean of the measure over its facets, seconds)."""
    table = Table(title=title, box=None, padding=(0, 2, 0, 0), title_justify="left")
    table.add_column("", justify="right")
    table.add_column("cell", overflow="fold")
    table.add_column(measure, justify="right")
    table.add_column("seconds", justify="right")
    for place, (name, mean, seconds) in enumerate(cells[:most], start=1):
        table.add_row(str(place), escape(name), f"{mean:.4f}", f"{seconds:.0f}")
    if len(cells) > most:
        table.add_row("…", f"{len(cells) - most} more in summary.csv", "", "")
    return table

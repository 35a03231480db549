"""What a run came to, on one screen of 80 columns."""

from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table

if TYPE_CHECKING:
    from mindseye.results.visualization import Visualization

COLUMNS = {
    "fide-\nlity": ("fidelity", "cosine"),
    "dis-\ntance": ("fidelity", "relative_distance"),
    "magni-\ntude": ("fidelity", "magnitude"),
    "selec-\ntivity": ("selectivity",),
    "retrie-\nval": ("retrieval",),
    "TV ×\nphotos": ("naturalness", "tv"),
    "trans-\nfer": ("transfer", "cosine"),
    "retrie-\nval ": ("transfer", "retrieval"),
    "agree-\nment": ("transfer", "agreement"),
}


def closing_table(result: "Visualization") -> Table:
    """A row per facet, then their mean and the three baselines' means, without those facets that were stopped."""
    metrics = result.metrics
    columns = {name: path for name, path in COLUMNS.items() if _at(metrics["summary"], path) is not None}
    apart = 1 if len(columns) <= 6 else 0  # with a judge's columns as well 80 would be too few
    title = f"{result.title}\n{result.subtitle}"
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, apart, 0, 0), expand=False)
    table.add_column("facet", no_wrap=True)
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    for row in metrics["facets"]:
        name = str(row["facet"]) + (f" (stopped at step {row['stopped']['step']})" if "stopped" in row else "")
        table.add_row(name, *(_shown(_at(row, path)) for path in columns.values()))
    table.add_section()
    table.add_row("mean", *(_shown(_at(metrics["summary"], path)) for path in columns.values()), style="bold")
    for name, figures in metrics["baselines"].items():
        table.add_row(name, *(_shown(_at(figures, path)) for path in columns.values()), style="dim")
    return table


def _at(figures: dict, path: tuple[str, ...]) -> float | None:
    found: Any = figures
    for name in path:
        if name not in found:
            return None
        found = found[name]
    return found


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"

"""`mindseye report FOLDER`: what one setting of a sweep does, paired over everything else, as tables."""

import argparse
import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mindseye.commands.flows import FlowCell, flows_along, swept_settings, with_samples
from mindseye.commands.gallery import try_gallery
from mindseye.files import write_atomically
from mindseye.reports.ablation import (
    Comparison,
    NoPairs,
    as_csv,
    as_json,
    as_latex,
    as_markdown,
    compare,
    usual_measures,
)
from mindseye.reports.cells import FoldedCell, fold, ranked
from mindseye.reports.cells import as_csv as as_cells_csv
from mindseye.reports.findings import find, sentences
from mindseye.reports.flow import as_csv as as_flow_csv
from mindseye.reports.flow import transitions
from mindseye.reports.response import in_words, responses
from mindseye.settings import is_seed
from mindseye.sweeps.status import SweepStatus, read_sweep
from mindseye.sweeps.summary import Row, read_rows

WIDTH = 200
MOST_CELLS = 40


def report(arguments: list[str]) -> None:
    """Print the comparison and write it into the folder. Raises ValueError where there is nothing to compare."""
    parser = argparse.ArgumentParser(
        prog="mindseye report",
        description="Holds every value of one swept setting against a reference value, pair by pair over facets, seeds "
        "and all other settings, and writes report.md, .tex, .csv and .json into the folder, and its gallery anew. "
        "Where facets change with the setting, flow.csv says how they go over into one another.",
        epilog="example: mindseye report multirun/2026-11-23/12-00-00 --by objective.gain",
    )
    parser.add_argument("folder", type=Path, help="a sweep's (hydra.sweep.dir)")
    parser.add_argument("--by", default="ablation", help="the swept setting; default: ablation")
    parser.add_argument("--reference", default=None, help="the value to hold the others against; default: the first")
    parser.add_argument("--measures", nargs="+", default=None, help="columns, by their names in summary.csv")
    parser.add_argument(
        "--answers",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="instead: people's answers to `mindseye gallery FOLDER --blind`, as accuracies in blind.csv and .json",
    )
    asked = parser.parse_args(arguments)
    if asked.answers:
        _report_answers(asked.folder.expanduser(), asked.answers)
        return
    sweep = read_sweep(asked.folder)
    rows = with_samples(sweep, read_rows(sweep))
    flows = flows_along(sweep, asked.by)
    if flows:
        _write_flows(sweep.folder / "flow.csv", asked.by, flows)
    cells = _folded(sweep, rows, asked.by, asked.measures or usual_measures(rows))
    reference = asked.reference
    if reference is None:
        reference = next((str(row[f"override.{asked.by}"]) for row in rows if f"override.{asked.by}" in row), "none")
    try:
        comparison = compare(rows, asked.by, reference, measures=asked.measures)
    except NoPairs:
        if not flows:
            raise
        _print_cells(cells)
        return  # facets that differ from cell to cell cannot be held against each other: their flow is what there is
    response = tuple(line for line in responses(rows, sweep.folder) if line.setting == asked.by)
    comparison = replace(comparison, response=response)
    comparison = replace(comparison, sentences=tuple(sentences(find(rows, comparison))))
    forms = {".md": as_markdown, ".tex": as_latex, ".csv": as_csv, ".json": as_json}
    written = {suffix: form(comparison) for suffix, form in forms.items()}
    files = [sweep.folder / f"report{suffix}" for suffix in written]
    for file, content in zip(files, written.values(), strict=True):
        write_atomically(file, content.encode())
    page = try_gallery(sweep.folder)
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    console.print(_shown(comparison))
    for sentence in comparison.sentences:
        console.print(f"- {sentence}", highlight=False, markup=False)
    _print_cells(cells)
    for file in [*files, *([page] if page else [])]:
        console.print(str(file), soft_wrap=True, highlight=False, markup=False)


def _folded(sweep: SweepStatus, rows: Sequence[Row], by: str, measures: Sequence[str]) -> list[FoldedCell]:
    """The cells with swept seeds, all but `by`, folded away, the best first, in cells.csv; none without such seeds."""
    seeds = [name for name in swept_settings(sweep) if is_seed(name) and name != by]
    if not seeds:
        return []
    varying = set(swept_settings(sweep))
    cells = [
        replace(cell, settings={name: value for name, value in cell.settings.items() if name in varying})
        for cell in fold(rows, seeds, measures)
    ]
    measure = next((name for name in measures if any(name in cell.means for cell in cells)), None)
    if measure is None:
        return []
    cells = ranked(cells, measure)
    write_atomically(sweep.folder / "cells.csv", as_cells_csv(cells).encode())
    return cells


def _print_cells(cells: Sequence[FoldedCell]) -> None:
    if not cells:
        return
    measures = list(cells[0].means)
    table = Table(title="cells over their seeds: mean ± half of the 95 % interval", box=box.SIMPLE_HEAD)
    table.add_column("cell")
    for measure in measures:
        table.add_column(measure.replace(".", "\n"), justify="right")
    table.add_column("seeds", justify="right")
    for cell in cells[:MOST_CELLS]:
        shown = [_with_half(cell, measure) for measure in measures]
        settings = " ".join(f"{name}={value}" for name, value in cell.settings.items())
        table.add_row(escape(settings), *shown, str(cell.seeds))
    if len(cells) > MOST_CELLS:
        table.caption = f"{len(cells) - MOST_CELLS} more in cells.csv"
    console = Console()
    (console if console.is_terminal else Console(width=WIDTH)).print(table)


def _with_half(cell: FoldedCell, measure: str) -> str:
    if measure not in cell.means:
        return ""
    mean, half = cell.means[measure], cell.halves[measure]
    return f"{mean:.3f}" if math.isnan(half) else f"{mean:.3f} ± {half:.3f}"


def _write_flows(file: Path, setting: str, flows: Sequence[tuple[str, Sequence[FlowCell]]]) -> None:
    """flow.csv, and in words what becomes of the facets from each value of the setting to the next."""
    partitions = [(held, [cell.facets for cell in cells]) for held, cells in flows]
    write_atomically(file, as_flow_csv(setting, partitions).encode())
    console = Console(width=WIDTH)
    for held, cells in flows:
        for first, second in pairwise(cell.facets for cell in cells):
            where = f"{setting} {first.label} → {second.label}{f' ({held})' if held else ''}"
            console.print(f"{where}: {'; '.join(transitions(first, second))}", highlight=False, markup=False)
    console.print(str(file), soft_wrap=True, highlight=False, markup=False)


def _report_answers(folder: Path, answers: list[Path]) -> None:
    from mindseye.reports.blind import scoring  # torch

    accuracies = scoring.score(folder, [path.expanduser() for path in answers])
    written = {".csv": scoring.as_csv(accuracies), ".json": scoring.as_json(accuracies)}
    for suffix, content in written.items():
        write_atomically(folder / f"blind{suffix}", content.encode())
    files = (str(folder / f"blind{suffix}") for suffix in written)
    for line in (*scoring.sentences(accuracies), scoring.CAUTION, *files):
        print(line)


def _shown(comparison: Comparison) -> Table:
    table = Table(title=f"difference to {escape(comparison.by)}={escape(comparison.reference)}", box=box.SIMPLE_HEAD)
    table.add_column(escape(comparison.by))
    for measure in comparison.means:
        table.add_column(measure.replace(".", "\n"), justify="right")
    means = (f"{mean:.3f}" for mean in comparison.means.values())
    table.add_row(f"{escape(comparison.reference)} itself", *means, style="dim")
    for variant in dict.fromkeys(difference.variant for difference in comparison.differences):
        mine = {line.measure: line for line in comparison.differences if line.variant == variant}
        cells = [
            ""
            if measure not in mine
            else f"[bold]{mine[measure].difference:+.3f}*[/]"
            if mine[measure].clear
            else f"{mine[measure].difference:+.3f}"
            for measure in comparison.means
        ]
        table.add_row(escape(variant), *cells)
    response = in_words(comparison.response, comparison.by)
    table.caption = "*: the 95 % interval leaves 0 out" + (f"\n{escape(response)}" if response else "")
    return table

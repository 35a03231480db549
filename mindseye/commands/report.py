"""`mindseye report FOLDER`: what one setting of a sweep does, paired over everything else, as tables."""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mindseye.commands.flows import FlowCell, flows_along
from mindseye.commands.gallery import try_gallery
from mindseye.files import write_atomically
from mindseye.reports.ablation import Comparison, NoPairs, as_csv, as_json, as_latex, as_markdown, compare
from mindseye.reports.flow import as_csv as as_flow_csv
from mindseye.reports.flow import transitions
from mindseye.reports.response import in_words, responses
from mindseye.sweeps.status import read_sweep
from mindseye.sweeps.summary import read_rows

WIDTH = 200


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
    asked = parser.parse_args(arguments)
    sweep = read_sweep(asked.folder)
    rows = read_rows(sweep)
    flows = flows_along(sweep, asked.by)
    if flows:
        _write_flows(sweep.folder / "flow.csv", asked.by, flows)
    reference = asked.reference
    if reference is None:
        reference = next((str(row[f"override.{asked.by}"]) for row in rows if f"override.{asked.by}" in row), "none")
    try:
        found = compare(rows, asked.by, reference, measures=asked.measures)
    except NoPairs:
        if not flows:
            raise
        return  # facets that differ from cell to cell cannot be held against each other: their flow is what there is
    found = replace(found, response=tuple(one for one in responses(rows, sweep.folder) if one.setting == asked.by))
    written = {".md": as_markdown(found), ".tex": as_latex(found), ".csv": as_csv(found), ".json": as_json(found)}
    files = [sweep.folder / f"report{suffix}" for suffix in written]
    for file, content in zip(files, written.values(), strict=True):
        write_atomically(file, content.encode())
    page = try_gallery(sweep.folder)
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    console.print(_shown(found))
    for file in [*files, *([page] if page else [])]:
        console.print(str(file), soft_wrap=True, highlight=False, markup=False)


def _write_flows(file: Path, setting: str, flows: Sequence[tuple[str, Sequence[FlowCell]]]) -> None:
    """flow.csv, and in words what becomes of the facets from each value of the setting to the next."""
    partitions = [(held, [one.facets for one in cells]) for held, cells in flows]
    write_atomically(file, as_flow_csv(setting, partitions).encode())
    console = Console(width=WIDTH)
    for held, cells in flows:
        for one, other in pairwise(cell.facets for cell in cells):
            where = f"{setting} {one.label} → {other.label}{f' ({held})' if held else ''}"
            console.print(f"{where}: {'; '.join(transitions(one, other))}", highlight=False, markup=False)
    console.print(str(file), soft_wrap=True, highlight=False, markup=False)


def _shown(found: Comparison) -> Table:
    table = Table(title=f"difference to {escape(found.by)}={escape(found.reference)}", box=box.SIMPLE_HEAD)
    table.add_column(escape(found.by))
    for measure in found.means:
        table.add_column(measure.replace(".", "\n"), justify="right")
    table.add_row(f"{escape(found.reference)} itself", *(f"{mean:.3f}" for mean in found.means.values()), style="dim")
    for variant in dict.fromkeys(one.variant for one in found.differences):
        mine = {one.measure: one for one in found.differences if one.variant == variant}
        cells = [
            ""
            if measure not in mine
            else f"[bold]{mine[measure].difference:+.3f}*[/]"
            if mine[measure].clear
            else f"{mine[measure].difference:+.3f}"
            for measure in found.means
        ]
        table.add_row(escape(variant), *cells)
    response = in_words(found.response, found.by)
    table.caption = "*: the 95 % interval leaves 0 out" + (f"\n{escape(response)}" if response else "")
    return table

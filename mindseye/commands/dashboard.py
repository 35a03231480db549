"""`mindseye dashboard ENTITY/PROJECT`: the workspace in wandb that docs/wandb.md describes."""

import argparse
import re
from pathlib import Path

from mindseye.commands.composing import groups
from mindseye.commands.flows import swept_settings
from mindseye.commands.tracking import group_of
from mindseye.reports import dashboard as panels
from mindseye.settings import is_seed
from mindseye.sweeps.status import read_sweep


def dashboard(arguments: list[str]) -> None:
    """Save the workspace and print its address, or print it. Raises ValueError where it cannot be made or saved."""
    parser = argparse.ArgumentParser(
        prog="mindseye dashboard",
        description="Make a workspace in a wandb project: pictures on one step axis, measures as bars, the facets' "
        "table, curves of losses, distance and gradients, grouped by the swept settings.",
        epilog="example: mindseye dashboard my-team/mindseye --sweep multirun/2026-11-23/12-00-00",
    )
    parser.add_argument("project", metavar="ENTITY/PROJECT")
    parser.add_argument(
        "--sweep",
        type=Path,
        metavar="FOLDER",
        help="show the runs of this sweep (hydra.sweep.dir) alone, grouped by what it sweeps but for the seed",
    )
    parser.add_argument("--by", nargs="+", default=None, metavar="KEY", help="group runs by these settings instead")
    parser.add_argument("--name", default="mindseye", help="of the workspace; default: mindseye")
    parser.add_argument("--json", action="store_true", help="print it, and ask no server")
    asked = parser.parse_args(arguments)
    match = re.fullmatch(r"([^/\s]+)/([^/\s]+)", asked.project)
    if match is None:
        raise ValueError(f"name whose project it is, ENTITY/PROJECT, as in my-team/mindseye, not {asked.project}")
    panels.check_installed()
    keys, group = list(asked.by or ()), None
    if asked.sweep is not None:
        sweep = read_sweep(asked.sweep)
        group = group_of(sweep.folder.absolute())
        keys = keys or [key for key in swept_settings(sweep) if not is_seed(key)]
    made = panels.workspace(match[1], match[2], by=[in_config(key) for key in keys], group=group, name=asked.name)
    print(panels.as_json(made) if asked.json else panels.save(made))


def in_config(key: str) -> str:
    """Where a setting stands in the configuration that a tracker has: of a group it is the name of its file.

    >>> in_config("objective"), in_config("objective.gain"), in_config("k")
    ('choices.objective', 'objective.gain', 'k')
    """
    return f"{panels.NAMED}.{key}" if key in groups() else key

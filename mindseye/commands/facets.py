"""`mindseye facets C=2..12`: how many kinds of photographs a layer tells apart, before anything is drawn."""

import argparse
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table

from mindseye.commands.checking import check, check_photographs, searched
from mindseye.commands.composing import ConfigurationError
from mindseye.commands.constructors import check_constructors, compose_known
from mindseye.commands.grammar import quoted

if TYPE_CHECKING:
    from mindseye.facets.number import Choice

USUAL = "2..12"
MOST = 100  # the largest C that may be asked for


def facets(arguments: list[str]) -> None:
    """Print silhouette and firmness of every C that is asked for, mark the best, and draw them.

    Raises ValueError, OSError in one line for what cannot be done.
    """
    parser = argparse.ArgumentParser(
        prog="mindseye facets",
        description="How many kinds of photographs a layer tells apart: silhouette and firmness over the number of "
        "facets C, as a table and a picture. C=auto of a run takes the same best one.",
        epilog="example: mindseye facets C=2..12 network=resnet50 layer=layer4.2 images=folder images.root=FOLDER",
    )
    parser.add_argument("overrides", nargs="*", metavar="C=2..12", help="which C to try; and settings as for mindseye")
    parser.add_argument("--config-dir", metavar="FOLDER", help="files of your own, FOLDER/network/mine.yaml")
    parser.add_argument("--picture", default="number-of-facets.png", metavar="FILE", help="where the picture goes")
    options = parser.parse_intermixed_args(arguments)
    asked = [word for word in options.overrides if re.match(r"\+*C=", word)]
    numbers = wanted(asked[-1].partition("=")[2] if asked else USUAL)
    choice, title = look([word for word in options.overrides if word not in asked], numbers, options.config_dir)
    console = Console()
    console.print(choice_table(choice, title))
    console.print(choice.reason, soft_wrap=True, highlight=False, markup=False)
    from mindseye.facets.pictures import MADE_HERE
    from mindseye.reports.number import draw_choice

    draw_choice(choice, title).save(options.picture, pnginfo=MADE_HERE)
    console.print(options.picture, soft_wrap=True, highlight=False, markup=False)


def wanted(text: str) -> list[int]:
    """`2..12` or `2,4,8` as numbers. Raises ConfigurationError for anything else.

    >>> wanted("2..5"), wanted("2,8"), wanted("3")
    ([2, 3, 4, 5], [2, 8], [3])
    """
    if match := re.fullmatch(r"(\d+)\.\.(\d+)", text):
        numbers = list(range(int(match[1]), min(int(match[2]), MOST + 1) + 1))
    elif re.fullmatch(r"\d+(,\d+)*", text):
        numbers = sorted(map(int, text.split(",")))
    else:
        numbers = []
    if not numbers or numbers[0] < 2 or numbers[-1] > MOST:
        raise ConfigurationError(f"C must be a range of 2..{MOST}, C=2..12 say, not {text}")
    return numbers


def look(overrides: list[str], numbers: list[int], own: str | None = None) -> tuple["Choice", str]:
    """What the layer that the settings name says of the photographs, and a title. own: a folder of further settings."""
    run = check(compose_known([*searched(own), *(quoted(word, sweeps=False) for word in overrides)]))
    check_constructors(run.parts)
    from mindseye.commands.parts import pick_device
    from mindseye.commands.stages import find_photographs, make_network, open_cache
    from mindseye.facets.content import content_of
    from mindseye.facets.discovery import set_aside
    from mindseye.facets.grouping import number_of_kinds
    from mindseye.facets.number import MOST_KINDS
    from mindseye.facets.survey import Passing, survey
    from mindseye.networks.chance import seeded
    from mindseye.networks.preparing import prepare

    check_photographs(run.images.root)
    with seeded(run.drawing.seed):
        network = make_network(run.parts["network"], "network")
    layer = network.resolve(run.layer, run.depth)
    network.to(pick_device(run.running.accelerator))
    looking = prepare(network, layer)
    with tempfile.TemporaryDirectory() as folder:
        photographs, _ = find_photographs(run, network, Path(folder))
        seen = survey(
            looking,
            photographs,
            layer,
            Passing(run.facets.batch_size, workers=run.facets.workers),
            cache=open_cache(run.cache),
            content=content_of(photographs),
        )
    # As C=auto of a run has them, which then finds the same.
    kept, _ = set_aside(seen, run.facets.held_out, MOST_KINDS * run.facets.N, run.facets.seed)
    choice = number_of_kinds(kept, run.facets, numbers)
    return choice, f"{network.name} · {layer} · {len(kept.photographs)} photographs"


def choice_table(choice: "Choice", title: str) -> Table:
    """A row per C, the best in bold."""
    table = Table(title=title, box=box.SIMPLE_HEAD)
    for head in ("C", "silhouette", "one cloud's", "above it", "firmness"):
        table.add_column(head, justify="right", no_wrap=True)
    columns = (choice.silhouette, choice.cloud, choice.excess, choice.firmness)
    for C, *values in zip(choice.numbers, *columns, strict=True):
        best = choice.best == C
        table.add_row(f"{'→ ' if best else ''}{C}", *(f"{v:.2f}" for v in values), style="bold" if best else None)
    return table

"""The house as a drawing, read from the package's own imports: `python scripts/architecture_diagram.py` writes
docs/architecture.svg.

Rooms stand in the order of the data, each with its modules. Thick arrows are what is handed on; a thin line leads from
each room that imports another to that one, and always upwards: an import that leads down fails the drawing.
"""

import ast
import html
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
PACKAGE = PROJECT / "mindseye"
DRAWN = PROJECT / "docs" / "architecture.svg"

# In the order of the data. A room imports from those above it; reports and sweeps, side by side, not from one another.
ROOMS = {
    "demo": "drawn photographs of known facets, and a network trained on them",
    "networks": "what is looked into: frozen networks, their layers, what a layer answers",
    "facets": "what the layer sees in the photographs: survey, embedding, weights",
    "visualizer": "the optimisation: plain torch, and Lightning around it",
    "results": "what came out: measures beside their baselines, the run folder",
    "reports": "for people: gallery, figures, films, tables",
    "sweeps": "many runs: which there are, how they are doing, what came of them",
    "commands": "one file per verb of the command line; Hydra lives here alone",
}
SIDE_BY_SIDE = ("reports", "sweeps")
# Modules at the top, which every room may import.
SHARED = ("fields", "files", "leases", "provenance", "settings", "signals", "tensors", "words")
# What one room hands to the next: the class, its module in the room, and what it holds.
HANDED_ON = {
    "networks": ("Network", "network", "frozen, with its normalisation"),
    "facets": ("FacetTargets", "targets", "initial images, target maps, top-k channels"),
    "visualizer": ("Fit", "fitting", "images, history, snapshots"),
    "results": ("Visualization", "visualization", "images, measures, targets"),
}
ENTERS = {"networks": "trained network", "facets": "photographs"}
READ_BACK = ("reports", "sweeps")  # out of the run folder alone

WIDTH, LEFT, RIGHT = 830, 140, 618  # of the drawing, and where rooms begin and end
TITLE, LINE, GAP, PAD = 24, 17, 40, 12
LETTERS = 62  # of a line of modules
LANE, FIRST_LANE = 27, 26
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#a65c8f", "#8a6d00", "#3f8fc0", "#b5483a")  # read on white and on black

LIGHT = "--ink: #1c252c; --soft: #55626c; --box: #f2f5f7; --edge: #b9c4cc; --flow: #37474f;"
DARK = "--ink: #e6ebef; --soft: #a9b6bf; --box: #20272d; --edge: #55636d; --flow: #b0bec5;"
# By the reader's system; in the site by the site's own switch.
STYLE = f"""
.house {{ {LIGHT} font-family: system-ui, sans-serif; }}
@media (prefers-color-scheme: dark) {{ .house {{ {DARK} }} }}
[data-md-color-scheme="default"] .house {{ {LIGHT} }}
[data-md-color-scheme="slate"] .house {{ {DARK} }}
.house text {{ fill: var(--ink); font-size: 13px; }}
.house .room {{ font-size: 16px; font-weight: 600; }}
.house .said, .house .holds {{ fill: var(--soft); font-size: 12.5px; }}
.house .modules, .house .value {{ font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: 12px; }}
.house .value {{ font-weight: 600; }}
.house rect {{ fill: var(--box); stroke: var(--edge); }}
.house .flow {{ fill: none; stroke: var(--flow); stroke-width: 3; }}
.house .head {{ fill: var(--flow); stroke: none; }}
.house .lane {{ fill: none; stroke-width: 1.8; }}
"""


def imports(package: Path = PACKAGE) -> Mapping[tuple[str, str], Sequence[str]]:
    """(room that imports, room that is imported) -> the modules that do. Raises ValueError where one leads down."""
    order = list(ROOMS)
    edges: dict[tuple[str, str], set[str]] = {}
    for path in sorted(package.rglob("*.py")):
        here = path.relative_to(package).parts[0]
        if here not in ROOMS:  # the package's own names and what every room shares
            if path.parent == package and (path.stem in SHARED or path.stem.startswith("__")):
                continue
            raise ValueError(f"{path}: in no room of the drawing")
        for module, line in _imported(path):
            there = module.split(".")[1] if module.startswith("mindseye.") else ""
            if there in ("", here, *SHARED):
                continue
            if there not in ROOMS:
                raise ValueError(f"{path}:{line} imports {module}, which is in no room of the drawing")
            beside = here in SIDE_BY_SIDE and there in SIDE_BY_SIDE
            if order.index(there) > order.index(here) or beside:
                raise ValueError(f"{path}:{line} imports {module}: {here} stands before {there}")
            edges.setdefault((here, there), set()).add(path.stem)
    return {pair: sorted(modules) for pair, modules in sorted(edges.items())}


def _imported(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module == "mindseye":
            yield from ((f"mindseye.{alias.name}", node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or "", node.lineno


def modules(room: str, package: Path = PACKAGE) -> Sequence[str]:
    """What stands in a room: its modules, and folders with what is in them."""
    names = []
    for path in sorted((package / room).iterdir(), key=lambda path: (path.is_dir(), path.name)):
        if path.suffix == ".py" and path.stem != "__init__":
            names.append(path.stem)
        elif (path / "__init__.py").exists():
            inner = [file.stem for file in sorted(path.glob("*.py")) if file.stem != "__init__"]
            names.append(f"{path.name}/ ({', '.join(inner)})")
    return names


def _check_values(package: Path) -> None:
    for room, (name, module, _) in HANDED_ON.items():
        path = package / room / f"{module}.py"
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if not any(isinstance(node, ast.ClassDef) and node.name == name for node in tree.body):
            raise ValueError(f"{path} has no class {name}, which the drawing says {room} hands on")


def drawing(package: Path = PACKAGE) -> str:
    """The SVG. Raises ValueError where an import leads to a room below, or what is handed on is not there."""
    _check_values(package)
    edges = imports(package)
    places = _places(package)
    height = places["commands"][1] + 10
    description = "The rooms of mindseye in the order of the data. " + " ".join(
        f"{room} imports {', '.join(there for here, there in edges if here == room)}."
        for room in ROOMS if any(here == room for here, _ in edges)
    )
    parts = [
        f'<svg class="house" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        'aria-labelledby="house-title house-said">',
        '<title id="house-title">The house: rooms, what they hand on, who imports whom</title>',
        f'<desc id="house-said">{html.escape(description)}</desc>',
        f"<style>{STYLE}</style>",
        *_lanes(edges, places),
    ]
    for room in ROOMS:
        parts += _room(room, places[room], package)
    parts += [*_flows(places), *_legend(places)]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _places(package: Path) -> Mapping[str, tuple[int, int]]:
    """Top and bottom of every room."""
    places, y = {}, 6
    for room in ROOMS:
        height = PAD + TITLE + LINE + LINE * len(_lines(room, package)) + PAD
        places[room] = (y, y + height)
        y += height + GAP
    return places


def _lines(room: str, package: Path) -> Sequence[str]:
    return textwrap.wrap(", ".join(modules(room, package)), LETTERS, break_long_words=False, break_on_hyphens=False)


def _text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    named = f' class="{kind}"' if kind else ""
    return f'<text x="{x:g}" y="{y:g}"{named} text-anchor="{anchor}">{html.escape(words)}</text>'


def _room(room: str, place: tuple[int, int], package: Path) -> list[str]:
    top, bottom = place
    dashed = ' stroke-dasharray="5 4"' if room == "demo" else ""
    parts = [f'<rect x="{LEFT}" y="{top}" width="{RIGHT - LEFT}" height="{bottom - top}" rx="6"{dashed}/>']
    y = top + PAD + 15
    parts += [_text(LEFT + 14, y, f"{room}/", "room"), _text(LEFT + 14, y + TITLE - 3, ROOMS[room], "said")]
    for n, line in enumerate(_lines(room, package)):
        parts.append(_text(LEFT + 14, y + TITLE + LINE * (n + 1), line, "modules"))
    return parts


def _arrow(points: Sequence[tuple[float, float]], dashed: bool = False) -> str:
    """A thick arrow along the points; its head is at the last."""
    (x0, y0), (x, y) = points[-2:]
    dx, dy = (x > x0) - (x < x0), (y > y0) - (y < y0)
    line = [*points[:-1], (x - 8 * dx, y - 8 * dy)]
    path = "M" + " L".join(f"{a:g} {b:g}" for a, b in line)
    corners = ((x, y), *((x - 10 * dx - side * dy, y - 10 * dy - side * dx) for side in (6, -6)))
    head = " ".join(f"{a:g},{b:g}" for a, b in corners)
    dashes = ' stroke-dasharray="5 4"' if dashed else ""
    return f'<path class="flow" d="{path}"{dashes}/><polygon class="head" points="{head}"/>'


def _flows(places: Mapping[str, tuple[int, int]]) -> list[str]:
    parts = []
    x = LEFT + 40
    for room, below in pairwise(ROOMS):
        bottom, top = places[room][1], places[below][0]
        if room == "demo":
            parts += [
                _arrow([(x, bottom), (x, top)], dashed=True),
                _text(x + 16, bottom + GAP / 2 + 5, "where nobody has photographs or a network", "holds"),
            ]
        elif room in HANDED_ON and room != "results":
            name, _, holds = HANDED_ON[room]
            parts += [
                _arrow([(x, bottom), (x, top)]),
                _text(x + 16, bottom + GAP / 2 + 5, name, "value"),
                _text(x + 26 + 7.4 * len(name), bottom + GAP / 2 + 5, holds, "holds"),
            ]
    for room, entering in ENTERS.items():
        y = sum(places[room]) / 2
        parts += [_arrow([(10, y + 8), (LEFT, y + 8)]), _text(10, y - 4, entering)]
    # What comes out: the value, and the run folder, which all that stands below reads.
    top, bottom = places["results"]
    name = HANDED_ON["results"][0]
    y, folder = top + 26, bottom - 22
    parts += [_arrow([(LEFT, y + 8), (10, y + 8)]), _text(10, y - 4, name, "value")]
    parts.append(_text(10, folder - 8, "run folder"))
    turn = 40
    for room in READ_BACK:
        there = sum(places[room]) / 2
        parts.append(_arrow([(LEFT, folder), (turn, folder), (turn, there), (LEFT, there)]))
    return parts


def _legend(places: Mapping[str, tuple[int, int]]) -> list[str]:
    y = places["commands"][1] - 40
    return [
        _arrow([(10, y), (40, y)]), _text(48, y + 4, "is handed on", "holds"),
        f'<g stroke="{COLOURS[0]}" fill="{COLOURS[0]}"><path class="lane" d="M14 {y + 24} H30"/>'
        f'<polygon points="40,{y + 24} 29,{y + 18.5} 29,{y + 29.5}"/><circle cx="14" cy="{y + 24}" r="3.6"/></g>',
        _text(48, y + 28, "imports", "holds"),
    ]  # fmt: skip


def _lanes(edges: Mapping[tuple[str, str], Sequence[str]], places: Mapping[str, tuple[int, int]]) -> list[str]:
    """For each imported room a line beside the rooms: up to it with a head, and a branch from each that imports it."""
    parts = []
    imported = [room for room in ROOMS if any(there == room for _, there in edges)]
    for n, room in enumerate(imported):
        x = RIGHT + FIRST_LANE + LANE * (len(imported) - 1 - n)
        colour = COLOURS[n % len(COLOURS)]
        into = places[room][0] + 18
        lowest = into
        for here in (other for other in ROOMS if (other, room) in edges):
            others = [there for there in imported if (here, there) in edges]
            first, last = places[here]
            y = first + 36 + (last - first - 48) * (others.index(room) + 0.5) / len(others)
            by = ", ".join(edges[here, room])
            parts.append(
                f'<g stroke="{colour}" fill="{colour}"><title>{here} imports {room}: {html.escape(by)}</title>'
                f'<path class="lane" d="M{RIGHT} {y:.1f} H{x}"/><circle cx="{x}" cy="{y:.1f}" r="3.6"/></g>'
            )
            lowest = max(lowest, y)
        parts.append(
            f'<g stroke="{colour}" fill="{colour}"><title>imported: {room}</title>'
            f'<path class="lane" d="M{x} {lowest:.1f} V{into:.1f} H{RIGHT + 9}"/>'
            f'<polygon points="{RIGHT},{into:.1f} {RIGHT + 11},{into - 5.5:.1f} {RIGHT + 11},{into + 5.5:.1f}"/></g>'
        )
    return parts


if __name__ == "__main__":
    DRAWN.write_text(drawing(), encoding="utf-8")
    print(DRAWN)

"""Holds the method to what other networks see, beside parts of it and other people's ways: `make truth`.

A sweep through mindseye's own command, so that finished cells are passed over and the same command line goes on after
an interruption: methods × starts × drawing networks and layers × photographs × seeds of discovery. Then a table with
bootstrap intervals, one contact sheet, and a page of both in the folder: truth.json, truth.md, sheet.png, index.html.

    python scripts/truth.py                          # what needs no download: EfficientNet-Lite0 and the demo's network
    python scripts/truth.py --quick                  # a tiny one, to see that everything runs
    python scripts/truth.py --images cinemas=FOLDER \\
        --network mobilenet_v2=network=mobilenet_v2,layer=features.18,layer=features.10 \\
        --network squeezenet1_1=network=squeezenet1_1,layer=features.12
    python scripts/truth.py … --only calibrated vital --seeds 0      # fewer cells; the others can follow
    python scripts/truth.py … --long                 # a second table: other people's ways with as many steps as theirs

Each network draws, and judges what the others drew; what it is given are mindseye's own settings (network=…), `layer`
as often as it has layers to be drawn at. Further words (k=20 hydra/launcher=joblib) go to every cell.
"""

import argparse
import base64
import html
import io
import json
import math
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw
from torch import Tensor, nn

from mindseye.commands.composing import compose, plain
from mindseye.commands.flows import with_samples
from mindseye.commands.grammar import PATHS, escaped, quoted
from mindseye.commands.stages import make_network
from mindseye.facets.targets import FacetTargets
from mindseye.files import write_atomically
from mindseye.networks.preparing import PreparedNetwork, prepare
from mindseye.networks.way import layers_on_the_way
from mindseye.reports.ablation import mean_and_interval, signed
from mindseye.results.measures import numbers, weight_in
from mindseye.results.metrics import measure_path, on_the_way
from mindseye.results.pictures import BACKGROUND, FAINT, INK, font
from mindseye.results.run_folder import read_run
from mindseye.signals import CTRL_C, TO_BE_CONTINUED
from mindseye.sweeps.manifest import cell_id
from mindseye.sweeps.status import read_sweep
from mindseye.sweeps.summary import read_rows as read_summary

PROJECT = Path(__file__).resolve().parent.parent
ALL = ("facet", "sketch", "noise")


@dataclass(frozen=True)
class Method:
    """A row of the table: an ablation, the starts that it makes sense from, and what it costs."""

    ablation: str
    starts: tuple[str, ...]
    about: str
    passes: int = 1  # of the pictures through the network, forward and back, at each step
    long: int | None = None  # steps that it is given by whoever made it; None: those of its configuration


METHODS: Mapping[str, Method] = {
    "calibrated": Method("none", ALL, "the whole method"),
    "from_nothing": Method("from_nothing", ("noise",), "the same with twice the matching and 200 steps", long=200),
    "no_matching": Method("no_matching", ALL, "without matching the layers on the way"),
    "matching_only": Method("matching_only", ALL, "matching alone: no DM, no AD, no strength"),
    "sorted": Method("sorted", ALL, "matching of the channels' sorted values"),
    "published": Method("published", ("facet", "noise"), "the paper's objective, pixels and filters"),
    "released": Method("released", ("facet", "noise"), "the author's released program", long=2001),
    "lucid": Method("lucid", ("sketch", "noise"), "dot product times cosine in a spectrum", long=512),
    "maco_lucid": Method("maco_lucid", ("sketch", "noise"), "the same in phases alone (MACO)", long=512),
    "vital": Method("vital", ("noise",), "VITAL's form: sorted values alone, pixels", long=2000),
    "deep_inversion": Method(
        "deep_inversion", ("noise",), "DeepInversion's form: running statistics of BatchNorms, DM", passes=2, long=2000
    ),
}
BASELINES = {"nearest": "the nearest photograph", "initial": "the blend of the photographs", "noise": "noise"}
REFERENCE = "calibrated"
COLUMNS = (
    "transfer.cosine", "transfer.retrieval", "transfer.gain", "transfer.agreement", "transfer.accuracy",
    "transfer.forced_choice", "transfer.forced_choice_photographs", "transfer.copy", "copy", "path.mean",
    "fidelity.cosine", "fidelity.magnitude", "naturalness.tv", "naturalness.spectrum",
)  # fmt: skip
NORMALISED = "network.mean=[0.485,0.456,0.406],network.std=[0.229,0.224,0.225]"
EFFICIENTNETS = tuple(
    f"efficientnet_lite{version}=network=callable,network.target={PROJECT}/scripts/efficientnet_lite.py:build,"
    f"network.arguments={{version:{version}}},{NORMALISED},network.name=efficientnet_lite{version},"
    f"network.layers={{middle:_blocks.{middle},late:_bn1}}"
    for version, middle in ((0, 10), (1, 14), (2, 14))
)
NETWORKS = (f"{EFFICIENTNETS[0]},layer=_bn1,layer=_blocks.10", "demo=network=demo,layer=layer4.0")
JUDGES = EFFICIENTNETS[1:]
QUICK = (
    "images.size=64", "images.count=40", "C=2", "facets.N=4", "k=8", "trainer.accelerator=cpu",
)  # fmt: skip


# ---- what is drawn, and who judges ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Viewer:
    """A network by its name, in the words of the command: it draws at `layers` and judges what the others drew."""

    name: str
    group: str  # of network=GROUP, and transfer=[GROUP]
    words: tuple[str, ...]  # network.KEY=VALUE
    layers: tuple[str, ...]  # () for one that judges alone, or is drawn at its late layer

    @classmethod
    def read(cls, text: str) -> "Viewer":
        """NAME=WORD,WORD…, the commas inside brackets left alone. Raises ValueError."""
        name, equals, rest = text.partition("=")
        words = split(rest)
        layers = tuple(word.removeprefix("layer=") for word in words if word.startswith("layer="))
        groups = [word.removeprefix("network=") for word in words if word.startswith("network=")]
        others = tuple(word for word in words if not word.startswith(("layer=", "network=")))
        wrong = [word for word in others if not word.startswith("network.")]
        if not equals or len(groups) != 1 or wrong:
            raise ValueError(f"a viewer must be NAME=network=GROUP,network.KEY=VALUE,layer=LAYER, not {text}")
        return cls(name, groups[0], others, layers)

    def drawing(self, layer: str | None) -> list[str]:
        """The words by which it draws."""
        return [f"network={self.group}", *self.words, *([f"layer={layer}"] if layer else ["depth=late"])]

    def judging(self, node: str) -> list[str]:
        """The words by which it judges as transfer.NODE, its group, beside transfer=[…, GROUP, …]; by any other name,
        where the group is taken, from nothing."""
        if node != self.group:
            composed = plain(compose([quoted(word) for word in (f"network={self.group}", *self.words)]).network)
            return [f"+transfer.{node}.{key}={in_grammar(value)}" for key, value in composed.items()]
        words = []
        for word in self.words:
            key, _, value = word.partition("=")
            path = PATHS.fullmatch(key) is not None and not value.startswith(("'", '"', "[", "{"))
            words.append(f"{key.replace('network.', f'transfer.{self.group}.', 1)}={escaped(value) if path else value}")
        return words


def split(text: str) -> list[str]:
    """At commas outside of brackets and quotes.

    >>> split("network=callable,network.mean=[0.5,0.5],layer='a,b'")
    ['network=callable', 'network.mean=[0.5,0.5]', "layer='a,b'"]
    """
    words, depth, quote = [""], 0, ""
    for letter in text:
        if letter in "'\"" and quote in ("", letter):
            quote = "" if quote else letter
        elif not quote:
            depth += (letter in "[{(") - (letter in "]})")
        if letter == "," and not depth and not quote:
            words.append("")
        else:
            words[-1] += letter
    return [word for word in words if word]


def in_grammar(value: object) -> str:
    """A plain value as Hydra's grammar reads it.

    >>> print(in_grammar({"late": "_bn1", "sizes": [1, None, True]}))
    {late:'_bn1',sizes:[1,null,true]}
    """
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{key}:{in_grammar(inner)}' for key, inner in value.items())}}}"
    if isinstance(value, list):
        return f"[{','.join(map(in_grammar, value))}]"
    return escaped(value) if isinstance(value, str) else json.dumps(value)


@dataclass(frozen=True)
class Subject:
    """A network at a layer that looks at photographs, and who judges what it draws: one sweep."""

    name: str
    words: tuple[str, ...]  # that every cell of the sweep has
    folder: Path


def subjects(
    drawing: Sequence[Viewer],
    judges: Sequence[Viewer],
    photographs: Mapping[str, Sequence[str]],
    extra: Sequence[str],
    folder: Path,
) -> list[Subject]:
    """Every network at each of its layers with all photographs. photographs: their words by their name.

    Each is judged by the other networks that draw and by `judges`. Raises ValueError where nobody judges.
    """
    made = []
    for viewer in drawing:
        others = [network for network in (*drawing, *judges) if network.name != viewer.name]
        if not others:
            raise ValueError(f"nobody judges what {viewer.name} draws: give another --network, or a --judge")
        groups: dict[str, Viewer] = {}
        for judge in others:
            groups.setdefault(judge.group, judge)
        titles = [judge.group if groups[judge.group] is judge else judge.name for judge in others]
        judging = [word for judge, title in zip(others, titles, strict=True) for word in judge.judging(title)]
        for layer in viewer.layers or (None,):
            for name, words in photographs.items():
                every = (
                    "experiment=truth", *viewer.drawing(layer), *words, f"transfer=[{','.join(groups)}]",
                    *judging, *extra,
                )  # fmt: skip
                title = f"{viewer.name} {layer or 'late'}, {name}"
                place = re.sub(r"[^\w.-]+", "-", title) + f"-{cell_id(every)[:6]}"
                made.append(Subject(title, every, folder / place))
    return made


@dataclass(frozen=True)
class Draw:
    """One method from one start with so many steps."""

    method: str
    start: str
    steps: int


def draws(methods: Sequence[str], starts: Sequence[str], steps: int, *, long: bool) -> list[Draw]:
    """All with equal numbers of steps; with `long` other people's ways with their own numbers too."""
    planned = []
    for name in methods:
        method = METHODS[name]
        for start in method.starts:
            if start not in starts:
                continue
            planned.append(Draw(name, start, steps))
            if long and (own := own_steps(method)) is not None and own != steps:
                planned.append(Draw(name, start, own))
    return planned


def own_steps(method: Method) -> int | None:
    """How many steps a method has by itself; None where it is a part of ours, which has ours."""
    if method.long is not None:
        return method.long
    own, ours = (compose([f"ablation={name}"]).steps for name in (method.ablation, "none"))
    return own if own != ours else None


def sweep(subject: Subject, asked: Sequence[Draw], seeds: Sequence[int], hydras: Sequence[str]) -> int:
    """Draw what is not drawn yet. 0, or 1 where a cell failed; exits where it is interrupted. hydras: how it runs."""
    grids: dict[tuple[tuple[str, ...], int], list[str]] = {}
    for (method, steps), group in groupby(asked, key=lambda draw: (draw.method, draw.steps)):
        starts = tuple(draw.start for draw in group)
        grids.setdefault((starts, steps), []).append(METHODS[method].ablation)
    worst = 0
    for (starts, steps), ablations in grids.items():
        cells = len(ablations) * len(starts) * len(seeds)
        print(f"{subject.name}: {', '.join(ablations)} from {', '.join(starts)}, {steps} steps: {cells} cells")
        command = [
            sys.executable, "-m", "mindseye", "-q", "-m", *subject.words, f"ablation={','.join(ablations)}",
            f"canvas.init={','.join(starts)}", f"steps={steps}", f"seed={','.join(map(str, seeds))}",
            *hydras, f"hydra.sweep.dir={escaped(str(subject.folder))}",
        ]  # fmt: skip
        code = subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode
        if code in (TO_BE_CONTINUED, CTRL_C) or code < 0:
            print("interrupted; the same command line goes on", file=sys.stderr)
            raise SystemExit(TO_BE_CONTINUED)
        worst = max(worst, code)
    return worst


# ---- what came out -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """One picture: what was drawn of one facet in one cell, and its figures, means over the judges."""

    subject: str
    method: str  # of METHODS or BASELINES
    start: str  # "" for a baseline
    steps: int
    seed: int
    facet: int
    photographs: str  # that the facet is made of, as a hash
    sample: int  # of the subject's: facets of one sample are one, whatever seed they were found under
    figures: Mapping[str, float]
    picture: Path = field(compare=False)

    @property
    def cluster(self) -> tuple[str, int]:
        """Whose rows are drawn together by the bootstrap."""
        return self.subject, self.sample


def read_rows(subject: Subject, asked: Sequence[Draw], seeds: Sequence[int]) -> list[Row]:
    """Every facet of the cells that were asked for and are done; of each seed's first cell the baselines too."""
    if not (subject.folder / "manifest.json").is_file():
        return []
    network = prepared(subject)
    methods = {METHODS[name].ablation: name for name in METHODS}
    rows: list[Row] = []
    paths: dict[str, _Path] = {}
    based = set()
    sweep = read_sweep(subject.folder)
    of_facet = {row["path"]: row for row in with_samples(sweep, read_summary(sweep)) if "path" in row}
    for cell, status in sweep.cells:
        given = dict(word.partition("=")[::2] for word in cell.overrides)
        draw = Draw(methods.get(given["ablation"], ""), given["canvas.init"], int(given["steps"]))
        seed = int(given["seed"])
        if status.status != "completed" or draw not in asked or seed not in seeds:
            continue
        folder = subject.folder / cell.folder
        run = read_run(folder)
        targets = FacetTargets.load(folder / "targets")
        key = targets.content_hash()
        if key not in paths:
            paths[key] = _Path(network, targets)
        path = paths[key](run.images)
        for facet, about in enumerate(run.metrics["facets"]):
            if "stopped" in about:
                continue
            place = folder / "facets" / f"{facet:02d}"
            common = {"seed": seed, "facet": facet, "subject": subject.name}
            common |= {name: of_facet[f"{cell.folder}/facets/{facet:02d}"][name] for name in ("photographs", "sample")}
            picture = place / "visualization.png"
            figures = figures_of(about, path[facet])
            rows.append(
                Row(method=draw.method, start=draw.start, steps=draw.steps, figures=figures, picture=picture, **common)
            )
            if (seed, facet) in based:
                continue
            based.add((seed, facet))
            for name in BASELINES:
                figures = figures_of(about["baselines"][name], paths[key].baselines[name][facet])
                picture = place / f"{name}.png"
                rows.append(Row(method=name, start="", steps=0, figures=figures, picture=picture, **common))
    return rows


def prepared(subject: Subject) -> PreparedNetwork:
    """The subject's network up to its layer, with the layers on the way: the same for methods that match and others."""
    config = compose([quoted(word) for word in subject.words])
    network = make_network(plain(config.network), "network")
    layer = network.resolve(None if config.layer is None else str(config.layer), config.depth)
    return prepare(network, layer, way=layers_on_the_way(network, layer))


class _Path:
    """`path.mean` of pictures, at the same layers for every method: a run that matches nothing looks at none."""

    def __init__(self, network: PreparedNetwork, targets: FacetTargets) -> None:
        self.network, self.targets = network, targets
        self.way = on_the_way(network, targets)
        generator = torch.Generator().manual_seed(0)
        pictures = {
            "nearest": targets.nearest(),
            "initial": targets.initial,
            "noise": torch.rand(targets.initial.shape, generator=generator),
        }
        self.baselines = {name: self(images) for name, images in pictures.items()}

    def __call__(self, images: Tensor) -> list[float]:
        rows = measure_path(self.network, self.targets, images, self.way)
        return [math.nan if row["mean"] is None else row["mean"] for row in rows]


def figures_of(metrics: Mapping[str, Any], path: float) -> dict[str, float]:
    """A facet's figures by their dotted names, those of `transfer` as means over the judges that have them.

    As over facets, shares of a way are weighted by it, and the way is that of the judges that have a share: facets of
    two judges count as twice as many facets of one.
    """
    transfer = metrics.get("transfer", {})
    judges = list(transfer.get("networks", {"": transfer}).values())
    others = ("facet", "baselines", "transfer")
    figures = dict(numbers({key: value for key, value in metrics.items() if key not in others}))
    for name in dict.fromkeys(name for judge in judges for name in judge):
        given = [judge for judge in judges if isinstance(judge.get(name), int | float)]
        if not given:
            continue
        figures[f"transfer.{name}"] = sum(judge[name] for judge in given) / len(given)
    for name, way in (("gain", "way"), ("agreement_gain", "agreement_way")):
        given = [(judge[name], judge[way]) for judge in judges if isinstance(judge.get(name), int | float)]
        if given:
            whole = sum(weight for _, weight in given)
            figures[f"transfer.{name}"] = sum(value * weight for value, weight in given) / whole
            figures[f"transfer.{way}"] = whole / len(judges)
    figures |= {
        f"transfer.networks.{judge}.{name}": value
        for judge, about in transfer.get("networks", {}).items()
        for name, value in numbers(about)
    }
    figures.pop("path.mean", None)
    return figures | ({"path.mean": path} if math.isfinite(path) else {})


# ---- the table -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % bootstrap interval, drawn over facets with all their pictures."""

    mean: float
    low: float
    high: float
    pictures: int
    facets: int

    @classmethod
    def of(cls, values: Iterable[tuple[object, float, float]]) -> "Estimate":
        """found: (facet, value, weight)."""
        grouped: dict[object, list[tuple[float, float]]] = {}
        for facet, value, weight in values:
            grouped.setdefault(facet, []).append((value, weight))
        mean, low, high = mean_and_interval(grouped)
        return cls(mean, low, high, sum(map(len, grouped.values())), len(grouped))


@dataclass(frozen=True)
class Line:
    """A row of the table: a method from a start with so many steps, or a baseline."""

    method: str
    start: str
    steps: int
    passes: int
    means: Mapping[str, Estimate]
    differences: Mapping[str, Estimate]  # to REFERENCE from the same start, picture by picture; none of its own


def table(rows: Sequence[Row], steps: Mapping[str, int]) -> list[Line]:
    """The baselines, then every method from every start, in the order of METHODS.

    steps: by method; rows of other numbers of steps have no part in it, nor have methods that it does not name.
    """
    by: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row.method in BASELINES or row.steps == steps.get(row.method):
            by.setdefault((row.method, row.start), []).append(row)
    base = {_place(row): row for (method, _), own in by.items() if method == REFERENCE for row in own}
    lines = []
    for method, start in [(name, "") for name in BASELINES] + [(name, start) for name in METHODS for start in ALL]:
        own = by.get((method, start), [])
        if not own:
            continue
        names = [name for name in COLUMNS if any(name in row.figures for row in own)]
        means = {
            name: Estimate.of(
                (row.cluster, row.figures[name], weight_in(row.figures, name)) for row in own if name in row.figures
            )
            for name in names
        }
        differences = {}
        for name in names if method in METHODS and method != REFERENCE else ():
            pairs = [(row, base[_place(row)]) for row in own if _place(row) in base]
            both = [pair for pair in pairs if all(name in row.figures for row in pair)]
            if both:
                differences[name] = Estimate.of(
                    (mine.cluster, mine.figures[name] - other.figures[name], weight_in(mine.figures, name))
                    for mine, other in both
                )
        passes = METHODS[method].passes * own[0].steps if method in METHODS else 0
        lines.append(Line(method, start, own[0].steps, passes, means, differences))
    return lines


def _place(row: Row) -> tuple[str, str, int, int, str]:
    return row.subject, row.start, row.seed, row.facet, row.photographs


def as_markdown(lines: Sequence[Line]) -> str:
    """The table for docs/truth.md: a mean and its interval a cell."""
    head = ["method", "start", "passes", f"transfer.cosine − {REFERENCE}'s", *COLUMNS, "pictures (facets)"]
    table = [head, ["---"] * len(head)]
    for line in lines:
        most = max(line.means.values(), key=lambda estimate: estimate.pictures)
        table.append(
            [
                line.method, line.start, str(line.passes or ""), _difference(line),
                *(_cell(line.means.get(name)) for name in COLUMNS), f"{most.pictures} ({most.facets})",
            ]
        )  # fmt: skip
    return "\n".join(f"| {' | '.join(cells)} |" for cells in table) + "\n"


def _cell(estimate: Estimate | None) -> str:
    if estimate is None:
        return ""
    interval = "" if estimate.facets < 2 else f" [{estimate.low:.2f}, {estimate.high:.2f}]"
    return f"{estimate.mean:.3f}{interval}"


def _difference(line: Line) -> str:
    difference = line.differences.get("transfer.cosine")
    if difference is None:
        return ""
    interval = "" if difference.facets < 2 else f" [{signed(difference.low)}, {signed(difference.high)}]"
    shown = f"{signed(difference.mean)}{interval}"
    return f"**{shown}**" if difference.low > 0 or difference.high < 0 else shown


# ---- sheet and page ------------------------------------------------------------------------------------------------


def contact_sheet(rows: Sequence[Row], lines: Sequence[Line], tile: int = 112) -> Image.Image:
    """A row a method and start, a column a facet of the first seed of every subject; all at one scale."""
    first = min(row.seed for row in rows)
    wanted = {(line.method, line.start, line.steps) for line in lines}
    shown = {
        (row.subject, row.facet, row.method, row.start): row
        for row in rows
        if row.seed == first and (row.method, row.start, row.steps) in wanted
    }
    columns = list(dict.fromkeys((subject, facet) for subject, facet, _, _ in shown))
    labels = [(line.method, line.start) for line in lines if line.method != "noise"]
    gap, left, top = 4, 210, 64
    sheet = Image.new("RGB", (left + len(columns) * (tile + gap), top + len(labels) * (tile + gap)), BACKGROUND)
    pen, large, small = ImageDraw.Draw(sheet), font(15), font(12)
    for subject, group in groupby(enumerate(columns), key=lambda pair: pair[1][0]):
        x = left + next(group)[0] * (tile + gap)
        network, _, photographs = subject.partition(", ")
        pen.text((x, 6), network, fill=INK, font=large)
        pen.text((x, 26), photographs, fill=FAINT, font=small)
    for column, (_, facet) in enumerate(columns):
        pen.text((left + column * (tile + gap), 44), f"facet {facet}", fill=FAINT, font=small)
    for place, (method, start) in enumerate(labels):
        y = top + place * (tile + gap)
        pen.text((8, y + 4), method if start else BASELINES[method], fill=INK, font=large if start else small)
        pen.text((8, y + 26), f"from {start}" if start else "", fill=FAINT, font=small)
        for column, (subject, facet) in enumerate(columns):
            row = shown.get((subject, facet, method, start))
            if row is not None:
                with Image.open(row.picture) as picture:
                    placed = picture.convert("RGB").resize((tile, tile), Image.Resampling.LANCZOS)
                sheet.paste(placed, (left + column * (tile + gap), y))
    return sheet


STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 110rem; padding: 0 1rem; color: #1c1c1e }
div.wide { overflow-x: auto } table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: #fff }
small { color: #6e6e74; display: block } tr.baseline td { color: #6e6e74 } b { font-weight: 650 }
img { max-width: none } summary { cursor: pointer; margin: .6rem 0 }
"""


def page(tables: Mapping[str, Mapping[str, Sequence[Line]]], sheet: Image.Image, about: Sequence[str]) -> str:
    """One static HTML file that asks nobody for anything. tables: by heading and by subject, "" being all of them."""
    stored = io.BytesIO()
    sheet.save(stored, "WEBP", quality=85)
    picture = base64.b64encode(stored.getvalue()).decode()
    parts = [f"<!doctype html><html lang=en><meta charset=utf-8><title>mindseye: truth</title><style>{STYLE}</style>"]
    parts += ["<h1>What other networks see</h1>", *(f"<p>{html.escape(text)}</p>" for text in about)]
    for heading, each in tables.items():
        parts.append(f"<h2>{html.escape(heading)}</h2>")
        for subject, lines in each.items():
            block = f'<div class="wide">{_as_html(lines)}</div>'
            folded = f"<details><summary>{html.escape(subject)}</summary>{block}</details>"
            parts.append(folded if subject else block)
    parts.append("<h2>The pictures</h2><p>Of the first seed: a row a method and start, a column a facet.</p>")
    parts.append(f'<div class="wide"><img alt="contact sheet" src="data:image/webp;base64,{picture}"></div>')
    parts.append("<h2>The methods</h2><ul>")
    parts += [f"<li><b>{name}</b>: {html.escape(method.about)}</li>" for name, method in METHODS.items()]
    return "\n".join([*parts, "</ul></html>", ""])


def _as_html(lines: Sequence[Line]) -> str:
    heads = ["method", "start", "passes", f"Δ transfer.cosine<small>to {REFERENCE}</small>", *COLUMNS]
    rows = ["<table><tr>", *(f"<th>{head.replace('.', '.<wbr>')}</th>" for head in heads), "</tr>"]
    for line in lines:
        cells = [line.method, line.start, str(line.passes or ""), _as_html_difference(line)]
        for name in COLUMNS:
            shown, _, interval = _cell(line.means.get(name)).partition(" ")
            cells.append(f"{shown}<small>{interval}</small>")
        kind = ' class="baseline"' if line.method in BASELINES else ""
        rows.append(f"<tr{kind}>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    return "\n".join([*rows, "</table>"])


def _as_html_difference(line: Line) -> str:
    shown = _difference(line)
    value, _, interval = shown.strip("*").partition(" ")
    return f"{f'<b>{value}</b>' if shown.startswith('*') else value}<small>{interval}</small>"


def as_json(rows: Sequence[Row], tables: Mapping[str, Mapping[str, Sequence[Line]]], words: Sequence[str]) -> str:
    """Everything, for programs: the tables, every picture's figures, and the command line."""

    def estimate(estimated: Estimate) -> dict[str, float | None]:
        return {name: None if math.isnan(value) else value for name, value in vars(estimated).items()}

    def line(row: Line) -> dict[str, Any]:
        figures = {"method": row.method, "start": row.start, "steps": row.steps, "passes": row.passes}
        for name in ("means", "differences"):
            figures[name] = {key: estimate(value) for key, value in getattr(row, name).items()}
        return figures

    pictures = [
        {
            "subject": row.subject, "method": row.method, "start": row.start, "steps": row.steps, "seed": row.seed,
            "facet": row.facet, **row.figures,
        }
        for row in rows
    ]  # fmt: skip
    stored = {
        heading: {name or "all": [line(row) for row in lines] for name, lines in each.items()}
        for heading, each in tables.items()
    }
    return json.dumps({"arguments": list(words), "tables": stored, "pictures": pictures}, indent=1)


# ---- the command ---------------------------------------------------------------------------------------------------


def arguments() -> argparse.ArgumentParser:
    """What the script takes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--network", action="append", metavar="NAME=WORD,…", help="draws, and judges the others")
    parser.add_argument("--judge", action="append", default=[], metavar="NAME=WORD,…", help="judges alone")
    parser.add_argument("--images", action="append", default=[], metavar="[NAME=]FOLDER", help="your own photographs")
    parser.add_argument("--drawn", nargs="*", default=["padlock"], metavar="KIND", help="the demo's; none: no KIND")
    parser.add_argument("--size", type=int, default=224, help="pixels of the drawn photographs' side; default: 224")
    parser.add_argument("--only", nargs="+", default=list(METHODS), choices=list(METHODS), metavar="METHOD")
    parser.add_argument("--starts", nargs="+", choices=ALL, metavar="START")
    parser.add_argument("--seeds", nargs="+", type=int, help="of discovery; default: 0 1 2")
    parser.add_argument("--subjects", default="", metavar="TEXT", help="only those whose name has it: features.18")
    parser.add_argument("--steps", type=int, help="of every method; default: the calibrated ones'")
    parser.add_argument("--long", action="store_true", help="other people's ways with their own number of steps too")
    parser.add_argument("--quick", action="store_true", help="a tiny one of the demo's network, not for reading")
    parser.add_argument("--table", action="store_true", help="draw nothing, make the table of what there is")
    parser.add_argument("--folder", type=Path, default=Path("build/truth"), help="default: build/truth")
    parser.add_argument("words", nargs="*", metavar="KEY=VALUE", help="settings of every cell")
    return parser


def photographs(asked: argparse.Namespace) -> dict[str, list[str]]:
    """The words of each set of photographs by its name. Raises ValueError where there are none."""
    overrides = {}
    for text in asked.images:
        name, equals, folder = text.partition("=")
        name, folder = (name, folder) if equals else (Path(text).name, text)
        overrides[name] = [f"images.root={escaped(str(Path(folder).expanduser().absolute()))}"]
    for kind in asked.drawn:
        overrides[f"drawn {kind}"] = [f"images.kind={kind}", f"images.size={asked.size}"]
    if not overrides:
        raise ValueError("there are no photographs: give --images NAME=FOLDER or --drawn KIND")
    return overrides


def has_batch_norms(subject: Subject) -> bool:
    """Whether DeepInversion's way can be gone at all."""
    config = compose([quoted(word) for word in subject.words])
    network = make_network(plain(config.network), "network")
    return any(isinstance(module, nn.BatchNorm2d) for module in network.modules())


def plan(asked: argparse.Namespace) -> tuple[list[Subject], list[Draw], int]:
    """The sweeps, what each draws, and the number of steps that all methods are given. Raises ValueError."""
    extra = [word for word in asked.words if not word.startswith("hydra")]
    networks, judges = asked.network or NETWORKS, asked.judge or (() if asked.network else JUDGES)
    if asked.quick:
        networks, judges, extra = ["demo=network=demo"], ["itself=network=demo"], [*QUICK, *extra]
    asked.starts = asked.starts or (["noise"] if asked.quick else list(ALL))
    asked.seeds = [0, 1, 2] if asked.seeds is None and not asked.quick else asked.seeds or [0, 1]
    chosen = subjects(
        [Viewer.read(text) for text in networks], [Viewer.read(text) for text in judges], photographs(asked), extra,
        asked.folder,
    )  # fmt: skip
    chosen = [subject for subject in chosen if asked.subjects in subject.name]
    if not chosen:
        raise ValueError(f"--subjects {asked.subjects}: no network, layer and photographs have it in their name")
    steps = asked.steps or (4 if asked.quick else compose(["experiment=truth"]).steps)
    return chosen, draws(asked.only, asked.starts, steps, long=asked.long and not asked.quick), steps


def tell(asked: argparse.Namespace, chosen: Sequence[Subject], every: Sequence[Draw], steps: int) -> None:
    """Read what is drawn, and write table, sheet and page. Raises ValueError where nothing is drawn yet."""
    rows = [row for subject in chosen for row in read_rows(subject, every, asked.seeds)]
    if not rows:
        raise ValueError(f"{asked.folder}: no cell is done, so there is no table")
    equal = dict.fromkeys(METHODS, steps)
    kinds = {f"Equal numbers of steps: {steps}": equal}
    if asked.long:
        own = {draw.method: draw.steps for draw in every if draw.steps != steps}
        kinds["Other people's ways with their own numbers of steps"] = {REFERENCE: steps, **own}
    tables = {
        heading: {"": table(rows, of)}
        | {subject.name: table([row for row in rows if row.subject == subject.name], of) for subject in chosen}
        for heading, of in kinds.items()
    }
    sheet = contact_sheet(rows, next(iter(tables.values()))[""])
    seeds = ", ".join(map(str, asked.seeds))
    about = [
        f"{len(chosen)} networks, layers and sets of photographs: {'; '.join(subject.name for subject in chosen)}. "
        f"Seeds of discovery: {seeds}. Each picture is judged by the other networks, and its figures are means over "
        "them. Passes: of a picture through the drawing network, forward and back.",
        "Means over pictures, with 95 % intervals by a bootstrap over facets, each with all its pictures: what other "
        "seeds find in the same photographs is the facet of the first that it shares most with. The difference is to "
        "the calibrated method from the same start, picture by picture, in bold where its interval leaves 0 out.",
    ]
    text = [f"## {heading}\n\n{as_markdown(each[''])}" for heading, each in tables.items()]
    write_atomically(asked.folder / "truth.json", as_json(rows, tables, sys.argv[1:]).encode())
    write_atomically(asked.folder / "truth.md", "\n".join([*about, "", *text]).encode())
    write_atomically(asked.folder / "index.html", page(tables, sheet, about).encode())
    sheet.save(asked.folder / "sheet.png")
    print("\n".join(text))
    for name in ("index.html", "truth.json", "truth.md", "sheet.png"):
        print(asked.folder / name)


def main(words: Sequence[str] | None = None) -> None:
    """Sweep, then tell. Exits with 1 where a cell failed, with 75 where it is to be continued."""
    asked = arguments().parse_args(words)
    try:
        chosen, every, steps = plan(asked)
        worst, hydras = 0, [word for word in asked.words if word.startswith("hydra")]
        for subject in chosen if not asked.table else ():
            own = every
            if "deep_inversion" in asked.only and not has_batch_norms(subject):
                print(f"{subject.name}: no BatchNorm, so no deep_inversion")
                own = [draw for draw in every if draw.method != "deep_inversion"]
            worst = max(worst, sweep(subject, own, asked.seeds, hydras))
        tell(asked, chosen, every, steps)
    except (ValueError, OSError) as error:
        print(f"truth: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(1) from None
    if worst:
        raise SystemExit(worst)


if __name__ == "__main__":
    main()

"""After how many passes through the network other networks recognise a picture, ours beside other people's ways.

Every method with its own number of steps, whose pictures on the way are shown to the judges. A picture is *recognised*
from the first look on after which `transfer.accuracy` never falls below its end value again. Resumable as
scripts/truth.py, whose options it takes; recognised.json, recognised.md and recognised.png in the folder.

    python scripts/recognised.py                     # the demo's network and EfficientNet-Lite0, the demo's padlocks
    python scripts/recognised.py --images cinemas=FOLDER --drawn \\
        --network mobilenet_v2=network=mobilenet_v2,layer=features.18 --judge squeezenet1_1=network=squeezenet1_1
    python scripts/recognised.py … --only calibrated vital --seeds 0     # fewer cells; the others can follow
    python scripts/recognised.py … --table                               # draw nothing, tell of what there is
"""

import json
import statistics
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from benchmark import BLOCK, Alternate, Bare
from matplotlib.figure import Figure
from torch import Tensor
from truth import METHODS, REFERENCE, Draw, Subject, arguments, has_batch_norms, own_steps, plan, sweep

from mindseye.commands.checking import check
from mindseye.commands.composing import compose, plain
from mindseye.commands.grammar import quoted
from mindseye.commands.parts import make_method
from mindseye.commands.stages import judges, load, load_judges, make_network, prepare_drawing
from mindseye.facets.targets import FacetTargets
from mindseye.files import write_atomically
from mindseye.results.judges import TransferReference, transfer
from mindseye.results.pictures import from_picture
from mindseye.results.run_folder import read_run, snapshot_files
from mindseye.sweeps.status import read_sweep
from mindseye.visualizer.fitting import fit

LOOKS = 40  # at a method's pictures on the way
NEAR = 0.02  # of transfer.cosine: less is chance
JUDGED = ("cosine", "retrieval", "agreement", "accuracy")
SHOWN = {"transfer.cosine": "cosine", "transfer.accuracy": "accuracy"}  # in the plot
ROUNDS = 8  # of ten steps, beside as many bare ones
COLOURS = ("#0072b2", "#56b4e9", "#d55e00", "#cc79a7", "#009e73", "#e69f00", "#7f7f7f", "#000000", "#b2912f")


@dataclass(frozen=True)
class Curve:
    """A method from a start: means over pictures and judges after so many passes of a picture, forward and back."""

    method: str
    start: str
    steps: int
    cost: float  # of a step in bare steps
    pictures: int  # facets of all seeds
    looks: Mapping[int, Mapping[str, float]]  # passes -> JUDGED -> mean

    @property
    def end(self) -> Mapping[str, float]:
        """Of the finished pictures."""
        return self.looks[max(self.looks)]

    def since(self, name: str, level: float) -> int | None:
        """Passes after which a figure never falls below `level` again; None where it ends below.

        >>> looks = {passes: {"accuracy": value} for passes, value in ((10, 0.5), (20, 0.25), (30, 0.5), (40, 0.75))}
        >>> Curve("vital", "noise", 40, 1.0, 4, looks).since("accuracy", 0.5)
        30
        """
        since = None
        for passes in sorted(self.looks, reverse=True):
            if self.looks[passes][name] < level - 1e-9:
                break
            since = passes
        return since


def drawn(methods: Sequence[str], starts: Sequence[str], steps: int) -> list[Draw]:
    """Every method from noise and from what it starts from by default, with its own number of steps."""
    planned = []
    for name in methods:
        method = METHODS[name]
        own = own_steps(method) or steps
        able = [start for start in ("facet", "noise") if start in method.starts]
        planned += [Draw(name, start, own) for start in able if start in starts]
    return planned


def looked_at(subject: Subject, draw: Draw) -> Subject:
    """The subject whose runs keep LOOKS pictures on the way, the last being the end itself."""
    return replace(subject, words=(*subject.words, f"snapshots={max(1, draw.steps // LOOKS)}"))


class Panel:
    """Who judges what is drawn of a subject. What they see in the photographs of the same facets is looked at once."""

    def __init__(self, subject: Subject) -> None:
        self.run = check(compose([quoted(word) for word in subject.words]))
        self.judging = load_judges(self.run, load(self.run, make_method(self.run)))
        self._references: dict[str, list[TransferReference]] = {}

    def __call__(self, targets: FacetTargets) -> list[TransferReference]:
        """What each sees in these facets."""
        key = targets.content_hash()
        if key not in self._references:
            self._references[key] = judges(self.run, self.judging, targets, None)
        return self._references[key]


def curve(subject: Subject, draw: Draw, seeds: Sequence[int], panel: Panel, known: float | None = None) -> Curve | None:
    """What the judges say of the cells of a method that are done; None where none is. known: what a step costs."""
    figures: dict[int, dict[str, list[float]]] = {}
    pictures = 0
    for cell, status in read_sweep(subject.folder).cells:
        words = dict(word.partition("=")[::2] for word in cell.overrides)
        here = (words["ablation"], words["canvas.init"], int(words["steps"]), int(words["seed"]))
        if status.status != "completed" or here[:3] != (METHODS[draw.method].ablation, draw.start, draw.steps):
            continue
        if here[3] not in seeds:
            continue
        folder = subject.folder / cell.folder
        done = read_run(folder)
        references = panel(FacetTargets.load(folder / "targets"))
        shown: dict[int, Tensor] = {
            step: torch.stack([from_picture(file) for file in files]).float() / 255
            for step, files in snapshot_files(folder).items()
        }
        shown[draw.steps] = done.images
        pictures += len(done.images)
        for step, images in shown.items():
            for reference in references:
                for name, values in transfer(images, reference).items():
                    if name in JUDGED:
                        figures.setdefault(step, {}).setdefault(name, []).extend(values.tolist())
    if not figures:
        return None
    passes = METHODS[draw.method].passes
    looks = {passes * step: {name: statistics.fmean(each) for name, each in of.items()} for step, of in figures.items()}
    return Curve(draw.method, draw.start, draw.steps, known or cost(subject, draw), pictures, looks)


def costs(folder: Path) -> dict[tuple[str, Draw], float]:
    """Of the steps that were timed already: another time they would come out otherwise."""
    try:
        stored = json.loads((folder / "recognised.json").read_text())
    except FileNotFoundError:
        return {}
    rows = ((name, row) for name, each in stored.items() for row in each)
    return {(name, Draw(row["method"], row["start"], row["steps"])): row["cost"] for name, row in rows}


def cost(subject: Subject, draw: Draw) -> float:
    """A step in bare steps, by the median over rounds in which both were taken in turn."""
    words = [*subject.words, f"ablation={METHODS[draw.method].ablation}", f"canvas.init={draw.start}"]
    run = check(compose([quoted(word) for word in (*words, f"steps={(ROUNDS + 1) * BLOCK + 1}")]))
    method = make_method(run)
    looking = load(run, method)
    drawing, method, _ = prepare_drawing(run, looking, method)
    sweeping = read_sweep(subject.folder)
    folder = next(subject.folder / cell.folder for cell, status in sweeping.cells if status.status == "completed")
    targets = FacetTargets.load(folder / "targets")
    again = make_network(plain(compose([quoted(word) for word in words]).network), "network")
    bare = Bare(again.body, looking.layer, targets.initial)
    clock = Alternate({"bare": bare})
    fit(drawing, targets, replace(method, filters=[*method.filters, clock]), replace(run.running, snapshots=10**6))
    return clock.ratio("ours", "bare")


# ---- the table and the plot ----------------------------------------------------------------------------------------


def as_markdown(curves: Sequence[Curve]) -> str:
    """A row a method and start. The last columns: passes after which the reference, from each of its starts, stays at
    or above the transfer.cosine that the method ends with."""
    ours = {curve.start: curve for curve in curves if curve.method == REFERENCE}
    rows = [
        [
            "method", "start", "passes", "a step / bare step", *(f"`transfer.{name}`" for name in JUDGED),
            "recognised after passes", "in bare steps", f"`transfer.cosine` within {NEAR} after passes",
            *(f"{REFERENCE} from {start} is there after passes" for start in ours),
        ]
    ]  # fmt: skip
    for curve in curves:
        known = curve.end["accuracy"] > 0
        passes = curve.since("accuracy", curve.end["accuracy"]) if known else None
        near = curve.since("cosine", curve.end["cosine"] - NEAR)
        there = [our.since("cosine", curve.end["cosine"]) for our in ours.values()]
        rows.append(
            [
                curve.method, curve.start, str(max(curve.looks)), f"{curve.cost:.2f}",
                *(f"{curve.end[name]:.3f}" for name in JUDGED),
                "never" if passes is None else str(passes),
                "" if passes is None else f"{passes / METHODS[curve.method].passes * curve.cost:.0f}", str(near),
                *("not" if passes is None else str(passes) for passes in there),
            ]
        )  # fmt: skip
    rows.insert(1, ["---"] * len(rows[0]))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"


def plot(curves: Sequence[Curve], title: str) -> Figure:
    """What the judges see over passes, a line a method and start, dashed from the facets' blend."""
    colours = dict(zip(dict.fromkeys(curve.method for curve in curves), COLOURS, strict=False))
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    axes = figure.subplots(1, len(SHOWN), sharex=True)
    for place, name in zip(axes, SHOWN, strict=True):
        for curve in curves:
            line = [(passes, look[SHOWN[name]]) for passes, look in sorted(curve.looks.items())]
            dashes = "--" if curve.start == "facet" else "-"
            style = {"color": colours[curve.method], "linestyle": dashes, "linewidth": 1.6}
            place.plot(*zip(*line, strict=True), label=f"{curve.method} from {curve.start}", **style)
            place.plot(*line[-1], marker="o", color=colours[curve.method], markersize=4)
        place.set(xscale="log", xlabel="passes of a picture through the network, forward and back", ylabel=name)
        place.grid(visible=True, alpha=0.3)
        place.spines[["top", "right"]].set_visible(False)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right upper", frameon=False, fontsize=9)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    return figure


def tell(asked: Namespace, subjects: Sequence[Subject], every: Sequence[Draw]) -> None:
    """Judge what is drawn, and write figures, table and plot of each subject. Raises ValueError where nothing is."""
    by_subject: dict[str, list[Curve]] = {}
    timed = costs(asked.folder)
    for subject in subjects:
        if (subject.folder / "manifest.json").is_file():
            panel = Panel(subject)
            found_here = (curve(subject, draw, asked.seeds, panel, timed.get((subject.name, draw))) for draw in every)
            by_subject[subject.name] = [curve for curve in found_here if curve is not None]
    by_subject = {name: curves for name, curves in by_subject.items() if curves}
    if not by_subject:
        raise ValueError(f"{asked.folder}: no cell is done, so there is no table")
    text = []
    for number, (name, curves) in enumerate(by_subject.items()):
        about = f"{name}: means over {curves[0].pictures} pictures and their judges"
        text += [f"## {about}", "", as_markdown(curves)]
        plot(curves, about).savefig(asked.folder / f"recognised{number or ''}.png", dpi=110)
    figures = {name: [asdict(curve) for curve in curves] for name, curves in by_subject.items()}
    write_atomically(asked.folder / "recognised.json", json.dumps(figures, indent=1).encode())
    write_atomically(asked.folder / "recognised.md", "\n".join(text).encode())
    print("\n".join(text))


def main(words: Sequence[str] | None = None) -> None:
    """Sweep, then tell. Exits with 1 where a cell failed, with 75 where it is to be continued."""
    parser = arguments()
    parser.description = (__doc__ or "").split("\n\n")[0]
    parser.set_defaults(folder=Path("build/recognised"))
    asked = parser.parse_args(words)
    if asked.long:
        parser.error("--long: every method has its own number of steps here already")
    try:
        subjects, _, steps = plan(asked)
        every = drawn(asked.only, asked.starts, steps)
        hydras, worst = [word for word in asked.words if word.startswith("hydra")], 0
        for subject in subjects if not asked.table else ():
            for draw in every:
                if draw.method != "deep_inversion" or has_batch_norms(subject):
                    worst = max(worst, sweep(looked_at(subject, draw), [draw], asked.seeds, hydras))
        tell(asked, subjects, every)
    except (ValueError, OSError) as error:
        print(f"recognised: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(1) from None
    if worst:
        raise SystemExit(worst)


if __name__ == "__main__":
    main()

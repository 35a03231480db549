"""Questions of two held-out photographs each, drawn by a seed, their pictures under names that say nothing, the page.

What is right stands in a key that the page does not load. Every picture is decoded and written anew at one size, so
that neither a file's name, nor its header, nor its place in a folder tells one photograph from the other.
"""

import hashlib
import io
import itertools
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from pathlib import Path, PurePath

import numpy as np
import yaml
from PIL import Image
from torch import Tensor

from mindseye.facets.decoding import UnreadablePhotograph, channels_come_last, read_photograph
from mindseye.facets.pictures import as_webp, to_picture
from mindseye.facets.targets import FacetTargets
from mindseye.files import read_plain, write_atomically
from mindseye.reports.gallery.collecting import ListedRun
from mindseye.reports.gallery.writing import fill
from mindseye.settings import is_seed

FORMAT = 1
PAGE, PICTURES = "blind.html", "blind"
KEY = "blind-key-{}.json"  # its test's id in the middle; in the folder of the runs alone
SIDE = 448  # pixels of every picture
NINE = 9  # photographs that stand in for the picture
CONTROL = "its photographs"  # the preset of these questions


@dataclass(frozen=True)
class Question:
    """Which photograph is the facet's own? Paths are relative to the photographs' root."""

    preset: str  # what tells its cell from others, or CONTROL
    run: int  # which of the runs
    facet: int
    own: str
    other: str
    side: str  # a or b: where the facet's own one stands


@dataclass(frozen=True)
class _Shown:
    """What a run can be asked about."""

    preset: str
    run: int
    content: str  # of its facets: the same in two runs that look at the same ones
    held_out: tuple[tuple[str, ...], ...]  # per facet
    facets: tuple[int, ...]  # that were drawn to the end


def write_blind_test(
    folder: Path,
    runs: Sequence[ListedRun],
    *,
    questions: int = 60,
    seed: int = 0,
    images: Path | None = None,
    place: Path | None = None,
) -> Path:
    """Write the page and its pictures into `place` (default: the folder), the key into the folder, and say where.

    folder: where the runs lie; runs: of it, see `mindseye.reports.gallery`. Questions are shared out evenly between
    presets (what tells cells apart, but for the seed) and the facets' nine photographs, within these between facets.
    images: where the photographs lie now; None is where they were.

    Raises ValueError, in one line, where there are too few questions, no completed run, no held-out photographs of two
    facets, or where these cannot be read; OSError as writing has it.
    """
    shown = [*_shown(folder, runs)]
    asked = draw(shown, questions, seed)
    key = {"format": FORMAT, "questions": {name: _entry(question, runs) for name, question in _numbered(asked)}}
    test = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:12]
    place = folder if place is None else place
    into = place / PICTURES / test
    shutil.rmtree(into, ignore_errors=True)
    for name, pictures in _pictures(folder, runs, asked, images):
        for part, picture in pictures.items():
            write_atomically(into / f"{name}-{part}.webp", _encoded(picture))
    write_atomically(folder / KEY.format(test), json.dumps({"test": test, **key}, indent=1).encode())
    data = {"test": test, "pictures": f"./{PICTURES}/{test}", "questions": [name for name, _ in _numbered(asked)]}
    write_atomically(place / PAGE, page(data).encode())
    return place / PAGE


def _numbered(asked: Sequence[Question]) -> list[tuple[str, Question]]:
    return [(f"{number:03d}", question) for number, question in enumerate(asked, start=1)]


def _entry(question: Question, runs: Sequence[ListedRun]) -> dict[str, object]:
    return {
        "right": question.side, "preset": question.preset, "run": runs[question.run].path, "facet": question.facet,
        "own": question.own,
        "other": question.other,
    }  # fmt: skip


# ---- which questions -------------------------------------------------------------------------------------------------


def draw(shown: Sequence[_Shown], count: int, seed: int) -> list[Question]:
    """`count` questions in a drawn order: presets, facets, and both sides as often as can be, photographs in turn."""
    generator = np.random.default_rng(seed)
    asked: list[Question] = []
    pools: dict[tuple[str, int, bool], Iterator[str]] = {}
    presets: dict[str, list[tuple[_Shown, int]]] = {}
    for source in shown:
        known = [c for c, own in enumerate(source.held_out) if own]
        for c in source.facets if len(known) > 1 else ():
            if source.held_out[c]:
                presets.setdefault(source.preset, []).append((source, c))
    if not presets:
        raise ValueError(
            "no run has held-out photographs of two facets: a blind test asks about photographs that took part in "
            "nothing, so set facets.held_out (0.2) and give more photographs"
        )
    if count < len(presets):
        raise ValueError(f"--questions must be at least {len(presets)}, one for each of what is compared, not {count}")
    for place, (preset, choices) in enumerate(presets.items()):
        number = count // len(presets) + (place < count % len(presets))
        order = [choices[i] for i in generator.permutation(len(choices))]
        sides = generator.permutation([side for side, _ in zip(itertools.cycle("ab"), range(number), strict=False)])
        for side, (source, c) in zip(sides, itertools.cycle(order), strict=False):
            own = _next_photograph(pools, (source.content, c, True), source.held_out[c], generator)
            others = [name for other, names in enumerate(source.held_out) if other != c for name in names]
            other = _next_photograph(pools, (source.content, c, False), others, generator)
            asked.append(Question(preset, source.run, c, own, other, str(side)))
    return [asked[i] for i in generator.permutation(len(asked))]


def _next_photograph(
    pools: dict[tuple[str, int, bool], Iterator[str]], which: tuple[str, int, bool], names: Sequence[str],
    generator: np.random.Generator,
) -> str:  # fmt: skip
    """The next of the names, which come round in an order of their own."""
    if which not in pools:
        pools[which] = itertools.cycle([names[i] for i in generator.permutation(len(names))])
    return next(pools[which])


def _shown(folder: Path, runs: Sequence[ListedRun]) -> Iterator[_Shown]:
    common = set.intersection(*(set(run.overrides) for run in runs)) if len(runs) > 1 else set()
    contents = set()
    for number, run in enumerate(runs):
        if run.status.status != "completed":
            continue
        targets, stopped = _targets(folder / run.path)
        held_out: list[list[str]] = [[] for _ in range(targets.C)]
        for name, c in zip(targets.held_out, targets.held_out_labels.tolist(), strict=True):
            held_out[c].append(name)
        several = run.overrides if len(runs) > 1 else ()
        apart = [word for word in several if word not in common and not is_seed(word.partition("=")[0])]
        content, names = targets.content_hash(), tuple(map(tuple, held_out))
        drawn = tuple(c for c in range(targets.C) if c not in stopped)
        yield _Shown(" ".join(apart) or "its picture", number, content, names, drawn)
        if content not in contents:
            contents.add(content)
            yield _Shown(CONTROL, number, content, names, tuple(range(targets.C)))


def _targets(run: Path) -> tuple[FacetTargets, set[int]]:
    """Its facets, and those of them that were stopped. Raises ValueError where the run is damaged."""
    try:
        rows = json.loads(read_plain(run / "metrics.json", run))["facets"]
        stopped = {int(row["facet"]) for row in rows if "stopped" in row}
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{run} is damaged: its metrics.json cannot be read ({error})") from error
    return FacetTargets.load(run / "targets"), stopped


# ---- pictures --------------------------------------------------------------------------------------------------------


def _pictures(
    folder: Path, runs: Sequence[ListedRun], asked: Sequence[Question], images: Path | None
) -> Iterator[tuple[str, dict[str, Image.Image]]]:
    """Per question what is shown, and the photographs a and b. Each run's facets are read once."""
    numbered = sorted(_numbered(asked), key=lambda pair: pair[1].run)
    for run, group in itertools.groupby(numbered, key=lambda pair: pair[1].run):
        place = folder / runs[run].path
        targets, _ = _targets(place)
        window = _window(place)
        for name, question in group:
            own, other = (_photograph(targets, path, images, window) for path in (question.own, question.other))
            a, b = (own, other) if question.side == "a" else (other, own)
            facet, control = question.facet, question.preset == CONTROL
            shown = _nine_photographs(targets, facet) if control else _drawn(place, facet)
            yield name, {"shown": shown, "a": a, "b": b}


def _window(run: Path) -> tuple[float | None, float | None]:
    """Which values of raw counts the run took as 0 and 1, see `load_photographs`."""
    try:
        window = yaml.safe_load(read_plain(run / "config.yaml", run))["images"]
        black, white = float(window["black"]), float(window["white"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError, yaml.YAMLError):
        return None, None
    return black, white


def _photograph(
    targets: FacetTargets, path: str, images: Path | None, window: tuple[float | None, float | None]
) -> Image.Image:
    root = Path(targets.root) if images is None else images
    inside = PurePath(path)
    if inside.is_absolute() or ".." in inside.parts:
        raise ValueError(f"a held-out photograph has the path {path!a}, which leads out of {root}")
    channels, size = targets.initial.shape[1:3]
    try:
        arrays = [root / other for other in targets.paths if other.lower().endswith(".npy")]
        last = partial(channels_come_last, arrays, channels)
        photograph = read_photograph(root / inside, size, channels, *window, channels_last=last)
        return to_picture(targets.shown(photograph))
    except (OSError, UnreadablePhotograph) as error:
        raise ValueError(
            f"{root / inside} cannot be read ({error}); --images FOLDER says where the photographs lie now"
        ) from error


def _drawn(run: Path, facet: int) -> Image.Image:
    path = run / "facets" / f"{facet:02d}" / "visualization.png"
    try:
        with Image.open(io.BytesIO(read_plain(path, run)), formats=["PNG"]) as picture:
            return picture.convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} cannot be read ({error})") from error


def _nine_photographs(targets: FacetTargets, facet: int) -> Image.Image:
    """The nine photographs of the largest weights, three by three."""
    order = targets.weights[facet].argsort(descending=True, stable=True)[:NINE]
    return tiled([targets.shown(targets.photographs[facet, n]) for n in order.tolist()])


def tiled(photographs: Sequence[Tensor]) -> Image.Image:
    """Up to nine [ch, S, S] on one square grey sheet of SIDE pixels, as few columns as hold them."""
    columns = int(np.ceil(np.sqrt(len(photographs))))
    gap, sheet = 4, Image.new("RGB", (SIDE, SIDE), "grey")
    side = (SIDE - gap * (columns - 1)) // columns
    rows = -(-len(photographs) // columns)
    top = (SIDE - rows * (side + gap) + gap) // 2
    for number, photograph in enumerate(photographs):
        small = to_picture(photograph).convert("RGB").resize((side, side), Image.Resampling.LANCZOS)
        sheet.paste(small, (number % columns * (side + gap), top + number // columns * (side + gap)))
    return sheet


def _encoded(picture: Image.Image) -> bytes:
    """Pixels alone, at one size: no header of the file that they came from, photograph or not."""
    plain = Image.fromarray(np.asarray(picture.convert("RGB")))
    return as_webp(plain.resize((SIDE, SIDE), Image.Resampling.LANCZOS), 90)


# ---- the page --------------------------------------------------------------------------------------------------------


def page(data: Mapping[str, object]) -> str:
    """The HTML of the page: the gallery's colours and policy, see `fill`; `data` has names of pictures and no key."""
    parts = files("mindseye.reports.blind") / "page"
    colours = (files("mindseye.reports.gallery") / "page" / "gallery.css").read_text("utf-8")
    style = colours.partition("* { box-sizing")[0] + (parts / "blind.css").read_text("utf-8")
    template, script = ((parts / name).read_text("utf-8") for name in ("blind.html", "blind.js"))
    return fill(template, style, script, [("test", data)])

"""The one table of measures: what each is called, which way is better, where it is shown and what is said of it.

Whatever shows or ranks measures reads it here: the closing table, contact sheet, notebooks, `mindseye report`, sweeps,
the gallery. The formulas stand in `metrics.py` and `likeness.py`, docs/metrics.md explains each.
"""

import itertools
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Better = Literal["larger", "smaller", "near 1", ""]


@dataclass(frozen=True)
class Measure:
    """One figure of metrics.json, by its dotted name."""

    name: str
    better: Better  # "": neither way, it is to be held against something that was asked for
    about: str  # one or two sentences for the gallery
    column: str = ""  # its head in the closing table; "": it has no column there
    sheet: str = ""  # its name on the contact sheet; "": it does not stand there
    notebook: bool = False  # whether a notebook shows it
    report: bool = False  # whether `mindseye report` compares by it where nobody says
    weight: str = ""  # beside it, by what facets count in a mean, see `weight_of`; "": all alike
    falls_with: str = ""  # a setting that moves it whatever is drawn: cells of unlike values cannot be ranked by it


_ALL = (
    Measure(
        "transfer.gain", "larger",
        "How far another network finds the picture on the way from the blend of the photographs (0) to the nearest "
        "photograph (1). Look at this first.",
        column="gain", notebook=True, report=True, weight="way",
    ),
    Measure(
        "transfer.cosine", "larger",
        "How alike another network, which had no part in drawing, finds the picture and the facet's photographs.",
        column="trans-\nfer", sheet="transfer", notebook=True, report=True,
    ),
    Measure(
        "transfer.retrieval", "larger", "1 where another network finds no other facet's photographs nearer.",
        column="retrie-\nval", notebook=True, report=True, falls_with="C",
    ),
    Measure(
        "transfer.agreement", "larger",
        "Probability that another network gives to the class it sees most in the photographs.",
        column="agree-\nment", report=True,
    ),
    Measure(
        "transfer.agreement_gain", "larger",
        "How far that probability is on the way from the blend of the photographs (0) to the nearest photograph (1).",
        weight="agreement_way",
    ),
    Measure(
        "transfer.way", "",
        "How much nearer another network finds the nearest photograph than the blend: what the gain is a share of, and "
        "by which facets count in its mean.",
    ),
    Measure("transfer.agreement_way", "", "The same of the probability."),
    Measure(
        "transfer.accuracy", "larger",
        "1 where the class that another network sees most in the photographs is the one it sees most in the picture.",
        column="accu-\nracy", report=True,
    ),
    Measure(
        "transfer.accuracy5", "larger",
        "1 where the class that another network sees most in the photographs is among the five of the picture.",
    ),
    Measure(
        "transfer.forced_choice", "larger",
        "Of a photograph of this facet and one of another, both unseen: how often another network matches them with "
        "the pictures rightly. 0.5 is chance.",
        column="forced\nchoice", report=True,
    ),
    Measure(
        "transfer.forced_choice_smooth", "larger", "The forced choice with its margin: 0.5 is chance.",
    ),
    Measure(
        "transfer.forced_choice_photographs", "",
        "The same forced choice by the nine nearest photographs in place of the picture: what there is to reach.",
    ),
    Measure(
        "transfer.forced_choice_photographs_smooth", "",
        "The same with its margin by the nine nearest photographs in place of the picture.",
    ),
    Measure(
        "transfer.copy", "smaller",
        "Above 1 the picture is nearer to one photograph, in another network's maps, than any two photographs of the "
        "facet are to each other: a copy.",
        column="copy", report=True,
    ),
    Measure(
        "fidelity.cosine", "larger",
        "Cosine of the layer's answer to the picture and to the photographs, over the top-k maps. High alone is not "
        "truth: grain can match a layer.",
        column="fide-\nlity", sheet="fidelity", notebook=True, report=True, falls_with="k",
    ),
    Measure(
        "fidelity.relative_distance", "smaller",
        "Distance of the layer's answer from the one asked for, relative to it. 0 is exact.",
        column="dis-\ntance", notebook=True, falls_with="k",
    ),
    Measure(
        "fidelity.magnitude", "",
        "Strength of the layer's answer over that to the photographs: the gain is what was asked for, 10 and more is "
        "runaway activation.",
        column="magni-\ntude", report=True,
    ),
    Measure(
        "fidelity.pooled.cosine", "larger", "The same cosine on channel means: what, whatever the place.",
        falls_with="k",
    ),
    Measure(
        "fidelity.pooled.relative_distance", "smaller", "The same distance on channel means.", falls_with="k",
    ),
    Measure("fidelity.pooled.magnitude", "", "The same strength on channel means."),
    Measure(
        "selectivity", "larger", "Share of the layer's activation in the top-k channels.",
        column="selec-\ntivity", sheet="selectivity", notebook=True, falls_with="k",
    ),
    Measure(
        "retrieval", "larger",
        "1 where no other facet's target is nearer to the picture. Less in the mean: facets are confused.",
        column="retrie-\nval", notebook=True, falls_with="C",
    ),
    Measure(
        "path.target", "larger",
        "Whether all channels of the layer answer the picture as they answer photographs: 0 as those of other facets, "
        "1 as another photograph of this facet.",
        notebook=True, report=True,
    ),
    Measure(
        "path.mean", "larger",
        "The same over all layers on the way that were looked at: 0 as photographs of other facets, 1 as another "
        "photograph of this facet, below 0 as none.",
        column="path", report=True,
    ),
    Measure(
        "copy", "smaller",
        "Above 1 the picture's forms are nearer to those of one photograph than any two photographs of the facet are "
        "to each other: a copy.",
        column="copy", report=True,
    ),
    Measure(
        "naturalness.tv", "near 1",
        "Total variation over the photographs': 1 is as smooth as they are, more is grain, far less is haze.",
        column="TV ×\nphotos", sheet="TV ×", notebook=True, report=True,
    ),
    Measure(
        "naturalness.spectrum", "smaller",
        "Distance of the picture's log power spectrum from the photographs': 0 is theirs, 1 is ten times or a tenth of "
        "their power throughout.",
        report=True,
    ),
    Measure(
        "diversity", "larger",
        "How unlike the textures of the other facets' pictures: 0 where every facet came out the same. Compare it with "
        "the nearest photographs'.",
        report=True,
    ),
    Measure(
        "facets.firmness", "larger",
        "Whether the facet would come out again of slightly other activations or of 80 % of the photographs: 1 is the "
        "same photographs, below 0.6 it should not be trusted.",
        column="firm-\nness", sheet="firmness",
    ),
    Measure(
        "facets.effective", "", "How many photographs the blend amounts to, 1/Σw².", column="effec-\ntive",
    ),
    Measure(
        "facets.clarity", "larger",
        "How alike the facet's photographs are, to the layer or to another network: 0 is as unlike as any.",
        column="clari-\nty",
    ),
    Measure(
        "facets.redundancy", "smaller", "How like the most similar other facet it is: 1 is the same facet twice.",
        column="redun-\ndancy",
    ),
)  # fmt: skip
MEASURES: Mapping[str, Measure] = {measure.name: measure for measure in _ALL}
# What cells can be ranked by.
RANKED = tuple(measure.name for measure in _ALL if measure.better)
# What a sweep compares by where nobody says: the first of these that every cell has. The first two need a network that
# judges; the third needs none, and no k. The last is there whatever is drawn, and falls with k.
OWN_TERMS = "loss."  # with what the names of an objective's own terms begin
USUAL = ("transfer.gain", "transfer.cosine", "path.target", "fidelity.cosine")
# What metrics.json says of a facet besides measures of one's own, which cannot have these names.
COLUMNS = ("network", "layer", "channels")  # that stand beside the measures in a sweep's summary
TAKEN = (
    "facet", "marks", "stopped", "baselines", "loss", *COLUMNS,
    *dict.fromkeys(name.partition(".")[0] for name in MEASURES),
)  # fmt: skip


def known(name: str) -> Measure | None:
    """The measure of that name; of one of several networks' what it is of the first one's, of a layer's what the
    mean is. None for one of the user's own.

    >>> known("transfer.networks.resnet18.cosine").name, known("path.layers.features.3").name, known("contrast")
    ('transfer.cosine', 'path.mean', None)
    """
    plain = re.sub(r"^(transfer|facets)\.networks\..+\.", r"\1.", name)
    return MEASURES.get("path.mean" if plain.startswith("path.layers.") else plain)


def weight_of(name: str) -> str | None:
    """By which other figure facets count in a mean of this one; None where all count alike.

    Of a share of a way that is the way itself: the mean of shares is then the ratio of mean differences, which a facet
    of hardly any way cannot upset.

    >>> weight_of("transfer.networks.resnet18.gain"), weight_of("copy")
    ('transfer.networks.resnet18.way', None)
    """
    measure = known(name)
    return f"{name.rpartition('.')[0]}.{measure.weight}" if measure is not None and measure.weight else None


def weight_in(row: Mapping[str, Any], name: str) -> float:
    """How much a row of figures by their dotted names counts in a mean of this one: 1 where nothing is said of it."""
    weight = row.get(weight_of(name) or "")
    return float(weight) if isinstance(weight, int | float) else 1.0


def path_layers(row: Iterable[str]) -> set[str]:
    """The layers that `path.mean` is a mean over, of the names of a row's figures."""
    return {name for name in row if name.startswith("path.layers.")}


def is_own(name: str) -> bool:
    """Whether a figure is the user's: a measure of their own, or a term of their own objective (`loss.NAME`).

    >>> is_own("contrast"), is_own("loss.darker"), is_own("diversity"), is_own("facets.effective")
    (True, True, False, False)
    """
    return name.startswith(OWN_TERMS) or ("." not in name and name not in TAKEN)


def column_order(name: str) -> tuple[int, str]:
    """By which columns are sorted: in the table's order, then those of one's own, then several networks' and layers'.

    >>> sorted(["zest", "transfer.networks.a.cosine", "copy", "transfer.gain"], key=column_order)
    ['transfer.gain', 'copy', 'zest', 'transfer.networks.a.cosine']
    """
    if name in MEASURES:
        return list(MEASURES).index(name), name
    return len(MEASURES) + (known(name) is not None), name


def worse(name: str, value: float) -> float:
    """A number that is the smaller the better the value is; of a measure of one's own the larger is better."""
    measure = MEASURES.get(name)
    if measure is not None and measure.better == "near 1":
        return abs(value - 1)
    return value if measure is not None and measure.better == "smaller" else -value


def usual(cells: Iterable[Iterable[str]]) -> str:
    """What cells are compared by where nobody says: the first of USUAL that each has, of the names each has."""
    names = [set(given) for given in cells]
    return next((name for name in USUAL if names and all(name in given for given in names)), USUAL[-1])


def flat(nested: Mapping[str, Any], *, most: int | None = None, deepest: int | None = None) -> dict[str, Any]:
    """Nested mappings as dotted keys, in their order; at most `most`, and what lies deeper than `deepest` as it is.

    >>> flat({"k": 3, "objective": {"gain": 2.5}})
    {'k': 3, 'objective.gain': 2.5}
    """
    figures: dict[str, Any] = {}
    waiting: list[tuple[str, Any, int]] = [(str(name), value, 1) for name, value in reversed(list(nested.items()))]
    while waiting and (most is None or len(figures) < most):
        key, value, depth = waiting.pop()
        if isinstance(value, Mapping) and value and (deepest is None or depth < deepest):
            # Anchors of YAML may multiply: no more is put aside than is given.
            inner = list(itertools.islice(value.items(), most))
            waiting += [(f"{key}.{name}", inside, depth + 1) for name, inside in reversed(inner)]
        else:
            figures[key] = value
    return figures


def numbers(figures: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Every figure by its dotted name, those that there are.

    >>> dict(numbers({"fidelity": {"cosine": 1, "magnitude": None}}))
    {'fidelity.cosine': 1.0}
    """
    for name, value in flat(figures).items():
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            yield name, float(value)

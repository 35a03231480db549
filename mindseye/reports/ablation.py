"""What a change does, measured in pairs: every cell against the one that differs from it in that change alone.

The rows are a sweep's summary (`mindseye.sweeps.summary.read_rows`): one per cell and facet. Cells that share all
other overrides look at the same facets, so that facet c of one is held against facet c of the other.
"""

import csv
import html
import io
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache

import numpy as np
from scipy.stats import permutation_test

from mindseye.reports.response import Response, in_words
from mindseye.results.measures import MEASURES, is_own, path_layers, weight_in

RESAMPLES = 10_000
LEVEL = 0.95
USUAL = tuple(name for name, measure in MEASURES.items() if measure.report)


class NoPairs(ValueError):
    """No two cells have the same facets, so that nothing can be held against anything."""


@dataclass(frozen=True)
class Difference:
    """One measure of one variant, against the reference's."""

    measure: str
    variant: str
    mean: float  # of the variant itself, over its pairs
    difference: float  # mean of variant − reference over the pairs
    low: float  # of a 95 % bootstrap interval of that mean; NaN where all pairs are of one facet
    high: float
    pairs: int
    facets: int  # that these pairs are of: facets of one sample are one, whatever seed they were found under
    p: float = math.nan  # of the exact sign-flip test over facets, see `_sign_flips`; NaN where all are of one facet

    @property
    def clear(self) -> bool:
        """Whether the interval leaves 0 out."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Comparison:
    """All differences, with the reference's own means, and how many rows had no part in them, by the reason."""

    by: str
    reference: str
    means: Mapping[str, float]  # measure -> the reference's mean over all its facets
    differences: tuple[Difference, ...]
    unpaired: int  # rows without a partner in the reference, or whose partner is a facet of other photographs
    stopped: int = 0  # rows of facets that were stopped
    marked: int = 0  # rows of facets that are marked, not firm say; they are compared all the same
    response: tuple[Response, ...] = field(default=())  # to `by`, where it takes numbers
    cells: int = 0  # that have a part in any pair
    sentences: tuple[str, ...] = ()  # on every setting of the sweep, see `mindseye.reports.findings`


def compare(
    rows: Sequence[Mapping[str, object]],
    by: str,
    reference: str,
    *,
    measures: Sequence[str] | None = None,
    seed: int = 0,
) -> Comparison:
    """Hold every value of the override `by` against `reference`, pair by pair.

    A pair agrees in all other overrides, in the facet and in the photographs that it is made of. The interval is a
    percentile bootstrap (Efron 1979) of RESAMPLES draws over *facets*, each with all its pairs (a cluster bootstrap,
    Davison & Hinkley 1997, section 3.8): rows of one `sample`, where they have it, or of the same photographs are one
    facet, since pairs of it under other seeds are no draws of their own. Of few facets it is too narrow. Shares of a
    way count by the way. Facets that were stopped are left out, as are measures that no row has; None:
    `usual_measures`. Means over the layers on the way are compared where both are of the same layers. Raises
    ValueError, in one line, for names that are not there and where nothing can be paired.
    """
    key = f"override.{by}"
    drawn = [row for row in rows if row.get("facet") is not None]
    whole = [row for row in drawn if row.get("stopped.step") is None]
    values = list(dict.fromkeys(str(row[key]) for row in drawn if row.get(key) is not None))
    if not values:
        raise ValueError(f"--by {by}: no completed cell sets it; {_comparable_by(drawn)} can be compared by")
    if reference not in values:
        raise ValueError(f"--reference {reference}: {by} has {', '.join(values)}")
    measures = usual_measures(whole) if measures is None else measures
    given = [measure for measure in measures if any(_number(row.get(measure)) is not None for row in whole)]
    if not given:
        raise ValueError(f"--measures {' '.join(measures)}: no facet has them; {', '.join(_measured(whole))} are there")
    others = sorted({name for row in drawn for name in row if name.startswith("override.")} - {key})
    tables: dict[str, dict[tuple, Mapping[str, object]]] = {value: {} for value in values}
    for row in whole:
        if row.get(key) is not None:
            tables[str(row[key])][(*(row.get(name) for name in others), row["facet"])] = row
    base = tables[reference]
    differences, unpaired, cells = [], 0, set()
    for variant in values:
        table = tables[variant]
        places = [place for place in table if place in base and _same_facet(table[place], base[place])]
        unpaired += len(table) - len(places)
        if variant == reference:
            continue
        cells |= {rows[place].get("cell") for rows in (table, base) for place in places}
        for measure in given:
            pairs = [
                (ours, theirs, weight_in(base[place], measure), _drawn_together(base[place], place))
                for place in places
                if (measure != "path.mean" or path_layers(table[place]) == path_layers(base[place]))
                and (ours := _number(table[place].get(measure))) is not None
                and (theirs := _number(base[place].get(measure))) is not None
            ]
            if pairs:
                differences.append(_difference(measure, variant, pairs, seed))
    if not differences and unpaired:
        raise NoPairs(
            f"--by {by}: no two cells have the same facets; they are found anew for every network, layer and C, so "
            "that facet 0 of one is not facet 0 of the other"
        )
    means = {measure: _mean(list(base.values()), measure) for measure in given}
    marked = sum(bool(row.get("marks")) for row in whole)
    stopped = len(drawn) - len(whole)
    return Comparison(by, reference, means, tuple(differences), unpaired, stopped, marked, cells=len(cells))


def usual_measures(rows: Sequence[Mapping[str, object]]) -> list[str]:
    """What is compared where nobody says: of several networks that judge each one's figures, and the user's own."""
    names = dict.fromkeys(name for row in rows for name in row if name.startswith("transfer.networks."))
    chosen = []
    for name in USUAL:
        group, _, figure = name.partition(".")
        own = [usual for usual in names if group == "transfer" and usual.rpartition(".")[2] == figure]
        chosen += own or [name]
    return [*chosen, *(name for name in _measured(rows) if is_own(name))]


def _comparable_by(rows: Sequence[Mapping[str, object]]) -> str:
    values: dict[str, set[str]] = {}
    for row in rows:
        for name, value in row.items():
            if name.startswith("override."):
                values.setdefault(name.removeprefix("override."), set()).add(str(value))
    return ", ".join(sorted(name for name, different in values.items() if len(different) > 1)) or "nothing"


def _measured(rows: Sequence[Mapping[str, object]]) -> list[str]:
    apart = ("override.", "timing.", "stopped.")
    names = {name for row in rows for name, value in row.items() if _number(value) is not None}
    return sorted(names - {"facet", "channels", "sample"} - {name for name in names if name.startswith(apart)})


def _same_facet(row: Mapping[str, object], other: Mapping[str, object]) -> bool:
    return row.get("photographs") == other.get("photographs")


def _drawn_together(row: Mapping[str, object], place: tuple) -> object:
    return next((row[name] for name in ("sample", "photographs") if row.get(name) is not None), place)


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _mean(rows: Sequence[Mapping[str, object]], measure: str) -> float:
    given = [(value, weight_in(row, measure)) for row in rows if (value := _number(row.get(measure))) is not None]
    return float(np.average([x for x, _ in given], weights=[w for _, w in given])) if given else math.nan


def _difference(
    measure: str, variant: str, pairs: Sequence[tuple[float, float, float, object]], seed: int
) -> Difference:
    paired: dict[object, list[tuple[float, float]]] = {}
    for ours, theirs, weight, facet in pairs:
        paired.setdefault(facet, []).append((ours - theirs, weight))
    difference, low, high = mean_and_interval(paired, seed)
    mean = float(np.average([ours for ours, _, _, _ in pairs], weights=[weight for _, _, weight, _ in pairs]))
    p = _sign_flips([sum(value * weight for value, weight in each) for each in paired.values()], seed)
    return Difference(measure, variant, mean, difference, low, high, len(pairs), len(paired), p)


def _sign_flips(sums: Sequence[float], seed: int) -> float:
    """The two-sided p of the mean under all flips of the facets' signs (Fisher 1935); of RESAMPLES where 2ⁿ is more.

    Where a variant does nothing, it and the reference may change places within every facet: the test then says p ≤ α
    in a share α of sweeps at most, however few facets there are. n facets give no p below 2/2ⁿ. NaN for one facet.
    """
    if len(sums) < 2:
        return math.nan
    test = permutation_test(
        (np.array(sums),), np.mean, permutation_type="samples", n_resamples=RESAMPLES, vectorized=True,
        random_state=np.random.default_rng(seed),
    )  # fmt: skip
    return float(test.pvalue)


def mean_and_interval(
    grouped: Mapping[object, Sequence[tuple[float, float]]], seed: int = 0
) -> tuple[float, float, float]:
    """The mean of all values and a percentile bootstrap interval of it, drawn over groups, each with all its values.

    grouped: (value, weight) by group. NaN for the interval of a single group, and for all three of none. See `compare`.
    """
    if not grouped:
        return math.nan, math.nan, math.nan
    sums = np.array([sum(value * weight for value, weight in each) for each in grouped.values()])
    weights = np.array([sum(weight for _, weight in each) for each in grouped.values()])
    low = high = math.nan
    if len(sums) > 1:
        drawn = _draws(len(sums), seed)
        tail = (1 - LEVEL) / 2
        low, high = np.quantile(sums[drawn].sum(axis=1) / weights[drawn].sum(axis=1), [tail, 1 - tail])
    return float(sums.sum() / weights.sum()), float(low), float(high)


@lru_cache(maxsize=1)  # every measure of a variant is drawn for alike
def _draws(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, count, (RESAMPLES, count))


# ---- as text ---------------------------------------------------------------------------------------------------------


def as_markdown(comparison: Comparison) -> str:
    """A row per variant, a column per measure: the difference and its interval, in bold where it leaves 0 out.

    Below it stand the sentences, if there are any.
    """

    def cell(difference: Difference) -> str:
        shown = f"{signed(difference.difference)} {_interval(difference)}"
        return f"**{shown}**" if difference.clear else shown

    lines = _table(comparison, cell, _markdown)
    head, *body = [f"| {' | '.join(cells)} |" for cells in lines]
    rule = f"|{'---|' * len(lines[0])}"
    sentences = [f"- {_markdown(sentence)}" for sentence in comparison.sentences]
    ending = ["", "## What the intervals say", "", *sentences] if sentences else []
    return "\n".join([head, rule, *body, "", _markdown(_caption(comparison)), *ending, ""])


def as_latex(comparison: Comparison) -> str:
    """The same for LaTeX with booktabs: intervals below the differences, which are bold where they leave 0 out."""
    head, own, *body = _table(comparison, _latex_number, _latex)
    intervals = _table(comparison, lambda difference: rf"{{\scriptsize {_interval(difference)}}}", _latex)[2:]
    lines = [head, own]
    for numbers, (_, *below, _) in zip(body, intervals, strict=True):
        lines += [numbers, ["", *below, ""]]
    top, *rest = [" & ".join(cells) + r" \\" for cells in lines]
    columns = "l" + "r" * (len(comparison.means) + 1)
    begin, end = rf"\begin{{tabular}}{{{columns}}}", r"\end{tabular}"
    comment = "% " + _latex(_caption(comparison)) + r" \usepackage{booktabs}"
    return "\n".join([comment, begin, r"\toprule", top, r"\midrule", *rest, r"\bottomrule", end, ""])


def _latex_number(difference: Difference) -> str:
    shown = signed(difference.difference)
    return rf"$\mathbf{{{shown}}}$" if difference.clear else f"${shown}$"


def as_json(comparison: Comparison) -> str:
    """Everything, for programs; the gallery shows it."""
    stored = asdict(comparison)
    for difference in stored["differences"]:
        numbers = ("low", "high", "p")
        difference.update({name: None for name in numbers if math.isnan(difference[name])})  # JSON has no NaN
    return json.dumps(stored, indent=1)


def as_csv(comparison: Comparison) -> str:
    """A line per variant and measure, in full digits."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow([comparison.by, "measure", "mean", "difference", "low", "high", "pairs", "facets", "p"])
    for measure, mean in comparison.means.items():
        writer.writerow([comparison.reference, measure, mean, "", "", "", "", "", ""])
    for line in comparison.differences:
        own = (line.mean, line.difference, line.low, line.high, line.pairs, line.facets, line.p)
        writer.writerow([line.variant, line.measure, *own])
    return text.getvalue()


def signed(value: float) -> str:
    """Three decimals with their sign, and a fourth where these are all 0, so that an interval shows on which side of 0
    it ends; 0 has no sign.

    >>> signed(0.0312), signed(-0.25), signed(-0.0001), signed(0.00001)
    ('+0.031', '-0.250', '-0.0001', '0.000')
    """
    if abs(value) < 5e-5:
        return "0.000"
    return f"{value:+.4f}" if abs(value) < 5e-4 else f"{value:+.3f}"


def _interval(difference: Difference) -> str:
    return "" if difference.facets < 2 else f"[{signed(difference.low)}, {signed(difference.high)}]"


def _table(comparison: Comparison, cell: Callable[[Difference], str], quoted: Callable[[str], str]) -> list[list[str]]:
    """Head, the reference's own means, and a row per variant; every text quoted."""
    measures = list(comparison.means)
    known = {(line.variant, line.measure): line for line in comparison.differences}
    variants = list(dict.fromkeys(line.variant for line in comparison.differences))
    own = [f"{comparison.means[measure]:.3f}" for measure in measures]
    head = [quoted(comparison.by), *map(quoted, measures), "pairs (facets)"]
    lines = [head, [quoted(f"{comparison.reference} (its own means)"), *own, ""]]
    for variant in variants:
        most = max((line for line in comparison.differences if line.variant == variant), key=lambda line: line.pairs)
        cells = [cell(known[variant, measure]) if (variant, measure) in known else "" for measure in measures]
        lines.append([quoted(variant), *cells, f"{most.pairs} ({most.facets})"])
    return lines


def _caption(comparison: Comparison) -> str:
    left_out = f" {comparison.unpaired} rows had no partner." if comparison.unpaired else ""
    stopped = f" {comparison.stopped} rows of stopped facets are left out." if comparison.stopped else ""
    of_marked = f" {comparison.marked} rows are of facets that are marked, not firm say."
    marked = of_marked if comparison.marked else ""
    response = in_words(comparison.response, comparison.by)
    shown = f" {response[:1].upper()}{response[1:]}." if response else ""
    return (
        f"Difference to {comparison.by}={comparison.reference}, paired over facets and all other settings, with a "
        f"{LEVEL:.0%} interval of its mean by a bootstrap over facets.{left_out}{stopped}{marked}{shown}"
    )


def _markdown(text: str) -> str:
    """As text in a cell of a table, whatever a setting's value holds."""
    plain = html.escape(" ".join(text.split()), quote=False)
    return re.sub(r"([\\`*|\[\]])", r"\\\1", plain)


def _latex(text: str) -> str:
    special = {
        "_": r"\_", "%": r"\%", "&": r"\&", "#": r"\#", "$": r"\$", "{": r"\{", "}": r"\}",
        "\\": r"\textbackslash{}", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}",
        ">": r"\textgreater{}",
    }  # fmt: skip
    return "".join(special.get(letter, letter) for letter in " ".join(text.split()))

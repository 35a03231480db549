"""What a change does, measured in pairs: every cell against the one that differs from it in that change alone.

The rows are a sweep's summary (`mindseye.sweeps.summary.read_rows`): one per cell and facet. Cells that share all
other overrides look at the same facets, so that facet c of one is held against facet c of the other.
"""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

RESAMPLES = 10_000
LEVEL = 0.95
MEASURES = (
    "transfer.cosine", "transfer.retrieval", "transfer.agreement", "fidelity.cosine", "fidelity.magnitude",
    "naturalness.tv", "naturalness.spectrum", "diversity",
)  # fmt: skip


@dataclass(frozen=True)
class Difference:
    """One measure of one variant, against the reference's."""

    measure: str
    variant: str
    mean: float  # of the variant itself, over its pairs
    difference: float  # mean of variant − reference over the pairs
    low: float  # of a 95 % bootstrap interval of that mean
    high: float
    pairs: int

    @property
    def clear(self) -> bool:
        """Whether the interval leaves 0 out."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Comparison:
    """All differences, with the reference's own means; `unpaired` counts rows that had no partner."""

    by: str
    reference: str
    means: Mapping[str, float]  # measure -> the reference's mean over all its facets
    differences: tuple[Difference, ...]
    unpaired: int


def compare(
    rows: Sequence[Mapping[str, object]],
    by: str,
    reference: str,
    *,
    measures: Sequence[str] = MEASURES,
    seed: int = 0,
) -> Comparison:
    """Hold every value of the override `by` against `reference`, pair by pair.

    A pair agrees in all other overrides and in the facet. The interval is a percentile bootstrap (Efron 1979) over
    pairs, RESAMPLES times, the same pairs for every measure. Measures that no row has are left out. Raises ValueError,
    in one line, where nothing was swept by that name or the reference is not among its values.
    """
    key = f"override.{by}"
    found = [row for row in rows if row.get("facet") is not None]
    values = list(dict.fromkeys(str(row[key]) for row in found if row.get(key) is not None))
    if not values:
        swept = sorted({name.removeprefix("override.") for row in rows for name in row if name.startswith("override.")})
        raise ValueError(f"--by {by}: no completed cell sets it; {', '.join(swept) or 'nothing'} can be compared by")
    if reference not in values:
        raise ValueError(f"--reference {reference}: {by} has {', '.join(values)}")
    others = sorted({name for row in found for name in row if name.startswith("override.")} - {key})
    tables: dict[str, dict[tuple, Mapping[str, object]]] = {value: {} for value in values}
    for row in found:
        tables[str(row[key])][(*(row.get(name) for name in others), row["facet"])] = row
    given = [measure for measure in measures if any(_number(row.get(measure)) is not None for row in found)]
    base = tables[reference]
    differences, unpaired = [], 0
    for variant in values:
        pairs = [place for place in tables[variant] if place in base]
        unpaired += len(tables[variant]) - len(pairs)
        if variant == reference or not pairs:
            continue
        for measure in given:
            both = [
                (_number(tables[variant][place].get(measure)), _number(base[place].get(measure))) for place in pairs
            ]
            both = [(ours, theirs) for ours, theirs in both if ours is not None and theirs is not None]
            if both:
                differences.append(_difference(measure, variant, np.array(both), seed))
    means = {measure: _mean([row.get(measure) for row in base.values()]) for measure in given}
    return Comparison(by, reference, means, tuple(differences), unpaired)


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _mean(values: Sequence[object]) -> float:
    numbers = [number for value in values if (number := _number(value)) is not None]
    return float(np.mean(numbers)) if numbers else float("nan")


def _difference(measure: str, variant: str, both: np.ndarray, seed: int) -> Difference:
    paired = both[:, 0] - both[:, 1]
    drawn = np.random.default_rng(seed).integers(0, len(paired), (RESAMPLES, len(paired)))
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(paired[drawn].mean(axis=1), [tail, 1 - tail])
    return Difference(
        measure, variant, float(both[:, 0].mean()), float(paired.mean()), float(low), float(high), len(paired)
    )


# ---- as text ---------------------------------------------------------------------------------------------------------


def as_markdown(comparison: Comparison) -> str:
    """A row per variant, a column per measure: the difference and its interval, in bold where it leaves 0 out."""
    lines = _table(comparison, lambda d: f"{'**' if d.clear else ''}{_said(d)}{'**' if d.clear else ''}")
    head, *body = [f"| {' | '.join(cells)} |" for cells in lines]
    rule = f"|{'---|' * len(lines[0])}"
    return "\n".join([head, rule, *body, "", _caption(comparison), ""])


def as_latex(comparison: Comparison) -> str:
    """The same as a booktabs table."""

    def cell(difference: Difference) -> str:
        said = rf"${difference.difference:+.3f}$ {{\scriptsize$[{difference.low:+.3f}, {difference.high:+.3f}]$}}"
        return rf"\textbf{{{said}}}" if difference.clear else said

    head, *body = [
        " & ".join([_latex(name), *cells]) + r" \\" for name, *cells in _table(comparison, cell, _latex)
    ]
    columns = "l" + "r" * (len(comparison.means) + 1)
    begin, end = rf"\begin{{tabular}}{{{columns}}}", r"\end{tabular}"
    caption = _caption(comparison).replace("%", r"\%")
    return "\n".join([f"% {caption}", begin, r"\toprule", head, r"\midrule", *body, r"\bottomrule", end, ""])


def as_json(comparison: Comparison) -> str:
    """Everything, for programs; the gallery shows it."""
    return json.dumps(asdict(comparison), indent=1)


def as_csv(comparison: Comparison) -> str:
    """A line per variant and measure, in full digits."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow([comparison.by, "measure", "mean", "difference", "low", "high", "pairs"])
    for measure, mean in comparison.means.items():
        writer.writerow([comparison.reference, measure, mean, "", "", "", ""])
    for one in comparison.differences:
        writer.writerow([one.variant, one.measure, one.mean, one.difference, one.low, one.high, one.pairs])
    return text.getvalue()


def _said(difference: Difference) -> str:
    return f"{difference.difference:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]"


def _table(
    comparison: Comparison, cell: Callable[[Difference], str], quoted: Callable[[str], str] = str
) -> list[list[str]]:
    measures = list(comparison.means)
    known = {(one.variant, one.measure): one for one in comparison.differences}
    variants = list(dict.fromkeys(one.variant for one in comparison.differences))
    own = [f"{comparison.means[measure]:.3f}" for measure in measures]
    lines = [[comparison.by, *map(quoted, measures), "pairs"], [f"{comparison.reference} (its own means)", *own, ""]]
    for variant in variants:
        pairs = max(one.pairs for one in comparison.differences if one.variant == variant)
        cells = [cell(known[variant, measure]) if (variant, measure) in known else "" for measure in measures]
        lines.append([variant, *cells, str(pairs)])
    return lines


def _caption(comparison: Comparison) -> str:
    left_out = f" {comparison.unpaired} rows had no partner." if comparison.unpaired else ""
    return (
        f"Difference to {comparison.by}={comparison.reference}, paired over facets and all other settings, with a "
        f"{LEVEL:.0%} bootstrap interval of its mean.{left_out}"
    )


def _latex(text: str) -> str:
    special = {
        "_": r"\_",
        "%": r"\%",
        "&": r"\&",
        "#": r"\#",
        "$": r"\$",
        "{": r"\{",
        "}": r"\}",
        "\\": r"\textbackslash{}",
    }
    return "".join(special.get(letter, letter) for letter in text)

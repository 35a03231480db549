"""What a sweep says of its settings, in sentences that say no more than its intervals do."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy.stats import false_discovery_control

from mindseye.reports.ablation import LEVEL, Comparison, Difference, compare, signed
from mindseye.results.measures import known
from mindseye.settings import is_seed

RATE = 1 - LEVEL  # the share of false ones among the differences that are called shown, in the mean over sweeps
FEWEST = 6  # facets: fewer all move the same way by chance in more than one sweep of 20, 2/2⁵ = 0.06
MOST = 6  # values of a setting that one sentence has


@dataclass(frozen=True)
class Findings:
    """Every swept setting held against one value of it, and which of all the differences are shown."""

    comparisons: tuple[Comparison, ...]  # one per setting
    unlike: tuple[str, ...]  # settings whose cells have no facet in common: nothing can be held against anything
    seeds: tuple[tuple[str, int], ...]  # seeds that take several values, how many: chance, and no setting
    shown: frozenset[tuple[str, str, str]]  # (setting, its value, measure)

    @property
    def tested(self) -> int:
        """How many differences were looked at."""
        return sum(len(_can_show(comparison)) for comparison in self.comparisons)


def find(rows: Sequence[Mapping[str, object]], main: Comparison) -> Findings:
    """Compare every other override that takes several values with its first one, by the measures of `main`.

    rows: of `mindseye.sweeps.summary.read_rows`, from which `main` was made. A difference is *shown* where its interval
    leaves 0 out and the exact sign-flip test over facets holds at a false discovery rate of RATE among all differences
    of the sweep (Benjamini & Hochberg 1995): of many settings and measures some leave 0 out by chance, and a bootstrap
    over few facets is too narrow. A measure that a setting moves whatever is drawn has no part in it.
    """
    values: dict[str, list[str]] = {}
    for row in rows:
        if row.get("facet") is not None:
            for name, value in row.items():
                if name.startswith("override.") and value is not None:
                    values.setdefault(name.removeprefix("override."), []).append(str(value))
    several = {name: given[0] for name, given in values.items() if len(set(given)) > 1}
    chance = [name for name in several if is_seed(name) and name != main.by]
    seeds = tuple((name, len(set(values[name]))) for name in chance)
    several = {name: first for name, first in several.items() if name not in chance}
    comparisons, unlike = [], []
    for setting, first in {main.by: main.reference, **several}.items():
        try:
            comparison = main if setting == main.by else compare(rows, setting, first, measures=tuple(main.means))
        except ValueError:  # its cells have no facet in common
            unlike.append(setting)
        else:
            comparisons.append(comparison)
    tested = [(comparison.by, each) for comparison in comparisons for each in _can_show(comparison) if each.facets > 1]
    adjusted = false_discovery_control([each.p for _, each in tested]) if tested else []
    shown = {
        (setting, each.variant, each.measure)
        for (setting, each), p in zip(tested, adjusted, strict=True)
        if each.clear and p <= RATE
    }
    return Findings(tuple(comparisons), tuple(unlike), seeds, frozenset(shown))


def _can_show(comparison: Comparison) -> list[Difference]:
    return [difference for difference in comparison.differences if not _moves_anyway(difference.measure, comparison.by)]


def _moves_anyway(measure: str, setting: str) -> bool:
    row = known(measure)
    return row is not None and row.falls_with != "" and row.falls_with == setting.rpartition(".")[2]


def sentences(findings: Findings) -> list[str]:
    """Plain text, one each: per setting what it matters for, what is in doubt, and for what nothing is shown."""
    lines = [_how_to_read_it(findings)] if findings.tested else []
    for comparison in findings.comparisons:
        lines += _of_setting(comparison, findings)
    for setting in findings.unlike:
        lines.append(
            f"{setting}: its cells share no facets (they are found anew for every network, layer and C), so that "
            "nothing can be said of it in pairs."
        )
    for name, count in findings.seeds:
        lines.append(f"{name} is chance and no setting: its {count} values are averaged over.")
    return lines


def _how_to_read_it(findings: Findings) -> str:
    return (
        f"A difference is called shown where its {LEVEL:.0%} interval leaves 0 out and it stands a sign-flip test over "
        f"facets at a false discovery rate of {RATE:.0%} among all {findings.tested} differences of this sweep. What "
        "is not shown may be there all the same: the intervals say how large it can be."
    )


def _of_setting(comparison: Comparison, findings: Findings) -> list[str]:
    if not comparison.differences:
        return []
    told = _can_show(comparison)
    by, reference = comparison.by, comparison.reference
    counts = sorted({each.facets for each in comparison.differences})
    most = counts[-1]
    facets = f"{most} facet{'s' * (most != 1)}" if len(counts) == 1 else f"{counts[0]} to {most} facets"
    where = f"{facets}, {comparison.cells} cells"
    lines, doubted, nothing = [], [], []
    if most < FEWEST:
        lines.append(
            f"{by}: {most} facet{'s' * (most != 1)} are too few to show anything: by chance alone all of them "
            f"move the same way in {_share_by_chance(most)}; it takes {FEWEST}."
        )
    for measure in dict.fromkeys(each.measure for each in told):
        mine = [each for each in told if each.measure == measure]
        shown = [each for each in mine if (by, each.variant, measure) in findings.shown]
        doubtful = [each for each in mine if each.clear and each not in shown]
        rest = [each for each in mine if not each.clear]
        if shown:
            lines.append(
                f"{by} matters for {_with_direction(measure)}: against {reference}, {_effects(shown)}{_undecided(rest)}"
                f" ({where})."
            )
        elif rest and not doubtful:
            nothing.append(f"{measure} {_bounds(rest)}")
        if doubtful:
            doubted.append(f"{measure} ({_effects(doubtful)})")
    if doubted:
        lines.append(
            f"{by}, in doubt against {reference}: {', '.join(doubted)}. Each interval leaves 0 out, but among "
            f"so many differences of so few facets chance can do as much ({where})."
        )
    if nothing:
        lines.append(
            f"{by} does not show against {reference} in {', '.join(nothing)}: effects within these bounds are "
            f"left open ({where})."
        )
    moved = [measure for measure in comparison.means if _moves_anyway(measure, by)]
    if moved:
        lines.append(f"{by}: nothing is said of {', '.join(moved)}, which it moves whatever is drawn.")
    return lines


def _share_by_chance(facets: int) -> str:
    return "every sweep" if facets < 2 else f"one sweep of {2 ** (facets - 1)}"


def _with_direction(measure: str) -> str:
    row = known(measure)
    better = {"larger": " (larger is better)", "smaller": " (smaller is better)", "near 1": " (best near 1)"}
    return measure + (better.get(row.better, "") if row is not None else "")


def _effects(shown: Sequence[Difference]) -> str:
    strongest = sorted(shown, key=lambda each: -abs(each.difference))
    effects = [f"{each.variant}: {signed(each.difference)} {_interval(each)}" for each in strongest[:MOST]]
    left = len(strongest) - MOST
    return ", ".join(effects) + (f", and {left} smaller" if left > 0 else "")


def _undecided(rest: Sequence[Difference]) -> str:
    if not rest:
        return ""
    several = f"{len(rest)} other value{'s' * (len(rest) != 1)}"
    named = ", ".join(each.variant for each in rest) if len(rest) <= MOST else several
    return f"; nothing shows for {named}, within {_bounds(rest)}"


def _interval(each: Difference) -> str:
    return f"[{signed(each.low)}, {signed(each.high)}]"


def _bounds(several: Sequence[Difference]) -> str:
    """From the lowest to the highest bound: all of their intervals lie within."""
    bounded = [each for each in several if each.facets > 1]
    if not bounded:
        return "[no interval]"
    low, high = min(each.low for each in bounded), max(each.high for each in bounded)
    return f"[{signed(low)}, {signed(high)}]"

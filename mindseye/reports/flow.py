"""How facets of one clustering go over into another's: which hold, split, merge or vanish between layers, k, C, seeds.

Facets are sets of photographs, told by their names. The overlap of two is |A ∩ B| / |A ∪ B| (Jaccard 1912), the
one-to-one assignment is the one with the largest sum of overlaps (Kuhn 1955), and what becomes of a facet is told as
cluster transitions are (Spiliopoulou et al. 2006, MONIC, τ = ½). numpy alone: no network, no pictures.
"""

import csv
import io
import itertools
import math
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

HALF = 0.5  # of a facet's photographs: from so many on it comes from another, or goes into it


@dataclass(frozen=True)
class Partition:
    """Photographs in C facets: names [M], each once, and labels [M] in 0..C−1."""

    label: str  # what it is called: the value of the swept setting
    names: Sequence[Hashable]
    labels: np.ndarray
    C: int

    @property
    def sizes(self) -> np.ndarray:
        """[C]: how many photographs each facet has."""
        return np.bincount(self.labels, minlength=self.C)


@dataclass(frozen=True)
class Ribbon:
    """What facet `before` of one partition and facet `after` of the next share."""

    before: int
    after: int
    shared: int  # |A ∩ B|, at least 1
    overlap: float  # |A ∩ B| / |A ∪ B|
    assigned: bool  # whether the two belong together in the one-to-one assignment


def shared_photographs(first: Partition, second: Partition) -> np.ndarray:
    """|A ∩ B| of each facet of one with each of the other: int64 [C of one, C of the other]."""
    place = {name: i for i, name in enumerate(second.names)}
    pairs = [(i, place[name]) for i, name in enumerate(first.names) if name in place]
    shared = np.zeros((first.C, second.C), dtype=np.int64)
    if pairs:
        mine, theirs = np.array(pairs).T
        np.add.at(shared, (first.labels[mine], second.labels[theirs]), 1)
    return shared


def together(first: Partition, second: Partition) -> tuple[Partition, Partition]:
    """Both without the photographs that the other does not know: those held out by another seed are no difference."""
    common = set(first.names) & set(second.names)
    return _of_these_photographs(first, common), _of_these_photographs(second, common)


def _of_these_photographs(partition: Partition, common: set[Hashable]) -> Partition:
    kept = np.array([name in common for name in partition.names], dtype=bool)
    names = [name for name, keep in zip(partition.names, kept, strict=True) if keep]
    return Partition(partition.label, names, partition.labels[kept], partition.C)


def overlaps(shared: np.ndarray, sizes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """|A ∩ B| / |A ∪ B| from |A ∩ B| [C, C'], |A| [C] and |B| [C'] -> [C, C']; 0 for two empty ones."""
    union = sizes[:, None] + others[None, :] - shared
    return shared / np.maximum(union, 1)


def assign(overlap: np.ndarray) -> list[tuple[int, int]]:
    """The one-to-one assignment with the largest sum of overlaps [C, C']: min(C, C') pairs, by the first facet."""
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(overlap, maximize=True)
    return [(int(i), int(j)) for i, j in zip(rows, columns, strict=True)]


def chance(first: int, second: int) -> float:
    """The overlap of two facets of one and other equally large ones that have nothing to do with each other.

    |A ∩ B| = M/CC', |A ∪ B| = M/C + M/C' − M/CC', so that it is 1/(C + C' − 1).

    >>> chance(2, 2), chance(5, 5)
    (0.3333333333333333, 0.1111111111111111)
    """
    return 1 / (first + second - 1)


def ribbons(first: Partition, second: Partition) -> list[Ribbon]:
    """Everything that two partitions share, facet by facet, of the photographs that both know.

    Nothing where they have no photograph in common.
    """
    first, second = together(first, second)
    shared = shared_photographs(first, second)
    overlap = overlaps(shared, first.sizes, second.sizes)
    assigned = set(assign(overlap))
    shared_pairs = [(int(i), int(j)) for i, j in zip(*shared.nonzero(), strict=True)]
    return [Ribbon(i, j, int(shared[i, j]), float(overlap[i, j]), (i, j) in assigned) for i, j in shared_pairs]


def kinds(partitions: Sequence[Partition]) -> list[list[int]]:
    """One number per facet of each partition, the same for facets that are the same kind of photographs.

    Those of the first partition are its own numbers. Each other one's facets have the number of the facet of the first
    that they are assigned to, where the two overlap at least twice as much as by `chance`, or by half; what is left has
    a number of its own, which no other partition has. A partition without a photograph of an earlier first is
    a first.
    """
    given: list[list[int]] = []
    firsts: list[tuple[Partition, frozenset[Hashable], Iterator[int]]] = []
    for partition in partitions:
        names = frozenset(partition.names)
        known = next(((first, free) for first, others, free in firsts if not others.isdisjoint(names)), None)
        if known is None:
            firsts.append((partition, names, itertools.count(partition.C)))
            given.append(list(range(partition.C)))
            continue
        first, free = known
        least = min(HALF, 2 * chance(first.C, partition.C))
        alike = [ribbon for ribbon in ribbons(first, partition) if ribbon.assigned and ribbon.overlap >= least]
        own = {ribbon.after: ribbon.before for ribbon in alike}
        given.append([own[c] if c in own else next(free) for c in range(partition.C)])
    return given


def samples(partitions: Sequence[Partition]) -> list[list[int]]:
    """One number per facet of each partition, the same for facets that say little new of one another.

    What is drawn of the same photographs, grouped anew under another seed or C, are no independent draws: each facet is
    of the sample of that facet of the coarsest partition with which it shares the most photographs, so that C facets
    under any number of seeds are C samples at most. A facet that shares none is a sample of its own.
    """
    given: dict[int, list[int]] = {}
    firsts: list[tuple[Partition, frozenset[Hashable], list[int]]] = []
    free = itertools.count()
    for place in sorted(range(len(partitions)), key=lambda i: partitions[i].C):
        partition = partitions[place]
        names = frozenset(partition.names)
        known = next(((first, own) for first, others, own in firsts if not others.isdisjoint(names)), None)
        if known is None:
            given[place] = [next(free) for _ in range(partition.C)]
            firsts.append((partition, names, given[place]))
        else:
            first, own = known
            shared = shared_photographs(first, partition)
            given[place] = [own[int(of.argmax())] if of.any() else next(free) for of in shared.T]
    return [given[i] for i in range(len(partitions))]


def transitions(before: Partition, after: Partition) -> list[str]:
    """What becomes of the facets, a few words each: those that split, merge, dissolve, are new, and how many hold.

    B comes from A where at least half of B's photographs are A's; A goes into B where at least half of A's are B's. A
    splits where two or more come from it; several merge where they go into the same one. What does not split and goes
    nowhere dissolves; what is not merged and comes from nowhere is new; what goes into one alone holds. Photographs
    that one of the two does not know have no part in it.
    """
    before, after = together(before, after)
    shared = shared_photographs(before, after)
    if not shared.any():
        return ["no photograph in common"]
    comes = shared >= HALF * np.maximum(after.sizes, 1)[None, :]
    goes = shared >= HALF * np.maximum(before.sizes, 1)[:, None]
    splits = [i for i in range(before.C) if comes[i].sum() > 1]
    merges = [j for j in range(after.C) if goes[:, j].sum() > 1]
    lines = [f"{i} splits into {_listed(comes[i].nonzero()[0])}" for i in splits]
    lines += [f"{_listed(goes[:, j].nonzero()[0])} merge into {j}" for j in merges]
    lines += [f"{i} dissolves" for i in range(before.C) if before.sizes[i] and i not in splits and not goes[i].any()]
    lines += [f"{j} is new" for j in range(after.C) if after.sizes[j] and j not in merges and not comes[:, j].any()]
    goes[splits] = False
    goes[:, merges] = False
    return [*lines, f"{int(goes.any(axis=1).sum())} of {before.C} hold"]


def _listed(numbers: Sequence[int] | np.ndarray) -> str:
    first, last = [str(number) for number in numbers[:-1]], str(numbers[-1])
    return f"{', '.join(first)} and {last}" if first else last


def arrange(counts: Sequence[int], between: Sequence[Iterable[Ribbon]]) -> list[list[int]]:
    """The order of each partition's facets from top to bottom in which few ribbons cross.

    counts: C of each of the partitions; between: the ribbons from each to the next. The first in its own order; every
    other one by the mean place of the photographs that its facets share with the one before (the barycentre heuristic
    of Sugiyama et al. 1981); those that share none come last.
    """
    orders = [list(range(C)) for C in counts]
    for number, flow in enumerate(between, start=1):
        place = {c: at for at, c in enumerate(orders[number - 1])}
        sums, shared = [0] * counts[number], [0] * counts[number]
        for ribbon in flow:
            sums[ribbon.after] += place[ribbon.before] * ribbon.shared
            shared[ribbon.after] += ribbon.shared
        middle = [total / count if count else math.inf for total, count in zip(sums, shared, strict=True)]
        orders[number].sort(key=middle.__getitem__)
    return orders


def as_csv(setting: str, flows: Sequence[tuple[str, Sequence[Partition]]]) -> str:
    """A line per two facets that share photographs, in full digits: flows are (the other settings, partitions)."""
    text = io.StringIO()
    writer = csv.writer(text)
    heads = ["held", f"{setting}.from", f"{setting}.to", "facet.from", "facet.to", "photographs.from", "photographs.to"]
    writer.writerow([*heads, "shared", "overlap", "assigned"])
    for held, partitions in flows:
        for before, after in pairwise(partitions):
            sizes, others = (partition.sizes for partition in together(before, after))
            for ribbon in ribbons(before, after):
                i, j = ribbon.before, ribbon.after
                own = [before.label, after.label, i, j, sizes[i], others[j]]
                writer.writerow([held, *own, ribbon.shared, ribbon.overlap, int(ribbon.assigned)])
    return text.getvalue()

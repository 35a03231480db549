"""What the page's map, flow and channels are drawn from: the facets that run folders keep, each different one once."""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import numpy as np

from mindseye.reports.flow import Partition, chance, kinds, ribbons, transitions
from mindseye.results.stored_facets import StoredFacets, worlds

SIDE = 1000  # of the square that a map is scaled into, in whole numbers
MOST_PHOTOGRAPHS = 20_000  # of one map

Json = dict[str, object]
Places = Sequence[Sequence[int]] | Mapping[int, Sequence[int]]  # where each run, or some of them, stand on each axis


class Once:
    """Equal values kept once: `index` of each by its key, and all `values`."""

    def __init__(self) -> None:
        self.values: list = []
        self._known: dict[object, int] = {}

    def index(self, key: object, value: object) -> int:
        if key not in self._known:
            self._known[key] = len(self.values)
            self.values.append(value)
        return self._known[key]


def maps_of(
    stored: Sequence[StoredFacets | None],
    networks: Sequence[str],
    grids: Sequence[Places],
    word: Callable[[int, str], int],
) -> tuple[list[int | None], list[list[int]], Json]:
    """(which map each run has, each map's kinds, the block of all maps).

    networks: what tells each run's network from others; grids: where runs stand on axes; word: the number of a
    name in its world, see `worlds`. The block: `sets`, each a world and photographs as numbers of names; `maps`, each
    its set, whole coordinates x and y in 0..SIDE, labels and centres; `flows`, "a-b" -> ribbons [facet, facet, shared,
    overlap, assigned] and words for every two maps that are neighbours on an axis; `layers`, each [network, layer, D];
    `channels`, lists of numbers; `runs`, each its layer and, per facet, which of the lists of channels it has (`tops`),
    or None.
    """
    sets, maps, layers, channels = Once(), Once(), Once(), Once()
    partitions: list[Partition] = []
    of_run: list[int | None] = []
    rows: list[Json | None] = []
    world_of = iter(worlds([one for one in stored if one is not None]))
    for one, network in zip(stored, networks, strict=True):
        if one is None:
            of_run.append(None)
            rows.append(None)
            continue
        world = next(world_of)
        names = tuple(word(world, path) for path in one.paths)
        scaled, centres = _scaled(one)
        which = sets.index(names, {"world": world, "names": list(names)})
        key = (which, scaled.tobytes(), one.labels.tobytes(), centres.tobytes())
        number = maps.index(
            key,
            {
                "set": which,
                "x": scaled[:, 0].tolist(),
                "y": scaled[:, 1].tolist(),
                "labels": one.labels.tolist(),
                "centres": centres.tolist(),
            },
        )
        if number == len(partitions):
            partitions.append(Partition(str(number), names, one.labels, len(one.centres)))
        of_run.append(number)
        tops = [tuple(row) for row in one.channels.tolist()]
        layer = layers.index((network, one.layer, one.D), [network, one.layer, one.D])
        rows.append({"layer": layer, "tops": [channels.index(row, list(row)) for row in tops]})
    flows = {}
    for a, b in sorted(set().union(*(_neighbours(of_run, places) for places in grids))):
        before, after = partitions[a], partitions[b]
        found = [[r.before, r.after, r.shared, round(r.overlap, 4), int(r.assigned)] for r in ribbons(before, after)]
        flows[f"{a}-{b}"] = {
            "ribbons": found,
            "words": transitions(before, after),
            "chance": round(chance(before.C, after.C), 4),
        }
    block = {
        "sets": sets.values, "maps": maps.values, "flows": flows, "layers": layers.values, "channels": channels.values,
        "runs": rows,
    }  # fmt: skip
    return of_run, kinds(partitions), block


def _scaled(one: StoredFacets) -> tuple[np.ndarray, np.ndarray]:
    """Points and centres in whole numbers of 0..SIDE, both axes on one scale, in the middle of the square."""
    low, high = one.embedding.min(axis=0), one.embedding.max(axis=0)
    middle, span = (low + high) / 2, float((high - low).max()) or 1.0
    points, centres = (
        np.rint((of - middle) * (SIDE / span) + SIDE / 2).astype(int) for of in (one.embedding, one.centres)
    )
    return points, centres


def _neighbours(of_run: Sequence[int | None], places: Places) -> set[tuple[int, int]]:
    """Two maps whose runs differ on one axis alone and have none between them there, in the axis' order."""
    found: set[tuple[int, int]] = set()
    stands = dict(places if isinstance(places, Mapping) else enumerate(places))
    for axis in range(len(next(iter(stands.values()), ()))):
        lines: dict[tuple[int, ...], list[tuple[int, int]]] = {}
        for run, place in stands.items():
            number = of_run[run]
            if number is not None:
                others = (*place[:axis], *place[axis + 1 :])
                lines.setdefault(others, []).append((place[axis], number))
        for line in lines.values():
            found |= {(a, b) for (_, a), (_, b) in pairwise(sorted(line)) if a != b}
    return found

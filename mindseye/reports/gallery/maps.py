"""What the page's map, flow and channels are drawn from: the facets that run folders keep, each different one once."""

import json
from collections.abc import Callable, Hashable, Mapping, Sequence
from itertools import pairwise

import numpy as np

from mindseye.reports.flow import Partition, Ribbon, arrange, chance, kinds, ribbons, transitions
from mindseye.results.stored_facets import StoredFacets, worlds

SIDE = 1000  # of the square that a map is scaled into, in whole numbers
MOST_PHOTOGRAPHS = 20_000  # of one map

Json = dict[str, object]
Places = Sequence[Sequence[int]] | Mapping[int, Sequence[int]]  # where each run, or some of them, stand on each axis


class Once:
    """Equal values kept once: `index` of each, and all `values`."""

    def __init__(self) -> None:
        self.values: list = []
        self._known: dict[object, int] = {}

    def index(self, value: object, key: Hashable = None) -> int:
        """By its key, the value's JSON where none is given."""
        key = json.dumps(value) if key is None else key
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
    `channels`, lists of numbers; `orders`, lists of facets, see `arrange`; `runs`, each its layer, per facet which of
    the lists of channels it has (`tops`), and per grid that it stands in, per axis, which of the orders its facets have
    from top to bottom (`orders`), or None.
    """
    sets, maps, layers, channels = Once(), Once(), Once(), Once()
    partitions: list[Partition] = []
    of_run: list[int | None] = []
    rows: list[Json | None] = []
    world_of = iter(worlds([facets for facets in stored if facets is not None]))
    for facets, network in zip(stored, networks, strict=True):
        if facets is None:
            of_run.append(None)
            rows.append(None)
            continue
        world = next(world_of)
        names = tuple(word(world, path) for path in facets.paths)
        scaled, centres = _scaled(facets)
        which = sets.index({"world": world, "names": list(names)}, names)
        key = (which, scaled.tobytes(), facets.labels.tobytes(), centres.tobytes())
        number = maps.index(
            {
                "set": which,
                "x": scaled[:, 0].tolist(),
                "y": scaled[:, 1].tolist(),
                "labels": facets.labels.tolist(),
                "centres": centres.tolist(),
            },
            key,
        )
        if number == len(partitions):
            partitions.append(Partition(str(number), names, facets.labels, len(facets.centres)))
        of_run.append(number)
        layer = layers.index([network, facets.layer, facets.D])
        rows.append({"layer": layer, "tops": [channels.index(row) for row in facets.channels.tolist()]})
    lines = [_lines(of_run, places) for places in grids]
    neighbours = {pair for grid in lines for line in grid for pair in pairwise(number for _, number in line)}
    between = {(a, b): ribbons(partitions[a], partitions[b]) for a, b in neighbours if a != b}
    flows = {}
    for a, b in sorted(between):
        before, after = partitions[a], partitions[b]
        flows[f"{a}-{b}"] = {
            "ribbons": [[r.before, r.after, r.shared, round(r.overlap, 4), int(r.assigned)] for r in between[a, b]],
            "words": transitions(before, after),
            "chance": round(chance(before.C, after.C), 4),
        }
    orders, of_runs = Once(), [_orders(grid, partitions, between) for grid in lines]
    for run, row in enumerate(rows):
        if row is not None:
            row["orders"] = [[orders.index(order) for order in own[run]] for own in of_runs if run in own]
    block = {
        "sets": sets.values, "maps": maps.values, "flows": flows, "layers": layers.values, "channels": channels.values,
        "orders": orders.values, "runs": rows,
    }  # fmt: skip
    return of_run, kinds(partitions), block


def _scaled(facets: StoredFacets) -> tuple[np.ndarray, np.ndarray]:
    """Points and centres in whole numbers of 0..SIDE, both axes on one scale, in the middle of the square."""
    low, high = facets.embedding.min(axis=0), facets.embedding.max(axis=0)
    middle, span = (low + high) / 2, float((high - low).max()) or 1.0
    points, centres = (
        np.rint((of - middle) * (SIDE / span) + SIDE / 2).astype(int) for of in (facets.embedding, facets.centres)
    )
    return points, centres


def _lines(of_run: Sequence[int | None], places: Places) -> list[list[tuple[int, int]]]:
    """The lines of the grid along its first axis, then along its second, …: (run, its map) in the axis' order, of the
    runs that have maps. Each of these is in one line of each axis."""
    stands = dict(places if isinstance(places, Mapping) else enumerate(places))
    pairs = []
    for axis in range(len(next(iter(stands.values()), ()))):
        lines: dict[tuple[int, ...], list[tuple[int, int, int]]] = {}
        for run, place in stands.items():
            number = of_run[run]
            if number is not None:
                lines.setdefault((*place[:axis], *place[axis + 1 :]), []).append((place[axis], run, number))
        pairs += [[(run, number) for _, run, number in sorted(line)] for line in lines.values()]
    return pairs


def _orders(
    lines: Sequence[Sequence[tuple[int, int]]],
    partitions: Sequence[Partition],
    between: Mapping[tuple[int, int], Sequence[Ribbon]],
) -> dict[int, list[list[int]]]:
    """Of each run in a grid's lines, per axis, the order of its facets in the line along it."""
    orders: dict[int, list[list[int]]] = {}
    for line in lines:
        flows = [
            [Ribbon(c, c, 1, 1.0, True) for c in range(partitions[a].C)] if a == b else between[a, b]
            for (_, a), (_, b) in pairwise(line)
        ]
        for (run, _), order in zip(line, arrange([partitions[n].C for _, n in line], flows), strict=True):
            orders.setdefault(run, []).append(order)
    return orders

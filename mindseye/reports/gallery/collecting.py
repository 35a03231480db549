"""Run folders as plain data for the page: what varies, every picture's place, measures, curves, configurations.

Everything read here was written by a run, by hand or by somebody else: it is text and numbers, never markup, and no
picture outside the gallery's folder is referenced. A run that cannot be read is listed with the reason.
"""

import json
import math
import os
import re
import urllib.parse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from mindseye.files import check_hash, read_plain
from mindseye.reports.gallery.maps import MOST_PHOTOGRAPHS, Once, maps_of
from mindseye.reports.response import Response, in_words
from mindseye.results.measures import column_order, flat, known, usual, weight_of
from mindseye.results.run_status import FILES, RunStatus
from mindseye.results.stored_facets import StoredFacets, read_stored_facets
from mindseye.words import one_line

FORMAT = 1
BASELINES = ("initial", "nearest", "noise")
PICTURES = ("visualization", "initial", "nearest")  # the .png files of a facet
NEAREST, INITIAL, DRAWN = "nearest photograph", "initial image", "visualisation"  # what the page calls them
SINGLE = "single runs"
NOT_SET = "(default)"  # of a swept key that a run neither overrides nor has in its configuration

_STEP = re.compile(r"\d{1,9}\.webp")
_MOST_UNLIKE = 30  # times the usual curve's own range: more on one scale is a straight line
_MOST_COLUMNS, _MOST_SENTENCE = 40, 4000  # of the report's table; letters
_MOST_KEYS, _MOST_FACETS, _MOST_PHOTOGRAPHS, _MOST_TEXT = 2000, 1000, 200, 400
_POINTS = 400_000  # of all curves together; a page of 5000 facets then has about 3 MB of them
_FEWEST_POINTS, _MOST_POINTS = 12, 120  # of one curve

Json = dict[str, object]
Curves = tuple[list[list[int]], list[list[float]]]  # of a term: the steps of each facet, the values of each facet


@dataclass(frozen=True)
class ListedRun:
    """A run that the gallery is to show."""

    path: str  # below the gallery's folder, with slashes; "." is the folder itself
    status: RunStatus = field(default_factory=RunStatus)
    overrides: tuple[str, ...] = ()  # as a person writes them: k=10
    sweep: str = ""  # the sweep's folder, as `path`; "" for a run that is of none


@dataclass
class _Run:
    """What was read of one run folder."""

    listed: ListedRun
    status: str
    reason: str
    config: dict[str, object]
    facets: list[dict] = field(default_factory=list)
    curves: dict[str, Curves] = field(default_factory=dict)
    stored: StoredFacets | None = None
    no_map: str = ""  # why there is none
    network: str = ""  # its name and what tells it from others of that name
    photographs: str | None = None


def collect(
    folder: str | os.PathLike[str],
    runs: Sequence[ListedRun],
    *,
    notes: Sequence[str] = (),
) -> Json:
    """Everything the page shows, as values that JSON has: `overview`, and `details` with one entry per run.

    overview: title, notes, `axes` (each key with the values that it takes in these runs, in order; facet and picture,
    the page's own two, are not among them), `pictures` (the values of the latter: see `_pictures_axis`), `sweeps` (of a
    folder of several: name, `runs`, and the axes, pictures and places among these alone), `measures` (name; which is
    better, larger, smaller or near 1, and what it says, both None where mindseye.results.measures does not have it; the
    `weight` by which facets count in a mean; `scale`, 0 or what is less and the largest of it, baselines too), `usual`
    (the one to compare by at first), `steps` (lists of file names), `report` (the table of `mindseye report`, see
    `_report`) and `runs`: path, href (its folder as a URL relative to the page), status, reason, `at` (index of its
    value on each axis) and `facets`: measures in the order of `measures`, the `pictures` there are, which list of
    `steps`, which list of photographs, its `marks`, whether it was `stopped`, whether there is its `transparency`. Of
    each run also `map`, which of the maps it has, and `no_map`, why it has none; `kinds`, of each map's facets the
    numbers by which they are coloured, see `mindseye.reports.flow.kinds`.
    maps: what map, flow and channels are drawn from, see `mindseye.reports.gallery.maps`.
    details: what only the large view needs, see `_details`. Nothing is raised for a run that cannot be read.
    """
    folder = Path(folder)
    root = folder.resolve()
    read = [_read(folder, root, run) for run in runs]
    axes, places = _axes(read)
    sweeps = _sweeps(read)
    compared = usual({name for facet in run.facets for name in facet["measures"]} for run in read if run.facets)
    names = sorted({name for run in read for facet in run.facets for name in facet["measures"]}, key=column_order)
    steps, photographs, words = Once(), Once(), Once()
    maps, kinds, drawn_from = maps_of(
        [run.stored for run in read],
        [run.network for run in read],
        [places, *(dict(zip(sweep["runs"], sweep["at"], strict=True)) for sweep in sweeps)],
        lambda world, path: words.index([world, _text(path)]),
    )
    of_world = [0 if number is None else _world(drawn_from, number) for number in maps]
    rows = [
        {
            "path": _text(run.listed.path),
            "href": _href(run.listed.path),
            "status": run.status,
            "reason": run.reason,
            "step": run.listed.status.step,
            "steps": run.listed.status.steps,
            "seconds": run.listed.status.seconds,
            "at": place,
            "map": number,
            "no_map": run.no_map,
            "facets": [
                None
                if facet is None
                else {
                    "measures": [facet["measures"].get(name) for name in names],
                    "pictures": facet["pictures"],
                    "steps": steps.index(facet["steps"]),
                    "photographs": photographs.index([world, facet["photographs"]]),
                    **({"marks": facet["marks"]} if facet["marks"] else {}),
                    **({"stopped": True} if facet["ended"] else {}),
                    **({"transparency": True} if facet["transparency"] else {}),
                }
                for facet in _by_number(run.facets)
            ],
        }
        for run, place, number, world in zip(read, places, maps, of_world, strict=True)
    ]
    common = _common([run.config for run in read if run.config])
    lists = [[[words.index([of, name]), weight] for name, weight in entries] for of, entries in photographs.values]
    terms = sorted({name for run in read for name in run.curves}, key=_term_order)
    points = _points_per_curve(read)
    return {
        "overview": {
            "format": FORMAT,
            "title": _text(root.name),
            "notes": [_text(note) for note in notes],
            "axes": axes,
            "pictures": _pictures_axis(read),
            "sweeps": sweeps,
            "measures": [{**_measure(name), "scale": _scale(read, name)} for name in names],
            "usual": compared,
            "steps": steps.values,
            "terms": [{"name": name, "range": _range(read, name), "unlike": _unlike(read, name)} for name in terms],
            "runs": rows,
            "kinds": kinds,
            "report": _report(folder / "report.json"),
        },
        "shared": {"config": common, "photographs": lists, "names": [name for _, name in words.values]},
        "maps": drawn_from,
        "details": [_details(run, common, terms, names, points) for run in read],
    }


def _world(drawn_from: Mapping[str, Any], number: int) -> int:
    return int(drawn_from["sets"][drawn_from["maps"][number]["set"]]["world"])


def _details(run: _Run, common: Mapping[str, object], terms: Sequence[str], names: Sequence[str], points: int) -> Json:
    """`config`: what differs from the shared one (`without`: shared keys it lacks); `overrides`; per facet
    `thumbnails`, how many of its photographs there are small copies of, `where`, see `_where`, `baselines` (measures as
    above) and `curves`, per term: [steps, values], thinned to at most `points`."""
    numbered = _by_number(run.facets)
    return {
        "overrides": [_text(word) for word in run.listed.overrides],
        "config": {key: value for key, value in run.config.items() if key not in common},
        "has_config": bool(run.config),
        "photographs": run.photographs,
        "thumbnails": [facet["thumbnails"] if facet else 0 for facet in numbered],
        "where": [facet["where"] if facet else None for facet in numbered],
        "baselines": [
            facet
            and {kind: [figures.get(name) for name in names] for kind, figures in sorted(facet["baselines"].items())}
            for facet in numbered
        ],
        "curves": [
            [_thinned(*_curve(run, name, number), points) if name in run.curves else None for name in terms]
            for number in range(len(numbered))
        ],
    }


# ---- one run -------------------------------------------------------------------------------------------------------


def _read(folder: Path, root: Path, listed: ListedRun) -> _Run:
    place = folder / listed.path
    status, reason = listed.status.status, _text(listed.status.reason)
    try:
        inside = place.resolve().is_relative_to(root)
    except (OSError, RuntimeError) as error:  # a loop of links
        return _Run(listed, "damaged", _text(one_line(error)), {})
    if not inside:
        return _Run(listed, "damaged", "it is a link that leads out of the folder", {})
    run = _Run(listed, status, reason, _config(place))
    if status == "failed" or (status != "completed" and not (place / "metrics.json").is_file()):
        return run  # metrics.json is written last: where it is there, all is, whatever the status still says
    try:
        run.facets, hashes, run.network = _facets(place)
        run.status, run.reason = "completed", _text("; ".join(filter(None, (facet["stopped"] for facet in run.facets))))
    except FileNotFoundError:
        return _damaged(run, "its metrics.json is missing")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        return _damaged(run, f"its metrics.json is damaged ({one_line(error)})")
    try:
        run.curves = _history(place / "history.parquet", hashes)
    except (OSError, ValueError) as error:
        missing = f"no curves: its history.parquet cannot be read ({one_line(error)})"
        run.reason = "; ".join(filter(None, (run.reason, _text(missing))))
    run.stored, run.no_map = _stored(place, len(run.facets))
    # The demo's photographs lie in the run folder; the user's lie where they are, and only their names are shown.
    if _holds_no_links(place / "photographs"):
        run.photographs = "photographs"
    return run


def _stored(place: Path, C: int) -> tuple[StoredFacets | None, str]:
    """The facets that the run keeps in targets/, or why it has none."""
    try:
        stored = read_stored_facets(place)
    except FileNotFoundError:
        return None, "the folder keeps no facets (targets/)"
    except (OSError, ValueError, RecursionError) as error:
        return None, _text(one_line(error))
    if len(stored.centres) != C:
        return None, f"its targets are damaged: {len(stored.centres)} facets, and {C} pictures"
    if len(stored.paths) > MOST_PHOTOGRAPHS:
        return None, f"{len(stored.paths)} photographs are more than the {MOST_PHOTOGRAPHS} that a page can show"
    return stored, ""


def _holds_no_links(folder: Path) -> bool:
    """Whether it is a folder, and nothing in it leads out of it."""
    if folder.is_symlink() or not folder.is_dir():
        return False
    inside = ((place, name) for place, folders, files in os.walk(folder) for name in (*folders, *files))
    return not any(os.path.islink(os.path.join(place, name)) for place, name in inside)


def _damaged(run: _Run, reason: str) -> _Run:
    run.status, run.reason, run.facets = "damaged", _text(reason), []
    return run


def _facets(place: Path) -> tuple[list[dict], Mapping, str]:
    """Every facet, the hashes of the run's files, and the network by its name and hash."""
    metrics = json.loads(read_plain(place / "metrics.json", place))
    rows = metrics["facets"]
    if not isinstance(rows, list) or len(rows) > _MOST_FACETS:
        raise ValueError(f"facets is no list of at most {_MOST_FACETS}")
    facets = []
    for row in rows:
        number = row["facet"]
        if type(number) is not int or not 0 <= number < _MOST_FACETS:
            raise ValueError("a facet has no number")
        where = place / "facets" / f"{number:02d}"
        there = _files(where, place)
        baselines = row.get("baselines", {})
        apart = ("facet", "marks", "stopped", "baselines")
        facets.append(
            {
                "facet": number,
                "measures": _figures({name: x for name, x in row.items() if name not in apart}),
                "marks": _text(str(row.get("marks") or "")),
                "stopped": _stopped(row),
                "ended": isinstance(row.get("stopped"), Mapping),
                "baselines": {
                    name: _figures(baselines[name]) for name in BASELINES if isinstance(baselines.get(name), Mapping)
                },
                "pictures": [name for name in PICTURES if f"{name}.png" in there],
                "steps": sorted(filter(_STEP.fullmatch, _files(where / "steps", place)), key=_step),
                "photographs": _photographs(where / "photographs.json", place),
                "thumbnails": _thumbnails(_files(where / "photographs", place)),
                "transparency": "transparency.webp" in there,
                "where": _where(where / "where.json", place, there),
            }
        )
    hashes = metrics.get(FILES)
    provenance = metrics.get("provenance")
    network = provenance.get("network") if isinstance(provenance, Mapping) else None
    network = network if isinstance(network, Mapping) else {}
    named = _text(" ".join(str(network[name])[:60] for name in ("name", "sha256") if name in network))
    return facets, hashes if isinstance(hashes, Mapping) else {}, named


def _thumbnails(there: set[str]) -> int:
    """How many of a facet's photographs are there as 00.webp, 01.webp, …"""
    count = 0
    while f"{count:02d}.webp" in there:
        count += 1
    return count


def _stopped(row: Mapping) -> str:
    """When and why a facet was stopped, and what marks it has; "" where there is nothing to say."""
    remarks = [f"facet {row['facet']} is {row['marks']}"] if row.get("marks") else []
    stop = row.get("stopped")
    if isinstance(stop, Mapping):
        remarks.append(f"facet {row['facet']} is stopped at step {stop.get('step')}, where {stop.get('why')}")
    return "; ".join(remarks)


def _step(name: str) -> int:
    return int(name.removesuffix(".webp"))


def _files(folder: Path, run: Path) -> set[str]:
    """Names of the plain files in a folder of the run that is reached through no link: what may be referenced."""
    inside = folder.relative_to(run)
    try:
        if any((run / part).is_symlink() for part in (inside, *inside.parents) if part.name):
            return set()
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries if entry.is_file(follow_symlinks=False)}
    except OSError:
        return set()


def _photographs(path: Path, run: Path) -> list[list]:
    """[name, weight] of each of a facet's photographs, the largest weight first; none where the file is damaged."""
    try:
        photographs = json.loads(read_plain(path, run))[:_MOST_PHOTOGRAPHS]
        return [[_text(str(photograph["path"])), _number(photograph["weight"])] for photograph in photographs]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return []


def _where(path: Path, run: Path, there: set[str]) -> Json | None:
    """What where.json says of a facet's photographs, see `mindseye.results.where`: `reason` alone where there is no
    heat map, else `map`, `side`, `field`, `windows` and whether there are `crops`. None of a run of an earlier version,
    and where the file is damaged."""
    try:
        stored = json.loads(read_plain(path, run, 1 << 20))
        if "reason" in stored:
            return {"reason": _text(str(stored["reason"]))}
        windows = [window and _whole(window, 4) for window in stored["windows"][:_MOST_PHOTOGRAPHS]]
        field = stored["field"] and _whole(stored["field"], 2)
        measured = {"map": _whole(stored["map"], 2), "side": _whole([stored["side"]], 1)[0], "field": field}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return {**measured, "windows": windows, "crops": "crops.webp" in there} if "heat.webp" in there else None


def _whole(values: Sequence[object], count: int) -> list[float]:
    """So many numbers. Raises ValueError for anything else."""
    numbers = [number for value in values if (number := _number(value)) is not None]
    if len(numbers) != count or len(values) != count:
        raise ValueError(f"these are no {count} numbers")
    return numbers


def _figures(nested: Mapping) -> dict[str, float]:
    """Every number with the path to it: {"fidelity.cosine": 0.9}. NaN and what is no number is left out."""
    return {_text(name): number for name, value in flat(nested).items() if (number := _number(value)) is not None}


def _history(path: Path, hashes: Mapping) -> dict[str, Curves]:
    """Term -> (steps and values per facet [C][steps]): every column but the scheduled values, which are the settings'.

    Raises OSError or ValueError where it cannot be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    content = read_plain(path, path.parent)
    check_hash(path.name, content, hashes)
    try:
        table = pq.read_table(pa.BufferReader(content))
        steps, facets = (table.column(name).to_numpy().astype(int) for name in ("step", "facet"))
    except (pa.ArrowException, KeyError, TypeError) as error:
        raise ValueError(one_line(error)) from error
    if not len(facets) or facets.min() < 0 or facets.max() >= _MOST_FACETS:
        return {}
    rows = [facets == number for number in range(int(facets.max()) + 1)]
    curves = {}
    for name in table.column_names:
        kind = table.schema.field(name).type
        if name in ("step", "facet") or name.startswith("schedule_") or not (
            pa.types.is_floating(kind) or pa.types.is_integer(kind)
        ):  # fmt: skip
            continue
        values = table.column(name).to_numpy().astype(float)
        curves[_text(name)] = ([steps[row].tolist() for row in rows], [values[row].tolist() for row in rows])
    return curves


def _curve(run: _Run, name: str, facet: int) -> tuple[list[int], list[float]]:
    """Steps and values of one facet where there are values: some terms are looked at every so many steps only."""
    steps, values = run.curves[name]
    if facet >= len(values):
        return [], []
    kept = [(step, value) for step, value in zip(steps[facet], values[facet], strict=True) if math.isfinite(value)]
    return [step for step, _ in kept], [value for _, value in kept]


def _thinned(steps: list[int], values: list[float], points: int) -> list[list]:
    """At most `points`, evenly, the first and the last among them."""
    if len(steps) > points:
        kept = [round(i * (len(steps) - 1) / (points - 1)) for i in range(points)]
        steps, values = [steps[i] for i in kept], [values[i] for i in kept]
    return [steps, [_rounded(value) for value in values]]


def _points_per_curve(read: Sequence[_Run]) -> int:
    curves = sum(len(values) for run in read for _, values in run.curves.values())
    return max(_FEWEST_POINTS, min(_MOST_POINTS, _POINTS // max(1, curves)))


def _range(read: Sequence[_Run], name: str) -> list[float] | None:
    """The least and the largest value of a term in all runs, so that every plot of it can have the same scale."""
    values = [
        value
        for run in read
        if name in run.curves
        for facet in run.curves[name][1]
        for value in facet
        if math.isfinite(value)
    ]
    return [_rounded(min(values)), _rounded(max(values))] if values else None


def _unlike(read: Sequence[_Run], name: str) -> bool:
    """Whether runs differ so much in a term that on one scale most of them are straight lines."""
    spans = sorted(
        max(finite) - min(finite)
        for run in read
        if name in run.curves
        for facet in run.curves[name][1]
        if (finite := [value for value in facet if math.isfinite(value)])
    )
    whole = _range(read, name)
    return whole is not None and whole[1] - whole[0] > _MOST_UNLIKE * spans[len(spans) // 2]


def _scale(read: Sequence[_Run], name: str) -> list[float] | None:
    """[0 or the least, the largest] of a measure over all that the grid shows, baselines too: bars all begin alike."""
    values = [
        figures[name]
        for run in read
        for facet in run.facets
        for figures in (facet["measures"], *(facet["baselines"].get(kind, {}) for kind in PICTURES))
        if name in figures
    ]
    return [min(0.0, *values), max(0.0, *values)] if values else None


def _measure(name: str) -> Json:
    measure = known(name)
    better, about = (None, None) if measure is None else (measure.better or None, measure.about)
    return {"name": name, "better": better, "about": about, "weight": weight_of(name)}


def _report(path: Path) -> Json | None:
    """The comparison in report.json as rows: by, reference, measures, means, and per variant `pairs`, `facets` and
    `cells`, each [difference, low, high], the last two null where there is no interval, or null; `unpaired`, `stopped`;
    `response`, one line, "" for none; `sentences`. None where there is no report that can be read."""
    try:
        report = json.loads(read_plain(path, path.parent, 8 << 20))
        measures = [str(name) for name in report["means"]][:_MOST_COLUMNS]
        rows: dict[str, dict] = {}
        for difference in report["differences"][: _MOST_COLUMNS * _MOST_FACETS]:
            name, cells = _text(str(difference["variant"])), [None] * len(measures)
            empty = {"variant": name, "pairs": 0, "facets": 0, "cells": cells}
            row = rows.setdefault(str(difference["variant"]), empty)
            row.update({count: max(row[count], int(difference[count])) for count in ("pairs", "facets")})
            cell = [_number(difference[name]) for name in ("difference", "low", "high")]
            if difference["measure"] in measures and cell[0] is not None:
                row["cells"][measures.index(difference["measure"])] = cell
        return {
            "by": _text(str(report["by"])),
            "reference": _text(str(report["reference"])),
            "measures": [_text(name) for name in measures],
            "means": [_number(report["means"][name]) for name in measures],
            "rows": list(rows.values()),
            "unpaired": int(report["unpaired"]),
            "stopped": int(report["stopped"]),
            "response": _text(_response(report)),
            # none in a report of an earlier version
            "sentences": [_text(str(line), _MOST_SENTENCE) for line in report.get("sentences", [])[:_MOST_COLUMNS]],
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None


def _response(report: Mapping) -> str:
    """To the setting that the report is by, in one line; "" in a report of an earlier version."""
    given = report.get("response", [])[:_MOST_COLUMNS]
    shown = [Response(str(row["setting"]), str(row["seen_by"]), float(row["value"]), 0) for row in given]
    return in_words(shown, str(report["by"]))


def _config(place: Path) -> dict[str, object]:
    """The run's configuration, flat: {"objective.gain": 2.5}. Hydra's copy where the run has not got to write its own;
    empty where there is none that can be read."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # safe: plain values only, no Python objects
    for name in ("config.yaml", ".hydra/config.yaml"):
        try:
            content = read_plain(place / name, place, 1 << 20)
            settings = yaml.load(content, loader)
            if isinstance(settings, Mapping):
                known = flat(settings, most=_MOST_KEYS, deepest=20)  # a file with anchors that multiply ends there
                return {_text(key): _plain(value) for key, value in known.items()}
        except Exception:  # whatever damaged YAML makes its parser raise, and a number of too many digits later
            continue
    return {}


def _plain(value: object) -> object:
    """As JSON has it; a list as the text of it."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        return value if abs(value) < 1e300 else _text(str(value))  # NaN and infinity, too
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_text(str(item)) for item in value[:50] if not isinstance(item, list | dict)) + "]"
    return _text(str(value)) if not isinstance(value, Mapping) else "{}"


# ---- what varies ---------------------------------------------------------------------------------------------------


def _axes(read: Sequence[_Run]) -> tuple[list[Json], list[list[int]]]:
    """The keys whose values differ between the runs, each with its values, and every run's place on them.

    No two runs have the same place: where overrides do not tell them apart, folders do, then a running number.
    """
    given = [_given(run.listed.overrides) for run in read]
    keys = list(dict.fromkeys(key for overrides in given for key in overrides))
    columns: dict[str, list[str]] = {}
    for key in keys:
        column = [own[key] if key in own else _shown(run.config, key) for own, run in zip(given, read, strict=True)]
        if len(set(column)) > 1:
            columns[key] = column
    paths = [PurePosixPath(run.listed.path) for run in read]
    if len(read) > 1 and not columns:
        columns["run"] = [_text(str(path)) for path in paths]
    for name, told in (("folder", [_text(str(path.parent)) for path in paths]), ("repeat", None)):
        together = list(zip(*columns.values(), strict=True)) if columns else []
        if len(set(together)) == len(together):
            break
        if told is None:  # the first, second, … with the same place
            told = [str(together[:i].count(place) + 1) for i, place in enumerate(together)]
        if len(set(told)) > 1:
            columns[name] = told
    axes, places = [], []
    for key, column in columns.items():
        values = _in_order(column)
        # a setting that has the name of one of the page's own two axes
        own = f"{key} (setting)" if key in ("facet", "picture") else key
        axes.append({"key": _text(own), "values": values})
        places.append([values.index(value) for value in column])
    return axes, [list(place) for place in zip(*places, strict=True)] if places else [[] for _ in read]


def _sweeps(read: Sequence[_Run]) -> list[dict[str, Any]]:
    """Each sweep of a folder that holds several, with axes of its own; runs that are of none together. Else nothing."""
    groups: dict[str, list[int]] = {}
    for number, run in enumerate(read):
        groups.setdefault(run.listed.sweep, []).append(number)
    if len(groups) < 2:
        return []
    sweeps = []
    for name, numbers in groups.items():
        axes, places = _axes([read[number] for number in numbers])
        pictures = _pictures_axis([read[number] for number in numbers])
        name = _text(name) or SINGLE
        sweeps.append({"name": name, "runs": numbers, "axes": axes, "pictures": pictures, "at": places})
    return sweeps


def _pictures_axis(read: Sequence[_Run]) -> list[str]:
    """From the nearest photograph over the initial image and the steps, `step 20` say, to the visualisation.

    A step that is the last of every run that keeps it is the visualisation.
    """
    kept = {
        _step(name)
        for run in read
        for name in {name for facet in run.facets for name in facet["steps"]}
        if _step(name) != run.listed.status.steps
    }
    return [NEAREST, INITIAL, *(f"step {step}" for step in sorted(kept)), DRAWN]


def _given(overrides: Iterable[str]) -> dict[str, str]:
    """Key -> value, as text, of what was asked for; a number in one spelling."""
    given = {}
    for word in overrides:
        key, mark, value = word.partition("=")
        if mark:
            given[_text(key.lstrip("+~"))] = _spelled(value)
    return given


def _shown(config: Mapping[str, object], key: str) -> str:
    if key not in config:
        return NOT_SET
    value = config[key]
    return _spelled(json.dumps(value)) if not isinstance(value, str) else _spelled(value)


def _spelled(value: str) -> str:
    """1, 1.0 and 1e0 are one value, and quotes do not belong to it.

    >>> [_spelled(word) for word in ("2.50", "1.0", "'a b'", "late")]
    ['2.5', '1', 'a b', 'late']
    """
    number = _as_number(value)
    return f"{number:.12g}" if number is not None else _text(value.strip().strip("'\""))


def _as_number(value: str) -> float | None:
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _in_order(column: Sequence[str]) -> list[str]:
    """Numbers by size; anything else as the sweep had it."""
    values = list(dict.fromkeys(column))
    numbers = [_as_number(value) for value in values]
    if all(number is not None for number in numbers):
        return [value for _, value in sorted(zip(numbers, values, strict=True))]
    return values


def _common(configs: Sequence[Mapping[str, object]]) -> dict[str, object]:
    """What all of them say alike."""
    if not configs:
        return {}
    first, *others = configs
    return {
        key: value for key, value in first.items() if all(key in other and _same(other[key], value) for other in others)
    }


def _same(value: object, other: object) -> bool:
    return type(value) is type(other) and value == other


# ---- small things --------------------------------------------------------------------------------------------------


def _by_number(facets: Sequence[dict]) -> list[dict | None]:
    """Facet c at place c; None where a number is missing."""
    known = {facet["facet"]: facet for facet in facets}
    return [known.get(number) for number in range(max(known, default=-1) + 1)]


def _term_order(name: str) -> tuple[int, str]:
    terms = ("total", "dm", "ad", "mdist", "penalty", "tv", "r", "b")
    return (terms.index(name) if name in terms else len(terms), name)


def _text(text: str, most: int = _MOST_TEXT) -> str:
    """Fit to be shown and to be JSON: bytes of a file name that are no UTF-8 become �, and it has an end."""
    whole = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return whole if len(whole) <= most else whole[: most - 1] + "…"


def _href(path: str) -> str:
    """A run's folder as a URL relative to the page, every byte that could mean something else in a URL encoded."""
    return "." if path == "." else "./" + urllib.parse.quote(os.fsencode(path), safe="/")


def _number(value: object) -> float | None:
    """A number that JSON has, rounded; None for anything else, and for integers that no float can hold."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return _rounded(float(value)) if math.isfinite(value) else None
    except OverflowError:
        return None


def _rounded(value: float) -> float:
    """Five digits: more than a page shows, and half the bytes."""
    return float(f"{value:.5g}")

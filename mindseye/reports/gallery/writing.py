"""The page: a template, its style and its scripts, and the data, in one file that needs nothing else but pictures."""

import base64
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from mindseye.files import write_atomically
from mindseye.reports.gallery.collecting import ListedRun, collect

PAGE = "gallery.html"
# In this order: each uses what is above it, and `main` starts it all.
SCRIPTS = (
    "data", "filter", "state", "grid", "seeds", "curves", "facets", "details", "comparison", "hover", "map", "flow",
    "channels", "saving", "notes", "report", "main",
)  # fmt: skip


def write_gallery(
    folder: str | os.PathLike[str],
    runs: Sequence[ListedRun],
    *,
    notes: Sequence[str] = (),
) -> Path:
    """Write `gallery.html` into the folder, as a whole or not at all; what it shows are `runs`, see `collect`.

    Raises OSError where the folder cannot be written to.
    """
    written = Path(folder) / PAGE
    write_atomically(written, page(collect(folder, runs, notes=notes)).encode())
    return written


def copy_gallery(
    folder: str | os.PathLike[str],
    place: str | os.PathLike[str],
    runs: Sequence[ListedRun],
    *,
    notes: Sequence[str] = (),
) -> Path:
    """Write the page into the new folder `place`, with the pictures that it shows and nothing else of the runs.

    So it can be sent to somebody, or published: photographs are there as the small copies alone. Raises OSError where
    something cannot be read or written; FileExistsError where `place` has something in it.
    """
    folder, place = Path(folder), Path(place)
    place.mkdir(parents=True, exist_ok=True)
    if any(place.iterdir()):
        raise FileExistsError(f"{place} is not empty: name a new folder")
    data: dict[str, Any] = collect(folder, runs, notes=notes)
    for details in data["details"]:
        details["photographs"] = None
    for picture in _pictures(data, runs):
        (place / picture).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / picture, place / picture)
    write_atomically(place / PAGE, page(data).encode())
    return place / PAGE


def _pictures(data: Mapping[str, Any], runs: Sequence[ListedRun]) -> Iterator[Path]:
    """Every file that the page of `collect`'s data shows, below its folder."""
    for run, row, details in zip(runs, data["overview"]["runs"], data["details"], strict=True):
        for number, facet in enumerate(row["facets"]):
            if facet is None:
                continue
            below = Path(run.path) / "facets" / f"{number:02d}"
            yield from (below / f"{name}.png" for name in facet["pictures"])
            yield from (below / "steps" / name for name in data["overview"]["steps"][facet["steps"]])
            yield from (below / "photographs" / f"{n:02d}.webp" for n in range(details["thumbnails"][number]))
            where = details["where"][number] or {}
            shown = {"transparency": facet.get("transparency"), "heat": "map" in where, "crops": where.get("crops")}
            yield from (below / f"{name}.webp" for name, there in shown.items() if there)


def page(data: Mapping[str, object]) -> str:
    """The HTML of the page that shows what `collect` gave, see `fill`."""
    parts = files("mindseye.reports.gallery") / "page"
    style = (parts / "gallery.css").read_text("utf-8")
    body = "\n".join((parts / f"{name}.js").read_text("utf-8") for name in SCRIPTS)
    blocks = [("overview", data["overview"]), ("shared", data["shared"]), ("maps", data["maps"])]
    # A block for each run: the page reads it when somebody looks at the run.
    blocks += [(f"run-{number}", details) for number, details in enumerate(data["details"])]
    return fill((parts / "gallery.html").read_text("utf-8"), style, body, blocks)


def fill(template: str, style: str, script: str, blocks: Sequence[tuple[str, object]]) -> str:
    """A page's HTML: its style, its script and blocks of data, (element's id, value), in the template's {{places}}.

    Its content-security policy lets nothing in but pictures from where the page itself is, and runs nothing but the
    scripts of this package, which it knows by their hash.
    """
    script = f'"use strict";\n(() => {{\n{script}\n}})();\n'
    policy = "; ".join(
        (
            "default-src 'none'",
            "img-src 'self'",
            f"style-src '{_hash(style)}'",
            f"script-src '{_hash(script)}'",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )
    embedded = "\n".join(f'<script type="application/json" id="{name}">{as_json(x)}</script>' for name, x in blocks)
    texts = {"policy": policy, "style": style, "script": script, "data": embedded}
    # In one pass: what has been put in is not looked at again, whatever it says.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: texts[match[1]], template)


def as_json(value: object) -> str:
    r"""JSON that can stand in a script element: no text in it can end the element or begin a comment.

    >>> as_json({"name": "</script><!--"})
    '{"name":"\\u003c/script\\u003e\\u003c!--"}'
    """
    plain = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return plain.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"

"""docs/example, the gallery that comes with the project, is whole, small and of the present page."""

import json
import re
from pathlib import Path

from mindseye.reports.gallery.writing import page

EXAMPLE = Path(__file__).parents[2] / "docs/example"


def test_the_example_is_whole_and_small_and_names_no_place():
    html = (EXAMPLE / "gallery.html").read_text()
    blocks = dict(re.findall(r'<script type="application/json" id="([\w-]+)">(.*?)</script>', html, re.DOTALL))
    overview = json.loads(blocks["overview"])
    pictures = {"gallery.html"}
    assert overview["runs"]
    for number, run in enumerate(overview["runs"]):
        details = json.loads(blocks[f"run-{number}"])
        thumbnails = details["thumbnails"]
        for c, facet in enumerate(run["facets"]):
            names = [f"{name}.png" for name in facet["pictures"]]
            names += [f"steps/{name}" for name in overview["steps"][facet["steps"]]]
            names += [f"photographs/{n:02d}.webp" for n in range(thumbnails[c])]
            assert details["where"][c]["map"]
            assert details["where"][c]["crops"]
            assert facet["transparency"]
            names += ["heat.webp", "crops.webp", "transparency.webp"]
            assert {"visualization.png", "initial.png", "nearest.png", "photographs/00.webp"} <= set(names)
            pictures |= {f"{run['path']}/facets/{c:02d}/{name}" for name in names}
    there = [path for path in EXAMPLE.rglob("*") if path.is_file()]
    assert {path.relative_to(EXAMPLE).as_posix() for path in there} == pictures
    assert sum(path.stat().st_size for path in there) <= 3_000_000
    assert not re.search(r"[\"'\s](/|[A-Z]:\\\\|~/)\w+/", "".join(blocks.values()))  # no folder of whoever made it


def test_the_example_is_what_the_present_page_makes_of_its_data():
    """Else it is to be drawn anew: make example."""
    html = (EXAMPLE / "gallery.html").read_text()
    blocks = re.findall(r'<script type="application/json" id="([\w-]+)">(.*?)</script>', html, re.DOTALL)
    answers = {name: json.loads(text) for name, text in blocks}
    details = [answers[f"run-{n}"] for n in range(len(answers["overview"]["runs"]))]
    blocks = {name: answers[name] for name in ("overview", "shared", "maps")}
    assert page({**blocks, "details": details}) == html

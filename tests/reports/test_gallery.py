"""What the gallery's page is made of: read from run folders, hostile and damaged ones among them. No browser here."""

import base64
import hashlib
import io
import itertools
import json
import os
import re
import resource
import signal
import socket
from html.parser import HTMLParser
from importlib import resources

import pytest
from PIL import Image

from mindseye.commands.gallery import gallery, make_gallery, runs_below, try_gallery
from mindseye.facets.decoding import MAKER, UnreadablePhotograph, read_photograph
from mindseye.reports.gallery import ListedRun, collect
from mindseye.reports.gallery.writing import page
from mindseye.results.run_status import RunStatus, write_status
from mindseye.sweeps.manifest import add_cells

NASTY = [
    "<img src=x onerror=alert(1)>",
    "</script><script>alert(1)</script>",
    "<!--<script>",
    "a\nb\t\"'`${x}`",
    "padlock 🔒",
    "\u202egnp.exe",
    "%2e%2e/?#&amp;\\",
]


class Elements(HTMLParser):
    """Every element of a page with its attributes, and the text inside each script."""

    def __init__(self, html):
        super().__init__()
        self.found, self.scripts, self.inside = [], [], False
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        self.inside = tag == "script"
        if self.inside:
            self.scripts.append("")

    def handle_data(self, data):
        if self.inside:
            self.scripts[-1] += data

    def handle_endtag(self, tag):
        self.inside = False


def collected(folder, **settings):
    notes = []
    return collect(folder, list(runs_below(folder, notes)), notes=notes, **settings)


def sweep(folder, grid):
    return add_cells(folder, grid, [], "")


@pytest.fixture
def grid(tmp_path, make_run):
    """k × gain, one of them failed and one not begun."""
    cells = sweep(tmp_path, [(f"k={k}", f"objective.gain={gain}") for k in (50, 10) for gain in ("1", "2.50")])
    for n, cell in enumerate(cells[:2]):
        make_run(
            tmp_path / cell.folder, overrides=cell.overrides, cosine=0.5 + n / 10,
            config=f"k: 50\nobjective: {{gain: {[1, 2.5][n]}}}\nschedule: {{lr: {{start: 0.01}}}}\nlist: [1, 2]\n",
        )  # fmt: skip
    write_status(tmp_path / cells[2].folder, RunStatus(status="failed", reason="no <such> layer"))
    return tmp_path


def test_axes_are_what_varies_with_numbers_by_size(grid):
    overview = collected(grid)["overview"]
    assert overview["axes"] == [
        {"key": "k", "values": ["10", "50"]},
        {"key": "objective.gain", "values": ["1", "2.5"]},
    ]
    assert [run["at"] for run in overview["runs"]] == [[1, 0], [1, 1], [0, 0], [0, 1]]
    assert [run["status"] for run in overview["runs"]] == ["completed", "completed", "failed", "waiting"]
    assert overview["runs"][2]["reason"] == "no <such> layer"


def test_every_facet_with_its_measures_pictures_and_steps(grid):
    data = collected(grid)
    overview = data["overview"]
    assert [(measure["name"], measure["better"]) for measure in overview["measures"]] == [
        ("fidelity.cosine", "larger"), ("naturalness.tv", "near 1"),
    ]  # fmt: skip
    assert overview["measures"][0]["about"].startswith("Cosine of the layer's answer")
    assert overview["usual"] == "fidelity.cosine"
    first = overview["runs"][1]["facets"][1]
    assert first["measures"] == [pytest.approx(0.61), 1.5]
    assert first["pictures"] == ["visualization", "initial", "nearest"]
    assert overview["steps"][first["steps"]] == ["0010.webp", "0020.webp"]
    assert data["details"][1]["baselines"][1] == {"initial": [0.1, None]}


def test_what_all_runs_share_is_said_once(grid):
    data = collected(grid)
    assert data["shared"]["config"] == {"k": 50, "schedule.lr.start": 0.01, "list": "[1, 2]"}
    assert [run["config"] for run in data["details"]] == [{"objective.gain": 1}, {"objective.gain": 2.5}, {}, {}]
    assert len(data["shared"]["photographs"]) == 1
    assert data["shared"]["names"] == ["a.png"]


def test_curves_are_the_loss_terms_of_each_facet(grid):
    data = collected(grid)
    ranges = {term["name"]: term["range"] for term in data["overview"]["terms"]}
    assert ranges == {"total": [-5.0, -0.25], "dm": [0.045, 0.9]}
    steps, values = data["details"][0]["curves"][1][0]
    assert steps == list(range(1, 21))
    assert values == [pytest.approx(-5 / t, rel=1e-4) for t in steps]


def test_long_curves_are_thinned_and_keep_both_ends(tmp_path):
    from mindseye.reports.gallery.collecting import _thinned

    steps, values = _thinned(list(range(1, 5001)), [float(t) for t in range(1, 5001)], 12)
    assert len(steps) == len(values) == 12
    assert (steps[0], steps[-1], values[-1]) == (1, 5000, 5000.0)
    gaps = [b - a for a, b in itertools.pairwise(steps)]
    assert max(gaps) - min(gaps) <= 1


def test_no_two_runs_have_the_same_place(tmp_path, make_run):
    for name in ("one/a", "one/b", "two/a"):
        make_run(tmp_path / name, overrides=["k=10"])
    make_run(tmp_path / "two/b", overrides=["k=20"])
    overview = collected(tmp_path)["overview"]
    places = [tuple(run["at"]) for run in overview["runs"]]
    assert len(set(places)) == 4
    assert [axis["key"] for axis in overview["axes"]] == ["k", "folder", "repeat"]


def test_one_run_needs_no_axis_and_many_without_overrides_are_told_apart_by_name(tmp_path, make_run):
    make_run(tmp_path / "a")
    assert collected(tmp_path / "a")["overview"]["axes"] == []
    assert collected(tmp_path / "a")["overview"]["runs"][0]["href"] == "."
    make_run(tmp_path / "b")
    assert collected(tmp_path)["overview"]["axes"] == [{"key": "run", "values": ["a", "b"]}]


def test_a_key_that_only_some_runs_override_is_taken_from_the_configuration(tmp_path, make_run):
    make_run(tmp_path / "a", overrides=["k=20"], config="k: 20\n")
    make_run(tmp_path / "b", config="k: 10\n")
    make_run(tmp_path / "c", overrides=["+network=resnet18"], config="k: 10\nnetwork: {name: resnet18}\n")
    axes = {axis["key"]: axis["values"] for axis in collected(tmp_path)["overview"]["axes"]}
    assert axes == {"k": ["10", "20"], "network": ["(default)", "resnet18"]}


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("metrics.json", "{", "metrics.json is damaged"),
        ("metrics.json", '{"facets": 7}', "metrics.json is damaged"),
        ("metrics.json", '{"facets": [{"facet": -1}]}', "metrics.json is damaged"),
        ("metrics.json", '{"facets": [{"facet": "../.."}]}', "metrics.json is damaged"),
        ("metrics.json", '{"facets": [{"facet": 99999999999}]}', "metrics.json is damaged"),
        ("metrics.json", "[" * 100_000, "metrics.json is damaged"),
        ("metrics.json", None, "metrics.json is missing"),
        ("history.parquet", "PAR1", "no curves"),
        ("history.parquet", None, "no curves"),
    ],
)
def test_a_damaged_run_is_listed_with_its_reason_beside_the_others(tmp_path, make_run, name, content, said):
    make_run(tmp_path / "good", overrides=["k=1"])
    make_run(tmp_path / "bad", overrides=["k=2"])
    (tmp_path / "bad" / name).unlink()
    if content is not None:
        (tmp_path / "bad" / name).write_text(content)
    bad, good = collected(tmp_path)["overview"]["runs"]
    assert said in bad["reason"]
    assert "\n" not in bad["reason"]
    if name != "metrics.json":
        assert bad["status"] == "completed"
    else:  # without it the run is not done; with nonsense in it, damaged
        assert bad["status"] == ("to be continued" if content is None else "damaged")
    assert (good["status"], good["reason"]) == ("completed", "")
    make_gallery(tmp_path)


def test_a_damaged_history_hides_no_facet_that_was_stopped(tmp_path, make_run):
    run = make_run(tmp_path / "run")
    metrics = json.loads((run / "metrics.json").read_text())
    metrics["facets"][1]["stopped"] = {"step": 3, "why": "its loss is not finite"}
    (run / "metrics.json").write_text(json.dumps(metrics))
    (run / "history.parquet").write_text("PAR1")
    [listed] = collected(run)["overview"]["runs"]
    assert "facet 1 is stopped at step 3, where its loss is not finite; no curves" in listed["reason"]


def test_facets_that_are_marked_say_so_each_for_itself(tmp_path, make_run):
    run = make_run(tmp_path / "run")
    metrics = json.loads((run / "metrics.json").read_text())
    metrics["facets"][1]["marks"] = "not firm"
    (run / "metrics.json").write_text(json.dumps(metrics))
    [listed] = collected(run)["overview"]["runs"]
    assert [facet.get("marks") for facet in listed["facets"]] == [None, "not firm"]


@pytest.mark.parametrize(
    "content",
    [
        f"k: 0x{'f' * 6000}", f"k: [0x{'f' * 6000}]", f"0x{'f' * 6000}: 1", "k: !!timestamp x", "k: !!bool perhaps",
        "k: !!int ''", "k: !!float x", "k: 2020-13-45", "k: " + "[" * 3000, "? {a: 1}\n: 2",
        "k: !!python/name:os.system",
    ],
    ids=lambda content: content[:20],
)  # fmt: skip
def test_a_configuration_that_cannot_be_read_is_none(tmp_path, make_run, content):
    make_run(tmp_path / "good", overrides=["k=1"])
    make_run(tmp_path / "bad", overrides=["k=2"], config=content)
    bad, good = collected(tmp_path)["overview"]["runs"]
    assert (bad["status"], good["status"]) == ("completed", "completed")
    assert collected(tmp_path)["details"][0]["has_config"] is False
    make_gallery(tmp_path)


def test_numbers_that_no_float_holds_are_left_out(tmp_path, make_run):
    make_run(tmp_path / "run", facets=1)
    digits = "9" * 400
    text = f'{{"facets": [{{"facet": 0, "selectivity": {digits}, "retrieval": NaN, "fidelity": {{"cosine": 0.5}}}}]}}'
    (tmp_path / "run/metrics.json").write_text(text)
    overview = collected(tmp_path)["overview"]
    assert [measure["name"] for measure in overview["measures"]] == ["fidelity.cosine"]
    assert overview["runs"][0]["facets"][0]["measures"] == [0.5]


@pytest.mark.parametrize(
    "said",
    [
        '"reason": {"a": 1}', '"reason": 7', '"step": "3"', '"pid": "1"', '"pid": 1e99', '"seconds": NaN',
        '"seconds": []',
        '"overrides": 7', '"overrides": [["k"]]', '"status": ["failed"]', f'"host": {"[" * 50_000}', '"steps": -1',
    ],
)  # fmt: skip
@pytest.mark.parametrize("status", ["running", "failed"])
def test_a_status_of_nonsense_costs_only_itself(tmp_path, make_run, said, status):
    make_run(tmp_path / "good", overrides=["k=1"])
    (tmp_path / "bad").mkdir()
    host = json.dumps(socket.gethostname())
    (tmp_path / "bad/status.json").write_text(f'{{"status": "{status}", "host": {host}, {said}}}')
    (tmp_path / "bad/running.lock").touch()
    bad, good = collected(tmp_path)["overview"]["runs"]
    assert isinstance(bad["reason"], str)
    assert good["status"] == "completed"
    make_gallery(tmp_path)


@pytest.mark.parametrize(
    "content",
    ["k: [", "!!python/object/apply:os.system ['exit 1']", "- 1", "\0", "k: [.nan, .inf]\nn: .nan", f"k: 1{'0' * 400}"],
)
def test_a_configuration_that_is_no_plain_mapping_costs_only_itself(tmp_path, make_run, content):
    make_run(tmp_path / "run", config=content)
    data = collected(tmp_path)
    assert data["overview"]["runs"][0]["status"] == "completed"
    json.dumps(data, allow_nan=False)


def test_a_configuration_that_multiplies_itself_ends(tmp_path, make_run):
    lines = ["a0: &a0 {x: 1, y: 2}"]
    lines += [f"a{n}: &a{n} {{p: *a{n - 1}, q: *a{n - 1}, r: *a{n - 1}, s: *a{n - 1}}}" for n in range(1, 15)]
    make_run(tmp_path / "run", config="\n".join(lines))
    assert len(collected(tmp_path)["shared"]["config"]) <= 2000


def test_a_run_that_still_says_running_is_whole_once_its_metrics_are_there(tmp_path, make_run):
    make_run(tmp_path / "run")
    write_status(tmp_path / "run", RunStatus(status="to be continued", reason="its process ended without a word"))
    run = collected(tmp_path)["overview"]["runs"][0]
    assert (run["status"], len(run["facets"])) == ("completed", 2)


def test_nothing_outside_the_folder_is_referenced(tmp_path, make_run):
    outside = make_run(tmp_path / "outside")
    inside = tmp_path / "gallery"
    make_run(inside / "honest")
    make_run(inside / "picture")
    picture = inside / "picture/facets/00/visualization.png"
    picture.unlink()
    picture.symlink_to(outside / "facets/00/visualization.png")
    make_run(inside / "facet", facets=1)
    os.rename(inside / "facet/facets/00", tmp_path / "moved")
    (inside / "facet/facets/00").symlink_to(tmp_path / "moved")
    make_run(inside / "facets", facets=1)
    os.rename(inside / "facets/facets", tmp_path / "all moved")
    (inside / "facets/facets").symlink_to(tmp_path / "all moved")
    (inside / "run").symlink_to(outside)
    (inside / "loop").symlink_to(inside / "loop")
    data = collected(inside)
    runs = {run["path"]: run for run in data["overview"]["runs"]}
    assert "loop" not in runs
    assert (runs["run"]["status"], runs["run"]["reason"]) == ("damaged", "it is a link that leads out of the folder")
    assert runs["picture"]["facets"][0]["pictures"] == ["initial", "nearest"]
    for name in ("facet", "facets"):
        [facet] = runs[name]["facets"]
        assert (facet["pictures"], data["overview"]["steps"][facet["steps"]]) == ([], [])
        assert data["details"][list(runs).index(name)]["thumbnails"] == [0]
    listed = collect(inside, [ListedRun("../outside", RunStatus(status="completed"))])
    assert listed["overview"]["runs"][0]["status"] == "damaged"


@pytest.mark.parametrize("name", [*NASTY, b"\xff\xfe".decode(errors="surrogateescape")])
def test_hostile_names_are_text(tmp_path, make_run, name):
    folder = tmp_path / "f"
    place = folder / name.replace("/", "∕")
    make_run(place, overrides=[f"layer={name}"], config=f"layer: {json.dumps(name)}\n", photographs=[name])
    make_run(folder / "other", overrides=["layer=late"])
    write_status(folder / "failed", RunStatus(status="failed", reason=name, overrides=(f"layer=x{name}",)))
    data = collected(folder)
    html = page(data)
    seen = Elements(html)
    plain = Elements(page(collect(folder, [])))
    # The same elements as a page without any run, but for one data block per run, and the same program.
    blocks = [("script", {"type": "application/json", "id": f"run-{n}"}) for n in range(3)]
    assert [tag for tag in seen.found if tag not in blocks] == plain.found
    assert seen.scripts[-1] == plain.scripts[-1]
    texts = dict(zip((attrs.get("id") for tag, attrs in seen.found if tag == "script"), seen.scripts, strict=True))
    assert json.loads(texts["overview"]) == json.loads(json.dumps(data["overview"]))
    shown = name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    assert json.loads(texts["shared"])["names"][:1] in ([shown], ["a.png"])
    # A path that means the same folder to a browser, and nothing but a path.
    from urllib.parse import unquote_to_bytes

    for run in data["overview"]["runs"]:
        assert re.fullmatch(r"\./[A-Za-z0-9_.~%-]+", run["href"])
        assert os.path.isdir(os.fsencode(folder) + b"/" + unquote_to_bytes(run["href"]))


def test_the_policy_lets_in_pictures_alone_and_runs_this_package_s_script_alone(grid):
    html = page(collected(grid))
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', html)[1]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    script = re.search(r"<script>(.*?)</script>", html, re.S)[1]
    style = re.search(r"<style>(.*?)</style>", html, re.S)[1]

    def digest(text):
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    assert rules == {
        "default-src": "'none'", "img-src": "'self'", "script-src": digest(script), "style-src": digest(style),
        "base-uri": "'none'", "form-action": "'none'",
    }  # fmt: skip
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", html)  # nothing from elsewhere
    assert not re.search(r"""innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|\son\w+=|style=["']""", html)


def test_the_page_is_written_whole_or_not_at_all(grid):
    written = make_gallery(grid)
    before = written.read_bytes()
    assert written == grid / "gallery.html"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))  # as on a disk that is full after 10 kB
    try:
        with pytest.raises(OSError, match="large"):
            make_gallery(grid)
        assert try_gallery(grid) is None  # at the end of a run or sweep this is a warning
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert written.read_bytes() == before
    assert not [name for name in os.listdir(grid) if name.startswith(".gallery")]


def test_the_verb_says_where_the_page_is_or_what_is_wrong(grid, tmp_path_factory, capsys):
    gallery([str(grid)])
    assert capsys.readouterr().out == f"{grid}/gallery.html\n"
    empty = tmp_path_factory.mktemp("empty")
    with pytest.raises(ValueError, match="holds no run and no sweep"):
        gallery([str(empty)])
    with pytest.raises(ValueError, match="is no folder"):
        gallery([str(empty / "nothing")])


def test_a_copy_has_the_pictures_that_the_page_shows_and_nothing_else(grid, tmp_path_factory, capsys):
    first = next(run["path"] for run in collected(grid)["overview"]["runs"] if run["facets"])
    (grid / first / "facets/00/my own.png").write_text("somebody's")
    (grid / first / "photographs").mkdir()
    (grid / first / "photographs/a.png").write_text("a photograph in full")
    place = tmp_path_factory.mktemp("elsewhere") / "new/copy"
    gallery([str(grid), "--copy", str(place)])
    assert capsys.readouterr().out == f"{place}/gallery.html\n"
    copied = {path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file()}
    steps = ("steps/0010.webp", "steps/0020.webp")
    named = {
        f"{run['path']}/facets/{number:02d}/{name}"
        for run in collected(grid)["overview"]["runs"]
        for number in range(len(run["facets"]))
        for name in ("visualization.png", "initial.png", "nearest.png", "photographs/00.webp", *steps)
    }
    assert copied == {"gallery.html", *named}
    html = (place / "gallery.html").read_text()
    details = [json.loads(text) for text in Elements(html).scripts if text.startswith('{"overrides"')]
    assert len(details) == 4
    assert not any(run["photographs"] for run in details)
    assert not (grid / "gallery.html").exists()
    with pytest.raises(ValueError, match="is not empty: name a new folder"):
        gallery([str(grid), "--copy", str(place)])


WHOLE = {"map": [6, 6], "side": 96, "field": [47, 47], "windows": [[-0.1, 0, 0.4, 0.5], None]}


@pytest.mark.parametrize(
    ("said", "found"),
    [
        (WHOLE, {**WHOLE, "crops": True}),
        ({**WHOLE, "field": None}, {**WHOLE, "field": None, "crops": True}),
        ({"reason": "it has no places"}, {"reason": "it has no places"}),
        ({**WHOLE, "windows": [[0, 0, 1]]}, None),
        ({**WHOLE, "map": "12"}, None),
        ({**WHOLE, "side": [96]}, None),
        ([1], None),
        ({}, None),
    ],
)
def test_where_a_facet_is_is_taken_or_left_as_a_whole(tmp_path, make_run, said, found):
    run = make_run(tmp_path / "run", facets=2)
    for name in ("heat.webp", "crops.webp"):
        (run / "facets/00" / name).write_bytes(b"")
    (run / "facets/00/where.json").write_text(json.dumps(said))
    (run / "facets/01/where.json").write_text(json.dumps(WHOLE))  # whose pictures are not there
    (run / "facets/01/transparency.webp").symlink_to("/etc/hostname")
    data = collected(run)
    assert data["details"][0]["where"] == [found, None]
    assert not any("transparency" in facet for facet in data["overview"]["runs"][0]["facets"])
    (run / "facets/00/transparency.webp").write_bytes(b"")
    assert collected(run)["overview"]["runs"][0]["facets"][0]["transparency"]


def test_a_sweep_with_a_damaged_manifest_still_shows_its_runs(grid):
    (grid / "manifest.json").write_text("{")
    overview = collected(grid)["overview"]
    assert [run["status"] for run in overview["runs"]] == ["failed", "completed", "completed"]
    [note] = overview["notes"]
    assert "manifest.json is damaged" in note


def test_facets_that_runs_share_are_there_once(tmp_path, make_run, keep_facets):
    for name, labels in (("a", [0, 0, 1, 1]), ("b", [0, 0, 1, 1]), ("c", [1, 1, 0, 0])):
        keep_facets(make_run(tmp_path / name, overrides=[f"layer={name}"]), labels, channels=[[1, 2], [2, 3]])
    data = collected(tmp_path)
    assert [run["map"] for run in data["overview"]["runs"]] == [0, 0, 1]
    assert data["overview"]["kinds"] == [[0, 1], [1, 0]]
    maps = data["maps"]
    assert len(maps["sets"]) == 1
    assert [data["shared"]["names"][name] for name in maps["sets"][0]["names"]] == [f"p0{i}.png" for i in range(4)]
    assert maps["flows"]["0-1"]["ribbons"] == [[0, 1, 2, 1.0, 1], [1, 0, 2, 1.0, 1]]
    assert [maps["channels"][top] for top in maps["runs"][0]["tops"]] == [[1, 2], [2, 3]]
    embedding = maps["maps"][0]
    assert min(embedding["x"]) >= 0
    assert max(*embedding["x"], *embedding["y"]) <= 1000
    assert max(max(embedding[axis]) - min(embedding[axis]) for axis in "xy") == 1000


def test_photographs_of_one_name_are_one_only_where_they_have_the_same_bytes(tmp_path, make_run, keep_facets):
    """As with the demo, which draws other photographs under the same names for every seed."""
    for name, content in (("a", "x"), ("b", "y"), ("c", "x")):
        keep_facets(make_run(tmp_path / name, overrides=[f"seed={name}"]), [0, 0, 1, 1], content=content)
    data = collected(tmp_path)
    assert [layout["world"] for layout in data["maps"]["sets"]] == [0, 1]
    assert [run["map"] for run in data["overview"]["runs"]] == [0, 1, 0]
    assert data["maps"]["flows"]["0-1"]["words"] == ["no photograph in common"]
    lists = [run["facets"][0]["photographs"] for run in data["overview"]["runs"]]
    assert lists[0] == lists[2] != lists[1]


@pytest.mark.parametrize("name", ["targets.json", "targets.safetensors"])
def test_facets_that_cannot_be_read_cost_only_the_map(tmp_path, make_run, keep_facets, name):
    for number in "ab":
        keep_facets(make_run(tmp_path / number, overrides=[f"k={number}"]), [0, 0, 1, 1])
    (tmp_path / "a/targets" / name).write_text("{")
    first, second = collected(tmp_path)["overview"]["runs"]
    assert (first["status"], first["map"], second["map"]) == ("completed", None, 0)
    assert first["no_map"]
    assert "\n" not in first["no_map"]
    make_gallery(tmp_path)


def test_a_table_that_is_saved_as_a_picture_says_who_has_drawn_it(tmp_path):
    """The page puts a text of its own behind the header of the PNG that the browser gives it."""
    script = (resources.files("mindseye") / "reports/gallery/page/saving.js").read_text()
    text = bytes(json.loads(re.search(r"MADE_HERE = new Uint8Array\((\[[\d, ]+\])\)", script)[1]))
    head = int(re.search(r"PNG_HEAD = (\d+)", script)[1])
    stored = io.BytesIO()
    Image.new("RGB", (9, 9)).save(stored, "PNG")
    png = stored.getvalue()
    (tmp_path / "view.png").write_bytes(png[:head] + text + png[head:])
    with Image.open(tmp_path / "view.png") as opened:
        opened.load()  # which checks each part's sum
        assert opened.text == {"Software": MAKER}
    with pytest.raises(UnreadablePhotograph, match="is a picture that mindseye has drawn"):
        read_photograph(tmp_path / "view.png", 8)

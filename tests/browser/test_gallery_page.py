"""The gallery as a person uses it: a real browser, the page from disk, every control moved and every key pressed."""

import csv
import functools
import http.server
import io
import itertools
import json
import re
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mindseye.commands.figures import figures
from mindseye.commands.gallery import make_gallery
from mindseye.reports.ablation import Comparison, Difference, as_json
from mindseye.results.run_status import RunStatus, write_status
from mindseye.sweeps.manifest import add_cells

pytestmark = pytest.mark.browser

NASTY = [
    "<img src=x onerror=document.title='pwned'>",
    "</script><script>document.title='pwned'</script>",
    "\u202egnp.exe 🔒 \"'`${1}`",
]


@pytest.fixture(scope="module")
def sweep(tmp_path_factory, make_run):
    """k × gain × depth, 3 × 2 × 2 cells of 3 facets: one failed, one not begun, one damaged."""
    folder = tmp_path_factory.mktemp("sweep")
    values = itertools.product((10, 50, 100), (1, 2.5), "ab")
    cells = add_cells(folder, [(f"k={k}", f"objective.gain={g}", f"depth={d}") for k, g, d in values], [], "")
    for n, cell in enumerate(cells[:-2]):
        k, gain, depth = (word.partition("=")[2] for word in cell.overrides)
        config = f"k: {k}\nobjective: {{gain: {gain}}}\ndepth: {depth}\nsteps: 20\n"
        make_run(folder / cell.folder, facets=3, cosine=0.5 + n / 40, overrides=cell.overrides, config=config)
    write_status(folder / cells[-2].folder, RunStatus(status="failed", reason="no memory left on the device"))
    (folder / cells[0].folder / "metrics.json").write_text("{")
    return make_gallery(folder)


def test_a_facet_that_is_marked_says_so_where_it_is_shown(visit, tmp_path, make_run):
    run = make_run(tmp_path / "run", facets=2)
    metrics = json.loads((run / "metrics.json").read_text())
    metrics["facets"][1]["marks"] = "not firm"
    (run / "metrics.json").write_text(json.dumps(metrics))
    page = visit(make_gallery(run))
    marked = page.locator(".cell:has(.doubt)")
    assert set(page.locator(".cell .doubt").all_inner_texts()) == {"not firm"}
    spoken = marked.evaluate_all("all => all.map((e) => e.ariaLabel)")
    assert [line for line in spoken if not line.startswith("facet 1 · ") or ", not firm" not in line] == []
    marked.first.click()
    assert page.locator("#large-title").inner_text() == "facet 1 · not firm"


def cell(page, row, column):
    return page.locator(f".cell[data-row='{row}'][data-column='{column}']")


def heads(page):
    return page.locator(".head").all_inner_texts()


def captions(page):
    return page.locator(".cell .value").all_inner_texts()


def labels(page):
    """Of the ranking's cells; a key and its value stay in one line."""
    return [text.replace("\xa0", " ") for text in page.locator(".cell .label").all_inner_texts()]


def settled(page):
    """The address follows a little later than what is shown."""
    page.wait_for_timeout(200)
    return page.url.partition("#")[2]


def until(page, what, seconds=5):
    """Until it is so in the page, whose policy does not let a wait_for_function be evaluated there."""
    end = time.monotonic() + seconds
    while not page.evaluate(what):
        assert time.monotonic() < end, what
        time.sleep(0.02)


def loaded(page):
    until(page, "[...document.images].every((image) => image.complete && image.naturalWidth === 8)")


def slide(page, selector, value):
    page.locator(selector).fill(str(value))


def test_the_grid_shows_any_two_settings(visit, sweep):
    page = visit(sweep)
    assert heads(page) == ["k 10", "k 50", "k 100"]
    assert page.locator(".side").all_inner_texts() == ["1", "2.5"]
    assert page.locator("#counts").inner_text() == "12 runs: 1 damaged, 9 completed, 1 failed, 1 waiting"
    page.select_option("#rows", "k")
    assert heads(page) == ["objective.gain 1", "objective.gain 2.5"]
    assert page.locator(".side").all_inner_texts() == ["10", "50", "100"]
    page.select_option("#columns", "picture")
    assert heads(page) == ["nearest photograph", "initial image", "step 10", "step 20", "visualisation"]
    assert cell(page, 1, 2).locator("img").get_attribute("src").endswith("/facets/00/steps/0010.webp")
    page.click("#swap")
    assert heads(page) == ["k 10", "k 50", "k 100"]
    page.select_option("#columns", "facet")
    assert heads(page) == ["facet 0", "facet 1", "facet 2"]


def test_every_picture_in_sight_is_there_and_no_other_is_fetched(visit, sweep):
    page = visit(sweep)
    loaded(page)
    assert page.locator(".frame img").count() == 4
    assert page.locator(".cell .why").count() == 2


def test_sliders_and_menus_hold_the_other_axes(visit, sweep):
    page = visit(sweep)
    before = cell(page, 0, 1).locator("img").get_attribute("src")
    slide(page, "#held-3", 2)  # facet
    assert cell(page, 0, 1).locator("img").get_attribute("src") == before.replace("facets/00", "facets/02")
    page.select_option("#held-2", label="b")
    assert "depth=b" in cell(page, 0, 1).locator("img").get_attribute("src").replace("%3D", "=")
    slide(page, "#held-4", 0)  # picture
    assert cell(page, 0, 1).locator("img").get_attribute("src").endswith("/facets/02/nearest.png")
    assert page.locator("#held-4-value").inner_text() == "nearest photograph"


def test_a_figure_belongs_to_the_picture_above_it(visit, sweep):
    page = visit(sweep)
    own = cell(page, 0, 1).locator(".value").inner_text()
    assert own == "0.600"
    slide(page, "#held-4", 1)  # the initial image, one of the baselines
    assert cell(page, 0, 1).locator(".value").inner_text() == "0.100"
    slide(page, "#held-4", 2)  # a step on the way, which nobody measured
    assert page.locator(".value").count() == 0
    page.fill("#filter", "fidelity.cosine=0.6")  # but cells are found by what came of them
    assert heads(page) == ["k 50"]


def test_cells_without_pictures_say_why(visit, sweep):
    page = visit(sweep)
    assert cell(page, 0, 0).inner_text().startswith("damaged\nits metrics.json is damaged")
    assert cell(page, 1, 2).inner_text().strip() == "failed\nno memory left on the device"
    page.select_option("#held-2", label="b")
    assert cell(page, 1, 2).inner_text().strip() == "waiting"
    page.select_option("#held-2", label="a")
    cell(page, 1, 2).click()
    assert page.locator("#large-reason").inner_text() == "no memory left on the device"
    assert page.locator("#large-status").inner_text() == "failed"


def test_filter_by_words_and_measures(visit, sweep):
    page = visit(sweep)
    page.fill("#filter", "k>10 fidelity.cosine >= 0.65")
    assert heads(page) == ["k 50", "k 100"]
    assert "of 6 cells match" in page.locator("#counts").inner_text()
    shown = [cell(page, i, j) for i in range(2) for j in range(2)]
    bright = [card for card in shown if "dim" not in card.get_attribute("class").split()]
    assert [float(card.locator(".value").inner_text()) >= 0.65 for card in bright] == [True] * len(bright)
    assert len(bright) == 2
    page.fill("#filter", "failed")
    assert heads(page) == ["k 100"]
    page.fill("#filter", "nothing>3")
    assert page.locator("#filter-error").inner_text() == "No measure or setting is called nothing."
    page.fill("#filter", "nowhere")
    assert page.locator("#nothing").inner_text() == "No cell matches the filter."
    page.locator("#filter").press("Escape")
    assert len(heads(page)) == 3


def test_a_slider_leaves_only_what_is_good_enough(visit, sweep):
    page = visit(sweep)
    slide(page, "#bound", 60)
    least = float(page.locator("#bound-value").inner_text())
    bright = page.locator(".cell:not(.dim) .value").all_inner_texts()
    assert bright
    assert min(map(float, bright)) >= least
    page.select_option("#measure", "naturalness.tv")
    assert page.locator("#bound-value").inner_text() == "any"
    assert page.locator("#bound-label").inner_text() == "At most"


def test_sorting_and_ranking(visit, sweep):
    page = visit(sweep)
    page.select_option("#sort", "best")
    assert heads(page) == ["k 100", "k 50", "k 10"]
    page.click("#view-ranking")
    values = [float(text) for text in captions(page)]
    assert values == sorted(values, reverse=True)
    assert len(values) >= 8
    assert labels(page)[0] == "k 100 · gain 1 · depth b · facet 2"
    page.click("#view-grid")
    assert heads(page)[0] == "k 100"


def test_the_large_view(visit, sweep):
    page = visit(sweep)
    cell(page, 0, 1).click()
    assert page.locator("#large-title").inner_text() == "k 50 · objective.gain 1 · depth a · facet 0"
    picture = page.locator("#large-picture img")
    assert picture.get_attribute("src").endswith("/facets/00/visualization.png")
    slide(page, "#iteration", 1)
    assert picture.get_attribute("src").endswith("/facets/00/steps/0010.webp")
    assert page.locator("#iteration-value").inner_text() == "step 10"
    slide(page, "#iteration", 0)
    assert picture.get_attribute("src").endswith("/initial.png")
    page.click("#play")
    until(page, "document.querySelector('#iteration-value').textContent === 'visualisation'")
    page.locator("#large-strip button").first.click()
    assert picture.get_attribute("src").endswith("/nearest.png")
    differs = page.locator("#large-differences tbody tr").all_inner_texts()
    assert differs == ["k\t50\t100"]  # not beside the one on the left, which is damaged
    page.select_option("#beside", "below")
    assert page.locator("#large-differences tbody tr").all_inner_texts() == ["objective.gain\t1\t2.5"]
    row = page.locator("#large-measures tbody tr").first.inner_text().split("\t")
    assert row[0] == "fidelity cosine"
    assert row[1] == "0.600"
    assert row[2] == "−0.0500 ▼"
    assert row[3] == "0.100"
    assert page.locator("#large-photographs .name").all_inner_texts() == ["a.png"]
    assert page.locator("#large-photographs img").get_attribute("src").endswith("/facets/00/photographs/00.webp")
    assert page.locator("#large-curves .term").all_inner_texts() == ["total", "DM, direction"]
    assert page.locator("#large-curves svg path").count() == 4  # this cell's and the one's beside
    page.locator("#config-details summary").click()
    assert "steps\t20" in page.locator("#large-config tbody").inner_text()
    page.select_option("#large-facet", "2")
    assert page.locator("#large-title").inner_text().endswith("facet 2")
    page.click("[data-move=below]")
    assert "objective.gain 2.5" in page.locator("#large-title").inner_text()


def test_curves_have_the_same_scale_and_colour_in_every_cell(visit, sweep):
    page = visit(sweep)
    cell(page, 0, 1).click()
    scales, colours = [], []
    for _ in range(2):
        scales.append(page.locator("#large-curves .high").all_inner_texts())
        lines = page.locator("#large-curves path.line")
        colours.append(lines.evaluate_all("(all) => all.map((one) => getComputedStyle(one).stroke)"))
        page.keyboard.press("ArrowDown")
    assert scales[0] == scales[1]
    assert colours[0] == colours[1]
    assert len(set(colours[0])) == 2


def test_comparing_two_cells(visit, sweep):
    page = visit(sweep)
    cell(page, 0, 1).focus()
    page.keyboard.press("c")
    assert "marked" in cell(page, 0, 1).get_attribute("class")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("c")
    assert page.locator("#comparison").is_visible()
    chosen = [page.locator(f"#{side}-{axis}").input_value() for axis in (0, 1) for side in "ab"]
    assert chosen == ["1", "1", "0", "1"]
    page.locator("#a-0").select_option("100")
    page.locator("#b-3").select_option("2")
    assert "facets/02" in page.locator("#picture-b img").get_attribute("src")
    slide(page, "#split", 25)
    assert page.locator("#picture-b").evaluate("(one) => one.style.clipPath") == "inset(0px 0px 0px 25%)"
    box = page.locator("#over").bounding_box()
    page.mouse.click(box["x"] + box["width"] * 0.75, box["y"] + 50)
    assert page.locator("#split").input_value() == "75"
    first = page.locator("#comparison-measures tbody tr").first.inner_text().split("\t")
    assert first[0] == "fidelity cosine"
    assert "k\t100\t50" in page.locator("#comparison-differences tbody").inner_text()
    page.click("#exchange")
    assert "facets/02" in page.locator("#picture-a img").get_attribute("src")
    page.keyboard.press("Escape")
    assert not page.locator("#comparison").is_visible()


def colours(element):
    """Of every pixel of what is seen of an element, [height, width, 3]."""
    return np.asarray(Image.open(io.BytesIO(element.screenshot())).convert("RGB")).astype(int)


def test_up_to_six_pictures_with_one_zoom(visit, sweep):
    page = visit(sweep)
    cell(page, 0, 1).focus()
    page.keyboard.press("Enter")
    page.click("#compare-button")
    page.select_option("#fill", "k")
    assert page.locator(".pair").count() == 3
    assert page.locator(".pair .tag").all_inner_texts() == ["A 10", "B 50", "C 100"]
    for _ in range(3):
        page.click("#add-picture")
    assert page.locator(".pair").count() == 6
    assert page.locator("#add-picture").is_disabled()
    assert page.locator("#comparison-measures thead th").all_inner_texts() == ["measure", *"ABCDEF"]
    page.locator(".pair").nth(4).hover()
    page.mouse.wheel(0, -480)
    views = "(all) => [...new Set(all.map((one) => one.style.transform))]"
    [zoomed] = page.locator(".pair img").evaluate_all(views)
    assert zoomed.startswith("scale(3.8")
    page.locator("#over").focus()
    page.keyboard.press("ArrowRight")
    [moved] = page.locator(".pair img").evaluate_all(views)
    assert moved != zoomed
    address = settled(page)
    other = visit(f"file://{sweep}#{address}")
    assert other.locator(".pair").count() == 6
    assert other.locator(".pair img").first.evaluate("(one) => one.style.transform").startswith("scale(3.8")
    page.keyboard.press("0")
    page.get_by_label("Take F away").click()
    assert page.locator(".pair").count() == 5


def test_the_difference_of_two_pictures_is_theirs_and_amplified(visit, sweep):
    page = visit(sweep)
    cell(page, 0, 1).click()
    page.click("#difference-button")
    loaded(page)
    teal, grey = np.array([0, 128, 128]), np.array([128, 128, 128])  # as make_run draws them
    for times in (1, 2, 8):
        slide(page, "#amplify", times)
        height, width, _ = colours(page.locator(".pair")).shape
        seen = colours(page.locator(".pair"))[height // 2, width // 2]
        assert seen == pytest.approx(np.minimum(255, times * abs(teal - grey)), abs=2)
    page.click("#mode-fade")
    slide(page, "#split", 50)
    height, width, _ = colours(page.locator(".pair")).shape
    assert colours(page.locator(".pair"))[height // 2, width // 2] == pytest.approx((teal + grey) / 2, abs=2)
    page.click("#mode-blink")
    shown = "[...document.querySelectorAll('.layer')].map((one) => getComputedStyle(one).visibility).join()"
    until(page, f"{shown} === 'hidden,visible'")
    until(page, f"{shown} === 'visible,hidden'")


def test_four_settings_at_once_and_a_heat_map(visit, sweep):
    page = visit(sweep)
    page.select_option("#rows", "facet")
    page.select_option("#outerRows", "depth")
    page.select_option("#outerColumns", "objective.gain")
    slide(page, "#size", 64)
    assert page.locator(".side").all_inner_texts() == ["depth a\n0", "1", "2", "depth b\n0", "1", "2"]
    assert [text.replace("\xa0", "").split("\n") for text in heads(page)] == [
        ["objective.gain 1", "k 10"], ["", "k 50"], ["", "k 100"],
        ["objective.gain 2.5", "k 10"], ["", "k 50"], ["", "k 100"],
    ]  # fmt: skip
    cell(page, 4, 5).click()
    assert page.locator("#large-title").inner_text() == "k 100 · objective.gain 2.5 · depth b · facet 1"
    page.keyboard.press("ArrowUp")
    assert page.locator("#large-title").inner_text().endswith("depth b · facet 0")
    page.keyboard.press("Escape")
    page.select_option("#columns", "depth")  # it was laid out already: the two change places
    assert page.locator("#outerRows").input_value() == "k"
    page.select_option("#as", "heat")
    tiles = page.locator(".heat")
    values = [float(text) for text in tiles.all_inner_texts()]
    light = tiles.evaluate_all("(all) => all.map((one) => Number(/\\d+/.exec(one.style.backgroundColor)[0]))")
    assert len(values) > 5
    assert sorted(values) == [value for _, value in sorted(zip(light, values, strict=True), reverse=True)]
    settled(page)
    page.reload()
    assert page.locator(".heat").count() == len(values)


def test_playing_along_an_axis(visit, sweep):
    page = visit(sweep)
    page.get_by_label("Play along depth").click()
    value = "document.querySelector('#held-2').value"
    until(page, f"{value} === '1'")
    until(page, f"{value} === '0'")  # and round
    page.get_by_label("Stop depth").click()
    page.wait_for_timeout(700)
    assert page.locator("#held-2").input_value() == "0"


def test_what_is_shown_as_csv_and_as_a_command(visit, sweep, tmp_path):
    page = visit(sweep)
    page.select_option("#rows", "facet")
    page.click("#save-button")
    assert page.locator("#save-png").is_disabled()  # a page from disk may not read its pictures
    with page.expect_download() as loading:
        page.click("#save-csv")
    loading.value.save_as(tmp_path / "table.csv")
    rows = list(csv.DictReader((tmp_path / "table.csv").open(newline="")))
    assert len(rows) == 9
    assert rows[1]["k"] == "50"
    assert rows[1]["fidelity.cosine"] == "0.6"
    assert rows[0]["status"] == "damaged"
    command = page.locator("#save-command").inner_text()
    figures([str(sweep.parent), "--view", command.split("'")[1], "--out", str(tmp_path)])
    assert (tmp_path / "view.pdf").is_file()


def test_what_is_shown_as_png_from_a_web_server(visit, sweep, tmp_path):
    with served(sweep.parent) as address:
        page = visit(f"{address}/gallery.html")
        page.click("#save-button")
        with page.expect_download() as loading:
            page.click("#save-png")
        loading.value.save_as(tmp_path / "view.png")
        page.said.clear()
        for shown in ("difference", "heat"):
            page = visit(f"{address}/gallery.html#as={shown}&measure=fidelity.cosine")
            page.click("#save-button")
            assert page.locator("#save-png-note").inner_text() == ""
            with page.expect_download() as loading:
                page.click("#save-png")
            loading.value.save_as(tmp_path / f"{shown}.png")
            page.said.clear()
        colours = page.locator(".heat").evaluate_all("(all) => all.map((one) => one.style.backgroundColor)")
    for name in ("view", "difference", "heat"):
        with Image.open(tmp_path / f"{name}.png") as saved:
            assert saved.info["Software"] == "mindseye"  # and is taken for no photograph

    def share(name, colour):
        drawn = np.asarray(Image.open(tmp_path / f"{name}.png").convert("RGB")).reshape(-1, 3).astype(int)
        return (np.abs(drawn - np.array(colour)).max(axis=1) < 3).mean()

    teal, grey = (0, 128, 128), (128, 128, 128)
    assert share("view", teal) > 0.1  # the pictures are in it
    # |teal − grey| = (128, 0, 0), four times of which is as red as can be
    assert share("difference", (255, 0, 0)) > 0.1
    assert share("difference", teal) == 0
    assert share("difference", grey) < 1e-3  # the edges of letters
    assert colours
    for colour in colours:
        assert share("heat", [int(part) for part in re.findall(r"\d+", colour)]) > 0.02
    assert share("heat", teal) == 0


def test_a_png_says_what_it_leaves_out(visit, tmp_path, make_run):
    for cell in add_cells(tmp_path, [(f"k={k}",) for k in range(60)], [], ""):
        make_run(tmp_path / cell.folder, facets=1, steps=(), overrides=cell.overrides)
    make_gallery(tmp_path)
    with served(tmp_path) as address:
        page = visit(f"{address}/gallery.html#size=384&rows=k&columns=facet")
        page.click("#save-button")
        assert "the first 19 of 60 rows" in page.locator("#save-png-note").inner_text()
        with page.expect_download() as loading:
            page.click("#save-png")
        loading.value.save_as(tmp_path / "view.png")
        page.said.clear()
    drawn = Image.open(tmp_path / "view.png")
    assert drawn.height <= 8192
    last = drawn.convert("RGB").crop((0, drawn.height - 60, drawn.width, drawn.height - 40))
    assert len(set(last.getdata())) > 1  # nothing is cut off


def test_seeds_folded_away(visit, tmp_path, make_run, keep_facets):
    """Facets of one kind are held together whatever their numbers; a failed seed is missing and no more."""
    words = [(f"k={k}", f"seed={seed}") for k in (5, 9) for seed in range(4)]
    for n, added in enumerate(add_cells(tmp_path, words, [], "")[:-1]):
        run = make_run(tmp_path / added.folder, facets=2, cosine=0.1 * n, overrides=added.overrides)
        keep_facets(run, [1, 1, 0, 0] if added.overrides[1] == "seed=1" else [0, 0, 1, 1])
    page = visit(make_gallery(tmp_path))
    page.check("#folds input")
    assert page.locator("#rows option").all_inner_texts() == ["none", "k", "seed", "facet", "picture"]
    page.select_option("#rows", "k")
    page.select_option("#columns", "facet")
    # of facet c and seed s: 0.1·s + 0.01·c, where c has changed with seed 1
    mine, half = [0.0, 0.11, 0.2, 0.3], 3.18245 * np.std([0.0, 0.11, 0.2, 0.3], ddof=1) / 2
    assert cell(page, 0, 0).locator(".value").inner_text() == f"{np.mean(mine):.3f} ± {half:.3f}"
    assert cell(page, 0, 0).get_attribute("title").endswith("seed 0: 0.000, 1: 0.110, 2: 0.200, 3: 0.300")
    cell(page, 0, 0).hover()
    page.locator("#preview .seeds").wait_for(state="visible")
    assert page.locator("#preview figcaption").all_inner_texts() == ["0: 0.000", "1: 0.110", "2: 0.200", "3: 0.300"]
    page.mouse.move(2, 2)
    page.click("#view-ranking")
    assert labels(page) == ["k 9", "k 5"]  # cells, not facets
    third = [0.405, 0.505, 0.605]  # of all facets of each of the three seeds that are done
    assert captions(page)[0] == f"{np.mean(third):.3f} ± {4.30265 * 0.1 / np.sqrt(3):.3f}"
    assert "over seed" in page.locator(".note").first.inner_text()
    settled(page)
    page.reload()
    assert labels(page) == ["k 9", "k 5"]
    page.click("#save-button")
    with page.expect_download() as loading:
        page.click("#save-csv")
    loading.value.save_as(tmp_path / "table.csv")
    rows = list(csv.DictReader((tmp_path / "table.csv").open(newline="")))
    assert [(row["k"], row["seed"], row["facet"]) for row in rows] == [
        ("9", "mean over 0, 1, 2, 3", "all"), ("5", "mean over 0, 1, 2, 3", "all")
    ]  # fmt: skip
    assert float(rows[0]["fidelity.cosine"]) == pytest.approx(np.mean(third))
    assert float(rows[0]["fidelity.cosine half of the 95 % interval"]) == pytest.approx(4.30265 * 0.1 / np.sqrt(3))
    assert len(rows[0]["folder"].split("; ")) == 4
    page.keyboard.press("Escape")
    page.uncheck("#folds input")
    assert page.locator(".cell").count() == 15


def test_seeds_that_look_at_other_photographs_are_not_held_facet_by_facet(visit, tmp_path, make_run, keep_facets):
    for cell in add_cells(tmp_path, [(f"k={k}", f"seed={seed}") for k in (5, 9) for seed in (0, 1)], [], ""):
        run = make_run(tmp_path / cell.folder, facets=2, cosine=0.5, overrides=cell.overrides)
        keep_facets(run, [0, 0, 1, 1], content=cell.overrides[1])
    page = visit(make_gallery(tmp_path))
    page.check("#folds input")
    page.select_option("#rows", "k")
    page.select_option("#columns", "facet")
    assert captions(page) == ["0.505 ± 0.000"] * 4
    assert "Each seed looks at photographs of its own" in page.locator(".note").all_inner_texts()[-1]


def test_of_two_seeds_one_is_folded_away_at_a_time(visit, tmp_path, make_run):
    """seed moves the measure by 0.1, the network's own seed by 0.4; a repeated run is no further draw."""
    words = [(f"seed={a}", f"network.seed={b}") for a in (0, 1) for b in (7, 8)]
    for n, cell in enumerate(add_cells(tmp_path, [*words, words[0]], [], "")):
        a, b = int("seed=1" in cell.overrides), int("network.seed=8" in cell.overrides)
        make_run(tmp_path / f"{n}", facets=1, cosine=0.1 + 0.1 * a + 0.4 * b, overrides=cell.overrides)
    (tmp_path / "manifest.json").unlink()
    page = visit(make_gallery(tmp_path))
    boxes = page.locator("#folds label")
    assert [text.split()[1] for text in boxes.all_inner_texts()] == ["seed", "network.seed"]
    page.select_option("#rows", "network.seed")
    page.select_option("#columns", "")
    page.check("#folds input[value=seed]")
    assert captions(page) == [f"{mean:.3f} ± {12.7062 * 0.05:.3f}" for mean in (0.15, 0.55)]
    assert "over seed alone: what network.seed changes is not in it" in page.locator(".note").all_inner_texts()[-1]
    page.check("#folds input[value='network.seed']")
    assert not page.locator("#folds input[value=seed]").is_checked()
    page.select_option("#rows", "seed")
    assert captions(page) == [f"{mean:.3f} ± {12.7062 * 0.2:.3f}" for mean in (0.3, 0.4)]


def test_the_address_says_all(visit, sweep):
    page = visit(sweep)
    page.select_option("#rows", "depth")
    slide(page, "#held-3", 1)
    slide(page, "#size", 192)
    page.fill("#filter", "k<100")
    page.select_option("#measure", "naturalness.tv")
    page.select_option("#sort", "best")
    page.locator("#sort").blur()
    cell(page, 1, 1).click()
    slide(page, "#iteration", 1)
    page.click("#compare-button")
    slide(page, "#split", 30)
    address = settled(page)
    other = visit(f"file://{sweep}#{address}")
    for shown in (page, other):
        assert shown.locator("#comparison").is_visible()
    script = """() => [...document.querySelectorAll('select, input')].map((one) => `${one.id} ${one.value}`).join() +
        document.querySelector('#large-title').textContent + [...document.images].map((one) => one.src).sort().join()"""
    assert other.evaluate(script) == page.evaluate(script)
    page.go_back()  # the page hears of it a moment later: wait_for fails where it never does
    page.locator("#comparison").wait_for(state="hidden")
    page.locator("#large").wait_for()
    page.go_back()
    page.locator("#large").wait_for(state="hidden")
    page.go_forward()
    page.locator("#large").wait_for()


def test_an_address_of_nonsense_shows_the_grid(visit, sweep):
    page = visit(
        f"file://{sweep}#rows=__proto__&columns=x&at.k=<b>&open.k=7&size=1e99&bound=NaN&sort=&measure=constructor"
    )
    assert heads(page)
    assert page.locator(".cell").count() > 0


def test_a_picture_under_the_mouse_is_shown_large(visit, sweep):
    page = visit(sweep)
    first, preview = page.locator(".cell:has(img)").first, page.locator("#preview")
    assert preview.is_hidden()
    first.hover()
    preview.wait_for(state="visible")
    small, large = first.locator("img"), preview.locator("img")
    assert large.get_attribute("src") == small.get_attribute("src")
    assert large.bounding_box()["width"] > 1.2 * small.bounding_box()["width"]
    box = preview.bounding_box()
    assert min(box["x"], box["y"]) >= 0
    assert box["x"] + box["width"] <= 1300
    assert box["y"] + box["height"] <= 860
    page.keyboard.press("Escape")
    assert preview.is_hidden()
    first.hover(position={"x": 20, "y": 20})
    page.mouse.move(5, 5)
    page.wait_for_timeout(500)
    assert preview.is_hidden()


def test_the_report_s_table(visit, tmp_path, make_run):
    hostile = "<img src=x onerror=document.title='pwned'>"
    cells = add_cells(tmp_path, [("ablation=none", "ablation=no_dm", f"ablation={hostile}")], [], "")
    for cell in cells:
        make_run(tmp_path / cell.folder, facets=2, overrides=cell.overrides)
    make_gallery(tmp_path)
    assert visit(tmp_path / "gallery.html").locator("#report").is_hidden()
    differences = (
        Difference("fidelity.cosine", "no_dm", 0.5, -0.25, -0.3, -0.2, 6, 3),
        Difference("fidelity.cosine", hostile, 0.8, 0.05, -0.1, 0.2, 6, 3),
        Difference("fidelity.cosine", "more", 0.9, 0.15, 0.1, 0.2, 6, 3),
        Difference("naturalness.tv", "no_dm", 1.1, -0.4, -0.5, -0.3, 6, 3),
    )
    sentences = (f"ablation matters: {hostile}", "k does not show.")
    means = {"fidelity.cosine": 0.75, "naturalness.tv": 1.5}
    comparison = Comparison("ablation", "none", means, differences, 0, sentences=sentences)
    (tmp_path / "report.json").write_text(as_json(comparison))
    make_gallery(tmp_path)
    page = visit(tmp_path / "gallery.html")
    page.click("#report-summary")
    rows = [row.locator("th, td").all_inner_texts() for row in page.locator("#report-table tbody tr").all()]
    assert rows[0][:2] == ["none itself", "0.750"]
    assert rows[1][0] == "no_dm"
    assert "−0.250 ▼" in rows[1][1]  # a smaller cosine is worse, and the interval leaves 0 out
    assert "−0.400 ▲" in rows[1][2]  # 1.5 − 0.4 is nearer to 1
    assert rows[1][3] == "6 (3)"
    assert rows[2][0] == hostile
    assert "▲" not in rows[2][1]  # 0 is in the interval
    assert rows[2][2] == "–"
    assert "+0.150 ▲" in rows[3][1]
    assert tuple(page.locator("#report-sentences li").all_inner_texts()) == sentences
    assert page.title() != "pwned"
    (tmp_path / "report.json").write_text('{"by": 3, "means": [')
    make_gallery(tmp_path)
    assert visit(tmp_path / "gallery.html").locator("#report").is_hidden()


def test_keys(visit, sweep):
    page = visit(sweep)
    page.keyboard.press("ArrowDown")  # the first goes to the grid
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    at = "[document.activeElement.dataset.row, document.activeElement.dataset.column].join()"
    assert page.evaluate(at) == "1,1"
    page.keyboard.press("Home")
    assert page.evaluate(at) == "1,0"
    page.keyboard.press("End")
    assert page.evaluate(at) == "1,2"
    page.keyboard.press("ArrowRight")  # the edge
    assert page.evaluate(at) == "1,2"
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Enter")
    assert page.locator("#large").is_visible()
    page.keyboard.press("ArrowUp")
    assert "objective.gain 1 " in page.locator("#large-title").inner_text()
    page.keyboard.press(",")
    assert page.locator("#iteration-value").inner_text() == "step 20"
    page.keyboard.press("]")
    assert page.locator("#large-title").inner_text().endswith("facet 1")
    page.keyboard.press("Escape")
    assert not page.locator("#large").is_visible()
    page.locator("[data-row='0'][data-column='1']:focus").wait_for()  # where the large view had gone to
    page.keyboard.press("]")
    assert page.locator("#held-3-value").inner_text() == "1"
    page.keyboard.press(",")
    assert page.locator("#held-4-value").inner_text() == "step 20"
    page.keyboard.press("+")
    size = page.locator("#size-value").inner_text()
    page.keyboard.press("-")
    assert page.locator("#size-value").inner_text() != size
    page.keyboard.press("x")
    assert heads(page) == ["objective.gain 1", "objective.gain 2.5"]
    page.keyboard.press("s")
    assert page.locator("#sort").input_value() == "best"
    page.keyboard.press("g")
    assert page.locator("#view-ranking").get_attribute("aria-pressed") == "true"
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "filter"
    page.keyboard.type("k=50 g?")  # letters are text here
    assert page.locator("#filter").input_value() == "k=50 g?"
    page.keyboard.press("Escape")
    assert page.locator("#filter").input_value() == ""
    page.keyboard.press("?")
    assert page.locator("#help").is_visible()
    page.keyboard.press("Escape")
    assert not page.locator("#help").is_visible()


def test_light_and_dark(visit, sweep):
    def ground(page):
        return page.evaluate("getComputedStyle(document.body).backgroundColor")

    light, dark = visit(sweep), visit(sweep, scheme="dark")
    assert ground(light) == "rgb(255, 255, 255)"
    assert ground(dark) != ground(light)
    light.click("#theme")
    light.click("#theme")
    assert ground(light) == ground(dark)
    light.reload()
    assert ground(light) == ground(dark)
    dark.click("#theme")
    assert ground(dark) == "rgb(255, 255, 255)"


@pytest.mark.parametrize("width", [360, 1300])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_accessible_in_every_view(visit, sweep, scheme, width):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page = visit(sweep, scheme=scheme, width=width, height=740)

    def check(view):
        results = axe.run(page)
        assert results.violations_count == 0, f"{view}: {results.generate_report()}"
        assert page.evaluate("document.documentElement.scrollWidth") <= width, f"{view} is wider than the window"

    check("grid")
    page.locator("#controls").evaluate("(one) => (one.open = true)")
    check("controls")
    cell(page, 0, 1).focus()
    page.keyboard.press("Enter")
    page.locator("#config-details summary").click()
    check("large view")
    page.keyboard.press("c")
    check("comparison")
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    page.keyboard.press("g")
    check("ranking")
    page.keyboard.press("?")
    check("help")
    page.keyboard.press("Escape")
    page.fill("#filter", "nothing>3 nowhere")
    check("filter")


def test_a_narrow_window_has_everything_too(visit, sweep):
    page = visit(sweep, width=360, height=740)
    assert page.locator(".cell img").count() >= 2
    page.locator("#controls summary").click()
    page.select_option("#rows", "facet")
    page.locator("#controls summary").click()
    assert page.locator(".side").all_inner_texts()[:2] == ["0", "1"]
    cell(page, 0, 1).click()
    box = page.locator("#large-picture").bounding_box()
    assert box["width"] >= 260
    assert box["x"] + box["width"] <= 360
    slide(page, "#iteration", 1)
    page.locator("#compare-button").scroll_into_view_if_needed()
    page.click("#compare-button")
    assert page.locator("#comparison").is_visible()


def test_hostile_names_are_shown_as_text_and_run_nothing(visit, tmp_path, make_run):
    for n, name in enumerate(NASTY):
        make_run(
            tmp_path / f"{n} {name}".replace("/", "∕"), overrides=[f"layer={name}"], photographs=[name, "../../x.png"],
            config=f"layer: '{name.replace(chr(39), chr(39) * 2)}'\n",
        )  # fmt: skip
    failed = RunStatus(status="failed", reason=NASTY[0], overrides=("layer=x", f"a={NASTY[1]}"))
    write_status(tmp_path / "broken", failed)
    page = visit(make_gallery(tmp_path))
    loaded(page)
    sides = "\n".join(page.locator(".side, .head").all_inner_texts())
    for name in NASTY:
        assert name.strip("'\"") in sides
    page.select_option("#rows", "facet")
    page.click("#view-ranking")
    assert NASTY[0] in page.locator("#grid").inner_text()
    for index in range(page.locator(".cell").count()):
        page.locator(".cell").nth(index).click()
        if page.locator("#large-photographs .name").count():
            assert page.locator("#large-photographs .name").nth(0).inner_text() in NASTY
        page.locator("#config-details").evaluate("(one) => (one.open = true)")
        page.keyboard.press("Escape")
    page.fill("#filter", NASTY[0])
    assert page.title().endswith("mindseye gallery")
    assert page.locator("main script, dialog script, [onerror]").count() == 0


def test_the_policy_stops_what_it_should(visit, sweep):
    """That it is there is tested elsewhere; here that the browser holds to it."""
    page = visit(sweep)
    page.evaluate(
        """() => {
            const script = document.createElement('script');
            script.textContent = "document.title = 'pwned'";
            document.body.append(script);
            const image = document.createElement('img');
            image.src = 'http://127.0.0.1:9/x.png';
            document.body.append(image);
        }"""
    )
    page.wait_for_timeout(100)
    assert page.title().endswith("mindseye gallery")
    assert sum("Content Security Policy" in line for line in page.said) == 2
    page.said.clear()


@contextmanager
def served(folder):
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *words):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_the_same_page_from_a_web_server(visit, sweep):
    with served(sweep.parent) as address:
        page = visit(f"{address}/gallery.html")
        loaded(page)
        assert page.locator(".frame img").count() == 4
        page.said.clear()  # a browser asks for favicon.ico by itself


def test_a_single_run(visit, tmp_path, make_run):
    page = visit(make_gallery(make_run(tmp_path / "run", facets=3)))
    assert heads(page) == ["nearest photograph", "initial image", "step 10", "step 20", "visualisation"]
    assert page.locator(".side").all_inner_texts() == ["0", "1", "2"]
    cell(page, 1, 3).click()
    assert page.locator("#large-picture img").get_attribute("src") == "./facets/01/steps/0020.webp"


def frames(page, count, action):
    """Milliseconds from each of `count` animation frames to the next, sorted, while `action` happens before each."""
    return page.evaluate(
        f"""async () => {{
            const scroller = document.querySelector('#scroller'), took = [];
            let last = await new Promise(requestAnimationFrame);
            for (let i = 0; i < {count}; i++) {{
                {action};
                const now = await new Promise(requestAnimationFrame);
                took.push(now - last);
                last = now;
            }}
            return took.sort((a, b) => a - b);
        }}"""
    )


def until_drawn(page, click):
    """Seconds from a click to the frame after the one in which its outcome is painted."""
    return page.evaluate(
        f"""async () => {{
            const began = performance.now(), frame = () => new Promise(requestAnimationFrame);
            document.querySelector('{click}').click();
            await frame();
            await frame();
            return (performance.now() - began) / 1000;
        }}"""
    )


def megabytes(browser):
    """What the largest of the browser's renderers holds of memory of its own: the tab's."""
    session = browser.new_browser_cdp_session()
    processes = session.send("SystemInfo.getProcessInfo")["processInfo"]
    session.detach()
    sizes = []
    for process in processes:
        if process["type"] == "renderer":
            lines = Path(f"/proc/{process['id']}/smaps_rollup").read_text().splitlines()
            sizes.append(sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1e3)
    return max(sizes)


def test_500_runs_of_10_facets(browser, visit, tmp_path, make_run, keep_facets):
    """Layers × seeds, each with facets of its own of 300 photographs: the most that a page of so many runs can have."""
    words = [(f"k={layer}", f"seed={seed}") for layer in range(1, 26) for seed in range(20)]
    drawn = np.random.default_rng(0)
    for n, cell in enumerate(add_cells(tmp_path, words, [], "")):
        names = [f"photograph_{n}_{i:04d}.jpg" for i in range(10)]
        run = make_run(tmp_path / cell.folder, facets=10, cosine=n / 1000, overrides=cell.overrides, photographs=names)
        labels = (np.arange(300) // 30 + (drawn.random(300) < 0.2) * drawn.integers(0, 10, 300)) % 10
        keep_facets(run, labels.tolist(), channels=drawn.integers(0, 512, (10, 50)).tolist(), D=512)
    began = time.perf_counter()
    made = make_gallery(tmp_path)
    print(f"made in {time.perf_counter() - began:.1f} s, {made.stat().st_size / 1e6:.1f} MB")
    began = time.perf_counter()
    page = visit(made)
    loaded(page)
    first = time.perf_counter() - began
    print(f"first view after {first:.2f} s, the tab holds {megabytes(browser):.0f} MB")
    assert page.locator(".cell img").count() > 10
    assert first < 2
    assert page.locator(".cell").count() < 150  # of 500: only those in sight
    for view in ("map", "flow", "channels"):
        took = until_drawn(page, f"#view-{view}")
        print(f"{view} after {took:.2f} s")
        assert took < 1, view
        assert page.locator(f"#{view}").is_visible()
    page.click("#view-flow")
    assert page.locator("#flow-figure .node").count() == 250
    # Every way through the whole of it: all facets of all runs, scrolled from end to end.
    page.click("#view-ranking")
    jumps = frames(page, 60, "scroller.scrollTop = (scroller.scrollHeight - scroller.clientHeight) * i / 60")
    smooth = frames(page, 180, "scroller.scrollTop += 12")
    print(f"jumps through 5000 cells: median {jumps[30]:.0f} ms a frame, slowest {jumps[-1]:.0f} ms")
    print(f"scrolling: median {smooth[90]:.1f} ms a frame, 95th of 100 {smooth[171]:.1f} ms")
    assert jumps[30] < 250
    assert page.locator(".cell").count() < 150
    began = time.perf_counter()
    page.fill("#filter", "k=7 facet=3")
    assert page.locator("#counts").inner_text().startswith("20 of 5000 cells match")
    print(f"filtered in {time.perf_counter() - began:.2f} s")
    held = megabytes(browser)
    print(f"after all of it the tab holds {held:.0f} MB")
    assert held < 500


def test_where_facets_are_not_the_same_photographs_it_says_so(visit, tmp_path, make_run):
    for depth, names in (("a", ["x.png"]), ("b", ["x.png"]), ("c", ["y.png"])):
        make_run(tmp_path / depth, overrides=[f"depth={depth}"], photographs=names)
    page = visit(make_gallery(tmp_path))
    assert page.locator(".note").count() == 0  # facets are the columns here
    page.select_option("#columns", "picture")
    assert "not made of the same photographs in every cell" in page.locator(".note").inner_text()
    page.fill("#filter", "depth!=c")
    assert page.locator(".note").count() == 0


def test_facets_of_one_kind_are_said_to_be_of_one_kind(visit, tmp_path, make_run, keep_facets):
    """Of eight photographs: in b blended of others than in a, of much the same group; in c of the other group."""
    groups = {"a": [0, 0, 0, 0, 1, 1, 1, 1], "b": [1, 0, 0, 0, 1, 1, 1, 1], "c": [1, 1, 1, 1, 0, 0, 0, 0]}
    for depth, labels in groups.items():
        keep_facets(make_run(tmp_path / depth, facets=2, overrides=[f"depth={depth}"]), labels)
    page = visit(make_gallery(tmp_path))
    page.select_option("#columns", "picture")
    assert "not made of the same photographs in every cell" in page.locator(".note").inner_text()
    page.fill("#filter", "depth!=c")
    assert page.locator(".note").inner_text().startswith("Facet 0 is the same kind of photographs in every cell")


def test_a_small_ranking_tells_its_cells_apart(visit, sweep):
    page = visit(sweep, width=360, height=760)
    page.click("#view-ranking")
    whole = "label => label.scrollHeight <= label.clientHeight + 1"
    assert all(label.evaluate(whole) for label in page.locator(".cell .label").all())


def test_shares_of_a_way_are_sorted_by_the_ratio_of_mean_differences(visit, tmp_path, make_run):
    """k = 1 goes 0.5 of 0.4 and −2 of 0.06, 0.17 of all there is; k = 2 a tenth of both."""
    for k, gains in ((1, (0.5, -2.0)), (2, (0.1, 0.1))):
        run = make_run(tmp_path / str(k), overrides=[f"k={k}"])
        metrics = json.loads((run / "metrics.json").read_text())
        for facet, gain, way in zip(metrics["facets"], gains, (0.4, 0.06), strict=True):
            facet["transfer"] = {"gain": gain, "way": way}
        (run / "metrics.json").write_text(json.dumps(metrics))
    page = visit(f"file://{make_gallery(tmp_path)}#rows=facet&columns=k&sort=best&measure=transfer.gain")
    assert heads(page) == ["k 1", "k 2"]


def test_total_variation_is_best_near_that_of_photographs(visit, tmp_path, make_run):
    """Neither the smallest nor the largest: 0.2 is haze, 3 is grain, 0.9 is nearly as photographs are."""
    for k, tv in ((1, 0.2), (2, 3.0), (3, 0.9)):
        run = make_run(tmp_path / str(k), overrides=[f"k={k}"], facets=1)
        metrics = json.loads((run / "metrics.json").read_text())
        metrics["facets"][0]["naturalness"]["tv"] = tv
        (run / "metrics.json").write_text(json.dumps(metrics))
    page = visit(f"file://{make_gallery(tmp_path)}#view=ranking&measure=naturalness.tv")
    assert captions(page) == ["0.900", "0.200", "3.000"]
    cell(page, 0, 0).click()
    page.select_option("#beside", "right")
    row = page.locator("#large-measures tbody tr", has_text="naturalness tv").inner_text().split("\t")
    assert row[1:3] == ["0.900", "+0.700 ▲"]

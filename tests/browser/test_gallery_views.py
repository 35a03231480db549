"""The gallery's views beside the grid, in a real browser: map, flow, channels. Numbers are checked by hand."""

import json
from pathlib import Path

import pytest

from mindseye.commands.gallery import make_gallery
from mindseye.results.run_status import RunStatus, write_status
from mindseye.sweeps.manifest import add_cells

pytestmark = pytest.mark.browser
EXAMPLE = Path(__file__).parents[2] / "docs/example/gallery.html"

# 12 photographs; from early to late facet 0 splits, and facets 1 and 2 have changed numbers.
LABELS = {"early": [0] * 6 + [1] * 3 + [2] * 3, "late": [0] * 3 + [3] * 3 + [2] * 3 + [1] * 3}


@pytest.fixture(scope="module")
def layers(tmp_path_factory, make_run, keep_facets):
    """Two layers × two k; one more run, of k = 9, keeps no facets."""
    folder = tmp_path_factory.mktemp("layers")
    words = [(f"layer={layer}", f"k={k}") for layer in LABELS for k in (2, 4)]
    cells = add_cells(folder, [*words, ("layer=early", "k=9")], [], "")
    for n, cell in enumerate(cells):
        layer, k = (word.partition("=")[2] for word in cell.overrides)
        C = max(LABELS[layer]) + 1
        run = make_run(
            folder / cell.folder, facets=C, cosine=0.5 + n / 20, overrides=cell.overrides,
            config=f"layer: {layer}\nk: {k}\n", photographs=("a.png", "b.png"),
        )  # fmt: skip
        if k != "9":
            channels = [list(range(c, c + int(k))) for c in range(C)]
            keep_facets(run, LABELS[layer], channels=channels, layer=layer)
    return make_gallery(folder)


def about(page):
    lines = page.locator("#map-about").inner_text().split("\n")
    return "\n".join(line.strip() for line in lines if line.strip())


def test_the_map_has_every_facet_and_tells_of_a_photograph(visit, layers):
    page = visit(layers)
    page.click("#view-map")
    assert page.locator("#map-0 .kind").all_inner_texts() == ["facet 0\n6", "facet 1\n3", "facet 2\n3"]
    assert page.locator("#map-1").is_hidden()
    canvas = page.locator("#map-canvas-0")
    assert canvas.get_attribute("aria-label").startswith("Map of 12 photographs in 3 facets")
    # By the keyboard from photograph to photograph: the first is the one with the largest weight.
    canvas.focus()
    page.keyboard.press("ArrowRight")
    assert about(page).startswith("p00.png\nfacet 0; weight 0.750 in facet 0")
    seen = set()
    for key in ("ArrowLeft", "ArrowUp", "ArrowRight", "ArrowDown") * 6:
        page.keyboard.press(key)
        seen.add(about(page).split("\n")[0])
    assert len(seen) > 3
    page.keyboard.press("Escape")
    assert about(page).startswith("Point at a photograph")


def test_a_point_of_the_map_is_where_the_plane_has_it(visit, layers):
    """What the pointer rests on is the photograph of that place; a picture at a centre is the facet."""
    page = visit(f"file://{layers}#view=map&pictures=no")
    canvas = page.locator("#map-canvas-0")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    data = page.evaluate("JSON.parse(document.getElementById('maps').textContent).maps[0]")
    size = min(box["width"], box["height"]) / 1120
    for i in (0, 7, 11):
        x = box["x"] + box["width"] / 2 + (data["x"][i] - 500) * size
        y = box["y"] + box["height"] / 2 - (data["y"][i] - 500) * size
        page.mouse.move(x, y)
        assert about(page).startswith(f"p{i:02d}.png\nfacet {LABELS['early'][i]};")
    page.mouse.wheel(0, -240)
    page.wait_for_timeout(200)
    assert "look.0=" in page.url
    page.check("#map-pictures")
    page.click("[data-zoom=all]")
    page.wait_for_timeout(200)  # it is drawn with the next frame
    box = canvas.bounding_box()
    c = min(range(3), key=lambda c: abs(data["centres"][c][1] - 500))
    x, y = data["centres"][c]
    across, down = (x - 500) * size, (y - 500) * size + 38  # the picture stands above the centre
    page.mouse.click(box["x"] + box["width"] / 2 + across, box["y"] + box["height"] / 2 - down)
    assert about(page).startswith(f"facet {c}, {LABELS['early'].count(c)} photographs, blended of 2.")
    page.click("#map-about button")
    assert page.locator("#large-title").inner_text().endswith(f"facet {c}")


def test_two_maps_share_what_is_chosen_and_their_colours(visit, layers):
    page = visit(layers)
    page.click("#view-map")
    page.select_option("#map-beside", "layer=late")
    fills = "(all) => all.map((one) => getComputedStyle(one).fill)"
    first, second = (page.locator(f"#map-{side} .kind .mark").evaluate_all(fills) for side in (0, 1))
    # early 1 and 2 are late 2 and 1; of the two halves of early 0 one has its colour, the other a new one
    assert second[2] == first[1]
    assert second[1] == first[2]
    assert second[0] == first[0]
    assert len(set(second)) == 4
    page.locator("#map-0 .kind").nth(1).click()
    pressed = "(all) => all.map((one) => one.getAttribute('aria-pressed'))"
    assert page.locator("#map-1 .kind").evaluate_all(pressed) == ["false", "false", "true", "false"]
    assert about(page).count("3 photographs") == 2
    page.wait_for_timeout(200)
    other = visit(page.url)
    assert other.locator("#map-1 .kind").evaluate_all(pressed) == ["false", "false", "true", "false"]
    page.locator("#map-canvas-1").focus()
    page.keyboard.press("ArrowLeft")
    assert [line.split(";")[0] for line in about(page).split("\n")[1:3]] == [
        "layer early · k 2:  facet 0", "layer late · k 2:  facet 0"
    ]  # fmt: skip


def test_a_folder_of_an_earlier_version_opens_and_says_what_is_missing(visit, layers):
    page = visit(f"file://{layers}#view=map&at.k=9")
    assert page.locator("#map-0 .why").inner_text() == "No map: the folder keeps no facets (targets/)."
    page.click("#view-grid")
    assert page.locator(".cell").count() > 0


def test_the_flow_has_a_ribbon_for_all_that_two_facets_share(visit, layers):
    page = visit(layers)
    page.click("#view-flow")
    assert page.locator("#along option").all_inner_texts() == ["layer", "k (the same facets)"]
    titles = page.locator("#flow-figure .ribbon title").all_text_contents()
    assert sorted(titles) == [
        "early facet 0 → late facet 0: 3 photographs, overlap 0.500, assigned",
        "early facet 0 → late facet 3: 3 photographs, overlap 0.500",
        "early facet 1 → late facet 2: 3 photographs, overlap 1.000, assigned",
        "early facet 2 → late facet 1: 3 photographs, overlap 1.000, assigned",
    ]
    row = page.locator("#flow-table tbody tr").inner_text().split("\t")
    assert row[:2] == ["early → late", "0 splits into 0 and 3; 2 of 3 hold"]
    assert row[2] == "0 → 0 (0.50), 1 → 2 (1.00), 2 → 1 (1.00); by chance 0.17"
    high = "(all) => all.map((one) => Number(one.querySelector('rect').getAttribute('height')))"
    heights = page.locator("#flow-figure .node").evaluate_all(high)
    assert heights[0] == pytest.approx(2 * heights[1])  # six photographs, and three
    page.get_by_role("button", name="layer early, facet 1, 3 photographs").focus()
    page.keyboard.press("Enter")
    assert page.locator("#flow-figure .ribbon:not(.dim) title").all_text_contents() == [
        "early facet 1 → late facet 2: 3 photographs, overlap 1.000, assigned"
    ]
    texts = page.locator("#flow-about p").all_inner_texts()
    assert [" ".join(text.split()) for text in texts] == [
        "early: facet 1, 3 photographs. Open facet 1", "late: facet 2, 3 photographs. Open facet 2"
    ]  # fmt: skip
    page.get_by_text("Open facet 2").click()
    assert page.locator("#large-title").inner_text() == "layer late · k 2 · facet 2"
    page.keyboard.press("Escape")
    page.select_option("#along", "k")
    notes = page.locator("#flow-notes").inner_text()
    assert notes.endswith("along k nothing splits or merges. Without facets, and left out: 9.")
    page.click("#view-map")  # what is chosen in one view is chosen in the others
    assert page.locator("#map-0 .kind[aria-pressed=true]").inner_text().startswith("facet 1")


def labels(page):
    return sorted(text.replace("\xa0", " ") for text in page.locator(".cell .label").all_inner_texts())


def test_all_facets_that_hold_a_photograph_or_a_class(visit, layers, tmp_path, make_run, keep_facets):
    page = visit(f"file://{layers}#view=map")
    page.locator("#map-canvas-0").focus()
    page.keyboard.press("ArrowRight")  # p00.png
    page.get_by_text("Facets that hold it").click()
    assert page.locator("#filter").input_value() == 'holds="p00.png"'
    assert labels(page) == [f"layer {layer} · k {k} · facet 0" for layer in ("early", "late") for k in (2, 4)]
    page.fill("#filter", "holds=p1 k=2")  # p10 and p11, by a part of their names
    assert labels(page) == ["layer early · k 2 · facet 2", "layer late · k 2 · facet 1"]
    page.fill("#filter", "holds!=p1 k=2 layer=late")
    assert [text[-1] for text in labels(page)] == ["0", "2", "3"]
    page.fill("#filter", "holds=b.png")  # of a run that keeps no facets: those it names as blended
    assert labels(page) == [f"layer early · k 9 · facet {c}" for c in range(3)]
    page.locator(".cell").first.click()
    page.locator("#large-photographs .name").first.click()
    assert page.locator("#filter").input_value() == 'holds="a.png"'
    assert not page.locator("#large").is_visible()
    names = ["n01 cat/x.jpg", "n01 cat/y.jpg", "n02/x.jpg", "n02/y.jpg"]
    keep_facets(make_run(tmp_path / "run"), [0, 1, 1, 1], names=names)
    page = visit(f"file://{make_gallery(tmp_path)}#view=ranking")
    page.fill("#filter", 'holds="n01 cat/"')
    assert page.locator("#counts").inner_text().startswith("2 of 2 cells match")
    page.fill("#filter", "holds=n02/")
    assert page.locator("#counts").inner_text().startswith("1 of 2 cells match")


def test_stars_and_notes_stay_and_go_out_as_json(visit, layers, tmp_path):
    page = visit(f"file://{layers}#view=ranking")
    page.locator(".cell").nth(1).click()
    title = page.locator("#large-title").inner_text()
    page.click("#star")
    page.fill("#note", "<b>grows</b> a roof")
    page.keyboard.press("Escape")
    page.locator(".cell").nth(3).focus()
    page.keyboard.press("*")
    assert page.locator(".star").all_inner_texts() == ["★✎", "★"]
    page.wait_for_timeout(200)  # the address follows a little later
    page.reload()
    assert page.locator(".star").all_inner_texts() == ["★✎", "★"]
    page.fill("#filter", "noted")
    assert labels(page) == [title]
    page.fill("#filter", "starred")
    assert page.locator(".cell").count() == 2
    page.click("#save-button")
    with page.expect_download() as loading:
        page.click("#save-notes")
    loading.value.save_as(tmp_path / "notes.json")
    notes = json.loads((tmp_path / "notes.json").read_text())
    assert [(facet["star"], facet["note"]) for facet in notes["facets"]] == [(True, "<b>grows</b> a roof"), (True, "")]
    first = notes["facets"][0]
    assert title == f"layer {first['settings']['layer']} · k {first['settings']['k']} · facet {first['facet']}"
    # Another browser knows nothing of them until it is given the file; a file of something else is refused.
    other = visit(f"file://{layers}#view=ranking")
    assert other.locator(".star").count() == 0
    other.click("#save-button")
    other.set_input_files("#read-notes", {"name": "x.json", "mimeType": "application/json", "buffer": b"[1, 2"})
    other.get_by_text("This is no file of stars and notes.").wait_for()
    other.set_input_files("#read-notes", tmp_path / "notes.json")
    other.locator(".star").first.wait_for()
    assert other.locator(".star").all_inner_texts() == ["★✎", "★"]
    other.keyboard.press("Escape")


def test_a_filter_that_matches_elsewhere_leads_there(visit, layers):
    page = visit(f"file://{layers}#rows=layer&columns=facet")
    page.fill("#filter", "k>2 late")
    words = page.locator("#nothing").inner_text()
    assert words.startswith("4 cells match, none of them in this grid: k is held at 2, and there is a match at 4.")
    page.get_by_text("Show them").click()
    assert page.locator(".side").all_inner_texts() == ["late"]
    assert page.locator(".cell img").count() == 4
    page.fill("#filter", "k>100")
    assert page.locator("#nothing").inner_text() == "No cell matches the filter."


def test_a_folder_of_sweeps_opens_as_a_ranking_and_each_sweep_has_its_own_axes(visit, tmp_path, make_run):
    for name, words in (("first", [("k=1",), ("k=2",)]), ("second", [("objective.gain=1", "depth=a"), ("depth=b",)])):
        for n, cell in enumerate(add_cells(tmp_path / name, words, [], "")):
            make_run(tmp_path / name / cell.folder, facets=1, cosine=0.5 + n / 10, overrides=cell.overrides)
    make_run(tmp_path / "alone", facets=1, cosine=0.9)
    page = visit(make_gallery(tmp_path))
    assert page.locator("#view-ranking").get_attribute("aria-pressed") == "true"
    assert labels(page) == [
        "depth b · facet 0 · second", "facet 0 · single runs", "gain 1 · depth a · facet 0 · second",
        "k 1 · facet 0 · first", "k 2 · facet 0 · first",
    ]  # fmt: skip
    page.select_option("#sweep", "first")
    page.locator(".head").first.wait_for()
    assert page.locator("#rows option").all_inner_texts() == ["none", "k", "picture"]
    assert page.locator("#counts").inner_text() == "2 runs: 2 completed"
    page.locator(".cell").first.click()
    assert page.locator("#large-title").inner_text() == "k 1 · facet 0"
    page.keyboard.press("Escape")
    other = visit(page.url)
    assert other.locator("#sweep").input_value() == "first"
    page.select_option("#sweep", "")
    page.locator(".cell .label").nth(4).wait_for()


def test_bars_begin_at_0_and_hold_the_baselines(visit, tmp_path, make_run):
    for k in (1, 2):
        make_run(tmp_path / str(k), overrides=[f"k={k}"], facets=1, cosine=0.2 * k)
    page = visit(make_gallery(tmp_path))
    assert "Every bar goes from 0.000 to 0.400." in page.locator("#measure-about").inner_text()
    widths = page.locator(".cell .bar i").evaluate_all("(all) => all.map((one) => one.style.width)")
    assert widths[:2] == ["50%", "100%"]


def test_the_last_step_is_the_visualisation_and_no_column_of_its_own(visit, tmp_path, make_run):
    run = make_run(tmp_path / "run", facets=1)
    write_status(run, RunStatus(status="completed", step=20, steps=20))
    page = visit(make_gallery(run))
    heads = page.locator(".head").all_inner_texts()
    assert heads == ["nearest photograph", "initial image", "step 10", "visualisation"]


def test_shared_channels_are_intersection_over_union_of_the_top_k(visit, layers):
    """Facet c of k has the channels c, c + 1, … c + k − 1."""
    page = visit(f"file://{layers}#view=channels&channelsAlong=k")
    heads = page.locator(".matrix tbody th").all_inner_texts()
    assert heads == [f"{k} · {c}" for k in (2, 4) for c in range(3)]

    def expected(k, c, j, d):
        one, other = set(range(c, c + k)), set(range(d, d + j))
        return len(one & other) / len(one | other)

    facets = [(k, c) for k in (2, 4) for c in range(3)]
    titles = iter(page.locator(".matrix td button").evaluate_all("(all) => all.map((one) => one.title)"))
    for k, c in facets:
        for j, d in facets:
            if (k, c) != (j, d):
                assert next(titles).endswith(f"{expected(k, c, j, d):.2f}")
    assert "late has 8 channels" not in page.locator("#channels-notes").inner_text()
    assert "share about 0.14 by chance" in page.locator("#channels-notes").inner_text()  # ½ of 4 − ½
    page.get_by_label("layer early · k 2 · facet 0 and layer early · k 4 · facet 1: 1 channels shared, 0.20").click()
    assert page.locator("#channels-shared .kind").all_inner_texts() == ["1"]
    page.locator("#channels-shared .kind").click()
    # Channel 1: facets 0 and 1 of both k, by its place in each
    line = "Channel 1 is among the top k of 4 facets of all cells at this layer."
    assert page.locator("#channel-about").inner_text() == line
    users = [" ".join(text.split()) for text in page.locator("#channel-users button").all_inner_texts()]
    assert users == [
        "layer early · k 2 · facet 1, 1st", "layer early · k 4 · facet 1, 1st", "layer early · k 2 · facet 0, 2nd",
        "layer early · k 4 · facet 0, 2nd",
    ]  # fmt: skip
    page.wait_for_timeout(200)
    other = visit(page.url)
    assert other.locator("#channel-users button").count() == 4
    page.locator("#channel-users button").nth(1).click()
    assert page.locator("#large-title").inner_text() == "layer early · k 4 · facet 1"
    page.keyboard.press("Escape")
    page.select_option("#channels-along", "layer")
    assert page.locator(".matrix .elsewhere").count() == 2 * 3 * 4  # channels of two layers are not the same
    page.fill("#channel", "7")
    assert "of 0 facets" in page.locator("#channel-about").inner_text()


def whole(page, selector):
    page.wait_for_function(
        "(chosen) => [...document.querySelectorAll(chosen)].every((one) => one.complete && one.naturalWidth)",
        arg=selector,
    )
    return page.locator(selector)


def test_where_a_facet_is_in_its_photographs_and_its_picture(visit, layers):
    page = visit(f"file://{EXAMPLE}#open.depth=middle&open.k=20&open.facet=1&open.picture=visualisation")
    count = page.locator(".photographs li").count()
    picture = page.locator("#large-picture img")
    assert page.locator(".lit, .crop").count() == 0
    page.keyboard.press("h")
    page.locator("#large-photographs").scroll_into_view_if_needed()
    heat = whole(page, ".lit img").all()
    assert len(heat) == 2 * count
    # The n-th photograph has the n-th part of the sheet over it, and the frame of what the unit at the peak sees.
    for n, lit in enumerate(page.locator(".lit").all()):
        box, sheet = lit.bounding_box(), lit.locator(".cut img").bounding_box()
        assert sheet["y"] == pytest.approx(box["y"] - n * box["height"], abs=1)
        assert sheet["height"] == pytest.approx(count * box["height"], abs=1)
        sees = lit.locator(".sees").bounding_box()
        assert sees["width"] == pytest.approx(box["width"] * 47 / 96, abs=1)
    assert "A map of 12 × 12" in page.locator("#where-about").inner_text()
    page.click("#where-crops")
    assert whole(page, ".crop img").count() == count
    assert "47 × 47 of 96 pixels" in page.locator("#where-about").inner_text()
    page.keyboard.press("o")
    assert picture.get_attribute("src").endswith("/facets/01/transparency.webp")
    page.wait_for_timeout(200)  # the address follows a little later
    again = visit(page.url)
    assert again.locator("#large-picture img").get_attribute("src").endswith("transparency.webp")
    assert again.locator(".crop").count() == count
    again.keyboard.press(",")  # a step on the way has none
    assert again.locator("#clear-field").is_hidden()
    again.keyboard.press("h")
    assert again.locator(".lit, .crop").count() == 0
    # A run of before keeps nothing of it, and the page offers nothing.
    place = "open.layer=early&open.k=2&open.facet=0&open.picture=visualisation"
    old = visit(f"file://{layers}#where=heat&clear=yes&{place}")
    assert old.locator("#large").is_visible()
    assert old.locator("#where").is_hidden()
    assert old.locator("#clear-field").is_hidden()
    assert old.locator("#as [value=transparency]").count() == 0


def test_a_layer_without_places_says_so(visit, tmp_path, make_run):
    run = make_run(tmp_path / "run", facets=1)
    (run / "facets/00/where.json").write_text('{"reason": "fc answers with <b>one</b> number a channel"}')
    page = visit(f"file://{make_gallery(run)}#open.facet=0&open.picture=visualisation")
    assert page.locator("#where").is_hidden()
    assert page.locator("#where-about").inner_text() == "No heat map: fc answers with <b>one</b> number a channel."


def test_two_tabs_keep_each_other_s_stars_and_notes(visit, layers):
    ranking = visit(f"file://{layers}#view=ranking")
    other = ranking.context.new_page()
    other.goto(f"file://{layers}#view=ranking")
    other.wait_for_selector(".cell")
    ranking.locator(".cell").nth(0).focus()
    ranking.keyboard.press("*")
    other.locator(".star").wait_for()  # told by the browser
    other.locator(".cell").nth(2).focus()
    other.keyboard.press("*")
    ranking.locator(".star").nth(1).wait_for()
    ranking.reload()
    assert ranking.locator(".star").count() == 2
    ranking.locator(".cell").nth(0).focus()
    ranking.keyboard.press("*")
    other.wait_for_function("document.querySelectorAll('.star').length === 1")


@pytest.mark.parametrize("width", [360, 1300])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_view_is_accessible(visit, layers, scheme, width):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page = visit(layers, scheme=scheme, width=width, height=740)
    for address in VIEWS:
        page.goto(f"file://{layers}#{address}")
        page.reload()
        results = axe.run(page)
        assert results.violations_count == 0, f"{address}: {results.generate_report()}"
        assert page.evaluate("document.documentElement.scrollWidth") <= width, f"{address} is wider than the window"
    place = "clear=yes&open.depth=late&open.facet=0&open.picture=visualisation"
    page = visit(f"file://{EXAMPLE}#where=heat&{place}", scheme=scheme, width=width, height=740)
    for key in "hh":
        results = axe.run(page)
        assert results.violations_count == 0, f"where: {results.generate_report()}"
        page.keyboard.press(key)


VIEWS = [
    "view=map", "view=map&besideMap=layer%3Dlate&kind=1&photograph=p00.png", "view=map&at.k=9", "view=flow",
    "view=flow&kind=1&along=k", "view=channels&channelsAlong=k&channel=1&pair=0.0%200.1", "view=channels&at.k=9",
]  # fmt: skip

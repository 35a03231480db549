"""The blind test as a person takes it: a real browser, the page from disk, answers saved as a file and counted."""

import json
import os
from dataclasses import replace

import pytest
import torch

from mindseye.commands.gallery import make_blind_test
from mindseye.reports.blind import score

pytestmark = pytest.mark.browser

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
LOADED = "[...document.images].every((image) => image.complete && image.naturalWidth === 448)"


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    if not os.path.exists(CHROMIUM):
        pytest.skip(f"there is no {CHROMIUM}; CHROMIUM= names another")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture
def visit(browser):
    """Opens a page and holds it to its promises: no error, nothing refused by its policy, no file but its pictures."""
    opened = []

    def go(where, *, width=1300, height=860, scheme="light"):
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        page = context.new_page()
        complaints, asked_for = [], []
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: asked_for.append(request.url))
        page.goto(f"file://{where}")
        opened.append((context, complaints, asked_for, where))
        page.said = complaints
        return page

    yield go
    for context, complaints, asked_for, where in opened:
        context.close()
        assert complaints == []
        pictures = f"file://{where.parent}/blind/"
        others = [url for url in asked_for if not (url.startswith(pictures) and url.endswith(".webp"))]
        assert {url.partition(":")[0] for url in others} <= {"file", "blob"}
        assert {url for url in others if url.startswith("file")} == {f"file://{where}"}


@pytest.fixture(scope="module")
def made(tmp_path_factory, make_run, targets):
    """Eight questions on one run, and the folder with the key."""
    folder = tmp_path_factory.mktemp("run")
    make_run(folder, facets=3)
    known = replace(targets, held_out=targets.paths[:6], held_out_labels=torch.tensor([0, 0, 1, 1, 2, 2]))
    known.save(folder / "targets")
    return make_blind_test(folder, questions=8)


def settled(page):
    """With every picture there; the policy lets no wait_for_function be evaluated in the page."""
    for _ in range(200):
        if page.evaluate(LOADED):
            return
        page.wait_for_timeout(10)
    raise AssertionError("pictures are missing")


def text(page, selector):
    return page.locator(selector).inner_text()


def test_a_person_answers_by_hand_and_by_keys_and_saves(visit, made, tmp_path):
    key = json.loads(next(made.parent.glob("blind-key-*.json")).read_text())["questions"]
    page = visit(made)
    assert text(page, "#progress") == "8 questions"
    page.fill("#person", "K. M.")
    page.keyboard.press("Enter")
    for number, (name, entry) in enumerate(key.items(), start=1):
        assert text(page, "#progress") == f"{number} of 8"
        settled(page)
        assert page.evaluate("document.activeElement.id") == "ask"  # neither photograph stands out
        assert page.locator("#image-a").get_attribute("src").endswith(f"/{name}-a.webp")
        if number == 1:
            page.click(f"#{entry['right']}")
        elif number == 2:  # wrong at first, and mended
            page.keyboard.press("ArrowLeft" if entry["right"] == "b" else "ArrowRight")
            page.keyboard.press("Backspace")
            assert page.locator("button.chosen").get_attribute("id") != entry["right"]
            settled(page)
            page.keyboard.press(entry["right"])
        else:
            page.keyboard.press("ArrowLeft" if entry["right"] == "a" else "ArrowRight")
    assert text(page, "#progress") == "8 of 8 answered"
    with page.expect_download() as download:
        page.click("#save")
    saved = tmp_path / download.value.suggested_filename
    download.value.save_as(saved)
    answers = json.loads(saved.read_text())
    assert set(answers) == {"format", "test", "sitting", "person", "answers"}
    assert answers["person"] == "K. M."
    assert answers["answers"] == {name: entry["right"] for name, entry in key.items()}
    scores = score(made.parent, [saved])
    assert sum(score.answers for score in scores) == 8
    assert all(score.accuracy == 1 for score in scores)


def test_answers_outlive_the_page_and_the_next_person_has_none(visit, made):
    page = visit(made)
    page.click("#begin")
    settled(page)
    page.click("#a")
    page.reload()
    assert text(page, "#begin") == "Go on with 7 left"
    page.click("#begin")
    assert text(page, "#progress") == "2 of 8"
    while text(page, "#progress") != "8 of 8 answered":
        settled(page)
        page.keyboard.press("a")
    page.click("#anew")
    assert text(page, "#begin") == "Begin"
    page.click("#begin")
    assert text(page, "#progress") == "1 of 8"
    assert page.locator("button.chosen").count() == 0


def test_a_question_without_its_pictures_cannot_be_answered(visit, made):
    pictures = next((made.parent / "blind").iterdir())
    hidden = pictures / "001-b.webp"
    hidden.rename(hidden.with_suffix(".away"))
    try:
        page = visit(made)
        page.click("#begin")
        page.locator("#missing").wait_for(state="visible")
        page.keyboard.press("ArrowLeft")
        assert text(page, "#progress") == "1 of 8"
        page.click("#skip")
        assert text(page, "#progress") == "2 of 8"
        for _ in range(7):
            settled(page)
            page.keyboard.press("ArrowLeft")
        assert text(page, "#done").startswith("1 of the questions")
        page.said.clear()  # the browser's own word on the file
    finally:
        hidden.with_suffix(".away").rename(hidden)


@pytest.mark.parametrize("width", [360, 1400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_accessible_in_every_view(visit, made, scheme, width):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page = visit(made, scheme=scheme, width=width, height=740)

    def check(view):
        results = axe.run(page)
        assert results.violations_count == 0, f"{view}: {results.generate_report()}"
        assert page.evaluate("document.documentElement.scrollWidth") <= width, f"{view} is wider than the window"

    check("start")
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
    assert dark == (scheme == "dark")
    page.click("#begin")
    settled(page)
    check("question")
    assert page.locator("#b").bounding_box()["y"] < 740  # in sight without scrolling
    while text(page, "#progress") != "8 of 8 answered":
        settled(page)
        page.keyboard.press("b")
    check("end")

"""The documentation site as a person reads it: from disk, in a real browser, without a network."""

import functools
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.browser

PROJECT = Path(__file__).parents[2]
CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """What `make docs` has built, else built here."""
    built = PROJECT / "site"
    if not (built / "index.html").is_file():
        if importlib.util.find_spec("mkdocs") is None:
            pytest.skip("make docs first, or pip install 'mindseye[docs]'")
        built = tmp_path_factory.mktemp("site")
        done = subprocess.run(
            [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(built)],
            cwd=PROJECT, capture_output=True, text=True, check=False,
            env={**os.environ, "PYTHONPATH": str(PROJECT), "NO_MKDOCS_2_WARNING": "1"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    return built


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
def visit(browser, site):
    """Opens a page and holds it to its promises: no error, no script or font or picture from elsewhere."""
    opened = []

    def go(name, *, width=1300, scheme="light"):
        context = browser.new_context(viewport={"width": width, "height": 860}, color_scheme=scheme)
        page = context.new_page()
        complaints = []
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        inside = (f"file://{site}/", "data:", "blob:")
        page.on("request", lambda request: None if request.url.startswith(inside) else complaints.append(request.url))
        page.goto(f"file://{site}/{name}")
        opened.append((context, complaints))
        return page

    yield go
    for context, complaints in opened:
        context.close()
        assert complaints == []


@functools.cache
def pages_of(site):
    """Those of the site itself: the example's gallery is the gallery's own, and tested as such."""
    pages = sorted(str(path.relative_to(site)) for path in site.rglob("*.html"))
    return [name for name in pages if not name.startswith(("example/", "404"))]


# What is no code, word for word: no mark of Markdown may be left in it.
PROSE = """() => {
    const copy = document.querySelector("article").cloneNode(true);
    copy.querySelectorAll("pre, code, svg, math, .output").forEach((one) => one.remove());
    return copy.textContent;
}"""


def test_no_page_shows_its_marks(visit, site):
    for name in pages_of(site):
        text = visit(name).evaluate(PROSE)
        assert not re.findall(r"\*\*|\$\$|\]\(|\{: |<!--|^#+ |\[TOC\]|&[a-z#0-9]+;|\\<", text, re.M), name


def test_every_page_opens_and_fits_a_telephone(visit, site):
    assert len(pages_of(site)) >= 18
    for name in pages_of(site):
        page = visit(name, width=360)
        assert page.locator("h1").first.is_visible(), name
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, f"{name} is wider than the window"
        broken = "[...document.images].filter((one) => one.complete && !one.naturalWidth).map((one) => one.src)"
        assert page.evaluate(broken) == [], name


def test_formulas_are_drawn_as_formulas(visit):
    page = visit("method.html")
    formulas = page.locator("div.formula math")
    assert formulas.count() >= 12
    for n in range(formulas.count()):
        box = formulas.nth(n).bounding_box()
        assert box["width"] > 40, n
        assert box["height"] > 12, n
    assert "$" not in page.locator("article").inner_text()
    fraction = page.locator("mfrac").first
    above, below = (fraction.locator("> *").nth(n).bounding_box() for n in (0, 1))
    assert above["y"] + above["height"] <= below["y"] + 1


def test_a_first_column_of_code_is_not_broken(visit):
    lines = """() => [...document.querySelectorAll("td:first-child > code")].map((o) => o.getClientRects().length)"""
    rows = visit("notebooks/quickstart.html").evaluate(lines)
    assert len(rows) >= 4
    assert set(rows) == {1}


def test_the_search_works_from_disk(visit):
    page = visit("index.html")
    page.locator("[data-md-component='search-query']").first.click()
    page.keyboard.type("objective.gain", delay=20)
    page.wait_for_selector(".md-search-result__link", timeout=20_000)
    links = [result.get_attribute("href") for result in page.locator(".md-search-result__link").all()]
    assert any("configuration.html" in link for link in links)
    page.locator(".md-search-result__link").first.click()
    page.wait_for_selector("article mark")  # what was looked for, marked in the page


def test_the_drawing_follows_the_switch_of_light_and_dark(visit):
    page = visit("architecture.html", scheme="dark")
    ink = "getComputedStyle(document.querySelector('svg.house text')).fill"
    before = page.evaluate(ink)
    page.locator("label[for='__palette_0']").first.click()  # from dark to light
    page.wait_for_function(f"{ink} !== '{before}'")
    assert "facets imports networks" in page.locator("svg.house").inner_html()


def test_a_setting_can_be_linked_to(visit):
    page = visit("configuration.html#objective.gain")
    place = page.evaluate("document.getElementById('objective.gain').getBoundingClientRect().top")
    assert 0 <= place < 860


@pytest.mark.parametrize(("scheme", "width"), [("light", 1300), ("dark", 360)])
@pytest.mark.parametrize("name", ["index", "getting-started", "method", "configuration", "api", "architecture"])
def test_pages_are_accessible(visit, name, scheme, width):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page = visit(f"{name}.html", scheme=scheme, width=width)
    # Without preloading it asks for no file again. Its further rules of good taste are the theme's affair.
    wcag = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]
    results = axe.run(page, options={"preload": False, "runOnly": wcag})
    assert results.violations_count == 0, f"{name}: {results.generate_report()}"

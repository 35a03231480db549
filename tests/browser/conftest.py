"""A real browser, and pages that are held to their promises."""

import os

import pytest

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


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
    """Opens a page and holds it to its promises: no error, nothing refused by its policy, nothing from elsewhere."""
    opened = []

    def go(where, *, width=1300, height=860, scheme="light"):
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        page = context.new_page()
        complaints = []
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: None if request.url.startswith(start) else complaints.append(request.url))
        url = str(where) if "://" in str(where) else f"file://{where}"
        start = url.partition("gallery.html")[0]
        page.goto(url)
        page.wait_for_selector("#grid:visible, #nothing:visible, .view:visible")
        opened.append((context, complaints))
        page.said = complaints
        return page

    yield go
    for context, complaints in opened:
        context.close()
        assert complaints == []

"""The gallery in docs and README, as it is now: `python scripts/gallery_screenshots.py` takes docs/gallery-*.png of
docs/example/gallery.html. `make example` ends with it.

Needs the extra `browser` and a Chromium, /usr/bin/chromium or what CHROMIUM names.
"""

import os
from pathlib import Path
from urllib.parse import urlencode

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGE = DOCS / "example" / "gallery.html"
CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
WIDTH, HEIGHT = 1400, 900

CELL = {"depth": "late", "k": "5", "objective": "calibrated", "facet": "0"}


def at(place: str, **settings: str) -> dict[str, str]:
    """A cell as the page's address has it."""
    return {f"{place}.{name}": value for name, value in (CELL | settings).items()}


# By the picture's name: what the view's address says, and what has to be in sight there.
VIEWS: dict[str, tuple[dict[str, str], str]] = {
    "gallery-sweep": ({}, "#grid"),
    "gallery-run": (at("open", picture="visualisation") | {"beside": "left"}, "#large .against"),
    "gallery-where": (
        at("open", depth="middle", picture="visualisation") | {"where": "heat", "clear": "yes"},
        "#large-photographs-section",
    ),
    "gallery-difference": (
        at("a", picture="initial image") | at("b", picture="visualisation") | {"mode": "difference"},
        "#comparison",
    ),
    "gallery-map": ({"view": "map", "besideMap": "depth=late"}, "#map-canvas-1"),
}


def main() -> None:
    """Take every picture of VIEWS."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        for name, (address, shown) in VIEWS.items():
            page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
            page.goto(f"{PAGE.as_uri()}#{urlencode(address)}")
            page.wait_for_selector(shown)
            page.locator(shown).evaluate("element => element.scrollIntoView({ block: 'nearest' })")
            page.evaluate("document.activeElement.blur()")
            page.wait_for_load_state("networkidle")  # every picture is there
            page.wait_for_timeout(500)  # and drawn, on the canvas of the map too
            page.screenshot(path=DOCS / f"{name}.png")
            page.close()
            print(DOCS / f"{name}.png")
        browser.close()


if __name__ == "__main__":
    main()

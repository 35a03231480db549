"""What `mkdocs build` does besides: pages that are made, formulas as MathML, links that lead out of docs/.

- docs/configuration.md ends where the settings begin: they are read from conf/ and the docstrings.
- CHANGELOG.md, CONTRIBUTING.md and the notebooks become pages; LICENSE and CITATION.cff are copied.
- Notebooks are executed; one that fails fails the build. `mkdocs serve` shows them as they are written.
- docs/architecture.svg must be what the imports say, and is put into its page, where it follows the page's colours.
- Formulas ($…$ and $$…$$, which GitHub shows as well) become MathML: no script, no font from elsewhere.
"""

import html
import posixpath
import re
import sys
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert as to_mathml
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

sys.path.insert(0, str(Path(__file__).parent))

import architecture_diagram
import configuration_reference
import notebook_pages

PROJECT = Path(__file__).resolve().parent.parent
# Files of the repository that are pages or files of the site, by their path there.
BROUGHT_IN = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "notebooks/README.md": "notebooks/index.md",
    "LICENSE": "LICENSE.txt",
    "CITATION.cff": "CITATION.cff",
}
GALLERY = "example/gallery.html"  # below docs/: the gallery of a sweep, as `mindseye gallery` wrote it
TO_THE_GALLERY = "<!-- gallery -->"
LINK = re.compile(r"(\]\()(?!https?:|mailto:|#)([^)\s#]+)(#[^)\s]*)?(?=[)\s])")
CODE = re.compile(r"(^(?:```|~~~).*?^(?:```|~~~)$|`[^`\n]+`)", re.M | re.S)
FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.S)
BAR = '<mo accent="true">&#x02015;</mo>'  # which no browser stretches over what is below it
SETTINGS = "<!-- settings -->"

_executing = True
_outputs: dict[str, str] = {}  # what cells gave, by the marks that stand for it in the pages
_sources: dict[str, str] = {}  # of pages that are made of another file: that file


def on_startup(command: str, dirty: bool) -> None:
    """`mkdocs serve` builds at every change of a file, and does without the minutes that notebooks take."""
    global _executing
    _executing = command != "serve"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Notebooks, and the example gallery where there is one, into the navigation after the first pages."""
    if config.nav is None or any("Notebooks" in entry or "Example gallery" in entry for entry in config.nav):
        return config
    notebooks: list[Any] = [{name: f"notebooks/{path.stem}.md"} for path, name in notebook_pages.notebooks(PROJECT)]
    if (PROJECT / "notebooks" / "README.md").is_file():
        notebooks.insert(0, BROUGHT_IN["notebooks/README.md"])
    added = [{"Notebooks": notebooks}] if notebooks else []
    if (PROJECT / "docs" / GALLERY).is_file():
        added.append({"Example gallery": GALLERY})
    config.nav[2:2] = added
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages and files whose originals stand elsewhere."""
    for original, place in BROUGHT_IN.items():
        if original == "README.md" or not (PROJECT / original).is_file():  # the first page stands for README
            continue
        text = (PROJECT / original).read_text(encoding="utf-8")
        files.append(File.generated(config, place, content=text))
        _sources[place] = original
    try:
        made = notebook_pages.pages(PROJECT, execute=_executing)
    except RuntimeError as error:
        raise PluginError(str(error)) from error
    for path, (text, outputs) in made.items():
        place = f"notebooks/{path.stem}.md"
        files.append(File.generated(config, place, content=text))
        _sources[place] = f"notebooks/{path.name}"
        _outputs.update(outputs)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Put in what is made, and turn links to files of the repository into links within the site."""
    place = page.file.src_uri
    if SETTINGS in markdown:
        page.meta["search"] = {"boost": 2}  # who looks for a setting wants its description first
        markdown = markdown.partition(SETTINGS)[0] + configuration_reference.markdown()
    there = (PROJECT / "docs" / GALLERY).is_file()
    shown = f"[The gallery of an example sweep]({GALLERY}) is part of this site: open it and look around."
    markdown = markdown.replace(TO_THE_GALLERY, shown if there else "")
    source = _sources.get(place, f"docs/{place}")

    def relinked(match: re.Match[str]) -> str:
        return match[1] + site_link(match[2], source, place) + (match[3] or "")

    parts = CODE.split(markdown)
    return "".join(part if n % 2 else LINK.sub(relinked, part) for n, part in enumerate(parts))


def site_link(link: str, source: str, place: str) -> str:
    """A link that stands in `source` of the repository, as it must read on the site's page `place`.

    Raises PluginError where the repository has no such file, or it is no part of the site.
    """
    target = posixpath.normpath(posixpath.join(posixpath.dirname(source), link))
    if not (PROJECT / target).exists():
        raise PluginError(f"{source}: the link {link} leads nowhere")
    if target in BROUGHT_IN:
        there = BROUGHT_IN[target]
    elif target.startswith("docs/"):
        there = target.removeprefix("docs/")
    elif target.startswith("notebooks/") and target.endswith(".py"):
        there = target.removesuffix(".py") + ".md"
    else:
        raise PluginError(f"{source}: {link} is no page of the site; name the file as code, without a link")
    return posixpath.relpath(there, posixpath.dirname(place) or ".")


def on_page_content(content: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Formulas become MathML; outputs of notebooks and the drawing of the house take their places."""
    content = FORMULA.sub(_mathml, content)
    # Wide tables scroll, by keys as well; a head without words is none.
    content = content.replace("<table>", '<table tabindex="0">')
    content = re.sub(r"<th([^>]*)></th>", r"<td\1></td>", content)
    for mark, output in _outputs.items():
        content = content.replace(mark, output)
    if page.file.src_uri == "architecture.md":
        try:
            drawn = architecture_diagram.drawing()
        except ValueError as error:
            raise PluginError(str(error)) from error
        committed = PROJECT / "docs" / "architecture.svg"
        if committed.read_text(encoding="utf-8") != drawn:
            raise PluginError(f"{committed} is not what the imports say: python scripts/architecture_diagram.py")
        framed = f'<div class="drawing" tabindex="0" role="group" aria-label="The house">{drawn}</div>'
        content, times = re.subn(r'<p><img[^>]*src="architecture\.svg"[^>]*></p>', lambda _: framed, content)
        if times != 1:
            raise PluginError("docs/architecture.md does not show architecture.svg")
    return content


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """The theme's search window has no name for those who do not see it."""
    return re.sub(r'data-md-component="search" role="dialog"', r'\g<0> aria-label="Search"', output)


def _mathml(match: re.Match[str]) -> str:
    latex = html.unescape(match[3]).strip()
    if match[2] == "(":
        return to_mathml(latex)
    formula = to_mathml(latex, display="block").replace(BAR, "<mo stretchy='true'>&#x000AF;</mo>")
    # What is wider than a telephone scrolls, by keys as well; its TeX is what a screen reader may read.
    return f'<div class="formula" tabindex="0" role="math" aria-label="{html.escape(latex)}">{formula}</div>'


def on_post_build(config: MkDocsConfig, **_: Any) -> None:
    """The sitemap is of no use without an address, and says the day of the build."""
    for name in ("sitemap.xml", "sitemap.xml.gz"):
        (Path(config.site_dir) / name).unlink(missing_ok=True)

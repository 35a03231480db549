"""The documentation: every page in the navigation, every setting in the reference, every link leading somewhere."""

import ast
import re
import shutil
import subprocess
from pathlib import Path

import architecture_diagram
import configuration_reference
import pytest
import yaml
from omegaconf import OmegaConf

from mindseye.commands.composing import SPECIAL_KEYS, compose

PROJECT = Path(__file__).parent.parent
PACKAGE = PROJECT / "mindseye"
PAGES = sorted((PROJECT / "docs").glob("*.md"))
SETTINGS = yaml.safe_load((PROJECT / "mkdocs.yml").read_text())


def entries(nav):
    for entry in nav:
        for place in entry.values():
            if isinstance(place, list):
                yield from entries(place)
            else:
                yield place


# ---- pages and links ----------------------------------------------------------------------------------------------


def test_every_page_is_in_the_navigation_once():
    listed = list(entries(SETTINGS["nav"]))
    written = [str(path.relative_to(PROJECT / "docs")) for path in PAGES]
    assert sorted(listed) == sorted([*written, "contributing.md", "changelog.md"])


def slugs(path):
    """The anchors of a page's headings, as GitHub and the site make them."""
    text = re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.M | re.S)
    anchors = set()
    for heading in re.findall(r"^#+ (.+)$", text, re.M):
        plain = re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        anchors.add(re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", plain).strip()))
    return anchors


TEXTS = [*PAGES, *(PROJECT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"))]


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    """On GitHub, that is: within the repository's own folders. `make docs` looks at the site's."""
    text = re.sub(r"^```.*?^```$|`[^`\n]*`", "", path.read_text(), flags=re.M | re.S)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if link.startswith(("https://", "mailto:")):
            continue
        place, _, anchor = link.partition("#")
        target = path.parent / place if place else path
        assert target.exists(), f"{path.name}: {link}"
        if anchor and target.suffix == ".md":
            assert anchor in slugs(target), f"{path.name}: {link}"


def test_nothing_is_loaded_from_elsewhere():
    """The theme would ask for fonts, and the plugin offline for a script, if they were not told otherwise."""
    assert SETTINGS["theme"]["font"] is False
    assert any(isinstance(plugin, str) and plugin == "offline" for plugin in SETTINGS["plugins"])
    assert any("iframe-worker" in polyfill for polyfill in SETTINGS["extra"]["polyfills"])
    for place in (*SETTINGS["extra"]["polyfills"], *SETTINGS["extra_css"], SETTINGS["theme"]["favicon"]):
        assert (PROJECT / "docs" / place).is_file()
    for path in PAGES:
        assert not re.findall(r"!\[[^\]]*\]\(https?:|<(?:img|script|iframe|link)[^>]*https?:", path.read_text()), path


def test_make_docs_takes_warnings_for_errors():
    done = subprocess.run(["make", "-n", "docs"], cwd=PROJECT, capture_output=True, text=True, check=False)
    assert "mkdocs build --strict" in done.stdout
    assert SETTINGS["validation"]["links"]["anchors"] == "warn"
    assert SETTINGS["validation"]["nav"]["omitted_files"] == "warn"


# ---- the reference ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reference():
    """key -> what stands below it."""
    text = configuration_reference.markdown()
    parts = re.split(r"^`([^`]+)`\{: #[^}]+ \}", text, flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def leaves(node, place):
    for key, value in node.items():
        if key in SPECIAL_KEYS or key == "defaults":
            continue
        if isinstance(value, dict) and set(value) - SPECIAL_KEYS:
            yield from leaves(value, f"{place}.{key}" if place else key)
        else:
            yield (f"{place}.{key}" if place else key), value


def test_every_setting_that_is_composed_is_in_the_reference(reference):
    composed = OmegaConf.to_container(compose([]), resolve=False)
    for key, value in leaves(composed, ""):
        if key in ("filters", "logger", "transfer", "callbacks"):
            continue
        assert key in reference, key
        written = configuration_reference.written(value)
        assert written in reference[key] or "its own" in reference[key], f"{key}={value}"


GROUPS = ("network", "images", "facets", "objective", "canvas", "transformations", "filters", "schedule", "optimizer",
          "logger", "callbacks", "trainer", "cache")  # fmt: skip


@pytest.mark.parametrize("group", GROUPS)
def test_every_setting_of_every_file_is_in_the_reference(reference, group):
    for path in sorted((PROJECT / "conf" / group).glob("*.yaml")):
        assert f"{group}={path.stem}" in reference
        for key, _ in leaves(yaml.safe_load(path.read_text()) or {}, group):
            assert key in reference, f"{path}: {key}"


def test_every_group_of_conf_is_in_the_reference():
    folders = {path.name for path in (PROJECT / "conf").iterdir() if path.is_dir()} - {"hydra"}
    assert folders == set(configuration_reference.GROUPS)


def test_every_setting_says_what_it_is(reference):
    settings = {key: text for key, text in reference.items() if "=" not in key}
    assert not [key for key, text in settings.items() if not re.search(r"^:   .*[.?…)]$", text, re.M)]


def test_no_mark_is_taken_for_another(reference):
    """Outside of code no underscore begins emphasis, and no backslash stands where Markdown would show it."""
    text = re.sub(r"`[^`]*`|\{: [^}]*\}", "", "\n".join(reference.values()))
    assert not re.findall(r".*(?<![\\\w])_.*|.*\\<.*", text)


def test_the_mapping_of_one_s_own_measures_is_code(reference):
    assert "`{name: {_target_: …}}`" in reference["metrics"]


def test_a_docstring_s_words_stay_as_they_are():
    pytest.importorskip("griffe")
    import docstring_markdown

    written = docstring_markdown.as_markdown('name: "timm/<name>", a_b', {"name"})
    assert written == '\n\n- **name**: "timm/&lt;name\\>", a\\_b'


def test_a_docstring_s_arguments_are_a_list():
    pytest.importorskip("griffe")
    import docstring_markdown

    text = "Draw it.\n\nsize: in pixels. mean, std: one number\na channel; other: no argument.\n\nRaises ValueError."
    written = docstring_markdown.as_markdown(text, {"size", "mean", "std"})
    items = [" ".join(item.split()) for item in written.split("\n\n")]
    assert items == [
        "Draw it.", "- **size**: in pixels.", "- **mean, std**: one number a channel; other: no argument.",
        "Raises ValueError.",
    ]  # fmt: skip


def test_ranges_and_choices_are_the_programs_own(reference):
    assert "0 to 0.5" in reference["transformations.jitter"].split("\n")[0]
    assert "above 0" in reference["objective.gain"].split("\n")[0]
    assert "above 0.001 and below 1.999" in reference["objective.b"].split("\n")[0]
    assert "`relative`, `summed`, `elementwise`" in reference["objective.distance"].split("\n")[0]
    assert "whole number of 1 or more" in reference["k"].split("\n")[0]
    assert "`5.0` in *calibrated* · `0.0` in *published*, *released*" in reference["objective.tv"]
    assert "must be given" in reference["network.path"]


# ---- the drawing of the house -------------------------------------------------------------------------------------


def test_the_drawing_is_what_the_imports_say():
    """Read by other means: every line that imports something of another room."""
    expected = set()
    rooms = set(architecture_diagram.ROOMS)
    for path in PACKAGE.rglob("*.py"):
        here = path.relative_to(PACKAGE).parts[0]
        for there in re.findall(r"^\s*(?:from|import) mindseye\.(\w+)", path.read_text(), re.M):
            if here in rooms and there in rooms and here != there:
                expected.add((here, there))
    assert set(architecture_diagram.imports()) == expected
    arrows = re.findall(r"<title>(\w+) imports (\w+): ", architecture_diagram.drawing())
    assert sorted(arrows) == sorted(expected)


def test_the_committed_drawing_is_the_newest():
    drawn = (PROJECT / "docs" / "architecture.svg").read_text()
    assert drawn == architecture_diagram.drawing(), "python scripts/architecture_diagram.py draws it anew"


def test_an_import_that_leads_down_has_no_drawing(tmp_path):
    copy = tmp_path / "mindseye"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__", "*.safetensors"))
    assert architecture_diagram.imports(copy) == architecture_diagram.imports()
    (copy / "facets" / "wrong.py").write_text("from mindseye.results.metrics import measure\n")
    with pytest.raises(ValueError, match=r"wrong\.py:1 imports mindseye\.results\.metrics: facets stands before"):
        architecture_diagram.drawing(copy)


def test_every_module_stands_in_the_drawing():
    text = architecture_diagram.drawing()
    for room in architecture_diagram.ROOMS:
        for path in (PACKAGE / room).glob("*.py"):
            assert path.stem == "__init__" or path.stem in text


# ---- what else is made --------------------------------------------------------------------------------------------


def test_public_names_are_in_the_python_reference():
    text = (PROJECT / "docs" / "api.md").read_text()
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    [names] = [
        ast.literal_eval(node.value) for node in tree.body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__"
    ]  # fmt: skip
    told = re.findall(r"^::: mindseye\.(?:\S+\.)?(\w+)$", text, re.M)
    assert set(names) <= set(told)


NOTEBOOK = """
# %% [markdown]
# # A title
# With `code`, see `docs/method.md`.

# %%
print("one < two")
import time; time.sleep(0.3); print("three")

# %%
class Shown:
    def _repr_html_(self):
        return "<b>shown</b>"

Shown()

# %%
from IPython.display import Markdown
Markdown("a *word*")
"""


def test_a_notebook_is_shown_with_what_its_cells_give(tmp_path):
    for name in ("jupytext", "nbclient"):
        pytest.importorskip(name)
    import notebook_pages

    path = tmp_path / "small.py"
    path.write_text(NOTEBOOK)
    text, outputs = notebook_pages.page(path, execute=True)
    assert text.startswith("# A title\nWith `code`, see [`docs/method.md`](../docs/method.md).")
    assert '```python\nprint("one < two")\n' in text
    printed, shown, written = (outputs[mark] for mark in re.findall(r"<!-- output .*? -->", text))
    assert "<pre>one &lt; two\nthree</pre>" in printed
    assert "<b>shown</b>" in shown
    assert "a <em>word</em>" in written
    assert notebook_pages.page(path, execute=False)[1] == {}
    path.write_text(NOTEBOOK + "\n# %%\n1 / 0\n")
    with pytest.raises(RuntimeError, match=r"small\.py: a cell failed[\s\S]*ZeroDivisionError"):
        notebook_pages.page(path, execute=True)

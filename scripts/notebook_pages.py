"""notebooks/*.py as pages of the documentation site: executed, each cell with what it gives."""

import html
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from markdown_it import MarkdownIt
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

ORDER = ("quickstart", "your_own_network", "compare_a_sweep")
SECONDS = 300  # of one cell
NAMED_PAGE = re.compile(r"(?<!\[)`docs/(\w+)\.md`")
ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def notebooks(project: Path) -> Iterator[tuple[Path, str]]:
    """Every notebook with its title for the navigation: those of ORDER first, others by name."""
    files = sorted((project / "notebooks").glob("*.py"), key=lambda path: (_place(path), path.name))
    for path in files:
        yield path, path.stem.replace("_", " ").capitalize()


def _place(path: Path) -> int:
    return ORDER.index(path.stem) if path.stem in ORDER else len(ORDER)


def pages(project: Path, *, execute: bool) -> Mapping[Path, tuple[str, Mapping[str, str]]]:
    """Every notebook's `page`. They run beside one another and share the cores, so that all take little more than one.

    Raises RuntimeError where a cell fails.
    """
    paths = [path for path, _ in notebooks(project)]
    cores = os.cpu_count() or 1
    at_once = max(1, min(len(paths), cores))
    with ThreadPoolExecutor(at_once) as workers:
        made = workers.map(lambda path: page(path, execute=execute, threads=max(1, cores // at_once)), paths)
        return dict(zip(paths, made, strict=True))


def page(path: Path, *, execute: bool, threads: int = 1) -> tuple[str, Mapping[str, str]]:
    """A notebook (jupytext's percent format) as Markdown, and what its cells gave, as HTML by the marks in it.

    The outputs stand apart, since they hold pictures of many kilobytes that are no Markdown. Raises RuntimeError, with
    the cell and its traceback, where a cell fails.
    """
    notebook = jupytext.read(path)
    if execute:
        _execute(notebook, path, threads)
    parts, outputs = [], {}
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type == "markdown":
            parts.append(NAMED_PAGE.sub(r"[\g<0>](../docs/\1.md)", cell.source))
        elif cell.cell_type == "code" and cell.source.strip():
            parts.append(f"```python\n{cell.source}\n```")
            shown = "".join(map(_shown, _joined(cell.get("outputs", []))))
            if shown:
                mark = f"<!-- output {path.stem} {number} -->"
                parts.append(mark)
                outputs[mark] = f'<div class="output" tabindex="0" role="group" aria-label="Output">{shown}</div>'
    parts.append(f"*This page is `notebooks/{path.name}`, as it ran when the site was built.*")
    return "\n\n".join(parts) + "\n", outputs


def _execute(notebook: nbformat.NotebookNode, path: Path, threads: int) -> None:
    """In a folder of its own, with a cache of its own; modules beside the notebook can be imported."""
    with tempfile.TemporaryDirectory() as place:
        search = os.pathsep.join([str(path.parent), str(path.parent.parent), os.environ.get("PYTHONPATH", "")])
        environment = {
            **os.environ,
            "MINDSEYE_CACHE": str(Path(place) / "cache"),
            "OMP_NUM_THREADS": str(threads),
            "PYTHONPATH": search.rstrip(os.pathsep),
            "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        }
        work = Path(place) / "work"
        work.mkdir()
        client = NotebookClient(
            notebook,
            timeout=SECONDS,
            kernel_name="python3",
            extra_arguments=["--log-level=ERROR"],
            resources={"metadata": {"path": str(work)}},
        )
        try:
            client.execute(env=environment)
        except CellExecutionError as error:
            raise RuntimeError(f"{path}: a cell failed\n{ANSI.sub('', str(error))}") from None


def _joined(outputs: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """What was printed bit by bit, in one piece."""
    together: list[Mapping[str, Any]] = []
    for output in outputs:
        before = together[-1] if together else {}
        if output["output_type"] == "stream" and output["name"] == before.get("name"):
            together[-1] = {**before, "text": before["text"] + output["text"]}
        else:
            together.append(output)
    return together


def _shown(output: Mapping[str, Any]) -> str:
    """What a cell printed, showed or gave, as HTML: the richest form that there is."""
    if output["output_type"] == "stream":
        # What is drawn over (bars) is left as it was at last.
        lines = [line.rpartition("\r")[2] for line in ANSI.sub("", output["text"]).split("\n")]
        text = "\n".join(lines).strip("\n")
        return f"<pre>{html.escape(text)}</pre>" if text and output["name"] == "stdout" else ""
    data = output.get("data", {})
    if "text/html" in data:
        return data["text/html"]
    for kind in ("image/png", "image/jpeg"):
        if kind in data:
            encoded = data[kind].replace("\n", "")
            return f'<img alt="What the cell above draws" src="data:{kind};base64,{encoded}">'
    if "image/svg+xml" in data:
        return data["image/svg+xml"]
    if "text/markdown" in data:
        return MarkdownIt("commonmark").enable("table").render(data["text/markdown"])  # jupytext needs it, too
    return f"<pre>{html.escape(data['text/plain'])}</pre>" if "text/plain" in data else ""

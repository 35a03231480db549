"""The house's own rules: who may import whom, and what is not written anywhere."""

import ast
import re
from pathlib import Path

import pytest

import mindseye
from mindseye import settings

PACKAGE = Path(mindseye.__file__).parent
ORDER = ["networks", "facets", "visualizer", "results", "reports", "sweeps", "commands"]
MOST_ARGUMENTS = 7
FILES = sorted(PACKAGE.rglob("*.py"))


def imported(path):
    """(module, line) of every import in a file, those inside functions too; those for type checkers alone left out."""
    tree = ast.parse(path.read_text())
    checking = [
        node for node in ast.walk(tree) if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
    ]
    skipped = {id(inner) for block in checking for inner in ast.walk(block)}
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively"
            yield node.module, node.lineno


def room(module_or_path):
    parts = module_or_path.split(".")
    return parts[1] if len(parts) > 1 and parts[0] == "mindseye" else None


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_room_imports_only_from_those_before_it(path):
    here = path.relative_to(PACKAGE).parts[0] if path.parent != PACKAGE else None
    for module, line in imported(path):
        there = room(module)
        where = f"{path}:{line} imports {module}"
        if here in ORDER and there in ORDER:
            assert ORDER.index(there) <= ORDER.index(here), where
        if here == "demo":
            assert there in (None, "demo"), where
        if module.split(".")[0] in ("hydra", "omegaconf"):
            assert here == "commands", where
        if module.split(".")[0] == "pytorch_lightning" and here == "visualizer":
            lightning = ("module", "data", "fitting", "checkpoints", "facet_sharding", "tracking", "watching")
            assert path.stem in lightning or path.parent.name == "callbacks", where
        if module.split(".")[0] == "wandb":
            assert str(path.relative_to(PACKAGE)) == "reports/tracking.py", where


@pytest.mark.parametrize("name", ["canvas", "distance", "filters", "schedules", "transformations"])
def test_the_mathematics_stands_alone(name):
    """They import nothing of the project but what a setting may be: they can be read and tested by themselves."""
    modules = [module for module, _ in imported(PACKAGE / "visualizer" / f"{name}.py")]
    assert not [module for module in modules if module.startswith("mindseye") and module != "mindseye.fields"]


def test_no_circles():
    graph = {}
    for path in FILES:
        name = ".".join(("mindseye", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
        graph[name] = {module for module, _ in imported(path) if module.startswith("mindseye.")}
    done, open_now = set(), []

    def visit(name):
        if name in done or name not in graph:
            return
        assert name not in open_now, " -> ".join([*open_now, name])
        open_now.append(name)
        for other in graph[name]:
            visit(other)
        done.add(open_now.pop())

    for name in graph:
        visit(name)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_style_of_the_house(path):
    tree = ast.parse(path.read_text())
    assert path.stem != "utils"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            assert node.args.kwarg is None, f"{path}:{node.lineno} {node.name} takes **{node.args.kwarg.arg}"
            given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            count = sum(argument.arg not in ("self", "cls") for argument in given)
            assert count <= MOST_ARGUMENTS, f"{path}:{node.lineno} {node.name} takes {count} arguments: give it a value"
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{path}:{node.lineno} {node.name} has no docstring"


GROUPS = "|".join([*settings.GROUPS, *settings.MADE, *settings.NAMED])
KEY = re.compile(rf"(?<![\w.(])({GROUPS})(\.\w+)*=")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_room_below_the_commands_names_no_key_of_theirs(path):
    """What it says is said to people who call it from Python, too; the commands put the group before a name."""
    if path.parts[len(PACKAGE.parts)] in ("commands", "settings.py"):  # settings.py is where the keys are
        return
    tree = ast.parse(path.read_text())
    documents = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documents:
            assert not KEY.search(node.value), f"{path}:{node.lineno} names a key: {node.value!r}"


def test_importing_the_package_imports_nothing_heavy():
    import subprocess
    import sys

    script = "import sys, mindseye; sys.exit(bool({'torch', 'hydra', 'sklearn'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_public_names_are_what_they_say():
    for name in mindseye.__all__:
        assert getattr(mindseye, name).__name__ == name
    with pytest.raises(AttributeError, match="it has"):
        mindseye.nothing  # noqa: B018

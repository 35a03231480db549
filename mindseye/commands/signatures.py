"""What a function or class takes, read from its source: refusing a wrong setting then needs no import of torch."""

import ast
import builtins
import importlib
import importlib.util
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

PLAIN_MODULES = ("typing", "collections.abc", "pathlib")  # their types are taken as they are
PLAIN_DECORATORS = ("staticmethod", "classmethod", "dataclass", "abstractmethod", "final", "override")
DEEPEST = 12  # re-exports and base classes followed one after the other; more is a circle


@dataclass(frozen=True)
class Signature:
    """The parameters of a callable by name, `self` left out, with their annotations; Any where one says nothing."""

    hints: Mapping[str, Any]
    open_ended: bool  # takes **kwargs


@dataclass(frozen=True)
class _Module:
    name: str
    file: Path
    body: list[ast.stmt]

    @property
    def package(self) -> str:
        return self.name if self.file.name == "__init__.py" else self.name.rpartition(".")[0]


_Definition = ast.FunctionDef | ast.ClassDef | ast.expr
_Found = tuple[_Module, _Definition] | None


def read_signature(path: str) -> Signature | None:
    """Of the dotted path of a function or class; None where its source does not tell, or there is none."""
    place, _, name = path.rpartition(".")
    module = _module(place)
    found = _definition(module, name) if module else None
    return _signature(*found, depth=0) if found else None


@lru_cache
def _module(name: str) -> _Module | None:
    top, *rest = name.split(".")
    try:
        spec = importlib.util.find_spec(top)  # of a top-level name it imports nothing
    except (ImportError, ValueError):
        return None
    if spec is None or spec.origin is None:
        return None
    file = Path(spec.origin)
    for part in rest:
        if file.name != "__init__.py":
            return None
        folder = file.parent / part
        file = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
    try:
        return _Module(name, file, ast.parse(file.read_bytes()).body)
    except (OSError, SyntaxError, ValueError):
        return None


def _definition(module: _Module, name: str, depth: int = 0) -> _Found:
    """Where a name of a module is defined: its last function, class or value there, or what it is imported from."""
    for statement in reversed(module.body):
        match statement:
            case ast.FunctionDef() | ast.ClassDef() if statement.name == name:
                return module, statement
            case ast.Assign(targets=[ast.Name(id=target)], value=value) if target == name:
                return module, value
            case ast.AnnAssign(target=ast.Name(id=target), value=ast.expr() as value) if target == name:
                return module, value
            case ast.ImportFrom(names=aliases):
                for alias in aliases:
                    if (alias.asname or alias.name) == name and depth < DEEPEST:
                        source = _module(_absolute(module, statement))
                        return _definition(source, alias.name, depth + 1) if source else None
    return None


def _absolute(module: _Module, statement: ast.ImportFrom) -> str:
    if not statement.level:
        return statement.module or ""
    parents = module.package.split(".")
    base = parents[: len(parents) - statement.level + 1]
    return ".".join([*base, *([statement.module] if statement.module else [])])


def _signature(module: _Module, node: _Definition, depth: int) -> Signature | None:
    if depth > DEEPEST or isinstance(node, ast.expr) or not set(_decorators(node)) <= set(PLAIN_DECORATORS):
        return None
    if isinstance(node, ast.FunctionDef):
        return _of_function(module, node, skip=0)
    if node.keywords:  # a metaclass may take other arguments
        return None
    if "dataclass" in _decorators(node):
        return _of_dataclass(module, node, depth)
    own = {statement.name: statement for statement in node.body if isinstance(statement, ast.FunctionDef)}
    if "__init__" in own:
        made = own["__init__"]
        return None if made.decorator_list else _of_function(module, made, skip=1)
    if "__new__" in own:
        return None
    for base in node.bases:
        found = _definition(module, base.id) if isinstance(base, ast.Name) else None
        told = _signature(*found, depth=depth + 1) if found else None
        if told is None or told.hints or told.open_ended:
            return told
    return Signature({}, False) if not node.bases else None


def _decorators(node: ast.FunctionDef | ast.ClassDef) -> Iterator[str]:
    for decorator in node.decorator_list:
        named = decorator.func if isinstance(decorator, ast.Call) else decorator
        yield ast.unparse(named).rpartition(".")[2]


def _of_function(module: _Module, node: ast.FunctionDef, skip: int) -> Signature:
    arguments = node.args
    taken = [*arguments.posonlyargs, *arguments.args][skip:] + arguments.kwonlyargs
    return Signature({one.arg: _hint(module, one.annotation) for one in taken}, arguments.kwarg is not None)


def _of_dataclass(module: _Module, node: ast.ClassDef, depth: int) -> Signature | None:
    hints: dict[str, Any] = {}
    for base in node.bases:
        found = _definition(module, base.id) if isinstance(base, ast.Name) else None
        told = _signature(*found, depth=depth + 1) if found else None
        if told is None:
            return None
        hints |= told.hints
    for statement in node.body:
        if not isinstance(statement, ast.AnnAssign) or not isinstance(statement.target, ast.Name):
            continue
        if "ClassVar" in ast.unparse(statement.annotation):
            continue
        if isinstance(statement.value, ast.Call) and any(
            keyword.arg == "init" and ast.unparse(keyword.value) == "False" for keyword in statement.value.keywords
        ):
            continue
        hints[statement.target.id] = _hint(module, statement.annotation)
    return Signature(hints, False)


def _hint(module: _Module, annotation: ast.expr | None, depth: int = 0) -> Any:
    """An annotation as Python would have it, types that are not plain as Any."""
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        try:
            annotation = ast.parse(annotation.value, mode="eval").body
        except SyntaxError:
            return Any
    if annotation is None or depth > DEEPEST:
        return Any
    # Only types are put together here: names, |, [] and constants; nothing of the module's own is run.
    allowed = (ast.Name, ast.BinOp, ast.BitOr, ast.Subscript, ast.Tuple, ast.List, ast.Constant, ast.Load, ast.UnaryOp,
               ast.USub)  # fmt: skip
    if not all(isinstance(part, allowed) for part in ast.walk(annotation)):
        return Any
    names = {part.id for part in ast.walk(annotation) if isinstance(part, ast.Name)}
    known = {name: _plain_type(module, name, depth) for name in names}
    try:
        return eval(compile(ast.Expression(annotation), str(module.file), "eval"), {"__builtins__": {}}, known)
    except TypeError:  # Any[…], say
        return Any


def _plain_type(module: _Module, name: str, depth: int) -> Any:
    for statement in module.body:
        if isinstance(statement, ast.ImportFrom) and statement.module in PLAIN_MODULES:
            for alias in statement.names:
                if (alias.asname or alias.name) == name:
                    return getattr(importlib.import_module(statement.module), alias.name, Any)
    found = _definition(module, name)
    if found is not None:
        place, meant = found
        return _hint(place, meant, depth=depth + 1) if isinstance(meant, ast.expr) else Any
    return getattr(builtins, name, Any)

"""The function or class that a dotted path or a file's name leads to, `my_package.nets.Net` or `my_net.py:build`."""

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from mindseye.files import file_of_function
from mindseye.networks.sources.source import nearest_names
from mindseye.words import called, with_class


def find_callable(target: str) -> Callable[..., Any]:
    """The function or class that "package.module.function" or "path/to/file.py:function" names, also one of a class,
    "package.module.Net.from_name"; also where they lie in the current directory.

    Raises ValueError where it names none, FileNotFoundError.
    """
    file = file_of_function(target)
    place, colon, attribute = target.rpartition(":")
    if not colon and "." in target:
        place, attribute = _module_and_attribute(target)
    if not place or not attribute:
        raise ValueError(f"{target!r} names no function: write package.module.function or path/to/file.py:function")
    value: Any = _module_of_name(place, target) if file is None else _module_of_file(file)
    for name in attribute.split("."):
        if not hasattr(value, name):
            public = [attribute for attribute in dir(value) if not attribute.startswith("_")]
            known = [attribute for attribute in public if callable(getattr(value, attribute, None))]
            raise ValueError(f"{place} has no function {attribute!r}{nearest_names(name, known)}")
        value = getattr(value, name)
    if not callable(value):
        raise ValueError(f"{target!r} must be a function or a class, not {called(value)}")
    return value


def _module_and_attribute(target: str) -> tuple[str, str]:
    """A dotted path where its module ends: the longest beginning that is one, before the last name."""
    parts = target.split(".")
    with _importable_from(Path.cwd()):
        for cut in range(len(parts) - 1, 1, -1):
            place = ".".join(parts[:cut])
            try:
                if importlib.util.find_spec(place) is not None:
                    return place, ".".join(parts[cut:])
            except ModuleNotFoundError as error:  # what is before it is no package
                if error.name is None or not place.startswith(error.name):
                    return place, ".".join(parts[cut:])  # something else is missing: who imports it says so
    if len(parts) == 2 or _is_module(parts[0]):
        return parts[0], ".".join(parts[1:])
    return ".".join(parts[:-1]), parts[-1]


def _is_module(name: str) -> bool:
    with _importable_from(Path.cwd()):
        return bool(name) and importlib.util.find_spec(name) is not None


def _module_of_name(place: str, target: str) -> ModuleType:
    with _importable_from(Path.cwd()):
        try:
            return importlib.import_module(place)
        except ModuleNotFoundError as error:
            raise ValueError(f"cannot import {place!r} of {target!r} from {Path.cwd()}: {error}") from None
        except Exception as error:  # what somebody's module does when it is imported
            raise ValueError(f"cannot import {place!r}: {with_class(error, place=True)}") from error


def _module_of_file(path: Path) -> ModuleType:
    path = path.resolve()
    name = f"{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickling look a class's module up there
    with _importable_from(path.parent):
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            raise ValueError(f"cannot import {path.name}: {with_class(error, place=True)}") from error
    return module


@contextmanager
def _importable_from(folder: Path) -> Iterator[None]:
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))

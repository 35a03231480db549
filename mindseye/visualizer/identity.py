"""What a value is, as a sha256: two values of equal settings, weights and code have the same, in any process."""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType
from typing import Any

import numpy as np
import torch
from torch import Tensor

# Packages whose code is told by its version, which `mindseye.visualizer.checkpoints.PROGRAM` has.
KNOWN_PACKAGES = ("builtins", "abc", "typing", "torch", "pytorch_lightning", "mindseye")
HUNG_ON = ("log", "log_dict")  # what Lightning puts on callbacks when a fit begins
ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def identity(*values: object) -> str:
    """sha256 (hex) over plain values, tensors, functions and objects, by what is in them.

    Of a function it is the code, its defaults and what it has closed over; of an object its class, the code of a class
    of the user's own, and its attributes; of what has a `fingerprint()`, that.
    """
    digest = hashlib.sha256()
    for part in _parts(values, ()):
        digest.update(f"{len(part)}:".encode() + part)
    return digest.hexdigest()


def _parts(value: Any, within: tuple[int, ...]) -> Iterator[bytes]:
    if id(value) in within:  # it holds itself
        yield b"itself"
        return
    within = (*within, id(value))
    if value is None or isinstance(value, bool | int | float | complex | str | bytes | Path | slice | range):
        yield f"{type(value).__name__} {value!r}".encode(errors="surrogatepass")
    elif isinstance(value, Tensor | np.ndarray):
        tensor = torch.as_tensor(value).detach().cpu().contiguous()
        yield f"tensor {tensor.dtype} {list(tensor.shape)}".encode()
        yield tensor.reshape(-1).view(torch.uint8).numpy().tobytes()
    elif isinstance(value, Mapping):
        yield f"mapping {len(value)}".encode()
        for key, inner in value.items():
            yield from _parts(key, within)
            yield from _parts(inner, within)
    elif isinstance(value, Sequence | set | frozenset):
        yield f"{type(value).__name__} {len(value)}".encode()
        for inner in sorted(value, key=repr) if isinstance(value, set | frozenset) else value:
            yield from _parts(inner, within)
    elif isinstance(value, partial):
        yield b"partial"
        yield from _parts((value.func, value.args, value.keywords), within)
    elif isinstance(value, type):
        yield _name(value)
        for kind in value.__mro__:
            if not _is_known(kind):
                functions = {name: member for name, member in vars(kind).items() if isinstance(member, FunctionType)}
                yield from _parts(functions, within)
    elif isinstance(value, FunctionType):
        yield _name(value)
        if not _is_known(value):
            yield from _code(value.__code__)
            closed = [cell.cell_contents for cell in value.__closure__ or () if not _is_empty(cell)]
            yield from _parts((value.__defaults__, value.__kwdefaults__, closed), within)
    elif isinstance(value, MethodType):
        yield from _parts((value.__func__, value.__self__), within)
    elif callable(getattr(value, "fingerprint", None)):
        yield value.fingerprint().encode()
    elif isinstance(value, BuiltinFunctionType) or not hasattr(value, "__dict__"):
        yield ADDRESS.sub("", repr(value)).encode()
    else:
        own = {name: member for name, member in vars(value).items() if name not in HUNG_ON}
        yield from _parts((type(value), own), within)


def _name(made: Any) -> bytes:
    return f"{made.__module__}.{made.__qualname__}".encode()


def _is_known(made: Any) -> bool:
    return str(made.__module__).partition(".")[0] in KNOWN_PACKAGES


def _is_empty(cell: Any) -> bool:
    try:
        return cell.cell_contents is cell
    except ValueError:
        return True


def _code(code: CodeType) -> Iterator[bytes]:
    """What a function does, wherever its file lies."""
    yield code.co_code
    yield repr((code.co_names, code.co_varnames)).encode()
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _code(constant)
        else:
            yield repr(constant).encode(errors="surrogatepass")

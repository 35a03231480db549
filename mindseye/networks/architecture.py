"""How a network computes, beside its weights, as one hash."""

import functools
import hashlib
import inspect
import marshal
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from mindseye.networks.modules import every_module, saved_tensors, tensors
from mindseye.provenance import file_sha256
from mindseye.tensors import tensors_sha256


def architecture(body: nn.Module) -> str:
    """sha256 of how a network computes, beside its weights: its modules, their settings, the files they come from, and
    in what precision and order its weights lie (the fingerprint of a prepared network is the original's).

    Buffers that are not saved count by their content, as do a module's public attributes that are tensors, numbers or
    texts. Functions that a module's file imports from elsewhere, and other attributes that it does not print, are not
    seen.
    """
    # Where a module prints a function, the address of that is not the architecture's.
    parts = [f"{place}: {type(module).__name__}({module.extra_repr()})" for place, module in every_module(body)]
    printed = "\n".join([str(body), *parts])  # the parts too: a module may say of itself whatever it likes
    digest = hashlib.sha256(re.sub(r" at 0x[0-9a-f]+", "", printed).encode())
    saved = saved_tensors(body)
    for name, weight in saved.items():
        digest.update(f"{name} {weight.dtype} {weight.stride()}\n".encode())
    for name, buffer in tensors(body):
        if name not in saved:
            digest.update(f"{name} {tensors_sha256({name: buffer})}\n".encode())
    for place, module in every_module(body):
        for name, value in vars(module).items():
            if not name.startswith("_"):
                content = tensors_sha256({name: value}) if isinstance(value, Tensor) else _plain(value)
                digest.update(f"{place}.{name} {content}\n".encode())
    sources: set[str] = set()
    for _, module in every_module(body):
        generated = None
        with suppress(Exception):  # a property of other people's classes
            generated = getattr(module, "code", None)  # torch.fx's and torch.jit's modules are their own source
        if isinstance(generated, str):
            digest.update(generated.encode())
        kind: Any = type(module)  # hashable, which mypy denies of a metaclass's class
        sources.add(_source_sha256(kind))
    digest.update("".join(sorted(sources)).encode())
    return digest.hexdigest()


def _plain(value: object) -> str:
    """A number, a text, or a list of such; anything else says nothing."""
    if value is None or isinstance(value, bool | int | float | str):
        return repr(value)
    if isinstance(value, list | tuple):
        return f"({', '.join(map(_plain, value))})"
    return ""


@functools.cache  # what runs is the class as it was when it was read, whatever becomes of its file meanwhile
def _source_sha256(kind: type[nn.Module]) -> str:
    try:
        file = inspect.getfile(kind)
        return file_sha256(file) or Path(file).name
    except (TypeError, OSError):  # a class written in a notebook
        return hashlib.sha256(marshal.dumps(kind.forward.__code__)).hexdigest()

"""Somebody else's modules: walked, frozen, put in evaluation mode, copied, and left as they were after a probe."""

import copy
import inspect
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes

_NOTHING = object()
# Devices on which every write is seen: on others torch's own kernels may write where they said that they read
# (pytorch/pytorch pull request 150569, of MPS).
_COPIED_WHEN_WRITTEN = ("cpu", "cuda", "meta")
_DEEPEST, _LONGEST = 5, 1000  # levels of containers, and entries of one, that are looked into


def every_module(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The module and all parts of it, each once, by path, through no method that somebody's class may have overridden.

    >>> [path for path, _ in every_module(nn.Sequential(nn.Sequential(nn.ReLU())))]
    ['', '0', '0.0']
    """
    seen: set[nn.Module] = set()
    waiting = [("", module)]
    while waiting:
        path, part = waiting.pop()
        if part not in seen:
            seen.add(part)
            yield path, part
            inner = [(f"{path}.{name}" if path else name, child) for name, child in part._modules.items()]
            waiting += [(name, child) for name, child in reversed(inner) if child is not None]


def children(module: nn.Module) -> dict[str, nn.Module]:
    """The parts of a module that lie in no other part of it, each once, by name."""
    seen: dict[nn.Module, str] = {}
    for name, part in module._modules.items():
        if part is not None:
            seen.setdefault(part, name)
    return {name: part for part, name in seen.items()}


def part_at(module: nn.Module, path: str) -> nn.Module:
    """The part at a path, "" the module itself. Raises AttributeError where there is none."""
    return nn.Module.get_submodule(module, path)


def freeze(module: nn.Module) -> None:
    """No parameter of the module asks for a gradient, whatever its own `requires_grad_` and `parameters` do."""
    for _, part in every_module(module):
        for parameter in part._parameters.values():
            if parameter is not None:
                parameter.requires_grad_(False)


def evaluate(module: nn.Module) -> None:
    """Evaluation mode for the module and all its parts, by their flag alone.

    train() and eval() are not called: a class may have made of them what it likes (its training, say), and may keep
    dropout on. Raises ValueError, with its name, for a part that is in training mode all the same.
    """
    for _, part in every_module(module):
        part.training = False
    for path, part in every_module(module):
        if part.training:
            raise ValueError(
                f"{path or 'the network'} ({type(part).__name__}) stays in training mode: its class has a `training` "
                "of its own; let train() and eval() keep to nn.Module's"
            )


def apply_to_tensors(module: nn.Module, change: Callable[[Tensor], Tensor]) -> None:
    """As nn.Module's own `_apply`, for the module and all its parts: `change` gives what each tensor becomes.

    A class's `_apply` is called too where it is meant for this, to take along tensors that are not registered.
    """
    for _, part in every_module(module):
        nn.Module._apply(part, change, recurse=False)
    for _, part in every_module(module):
        own = type(part)._apply
        if own is not nn.Module._apply and [*inspect.signature(own).parameters][1:2] == ["fn"]:
            part._apply(change)


def tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Every parameter and buffer by name, those that are saved before those that are not, each name once.

    What state_dict() has for an ordinary module comes first and in its order, but through no method that somebody's
    class may have overridden or an attribute may stand in the way of (a dictionary called `parameters`, say).

    >>> [name for name, _ in tensors(nn.Sequential(nn.Conv2d(3, 4, 1)))]
    ['0.weight', '0.bias']
    """
    unsaved = []
    for path, part in every_name(module):
        for name, tensor in (*part._parameters.items(), *part._buffers.items()):
            if tensor is None:
                continue
            entry = (f"{path}.{name}" if path else name, tensor)
            if name in part._non_persistent_buffers_set:
                unsaved.append(entry)
            else:
                yield entry
    yield from unsaved


def saved_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Those of `tensors` that are saved: what state_dict() is of an ordinary module."""
    unsaved = {
        f"{path}.{name}" if path else name
        for path, part in every_name(module)
        for name in part._non_persistent_buffers_set
    }
    return {name: tensor.detach() for name, tensor in tensors(module) if name not in unsaved}


def every_name(module: nn.Module, path: str = "") -> Iterator[tuple[str, nn.Module]]:
    """As `every_module`, a part that has several names under each of them."""
    yield path, module
    for name, part in module._modules.items():
        if part is not None:
            yield from every_name(part, f"{path}.{name}" if path else name)


def memory(tensor: Tensor) -> int:
    """Which memory the numbers of a tensor lie in, by a number of its own that stays.

    Not by data_ptr(), which is for writing: it has memory copied that is only to be when it is written (see `_copied`).
    """
    return tensor.untyped_storage()._cdata


@contextmanager
def replaced(module: nn.Module, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """What `change` gives stands in the place of every parameter and buffer, for as long as it lasts."""
    registered: list[tuple[Any, dict[str, Tensor | None]]] = [
        (own, dict(own)) for _, part in every_module(module) for own in (part._parameters, part._buffers)
    ]
    made: dict[Tensor, Tensor] = {}
    try:
        for own, before in registered:
            for name, tensor in before.items():
                if tensor is not None:
                    made[tensor] = made[tensor] if tensor in made else change(tensor)
                    own[name] = made[tensor]
        yield
    finally:
        for own, before in registered:
            own.clear()
            own.update(before)


@contextmanager
def as_it_was(body: nn.Module) -> Iterator[None]:
    """Whatever a pass leaves on the module or its parts, it is taken off again at the end.

    That is, attributes (features that are kept for later, what is built at the first call), also of their classes and
    of objects of the owner's own that they hold, what is in lists and dictionaries of any depth, the values of
    parameters, buffers and other tensors, and parameters that were put in the place of others. Not what generators of
    random numbers have drawn. A pass that writes into none of its tensors copies none of them (see `_copied`).
    """
    kept = _Kept()
    try:
        with _disable_current_modes():  # what is copied here is not what the pass reads
            for _, part in every_module(body):
                kept.add(part)
            kept.copy_tensors()
        yield
    finally:
        with _disable_current_modes():
            kept.restore()


class _Kept:
    """What stands on modules, and in what stands there."""

    def __init__(self) -> None:
        self._modes: list[tuple[nn.Module, bool]] = []
        self._attributes: list[tuple[dict[str, Any], dict[str, Any]]] = []
        self._registered: list[tuple[Any, dict[str, Tensor | None]]] = []
        self._copies: dict[int, Tensor] = {}
        self._data: list[tuple[nn.Parameter, Tensor]] = []
        self._classes: dict[type, dict[str, Any]] = {}
        self._held = Held()

    def add(self, part: nn.Module) -> None:
        self._modes.append((part, part.training))
        kind = type(part)
        self._registered += [(own, dict(own)) for own in (part._parameters, part._buffers)]
        self._data += [(parameter, parameter.data) for parameter in part._parameters.values() if parameter is not None]
        if kind.__module__.startswith("torch.nn.modules.") and not part._modules:  # which keep nothing
            return
        self._attributes.append((vars(part), dict(vars(part))))
        self._held.add_attributes(part)
        for base in kind.__mro__:
            if _is_somebodys(base) and base not in self._classes:
                own = {name: value for name, value in vars(base).items() if not name.startswith("__")}
                self._classes[base] = own
                for value in own.values():
                    self._held.add(value, base)

    def copy_tensors(self) -> None:
        """What the pass writes, it writes into copies. Whether it does is not counted: BatchNorm, say, leaves no trace
        in a tensor's version, nor does what is written through `.data` or NumPy, or at the hundredth pass only."""
        for own, before in self._registered:
            for name, tensor in before.items():
                if tensor is not None:
                    if id(tensor) not in self._copies:
                        self._copies[id(tensor)] = _copied(tensor)
                    own[name] = self._copies[id(tensor)]
        self._held.copy_tensors()

    def restore(self) -> None:
        for part, mode in self._modes:
            if part.training != mode:
                part.training = mode
        for now, attributes in self._attributes:
            for name in now.keys() - attributes.keys():
                del now[name]
            now.update({name: value for name, value in attributes.items() if now.get(name, _NOTHING) is not value})
        self._held.restore()
        for base, own in self._classes.items():
            for name in [name for name in vars(base) if not name.startswith("__") and name not in own]:
                delattr(base, name)
            for name, value in own.items():
                if vars(base).get(name, _NOTHING) is not value:
                    setattr(base, name, value)
        for own, before in self._registered:
            own.clear()
            own.update(before)
        for parameter, data in self._data:
            if (memory(parameter), parameter.storage_offset()) != (memory(data), data.storage_offset()):
                parameter.data = data


def _copied(tensor: Tensor) -> Tensor:
    """A tensor of the same values, whose memory torch copies when one of the two is written, if ever, and not here.

    Of a parameter a parameter, with what somebody has put on it. A class of somebody's own, and memory that torch has
    not allocated (NumPy's, a mapped file's, another process's), are copied at once.
    """
    if type(tensor) is Tensor:
        return _later_copied(tensor)
    if type(tensor) is nn.Parameter:
        copied = nn.Parameter(_later_copied(tensor), tensor.requires_grad)
    elif isinstance(tensor, nn.Parameter):
        try:
            copied = copy.deepcopy(tensor)
        except Exception:  # a class of somebody's own, whose constructor takes something else
            copied = nn.Parameter(tensor.detach().clone(), tensor.requires_grad)
            copied.__class__ = type(tensor)
    else:
        return tensor.clone()
    vars(copied).update(vars(tensor))
    return copied


def _later_copied(tensor: Tensor) -> Tensor:
    values = tensor.detach()
    if values.device.type in _COPIED_WHEN_WRITTEN:
        with suppress(RuntimeError, NotImplementedError):  # memory that is not torch's, or no plain one
            return torch.ops.aten._lazy_clone(values)
    return values.clone()


class Held:
    """What attributes hold: containers and what is in them, objects of the owner's own, and tensors."""

    def __init__(self) -> None:
        self.tensors: list[tuple[Tensor, Any, Any]] = []  # and where each is found
        self._contents: list[tuple[Any, Any]] = []
        self._arrays: list[tuple[np.ndarray, np.ndarray]] = []
        self._seen: set[int] = set()

    def add_attributes(self, part: nn.Module) -> None:
        for name, value in vars(part).items():
            if name in ("_parameters", "_modules"):  # as they are registered, but not what is in them
                self._contents.append((value, copy.copy(value)))
            elif name != "_buffers" and not _is_torchs(name):
                self.add(value, type(part), vars(part), name)

    def add(self, value: Any, owner: type, holder: Any = None, key: Any = None, depth: int = 0) -> None:
        """owner: the class of the module on which it stands, or in whose attributes it is found. holder: what has it
        under that key, where another value can be put."""
        if isinstance(value, str | bytes | int | float | nn.Module | nn.Parameter | type) or id(value) in self._seen:
            return
        self._seen.add(id(value))
        inner: Iterable[tuple[Any, Any]] = ()
        inside: Any = None
        if isinstance(value, Tensor):
            self.tensors.append((value, holder, key))
        elif isinstance(value, np.ndarray):
            self._arrays.append((value, value.copy()))
        elif isinstance(value, tuple):
            inner = enumerate(value)
        elif isinstance(value, dict):
            self._contents.append((value, dict(value)))
            inner, inside = list(value.items()), value
        elif isinstance(value, list | set | deque):
            self._contents.append((value, set(value) if isinstance(value, set) else list(value)))
            inner, inside = enumerate(list(value)), None if isinstance(value, set) else value
        elif isinstance(value, SimpleNamespace) or (_is_somebodys(type(value)) and _root(type(value)) == _root(owner)):
            attributes = getattr(value, "__dict__", None)
            if type(attributes) is dict:
                self._contents.append((attributes, dict(attributes)))
                inner, inside = list(attributes.items()), attributes
        if depth < _DEEPEST:
            for name, item in itertools.islice(inner, _LONGEST):
                self.add(item, owner, inside, name, depth + 1)

    def copy_tensors(self) -> None:
        """The pass writes into copies. A gradient may need these when it is over."""
        for tensor, holder, key in self.tensors:
            if holder is not None:
                holder[key] = _later_copied(tensor)

    def restore(self) -> None:
        for value, before in self._contents:
            if not _same(value, before):
                value.clear()
                (value.update if isinstance(value, dict | set) else value.extend)(before)
        for array, before in self._arrays:
            if not np.array_equal(array, before, equal_nan=array.dtype.kind in "fc"):
                array[...] = before


def in_single(body: nn.Module) -> nn.Module:
    """A deep copy in float32, also of a module that keeps results of its last pass, which torch does not copy."""
    held = Held()
    registered = set()
    for _, part in every_module(body):
        held.add_attributes(part)
        registered |= {id(buffer) for buffer in part._buffers.values()}
    memo: dict[int, Any] = {
        id(tensor): (tensor.detach().float() if tensor.is_floating_point() else tensor.detach()).clone()
        for tensor, *_ in held.tensors
        if id(tensor) not in registered
    }
    single = copy.deepcopy(body, memo)
    apply_to_tensors(single, lambda tensor: tensor.float() if tensor.is_floating_point() else tensor)
    return single


def _is_somebodys(kind: type) -> bool:
    """Whether a class is neither torch's nor Python's."""
    return _root(kind) not in ("torch", "builtins", "abc", "typing")


def _root(kind: type) -> str:
    return kind.__module__.partition(".")[0]


def _same(value: Any, before: Any) -> bool:
    """Whether a container holds the same objects."""
    if len(value) != len(before):
        return False
    if isinstance(value, dict):
        return all(key in before and before[key] is value[key] for key in value)
    return value == before if isinstance(value, set) else all(a is b for a, b in zip(value, before, strict=True))


def _is_torchs(name: str) -> bool:
    """Whether an attribute is one that nn.Module keeps for itself: its hooks."""
    return name in vars(_PLAIN)


_PLAIN = nn.Module()

"""Somebody else's modules: walked, frozen, put in evaluation mode, copied, and left as they were after a probe."""

import copy
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

_PARTS = ("_parameters", "_buffers", "_modules")  # where torch keeps what it registers
_NOTHING = object()


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
            inner = [(f"{path}.{name}" if path else name, one) for name, one in part._modules.items()]
            waiting += [(name, one) for name, one in reversed(inner) if one is not None]


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


@contextmanager
def as_it_was(body: nn.Module) -> Iterator[None]:
    """Whatever a pass leaves on the module or its parts, it is taken off again at the end.

    That is, its attributes (features that are kept for later, what is built at the first call), what is in its lists
    and dictionaries, and the values of its buffers. torch's own modules, which keep nothing, are passed over.
    """
    kept = []
    modes = [(part, part.training) for _, part in every_module(body)]
    for part, _ in modes:
        if type(part).__module__.startswith("torch.nn.modules.") and not part._modules:
            continue
        attributes = dict(vars(part))
        contents = [
            (value, copy.copy(value))
            for name, value in attributes.items()
            if type(value) in (list, dict, set, deque) and (name in _PARTS or not _is_torchs(name))
        ]
        versions = {
            name: (buffer._version, buffer.clone())
            for name, buffer in part._buffers.items()
            if buffer is not None and not buffer.is_inference()
        }
        kept.append((part, attributes, contents, versions))
    try:
        yield
    finally:
        for part, mode in modes:
            if part.training != mode:
                part.training = mode
        for part, attributes, contents, versions in kept:
            now = vars(part)
            for name in now.keys() - attributes.keys():
                del now[name]
            now.update({name: value for name, value in attributes.items() if now.get(name, _NOTHING) is not value})
            for value, before in contents:
                if not _same(value, before):
                    value.clear()
                    (value.update if isinstance(value, dict | set) else value.extend)(before)
            for name, (version, before) in versions.items():
                # Another tensor, since a gradient may still need the one that was written into.
                written = part._buffers[name]
                if written is not None and written._version != version:
                    part._buffers[name] = before


def in_single(body: nn.Module) -> nn.Module:
    """A deep copy in float32, also of a module that keeps results of its last pass, which torch does not copy."""
    with as_it_was(body):
        _change_kept(body, lambda tensor: tensor.detach() if tensor.grad_fn is not None else tensor)
        single = copy.deepcopy(body)
    nn.Module.float(single)  # not the class's own, which may be anything
    _change_kept(single, lambda tensor: tensor.float() if tensor.is_floating_point() else tensor)
    return single


def _change_kept(body: nn.Module, change: Callable[[Tensor], Tensor]) -> None:
    """Change the tensors that stand on a module or its parts and are no parameters or buffers."""
    for _, part in every_module(body):
        for name, value in list(vars(part).items()):
            if not _is_torchs(name):
                vars(part)[name] = _changed(value, change)


def _changed(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return change(value)
    if type(value) in (list, tuple, deque):
        return type(value)(_changed(one, change) for one in value)
    if type(value) is dict:
        return {name: _changed(one, change) for name, one in value.items()}
    return value


def _same(value: Any, before: Any) -> bool:
    """Whether a container holds the same objects."""
    if len(value) != len(before):
        return False
    if isinstance(value, dict):
        return all(one in before and before[one] is value[one] for one in value)
    return value == before if isinstance(value, set) else all(a is b for a, b in zip(value, before, strict=True))


def _is_torchs(name: str) -> bool:
    """Whether an attribute is one that nn.Module keeps for itself: its hooks."""
    return name in vars(_PLAIN)


_PLAIN = nn.Module()

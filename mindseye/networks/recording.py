"""What one layer answers: a forward pass that ends at the target layer and keeps gradients."""

import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, fx, nn

from mindseye.networks.chance import seeded
from mindseye.networks.layers import resolve_layer
from mindseye.networks.modules import as_it_was, every_module, part_at
from mindseye.words import called


class _HasBody(Protocol):
    """What `record` needs of a network: see `mindseye.networks.loading.Network`."""

    body: nn.Module

    def __call__(self, images: Tensor) -> Tensor: ...


@contextmanager
def record(
    network: _HasBody, layer: str, previous: str | None = None, way: Sequence[str] = ()
) -> Iterator["Tape"]:
    """Open a tape on one layer: `with record(network, "layer3.5.conv1") as tape: target = tape(images)`.

    `network` is one of `load_network`, `layer` and `previous` are names that `resolve_layer` knows. The previous layer
    is by default the tensor that enters the target module; named, it is that module's last output before the target (or
    its call `name@i`). `way` names further layers before the target, whose outputs the same pass keeps.

    Hooks stand on the network only while `tape(images)` runs, so tapes on one network may be open side by side, and
    none is left behind after an exception. After the `with` the tape still holds its last tensors but runs no more.

    Raises ValueError for an unknown layer.
    """
    tape = Tape(network, layer, previous, way)
    try:
        yield tape
    finally:
        tape.close()


class Tape:
    """The last pass over a layer: `target` [B,D,H',W'] (or [B,D], [B,T,D]: what the layer gives), `previous`, `way`.

    `record` makes it, for a `network`, a `layer` and, where they are named, a `previous` layer and those on the way.
    """

    target: Tensor | None
    previous: Tensor | None
    way: tuple[Tensor, ...]  # in the order in which the layers were named
    call: int | None  # which of the module's calls `target` is, counted from 0
    joined: bool  # whether `previous` is several maps that enter the target, joined along their channels

    def __init__(self, network: _HasBody, layer: str, previous: str | None, way: Sequence[str] = ()) -> None:
        self.target = None
        self.previous = None
        self.way = ()
        self.call = None
        self.joined = False
        self._network = network
        self._layer = layer
        self._previous_layer = previous
        self._path, self._call = resolve_layer(network.body, layer)
        self._module = part_at(network.body, self._path)
        self._previous_path: str | None = None
        self._previous_call: int | None = None
        if previous is not None:
            self._previous_path, self._previous_call = resolve_layer(network.body, previous)
        self._way = {name: resolve_layer(network.body, name) for name in way}
        self._open = True

    def __call__(self, images: Tensor) -> Tensor:
        """Run images [B,ch,H,W] in 0..1 up to the target layer and return its output; nothing after it is computed.

        Raises ValueError where the layer is not reached, gives no tensor, or the previous layer does not come first.
        """
        if not self._open:
            raise ValueError("the tape is closed: call it inside its `with record(...)`")
        self.target = self.previous = None
        self.way = ()
        key = (self._path, self._previous_path, self._previous_call, *self._way)
        plan = _plan(self._network.body, self._module, key)
        if self._call is None and plan.calls is None:
            plan.calls = _count_by_tracing(self._network.body, self._module)
            plan.calls = plan.calls or _count_by_running(self._network, self._module, images)
        passing = self._run(images, plan)
        if self._call is None and not passing.reached and passing.calls not in (0, plan.calls):
            # the number of calls depends on the images, or the network has changed since it was counted
            plan.calls = passing.calls
            passing = self._run(images, plan)
        if passing.reached and passing.overwritten():
            # a module writes into the previous layer's tensor: from now on keep a copy of it
            plan.keep_copy = True
            passing = self._run(images, plan)
        self._check(passing)
        self.target, self.previous = passing.target, passing.previous
        self.way = tuple(passing.way[name] for name in self._way)
        self.joined = passing.joined
        self.call = passing.calls - 1
        return self.target

    def close(self) -> None:
        """No more passes; the last tensors stay readable."""
        self._open = False

    def _run(self, images: Tensor, plan: "_Plan") -> "_Pass":
        last = plan.calls - 1 if plan.calls else None
        passing = _Pass(self._call if self._call is not None else last, self._previous_call, plan.keep_copy)
        # The target's hook comes first: where both are one module, the target's own call is no previous call.
        handles = [nn.Module.register_forward_hook(self._module, passing.after_target)]
        try:
            if self._previous_path is None:
                before = nn.Module.register_forward_pre_hook(self._module, passing.before_target, with_kwargs=True)
                handles.append(before)
            else:
                module = part_at(self._network.body, self._previous_path)
                handles.append(nn.Module.register_forward_hook(module, passing.after_previous))
            for name, (path, call) in self._way.items():
                module = part_at(self._network.body, path)
                handles.append(nn.Module.register_forward_hook(module, _OnTheWay(passing, name, call)))
            with as_it_was(self._network.body):
                self._network(images)
        except _Reached as stop:
            if stop.passing is not passing:
                raise
        finally:
            for handle in handles:
                handle.remove()
        return passing

    def _check(self, passing: "_Pass") -> None:
        if not passing.reached:
            if passing.calls == 0:
                raise ValueError(f"layer {self._layer!r} takes no part in the forward pass: name one that is called")
            raise ValueError(
                f"layer {self._layer!r}: {self._path!r} is called {passing.calls} times in one pass, "
                f"the last is {self._path}@{passing.calls - 1}"
            )
        if not isinstance(passing.target, Tensor):
            raise ValueError(
                f"layer {self._layer!r} gives {called(passing.target)}, not one tensor: name a layer inside it"
            )
        for name in self._way:
            if name not in passing.way:
                raise ValueError(
                    f"layer {name!r} on the way has not given one tensor when {self._layer!r} is reached: name layers "
                    "before the target"
                )
        if self._previous_layer is None:
            return
        if not passing.previous_seen:
            raise ValueError(
                f"previous layer {self._previous_layer!r} has not run when {self._layer!r} is reached: "
                "name a layer before the target"
            )
        if passing.previous is None:
            raise ValueError(f"previous layer {self._previous_layer!r} gives no single tensor: name a layer inside it")


class _Reached(BaseException):
    """Ends the forward pass at the target. Not an Exception, so that no network's own `except` swallows it."""

    def __init__(self, passing: "_Pass") -> None:
        super().__init__()
        self.passing = passing


class _Pass:
    """The hooks of one forward pass and what they saw."""

    def __init__(self, stop_at: int | None, previous_at: int | None, keep_copy: bool) -> None:
        self.calls = 0
        self.reached = False
        self.target: Any = None
        self.previous: Tensor | None = None
        self.previous_seen = False
        self.joined = False
        self.way: dict[str, Tensor] = {}
        self._stop_at = stop_at
        self._previous_at = previous_at
        self._previous_calls = 0
        self._keep_copy = keep_copy
        self._versions: list[tuple[Tensor, int]] = []

    def before_target(self, module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        if self.calls == self._stop_at:
            first, self.joined = _first_tensor((*arguments, *named.values()))
            self._keep(first)

    def after_target(self, module: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
        self.calls += 1
        if self.calls - 1 == self._stop_at:
            self.target = output
            self.reached = True
            raise _Reached(self)

    def after_previous(self, module: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
        if self._previous_at is None or self._previous_calls == self._previous_at:
            self.previous_seen = True
            self._keep(output if isinstance(output, Tensor) else None)
        self._previous_calls += 1

    def overwritten(self) -> bool:
        """Has someone written into one of the tensors since it was seen?"""
        return any(tensor._version != version for tensor, version in self._versions)

    def kept(self, tensor: Tensor) -> Tensor:
        """The tensor itself, watched, or a copy of it."""
        if self._keep_copy or tensor.is_inference():  # an inference tensor does not count its writes
            return tensor.clone()
        self._versions.append((tensor, tensor._version))
        return tensor

    def _keep(self, tensor: Tensor | None) -> None:
        self.previous = None if tensor is None else self.kept(tensor)


class _OnTheWay:
    """The hook of one layer on the way: keeps its output, the last or that of one call."""

    def __init__(self, passing: _Pass, name: str, call: int | None) -> None:
        self._passing, self._name, self._call = passing, name, call
        self._calls = 0

    def __call__(self, module: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
        if self._call in (None, self._calls) and isinstance(output, Tensor):
            self._passing.way[self._name] = self._passing.kept(output)
        self._calls += 1


def _first_tensor(arguments: tuple[Any, ...]) -> tuple[Tensor | None, bool]:
    """The first tensor among a module's arguments, and whether it is a list of maps (DenseNet) that was joined.

    Maps of one size are joined along their channels; of several sizes the first is taken.
    """
    for argument in arguments:
        if isinstance(argument, Tensor):
            return argument, False
        if isinstance(argument, list | tuple) and argument and all(isinstance(part, Tensor) for part in argument):
            same_map = len({(part.shape[0], *part.shape[2:]) for part in argument}) == 1
            if same_map and argument[0].ndim > 1:
                return torch.cat(list(argument), dim=1), True
            return argument[0], False
    return None, False


# ---- how often a module is called in one pass -------------------------------------------------------------------


@dataclass
class _Plan:
    """What is known of a target after its first pass."""

    module: "weakref.ref[nn.Module]"
    calls: int | None = None  # in one pass; None: not known
    keep_copy: bool = False  # the previous layer's tensor is written over before the target is there


_PLANS: "weakref.WeakKeyDictionary[nn.Module, dict[tuple[Any, ...], _Plan]]" = weakref.WeakKeyDictionary()


def _plan(body: nn.Module, target: nn.Module, key: tuple[Any, ...]) -> _Plan:
    plans = _PLANS.setdefault(body, {})
    plan = plans.get(key)
    if plan is None or plan.module() is not target:
        plan = plans[key] = _Plan(weakref.ref(target))
    return plan


class _CallCounter(fx.Tracer):
    """Counts the calls of one module, running only the forward methods of the modules that contain it."""

    def __init__(self, target: nn.Module) -> None:
        super().__init__()
        self.calls = 0
        self._target = target

    def call_module(self, m: nn.Module, forward: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if m is self._target:
            self.calls += 1
        elif any(part is self._target for _, part in every_module(m)):
            return forward(*args, **kwargs)
        return self.create_proxy("call_function", m.forward, args, kwargs)


class ImagesOnly(nn.Module):
    """Calls the body with its images alone, so that the body's optional arguments keep their defaults."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, images: Tensor) -> Any:
        return self.body(images)


def _count_by_tracing(body: nn.Module, target: nn.Module) -> int | None:
    """Calls of `target` in one pass, found without computing anything; None where the network cannot be traced."""
    counter = _CallCounter(target)
    try:
        with seeded(0), as_it_was(body):
            counter.trace(ImagesOnly(body))
    except Exception:  # data-dependent control flow and much else; the count then comes from a real pass
        return None
    return counter.calls or None


def _count_by_running(network: _HasBody, target: nn.Module, images: Tensor) -> int | None:
    """Calls of `target` in one whole pass over a single image."""
    calls = 0

    def count(module: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
        nonlocal calls
        calls += 1

    handle = nn.Module.register_forward_hook(target, count)
    try:
        with torch.no_grad(), seeded(0), as_it_was(network.body):
            network(images[:1])
    except Exception:
        # What comes after the target may refuse images of this size; before it, the error is the caller's to see.
        if calls == 0:
            raise
    finally:
        handle.remove()
    return calls or None

"""A network's program straight from the images to a layer, written down by running the network once on no numbers."""

import contextlib
import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from mindseye.networks.chance import seeded
from mindseye.networks.folding import is_normalisation
from mindseye.networks.layers import resolve_layer
from mindseye.networks.modules import as_it_was, every_module, part_at
from mindseye.networks.recording import ImagesOnly, Tape


def straight_program(
    body: nn.Module, layer: str, previous: str | None, way: tuple[str, ...], tape: Tape, keep_copy: bool
) -> fx.GraphModule:
    """The program from the body's images to (target, previous, way), with weights of its own."""
    path, _ = resolve_layer(body, layer)
    before, before_call = (None, None) if previous is None else resolve_layer(body, previous)
    between = {name: resolve_layer(body, name) for name in way}
    tracer = _PathTracer(
        part_at(body, path),
        tape.call,
        None if before is None else part_at(body, before),
        before_call,
        {name: (part_at(body, path), call) for name, (path, call) in between.items()},
        tape.joined,
    )
    with contextlib.suppress(_Reached), as_it_was(body), seeded(0):
        tracer.trace(ImagesOnly(body))
    if not isinstance(tracer.reached, fx.Proxy) or (tape.previous is not None) != isinstance(tracer.before, fx.Proxy):
        raise ValueError("the layer gives no single tensor")
    graph = tracer.graph
    kept = [] if tape.previous is None else [tracer.before.node]
    kept += [tracer.on_the_way[name].node for name in way]
    if keep_copy:  # a later module writes over them
        for place, node in enumerate(kept):
            with graph.inserting_after(node):
                kept[place] = graph.call_function(torch.clone, (node,))
    entering = None if tape.previous is None else kept.pop(0)
    graph.output((tracer.reached.node, entering, tuple(kept)))
    # Without the tracer, which knows one network: a program is pickled together with what traced it.
    plain = fx.Graph()
    plain.output(plain.graph_copy(graph, {}))
    plain.lint()
    # The copy holds the modules on the way alone: fx takes over what the program names.
    return copy.deepcopy(fx.GraphModule(tracer.root, plain))


def own_gradient_of(answers: Sequence[Tensor | None]) -> str | None:
    """The name of an autograd.Function of somebody's own that the answers were computed with.

    A tracer writes down what it does forward, and loses the gradient that it is there for.
    """
    waiting: list[Any] = [answer.grad_fn for answer in answers if isinstance(answer, Tensor)]
    seen = {None}
    while waiting:
        if (node := waiting.pop()) in seen:
            continue
        seen.add(node)
        own = getattr(type(node), "_forward_cls", None)
        if own is not None and not own.__module__.startswith("torch."):
            return own.__name__
        waiting += [earlier for earlier, _ in node.next_functions]
    return None


class _Reached(BaseException):
    """Ends tracing at the target."""


class _PathTracer(fx.Tracer):
    """Traces a body up to one call of one module and remembers what enters it, or what another module gave before, and
    what the modules on the way gave."""

    def __init__(
        self,
        target: nn.Module,
        call: int,
        previous: nn.Module | None,
        previous_call: int | None,
        way: Mapping[str, tuple[nn.Module, int | None]],
        joined: bool,
    ) -> None:
        super().__init__()
        self._joined = joined
        self.reached: fx.Proxy | None = None
        self.before: fx.Proxy | None = None
        self.on_the_way: dict[str, fx.Proxy] = {}
        self._target, self._call = target, call
        self._previous, self._previous_call = previous, previous_call
        self._way = way
        self._named = {target, *(module for module, _ in way.values())} | (set() if previous is None else {previous})
        self._calls: dict[nn.Module, int] = dict.fromkeys(self._named, 0)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        # The named layers must be seen from outside, and what holds them from inside.
        if any(inner in self._named for _, inner in every_module(m) if inner is not m):
            return False
        return is_normalisation(m) or super().is_leaf_module(m, module_qualified_name)

    def call_module(self, m: nn.Module, forward: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if m not in self._named:
            return super().call_module(m, forward, args, kwargs)
        call = self._calls[m]
        self._calls[m] += 1
        is_target = m is self._target and call == self._call
        if is_target and self._previous is None:
            self.before = _entering((*args, *kwargs.values()), self._joined)
        out = super().call_module(m, forward, args, kwargs)
        if is_target:
            self.reached = out
            raise _Reached
        if m is self._previous and self._previous_call in (None, call):
            self.before = out
        for name, (module, wanted) in self._way.items():
            if m is module and wanted in (None, call):
                self.on_the_way[name] = out
        return out


def _entering(arguments: tuple[Any, ...], joined: bool) -> fx.Proxy | None:
    """What enters a module, as the tape saw it: its first tensor, a list of maps of one size (DenseNet) joined."""
    for argument in arguments:
        if isinstance(argument, fx.Proxy):
            return argument
        if isinstance(argument, list | tuple) and argument and all(isinstance(part, fx.Proxy) for part in argument):
            return torch.cat(list(argument), dim=1) if joined else argument[0]
    return None

"""A network made ready to be run thousands of times: only what leads to the target layer, and that as fast as it goes.

What is done, and what each costs or gains, is measured in docs/performance.md. None of it changes what the target
layer means: the prepared network is compared with the network itself before it is handed out.
"""

import contextlib
import copy
import io
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from mindseye.networks.chance import seeded
from mindseye.networks.frozen_convolution import FrozenConv2d
from mindseye.networks.layers import resolve_layer
from mindseye.networks.maps import Layout
from mindseye.networks.modules import as_it_was, evaluate, every_module, freeze, part_at, tensors
from mindseye.networks.network import Network, check_network, checksum
from mindseye.networks.recording import ImagesOnly, Tape, record
from mindseye.networks.tf32 import tf32
from mindseye.networks.weights import Reading
from mindseye.settings import Precision
from mindseye.words import with_class

DTYPES = {"float32": torch.float32, "tf32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
GRADIENT_TOP = 2.0**4  # the largest of a picture's gradients at the layer in float16, which reaches from 6e-8 to 65504
TOLERANCE = 1e-4  # relative, of the prepared network's answers to the network's own
_FOLDS = {
    (nn.Conv1d, nn.BatchNorm1d): fuse_conv_bn_eval,
    (nn.Conv2d, nn.BatchNorm2d): fuse_conv_bn_eval,
    (nn.Conv3d, nn.BatchNorm3d): fuse_conv_bn_eval,
    (nn.Linear, nn.BatchNorm1d): fuse_linear_bn_eval,
}
_WEIGHTED = {*(weighted for weighted, _ in _FOLDS), FrozenConv2d}  # what takes its weights in another precision
log = logging.getLogger(__name__)


class Answers(NamedTuple):
    """What a prepared network gives for images: the tensors as their modules give them."""

    target: Tensor  # of the layer it was prepared for
    previous: Tensor | None  # what enters that layer, or another one's output before it
    way: tuple[Tensor, ...] = ()  # of the layers on the way, in their order


class Named(NamedTuple):
    """The exact names of the layers that a network is prepared for."""

    target: str
    previous: str | None
    way: tuple[str, ...]
    early: str | None  # one more before the target, which may be on the way

    @property
    def recorded(self) -> tuple[str, ...]:
        """The layers before the target whose answers are kept: those on the way, then the early one if it is none."""
        return self.way if self.early is None or self.early in self.way else (*self.way, self.early)


class PreparedNetwork(nn.Module):
    """A network cut off after one layer: images [B,ch,H,W] in 0..1 -> `Answers`.

    It has what the rooms ask of a `Network`: `name`, `channels`, `size`, `layers`, `classes`, `prefix_tokens`, `mean`,
    `std`, `resolve`, `fingerprint`. `layer`, `previous`, `way` and `early` are the exact names it was prepared for;
    `folded` is the number of BatchNorms folded; `traced`, whether it runs as one straight program (else by hooks on the
    whole network).
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: Network,
        straight: fx.GraphModule | None,
        named: Named,
        *,
        channels_last: bool,
        folded: int,
    ) -> None:
        """Use `prepare`."""
        super().__init__()
        self.name, self.channels, self.size = network.name, network.channels, network.size
        self.layers, self.classes = network.layers, network.classes
        self.prefix_tokens = network.prefix_tokens
        self.register_buffer("mean", network.mean.clone())
        self.register_buffer("std", network.std.clone())
        self.layer, self.previous, self.way, self.early = named
        self._recorded = named.recorded
        self.traced = straight is not None
        self.folded = folded
        self.precision: Precision = "float32"
        self.compiled = False
        self._channels_last = channels_last
        self._fingerprint = network.fingerprint()
        self._layouts = {name: network.layout(name) for name in (self.layer, *self._recorded)}
        # Without a straight program the whole network stays, and hooks end the pass at the layer.
        self.body = network if straight is None else straight
        self._run: Any = None
        self._program: list[nn.Module] = []  # in a list, since it is no part of it
        self._beginning: list[nn.Module] = []  # as well: up to the early layer
        freeze(self)
        evaluate(self)

    def forward(self, images: Tensor) -> Answers:
        """What the layers give for images [B,ch,H,W] in 0..1: target and previous in float32 whatever the network
        computes in, the layers on the way as they were computed.

        Raises ValueError for another number of channels.
        """
        return self._answered(images)[0]

    def with_early(self, images: Tensor) -> tuple[Answers, Tensor | None]:
        """The same, and what the early layer gives in the same pass; None where none was asked for."""
        return (self(images), None) if self.early is None else self._answered(images)

    def _answered(self, images: Tensor) -> tuple[Answers, Tensor | None]:
        self.check(images)
        count = len(images)
        odd = images.requires_grad and images.device.type == "cpu" and count % 2
        with self.arithmetic():
            # oneDNN takes other kernels for odd batches, with other last digits. Even ones agree to the bit, so that
            # facets come out the same however many of them are drawn together.
            target, previous, recorded = self._computed(torch.cat([images, images[-1:]]) if odd else images)
        if odd:
            target, previous = target[:count], None if previous is None else previous[:count]
            recorded = tuple(answer[:count] for answer in recorded)
        early = None if self.early is None else recorded[self._recorded.index(self.early)]
        return Answers(target, previous, recorded[: len(self.way)]), early

    @torch.no_grad()
    def look_early(self, images: Tensor) -> Tensor:
        """The early layer's answer to images [B,ch,H,W] in 0..1, without gradient; nothing after it is computed.

        Raises ValueError for another number of channels, and where no early layer was asked for.
        """
        self.check(images)
        if self.early is None:
            raise ValueError(f"{self.name} is prepared without an early layer: prepare the network again")
        count = len(images)
        if images.device.type == "cpu" and count % 2:  # the same kernels as in `forward`
            images = torch.cat([images, images[-1:]])
        dtype = DTYPES[self.precision]
        with self.arithmetic(), torch.autocast(images.device.type, dtype, enabled=dtype is not torch.float32):
            if self.traced:
                return self._up_to_early()(self.entering(images))[:count]
            with record(self.body, self.early) as tape:
                return tape(images)[:count]

    def arithmetic(self) -> AbstractContextManager[None]:
        """How a GPU computes its float32, whatever torch is told elsewhere; a pass back is to be made inside of it."""
        return tf32(self.precision == "tf32")

    def check(self, images: Tensor) -> None:
        """Raises ValueError where these are not images [B,ch,H,W] of the network's channels."""
        if images.ndim != 4 or images.shape[1] != self.channels:
            raise ValueError(f"{self.name} takes images [B,{self.channels},H,W]; these are {list(images.shape)}")

    def entering(self, images: Tensor) -> Tensor:
        """What enters the traced program for images [B,ch,H,W] in 0..1: normalised, laid out as its weights are."""
        images = (images - self.mean) / self.std
        return images.contiguous(memory_format=torch.channels_last) if self._channels_last else images

    def _computed(self, images: Tensor) -> Answers:
        if DTYPES[self.precision] is torch.float32:
            with torch.autocast(images.device.type, enabled=False):
                return self._answers(images)
        if self.precision == "bfloat16":
            with torch.autocast(images.device.type, torch.bfloat16):
                target, previous, way = self._answers(images)
            return Answers(target.float(), None if previous is None else previous.float(), way)
        scale = _Scale()
        with torch.autocast(images.device.type, torch.float16):
            target, previous, way = self._answers(_ScaledBack.apply(images, scale))
        # In float32 before the gradient is scaled, so that on its way back it is scaled before it is rounded.
        entering = () if previous is None else (previous.float(),)
        scaled = _ScaledUp.apply(scale, len(images), target.float(), *entering, *(answer.float() for answer in way))
        return Answers(scaled[0], scaled[1] if entering else None, tuple(scaled[1 + len(entering) :]))

    def _answers(self, images: Tensor) -> Answers:
        if not self.traced:
            with record(self.body, self.layer, self.previous, self._recorded) as tape:
                return Answers(tape(images), tape.previous, tape.way)
        return Answers(*(self.body if self._run is None else self._run)(self.entering(images)))

    def program(self) -> nn.Module:
        """What leads to the target, without what is recorded on the way: the same whatever is. It shares its weights.

        A network that runs by hooks is its own program.
        """
        if not self.traced:
            return self.body
        if not self._program:
            self._program.append(self._part(lambda outputs: (*outputs[:2], ())))
        return self._program[0]

    def _up_to_early(self) -> nn.Module:
        """What leads to the early layer."""
        if not self._beginning:
            place = self._recorded.index(str(self.early))
            self._beginning.append(self._part(lambda outputs: outputs[2][place]))
        return self._beginning[0]

    def _part(self, of: Callable[[Any], Any]) -> nn.Module:
        """The program without what leads to none of these outputs, `of` all; it shares the weights."""
        graph = fx.Graph()
        graph.output(of(graph.graph_copy(self.body.graph, {})))
        program = fx.GraphModule(self.body, graph)
        program.graph.eliminate_dead_code()
        program.recompile()
        return program

    def train(self, mode: bool = True) -> "PreparedNetwork":
        """Stays in evaluation mode."""
        evaluate(self)
        return self

    def __repr__(self) -> str:
        """One line for a prompt; `network.body` prints its modules."""
        return f"<PreparedNetwork {self.name} up to {self.layer}, {'traced' if self.traced else 'by hooks'}>"

    def __getstate__(self) -> dict[str, Any]:
        # What torch.compile wrote is this process's own: whoever gets the network compiles it anew.
        return {**self.__dict__, "_run": None, "_program": [], "_beginning": [], "compiled": False}

    def resolve(self, layer: str | None = None, depth: str | None = None) -> str:
        """The layer it is prepared for. Raises ValueError where another one is asked for."""
        asked = layer if layer is not None else self.layers.get(depth or "")
        if asked in self._recorded:
            return asked
        if asked not in (self.layer, self.layer.partition("@")[0], self.previous):
            raise ValueError(f"{self.name} is prepared for layer {self.layer}, not {asked}: prepare the network again")
        return self.layer if asked != self.previous else asked

    def layout(self, layer: str, side: int | None = None) -> Layout | None:
        """As `Network.layout`, for the layers that it was prepared for."""
        layout = self._layouts.get(layer)
        if layout is None and isinstance(self.body, Network) and layer in self._layouts:
            return self.body.layout(layer, side)  # it may take no images of its own size, but these
        return layout

    def fingerprint(self) -> str:
        """The original network's: what is seen does not depend on how it is computed."""
        return self._fingerprint

    def in_precision(self, precision: Precision) -> "PreparedNetwork":
        """The same network, computing in `precision`; itself where it does already.

        tf32 is float32 with NVIDIA's TF32 in convolutions, 10 bits of the mantissa's 23; float32 itself on a device
        without it. In bfloat16 and float16 convolutions and matrix products take their weights in that precision once;
        everything else runs under autocast, which keeps sums and normalisations in float32. float16 has the gradient
        scaled inside, so that callers need no gradient scaler.
        """
        if precision not in DTYPES:
            raise ValueError(f"precision must be one of {', '.join(DTYPES)}, not {precision}")
        if precision == self.precision:
            return self
        if self.precision != "float32":
            raise ValueError(f"the network is in {self.precision} already: prepare it again for {precision}")
        other = copy.deepcopy(self) if self.traced else copy.copy(self)
        if self.traced:
            for module in other.body.modules():
                if type(module) in _WEIGHTED:
                    module.to(DTYPES[precision])
        other.precision = precision
        return other

    def compile(self) -> "PreparedNetwork":
        """Have torch.compile write the network's program (CUDA graphs on a GPU); the first pass then takes a minute.

        Raises ValueError where the network could not be traced.
        """
        if not self.traced:
            raise ValueError(f"{self.name} cannot be traced up to {self.layer}, nor compiled: give compile=false")
        if not self.compiled:
            mode = "reduce-overhead" if self.mean.device.type == "cuda" else "default"
            self._run = torch.compile(self.body, mode=mode, dynamic=False)
            self.compiled = True
        return self


def prepare(
    network: Network | PreparedNetwork,
    layer: str,
    previous: str | None = None,
    way: Sequence[str] = (),
    early: str | None = None,
    *,
    fold: bool = True,
    channels_last: bool = True,
) -> PreparedNetwork:
    """Cut the network off after `layer`, fold its BatchNorms into convolutions and lay its weights out channels last.

    Names are as in `record`. A BatchNorm whose convolution's own output is one of these layers stays, as
    does one whose convolution is used twice or feeds something else too. `early` is one more layer before the target,
    that `PreparedNetwork.look_early` ends at; it may be on the way. The network itself is left as it is; the traced
    one shares nothing with it, so that the parts past the layer can be let go.

    A network whose program depends on its images' values cannot be traced; it is then kept and run by hooks. So
    is one whose prepared answer to a probe image is off by more than TOLERANCE. A prepared network comes back as it
    is if it is for these layers. Raises ValueError for an unknown layer.
    """
    check_network(network)
    if isinstance(network, PreparedNetwork):
        asked = network.resolve(layer)
        if previous is not None and previous != network.previous:
            raise ValueError(f"{asked} is prepared without the previous layer {previous}: prepare the network again")
        if lacking := [name for name in way if name not in network.way]:
            raise ValueError(f"{asked} is prepared without {', '.join(lacking)} on the way: prepare the network again")
        if early is not None and early != network.early:
            raise ValueError(f"{asked} is prepared without the early layer {early}: prepare the network again")
        return network
    layer = network.resolve(layer)
    previous = None if previous is None else network.resolve(previous)
    way = tuple(map(network.resolve, way))
    named = Named(layer, previous, way, None if early is None else network.resolve(early))
    probe = _probe(network)
    reading = Reading(network.body, network.unloaded or ())
    watching = reading if network.unloaded else contextlib.nullcontext()
    try:
        # Programs are compared, not arithmetics: TF32 is off by ten times the tolerance.
        with torch.no_grad(), tf32(False), record(network, layer, previous, named.recorded) as tape, watching:
            with seeded(0), torch.enable_grad():
                seen = Answers(tape(probe.requires_grad_()), tape.previous, tape.way)
            own_gradient = _own_gradient((*seen[:2], *seen.way))
            right, probe = _detached(seen), probe.detach()
            _tell_what_it_depends_on(network, layer, tape, probe, right.target)
    except (RuntimeError, AssertionError, TypeError):
        reading.check(layer, network.name, whole=False)
        # It cannot look at images of its own size, so nothing could be compared; who runs it says what is wrong.
        return PreparedNetwork(network, None, named, channels_last=False, folded=0)
    reading.check(layer, network.name, whole=True)
    straight, folded, reason = None, 0, "its program depends on what is in the images"
    if own_gradient is not None:
        reason = f"{own_gradient} has a gradient of its own"
    for keep_copy in (False, True) if own_gradient is None else ():
        try:
            straight = _straight_program(network.body, layer, previous, named.recorded, tape, keep_copy)
            folded = _fold(straight) if fold else 0
            _freeze(straight)
        except Exception as error:  # a tracer meets anything a forward method may do
            log.debug("tracing %s", network.name, exc_info=True)
            straight, reason = None, with_class(error)
            break
        if channels_last:
            straight._apply(_channels_last)
        made = PreparedNetwork(network, straight, named, channels_last=channels_last, folded=folded)
        off = _difference(made, probe, right)
        if off <= TOLERANCE:
            log.debug("%s up to %s is one program: %d BatchNorms folded, off by %.1g", network.name, layer, folded, off)
            return made
        straight, reason = None, f"its answer would be off by {off:.1g}"
    log.info("%s runs as it stands, by hooks: %s", network.name, reason)
    return PreparedNetwork(network, straight, named, channels_last=False, folded=0)


def _tell_what_it_depends_on(network: Network, layer: str, tape: Tape, probe: Tensor, target: Any) -> None:
    """One warning where the answer to one image depends on chance, or on what else is in its batch."""
    if layer in network.told or not isinstance(target, Tensor) or not target.ndim or len(target) != 1:
        return
    network.told.add(layer)
    try:
        with seeded(1):
            among = tape(torch.cat([torch.ones_like(probe), probe, probe.round(), 1 - probe.round()]))
        if len(among) != 4 or _relative_difference(among[1:2], target) <= TOLERANCE:
            return
        by_chance = False
        for seed in range(2, 6):  # a draw may be the same as another
            with seeded(seed):
                by_chance = by_chance or _relative_difference(tape(probe), target) > TOLERANCE
        with seeded(0):
            by_its_own = by_chance and _relative_difference(tape(probe), target) > TOLERANCE
    except (RuntimeError, ValueError):
        return  # it takes one image at a time, say; who runs it says what is wrong
    if by_chance:
        log.warning(
            "%s answers the same image otherwise in every pass up to %s (dropout or noise in its forward): %s; give "
            "the network without it",
            network.name,
            layer,
            "it draws from a generator of its own, so that not even the same seed gives the same pictures"
            if by_its_own
            else "the same seed gives the same pictures, but no answer is the image's own",
        )
    else:
        log.warning(
            "%s answers an image by what else is in its batch up to %s (statistics of the batch?): facets depend on "
            "each other, on facets.batch_size and on facets_per_batch; give the network with statistics of its own",
            network.name,
            layer,
        )


def _relative_difference(answer: Tensor, expected: Tensor) -> float:
    """The relative difference of two tensors; infinite where they cannot be compared."""
    if answer.shape != expected.shape:
        return math.inf
    if answer.is_complex() and expected.is_complex():
        answer, expected = torch.view_as_real(answer), torch.view_as_real(expected)
    difference = (answer.double() - expected.double()).norm() / expected.double().norm().clamp(min=1e-12)
    return float(difference.nan_to_num(math.inf))


class _Scale:
    """What the gradients of one pass were multiplied by on their way back, a power of two for each picture: [B]."""

    factor: Tensor


class _ScaledUp(torch.autograd.Function):
    """The same values forward. Backward each picture's gradients times a power of two that brings their largest near
    GRADIENT_TOP, whatever objective they come from, so that they neither vanish nor overflow in float16."""

    @staticmethod
    def forward(ctx: Any, scale: _Scale, count: int, *answers: Tensor) -> tuple[Tensor, ...]:
        ctx.scale, ctx.count = scale, count
        ctx.set_materialize_grads(False)
        return tuple(answer.view_as(answer) for answer in answers)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        given = [gradient for gradient in gradients if gradient is not None]
        if all(len(gradient) == ctx.count for gradient in given):
            largest = torch.stack([gradient.flatten(1).abs().amax(dim=1) for gradient in given]).amax(dim=0)
        else:  # a layer that cuts pictures into windows: one factor for all
            largest = torch.stack([gradient.abs().amax() for gradient in given]).amax().expand(ctx.count)
        exponent = (GRADIENT_TOP / largest).log2().floor().nan_to_num(0.0, posinf=0.0, neginf=0.0)
        factor = ctx.scale.factor = exponent.clamp(-60, 60).exp2()
        return None, None, *(None if own is None else own * _along(factor, own) for own in gradients)


class _ScaledBack(torch.autograd.Function):
    """The same values forward; backward, after `_ScaledUp`, the gradient by what it was multiplied by there."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, scale: _Scale) -> Tensor:
        ctx.scale = scale
        return images.view_as(images)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient / _along(ctx.scale.factor, gradient), None


def _along(factor: Tensor, values: Tensor) -> Tensor:
    """[B] so that it multiplies [B, …]."""
    if len(values) != len(factor):
        return factor[0]
    return factor.reshape(-1, *[1] * (values.ndim - 1))


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
        return _is_normalisation(m) or super().is_leaf_module(m, module_qualified_name)

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


def _is_normalisation(module: nn.Module) -> bool:
    """A frozen BatchNorm, or timm's with an activation of its own: one step of the program, to be folded as one."""
    kind = type(module).__name__
    return kind == "FrozenBatchNorm2d" or (kind == "BatchNormAct2d" and isinstance(module, nn.BatchNorm2d))


def _straight_program(
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


def _detached(answers: Answers) -> Answers:
    target, previous, way = answers
    if isinstance(target, Tensor):
        target = target.detach()
    return Answers(target, None if previous is None else previous.detach(), tuple(answer.detach() for answer in way))


def _own_gradient(answers: Sequence[Tensor | None]) -> str | None:
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


def _fold(straight: fx.GraphModule) -> int:
    """Folds each BatchNorm that is the only reader of a convolution (or linear layer); returns how many."""
    modules = dict(straight.named_modules(remove_duplicate=False))
    called = [id(modules[node.target]) for node in straight.graph.nodes if node.op == "call_module"]
    folded = 0
    for node in list(straight.graph.nodes):
        if node.op != "call_module" or not node.args or not isinstance(node.args[0], fx.Node):
            continue
        source = node.args[0]
        if source.op != "call_module" or len(source.users) != 1 or node.kwargs or len(node.args) != 1:
            continue
        convolution, norm = modules[source.target], modules[node.target]
        if called.count(id(convolution)) != 1:
            continue
        merged = _folded(convolution, norm)
        if merged is None:
            continue
        straight.add_submodule(source.target, merged)
        modules[source.target] = merged
        if type(norm).__name__ == "BatchNormAct2d":  # timm's, whose activation (and dropout) stay
            straight.add_submodule(node.target, nn.Sequential(norm.drop, norm.act))
        else:
            node.replace_all_uses_with(source)
            straight.graph.erase_node(node)
        folded += 1
    straight.delete_all_unused_submodules()
    straight.recompile()
    return folded


def _folded(convolution: nn.Module, norm: nn.Module) -> nn.Module | None:
    """Both in one; None where they do not fit: other classes (a subclass may compute anything), batch statistics."""
    fuse = _FOLDS.get((type(convolution), type(norm)))
    if fuse is None and type(convolution) is nn.Conv2d and _is_normalisation(norm):
        fuse = fuse_conv_bn_eval
    if fuse is None or norm.running_mean is None:
        return None
    return fuse(convolution, norm)


def _freeze(straight: fx.GraphModule) -> None:
    """Puts a FrozenConv2d in the place of each convolution that it suits."""
    made: dict[nn.Module, FrozenConv2d] = {}
    for name, module in list(straight.named_modules(remove_duplicate=False)):
        if FrozenConv2d.suits(module):
            if module not in made:
                made[module] = FrozenConv2d.of(module)
            straight.add_submodule(name, made[module])


def _channels_last(tensor: Tensor) -> Tensor:
    """As `Module.to(memory_format=…)` has it, which fails where a tensor has five dimensions and leaves weights of 1×1
    kernels and of one channel as they are: they are contiguous either way, and torch reads their strides as channels
    first. Then it would compute, and hand on, gradients so."""
    return torch.empty_like(tensor, memory_format=torch.channels_last).copy_(tensor) if tensor.ndim == 4 else tensor


def _probe(network: Network) -> Tensor:
    """One image [1,ch,S,S] of uniform noise, the same every time."""
    generator = torch.Generator().manual_seed(0)
    return torch.rand(1, network.channels, network.size, network.size, generator=generator).to(network.mean.device)


@torch.no_grad()
def _difference(made: PreparedNetwork, probe: Tensor, right: Answers) -> float:
    """The largest of all tensors' relative differences; infinite where they cannot be compared, and where a pass leaves
    another program: one that writes into its weights."""
    before = [checksum(tensor) for _, tensor in tensors(made.body)]
    try:
        # fx prints what fails in its program, besides raising it
        with seeded(0), contextlib.redirect_stderr(io.StringIO()):
            given, early = made.with_early(probe)
    except Exception:
        log.debug("running %s prepared", made.name, exc_info=True)
        return float("inf")
    if [checksum(tensor) for _, tensor in tensors(made.body)] != before:
        return math.inf
    recorded = given.way if len(given.way) == len(right.way) else (*given.way, early)
    worst = 0.0
    for answer, expected in zip((*given[:2], *recorded), (*right[:2], *right.way), strict=True):
        if expected is None and answer is None:
            continue
        if expected is None or answer is None:
            return math.inf
        worst = max(worst, _relative_difference(answer, expected))
    return worst

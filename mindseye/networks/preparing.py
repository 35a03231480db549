"""A network made ready to be run thousands of times: only what leads to the target layer, and that as fast as it goes.

What is done, and what each costs or gains, is measured in docs/performance.md. None of it changes what the target
layer means: the prepared network is compared with the network itself before it is handed out.
"""

import contextlib
import copy
import io
import logging
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn

from mindseye.networks.chance import seeded
from mindseye.networks.folding import WEIGHTED, fold_norms, freeze_convolutions, in_channels_last
from mindseye.networks.maps import Layout
from mindseye.networks.modules import evaluate, freeze, tensors
from mindseye.networks.network import Network, check_network, checksum
from mindseye.networks.recording import Tape, record
from mindseye.networks.scaling import Scale, ScaledBack, ScaledUp
from mindseye.networks.tf32 import tf32
from mindseye.networks.tracing import own_gradient_of, straight_program
from mindseye.networks.weights import Reading
from mindseye.settings import Precision
from mindseye.words import with_class

DTYPES = {"float32": torch.float32, "tf32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
TOLERANCE = 1e-4  # relative, of the prepared network's answers to the network's own
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
        scale = Scale()
        with torch.autocast(images.device.type, torch.float16):
            target, previous, way = self._answers(ScaledBack.apply(images, scale))
        # In float32 before the gradient is scaled, so that on its way back it is scaled before it is rounded.
        entering = () if previous is None else (previous.float(),)
        scaled = ScaledUp.apply(scale, len(images), target.float(), *entering, *(answer.float() for answer in way))
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
                if type(module) in WEIGHTED:
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
            own_gradient = own_gradient_of((*seen[:2], *seen.way))
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
            straight = straight_program(network.body, layer, previous, named.recorded, tape, keep_copy)
            folded = fold_norms(straight) if fold else 0
            freeze_convolutions(straight)
        except Exception as error:  # a tracer meets anything a forward method may do
            log.debug("tracing %s", network.name, exc_info=True)
            straight, reason = None, with_class(error)
            break
        if channels_last:
            straight._apply(in_channels_last)
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


def _detached(answers: Answers) -> Answers:
    target, previous, way = answers
    if isinstance(target, Tensor):
        target = target.detach()
    return Answers(target, None if previous is None else previous.detach(), tuple(answer.detach() for answer in way))


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

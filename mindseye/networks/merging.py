"""Several layers of one network answered in one pass: what their programs have in common is computed once.

Nothing is approximated: each layer's answer comes of the same operations on the same weights as in its own program, and
is compared with it, bit for bit, before the merged network is handed out.
"""

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves

from mindseye.networks.maps import Layout
from mindseye.networks.modules import evaluate, freeze, memory
from mindseye.networks.preparing import PreparedNetwork
from mindseye.words import with_class

log = logging.getLogger(__name__)


class MergedNetwork(nn.Module):
    """A network cut off after several layers: images [B,ch,H,W] in 0..1 -> the target of each of `layers`, float32.

    It is for looking, not for drawing: no gradient passes through it. It shares its weights with the prepared networks
    it was made of.
    """

    def __init__(self, networks: Sequence[PreparedNetwork], body: fx.GraphModule) -> None:
        """Use `merge`."""
        super().__init__()
        self.first = networks[0]  # whose normalisation and order in memory are those of all
        self.name = self.first.name
        self.body = body
        self.layers = tuple(network.layer for network in networks)
        self._layouts = {network.layer: network.layout(network.layer) for network in networks}
        freeze(self)
        evaluate(self)

    @property
    def mean(self) -> Tensor:
        """[ch,1,1], on the network's device."""
        return self.first.mean

    def layout(self, layer: str, side: int | None = None) -> Layout | None:
        """As `Network.layout`."""
        return self._layouts.get(layer)

    @torch.no_grad()
    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """One target for each of `layers`, in their order. Raises ValueError for another number of channels."""
        self.first.check(images)
        with self.first.arithmetic(), torch.autocast(images.device.type, enabled=False):
            return self.body(self.first.entering(images))


def merge(networks: Sequence[PreparedNetwork], size: int) -> MergedNetwork | None:
    """One program out of several prepared networks of one network, each for a layer of its own.

    Two steps are one where they are the same operation with the same arguments on the same values, and the modules or
    tensors they name are equal bit for bit. A convolution that is a target keeps its BatchNorm behind it and is folded
    with it on the way to a deeper layer: then both stand in the program. A step that writes into what others still read
    writes into a copy.

    The program is compared with each network's own on a noise image of `size` pixels. A layer whose answer would not be
    the same to the last bit, or whose program cannot be followed, is left out of `layers`, and the log says why; None
    where no layer is left. Raises ValueError for networks that are not of one network, run by hooks, are compiled or
    not in float32.
    """
    if not networks:
        return None
    for network in networks:
        if not network.traced or network.compiled or network.precision != "float32":
            raise ValueError(f"{network.name} up to {network.layer} is no float32 program: it cannot be merged")
        if network.fingerprint() != networks[0].fingerprint():
            raise ValueError(f"{network.name} up to {network.layer} is another network than {networks[0].name}")
    probe = torch.rand(1, networks[0].channels, size, size, generator=torch.Generator().manual_seed(0))
    probe = probe.to(networks[0].mean.device)
    program, followed, rights = _Program(), [], []
    for network in networks:
        try:
            run = _Run(network)
            rights.append(run(probe))
        except Exception as error:  # other people's modules, and images that are too small for them
            log.debug("following %s up to %s", network.name, network.layer, exc_info=True)
            _leave_out(network, with_class(error))
            continue
        followed.append(network)
        program.add(network, run)
    if not followed:
        return None
    merged = MergedNetwork(followed, program.finished())
    equal = [_same(answer, right) for answer, right in zip(merged(probe), rights, strict=True)]
    if all(equal):
        return merged
    for network, same in zip(followed, equal, strict=True):
        if not same:
            _leave_out(network, "its answer would not be the same to the last bit")
    return merge([network for network, same in zip(followed, equal, strict=True) if same], size)


def share_weights(network: PreparedNetwork, known: dict[str, Tensor]) -> None:
    """Have a traced network use the weights in `known` (by name in its program) where they equal its own to the bit.

    What is not yet in `known` is put there. Many prepared networks of one network then need little more memory than
    one.
    """
    for name, weight in (*network.body.named_parameters(), *network.body.named_buffers()):
        if _same(weight, known.setdefault(name, weight)):
            weight.data = known[name].data


def _leave_out(network: PreparedNetwork, reason: str) -> None:
    log.info("%s: layer %s is not merged with others (%s)", network.name, network.layer, reason)


class _Run(fx.Interpreter):
    """One pass through one program that watches which steps write into their arguments, and which tensors are views.

    `written`: by the step that writes, the earlier steps that name the tensor it writes into, the argument itself
    first. `fresh`: the steps whose tensor lies in memory of its own.
    """

    def __init__(self, network: PreparedNetwork) -> None:
        super().__init__(network.body)
        self.written: dict[fx.Node, list[fx.Node]] = {}
        self.fresh: set[fx.Node] = set()
        self._network = network
        self._order = {node: place for place, node in enumerate(network.body.graph.nodes)}
        self._weights = {memory(weight) for weight in (*network.body.parameters(), *network.body.buffers())}

    @torch.no_grad()
    def __call__(self, probe: Tensor) -> Tensor:
        """The target for the probe. Raises ValueError where a step writes in a way that cannot be followed."""
        with self._network.arithmetic(), torch.autocast(probe.device.type, enabled=False):
            return self.run(self._network.entering(probe))[0]

    def run_node(self, n: fx.Node) -> Any:
        """As `fx.Interpreter` has it."""
        inputs = [(node, self.env[node]) for node in n.all_input_nodes]
        before = [_versions(value) for _, value in inputs]
        result = super().run_node(n)
        written = [node for (node, value), was in zip(inputs, before, strict=True) if _versions(value) != was]
        if written:
            self.written[n] = self._names_of(written, result, n)
        # A step that writes gives the memory it was given: whose that is was said when it was given.
        elif n.op not in ("placeholder", "get_attr", "output") and isinstance(result, Tensor):
            taken = self._weights | {memory(part) for _, value in inputs for part in _tensors(value)}
            if memory(result) not in taken:
                self.fresh.add(n)
        return result

    def _names_of(self, written: list[fx.Node], result: Any, writer: fx.Node) -> list[fx.Node]:
        argument = self.env[written[0]]
        if len(written) > 1 or not isinstance(argument, Tensor) or not _is_alias(result, argument):
            raise ValueError(f"{writer.format_node()} writes into more than the tensor it gives back")
        names = [written[0]]
        for node, value in self.env.items():
            read_later = any(self._order[user] > self._order[writer] for user in node.users)
            if node in written or not read_later or memory(argument) not in map(memory, _tensors(value)):
                continue
            if not _is_alias(value, argument):
                raise ValueError(f"{writer.format_node()} writes into a tensor of which {node} is a view")
            names.append(node)
        return names


class _Program:
    """A merged program as it grows: in it every step gives a value that no later step changes."""

    def __init__(self) -> None:
        self._graph = fx.Graph()
        self._images = self._graph.placeholder("images")
        self._targets: list[fx.Node] = []
        self._steps: dict[tuple[object, ...], fx.Node] = {}  # by operation and arguments
        self._root: dict[str, Any] = {}  # what the steps name
        self._names: dict[str, list[str]] = {}  # a module's name in its own program -> its versions' in this one
        self._writers: dict[fx.Node, fx.Node] = {}  # -> the step whose value it would write into
        self._fresh: set[fx.Node] = set()

    def add(self, network: PreparedNetwork, run: _Run) -> None:
        """Append what one layer needs beside what there is."""
        value: dict[fx.Node, fx.Node] = {}  # what a step of its own program gives, at this point of that
        for node in network.body.graph.nodes:
            if node.op == "placeholder":
                value[node] = self._images
                continue
            if node.op == "output":
                self._targets.append(value[node.args[0][0]])
                continue
            arguments = fx.map_arg(node.args, value.__getitem__)
            named = fx.map_arg(node.kwargs, value.__getitem__)
            target = node.target
            if node.op in ("call_module", "get_attr"):
                target = self._placed(target, _named(network.body, target))
            # Printed, since 1 == 1.0 == True, and steps print as names, each of which there is once.
            key = (node.op, target, repr(arguments), repr(named))
            step = self._steps.get(key)
            if step is None:
                step = self._steps[key] = self._graph.create_node(node.op, target, arguments, named, node.name)
                if node in run.fresh:
                    self._fresh.add(step)
                if node in run.written:
                    self._writers[step] = value[run.written[node][0]]
            value[node] = step
            for name in run.written.get(node, ()):  # from here on they mean what was written
                value[name] = step

    def finished(self) -> fx.GraphModule:
        """The whole, without the steps that lead to no target; to be asked for once."""
        self._graph.output(tuple(self._targets))
        for step in reversed(list(self._graph.nodes)):
            if not step.users and step.op not in ("placeholder", "output"):
                self._graph.erase_node(step)
        kept = set(self._graph.nodes)
        for writer, argument in self._writers.items():
            if writer in kept and (len(argument.users) > 1 or not self._is_fresh(argument)):
                with self._graph.inserting_before(writer):
                    copy = self._graph.call_function(torch.clone, (argument,))
                writer.replace_input_with(argument, copy)
        self._graph.lint()
        named = {step.target for step in self._graph.nodes if step.op in ("call_module", "get_attr")}
        return fx.GraphModule({name: self._root[name] for name in named}, self._graph)

    def _is_fresh(self, step: fx.Node) -> bool:
        # What a writer gives is memory of its own: where it would not be, it has been given a copy.
        return step in self._fresh or step in self._writers

    def _placed(self, name: str, part: Any) -> str:
        """The name in this program of a module or tensor; the same one for equal ones of the same name."""
        versions = self._names.setdefault(name, [])
        for version in versions:
            if _same(self._root[version], part):
                return version
        # Flat, so that no module of one program comes to lie inside one of another.
        versions.append(f"{name.replace('.', '_')}_{len(self._root)}")
        self._root[versions[-1]] = part
        return versions[-1]


def _named(body: nn.Module, path: str) -> Any:
    part: Any = body
    for name in path.split("."):
        part = getattr(part, name)
    return part


def _same(first: Any, second: Any) -> bool:
    """Equal bit for bit, and lying in memory alike: sums over a map depend on the order of it."""
    if first is second:
        return True
    if type(first) is not type(second):
        return False
    if isinstance(first, Tensor):
        alike = (first.dtype, first.shape, first.stride(), first.device) == (
            second.dtype, second.shape, second.stride(), second.device,
        )  # fmt: skip
        # Equal bits, not numbers: 0 is -0 and NaN is not NaN.
        return alike and torch.equal(_bits(first), _bits(second))
    if isinstance(first, nn.Module):
        mine, others = (dict([*part.named_parameters(), *part.named_buffers()]) for part in (first, second))
        return (
            str(first) == str(second)
            and first.training == second.training
            and mine.keys() == others.keys()
            and all(_same(weight, others[name]) for name, weight in mine.items())
        )
    return False


def _bits(tensor: Tensor) -> Tensor:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)


def _tensors(value: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]


def _versions(value: Any) -> list[int]:
    """How often each tensor was written into."""
    return [tensor._version for tensor in _tensors(value)]


def _is_alias(value: Any, other: Tensor) -> bool:
    """The same elements in the same order."""
    return isinstance(value, Tensor) and (value.data_ptr(), value.dtype, value.shape, value.stride()) == (
        other.data_ptr(), other.dtype, other.shape, other.stride(),
    )  # fmt: skip

"""Which layers lie on the way to a target layer, so that a picture can be held to what photographs do there."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mindseye.networks.chance import seeded
from mindseye.networks.maps import as_maps
from mindseye.networks.modules import children, part_at
from mindseye.networks.network import Network
from mindseye.networks.recording import record
from mindseye.words import with_class

log = logging.getLogger(__name__)
Way = Sequence[str] | Literal["auto"]
OF_EACH_RESOLUTION = 2  # blocks that are taken of each resolution
OF_ONE_RESOLUTION = 4  # where there is but one: a transformer's blocks all have maps of one size


@dataclass(frozen=True)
class _Step:
    """One call of one module before the target."""

    name: str  # with its call, name@i, where there are several
    side: int  # of its map
    is_block: bool  # more than one operation, or an activation


def layers_on_the_way(network: Network, layer: str) -> tuple[str, ...]:
    """The layers on the way to `layer`, in the order of the pass: of each resolution the last block and one half-way.

    Of the first, whose maps are the largest, the last alone. Blocks are the outermost modules that end before the
    target begins, the children of whatever holds the target; an nn.Sequential or a list among them counts as its own
    children, and of single operations only activations are blocks, unless a resolution has nothing else. So what enters
    the target, or is nearest to it, is always taken. Where all maps are of one size (a transformer) OF_ONE_RESOLUTION
    blocks at even depths are. None, (), where nothing with a map comes before the target.

    It takes one pass of one image of the network's own size; where that fails there are none, and a warning says so.
    Raises ValueError for an unknown layer.
    """
    steps = _steps(network, network.resolve(layer))
    of_side: dict[int, list[int]] = {}
    for place, step in enumerate(steps):
        of_side.setdefault(step.side, []).append(place)
    taken = []
    for number, places in enumerate(of_side.values()):
        blocks = [place for place in places if steps[place].is_block] or places[-1:]
        wanted = OF_ONE_RESOLUTION if len(of_side) == 1 else 1 if number == 0 else OF_EACH_RESOLUTION
        count = min(wanted, len(blocks))
        taken += [blocks[len(blocks) * (share + 1) // count - 1] for share in range(count)]
    return tuple(steps[place].name for place in sorted(taken))


def resolve_way(network: Network, layer: str, way: Way) -> tuple[str, ...]:
    """The exact names of the layers on the way: `auto` finds them, names are looked up.

    Raises ValueError for an unknown name and for the target itself.
    """
    if way == "auto":
        return layers_on_the_way(network, layer)
    if isinstance(way, str):
        raise ValueError(f"matching.layers={way}: auto, or a list of layers before the target, [layer1, layer2]")
    names = tuple(dict.fromkeys(network.resolve(name) for name in way))
    if network.resolve(layer) in names:
        raise ValueError(f"matching.layers: {layer} is the target; name layers before it, or auto")
    return names


def resolve_early(network: Network, layer: str, early: str) -> str:
    """The exact name of the layer that pictures are anchored at: `auto` is the first on the way.

    Raises ValueError for an unknown name, for the target itself, and where there is nothing on the way.
    """
    if early != "auto":
        name = network.resolve(early)
        if name == network.resolve(layer):
            raise ValueError(f"anchor.layer: {layer} is the target; name a layer before it, or auto")
        return name
    way = layers_on_the_way(network, layer)
    if not way:
        raise ValueError(
            f"anchor.layer: no layer with a map comes before {layer}, at which pictures could be held to their start: "
            "take a later target, or name a layer"
        )
    return way[0]


def _steps(network: Network, layer: str) -> list[_Step]:
    """The calls of the candidates of `layers_on_the_way` that give maps, in order."""
    path = layer.partition("@")[0]
    candidates = _frontier(network.body, path)
    calls: list[tuple[str, Any]] = []

    def begin(module: nn.Module, arguments: tuple[Any, ...]) -> None:
        calls.clear()  # a tape may run the network more than once

    def after(name: str, module: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
        calls.append((name, tuple(output.shape) if isinstance(output, Tensor) else None))

    handles = [nn.Module.register_forward_pre_hook(network.body, begin)]
    handles += [nn.Module.register_forward_hook(module, partial(after, name)) for name, module in candidates.items()]
    probe = torch.zeros(1, network.channels, network.size, network.size, device=network.mean.device)
    try:
        with torch.no_grad(), seeded(0), record(network, layer) as tape:
            tape(probe)
    except (RuntimeError, AssertionError, TypeError) as error:
        # It may take images of another size all the same.
        log.warning(
            "%s cannot look at an image of its own size, %d×%d (%s): the layers on the way to %s are not known, and "
            "none of them is matched; name them (objective.matching.layers), or give it the size that it takes",
            network.name, network.size, network.size, with_class(error), layer,
        )  # fmt: skip
        return []
    finally:
        for handle in handles:
            handle.remove()
    counts = {name: sum(other == name for other, _ in calls) for name in candidates}
    steps, seen = [], dict.fromkeys(candidates, 0)
    for name, shape in calls:
        call, seen[name] = seen[name], seen[name] + 1
        side = None if shape is None else _side(shape, name, network)
        if side is not None and side > 1:
            module = candidates[name]
            is_block = bool(children(module)) or type(module).__module__ == nn.ReLU.__module__
            steps.append(_Step(name if counts[name] == 1 else f"{name}@{call}", side, is_block))
    return steps


def _side(shape: tuple[int, ...], name: str, network: Network) -> int | None:
    """The side of the map of an output of this shape; None where it has none."""
    try:
        return as_maps(torch.empty(shape, device="meta"), name, network.layout(name)).shape[-1]
    except ValueError:
        return None


def _frontier(body: nn.Module, path: str) -> dict[str, nn.Module]:
    """The blocks that do not hold the target: children of the target's ancestors, by name.

    A Sequential is looked into, and a list of modules, which is not called itself.
    """
    frontier: dict[str, nn.Module] = {}

    def look_into(holder: str) -> None:
        for child, module in children(part_at(body, holder)).items():
            name = f"{holder}.{child}" if holder else child
            opened = (type(module) is nn.Sequential and len(module) > 0) or type(module).forward is nn.Module.forward
            if name != path and (opened or path.startswith(f"{name}.")):
                look_into(name)
            elif name != path:
                frontier[name] = module

    look_into("")
    return frontier

"""State dicts of files: their names fitted to a network, loaded whole or refused in one line."""

import logging
import re
from collections import Counter, OrderedDict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mindseye.networks.modules import every_module, every_name, memory, saved_tensors, tensors
from mindseye.networks.weight_files import Saved, StateDict
from mindseye.words import first_line, some

# what training programs put around a module, anywhere in a name: DataParallel, torch.compile, FSDP, DeepSpeed, …
_WRAPPERS = frozenset(
    ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_fpw_module", "_forward_module")
)
_AVERAGED = re.compile(r"(^|[._])(ema|swa|averaged?)([._]|$)", re.IGNORECASE)
# What is counted beside weights: batches, which files of before torch 0.4.1 do not have and converted ones have as 0,
# and what profilers (thop) leave in a module.
_COUNTS = ("num_batches_tracked", "total_ops", "total_params")

log = logging.getLogger(__name__)


def fit_names(saved: Saved, body: nn.Module, source: Path, prefix: str | None = None) -> StateDict:
    """Those of the file's tensors that are `body`'s, under the names they have there.

    They are found at any depth of the file, behind any prefix that a trainer put before the names ("model."), and with
    the words that wrap modules ("module.", "_orig_mod.") anywhere in them: where most of the body's own names stand
    with tensors of their shapes. Names that stand there too and are none of the body's stay as they are.

    prefix: the keys and the beginning of the names that lead to the right ones, joined by dots, for a file with several
    weights. Without it averaged ones ("state_dict_ema") win over those that they are the average of, and what else fits
    but worse is left, each with a warning. Raises ValueError where others fit as well, or none stand under `prefix`.
    """
    places = _places(saved, body)
    if prefix is not None:
        asked = _plain(prefix.strip("."))
        under = [place for place in places if asked in (_plain(place.shown), _plain(place.key), place.prefix)]
        if not under:
            raise ValueError(
                f"{source} has no weights of the network under prefix={prefix}; it has them under "
                f"{some([place.shown for place in places]) or 'nothing'}"
            )
        places = under
    if not places:
        return max(saved.values(), key=len)  # what does not fit is said when it is loaded
    best = places[0]
    others = [place for place in places[1:] if place.rivals(best)]
    equal = [place for place in others if place.score == best.score]
    if equal:
        averaged = [place for place in (best, *equal) if _AVERAGED.search(place.key)]
        if len(averaged) != 1 or any(place.prefix != best.prefix for place in equal):
            raise ValueError(
                f"{source} holds several weights that fit equally well, under "
                f"{some([place.shown for place in (best, *equal)])}: say which, prefix={equal[0].shown}"
            )
        others = [place for place in (best, *others) if place is not averaged[0]]
        best = averaged[0]
    if others:
        log.warning(
            "%s: the weights under %s are taken, not those under %s (prefix=%s takes these)",
            source,
            best.shown,
            some([place.shown for place in others]),
            others[0].shown,
        )
    return best.fitted(body)


@dataclass(frozen=True)
class _Place:
    """Where in a file weights of a body stand."""

    key: str  # that leads to the mapping
    prefix: str  # of the names there, without what wraps modules
    state: StateDict
    names: Mapping[str, str]  # the body's name -> the file's
    score: tuple[int, int]  # how many of the body's names have a tensor of their shape; any tensor

    @property
    def shown(self) -> str:
        """The key and the prefix, as `prefix` of `fit_names` takes them."""
        return ".".join(filter(None, (self.key, self.prefix))) or "no prefix"

    def rivals(self, best: "_Place") -> bool:
        """Whether these are other weights than the best, which might have been meant."""
        if self.score[0] * 2 < best.score[0] or self.score[0] == 0:
            return False
        if self.state is best.state and not set(self.names.values()).isdisjoint(best.names.values()):
            return False
        both = self.names.keys() & best.names.keys()
        pairs = [(self.state[self.names[own]], best.state[best.names[own]]) for own in both]
        return not all(tensor.shape == other.shape and torch.equal(tensor, other) for tensor, other in pairs)

    def fitted(self, body: nn.Module) -> StateDict:
        """The tensors under the body's names, and under theirs what else stands behind the same prefix."""
        fitted = OrderedDict((own, self.state[name]) for own, name in self.names.items())
        taken = set(self.names.values())
        # What is before the names is not always before every one: an average also counts its updates.
        begin = Counter(_beginning(name, self.prefix) for name in taken).most_common(1)[0][0]
        for name, value in self.state.items():
            if name not in taken and name.startswith(begin):
                fitted[_plain(name[len(begin) :])] = value
        if hasattr(self.state, "_metadata"):  # versions, for old files
            own = _plain_names(path for path, _ in every_module(body))
            fitted._metadata = versions = {}  # type: ignore[attr-defined]
            for path, version in self.state._metadata.items():
                if f"{_plain(path)}.".startswith(f"{self.prefix}." if self.prefix else ""):
                    inner = _plain(path)[len(self.prefix) :].removeprefix(".")
                    versions[own.get(inner, inner)] = version
        return fitted


def _places(saved: Saved, body: nn.Module) -> list[_Place]:
    """Every place in the file that has names of the body's, the best first."""
    own_state = saved_tensors(body)
    own = _plain_names(own_state)
    places = []
    for key, state in saved.items():
        behind: dict[str, dict[str, str]] = {}
        for plain, name in _plain_names(state).items():
            parts = plain.split(".")
            for cut in range(len(parts)):  # every split whose end is one of the body's names
                if (end := ".".join(parts[cut:])) in own:
                    behind.setdefault(".".join(parts[:cut]), {})[own[end]] = name
        for prefix, names in behind.items():
            counted = [(own_state[of], state[there]) for of, there in names.items() if not of.endswith(_COUNTS)]
            alike = [tensor for tensor, stored in counted if tensor.shape == stored.shape]
            places.append(_Place(key, prefix, state, names, (len(alike), len(counted))))
    return sorted(places, key=lambda place: (-place.score[0], -place.score[1], len(place.prefix), len(place.key)))


def _plain(name: str) -> str:
    """A name without what wraps modules.

    >>> _plain("module.layer1._orig_mod.0.weight")
    'layer1.0.weight'
    """
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def _plain_names(names: Iterable[str]) -> dict[str, str]:
    """Each name by its plain one; by itself where several have the same."""
    by_plain: dict[str, list[str]] = {}
    for name in names:
        by_plain.setdefault(_plain(name), []).append(name)
    return {
        plain if len(alike) == 1 else name: name for plain, alike in by_plain.items() for name in alike
    }


def _beginning(name: str, prefix: str) -> str:
    """What stands before the part of a name that is the body's: its prefix, and what wraps modules there."""
    parts = name.split(".")
    plain = len(prefix.split(".")) if prefix else 0
    end = 0
    while end < len(parts) - 1 and (plain or parts[end] in _WRAPPERS):
        plain -= parts[end] not in _WRAPPERS
        end += 1
    return "".join(f"{part}." for part in parts[:end])


def class_count(state: StateDict, body: nn.Module, built_with: int) -> int | None:
    """The classes of a fitted state dict where they differ from the `built_with` outputs of `body`, else None."""
    counts = {
        int(state[key].shape[0])
        for key, value in saved_tensors(body).items()
        if key in state
        and value.ndim > 0
        and value.shape[0] == built_with
        and state[key].shape[1:] == value.shape[1:]
        and state[key].shape[0] != built_with
    }
    return counts.pop() if len(counts) == 1 else None


def load_weights(state: StateDict, body: nn.Module, source: Path, name: str) -> frozenset[str]:
    """Load a fitted state dict into `body`; returns the names of the body's that the file has nothing for.

    Names that share their tensor with one that is there need none of their own, nor do counters, indices and masks. A
    rest that is missing, with what stands in its place in the file, is told in one warning: a head, say, which a layer
    before it does not need (`prepare` refuses the layers that do). Raises ValueError, one line with the first names
    that do not fit, where less than half of the body is there, where a shape is another, and where the file has more
    than a head of which the body knows nothing: then it is of another architecture.
    """
    own = saved_tensors(body)
    real = {key for key, one in tensors(body) if isinstance(one, nn.Parameter) and one.is_floating_point()}
    for key in own.keys() & state.keys():
        if own[key].shape != state[key].shape:
            raise ValueError(
                f"{source} does not fit {name}: {key} is {list(state[key].shape)} there, "
                f"{list(own[key].shape)} in the network"
            )
        if key in real and not state[key].is_floating_point():
            raise ValueError(
                f"{source} does not fit {name}: {key} is {str(state[key].dtype).removeprefix('torch.')} there, of a "
                "quantised network, say; give the weights as they were before"
            )
    if not hasattr(state, "_metadata"):
        # without it torch takes the file for one of its oldest formats, which some modules refuse
        state = OrderedDict(state)
        versions = {path: {"version": part._version} for path, part in every_name(body)}
        state._metadata = versions  # type: ignore[attr-defined]
    try:
        missing, unexpected = nn.Module.load_state_dict(body, state, strict=False)  # not the class's own
    except RuntimeError as error:
        raise ValueError(f"{source} does not fit {name}: {first_line(error)}") from error
    there = {_memory(own[key]) for key in state if key in own} - {None}
    missing = [key for key in missing if key in own and _is_a_weight(key, own[key]) and _memory(own[key]) not in there]
    unexpected = [key for key in unexpected if _is_a_weight(key, state[key])]
    if not missing and not unexpected:
        return frozenset()
    loaded = [key for key in own if key in state]
    filled = {key.rsplit(".", cut)[0] for key in loaded for cut in range(1, key.count(".") + 1)}
    modules = {path for path, _ in every_module(body)}
    foreign = [key for key in unexpected if not _in_an_empty_place(key, filled, modules)]
    if foreign or not missing or len(loaded) < len(missing):
        parts = [f"{some(missing)} missing in the file"] * bool(missing)
        parts += [f"{some(unexpected)} unknown to the network"] * bool(unexpected)
        raise ValueError(f"{source} does not fit {name}: {'; '.join(parts)}")
    log.warning(
        "%s lacks %s of %s%s: what is missing stays as it was made, and layers that depend on it are refused",
        source,
        some(missing),
        name,
        f", and its {some(unexpected)} is not used" if unexpected else "",
    )
    return frozenset(missing)


def _is_a_weight(name: str, tensor: Tensor) -> bool:
    """Whether a tensor has been trained: not what counts, nor an index or a mask, which a network makes by itself."""
    return (tensor.is_floating_point() or tensor.is_complex()) and not name.endswith(_COUNTS)


class Reading(TorchDispatchMode):
    """Notes which of some of a body's weights, by name, are computed with while it is active."""

    def __init__(self, body: nn.Module, lacking: Collection[str]) -> None:
        super().__init__()
        self._body, self._lacking, self._read = body, sorted(lacking), set[str]()
        self._of_memory: dict[int, str] = {}
        self._held: list[Tensor] = []
        self._handle: Any = None

    def __enter__(self) -> "Reading":
        def find(*_: Any) -> None:  # as the pass begins, since it works on copies of buffers
            lacking = [(name, tensor) for name, tensor in tensors(self._body) if name in self._lacking]
            self._of_memory = {memory(tensor): name for name, tensor in lacking}
            self._held = [tensor for _, tensor in lacking]  # or what is made later could come to lie where a copy was

        self._handle = nn.Module.register_forward_pre_hook(self._body, find)
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._handle.remove()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        for leaf in tree_leaves((args, kwargs)):
            if type(leaf) in (Tensor, nn.Parameter) and memory(leaf) in self._of_memory:
                self._read.add(self._of_memory[memory(leaf)])
        return func(*args, **dict(kwargs or {}))

    def check(self, layer: str, name: str, *, whole: bool) -> None:
        """Raises ValueError where any was read, or where the pass did not come so far that one could know."""
        if read := self._lacking if not whole else sorted(self._read):
            raise ValueError(
                f"layer {layer} depends on {some(read)}, which the file of {name}'s weights lacks: take a layer "
                "before that, or a file that has them"
            )


def _in_an_empty_place(key: str, filled: Collection[str], modules: Collection[str]) -> bool:
    """Whether an unknown name is of a head in the place of another: no weight of what it is in was in the file.

    A block more in a stage of the network is not.
    """
    parts = key.split(".")
    around = [".".join(parts[:cut]) for cut in range(1, len(parts))]
    return bool(around) and (around[0] not in filled or any(path in modules and path not in filled for path in around))


def _memory(tensor: Tensor) -> tuple[object, ...] | None:
    """What two names of one tensor have in common; None where it has no memory."""
    if tensor.device.type == "meta" or not tensor.numel():
        return None
    return tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride()

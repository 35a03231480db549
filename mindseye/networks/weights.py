"""State dicts from files: read safely, their names fitted to a network, loaded whole or refused in one line."""

import pickle
import re
import warnings
from collections import Counter, OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

STATE_DICT_FILES = (".pth", ".pt", ".th", ".bin", ".ckpt", ".safetensors")

# where training programs put the state dict inside what they save
_NESTED_UNDER = ("state_dict", "model_state_dict", "model", "net", "weights")

StateDict = Mapping[str, Tensor]


def existing_file(path: str | Path) -> Path:
    """The file, `~` expanded. Raises FileNotFoundError."""
    found = Path(path).expanduser()
    if not found.is_file():
        raise FileNotFoundError(f"there is no weights file {str(path)!r} (looked in {Path.cwd()})")
    return found


def weights_file(weights: str | Path | None) -> Path | None:
    """The file that `weights` names; None where it is None or a word such as DEFAULT. Raises FileNotFoundError."""
    if weights is None:
        return None
    looks_like_file = isinstance(weights, Path) or "/" in weights or weights.endswith(STATE_DICT_FILES)
    return existing_file(weights) if looks_like_file or Path(weights).is_file() else None


def read_state_dict(path: Path) -> StateDict:
    """The tensors of a .safetensors file or of what torch.save wrote, by name, on the CPU.

    Nothing in the file is run (weights_only=True). A state dict nested under "state_dict", "model" and the like is
    taken out. Raises ValueError where the file holds something else.
    """
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except SafetensorError as error:
            raise ValueError(f"{path} is not a whole .safetensors file: {error}") from None
    try:
        with warnings.catch_warnings():  # of a TorchScript file, which is refused below
            warnings.simplefilter("ignore", UserWarning)
            saved: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        holds = f"holds objects besides tensors ({found[1]})" if found else "is not a file of tensors"
        raise ValueError(f"{path} {holds}: save model.state_dict() alone, with torch.save or as .safetensors") from None
    except (RuntimeError, EOFError) as error:
        if "TorchScript" in str(error):
            raise ValueError(
                f"{path} is a TorchScript program: save torch.jit.load({path.name!r}).state_dict(), with torch.save"
            ) from None
        raise ValueError(f"{path} cannot be read as a state dict: {_first_line(error)}") from None
    for key in _NESTED_UNDER:
        if isinstance(saved, Mapping) and isinstance(saved.get(key), Mapping):
            saved = saved[key]
            break
    tensors = OrderedDict(_tensors(saved))
    if not tensors:
        raise ValueError(f"{path} holds no state dict: a mapping from names to tensors was expected")
    if hasattr(saved, "_metadata"):
        tensors._metadata = saved._metadata  # type: ignore[attr-defined]  # versions, for old files
    return tensors


def fit_names(state: StateDict, body: nn.Module) -> StateDict:
    """The part of `state` that is `body`'s, without the prefix a trainer put before its names ("module.", "model.").

    The prefix is the one under which most of the body's own names are found; "" where none fits better.
    """
    votes = Counter[str]()
    own = set(body.state_dict())
    for key in state:
        # every split of the key whose end is one of the body's names votes for its beginning
        parts = key.split(".")
        for cut in range(len(parts)):
            if ".".join(parts[cut:]) in own:
                votes["".join(part + "." for part in parts[:cut])] += 1
    if not votes:
        return state
    prefix = min(votes, key=lambda candidate: (-votes[candidate], len(candidate)))
    if not prefix:
        return state
    fitted = OrderedDict((key[len(prefix) :], value) for key, value in state.items() if key.startswith(prefix))
    if hasattr(state, "_metadata"):
        root, inner = prefix[:-1], len(prefix)
        fitted._metadata = {  # type: ignore[attr-defined]
            "" if key == root else key[inner:]: versions
            for key, versions in state._metadata.items()
            if key == root or key.startswith(prefix)
        }
    return fitted


def class_count(state: StateDict, body: nn.Module, built_with: int) -> int | None:
    """The classes of a fitted state dict where they differ from the `built_with` outputs of `body`, else None."""
    found = {
        int(state[key].shape[0])
        for key, value in body.state_dict().items()
        if key in state
        and value.ndim > 0
        and value.shape[0] == built_with
        and state[key].shape[1:] == value.shape[1:]
        and state[key].shape[0] != built_with
    }
    return found.pop() if len(found) == 1 else None


def load_weights(state: StateDict, body: nn.Module, source: Path, name: str) -> None:
    """Load a fitted state dict into `body`. Raises ValueError: one line with the first names that do not fit."""
    own = body.state_dict()
    for key in own.keys() & state.keys():
        if own[key].shape != state[key].shape:
            raise ValueError(
                f"{source} does not fit {name}: {key} is {list(state[key].shape)} there, "
                f"{list(own[key].shape)} in the network"
            )
    if not hasattr(state, "_metadata"):
        # without it torch takes the file for one of its oldest formats, which some modules refuse
        state = OrderedDict(state)
        state._metadata = own._metadata  # type: ignore[attr-defined]
    missing, unexpected = body.load_state_dict(state, strict=False)
    missing = [key for key in missing if not key.endswith("num_batches_tracked")]  # older files have no such counters
    if missing or unexpected:
        parts = [f"{_some(missing)} missing in the file"] * bool(missing)
        parts += [f"{_some(unexpected)} unknown to the network"] * bool(unexpected)
        raise ValueError(f"{source} does not fit {name}: {'; '.join(parts)}")


def _tensors(saved: Any) -> list[tuple[str, Tensor]]:
    if not isinstance(saved, Mapping):
        return []
    return [(key, value) for key, value in saved.items() if isinstance(key, str) and isinstance(value, Tensor)]


def _some(keys: list[str]) -> str:
    return ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]

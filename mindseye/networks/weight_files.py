"""Files of weights: found, and read into state dicts without running anything in them."""

import pickle
import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from mindseye.networks.unpickling import unknown_classes, unpickled
from mindseye.words import called, first_line, some

STATE_DICT_FILES = (".pth", ".pt", ".th", ".bin", ".ckpt", ".safetensors")
_DEEPEST = 5  # levels of mappings in a file that are looked into

StateDict = Mapping[str, Tensor]
Saved = Mapping[str, StateDict]  # the state dicts in a file, by the keys that lead to them, joined by dots


def existing_file(path: str | Path) -> Path:
    """The file, `~` expanded. Raises FileNotFoundError, and ValueError for what is no path."""
    if not isinstance(path, str | Path):
        shown = path if isinstance(path, bool) else called(path)
        raise ValueError(
            f'weights must be "DEFAULT" (the network\'s own), None (random ones) or a file of them, not {shown}'
        )
    file = Path(path).expanduser()
    if not file.is_file():
        raise FileNotFoundError(f"there is no weights file {str(path)!r} (looked in {Path.cwd()})")
    return file


def weights_file(weights: str | Path | None) -> Path | None:
    """The file that `weights` names; None where it is None or a word such as DEFAULT.

    Raises FileNotFoundError, and ValueError for what is no such thing.
    """
    if weights is None:
        return None
    looks_like_file = not isinstance(weights, str) or "/" in weights or weights.endswith(STATE_DICT_FILES)
    return existing_file(weights) if looks_like_file or Path(weights).is_file() else None


def read_state_dict(path: Path) -> Saved:
    """The tensors of a .safetensors file or of what torch.save wrote, by name, on the CPU: all mappings that have any.

    Nothing in the file is run (weights_only=True). Raises ValueError where the file holds something else.
    """
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return {"": load_file(path)}
        except SafetensorError as error:
            raise ValueError(f"{path} is not a whole .safetensors file: {error}") from None
    try:
        saved = unpickled(path)
    except Exception as error:
        raise ValueError(f"{path} {_why_not(path, error)}") from None
    held = dict(_state_dicts(saved))
    if not held and (unknown := unknown_classes(path)):
        raise ValueError(f"{path} {_holds_objects(unknown[0])}")
    if not held:
        keys = f" (its keys: {some([str(key) for key in saved])})" if isinstance(saved, Mapping) and saved else ""
        raise ValueError(f"{path} holds no state dict: a mapping from names to tensors was expected{keys}")
    return held


def _why_not(path: Path, error: Exception) -> str:
    """Why a file cannot be read, and what to save instead."""
    if "TorchScript" in str(error):
        return f"is a TorchScript program: save torch.jit.load({path.name!r}).state_dict(), with torch.save"
    refused = re.search(r"GLOBAL (\S+)", str(error))
    if refused:
        return _holds_objects(refused[1])
    if unknown := unknown_classes(path):
        return _holds_objects(unknown[0])
    if isinstance(error, pickle.UnpicklingError):
        return "is not a file of tensors: save model.state_dict() alone, with torch.save or as .safetensors"
    return f"cannot be read as a state dict: {first_line(error)}"


def _holds_objects(kind: str) -> str:
    return (
        f"holds objects besides tensors ({kind}): save model.state_dict() alone, with torch.save or as .safetensors; "
        "of a checkpoint you trust, torch.save(torch.load(FILE, weights_only=False)['state_dict'], 'weights.pth')"
    )


def _state_dicts(saved: Any, key: str = "", depth: int = 0) -> Iterator[tuple[str, StateDict]]:
    """Every mapping from names to tensors in what was saved, by the keys that lead to it."""
    if isinstance(saved, list | tuple):
        saved = {str(place): inner for place, inner in enumerate(saved)}
    if not isinstance(saved, Mapping) or depth > _DEEPEST:
        return
    named = ((name, value) for name, value in saved.items() if isinstance(name, str))
    tensors = OrderedDict((name, value) for name, value in named if isinstance(value, Tensor))
    if tensors:
        if hasattr(saved, "_metadata"):
            tensors._metadata = saved._metadata  # type: ignore[attr-defined]
        yield key, tensors
    for name, inner in saved.items():
        if isinstance(inner, Mapping | list | tuple) and not str(name).startswith("optim"):  # whose moments look alike
            yield from _state_dicts(inner, f"{key}.{name}" if key else str(name), depth + 1)

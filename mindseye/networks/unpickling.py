"""What torch.save wrote, read without running anything in it: an object of a class that torch does not know stays
unread, and stands there as what it was made of."""

import warnings
from pathlib import Path
from typing import Any

import torch


class Unread:
    """Stands for an object whose class is not imported: what it was made of, and its state, as they are in the file."""

    kind = ""  # the class or function, package.module.Name
    made_of: tuple[Any, ...]
    state: Any

    def __new__(cls, *made_of: Any) -> "Unread":
        """What pickle calls for the class or the function that it stands for."""
        unread = super().__new__(cls)
        unread.made_of, unread.state = made_of, None
        return unread

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __repr__(self) -> str:
        return f"<an unread {self.kind}>"


def unpickled(path: Path, *, mmap: bool = False) -> Any:
    """What torch.save wrote into a file, tensors on the CPU, by torch's weights_only=True.

    A class that this does not allow has a class of its own in its place that does nothing, see `Unread`. Raises what
    torch.load does, pickle.UnpicklingError where a file holds what cannot be read so.
    """
    stand_ins: list[Any] = [_stand_in(name) for name in unknown_classes(path)]
    with warnings.catch_warnings():  # of a TorchScript file, which torch.load refuses
        warnings.simplefilter("ignore", UserWarning)
        if not stand_ins:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
        with torch.serialization.safe_globals(stand_ins):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)


def unknown_classes(path: Path) -> list[str]:
    """The classes and functions in a file that torch does not know, sorted; none of a file in another format."""
    find = getattr(torch.serialization, "get_unsafe_globals_in_checkpoint", None)  # torch 2.6
    if find is None:
        return []
    try:
        return sorted(find(path))
    except Exception:  # torch.load says what is wrong with the file
        return []


def _stand_in(name: str) -> type[Unread]:
    module, _, qualified = name.rpartition(".")
    return type(qualified, (Unread,), {"__module__": module, "__qualname__": qualified, "kind": name})

"""What an interrupted fit goes on from: numbers, text and tensors in safetensors files. Nothing in them is ever run."""

import json
import logging
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytorch_lightning.plugins import CheckpointIO
from torch import Tensor

from mindseye.files import MOST_TENSOR_BYTES, read_plain, write_atomically
from mindseye.provenance import code_of, versions
from mindseye.tensors import packed, tensors_sha256, unpacked
from mindseye.words import called, on_one_line

FORMAT = 3
NAME = re.compile(r"fit-(\d+)-of-(\d+)(-.+)?\.safetensors")
ROOMS = ("networks", "facets", "visualizer")  # whose code computes a fit
# Who goes on with another program, or other libraries, may come to other bytes.
PROGRAM = json.dumps(
    {
        "code": code_of(*(str(file) for room in ROOMS for file in (Path(__file__).parents[1] / room).rglob("*.py"))),
        **versions("torch", "torchvision", "pytorch-lightning", "numpy", "kornia", "scikit-image"),
    }
)
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """Where a fit is kept while it runs, so that a new one goes on from there, to the same bytes.

    folder: for this fit alone. `key` says all that decides a bit of its pictures: network, targets and method. A
    checkpoint of another key, of another number of processes, of another version of this program or its libraries, or
    a damaged one, is deleted with one line in the log, and the fit starts anew. every_s: seconds between two
    checkpoints; it is looked at only where the host has just waited for the device. One is also written when a signal
    comes and after the last step. It stays until `discard` is called, which is right once what the fit gave is safe
    elsewhere.
    """

    folder: Path
    key: str = ""
    every_s: float = 60.0

    def file(self, part: str = "", process: int = 0, of: int = 1) -> Path:
        """A file of one of so many processes: the checkpoint itself, or a part of it."""
        return Path(self.folder) / f"fit-{process}-of-{of}{part and '-'}{part}.safetensors"

    def discard(self) -> None:
        """Delete the checkpoint, and its folder if nothing else is in it."""
        for path in (*self._files(), *Path(self.folder).glob(".fit-*.safetensors.*")):
            path.unlink(missing_ok=True)
        with suppress(OSError):
            Path(self.folder).rmdir()

    def check(self, processes: int) -> None:
        """Keep only what a fit by so many processes can go on from: see the class."""
        wrong = self._what_is_wrong(processes)
        if wrong is not None:
            log.warning("the checkpoint in %s is not used: %s; the fit starts anew", self.folder, wrong)
            self.discard()

    def _files(self) -> list[Path]:
        return [path for path in sorted(Path(self.folder).glob("fit-*")) if NAME.fullmatch(path.name)]

    def _what_is_wrong(self, processes: int) -> str | None:
        files = self._files()
        for path in files:
            of = int(NAME.fullmatch(path.name)[2])  # type: ignore[index]
            if of != processes:
                return f"it was written by {of} process{'es' * (of > 1)} and this fit takes {processes}"
            try:
                state = read_state(path, self.key)
            except ValueError as error:
                return str(error)
            for name in state.get("snapshot_files", {}).values():
                if Path(self.folder) / name not in files:
                    return f"{name} is missing"
        return None


def write_state(path: Path, key: str, state: dict[str, Any]) -> None:
    """Write a nested dict of tensors, numbers, text, lists and tuples, so that the file is whole or not there.

    Tensors are safetensors' own; the rest is JSON in their metadata, with the key and a sha256 over everything. Raises
    ValueError for a value of any other kind.
    """
    tensors: dict[str, Tensor] = {}
    packed_state = json.dumps(_packed(state, tensors))
    metadata = {"format": str(FORMAT), "key": key, "program": PROGRAM, "state": packed_state}
    metadata["sha256"] = _hash(key, packed_state, tensors)
    write_atomically(path, b"".join(packed(tensors, metadata)))


def read_state(path: Path, key: str) -> dict[str, Any]:
    """What `write_state` wrote, on the CPU. Raises ValueError where it is damaged or another fit's or program's."""
    try:
        content = read_plain(path, path.parent, MOST_TENSOR_BYTES)
        tensors, metadata = unpacked(bytearray(content))
        whole = metadata["sha256"] == _hash(metadata["key"], metadata["state"], tensors)
    except Exception as error:
        raise ValueError(f"{path.name} cannot be read ({on_one_line(error)})") from error
    if not whole:
        raise ValueError(f"{path.name} is damaged: its content is not what its sha256 says")
    if metadata["format"] != str(FORMAT) or metadata["key"] != key:
        raise ValueError(f"{path.name} is another fit's")
    if metadata.get("program") != PROGRAM:
        raise ValueError(f"{path.name} was written by another version of mindseye, torch or another library")
    return _unpacked(json.loads(metadata["state"]), tensors)


def _packed(value: Any, tensors: dict[str, Tensor]) -> Any:
    """As JSON can say it: a list is a list, everything else that is not plain an object with one key, its kind."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Tensor):
        name = str(len(tensors))
        # A copy: safetensors takes no two tensors that share memory.
        tensors[name] = value.detach().cpu().contiguous().clone()
        return {"tensor": name}
    if isinstance(value, dict):  # its keys may be numbers
        return {"dict": [[_packed(key, tensors), _packed(inner, tensors)] for key, inner in value.items()]}
    if isinstance(value, list):
        return [_packed(inner, tensors) for inner in value]
    if isinstance(value, tuple):
        return {"tuple": [_packed(inner, tensors) for inner in value]}
    raise ValueError(
        f"a checkpoint holds tensors, numbers, text, lists, tuples and dicts, and not {called(value)}: "
        "filters and optimisers must keep nothing else in their state_dict"
    )


def _unpacked(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_unpacked(part, tensors) for part in value]
    if not isinstance(value, dict):
        return value
    ((kind, inner),) = value.items()
    if kind == "tensor":
        return tensors[inner]
    if kind == "dict":
        return {_unpacked(key, tensors): _unpacked(part, tensors) for key, part in inner}
    return tuple(_unpacked(part, tensors) for part in inner)


def _hash(key: str, packed_state: str, tensors: dict[str, Tensor]) -> str:
    return tensors_sha256(tensors, json.dumps([FORMAT, key, packed_state]))


class SafetensorsIO(CheckpointIO):
    """Lightning's checkpoints by `write_state` and `read_state`, never by pickle."""

    def __init__(self, key: str) -> None:
        self.key = key

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write all that Lightning wants to keep."""
        write_state(Path(path), self.key, checkpoint)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Read it back. Raises ValueError."""
        return read_state(Path(path), self.key)

    def remove_checkpoint(self, path: Any) -> None:
        """Delete the file."""
        Path(path).unlink(missing_ok=True)

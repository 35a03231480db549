"""Tensors as bytes: their hash, and safetensors files.

Not by the package of that name, which copies everything before it writes, and again when it reads; it can read these.
"""

import hashlib
import io
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from mindseye.files import open_plain

_MOST_HEADER = 1 << 24  # bytes
_DTYPES = {
    torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.float64: "F64", torch.int64: "I64",
    torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
    torch.complex64: "C64",
}  # fmt: skip


def tensors_sha256(tensors: Mapping[str, Tensor], about: str = "") -> str:
    """sha256 (64 hex digits) over a text and every tensor's name, type, shape and bytes, whatever their order."""
    digest = hashlib.sha256(about.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(_memory_of(tensor.detach().cpu().contiguous()))
    return digest.hexdigest()


def _memory_of(tensor: Tensor) -> Any:
    """Those of a contiguous tensor of the host, where they lie."""
    return tensor.reshape(-1).view(torch.uint8).numpy().data


def packed(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Iterator[Any]:
    """A safetensors file part by part: the length of its header in 8 bytes, the header, every tensor's bytes."""
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    end = 0
    for name, tensor in tensors.items():
        begin, end = end, end + tensor.nbytes
        header[name] = {"dtype": _DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # so that every tensor of 8-byte numbers that is first can be read where it lies
    yield len(text).to_bytes(8, "little")
    yield text
    for tensor in tensors.values():
        yield _memory_of(tensor)


def read_whole(path: Path) -> bytearray:
    """All of the file. Raises ValueError where it is not as long as its header says: no memory is taken for it then."""
    with open_plain(path) as file:
        size = os.fstat(file.fileno()).st_size
        try:
            length, header = read_header(file)
            ends = [tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__"]
            as_said = size == 8 + length + max(ends, default=0)
        except Exception as error:  # whatever a damaged file makes a parser raise
            raise ValueError(f"it has no header: {type(error).__name__}") from error
        if not as_said:
            raise ValueError("it is longer or shorter than its header says")
        file.seek(0)
        content = bytearray(size)
        del content[file.readinto(content) :]  # type: ignore[attr-defined]
    return content


def unpacked(content: bytes | bytearray) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors, where they lie in `content`, and the metadata. Raises ValueError or the like where it is damaged."""
    length, header = read_header(io.BytesIO(memoryview(content)[: 8 + _MOST_HEADER]))
    data = 8 + length
    metadata = header.pop("__metadata__")
    kinds = {name: kind for kind, name in _DTYPES.items()}
    tensors = {}
    if max((entry["data_offsets"][1] for entry in header.values()), default=0) != len(content) - data:
        raise ValueError("it is longer or shorter than its header says")
    for name, entry in header.items():
        kind, shape, (begin, end) = kinds[entry["dtype"]], entry["shape"], entry["data_offsets"]
        count = math.prod(shape)
        inside = 0 <= begin <= end <= len(content) - data and min(shape, default=0) >= 0
        if not inside or end - begin != count * kind.itemsize:
            raise ValueError(f"{name} does not lie in the file")
        if count == 0:
            tensors[name] = torch.empty(shape, dtype=kind)
        elif (data + begin) % kind.itemsize:
            tensors[name] = torch.frombuffer(content[data + begin : data + end], dtype=kind).reshape(shape)
        else:
            tensors[name] = torch.frombuffer(content, dtype=kind, count=count, offset=data + begin).reshape(shape)
    return tensors, metadata


def read_header(file: BinaryIO) -> tuple[int, dict[str, Any]]:
    """A safetensors file begins with the length of its header in bytes (8 of them) and the header, JSON."""
    length = int.from_bytes(file.read(8), "little")
    return length, json.loads(file.read(min(length, _MOST_HEADER)))  # no more, whatever a damaged file says

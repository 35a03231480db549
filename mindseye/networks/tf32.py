"""What float32 means on a GPU: itself, or NVIDIA's TF32 in its convolutions."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Convolutions in TF32 inside where it is allowed and the GPU has it, all else in float32 as it is; the settings
    are then put back.

    TF32 keeps 10 bits of a float32's 23: noise of 1e-3, a thousand times that of rounding. From Ampere on cuDNN's
    convolutions are in it unless they are told otherwise. Kernels of a pass back are chosen while it runs, so it needs
    this around it too.
    """
    settings = list(_settings(allowed))
    before = [getattr(place, name) for place, name, _ in settings]
    for place, name, value in settings:
        setattr(place, name, value)
    try:
        yield
    finally:
        for (place, name, _), value in zip(settings, before, strict=True):
            setattr(place, name, value)


def _settings(allowed: bool) -> Iterator[tuple[Any, str, object]]:
    backends: Any = torch.backends  # whose types know only the older way
    if not hasattr(backends.cuda.matmul, "fp32_precision"):  # before torch 2.9
        yield backends.cudnn, "allow_tf32", allowed
        yield backends.cuda.matmul, "allow_tf32", False
        return
    # Newer ones refuse to be asked in both ways. oneDNN's are those of a CPU.
    yield backends.cudnn.conv, "fp32_precision", "tf32" if allowed else "ieee"
    for place in (backends.cuda.matmul, backends.mkldnn.conv, backends.mkldnn.matmul):
        yield place, "fp32_precision", "ieee"

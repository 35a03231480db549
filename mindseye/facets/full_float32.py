"""float32 as it is: NVIDIA's TF32 off for a while."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def full_float32() -> Iterator[None]:
    """No TF32 in matrix products and convolutions inside; the settings are then put back.

    TF32 keeps 10 bits of a float32's 23: noise of 1e-3, a thousand times that of rounding, which moves photographs
    between facets.
    """
    settings = list(_settings())
    before = [getattr(place, name) for place, name, _ in settings]
    for place, name, value in settings:
        setattr(place, name, value)
    try:
        yield
    finally:
        for (place, name, _), value in zip(settings, before, strict=True):
            setattr(place, name, value)


def _settings() -> Iterator[tuple[object, str, object]]:
    for place in (torch.backends.cuda.matmul, getattr(torch.backends.cudnn, "conv", torch.backends.cudnn)):
        if hasattr(place, "fp32_precision"):  # torch 2.9 and later, which refuse to be asked in both ways
            yield place, "fp32_precision", "ieee"
        else:
            yield place, "allow_tf32", False

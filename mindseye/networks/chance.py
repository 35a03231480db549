"""Chance that a seed does not know: torch's, numpy's and Python's own generators, in somebody else's code."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """What draws from the generators of the process draws the same for the same seed; afterwards they go on as before.

    >>> with seeded(3):
    ...     one = torch.rand(2)
    >>> with seeded(3):
    ...     torch.equal(one, torch.rand(2))
    True
    """
    of_python, of_numpy = random.getstate(), np.random.get_state()  # noqa: NPY002  # the one that is everybody's
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices):
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        torch.default_generator.manual_seed(seed)
        if devices:
            torch.cuda.manual_seed_all(seed)
        try:
            yield
        finally:
            random.setstate(of_python)
            np.random.set_state(of_numpy)  # noqa: NPY002

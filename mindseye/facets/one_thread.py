"""Numerical libraries held to one thread, so that sums are always taken in the same order."""

import functools
import sys
from contextlib import AbstractContextManager
from typing import Any


def one_thread() -> AbstractContextManager[Any]:
    """While it lasts, BLAS and OpenMP of the libraries that are loaded compute in one thread.

    Which libraries there are is read anew where something has been imported since: it takes 10 ms, more than a
    k-means.
    """
    return _controller(len(sys.modules)).limit(limits=1)


@functools.lru_cache(maxsize=1)
def _controller(imported: int) -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()

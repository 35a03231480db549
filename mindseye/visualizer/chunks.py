"""So many facets at a time: fewer need less memory, and where there is too little, half as many are tried."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

import torch

from mindseye.words import on_one_line

# As torch and its libraries say it; the last is cuDNN, which finds no kernel whose workspace there is room for.
NO_MEMORY = ("out of memory", "can't allocate memory", "bad_alloc", "ALLOC_FAILED", "Unable to find an engine")
log = logging.getLogger(__name__)


class Chunks:
    """`count` facets in slices of at most `size` (None: all at once), counted from 0.

    `for attempt in chunks.attempts(device): with attempt as slices: …` runs the block again, with half as many facets
    at a time, where it has run out of memory; from then on so many are taken.
    """

    def __init__(self, count: int, size: int | None) -> None:
        self.count = count
        self.size = count if size is None else max(1, min(size, count))

    @property
    def slices(self) -> list[slice]:
        """As they are at present."""
        return [slice(first, min(first + self.size, self.count)) for first in range(0, self.count, self.size)]

    def attempts(self, device: torch.device) -> Iterator["Attempt"]:
        """Until one has had enough memory. Raises any other error, and that of too little for a single facet."""
        while True:
            attempt = Attempt(self)
            yield attempt
            if attempt.fitted:
                return
            # Here, where nothing holds on to what was computed, the device is given what torch keeps without using it.
            empty_cache = getattr(getattr(torch, device.type, None), "empty_cache", None)
            if empty_cache is not None:
                empty_cache()


class Attempt:
    """One try of a block with the slices as they are."""

    def __init__(self, chunks: Chunks) -> None:
        self.chunks = chunks
        self.fitted = False

    def __enter__(self) -> list[slice]:
        return self.chunks.slices

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> bool:
        if error is None:
            self.fitted = True
            return False
        size = self.chunks.size
        if size == 1 or not is_out_of_memory(error):
            return False
        self.chunks.size = -(-size // 2)
        reason = on_one_line(error)[:200]
        log.warning(
            "no memory for %d facets at a time: going on with facets_per_batch=%d (%s)", size, self.chunks.size, reason
        )
        return True


@contextmanager
def room_for(content: str) -> Iterator[None]:
    """Raises ValueError, in one line, where there is no memory for what cannot be done in smaller parts."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise ValueError(f"no memory for {content}: draw fewer facets, or smaller ones") from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether it says that a device, or the host, has no memory left."""
    if not isinstance(error, RuntimeError | MemoryError):
        return False
    text = str(error)
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(words in text for words in NO_MEMORY)

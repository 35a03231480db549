"""Facets at a time: every facet once, half as many where memory runs out, and nothing else is swallowed."""

import pytest
import torch

from mindseye.visualizer.chunks import Chunks, room_for

CPU = torch.device("cpu")


@pytest.mark.parametrize("count", [1, 2, 5, 8])
@pytest.mark.parametrize("size", [None, 1, 2, 3, 100])
def test_every_facet_stands_in_one_slice(count, size):
    slices = Chunks(count, size).slices
    assert [c for chunk in slices for c in range(chunk.start, chunk.stop)] == list(range(count))
    assert max(chunk.stop - chunk.start for chunk in slices) == min(count, size or count)


def test_half_as_many_are_taken_until_they_fit(caplog):
    chunks, tried = Chunks(7, None), []
    for attempt in chunks.attempts(CPU):
        with attempt as slices:
            tried.append(len(slices))
            if chunks.size > 2:
                raise torch.OutOfMemoryError("CUDA out of memory")
    assert tried == [1, 2, 4]
    assert [record.getMessage().split(" (")[0] for record in caplog.records] == [
        "no memory for 7 facets at a time: going on with facets_per_batch=4",
        "no memory for 4 facets at a time: going on with facets_per_batch=2",
    ]
    assert len(chunks.slices) == 4  # and so they stay


@pytest.mark.parametrize(
    ("size", "error"),
    [(1, MemoryError("no")), (4, ValueError("out of memory")), (4, RuntimeError("shapes")), (4, KeyboardInterrupt())],
)
def test_what_is_not_for_want_of_memory_or_of_one_facet_goes_through(size, error):
    chunks = Chunks(4, size)

    def fail():
        for attempt in chunks.attempts(CPU):
            with attempt:
                raise error

    with pytest.raises(type(error)):
        fail()
    assert chunks.size == size


def test_no_room_for_what_is_one_thing():
    with pytest.raises(ValueError, match=r"^no memory for Adam: draw fewer facets"), room_for("Adam"):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
    with pytest.raises(RuntimeError, match="shapes"), room_for("Adam"):
        raise RuntimeError("shapes")

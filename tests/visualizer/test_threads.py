"""The same seed with another number of threads: not the same bytes, but the same pictures within a stated tolerance."""

import pytest
import torch
from given import given

import mindseye as me

# Of 0..1. Threads share out sums, so that their last digits differ, and the steps carry that on.
MOST_MAX, MOST_MEAN = 0.02, 0.001


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def drawn(network, photographs, steps, **settings):
    targets = me.discover_facets(network, photographs, network.resolve(depth="late"), me.Facets(C=3, k=20, N=5))
    return targets, me.visualize(network, targets, **given(steps=steps, accelerator="cpu", **settings)).images


@pytest.mark.long
def test_one_thread_or_two_draw_the_same_pictures(network, photographs, threads):
    found = []
    for count in (1, 2):
        threads(count)
        found.append(drawn(network, photographs, steps=20))
    (targets, images), (other_targets, others) = found
    assert torch.equal(targets.labels, other_targets.labels)
    assert torch.equal(targets.chosen, other_targets.chosen)
    assert torch.equal(targets.channels, other_targets.channels)
    difference = (images - others).abs()
    assert difference.max() < MOST_MAX
    assert difference.mean() < MOST_MEAN

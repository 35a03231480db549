import pytest
import torch

from mindseye.facets.way_statistics import WayStatistics, joined, moments, of_photographs, quantiles
from mindseye.visualizer.matching import Matching, moments_distance, sorted_distance

FORMS = {"moments": moments_distance, "sorted": sorted_distance}


def maps(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def references(x):
    """What pictures with these maps [C, D, H, W] would be matched to if they were the photographs."""
    return joined([of_photographs("layer", image[None], torch.ones(1)) for image in x])


@pytest.mark.parametrize("form", FORMS)
def test_a_picture_answered_as_the_photographs_is_at_distance_nothing(form):
    x = maps(3, 5, 8, 8)
    assert FORMS[form](x, references(x)).abs().max() < 1e-5
    moved = x.roll(3, dims=2).flip(3)  # the same values elsewhere
    assert FORMS[form](moved, references(x)).abs().max() < 1e-5
    assert FORMS[form](2 * x, references(x)).min() > 0.1


def test_moments_by_hand():
    """One channel: photographs of μ = 1, σ = 2; a picture of 4 and 0 has mean 2, deviation 2: (1 + 0)/(1 + 2)."""
    reference = WayStatistics("layer", torch.tensor([[1.0]]), torch.tensor([[2.0]]), torch.zeros(1, 1, 4))
    picture = torch.tensor([4.0, 0.0, 4.0, 0.0]).reshape(1, 1, 2, 2)
    assert moments_distance(picture, reference).item() == pytest.approx(1 / 3, abs=1e-5)


def test_sorted_by_hand():
    """Values 4, 0, 1, 3 in order are 0, 1, 3, 4; the photographs' 0, 2, 3, 6: ‖(0, 1, 0, 2)‖ / ‖(0, 2, 3, 6)‖."""
    reference = WayStatistics("layer", torch.zeros(1, 1), torch.ones(1, 1), torch.tensor([[[0.0, 2.0, 3.0, 6.0]]]))
    picture = torch.tensor([4.0, 0.0, 1.0, 3.0]).reshape(1, 1, 2, 2)
    assert sorted_distance(picture, reference).item() == pytest.approx(5**0.5 / 49**0.5, abs=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_gradients_are_right(form):
    x = maps(2, 3, 4, 4, seed=1).double().requires_grad_()
    given = references(maps(2, 3, 5, 5))
    wide = WayStatistics("layer", *(tensor.double() for tensor in given.tensors().values()))
    assert torch.autograd.gradcheck(lambda y: FORMS[form](y, wide), (x,))


@pytest.mark.parametrize("form", FORMS)
def test_a_layer_a_hundred_times_as_strong_is_as_far(form):
    x, other = maps(2, 3, 4, 4), maps(2, 3, 4, 4, seed=1)
    weak, strong = (FORMS[form](s * x, references(s * other)) for s in (1, 100))
    assert torch.allclose(weak, strong, rtol=1e-3)


@pytest.mark.parametrize("form", FORMS)
def test_facets_do_not_mix(form):
    x, given = maps(3, 4, 6, 6), references(maps(3, 4, 6, 6, seed=1))
    changed = x.clone()
    changed[1] += 1
    matching = Matching(form=form)
    before, after = (matching([y], [given]) for y in (x, changed))
    assert torch.equal(before[[0, 2]], after[[0, 2]])
    assert before[1] != after[1]
    alone = torch.cat([matching([x[c : c + 1]], [given.of(slice(c, c + 1))]) for c in range(3)])
    assert torch.allclose(alone, before, rtol=1e-5)


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match=r"^weight must be a number of 0 or more, not -1$"):
        Matching(weight=-1)
    with pytest.raises(ValueError, match=r"^form must be moments or sorted, not gram$"):
        Matching(form="gram")


def test_moments_of_statistics_and_of_pictures_are_the_same_function():
    x = maps(1, 3, 8, 8)
    given = references(x)
    assert torch.allclose(given.mean, moments(x)[0], atol=1e-6)
    assert torch.equal(given.quantiles, quantiles(x))

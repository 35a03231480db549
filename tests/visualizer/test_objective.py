import math

import pytest
import torch

from mindseye.facets.targets import photographs_strength
from mindseye.facets.way_statistics import joined, of_photographs
from mindseye.visualizer.distance import negative_log_likelihood
from mindseye.visualizer.matching import Matching
from mindseye.visualizer.objective import (
    Objective,
    as_strong,
    cosine,
    dot_product,
    dot_product_cosine,
    relative_distance,
    strength,
    summed_distance,
    take_channels,
)
from mindseye.visualizer.terms import LossTerms, Seen

ALL = slice(None)


def case(C=3, D=6, k=2, side=4, seed=0):
    """Activations, previous layer, images, targets, top-k channels: random, of C facets."""
    generator = torch.Generator().manual_seed(seed)
    a, t = torch.rand(2, C, D, side, side, generator=generator)
    previous = torch.randn(C, 5, side, side, generator=generator)
    images = torch.rand(C, 3, 8, 8, generator=generator)
    top_k = torch.stack([torch.randperm(D, generator=generator)[:k] for _ in range(C)])
    return a, previous, images, t, top_k


def evaluate(objective, a, previous, images, t, top_k, facets=ALL, lam=0.01, references=None, now=None):
    """The previous layer stands for the one on the way, too; its photographs' statistics are those of other numbers.

    The photographs are as strong as the target, as where there is but one.
    """
    if references is None:
        generator = torch.Generator().manual_seed(7)
        other = torch.randn(len(t), 4, *previous.shape[1:], generator=generator)
        references = (joined([of_photographs("before", maps, torch.full((4,), 0.25)) for maps in other]),)
    return objective(
        Seen(
            activation=a[facets],
            previous=previous[facets],
            way=(previous[facets],),
            images=images[facets],
            targets=t,
            strengths=take_channels(t, top_k).flatten(1).norm(dim=1),
            channels=top_k,
            references=references,
            facets=facets,
            adaptive=objective.adaptive_distance(len(t)),
            now={"penalty": lam, "matching": 1.0, "strength": 1.0} | (now or {}),
        )
    )


# The paper's sum alone.
PUBLISHED = {
    "dm": 1, "tv": 0, "strength": 0, "matching": Matching(weight=0), "match": "dot_product", "distance": "summed",
    "gain": 1.0, "reduction": "sum",
}  # fmt: skip


def test_terms_by_hand():
    a = torch.tensor([[[[1.0, 2.0]], [[0.0, 2.0]]]])  # 1 facet, 2 channels, a map of 1×2
    t = torch.tensor([[[[3.0, 0.0]], [[4.0, 2.0]]]])
    assert dot_product(a, t).item() == pytest.approx(1 * 3 + 0 + 0 + 2 * 2)
    assert cosine(a, t).item() == pytest.approx(7 / (3 * math.sqrt(29)))
    # The dot product's mean over the two positions, times the cosine squared, which is at least a tenth squared.
    assert dot_product_cosine(a, t).item() == pytest.approx(7 / 2 * (7 / (3 * math.sqrt(29))) ** 2)
    assert dot_product_cosine(a, -t).item() == pytest.approx(-7 / 2 * 0.1**2)
    assert summed_distance(a, t).item() == pytest.approx(math.sqrt(4 + 4) + 4)
    assert relative_distance(a, t).item() == pytest.approx(math.sqrt(4 + 4 + 16) / math.sqrt(29))


def test_published_objective_is_the_papers_sum():
    """L = AD − DM + λ·Σ|a_{i−1}| with mdist = Σ_j ‖a_j − t_j‖, written out with loops."""
    a, previous, images, t, top_k = case()
    published = Objective(**PUBLISHED, r=0.5, b=0.7)
    terms = evaluate(published, a, previous, images, t, top_k)
    for c in range(3):
        mdist = sum(float((a[c, j] - t[c, j]).norm()) for j in top_k[c])
        dm = sum(float((a[c, j] * t[c, j]).sum()) for j in top_k[c])
        ad = negative_log_likelihood(torch.tensor(mdist), torch.tensor(0.7), torch.tensor(0.5)).item()
        expected = ad - dm + 0.01 * previous[c].abs().sum().item()
        assert terms.total[c].item() == pytest.approx(expected, rel=1e-4)


def test_calibrated_terms_do_not_change_with_the_strength_of_a_layer():
    """Activations and target a hundred times as strong: the same DM, distance and AD."""
    a, previous, images, t, top_k = case()
    weak, strong = (evaluate(Objective(), s * a, previous, images, s * t, top_k) for s in (1, 100))
    for name in ("dm", "mdist", "ad", "strength"):
        assert torch.allclose(getattr(weak, name), getattr(strong, name), rtol=1e-4)


def test_gain_is_where_the_distance_ends():
    _, previous, images, t, top_k = case()
    terms = evaluate(Objective(gain=2.5), 2.5 * t, previous, images, t, top_k)
    assert terms.mdist.max() < 1e-3
    assert torch.allclose(terms.dm, torch.ones(3), atol=1e-5)


@pytest.mark.parametrize("gain", [1.0, 2.0])
def test_what_is_pooled_is_held_to_the_strength_of_what_is_pooled(gain):
    """Channel means are weaker than maps: s times the target's own answer is where distance and strength end."""
    _, previous, images, t, top_k = case()
    terms = evaluate(Objective(pooled=True, gain=gain), gain * t, previous, images, t, top_k)
    assert terms.strength.max() < 1e-6
    assert terms.mdist.max() < 1e-3


def test_where_schedules_let_every_weight_fall_to_nothing_nothing_pulls():
    _, previous, images, t, top_k = case()
    alone = Objective(dm=0, ad=0, strength=0, penalty=0, tv=0)
    images = images.clone().requires_grad_()
    terms = evaluate(alone, t, previous, images, t, top_k, now={"matching": 0.0})
    terms.total.sum().backward()
    assert terms.total.tolist() == [0.0] * len(images)
    assert not images.grad.any()


def test_released_objective_is_the_programs_double_sum():
    """Pooled; image c on the channels of every facet f, with its own target; AD and P once for each pair (c, f), as
    the program's broadcasting makes of their mean over the batch and sum over the batch."""
    a, previous, images, t, top_k = case()
    program = {"distance": "elementwise", "pooled": True, "channels": "every_facet", "adaptive": "restarted"}
    released = Objective(**{**PUBLISHED, **program})
    terms = evaluate(released, a, previous, images, t, top_k)
    C, D = a.shape[:2]
    av, tv = a.mean((2, 3)), t.mean((2, 3))
    one = torch.tensor(1.0)
    mean_ad = negative_log_likelihood(av - tv, one, one).sum() / (C * D)
    penalty = 0.01 * previous.abs().sum()
    whole = sum(
        -(av[c, top_k[f]] * tv[c, top_k[f]]).sum() + mean_ad + penalty for c in range(C) for f in range(C)
    )
    assert terms.total.sum().item() == pytest.approx(whole.item(), rel=1e-4)


@pytest.mark.parametrize("channels", ["own", "every_facet"])
def test_no_facet_sees_another_s_images_or_target(channels):
    a, previous, images, t, top_k = case()
    objective = Objective(channels=channels)
    before = evaluate(objective, a, previous, images, t, top_k)
    a2, t2, previous2, images2 = a.clone(), t.clone(), previous.clone(), images.clone()
    for changed in (a2, t2, previous2, images2):
        changed[1] += 1
    after = evaluate(objective, a2, previous2, images2, t2, top_k)
    for name in LossTerms.names():
        for c in (0, 2):
            assert torch.equal(getattr(before, name)[c], getattr(after, name)[c])
    assert before.total[1] != after.total[1]


def test_part_of_the_facets_is_part_of_the_whole():
    everything = case()
    whole, part = (evaluate(Objective(), *everything, facets=facets) for facets in (ALL, slice(1, 3)))
    for name in LossTerms.names():
        assert torch.allclose(getattr(part, name), getattr(whole, name)[1:])


@pytest.mark.parametrize("name", ["dm", "ad", "strength", "penalty", "tv"])
def test_every_term_can_be_switched_off_and_weighted(name):
    everything = case()
    totals = [evaluate(Objective(**{name: weight}), *everything).total for weight in (0.0, 1.0, 2.0)]
    assert not torch.allclose(totals[0], totals[1])
    assert torch.allclose(totals[2] - totals[1], totals[1] - totals[0], atol=1e-5)
    assert all(torch.isfinite(total).all() for total in totals)


def test_fixed_scale_and_shape_get_no_gradient():
    for mode, trained in (("trained", True), ("fixed", False), ("restarted", False)):
        adaptive = Objective(adaptive=mode).adaptive_distance(3)
        assert adaptive.free_r.requires_grad is trained


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dm": -1.0}, "^dm must be a number of 0 or more, not -1.0$"),
        ({"gain": 0.0}, "^gain must be a number above 0, not 0.0$"),
        ({"dm": 0.0, "ad": 0.0, "matching": Matching(weight=0)}, "nothing would be drawn"),
        ({"matching": 16.0}, "^matching must be a Matching, not 16.0"),
        ({"distance": "elementwise"}, "needs pooled"),
        ({"r": 0.01}, "^r must be a number above 0.05 and 500 or less"),
        ({"b": 2}, "^b must be a number above 0.001 and below 1.999"),
        ({"gian": 2.0}, r"^Objective has no gian; did you mean gain"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Objective(**arguments)


@pytest.mark.parametrize("form", ["moments", "sorted"])
def test_matching_has_its_weight_in_the_total(form):
    everything = case()
    matchings = [Matching(weight=weight, form=form) for weight in (0.0, 1.0, 2.0)]
    totals = [evaluate(Objective(matching=matching), *everything).total for matching in matchings]
    assert not torch.allclose(totals[0], totals[1])
    assert torch.allclose(totals[2] - totals[1], totals[1] - totals[0], atol=1e-5)


def test_strength_is_nothing_at_gain_times_the_photographs_and_counts_too_weak_as_too_strong():
    a = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)) - 0.3  # signed, as many layers are
    norms = a.flatten(1).norm(dim=1)
    assert strength(2.0 * a, norms, 2.0).tolist() == pytest.approx([0, 0], abs=1e-10)
    assert strength(4.0 * a, norms, 2.0).tolist() == pytest.approx([math.log(2) ** 2] * 2, rel=1e-5)
    assert strength(1.0 * a, norms, 2.0).tolist() == pytest.approx([math.log(2) ** 2] * 2, rel=1e-5)


def test_the_distance_is_to_a_target_as_strong_as_the_photographs():
    """Two photographs that are strong in different places: their blend is weaker than either, by √2."""
    a = torch.zeros(2, 1, 2, 2)
    a[0, 0, 0, 0] = a[1, 0, 1, 1] = 4.0
    t = a.mean(dim=0, keepdim=True)
    power = a.square().mean(dim=(2, 3)).mean(dim=0, keepdim=True)
    photographed = photographs_strength(power, torch.tensor([[0]]), 4)
    assert photographed.item() == pytest.approx(4.0)
    assert t.norm().item() == pytest.approx(4 / math.sqrt(2))
    assert as_strong(t, photographed).norm().item() == pytest.approx(4.0)


def test_an_objective_of_one_s_own_needs_to_say_no_more_than_its_total():
    terms = LossTerms(total=torch.tensor([1.0, 2.0]))
    assert terms.stacked().tolist() == [[0, 0]] * (len(LossTerms.names()) - 1) + [[1, 2]]


def test_take_channels():
    maps = torch.arange(12.0).reshape(2, 3, 1, 2)
    taken = take_channels(maps, torch.tensor([[2, 0], [1, 1]]))
    assert taken.tolist() == [[[[4, 5]], [[0, 1]]], [[[8, 9]], [[8, 9]]]]


def test_gradients_are_finite_where_picture_and_target_agree_or_are_silent():
    _, previous, images, t, top_k = case()
    for objective in (Objective(), Objective(**PUBLISHED)):
        for start in (t, torch.zeros_like(t)):
            a = start.clone().requires_grad_()
            evaluate(objective, a, previous, images, t, top_k).total.sum().backward()
            assert a.grad.isfinite().all()

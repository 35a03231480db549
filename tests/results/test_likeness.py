"""Copies, the forced choice and the way to the layer, each on a case whose answer is known by hand."""

import itertools

import pytest
import torch
from scipy.stats import spearmanr
from torch.nn.functional import normalize

from mindseye.results.likeness import (
    broad_structure,
    copy,
    forced_choice,
    path,
    rank_correlations,
    share_of_the_way,
    standard_ranks,
)

GENERATOR = torch.Generator().manual_seed(0)


def test_the_share_of_the_way_and_where_there_is_none():
    start, goal = torch.tensor([0.0, 0.2, 0.5, 0.5, torch.nan]), torch.tensor([1.0, 0.6, 0.54, 0.2, 1.0])
    shares = share_of_the_way(torch.tensor([0.25, 0.8, 0.5, 0.1, 0.5]), start, goal)
    assert torch.allclose(shares[:2], torch.tensor([0.25, 1.5]))
    assert shares[2:].isnan().all()  # hardly a way, a goal behind the start, no start


# ---- copies ----------------------------------------------------------------------------------------------------------


def unit(degrees):
    angle = torch.tensor(degrees).deg2rad()
    return torch.stack([angle.cos(), angle.sin()], dim=-1)


def test_a_copy_is_nearer_than_the_two_most_alike_photographs():
    """Photographs at 0°, 60° and 180°: the two most alike have a cosine of ½."""
    photographs = unit([0.0, 60.0, 180.0])[None]
    for degrees, expected in ((0.0, 2.0), (30.0, 3**0.5), (-60.0, 1.0), (-75.0, 2 * 0.258819)):
        assert copy(unit([degrees]), photographs).item() == pytest.approx(expected, abs=1e-5)


def test_a_facet_s_own_photograph_is_one_by_definition():
    photographs = normalize(torch.randn(3, 5, 20, generator=GENERATOR) + 1, dim=2)
    for n in range(5):
        assert (copy(photographs[:, n], photographs) >= 1).all()


def test_nothing_to_compare_with_is_no_figure():
    assert copy(unit([0.0]), unit([0.0])[None]).isnan().all()  # a single photograph
    assert copy(unit([0.0]), unit([0.0, 90.0])[None]).isnan().all()  # two of nothing in common


def test_broad_structure_knows_forms_and_neither_tint_nor_contrast_nor_grain():
    low = torch.rand(2, 3, 32, 32, generator=GENERATOR)
    images = low.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)
    seen = broad_structure(images)
    assert seen.shape == (2, 3 * 32 * 32)
    assert torch.allclose(seen.norm(dim=1), torch.ones(2))
    tint = torch.tensor([0.1, -0.2, 0.3])[:, None, None]
    assert torch.allclose(broad_structure(0.2 * images + tint), seen, atol=1e-5)
    grain = torch.tensor([[0.1, -0.1], [-0.1, 0.1]]).repeat(64, 64)
    assert torch.allclose(broad_structure(images + grain), seen, atol=1e-5)
    assert (seen[0] @ seen[1]).abs() < 0.1
    assert not broad_structure(torch.full((1, 3, 128, 128), 0.4)).any()
    assert broad_structure(images[..., :8, :8]).shape == (2, 3 * 8 * 8)


# ---- the forced choice -----------------------------------------------------------------------------------------------


def test_right_wrong_and_equal_explanations():
    labels = torch.tensor([0, 0, 1, 1])
    right = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.2, 0.8]])
    assert forced_choice(right, labels)[0].tolist() == [1, 1]
    assert forced_choice(right.flip(1), labels)[0].tolist() == [0, 0]
    share, smooth = forced_choice(torch.full((4, 2), 0.3), labels)  # one and the same picture
    assert share.tolist() == smooth.tolist() == [0.5, 0.5]


def test_pairs_are_counted_one_by_one():
    """Δ of the first facet's are 0.5 and −0.1, of the others −0.3 and 0.2: of four pairs one is wrong."""
    similarity = torch.tensor([[0.6, 0.1], [0.2, 0.3], [0.1, 0.4], [0.4, 0.2]])
    share, smooth = forced_choice(similarity, torch.tensor([0, 0, 1, 1]))
    assert share.tolist() == pytest.approx([0.75, 0.75])
    margins = torch.tensor([0.8, 0.3, 0.2, -0.3])
    assert smooth[0].item() == pytest.approx((0.16 * margins).sigmoid().mean().item())


def test_who_has_no_pair_has_no_figure_and_costs_the_others_nothing():
    similarity = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    share, _ = forced_choice(similarity, torch.tensor([0, 1]))
    assert share[:2].tolist() == [1, 1]
    assert share[2].isnan()  # no photograph of the third was held out
    assert forced_choice(similarity[:, :1], torch.tensor([0, 0]))[0].isnan().all()  # one facet
    undrawn = torch.tensor([[1.0, 0.0, torch.nan], [0.0, 1.0, torch.nan], [0.3, 0.3, torch.nan]])
    share, _ = forced_choice(undrawn, torch.tensor([0, 1, 2]))
    assert share[:2].tolist() == [1, 1]
    assert share[2].isnan()


# ---- the way to the layer --------------------------------------------------------------------------------------------


def test_ranks_give_spearman_s_correlation_with_ties():
    values = torch.randint(0, 6, (5, 40), generator=GENERATOR).float()
    ours = standard_ranks(values) @ standard_ranks(values).T
    for i, j in itertools.combinations(range(5), 2):
        assert ours[i, j].item() == pytest.approx(spearmanr(values[i], values[j]).statistic, abs=1e-9)
    assert standard_ranks(torch.ones(4)).isnan().all()
    assert torch.allclose(standard_ranks(values[0].exp()), standard_ranks(values[0]))  # a rising function keeps ranks


def test_correlations_are_means_over_pairs():
    pictures, photographs = torch.randn(3, 12, generator=GENERATOR), torch.randn(3, 4, 12, generator=GENERATOR)

    def rho(a, b):
        return spearmanr(a, b).statistic

    def mean(values):
        values = list(values)
        return sum(values) / len(values)

    own, other, same = rank_correlations(pictures, photographs)
    for c in range(3):
        mine, theirs = photographs[c], [x for d in range(3) if d != c for x in photographs[d]]
        assert own[c].item() == pytest.approx(mean(rho(pictures[c], x) for x in mine))
        assert other[c].item() == pytest.approx(mean(rho(x, y) for x in mine for y in theirs))
        assert same[c].item() == pytest.approx(mean(rho(x, y) for x, y in itertools.combinations(mine, 2)))


def test_the_way_of_photographs_is_one_and_of_other_facets_zero():
    """Two facets of opposite order, three photographs alike in each: ρ is 1 within and −1 between."""
    up = torch.arange(6.0)
    photographs = torch.stack([torch.stack([up, 2 * up, up + 1]), torch.stack([-up, -3 * up, 4 - up])])
    layers, mean = path([torch.stack([up, up]), torch.stack([up, -up])], [photographs, photographs])
    assert layers[0].tolist() == pytest.approx([1, 0])
    assert layers[1].tolist() == pytest.approx([1, 1])
    assert mean.tolist() == pytest.approx([1, 0.5])
    across = torch.tensor([2.0, 1.0, 3.0, 3.0, 1.0, 2.0])  # no more the one than the other
    assert path([across.expand(2, -1)], [photographs])[1].tolist() == pytest.approx([0.5, 0.5])


def test_no_way_where_facets_do_not_differ_or_there_is_one_or_one_photograph():
    up = torch.arange(6.0)
    same = up.expand(2, 3, 6)
    assert path([up.expand(2, 6)], [same])[1].isnan().all()
    assert path([up[None]], [up.expand(1, 3, 6)])[1].isnan().all()
    assert path([torch.stack([up, -up])], [torch.stack([up, -up])[:, None]])[1].isnan().all()

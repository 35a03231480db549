"""Each measure on a case whose answer can be said beforehand."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from mindseye.facets.survey import survey
from mindseye.networks import Network
from mindseye.results.metrics import (
    adjusted_rand_index,
    baselines,
    centred_cosine,
    fidelity,
    measure,
    retrieval,
    selectivity,
    summarise,
    transfer,
    transfer_reference,
)


def test_fidelity_of_the_target_itself_and_of_its_multiples():
    t = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    exact = fidelity(t, t)
    assert torch.allclose(exact["cosine"], torch.ones(2))
    assert exact["relative_distance"].max() < 1e-5
    assert torch.allclose(exact["magnitude"], torch.ones(2))
    tripled = fidelity(3 * t, t)
    assert torch.allclose(tripled["cosine"], torch.ones(2))
    assert torch.allclose(tripled["relative_distance"], torch.full((2,), 2.0))
    assert torch.allclose(tripled["magnitude"], torch.full((2,), 3.0))
    assert fidelity(3 * t, t, gain=3.0)["relative_distance"].max() < 1e-5


def test_fidelity_of_orthogonal_maps():
    v, t = torch.zeros(2, 1, 2, 1, 2)
    v[0, 0, 0, 0] = 1
    t[0, 1, 0, 1] = 1
    figures = fidelity(v, t)
    assert figures["cosine"].item() == 0
    assert figures["relative_distance"].item() == pytest.approx(2**0.5)


def test_selectivity_is_the_share_in_the_top_channels():
    v = torch.tensor([6.0, -3.0, 1.0])[None, :, None, None].expand(1, 3, 2, 2)
    assert selectivity(v, torch.tensor([[0]])).item() == pytest.approx(0.6)
    assert selectivity(v, torch.tensor([[0, 1]])).item() == pytest.approx(0.9)
    assert selectivity(v, torch.tensor([[0, 1, 2]])).item() == pytest.approx(1)


def test_retrieval_counts_the_own_target_alone():
    t = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    mean = t.mean(dim=0)
    assert retrieval(centred_cosine(t, t, mean)).tolist() == [1, 1]
    assert retrieval(centred_cosine(t.flip(0), t, mean)).tolist() == [0, 0]
    assert torch.allclose(centred_cosine(t, t, mean), torch.tensor([[1.0, -1.0], [-1.0, 1.0]]))


def test_naturalness_of_the_photographs_themselves_is_one(network, targets):
    same = replace(targets, photographs=targets.photographs[:, :1].expand(-1, 4, -1, -1, -1).contiguous())
    rows = measure(network, same, same.photographs[:, 0].float() / 255)
    for row in rows:
        assert row["naturalness"]["tv"] == pytest.approx(1, abs=1e-4)
    assert measure(network, same, torch.full_like(same.initial, 0.5))[0]["naturalness"]["tv"] == 0


def test_a_single_photograph_s_facet_is_met_by_that_photograph(network, targets):
    """Weights all on one photograph: it is the target, so every figure of fidelity is perfect."""
    from mindseye.facets.discovery import _blend_activations
    from mindseye.networks.preparing import prepare

    weights = torch.zeros_like(targets.weights)
    weights[:, 2] = 1
    alone = replace(
        targets, weights=weights, maps=_blend_activations(prepare(network, targets.layer), targets.photographs, weights)
    )
    for row in measure(network, alone, alone.nearest()):
        assert row["fidelity"]["cosine"] == pytest.approx(1, abs=1e-5)
        assert row["fidelity"]["relative_distance"] == pytest.approx(0, abs=1e-3)
        assert row["fidelity"]["pooled"]["magnitude"] == pytest.approx(1, abs=1e-4)


class TwoColours(nn.Module):
    """Sees red and blue, and calls whichever is stronger."""

    def __init__(self):
        super().__init__()
        self.features = nn.Conv2d(3, 2, 1, bias=False)
        self.features.weight.data = torch.tensor([[1.0, 0, 0], [0, 0, 1.0]])[:, :, None, None]

    def forward(self, x):
        return 10 * self.features(x).mean(dim=(2, 3))


def test_transfer_in_a_network_whose_answer_is_known(targets, photographs):
    judge = Network(TwoColours(), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "two colours", 48)
    reference = transfer_reference(judge, "features", targets, photographs)
    means = survey(judge, photographs, "features").means
    assert torch.allclose(reference.mean, means.mean(dim=0), atol=1e-6)
    expected = (targets.weights[:, :, None] * means[targets.chosen]).sum(dim=1)
    assert torch.allclose(reference.targets, expected, atol=1e-5)
    own = targets.photographs.float().div(255)
    blends = (targets.weights[:, :, None, None, None] * own).sum(dim=1)  # a linear network's answer is a blend too
    figures = transfer(blends, reference)
    assert torch.allclose(figures["cosine"], torch.ones(3), atol=1e-4)
    assert figures["retrieval"].tolist() == [1, 1, 1]
    red = torch.zeros_like(blends)
    red[:, 0] = 1
    probability = torch.tensor([10.0, 0.0]).softmax(0)
    assert torch.allclose(transfer(red, reference)["agreement"], probability[reference.classes], atol=1e-5)


def test_transfer_stands_in_every_row_and_baseline(network, targets, photographs):
    judge = Network(TwoColours(), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "two colours", 48)
    reference = transfer_reference(judge, "features", targets, photographs)
    compared = baselines(network, targets, references=[reference])
    assert set(compared) == {"initial", "nearest", "noise"}
    for rows in compared.values():
        assert len(rows) == 3
        assert set(rows[0]["transfer"]) == {"cosine", "retrieval", "agreement", "networks"}
    assert summarise(compared["nearest"])["fidelity"]["cosine"] > summarise(compared["noise"])["fidelity"]["cosine"]


def test_a_summary_is_the_mean_in_the_same_shape():
    rows = [{"a": 1.0, "b": {"c": 2.0}}, {"a": 3.0, "b": {"c": 6.0}}]
    assert summarise(rows) == {"a": 2.0, "b": {"c": 4.0}}


def test_adjusted_rand_index():
    truth = ["x", "x", "y", "y"]
    assert adjusted_rand_index(torch.tensor([1, 1, 0, 0]), truth) == 1
    assert adjusted_rand_index(torch.tensor([0, 1, 0, 1]), truth) < 0.1

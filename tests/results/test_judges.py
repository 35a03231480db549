"""What other networks say of a picture, on networks whose answer is known."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import mindseye as me
from mindseye.facets import Photographs
from mindseye.facets.survey import survey
from mindseye.networks import Network
from mindseye.networks.recording import record
from mindseye.results.judges import _look, judge_features, transfer, transfer_reference, unit_of
from mindseye.results.metrics import Measuring, baselines, measure, summarise


class TwoColours(nn.Module):
    """Sees red and blue, and calls whichever is stronger."""

    def __init__(self, end=None):
        super().__init__()
        self.features = nn.Conv2d(3, 2, 1, bias=False)
        self.features.weight.data = torch.tensor([[1.0, 0, 0], [0, 0, 1.0]])[:, :, None, None]
        self.end = nn.Identity() if end is None else end

    def forward(self, x):
        return self.end(10 * self.features(x).mean(dim=(2, 3)))


def of_two_colours(end=None):
    return Network(TwoColours(end), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "two colours", 48)


@pytest.fixture(scope="module")
def reference(targets, photographs):
    return transfer_reference(of_two_colours(), "features", targets, photographs)


@pytest.fixture(scope="module")
def with_held_out(targets, photographs):
    """The facets' own photographs but the nearest as if they were held out, each labelled with its facet."""
    chosen = [(targets.paths[int(i)], c) for c in range(targets.C) for i in targets.chosen[c, 1:]]
    names = dict(reversed(chosen))
    return replace(targets, held_out=tuple(names), held_out_labels=torch.tensor(list(names.values())))


def filled(targets, *colour):
    return torch.tensor(colour)[None, :, None, None].expand_as(targets.initial).contiguous()


def test_transfer_in_a_network_whose_answer_is_known(targets, photographs, reference):
    means = survey(reference.network, photographs, "features").means
    assert torch.allclose(reference.mean, means.mean(dim=0), atol=1e-6)
    assert torch.allclose(reference.means, means[targets.chosen], atol=1e-5)
    expected = (targets.weights[:, :, None] * means[targets.chosen]).sum(dim=1)
    assert torch.allclose(reference.targets, expected, atol=1e-5)
    own = targets.photographs.float().div(255)
    blends = (targets.weights[:, :, None, None, None] * own).sum(dim=1)  # a linear network's answer is a blend too
    figures = transfer(blends, reference)
    assert torch.allclose(figures["cosine"], torch.ones(3), atol=1e-4)
    assert figures["retrieval"].tolist() == [1, 1, 1]
    probability = torch.tensor([10.0, 0.0]).softmax(0)
    red = transfer(filled(targets, 1.0, 0.0, 0.0), reference)
    assert torch.allclose(red["agreement"], probability[reference.classes], atol=1e-5)
    assert torch.equal(red["accuracy"], (reference.classes == 0).float())
    assert torch.allclose(judge_features(blends, reference), expected - reference.mean, atol=1e-5)


def test_one_pass_says_what_two_said(targets, network):
    """The layer's own answer, though what comes after writes into it, and what the network ends in."""
    body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    judge = Network(body, (0.5,) * 3, (0.5,) * 3, "writes over", 48)
    images = targets.initial
    looked = _look(judge, "0", images, 2, classes=True)
    with record(judge, "0") as tape:
        assert torch.allclose(looked.means, tape(images).mean(dim=(2, 3)), atol=1e-6)
    assert torch.allclose(looked.outputs, judge(images), atol=1e-6)
    without = _look(judge, "0", images, 2, classes=False)
    assert without.outputs is None
    assert torch.allclose(without.maps, looked.maps, atol=1e-6)
    assert looked.maps.shape == (3, 4, 16, 16)  # 46 positions a side, of which 16 are kept


class Ranks(nn.Module):
    """Eight classes; the mean brightness in hundredths says how many of them are above class 0."""

    def forward(self, x):
        above = (x.mean(dim=(1, 2, 3), keepdim=False)[:, None] * 100).round()
        classes = torch.arange(8.0)
        others = torch.where(classes <= above, 6 - classes / 10, 1 - classes / 10)
        return torch.where(classes == 0, 4.0, others)


def test_accuracy_is_the_rank_of_the_class(targets, reference):
    ranks = replace(reference, network=Network(_Behind(Ranks()), (0.0,) * 3, (1.0,) * 3, "ranks", 48))
    ranks = replace(ranks, layer="layer", classes=torch.zeros(3, dtype=torch.int64))
    for above, top, top5 in ((0.0, 1, 1), (0.01, 0, 1), (0.04, 0, 1), (0.05, 0, 0), (0.07, 0, 0)):
        figures = transfer(filled(targets, above, above, above), ranks)
        assert figures["accuracy"].tolist() == [top] * 3
        assert figures["accuracy5"].tolist() == [top5] * 3
    assert "accuracy5" not in transfer(targets.initial, reference)  # of two classes both are among five


class _Behind(nn.Module):
    """What a module says, behind a layer that means nothing here."""

    def __init__(self, end):
        super().__init__()
        self.layer, self.end = nn.Conv2d(3, 2, 1), end

    def forward(self, x):
        self.layer(x)
        return self.end(x)


def test_a_network_that_tells_nothing_apart_is_not_right(targets, reference):
    class Silent(nn.Module):
        def forward(self, x):
            return torch.zeros(len(x), 8)

    silent = Network(_Behind(Silent()), (0.0,) * 3, (1.0,) * 3, "silent", 48)
    figures = transfer(targets.initial, replace(reference, network=silent, layer="layer"))
    assert figures["accuracy"].tolist() == figures["accuracy5"].tolist() == [0, 0, 0]


class Times(nn.Softmax):
    """Probabilities in another unit."""

    def __init__(self, factor):
        super().__init__(dim=1)
        self.factor = factor

    def forward(self, x):
        return self.factor * super().forward(x)


@pytest.mark.parametrize(
    ("end", "unit"),
    [(nn.Softmax(dim=1), 1), (nn.LogSoftmax(dim=1), None)]
    + [(Times(factor), factor) for factor in (100, 1000, 1e6, 255, 0.5, 0.01)],
)
def test_agreement_is_the_same_whatever_the_network_ends_in(targets, photographs, reference, end, unit):
    """Logits, probabilities in any unit, and their logarithms: nothing is taken for another."""
    ends = transfer_reference(of_two_colours(end), "features", targets, photographs)
    assert torch.equal(ends.classes, reference.classes)
    assert ends.unit == (None if unit is None else pytest.approx(unit, rel=1e-6))
    for images in (targets.initial, targets.nearest(), filled(targets, 0.9, 0.2, 0.1)):
        expected, measured = transfer(images, reference), transfer(images, ends)
        assert torch.allclose(measured["agreement"], expected["agreement"], atol=1e-5)
        assert torch.equal(measured["accuracy"], expected["accuracy"])


def test_a_sigmoid_for_each_class_is_a_probability_of_its_own(targets, photographs):
    ends = transfer_reference(of_two_colours(nn.Sigmoid()), "features", targets, photographs)
    assert ends.unit == 1
    figures = transfer(filled(targets, 0.3, 0.0, 0.3), ends)
    assert torch.allclose(figures["agreement"], torch.tensor(3.0).sigmoid().expand(3), atol=1e-5)
    assert unit_of(torch.tensor([[0.2, 0.8], [1.0, 0.0]])) == 1
    assert unit_of(torch.tensor([[20.0, 80.0], [99.5, 0.5]])) == 100
    assert unit_of(torch.tensor([[200.0, 800.0]])) == 1000
    assert unit_of(torch.tensor([[0.2, 0.7], [0.9, 0.9]])) == 1  # of a sigmoid: they sum to nothing
    assert unit_of(torch.tensor([[0.0, 0.0], [0.0, 0.0]])) == 1
    assert unit_of(torch.full((3, 4), 1e38)) is None
    for number in (torch.inf, -torch.inf, torch.nan):
        assert unit_of(torch.tensor([[number, 0.0], [1.0, 0.0]])) is None
    for logits in ([[3.0, 4.0]], [[3.0, 4.0], [3.0, 4.0]], [[0.0, 7.0], [0.0, 8.0]],  # as a ReLU gives them
                   [[0.2, 1.8], [1.0, 0.0]], [[0.2, -0.8], [1.0, 0.0]], [[20.0, 80.0], [99.5, 9.5]], [[-1.0, 101.0]]):
        assert unit_of(torch.tensor(logits)) is None


def test_a_photograph_is_a_copy_to_a_judge_and_a_flat_picture_is_none(targets, reference):
    for n in range(targets.chosen.shape[1]):
        assert (transfer(targets.photographs[:, n].float() / 255, reference)["copy"] >= 1 - 1e-5).all()
    assert (transfer(filled(targets, 0.5, 0.5, 0.5), reference)["copy"] < 1).all()


# ---- photographs that are held out -----------------------------------------------------------------------------------


def test_the_forced_choice_is_between_photographs_that_are_held_out(with_held_out, photographs):
    targets = with_held_out
    reference = transfer_reference(of_two_colours(), "features", targets, photographs)
    held_out = survey(reference.network, replace(photographs, paths=targets.held_out), "features").means
    assert torch.allclose(reference.held_out, held_out, atol=1e-5)
    assert torch.equal(reference.held_out_labels, targets.held_out_labels)

    def colours(facets):  # each the mean colour of the facet's held-out photographs, far out
        strong = torch.stack([held_out[targets.held_out_labels == c].mean(dim=0) for c in facets]) - reference.mean
        strong = 0.5 + strong / strong.norm(dim=1, keepdim=True) / 3
        pictures = torch.full_like(targets.initial, 0.5)
        pictures[:, [0, 2]] = strong[:, :, None, None]
        return pictures

    centred = replace(reference, mean=torch.full((2,), 0.5))
    right, wrong = transfer(colours([0, 1, 2]), centred), transfer(colours([1, 2, 0]), centred)
    assert right["forced_choice"].mean() > wrong["forced_choice"].mean()
    assert transfer(filled(targets, 0.2, 0.2, 0.6), centred)["forced_choice"].tolist() == [0.5, 0.5, 0.5]
    assert torch.equal(right["forced_choice_photographs"], wrong["forced_choice_photographs"])
    assert (right["forced_choice_photographs"] >= 0).all()


def test_a_held_out_photograph_that_is_gone_is_left_out(with_held_out, photographs):
    labels = with_held_out.held_out_labels
    more = replace(
        with_held_out,
        held_out=("gone.png", *with_held_out.held_out),
        held_out_labels=torch.cat([torch.tensor([2]), labels]),
    )
    reference = transfer_reference(of_two_colours(), "features", more, photographs)
    assert torch.equal(reference.held_out_labels, labels)
    assert len(reference.held_out) == len(labels)


def test_held_out_photographs_enter_nothing_else(network, targets, with_held_out, photographs, monkeypatch):
    """The picture and every other figure are the same without them, and nobody but the judge reads one."""
    read, reading = [], Photographs.read
    monkeypatch.setattr(Photographs, "read", lambda self, index: read.append(self.paths[index]) or reading(self, index))
    drawn = []
    for given in (targets, with_held_out):
        judge = transfer_reference(of_two_colours(), "features", given, photographs)
        before = len(read)
        drawn.append(me.visualize(network, given, me.Method(steps=2), me.Running(accelerator="cpu"), transfer=[judge]))
        assert len(read) == before
    assert len(read) == 2 * len(photographs) + len(with_held_out.held_out)
    without, beside = drawn
    assert torch.equal(without.images, beside.images)
    for name in without.features:
        assert torch.equal(without.features[name], beside.features[name])
    for given, other in zip(without.metrics["facets"], beside.metrics["facets"], strict=True):
        for figures in (other, *other["baselines"].values()):
            for name in [name for name in figures["transfer"] if name.startswith("forced_choice")]:
                assert 0 <= figures["transfer"].pop(name) <= 1
        assert given == other


# ---- in a run --------------------------------------------------------------------------------------------------------


def test_transfer_stands_in_every_row_and_baseline(network, targets, reference):
    compared = baselines(network, targets, Measuring(transfer=[reference]))
    assert set(compared) == {"initial", "nearest", "noise"}
    for rows in compared.values():
        assert len(rows) == 3
        assert set(rows[0]["transfer"]) == {"cosine", "retrieval", "copy", "agreement", "accuracy"}
    both = Measuring(transfer=[reference, replace(reference, name="other")])
    [first, *_] = measure(network, targets, targets.initial, both)
    assert set(first["transfer"]["networks"]) == {"two colours", "other"}
    assert first["transfer"]["networks"]["other"]["cosine"] == first["transfer"]["cosine"]
    assert summarise(compared["nearest"])["fidelity"]["cosine"] > summarise(compared["noise"])["fidelity"]["cosine"]


def test_a_run_has_every_figure_beside_its_baselines(network, targets, reference):
    result = me.visualize(network, targets, me.Method(steps=1), me.Running(accelerator="cpu"), transfer=[reference])
    kinds = result.metrics["baselines"]
    for row in result.metrics["facets"]:
        for figures in (row, *row["baselines"].values()):
            assert set(figures["transfer"]) >= {"gain", "agreement_gain", "copy", "accuracy"}
            assert {"copy", "path"} <= set(figures)
    assert kinds["initial"]["transfer"]["gain"] in (0, None)
    assert kinds["nearest"]["transfer"]["gain"] in (1, None)
    assert set(result.features) == {"pixels", "transfer.two colours"}
    assert result.features["transfer.two colours"].shape == (3, 2)

import json
import logging
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from mindseye.facets import FacetTargets, Photographs, discover_facets, load_photographs
from mindseye.facets.clusters import cluster
from mindseye.facets.discovery import choose, facet_weights
from mindseye.facets.embedding import embed, to_components
from mindseye.facets.targets import top_channels
from mindseye.networks import Network
from mindseye.settings import Facets

# ---- Eq. 1 -----------------------------------------------------------------------------------------------------


def test_published_weights_by_hand():
    d = [0.5, 1.0, 2.0]
    e = [math.exp(1 / (x + 1e-5)) for x in d]
    weights = facet_weights(torch.tensor([d]), "published")
    assert weights[0].tolist() == pytest.approx([x / sum(e) for x in e], abs=1e-6)


def test_calibrated_weights_by_hand():
    d = [1.0, 2.0, 6.0]  # their mean is 3
    e = [math.exp(1 / (x / 3 + 0.1)) for x in d]
    weights = facet_weights(torch.tensor([d]), "calibrated")
    assert weights[0].tolist() == pytest.approx([x / sum(e) for x in e], abs=1e-6)


@pytest.mark.parametrize("smallest", [1e-3, 1e-6, 0.0])
def test_published_weights_stay_finite_where_a_plain_exp_overflows(smallest):
    weights = facet_weights(torch.tensor([[smallest, 1.0, 2.0]]), "published")
    assert weights.isfinite().all()
    assert weights.sum().item() == pytest.approx(1)
    assert weights[0, 0] > 0.999  # 1/d of the nearest outgrows all others: the collapse that calibration is for


def test_calibrated_weights_do_not_depend_on_the_scale_of_the_embedding():
    d = torch.rand(3, 10, generator=torch.Generator().manual_seed(0)) + 0.1
    assert torch.allclose(facet_weights(d), facet_weights(d * 1000), atol=1e-6)
    assert not torch.allclose(facet_weights(d, "published"), facet_weights(d * 1000, "published"), atol=1e-2)


def test_equal_distances_give_equal_weights():
    for d in (0.0, 3.0):
        assert torch.allclose(facet_weights(torch.full((2, 4), d)), torch.full((2, 4), 0.25))


def test_an_unknown_weighting_is_refused():
    with pytest.raises(ValueError, match="calibrated or published"):
        facet_weights(torch.ones(1, 2), "other")


# ---- embedding, clusters, choice -------------------------------------------------------------------------------


def blobs(sizes, D=20, apart=20.0, seed=0):
    """Channel means [M, D] in as many well separated groups, and the group of each row."""
    generator = np.random.default_rng(seed)
    centres = generator.normal(size=(len(sizes), D)) * apart
    rows = [centres[c] + generator.normal(size=(size, D)) for c, size in enumerate(sizes)]
    return torch.tensor(np.concatenate(rows), dtype=torch.float32), np.repeat(np.arange(len(sizes)), sizes)


def components_of(means):
    return to_components(means, components=10, unit=True).reduced


def test_separate_groups_are_found_and_numbered_by_size():
    means, truth = blobs([10, 30, 20])
    labels, centres = cluster(components_of(means), 3)
    assert torch.bincount(labels).tolist() == [30, 20, 10]
    for group in range(3):
        assert len(set(labels[truth == group].tolist())) == 1
    assert centres.shape == (3, 10)


def test_the_same_seed_gives_the_same_bytes():
    means, _ = blobs([12, 12])
    reduced = components_of(means)
    assert torch.equal(embed(reduced, seed=4), embed(reduced, seed=4))
    assert not torch.equal(embed(reduced, seed=4), embed(reduced, seed=5))


@pytest.mark.parametrize("M", [1, 2, 3, 5, 6, 7, 10])
def test_few_photographs_have_an_embedding_too(M):
    means, _ = blobs([M])
    embedding = embed(components_of(means))
    assert embedding.shape == (M, 2)
    assert embedding.isfinite().all()


@pytest.mark.parametrize("gamma", [0.0, -1.0, float("nan")])
@pytest.mark.parametrize("weighting", ["calibrated", "published"])
def test_a_gamma_of_no_weights_is_refused(gamma, weighting):
    with pytest.raises(ValueError, match=r"^gamma must be above 0, not "):
        facet_weights(torch.tensor([[0.0, 1.0]]), weighting, gamma)


def test_choice_by_distance():
    embedding = torch.tensor([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0], [10.0, 0.0], [3.0, 0.0]])
    labels = torch.tensor([0, 0, 0, 1, 1])
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0]])
    nearest, distances = choose(embedding, labels, centres, 3, "nearest")
    assert nearest.tolist() == [[0, 1, 2], [3, 4, 2]]
    assert distances.tolist() == [[0, 1, 2], [0, 7, 8]]
    assert choose(embedding, labels, centres, 2, "farthest")[0].tolist() == [[3, 4], [0, 1]]
    members, _ = choose(embedding, torch.tensor([1, 0, 0, 1, 1]), centres, 3, "nearest_members")
    assert members.tolist() == [[1, 2, 0], [3, 4, 0]]  # facet 0 has two members: the nearest other fills up


def test_more_facets_than_different_photographs():
    with pytest.raises(ValueError, match="C=3"):
        cluster(torch.tensor([[0.0, 0.0], [0.0, 0.0], [1.0, 1.0]]), 3)


def test_top_channels_by_spatial_mean_with_ties_in_order():
    maps = torch.zeros(1, 4, 2, 2)
    maps[0, 2] = 1.0
    maps[0, 3, 0, 0] = 2.0  # mean 0.5
    assert top_channels(maps, 4).tolist() == [[2, 3, 0, 1]]
    with pytest.raises(ValueError, match="1 to 4"):
        top_channels(maps, 5)


# ---- the whole of it -------------------------------------------------------------------------------------------


class Colours(nn.Module):
    """Channels that are the image's own: what a facet must come to can be said beforehand."""

    def __init__(self):
        super().__init__()
        self.same = nn.Conv2d(3, 3, 1, bias=False)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flat = nn.Flatten()
        self.fc = nn.Linear(3, 3, bias=False)
        with torch.no_grad():
            self.same.weight.copy_(torch.eye(3)[:, :, None, None])
            self.fc.weight.copy_(torch.eye(3))

    def forward(self, x):
        return self.fc(self.flat(self.pool(self.same(x))))


def colours():
    return Network(Colours(), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "colours", 8)


@pytest.fixture
def coloured(tmp_path):
    """Nine reds, six greens, three blues, each of a slightly different shade."""
    for name, base, count in (("r", (200, 20, 20), 9), ("g", (20, 200, 20), 6), ("b", (20, 20, 200), 3)):
        for i in range(count):
            Image.new("RGB", (8, 8), tuple(value + i for value in base)).save(tmp_path / f"{name}{i}.png")
    return load_photographs(tmp_path, size=8)


def test_targets_are_what_the_chosen_photographs_give(coloured):
    targets = discover_facets(colours(), coloured, "same", Facets(C=3, k=1, N=3))
    assert targets.channels[:, 0].tolist() == [0, 1, 2]  # red, green, blue: by size of the cluster
    images = targets.photographs.float() / 255
    assert torch.allclose(targets.initial, (targets.weights[:, :, None, None, None] * images).sum(dim=1), atol=1e-6)
    assert torch.allclose(targets.maps, targets.initial, atol=1e-6)  # its channels are the colours themselves
    assert torch.allclose(targets.weights.sum(dim=1), torch.ones(3))
    assert targets.mean_activation.shape == (3,)


def test_the_same_call_twice_gives_the_same_bytes(network, photographs, targets):
    again = discover_facets(network, photographs, targets.layer, Facets(C=3, k=8, N=4))
    assert again.content_hash() == targets.content_hash()
    other = discover_facets(network, photographs, targets.layer, Facets(C=3, k=9, N=4))
    assert other.content_hash() != targets.content_hash()


def test_batch_size_changes_nothing(network, photographs, targets):
    again = discover_facets(network, photographs, targets.layer, Facets(C=3, k=8, N=4, batch_size=5))
    assert torch.equal(again.chosen, targets.chosen)
    assert torch.allclose(again.maps, targets.maps, atol=1e-5)


def test_a_pooled_layer_has_maps_of_one_pixel(coloured):
    targets = discover_facets(colours(), coloured, "fc", Facets(C=3, k=2, N=3))
    assert targets.maps.shape == (3, 3, 1, 1)
    assert targets.channels[:, 0].tolist() == [0, 1, 2]


def test_fewer_than_all_facets_need(coloured, caplog):
    with caplog.at_level(logging.WARNING):
        targets = discover_facets(colours(), coloured, "same", Facets(C=3, k=1, N=10))
    assert targets.chosen.shape == (3, 10)
    assert "fewer than C·N" in caplog.text


def test_one_photograph_is_one_facet(tmp_path):
    Image.new("RGB", (8, 8), (200, 20, 20)).save(tmp_path / "a.png")
    targets = discover_facets(colours(), load_photographs(tmp_path, 8), "same", Facets(C=1, k=1))
    assert targets.chosen.tolist() == [[0]]
    assert torch.allclose(targets.initial[0, :, 0, 0], torch.tensor([200.0, 20.0, 20.0]) / 255)


@pytest.mark.parametrize("copies", [2, 5, 8, 40])
def test_copies_of_one_photograph_are_one_facet_and_no_more(tmp_path, copies):
    for i in range(copies):
        Image.new("RGB", (8, 8), (90, 80, 70)).save(tmp_path / f"{i:02d}.png")
    photographs = load_photographs(tmp_path, 8)
    targets = discover_facets(colours(), photographs, "same", Facets(C=1, k=1))
    assert torch.allclose(targets.weights, torch.full_like(targets.weights, 1 / targets.weights.shape[1]))
    with pytest.raises(ValueError, match="tells 1 apart"):
        discover_facets(colours(), photographs, "same", Facets(C=2, k=1))


class NeedsItsSize(Colours):
    """As many networks do: refuses every size but its own, or one smaller than its kernels."""

    def forward(self, x):
        assert x.shape[-1] == 16, "Wrong image height! Expected 16"
        return super().forward(x)


def test_more_channels_than_there_are_cost_no_look_at_a_photograph(network, photographs, monkeypatch):
    def read(*arguments, **named):
        raise AssertionError("a photograph was looked at")

    monkeypatch.setattr(Photographs, "read", read)
    monkeypatch.setattr(Photographs, "batches", read)
    with pytest.raises(ValueError, match=r"k must be 1 to 96 \(the channels of layer3.0\), not 97"):
        discover_facets(network, photographs, "layer3.0", Facets(C=2, k=97))


def test_a_size_that_the_network_does_not_take(coloured):
    picky = Network(NeedsItsSize(), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "picky", 16)
    with pytest.raises(ValueError, match=r"cannot look at 8×8 images.*another size"):
        discover_facets(picky, coloured, "same", Facets(C=3, k=1))
    body = nn.Sequential(nn.Conv2d(3, 4, 11))
    large = Network(body, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "large kernels", 16)
    with pytest.raises(ValueError, match=r"cannot look at 8×8 images.*another size"):
        discover_facets(large, coloured, "0", Facets(C=3, k=1))


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"C": 19}, "C=19 facets need at least as many photographs"),
        ({"C": 0}, "C must be a whole number of 1 or more or auto, not 0"),
        ({"k": 4}, r"k must be 1 to 3 \(the channels of same\), not 4"),
        ({"k": 0}, "k must be a whole number of 1 or more, not 0"),
        ({"layer": "flat.0"}, "flat"),
    ],
)
def test_what_cannot_be_done_is_one_line(coloured, asked, message):
    settings = {"layer": "same", "C": 3, "k": 1, **asked}
    layer = settings.pop("layer")
    with pytest.raises(ValueError, match=message) as caught:
        discover_facets(colours(), coloured, layer, Facets(**settings))
    assert "\n" not in str(caught.value)


def test_unreadable_files_are_left_out_and_named(coloured, caplog):
    (coloured.root / "broken.png").write_bytes(b"no picture")
    with caplog.at_level(logging.INFO):
        targets = discover_facets(colours(), load_photographs(coloured.root, 8), "same", Facets(C=3, k=1, N=3))
    assert [file.path for file in targets.skipped] == ["broken.png"]
    assert "broken.png" not in targets.paths
    assert "broken.png" in caplog.text
    for path in coloured.root.iterdir():
        path.write_bytes(b"no picture")
    with pytest.raises(ValueError, match="none of the 19"):
        discover_facets(colours(), load_photographs(coloured.root, 8), "same", Facets(C=3, k=1, N=3))


@pytest.mark.parametrize("seed", [0, 7, 11, 23])
def test_counts_that_use_few_levels_are_told_of_black_and_white(seed, tmp_path, caplog):
    """12 bits in a 16-bit file: what the network would see is hardly a picture."""
    counts = np.random.default_rng(seed).integers(200, 4000, (8, 8, 8), dtype=np.uint16)
    for number, count in enumerate(counts):
        np.save(tmp_path / f"{number}.npy", count)
    network = Network(nn.Sequential(nn.Conv2d(1, 4, 3)), [0.0], [1.0], "counts", 8)
    # N is all of them, so that what is said does not stand on which are chosen, and every channel counts: an untrained
    # one may answer nothing.
    discover_facets(network, load_photographs(tmp_path, 8, 1), "0", Facets(C=2, k=4, N=8, seed=seed))
    assert "use 16 of 256 levels" in caplog.text
    assert "raw counts need black and white" in caplog.text
    caplog.clear()
    discover_facets(network, load_photographs(tmp_path, 8, 1, black=0, white=4095), "0", Facets(C=2, k=4, N=8))
    assert "levels" not in caplog.text


def test_activations_that_are_no_numbers(coloured):
    network = colours()
    network.body.same.weight.data[0, 0] = float("nan")
    with pytest.raises(ValueError, match="NaN"):
        discover_facets(network, coloured, "same", Facets(C=3, k=1))


def test_a_facet_that_the_layer_is_silent_about_is_refused(coloured):
    network = colours()
    network.body.same.weight.data[1:] = 0  # green and blue photographs get no answer beside a little red
    network.body.same.bias = nn.Parameter(torch.tensor([-30 / 255, 0.0, 0.0]), requires_grad=False)
    network.body.same.register_forward_hook(lambda layer, images, maps: maps.relu())
    for facets in (2, 3):
        with pytest.raises(ValueError, match=r"layer same answers none of the photographs of facet \d.*another layer"):
            discover_facets(network, coloured, "same", Facets(C=facets, k=1, N=3))


class ChannelsLast(nn.Module):
    """As the stages of a Swin transformer: maps [B, H', W', D]."""

    def forward(self, maps):
        return maps.permute(0, 2, 3, 1)


def test_a_layer_that_gives_its_channels_last(coloured):
    body = nn.Sequential(Colours().same, ChannelsLast())
    network = Network(body, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "channels last", 8)
    first, last = (discover_facets(network, coloured, layer, Facets(C=3, k=1, N=3)) for layer in ("0", "1"))
    assert last.maps.shape == (3, 3, 8, 8)
    assert torch.equal(last.maps, first.maps)


# ---- kept on disk ----------------------------------------------------------------------------------------------


def test_targets_are_read_back_as_they_were(targets, tmp_path):
    targets.save(tmp_path)
    read = FacetTargets.load(tmp_path)
    assert read.content_hash() == targets.content_hash()
    assert torch.equal(read.maps, targets.maps)
    assert read.paths == targets.paths
    assert sorted(path.name for path in tmp_path.iterdir()) == ["targets.json", "targets.safetensors"]


def test_targets_of_a_version_that_did_not_know_the_photographs_bytes_are_read(targets, tmp_path):
    assert len(targets.content) == 64
    older = replace(targets, content="")
    older.save(tmp_path)
    assert "content" not in json.loads((tmp_path / "targets.json").read_text())
    assert FacetTargets.load(tmp_path).content_hash() == older.content_hash() != targets.content_hash()


def test_damaged_targets_are_refused(targets, tmp_path):
    targets.save(tmp_path)
    content = bytearray((tmp_path / "targets.safetensors").read_bytes())
    content[-5] ^= 1
    (tmp_path / "targets.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match="damaged"):
        FacetTargets.load(tmp_path)
    (tmp_path / "targets.json").unlink()
    with pytest.raises(ValueError, match="no readable"):
        FacetTargets.load(tmp_path)


def test_another_k_takes_the_same_facets(targets):
    assert torch.equal(targets.with_k(4).channels, targets.channels[:, :4])

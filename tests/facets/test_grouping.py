"""Facets that hold: clusters that come out again, blends of several photographs, photographs set aside."""

import json
import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

from mindseye.facets import FacetTargets, discover_facets, load_photographs
from mindseye.facets.clarity import clarity, redundancy
from mindseye.facets.clusters import by_size, cluster, find_clusters, nearest_cluster
from mindseye.facets.discovery import choose, facet_weights
from mindseye.facets.embedding import embed, to_components
from mindseye.facets.firmness import FIRM, ROUNDING, TF32, Draws, measure_firmness
from mindseye.facets.number import choose_number
from mindseye.networks import Network
from mindseye.settings import Facets


def kinds(sizes, D=30, apart=3.0, seed=0):
    """Channel means [M, D] above 0 in as many kinds, and the kind of each row."""
    generator = np.random.default_rng(seed)
    centres = generator.exponential(apart, (len(sizes), D))
    truth = np.repeat(np.arange(len(sizes)), sizes)
    rows = centres[truth] * (1 + 0.1 * generator.standard_normal((len(truth), D)))
    return torch.tensor(rows, dtype=torch.float32), truth


def cloud(M, D=8, seed=0):
    """One continuum: points of a single normal distribution."""
    return torch.tensor(np.random.default_rng(seed).normal(size=(M, D)))


# ---- k-means -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("M", "C"), [(40, 2), (150, 4), (150, 9)])
def test_no_start_of_scikit_learn_s_finds_better_clusters(M, C):
    points = cloud(M)
    labels, centres = cluster(points, C)
    inertia = float((points - centres.double()[labels]).square().sum())
    assert inertia <= KMeans(C, n_init=50, random_state=0).fit(points.numpy()).inertia_ * (1 + 1e-6)
    assert torch.equal(labels, nearest_cluster(points, centres))


def test_clusters_are_the_same_whatever_moves_and_turns_the_points():
    points, turn = cloud(100), torch.linalg.qr(cloud(8, seed=1))[0]
    labels, _ = cluster(points, 3)
    assert torch.equal(cluster(points @ turn + 100, 3)[0], labels)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("means", "noise"), [((cloud(150, D=40) + 10).float(), ROUNDING), (kinds([60, 50, 40])[0], TF32)]
)
def test_another_device_s_rounding_moves_no_photograph(means, noise, seed):
    """With the same seed: a millionth none of one continuum, and TF32's ten bits none of separate kinds."""
    other = means * (1 + noise * cloud(150, D=means.shape[1], seed=100 + seed).float())
    labels, again = (cluster(to_components(m, components=10, unit=True).reduced, 3)[0] for m in (means, other))
    assert torch.equal(labels, again)


def test_equally_large_clusters_are_numbered_by_their_first_photograph():
    assert by_size(torch.tensor([2, 1, 2, 1, 0]), 3).tolist() == [0, 1, 0, 1, 2]
    points = torch.tensor([[0.0], [9.0], [0.1], [9.1]])
    for seed in range(5):
        assert cluster(points, 2, seed=seed)[0].tolist() == [0, 1, 0, 1]


def test_many_points_join_what_some_of_them_found(monkeypatch):
    monkeypatch.setattr("mindseye.facets.clusters.MOST_FOR_STARTS", 50)
    means, truth = kinds([200, 150, 100])
    assert adjusted_rand_score(truth, cluster(means, 3)[0]) == 1


@pytest.mark.parametrize("way", ["components", "embedding", "consensus"])
def test_every_way_finds_separate_kinds(way):
    means, truth = kinds([20, 14, 9])
    components = to_components(means, components=10, unit=True)
    clusters = find_clusters(way, components.reduced, lambda rows, seed: embed(rows, seed=seed), 3, runs=3)
    assert adjusted_rand_score(truth, clusters.labels) == 1
    assert torch.bincount(clusters.labels).tolist() == [20, 14, 9]
    expected = torch.stack([clusters.space[clusters.labels == c].double().mean(dim=0) for c in range(3)])
    assert torch.allclose(clusters.centres.double(), expected, atol=1e-4)


def test_strength_makes_no_other_kind():
    means, truth = kinds([20, 20])
    strong = means * torch.linspace(1, 20, 40)[torch.randperm(40, generator=torch.Generator().manual_seed(0)), None]
    labels, _ = cluster(to_components(strong, components=10, unit=True).reduced, 2)
    assert adjusted_rand_score(truth, labels) == 1
    grey = torch.tensor([[1.0], [1.1], [5.0], [5.1]]).expand(4, 3)  # nothing but strength: then it tells them apart
    assert cluster(to_components(grey, components=10, unit=True).reduced, 2)[0].tolist() == [0, 0, 1, 1]


def test_further_photographs_are_placed_where_they_would_lie():
    means, _ = kinds([20, 14])
    for unit in (True, False):
        components = to_components(means, components=10, unit=unit)
        assert torch.allclose(components.place(means), components.reduced, atol=1e-4)


def test_copies_lie_at_one_place():
    means, _ = kinds([7, 6])
    reduced = to_components(means.repeat(9, 1), components=10, unit=True).reduced
    assert len(torch.unique(reduced, dim=0)) == 13


# ---- firmness ----------------------------------------------------------------------------------------------------


def firmness_of(means, C, draws=None):
    def again(means, seed):
        return cluster(to_components(means, components=10, unit=True).reduced, C, seed=seed, starts=20)[0]

    space = to_components(means, components=10, unit=True).reduced
    labels, _ = cluster(space, C)
    return measure_firmness(means, labels, C, space, again, draws=draws), labels


def test_kinds_are_firm_and_a_cloud_is_not():
    means, _ = kinds([20, 15, 10])
    firm, _ = firmness_of(means, 3)
    assert firm.agreement.tolist() == [1, 1, 1]
    assert firm.facets.tolist() == [1, 1, 1]
    assert firm.stays.tolist() == [1] * 45
    loose, _ = firmness_of((cloud(60, D=12) + 10).float(), 5)
    assert loose.agreement[2] < 0.75
    assert loose.facets.min() < FIRM
    assert loose.stays.min() < 1


def test_a_kind_among_a_continuum_is_firm_alone():
    blob, continuum = torch.zeros(30, 12), cloud(80, D=12, seed=1).float()
    means = torch.cat([blob + 0.1 * cloud(30, D=12).float() + 8 * torch.eye(12)[0], continuum]) + 20
    firm, labels = firmness_of(means, 5)
    own = labels[:30].mode().values
    assert firm.facets[own] > 0.95
    assert firm.stays[:30].min() > 0.9
    assert firm.facets.min() < 0.8


def test_of_many_photographs_some_are_drawn_and_the_others_stay_as_these():
    means, _ = kinds([60, 40, 20])
    firm, _ = firmness_of(means, 3, Draws((1, 1, 2), 40))
    assert len(firm.stays) == 120
    assert firm.stays.min() == 1


def test_rounding_is_drawn_of_all_photographs_that_can_be_afforded():
    """Of a thousand at a layer of few channels: a draw of some of them would not be one of rounding alone."""
    means, labels, seen = torch.rand(1000, 8), torch.arange(1000) % 2, []

    def noted(means, seed):
        seen.append(means)
        return torch.zeros(len(means), dtype=torch.int64)

    measure_firmness(means, labels, 2, means, noted)
    assert torch.allclose(seen[0], means, rtol=1e-5)
    assert not torch.equal(seen[0], means)
    assert [len(drawn) for drawn in seen] == [1000, 1000] + [800] * 6


def test_a_draw_that_cannot_be_clustered_is_no_agreement():
    def fails(means, seed):
        raise ValueError("too few")

    means, _ = kinds([6, 4])
    labels = torch.tensor([0] * 6 + [1] * 4)
    assert measure_firmness(means, labels, 2, means, fails).facets.max() <= 0.6


def test_photographs_that_leave_their_facet_stand_for_none():
    space = torch.tensor([[0.0], [0.1], [0.2], [0.3], [5.0], [5.1]])
    labels, centres = torch.tensor([0, 0, 0, 0, 1, 1]), torch.tensor([[0.0], [5.0]])
    stays = torch.tensor([0.1, 1.0, 1.0, 0.2, 1.0, 1.0])
    chosen, distances = choose(space, labels, centres, 2, "staying", stays)
    assert chosen.tolist() == [[1, 2], [4, 5]]
    assert torch.allclose(distances, torch.tensor([[0.1, 0.2], [0.0, 0.1]]), atol=1e-6)
    # Where too few stay the cluster's others fill up, nearest first, and then all the rest.
    assert choose(space, labels, centres, 5, "staying", stays)[0].tolist() == [[1, 2, 0, 3, 4], [4, 5, 3, 2, 1]]


# ---- Eq. 1 -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("effective", [1.5, 3.0, 6.0, 9.5])
@pytest.mark.parametrize("weighting", ["calibrated", "published"])
def test_blends_are_of_as_many_photographs_as_are_asked_for(effective, weighting):
    generator = torch.Generator().manual_seed(0)
    d = torch.rand(20, 10, generator=generator).sort(dim=1).values * 10 ** (torch.rand(20, 1, generator=generator) * 6)
    d[0, 0] = 0.0  # right at its centre
    weights = facet_weights(d, weighting, effective=effective)
    assert torch.allclose(1 / weights.square().sum(dim=1), torch.tensor(effective), rtol=1e-3)
    assert torch.allclose(weights.sum(dim=1), torch.ones(20), atol=1e-5)
    assert (weights.diff(dim=1) <= 1e-6).all()  # the nearer, the more


def test_blends_of_no_more_photographs_than_there_are():
    d = torch.tensor([[0.1, 0.5, 2.0], [1.0, 1.0, 1.0]])
    assert torch.allclose(facet_weights(d, effective=6.0), torch.full((2, 3), 1 / 3), atol=1e-4)
    assert torch.allclose(facet_weights(d, effective=3.0), torch.full((2, 3), 1 / 3), atol=1e-3)
    ties = facet_weights(torch.tensor([[1.0, 1.0, 5.0]]), effective=1.0)  # two are the nearest: no fewer can have all
    assert torch.allclose(ties, torch.tensor([[0.5, 0.5, 0.0]]), atol=1e-6)
    with pytest.raises(ValueError, match="effective must be a number of 1 or more"):
        facet_weights(d, effective=0.5)


# ---- C -----------------------------------------------------------------------------------------------------------


def number(means):
    def points(rows):
        return to_components(means[rows], components=10, unit=False).reduced

    return choose_number(points(torch.arange(len(means))), points, range(2, 7))


def test_as_many_kinds_are_found_as_there_are():
    means, _ = kinds([14, 12, 10])
    choice = number(means)
    assert (choice.best, choice.kinds) == (3, True)
    assert "C=3 tells kinds apart best" in choice.reason


def test_a_cloud_is_one_continuum():
    choice = number(cloud(80).float())
    assert not choice.kinds
    assert "one continuum" in choice.reason


def test_too_few_for_any_number():
    with pytest.raises(ValueError, match=r"not 1: give C=1$"):
        number(torch.ones(5, 3))
    with pytest.raises(ValueError, match=r"not 2: give C=1 or C=2$"):
        number(torch.eye(2).repeat(5, 1))
    with pytest.raises(ValueError, match=r"C must be 2 to 4, fewer than .*, not 5, 9"):
        choose_number(torch.eye(5), lambda rows: torch.eye(5)[rows], [5, 9])


# ---- is a facet worth drawing ------------------------------------------------------------------------------------


def test_clarity_is_the_mean_cosine_of_two_photographs():
    features, mean = cloud(24, D=5).reshape(3, 8, 5), torch.full((5,), 0.3)
    units = torch.nn.functional.normalize(features - mean, dim=2)
    cosines = units @ units.transpose(1, 2)
    expected = (cosines.sum(dim=(1, 2)) - 8) / (8 * 7)
    assert torch.allclose(clarity(features, mean).double(), expected, atol=1e-6)
    same = torch.ones(1, 4, 5)
    assert clarity(same, torch.zeros(5)).item() == pytest.approx(1)
    assert clarity(features[:, :1], mean).isnan().all()


def test_redundancy_is_the_likeness_to_the_nearest_other_facet():
    x, y = torch.eye(4)[0], torch.eye(4)[1]
    facets = torch.stack([x, x + 0.0, y])[:, None].expand(3, 6, 4)
    assert redundancy(facets, torch.zeros(4)).tolist() == pytest.approx([1, 1, 0])
    assert redundancy(facets[:1], torch.zeros(4)).isnan().all()


# ---- the whole of it ---------------------------------------------------------------------------------------------


def first_two(folder, count=60):
    """Reds and greens, and a network whose channels are the colours."""
    for i in range(count):
        shade = (40 + i, 8 + i % 7, 9) if i % 2 else (9, 40 + i, 8 + i % 5)
        Image.new("RGB", (8, 8), shade).save(folder / f"{i:03d}.png")
    same = torch.nn.Conv2d(3, 3, 1, bias=False)
    with torch.no_grad():
        same.weight.copy_(torch.eye(3)[:, :, None, None])
    return load_photographs(folder, 8), Network(torch.nn.Sequential(same), (0.0,) * 3, (1.0,) * 3, "colours", 8)


def test_held_out_photographs_take_part_in_nothing(tmp_path):
    photographs, network = first_two(tmp_path)
    targets = discover_facets(network, photographs, "0", Facets(C=2, k=1, N=3, held_out=0.25))
    assert len(targets.held_out) == 15
    assert sorted([*targets.paths, *targets.held_out]) == sorted(photographs.paths)
    assert len(targets.labels) == len(targets.stays) == 45
    kind = {int(path[:3]) % 2: int(label) for path, label in zip(targets.paths, targets.labels, strict=True)}
    assert [kind[int(path[:3]) % 2] for path in targets.held_out] == targets.held_out_labels.tolist()
    # Without them in the folder the facets are the same.
    for path in targets.held_out:
        (tmp_path / path).unlink()
    alone = discover_facets(network, load_photographs(tmp_path, 8), "0", Facets(C=2, k=1, N=3, held_out=0.0))
    assert alone.paths == targets.paths
    assert torch.equal(alone.labels, targets.labels)
    assert torch.allclose(alone.maps, targets.maps)
    assert alone.content == targets.content
    assert alone.held_out == ()


def test_no_copy_of_a_photograph_that_takes_part_is_held_out(tmp_path):
    _, network = first_two(tmp_path)
    for path in sorted(tmp_path.glob("*.png"))[:20]:
        (tmp_path / f"copy-{path.name}").write_bytes(path.read_bytes())
    photographs = load_photographs(tmp_path, 8)
    targets = discover_facets(network, photographs, "0", Facets(C=2, k=1, N=3, held_out=0.25))
    used = {(tmp_path / path).read_bytes() for path in targets.paths}
    assert sorted([*targets.paths, *targets.held_out]) == sorted(photographs.paths)
    assert 10 <= len(targets.held_out) < 20
    assert not [path for path in targets.held_out if (tmp_path / path).read_bytes() in used]


def test_few_photographs_are_all_used(tmp_path):
    photographs, network = first_two(tmp_path, 29)
    assert discover_facets(network, photographs, "0", Facets(C=2, k=1, N=3)).held_out == ()


@pytest.mark.parametrize(("continuum", "level"), [(False, "INFO"), (True, "WARNING")])
def test_what_c_auto_takes_is_said_and_a_continuum_to_the_terminal(tmp_path, caplog, continuum, level):
    """Terminals show warnings. Two colours are two kinds; shades between them are one continuum."""
    photographs, network = first_two(tmp_path, 40)
    if continuum:
        for i, path in enumerate(sorted(tmp_path.glob("*.png"))):
            Image.new("RGB", (8, 8), (40 + 4 * i, 200 - 4 * i, 9)).save(path)
    with caplog.at_level(logging.INFO, "mindseye.facets.grouping"):
        targets = discover_facets(network, photographs, "0", Facets(C="auto", k=1, N=2, held_out=0.0))
    [said] = [record for record in caplog.records if record.message.startswith("C=auto: ")]
    assert said.levelname == level
    assert f"C={targets.C} " in said.message
    assert ("one continuum" in said.message) == continuum


@pytest.mark.parametrize("clusters", ["components", "embedding"])
def test_what_was_held_out_and_how_firm_facets_are_is_read_back(tmp_path, clusters):
    photographs, network = first_two(tmp_path, 40)
    targets = discover_facets(
        network,
        photographs,
        "0",
        Facets(
            C="auto" if clusters == "components" else 2,
            k=1,
            N=2,
            held_out=0.2 if clusters == "embedding" else 0.0,
            clusters=clusters,
        ),
    )
    assert targets.C == 2
    targets.save(tmp_path / "kept")
    read = FacetTargets.load(tmp_path / "kept")
    assert read.content_hash() == targets.content_hash()
    for name in ("held_out_labels", "firmness", "agreement", "stays", "clarity", "redundancy"):
        assert torch.equal(getattr(read, name), getattr(targets, name)), name
    content = json.loads((tmp_path / "kept" / "targets.json").read_text())
    assert ("held_out" in content) == (clusters == "embedding")
    about = content["about"]["facets"]
    assert [facet["photographs"] for facet in about] == targets.labels.bincount().tolist()
    assert [facet["firmness"] for facet in about] == pytest.approx(targets.firmness.tolist(), abs=1e-4)
    assert [facet["marks"] for facet in about] == targets.marks()
    assert list(content["about"]["agreement"].values()) == pytest.approx(targets.agreement.tolist(), abs=1e-4)
    assert content["about"]["stays"] == pytest.approx(targets.stays.tolist(), abs=1e-4)


def test_facets_that_are_one_photograph_are_marked(tmp_path, caplog):
    photographs, network = first_two(tmp_path, 40)
    paper = {"clusters": "embedding", "weighting": "published", "effective": None, "selection": "nearest"}
    with caplog.at_level(logging.WARNING):
        targets = discover_facets(network, photographs, "0", Facets(C=2, k=1, N=3, gamma=1e-9, **paper))
    single = [c for c in range(2) if targets.weights[c].max() > 0.5]
    assert [c for c, marks in enumerate(targets.marks()) if "one photograph" in marks] == single
    assert ("one photograph" in caplog.text) == bool(single)
    blended = discover_facets(network, photographs, "0", Facets(C=2, k=1, N=10))
    assert blended.weights.max() < 0.5
    assert torch.allclose(blended.effective, torch.full((2,), 6.0), rtol=1e-3)


def test_a_facet_that_is_blended_of_other_facets_photographs_is_marked(tmp_path, caplog):
    """One blue among reds: of the ten photographs that stand for it nine are not its own."""
    photographs, network = first_two(tmp_path, 40)
    for path in sorted(tmp_path.glob("*.png"))[::2]:
        path.unlink()  # the greens
    Image.new("RGB", (8, 8), (9, 8, 200)).save(tmp_path / "blue.png")
    photographs = load_photographs(tmp_path, 8)
    with caplog.at_level(logging.WARNING):
        targets = discover_facets(network, photographs, "0", Facets(C=2, k=1, N=10))
    assert targets.labels.bincount().tolist() == [20, 1]
    assert targets.marks() == [[], ["mostly others'"]]
    assert "facet 1: more than half the weight is on photographs of other facets" in caplog.text
    alone = discover_facets(network, photographs, "0", Facets(C=2, k=1, N=1))
    assert alone.marks() == [[], []]


def test_the_released_program_s_choice_is_told_once_and_marks_no_facet(tmp_path, caplog):
    photographs, network = first_two(tmp_path, 40)
    with caplog.at_level(logging.INFO):
        targets = discover_facets(network, photographs, "0", Facets(C=2, k=1, N=3, selection="farthest"))
    assert (targets.labels[targets.chosen] != torch.arange(2)[:, None]).all()
    assert targets.marks() == [[], []]
    assert caplog.text.count("is mostly others'") == 1
    assert "more than half the weight" not in caplog.text
    again = FacetTargets.load(targets.save(tmp_path / "targets"))
    assert again.marks() == [[], []]
    assert replace(again, farthest=False).marks() == [["mostly others'"]] * 2
    assert again.content_hash() == targets.content_hash() != replace(again, farthest=False).content_hash()


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"clusters": "tsne"}, "clusters must be components, embedding or consensus, not tsne"),
        ({"effective": 0.9}, "effective must be a number of 1 or more"),
        ({"held_out": 0.6}, "held_out must be a number of 0 to 0.5, not 0.6"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path, asked, message):
    photographs, network = first_two(tmp_path, 6)
    with pytest.raises(ValueError, match=message):
        discover_facets(network, photographs, "0", Facets(C=2, k=1, N=2, **asked))

import importlib.util
import tracemalloc

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score

import mindseye.facets.embedding
from mindseye.facets.clusters import cluster
from mindseye.facets.embedding import (
    count_different,
    pick_method,
    place,
    principal_components,
    reduce_quickly,
    to_components,
)
from mindseye.facets.embedding import embed as embed_components

installed = importlib.util.find_spec("openTSNE") is not None
with_fft = pytest.param("fft", marks=pytest.mark.skipif(not installed, reason="needs openTSNE"))


def blobs(M, groups=5, D=40, apart=4.0, seed=0):
    """Channel means [M, D] in well separated groups, and the group of each row."""
    generator = np.random.default_rng(seed)
    truth = generator.integers(0, groups, M)
    centres = generator.normal(size=(groups, D)) * apart
    return torch.tensor(centres[truth] + generator.normal(size=(M, D)), dtype=torch.float32), truth


def embed(means, **settings):
    return embed_components(to_components(means, components=50, unit=False).reduced, **settings)


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(mindseye.facets.embedding, "CHUNK", 64)


@pytest.fixture(autouse=True)
def few_iterations(monkeypatch):
    """An iteration of openTSNE costs 20 ms for the fewest of points."""
    monkeypatch.setattr(mindseye.facets.embedding, "EXAGGERATED", 60)
    monkeypatch.setattr(mindseye.facets.embedding, "PLAIN", 40)


# ---- principal components --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("M", "D", "components"), [(500, 30, 10), (65, 64, 50), (1000, 3, 50), (200, 1, 5)])
def test_components_by_chunks_are_those_of_scikit_learn(small_chunks, M, D, components):
    generator = np.random.default_rng(1)
    # Channels of very different strength, far from zero, as a ReLU's means are.
    means = 5 + generator.normal(size=(M, D)) * np.geomspace(1, 1e-3, D)
    means = torch.tensor(means, dtype=torch.float32)
    ours = principal_components(means, components)
    theirs = PCA(min(components, D), svd_solver="full").fit_transform(means.double().numpy())
    assert ours.shape == theirs.shape
    signs = np.sign((ours * theirs).sum(axis=0))
    np.testing.assert_allclose(ours * signs, theirs, atol=1e-9)


def test_few_photographs_take_scikit_learn_s_own_path():
    means, _ = blobs(100)
    theirs = PCA(20, svd_solver="full").fit_transform(means.double().numpy())
    assert np.array_equal(principal_components(means, 20), theirs)


@pytest.mark.parametrize(("M", "D"), [(90, 30), (30, 90), (40, 40), (12, 5), (2, 7), (60, 1)])
@pytest.mark.parametrize("unit", [True, False])
def test_components_found_quickly_are_the_same_but_for_their_signs(M, D, unit):
    means = torch.rand(M, D, generator=torch.Generator().manual_seed(0)) + 0.1
    means[1::7] = means[0]  # copies
    exact = to_components(means, components=8, unit=unit).reduced
    quick = reduce_quickly(means, components=8, unit=unit)
    assert quick.shape == exact.shape
    assert torch.allclose(torch.cdist(quick, quick), torch.cdist(exact, exact), atol=1e-6)
    assert (quick[1::7] == quick[0]).all()


def test_components_of_copies_are_zero(small_chunks):
    assert np.abs(principal_components(torch.full((200, 7), 0.3), 5)).max() < 1e-6


def test_memory_is_bounded_by_the_chunk_and_not_by_the_photographs():
    means, _ = blobs(30_000, D=256)  # 31 MB; as float64 61 MB
    tracemalloc.start()
    principal_components(means, 50)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    result, chunk, scatter = 30_000 * 50 * 8, 4096 * 256 * 8, 256 * 256 * 8
    assert peak < result + 3 * chunk + 4 * scatter


# ---- t-SNE -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("tsne", ["subsample", with_fft])
def test_large_sets_give_the_clusters_of_the_whole_t_sne(small_chunks, tsne):
    means, truth = blobs(900)
    labels, _ = cluster(embed(means, tsne=tsne, subsample=300), 5)
    exact, _ = cluster(embed(means, tsne="barnes_hut"), 5)
    assert adjusted_rand_score(labels, exact) == adjusted_rand_score(labels, truth) == 1


@pytest.mark.parametrize("tsne", ["barnes_hut", "subsample", with_fft])
def test_the_same_seed_gives_the_same_bytes(small_chunks, tsne):
    means, _ = blobs(400)
    first = embed(means, tsne=tsne, subsample=150, seed=4)
    assert first.dtype == torch.float32
    assert first.shape == (400, 2)
    assert first.isfinite().all()
    assert torch.equal(first, embed(means, tsne=tsne, subsample=150, seed=4))


@pytest.mark.parametrize("tsne", ["auto", "barnes_hut", "subsample", with_fft])
@pytest.mark.parametrize("different", [1, 2, 5])
def test_copies_of_few_photographs(small_chunks, tsne, different):
    means, _ = blobs(different)
    embedding = embed(means.repeat(80, 1), tsne=tsne, subsample=60)
    assert embedding.isfinite().all()
    assert len(torch.unique(embedding.round(decimals=3), dim=0)) == different


def test_a_subsample_of_copies_alone():
    means, _ = blobs(8)
    means = torch.cat([means, means[:1].expand(3000, -1)])
    assert embed(means, tsne="subsample", subsample=6).isfinite().all()


@pytest.mark.parametrize("tsne", ["barnes_hut", "subsample", with_fft])
@pytest.mark.parametrize(("M", "D"), [(7, 3), (40, 1), (300, 1)])
def test_small_and_narrow_sets(small_chunks, tsne, M, D):
    assert embed(blobs(M, D=D)[0], tsne=tsne, subsample=30).isfinite().all()


def test_what_is_picked(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    assert pick_method(5000, "auto", 5000) == "barnes_hut"
    assert pick_method(5001, "auto", 5000) == "fft"
    assert pick_method(10, "fft", 5000) == "fft"
    assert pick_method(100_000, "barnes_hut", 5000) == "barnes_hut"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert pick_method(5001, "auto", 5000) == "subsample"
    assert pick_method(5000, "subsample", 5000) == "barnes_hut"
    with pytest.raises(ValueError, match=r"needs openTSNE: pip install 'mindseye\[tsne\]'"):
        pick_method(10, "fft", 5000)


def test_wrong_values_say_what_is_right():
    means, _ = blobs(10)
    with pytest.raises(ValueError, match="tsne must be auto, barnes_hut, fft or subsample, not exact"):
        embed(means, tsne="exact")
    with pytest.raises(ValueError, match=r"^subsample must be a whole number of 6 or more, not "):
        embed(means, subsample=5)


def test_the_stages_are_told(small_chunks, caplog):
    means, _ = blobs(400)
    told = []
    with caplog.at_level("INFO"):
        embed(means, tsne="subsample", subsample=150, stage=lambda what, done: told.append((what, done)))
    assert [stage for stage, _ in told] == [
        "embedding 150 of 400 photographs (t-SNE)",
        "placing 250 photographs",
    ]
    assert "Barnes-Hut of 150, the others placed" in caplog.text


@pytest.mark.skipif(not installed, reason="needs openTSNE")
def test_how_much_is_done_is_told(caplog):
    told = []
    with caplog.at_level("INFO"):
        embed(blobs(100)[0], tsne="fft", stage=lambda what, done: told.append(done))
    done = [share for share in told if share is not None]
    assert done == sorted(done)
    assert done[0] > 0
    assert done[-1] == 1
    assert "openTSNE" in caplog.text


# ---- what is outside the subsample -----------------------------------------------------------------------------


def test_copies_are_placed_on_what_they_copy():
    generator = np.random.default_rng(0)
    known, embedded = generator.normal(size=(300, 10)) * 5, generator.normal(size=(300, 2)) * 40
    placed = place(known[:50] + 0.0, known, embedded)
    np.testing.assert_allclose(placed, embedded[:50], atol=1e-3)


def test_others_are_placed_between_their_neighbours(small_chunks):
    means, truth = blobs(600)
    rows = principal_components(means, 10)
    corners = np.array([[0, 0], [100, 0], [0, 100], [100, 100], [50, 50]], dtype=float)
    placed = place(rows[300:], rows[:300], corners[truth[:300]])
    np.testing.assert_allclose(placed, corners[truth[300:]])


def test_a_copy_of_a_photograph_lies_beside_it(small_chunks):
    means, _ = blobs(300)
    embedding = embed(torch.cat([means, means]), tsne="subsample", subsample=300)
    drawn = np.random.default_rng(0).choice(600, 300, replace=False)
    alone = [i for i in drawn.tolist() if (i + 300) % 600 not in drawn]  # drawn, and its copy placed
    assert len(alone) > 50
    apart = (embedding[alone] - embedding[[(i + 300) % 600 for i in alone]]).norm(dim=1)
    assert apart.max() < 0.01 * (embedding.max() - embedding.min())


# ---- few and many different ones -------------------------------------------------------------------------------


def test_different_rows_are_counted_as_far_as_asked():
    rows = torch.tensor([[0.0, 1.0], [-0.0, 1.0], [0.0, 2.0], [0.0, 1.0], [3.0, 3.0]])
    assert count_different(rows, 10) == 3
    assert count_different(rows, 2) == 2


@pytest.mark.slow
def test_a_hundred_thousand_points_are_clustered_at_once():
    generator = torch.Generator().manual_seed(0)
    truth = torch.randint(0, 8, (100_000,), generator=generator)
    angle = truth * (2 * torch.pi / 8)
    points = 50 * torch.stack([angle.cos(), angle.sin()], dim=1) + torch.randn(100_000, 2, generator=generator)
    labels, centres = cluster(points, 8)
    assert adjusted_rand_score(labels, truth) == 1
    assert centres.shape == (8, 2)

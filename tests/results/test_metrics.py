"""Each measure on a case whose answer can be said beforehand."""

from dataclasses import replace

import pytest
import torch

from mindseye.facets.blending import look_at
from mindseye.networks.preparing import prepare
from mindseye.results.likeness import centred_cosine, retrieval
from mindseye.results.metrics import (
    Measuring,
    adjusted_rand_index,
    diversity,
    fidelity,
    log_spectrum,
    measure,
    measure_path,
    on_the_way,
    selectivity,
    spectral_distance,
    summarise,
    with_gains,
)
from mindseye.visualizer.objective import take_channels


def norms(t):
    """The strength of photographs that are the target itself."""
    return t.flatten(1).norm(dim=1)


def test_fidelity_of_the_target_itself_and_of_its_multiples():
    t = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    exact = fidelity(t, t, norms(t))
    assert torch.allclose(exact["cosine"], torch.ones(2))
    assert exact["relative_distance"].max() < 1e-5
    assert torch.allclose(exact["magnitude"], torch.ones(2))
    tripled = fidelity(3 * t, t, norms(t))
    assert torch.allclose(tripled["cosine"], torch.ones(2))
    assert torch.allclose(tripled["relative_distance"], torch.full((2,), 2.0))
    assert torch.allclose(tripled["magnitude"], torch.full((2,), 3.0))
    assert fidelity(3 * t, t, norms(t), gain=3.0)["relative_distance"].max() < 1e-5


def test_magnitude_is_that_of_norms_whatever_the_signs():
    """Of signed maps the means may cancel: of these two the target's is 0, and 1 of a million."""
    t = torch.tensor([[3.0, -3.0, 0.0, 0.0], [-1.0, 0.0, 0.0, 1.000001]])[:, None, None, :]
    v = torch.tensor([[0.0, 6.0, 0.0, 6.0], [0.0, -3.0, 3.0, 0.0]])[:, None, None, :]
    assert torch.allclose(fidelity(v, t, norms(t))["magnitude"], torch.tensor([2.0, 3.0]), atol=1e-5)
    assert torch.allclose(fidelity(-v, t, norms(t))["magnitude"], fidelity(v, t, norms(t))["magnitude"])


def test_fidelity_of_orthogonal_maps():
    v, t = torch.zeros(2, 1, 2, 1, 2)
    v[0, 0, 0, 0] = 1
    t[0, 1, 0, 1] = 1
    figures = fidelity(v, t, norms(t))
    assert figures["cosine"].item() == 0
    assert figures["relative_distance"].item() == pytest.approx(2**0.5)


def test_a_photograph_is_as_strong_as_photographs_and_the_blend_is_weaker(network, targets):
    """Σ w‖a_n‖² of the facet's own photographs is the square of its strength; their blend's norm is below it."""
    prepared = prepare(network, targets.layer)
    for c in range(targets.C):
        maps = prepared(targets.photographs[c].float() / 255).target
        top = maps[:, targets.channels[c]].flatten(1).square().sum(dim=1)
        assert float(targets.weights[c] @ top) ** 0.5 == pytest.approx(float(targets.strength()[c]), rel=1e-4)
    blended = take_channels(targets.maps, targets.channels).flatten(1).norm(dim=1)
    assert (blended < targets.strength()).all()


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


def noise_of(slope, size=128, count=8):
    """Images whose power falls as 1/f^slope, random phases, standard deviation 0.1 about mid-grey."""
    generator = torch.Generator().manual_seed(0)
    f = torch.fft.fftfreq(size, d=1 / size)
    radius = (f[:, None] ** 2 + f[None, :] ** 2).sqrt().clamp(min=1)
    spectrum = torch.fft.fft2(torch.randn(count, size, size, generator=generator)) * radius ** (-slope / 2)
    images = torch.fft.ifft2(spectrum).real
    images = images / images.std(dim=(1, 2), keepdim=True)
    return (0.5 + 0.1 * images)[:, None].expand(-1, 3, -1, -1)


@pytest.mark.parametrize("slope", [0.0, 1.0, 2.0])
def test_the_spectrum_of_a_power_law_has_its_slope(slope):
    spectrum = log_spectrum(noise_of(slope)).mean(dim=0)
    f = torch.arange(1, 65, dtype=torch.float64).log10()
    inner = slice(3, 60)  # the window smears the lowest frequencies, and rings beyond the square's side are not whole
    line = torch.stack([f[inner], torch.ones(57, dtype=torch.float64)], dim=1)
    fitted = torch.linalg.lstsq(line, spectrum[inner, None]).solution[0].item()
    assert fitted == pytest.approx(-slope, abs=0.05)


def test_a_wave_stands_at_its_own_frequency_and_contrast_counts_squared():
    wave = torch.sin(2 * torch.pi * 10 * torch.arange(64) / 64)
    images = (0.5 + 0.2 * wave)[None, None, None, :].expand(1, 1, 64, 64)
    spectrum = log_spectrum(images)[0]
    assert spectrum.argmax().item() + 1 == 10
    weaker = log_spectrum(0.5 + (images - 0.5) / 10)[0]
    assert (spectrum - weaker)[9].item() == pytest.approx(2, abs=1e-6)  # a tenth of the contrast, a hundredth of power


def test_the_spectral_distance_is_zero_to_itself_and_one_for_ten_times_the_power():
    images = noise_of(2.0, size=64, count=2)
    bytes_ = (images * 255).round().to(torch.uint8)
    exact = bytes_.float() / 255
    assert spectral_distance(exact, bytes_[:, None]).max() < 1e-6
    louder = 0.5 + (exact - 0.5) * 10**0.5
    assert torch.allclose(spectral_distance(louder, bytes_[:, None]), torch.ones(2), atol=1e-3)
    assert spectral_distance(torch.full_like(exact, 0.3), bytes_[:, None]).isfinite().all()


@pytest.mark.parametrize(("D", "side"), [(3, 4), (40, 2)])
def test_diversity_of_equal_orthogonal_and_rearranged_pictures(D, side):
    v = torch.rand(1, D, side, side, generator=torch.Generator().manual_seed(0)).expand(3, -1, -1, -1)
    assert diversity(v).abs().max() < 1e-6
    turned = torch.stack([v[0], v[0].flip(1), 5 * v[0].transpose(1, 2)])  # elsewhere on the map, stronger: one texture
    assert diversity(turned).abs().max() < 1e-6
    apart = torch.zeros(3, D, side, side)
    for c in range(3):
        apart[c, c] = 1
    assert torch.allclose(diversity(apart), torch.ones(3))
    apart[1] = apart[0]
    assert torch.allclose(diversity(apart), torch.tensor([0.5, 0.5, 1.0]))
    assert diversity(v[:1]) is None


def test_a_single_photograph_s_facet_is_met_by_that_photograph(network, targets):
    """Weights all on one photograph: it is the target, so every figure of fidelity is perfect."""
    weights = torch.zeros_like(targets.weights)
    weights[:, 2] = 1
    maps, power, _ = look_at(prepare(network, targets.layer), targets.photographs, weights)
    alone = replace(targets, weights=weights, maps=maps, power=power)
    for row in measure(network, alone, alone.nearest()):
        assert row["fidelity"]["cosine"] == pytest.approx(1, abs=1e-5)
        assert row["fidelity"]["relative_distance"] == pytest.approx(0, abs=1e-3)
        assert row["fidelity"]["pooled"]["magnitude"] == pytest.approx(1, abs=1e-4)


def test_the_way_is_what_the_network_records_and_ends_at_the_target(network, targets):
    prepared = prepare(network, targets.layer, way=("layer1.0", "layer2.0"))
    way = on_the_way(prepared, targets, batch_size=5)
    assert [layer for layer, _ in way] == ["layer1.0", "layer2.0", targets.layer]
    images = targets.photographs[1].float() / 255
    for layer, photographs in way:
        assert photographs.shape[:2] == targets.chosen.shape
        expected = prepare(network, layer)(images).target.flatten(2).mean(dim=2)
        assert torch.allclose(photographs[1], expected, atol=1e-5)
    for row in measure(prepared, targets, targets.nearest()):
        assert list(row["path"]["layers"]) == ["layer1.0", "layer2.0", targets.layer]
        assert row["path"]["target"] == row["path"]["layers"][targets.layer] > 1  # among the facet's photographs
    known = [layer for layer, _ in on_the_way(network, targets)]  # of a whole network those that the targets know
    assert known == [layer.layer for layer in targets.way[1:]] + [targets.layer]
    paths = measure_path(prepared, targets, targets.nearest(), way)
    assert paths == [row["path"] for row in measure(prepared, targets, targets.nearest(), Measuring(way=way))]


def test_without_a_layer_on_the_way_there_is_no_mean_over_it(network, targets):
    """The target's alone is no mean that another run's could be held against."""
    alone = prepare(network, targets.layer)
    assert [layer for layer, _ in on_the_way(alone, targets)] == [targets.layer]
    for row in measure(alone, targets, targets.nearest()):
        assert row["path"]["target"] > 1
        assert row["path"]["mean"] is None


def test_a_facet_s_photographs_lie_farther_on_its_way_than_another_s(network, targets):
    own = targets.photographs[:, 2].float().div(255)
    others = own.roll(1, dims=0)
    ours, theirs = (summarise(measure(network, targets, images))["path"]["target"] for images in (own, others))
    assert ours > max(0.9, theirs + 0.5)


def test_a_photograph_is_a_copy_and_noise_is_none(network, targets):
    copies = [row["copy"] for row in measure(network, targets, targets.nearest())]
    assert min(copies) >= 1
    noise = torch.rand(targets.initial.shape, generator=torch.Generator().manual_seed(0))
    assert all(row["copy"] is None or row["copy"] < 0.5 for row in measure(network, targets, noise))


def test_the_gain_is_the_share_of_the_way_from_blend_to_photograph():
    def row(cosine, **more):
        return {"retrieval": 1.0, "transfer": {"cosine": cosine, **more}}

    compared = {
        "initial": [row(0.2, agreement=0.1), row(0.5), row(0.7), row(None)],
        "nearest": [row(0.6, agreement=0.9), row(0.52), row(0.5), row(0.9)],
    }
    rows = with_gains([row(0.5, agreement=0.3), row(0.9), row(0.2), row(0.9)], compared)
    assert rows[0]["transfer"] == {
        "cosine": 0.5, "agreement": 0.3, "gain": pytest.approx(0.75), "agreement_gain": pytest.approx(0.25),
        "way": pytest.approx(0.4), "agreement_way": pytest.approx(0.8),
    }  # fmt: skip
    assert [row["transfer"]["gain"] for row in rows[1:]] == [None, None, None]  # no way, the wrong way, no start
    assert with_gains(compared["nearest"], compared)[0]["transfer"]["gain"] == 1
    assert with_gains(compared["initial"], compared)[0]["transfer"]["gain"] == 0
    assert with_gains([{"copy": 1.0}], {"initial": [{}], "nearest": [{}]}) == [{"copy": 1.0}]


def test_each_of_several_networks_has_its_gain():
    def rows(one, two):
        return [{"transfer": {"cosine": one, "networks": {"a": {"cosine": one}, "b": {"cosine": two}}}}]

    [row] = with_gains(rows(0.5, 0.5), {"initial": rows(0.0, 0.4), "nearest": rows(1.0, 0.8)})
    assert row["transfer"]["gain"] == row["transfer"]["networks"]["a"]["gain"] == 0.5
    assert row["transfer"]["networks"]["b"]["gain"] == pytest.approx(0.25)


def test_a_summary_is_the_mean_in_the_same_shape():
    rows = [{"a": 1.0, "b": {"c": 2.0}}, {"a": 3.0, "b": {"c": 6.0}}]
    assert summarise(rows) == {"a": 2.0, "b": {"c": 4.0}}


def test_the_gain_of_a_run_is_the_ratio_of_mean_differences():
    """Where blend and photograph are near, 0.06 apart, a picture that fell by 0.12 has −2: it must not undo the other.

    (0.20 − 0.12) / (0.40 + 0.06), and of the second judge's, whose second facet has no way, the first facet's alone.
    """

    def row(cosine, other):
        return {"transfer": {"cosine": cosine, "networks": {"a": {"cosine": cosine}, "b": {"cosine": other}}}}

    compared = {"initial": [row(0.2, 0.0), row(0.5, 0.5)], "nearest": [row(0.6, 1.0), row(0.56, 0.51)]}
    rows = with_gains([row(0.4, 0.7), row(0.38, 0.1)], compared)
    assert [row["transfer"]["gain"] for row in rows] == [pytest.approx(0.5), pytest.approx(-2)]
    summary = summarise(rows)["transfer"]
    assert summary["gain"] == summary["networks"]["a"]["gain"] == pytest.approx(0.08 / 0.46, abs=1e-6)
    assert summary["networks"]["b"]["gain"] == pytest.approx(0.7)
    assert summary["way"] == pytest.approx(0.23)
    assert summarise(with_gains(compared["nearest"], compared))["transfer"]["gain"] == 1


def test_adjusted_rand_index():
    truth = ["x", "x", "y", "y"]
    assert adjusted_rand_index(torch.tensor([1, 1, 0, 0]), truth) == 1
    assert adjusted_rand_index(torch.tensor([0, 1, 0, 1]), truth) < 0.1

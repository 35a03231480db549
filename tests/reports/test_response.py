"""Whether a swept setting shows, on pictures whose distances are known by hand."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from mindseye.reports.response import in_words, read_features, responses

HALF = 1 - np.cos(np.pi / 3)  # d of two pictures 60° apart


def circle(*degrees):
    angle = np.deg2rad(degrees)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def cell(folder, name, features, photographs=("a", "b"), **overrides):
    (folder / name).mkdir()
    if features is not None:
        save_file({"transfer.judge": 3.0 * features}, folder / name / "features.safetensors")
    given = {f"override.{key}": value for key, value in overrides.items()}
    return [{"cell": name, "facet": c, "photographs": names, **given} for c, names in enumerate(photographs)]


def test_a_sweep_that_shows_nothing_has_none(tmp_path):
    rows = [row for k in (1, 5, 50) for row in cell(tmp_path, f"k={k}", circle(0, 90), k=k)]
    [response] = responses(rows, tmp_path)
    assert (response.setting, response.seen_by, response.pairs) == ("k", "transfer.judge", 4)
    assert response.value == pytest.approx(0, abs=1e-6)


def test_neighbours_alone_are_compared_by_size_and_not_by_their_order(tmp_path):
    """Facets 90° apart; each picture turns by 60° from k to the next k, so that the ends are 120° apart."""
    turns = {10: 60, 2: 0, 100: 120}
    rows = [row for k, turn in turns.items() for row in cell(tmp_path, f"k={k}", circle(turn, turn + 90), k=k)]
    [response] = responses(rows, tmp_path)
    assert response.value == pytest.approx(HALF / 1, abs=1e-6)
    assert response.pairs == 4


def test_cells_agree_in_all_other_settings(tmp_path):
    """The first setting turns pictures by 60°, the second does nothing."""
    rows = [
        row
        for k, turn in ((1, 0), (2, 60))
        for gain in (1.0, 2.5)
        for row in cell(tmp_path, f"k={k},gain={gain}", circle(turn, turn + 90), k=k, gain=gain, network="resnet18")
    ]
    by_setting = {response.setting: response for response in responses(rows, tmp_path)}
    assert set(by_setting) == {"k", "gain"}
    assert by_setting["k"].value == pytest.approx(HALF, abs=1e-6)
    assert by_setting["gain"].value == pytest.approx(0, abs=1e-6)


def test_facets_of_other_photographs_are_no_pair_and_stopped_ones_are_left_out(tmp_path):
    one = cell(tmp_path, "one", circle(0, 90, 180), ("a", "b", "c"), k=1)
    two = cell(tmp_path, "two", circle(60, 0, 0), ("a", "x", "c"), k=2)
    two[2]["stopped.step"] = 3
    [response] = responses([*one, *two], tmp_path)
    assert response.pairs == 1
    apart = [1, 1, 2, HALF]  # between the facets of the first, and the two that were drawn of the second
    assert response.value == pytest.approx(HALF / np.mean(apart), abs=1e-6)


def test_where_there_is_nothing_to_say(tmp_path):
    lone = [*cell(tmp_path, "a", circle(0), ("a",), k=1), *cell(tmp_path, "b", circle(9), ("a",), k=2)]
    assert responses(lone, tmp_path) == []  # one facet
    words = [*cell(tmp_path, "c", circle(0, 90), start="noise"), *cell(tmp_path, "d", circle(0, 90), start="facet")]
    assert responses(words, tmp_path) == []
    earlier = [*cell(tmp_path, "e", None, k=1), *cell(tmp_path, "f", circle(0, 90), k=2)]
    assert responses(earlier, tmp_path) == []
    (tmp_path / "e/features.safetensors").write_bytes(b"\x00")
    assert responses(earlier, tmp_path) == []
    assert in_words([], "k") == ""


def test_nothing_outside_of_the_sweep_is_read(tmp_path):
    (tmp_path / "sweep").mkdir()
    cell(tmp_path, "outside", circle(0, 90))
    (tmp_path / "sweep/inside").symlink_to(tmp_path / "outside")
    assert read_features(tmp_path / "outside", tmp_path)
    assert read_features(tmp_path / "sweep/inside", tmp_path / "sweep") == {}

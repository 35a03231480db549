"""The demo: its photographs are reproducible and show what their factors say; its network knows them."""

import json
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from PIL import Image

from mindseye.demo import photographs
from mindseye.demo.backgrounds import BACKGROUNDS
from mindseye.demo.network import CLASSES, MEAN, STD, WEIGHTS, demo_network
from mindseye.demo.photographs import KINDS, generate, render, sample_factors, write_photographs
from mindseye.facets import load_photographs
from mindseye.fields import fields_of
from mindseye.settings import Images

FACETS = [(kind, facet) for kind, facets in KINDS.items() for facet in facets]


def normalised(images: np.ndarray) -> torch.Tensor:
    """Photographs uint8 [n,3,H,W] as the network takes them, float32 [n,3,H,W]."""
    pictures = torch.from_numpy(images).float() / 255.0
    return (pictures - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


def test_every_kind_can_be_chosen():
    assert set(get_args(fields_of(Images)["kind"].annotation)) == set(KINDS)


def test_there_are_at_least_six_kinds_with_several_facets_each():
    assert {"padlock", "screw", "banana"} <= set(KINDS)
    assert len(KINDS) >= 6
    assert all(len(set(facets)) == len(facets) >= 3 for facets in KINDS.values())


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path):
    for folder, seed in (("first", 3), ("again", 3), ("other", 4)):
        write_photographs(tmp_path / folder, kind="screw", count=8, size=48, seed=seed)
    first, again, other = (
        {path.name: path.read_bytes() for path in sorted((tmp_path / folder).iterdir())}
        for folder in ("first", "again", "other")
    )
    assert first == again
    assert first.keys() == other.keys()
    assert not {name for name in first if first[name] == other[name]}


def test_the_written_set_is_balanced_shuffled_and_agrees_with_its_factors(tmp_path):
    factors = write_photographs(tmp_path, kind="padlock", count=24, size=64, seed=1)
    table = json.loads((tmp_path / "factors.json").read_text())
    names = [f"padlock_{index:04d}.png" for index in range(24)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["factors.json", *names]
    assert [table[name] for name in names] == json.loads(json.dumps([asdict(each) for each in factors]))
    assert set(Counter(each.facet for each in factors).values()) == {6}
    order = [each.facet for each in factors]
    assert order not in (sorted(order), [KINDS["padlock"][index % 4] for index in range(24)])
    for name, each in zip(names[:6], factors[:6], strict=True):
        with Image.open(tmp_path / name) as picture:
            assert picture.size == (64, 64)
            assert np.array_equal(np.asarray(picture), render(each, 64))


def contents(folder: Path) -> dict[str, bytes]:
    """Every file in a folder, by name."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("kind", KINDS)
def test_a_set_has_exactly_count_photographs_and_leaves_nothing_of_the_one_before(tmp_path, kind):
    kinds = list(KINDS)
    other = kinds[kinds.index(kind) - 1]
    again = tmp_path / "again"
    # Another kind with more pictures, the same kind with more and of another size, and the wanted set twice.
    for drawn, count, size, seed in ((other, 7, 24, 1), (kind, 6, 24, 2), (kind, 5, 32, 3), (kind, 5, 32, 3)):
        assert len(write_photographs(again, drawn, count, size, seed)) == count
        names = [f"{drawn}_{index:04d}.png" for index in range(count)]
        assert set(contents(again)) == {"factors.json", *names}
        assert list(load_photographs(again).paths) == names
        assert list(json.loads((again / "factors.json").read_text())) == names
    write_photographs(tmp_path / "fresh", kind, 5, 32, 3)
    assert contents(again) == contents(tmp_path / "fresh")


@pytest.mark.parametrize("kind", ["screw", "padlock"])
@pytest.mark.parametrize("after", [0, 3])
def test_a_set_cut_short_is_not_taken_for_whole_and_is_replaced(tmp_path, monkeypatch, kind, after):
    write_photographs(tmp_path, "padlock", 6, 24, seed=1)
    left = iter(range(after))

    def crashing(factors, size):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return render(factors, size)

    with monkeypatch.context() as patch:
        patch.setattr(photographs, "render", crashing)
        with pytest.raises(KeyboardInterrupt):
            write_photographs(tmp_path, "screw", 5, 24, seed=2)
    assert not (tmp_path / "factors.json").exists()
    assert len(list(tmp_path.glob("*.png"))) == after
    write_photographs(tmp_path, kind, 2, 24, seed=3)
    assert sorted(contents(tmp_path)) == ["factors.json", f"{kind}_0000.png", f"{kind}_0001.png"]


def test_replacing_a_set_touches_no_file_that_is_not_of_it(tmp_path):
    folder = tmp_path / "photographs"
    write_photographs(folder, "mug", 4, 24)
    mine = [folder / "mug_0009.png", folder / "holiday.png", folder / "notes.txt", tmp_path / "mug_0000.png"]
    for path in mine:
        path.write_text("mine")
    table = json.loads((folder / "factors.json").read_text())
    for name in ("holiday.png", "notes.txt", "../mug_0000.png", str(mine[3])):
        table[name] = {}
    (folder / "factors.json").write_text(json.dumps(table))
    write_photographs(folder, "leaf", 2, 24)
    assert all(path.read_text() == "mine" for path in mine)
    assert sorted(contents(folder)) == [
        "factors.json", "holiday.png", "leaf_0000.png", "leaf_0001.png", "mug_0009.png", "notes.txt"
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["", '{"mug_0000.png": {"ki', "[1, 2]", "\ufffe"])
def test_a_table_that_cannot_be_read_is_replaced(tmp_path, text):
    (tmp_path / "factors.json").write_bytes(text.encode("utf-16"))
    (tmp_path / "factors.json.part").write_text(text, encoding="utf-8")
    write_photographs(tmp_path, "leaf", 2, 24)
    assert sorted(contents(tmp_path)) == ["factors.json", "leaf_0000.png", "leaf_0001.png"]


def test_an_unknown_kind_is_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match="teapot"):
        write_photographs(tmp_path, kind="teapot")


def test_generate_gives_every_facet_of_every_kind_equally_often():
    images, factors = generate(list(KINDS), 2 * len(FACETS), size=32, seed=5)
    assert images.shape == (2 * len(FACETS), 3, 32, 32)
    assert images.dtype == np.uint8
    assert Counter((each.kind, each.facet) for each in factors) == dict.fromkeys(FACETS, 2)
    assert all(each.background in BACKGROUNDS for each in factors)


@pytest.mark.parametrize(("kind", "facet"), FACETS)
def test_every_facet_shows_its_object_within_the_picture(kind, facet):
    factors = sample_factors(kind, facet, np.random.default_rng(11))
    picture = render(factors).astype(float)
    assert picture.shape == (96, 96, 3)
    assert picture.std() > 8.0
    assert picture.mean() > 20.0
    # The same scene with the object shrunk to nothing is the bare background.
    bare = render(replace(factors, scale=1e-3)).astype(float)
    changed = np.abs(picture - bare).max(axis=2) > 40.0
    assert 0.04 < changed.mean() < 0.95
    assert changed[32:64, 24:72].any()


@pytest.mark.parametrize(
    ("factor", "value"), [("lighting", -60.0), ("background", "grass"), ("colour", (0.1, 0.3, 0.9)), ("pose", 25.0)]
)
def test_a_factor_changes_the_picture_and_nothing_else_is_needed(factor, value):
    factors = replace(
        sample_factors("mug", "side", np.random.default_rng(2)),
        lighting=60.0,
        background="sand",
        colour=(0.8, 0.2, 0.2),
    )
    assert np.array_equal(render(factors, 48), render(factors, 48))
    assert np.abs(render(factors, 48).astype(int) - render(replace(factors, **{factor: value}), 48)).mean() > 2.0


@pytest.mark.long
def test_the_packaged_network_knows_photographs_it_never_saw():
    images, factors = generate(list(KINDS), 256, seed=424_242)
    with torch.no_grad():
        guesses = [CLASSES[index] for index in demo_network()(normalised(images)).argmax(1)]
    kinds = [guess.split("/")[0] == each.kind for guess, each in zip(guesses, factors, strict=True)]
    facets = [guess == f"{each.kind}/{each.facet}" for guess, each in zip(guesses, factors, strict=True)]
    assert np.mean(kinds) >= 0.95
    assert np.mean(facets) >= 0.90


def test_the_network_has_the_layers_that_are_addressed_and_takes_other_sizes():
    network = demo_network(None)
    for path in ("conv1", "layer1.0.conv1", "layer2.0.conv2", "layer3.0", "layer4.0.bn1", "avgpool", "fc"):
        network.get_submodule(path)
    assert not network.training
    with torch.no_grad():
        for size in (32, 96, 130):
            assert network(torch.zeros(1, 3, size, size)).shape == (1, len(CLASSES))


def test_the_weights_are_small():
    assert WEIGHTS.stat().st_size <= 3_000_000

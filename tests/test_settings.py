"""Settings are values: frozen, closed, described once, and built out of a composed configuration in one place."""

import dataclasses

import numpy as np
import pytest

from mindseye.fields import WrongField, annotation_of, check, default_of, described, fields_of, fits
from mindseye.settings import CacheSettings, Drawing, Facets, Images, Run, Running, defaults, plain_settings
from mindseye.words import did_you_mean

VALUES = (Images, Facets, CacheSettings, Running, Drawing)


@pytest.mark.parametrize("kind", VALUES)
def test_a_value_is_frozen_closed_and_says_what_each_field_is(kind):
    made = kind()
    assert made == kind()
    assert hash(made) == hash(kind())
    for name, field in fields_of(kind).items():
        assert field.description, name
        assert field.description.strip().endswith("."), name
        assert described(annotation_of(field)), name
        assert getattr(made, name) == default_of(field)
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(made, name, None)
    with pytest.raises(ValueError, match=rf"^{kind.__name__} has no nothing_like_it") as caught:
        kind(nothing_like_it=3)
    assert "\n" not in str(caught.value)


def test_whole_numbers_of_other_libraries_are_taken_and_truth_is_none():
    made = Facets(k=np.int64(10), effective=np.int32(3), seed=np.uint8(7), workers=None)
    assert made == Facets(k=10, effective=3, seed=7)
    assert (type(made.k), type(dataclasses.replace(made, C=np.int16(5)).C)) == (int, int)
    assert Images(bands=(np.int64(3), 2, np.int64(1))).bands == (3, 2, 1)
    check("cycles", np.int64(4), float)
    for wrong in (True, np.bool_(True), np.array([1, 2]), np.float64(2.5), "10", np.int64(0)):
        with pytest.raises(WrongField, match=r"^k must be a whole number of 1 or more, not "):
            Facets(k=wrong)


def test_a_wrong_value_is_one_line_and_says_where():
    with pytest.raises(WrongField, match=r"^k must be a whole number of 1 or more, not 0$") as caught:
        Facets(k=0)
    assert (caught.value.name, caught.value.given) == ("k", 0)
    with pytest.raises(WrongField, match=r"^Facets takes what it is given by name: Facets\(C=…\)$"):
        Facets(4)
    with pytest.raises(WrongField, match=r"^k must be .*, not 0$"):
        dataclasses.replace(Facets(), k=0)
    with pytest.raises(WrongField, match=r"1 to 1,000,000,000, not 10000000000$"):
        Facets(k=10**10)  # the largest number is said where it is passed
    with pytest.raises(ValueError, match=r"^Facets has no clustres; did you mean clusters\?$"):
        Facets(clustres="embedding")


@pytest.mark.parametrize("given", ["3", 3.0, True, None, [3], float("nan"), float("inf")])
def test_nothing_is_made_into_a_number(given):
    with pytest.raises(ValueError, match=r"^N must be"):
        Facets(N=given)


def test_a_folder_may_be_called_by_a_number_and_names_may_be_a_list():
    assert Images(root=2012).root == "2012"
    assert Facets(way=["conv1", "relu"]).way == ("conv1", "relu")
    assert type(Facets(perplexity=30).perplexity) is float


def test_black_and_white_go_together():
    assert Images(black=0, white=4095).white == 4095
    for wrong in ({"black": 0}, {"white": 1}, {"black": 3, "white": 3}):
        with pytest.raises(ValueError, match=r"^black and white must be two different numbers"):
            Images(**wrong)


# ---- the whole run ---------------------------------------------------------------------------------------------------


def test_the_defaults_of_the_fields_are_the_run():
    run = Run.of(defaults())
    assert (run.images, run.facets, run.running, run.drawing) == (Images(), Facets(), Running(), Drawing())
    assert Run.of({}) == run


def test_a_key_fills_every_field_of_its_name():
    run = Run.of({"seed": 7, "k": 3, "facets": {"N": 5}, "trainer": {"devices": 2}, "snapshots": 9, "depth": "early"})
    assert (run.facets.seed, run.drawing.seed) == (7, 7)
    assert (run.facets.k, run.facets.N, run.running.devices, run.running.snapshots) == (3, 5, 2, 9)
    assert run.depth == "early"


WRONG = {
    "k must be a whole number of 1 or more, not many": {"k": "many"},
    "facets.N must be a whole number of 1 or more, not 0": {"facets": {"N": 0}},
    "trainer.devices must be": {"trainer": {"devices": None}},
    "facets.clustres: there is no such setting; did you mean facets.clusters": {"facets": {"clustres": 3}},
    "kk: there is no such setting; did you mean k": {"kk": 3},
    "facets.k: there is no such setting; did you mean": {"facets": {"k": 3}},
    "facets.way: there is no such setting": {"facets": {"way": []}},
    "trainer.folder: there is no such setting": {"trainer": {"folder": "x"}},
    "images must be settings by their names, not 3": {"images": 3},
    "images.root must be given: images.root=…": {"images": {"root": "???"}},
    "images: black and white must be two different": {"images": {"black": 0}},
    "C=200 facets need at least as many photographs; images.count=160": {"C": 200},
    "measure=transfer.gain: needs a network that judges": {"measure": "transfer.gain"},
}


@pytest.mark.parametrize("message", WRONG)
def test_a_wrong_setting_is_named_by_its_key(message):
    with pytest.raises(ValueError, match=r"^[^\n]*$") as caught:
        Run.of(WRONG[message])
    assert str(caught.value).startswith(message)


def test_plain_settings_are_those_of_the_command():
    keys = list(plain_settings())
    assert len(keys) == len(set(keys))
    assert {"k", "C", "seed", "facets.N", "facets.held_out", "images.root", "trainer.devices"} <= {*keys}
    assert not {"facets.way", "trainer.folder", "facets.k", "folder", "images"} & {*keys}


# ---- words -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "hint", "right"),
    [
        (1, int, True), (True, int, False), (1, float, True), ("1", float, False), (None, int | None, True),
        ([1, 2.0], list[float], True), (["a"], list[float], False), ([0.9, 0.99], tuple[float, float], True),
        ({"a": 1}, dict[str, int], True), (float("inf"), float, False), (10**400, float, False), (3, pytest.Item, True),
        (0.0, tuple[float | pytest.Item, float], False),
    ],
)  # fmt: skip
def test_fits(value, hint, right):
    """A type that YAML cannot write takes anything."""
    assert fits(value, hint) is right


def test_nearest_names():
    assert did_you_mean("K", ["k", "C"]) == "; did you mean k?"
    assert did_you_mean("gain", ["objective.gain", "k"]) == "; did you mean objective.gain?"
    assert did_you_mean("qqqq", ["k"]) == ""

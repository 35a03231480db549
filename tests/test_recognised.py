"""scripts/recognised.py: its arithmetic on curves that are known, and a tiny one as a whole."""

import json

import pytest
from PIL import Image
from recognised import LOOKS, Curve, as_markdown, drawn, looked_at, main
from truth import Draw, Subject


def curve(method, start, accuracies, cosines=None, passes=10):
    cosines = cosines or accuracies
    looks = {
        passes * n: {"cosine": cosine, "retrieval": 1.0, "agreement": 0.5, "accuracy": accuracy}
        for n, (accuracy, cosine) in enumerate(zip(accuracies, cosines, strict=True), 1)
    }
    return Curve(method, start, len(accuracies), 0.5, 4, looks)


@pytest.mark.parametrize(
    ("accuracies", "since"),
    [
        ([0.5, 0.25, 0.5, 0.75, 0.5], 30),  # what it lost again at 20 does not count, nor what it had beyond at 40
        ([0.5, 0.5, 0.5], 10),
        ([0.0, 0.25, 1.0], 30),
    ],
)
def test_since_when_it_stays_at_its_end_value(accuracies, since):
    row = curve("vital", "noise", accuracies)
    assert row.since("accuracy", row.end["accuracy"]) == since
    assert row.since("accuracy", max(accuracies) + 0.1) is None


def test_the_row_says_when_ours_is_where_the_other_ends():
    ours = curve("calibrated", "noise", [0.1, 0.3, 0.5])
    far = curve("vital", "noise", [0.0, 0.1, 0.2, 0.3], passes=500)
    row, other = (line.split(" | ") for line in as_markdown([ours, far]).splitlines()[2:])
    assert row[:4] == ["| calibrated", "noise", "30", "0.50"]
    assert row[-4:] == ["30", "15", "30", "30 |"]
    assert other[-4:] == ["2000", "1000", "2000", "20 |"]
    never = as_markdown([ours, curve("lucid", "noise", [0.0, 0.0], [0.1, 0.6])]).splitlines()[-1].split(" | ")
    assert never[-4:] == ["never", "", "20", "not |"]


def test_every_method_has_its_own_number_of_steps():
    every = drawn(["calibrated", "from_nothing", "vital"], ["facet", "noise"], 80)
    assert every == [
        Draw("calibrated", "facet", 80), Draw("calibrated", "noise", 80),
        Draw("from_nothing", "noise", 200), Draw("vital", "noise", 2000),
    ]  # fmt: skip
    subject = looked_at(Subject("a", ("k=8",), None), every[-1])
    assert subject.words == ("k=8", f"snapshots={2000 // LOOKS}")


@pytest.mark.long
def test_a_tiny_one_is_drawn_and_told(tmp_path, capsys):
    words = ["--quick", "--only", "calibrated", "lucid", "--seeds", "0", "--folder", str(tmp_path)]
    main(words)
    kept = json.loads((tmp_path / "recognised.json").read_text())
    [curves] = kept.values()
    drawn = [(curve["method"], curve["steps"], curve["pictures"]) for curve in curves]
    assert drawn == [("calibrated", 4, 2), ("lucid", 512, 2)]
    assert all(curve["cost"] > 0 for curve in curves)
    assert max(map(int, curves[1]["looks"])) == 512
    assert len(curves[1]["looks"]) == 512 // (512 // LOOKS) + 1  # and the end itself
    assert "| lucid | noise | 512 |" in (tmp_path / "recognised.md").read_text()
    with Image.open(tmp_path / "recognised.png") as picture:
        assert picture.width > 600
    assert "failed" not in capsys.readouterr().err
    main([*words, "--table"])
    again = json.loads((tmp_path / "recognised.json").read_text())
    assert again == kept  # what was timed is not timed again

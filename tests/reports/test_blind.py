"""The blind test: what is drawn is fair, nothing that a person gets says what is right, and answers are counted."""

import collections
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import binom

from mindseye.commands.main import main
from mindseye.facets.decoding import MAKER, SOFTWARE
from mindseye.facets.targets import FacetTargets
from mindseye.reports.blind import score, write_blind_test
from mindseye.reports.blind.drawing import CONTROL, _Shown, draw
from mindseye.sweeps.manifest import add_cells

HELD_OUT = (("a1", "a2", "a3"), ("b1", "b2"), (), ("d1",))


def shown(presets=("x", "y", CONTROL), facets=(0, 1, 2, 3)):
    return [_Shown(preset, n, "same", HELD_OUT, facets) for n, preset in enumerate(presets)]


@pytest.fixture(scope="module")
def known(targets):
    """Facets with two held-out photographs each, which are real files."""
    return replace(targets, held_out=targets.paths[:6], held_out_labels=torch.tensor([0, 0, 1, 1, 2, 2]))


@pytest.fixture(scope="module")
def sweep(tmp_path_factory, make_run, known):
    """Two presets on the same facets."""
    folder = tmp_path_factory.mktemp("sweep")
    cells = add_cells(folder, [("objective=calibrated", "k=8"), ("objective=released", "k=8")], [], "")
    for cell in cells:
        make_run(folder / cell.folder, facets=3, overrides=cell.overrides)
        known.save(folder / cell.folder / "targets")
    return folder


def answers(folder, page, name, said, sitting="s1"):
    """A file as the page saves it: said(question, its entry in the key) is a or b."""
    test = json.loads(page.read_text().partition('id="test">')[2].partition("</script>")[0])["test"]
    key = json.loads((folder / f"blind-key-{test}.json").read_text())["questions"]
    path = folder / name
    given = {number: said(number, entry) for number, entry in key.items()}
    path.write_text(json.dumps({"format": 1, "test": test, "sitting": sitting, "person": "", "answers": given}))
    return path


def test_questions_are_shared_out_evenly_and_sides_are_even():
    asked = draw(shown(), 60, seed=0)
    assert collections.Counter(question.preset for question in asked) == {"x": 20, "y": 20, CONTROL: 20}
    for preset in ("x", "y", CONTROL):
        mine = [question for question in asked if question.preset == preset]
        assert collections.Counter(question.side for question in mine) == {"a": 10, "b": 10}
        per_facet = collections.Counter(question.facet for question in mine)
        assert set(per_facet) == {0, 1, 3}  # the third has no photograph to ask about
        assert max(per_facet.values()) - min(per_facet.values()) <= 1


def test_one_photograph_is_the_facet_s_own_and_the_other_is_not():
    for question in draw(shown(), 200, seed=1):
        assert question.own in HELD_OUT[question.facet]
        assert question.other in {name for c, names in enumerate(HELD_OUT) if c != question.facet for name in names}
    used = collections.Counter(question.own for question in draw(shown(), 60, seed=1) if question.facet == 0)
    assert max(used.values()) - min(used.values()) <= 1  # in turn


def test_the_order_is_the_seed_s():
    assert draw(shown(), 30, seed=3) == draw(shown(), 30, seed=3)
    assert draw(shown(), 30, seed=3) != draw(shown(), 30, seed=4)
    presets = [question.preset for question in draw(shown(), 60, seed=0)]
    assert presets != sorted(presets)


def test_what_cannot_be_asked_costs_one_line():
    with pytest.raises(ValueError, match="--questions must be at least 3"):
        draw(shown(), 2, seed=0)
    with pytest.raises(ValueError, match=r"set facets\.held_out"):
        draw([_Shown("x", 0, "same", (("a1",), ()), (0, 1))], 10, seed=0)
    with pytest.raises(ValueError, match="no run has held-out"):
        draw(shown(facets=()), 10, seed=0)


def test_nothing_that_a_person_gets_says_what_is_right(sweep, known, tmp_path):
    place = tmp_path / "to be sent"
    main(["gallery", str(sweep), "--blind", "--questions", "24", "--copy", str(place)])
    got = sorted(path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file())
    html = (place / "blind.html").read_text()
    [test] = [path.name for path in (place / "blind").iterdir()]
    parts = [f"blind/{test}/{n:03d}-{part}.webp" for n in range(1, 25) for part in ("a", "b", "shown")]
    assert got == sorted([*parts, "blind.html"])
    for name in (*known.paths, "objective", "calibrated", "released", "preset", 'right"'):
        assert name not in html
    assert "blind-key" not in html
    # No header of a file and no size of a picture tells either from the other.
    for path in (place / "blind" / test).iterdir():
        with Image.open(path) as picture:
            assert picture.size == (448, 448)
            assert not {"icc_profile", "xmp"} & set(picture.info)
            assert dict(picture.getexif()) == {SOFTWARE: MAKER}  # of all, and no photograph to whom it is sent
    key = json.loads((sweep / f"blind-key-{test}.json").read_text())["questions"]
    assert {entry["preset"] for entry in key.values()} == {"objective=calibrated", "objective=released", CONTROL}
    sides = collections.Counter(entry["right"] for entry in key.values())
    assert sides == {"a": 12, "b": 12}


def test_the_pictures_are_those_of_the_key(sweep, known, photographs, tmp_path):
    page = write_blind_test(sweep, _runs(sweep), questions=9, seed=5, place=tmp_path)
    [folder] = (tmp_path / "blind").iterdir()
    key = json.loads((sweep / f"blind-key-{folder.name}.json").read_text())["questions"]
    read = replace(photographs, paths=known.held_out)
    assert page == tmp_path / "blind.html"
    for number, entry in key.items():
        for side in "ab":
            name = entry["own"] if side == entry["right"] else entry["other"]
            wanted = read.read(known.held_out.index(name)).permute(1, 2, 0).numpy()
            with Image.open(folder / f"{number}-{side}.webp") as picture:
                got = np.asarray(picture.resize((48, 48), Image.Resampling.BOX), float)
            assert np.abs(got - wanted).mean() < 6  # of 255: another photograph is some 40 away
        held_out = dict(zip(known.held_out, known.held_out_labels.tolist(), strict=True))
        assert held_out[entry["own"]] == entry["facet"] != held_out[entry["other"]]


def _runs(folder):
    from mindseye.commands.gallery import runs_below

    return list(runs_below(folder, []))


def test_answers_become_accuracies_with_exact_intervals(sweep, capsys):
    main(["gallery", str(sweep), "--blind", "--questions", "30"])
    page = sweep / "blind.html"
    other = {"a": "b", "b": "a"}

    def knows(number, one):
        if one["preset"] == CONTROL:
            return one["right"]
        return one["right"] if int(number) % 2 else other[one["right"]]

    files = [answers(sweep, page, "one.json", knows, "s1"), answers(sweep, page, "two.json", knows, "s2")]
    main(["report", str(sweep), "--answers", *map(str, files)])
    summary = json.loads((sweep / "blind.json").read_text())
    best = summary["presets"][0]
    assert (best["preset"], best["right"], best["answers"], best["people"]) == (CONTROL, 20, 20, 2)
    assert best["high"] == 1
    assert binom.sf(19, 20, best["low"]) == pytest.approx(0.025)  # what an exact bound is
    out = capsys.readouterr().out
    assert f"{CONTROL}: people found the photograph in 1.00 [0.83, 1.00] of the questions (20 of 20, 2 sittings)" in out
    for preset in summary["presets"][1:]:
        assert preset["low"] < preset["accuracy"] < preset["high"]
        assert f"{preset['preset']}: people found" in out
    assert (sweep / "blind.csv").read_text().splitlines()[0].startswith("preset,right,answers")


def test_answers_that_are_none_are_refused_in_one_line(sweep, tmp_path):
    page = write_blind_test(sweep, _runs(sweep), questions=6)
    again = answers(sweep, page, "again.json", lambda number, entry: "a")
    with pytest.raises(ValueError, match="of one sitting"):
        score(sweep, [again, again])
    with pytest.raises(ValueError, match="is not in"):
        score(tmp_path, [again])
    said = json.loads(again.read_text())
    wrong = {
        "side": {**said, "answers": {"001": "c"}},
        "question": {**said, "answers": {"999": "a"}},
        "test": {**said, "test": "../../../etc"},
        "list": [],
        "nested": {**said, "answers": {"001": ["a"]}},
    }
    for name, content in wrong.items():
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(content))
        with pytest.raises(ValueError, match=r"holds no answers|does not have"):
            score(sweep, [path])


def test_photographs_that_moved_are_asked_for_and_none_is_read_from_elsewhere(
    sweep, known, photograph_folder, tmp_path
):
    folder = tmp_path / "sweep"
    shutil.copytree(sweep, folder)
    for place in folder.glob("*/targets"):
        replace(known, root=str(tmp_path / "gone")).save(place)
    with pytest.raises(ValueError, match="--images FOLDER says where the photographs lie now"):
        write_blind_test(folder, _runs(folder), questions=6)
    assert write_blind_test(folder, _runs(folder), questions=6, images=photograph_folder).is_file()
    for place in folder.glob("*/targets"):
        replace(known, held_out=tuple(f"../{name}" for name in known.held_out)).save(place)
    with pytest.raises(ValueError, match="leads out of"):
        write_blind_test(folder, _runs(folder), questions=6)


def test_stopped_facets_are_not_asked_about(sweep, tmp_path):
    folder = tmp_path / "sweep"
    shutil.copytree(sweep, folder)
    for path in folder.glob("*/metrics.json"):
        answers = json.loads(path.read_text())
        answers["facets"][0]["stopped"] = {"step": 3, "why": "it is not finite"}
        path.write_text(json.dumps(answers))
    page = write_blind_test(folder, _runs(folder), questions=30)
    test = json.loads(page.read_text().partition('id="test">')[2].partition("</script>")[0])["test"]
    key = json.loads((folder / f"blind-key-{test}.json").read_text())["questions"]
    assert not [entry for entry in key.values() if entry["facet"] == 0 and entry["preset"] != CONTROL]
    assert FacetTargets.load(next(folder.glob("*/targets"))).C == 3

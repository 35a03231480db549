"""Sentences say what is in the sweep, and nothing that chance does as well."""

import json

import numpy as np

from mindseye.commands.main import main
from mindseye.reports.ablation import compare
from mindseye.reports.findings import find, sentences
from mindseye.sweeps.manifest import add_cells

MEASURES = ("transfer.cosine", "naturalness.tv", "copy")


def rows(effects, facets=8, noise=0.1, seed=0, setting="objective.gain"):
    """A cell per value; effects: value -> (effect on each of MEASURES)."""
    generator = np.random.default_rng(seed)
    level = generator.normal(size=(facets, len(MEASURES)))
    return [
        {
            "cell": f"{setting}={value}", f"override.{setting}": value, "facet": c, "photographs": str(c),
            **dict(zip(MEASURES, (level[c] + effect + noise * generator.normal(size=3)).tolist(), strict=True)),
        }
        for value, effect in effects.items()
        for c in range(facets)
    ]  # fmt: skip


def said(given, by="objective.gain", reference="1", measures=MEASURES):
    return sentences(find(given, compare(given, by, reference, measures=measures)))


def test_an_effect_is_told_with_its_size_its_interval_and_its_facets():
    given = rows({1: (0, 0, 0), 3: (-0.5, 0, 0), 2: (0.02, 0, 0)}, noise=0.05)
    findings = find(given, compare(given, "objective.gain", "1", measures=MEASURES))
    assert findings.shown == {("objective.gain", "3", "transfer.cosine")}
    differences = findings.comparisons[0].differences
    [effect] = [each for each in differences if each.variant == "3" and each.measure == MEASURES[0]]
    [sentence] = [line for line in sentences(findings) if "matters" in line]
    assert sentence.startswith("objective.gain matters for transfer.cosine (larger is better): against 1, 3: -0.")
    assert f"{effect.difference:+.3f} [{effect.low:+.3f}, {effect.high:+.3f}]" in sentence
    assert sentence.endswith("(8 facets, 3 cells).")
    [open_one] = [line for line in sentences(findings) if "does not show" in line]
    assert "naturalness.tv [" in open_one
    assert "copy [" in open_one


def test_where_there_is_nothing_nothing_is_shown_in_nineteen_sweeps_of_twenty():
    """However many measures and values are looked at; intervals alone are wrong more often."""
    sweeps = [rows({1: (0, 0, 0), 2: (0, 0, 0), 3: (0, 0, 0)}, seed=seed) for seed in range(40)]
    findings = [find(given, compare(given, "objective.gain", "1", measures=MEASURES)) for given in sweeps]
    assert sum(bool(finding.shown) for finding in findings) <= 5  # of 40 at a rate of 0.05 more come once in 70 times
    by_intervals = sum(any(each.clear for each in finding.comparisons[0].differences) for finding in findings)
    assert by_intervals > 8


def test_five_facets_show_nothing_even_where_all_move_alike():
    given = rows({1: (0, 0, 0), 2: (1, 1, 1)}, facets=5)
    findings = find(given, compare(given, "objective.gain", "1", measures=MEASURES))
    assert all(each.clear for each in findings.comparisons[0].differences)
    assert not findings.shown
    text = "\n".join(sentences(findings))
    assert "5 facets are too few to show anything: by chance alone all of them move the same way in one sweep" in text
    assert "in one sweep of 16; it takes 6" in text
    assert "in doubt" in text
    assert "matters" not in text


def test_the_sign_flip_test_is_exact():
    """All n facets alike: the two of 2ⁿ flips that are as far from 0."""
    [effect] = compare(rows({1: (0,) * 3, 2: (1,) * 3}, facets=7, noise=0), "objective.gain", "1", measures=["copy"])\
        .differences  # fmt: skip
    assert effect.p == 2 / 2**7


def test_what_cannot_be_compared_is_said_and_not_compared():
    given = rows({10: (0, 0, 0), 50: (1, 1, 1)}, setting="k")
    given += [{**row, "override.layer": "b", "cell": f"{row['cell']},b", "photographs": "other"} for row in given]
    given = [{"override.layer": "a", **row, "override.seed": int(row["facet"]) % 2} for row in given]
    given = [{**row, "fidelity.cosine": row["copy"]} for row in given]
    text = said(given, "k", "10", ("copy", "fidelity.cosine"))
    assert any(line.startswith("layer: its cells share no facets") for line in text)
    assert "seed is chance and no setting: its 2 values are averaged over." in text
    assert "k: nothing is said of fidelity.cosine, which it moves whatever is drawn." in text
    assert not any("fidelity.cosine" in line for line in text if "matters" in line or "doubt" in line or "show" in line)


def test_a_report_ends_in_them(tmp_path, make_run, capsys):
    cells = add_cells(tmp_path, [("objective.gain=1",), ("objective.gain=3",)], [], "")
    for cell, cosine in zip(cells, (0.9, 0.5), strict=True):
        make_run(tmp_path / cell.folder, facets=7, cosine=cosine, overrides=cell.overrides)
        for c in range(7):
            named = [{"path": f"{c}.png", "weight": 1.0, "distance": 0.0}]
            (tmp_path / cell.folder / f"facets/{c:02d}/photographs.json").write_text(json.dumps(named))
    main(["report", str(tmp_path), "--by", "objective.gain"])
    sentence = (
        "objective.gain matters for fidelity.cosine (larger is better): against 1, 3: -0.400 [-0.400, -0.400] "
        "(7 facets, 2 cells)."
    )
    assert sentence in " ".join(capsys.readouterr().out.split())
    assert sentence in json.loads((tmp_path / "report.json").read_text())["sentences"]
    ending = (tmp_path / "report.md").read_text().partition("## What the intervals say")[2]
    assert sentence in ending.replace("\\", "")

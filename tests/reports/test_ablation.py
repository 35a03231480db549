import csv
import io
import json
import re

import numpy as np
import pytest

from mindseye.reports.ablation import RESAMPLES, as_csv, as_json, as_latex, as_markdown, compare


def rows(effects, seeds=(0, 1, 2), facets=4, noise=0.0):
    """A cell per variant and seed: each seed's facets have their own levels, to which every variant adds its effect."""
    generator = np.random.default_rng(0)
    level = generator.normal(size=(len(seeds), facets))
    return [
        {
            "cell": f"{variant}-{seed}", "status": "completed", "override.ablation": variant, "override.seed": seed,
            "facet": c, "fidelity.cosine": float(level[s, c] + effect + noise * generator.normal()), "retrieval": 1.0,
        }
        for variant, effect in effects.items()
        for s, seed in enumerate(seeds)
        for c in range(facets)
    ]  # fmt: skip


def test_a_constant_effect_is_found_exactly_however_much_facets_differ():
    comparison = compare(rows({"none": 0, "worse": -0.25, "same": 0}), "ablation", "none", measures=["fidelity.cosine"])
    worse, same = comparison.differences
    assert (worse.variant, worse.pairs) == ("worse", 12)
    assert worse.difference == pytest.approx(-0.25)
    assert (worse.low, worse.high) == (pytest.approx(-0.25), pytest.approx(-0.25))
    assert worse.clear
    assert not same.clear
    assert comparison.unpaired == 0


def test_the_interval_is_the_bootstrap_s_of_the_paired_mean():
    """For a normal sample it comes near mean ± 1.96·s/√n, and covers the true effect about as often as it says."""
    given = rows({"none": 0, "other": 0.1}, seeds=range(50), noise=0.2)
    [effect] = compare(given, "ablation", "none", measures=["fidelity.cosine"]).differences
    paired = np.array([row["fidelity.cosine"] for row in given]).reshape(2, -1)
    paired = paired[1] - paired[0]
    half = 1.96 * paired.std() / len(paired) ** 0.5
    assert effect.difference == pytest.approx(paired.mean())
    assert effect.low == pytest.approx(paired.mean() - half, abs=0.1 * half)
    assert effect.high == pytest.approx(paired.mean() + half, abs=0.1 * half)
    assert RESAMPLES >= 1000


def test_of_several_judges_each_one_s_figures_are_compared():
    """Where nobody says; the first one's alone would say nothing of the second, which sees it otherwise."""
    given = rows({"none": 0, "other": 0.5})
    for row in given:
        seen = row["fidelity.cosine"]
        row |= {"transfer.cosine": seen, "transfer.networks.a.cosine": seen, "transfer.networks.b.v2.cosine": -seen}
    comparison = compare(given, "ablation", "none")
    assert list(comparison.means) == [
        "transfer.networks.a.cosine", "transfer.networks.b.v2.cosine", "fidelity.cosine",
    ]  # fmt: skip
    assert [effect.difference for effect in comparison.differences] == [pytest.approx(x) for x in (0.5, -0.5, 0.5)]


def test_means_over_other_layers_are_no_pair():
    given = rows({"none": 0, "fewer": 0.1, "same": 0.2})
    for row in given:
        layers = "a" if row["override.ablation"] == "fewer" else "ab"
        row |= {"path.mean": row["fidelity.cosine"], **{f"path.layers.{layer}": 0.5 for layer in layers}}
    comparison = compare(given, "ablation", "none", measures=["path.mean"])
    assert [(effect.variant, effect.difference) for effect in comparison.differences] == [("same", pytest.approx(0.2))]


def test_shares_of_a_way_count_by_the_way():
    """Gains of 0.5 and −2 of ways 0.4 and 0.06 beside 0: the difference is that of what was gone over all there is."""
    given = [
        {
            "cell": variant, "override.ablation": variant, "facet": c, "photographs": str(c),
            "transfer.gain": gain, "transfer.way": way,
        }
        for variant, gains in {"none": (0.0, 0.0), "other": (0.5, -2.0)}.items()
        for c, (gain, way) in enumerate(zip(gains, (0.4, 0.06), strict=True))
    ]  # fmt: skip
    [effect] = compare(given, "ablation", "none", measures=["transfer.gain"]).differences
    assert effect.difference == effect.mean == pytest.approx(0.08 / 0.46)
    assert (effect.low, effect.high) == (pytest.approx(-2), pytest.approx(0.5))  # one facet twice, the other never


def test_facets_without_a_partner_are_left_out_and_counted():
    given = rows({"none": 0, "worse": -0.25})
    missing = [row for row in given if not (row["cell"] == "none-1" and row["facet"] > 1)]
    failed = [*missing, {"cell": "x", "status": "failed", "override.ablation": "worse", "override.seed": 9}]
    comparison = compare(failed, "ablation", "none", measures=["fidelity.cosine"])
    assert comparison.differences[0].pairs == 10
    assert comparison.differences[0].difference == pytest.approx(-0.25)
    assert comparison.unpaired == 2


def test_a_measure_that_some_facets_lack_is_paired_where_both_have_it():
    given = rows({"none": 0, "worse": -0.25})
    given[0]["fidelity.cosine"] = None
    comparison = compare(given, "ablation", "none", measures=["fidelity.cosine", "transfer.cosine"])
    assert [effect.measure for effect in comparison.differences] == ["fidelity.cosine"]
    assert comparison.differences[0].pairs == 11


def test_what_cannot_be_compared_costs_one_line_that_says_what_can():
    given = rows({"none": 0, "worse": -0.25})
    with pytest.raises(ValueError, match=r"--by k: .*ablation, seed"):
        compare(given, "k", "none")
    with pytest.raises(ValueError, match="--reference full: ablation has none, worse"):
        compare(given, "ablation", "full")


def test_every_form_has_every_variant_and_measure():
    given = rows({"none": 0, "no_dm & 50%": -0.25})
    comparison = compare(given, "ablation", "none", measures=["fidelity.cosine", "retrieval"])
    markdown, latex = as_markdown(comparison), as_latex(comparison)
    table = list(csv.DictReader(io.StringIO(as_csv(comparison))))
    assert "**-0.250 [-0.250, -0.250]**" in markdown
    assert "12 (12)" in markdown
    assert len({line.count("|") for line in markdown.splitlines() if line.startswith("|")}) == 1
    body = latex[latex.index("\\toprule") : latex.index("\\bottomrule")]
    assert r"no\_dm \& 50\%" in body
    assert r"$\mathbf{-0.250}$" in body
    assert {len(re.findall(r"(?<!\\)&", line)) for line in body.splitlines() if "&" in line} == {3}
    assert [(row["ablation"], row["measure"]) for row in table] == [
        ("none", "fidelity.cosine"), ("none", "retrieval"),
        ("no_dm & 50%", "fidelity.cosine"), ("no_dm & 50%", "retrieval"),
    ]  # fmt: skip
    assert float(table[2]["difference"]) == pytest.approx(-0.25)


def test_seeds_of_the_same_facet_are_one_draw():
    """Three seeds that say the same thrice leave the interval as wide as one seed's."""
    given = [row for row in rows({"none": 0, "other": 0.1}, noise=0.3)]
    first = [row for row in given if row["override.seed"] == 0]
    known = [{**row, "photographs": f"facet {row['facet']}"} for row in first]
    thrice = [{**row, "override.seed": seed} for row in known for seed in range(3)]
    [effect] = compare(first, "ablation", "none", measures=["fidelity.cosine"]).differences
    [three] = compare(thrice, "ablation", "none", measures=["fidelity.cosine"]).differences
    assert (effect.pairs, effect.facets, three.pairs, three.facets) == (4, 4, 12, 4)
    assert (three.low, three.high) == (pytest.approx(effect.low), pytest.approx(effect.high))
    alone = [row for row in thrice if row["facet"] == 0]
    [single] = compare(alone, "ablation", "none", measures=["fidelity.cosine"]).differences
    assert not single.clear
    assert json.loads(as_json(compare(alone, "ablation", "none")))["differences"][0]["low"] is None


def test_facets_of_other_photographs_are_no_pair():
    given = rows({"layer1": 0, "layer4": 0.5})
    for row in given:
        row["photographs"] = f"{row['override.ablation']} {row['facet']}"
    with pytest.raises(ValueError, match="no two cells have the same facets"):
        compare(given, "ablation", "layer1")


def test_stopped_facets_have_no_part():
    given = rows({"none": 0, "worse": -0.1})
    given[-1] |= {"stopped.step": 3, "fidelity.cosine": -9.0}
    comparison = compare(given, "ablation", "none", measures=["fidelity.cosine"])
    assert comparison.differences[0].difference == pytest.approx(-0.1)
    assert (comparison.differences[0].pairs, comparison.stopped) == (11, 1)


def test_unknown_measures_are_named_with_those_there_are():
    with pytest.raises(ValueError, match=r"--measures nope: .*fidelity\.cosine, retrieval are there"):
        compare(rows({"none": 0, "worse": -0.1}), "ablation", "none", measures=["nope"])


def test_values_are_text_in_every_form():
    hostile = "<img src=x onerror=alert(1)>|$x_^~\n%"
    comparison = compare(rows({"none": 0, hostile: -0.1}), "ablation", "none", measures=["fidelity.cosine"])
    markdown, latex = as_markdown(comparison), as_latex(comparison)
    assert "<img" not in markdown
    [line] = [line for line in markdown.splitlines() if "onerror" in line]
    assert len(re.findall(r"(?<!\\)\|", line)) == 4
    assert r"\textless{}img src=x onerror=alert(1)\textgreater{}|\$x\_\textasciicircum{}\textasciitilde{} \%" in latex

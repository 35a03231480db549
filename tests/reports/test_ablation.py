import csv
import io
import re

import numpy as np
import pytest

from mindseye.reports.ablation import RESAMPLES, as_csv, as_latex, as_markdown, compare


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
    found = compare(rows({"none": 0, "worse": -0.25, "same": 0}), "ablation", "none", measures=["fidelity.cosine"])
    worse, same = found.differences
    assert (worse.variant, worse.pairs) == ("worse", 12)
    assert worse.difference == pytest.approx(-0.25)
    assert (worse.low, worse.high) == (pytest.approx(-0.25), pytest.approx(-0.25))
    assert worse.clear
    assert not same.clear
    assert found.unpaired == 0


def test_the_interval_is_the_bootstrap_s_of_the_paired_mean():
    """For a normal sample it comes near mean ± 1.96·s/√n, and covers the true effect about as often as it says."""
    given = rows({"none": 0, "other": 0.1}, seeds=range(50), noise=0.2)
    [one] = compare(given, "ablation", "none", measures=["fidelity.cosine"]).differences
    paired = np.array([row["fidelity.cosine"] for row in given]).reshape(2, -1)
    paired = paired[1] - paired[0]
    half = 1.96 * paired.std() / len(paired) ** 0.5
    assert one.difference == pytest.approx(paired.mean())
    assert one.low == pytest.approx(paired.mean() - half, abs=0.1 * half)
    assert one.high == pytest.approx(paired.mean() + half, abs=0.1 * half)
    assert RESAMPLES >= 1000


def test_facets_without_a_partner_are_left_out_and_counted():
    given = rows({"none": 0, "worse": -0.25})
    missing = [row for row in given if not (row["cell"] == "none-1" and row["facet"] > 1)]
    failed = [*missing, {"cell": "x", "status": "failed", "override.ablation": "worse", "override.seed": 9}]
    found = compare(failed, "ablation", "none", measures=["fidelity.cosine"])
    assert found.differences[0].pairs == 10
    assert found.differences[0].difference == pytest.approx(-0.25)
    assert found.unpaired == 2


def test_a_measure_that_some_facets_lack_is_paired_where_both_have_it():
    given = rows({"none": 0, "worse": -0.25})
    given[0]["fidelity.cosine"] = None
    found = compare(given, "ablation", "none", measures=["fidelity.cosine", "transfer.cosine"])
    assert [one.measure for one in found.differences] == ["fidelity.cosine"]
    assert found.differences[0].pairs == 11


def test_what_cannot_be_compared_costs_one_line_that_says_what_can():
    given = rows({"none": 0, "worse": -0.25})
    with pytest.raises(ValueError, match=r"--by k: .*ablation, seed"):
        compare(given, "k", "none")
    with pytest.raises(ValueError, match="--reference full: ablation has none, worse"):
        compare(given, "ablation", "full")


def test_every_form_has_every_variant_and_measure():
    given = rows({"none": 0, "no_dm & 50%": -0.25})
    found = compare(given, "ablation", "none", measures=["fidelity.cosine", "retrieval"])
    markdown, latex, table = as_markdown(found), as_latex(found), list(csv.DictReader(io.StringIO(as_csv(found))))
    assert "**-0.250 [-0.250, -0.250]**" in markdown
    assert len({line.count("|") for line in markdown.splitlines() if line.startswith("|")}) == 1
    body = latex[latex.index("\\toprule") : latex.index("\\bottomrule")]
    assert r"no\_dm \& 50\%" in body
    assert {len(re.findall(r"(?<!\\)&", line)) for line in body.splitlines() if "&" in line} == {3}
    assert [(row["ablation"], row["measure"]) for row in table] == [
        ("none", "fidelity.cosine"), ("none", "retrieval"),
        ("no_dm & 50%", "fidelity.cosine"), ("no_dm & 50%", "retrieval"),
    ]  # fmt: skip
    assert float(table[2]["difference"]) == pytest.approx(-0.25)

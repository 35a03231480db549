"""The protocol of scripts/truth.py: its arithmetic on rows whose figures are known, and a tiny one as a whole."""

import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from truth import (
    BASELINES,
    EFFICIENTNETS,
    METHODS,
    Draw,
    Estimate,
    Row,
    Subject,
    Viewer,
    as_markdown,
    contact_sheet,
    draws,
    figures_of,
    has_batch_norms,
    main,
    prepared,
    subjects,
    table,
)

from mindseye.commands.checking import check
from mindseye.commands.composing import compose
from mindseye.commands.grammar import quoted

EFFECT = {"calibrated": 0.0, "lucid": -0.25, "nearest": 0.5}


def row(method, start, seed, facet, value, steps=80):
    figures = {"transfer.cosine": value, "fidelity.cosine": 0.9}
    sample = 3 * seed + facet
    return Row("net late, drawn", method, start, steps, seed, facet, f"{seed} {facet}", sample, figures, Path())


def rows():
    """Two seeds of three facets whose own levels differ widely; a method adds its effect to each."""
    return [
        row(method, "" if method == "nearest" else "noise", seed, facet, seed + 0.1 * facet + effect)
        for method, effect in EFFECT.items()
        for seed in (0, 1)
        for facet in range(3)
    ]


def test_a_constant_effect_is_found_exactly_between_pairs():
    nearest, calibrated, lucid = table(rows(), dict.fromkeys(METHODS, 80))
    assert [nearest.method, calibrated.method, lucid.method] == ["nearest", "calibrated", "lucid"]
    assert calibrated.means["transfer.cosine"].mean == pytest.approx(0.6)
    assert nearest.means["transfer.cosine"].mean == pytest.approx(1.1)
    difference = lucid.differences["transfer.cosine"]
    assert (difference.mean, difference.low, difference.high) == (pytest.approx(-0.25),) * 3
    assert (difference.pictures, difference.facets) == (6, 6)
    assert not calibrated.differences
    line = as_markdown([lucid]).splitlines()[-1]
    assert line.startswith("| lucid | noise | 80 | **-0.250 [-0.250, -0.250]** | 0.350 [")


def test_pairs_are_of_one_start_seed_and_facet_and_of_the_same_photographs():
    whole = rows()
    others = [replace(row, start="facet") if row.method == "lucid" and row.seed == 0 else row for row in whole]
    lines = {(line.method, line.start): line for line in table(others, dict.fromkeys(METHODS, 80))}
    assert not lines["lucid", "facet"].differences
    assert lines["lucid", "noise"].differences["transfer.cosine"].pictures == 3
    regrouped = [replace(row, photographs="others") if row.method == "lucid" else row for row in whole]
    assert not table(regrouped, dict.fromkeys(METHODS, 80))[-1].differences


def test_rows_of_other_numbers_of_steps_have_no_part_in_a_table():
    long = [replace(row, steps=512, figures={"transfer.cosine": 9.0}) for row in rows() if row.method == "lucid"]
    lines = table([*rows(), *long], dict.fromkeys(METHODS, 80))
    assert lines[-1].means["transfer.cosine"].mean == pytest.approx(0.35)
    second = table([*rows(), *long], {"calibrated": 80, "lucid": 512})
    assert (second[-1].method, second[-1].passes, second[-1].means["transfer.cosine"].mean) == ("lucid", 512, 9.0)


def test_the_interval_is_the_bootstrap_s_over_facets():
    """Of 400 normal values it comes near mean ± 1.96·s/√n; the same values under ten seeds make it no narrower."""
    values = torch.randn(400, generator=torch.Generator().manual_seed(0)).double()
    half = 1.96 * float(values.std()) / 20
    for times in (1, 10):
        estimate = Estimate.of((facet, float(value), 1.0) for facet, value in enumerate(values) for _ in range(times))
        assert estimate.mean == pytest.approx(float(values.mean()))
        assert estimate.low == pytest.approx(estimate.mean - half, abs=0.1 * half)
        assert estimate.high == pytest.approx(estimate.mean + half, abs=0.1 * half)
        assert (estimate.pictures, estimate.facets) == (400 * times, 400)
    assert math.isnan(Estimate.of([("one", 1.0, 1.0), ("one", 2.0, 1.0)]).low)


def test_what_seeds_find_in_the_same_photographs_makes_no_interval_narrower():
    drawn = [row for row in rows() if row.method == "calibrated"]
    grouped = [replace(row, sample=row.facet) for row in drawn]
    [apart], [together] = (table(one, dict.fromkeys(METHODS, 80)) for one in (drawn, grouped))
    assert (apart.means["transfer.cosine"].facets, together.means["transfer.cosine"].facets) == (6, 3)
    assert together.means["transfer.cosine"].mean == pytest.approx(apart.means["transfer.cosine"].mean)


def test_figures_are_means_over_the_judges_that_have_them():
    networks = {"a": {"cosine": 0.2, "accuracy": 1.0}, "b": {"cosine": 0.6, "accuracy": None}}
    metrics = {"facet": 0, "fidelity": {"cosine": 0.9}, "transfer": {"cosine": 0.2, "networks": networks},
            "path": {"mean": 0.1, "target": 0.3}, "baselines": {"initial": {"copy": 3.0}}}  # fmt: skip
    figures = figures_of(metrics, path=0.7)
    assert figures["transfer.cosine"] == pytest.approx(0.4)
    assert (figures["transfer.accuracy"], figures["transfer.networks.b.cosine"]) == (1.0, 0.6)
    assert (figures["path.mean"], figures["path.target"], figures["fidelity.cosine"]) == (0.7, 0.3, 0.9)
    assert "copy" not in figures
    assert figures_of({"transfer": {"cosine": 0.2}}, math.nan) == {"transfer.cosine": 0.2}


def test_shares_of_a_way_are_means_by_the_way_over_judges_and_facets():
    """Of two judges 0.5 of 0.4 and −2 of 0.06; a facet that one judge has no share of counts by the other's way."""

    def figures(*judges):
        networks = {str(n): {"cosine": 0.0, "gain": gain, "way": way} for n, (gain, way) in enumerate(judges)}
        return figures_of({"transfer": {"networks": networks}}, math.nan)

    both, one = figures((0.5, 0.4), (-2.0, 0.06)), figures((1.0, 0.2), (None, 0.01))
    assert both["transfer.gain"] == pytest.approx(0.08 / 0.46)
    assert (one["transfer.gain"], one["transfer.way"]) == (1.0, pytest.approx(0.1))
    drawn = [replace(row, figures=figures) for row, figures in zip(rows(), (both, one), strict=False)]
    [line] = table(drawn, dict.fromkeys(METHODS, 80))
    assert line.means["transfer.gain"].mean == pytest.approx((0.08 + 0.2) / (0.46 + 0.2))


def test_every_network_is_judged_by_the_others(tmp_path):
    words = "own=network=callable,network.target=a/b.py:net,network.mean=[0.5,0.5],network.weights=my file.pth,layer=l"
    own = Viewer.read(words + ",layer=m")
    assert (own.group, own.layers) == ("callable", ("l", "m"))
    demo = Viewer.read("demo=network=demo")
    drawn = subjects([own, demo], [], {"drawn": ["images.kind=padlock"]}, ["k=8"], tmp_path)
    assert [subject.name for subject in drawn] == ["own l, drawn", "own m, drawn", "demo late, drawn"]
    assert {"network=callable", "layer=l", "transfer=[demo]", "images.kind=padlock", "k=8"} <= set(drawn[0].words)
    judged = set(drawn[2].words)
    assert {"network=demo", "depth=late", "transfer=[callable]", "transfer.callable.mean=[0.5,0.5]"} <= judged
    assert "transfer.callable.weights='my file.pth'" in judged
    with pytest.raises(ValueError, match="nobody judges"):
        subjects([demo], [], {"drawn": []}, [], tmp_path)
    with pytest.raises(ValueError, match="must be NAME=network=GROUP"):
        Viewer.read("demo=layer=x")


def test_judges_of_one_group_judge_by_their_names(tmp_path):
    lites = [Viewer.read(text) for text in EFFICIENTNETS]
    squeezenet = Viewer.read("squeezenet1_1=network=squeezenet1_1,network.weights=null")
    [subject] = subjects([squeezenet], lites, {"drawn": ["images.kind=padlock"]}, [], tmp_path)
    judging = check(compose([quoted(word) for word in subject.words])).parts["transfer"]
    assert list(judging) == ["callable", "efficientnet_lite1", "efficientnet_lite2"]
    for viewer, node in zip(lites, judging.values(), strict=True):
        assert node["name"] == viewer.name
        assert node["arguments"] == {"version": int(viewer.name[-1])}
        assert node["mean"] == [0.485, 0.456, 0.406]
        assert node["layers"]["late"] == "_bn1"
    with pytest.raises(ValueError, match="nobody judges"):
        subjects([squeezenet], [], {"drawn": []}, [], tmp_path)


@pytest.mark.parametrize(("name", "norms"), [("squeezenet1_1", False), ("mobilenet_v2", True), ("demo", True)])
def test_a_subject_s_network_is_made_whatever_its_source(name, norms, tmp_path):
    words = (f"network={name}", "depth=late", *(() if name == "demo" else ("network.weights=null",)))
    assert has_batch_norms(Subject(name, words, tmp_path)) is norms
    assert prepared(Subject(name, words, tmp_path)).way


def test_other_people_s_ways_have_their_own_steps_where_asked():
    assert draws(["calibrated", "vital"], ["noise"], 80, long=False) == [
        Draw("calibrated", "noise", 80), Draw("vital", "noise", 80)
    ]  # fmt: skip
    long = draws(["calibrated", "sorted", "vital", "published"], ["noise"], 80, long=True)
    assert [(row.method, row.steps) for row in long if row.steps != 80] == [("vital", 2000), ("published", 200)]


def test_the_sheet_has_a_row_a_line_and_a_column_a_facet(tmp_path):
    Image.new("RGB", (8, 8), "teal").save(tmp_path / "teal.png")
    drawn = [replace(row, picture=tmp_path / "teal.png") for row in rows()]
    sheet = contact_sheet(drawn, table(drawn, dict.fromkeys(METHODS, 80)), tile=20)
    tiles = [sheet.getpixel((210 + 24 * column + 10, 64 + 24 * line + 10)) for column in range(3) for line in range(3)]
    assert sheet.size == (210 + 3 * 24, 64 + 3 * 24)
    assert set(tiles) == {(0, 128, 128)}


@pytest.mark.long
@pytest.mark.timeout(900)  # a minute or two where nothing else runs
def test_a_tiny_protocol_is_drawn_told_and_gone_on_with(tmp_path, capsys, monkeypatch):
    words = ["--quick", "--folder", str(tmp_path / "truth")]
    monkeypatch.setattr(sys, "argv", ["truth.py", *words])
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    main(words)
    kept = json.loads((tmp_path / "truth/truth.json").read_text())
    [lines] = [each["all"] for each in kept["tables"].values()]
    assert {line["method"] for line in lines} == {*METHODS, *BASELINES}
    for line in lines:
        assert line["means"]["transfer.cosine"]["pictures"] == 4
        assert line["means"]["path.mean"]["mean"] is not None
    page = (tmp_path / "truth/index.html").read_text()
    assert "http" not in page
    assert page.count("data:image/webp;base64,") == 1
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "truth").rglob("images.safetensors")}
    assert len(before) == 2 * len(METHODS)
    main([*words, "--only", "calibrated", "vital"])
    after = {file: file.stat().st_mtime_ns for file in (tmp_path / "truth").rglob("images.safetensors")}
    assert after == before
    assert "| vital | noise | 4 |" in capsys.readouterr().out

"""Parts of one's own, as docs/extending.md shows them, from a separate package on the real command and from Python."""

import csv
import importlib
import json
import os
import re
import sys
from pathlib import Path

import pytest
import torch
import warm

import mindseye as me
from mindseye.commands.checking import check, check_overrides
from mindseye.commands.composing import ConfigurationError, compose
from mindseye.commands.parts import make_method, try_parts
from mindseye.commands.stages import make_network
from mindseye.networks.preparing import prepare
from mindseye.results.run_folder import read_run
from mindseye.visualizer.canvas import FourierCanvas
from mindseye.visualizer.trying import try_out

DOCUMENT = (Path(__file__).parents[2] / "docs" / "extending.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", DOCUMENT, re.S)
YAML = dict(re.findall(r"`my_conf/([\w/]+\.yaml)`.*?```yaml\n(.*?)```", DOCUMENT, re.S))


def mindseye(*arguments, cwd):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "100"}
    return warm.python("-m", "mindseye.commands.main", *arguments, cwd=cwd, env=environment, timeout=240)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A directory with the document's package and its configuration files."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "mine").mkdir()
    parts = [block for block in BLOCKS if not block.startswith("me.")]
    assert len(parts) == 6
    (folder / "mine" / "__init__.py").write_text("\n".join(parts))
    assert set(YAML) == {"objective/mean.yaml", "experiment/darker.yaml", "canvas/grey.yaml"}
    for name, content in YAML.items():
        file = folder / "my_conf" / name
        file.parent.mkdir(parents=True)
        file.write_text(content)
    return folder


OWN = ("--config-dir", "my_conf", "objective=mean", "canvas=grey")
SMALL = ("experiment=smoke", "C=2", "steps=2", "gradients=1", *OWN)
FADE = ("+filters.fade._target_=mine.Fade", "+filters.fade.amount=1.0", "+filters.fade.every=2")
SPARSITY = "+metrics.sparsity._target_=mine.sparsity"


@pytest.fixture(scope="module")
def run(place):
    done = mindseye(*SMALL, *FADE, SPARSITY, "measure=sparsity", "hydra.run.dir=run", cwd=place)
    assert done.returncode == 0, done.stderr
    return read_run(place / "run")


def test_the_objective_is_what_is_minimised(run):
    history = run.history
    lam, p, dm = (history[name] for name in ("schedule_penalty", "penalty", "dm"))
    assert history["total"] == pytest.approx([lam[i] * p[i] - dm[i] for i in range(len(dm))])
    assert set(history["mdist"]) == set(history["ad"]) == {0}
    # dm alone pulls as hard as its weight says: the norms of the parts are at least that of their sum
    for dm, penalty, total in zip(
        history["gradient_dm"], history["gradient_penalty"], history["gradient_total"], strict=True
    ):
        assert 0 < total <= (dm + penalty) * 1.001


def test_the_canvas_has_no_colour(run):
    assert torch.equal(run.images[:, 0], run.images[:, 1])
    assert torch.equal(run.images[:, 0], run.images[:, 2])


def test_the_filter_takes_contrast_away(run):
    assert run.images.flatten(1).std(dim=1).max() < 1e-4  # all of it, after the last step


def test_the_measure_stands_in_all_that_a_sweep_leaves(place, run):
    for row in [*run.metrics["facets"], run.metrics["summary"], *run.metrics["baselines"].values()]:
        assert 0 <= row["sparsity"] <= 1
    assert '"sparsity"' in (place / "run" / "gallery.html").read_text()
    swept = ("-m", "k=4,8", "experiment=smoke", "C=2", "steps=1", SPARSITY, "measure=sparsity")
    done = mindseye(*swept, "hydra.sweep.dir=sweep", cwd=place)
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader((place / "sweep" / "summary.csv").open()))
    assert len(rows) == 4
    assert all(0 <= float(row["sparsity"]) <= 1 for row in rows)
    assert "sparsity" in done.stdout  # what the cells are ranked by


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([SPARSITY, "+metrics.sparsity.power=2"], r"metrics.sparsity.power: there is no such setting"),
        (["+metrics.sparsity._target_=mine.nothing"], "cannot be imported .*no attribute 'nothing'"),
        (["+metrics.sparsity=mine.sparsity"], "give metrics.sparsity._target_=my.module.function"),
        (["measure=sparsity"], "measure must be transfer.gain, "),
        ([*FADE[:1], "+filters.fade.amount=much"], "filters.fade.amount must be a number, not much"),
        (["objective._target_=mine.MeanActivation"],
         r"^mine.MeanActivation takes no \w+, which objective=calibrated gives .*my_conf/objective/NAME.yaml"),
        (["canvas=maco", "canvas._target_=mine.GreyCanvas"], r"takes no \w+, which canvas=maco gives to canvas"),
        (["objective._target_=mine.MeanActivation", "+objective.power=2"], "takes no (?!power)"),
    ],
)  # fmt: skip
def test_a_mistake_is_refused_before_any_work(place, monkeypatch, overrides, message):
    monkeypatch.chdir(place)
    monkeypatch.setattr(sys, "path", [*sys.path])
    with pytest.raises(ConfigurationError, match=message) as error:
        check_overrides(overrides)
    assert "\n" not in str(error.value)


def test_a_measure_that_fails_is_one_line_and_a_traceback_in_the_log(place):
    done = mindseye("experiment=smoke", "+metrics.largest._target_=torch.argmax", "hydra.run.dir=wrong", cwd=place)
    assert done.returncode == 1
    assert done.stderr.startswith("mindseye: the measure largest failed: TypeError: argmax()")
    assert done.stderr.count("\n") == 1
    assert done.stderr.endswith("wrong/run.log\n")
    assert "Traceback" in (place / "wrong" / "run.log").read_text()
    assert not (place / "wrong" / "metrics.json").exists()
    words = ("+metrics.largest._target_=torch.argmax", "hydra/job_logging=default", "hydra.run.dir=elsewhere")
    line = mindseye("experiment=smoke", *words, cwd=place).stderr.splitlines()[-1]
    assert line.startswith("mindseye: the measure largest failed: TypeError: argmax()")
    assert "run.log" not in line  # there is none


def test_the_same_from_python(place, network, targets, monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(place)
    mine = importlib.import_module("mine")
    result = me.visualize(
        network,
        targets,
        me.Method(steps=2, objective=mine.MeanActivation(), canvas=mine.GreyCanvas, filters=[mine.Fade(0.1)]),
        metrics={"sparsity": mine.sparsity, "largest": lambda images, a, targets: a.amax(dim=(1, 2, 3))},
    )
    expected = mine.sparsity(targets.initial, torch.zeros_like(targets.maps), targets)
    assert expected.tolist() == [1.0] * targets.C  # silent everywhere
    metrics = json.loads((result.save(tmp_path / "run") / "metrics.json").read_text())
    assert {"sparsity", "largest"} <= set(metrics["summary"])
    assert {"sparsity", "largest"} <= set(metrics["baselines"]["noise"])


@pytest.fixture(scope="module")
def ablation(place):
    """The document's ablation of a term of one's own, from its one file of settings; tiny."""
    tiny = ("C=2", "k=8", "images.count=12", "images.size=32", "facets.N=4", "steps=2", "gradients=1", "seed=0")
    words = ("--config-dir", "my_conf", "experiment=darker", *tiny, "objective.darker=0,5", "logger=csv")
    done = mindseye("-m", *words, "hydra.sweep.dir=darker", cwd=place)
    assert done.returncode == 0, done.stderr
    [without] = (place / "darker").glob("*darker=0*/metrics.json")
    [with_it] = (place / "darker").glob("*darker=5*/metrics.json")
    return read_run(without.parent), read_run(with_it.parent)


def test_a_term_of_one_s_own_is_minimised_as_the_others_are(ablation):
    """The first step of both is of the same pictures: the totals differ by the weighted mean of them."""
    without, with_it = (run.history for run in ablation)
    first = slice(0, 2)
    assert with_it["dm"][first] == without["dm"][first]
    added = [a - b for a, b in zip(with_it["total"][first], without["total"][first], strict=True)]
    assert added == pytest.approx([5 * term for term in with_it["darker"][first]], rel=1e-4)
    # ‖∂(5·mean)/∂image‖ = 5/√(ch·S²)
    assert with_it["gradient_darker"][first] == pytest.approx([5 / (3 * 32**2) ** 0.5] * 2, rel=1e-4)
    assert set(without["gradient_darker"]) == {0}


def test_a_term_of_one_s_own_stands_by_its_name_in_all_that_is_left(place, ablation):
    for run in ablation:
        last = run.history["darker"][-2:]
        assert [row["loss"]["darker"] for row in run.metrics["facets"]] == pytest.approx(last, abs=1e-5)
        assert run.metrics["summary"]["loss"]["darker"] == pytest.approx(sum(last) / 2, abs=1e-5)
        told = next(iter(csv.DictReader((run.folder / "csv" / "metrics.csv").open())))
        assert {"loss/darker", "gradient/darker", "loss/dm"} <= set(told)
    assert '"darker"' in (place / "darker" / "gallery.html").read_text()  # among the curves' names
    done = mindseye("report", "darker", "--by", "objective.darker", cwd=place)
    assert done.returncode == 0, done.stderr
    assert "loss.darker" in (place / "darker" / "report.md").read_text()


OWN_SLIPS = """
from dataclasses import replace
from mindseye.fields import value
from mindseye.visualizer.distance import AdaptiveDistance
from mindseye.visualizer.objective import Objective
from mindseye.visualizer.terms import LossTerms

class Summed(Objective):
    def __call__(self, seen):
        return replace(terms := super().__call__(seen), total=terms.total.sum())

class PerChannel(Objective):
    def extra(self, seen):
        return {"pale": seen.images.mean(dim=(2, 3))}
    def weights(self, now, facets):
        return super().weights(now, facets) | {"pale": 1.0}

class NoWeight(Objective):
    def extra(self, seen):
        return {"pale": seen.images.mean(dim=(1, 2, 3))}

class NoTerm(Objective):
    def weights(self, now, facets):
        return super().weights(now, facets) | {"penalties": 1.0}

class NoSuch(Objective):
    def extra(self, seen):
        return {"pale": seen.picture}

class Number(Objective):
    def __call__(self, seen):
        return 3.0

class Taken(Objective):
    def extra(self, seen):
        return {"facet": seen.images.mean(dim=(1, 2, 3))}

class Blind(Objective):
    def __call__(self):
        return None

class NoExtra(Objective):
    def extra(self, seen):
        return None

class BareExtra(Objective):
    def extra(self, seen):
        return seen.images.mean(dim=(1, 2, 3))

class ListedExtra(Objective):
    def __call__(self, seen):
        return LossTerms(total=seen.images.mean(dim=(1, 2, 3)), extra=[seen.images.mean(dim=(1, 2, 3))])

class NoneExtra(Objective):
    def __call__(self, seen):
        return LossTerms(total=seen.images.mean(dim=(1, 2, 3)), extra={"pale": None})

class NoTotal(Objective):
    def __call__(self, seen):
        return LossTerms(total=None)

class NoWeights(Objective):
    def weights(self, now, facets):
        return None

class Weightless(Objective):
    def weights(self, now, facets):
        return super().weights(now, facets) | {"tv": float("nan")}

class Worded(Objective):
    def weights(self, now, facets):
        return super().weights(now, facets) | {"tv": "much"}

class TwoLines(Objective):
    def extra(self, seen):
        raise ValueError("no such\\nthing")

class Undefined(Objective):
    def extra(self, seen):
        return {"pale": (seen.images.mean(dim=(1, 2, 3)) - 2).log()}
    def weights(self, now, facets):
        return super().weights(now, facets) | {"pale": 0.0}

class Endless(Objective):
    def __call__(self, seen):
        return replace(terms := super().__call__(seen), total=terms.total / 0)

class Foreign:
    gain, adaptive = 1.0, "fixed"
    def adaptive_distance(self, facets):
        return AdaptiveDistance(facets, trainable=False)
    def weights(self, now, facets):
        return {}
    def __call__(self, seen):
        return LossTerms(total=seen.images.mean(dim=(1, 2, 3)))

class Sometimes(Foreign):
    adaptive = "sometimes"

class Gainless(Foreign):
    gain = None
"""


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Summed", r"total of the objective, a Summed, must be \[2\], one real number a facet, not \[\]"),
        ("PerChannel", r"pale of the objective, a PerChannel, must be \[2\], one real number a facet, not \[2, 3\]"),
        ("NoWeight", r"has a term pale without a weight: its weights\(\) must name it"),
        ("NoTerm", r"has a weight for penalties and no such term; did you mean penalty\?"),
        ("NoSuch", r"failed: AttributeError in line \d+ of slips.py: 'Seen' object has no attribute 'picture'"),
        ("Number", r"a Number, must give LossTerms\(total=…, …\), not a float"),
        ("Taken", r"must have a word of letters, digits and _ as its name, but none of .*, not 'facet'"),
        ("Blind", r"a Blind, must take one value, Seen, and give LossTerms"),
        ("NoExtra", r"extra of the objective, a NoExtra, must give \{NAME: tensor\}, .* not a NoneType"),
        ("BareExtra", r"extra of the objective, a BareExtra, must give \{NAME: tensor\}, .* not a Tensor"),
        ("ListedExtra", r"extra of the objective, a ListedExtra, must give \{NAME: tensor\}, .* not a list"),
        ("NoneExtra", r"pale of the objective, a NoneExtra, must be a tensor \[2\], not a NoneType"),
        ("NoTotal", r"total of the objective, a NoTotal, must be a tensor \[2\], not a NoneType"),
        ("NoWeights", r"weights\(\) of the objective, a NoWeights, must give \{NAME: number\}, .* not a NoneType"),
        ("Weightless", r"the weight of tv of the objective, a Weightless, must be a finite number, not nan"),
        ("Worded", r"the weight of tv of the objective, a Worded, must be a finite number, not a str"),
        ("TwoLines", r"^the objective, a TwoLines: no such thing$"),
        ("Undefined", r"pale of the objective, an Undefined, must be a finite number, not nan, which it is for"),
        ("Endless", r"total of the objective, an Endless, must be a finite number, not -?inf"),
        ("Sometimes", r"adaptive of the objective, a Sometimes, must be trained, fixed, restarted, not sometimes"),
        ("Gainless", r"gain of the objective, a Gainless, must be a number above 0 .*, not None"),
    ],
)
def test_an_objective_s_slip_is_one_line_before_any_photograph(name, message, network, monkeypatch, tmp_path):
    (tmp_path / "slips.py").write_text(OWN_SLIPS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "slips", raising=False)
    objective = getattr(importlib.import_module("slips"), name)()
    prepared = prepare(network, "layer3.0")
    with pytest.raises(ValueError, match=message) as error:
        try_out(prepared, me.Method(objective=objective), 8, 32)
    assert "\n" not in str(error.value)


def test_more_channels_than_the_layer_has_are_told_by_the_same_look(network):
    with pytest.raises(ValueError, match=r"k must be 1 to \d+ \(the channels of layer3.0\), not 4096"):
        try_out(prepare(network, "layer3.0"), me.Method(), 4096, 32)


@pytest.mark.parametrize(
    ("body", "key", "message"),
    [
        ("darker: float = 5.0", "objective.darker", "write @value above the class"),
        ("def __init__(self, *, darker: float = 5.0, **more): super().__init__(**more)", "objective.darker", None),
        ("def __init__(self, *, darker: float = 5.0, **more): super().__init__(**more)", "objective.foo",
         "objective.foo: there is no such setting"),
    ],
    ids=["forgotten", "own", "unknown"],
)  # fmt: skip
def test_settings_of_a_subclass(body, key, message, monkeypatch, tmp_path):
    source = f"from mindseye.visualizer.objective import Objective\nclass Mine(Objective):\n    {body}\n"
    module = f"subclass_{abs(hash((body, key)))}"
    (tmp_path / f"{module}.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    words = [f"objective._target_={module}.Mine", f"+{key}=2", "objective.gain=1.5"]
    if message is None:
        check_overrides(words)
    else:
        with pytest.raises(ConfigurationError, match=message):
            check_overrides(words)


def test_a_setting_of_one_s_own_class_without_its_plus_leads_to_it(place, monkeypatch):
    monkeypatch.chdir(place)
    monkeypatch.setattr(sys, "path", [*sys.path])
    with pytest.raises(ConfigurationError, match=r"^objective.darker: .* mine.Darker takes it: \+objective.darker=4 "):
        check_overrides(["objective._target_=mine.Darker", "objective.darker=4"])
    with pytest.raises(ConfigurationError, match=r"did you mean objective.darker\?$"):
        check_overrides(["objective._target_=mine.Darker", "objective.darkr=4"])
    with pytest.raises(ConfigurationError, match=r"filters.fade.amuont: .*; did you mean filters.fade.amount\?$"):
        check_overrides([FADE[0], "filters.fade.amuont=0.5"])


def test_one_more_term_and_a_function_as_a_filter_on_the_command(place, monkeypatch):
    monkeypatch.chdir(place)
    monkeypatch.setattr(sys, "path", [*sys.path])
    overrides = ["objective._target_=mine.Darker", "objective.gain=1.5"]
    filters = ["+filters.darken._target_=mine.darken", "+filters.darken._partial_=true"]
    check_overrides([*overrides, *filters])
    method = make_method(check(compose([*overrides, *filters])))
    assert type(method.objective).__name__ == "Darker"
    assert method.objective.gain == 1.5
    assert torch.equal(method.filters[-1](torch.ones(1, 3, 2, 2)), torch.full((1, 3, 2, 2), 0.9))


@pytest.mark.parametrize(
    ("measures", "message"),
    [
        ({"one": lambda images, a, targets: images.mean()}, r"one must .*, not a tensor of shape \[\]"),
        ({"two": lambda images, a, targets: images}, r"must give one real number for each of 3 facets"),
        ({"three": 3}, "the measure three must be a function .*, not an int"),
        ({"a.b": len}, "a word of letters"),
        ({"transfer": len}, "the name of a measure must be .*, not 'transfer'"),
    ],
)
def test_measures_that_are_none(network, targets, measures, message):
    with pytest.raises(ValueError, match=message):
        me.visualize(network, targets, me.Method(steps=1), metrics=measures)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_canvas_is_tried_on_as_many_channels_and_pixels_as_the_network_has(channels):
    shapes = []

    class Noting(FourierCanvas):
        def __init__(self, initial, photographs):
            shapes.append((tuple(initial.shape), tuple(photographs.shape)))
            if channels == 4:
                raise ValueError("canvas: no infrared")
            super().__init__(initial, photographs)

    if channels == 4:
        with pytest.raises(ConfigurationError, match="no infrared"):
            try_parts(me.Method(canvas=Noting), channels, 12)
    else:
        try_parts(me.Method(canvas=Noting), channels, 12)
    assert shapes == [((1, channels, 12, 12), (1, 1, channels, 12, 12))]


@pytest.mark.parametrize("place", ["network", "transfer.own"])
def test_what_a_source_asks_for_is_named_as_a_setting_of_its_group(place, tmp_path):
    (tmp_path / "net.py").write_text("from torch import nn\n\n\ndef build(width):\n    return nn.Conv2d(3, width, 3)\n")
    half = {"mean": [0.5] * 3, "std": [0.25] * 3}
    node = {"_target_": "mindseye.networks.CallableSource", "target": f"{tmp_path}/net.py:build", **half}
    with pytest.raises(ConfigurationError, match=rf"^{place}: .*; {place}\.arguments=.NAME: value. gives it some$"):
        make_network(node, place)
    torch.save({"weight": torch.zeros(5, 3, 3, 3), "bias": torch.zeros(5)}, tmp_path / "five.pth")
    with pytest.raises(ConfigurationError, match=rf"takes width: {place}\.arguments="):
        make_network({**node, "arguments": {"width": 4}, "weights": str(tmp_path / "five.pth")}, place)

"""Slips in Python: what is given in place of what is right is refused in one line that says what is."""

from pathlib import Path

import pytest
import torch
from given import given
from torch import nn

import mindseye as me
from mindseye.networks import TorchvisionSource
from mindseye.settings import Running
from mindseye.visualizer.callbacks import Blur, FunctionFilter
from mindseye.visualizer.canvas import PixelCanvas
from mindseye.visualizer.fitting import fit
from mindseye.visualizer.method import Method
from mindseye.visualizer.running_statistics import RunningStatistics

BODY = nn.Sequential(nn.Conv2d(3, 4, 3))
HALF = {"mean": [0.5] * 3, "std": [0.25] * 3}


def refused(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_what_is_no_network_and_what_are_no_photographs(network, photographs, targets):
    refused(lambda: me.discover_facets(network, "folder", "layer3.0"), "what load_photographs.* gives, not a str")
    for call in (
        lambda: me.discover_facets(BODY, photographs, "0"),
        lambda: me.visualize(BODY, targets),
        lambda: me.transfer_reference(BODY, "0", targets, photographs),
    ):
        refused(call, r"bare Sequential: load_network\(module, mean=…, std=…")
    source = TorchvisionSource("resnet18", weights=None)
    refused(lambda: me.visualize(source, targets), r"the network is a TorchvisionSource, .* its load\(\) gives")
    refused(lambda: me.layer_table("resnet18"), "the network must be what load_network gives, not")
    refused(lambda: RunningStatistics(source), r"its load\(\) gives the network")
    refused(lambda: me.load_network(source), r"TorchvisionSource needs no load_network: its own load\(\)")
    refused(lambda: me.load_network(network), "this is what load_network gives already")
    refused(lambda: me.load_network("demo", mean=[0.5] * 3), "the demo's network has its own .* takes no mean")
    refused(lambda: me.visualize("resnet18", targets), "the network must be what load_network gives, not a str")
    refused(lambda: me.visualize(network, photographs), "what discover_facets gives, not a Photographs")


class Mine(me.Objective):
    pass


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"objective": Mine}, r"the objective must be one of its class, Mine\(\), not the class Mine"),
        ({"objective": lambda images: images}, "the objective, the function <lambda>, has no gain, adaptive, adapt"),
        ({"filters": [Blur]}, r"a filter must be one of its class, Blur\(\), not the class Blur"),
        ({"filters": Blur()}, "filters must be a list, not a Blur"),
        ({"filters": [3]}, "a filter must be one of a subclass of PeriodicFilter, or a function of images, not an int"),
        (
            {"canvas": PixelCanvas(torch.zeros(1, 3, 4, 4), None)},
            "the canvas must be the class PixelCanvas, called with the photographs later, not one",
        ),
        ({"metrics": [len]}, "metrics is a list: it must be functions by their names"),
        ({"transfer": 3}, "a list of what transfer_reference gives"),
    ],
)
def test_parts_that_are_none(network, targets, asked, message):
    refused(lambda: me.visualize(network, targets, **given(steps=1, **asked)), message)


def test_sizes(photograph_folder):
    for size in ((64, 48), "64", 0, 2.5):
        refused(lambda size=size: me.load_photographs(photograph_folder, size=size), "one whole number of 1 or more")
        refused(lambda size=size: me.load_network(BODY, size=size, **HALF), "size must be a whole number of 1")


def test_files_that_are_no_networks(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(BODY.state_dict(), "best.pth")
    for name in ("best.pth", "lm.ckpt", Path("best.pth"), tmp_path / "best.pth"):
        refused(lambda name=name: me.load_network(name, **HALF), r"file of weights.*load_network\(build\(\), weights=")
    refused(lambda: me.load_network("e.pt2", **HALF), r"load_network\(torch.export.load\('e.pt2'\)")
    refused(lambda: me.load_network(Path("my_net.py"), **HALF), "give the text 'my_net.py:FUNCTION'")
    assert me.load_network(BODY, weights="best.pth", **HALF).channels == 3  # what is said to be right is


def test_a_depth_in_place_of_a_layer(network, photographs):
    refused(lambda: me.discover_facets(network, photographs, "late"), "'late': it is a depth .*layer=layer4.0 is")
    refused(lambda: me.discover_facets(network, photographs, 3), "layer must be the name of a module")


# ---- a function as a filter ---------------------------------------------------------------------------------------


def flat(images):
    return images.mean(dim=(2, 3), keepdim=True).expand_as(images)


def test_a_function_is_a_filter_every_ten_steps(network, targets):
    """After step 10 each picture is its mean colour; step 11 goes on from there."""
    fitted = fit(network, targets, Method(steps=10, filters=[flat]), Running(snapshots=9, accelerator="cpu"))
    assert fitted.snapshots[9].float().flatten(2).std(dim=2).min() > 1
    assert fitted.images.flatten(2).std(dim=2).max() < 1e-3
    often = fit(network, targets, Method(steps=2, filters=[FunctionFilter(flat, every=2)]), Running(accelerator="cpu"))
    assert often.images.flatten(2).std(dim=2).max() < 1e-3


def test_a_filter_that_gives_another_shape(network, targets):
    small = FunctionFilter(lambda images: images[:, :1], every=1)
    settings = {"steps": 1, "filters": [small], "accelerator": "cpu"}
    message = r"a filter must give pictures \[3, 3, 48, 48\] as it takes them, not \[3, 1, 48, 48\]"
    refused(lambda: fit(network, targets, **given(**settings)), message)


def test_presets_by_their_names_are_what_the_command_has():
    facets, method = me.preset("published", ["C=10", "k=7", "steps=3"])
    assert (facets.C, facets.k, facets.weighting, facets.clusters) == (10, 7, "published", "embedding")
    assert (method.steps, method.objective.match, len(method.filters)) == (3, "dot_product", 3)
    assert me.preset("no_tv").method.objective.tv == 0
    assert me.preset().method.objective == me.Objective()
    assert me.preset().facets == me.Facets()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("publishd",), "there is no preset 'publishd'; did you mean published"),
        (("published", ["k=0"]), "k must be a whole number of 1 or more"),
        (("published", "k=4"), r"settings must be a list of texts, \['C=10', 'k=50'\], not 'k=4'"),
        (("published", ["lr=4"]), "schedule.lr"),
    ],
)
def test_no_such_preset_is_one_line(arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        me.preset(*arguments)
    assert "\n" not in str(error.value)


def test_other_things_in_place_of_settings(network, targets):
    for wrong, message in (
        (({"steps": 2},), r"method must be Method\(…\), not a dict"),
        ((me.Objective(),), r"method must be Method\(…\), not an Objective"),
        ((me.Method(), {"devices": 1}), r"running must be Running\(…\), not a dict"),
    ):
        refused(lambda wrong=wrong: me.visualize(network, targets, *wrong), message)
        refused(lambda wrong=wrong: fit(network, targets, *wrong), message)
    refused(lambda: me.visualize(network, targets, watchers=None), r"watchers must be Watchers\(…\), not a NoneType")
    refused(lambda: me.Watchers(report=3), "report must be a function, not an int")
    refused(lambda: me.Watchers(every="3"), "every must be a whole number of 1 or more, not 3")
    refused(lambda: me.Watchers(callbacks=3), "callbacks must be a list, not an int")
    refused(lambda: me.read_run(None), "the folder must be a path, not a NoneType")
    refused(lambda: me.load_network(None), "the network must be a name, .* or an nn.Module, not None")
    refused(lambda: me.load_network(nn.Identity, **HALF), "not Identity")
    refused(lambda: me.Facets(facets=3), r"Facets has no facets; did you mean C\?")
    refused(lambda: me.Facets(top_k=3), r"Facets has no top_k; did you mean k\?")

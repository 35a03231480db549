"""Kinds of faults that users of other tools have reported, each held by inputs of several makes."""


import copy
import hashlib
import random
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from safetensors.torch import save_model
from torch import Tensor, nn
from torchvision import models
from torchvision.ops import FrozenBatchNorm2d

from mindseye.facets import discover_facets
from mindseye.networks import CheckpointSource, Network, TorchvisionSource, layer_table, load_network, record
from mindseye.networks.maps import as_maps
from mindseye.networks.modules import every_module, saved_tensors, tensors
from mindseye.networks.preparing import PreparedNetwork, prepare
from mindseye.networks.sources.timm_models import published_normalisation
from mindseye.settings import Facets, Running
from mindseye.visualizer.fitting import fit
from mindseye.visualizer.method import Method

HALF = {"mean": [0.5] * 3, "std": [0.5] * 3}


def one_line(error: pytest.ExceptionInfo[BaseException]) -> str:
    said = str(error.value)
    assert "\n" not in said
    return said


# ---- evaluation mode is ours to set, not the owner's methods' --------------------------------------------------------


class Owned(nn.Sequential):
    """Convolution, dropout, convolution."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 6, 3, 2), nn.Dropout(0.5), nn.Conv2d(6, 4, 3))


class TrainsWithALoader(Owned):
    def train(self, loader: list[Tensor], epochs: int = 3) -> None:
        raise AssertionError("the owner's training was called")


class TrainsWithoutArguments(Owned):
    def train(self, loader: object = None) -> None:
        raise AssertionError("the owner's training was called")


class ReturnsNothing(Owned):
    def train(self, mode: bool = True) -> None:
        super().train(mode)


class EvaluatesALoader(Owned):
    def eval(self, loader: list[Tensor]) -> float:
        raise AssertionError("the owner's evaluation was called")


class KeepsDropoutOn(Owned):
    def train(self, mode: bool = True) -> "KeepsDropoutOn":
        return super().train(True)


class FreezesItself(Owned):
    def requires_grad_(self, requires_grad: bool = True) -> None:
        """Does something else, and returns nothing."""


class HasATrainFlag(Owned):
    def __init__(self) -> None:
        super().__init__()
        self.train = True  # a setting of that name, in the way of the method


class EvalIsAFigure(Owned):
    eval = 0.93


class Restores(Owned):
    def train(self, mode: bool = True) -> "Restores":
        if not mode:
            raise RuntimeError("load the best weights first")
        return self


class HoldsHyperparameters(Owned):
    def __init__(self) -> None:
        super().__init__()
        self.parameters = {"lr": 0.1}  # in the way of the method
        self.buffers = [[], []]


class GroupsItsParameters(Owned):
    def parameters(self, lr: float) -> None:
        raise AssertionError("the owner's groups of parameters were asked for")


class SavesItself(Owned):
    def state_dict(self, path: str) -> None:
        raise AssertionError("the owner's saving was called")

    def load_state_dict(self, path: str) -> None:
        raise AssertionError("the owner's loading was called")


class NamesNoParts(Owned):
    def modules(self) -> list[nn.Module]:
        return []

    def named_modules(self, *given: object, **named: object) -> list[tuple[str, nn.Module]]:
        return [("", self)]


class IsATree(Owned):
    def __init__(self) -> None:
        super().__init__()
        self.children = []  # of the node that it is, in the way of the method
        self.modules = {"lesson": 1}


class CutsOut(Owned):
    def get_submodule(self, start: int, end: int) -> nn.Module:
        raise AssertionError("the owner's own part was asked for")

    def named_children(self, family: str) -> list[str]:
        raise AssertionError("the owner's own names were asked for")


class KeepsItsHooks(Owned):
    def register_forward_hook(self, layer: str) -> None:
        raise AssertionError("the owner's own hook was asked for")

    def register_forward_pre_hook(self, layer: str) -> None:
        raise AssertionError("the owner's own hook was asked for")


class AppliesItself(Owned):
    def _apply(self, images: Tensor) -> Tensor:
        raise AssertionError("the owner's own step was called")

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images if images.detach().mean() > -9 else -images)  # which cannot be traced


KINDS = [
    IsATree, CutsOut, KeepsItsHooks, AppliesItself,
    HoldsHyperparameters, GroupsItsParameters, SavesItself, NamesNoParts,
    TrainsWithALoader, TrainsWithoutArguments, ReturnsNothing, EvaluatesALoader, KeepsDropoutOn, FreezesItself,
    HasATrainFlag, EvalIsAFigure, Restores,
]  # fmt: skip


@pytest.mark.parametrize("part", [False, True], ids=["whole", "part"])
@pytest.mark.parametrize("kind", KINDS)
def test_evaluation_mode_does_not_go_through_the_owners_methods(kind: type[Owned], part: bool) -> None:
    body = nn.Sequential(kind(), nn.Conv2d(4, 5, 1)) if part else kind()
    network = load_network(body, size=24, **HALF)
    assert network.body is body
    nn.ModuleList([network]).train()  # as a trainer does
    for looking in (network, prepare(network, "1" if part else "2")):
        looking.train()
        assert not any(module.training for _, module in every_module(looking))
        assert not any(weight.requires_grad for _, weight in tensors(looking))
    images = torch.rand(2, 3, 24, 24)
    assert torch.equal(network(images), network(images))


WITH_METHODS = [
    TrainsWithALoader, HoldsHyperparameters, SavesItself, NamesNoParts, IsATree, CutsOut, KeepsItsHooks, AppliesItself,
]  # fmt: skip


@pytest.mark.parametrize("kind", WITH_METHODS)
@pytest.mark.parametrize("part", [False, True], ids=["whole", "part"])
def test_a_network_with_methods_of_its_own_is_drawn(kind, part: bool, photographs) -> None:
    body = nn.Sequential(kind(), nn.Conv2d(4, 5, 1)) if part else kind()
    network = load_network(body, size=48, **HALF)
    layer = [row.name for row in layer_table(network)][-1]
    targets = discover_facets(network, photographs, layer, Facets(C=2, k=2, N=2))
    assert fit(network, targets, Method(steps=2), Running(accelerator="cpu")).images.isfinite().all()


def test_another_precision_does_not_go_through_the_owners_methods() -> None:
    class OwnFloat(Owned):
        def float(self) -> None:
            raise AssertionError("the owner's float was called")

    body = nn.Module.double(OwnFloat())
    assert {weight.dtype for weight in load_network(body, size=24, **HALF).body.parameters()} == {torch.float32}


@pytest.mark.parametrize("kind", [IsATree, CutsOut, AppliesItself])
def test_a_network_in_another_precision_is_copied_past_its_own_methods(kind: type[Owned]) -> None:
    body = kind()
    for _, part in every_module(body):
        nn.Module._apply(part, Tensor.double, recurse=False)
    network = load_network(body, size=24, **HALF)
    assert {weight.dtype for _, weight in tensors(network)} == {torch.float32}
    assert {weight.dtype for _, weight in tensors(body)} == {torch.float64}


def test_a_method_that_takes_tensors_along_is_called() -> None:
    """As torch has it, and as detectors move their grids."""

    class TakesAlong(Owned):
        def __init__(self) -> None:
            super().__init__()
            self.grid = torch.zeros(2)

        def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
            self.grid = fn(self.grid)
            return super()._apply(fn, recurse)

    body = TakesAlong()
    load_network(body, size=24, **HALF).to("meta")
    assert body.grid.is_meta
    assert all(weight.is_meta for _, weight in tensors(body))


class SavesWhatIsTrained(Owned):
    def state_dict(self, *given: object, **named: object) -> dict[str, Tensor]:
        return {}


def test_other_weights_are_another_network_whatever_a_module_saves_of_itself() -> None:
    """What is kept of photographs is known by them: else those of other weights would be taken."""
    one, other = (load_network(SavesWhatIsTrained(), size=24, **HALF) for _ in range(2))
    assert one.fingerprint() != other.fingerprint()
    plain = load_network(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), size=24, **HALF)
    assert [*saved_tensors(plain)] == [*plain.state_dict()]


def test_the_weights_of_a_file_go_into_a_module_that_loads_otherwise(tmp_path) -> None:
    right = Owned().state_dict()
    torch.save(right, tmp_path / "own.pth")
    network = load_network(SavesItself(), tmp_path / "own.pth", size=24, **HALF)
    assert all(torch.equal(value, right[name]) for name, value in saved_tensors(network.body).items())


def test_a_part_whose_training_cannot_be_ended_is_named() -> None:
    class Always(nn.Dropout):
        training = property(lambda self: True, lambda self, mode: None)

    with pytest.raises(ValueError, match=r"^1 \(Always\) stays in training mode: .*let train\(\) and eval") as error:
        load_network(nn.Sequential(nn.Conv2d(3, 6, 3), Always()), size=24, **HALF)
    one_line(error)


# ---- normalisation that is surely wrong is refused, that is not known is asked for -----------------------------------


@pytest.mark.parametrize(
    ("mean", "std", "right"),
    [
        ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375], r"mean=\[0.485, 0.456, 0.406\] std=\[0.229, 0.224, 0.225"),
        ([127.5] * 3, [127.5] * 3, r"mean=\[0.5, 0.5, 0.5\] std=\[0.5, 0.5, 0.5\]"),
        ([0.0] * 3, [255.0] * 3, r"mean=\[0, 0, 0\] std=\[1, 1, 1\]"),
        ([123.68, 116.779, 103.939], [1.0] * 3, r"mean=\[0.485, 0.458, 0.4076\] std=\[0.003922, "),
        ([0.485, 0.456, 0.406], [58.395, 57.12, 57.375], r"divided by 255"),
        ([33.3], [78.6], r"mean=\[0.1306\] std=\[0.3082\]"),
        ([9830.0] * 4, [3277.0] * 4, r"\(mean - black\) / \(white - black\) and std / \(white - black\)"),
        ([-600.0], [350.0], r"\(mean - black\) / \(white - black\)"),
        ([0.5] * 3, [float("inf")] * 3, "must be finite"),
        ([0.5, float("nan"), 0.5], [0.5] * 3, "must be finite"),
        ([[0.5], [0.5], [0.5]], [0.5] * 3, "must be lists of one number per channel"),
        (["grey"], [0.5], "must be lists of one number per channel"),
        ([48.5, 45.6, 40.6], [22.9, 22.4, 22.5], "are not of images in 0..1"),
    ],
)
def test_normalisation_of_other_images_than_in_0_to_1_is_refused(mean, std, right) -> None:
    with pytest.raises(ValueError, match=right) as error:
        load_network(nn.Conv2d(len(mean), 4, 3), mean=mean, std=std, size=24)
    one_line(error)


@pytest.mark.parametrize(
    ("mean", "std"),
    [
        ([0.0] * 3, [1 / 255] * 3),  # a network that reads 0..255
        ([0.48235, 0.45882, 0.40784], [1 / 255] * 3),  # and one without its mean
        ([0.0] * 3, [1.0] * 3),
        ([0.5] * 3, [0.5] * 3),
        ([-1.1], [0.9]),  # a window above the mean of its counts
        ([0.0], [1 / 65535]),
        ([0.02, 0.5, 0.9, 0.01], [0.01, 0.2, 0.2, 2.0]),
    ],
)
def test_normalisation_that_may_be_right_is_taken(mean, std) -> None:
    network = load_network(nn.Conv2d(len(mean), 4, 3), mean=mean, std=std, size=24)
    assert network.mean.flatten().tolist() == pytest.approx(mean)


def published(url: str, mean: float, size: int = 96, std: float = 0.5) -> SimpleNamespace:
    """What torchvision says of one file of published weights."""
    reading = SimpleNamespace(mean=[mean] * 3, std=[std] * 3, crop_size=[size])
    return SimpleNamespace(url=url, transforms=lambda: reading, meta={"categories": ["cat", "dog", "cow"]})


def test_a_file_brings_the_normalisation_that_is_known_of_it(tmp_path, monkeypatch) -> None:
    """By its name, by its hash, by what all weights of the name have in common; else it is asked for."""
    state = models.squeezenet1_1(weights=None, num_classes=3).state_dict()
    for name in ("net-00000000.pth", "renamed.pth"):
        torch.save(state, tmp_path / name)
    torch.save({**state, "features.0.bias": state["features.0.bias"] + 1}, tmp_path / "own.pth")
    digest = hashlib.sha256((tmp_path / "renamed.pth").read_bytes()).hexdigest()[:8]
    by_name, by_hash = published("https://x/net-00000000.pth", 0.4, 80), published(f"https://x/y-{digest}.pth", 0.3)
    monkeypatch.setattr(models, "get_model_weights", lambda name: [by_name, by_hash])
    for file, mean, size in (("net-00000000.pth", 0.4, 80), ("renamed.pth", 0.3, 96)):
        network = load_network("squeezenet1_1", tmp_path / file)
        assert network.mean.flatten().tolist() == pytest.approx([mean] * 3)
        assert (network.size, network.classes) == (size, ("cat", "dog", "cow"))
    torch.save(models.squeezenet1_1(weights=None, num_classes=5).state_dict(), tmp_path / "net-00000000.pth")
    assert load_network("squeezenet1_1", tmp_path / "net-00000000.pth").classes is None  # of others than the name says
    with pytest.raises(ValueError, match=r"weights of several mean and std, and own.pth is none of them") as error:
        load_network("squeezenet1_1", tmp_path / "own.pth")
    one_line(error)
    assert load_network("squeezenet1_1", tmp_path / "own.pth", **HALF).std.flatten().tolist() == [0.5] * 3
    monkeypatch.setattr(models, "get_model_weights", lambda name: [published("https://x/a.pth", 0.2, 72)] * 2)
    for ask in (load_network, lambda name, path: CheckpointSource(path, name).load()):
        network = ask("squeezenet1_1", tmp_path / "own.pth")
        assert network.mean.flatten().tolist() == pytest.approx([0.2] * 3)
        assert (network.size, network.classes) == (72, None)


def test_a_checkpoint_in_ones_own_function_asks_for_its_normalisation(tmp_path) -> None:
    (tmp_path / "own.py").write_text("from torch import nn\n\ndef build():\n    return nn.Conv2d(3, 4, 3)\n")
    torch.save(nn.Conv2d(3, 4, 3).state_dict(), tmp_path / "own.pth")
    with pytest.raises(ValueError, match="give mean and std"):
        CheckpointSource(tmp_path / "own.pth", f"{tmp_path}/own.py:build").load()
    assert CheckpointSource(tmp_path / "own.pth", f"{tmp_path}/own.py:build", **HALF).load().size == 224


@pytest.mark.parametrize("name", ["vit_small_patch16_224", "mixer_b16_224", "resnet34"])
def test_a_timm_name_whose_weights_differ_asks_for_the_normalisation_of_a_file(name, tmp_path) -> None:
    pytest.importorskip("timm")
    with pytest.raises(ValueError, match=rf"of {name} are of several mean and std .*name with its tag") as error:
        published_normalisation(name, tmp_path / "own.pth")
    one_line(error)
    assert published_normalisation("resnet10t", tmp_path / "own.pth")["mean"] == (0.485, 0.456, 0.406)
    assert published_normalisation("mixer_b16_224.goog_in21k", tmp_path / "own.pth")["mean"] == (0.5, 0.5, 0.5)


@pytest.mark.parametrize("name", ["inception_v3", "googlenet"])
def test_what_a_network_does_to_its_input_can_be_said(name, tmp_path, caplog) -> None:
    own = models.get_model(name, weights=None, num_classes=2, init_weights=False, aux_logits=False)
    torch.save(own.state_dict(), tmp_path / "own.pth")
    assert load_network(name, tmp_path / "own.pth").body.transform_input
    assert "transform_input=true, as its published weights are" in caplog.text
    caplog.clear()
    for network in (
        TorchvisionSource(name, tmp_path / "own.pth", arguments={"transform_input": False}).load(),
        CheckpointSource(tmp_path / "own.pth", name, {"transform_input": False, "num_classes": 2}).load(),
    ):
        assert not network.body.transform_input
    assert not caplog.text


def test_arguments_that_nothing_takes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"squeezenet1_1 cannot be built with \{'depth': 3\}") as error:
        TorchvisionSource("squeezenet1_1", None, arguments={"depth": 3}).load()
    one_line(error)


# ---- which weights of a file are meant, and files that have all that is needed ---------------------------------------


def small(width: int = 6, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    stem = nn.Sequential(nn.Conv2d(3, width, 3, bias=False), nn.BatchNorm2d(width), nn.ReLU())
    parts = OrderedDict(stem=stem, stage=nn.Conv2d(width, 5, 3), pool=nn.AdaptiveAvgPool2d(1), flat=nn.Flatten())
    return nn.Sequential(parts | {"head": nn.Linear(5, 2)})


def renamed(state: dict[str, Tensor], change: Callable[[str], str]) -> dict[str, Tensor]:
    return {change(key): value for key, value in state.items()}


RAW, OTHER = small(seed=1).state_dict(), small(seed=2).state_dict()


def loaded(saved: object, tmp_path: Path, **more) -> Network:
    torch.save(saved, tmp_path / "weights.pth")
    return load_network(small(), tmp_path / "weights.pth", size=24, **HALF, **more)


def holds(network: Network, state: dict[str, Tensor]) -> bool:
    own = network.body.state_dict()
    return all(torch.equal(own[key], state[key]) for key in own)


@pytest.mark.parametrize(
    ("one", "averaged"),
    [("state_dict", "state_dict_ema"), ("model", "ema"), ("params", "params_ema"), ("net", "ema_state_dict"),
     ("model", "swa_model"), ("weights", "averaged_model"), ("g", "G_EMA")],
)  # fmt: skip
def test_averaged_weights_are_taken_with_a_word(one: str, averaged: str, tmp_path: Path, caplog) -> None:
    network = loaded({"epoch": 3, one: RAW, averaged: OTHER}, tmp_path)
    assert holds(network, OTHER)
    assert f"the weights under {averaged} are taken, not those under {one} (prefix={one} takes these)" in caplog.text
    caplog.clear()
    assert holds(loaded({one: RAW, averaged: OTHER}, tmp_path, prefix=one), RAW)
    assert not caplog.text


@pytest.mark.parametrize(
    ("one", "other"),
    [("encoder_q.", "encoder_k."), ("online.net.", "target.net."), ("model.", "ema_model."), ("G_A.", "G_B."),
     ("module.left.", "module.right."), ("student.backbone.", "teacher.backbone.")],
)  # fmt: skip
def test_weights_that_fit_equally_well_are_asked_for(one: str, other: str, tmp_path: Path) -> None:
    both = renamed(RAW, lambda key: one + key) | renamed(OTHER, lambda key: other + key)
    for saved in (both, {"state_dict": both}, {"epoch": 1, one.strip("."): RAW, f"{other}x": OTHER}):
        if saved.keys() & {"epoch"} and "ema" in other:
            continue  # a key of averaged weights is a word about them
        with pytest.raises(ValueError, match=r"several weights that fit equally well, .* say which, prefix=") as error:
            loaded(saved, tmp_path)
        one_line(error)
    assert holds(loaded(both, tmp_path, prefix=one), RAW)
    assert holds(loaded({"state_dict": both}, tmp_path, prefix=f"state_dict.{other}"), OTHER)
    with pytest.raises(ValueError, match="has no weights of the network under prefix=nowhere; it has them under"):
        loaded(both, tmp_path, prefix="nowhere")


def test_a_file_with_equal_weights_twice_is_no_choice(tmp_path: Path, caplog) -> None:
    assert holds(loaded({"student": RAW, "teacher": dict(RAW)}, tmp_path), RAW)
    both = renamed(RAW, lambda key: f"net.{key}") | renamed(RAW, lambda key: f"loss.net.{key}")
    assert holds(loaded(both, tmp_path), RAW)
    assert not caplog.text


def test_what_fits_worse_is_left_with_a_word(tmp_path: Path, caplog) -> None:
    """An average of parameters alone has no statistics, without which the network cannot be run."""
    alone = {key: OTHER[key] for key in OTHER if "running" not in key and "tracked" not in key}
    assert holds(loaded({"model": RAW, "model_ema": alone}, tmp_path), RAW)
    assert "the weights under model are taken, not those under model_ema" in caplog.text


def test_shapes_tell_weights_of_the_same_names_apart(tmp_path: Path, caplog) -> None:
    wide = small(width=9).state_dict()
    saved = renamed(wide, lambda key: f"a.{key}") | renamed(RAW, lambda key: f"longer.{key}")
    assert holds(loaded(saved, tmp_path), RAW)
    assert not caplog.text


@pytest.mark.parametrize(
    "saved",
    [
        {"module": RAW},
        {"params_ema": RAW},
        {"ema_state_dict": RAW, "epoch": 2},
        {"checkpoint": {"network": {"weights": RAW}}, "args": {"lr": 0.1}},
        [{"step": 3}, RAW],
        (RAW, {"optimizer": 1}),
        {"models": [RAW]},
        {"runner": {"ema": {"module": RAW}}, "optimizer": {"exp_avg": OTHER}},
    ],
)
def test_a_state_dict_is_found_at_any_depth(saved: object, tmp_path: Path, caplog) -> None:
    assert holds(loaded(saved, tmp_path), RAW)
    assert not caplog.text


@pytest.mark.parametrize(
    "change",
    [
        lambda key: f"module.{key}",
        lambda key: f"_orig_mod.{key}",
        lambda key: key.replace("stem.", "stem._orig_mod."),
        lambda key: key.replace("stem.", "stem._fsdp_wrapped_module._checkpoint_wrapped_module."),
        lambda key: "_forward_module.model." + key.replace("stage.", "stage.module."),
        lambda key: "net.module." + key.replace("stem.0", "stem.0.module"),
        lambda key: "_fsdp_wrapped_module._fpw_module." + key,
    ],
)
def test_what_wraps_modules_is_taken_out_of_names(change: Callable[[str], str], tmp_path: Path, caplog) -> None:
    assert holds(loaded(renamed(RAW, change), tmp_path), RAW)
    body = nn.Sequential(OrderedDict(module=small()))  # one whose own part is called so
    torch.save(renamed(RAW, lambda key: f"module.{key}"), tmp_path / "own.pth")
    own = load_network(body, tmp_path / "own.pth", size=24, **HALF).body
    assert torch.equal(own.module.stage.bias, RAW["stage.bias"])
    assert not caplog.text


def test_an_average_counts_its_updates_beside_its_module(tmp_path: Path) -> None:
    average = torch.optim.swa_utils.AveragedModel(small(seed=1))
    assert "n_averaged" in average.state_dict()
    assert holds(loaded(average.state_dict(), tmp_path), RAW)


class Indexed(nn.Module):
    """Reads its channels by an index and a mask that it makes by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.last = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 1)
        self.register_buffer("relative_position_index", torch.arange(3, -1, -1))
        self.register_buffer("mask", torch.tensor([True, True, False, True]))

    def forward(self, images: Tensor) -> Tensor:
        return self.last(self.conv(images)[:, self.relative_position_index] * self.mask[:, None, None])


def test_what_is_no_weight_may_be_missing_or_too_much(tmp_path: Path, caplog) -> None:
    weights = {key: value for key, value in Indexed().state_dict().items() if "weight" in key or "bias" in key}
    more = {"last.position_ids": torch.arange(5), "total_ops": torch.zeros(1), "conv.total_params": torch.zeros(1)}
    for saved in (weights, weights | more):
        torch.save(saved, tmp_path / "own.pth")
        network = load_network(Indexed(), tmp_path / "own.pth", size=24, **HALF)
        assert not network.unloaded
        assert prepare(network, "last").traced
    assert not caplog.text


def test_a_statistic_that_is_missing_is_refused_where_it_is_read(tmp_path: Path) -> None:
    network = loaded({key: value for key, value in RAW.items() if key != "stem.1.running_var"}, tmp_path)
    assert prepare(network, "stem.0").traced
    with pytest.raises(ValueError, match=r"layer stage depends on stem.1.running_var"):
        prepare(network, "stage")


HEADLESS = {key: value for key, value in RAW.items() if not key.startswith("head")}


@pytest.mark.parametrize(
    "saved",
    [
        HEADLESS,
        HEADLESS | {"head.1.weight": torch.zeros(7, 5), "head.1.bias": torch.zeros(7)},
        HEADLESS | {"head.mlp.0.weight": torch.zeros(7, 5)},
        HEADLESS | {"projector.0.weight": torch.zeros(7, 5), "predictor.weight": torch.zeros(7)},
    ],
    ids=["none", "in a Sequential", "deeper", "of another name"],
)
def test_a_head_that_the_way_to_the_layer_does_not_need_may_be_missing(saved, tmp_path, caplog, photographs) -> None:
    network = loaded(saved, tmp_path)
    assert "lacks head.weight, head.bias of Sequential" in caplog.text
    assert caplog.text.count("lacks") == 1
    assert network.unloaded == {"head.weight", "head.bias"}
    assert discover_facets(network, photographs, "stage", Facets(C=2, k=2, N=2)).maps.isfinite().all()
    with pytest.raises(ValueError, match=r"layer head depends on head.bias, head.weight, which the file") as error:
        prepare(network, "head")
    one_line(error)


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        (RAW | {"stage.extra.weight": torch.zeros(3)}, "stage.extra.weight unknown"),
        (HEADLESS | {"stem.3.weight": torch.zeros(3)}, "stem.3.weight unknown"),
        (RAW | {"attention.weight": torch.zeros(3)}, "attention.weight unknown"),
        ({key: RAW[key] for key in ("head.weight", "head.bias")}, "stem.0.weight, stem.1.weight, .* missing"),
    ],
)
def test_a_file_of_another_architecture_is_refused(saved, message, tmp_path) -> None:
    with pytest.raises(ValueError, match=message) as error:
        loaded(saved, tmp_path)
    one_line(error)


@pytest.mark.parametrize("kind", [torch.int8, torch.uint8, torch.bool, torch.complex64])
@pytest.mark.parametrize("key", ["stage.weight", "head.bias"])
def test_numbers_of_another_kind_are_no_weights(kind: torch.dtype, key: str, tmp_path: Path) -> None:
    """They would be taken without their scale."""
    with pytest.raises(ValueError, match=rf"{key} is {str(kind)[6:]} there, of a quantised network") as error:
        loaded(RAW | {key: (100 * RAW[key]).to(kind)}, tmp_path)
    one_line(error)
    loaded(RAW | {key: RAW[key].half(), "stem.1.running_mean": torch.zeros(6, dtype=torch.int64)}, tmp_path)


def test_a_weight_that_is_missing_on_the_way_is_refused_where_it_is_needed(tmp_path) -> None:
    network = loaded({key: value for key, value in RAW.items() if key != "stage.weight"}, tmp_path)
    assert prepare(network, "stem").traced
    with pytest.raises(ValueError, match=r"layer stage depends on stage.weight"):
        prepare(network, "stage")

    class Free(nn.Module):  # a parameter of the root itself, which is always called
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.last = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1)
            self.token = nn.Parameter(torch.ones(4, 1, 1))

        def forward(self, images: Tensor) -> Tensor:
            return self.last(self.conv(images) + self.token)

    torch.save({key: value for key, value in Free().state_dict().items() if key != "token"}, tmp_path / "free.pth")
    network = load_network(Free(), tmp_path / "free.pth", size=24, **HALF)
    assert prepare(network, "conv").traced
    with pytest.raises(ValueError, match="layer last depends on token"):
        prepare(network, "last")


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6))
        self.first, self.second = self.encoder[0], nn.Conv2d(3, 6, 3)
        self.second.weight = self.first.weight

    def forward(self, images: Tensor) -> Tensor:
        return self.encoder(images) + self.second(images)


def test_a_tensor_with_several_names_needs_one(tmp_path: Path, caplog) -> None:
    body = Tied()
    save_model(body, str(tmp_path / "tied.safetensors"))
    once = {key: value for key, value in body.state_dict().items() if key != "second.weight"}
    torch.save(once, tmp_path / "tied.pth")
    for file in ("tied.safetensors", "tied.pth"):
        network = load_network(Tied(), tmp_path / file, size=24, **HALF)
        assert torch.equal(network.body.second.weight, body.encoder[0].weight)
        assert not network.unloaded
    assert not caplog.text


@pytest.mark.parametrize("file", [False, True])
def test_lazy_modules_get_their_shapes(file: bool, tmp_path: Path, photographs) -> None:
    def lazy() -> nn.Sequential:
        return nn.Sequential(nn.LazyConv2d(8, 3), nn.LazyBatchNorm2d(), nn.Flatten(), nn.LazyLinear(4))

    full = lazy()
    full(torch.rand(2, 3, 48, 48))
    torch.save(full.state_dict(), tmp_path / "lazy.pth")
    network = load_network(lazy(), tmp_path / "lazy.pth" if file else None, size=48, **HALF)
    assert [type(part) for part in network.body] == [nn.Conv2d, nn.BatchNorm2d, nn.Flatten, nn.Linear]
    assert not file or holds(network, full.state_dict())
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert discover_facets(network, photographs, "1", Facets(C=2, k=2, N=2)).maps.isfinite().all()
    with pytest.raises(ValueError, match=r"has lazy modules \(LazyLinear\), .* run it once") as error:
        load_network(nn.Sequential(nn.Conv2d(3, 8, 30), nn.LazyLinear(4)), size=24, **HALF)
    one_line(error)


def test_a_file_without_tensors_names_its_keys(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no state dict: .* \(its keys: epoch, arch, args and 1 more\)"):
        loaded({"epoch": 3, "arch": "resnet", "args": {}, "state": None}, tmp_path)


# ---- what has seen no training ---------------------------------------------------------------------------------------


def trained(kind: Callable[[], nn.Module]) -> nn.Module:
    body = kind()
    for name, buffer in body.named_buffers():
        if name.endswith("running_mean"):
            buffer.add_(0.25)
    return body


NORMS = {
    "batch": lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)),
    "no scale": lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, affine=False)),
    "frozen": lambda: nn.Sequential(nn.Conv2d(3, 4, 3), FrozenBatchNorm2d(4)),
    "instance": lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.InstanceNorm2d(4, track_running_stats=True)),
}


@pytest.mark.parametrize("kind", NORMS.values(), ids=NORMS)
def test_no_training_is_told_by_what_training_leaves(kind, tmp_path: Path, caplog) -> None:
    load_network(trained(kind), size=24, **HALF)
    assert not caplog.text  # though no batch was counted
    torch.save({key: one for key, one in kind().state_dict().items() if "tracked" not in key}, tmp_path / "old.pth")
    load_network(kind(), tmp_path / "old.pth", size=24, **HALF)
    assert not caplog.text  # a file was given
    load_network(kind(), size=24, **HALF)
    assert "has seen no training" in caplog.text


# ---- a probe leaves the owner's module as it was ---------------------------------------------------------------------


class Keeping(nn.Module):
    """A convolution, something that is kept of its answer, a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 6, 3, 2), nn.Conv2d(6, 4, 3)
        self.begin()

    def begin(self) -> None:
        """What there is before the first pass."""

    def keep(self, seen: Tensor) -> Tensor:
        return seen

    def forward(self, images: Tensor) -> Tensor:
        return self.second(self.keep(self.first(images)))


class KeepsAFeature(Keeping):
    def keep(self, seen: Tensor) -> Tensor:
        self.features = seen
        return seen


class KeepsAList(Keeping):
    def begin(self) -> None:
        self.all: list[Tensor] = []

    def keep(self, seen: Tensor) -> Tensor:
        self.all.append(seen)
        return seen


class KeepsADictionary(Keeping):
    def begin(self) -> None:
        self.by_name = {"last": None}

    def keep(self, seen: Tensor) -> Tensor:
        self.by_name["last"] = seen
        return seen


class Counts(Keeping):
    def begin(self) -> None:
        self.register_buffer("count", torch.zeros(()))

    def keep(self, seen: Tensor) -> Tensor:
        self.count += 1
        return seen * self.count


class Remembers(Keeping):
    def begin(self) -> None:
        self.last: Tensor | None = None

    def keep(self, seen: Tensor) -> Tensor:
        seen = seen if self.last is None else 0.9 * seen + 0.1 * self.last
        self.last = seen
        return seen


class BuildsAtTheFirstCall(Keeping):
    def begin(self) -> None:
        self.gain: nn.Parameter | None = None
        self.norm: nn.Module | None = None

    def keep(self, seen: Tensor) -> Tensor:
        if self.gain is None:
            self.gain = nn.Parameter(torch.ones(seen.shape[2:]))
            self.norm = nn.GroupNorm(2, seen.shape[1])
        return self.norm(seen) * self.gain


class KeepsByDefault(Keeping):
    def begin(self) -> None:
        self.by_name = defaultdict(list)

    def keep(self, seen: Tensor) -> Tensor:
        self.by_name["last"].append(seen)
        return seen


class KeepsDeep(Keeping):
    def begin(self) -> None:
        self.place = SimpleNamespace(kept={"all": ([], Counter())}, last=None)

    def keep(self, seen: Tensor) -> Tensor:
        self.place.last = seen
        self.place.kept["all"][0].append(seen)
        self.place.kept["all"][1]["calls"] += 1
        return seen


class Store:
    def __init__(self) -> None:
        self.kept: list[Tensor] = []


class KeepsInAnObject(Keeping):
    def begin(self) -> None:
        self.store = Store()

    def keep(self, seen: Tensor) -> Tensor:
        self.store.kept.append(seen)
        return seen


class KeepsOnItsClass(Keeping):
    kept: list[Tensor] = []  # noqa: RUF012  # as many write it

    def keep(self, seen: Tensor) -> Tensor:
        self.kept.append(seen)
        type(self).last = seen
        return seen


class WritesIntoTensors(Keeping):
    def begin(self) -> None:
        self.steps = torch.zeros(1)
        self.bank, self.array = [torch.zeros(2)], np.zeros(2)

    def keep(self, seen: Tensor) -> Tensor:
        self.steps += 1
        self.bank[0] += 1
        self.array += 1
        return seen * self.steps


class NormalisesItsWeight(Keeping):
    def keep(self, seen: Tensor) -> Tensor:
        self.second.weight.data = self.second.weight.data * 1.5
        return seen


class ScalesItsWeight(Keeping):
    def keep(self, seen: Tensor) -> Tensor:
        self.second.weight.data.mul_(1.5)  # which no count of torch's knows of
        return seen


class AddsToItsWeight(Keeping):
    def keep(self, seen: Tensor) -> Tensor:
        with torch.no_grad():
            self.second.weight += 0.1
        return seen


class ClipsItsWeight(Keeping):
    def keep(self, seen: Tensor) -> Tensor:
        self.second.weight.detach().clamp_(-0.05, 0.05)
        return seen


class CutsItsWeight(Keeping):
    def keep(self, seen: Tensor) -> Tensor:
        self.second.weight.data[0] = 0
        return seen


class CountsInAParameter(Keeping):
    def begin(self) -> None:
        self.calls = nn.Parameter(torch.zeros(6, 1, 1), requires_grad=False)

    def keep(self, seen: Tensor) -> Tensor:
        self.calls.data.copy_(self.calls + 1)
        return seen * self.calls


class CountsInABuffer(Keeping):
    def begin(self) -> None:
        self.register_buffer("order", torch.arange(6))

    def keep(self, seen: Tensor) -> Tensor:
        self.order[:1].add_(1)
        torch.add(self.order, 1, out=self.order)
        return seen[:, self.order.remainder(6)]


class TrainsItsNorm(Keeping):
    def begin(self) -> None:
        self.norm = nn.BatchNorm2d(6)

    def keep(self, seen: Tensor) -> Tensor:
        return self.norm.train()(seen)


class KeepsByAHook(Keeping):
    def begin(self) -> None:
        self.kept: list[Tensor] = []
        self.first.register_forward_hook(lambda module, arguments, output: self.kept.append(output))


def everything(body: nn.Module) -> str:
    """All that stands on a module and its parts, tensors by what they hold."""

    def said(value: object) -> object:
        if isinstance(value, Tensor):
            return value.detach().tolist()
        if isinstance(value, np.ndarray):
            return value.tolist()
        if isinstance(value, list | tuple | set):
            return [said(one) for one in value]
        if isinstance(value, SimpleNamespace | Store):
            return said(vars(value))
        return {key: said(one) for key, one in value.items()} if isinstance(value, dict) else type(value).__name__

    skipped = {"training", "_modules"}
    on_class = {k: v for k, v in vars(KeepsOnItsClass).items() if k in ("kept", "last")}
    return str([(path, said({k: v for k, v in vars(part).items() if k not in skipped}), list(part._modules))
                for path, part in body.named_modules()] + [said(on_class)])  # fmt: skip


KEEPING = [
    KeepsAFeature, KeepsAList, KeepsADictionary, Counts, Remembers, BuildsAtTheFirstCall, KeepsByAHook, KeepsByDefault,
    KeepsDeep, KeepsInAnObject, KeepsOnItsClass, WritesIntoTensors, NormalisesItsWeight, TrainsItsNorm,
    ScalesItsWeight, AddsToItsWeight, ClipsItsWeight, CutsItsWeight, CountsInAParameter, CountsInABuffer,
]  # fmt: skip


@pytest.mark.parametrize("kind", KEEPING)
def test_looking_and_drawing_leave_the_module_as_it_was(kind: type[Keeping], photographs, tmp_path) -> None:
    body = nn.Sequential(kind(), nn.Conv2d(4, 4, 3))
    before = everything(body)
    network = load_network(body, size=40, **HALF)  # the photographs are of 48: nothing may be built for 40
    layer_table(network)
    targets = discover_facets(network, photographs, "1", Facets(C=2, k=2, N=2))
    one = fit(network, targets, Method(steps=2), Running(accelerator="cpu")).images
    assert everything(body) == before
    again = fit(network, targets, Method(steps=2), Running(accelerator="cpu")).images
    assert torch.equal(again, one)  # nothing is remembered
    copy.deepcopy(body)
    if kind is not KeepsByAHook:  # whose function cannot be pickled
        torch.save(body, tmp_path / "body.pt")


@pytest.mark.parametrize("kind", KEEPING)
@pytest.mark.parametrize("traceable", [True, False])
def test_every_pass_begins_with_the_module_as_it_was(kind: type[Keeping], traceable: bool) -> None:
    """Or a picture would be drawn by another network in each of its steps."""
    body = nn.Sequential(kind(), nn.Conv2d(4, 4, 3))
    if not traceable:
        body = Of(lambda images, body=body: body(images if images.detach().mean() > -9 else -images))
        body.body = body.function.__defaults__[0]
    network = load_network(body, size=40, **HALF)
    prepared = prepare(network, [*dict(every_module(body))][-1])
    images = torch.rand(2, 3, 40, 40)
    first = prepared(images).target.clone()
    for _ in range(2):
        assert torch.equal(prepared(images).target, first)


@pytest.mark.parametrize("kind", [KeepsAFeature, KeepsAList, KeepsByDefault, KeepsDeep, KeepsInAnObject, Remembers])
def test_a_module_in_another_precision_that_was_run_is_copied(kind: type[Keeping]) -> None:
    body = kind().double()
    images = torch.rand(1, 3, 40, 40).double()
    for _ in range(2):
        body(images)
    network = load_network(body, size=40, **HALF)
    assert {weight.dtype for weight in network.body.parameters()} == {torch.float32}
    assert {weight.dtype for weight in body.parameters()} == {torch.float64}
    layer_table(network)


# ---- what is only tried out says nothing on the terminal -------------------------------------------------------------


class Pyramid(nn.Module):
    """Two maps of other sizes, as a list, a tuple or in reverse."""

    def __init__(self, given: Callable[[list[Tensor]], object]) -> None:
        super().__init__()
        self.a, self.b, self.given = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 2, 1), given

    def forward(self, images: Tensor) -> object:
        a = self.a(images)
        return self.given([a, self.b(a)])


class Decoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.c = nn.Conv2d(16, 4, 3)

    def forward(self, maps: list[Tensor]) -> Tensor:
        large = max(one.shape[-1] for one in maps)
        return self.c(torch.cat([nn.functional.interpolate(one, size=(large, large)) for one in maps], 1))


class FixedDecoder(Decoder):
    def forward(self, maps: list[Tensor]) -> Tensor:
        large, small = maps
        return self.c(torch.cat([large, nn.functional.interpolate(small, scale_factor=2)], 1))


@pytest.mark.parametrize("decoder", [Decoder, FixedDecoder])
@pytest.mark.parametrize("given", [list, tuple], ids=["list", "tuple"])
def test_maps_of_several_sizes_enter_a_layer_without_a_traceback(given, decoder, photographs, capfd, caplog) -> None:
    network = load_network(nn.Sequential(Pyramid(given), decoder()), size=48, **HALF)
    prepared = prepare(network, "1")
    images = torch.rand(2, 3, 48, 48)
    target, previous, _ = prepared(images)
    assert torch.allclose(target, network(images), atol=1e-5)
    assert torch.allclose(previous, network.body[0].a((images - 0.5) / 0.5), atol=1e-5)  # the first of them
    assert decoder is Decoder or prepared.traced
    assert "Traceback" not in "".join(capfd.readouterr()) + caplog.text


class Named(NamedTuple):
    large: Tensor
    small: Tensor


GIVEN = {
    "the small one first": (lambda maps: maps[::-1], lambda given: given[::-1]),
    "by name": (lambda maps: Named(*maps), lambda given: [given.large, given.small]),
    "a dictionary": (lambda maps: {"large": maps[0], "small": maps[1]}, lambda given: [*given.values()]),
    "nested": (lambda maps: [[maps[0]], [maps[1]]], lambda given: [given[0][0], given[1][0]]),
    "one after the other": (iter, list),
}


@pytest.mark.parametrize(("given", "taken"), GIVEN.values(), ids=GIVEN)
def test_maps_in_any_wrapping_enter_a_layer_without_a_traceback(given, taken, photographs, capfd, caplog) -> None:
    class Unwraps(Decoder):
        def forward(self, maps: Any) -> Tensor:
            return super().forward(taken(maps))

    network = load_network(nn.Sequential(Pyramid(given), Unwraps()), size=48, **HALF)
    images = torch.rand(2, 3, 48, 48)
    assert torch.allclose(prepare(network, "1")(images).target, network(images), atol=1e-5)
    targets = discover_facets(network, photographs, "1", Facets(C=2, k=2, N=2))
    pictures = fit(network, targets, Method(steps=1, previous="0.b"), Running(accelerator="cpu")).images
    assert pictures.isfinite().all()
    assert "Traceback" not in "".join(capfd.readouterr()) + caplog.text


def test_what_fails_in_a_program_that_is_tried_out_is_not_printed(capfd) -> None:
    class Odd(nn.Module):
        """Another program for a tracer, which fails when it is run."""

        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, images: Tensor) -> Tensor:
            seen = self.conv(images)
            return seen if isinstance(seen, Tensor) else seen.reshape(7, 5, 3)

    network = load_network(nn.Sequential(Odd(), nn.Conv2d(4, 2, 1)), size=24, **HALF)
    assert not prepare(network, "1").traced
    assert "Traceback" not in "".join(capfd.readouterr())


# ---- a layer that no gradient leaves is an error, not a picture of the blend -----------------------------------------


class Of(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, seen: Tensor) -> Tensor:
        return self.function(seen)


WITHOUT_GRADIENT = {
    "round": lambda x: (x * 255).round() / 255,
    "floor": lambda x: (x * 8).floor(),
    "sign": torch.sign,
    "compares": lambda x: (x > 0.4).float() * x.detach(),
    "ceil": lambda x: (x - 0.5).ceil(),
    "clamp": lambda x: (x * 1e9).clamp(0, 1),
    "hardtanh": lambda x: nn.functional.hardtanh(x * 1e9),
    "trunc": lambda x: torch.trunc(x * 4),
    "argmax": lambda x: x.argmax(1, keepdim=True).float().expand(-1, 6, -1, -1) + 0 * x,
}


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("function", WITHOUT_GRADIENT.values(), ids=WITHOUT_GRADIENT)
def test_no_gradient_is_said_at_the_first_step(function, place, photographs) -> None:
    torch.manual_seed(0)
    parts = [nn.Conv2d(6, 6, 3, 2, 1), nn.Conv2d(6, 6, 3, padding=1)]
    parts.insert(place, Of(function))
    network = load_network(nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), *parts), size=48, **HALF)
    targets = discover_facets(network, photographs, "3", Facets(C=2, k=2, N=2))
    with pytest.raises(ValueError, match=r"^no gradient (of 3 )?reaches the image") as error:
        fit(network, targets, Method(steps=3), Running(accelerator="cpu", facets_per_batch=1))
    one_line(error)


WITHOUT_DERIVATIVE = {
    "heaviside": lambda x: torch.heaviside(x, x.new_zeros(())) + x,
    "zeta": lambda x: torch.special.zeta(x.abs() + 2, x.abs() + 1),
    "igamma": lambda x: torch.igamma(x.abs() + 1, x.abs() + 1),
}


@pytest.mark.parametrize("function", WITHOUT_DERIVATIVE.values(), ids=WITHOUT_DERIVATIVE)
def test_what_torch_has_no_gradient_of_is_said(function, photographs) -> None:
    torch.manual_seed(0)
    network = load_network(nn.Sequential(nn.Conv2d(3, 6, 3, 2), Of(function), nn.Conv2d(6, 6, 3)), size=48, **HALF)
    targets = discover_facets(network, photographs, "2", Facets(C=2, k=2, N=2))
    with pytest.raises(ValueError, match=r"^no gradient of 2 reaches the image: torch has none of an op") as error:
        fit(network, targets, Method(steps=1), Running(accelerator="cpu"))
    one_line(error)


@pytest.mark.parametrize("function", [torch.round, torch.tanh], ids=["none", "some"])
def test_no_gradient_is_said_before_a_network_is_compiled(function, photographs, monkeypatch, caplog) -> None:
    monkeypatch.setattr(PreparedNetwork, "compile", lambda self: self)
    network = load_network(nn.Sequential(nn.Conv2d(3, 6, 3, 2), Of(lambda x: function(9 * x))), size=48, **HALF)
    targets = discover_facets(network, photographs, "1", Facets(C=2, k=2, N=2))
    with pytest.raises(ValueError, match="no gradient") if function is torch.round else nullcontext():
        fit(network, targets, Method(steps=1), Running(accelerator="cpu", compile=True))
    assert ("no gradient of 1 reaches the image" in caplog.text) == (function is torch.round)


def test_a_gradient_that_one_facet_has_is_enough(photographs) -> None:
    network = load_network(nn.Sequential(nn.Conv2d(3, 6, 3, 2), nn.ReLU(), nn.Conv2d(6, 6, 3)), size=48, **HALF)
    targets = discover_facets(network, photographs, "2", Facets(C=2, k=2, N=2))
    with torch.no_grad():
        network.body[2].weight[targets.channels[0]] = 0  # a facet whose channels are dead
    made = fit(network, targets, Method(steps=2), Running(accelerator="cpu", facets_per_batch=1))
    assert made.images.isfinite().all()


class StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return (4 * x).round() / 4

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        return gradient


class Reversed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        return -gradient


class Guided(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        return gradient.clamp(min=0) * (ctx.saved_tensors[0] > 0)


@pytest.mark.parametrize("function", [StraightThrough, Reversed, Guided])
@pytest.mark.parametrize("bound", [False, True])
def test_a_gradient_of_somebodys_own_is_the_one_that_is_followed(function, bound: bool) -> None:
    torch.manual_seed(0)
    middle = Of(function.apply if bound else lambda x: function.apply(x))
    network = load_network(nn.Sequential(nn.Conv2d(3, 6, 3, 2), middle, nn.Conv2d(6, 4, 3)), size=32, **HALF)
    images = torch.rand(2, 3, 32, 32, requires_grad=True)
    [right] = torch.autograd.grad(network(images).square().sum(), images)
    [followed] = torch.autograd.grad(prepare(network, "2")(images).target.square().sum(), images)
    assert right.any()
    assert torch.allclose(followed, right, atol=1e-6)


def test_recomputed_activations_are_traced_all_the_same() -> None:
    class Recomputes(nn.Sequential):
        def forward(self, images: Tensor) -> Tensor:
            return self[1](torch.utils.checkpoint.checkpoint(self[0], images, use_reentrant=False))

    assert prepare(load_network(Recomputes(nn.Conv2d(3, 6, 3), nn.Conv2d(6, 4, 3)), size=24, **HALF), "1").traced


# ---- what a dimension means is found by passes, not by lengths -------------------------------------------------------

SIDE = 32  # of the images here: maps of a stride of 2 have 16


def looked_into(part: nn.Module, size: int = SIDE, before: nn.Module | None = None) -> Network:
    """A convolution to 16 channels of stride 2 (or another beginning), and the part behind it as layer "1"."""
    torch.manual_seed(0)
    begin = nn.Conv2d(3, 16, 3, 2, 1) if before is None else before
    return load_network(nn.Sequential(begin, part), size=size, **HALF)


def with_token(place: int, count: int = 1) -> Callable[[Tensor], Tensor]:
    """Tokens [B, T, D] with others, of 0, before, behind or among them."""

    def join(x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        other = tokens.new_zeros(len(x), count, 16)
        return torch.cat([tokens[:, :place], other, tokens[:, place:]] if place > 0 else
                         [other, tokens] if place == 0 else [tokens, other], 1)  # fmt: skip

    return join


LAYOUTS = {
    # What is done to maps x [B, 16, 16, 16], and what it becomes as maps again.
    "maps, as many channels as rows": (lambda x: x * 1, lambda x: x),
    "channels last": (lambda x: x.permute(0, 2, 3, 1), lambda x: x),
    "channels between": (lambda x: x.transpose(1, 2), lambda x: x),
    "columns first": (lambda x: x.transpose(2, 3), lambda x: x),
    "half as wide": (lambda x: x[:, :, :, ::2], lambda x: x[:, :, :, ::2]),
    "half as high, channels last": (lambda x: x[:, :, ::2].permute(0, 2, 3, 1), lambda x: x[:, :, ::2]),
    "4 channels of 16×16": (lambda x: x[:, :4], lambda x: x[:, :4]),
    "tokens": (lambda x: x.flatten(2).transpose(1, 2), lambda x: x),
    "channels before tokens": (lambda x: x.flatten(2), lambda x: x),
    "256 tokens of 256 channels": (lambda x: x.repeat(1, 16, 1, 1).flatten(2), lambda x: x.repeat(1, 16, 1, 1)),
    "16 tokens of 16 channels": (
        lambda x: nn.functional.avg_pool2d(x, 4).flatten(2),
        lambda x: nn.functional.avg_pool2d(x, 4),
    ),
    "a token before": (with_token(0), lambda x: x),
    "four tokens before": (with_token(0, 4), lambda x: x),
    "a token behind": (with_token(-1), lambda x: x),
    "100 tokens behind": (with_token(-1, 100), lambda x: x),
    "tokens on both sides": (lambda x: torch.cat([x.new_zeros(len(x), 3, 16), with_token(-1, 5)(x)], 1), lambda x: x),
    "pooled": (lambda x: x.mean((2, 3)), lambda x: x.mean((2, 3), keepdim=True)),
    "pooled, kept": (lambda x: x.mean((2, 3), keepdim=True), lambda x: x.mean((2, 3), keepdim=True)),
    "pooled to 4×4": (lambda x: nn.functional.adaptive_avg_pool2d(x, 4), lambda x: nn.functional.avg_pool2d(x, 4)),
    "rows pooled": (lambda x: x.mean(3, keepdim=True), lambda x: x.mean(3, keepdim=True)),
}


@pytest.mark.parametrize(("change", "right"), LAYOUTS.values(), ids=LAYOUTS)
def test_every_order_of_dimensions_is_told(change, right) -> None:
    network = looked_into(Of(change))
    for looking in (network, prepare(network, "1")):
        for size in (SIDE, 48):
            images = torch.rand(2, 3, size, size)
            with torch.no_grad(), record(network, "1") as tape:
                answer = tape(images)
            if "pooled to" not in str(right) and size == SIDE:
                with record(network, "0") as tape:
                    maps = tape(images)
                assert torch.allclose(as_maps(answer, "1", looking.layout("1", size)), right(maps), atol=1e-6)
            else:
                assert as_maps(answer, "1", looking.layout("1", size)).ndim == 4
    row = {row.name: row for row in layer_table(network)}["1"]
    expected = right(torch.zeros(1, 16, 16, 16)).shape
    assert (row.channels, *(row.map_size or (1, 1))) == tuple(expected[1:])


def snake(side: int) -> Tensor:
    """The numbers of a grid's places, every second row from right to left."""
    numbers = torch.arange(side**2).view(side, side)
    numbers[1::2] = numbers[1::2].flip(1)
    return numbers.flatten()


def in_windows(x: Tensor) -> Tensor:
    """Maps as one sequence of tokens, window of 4×4 by window."""
    return x.unflatten(2, (-1, 4)).unflatten(4, (-1, 4)).permute(0, 2, 4, 3, 5, 1).flatten(1, 4)


def tokens(x: Tensor) -> Tensor:
    return x.flatten(2).transpose(1, 2)


MIXED_UP = torch.randperm(256, generator=torch.Generator().manual_seed(3))


def mixing_up(scale: float = 1.0, noise: float = 0.0) -> Tensor:
    """A matrix [256, 256] whose product with tokens are these in another order."""
    drawn = torch.rand(256, 256, generator=torch.Generator().manual_seed(4))
    return scale * torch.eye(256)[MIXED_UP] + noise * (drawn - 0.5)


class With(nn.Module):
    """What is done to maps with a buffer or a parameter."""

    def __init__(self, constant: Tensor, function: Callable[[Tensor, Tensor], Tensor], trained: bool = False) -> None:
        super().__init__()
        if trained:
            self.constant = nn.Parameter(constant)
        else:
            self.register_buffer("constant", constant)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, self.constant)


class Turns(torch.autograd.Function):
    """Somebody's own operation, of torch's."""

    @staticmethod
    def forward(context: Any, x: Tensor) -> Tensor:
        return x.flip(1)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        return gradient.flip(1)


@torch.library.custom_op("mindseye_tests::turned", mutates_args=())
def turned(x: Tensor) -> Tensor:
    """Somebody's own operation, of which torch knows nothing."""
    return x.flip(1)


turned.register_fake(torch.empty_like)


def attended(x: Tensor, turn: Callable[[Tensor], Tensor]) -> Tensor:
    """Tokens that attend to each other in another order, and are put back into it."""
    q = turn(tokens(x))
    return turn(nn.functional.scaled_dot_product_attention(q, q, q)) * 0 + tokens(x)


def written(x: Tensor, put: Callable[[Tensor, Tensor], object]) -> Tensor:
    """Tokens that are written into an empty tensor."""
    made = torch.zeros_like(tokens(x))
    put(made, tokens(x))
    return made


CONSTANTS = {
    # As ORDERS: products with constants and indices that are constants, none of which any list of operations names.
    "a matrix times them": With(mixing_up(), lambda x, matrix: matrix @ tokens(x)),
    "a trained matrix times them": With(mixing_up(), lambda x, matrix: matrix @ tokens(x), trained=True),
    "they times a matrix": With(mixing_up(), lambda x, matrix: (tokens(x).mT @ matrix.mT).mT),
    "a matrix of each image": With(mixing_up(), lambda x, matrix: torch.bmm(matrix.expand(len(x), -1, -1), tokens(x))),
    "einsum": With(mixing_up(), lambda x, matrix: torch.einsum("tk,bkd->btd", matrix, tokens(x))),
    "einsum of the batch last": With(mixing_up(), lambda x, matrix: torch.einsum("kt,bkd->btd", matrix.mT, tokens(x))),
    "tensordot": With(mixing_up(), lambda x, matrix: torch.tensordot(matrix, tokens(x), ([1], [1])).transpose(0, 1)),
    "a linear layer of tokens": With(mixing_up(), lambda x, matrix: nn.functional.linear(x.flatten(2), matrix).mT),
    "a buffer of indices": With(MIXED_UP, lambda x, index: tokens(x)[:, index]),
    "indices along a dimension": With(MIXED_UP, lambda x, index: tokens(x).take_along_dim(index[None, :, None], 1)),
    "gathered": With(MIXED_UP, lambda x, index: tokens(x).gather(1, index[None, :, None].expand(len(x), -1, 16))),
    "indices counted from the end": Of(lambda x: tokens(x)[:, 255 - torch.arange(256, device=x.device)]),
    "sorted by a constant": Of(lambda x: tokens(x)[:, MIXED_UP.float().sort().indices]),
    "somebody's own function": Of(lambda x: Turns.apply(tokens(x))),
    "turned by a quarter": Of(lambda x: tokens(x.rot90(1, (2, 3)))),
    "turned within attention": Of(lambda x: attended(x, lambda q: q.flip(1))),
    "turned on within attention": Of(lambda x: attended(x, lambda q: q.roll(128, 1))),
    "copied": Of(lambda x: written(x, lambda made, seen: made.copy_(seen.flip(1)))),
}


@pytest.mark.parametrize("part", CONSTANTS.values(), ids=CONSTANTS)
def test_tokens_that_a_constant_moves_are_put_where_they_come_from(part: nn.Module) -> None:
    test_tokens_are_put_where_they_come_from(part, lambda x: x)


ATTENTION = {
    "torch's": nn.functional.scaled_dot_product_attention,
    "by hand": lambda q, k, v: (q @ k.mT).softmax(-1) @ v,
    "linear": lambda q, k, v: q.relu() @ (k.relu().mT @ v),
    "einsum": lambda q, k, v: torch.einsum("bts,bsd->btd", torch.einsum("btd,bsd->bts", q, k).softmax(-1), v),
}


def test_attention_of_channels_to_channels_leaves_tokens_where_they_are() -> None:
    def crossed(x: Tensor) -> Tensor:
        q = x.flatten(2)[:, :8].unflatten(1, (2, 4))
        return ((q @ q.mT).softmax(-1) @ q).flatten(1, 2).mT

    layout = looked_into(nn.Sequential(Of(crossed), nn.Identity())).layout("1.1")
    assert (layout.tokens, layout.channels, layout.order) == (1, 2, ())


@pytest.mark.parametrize("attend", ATTENTION.values(), ids=ATTENTION)
@pytest.mark.parametrize("few", [1, 4], ids=["all keys", "few keys"])
def test_what_attention_gives_is_at_the_places_of_its_queries(attend, few) -> None:
    def turned_queries(x: Tensor) -> Tensor:
        seen = tokens(nn.functional.avg_pool2d(x, few)) if few > 1 else tokens(x)
        return attend(tokens(x).flip(1), seen, seen)

    layout = looked_into(nn.Sequential(Of(turned_queries), nn.Identity())).layout("1.1")
    assert layout.order == tuple(reversed(range(256)))


ORDERS = {
    # What is done to maps x [B, 16, 16, 16] that makes a sequence of them, and what it becomes as maps again.
    "column by column": (lambda x: tokens(x.transpose(2, 3)), lambda x: x),
    "from the end": (lambda x: tokens(x).flip(1), lambda x: x),
    "turned on": (lambda x: tokens(x).roll(5, 1), lambda x: x),
    "window by window": (in_windows, lambda x: x),
    "to and fro": (lambda x: tokens(x)[:, snake(16)], lambda x: x),
    "to and fro, selected": (lambda x: tokens(x).index_select(1, snake(16)), lambda x: x),
    "mixed up": (lambda x: tokens(x)[:, torch.randperm(256, generator=torch.Generator().manual_seed(3))], lambda x: x),
    "every second row and column": (lambda x: tokens(x[:, :, ::2, ::2]), lambda x: x[:, :, ::2, ::2]),
    "channels before tokens, from the end": (lambda x: x.flatten(2).flip(2), lambda x: x),
    "twice a matrix times them": (lambda x: mixing_up(2) @ tokens(x), lambda x: 2 * x),
    "a token before, window by window": (
        lambda x: torch.cat([x.new_zeros(len(x), 1, 16), in_windows(x)], 1), lambda x: x,
    ),
    "windows, the largest of each four": (
        lambda x: in_windows(x).unflatten(1, (-1, 2, 2, 2, 2)).amax((3, 5)).flatten(1, 3),
        lambda x: nn.functional.max_pool2d(x, (2, 2)),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("change", "right"), ORDERS.values(), ids=ORDERS)
def test_tokens_are_put_where_they_come_from(change, right) -> None:
    network = looked_into(nn.Sequential(Of(change), nn.Identity()))
    images = torch.rand(2, 3, SIDE, SIDE)
    with torch.no_grad(), record(network, "0") as tape:
        maps = tape(images)
    for looking in (network, prepare(network, "1.1")):
        with torch.no_grad(), record(network, "1.1") as tape:
            assert torch.equal(as_maps(tape(images), "1.1", looking.layout("1.1")), right(maps))


def test_an_order_of_tokens_is_of_one_size_of_images() -> None:
    network = looked_into(Of(in_windows))
    prepared = prepare(network, "1")
    with pytest.raises(ValueError, match=r"shape \[1, 576, 16\], whose tokens are not in the order") as error:
        as_maps(prepared(torch.rand(1, 3, 48, 48)).target, "1", prepared.layout("1"))
    one_line(error)
    assert as_maps(prepared(torch.rand(1, 3, 32, 32)).target, "1", prepared.layout("1")).shape == (1, 16, 16, 16)


class OfItsOwn(nn.Parameter):
    """A parameter whose class takes something else than torch's."""

    def __new__(cls, data: Tensor, *, bits: int) -> "OfItsOwn":
        made = torch.Tensor._make_subclass(cls, data, True)
        made.bits = bits
        return made


def test_a_parameter_of_somebody_s_own_class_is_looked_into() -> None:
    body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3))
    body[0].weight = OfItsOwn(body[0].weight.detach(), bits=4)
    assert prepare(load_network(body, size=SIDE, **HALF), "1")(torch.rand(2, 3, SIDE, SIDE)).target.shape[1] == 4
    assert type(body[0].weight) is OfItsOwn
    assert body[0].weight.bits == 4


def test_too_little_memory_in_a_forward_stays_what_it_is() -> None:
    """Who draws takes fewer facets at a time then."""
    network = looked_into(Of(lambda x: x))

    def fails(module: nn.Module, arguments: object) -> None:
        raise MemoryError

    network.body.register_forward_pre_hook(fails)
    with pytest.raises(MemoryError):
        network(torch.rand(1, 3, SIDE, SIDE))


class Heads(nn.Module):
    """Attention over the positions of a map, of which something is given."""

    def __init__(self, give: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.give = give

    def forward(self, x: Tensor) -> Tensor:
        q = x.flatten(2).transpose(1, 2).unflatten(2, (2, 8)).transpose(1, 2)
        return self.give(q, (q @ q.transpose(2, 3)).softmax(-1))


class Halves(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cat(x.chunk(2, -1))


def strongest(count: int) -> Callable[[Tensor], Tensor]:
    """Of tokens those that are kept, in their order: other ones of each image."""

    def keep(seen: Tensor) -> Tensor:
        kept = seen.square().sum(-1).topk(count, 1).indices.sort(1).values
        return seen.gather(1, kept[..., None].expand(-1, -1, seen.shape[-1]))

    return keep


def merged(seen: Tensor) -> Tensor:
    """All but 28 of 64 tokens, those without a like one among the others (Bolya et al., 2023)."""
    some, others = seen[:, ::2], seen[:, 1::2]
    kept = (some @ others.transpose(1, 2)).amax(-1).argsort(1, descending=True)[:, 28:]
    return torch.cat([some.gather(1, kept[..., None].expand(-1, -1, seen.shape[-1])), others], 1)


def every_image(x: Tensor) -> Tensor:
    """Every image of a batch, as an index."""
    return torch.arange(len(x))[:, None]


WITHOUT_LAYOUT = {
    "the strongest 144 tokens": Of(lambda x: strongest(144)(tokens(x))),
    "a quarter of the tokens": Of(lambda x: strongest(x[0, 0].numel() // 4)(tokens(x))),
    "sorted tokens": Of(lambda x: tokens(x).sort(1).values),
    "tokens sorted along a dimension": Of(lambda x: tokens(x).take_along_dim(tokens(x).argsort(1), 1)),
    "an operation of somebody's own": Of(lambda x: turned(tokens(x))),
    "an operation of somebody's own, and more": Of(lambda x: nn.functional.gelu(turned(tokens(x)) * 2)),
    "forwards and backwards": Of(lambda x: tokens(x) + tokens(x).flip(1)),
    "tokens written by halves": Of(lambda x: written(x, lambda made, seen: (
        made[:, ::2].copy_(seen[:, : seen.shape[1] // 2]), made[:, 1::2].copy_(seen[:, seen.shape[1] // 2 :]),
    ))),
    "tokens written many at once": Of(lambda x: written(x, lambda made, seen: torch._foreach_copy_(
        [made[:, ::2], made[:, 1::2]], [seen[:, : seen.shape[1] // 2], seen[:, seen.shape[1] // 2 :]],
    ))),
    "tokens added by halves": Of(lambda x: written(x, lambda made, seen: (
        made[:, ::2].add_(seen[:, : seen.shape[1] // 2]), made[:, 1::2].add_(seen[:, seen.shape[1] // 2 :]),
    ))),
    "tokens sorted into a tensor": Of(lambda x: written(x, lambda made, seen: torch.sort(
        seen, 1, out=(made, torch.empty_like(seen, dtype=torch.int64)),
    ))),
    "every fourth token": Of(lambda x: tokens(x)[:, ::4]),
    "positions without channels": Of(lambda x: x.mean(1).flatten(1)),
    "every number of a map": nn.Flatten(),
    "a row of columns": Of(lambda x: x.mean(2).transpose(1, 2)),
    "tokens of 32 rows and 8 columns": Of(lambda x: nn.functional.interpolate(x, scale_factor=(1, 0.25)).flatten(2)),
    "as many of 4 and 16": Of(lambda x: nn.functional.avg_pool2d(x[:, :, :16, :16], (4, 1)).flatten(2)),
    "attention weights": Heads(lambda q, weights: weights),
    "heads": Heads(lambda q, weights: weights @ q),
    "tokens scattered": Of(lambda x: torch.zeros_like(tokens(x)).index_copy(1, snake(x.shape[2]), tokens(x))),
    "tokens put": Of(lambda x: torch.zeros_like(tokens(x)).index_put_((every_image(x), snake(x.shape[2])), tokens(x))),
    "queries": Heads(lambda q, weights: q.mean(1)[:, :9]),  # nine of them, of any image
    "sequence first": Of(lambda x: x.flatten(2).permute(2, 0, 1)),
    "channels, batch, tokens": Of(lambda x: x.flatten(2).transpose(0, 1)),
    "halves in the batch": Halves(),
    "no channels": Of(lambda x: x.mean(1)),
    "windows": Of(
        lambda x: x.unflatten(2, (-1, 4)).unflatten(4, (-1, 4)).permute(0, 2, 4, 3, 5, 1).flatten(1, 2).flatten(2, 3)
    ),
    "complex": Of(torch.fft.fft2),
    "a token in the middle": Of(with_token(128)),
    "a volume": Of(lambda x: x.unflatten(1, (4, 4))),
    "one number": Of(lambda x: x.mean((1, 2, 3))),
}


@pytest.mark.parametrize("part", WITHOUT_LAYOUT.values(), ids=WITHOUT_LAYOUT)
def test_what_cannot_be_told_is_refused_with_its_shape(part, tmp_path, photographs) -> None:
    network = looked_into(part, 48)
    with pytest.raises(ValueError, match=r"layer 1 gives .*a tensor of shape \[\d+.*") as error:
        discover_facets(network, photographs, "1", Facets(C=2, k=1, N=2))
    one_line(error)
    row = {row.name: row for row in layer_table(network)}["1"]
    assert (row.channels, row.map_size) == (None, None)


def test_unequal_strides_are_drawn_as_they_are(photographs) -> None:
    """64 channels on a map of 64×32 look like a map of 64×64 of 32 channels."""
    torch.manual_seed(0)
    network = load_network(nn.Sequential(nn.Conv2d(3, 64, 3, (1, 2), 1), nn.ReLU()), size=64, **HALF)
    targets = discover_facets(network, replace(photographs, size=64), "1", Facets(C=2, k=40, N=2))
    assert targets.maps.shape == (2, 64, 64, 32)
    assert fit(network, targets, Method(steps=1), Running(accelerator="cpu")).images.isfinite().all()


class OneSize(nn.Module):
    """Takes images of one size alone, as vision transformers do: it has a number for each of its positions."""

    def __init__(self, change: Callable[[Tensor], Tensor], positions: int = 64, channels: int = 12) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, channels, 4, 4)
        self.position = nn.Parameter(torch.zeros(1, positions, channels))
        self.block, self.out = nn.TransformerEncoderLayer(channels, 2, 16, batch_first=True), Of(change)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.embed(images).flatten(2).transpose(1, 2)
        return self.out(self.block(tokens + self.position))


ONE_SIZE = {
    "tokens": (lambda x: x * 1, (12, 8, 8)),
    "channels before tokens": (lambda x: x.transpose(1, 2), (12, 8, 8)),
    "a token behind": (lambda x: torch.cat([x, x[:, :1]], 1), (12, 8, 8)),
    "two before": (lambda x: torch.cat([x[:, :2], x], 1), (12, 8, 8)),
    "a map": (lambda x: x.transpose(1, 2).unflatten(2, (8, 8)), (12, 8, 8)),
    "a map, channels last": (lambda x: x.unflatten(1, (8, 8)), (12, 8, 8)),
    "a sequence first": (lambda x: x.transpose(0, 1), None),
    "from the end": (lambda x: x.flip(1), (12, 8, 8)),
    "the strongest 49 of 64": (strongest(49), None),
    "the strongest 16 of 64": (strongest(16), None),
    "the first 49": (lambda x: x[:, :49], None),
    "36 that are left of merging": (merged, None),
    "every fourth": (lambda x: x[:, ::4], None),
    "attention": (lambda x: (x @ x.transpose(1, 2))[:, None].expand(-1, 2, -1, -1), None),
    "heads": (lambda x: x.unflatten(2, (2, 6)).transpose(1, 2), None),
}


@pytest.mark.parametrize(("change", "shape"), ONE_SIZE.values(), ids=ONE_SIZE)
def test_networks_of_one_size_of_images(change, shape) -> None:
    network = load_network(OneSize(change), size=32, **HALF)
    row = {row.name: row for row in layer_table(network)}["out"]
    assert (row.channels, row.map_size) == ((None, None) if shape is None else (shape[0], shape[1:]))
    if shape is not None:
        with torch.no_grad(), record(network, "out") as tape:
            given = as_maps(tape(torch.rand(2, 3, 32, 32)), "out", network.layout("out"))
            assert given.shape[1:] == shape
        with torch.no_grad(), record(network, "block") as tape:
            tokens = tape(torch.rand(2, 3, 32, 32)[:1])
            if "token" in str(change):
                assert torch.equal(as_maps(change(tokens), "out", network.layout("out"))[0, :, 0, 1], tokens[0, 1])


def test_as_many_channels_as_tokens_in_a_network_of_one_size_are_refused() -> None:
    network = load_network(OneSize(lambda x: x * 1, channels=64), size=32, **HALF)
    assert network.layout("out") is None


# ---- chance follows the seed, and what an answer depends on is told --------------------------------------------------


class TrainsItself(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        self.train()
        return super().forward(x)


BY_CHANCE = {
    "dropout": Of(lambda x: nn.functional.dropout(x)),
    "dropout in training mode": TrainsItself(nn.Dropout(0.5)),
    "noise": Of(lambda x: x + 0.5 * torch.randn_like(x)),
    "channels": Of(lambda x: nn.functional.dropout2d(x + 1, 0.3)),
    "numpy": Of(lambda x: x * float(np.random.rand())),  # noqa: NPY002
    "Python": Of(lambda x: x * random.uniform(0.5, 1.5)),
    "gumbel": Of(lambda x: nn.functional.gumbel_softmax(x, dim=1)),
}


def by_chance(part: nn.Module) -> Network:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 6, 3, 2), part, nn.Conv2d(6, 4, 3, 2))
    return load_network(body, size=48, **HALF)


@pytest.mark.parametrize("part", BY_CHANCE.values(), ids=BY_CHANCE)
def test_chance_in_a_forward_follows_the_seed_and_is_told(part: nn.Module, photographs, caplog) -> None:
    pictures, states = [], []
    for other, seed in ((1, 0), (2, 0), (3, 5)):
        torch.manual_seed(other)
        random.seed(other)
        np.random.seed(other)  # noqa: NPY002
        before = (torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist())  # noqa: NPY002
        network = by_chance(part)
        torch.set_rng_state(before[0])
        targets = discover_facets(network, photographs, "2", Facets(C=2, k=2, N=2))
        pictures.append(fit(network, targets, Method(steps=2, seed=seed), Running(accelerator="cpu")).images)
        after = (torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist())  # noqa: NPY002
        states.append(torch.equal(before[0], after[0]) and before[1:] == after[1:])
    assert torch.equal(pictures[0], pictures[1])
    assert not torch.equal(pictures[0], pictures[2])
    assert all(states)  # the process's own generators go on as if nothing had been drawn
    assert caplog.text.count("answers the same image otherwise in every pass up to 2") == 3  # networks


OWN = (np.random.default_rng(0), torch.Generator(), random.Random(0))


@pytest.mark.parametrize(
    "draw",
    [
        lambda x: x * float(OWN[0].uniform(0.5, 1.5)),
        lambda x: x + torch.randn(x.shape, generator=OWN[1]),
        lambda x: x * OWN[2].uniform(0.5, 1.5),
    ],
    ids=["numpy's", "torch's", "Python's"],
)
def test_a_generator_of_its_own_is_told_to_follow_no_seed(draw, caplog) -> None:
    prepare(by_chance(Of(draw)), "2")
    assert "answers the same image otherwise in every pass up to 2" in caplog.text
    assert "not even the same seed gives the same pictures" in caplog.text


BY_NEIGHBOURS = {
    "the largest number": Of(lambda x: x / x.amax()),
    "the first image": Of(lambda x: x + x[:1]),
    "four at least": Of(lambda x: x - x.mean(0, keepdim=True) if len(x) > 3 else x),
    "batch statistics": nn.BatchNorm2d(6, track_running_stats=False),
    "the mean of the batch": Of(lambda x: x - x.mean(0, keepdim=True)),
    "a rank in the batch": Of(lambda x: x * x.mean((1, 2, 3)).softmax(0)[:, None, None, None]),
    "the largest": Of(lambda x: x / x.abs().amax((1, 2, 3)).sum()),
    "mixed": Of(lambda x: 0.5 * x + 0.5 * x.flip(0)),
}


@pytest.mark.parametrize("part", BY_NEIGHBOURS.values(), ids=BY_NEIGHBOURS)
def test_an_answer_that_depends_on_the_batch_is_told(part: nn.Module, caplog) -> None:
    network = by_chance(part)
    for _ in range(2):
        prepare(network, "2")
    assert caplog.text.count("answers an image by what else is in its batch up to 2") == 1


@pytest.mark.parametrize("part", [nn.InstanceNorm2d(6), nn.GroupNorm(2, 6), nn.BatchNorm2d(6), nn.Dropout(0.5)])
def test_an_answer_of_the_image_alone_is_told_nothing_of(part: nn.Module, caplog) -> None:
    prepare(by_chance(part), "2")
    assert "answers" not in caplog.text


# ---- errors of a forward are blamed on what they are of --------------------------------------------------------------


class Ends(nn.Module):
    """Raises what it is made with."""

    def __init__(self, end: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.end = nn.Conv2d(3, 4, 3), end

    def forward(self, images: Tensor) -> Tensor:
        return self.conv(self.end(images))


def missing_driver(images: Tensor) -> Tensor:
    raise RuntimeError("Found no NVIDIA driver on your system")


OF_NO_SIZE = {
    "another device": lambda x: x + torch.zeros(1, device="meta"),
    "no driver": missing_driver,
    "another precision": lambda x: nn.functional.conv2d(x, torch.zeros(3, 3, 1, 1, dtype=torch.float64)),
    "no such operation": lambda x: torch.ops.aten.bincount(x[0, 0, 0]).expand_as(x),
}


OF_NO_SIZE |= {
    "another number of channels": lambda x: torch.cat([x, x[:, :1]], 1),
    "four channels more": lambda x: x + torch.zeros(1, 4, 1, 1),
}


def fails_with(error: Exception) -> Callable[[Tensor], Tensor]:
    def end(images: Tensor) -> Tensor:
        raise error

    return end


@pytest.mark.parametrize("error", [ZeroDivisionError("0"), KeyError("wide"), ImportError("no apex"), StopIteration()])
def test_an_error_of_the_owners_own_is_told_as_what_it_is(error: Exception, photographs) -> None:
    network = load_network(Ends(fails_with(error)), size=48, **HALF)
    with pytest.raises(ValueError, match=rf"forward of ends fails .*{type(error).__name__} in line \d+ of") as told:
        discover_facets(network, photographs, "conv", Facets(C=2, k=2, N=2))
    assert one_line(told).endswith(")")  # and nothing is blamed on how images are given


@pytest.mark.parametrize("end", [lambda x: x.keys(), lambda x: x.tensors, lambda x: (lambda one, two: one)(*[x])])
def test_a_forward_that_takes_something_else_is_told_what_it_gets(end, photographs) -> None:
    network = load_network(Ends(end), size=48, **HALF)
    with pytest.raises(ValueError, match="it must take them alone, as one tensor"):
        discover_facets(network, photographs, "conv", Facets(C=2, k=2, N=2))


@pytest.mark.parametrize("size", [48, 40])
@pytest.mark.parametrize("end", OF_NO_SIZE.values(), ids=OF_NO_SIZE)
def test_an_error_of_no_size_is_not_blamed_on_it(end, size, photographs) -> None:
    network = load_network(Ends(end), size=size, **HALF)
    with pytest.raises(ValueError, match="cannot look at 48×48 images up to conv") as error:
        discover_facets(network, photographs, "conv", Facets(C=2, k=2, N=2))
    assert "size=" not in one_line(error)
    assert "another size" not in str(error.value)


OF_A_SIZE = {
    "asserts": lambda x: torch._assert(x.shape[2] == 40, f"Expected 40 but got {x.shape[2]}") or x,
    "a number for each position": lambda x: x + torch.zeros(40, 40),
    "a view": lambda x: x.reshape(-1, 3, 40, 40),
    "an odd view": lambda x: x.reshape(len(x), 3, 40 * 40).unflatten(2, (40, 40)),
}


@pytest.mark.parametrize("end", OF_A_SIZE.values(), ids=OF_A_SIZE)
def test_an_error_of_a_size_says_which_is_right(end, photographs) -> None:
    network = load_network(Ends(end), size=40, **HALF)
    with pytest.raises(ValueError, match=r"look at 48×48 images .*another size of the images, its own is 40") as error:
        discover_facets(network, photographs, "conv", Facets(C=2, k=2, N=2))
    assert "Proxy" not in one_line(error)


def eager_quantised() -> nn.Module:
    quant = torch.ao.quantization
    body = nn.Sequential(quant.QuantStub(), nn.Conv2d(3, 8, 3), quant.DeQuantStub()).eval()
    body.qconfig = quant.get_default_qconfig("fbgemm")
    prepared = quant.prepare(body)
    prepared(torch.rand(2, 3, 24, 24))
    return quant.convert(prepared)


def dynamic_quantised() -> nn.Module:
    body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8 * 22 * 22, 4))
    return torch.ao.quantization.quantize_dynamic(body, {nn.Linear}, torch.qint8)


class WholeNumbers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4, 3, 1, 1, dtype=torch.int8), requires_grad=False)

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.conv2d(images, self.weight.float())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", [eager_quantised, dynamic_quantised, WholeNumbers])
def test_a_quantised_network_is_refused(kind) -> None:
    body = nn.Sequential(kind(), nn.ReLU())
    with pytest.raises(ValueError, match=r"the network is quantised \(.*that it was made of") as error:
        load_network(body, size=24, **HALF)
    one_line(error)


def test_sparse_weights_are_refused() -> None:
    body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 4))
    body[3].weight = nn.Parameter(body[3].weight.detach().to_sparse())
    with pytest.raises(ValueError, match=r"the network has sparse weights \(3 is a Linear\): .*to_dense") as error:
        load_network(body, size=24, **HALF)
    one_line(error)


# ---- what is known is not computed again -----------------------------------------------------------------------------


def test_weights_are_hashed_once_for_all_layers(monkeypatch) -> None:
    network = load_network(small(), size=24, **HALF)
    hashed = []
    sha256 = hashlib.sha256
    monkeypatch.setattr("mindseye.tensors.hashlib.sha256", lambda *given: hashed.append(1) or sha256(*given))
    first = {prepare(network, layer).fingerprint() for layer in ("stem", "stage", "head", "stem.0")}
    assert (len(first), len(hashed)) == (1, 1)
    changes = (
        lambda weight: weight.data.view(-1)[:1].add_(1e-6),
        lambda weight: weight.mul_(2),
        lambda weight: weight.data.view(-1)[:2].copy_(torch.tensor([3.0, 4.0])),
    )
    for change in changes:
        with torch.no_grad():
            change(network.body.stage.weight)
        assert prepare(network, "stage").fingerprint() not in first
        first.add(network.fingerprint())
    assert len(hashed) == 1 + len(changes)

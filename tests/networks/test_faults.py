"""Kinds of faults that users of other tools have reported, each held by inputs of several makes."""


import hashlib
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torchvision import models

from mindseye.facets import discover_facets
from mindseye.networks import checkpoint_network, load_network, loading
from mindseye.networks.preparing import prepare
from mindseye.visualizer.fitting import fit

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


KINDS = [
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
        assert not any(module.training for module in looking.modules())
        assert not any(parameter.requires_grad for parameter in looking.parameters())
    images = torch.rand(2, 3, 24, 24)
    assert torch.equal(network(images), network(images))


def test_a_network_with_a_training_method_of_its_own_is_drawn(photographs) -> None:
    network = load_network(nn.Sequential(TrainsWithALoader(), nn.Conv2d(4, 5, 1)), size=48, **HALF)
    targets = discover_facets(network, photographs, "1", facets=2, k=2, N=2)
    assert fit(network, targets, steps=2, accelerator="cpu").images.isfinite().all()


def test_another_precision_does_not_go_through_the_owners_methods() -> None:
    class OwnFloat(Owned):
        def float(self) -> None:
            raise AssertionError("the owner's float was called")

    body = nn.Module.double(OwnFloat())
    assert {weight.dtype for weight in load_network(body, size=24, **HALF).body.parameters()} == {torch.float32}


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
    with pytest.raises(ValueError, match=r"weights of several mean and std, and own.pth is none of them") as error:
        load_network("squeezenet1_1", tmp_path / "own.pth")
    one_line(error)
    assert load_network("squeezenet1_1", tmp_path / "own.pth", **HALF).std.flatten().tolist() == [0.5] * 3
    monkeypatch.setattr(models, "get_model_weights", lambda name: [published("https://x/a.pth", 0.2, 72)] * 2)
    for ask in (load_network, lambda name, path: checkpoint_network(path, name)):
        network = ask("squeezenet1_1", tmp_path / "own.pth")
        assert network.mean.flatten().tolist() == pytest.approx([0.2] * 3)
        assert (network.size, network.classes) == (72, None)


def test_a_checkpoint_in_ones_own_function_asks_for_its_normalisation(tmp_path) -> None:
    (tmp_path / "own.py").write_text("from torch import nn\n\ndef build():\n    return nn.Conv2d(3, 4, 3)\n")
    torch.save(nn.Conv2d(3, 4, 3).state_dict(), tmp_path / "own.pth")
    with pytest.raises(ValueError, match="give mean and std"):
        checkpoint_network(tmp_path / "own.pth", f"{tmp_path}/own.py:build")
    assert checkpoint_network(tmp_path / "own.pth", f"{tmp_path}/own.py:build", **HALF).size == 224


@pytest.mark.parametrize("name", ["vit_small_patch16_224", "mixer_b16_224", "resnet34"])
def test_a_timm_name_whose_weights_differ_asks_for_the_normalisation_of_a_file(name, tmp_path) -> None:
    pytest.importorskip("timm")
    with pytest.raises(ValueError, match=rf"of {name} are of several mean and std .*name with its tag") as error:
        loading._timm_normalisation(name, tmp_path / "own.pth")
    one_line(error)
    assert loading._timm_normalisation("resnet10t", tmp_path / "own.pth")["mean"] == (0.485, 0.456, 0.406)
    assert loading._timm_normalisation("mixer_b16_224.goog_in21k", tmp_path / "own.pth")["mean"] == (0.5, 0.5, 0.5)


@pytest.mark.parametrize("name", ["inception_v3", "googlenet"])
def test_what_a_network_does_to_its_input_can_be_said(name, tmp_path, caplog) -> None:
    own = models.get_model(name, weights=None, num_classes=2, init_weights=False, aux_logits=False)
    torch.save(own.state_dict(), tmp_path / "own.pth")
    assert load_network(name, tmp_path / "own.pth").body.transform_input
    assert "transform_input=true, as its published weights are" in caplog.text
    caplog.clear()
    for network in (
        load_network(name, tmp_path / "own.pth", arguments={"transform_input": False}),
        checkpoint_network(tmp_path / "own.pth", name, {"transform_input": False, "num_classes": 2}),
    ):
        assert not network.body.transform_input
    assert not caplog.text


def test_arguments_that_nothing_takes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"squeezenet1_1 cannot be built with \{'depth': 3\}") as error:
        load_network("squeezenet1_1", None, arguments={"depth": 3})
    one_line(error)
    for name in ("demo", "timm/resnet10t", nn.Conv2d(3, 4, 3)):
        with pytest.raises(ValueError, match="arguments are for a function of your own"):
            load_network(name, None, arguments={"depth": 3}, **HALF)

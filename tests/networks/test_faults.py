"""Kinds of faults that users of other tools have reported, each held by inputs of several makes."""


import pytest
import torch
from torch import Tensor, nn

from mindseye.facets import discover_facets
from mindseye.networks import load_network
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

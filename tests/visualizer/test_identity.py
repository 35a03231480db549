"""Equal settings, weights and code are one identity; whatever of them is another makes another."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import SGD

from mindseye.networks import demo_network
from mindseye.visualizer.callbacks import Blur, GradientMask
from mindseye.visualizer.canvas import FourierCanvas, PixelCanvas
from mindseye.visualizer.identity import identity
from mindseye.visualizer.matching import Matching
from mindseye.visualizer.method import Method
from mindseye.visualizer.objective import Objective
from mindseye.visualizer.schedules import Linear, Schedules


def darker(share):
    return lambda images: images * share


class Fade:
    def __init__(self, share):
        self.share = share

    def __call__(self, images):
        return images * self.share


class Slower(Fade):
    def __call__(self, images):
        return images * self.share**2


def with_bias(value):
    layer = nn.Linear(2, 2)
    with torch.no_grad():
        layer.weight.fill_(1)
        layer.bias.fill_(value)
    return layer


def itself():
    holder = {}
    holder["self"] = holder
    return holder


MAKE = {  # each gives an equal thing each time, and no two of them the same
    "default": Method,
    "steps": lambda: Method(steps=7),
    "seed": lambda: Method(seed=7),
    "precision": lambda: Method(precision="bfloat16"),
    "previous": lambda: Method(previous="conv1"),
    "weight": lambda: Method(objective=Objective(matching=Matching(weight=7))),
    "layers": lambda: Method(objective=Objective(matching=Matching(layers=["conv1"]))),
    "schedule": lambda: Method(schedule=Schedules(lr=Linear(0.1, 0.0))),
    "canvas": lambda: Method(canvas=PixelCanvas),
    "noise": lambda: Method(canvas=partial(FourierCanvas, init="noise", seed=3)),
    "other noise": lambda: Method(canvas=partial(FourierCanvas, init="noise", seed=4)),
    "optimiser": lambda: Method(optimizer=partial(SGD, lr=1.0)),
    "filter": lambda: Method(filters=[Blur(2)]),
    "other filter": lambda: Method(filters=[Blur(3)]),
    "filters": lambda: Method(filters=[Blur(2), GradientMask()]),
    "other order": lambda: Method(filters=[GradientMask(), Blur(2)]),
    "function": lambda: Method(filters=[darker(0.9)]),
    "closed over": lambda: Method(filters=[darker(0.8)]),
    "code": lambda: Method(filters=[lambda images: images + 0.9]),
    "other code": lambda: Method(filters=[lambda images: images - 0.9]),
    "object": lambda: Method(filters=[Fade(0.9)]),
    "other object": lambda: Method(filters=[Fade(0.8)]),
    "subclass": lambda: Method(filters=[Slower(0.9)]),
    "method of it": lambda: Method(filters=[Fade(0.9).__call__]),
    "weights": lambda: with_bias(1.0),
    "other weights": lambda: with_bias(2.0),
    "tensor": lambda: torch.arange(4.0),
    "shape": lambda: torch.arange(4.0).reshape(2, 2),
    "kind": lambda: torch.arange(4),
    "array": lambda: np.arange(5.0),
    "network": demo_network,
    "text": lambda: "ab",
    "texts": lambda: ["a", "b"],
    "true": lambda: True,
    "one": lambda: 1,
    "one more": lambda: 1.0,
    "set": lambda: {"b", "a", "c"},
    "circle": itself,
}


@pytest.fixture(scope="module")
def identities():
    return {name: identity(make()) for name, make in MAKE.items()}


@pytest.mark.parametrize("name", MAKE)
def test_an_equal_thing_has_the_same(name, identities):
    assert identity(MAKE[name]()) == identities[name]


def test_no_two_things_have_the_same(identities):
    assert len(set(identities.values())) == len(MAKE)


def test_several_are_not_one_joined():
    assert identity("a", "bc") != identity("ab", "c") != identity("abc")


def test_another_process_says_the_same(identities, tmp_path):
    """No address and no seed of a hash has a part in it."""
    import subprocess
    import sys

    script = "import test_identity as t; print(t.identity(t.MAKE['function']()), t.identity(t.MAKE['set']()))"
    here = str(__file__).rpartition("/")[0]
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=here)
    assert done.stdout.split() == [identities["function"], identities["set"]]

"""A facet whose numbers are no longer finite stops alone; memory that is too small for all facets takes fewer."""

import logging
import math
import resource
import subprocess
import sys
from dataclasses import replace
from functools import partial

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.optim import SGD

import mindseye as me
from mindseye.commands.closing_table import closing_table
from mindseye.networks import Network, demo_network
from mindseye.reports.gallery.collecting import collect
from mindseye.results.metrics import diversity, retrieval
from mindseye.results.pictures import facet_labels
from mindseye.results.run_folder import read_run
from mindseye.sweeps.summary import ranked
from mindseye.visualizer.callbacks import Blur, Brighten, GradientMask, RoundToLevels, TVDenoise
from mindseye.visualizer.canvas import MacoCanvas, PixelCanvas
from mindseye.visualizer.checkpoints import Checkpoint, read_state
from mindseye.visualizer.fitting import fit
from mindseye.visualizer.interruptions import Interrupted
from mindseye.visualizer.objective import Objective
from mindseye.visualizer.schedules import Linear, Schedules
from mindseye.visualizer.stopping import LARGEST, WHY, Held, Stopped, first_fault, magnitude
from mindseye.visualizer.transformations import Transformations

STEPS, LOST, STEP = 7, 1, 4  # facet 1 breaks in step 4
GOES_ON = "it stays as it was, the others go on"
PUBLISHED = {
    "canvas": PixelCanvas, "transformations": Transformations(0, 0, 0, 0),
    "objective": Objective(dm=1, tv=0, match="dot_product", distance="summed", gain=1, reduction="sum"),
    "filters": [GradientMask(), Blur(2), TVDenoise(3)],
}  # fmt: skip
RELEASED = {
    "canvas": PixelCanvas,
    "objective": Objective(
        dm=1, tv=0, match="dot_product", distance="elementwise", gain=1, reduction="sum", pooled=True,
        channels="every_facet", adaptive="restarted",
    ),
    "optimizer": partial(SGD, lr=1.0, momentum=0.9, nesterov=True),
    "filters": [GradientMask(), RoundToLevels(), Brighten(every=4)],
}  # fmt: skip
WAYS = {
    "default": {}, "published": PUBLISHED, "released": RELEASED, "maco": {"canvas": MacoCanvas},
    "one at a time": {"facets_per_batch": 1}, "two at a time": {"facets_per_batch": 2, "filters": [Blur(2)]},
}  # fmt: skip


class Fragile(nn.Module):
    """The identity, but for pictures whose number `place` is above `limit`: as a root or a norm in anybody's network,
    √ of what is left to the limit becomes NaN, or its slope at 0 infinite, times 0."""

    def __init__(self, where, place, limit):
        super().__init__()
        self.where, self.place, self.limit = where, place, limit

    def forward(self, x):
        left = self.limit - x.flatten(1)[:, self.place]
        if self.where == "the gradient":
            left = left.clamp(min=0) + 0 * left
        return x + 0 * left.sqrt()[:, None, None, None]


def fragile(where="the loss", place=0, limit=1e9):
    """The demo network behind it; a limit that nothing reaches is no limit."""
    net = demo_network()
    body = nn.Sequential()
    body.add_module("fragile", Fragile(where, place, limit))
    body.add_module("net", net.body)
    return Network(body, net.mean.flatten().tolist(), net.std.flatten().tolist(), "fragile", net.size)


class Remember(pl.Callback):
    """What the network sees in each step, [C, ch, S, S], and the pictures after it."""

    def __init__(self):
        self.seen, self.images = [], []

    def on_train_start(self, trainer, pl_module):
        pl_module.network.register_forward_pre_hook(lambda network, given: self.seen.append(given[0].detach().clone()))

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.images.append(pl_module.images())


def drawn(network, targets, **arguments):
    settings = {"steps": STEPS, "accelerator": "cpu", "log_every": 3, "snapshots_every": 2}
    return fit(network, targets, **{**settings, **arguments})


def breaking(network, memory):
    """(place, limit) at which facet LOST breaks in step STEP, and before it, or another facet, never."""
    seen = ((torch.cat(memory.seen) - network.mean) / network.std).flatten(1).view(STEPS, 3, -1)
    rivals = seen.clone()
    rivals[STEP - 1 :, LOST] = -torch.inf
    room = seen[STEP - 1, LOST] - rivals.amax(dim=(0, 1))
    place = int(room.argmax())
    assert room[place] > 1e-3
    return place, float(seen[STEP - 1, LOST, place] - room[place] / 2)


@pytest.fixture(scope="module")
def named(targets):
    return replace(targets, layer=f"net.{targets.layer}")


@pytest.fixture(scope="module")
def healthy(named):
    """healthy(way): a fit in which nothing breaks, its memory, and what would break it."""
    made = {}

    def look(way):
        if way not in made:
            network, memory = fragile(), Remember()
            arguments = WAYS[way]
            whole = drawn(network, named, **{**arguments, "filters": [*arguments.get("filters", []), memory]})
            made[way] = whole, memory, breaking(network, memory)
        return made[way]

    return look


def of(history, facet):
    """The history of one facet."""
    rows = [row for row, number in enumerate(history["facet"]) if number == facet]
    return {name: [column[row] for row in rows] for name, column in history.items() if name != "facet"}


def stopped_alone(made, whole, images, step=STEP, why="the loss"):
    """Facet LOST is as in images, those after its last good step; the others are to the bit what they are in `whole`."""
    assert whole.stopped == {}
    assert made.stopped == {LOST: Stopped(step, why)}
    for c in (0, 2):
        assert torch.equal(made.images[c], whole.images[c])
        assert of(made.history, c) == of(whole.history, c)
    assert torch.equal(made.images[LOST], images[LOST])
    mine, theirs = of(made.history, LOST), of(whole.history, LOST)
    for name, column in mine.items():
        assert column[: step - 1] == theirs[name][: step - 1]
        if name != "step" and not name.startswith("schedule_"):
            assert column[step - 1 :] == [None] * (STEPS - step + 1)
    assert list(made.snapshots) == list(whole.snapshots)
    for number, pictures in made.snapshots.items():
        assert torch.equal(pictures[::2], whole.snapshots[number][::2])
        wanted = whole.snapshots[number][LOST] if number < step else (images[LOST] * 255).round().to(torch.uint8)
        assert torch.equal(pictures[LOST], wanted)
    return True


def warnings_in(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("why", ["the loss", "the gradient"])
def test_a_root_below_zero_in_the_network_stops_one_facet(named, healthy, way, why, caplog):
    whole, memory, (place, limit) = healthy(way)
    made = drawn(fragile(why, place, limit), named, **WAYS[way])
    assert stopped_alone(made, whole, memory.images[STEP - 2], why=why)
    assert warnings_in(caplog) == [f"facet 1 is stopped at step 4, where {why} is no longer finite: {GOES_ON}"]

"""A facet whose numbers are no longer finite stops alone; memory that is too small for all facets takes fewer."""

import io
import itertools
import json
import logging
import math
import os
import signal
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from functools import partial

import pytest
import pytorch_lightning as pl
import torch
from given import given
from rich.console import Console
from torch import nn
from torch.optim import SGD, Adam

import mindseye as me
from mindseye.facets.way_statistics import IMAGE
from mindseye.networks import Network, demo_network
from mindseye.networks.preparing import prepare
from mindseye.reports.gallery.collecting import ListedRun, collect
from mindseye.reports.tables import closing_table
from mindseye.results.metrics import diversity, retrieval
from mindseye.results.pictures import facet_labels
from mindseye.results.run_folder import read_run
from mindseye.results.run_status import RunStatus
from mindseye.signals import Interrupted
from mindseye.sweeps.summary import ranked
from mindseye.visualizer.callbacks import Blur, Brighten, GradientMask, RoundToLevels, TVDenoise
from mindseye.visualizer.callbacks.compiling import check_gradient, warm_up
from mindseye.visualizer.canvas import FourierCanvas, MacoCanvas, PixelCanvas
from mindseye.visualizer.distance import negative_log_likelihood
from mindseye.visualizer.fitting import fit
from mindseye.visualizer.module import FacetVisualizer
from mindseye.visualizer.objective import Objective
from mindseye.visualizer.schedules import Linear, Schedules
from mindseye.visualizer.stopping import WHY, Held, Stopped, first_fault, norms
from mindseye.visualizer.transformations import Transformations

STEPS, LOST, STEP = 7, 1, 4  # facet 1 breaks in step 4
GOES_ON = "it stays as it was, the others go on"
PUBLISHED = {
    "canvas": PixelCanvas, "transformations": Transformations(jitter=0, scale=0, rotation=0),
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


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Fragile(nn.Module):
    """The identity, but for pictures whose number `place` is above `limit`: as a root or a norm in anybody's network,
    √ of what is left to the limit becomes NaN, or its slope at 0 infinite, times 0."""

    def __init__(self, where, place, limit):
        super().__init__()
        self.where, self.place, self.limit = where, place, limit

    def forward(self, x):
        assert len(x)  # no program of torch.fx has this: with a limit and without one it is run as it stands here
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
    settings = {"steps": STEPS, "accelerator": "cpu", "every": 3, "snapshots": 2}
    return fit(network, targets, **given(**{**settings, **arguments}))


def breaking(network, memory):
    """(place, limit) at which facet LOST breaks in step STEP, and before it, or another facet, never."""
    seen = ((torch.cat(memory.seen) - network.mean) / network.std).flatten(1).view(STEPS, 3, -1)
    rivals = seen.clone()
    rivals[STEP - 1 :, LOST] = -torch.inf
    room = seen[STEP - 1, LOST] - rivals.amax(dim=(0, 1))
    place = int(room.argmax())
    assert room[place] > 1e-3
    return place, float(seen[STEP - 1, LOST, place] - room[place] / 2)


def behind(targets):
    """The same, of layers that lie in `net`."""
    way = [layer if layer.layer == IMAGE else replace(layer, layer=f"net.{layer.layer}") for layer in targets.way]
    return replace(targets, layer=f"net.{targets.layer}", way=tuple(way))


@pytest.fixture(scope="module")
def named(targets):
    return behind(targets)


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
    """Facet LOST is as in images, those after its last good step; the others are, to the bit, as in `whole`."""
    assert whole.stopped == {}
    assert made.stopped == {LOST: Stopped(step, why)}
    for c in (0, 2):
        assert torch.equal(made.images[c], whole.images[c])
        assert torch.equal(made.transparency[c], whole.transparency[c])
        assert of(made.history, c) == of(whole.history, c)
    assert torch.equal(made.images[LOST], images[LOST])
    assert made.transparency.isfinite().all()
    assert (made.transparency[LOST] <= whole.transparency[LOST]).all()
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


class DivideByZero(pl.Callback):
    """A filter of one's own that makes 0/0 of facet LOST after step STEP."""

    @torch.no_grad()
    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        images = pl_module.images()
        if batch_idx + 1 == STEP:
            images[LOST] *= 0 / (0 * images[LOST])
        pl_module.canvas.encode(images)


class Encode(pl.Callback):
    """The same filter without the fault."""

    @torch.no_grad()
    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        pl_module.canvas.encode(pl_module.images())


def test_a_filter_that_spoils_a_picture_stops_that_facet(network, targets, caplog):
    memory = Remember()
    whole = drawn(network, targets, filters=[Encode(), memory])
    made = drawn(network, targets, filters=[DivideByZero()])
    assert stopped_alone(made, whole, memory.images[STEP - 2], why="the picture")
    assert len(warnings_in(caplog)) == 1


@pytest.fixture(scope="module")
def endless(targets):
    """Targets one of which has an infinite number in its map."""
    maps = targets.maps.clone()
    maps[LOST, targets.channels[LOST, 0], 2, 3] = torch.inf
    return replace(targets, maps=maps)


@pytest.mark.parametrize("way", ["default", "published", "released"])
def test_an_infinite_target_stops_its_facet_at_once(network, targets, endless, way):
    made = drawn(network, endless, **WAYS[way])
    whole = drawn(network, targets, **WAYS[way])
    canvas = WAYS[way].get("canvas", FourierCanvas)
    start = canvas(targets.initial, targets.photographs.float() / 255)().detach().clamp(0, 1)
    assert stopped_alone(made, whole, start, step=1)


@pytest.mark.parametrize("way", ["default", "published", "maco"])
def test_the_canvas_of_a_stopped_facet_keeps_its_bits(named, way):
    """Under an optimiser's momentum, filters that encode every picture anew, and the centre mask."""

    class Look(pl.Callback):
        def __init__(self):
            self.before = []

        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            self.before.append([x.detach().clone() for x in pl_module.canvas.of_facets()])

    look, memory, network = Look(), Remember(), fragile()
    arguments = {**WAYS[way], "optimizer": partial(Adam, lr=1.0, betas=(0.9, 0.99))}
    drawn(network, named, **{**arguments, "filters": [GradientMask(), Blur(1), memory]})
    place, limit = breaking(network, memory)
    drawn(
        fragile("the gradient", place, limit), named, **{**arguments, "filters": [GradientMask(), Blur(1), look]}
    )
    lost = next(t for t in range(STEPS - 1) if bits(look.before[t][-1][LOST]) == bits(look.before[t + 1][-1][LOST]))
    for later in look.before[lost + 1 :]:
        for before, after in zip(look.before[lost], later, strict=True):
            assert bits(after[LOST]) == bits(before[LOST])
            assert after.isfinite().all()
        assert bits(later[-1][0]) != bits(look.before[lost][-1][0])


def bits(x):
    return x.numpy().tobytes()


class SignalAt(pl.Callback):
    """A real signal in the middle of a step."""

    def __init__(self, step=None):
        self.step = step

    def fingerprint(self):
        """It has no part in the pictures, whenever it is."""
        return type(self).__name__

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx + 1 == self.step:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("step", [2, STEP, STEP + 1])
def test_a_fit_that_goes_on_keeps_a_facet_stopped(named, healthy, step, tmp_path, caplog):
    whole, memory, (place, limit) = healthy("default")
    for stop in (SignalAt(step), SignalAt()):
        with pytest.raises(Interrupted) if stop.step else nullcontext():
            made = drawn(fragile("the loss", place, limit), named, folder=tmp_path / "fit", filters=[stop])
    assert stopped_alone(made, whole, memory.images[STEP - 2])
    # Finished: read back.
    again = drawn(fragile("the loss", place, limit), named, folder=tmp_path / "fit", filters=[SignalAt()])
    assert stopped_alone(again, whole, memory.images[STEP - 2])
    assert len(warnings_in(caplog)) == 1


@pytest.mark.long
@pytest.mark.parametrize("devices", [2, 3])
def test_a_stopped_facet_in_one_of_several_processes(named, healthy, devices, caplog):
    """With three it is the only one of its process."""
    whole, _, _ = healthy("default")
    endless = replace(named, maps=named.maps.clone())
    endless.maps[LOST] = torch.inf
    made = drawn(fragile(), endless, devices=devices)
    start = FourierCanvas(named.initial, named.photographs.float() / 255)().detach()
    assert stopped_alone(made, whole, start, step=1)
    assert warnings_in(caplog) == [f"facet 1 is stopped at step 1, where the loss is no longer finite: {GOES_ON}"]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"optimizer": partial(SGD, lr=1.0), "schedule": Schedules(lr=Linear(1e38, 1e38))}, "the picture of facet 0"),
        ({"precision": "float16"}, "the loss of facet 0"),
        pytest.param({"devices": 3}, "the loss of facet 0", marks=pytest.mark.long),
    ],
    ids=["learning rate", "float16", "processes"],
)
def test_where_no_facet_is_left_one_line_says_why(network, targets, arguments, why):
    if "optimizer" not in arguments:  # activations that float16 has no numbers for, or nothing has
        size = 1e6 if "precision" in arguments else math.inf
        targets = replace(targets, maps=targets.maps * math.inf) if size == math.inf else targets
        network = brighter(size) if size != math.inf else network
    with pytest.raises(ValueError, match=f"^no facet is left: {why} is no longer finite at step 1; try a smaller"):
        drawn(network, targets, **arguments)


def brighter(times):
    """The demo network, its first layer's answers so many times stronger."""
    network = demo_network()
    first = next(part for part in network.body.modules() if isinstance(part, nn.Conv2d))
    first.weight.data *= times
    return network


def test_what_a_run_says_of_a_stopped_facet(network, targets, endless, tmp_path):
    whole = me.visualize(network, targets, me.Method(steps=4), me.Running(accelerator="cpu"))
    made = me.visualize(network, endless, me.Method(steps=4), me.Running(accelerator="cpu"))
    rows, healthy_rows = made.metrics["facets"], whole.metrics["facets"]
    assert rows[LOST]["stopped"] == {"step": 1, "why": "the loss is no longer finite"}
    assert all("stopped" not in row for row in (*healthy_rows, rows[0], rows[2]))
    json.dumps(made.metrics, allow_nan=False)
    for c in (0, 2):
        for name in ("fidelity", "selectivity", "retrieval", "naturalness"):
            assert rows[c][name] == healthy_rows[c][name]
    for name in ("cosine", "relative_distance"):
        mean = (rows[0]["fidelity"][name] + rows[2]["fidelity"][name]) / 2
        assert made.metrics["summary"]["fidelity"][name] == pytest.approx(mean, abs=1e-6)
        nearest = [row["baselines"]["nearest"]["fidelity"][name] for row in (rows[0], rows[2])]
        assert made.metrics["baselines"]["nearest"]["fidelity"][name] == pytest.approx(sum(nearest) / 2, abs=1e-6)
    assert "stopped at step 1" in facet_labels(endless, rows)[LOST]
    shown = Console(width=100, record=True, file=io.StringIO())
    shown.print(closing_table(made))
    report = shown.export_text()
    assert "1 (stopped" in report
    assert "at step 1)" in report
    stored = read_run(made.save(tmp_path / "run", config="k: 8\n"))
    assert torch.equal(stored.images, made.images)
    assert stored.history["total"][1] is None
    assert stored.history["total"][0] == pytest.approx(made.fit.history["total"][0])
    [run] = collect(tmp_path, [ListedRun("run", RunStatus(status="completed"))])["overview"]["runs"]
    assert run["status"] == "completed"
    assert run["reason"] == "facet 1 is stopped at step 1, where the loss is no longer finite"


def test_a_stopped_facet_has_no_part_in_a_cell_s_rank():
    rows = [
        {"cell": "a", "fidelity.cosine": 0.9}, {"cell": "a", "fidelity.cosine": 0.1, "stopped.step": 3},
        {"cell": "b", "fidelity.cosine": 0.8},
    ]  # fmt: skip
    assert ranked(rows, "fidelity.cosine") == [("a", 0.9), ("b", 0.8)]


def test_the_other_facets_measures_do_without_a_facet_that_has_none():
    similarity = torch.tensor([[0.9, torch.nan, 0.1], [0.2, torch.nan, 0.3], [0.1, torch.nan, 0.4]])
    assert retrieval(similarity).tolist() == [1, 0, 1]
    v = torch.rand(3, 5, 4, 4, generator=torch.Generator().manual_seed(0))
    without = diversity(v[::2])
    v[1, 2] = torch.nan
    apart = diversity(v)
    assert torch.equal(apart[::2], without)
    assert apart[1].isnan()


def test_the_first_fault_is_found_whatever_it_is():
    x = torch.ones(6, 3, 2)
    x[1, 2, 1], x[2, 0, 0], x[3, 1, 1], x[4, 0, 1] = torch.nan, torch.inf, -torch.inf, -2e19
    fault, _ = first_fault(norms([x])[None])
    assert fault.tolist() == [False, True, True, True, True, False]
    each = torch.ones(len(WHY), 4)
    each[1, 1] = each[2, 1] = each[0, 2] = each[2, 3] = torch.nan
    fault, why = first_fault(each)
    assert fault.tolist() == [False, True, True, True]
    assert why[1:].tolist() == [1, 0, 2]
    assert norms([x[:1], 2 * x[:1]]).item() == pytest.approx(30**0.5)


def test_a_shape_that_is_nan_gives_nan_to_its_facet_alone():
    r, b = torch.tensor([0.5, 0.5, 0.5]), torch.tensor([1.0, torch.nan, 1.9])
    loss = negative_log_likelihood(torch.ones(3), b, r)
    assert loss.isnan().tolist() == [False, True, False]
    assert torch.equal(loss[::2], negative_log_likelihood(torch.ones(2), b[::2], r[::2]))


def test_what_is_put_back_leaves_the_others_bits():
    held, canvas = Held(), [torch.tensor([[-0.0, 1e-45], [2.0, 3.0]]), torch.ones(2)]
    held.hold([torch.zeros(2, 2), torch.zeros(2)])
    held.hold(canvas)
    before = [x.clone() for x in canvas]
    canvas[0][1], canvas[1][:] = torch.nan, 5
    held.put_back(canvas, torch.tensor([False, True]))
    assert bits(canvas[0]) == bits(before[0])
    assert canvas[1].tolist() == [5, 1]


# ---- memory ----------------------------------------------------------------------------------------------------


class Hungry(nn.Module):
    """The identity, which asks for more memory than there is of any kind where it gets more than `most` pictures."""

    def __init__(self, most, from_call=1):
        super().__init__()
        # An iterator, since what a pass changes in a module is put back after it.
        self.most, self.from_call, self.calls = most, from_call, itertools.count(1)

    def forward(self, x):
        assert len(x)  # not to be traced
        call = next(self.calls) if x.requires_grad else 0
        if len(x) > self.most and call >= self.from_call:
            return x + torch.empty(2**47, device=x.device)[0]
        return x


def hungry(most, from_call=1):
    network = demo_network()
    body = nn.Sequential(Hungry(most, from_call))
    body.add_module("net", network.body)
    return Network(body, network.mean.flatten().tolist(), network.std.flatten().tolist(), "fragile", network.size)


@pytest.fixture(scope="module")
def five(network, photographs):
    targets = me.discover_facets(network, photographs, network.resolve(depth="middle"), me.Facets(C=5, k=8, N=4))
    return behind(targets)


@pytest.mark.parametrize(("most", "from_call", "taken"), [(4, 1, [3]), (2, 1, [3, 2]), (4, 4, [3])])
def test_too_little_memory_halves_the_batch_and_keeps_the_bits(five, most, from_call, taken, caplog):
    """The step is taken again from its beginning, with the same views and noise: the first, or the fourth."""
    settings = {"filters": [Blur(2)], "gradients": 2, "steps": 5}
    whole = drawn(hungry(99), five, facets_per_batch=taken[-1], **settings)
    assert same(drawn(hungry(most, from_call), five, **settings), whole)
    messages = warnings_in(caplog)
    assert len(messages) == len(taken)
    for line, size in zip(messages, taken, strict=True):
        assert f"going on with facets_per_batch={size}" in line
        assert "can't allocate memory" in line
        assert "\n" not in line


def same(one, other):
    assert torch.equal(one.images, other.images)
    assert one.history == other.history
    assert all(torch.equal(one.snapshots[step], other.snapshots[step]) for step in one.snapshots)
    return True


def test_no_memory_for_a_single_facet_is_said_as_torch_says_it(named, caplog):
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        drawn(hungry(0), named)
    assert len(warnings_in(caplog)) == 2  # three, two, one


def test_a_network_is_warmed_up_with_as_many_as_there_is_memory_for(five):
    canvas = FourierCanvas(five.initial, five.photographs.float() / 255)
    for begin in (warm_up, check_gradient):
        module, none = (
            FacetVisualizer(prepare(hungry(most), five.layer), canvas, me.Method(steps=2), me.Running(), five.C)
            for most in (2, 0)
        )
        begin(module)
        assert [chunk.stop - chunk.start for chunk in module.chunks.slices] == [2, 2, 1]
        with pytest.raises(RuntimeError, match="can't allocate memory"):
            begin(none)


class Forgetful(Adam):
    """Has no room for what Adam keeps."""

    def step(self, closure=None):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")


def test_no_memory_for_the_optimiser_is_one_line(five):
    with pytest.raises(ValueError, match=r"^no memory for what the optimiser keeps of 5 pictures of 48 pixels"):
        drawn(hungry(99), five, optimizer=Forgetful)


class Wrong(nn.Module):
    def forward(self, x):
        return x + torch.ones(7) if x.requires_grad else x


def test_other_errors_are_not_taken_for_it(five, caplog):
    network = hungry(99)
    network.body[0] = Wrong()
    with pytest.raises(RuntimeError, match="must match the size"):
        drawn(network, five)
    assert not warnings_in(caplog)


LIMITED = """
import logging, resource, sys
import torch
from torch import nn
from mindseye.facets import FacetTargets
from mindseye.networks import Network, demo_network
from mindseye.networks.preparing import prepare
from mindseye.settings import Running
from mindseye.visualizer.fitting import fit
from mindseye.visualizer.method import Method

logging.basicConfig(format="%(message)s")
torch.set_num_threads(1)

class Broad(nn.Module):
    many = torch.zeros(25_000_000)

    def forward(self, x):
        assert len(x)  # not to be traced
        if x.requires_grad:  # 100 MB for each picture, there and back
            x = x + (x[:, 0, :1, 0] * self.many).sum(dim=1)[:, None, None, None]
        return x

net = demo_network()
body = nn.Sequential(Broad())
body.add_module("net", net.body)
network = Network(body, net.mean.flatten().tolist(), net.std.flatten().tolist(), "broad", net.size)
targets = FacetTargets.load(sys.argv[1])
whole = fit(network, targets, Method(steps=3), Running(accelerator="cpu", facets_per_batch=3))
with open("/proc/self/statm") as file:
    used = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 500 * 2**20,) * 2)
made = fit(network, targets, Method(steps=3), Running(accelerator="cpu"))
print(torch.equal(made.images, whole.images), made.history == whole.history)
"""


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
def test_a_process_that_may_have_no_more_memory_draws_fewer_facets_at_a_time(five, tmp_path):
    five.save(tmp_path / "targets")
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path / "targets")], capture_output=True, text=True, timeout=250,
        env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["True", "True"]
    lines = [line for line in done.stderr.splitlines() if "facets_per_batch" in line]
    assert len(lines) == 1
    assert lines[0].startswith("no memory for 5 facets at a time: going on with facets_per_batch=3 (")

"""Several processes draw what one draws, to the bit, and are told, stopped and gone on from as one."""

import csv
import logging
import multiprocessing
import os
import signal
from functools import partial

import pytest
import pytorch_lightning as pl
import torch
from given import given
from pytorch_lightning.loggers import CSVLogger
from safetensors import safe_open
from torch.optim import SGD, Adam

from mindseye.facets import discover_facets, load_photographs
from mindseye.networks.tf32 import tf32
from mindseye.settings import Facets
from mindseye.signals import SIGNALS, Interrupted
from mindseye.visualizer.callbacks import Blur, Brighten, GradientMask, RoundToLevels, TVDenoise
from mindseye.visualizer.canvas import FourierCanvas, MacoCanvas, PixelCanvas
from mindseye.visualizer.checkpoints import Checkpoint, read_state
from mindseye.visualizer.devices import count_processes
from mindseye.visualizer.facet_sharding import _Setting
from mindseye.visualizer.fitting import check_deterministic, fit
from mindseye.visualizer.nodes import share_of
from mindseye.visualizer.objective import Objective
from mindseye.visualizer.transformations import Transformations

PUBLISHED = {
    "canvas": PixelCanvas, "transformations": Transformations(jitter=0, scale=0, rotation=0),
    "objective": Objective(dm=1, tv=0, match="dot_product", distance="summed", gain=1, reduction="sum"),
    "filters": [GradientMask(), Blur(2), TVDenoise(3)],
}  # fmt: skip
RELEASED = {
    "canvas": PixelCanvas, "transformations": Transformations(jitter=0.1, scale=0, rotation=0, every=400),
    "objective": Objective(
        dm=1, tv=0, match="dot_product", distance="elementwise", gain=1, reduction="sum", pooled=True,
        channels="every_facet", adaptive="restarted",
    ),
    "optimizer": partial(SGD, lr=1.0, momentum=0.9, nesterov=True),
    "filters": [GradientMask(), Blur(2), TVDenoise(3), RoundToLevels(), Brighten(every=2)],
}  # fmt: skip
LONG = pytest.mark.long
NOISE = {"canvas": partial(FourierCanvas, init="noise", seed=1)}


@pytest.fixture(autouse=True)
def _one_thread_each():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def facets(network, photographs):
    """facets[C]: targets of C facets."""
    layer = network.resolve(depth="middle")
    return {C: discover_facets(network, photographs, layer, Facets(C=C, k=8, N=4)) for C in (4, 5)}


def drawn(network, targets, **arguments):
    settings = {"steps": 5, "accelerator": "cpu", "every": 2, "snapshots": 2}
    return fit(network, targets, **given(**{**settings, **arguments}))


def same(one, other):
    assert torch.equal(one.images, other.images)
    assert torch.equal(one.transparency, other.transparency)
    assert one.history == other.history
    assert list(one.snapshots) == list(other.snapshots)
    assert all(torch.equal(one.snapshots[step], other.snapshots[step]) for step in one.snapshots)
    return True


def test_shares_are_even_in_order_and_complete():
    for C in range(1, 9):
        for N in range(1, C + 1):
            shares = [share_of(C, process, N) for process in range(N)]
            assert [c for share in shares for c in range(C)[share]] == list(range(C))
            sizes = {share.stop - share.start for share in shares}
            assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("canvas", [PixelCanvas, FourierCanvas, MacoCanvas, NOISE["canvas"]])
def test_a_canvas_keeps_some_facets_to_the_bit(targets, canvas):
    photographs = targets.photographs.float() / 255
    whole, part = canvas(targets.initial, photographs), canvas(targets.initial, photographs)
    part.keep(slice(1, 3))
    assert torch.equal(part(), whole()[1:3])
    assert len(list(part.parameters())) == len(list(whole.parameters()))
    part.encode(targets.initial[:2])
    whole.encode(targets.initial)
    assert torch.equal(part(), whole()[:2]) or isinstance(part, MacoCanvas)  # whose magnitudes are the facet's own


@pytest.fixture(scope="module")
def odd_facets(network, photograph_folder):
    """Five facets of pictures of 107 pixels: no number of vector registers, and sums that threads would share out."""
    photographs = load_photographs(photograph_folder, size=107)
    return discover_facets(network, photographs, network.resolve(depth="middle"), Facets(C=5, k=8, N=4))


@pytest.mark.parametrize("way", [{}, PUBLISHED, RELEASED, {"canvas": MacoCanvas}], ids="dprm")
@pytest.mark.parametrize("threads", [1, pytest.param(2, marks=pytest.mark.long)])
def test_any_number_of_facets_at_a_time_gives_the_same_bytes(network, odd_facets, way, threads):
    """What the processes rest on."""
    torch.set_num_threads(threads)
    whole = drawn(network, odd_facets, steps=2, **way)
    for facets_per_batch in (1, 3):
        assert same(drawn(network, odd_facets, steps=2, facets_per_batch=facets_per_batch, **way), whole)


@pytest.mark.long
@pytest.mark.parametrize(
    ("devices", "C", "way"),
    [(2, 4, PUBLISHED), (2, 5, RELEASED), (3, 4, NOISE)],
    ids=["published", "released", "noise"],
)
def test_several_processes_draw_what_one_draws(network, facets, devices, C, way):
    assert same(drawn(network, facets[C], devices=devices, **way), drawn(network, facets[C], **way))


@pytest.mark.slow
@pytest.mark.parametrize(("devices", "C", "way"), [(2, 4, PUBLISHED), pytest.param(3, 5, {}, marks=LONG)])
def test_several_processes_report_log_stop_and_go_on_as_one(
    network, facets, tmp_path, monkeypatch, caplog, devices, C, way
):
    """The signal comes to the whole group, as from a terminal, and must count once."""
    caplog.set_level(logging.INFO, "mindseye")
    monkeypatch.setenv("NODE_RANK", "1")  # of whatever started this: the processes are still 0, 1, …
    checkpoint = Checkpoint(tmp_path / "fit")
    before = [signal.getsignal(signum) for signum in SIGNALS]
    reports, compiled = [], []

    def report(step, terms):
        reports.append((step, terms["total"]))
        if step == 2:
            for process in multiprocessing.active_children():
                os.kill(process.pid, signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)

    whole = drawn(network, facets[C], **way)
    way = {**way, "filters": [*way.get("filters", []), Slow()]}
    settings = {
        **way, "devices": devices, "folder": checkpoint.folder, "logger": CSVLogger(tmp_path, "log", version="one"),
        "report": report, "announce": compiled.append,
    }  # fmt: skip
    with pytest.raises(Interrupted) as interrupted:
        drawn(network, facets[C], **settings)
    assert [signal.getsignal(signum) for signum in SIGNALS] == before
    assert not multiprocessing.active_children()
    steps = []
    for process in range(devices):
        with safe_open(path := checkpoint.file("", process, devices), "pt") as file:
            steps.append(read_state(path, file.metadata()["key"])["global_step"])
    assert interrupted.value.step == min(steps) < 5
    assert [step for step, _ in reports] == [2]
    assert reports[0][1] == pytest.approx(sum(whole.history["total"][C : C + 2]) / 2)  # of the first process's two
    reports.clear()
    settings["report"] = lambda step, terms: reports.append((step, terms))
    assert same(drawn(network, facets[C], **settings), whole)
    assert [step for step, _ in reports] == [4, 5]
    assert "the fit goes on after step" in caplog.text  # what the processes log
    settings["logger"] = None
    again = drawn(network, facets[C], **settings)  # finished: read back, no process started
    assert same(again, whole)
    assert again.step_ms > 0
    with open(tmp_path / "log" / "one" / "metrics.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["loss/total"]]
    assert [row["step"] for row in rows] == ["2", "4", "5"]
    assert float(rows[0]["loss/total"]) == pytest.approx(sum(whole.history["total"][C : 2 * C]) / C)  # of all facets
    assert not compiled


@pytest.mark.long
def test_another_number_of_processes_starts_anew(network, facets, tmp_path, caplog):
    """So does a fit whose one process has left a damaged file; and there are no more processes than facets."""
    checkpoint = Checkpoint(tmp_path / "fit")
    whole = drawn(network, facets[4], folder=checkpoint.folder)
    assert same(drawn(network, facets[4], devices=2, folder=checkpoint.folder), whole)
    assert "written by 1 process and this fit takes 2" in caplog.text
    assert checkpoint.file("", 1, 2).exists()
    assert not checkpoint.file().exists()
    assert same(drawn(network, facets[4], folder=checkpoint.folder), whole)
    assert "written by 2 processes and this fit takes 1" in caplog.text


class Slow(pl.Callback):
    """Steps long enough for a signal to come in time."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        import time

        time.sleep(0.3)


class FailIn(pl.Callback):
    """Raises, or kills the process, in one of the processes."""

    def __init__(self, process, error):
        self.process, self.error = process, error

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if (pl_module.own.start > 0) == (self.process > 0) and batch_idx == 1:
            if self.error is None:
                os.kill(os.getpid(), signal.SIGKILL)
            raise self.error


@pytest.mark.slow
@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        pytest.param(ValueError("facet 3 is lost"), ValueError, "facet 3 is lost", marks=LONG),
        (None, RuntimeError, "one of 2 processes is gone (SIGKILL)"),
    ],
    ids=["error", "killed"],
)
def test_what_ends_a_process_ends_all_in_one_line(network, targets, error, kind, message):
    with pytest.raises(kind) as raised:
        drawn(network, targets, devices=2, filters=[FailIn(1, error)])
    assert str(raised.value) == message
    assert not multiprocessing.active_children()
    assert not network.training


@pytest.mark.parametrize(
    "arguments",
    [{"optimizer": lambda parameters: Adam(parameters)}, {"filters": [type("Own", (pl.Callback,), {})()]}],
    ids=["optimizer", "filter"],
)
def test_what_cannot_be_sent_is_one_line(network, targets, arguments):
    with pytest.raises(ValueError, match=r"^devices=2: .*cannot be sent.*devices=1 does without$"):
        drawn(network, targets, devices=2, **arguments)


def test_how_torch_computes_is_handed_on():
    before = _Setting.of_this_process(1)
    try:
        torch.set_float32_matmul_precision("medium")
        torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
        torch.backends.cudnn.deterministic = True
        torch.use_deterministic_algorithms(True, warn_only=True)
        with tf32(False):
            other = _Setting.of_this_process(1)
        before.take()
        assert _Setting.of_this_process(1) == before
        other.take()
        assert _Setting.of_this_process(1) == other
        changed = [switch[:2] for switch, now in zip(before.switches, other.switches, strict=True) if switch != now]
        assert ("cudnn", "deterministic") in changed
        assert len(changed) >= 4
    finally:
        before.take()


def test_what_a_gpu_cannot_compute_deterministically_is_one_line():
    torch.use_deterministic_algorithms(True)
    try:
        with pytest.raises(ValueError, match=r"^torch\.use_deterministic_algorithms\(True\): the gradient"):
            check_deterministic(torch.device("cuda"), Transformations())
        check_deterministic(torch.device("cuda"), Transformations(jitter=0, scale=0, rotation=0))
        check_deterministic(torch.device("cpu"), Transformations())
        torch.use_deterministic_algorithms(True, warn_only=True)
        check_deterministic(torch.device("cuda"), Transformations())
    finally:
        torch.use_deterministic_algorithms(False)


def test_no_more_processes_than_facets_or_gpus(monkeypatch, caplog):
    with caplog.at_level(logging.INFO):
        assert count_processes(8, 3, "cpu") == 3
    assert "3 facets are shared out among 3 devices, not 8" in caplog.text
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert count_processes(2, 8, "cuda") == 2
    assert count_processes(3, 8, "cpu") == 3
    for accelerator in ("cuda", "gpu", "auto"):
        with pytest.raises(ValueError, match=r"^devices must be at most 2, not 3: this machine has 2 GPUs"):
            count_processes(3, 8, accelerator)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert count_processes(3, 8, "auto") == 3

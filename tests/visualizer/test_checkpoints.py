"""An interrupted fit goes on to the same bytes; what cannot be gone on from is let go."""

import copy
import itertools
import os
import pickle
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
from given import given
from pytorch_lightning.trainer.connectors import callback_connector
from safetensors import safe_open
from torch.optim import SGD

from mindseye.signals import SIGNALS, Interrupted, SignalWatch
from mindseye.visualizer import checkpoints
from mindseye.visualizer.callbacks import Blur, Brighten, GradientMask, RoundToLevels, TVDenoise, checkpointing
from mindseye.visualizer.canvas import FourierCanvas, MacoCanvas, PixelCanvas
from mindseye.visualizer.checkpoints import Checkpoint, SafetensorsIO, read_state, write_state
from mindseye.visualizer.fitting import fit, fit_key, prepare_for
from mindseye.visualizer.method import Method
from mindseye.visualizer.objective import Objective
from mindseye.visualizer.transformations import Transformations

PUBLISHED = Objective(dm=1, tv=0, match="dot_product", distance="summed", gain=1, reduction="sum")
RELEASED = Objective(
    dm=1, tv=0, match="dot_product", distance="elementwise", gain=1, reduction="sum", pooled=True,
    channels="every_facet", adaptive="restarted",
)  # fmt: skip
WAYS = {
    "default": {},
    "published": {
        "canvas": PixelCanvas, "objective": PUBLISHED,
        "transformations": Transformations(jitter=0, scale=0, rotation=0),
        "filters": [GradientMask(), Blur(2), TVDenoise(3)],
    },
    "released": {
        "canvas": PixelCanvas, "objective": RELEASED,
        "transformations": Transformations(jitter=0.1, scale=0, rotation=0, every=400),
        "optimizer": partial(SGD, lr=1.0, momentum=0.9, nesterov=True),
        "filters": [GradientMask(), RoundToLevels(), Brighten(every=4)],
    },
    "momentum": {"optimizer": partial(SGD, lr=1.0, momentum=0.9), "objective": Objective(adaptive="fixed")},
    "maco": {"canvas": MacoCanvas},
    "noise": {"canvas": partial(FourierCanvas, init="noise", seed=3), "seed": 3},
    "one at a time": {"facets_per_batch": 1, "filters": [Blur(3, where="everywhere")]},
}  # fmt: skip
STEPS = 7


def drawn(network, targets, **arguments):
    settings = {"steps": STEPS, "accelerator": "cpu", "every": 3, "snapshots": 2, "filters": [SignalAt()]}
    return fit(network, targets, **given(**{**settings, **arguments}))


class SignalAt(pl.Callback):
    """Sends this process a real signal in the middle of a step; `step` is set from outside."""

    def __init__(self, signum=signal.SIGTERM):
        self.step, self.signum = None, signum

    def fingerprint(self):
        """It has no part in the pictures, whenever it is."""
        return type(self).__name__

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx + 1 == self.step:
            os.kill(os.getpid(), self.signum)


class Counting(pl.Callback):
    """A filter with a state of its own, whose work depends on it."""

    def __init__(self):
        self.seen = 0

    @torch.no_grad()
    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.seen += 1
        if self.seen % 3 == 0:
            pl_module.canvas.encode(pl_module.images() * 0.99)

    def state_dict(self):
        return {"seen": self.seen}

    def load_state_dict(self, state_dict):
        self.seen = state_dict["seen"]


def same(one, other):
    """The same pictures, snapshots, losses, (r, b) and scheduled values, to the bit."""
    assert torch.equal(one.images, other.images)
    assert torch.equal(one.transparency, other.transparency)
    assert one.history == other.history
    assert list(one.snapshots) == list(other.snapshots)
    assert all(torch.equal(one.snapshots[step], other.snapshots[step]) for step in one.snapshots)
    return True


def handlers():
    return [signal.getsignal(signum) for signum in SIGNALS]


@pytest.fixture(scope="module")
def uninterrupted(network, targets):
    return drawn(network, targets)


@pytest.fixture
def checkpoint(tmp_path):
    """Where a fit is kept: of its key the fit alone knows."""
    return Checkpoint(tmp_path / "fit")


def state_of(path):
    """What a checkpoint's file holds, whatever its key."""
    with safe_open(path, "pt") as file:
        return read_state(path, file.metadata()["key"])


@pytest.mark.parametrize("way", WAYS)
def test_interrupted_at_several_steps_it_gives_the_same_bytes(network, targets, checkpoint, way):
    arguments = WAYS[way]
    stop, before = SignalAt(), handlers()
    arguments = {**arguments, "filters": [*arguments.get("filters", []), Counting(), stop]}
    whole = drawn(network, targets, **arguments)
    for step in (1, 3, 5):
        arguments["filters"][-2] = Counting()
        stop.step = step
        with pytest.raises(Interrupted) as interrupted:
            drawn(network, targets, folder=checkpoint.folder, **arguments)
        assert (interrupted.value.signum, interrupted.value.step) == (signal.SIGTERM, step)
        assert str(interrupted.value) == f"SIGTERM after step {step}"
        assert handlers() == before
    stop.step = None
    arguments["filters"][-2] = Counting()
    assert same(drawn(network, targets, folder=checkpoint.folder, **arguments), whole)
    arguments["filters"][-2] = Counting()
    assert same(drawn(network, targets, folder=checkpoint.folder, **arguments), whole)  # finished: read back


OTHERWISE = {  # what has no part in the pictures, and what has
    "other watchers": ({"facets_per_batch": 1, "gradients": None, "snapshots": 3, "checkpoint": 9.0, "every": 1}, True),
    "another accelerator": ({"accelerator": "auto"}, True),
    "another seed": ({"seed": 1}, False),
    "more steps": ({"steps": STEPS + 1}, False),
    "another objective": ({"objective": Objective(tv=4)}, False),
    "another filter": ({"filters": [SignalAt(), Blur(2)]}, False),
}


@pytest.mark.parametrize("otherwise", OTHERWISE)
def test_a_fit_goes_on_wherever_nothing_that_decides_its_pictures_is_another(network, targets, checkpoint, otherwise):
    settings, goes_on = OTHERWISE[otherwise]
    damaged_files(network, targets, checkpoint)
    steps = []
    told = {"report": lambda step, terms: steps.append(step), **settings}
    made = drawn(network, targets, folder=checkpoint.folder, **told)
    assert (min(steps) > 5) == goes_on
    assert torch.equal(made.images, drawn(network, targets, **settings).images)


def test_a_fit_of_another_network_or_other_targets_starts_anew(network, targets, checkpoint):
    damaged_files(network, targets, checkpoint)
    [key] = {fit_key(prepare_for(network, replace(targets, root=root)), targets, Method()) for root in ("a", "b")}
    other = copy.deepcopy(network)
    with torch.no_grad():
        next(other.body.parameters()).mul_(1.5)
    for asked in (other, network):
        given = targets if asked is other else targets.with_k(3)
        assert fit_key(prepare_for(asked, given), given, Method()) != key


@pytest.mark.parametrize("others", [1, 2, 3])
def test_signals_wait_for_the_checkpoint_whatever_callbacks_stand_behind_it(
    network, targets, checkpoint, others, monkeypatch
):
    """Packages may bring some, by an entry point of Lightning's."""
    brought = [pl.Callback() for _ in range(others)]
    monkeypatch.setattr(callback_connector, "_load_external_callbacks", lambda group: brought)
    stop = SignalAt()
    stop.step = 3
    with pytest.raises(Interrupted, match="SIGTERM after step 3"):
        drawn(network, targets, folder=checkpoint.folder, filters=[stop])
    assert checkpoint.file().exists()


def test_a_checkpoint_callback_is_no_filter(network, targets):
    with pytest.raises(ValueError, match=r"a filter is a ModelCheckpoint, which .*: a fit keeps its own state"):
        drawn(network, targets, filters=[pl.callbacks.ModelCheckpoint()])


def test_a_finished_fit_takes_no_step_and_seconds_add_up(network, targets, checkpoint):
    steps = []
    first = drawn(network, targets, folder=checkpoint.folder, report=lambda step, terms: steps.append(step))
    assert steps == [3, 6, 7]
    again = drawn(network, targets, folder=checkpoint.folder, report=lambda step, terms: steps.append(step))
    assert steps == [3, 6, 7]
    assert same(again, first)
    assert again.step_ms == first.step_ms
    state = state_of(checkpoint.file())
    assert again.seconds > state["callbacks"]["Checkpointing"]["seconds"] > 0
    checkpoint.discard()
    assert not Path(checkpoint.folder).exists()


def test_discard_leaves_what_is_not_its_own(network, targets, checkpoint):
    drawn(network, targets, folder=checkpoint.folder)
    other = Path(checkpoint.folder) / "notes.txt"
    other.write_text("mine")
    checkpoint.discard()
    assert list(Path(checkpoint.folder).iterdir()) == [other]


def test_it_is_written_by_the_clock_and_each_snapshot_once(network, targets, checkpoint, monkeypatch):
    written = []

    class Watch(pl.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            files = sorted(Path(checkpoint.folder).glob("*")) if Path(checkpoint.folder).exists() else []
            written.append({path.name: path.stat().st_mtime_ns for path in files})

    with monkeypatch.context() as patch:
        ticks = itertools.count()
        patch.setattr(checkpointing, "time", SimpleNamespace(monotonic=lambda: 100.0 * next(ticks)))
        drawn(network, targets, folder=checkpoint.folder, filters=[Watch()])
    assert [len(files) for files in written] == [0, 0, 0, 2, 2, 2, 4]  # looked at every third step, as the history
    assert written[6]["fit-0-of-1-step-2.safetensors"] == written[3]["fit-0-of-1-step-2.safetensors"]
    assert written[6]["fit-0-of-1.safetensors"] > written[3]["fit-0-of-1.safetensors"]
    checkpoint.discard()
    written.clear()
    drawn(network, targets, folder=checkpoint.folder, filters=[Watch()])
    assert not any(written)  # a minute has not passed
    assert checkpoint.file().exists()  # after the last step


def damaged_files(network, targets, checkpoint):
    """A checkpoint after step 5, with two snapshots."""
    stop = SignalAt()
    stop.step = 5
    with pytest.raises(Interrupted):
        drawn(network, targets, folder=checkpoint.folder, filters=[stop])


@pytest.mark.parametrize("where", ["parameters", "head", "snapshot", "short", "snapshot missing", "another key"])
def test_a_damaged_or_foreign_checkpoint_is_let_go(network, targets, checkpoint, uninterrupted, caplog, where):
    damaged_files(network, targets, checkpoint)
    path = checkpoint.file("step-4" if "snapshot" in where else "")
    content = bytearray(path.read_bytes())
    if where == "another key":
        targets, uninterrupted = replace(targets, initial=targets.initial.flip(0)), None
    elif where == "snapshot missing":
        path.unlink()
    elif where == "short":
        path.write_bytes(content[:-8])
    else:
        at = content.index(b"fit-0") if where == "head" else len(content) - 1000
        content[at] ^= 4
        path.write_bytes(content)
    made = drawn(network, targets, folder=checkpoint.folder)
    assert same(made, uninterrupted or drawn(network, targets))
    assert caplog.text.count("the fit starts anew") == 1
    assert "\n" not in caplog.text.strip()


class Trap:
    """Unpickled, it leaves a mark."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def test_a_pickle_in_its_place_is_not_run(network, targets, checkpoint, uninterrupted, tmp_path):
    mark = tmp_path / "mark"
    torch.save({"state_dict": Trap(mark)}, tmp_path / "saved")
    for content in (pickle.dumps(Trap(mark)), (tmp_path / "saved").read_bytes(), b""):
        Path(checkpoint.folder).mkdir()
        checkpoint.file().write_bytes(content)
        assert same(drawn(network, targets, folder=checkpoint.folder), uninterrupted)
        checkpoint.discard()
    assert not mark.exists()


def test_all_that_lightning_keeps_comes_back_as_it_was(tmp_path):
    state = {
        "numbers": {0: 1, 2: 0.1, "inf": float("inf"), "none": None, "true": True},
        "tuple": (0.9, [1, (2,)], {"tensor": "no tensor"}),
        "tensors": [torch.arange(6.0).reshape(2, 3).T, torch.tensor(3), torch.empty(0, 2), torch.tensor([1 + 2j])],
        "bytes": torch.arange(9, dtype=torch.uint8)[::2],
    }
    write_state(tmp_path / "state", "key", state)
    back = read_state(tmp_path / "state", "key")
    assert all(torch.equal(one, other) for one, other in zip(back.pop("tensors"), state.pop("tensors"), strict=True))
    assert torch.equal(back.pop("bytes"), state.pop("bytes"))
    assert repr(back) == repr(state)
    with pytest.raises(ValueError, match="not a set"):
        write_state(tmp_path / "state", "key", {"what": {1, 2}})
    with pytest.raises(ValueError, match="another fit"):
        read_state(tmp_path / "state", "other")
    SafetensorsIO("key").remove_checkpoint(tmp_path / "state")
    assert not list(tmp_path.iterdir())


def test_what_another_version_wrote_is_not_gone_on_from(tmp_path, monkeypatch, caplog):
    checkpoint = Checkpoint(tmp_path, "key")
    write_state(checkpoint.file(), "key", {"global_step": 3})
    checkpoint.check(1)
    assert checkpoint.file().exists()
    monkeypatch.setattr(checkpoints, "PROGRAM", checkpoints.PROGRAM.replace('"torch": "', '"torch": "9'))
    checkpoint.check(1)
    assert "another version of mindseye, torch or another library" in caplog.text
    assert not checkpoint.file().exists()


KILLED = """
import os, sys
import torch
from mindseye.facets import FacetTargets
from mindseye.networks import demo_network
from mindseye.settings import Running
from mindseye.visualizer.callbacks import checkpointing
from mindseye.visualizer.fitting import fit
from mindseye.visualizer.method import Method
from mindseye.visualizer.watching import Watchers
import itertools
import pytorch_lightning as pl

class checkpointing_time:
    ticks = itertools.count()
    monotonic = staticmethod(lambda: 100.0 * next(checkpointing_time.ticks))

checkpointing.time = checkpointing_time

class Kill(pl.Callback):
    def fingerprint(self):
        return "SignalAt"

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx == 4:
            os.kill(os.getpid(), 9)

folder, targets = sys.argv[1:]
torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
fit(
    demo_network(), FacetTargets.load(targets), Method(steps=7, filters=[Kill()]),
    Running(accelerator="cpu", snapshots=2, folder=folder), Watchers(every=3),
)
"""


def test_what_a_killed_process_left_is_gone_on_from(network, targets, checkpoint, uninterrupted, tmp_path):
    """No handler runs: the last checkpoint by the clock is all there is."""
    targets.save(tmp_path / "targets")
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    command = [sys.executable, "-c", KILLED, str(checkpoint.folder), str(tmp_path / "targets")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    state = state_of(checkpoint.file())
    assert state["global_step"] == 3
    steps = []
    made = drawn(network, targets, folder=checkpoint.folder, report=lambda step, terms: steps.append(step))
    assert steps == [6, 7]
    assert same(made, uninterrupted)


def test_ctrl_c_is_a_keyboard_interrupt_after_the_step(network, targets, checkpoint, uninterrupted):
    stop = SignalAt(signal.SIGINT)
    stop.step = 4
    before = handlers()
    with pytest.raises(KeyboardInterrupt):
        drawn(network, targets, folder=checkpoint.folder, filters=[stop])
    assert handlers() == before
    assert state_of(checkpoint.file())["global_step"] == 4
    stop.step = None
    assert same(drawn(network, targets, folder=checkpoint.folder, filters=[stop]), uninterrupted)


def test_a_second_ctrl_c_ends_at_once(network, targets, checkpoint):
    class Twice(pl.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if batch_idx == 2:
                os.kill(os.getpid(), signal.SIGINT)
                os.kill(os.getpid(), signal.SIGINT)
                raise AssertionError("the step goes on")

    before = handlers()
    with pytest.raises(KeyboardInterrupt):
        drawn(network, targets, folder=checkpoint.folder, filters=[Twice()])
    assert handlers() == before
    assert not checkpoint.file().exists()


@pytest.fixture
def own_handler():
    """Stands before the fit, as a scheduler's does; what it does is set by the test."""
    heard = []
    before = {signum: signal.getsignal(signum) for signum in SIGNALS}

    def install(signum, then):
        def handler(signum, frame):
            heard.append((signum, frame is not None, signal.getsignal(signum) is handler))
            then()

        signal.signal(signum, handler)
        return heard

    yield install
    for signum, handler in before.items():
        signal.signal(signum, handler)


@pytest.mark.parametrize("signum", SIGNALS, ids=lambda signum: signal.Signals(signum).name)
def test_the_handler_that_stood_before_is_called_when_the_checkpoint_is_there(
    network, targets, checkpoint, own_handler, signum
):
    """As submitit's, which puts the job back into the queue and exits."""

    def leave():
        assert state_of(checkpoint.file())["global_step"] == 4
        sys.exit(7)

    heard = own_handler(signum, leave)
    stop = SignalAt(signum)
    stop.step = 4
    with pytest.raises(SystemExit) as left:
        drawn(network, targets, folder=checkpoint.folder, filters=[stop])
    assert left.value.code == 7
    assert heard == [(signum, True, True)]


def test_where_that_handler_returns_the_fit_goes_on(network, targets, checkpoint, uninterrupted, own_handler):
    """As submitit's for SIGTERM. The next signal is noted again."""
    heard = own_handler(signal.SIGTERM, lambda: None)

    class Often(pl.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if batch_idx in (1, 3):
                os.kill(os.getpid(), signal.SIGTERM)

    made = drawn(network, targets, folder=checkpoint.folder, filters=[Often()])
    assert [signum for signum, _, _ in heard] == [signal.SIGTERM] * 2
    assert same(made, uninterrupted)


def test_what_is_ignored_stays_ignored_and_errors_put_handlers_back(network, targets, checkpoint, own_handler):
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    stop = SignalAt(signal.SIGUSR1)
    stop.step = 3
    before = handlers()
    drawn(network, targets, folder=checkpoint.folder, filters=[stop])
    assert handlers() == before

    class Fail(pl.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            assert handlers() != before
            raise ValueError("no")

    checkpoint.discard()
    with pytest.raises(ValueError, match="no"):
        drawn(network, targets, folder=checkpoint.folder, filters=[Fail()])
    assert handlers() == before


def test_no_handler_is_touched_without_a_checkpoint_or_outside_the_main_thread(
    network, targets, checkpoint, uninterrupted
):
    seen = []

    class Look(pl.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            seen.append(handlers())

    before = handlers()
    drawn(network, targets, filters=[Look()])
    assert all(now[1:] == before[1:] for now in seen)  # Lightning's own for SIGTERM
    made = []
    thread = threading.Thread(target=lambda: made.append(drawn(network, targets, folder=checkpoint.folder)))
    thread.start()
    thread.join()
    assert same(made[0], uninterrupted)
    assert handlers() == before


def test_signals_noted_are_handed_on_in_order():
    heard = []
    watch = SignalWatch({signum: lambda signum, frame: heard.append(signum) for signum in SIGNALS})
    before = handlers()
    try:
        watch.watch()
        for signum in (signal.SIGUSR2, signal.SIGTERM):
            signal.raise_signal(signum)
        assert watch.noted == [signal.SIGUSR2, signal.SIGTERM]
        assert not heard
        watch.deliver(1)
        assert heard == [signal.SIGUSR2, signal.SIGTERM]
        assert not watch.noted
    finally:
        for signum, handler in zip(SIGNALS, before, strict=True):
            signal.signal(signum, handler)

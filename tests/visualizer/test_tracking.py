"""Trackers: what they are told, by which names, and that none can end a run."""

import csv
import logging
import math
import os
import signal
import threading

import pytest
import pytorch_lightning as pl
import torch
from given import given
from pytorch_lightning.callbacks import (
    DeviceStatsMonitor,
    EarlyStopping,
    LambdaCallback,
    LearningRateMonitor,
    ModelCheckpoint,
    ThroughputMonitor,
)
from pytorch_lightning.callbacks.spike import SpikeDetection
from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger
from pytorch_lightning.utilities import rank_zero_only

from mindseye.settings import Running
from mindseye.signals import Interrupted
from mindseye.visualizer import tracking
from mindseye.visualizer.callbacks import Summary
from mindseye.visualizer.fitting import fit
from mindseye.visualizer.matching import Matching
from mindseye.visualizer.method import Method
from mindseye.visualizer.objective import Objective, gradient_norms
from mindseye.visualizer.onlookers import TELL_LOGGERS, of_lightning, why_not
from mindseye.visualizer.terms import GRADIENTS, LossTerms
from mindseye.visualizer.tracking import Tracker, as_trackers
from mindseye.visualizer.watching import Watchers, check_filters


class Told(Logger):
    """Keeps what it is told, and fails from the `fails`-th call on."""

    name, version = "told", 0

    def __init__(self, fails=math.inf):
        super().__init__()
        self.fails = fails
        self.calls = []

    def log_metrics(self, metrics, step=None):
        self.calls.append((step, metrics))
        if len(self.calls) >= self.fails:
            raise OSError("[Errno 28] No space\nleft on device")

    def log_hyperparams(self, params, *args, **kwargs):
        raise AssertionError("not called by a fit")


@pytest.fixture(scope="module")
def told_fit(network, targets):
    told = Told()
    made = fit(
        network,
        targets,
        Method(steps=5),
        Running(accelerator="cpu", gradients=3),
        watchers=Watchers(logger=told, every=2),
    )
    return told, made


def test_callbacks_of_lightning_s_look_on_and_change_nothing(network, targets, told_fit, caplog):
    told = Told()
    seen = []

    class Counting(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            seen.append(batch_idx)

    others = [ThroughputMonitor(lambda batch: 1, window_size=2), LambdaCallback(), pl.Callback()]
    callbacks = [Summary(max_depth=1), DeviceStatsMonitor(), LearningRateMonitor(), Counting(), *others]
    running = Running(accelerator="cpu", gradients=3, profiler="simple")
    watchers = Watchers(logger=told, every=2, callbacks=callbacks)
    with caplog.at_level(logging.INFO, logger="mindseye"):
        made = fit(network, targets, Method(steps=5), running, watchers=watchers)
    assert torch.equal(made.images, told_fit[1].images)
    assert seen == [0, 1, 2, 3, 4]
    names = {name for _, metrics in told.calls for name in metrics}
    assert any(name.startswith("DeviceStatsMonitor.on_train_batch_end") for name in names)
    assert "lr-Adam" in names
    assert "Trainable params" in caplog.text
    assert "training_step" in caplog.text.partition("profile of the fit")[2]


@pytest.mark.parametrize(
    ("watchers", "message"),
    [
        ({"callbacks": [DeviceStatsMonitor()]}, "a DeviceStatsMonitor tells trackers alone, and there is none"),
        ({"callbacks": [EarlyStopping("loss")]}, "would end the fit before its last step: steps=N"),
        ({"callbacks": [ModelCheckpoint()]}, "a ModelCheckpoint has no place here"),
        ({"callbacks": [Summary]}, "must be one of a subclass of pytorch_lightning.Callback, not"),
        ({"callbacks": ["lr_monitor"]}, "must be one of a subclass"),
        ({"logger": "wandb"}, "the logger must be one of Lightning's, .*, not the text 'wandb'"),
        ({"logger": [Told(), "csv"]}, "not the text 'csv'"),
        ({"logger": 3}, "not an int"),
    ],
)
def test_who_cannot_look_on_is_refused_at_once(watchers, message):
    with pytest.raises(ValueError, match=message) as error:
        Watchers(**watchers)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", [getattr(pl.callbacks, name) for name in pl.callbacks.__all__] + [SpikeDetection])
def test_each_of_lightning_s_callbacks_can_look_on_or_its_reason_is_known(kind):
    """One that a new release brings is none of these: it is tried first, see above."""
    names = [base.__name__ for base in kind.__mro__]
    run_here = {"Callback", "LambdaCallback", *TELL_LOGGERS}
    assert (why_not(names, told=True) is None) == (kind.__name__ in run_here)
    assert set(of_lightning(kind.__name__)) <= set(names)
    assert bool(of_lightning(kind.__name__)) == (kind.__name__ not in run_here)


@pytest.mark.parametrize("one", [EarlyStopping("loss"), LearningRateMonitor(), pl.callbacks.RichProgressBar()])
def test_what_cannot_look_on_is_no_filter(one):
    with pytest.raises(ValueError, match=f"a filter is an? {type(one).__name__}, which "):
        check_filters([one])


def test_panels_steps_and_means(told_fit):
    told, made = told_fit
    by_step = {}
    for step, metrics in told.calls:
        by_step.setdefault(step, {}).update(metrics)
    assert {step for step, metrics in by_step.items() if "loss/total" in metrics} == {2, 4, 5}
    assert {step for step, metrics in by_step.items() if "gradient/dm" in metrics} == {1, 3}
    last = by_step[5]
    assert {"loss/dm", "loss/ad", "loss/penalty", "loss/tv", "loss/total"} <= set(last)
    assert {"distance/mdist", "distance/r", "distance/b", "schedule/lr", "schedule/mask_sigma"} <= set(last)
    for panel, column in (("loss/total", "total"), ("distance/r", "r")):
        assert last[panel] == pytest.approx(sum(made.history[column][-3:]) / 3, rel=1e-5)


def test_history_has_the_norms_where_they_were_taken(told_fit):
    _, made = told_fit
    steps = made.history["step"]
    for name in GRADIENTS:
        column = made.history[f"gradient_{name}"]
        assert {step for step, value in zip(steps, column, strict=True) if value is not None} == {1, 3}
        assert all(value is None or value >= 0 for value in column)


def test_looking_at_gradients_and_tracking_change_nothing(told_fit, network, targets):
    plain = fit(network, targets, Method(steps=5), Running(accelerator="cpu", gradients=None))
    assert torch.equal(plain.images, told_fit[1].images)
    assert not [name for name in plain.history if name.startswith("gradient")]


def test_norms_of_terms_whose_gradients_are_known():
    """DM = ⟨u, x⟩ has gradient u, AD = |x|²/2 has x, TV = 0·x has 0, and P does not depend on x."""
    x = torch.tensor([[3.0, 4.0], [0.0, 2.0]]).reshape(2, 1, 1, 2).requires_grad_()
    images = x * 1.0
    u = torch.tensor([1.0, 0.0])
    dm, ad = (images.flatten(1) * u).sum(1), images.flatten(1).square().sum(1) / 2
    constant, tv = torch.ones(2), images.flatten(1).sum(1) * 0
    weights = {"dm": -2.0, "ad": 3.0, "penalty": 5.0, "tv": 1.0}
    total = -2 * dm + 3 * ad + 5 * constant + tv
    norms = gradient_norms(LossTerms(dm=dm, ad=ad, penalty=constant, tv=tv, total=total), weights, images)
    by_term = dict(zip(GRADIENTS, norms.tolist(), strict=False))
    assert (by_term.pop("dm"), by_term.pop("ad")) == ([2, 2], [15, 6])
    assert set(map(tuple, by_term.values())) == {(0, 0)}


@pytest.mark.parametrize("objective", [Objective(), Objective(channels="every_facet", penalty=2.0)])
def test_weights_make_the_total(network, targets, objective):
    made = fit(network, targets, Method(steps=2, objective=objective), Running(accelerator="cpu"))
    for row in range(len(made.history["step"])):
        weights = objective.weights(
            {name: made.history[f"schedule_{name}"][row] for name in ("penalty", "matching", "strength")}, targets.C
        )
        summed = sum(weight * made.history[name][row] for name, weight in weights.items())
        assert summed == pytest.approx(made.history["total"][row], rel=1e-4)


def test_one_term_alone_is_the_total(network, targets):
    alone = Objective(ad=0, strength=0, penalty=0, tv=0, matching=Matching(weight=0))
    made = fit(network, targets, Method(steps=1, objective=alone), Running(accelerator="cpu", gradients=1))
    assert made.history["gradient_dm"] == pytest.approx(made.history["gradient_total"], rel=1e-5)
    assert made.history["gradient_ad"] == [0.0] * targets.C


def test_in_chunks_the_norms_are_the_same(network, targets, told_fit):
    made = fit(network, targets, Method(steps=5), Running(accelerator="cpu", gradients=3, facets_per_batch=1))
    for name in GRADIENTS:
        first = [value for value in made.history[f"gradient_{name}"] if value is not None]
        whole = [value for value in told_fit[1].history[f"gradient_{name}"] if value is not None]
        assert first == pytest.approx(whole, rel=1e-5)


def test_wrong_gradients_every(network, targets):
    with pytest.raises(ValueError, match="gradients must be a whole number of 1 or more or null, not 0"):
        fit(network, targets, Method(steps=1), Running(accelerator="cpu", gradients=0))


def test_a_tracker_that_fails_is_said_once_and_left_alone(network, targets, caplog, told_fit):
    bad, good = Told(fails=2), Told()
    with caplog.at_level(logging.WARNING, "mindseye"):
        made = fit(
            network,
            targets,
            Method(steps=5),
            Running(accelerator="cpu", gradients=3),
            watchers=Watchers(logger=[bad, good], every=2),
        )
    assert torch.equal(made.images, told_fit[1].images)
    assert len(bad.calls) == 2
    assert good.calls == told_fit[0].calls
    messages = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert messages == ["Told is left alone from here on, the run goes on: [Errno 28] No space left on device"]


class Stuck(Told):
    """From the second call on it never comes back."""

    def log_metrics(self, metrics, step=None):
        super().log_metrics(metrics, step)
        if len(self.calls) > 1:
            threading.Event().wait()


def test_a_tracker_that_is_stuck_is_left_alone(network, targets, caplog, told_fit, monkeypatch):
    monkeypatch.setattr(tracking, "STEP_S", 0.3)
    stuck = Stuck()
    with caplog.at_level(logging.WARNING, "mindseye"):
        made = fit(
            network,
            targets,
            Method(steps=5),
            Running(accelerator="cpu", gradients=3),
            watchers=Watchers(logger=stuck, every=2),
        )
    assert torch.equal(made.images, told_fit[1].images)
    assert len(stuck.calls) == 2
    messages = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert messages == ["Stuck is left alone from here on, the run goes on: it did not come back within 0 seconds"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_tensorboard_whose_writing_thread_died_is_left_alone(tmp_path, caplog):
    """Its queue holds ten events: the eleventh call would wait for ever, and so would the end of the process."""
    pytest.importorskip("tensorboardX")
    logger = TensorBoardLogger(tmp_path, "", version="")
    tracker = Tracker(logger)
    writer = getattr(logger.experiment.file_writer.event_writer, "_ev_writer", None)
    if writer is None:
        pytest.skip("this is tensorboard's own writer, which raises by itself")

    def no_room(event):
        raise OSError(28, "No space left on device")

    writer.write_event = no_room
    for step in range(40):
        tracker.log_metrics({"loss/dm": 1.0, "loss/ad": 2.0}, step)
    tracker.save()
    tracker.finish(failed=False)
    assert tracker.failed
    messages = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert messages == [
        "TensorBoardLogger is left alone from here on, the run goes on: the thread that writes its file has died, "
        "of a full disk say"
    ]
    logger.experiment.file_writer.event_writer.close()  # what the end of the process does


def test_a_tracker_that_was_interrupted_is_not_told_two_things_at_once():
    order, free = [], threading.Event()

    def slow(logger):
        order.append("first begins")
        free.wait()
        order.append("first ends")

    def interrupted(signum, frame):
        raise KeyboardInterrupt

    tracker, before = Tracker(Told()), signal.signal(signal.SIGINT, interrupted)
    threading.Timer(0.2, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT)).start()
    try:
        with pytest.raises(KeyboardInterrupt):
            tracker.attempt(slow)
    finally:
        signal.signal(signal.SIGINT, before)
    threading.Timer(0.2, free.set).start()
    tracker.attempt(lambda logger: order.append("second"))
    assert order == ["first begins", "first ends", "second"]


def test_interruptions_are_no_failures_of_a_tracker():
    def interrupted(logger):
        raise KeyboardInterrupt

    tracker = Tracker(Told())
    with pytest.raises(KeyboardInterrupt):
        tracker.attempt(interrupted)
    assert not tracker.failed


def test_one_several_or_none():
    one = Told()
    assert as_trackers(None) == []
    assert [tracker.logger for tracker in as_trackers(one)] == [one]
    wrapped = as_trackers([one, Told()])
    assert as_trackers(wrapped) == wrapped


@pytest.mark.long
def test_several_processes_tell_of_all_facets(network, targets, told_fit):
    told = Told()
    fit(
        network,
        targets,
        Method(steps=5),
        Running(accelerator="cpu", devices=2, gradients=3),
        watchers=Watchers(logger=told, every=2),
    )
    whole = told_fit[0].calls
    assert [step for step, _ in told.calls] == [step for step, _ in whole]
    for (_, mine), (_, theirs) in zip(told.calls, whole, strict=True):
        assert mine == pytest.approx(theirs, rel=1e-5)


def stop_at(last):
    """A report that sends this process SIGTERM after that step."""

    def report(step, terms):
        if step == last:
            os.kill(os.getpid(), signal.SIGTERM)

    return report


def test_csv_that_goes_on_has_every_step(network, targets, tmp_path):
    """A fit that is stopped and goes on writes its metrics.csv anew, with the steps before."""
    settings = {"steps": 5, "accelerator": "cpu", "every": 2, "folder": tmp_path / "fit"}
    for report in (stop_at(2), None):
        logger = CSVLogger(tmp_path, "csv", version="")
        try:
            fit(network, targets, **given(logger=logger, report=report, **settings))
        except Interrupted:
            assert report is not None
    with open(tmp_path / "csv" / "metrics.csv", newline="") as file:
        assert [row["step"] for row in csv.DictReader(file) if row["loss/total"]] == ["2", "4", "5"]


class StopsAt(pl.Callback):
    """Sends this process SIGTERM in the middle of that step."""

    def __init__(self, step):
        self.step = step

    def fingerprint(self):
        """It has no part in the pictures, whenever it is."""
        return "StopsAt"

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx + 1 == self.step:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("steps", [(1,), (3,), (1, 2, 3, 4)])
def test_nothing_is_lost_to_trackers_between_two_reports(network, targets, told_fit, tmp_path, steps):
    """However often a fit is stopped, they are told in all what one is told that went through, and nothing twice."""
    told = Told()
    settings = {"steps": 5, "accelerator": "cpu", "every": 2, "gradients": 3}
    for step in (*steps, None):
        try:
            fit(network, targets, **given(logger=told, filters=[StopsAt(step)], folder=tmp_path, **settings))
        except Interrupted:
            assert step is not None
    assert told.calls == told_fit[0].calls


@pytest.mark.parametrize("rank", [1, 3, 7])
def test_a_rank_in_the_environment_silences_nobody(network, targets, tmp_path, monkeypatch, rank):
    """As Lightning takes it from SLURM_PROCID when it is imported. Afterwards it is what it was."""
    pytest.importorskip("tensorboardX")
    monkeypatch.setattr(rank_zero_only, "rank", rank)
    loggers = [CSVLogger(tmp_path, "csv", version=""), TensorBoardLogger(tmp_path, "events", version="")]
    fit(network, targets, Method(steps=2), Running(accelerator="cpu"), watchers=Watchers(logger=loggers, every=2))
    assert rank_zero_only.rank == rank
    assert "loss/total" in (tmp_path / "csv" / "metrics.csv").read_text()
    [events] = (tmp_path / "events").glob("events.*")
    assert b"loss/total" in events.read_bytes()

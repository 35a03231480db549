"""Signals that come more than once, in the middle of an import, or where somebody makes something else of them."""

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

import pytest
import warm

from mindseye.results.run_status import read_status
from mindseye.signals import CTRL_C, SIGNALS, TO_BE_CONTINUED, Interrupted, Interruptible

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="signals as Linux has them")

RAISED = {number: KeyboardInterrupt if number == signal.SIGINT else Interrupted for number in SIGNALS}

# What numpy and torch do with an exception in the middle of their import.
SWALLOWS = """
import os, time
try:
    os.kill(os.getpid(), {number})
    time.sleep(0.1)  # for a Python handler: it is called before this returns
except BaseException:
    raise ImportError("cannot load module more than once per process")
whole = True
"""


@pytest.fixture(autouse=True)
def _as_before():
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


def told(number):
    os.kill(os.getpid(), number)
    time.sleep(0.01)


def wait_to_be_told():
    """For longer than any machine needs."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        time.sleep(0.01)


def test_a_signal_told_again_does_not_disturb_the_leaving_whoever_put_the_handler_back():
    """Slurm sends some twice, and a fit that ends puts back the handler that was there before its own."""

    def leave():
        with Interruptible():
            ours = signal.getsignal(signal.SIGUSR2)
            try:
                told(signal.SIGUSR2)
            finally:
                told(signal.SIGUSR2)
                signal.signal(signal.SIGUSR2, ours)
                told(signal.SIGUSR2)
                told(signal.SIGTERM)

    with pytest.raises(Interrupted) as interrupted:
        leave()
    assert interrupted.value.signum == signal.SIGUSR2


def test_without_a_signal_the_handlers_come_back():
    before = {number: signal.getsignal(number) for number in SIGNALS}
    with Interruptible():
        assert signal.getsignal(signal.SIGUSR2) != before[signal.SIGUSR2]
    assert {number: signal.getsignal(number) for number in SIGNALS} == before


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_in_the_middle_of_an_import_waits_for_its_end(number, tmp_path, monkeypatch):
    name = f"swallows_signal_{number}"
    (tmp_path / f"{name}.py").write_text(SWALLOWS.format(number=int(number)))
    monkeypatch.syspath_prepend(tmp_path)
    reached, signals = [], Interruptible()

    def run():
        with signals:
            reached.append(importlib.import_module(name).whole)
            wait_to_be_told()
            reached.append("nobody told of it")

    with pytest.raises(RAISED[number]):
        run()
    assert reached == [True]
    assert signals.told == number


def test_what_waits_where_the_block_ends_is_raised_there_and_not_after_it(tmp_path, monkeypatch):
    """After it the signal would meet the handlers from before, and those end the process."""
    import mindseye.signals as interruptions

    monkeypatch.setattr(interruptions, "LOOK_S", 0.2)
    (tmp_path / "swallows_at_the_end.py").write_text(SWALLOWS.format(number=int(signal.SIGTERM)))
    monkeypatch.syspath_prepend(tmp_path)
    after, reached = [], []
    signal.signal(signal.SIGTERM, lambda *said: after.append(said))
    with pytest.raises(Interrupted), Interruptible():
        reached.append(importlib.import_module("swallows_at_the_end").whole)
    time.sleep(0.5)
    assert reached == [True]
    assert after == []


def test_a_program_that_runs_inside_an_import_can_be_stopped_too(tmp_path, monkeypatch):
    (tmp_path / "a_program.py").write_text(
        "import os, signal, time\n"
        "from mindseye.signals import Interruptible\n"
        "with Interruptible():\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    time.sleep(60)\n"
        "    raise SystemExit('it slept')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(Interrupted):
        importlib.import_module("a_program")


@pytest.mark.parametrize("number", SIGNALS)
def test_an_error_that_somebody_made_of_a_signal_is_the_signal(number):
    def made_an_error():
        try:
            told(number)
        except BaseException as error:
            raise RecursionError("maximum recursion depth exceeded") from error

    def run():
        with Interruptible() as signals:
            try:
                with signals.insisted():
                    made_an_error()
            except RecursionError:
                raise SystemExit("it came out as an error") from None

    with pytest.raises(RAISED[number]):
        run()


def test_a_signal_that_somebody_swallowed_is_raised_in_the_end():
    with pytest.raises(Interrupted), Interruptible(), suppress(BaseException):
        told(signal.SIGTERM)


def test_errors_without_a_signal_stay_as_they_are():
    with pytest.raises(RecursionError), Interruptible() as signals, signals.insisted():
        raise RecursionError


def test_the_handler_of_a_scheduler_is_told_from_our_own():
    def submitit(signum, frame):
        raise AssertionError

    signal.signal(signal.SIGUSR2, submitit)
    with Interruptible() as outer, Interruptible() as inner:
        assert outer.handler_before(signal.SIGUSR2) is submitit
        assert inner.handler_before(signal.SIGUSR2) is submitit
        assert inner.handler_before(signal.SIGTERM) is None


@pytest.mark.parametrize("put_back", [False, True], ids=["", "by a fit"])
def test_a_signal_told_again_does_not_disturb_the_leaving_of_the_blocks_around(put_back):
    def leave():
        with Interruptible(), Interruptible():
            ours = signal.getsignal(signal.SIGTERM)
            try:
                told(signal.SIGTERM)
            except Interrupted:
                if put_back:
                    signal.signal(signal.SIGTERM, ours)
                raise SystemExit(TO_BE_CONTINUED) from None

    signal.signal(signal.SIGTERM, lambda *said: pytest.fail("the process would have died"))
    with pytest.raises(SystemExit):
        leave()
    told(signal.SIGTERM)


# ---- the command -----------------------------------------------------------------------------------------------

NETWORKS = {
    "in its import": SWALLOWS + "import torch\nbuild = lambda: torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3))\n",
    "where it is made": """
import os, time
def build():
    try:
        os.kill(os.getpid(), {number})
        time.sleep(60)
    except BaseException:
        raise RuntimeError("no network")
""",
}


def begin(place, *words, program=None):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "120", "MINDSEYE_CACHE": str(place / "cache")}
    how = ["-m", "mindseye.commands.main"] if program is None else ["-c", program]
    return warm.python(*how, *words, cwd=place, env=environment, timeout=200)


MAIN = """
import importlib, os, sys, time
from mindseye.commands.main import main
real = importlib.import_module
def told(*said):
    os.kill(os.getpid(), {number})
    time.sleep(60)
    return real(*said)
importlib.import_module = told
main(sys.argv[1:])
"""
BETWEEN = """
import os, sys, time
import hydra.core.utils
from mindseye.commands.main import main
real = hydra.core.utils.run_job
def told(**said):
    done = real(**said)
    os.kill(os.getpid(), {number})
    time.sleep(60)
    return done
hydra.core.utils.run_job = told  # Hydra imports its launchers anew, unless this process has them already
launcher = sys.modules.get("hydra._internal.core_plugins.basic_launcher")
if launcher is not None:
    launcher.run_job = told
main(sys.argv[1:])
"""


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("words", [[], ["sweep", "resume", "sweep"]], ids=["run", "resume"])
def test_at_the_start_a_signal_is_one_line_and_its_exit_code(number, words, tmp_path):
    done = begin(tmp_path, *words, program=MAIN.format(number=int(number)))
    by_hand = number == signal.SIGINT
    assert done.returncode == (CTRL_C if by_hand else TO_BE_CONTINUED), done.stderr
    message = "interrupted" if by_hand else f"{signal.Signals(number).name}; the same command goes on"
    assert done.stderr == f"mindseye: {message}\n"


def test_ctrl_c_at_the_start_of_any_command_is_one_line(tmp_path):
    done = begin(tmp_path, "gallery", ".", program=MAIN.format(number=int(signal.SIGINT)))
    assert (done.returncode, done.stderr) == (CTRL_C, "mindseye: interrupted\n")


def test_between_two_cells_a_signal_ends_the_sweep_to_be_continued(tmp_path):
    (tmp_path / "no.py").write_text("def build():\n    raise ValueError('the cell fails at once')\n")
    words = ["-m", "experiment=smoke", "k=3,4", "network=callable", "network.target=no.py:build", "layer=none"]
    words += ["network.mean=[0.5]", "network.std=[0.25]", "hydra.sweep.dir=sweep"]
    done = begin(tmp_path, *words, program=BETWEEN.format(number=int(signal.SIGUSR1)))
    assert done.returncode == TO_BE_CONTINUED, done.stderr
    assert done.stderr.splitlines()[-1] == f"mindseye: SIGUSR1; mindseye sweep resume {tmp_path / 'sweep'} goes on"
    assert len(list((tmp_path / "sweep").glob("*/status.json"))) == 1


@pytest.mark.parametrize(
    ("where", "number", "code"),
    [("in its import", signal.SIGTERM, TO_BE_CONTINUED), ("where it is made", signal.SIGINT, CTRL_C)],
)
def test_a_cell_that_is_told_while_its_network_is_imported_is_to_be_continued(where, number, code, tmp_path):
    (tmp_path / "net.py").write_text(NETWORKS[where].format(number=int(number)))
    done = begin(
        tmp_path, "-m", "experiment=smoke", "steps=200", "k=3,4", "network=callable", "network.target=net.py:build",
        "network.mean=[0.5,0.5,0.5]", "network.std=[0.25,0.25,0.25]", "layer=0", "hydra.sweep.dir=sweep",
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    [cell] = (tmp_path / "sweep").glob("*/status.json")  # the other did not begin
    status = read_status(cell.parent)
    assert (status.status, status.reason) == (
        "to be continued", "Ctrl-C" if code == CTRL_C else signal.Signals(number).name
    ), json.loads(cell.read_text())  # fmt: skip
    assert f"mindseye sweep resume {tmp_path / 'sweep'} goes on" in done.stderr
    assert "Traceback" not in done.stderr
    if where == "in its import":
        assert not [line for line in (cell.parent / "run.log").read_text().splitlines() if "ImportError" in line]


@pytest.mark.long
@pytest.mark.parametrize("delay", [0.03, 0.2, 0.4, 0.6, 0.8, 1.0, 1.2])
def test_a_cell_that_is_told_while_torch_is_imported_is_to_be_continued(delay, tmp_path):
    """A cold process; 400 steps, so that it has not ended by then on any machine."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MINDSEYE_CACHE": str(tmp_path / "cache")}
    words = ["-m", "images.count=20", "steps=400", "C=2", "k=4", "seed=0", "hydra.sweep.dir=sweep"]
    cold = subprocess.Popen(
        [sys.executable, "-m", "mindseye.commands.main", *words], cwd=tmp_path, env=environment,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        while not (begun := list((tmp_path / "sweep").glob("*/status.json"))):
            assert cold.poll() is None
            time.sleep(0.002)
        time.sleep(delay)
        cold.send_signal(signal.SIGTERM)
        _, errors = cold.communicate(timeout=100)
    finally:
        cold.kill()
    assert cold.returncode == TO_BE_CONTINUED, errors
    assert read_status(begun[0].parent).status == "to be continued"

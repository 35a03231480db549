import os
import shutil
import socket
import subprocess
import sys
import time

import pytest

from mindseye.results import run_status
from mindseye.results.run_status import Occupied, RunRecord, RunStatus, occupy, read_status, write_status
from mindseye.signals import Interrupted
from mindseye.sweeps import manifest
from mindseye.sweeps.manifest import add_cells
from mindseye.sweeps.status import read_sweep

HERE = socket.gethostname()


def test_a_run_says_how_it_is_doing(tmp_path):
    assert read_status(tmp_path).status == "waiting"
    with RunRecord(tmp_path, ["k=4"], "abc") as record:
        begun = read_status(tmp_path)
        assert (begun.status, begun.pid, begun.host, begun.tries) == ("running", os.getpid(), HERE, 1)
        record._said = 0
        record.progress(3, 10)
        assert (read_status(tmp_path).step, read_status(tmp_path).steps) == (3, 10)
        (tmp_path / "metrics.json").write_text("{}")
        record.complete(0.9)
    done = read_status(tmp_path)
    assert (done.status, done.measure, done.overrides, done.config_sha256) == ("completed", 0.9, ("k=4",), "abc")
    assert not (tmp_path / "running.lock").exists()
    (tmp_path / "metrics.json").unlink()
    assert read_status(tmp_path).status == "to be continued"


def test_who_comes_second_finds_a_completed_run_and_leaves_it(tmp_path):
    (tmp_path / "metrics.json").write_text("{}")
    with RunRecord(tmp_path, [], "abc") as record:
        record.complete(0.9)
    before = (tmp_path / "status.json").read_bytes()
    with RunRecord(tmp_path, [], "abc", keep_completed=True) as record:
        assert record.completed.measure == 0.9
    assert (tmp_path / "status.json").read_bytes() == before
    with RunRecord(tmp_path, [], "other", keep_completed=True) as record:
        assert record.completed is None
        assert read_status(tmp_path).status == "running"


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt(), Interrupted(15)])
@pytest.mark.parametrize("where", ["read_status", "write_status", "_pid_namespace"])
def test_whoever_fails_at_the_door_does_not_keep_the_folder(where, error, tmp_path, monkeypatch):
    def fail(*arguments):
        raise error

    with monkeypatch.context() as broken:
        broken.setattr(run_status, where, fail)
        with pytest.raises(type(error)):
            RunRecord(tmp_path, [], "abc").__enter__()
    assert not (tmp_path / "running.lock").exists()
    with RunRecord(tmp_path, [], "abc"):
        assert read_status(tmp_path).status == "running"


@pytest.mark.parametrize("content", ["", "nonsense"])
def test_a_lock_that_belongs_to_nobody_is_taken_over(content, tmp_path, monkeypatch, caplog):
    """A full disk makes an empty file: created, and then not written."""
    monkeypatch.setattr(run_status, "LEASE_S", 1.0)
    monkeypatch.setattr(run_status, "BEAT_S", 0.1)
    (tmp_path / "running.lock").write_text(content)
    with occupy(tmp_path):
        assert (tmp_path / "running.lock").stat().st_size > len(content)
    [message] = caplog.messages  # nobody wonders what it waits for
    assert "looking for at most" in message
    monkeypatch.setattr(manifest, "_LEASE_S", 1.0)
    (tmp_path / "manifest.lock").write_text(content)
    assert len(add_cells(tmp_path, [("k=4",)], [], "")) == 1


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (ValueError("no such\nlayer"), "failed", "no such layer"),
        (RuntimeError("out of memory"), "failed", "RuntimeError: out of memory"),
        (AssertionError(), "failed", "AssertionError"),
        (Interrupted(15, 40), "to be continued", "SIGTERM after step 40"),
        (KeyboardInterrupt(), "to be continued", "Ctrl-C"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_how_a_run_ends_is_written_and_the_exception_goes_on(error, status, reason, tmp_path):
    with pytest.raises(type(error)), RunRecord(tmp_path, [], ""):
        raise error
    said = read_status(tmp_path)
    assert (said.status, said.reason) == (status, reason)


def test_tries_and_seconds_add_up_for_the_same_configuration_alone(tmp_path):
    def interrupted():
        with RunRecord(tmp_path, [], "abc"):
            time.sleep(0.05)
            raise Interrupted(15)

    for _ in range(2):
        with pytest.raises(Interrupted):
            interrupted()
    assert read_status(tmp_path).tries == 2
    assert read_status(tmp_path).seconds >= 0.1
    with RunRecord(tmp_path, [], "other"):
        assert read_status(tmp_path).tries == 1
        assert read_status(tmp_path).seconds < 0.1


HOLD = """
import sys, time
from pathlib import Path
from mindseye.results.run_status import RunRecord
with RunRecord(Path(sys.argv[1]), [], ""):
    print("here", flush=True)
    time.sleep(60)
"""


def test_two_processes_cannot_work_in_one_folder_and_a_dead_one_is_taken_over(tmp_path):
    other = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "here\n"
    with pytest.raises(Occupied, match=f"pid {other.pid}"), occupy(tmp_path):
        pass
    assert read_status(tmp_path).status == "running"
    other.kill()
    other.wait()
    lost = read_status(tmp_path)
    assert (lost.status, lost.reason) == ("to be continued", "its process ended without a word")
    began = time.monotonic()
    with RunRecord(tmp_path, [], ""):
        assert time.monotonic() - began < 10
        assert read_status(tmp_path).tries == 2


def test_one_in_another_container_of_the_same_host_name_is_not_looked_for_by_its_number(tmp_path):
    there = RunStatus(status="running", host=socket.gethostname(), pid=2**30, pid_namespace="pid:[1]")
    write_status(tmp_path, there)
    (tmp_path / "running.lock").touch()
    assert read_status(tmp_path).status == "running"
    long_ago = time.time() - 600
    os.utime(tmp_path / "running.lock", (long_ago, long_ago))
    assert read_status(tmp_path).status == "to be continued"


def test_a_live_run_is_seen_from_another_pid_namespace(tmp_path):
    """Where a process may make one: root's may."""
    unshare = ["unshare", "--pid", "--fork", "--mount-proc"]
    if not shutil.which("unshare") or subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no other PID namespace can be made here")
    read = f"from mindseye.results.run_status import read_status as r; print(r({str(tmp_path)!r}).status)"
    with RunRecord(tmp_path, [], ""):
        seen = subprocess.run([*unshare, sys.executable, "-c", read], capture_output=True, text=True, check=True)
    assert seen.stdout == "running\n"


def test_one_on_another_host_counts_as_dead_after_a_silence(tmp_path):
    write_status(tmp_path, RunStatus(status="running", host="elsewhere", pid=1))
    assert read_status(tmp_path).status == "to be continued"
    (tmp_path / "running.lock").touch()
    assert read_status(tmp_path).status == "running"
    long_ago = time.time() - 600
    os.utime(tmp_path / "running.lock", (long_ago, long_ago))
    assert read_status(tmp_path).status == "to be continued"


@pytest.mark.parametrize(
    "content", ["", "[]", "{", '{"status": "flying"}', '{"status": 3}', '{"overrides": 3}', "null"]
)
def test_a_damaged_status_is_none(content, tmp_path):
    (tmp_path / "status.json").write_text(content)
    assert read_status(tmp_path) == RunStatus()


def test_a_sweep_is_counted_and_its_time_left_guessed(tmp_path):
    cells = add_cells(tmp_path, [(f"k={k}",) for k in range(6)], [], "")
    assert read_sweep(tmp_path).seconds_left() is None
    now = time.time()
    for cell, status in zip(
        cells,
        [
            RunStatus(status="completed", seconds=10),
            RunStatus(status="completed", seconds=30),
            RunStatus(status="failed", reason="why"),
            RunStatus(status="to be continued"),
            RunStatus(status="running", host=HERE, pid=os.getpid(), started=now - 15),
        ],
        strict=False,
    ):
        write_status(tmp_path / cell.folder, status)
    (tmp_path / cells[4].folder / "running.lock").touch()
    for cell in cells[:2]:
        (tmp_path / cell.folder / "metrics.json").write_text("{}")
    sweep = read_sweep(tmp_path)
    assert sweep.counts() == {"waiting": 1, "running": 1, "completed": 2, "failed": 1, "to be continued": 1}
    # The median of the completed is 20 s: 5 s of the running one are left, and two whole ones, one at a time.
    assert sweep.seconds_left(now) == pytest.approx(5 + 2 * 20)
    assert [cell.id for cell in sweep.unfinished()] == [cells[3].id, cells[5].id]


def test_a_folder_without_a_sweep_costs_one_line(tmp_path):
    with pytest.raises(ValueError, match="holds no sweep"):
        read_sweep(tmp_path)

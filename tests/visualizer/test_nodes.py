"""What the tasks of several nodes say to one another, and what ends them all. Threads play the nodes."""

import signal
import threading
from pathlib import Path

import pytest

from mindseye.settings import Running
from mindseye.signals import Interrupted
from mindseye.visualizer import nodes
from mindseye.visualizer.devices import count_processes
from mindseye.visualizer.nodes import STAGES, Elsewhere, Node, Task, check_alone, joined, task_of

TASK = {"SLURM_JOB_ID": "12", "SLURM_STEP_ID": "0", "SLURM_PROCID": "1"}
STEP = {**TASK, "SLURM_STEP_NUM_NODES": "2", "SLURM_STEP_NUM_TASKS": "2"}


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    for name in ("LOOK_S", "BEAT_S"):
        monkeypatch.setattr(nodes, name, 0.02)
    monkeypatch.setattr(nodes, "LEAVE_S", 0.2)


def node(folder, number, of=2, start="12.0.0"):
    return Node(folder, Task(number, of, start))


class Played(threading.Thread):
    """A node in a thread: what it returned or raised is `came`."""

    def __init__(self, play):
        super().__init__(daemon=True)
        self.play = play
        self.start()

    def run(self):
        try:
            self.came = self.play()
        except BaseException as error:
            self.came = error

    def end(self):
        self.join(20)
        return self.came


def test_a_task_is_what_srun_says():
    assert task_of(2, STEP) == Task(1, 2, "12.0.0")
    assert task_of(2, {**STEP, "SLURM_RESTART_COUNT": "3"}).start == "12.0.3"  # of a job that was queued again


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({}, "this is no task of a Slurm allocation"),
        ({**TASK, "SLURM_NNODES": "2"}, "Slurm has started 1 task on 2 nodes"),  # of sbatch, without srun
        ({**STEP, "SLURM_STEP_NUM_TASKS": "4"}, "Slurm has started 4 tasks on 2 nodes"),
        ({**STEP, "SLURM_STEP_NUM_NODES": "1"}, "Slurm has started 2 tasks on 1 node"),
        ({**TASK, "SLURM_NNODES": "3", "SLURM_STEP_NUM_TASKS": "2"}, "Slurm has started 2 tasks on 3 nodes"),
    ],
)
def test_any_other_is_one_line_that_says_how(environment, said):
    with pytest.raises(ValueError, match=rf"^nodes=2: {said}: srun -N2 --ntasks-per-node=1 .*nodes=1 draws") as raised:
        task_of(2, environment)
    assert "\n" not in str(raised.value)


def test_several_tasks_for_the_devices_of_one_run_are_one_line():
    for name in ("SLURM_STEP_NUM_TASKS", "WORLD_SIZE"):
        environment = {name: "2"}
        with pytest.raises(ValueError, match=rf"^devices=2: one task draws on all 2 devices .*2 tasks \({name}\)"):
            check_alone(2, environment)
        check_alone(1, environment)  # packed tasks
    check_alone(2, {"SLURM_STEP_NUM_TASKS": "1", "WORLD_SIZE": "1", "SLURM_NTASKS": "4"})


def test_a_run_of_one_node_joins_nobody_and_several_need_a_folder(tmp_path, monkeypatch):
    with joined(1, None) as nobody:
        assert nobody is None
    with pytest.raises(ValueError, match=r"^nodes=2: the nodes meet in a folder .*folder=…"), joined(2, None):
        pass
    for name, value in {**STEP, "SLURM_PROCID": "0"}.items():
        monkeypatch.setenv(name, value)
    with joined(2, tmp_path) as one, joined(2, str(tmp_path)) as other:
        assert one is other
    assert Running().nodes == 1


def test_nodes_share_out_all_processes_and_devices(monkeypatch):
    for processes in range(1, 9):
        for of in range(1, 5):
            shares = [node(Path("unused"), number, of).share(processes) for number in range(of)]
            assert [part for share in shares for part in share] == list(range(processes))
    assert count_processes(2, 8, "cpu", nodes=3) == 6
    assert count_processes(2, 3, "cpu", nodes=4) == 3
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert count_processes(2, 8, "cuda", nodes=2) == 4  # of two GPUs here
    with pytest.raises(ValueError, match=r"^devices must be at most 2, not 3"):
        count_processes(3, 8, "cuda", nodes=2)


def test_all_go_through_the_stages_together_and_nothing_is_left(tmp_path):
    """Three nodes: nobody begins to draw before the first has looked at the checkpoint."""
    looked, began = [], []

    def play(number):
        with node(tmp_path / "fit", number, 3) as own:
            own.agree("key", lambda: looked.append(number))
            began.append(list(looked))
            for stage in ("drawn", "read"):
                own.say(stage)
                own.wait(stage)
            own.say("ready")  # long past
            return own.hear(number).state

    players = [Played(lambda number=number: play(number)) for number in (2, 1, 0)]
    assert [player.end() for player in players] == ["read"] * 3
    assert looked == [0]
    assert began == [[0]] * 3
    assert not (tmp_path / "fit").exists()


def test_who_would_draw_something_else_is_told_so_and_ends_all(tmp_path):
    def play(number, key):
        with node(tmp_path, number) as own:
            own.agree(key, lambda: None)
            own.wait("drawn")

    other, first = Played(lambda: play(1, "another")), Played(lambda: play(0, "one"))
    assert isinstance(other.end(), ValueError)
    assert "would draw something else than the first node" in str(other.came)
    assert isinstance(first.end(), Elsewhere)
    assert str(first.came).startswith("node 1 (")
    assert str(other.came) in str(first.came)


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (ValueError("no memory for one facet"), Elsewhere, "): no memory for one facet"),
        (Interrupted(signal.SIGUSR1, 7), Interrupted, "SIGUSR1"),
        (KeyboardInterrupt(), KeyboardInterrupt, ""),
    ],
)
def test_what_ends_one_ends_the_others_and_who_only_follows_is_not_named(tmp_path, error, kind, said):
    def wait(number):
        with node(tmp_path, number, 3) as own:
            own.wait("drawn")

    def fail():
        with node(tmp_path, 2, 3):
            raise error

    first, second, third = Played(lambda: wait(0)), Played(lambda: wait(1)), Played(fail)
    assert third.end() is error
    for player in (first, second):
        assert isinstance(player.end(), kind)
        assert str(player.came).endswith(said)
        assert "node 0" not in str(player.came)
        assert "node 1" not in str(player.came)


def test_a_node_without_a_sign_of_life_is_gone_but_one_that_has_drawn_may_be(tmp_path, monkeypatch):
    killed = node(tmp_path, 1)
    killed.place.mkdir(parents=True)
    killed._file(1, "lock").write_text("as its owner left it")
    killed.say("drawing")
    monkeypatch.setattr(nodes, "SILENCE_S", 0.2)
    with pytest.raises(Elsewhere, match=r"^node 1 \(.+\) is gone: no sign of life"), node(tmp_path, 0) as first:
        first.wait("drawn")
    killed.say("drawn")
    with node(tmp_path, 0) as first:
        assert first.wait("drawn")[0].state == "drawn"
        assert first.ended("drawn") is None


def test_a_living_node_may_take_longer_than_any_silence(tmp_path, monkeypatch):
    monkeypatch.setattr(nodes, "SILENCE_S", 0.3)
    leave = threading.Event()

    def draw():
        with node(tmp_path, 1) as own:
            leave.wait(1.5)
            own.say("drawn")
            leave.wait(20)

    player = Played(draw)
    with node(tmp_path, 0) as first:
        assert first.wait("drawn")[0].state == "drawn"
        leave.set()
    assert player.end() is None


def test_a_task_that_never_begins_is_not_waited_for_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(nodes, "COME_S", 0.2)
    with pytest.raises(Elsewhere, match=r"^node 1 has not begun within"), node(tmp_path, 0) as first:
        first.wait("ready")


def test_what_was_said_in_an_earlier_start_is_not_heard(tmp_path):
    """Of a job that was preempted and queued again; nor is what is no word of a node's."""
    earlier = node(tmp_path, 1, start="12.0.0")
    earlier.place.mkdir(parents=True)
    for stage in (*STAGES, "failed"):
        earlier.say(stage)
        assert node(tmp_path, 0, start="12.0.1").hear(1) is None
    other = b'{"start": "12.0.1", "state": "x", "text": "", "host": ""}'
    for content in (b"", b"[]", b'{"start": "12.0.1"}', b"\xff", other):
        earlier._file(1, "json").write_bytes(content)
        assert node(tmp_path, 0, start="12.0.1").hear(1) is None


def test_two_processes_are_not_the_same_node(tmp_path):
    again = node(tmp_path, 1)
    with node(tmp_path, 1), pytest.raises(ValueError, match=r"^another process is at work as node 1 of 2"):
        again.__enter__()

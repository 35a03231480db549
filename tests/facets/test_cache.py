import importlib.util
import json
import logging
import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch
from filelock import SoftFileLease
from PIL import Image
from torch import nn

from mindseye import leases
from mindseye.facets import content as content_module
from mindseye.facets import discover_facets, discovery, grouping, load_photographs, photographs
from mindseye.facets import survey as survey_module
from mindseye.facets.cache import Cache, address, default_folder
from mindseye.facets.survey import Passing, survey
from mindseye.leases import put_aside, signs_of_life
from mindseye.networks import CallableSource, Network
from mindseye.networks.architecture import architecture
from mindseye.networks.preparing import prepare
from mindseye.provenance import code_of
from mindseye.settings import Facets

KEY = {"n": 1, "name": "ä"}


def make(value=1.0):
    return {"x": torch.full((100,), value), "i": torch.arange(6).reshape(2, 3)}


def forbidden():
    raise AssertionError("made although it is kept")


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path / "cache", 10**6)


def files(cache):
    return sorted(path.name for path in cache.folder.iterdir())


def entry(cache, key=KEY):
    return cache.folder / f"mindseye-{address('test', key)}.safetensors"


# ---- the store -------------------------------------------------------------------------------------------------


def test_made_once_and_read_back_as_it_was(cache):
    first = cache.fetch("test", KEY, make)
    again = Cache(cache.folder, 10**6).fetch("test", dict(reversed(KEY.items())), forbidden)
    assert (first.made, again.made) == (True, False)
    assert again.tensors.keys() == first.tensors.keys()
    for name, tensor in first.tensors.items():
        assert torch.equal(again.tensors[name], tensor)
        assert again.tensors[name].dtype == tensor.dtype
    assert files(cache) == [entry(cache).name]  # neither lock nor scratch file is left
    (cache.folder / "any").touch()
    assert entry(cache).stat().st_mode == (cache.folder / "any").stat().st_mode  # a group may share it, or may not


def test_another_kind_or_key_is_another_entry(cache):
    for kind, key in (("test", KEY), ("other", KEY), ("test", {"n": 2}), ("test", {}), ("", {})):
        assert cache.fetch(kind, key, make).made
    with pytest.raises(TypeError):
        cache.fetch("test", {"x": object()}, make)
    with pytest.raises(ValueError, match="JSON"):
        cache.fetch("test", {"x": float("nan")}, make)


def test_names_cannot_leave_the_folder(cache, tmp_path):
    for hostile in ("../../etc/passwd", "/etc/passwd", "a\0b", "..", "x" * 5000):
        assert cache.fetch(hostile, {hostile: hostile}, make).made
        assert not cache.fetch(hostile, {hostile: hostile}, forbidden).made
    assert all(re.fullmatch(r"mindseye-[0-9a-f]{64}\.safetensors", name) for name in files(cache))
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


def test_what_make_raises_goes_through_and_nothing_is_kept(cache):
    def fail():
        raise OSError("the photographs' disk, not the cache's")

    with pytest.raises(OSError, match="photographs"):
        cache.fetch("test", KEY, fail)
    assert files(cache) == []
    assert cache.fetch("test", KEY, make).made


def test_every_flipped_bit_is_seen_and_the_entry_made_again(cache, caplog):
    cache.fetch("test", KEY, make)
    whole = entry(cache).read_bytes()
    for place in [*range(0, len(whole), 7), len(whole) - 1]:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        entry(cache).write_bytes(damaged)
        assert cache.fetch("test", KEY, make).made, place
        assert not cache.fetch("test", KEY, forbidden).made
    assert "is damaged" in caplog.text
    for torn in (b"", whole[:5], whole[:300], whole[:-1], whole + b"x"):
        entry(cache).write_bytes(torn)
        assert cache.fetch("test", KEY, make).made
    entry(cache).rename(entry(cache, {"n": 2}))  # whole, but at another address
    assert cache.fetch("test", {"n": 2}, make).made


def test_what_was_used_last_stays(cache):
    for n in range(4):
        cache.fetch("test", {"n": n}, make)
    size = entry(cache, {"n": 0}).stat().st_size
    now = time.time()
    for n in range(4):
        os.utime(entry(cache, {"n": n}), (now - 100 + n, now - 100 + n))
    cache.fetch("test", {"n": 0}, forbidden)  # now it is the one used last
    cache.limit_bytes = 3 * size
    cache.fetch("test", {"n": 4}, make)
    assert [n for n in range(5) if entry(cache, {"n": n}).exists()] == [0, 3, 4]


def test_what_was_just_made_or_read_is_not_evicted(cache):
    cache.limit_bytes = 1000  # one entry
    for n in range(3):
        cache.fetch("test", {"n": n}, make)
    assert all(entry(cache, {"n": n}).exists() for n in range(3))


def test_an_entry_larger_than_the_limit_is_not_kept(cache, caplog):
    cache.limit_bytes = 100
    with caplog.at_level(logging.INFO):
        assert cache.fetch("test", KEY, make).made
    assert "larger than the limit" in caplog.text
    assert files(cache) == []


@pytest.mark.parametrize("folder", ["a file", "below a file", "/proc/no/such"])
def test_a_folder_that_cannot_be_written_costs_one_warning(folder, tmp_path, caplog):
    (tmp_path / "file").write_text("not a folder")
    place = {"a file": tmp_path / "file", "below a file": tmp_path / "file" / "cache"}.get(folder, folder)
    cache = Cache(place, 10**6)
    for n in range(3):
        assert torch.equal(cache.fetch("test", {"n": n}, make).tensors["x"], make()["x"])
    assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) == 1
    assert "going on without it" in caplog.text
    assert (tmp_path / "file").read_text() == "not a folder"


FULL = """
import resource, sys, logging, torch
from mindseye.facets.cache import Cache
logging.basicConfig(format="%(message)s")
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))  # as on a full disk, a write ends in the middle
cache = Cache(sys.argv[1], 10**9)
for n in range(2):
    print(cache.fetch("test", {"n": n}, lambda: {"x": torch.ones(100_000)}).tensors["x"].sum().item())
"""


def test_a_full_disk_costs_one_warning(tmp_path):
    done = python(FULL, tmp_path / "cache")
    out, err = done.communicate(timeout=120)
    assert out.split() == ["100000.0"] * 2, err
    assert len(err.strip().splitlines()) == 1
    assert "going on without it" in err
    assert list((tmp_path / "cache").iterdir()) == []


def test_clear_deletes_what_the_cache_has_written_and_nothing_else(cache):
    cache.fetch("test", KEY, make)
    name = entry(cache).stem
    (cache.folder / f"{name}.0123456789abcdef.part").write_bytes(b"x" * 10)  # left by a killed process
    (cache.folder / f"{name}.lock").write_text("left by a killed process")
    os.utime(cache.folder / f"{name}.lock", (0, 0))
    size = entry(cache).stat().st_size
    mine = ["notes.txt", "model.safetensors", f"{'a' * 64}.safetensors", "mindseye-1.safetensors"]
    for other in mine:
        (cache.folder / other).write_text("mine")
    (cache.folder / f"mindseye-{'b' * 64}.safetensors").symlink_to(cache.folder / "notes.txt")
    assert cache.clear() == (1, size + 10)
    assert files(cache) == sorted([*mine, f"mindseye-{'b' * 64}.safetensors"])
    assert cache.clear() == (0, 0)


def test_the_folder_is_named_by_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("MINDSEYE_CACHE", str(tmp_path))
    assert default_folder() == tmp_path
    monkeypatch.setenv("MINDSEYE_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    if sys.platform == "linux":
        assert default_folder() == tmp_path / "xdg" / "mindseye"


# ---- several entries at once -----------------------------------------------------------------------------------

MANY = {name: {"n": n} for n, name in enumerate("abcd")}


def made_together(asked, values=MANY):
    """What `fill` calls: notes the names it was asked for, and makes each entry as `make` makes it alone."""

    def make_them(missing):
        asked.append(missing)
        for name in missing:
            yield name, make(float(values[name]["n"]))

    return make_them


def test_entries_made_together_are_those_made_one_by_one(cache, tmp_path):
    alone, asked = Cache(tmp_path / "alone", 10**6), []
    cache.fetch("test", MANY["b"], lambda: make(1.0))
    cache.fill("test", MANY, made_together(asked))
    cache.fill("test", MANY, made_together(asked))
    assert asked == [["a", "c", "d"]]
    for key in MANY.values():
        alone.fetch("test", key, lambda key=key: make(float(key["n"])))
        together = cache.fetch("test", key, forbidden).tensors
        for name, tensor in alone.fetch("test", key, forbidden).tensors.items():
            assert torch.equal(tensor, together[name])
    assert files(cache) == files(alone)
    assert sorted((entry.kind, entry.key["n"]) for entry in cache.entries()) == [("test", n) for n in range(4)]


def test_torn_entries_are_made_again_together_too(cache, caplog):
    asked = []
    cache.fill("test", MANY, made_together([]))
    whole = entry(cache, MANY["a"]).read_bytes()
    for torn in (b"", whole[:5], whole[:300], whole[:-1], whole + b"x", b"\xff" * 500):
        entry(cache, MANY["a"]).write_bytes(torn)
        cache.fill("test", MANY, made_together(asked))
        assert asked.pop() == ["a"]
        assert not cache.fetch("test", MANY["a"], forbidden).made
    entry(cache, MANY["b"]).rename(entry(cache, MANY["c"]))  # whole, but at another address
    cache.fill("test", MANY, made_together(asked))
    assert asked == [["b", "c"]]
    assert "is damaged" in caplog.text
    damaged = bytearray(entry(cache, MANY["d"]).read_bytes())
    damaged[-1] ^= 1  # within: who reads it sees it
    entry(cache, MANY["d"]).write_bytes(damaged)
    cache.fill("test", MANY, made_together(asked))
    assert cache.fetch("test", MANY["d"], make).made


def test_what_was_made_before_an_error_is_kept(cache):
    def fail(missing):
        yield "c", make(2.0)
        raise OSError("the photographs' disk, not the cache's")

    with pytest.raises(OSError, match="photographs"):
        cache.fill("test", MANY, fail)
    assert files(cache) == [entry(cache, MANY["c"]).name]
    cache.fill("test", MANY, lambda missing: [("a", make(0.0))])  # who gives less than is missing leaves the rest
    assert files(cache) == sorted(entry(cache, MANY[name]).name for name in "ac")


@pytest.mark.parametrize("folder", ["file", "file/cache", "/proc/no/such"])
def test_nothing_is_made_for_a_folder_that_cannot_be_written(folder, tmp_path, caplog):
    (tmp_path / "file").write_text("not a folder")
    asked = []
    Cache(tmp_path / folder, 10**6).fill("test", MANY, made_together(asked))
    assert asked == []
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "going on without it" in caplog.text


def test_entries_that_are_there_count_as_used(cache):
    cache.fill("test", MANY, made_together([]))
    for key in MANY.values():
        os.utime(entry(cache, key), (1000, 1000))
    cache.fill("test", {"a": MANY["a"]}, made_together([]))
    assert [n for n in range(4) if entry(cache, {"n": n}).stat().st_mtime > 1000] == [0]


# ---- many processes --------------------------------------------------------------------------------------------

ASK = """
import logging, os, sys, time
import torch
from mindseye.facets.cache import Cache
logging.basicConfig(format="%(message)s")
folder, record, gate, slow = sys.argv[1:]

def make():
    with open(record, "a") as file:
        file.write(f"{os.getpid()}\\n")
    with open(record) as file:
        time.sleep(120 if len(file.readlines()) <= int(slow) else 2)
    return {"x": torch.arange(100_000)}

print("ready", flush=True)
while not os.path.exists(gate):
    time.sleep(0.01)
found = Cache(folder, 10**9).fetch("test", {}, make)
print(int(found.made), found.tensors["x"].sum().item())
"""


def python(script, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


@contextmanager
def asking(tmp_path, count, slow=0):
    """So many processes that ask for one entry at the same moment; the first `slow` who make it take two minutes."""
    record, gate = tmp_path / "record", tmp_path / "gate"
    record.touch()
    processes = [python(ASK, tmp_path / "cache", record, gate, slow) for _ in range(count)]
    try:
        for process in processes:
            assert process.stdout.readline() == "ready\n"
        gate.touch()
        yield processes, record
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


@pytest.mark.parametrize("count", [4, pytest.param(8, marks=pytest.mark.long)])
def test_of_several_processes_one_computes_and_the_others_wait(tmp_path, count):
    with asking(tmp_path, count) as (processes, record):
        outputs = [process.communicate(timeout=120) for process in processes]
    answers = [out.split() for out, _ in outputs]
    assert sorted(made for made, _ in answers) == ["0"] * (count - 1) + ["1"]
    assert {total for _, total in answers} == {str(sum(range(100_000)))}
    [maker] = record.read_text().split()
    waiting = [err for _, err in outputs if err]
    assert waiting  # all of them, but where the machine is so busy that one comes when the entry is there
    assert all(re.fullmatch(rf"waiting for another process \(pid {maker}, .+\) .*\n", err) for err in waiting)
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".safetensors"]


@pytest.mark.long
def test_killed_in_the_middle_they_hold_nobody_up_and_leave_nothing_torn(tmp_path):
    with asking(tmp_path, 6, slow=3) as (processes, record):
        begun = time.monotonic()
        for killed in range(3):
            wait_for(lambda killed=killed: len(record.read_text().splitlines()) == killed + 1)
            [maker] = [process for process in processes if process.pid == int(record.read_text().split()[-1])]
            maker.send_signal(signal.SIGKILL)
            maker.wait()  # until its parent has heard of it, a dead process looks alive
        alive = [process for process in processes if str(process.pid) not in record.read_text().split()[:3]]
        outputs = [process.communicate(timeout=60)[0].split() for process in alive]
        assert time.monotonic() - begun < 20  # a dead process of this host is found out at once
    assert sorted(made for made, _ in outputs) == ["0", "0", "1"]
    assert len(record.read_text().split()) == 4
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".safetensors"]


FILL = """
import json, os, sys, time
import torch
from mindseye.facets.cache import Cache
folder, record, gate, seconds, numbers = sys.argv[1:]

def make(missing):
    for name in missing:
        with open(record, "a") as file:
            file.write(f"{os.getpid()} {name}\\n")
        time.sleep(float(seconds))
        yield name, {"x": torch.full((10_000,), int(name))}

print("ready", flush=True)
while not os.path.exists(gate):
    time.sleep(0.01)
cache = Cache(folder, 10**9)
keys = {str(n): {"n": n} for n in json.loads(numbers)}
cache.fill("test", keys, make)
print(*[int(cache.fetch("test", key, lambda: {}).tensors["x"][0]) for key in keys.values()])
"""


@contextmanager
def filling(tmp_path, *sets, seconds=0.2):
    """A process for each set of numbers, all of which see to their entries from the same moment on."""
    record, gate = tmp_path / "record", tmp_path / "gate"
    record.touch()
    processes = [python(FILL, tmp_path / "cache", record, gate, seconds, json.dumps(numbers)) for numbers in sets]
    try:
        for process in processes:
            assert process.stdout.readline() == "ready\n"
        gate.touch()
        yield processes, record
    finally:
        for process in processes:
            process.kill()
            process.communicate()


@pytest.mark.long
def test_of_eight_processes_with_overlapping_sets_each_entry_is_made_once(tmp_path):
    sets = [[0, 1, 2, 3], [3, 2, 1, 0], [4, 3], [2, 4, 0], [5], [1, 5, 3], [0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0]]
    with filling(tmp_path, *sets) as (processes, record):
        outputs = [process.communicate(timeout=120)[0].split() for process in processes]
    assert outputs == [[str(n) for n in numbers] for numbers in sets]
    assert sorted(line.split()[1] for line in record.read_text().splitlines()) == list("012345")
    assert {path.suffix for path in (tmp_path / "cache").iterdir()} == {".safetensors"}


def test_who_is_killed_among_several_entries_leaves_those_that_are_made(tmp_path):
    with filling(tmp_path, [0, 1, 2], seconds=2) as (processes, record):
        wait_for(lambda: len(record.read_text().splitlines()) == 2)  # at the second of them
        processes[0].send_signal(signal.SIGKILL)
        processes[0].wait()
        first, second = (line.split()[1] for line in record.read_text().splitlines())
        cache, asked = Cache(tmp_path / "cache", 10**9), []
        begun = time.monotonic()
        keys = {str(n): {"n": n} for n in range(4)}
        cache.fill("test", keys, made_together(asked, keys))
        assert time.monotonic() - begun < 15  # a dead process of this host is found out at once
    assert asked == [[name for name in "0123" if name != first]]
    assert second in asked[0]
    assert not cache.fetch("test", keys["3"], forbidden).made
    assert {path.suffix for path in cache.folder.iterdir()} == {".safetensors"}


def left_by_another_host(cache):
    """A lock as a process on another host leaves it that was killed: nobody here can ask whether that one lives."""
    lock = cache.folder / f"{entry(cache).stem}.lock"
    cache.folder.mkdir()
    holder = SoftFileLease(lock, lease_duration=cache.lease_s)
    holder.acquire()
    record = re.sub(r"(host\w*[=: ]*)\S+", r"\1elsewhere", lock.read_text())
    assert "elsewhere" in record
    holder.release()
    lock.write_text(record)
    return lock


@pytest.mark.parametrize("swaps", [True, False], ids=["names can be swapped", "as on NFS"])
def test_a_lock_left_by_another_host_is_taken_over_after_the_lease(swaps, tmp_path, monkeypatch):
    if not swaps:  # there filelock leaves the lock alone
        monkeypatch.setattr(SoftFileLease, "_try_break_stale_lock", lambda lock: None)
    cache = Cache(tmp_path / "cache", 10**6, lease_s=1.0)
    lock = left_by_another_host(cache)
    begun = time.monotonic()
    assert cache.fetch("test", KEY, make).made
    assert 0.9 < time.monotonic() - begun < 10
    assert not lock.exists()


def test_a_lock_that_was_killed_before_it_was_written(tmp_path):
    cache = Cache(tmp_path / "cache", 10**6, lease_s=0.5)
    cache.folder.mkdir()
    (cache.folder / f"{entry(cache).stem}.lock").touch()
    assert cache.fetch("test", KEY, make).made


def test_of_locks_that_cannot_be_removed_one_is_waited_for(tmp_path, monkeypatch, caplog):
    """As those of another user's dead process are, in a folder where everybody may delete his own alone."""
    monkeypatch.setattr(SoftFileLease, "_try_break_stale_lock", lambda lock: None)
    monkeypatch.setattr(leases, "put_aside", lambda lock, judged: None)
    cache = Cache(tmp_path / "cache", 10**6, lease_s=0.5)
    cache.folder.mkdir()
    took = []
    for n in range(3):
        (cache.folder / f"{entry(cache, {'n': n}).stem}.lock").touch()
        begun = time.monotonic()
        assert cache.fetch("test", {"n": n}, make).made
        took.append(time.monotonic() - begun)
    assert took[0] > 0.5
    assert max(took[1:]) < 0.4
    assert sum("cannot be used" in line for line in caplog.messages) == 1


def test_a_lock_that_beats_is_waited_for(tmp_path):
    cache = Cache(tmp_path / "cache", 10**6, lease_s=0.5)
    lock = left_by_another_host(cache)
    done = threading.Event()

    def beat():
        while not done.wait(0.05):
            os.utime(lock)
        lock.unlink()

    threading.Timer(3, done.set).start()  # six leases
    beating = threading.Thread(target=beat)
    beating.start()
    begun = time.monotonic()
    assert cache.fetch("test", KEY, make).made
    assert time.monotonic() - begun > 2.5
    beating.join()


def test_of_two_who_take_over_the_second_puts_the_first_one_s_lock_back(tmp_path):
    lock = tmp_path / "x.lock"
    lock.write_text("dead")
    judged = signs_of_life(str(lock))
    pinned = lock.open()  # so that the number of its inode is not given to the next file
    lock.unlink()
    lock.write_text("the first one's")
    put_aside(lock, judged)
    pinned.close()
    assert [path.read_text() for path in tmp_path.iterdir()] == ["the first one's"]
    put_aside(lock, signs_of_life(str(lock)))
    assert list(tmp_path.iterdir()) == []


def test_scratch_files_of_killed_processes_are_swept(cache):
    cache.folder.mkdir()
    scratch = cache.folder / f"{entry(cache).stem}.0123456789abcdef.part"
    old = cache.folder / f"{entry(cache, {}).stem}.0123456789abcdef.part"
    scratch.write_bytes(b"torn")
    old.write_bytes(b"torn")
    os.utime(old, (0, 0))
    cache.fetch("test", KEY, make)
    assert files(cache) == [entry(cache).name]


# ---- what is cached --------------------------------------------------------------------------------------------


@contextmanager
def counting(network):
    """How many photographs enter the body of a prepared network, which is not prepared again by those who get it.

    An image of one colour is none: it is there to see what the layer gives.
    """
    batches = []

    def enter(body, arguments):
        if isinstance(arguments[0], torch.Tensor) and arguments[0].flatten(2).std(dim=2).any():  # else torch.fx looks
            batches.append(len(arguments[0]))

    handle = network.body.register_forward_pre_hook(enter)
    try:
        yield lambda: sum(batches)
    finally:
        handle.remove()


@pytest.fixture(params=["maps kept", "maps too large"])
def kept(request, monkeypatch):
    """Whether the survey keeps the maps."""
    if request.param == "maps too large":

        def keeping_none(network, photographs, layer, passing, **others):
            return survey(network, photographs, layer, replace(passing, keep_maps=0), **others)

        monkeypatch.setattr(discovery, "survey", keeping_none)
    return request.param == "maps kept"


SETTINGS = Facets(C=3, k=8, N=4)


def test_with_a_cache_and_without_the_same_bytes(kept, cache, network, photographs):
    without = discover_facets(network, photographs, "layer3.0", SETTINGS)
    for _ in range(2):
        targets = discover_facets(network, photographs, "layer3.0", SETTINGS, cache=cache)
        assert targets.content_hash() == without.content_hash()


def test_the_chosen_ones_go_through_it_once_more_for_targets_and_the_way(kept, cache, network, photographs):
    """One pass for both, with the bytes of a look without a cache."""
    without = discover_facets(network, photographs, "layer3.0", SETTINGS)
    assert without.way
    way = tuple(statistics.layer for statistics in without.way[1:])
    network = prepare(network, "layer3.0", way=way)
    with counting(network) as entered:
        targets = discover_facets(network, photographs, "layer3.0", SETTINGS, cache=cache)
        assert entered() == len(photographs) + 3 * 4
        assert targets.content_hash() == without.content_hash()
        assert network.program() is network.program()
        again = discover_facets(network, photographs, "layer3.0", SETTINGS, cache=cache)
        assert again.content_hash() == targets.content_hash()
        assert entered() == len(photographs) + 3 * 4


def test_the_photographs_go_through_the_network_once_in_a_sweep(kept, cache, network, photographs, caplog):
    M, chosen = len(photographs), 3 * 4
    network = prepare(network, "layer3.0")
    with counting(network) as entered:
        discover_facets(network, photographs, "layer3.0", SETTINGS, cache=cache)
        assert entered() == (M if kept else M + chosen)
        for k in (5, 20):  # another k: nothing at all
            with caplog.at_level(logging.INFO):
                discover_facets(network, photographs, "layer3.0", replace(SETTINGS, k=k), cache=cache)
        assert entered() == (M if kept else M + chosen)
        assert "from the cache" in caplog.text
        assert f"of {M} photographs" in caplog.text
        discover_facets(network, photographs, "layer3.0", replace(SETTINGS, C=2), cache=cache)
        assert entered() == (M if kept else M + chosen + 2 * 4)


def test_the_maps_are_kept_by_their_size(network, photographs):
    D, H, W = 96, 6, 6
    size = 4 * len(photographs) * D * H * W
    kept = survey(network, photographs, "layer3.0", Passing(keep_maps=size))
    assert kept.maps.shape == (len(photographs), D, H, W)
    assert torch.allclose(kept.maps.flatten(2).mean(dim=2), kept.means, atol=1e-6)
    other = survey(network, photographs, "layer3.0", Passing(keep_maps=size - 1))
    assert other.maps is None
    assert torch.equal(other.means, kept.means)


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 4, 3)
        self.second = nn.Conv2d(4, 4, 3)

    def forward(self, x):
        return self.second(self.first(x).relu())


@pytest.fixture
def noise(tmp_path):
    folder = tmp_path / "noise"
    (folder / "sub").mkdir(parents=True)
    for i in range(8):
        array = np.random.default_rng(i).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(array).save(folder / "sub" / f"{i}.png")
    return folder


def small():
    return Network(Small(), (0.0,) * 3, (1.0,) * 3, "small", 16)


def look(cache, folder, network=None, layer="second", size=16, black=None, white=None, **settings):
    network = prepare(network or small(), layer)
    with counting(network) as entered:
        photographs = load_photographs(folder, size, 3, black, white)
        seen = survey(network, photographs, layer, Passing(**settings), cache=cache)
        return entered(), seen


def test_what_changes_is_looked_at_anew(cache, noise):
    assert look(cache, noise)[0] == 8
    assert look(cache, noise)[0] == 0
    other = small()
    other.body.first.bias.data[0] += 1e-3
    assert look(cache, noise, other)[0] == 8
    assert look(cache, noise, Network(Small(), (0.1,) * 3, (1.0,) * 3, "small", 16))[0] == 8
    assert look(cache, noise, layer="first")[0] == 8
    assert look(cache, noise, size=12)[0] == 8
    assert look(cache, noise, black=0, white=200)[0] == 8
    assert look(cache, noise, black=0, white=200)[0] == 0
    assert look(cache, noise, batch_size=3)[0] == 8
    assert look(cache, noise, keep_maps=0)[0] == 8
    content = (noise / "sub" / "3.png").read_bytes()
    Image.new("RGB", (16, 16)).save(noise / "sub" / "3.png")
    assert look(cache, noise)[0] == 8
    (noise / "sub" / "3.png").write_bytes(content)
    assert look(cache, noise)[0] == 0
    (noise / "sub" / "8.png").write_bytes(content)
    assert look(cache, noise)[0] == 9
    (noise / "sub" / "3.png").rename(noise / "sub" / "9.png")  # the order changes
    assert look(cache, noise)[0] == 9


def test_other_names_and_folders_of_the_same_files_are_named_rightly(cache, noise, tmp_path):
    look(cache, noise)
    (noise / "sub").rename(noise / "renamed")
    noise.rename(tmp_path / "elsewhere")
    entered, seen = look(cache, tmp_path / "elsewhere")
    assert entered == 0
    assert seen.photographs.root == tmp_path / "elsewhere"
    assert seen.photographs.paths == tuple(f"renamed/{i}.png" for i in range(8))


def test_unreadable_files_are_named_by_a_recalled_survey_too(cache, noise, tmp_path, caplog):
    (noise / "sub" / "4a.png").write_bytes(b"no picture")
    first = look(cache, noise)[1]
    noise.rename(tmp_path / "elsewhere")
    caplog.clear()
    entered, again = look(cache, tmp_path / "elsewhere")
    assert entered == 0
    assert again.recalled
    assert again.photographs.paths == first.photographs.paths
    [skipped] = again.photographs.skipped
    assert skipped.path == "sub/4a.png"
    assert str(noise) not in skipped.reason
    assert "4a.png" in caplog.text


def test_a_file_that_could_not_be_read_for_once_is_not_lost_for_ever(cache, noise, monkeypatch):
    read = photographs.read_photograph

    def fails(path, *asked, **further):
        if path.name == "2.png":
            raise photographs.UnreadablePhotograph("OSError: [Errno 5] Input/output error")
        return read(path, *asked, **further)

    with monkeypatch.context() as patch:
        patch.setattr(photographs, "read_photograph", fails)
        assert len(look(cache, noise)[1].means) == 7
    entered, seen = look(cache, noise)
    assert entered == len(seen.means) == 8


BODY = """
from torch import nn

class Body(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        return {}
"""


def test_a_network_that_computes_otherwise_with_the_same_weights(tmp_path):
    architectures = []
    for code in ("self.conv(x)", "self.conv(x)", "self.conv(x).relu()"):
        (tmp_path / "body.py").write_text(BODY.format(code))
        spec = importlib.util.spec_from_file_location("body", tmp_path / "body.py")
        sys.modules["body"] = module = importlib.util.module_from_spec(spec)
        sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
        spec.loader.exec_module(module)
        sys.dont_write_bytecode = before
        architectures.append(architecture(module.Body()))
    del sys.modules["body"]
    assert architectures[0] == architectures[1] != architectures[2]
    assert architecture(nn.Sequential(nn.Conv2d(3, 4, 3))) != architecture(nn.Sequential(nn.Conv2d(3, 4, 3, 2)))
    assert architecture(torch.fx.symbolic_trace(Small())) != architecture(Small())
    assert architecture(Small().to(memory_format=torch.channels_last)) != architecture(Small())
    assert architecture(Small().double()) != architecture(Small())
    # a Network prints one line, and so may a module of somebody's own
    bodies = [nn.Sequential(nn.Conv2d(3, 4, 3), end) for end in (nn.Tanh(), nn.Sigmoid())]
    tanh, sigmoid = (architecture(Network(body, [0.5] * 3, [0.5] * 3, "own")) for body in bodies)
    assert tanh != sigmoid


def test_another_way_to_read_files_is_another_key(cache, noise, monkeypatch, tmp_path):
    changed = tmp_path / "photographs.py"
    changed.write_text("# reads otherwise")
    assert code_of(photographs.__file__) == code_of(photographs.__file__) != code_of(str(changed))
    look(cache, noise)
    monkeypatch.setattr(survey_module, "_CODE", code_of(str(changed)))
    assert look(cache, noise)[0] == 8


def test_a_file_edited_after_it_was_imported_changes_nothing(tmp_path):
    (tmp_path / "body.py").write_text(BODY.format("self.conv(x)"))
    network = CallableSource(f"{tmp_path}/body.py:Body", mean=[0] * 3, std=[1] * 3, size=16).load()
    before = architecture(network.body)
    (tmp_path / "body.py").write_text(BODY.format("self.conv(x).relu()"))
    assert architecture(network.body) == before
    again = CallableSource(f"{tmp_path}/body.py:Body", mean=[0] * 3, std=[1] * 3, size=16).load()
    assert architecture(again.body) != before


def test_the_embedding_is_kept_by_its_settings(cache, network, photographs, monkeypatch):
    calls = []
    real = grouping.embed
    monkeypatch.setattr(grouping, "embed", lambda *a, **settings: calls.append(settings) or real(*a, **settings))
    for other in ({}, {"C": 2}, {"N": 3}, {"k": 3}, {"weighting": "published"}, {"selection": "farthest"}):
        discover_facets(network, photographs, "layer3.0", replace(SETTINGS, **other), cache=cache)
    assert len(calls) == 1
    for other in ({"perplexity": 3.0}, {"components": 3}, {"seed": 1}, {"batch_size": 5}):  # each another embedding
        discover_facets(network, photographs, "layer3.0", replace(SETTINGS, **other), cache=cache)
    assert len(calls) == 5


def test_nothing_wrong_is_kept(cache, noise):
    broken = small()
    broken.body.first.weight.data[0] = float("nan")
    for _ in range(2):
        with pytest.raises(ValueError, match="NaN"):
            look(cache, noise, broken)
    assert files(cache) == []


def test_progress_ends_where_the_photographs_do(cache, noise):
    for _ in range(2):
        counts = []
        tell = lambda done, total, counts=counts: counts.append((done, total))  # noqa: E731
        survey(small(), load_photographs(noise, 16), "second", Passing(progress=tell), cache=cache)
        assert counts[-1] == (8, 8)


def test_an_entry_says_what_it_is_of(cache, network, photographs):
    discover_facets(network, photographs, "layer3.0", SETTINGS, cache=cache)
    of = {entry.kind: entry.key for entry in cache.entries()}
    assert set(of) == {"survey", "embedding", "clusters", "way"}
    for key in (of["survey"], of["embedding"]["survey"]):
        assert (key["network"]["name"], key["layer"], key["photographs"]["count"]) == ("demo", "layer3.0", 24)
    json.dumps(of)


@pytest.fixture
def pictures(tmp_path):
    """24 noisy photographs, and the bytes of the first 12 of them when they are others."""
    folder, others = tmp_path / "pictures", {}
    folder.mkdir()
    for i in range(36):
        array = np.random.default_rng(i).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        path = folder / f"{i % 24:02d}.png"
        before = path.read_bytes() if path.exists() else None
        Image.fromarray(array).save(path)
        if before is not None:
            others[path] = path.read_bytes()
            path.write_bytes(before)
    return folder, others


def found(folder, cache=None):
    return discover_facets(small(), load_photographs(folder, 16), "second", Facets(C=2, k=2, N=3), cache=cache)


@pytest.mark.parametrize("moment", ["_look", "choose"])
def test_photographs_that_change_while_they_are_read_are_told_and_leave_nothing(
    kept, moment, cache, pictures, monkeypatch, caplog
):
    folder, others = pictures
    before = {path: path.read_bytes() for path in others}
    where = survey_module if moment == "_look" else discovery
    original = getattr(where, moment)

    def swap(*arguments, **named):
        answer = original(*arguments, **named) if moment == "choose" else None
        for path, content in others.items():
            status = path.stat()
            path.write_bytes(content.ljust(len(before[path])))
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # as copying tools do
        return original(*arguments, **named) if answer is None else answer

    with monkeypatch.context() as patch:
        patch.setattr(where, moment, swap)
        wrong = found(folder, cache)
    assert wrong.content == ""
    [warning] = [line for line in caplog.messages if "changed while" in line]
    assert ".png" in warning
    for path, content in before.items():
        path.write_bytes(content)
    right = found(folder, cache)
    assert right.content_hash() == found(folder).content_hash()
    assert right.content_hash() != wrong.content_hash()
    assert right.content == content_module.content_of(load_photographs(folder, 16)).sha256(load_photographs(folder, 16))


def test_files_that_only_look_as_if_they_had_changed_are_kept(cache, pictures, monkeypatch):
    """Their bytes are the same: touched, copied anew, linked. Of the others none is read again."""
    folder, _ = pictures
    listed = load_photographs(folder, 16)
    content = content_module.content_of(listed)
    hashed = []
    original = content_module._hashed
    monkeypatch.setattr(content_module, "_hashed", lambda path: (hashed.append(path.name), original(path))[1])
    assert content_module.changed_since(content, listed) == []
    assert content_module.content_of(load_photographs(folder, 32)) == content  # as for a judge of another size
    assert hashed == []
    os.utime(folder / "03.png")
    same = (folder / "05.png").read_bytes()
    (folder / "05.png").unlink()
    (folder / "05.png").write_bytes(same)
    assert content_module.changed_since(content, listed) == []
    assert sorted(hashed) == ["03.png", "05.png"]
    assert content_module.content_of(listed).hashes == content.hashes
    assert sorted(hashed[2:]) == ["03.png", "05.png"]
    (folder / "07.png").unlink()
    assert content_module.changed_since(content, listed) == ["07.png"]
    assert content_module.changed_since(content, listed, [3, 5]) == []


def test_layers_looked_at_together_while_photographs_change_leave_nothing(cache, pictures, monkeypatch, caplog):
    folder, others = pictures
    original = survey_module._look

    def swap(*arguments, **named):
        for path, content in others.items():
            path.write_bytes(content)
        return original(*arguments, **named)

    monkeypatch.setattr(survey_module, "_look", swap)
    survey_module.survey_together(small(), load_photographs(folder, 16), ["first", "second"], cache=cache)
    assert cache.entries() == []
    assert "changed while" in caplog.text


def test_a_photograph_that_goes_after_it_was_looked_at_is_named(pictures, monkeypatch):
    folder, _ = pictures
    original = discovery.choose

    def choose(*arguments, **named):
        chosen, distances = original(*arguments, **named)
        (folder / f"{int(chosen[0, 0]):02d}.png").unlink()
        return chosen, distances

    monkeypatch.setattr(discovery, "choose", choose)
    with pytest.raises(ValueError, match=rf"{folder}/\d\d.png was looked at and cannot be read any more: No such file"):
        found(folder)


def test_many_files_are_hashed_in_bounded_memory(cache, noise, monkeypatch):
    """Never more than a small piece of a file at once: 4 threads hash 64 MB in much less."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for i in range(4):
        with open(noise / f"{i}.png", "wb") as file:
            file.truncate(16 * 2**20)
    content_module.content_of(load_photographs(noise, 16))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 16 * 1024


def test_an_entry_is_a_safetensors_file(tmp_path):
    """Anybody's reader opens it, whatever kinds of numbers lie beside one another."""
    from safetensors.torch import load_file

    tensors = {
        "odd": torch.arange(3, dtype=torch.uint8), "means": torch.randn(4, 5), "half": torch.randn(3).half(),
        "index": torch.arange(7), "none": torch.zeros(0, 3), "yes": torch.tensor([True, False]),
        "scalar": torch.tensor(2.5), "double": torch.randn(2, dtype=torch.float64),
    }  # fmt: skip
    cache = Cache(tmp_path, 10**6)
    cache.fetch("survey", {"a": 1}, lambda: tensors)
    [file] = tmp_path.glob("*.safetensors")
    again = Cache(tmp_path, 10**6).fetch("survey", {"a": 1}, lambda: pytest.fail("it is there"))
    for read in (load_file(file), again.tensors):
        assert set(read) == set(tensors)
        for name, tensor in tensors.items():
            assert torch.equal(read[name], tensor), name
            assert read[name].dtype == tensor.dtype


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of memory is read from /proc")
def test_keeping_and_recalling_take_no_second_copy(tmp_path):
    """Means of 100,000 photographs at 2,048 channels are 0.8 GB: twice as much has no place in 2 GiB."""
    script = (
        "import sys, torch\nfrom mindseye.facets.cache import Cache\n"
        "peak = lambda: next(int(line.split()[1]) for line in open('/proc/self/status') if line.startswith('VmHWM'))\n"
        "cache = Cache(sys.argv[1], 10**9)\n"
        "make = lambda: {'means': torch.ones(16, 2**20)}\n"
        "cache.fetch('small', {}, lambda: {'a': torch.ones(3)})\n"
        "before = peak()\ncache.fetch('survey', {}, make)\nprint(peak() - before)"
    )
    grown = []
    for _ in range(2):  # made and kept, then recalled
        done = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, text=True, check=True)
        grown.append(int(done.stdout))
    assert 60_000 < max(grown) < 1.3 * 65_536, grown  # kB: 64 MiB once

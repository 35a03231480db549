"""What a machine does to a run: kills at any moment, full and read-only disks, eight jobs that need the same."""

import hashlib
import io
import json
import os
import random
import shutil
import subprocess
import sys
import time

import pyarrow.parquet as pq
import pytest
import torch
import warm
import yaml
from PIL import Image
from safetensors.torch import load as load_tensors

from mindseye.facets import discover_facets, load_photographs
from mindseye.facets.cache import Cache
from mindseye.networks import demo_network
from mindseye.results.run_status import read_status
from mindseye.settings import Facets

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks, kills and mounts as Linux does")

# The command, but that its state may be saved after every ten steps, so that a second's run has several checkpoints.
OFTEN = """
import itertools, sys
from types import SimpleNamespace
from mindseye.commands.main import main
from mindseye.visualizer.callbacks import checkpointing
ticks = itertools.count()
checkpointing.time = SimpleNamespace(monotonic=lambda: 100.0 * next(ticks))
main(sys.argv[1:])
"""
STEPS = 40
TINY = ["experiment=smoke", f"steps={STEPS}", "snapshots=10", "gradients=15", "hydra.run.dir=run"]
BYTES = (".safetensors", ".parquet", ".png", ".webp")


def begin(place, *words, cache=None, program=OFTEN, timeout=250):
    """The real command in the folder `place`, or a Python program."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "120", "MINDSEYE_CACHE": str(cache or place / "cache")}
    place.mkdir(exist_ok=True)
    return warm.Begun(["-c", program, *words], place, env, timeout)


def result(folder):
    """Everything that a run found: the bytes of its pictures, images, history, and its measures."""
    apart = ("photographs", "checkpoint", ".writing")
    files = sorted(path for path in folder.rglob("*") if path.suffix in BYTES and not {*apart} & {*path.parts})
    metrics = json.loads((folder / "metrics.json").read_text())
    hashes = {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    return hashes | {name: metrics[name] for name in ("facets", "summary", "baselines")}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """What the run comes to when nothing happens, and how many seconds it takes."""
    place = tmp_path_factory.mktemp("uninterrupted")
    begin(place, program="").wait()  # from here on imports cost nothing
    began = time.monotonic()
    done = begin(place, *TINY).wait()
    assert done.returncode == 0, done.stderr
    kept = result(place / "run")
    history = pq.read_table(place / "run" / "history.parquet").to_pydict()
    assert {"r", "b", "total", "gradient_dm"} <= set(history)
    return kept, time.monotonic() - began


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A place whose run is drawn to its last step, and of which no result is written."""
    place = tmp_path_factory.mktemp("drawn")
    assert begin(place, *TINY, program=BEFORE_IT_IS_WRITTEN + OFTEN).wait().returncode == -9
    assert kept_step(place / "run") == STEPS
    assert not (place / "run" / "metrics.json").exists()
    return place


# ---- killed at any moment --------------------------------------------------------------------------------------


def forbidden():
    raise AssertionError("no whole entry")


def check_whole(path):
    """A file under its own name is whole, whenever its writer was killed."""
    content = path.read_bytes()
    kind = path.suffix
    if kind == ".json":
        json.loads(content)
    elif kind == ".yaml":
        assert yaml.safe_load(content)
    elif kind == ".safetensors":
        assert load_tensors(content)  # it knows its length
    elif kind in (".png", ".webp"):
        Image.open(io.BytesIO(content)).load()
    elif kind == ".parquet":
        pq.read_table(io.BytesIO(content))
    elif kind == ".html":
        assert content.rstrip().endswith(b"</html>")
    else:
        raise AssertionError(f"what is {path}?")


def check_folder(folder):
    """All files but logs, locks, and what begins with a dot or ends with .part: those are on their way."""
    for path in folder.rglob("*"):
        on_its_way = any(part.startswith(".") for part in path.relative_to(folder).parts) or path.suffix == ".part"
        if path.is_file() and not on_its_way and path.suffix not in (".log", ".lock"):
            check_whole(path)


def check_cache(folder):
    check_folder(folder)
    cache = Cache(folder, 10**9)
    for entry in cache.entries():
        assert not cache.fetch(entry.kind, entry.key, forbidden).made


def kept_step(folder):
    """The step of the checkpoint in a run folder, 0 where there is none."""
    path = folder / "checkpoint" / "fit-0-of-1.safetensors"
    if not path.exists():
        return 0
    content = path.read_bytes()
    state = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]["state"]
    return dict(map(tuple, (pair for pair in json.loads(state)["dict"] if pair[0] == "global_step")))["global_step"]


def killed_again_and_again(place, seconds, seed, count):
    """Start the same command in the same folder and kill it at a moment of chance, `count` times; then let it end.

    Gives what there was at each death: the step of the checkpoint, or what was being done.
    """
    chance, results = random.Random(seed), []
    log = place / "run" / "run.log"
    for _ in range(3 * count):
        begun = begin(place, *TINY)
        time.sleep(chance.uniform(0.02, 1.0) * seconds)
        died = begun.kill().returncode == -9  # else the moment was too late
        check_folder(place / "run")
        check_cache(place / "cache")
        if died:
            results.append(kept_step(place / "run") or "before the first checkpoint")
        if len(results) == count:
            break
    step = kept_step(place / "run")
    before = log.stat().st_size if log.exists() else 0
    done = begin(place, *TINY).wait()
    assert done.returncode == 0, done.stderr
    assert (f"the fit goes on after step {step} of {STEPS}" in log.read_text()[before:]) == bool(step)
    check_folder(place / "run")
    assert not (place / "run" / "checkpoint").exists()
    assert len(results) == count
    return results


def test_killed_at_three_moments_it_comes_to_the_same_bytes(uninterrupted, tmp_path):
    whole, seconds = uninterrupted
    killed_again_and_again(tmp_path, seconds, 1, 3)
    assert result(tmp_path / "run") == whole


@pytest.mark.long
@pytest.mark.parametrize("seed", range(10, 20))
def test_killed_at_fifty_moments_it_comes_to_the_same_bytes(uninterrupted, seed, tmp_path):
    """Ten runs, each killed five times."""
    whole, seconds = uninterrupted
    print("killed at", killed_again_and_again(tmp_path, seconds, seed, 5))
    assert result(tmp_path / "run") == whole


# ---- what is finished stays ------------------------------------------------------------------------------------

BEFORE_THE_SWAP = """
import os, signal
from mindseye.results import run_folder
run_folder._put_in_place = lambda written, folder: os.kill(os.getpid(), signal.SIGKILL)
"""
BEFORE_IT_IS_WRITTEN = """
import os, signal
from mindseye.results.visualization import Visualization
Visualization.save = lambda *given, **named: os.kill(os.getpid(), signal.SIGKILL)
"""
AT_THE_GALLERY = """
import os, signal
from mindseye.commands import job
def told(folder):
    os.kill(os.getpid(), signal.{})
job.try_gallery = told
"""


def test_an_earlier_result_stays_until_the_next_one_is_whole(disk):
    place, again = disk(16_000), [*TINY, "k=5"]
    assert begin(place, *TINY).wait().returncode == 0
    earlier = result(place / "run")
    assert begin(place, *again, program=BEFORE_THE_SWAP + OFTEN).wait().returncode == -9
    assert (place / "run/.writing/metrics.json").is_file()
    assert result(place / "run") == earlier
    shutil.rmtree(place / "run" / "checkpoint")
    filler = fill(place, size_of(place / "run" / ".writing") // 4)
    done = begin(place, *again).wait()
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert result(place / "run") == earlier
    filler.unlink()
    done = begin(place, *again).wait()
    assert done.returncode == 0, done.stderr
    assert result(place / "run").keys() == earlier.keys()
    assert result(place / "run") != earlier
    assert not (place / "run/.writing").exists()


@pytest.mark.parametrize(("signal", "code"), [("SIGKILL", -9), ("SIGTERM", 0), ("SIGINT", 130)])
def test_what_ends_a_run_after_its_result_is_written_does_not_cost_it(uninterrupted, drawn, tmp_path, signal, code):
    shutil.copytree(drawn, tmp_path, dirs_exist_ok=True)
    done = begin(tmp_path, *TINY, program=AT_THE_GALLERY.format(signal) + OFTEN).wait()
    assert done.returncode == code
    assert ("the run is complete" in done.stderr) == (signal != "SIGKILL")
    assert result(tmp_path / "run") == uninterrupted[0]
    assert read_status(tmp_path / "run").status == "completed"


def test_in_a_sweep_it_costs_nothing_to_go_on_after_it(uninterrupted, tmp_path):
    words = ["-m", *TINY[:-1], "hydra.sweep.dir=sweep"]
    assert begin(tmp_path, *words, program=AT_THE_GALLERY.format("SIGKILL") + OFTEN).wait().returncode == -9
    [cell] = [path.parent for path in tmp_path.glob("sweep/*/metrics.json")]
    before = (cell / "metrics.json").stat().st_mtime_ns
    done = begin(tmp_path, *words).wait()
    assert done.returncode == 0, done.stderr
    assert (cell / "metrics.json").stat().st_mtime_ns == before
    assert result(cell) == uninterrupted[0]


NOBODY_READS = {
    "closed pipe": "import os\nreader, writer = os.pipe()\nos.close(reader)\nos.dup2(writer, 1)\n",
    "full disk": "import os\nos.dup2(os.open('/dev/full', os.O_WRONLY), 1)\n",
}


@pytest.mark.parametrize("output", NOBODY_READS)
def test_a_run_goes_on_where_nobody_reads_what_it_says(uninterrupted, drawn, tmp_path, output):
    shutil.copytree(drawn, tmp_path, dirs_exist_ok=True)
    done = begin(tmp_path, *TINY, program=NOBODY_READS[output] + OFTEN).wait()
    assert (done.returncode, done.stderr) == (0, "")
    assert result(tmp_path / "run") == uninterrupted[0]
    assert read_status(tmp_path / "run").status == "completed"


def test_a_folder_s_name_is_text(tmp_path):
    short = [word.replace(f"steps={STEPS}", "steps=4") for word in TINY[:-1]]
    done = begin(tmp_path, *short, "hydra.run.dir='x[/red]y[bold]'").wait()
    assert done.returncode == 0, done.stderr
    assert "x[/red]y[bold]/facets.png" in done.stdout


# ---- eight jobs ------------------------------------------------------------------------------------------------

LOOK = """
import os, sys, time
from mindseye.facets import discover_facets, load_photographs, survey
from mindseye.facets.cache import Cache
from mindseye.settings import Facets
from mindseye.networks import demo_network

cache, photographs, record, gate = sys.argv[1:]
real = survey.to_unit

def told(images, device):
    with open(record, "a") as file:
        file.write(f"{os.getpid()}\\n")
    time.sleep(0.2)
    return real(images, device)

survey.to_unit = told
while not os.path.exists(gate):
    time.sleep(0.005)
network = demo_network()
found = discover_facets(
    network, load_photographs(photographs, size=48), network.resolve(depth="middle"),
    Facets(C=3, k=8, N=4, batch_size=6, workers=0), cache=Cache(cache, 10**9),
)
print(found.content_hash())
"""


@pytest.mark.long
def test_of_eight_jobs_one_looks_at_the_photographs_also_where_three_are_killed_at_it(photograph_folder, tmp_path):
    cache, record, gate = (tmp_path / name for name in ("cache", "record", "gate"))
    record.touch()
    jobs = {
        job.pid: job
        for job in (begin(tmp_path, str(cache), str(photograph_folder), str(record), str(gate), program=LOOK)
                    for _ in range(8))
    }  # fmt: skip
    gate.touch()
    began = time.monotonic()
    killed = []
    while len(killed) < 3:
        seen = [pid for pid in map(int, record.read_text().split()) if pid not in killed]
        if seen:
            assert jobs[seen[0]].kill().returncode == -9  # it holds the lock, and sleeps
            killed.append(seen[0])
        assert time.monotonic() - began < 100
        time.sleep(0.01)
    outcomes = [jobs[pid].wait() for pid in jobs if pid not in killed]
    assert time.monotonic() - began < 100
    assert [done.returncode for done in outcomes] == [0] * 5, outcomes
    network = demo_network()
    alone = discover_facets(
        network,
        load_photographs(photograph_folder, size=48),
        network.resolve(depth="middle"),
        Facets(C=3, k=8, N=4, batch_size=6, workers=0),
    )
    assert {done.stdout.strip() for done in outcomes} == {alone.content_hash()}
    looked = record.read_text().split()
    turns = [pid for pid, before in zip(looked, ["", *looked], strict=False) if pid != before]
    assert len(turns) == len(set(turns)) == 4  # three who were killed, one who was not, and never two at a time
    assert looked.count(turns[-1]) == 4  # all 24 photographs
    check_cache(cache)
    assert {path.suffix for path in cache.iterdir()} == {".safetensors"}


# ---- disks -----------------------------------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path):
    """disk(size in kB): a folder with a file system of its own."""
    mounted = []

    def mount(kilobytes):
        place = tmp_path / f"disk{len(mounted)}"
        place.mkdir()
        asked = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "none", str(place)]
        done = subprocess.run(asked, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"a small disk needs root and mount: {done.stderr.strip()}")
        mounted.append(place)
        return place

    try:
        yield mount
    finally:
        for place in mounted:
            subprocess.run(["umount", "-l", str(place)], check=False)


def fill(folder, leave):
    """A file that leaves so many bytes free."""
    filler = folder / "filler"
    free = shutil.disk_usage(folder).free
    with open(filler, "wb") as file:
        for _ in range((free - leave) // 4096):
            file.write(b"x" * 4096)
    return filler


def size_of(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def everything(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.long
@pytest.mark.parametrize("shares", [[0.4], [0.05, 0.2, 0.6]])
def test_a_full_disk_is_one_line_and_the_run_goes_on_when_there_is_room(
    uninterrupted, disk, photograph_folder, tmp_path, shares
):
    """shares: of what a run needs, so much is free, try after try."""
    place, cache = disk(16_000), tmp_path / "cache"
    words = [*TINY, "network=demo", f"images.root={photograph_folder}", "hydra.run.dir=earlier"]
    done = begin(place, *words, cache=cache).wait()
    assert done.returncode == 0, done.stderr
    needed = size_of(place / "earlier")
    earlier, whole = everything(place / "earlier"), result(place / "earlier")
    words = [*TINY, "network=demo", f"images.root={photograph_folder}"]
    for share in shares:
        filler = fill(place, int(share * needed))
        done = begin(place, *words, cache=cache).wait()
        filler.unlink()
        assert done.returncode == 1
        [line] = done.stderr.strip().splitlines()
        assert line.startswith("mindseye: [Errno 28] No space left on device: ")
        assert " bytes are needed, and " in line
        assert f"'{place}/run/" in line
        assert "Traceback" not in done.stdout + done.stderr
        check_folder(place / "run")
        assert not (place / "run" / "metrics.json").exists()
        assert everything(place / "earlier") == earlier
        assert read_status(place / "run").status in ("failed", "to be continued", "waiting")
    done = begin(place, *words, cache=cache).wait()
    assert done.returncode == 0, done.stderr
    assert result(place / "run") == whole
    assert everything(place / "earlier") == earlier


def test_tensorboard_on_a_full_disk_costs_one_line_and_the_run_ends_as_without(uninterrupted, disk, tmp_path):
    whole, _ = uninterrupted
    place = disk(200)
    fill(place, 0)
    words = [*TINY, "logger=tensorboard", f"logger.tensorboard.save_dir={place}"]
    done = begin(tmp_path / "run", *words).wait()
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if "left alone" in line]
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("WARNING: TensorBoardLogger is left alone from here on, the run goes on: ")
    assert result(tmp_path / "run" / "run") == whole


def test_a_run_folder_on_a_full_disk_is_named_before_anything_else(disk, tmp_path):
    place = disk(200)
    fill(place, 0)
    done = begin(tmp_path / "run", *TINY, f"hydra.run.dir={place}/run").wait()
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert line.startswith(f"mindseye: the run folder {place}/run cannot be written: No space left on device: ")
    assert line.endswith("4096 bytes are needed, and 0 are free")


def test_a_run_folder_that_cannot_be_written_is_named(tmp_path):
    """Below a file: permissions do not bind root."""
    (tmp_path / "file").touch()
    done = begin(tmp_path, *TINY, "hydra.run.dir=file/run").wait()
    assert done.returncode == 1
    message = f"mindseye: the run folder {tmp_path}/file/run cannot be written: Not a directory"
    assert done.stderr.splitlines() == [message]


def test_a_log_that_cannot_be_written_prints_no_tracebacks(tmp_path):
    """/dev/full takes nothing, as a full disk."""
    done = begin(tmp_path, *TINY, "steps=1", "hydra.job_logging.handlers.file.filename=/dev/full").wait()
    assert (done.returncode, done.stderr) == (0, "")


LONG = pytest.mark.long


@pytest.mark.parametrize("how", ["full", pytest.param("read-only", marks=LONG), pytest.param("filled", marks=LONG)])
def test_a_cache_that_cannot_be_written_costs_one_warning(uninterrupted, disk, tmp_path, how):
    """Full; read-only and empty; read-only, and filled with what the run needs."""
    whole, _ = uninterrupted
    folder = disk(2000)
    words = [*TINY, "checkpoint=60"]
    if how == "filled":
        assert begin(tmp_path / "first", *words, cache=folder).wait().returncode == 0
    if how == "full":
        fill(folder, 0)
    else:
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
    before = everything(folder)
    done = begin(tmp_path / "second", *words, cache=folder).wait()
    assert done.returncode == 0, done.stderr
    lines = done.stderr.strip().splitlines()
    if how == "filled":
        assert lines == []
    else:
        [line] = lines
        assert line.startswith(f"WARNING: the cache folder {folder} cannot be used (")
        assert line.endswith("): going on without it")
        assert ("No space left" if how == "full" else "Read-only file system") in line
    assert everything(folder) == before
    assert result(tmp_path / "second" / "run") == whole


@pytest.mark.long
def test_a_flipped_bit_in_the_cache_is_found_by_its_hash_and_the_entry_made_again(uninterrupted, tmp_path):
    whole, _ = uninterrupted
    assert begin(tmp_path, *TINY).wait().returncode == 0
    cache = Cache(tmp_path / "cache", 10**9)
    [survey] = [entry for entry in cache.entries() if entry.kind == "survey"]
    content = bytearray(survey.path.read_bytes())
    content[-len(content) // 3] ^= 8
    good = load_tensors(survey.path.read_bytes())
    survey.path.write_bytes(content)
    done = begin(tmp_path, *TINY).wait()
    assert done.returncode == 0, done.stderr
    message = f"cache entry {survey.path.name} is damaged (its content is not what its hash says): made again"
    assert message in done.stderr
    assert all(torch.equal(x, good[name]) for name, x in load_tensors(survey.path.read_bytes()).items())
    assert result(tmp_path / "run") == whole

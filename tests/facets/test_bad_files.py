"""Hundreds of bad and odd files: none crashes, hangs or fills memory; the bad are named once, the odd read rightly."""

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import bad_files
import pytest
from PIL import Image

from mindseye.facets.photographs import load_photographs

# Reads a folder in a process of its own and says what came of every file, and what it cost.
PROGRAM = """
import json, resource, sys, time
from pathlib import Path
from mindseye.facets.photographs import load_photographs

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

before, began = peak(), time.monotonic()
photographs = load_photographs(sys.argv[1], int(sys.argv[2]))
read, skipped, slowest = {}, [(file.path, file.reason) for file in photographs.skipped], 0.0
for first in range(len(photographs.paths)):
    one = type(photographs)(photographs.root, photographs.paths[first : first + 1], photographs.size)
    at = time.monotonic()
    for indices, images, files in one.batches(1, workers=0):
        skipped += [(file.path, file.reason) for file in files]
        read |= {one.paths[index]: [list(image.shape), image.float().mean().item()]
                 for index, image in zip(indices, images, strict=True)}
    slowest = max(slowest, time.monotonic() - at)
print(json.dumps({"read": read, "skipped": skipped, "before": before, "peak": peak(), "slowest": slowest,
                  "seconds": time.monotonic() - began}))
"""
MOST_MIB = 1000  # above what the process holds anyway: two copies of MOST_PIXELS of 4 bytes, and what a decoder takes


def read_in_a_child(root, size=32, timeout=240):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(root), str(size)],
        capture_output=True, text=True, timeout=timeout, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def assert_all_as_they_must_be(found, said):
    named = [path for path, _ in said["skipped"]]
    assert len(named) == len(set(named))
    assert not set(named) & set(said["read"])
    reasons = dict(said["skipped"])
    wrong = []
    for odd in found:
        if odd.kind == "hidden":
            assert odd.name not in reasons
            assert odd.name not in said["read"]
            continue
        assert (odd.name in reasons) != (odd.name in said["read"]), odd.name
        if odd.kind == "good":
            shape, mean = said["read"].get(odd.name, (None, None))
            if shape != [3, 32, 32] or abs(mean - odd.mean) > odd.near:
                wrong.append((odd.name, mean, reasons.get(odd.name)))
        elif odd.kind == "bad" and odd.name not in reasons:
            wrong.append((odd.name, "was read"))
    assert not wrong
    for path, reason in said["skipped"]:
        assert reason.strip(), path
        assert "\n" not in reason
        assert len(reason) < 300
    assert set(reasons) | set(said["read"]) <= {odd.name for odd in found}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder, and what each of its files must come to."""
    root = tmp_path_factory.mktemp("bad")
    return root, bad_files.build(root)


def test_three_hundred_bad_and_odd_files(built):
    root, made = built
    assert len(made) >= 300
    answers = read_in_a_child(root)
    assert_all_as_they_must_be(made, answers)
    assert answers["peak"] - answers["before"] < MOST_MIB
    assert answers["slowest"] < 20
    shown = ("before", "peak", "slowest", "seconds")
    print({name: answers[name] for name in shown}, len(made), len(answers["skipped"]))


@pytest.mark.long
def test_thousands_of_damaged_files(tmp_path):
    made = bad_files.build(tmp_path, deep=12)
    assert len(made) >= 2000
    answers = read_in_a_child(tmp_path, timeout=280)
    assert_all_as_they_must_be(made, answers)
    assert answers["peak"] - answers["before"] < MOST_MIB


def test_worker_processes_say_the_same_of_bad_files(built):
    photographs = load_photographs(built[0], 16)
    # That one has 88 million pixels: read by both, it would take as long as all others.
    photographs = replace(photographs, paths=tuple(path for path in photographs.paths if path != "bombs/whole.png"))
    alone, together = ([*photographs.batches(16, workers=workers)] for workers in (0, 2))
    for (indices, images, skipped), (others, other_images, other_skipped) in zip(alone, together, strict=True):
        assert indices == others
        assert skipped == other_skipped
        assert (images == other_images).all()


def test_a_folder_of_ten_thousand_files_is_listed_at_once(tmp_path):
    content = bad_files.encoded(bad_files.picture(), "PNG")
    for number in range(100):
        (tmp_path / f"{number:03d}.png").write_bytes(content)
    for number in range(100, 10_000):
        os.link(tmp_path / f"{number % 100:03d}.png", tmp_path / f"{number:05d}.png")
    began = time.monotonic()
    photographs = load_photographs(tmp_path, 8)
    assert len(photographs) == 10_000
    assert time.monotonic() - began < 10


@pytest.mark.skipif(not hasattr(os, "setuid"), reason="needs POSIX")
def test_files_without_permission_are_named():
    """In a child without root's rights, for whom alone these bits bind."""
    script = (
        "import os, sys\nfrom PIL import Image\nfrom mindseye.facets.photographs import load_photographs\n"
        "Image.init()\n"  # before Python's own files may be out of reach
        "if os.getuid() == 0:\n    os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "found = load_photographs(sys.argv[1], 8)\n"
        "files = [*found.skipped, *(one for *_, skipped in found.batches(4) for one in skipped)]\n"
        "print(sorted((file.path, file.reason) for file in files), len(found))"
    )
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are closed to others
        root = Path(folder)
        root.chmod(0o755)
        (root / "shut").mkdir()
        for name in ("a.png", "secret.png", "shut/b.png"):
            Image.new("RGB", (9, 9)).save(root / name)
        (root / "secret.png").chmod(0)
        (root / "shut").chmod(0)
        done = subprocess.run(
            [sys.executable, "-c", script, str(root)], capture_output=True, text=True, timeout=60, check=False
        )
        (root / "shut").chmod(0o755)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[('secret.png', 'Permission denied'), ('shut', 'Permission denied')] 2"


def test_names_are_printed_in_one_line(tmp_path, network, caplog):
    from mindseye.facets.survey import survey

    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(bad_files.encoded(bad_files.picture(), "PNG"))
    for name in ("new\nline.png", "bell\x07.png", "emoji 🙂.png"):
        (tmp_path / name).write_bytes(b"no picture")
    with caplog.at_level("INFO"):
        survey(network, load_photographs(tmp_path, 48), network.resolve(depth="early"))
    messages = [record.getMessage() for record in caplog.records if "skipped" in record.getMessage()]
    assert all(line.isprintable() for line in messages)
    for name in (r"'new\nline.png'", r"'bell\x07.png'", "emoji 🙂.png"):
        assert sum(name in line for line in messages) in (1, 2)  # the first once more, on the terminal

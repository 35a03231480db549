"""Holds results to the byte while the program is rebuilt: tiny runs of every kind, by the hashes of all they give.

`python scripts/golden.py --keep FILE` writes the hashes, `--compare FILE` says which differ, with exit status 1 if any.
One thread, no cache, a minute or two. Hashes are of one machine and its libraries: FILE is no part of the repository.
"""

import argparse
import contextlib
import hashlib
import io
import json
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import pyarrow.parquet as pq
import pytorch_lightning as pl
import torch
from safetensors.torch import load_file

from mindseye.commands.main import main
from mindseye.signals import TO_BE_CONTINUED

SMALL = ("images.count=24", "images.size=48", "C=3", "k=8", "facets.N=4", "steps=4", "snapshots=2", "cache=off",
         "trainer.accelerator=cpu", "logger=none", "depth=middle")  # fmt: skip
RUNS = {
    "calibrated": (),
    "calibrated, pixels": ("canvas=pixel", "canvas.init=noise"),
    "calibrated, phases": ("canvas=maco",),
    "calibrated, facet by facet": ("facets_per_batch=1",),
    "calibrated, two processes": ("trainer.devices=2",),
    "calibrated, interrupted": ("+filters.stop._target_=golden.StopOnce",),
    "calibrated, gradients": ("gradients=2",),
    "calibrated, bfloat16": ("precision=bfloat16",),
    "calibrated, judged": ("transfer=demo", "transfer.demo.layer=layer3.0", "gradients=null"),
    "without matching": ("ablation=no_matching",),
    "sorted matching": ("ablation=sorted", "seed=1"),
    "one channel": ("network=callable", "network.target=golden.grey_network", "network.mean=[0.5]",
                    "network.std=[0.25]", "layer='2'", "previous='0'"),
    "published": ("objective=published", "steps=6", "filters.blur.every=2", "filters.tv.every=3"),
    "released": ("objective=released", "steps=4", "filters.tv.every=2", "filters.brighten.every=2"),
}  # fmt: skip


class StopOnce(pl.Callback):
    """Asks the run to stop, as a scheduler does, after its second step of the first time."""

    asked = False

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """After step t = batch_idx + 1."""
        if batch_idx == 1 and not StopOnce.asked:
            StopOnce.asked = True
            os.kill(os.getpid(), signal.SIGTERM)


def grey_network() -> torch.nn.Module:
    """Two convolutions on one channel, untrained but the same every time."""
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, 12, 5, stride=2), torch.nn.ReLU(), torch.nn.Conv2d(12, 16, 3, stride=2), torch.nn.ReLU()
    )


def draw(overrides: Sequence[str], folder: Path) -> None:
    """One run by the command, started again where it was interrupted."""
    printed = io.StringIO()
    interruptions = 0
    while True:
        try:
            with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
                main([*SMALL, *overrides, f"hydra.run.dir={folder}"])
        except SystemExit as end:
            if end.code == TO_BE_CONTINUED and not interruptions:
                interruptions += 1
                continue
            raise RuntimeError(printed.getvalue()) from end
        if interruptions != any("StopOnce" in word for word in overrides):
            raise RuntimeError("not interrupted as it was to be")
        return


def hashes(folder: Path) -> dict[str, str]:
    """Of all that a run folder holds of its result: pictures, those on the way, history, targets, measures."""
    sums = {}
    for file in sorted(folder.rglob("*.safetensors")):
        for name, tensor in load_file(file).items():
            content = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
            head = f"{tensor.dtype}{list(tensor.shape)}".encode()
            sums[f"{file.relative_to(folder)} {name}"] = sha256(head + content)
    for file in sorted((folder / "facets").rglob("*.*")):
        sums[str(file.relative_to(folder))] = sha256(file.read_bytes())
    for name, values in pq.read_table(folder / "history.parquet").to_pydict().items():
        sums[f"history {name}"] = sha256(json.dumps(values).encode())
    metrics = json.loads((folder / "metrics.json").read_text())
    for name in sorted(set(metrics) - {"timing", "provenance"}):
        sums[f"metrics {name}"] = sha256(json.dumps(metrics[name], sort_keys=True).encode())
    return sums


def sha256(content: bytes) -> str:
    """Enough of it to tell two apart."""
    return hashlib.sha256(content).hexdigest()[:16]


def differences(kept: dict[str, dict[str, str]], now: dict[str, dict[str, str]]) -> list[str]:
    """A line for each thing that is not as it was."""
    lines = []
    for run in {**kept, **now}:
        before, after = kept.get(run, {}), now.get(run, {})
        lines += [f"{run}: {name}" for name in {**before, **after} if before.get(name) != after.get(name)]
    return lines


def command() -> None:
    """Draw all, then keep or compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked = parser.add_mutually_exclusive_group(required=True)
    asked.add_argument("--keep", type=Path, metavar="FILE")
    asked.add_argument("--compare", type=Path, metavar="FILE")
    parser.add_argument("--only", default="", metavar="WORD", help="runs with this in their name")
    given = parser.parse_args()
    torch.set_num_threads(1)
    names = [name for name in RUNS if given.only in name]
    now = {}
    with tempfile.TemporaryDirectory(prefix="golden-") as place:
        for number, name in enumerate(names):
            draw(RUNS[name], Path(place) / str(number))
            now[name] = hashes(Path(place) / str(number))
            print(f"{name}: {len(now[name])} hashes", flush=True)
    if given.keep:
        given.keep.write_text(json.dumps(now, indent=1))
        return
    kept = json.loads(given.compare.read_text())
    lines = differences({name: kept[name] for name in names}, now)
    print("\n".join(lines) if lines else "all as it was")
    sys.exit(bool(lines))


if __name__ == "__main__":
    command()

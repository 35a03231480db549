"""What jobs of a sweep need to run in other processes and on other machines as they would here."""

import os
import re
import shutil
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.utils import get_object

from mindseye.commands.composing import ConfigurationError, compose
from mindseye.commands.grammar import choices, parsed

EXTRAS = {"RayLauncher": "ray", "SlurmLauncher": "slurm"}  # what brings the package under a launcher
ASKED = ("trainer.accelerator", "trainer.devices", "trainer.nodes")  # by which a job asks for machines


def anchored(word: str) -> str:
    """A folder of Hydra's own given on the command line, so that it means the same in a job that runs elsewhere.

    A relative one starts where the command was given; `~` is the home folder, as it is in `images.root`.

    >>> print(anchored("hydra.sweep.dir=mine/k"))
    hydra.sweep.dir=${hydra.runtime.cwd}/mine/k
    >>> anchored("hydra.sweep.dir='my sweep'"), anchored("hydra.run.dir=/big/k"), anchored("k=4")
    ("hydra.sweep.dir='${hydra.runtime.cwd}/my sweep'", 'hydra.run.dir=/big/k', 'k=4')
    """
    match = re.fullmatch(r"(hydra\.(?:sweep|run)\.dir=)(['\"]?)(.+)", word)
    if not match or match[3].startswith(("/", "${")):
        return word
    key, quote, folder = match.groups()
    if re.match(r"~(/|['\"]?$)", folder):
        return f"{key}{quote}{Path.home()}{folder[1:]}"
    return f"{key}{quote}${{hydra.runtime.cwd}}/{folder}"


def enter(folder: str) -> None:
    """Go where the command was given, so that relative folders and files mean the same in this process.

    Raises ConfigurationError where this machine has no such folder.
    """
    if os.getcwd() == folder:
        return
    try:
        os.chdir(folder)
    except OSError as error:
        raise ConfigurationError(
            f"{socket.gethostname()} cannot enter {folder}, where the sweep was started ({error.strerror}): "
            "start it from a folder that all machines share"
        ) from error


def check_launcher(arguments: Sequence[str], sweeps: bool = True) -> None:
    """Refuse a launcher that is not installed, Slurm's away from a cluster, jobs that wait for GPUs in vain, and those
    that ask for other GPUs than their runs compute on."""
    words = [word for word in arguments if word.lstrip("+").startswith(("hydra/launcher=", "hydra.launcher."))]
    given = parsed([word for word in arguments if not word.startswith("-")]) if sweeps else []
    asked = [override for override in given if override.key_or_group in ASKED]
    if not words:  # by which cells are given nothing but this machine
        asked = [override for override in asked if override.key_or_group == "trainer.nodes"]
    if not words and not asked:
        return
    telling = (*ASKED, "hydra.searchpath", "experiment")
    first = [choices(override)[0] for override in given if override.key_or_group in telling]
    composed = compose([*first, *words], with_hydra=True)
    launcher = composed.hydra.launcher
    for override in asked:
        asks = override.key_or_group == "trainer.nodes" or launcher._target_.split(".")[-1] in EXTRAS
        if asks and len(choices(override)) > 1:
            line = f"{override.input_line}: all jobs of a sweep ask for as much: start one for each value"
            raise ConfigurationError(line)
    _check_nodes(composed.trainer, launcher)
    if not words:
        return
    try:
        get_object(launcher._target_)
    except Exception as error:
        extra = EXTRAS.get(launcher._target_.split(".")[-1])
        mend = f"pip install 'mindseye[{extra}]'" if extra else str(error)
        raise ConfigurationError(f"{words[0]} needs a package that is not installed: {mend}") from None
    if launcher._target_.endswith(".SlurmLauncher") and not shutil.which("sbatch"):
        raise ConfigurationError("hydra/launcher=slurm: there is no sbatch here; start the sweep on a Slurm cluster")
    gpus = ((launcher.get("ray") or {}).get("remote") or {}).get("num_gpus")
    gpus_by = {"ray.remote.num_gpus": gpus} | {name: launcher.get(name) for name in ("gpus_per_node", "gres")}
    for key, value in gpus_by.items():
        counted = _counted(value) if isinstance(value, str) else value
        _check_gpus(composed.trainer, f"hydra.launcher.{key}={value}", counted)
    if gpus and launcher.ray.init.get("address") is None and not os.environ.get("RAY_ADDRESS"):
        import torch

        if not torch.cuda.is_available():
            raise ConfigurationError(
                f"hydra.launcher.ray.remote.num_gpus={gpus}: this machine has no GPU that a job could wait for; "
                "hydra.launcher.ray.remote.num_gpus=0 computes on its CPU, hydra.launcher.ray.init.address=HOST:6379 "
                "on a cluster"
            )


def _check_nodes(trainer: Any, launcher: Any) -> None:
    if trainer.nodes != 1 and not launcher._target_.endswith(".SlurmLauncher"):
        raise ConfigurationError(
            f"trainer.nodes={trainer.nodes}: the cells of a sweep are given several nodes by hydra/launcher=slurm alone"
        )


def _check_gpus(trainer: Any, setting: str, gpus: Any) -> None:
    """Refuse other GPUs for a job than its run computes on; none at all is the cluster's business, or a CPU's."""
    devices = trainer.devices
    if gpus and trainer.accelerator == "cpu":
        raise ConfigurationError(f"{setting}: with trainer.accelerator=cpu a job computes on no GPU; leave it out")
    if gpus and gpus != devices and not (devices == 1 and gpus < 1):
        raise ConfigurationError(
            f"{setting}: trainer.devices={devices} says how many GPUs a run computes on, both must agree; left out, a "
            "job asks for as many"
        )


def _counted(gres: str) -> int | None:
    """How many GPUs Slurm is asked for by `gres`, None where it names none.

    >>> _counted("gpu:a100:2"), _counted("gpu"), _counted("nvme:1")
    (2, 1, None)
    """
    match = re.search(r"(?:^|,)gpu(?::[A-Za-z]\w*)?(?::(\d+))?(?:,|$)", gres)
    return None if match is None else int(match[1] or 1)

"""What jobs of a sweep need to run in other processes and on other machines as they would here."""

import os
import re
import shutil
import socket
from collections.abc import Sequence
from pathlib import Path

from hydra.utils import get_object

from mindseye.commands.composing import ConfigurationError, compose

EXTRAS = {"RayLauncher": "ray", "SlurmLauncher": "slurm"}  # what brings the package under a launcher


def anchored(word: str) -> str:
    """A folder of Hydra's own given on the command line, so that it means the same in a job that runs elsewhere.

    A relative one starts where the command was given; `~` is the home folder, as it is in `images.root`.

    >>> print(anchored("hydra.sweep.dir=mine/k"))
    hydra.sweep.dir=${hydra.runtime.cwd}/mine/k
    >>> anchored("hydra.sweep.dir='my sweep'"), anchored("hydra.run.dir=/big/k"), anchored("k=4")
    ("hydra.sweep.dir='${hydra.runtime.cwd}/my sweep'", 'hydra.run.dir=/big/k', 'k=4')
    """
    found = re.fullmatch(r"(hydra\.(?:sweep|run)\.dir=)(['\"]?)(.+)", word)
    if not found or found[3].startswith(("/", "${")):
        return word
    key, quote, folder = found.groups()
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


def check_launcher(arguments: Sequence[str]) -> None:
    """Refuse a launcher that is not installed, Slurm's away from a cluster, and jobs that wait for GPUs in vain."""
    words = [word for word in arguments if word.lstrip("+").startswith(("hydra/launcher=", "hydra.launcher."))]
    if not words:
        return
    launcher = compose(words, with_hydra=True).hydra.launcher
    try:
        get_object(launcher._target_)
    except Exception as error:
        extra = EXTRAS.get(launcher._target_.split(".")[-1])
        mend = f"pip install 'mindseye[{extra}]'" if extra else str(error)
        raise ConfigurationError(f"{words[0]} needs a package that is not installed: {mend}") from None
    if launcher._target_.endswith(".SlurmLauncher") and not shutil.which("sbatch"):
        raise ConfigurationError("hydra/launcher=slurm: there is no sbatch here; start the sweep on a Slurm cluster")
    gpus = ((launcher.get("ray") or {}).get("remote") or {}).get("num_gpus")
    if gpus and launcher.ray.init.get("address") is None and not os.environ.get("RAY_ADDRESS"):
        import torch

        if not torch.cuda.is_available():
            raise ConfigurationError(
                f"hydra.launcher.ray.remote.num_gpus={gpus}: this machine has no GPU that a job could wait for; "
                "hydra.launcher.ray.remote.num_gpus=0 computes on its CPU, hydra.launcher.ray.init.address=HOST:6379 "
                "on a cluster"
            )

"""What a run is made of besides its networks and photographs: method, measures, trackers, callbacks, files."""

import importlib.util
import inspect
import logging
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import get_object
from omegaconf import ListConfig

from mindseye.commands.checking import check_photographs, check_start, start_file
from mindseye.commands.composing import ConfigurationError, config_folder, make, make_metric
from mindseye.commands.constructors import CONSTRUCTORS_OF, check_constructors
from mindseye.commands.tracking import make_trackers
from mindseye.provenance import file_sha256
from mindseye.settings import Run
from mindseye.words import called

if TYPE_CHECKING:
    from pytorch_lightning import Callback

    from mindseye.visualizer.method import Method
    from mindseye.visualizer.tracking import Tracker

log = logging.getLogger(__name__)


class Parts(NamedTuple):
    """What a run is made of besides its networks and photographs."""

    method: "Method"
    metrics: dict[str, Any]
    trackers: list["Tracker"]
    callbacks: list["Callback"]
    files: dict[str, str]  # the sha256 of every file that the settings name


def make_parts(run: Run, folder: Path) -> Parts:
    """Everything cheap, first: a wrong value in any of it costs no reading of networks or photographs."""
    check_constructors(run.parts)
    method, metrics = make_method(run), make_metrics(run)
    trackers = trackers_of(run, folder)
    callbacks = make_callbacks(run, trackers)
    check_early(run)
    files = {path: file_sha256(path) for path in input_files(run, HydraConfig.get())}  # before they are read
    tell_of_the_demo(run)
    return Parts(method, metrics, trackers, callbacks, files)


def make_method(run: Run) -> "Method":
    """The method out of its groups. Raises ConfigurationError for what a part of it refuses."""
    from mindseye.networks.chance import seeded
    from mindseye.visualizer.method import Method

    parts = run.parts
    with seeded(run.drawing.seed):  # a network that it names is the one that draws, also where weights are random
        objective = make(parts["objective"], "objective")
    canvas = make(parts["canvas"], "canvas")
    if "seed" in inspect.signature(get_object(parts["canvas"]["_target_"])).parameters:
        canvas = partial(canvas, seed=run.drawing.seed)
    return Method(
        objective=objective,
        canvas=canvas,
        schedule=make(parts["schedule"], "schedule"),
        transformations=make(parts["transformations"], "transformations"),
        optimizer=make(parts["optimizer"], "optimizer"),
        filters=[make(node, f"filters.{name}") for name, node in parts["filters"].items() if node is not None],
        **vars(run.drawing),
    )


def with_start(run: Run, method: "Method", channels: int, side: int) -> "Method":
    """The method with the image whose path `canvas.init` is, read as the photographs are.

    Raises ConfigurationError where it cannot be read.
    """
    path = start_file(run.parts)
    if path is None:
        return method
    from mindseye.facets.decoding import UnreadablePhotograph, read_photograph

    try:
        image = read_photograph(path, side, channels, run.images.black, run.images.white, drawn_too=True)
    except UnreadablePhotograph as error:
        raise ConfigurationError(f"canvas.init={run.parts['canvas']['init']}: {error}") from error
    return replace(method, canvas=partial(method.canvas, init=image.float() / 255))  # type: ignore[call-arg]


def try_parts(method: "Method", channels: int, side: int) -> None:
    """Canvas and optimiser are made from the facets, much later: one picture [channels, side, side] shows what they
    refuse.

    The first optimiser of a process takes torch seconds, so that this comes after what is told without.
    """
    import torch

    name = "canvas"
    picture = torch.full((1, channels, side, side), 0.5)
    try:
        pixels = method.canvas(picture, picture[:, None])
        pixels(slice(0, 1)).sum().backward()
        name = "optimizer"
        optimizer = method.optimizer(pixels.parameters())
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise TypeError(f"it must give a torch.optim.Optimizer, not {called(optimizer)}")
        optimizer.step()  # some ask for the loss again and again, which a step here computes once
    except Exception as error:  # whatever a constructor of anybody's raises
        raise ConfigurationError(f"{name}: {error}" if name not in str(error) else str(error)) from error


def make_metrics(run: Run) -> dict[str, Any]:
    """The user's own metrics by their names."""
    from mindseye.networks.chance import seeded
    from mindseye.results.metrics import check_names

    metrics = {}
    for name, node in (run.parts["metrics"] or {}).items():
        if node is not None:
            with seeded(run.drawing.seed):
                metrics[str(name)] = make_metric(node, f"metrics.{name}")
    check_names(metrics)
    return metrics


def make_callbacks(run: Run, trackers: Sequence["Tracker"]) -> list["Callback"]:
    """Who looks on while facets are drawn, of the group `callbacks`. Raises ValueError for one that cannot."""
    nodes = {name: node for name, node in (run.parts["callbacks"] or {}).items() if node is not None}
    if not nodes:
        return []
    for name, node in nodes.items():
        if node["_target_"].endswith(".DeviceStatsMonitor") and node.get("cpu_stats") is not False:
            on_cpu = node.get("cpu_stats") or pick_device(run.running.accelerator) == "cpu"
            if on_cpu and importlib.util.find_spec("psutil") is None:
                raise ConfigurationError(f"callbacks.{name} needs psutil for what a CPU does: pip install psutil")
    from mindseye.visualizer.watching import Watchers

    callbacks = [make(node, f"callbacks.{name}") for name, node in nodes.items()]
    Watchers(logger=trackers, callbacks=callbacks)
    return callbacks


def trackers_of(run: Run, folder: Path) -> list["Tracker"]:
    """The trackers of the group `logger`, told of which sweep and experiment the run is."""
    hydra_config = HydraConfig.get()
    sweep = Path(hydra_config.sweep.dir).absolute() if hydra_config.mode == RunMode.MULTIRUN else None
    choices = hydra_config.runtime.choices
    return make_trackers(
        run.parts["logger"],
        folder,
        hydra_config.overrides.task,
        sweep=sweep,
        experiment=choices.get("experiment"),
        choices=choices,
    )


def tell_of_the_demo(run: Run) -> None:
    """A warning where the demo's network looks at the user's photographs, for want of any other."""
    if run.images.root is not None and network_is_unsaid(HydraConfig.get()):
        log.warning("the demo's network looks at the photographs, since none is named: network=resnet50, say")


def network_is_unsaid(hydra_config: Any) -> bool:
    """Whether the network is the demo's for want of any other; of a sweep's cells the first alone is asked."""
    first = hydra_config.mode != RunMode.MULTIRUN or hydra_config.job.num == 0
    given = any(word.lstrip("+").startswith("network") for word in hydra_config.overrides.task)
    return first and not given and hydra_config.runtime.choices.get("network") == "demo"


def check_early(run: Run) -> None:
    """What this machine does not have is said before any network is read."""
    from mindseye.facets.embedding import pick_method
    from mindseye.facets.number import MOST_KINDS
    from mindseye.visualizer.devices import count_processes

    most = MOST_KINDS if run.facets.C == "auto" else run.facets.C
    pick_device(run.running.accelerator)
    count_processes(run.running.devices, most, run.running.accelerator)
    # How many photographs can be read is not known yet; what is installed, and the settings, are refused all the same.
    pick_method(run.facets.subsample, run.facets.tsne, run.facets.subsample)
    check_photographs(run.images.root)
    check_start(run.parts)


def pick_device(accelerator: str) -> str:
    """Where the photographs are looked at: what Lightning will choose for the fit."""
    import torch

    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return "cuda"
    if accelerator in ("auto", "gpu", "mps") and torch.backends.mps.is_available():
        return "mps"
    if accelerator in ("auto", "cpu"):
        return "cpu"
    raise ConfigurationError(f"trainer.accelerator={accelerator}: this machine has none; take cpu or auto")


def input_files(run: Run, hydra_config: Any) -> list[str]:
    """Every file that the settings name: weights, checkpoints, code of one's own, and one's own files of settings.

    Of a dotted path it is the module in the current directory, if there is one. Modules that code imports in turn are
    not seen, nor what is installed, whose versions are kept beside.
    """
    files: dict[str, None] = {}
    for group, node in run.parts.items():
        if group != "logger":
            files |= dict.fromkeys(file for text in _texts(node) for file in _files_of(text))
    for source in hydra_config.runtime.config_sources:
        if source.schema == "file" and Path(source.path) != config_folder():
            chosen = hydra_config.runtime.choices.items()
            named = ((group, option) for group, options in chosen for option in _listed(options))
            own = (os.path.join(source.path, group, f"{option}.yaml") for group, option in named)
            files |= dict.fromkeys(file for file in own if os.path.isfile(file))
    return list(files)


def _texts(node: Any) -> Iterator[str]:
    if isinstance(node, dict | list):
        for value in node.values() if isinstance(node, dict) else node:
            yield from _texts(value)
    elif isinstance(node, str):
        yield node


def _listed(chosen: Any) -> list[Any]:
    return list(chosen) if isinstance(chosen, list | ListConfig) else [chosen]


def _files_of(text: str) -> Iterator[str]:
    """The file that a setting's text is the path of, or whose function or class it names."""
    yield from (path for path in (text, text.rpartition(":")[0]) if path and os.path.isfile(os.path.expanduser(path)))
    if re.fullmatch(r"[A-Za-z_]\w*(\.\w+)+", text, re.ASCII) and text.partition(".")[0] not in CONSTRUCTORS_OF:
        parts = text.split(".")
        modules = (os.path.join(*parts[:count]) for count in range(1, len(parts)))
        files = (file for module in modules for file in (f"{module}.py", f"{module}/__init__.py"))
        yield from filter(os.path.isfile, files)

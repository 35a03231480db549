"""The stages of a run, each made out of its own settings: network, photographs, facets, judges, method."""

import importlib.util
import inspect
import json
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
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
from mindseye.commands.constructors import CONSTRUCTORS_OF
from mindseye.commands.progress import JobProgress
from mindseye.settings import CacheSettings, Run
from mindseye.sweeps.manifest import Manifest, layers_beside
from mindseye.words import called

if TYPE_CHECKING:
    from pytorch_lightning import Callback

    from mindseye.facets.cache import Cache
    from mindseye.facets.photographs import Photographs
    from mindseye.facets.targets import FacetTargets
    from mindseye.networks import Network
    from mindseye.networks.preparing import PreparedNetwork
    from mindseye.results.judges import TransferReference
    from mindseye.visualizer.method import Method
    from mindseye.visualizer.tracking import Tracker

# What the message of a source calls its own arguments: here they are settings of its group.
OF_A_SOURCE = re.compile(r"(?<![\w./'\"-])(weights|arguments|prefix)=")
log = logging.getLogger(__name__)


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


def make_network(node: Mapping[str, Any], place: str) -> "Network":
    """The network of a group: what its source loads, or what a constructor of the user's own gives.

    Raises ConfigurationError for what cannot be loaded and for what is no network.
    """
    from torch import nn

    from mindseye.networks import Source
    from mindseye.networks.network import check_network

    made = make(node, place)
    if isinstance(made, nn.Module) and not hasattr(made, "resolve"):
        target, group = node["_target_"], place.partition(".")[0]
        own = place if group == "network" else f"{group}.callable"
        raise ConfigurationError(
            f"{place}: {target} gives a bare {type(made).__name__}: {group}=callable {own}.target={target} makes a "
            "network of it"
        )
    try:
        network = made.load() if isinstance(made, Source) else made
        check_network(network)
        return network
    except (ValueError, OSError) as error:
        reason = OF_A_SOURCE.sub(rf"{place}.\1=", str(error))
        raise ConfigurationError(f"{place}: {reason}") from error


class Looking(NamedTuple):
    """What a run looks with."""

    network: "Network"
    layer: str
    prepared: "PreparedNetwork"  # up to the layer, with the layers on the way that the objective matches


def load(run: Run, method: "Method") -> Looking:
    """The network, its layer, and the way to it, on the device."""
    from mindseye.networks import warn_of_no_training
    from mindseye.networks.chance import seeded
    from mindseye.networks.preparing import prepare
    from mindseye.networks.way import resolve_way
    from mindseye.visualizer.objective import matching_of

    with seeded(run.drawing.seed):
        network = make_network(run.parts["network"], "network")
    if "target" in run.parts["network"]:  # weights=null of a network by its name is meant
        warn_of_no_training(network, "network.weights")
    layer = network.resolve(run.layer, run.depth)
    if run.images.bands is not None and not all(0 <= band < network.channels for band in run.images.bands):
        raise ConfigurationError(
            f"images.bands must be three numbers of 0 to {network.channels - 1} (the network takes {network.channels} "
            f"channels), not {list(run.images.bands)}"
        )
    network.to(pick_device(run.running.accelerator))
    # From here on only the way to the layer is kept. Discovery knows no previous layer, so that all cells share it.
    matching = matching_of(method.objective)
    way = () if matching is None else resolve_way(network, layer, matching.layers)
    if way:
        log.info("on the way to %s: %s", layer, ", ".join(way))
    return Looking(network, layer, prepare(network, layer, way=way))


class Drawing(NamedTuple):
    """What the pictures are drawn with."""

    network: "PreparedNetwork"  # which records the layers of penalty and anchor too, where there are any
    method: "Method"  # with their exact names, and the image that it starts from
    channels: int  # the layer's


def prepare_drawing(run: Run, looking: Looking, method: "Method") -> Drawing:
    """The network and the method that draw; a small picture goes through both, so that what the layer, the method or a
    part of it refuse is said before photographs are read."""
    from mindseye.networks.preparing import prepare
    from mindseye.visualizer.anchor import early_of
    from mindseye.visualizer.trying import try_out

    drawing, early = looking.prepared, early_of(looking.network, looking.layer, method.objective)
    if early is not None:
        log.info("pictures are held to their start at %s", early)
    if method.previous is not None or early is not None:
        drawing = prepare(looking.network, looking.layer, method.previous, looking.prepared.way, early)
    side = run.images.size or looking.network.size
    method = with_start(run, replace(method, previous=drawing.previous), drawing.channels, side)
    channels = try_out(drawing, method, run.facets.k, side)
    try_parts(method, drawing.channels, side)
    return Drawing(drawing, method, channels)


def find_photographs(
    run: Run, network: "Network | PreparedNetwork", folder: Path
) -> tuple["Photographs", dict[str, str] | None]:
    """The user's photographs, or freshly drawn ones with the facet of each (its file name -> facet)."""
    from mindseye.facets.photographs import load_photographs

    images = run.images
    size, window = images.size or network.size, (images.black, images.white)
    if images.root is not None:
        return load_photographs(images.root, size, network.channels, *window), None
    from mindseye.demo.photographs import write_photographs

    root = folder / "photographs"
    write_photographs(root, images.kind, images.count, seed=run.drawing.seed)
    factors = json.loads((root / "factors.json").read_text())
    photographs = load_photographs(root, size, network.channels, *window)
    return photographs, {name: factor["facet"] for name, factor in factors.items()}


def open_cache(settings: CacheSettings) -> "Cache | None":
    """What runs share; None where its limit is 0."""
    from mindseye.facets.cache import Cache, default_folder

    if settings.limit_gb == 0:
        return None
    folder = default_folder() if settings.folder is None else Path(settings.folder)
    return Cache(folder, round(settings.limit_gb * 1e9))


def layers_of_the_sweep(run: Run, looking: Looking) -> list[str]:
    """Further layers at which cells of the same sweep look at the same photographs through the same network."""
    hydra_config = HydraConfig.get()
    if hydra_config.mode != RunMode.MULTIRUN:
        return []
    try:
        manifest = Manifest.read(Path(hydra_config.sweep.dir))
    except ValueError:  # damaged: then this layer alone
        return []
    # What a cell does not say stands in the configuration, in an experiment's file perhaps. It is seen here where this
    # cell does not say it either; where it does, the other cell looks for itself.
    given = {word.lstrip("+").partition("=")[0] for word in hydra_config.overrides.task}
    layers: dict[str, None] = {}
    for name, depth in layers_beside(manifest, list(hydra_config.overrides.task)):
        if name is None:
            if "layer" in given:
                continue
            name = run.layer
        if name is None and depth is None:
            if "depth" in given:
                continue
            depth = run.depth
        with suppress(ValueError):  # that cell will say itself that there is no such layer
            layers[looking.network.resolve(name, depth)] = None
    return [other for other in layers if other != looking.layer]


def discover(
    run: Run, looking: Looking, photographs: "Photographs", cache: "Cache | None", progress: JobProgress
) -> "FacetTargets":
    """Facets; layers of the same sweep's other cells look at the photographs in one pass with this one."""
    from mindseye.facets.discovery import discover_facets
    from mindseye.facets.survey import Passing, survey_together

    others = layers_of_the_sweep(run, looking) if cache is not None else []
    if others:
        passing = Passing(run.facets.batch_size, workers=run.facets.workers, progress=progress.reading)
        survey_together(looking.network, photographs, [looking.layer, *others], passing, cache=cache)
    targets = discover_facets(
        looking.prepared,
        photographs,
        looking.layer,
        run.facets,
        cache=cache,
        progress=progress.reading,
        stage=progress.stage,
    )
    progress.found(targets.C)
    return targets if run.images.bands is None else replace(targets, bands=run.images.bands)


class Judge(NamedTuple):
    """A network of the group `transfer`."""

    name: str  # of its node
    network: "Network"
    layer: str


def load_judges(run: Run, looking: Looking) -> list[Judge]:
    """The networks that judge, on the CPU, each at its layer, which is tried on one image of noise.

    Raises ValueError in one line for one whose layer is none, before any photograph is looked at.
    """
    nodes = {name: node for name, node in run.parts["transfer"].items() if node is not None}
    if not nodes:
        return []
    from mindseye.networks.chance import seeded
    from mindseye.results.judges import check_layer

    loaded = []
    for name, node in nodes.items():
        settings = {key: value for key, value in node.items() if key != "layer"}
        with seeded(run.drawing.seed):
            network = make_network(settings, f"transfer.{name}")
        if network.channels != looking.network.channels:
            raise ConfigurationError(
                f"transfer.{name} takes {network.channels} channels and the network {looking.network.channels}: they "
                "must agree"
            )
        asked = None if node.get("layer") is None else str(node["layer"])  # one may be called 2
        try:
            layer = network.resolve(asked, "late")
            check_layer(network, layer, run.images.size or looking.network.size)
        except ValueError as error:
            raise ConfigurationError(f"transfer.{name}.layer: {error}") from error
        loaded.append(Judge(str(name), network, layer))
    return loaded


def judges(
    run: Run, judging: Sequence[Judge], targets: "FacetTargets", cache: "Cache | None"
) -> list["TransferReference"]:
    """What each of the networks that judge sees in the photographs; the first gives the plain figures."""
    if not judging:
        return []
    from mindseye.facets.photographs import Photographs
    from mindseye.results.judges import transfer_reference

    channels, size = targets.initial.shape[1], targets.initial.shape[-1]
    window = (run.images.black, run.images.white)
    photographs = Photographs(Path(targets.root), targets.paths, size, channels, (), *window)
    references = []
    for judge in judging:
        judge.network.to(pick_device(run.running.accelerator))
        seen = transfer_reference(judge.network, judge.layer, targets, photographs, cache=cache)
        references.append(replace(seen, name=judge.name))
    return references


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

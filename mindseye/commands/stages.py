"""The stages of a run, each made out of its own settings: networks, photographs, facets, judges."""

import json
import logging
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from mindseye.commands.composing import ConfigurationError, make
from mindseye.commands.helping import hand_out, meet
from mindseye.commands.parts import pick_device, try_parts, with_start
from mindseye.commands.progress import JobProgress
from mindseye.settings import CacheSettings, Run
from mindseye.sweeps.inputs import note_inputs
from mindseye.sweeps.manifest import Manifest, layers_beside

if TYPE_CHECKING:
    from mindseye.facets.cache import Cache
    from mindseye.facets.photographs import Photographs
    from mindseye.facets.targets import FacetTargets
    from mindseye.networks import Network
    from mindseye.networks.preparing import PreparedNetwork
    from mindseye.results.judges import TransferReference
    from mindseye.visualizer.method import Method

# What the message of a source calls its own arguments: here they are settings of its group.
OF_A_SOURCE = re.compile(r"(?<![\w./'\"-])(weights|arguments|prefix)=")
log = logging.getLogger(__name__)


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
    about: dict[str, object]  # what is looked at, for trackers: network, layer, and how many channels it has


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
    return Drawing(drawing, method, {"network": looking.network.name, "layer": looking.layer, "channels": channels})


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


class Shown(NamedTuple):
    """What the network is shown."""

    photographs: "Photographs"
    factors: dict[str, str] | None  # the true facet of each of the demo's, by its file's name
    inputs: dict[str, Any]  # which files there were, the settings' too
    cache: "Cache | None"  # of what it says of them


def show(run: Run, looking: Looking, folder: Path, files: Mapping[str, str]) -> Shown:
    """The photographs, once every node's task can draw. files: the sha256 of those that the settings name."""
    meet()
    photographs, factors = find_photographs(run, looking.prepared, folder)
    return Shown(photographs, factors, note_inputs(files, run.images.root, photographs), open_cache(run.cache))


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


def discover(run: Run, looking: Looking, shown: Shown, progress: JobProgress) -> tuple["FacetTargets", float]:
    """Facets, for every node's task, and the seconds that it took to find them.

    Layers of the same sweep's other cells look at the photographs in one pass with this one.
    """
    from mindseye.facets.discovery import discover_facets
    from mindseye.facets.survey import Passing, survey_together

    begun = time.perf_counter()
    others = layers_of_the_sweep(run, looking) if shown.cache is not None else []
    if others:
        passing = Passing(run.facets.batch_size, workers=run.facets.workers, progress=progress.reading)
        survey_together(looking.network, shown.photographs, [looking.layer, *others], passing, cache=shown.cache)
    targets = discover_facets(
        looking.prepared,
        shown.photographs,
        looking.layer,
        run.facets,
        cache=shown.cache,
        progress=progress.reading,
        stage=progress.stage,
    )
    progress.found(targets.C)
    if run.images.bands is not None:
        targets = replace(targets, bands=run.images.bands)
    seconds = time.perf_counter() - begun
    hand_out(targets)
    return targets, seconds


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

"""`mindseye`: one run from photographs and a network to pictures, by Hydra's grammar."""

import argparse
import inspect
import json
import logging
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from hydra.utils import get_object
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mindseye.commands import verbosity
from mindseye.commands.configuration import (
    CONFIG_NAME,
    CONSTRUCTORS_OF,
    ConfigurationError,
    check,
    check_overrides,
    check_own_files,
    compose,
    composition_error,
    config_folder,
    escaped,
    make,
    make_metric,
    quoted,
)
from mindseye.commands.gallery import try_gallery
from mindseye.commands.launchers import anchored, check_launcher, enter
from mindseye.commands.progress import JobProgress
from mindseye.commands.repeating import EarlierRun, read_earlier, repeated_folder, tell_differences
from mindseye.commands.tracking import check_trackers, make_trackers, tracked
from mindseye.files import hash_of
from mindseye.provenance import file_sha256
from mindseye.reports.tables import closing_table
from mindseye.results.measures import numbers, usual
from mindseye.results.run_status import Occupied, RunRecord
from mindseye.signals import CTRL_C, TO_BE_CONTINUED, Interrupted, Interruptible
from mindseye.sweeps.inputs import INPUTS, note_inputs
from mindseye.sweeps.manifest import Manifest, layers_beside

if TYPE_CHECKING:
    from mindseye.facets.cache import Cache
    from mindseye.facets.grouping import GroupingSettings
    from mindseye.facets.photographs import Photographs
    from mindseye.facets.targets import FacetTargets
    from mindseye.networks import Network
    from mindseye.results.judges import TransferReference

# What --from named, for the job that Hydra calls in this process.
_repeated: ContextVar[EarlierRun | None] = ContextVar("repeated", default=None)
log = logging.getLogger(__name__)


def visualize(arguments: Sequence[str]) -> None:
    """Check every override, then hand over to Hydra, which calls `run` for each job."""
    folder, arguments = repeated_folder(arguments)
    many = any(re.fullmatch(r"-\w*m\w*|--mul\w*|\+*hydra\.mode=MULTIRUN", word) for word in arguments)
    arguments = [anchored(quoted(word, sweeps=many)) for word in arguments]
    earlier = None
    if folder is not None:
        earlier = read_earlier(folder)
        arguments = [*earlier.overrides_beside(arguments), *arguments]
    parser = get_args_parser()
    parser.prog, parser.usage = "mindseye", "mindseye [options] [KEY=VALUE …]; mindseye --help says more"
    asked = parser.parse_intermixed_args(arguments)
    if earlier is not None and not asked.multirun:
        asked.overrides.append("hydra.mode=RUN")  # a cell of an experiment is one run
        arguments.append("hydra.mode=RUN")
    check_flags(asked)
    # Hydra itself takes options in front of the settings or behind them, not among them.
    arguments = [*(word for word in arguments if word not in asked.overrides), *asked.overrides]
    shows_only = asked.help or asked.hydra_help or asked.info or asked.cfg or asked.shell_completion
    where = [f"hydra.searchpath=[{escaped(f'file://{Path(asked.config_dir).absolute()}')}]"] if asked.config_dir else []
    if not shows_only:
        check_trackers(asked.overrides)
        check_overrides([*where, *asked.overrides])
        check_launcher(asked.overrides)
    elif asked.info or asked.cfg:
        compose([*where, *asked.overrides], with_hydra=True)
    token = _repeated.set(earlier)
    try:
        hand_over(arguments)
    finally:
        _repeated.reset(token)


def check_flags(asked: argparse.Namespace) -> None:
    """Refuse flags of Hydra's that mean nothing here, or too much."""
    if asked.experimental_rerun:
        raise ConfigurationError(
            "--experimental-rerun reads a pickle, which may run anything: mindseye --from RUN_FOLDER repeats a run"
        )
    if asked.config_name or asked.config_path:
        raise ConfigurationError(
            "--config-name, --config-path: there is one configuration; --config-dir=FOLDER adds files of your own to "
            "its groups, FOLDER/experiment/mine.yaml say, for experiment=mine"
        )
    if asked.config_dir:
        check_own_files(Path(asked.config_dir))


def hand_over(arguments: Sequence[str]) -> None:
    """Let Hydra run the job or the sweep of jobs, without looking at the overrides first.

    Raises ConfigurationError, in one line, for what it cannot compose.
    """
    sys.argv = ["mindseye", *arguments]
    told = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises what it would else print, often as a traceback
    try:
        with verbosity.unfailing_output():
            hydra.main(version_base="1.3", config_path=str(config_folder()), config_name=CONFIG_NAME)(run)()
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigurationError(composition_error(error)) from error
    finally:
        if told is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = told


def run(config: DictConfig) -> float | None:
    """One job. Returns the measure to compare by, see `measure` in conf/visualize.yaml.

    How it is doing stands in the run folder's status.json. In a sweep, a cell that is completed already comes back at
    once. What was interrupted goes on where it was. A signal (SIGTERM, SIGUSR1, SIGUSR2) ends the run with exit code
    TO_BE_CONTINUED, after whatever handler the scheduler's own library had set for it, which puts the job back into
    the queue. What the user can mend (ValueError, OSError, and RuntimeError, which networks raise) ends a single run
    with one line; in a sweep it fails the cell alone. Either way the run folder's run.log has the whole traceback.
    """
    hydra_config = HydraConfig.get()
    folder = Path(hydra_config.runtime.output_dir)
    in_sweep = hydra_config.mode == RunMode.MULTIRUN
    # Unresolved: the same wherever the run folder lies.
    key = hash_of(OmegaConf.to_yaml(config).encode())
    record = RunRecord(folder, list(hydra_config.overrides.task), key, keep_completed=in_sweep)
    with verbosity.unfailing_output(), verbosity.log_on_terminal(), Interruptible() as signals:
        try:
            with record:
                if record.completed is not None:
                    log.info("completed already: %s", folder)
                    return record.completed.measure
                with signals.insisted():
                    measure = _run(config, folder, key, record)
                if not in_sweep and (earlier := _repeated.get()) is not None:
                    tell_differences(earlier, folder)
                return measure
        except (Interrupted, KeyboardInterrupt) as stop:
            by_hand = isinstance(stop, KeyboardInterrupt)
            again = f"the same command with hydra.run.dir={folder}"
            if in_sweep:
                again = f"mindseye sweep resume {Path(hydra_config.sweep.dir).absolute()}"
            if record.is_complete and not in_sweep:
                print(f"mindseye: {'interrupted' if by_hand else stop}; the run is complete: {folder}", file=sys.stderr)
                raise SystemExit(CTRL_C if by_hand else 0) from None
            print(f"mindseye: {'interrupted' if by_hand else stop}; {again} goes on", file=sys.stderr)
            if by_hand:
                raise SystemExit(CTRL_C) from None
            handler = signals.handler_before(stop.signum)
            if handler is not None:  # submitit's, say: it asks the scheduler for another turn, and ends the process
                handler(stop.signum, None)
            raise SystemExit(TO_BE_CONTINUED) from None
        except Occupied as error:
            if in_sweep:
                log.warning("%s", error)  # the other one's work is as good as ours
                return None
            print(f"mindseye: {error}", file=sys.stderr)
            raise SystemExit(1) from None
        except Exception as error:
            logging.getLogger("mindseye.run").info("failed", exc_info=True)
            if in_sweep or not isinstance(error, ValueError | OSError | RuntimeError):
                raise
            where = f"; the traceback is in {folder / 'run.log'}" if is_a_programs_mistake(error) else ""
            print(f"mindseye: {' '.join(str(error).split())}{where}", file=sys.stderr)
            raise SystemExit(1) from None


def is_a_programs_mistake(error: BaseException) -> bool:
    """Whether what is said in one line was first raised as something that a program's author needs the traceback of."""
    cause = error.__cause__
    while isinstance(cause, ValueError | OSError | HydraException):
        cause = cause.__cause__
    return cause is not None


def _run(config: DictConfig, folder: Path, key: str, record: RunRecord) -> float | None:
    hydra_config = HydraConfig.get()
    if not hydra_config.job.chdir:
        enter(hydra_config.runtime.cwd)
    check(config)
    started = time.perf_counter()
    # Everything cheap is made first: a wrong value in any of it costs no reading of networks or photographs.
    parts = make_parts(config)
    device = pick_device(config.trainer.accelerator)
    sweep = Path(hydra_config.sweep.dir).absolute() if hydra_config.mode == RunMode.MULTIRUN else None
    experiment = hydra_config.runtime.choices.get("experiment")
    trackers = make_trackers(config, folder, hydra_config.overrides.task, sweep=sweep, experiment=experiment)

    from mindseye.facets.embedding import pick_method
    from mindseye.facets.number import MOST_KINDS
    from mindseye.networks import warn_of_no_training
    from mindseye.networks.chance import seeded
    from mindseye.networks.preparing import prepare
    from mindseye.networks.way import resolve_way
    from mindseye.results.visualization import visualize as draw
    from mindseye.visualizer.checkpoints import Checkpoint
    from mindseye.visualizer.fitting import count_processes
    from mindseye.visualizer.objective import matching_of

    most = MOST_KINDS if config.C == "auto" else config.C
    count_processes(config.trainer.devices, most, config.trainer.accelerator)
    # How many photographs can be read is not known yet; what is installed, and the settings, are refused all the same.
    pick_method(config.facets.subsample, config.facets.tsne, config.facets.subsample)
    check_photographs(config)
    files = {path: file_sha256(path) for path in input_files(config, hydra_config)}  # before they are read
    with seeded(config.seed):
        network: Network = make(config.network)
    if config.images.root is not None and network_is_unsaid(hydra_config):
        log.warning("the demo's network looks at the photographs, since none is named: network=resnet50, say")
    if "target" in config.network:  # weights=null of a network by its name is meant
        warn_of_no_training(network)
    # A layer of an nn.Sequential is called 2, which YAML reads as a number.
    layer = network.resolve(_text(config.layer), config.depth)
    network.to(device)
    # From here on only the way to the layer is kept. Discovery knows no previous layer, so that all cells share it.
    matching = matching_of(parts["objective"])
    way = () if matching is None else resolve_way(network, layer, matching.layers)
    if way:
        log.info("on the way to %s: %s", layer, ", ".join(way))
    looking = prepare(network, layer, way=way)
    drawing = looking if config.previous is None else prepare(network, layer, _text(config.previous), way)
    photographs, factors = find_photographs(config, looking, folder)
    inputs = note_inputs(files, config.images.root, photographs)
    cache = open_cache(config)
    others = layers_of_the_sweep(config, network, layer) if cache is not None else []
    console = verbosity.console()
    measures = 4 + 6 * sum(node is not None for node in config.transfer.values())
    with (
        tracked(trackers, config, folder),
        JobProgress(
            console, photographs=len(photographs), pictures=most, steps=config.steps, measures=measures
        ) as progress,
    ):

        def report(step: int, terms: dict[str, float]) -> None:
            record.progress(step, config.steps)
            progress.drawing(step, terms)

        begun = time.perf_counter()
        if others:
            survey_together(config, network, photographs, [layer, *others], cache, progress)
        del network
        targets = discover(config, looking, photographs, layer, cache, progress)
        discovery_s = time.perf_counter() - begun
        progress.found(targets.C)
        found = replace(targets, root="").content_hash()  # the same wherever the photographs lie
        checkpoint = Checkpoint(folder / "checkpoint", f"{key} {found}", config.checkpoint)
        references = judges(config, targets, cache)
        progress.stage("drawing")
        result = draw(
            drawing,
            targets,
            steps=config.steps,
            facets_per_batch=config.facets_per_batch,
            seed=config.seed,
            accelerator=config.trainer.accelerator,
            devices=config.trainer.devices,
            precision=config.precision,
            compile=config.compile,
            snapshots_every=config.snapshots,
            gradients_every=config.gradients,
            logger=trackers,
            report=report,
            announce=progress.stage,
            references=references,
            checkpoint=checkpoint,
            **parts,
        )
        complete(result.metrics, targets, factors, discovery_s, time.perf_counter() - started, config)
        result.metrics["provenance"][INPUTS] = inputs
        measure = measure_of(result.metrics["summary"], config.measure)
        result.save(folder, config=OmegaConf.to_yaml(config, resolve=True))
        record.complete(measure)  # whatever becomes of what follows, the result is there
        checkpoint.discard()
        page = try_gallery(folder)
        if trackers:
            from mindseye.reports.tracking import track_result  # matplotlib

            progress.stage("telling the trackers")
            track_result(
                trackers,
                folder,
                targets=targets,
                images=result.images,
                metrics=result.metrics,
                steps=config.steps,
            )
    console.print(closing_table(result))
    for name in ("facets.png", "facets", "metrics.json", *([page.name] if page else [])):
        console.print(f"{folder / name}", soft_wrap=True, highlight=False, markup=False)
    if verbosity.is_quiet() and sweep is None:
        print(folder, flush=True)
    return measure


def input_files(config: DictConfig, hydra_config: Any) -> list[str]:
    """Every file that the settings name: weights, checkpoints, code of one's own, and one's own files of settings.

    Of a dotted path it is the module in the current directory, if there is one. Modules that code imports in turn are
    not seen, nor what is installed, whose versions are kept beside.
    """
    files: dict[str, None] = {}
    for group, node in OmegaConf.to_container(config, resolve=True).items():
        if group not in ("images", "facets", "cache", "trainer", "logger"):
            files |= dict.fromkeys(file for text in _texts(node) for file in _files_of(text))
    for source in hydra_config.runtime.config_sources:
        if source.schema == "file" and Path(source.path) != config_folder():
            named = ((group, one) for group, said in hydra_config.runtime.choices.items() for one in _listed(said))
            own = (os.path.join(source.path, group, f"{one}.yaml") for group, one in named)
            files |= dict.fromkeys(file for file in own if os.path.isfile(file))
    return list(files)


def _texts(node: Any) -> Iterator[str]:
    if isinstance(node, dict | list):
        for value in node.values() if isinstance(node, dict) else node:
            yield from _texts(value)
    elif isinstance(node, str):
        yield node


def _listed(said: Any) -> list[Any]:
    return list(said) if isinstance(said, list | ListConfig) else [said]


def _files_of(text: str) -> Iterator[str]:
    """The file that a setting's text is the path of, or whose function or class it names."""
    yield from (path for path in (text, text.rpartition(":")[0]) if path and os.path.isfile(os.path.expanduser(path)))
    if re.fullmatch(r"[A-Za-z_]\w*(\.\w+)+", text, re.ASCII) and text.partition(".")[0] not in CONSTRUCTORS_OF:
        parts = text.split(".")
        modules = (os.path.join(*parts[:count]) for count in range(1, len(parts)))
        yield from (file for one in modules for file in (f"{one}.py", f"{one}/__init__.py") if os.path.isfile(file))


def network_is_unsaid(hydra_config: Any) -> bool:
    """Whether the network is the demo's for want of any other; of a sweep's cells the first alone is asked."""
    first = hydra_config.mode != RunMode.MULTIRUN or hydra_config.job.num == 0
    said = any(word.lstrip("+").startswith("network") for word in hydra_config.overrides.task)
    return first and not said and hydra_config.runtime.choices.get("network") == "demo"


def measure_of(summary: Mapping[str, Any], name: str | None) -> float | None:
    """A figure of `metrics.json`'s summary by its dotted name, the usual one for None.

    None, with a warning, where the run has none such.
    """
    figures = dict(numbers(summary))
    name = usual([figures]) if name is None else name
    if name not in figures:
        log.warning("measure=%s: this run has no such figure", name)
    return figures.get(name)


def layers_of_the_sweep(config: DictConfig, network: "Network", layer: str) -> list[str]:
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
    found: dict[str, None] = {}
    for name, depth in layers_beside(manifest, list(hydra_config.overrides.task)):
        if name is None:
            if "layer" in given:
                continue
            name = _text(config.layer)
        if name is None and depth is None:
            if "depth" in given:
                continue
            depth = config.depth
        with suppress(ValueError):  # that cell will say itself that there is no such layer
            found[network.resolve(name, depth)] = None
    return [other for other in found if other != layer]


def survey_together(
    config: DictConfig,
    network: "Network",
    photographs: "Photographs",
    layers: Sequence[str],
    cache: "Cache",
    progress: JobProgress,
) -> None:
    """What the layers say of the photographs, in one pass, into the cache."""
    from mindseye.facets.survey import survey_together as survey

    survey(
        network,
        photographs,
        layers,
        batch_size=config.facets.batch_size,
        workers=config.facets.workers,
        cache=cache,
        progress=progress.reading,
    )


def _text(name: object) -> str | None:
    return None if name is None else str(name)


def make_parts(config: DictConfig) -> dict[str, Any]:
    """The method's parts out of their groups, by the names of `visualize`'s arguments."""
    from mindseye.results.metrics import check_names

    measures = {str(name): make_metric(node) for name, node in config.metrics.items() if node is not None}
    check_names(measures)
    filters = [make(one) for one in config.filters.values() if one is not None]
    canvas = make(config.canvas)
    if "seed" in inspect.signature(get_object(config.canvas._target_)).parameters:
        canvas = partial(canvas, seed=config.seed)
    optimizer = make(config.optimizer)
    _try_out(canvas, optimizer)
    return {
        "objective": make(config.objective),
        "canvas": canvas,
        "schedules": make(config.schedule),
        "transformations": make(config.transformations),
        "optimizer": optimizer,
        "filters": filters,
        "measures": measures,
    }


def _try_out(canvas: Any, optimizer: Any) -> None:
    """Both are made from the facets, much later: one small picture shows what their constructors refuse."""
    import torch

    name = "canvas"
    picture = torch.full((1, 3, 8, 8), 0.5)
    try:
        pixels = canvas(picture, picture[:, None])
        name = "optimizer"
        optimizer(pixels.parameters())
    except Exception as error:  # whatever a constructor of anybody's raises
        raise ConfigurationError(f"{name}: {error}" if name not in str(error) else str(error)) from error


def pick_device(accelerator: str) -> str:
    """Where the photographs are looked at: what Lightning will choose for the fit."""
    import torch

    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return "cuda"
    if accelerator in ("auto", "gpu", "mps") and torch.backends.mps.is_available():
        return "mps"
    if accelerator in ("auto", "cpu"):
        return "cpu"
    raise ConfigurationError(f"trainer.accelerator={accelerator}: this machine has none; cpu or auto is right")


def check_photographs(config: DictConfig) -> None:
    """Refuse a folder that is none and a kind of object that cannot be drawn."""
    from mindseye.facets.photographs import photograph_folder

    if config.images.root is not None:
        photograph_folder(config.images.root)
        return
    from mindseye.demo.photographs import KINDS

    if config.images.get("kind") not in KINDS:
        raise ConfigurationError(f"images.kind={config.images.get('kind')}: {', '.join(KINDS)} are right")


def find_photographs(
    config: DictConfig, network: "Network", folder: Path
) -> tuple["Photographs", dict[str, str] | None]:
    """The user's photographs, or freshly drawn ones with the facet of each (its file name -> facet)."""
    from mindseye.facets.photographs import load_photographs

    size = config.images.size or network.size
    if config.images.root is not None:
        return load_photographs(config.images.root, size, network.channels, *window(config)), None
    from mindseye.demo.photographs import write_photographs

    root = folder / "photographs"
    write_photographs(root, config.images.kind, config.images.count, seed=config.seed)
    factors = json.loads((root / "factors.json").read_text())
    photographs = load_photographs(root, size, network.channels, *window(config))
    return photographs, {name: said["facet"] for name, said in factors.items()}


def window(config: DictConfig) -> tuple[float | None, float | None]:
    """The values in the files that become 0 and 1; a group of the user's own need not have them."""
    return config.images.get("black"), config.images.get("white")


def open_cache(config: DictConfig) -> "Cache | None":
    """What runs share, by the settings of the group `cache`; None where its limit is 0."""
    from mindseye.facets.cache import Cache, default_folder

    if config.cache.limit_gb == 0:
        return None
    folder = default_folder() if config.cache.folder is None else Path(str(config.cache.folder))
    return Cache(folder, round(config.cache.limit_gb * 1e9))


def grouping(config: DictConfig) -> "GroupingSettings":
    """How photographs are grouped, by the group `facets`."""
    from mindseye.facets.grouping import GroupingSettings

    names = ("clusters", "components", "perplexity", "tsne", "subsample")
    return GroupingSettings(**{name: config.facets[name] for name in names}, seed=config.seed)


def discover(
    config: DictConfig,
    network: "Network",
    photographs: "Photographs",
    layer: str,
    cache: "Cache | None",
    progress: JobProgress,
) -> "FacetTargets":
    """Facets by the settings of the group `facets`."""
    from mindseye.facets.discovery import discover_facets

    return discover_facets(
        network,
        photographs,
        layer,
        facets=config.C,
        k=config.k,
        N=config.facets.N,
        clusters=config.facets.clusters,
        weighting=config.facets.weighting,
        effective=config.facets.effective,
        selection=config.facets.selection,
        gamma=config.facets.gamma,
        components=config.facets.components,
        perplexity=config.facets.perplexity,
        tsne=config.facets.tsne,
        subsample=config.facets.subsample,
        held_out=config.images.get("held_out", 0.0),  # a group of the user's own need not have it
        batch_size=config.facets.batch_size,
        workers=config.facets.workers,
        seed=config.seed,
        cache=cache,
        progress=progress.reading,
        stage=progress.stage,
    )


def judges(config: DictConfig, targets: "FacetTargets", cache: "Cache | None") -> list["TransferReference"]:
    """The networks of the group `transfer`, the first of which gives the plain figures, and what each of them sees."""
    nodes = {name: node for name, node in config.transfer.items() if node is not None}
    if not nodes:
        return []
    from mindseye.facets.photographs import Photographs
    from mindseye.networks.chance import seeded
    from mindseye.results.judges import transfer_reference

    channels = targets.initial.shape[1]
    size = targets.initial.shape[-1]
    photographs = Photographs(Path(targets.root), targets.paths, size, channels, (), *window(config))
    references = []
    for name, node in nodes.items():
        settings = node.copy()
        OmegaConf.set_struct(settings, False)
        layer = _text(settings.pop("layer", None))
        with seeded(config.seed):
            other: Network = make(settings)
        if other.channels != channels:
            raise ConfigurationError(
                f"transfer.{name} takes {other.channels} channels and the network {channels}: they must agree"
            )
        other.to(pick_device(config.trainer.accelerator))
        seen = transfer_reference(other, other.resolve(layer, "late"), targets, photographs, cache=cache)
        references.append(replace(seen, name=str(name)))
    return references


def complete(
    metrics: dict,
    targets: "FacetTargets",
    factors: dict[str, str] | None,
    discovery_s: float,
    total_s: float,
    config: DictConfig,
) -> None:
    """Add to the measures what only the command knows: the demo's true facets, whole times, the configuration."""
    from mindseye.results.metrics import adjusted_rand_index

    if factors is not None:
        ari = adjusted_rand_index(targets.labels, [factors[name] for name in targets.paths])
        metrics["summary"]["facets"]["ari"] = round(ari, 6)
    metrics["timing"].update(discovery_s=round(discovery_s, 3), total_s=round(total_s, 3))
    metrics["provenance"]["config_sha256"] = hash_of(OmegaConf.to_yaml(config, resolve=True).encode())

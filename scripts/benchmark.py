"""What mindseye costs beside the bare network and beside other tools: `make bench`, or python scripts/benchmark.py.

Everything is a ratio of two things measured alternately in one process, the median over rounds: absolute times say
little on shared machines. The yardstick is the *bare step*: torchvision's network as it is, eager, float32, frozen,
forward to the target layer and backward to the input, the same batch, nothing else.

    python scripts/benchmark.py                        # every group, about half an hour on two cores
    python scripts/benchmark.py --only step peers --json rows.json
    python scripts/benchmark.py --device cuda          # the table of a GPU
"""

import argparse
import contextlib
import copy
import datetime
import importlib.metadata
import io
import json
import logging
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from PIL import Image
from torch import Tensor, nn

from mindseye.demo.photographs import KINDS, generate, write_photographs
from mindseye.facets.blending import look_at
from mindseye.facets.cache import Cache
from mindseye.facets.discovery import discover_facets
from mindseye.facets.photographs import load_photographs
from mindseye.facets.survey import to_unit
from mindseye.facets.targets import FacetTargets
from mindseye.facets.way_statistics import IMAGE
from mindseye.networks import Network, TorchvisionSource, demo_network
from mindseye.networks.maps import as_maps
from mindseye.networks.preparing import Precision, PreparedNetwork, prepare
from mindseye.networks.way import layers_on_the_way
from mindseye.settings import Facets, Running
from mindseye.visualizer.callbacks import Blur, GradientMask, TVDenoise
from mindseye.visualizer.canvas import FourierCanvas, PixelCanvas
from mindseye.visualizer.filters import rof_energy, tv_denoise
from mindseye.visualizer.fitting import fit
from mindseye.visualizer.matching import Matching
from mindseye.visualizer.method import Method, calibrated_adam
from mindseye.visualizer.objective import Objective
from mindseye.visualizer.schedules import Schedules
from mindseye.visualizer.terms import Seen
from mindseye.visualizer.transformations import Transformations, view

BLOCK = 10  # steps: one of each filter's periods, so that every block holds the same work
STILL = Transformations(jitter=0, scale=0, rotation=0, noise=0)


@dataclass(frozen=True)
class Row:
    """One line of the table. `ratio` is value / that of `ratio_to`, from the same rounds; `note` says what is odd."""

    name: str
    value: float | None
    unit: str
    ratio_to: str | None = None
    ratio: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Case:
    """A network, a layer, a number of facets and a size."""

    network: str
    layer: str
    facets: int
    size: int = 224

    def __str__(self) -> str:
        return f"{self.network} {self.layer}, C={self.facets}, {self.size}²"


# ---- the bare step -------------------------------------------------------------------------------------------------


class _Stop(BaseException):
    pass


class Bare:
    """The yardstick."""

    def __init__(self, body: nn.Module, layer: str, images: Tensor) -> None:
        self.body, self.images = body.requires_grad_(False).eval(), images
        self.answer: Tensor | None = None
        body.get_submodule(layer).register_forward_hook(self._stop)

    def _stop(self, module: nn.Module, arguments: Any, output: Tensor) -> None:
        self.answer = output
        raise _Stop

    def forward(self, images: Tensor) -> Tensor:
        with contextlib.suppress(_Stop):
            self.body(images)
        return self.answer

    def __call__(self) -> None:
        images = self.images.clone().requires_grad_()
        self.forward(images).sum().backward()
        self.answer = None


def bare_of(case: Case, network: Network) -> Bare:
    """On a copy of its own, so that neither run touches the other's network."""
    body = TorchvisionSource(case.network, weights=None).load().body
    body.load_state_dict(network.body.state_dict())
    device = network.mean.device
    return Bare(body.to(device), case.layer, torch.rand(case.facets, 3, case.size, case.size, device=device))


# ---- measuring side by side ----------------------------------------------------------------------------------------


def waited(device: torch.device) -> float:
    """The host's clock once the device has done all it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


class Alternate(pl.Callback):
    """In a real fit, after every step: the rivals' turn. Their time is not the fit's."""

    def __init__(self, rivals: dict[str, Callable[[], None]]) -> None:
        self.rivals = rivals
        self.seconds: dict[str, list[float]] = {"ours": [], **{name: [] for name in rivals}}
        self._resumed: float | None = None

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now = waited(pl_module.device)
        if self._resumed is not None:
            self.seconds["ours"].append(now - self._resumed)
        for name, rival in self.rivals.items():
            began = waited(pl_module.device)
            rival()
            now = waited(pl_module.device)
            if self._resumed is not None:
                self.seconds[name].append(now - began)
        self._resumed = now

    def blocks(self, name: str) -> list[float]:
        """Seconds a step, block by block; the first block, which fills caches, is left out."""
        spent = self.seconds[name]
        means = [statistics.fmean(spent[first : first + BLOCK]) for first in range(0, len(spent) - BLOCK + 1, BLOCK)]
        return means[1:] or means

    def ratio(self, name: str, to: str) -> float:
        """The median over blocks of one's time over the other's in the same block."""
        return statistics.median(a / b for a, b in zip(self.blocks(name), self.blocks(to), strict=True))


def alternate(rivals: dict[str, Callable[[], None]], rounds: int, device: torch.device) -> dict[str, list[float]]:
    """Seconds of each rival, in turn, `rounds` times after one that is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in rivals}
    for turn in range(rounds + 1):
        for name, rival in rivals.items():
            began = waited(device)
            rival()
            if turn:
                seconds[name].append(waited(device) - began)
    return seconds


def compared(seconds: dict[str, list[float]], name: str, to: str) -> float:
    """The median over rounds of one's time over the other's in the same round."""
    return statistics.median(a / b for a, b in zip(seconds[name], seconds[to], strict=True))


# ---- what is measured ----------------------------------------------------------------------------------------------


def every_filter() -> list[pl.Callback]:
    """The paper's three."""
    return [GradientMask(), Blur(), TVDenoise()]


def case_targets(case: Case, network: Network) -> FacetTargets:
    """Facets of drawn photographs of all kinds."""
    with tempfile.TemporaryDirectory() as folder:
        for kind in KINDS:
            write_photographs(Path(folder) / kind, kind, max(8, 2 * case.facets), size=case.size)
        photographs = load_photographs(folder, case.size)
        return discover_facets(network, photographs, case.layer, Facets(C=case.facets, k=50))


def random_network(name: str, device: torch.device) -> Network:
    """Random weights, and BatchNorm statistics that are not the ones that fold to nothing."""
    torch.manual_seed(0)
    network = TorchvisionSource(name, weights=None).load()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return network.to(device)


def prepared_for(
    network: Network, targets: FacetTargets, matching: bool = True, *, fold: bool = True, channels_last: bool = True
) -> PreparedNetwork:
    """The network as `fit` prepares it: with the layers on the way where the objective matches them."""
    way = [statistics.layer for statistics in targets.way if matching and statistics.layer != IMAGE]
    return prepare(network, targets.layer, way=way, fold=fold, channels_last=channels_last)


def steps(case: Case, device: torch.device, blocks: int, variants: Sequence[str] | None) -> Iterator[Row]:
    """Our whole step, and with each part switched off or on in turn, each beside the bare step."""
    network = random_network(case.network, device)
    bare = bare_of(case, network)
    targets = case_targets(case, network)
    whole = {"filters": every_filter}
    known: dict[str, dict[str, Any]] = {
        "every filter on, float32": whole,
        "default (no filter)": {},
        "without the mask": {"filters": lambda: [Blur(), TVDenoise()]},
        "without blur": {"filters": lambda: [GradientMask(), TVDenoise()]},
        "without TV denoising": {"filters": lambda: [GradientMask(), Blur()]},
        "TV denoising by scikit-image": {"filters": lambda: [GradientMask(), Blur(), TVDenoise(backend="skimage")]},
        "without random views": {**whole, "transformations": STILL},
        "default without matching": {"objective": Objective(matching=Matching(weight=0))},
        "without the penalty": {**whole, "objective": Objective(penalty=0)},
        "without the TV term": {**whole, "objective": Objective(tv=0)},
        "(r, b) fixed": {**whole, "objective": Objective(adaptive="fixed")},
        "pixels for a spectrum": {**whole, "canvas": PixelCanvas},
        "BatchNorm not folded": {**whole, "prepare": {"fold": False}},
        "not channels last": {**whole, "prepare": {"channels_last": False}},
        "neither folded nor channels last": {**whole, "prepare": {"fold": False, "channels_last": False}},
        "bfloat16": {**whole, "precision": "bfloat16"},
        "float16": {**whole, "precision": "float16"},
        "compiled, float32": {**whole, "compile": True},
        "compiled, bfloat16": {**whole, "compile": True, "precision": "bfloat16"},
    }
    measured = [name for name in known if not variants or any(wanted in name for wanted in variants)]
    if not measured:
        raise SystemExit(f"--variants {' '.join(variants or [])}: none of {', '.join(known)} contains it")
    for name in measured:
        chosen = dict(known[name])
        matching = chosen.get("objective", Objective()).matching.weight > 0
        prepared = prepared_for(network, targets, matching, **chosen.pop("prepare", {}))
        filters = chosen.pop("filters", list)()
        clock = Alternate({"bare": bare})
        running = Running(
            accelerator="cuda" if device.type == "cuda" else "cpu",
            snapshots=10**6,
            gradients=chosen.pop("gradients", None),
            compile=chosen.pop("compile", False),
        )
        steps = (blocks + 1) * BLOCK + 1
        fit(prepared, targets, Method(steps=steps, filters=[*filters, clock], **chosen), running)
        value = 1000 * statistics.median(clock.blocks("ours"))
        yield Row(f"step, {case}: {name}", value, "ms", "bare step", clock.ratio("ours", "bare"))


def peers(case: Case, device: torch.device, rounds: int) -> Iterator[Row]:
    """Other tools' step per image that enters the network, beside ours and the bare one: same network, layer, size."""
    network = random_network(case.network, device)
    targets = case_targets(case, network)
    prepared = prepared_for(network, targets)
    low = prepared.in_precision("bfloat16")
    n = BLOCK

    def ours(network: PreparedNetwork, precision: Precision) -> None:
        fit(
            network,
            targets,
            Method(steps=n, filters=every_filter(), precision=precision),
            Running(snapshots=10**6, gradients=None, accelerator="cuda" if device.type == "cuda" else "cpu"),
        )

    bare = bare_of(case, network)
    rivals: dict[str, Callable[[], None]] = {
        "bare": lambda: [bare() for _ in range(n)],
        "ours": partial(ours, prepared, "float32"),
        "ours, bfloat16": partial(ours, low, "bfloat16"),
    }
    mine = [name for name in rivals if name != "bare"]
    images = dict.fromkeys(rivals, case.facets)
    notes = dict.fromkeys(mine, f"{n} steps with Lightning's start and end, which a longer run spreads")
    for name, make in (("lucent", _lucent), ("horama", _horama), ("torch-dreams", _torch_dreams)):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                run, images[name], notes[name] = make(copy.deepcopy(network.body), case, n, device)
        except ImportError as error:
            yield Row(f"peer, {case}: {name}", None, "", note=f"not installed ({error})")
            continue
        except Exception as error:  # whatever another tool's version does under ours of torch and kornia
            yield Row(f"peer, {case}: {name}", None, "", note=f"cannot run: {type(error).__name__}: {error}"[:200])
            continue
        rivals[name] = run
    seconds = alternate(rivals, rounds, device)
    for name in rivals:
        per_image = [spent / n / images[name] for spent in seconds[name]]
        to_bare = compared(seconds, name, "bare") * images["bare"] / images[name]
        row = f"peer, {case}: {name}, a step and image"
        yield Row(row, 1000 * statistics.median(per_image), "ms", "bare step", to_bare, notes.get(name, ""))
        if name in ("bare", *mine):
            continue
        for own in mine:
            ratio = compared(seconds, own, name) * images[name] / images[own]
            yield Row(f"peer, {case}: {own} / {name}", None, "", name, ratio)


def _version(package: str) -> str:
    return f"{package} {importlib.metadata.version(package)}"


def _lucent(body: nn.Module, case: Case, n: int, device: torch.device) -> tuple[Callable[[], None], int, str]:
    from lucent.modelzoo.util import get_model_layers
    from lucent.optvis import objectives, param, render

    layer = next(name for name in get_model_layers(body) if name == case.layer.replace(".", "_"))
    objective = objectives.channel(layer, 0)
    draw = partial(
        render.render_vis, body, objective, lambda: param.image(case.size), thresholds=(n,), progress=False,
        show_image=False,
    )  # fmt: skip
    note = f"{_version('torch-lucent')}, as shipped"
    try:
        draw()
    except Exception as error:
        note = (
            f"{_version('torch-lucent')}; its own transforms fail under {_version('kornia')} "
            f"({type(error).__name__}), so it ran with none: a lower bound"
        )
        draw = partial(draw, transforms=[])
        draw()
    return lambda: draw() and None, 1, note


def _horama(body: nn.Module, case: Case, n: int, device: torch.device) -> tuple[Callable[[], None], int, str]:
    import horama

    bare = Bare(body, case.layer, torch.empty(0))  # ends the pass at the layer, as its users would not: in its favour

    def draw() -> None:
        with contextlib.redirect_stderr(io.StringIO()):
            horama.fourier(
                lambda images: bare.forward(images)[:, 0].mean(), total_steps=n, image_size=case.size,
                model_input_size=case.size, crops_per_iteration=case.facets, device=str(device),
            )  # fmt: skip

    draw()
    return draw, case.facets, f"{_version('horama')}, {case.facets} crops of one picture a step (6 as shipped)"


def _torch_dreams(body: nn.Module, case: Case, n: int, device: torch.device) -> tuple[Callable[[], None], int, str]:
    from torch_dreams import Dreamer

    dreamer = Dreamer(body, quiet=True, device=str(device))

    def draw() -> None:
        dreamer.render(layers=[body.get_submodule(case.layer)], width=case.size, height=case.size, iters=n)

    draw()
    return draw, 1, f"{_version('torch-dreams')}, as shipped"


def lightning(device: torch.device, blocks: int) -> Iterator[Row]:
    """The share of Lightning, callbacks and logging in our step: beside the same mathematics in a plain loop."""
    network = demo_network().to(device)
    layer = network.resolve(depth="late")
    with tempfile.TemporaryDirectory() as folder:
        write_photographs(folder, "padlock", 40)
        targets = discover_facets(network, load_photographs(folder, network.size), layer, Facets(C=4, k=50))
    clock = Alternate({"plain": plain_loop(network, targets, device)})
    fit(
        network,
        targets,
        Method(steps=(blocks + 1) * BLOCK + 1, filters=[clock]),
        Running(snapshots=50, gradients=None, accelerator="cuda" if device.type == "cuda" else "cpu"),
    )
    value = 1000 * statistics.median(clock.blocks("ours"))
    ratio = clock.ratio("ours", "plain")
    yield Row("step of the demo, by Lightning with callbacks and history", value, "ms", "plain loop", ratio)
    yield Row("Lightning, callbacks and logging, share of the demo's step", 100 * (1 - 1 / ratio), "%")


def plain_loop(network: Network, targets: FacetTargets, device: torch.device) -> Callable[[], None]:
    """One step of the default method without Lightning, callbacks or records."""
    prepared = prepared_for(network, targets)
    references = tuple(statistics.to(device) for statistics in targets.way)
    canvas = FourierCanvas(targets.initial, targets.photographs.float() / 255).to(device)
    objective, schedules, views = Objective(), Schedules(), Transformations()
    adaptive = objective.adaptive_distance(targets.C).to(device)
    image_optimizer = calibrated_adam(canvas.parameters())
    adaptive_optimizer = torch.optim.Adam(adaptive.parameters(), lr=0.02)
    maps, channels, strengths = (x.to(device) for x in (targets.maps, targets.channels, targets.strength()))
    generator = torch.Generator(device=device).manual_seed(0)
    everything = slice(0, targets.C)

    def step() -> None:
        now = schedules.at(1, 2)
        for group in image_optimizer.param_groups:
            group["lr"] = now["lr"]
        image_optimizer.zero_grad()
        adaptive_optimizer.zero_grad()
        images = canvas(everything)
        seen = view(images, views.draw(targets.C, generator, now["views"]))
        seen = seen + views.noise * torch.randn(seen.shape, generator=generator, device=device)
        a, previous, way = prepared(seen)
        named = zip(way, prepared.way, strict=True)
        between = (images, *(as_maps(answer, name, prepared.layout(name)) for answer, name in named))
        terms = objective(
            Seen(
                activation=as_maps(a, targets.layer, prepared.layout(targets.layer)),
                previous=previous,
                way=between,
                images=images,
                targets=maps,
                strengths=strengths,
                channels=channels,
                references=references,
                facets=everything,
                adaptive=adaptive,
                now=now,
            )
        )
        terms.total.sum().backward()
        image_optimizer.step()
        adaptive_optimizer.step()

    return step


def denoising(device: torch.device, rounds: int) -> Iterator[Row]:
    """Ten facets at 512² and four at 224²: ours beside scikit-image's, at the same weight, and both energies."""
    for count, side, weight in ((10, 512, 8.0), (10, 512, 45.0), (4, 224, 45.0)):
        generator = np.random.default_rng(0)
        drawn, _ = generate(list(KINDS), count, side)
        clean = torch.from_numpy(drawn).float() / 255
        noisy = (clean + torch.from_numpy(generator.normal(0, 0.08, clean.shape)).float()).clamp(0, 1).to(device)
        results: dict[str, Tensor] = {}

        def run(
            backend: str, noisy: Tensor = noisy, weight: float = weight, results: dict[str, Tensor] = results
        ) -> None:
            results[backend] = tv_denoise(noisy, weight, backend=backend)

        names = ("primal_dual", "skimage")
        seconds = alternate({name: partial(run, name) for name in names}, rounds, device)
        energy = {name: float(rof_energy(results[name], noisy, weight).sum()) for name in names}
        yield Row(
            f"TV denoising, {count} facets at {side}², weight {weight:g}",
            1000 * statistics.median(seconds["primal_dual"]), "ms", "scikit-image", compared(seconds, *names),
            f"energy {energy['primal_dual'] / energy['skimage']:.5f} of scikit-image's",
        )  # fmt: skip


def discovery(name: str, layer: str, count: int, device: torch.device) -> Iterator[Row]:
    """Discovery over JPEGs of 500×375 beside the bare forward passes of as many images."""
    network = random_network(name, device)
    bare = Bare(TorchvisionSource(name, weights=None).load().body.to(device), layer, torch.empty(0))
    with tempfile.TemporaryDirectory() as folder:
        write_jpegs(Path(folder) / "jpegs", count)
        photographs = load_photographs(Path(folder) / "jpegs", 224)
        batch = torch.randint(0, 256, (16, 3, 224, 224), dtype=torch.uint8)

        @torch.no_grad()
        def passes(images: int) -> float:
            began = waited(device)
            for _ in range(0, images, 16):
                bare.forward(to_unit(batch, device))
            return waited(device) - began

        passes(32)
        before = passes(count // 2)
        began = time.perf_counter()
        discover_facets(network, photographs, layer, Facets(C=10, k=50))
        ours = time.perf_counter() - began
        bare_seconds = before + passes(count - count // 2)
        yield Row(
            f"discovery of {count:,} photographs, {name} {layer}", ours, "s", "bare forward passes",
            ours / bare_seconds, "half of the bare passes before it, half after it",
        )  # fmt: skip
        cache = Cache(Path(folder) / "cache", 10**10)
        seen = 0

        def entered(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            nonlocal seen
            seen += len(arguments[0])

        prepared = prepare(network, layer)
        prepared.body.register_forward_pre_hook(entered)
        few = replace(photographs, paths=photographs.paths[:200])
        for k in (50, 20):
            seen = 0
            began = time.perf_counter()
            discover_facets(prepared, few, layer, Facets(C=4, k=k), cache=cache)
            spent = time.perf_counter() - began
            note = f"{spent:.1f} s"
            yield Row(f"photographs through the network, 200 of them, cell k={k} of a sweep", seen, "images", note=note)


def write_jpegs(folder: Path, count: int) -> None:
    """Crops of drawn photographs with grain, 500×375, as cameras store them."""
    folder.mkdir(parents=True)
    drawn, _ = generate(list(KINDS), 32, 560, seed=1)
    generator = np.random.default_rng(0)
    for index in range(count):
        picture = drawn[index % len(drawn)].transpose(1, 2, 0)
        top, left = generator.integers(0, 560 - 375), generator.integers(0, 560 - 500)
        crop = picture[top : top + 375, left : left + 500].astype(np.int16)
        crop = np.clip(crop + generator.integers(-12, 13, crop.shape), 0, 255).astype(np.uint8)
        Image.fromarray(crop).save(folder / f"{index:06d}.jpg", quality=90)


def memory(case: Case, device: torch.device) -> Iterator[Row]:
    """Peak memory of a fit beside the bare step's, each in a process of its own."""
    peaks = {}
    for part in ("bare", "fit"):
        command = [
            sys.executable, __file__, "--device", device.type, "--child", part, "--case", case.network, case.layer,
            str(case.facets), str(case.size),
        ]  # fmt: skip
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        peaks[part] = json.loads(printed.splitlines()[-1])
    for which, note in (("process", "all the process holds"), ("above", "above the imported libraries")):
        if peaks["fit"][which] is not None:
            mib = peaks["fit"][which] / 2**20
            yield Row(
                f"peak memory of a fit, {case}, {note}", mib, "MiB", "bare step",
                peaks["fit"][which] / peaks["bare"][which],
            )  # fmt: skip


def memory_child(part: str, case: Case, device: torch.device) -> None:
    """Prints the peak in bytes: of the process, and above what it held before the network was made."""
    start = _resident()
    network = random_network(case.network, device)
    if part == "bare":
        bare = Bare(network.body, case.layer, torch.rand(case.facets, 3, case.size, case.size, device=device))
        run: Callable[[], None] = lambda: [bare() for _ in range(12)] and None  # noqa: E731
    else:
        targets = _blank_targets(case, network)
        # As the command does it: from here on only the way to the layer is kept.
        prepared = prepared_for(network, targets)
        del network
        run = partial(
            fit,
            prepared,
            targets,
            Method(steps=12, filters=every_filter()),
            Running(accelerator="cuda" if device.type == "cuda" else "cpu", gradients=None),
        )
    run()
    if device.type == "cuda":
        print(json.dumps({"process": torch.cuda.max_memory_allocated(device), "above": None}))
    else:
        peak = _peak_resident()
        print(json.dumps({"process": peak, "above": peak - start}))


def _blank_targets(case: Case, network: Network) -> FacetTargets:
    """Targets of the right shapes, made without discovery, whose own memory is not the fit's."""
    images = torch.rand(case.facets, 3, case.size, case.size)
    seen = (255 * images[:, None]).to(torch.uint8)
    prepared = prepare(network, case.layer, way=layers_on_the_way(network, case.layer))
    maps, power, way = look_at(prepared, seen, torch.ones(case.facets, 1))
    k, N = 50, 10
    return FacetTargets(
        layer=case.layer, root="", paths=(), skipped=(), initial=images, maps=maps,
        channels=torch.arange(k).expand(case.facets, k).contiguous(), weights=torch.full((case.facets, N), 1 / N),
        chosen=torch.zeros(case.facets, N, dtype=torch.int64), distances=torch.zeros(case.facets, N),
        photographs=seen.expand(-1, N, -1, -1, -1).contiguous(), power=power, way=tuple(way.values()),
        embedding=torch.zeros(1, 2), labels=torch.zeros(1, dtype=torch.int64), centres=torch.zeros(case.facets, 2),
        mean_activation=torch.zeros(maps.shape[1]),
    )  # fmt: skip


def _status(key: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) * 1024


def _resident() -> int:
    return _status("VmRSS:") if sys.platform == "linux" else 0


def _peak_resident() -> int:
    if sys.platform == "linux":
        return _status("VmHWM:")
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


# ---- the table -----------------------------------------------------------------------------------------------------

GROUPS = ("step", "deep", "peers", "lightning", "tv", "memory", "discovery")
MAIN = Case("resnet50", "layer3.5.conv1", 4)
DEEP = Case("resnet50", "layer4.2", 8)
WIDE = Case("resnet50", "layer3.5.conv1", 32)  # a GPU is not filled by four images
BRIEF = ("every filter on", "default", "bfloat16")


def rows(arguments: argparse.Namespace, device: torch.device) -> Iterator[Row]:
    """Every group that is asked for."""
    wanted = arguments.only or GROUPS
    main = WIDE if device.type == "cuda" else MAIN
    if "step" in wanted:
        yield from steps(main, device, arguments.blocks, arguments.variants)
    if "deep" in wanted:
        yield from steps(DEEP, device, arguments.blocks, arguments.variants or BRIEF)
    if "peers" in wanted:
        yield from peers(main, device, arguments.blocks)
    if "lightning" in wanted:
        yield from lightning(device, max(arguments.blocks, 10))
    if "tv" in wanted:
        yield from denoising(device, max(arguments.blocks, 5))
    if "memory" in wanted:
        yield from memory(main, device)
    if "discovery" in wanted:
        yield from discovery("resnet50", "layer3.5.conv1", arguments.photographs, device)


def machine(device: torch.device) -> str:
    """One line on what this was measured on."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    packages = ", ".join(_version(p) for p in ("torch", "torchvision", "pytorch-lightning", "kornia", "scikit-image"))
    return (
        f"{datetime.date.today()} · {name}, {torch.get_num_threads()} threads · Python {platform.python_version()}, "
        f"{packages}, mindseye {importlib.metadata.version('mindseye')}"
    )


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo").read_text() if sys.platform == "linux" else ""
    name = next((line.split(":")[1].strip() for line in cpuinfo.splitlines() if line.startswith("model name")), "")
    low = [flag for flag in ("avx512f", "avx512_bf16", "amx_bf16") if f" {flag}" in cpuinfo]
    return f"{name or platform.processor() or platform.machine()} ({', '.join(low) or 'no AVX-512'})"


def as_markdown(row: Row) -> str:
    """A line of the table in docs/performance.md."""
    digits = ".0f" if (row.value or 0) >= 1000 else ".3g"
    value = "" if row.value is None else f"{row.value:{digits}} {row.unit}"
    ratio = "" if row.ratio is None else f"**{row.ratio:.2f}** of {row.ratio_to}"
    return f"| {row.name} | {value} | {ratio} | {row.note} |"


def main() -> None:
    """Print the table as it grows; write the rows as JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--only", nargs="+", choices=GROUPS, help="groups to run; all by default")
    parser.add_argument("--variants", nargs="+", help="of the steps: those whose name contains one of these")
    parser.add_argument("--blocks", type=int, default=3, help=f"rounds; of steps, {BLOCK} each (default 3)")
    parser.add_argument("--photographs", type=int, default=1000, help="how many discovery reads (default 1000)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of torch")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there")
    parser.add_argument("--child", choices=["bare", "fit"], help=argparse.SUPPRESS)
    parser.add_argument("--case", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch sees no GPU here")
    torch.set_num_threads(arguments.threads)
    logging.getLogger("mindseye").setLevel(logging.ERROR)
    device = torch.device(arguments.device)
    if arguments.child:
        name, layer, facets, size = arguments.case
        memory_child(arguments.child, Case(name, layer, int(facets), int(size)), device)
        return
    print(machine(device), "\n\n| what | | | |\n|---|---|---|---|", sep="", flush=True)
    collected = []
    for row in rows(arguments, device):
        collected.append(row)
        print(as_markdown(row), flush=True)
        if arguments.json:
            results = {"machine": machine(device), "rows": [asdict(row) for row in collected]}
            arguments.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()

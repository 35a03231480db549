"""Runs what draws and measures on a device that is not there, and says of each case what is wrong with it.

The device is one of torch's Python backends, its tensors are fake: shapes, types and devices without numbers. What
reads a value of theirs, has a size that depends on one, or mixes two devices in one operation raises. So does every
copy within a step that the host would wait for. It shows neither numbers nor kernels that a device lacks, nor what the
code does for `cuda` alone.

A process of its own, since a backend cannot be taken back: `python absent_device.py` prints a line of JSON for each
case, [name, what is wrong or null]. tests/visualizer/test_absent_device.py reads them.
"""

import copy
import functools
import json
import sys
import tempfile
import traceback
import weakref
from pathlib import Path
from types import SimpleNamespace

import torch
from given import given
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils import backend_registration

from mindseye.demo.photographs import write_photographs
from mindseye.facets import Photographs, discover_facets, load_photographs
from mindseye.facets.blending import look_at
from mindseye.facets.survey import Passing, _look
from mindseye.facets.way_statistics import IMAGE
from mindseye.networks import demo_network
from mindseye.networks.merging import merge
from mindseye.networks.preparing import prepare
from mindseye.results.judges import transfer, transfer_reference
from mindseye.results.metrics import Measuring, measure
from mindseye.settings import Facets
from mindseye.visualizer import distance
from mindseye.visualizer.callbacks import (
    Blur,
    Brighten,
    FunctionFilter,
    GradientMask,
    History,
    RoundToLevels,
    Schedule,
    Snapshots,
    Stopping,
    TVDenoise,
)  # fmt: skip
from mindseye.visualizer.callbacks.compiling import warm_up
from mindseye.visualizer.canvas import FourierCanvas, MacoCanvas, PixelCanvas
from mindseye.visualizer.data import FacetTargetsDataModule
from mindseye.visualizer.fitting import prepare_for
from mindseye.visualizer.matching import Matching
from mindseye.visualizer.method import Method
from mindseye.visualizer.module import FacetVisualizer
from mindseye.visualizer.objective import Objective
from mindseye.visualizer.transformations import Transformations

DEVICE = torch.device("privateuseone", 0)  # "absent", once it is registered
aten = torch.ops.aten


# ---- the device ------------------------------------------------------------------------------------------------------


class Backend(backend_registration._DummyBackendModule):
    """What torch asks of a backend's module."""

    def is_available(self):
        return False  # else a fake tensor would have it initialised

    def get_amp_supported_dtype(self):
        return [torch.float16, torch.bfloat16]

    def empty_cache(self):
        CACHE.append([picture() is not None for picture in FAILED])


CACHE, FAILED = [], []  # what was still alive of passes that failed, whenever the cache was emptied; their pictures


def register():
    """Once a process. Convolutions and products follow autocast there, as they do on a GPU."""
    backend_registration._setup_privateuseone_for_python_backend("absent", backend_module=Backend())
    everything = torch.library.Library("_", "IMPL", "AutocastPrivateUse1")
    everything.fallback(torch.library.fallthrough_kernel)
    some = torch.library.Library("aten", "IMPL", "AutocastPrivateUse1")
    key = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)

    def in_low_precision(operation):
        def run(*arguments, **named):
            low = torch.get_autocast_dtype(DEVICE.type)
            with torch._C._ExcludeDispatchKeyGuard(key):
                are_low = (x.to(low) if isinstance(x, torch.Tensor) else x for x in arguments)
                return operation(*are_low, **named)

        return run

    for operation in (aten.conv2d.default, aten.convolution.default, aten.linear.default, aten.mm.default,
                      aten.addmm.default, aten.bmm.default, aten.matmul.default):  # fmt: skip
        some.impl(operation, in_low_precision(operation))
    return everything, some  # in force as long as they live


class Absent(FakeTensorMode):
    """In it, tensors of the device exist.

    step: whether a copy that the host waits for is a mistake now. reads: what a number that is read from the device is;
    None where to read one is a mistake.
    """

    def __init__(self, reads=None):
        super().__init__(allow_non_fake_inputs=True)
        self.step, self.reads = False, reads

    def dispatch(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is aten._local_scalar_dense.default and args[0].device.type == "cpu":
            # The host's own, kornia's check of its sigma among them: true, and one.
            return True if args[0].dtype is torch.bool else 1.0
        if func is aten.bincount.default and args[0].device.type == "cpu":
            return args[0].new_empty(args[2])  # as long as the host's own numbers have it
        if func is aten._local_scalar_dense.default and self.reads is not None:
            return args[0].dtype is torch.bool or self.reads
        if func is aten.equal.default and self.reads is not None:
            return True
        if self.step and func is aten._to_copy.default and kwargs.get("device") is not None:
            here, there = args[0].device.type, torch.device(kwargs["device"]).type
            if here != there and not (there == DEVICE.type and kwargs.get("non_blocking")):
                raise RuntimeError(f"a step copies {tuple(args[0].shape)} from {here} to {there}, and waits for it")
        return super().dispatch(func, types, args, kwargs)


def move(module):
    """As `Module.to`, which cannot put fake tensors in the place of real ones."""
    for part in module.modules():
        for name, weight in part._parameters.items():
            if weight is not None:
                moved = nn.Parameter(torch.empty_like(weight, device=DEVICE), requires_grad=weight.requires_grad)
                part._parameters[name] = moved
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = torch.empty_like(buffer, device=DEVICE)
    if isinstance(module, FacetVisualizer):
        module._device = DEVICE
    return module


def on_device(tensor):
    return torch.empty_like(tensor, device=DEVICE)


# ---- what is drawn and measured ----------------------------------------------------------------------------------


class AlreadyRead(Photographs):
    """Photographs whose files are read before there are fake tensors, which numpy does not know."""

    def __init__(self, **settings):
        super().__init__(**settings)
        object.__setattr__(self, "held", list(super().batches(5, workers=0)))

    def batches(self, batch_size, *, workers=None):
        return self.held


folder = tempfile.TemporaryDirectory()
write_photographs(folder.name, "padlock", 12, seed=3)
PHOTOGRAPHS = load_photographs(folder.name, size=32)
NETWORK = demo_network()
READ = AlreadyRead(**vars(PHOTOGRAPHS))
LAYER = "layer2.0"
TARGETS = discover_facets(NETWORK, PHOTOGRAPHS, LAYER, Facets(C=3, k=8, N=4, way=("relu", "layer1.0")))


class Plain:
    """An optimiser as Lightning wraps it."""

    def __init__(self, optimizer):
        self.optimizer, self.param_groups = optimizer, optimizer.param_groups

    def zero_grad(self):
        self.optimizer.zero_grad()

    def step(self):
        self.optimizer.step()


@functools.cache
def program(matching, precision):
    return prepare_for(NETWORK, TARGETS, Method(objective=Objective(matching=matching))).in_precision(precision)


def visualizer(**settings):
    """(module on the device, its optimisers, batch of a step), within `Absent`."""
    values = given(**{"steps": 4, "gradients": None, **settings})
    method = values["method"]
    prepared = copy.deepcopy(program(method.objective.matching, method.precision))
    canvas = method.canvas(TARGETS.initial, TARGETS.photographs.float() / 255)
    module = FacetVisualizer(prepared, canvas, method, values["running"], TARGETS.C)
    matched = (IMAGE, *prepared.way) if method.objective.matching.weight else ()
    return module, FacetTargetsDataModule(TARGETS, 4, matched)


def draw(filters=(), share=None, hook=None, **settings):
    """Two steps as Lightning takes them. In the first tables are copied, and whether gradients come through is read."""
    distance._partition_table_on.cache_clear()
    module, data = visualizer(**settings)
    if share is not None:
        module.keep(share)
    if hook is not None:
        module.network.register_forward_pre_hook(hook)
    with Absent() as mode:
        move(module)
        wrapped = [Plain(optimizer) for optimizer in module.configure_optimizers()]
        module.optimizers = lambda: wrapped
        module.manual_backward = lambda loss: loss.backward()
        trainer = SimpleNamespace(loggers=[], global_step=0)
        callbacks = [Schedule(), *filters, Stopping(), History(100), Snapshots(1000)]
        for step in range(2):
            batch = data.transfer_batch_to_device(data.batch, DEVICE, 0)
            mode.step, mode.reads = step > 0, None if step else 1.0
            for callback in callbacks:
                callback.on_train_batch_start(trainer, module, batch, step)
            module.training_step(batch, step)
            for callback in callbacks:
                callback.on_train_batch_end(trainer, module, None, batch, step)
        assert module.terms.device == module.gradients.device == DEVICE
    distance._partition_table_on.cache_clear()
    return module


def every_filter():
    return [GradientMask(), Blur(1), TVDenoise(1), Brighten(every=1), RoundToLevels(every=1), FunctionFilter(flip, 1)]


def flip(images):
    return images.flip(-1)


def looked_at(*layers):
    prepared = [prepare(NETWORK, layer) for layer in layers]
    network = prepared[0] if len(prepared) == 1 else merge(prepared, PHOTOGRAPHS.size)
    with Absent():
        move(network)
        [*tables], readable, skipped = _look(network, READ, Passing(5, 10**9, workers=0))
    assert (len(tables), len(readable), len(skipped)) == (len(layers), 12, 0)


def measured():
    network = prepare(NETWORK, LAYER, way=["layer1.0"])
    reference = transfer_reference(demo_network(), "layer2.0", TARGETS, PHOTOGRAPHS)
    with Absent():
        move(reference.network)
        transfer(on_device(TARGETS.initial), reference)
        measure(move(network), TARGETS, on_device(TARGETS.initial), Measuring(transfer=[reference]))


def discovered():
    network = prepare(NETWORK, LAYER, way=["layer1.0"])
    with Absent():
        move(network)
        maps, power, way = look_at(network, TARGETS.photographs, TARGETS.weights)
    assert {tensor.device.type for tensor in (maps, power, *way["layer1.0"].tensors().values())} == {"cpu"}


def canvas_of_the_device(kind):
    with Absent():
        made = kind(on_device(TARGETS.initial), on_device(TARGETS.photographs.float() / 255))
        assert {tensor.device for tensor in (*made.parameters(), *made.buffers())} == {DEVICE}
        made.encode(made())


def resumed():
    """A checkpoint of the device holds what a CPU goes on from."""
    module = draw()
    kept = {"state_dict": {}}
    module.on_save_checkpoint(kept)
    assert kept["views"].device.type == "cpu"
    other, _ = visualizer()
    other.on_load_checkpoint(kept)
    through = other.views.drawn_for(2, 1.0, torch.device("cpu"))
    assert through.matrices.device.type == "cpu"


def halved():
    """What a pass that found no memory has computed is gone before the cache is emptied."""

    def refuse(network, arguments):
        if len(arguments[0]) > 1:
            FAILED.append(weakref.ref(arguments[0]))
            raise torch.OutOfMemoryError("out of memory")

    module = draw(hook=refuse)
    assert [chunk.stop - chunk.start for chunk in module.chunks.slices] == [1, 1, 1]
    assert CACHE == [[False], [False, False]], CACHE


def warmed_up():
    module, _ = visualizer(facets_per_batch=2)
    with Absent():
        warm_up(move(module))


def compared():
    """Prepared and merged on the device: comparisons, which find no difference, are what reads."""
    network = demo_network()
    network.fingerprint = lambda: "known"  # which is of numbers
    with Absent(reads=0.0):
        move(network)
        prepared = [prepare(network, layer) for layer in (LAYER, "layer1.0")]
        assert all(network.traced and network.folded for network in prepared)
        assert merge(prepared, 32).layers == (LAYER, "layer1.0")


CASES = {
    "fourier, every filter": lambda: draw(every_filter()),
    "fourier, 1/f, plain colours": lambda: draw(
        canvas=lambda *given: FourierCanvas(*given, decay=1.0, decorrelate=False, init="sketch")
    ),
    "pixels, filters": lambda: draw([GradientMask(), Blur(1)], canvas=PixelCanvas),
    "maco, filters": lambda: draw([GradientMask(), Blur(1)], canvas=MacoCanvas),
    "filter everywhere": lambda: draw([Blur(1, where="everywhere")]),
    **{
        f"objective {settings}": lambda settings=settings: draw(objective=Objective(**settings))
        for settings in (
            {"match": "dot_product", "distance": "summed", "reduction": "sum"},
            {"match": "dot_product_cosine", "adaptive": "restarted", "gain": 3.0},
            {"distance": "elementwise", "pooled": True, "adaptive": "fixed"},
            {"channels": "every_facet", "strength": 0, "matching": Matching(weight=0)},
            {"matching": Matching(form="sorted"), "tv": 0, "penalty": 0, "ad": 0},
            {"matching": Matching(layers=("layer1.0",))},
        )
    },
    **{f"precision {name}": lambda name=name: draw(precision=name) for name in ("tf32", "bfloat16", "float16")},
    "one facet at a time": lambda: draw(facets_per_batch=1),
    "two at a time, gradients of every term": lambda: draw(facets_per_batch=2, gradients=1),
    "a share": lambda: draw([GradientMask()], share=slice(1, 3)),
    "no views, noise": lambda: draw(transformations=Transformations(jitter=0, scale=0, rotation=0, noise=0.1)),
    "views kept for three steps": lambda: draw(transformations=Transformations(every=3)),
    "prepared and merged": compared,
    "survey": lambda: looked_at(LAYER),
    "survey of two layers": lambda: looked_at(LAYER, "layer1.0"),
    "targets and the way": discovered,
    "measures": measured,
    **{f"{kind.__name__} of the device's tensors": lambda kind=kind: canvas_of_the_device(kind)
       for kind in (FourierCanvas, PixelCanvas, MacoCanvas)},
    "halved for want of memory": halved,
    "warm-up": warmed_up,
    "resumed on a CPU": resumed,
}  # fmt: skip


# ---- mistakes, to see that they are seen -----------------------------------------------------------------------------


class Mistaken(FunctionFilter):
    """A filter that makes one."""

    def __init__(self, mistake):
        super().__init__(mistake, every=1)


def reads(images):
    return images * float(images.mean())


def mixes(images):
    return images + torch.ones(images.shape[-1])


def asks(images):
    return images[images.mean(dim=(1, 2, 3)) > 0] * 1


def copies(images):
    return images + torch.ones(images.shape[-1]).to(images.device)


def brings(images):
    return images.cpu().to(images.device, non_blocking=True)


def looks(images):
    return images if images.isfinite().all() else images * 0


MISTAKES = {one.__name__: lambda one=one: draw([Mistaken(one)]) for one in (reads, mixes, asks, copies, brings, looks)}


def what_is_wrong(case):
    try:
        case()
    except Exception as error:
        ours = [frame for frame in traceback.extract_tb(error.__traceback__) if "/torch/" not in frame.filename]
        way = ", ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in ours[-4:])
        return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]} ({way})"
    return None


if __name__ == "__main__":
    torch.set_num_threads(1)
    libraries = register()
    for name, case in {**CASES, **{f"mistake {name}": case for name, case in MISTAKES.items()}}.items():
        print(json.dumps([name, what_is_wrong(case)]), flush=True)
    sys.exit(0)

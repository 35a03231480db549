"""The step loop never waits for the device: what it logs stays there until a flush."""

import traceback

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from mindseye.networks import demo_network
from mindseye.settings import Running
from mindseye.visualizer.callbacks import Blur, GradientMask, TVDenoise
from mindseye.visualizer.fitting import fit
from mindseye.visualizer.method import Method
from mindseye.visualizer.watching import Watchers

aten = torch.ops.aten
# What makes the host wait for a device: numbers read back, sizes that depend on values, numbers copied there.
WAITS = {
    aten._local_scalar_dense.default,
    aten.nonzero.default,
    aten._unique2.default,
    aten.masked_select.default,
    aten.lift_fresh.default,
}
# Optimisers count their steps in tensors that live on the host, kornia checks σ there before it fills its kernel on the
# device; views are drawn on the host, and sent without waiting; whether facets are stopped is looked at only where the
# device is the host; the history is read every so many steps, and after the last one the checkpoint is written.
HOST_ONLY = (
    "torch/optim/", "in drawn_for", "(host_sigma > 0)", "host_sigma = torch.tensor([host_sigma]", "in all_is_well",
    "in _flush", "in save_checkpoint",
)  # fmt: skip


class HostVisits(TorchDispatchMode):
    """Where each operation that would wait was called from."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        # A Boolean index has as many results as it has trues.
        by_value = func is aten.index.Tensor and any(i is not None and i.dtype == torch.bool for i in args[1])
        if func in WAITS or by_value:
            stack = traceback.format_stack()
            if not any(place in frame for frame in stack for place in HOST_ONLY):
                self.seen.append("".join(stack[-6:]))
        return func(*args, **(kwargs or {}))


class HostReads(TorchFunctionMode):
    """Where each method was called from that brings values to the host; on a CPU it moves nothing and shows nowhere."""

    NAMES = ("cpu", "tolist", "numpy", "item", "__bool__", "__int__", "__float__", "__index__", "equal", "allclose",
             "bincount", "__array__")  # fmt: skip

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name = getattr(func, "__name__", "")
        if name in self.NAMES or (name == "to" and "cpu" in [str(x) for x in args[1:] if not torch.is_tensor(x)]):
            stack = traceback.format_stack()
            if not any(place in frame for frame in stack for place in HOST_ONLY):
                self.seen.append("".join(stack[-6:]))
        return func(*args, **(kwargs or {}))


class Watch:
    """From the second step on: the first fills tables and caches."""

    def __init__(self):
        self.visits, self.reads = HostVisits(), HostReads()
        self.begun = self.over = False

    def start(self):
        if not self.begun:
            self.visits.__enter__()
            self.reads.__enter__()
            self.begun = True

    def stop(self):
        if self.begun and not self.over:
            self.reads.__exit__(None, None, None)
            self.visits.__exit__(None, None, None)
            self.over = True


@pytest.mark.parametrize("facets_per_batch", [None, 2])
def test_no_step_reads_from_the_device(network, targets, facets_per_batch, tmp_path):
    import pytorch_lightning as pl

    watch = Watch()

    class Begin(pl.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if batch_idx == 2:  # the first blur has imported kornia
                watch.start()

        def on_train_end(self, trainer, pl_module):
            watch.stop()

    try:
        fit(
            network,
            targets,
            Method(steps=8, filters=[Begin(), GradientMask(), Blur(2)]),
            Running(accelerator="cpu", gradients=4, facets_per_batch=facets_per_batch, folder=tmp_path / "fit"),
            Watchers(every=3),
        )
    finally:
        watch.stop()
    assert watch.begun
    assert not watch.visits.seen, watch.visits.seen[0]
    assert not watch.reads.seen, watch.reads.seen[0]


def test_the_watch_sees_what_it_is_for(network, targets):
    visits, reads = HostVisits(), HostReads()
    with visits:
        float(torch.ones(2).sum())
        torch.ones(2)[torch.ones(2) > 0]
    assert len(visits.seen) == 2
    x = torch.ones(2)
    with reads:
        x.cpu(), x.tolist(), x.numpy(), x.to("cpu"), torch.equal(x, x), x.sum().item()
        x + x, x.to(torch.float64)
    assert len(reads.seen) == 6


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_no_step_waits_for_the_gpu(targets):
    """CUDA itself says so: every wait between two flushes is an error."""
    import pytorch_lightning as pl

    class Guard(pl.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if batch_idx >= 1:
                torch.cuda.set_sync_debug_mode("error")

    class Relax(pl.Callback):
        """Before the history is read."""

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if (batch_idx + 1) % 10 == 0:
                torch.cuda.set_sync_debug_mode("default")

    try:
        fit(
            demo_network().to("cuda"),
            targets,
            Method(steps=30, filters=[Guard(), GradientMask(), Blur(3), TVDenoise(3), Relax()]),
            Running(accelerator="cuda", snapshots=1000),
        )
    finally:
        torch.cuda.set_sync_debug_mode("default")

"""Compiles the network before the first step."""

import logging
import time
from collections.abc import Callable

import pytorch_lightning as pl
import torch

from mindseye.visualizer.module import FacetVisualizer
from mindseye.visualizer.reaching import no_gradient

log = logging.getLogger(__name__)


class Compiling(pl.Callback):
    """Has the network compiled, and says so. announce: called with (what is going on)."""

    def __init__(self, announce: Callable[[str], None] | None) -> None:
        self.announce = announce

    def on_train_start(self, trainer: pl.Trainer, pl_module: FacetVisualizer) -> None:
        """Look whether a gradient comes through first: a compiled program goes back once only."""
        if trainer.global_step == pl_module.steps:  # a finished fit, read back
            return
        check_gradient(pl_module)
        if self.announce is not None:
            self.announce("compiling the network (about a minute, once)")
        began = time.perf_counter()
        pl_module.network.compile()
        warm_up(pl_module)
        log.info("compiled in %.0f s", time.perf_counter() - began)


def check_gradient(module: FacetVisualizer) -> None:
    """Warns where no gradient of the layer reaches the image. Whether the objective asks for one is not looked at."""
    reached = False
    for attempt in module.chunks.attempts(module.device):
        with attempt as chunks:
            reached = any(_reaches(module, chunk) for chunk in chunks)
    if not reached:
        log.warning("%s", no_gradient(module.network.layer))


def _reaches(module: FacetVisualizer, chunk: slice) -> bool:
    images = module.canvas(chunk).detach().requires_grad_()
    with module.chance(0, chunk):
        answer = module.network(images).target
    return answer.requires_grad and bool(torch.autograd.grad(answer.square().sum(), images)[0].any())


def warm_up(module: FacetVisualizer) -> None:
    """One pass of each batch size forward and back, so that a compiled network is ready before the first step."""
    shape = (module.network.channels, module.canvas.side, module.canvas.side)
    for attempt in module.chunks.attempts(module.device):
        with attempt as chunks, module.network.arithmetic():
            for size in sorted({chunk.stop - chunk.start for chunk in chunks}):
                images = torch.rand(size, *shape, device=module.device).requires_grad_()
                answers, early = module.network.with_early(images)
                given = (answers.target, answers.previous, *answers.way, early)
                torch.stack([answer.float().sum() for answer in given if answer is not None]).sum().backward()

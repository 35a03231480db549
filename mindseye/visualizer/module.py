"""The LightningModule: trainable images of all facets and Barron's (r, b), optimised as one batch."""

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from mindseye.networks.chance import seeded
from mindseye.networks.maps import as_maps
from mindseye.networks.preparing import PreparedNetwork
from mindseye.visualizer.canvas import Canvas
from mindseye.visualizer.data import TargetBatch
from mindseye.visualizer.objective import GRADIENTS, LossFunction, LossTerms, Seen, gradient_norms
from mindseye.visualizer.schedules import Schedules
from mindseye.visualizer.stopping import WHY, Stopped, all_is_well, first_fault, norms
from mindseye.visualizer.transformations import Transformations, view
from mindseye.words import on_one_line

MakeOptimizer = Callable[[Iterator[nn.Parameter]], Optimizer]
# As torch and its libraries say it; the last is cuDNN, which finds no kernel whose workspace there is room for.
NO_MEMORY = ("out of memory", "can't allocate memory", "bad_alloc", "ALLOC_FAILED", "Unable to find an engine")
log = logging.getLogger(__name__)


class FacetVisualizer(pl.LightningModule):
    """One image per facet, changed step by step until the layer answers it as it answers the facet's photographs.

    Facets never mix: each has its own image, target, channels, (r, b) and random views, and the loss is a plain sum.
    So they may be computed `facets_per_batch` at a time (None: all at once), which bounds memory and changes nothing:
    on a CPU not a bit. Where the device has no memory for so many, the step is taken again with half of them, and so
    are those after it. And one whose loss, gradient or picture is no longer finite stops alone: see callbacks.Stopping.

    The image's optimiser is `optimizer(parameters)`, its learning rate set at each step from `schedules.lr`; (r, b)
    have an Adam of their own at `adaptive_lr`.

    gradients_every: after the first step and every so many the norm of each term's own gradient is taken, which costs a
    further pass back for each weighted term; None: never. A compiled network's program goes back once only, so it has
    none.
    """

    stopped_at: Tensor
    stopped_by: Tensor

    def __init__(
        self,
        network: PreparedNetwork,
        canvas: Canvas,
        objective: LossFunction,
        schedules: Schedules,
        transformations: Transformations,
        optimizer: MakeOptimizer,
        *,
        facets: int,
        steps: int,
        facets_per_batch: int | None = None,
        adaptive_lr: float = 0.02,
        seed: int = 0,
        gradients_every: int | None = None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.strict_loading = False  # the frozen network is not part of a checkpoint
        self.network = network
        self.canvas = canvas
        self.objective = objective
        self.adaptive = objective.adaptive_distance(facets)
        self.schedules = schedules
        self.transformations = transformations
        self.make_optimizer = optimizer
        self.adaptive_lr = adaptive_lr
        self.facets = facets
        self.steps = steps
        self.seed = seed
        self.now = schedules.at(1, steps)  # the scheduled values of the current step, set by callbacks.Schedule
        self.terms: Tensor | None = None  # the last step's terms, [len(LossTerms.names()), c], on the device
        self.gradients_every = gradients_every
        self.gradients: Tensor | None = None  # the last step's [len(GRADIENTS), c]; NaN where it was not looked at
        self.facets_per_batch = facets_per_batch
        self.own = slice(0, facets)  # of the C facets, those that this process draws
        self.chunks = self._cut()  # counted from the first of its own
        # For each of its own facets: the first step that it did not take, 0 where it goes on, and why, of WHY.
        self.stopped_at: Tensor
        self.stopped_by: Tensor
        self.register_buffer("stopped_at", torch.zeros(facets, dtype=torch.int64))
        self.register_buffer("stopped_by", torch.zeros(facets, dtype=torch.int64))
        self._generator: torch.Generator | None = None
        self._generator_state: Tensor | None = None
        self._views: Tensor | None = None

    def _cut(self) -> list[slice]:
        count = self.own.stop - self.own.start
        size = count if self.facets_per_batch is None else max(1, min(self.facets_per_batch, count))
        return [slice(first, min(first + size, count)) for first in range(0, count, size)]

    def keep(self, facets: slice) -> None:
        """Draw these facets alone, to be called before the first step: to the bit as among all C.

        Views and noise are drawn, and (r, b) are there, for all C.
        """
        self.canvas.keep(facets)
        self.own = facets
        self.chunks = self._cut()
        self.stopped_at, self.stopped_by = self.stopped_at[facets].clone(), self.stopped_by[facets].clone()

    def configure_optimizers(self) -> list[Optimizer]:
        """The image's optimiser, and Adam for (r, b)."""
        # Lightning counts every optimiser's steps; (r, b) step through the plain one, so that one step counts once.
        return [
            self.make_optimizer(self.canvas.parameters()),
            torch.optim.Adam(self.adaptive.parameters(), lr=self.adaptive_lr),
        ]

    def training_step(self, batch: TargetBatch, batch_idx: int) -> None:
        """One step of all its facets, chunk by chunk."""
        image_optimizer, adaptive_optimizer = self.optimizers()  # type: ignore[attr-defined]
        views, noise = self._draw(batch_idx)
        every = None if self.network.compiled else self.gradients_every
        looks = every is not None and (batch_idx == 0 or (batch_idx + 1) % every == 0)
        if self.network.compiled and self.device.type == "cuda":
            torch.compiler.cudagraph_mark_step_begin()  # last step's outputs may be written over
        done = False
        while not done:
            image_optimizer.zero_grad()
            adaptive_optimizer.optimizer.zero_grad()
            with self.network.arithmetic():
                done = self._go_back_through_all(batch, views, noise, looks, step=batch_idx)
            if not done:
                self._let_go()  # here, where nothing holds on to what was computed
        try:
            image_optimizer.step()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise ValueError(
                f"no memory for what the optimiser keeps of {self.facets} pictures of {self.canvas.side} pixels a "
                "side: draw fewer facets, or smaller ones"
            ) from error
        if self.objective.adaptive == "trained":
            adaptive_optimizer.optimizer.step()
        elif self.objective.adaptive == "restarted":
            self.adaptive.reset_()
            image_optimizer.optimizer.state.clear()

    def _go_back_through_all(
        self, batch: TargetBatch, views: Tensor | None, noise: Tensor | None, looks: bool, *, step: int
    ) -> bool:
        """Every facet's terms and gradients. False where there was no memory: then `chunks` are smaller ones.

        Raises ValueError where no gradient of the layer reaches the image: step 0 looks at it by one more pass back. (A
        compiled network's program goes back once only.)
        """
        terms, gradients = [], []
        through: list[Tensor] = []
        try:
            for chunk in self.chunks:
                images = self.canvas(chunk)
                facets = slice(self.own.start + chunk.start, self.own.start + chunk.stop)
                seen = images if views is None else view(images, views[facets])
                if noise is not None:
                    seen = seen + noise[facets]
                with self._chance(step, chunk):
                    a, previous, way = self.network(seen)
                answer = a
                a = as_maps(a, self.network.layer, self.network.layout(self.network.layer, self.canvas.side))
                way = tuple(
                    as_maps(between, name, self.network.layout(name, self.canvas.side))
                    for between, name in zip(way, self.network.way, strict=True)
                )
                if not a.requires_grad:
                    raise ValueError(f"no gradient reaches the image from {self.network.layer}: it runs without them")
                if previous is None:
                    raise ValueError(f"no image enters {self.network.layer}: name the layer before it, previous=…")
                # Only the network runs in another precision: pictures and sums stay in float32.
                loss = self.objective(
                    Seen(
                        activation=a.float(),
                        previous=previous.float(),
                        way=(images, *way),
                        images=images,
                        targets=batch.maps,
                        strengths=batch.strength,
                        channels=batch.channels,
                        references=batch.way,
                        facets=facets,
                        adaptive=self.adaptive,
                        now=self.now,
                    )
                )
                if step == 0 and not self.network.compiled:
                    through.append(_comes_through(loss.total, answer, seen))
                if looks:
                    weights = self.objective.weights(self.now, self.facets)
                    alone = gradient_norms(loss, weights, images)
                    images.retain_grad()
                self.manual_backward(loss.total.sum())
                if looks:
                    together = images.grad.flatten(1).norm(dim=1)
                    gradients.append(torch.cat([alone, together[None]]))
                terms.append(loss.stacked())
        except (RuntimeError, MemoryError) as error:
            self._halve(error)
            return False
        else:
            if through and not torch.stack(through).any():
                raise ValueError(self._no_gradient())
            self.terms = torch.cat(terms, dim=1)
            unseen = self.terms.new_full((len(GRADIENTS), self.terms.shape[1]), torch.nan)
            self.gradients = torch.cat(gradients, dim=1) if looks else unseen
            return True

    def _halve(self, error: Exception) -> None:
        """Half as many facets at a time from now on. Raises `error` where it is of something else than memory, or where
        there is one facet at a time."""
        size = self.chunks[0].stop
        if size == 1 or not is_out_of_memory(error):
            raise error
        self.facets_per_batch = -(-size // 2)
        self.chunks = self._cut()
        log.warning(
            "no memory for %d facets at a time: going on with facets_per_batch=%d (%s)",
            size, self.facets_per_batch, on_one_line(error)[:200],
        )  # fmt: skip

    def _let_go(self) -> None:
        """Give the device what torch keeps of it without using it."""
        empty_cache = getattr(getattr(torch, self.device.type, None), "empty_cache", None)
        if empty_cache is not None:
            empty_cache()

    def _chance(self, step: int, chunk: slice) -> AbstractContextManager[None]:
        """What the network draws by itself, in Python, follows the seed, step by step. A compiled one has its own."""
        if self.network.compiled:
            return nullcontext()
        return seeded((self.seed * 1_000_003 + step) * 1_000_003 + self.own.start + chunk.start)

    def stop_what_is_lost(self, step: int) -> bool:
        """Mark those of its facets as stopped that step `step`, which was just taken, has spoilt.

        False where it is known that none is stopped.
        """
        pictures = [x for x in self.canvas.of_facets() if x.requires_grad]
        gradients = [x.grad for x in pictures if x.grad is not None]
        assert self.terms is not None  # the step's
        total = self.terms[LossTerms.names().index("total")]
        sizes = torch.stack([total, norms(gradients), norms(pictures)])
        if self.device.type == "cpu" and all_is_well(sizes, self.stopped_at):
            return False
        lost, why = first_fault(sizes)
        lost &= self.stopped_at == 0
        self.stopped_at.masked_fill_(lost, step)
        torch.where(lost, why, self.stopped_by, out=self.stopped_by)
        return True

    def stopped(self) -> dict[int, Stopped]:
        """Those of its facets that were stopped, by number. The host waits for the device."""
        each = zip(*torch.stack([self.stopped_at, self.stopped_by]).tolist(), strict=True)
        return {self.own.start + c: Stopped(step, WHY[why]) for c, (step, why) in enumerate(each) if step}

    def _no_gradient(self) -> str:
        return (
            f"no gradient of {self.network.layer} reaches the image, for no facet: something before it rounds, "
            "cuts off or compares (round, floor, sign, clamp, argmax, >); give the network without that"
        )

    def check_gradient(self) -> None:
        """Warns where no gradient of the layer reaches the image, before a network is compiled, whose program goes back
        once only. Whether the objective asks for one is not looked at."""
        for chunk in self.chunks:
            images = self.canvas(chunk).detach().requires_grad_()
            with self._chance(0, chunk):
                answer = self.network(images).target
            if answer.requires_grad and torch.autograd.grad(answer.square().sum(), images)[0].any():
                return
        log.warning("%s", self._no_gradient())

    def warm_up(self) -> None:
        """One pass of each batch size forward and back, so that a compiled network is ready before the first step."""
        while not self._goes_through():
            self._let_go()

    def _goes_through(self) -> bool:
        """Whether there is memory for each batch size. False where there was not: then `chunks` are smaller ones."""
        try:
            for size in sorted({chunk.stop - chunk.start for chunk in self.chunks}):
                images = torch.rand(
                    size, self.network.channels, self.canvas.side, self.canvas.side, device=self.device
                ).requires_grad_()
                with self.network.arithmetic():
                    a, previous, way = self.network(images)
                    sum(answer.float().sum() for answer in (a, previous, *way)).backward()
        except (RuntimeError, MemoryError) as error:
            self._halve(error)
            return False
        return True

    def _draw(self, step: int) -> tuple[Tensor | None, Tensor | None]:
        """This step's views and noise of all C facets, so that chunks see what one batch would."""
        if self._generator is None:
            # On the host, whatever the device: every one then sees the same views, and goes on from what another left.
            self._generator = torch.Generator().manual_seed(self.seed)
            if self._generator_state is not None:
                self._generator.set_state(self._generator_state)
        asked = self.transformations
        if asked.moves and (self._views is None or step % asked.every == 0):
            self._views = asked.draw(self.facets, self._generator, self.now["views"])
        views = noise = None
        if asked.moves and self._views is not None:
            views = self._views.to(self.device, non_blocking=True)
        if asked.noise:
            shape = (self.facets, self.network.channels, self.canvas.side, self.canvas.side)
            noise = self.now["views"] * asked.noise * torch.randn(shape, generator=self._generator)
            noise = noise.to(self.device, non_blocking=True)
        return views, noise

    @torch.no_grad()
    def images(self) -> Tensor:
        """The pictures of its own facets as they are now: [c, ch, S, S] in 0..1."""
        return torch.cat([self.canvas(facets).clamp(0, 1) for facets in self.chunks])

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leaves the frozen network out; keeps the random generator and the view at hand."""
        checkpoint["state_dict"] = {
            name: value for name, value in checkpoint["state_dict"].items() if not name.startswith("network.")
        }
        if self._generator is not None:
            checkpoint["generator"] = self._generator.get_state()
            checkpoint["views"] = self._views

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes the random generator back."""
        self._generator_state = checkpoint.get("generator")
        self._views = checkpoint.get("views")


def _comes_through(total: Tensor, answer: Tensor, seen: Tensor) -> Tensor:
    """Whether what the layer's terms ask of its answer reaches what the network has seen, to any number that is not 0.

    Layers on the way have gradients of their own, which say nothing of it. True where nothing is asked.
    """
    (asked,) = torch.autograd.grad(total.sum(), answer, retain_graph=True, allow_unused=True)
    if asked is None:
        return torch.ones((), dtype=torch.bool, device=seen.device)
    (reached,) = torch.autograd.grad(answer, seen, asked, retain_graph=True, allow_unused=True)
    there = torch.zeros_like(asked[:1]) if reached is None else reached
    return (there != 0).any() | (asked == 0).all()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether it says that a device, or the host, has no memory left."""
    said = str(error)
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(words in said for words in NO_MEMORY)

"""The LightningModule: trainable images of all facets and Barron's (r, b), optimised as one batch."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.optim import Optimizer

from mindseye.networks.chance import seeded
from mindseye.networks.preparing import PreparedNetwork
from mindseye.settings import Running
from mindseye.visualizer.anchor import anchor_of
from mindseye.visualizer.answering import Answered, answer, answer_early
from mindseye.visualizer.canvas import Canvas
from mindseye.visualizer.chunks import Chunks, room_for
from mindseye.visualizer.data import TargetBatch
from mindseye.visualizer.method import Method
from mindseye.visualizer.objective import gradient_norms
from mindseye.visualizer.reaching import comes_through, no_gradient
from mindseye.visualizer.stopping import Stopped, Stops
from mindseye.visualizer.terms import LossTerms, Seen, check_names, check_terms, gradient_names
from mindseye.visualizer.views import Through, Views

ADAPTIVE_LR = 0.02  # of (r, b), which Barron's paper leaves open


class Noted(NamedTuple):
    """What is kept of one chunk's loss, without its graph."""

    terms: Tensor  # [terms, c], see LossTerms.stacked
    gradients: Tensor  # [terms with a gradient, c], see gradient_names; NaN where they were not looked at
    pull: Tensor  # [c, S, S]: |∂L/∂x| of each pixel, summed over its channels
    reached: Tensor | None  # whether the layer's gradient reaches the images, where that was looked at


class FacetVisualizer(pl.LightningModule):
    """One image per facet, changed step by step until the layer answers it as it answers the facet's photographs.

    Facets never mix: each has its own image, target, channels, (r, b) and random views, and the loss is a plain sum.
    So they may be computed `running.facets_per_batch` at a time, which bounds memory and changes nothing: on a CPU not
    a bit. And one whose loss, gradient or picture is no longer finite stops alone: see callbacks.Stopping.

    The image's optimiser is `method.optimizer(parameters)`, its learning rate set at each step from
    `method.schedule.lr`; (r, b) have an Adam of their own at ADAPTIVE_LR.

    `transparency` [c, S, S] is the running sum Σ|∂L/∂x| over steps and channels, x the picture in 0..1 and L the whole
    loss: how strongly each pixel was pulled at (MACO, Fel et al., NeurIPS 2023). A checkpoint keeps it. What is not
    finite, and what comes after a facet was stopped, has no part in it.
    """

    start: Tensor | None
    transparency: Tensor

    def __init__(
        self,
        network: PreparedNetwork,
        canvas: Canvas,
        method: Method,
        running: Running,
        facets: int,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.strict_loading = False  # the frozen network is not part of a checkpoint
        self.network = network
        self.canvas = canvas
        self.method = method
        self.running = running
        self.objective = method.objective
        self.adaptive = method.objective.adaptive_distance(facets)
        self.facets = facets
        self.steps = method.steps
        self.now = method.schedule.at(1, method.steps)  # the step's scheduled values, set by callbacks.Schedule
        self.terms: Tensor | None = None  # the last step's, [terms, c], on the device
        self.gradients: Tensor | None = None  # the last step's, [terms with a gradient, c]
        self.extra: tuple[str, ...] | None = None  # the objective's own terms, known from the first step on
        self.own = slice(0, facets)  # of the C facets, those that this process draws
        self.chunks = Chunks(facets, running.facets_per_batch)  # counted from the first of its own
        self.views = Views(method.transformations, (facets, network.channels, canvas.side, canvas.side), method.seed)
        self.stops = Stops(facets)  # of its own facets
        # The pictures that its own facets start from, for an anchor: made again, not kept, by a fit that goes on.
        start = None if anchor_of(method.objective) is None else canvas().detach().clone()
        self.register_buffer("start", start, persistent=False)
        self.register_buffer("transparency", torch.zeros(facets, canvas.side, canvas.side))

    def keep(self, facets: slice) -> None:
        """Draw these facets alone, to be called before the first step: to the bit as among all C.

        Views and noise are drawn, and (r, b) are there, for all C.
        """
        self.canvas.keep(facets)
        self.start = None if self.start is None else self.start[facets].clone()
        self.own = facets
        self.chunks = Chunks(facets.stop - facets.start, self.running.facets_per_batch)
        self.stops.keep(facets)
        self.transparency = self.transparency[facets].clone()

    def configure_optimizers(self) -> list[Optimizer]:
        """The image's optimiser, and Adam for (r, b)."""
        # Lightning counts every optimiser's steps; (r, b) step through the plain one, so that one step counts once.
        return [
            self.method.optimizer(self.canvas.parameters()),
            torch.optim.Adam(self.adaptive.parameters(), lr=ADAPTIVE_LR),
        ]

    def training_step(self, batch: TargetBatch, batch_idx: int) -> None:
        """One step of all its facets, chunk by chunk."""
        image_step, rb_step = self.optimizers()  # type: ignore[attr-defined]
        through = self.views.drawn_for(batch_idx, self.now["views"], self.device)
        if self.network.compiled and self.device.type == "cuda":
            torch.compiler.cudagraph_mark_step_begin()  # last step's outputs may be written over
        noted: list[Noted] = []
        for attempt in self.chunks.attempts(self.device):
            with attempt as chunks, self.network.arithmetic():
                image_step.zero_grad()
                rb_step.optimizer.zero_grad()
                noted = [self.go_back(chunk, batch, through, batch_idx) for chunk in chunks]
        self._keep_notes(noted)
        with room_for(f"what the optimiser keeps of {self.facets} pictures of {self.canvas.side} pixels a side"):
            image_step.step()
        if self.objective.adaptive == "trained":
            rb_step.optimizer.step()
        elif self.objective.adaptive == "restarted":
            self.adaptive.reset_()
            image_step.optimizer.state.clear()

    def go_back(self, chunk: slice, batch: TargetBatch, through: Through, step: int) -> Noted:
        """images -> network -> terms -> gradients, of one chunk of its own facets."""
        facets = slice(self.own.start + chunk.start, self.own.start + chunk.stop)
        images = self.canvas(chunk)
        shown = through(images, facets)
        with self.chance(step, chunk):
            answered = answer(self.network, shown)
        activation, previous = self._not_cut_off(answered)
        loss = self.objective(
            Seen(
                activation=activation,
                previous=previous,
                way=(images, *answered.way),
                images=images,
                targets=batch.maps,
                strengths=batch.strength,
                channels=batch.channels,
                references=batch.way,
                facets=facets,
                adaptive=self.adaptive,
                now=self.now,
                early=None if self.start is None else answered.early,
                early_start=self._early_start(chunk, facets, through, step),
            )
        )
        self._check(loss, images)
        first = step == 0 and not self.network.compiled  # whose program goes back once only
        reached = comes_through(loss.total, answered.raw, shown, self.network.layer) if first else None
        gradients = self._gradients(loss, images, step)
        # Contiguous: where channels lie last, torch adds them up in an order of its own.
        pull = torch.zeros_like(images) if images.grad is None else images.grad.contiguous().abs()
        return Noted(loss.stacked(), gradients, pull.sum(dim=1), reached)

    def _not_cut_off(self, answered: Answered) -> tuple[Tensor, Tensor]:
        layer = self.network.layer
        if not answered.activation.requires_grad:
            raise ValueError(f"no gradient reaches the image from {layer}: it runs without them")
        if answered.previous is None:
            raise ValueError(f"no tensor enters {layer}, nor a list: name the layer before it, previous=…")
        return answered.activation, answered.previous

    def _early_start(self, chunk: slice, facets: slice, through: Through, step: int) -> Tensor | None:
        """What an anchor compares the early layer's maps with: those of the pictures' starts in the same views."""
        if self.network.early is None or self.start is None:
            return None
        with torch.no_grad(), self.chance(step, chunk):
            return answer_early(self.network, through(self.start[chunk], facets))

    def _check(self, loss: LossTerms, images: Tensor) -> None:
        """Raises ValueError, in one line, for terms that are none, and where they are others than at first."""
        check_terms(self.objective, loss, len(images))
        if self.extra is None:
            check_names(self.objective, loss.extra, self.objective.weights(self.now, self.facets))
            self.extra = tuple(loss.extra)
        if self.extra != tuple(loss.extra):
            raise ValueError(
                f"the objective has the terms {', '.join(loss.extra) or 'none'} of its own, and had "
                f"{', '.join(self.extra) or 'none'} at first: they must be the same at every step"
            )

    def _gradients(self, loss: LossTerms, images: Tensor, step: int) -> Tensor:
        """Goes back, and `images` keep their gradient; the norm of each term's own where it is noted, [terms with a
        gradient, c], else NaN."""
        every = None if self.network.compiled else self.running.gradients
        if every is None or (step > 0 and (step + 1) % every):
            images.retain_grad()
            self.manual_backward(loss.total.sum())
            return loss.total.new_full((len(gradient_names(loss.extra)), len(images)), torch.nan)
        alone = gradient_norms(loss, self.objective.weights(self.now, self.facets), images)
        images.retain_grad()  # not before the terms' own have been taken, which would stay in it
        self.manual_backward(loss.total.sum())
        assert images.grad is not None
        return torch.cat([alone, images.grad.flatten(1).norm(dim=1)[None]])

    def _keep_notes(self, noted: list[Noted]) -> None:
        """For callbacks. Raises ValueError where no gradient of the layer reaches the image, at the first step."""
        reached = [chunk.reached for chunk in noted if chunk.reached is not None]
        if reached and not torch.stack(reached).any():
            raise ValueError(no_gradient(self.network.layer))
        self.terms = torch.cat([chunk.terms for chunk in noted], dim=1)
        self.gradients = torch.cat([chunk.gradients for chunk in noted], dim=1)
        pull = torch.cat([chunk.pull for chunk in noted])
        self.transparency += pull.masked_fill(~pull.isfinite() | (self.stops.at > 0)[:, None, None], 0)

    def chance(self, step: int, chunk: slice) -> AbstractContextManager[None]:
        """What the network draws by itself, in Python, follows the seed, step by step. A compiled one has its own."""
        if self.network.compiled:
            return nullcontext()
        return seeded((self.method.seed * 1_000_003 + step) * 1_000_003 + self.own.start + chunk.start)

    def stopped(self) -> dict[int, Stopped]:
        """Those of its facets that were stopped, by number of all C. The host waits for the device."""
        return {self.own.start + c: stop for c, stop in self.stops.found().items()}

    @torch.no_grad()
    def images(self) -> Tensor:
        """The pictures of its own facets as they are now: [c, ch, S, S] in 0..1."""
        return torch.cat([self.canvas(facets).clamp(0, 1) for facets in self.chunks.slices])

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leaves the frozen network out; keeps the random generator and the view at hand."""
        checkpoint["state_dict"] = {
            name: value for name, value in checkpoint["state_dict"].items() if not name.startswith("network.")
        }
        checkpoint.update(self.views.state())

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes the random generator back."""
        self.views.restore(checkpoint)

"""What the network is shown of the pictures: random views and noise, drawn at each step for all C facets."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mindseye.visualizer.transformations import Transformations, view


@dataclass(frozen=True)
class Through:
    """One step's views [C, 2, 3] and noise [C, ch, S, S], None for none: `through(images, facets)` is what is seen."""

    matrices: Tensor | None
    noise: Tensor | None

    def __call__(self, images: Tensor, facets: slice) -> Tensor:
        """images [c, ch, S, S] of those facets of all C, as the network sees them."""
        seen = images if self.matrices is None else view(images, self.matrices[facets])
        return seen if self.noise is None else seen + self.noise[facets]


class Views:
    """Draws for all C facets whichever are at hand, so that chunks and processes see what one batch would.

    shape: of all pictures, (C, ch, S, S). seed: of its generator, which a checkpoint keeps, with the view at hand.
    """

    def __init__(self, transformations: Transformations, shape: tuple[int, int, int, int], seed: int) -> None:
        self.transformations = transformations
        self.shape = shape
        self.seed = seed
        self._generator: torch.Generator | None = None
        self._state: Tensor | None = None  # of the generator, from a checkpoint
        self._matrices: Tensor | None = None

    def drawn_for(self, step: int, strength: float, device: torch.device) -> Through:
        """The views of step `step`, counted from 0, at the scheduled share of their ranges."""
        if self._generator is None:
            # On the host, whatever the device: every one then sees the same views, and goes on from what another left.
            self._generator = torch.Generator().manual_seed(self.seed)
            if self._state is not None:
                self._generator.set_state(self._state)
        asked = self.transformations
        if asked.moves and (self._matrices is None or step % asked.every == 0):
            self._matrices = asked.draw(self.shape[0], self._generator, strength)
        matrices = noise = None
        if asked.moves and self._matrices is not None:
            matrices = self._matrices.to(device, non_blocking=True)
        if asked.noise:
            noise = strength * asked.noise * torch.randn(self.shape, generator=self._generator)
            noise = noise.to(device, non_blocking=True)
        return Through(matrices, noise)

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps; nothing before the first step."""
        return {} if self._generator is None else {"generator": self._generator.get_state(), "views": self._matrices}

    def restore(self, state: dict[str, Any]) -> None:
        """As `state` gave it; drawing goes on from there."""
        self._state = state.get("generator")
        self._matrices = state.get("views")

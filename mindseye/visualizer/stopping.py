"""A facet whose numbers are no longer finite is stopped as it was before that step; the others do not notice.

It is decided on the device, by masks: the host hears of it where it reads the history, and never waits for it. Only
where the device is the host itself it looks first whether there is anything to mask, which is quicker there.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

WHY = ("the loss", "the gradient", "the picture")  # in the order in which a step makes them


@dataclass(frozen=True)
class Stopped:
    """Why a facet has been as it is since the end of step `step` − 1."""

    step: int  # the first that it did not take
    why: str  # of WHY: what was no longer finite

    @property
    def reason(self) -> str:
        """As it is said to people."""
        return f"{self.why} is no longer finite"


def norms(tensors: Sequence[Tensor]) -> Tensor:
    """‖x‖₂ of each facet, tensors [c, …] -> [c]. Not finite where a number is not, or is too large to be squared."""
    each = [torch.linalg.vector_norm(x.flatten(1), dim=1) for x in tensors]
    return each[0] if len(each) == 1 else torch.linalg.vector_norm(torch.stack(each), dim=0)


def all_is_well(sizes: Tensor, stopped: Tensor) -> bool:
    """Whether there is nothing to be done: all `sizes` are finite and nothing is `stopped`. The host waits for it."""
    return math.isfinite(float(sizes.sum())) and not bool(stopped.any())


def first_fault(sizes: Tensor) -> tuple[Tensor, Tensor]:
    """sizes [len(WHY), c] -> (whether one of them is not finite [c], the number in WHY of the first such [c] int64)."""
    faults = ~sizes.isfinite()
    return faults.any(dim=0), faults.byte().argmax(dim=0)


class Stops(nn.Module):
    """Which of `facets` facets are stopped, in buffers that a checkpoint keeps."""

    at: Tensor  # [facets] int64: the first step that it did not take, 0 where it goes on
    why: Tensor  # [facets] int64: the number in WHY

    def __init__(self, facets: int) -> None:
        super().__init__()
        self.register_buffer("at", torch.zeros(facets, dtype=torch.int64))
        self.register_buffer("why", torch.zeros(facets, dtype=torch.int64))

    def keep(self, facets: slice) -> None:
        """Only these from here on."""
        self.at, self.why = self.at[facets].clone(), self.why[facets].clone()

    def mark(self, total: Tensor, pictures: Sequence[Tensor], step: int) -> bool:
        """Mark those that step `step`, which was just taken, has spoilt: by its loss [c], and the canvas [c, …].

        False where it is known that none is stopped.
        """
        trained = [x for x in pictures if x.requires_grad]
        gradients = [x.grad for x in trained if x.grad is not None]
        sizes = torch.stack([total, norms(gradients), norms(trained)])
        if self.at.device.type == "cpu" and all_is_well(sizes, self.at):
            return False
        lost, why = first_fault(sizes)
        lost &= self.at == 0
        self.at.masked_fill_(lost, step)
        torch.where(lost, why, self.why, out=self.why)
        return True

    def found(self) -> dict[int, Stopped]:
        """Those that were stopped, counted from 0. The host waits for the device."""
        each = zip(*torch.stack([self.at, self.why]).tolist(), strict=True)
        return {c: Stopped(step, WHY[why]) for c, (step, why) in enumerate(each) if step}


class Held:
    """The canvas of each facet as it was before a step: tensors [c, …], always the same ones.

    What optimisers keep of a stopped facet, and its (r, b), may become NaN: they reach its picture alone, and that is
    put back. To hold them too would take half as long again as all this does.
    """

    def __init__(self) -> None:
        self._before: list[Tensor] = []

    def hold(self, canvas: Sequence[Tensor]) -> None:
        """Take copies."""
        if self._before:
            for before, x in zip(self._before, canvas, strict=True):
                before.copy_(x)
        else:
            self._before = [x.clone() for x in canvas]

    def put_back(self, canvas: Sequence[Tensor], stopped: Tensor) -> None:
        """Overwrite the facets that are `stopped` [c] with what was held. The others' bits stay."""
        for before, x in zip(self._before, canvas, strict=True):
            mask = stopped.view(-1, *[1] * (x.ndim - 1))
            torch.where(mask, before, x, out=x)


def nothing_left(stopped: Mapping[int, Stopped]) -> str:
    """One line for when every facet is stopped."""
    c, first = min(stopped.items(), key=lambda each: each[1].step)
    return (
        f"no facet is left: {first.why} of facet {c} is no longer finite at step {first.step}; "
        "try a smaller learning rate (schedule.lr), or precision=float32"
    )

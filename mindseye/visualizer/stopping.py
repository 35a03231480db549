"""A facet whose numbers are no longer finite is stopped as it was before that step; the others do not notice.

It is decided on the device, by masks: the host hears of it where it reads the history, and never waits for it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

LARGEST = 1e18  # float32 ends at 3e38: the square of a number beyond this, or a sum of such squares, may be infinite
WHY = ("the loss", "the gradient", "the picture", "(r, b)")  # in the order in which a step makes them


@dataclass(frozen=True)
class Stopped:
    """Why a facet has been as it is since the end of step `step` − 1."""

    step: int  # the first that it did not take
    why: str  # of WHY: what was no longer finite

    @property
    def reason(self) -> str:
        """As it is said to people."""
        return f"{self.why} is no longer finite"


def magnitude(tensors: Sequence[Tensor]) -> Tensor:
    """The largest |x| of each facet, NaN where there is one: tensors [c, …] -> [c]."""
    each = [torch.linalg.vector_norm(x.flatten(1), ord=math.inf, dim=1) for x in tensors]
    return each[0] if len(each) == 1 else torch.stack(each).amax(dim=0)


def first_fault(magnitudes: Tensor) -> tuple[Tensor, Tensor]:
    """magnitudes [len(WHY), c] -> (whether there is a fault [c], the number in WHY of the first one [c] int64)."""
    faults = ~(magnitudes <= LARGEST)  # no comparison with NaN is true
    return faults.any(dim=0), faults.byte().argmax(dim=0)


class Held:
    """Everything that a step may change of each facet, as it was before the step: tensors [c, …] by name."""

    def __init__(self) -> None:
        self._before: dict[str, Tensor] = {}

    def hold(self, state: Mapping[str, Tensor]) -> None:
        """Take copies."""
        self._before = {
            name: self._before[name].copy_(x) if name in self._before else x.clone() for name, x in state.items()
        }

    def put_back(self, state: Mapping[str, Tensor], stopped: Tensor) -> None:
        """Overwrite the facets that are `stopped` [c] with what was held; with 0 what was not there yet.

        The others' bits stay.
        """
        for name, x in state.items():
            mask = stopped.view(-1, *[1] * (x.ndim - 1))
            if name in self._before:
                torch.where(mask, self._before[name], x, out=x)
            else:
                x.masked_fill_(mask, 0)


def nothing_left(stopped: Mapping[int, Stopped]) -> str:
    """One line for when every facet is stopped."""
    c, first = min(stopped.items(), key=lambda each: each[1].step)
    return (
        f"no facet is left: {first.why} of facet {c} is no longer finite at step {first.step}; "
        "try a smaller schedule.lr.start, or precision=float32"
    )

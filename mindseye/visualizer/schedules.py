"""What changes from the first step to the last, linearly (Eq. 5)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BeforeValidator

from mindseye.fields import Words, value

PAIR = "a list [start, end] or [start, end, until]"
LARGEST = (2 - 2**-23) * 2.0**127  # of single precision, in which everything is computed


@dataclass(frozen=True)
class Linear:
    """From `start` at step t = 1 to `end` at step t = T, exactly at both.

    Eq. 5 as meant: ((end − start)·t + start·T − end)/(T − 1). (As printed it reaches neither.)
    start: the value at the first step, 0 or more. end: that at the last. until: the share of the way at which `end` is
    reached, and kept, above 0; 1 is the paper's.

    >>> Linear(1.0, 0.1)(1, 10), Linear(1.0, 0.1)(10, 10)
    (1.0, 0.1)
    >>> [Linear(8.0, 0.0, until=0.5)(t, 5) for t in range(1, 6)]
    [8.0, 4.0, 0.0, 0.0, 0.0]
    """

    start: float
    end: float
    until: float = 1.0

    def __post_init__(self) -> None:
        for bound in (self.start, self.end):
            if isinstance(bound, bool) or not isinstance(bound, int | float) or not 0 <= bound <= LARGEST:
                raise ValueError(f"start and end must be numbers of 0 to {LARGEST:.1e}, not {bound}")
        if isinstance(self.until, bool) or not isinstance(self.until, int | float) or not 0 < self.until <= 1:
            raise ValueError(f"until must be above 0 and 1 or less, a share of the steps, not {self.until}")

    def __call__(self, t: int, T: int) -> float:
        """The value at step t of T, 1 <= t <= T."""
        if t <= 1 or T <= 1:
            return self.start
        last = 1 + self.until * (T - 1)
        if t >= last:
            return self.end
        return ((self.end - self.start) * t + self.start * last - self.end) / (last - 1)


def _linear(pair: Any) -> Any:
    """[start, end] or [start, end, until] as a Linear."""
    if isinstance(pair, Sequence) and not isinstance(pair, str) and 2 <= len(pair) <= 3:
        return Linear(*pair)
    if not isinstance(pair, Linear):
        raise ValueError(f"must be {PAIR}, not {pair}")
    return pair


Fall = Annotated[Linear, BeforeValidator(_linear), Words(PAIR)]


@value
class Schedules:
    """The five that the paper lets fall, the strength of the random views, and two shares of the loss.

    Each is a `Linear`, or [start, end] or [start, end, until] of one. Lengths are fractions of the image's side, so
    they mean the same at any size.
    """

    lr: Fall = Linear(0.06, 0.005)
    """Learning rate of the image."""
    penalty: Fall = Linear(1e-3, 1e-4)
    """λ of Eq. 4."""
    mask_sigma: Fall = Linear(0.5, 0.4)
    """Standard deviation of the centre mask, fraction of the side."""
    blur_sigma: Fall = Linear(0.002, 0.0005)
    """Standard deviation of the Gaussian blur, fraction of the side."""
    denoise_weight: Fall = Linear(10240.0, 40960.0)
    """Weight of the image against its total variation, times the side in pixels (1024 is a weight of 2 at 512 pixels);
    a smaller one denoises more."""
    views: Fall = Linear(1.0, 0.0, until=0.9)
    """How much of the ranges in Transformations, and of its noise, is used, 0 to 1."""
    matching: Fall = Linear(1.0, 0.05)
    """Share of `objective.matching.weight` that counts, 0 to 1: much at first, when it is decided by which of many ways
    the layer is to answer, less when that answer is made exact."""
    strength: Fall = Linear(0.1, 1.0)
    """Share of `objective.strength` that counts, 0 to 1, the other way round."""

    def __post_init__(self) -> None:
        for name in ("mask_sigma", "blur_sigma", "denoise_weight"):
            linear = vars(self)[name]
            if linear.start == 0 or linear.end == 0:
                raise ValueError(f"{name} must start and end above 0; without the filter it has no part")
        for name in ("views", "matching", "strength"):
            linear = vars(self)[name]
            if max(linear.start, linear.end) > 1:
                raise ValueError(f"{name} must be 0 to 1, a share, not {linear.start} to {linear.end}")

    def at(self, t: int, T: int) -> dict[str, float]:
        """Every value at step t of T, by name."""
        return {name: linear(t, T) for name, linear in vars(self).items()}

"""What changes from the first step to the last, linearly (Eq. 5)."""

from dataclasses import dataclass

LARGEST = (2 - 2**-23) * 2.0**127  # of single precision, in which everything is computed


@dataclass(frozen=True)
class Linear:
    """From `start` at step t = 1 to `end` at step t = T, exactly at both.

    Eq. 5 as meant: ((end − start)·t + start·T − end)/(T − 1). (As printed it reaches neither.)
    start: the value at the first step. end: that at the last.
    until: the share of the way at which `end` is reached, and kept; 1 is the paper's.

    >>> Linear(1.0, 0.1)(1, 10), Linear(1.0, 0.1)(10, 10)
    (1.0, 0.1)
    >>> [Linear(8.0, 0.0, until=0.5)(t, 5) for t in range(1, 6)]
    [8.0, 4.0, 0.0, 0.0, 0.0]
    """

    start: float
    end: float
    until: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.until <= 1:
            raise ValueError(f"schedule: until={self.until}: above 0 and at most 1 is right, a share of the steps")

    def __call__(self, t: int, T: int) -> float:
        """The value at step t of T, 1 <= t <= T."""
        if t <= 1 or T <= 1:
            return self.start
        last = 1 + self.until * (T - 1)
        if t >= last:
            return self.end
        return ((self.end - self.start) * t + self.start * last - self.end) / (last - 1)


@dataclass(frozen=True)
class Schedules:
    """The five that the paper lets fall, the strength of the random views, and two shares of the loss.

    Lengths are fractions of the image's side, so they mean the same at any size.

    lr: learning rate of the image. penalty: λ of Eq. 4. mask_sigma: standard deviation of the centre mask.
    blur_sigma: standard deviation of the Gaussian blur. denoise_weight: the weight of the image against its total
    variation, times the side (1024 is a weight of 2 at 512 pixels; a smaller one denoises more). views: how much of
    the ranges in Transformations, and of its noise, is used, 0 to 1. matching: the share of `Matching.weight` that
    counts, 0 to 1: much at first, when it is decided by which of many ways the layer is to answer, less when that
    answer is made exact. strength: the share of `Objective.strength` that counts, 0 to 1, the other way round.
    """

    lr: Linear = Linear(0.06, 0.005)
    penalty: Linear = Linear(1e-3, 1e-4)
    mask_sigma: Linear = Linear(0.5, 0.4)
    blur_sigma: Linear = Linear(0.002, 0.0005)
    denoise_weight: Linear = Linear(10240.0, 40960.0)
    views: Linear = Linear(1.0, 0.0, until=0.9)
    matching: Linear = Linear(1.0, 0.05)
    strength: Linear = Linear(0.1, 1.0)

    def __post_init__(self) -> None:
        for name, linear in vars(self).items():
            if not isinstance(linear, Linear):
                raise ValueError(f"schedule.{name}={linear}: give schedule.{name}.start and schedule.{name}.end")
            if linear.start < 0 or linear.end < 0:
                raise ValueError(f"schedule.{name}: start and end are 0 or more, not {linear.start} and {linear.end}")
            if not max(linear.start, linear.end) <= LARGEST:
                raise ValueError(
                    f"schedule.{name}: start and end are at most {LARGEST:.1e}, not {linear.start} and {linear.end}"
                )
        if max(self.views.start, self.views.end) > 1:
            raise ValueError("schedule.views: start and end are 0 to 1, shares of the ranges in transformations")
        for name, weight in (("matching", "matching.weight"), ("strength", "strength")):
            linear = vars(self)[name]
            if max(linear.start, linear.end) > 1:
                raise ValueError(f"schedule.{name}: start and end are 0 to 1, shares of objective.{weight}")
        for name in ("mask_sigma", "blur_sigma", "denoise_weight"):
            linear = vars(self)[name]
            if linear.start == 0 or linear.end == 0:
                raise ValueError(f"schedule.{name}: start and end are above 0; switch the filter off with filters=none")

    def at(self, t: int, T: int) -> dict[str, float]:
        """Every value at step t of T, by name."""
        return {name: linear(t, T) for name, linear in vars(self).items()}

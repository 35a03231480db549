"""Two habits of the released program that the paper does not name, so that each can be ablated."""

from typing import Annotated

from pydantic import Field
from torch import Tensor

from mindseye.fields import Count, check
from mindseye.visualizer.callbacks.periodic import PeriodicFilter, Where

Amount = Annotated[float, Field(ge=0, le=1)]
Levels = Annotated[int, Field(ge=2)]


class Brighten(PeriodicFilter):
    """Every so many steps: `amount` more brightness.

    amount: of the range 0..1, 5 of 255 grey levels in the released program.
    """

    def __init__(self, amount: Amount = 5 / 255, every: Count = 50, where: Where = "everywhere"):
        super().__init__(every, where)
        check("amount", amount, Amount)
        self.amount = amount

    def filtered(self, images: Tensor, now: dict[str, float]) -> Tensor:
        """[C, ch, S, S] in 0..1 -> the same, brighter, at most 1."""
        return (images + self.amount).clamp(max=1)


class RoundToLevels(PeriodicFilter):
    """Every so many steps: pixels rounded to `levels` grey levels.

    levels: how many values of 0..1 a channel can have, evenly spaced.
    """

    def __init__(self, levels: Levels = 256, every: Count = 1, where: Where = "everywhere"):
        super().__init__(every, where)
        check("levels", levels, Levels)
        self.levels = levels

    def filtered(self, images: Tensor, now: dict[str, float]) -> Tensor:
        """[C, ch, S, S] in 0..1 -> multiples of 1/(levels − 1)."""
        return (images * (self.levels - 1)).round() / (self.levels - 1)

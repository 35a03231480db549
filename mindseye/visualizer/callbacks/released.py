"""Two habits of the released program that the paper does not name, so that each can be ablated."""

from typing import Literal

from torch import Tensor

from mindseye.visualizer.callbacks.periodic import PeriodicFilter


class Brighten(PeriodicFilter):
    """Every so many steps: `amount` more brightness.

    amount: of the range 0..1, 5 of 255 grey levels in the released program.
    """

    def __init__(self, amount: float = 5 / 255, every: int = 50, where: Literal["centre", "everywhere"] = "everywhere"):
        super().__init__(every, where)
        if not 0 <= amount <= 1:
            raise ValueError(f"filters.brighten.amount={amount}: 0 to 1 is right, of the range of brightness")
        self.amount = amount

    def filtered(self, images: Tensor, now: dict[str, float]) -> Tensor:
        """[C, ch, S, S] in 0..1 -> the same, brighter, at most 1."""
        return (images + self.amount).clamp(max=1)


class RoundToLevels(PeriodicFilter):
    """Every so many steps: pixels rounded to `levels` grey levels.

    levels: how many values of 0..1 a channel can have, evenly spaced.
    """

    def __init__(self, levels: int = 256, every: int = 1, where: Literal["centre", "everywhere"] = "everywhere"):
        super().__init__(every, where)
        if levels < 2:
            raise ValueError(f"filters.round.levels={levels}: 2 or more grey levels are right")
        self.levels = levels

    def filtered(self, images: Tensor, now: dict[str, float]) -> Tensor:
        """[C, ch, S, S] in 0..1 -> multiples of 1/(levels − 1)."""
        return (images * (self.levels - 1)).round() / (self.levels - 1)

"""A layer's output as maps over the image, whatever order its dimensions stand in and whatever stands among them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mindseye.networks.modules import every_module


def prefix_tokens(body: nn.Module) -> int | None:
    """How many tokens of a transformer stand before those of the image: class, distillation, registers.

    As the network says it: timm's `num_prefix_tokens`, torchvision's class token. None where it does not say.
    """
    for _, module in every_module(body):
        count = getattr(module, "num_prefix_tokens", None)
        if isinstance(count, int):
            return count
        if type(module).__name__ == "VisionTransformer" and isinstance(getattr(module, "class_token", None), Tensor):
            return 1
    return None


@dataclass(frozen=True)
class Layout:
    """What the dimensions of a layer's output mean; the first is the batch's. See `mindseye.networks.layouts`.

    Maps have `rows` and `columns`, sequences `tokens`, of which those `before` and `behind` are not of the image, and
    the others lie row by row on its grid, in this `order` where it is not their own; pooled channels have neither.
    """

    ndim: int
    channels: int
    rows: int | None = None
    columns: int | None = None
    tokens: int | None = None
    before: int = 0
    behind: int = 0
    order: tuple[int, ...] = ()

    def grid(self, shape: Sequence[int]) -> tuple[int, int] | None:
        """(height, width) of the map in an output of this shape; None where there is none (no square of tokens)."""
        if self.rows is not None and self.columns is not None:
            return shape[self.rows], shape[self.columns]
        if self.tokens is not None:
            patches = shape[self.tokens] - self.before - self.behind
            if self.order and patches != len(self.order):  # of images of another size
                return None
            side = math.isqrt(max(patches, 0))
            return (side, side) if side and side**2 == patches else None
        return None


POOLED = Layout(ndim=2, channels=1)


def as_maps(activation: Tensor, layer: str, layout: Layout | None) -> Tensor:
    """A layer's output as maps [B, D, H', W']. Raises ValueError where it has none, or none that could be told.

    Maps have their channels put first. Tokens lie down row by row on the square grid they came from, without those
    that are not of the image. Pooled channels [B, D] become maps of one pixel. layout: None where it is not known.
    """
    shape = list(activation.shape)
    if activation.is_complex():
        raise ValueError(
            f"layer {layer} gives complex numbers, a tensor of shape {shape}: a visualisation needs real ones; take a "
            "layer before or behind it"
        )
    if layout is not None and layout.ndim == activation.ndim:
        if layout.rows is not None and layout.columns is not None:
            return activation.permute(0, layout.channels, layout.rows, layout.columns)
        if layout.tokens is None:
            return activation[:, :, None, None]
        if layout.order and shape[layout.tokens] - layout.before - layout.behind != len(layout.order):
            raise ValueError(
                f"layer {layer} gives a tensor of shape {shape}, whose tokens are not in the order of the image; where "
                f"each belongs is known of {len(layout.order)}, as of images of the network's own size: give these, or "
                "another network.size"
            )
        if (grid := layout.grid(shape)) is not None:
            patches = activation.narrow(layout.tokens, layout.before, grid[0] * grid[1])
            if layout.order:
                order = torch.tensor(layout.order, device=patches.device)
                patches = patches.index_select(layout.tokens, order)
            return patches.permute(0, layout.channels, layout.tokens).unflatten(2, grid)
    raise ValueError(
        f"layer {layer} gives a tensor of shape {shape}, of which it cannot be told which dimensions are channels and "
        "which the map; a visualisation needs maps [B, D, H, W], tokens [B, T, D] of a square grid or pooled channels "
        "[B, D]: `mindseye layers` lists the layers that have them"
    )

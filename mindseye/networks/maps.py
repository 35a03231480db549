"""A layer's output as maps over the image, whatever order its dimensions stand in and whatever stands among them."""

import math

from torch import Tensor, nn

# A class token and up to eight registers (Darcet et al. 2024) are known; a longer rest is no grid of patches.
MOST_PREFIX_TOKENS = 9


def prefix_tokens(body: nn.Module) -> int | None:
    """How many tokens of a transformer stand before those of the image: class, distillation, registers.

    As the network says it: timm's `num_prefix_tokens`, torchvision's class token. None where it does not say.
    """
    for module in body.modules():
        said = getattr(module, "num_prefix_tokens", None)
        if isinstance(said, int):
            return said
        if type(module).__name__ == "VisionTransformer" and isinstance(getattr(module, "class_token", None), Tensor):
            return 1
    return None


def token_grid(tokens: int, prefix: int | None) -> tuple[int, int] | None:
    """(prefix, side) of a sequence of prefix + side² tokens; None where it is none.

    `prefix`: how many the network has, or None where it does not say. Then, and where there are none yet (before a
    class token is put in front), the largest square is the image's.
    """
    if prefix is not None and tokens > prefix and math.isqrt(tokens - prefix) ** 2 == tokens - prefix:
        return prefix, math.isqrt(tokens - prefix)
    side = math.isqrt(tokens)
    most = 0 if prefix is not None else MOST_PREFIX_TOKENS
    return (tokens - side**2, side) if side and tokens - side**2 <= most else None


def channels_come_last(shape: tuple[int, ...]) -> bool:
    """Whether four dimensions are [B, H, W, D] (Swin) and not [B, D, H, W].

    Images are square here, and so are maps: where the second and third dimension are equal and the fourth is not, the
    fourth is the channels'.
    """
    _, first, second, last = shape
    return first == second != last


def as_maps(activation: Tensor, layer: str, prefix: int | None = None) -> Tensor:
    """A layer's output as maps [B, D, H', W'], of which H' = W'. Raises ValueError where it has none.

    Maps [B, D, H', W'] stay as they are; [B, H', W', D] has its channels put first (see `channels_come_last`). Tokens
    [B, T, D] lie down row by row on the square grid they came from, without those that stand before it; `prefix`: see
    `token_grid`. Pooled channels [B, D] become maps of one pixel.
    """
    if activation.ndim == 4:
        return activation.permute(0, 3, 1, 2) if channels_come_last(tuple(activation.shape)) else activation
    if activation.ndim == 2:
        return activation[:, :, None, None]
    if activation.ndim == 3 and (grid := token_grid(activation.shape[1], prefix)) is not None:
        before, side = grid
        return activation[:, before:].transpose(1, 2).unflatten(2, (side, side))
    raise ValueError(
        f"layer {layer} gives a tensor of shape {list(activation.shape)}; a visualisation needs maps [B, D, H, W], "
        "tokens [B, T, D] of a square grid or pooled channels [B, D]: `mindseye layers` lists the layers that have them"
    )

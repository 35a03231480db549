"""Gradients that neither vanish nor overflow in float16: scaled before a network, and back after it."""

from typing import Any

import torch
from torch import Tensor

GRADIENT_TOP = 2.0**4  # the largest of a picture's gradients at the layer in float16, which reaches from 6e-8 to 65504


class Scale:
    """What the gradients of one pass were multiplied by on their way back, a power of two for each picture: [B]."""

    factor: Tensor


class ScaledUp(torch.autograd.Function):
    """The same values forward. Backward each picture's gradients times a power of two that brings their largest near
    GRADIENT_TOP, whatever objective they come from, so that they neither vanish nor overflow in float16."""

    @staticmethod
    def forward(ctx: Any, scale: Scale, count: int, *answers: Tensor) -> tuple[Tensor, ...]:
        ctx.scale, ctx.count = scale, count
        ctx.set_materialize_grads(False)
        return tuple(answer.view_as(answer) for answer in answers)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        given = [gradient for gradient in gradients if gradient is not None]
        if all(len(gradient) == ctx.count for gradient in given):
            largest = torch.stack([gradient.flatten(1).abs().amax(dim=1) for gradient in given]).amax(dim=0)
        else:  # a layer that cuts pictures into windows: one factor for all
            largest = torch.stack([gradient.abs().amax() for gradient in given]).amax().expand(ctx.count)
        exponent = (GRADIENT_TOP / largest).log2().floor().nan_to_num(0.0, posinf=0.0, neginf=0.0)
        factor = ctx.scale.factor = exponent.clamp(-60, 60).exp2()
        return None, None, *(None if own is None else own * _along(factor, own) for own in gradients)


class ScaledBack(torch.autograd.Function):
    """The same values forward; backward, after `ScaledUp`, the gradient by what it was multiplied by there."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, scale: Scale) -> Tensor:
        ctx.scale = scale
        return images.view_as(images)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient / _along(ctx.scale.factor, gradient), None


def _along(factor: Tensor, values: Tensor) -> Tensor:
    """[B] so that it multiplies [B, …]."""
    if len(values) != len(factor):
        return factor[0]
    return factor.reshape(-1, *[1] * (values.ndim - 1))

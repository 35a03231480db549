"""Whether the gradient of a layer reaches the pictures."""

import torch
from torch import Tensor

from mindseye.words import first_line


def comes_through(total: Tensor, answer: Tensor, shown: Tensor, layer: str) -> Tensor:
    """Whether what the layer's terms ask of its answer reaches what the network was shown, to any number that is not 0.

    total: [c], the loss; answer: the layer's; shown: [c, ch, S, S]. Layers on the way have gradients of their own,
    which say nothing of it. True where nothing is asked. Raises ValueError where torch has no gradient of what is
    before the layer.
    """
    (asked,) = torch.autograd.grad(total.sum(), answer, retain_graph=True, allow_unused=True)
    if asked is None:
        return torch.ones((), dtype=torch.bool, device=shown.device)
    try:
        (reached,) = torch.autograd.grad(answer, shown, asked, retain_graph=True, allow_unused=True)
    except RuntimeError as error:
        if "derivative for" not in str(error):
            raise
        raise ValueError(
            f"no gradient of {layer} reaches the image: torch has none of an operation before it "
            f"({first_line(error)}); give the network without that"
        ) from error
    there = torch.zeros_like(asked[:1]) if reached is None else reached
    return (there != 0).any() | (asked == 0).all()


def no_gradient(layer: str) -> str:
    """One line for where it does not."""
    return (
        f"no gradient of {layer} reaches the image, for no facet: something before it rounds, "
        "cuts off or compares (round, floor, sign, clamp, argmax, >); give the network without that"
    )

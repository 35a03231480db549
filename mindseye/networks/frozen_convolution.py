"""A convolution whose weights never change, laid out once as oneDNN's kernels read them, forward and for the gradient.

What it gains is measured in docs/performance.md. torch lays out the weights of an `nn.Conv2d` anew at every call, and
computes the gradient of its input by kernels that are slower than those of a convolution.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

# oneDNN's kernels for the gradient of the input work on this many of its channels at a time, needed or not.
BLOCK = 16


class FrozenConv2d(nn.Conv2d):
    """An `nn.Conv2d` with the same answers up to rounding, faster where it gives its input a gradient on a CPU.

    That gradient is itself computed as a convolution. With y[o] = Σ_t w[t] x[so + t − p], stride s and padding p, it is
    at i = sm + a, for each phase a = 0 … s − 1,

        gx[sm + a] = Σ_d w[sd + a + p] gy[m − d]

    a convolution of stride 1 of gy by turned weights. The s² phases are together one convolution to s² times as many
    channels, interleaved afterwards. At stride 1 it computes nothing in vain. At a greater stride the phases' windows
    are partly empty, and it is taken where oneDNN's own gradient wastes more: for few channels, as images have.

    Weights get no gradient. Without a gradient to give, on other devices, in other precisions than float32 and
    bfloat16 and under torch.compile it runs as `nn.Conv2d`.
    """

    # Made at the first use, left out of copies and files: they are opaque to both.
    _packed: Tensor | None = None
    _turned: Tensor | None = None

    @staticmethod
    def suits(convolution: nn.Module) -> bool:
        """Whether it can stand for this one: an `nn.Conv2d` itself, in one group, with zeros beyond the border.

        oneDNN's kernels for many groups gain nothing.
        """
        return (
            type(convolution) is nn.Conv2d
            and convolution.groups == 1
            and convolution.padding_mode == "zeros"
            and not isinstance(convolution.padding, str)
        )

    @classmethod
    def of(cls, convolution: nn.Conv2d) -> "FrozenConv2d":
        """One that shares its weights with `convolution`, which `suits`."""
        made = cls(
            convolution.in_channels, convolution.out_channels, convolution.kernel_size, convolution.stride,
            convolution.padding, convolution.dilation, bias=convolution.bias is not None, device="meta",
        )  # fmt: skip
        made.weight, made.bias = convolution.weight, convolution.bias
        return made.requires_grad_(False).train(convolution.training)

    def forward(self, input: Tensor) -> Tensor:
        """[B,ch,H,W] -> [B,D,H',W']."""
        fast = (
            torch.is_grad_enabled()
            and input.requires_grad
            and not self.weight.requires_grad
            and input.device.type == "cpu"
            and input.ndim == 4
            and not torch.compiler.is_compiling()
            and _has_kernels(self.weight.dtype)
        )
        return _Fast.apply(input.to(self.weight.dtype), self) if fast else super().forward(input)

    def answer(self, images: Tensor) -> Tensor:
        """What `nn.Conv2d` gives, by the weights laid out once."""
        if self._packed is None:
            self._packed = _pack(self.weight, self.padding, self.stride, self.dilation, images.shape)
        return _convolve(images, self._packed, self.bias, self.padding, self.stride, self.dilation)

    def input_gradient(self, gradient: Tensor, size: torch.Size) -> Tensor:
        """The gradient of an input of `size` [B,ch,H,W], given that of the output."""
        s = self.stride[0]
        turnable = set(self.dilation) == {1} and set(self.stride) == {s} and (s == 1 or self.in_channels < BLOCK)
        if not turnable:
            return self._own_gradient(gradient, size)
        margins, windows = [], []
        for kernel, padding, side, given in zip(
            self.kernel_size, self.padding, size[2:], gradient.shape[2:], strict=True
        ):
            low, high = _reach(kernel, s, padding)
            wanted = math.ceil(side / s)
            margin = max(high, -low, wanted - given - low)
            margins.append(margin)
            windows.append(slice(margin - high, margin - high + wanted))
        if self._turned is None:
            self._turned = _pack(turned(self.weight, s, self.padding), margins, (1, 1), (1, 1), gradient.shape)
        phases = _convolve(gradient, self._turned, None, margins, (1, 1), (1, 1))[:, :, windows[0], windows[1]]
        return phases if s == 1 else F.pixel_shuffle(phases, s)[:, :, : size[2], : size[3]]

    def _own_gradient(self, gradient: Tensor, size: torch.Size) -> Tensor:
        """What torch computes, in the layout that the output's gradient has: an input that only says its size, as
        `torch.nn.grad.conv2d_input` gives it, lies in none, and torch then copies both into channels first."""
        last = gradient.is_contiguous(memory_format=torch.channels_last)
        layout = torch.channels_last if last else torch.contiguous_format
        entered = torch.empty(size, dtype=gradient.dtype, memory_format=layout)
        return torch.ops.aten.convolution_backward(
            gradient, entered, self.weight, None, self.stride, self.padding, self.dilation,
            False, [0, 0], 1, [True, False, False],
        )[0]  # fmt: skip

    def _apply(self, fn: Any, recurse: bool = True) -> "FrozenConv2d":
        self._packed = self._turned = None  # of another precision or device than the weights will be
        return super()._apply(fn, recurse)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_packed", "_turned")}


def turned(weight: Tensor, stride: int, padding: tuple[int, ...]) -> Tensor:
    """Weights [D,ch,h,w] -> those of the convolution that gives the input's gradient, [ch·s², D, n, m].

    The phases of a channel follow each other, row by row, as `pixel_shuffle` reads them.
    """
    D, ch, rows, columns = weight.shape
    (low, high), (left, right) = _reach(rows, stride, padding[0]), _reach(columns, stride, padding[1])
    made = weight.new_zeros(ch, stride, stride, D, high - low + 1, right - left + 1)
    for a in range(stride):
        for b in range(stride):
            for d in range(low, high + 1):
                for e in range(left, right + 1):
                    t, u = stride * d + a + padding[0], stride * e + b + padding[1]
                    if 0 <= t < rows and 0 <= u < columns:
                        made[:, a, b, :, high - d, right - e] = weight[:, :, t, u].T
    return made.flatten(0, 2)


def _reach(size: int, stride: int, padding: int) -> tuple[int, int]:
    """The least and the greatest d with 0 <= s·d + a + p < size for some phase a."""
    return -((stride - 1 + padding) // stride), (size - 1 - padding) // stride


class _Fast(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, convolution: FrozenConv2d) -> Tensor:
        ctx.convolution, ctx.size = convolution, images.shape
        return convolution.answer(images)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.convolution.input_gradient(gradient, ctx.size), None


# ---- oneDNN, by the operations that torch.compile itself uses ------------------------------------------------------


def _has_kernels(dtype: torch.dtype) -> bool:
    # Both are torch's own affair: a release without one of them computes by nn.Conv2d.
    there = hasattr(torch.ops.mkldnn, "_convolution_pointwise") and hasattr(
        torch._C._nn, "mkldnn_reorder_conv2d_weight"
    )
    if not (torch.backends.mkldnn.is_available() and there):
        return False
    if dtype is torch.bfloat16:
        return torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return dtype is torch.float32


def _pack(weight: Tensor, padding: Any, stride: Any, dilation: Any, size: torch.Size) -> Tensor:
    # Two images whatever the batch, so that no layout depends on it.
    weight = weight.contiguous(memory_format=torch.channels_last).to_mkldnn()
    return torch._C._nn.mkldnn_reorder_conv2d_weight(weight, padding, stride, dilation, 1, [2, *size[1:]])


def _convolve(images: Tensor, weight: Tensor, bias: Tensor | None, padding: Any, stride: Any, dilation: Any) -> Tensor:
    return torch.ops.mkldnn._convolution_pointwise(images, weight, bias, padding, stride, dilation, 1, "none", [], "")

"""Functions with gradients of our own, where PyTorch has none or takes several times as long on a processor.

In bf16 on one thread, forward and backward: maximum 1.0 ms instead of 9.8, asinh 1.9 instead of 13.5, sinc 1.6 instead
of 10.0 for half a million numbers.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x)), to the last digit also where PyTorch's own threshold of 20 would cut it off."""
    return F.softplus(x, threshold=40)


def swish(x: Tensor, beta: Tensor) -> Tensor:
    """x σ(βx); beta broadcasts to x."""
    return SwishFunction.apply(x, beta)


def maximum(x: Tensor, y: Tensor) -> Tensor:
    """The greater of both, which broadcast to each other. Where they are equal the gradient is y's."""
    return Maximum.apply(x, y)


def minimum(x: Tensor, y: Tensor) -> Tensor:
    """The smaller of both."""
    return -Maximum.apply(-x, -y)


def sinc(x: Tensor) -> Tensor:
    """sin(x) / x, 1 at 0."""
    return Sinc.apply(x)


def asinh(x: Tensor) -> Tensor:
    """sinh⁻¹(x)."""
    return Asinh.apply(x)


class SwishFunction(torch.autograd.Function):
    """dy/dx is SiLU's slope at βx, which is one operation, and dy/dβ = x² σ(βx) (1 - σ(βx)) = y (x - y)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, beta: Tensor) -> Tensor:
        y = (beta * x).sigmoid_().mul_(x)
        ctx.save_for_backward(x, beta, y)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        x, beta, y = ctx.saved_tensors
        for_x = torch.ops.aten.silu_backward(gradient, beta * x)
        return for_x, (x - y).mul_(y).mul_(gradient).sum_to_size(beta.shape)


class Maximum(torch.autograd.Function):
    """The gradient goes where ReLU's would go that has x - y for its input; the rest of it is y's."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor) -> Tensor:
        ctx.save_for_backward(x, y)
        return torch.maximum(x, y)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        x, y = ctx.saved_tensors
        for_x = torch.ops.aten.threshold_backward(gradient, x - y, 0)
        return for_x.sum_to_size(x.shape), (gradient - for_x).sum_to_size(y.shape)


class Sinc(torch.autograd.Function):
    """dy/dx = (cos(x) - y) / x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = (torch.sin(x) / x).nan_to_num_(1.0)
        ctx.save_for_backward(x, y)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        x, y = ctx.saved_tensors
        return torch.cos(x).sub_(y).div_(x).nan_to_num_(0.0).mul_(gradient)


class Asinh(torch.autograd.Function):
    """log(x + √(x² + 1)) without cancellation near 0; dy/dx = 1 / √(x² + 1)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        size = x.abs()
        return torch.log1p(size + size * size / (1 + torch.sqrt(size * size + 1))).copysign_(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        (x,) = ctx.saved_tensors
        return gradient * torch.rsqrt(x * x + 1)

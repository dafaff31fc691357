"""Feed-forward layers of a transformer block: ungated, and gated with the same number of parameters."""

from collections.abc import Callable

from torch import Tensor, nn

from models.activations import Activation
from models.ranges import Factor


class MLP(nn.Module):
    """activation(x W_1) W_2 with hidden width `expansion` × `width`; x and the output are (B, T, width)."""

    def __init__(self, width: int, activation: Callable[[int], Activation], expansion: Factor = 4.0):
        super().__init__()
        hidden = round(expansion * width)
        self.up = nn.Linear(width, hidden, bias=False)
        self.activation = activation(hidden)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.activation(self.up(x)))


class GLU(nn.Module):
    """(activation(x W) ⊗ x V) W_2 (Shazeer 2020); SwiGLU with SiLU. x and the output are (B, T, width).

    The hidden width is two thirds of the ungated layer's, so that its three matrices have as many parameters as the two
    of MLP.
    """

    def __init__(self, width: int, activation: Callable[[int], Activation], expansion: Factor = 4.0):
        super().__init__()
        hidden = round(expansion * width * 2 / 3)
        # Two matrices: one matrix would save a product, but its strided halves slow down the operations that follow.
        self.gated = nn.Linear(width, hidden, bias=False)  # W
        self.up = nn.Linear(width, hidden, bias=False)  # V
        self.activation = activation(hidden)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.activation(self.gated(x)) * self.up(x))

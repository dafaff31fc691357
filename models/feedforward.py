"""Feed-forward layers of a transformer block: ungated, and gated at the same number of parameters."""

from collections.abc import Callable

from torch import Tensor, nn

from models.activations import Activation


class MLP(nn.Module):
    """activation(x W_1) W_2 with hidden width `expansion` × `width`; (B, T, width) to the same shape."""

    def __init__(self, width: int, activation: Callable[[int], Activation], expansion: float = 4.0):
        super().__init__()
        hidden = round(expansion * width)
        self.up = nn.Linear(width, hidden, bias=False)
        self.activation = activation(hidden)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.activation(self.up(x)))


class GLU(nn.Module):
    """(activation(x W) ⊗ x V) W_2 (Shazeer 2020); SwiGLU when the activation is SiLU.

    The hidden width is two thirds of the ungated layer's, so that three matrices hold as many parameters as its two.
    """

    def __init__(self, width: int, activation: Callable[[int], Activation], expansion: float = 4.0):
        super().__init__()
        hidden = round(expansion * width * 2 / 3)
        # Two matrices: the halves of one product are strided, which costs more on the way on than it spares.
        self.gated = nn.Linear(width, hidden, bias=False)  # W
        self.up = nn.Linear(width, hidden, bias=False)  # V
        self.activation = activation(hidden)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.activation(self.gated(x)) * self.up(x))

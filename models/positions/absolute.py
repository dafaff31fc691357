"""Schemes that add a vector for the absolute position to the token embedding."""

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from models.positions.base import Position


class Learned(Position):
    """A trained table of `max_length` vectors (Gehring et al. 2017; BERT, GPT-2).

    Raises ValueError for a position beyond the table.
    """

    def __init__(self, width: int, heads: int, max_length: PositiveInt, causal: bool = True):
        super().__init__(width, heads, causal)
        self.table = nn.Embedding(max_length, width)
        self.limit = max_length

    def embed(self, x: Tensor, positions: Tensor) -> Tensor:
        end = int(positions[-1]) + 1
        if end > self.table.num_embeddings:
            raise ValueError(
                f"the table of learned positions has {self.table.num_embeddings} entries and the sequence needs {end}: "
                "train with a longer table (position.max_length), or choose a scheme without a maximum length"
            )
        return x + self.table(positions)


class Sinusoidal(Position):
    """sin and cos of position / 10,000^(2i/width) (Vaswani et al. 2017, section 3.5).

    Scaled by 1/√width, the standard deviation of the initial token embeddings.
    """

    def embed(self, x: Tensor, positions: Tensor) -> Tensor:
        return x + (waves(positions, self.width) * self.width**-0.5).to(x.dtype)


def waves(positions: Tensor, width: int) -> Tensor:
    """sin, then cos, of position / 10,000^(2i/width) at positions (T,): (T, width) in float64."""
    exponents = torch.arange(0, width, 2, device=positions.device, dtype=torch.float64) / width
    angles = positions.to(torch.float64)[:, None] / 10_000**exponents  # (T, width / 2)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)[:, :width]

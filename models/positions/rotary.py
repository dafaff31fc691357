"""Rotary position embedding: queries and keys are turned by an angle proportional to their position."""

import torch
from torch import Tensor

from models.positions.base import Position


class Rotary(Position):
    """RoPE (Su et al. 2021, equations 14-15 and the element-wise form 34).

    Pair i of a head turns by position · base^(-2i/d). A pair is made of components i and i + d/2, as in transformers,
    instead of neighbours: a fixed permutation of the paper's, which no score can see.
    Raises ValueError for an odd head width or a base that is not above 1.
    """

    def __init__(self, width: int, heads: int, base: float = 10_000.0):
        super().__init__(width, heads)
        self.head_width = width // heads
        if self.head_width % 2:
            raise ValueError(f"rotary positions turn pairs: the head width must be even, not {self.head_width}")
        if base <= 1:
            raise ValueError(f"the base of rotary positions must be above 1, not {base:g}")
        self.base = base

    def frequencies(self) -> Tensor:
        """The angle per position of each pair, (d / 2,), in float64."""
        exponents = torch.arange(0, self.head_width, 2, dtype=torch.float64) / self.head_width
        return self.base**-exponents

    def rotate(self, x: Tensor, positions: Tensor) -> Tensor:
        # float64: at position 10^6 a float32 angle is wrong by a twentieth of a radian.
        angles = positions.to(torch.float64)[:, None] * self.frequencies().to(x.device)  # (T, d / 2)
        cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
        first, second = x.chunk(2, dim=-1)
        return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)

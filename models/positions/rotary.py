"""Rotary position embedding: queries and keys are rotated by an angle proportional to their position."""

from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from models.positions.base import Position

Base = Annotated[float, Field(gt=1)]


class Rotary(Position):
    """RoPE (Su et al. 2021, equations 14-15 and the element-wise form 34).

    Pair i of a head is rotated by position · base^(-2i/d). Pair i is the components i and i + d/2, as in transformers,
    instead of neighbouring components as in the paper: a fixed permutation that does not change any score.
    Raises ValueError for an odd head width or a base of 1 or less.
    """

    def __init__(self, width: int, heads: int, base: Base = 10_000.0, causal: bool = True):
        super().__init__(width, heads, causal)
        if self.head_width % 2:
            raise ValueError(f"rotary positions rotate pairs: the head width must be even, not {self.head_width}")
        if base <= 1:
            raise ValueError(f"the base of rotary positions must be above 1, not {base:g}")
        self.base = base
        self.cached: tuple[Tensor, Tensor, Tensor] | None = None  # positions, their cos and their sin

    def frequencies(self, positions: Tensor | None = None) -> Tensor:
        """The angle per position of each pair, (d / 2,) in float64, for a sequence that ends at the last position."""
        return self.powers(self.base)

    def powers(self, base: float) -> Tensor:
        """base^(-2i/d) for each pair."""
        exponents = torch.arange(0, self.head_width, 2, dtype=torch.float64) / self.head_width
        return base**-exponents

    def rotate(self, x: Tensor, positions: Tensor) -> Tensor:
        if self.cached is None or self.cached[0] is not positions or self.cached[1].dtype != x.dtype:
            # float64: at position 10^6 a float32 angle is wrong by a twentieth of a radian.
            angles = positions.to(torch.float64)[:, None] * self.frequencies(positions).to(x.device)  # (T, d / 2)
            cos, sin = (self.temperature * wave for wave in (angles.cos(), angles.sin()))
            self.cached = positions, cos.to(x.dtype), sin.to(x.dtype)
        return Turn.apply(x, *self.cached[1:])


class Turn(torch.autograd.Function):
    """(a cos - b sin, b cos + a sin) for the halves a, b of x; the gradient is the rotation by the opposite angle.

    Needs half the memory passes of autograd on the formula, and saves nothing of x for the backward pass.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return turn(x, cos, sin)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        cos, sin = ctx.saved_tensors
        return turn(gradient, cos, -sin), None, None


def turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x (…, T, d) rotated by the angles with these cos and sin (T, d / 2)."""
    first, second = x.contiguous().chunk(2, dim=-1)
    # No addcmul: in bfloat16 on a CPU it is three times slower than two products and a sum.
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def rotation_matrix(frequencies: Tensor, position: int) -> Tensor:
    """The block-diagonal matrix (d, d) that rotates a query or key at `position` (Su et al. 2021, equation 15).

    Equivalent to `Rotary.rotate`, with d² products instead of 2d. Only measurements and tests use it.
    """
    angles = position * frequencies
    cos, sin = torch.diag(angles.cos()), torch.diag(angles.sin())
    return torch.cat([torch.cat([cos, -sin], dim=1), torch.cat([sin, cos], dim=1)])

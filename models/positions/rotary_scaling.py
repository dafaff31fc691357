"""Rotary positions for sequences `factor` times as long as the training sequences."""

import math
from typing import Annotated

import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from models.positions.rotary import Base, Rotary

Scaling = Annotated[float, Field(ge=1)]


class ScaledRotary(Rotary):
    """The base of all scalings. Raises ValueError for a factor below 1."""

    def __init__(self, width: int, heads: int, factor: Scaling, base: Base = 10_000.0, causal: bool = True):
        super().__init__(width, heads, base, causal)
        if factor < 1:
            raise ValueError(f"the scaling factor of rotary positions must be at least 1, not {factor:g}")
        self.factor = factor


class InterpolatedRotary(ScaledRotary):
    """Position interpolation: positions divided by the factor (Chen et al. 2023, equation 4)."""

    def frequencies(self, positions: Tensor | None = None) -> Tensor:
        return self.powers(self.base) / self.factor


class NTKAwareRotary(ScaledRotary):
    """NTK-aware scaling: a larger base (Peng et al. 2023, equation 16).

    The fastest pair rotates as before, the slowest `factor` times slower.
    """

    def frequencies(self, positions: Tensor | None = None) -> Tensor:
        return self.powers(larger(self.base, self.factor, self.head_width))


class MeasuredRotary(ScaledRotary):
    """The base of the scalings that depend on the length of the training sequences."""

    def __init__(
        self,
        width: int,
        heads: int,
        factor: Scaling,
        trained_length: PositiveInt,
        base: Base = 10_000.0,
        causal: bool = True,
    ):
        super().__init__(width, heads, factor, base, causal)
        self.trained_length = trained_length


class DynamicNTKRotary(MeasuredRotary):
    """NTK-aware scaling by the length of the sequence; none up to `trained_length` (Peng et al. 2023, section 3.3).

    The angles of all tokens depend on the length of the whole sequence, as in transformers. Cached keys have the angles
    of a shorter sequence, so reading beyond `trained_length` from a cache raises ValueError.
    """

    def embed(self, x: Tensor, positions: Tensor) -> Tensor:
        end = int(positions[-1]) + 1
        if int(positions[0]) and end > self.trained_length:
            raise ValueError(
                f"dynamic scaling rotates all tokens again when a sequence grows beyond {self.trained_length}, so it "
                f"cannot read up to {end} tokens from a cache: read the whole sequence at once, or choose rope_ntk"
            )
        return x

    def frequencies(self, positions: Tensor | None = None) -> Tensor:
        length = 0 if positions is None else int(positions[-1]) + 1
        factor = max(1.0, self.factor * length / self.trained_length - (self.factor - 1))
        return self.powers(larger(self.base, factor, self.head_width))


class YaRNRotary(MeasuredRotary):
    """YaRN (Peng et al. 2023, sections 3.2 and 3.4).

    Pairs with more than 32 rotations within `trained_length` are unchanged, pairs with less than one are interpolated,
    with a ramp between. The ramp runs over the pairs, with its ends rounded outwards, as in transformers; the paper's
    runs over the number of rotations. The scores have a temperature.
    """

    FAST, SLOW = 32, 1  # rotations within the trained length at the two ends of the ramp

    @property
    def temperature(self) -> float:  # type: ignore[override]
        """0.1 ln s + 1 for queries and for keys, so squared in the scores (equation 22)."""
        return 0.1 * math.log(self.factor) + 1

    def frequencies(self, positions: Tensor | None = None) -> Tensor:
        plain = self.powers(self.base)
        low = max(0, math.floor(self.pair_with(self.FAST)))
        high = min(self.head_width - 1, math.ceil(self.pair_with(self.SLOW)))
        pairs = torch.arange(len(plain), dtype=torch.float64)
        interpolated = ((pairs - low) / (high - low or 0.001)).clamp(0, 1)
        return plain * (1 - interpolated) + plain / self.factor * interpolated

    def pair_with(self, turns: float) -> float:
        """The (fractional) index of the pair with this number of rotations within the trained length."""
        ratio = math.log(self.trained_length / (turns * 2 * math.pi)) / math.log(self.base)
        return self.head_width * ratio / 2


def larger(base: float, factor: float, head_width: int) -> float:
    """The base with which the slowest pair rotates `factor` times slower."""
    return base * factor ** (head_width / max(1, head_width - 2))

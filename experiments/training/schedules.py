"""Learning-rate schedules: stateless functions from the step to a factor of the learning rate."""

import math
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field, NonNegativeInt

Final = Annotated[float, Field(ge=0, le=1)]


@dataclass
class Constant:
    """1 after a linear warm-up."""

    warmup_steps: NonNegativeInt

    def __call__(self, step: int, steps: int) -> float:
        return min(1.0, (step + 1) / max(1, self.warmup_steps))


@dataclass
class LateCosine:
    """Linear warm-up, 1 until step `constant_steps`, then half a cosine down to `final`."""

    warmup_steps: NonNegativeInt
    constant_steps: NonNegativeInt
    final: Final

    def __call__(self, step: int, steps: int) -> float:
        share = max(0, step - self.constant_steps) / max(1, steps - self.constant_steps)
        cosine = 0.5 * (1 + math.cos(math.pi * share))
        return min(1.0, (step + 1) / max(1, self.warmup_steps)) * (self.final + (1 - self.final) * cosine)


@dataclass
class Cosine:
    """Half a cosine from 1 to `final` over all steps, with a linear warm-up (Loshchilov & Hutter 2017)."""

    warmup_steps: NonNegativeInt
    final: Final

    def __call__(self, step: int, steps: int) -> float:
        cosine = 0.5 * (1 + math.cos(math.pi * step / steps))
        return min(1.0, (step + 1) / max(1, self.warmup_steps)) * (self.final + (1 - self.final) * cosine)

"""Intervals for paired effects."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean over n values with its 95 % confidence interval; without one (NaN) where n is below 2."""

    n: int
    mean: float
    low: float
    high: float


def estimate(values: Sequence[float]) -> Estimate:
    """The mean of independent values and Student's t interval around it.

    Values without any spread, such as counts that do not depend on the seed, have an interval of no width.
    """
    sample = np.asarray(values, dtype=np.float64)
    mean = float(sample.mean()) if len(sample) else math.nan
    if len(sample) < 2 or not np.isfinite(sample).all():
        return Estimate(len(sample), mean, math.nan, math.nan)
    half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, len(sample) - 1) * stats.sem(sample))
    return Estimate(len(sample), mean, mean - half, mean + half)


def estimate_ratio(values: Sequence[float]) -> Estimate:
    """The geometric mean of positive ratios and its interval, from the t interval of their logarithms."""
    logarithms = estimate(np.log(values).tolist())
    return Estimate(logarithms.n, *(math.exp(x) for x in (logarithms.mean, logarithms.low, logarithms.high)))

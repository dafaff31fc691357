"""Means and their intervals. One unit is one seed: what a seed measures several times is averaged before."""

import math
import statistics
import sys
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy import special

ALPHA = 0.05
SHARES = np.sin(np.linspace(0, math.pi / 2, 801)[1:-1]) ** 2  # at which a likelihood is computed, denser at the ends
LARGEST_EXPONENT = math.log(sys.float_info.max)
CORRELATIONS = np.array([1e-4, 0.003, 0.01, 0.03, 0.06, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.97, 0.9999])


class Estimate(NamedTuple):
    """The mean of n values and the ends of its interval, which are NaN where there is none."""

    n: int
    mean: float
    low: float
    high: float


def average(values: Iterable[float]) -> float:
    """The mean of some values; NaN if infinite ones cancel or the sum is too large."""
    try:
        return statistics.fmean(values)
    except (ValueError, OverflowError):
        return math.nan


def mean(values: Sequence[float], alpha: float = ALPHA) -> Estimate:
    """The mean of independent values and Student's interval at level 1 - alpha.

    There is none below two values, and none for values that are all equal: they do not show how much they vary.
    """
    sample = np.asarray(values, dtype=np.float64)
    center = float(sample.mean()) if len(sample) else math.nan
    if abs(center) < 1e-12 * np.abs(sample).max(initial=0.0):  # rounding error of values that cancel
        center = 0.0
    if len(sample) < 2 or not np.isfinite(sample).all() or np.ptp(sample) <= 1e-12 * np.abs(sample).max():
        return Estimate(len(sample), center, math.nan, math.nan)
    half = student(len(sample), alpha) * float(sample.std(ddof=1)) / math.sqrt(len(sample))
    return Estimate(len(sample), center, center - half, center + half)


def share(successes: Sequence[float], trials: Sequence[float], alpha: float = ALPHA) -> Estimate:
    """The mean share of successes and its interval, from the successes and trials of each seed.

    Trials of one seed resemble each other, so their counts are beta-binomial. The interval holds the shares whose
    profile likelihood, over all correlations within a seed, is high enough: the cut is the one that gives Student's
    interval for normal values. A sample without a failure has an interval too. One seed alone, which says nothing about
    other seeds, has the exact binomial interval of its trials (Clopper and Pearson 1934).
    """
    k, m = (np.asarray(values, dtype=np.float64) for values in (successes, trials))
    n, total = len(k), float(m.sum())
    if not total:
        return Estimate(0, math.nan, math.nan, math.nan)
    if not ((m > 0) & (k >= 0) & (k <= m * (1 + 1e-9))).all():  # NaN, or no counts at all
        return Estimate(n, math.nan, math.nan, math.nan)
    center = float((k / m).mean())
    if n == 1:
        low = special.betaincinv(k[0], m[0] - k[0] + 1, alpha / 2) if k[0] else 0.0
        high = special.betaincinv(k[0] + 1, m[0] - k[0], 1 - alpha / 2) if k[0] < m[0] else 1.0
        return Estimate(1, center, float(low), float(high))
    likelihood = np.sum([log_likelihood(*counts) for counts in zip(k.tolist(), m.tolist())], axis=0).max(0)
    cut = n * math.log1p(student(n, alpha) ** 2 / (n - 1)) / 2
    inside = SHARES[likelihood >= likelihood.max() - cut]
    low, high = (0.0 if not k.any() else float(inside[0])), (1.0 if (k == m).all() else float(inside[-1]))
    return Estimate(n, center, low, high)


@lru_cache(maxsize=4096)
def log_likelihood(won: float, of: float) -> np.ndarray:
    """The beta-binomial log-likelihood of one seed's count at every correlation and share, but for a constant."""
    scale = (1 - CORRELATIONS)[:, None] / CORRELATIONS[:, None]
    a, b = SHARES * scale, (1 - SHARES) * scale
    return special.betaln(a + won, b + of - won) - special.betaln(a, b)


def student(n: int, alpha: float) -> float:
    """How many standard errors Student's interval of n values reaches on either side."""
    return float(special.stdtrit(n - 1, 1 - alpha / 2))


def difference_of_shares(first: Estimate, second: Estimate) -> Estimate:
    """The difference of two shares, from their intervals (Zou and Donner 2008). That they are paired is not used."""
    difference = first.mean - second.mean
    low = difference - math.hypot(first.mean - first.low, second.high - second.mean)
    high = difference + math.hypot(first.high - first.mean, second.mean - second.low)
    return Estimate(min(first.n, second.n), difference, low, high)


def exponential(logarithm: Estimate) -> Estimate:
    """The estimate of a ratio, from that of its logarithm."""
    return Estimate(logarithm.n, *(math.inf if x > LARGEST_EXPONENT else math.exp(x) for x in logarithm[1:]))

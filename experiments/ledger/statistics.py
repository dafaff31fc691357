"""Means, confidence intervals and other statistics of paired effects."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
SMOOTHING = 0.7  # weight of the past in the exponential moving average of a learning curve


@dataclass(frozen=True)
class Estimate:
    """The mean of n values and its confidence interval, which is NaN for n below 2."""

    n: int
    mean: float
    low: float
    high: float


def estimate(values: Sequence[float], confidence: float = CONFIDENCE) -> Estimate:
    """The mean of independent values and its Student's t interval.

    Equal values, such as counts that do not depend on the seed, have an interval of zero width.
    """
    sample = np.asarray(values, dtype=np.float64)
    mean = float(sample.mean()) if len(sample) else math.nan
    if abs(mean) < 1e-12 * np.abs(sample).max(initial=0.0):  # rounding error of values that cancel
        mean = 0.0
    if len(sample) < 2 or not np.isfinite(sample).all():
        return Estimate(len(sample), mean, math.nan, math.nan)
    half = float(stats.t.ppf(0.5 + confidence / 2, len(sample) - 1) * stats.sem(sample))
    return Estimate(len(sample), mean, mean - half, mean + half)


def estimate_ratio(values: Sequence[float], confidence: float = CONFIDENCE) -> Estimate:
    """The geometric mean of positive ratios and its interval, from the t interval of their logarithms."""
    logarithms = estimate(np.log(values).tolist(), confidence)
    return Estimate(logarithms.n, *(math.exp(x) for x in (logarithms.mean, logarithms.low, logarithms.high)))


def values_needed(effect: Estimate, distance: float) -> int | None:
    """The number of values that would make half the width of Student's interval smaller than `distance`.

    Assumes the mean and deviation of `effect`. None if that takes over 1,000 values or `effect` has no interval.
    """
    if effect.n < 2 or not math.isfinite(effect.low):
        return None
    half = (effect.high - effect.low) / 2
    deviation = half * math.sqrt(effect.n) / stats.t.ppf(0.5 + CONFIDENCE / 2, effect.n - 1)
    counts = np.arange(2, 1001)
    enough = stats.t.ppf(0.5 + CONFIDENCE / 2, counts - 1) * deviation / np.sqrt(counts) < distance
    return int(counts[enough.argmax()]) if enough.any() else None


def bootstrap(values: Sequence[float]) -> Estimate:
    """The mean and its bias-corrected and accelerated bootstrap interval (Efron 1987), which assumes no distribution.

    The interval is NaN below 8 values, where its coverage is too low: 75 % for 3 normal values.
    """
    sample = np.asarray(values, dtype=np.float64)
    if len(sample) < 8 or not np.isfinite(sample).all() or np.ptp(sample) == 0:
        return Estimate(len(sample), estimate(values).mean, math.nan, math.nan)
    found = stats.bootstrap((sample,), np.mean, confidence_level=CONFIDENCE, rng=np.random.default_rng(0))
    low, high = found.confidence_interval
    return Estimate(len(sample), float(sample.mean()), float(low), float(high))


def estimate_share(differences: Sequence[float], confidence: float = CONFIDENCE) -> Estimate:
    """The share of positive differences among the non-zero ones, and its exact binomial interval (sign test)."""
    signs = np.sign(np.asarray(differences, dtype=np.float64))
    positive, n = int((signs > 0).sum()), int((signs != 0).sum())
    if not n:
        return Estimate(0, math.nan, math.nan, math.nan)
    interval = stats.binomtest(positive, n).proportion_ci(confidence, method="exact")
    return Estimate(n, positive / n, float(interval.low), float(interval.high))


def rank_correlation(values: Sequence[float], expected: Sequence[float]) -> float:
    """Spearman's rank correlation; 0 if it is undefined because all values are equal."""
    found = float(stats.spearmanr(values, expected).statistic) if len(set(values)) > 1 else 0.0
    return found if math.isfinite(found) else 0.0


def smooth(values: Iterable[float], keep: float = SMOOTHING) -> list[float]:
    """The exponential moving average with bias correction; `keep` is the weight of the past."""
    average, weight, found = 0.0, 0.0, []
    for value in values:
        average = keep * average + (1 - keep) * value
        weight = keep * weight + (1 - keep)
        found.append(average / weight)
    return found


def steps_to_equal(first: Sequence[tuple[int, float]], second: Sequence[tuple[int, float]]) -> list[float]:
    """The numbers of steps in which two loss curves reach the same loss: the final loss of the worse one."""
    goal = max(first[-1][1], second[-1][1])
    return [steps_to(curve, goal) for curve in (first, second)]


def steps_to(curve: Sequence[tuple[int, float]], goal: float) -> float:
    """The step at which a loss curve first reaches the goal, by linear interpolation; NaN if it never does."""
    before_step, before = 0, math.inf
    for step, loss in curve:
        if loss <= goal:
            share = (before - goal) / (before - loss) if math.isfinite(before) and before > loss else 1.0
            return before_step + share * (step - before_step)
        before_step, before = step, loss
    return math.nan  # the curve contains NaN

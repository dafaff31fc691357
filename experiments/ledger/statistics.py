"""Intervals for paired effects."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
SMOOTHING = 0.7  # what the exponential moving average of a learning curve keeps of its past


@dataclass(frozen=True)
class Estimate:
    """A mean over n values with its confidence interval; without one (NaN) where n is below 2."""

    n: int
    mean: float
    low: float
    high: float


def estimate(values: Sequence[float], confidence: float = CONFIDENCE) -> Estimate:
    """The mean of independent values and Student's t interval around it.

    Values without any spread, such as counts that do not depend on the seed, have an interval of no width.
    """
    sample = np.asarray(values, dtype=np.float64)
    mean = float(sample.mean()) if len(sample) else math.nan
    if abs(mean) < 1e-12 * np.abs(sample).max(initial=0.0):  # what rounding leaves of values that cancel
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
    """How many values would put the end of Student's interval nearer to the mean than `distance`, were their spread
    and mean to stay as they are; None where no number of values up to 1,000 would, or there is no interval yet."""
    if effect.n < 2 or not math.isfinite(effect.low):
        return None
    half = (effect.high - effect.low) / 2
    deviation = half * math.sqrt(effect.n) / stats.t.ppf(0.5 + CONFIDENCE / 2, effect.n - 1)
    counts = np.arange(2, 1001)
    enough = stats.t.ppf(0.5 + CONFIDENCE / 2, counts - 1) * deviation / np.sqrt(counts) < distance
    return int(counts[enough.argmax()]) if enough.any() else None


def bootstrap(values: Sequence[float]) -> Estimate:
    """The mean and its bias-corrected and accelerated bootstrap interval (Efron 1987), which assumes no distribution.

    Without one (NaN) below 8 values, where resampling covers too rarely: of 3 normal values three times in four.
    """
    sample = np.asarray(values, dtype=np.float64)
    if len(sample) < 8 or not np.isfinite(sample).all() or np.ptp(sample) == 0:
        return Estimate(len(sample), estimate(values).mean, math.nan, math.nan)
    found = stats.bootstrap((sample,), np.mean, confidence_level=CONFIDENCE, rng=np.random.default_rng(0))
    low, high = found.confidence_interval
    return Estimate(len(sample), float(sample.mean()), float(low), float(high))


def estimate_share(differences: Sequence[float], confidence: float = CONFIDENCE) -> Estimate:
    """The share of positive differences among those that are not zero, and its exact binomial interval (sign test)."""
    signs = np.sign(np.asarray(differences, dtype=np.float64))
    positive, n = int((signs > 0).sum()), int((signs != 0).sum())
    if not n:
        return Estimate(0, math.nan, math.nan, math.nan)
    interval = stats.binomtest(positive, n).proportion_ci(confidence, method="exact")
    return Estimate(n, positive / n, float(interval.low), float(interval.high))


def rank_correlation(values: Sequence[float], expected: Sequence[float]) -> float:
    """Spearman's correlation of two rankings; 0 where all values are alike and there is none."""
    found = float(stats.spearmanr(values, expected).statistic) if len(set(values)) > 1 else 0.0
    return found if math.isfinite(found) else 0.0


def smooth(values: Iterable[float], keep: float = SMOOTHING) -> list[float]:
    """The exponential moving average, corrected for its start."""
    average, weight, found = 0.0, 0.0, []
    for value in values:
        average = keep * average + (1 - keep) * value
        weight = keep * weight + (1 - keep)
        found.append(average / weight)
    return found


def steps_to_equal(first: Sequence[tuple[int, float]], second: Sequence[tuple[int, float]]) -> list[float]:
    """The steps that two loss curves take to the same loss: the one at which the worse of them ends."""
    goal = max(first[-1][1], second[-1][1])
    return [steps_to(curve, goal) for curve in (first, second)]


def steps_to(curve: Sequence[tuple[int, float]], goal: float) -> float:
    """The step at which a loss curve first reaches the goal, between two of its points in proportion."""
    before_step, before = 0, math.inf
    for step, loss in curve:
        if loss <= goal:
            share = (before - goal) / (before - loss) if math.isfinite(before) and before > loss else 1.0
            return before_step + share * (step - before_step)
        before_step, before = step, loss
    return math.nan  # a loss that is not a number, nowhere at or below its own end

"""What a learning curve or a ranking comes down to as one number."""

import math
from collections.abc import Iterable, Sequence

SMOOTHING = 0.7  # weight of the past in the exponential moving average of a learning curve


def rank_correlation(values: Sequence[float], expected: Sequence[float]) -> float:
    """Spearman's rank correlation; 0 if it is undefined because all values are equal."""
    from scipy import stats  # takes half a second

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

"""The effect that a comparison measures, with its interval, and what that interval says of the claim."""

import math
from typing import NamedTuple

from experiments.ledger.claims import Comparison
from experiments.ledger.intervals import Estimate, average, difference_of_shares, exponential, mean, share

AS_CLAIMED, OPPOSITE, NO_DIFFERENCE = "as claimed", "the opposite", "no difference that matters"
NOT_AS_CLAIMED = "not as claimed"  # of an exact property, which has no interval
UNDECIDED, NOT_RUN = "undecided", "not run"
NEGATIVE = (OPPOSITE, NO_DIFFERENCE, NOT_AS_CLAIMED)


class Pair(NamedTuple):
    """What a seed measured at one combination of the other factors. control is NaN without one; trials: those that a
    share was counted over, on either side."""

    treatment: float
    control: float = math.nan
    trials: float = math.nan


Sample = dict[int, list[Pair]]  # by seed


def first_seeds(sample: Sample, count: int) -> Sample:
    """The pairs of the seeds below `count`."""
    return {seed: pairs for seed, pairs in sample.items() if seed < count}


def effect_of(comparison: Comparison, sample: Sample, alpha: float) -> Estimate:
    """The effect over the seeds and its interval at level 1 - alpha; without one, the exact value furthest off.

    The pairs of one seed, such as those of several networks, are averaged: they are not independent.
    """
    seeds, rule = list(sample.values()), comparison.rule
    if comparison.is_exact:
        values = [pair.treatment for pairs in seeds for pair in pairs]
        worst = max(values, key=lambda value: shortfall(comparison, value), default=math.nan)
        return Estimate(len(values), worst, worst, worst)
    if rule == "sign":
        signs = [[pair.treatment - pair.control for pair in pairs if pair.treatment != pair.control] for pairs in seeds]
        signs = [differences for differences in signs if differences]
        return share([sum(x > 0 for x in each) for each in signs], [len(each) for each in signs], alpha)
    if rule == "ratio":
        return exponential(mean([average(map(log_ratio, pairs)) for pairs in seeds], alpha))
    if comparison.trials:
        sides = [side_share(seeds, name, alpha) for name in ("treatment", "control")[: 1 + bool(comparison.control)]]
        return difference_of_shares(*sides) if comparison.control else sides[0]
    return mean([average(value_of(comparison, pair) for pair in pairs) for pairs in seeds], alpha)


def shortfall(comparison: Comparison, value: float) -> float:
    """How far an exact value is from the threshold, or a counted one short of it."""
    if comparison.rule == "exact":
        return abs(value - comparison.threshold)
    return comparison.threshold - value if comparison.side == "above" else value - comparison.threshold


def value_of(comparison: Comparison, pair: Pair) -> float:
    """The difference of a pair or, without a control, the value of the treatment."""
    return pair.treatment - pair.control if comparison.control else pair.treatment


def log_ratio(pair: Pair) -> float:
    """The logarithm of treatment / control; NaN if they are not both positive."""
    ratio = pair.treatment / pair.control if pair.control > 0 else math.nan
    return math.log(ratio) if ratio > 0 else math.nan


def side_share(seeds: list[list[Pair]], side: str, alpha: float) -> Estimate:
    """The share of one side, whose trials within a seed are counted together."""
    successes = [sum(getattr(pair, side) * pair.trials for pair in pairs) for pairs in seeds]
    return share(successes, [sum(pair.trials for pair in pairs) for pairs in seeds], alpha)


def bounds(comparison: Comparison) -> tuple[float, float]:
    """The threshold less and plus the smallest effect of interest; of a ratio, divided and multiplied by it."""
    threshold, smallest = comparison.threshold, comparison.smallest or 0.0
    if comparison.rule == "ratio":
        return threshold / smallest, threshold * smallest
    return threshold - smallest, threshold + smallest


def outcome(comparison: Comparison, effect: Estimate) -> str:
    """What an interval says. An effect that is surely too small to matter is none, whatever its sign."""
    low, high = bounds(comparison)
    if comparison.is_exact:
        short = shortfall(comparison, effect.mean)
        holds = short <= comparison.tolerance if comparison.rule == "exact" else short < 0
        return AS_CLAIMED if holds else NOT_AS_CLAIMED
    inside, above, below = low < effect.low and effect.high < high, effect.low > high, effect.high < low
    if comparison.rule == "equivalence":
        return AS_CLAIMED if inside else OPPOSITE if above or below else UNDECIDED
    if inside:
        return NO_DIFFERENCE
    if effect.low > comparison.threshold:
        return AS_CLAIMED if comparison.side == "above" else OPPOSITE
    if effect.high < comparison.threshold:
        return AS_CLAIMED if comparison.side == "below" else OPPOSITE
    return UNDECIDED

"""Intervals and outcomes: exact where they can be, of some width, and as wide as they say."""

import math

import numpy as np
import pytest
from scipy import stats

from experiments.ledger.claims import Comparison
from experiments.ledger.effects import Pair, effect_of, outcome
from experiments.ledger.intervals import Estimate, difference_of_shares, mean, share


def comparison(rule: str, threshold: float = 0.0, smallest: float = 0.1, **settings: object) -> Comparison:
    sides = {"treatment": {"a": 1}} | ({} if rule == "level" else {"control": {"a": 0}})
    fixed = {"label": "", "experiment": "", "metric": "", **sides, **settings}
    return Comparison(**fixed, rule=rule, threshold=threshold, smallest=smallest)  # type: ignore[arg-type]


def test_the_interval_of_a_mean_is_students() -> None:
    sample = np.random.default_rng(0).normal(3, 2, 7)
    found = mean(sample.tolist(), 0.02)
    expected = stats.ttest_1samp(sample, 0).confidence_interval(0.98)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize("values", [[], [1.0], [2.0, 2.0, 2.0], [1.0, math.nan]])
def test_what_does_not_show_its_spread_has_no_interval(values: list[float]) -> None:
    found = mean(values)
    assert math.isnan(found.low) and math.isnan(found.high)
    assert outcome(comparison("difference"), found) == "undecided"


def test_one_seeds_share_has_the_exact_interval_of_its_trials() -> None:
    six = share([6], [6])
    assert (six.low, six.high) == pytest.approx((0.5407, 1), abs=1e-4)
    some = share([15], [20])
    expected = stats.binomtest(15, 20).proportion_ci(0.95)
    assert (some.low, some.high) == pytest.approx((expected.low, expected.high))


def test_a_sample_of_shares_without_a_failure_has_an_interval() -> None:
    """Twenty of twenty prompts of four seeds do not show that one seed of five never fails altogether."""
    found = share([20] * 4, [20] * 4)
    assert found.high == 1 and 0.3 < found.low < 0.8
    assert share([20] * 8, [20] * 8).low > found.low
    zero = share([0] * 4, [20] * 4)
    assert (zero.low, zero.high) == pytest.approx((0, 1 - found.low))


def test_the_interval_of_alike_shares_is_near_that_of_a_mean() -> None:
    won = [520, 480, 505, 495, 510, 490]
    found, expected = share(won, [1000] * 6), mean([x / 1000 for x in won])
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.006)


def test_a_difference_of_shares_is_wider_than_either_share_and_never_nothing() -> None:
    first, second = share([20] * 4, [20] * 4), share([5, 6, 4, 5], [20] * 4)
    found = difference_of_shares(first, second)
    assert found.mean == pytest.approx(0.75)
    assert found.low < found.mean - (first.mean - first.low) and found.high == pytest.approx(0.75 + 0.25 - second.low)
    assert difference_of_shares(first, first).low < 0 < difference_of_shares(first, first).high


def test_pairs_of_one_seed_are_one_value() -> None:
    sample = {seed: [Pair(1.0 + seed, 0), Pair(3.0 + seed, 0)] for seed in range(4)}
    assert effect_of(comparison("difference"), sample, 0.05) == mean([2.0, 3.0, 4.0, 5.0])
    signs = {seed: [Pair(1, 0), Pair(0, 1), Pair(1, 1)] for seed in range(4)}  # a tie is not counted
    assert effect_of(comparison("sign", 0.5), signs, 0.05) == share([1] * 4, [2] * 4)
    ratios = {seed: [Pair(2.0 + seed, 1), Pair(8.0, 1)] for seed in range(4)}
    assert math.log(effect_of(comparison("ratio", 1, 1.1), ratios, 0.05).mean) == pytest.approx(
        np.mean([math.log((2.0 + seed) * 8) / 2 for seed in range(4)])
    )


@pytest.mark.parametrize(
    ("rule", "low", "high", "expected"),
    [
        ("difference", 0.05, 0.3, "as claimed"),
        ("difference", -0.3, -0.05, "the opposite"),
        ("difference", -0.05, 0.3, "undecided"),
        ("difference", -0.05, 0.05, "no difference that matters"),
        ("difference", 0.01, 0.05, "no difference that matters"),
        ("equivalence", -0.05, 0.05, "as claimed"),
        ("equivalence", 0.11, 0.3, "the opposite"),
        ("equivalence", 0.05, 0.3, "undecided"),
    ],
)
def test_the_outcome_is_where_the_interval_lies(rule: str, low: float, high: float, expected: str) -> None:
    assert outcome(comparison(rule), Estimate(4, (low + high) / 2, low, high)) == expected


@pytest.mark.parametrize(
    ("low", "high", "expected"), [(1.02, 1.09, "no difference that matters"), (1.02, 1.2, "the opposite")]
)
def test_the_smallest_ratio_counts_upwards_and_downwards(low: float, high: float, expected: str) -> None:
    claimed = comparison("ratio", 1, 1.1, side="below")
    assert outcome(claimed, Estimate(4, math.sqrt(low * high), low, high)) == expected
    assert outcome(claimed, Estimate(4, 1, 1 / high, 1 / low)) == expected.replace("the opposite", "as claimed")

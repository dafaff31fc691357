"""The paper's table 3 against its other tables: the counts that its authors' figures themselves allow."""

import pytest

from experiments.measurements.published_tables import (
    AGGREGATIONS,
    BASELINES,
    FUNCTIONS,
    PRINTED,
    RESULTS,
    counts,
    published_counts,
)


def test_every_model_has_results_with_every_function() -> None:
    assert len(RESULTS) == 9
    assert all(len(results) == len(FUNCTIONS) for results in RESULTS.values())


def test_the_printed_counts_are_of_nine_models() -> None:
    assert all(sum(map(int, printed.split("/"))) == 9 for printed in PRINTED.values())


@pytest.mark.parametrize(
    ("swish", "found"),
    [
        ("Swish", "8/1/0 6/1/2 7/2/0 5/2/2 8/0/1 9/0/0 8/1/0"),
        ("Swish-1", "9/0/0 8/1/0 6/3/0 6/1/2 8/0/1 9/0/0 8/1/0"),
    ],
)
def test_counts_by_medians_are_those_made_by_hand(swish: str, found: str) -> None:
    assert [counts((swish,), baseline, AGGREGATIONS["median"]) for baseline in BASELINES] == found.split()


def test_no_reading_makes_more_than_four_columns() -> None:
    metrics = published_counts().metrics
    assert len(metrics) == 12
    assert max(metrics.values()) == 4 == metrics["columns_matching/swish_1/median"]
    assert metrics["columns_matching/swish/median"] == 2

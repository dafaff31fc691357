"""Tables 3 to 11 of Ramachandran et al. 2017, v2, as printed, and table 3 recomputed from the others.

Table 3 counts for how many of nine models Swish is better than, equal to and worse than each baseline. According to its
footnote, the median counts for a model with several results.
"""

import statistics
from collections.abc import Callable, Sequence

from tasks.base import Evaluation

FUNCTIONS = ("LReLU", "PReLU", "Softplus", "ELU", "SELU", "GELU", "ReLU", "Swish-1", "Swish")
BASELINES = ("ReLU", "LReLU", "PReLU", "Softplus", "ELU", "SELU", "GELU")
PRINTED = dict(zip(BASELINES, ("9/0/0", "7/1/1", "6/3/0", "6/2/1", "8/0/1", "8/1/0", "8/1/0")))  # table 3

# The results of each model with each of FUNCTIONS, in their order.
RESULTS: dict[str, tuple[Sequence[float], ...]] = {
    "ResNet-164": (  # tables 4 and 5: CIFAR-10 and CIFAR-100
        (94.2, 74.2), (94.1, 74.5), (94.6, 76.0), (94.1, 75.0), (93.0, 73.2), (94.3, 74.7), (93.8, 74.2),
        (94.7, 75.1), (94.5, 75.1),
    ),
    "Wide ResNet 28-10": (
        (95.6, 78.0), (95.1, 77.3), (94.9, 78.4), (94.1, 76.0), (93.2, 74.3), (95.5, 78.0), (95.3, 77.8),
        (95.5, 78.5), (95.5, 78.0),
    ),
    "DenseNet-100-12": (
        (94.7, 83.3), (94.5, 81.5), (94.7, 83.7), (94.4, 80.6), (93.9, 80.8), (94.8, 83.8), (94.8, 83.7),
        (94.8, 83.8), (94.8, 83.9),
    ),
    "Mobile NASNet-A": (  # table 6, three runs
        (73.8, 73.9, 74.2), (74.6, 74.7, 74.7), (74.0, 74.2, 74.2), (74.1, 74.2, 74.2), (73.6, 73.7, 73.7),
        (74.6,), (73.5, 73.6, 73.8), (74.6, 74.7, 74.7), (74.9, 74.9, 75.2),
    ),
    "Inception-ResNet-v2": (  # table 7, three runs
        (79.5, 79.5, 79.6), (79.7, 79.8, 80.1), (80.1, 80.2, 80.4), (75.8, 79.9, 80.0), (79.0, 79.2, 79.2),
        (79.6, 79.6, 79.9), (79.5, 79.6, 79.8), (80.2, 80.3, 80.4), (80.2, 80.2, 80.3),
    ),
    "MobileNet": ((72.5,), (74.2,), (73.6,), (73.9,), (73.2,), (73.5,), (72.0,), (74.2,), (74.2,)),  # table 8
    "Inception-v3": ((78.4,), (77.7,), (78.7,), (77.9,), (76.7,), (77.7,), (78.4,), (78.7,), (78.7,)),  # table 9
    "Inception-v4": ((79.3,), (79.3,), (79.6,), (79.5,), (78.3,), (79.0,), (79.2,), (79.3,), (79.3,)),  # table 10
    "Transformer": (  # table 11: newstest 2013 to 2016
        (26.2, 27.9, 29.8, 33.4), (26.3, 27.7, 29.7, 33.1), (23.4, 23.6, 25.8, 29.2), (24.6, 25.1, 27.7, 32.5),
        (23.7, 23.5, 25.9, 30.5), (25.9, 27.3, 29.5, 33.1), (26.1, 27.8, 29.8, 33.3), (26.2, 28.0, 30.1, 34.0),
        (26.5, 27.6, 30.0, 33.1),
    ),
}  # fmt: skip
AGGREGATIONS: dict[str, Callable[[Sequence[float]], float]] = {
    "median": statistics.median,
    "low_median": statistics.median_low,
    "high_median": statistics.median_high,
    "mean": statistics.fmean,
}
TREATMENTS = {"swish": ("Swish",), "swish_1": ("Swish-1",), "better_of_both": ("Swish", "Swish-1")}


def counts(treatment: Sequence[str], baseline: str, aggregate: Callable[[Sequence[float]], float]) -> str:
    """The number of models in which the best of `treatment` is better than / equal to / worse than the baseline."""
    tally = {1: 0, 0: 0, -1: 0}
    for results in RESULTS.values():
        score = {name: round(aggregate(values), 6) for name, values in zip(FUNCTIONS, results)}
        best = max(score[name] for name in treatment)
        tally[(best > score[baseline]) - (best < score[baseline])] += 1
    return "/".join(map(str, tally.values()))


def published_counts() -> Evaluation:
    """S2: how many of the seven columns of table 3 follow from the paper's other tables, for each way to count."""
    metrics, rows = {}, []
    for name, treatment in TREATMENTS.items():
        for aggregation, aggregate in AGGREGATIONS.items():
            found = {baseline: counts(treatment, baseline, aggregate) for baseline in BASELINES}
            matching = sum(found[baseline] == PRINTED[baseline] for baseline in BASELINES)
            metrics[f"columns_matching/{name}/{aggregation}"] = float(matching)
            reading = f"{name}, {aggregation}".replace("_", " ")
            rows.append({"reading": reading, **found, "columns that match": matching})
    rows.insert(0, {"reading": "as printed in table 3", **PRINTED, "columns that match": len(BASELINES)})
    return Evaluation(metrics, {"published_counts": rows})

"""What a metric is: its unit, whether less of it is better, and which one of a run comes first."""

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

LOWER, HIGHER = "lower is better", "higher is better"


class Meaning(NamedTuple):
    """The unit of a metric, "" for a pure number, and its direction, "" where neither is better."""

    unit: str = ""
    direction: str = ""


MEANINGS = {  # by the end of the name; the first that fits counts
    r"masked/loss": Meaning("nats per masked token", LOWER),
    r"nonoverlapping/loss": Meaning("nats per token", LOWER),
    r"(nonoverlapping|sliding)/(\w+/)?loss": Meaning("nats per token", LOWER),
    r"loss": Meaning("nats", LOWER),
    r"bits_per_byte": Meaning("bits per byte", LOWER),
    r"perplexity": Meaning("", LOWER),
    r"degradation": Meaning("nats per token", LOWER),
    r"masked/accuracy": Meaning("of 1", HIGHER),
    r"accuracy": Meaning("%", HIGHER),
    r"(rouge\w+|overall)": Meaning("of 100", HIGHER),
    r"(exact|digits)(/.*)?": Meaning("of 1", HIGHER),
    r"(failed|dead_units)": Meaning("of 1", LOWER),
    r"leaked_share": Meaning("of 1"),
    r"reach": Meaning("tokens", HIGHER),
    r"seconds": Meaning("s", LOWER),
    r"(peak_)?bytes": Meaning("bytes", LOWER),
}


def meaning(metric: str) -> Meaning:
    """What a metric is; an empty meaning if its name says nothing."""
    found = (own for end, own in MEANINGS.items() if re.search(rf"(^|/){end}$", metric))
    return next(found, Meaning())


def better(name: str) -> str | None:
    """Whether min or max is better for a test metric; None if the metric is not a score."""
    direction = "" if name.startswith("train/") else meaning(name).direction
    return {LOWER: "min", HIGHER: "max"}.get(direction)


def main_metric(config: dict[str, Any], metrics: Iterable[str]) -> str:
    """The metric that a run is compared by: the one that chooses its learning rate, or else the first one by the order
    of MEANINGS that has a direction, the shortest name first; "" if there is none at all."""
    names = sorted(metrics, key=lambda name: (name.count("/"), len(name)))
    tuned = (config.get("tuning") or {}).get("metric")
    if tuned in names:
        return str(tuned)
    ordered = [name for end in MEANINGS for name in names if re.search(rf"(^|/){end}$", name)]
    return next((name for name in ordered if meaning(name).direction), names[0] if names else "")


def is_lower_better(config: dict[str, Any], metric: str) -> bool:
    """Whether less of a metric is better, as the experiment says of the one that chooses its learning rate."""
    tuning = config.get("tuning") or {}
    if tuning.get("metric") == metric:
        return bool(tuning["goal"] == "minimize")
    return meaning(metric).direction == LOWER

"""Numbers as people read them."""

import math
from typing import Any

from experiments.ledger.claims import Comparison
from experiments.report.terminal import number as plain


def number(value: Any) -> str:
    """A number as short as it can be read, with a proper minus; whole numbers whole; a dash if there is none."""
    if isinstance(value, int):
        return f"{value:,}".replace("-", "−")
    return plain(value).replace("e-", "e−").replace("-", "−") if value is not None else "–"


def duration(seconds: float) -> str:
    """Seconds as the two largest units."""
    if seconds < 1:
        return f"{seconds:.1g} s" if seconds > 0.0005 else "0 s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60:02d} min"


def count(value: float | None) -> str:
    """How many, to three figures."""
    if value is None or not math.isfinite(value):
        return "–"
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "K")):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.0f}"


def spread(values: list[int]) -> str:
    """The least and the greatest of some counts."""
    known = sorted(value for value in values if value)
    ends = list(dict.fromkeys(count(value) for value in (known[:1] + known[-1:])))
    return " – ".join(ends) or "–"


def claimed(comparison: Comparison) -> str:
    """What is claimed of the effect."""
    threshold = number(comparison.threshold)
    if comparison.rule == "exact":
        return f"{threshold} ± {number(comparison.tolerance)}" if comparison.tolerance else f"exactly {threshold}"
    return f"{comparison.side} {threshold}"

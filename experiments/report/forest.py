"""A comparison's interval against its threshold, drawn on a line."""

import math
from dataclasses import dataclass

from experiments.ledger.verdicts import Finding, Verdict

WIDTH, HEIGHT, MARGIN = 132, 20, 8


@dataclass(frozen=True)
class Bar:
    """Where things lie, in pixels: the threshold, the mean, the ends of the interval, the claimed side."""

    threshold: float
    mean: float
    low: float | None
    high: float | None
    claimed_from: float
    claimed_to: float


def bars(verdict: Verdict) -> dict[int, Bar]:
    """The bars of a claim's findings, by their place among them. Those of one kind and unit share a scale."""
    scales: dict[tuple[str, str, str, float], list[int]] = {}
    for index, finding in enumerate(verdict.findings):
        c = finding.comparison
        if (
            c.rule != "exact"
            and math.isfinite(finding.effect.mean)
            and not (c.rule == "ratio" and finding.effect.mean <= 0)
        ):
            scales.setdefault((c.rule, c.metric, c.unit, c.threshold), []).append(index)
    found: dict[int, Bar] = {}
    for indices in scales.values():
        chosen = [verdict.findings[index] for index in indices]
        values = [position(value, finding) for finding in chosen for value in ends(finding)]
        low, high = min(values), max(values)
        reach = (high - low) or abs(low) or 1.0
        low, high = low - 0.12 * reach, high + 0.12 * reach
        found |= {index: bar(verdict.findings[index], low, high) for index in indices}
    return found


def ends(finding: Finding) -> list[float]:
    """The finite numbers that a bar has to show."""
    effect = finding.effect
    return [
        value for value in (effect.mean, effect.low, effect.high, finding.comparison.threshold) if math.isfinite(value)
    ]


def position(value: float, finding: Finding) -> float:
    """Ratios are shown by their logarithm."""
    return math.log(value) if finding.comparison.rule == "ratio" else value


def bar(finding: Finding, low: float, high: float) -> Bar:
    """The bar of one finding on a scale from low to high."""

    def place(value: float) -> float:
        share = (position(value, finding) - low) / (high - low)
        return round(MARGIN + share * (WIDTH - 2 * MARGIN), 1)

    effect, threshold = finding.effect, place(finding.comparison.threshold)
    known = math.isfinite(effect.low) and math.isfinite(effect.high)
    above = finding.comparison.side == "above"
    return Bar(
        threshold,
        place(effect.mean),
        place(effect.low) if known else None,
        place(effect.high) if known else None,
        threshold if above else 0,
        WIDTH if above else threshold,
    )

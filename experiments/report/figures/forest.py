"""The interval of a comparison against its threshold, drawn on a line."""

import math
from dataclasses import dataclass

from experiments.ledger.effects import bounds
from experiments.ledger.verdicts import Finding, Verdict

WIDTH, HEIGHT, MARGIN = 96, 18, 7  # pixels
SHARED_SCALE = 0.12  # of the range of all bars, that a scale extends beyond it on either side


@dataclass(frozen=True)
class Bar:
    """Positions in pixels: the threshold, the mean, the ends of the interval, the claimed side."""

    threshold: float
    mean: float
    low: float | None
    high: float | None
    claimed_from: float
    claimed_to: float


def bars(verdict: Verdict) -> dict[int, Bar]:
    """The bars of a claim's findings by their index. Bars of one rule, metric, unit and threshold share a scale."""
    scales: dict[tuple[str, str, str, float], list[int]] = {}
    for index, finding in enumerate(verdict.findings):
        c = finding.comparison
        negative = c.rule == "ratio" and finding.effect.mean <= 0  # has no logarithm
        if not c.is_exact and math.isfinite(finding.effect.mean) and not negative:
            scales.setdefault((c.rule, c.metric, c.unit, c.threshold), []).append(index)
    found: dict[int, Bar] = {}
    for indices in scales.values():
        chosen = [verdict.findings[index] for index in indices]
        values = [position(value, finding) for finding in chosen for value in ends(finding)]
        low, high = min(values), max(values)
        margin = SHARED_SCALE * ((high - low) or abs(low) or 1.0)
        found |= {index: bar(verdict.findings[index], low - margin, high + margin) for index in indices}
    return found


def ends(finding: Finding) -> list[float]:
    """The finite numbers that a bar has to show."""
    effect = finding.effect
    numbers = (effect.mean, effect.low, effect.high, finding.comparison.threshold, *claimed_range(finding))
    return [value for value in numbers if math.isfinite(value)]


def claimed_range(finding: Finding) -> tuple[float, float]:
    """The values that the claim predicts, unbounded on one side unless it claims equivalence."""
    c = finding.comparison
    if c.rule == "equivalence":
        return bounds(c)
    return (c.threshold, math.inf) if c.side == "above" else (-math.inf, c.threshold)


def position(value: float, finding: Finding) -> float:
    """A value on its scale, which is logarithmic for ratios."""
    return math.log(value) if finding.comparison.rule == "ratio" else value


def bar(finding: Finding, low: float, high: float) -> Bar:
    """The bar of one finding on a scale from low to high."""

    def pixel(value: float) -> float:
        if not math.isfinite(value):
            return WIDTH if value > 0 else 0
        share = (position(value, finding) - low) / (high - low)
        return round(MARGIN + share * (WIDTH - 2 * MARGIN), 1)

    effect = finding.effect
    bounded = math.isfinite(effect.low) and math.isfinite(effect.high)
    return Bar(
        pixel(finding.comparison.threshold),
        pixel(effect.mean),
        pixel(effect.low) if bounded else None,
        pixel(effect.high) if bounded else None,
        *map(pixel, claimed_range(finding)),
    )

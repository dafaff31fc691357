"""The rows of the ledger: the numbers of one quantity in one format, decimal points aligned."""

import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace

from experiments.ledger.effects import NOT_RUN
from experiments.ledger.intervals import Estimate
from experiments.ledger.verdicts import Finding, Verdict
from experiments.report.figures.forest import Bar, bars
from experiments.report.numbers import MISSING, MOST_DECIMALS, NumberFormat, column_format, number, span, stated

IN_UNITS_OF_THE_METRIC = ("difference", "level", "equivalence")  # rules whose effect has the unit of both sides
Formats = dict[Hashable, NumberFormat]


@dataclass(frozen=True)
class Aligned:
    """A number as text, and the spaces after it that align its decimal point with those of its column."""

    text: str
    padding: str = ""


@dataclass(frozen=True)
class LedgerRow:
    """A comparison with its numbers as texts; an interval that does not exist is empty."""

    finding: Finding
    effect: Aligned
    interval: str
    smallest: str
    trend: str
    rates: str
    by_rate: str
    treatment: Aligned
    control: Aligned
    parameters: str
    tokens: str
    seconds: str
    bar: Bar | None


def ledger_rows(verdict: Verdict) -> list[LedgerRow]:
    """The rows of a claim, without the comparisons that were not run."""
    drawn = bars(verdict)
    found = [(index, finding) for index, finding in enumerate(verdict.findings) if finding.outcome != NOT_RUN]
    findings = [finding for _, finding in found]
    effects = shared_formats(findings, quantity, effect_numbers, lambda _: True)
    effects = {name: resolving(written, of_quantity(name, findings)) for name, written in effects.items()}
    levels = shared_formats(findings, metric, level_numbers, lambda f: f.comparison.rule in IN_UNITS_OF_THE_METRIC)
    seconds = column_format(finding.seconds for finding in findings)
    rows = []
    for index, finding in found:
        effect, level = effects[quantity(finding)], levels[metric(finding)]
        treatment, control = (aligned(value, level, levels) for value in level_numbers(finding))
        rows.append(
            LedgerRow(
                finding=finding,
                effect=aligned(finding.effect.mean, effect, effects),
                interval=interval(finding.effect, effect) or deviation(finding),
                smallest=stated(finding.comparison.smallest) if finding.comparison.smallest else MISSING,
                trend=", ".join(effect(value) for value in finding.trend.values()) or MISSING,
                rates=", ".join(f"{level} {rate}" for level, rate in finding.rates.items()) or MISSING,
                by_rate=", ".join(f"{key} {estimated(own, effect)}" for key, own in finding.by_rate.items()) or MISSING,
                treatment=treatment,
                control=control,
                parameters=span(finding.parameters),
                tokens=number(finding.tokens),
                seconds=seconds(finding.seconds),
                bar=drawn.get(index),
            )
        )
    return rows


def quantity(finding: Finding) -> Hashable:
    """What identifies the quantity that an effect measures."""
    comparison = finding.comparison
    return comparison.rule, comparison.metric, comparison.unit


def metric(finding: Finding) -> Hashable:
    """What identifies the quantity of which treatment and control are means."""
    return finding.comparison.metric


def effect_numbers(finding: Finding) -> list[float | None]:
    """The numbers of an effect that share a format."""
    return [finding.effect.mean, finding.effect.low, finding.effect.high]


def level_numbers(finding: Finding) -> list[float | None]:
    """The means of treatment and control."""
    return [finding.treatment_mean, finding.control_mean]


def shared_formats(
    findings: Sequence[Finding],
    key: Callable[[Finding], Hashable],
    numbers: Callable[[Finding], Iterable[float | None]],
    uncertain: Callable[[Finding], bool],
) -> Formats:
    """A number format for each key of the findings. uncertain: whether the effect's interval limits the digits."""
    groups: dict[Hashable, list[Finding]] = {}
    for finding in findings:
        groups.setdefault(key(finding), []).append(finding)
    return {
        name: column_format(
            [value for finding in group for value in numbers(finding)],
            [width for finding in group if uncertain(finding) and (width := half_width(finding))],
        )
        for name, group in groups.items()
    }


def has_interval(estimate: Estimate) -> bool:
    """Whether an estimate has an interval wider than nothing."""
    return math.isfinite(estimate.low) and math.isfinite(estimate.high) and estimate.low != estimate.high


def of_quantity(name: Hashable, findings: Sequence[Finding]) -> list[Finding]:
    """The findings whose effects are of one quantity."""
    return [finding for finding in findings if quantity(finding) == name]


def resolving(written: NumberFormat, findings: Sequence[Finding]) -> NumberFormat:
    """The format with as many decimals as it takes to tell the ends of intervals from the thresholds beside them."""
    ends = [
        (end, finding.comparison.threshold)
        for finding in findings
        if has_interval(finding.effect)
        for end in (finding.effect.low, finding.effect.high)
    ]
    while written.decimals < MOST_DECIMALS and any(
        end != threshold and written(end) == written(threshold) for end, threshold in ends
    ):
        written = replace(written, decimals=written.decimals + 1, exact=False)
    return written


def half_width(finding: Finding) -> float:
    """How exactly an effect is known, 0 if it has no interval.

    The distance from the mean to the nearer end of its interval, for that of a ratio is not symmetric; for an exact
    property ten times its tolerance, so that a digit more than that of the tolerance is written, or a tenth of its
    value if that is less, as for what is counted.
    """
    effect = finding.effect
    if finding.comparison.rule == "counted":
        return abs(effect.mean) / 10
    if finding.comparison.rule == "exact":
        return min(10 * finding.comparison.tolerance, abs(effect.mean) / 10 or math.inf)
    return min(effect.mean - effect.low, effect.high - effect.mean) if has_interval(effect) else 0.0


def interval(estimate: Estimate, written: NumberFormat) -> str:
    """The interval of an estimate, empty if it has none."""
    return f"[{written(estimate.low)}, {written(estimate.high)}]" if has_interval(estimate) else ""


def estimated(estimate: Estimate, written: NumberFormat) -> str:
    """An estimate with its interval, if it has one."""
    return f"{written(estimate.mean)} {interval(estimate, written)}".strip()


def deviation(finding: Finding) -> str:
    """How far an exact property is from its claimed value, empty for other comparisons."""
    comparison = finding.comparison
    if comparison.rule != "exact":
        return ""
    return f"off by {number(float(f'{abs(finding.effect.mean - comparison.threshold):.2g}'))}"


def aligned(value: float | None, written: NumberFormat, column: Formats) -> Aligned:
    """A number in its format, with the spaces that its column needs."""
    text = written(value)
    most = max(each.decimals for each in column.values())
    return Aligned(text, written.padding(most) if text != MISSING else "")

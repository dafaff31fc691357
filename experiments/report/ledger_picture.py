"""The ledger as one picture for README.md: a line for every claim, with its verdict and how clear it is."""

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import jinja2

from experiments.ledger.verdicts import NOT_REPRODUCED, REPRODUCED, Finding, Verdict
from experiments.report.marks import MARKS, WORDS
from experiments.report.palette import theme

WIDTH, MARGIN = 1000, 28
LETTERS = 70  # of a statement in a line
LINE, BAR, PADDING = 16, 7, 9  # heights in pixels: a line of text, a bar, and what is around both
PLOT = (576, 806)  # from where to where bars are drawn
FURTHEST = 100.0  # half widths of an interval at the ends of the plot


@dataclass(frozen=True)
class Bar:
    """A deciding comparison: its verdict, and where its mean and the ends of its interval lie, in pixels."""

    verdict: str
    y: float
    mean: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Line:
    """A claim's place in the picture."""

    verdict: Verdict
    top: float
    height: float
    text: list[str]
    bars: list[Bar]


def ledger_picture(verdicts: Sequence[Verdict]) -> str:
    """The picture as SVG, in the light theme's colours on a ground of its own, so that it is read in dark pages too.

    A bar is the 95 % interval of a comparison that decides, its place the distance from the threshold, to the right on
    the claimed side, in half widths of that interval and on a scale that narrows outwards (asinh): one scale for all
    units, on which an interval that holds the threshold crosses the line in the middle. What has
    no interval lies at an end or, undecided, in the middle.
    """
    ideas: dict[str, list[Line]] = {}
    heads: dict[str, float] = {}
    y = 132.0
    for verdict in verdicts:
        idea = verdict.claim.idea
        if idea not in heads:
            heads[idea] = y + 30
            y += 44
        line = line_of(verdict, y)
        ideas.setdefault(idea, []).append(line)
        y += line.height
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("experiments.report", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    shown = [verdict.verdict for verdict in verdicts]
    share = (WIDTH - 2 * MARGIN) / len(shown)
    ordered = sorted(shown, key=list(MARKS).index)
    return environment.get_template("ledger.svg.jinja").render(
        width=WIDTH,
        margin=MARGIN,
        height=y + 24,
        ideas=ideas,
        heads=heads,
        strip=[(MARGIN + index * share, share - 3, verdict) for index, verdict in enumerate(ordered)],
        counts={verdict: shown.count(verdict) for verdict in MARKS if verdict in shown},
        marks=MARKS,
        words=WORDS,
        plot=PLOT,
        middle=place(0.0),
        line=LINE,
        colours={name.removeprefix("--"): colour for name, colour in theme().items()},
    )


def line_of(verdict: Verdict, top: float) -> Line:
    """A claim with its bars, from `top` downwards."""
    text = textwrap.wrap(verdict.claim.statement, LETTERS, break_on_hyphens=False)
    deciding = [finding for finding in verdict.findings if finding.comparison.decides]
    height = 2 * PADDING + max(LINE * len(text), BAR * len(deciding))
    first = top + (height - BAR * (len(deciding) - 1)) / 2
    bars = [bar for index, finding in enumerate(deciding) if (bar := bar_of(finding, first + BAR * index))]
    return Line(verdict, top, height, text, bars)


def bar_of(finding: Finding, y: float) -> Bar | None:
    """The bar of one comparison, None if nothing was measured."""
    effect = finding.effect
    if not math.isfinite(effect.mean):
        return None
    if not (math.isfinite(effect.low) and math.isfinite(effect.high)) or effect.low == effect.high:
        clear = {REPRODUCED: FURTHEST, NOT_REPRODUCED: -FURTHEST}
        return Bar(finding.verdict, y, place(clear.get(finding.verdict, 0.0)), None, None)
    mean = distance(finding, effect.mean)
    ends = sorted(distance(finding, end) for end in (effect.low, effect.high))
    half = (ends[1] - ends[0]) / 2 or 1.0
    return Bar(finding.verdict, y, *(place(value / half) for value in (mean, *ends)))


def distance(finding: Finding, value: float) -> float:
    """How far a value lies on the claimed side of the threshold; below zero on the other."""
    comparison = finding.comparison
    threshold = comparison.threshold
    if comparison.rule in ("equivalence", "exact"):
        return comparison.tolerance - abs(value - threshold)
    if comparison.rule == "ratio":  # whose interval is that of the logarithms
        value, threshold = math.log(value), math.log(threshold)
    return value - threshold if comparison.side == "above" else threshold - value


def place(half_widths: float) -> float:
    """The pixel of a distance from the threshold."""
    start, end = PLOT
    share = math.asinh(max(-FURTHEST, min(FURTHEST, half_widths))) / math.asinh(FURTHEST)
    return round((start + end) / 2 + share * (end - start) / 2, 1)

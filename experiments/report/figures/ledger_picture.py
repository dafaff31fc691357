"""The ledger as one picture for README.md: a line for every claim, with its verdict and how clear it is."""

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2

from experiments.ledger.effects import NOT_RUN
from experiments.ledger.verdicts import INCONCLUSIVE, NOT_REPRODUCED, REPRODUCED, Finding, Verdict
from experiments.report.figures.palette import theme
from experiments.report.verdict_marks import MARKS, VERDICT_OF

WIDTH, MARGIN = 1000, 28
CHARACTERS = 70  # of a statement in a line
LINE, BAR, PADDING = 16, 7, 9  # heights in pixels: a line of text, a bar, the space above and below
PLOT = (576, 806)  # left and right end of the bars, in pixels
FURTHEST = 100.0  # half widths of an interval at the ends of the plot
BADGES = {REPRODUCED: 110, NOT_REPRODUCED: 140, INCONCLUSIVE: 118, NOT_RUN: 84}  # widths in pixels


@dataclass(frozen=True)
class Bar:
    """A deciding comparison: its verdict, and the positions of its mean and its interval, in pixels."""

    verdict: str
    y: float
    mean: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Line:
    """A claim in the picture: its top and height in pixels, its statement in lines, its bars."""

    verdict: Verdict
    top: float
    height: float
    text: list[str]
    bars: list[Bar]


def ledger_picture(verdicts: Sequence[Verdict]) -> str:
    """The picture as SVG, in the light theme's colours on an opaque background, so that it is legible on dark pages.

    A bar is the interval of a deciding comparison. Its position is the distance from the threshold, to the right
    on the claimed side, in half widths of that interval, on an asinh scale: one scale for all units, on which an
    interval that contains the threshold crosses the line in the middle. A comparison without an interval is a diamond
    at an end or, if inconclusive, in the middle.
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
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
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
        badges=BADGES,
        plot=PLOT,
        middle=pixel(0.0),
        line=LINE,
        colours={name.removeprefix("--"): colour for name, colour in theme().items()},
    )


def line_of(verdict: Verdict, top: float) -> Line:
    """A claim with its bars, from `top` downwards."""
    text = textwrap.wrap(verdict.claim.statement, CHARACTERS, break_on_hyphens=False)
    deciding = [finding for finding in verdict.findings if finding.comparison.deciding]
    height = 2 * PADDING + max(LINE * len(text), BAR * len(deciding))
    first = top + (height - BAR * (len(deciding) - 1)) / 2
    bars = [bar for index, finding in enumerate(deciding) if (bar := bar_of(finding, first + BAR * index))]
    return Line(verdict, top, height, text, bars)


def bar_of(finding: Finding, y: float) -> Bar | None:
    """The bar of one comparison, None if nothing was measured."""
    effect = finding.effect
    if not math.isfinite(effect.mean):
        return None
    shown = VERDICT_OF[finding.outcome]
    if not (math.isfinite(effect.low) and math.isfinite(effect.high)) or effect.low == effect.high:
        certain = {REPRODUCED: FURTHEST, NOT_REPRODUCED: -FURTHEST}
        return Bar(shown, y, pixel(certain.get(shown, 0.0)), None, None)
    mean = distance(finding, effect.mean)
    ends = sorted(distance(finding, end) for end in (effect.low, effect.high))
    half = (ends[1] - ends[0]) / 2 or 1.0
    return Bar(shown, y, *(pixel(value / half) for value in (mean, *ends)))


def distance(finding: Finding, value: float) -> float:
    """The distance of a value from the threshold, negative if it is not on the claimed side."""
    comparison = finding.comparison
    threshold = comparison.threshold
    if comparison.rule in ("equivalence", "exact"):
        return (comparison.tolerance or comparison.smallest or 0.0) - abs(value - threshold)
    if comparison.rule == "ratio":  # its interval is that of the logarithms
        value, threshold = math.log(value), math.log(threshold)
    return value - threshold if comparison.side == "above" else threshold - value


def pixel(half_widths: float) -> float:
    """The horizontal position of a distance from the threshold, in pixels."""
    start, end = PLOT
    share = math.asinh(max(-FURTHEST, min(FURTHEST, half_widths))) / math.asinh(FURTHEST)
    return round((start + end) / 2 + share * (end - start) / 2, 1)

"""The ledger as a table in the terminal."""

import math
from collections import Counter
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from experiments.ledger.effects import NOT_AS_CLAIMED
from experiments.ledger.verdicts import NOT_REPRODUCED, REPRODUCED, Finding, Verdict
from experiments.report.numbers import plain
from experiments.report.verdict_marks import VERDICT_OF

DECIDED = (REPRODUCED, NOT_REPRODUCED)

COLOURS = {"reproduced": "green", "not reproduced": "red", "inconclusive": "yellow", "not run": "dim"}  # of verdicts


def interval(finding: Finding) -> str:
    """The effect with its interval, if it has one."""
    effect = finding.effect
    if not math.isfinite(effect.low) or effect.low == effect.high:
        return plain(effect.mean)
    return f"{plain(effect.mean)} [{plain(effect.low)}, {plain(effect.high)}]"


def corrected(verdicts: Sequence[Verdict]) -> str:
    """How many of the verdicts that rest on intervals hold when they are corrected for all claims."""

    def rests_on_intervals(verdict: Verdict) -> bool:
        exact = any(finding.outcome == NOT_AS_CLAIMED for finding in verdict.findings)
        return bool(verdict.claim.looks) and not exact

    decided = [verdict for verdict in verdicts if verdict.verdict in DECIDED and rests_on_intervals(verdict)]
    surviving = sum(verdict.survives for verdict in decided)
    return f"Of {len(decided)} verdicts that rest on intervals, {surviving} also hold when corrected for all claims"


def count(finding: Finding) -> str:
    """The number of seeds and, if they do not decide, at how many the next look is: 4/8."""
    return f"{finding.effect.n}/{finding.next_look}" if finding.next_look else f"{finding.effect.n}"


def terminal_table(verdicts: list[Verdict], scale: str) -> Group:
    """Every claim with its verdict, followed by a row for every comparison if there is a run for any of them."""
    head = rows(f"ledger, {scale}", "paper", "here, and its interval", "seeds", "outcome")
    shown: list[RenderableType] = [head]
    for verdict in verdicts:
        claim, colour = verdict.claim, COLOURS[verdict.verdict]
        heading = Text.assemble("\n", f"{claim.id} ", (verdict.verdict, colour), style="bold")
        heading.append(f"  {claim.statement}", "not bold")
        shown.append(heading)
        if not any(finding.effect.n for finding in verdict.findings):
            continue
        table = rows()
        for finding in verdict.findings:
            comparison, colour = finding.comparison, COLOURS[VERDICT_OF[finding.outcome]]
            cells = (comparison.label, comparison.paper, interval(finding), count(finding))
            beside = "" if comparison.deciding else "beside: "
            table.add_row(*cells, Text(f"{beside}{finding.outcome}", colour))
        shown.append(table)
    counts = Counter(verdict.verdict for verdict in verdicts)
    counted = [Text(f"{counts[name]} {name}", COLOURS[name]) for name in COLOURS if counts[name]]
    shown.append(Text("\n") + Text(", ").join(counted))
    shown.append(f"{corrected(verdicts)}.")
    return Group(*shown)


def rows(*head: str) -> Table:
    """A table without lines, as wide as the terminal, with the same columns for every claim."""
    table = Table(box=None, expand=True, pad_edge=False, show_header=bool(head), header_style="dim")
    for share, name in zip((34, 16, 24, 10), head or 4 * ("",)):
        table.add_column(name, ratio=share)
    table.add_column(head[-1] if head else "", min_width=14)
    return table

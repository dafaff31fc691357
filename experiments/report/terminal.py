"""The ledger as a table in the terminal."""

import math

from rich.markup import escape
from rich.table import Table

from experiments.ledger import Finding, Verdict

COLOURS = {"reproduced": "green", "not reproduced": "red", "inconclusive": "yellow", "not run": "dim"}


def number(value: float | None) -> str:
    """A number as short as it can be read, a dash if there is none."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.3g}"


def interval(finding: Finding) -> str:
    """The effect with its 95 % interval, or alone where there is none."""
    effect = finding.effect
    if not math.isfinite(effect.low) or effect.low == effect.high:
        return number(effect.mean)
    return f"{number(effect.mean)} [{number(effect.low)}, {number(effect.high)}]"


def count(finding: Finding) -> str:
    """How many pairs there are and, where they do not decide, about how many would."""
    return f"{finding.effect.n}" if finding.needed is None else f"{finding.effect.n} of ~{finding.needed}"


def terminal_table(verdicts: list[Verdict], scale: str) -> Table:
    """A row for every comparison of every claim."""
    table = Table("claim", "what is compared", "paper", "here, 95 % interval", "n", "verdict", title=f"ledger, {scale}")
    for verdict in verdicts:
        colour = COLOURS[verdict.verdict]
        table.add_section()
        table.add_row(
            f"[bold]{verdict.claim.id}", f"[bold]{escape(verdict.claim.statement)}", "", "", "",
            f"[bold {colour}]{verdict.verdict}",
        )  # fmt: skip
        for finding in verdict.findings:
            comparison = finding.comparison
            colour = COLOURS[finding.verdict]
            cells = (comparison.label, comparison.paper, interval(finding))
            table.add_row("", *map(escape, cells), count(finding), f"[{colour}]{finding.verdict}")
    return table

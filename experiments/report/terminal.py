"""The ledger as a table in the terminal."""

import math
from collections import Counter

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from experiments.ledger.verdicts import Finding, Verdict

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


def corrected(finding: Finding) -> str:
    """The interval that holds for all claims at once, and the verdict by it where that is another one."""
    low, high = finding.corrected.low, finding.corrected.high
    if not math.isfinite(low) or low == high:
        return ""
    changed = f" {finding.corrected_verdict}" if finding.corrected_verdict != finding.verdict else ""
    return f"[{number(low)}, {number(high)}]{changed}"


def count(finding: Finding) -> str:
    """How many pairs there are and, where they do not decide, about how many would."""
    return f"{finding.effect.n}" if finding.needed is None else f"{finding.effect.n} of ~{finding.needed}"


def terminal_table(verdicts: list[Verdict], scale: str) -> Group:
    """Every claim with its verdict, and under it a row for every comparison."""
    head = rows(f"ledger, {scale}", "paper", "here, 95 % interval", f"for all {len(verdicts)} claims", "n", "verdict")
    shown: list[RenderableType] = [head]
    for verdict in verdicts:
        claim, colour = verdict.claim, COLOURS[verdict.verdict]
        said = f"\n[bold]{claim.id} [{colour}]{verdict.verdict}[/{colour}][/bold]  {escape(claim.statement)}"
        table = rows()
        for finding in verdict.findings:
            comparison, colour = finding.comparison, COLOURS[finding.verdict]
            cells = (comparison.label, comparison.paper, interval(finding), corrected(finding), count(finding))
            table.add_row(*map(escape, cells), f"[{colour}]{finding.verdict}")
        shown += [said, table]
    counts = Counter(verdict.verdict for verdict in verdicts)
    shown.append("\n" + ", ".join(f"[{COLOURS[name]}]{counts[name]} {name}[/]" for name in COLOURS if counts[name]))
    return Group(*shown)


def rows(*head: str) -> Table:
    """A table without lines, as wide as the terminal, whose columns lie under each other from claim to claim."""
    table = Table(box=None, expand=True, pad_edge=False, show_header=bool(head), header_style="dim")
    for share, name in zip((30, 14, 22, 20, 6), head or 5 * ("",)):
        table.add_column(name, ratio=share)
    table.add_column(head[-1] if head else "", min_width=14, no_wrap=True)
    return table

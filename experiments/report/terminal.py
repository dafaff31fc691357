"""The ledger as a table in the terminal."""

import math
from collections import Counter

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from experiments.ledger.verdicts import Finding, Verdict
from experiments.report.numbers import plain

COLOURS = {"reproduced": "green", "not reproduced": "red", "inconclusive": "yellow", "not run": "dim"}


def interval(finding: Finding) -> str:
    """The effect with its 95 % interval, if it has one."""
    effect = finding.effect
    if not math.isfinite(effect.low) or effect.low == effect.high:
        return plain(effect.mean)
    return f"{plain(effect.mean)} [{plain(effect.low)}, {plain(effect.high)}]"


def corrected(finding: Finding) -> str:
    """The interval that holds for all claims at once, and the verdict by it if that differs."""
    low, high = finding.corrected.low, finding.corrected.high
    if not math.isfinite(low) or low == high:
        return ""
    changed = f" {finding.corrected_verdict}" if finding.corrected_verdict != finding.verdict else ""
    return f"[{plain(low)}, {plain(high)}]{changed}"


def count(finding: Finding) -> str:
    """The number of pairs and, if they do not decide, about how many would."""
    return f"{finding.effect.n}" if finding.needed is None else f"{finding.effect.n} of ~{finding.needed}"


def terminal_table(verdicts: list[Verdict], scale: str) -> Group:
    """Every claim with its verdict, followed by a row for every comparison."""
    head = rows(f"ledger, {scale}", "paper", "here, 95 % interval", f"for all {len(verdicts)} claims", "n", "verdict")
    shown: list[RenderableType] = [head]
    for verdict in verdicts:
        claim, colour = verdict.claim, COLOURS[verdict.verdict]
        heading = f"\n[bold]{claim.id} [{colour}]{verdict.verdict}[/{colour}][/bold]  {escape(claim.statement)}"
        table = rows()
        for finding in verdict.findings:
            comparison, colour = finding.comparison, COLOURS[finding.verdict]
            cells = (comparison.label, comparison.paper, interval(finding), corrected(finding), count(finding))
            table.add_row(*map(escape, cells), f"[{colour}]{finding.verdict}")
        shown += [heading, table]
    counts = Counter(verdict.verdict for verdict in verdicts)
    shown.append("\n" + ", ".join(f"[{COLOURS[name]}]{counts[name]} {name}[/]" for name in COLOURS if counts[name]))
    return Group(*shown)


def rows(*head: str) -> Table:
    """A table without lines, as wide as the terminal, with the same columns for every claim."""
    table = Table(box=None, expand=True, pad_edge=False, show_header=bool(head), header_style="dim")
    for share, name in zip((30, 14, 22, 20, 6), head or 5 * ("",)):
        table.add_column(name, ratio=share)
    table.add_column(head[-1] if head else "", min_width=14, no_wrap=True)
    return table

"""The ledger in README.md: its table and its picture."""

from collections.abc import Sequence

from experiments.environment import ROOT
from experiments.ledger import Verdict
from experiments.report.figures.ledger_picture import ledger_picture
from experiments.report.terminal import count, interval
from tasks.data.source import write_atomically

README, PICTURE = ROOT / "README.md", ROOT / "docs" / "ledger.svg"
START, END = "<!-- ledger -->\n", "<!-- /ledger -->\n"
HEADER = "| | claim, and what is compared | paper | here, 95 % interval | n | verdict |\n|---|---|---|---|---|---|\n"


def markdown_table(verdicts: Sequence[Verdict]) -> str:
    """A row for every claim, and one for every comparison that its verdict rests on."""
    rows: list[tuple[str, ...]] = []
    for verdict in verdicts:
        rows.append((f"**{verdict.claim.id}**", f"**{verdict.claim.statement}**", "", "", "", f"**{verdict.verdict}**"))
        for finding in verdict.findings:
            comparison = finding.comparison
            if comparison.decides:
                here = f"{interval(finding)} {comparison.unit}"
                rows.append(("", comparison.label, comparison.paper, here, count(finding), finding.verdict))
    return HEADER + "".join(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |\n" for row in rows)


def replace_table(text: str, table: str) -> str:
    """A text with the table between its two markers."""
    before, rest = text.split(START)
    return before + START + table + END + rest.split(END)[1]


def write_readme(verdicts: Sequence[Verdict]) -> None:
    """Rewrite the table in README.md, and docs/ledger.svg."""
    text = replace_table(README.read_text(encoding="utf-8"), markdown_table(verdicts))
    write_atomically(README, text.encode())
    write_atomically(PICTURE, ledger_picture(verdicts).encode())

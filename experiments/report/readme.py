"""`make readme`: the ledger's table in README.md and its picture, made anew from the records that there are."""

import sys
from collections.abc import Sequence

from experiments.ledger.verdicts import Verdict, judge_all
from experiments.records.environment import ROOT
from experiments.report.ledger_picture import ledger_picture
from experiments.report.terminal import count, interval

PICTURE = ROOT / "docs" / "ledger.svg"
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
    """A text with the table between its two marks."""
    before, rest = text.split(START)
    return before + START + table + END + rest.split(END)[1]


def main(arguments: Sequence[str]) -> None:
    """Rewrite README.md and docs/ledger.svg from the records of a scale under a folder of outputs."""
    from experiments.ledger.evidence import gather

    scale, outputs = arguments
    evidence = gather(scale, outputs)
    verdicts = judge_all(evidence)
    readme = ROOT / "README.md"
    text = replace_table(readme.read_text(encoding="utf-8"), markdown_table(verdicts))
    readme.write_text(text, encoding="utf-8")
    PICTURE.write_text(ledger_picture(verdicts), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])

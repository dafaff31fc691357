"""The ledger in README.md, a row per claim, and in docs/results.md, a row per comparison; and its picture."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from experiments.config.errors import ConfigError
from experiments.ledger.evidence import Evidence, environments_of, pythons
from experiments.ledger.verdicts import Finding, Verdict
from experiments.recording.code import ROOT
from experiments.report.export.text_tables import markdown
from experiments.report.figures.ledger_picture import ledger_picture
from experiments.report.numbers import MISSING
from experiments.report.terminal import corrected, count, interval
from experiments.report.verdict_marks import MARKS, VERDICT_OF
from tasks.data.source import write_atomically

README, RESULTS, PICTURE = ROOT / "README.md", ROOT / "docs" / "results.md", ROOT / "docs" / "ledger.svg"
START, END = "<!-- ledger -->\n", "<!-- /ledger -->\n"
CLAIM_COLUMNS = ("", "claim", "verdict", "the comparison that decides", "paper", "here")
COMPARISON_COLUMNS = ("", "claim, and its comparisons", "paper", "here, and its interval", "seeds", "verdict")


def claim_table(verdicts: Sequence[Verdict]) -> str:
    """A row for every claim, with the first comparison whose verdict is the claim's."""
    rows = []
    for verdict in verdicts:
        finding = deciding(verdict)
        comparison = finding.comparison
        cells = (verdict.claim.statement, verdict.verdict, comparison.label, comparison.paper, measured(finding))
        rows.append((f"**{verdict.claim.id}**", *cells))
    return markdown(CLAIM_COLUMNS, rows)


def comparison_table(verdicts: Sequence[Verdict]) -> str:
    """A row for every claim, with its verdicts at shifted learning rates, and one for every comparison that its verdict
    rests on."""
    rows: list[tuple[str, ...]] = []
    for verdict in verdicts:
        shifted = "; ".join(f"{rate}: {own}" for rate, own in verdict.by_rate.items())
        heading = (f"**{verdict.claim.id}**", f"**{verdict.claim.statement}**", "", shifted, "")
        rows.append((*heading, f"**{verdict.verdict}**"))
        for finding in verdict.findings:
            comparison = finding.comparison
            if comparison.deciding:
                cells = (comparison.label, comparison.paper, measured(finding), count(finding), finding.outcome)
                rows.append(("", *cells))
    return markdown(COMPARISON_COLUMNS, rows)


def deciding(verdict: Verdict) -> Finding:
    """The first of a claim's deciding comparisons whose outcome speaks for the claim's verdict."""
    found = (finding for finding in verdict.findings if finding.comparison.deciding)
    return next(finding for finding in found if VERDICT_OF[finding.outcome] == verdict.verdict)


def measured(finding: Finding) -> str:
    """The effect, its interval and its unit."""
    return f"{interval(finding)} {finding.comparison.unit}".strip() if finding.effect.n else MISSING


def caption(verdicts: Sequence[Verdict], evidence: Evidence) -> str:
    """How many claims have which verdict, and where the records come from."""
    counts = Counter(verdict.verdict for verdict in verdicts)
    listed = ", ".join(f"{counts[name]} {name}" for name in MARKS if counts[name])
    environments = environments_of(evidence)
    processors = " and ".join(sorted({environment["processor"] for environment in environments}))
    torch = " and ".join(sorted({environment["libraries"]["torch"] for environment in environments}))
    python = " and ".join(pythons(environments))
    return (
        f"{len(verdicts)} claims: {listed}. {corrected(verdicts)}. The figures come from {len(environments)} runs on "
        f"{processors} with torch {torch} and Python {python}, whose standard library is the text corpus `stdlib`.\n"
    )


def replace_ledger(text: str, ledger: str) -> str:
    """A text with the ledger between its two markers."""
    before, rest = text.split(START)
    return before + START + ledger + END + rest.split(END)[1]


def write_readme(verdicts: Sequence[Verdict], evidence: Evidence) -> None:
    """Rewrite the ledger in README.md and docs/results.md, and docs/ledger.svg. Raises ConfigError where none is."""
    if not README.exists():
        raise ConfigError(f"{README} is not there: make readme needs a clone of the repository")
    below = "\n" + caption(verdicts, evidence)
    tables: dict[Path, str] = {README: claim_table(verdicts), RESULTS: comparison_table(verdicts)}
    for file, table in tables.items():
        write_atomically(file, replace_ledger(file.read_text(encoding="utf-8"), table + below).encode())
    write_atomically(PICTURE, ledger_picture(verdicts).encode())

"""The ledger and the page, written and printed."""

from pathlib import Path

from rich.console import Console

from experiments.ledger.evidence import Evidence
from experiments.ledger.excluded_records import as_lines, excluded_records
from experiments.ledger.verdicts import judge_all
from experiments.report import terminal_table, write_report
from experiments.report.summary_runs import log_summaries


def publish(evidence: Evidence, scale: str, outputs: str, console: Console | None) -> Path:
    """Write the ledger and the page; print the table if there is a console to print to."""
    verdicts, others = judge_all(evidence), excluded_records(evidence, scale, outputs)
    if console:
        console.print(terminal_table(verdicts, scale))
        if not any(record.finished for record in evidence.values()):
            said = f"no finished run of scale {scale} under {outputs}: make reproduce SCALE={scale}"
            console.print(said, style="yellow")
        for line in as_lines(others):
            console.print(line, markup=False, soft_wrap=True)
        log_summaries(verdicts, evidence, scale, outputs)
    return write_report(verdicts, evidence, scale, Path(outputs), others)

"""Show what the records say: the ledger in the terminal, the page and its files, and W&B's summary runs."""

import shlex
from pathlib import Path

from rich.console import Console

from experiments.ledger.evidence import Evidence
from experiments.ledger.excluded_records import ExcludedRecords, as_lines, excluded_records
from experiments.ledger.verdicts import Verdict, judge_all
from experiments.recording.look import one_look
from experiments.report.page.files import write_report
from experiments.report.terminal import terminal_table
from experiments.report.wandb.summary_runs import log_summaries


def publish(evidence: Evidence, scale: str, outputs: str, console: Console | None) -> Path:
    """Write the page and its files; with a console, also print the ledger and log summaries to W&B.

    Returns the path of the page.
    """
    with one_look(outputs):
        verdicts, excluded = judge_all(evidence), excluded_records(evidence, scale, outputs)
        if console:
            show(verdicts, evidence, excluded, scale, outputs, console)
        return write_report(verdicts, evidence, scale, Path(outputs), excluded)


def show(
    verdicts: list[Verdict],
    evidence: Evidence,
    excluded: list[ExcludedRecords],
    scale: str,
    outputs: str,
    console: Console,
) -> None:
    """Print the ledger and what it excludes, and log summaries to W&B."""
    console.print(terminal_table(verdicts, scale))
    if not any(record.finished for record in evidence.values()):
        command = f"make reproduce SCALE={scale} OUTPUTS={shlex.quote(outputs)}"
        message = f"no finished run of scale {scale} under {outputs}: {command}"
        console.print(message, style="yellow", markup=False, soft_wrap=True)
    for line in as_lines(excluded):
        console.print(line, soft_wrap=True)
    log_summaries(verdicts, evidence, scale, outputs)

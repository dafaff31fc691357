"""The files of a report: ledger.json, records.csv and index.html."""

import json
from collections.abc import Sequence
from pathlib import Path

from experiments.ledger.evidence import Evidence
from experiments.ledger.excluded_records import ExcludedRecords
from experiments.ledger.verdicts import Verdict, as_json
from tasks.data.source import write_atomically


def write_report(
    verdicts: list[Verdict], evidence: Evidence, scale: str, outputs: Path, others: Sequence[ExcludedRecords] = ()
) -> Path:
    """Write ledger.json, records.csv and index.html under `outputs`/report; returns the page's path.

    others: the records that the ledger does not rest on.
    """
    from experiments.report.own_models import evaluations
    from experiments.report.rendering import render  # draws in Altair, which whoever only trains need not wait for
    from experiments.report.spreadsheet import records_csv

    folder = Path(outputs) / "report"
    own = evaluations(outputs)
    ledger = as_json(verdicts, scale) | {"excluded_records": [vars(group) for group in others]}
    write_atomically(folder / "ledger.json", (json.dumps(ledger, indent=2) + "\n").encode())
    write_atomically(folder / "records.csv", records_csv(evidence | own).encode())
    write_atomically(folder / "index.html", render(verdicts, evidence, scale, own, others).encode())
    return folder / "index.html"

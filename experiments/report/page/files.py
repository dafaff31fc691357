"""The files of a report: ledger.json, records.csv and index.html."""

import json
from collections.abc import Sequence
from pathlib import Path

from experiments.ledger.evidence import Evidence
from experiments.ledger.excluded_records import ExcludedRecords
from experiments.ledger.verdicts import Verdict, as_json
from tasks.data.source import write_atomically


def write_report(
    verdicts: list[Verdict], evidence: Evidence, scale: str, outputs: Path, excluded: Sequence[ExcludedRecords] = ()
) -> Path:
    """Write ledger.json, records.csv and index.html to `outputs`/report; returns the path of the page.

    excluded: the records that the ledger does not use.
    """
    from experiments.report.export.records_csv import records_csv
    from experiments.report.figures.own_models import evaluations
    from experiments.report.page.rendering import render  # imports Altair, which takes seconds

    folder = Path(outputs) / "report"
    own = evaluations(outputs)
    ledger = as_json(verdicts, scale) | {"excluded_records": [vars(group) for group in excluded]}
    write_atomically(folder / "ledger.json", (json.dumps(ledger, indent=2) + "\n").encode())
    write_atomically(folder / "records.csv", records_csv(evidence | own).encode())
    write_atomically(folder / "index.html", render(verdicts, evidence, scale, own, excluded).encode())
    return folder / "index.html"

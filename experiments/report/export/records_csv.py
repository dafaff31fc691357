"""The records as one CSV file: a row for every run."""

import csv
import io
from typing import Any

from experiments.ledger.evidence import Evidence
from experiments.recording.record import Record
from experiments.report.runs import COUNTS

FORMULA = ("=", "+", "-", "@", "\t", "\r")  # first characters of a formula in a spreadsheet


def records_csv(evidence: Evidence) -> str:
    """All runs that have started and can be read: factors, status, counts, versions and last metrics."""
    rows = [
        {"experiment": job.experiment, "id": record.id, "status": record.status, **dict(job.factors), **results(record)}
        for job, record in evidence.items()
        if record.status not in ("new", "damaged")
    ]
    leading = ["experiment", "id", "status", "seed"]
    factors = dict.fromkeys(name for job in evidence for name, _ in job.factors)
    columns = list(dict.fromkeys([*leading, *factors, *(name for row in rows for name in row)]))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(harmless, columns))
    for row in rows:
        cells = {name: harmless(value) for name, value in row.items()}
        writer.writerow(map(cells.get, columns))
    return text.getvalue()


def results(record: Record) -> dict[str, Any]:
    """The counts, the environment, the versions and the last metrics that a run has recorded; none before its end."""
    if not record.finished:
        return {}
    summary, environment = record.summary, record.environment
    versions = {f"version of {name}": version for name, version in environment["libraries"].items()}
    counts = {name: summary[name] for name in COUNTS if name in summary}
    machine = {name: value for name, value in environment.items() if name != "libraries"}
    return counts | machine | versions | summary["metrics"]


def harmless(value: Any) -> Any:
    """A cell that no spreadsheet runs as a formula: texts that look like one get an apostrophe first."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) and not is_number(value) else value


def is_number(text: str) -> bool:
    """Whether a text is a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True

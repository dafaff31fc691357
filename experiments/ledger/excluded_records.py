"""Records that the ledger excludes, and why: runs of different kinds are never mixed, and exclusions are reported."""

from dataclasses import dataclass, field
from pathlib import Path

from experiments.ledger.claims import claims
from experiments.ledger.evidence import Evidence, lacking, records_of
from experiments.ledger.tuning import shifted_in, tunings_in
from experiments.recording.record import Record, records

OWN = "evaluate_"  # evaluations of the user's own models, which have their own section in the report


@dataclass
class ExcludedRecords:
    """The finished or damaged records of one experiment that are excluded for the same reason."""

    experiment: str
    reason: str
    folders: list[str] = field(default_factory=list)


def excluded_records(evidence: Evidence, scale: str, outputs: str | Path) -> list[ExcludedRecords]:
    """The records of this scale that are not finished records of the evidence, by experiment and reason."""
    trials = [record for tuning in tunings_in(evidence) for record in tuning.records.values()]
    shifted = [record for each in shifted_in(evidence).values() for record in each.values()]
    planned = {
        record.folder: record for record in (*evidence.values(), *trials, *shifted, *records(outputs, f"{OWN}*"))
    }
    without = lacking_metrics(evidence)
    starts = {record.environment.get("start") for record in evidence.values() if record.finished}
    known: dict[str, dict[str, dict[str, str]]] = {}  # experiment → settings → identity
    for job, record in evidence.items():
        known.setdefault(job.experiment, {})[record.identity.get("settings", "")] = record.identity
    found: dict[tuple[str, str], ExcludedRecords] = {}
    for record in records(outputs):
        experiment, record = record.folder.parent.name, planned.get(record.folder, record)
        if record.status == "damaged":
            reason = record.damage
        elif record.folder in without:
            reason = without[record.folder]
        elif record.folder in planned or record.id in starts or not comparable(record, scale):
            continue
        elif experiment not in known:
            reason = "no claim uses this experiment"
        else:
            reason = difference(record, known[experiment].get(record.environment["settings"]))
        group = found.setdefault((experiment, reason), ExcludedRecords(experiment, reason))
        group.folders.append(str(record.folder))
    return sorted(found.values(), key=lambda group: (group.experiment, group.reason))


def lacking_metrics(evidence: Evidence) -> dict[Path, str]:
    """The folders of finished records that lack a metric that a claim compares or a learning rate is chosen by."""
    found: dict[Path, str] = {}
    own: dict[str, Evidence] = {}
    for job, record in evidence.items():
        own.setdefault(job.experiment, {})[job] = record
    compared = [(claim.id, comparison) for claim in claims() for comparison in claim.comparisons]
    for name, comparison in compared:
        for record in records_of(comparison, own.get(comparison.experiment, {})):
            if record.finished and (metric := lacking(comparison, record)):
                found[record.folder] = f"no metric {metric}, which {name} compares"
    for tuning in tunings_in(evidence):
        for record in tuning.records.values():
            if record.finished and tuning.metric not in record.summary["metrics"]:
                found[record.folder] = f"no metric {tuning.metric}, by which a learning rate is chosen"
    return found


def comparable(record: Record, scale: str) -> bool:
    """Whether a record is a finished run of this scale."""
    return record.finished and record.environment["scale"] == scale


def difference(record: Record, identity: dict[str, str] | None) -> str:
    """How a record differs from the ledger's run with the same settings."""
    if identity is None:
        return "no run of the ledger has these settings"
    differing = {name: record.environment[name] for name in identity if record.environment[name] != identity[name]}
    return "; ".join(f"different {name}: {value}, not {identity[name]}" for name, value in differing.items())


def as_lines(groups: list[ExcludedRecords]) -> list[str]:
    """One line of text per group."""
    return [f"excluded: {len(group.folders)} of {group.experiment}, {group.reason}" for group in groups]

"""Records that the ledger excludes, and why: runs of different kinds are never mixed, and exclusions are reported."""

from dataclasses import dataclass, field
from pathlib import Path

from experiments.ledger.evidence import Evidence
from experiments.ledger.tuning import shifted_in, tunings_in
from experiments.records.record import Record, records

OWN = "evaluate_"  # evaluations of the user's own models, which have their own section in the report


@dataclass
class ExcludedRecords:
    """The finished or damaged records of one experiment that are excluded for the same reason."""

    experiment: str
    reason: str
    folders: list[str] = field(default_factory=list)


def excluded_records(evidence: Evidence, scale: str, outputs: str | Path) -> list[ExcludedRecords]:
    """The records of this scale that are not finished records of the evidence, by experiment and reason."""
    planned = {record.folder for record in evidence.values()}
    planned |= {record.folder for tuning in tunings_in(evidence) for record in tuning.records.values()}
    planned |= {record.folder for shifted in shifted_in(evidence).values() for record in shifted.values()}
    starts = {record.environment.get("start") for record in evidence.values() if record.finished}
    known: dict[str, dict[str, dict[str, str]]] = {}  # experiment → settings → identity
    for job, record in evidence.items():
        known.setdefault(job.experiment, {})[record.identity.get("settings", "")] = record.identity
    found: dict[tuple[str, str], ExcludedRecords] = {}
    for record in records(outputs):
        experiment = record.folder.parent.name
        if record.status == "damaged":
            reason = record.damage
        elif record.folder in planned or record.id in starts or not comparable(record, scale):
            continue
        elif experiment not in known:
            reason = "no claim uses this experiment"
        else:
            reason = difference(record, known[experiment].get(record.environment["settings"]))
        group = found.setdefault((experiment, reason), ExcludedRecords(experiment, reason))
        group.folders.append(str(record.folder))
    return sorted(found.values(), key=lambda group: (group.experiment, group.reason))


def comparable(record: Record, scale: str) -> bool:
    """Whether a record is a finished run of this scale, and not an evaluation of a user's own model."""
    own = record.folder.parent.name.startswith(OWN)
    return record.finished and not own and record.environment["scale"] == scale


def difference(record: Record, identity: dict[str, str] | None) -> str:
    """How a record differs from the ledger's run with the same settings."""
    if identity is None:
        return "no run of the ledger has these settings"
    differing = {name: record.environment[name] for name in identity if record.environment[name] != identity[name]}
    return "; ".join(f"different {name}: {value}, not {identity[name]}" for name, value in differing.items())


def as_lines(groups: list[ExcludedRecords]) -> list[str]:
    """One line of text per group."""
    return [f"excluded: {len(group.folders)} of {group.experiment}, {group.reason}" for group in groups]

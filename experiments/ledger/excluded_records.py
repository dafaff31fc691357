"""Records that the ledger does not rest on, and why: nothing is mixed, and nothing is left out silently."""

from dataclasses import dataclass, field
from pathlib import Path

from experiments.ledger.evidence import Evidence
from experiments.records.record import Record, records

OWN = "evaluate_"  # evaluations of models of the user's own have a section of their own


@dataclass
class LeftOut:
    """The finished or damaged records of one experiment that are left out for one reason."""

    experiment: str
    reason: str
    folders: list[str] = field(default_factory=list)


def left_out(evidence: Evidence, scale: str, outputs: str | Path) -> list[LeftOut]:
    """All records of this scale that are not among the finished ones of the evidence, by experiment and reason."""
    planned = {record.folder for record in evidence.values()}
    starts = {record.environment.get("start") for record in evidence.values() if record.finished}
    known: dict[str, dict[str, dict[str, str]]] = {}  # experiment → settings → what else determines the numbers
    for job, record in evidence.items():
        known.setdefault(job.experiment, {})[record.identity.get("settings", "")] = record.identity
    found: dict[tuple[str, str], LeftOut] = {}
    for record in records(outputs):
        experiment = record.folder.parent.name
        if record.status == "damaged":
            reason = record.damage
        elif record.folder in planned or record.id in starts or not comparable(record, scale):
            continue
        elif experiment not in known:
            reason = "no claim rests on this experiment"
        else:
            reason = difference(record, known[experiment].get(record.environment["settings"]))
        group = found.setdefault((experiment, reason), LeftOut(experiment, reason))
        group.folders.append(str(record.folder))
    return sorted(found.values(), key=lambda group: (group.experiment, group.reason))


def comparable(record: Record, scale: str) -> bool:
    """Whether a record is a finished run of this scale that a claim could have rested on."""
    own = record.folder.parent.name.startswith(OWN)
    return record.finished and not own and record.environment["scale"] == scale


def difference(record: Record, identity: dict[str, str] | None) -> str:
    """How a record differs from the run of the ledger that has its settings."""
    if identity is None:
        return "no run of the ledger has these settings"
    differing = {name: record.environment[name] for name in identity if record.environment[name] != identity[name]}
    return "; ".join(f"other {name}: {value}, and here {identity[name]}" for name, value in differing.items())


def in_words(groups: list[LeftOut]) -> list[str]:
    """A line for every group."""
    return [f"left out: {len(group.folders)} of {group.experiment}, {group.reason}" for group in groups]

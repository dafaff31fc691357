"""Bring the records of several outputs folders together."""

import os
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from experiments.config.errors import ConfigError
from experiments.evaluation.repeat import MACHINE, deviations, differences
from experiments.ledger.runs import TIMED
from experiments.recording.record import Record, records


@dataclass
class Merge:
    """What a merge will do: the records to copy, how many are there already, and how many are left out, by reason."""

    copied: list[Record] = field(default_factory=list)
    known: int = 0
    left_out: Counter[str] = field(default_factory=Counter)


def planned(sources: Sequence[str], outputs: str) -> Merge:
    """Compare the records under `sources` with those under `outputs`, and with each other.

    A record that is damaged, unfinished, of other code or that measured time on another processor is left out. Raises
    ConfigError for a folder without records, and for two contents under one id: metrics that differ on one machine, or
    by more than rounding on two.
    """
    found, there = Merge(), There()
    for record in records(outputs):
        if record.finished:
            there.add(record)
    for source in sources:
        if not (Path(source) / "runs").is_dir():
            raise ConfigError(f"{source} is no outputs folder: it has no folder runs")
        for record in records(source):
            own = there.records.get(record.id)
            if reason := there.refusal(record):
                found.left_out[f"{record.folder.parent.name}: {reason}"] += 1
            elif own is None:
                found.copied.append(record)
                there.add(record)
            else:
                check_same_result(own, record)
                found.known += 1
    return found


@dataclass
class There:
    """Records that are there: by id; the code of each, by what else determines a run; processors that measured time."""

    records: dict[str, Record] = field(default_factory=dict)
    codes: dict[tuple[str, ...], str] = field(default_factory=dict)
    processors: set[str] = field(default_factory=set)

    def add(self, record: Record) -> None:
        """Add a finished record."""
        self.records[record.id] = record
        self.codes.setdefault(but_for_code(record), record.environment["code"])
        if record.folder.parent.name in TIMED:
            self.processors.add(record.environment["processor"])

    def refusal(self, record: Record) -> str:
        """Why a record cannot join these, "" if it can."""
        if not record.finished:
            return record.damage or f"the run is {record.status}"
        own = record.environment
        if record.folder.parent.name in TIMED and self.processors - {own["processor"]}:
            return f"it measured time on {own['processor']}"
        code = self.codes.get(but_for_code(record), own["code"])
        return "" if code == own["code"] else f"different code: {own['code']}, not {code}"


def but_for_code(record: Record) -> tuple[str, ...]:
    """What determines a run's numbers besides its code."""
    environment = record.environment
    return record.folder.parent.name, *(environment[name] for name in ("settings", "scale", "data", "precision"))


def check_same_result(own: Record, other: Record) -> None:
    """Raise ConfigError if two records of one run have different results."""
    same = all(own.environment[name] == other.environment[name] for name in MACHINE)
    found = list(differences(own, other) if same else deviations(own, other))
    if found:
        raise ConfigError(
            f"{own.folder} and {other.folder} are one run with two results: {found[0]}; remove one of them"
        )


def merge(plan: Merge, outputs: str) -> None:
    """Copy the records, each of them whole or not at all."""
    for record in plan.copied:
        folder = Path(outputs) / "runs" / record.folder.parent.name / record.id
        temporary = folder.with_name(f".{record.id}.{os.getpid()}")
        shutil.copytree(record.folder, temporary, ignore=shutil.ignore_patterns("lock", ".*"))
        if folder.exists():
            shutil.rmtree(folder)  # a run of the same id that was not finished
        temporary.rename(folder)

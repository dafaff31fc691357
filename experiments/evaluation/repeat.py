"""A finished run, repeated and compared with its record."""

import math
from collections.abc import Iterator
from typing import Any

from rich.console import Console

from experiments.config.schema import register
from experiments.records.record import Record, records
from experiments.training.execute import execute
from experiments.training.run_spec import spec_of

TOLERANCE = 0.02  # of a metric's value, or of 1 where it is smaller: what bf16 leaves of a few hundred steps
TAKEN = ("seconds", "peak_bytes")  # what a run took, which is not what came out
MACHINE = ("processor", "platform", "python", "libraries", "threads", "processes")


def finished(identifier: str, outputs: str) -> Record:
    """The finished run of this id. Raises ValueError if there is none."""
    for record in records(outputs):
        if record.id == identifier and record.finished:
            return record
    raise ValueError(f"RUN={identifier}: no finished run under {outputs}/runs has this id")


def repeat(record: Record, folder: str, console: Console) -> Record:
    """The same run once more, into a folder of its own, with the code, data and libraries as they are now.

    Raises ValueError if these, or the settings, make it another run.
    """
    register()
    config = record.config | {"outputs": folder, "tracking": record.config["tracking"] | {"mode": "disabled"}}
    overrides = [line for line in record.environment["overrides"] if not line.startswith(("outputs=", "tracking"))]
    planned = spec_of(config, [*overrides, f"outputs={folder}", "tracking=none"])
    now = planned.record.identity
    other = [name for name in ("settings", "code", "data", "precision") if now[name] != record.environment[name]]
    if other:
        raise ValueError(f"{record.folder} cannot be repeated here: it was made with other {', '.join(other)}")
    return execute(planned, console)


def differences(record: Record, again: Record) -> Iterator[str]:
    """The files that did not come out byte for byte, or not but for what the run took."""
    for name in ("metrics.jsonl", "tables.json"):
        file = record.folder / name
        if file.exists() and file.read_bytes() != (again.folder / name).read_bytes():
            yield f"{name} differs"
    before, after = ({key: value for key, value in r.summary.items() if key not in TAKEN} for r in (record, again))
    yield from (f"summary.json: {key} differs" for key in before if before[key] != after.get(key))


def deviations(record: Record, again: Record) -> Iterator[str]:
    """The last metrics that came out further away than TOLERANCE."""
    after: dict[str, Any] = again.summary["metrics"]
    for name, value in record.summary["metrics"].items():
        off = abs(after.get(name, math.nan) - value)
        if not (off <= TOLERANCE * max(1.0, abs(value)) or after.get(name) == value):
            yield f"{name}: {value:.6g} in the record, {after.get(name, math.nan):.6g} now"

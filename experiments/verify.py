"""`make verify RUN=<run id>`: repeat a finished run and compare what comes out with its record.

On the machine it was made on, with the same libraries, it is to come out byte for byte; elsewhere rounding differs, and
each last metric is to come out within TOLERANCE of what it was.
"""

import argparse
import math
import sys
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console

from experiments.config import register
from experiments.execution import USER_ERRORS, execute, plan_of
from experiments.records import Record, records
from experiments.sweep import fail

TOLERANCE = 0.02  # of a metric's value, or of 1 where it is smaller: what bf16 leaves of a few hundred steps
TAKEN = ("seconds", "peak_bytes")  # what a run took, which is not what came out
MACHINE = ("processor", "platform", "python", "libraries", "threads", "processes")


def main(arguments: Sequence[str]) -> int:
    """Repeat a run and tell what differs; returns the exit code, 1 if anything does."""
    parser = argparse.ArgumentParser(prog="python -m experiments.verify", description=__doc__)
    parser.add_argument("run", help="the id of a finished run")
    parser.add_argument("--outputs", default="outputs")
    options = parser.parse_args(arguments)
    console = Console(stderr=True)
    try:
        record = finished(options.run, options.outputs)
        with tempfile.TemporaryDirectory() as folder:
            again = repeat(record, folder, console)
            same = all(record.environment[name] == again.environment[name] for name in MACHINE)
            found = list(differences(record, again) if same else deviations(record, again))
    except USER_ERRORS as error:
        fail(console, error)
        return 1
    for difference in found:
        console.print(difference, soft_wrap=True, highlight=False, markup=False)
    way = "byte for byte" if same else f"within {TOLERANCE:.0%}, on another machine or with other libraries"
    console.print(f"{record.folder}: {'not repeated' if found else 'repeated'} {way}", soft_wrap=True, highlight=False)
    return 1 if found else 0


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
    planned = plan_of(config, [*overrides, f"outputs={folder}", "tracking=none"])
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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

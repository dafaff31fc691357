"""Repeat a finished run and compare the result with its record."""

import math
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from torch import nn

from experiments.config.checks import check_recorded
from experiments.config.plugins import packages
from experiments.config.schema import register
from experiments.recording import environment
from experiments.recording.contents import to_json
from experiments.recording.record import Record, identity, records
from experiments.training import checkpoint
from experiments.training.execute import assemble, execute
from experiments.training.run_spec import spec_of

TOLERANCE = 0.02  # relative to a metric's value, or to 1 if it is smaller: the effect of bf16 over a few hundred steps
COSTS = ("seconds", "peak_bytes")  # may differ
MACHINE = ("processor", "platform", "python", "libraries", "threads", "processes")


def finished(identifier: str, outputs: str) -> Record:
    """The finished run with this id. Raises ValueError if there is none."""
    found = [record for record in records(outputs) if record.id == identifier]
    for record in found:
        if record.finished:
            return record
    reasons = "".join(f"; {record.folder}: {record.damage}" for record in found if record.damage)
    raise ValueError(f"RUN={identifier}: no finished run under {outputs}/runs has this id{reasons}")


def settings_of(record: Record) -> dict[str, Any]:
    """The settings of a finished training, checked before anything of them is built.

    Raises ConfigError if they name something that may not be called, and ValueError for an evaluation or for a run with
    packages from outside that this command does not use.
    """
    if "training" not in record.config:
        raise ValueError(
            f"{record.folder} is an evaluation of a model from outside: repeat it by python -m experiments.evaluate "
            "with outputs=<another folder>"
        )
    unused = [str(name) for name in record.config.get("plugins", []) if name not in packages()]
    if unused:
        raise ValueError(f"{record.folder} was run with plugins={','.join(unused)}: add that to this command")
    register()
    check_recorded(record.config)
    return record.config


def trained(record: Record) -> tuple[Any, nn.Module]:
    """The task of a finished run, and its trained model for evaluation.

    Raises ValueError, among them ConfigError for settings that must not be built, or RecordError.
    """
    if not record.finished or record.diverged:
        reason = record.damage or f"its status is {record.status}"
        raise ValueError(f"{record.folder} is not the folder of a finished run: {reason}")
    task, model = assemble(spec_of(settings_of(record), ()))
    checkpoint.load_weights(record.checkpoint_file, model, record.config["training"]["steps"])
    return task, model.eval()


def repeat(record: Record, folder: str, console: Console) -> Record:
    """Execute the run again with the current code, data and libraries, and record it in `folder`.

    Raises ConfigError if the record names something that may not be called, and ValueError if settings, code, data or
    precision differ from those of the record; what can be compared without the data is, before the data is built.
    """
    settings = settings_of(record)
    precision = environment.resolve_precision(settings["training"]["precision"])
    check_same(record, identity(settings, record.environment["data"], precision))
    config = settings | {"outputs": folder, "tracking": settings["tracking"] | {"mode": "disabled"}}
    recorded = record.environment.get("overrides", [])
    overrides = [line for line in recorded if not line.startswith(("outputs=", "tracking"))]
    spec = spec_of(config, [*overrides, f"outputs={folder}", "tracking=none"])
    check_same(record, spec.record.identity)
    return execute(spec, console)


def check_same(record: Record, now: dict[str, str]) -> None:
    """Raise ValueError if a run's settings, code, data or precision are not those of the record."""
    changed = [name for name in ("settings", "code", "data", "precision") if now[name] != record.environment[name]]
    if changed:
        raise ValueError(f"{record.folder} cannot be repeated here: its {', '.join(changed)} differ from today's")


def differences(record: Record, again: Record) -> Iterator[str]:
    """The files that are not identical, and the entries of summary.json that differ, except `COSTS`."""
    for name in ("metrics.jsonl", "tables.json"):
        file = record.folder / name
        if file.exists() and file.read_bytes() != (again.folder / name).read_bytes():
            yield f"{name} differs"
    before, after = ({key: value for key, value in r.summary.items() if key not in COSTS} for r in (record, again))
    differing = (key for key in before if to_json(before[key]) != to_json(after.get(key)))  # NaN equals NaN here
    yield from (f"summary.json: {key} differs" for key in differing)


def deviations(record: Record, again: Record) -> Iterator[str]:
    """The final metrics that differ by more than TOLERANCE."""
    after: dict[str, Any] = again.summary["metrics"]
    for name, value in record.summary["metrics"].items():
        difference = abs(after.get(name, math.nan) - value)
        if not (difference <= TOLERANCE * max(1.0, abs(value)) or after.get(name) == value):
            yield f"{name}: {value:.6g} in the record, {after.get(name, math.nan):.6g} now"

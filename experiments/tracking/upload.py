"""Upload runs that were tracked offline."""

import os
import subprocess
import sys
from pathlib import Path

from experiments.config.errors import RecordError
from experiments.records.record import Record
from experiments.tracking.offline import marker, run_files, steps
from experiments.tracking.wandb_run import Tracker, tags_of

EMPTY = 7  # bytes of a log that has only a header, of a run that was killed early
TRUNCATED = "ends with an incomplete record"  # W&B's message for the log of a killed run; the rest is uploaded
TO_SET = "set WANDB_API_KEY (WANDB_BASE_URL for your own server, WANDB_ENTITY for a team) and run `make sync` again"


def identifier_of(log: Path) -> str:
    """The id of a log's run."""
    return log.stem.removeprefix("run-")


def logs_by_run(outputs: str) -> dict[str, list[Path]]:
    """The logs that are not yet uploaded, by run id and in the order of their steps."""
    found: dict[str, list[Path]] = {}
    for log in run_files(outputs):
        if log.stat().st_size > EMPTY and not marker(log).exists():
            found.setdefault(identifier_of(log), []).append(log)
    return {identifier: in_order(logs) if len(logs) > 1 else logs for identifier, logs in found.items()}


def in_order(logs: list[Path]) -> list[Path]:
    """Sort a run's logs by their steps, as the clock in their names may have been set back. Logs without rows keep
    their positions."""
    found = {log: steps(log) for log in logs}
    with_rows = iter(sorted((log for log in logs if found[log]), key=lambda log: found[log]))
    return [next(with_rows) if found[log] else log for log in logs]


def is_offline(log: Path) -> bool:
    """Whether a log was written offline."""
    return log.parent.name.startswith("offline-")


def complete(record: Record, outputs: str) -> None:
    """Upload what W&B lacks of a finished run. W&B's own client would upload everything again."""
    config = record.config | {"outputs": outputs, "tracking": record.config["tracking"] | {"mode": "online"}}
    Tracker(config, record.id, tags_of(record.environment.get("overrides", []))).log_again(record)


def is_locked(record: Record) -> bool:
    """Whether a process is executing this run."""
    try:
        with record.locked():
            return False
    except RecordError:
        return True


def upload(logs: list[Path]) -> dict[str, str]:
    """Upload logs, at most one per run, with W&B's own client; returns error messages by run id.

    The client always exits with 0, and creates a marker next to every log that it uploaded completely. It would upload
    the truncated log of a killed run again and again, so we create that marker. If it cannot read one log it stops, so
    the others are retried without it.
    """
    if not logs:
        return {}
    team = os.environ.get("WANDB_ENTITY")  # `wandb sync` ignores it
    command = [sys.executable, "-m", "wandb", "sync", *(["--entity", team] if team else []), *map(str, logs)]
    environment = os.environ | {"WANDB_SILENT": "false"}
    output = subprocess.run(command, capture_output=True, text=True, check=False, env=environment).stderr.splitlines()
    errors = [line.split("ERROR", 1)[1].strip() for line in output if "ERROR" in line]
    own = {log: [error for error in errors if log.parent.name in error] for log in logs}
    for log in logs:
        if any(TRUNCATED in error for error in own[log]):
            marker(log).touch()
    remaining = [log for log in logs if not marker(log).exists()]
    failed = {identifier_of(log): own[log][-1] for log in remaining if own[log]}
    others = [log for log in remaining if not own[log]]
    if failed:
        return failed | upload(others)
    reason = [*errors, *output[-1:], "no answer"][0]
    return {identifier_of(log): reason for log in others}

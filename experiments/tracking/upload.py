"""The upload of what was tracked offline."""

import os
import subprocess
import sys
from pathlib import Path

from experiments.config.errors import RecordError
from experiments.records.record import Record
from experiments.tracking.offline import marker, run_files, steps
from experiments.tracking.wandb_run import Tracker, tags_of

EMPTY = 7  # bytes of a log with nothing in it but its header, of a run that was killed early
CUT = "ends with an incomplete record"  # what W&B says of the log of a run that was killed; it has sent the rest
TO_SET = (
    "set WANDB_API_KEY, WANDB_BASE_URL for a server of your own and WANDB_ENTITY for a team, then `make sync` again"
)


def identifier_of(log: Path) -> str:
    """The id of the run that a log is of."""
    return log.stem.removeprefix("run-")


def logs_by_run(outputs: str) -> dict[str, list[Path]]:
    """The logs that are still to be uploaded, by the id of their run, in the order they were written."""
    found: dict[str, list[Path]] = {}
    for log in run_files(outputs):
        if log.stat().st_size > EMPTY and not marker(log).exists():
            found.setdefault(identifier_of(log), []).append(log)
    return {identifier: in_order(logs) if len(logs) > 1 else logs for identifier, logs in found.items()}


def in_order(logs: list[Path]) -> list[Path]:
    """The logs of a run with rows in the order of their steps: the clock that W&B names them by may have been set back.
    Those without stay in their places."""
    held = {log: steps(log) for log in logs}
    with_rows = iter(sorted((log for log in logs if held[log]), key=lambda log: held[log]))
    return [next(with_rows) if held[log] else log for log in logs]


def is_offline(log: Path) -> bool:
    """Whether a log is of a run, or a piece of one, that was tracked offline."""
    return log.parent.name.startswith("offline-")


def complete(record: Record, outputs: str) -> None:
    """Send what W&B lacks of a finished run. W&B's own client would send again what is there."""
    config = record.config | {"outputs": outputs, "tracking": record.config["tracking"] | {"mode": "online"}}
    Tracker(config, record.id, tags_of(record.environment.get("overrides", []))).log_again(record)


def is_held(record: Record) -> bool:
    """Whether a process is at this run."""
    try:
        with record.locked():
            return False
    except RecordError:
        return True


def upload(logs: list[Path]) -> dict[str, str]:
    """Upload logs, each of another run, by W&B's own client; returns what went wrong, by the id of the run.

    W&B ends with 0 whatever happens, and leaves its marker beside a log that went up whole. The log of a run that was
    killed is cut off, and would be sent again and again: it gets its marker from us, when all that it has is there. One
    that cannot be read keeps W&B from all others of the call: they are tried again without it.
    """
    if not logs:
        return {}
    team = os.environ.get("WANDB_ENTITY")  # which W&B itself heeds when it begins a run, and not here
    command = [sys.executable, "-m", "wandb", "sync", *(["--entity", team] if team else []), *map(str, logs)]
    told = os.environ | {"WANDB_SILENT": "false"}
    shown = subprocess.run(command, capture_output=True, text=True, check=False, env=told).stderr.splitlines()
    errors = [line.split("ERROR", 1)[1].strip() for line in shown if "ERROR" in line]
    own = {log: [error for error in errors if log.parent.name in error] for log in logs}
    for log in logs:
        if any(CUT in error for error in own[log]):
            marker(log).touch()
    left = [log for log in logs if not marker(log).exists()]
    failed = {identifier_of(log): own[log][-1] for log in left if own[log]}
    others = [log for log in left if not own[log]]
    if failed:
        return failed | upload(others)
    reason = [*errors, *shown[-1:], "no answer"][0]
    return {identifier_of(log): reason for log in others}

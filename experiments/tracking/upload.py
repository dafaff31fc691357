"""Upload records: W&B's server is asked what it has of every run, and gets the rest from the run's record.

A record knows each row and its step, and W&B's server the last step that arrived. So an upload that was stopped or
killed, on this machine or on another, is continued and not repeated.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import wandb
from filelock import FileLock, Timeout

from experiments.config.errors import RecordError
from experiments.recording.record import Record
from experiments.tracking.offline import run_files
from experiments.tracking.switches import tracking_now
from experiments.tracking.wandb_run import ARTIFACTS, Tracker, final_values, results_of, tags_of

PAGE = 100  # runs that W&B's server is asked for at a time
TO_SET = "set WANDB_API_KEY (WANDB_BASE_URL for your own server, WANDB_ENTITY for a team) and run `make sync` again"

Project = tuple[str, str]  # entity and project


@contextmanager
def upload_lock(outputs: str) -> Iterator[None]:
    """Let no other process upload from `outputs`. Raises RecordError if one does."""
    folder = Path(outputs) / "wandb"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / "sync.lock", timeout=0):
            yield
    except Timeout as error:
        raise RecordError(f"another `make sync` uploads from {outputs}: wait for it") from error


def project_of(tracking: dict[str, Any]) -> Project:
    """Where a run goes with these settings of `tracking`."""
    return tracking["entity"] or default_entity(), tracking["project"]


@cache
def default_entity() -> str:
    """The user's own, or the team that the account has as its default."""
    return str(wandb.Api().default_entity)


def runs_at(place: Project, identifiers: Sequence[str]) -> dict[str, Any]:
    """What W&B's server has of these runs, by id: wandb.apis.public.Run with state, history_line_count and summary."""
    found: dict[str, Any] = {}
    with TemporaryDirectory() as folder, environment(WANDB_DIR=folder):  # W&B makes a folder for each run
        for start in range(0, len(identifiers), PAGE):
            wanted = {"name": {"$in": [*identifiers[start : start + PAGE]]}}
            try:
                found |= {run.id: run for run in wandb.Api().runs("/".join(place), wanted, per_page=PAGE, lazy=False)}
            except ValueError:  # no such project yet
                return {}
    return found


@contextmanager
def environment(**values: str) -> Iterator[None]:
    """Set environment variables for a while."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def steps_of(record: Record) -> set[int]:
    """The steps that W&B has a row for once it has the whole record."""
    steps = {row["step"] for row in record.metrics()} if record.metrics_file.exists() else set[int]()
    return steps | {max([*steps, record.summary["steps"]])} if record.finished else steps


def lacks(record: Record, run: Any) -> bool:
    """Whether W&B's server lacks a part of a record. run: what the server has, None if nothing."""
    rows = steps_of(record)
    if run is None or run.history_line_count < len(rows):
        return run is not None or bool(rows)
    if not record.finished:
        return False
    tables = {name for name, rows in record.read("tables.json").items() if rows}
    linked = {ARTIFACTS} if record.config["tracking"].get(ARTIFACTS, "none") != "none" else set[str]()
    needed = {*final_values(record.summary), *tables, *linked}
    return run.state != "finished" or not needed <= run.summary_metrics.keys()


def surplus(record: Record, run: Any) -> int:
    """How many rows W&B's server has more than a finished record: an older version of this program could upload them
    twice. An unfinished run computes rows after its checkpoint again, so W&B may be ahead of it."""
    return max(0, run.history_line_count - len(steps_of(record))) if run and record.finished else 0


def send(record: Record, outputs: str, place: Project) -> str | None:
    """Send W&B what it lacks of a record; returns why a part was not sent, None if all was. Raises HeldError if the run
    goes on meanwhile."""
    entity, project = place
    tracking = record.config["tracking"] | {"mode": "online", "entity": entity, "project": project}
    with record.locked():
        config = record.config | {"outputs": outputs, "tracking": tracking}
        tracker = Tracker(config, record, tags_of(record.environment.get("overrides", [])))
        tracker.log_rows(record)
        if record.finished and tracker.mode == "online":
            return tracker.close(*results_of(record))
        tracker.send()
        tracker.abandon()
        return None if tracker.mode == "online" else "W&B could not be reached or refused it"


def by_project(records: Sequence[Record]) -> dict[Project, list[Record]]:
    """Records by where they go."""
    found: dict[Project, list[Record]] = {}
    for record in records:
        found.setdefault(project_of(tracking_now(record)), []).append(record)
    return found


def logs_without_record(outputs: str, known: set[str]) -> list[Path]:
    """The folders of W&B's logs whose runs have no record and that `wandb sync` has not uploaded."""
    logs = [log for log in run_files(outputs) if not log.with_suffix(".wandb.synced").exists()]
    return [log.parent for log in logs if log.stem.removeprefix("run-") not in known]

"""The run folder: the record of one run, written so that whatever is read from it is whole."""

import contextlib
import hashlib
import json
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from tasks.data.source import write_atomically

# What a run's numbers do not depend on.
INCIDENTAL = {"outputs", "cache", "threads", "tracking"}
YAML = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the one in C is ten times as fast


class RecordError(RuntimeError):
    """A record that cannot be used; the message says which and what to do."""


def run_id(config: dict[str, Any], data_fingerprint: str, precision: str) -> str:
    """The hash of all that determines a run's numbers: its configuration, its data's contents, its precision."""

    def essential(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: essential(value) for key, value in node.items() if key not in ("cache", "path")}
        return [essential(value) for value in node] if isinstance(node, list) else node

    kept = {key: essential(value) for key, value in config.items() if key not in INCIDENTAL}
    kept["training"] = {
        key: value for key, value in kept["training"].items() if key not in ("checkpoint_every", "precision")
    }
    text = json.dumps([kept, data_fingerprint, precision], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def to_json(value: Any) -> bytes:
    """A value as the bytes of a JSON file."""
    return (json.dumps(value, indent=2, sort_keys=True) + "\n").encode()


@dataclass(frozen=True)
class Record:
    """One run folder. Finished means that status.json says so; it is written last, by rename."""

    folder: Path

    @property
    def id(self) -> str:
        return self.folder.name

    @property
    def metrics_file(self) -> Path:
        return self.folder / "metrics.jsonl"

    @property
    def checkpoint_file(self) -> Path:
        return self.folder / "checkpoint.safetensors"

    def read(self, name: str) -> Any:
        """The contents of a file of the record, None if it is not there. Raises RecordError if it is damaged."""
        file = self.folder / name
        try:
            text = file.read_text(encoding="utf-8")
            return yaml.load(text, Loader=YAML) if name.endswith(".yaml") else json.loads(text)
        except FileNotFoundError:
            return None
        except (ValueError, yaml.YAMLError) as error:
            raise RecordError(f"{file} is damaged ({str(error).splitlines()[0]}): remove {self.folder}") from error

    @property
    def status(self) -> str:
        return (self.read("status.json") or {}).get("status", "new")

    @property
    def finished(self) -> bool:
        return self.status == "finished"

    @cached_property
    def config(self) -> dict[str, Any]:
        return self.read("config.yaml")

    @cached_property
    def summary(self) -> dict[str, Any]:
        return self.read("summary.json")

    @cached_property
    def environment(self) -> dict[str, Any]:
        return self.read("environment.json")

    def metrics(self) -> list[dict[str, Any]]:
        """The metrics by step, a row for every line."""
        return [json.loads(line) for line in self.metrics_file.read_text().splitlines()]

    def begin(self, config: dict[str, Any], environment: dict[str, Any]) -> None:
        """Write down what is about to run."""
        write_atomically(self.folder / "config.yaml", yaml.safe_dump(config, sort_keys=False).encode())
        write_atomically(self.folder / "environment.json", to_json(environment))
        self.set_status("running")

    def finish(self, summary: dict[str, Any], tables: dict[str, list[dict[str, Any]]]) -> None:
        """Write the results, and last of all that there are any."""
        write_atomically(self.folder / "tables.json", to_json(tables))
        write_atomically(self.folder / "summary.json", to_json(summary))
        self.set_status("finished")

    def set_status(self, status: str, error: BaseException | None = None) -> None:
        """running, finished, failed or interrupted; with the traceback of what it failed of."""
        content: dict[str, Any] = {"status": status, "time": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
        if error is not None:
            content["traceback"] = "".join(traceback.format_exception(error))
        write_atomically(self.folder / "status.json", to_json(content))

    @contextlib.contextmanager
    def locked(self, wait: bool = False) -> Iterator[None]:
        """Hold the run for this process. The lock dies with its holder. Where another has it: wait, or RecordError."""
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.folder / "lock")
        try:
            lock.acquire(timeout=-1 if wait else 0)
        except Timeout as error:
            raise RecordError(f"{self.folder} is being run by another process") from error
        try:
            yield
        finally:
            lock.release()


def records(outputs: str | Path, experiment: str | None = None) -> list[Record]:
    """All records under `outputs`, of one experiment or of all, finished or not."""
    pattern = f"{experiment or '*'}/*/status.json"
    return [Record(file.parent) for file in sorted((Path(outputs) / "runs").glob(pattern))]


def check_same_data(outputs: str | Path, config: dict[str, Any], data_fingerprint: str) -> None:
    """Raise RecordError if finished runs of this experiment, source and scale were made from other contents."""
    for record in records(outputs, config["name"]):
        if not record.finished or record.config["scale"] != config["scale"]:
            continue
        same_source = {**record.config["data"], "path": None} == {**config["data"], "path": None}
        if same_source and record.environment["data"] != data_fingerprint:
            raise RecordError(
                f"the data has the fingerprint {data_fingerprint} and the finished run {record.folder} was made from "
                f"{record.environment['data']}: they cannot be compared. Use outputs=<another folder>, or remove the "
                "old runs"
            )

"""The run folder: the record of one run. Files are written atomically, so that a reader never sees a part of one."""

import contextlib
import json
import os
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

from experiments.config.errors import HeldError, RecordError
from experiments.recording.code import TRAINING, code_fingerprint
from experiments.recording.contents import (
    CONFIG,
    ENDED,
    FILES,
    FORMAT,
    METRICS,
    NEWER,
    STATUS,
    Contents,
    digest_of,
    parsed,
    to_json,
    to_yaml,
)
from experiments.recording.look import contents_now, known
from tasks.data.source import write_atomically

# Settings that do not affect a run's numbers.
INCIDENTAL = {"outputs", "cache", "threads", "plugins", "tracking", "tuning"}


def identity(config: dict[str, Any], data_fingerprint: str, precision: str, entry: str = TRAINING) -> dict[str, str]:
    """Everything that determines a run's numbers: settings, scale, fingerprints of data and code, precision, and the
    versions of the libraries that compute.

    entry: the function that executes the run, as a dotted path.
    """
    return {
        "settings": digest_of_settings(essential_settings(config)),
        "scale": config["scale"],
        "data": data_fingerprint,
        "precision": precision,
        "code": code_fingerprint(config, entry),
        **computing_libraries(),
    }


def essential_settings(config: dict[str, Any]) -> str:
    """The settings that determine a run's numbers, as JSON."""

    def essential(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: essential(value) for key, value in node.items() if key not in ("cache", "path")}
        return [essential(value) for value in node] if isinstance(node, list) else node

    settings = {key: essential(value) for key, value in config.items() if key not in INCIDENTAL}
    excluded = ("checkpoint_every", "precision", "shard", "recompute")
    settings["training"] = {key: value for key, value in settings["training"].items() if key not in excluded}
    return json.dumps(settings, sort_keys=True)


def digest_of_settings(settings: str) -> str:
    """The hash of settings, 16 hexadecimal digits."""
    return digest_of(settings.encode())[:16]


@cache
def computing_libraries() -> dict[str, str]:
    """The versions of the libraries that determine a run's numbers."""
    return {name: version(name) for name in ("torch", "numpy", "tokenizers", "transformers")}


def run_id(identity: dict[str, str]) -> str:
    """A run's id: the hash of its identity, 12 hexadecimal digits."""
    return digest_of(json.dumps(identity, sort_keys=True).encode())[:12]


@dataclass(frozen=True)
class Record:
    """One run folder. A run is finished if status.json says so, which is written last and by rename, and the other
    files have not changed since.

    identity: see `identity`; empty for a record that was found on disk. whole: whether a record whose config.yaml is
    damaged is damaged; if not, its `config` raises RecordError.
    """

    folder: Path
    identity: dict[str, str] = field(default_factory=dict, compare=False)
    whole: bool = field(default=True, compare=False)

    @property
    def id(self) -> str:
        return self.folder.name

    @property
    def metrics_file(self) -> Path:
        return self.folder / METRICS

    @property
    def checkpoint_file(self) -> Path:
        return self.folder / "checkpoint.safetensors"

    def read(self, name: str) -> Any:
        """What a file of the record holds, None if it does not exist. Raises RecordError if it is damaged."""
        try:
            return parsed(name, (self.folder / name).read_bytes())
        except FileNotFoundError:
            return None
        except (ValueError, OSError) as error:
            raise RecordError(f"{self.folder}: {error}: remove this folder") from error

    @property
    def contents(self) -> Contents:
        """The status, and what a finished record holds."""
        return contents_now(self.folder, self.whole)

    @property
    def status(self) -> str:
        """new, running, interrupted, failed, finished, diverged, or damaged (see `damage`)."""
        return self.contents.status

    @property
    def damage(self) -> str:
        """Why the record cannot be read, "" if it can."""
        return self.contents.damage

    @property
    def finished(self) -> bool:
        """Whether the run has ended with a result, even if it is that the run diverged."""
        return self.status in ENDED

    @property
    def diverged(self) -> bool:
        """Whether the run ended because its loss or a metric was no finite number."""
        return self.status == "diverged"

    @cached_property
    def config(self) -> dict[str, Any]:
        return self.contents.config or known(self.folder, CONFIG, lambda: self.read(CONFIG))

    @cached_property
    def summary(self) -> dict[str, Any]:
        return self.contents.summary or self.read("summary.json")

    @cached_property
    def environment(self) -> dict[str, Any]:
        return self.contents.environment or self.read("environment.json")

    @contextlib.contextmanager
    def rows(self, size: int) -> Iterator[BinaryIO]:
        """Open metrics.jsonl for appending, cut to its first `size` bytes. Raises RecordError if it is shorter."""
        with open(self.metrics_file, "ab") as file:
            if file.tell() < size:
                raise RecordError(
                    f"{self.metrics_file} has {file.tell()} bytes, fewer than the {size} at the checkpoint: "
                    f"remove {self.folder}"
                )
            file.truncate(size)
            yield file

    def metrics(self) -> list[dict[str, Any]]:
        """The rows of metrics.jsonl, none if there is no such file. Raises RecordError if it is damaged."""
        return self.read(METRICS) or []

    def begin(self, config: dict[str, Any], environment: dict[str, Any]) -> None:
        """Write the configuration and environment, and set the status to running. A damaged record starts afresh.

        Raises RecordError if a newer version of this program wrote the record.
        """
        if self.status == "damaged":
            if self.damage.startswith(NEWER):
                raise RecordError(f"{self.folder} was written by a {NEWER}: use another outputs folder")
            for file in (self.checkpoint_file, self.metrics_file):
                file.unlink(missing_ok=True)
        for unfinished in self.folder.glob(".*"):  # temporary files of a killed process
            unfinished.unlink()
        write_atomically(self.folder / CONFIG, to_yaml(config))
        write_atomically(self.folder / "environment.json", to_json(environment))
        self.set_status("running")

    def finish(self, summary: dict[str, Any], tables: dict[str, list[dict[str, Any]]]) -> None:
        """Write the results and, last, the status: diverged if the summary says so, else finished."""
        write_atomically(self.folder / "tables.json", to_json(tables))
        write_atomically(self.folder / "summary.json", to_json(summary))
        self.set_status("diverged" if "diverged" in summary else "finished")

    def set_status(self, status: str, error: BaseException | None = None) -> None:
        """Write status.json. status: running, failed, interrupted or one of ENDED. error: its traceback is stored."""
        now = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        content: dict[str, Any] = {"status": status, "format": FORMAT, "run": self.id, "time": now}
        if status in ENDED:
            files = [self.folder / name for name in FILES if (self.folder / name).exists()]
            content["digests"] = {file.name: digest_of(file.read_bytes()) for file in files}
        if error is not None:
            content["traceback"] = "".join(traceback.format_exception(error))
        write_atomically(self.folder / STATUS, to_json(content))

    @contextlib.contextmanager
    def locked(self, wait: bool = False) -> Iterator[None]:
        """Lock the run for this process; the system releases the lock if the process dies.

        wait: until another process releases the lock. Raises HeldError if not `wait` and another process holds it.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.folder / "lock")
        try:
            lock.acquire(timeout=-1 if wait else 0)
        except Timeout as error:
            raise HeldError(f"{self.folder} is being run by another process") from error
        try:
            yield
        finally:
            lock.release()


def records(outputs: str | Path, experiment: str | None = None) -> list[Record]:
    """All records under `outputs`, finished or not: of one experiment, or of all if None.

    Of those of all experiments, config.yaml is only parsed when it is read.
    """
    folders = sorted((Path(outputs) / "runs").glob(f"{experiment or '*'}/*"))
    return [Record(folder, whole=experiment is not None) for folder in folders if os.path.lexists(folder / STATUS)]


def check_same_data(outputs: str | Path, config: dict[str, Any], data_fingerprint: str) -> None:
    """Raise RecordError if a finished run of the same experiment, data source and scale used different data."""
    for record in records(outputs, config["name"]):
        if not record.finished or record.environment["data"] == data_fingerprint:
            continue  # without reading its configuration, which is slower
        same_source = {**record.config["data"], "path": None} == {**config["data"], "path": None}
        if same_source and record.config["scale"] == config["scale"]:
            raise RecordError(
                f"the data has the fingerprint {data_fingerprint}, but the finished run {record.folder} used "
                f"{record.environment['data']}: they cannot be compared. Use outputs=<another folder>, or remove the "
                "old runs"
            )

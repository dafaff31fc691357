"""The run folder: the record of one run, written so that whatever is read from it is whole."""

import contextlib
import hashlib
import json
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache, cached_property, lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO

import yaml
from filelock import FileLock, Timeout

from experiments.config.errors import HeldError, RecordError
from experiments.records.code import code_fingerprint
from tasks.data.source import write_atomically

# What a run's numbers do not depend on.
INCIDENTAL = {"outputs", "cache", "threads", "tracking"}
FILES = ("config.yaml", "environment.json", "metrics.jsonl", "summary.json", "tables.json")
NEWER = "newer version of this program"
FORMAT = 1  # of what is written here; a program that reads an older one only cannot read it
YAML = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the one in C is ten times as fast


def identity(config: dict[str, Any], data_fingerprint: str, precision: str) -> dict[str, str]:
    """All that determines a run's numbers: its settings, its data's contents, its precision, our code that it reaches
    and the libraries that compute."""

    def essential(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: essential(value) for key, value in node.items() if key not in ("cache", "path")}
        return [essential(value) for value in node] if isinstance(node, list) else node

    kept = {key: essential(value) for key, value in config.items() if key not in INCIDENTAL}
    kept["training"] = {
        key: value for key, value in kept["training"].items() if key not in ("checkpoint_every", "precision", "shard")
    }
    return {
        "settings": digest_of(json.dumps(kept, sort_keys=True).encode())[:16],
        "scale": config["scale"],
        "data": data_fingerprint,
        "precision": precision,
        "code": code_fingerprint(config),
        **computing_libraries(),
    }


@cache
def computing_libraries() -> dict[str, str]:
    """The versions of the libraries that numbers come from."""
    return {name: version(name) for name in ("torch", "numpy", "tokenizers", "transformers")}


def run_id(identity: dict[str, str]) -> str:
    """The hash of what determines a run's numbers."""
    return digest_of(json.dumps(identity, sort_keys=True).encode())[:12]


def digest_of(content: bytes) -> str:
    """The SHA-256 of some bytes."""
    return hashlib.sha256(content).hexdigest()


def written(file: Path) -> int:
    """When a file was written, in nanoseconds; 0 if it is not there."""
    try:
        return file.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


@lru_cache(maxsize=4096)
def damage(folder: Path, times: tuple[int, ...]) -> str:
    """What keeps a record whose files were written at these times from being read, nothing if it can be."""
    try:
        status = json.loads((folder / "status.json").read_bytes())
        if status["format"] > FORMAT:
            return f"{NEWER} (format {status['format']})"
        for name, digest in status.get("digests", {}).items():
            if digest_of((folder / name).read_bytes()) != digest:
                return f"{name} is not as it was written"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except (ValueError, KeyError, TypeError):
        return "status.json is cut short or of another format"
    return ""


def to_json(value: Any) -> bytes:
    """A value as the bytes of a JSON file."""
    return (json.dumps(value, indent=2, sort_keys=True) + "\n").encode()


@dataclass(frozen=True)
class Record:
    """One run folder. Finished means that status.json says so, which is written last, by rename, and that the other
    files are as they were then.

    identity: what determines its numbers, where it is known before there is a record.
    """

    folder: Path
    identity: dict[str, str] = field(default_factory=dict, compare=False)

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
        """new, running, interrupted, failed, finished, or damaged: finished once, and not as it was written."""
        if not (self.folder / "status.json").exists():
            return "new"
        return "damaged" if self.damage else self.read("status.json")["status"]

    @property
    def damage(self) -> str:
        """What keeps the record from being read, nothing if it can be."""
        return damage(self.folder, tuple(map(written, (self.folder / name for name in ("status.json", *FILES)))))

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

    @contextlib.contextmanager
    def rows(self, size: int) -> Iterator[BinaryIO]:
        """The file of metrics, to add rows to after its first so many bytes; what came after them is dropped."""
        with open(self.metrics_file, "ab") as file:
            file.truncate(size)
            yield file

    def metrics(self) -> list[dict[str, Any]]:
        """The metrics by step, a row for every line."""
        return [json.loads(line) for line in self.metrics_file.read_text().splitlines()]

    def begin(self, config: dict[str, Any], environment: dict[str, Any]) -> None:
        """Write down what is about to run. What is damaged is run from the start.

        Raises RecordError if a newer version of this program wrote the record.
        """
        if self.status == "damaged":
            if self.damage.startswith(NEWER):
                raise RecordError(f"{self.folder} was written by a {NEWER}: use another outputs folder")
            for file in (self.checkpoint_file, self.metrics_file):
                file.unlink(missing_ok=True)
        for unfinished in self.folder.glob(".*"):  # what a killed process was writing, before its rename
            unfinished.unlink()
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
        content: dict[str, Any] = {"status": status, "format": FORMAT, "time": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
        if status == "finished":
            there = [self.folder / name for name in FILES if (self.folder / name).exists()]
            content["digests"] = {file.name: digest_of(file.read_bytes()) for file in there}
        if error is not None:
            content["traceback"] = "".join(traceback.format_exception(error))
        write_atomically(self.folder / "status.json", to_json(content))

    @contextlib.contextmanager
    def locked(self, wait: bool = False) -> Iterator[None]:
        """Hold the run for this process. The lock dies with its holder. Where another has it: wait, or HeldError."""
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
    """All records under `outputs`, of one experiment or of all, finished or not."""
    pattern = f"{experiment or '*'}/*/status.json"
    return [Record(file.parent) for file in sorted((Path(outputs) / "runs").glob(pattern))]


def check_same_data(outputs: str | Path, config: dict[str, Any], data_fingerprint: str) -> None:
    """Raise RecordError if finished runs of this experiment, source and scale were made from other contents."""
    for record in records(outputs, config["name"]):
        if not record.finished or record.environment["data"] == data_fingerprint:
            continue  # without a look at its configuration, which takes longer to read
        same_source = {**record.config["data"], "path": None} == {**config["data"], "path": None}
        if same_source and record.config["scale"] == config["scale"]:
            raise RecordError(
                f"the data has the fingerprint {data_fingerprint} and the finished run {record.folder} was made from "
                f"{record.environment['data']}: they cannot be compared. Use outputs=<another folder>, or remove the "
                "old runs"
            )

"""What the files of a run folder hold, how they are written, and what is wrong with those that hold something else."""

import hashlib
import json
import math
import os
import stat
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, NotRequired

import yaml
from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    JsonValue,
    StrictBool,
    StrictFloat,
    StrictInt,
    TypeAdapter,
    ValidationError,
    with_config,
)
from typing_extensions import TypedDict

ENDED = ("finished", "diverged")  # statuses of a run that has a result
NEWER = "newer version of this program"
FORMAT = 1  # version of the record format; increase it when older programs cannot read new records
YAML = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the C loader is ten times as fast
LONG, DEEPEST = 10_000, 100  # bytes of YAML from which on its depth is checked, and the most levels that it may have
UNREADABLE = (ValueError, yaml.YAMLError, RecursionError, LookupError, AttributeError)  # the last two are PyYAML's

# Numbers that JSON does not have are written as these texts.
NotFinite = Annotated[Literal["NaN", "Infinity", "-Infinity"], AfterValidator(float)]
Integer = Annotated[StrictInt, Field(ge=-(2**63), lt=2**63)]
Count = Annotated[StrictInt, Field(ge=0, lt=2**63)]
Number = Annotated[Integer | StrictFloat | NotFinite, Field(union_mode="left_to_right")]
Cell = Annotated[Number | StrictBool | str | None, Field(union_mode="left_to_right")]
Step = Annotated[str, Field(pattern=r"^[0-9]{1,18}$")]
Version = Annotated[str, Field(max_length=100)]
Json = dict[str, JsonValue]
Metrics = dict[str, Number]
Tables = dict[str, list[dict[str, Cell]]]
MISSING = "is missing"
Stamp = tuple[int, int, int] | str
Stamps = tuple[Stamp, ...]


OPEN = ConfigDict(extra="allow")  # later versions may write more; mypy does not know typed extra items (PEP 728)


@with_config(OPEN)
class Status(TypedDict):
    """status.json. run: the id of the run; digests: of the other files, once it has finished."""

    status: Literal["running", "interrupted", "failed", "finished", "diverged"]
    format: Count
    run: NotRequired[str]
    digests: NotRequired[dict[str, str]]
    traceback: NotRequired[str]


@with_config(OPEN)
class Tracking(TypedDict):
    """The part of a configuration that says where a run is logged."""

    mode: Literal["offline", "online", "disabled"]
    project: str
    entity: str | None


@with_config(OPEN)
class Node(TypedDict):
    """The part of a configuration that an object is built from."""

    _target_: str


@with_config(OPEN)
class Config(TypedDict):
    """config.yaml, as far as all kinds of runs share it. pretrained: the model of an evaluation."""

    name: str
    seed: Count
    scale: str
    outputs: str
    task: Node
    data: Json | None
    tracking: Tracking
    pretrained: NotRequired[str]


@with_config(OPEN)
class Environment(TypedDict):
    """environment.json: the identity of the run, and the machine and libraries."""

    settings: str
    scale: str
    data: str
    precision: str
    code: str
    python: Version
    processor: str
    platform: str
    libraries: dict[str, str]
    threads: Count
    processes: Count
    overrides: NotRequired[list[str]]
    start: NotRequired[str | None]


class Summary(TypedDict, extra_items=Number | StrictBool):  # type: ignore[call-arg]
    """summary.json. evaluations: the metrics of each evaluation, by its step; metrics: those of the last one."""

    metrics: Metrics
    evaluations: Annotated[dict[Step, Metrics], Field(min_length=1)]
    parameters: Count
    steps: Count
    seconds: Number


class Row(TypedDict, extra_items=Number):  # type: ignore[call-arg]
    """A line of metrics.jsonl."""

    step: Count


CONFIG = "config.yaml"
METRICS = "metrics.jsonl"  # which measurements do not have, as they do not train
TYPES: dict[str, Any] = {
    "status.json": Status,
    CONFIG: Config,
    "environment.json": Environment,
    METRICS: list[Row],
    "summary.json": Summary,
    "tables.json": Tables,
}
STATUS, *FILES = TYPES
adapter = cache(TypeAdapter)


class Contents(NamedTuple):
    """The status of a record, why it is damaged, and what a finished one holds; other files are too long to keep."""

    status: str
    damage: str = ""
    config: dict[str, Any] | None = None
    environment: dict[str, Any] | None = None
    summary: dict[str, Any] | None = None


def digest_of(content: bytes) -> str:
    """The SHA-256 of `content`, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def stamp(file: str) -> Stamp:
    """What tells whether a file has changed: time in nanoseconds, size, inode; or in words why it cannot be read."""
    try:
        found = os.stat(file)
    except FileNotFoundError:
        return "is a broken link" if os.path.islink(file) else MISSING
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    if not stat.S_ISREG(found.st_mode):
        return "is not a file"
    return found.st_mtime_ns, found.st_size, found.st_ino


def stamps_of(folder: Path) -> Stamps:
    """The stamps of the files of a record."""
    return tuple(stamp(os.path.join(folder, name)) for name in TYPES)


def contents(folder: Path, stamps: Stamps, whole: bool) -> Contents:
    """The contents of a record, whose files have these stamps. whole: whether config.yaml, which takes a millisecond to
    parse, is parsed too."""
    states = dict(zip(TYPES, stamps))
    if states[STATUS] == MISSING:
        return Contents("new")
    try:
        data = content(folder / STATUS, states[STATUS])
        check_format(data)
        status = parsed(STATUS, data)
        if status.get("run", folder.name) != folder.name:
            raise ValueError(f"status.json is that of run {status['run']}")
        if status["status"] not in ENDED:
            return Contents(status["status"])
        digests, found = status.get("digests", {}), dict[str, Any]()
        for name in FILES:
            if name == METRICS and states[name] == MISSING and name not in digests:
                continue
            data = content(folder / name, states[name])
            if name not in digests:
                raise ValueError(f"status.json has no digest of {name}")
            if digest_of(data) != digests[name]:
                raise ValueError(f"{name} was changed after the run finished")
            if whole or name != CONFIG:
                found[name] = parsed(name, data)
    except (ValueError, OSError) as error:
        return Contents("damaged", str(error))
    kept = (found.get(name) for name in (CONFIG, "environment.json", "summary.json"))
    return Contents(status["status"], "", *kept)


def check_format(status: bytes) -> None:
    """Raise ValueError if a newer version of this program wrote a status.json."""
    version = parsed_as(Json, STATUS, status).get("format")
    if isinstance(version, int) and version > FORMAT:
        raise ValueError(f"{NEWER} (format {version})")


def content(file: Path, state: Stamp) -> bytes:
    """The bytes of a file. Raises ValueError if its stamp says that it cannot be read, and OSError."""
    if isinstance(state, str):
        raise ValueError(f"{file.name} {state}")
    return file.read_bytes()


def parsed(name: str, data: bytes) -> Any:
    """What a file of this name holds. Raises ValueError, with a message of one line, if it is damaged."""
    return parsed_as(TYPES[name], name, data)


def parsed_as(kind: Any, name: str, data: bytes) -> Any:
    """What a file holds if it is of this type. Raises ValueError, with a message of one line, if it is not."""
    try:
        if name == CONFIG:
            check_nodes(data)
            return adapter(kind).validate_python(adapter(Json).validate_python(yaml.load(data, Loader=YAML)))
        return adapter(kind).validate_json(b"[" + b",".join(data.splitlines()) + b"]" if name == METRICS else data)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(map(str, problem["loc"]))
        raise ValueError(f"{name} is damaged ({f'{place}: ' if place else ''}{problem['msg']})") from error
    except UNREADABLE as error:
        raise ValueError(f"{name} is damaged ({' '.join(str(error).split()) or type(error).__name__})") from error


def check_nodes(data: bytes) -> None:
    """Raise ValueError for YAML so deep that loading it would end the process, or with nodes that stand for others,
    whose copies could fill the memory."""
    depth = 0
    for event in yaml.parse(data, Loader=YAML) if len(data) > LONG or b"*" in data else ():
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise ValueError("it is nested too deeply")
        if isinstance(event, yaml.AliasEvent):
            raise ValueError("it has aliases, which no record has")


class Dumper(yaml.SafeDumper):
    """Writes what occurs twice twice."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def to_yaml(config: dict[str, Any]) -> bytes:
    """Encode a configuration as a YAML file, keys in their order."""
    return yaml.dump(config, Dumper=Dumper, sort_keys=False).encode()


def to_json(value: Any) -> bytes:
    """Encode a value as an indented JSON file with sorted keys."""
    return (json.dumps(without_nan(value), indent=2, sort_keys=True, allow_nan=False) + "\n").encode()


def to_line(row: dict[str, Any]) -> bytes:
    """Encode a row as a line of metrics.jsonl."""
    return json.dumps(without_nan(row), allow_nan=False).encode() + b"\n"


def without_nan(node: Any) -> Any:
    """Plain data with the numbers that JSON does not have as texts: NaN, Infinity and -Infinity."""
    if isinstance(node, dict):
        return {key: without_nan(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [without_nan(value) for value in node]
    if isinstance(node, float) and not math.isfinite(node):
        return "NaN" if math.isnan(node) else "Infinity" if node > 0 else "-Infinity"
    return node

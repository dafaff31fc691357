"""One record's problem is that record's: it is left out with its reason, and the ledger goes on."""

import itertools
import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from experiments.ledger.claims import claims
from experiments.ledger.evidence import Evidence
from experiments.ledger.excluded_records import excluded_records
from experiments.ledger.verdicts import judge, judge_all
from experiments.recording.contents import FILES, METRICS, STATUS, TYPES, to_json, to_line
from experiments.recording.record import Record, records
from experiments.report.export.records_csv import records_csv
from experiments.report.page.files import write_report
from experiments.report.page.run_comparison import comparable_runs
from experiments.sweeps.grid import Job
from tests.conftest import CONFIGURATION, ENVIRONMENT
from tests.made_up import made_up

EXPERIMENT, METRIC = "feedforward_lm", "nonoverlapping/loss"
CLAIM = next(claim for claim in claims() if claim.id == "S8")
DEEP = 100_000

Damage = Callable[[Record], None]


def content(name: str, seed: int) -> Any:
    """What a sound record has in a file."""
    metrics = {METRIC: 3.0 + seed, "accuracy": 90.0}
    return {
        "config.yaml": CONFIGURATION | {"name": EXPERIMENT, "seed": seed},
        "environment.json": ENVIRONMENT,
        METRICS: [{"step": step, "train/loss": 4.0, **metrics} for step in (1, 2, 3)],
        "summary.json": {"metrics": metrics, "evaluations": {"1": metrics, "4": metrics}, "parameters": 9, "steps": 4}
        | {"seconds": 1.0, "tokens": 512},
        "tables.json": {"protocol": [{"protocol": "streaming", "tokens": 9}]},
    }[name]


def encoded(name: str, value: Any) -> bytes:
    """A value as the text of a file."""
    if name == "config.yaml":
        return yaml.safe_dump(value).encode()
    if name == METRICS and isinstance(value, list):
        return "\n".join(map(json.dumps, value)).encode()
    return json.dumps(value).encode()


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of four finished records of one experiment, two feed-forwards on two seeds."""
    outputs = tmp_path_factory.mktemp("sound")
    for job, record in ledger(outputs).items():
        record.folder.mkdir(parents=True)
        for name in FILES:
            (record.folder / name).write_bytes(encoded(name, content(name, job.seed)))
        record.set_status("finished")
    return outputs


def ledger(outputs: Path) -> Evidence:
    """The jobs of these records, with their records in another folder."""
    found: Evidence = {}
    for feedforward, seed in itertools.product(("mlp", "glu"), "01"):
        factors = (("feedforward", feedforward), ("activation", "silu"), ("seed", seed))
        job = Job(EXPERIMENT, "laptop", str(outputs), factors)
        found[job] = Record(outputs / "runs" / EXPERIMENT / f"{feedforward}{seed}")
    return found


def copied(sound: Path, outputs: Path) -> Evidence:
    """A copy of these records."""
    shutil.copytree(sound, outputs, dirs_exist_ok=True)
    return ledger(outputs)


def reasons(evidence: Evidence, outputs: Path) -> dict[str, str]:
    """Judge and report the records; why folders are left out."""
    judge(CLAIM, evidence)
    records_csv(evidence)
    comparable_runs(evidence)
    groups = excluded_records(evidence, "laptop", outputs)
    return {folder: group.reason for group in groups for folder in group.folders}


def written(name: str, value: bytes, vouched: bool = True) -> Damage:
    """Write a file and, if `vouched`, its digest."""

    def damage(record: Record) -> None:
        (record.folder / name).write_bytes(value)
        if vouched and name != STATUS:
            record.set_status("finished")

    return damage


def changed_status(**changes: Any) -> Damage:
    def damage(record: Record) -> None:
        status = json.loads((record.folder / STATUS).read_bytes())
        (record.folder / STATUS).write_text(json.dumps({k: v for k, v in (status | changes).items() if v != "gone"}))

    return damage


def as_folder(name: str) -> Damage:
    def damage(record: Record) -> None:
        (record.folder / name).unlink()
        (record.folder / name).mkdir()

    return damage


def as_link_to_itself(name: str) -> Damage:
    def damage(record: Record) -> None:
        (record.folder / name).unlink()
        (record.folder / name).symlink_to(name)

    return damage


def as_pipe(name: str) -> Damage:
    """Reading it would wait for ever."""

    def damage(record: Record) -> None:
        (record.folder / name).unlink()
        os.mkfifo(record.folder / name)

    return damage


def moved(record: Record) -> None:
    """The record of another run under this run's id."""
    other = next(folder for folder in record.folder.parent.iterdir() if folder != record.folder)
    shutil.copytree(other, record.folder, dirs_exist_ok=True)


def members() -> Iterator[tuple[str, Damage]]:
    """Every kind of damage by its name."""
    shapes = {"nothing": b"", "null": b"null", "a text": b'"x"', "a number": b"7", "a list": b"[1]", "a list of lists":
              b"[[{}]]", "an empty object": b"{}", "no text": b"\xff\xfe\x00", "cut short": b'{"metrics": {"a": 1',
              "deep": b"[" * DEEP + b"]" * DEEP, "deep objects": b'{"a":' * DEEP + b"1" + b"}" * DEEP}  # fmt: skip
    for name in TYPES:
        for shape, value in shapes.items():
            if (name, shape) not in ((METRICS, "nothing"), ("tables.json", "an empty object")):  # both are sound
                yield f"{name}: {shape}", written(name, value)
        for kind in (as_folder, as_link_to_itself, as_pipe):
            yield f"{name}: {kind.__name__}", kind(name)
    for name in FILES:
        yield f"{name}: changed", written(name, encoded(name, content(name, 7)) + b" ", vouched=False)
    for name in ("config.yaml", "environment.json", "summary.json"):
        keys = {*TYPES[name].__required_keys__} & {*content(name, 0)}
        for key in sorted(keys):
            without = {each: value for each, value in content(name, 0).items() if each != key}
            yield f"{name}: no {key}", written(name, encoded(name, without))
            for value in ([[]], True):
                yield f"{name}: {key}={value}", written(name, encoded(name, without | {key: value}))
    for key in ("status", "format", "digests"):
        for value in ("gone", None, 3.5, [], "x", {"config.yaml": 3}, {"../../elsewhere": "x"}):
            yield f"{STATUS}: {key}={value}", changed_status(**{key: value})
    yield f"{STATUS}: another run", changed_status(run="another")
    yield "another run", moved
    yield "config.yaml: deep", written("config.yaml", b"- " * DEEP + b"x")
    yield "config.yaml: not so deep", written("config.yaml", b"[" * 4999 + b"]" * 4999)
    doubled = b"".join(b"a%d: &%d [*%d, *%d]\n" % (n, n, n - 1, n - 1) for n in range(1, 40))
    yield "config.yaml: doubles forty times", written("config.yaml", b"a0: &0 [x]\n" + doubled)
    yield "config.yaml: refers to itself", written("config.yaml", b"&all\nname: *all\n")
    yield "config.yaml: python", written("config.yaml", b"!!python/object/apply:os.getcwd []")
    yield (
        "config.yaml: a date",
        written("config.yaml", encoded("config.yaml", content("config.yaml", 0)) + b"x: 2020-01-01"),
    )
    for text in ("!!timestamp x", "!!bool x", "!!int ''", "2020-99-99"):
        yield f"config.yaml: {text}", written("config.yaml", f"name: {text}".encode())


MEMBERS = dict(members())


@pytest.mark.slow
@pytest.mark.parametrize("damage", MEMBERS.values(), ids=MEMBERS)
def test_a_damaged_record_is_left_out_with_its_reason(damage: Damage, sound: Path, tmp_path: Path) -> None:
    evidence = copied(sound, tmp_path)
    damage(next(iter(evidence.values())))
    damaged, *others = evidence.values()
    found = reasons(evidence, tmp_path)
    assert damaged.status == "damaged" and found[str(damaged.folder)] == damaged.damage != ""
    assert len(damaged.damage.splitlines()) == 1
    assert all(other.finished and str(other.folder) not in found for other in others)


def test_a_record_that_lacks_what_a_claim_compares_is_left_out_with_the_metric(sound: Path, tmp_path: Path) -> None:
    evidence = copied(sound, tmp_path)
    assert reasons(evidence, tmp_path) == {}
    record = next(iter(evidence.values()))
    metrics = {"nonoverlapping/los": 3.0}
    summary = content("summary.json", 0) | {"metrics": metrics, "evaluations": {"4": metrics}}
    written("summary.json", to_json(summary))(record)
    assert reasons(ledger(tmp_path), tmp_path) == {str(record.folder): f"no metric {METRIC}, which {CLAIM.id} compares"}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_json_lacks_are_read_as_they_were_written(value: float, sound: Path, tmp_path: Path) -> None:
    for text in (to_json({"a": [value]}), to_line({"step": 1, "a": value})):
        json.loads(text, parse_constant=pytest.fail)
    evidence = copied(sound, tmp_path)
    record = next(iter(evidence.values()))
    record.metrics_file.write_bytes(to_line({"step": 1, "train/loss": value}))
    metrics = {METRIC: value}
    record.finish(content("summary.json", 0) | {"metrics": metrics, "evaluations": {"4": metrics}}, {"t": [metrics]})
    read = Record(record.folder)
    found = [read.metrics()[0]["train/loss"], read.summary["metrics"][METRIC], read.read("tables.json")["t"][0][METRIC]]
    assert read.finished and list(map(str, found)) == 3 * [str(value)]
    assert reasons(evidence, tmp_path) == {}


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from([METRIC, "9"])
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)


def paths(node: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every part of plain data."""
    yield before
    for key, value in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        yield from paths(value, (*before, key))


def replaced(node: Any, path: tuple[Any, ...], value: Any, drop: bool) -> Any:
    """Plain data with another value at a path, or with nothing there."""
    if not path:
        return value
    pairs = dict(node.items() if isinstance(node, dict) else enumerate(node))
    pairs[path[0]] = replaced(pairs[path[0]], path[1:], value, drop)
    if drop and len(path) == 1:
        del pairs[path[0]]
    return pairs if isinstance(node, dict) else [*pairs.values()]


@pytest.mark.slow
@settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_no_record_stops_the_ledger(data: st.DataObject, sound: Path) -> None:
    """Any file of a record has any part replaced or removed, and the record vouches for it."""
    with tempfile.TemporaryDirectory() as folder:
        outputs = Path(folder)
        evidence = copied(sound, outputs)
        record = next(iter(evidence.values()))
        name = data.draw(st.sampled_from([*TYPES]))
        before = json.loads((record.folder / STATUS).read_bytes()) if name == STATUS else content(name, 0)
        path = data.draw(st.sampled_from([*paths(before)]))
        after = encoded(name, replaced(before, path, data.draw(VALUES), data.draw(st.booleans())))
        written(name, after)(record)
        found = reasons(evidence, outputs)
        assert (record.status == "damaged") == bool(record.damage)
        assert record.status != "damaged" or found[str(record.folder)] == record.damage
        assert all(each.finished for each in [*evidence.values()][1:])


@pytest.mark.slow
def test_the_whole_page_is_written_beside_damaged_records(tmp_path: Path) -> None:
    """Each of the records of all experiments is damaged in another way, but for every third."""
    evidence = made_up(tmp_path)
    ways = iter([*MEMBERS.values()][:: max(1, 3 * len(MEMBERS) // (2 * len(evidence)))])
    finished = [record for record in evidence.values() if record.finished]
    for index, record in enumerate(finished):
        if index % 3 and (damage := next(ways, None)):
            damage(record)
    evidence = {job: Record(record.folder) for job, record in evidence.items()}
    excluded = excluded_records(evidence, "laptop", tmp_path)
    page = write_report(judge_all(evidence), evidence, "laptop", tmp_path, excluded).read_text()
    damaged = [record for record in evidence.values() if record.status == "damaged"]
    assert len(damaged) > len(finished) / 2
    assert {str(record.folder) for record in damaged} <= {folder for group in excluded for folder in group.folders}
    assert "Excluded records" in page and len(records(tmp_path)) >= len(finished)

"""The index of records, what a look sees, and what is shown again while nothing changes."""

import json
import os
import sqlite3
from pathlib import Path

import pytest
from rich.console import Console

from experiments import reproduce
from experiments.config import cache
from experiments.ledger.claims import claims, compared_factors
from experiments.ledger.runs import gather
from experiments.recording import look
from experiments.recording.look import index_of, known, one_look
from experiments.recording.record import Record
from experiments.report import unchanged
from experiments.report.unchanged import Shown
from experiments.sweeps.grid import Job, jobs
from tests.test_ledger import write_record


@pytest.fixture(autouse=True)
def own_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (cache, look, unchanged):
        monkeypatch.setattr(module, "CACHES", tmp_path / "caches")


def seen(outputs: Path, record: Record) -> tuple[str, str, object]:
    """What a new look says of a record: status, damage, metrics."""
    with one_look(outputs):
        return record.status, record.damage, record.finished and Record(record.folder).summary["metrics"]


def index(outputs: Path) -> sqlite3.Connection:
    return sqlite3.connect(index_of(outputs))


@pytest.mark.parametrize("experiment", sorted(compared_factors(claims())))
def test_an_id_is_the_one_of_the_whole_configuration(experiment: str, tmp_path: Path) -> None:
    """Also at other rates, as a trial, and for seeds that the sweep does not list."""
    for job in {job.level: job for job in jobs(experiment, "smoke", str(tmp_path))}.values():
        variants = [job, job.with_seed(17)]
        if job.config(0)["optimizer"]:
            rated = Job(job.experiment, job.scale, job.outputs, job.factors, rate="0.00123")
            variants += [rated, Job(job.experiment, job.scale, job.outputs, job.factors, rate="0.0012", trial=True)]
        for each in variants:
            record = each.spec().record
            assert each.record == record and each.record.identity == record.identity


def test_what_has_not_changed_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = write_record(tmp_path / "runs" / "positions" / "aaa", {"loss": 1.0})
    first = seen(tmp_path, record)
    assert first[0] == "finished"

    def forbidden(*_: object) -> None:
        raise AssertionError("read again")

    monkeypatch.setattr(look, "contents", forbidden)
    assert seen(tmp_path, record) == first


@pytest.mark.parametrize("name", ["status.json", "summary.json", "config.yaml", "environment.json", "tables.json"])
def test_what_has_changed_is_read_again(name: str, tmp_path: Path) -> None:
    record = write_record(tmp_path / "runs" / "positions" / "aaa", {"loss": 1.0})
    assert seen(tmp_path, record)[0] == "finished"
    file = record.folder / name
    file.write_bytes(file.read_bytes()[:-9])
    assert seen(tmp_path, record)[0] == "damaged"
    file.unlink()
    assert seen(tmp_path, record)[0] == ("new" if name == "status.json" else "damaged")


def test_a_look_sees_one_time(tmp_path: Path) -> None:
    record = write_record(tmp_path / "runs" / "positions" / "aaa", {"loss": 1.0})
    with one_look(tmp_path):
        assert record.finished
        (record.folder / "summary.json").unlink()
        assert record.finished
    assert record.status == "damaged"


@pytest.mark.parametrize(
    "harm",
    [
        lambda file: file.unlink(),
        lambda file: file.write_bytes(b"no database"),
        lambda file: file.write_bytes(file.read_bytes()[:5000] + b"\0" * 5000),
        lambda file: sqlite3.connect(file).executescript("pragma user_version = 7"),
        lambda file: sqlite3.connect(file).executescript("drop table known"),
        lambda file: sqlite3.connect(file).executescript("update known set value = '{'"),
    ],
    ids=["deleted", "no database", "cut", "of other code", "without its table", "not JSON"],
)
def test_an_index_that_is_gone_or_wrong_is_built_anew(harm: object, tmp_path: Path) -> None:
    record = write_record(tmp_path / "runs" / "positions" / "aaa", {"loss": 1.0})
    first = seen(tmp_path, record)
    harm(index_of(tmp_path))  # type: ignore[operator]
    assert seen(tmp_path, record) == first
    assert seen(tmp_path, record) == first
    assert index(tmp_path).execute("select count(*) from known").fetchone()[0] > 0


def test_no_index_is_needed(tmp_path: Path) -> None:
    (tmp_path / "caches").write_text("a file where the folder would be")
    record = write_record(tmp_path / "runs" / "positions" / "aaa", {"loss": 1.0})
    assert seen(tmp_path, record)[0] == "finished"


def test_numbers_that_json_lacks_and_texts_survive(tmp_path: Path) -> None:
    record = write_record(tmp_path / "runs" / "positions" / "aaa", {"loss": 1.0})
    value = {"nan": float("nan"), "inf": float("-inf"), "text": "β 'x' \u2028"}
    for _ in range(3):
        with one_look(tmp_path):
            assert repr(known(record.folder, "odd", lambda: value)) == repr(value)


def test_a_folder_from_elsewhere_brings_no_index(tmp_path: Path) -> None:
    assert not index_of(tmp_path / "outputs").is_relative_to(tmp_path / "outputs")


def shown(outputs: Path, *arguments: object) -> Shown:
    return Shown(arguments, str(outputs), Console(markup=False))


def test_it_is_shown_again_until_something_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = write_record(tmp_path / "runs" / "positions" / "aaa", {"loss": 1.0})
    assert shown(tmp_path).again() is None
    shown(tmp_path).keep("the ledger")
    assert shown(tmp_path).again() == "the ledger"
    assert shown(tmp_path, "--next-look").again() is None
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "avx2 or so")
    assert shown(tmp_path).again() is None
    monkeypatch.undo()
    monkeypatch.setattr(unchanged, "CACHES", tmp_path / "caches")
    assert shown(tmp_path).again() == "the ledger"
    os.utime(record.folder / "summary.json", ns=(1, 1))
    assert shown(tmp_path).again() is None


@pytest.mark.parametrize("variable", ["EXPERIMENTS_CONF", "EXPERIMENTS_CLAIMS"])
def test_what_comes_from_outside_is_always_read(variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, str(tmp_path))
    shown(tmp_path).keep("the ledger")
    assert shown(tmp_path).again() is None


def test_what_lies_behind_a_link_is_always_read(tmp_path: Path) -> None:
    record = write_record(tmp_path / "elsewhere" / "aaa", {"loss": 1.0})
    outputs = tmp_path / "outputs"
    (outputs / "runs" / "positions").mkdir(parents=True)
    (outputs / "runs" / "positions" / "gone").symlink_to(tmp_path / "nowhere")
    shown(outputs).keep("the ledger")
    assert shown(outputs).again() == "the ledger"
    (outputs / "runs" / "positions" / "aaa").symlink_to(record.folder)
    shown(outputs).keep("the ledger")
    assert shown(outputs).again() is None


@pytest.mark.parametrize("content", ["", "{", "[]", '{"state": 1}', json.dumps({"state": "x", "text": "y"})])
def test_a_damaged_memory_of_what_was_shown_is_nothing(content: str, tmp_path: Path) -> None:
    own = shown(tmp_path)
    own.keep("the ledger")
    own.file.write_text(content)
    assert shown(tmp_path).again() is None


@pytest.mark.slow
def test_a_ledger_that_has_not_changed_is_printed_as_it_was(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def ledger() -> list[str]:
        assert reproduce.main(["--scale", "smoke", "--outputs", str(tmp_path), "--no-runs"]) == 0
        return capfd.readouterr().out.splitlines()[:-1]

    first = ledger()
    assert any("R1" in line for line in first)
    page = tmp_path / "report" / "index.html"
    written = page.stat().st_mtime_ns
    assert ledger() == first and page.stat().st_mtime_ns == written
    page.unlink()
    assert ledger() == first and page.exists()
    experiment = next(iter(gather("smoke", str(tmp_path)))).record
    experiment.folder.mkdir(parents=True)
    (experiment.folder / "status.json").write_text("{")
    assert ledger() != first

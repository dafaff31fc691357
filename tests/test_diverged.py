"""A run that diverges stops, is told from a finished one everywhere, and counts only where that is asked for."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from experiments.config.compose import compose
from experiments.config.errors import USER_ERRORS, RecordError, first_line
from experiments.ledger.claims import claims
from experiments.ledger.evidence import measured
from experiments.ledger.tuning import FIRST_SEED, Tuning
from experiments.recording.record import Record, records
from experiments.sweeps.call import Ended, end, print_result, write_status
from experiments.sweeps.grid import jobs
from experiments.tracking.wandb_run import tags_of
from experiments.training import execute as executing
from experiments.training.checks import memory_errors_named
from experiments.training.execute import execute
from experiments.training.run_spec import RunSpec, resolve
from tasks.base import Evaluation
from tests.conftest import tiny
from tests.test_ledger import world, write_record

QUIET = Console(quiet=True)
COUNTING = {"S5", "S10", "S11"}  # claims about trainings that fail


def spec_of(outputs: Path, *overrides: str) -> RunSpec:
    """A run of a second."""
    own = tiny(outputs, "tracking=none", "training.steps=20", "training.evaluate_at=[0,15]", *overrides)
    return resolve(compose(own), own)


def strict(file: Path) -> list[Any]:
    """The lines or the content of a JSON file, which may hold no NaN and no infinity."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{file} holds {name}")

    text = file.read_text()
    return [json.loads(part, parse_constant=refuse) for part in (text.splitlines() if "jsonl" in file.name else [text])]


@pytest.mark.slow
def test_a_run_that_diverges_stops_and_says_so(tmp_path: Path) -> None:
    record = execute(spec_of(tmp_path, "optimizer.lr=1000"), QUIET)
    assert record.status == "diverged" and record.finished and record.diverged
    for name in ("summary.json", "tables.json", "status.json", "metrics.jsonl"):
        strict(record.folder / name)
    step, found = record.summary["diverged"], record.summary["evaluations"]
    assert 0 < step < 15 and found["15"] == found["20"] == found[str(step)] == record.summary["metrics"]
    assert "nonoverlapping/loss" in found["0"] and "nonoverlapping/loss" not in found["20"]
    assert max(row["step"] for row in record.metrics()) == step
    before = record.metrics_file.stat().st_mtime_ns
    assert execute(spec_of(tmp_path, "optimizer.lr=1000"), QUIET).diverged
    assert record.metrics_file.stat().st_mtime_ns == before
    with pytest.raises(RecordError, match="starts from, has diverged"):
        execute(spec_of(tmp_path, "start=['optimizer.lr=1000']"), QUIET)
    assert len(records(tmp_path)) == 1


@pytest.mark.slow
@pytest.mark.parametrize("error", [RecordError("W&B refuses the run"), KeyError("tags"), MemoryError()])
def test_nothing_that_fails_leaves_a_run_running(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise error

    monkeypatch.setattr(executing, "Tracker", refuse)
    with pytest.raises(type(error)):
        execute(spec_of(tmp_path), QUIET)
    assert [record.status for record in records(tmp_path)] == ["failed"]


def test_a_deleted_setting_is_a_tag() -> None:
    assert tags_of(["~optimizer.weight_decay", "~optimizer.betas=[0.9,0.95]", "+model.bias=true", "seed=1"]) == [
        "weight_decay=deleted",
        "betas=deleted",
        "bias=true",
    ]


@pytest.mark.parametrize(
    "make",
    [
        lambda: np.zeros(2**55),
        lambda: torch.zeros(2**50),
        lambda: bytearray(2**60),
    ],
)
def test_what_does_not_fit_into_memory_is_said_in_one_line(make: Any) -> None:
    with (
        pytest.raises(USER_ERRORS, match=r"there is not enough memory .*: choose a smaller model") as caught,
        memory_errors_named(),
    ):
        make()
    assert "\n" not in first_line(caught.value)


def test_what_is_not_finite_is_left_out() -> None:
    tables = {"norms": [{"layer": 1, "norm": math.nan}, {"layer": 2, "norm": 1.0, "note": None}], "none": []}
    found = Evaluation({"loss": math.nan, "perplexity": math.inf, "accuracy": 10.0}, tables).finite()
    assert found == Evaluation({"accuracy": 10.0}, {"norms": [{"layer": 2, "norm": 1.0, "note": None}], "none": []})


def diverged(record: Record) -> Record:
    """The record, of a run that diverged."""
    record.finish(record.summary | {"diverged": 1}, {})
    return Record(record.folder)


def test_it_is_printed_and_only_a_sweep_ends_well(tmp_path: Path) -> None:
    record = diverged(write_record(tmp_path / "run", {"accuracy": 10.0}))
    with (console := Console(width=300)).capture() as printed:
        print_result(console, record)
    assert printed.get() == (
        f"diverged: {record.folder}: by step 1 of 2 the loss was no finite number: choose a smaller optimizer.lr or "
        "training.initial_gain\n"
    )
    write_status(tmp_path / "0.json", ["seed=0"], Ended(record.status, record))
    assert end(tmp_path, QUIET) == 1
    write_status(tmp_path / "1.json", ["seed=1"], Ended("finished"))
    assert end(tmp_path, QUIET) == 0


@pytest.mark.parametrize("goal", ["minimize", "maximize"])
def test_a_rate_at_which_a_training_diverges_is_as_bad_as_can_be(goal: str, tmp_path: Path) -> None:
    job = jobs("positions", "laptop", str(tmp_path))[0]
    tuning = Tuning(job, "accuracy", goal, 2, 0.003)
    for step in (-1, 0):
        for index in range(2):
            tuning.records[step, FIRST_SEED + index] = write_record(tmp_path / f"{step}{index}", {"accuracy": 50.0})
    tuning.records[0, FIRST_SEED] = diverged(tuning.records[0, FIRST_SEED])
    assert tuning.score(0) == -math.inf < (tuning.score(-1) or 0.0)


def test_only_claims_that_ask_for_it_count_it(tmp_path: Path) -> None:
    for claim in claims():
        comparison = next((each for each in claim.comparisons if each.control and not each.relative_to), None)
        assert {each.counts_diverged for each in claim.comparisons} == {claim.id in COUNTING}
        if comparison is None or claim.id not in {*COUNTING, "R1"}:
            continue
        evidence = world(comparison, tmp_path / claim.id, lambda job: 50.0 + job.seed)
        first = next(job for job in evidence if job.seed == 1)
        evidence[first] = diverged(evidence[first])
        found = measured(comparison, evidence)
        if claim.id in COUNTING:
            assert 1 in found.sample and not found.missing and found.complete > 1
        else:
            assert found.missing == ["diverged: " + " ".join(first.overrides)] and found.complete == 1

"""Runs that start from another run's weights, and positions that do not fit: real processes."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from experiments.recording.record import Record, records
from tests.conftest import CACHE, Program
from tests.test_run import one_line

pytestmark = pytest.mark.slow

TINY = ["experiment=context_extension", "scale=smoke", "model.width=32", "extension=2", "tracking=none", "threads=1"]


@pytest.fixture(scope="module")
def extended(program: Program, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The outputs of three runs that start from one, trained with other settings of theirs than its own."""
    outputs = tmp_path_factory.mktemp("start")
    sweep = ["-m", "position=rope,rope_interpolated", "seed=0"]
    for more in (sweep, ["position=rope_yarn", "position.base=20000", "seed=0"]):
        ended = program(*TINY, f"outputs={outputs}", f"cache={CACHE}", *more)
        assert ended.returncode == 0, ended.stderr
    return outputs


def split(outputs: Path) -> tuple[list[Record], list[Record]]:
    found = records(outputs, "context_extension")
    assert all(record.finished for record in found)
    return [r for r in found if r.config["start"] is None], [r for r in found if r.config["start"]]


def test_runs_share_the_run_they_start_from(extended: Path) -> None:
    (first,), later = split(extended)
    assert len(later) == 3
    assert first.config["extension"] == 1 and first.config["seed"] == 0 and first.config["model"]["width"] == 32
    assert first.config["position"]["_target_"].endswith(".Rotary") and first.config["position"]["base"] == 10_000
    assert {record.config["position"]["_target_"].rsplit(".", 1)[-1] for record in later} == {
        "Rotary", "InterpolatedRotary", "YaRNRotary",
    }  # fmt: skip
    assert all(record.config["training"]["steps"] == 4 for record in later)


def test_a_run_begins_with_the_weights_of_the_one_it_starts_from(extended: Path) -> None:
    """With the very same positions, at its step 0 it finds as many digits as the first run did at its end."""
    (first,), later = split(extended)
    plain = next(record for record in later if record.config["position"]["_target_"].endswith(".Rotary"))
    digits = "digits/128/start"
    assert plain.summary["evaluations"]["0"][digits] == first.summary["metrics"][digits]
    weights, ended = (load_file(record.checkpoint_file) for record in (first, plain))
    names = [name for name in weights if name.startswith("model/")]
    assert names and not all(torch.equal(weights[name], ended[name]) for name in names)


def test_a_first_run_that_is_damaged_is_told_in_one_line(extended: Path, program: Program, tmp_path: Path) -> None:
    (first,), _ = split(extended)
    whole = first.checkpoint_file.read_bytes()
    try:
        first.checkpoint_file.write_bytes(whole[:1000])
        line = one_line(program(*TINY, f"outputs={extended}", f"cache={CACHE}", "position=rope_ntk", "seed=0"))
    finally:
        first.checkpoint_file.write_bytes(whole)
    assert f"{first.checkpoint_file} is damaged" in line
    assert len(records(extended, "context_extension")) == 4  # nothing was begun


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["experiment=positions", "position=learned", "position.max_length=32"],
            "sequences of 64 tokens are beyond the 32 positions",
        ),
        (["experiment=passkey", "position=learned", "position.max_length=200"], "of 1280 tokens are beyond the 200"),
        (
            ["experiment=summarization", "position=learned", "position.max_length=250"],
            "of 287 tokens are beyond the 250",
        ),
        (
            ["experiment=positions", "position=rope", "position.base=1"],
            "position.base=1: Input should be greater than 1",
        ),
        (["experiment=positions", "position=rope", "model.width=30", "model.heads=2"], "must be even, not 15"),
        (
            ["experiment=positions", "position=rope_yarn", "position.factor=0.5"],
            "Input should be greater than or equal to 1",
        ),
        (["experiment=positions", "attention=linear", "position=alibi"], "no scores, which ALiBi changes"),
        (["experiment=extrapolation", "task.multiples=[2]"], "integers of at least 1 and include 1"),
        (["experiment=extrapolation", "task.multiples=[1,9999]"], "no document of the split has the 639936 tokens"),
    ],
)
def test_positions_that_do_not_fit_are_refused_before_any_work(
    overrides: list[str], message: str, program: Program, tmp_path: Path
) -> None:
    line = one_line(program("scale=smoke", f"outputs={tmp_path}", f"cache={CACHE}", "tracking=none", *overrides))
    assert message in line
    assert not records(tmp_path)


def test_what_positions_cost_is_measured_beside_each_other(program: Program, tmp_path: Path) -> None:
    ended = program("experiment=position_cost", "scale=smoke", "threads=1", f"outputs={tmp_path}", "tracking=none")
    assert ended.returncode == 0, ended.stderr
    (record,) = records(tmp_path)
    costs = json.loads((record.folder / "tables.json").read_text())["costs"]
    assert {row["work"] for row in costs} == {"training", "evaluation", "decoding"}
    for row in costs:
        assert row["peak_bytes"] > 0 and row["tokens_per_second"] > 0
        if row["scheme"] == "sinusoidal":
            assert row["speed"] == 1 and row["memory"] == 1
    assert record.summary["metrics"]["matrix_memory"] > 1

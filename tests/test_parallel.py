"""Several processes at one run: the numbers of one process, and checkpoints that go from one number to another."""

import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from experiments import evaluate, reproduce
from experiments.config.errors import ConfigError
from experiments.recording.record import Record, records
from experiments.training.distributed import check_alone, check_shares, own_rows
from experiments.training.loop import check_state
from tests.conftest import ROOT, tiny
from tests.test_crash import wait_for_rows

pytestmark = pytest.mark.slow

CARRIED = ("attention=infini_delta", "attention.segment_length=16", "task.carry_state=true", "task.batch_size=4")
OFTEN = ("training.steps=150", "training.log_every=1", "training.checkpoint_every=3", "training.precision=fp32")
TWO = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
SHARDED = "training.shard=true"


def start(outputs: Path, processes: tuple[str, ...], *overrides: str) -> subprocess.Popen[str]:
    arguments = tiny(outputs, *CARRIED, *OFTEN, "tracking=none", *overrides)
    command = [sys.executable, *processes, "-m", "experiments.run", *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str], outputs: Path) -> Record:
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    (record,) = records(outputs)
    assert record.finished
    return record


def losses(record: Record) -> list[float]:
    return [row["train/loss"] for row in record.metrics() if "train/loss" in row]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Record:
    """The run as one process makes it, its state carried from step to step."""
    outputs = tmp_path_factory.mktemp("alone")
    return finish(start(outputs, ()), outputs)


@pytest.mark.parametrize("more", [(), (SHARDED,)], ids=["data-parallel", "sharded"])
def test_two_processes_give_the_numbers_of_one(more: tuple[str, ...], alone: Record, tmp_path: Path) -> None:
    """The same run by its id, and the same losses, norms and evaluations but for rounding."""
    record = finish(start(tmp_path, TWO, *more), tmp_path)
    assert record.id == alone.id and record.environment["processes"] == 2
    for row, expected in zip(record.metrics(), alone.metrics(), strict=True):
        assert row == pytest.approx(expected, rel=1e-3)
    assert record.summary["metrics"] == pytest.approx(alone.summary["metrics"], rel=1e-3)
    assert record.summary["tokens"] == alone.summary["tokens"]


def test_a_checkpoint_goes_from_two_processes_to_one_and_back(alone: Record, tmp_path: Path) -> None:
    """Stopped as two that hold parts of the weights, killed as one, ended as two that hold them all."""
    first = start(tmp_path, TWO, SHARDED)
    record = wait_for_rows(first, tmp_path, 5)
    first.send_signal(signal.SIGTERM)
    first.communicate(timeout=60)
    assert record.status == "interrupted" and record.checkpoint_file.exists()
    second = start(tmp_path, ())
    wait_for_rows(second, tmp_path, len(losses(record)) + 6)
    second.kill()
    _, errors = second.communicate(timeout=60)
    assert "resuming from step" in errors
    assert not record.finished
    whole = finish(start(tmp_path, TWO), tmp_path)
    assert losses(whole) == pytest.approx(losses(alone), rel=1e-3)


@pytest.mark.parametrize("program", [evaluate.main, reproduce.main])
def test_what_is_for_one_process_is_refused(program, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert program([]) == 1
    said = "".join(capsys.readouterr())
    assert "runs in one process, not in 2: start it without torchrun" in " ".join(said.split())


def test_what_cannot_be_shared_out_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = {"tokens": torch.arange(15).view(3, 5)}
    assert own_rows(batch)["tokens"].tolist() == batch["tokens"].tolist()
    for name, value in {"LOCAL_RANK": "1", "RANK": "1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    assert own_rows(batch)["tokens"].tolist() == [[5, 6, 7, 8, 9]]
    check_shares(SimpleNamespace(batch=lambda step: batch))
    with pytest.raises(ConfigError, match="2 processes cannot share a batch of 1 row"):
        check_shares(SimpleNamespace(batch=lambda step: {"tokens": batch["tokens"][:1]}))
    with pytest.raises(ConfigError, match="a search runs in one process, not in 2"):
        check_alone("a search")
    check_state(None, batch, 1)
    with pytest.raises(ValueError, match="must be a multiple of the 2 processes"):
        check_state((), batch, 1)

"""Runs that are killed or stopped go on and end with the same bytes as runs that are not."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments.recording.record import Record, records
from tests.conftest import ROOT, tiny

pytestmark = pytest.mark.slow

LONG = ("training.steps=60", "training.checkpoint_every=7", "training.log_every=2", "training.evaluate_at=[20]")
CASES = {
    "nothing carried": ("attention=full",),
    "carried state": ("attention=transformer_xl", "attention.segment_length=16", "task.carry_state=true"),
    "carried memory": ("attention=infini_delta", "attention.segment_length=16", "task.carry_state=true"),
}


def start(outputs: Path, case: str, *overrides: str) -> subprocess.Popen[str]:
    arguments = [*tiny(outputs, *LONG, *CASES[case], *overrides)]
    command = [sys.executable, "-m", "experiments.run", *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_rows(process: subprocess.Popen[str], outputs: Path, rows: int) -> Record:
    """The record of a run in progress, once its metrics hold so many rows."""
    while process.poll() is None:
        found = records(outputs)
        if found and found[0].metrics_file.exists() and len(found[0].metrics_file.read_bytes().splitlines()) >= rows:
            return found[0]
        time.sleep(0.05)
    raise AssertionError(f"the run ended too early: {process.communicate()[1]}")


@pytest.mark.parametrize("case", ["carried state", "carried memory"])
def test_a_killed_run_goes_on_and_writes_the_same_bytes(case: str, tmp_path: Path) -> None:
    unbroken = start(tmp_path / "unbroken", case)
    _, errors = unbroken.communicate(timeout=240)
    assert unbroken.returncode == 0, errors
    (whole,) = records(tmp_path / "unbroken")

    process = start(tmp_path / "killed", case)
    record = wait_for_rows(process, tmp_path / "killed", 9)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert record.status == "running"
    last = start(tmp_path / "killed", case)
    _, errors = last.communicate(timeout=240)
    assert last.returncode == 0, errors
    assert "resuming from step" in errors
    assert record.id == whole.id
    assert record.metrics_file.read_bytes() == whole.metrics_file.read_bytes()
    first, second = (
        {k: v for k, v in r.summary.items() if k not in ("seconds", "peak_bytes")} for r in (record, whole)
    )
    assert first == second


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_run_leaves_a_checkpoint_and_says_how_to_go_on(number: signal.Signals, tmp_path: Path) -> None:
    process = start(tmp_path, "nothing carried")
    record = wait_for_rows(process, tmp_path, 5)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "run the same command again to resume" in errors
    assert record.status == "interrupted"
    assert record.checkpoint_file.exists()
    again = start(tmp_path, "nothing carried")
    _, errors = again.communicate(timeout=240)
    assert again.returncode == 0, errors
    assert record.finished


def test_two_processes_never_run_the_same_run_at_once(tmp_path: Path) -> None:
    first = start(tmp_path, "nothing carried", "training.steps=100000")
    wait_for_rows(first, tmp_path, 1)
    second = start(tmp_path, "nothing carried", "training.steps=100000")
    _, errors = second.communicate(timeout=120)
    assert second.returncode == 1
    assert "is being run by another process" in errors
    first.send_signal(signal.SIGTERM)
    assert first.wait(timeout=60) == 130

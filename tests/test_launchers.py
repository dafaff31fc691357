"""One ending for every launcher: jobs stop with a checkpoint, statuses are true, and a table tells of each job."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from experiments.recording.record import Record, records
from tests.conftest import ROOT, tiny

pytestmark = pytest.mark.slow

JOBS = (
    "-m",
    "position=rope,none",
    "seed=0,1",
    "tracking=none",
    "training.steps=100000",
    "training.checkpoint_every=20",
)
LAUNCHERS = {
    "basic": (),
    "joblib": ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2"),
    "submitit_local": ("hydra/launcher=submitit_local", "hydra.sweeper.max_batch_size=2"),
}
AT_A_TIME = {"basic": 1, "joblib": 2, "submitit_local": 2}


@pytest.fixture(params=LAUNCHERS)
def sweep(request: pytest.FixtureRequest, tmp_path: Path):
    """A sweep whose first jobs have saved checkpoints, its outputs, and the launcher's name."""
    command = [sys.executable, "-m", "experiments.run", *tiny(tmp_path, *JOBS, *LAUNCHERS[request.param])]
    running = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        while sum(record.checkpoint_file.exists() for record in records(tmp_path)) < AT_A_TIME[request.param]:
            assert running.poll() is None, running.communicate()
            time.sleep(0.2)
        yield running, tmp_path, request.param
    finally:
        for process in working(tmp_path):
            process.kill()
        running.kill()


def working(outputs: Path) -> list[psutil.Process]:
    """The processes that hold a record's lock."""

    def holds(process: psutil.Process) -> bool:
        try:
            return any(file.path.startswith(f"{outputs}/runs") for file in process.open_files())
        except psutil.Error:
            return False

    return [process for process in psutil.process_iter() if holds(process)]


def check_end(sweep: subprocess.Popen[str], outputs: Path, code: int) -> str:
    """What was told, after an end that leaves nothing running and nothing that says so."""
    _, told = sweep.communicate(timeout=120)
    assert sweep.returncode == code, told
    assert "Traceback" not in told and "run the same command again to resume" in told
    assert not working(outputs)
    assert {Record(record.folder).status for record in records(outputs)} == {"interrupted"}
    assert all(record.checkpoint_file.exists() for record in records(outputs))
    assert not list((outputs / "hydra").rglob("*.json"))
    return told


@pytest.mark.parametrize("how", ["Ctrl-C in a terminal", "SIGINT to the parent", "SIGTERM to the parent"])
def test_a_stopped_sweep_leaves_checkpoints_and_true_statuses(how: str, sweep) -> None:
    process, outputs, launcher = sweep
    if how.startswith("Ctrl-C"):
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.send_signal(signal.SIGINT if "SIGINT" in how else signal.SIGTERM)
    told = check_end(process, outputs, 130)
    assert told.count("│ interrupted") == AT_A_TIME[launcher], told


def test_a_killed_worker_is_told_and_the_others_end_too(sweep) -> None:
    process, outputs, launcher = sweep
    if launcher == "basic":
        return  # the job is the command
    working(outputs)[0].kill()
    told = check_end(process, outputs, 1)
    assert "cut off" in told and "error: a job's process was killed" in told

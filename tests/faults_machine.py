"""`make faults`: what happens to runs when the disk is full or read-only, the network is lost, or the clock jumps."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from experiments.recording.record import records
from experiments.tracking.offline import run_files
from tests.conftest import ROOT, Program, tiny
from tests.faults import bytes_of, contents, finished, rows, tell
from tests.loopback import Server
from tests.test_run import one_line
from tests.test_tracking import call

DISK = 16  # MB
ROOM = 200  # kB that are left on a disk that is nearly full: less than a run needs
ONE = ("position=rope", "training.evaluate_at=[20]")
CLOCK = """
import runpy, sys, time
day = 86400 * int(sys.argv.pop(1))
seconds, local, text = time.time, time.localtime, time.strftime
time.time = lambda: seconds() + day + 3600 * (-1) ** int(4 * time.monotonic())
time.time_ns = lambda: int(1e9 * time.time())
time.localtime = lambda at=None: local(time.time() if at is None else at)
time.strftime = lambda form, at=None: text(form, time.localtime() if at is None else at)
runpy.run_module("experiments.run", run_name="__main__", alter_sys=True)
"""  # so many days from now, and four times a second it is set forward or back by two hours


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK}m", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"a disk of its own cannot be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path, left: int) -> Path:
    """Write a file that leaves so many kB."""
    state = os.statvfs(disk)
    file = disk / "something else"
    file.write_bytes(bytes(state.f_bavail * state.f_frsize - 1024 * left))
    return file


@pytest.mark.parametrize("left", [ROOM, 0])
def test_a_full_disk(left: int, disk: Path, program: Program, tmp_path: Path) -> None:
    jobs = ("-m", "position=rope,none", "seed=0,1")
    assert program(*tiny(tmp_path / "unbroken", *jobs)).returncode == 0
    assert program(*tiny(disk, *jobs[:2], "seed=0")).returncode == 0
    kept = bytes_of(disk)
    filled = fill(disk, left)
    ended = program(*tiny(disk, *jobs))
    errors = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert ended.returncode == 1 and "Traceback" not in ended.stderr, ended.stderr
    assert len(errors) == (2 if left else 1) and all("No space left on device" in line for line in errors)
    assert bytes_of(disk) == kept
    filled.unlink()
    again = program(*tiny(disk, *jobs))
    assert again.returncode == 0, again.stderr
    assert contents(disk) == contents(tmp_path / "unbroken")
    after = bytes_of(disk)
    assert {file: after[file] for file in kept} == kept
    tell(f"a disk with {left} kB left: {errors[0]!r}, what was finished stayed, and with room the same command went on")


def test_a_read_only_disk(disk: Path, program: Program) -> None:
    arguments = ("--scale", "smoke", "--only", "properties", "--outputs", str(disk), "--workers", "1")
    assert program(*tiny(disk, *ONE)).returncode == 0
    kept = bytes_of(disk)
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    told = [one_line(program(*tiny(disk, *more))) for more in (("seed=1",), ("-m", "seed=0,1"))]
    ledger = program(*arguments, "--no-runs", module="experiments.reproduce")
    assert ledger.returncode == 1 and "Traceback" not in ledger.stdout + ledger.stderr
    told.append(ledger.stdout.strip().splitlines()[-1])
    assert all("Read-only file system" in line for line in told)
    assert bytes_of(disk) == kept
    tell(f"a read-only outputs folder: {told[0]!r} from a run, a sweep and `make ledger`")


def test_a_network_that_is_lost_in_the_middle_of_a_run(tmp_path: Path) -> None:
    """W&B sends rows every 15 s: the server has the first ones and not the rest."""
    with Server() as server:
        patience = {"WANDB_FINISH_TIMEOUT": "5"}
        arguments = tiny(tmp_path, *ONE, "tracking=wandb_online", "training.steps=12000", "training.log_every=1")
        kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
        process = subprocess.Popen(
            [sys.executable, "-m", "experiments.run", *arguments],
            cwd=ROOT,
            env=kept | server.environment | patience,
            stderr=subprocess.PIPE,
            text=True,
        )
        while not any(run.history for run in server.runs.values()):
            assert process.poll() is None
            time.sleep(0.02)
        (before,) = (len(run.history) for run in server.runs.values())
        server.die()
        (record,) = records(tmp_path)
        while not record.finished:
            assert process.poll() is None
            time.sleep(0.02)
        done = time.monotonic()
        _, told = process.communicate(timeout=120)
        waited = time.monotonic() - done
        assert process.returncode == 0 and "Traceback" not in told, told
        (warning,) = (line for line in told.splitlines() if "UserWarning" in line)
        assert "run `make sync` to upload the rest" in warning
        assert waited < 30
        steps = sorted({row["step"] for row in record.metrics()})
        assert 0 < before < len(steps)
        server.come_back()
        ended = call(server, "experiments.sync", str(tmp_path))
        assert ended.returncode == 0, ended.stdout
        run = server.runs[record.id]
        assert server.histories[record.id] == steps
        assert run.exit_code == 0 and run.table("protocol") and "nonoverlapping/loss" in run.summary
        assert "nothing to upload" in call(server, "experiments.sync", str(tmp_path)).stdout
        assert not server.unknown
    tell(
        f"a network lost with {before} of {len(steps)} rows sent: the run ends {waited:.0f} s after its record, says "
        f"{warning.split('UserWarning: ')[1]!r}, and `make sync` sends the rest, once"
    )


def test_a_server_that_is_never_there(tmp_path: Path) -> None:
    with Server() as server:
        server.die()
        begun = time.monotonic()
        ended = call(server, "experiments.run", *tiny(tmp_path, *ONE, "tracking=wandb_online"))
        seconds = time.monotonic() - begun
        assert ended.returncode == 0, ended.stderr
        assert len(finished(tmp_path)) == 1
        (warning,) = (line for line in ended.stderr.splitlines() if "UserWarning" in line)
        assert "this run is tracked offline" in warning
        server.come_back()
        assert "1 runs uploaded" in call(server, "experiments.sync", str(tmp_path)).stdout
    tell(f"a server that is not there: {warning.split('UserWarning: ')[1]!r}; {seconds:.0f} s in all, synced later")


def test_a_clock_that_jumps(program: Program, tmp_path: Path) -> None:
    """And it is set back between a run that is killed and the one that goes on: the latter's log at W&B is named as the
    earlier one."""
    length = ("training.steps=900", "training.checkpoint_every=20", "training.log_every=1")
    true, outputs = tmp_path / "true", tmp_path / "jumping"
    assert program(*tiny(true, *ONE, *length)).returncode == 0
    for day in (1, -1):
        command = [sys.executable, "-c", CLOCK, str(day), *tiny(outputs, *ONE, *length)]
        process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
        while day == 1 and rows(outputs) < 700:
            assert process.poll() is None
            time.sleep(0.02)
        if day == 1:
            process.kill()
        _, told = process.communicate(timeout=120)
    assert process.returncode == 0 and "resuming from step" in told, told
    assert contents(outputs) == contents(true)
    (record,) = finished(outputs)
    assert 0 < record.summary["seconds"] < 60
    later, earlier = (log.parent.name.split("-")[2] for log in run_files(str(outputs)))
    with Server() as server:
        assert call(server, "experiments.sync", str(outputs)).returncode == 0
        assert server.histories[record.id] == sorted({row["step"] for row in record.metrics()})
    tell(
        "a clock that is set by two hours four times a second, and by two days between a kill and what goes on: the "
        f"record is as with a true one, {record.summary['seconds']:.1f} s long; W&B's logs {earlier} and, after it, "
        f"{later} arrive as one run"
    )

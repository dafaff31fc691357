"""`make faults`: runs are killed and damaged on purpose, by real processes; each test tells what happened.

Nothing that was finished may be lost, nothing false may enter the ledger, and the same command mends what can be mended
and names what cannot. Disk, network and clock are in faults_machine.py, what is quicker in test_crash.py, test_run.py,
test_excluded_records.py and test_tracking.py.
"""

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from experiments.evaluation.repeat import COSTS
from experiments.recording.record import Record, records, to_json
from experiments.tracking.offline import run_files
from tests.conftest import ROOT, Ended, Program, tiny
from tests.test_run import one_line

JOBS = 12
SWEEP = ("-m", "position=rope,none,alibi", "seed=0,1,2,3", "training.checkpoint_every=10", "training.evaluate_at=[]")
JOBLIB = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
REPRODUCE = "experiments.reproduce"
KILLS = 50
LATEST = 1.7  # times what a process takes to the first row of its first run, until which it is killed

Contents = dict[str, tuple[Any, ...]]


def tell(line: str) -> None:
    """One line of the fault list."""
    print(f"\n  {line}", flush=True)


def start(*arguments: str, module: str = "experiments.run") -> subprocess.Popen[bytes]:
    """A process of the program that nobody listens to."""
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    """Wait for a moment in the life of a process."""
    while not condition():
        assert process.poll() is None, "the process ended before"
        time.sleep(0.01)


def kill(process: subprocess.Popen[bytes]) -> None:
    """kill -9."""
    process.send_signal(signal.SIGKILL)
    process.wait()


def finished(outputs: Path) -> list[Record]:
    return [record for record in records(outputs) if record.finished]


def rows(outputs: Path) -> int:
    """The rows of metrics of the runs that are not finished."""
    files = [record.metrics_file for record in records(outputs) if not record.finished]
    return sum(len(file.read_bytes().splitlines()) for file in files if file.exists())


def contents(outputs: Path) -> Contents:
    """What the finished runs came to: all but where they lie, and the time and memory they took."""

    def of(record: Record) -> tuple[Any, ...]:
        config = {name: value for name, value in record.read("config.yaml").items() if name != "outputs"}
        summary = {name: value for name, value in record.read("summary.json").items() if name not in COSTS}
        return config, summary, record.metrics_file.read_bytes(), (record.folder / "tables.json").read_bytes()

    return {record.id: of(record) for record in finished(outputs)}


def bytes_of(outputs: Path) -> dict[Path, tuple[int, bytes]]:
    """Every file of the finished runs, with the time of its last change."""
    files = [file for record in finished(outputs) for file in record.folder.iterdir() if file.name != "lock"]
    return {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in files}


def unbroken(program: Program, outputs: Path, *more: str) -> Contents:
    """What the sweep comes to if nothing happens to it."""
    ended = program(*tiny(outputs, *SWEEP, *more), timeout=600)
    assert ended.returncode == 0, ended.stderr
    found = contents(outputs)
    assert len(found) == JOBS
    return found


@pytest.mark.parametrize("launcher", [(), JOBLIB], ids=["basic", "joblib"])
def test_a_sweep_killed_twice_is_finished_by_the_same_command(
    launcher: tuple[str, ...], program: Program, tmp_path: Path
) -> None:
    length = "training.steps=60"
    whole = unbroken(program, tmp_path / "unbroken", length)
    outputs = tmp_path / "killed"
    arguments = tiny(outputs, *SWEEP, length, *launcher)
    kept: dict[Path, tuple[int, bytes]] = {}
    cut = 0
    for count in (3, 8):
        process = start(*arguments)
        wait_until(lambda: len(finished(outputs)) >= count and rows(outputs) >= 8, process)  # noqa: B023
        kill(process)
        kept |= bytes_of(outputs)
        cut += sum(not record.finished for record in records(outputs))
    ended = program(*arguments, timeout=600)
    assert ended.returncode == 0, ended.stderr
    assert contents(outputs) == whole
    after = bytes_of(outputs)
    assert {file: after[file] for file in kept} == kept
    begun = len(run_files(str(outputs)))  # W&B begins a log whenever a run is begun or goes on
    assert begun <= JOBS + cut
    tell(
        f"a sweep of {JOBS} jobs{' by joblib' if launcher else ''}, killed with -9 twice, {cut} runs in progress: "
        f"finished by the same command, {len({file.parent for file in kept})} finished records untouched, {begun} "
        f"times a run was begun or taken up, all {JOBS} records as those of an unbroken sweep"
    )


def test_kills_at_random_moments_lose_nothing(program: Program, tmp_path: Path) -> None:
    length = "training.steps=600"
    whole = unbroken(program, tmp_path / "unbroken", length)
    process, begun = start(*tiny(tmp_path / "first", *SWEEP, length)), time.monotonic()
    wait_until(lambda: rows(tmp_path / "first") > 0, process)
    latest = LATEST * (time.monotonic() - begun)
    kill(process)
    chance = random.Random(0)
    kills, sweeps, moved, kept = 0, 0, 0, dict[Path, tuple[int, bytes]]()
    while kills < KILLS:
        outputs = tmp_path / f"killed{sweeps}"
        arguments = tiny(outputs, *SWEEP, length)
        while kills < KILLS and len(finished(outputs)) < JOBS:
            before = (len(finished(outputs)), rows(outputs))
            process = start(*arguments)
            time.sleep(chance.uniform(0, latest))
            kills += process.poll() is None
            kill(process)
            now = bytes_of(outputs)
            assert {file: now[file] for file in kept if file.is_relative_to(outputs)} == {
                file: content for file, content in kept.items() if file.is_relative_to(outputs)
            }
            kept |= now
            assert contents(outputs).items() <= whole.items()  # what counts as finished is whole and true
            moved += (len(finished(outputs)), rows(outputs)) != before
        ended = program(*arguments, timeout=600)
        assert ended.returncode == 0, ended.stderr
        assert contents(outputs) == whole
        assert not list((outputs / "runs").rglob(".*"))  # what was being written when a kill came
        sweeps += 1
    tell(
        f"kill -9 at {kills} random moments up to {latest:.0f} s after the start, {moved} of them after new steps, "
        f"through {sweeps} sweep(s) of {JOBS} jobs: nothing finished was lost or changed, nothing partial counted as "
        "finished, the end is as that of an unbroken sweep"
    )


def test_a_worker_that_is_killed_is_told_and_the_rest_goes_on(program: Program, tmp_path: Path) -> None:
    """As the kernel does when memory is short."""
    arguments = ("--scale", "smoke", "--only", "positions", "--outputs", str(tmp_path), "--workers", "1")
    command = [sys.executable, "-m", REPRODUCE, *arguments]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    while not finished(tmp_path):
        assert process.poll() is None
        time.sleep(0.05)
    workers = [each for each in psutil.Process(process.pid).children() if "spawn_main" in " ".join(each.cmdline())]
    for worker in workers:
        worker.kill()
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    errors = [line for line in output.splitlines() if "error: " in line]
    assert len(errors) == 1 and "a worker process was killed" in errors[0] and "Traceback" not in output
    kept = bytes_of(tmp_path)
    ended = program(*arguments, module=REPRODUCE, timeout=600)
    assert ended.returncode == 0, ended.stdout
    after = bytes_of(tmp_path)
    assert {file: after[file] for file in kept} == kept
    tell(f"a worker of `make reproduce` killed: {errors[0]!r}, and the same command finished the rest")


def test_two_sweeps_at_once_share_the_runs(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "experiments.run", *tiny(tmp_path, *SWEEP, "tracking=none", "training.steps=60")]
    both = [subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    told = [process.communicate(timeout=300)[1].splitlines() for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    folders = [record.folder for record in finished(tmp_path)]
    assert len(folders) == JOBS
    shares = [sum(f"run {folder}" in lines for folder in folders) for lines in told]
    assert sum(shares) == JOBS
    waits = sum(line.startswith("postponed: ") for lines in told for line in lines)
    tell(f"two sweeps of the same {JOBS} jobs: {shares[0]} and {shares[1]} of them, none twice; {waits} postponed")


def test_a_checkpoint_that_is_damaged_is_named_and_other_jobs_go_on(program: Program, tmp_path: Path) -> None:
    arguments = tiny(tmp_path, "-m", "position=rope", "seed=0,1", "tracking=none")
    assert program(*arguments).returncode == 0
    before = contents(tmp_path)
    first, second = records(tmp_path)
    for record in (first, second):
        record.set_status("interrupted")
    damaged = bytearray(first.checkpoint_file.read_bytes())
    damaged[4:12] = b"\xff" * 8
    first.checkpoint_file.write_bytes(damaged)
    ended = program(*arguments)
    line = one_line(ended)
    assert f"the checkpoint {first.checkpoint_file} is damaged" in line and "remove it" in line
    assert [record.status for record in (first, second)] == ["failed", "finished"]
    first.checkpoint_file.unlink()
    assert program(*arguments).returncode == 0
    assert contents(tmp_path) == before
    tell(f"a checkpoint damaged: {line[:150]!r}…, the other job went on; without that file the same command mended it")


def verdicts(ended: Ended) -> str:
    """The table of the terminal."""
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout[ended.stdout.index("ledger, smoke") :].split("excluded:")[0].rsplit(" not reproduced", 1)[0]


def test_a_record_edited_by_hand_is_excluded_with_the_reason_and_run_again(program: Program, tmp_path: Path) -> None:
    arguments = ("--scale", "smoke", "--only", "properties", "--outputs", str(tmp_path), "--workers", "1")
    true = verdicts(program(*arguments, module=REPRODUCE))
    record = finished(tmp_path)[0]
    summary = record.read("summary.json")
    summary["metrics"] = {name: value + 1 for name, value in summary["metrics"].items()}
    (record.folder / "summary.json").write_bytes(to_json(summary))
    shown = program(*arguments, "--no-runs", module=REPRODUCE)
    reason = next(line for line in shown.stdout.splitlines() if line.startswith("excluded:"))
    assert "summary.json was changed after the run finished" in reason
    again = program(*arguments, module=REPRODUCE)
    assert "1 runs in" in again.stdout and "excluded:" not in again.stdout
    assert verdicts(again) == true
    tell(f"a record edited by hand: {reason!r}; `make reproduce` ran this one again, and the ledger is as before")

"""`make reproduce` at smoke scale: every experiment end to end, and nothing done twice."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from experiments.config.errors import ConfigError
from experiments.ledger.claims import claims, compared_factors
from experiments.ledger.runs import TIMED
from experiments.recording.record import records
from experiments.sweeps.executors import on_cluster
from experiments.sweeps.grid import jobs
from tests.conftest import ROOT, Ended, Program

REPRODUCE = "experiments.reproduce"
FIRST_AND_LAST = ("config.yaml", "summary.json")  # files that a run writes


@pytest.fixture(scope="module")
def reproduced(program: Program, tmp_path_factory) -> tuple[Path, Ended]:
    outputs = tmp_path_factory.mktemp("reproduced")
    return outputs, program("--scale", "smoke", "--outputs", str(outputs), module=REPRODUCE, timeout=900)


def test_every_experiment_runs_and_every_claim_gets_a_row(reproduced: tuple[Path, Ended]) -> None:
    outputs, ended = reproduced
    assert ended.returncode == 0, ended.stdout + ended.stderr
    ledger = json.loads((outputs / "report" / "ledger.json").read_text())
    assert [row["claim"]["id"] for row in ledger["claims"]] == [claim.id for claim in claims()]
    assert all(row["verdict"] != "not run" for row in ledger["claims"])
    page = (outputs / "report" / "index.html").read_text()
    assert all(f">{claim.id}<" in page for claim in claims())
    found = records(outputs)
    assert all(record.finished for record in found)
    logged = {file.stem.removeprefix("run-") for file in (outputs / "wandb").rglob("run-*.wandb")}
    summaries = {f"summary-{name}-smoke" for name in {record.config["name"] for record in found}}
    assert logged == {record.id for record in found} | summaries


def test_times_are_measured_after_all_other_runs_one_at_a_time(reproduced: tuple[Path, Ended]) -> None:
    found = records(reproduced[0])
    begun, ended = ({r.id: (r.folder / name).stat().st_mtime_ns for r in found} for name in FIRST_AND_LAST)
    timed = sorted((r for r in found if r.config["name"] in TIMED), key=lambda r: begun[r.id])
    others = [r for r in found if r.config["name"] not in TIMED]
    assert timed and max(ended[r.id] for r in others) < begun[timed[0].id]
    assert all(ended[one.id] < begun[other.id] for one, other in pairwise(timed))


def test_a_second_call_trains_nothing_and_says_the_same(reproduced: tuple[Path, Ended], program: Program) -> None:
    outputs, first = reproduced
    before = {record.folder: (record.folder / "status.json").stat().st_mtime_ns for record in records(outputs)}
    again = program("--scale", "smoke", "--outputs", str(outputs), module=REPRODUCE)
    assert again.returncode == 0
    assert "0 runs in" in again.stdout
    assert "excluded:" not in again.stdout
    assert {folder: (folder / "status.json").stat().st_mtime_ns for folder in before} == before
    table = first.stdout[first.stdout.index("ledger, smoke") : first.stdout.rindex(" inconclusive")]
    assert table in again.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--scale", "huge"], "scale=huge: no such choice"),
        (["--only", "position"], "only=position: no such choice; the nearest is 'positions'"),
    ],
)
def test_a_wrong_name_is_one_line(arguments: list[str], message: str, program: Program, tmp_path: Path) -> None:
    ended = program(*arguments, "--outputs", str(tmp_path), module=REPRODUCE)
    assert ended.returncode == 1
    assert message in ended.stdout + ended.stderr
    assert "Traceback" not in ended.stdout + ended.stderr


def test_ctrl_c_stops_at_once_and_the_same_command_goes_on(tmp_path: Path, program: Program) -> None:
    arguments = ["--scale", "smoke", "--only", "positions", "--outputs", str(tmp_path)]
    expected = len(jobs("positions", "smoke", str(tmp_path), 0, compared_factors(claims())))
    command = [sys.executable, "-m", REPRODUCE, *arguments]
    both = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    process = subprocess.Popen(command, cwd=ROOT, text=True, start_new_session=True, **both)  # type: ignore[call-overload]
    while not any(record.finished for record in records(tmp_path, "positions")):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.1)
    begun = sum(record.status != "new" for record in records(tmp_path, "positions"))
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=30)
    assert sum(record.status != "new" for record in records(tmp_path, "positions")) <= begun + 2  # begun meanwhile
    assert process.returncode == 130
    assert "run the same command again to resume" in output
    assert sum(record.finished for record in records(tmp_path, "positions")) < expected
    again = program(*arguments, module=REPRODUCE)
    assert again.returncode == 0, again.stdout
    assert sum(record.finished for record in records(tmp_path, "positions")) == expected
    assert all(record.finished for record in records(tmp_path))


@pytest.mark.slow
def test_a_cluster_works_off_the_same_jobs_and_tells_of_those_that_fail(tmp_path: Path) -> None:
    """submitit's own processes on this machine stand for a cluster's."""
    good = jobs("properties", "smoke", str(tmp_path))[0]
    bad = replace(good, factors=(("task.property", "nothing"), ("seed", "0")))
    ended = dict(on_cluster([good, bad], "local", tmp_path / "hydra"))
    assert ended[good] == "" and good.spec().record.finished
    assert "nothing" in ended[bad]
    with pytest.raises(ConfigError, match="LAUNCHER=slum: no such launcher; the nearest is 'slurm'"):
        on_cluster([good], "slum", tmp_path / "hydra")

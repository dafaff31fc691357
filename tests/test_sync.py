"""`make sync`: whatever W&B's server lacks of the records arrives, each row once."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from experiments.ledger.claims import claims
from experiments.ledger.evidence import Evidence
from experiments.ledger.verdicts import judge
from experiments.records.record import Record, records
from experiments.report.wandb.summary_runs import log_summaries
from experiments.sweeps.grid import Job
from experiments.tracking.offline import FOLDERS, run_files
from tests.conftest import ROOT, Ended, tiny
from tests.loopback import KEY, Server
from tests.test_tracking import call

pytestmark = pytest.mark.slow

LONG = ("training.steps=60", "training.checkpoint_every=7", "training.evaluate_at=[20]", "training.log_every=1")


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        yield running
    assert not running.unknown


def steps(record: Record) -> list[int]:
    """The steps of a record's rows."""
    return sorted({row["step"] for row in record.metrics()})


def sync(server: Server | None, outputs: Path, **environment: str) -> Ended:
    return call(server, "experiments.sync", str(outputs), **environment)


def made(outputs: Path, *overrides: str) -> list[Record]:
    """The records of runs that were never online."""
    ended = call(None, "experiments.run", *tiny(outputs, *overrides))
    assert ended.returncode == 0, ended.stderr
    return records(outputs)


def told(server: Server) -> dict[str, str]:
    """The environment of a user whose W&B is this server."""
    return {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")} | server.environment


def started(server: Server, module: str, *arguments: str) -> subprocess.Popen[bytes]:
    """A module in a process of its own that is not waited for."""
    command = [sys.executable, "-m", module, *arguments]
    quiet = subprocess.DEVNULL
    return subprocess.Popen(command, cwd=ROOT, env=told(server), stdout=quiet, stderr=quiet)


def assert_whole(server: Server, record: Record) -> None:
    """The server has every row of a finished record once, its results, its tables, and that it is finished."""
    run = server.runs[record.id]
    assert run.exit_code == 0
    assert server.histories[record.id] == steps(record)
    kept = {name: value for name, value in record.summary["metrics"].items() if "/head_" not in name}
    assert {name: run.summary[name] for name in kept} == pytest.approx(kept)
    for name, rows in record.read("tables.json").items():
        table = run.table(name)
        assert [dict(zip(table["columns"], row)) for row in table["data"]] == rows


@pytest.mark.parametrize("tracking", ["wandb_offline", "none"])
def test_runs_are_uploaded_once_however_they_were_tracked(tracking: str, server: Server, tmp_path: Path) -> None:
    found = made(tmp_path, "-m", "seed=0,1", "position=none", f"tracking={tracking}")
    first = sync(server, tmp_path)
    assert first.returncode == 0, first.stdout + first.stderr
    assert "2 runs uploaded" in first.stdout and KEY not in first.stdout + first.stderr
    for record in found:
        run = server.runs[record.id]
        assert (run.group, run.job_type) == ("positions", "LanguageModeling")
        assert "position=none" in run.tags
        assert_whole(server, record)
    posts = {record.id: server.runs[record.id].posts for record in found}
    again = sync(server, tmp_path)
    assert again.returncode == 0 and "nothing to upload" in again.stdout
    copied = shutil.copytree(tmp_path / "runs", tmp_path / "elsewhere" / "runs").parent
    assert "nothing to upload" in sync(server, copied).stdout
    assert {record.id: server.runs[record.id].posts for record in found} == posts


@pytest.mark.parametrize("tracking", ["wandb_online", "wandb_offline"])
def test_a_killed_run_arrives_as_far_as_it_came_and_whole_once_it_is_finished(
    tracking: str, server: Server, tmp_path: Path
) -> None:
    arguments = tiny(tmp_path, *LONG, f"tracking={tracking}")
    process = started(server, "experiments.run", *arguments)
    while not (found := records(tmp_path)) or not found[0].checkpoint_file.exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.wait()
    (record,) = found
    assert sync(server, tmp_path).returncode == 0
    assert server.histories[record.id] == steps(record)
    assert server.runs[record.id].exit_code == 1
    assert "nothing to upload" in sync(server, tmp_path).stdout
    again = call(server, "experiments.run", *arguments)
    assert again.returncode == 0 and "resuming from step" in again.stderr
    assert sync(server, tmp_path).returncode == 0
    assert_whole(server, record)
    assert [row["_step"] for row in server.runs[record.id].history if "nonoverlapping/loss" in row] == [20, 60]


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGINT])
def test_killed_and_stopped_at_random_moments_each_row_arrives_once(
    stop: signal.Signals, server: Server, tmp_path: Path
) -> None:
    """From two copies of a folder, as from two machines, each stopped many times."""
    folders = [tmp_path / "here", tmp_path / "there"]
    found = made(folders[0], "-m", "seed=0,1,2", *LONG, "experiment=gates", "task.prompts=1", "tracking=none")
    shutil.copytree(folders[0] / "runs", folders[1] / "runs")
    chance = random.Random(int(stop))
    whole = started(server, "experiments.sync", str(tmp_path / "none"))
    whole.wait()  # the modules are in the system's cache from here on
    for attempt in range(8):
        process = started(server, "experiments.sync", str(folders[attempt % 2]))
        time.sleep(chance.uniform(1.5, 9))
        process.send_signal(stop)
        process.wait()
    for folder in folders:
        ended = sync(server, folder)
        assert ended.returncode == 0, ended.stdout + ended.stderr
    for record in found:
        assert_whole(server, record)
    assert "nothing to upload" in sync(server, folders[0]).stdout


def test_several_at_once_upload_each_row_once(server: Server, tmp_path: Path) -> None:
    """Two in one folder, of which one waits its turn, and one in a copy of the folder."""
    here, there = tmp_path / "here", tmp_path / "there"
    found = made(here, "-m", "seed=0,1", *LONG, "tracking=none")
    shutil.copytree(here / "runs", there / "runs")
    with ThreadPoolExecutor(3) as pool:
        ended = [*pool.map(lambda folder: sync(server, folder), (here, here, there))]
    for each in ended:
        refused = each.stderr.startswith("error: another `make sync` uploads from")
        assert each.returncode == (1 if refused else 0), each.stdout + each.stderr
    for record in found:
        assert_whole(server, record)


def test_rows_that_arrived_before_their_tables_get_them(server: Server, tmp_path: Path) -> None:
    (record,) = made(tmp_path, "experiment=gates", "task.prompts=1", "tracking=none")
    assert sync(server, tmp_path).returncode == 0
    run = server.runs[record.id]
    run.files.clear()  # as after a kill between the rows and the files
    run.summary.clear()
    run.exit_code = None
    assert sync(server, tmp_path).returncode == 0
    assert_whole(server, record)


def test_what_cannot_be_sent_is_named(server: Server, tmp_path: Path) -> None:
    damaged, doubled, running, sound = made(tmp_path, "-m", "seed=3,4,5,6", "tracking=none")
    assert sync(server, tmp_path).returncode == 0
    before = server.histories
    damaged.metrics_file.write_text("")
    server.runs[doubled.id].history *= 2
    for record in (running, sound):
        del server.runs[record.id]
    running.set_status("running")
    log = tmp_path / "wandb" / "wandb" / "offline-run-20260101_000000-abc" / "run-abc.wandb"
    log.parent.mkdir(parents=True)
    log.write_bytes(b"something")
    with running.locked():
        ended = sync(server, tmp_path)
    assert ended.returncode == 1
    assert f"failed: {damaged.id}: {damaged.folder}: metrics.jsonl was changed" in ended.stdout
    assert f"failed: {doubled.id}: W&B has {len(before[doubled.id])} rows too many" in ended.stdout
    assert f"skipped: {running.id} is still running" in ended.stdout
    assert f"skipped: {log.parent} has no record" in ended.stdout
    assert f"1 runs uploaded: {sound.id}" in ended.stdout
    assert server.histories[sound.id] == before[sound.id] and running.id not in server.runs


@pytest.mark.parametrize("lacking", ["key", "server"])
def test_without_a_server_one_line_says_what_to_set(lacking: str, server: Server, tmp_path: Path) -> None:
    Record(tmp_path / "runs" / "positions" / "abc").set_status("interrupted")
    nowhere = {"WANDB_BASE_URL": "http://127.0.0.1:9"} if lacking == "server" else {}
    ended = sync(server if lacking == "server" else None, tmp_path, **nowhere)
    assert ended.returncode == 1
    (line,) = (ended.stdout + ended.stderr).splitlines()
    assert line.startswith("error: W&B cannot be reached (")
    assert "WANDB_API_KEY" in line and "WANDB_BASE_URL" in line


def evidence_of(outputs: Path, loss: float) -> Evidence:
    """Four finished runs of one experiment."""
    evidence: Evidence = {}
    compared = [c.metric for claim in claims() for c in claim.comparisons if c.experiment == "masked_lm"]
    for place, position in enumerate(("learned", "rope")):
        for seed in (0, 1):
            record = Record(outputs / "runs" / "masked_lm" / f"{place}{seed}")
            config = {"name": "masked_lm", "scale": "smoke", "outputs": str(outputs)}
            tracking = {"mode": "offline", "project": "experiment-reproduction", "entity": None}
            versions = {"code": "1", "processor": "one", "python": "3", "libraries": {"torch": "1"}, "data": "none"}
            record.begin(config | {"tracking": tracking}, versions)
            metrics = dict.fromkeys(compared, loss + place + seed / 10)
            summary = {"metrics": metrics, "evaluations": {"8": metrics}, "parameters": 9, "seconds": 1.0, "steps": 8}
            record.metrics_file.write_text("".join(f"{json.dumps({'step': s, **metrics})}\n" for s in (4, 8)))
            record.finish(summary, {})
            evidence[Job("masked_lm", "smoke", str(outputs), (("position", position), ("seed", str(seed))))] = record
    return evidence


def test_a_summary_run_has_the_levels_and_verdicts_and_is_replaced_when_they_change(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (*FOLDERS, "WANDB_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "wandb"))
    for loss, logs, said in ((3.0, 1, "1 runs"), (3.0, 1, "nothing to upload"), (2.0, 2, "1 runs")):
        evidence = evidence_of(tmp_path, loss)
        log_summaries([judge(claim, evidence) for claim in claims()], evidence, "smoke", str(tmp_path))
        assert len([log for log in run_files(str(tmp_path)) if "offline" in log.parent.name]) == logs
        ended = call(server, "experiments.sync", str(tmp_path))
        assert ended.returncode == 0 and said in ended.stdout, ended.stdout + ended.stderr
        run = server.runs["summary-masked_lm-smoke"]
        assert (run.group, run.job_type) == ("masked_lm", "summary")
        levels = run.table("levels")
        rows = [dict(zip(levels["columns"], row)) for row in levels["data"]]
        assert {row["level"]: (row["n"], row["mean"]) for row in rows} == {
            "learned": (2, pytest.approx(loss + 0.05)),
            "rope": (2, pytest.approx(loss + 1.05)),
        }
        assert all(row["low"] < row["mean"] < row["high"] for row in rows)
        claimed = {claim.id for claim in claims() for c in claim.comparisons if c.experiment == "masked_lm"}
        assert {row[0] for row in run.table("claims")["data"]} == claimed
        assert all(run.summary[f"verdict/{claim}"] for claim in claimed)
        assert server.histories[run.id] == [0]
        time.sleep(1)  # W&B names its folders by the second

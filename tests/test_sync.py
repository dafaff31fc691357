"""`make sync`: whatever W&B's server lacks of the records arrives, each row once."""

import contextlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import time
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from experiments import sync
from experiments.ledger.claims import claims
from experiments.ledger.evidence import Evidence
from experiments.ledger.verdicts import judge
from experiments.recording.record import Record
from experiments.report.wandb.summary_runs import log_summaries
from experiments.sweeps.grid import Job
from experiments.tracking.offline import FOLDERS, run_files
from tests.conftest import CONFIGURATION, ENVIRONMENT
from tests.loopback import KEY, Server

pytestmark = pytest.mark.slow

ROWS = 200
FORK = multiprocessing.get_context("fork")  # a child has all modules already


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        yield running
    assert not running.unknown


def made(outputs: Path, seed: int, rows: int = ROWS, mode: str = "disabled", finished: bool = True) -> Record:
    """A record, as a run of this mode leaves it, with its metrics, its table and the results of two evaluations."""
    record = Record(outputs / "runs" / "positions" / f"run{seed}")
    tracking = {"mode": mode, "project": "experiment-reproduction", "entity": None}
    config = CONFIGURATION | {"name": "positions", "seed": seed, "scale": "smoke", "outputs": str(outputs)}
    record.begin(config | {"tracking": tracking}, ENVIRONMENT | {"overrides": ["position=none", f"seed={seed}"]})
    lines = [json.dumps({"step": step, "train/loss": 1 / step}) for step in range(1, rows + 1)]
    metrics = {"nonoverlapping/loss": 1.0 + seed, "digits/128/start": 0.5}
    record.metrics_file.write_text("\n".join([*lines, json.dumps({"step": rows, **metrics})]) + "\n")
    if finished:
        evaluations = {str(rows // 2): metrics | {"nonoverlapping/loss": 0.5}, str(rows): metrics}
        summary = {"metrics": metrics, "evaluations": evaluations, "parameters": 9, "seconds": 1.0, "steps": rows}
        record.finish(summary, {"retrieval": [{"length": 128, "digits": 0.5}], "empty": []})
    return record


def started(server: Server | None, outputs: Path, said: Path, **environment: str) -> BaseProcess:
    """`make sync` in a process of its own; what it prints goes to a file."""

    def main() -> None:
        os.setpgrp()
        for name in [name for name in os.environ if name.startswith("WANDB_")]:
            del os.environ[name]
        os.environ.update((server.environment if server else {"NETRC": os.devnull}) | environment)
        with open(said, "w") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        with open(said, "a", buffering=1) as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
            code = sync.main([str(outputs)])
        raise SystemExit(code)

    process = FORK.Process(target=main)
    process.start()
    return process


def synced(server: Server | None, outputs: Path, **environment: str) -> tuple[int | None, str]:
    """The exit code of `make sync`, and what it printed."""
    said = outputs.parent / f"{outputs.name}.txt"
    process = started(server, outputs, said, **environment)
    process.join(200)
    text = "".join(line for line in said.read_text().splitlines(True) if not line.startswith("wandb:"))
    return process.exitcode, text


def assert_whole(server: Server, record: Record) -> None:
    """The server has every row of a finished record once, its results, its tables, and that it is finished."""
    run = server.runs[record.id]
    assert run.exit_code == 0
    assert server.histories[record.id] == [*range(1, record.summary["steps"] + 1)]
    assert [row["train/loss"] for row in run.history] == [1 / step for step in server.histories[record.id]]
    metrics = record.summary["metrics"]
    assert {name: run.summary[name] for name in metrics} == metrics
    assert run.summary["best/nonoverlapping/loss"] == 0.5
    assert run.table("retrieval")["data"] == [[0.5, 128]]  # digits, length


@pytest.mark.parametrize("mode", ["offline", "online", "disabled"])
def test_a_run_is_uploaded_once_however_it_was_tracked(mode: str, server: Server, tmp_path: Path) -> None:
    record = made(tmp_path / "here", 0, mode=mode)
    code, text = synced(server, tmp_path / "here")
    assert (code, text) == (0, f"1 runs uploaded: {record.id}\n")
    run = server.runs[record.id]
    assert (run.group, run.tags) == ("positions", ["position=none", "smoke"])
    assert_whole(server, record)
    shutil.copytree(tmp_path / "here" / "runs", tmp_path / "there" / "runs")
    posts = run.posts
    for folder in ("here", "there"):
        code, text = synced(server, tmp_path / folder)
        assert code == 0 and text.startswith("nothing to upload")
    assert run.posts == posts
    assert KEY.encode() not in b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())


def test_an_unfinished_run_arrives_as_far_as_it_came_and_whole_once_it_is_finished(
    server: Server, tmp_path: Path
) -> None:
    record = made(tmp_path, 0, rows=50, finished=False)
    assert synced(server, tmp_path)[0] == 0
    assert server.histories[record.id] == [*range(1, 51)]
    assert server.runs[record.id].exit_code == 1
    assert synced(server, tmp_path)[1].startswith("nothing to upload")
    made(tmp_path, 0)
    assert synced(server, tmp_path)[0] == 0
    assert [step for step in server.histories[record.id]] == [*range(1, ROWS + 1)]
    assert server.runs[record.id].exit_code == 0


@pytest.mark.parametrize("whole_group", [False, True])
@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGINT])
def test_killed_and_stopped_at_random_moments_each_row_arrives_once(
    stop: signal.Signals, whole_group: bool, server: Server, tmp_path: Path
) -> None:
    """From two copies of a folder, as from two machines. whole_group: whether W&B's own process is stopped too."""
    folders = [tmp_path / "here", tmp_path / "there"]
    found = [made(folders[0], seed) for seed in range(3)]
    shutil.copytree(folders[0] / "runs", folders[1] / "runs")
    chance = random.Random(int(stop))
    began = time.monotonic()
    synced(server, tmp_path / "here", WANDB_PROJECT="another")
    longest = time.monotonic() - began
    server.runs.clear()
    for attempt in range(6):
        process = started(server, folders[attempt % 2], tmp_path / "said.txt")
        time.sleep(chance.uniform(0.1, 0.9) * longest)
        with contextlib.suppress(ProcessLookupError):
            (os.killpg if whole_group else os.kill)(process.pid or 0, stop)
        process.join()
    for folder in folders:
        code, text = synced(server, folder)
        assert code == 0, text
    for record in found:
        assert_whole(server, record)
    assert synced(server, folders[0])[1].startswith("nothing to upload")


def test_several_at_once_upload_each_row_once(server: Server, tmp_path: Path) -> None:
    """Two in one folder, of which one is refused, and one in a copy of the folder."""
    here, there = tmp_path / "here", tmp_path / "there"
    found = [made(here, seed) for seed in range(2)]
    shutil.copytree(here / "runs", there / "runs")
    said = [tmp_path / f"{number}.txt" for number in range(3)]
    processes = [started(server, folder, file) for folder, file in zip((here, here, there), said)]
    for process in processes:
        process.join()
    for process, file in zip(processes, said):
        refused = "error: another `make sync` uploads from" in file.read_text()
        assert process.exitcode == (1 if refused else 0), file.read_text()
    for record in found:
        assert_whole(server, record)


def test_rows_that_arrived_before_their_tables_get_them(server: Server, tmp_path: Path) -> None:
    record = made(tmp_path, 0)
    assert synced(server, tmp_path)[0] == 0
    run = server.runs[record.id]
    run.files.clear()  # as after a kill between the rows and the files
    run.summary.clear()
    run.exit_code = None
    assert synced(server, tmp_path)[0] == 0
    assert_whole(server, record)


def test_what_cannot_be_sent_is_named(server: Server, tmp_path: Path) -> None:
    damaged, doubled, running, sound = (made(tmp_path, seed) for seed in range(4))
    assert synced(server, tmp_path)[0] == 0
    damaged.metrics_file.write_text("")
    server.runs[doubled.id].history *= 2
    del server.runs[running.id], server.runs[sound.id]
    running.set_status("running")
    log = tmp_path / "wandb" / "wandb" / "offline-run-20260101_000000-abc" / "run-abc.wandb"
    log.parent.mkdir(parents=True)
    log.write_bytes(b"something")
    with running.locked():
        code, text = synced(server, tmp_path)
    assert code == 1
    assert f"failed: {damaged.id}: {damaged.folder}: metrics.jsonl was changed" in text
    assert f"failed: {doubled.id}: W&B has {ROWS} rows too many" in text
    assert f"skipped: {running.id} is still running" in text
    assert f"skipped: {log.parent} has no record" in text
    assert f"1 runs uploaded: {sound.id}" in text
    assert_whole(server, sound)
    assert running.id not in server.runs


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"NETRC": os.devnull, "WANDB_API_KEY": ""}, "error: W&B cannot be reached ("),
        ({"WANDB_BASE_URL": "http://127.0.0.1:9"}, "error: W&B cannot be reached ("),
        ({"WANDB_BASE_URL": "nonsense"}, "error: WANDB_BASE_URL=nonsense: Input should be a valid URL"),
        ({"WANDB_BASE_URL": "http://host:port"}, "error: WANDB_BASE_URL=http://host:port: Input should be a valid URL"),
        ({"WANDB_MODE": "disabled"}, "error: WANDB_MODE=disabled: nothing is uploaded"),
        ({"WANDB_MODE": "dryrun"}, "error: WANDB_MODE=dryrun: choose one of offline, online, disabled"),
    ],
)
def test_what_cannot_begin_says_why_in_one_line(
    environment: dict[str, str], message: str, server: Server, tmp_path: Path
) -> None:
    made(tmp_path, 0)
    code, text = synced(server, tmp_path, **environment)
    assert code == 1 and text.startswith(message) and text.count("\n") == 1, text
    assert not server.runs


def evidence_of(outputs: Path, loss: float) -> Evidence:
    """Four finished runs of one experiment."""
    evidence: Evidence = {}
    compared = [c.metric for claim in claims() for c in claim.comparisons if c.experiment == "masked_lm"]
    for place, position in enumerate(("learned", "rope")):
        for seed in (0, 1):
            record = Record(outputs / "runs" / "masked_lm" / f"{place}{seed}")
            config = CONFIGURATION | {"name": "masked_lm", "scale": "smoke", "outputs": str(outputs), "seed": seed}
            tracking = {"mode": "offline", "project": "experiment-reproduction", "entity": None}
            record.begin(config | {"tracking": tracking}, ENVIRONMENT)
            metrics = dict.fromkeys(compared, loss + place + seed / 10)
            summary = {"metrics": metrics, "evaluations": {"8": metrics}, "parameters": 9, "seconds": 1.0, "steps": 8}
            record.metrics_file.write_text("".join(f"{json.dumps({'step': s, **metrics})}\n" for s in (4, 8)))
            record.finish(summary, {})
            evidence[Job("masked_lm", "smoke", str(outputs), (("position", position), ("seed", str(seed))))] = record
    return evidence


def test_a_summary_run_has_the_levels_and_verdicts_and_is_logged_when_they_change(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (*FOLDERS, "WANDB_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "wandb"))
    for loss, logs, said in ((3.0, 1, "5 runs"), (3.0, 1, "nothing to upload"), (2.0, 2, "1 runs")):
        evidence = evidence_of(tmp_path, loss)
        log_summaries([judge(claim, evidence) for claim in claims()], evidence, "smoke", str(tmp_path))
        assert len([log for log in run_files(str(tmp_path)) if "offline" in log.parent.name]) == logs
        code, text = synced(server, tmp_path)
        assert code == 0 and said in text, text
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
        assert server.histories[run.id] == list(range(logs))
        time.sleep(1)  # W&B names its folders by the second

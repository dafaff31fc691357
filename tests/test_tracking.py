"""W&B for real: what arrives at a server of an online run, of offline runs, and of runs that were cut off."""

import base64
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from experiments.ledger.claims import claims
from experiments.ledger.evidence import Evidence
from experiments.ledger.verdicts import judge
from experiments.records.record import Record, records
from experiments.report.wandb.summary_runs import log_summaries
from experiments.sweeps.grid import Job
from experiments.tracking.offline import FOLDERS, marker, run_files
from experiments.tracking.wandb_run import better
from tests.conftest import CONFIGURATION, ENVIRONMENT, ROOT, Ended, tiny
from tests.loopback import KEY, Server

pytestmark = pytest.mark.slow

GATES = ("experiment=gates", "gates=failing", "task.prompts=1")
LONG = ("tracking=wandb_offline", "training.steps=60", "training.checkpoint_every=7", "training.evaluate_at=[20]")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as running:
        yield running
    assert not running.unknown


def call(server: Server | None, module: str, *arguments: str, **environment: str) -> Ended:
    """A module as a user calls it, with the server's address and a key or with neither."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    told = kept | (server.environment if server else {"NETRC": os.devnull}) | environment
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, cwd=ROOT, env=told, capture_output=True, text=True, timeout=240)


def contents(folder: Path) -> bytes:
    """All bytes of all files in a folder."""
    return b"".join(file.read_bytes() for file in folder.rglob("*") if file.is_file())


@pytest.fixture(scope="module")
def online(server: Server, tmp_path_factory: pytest.TempPathFactory) -> tuple[Record, Ended]:
    """A run of a model with gates that was logged while it ran."""
    outputs = tmp_path_factory.mktemp("online")
    ended = call(server, "experiments.run", *tiny(outputs, *GATES, "tracking=wandb_online"))
    assert ended.returncode == 0, ended.stderr
    (record,) = records(outputs)
    return record, ended


def test_an_online_run_arrives_with_its_group_job_type_tags_config_and_steps(server: Server, online) -> None:
    record, _ = online
    run = server.runs[record.id]
    assert (run.group, run.job_type, run.exit_code) == ("gates", "Passkey", 0)
    assert {"gates=failing", "prompts=1", "smoke"} <= set(run.tags)
    assert run.name.startswith("gates-") and run.name.endswith("-seed0")
    assert run.config["model"]["width"] == 32
    assert run.config["training"] == record.config["training"]
    assert server.histories[record.id] == sorted({row["step"] for row in record.metrics()})
    assert all(marker(log).exists() for log in run_files(record.config["outputs"]))  # nothing is left for `make sync`
    logged = {row["_step"]: row for row in run.history}
    for row in record.metrics():
        kept = {name: value for name, value in row.items() if name != "step" and "/head_" not in name}
        assert {name: logged[row["step"]][name] for name in kept} == pytest.approx(kept)


def test_its_summary_has_last_and_best_values_and_every_metric_its_direction(server: Server, online) -> None:
    record, _ = online
    run = server.runs[record.id]
    name = "through_memory/digits"
    evaluations = [metrics[name] for metrics in record.summary["evaluations"].values()]
    assert len(evaluations) == 3
    assert run.summary[name] == record.summary["metrics"][name] == evaluations[-1]
    assert run.summary[f"best/{name}"] == max(evaluations)
    assert run.summary["parameters"] == record.summary["parameters"]
    assert run.metrics[name] == {"step": "_step", "summary": "max"}
    assert run.metrics["train/loss"] == {"step": "_step", "summary": None}


@pytest.mark.parametrize(
    ("name", "direction"),
    [
        ("nonoverlapping/perplexity", "min"),
        ("masked/accuracy", "max"),
        ("baseline/lead/rouge1", "max"),
        ("digits/128/start", "max"),
        ("train/loss", None),
        ("score_change/rope", None),
    ],
)
def test_directions(name: str, direction: str | None) -> None:
    assert better(name) == direction


def test_gates_arrive_as_histograms_and_tables_whole(server: Server, online) -> None:
    record, _ = online
    run = server.runs[record.id]
    heads = [value for name, value in record.summary["metrics"].items() if "/head_" in name]
    histograms = [row["gates/shares"] for row in run.history if "gates/shares" in row]
    assert len(histograms) == 3
    assert all(sum(histogram["values"]) == len(heads) for histogram in histograms)
    assert not any("/head_" in name for name in [*run.summary, *(key for row in run.history for key in row)])
    assert [row[-1] for row in run.table("gates/by_head")["data"]] == pytest.approx(heads)
    grid, rows = run.table("retrieval"), record.read("tables.json")["retrieval"]
    assert [dict(zip(grid["columns"], row)) for row in grid["data"]] == rows


def test_the_key_stays_out_of_records_logs_and_output(server: Server, online) -> None:
    record, ended = online
    sent = base64.b64encode(f"api:{KEY}".encode()).decode()
    assert server.keys == {f"Basic {sent}"}
    for secret in (KEY, sent):
        assert secret not in ended.stdout + ended.stderr
        assert secret.encode() not in contents(record.folder.parent.parent.parent)


def test_offline_runs_are_uploaded_once(server: Server, tmp_path: Path) -> None:
    swept = call(None, "experiments.run", *tiny(tmp_path, "-m", "seed=0,1", "position=none", "tracking=wandb_offline"))
    assert swept.returncode == 0, swept.stderr
    found = records(tmp_path)
    first = call(server, "experiments.sync", str(tmp_path))
    assert first.returncode == 0, first.stdout
    assert "2 runs uploaded" in first.stdout and KEY not in first.stdout + first.stderr
    for record in found:
        run = server.runs[record.id]
        assert (run.group, run.job_type, run.exit_code) == ("positions", "LanguageModeling", 0)
        assert "position=none" in run.tags
        assert run.summary["nonoverlapping/loss"] == pytest.approx(record.summary["metrics"]["nonoverlapping/loss"])
    posts, asked = {record.id: server.runs[record.id].posts for record in found}, len(server.operations)
    again = call(server, "experiments.sync", str(tmp_path))
    assert again.returncode == 0 and "nothing to upload" in again.stdout
    assert {record.id: server.runs[record.id].posts for record in found} == posts
    assert len(server.operations) == asked


@pytest.mark.parametrize(("how", "heads"), [("killed", 1), ("cut", 2)])
def test_a_run_that_was_taken_up_again_arrives_as_one(how: str, heads: int, server: Server, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "experiments.run", *tiny(tmp_path, *LONG, f"model.heads={heads}")]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not (found := records(tmp_path)) or not found[0].checkpoint_file.exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL if how == "killed" else signal.SIGTERM)
    process.wait()
    (log,) = run_files(str(tmp_path))
    if how == "cut":  # what a kill leaves of a longer log
        log.write_bytes(log.read_bytes()[: log.stat().st_size // 2])
    again = call(None, "experiments.run", *command[3:])
    assert again.returncode == 0, again.stderr
    assert "resuming from step" in again.stderr
    ended = call(server, "experiments.sync", str(tmp_path))
    assert ended.returncode == 0, ended.stdout
    (record,) = records(tmp_path)
    run = server.runs[record.id]
    assert run.exit_code == 0
    assert server.histories[record.id] == sorted({row["step"] for row in record.metrics()})
    assert [row["_step"] for row in run.history if "nonoverlapping/loss" in row] == [20, 60]
    asked = len(server.operations)
    assert "nothing to upload" in call(server, "experiments.sync", str(tmp_path)).stdout
    assert len(server.operations) == asked


@pytest.mark.parametrize("lacking", ["key", "server"])
def test_without_a_server_one_line_says_what_to_set(lacking: str, server: Server, tmp_path: Path) -> None:
    folder = tmp_path / "wandb" / "wandb" / "offline-run-20260101_000000-abc"
    folder.mkdir(parents=True)
    (folder / "run-abc.wandb").write_bytes(b"something")
    nowhere = {"WANDB_BASE_URL": "http://127.0.0.1:9"} if lacking == "server" else {}
    ended = call(server if lacking == "server" else None, "experiments.sync", str(tmp_path), **nowhere)
    assert ended.returncode == 1
    (line,) = (ended.stdout + ended.stderr).splitlines()
    assert line.startswith("error: W&B cannot be reached (")
    assert "WANDB_API_KEY" in line and "WANDB_BASE_URL" in line


def test_a_log_that_cannot_be_read_fails_and_others_go_up(server: Server, tmp_path: Path) -> None:
    assert call(None, "experiments.run", *tiny(tmp_path, "seed=5", "tracking=wandb_offline")).returncode == 0
    folder = tmp_path / "wandb" / "wandb" / "offline-run-20260101_000000-abc"
    folder.mkdir(parents=True)
    (folder / "run-abc.wandb").write_bytes(b"no log of W&B's")
    ended = call(server, "experiments.sync", str(tmp_path), WANDB_ENTITY="team")
    assert ended.returncode == 1
    assert "failed: abc: " in ended.stdout and "1 runs uploaded" in ended.stdout
    assert server.runs[records(tmp_path)[0].id].entity == "team"


def test_a_run_in_progress_is_left_for_later(server: Server, tmp_path: Path) -> None:
    assert call(None, "experiments.run", *tiny(tmp_path, "seed=6", "tracking=wandb_offline")).returncode == 0
    (record,) = records(tmp_path)
    record.set_status("running")
    with record.locked():
        ended = call(server, "experiments.sync", str(tmp_path))
    assert f"skipped: {record.id}" in ended.stdout and record.id not in server.runs


def test_the_dashboard_says_what_to_run_where_there_is_nothing(tmp_path: Path) -> None:
    ended = call(None, "experiments.dashboard", str(tmp_path), DISPLAY="")
    assert ended.returncode == 1
    assert ended.stderr.splitlines() == [
        f"error: there is nothing to show in {tmp_path} yet: run `make reproduce` first"
    ]


def evidence_of(outputs: Path, loss: float) -> Evidence:
    """Four finished runs of one experiment."""
    evidence: Evidence = {}
    compared = [c.metric for claim in claims() for c in claim.comparisons if c.experiment == "masked_lm"]
    for place, position in enumerate(("learned", "rope")):
        for seed in (0, 1):
            record = Record(outputs / "runs" / "masked_lm" / f"{place}{seed}")
            config = CONFIGURATION | {"name": "masked_lm", "scale": "smoke", "outputs": str(outputs)}
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
    for name in FOLDERS:
        monkeypatch.setenv(name, str(tmp_path))
    for loss, logs in ((3.0, 1), (3.0, 1), (2.0, 2)):
        evidence = evidence_of(tmp_path, loss)
        log_summaries([judge(claim, evidence) for claim in claims()], evidence, "smoke", str(tmp_path))
        assert len(run_files(str(tmp_path))) == logs
        assert call(server, "experiments.sync", str(tmp_path)).returncode == 0
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

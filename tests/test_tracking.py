"""W&B for real: what arrives at a server of an online run."""

import base64
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from experiments.recording.metrics import better
from experiments.recording.record import Record, records
from tests.conftest import ROOT, Ended, tiny
from tests.loopback import KEY, Server

pytestmark = pytest.mark.slow

GATES = ("experiment=gates", "gates=failing", "task.prompts=1")


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
    synced = call(server, "experiments.sync", record.config["outputs"])
    assert "nothing to upload" in synced.stdout, synced.stdout + synced.stderr
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


def test_the_dashboard_says_what_to_run_where_there_is_nothing(tmp_path: Path) -> None:
    ended = call(None, "experiments.dashboard", str(tmp_path), DISPLAY="")
    assert ended.returncode == 1
    assert ended.stderr.splitlines() == [
        f"error: there is nothing to show in {tmp_path} yet: run `make reproduce` first"
    ]


def test_artifacts_lead_from_the_data_to_the_ledger(server: Server, tmp_path: Path) -> None:
    """Data → start run → run → ledger, by the edges that the server gets."""
    shared = ["tracking=wandb_online", "task.vocabulary_size=300", "task.prompts=1", "data=stdlib"]
    start = [*tiny(tmp_path), "experiment=context_extension", "position=rope_interpolated", "extension=2", *shared]
    ended = call(server, "experiments.run", *start)
    assert ended.returncode == 0, ended.stderr
    first, second = sorted(records(tmp_path), key=lambda record: record.environment["start"] is not None)
    own = {artifact.name: artifact for artifact in server.artifacts if artifact.type in ("data", "run")}
    data = own[f"data-{first.environment['data']}"]
    assert set(data.used_by) >= {first.id, second.id}
    assert own[f"run-{first.id}"].run == first.id and own[f"run-{first.id}"].used_by == [second.id]
    assert own[f"run-{second.id}"].metadata == {"experiment": "context_extension", "scale": "smoke"}


def test_the_ledger_is_an_artifact_of_the_runs_that_it_judges(server: Server, tmp_path: Path) -> None:
    options = ["--scale", "smoke", "--only", "masked_lm", "--outputs", str(tmp_path)]
    ended = call(server, "experiments.reproduce", *options, WANDB_MODE="online")
    assert ended.returncode == 0, ended.stderr
    (ledger,) = [artifact for artifact in server.artifacts if artifact.name == "ledger-masked_lm-smoke"]
    used = {artifact.name for artifact in server.artifacts if ledger.run in artifact.used_by}
    assert used == {f"run-{record.id}" for record in records(tmp_path, "masked_lm")}


def test_artifacts_are_switched_off_and_weights_are_asked_for(server: Server, tmp_path: Path) -> None:
    for amount, names in (("none", set()), ("all", {"data", "run"})):
        ended = call(
            server, "experiments.run", *tiny(tmp_path / amount), f"tracking.artifacts={amount}", "tracking=wandb_online"
        )
        assert ended.returncode == 0, ended.stderr
        (record,) = records(tmp_path / amount)
        own = [each for each in server.artifacts if record.id in (each.run, *each.used_by)]
        assert {each.type for each in own if each.type in ("data", "run")} == names

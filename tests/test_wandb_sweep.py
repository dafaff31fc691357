"""conf/sweep.yaml: a sweep of W&B's own, made and run by W&B's own programs against a server on this machine."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from experiments.config.choices import CONF
from experiments.config.compose import check_overrides
from experiments.recording.metrics import better
from experiments.recording.record import records
from tests.conftest import ROOT, tiny
from tests.loopback_sweeps import SWEEP, SweepServer

pytestmark = pytest.mark.slow

FILE = CONF / "sweep.yaml"
QUICK = "from wandb.wandb_agent import Agent; Agent.POLL_INTERVAL = 0.1; "  # seconds; 5 else
MAIN = "import sys; from wandb.cli.cli import cli; cli(sys.argv[1:])"
VALUES = {"optimizer.lr": 0.002, "position": "alibi"}


def wandb(server: SweepServer, folder: Path, *arguments: str) -> str:
    """Call W&B's program, with our interpreter first in the path as in an active .venv; returns what it said."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    environment = kept | server.environment | {"PATH": path, "WANDB_DIR": str(folder / "wandb")}
    command = [sys.executable, "-c", QUICK + MAIN, *arguments]
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    return ended.stderr


def test_an_agents_runs_land_in_its_sweep_those_finished_before_as_well(tmp_path: Path) -> None:
    settings = yaml.safe_load(FILE.read_text())
    settings["command"][-1:-1] = tiny(tmp_path)
    file = tmp_path / "sweep.yaml"
    file.write_text(yaml.safe_dump(settings))
    with SweepServer([VALUES, VALUES]) as server:
        assert f"wandb agent tester/experiment-reproduction/{SWEEP}" in wandb(server, tmp_path, "sweep", str(file))
        told = wandb(server, tmp_path, "agent", f"tester/experiment-reproduction/{SWEEP}")
    assert not server.unknown
    (record,) = records(tmp_path)
    assert record.finished and record.config["optimizer"]["lr"] == VALUES["optimizer.lr"]
    assert "finished before" in told and "Ignoring" not in told
    assert server.sweep_of == {"handed0": SWEEP, "handed1": SWEEP}
    first, second = server.runs["handed0"], server.runs["handed1"]
    metric = settings["metric"]["name"]
    for run in (first, second):
        assert run.summary[metric] == pytest.approx(record.summary["metrics"][metric])
        assert (run.project, run.group, run.exit_code) == ("experiment-reproduction", "positions", 0)
        assert "position=alibi" in run.tags
    assert [row["_step"] for row in first.history] == [row["_step"] for row in second.history]


def test_what_the_file_says_can_be_run() -> None:
    """Its metric has the direction that we know, and every value of every parameter is one that is taken."""
    settings = yaml.safe_load(FILE.read_text())
    fixed = [part for part in settings["command"] if "=" in part]
    assert settings["metric"]["goal"] == f"{better(settings['metric']['name'])}imize"
    for key, space in settings["parameters"].items():
        for value in space.get("values") or (space["min"], space["max"]):
            check_overrides([*fixed, f"{key}={value}"])

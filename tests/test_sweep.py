"""Sweeps by Hydra's launchers: real processes, the same records whoever runs them, an end that tells of each job."""

import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hydra.types import RunMode
from omegaconf import OmegaConf

from experiments.config.compose import compose
from experiments.config.composition import hydra_at_conf
from experiments.recording.record import Record, records
from experiments.sweeps.grid_sweeper import CachingLoader
from experiments.training.run_spec import resolve
from tests.conftest import ROOT, Program, tiny

pytestmark = pytest.mark.slow

JOBS = ("-m", "position=rope,none", "seed=0", "tracking=none")
FILES = ("metrics.jsonl", "tables.json")


def contents(outputs: Path) -> dict[str, list[bytes]]:
    """What came out of each run."""
    return {record.id: [(record.folder / name).read_bytes() for name in FILES] for record in records(outputs)}


@pytest.fixture(scope="module")
def basic(program: Program, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[bytes]]:
    """What comes out of the same sweep in one process."""
    outputs = tmp_path_factory.mktemp("basic")
    ended = program(*tiny(outputs, *JOBS))
    assert ended.returncode == 0, ended.stderr
    return contents(outputs)


@pytest.mark.parametrize(
    "overrides",
    [
        ["position=rope", "seed=3", "optimizer.lr=1e-2"],
        ["position=none", "training.steps=3", "data=pg19", "data.path=books"],
        ["seed=4", "+training.evaluate_at=[1,2]", "~tracking"],
    ],
)
def test_a_job_is_composed_as_hydra_does(overrides: list[str]) -> None:
    """By both loaders, and by ours when it has composed the like before."""
    with hydra_at_conf() as loader:
        master = loader.load_configuration("config", ["experiment=positions", "seed=range(3)"], RunMode.MULTIRUN)
    overrides = ["experiment=positions", "scale=smoke", *overrides]
    cached = CachingLoader(loader)
    cached.load_sweep_config(master, [override for override in overrides if override != "seed=3"])
    found = [OmegaConf.to_container(each.load_sweep_config(master, overrides)) for each in (loader, cached)]
    assert found[0] == found[1]
    assert pickle.loads(pickle.dumps(cached)).composed == {} != cached.composed


def test_several_processes_make_the_same_records(
    basic: dict[str, list[bytes]], program: Program, tmp_path: Path
) -> None:
    ended = program(*tiny(tmp_path, *JOBS, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"))
    assert ended.returncode == 0, ended.stderr
    assert contents(tmp_path) == basic


def test_a_run_that_another_sweep_is_at_is_put_off_and_waited_for(tmp_path: Path) -> None:
    """Another process, here this one, is at the first run, and leaves it undone."""
    held = resolve(compose(tiny(tmp_path, "position=rope", "seed=0", "tracking=none"))).record
    command = [sys.executable, "-m", "experiments.run", *tiny(tmp_path, *JOBS)]
    with held.locked():
        sweep = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
        while not any(record.finished for record in records(tmp_path)):
            assert sweep.poll() is None
            time.sleep(0.05)
        assert held.status == "new"
    _, told = sweep.communicate(timeout=60)
    assert sweep.returncode == 0, told
    assert held.finished and f"postponed: {held.folder} is being run by another process" in told


def test_ctrl_c_stops_all_processes_sooner_than_they_started(tmp_path: Path) -> None:
    """Both jobs leave a checkpoint from which the same command goes on."""
    arguments = tiny(
        tmp_path,
        *JOBS,
        "training.steps=100000",
        "training.checkpoint_every=20",
        "hydra/launcher=joblib",
        "hydra.launcher.n_jobs=2",
    )
    command = [sys.executable, "-m", "experiments.run", *arguments]
    begun = time.monotonic()
    running = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True)
    while sum(record.checkpoint_file.exists() for record in records(tmp_path)) < 2:
        assert running.poll() is None
        time.sleep(0.2)
    asked = time.monotonic()
    os.killpg(running.pid, signal.SIGINT)
    _, told = running.communicate(timeout=120)
    assert time.monotonic() - asked < asked - begun
    assert running.returncode == 130 and "run the same command again to resume" in told and "Traceback" not in told
    assert {Record(record.folder).status for record in records(tmp_path)} <= {"interrupted", "running"}

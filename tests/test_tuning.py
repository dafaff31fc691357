"""Optuna as Hydra's sweeper: real studies on disk, which go on where they were whatever stopped them."""

import contextlib
import shlex
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.study import StudyDirection
from optuna.trial import TrialState
from rich.console import Console

from experiments.config.compose import compose
from experiments.config.errors import ConfigError
from experiments.config.overrides import parse
from experiments.recording.record import records
from experiments.run import tunes
from experiments.sweeps.optuna_sweeper import OptunaSweeper, direction_of, distribution, size_of, study_in
from experiments.training.run_spec import resolve
from tests.conftest import ROOT, Program, tiny
from tests.test_run import one_line

METRIC = "nonoverlapping/perplexity"
SPACE = ("optimizer.lr=tag(log,interval(1e-4,1e-2))", "model.width=choice(16,32)")
TUNE = ("-m", "hydra/sweeper=optuna", f"hydra.sweeper.metric={METRIC}", "tracking=none")


def searched(outputs: Path, trials: int, *overrides: str) -> list[str]:
    """The arguments of a study of so many tiny trials."""
    return tiny(outputs, *TUNE, f"hydra.sweeper.n_trials={trials}", "training.steps=2", *overrides)


def study_of(outputs: Path) -> optuna.Study:
    """The only study there is."""
    (file,) = (outputs / "hydra").glob("*.db")
    return optuna.load_study(study_name="study", storage=f"sqlite:///{file}")


@pytest.mark.slow
def test_a_study_goes_on_until_enough_trials_are_finished(program: Program, tmp_path: Path) -> None:
    """Three, then one more after a kill -9 in the middle of it; the best is told as a command that gives it again."""
    assert program(*searched(tmp_path, 3, *SPACE)).returncode == 0
    before = [(trial.number, trial.params, trial.value) for trial in study_of(tmp_path).trials]
    assert len(before) == len(records(tmp_path)) == 3
    command = [sys.executable, "-m", "experiments.run", *searched(tmp_path, 4, *SPACE)]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    while len(records(tmp_path)) < 4:
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    (cut,) = study_of(tmp_path).get_trials(states=[TrialState.RUNNING])
    ended = program(*searched(tmp_path, 4, *SPACE))
    assert ended.returncode == 0, ended.stderr
    *first, last = study_of(tmp_path).trials
    assert [(trial.number, trial.params, trial.value) for trial in first] == before
    assert (last.number, last.params, last.state) == (3, cut.params, TrialState.COMPLETE)
    found = {record.summary["metrics"][METRIC] for record in records(tmp_path)}
    assert {trial.value for trial in study_of(tmp_path).trials} == found
    (best,) = [line for line in ended.stderr.splitlines() if line.startswith("best ")]
    assert best.startswith(f"best {METRIC}: {min(found):.6g}, with python -m experiments.run ")
    overrides = shlex.split(best.split("experiments.run ")[1])
    record = resolve(compose(overrides), overrides).record
    assert record.finished and record.summary["metrics"][METRIC] == min(found)


@pytest.mark.slow
def test_a_trial_that_fails_is_told_and_the_others_go_on_two_at_a_time(program: Program, tmp_path: Path) -> None:
    several = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    ended = program(*searched(tmp_path, 4, "model.heads=3,2", *several))
    assert ended.returncode == 1 and "Traceback" not in ended.stderr
    trials = study_of(tmp_path).trials
    states = {(trial.params["model.heads"], trial.state) for trial in trials}
    assert states == {("3", TrialState.FAIL), ("2", TrialState.COMPLETE)}
    assert len(trials) == 2 and "1 of 4 trials finished; all values were tried" in ended.stderr


@pytest.mark.slow
def test_a_trial_that_another_process_is_at_is_waited_for(tmp_path: Path) -> None:
    """Its result is told, not that it failed."""
    first = tiny(tmp_path, "tracking=none", "training.steps=2", "optimizer.lr=0.003")
    held = resolve(compose(first), first).record
    command = [sys.executable, "-m", "experiments.run", *searched(tmp_path, 1, "optimizer.lr=choice(0.003)")]
    with held.locked():
        study = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
        assert study.stderr is not None
        assert f"postponed: {held.folder} is being run by another process" in study.stderr.readline()
    _, told = study.communicate(timeout=60)
    assert study.returncode == 0, told
    (trial,) = study_of(tmp_path).trials
    assert trial.state == TrialState.COMPLETE and trial.value == held.summary["metrics"][METRIC]


@pytest.mark.slow
def test_a_metric_that_the_runs_lack_is_named_with_the_nearest(program: Program, tmp_path: Path) -> None:
    ended = program(*searched(tmp_path, 2, *SPACE, "hydra.sweeper.metric=sliding/perplexity"))
    assert "the runs have no such metric; the nearest is 'nonoverlapping/perplexity'" in one_line(ended)
    assert not records(tmp_path)


class Launched:
    """A launcher whose runs come to a value at once: x itself, None where x is 3 or "bad"."""

    def launch(self, jobs: list[list[str]], initial_job_idx: int) -> list[SimpleNamespace]:
        values = [job[-1].removeprefix("x=") for job in jobs]
        known = {"a": 1.0, "b": 2.0, "bad": None, "3": None}
        found = [known.get(value, 0.5) for value in values]
        return [SimpleNamespace(return_value=value and {METRIC: value}) for value in found]


@pytest.mark.parametrize("at_a_time", [1, 2, 5])
@pytest.mark.parametrize(
    ("space", "finished"),
    [
        (CategoricalDistribution(["a", "b", "bad"]), 2),
        (CategoricalDistribution(["a"]), 1),
        (IntDistribution(0, 9), 9),
        (IntDistribution(1, 9, step=2), 4),
        (FloatDistribution(0, 1), 12),
    ],
)
def test_no_value_is_tried_twice_and_each_is_tried(
    space: BaseDistribution, finished: int, at_a_time: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a failing value, of values that lie in few, and however many are run at a time."""
    monkeypatch.setenv("EXPERIMENTS_CALL", str(tmp_path))
    study, sweeper = optuna.create_study(), OptunaSweeper(12, METRIC, seed=0)
    sweeper.launcher, sweeper.at_a_time = Launched(), at_a_time  # type: ignore[assignment]
    sweeper.resume(study, [], {"x": space})
    values = [trial.params["x"] for trial in study.trials]
    assert len(set(values)) == len(values) == min(size_of({"x": space}), 12)
    assert len(study.get_trials(states=[TrialState.COMPLETE])) == finished


@pytest.mark.slow
def test_a_study_that_is_damaged_or_locked_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("no study " * 1000)
    file = tmp_path / "cut.db"
    study_in(file, StudyDirection.MINIMIZE).add_trial(optuna.create_trial(value=1.0))
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    for damaged in ("text.db", "cut.db"):
        with pytest.raises(
            ConfigError, match=r"the study .*\.db cannot be read or written \(.*\): if no other program"
        ):
            study_in(tmp_path / damaged, StudyDirection.MINIMIZE).get_trials()
    with contextlib.closing(sqlite3.connect(tmp_path / "locked.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(ConfigError, match="database is locked"):
            study_in(tmp_path / "locked.db", StudyDirection.MINIMIZE)


@pytest.mark.parametrize(
    ("trials", "arguments", "message"),
    [
        (0, SPACE, "hydra.sweeper.n_trials=0: Input should be greater than 0"),
        (3, ["position=rope"], "has nothing to search"),
        (3, ["data=pg19", *SPACE], "set HF_HUB_OFFLINE=0"),
    ],
)
def test_a_study_that_cannot_be_made_is_refused_before_it_starts(
    trials: int, arguments: list[str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        OptunaSweeper(trials, METRIC, seed=0).tune(tiny(tmp_path, *arguments), Console())
    assert not (tmp_path / "hydra").exists()


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("a=interval(1,8)", FloatDistribution(1, 8)),
        ("a=tag(log,interval(1e-4,1e-2))", FloatDistribution(1e-4, 1e-2, log=True)),
        ("a=int(interval(1,8))", IntDistribution(1, 8)),
        ("a=tag(log,int(interval(1,8)))", IntDistribution(1, 8, log=True)),
        ("a=range(8)", IntDistribution(0, 7)),
        ("a=range(8,1,-3)", IntDistribution(2, 8, step=3)),
        ("a=range(0,1,0.5)", CategoricalDistribution(["0.0", "0.5"])),
        ("a=rope,alibi", CategoricalDistribution(["alibi", "rope"])),
        ("a=choice(rope,alibi)", CategoricalDistribution(["alibi", "rope"])),
    ],
)
def test_hydras_overrides_are_optunas_distributions(override: str, expected: BaseDistribution) -> None:
    assert distribution(parse(override)) == expected


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("a=tag(int,interval(1,8))", "the tag int is not supported here"),
        ("a=tag(log,choice(1,8))", "the tag log is not supported here"),
        ("a=interval(2,1)", "'a=interval(2,1)': `low <= high` must hold"),
        ("a=tag(log,interval(0,1))", "'a=tag(log,interval(0,1))': "),
    ],
)
def test_a_distribution_that_there_is_none_of_is_refused(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        distribution(parse(override))
    assert message in str(refused.value)


@pytest.mark.parametrize("metric", ["nonoverlapping/bits_per_byte", "sliding/bits_per_byte", "nonoverlapping/loss"])
def test_the_scores_that_a_language_model_prints_can_be_minimized(metric: str) -> None:
    assert direction_of(metric) == StudyDirection.MINIMIZE


@pytest.mark.parametrize(("metric", "message"), [(None, "needs a metric"), ("state_floats", "is not a score")])
def test_a_metric_without_a_direction_is_refused(metric: str | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        direction_of(metric)


@pytest.mark.parametrize(
    ("overrides", "multirun", "message"),
    [
        (["hydra/sweeper=optun"], True, "hydra/sweeper=optun: no such choice; the nearest is 'optuna'"),
        (["hydra/launcher=joblip"], True, "hydra/launcher=joblip: no such choice; the nearest is 'joblib'"),
        (["hydra/sweeper=optuna"], False, "add -m"),
        (["hydra/sweeper=optuna", "hydra.sweeper.trials=3"], True, "hydra.sweeper.trials"),
        (["optimizer.lr=interval(1e-4,1e-2)"], True, "add hydra/sweeper=optuna to search it"),
    ],
)
def test_overrides_that_hydra_would_not_take_are_refused(overrides: list[str], multirun: bool, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        tunes(overrides, multirun)
    assert message in str(refused.value) and "\n" not in str(refused.value)


def test_the_sweep_that_an_experiment_brings_along_is_left_to_the_other_sweeper() -> None:
    assert tunes(["experiment=positions", "hydra/sweeper=optuna", "seed=range(3)"], multirun=True)
    assert not tunes(["experiment=positions", "seed=0,1"], multirun=True)

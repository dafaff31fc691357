"""The search for activations: every strategy, no function twice, and going on after it was killed."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest

from tests.conftest import CACHE, ROOT, Program

pytestmark = pytest.mark.slow

TINY = ("experiment=activation_search", "scale=smoke", "data=digits", "model=resnet", "model.width=4", "threads=1")


def arguments(outputs: Path, *overrides: str) -> list[str]:
    return [*TINY, f"outputs={outputs}", f"cache={CACHE}", *overrides]


def run_folder(outputs: Path) -> Path:
    (folder,) = (outputs / "runs" / "activation_search").iterdir()
    return folder


def trials(outputs: Path) -> list[optuna.trial.FrozenTrial]:
    storage = f"sqlite:///{run_folder(outputs)}/search.db"
    return optuna.load_study(study_name="search", storage=storage).get_trials()


def trained(outputs: Path) -> list[tuple[str, float]]:
    """Key and score of every function that a network was trained with."""
    done = optuna.trial.TrialState.COMPLETE
    return [
        (t.user_attrs["key"], t.value) for t in trials(outputs) if t.state == done and "same_as" not in t.user_attrs
    ]


@pytest.mark.parametrize(
    "overrides",
    [
        ("search.strategy=exhaustive",),
        ("search.strategy=random", "search.units=2", "search.max_operations=30"),
        ("search.strategy=evolutionary", "search.trials=6", "tracking=none"),
        ("search.strategy=model_based", "search.trials=6", "search.workers=2", "tracking=none"),
    ],
    ids=["exhaustive", "two units", "evolutionary", "model-based, two workers"],
)
def test_a_search_trains_with_its_budget_of_different_functions(
    overrides: tuple[str, ...], program: Program, tmp_path: Path
) -> None:
    ended = program(*arguments(tmp_path, *overrides))
    assert ended.returncode == 0, ended.stderr
    found = trained(tmp_path)
    budget = next((int(o.split("=")[1]) for o in overrides if o.startswith("search.trials")), 3)
    assert len(found) == budget == len({key for key, _ in found})
    summary = json.loads((run_folder(tmp_path) / "summary.json").read_text())
    metrics = summary["metrics"]
    assert metrics["trained"] == budget
    assert metrics["best_score"] == max(score for _, score in found)
    assert metrics["asked"] == budget + metrics["refused"] + metrics["known"] == len(trials(tmp_path))
    assert metrics["found_minus_relu"] == pytest.approx(metrics["retrained/found"] - metrics["retrained/relu"])
    assert 1 <= metrics["rank/swish"] <= budget + 1
    assert not (run_folder(tmp_path) / "children").exists()


def test_evolution_changes_one_choice_of_a_function_that_was_trained_lately(program: Program, tmp_path: Path) -> None:
    """Once there is a population, here of two."""
    assert program(*arguments(tmp_path, "search.strategy=evolutionary", "search.trials=8")).returncode == 0
    finished = [trial for trial in trials(tmp_path) if trial.state.is_finished()]
    seen: list[dict[str, str]] = []
    for trial in finished:
        changes = [sum(trial.params[name] != other[name] for name in other) for other in seen[-2:]]
        assert len(seen) < 2 or 1 in changes
        if trial.state == optuna.trial.TrialState.COMPLETE and "same_as" not in trial.user_attrs:
            seen.append(trial.params)
    assert len(seen) == 8


def test_a_search_that_was_killed_goes_on_and_repeats_nothing(program: Program, tmp_path: Path) -> None:
    """Killed with -9 after two functions; in the end it has tried what an unbroken search tries."""
    more = ("search.trials=6", "training.steps=30", "tracking=none")
    broken, whole = tmp_path / "broken", tmp_path / "whole"
    command = [sys.executable, "-m", "experiments.run", *arguments(broken, *more)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not any(len(file.read_text().splitlines()) >= 2 for file in broken.glob("runs/*/*/metrics.jsonl")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = trained(broken)
    assert 2 <= len(before) < 6
    for outputs in (broken, whole):
        ended = program(*arguments(outputs, *more))
        assert ended.returncode == 0, ended.stderr
    after = trained(broken)
    assert after[: len(before)] == before
    assert sorted(after) == sorted(trained(whole))
    assert len({key for key, _ in after}) == 6
    metrics = [(run_folder(outputs) / "metrics.jsonl").read_bytes() for outputs in (broken, whole)]
    assert metrics[0] == metrics[1]


def test_a_search_chooses_without_the_test_images(tmp_path: Path) -> None:
    from experiments.config.compose import compose
    from experiments.training.execute import assemble
    from experiments.training.run_spec import resolve

    config = compose([*TINY, f"outputs={tmp_path}"])
    other, _ = assemble(resolve(config))
    config.task.split = "validation"
    task, _ = assemble(resolve(config))
    test = {image.tobytes() for image in other.test.pixels}
    chosen_by = {image.tobytes() for image in task.test.pixels}
    assert not test & chosen_by and not chosen_by & {image.tobytes() for image in task.train.pixels}
    assert len(task.test.labels) == round(0.2 * len(other.train.labels))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("search.strategy=clever", "search.strategy"),
        ("search.trails=5", "unknown key 'search.trails'; the nearest is 'search.trials'"),
        ("search.units=3", "search.units"),
    ],
)
def test_a_wrong_setting_of_a_search_is_named(override: str, message: str, program: Program, tmp_path: Path) -> None:
    ended = program(*arguments(tmp_path, override))
    assert ended.returncode == 1
    assert message in ended.stderr and "Traceback" not in ended.stderr

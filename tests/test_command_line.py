"""What a user types: every mistake is one line before any work, and texts arrive as the shell gives them."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.errors import InstantiationException

from experiments.config.build import build, check_arguments
from experiments.config.choices import groups
from experiments.config.compose import compose
from experiments.config.errors import ConfigError, first_line
from experiments.config.overrides import parse, quote_text
from experiments.evaluation.pretrained import composed
from experiments.reproduce import main as reproduce_main
from experiments.run import main as run_main
from experiments.sweeps.executors import failure
from experiments.sweeps.grid_sweeper import GridSweeper
from experiments.training.execute import assemble
from experiments.training.run_spec import resolve
from tests.conftest import ROOT, Program, tiny

GROUPS = [group for group in groups() if group != "evaluation"]
HYDRAS_OWN = [f"{node}.{key}" for node in ("model", "task", "optimizer") for key in ("_args_=[1]", "_convert_=all")]
VARIABLES = ("OUTPUTS", "SCALE", "ONLY", "RUN", "WORKERS", "LAUNCHER", "ACCELERATOR")
TARGETS = ("reproduce", "seeds", "rates", "ledger", "plan", "verify", "dashboard", "figures", "readme", "sync")
COSINE = {"_target_": "experiments.training.schedules.Cosine", "warmup_steps": 1, "final": 0.1}
PATHS = ["a b", "a=b", "[a]", "{a}", "(a", "~a", "a#b", "é", "a,b", "a:b", "12", "1e3", "true", "it's", 'a"b', "a\\b"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "override",
    [
        *(f"~{group}" for group in GROUPS),
        *(f"{group}={value}" for group in GROUPS for value in ("null", "{}", "''")),
        *(f"~{key}" for key in ("training", "training.steps", "name", "seed", "outputs", "model.width", "task.length")),
        *(f"+{own}" for own in HYDRAS_OWN),
        *(f"+{node}._partial_=true" for node in ("model", "task", "data", "schedule")),
        *(f"{node}._partial_=false" for node in ("attention", "position", "feedforward", "activation", "optimizer")),
        *(f"{node}._target_={value}" for node in ("model", "task", "activation") for value in ("null", "3", "[]")),
        *("training=null", "training=3", "tracking=3", "outputs=", "outputs=null", "+mine=3", "++mine.own=3"),
    ],
)
def test_what_a_run_is_made_of_cannot_be_taken_away_or_bent(override: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve(compose(["experiment=positions", "scale=smoke", override]))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


@pytest.mark.slow
def test_what_has_a_default_can_be_taken_away() -> None:
    config = compose(["experiment=positions", "~training.groups.activations", "~position.base"])
    assert "activations" not in config.training.groups and "base" not in config.position


@pytest.mark.slow
@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model=none", "has no weights"),
        ("model=resnet", "ResNet: missing a required argument: 'channels'; choose a model, a task and data that fit"),
        ("data=none", "LanguageModeling: missing a required argument: 'data'"),
        ("data=digits", "LanguageModeling needs documents, which Digits does not have"),
        ("data=docstrings", "LanguageModeling needs documents, which Docstrings does not have"),
    ],
)
def test_parts_that_do_not_fit_are_named_before_anything_is_recorded(override: str, message: str, tmp_path) -> None:
    settings = ["experiment=positions", "scale=smoke", f"outputs={tmp_path}", override]
    with pytest.raises(ConfigError, match=message):
        assemble(resolve(compose(settings)))


@pytest.mark.parametrize("text", PATHS)
def test_a_path_is_taken_as_the_shell_gives_it(text: str) -> None:
    for key in ("outputs", "cache", "data.path", "+data.path", "pretrained", "activation.text"):
        found = parse(quote_text(f"{key}={text}"))
        assert found.value() == text and not found.is_sweep_override()
        assert quote_text(quote_text(f"{key}={text}")) == quote_text(f"{key}={text}")


def test_what_is_in_quotes_or_null_stays_as_it_is() -> None:
    for override in ("data.path='a b'", "data.path='a','b'", "data.path=null", "outputs=a/b", "seed=1,2", "name=a b"):
        assert quote_text(override) == override
    assert parse(quote_text("outputs=~/mine")).value() == os.path.expanduser("~/mine")


@pytest.mark.slow
@pytest.mark.parametrize("text", PATHS)
def test_a_composed_run_and_an_evaluation_have_the_paths_that_were_given(text: str) -> None:
    given = [quote_text(f"{key}=/{text}") for key in ("outputs", "data.path")]
    config = compose(["experiment=positions", "data=text", *given])
    assert (config.outputs, config.data.path) == (f"/{text}", f"/{text}")
    assert composed([f"model={text}", "task=passkey", f"outputs=/{text}"])["pretrained"] == text


def test_make_passes_its_variables_on_as_they_are() -> None:
    for value in ["a b", "it's", "a'b\"c", "$HOME", "`true`", "a;b", "(a)", "é"]:
        given = [f"{name}={value}" for name in VARIABLES]
        for target in TARGETS:
            shown = subprocess.run(["make", "-n", target, *given], cwd=ROOT, capture_output=True, text=True, check=True)
            words = shlex.split(shown.stdout.strip().splitlines()[-1])
            options = [word for word in words[3:] if not word.startswith("--")]
            assert options and set(options) == {value}, shown.stdout


def test_a_python_without_the_libraries_says_so_in_one_line() -> None:
    """As when the environment is not activated."""
    for name in ("run", "evaluate", "reproduce", "dashboard"):
        command = [sys.executable, "-S", "-m", f"experiments.{name}"]
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert ended.returncode == 1 and "source .venv/bin/activate" in ended.stderr
        assert ended.stderr.count("\n") == 1


def test_an_error_of_what_hydra_calls_is_told_as_it_is() -> None:
    with pytest.raises(InstantiationException) as caught:
        build(COSINE | {"final": {"_target_": "torch.ones"}})
    assert "ones() missing 1 required positional argument" in first_line(caught.value)
    assert failure(caught.value) == f"TypeError: {first_line(caught.value)}"
    with pytest.raises(ConfigError, match="Cosine: got an unexpected keyword argument 'last'"):
        check_arguments(COSINE, {"last": 1})


def test_errors_that_name_each_other_end() -> None:
    """As those of a target that Hydra calls do once they are raised without Hydra's wrapper."""
    first, second = ValueError("width 32"), InstantiationException("in call")
    first.__context__, second.__cause__ = second, first
    assert first_line(first) == first_line(second) == "width 32"


@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        (run_main, ["hydra/launcher=submitit_slurm", "-m"], "hydra/launcher=submitit_slurm: this machine has no Slurm"),
        (run_main, ["-m", "hydra/sweeper=optuna", "experiment=positions,gates"], "a study is of one experiment"),
    ],
)
def test_a_sweep_that_cannot_start_is_refused(command, arguments, message, monkeypatch, capsys) -> None:
    monkeypatch.setenv("PATH", "")
    assert command(arguments) == 1
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_a_ledger_for_a_cluster_that_is_not_there_is_refused(monkeypatch, capsys, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", "")
    arguments = ["--scale", "smoke", "--only", "gradient_flow", "--outputs", str(tmp_path), "--launcher", "slurm"]
    assert reproduce_main(arguments) == 1
    assert "error: LAUNCHER=slurm: this machine has no Slurm" in capsys.readouterr().err
    assert not list(tmp_path.rglob("status.json"))


@pytest.mark.slow
def test_several_experiments_each_run_their_own_sweep() -> None:
    def jobs(*arguments: str) -> list[list[str]]:
        params = {} if "," in arguments[0] else compose(list(arguments), return_hydra_config=True).hydra.sweeper.params
        return [sorted(job) for job in GridSweeper(None, params).jobs(list(arguments))]

    for more in ([], ["seed=0"], ["scale=smoke", "seed=1"]):
        apart = [job for name in ("positions", "context_cost") for job in jobs(f"experiment={name}", *more)]
        assert jobs("experiment=positions,context_cost", *more) == apart
        assert len(apart) > 2


@pytest.mark.slow
def test_help_shows_our_groups_and_commands(program: Program) -> None:
    shown = program("--help")
    assert shown.returncode == 0 and not shown.stderr
    assert "powered by Hydra" not in shown.stdout
    for group in GROUPS:
        assert f"\n{group}: {', '.join(groups()[group])}\n" in shown.stdout
    for word in ("experiment=positions -m", "hydra/launcher=joblib", "hydra/sweeper=optuna", "experiments.evaluate"):
        assert word in shown.stdout


@pytest.mark.slow
def test_a_folder_with_every_odd_character_holds_a_whole_run(program: Program, tmp_path: Path) -> None:
    outputs = tmp_path / "a b=[c]{d}(e)~f#g,h'é"
    ended = program(*tiny(outputs, "-m", "position=rope", "seed=0", "tracking=none", "training.steps=1"))
    assert ended.returncode == 0, ended.stderr
    assert (outputs / "runs" / "positions").is_dir()
    assert f"{outputs}/runs/positions/" in ended.stderr
    assert {path.name for path in tmp_path.iterdir()} == {outputs.name}

"""Every numeric setting that conf/ names refuses the values that make no sense, in one line, before anything starts."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from hydra.core.config_store import ConfigStore
from rich.console import Console

from experiments import plan, reproduce
from experiments.config.cache import composition
from experiments.config.checks import check, plain
from experiments.config.choices import groups, groups_of
from experiments.config.composition import compose_unchecked
from experiments.config.errors import ConfigError
from experiments.evaluation.pretrained import Root
from experiments.sweeps.grid_sweeper import GridSweeper
from experiments.sweeps.optuna_sweeper import OptunaSweeper

SENSELESS: tuple[Any, ...] = (0, -1, math.nan, math.inf, 10**10)
HINTS = ("greater than", "less than", "must be finite", "Input should be 1 or 2")  # that say what would be right
UNFINISHED = ("property",)  # a task whose file leaves a setting to the experiment
SIGNED = {"initial_gate", "initial_beta", "initial_slope", "slope"}  # any finite number is meaningful
MEANINGFUL = SIGNED | {  # what else may be 0
    *("seed", "seeds", "steps", "evaluate_at"),  # no steps: only evaluated; no seeds: rates are not chosen
    *("shift", "doublings", "halvings", "gap", "language_weight"),
    *("warmup_steps", "constant_steps", "final", "weight_decay", "momentum", "betas"),
    "memory_length",  # of Transformer-XL: segments alone
}


def leaves(node: Any, *path: str | int) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """The leaves of nested settings, each with the keys that lead to it."""
    if isinstance(node, dict | list):
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            yield from leaves(value, *path, key)
    else:
        yield path, node


def refusal(config: dict[str, Any], path: Sequence[str | int], value: Any) -> str:
    """Why a configuration with this value is refused; empty if it is not."""
    node: Any = config
    for key in path[:-1]:
        node = node[key]
    before, node[path[-1]] = node[path[-1]], value
    try:
        check(config)
    except ConfigError as error:
        return str(error)
    finally:
        node[path[-1]] = before
    return ""


def configurations() -> Iterator[dict[str, Any]]:
    """Configurations that name all settings of all files in conf/."""
    for group in groups_of("config").keys() - {"scale", "tracking"}:
        for choice in groups()[group]:
            if choice not in UNFINISHED:
                yield composition([f"{group}={choice}"], 0, "outputs")
    ConfigStore.instance().store(name="evaluation_schema", node=Root)
    for choice in groups()["evaluation"]:
        yield plain(compose_unchecked([f"evaluation={choice}", "pretrained=gpt2"], root="evaluate"))


def settings() -> Iterator[tuple[dict[str, Any], tuple[str | int, ...]]]:
    """Each numeric setting once, by its place and the target that has it, in a configuration that names it.

    It is a number, or null and takes numbers and no text.
    """
    seen = set()
    for config in configurations():
        for path, value in leaves(config):
            node: Any = config
            for key in path[:-1]:
                node = node[key]
            target = node.get("_target_") if isinstance(node, dict) else None
            if (target, path) in seen or isinstance(value, bool | str):
                continue
            seen.add((target, path))
            if value is not None or (not refusal(config, path, 2) and refusal(config, path, "text")):
                yield config, path


def complaints(config: dict[str, Any], path: tuple[str | int, ...]) -> Iterator[str]:
    """The senseless values of a setting that are accepted, or refused without saying what would be right."""
    key = next(part for part in reversed(path) if isinstance(part, str))
    for value in SENSELESS:
        message = refusal(config, path, value)
        if not message and ((value == 0 and key in MEANINGFUL) or (value == -1 and key in SIGNED)):
            continue
        if key not in message or "\n" in message or not any(hint in message for hint in HINTS):
            yield f"{'.'.join(map(str, path))}={value}: {message or 'accepted'}"


@pytest.mark.slow
def test_a_number_that_makes_no_sense_is_refused() -> None:
    found = list(settings())
    assert len(found) > 100
    assert not [line for config, path in found for line in complaints(config, path)]


@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf, "many"])
def test_sweepers_refuse_it_too(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"hydra\.sweeper\.n_trials="):
        OptunaSweeper(value, "loss", 0).tune([], Console())
    with pytest.raises(ConfigError, match=r"hydra\.sweeper\.max_batch_size="):
        GridSweeper(value, {}).sweep([])


@pytest.mark.parametrize(
    ("main", "arguments", "message"),
    [
        (reproduce.main, ["--workers", "-1"], "--workers=-1: Input should be greater than"),
        (reproduce.main, ["--workers", str(10**10)], "--workers=10000000000: Input should be less than"),
        (reproduce.main, ["--only", ","], "only=,: no name in it"),
        (plan.main, ["--only", ","], "only=,: no name in it"),
        (plan.main, ["--scale", " , "], "scale= , : no name in it"),
    ],
)
def test_commands_refuse_it_too(
    main: Callable[[list[str]], int], arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 1
    assert message in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("project", ["a/b", "", "a" * 129, "what?"])
def test_a_project_that_wandb_refuses_is_refused(project: str) -> None:
    with pytest.raises(ConfigError, match=r"tracking\.project=.*W&B takes 1 to 128 characters"):
        plain(compose_unchecked([f"tracking.project='{project}'"]))

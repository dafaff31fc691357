"""Every numeric setting that conf/ names refuses the values that make no sense, in one line, before anything starts."""

import copy
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console

from experiments import plan, reproduce
from experiments.config.checks import is_setting, plain
from experiments.config.choices import groups, groups_of
from experiments.config.composition import compose_unchecked
from experiments.config.errors import ConfigError, first_line
from experiments.evaluation.pretrained import Root
from experiments.sweeps.grid_sweeper import GridSweeper
from experiments.sweeps.optuna_sweeper import OptunaSweeper

SENSELESS: tuple[Any, ...] = (0, -1, math.nan, math.inf, 10**10)
HINTS = ("greater than", "less than", "must be finite", "could not be converted to Integer", "Input should be 1 or 2")
SIGNED = {"initial_gate", "initial_beta", "initial_slope", "slope"}  # any finite number is meaningful
MEANINGFUL = SIGNED | {  # what else may be 0
    *("seed", "seeds", "steps", "evaluate_at"),  # no steps: only evaluated; no seeds: rates are not chosen
    *("shift", "doublings", "halvings", "gap", "language_weight"),
    *("warmup_steps", "constant_steps", "final", "weight_decay", "momentum", "betas"),
    "memory_length",  # of Transformer-XL: segments alone
}


def leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested settings by their path."""
    if isinstance(node, dict | list):
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            yield from leaves(value, f"{path}.{key}".lstrip("."))
    else:
        yield path, node


def refusal(config: DictConfig, path: str, value: Any) -> str:
    """Why a configuration with this value is refused; empty if it is not."""
    changed = copy.deepcopy(config)
    try:
        OmegaConf.update(changed, path, value)
        plain(changed, complete=False)
    except (ConfigError, OmegaConfBaseException) as error:
        return first_line(error)
    return ""


def numbers(config: DictConfig) -> Iterator[str]:
    """The paths of a configuration's numbers, and of what is null and takes numbers and no text."""
    for path, _ in leaves(OmegaConf.to_container(config)):
        value = OmegaConf.select(config, path) if is_setting(path) else ""
        if (isinstance(value, int | float) and not isinstance(value, bool)) or (
            value is None and not refusal(config, path, 2) and refusal(config, path, "text")
        ):
            yield path


def settings() -> dict[tuple[str, str], DictConfig]:
    """A configuration for each numeric setting that conf/ names, by the target that has it, and its path."""
    found: dict[tuple[str, str], DictConfig] = {}
    ConfigStore.instance().store(name="evaluation_schema", node=Root)
    for root in ("config", "evaluate"):
        for group in groups_of(root).keys() - {"scale", "tracking"}:
            for choice in groups()[group]:
                config = compose_unchecked([f"{group}={choice}"], root=root)
                for path in numbers(config):
                    target = OmegaConf.select(config, path.split(".")[0] + "._target_") if "." in path else ""
                    found.setdefault((str(target), path), config)
    return found


def complaints(config: DictConfig, path: str) -> Iterator[str]:
    """The senseless values of a setting that are accepted, or refused without saying what would be right."""
    key = next(part for part in reversed(path.split(".")) if not part.isdigit())
    for value in SENSELESS:
        message = refusal(config, path, value)
        if not message and ((value == 0 and key in MEANINGFUL) or (value == -1 and key in SIGNED)):
            continue
        if key not in message or "\n" in message or not any(hint in message for hint in HINTS):
            yield f"{path}={value}: {message or 'accepted'}"


@pytest.mark.slow
def test_a_number_that_makes_no_sense_is_refused() -> None:
    found = settings()
    assert len(found) > 100
    assert not [line for (_, path), config in found.items() for line in complaints(config, path)]


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

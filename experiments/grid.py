"""The runs that an experiment consists of: its own sweep, as written in its configuration."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from experiments.config import ConfigError, compose_unchecked, groups, register
from experiments.records import Record
from experiments.run import Plan, plan


@dataclass(frozen=True)
class Job:
    """One run of an experiment's sweep: the level of each factor, seed among them."""

    experiment: str
    scale: str
    outputs: str
    factors: tuple[tuple[str, str], ...]

    @property
    def seed(self) -> int:
        return int(dict(self.factors)["seed"])

    @property
    def overrides(self) -> list[str]:
        pairs = [f"{name}={level}" for name, level in self.factors]
        return [f"experiment={self.experiment}", f"scale={self.scale}", f"outputs={self.outputs}", *pairs]

    def plan(self) -> Plan:
        """The run this job is."""
        composed = composed_without_seed(tuple(line for line in self.overrides if not line.startswith("seed=")))
        config = composed.copy()
        config.seed = self.seed
        return plan(config)

    def record(self) -> Record:
        return self.plan().record


@cache
def composed_without_seed(overrides: tuple[str, ...]) -> DictConfig:
    """Composing is slow and the seed changes nothing but itself: done once for all seeds."""
    register()
    return compose_unchecked(overrides)


def jobs(experiment: str, scale: str, outputs: str) -> list[Job]:
    """The runs of an experiment's sweep, seed by seed; at smoke scale only the first seed."""
    if experiment not in groups()["experiment"]:
        raise ConfigError(f"experiment={experiment}: no such choice; there are {', '.join(groups()['experiment'])}")
    register()
    composed = compose_unchecked([f"experiment={experiment}", f"scale={scale}"], return_hydra_config=True)
    params: dict[str, Any] = OmegaConf.to_container(composed.hydra.sweeper.params)  # type: ignore[assignment]
    factors = {name: levels(name, str(sweep)) for name, sweep in params.items()}
    factors.setdefault("seed", ["0"])
    if scale == "smoke":
        factors["seed"] = factors["seed"][:1]
    combinations = itertools.product(*factors.values())
    found = [Job(experiment, scale, outputs, tuple(zip(factors, combination))) for combination in combinations]
    return sorted(found, key=lambda job: job.seed)


def levels(name: str, sweep: str) -> list[str]:
    """The levels that a sweep such as `relu, silu` or `range(3)` stands for."""
    override = OverridesParser.create().parse_override(f"{name}={sweep}")
    if override.is_sweep_override():
        return [str(level) for level in override.sweep_string_iterator()]
    return [str(override.value())]


def breadth_first(experiments: list[str], scale: str, outputs: str) -> Iterator[Job]:
    """The jobs of many experiments in the order to run them: the first seed of all, then the second of all."""
    everything = [job for experiment in experiments for job in jobs(experiment, scale, outputs)]
    return iter(sorted(everything, key=lambda job: job.seed))

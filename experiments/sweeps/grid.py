"""The runs that an experiment consists of: its own sweep, as written in its configuration."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser

from experiments.config.build import data_source
from experiments.config.cache import compose_all, composition, sweep
from experiments.config.choices import groups
from experiments.config.errors import ConfigError
from experiments.training.run_spec import RunSpec, spec_of

ON_GPUS = ("gpu", "paper")  # scales
Compared = dict[str, set[str]]  # factors by experiment


@dataclass(frozen=True)
class Job:
    """One run of an experiment's sweep: the level of each factor, seed among them.

    added: its seed is not one of the sweep's; a pair that lacks it is no gap.
    """

    experiment: str
    scale: str
    outputs: str
    factors: tuple[tuple[str, str], ...]
    added: bool = False

    @property
    def seed(self) -> int:
        return int(dict(self.factors)["seed"])

    @property
    def overrides(self) -> list[str]:
        pairs = [f"{name}={level}" for name, level in self.factors]
        return [f"experiment={self.experiment}", f"scale={self.scale}", f"outputs={self.outputs}", *pairs]

    def spec(self, source: Callable[[str], Any] = data_source) -> RunSpec:
        """The run this job is; `source` finds its data."""
        return spec_of(composition(self.overrides, self.seed, self.outputs), self.overrides, source)


def jobs(experiment: str, scale: str, outputs: str, seeds: int = 0, compared: Compared | None = None) -> list[Job]:
    """The runs of an experiment's sweep, seed by seed.

    seeds: how many there are at least; those beyond the sweep's own are added. An experiment of one seed keeps one.
    compared: the factors of each experiment that claims compare; at smoke scale all others have one level.
    """
    if experiment not in groups()["experiment"]:
        raise ConfigError(f"experiment={experiment}: no such choice; there are {', '.join(groups()['experiment'])}")
    factors = {name: levels(name, written) for name, written in sweep(experiment).items()}
    random = len(factors.setdefault("seed", ["0"])) > 1
    if scale == "smoke" and compared is not None:
        kept = compared.get(experiment, set())
        factors = {name: found if name in kept else found[:1] for name, found in factors.items()}
    own = factors["seed"]
    if random:
        factors["seed"] = [*own, *(str(seed) for seed in range(seeds) if str(seed) not in own)]
    combinations = itertools.product(*factors.values())
    pairs = [tuple(zip(factors, combination)) for combination in combinations]
    found = [Job(experiment, scale, outputs, levels, dict(levels)["seed"] not in own) for levels in pairs]
    return sorted(found, key=lambda job: job.seed)


def jobs_of_all(
    experiments: list[str], scales: list[str], outputs: str, seeds: int = 0, compared: Compared | None = None
) -> dict[str, list[Job]]:
    """The runs of all these experiments by scale, composed on all processor cores."""
    compose_all(experiments, partial(overrides_of, scales, outputs, seeds, compared))
    return {
        scale: [job for name in experiments for job in jobs(name, scale, outputs, seeds, compared)] for scale in scales
    }


def overrides_of(
    scales: list[str], outputs: str, seeds: int, compared: Compared | None, experiment: str
) -> Iterator[list[str]]:
    """Those of an experiment's runs at some scales."""
    return (job.overrides for scale in scales for job in jobs(experiment, scale, outputs, seeds, compared))


def levels(name: str, written: str) -> list[str]:
    """The levels that a sweep such as `relu, silu` or `range(3)` stands for."""
    override = OverridesParser.create().parse_override(f"{name}={written}")
    if override.is_sweep_override():
        return [str(level) for level in override.sweep_string_iterator()]
    return [str(override.value())]


def in_order(plans: dict[Job, RunSpec]) -> list[Job]:
    """The first seed of all experiments, then the second of all; of one seed the longest runs first, so that no long
    one is left alone at the end."""

    def effort(job: Job) -> int:
        config = plans[job].config
        return config["training"]["steps"] * (config["search"]["trials"] if config["search"] else 1)

    return sorted(plans, key=lambda job: (job.seed, -effort(job)))

"""The runs of an experiment: the grid of the sweep in its configuration."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser

from experiments.config.build import data_source
from experiments.config.cache import composition, sweep
from experiments.config.choices import groups
from experiments.config.errors import ConfigError
from experiments.config.overrides import quote_text
from experiments.training.run_spec import RunSpec, spec_of

Compared = dict[str, set[str]]  # the factors that claims compare, by experiment


@dataclass(frozen=True)
class Job:
    """One run of an experiment's sweep: the level of each factor, including the seed.

    added: whether its seed is an extra one, which the sweep does not list; pairs may lack it. rate: the learning rate,
    if it is not the experiment's. trial: whether it is run to choose that rate, and so judged by the validation split.
    """

    experiment: str
    scale: str
    outputs: str
    factors: tuple[tuple[str, str], ...]
    added: bool = False
    rate: str = ""
    trial: bool = False

    @property
    def seed(self) -> int:
        return int(dict(self.factors)["seed"])

    @property
    def changes(self) -> dict[str, dict[str, Any]]:
        """The settings, by group, that differ from the experiment's. No other setting is made of them."""
        own: dict[str, dict[str, Any]] = {"optimizer": {"lr": float(self.rate)}} if self.rate else {}
        return own | ({"task": {"split": "validation"}, "training": {"evaluate_at": []}} if self.trial else {})

    @property
    def overrides(self) -> list[str]:
        pairs = [f"{group}.{name}={value}" for group, own in self.changes.items() for name, value in own.items()]
        return [*self.levels, *pairs]

    @property
    def levels(self) -> list[str]:
        """The overrides that choose the experiment and the level of each factor."""
        pairs = [f"{name}={level}" for name, level in self.factors]
        return [f"experiment={self.experiment}", f"scale={self.scale}", quote_text(f"outputs={self.outputs}"), *pairs]

    def spec(self, source: Callable[[str], Any] = data_source) -> RunSpec:
        """The specification of this run; `source` returns the data source for settings as JSON.

        Changed settings are put in after composing, so that all rates of a level are composed once.
        """
        config = composition(self.levels, self.seed, self.outputs)
        changed = {group: config[group] | own for group, own in self.changes.items()}
        return spec_of(config | changed, self.overrides, source)


def jobs(experiment: str, scale: str, outputs: str, seeds: int = 0, compared: Compared | None = None) -> list[Job]:
    """The runs of an experiment's sweep, sorted by seed. Raises ConfigError for an unknown experiment.

    seeds: the minimal number of seeds; more are added if the sweep has fewer, unless it has only one. compared: at
    smoke scale, factors that are not in it get a single level.
    """
    if experiment not in groups()["experiment"]:
        raise ConfigError(f"experiment={experiment}: no such choice; choose one of {', '.join(groups()['experiment'])}")
    factors = {name: levels(name, values) for name, values in sweep(experiment, scale).items()}
    random = len(factors.setdefault("seed", ["0"])) > 1
    if scale == "smoke" and compared is not None:
        needed = compared.get(experiment, set())
        factors = {name: each if name in needed else each[:1] for name, each in factors.items()}
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
    """The runs of all these experiments, by scale."""
    return {
        scale: [job for name in experiments for job in jobs(name, scale, outputs, seeds, compared)] for scale in scales
    }


def levels(name: str, values: str) -> list[str]:
    """The levels of a factor, from Hydra's sweep syntax: `relu, silu` or `range(3)`."""
    override = OverridesParser.create().parse_override(f"{name}={values}")
    if override.is_sweep_override():
        return [str(level) for level in override.sweep_string_iterator()]
    return [str(override.value())]


def in_order(plans: dict[Job, RunSpec]) -> list[Job]:
    """Sort jobs by seed over all experiments and, within a seed, start with the longest, so that no long run is left
    alone at the end."""

    def effort(job: Job) -> int:
        config = plans[job].config
        return config["training"]["steps"] * (config["search"]["trials"] if config["search"] else 1)

    return sorted(plans, key=lambda job: (job.seed, -effort(job)))

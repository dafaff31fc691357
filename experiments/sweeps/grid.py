"""The runs of an experiment: the grid of the sweep in its configuration."""

import itertools
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from hydra.core.override_parser.overrides_parser import OverridesParser

from experiments.config.build import data_source
from experiments.config.cache import SEED, composition, sweep
from experiments.config.choices import groups
from experiments.config.errors import ConfigError
from experiments.config.overrides import quote_text
from experiments.recording.record import Record, digest_of_settings, essential_settings, run_id
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
        """The specification of this run; `source` returns the data source for settings as JSON."""
        return spec_of(self.config(self.seed), self.overrides, source)

    def config(self, seed: int) -> dict[str, Any]:
        """The plain configuration with this seed.

        Changed settings are put in after composing, so that all rates of a level are composed once.
        """
        config = composition(self.levels, seed, self.outputs)
        return config | {group: config[group] | own for group, own in self.changes.items()}

    @property
    def level(self) -> "Job":
        """This job without its seed."""
        factors = tuple(each for each in self.factors if each[0] != "seed")
        return replace(self, factors=factors, added=False)

    def with_seed(self, seed: int) -> "Job":
        """This job with another seed."""
        return replace(
            self, factors=tuple((name, str(seed) if name == "seed" else level) for name, level in self.factors)
        )

    @property
    def record(self) -> Record:
        """The record of this run, finished or not. Found without composing its configuration, which all seeds share."""
        shared = shared_of(self.level)
        if shared.own_data:
            return self.spec().record
        settings = shared.settings.replace(str(SEED), str(self.seed))
        determined = shared.identity | {"settings": digest_of_settings(settings)}
        return Record(shared.folder / run_id(determined), determined)

    @property
    def effort(self) -> int:
        """How long this run takes compared with others, by its steps."""
        return shared_of(self.level).effort


class Shared(NamedTuple):
    """What all seeds of a level share. settings: with a placeholder for the seed. own_data: whether its data have the
    seed in them, so that what determines a run is not shared."""

    settings: str
    identity: dict[str, str]
    folder: Path
    effort: int
    own_data: bool


@cache
def shared_of(level: Job) -> Shared:
    """What all seeds of a level share."""
    config = level.config(SEED)
    record = spec_of(config, level.overrides).record
    effort = config["training"]["steps"] * (config["search"]["trials"] if config["search"] else 1)
    own_data = str(SEED) in json.dumps(config["data"])
    return Shared(essential_settings(config), record.identity, record.folder.parent, effort, own_data)


def jobs(experiment: str, scale: str, outputs: str, seeds: int = 0, compared: Compared | None = None) -> list[Job]:
    """The runs of an experiment's sweep, sorted by seed. Raises ConfigError for an unknown experiment.

    seeds: the minimal number of seeds; more are added if the sweep has fewer, unless it has only one. compared: at
    smoke scale, factors that are not in it get a single level.
    """
    if experiment not in groups()["experiment"]:
        raise ConfigError(f"experiment={experiment}: no such choice; choose one of {', '.join(groups()['experiment'])}")
    factors = {name: levels(name, values) for name, values in sweep(experiment, scale).items()}
    factors.setdefault("seed", ["0"])
    if scale == "smoke" and compared is not None:
        needed = compared.get(experiment, set())
        factors = {name: each if name in needed else each[:1] for name, each in factors.items()}
    own = factors["seed"]
    if has_seeds(experiment, scale):
        factors["seed"] = [*own, *(str(seed) for seed in range(seeds) if str(seed) not in own)]
    combinations = itertools.product(*factors.values())
    pairs = [tuple(zip(factors, combination)) for combination in combinations]
    found = [Job(experiment, scale, outputs, levels, dict(levels)["seed"] not in own) for levels in pairs]
    return sorted(found, key=lambda job: job.seed)


def has_seeds(experiment: str, scale: str) -> bool:
    """Whether an experiment's sweep has several seeds, so that more may be added."""
    return len(levels("seed", sweep(experiment, scale).get("seed", "0"))) > 1


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


def in_order(known: Iterable[Job]) -> list[Job]:
    """Sort jobs by seed over all experiments and, within a seed, start with the longest, so that no long run is left
    alone at the end."""
    return sorted(known, key=lambda job: (job.seed, -job.effort))

"""A Hydra sweeper over all combinations of values that composes once per set of group choices.

Hydra's BasicSweeper composes every job twice: once to validate it before the first job starts, and once to run it.
"""

import copy
import itertools
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigSource
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig
from pydantic import PositiveInt

from experiments.config.checks import check_value
from experiments.config.composition import compose_unchecked
from experiments.config.overrides import apply, parse, values_of
from experiments.sweeps.call import CALL, is_stopped

PLUGIN = "hydra_plugins.grid_sweeper"  # Hydra loads plugins only from the package hydra_plugins
sys.modules[PLUGIN] = sys.modules[__name__]


class CachingLoader(ConfigLoader):
    """A config loader that composes once per set of group choices and then sets the values."""

    def __init__(self, loader: ConfigLoader):
        self.loader = loader
        self.composed: dict[tuple[str, ...], DictConfig] = {}
        self.groups: dict[str, bool] = {}  # whether a key is that of a group

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"composed": {}}  # the cache is not sent to other processes

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        """The configuration of one job. Raises ConfigError for an invalid value."""
        parsed = [parse(override) for override in sweep_overrides]
        choices = tuple(each.input_line or "" for each in parsed if not self.is_value(each))
        if choices not in self.composed:
            self.composed[choices] = self.loader.load_sweep_config(master_config, list(choices))
        config = copy.deepcopy(self.composed[choices])
        for each in filter(self.is_value, parsed):
            apply(config, each)
        config.hydra.overrides.task = sweep_overrides
        config.hydra.job.override_dirname = ",".join(sorted(sweep_overrides))
        return config

    def is_value(self, override: Override) -> bool:
        """Whether an override sets a value, rather than choosing an option of a group."""
        key = override.key_or_group
        if key not in self.groups:
            self.groups[key] = bool(self.loader.get_group_options(key))
        return not (override.is_delete() or self.groups[key])

    def load_configuration(self, *arguments: Any, **settings: Any) -> DictConfig:
        """Part of Hydra's interface, like all methods below."""
        return self.loader.load_configuration(*arguments, **settings)

    def get_search_path(self) -> ConfigSearchPath:
        return self.loader.get_search_path()

    def get_sources(self) -> list[ConfigSource]:
        return self.loader.get_sources()

    def list_groups(self, parent_name: str) -> list[str]:
        return self.loader.list_groups(parent_name)

    def get_group_options(self, *arguments: Any, **settings: Any) -> list[str]:
        return self.loader.get_group_options(*arguments, **settings)

    def compute_defaults_list(self, *arguments: Any, **settings: Any) -> Any:
        return self.loader.compute_defaults_list(*arguments, **settings)


def caching(context: HydraContext) -> HydraContext:
    """Hydra's context with a CachingLoader."""
    return HydraContext(CachingLoader(context.config_loader), context.callbacks)


def combinations(overrides: Sequence[Override]) -> Iterator[list[str]]:
    """The overrides of every job, with one value per key. If a key is given twice, the last one counts."""
    values = {each.get_key_element(): list(values_of(each)) for each in overrides}
    deleted = [each.input_line or "" for each in overrides if each.is_delete()]
    pairs = [[f"{key}={value}" for value in found] for key, found in values.items() if found]
    return ([*deleted, *job] for job in itertools.product(*pairs))


def assigned(params: Mapping[Any, str]) -> list[str]:
    """The factors of an experiment's own sweep as overrides."""
    return [f"{key}={values}" for key, values in params.items()]


class GridSweeper(Sweeper):
    """Runs every combination of the given values. Its settings are in conf/hydra/sweeper/grid.yaml."""

    __module__ = PLUGIN

    def __init__(self, max_batch_size: int | None, params: dict[str, str]):
        """max_batch_size: jobs passed to the launcher at a time (None: all). params: the experiment's own sweep."""
        self.max_batch_size, self.params = max_batch_size, params

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Part of Hydra's interface."""
        self.context = caching(hydra_context)
        self.jobs_config: DictConfig = config
        self.launcher: Launcher = Plugins.instance().instantiate_launcher(
            hydra_context=self.context, task_function=task_function, config=config
        )

    def jobs(self, arguments: list[str]) -> list[list[str]]:
        """The overrides of every job: of each experiment's own sweep if several are given. Raises ConfigError."""
        given = [parse(argument) for argument in arguments]
        several = [each for each in given if each.key_or_group == "experiment" and each.is_sweep_override()]
        if not several:
            return list(combinations([*map(parse, assigned(self.params)), *given]))
        others = [each for each in given if each.key_or_group != "experiment"]
        found: list[list[str]] = []
        for name in values_of(several[-1]):
            single = [each.input_line or "" for each in others if not each.is_sweep_override()]
            composed = compose_unchecked([*single, f"experiment={name}"], return_hydra_config=True)
            own = [*assigned(composed.hydra.sweeper.params), f"experiment={name}"]
            found += combinations([*map(parse, own), *others])
        return found

    def starts_all_at_once(self) -> bool:
        """Whether the launcher starts every job it gets on this machine."""
        return str(self.jobs_config.hydra.launcher._target_).endswith("submitit_launcher.LocalLauncher")

    def sweep(self, arguments: list[str]) -> Any:
        """Run all jobs. Raises ConfigError before the first one starts if any of them cannot be composed."""
        check_value(self.max_batch_size, PositiveInt | None, "hydra.sweeper.max_batch_size")
        jobs = self.jobs(arguments)
        Path(str(self.jobs_config.hydra.sweep.dir)).mkdir(parents=True, exist_ok=True)
        for job in jobs:
            self.context.config_loader.load_sweep_config(self.jobs_config, job)
        size = self.max_batch_size or (len(os.sched_getaffinity(0)) if self.starts_all_at_once() else len(jobs))
        returned = []
        for first in range(0, len(jobs), size):
            if is_stopped(Path(os.environ[CALL])):
                break
            results = self.launcher.launch(jobs[first : first + size], initial_job_idx=first)
            returned.append(results)
            for result in results:
                _ = result.return_value  # re-raises the job's error
        return returned

"""Hydra's sweeper over all combinations of values, which composes once for the jobs that make the same choices.

Hydra's own composes every job twice: to find what cannot be composed before the first job starts, and for the job.
"""

import copy
import itertools
import sys
from collections.abc import Iterator, Sequence
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

from experiments.config.overrides import parse, put_in, values_of

PLUGIN = "hydra_plugins.grid_sweeper"  # this module's name for Hydra, which loads plugins from that package alone
sys.modules[PLUGIN] = sys.modules[__name__]


class CachingLoader(ConfigLoader):
    """A configuration loader that composes once for each set of choices and puts the values in afterwards."""

    def __init__(self, loader: ConfigLoader):
        self.loader = loader
        self.composed: dict[tuple[str, ...], DictConfig] = {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"composed": {}}  # other processes compose for themselves

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        """The configuration of one job. Raises ConfigError for a value that does not fit."""
        parsed = [parse(override) for override in sweep_overrides]
        choices = tuple(each.input_line or "" for each in parsed if not self.is_value(each))
        if choices not in self.composed:
            self.composed[choices] = self.loader.load_sweep_config(master_config, list(choices))
        config = copy.deepcopy(self.composed[choices])
        for each in filter(self.is_value, parsed):
            put_in(config, each)
        config.hydra.overrides.task = sweep_overrides
        config.hydra.job.override_dirname = ",".join(sorted(sweep_overrides))
        return config

    def is_value(self, override: Override) -> bool:
        """Whether an override sets a value in what was composed, and chooses no file of a group."""
        return not (override.is_delete() or self.loader.get_group_options(override.key_or_group))

    def load_configuration(self, *arguments: Any, **settings: Any) -> DictConfig:
        """Part of Hydra's interface, as are all below."""
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
    """Hydra's context with such a loader."""
    return HydraContext(CachingLoader(context.config_loader), context.callbacks)


def combinations(overrides: Sequence[Override]) -> Iterator[list[str]]:
    """The overrides of every job: one value for each key. A key that is given twice takes its last values."""
    values = {each.get_key_element(): list(values_of(each)) for each in overrides}
    deleted = [each.input_line or "" for each in overrides if each.is_delete()]
    pairs = [[f"{key}={value}" for value in found] for key, found in values.items() if found]
    return ([*deleted, *job] for job in itertools.product(*pairs))


class GridSweeper(Sweeper):
    """Runs every combination of the values given; the settings are those of conf/hydra/sweeper/grid.yaml."""

    __module__ = PLUGIN

    def __init__(self, max_batch_size: int | None, params: dict[str, str]):
        """max_batch_size: jobs that the launcher gets at a time, all if None. params: the sweep of the experiment."""
        self.max_batch_size, self.params = max_batch_size, params

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Part of Hydra's interface."""
        self.context = caching(hydra_context)
        self.jobs_config: DictConfig = config
        self.launcher: Launcher = Plugins.instance().instantiate_launcher(
            hydra_context=self.context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Run all jobs; what cannot be composed is refused before the first one starts. Raises ConfigError."""
        swept = [f"{key}={values}" for key, values in self.params.items()]
        jobs = list(combinations([parse(override) for override in [*swept, *arguments]]))
        Path(str(self.jobs_config.hydra.sweep.dir)).mkdir(parents=True, exist_ok=True)
        for job in jobs:
            self.context.config_loader.load_sweep_config(self.jobs_config, job)
        size = self.max_batch_size or len(jobs)
        returned = []
        for first in range(0, len(jobs), size):
            results = self.launcher.launch(jobs[first : first + size], initial_job_idx=first)
            returned.append(results)
            for result in results:
                _ = result.return_value  # raises what went wrong in the job
        return returned

"""The sweeper of all combinations: Hydra's own, but that what it composes for one job is kept for the like.

Hydra composes every job twice, a fifth of a second in all: once before the first job starts, to find what cannot be
composed, and once for the job.
"""

import copy
import sys
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.override_parser.types import Override
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from experiments.config import parse, put_in

PLUGIN = "hydra_plugins.sweeper"  # what this module is to Hydra, which takes plugins from that package alone
sys.modules[PLUGIN] = sys.modules[__name__]


class KeptCompositions(ConfigLoaderImpl):
    """A loader that composes once for each set of choices; values are put in afterwards, as Hydra does."""

    def __init__(self, search_path: ConfigSearchPath):
        super().__init__(search_path)
        self.composed: dict[tuple[str, ...], DictConfig] = {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"composed": {}}  # other processes compose for themselves

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        """The configuration of one job. Raises ConfigError for a value that cannot be put in."""
        parsed = [parse(override) for override in sweep_overrides]
        choices = tuple(each.input_line or "" for each in parsed if not self.is_value(each))
        if choices not in self.composed:
            self.composed[choices] = super().load_sweep_config(master_config, list(choices))
        config = copy.deepcopy(self.composed[choices])
        for each in filter(self.is_value, parsed):
            put_in(config, each)
        config.hydra.overrides.task = sweep_overrides
        name = config.hydra.job.config.override_dirname
        config.hydra.job.override_dirname = get_overrides_dirname(parsed, name.exclude_keys, name.item_sep, name.kv_sep)
        return config

    def is_value(self, override: Override) -> bool:
        """Whether an override sets a value in what was composed."""
        return not (override.is_delete() or self.repository.group_exists(override.key_or_group))


def keeping(context: HydraContext) -> HydraContext:
    """Hydra's context with such a loader."""
    return HydraContext(KeptCompositions(context.config_loader.get_search_path()), context.callbacks)


class EverySweeper(Sweeper):
    """A sweep over all combinations of the values given; the settings are those of Hydra's own."""

    __module__ = PLUGIN

    def __init__(self, max_batch_size: int | None, params: dict[str, str]):
        self.settings = (max_batch_size, params)

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Part of Hydra's interface."""
        from hydra._internal.core_plugins.basic_sweeper import BasicSweeper  # which Hydra itself loads anew until here

        self.own = BasicSweeper(*self.settings)
        self.own.setup(hydra_context=keeping(hydra_context), task_function=task_function, config=config)

    def sweep(self, arguments: list[str]) -> Any:
        """Run all jobs."""
        return self.own.sweep(arguments)

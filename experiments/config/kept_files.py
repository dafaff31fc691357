"""Hydra's view of conf/, each file and each interpolation of which is parsed once: Hydra itself reads and parses all of
them for every composition, which takes up two thirds of its time."""

import copy
from functools import cache

import omegaconf.base
from hydra._internal.config_repository import ConfigRepository
from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.config_source import ConfigResult

omegaconf.base.parse = cache(omegaconf.base.parse)  # wherever a configuration is resolved


class KeptFiles(ConfigRepository):
    """A repository that hands out copies of what it has read before."""

    def __init__(self, search_path: ConfigSearchPath):
        super().__init__(search_path)
        self.kept: dict[str, ConfigResult | None] = {}

    def load_config(self, config_path: str) -> ConfigResult | None:
        """Part of Hydra's interface."""
        if config_path not in self.kept:
            self.kept[config_path] = super().load_config(config_path)
        return copy.deepcopy(self.kept[config_path])

    def __deepcopy__(self, memo: object) -> "KeptFiles":
        return copy.copy(self)  # Hydra copies its repository for every composition

"""Hydra, initialized with conf/ and the folders from outside."""

import contextlib
from collections.abc import Iterator, Sequence

import hydra
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from experiments.config import plugins
from experiments.config.choices import CONF
from experiments.config.errors import ConfigError, first_line
from experiments.config.schema import register


class FoldersFromOutside(SearchPathPlugin):
    """Has Hydra look for choices in the folders from outside, too."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for folder in plugins.folders():
            search_path.append("outside", f"file://{folder}")


def compose_unchecked(overrides: Sequence[str], return_hydra_config: bool = False, root: str = "config") -> DictConfig:
    """Compose conf/<root>.yaml with these overrides, without validating them first. Raises ConfigError."""
    try:
        with hydra_at_conf():
            composed = hydra.compose(root, list(overrides), return_hydra_config=return_hydra_config)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(first_line(error)) from error
    return composed


@contextlib.contextmanager
def hydra_at_conf() -> Iterator[ConfigLoader]:
    """Hydra's config loader for conf/; restores the state of a Hydra application that is already running."""
    register()
    Plugins.instance().register(FoldersFromOutside)
    running = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            yield GlobalHydra.instance().config_loader()
    finally:
        GlobalHydra.instance().hydra = running

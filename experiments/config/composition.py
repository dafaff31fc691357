"""Hydra, initialized with conf/."""

import contextlib
from collections.abc import Iterator, Sequence

import hydra
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from experiments.config.choices import CONF
from experiments.config.errors import ConfigError, first_line
from experiments.config.schema import register


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
    running = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            yield GlobalHydra.instance().config_loader()
    finally:
        GlobalHydra.instance().hydra = running

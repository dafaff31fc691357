"""Parse and apply Hydra overrides."""

import contextlib
import os
from collections.abc import Iterator
from functools import cache
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from experiments.config.errors import ConfigError, first_line

# Ends of keys whose values are taken as the shell gives them: paths, models to evaluate, and functions.
TEXTS = ("outputs", "cache", ".path", ".checkpoint", ".tokenizer", "pretrained", ".text")


def apply(config: DictConfig, override: Override) -> DictConfig:
    """Set an override's value in `config`, in place and as Hydra does; returns `config`. Raises ConfigError."""
    added = override.is_add() or override.is_force_add()
    try:
        OmegaConf.update(config, override.key_or_group, override.value(), merge=True, force_add=added)
    except OmegaConfBaseException as error:
        raise ConfigError(first_line(error)) from error
    return config


def quote_text(override: str) -> str:
    """Put quotes around the value of one of TEXTS where Hydra would read something else in it: a function call, several
    values, a number. A value that is in quotes already, or null, stays as it is; ~/ is the user's folder."""
    key, _, value = override.partition("=")
    if not key.endswith(TEXTS) or value == "null":
        return override
    value = os.path.expanduser(value)
    return f"{key}={value}" if is_text(value) else f"{key}={QuotedString(value, Quote.single).with_quotes()}"


@cache  # of a ledger's outputs folder, which each of its runs names
def is_text(value: str) -> bool:
    """Whether Hydra reads a value as text: it is in quotes, or stands for itself."""
    with contextlib.suppress(ConfigError):
        return parse(f"text={value}").value() == value or value.startswith(("'", '"'))
    return False


def parse(override: str) -> Override:
    """Parse an override with Hydra's grammar. Raises ConfigError."""
    try:
        return OverridesParser.create().parse_override(override)
    except HydraException as error:
        raise ConfigError(f"'{override}' is not key=value: {first_line(error)}") from error


def values_of(override: Override) -> Iterator[Any]:
    """The values of an override: its single value, those of its sweep, or the two ends of its interval."""
    if override.is_interval_sweep():
        interval: Any = override.value()
        yield from (interval.start, interval.end)
    elif override.is_sweep_override():
        yield from override.sweep_string_iterator()
    elif not override.is_delete():
        yield override.get_value_element_as_str()

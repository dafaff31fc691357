"""Compose a configuration from the user's overrides, and validate them before anything is built."""

import copy
from collections.abc import Sequence

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from experiments.config.checks import flatten, is_setting, plain, required
from experiments.config.choices import file_of, groups_of, nearest
from experiments.config.composition import compose_unchecked
from experiments.config.errors import ConfigError
from experiments.config.overrides import apply, parse, values_of


def compose(overrides: Sequence[str], return_hydra_config: bool = False, root: str = "config") -> DictConfig:
    """Validate the overrides, then compose conf/<root>.yaml with them. Raises ConfigError."""
    check_overrides(overrides, root=root)
    return compose_unchecked(overrides, return_hydra_config, root)


def check_overrides(overrides: Sequence[str], multirun: bool = False, root: str = "config") -> None:
    """Raise ConfigError for an unknown key, group or option, a value of the wrong type, a setting that cannot be left
    out, or a sweep without -m."""
    known = groups_of(root)
    for word in overrides:
        if "=" not in word and not word.startswith("~"):
            meant = next((f"{group}={word}" for group, options in known.items() if word in options), "seed=1")
            raise ConfigError(f"'{word}' is not key=value, such as {meant}")
    parsed = [parse(override) for override in overrides]
    for override in parsed:
        if override.is_sweep_override() and not multirun:
            raise ConfigError(f"'{override.input_line}' has several values: add -m to run them all")
    chosen, values = [], []
    for override in parsed:
        key = override.key_or_group
        if override.is_delete() and key in known:
            raise ConfigError(f"'{override.input_line}': a group cannot be taken away; {nearest('', known[key])}")
        if key in known:
            for choice in map(str, values_of(override)):
                if choice not in known[key]:
                    raise ConfigError(f"{key}={choice}: no such choice; {nearest(choice, known[key])}")
            chosen.append(f"{key}={next(iter(values_of(override)))}")
        elif not key.startswith("hydra"):
            values.append(override)
    composed = compose_unchecked(chosen, root=root)
    keys = list(flatten(composed))
    offered = [*known, *(key for key in keys if is_setting(key) and "._" not in key)]
    for override in values:
        key = override.key_or_group
        node, dot, _ = key.partition(".")
        added = (override.is_add() or override.is_force_add()) and dot and node in keys
        if not added and key not in keys:
            others = options_with(key, known)
            hint = (
                f"{', '.join(others)} {'has' if len(others) == 1 else 'have'} it" if others else nearest(key, offered)
            )
            raise ConfigError(f"unknown key '{key}'; {hint}")
        if override.is_delete():
            check_deletion(composed, override)
        changed = copy.deepcopy(composed)  # compose only once: it takes Hydra 0.1 s
        for value in values_of(override):
            plain(apply(changed, parse(f"{(override.input_line or '').split('=')[0]}={value}")), complete=False)


def options_with(key: str, known: dict[str, list[str]]) -> list[str]:
    """The choices of a key's group that have it, as overrides: data=pg19 has data.path."""
    group, _, name = key.partition(".")
    files = {f"{group}={option}": file_of(group, option) for option in known.get(group, [])}
    return [choice for choice, file in files.items() if name in OmegaConf.load(file)]


def check_deletion(composed: DictConfig, override: Override) -> None:
    """Raise ConfigError for ~key where every run has this key, or where what it is a setting of has no default."""
    key = override.key_or_group
    parent, _, name = key.rpartition(".")
    node = OmegaConf.select(composed, parent) if parent else composed
    if OmegaConf.get_type(node) is not dict or ("_target_" in node and name in required(node._target_)):
        raise ConfigError(f"'{override.input_line}': a run needs {key}; set it to another value with {key}=…")

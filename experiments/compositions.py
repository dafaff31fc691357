"""Compositions that are kept: composing takes Hydra a fifth of a second, and a ledger rests on hundreds of runs."""

import contextlib
import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from experiments import config
from experiments.config import CONF, compose_unchecked, groups, plain
from tasks.data.source import write_atomically

SEED, OUTPUTS = -987_654_321, "<outputs>"  # stand for what changes nothing in a composition but itself
FILE = CONF.parent / "outputs" / "cache" / "compositions.json"


def composition(overrides: tuple[str, ...], seed: int, outputs: str) -> dict[str, Any]:
    """The plain configuration for these overrides, this seed and these outputs. Raises ConfigError."""
    kept = opened()
    key = " ".join(overrides)
    if key not in kept["configurations"]:
        known = {"experiment", *groups()}
        choices = tuple(override for override in overrides if override.split("=")[0] in known)
        values = [override for override in overrides if override not in choices]
        composed = OmegaConf.merge(composed_of(choices), OmegaConf.from_dotlist(values))
        kept["configurations"][key] = plain(composed)  # type: ignore[arg-type]
        keep(kept)
    return replaced(kept["configurations"][key], seed, outputs)


def sweep(experiment: str, scale: str) -> dict[str, str]:
    """The levels of each factor of an experiment's sweep, as its configuration writes them. Raises ConfigError."""
    kept = opened()
    key = f"{experiment} {scale}"
    if key not in kept["sweeps"]:
        composed = compose_unchecked([f"experiment={experiment}", f"scale={scale}"], return_hydra_config=True)
        params: Any = OmegaConf.to_container(composed.hydra.sweeper.params)
        kept["sweeps"][key] = {name: str(levels) for name, levels in params.items()}
        keep(kept)
    return kept["sweeps"][key]


def keep(kept: dict[str, Any]) -> None:
    """Write what is kept; where nothing can be, everything is composed again."""
    with contextlib.suppress(OSError):
        write_atomically(FILE, json.dumps(kept).encode())


@cache
def composed_of(choices: tuple[str, ...]) -> DictConfig:
    """What Hydra composes of the choices; values are merged into it afterwards, as Hydra does."""
    return compose_unchecked([*choices, f"seed={SEED}", f"outputs='{OUTPUTS}'"])


@cache
def opened() -> dict[str, Any]:
    """What was kept for the configuration as it is now."""
    sources = [*sorted(CONF.rglob("*.yaml")), Path(config.__file__), Path(__file__)]
    digest = hashlib.sha256(b"".join(str(source).encode() + source.read_bytes() for source in sources)).hexdigest()
    try:
        kept = json.loads(FILE.read_text())
    except (OSError, ValueError):
        kept = {}
    return kept if kept.get("digest") == digest else {"digest": digest, "configurations": {}, "sweeps": {}}


def replaced(node: Any, seed: int, outputs: str) -> Any:
    """The same configuration with seed and outputs in their places."""
    if isinstance(node, dict):
        return {key: replaced(value, seed, outputs) for key, value in node.items()}
    if isinstance(node, list):
        return [replaced(value, seed, outputs) for value in node]
    if isinstance(node, str):
        return node.replace(OUTPUTS, outputs)
    return seed if type(node) is int and node == SEED else node

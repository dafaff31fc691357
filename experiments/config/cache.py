"""Compositions cached on disk: Hydra takes a quarter of a second for one, and a ledger needs hundreds."""

import contextlib
import copy
import hashlib
import json
import os
from collections.abc import Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from experiments.config import plugins
from experiments.config.checks import plain
from experiments.config.choices import CONF, file_of, groups
from experiments.config.composition import compose_unchecked
from experiments.config.schema import switches

ROOT = CONF.parent
CACHES = ROOT / "outputs" / "cache"  # of a clone; what is installed writes into the user's folder for caches
if not (ROOT / "pyproject.toml").exists():
    CACHES = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "experiment-reproduction-harness"
KEPT = 8  # files of a cache, the latest ones
SEED, OUTPUTS = 4_187_654_321, "<outputs>"  # placeholders: a composition differs by seed and outputs in nothing else


class DiskCache:
    """JSON values by key, one line each, in a file for the source files as they are, and the folders from outside.

    sources: files and folders of the project. Where the file cannot be written, values are computed again.
    """

    def __init__(self, name: str, *sources: str):
        self.folder, self.sources = CACHES / name, sources

    @cached_property
    def file(self) -> Path:
        """The file for the sources as they are now."""
        sources = [*(ROOT / source for source in self.sources), *plugins.folders()]
        paths = (path for source in sources for path in [source, *source.rglob("*")])
        files = sorted(path for path in paths if path.suffix in (".py", ".yaml"))
        content = b"".join(os.path.relpath(file, ROOT).encode() + file.read_bytes() for file in files)
        return self.folder / f"{hashlib.sha256(content).hexdigest()[:16]}.jsonl"

    @cached_property
    def values(self) -> dict[str, Any]:
        """All cached values."""
        found: dict[str, Any] = {}
        with contextlib.suppress(OSError):
            for line in self.file.read_bytes().splitlines():
                with contextlib.suppress(ValueError):  # a line that was cut off
                    found |= json.loads(line)
        return found

    def add(self, key: str, value: Any) -> None:
        """Cache a value."""
        self.values[key] = value
        with contextlib.suppress(OSError):
            if not self.file.exists():
                self.folder.mkdir(parents=True, exist_ok=True)
                for earlier in sorted(self.folder.iterdir(), key=os.path.getmtime)[:-KEPT]:
                    earlier.unlink(missing_ok=True)
            with open(self.file, "ab", buffering=0) as lines:  # each line is written at once, by any process
                lines.write(json.dumps({key: value}).encode() + b"\n")


cached = DiskCache("compositions", "conf", "experiments/config")


def composition(overrides: Sequence[str], seed: int, outputs: str) -> dict[str, Any]:
    """The plain configuration for these overrides, this seed and these outputs. Raises ConfigError."""
    own = [override for override in overrides if not override.startswith(("seed=", "outputs="))]
    key = " ".join([*own, *switches(), *plugins.packages()])
    if key not in cached.values:
        cached.add(key, plain(merged(own)))
    return replaced(cached.values[key], seed, outputs)


def merged(overrides: Sequence[str]) -> DictConfig:
    """What Hydra composes of choices, with the values merged in as Hydra does. None is added (+) or taken away (~)."""
    known = groups()
    choices = tuple(override for override in overrides if override.split("=")[0] in known)
    config = composed(choices)
    config.merge_with_dotlist([override for override in overrides if override not in choices])
    return config


def composed(choices: tuple[str, ...]) -> DictConfig:
    """What Hydra composes of choices alone, for values to be merged into.

    A choice whose file only fills the node of its group is put into what Hydra composes of the others, which is the
    same where that node is the file of the group's default, so that nothing else sets it.
    """
    simple = {group: option for group, option in (choice.split("=") for choice in choices) if node_of(group, option)}
    config, hydra = by_hydra(tuple(choice for choice in choices if choice.split("=")[0] not in simple))
    nodes: Any = OmegaConf.to_container(config)
    if any(nodes.get(group) != node_of(group, hydra.runtime.choices.get(group)) for group in simple):
        config, simple = by_hydra(choices)[0], {}
    config = copy.deepcopy(config)
    for group, option in simple.items():
        config[group] = node_of(group, option)
    return config


@cache
def by_hydra(choices: tuple[str, ...]) -> tuple[DictConfig, DictConfig]:
    """What Hydra composes of choices, and its own configuration."""
    config = compose_unchecked([*choices, f"seed={SEED}", f"outputs='{OUTPUTS}'"], return_hydra_config=True)
    with open_dict(config):
        return config, config.pop("hydra")


@cache
def node_of(group: str, option: str) -> dict[str, Any] | None:
    """The file of a choice, interpolations as written; None if it fills more than the node of its group."""
    file = file_of(group, option)
    text = file.read_text() if file.exists() else "defaults:"
    node: Any = OmegaConf.to_container(OmegaConf.create(text))
    return None if "@package" in text or "defaults:" in text else node


def replaced(node: Any, seed: int, outputs: str) -> Any:
    """The configuration with seed and outputs in place of their placeholders."""
    if isinstance(node, dict):
        return {key: replaced(value, seed, outputs) for key, value in node.items()}
    if isinstance(node, list):
        return [replaced(value, seed, outputs) for value in node]
    if isinstance(node, str):
        return node.replace(OUTPUTS, outputs)
    return seed if type(node) is int and node == SEED else node


def sweep(experiment: str, scale: str) -> dict[str, str]:
    """The levels of each factor of an experiment's sweep, as configured. Raises ConfigError."""
    key = f"sweep of {experiment} at {scale}"
    if key not in cached.values:
        _, hydra = by_hydra((f"experiment={experiment}", f"scale={scale}"))
        cached.add(key, {str(name): str(levels) for name, levels in hydra.sweeper.params.items()})
    return cached.values[key]


def choices(experiment: str, scale: str) -> dict[str, str]:
    """The option that an experiment chooses of each group, where overrides choose no other. Raises ConfigError."""
    key = f"choices of {experiment} at {scale}"
    if key not in cached.values:
        _, hydra = by_hydra((f"experiment={experiment}", f"scale={scale}"))
        cached.add(key, {str(group): str(option) for group, option in hydra.runtime.choices.items() if option})
    return cached.values[key]

"""Compositions cached on disk: Hydra takes a fifth of a second for one, and a ledger needs hundreds."""

import contextlib
import hashlib
import json
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from experiments.config.checks import plain
from experiments.config.choices import CONF, groups
from experiments.config.composition import compose_unchecked

ROOT = CONF.parent
SEED, OUTPUTS = -987_654_321, "<outputs>"  # placeholders: a composition differs by seed and outputs in nothing else


class DiskCache:
    """JSON values by key, one line each, in a file that is replaced when one of the source files changes.

    sources: files and folders of the project. Where the file cannot be written, values are computed again.
    """

    def __init__(self, name: str, *sources: str):
        self.folder, self.sources = ROOT / "outputs" / "cache" / name, sources

    @cached_property
    def file(self) -> Path:
        """The file for the sources as they are now."""
        paths = (path for source in self.sources for path in [ROOT / source, *(ROOT / source).rglob("*")])
        files = sorted(path for path in paths if path.suffix in (".py", ".yaml"))
        content = b"".join(str(file.relative_to(ROOT)).encode() + file.read_bytes() for file in files)
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
                for earlier in {*self.folder.iterdir()} - {self.file}:  # another process may have begun ours
                    earlier.unlink(missing_ok=True)
            with open(self.file, "ab", buffering=0) as lines:  # each line is written at once, by any process
                lines.write(json.dumps({key: value}).encode() + b"\n")


cached = DiskCache("compositions", "conf", "experiments/config")


def composition(overrides: Sequence[str], seed: int, outputs: str) -> dict[str, Any]:
    """The plain configuration for these overrides, this seed and these outputs. Raises ConfigError."""
    own = shared(overrides)
    key = " ".join(own)
    if key not in cached.values:
        known = {"experiment", *groups()}
        choices = tuple(override for override in own if override.split("=")[0] in known)
        values = [override for override in own if override not in choices]
        merged: Any = OmegaConf.merge(composed(choices), OmegaConf.from_dotlist(values))  # as Hydra does
        cached.add(key, plain(merged))
    return replaced(cached.values[key], seed, outputs)


@cache
def composed(choices: tuple[str, ...]) -> DictConfig:
    """What Hydra composes of choices alone, for values to be merged into."""
    return compose_unchecked([*choices, f"seed={SEED}", f"outputs='{OUTPUTS}'"])


def shared(overrides: Sequence[str]) -> tuple[str, ...]:
    """The overrides without seed and outputs: all that agree in these share a composition."""
    return tuple(override for override in overrides if not override.startswith(("seed=", "outputs=")))


def replaced(node: Any, seed: int, outputs: str) -> Any:
    """The configuration with seed and outputs in place of their placeholders."""
    if isinstance(node, dict):
        return {key: replaced(value, seed, outputs) for key, value in node.items()}
    if isinstance(node, list):
        return [replaced(value, seed, outputs) for value in node]
    if isinstance(node, str):
        return node.replace(OUTPUTS, outputs)
    return seed if type(node) is int and node == SEED else node


def sweep(experiment: str) -> dict[str, str]:
    """The levels of each factor of an experiment's sweep, as configured. Raises ConfigError."""
    key = f"sweep of {experiment}"
    if key not in cached.values:
        params: Any = compose_unchecked([f"experiment={experiment}"], return_hydra_config=True).hydra.sweeper.params
        cached.add(key, {str(name): str(levels) for name, levels in params.items()})
    return cached.values[key]


def compose_all(experiments: Iterable[str], overrides_of: Callable[[str], Iterable[Sequence[str]]]) -> None:
    """Compose the overrides of experiments that are not cached, one experiment per process."""

    def is_cached(experiment: str) -> bool:
        keys = cached.values
        return f"sweep of {experiment}" in keys and all(" ".join(shared(o)) in keys for o in overrides_of(experiment))

    missing = [experiment for experiment in experiments if not is_cached(experiment)]
    for found in on_all_cores(partial(compose_missing, overrides_of), missing):
        cached.values.update(found)


def compose_missing(overrides_of: Callable[[str], Iterable[Sequence[str]]], experiment: str) -> dict[str, Any]:
    """What was not cached of an experiment, by its keys."""
    before = set(cached.values)
    for overrides in overrides_of(experiment):
        composition(overrides, SEED, OUTPUTS)
    return {key: value for key, value in cached.values.items() if key not in before}


def on_all_cores(call: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
    """The results of a call on each item, in a process per core."""
    if len(items) < 2:
        return [call(item) for item in items]
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else None)  # everything is imported
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), context, begin_process) as pool:
        return list(pool.map(call, items))


def begin_process() -> None:
    """Compute on one thread, since a fork has no others and would wait for them, and leave Ctrl-C to the parent."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)

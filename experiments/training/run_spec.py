"""A run that is known in full and not started."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from experiments.config.build import data_source
from experiments.config.checks import plain
from experiments.config.composition import compose_unchecked
from experiments.records import environment
from experiments.records.processes import is_first
from experiments.records.record import Record, identity, run_id
from experiments.training.distributed import record_of


@dataclass
class RunSpec:
    """A run that is known in full and not started: its settings, its data, where its record lies, and the overrides
    that asked for it."""

    config: dict[str, Any]
    data: Any
    record: Record
    overrides: Sequence[str] = ()


def resolve(composed: DictConfig, overrides: Sequence[str] = ()) -> RunSpec:
    """Find out which run a configuration is. Raises ConfigError and DataError before anything is built."""
    return spec_of(plain(composed), overrides)


def spec_of(config: dict[str, Any], overrides: Sequence[str], source: Callable[[str], Any] = data_source) -> RunSpec:
    """The same from a configuration that is plain and checked; `source` finds its data."""
    data = source(json.dumps(config["data"])) if config["data"] else None
    fingerprint = data.fingerprint if data is not None else "generated"
    precision = environment.resolve_precision(config["training"]["precision"])
    determined = identity(config, fingerprint, precision)
    folder = Path(config["outputs"]) / "runs" / config["name"] / run_id(determined)
    if not is_first():
        config = config | {"tracking": config["tracking"] | {"mode": "disabled"}}
    return RunSpec(config, data, record_of(folder, determined), overrides)


def spec_of_start(spec: RunSpec) -> RunSpec:
    """The run that another one starts from."""
    overrides = overrides_of_start(spec)
    return resolve(compose_unchecked(overrides), overrides)


def overrides_of_start(spec: RunSpec) -> list[str]:
    """The overrides of the run that another one starts from: its own but for those of `start`, which replace them."""
    start = spec.config["start"]
    replaced = tuple(f"{override.split('=')[0]}{end}" for override in start for end in ("=", "."))
    kept = [override for override in spec.overrides if not override.startswith(replaced)]
    return [*kept, *start, "start=null"]

"""The full specification of a run that has not started."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from experiments.config.build import data_source
from experiments.config.checks import plain
from experiments.config.composition import compose_unchecked
from experiments.recording import environment
from experiments.recording.processes import is_first
from experiments.recording.record import Record, identity, run_id
from experiments.training.distributed import record_of
from experiments.training.revisions import pinned


@dataclass
class RunSpec:
    """A run before it starts: its configuration, its data, its record, and the overrides it was requested by."""

    config: dict[str, Any]
    data: Any
    record: Record
    overrides: Sequence[str] = ()


def resolve(composed: DictConfig, overrides: Sequence[str] = ()) -> RunSpec:
    """The run that a composed configuration specifies. Raises ConfigError and DataError before anything is built."""
    return spec_of(plain(composed), overrides)


def spec_of(config: dict[str, Any], overrides: Sequence[str], source: Callable[[str], Any] = data_source) -> RunSpec:
    """The run that a plain, checked configuration specifies. source: builds the data from its settings as JSON; one
    that only sketches them leaves branches of the hub unresolved."""
    config = pinned(config) if source is data_source else config
    data = source(json.dumps(config["data"])) if config["data"] else None
    fingerprint = data.fingerprint if data is not None else "generated"
    precision = environment.resolve_precision(config["training"]["precision"])
    determined = identity(config, fingerprint, precision)
    folder = Path(config["outputs"]) / "runs" / config["name"] / run_id(determined)
    if not is_first():
        config = config | {"tracking": config["tracking"] | {"mode": "disabled"}}
    return RunSpec(config, data, record_of(folder, determined), overrides)


def spec_of_start(spec: RunSpec) -> RunSpec:
    """The run whose weights a run starts from."""
    overrides = overrides_of_start(spec)
    start = resolve(compose_unchecked(overrides), overrides)
    start.config["threads"] = spec.config["threads"]  # of a worker that has one core to itself
    return start


def overrides_of_start(spec: RunSpec) -> list[str]:
    """The overrides of the run that a run starts from: the run's own, replaced by those of `start`."""
    start = spec.config["start"]
    replaced = tuple(f"{override.split('=')[0]}{end}" for override in start for end in ("=", "."))
    others = [override for override in spec.overrides if not override.startswith(replaced)]
    return [*others, *start, "start=null"]

"""Evaluate any causal or sequence-to-sequence model of transformers, with its own tokenizer.

The result is a record, with a W&B run and a row on the report page, like that of a training run.
"""

import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, OmegaConf
from rich.console import Console

from experiments.config.build import build, data_source
from experiments.config.checks import plain
from experiments.config.compose import compose
from experiments.config.errors import ConfigError
from experiments.config.overrides import quote_text
from experiments.config.schema import Scale, Tracking
from experiments.recording import environment
from experiments.recording.contents import to_line
from experiments.recording.record import Record, identity, run_id
from experiments.tracking.wandb_run import Tracker, tags_of
from experiments.training.checks import memory_errors_named
from experiments.training.revisions import pinned
from models.external import Source, find
from tasks.data.source import write_atomically

NEEDS = {"evaluate_language_modeling": "documents", "evaluate_summarization": "pairs"}  # what the data must provide
NAMES = {"model": "pretrained", "task": "evaluation"}  # the user's keys → ours: model and task are groups for training
SUMMARIES = "evaluate_summarization"  # the only task for sequence-to-sequence models


@dataclass
class Config:
    """An evaluation."""

    name: str = MISSING
    pretrained: str = MISSING
    seed: int = MISSING
    scale: str = MISSING
    outputs: str = MISSING
    cache: str = MISSING
    threads: int | None = None
    task: Any = MISSING
    data: Any = MISSING
    tracking: Tracking = field(default_factory=Tracking)


@dataclass
class Root(Scale, Config):
    """The root of conf/evaluate.yaml."""


def composed(overrides: Sequence[str]) -> dict[str, Any]:
    """The plain configuration for these overrides. Raises ConfigError."""
    ConfigStore.instance().store(name="evaluation_schema", node=Root)
    given = {override.split("=")[0] for override in overrides}
    for key, values in (("model", "<folder or hub id>"), ("task", "passkey|language_modeling|summarization")):
        if key not in given:
            raise ConfigError(f"{key} is missing: add {key}={values}")
    renamed = [*overrides]
    for key, own in NAMES.items():
        renamed = [f"{own}{line.removeprefix(key)}" if line.startswith(f"{key}=") else line for line in renamed]
    try:
        config = compose([quote_text(line) for line in renamed], root="evaluate")
    except ConfigError as error:
        message = str(error)
        for key, own in NAMES.items():
            message = message.replace(f"{own}=", f"{key}=")
        raise ConfigError(message) from error
    return plain(config)


def assemble(config: dict[str, Any], source: Source) -> tuple[Any, str]:
    """The task with the model's tokenizer, and the fingerprint of its data. Raises ConfigError and DataError."""
    if source.encoder and config["name"] != SUMMARIES:
        raise ConfigError(
            f"model={source.name} is a sequence-to-sequence model: it can only be evaluated on task=summarization"
        )
    arguments: dict[str, Any] = {"tokenizer": source.tokenizer, "limit": source.limit}
    if config["name"] == SUMMARIES:
        arguments["encoder"] = source.encoder
    data = data_source(json.dumps(config["data"])) if config["data"] else None
    needed = NEEDS.get(config["name"], "")
    if (needed and not hasattr(data, needed)) or (data is not None and not needed):
        raise ConfigError(f"task={config['name'].partition('_')[2]} needs {needed or 'no data'}: choose another data=…")
    fingerprint = "generated" if data is None else data.fingerprint
    if data is not None:
        arguments["data"] = data
    task = build(OmegaConf.create(config["task"]), **arguments)
    if source.limit is not None and task.length > source.limit:
        raise ConfigError(
            f"the task's {task.length} tokens exceed the {source.limit} positions of model={source.name}: choose a "
            "shorter length"
        )
    written, longest = config["task"].get("summary_length", 0), source.answer_limit
    if longest is not None and written > longest:
        raise ConfigError(
            f"task.summary_length={written} exceeds the {longest} positions of the decoder of model={source.name}: "
            "choose a shorter one"
        )
    return task, fingerprint


def execute(config: dict[str, Any], overrides: Sequence[str], console: Console) -> Record:
    """Evaluate the model and record the result; returns the existing record if there is a finished one.

    Raises ConfigError, DataError and ValueError.
    """
    environment.use_threads(config["threads"])
    source, config = find(config["pretrained"]), pinned(config)
    task, data_fingerprint = assemble(config, source)
    determined = {**config, "pretrained": source.fingerprint, "training": {}}
    precision = str(source.config.dtype).removeprefix("torch.")
    own = identity(determined, data_fingerprint, precision, f"{__name__}.execute")
    record = Record(Path(config["outputs"]) / "runs" / config["name"] / run_id(own))
    with record.locked(), memory_errors_named():
        if record.finished:
            console.print(f"finished before: {record.folder}")
            return record
        model = source.load().to("cuda" if environment.processor_is_gpu() else "cpu")
        console.print(f"run {record.folder}")
        record.begin(config, environment.describe(own) | {"model": source.fingerprint})
        started, tracker = time.monotonic(), None
        try:
            tags = tags_of([line for line in overrides if not line.startswith("model=")])
            tracker = Tracker(config, record, tags)
            with torch.no_grad():
                result = task.evaluate(model)
            for name, value in result.metrics.items():
                if not math.isfinite(value):
                    raise ValueError(f"{name} is {value}: model={source.name} does not compute finite numbers")
            summary = {
                "metrics": result.metrics,
                "evaluations": {"0": result.metrics},
                "parameters": sum(parameter.numel() for parameter in model.parameters()),
                "steps": 0,
                "seconds": round(time.monotonic() - started, 3),
            }
            write_atomically(record.metrics_file, to_line({"step": 0, **result.metrics}))
            record.finish(summary, result.tables)
        except BaseException as error:
            stopped = isinstance(error, KeyboardInterrupt)
            record.set_status("interrupted" if stopped else "failed", None if stopped else error)
            if tracker:
                tracker.abandon()
            raise
        tracker.log(result.metrics, 0)
        tracker.finish(summary, result.tables, 0)
    return record

"""`python -m experiments.evaluate model=<folder or hub id> task=… [data=…] [key=value]`: judge a model of one's own.

Any causal model of transformers, or a sequence-to-sequence model for summaries, with its own tokenizer. The record, the
W&B run and the place on the report page are as those of a run that trains.
"""

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, OmegaConf
from rich.console import Console

from experiments import environment
from experiments.config import ConfigError, Tracking, compose, plain
from experiments.execution import USER_ERRORS, build, data_source, tags_of
from experiments.parallel import check_alone
from experiments.records import Record, identity, run_id
from experiments.report.publish import publish
from experiments.reproduce import gather
from experiments.sweep import fail, print_result
from experiments.tracking import Tracker
from models.foreign import Source, find
from tasks.data.source import write_atomically

NEEDS = {"evaluate_language_modeling": "documents", "evaluate_summarization": "pairs"}  # of its data
NAMES = {"model": "pretrained", "task": "evaluation"}  # both are groups of runs that train, and called otherwise here
SUMMARIES = "evaluate_summarization"  # all that a sequence-to-sequence model can be asked for


@dataclass
class Config:
    """The root of conf/evaluate.yaml."""

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


def composed(overrides: Sequence[str]) -> dict[str, Any]:
    """The configuration for these overrides. Raises ConfigError."""
    ConfigStore.instance().store(name="evaluation_schema", node=Config)
    given = {override.split("=")[0] for override in overrides}
    for key, wanted in (("model", "<folder or hub id>"), ("task", "passkey|language_modeling|summarization")):
        if key not in given:
            raise ConfigError(f"say {key}={wanted}")
    said = [*overrides]
    for key, own in NAMES.items():
        said = [f"{own}{line.removeprefix(key)}" if line.startswith(f"{key}=") else line for line in said]
    try:
        config = compose(said, root="evaluate")
    except ConfigError as error:
        message = str(error)
        for key, own in NAMES.items():
            message = message.replace(f"{own}=", f"{key}=")
        raise ConfigError(message) from error
    return plain(config)


def assemble(config: dict[str, Any], source: Source) -> tuple[Any, str]:
    """The task in the model's tokens, and the fingerprint of its data. Raises ConfigError and DataError."""
    if source.encoder and config["name"] != SUMMARIES:
        raise ConfigError(
            f"model={source.name} is a sequence-to-sequence model: it can be asked for task=summarization"
        )
    known: dict[str, Any] = {"tokenizer": source.tokenizer, "limit": source.limit}
    if config["name"] == SUMMARIES:
        known["encoder"] = source.encoder
    data = data_source(json.dumps(config["data"])) if config["data"] else None
    needed = NEEDS.get(config["name"], "")
    if (needed and not hasattr(data, needed)) or (data is not None and not needed):
        raise ConfigError(f"task={config['name'].partition('_')[2]} needs {needed or 'no data'}: choose another data=…")
    fingerprint = "generated" if data is None else data.fingerprint
    if data is not None:
        known["data"] = data
    task = build(OmegaConf.create(config["task"]), **known)
    if source.limit is not None and task.length > source.limit:
        raise ConfigError(
            f"the task's {task.length} tokens are beyond the {source.limit} positions of model={source.name}: choose a "
            "shorter length"
        )
    return task, fingerprint


def execute(config: dict[str, Any], overrides: Sequence[str], console: Console) -> Record:
    """Evaluate and record; what was evaluated before is left alone. Raises ConfigError, DataError and ValueError."""
    environment.use_threads(config["threads"])
    source = find(config["pretrained"])
    task, data_fingerprint = assemble(config, source)
    determined = {**config, "pretrained": source.fingerprint, "training": {}}
    known = identity(determined, data_fingerprint, str(source.config.dtype).removeprefix("torch."))
    record = Record(Path(config["outputs"]) / "runs" / config["name"] / run_id(known))
    with record.locked():
        if record.finished:
            console.print(f"finished before: {record.folder}")
            return record
        model = source.load().to("cuda" if environment.processor_is_gpu() else "cpu")
        console.print(f"run {record.folder}")
        record.begin(config, environment.describe(known) | {"model": source.fingerprint})
        tracker = Tracker(config, record.id, tags_of([line for line in overrides if not line.startswith("model=")]))
        started = time.monotonic()
        try:
            with torch.no_grad():
                found = task.evaluate(model)
            summary = {
                "metrics": found.metrics,
                "evaluations": {"0": found.metrics},
                "parameters": sum(parameter.numel() for parameter in model.parameters()),
                "steps": 0,
                "seconds": round(time.monotonic() - started, 3),
            }
            write_atomically(record.metrics_file, json.dumps({"step": 0, **found.metrics}).encode() + b"\n")
            record.finish(summary, found.tables)
        except BaseException as error:
            stopped = isinstance(error, KeyboardInterrupt)
            record.set_status("interrupted" if stopped else "failed", None if stopped else error)
            tracker.abandon()
            raise
        tracker.log(found.metrics, 0)
        tracker.finish(summary, found.tables, 0)
    return record


def main(arguments: Sequence[str]) -> int:
    """Evaluate what the arguments say; returns the exit code."""
    console = Console(stderr=True)
    transformers.logging.disable_progress_bar()
    try:
        check_alone("an evaluation")
        config = composed(arguments)
        record = execute(config, arguments, console)
        print_result(console, record)
        page = publish(gather(config["scale"], config["outputs"]), config["scale"], config["outputs"], None)
        console.print(f"among all results: {page}", soft_wrap=True)
    except USER_ERRORS as error:
        fail(console, error)
        return 1
    except KeyboardInterrupt:
        console.print("stopped", style="yellow")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""One run: built, trained, evaluated and recorded."""

import json
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from rich.console import Console
from torch import nn

from experiments.config.build import build, data_source
from experiments.config.errors import ConfigError, RecordError
from experiments.recording import environment
from experiments.recording.memory import process_peak, reset_peak
from experiments.recording.processes import is_first, processes
from experiments.recording.record import Record, check_same_data
from experiments.tracking.wandb_run import Tracker, tags_of, warm_up
from experiments.training.checks import check_causal, is_recomputed, memory_errors_named, outline
from experiments.training.debugging import debugging
from experiments.training.distributed import agreed, check_alone, check_shares, shard
from experiments.training.learned_parameters import gates, trained_beta
from experiments.training.loop import Interrupted, Result, checkpoint, parameter_groups, train, unit
from experiments.training.run_spec import RunSpec, spec_of_start
from models.initialization import initialize
from models.recomputation import recompute_layers
from models.state import leaves
from tasks.base import Evaluation
from tasks.data.source import write_atomically


def execute(spec: RunSpec, console: Console, wait: bool = False) -> Record:
    """Execute a run and record it. A finished run is not run again; an interrupted one resumes.

    If the run starts from another run, that one is executed first. wait: if another process executes this run, wait for
    it. Raises Interrupted after Ctrl-C or SIGTERM, and RecordError if the run that it starts from diverged. Any other
    error is raised and recorded in the record's status.
    """
    record, config = spec.record, spec.config
    if agreed(record.finished):
        console.print(f"{record.status} before: {record.folder}", soft_wrap=True)
        return record
    if config["search"]:
        check_alone("a search")
    check_same_data(config["outputs"], config, spec.record.identity["data"])
    start = execute(spec_of_start(spec), console, wait=True) if config["start"] else None
    if start and start.diverged:
        raise RecordError(
            f"{start.folder}, which this run starts from, has diverged: choose a smaller learning rate for it"
        )
    with record.locked(wait), memory_errors_named():
        if agreed(record.finished):  # by the process that held the lock
            return record
        environment.use_threads(config["threads"])
        reset_peak()
        resident = process_peak()
        task, model = assemble(spec)  # invalid settings raise before anything is recorded
        warm_up(config)
        if start:
            checkpoint.load_weights(start.checkpoint_file, model, start.config["training"]["steps"])
        console.print(f"run {record.folder}", soft_wrap=True)
        more = {"overrides": list(spec.overrides), "start": start and start.id, "resident_bytes": resident}
        record.begin(config, environment.describe(record.identity) | more)
        tracker = None
        try:
            if hasattr(task, "tokenizer") and is_first():  # for the export of the model
                write_atomically(record.folder / "tokenizer.json", task.tokenizer.to_str().encode())
            tracker = Tracker(config, record, tags_of(spec.overrides))
            agreed(True)  # wait until the record has begun
            result = work(spec, task, model, tracker, console)
            summary = summarize(task, model, result, config)
            record.finish(summary, result.tables)
        except BaseException as error:
            stopped = isinstance(error, (Interrupted, KeyboardInterrupt))
            try:
                record.set_status("interrupted" if stopped else "failed", None if stopped else error)
                if tracker:
                    tracker.abandon()
            except OSError:
                pass  # a full disk is reported by the error that is raised next
            raise
        tracker.finish(summary, result.tables, config["training"]["steps"])
    agreed(True)  # wait until the record is finished
    return record


def assemble(spec: RunSpec) -> tuple[Any, nn.Module]:
    """Build the task, and the model with its initial weights. Raises ConfigError if they do not fit."""
    config = spec.config
    settings = OmegaConf.create(config)
    torch.manual_seed(config["seed"])
    known = {} if spec.data is None else {"data": spec.data}
    task = build(settings.task, **known)
    sketch, recompute = outline(lambda: build(settings.model, **task.model_arguments)), False
    longest, limit = getattr(task, "length", 0), getattr(sketch, "limit", None)
    if limit is not None and longest > limit:
        raise ConfigError(
            f"the task's sequences of {longest} tokens are beyond the {limit} positions of the model: set a longer "
            "position.max_length, or choose a scheme without a maximum length"
        )
    if sketch is not None:
        if task.model_arguments and not any(True for _ in sketch.parameters()):
            raise ConfigError("the task trains a model and this one has no weights: choose another with model=…")
        recompute = is_recomputed(sketch, task, config, spec.record.identity["precision"])
    check_shares(task)
    build(settings.optimizer)([nn.Parameter(torch.zeros(1))])  # raises ValueError for settings that it refuses
    model = build(settings.model, **task.model_arguments)
    initialize(model, config["seed"], config["training"]["initial_gain"])
    check_causal(model, task)
    if recompute:
        recompute_layers(model)
    return task, model


def metric_names(spec: RunSpec) -> set[str]:
    """The names of the metrics that a run will have, from its record or from an evaluation before training; none of a
    search, whose metrics come of its trainings."""
    if spec.record.finished:
        return set(spec.record.summary["metrics"])
    if spec.config["search"]:
        return set()
    environment.use_threads(spec.config["threads"])
    task, model = assemble(spec)
    with torch.no_grad():
        found = task.evaluate(model.eval().to("cuda" if environment.processor_is_gpu() else "cpu"))
    return {*found.metrics, *gates(model), *trained_beta(model).metrics}


def work(spec: RunSpec, task: Any, model: nn.Module, tracker: Tracker, console: Console) -> Result:
    """Train and evaluate one model, or run a search over many."""
    config = spec.config
    if config["search"] is None:
        return train_model(spec, task, model, tracker, console)
    search = build(OmegaConf.create(config["search"]))
    precision = spec.record.identity["precision"]
    return search(config, precision, spec.record, train_unrecorded, tracker, console)


def train_unrecorded(config: dict[str, Any], precision: str, folder: Path) -> tuple[Result, int]:
    """Train and evaluate the model of a configuration without W&B. Returns the result and the number of parameters.

    folder: for the checkpoint and the metrics.
    """
    spec = RunSpec(config, data_source(json.dumps(config["data"])), Record(folder, {"precision": precision}))
    task, model = assemble(spec)
    result = train_model(spec, task, model, None, Console(quiet=True))
    return result, sum(parameter.numel() for parameter in model.parameters())


def train_model(spec: RunSpec, task: Any, model: nn.Module, tracker: Tracker | None, console: Console) -> Result:
    """Train and evaluate a model; a model without weight matrices is only evaluated."""
    training = spec.config["training"]
    if training.get("shard") and processes() > 1:
        shard(model)
    groups = parameter_groups(model, training["groups"])
    if not groups[0]["params"]:
        found = task.evaluate(model)
        return Result({training["steps"]: found.metrics}, found.tables)
    settings = OmegaConf.create(spec.config)
    optimizer = build(settings.optimizer)(groups)
    schedule = build(settings.schedule)
    record = spec.record
    precision = spec.record.identity["precision"]
    with debugging(training.get("debug"), task, record.folder, console) as watched:
        result = train(model, watched, optimizer, schedule, training, precision, record, tracker, console)
    beta = Evaluation() if result.diverged is not None else trained_beta(model)
    result.evaluations[training["steps"]] |= beta.metrics
    result.tables |= beta.tables
    return result


def summarize(task: Any, model: nn.Module, result: Result, config: dict[str, Any]) -> dict[str, Any]:
    """The summary of a run that ended. `diverged` is in it only if the run did."""
    summary = {
        "metrics": result.evaluations[max(result.evaluations)],
        "evaluations": {str(step): metrics for step, metrics in sorted(result.evaluations.items())},
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "steps": config["training"]["steps"],
        "seconds": round(result.seconds, 3),
        "peak_bytes": process_peak(),
    }
    if result.diverged is not None:
        summary["diverged"] = result.diverged
    if hasattr(model, "initial_state"):
        length = config["task"].get("length", 1024)
        device = next(model.parameters()).device
        with torch.no_grad():
            _, state = model(torch.zeros(1, length, dtype=torch.long, device=device))
        summary["state_floats"] = sum(leaf.numel() for leaf in leaves(state) if leaf.is_floating_point())
        summary["state_after_tokens"] = length
    if result.seen:
        summary[unit(task.batch(0))] = result.seen
    return summary

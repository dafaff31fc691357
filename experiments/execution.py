"""One run: planned, built, trained, evaluated and recorded."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import hydra
import torch
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from torch import nn

from experiments import checkpoint, environment
from experiments.capacity import check_fits, outline
from experiments.config import ConfigError, compose_unchecked, plain
from experiments.learned import trained_beta
from experiments.measure import forget_peak, process_peak
from experiments.parallel import agreed, check_alone, check_shares, is_first, processes, record_of, shard
from experiments.records import Record, RecordError, check_same_data, identity, run_id
from experiments.tracking import Tracker, warm_up
from experiments.training import Interrupted, Result, parameter_groups, train, unit
from models.initialization import initialize
from models.state import leaves
from tasks.data.source import write_atomically

USER_ERRORS = (ValueError, RecordError, OSError)  # told in one line; a run's status.json has the traceback


@dataclass
class Plan:
    """A run that is known in full and not started: its settings, its data, where its record lies, and the overrides
    that asked for it."""

    config: dict[str, Any]
    data: Any
    record: Record
    overrides: Sequence[str] = ()


def build(settings: Any, **known: Any) -> Any:
    """What a node with a _target_ describes. What a class of ours says against its arguments is raised as it was."""
    try:
        return hydra.utils.instantiate(settings, **known)
    except hydra.errors.InstantiationException as error:
        if isinstance(error.__cause__, ValueError):
            raise error.__cause__ from None
        raise


@cache
def data_source(settings: str) -> Any:
    """The data source that a configuration, as JSON, names; runs that share it in one process share its contents."""
    return build(json.loads(settings))


def plan(composed: DictConfig, overrides: Sequence[str] = ()) -> Plan:
    """Find out which run a configuration is. Raises ConfigError and DataError before anything is built."""
    return plan_of(plain(composed), overrides)


def plan_of(config: dict[str, Any], overrides: Sequence[str], source: Callable[[str], Any] = data_source) -> Plan:
    """The same from a configuration that is plain and checked; `source` finds its data."""
    data = source(json.dumps(config["data"])) if config["data"] else None
    fingerprint = data.fingerprint if data is not None else "generated"
    precision = environment.resolve_precision(config["training"]["precision"])
    determined = identity(config, fingerprint, precision)
    folder = Path(config["outputs"]) / "runs" / config["name"] / run_id(determined)
    if not is_first():
        config = config | {"tracking": config["tracking"] | {"mode": "disabled"}}
    return Plan(config, data, record_of(folder, determined), overrides)


def plan_start(planned: Plan) -> Plan:
    """The run that another one starts from."""
    overrides = overrides_of_start(planned)
    return plan(compose_unchecked(overrides), overrides)


def overrides_of_start(planned: Plan) -> list[str]:
    """The overrides of the run that another one starts from: its own but for those of `start`, which replace them."""
    start = planned.config["start"]
    replaced = tuple(f"{override.split('=')[0]}{end}" for override in start for end in ("=", "."))
    kept = [override for override in planned.overrides if not override.startswith(replaced)]
    return [*kept, *start, "start=null"]


def execute(planned: Plan, console: Console, wait: bool = False) -> Record:
    """Run what is planned and record it; a finished run is left alone, one that was cut off goes on.

    The run that it starts from is run first. wait: if another process is at this run, wait until it is done.
    Raises Interrupted after Ctrl-C or SIGTERM. Whatever else goes wrong while it runs is in the record's status too.
    """
    record, config = planned.record, planned.config
    if agreed(record.finished):
        console.print(f"finished before: {record.folder}", soft_wrap=True)
        return record
    if config["search"]:
        check_alone("a search")
    check_same_data(config["outputs"], config, planned.record.identity["data"])
    start = execute(plan_start(planned), console, wait=True) if config["start"] else None
    with record.locked(wait):
        if agreed(record.finished):  # by the one that was waited for
            return record
        environment.use_threads(config["threads"])
        forget_peak()
        resident = process_peak()
        task, model = assemble(planned)  # what cannot be built is refused before anything is recorded
        warm_up(config)
        if start:
            checkpoint.load_weights(start.checkpoint_file, model)
        console.print(f"run {record.folder}", soft_wrap=True)
        asked = {"overrides": list(planned.overrides), "start": start and start.id, "resident_bytes": resident}
        record.begin(config, environment.describe(record.identity) | asked)
        if hasattr(task, "tokenizer") and is_first():  # for whoever takes the model elsewhere
            write_atomically(record.folder / "tokenizer.json", task.tokenizer.to_str().encode())
        tracker = Tracker(config, record.id, tags_of(planned.overrides))
        agreed(True)  # that the record is begun
        try:
            result = work(planned, task, model, tracker, console)
            summary = summarize(task, model, result, config)
            record.finish(summary, result.tables)
        except BaseException as error:
            stopped = isinstance(error, (Interrupted, KeyboardInterrupt))
            try:
                record.set_status("interrupted" if stopped else "failed", None if stopped else error)
                tracker.abandon()
            except OSError:
                pass  # a full disk has been told once, by the error that is on its way
            raise
        tracker.finish(summary, result.tables, config["training"]["steps"])
    agreed(True)  # that the record is finished
    return record


def assemble(planned: Plan) -> tuple[Any, nn.Module]:
    """The task and the model with its initial weights."""
    config = planned.config
    settings = OmegaConf.create(config)
    torch.manual_seed(config["seed"])
    known = {} if planned.data is None else {"data": planned.data}
    task = build(settings.task, **known)
    sketch = outline(lambda: build(settings.model, **task.model_arguments))
    longest, limit = getattr(task, "length", 0), getattr(sketch, "limit", None)
    if limit is not None and longest > limit:
        raise ConfigError(
            f"the task's sequences of {longest} tokens are beyond the {limit} positions of the model: make its table "
            "longer (position.max_length) or choose a scheme without one"
        )
    if sketch is not None:
        check_fits(sketch, task, config, planned.record.identity["precision"])
    check_shares(task)
    model = build(settings.model, **task.model_arguments)
    initialize(model, config["seed"], config["training"]["initial_gain"])
    return task, model


def work(planned: Plan, task: Any, model: nn.Module, tracker: Tracker, console: Console) -> Result:
    """Train and evaluate one model, or search among many."""
    if planned.config["search"] is None:
        return train_model(planned, task, model, tracker, console)
    from experiments.search import search

    return search(planned.config, planned.record.identity["precision"], planned.record, tracker, console)


def train_model(planned: Plan, task: Any, model: nn.Module, tracker: Tracker | None, console: Console) -> Result:
    """Train and evaluate."""
    training = planned.config["training"]
    if training.get("shard") and processes() > 1:
        shard(model)
    groups = parameter_groups(model, training["gate_learning_rate"], training["gate_weight_decay"])
    if not groups[0]["params"]:
        found = task.evaluate(model)
        return Result({training["steps"]: found.metrics}, found.tables)
    settings = OmegaConf.create(planned.config)
    optimizer = build(settings.optimizer)(groups)
    schedule = build(settings.schedule)
    record = planned.record
    result = train(
        model, task, optimizer, schedule, training, planned.record.identity["precision"], record, tracker, console
    )
    learned = trained_beta(model)
    result.evaluations[training["steps"]] |= learned.metrics
    result.tables |= learned.tables
    return result


def summarize(task: Any, model: nn.Module, result: Result, config: dict[str, Any]) -> dict[str, Any]:
    """The numbers that a run ends with."""
    summary = {
        "metrics": result.evaluations[max(result.evaluations)],
        "evaluations": {str(step): metrics for step, metrics in sorted(result.evaluations.items())},
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "steps": config["training"]["steps"],
        "seconds": round(result.seconds, 3),
        "peak_bytes": process_peak(),
    }
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


def tags_of(overrides: Sequence[str]) -> list[str]:
    """What a run was asked to be, as short tags; the experiment and the seed have places of their own."""
    pairs = [override.lstrip("+").split("=", 1) for override in overrides]
    skipped = {"experiment", "seed", "scale", "tracking", "outputs", "cache", "threads", "data.path", "start"}
    return [f"{key.split('.')[-1]}={value}"[:64] for key, value in pairs if key not in skipped]

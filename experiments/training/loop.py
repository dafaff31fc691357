"""The training loop: batches are a pure function of the step, and the model's state is passed from step to step."""

import contextlib
import math
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as ProgressBar
from torch import nn

from experiments.recording.contents import digest_of, to_line
from experiments.recording.processes import is_first, on_processors, processes
from experiments.recording.record import Record
from experiments.tracking.wandb_run import Tracker
from experiments.training import checkpoint
from experiments.training.checkpoint import Progress
from experiments.training.distributed import is_sharded, of_all, own_part, own_rows, whole
from experiments.training.learned_parameters import gates
from models.state import detach, leaves, rebuild
from tasks.base import Batch, Evaluation, Task
from tasks.scoring import IGNORED


class Interrupted(Exception):
    """The run stopped on request and has saved a checkpoint."""


@dataclass
class Result:
    """The result of training: the metrics of the evaluations by step, the tables of the last one, seconds, and data.

    diverged: the step by which the loss or a metric was no finite number; None if none was. Training ends there, and
    the evaluation of that step, without what is not finite, stands for those that were still to come.
    """

    evaluations: dict[int, dict[str, float]]
    tables: dict[str, list[dict[str, Any]]]
    seconds: float = 0.0
    seen: int = 0  # tokens of a text task, images of an image task
    diverged: int | None = None


class StopRequest:
    """Handles Ctrl-C and SIGTERM: stops between two steps, or immediately while nothing can be lost (evaluation)."""

    def __init__(self) -> None:
        self.requested = 0  # the first signal's number
        self.at_once = False

    def __call__(self, number: int, frame: Any) -> None:
        if self.at_once or self.requested == number:  # torchrun sends SIGTERM after the terminal's SIGINT
            raise Interrupted
        self.requested = self.requested or number

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        before = {number: signal.signal(number, self) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextlib.contextmanager
    def immediate(self) -> Iterator[None]:
        if self.requested:
            raise Interrupted
        self.at_once = True
        try:
            yield
        finally:
            self.at_once = False


def parameter_groups(model: nn.Module, own: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The optimizer's parameter groups: matrices with its weight decay; norms and biases without; then those of `own`.

    own: `training.groups` of the configuration. A parameter whose dotted name ends with one of a group's `ends` has
    that group's learning rate and weight decay; the first such group counts. Groups without parameters are left out.
    """
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    named: dict[str, list[nn.Parameter]] = {group: [] for group in own}
    for name, parameter in model.named_parameters():
        found = (named[group] for group in own if any(f".{name}".endswith(f".{end}") for end in own[group]["ends"]))
        next(found, decayed if parameter.ndim >= 2 else plain).append(parameter)
    rated = [
        {"params": parameters, "lr": own[group]["lr"], "weight_decay": own[group]["weight_decay"]}
        for group, parameters in named.items()
        if parameters
    ]
    return [{"params": decayed}, {"params": plain, "weight_decay": 0.0}, *rated]


def train(
    model: nn.Module,
    task: Task,
    optimizer: torch.optim.Optimizer,
    schedule: Callable[[int, int], float],
    settings: dict[str, Any],
    precision: str,
    record: Record,
    tracker: Tracker | None,
    console: Console,
) -> Result:
    """Train and evaluate, from the record's checkpoint if there is one; metrics are logged to the record and to W&B.

    A run that is killed and resumed logs the same metrics, byte for byte, as an uninterrupted one: rows after the
    checkpoint are dropped and computed again, and metrics contain no times. Raises Interrupted.
    """
    AcceleratorState._reset_state(True)  # precision may differ between the runs of one process
    accelerator = Accelerator(cpu=on_processors(), mixed_precision="bf16" if precision == "bf16" else "no")
    if settings.get("compile"):
        model.compile()
    sharded = is_sharded(model)
    model = accelerator.prepare_model(model, evaluation_mode=sharded)  # DistributedDataParallel, unless sharded
    optimizer = accelerator.prepare_optimizer(optimizer)
    bare = accelerator.unwrap_model(model)
    rates = [group["lr"] for group in optimizer.param_groups]
    steps, evaluate_at = settings["steps"], {*settings["evaluate_at"], settings["steps"]}
    accumulation = settings.get("accumulation") or 1

    state, progress = None, Progress()
    if record.checkpoint_file.exists():
        template = bare.initial_state(1) if hasattr(bare, "initial_state") else None
        state, progress = checkpoint.load(record.checkpoint_file, bare, optimizer, template)
        state = rebuild(state, map(own_part, leaves(state)))
        console.print(f"resuming from step {progress.step} of {steps}")
    with record.rows(progress.metrics_bytes):
        pass  # drops the rows after the checkpoint
    result = Result(past_evaluations(record), {}, seen=progress.seen)
    if tracker:
        tracker.log_rows(record)
    started = time.monotonic() - progress.seconds

    def log(row: dict[str, float], step: int) -> None:
        metrics_file.write(to_line({"step": step, **row}))
        metrics_file.flush()
        if tracker:
            tracker.log(row, step)

    def save(step: int) -> None:
        rows_of_all = rebuild(state, iter([of_all(leaf, accelerator) for leaf in leaves(state)]))
        tensors = checkpoint.collect(bare, optimizer, rows_of_all)
        if is_first():
            os.fsync(metrics_file.fileno())
            logged = record.metrics_file.read_bytes()
            done = Progress(step, len(logged), time.monotonic() - started, result.seen, digest_of(logged))
            checkpoint.save(record.checkpoint_file, tensors, done)

    def evaluate(step: int) -> None:
        bare.eval()
        with stop.immediate(), torch.no_grad(), accelerator.autocast():
            found: Evaluation = task.evaluate(bare)
        found.metrics |= gates(bare)
        bare.train()
        if result.diverged is None and not all(map(math.isfinite, found.metrics.values())):
            result.diverged = step
        if result.diverged is not None:
            found = found.finite()
            result.evaluations |= {later: found.metrics for later in evaluate_at if later > step}
        result.evaluations[step], result.tables = found.metrics, found.tables
        log(found.metrics, step)

    stop = StopRequest()
    with record.rows(progress.metrics_bytes) as metrics_file, stop.listening(), progress_bar(console) as bar:
        line = bar.add_task(record.folder.parent.name, total=steps, completed=progress.step, loss="", speed="")
        for step in range(progress.step, steps + 1):
            stopping = any_process(bool(stop.requested), accelerator)
            due = step % settings["checkpoint_every"] == 0 or step in evaluate_at or stopping
            if step > progress.step and due:
                save(step)
            if stopping:
                raise Interrupted
            if step in evaluate_at or result.diverged is not None:
                evaluate(step)
            if step == steps or result.diverged is not None:
                break
            for group, rate in zip(optimizer.param_groups, rates):
                group["lr"] = rate * schedule(step, steps)
            batch = task.batch(step)
            parts = pieces(own_rows(batch), accumulation)
            loss = torch.zeros((), device=accelerator.device)
            for index, part in enumerate(parts):
                with contextlib.nullcontext() if index == len(parts) - 1 else accelerator.no_sync(model):
                    there = {name: tensor.to(accelerator.device) for name, tensor in part.items()}
                    with accelerator.autocast():
                        mean, state = task.loss(model, there, state)
                    check_state(state, batch, accumulation)
                    state = detach(state)
                    weight = processes() * loss_terms(part) / loss_terms(batch)  # gradients are averaged over processes
                    share = mean * weight
                    accelerator.backward(share)
                    loss += share.detach()
            norm = accelerator.clip_grad_norm_(model.parameters(), settings["clip"])
            optimizer.step()
            optimizer.zero_grad()
            result.seen += size(batch)
            logged = (step + 1) % settings["log_every"] == 0
            reduced = float(accelerator.reduce(loss, "mean")) if logged or step + 1 in evaluate_at else 0.0
            if not math.isfinite(reduced):
                result.diverged = step + 1
            elif logged:
                found = Evaluation({"train/loss": reduced, "train/gradient_norm": float(whole(norm))})
                row = found.finite().metrics  # the norm may overflow where the loss does not
                log(row | {"train/learning_rate": optimizer.param_groups[0]["lr"]}, step + 1)
                speed = (result.seen - progress.seen) / (time.monotonic() - started - progress.seconds)
                bar.update(line, loss=f"loss {reduced:.3f}", speed=f"{speed:,.0f} {unit(batch)}/s")
            bar.update(line, completed=step + 1)
    result.seconds = time.monotonic() - started
    return result


def any_process(found: bool, accelerator: Accelerator) -> bool:
    """Whether `found` is true in any process."""
    if processes() == 1:
        return found
    return bool(accelerator.reduce(torch.tensor(float(found), device=accelerator.device)))


def check_state(state: Any, batch: Batch, accumulation: int) -> None:
    """Raise ValueError if the state of one row would be passed to another row."""
    if state is not None and accumulation > 1:
        raise ValueError(
            f"training.accumulation={accumulation} would mix the states of rows: set it to 1, or task.carry_state=false"
        )
    if state is not None and len(next(iter(batch.values()))) % processes():
        raise ValueError(f"with task.carry_state, task.batch_size must be a multiple of the {processes()} processes")


def pieces(batch: Batch, count: int) -> list[Batch]:
    """The rows of a batch in `count` pieces, or in one piece per row if there are fewer rows."""
    rows = len(next(iter(batch.values())))
    return [{name: x[start::count] for name, x in batch.items()} for start in range(min(count, rows))]


def loss_terms(batch: Batch) -> int:
    """The number of terms whose mean is the loss: the targets that are not IGNORED or, without targets, the rows."""
    targets = batch.get("targets")
    return len(next(iter(batch.values()))) if targets is None else int((targets != IGNORED).sum())


def size(batch: Batch) -> int:
    """The number of tokens, or images, in a batch."""
    first = next(iter(batch.values()))
    return first.numel() if first.ndim == 2 else len(first)


def unit(batch: Batch) -> str:
    """The unit of `size`."""
    return "tokens" if next(iter(batch.values())).ndim == 2 else "images"


def past_evaluations(record: Record) -> dict[int, dict[str, float]]:
    """The evaluations that are already in the record's metrics."""
    rows = [row for row in record.metrics() if "train/loss" not in row]
    return {row["step"]: {key: value for key, value in row.items() if key != "step"} for row in rows}


def progress_bar(console: Console) -> ProgressBar:
    """A progress bar with steps, loss, tokens (or images) per second and the remaining time."""
    return ProgressBar(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[loss]}"),
        TextColumn("{task.fields[speed]}"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )

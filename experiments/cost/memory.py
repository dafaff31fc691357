"""Whether a step of a run fits into memory, found out before the run starts."""

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import torch
from accelerate.utils.memory import should_reduce_batch_size
from hydra.errors import InstantiationException
from torch import nn

from experiments.config.errors import ConfigError, first_line
from experiments.cost.op_tracer import Trace, trace
from experiments.records.processes import processes, processes_here
from tasks.base import Batch, device_of

CONTAINER_LIMIT = Path("/sys/fs/cgroup/memory.max")
CUTS = "cuts"  # of a batch: where it is cut
MIXED = 0.65  # of the float32 bytes of activations are made under bf16: 0.58 to 0.72 in the models measured
MOMENTS = 2  # numbers that an optimizer keeps for each weight, at most
GRADIENTS = 1.5  # of the largest operation's tensors are made beside what is saved as the backward pass begins
known: dict[str, float] = {}  # bytes of steps of this process's runs: those of other seeds need the same


def outline(build: Callable[[], nn.Module]) -> nn.Module | None:
    """The model on the meta device, without weights; None for one that loads its own."""
    try:
        with torch.device("meta"):
            return build()
    except (RuntimeError, InstantiationException):
        return None


def check_fits(model: nn.Module, task: Any, config: dict[str, Any], precision: str) -> None:
    """Raise ConfigError where a training step of a model on the meta device needs more memory than there is.

    A model whose code cannot be followed there is measured by its weights alone.
    """
    pieces = processes() * (config["training"].get("accumulation") or 1)
    kind = json.dumps([config["model"], config["task"] | {"seed": None}, pieces, precision])
    weights = sum(parameter.nbytes for parameter in model.parameters())
    if kind not in known:
        known[kind] = weights
        with contextlib.suppress(RuntimeError):
            step = trace(step_of(model, task, first_piece(task.batch(0), pieces)), torch.cuda.is_available())
            known[kind] = step_bytes(step, weights, precision)
    model.zero_grad()
    kept = (1 + MOMENTS) * weights / (processes() if config["training"].get("shard") else 1)
    if kept + known[kind] > free_bytes():
        raise ConfigError(
            f"a training step needs {kept / 1e9:,.1f} GB for weights and optimizer and {known[kind] / 1e9:,.1f} GB for "
            f"gradients, activations and state, and {free_bytes() / 1e9:,.1f} GB are free: choose a smaller model, "
            "shorter sequences, a smaller batch or a smaller memory"
        )


@contextlib.contextmanager
def memory_errors_named() -> Iterator[None]:
    """Raise MemoryError that says what to do, where torch or numpy could not get the memory that a run needs."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not (isinstance(error, MemoryError) or should_reduce_batch_size(error)):
            raise
        raise MemoryError(
            f"there is not enough memory ({first_line(error)}): choose a smaller model, shorter sequences or a smaller "
            "batch"
        ) from error


def step_bytes(step: Trace, weights: float, precision: str) -> float:
    """The bytes that a training step makes at most: gradients, activations that are saved, and those being made."""
    return weights + (MIXED if precision == "bf16" else 1) * (step.saved + GRADIENTS * step.largest)


def first_piece(batch: Batch, pieces: int) -> Batch:
    """The rows of a batch that go through the model together, the first of so many pieces."""
    return {name: tensor[::pieces] for name, tensor in batch.items()}


def step_of(model: nn.Module, task: Any, batch: Batch) -> Callable[[], None]:
    """Loss and gradients of a batch, where the model lies; the places that a batch is cut at stay values."""
    there = {name: tensor if name == CUTS else tensor.to(device_of(model)) for name, tensor in batch.items()}

    def step() -> None:
        model.zero_grad()
        loss, _ = task.loss(model, there, None)
        if loss.requires_grad:
            loss.backward()

    return step


def free_bytes() -> int:
    """The memory that this process can have: what is free of its GPU's, or its share of what is free of the machine's
    within its container's limit."""
    if torch.cuda.is_available():
        return torch.cuda.mem_get_info()[0]
    free = psutil.virtual_memory().available
    with contextlib.suppress(OSError, ValueError):  # no container, or one without a limit
        free = min(free, int(CONTAINER_LIMIT.read_text()))
    return free // processes_here()

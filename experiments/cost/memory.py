"""The memory that a training step makes, and the memory there is."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import nn

from experiments.cost.op_tracer import Trace
from experiments.recording.processes import processes_here
from tasks.base import Batch, device_of

CONTAINER_LIMIT = Path("/sys/fs/cgroup/memory.max")
CUTS = "cuts"  # of a batch: where it is cut
MIXED = 0.65  # of the float32 bytes of activations are made under bf16: 0.58 to 0.72 in the models measured
MOMENTS = 2  # numbers that an optimizer keeps for each weight, at most
GRADIENTS = 1.5  # of the largest operation's tensors are made beside what is saved as the backward pass begins


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

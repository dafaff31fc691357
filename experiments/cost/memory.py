"""Whether a run fits into memory, found out before it starts."""

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import torch
from hydra.errors import InstantiationException
from torch import nn

from experiments.config.errors import ConfigError
from experiments.cost.recall import fused_attention, recalled
from experiments.records.processes import processes, processes_here
from tasks.base import Batch, device_of

CONTAINER_LIMIT = Path("/sys/fs/cgroup/memory.max")
CUTS = "cuts"  # of a batch: where it is cut
MIXED = 0.65  # of the float32 bytes of activations are made under bf16: 0.58 to 0.72 in the models measured
MOMENTS = 2  # numbers that an optimizer keeps for each weight, at most
known: dict[str, tuple[int, int]] = {}  # what runs of this process needed: those of other seeds need the same


def outline(build: Callable[[], nn.Module]) -> nn.Module | None:
    """The model on the meta device, without weights; None for one that loads its own."""
    try:
        with torch.device("meta"):
            return build()
    except (RuntimeError, InstantiationException):
        return None


def check_fits(model: nn.Module, task: Any, config: dict[str, Any], precision: str) -> None:
    """Raise ConfigError where a training step of a model on the meta device needs more memory than there is.

    A model whose code looks at the values of its tensors is measured by its weights alone.
    """
    pieces = processes() * (config["training"].get("accumulation") or 1)
    kind = json.dumps([config["model"], config["task"] | {"seed": None}, pieces, precision])
    if kind not in known:
        known[kind] = needed_bytes(model, task, pieces, precision)
    (weights, step), free = known[kind], free_bytes()
    if config["training"].get("shard"):
        weights //= processes()
    if weights + step > free:
        raise ConfigError(
            f"a training step needs {weights / 1e9:,.1f} GB for weights and optimizer and {step / 1e9:,.1f} GB for "
            f"gradients, activations and state, and {free / 1e9:,.1f} GB are free: choose a smaller model, shorter "
            "sequences, a smaller batch or a smaller memory"
        )


def needed_bytes(model: nn.Module, task: Any, pieces: int, precision: str) -> tuple[int, int]:
    """Bytes of weights and optimizer, and the most that a step makes at a time; nothing is allocated."""
    weights = sum(parameter.nbytes for parameter in model.parameters())
    try:
        with fused_attention(torch.cuda.is_available()):
            _, peak = recalled(step_of(model, task, first_piece(task.batch(0), pieces)))
    except RuntimeError:  # there are none on the meta device
        peak = 0
    return (1 + MOMENTS) * weights, round(in_precision(peak, weights, precision))


def in_precision(peak: float, weights: float, precision: str) -> float:
    """The bytes that a step makes, from those that it makes in float32; gradients are as large as the weights."""
    return peak if precision == "fp32" or peak < weights else weights + MIXED * (peak - weights)


def first_piece(batch: Batch, pieces: int) -> Batch:
    """The rows of a batch that go through the model together, the first of so many pieces."""
    return {name: tensor[::pieces] for name, tensor in batch.items()}


def step_of(model: nn.Module, task: Any, batch: Batch) -> Callable[[], None]:
    """Loss and gradients of a batch, where the model lies; places that a batch is cut at stay values."""
    there = {name: tensor if name == CUTS else tensor.to(device_of(model)) for name, tensor in batch.items()}

    def step() -> None:
        loss, _ = task.loss(model, there, None)
        if loss.requires_grad:
            loss.backward()
        model.zero_grad()

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

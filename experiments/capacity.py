"""Whether a run fits into memory, found out before it starts."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import torch
import yaml
from hydra.errors import InstantiationException
from torch import nn

from experiments.config import ConfigError
from experiments.measure import peak_bytes

CONTAINER_LIMIT = Path("/sys/fs/cgroup/memory.max")
MOMENTS = 2  # numbers that an optimizer keeps for each weight, at most
known: dict[str, tuple[int, int]] = {}  # what runs of this process needed: those of other seeds need the same


def outline(build: Callable[[], nn.Module]) -> nn.Module | None:
    """The model on the meta device, without weights; None for one that loads its own."""
    try:
        with torch.device("meta"):
            return build()
    except (RuntimeError, InstantiationException):
        return None


def check_fits(model: nn.Module, task: Any, config: dict[str, Any]) -> None:
    """Raise ConfigError where a training step of a model on the meta device needs more memory than there is.

    A model whose code looks at the values of its tensors is measured by its weights alone.
    """
    kind = yaml.safe_dump([config["model"], config["task"] | {"seed": None}])
    if kind not in known:
        known[kind] = needed_bytes(model, task)
    (weights, step), free = known[kind], free_bytes()
    if weights + step > free:
        raise ConfigError(
            f"a training step needs {weights / 1e9:,.1f} GB for weights and optimizer and {step / 1e9:,.1f} GB for "
            f"gradients, activations and state, and {free / 1e9:,.1f} GB are free: choose a smaller model, shorter "
            "sequences, a smaller batch or a smaller memory"
        )


def needed_bytes(model: nn.Module, task: Any) -> tuple[int, int]:
    """Bytes of weights and optimizer, and the most that a step makes at a time, in float32; nothing is allocated."""
    batch = {name: tensor.to("meta") for name, tensor in task.batch(0).items()}

    def step() -> None:
        loss, _ = task.loss(model, batch, None)
        if loss.requires_grad:
            loss.backward()

    weights = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    try:
        return (1 + MOMENTS) * weights, peak_bytes(step)
    except RuntimeError:  # there are none on the meta device
        return (1 + MOMENTS) * weights, 0


def free_bytes() -> int:
    """The memory that a run can have: what is free of the GPU's, or of the machine's within its container's limit."""
    if torch.cuda.is_available():
        return torch.cuda.mem_get_info()[0]
    free = psutil.virtual_memory().available
    try:
        return min(free, int(CONTAINER_LIMIT.read_text()))
    except (OSError, ValueError):  # no container, or one without a limit
        return free

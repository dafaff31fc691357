"""Checkpoints: everything that a run needs to resume as if it had never stopped, in one safetensors file."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from experiments.config.errors import RecordError
from experiments.training.distributed import parted, whole
from models.state import leaves, rebuild, save_tensors


@dataclass
class Progress:
    """The progress of a run: steps done, bytes of metrics logged in them, seconds, and tokens (or images) read."""

    step: int = 0
    metrics_bytes: int = 0
    seconds: float = 0.0
    seen: int = 0


def collect(model: nn.Module, optimizer: torch.optim.Optimizer, state: Any) -> dict[str, Tensor]:
    """The tensors of a checkpoint, gathered from all processes."""
    tensors = {f"model/{name}": whole(tensor) for name, tensor in model.state_dict().items()}
    for index, values in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{key}": whole(torch.as_tensor(value)) for key, value in values.items()}
    tensors |= {f"state/{index}": tensor for index, tensor in enumerate(leaves(state))}
    return tensors | {"random/torch": torch.get_rng_state()}


def save(file: Path, tensors: dict[str, Tensor], progress: Progress) -> None:
    """Replace `file` atomically by a checkpoint."""
    metadata = {"progress": json.dumps(vars(progress))}
    for name, tensor in list(tensors.items()):  # safetensors rejects tied weights: each name gets its own copy
        if any(other is not tensor and same_storage(other, tensor) for other in tensors.values()):
            tensors[name] = tensor.clone()
    save_tensors(file, tensors, metadata)


def same_storage(first: Tensor, second: Tensor) -> bool:
    """Whether two tensors share their memory."""
    return first.numel() > 0 and first.data_ptr() == second.data_ptr()


def load_weights(file: Path, model: nn.Module) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Load a checkpoint's weights into a model. Returns all its tensors, and its metadata.

    Raises RecordError if the file is damaged or belongs to another model.
    """
    try:
        with safe_open(file, framework="pt") as stored:
            metadata = stored.metadata()
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118, not a dict
        own = model.state_dict()
        weights = with_prefix(tensors, "model/")
        model.load_state_dict({name: parted(tensor, own.get(name)) for name, tensor in weights.items()})
    except (SafetensorError, RuntimeError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise RecordError(f"the checkpoint {file} is damaged ({reason}): remove it to restart that run") from error
    return tensors, metadata


def load(file: Path, model: nn.Module, optimizer: torch.optim.Optimizer, template: Any) -> tuple[Any, Progress]:
    """Restore a checkpoint. Returns the model's state, with the structure of `template`, and the progress.

    Raises RecordError if the file is damaged or belongs to another model.
    """
    tensors, metadata = load_weights(file, model)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    moments: dict[int, dict[str, Tensor]] = {}
    for name, tensor in with_prefix(tensors, "optimizer/").items():
        index, key = name.split("/")
        moments.setdefault(int(index), {})[key] = parted(tensor, parameters[int(index)])
    optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
    torch.set_rng_state(tensors["random/torch"])
    stored = with_prefix(tensors, "state/")
    state = rebuild(template, iter([stored[str(index)] for index in range(len(stored))])) if stored else None
    progress = Progress(**json.loads(metadata["progress"]))
    return state, progress


def with_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names start with a prefix, by their names without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}

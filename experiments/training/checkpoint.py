"""Checkpoints: everything that a run needs to resume as if it had never stopped, in one safetensors file."""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from experiments.config.errors import RecordError
from experiments.recording.contents import METRICS, digest_of
from experiments.training.distributed import parted, whole
from models.state import leaves, read_tensors, rebuild, save_tensors


@dataclass
class Progress:
    """The progress of a run: steps done, bytes of metrics logged in them and their digest, seconds, and tokens (or
    images) read."""

    step: int = 0
    metrics_bytes: int = 0
    seconds: float = 0.0
    seen: int = 0
    metrics_digest: str = digest_of(b"")


def collect(model: nn.Module, optimizer: torch.optim.Optimizer, state: Any) -> dict[str, Tensor]:
    """The tensors of a checkpoint, gathered from all processes."""
    tensors = {f"model/{name}": whole(tensor) for name, tensor in model.state_dict().items()}
    for index, values in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{key}": whole(torch.as_tensor(value)) for key, value in values.items()}
    tensors |= {f"state/{index}": tensor for index, tensor in enumerate(leaves(state))}
    return tensors | {"random/torch": torch.get_rng_state()}


def save(file: Path, tensors: dict[str, Tensor], progress: Progress) -> None:
    """Replace the checkpoint of a run folder atomically."""
    metadata = {"run": file.parent.name, "progress": json.dumps(vars(progress))}
    for name, tensor in list(tensors.items()):  # safetensors rejects tied weights: each name gets its own copy
        if any(other is not tensor and same_storage(other, tensor) for other in tensors.values()):
            tensors[name] = tensor.clone()
    save_tensors(file, tensors, metadata)


def same_storage(first: Tensor, second: Tensor) -> bool:
    """Whether two tensors share their memory."""
    return first.numel() > 0 and first.data_ptr() == second.data_ptr()


def load_weights(file: Path, model: nn.Module, steps: int) -> None:
    """Load the final weights of a finished run of `steps` steps into a model.

    Raises RecordError if the checkpoint is damaged, is that of another run or model or was saved before the last step,
    or if the weights are not finite.
    """
    with refused(file, f"remove {file.parent} to train that run again"):
        tensors, progress = read(file)
        if progress.step != steps:
            raise ValueError(f"it was saved after step {progress.step} of {steps}")
        fill(model, tensors)
    if not all(tensor.isfinite().all() for tensor in model.parameters()):
        raise RecordError(f"the run {file.parent} diverged: its weights are not finite, so nothing can start from them")


def load(file: Path, model: nn.Module, optimizer: torch.optim.Optimizer, template: Any) -> tuple[Any, Progress]:
    """Restore a checkpoint. Returns the model's state, with the structure of `template`, and the progress.

    Raises RecordError if it is damaged, is that of another run or model, or does not belong to the metrics in its
    folder.
    """
    with refused(file, "remove it to restart that run"):
        tensors, progress = read(file)
        metrics = file.with_name(METRICS)
        logged = metrics.read_bytes()[: progress.metrics_bytes] if metrics.exists() else b""
        if digest_of(logged) != progress.metrics_digest:
            raise ValueError(f"{METRICS} has changed since it was saved")
        fill(model, tensors)
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in with_prefix(tensors, "optimizer/").items():
            index, key = name.split("/")
            moments.setdefault(int(index), {})[key] = parted(tensor, parameters[int(index)])
        optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
        torch.set_rng_state(tensors["random/torch"])
        stored = with_prefix(tensors, "state/")
        state = rebuild(template, iter([stored[str(index)] for index in range(len(stored))])) if stored else None
    return state, progress


@contextlib.contextmanager
def refused(file: Path, way_out: str) -> Iterator[None]:
    """Raise what is wrong with a checkpoint as RecordError."""
    try:
        yield
    except (ValueError, RuntimeError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise RecordError(f"the checkpoint {file} is damaged or foreign ({reason}): {way_out}") from error


def read(file: Path) -> tuple[dict[str, Tensor], Progress]:
    """The tensors and the progress in the checkpoint of a run folder. Raises ValueError if it is damaged or foreign."""
    tensors, metadata = read_tensors(file)
    if metadata.get("run") != file.parent.name:
        raise ValueError(f"it is that of run {metadata.get('run')}")
    return tensors, Progress(**json.loads(metadata["progress"]))


def fill(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Load the weights of a checkpoint into a model. Raises RuntimeError if they do not fit."""
    own = model.state_dict()
    weights = with_prefix(tensors, "model/")
    model.load_state_dict({name: parted(tensor, own.get(name)) for name, tensor in weights.items()})


def with_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names start with a prefix, by their names without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}

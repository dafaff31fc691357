"""One run in several processes, started by torchrun.

Each process trains on its rows of a batch; all evaluate; the first one writes the record. For a checkpoint, the model's
state and the optimizer's state are gathered from all processes; when it is loaded, they are distributed again. So a run
can resume with another number of processes. All processes need a shared file system.
"""

import contextlib
import io
import os
import warnings
from collections.abc import Iterator
from typing import Any, BinaryIO

import torch
import torch.distributed
from accelerate import Accelerator, PartialState
from accelerate.utils import broadcast_object_list
from torch import Tensor, nn

from experiments.config.errors import ConfigError
from experiments.recording.processes import is_first, on_processors, processes
from experiments.recording.record import Record
from models.transformer import Block
from tasks.base import Batch, Task


def check_alone(what: str) -> None:
    """Raise ConfigError if there are other processes. what: named in the message."""
    if processes() > 1:
        raise ConfigError(f"{what} runs in one process, not in {processes()}: start it without torchrun")


def check_shares(task: Task) -> None:
    """Raise ConfigError if a task's first batch has fewer rows than there are processes."""
    rows = min(map(len, task.batch(0).values()), default=processes()) if processes() > 1 else 1
    if rows < processes():
        raise ConfigError(
            f"{processes()} processes cannot share a batch of {rows} row{'s' * (rows != 1)}: choose "
            f"task.batch_size={processes()} or more"
        )


def own_rows(batch: Batch) -> Batch:
    """The rows of a global batch that belong to this process."""
    return {name: own_part(tensor) for name, tensor in batch.items()}


def own_part(tensor: Tensor) -> Tensor:
    """This process' rows of a tensor (rows, …); a scalar is shared by all processes."""
    return tensor[int(os.environ["RANK"]) :: processes()] if tensor.ndim and processes() > 1 else tensor


def of_all(part: Tensor, accelerator: Accelerator) -> Tensor:
    """The rows of all processes in their original order; `part` is this process' share."""
    if not part.ndim or processes() == 1:
        return part
    return accelerator.gather(part.contiguous()).unflatten(0, (processes(), -1)).transpose(0, 1).flatten(0, 1)


def agreed(found: bool) -> bool:
    """The value of `found` in the first process, for all processes, which wait for each other here."""
    if processes() == 1:
        return found
    PartialState(cpu=on_processors())  # connects the processes, if they are not connected yet
    return broadcast_object_list([found])[0]


def shard(model: nn.Module) -> None:
    """Shard all weights over the processes; they are gathered block by block for computation (FSDP).

    Accelerate shards on GPUs only; this does the same on any device.
    """
    from torch.distributed.device_mesh import init_device_mesh  # takes half a second, and other runs do not need it
    from torch.distributed.fsdp import fully_shard

    device = PartialState(cpu=on_processors()).device
    model.to(device)
    mesh = init_device_mesh(device.type, (processes(),))
    # torch warns that a block's state may be a view; that is harmless, because nothing is changed in place.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view")
    for part in [module for module in model.modules() if isinstance(module, Block)] + [model]:
        fully_shard(part, mesh=mesh, reshard_after_forward=True)


def is_sharded(held: Any) -> bool:
    """Whether this process holds only a shard of a model or tensor."""
    return hasattr(held, "reshard") or hasattr(held, "full_tensor")


def whole(tensor: Any) -> Tensor:
    """The full tensor, gathered if it is sharded."""
    return tensor.full_tensor() if is_sharded(tensor) else tensor


def parted(tensor: Tensor, like: Any) -> Tensor:
    """A full tensor, sharded if `like` is."""
    if not is_sharded(like) or not tensor.ndim:
        return tensor
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements)


class UnwrittenRecord(Record):
    """The record of a run in the processes that do not write it."""

    def begin(self, *_: Any) -> None:
        pass

    def finish(self, *_: Any) -> None:
        pass

    def set_status(self, *_: Any) -> None:
        pass

    def metrics(self) -> list[dict[str, Any]]:
        return []

    @contextlib.contextmanager
    def rows(self, size: int) -> Iterator[BinaryIO]:
        yield io.BytesIO()

    @contextlib.contextmanager
    def locked(self, wait: bool = False) -> Iterator[None]:
        yield


def record_of(*known: Any) -> Record:
    """The record of a run, which only the first process writes."""
    return Record(*known) if is_first() else UnwrittenRecord(*known)


def leave() -> None:
    """Disconnect from the other processes."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()

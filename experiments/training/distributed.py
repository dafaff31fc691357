"""Several processes at one run, as torchrun starts them: all of them train, each on its rows of a batch, all evaluate,
and the first one writes.

What carries on from step to step, and the optimizer's state, is put together from all of them for a checkpoint and
shared out from one, so that a run may go on with another number of processes. All share one file system.
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
from experiments.records.processes import is_first, on_processors, processes
from experiments.records.record import Record
from models.transformer import Block
from tasks.base import Batch, Task


def check_alone(what: str) -> None:
    """Raise ConfigError if there are other processes."""
    if processes() > 1:
        raise ConfigError(f"{what} is the work of one process and not of {processes()}: start it without torchrun")


def check_shares(task: Task) -> None:
    """Raise ConfigError where a task's first batch has fewer rows than there are processes."""
    rows = min(map(len, task.batch(0).values()), default=processes()) if processes() > 1 else 1
    if rows < processes():
        raise ConfigError(
            f"{processes()} processes cannot share out a batch of {rows}: choose task.batch_size={processes()} or more"
        )


def own_rows(batch: Batch) -> Batch:
    """The rows of a whole batch that are this process' share."""
    return {name: own_part(tensor) for name, tensor in batch.items()}


def own_part(tensor: Tensor) -> Tensor:
    """This process' rows, of a tensor (rows, …) of them all; what has no rows is everyone's."""
    return tensor[int(os.environ["RANK"]) :: processes()] if tensor.ndim and processes() > 1 else tensor


def of_all(part: Tensor, accelerator: Accelerator) -> Tensor:
    """The rows of all processes in their order, from each one's share."""
    if not part.ndim or processes() == 1:
        return part
    return accelerator.gather(part.contiguous()).unflatten(0, (processes(), -1)).transpose(0, 1).flatten(0, 1)


def agreed(found: bool) -> bool:
    """What the first process found, for all of them. They wait for each other here."""
    if processes() == 1:
        return found
    PartialState(cpu=on_processors())  # joins the processes, if they are not joined yet
    return broadcast_object_list([found])[0]


def shard(model: nn.Module) -> None:
    """Have each process hold its part of every weight, put together block by block where it is computed with.

    Accelerate shards on GPUs only; this is what it does there.
    """
    from torch.distributed.device_mesh import init_device_mesh  # half a second, which no other run need wait for
    from torch.distributed.fsdp import fully_shard

    device = PartialState(cpu=on_processors()).device
    model.to(device)
    mesh = init_device_mesh(device.type, (processes(),))
    # What a block carries on may be a view, which torch warns of: nothing here is changed in place.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view")
    for part in [module for module in model.modules() if isinstance(module, Block)] + [model]:
        fully_shard(part, mesh=mesh, reshard_after_forward=True)


def is_sharded(held: Any) -> bool:
    """Whether this process holds a part of a model or tensor, and other processes hold the others."""
    return hasattr(held, "reshard") or hasattr(held, "full_tensor")


def whole(tensor: Any) -> Tensor:
    """All of a tensor of which this process may hold a part."""
    return tensor.full_tensor() if is_sharded(tensor) else tensor


def parted(tensor: Tensor, like: Any) -> Tensor:
    """A whole tensor, held as another one is: in parts, or whole."""
    if not is_sharded(like) or not tensor.ndim:
        return tensor
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements)


class Onlooker(Record):
    """The record of a run, for those processes that do not write it."""

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
    """The record of a run, as this process has it."""
    return Record(*known) if is_first() else Onlooker(*known)


def leave() -> None:
    """Part from the other processes."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()

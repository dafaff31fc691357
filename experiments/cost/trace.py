"""The work of a call."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from experiments.measurements.tensor_memory import Tally


class Work(NamedTuple):
    """What a call asks of a machine. Views are no operations: nothing is moved by them.

    operations: kernels that are started. flops: floating-point operations of matrix products, convolutions and
    attention, a multiplication and an addition being two, as torch counts them. bytes: of the tensors that operations
    read and write. scores: of a query and a key each, that attention works out without keeping them.
    """

    operations: float = 0.0
    flops: float = 0.0
    bytes: float = 0.0
    scores: float = 0.0

    def and_also(self, other: "Work", times: float = 1.0) -> "Work":
        """This work and so many times the other."""
        return Work(*(own + times * more for own, more in zip(self, other)))


ANSWERS: dict[Any, Callable[[torch.Tensor], Any]] = {
    torch.ops.aten._local_scalar_dense.default: lambda asked: True,
    torch.ops.aten.max.default: lambda asked: torch.ones((), dtype=asked.dtype),
    torch.ops.aten.nonzero.default: lambda asked: asked.new_zeros(len(asked), asked.ndim, dtype=torch.long),
}


class Trace(Tally):
    """Counts the work beside the storage.

    Code that asks for values on the meta device, where there are none, as transformers' LED does, gets a yes, 1 for the
    greatest number, and one place a row for what is not zero: in LED one token sees all others.
    """

    def __init__(self) -> None:
        super().__init__()
        self.work = Work()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in ANSWERS and args[0].is_meta:
            return ANSWERS[func](args[0])
        made = super().__torch_dispatch__(func, types, args, kwargs)
        if not func.is_view:
            formula = flop_registry.get(func._overloadpacket)
            flops = formula(*args, **(kwargs or {}), out_val=made) if formula else 0
            tensors = [x for x in tree_leaves((args, kwargs, made)) if isinstance(x, torch.Tensor)]
            self.work = self.work.and_also(Work(1, flops, sum(map(touched, tensors))))
        return made


def touched(tensor: torch.Tensor) -> int:
    """The bytes of a tensor's elements; of one that is expanded, of those that there are."""
    return min(tensor.nbytes, tensor.untyped_storage().nbytes())


def traced(call: Callable[[], object]) -> tuple[Work, int]:
    """The work of a call, and the most bytes that tensors made by it take up at a time."""
    with Trace() as trace:
        call()
    return trace.work, trace.peak

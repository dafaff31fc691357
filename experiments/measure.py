"""Time of calls, beside each other, and of one its peak memory, as the bytes of tensors that are alive at a time, and
its work."""

import contextlib
import ctypes
import resource
import statistics
import sys
import time
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry


def in_turn(calls: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """The seconds of each call, all of them in turn and often, so that a slow moment of the machine hits all alike."""
    for call in calls.values():
        call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            times[name].append(time.perf_counter() - started)
    return times


def against(times: list[float], others: list[float]) -> str:
    """The median ratio of times measured in turn, with its range."""
    ratios = sorted(own / other for own, other in zip(times, others))
    return f"{statistics.median(ratios):.2f} [{ratios[0]:.2f}, {ratios[-1]:.2f}]"


class Tally(TorchDispatchMode):
    """Counts the storage of every tensor that an operation makes for as long as it lives."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self.known: dict[int, weakref.ref[torch.UntypedStorage]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {storage._cdata for storage in storages((args, kwargs))}  # made before, or counted already
        made = func(*args, **(kwargs or {}))
        for storage in storages(made):
            if storage._cdata not in given:
                self.hold(storage)
        return made

    def hold(self, storage: torch.UntypedStorage) -> None:
        """Count a storage for as long as it lives."""
        place, size = storage._cdata, storage.nbytes()

        def forget(_: object) -> None:
            del self.known[place]
            self.live -= size

        if place not in self.known:
            self.known[place] = weakref.ref(storage, forget)
            self.live += size
            self.peak = max(self.peak, self.live)


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


def storages(tree: Any) -> list[torch.UntypedStorage]:
    """The storages of all tensors in nested arguments or results."""
    return [leaf.untyped_storage() for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def peak_bytes(call: Callable[[], object]) -> int:
    """The most bytes that tensors made by a call take up at a time; what was there before does not count.

    Counted from the tensors themselves and not from the process, whose memory an allocator rounds and keeps. What a
    kernel takes and gives back within itself is not seen.
    """
    with Tally() as tally:
        call()
    return tally.peak


def forget_peak() -> None:
    """Let `process_peak` count from here on: what earlier work of this process has freed goes back to the system."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        return
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)
    with contextlib.suppress(OSError):  # the system may not be Linux, or not let us
        Path("/proc/self/clear_refs").write_text("5")


def process_peak() -> int:
    """The most bytes that this process took up at a time: of the GPU's memory, else of the machine's, all told."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

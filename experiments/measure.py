"""Time of calls, beside each other, and peak memory of one, as the bytes of tensors that are alive at a time."""

import statistics
import time
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


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
        self.known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {storage._cdata for storage in storages((args, kwargs))}  # made before, or counted already
        made = func(*args, **(kwargs or {}))
        for storage in storages(made):
            if storage._cdata not in given | self.known:
                self.known.add(storage._cdata)
                self.live += storage.nbytes()
                weakref.finalize(storage, self.forget, storage._cdata, storage.nbytes())
        self.peak = max(self.peak, self.live)
        return made

    def forget(self, storage: int, size: int) -> None:
        """A storage is gone."""
        self.known.discard(storage)
        self.live -= size


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

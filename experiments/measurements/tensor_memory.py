"""Peak memory of a call, as the bytes of tensors that are alive at a time."""

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


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

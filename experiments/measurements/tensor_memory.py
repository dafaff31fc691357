"""Peak memory of a call: the largest sum of bytes of the tensors that are alive at the same time."""

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Tally(TorchDispatchMode):
    """Sums the storage of all live tensors that operations have created."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self.known: dict[int, weakref.ref[torch.UntypedStorage]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {storage._cdata for storage in storages((args, kwargs))}  # older, or already counted
        made = func(*args, **(kwargs or {}))
        for storage in storages(made):
            if storage._cdata not in given:
                self.hold(storage)
        return made

    def hold(self, storage: torch.UntypedStorage) -> None:
        """Count a storage until it is freed."""
        address, size = storage._cdata, storage.nbytes()

        def forget(_: object) -> None:
            del self.known[address]
            self.live -= size

        if address not in self.known:
            self.known[address] = weakref.ref(storage, forget)
            self.live += size
            self.peak = max(self.peak, self.live)


def storages(tree: Any) -> list[torch.UntypedStorage]:
    """The storages of all tensors in nested arguments or results."""
    return [leaf.untyped_storage() for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def peak_bytes(call: Callable[[], object]) -> int:
    """The peak number of bytes of the tensors that a call creates.

    Measured from the tensors, not from the process, whose allocator rounds and caches memory. Temporary memory inside
    kernels is not included.
    """
    with Tally() as tally:
        call()
    return tally.peak

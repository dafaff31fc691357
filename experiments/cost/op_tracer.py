"""What a call computes, moves and keeps, counted on the meta device, where nothing is computed or allocated."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import Parameter
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from models.attention.base import CHUNK, SHORT

BACKWARD = 2  # a backward pass starts as many operations, and moves as many bytes, as this many forward passes
WRITTEN, FUSED = 40, 10  # bytes that a score of attention counts as on a processor, written to memory or not
# What code gets that looks at values, as transformers' LED does, where there are none: yes, 1 for a number, and of what
# is not zero one index a row. Weights are not drawn: torch would import its compiler for it.
VALUES: dict[Any, Callable[..., Any]] = {
    Tensor.__bool__: lambda x: True,
    **dict.fromkeys((Tensor.item, Tensor.__int__), lambda x: 1),
    **dict.fromkeys((Tensor.normal_, Tensor.uniform_), lambda x, *args, **kwargs: x),
    Tensor.max: lambda x: torch.ones((), dtype=x.dtype),
    Tensor.nonzero: lambda x, as_tuple: x.new_zeros(len(x), x.ndim, dtype=torch.long).unbind(1),
}


class Trace(NamedTuple):
    """What a call needs. work: (3,) FLOP of matrix products, convolutions and attention, a multiplication and an
    addition being two; operations, which stand for kernels that are started; bytes that these read and write. saved:
    bytes kept for the backward pass. largest: bytes of the tensors of the largest operation, without parameters."""

    work: np.ndarray
    saved: float
    largest: float


class Kept(torch.autograd.Function):
    """`made` unchanged, for whose backward pass the others are kept."""

    @staticmethod
    def forward(ctx: Any, made: Tensor, *others: Tensor | None) -> Tensor:
        ctx.save_for_backward(*others)
        ctx.others = len(others)
        return made.view_as(made)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:  # type: ignore[override]
        return gradient, *[None] * ctx.others


class OpTracer(TorchFunctionMode):
    """Counts the operations of the functions that are called under it, and what they save for a backward pass."""

    def __init__(self, on_gpu: bool):
        super().__init__()
        self.on_gpu, self.is_backward = on_gpu, False
        self.work, self.largest = np.zeros(3), 0.0
        self.saved: dict[int, torch.UntypedStorage] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in VALUES and args[0].is_meta:
            return VALUES[func](*args, **kwargs)
        if func is F.scaled_dot_product_attention:
            return self.attention(*args, **kwargs)
        made = func(*args, **kwargs)
        self.is_backward |= func is Tensor.backward
        if getattr(func, "__name__", "") != "__get__":  # of an attribute
            self.count([args, *kwargs.values()], made)
        return made

    def count(self, given: Any, made: Any) -> None:
        """Count an operation, unless all that it returned are views."""
        before = {id(x.untyped_storage()): x for x in tensors(given)}
        after = {id(x.untyped_storage()): x for x in tensors(made)}
        if after.keys() - before.keys():
            sizes = {x: min(x.nbytes, x.untyped_storage().nbytes()) for x in (before | after).values()}  # if expanded
            self.work += 0, 1, sum(sizes.values())
            self.largest = max(self.largest, sum(sizes[x] for x in sizes if not isinstance(x, Parameter)))

    def attention(self, query: Tensor, key: Tensor, value: Tensor, attn_mask: Any = None, **options: Any) -> Tensor:
        """Attention, of which the meta device writes every score. A GPU writes none. A processor does where keys are
        few or a bias is trained, for CHUNK queries at a time and the keys before them: models/attention/base.py."""
        with saved_tensors_hooks(lambda x: x, lambda x: x):
            made = F.scaled_dot_product_attention(query, key, value, attn_mask, **options)
        bias = attn_mask if attn_mask is not None and attn_mask.requires_grad else None
        is_written = not self.on_gpu and (key.shape[-2] <= SHORT or bias is not None)
        chunks = -(-query.shape[-2] // CHUNK) if is_written else np.inf
        scores = float(query[..., 0].numel() * key.shape[-2])
        if options.get("is_causal") or (is_written and attn_mask is not None):
            hidden = scores * (1 - 1 / chunks) / 2 * query.shape[-2] / key.shape[-2]
            scores -= hidden
            self.work -= 4 * hidden * query.shape[-1], 0, 0
        self.count([query, key, value], made)
        kept = [query, key, value, made, bias]
        if is_written:
            weights = query.new_empty(int(scores))
            kept.append(weights)
            self.work += 0, 4 * chunks, WRITTEN * scores
            self.largest = max(self.largest, 2 * weights.nbytes / chunks)
        elif not self.on_gpu:
            self.work += 0, 0, FUSED * scores
        return Kept.apply(made, *kept)

    def save(self, x: Tensor) -> Any:
        """Count a tensor that is kept for the backward pass, once."""
        if not isinstance(x, Parameter):
            self.saved[id(x.untyped_storage())] = x.untyped_storage()
        return x


def trace(call: Callable[[], object], on_gpu: bool) -> Trace:
    """What a call on tensors of the meta device needs, with its backward pass if it makes one."""
    tracer = OpTracer(on_gpu)
    with FlopCounterMode(display=False) as counter, tracer, saved_tensors_hooks(tracer.save, lambda x: x):
        call()
    work = tracer.work * (1 + BACKWARD * tracer.is_backward) + (counter.get_total_flops(), 0, 0)
    return Trace(work, sum(storage.nbytes() for storage in tracer.saved.values()), tracer.largest)


def tensors(node: Any) -> Iterator[Tensor]:
    """The tensors in nested arguments or results."""
    if isinstance(node, Tensor):
        yield node
    elif isinstance(node, list | tuple):
        for item in node:
            yield from tensors(item)

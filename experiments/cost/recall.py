"""A trace that works an operation out once and knows it when the like comes again: a plan asks for the same ones
thousands of times, and on the meta device torch takes a tenth of a millisecond for each."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop, sdpa_flop

from experiments.cost.trace import ANSWERS, Work, touched
from experiments.measurements.tensor_memory import Tally
from models.attention.base import SHORT

# Shape, strides, offset, type, bytes of the storage, and whether there is none in fact.
Layout = tuple[Any, ...]
NEW = -1
FILLS = {torch.ops.aten.normal_.default, torch.ops.aten.uniform_.default}  # torch's import its compiler, for a second
FUSED = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
FUSED_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
flop_registry.setdefault(FUSED, sdpa_flop)
flop_registry.setdefault(FUSED_BACKWARD, sdpa_backward_flop)
# Of these two, where the query stands among the arguments and where whether it is causal, and how often they work out
# each score.
SCORES = {FUSED.default: (0, 4, 1), FUSED_BACKWARD.default: (1, 7, 2)}


@contextlib.contextmanager
def fused_attention(on_gpu: bool) -> Iterator[None]:
    """Attention as devices work it out, without a weight for every query and key in memory: on the meta device torch
    makes them all. On a processor models/attention/base.py makes them, too, where keys are few."""
    short, in_torch = 0 if on_gpu else SHORT, F.scaled_dot_product_attention

    def attention(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, **given: Any) -> Tensor:
        made = attn_mask is not None and attn_mask.requires_grad
        if made or not query.is_meta or key.shape[-2] <= short:
            return in_torch(query, key, value, attn_mask, **given)
        causal, scale = given.get("is_causal", False), given.get("scale")
        return FUSED(query, key, value, 0.0, causal, attn_mask=attn_mask, scale=scale)[0]

    with mock.patch.object(F, "scaled_dot_product_attention", attention):
        yield


class Known(NamedTuple):
    """What an operation on tensors of some layouts comes to.

    made: of each tensor that it returns the layout, and the place of the one given whose storage it lies in, NEW for a
    storage of its own; no layout where it is the one given; None for no tensor. within: what holds them, if any.
    """

    work: Work
    made: list[tuple[Layout | None, int] | None]
    within: Callable[[list[Any]], Any] | None

    def again(self, given: list[Tensor]) -> list[Any]:
        """What the operation returns for those given."""
        return [one and like(*one, given) for one in self.made]


known: dict[Any, Known] = {}


class Recall(Tally):
    """The work and the storage of calls on the meta device."""

    def __init__(self) -> None:
        super().__init__()
        self.works: list[Work] = []

    @property
    def work(self) -> Work:
        """Of all operations so far."""
        return Work(*map(sum, zip(*self.works)))

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled here

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in ANSWERS and args[0].is_meta:
            return ANSWERS[func](args[0])
        given: list[Tensor] = []
        key = (func, signature(args, given), signature(kwargs.items(), given) if kwargs else ())
        found = known.get(key)
        if found:
            parts = found.again(given)
            made = found.within(parts) if found.within else parts[0]
        else:
            layouts = list(map(layout_of, given))
            made = given[0] if func in FILLS else func(*args, **(kwargs or {}))
            parts = list(made) if isinstance(made, tuple | list) else [made]
            found = learned(func, args, kwargs or {}, made, parts, given)
            if layouts == list(map(layout_of, given)) and predictable(parts, found.made, given):
                known[key] = found
        self.works.append(found.work)
        for one, part in zip(found.made, parts):
            if one and one[1] == NEW:
                self.hold(part.untyped_storage())
        return made


def signature(values: Iterable[Any], given: list[Tensor]) -> tuple[Any, ...]:
    """What tells arguments apart, as far as layouts and values go; their tensors are added to those given."""
    found: list[Any] = []
    for value in values:
        if isinstance(value, Tensor):
            given.append(value)
            found.append(layout_of(value))
        elif isinstance(value, tuple | list):
            found.append(signature(value, given))
        else:
            found.append((value.__class__, value))  # 1, 1.0 and True are equal and not the same
    return tuple(found)


def layout_of(x: Tensor) -> Layout:
    """How a tensor lies in its storage."""
    return x.shape, x.stride(), x.storage_offset(), x.dtype, x.untyped_storage().nbytes(), x.is_meta


def like(layout: Layout | None, place: int, given: list[Tensor]) -> Tensor:
    """A tensor of this layout."""
    if layout is None:
        return given[place]
    shape, strides, offset, kind, *_ = layout
    if place == NEW:
        return torch.empty_strided(shape, strides, dtype=kind, device="meta")
    return given[place].as_strided(shape, strides, offset)


def learned(func: Any, args: Any, kwargs: Any, made: Any, parts: list[Any], given: list[Tensor]) -> Known:
    """What an operation came to that returned these parts."""
    formula = flop_registry.get(func._overloadpacket)
    flops, scores = formula(*args, **kwargs, out_val=made) if formula else 0, 0.0
    if func in SCORES:
        query, causal, times = SCORES[func]
        share = 0.5 if any(args[causal : causal + 1]) else 1.0  # of the scores are needed
        flops, scores = share * flops, share * times * args[query][..., 0].numel() * args[query + 1].shape[-2]
    tensors = [part for part in parts if isinstance(part, Tensor)]
    work = Work() if func.is_view else Work(1, flops, sum(map(touched, given + tensors)), scores)
    return Known(work, [source(part, given) for part in parts], type(made) if isinstance(made, tuple | list) else None)


def source(part: Any, given: list[Tensor]) -> tuple[Layout | None, int] | None:
    """Where a tensor that was returned comes from."""
    if not isinstance(part, Tensor):
        return None
    for place, one in enumerate(given):
        if one is part:
            return None, place
    storages = [one.untyped_storage()._cdata for one in given]
    cdata = part.untyped_storage()._cdata
    return layout_of(part), storages.index(cdata) if cdata in storages else NEW


def predictable(parts: list[Any], made: list[tuple[Layout | None, int] | None], given: list[Tensor]) -> bool:
    """Whether what an operation returned follows from the layouts of what it was given."""
    tensors = [(part, one) for part, one in zip(parts, made) if one]
    return (
        all(part is None or isinstance(part, Tensor) for part in parts)
        and all(x.is_meta for x in [*given, *(part for part, _ in tensors)])
        and all(place == NEW or part.dtype == given[place].dtype for part, (_, place) in tensors)
        and len({part.untyped_storage()._cdata for part, (_, place) in tensors if place == NEW})
        == sum(place == NEW for _, (_, place) in tensors)
    )


def recalled(call: Callable[[], object]) -> tuple[Work, int]:
    """The work of a call, and the most bytes that tensors made by it take up at a time."""
    with Recall() as trace:
        call()
    return trace.work, trace.peak

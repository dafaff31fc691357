"""Segment recurrence of Transformer-XL."""

from typing import NamedTuple

import torch
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor

from models.attention.base import Attention
from models.attention.local import segment_attention
from models.positions import Position


class SegmentRecurrenceState(NamedTuple):
    """Cached keys and values, each (B, H_kv, t, d) and not rotated, and the number of tokens read."""

    keys: Tensor
    values: Tensor
    seen: Tensor  # () int64, on the CPU because shapes depend on it


class TransformerXL(Attention):
    """A segment attends to itself and to the `memory_length` tokens before it (Dai et al. 2019, section 3.2).

    The memory holds projected keys and values instead of hidden states, so that each token is projected once. Within a
    call, gradients cross segment boundaries, where the paper stops them; between calls, the caller stops them. Relative
    positions are left to the position scheme.
    """

    def __init__(self, width: int, heads: int, segment_length: PositiveInt, memory_length: NonNegativeInt):
        super().__init__(width, heads)
        self.segment_length = segment_length
        self.memory_length = memory_length

    def initial_state(self, x: Tensor) -> SegmentRecurrenceState:
        return SegmentRecurrenceState(self.no_tokens(x), self.no_tokens(x), torch.tensor(0))

    def forward(
        self, x: Tensor, position: Position, state: SegmentRecurrenceState | None = None
    ) -> tuple[Tensor, SegmentRecurrenceState]:
        query, key, value = self.project(x)
        state = state or self.initial_state(key)
        key = torch.cat([state.keys.to(key.dtype), key], dim=2)
        value = torch.cat([state.values.to(value.dtype), value], dim=2)
        opened = int(state.seen) % self.segment_length
        y = segment_attention(query, key, value, position, self.segment_length, opened, self.memory_length)
        seen = int(state.seen) + x.shape[1]
        first = max(0, key.shape[2] - self.memory_length - seen % self.segment_length)
        return self.merge(y), SegmentRecurrenceState(key[:, :, first:], value[:, :, first:], torch.tensor(seen))

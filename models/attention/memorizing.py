"""Memorizing Transformer: the nearest of many past keys, beside local attention."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.attention.base import Attention
from models.attention.local import segment_attention
from models.attention.transformer_xl import TransformerXL
from models.positions import Position


class MemorizingState(NamedTuple):
    """Past keys and values, each (B, H, t, d) and not rotated, and how many tokens came before the next one."""

    memory_keys: Tensor  # older than the cache
    memory_values: Tensor
    keys: Tensor  # of the cache, then of the segment that is not full yet
    values: Tensor
    seen: Tensor  # () int64, kept on the CPU: it decides shapes


class Memorizing(Attention):
    """Transformer-XL's attention, gated with attention to the nearest keys of a long memory (Wu et al. 2022, sec. 3).

    A segment attends to itself and to the `cache_length` tokens before it. The memory holds the `memory_length` tokens
    before those, so that none is seen twice: a query attends to the `neighbours` of them whose keys give it the highest
    scores in its head, found exactly. It knows no positions, and no gradient enters it. One gate b per head mixes what
    is found with the local attention, v_m σ(b) + v_c (1 - σ(b)); while the memory is empty there is the local attention
    alone. The paper also normalises keys, against their ageing while the weights change: within a call none is old.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        segment_length: int,
        cache_length: int,
        memory_length: int,
        neighbours: int,
    ):
        super().__init__(width, heads)
        self.segment_length = segment_length
        self.cache_length = cache_length
        self.memory_length = memory_length
        self.neighbours = neighbours
        self.gate = nn.Parameter(torch.zeros(heads))

    def at_layer(self, index: int, layers: int) -> Attention:
        """What stands at a layer: as in the paper one has a memory, the 9th of 12; the others only have the cache."""
        if index == math.ceil(3 * layers / 4) - 1:
            return self
        return TransformerXL(self.heads * self.head_width, self.heads, self.segment_length, self.cache_length)

    def initial_state(self, x: Tensor) -> MemorizingState:
        nothing = self.no_tokens(x)
        return MemorizingState(nothing, nothing, nothing, nothing, torch.tensor(0))

    def forward(
        self, x: Tensor, position: Position, state: MemorizingState | None = None
    ) -> tuple[Tensor, MemorizingState]:
        query, key, value = self.project(x)
        state = state or self.initial_state(key)
        key = torch.cat([state.keys.to(key.dtype), key], dim=2)
        value = torch.cat([state.values.to(value.dtype), value], dim=2)
        opened = int(state.seen) % self.segment_length
        y = segment_attention(query, key, value, position, self.segment_length, opened, self.cache_length)

        seen = int(state.seen) + x.shape[1]
        leaving = max(0, key.shape[2] - self.cache_length - seen % self.segment_length)
        memory_key = torch.cat([state.memory_keys.to(key.dtype), key[:, :, :leaving].detach()], dim=2)
        memory_value = torch.cat([state.memory_values.to(value.dtype), value[:, :, :leaving].detach()], dim=2)
        y = self.mix(query, y, memory_key, memory_value, int(state.seen))
        newest = max(0, memory_key.shape[2] - self.memory_length)
        memory = memory_key[:, :, newest:], memory_value[:, :, newest:]
        return self.merge(y), MemorizingState(*memory, key[:, :, leaving:], value[:, :, leaving:], torch.tensor(seen))

    def mix(self, query: Tensor, local: Tensor, key: Tensor, value: Tensor, seen: int) -> Tensor:
        """Gate local attention (B, H, T, d) with what each segment's queries find in its memory.

        key and value (B, H, m, d): the memory of the segment in which token `seen` stands, which is the first of
        query's, followed by the tokens that later segments find there. One segment at a time: the scores of all keys
        with all queries are the largest tensor here.
        """
        gate = torch.sigmoid(self.gate).view(-1, 1, 1).to(local.dtype)
        first = seen // self.segment_length * self.segment_length - seen  # the segment's first token among the new
        pieces, total = [], query.shape[2]
        for start in range(first, total, self.segment_length):
            new = slice(max(start, 0), min(start + self.segment_length, total))
            end = key.shape[2] - self.left(seen + total) + self.left(seen + start)
            remembered = slice(max(0, end - self.memory_length), end)
            piece = local[:, :, new]
            if end > 0:
                found = nearest(query[:, :, new], key[:, :, remembered], value[:, :, remembered], self.neighbours)
                piece = gate * found + (1 - gate) * piece
            pieces.append(piece)
        return torch.cat(pieces, dim=2)

    def left(self, seen: int) -> int:
        """How many tokens of a stream lie before the cache of the segment in which token `seen` stands."""
        return max(0, seen // self.segment_length * self.segment_length - self.cache_length)


def nearest(query: Tensor, key: Tensor, value: Tensor, count: int) -> Tensor:
    """Attention of query (B, H, T, d) to the `count` of key and value (B, H, m, d) with its highest scores."""
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)  # (B, H, T, m)
    best, index = scores.topk(min(count, key.shape[2]), dim=-1)
    found = value.gather(2, index.flatten(2)[..., None].expand(-1, -1, -1, value.shape[-1]))
    weights = torch.softmax(best, dim=-1).to(value.dtype)
    return (weights[..., None, :] @ found.unflatten(2, index.shape[2:])).squeeze(-2)

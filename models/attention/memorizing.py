"""Memorizing Transformer: local attention, and attention to the nearest of many past keys."""

import math
from typing import NamedTuple

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from models.attention.base import Attention
from models.attention.local import segment_attention
from models.attention.transformer_xl import TransformerXL
from models.positions import Position


class MemorizingState(NamedTuple):
    """Past keys and values, each (B, H, t, d) and not rotated, and the number of tokens read."""

    memory_keys: Tensor  # older than the cache
    memory_values: Tensor
    keys: Tensor  # of the cache, then of the incomplete segment
    values: Tensor
    seen: Tensor  # () int64, on the CPU because shapes depend on it


class Memorizing(Attention):
    """Transformer-XL's attention, gated with attention to the nearest keys of a long memory (Wu et al. 2022, sec. 3).

    A segment attends to itself and to the `cache_length` tokens before it. The memory holds the `memory_length` tokens
    before those, so that no token is attended to twice. Each query attends to the `neighbours` memory tokens with the
    highest scores in its head; the search is exact. The memory has no position information and gets no gradient. One
    gate b per head mixes its values with local attention, v_m σ(b) + v_c (1 - σ(b)); while the memory is empty there is
    only local attention. The paper also normalises keys, because old keys come from old weights; here all keys of a
    call come from the same weights.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        segment_length: PositiveInt,
        cache_length: PositiveInt,
        memory_length: PositiveInt,
        neighbours: PositiveInt,
    ):
        super().__init__(width, heads)
        self.segment_length = segment_length
        self.cache_length = cache_length
        self.memory_length = memory_length
        self.neighbours = neighbours
        self.gate = nn.Parameter(torch.zeros(heads))

    def at_layer(self, index: int, layers: int) -> Attention:
        """As in the paper, one layer has a memory (the 9th of 12); the others have only the cache."""
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
        """Mix local attention (B, H, T, d) with attention to the memory of each segment.

        seen: index in the stream of the first query's token. key, value (B, H, m, d): the memory of that token's
        segment, followed by the tokens that later segments find in theirs. Works on one segment at a time, because the
        scores of all queries with all keys would be the largest tensor.
        """
        gate = torch.sigmoid(self.gate).view(-1, 1, 1).to(local.dtype)
        first = (
            seen // self.segment_length * self.segment_length - seen
        )  # the segment's start, from the first new token
        pieces, total = [], query.shape[2]
        for start in range(first, total, self.segment_length):
            new = slice(max(start, 0), min(start + self.segment_length, total))
            end = key.shape[2] - self.before_cache(seen + total) + self.before_cache(seen + start)
            remembered = slice(max(0, end - self.memory_length), end)
            piece = local[:, :, new]
            if end > 0:
                found = nearest(query[:, :, new], key[:, :, remembered], value[:, :, remembered], self.neighbours)
                piece = gate * found + (1 - gate) * piece
            pieces.append(piece)
        return torch.cat(pieces, dim=2)

    def before_cache(self, seen: int) -> int:
        """The number of tokens in a stream before the cache of the segment that contains token `seen`."""
        return max(0, seen // self.segment_length * self.segment_length - self.cache_length)


def nearest(query: Tensor, key: Tensor, value: Tensor, count: int) -> Tensor:
    """Attention of query (B, H, T, d) to the `count` highest-scoring tokens of key and value (B, H, m, d)."""
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)  # (B, H, T, m)
    best, index = scores.topk(min(count, key.shape[2]), dim=-1)
    found = value.gather(2, index.flatten(2)[..., None].expand(-1, -1, -1, value.shape[-1]))
    weights = torch.softmax(best, dim=-1).to(value.dtype)
    return (weights[..., None, :] @ found.unflatten(2, index.shape[2:])).squeeze(-2)

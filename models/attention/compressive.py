"""Compressive Transformer: old memories are compressed instead of discarded."""

from typing import NamedTuple

import torch
from pydantic import PositiveInt
from torch import Tensor
from torch.nn import functional as F

from models.attention.base import Attention, attend
from models.positions import Position, position_ids


class CompressiveState(NamedTuple):
    """Cached keys and values, each (B, H, t, d) and not rotated, and the number of tokens read."""

    compressed_keys: Tensor
    compressed_values: Tensor
    keys: Tensor  # of the memory, then of the incomplete segment
    values: Tensor
    seen: Tensor  # () int64, on the CPU because shapes depend on it


class Compressive(Attention):
    """A segment attends to itself, to a memory and to a compressed memory (Rae et al. 2019, section 3).

    The memory is the `memory_length` tokens before the segment. Every `rate` tokens that leave it become one slot: the
    mean of their keys and the mean of their values. The compressed memory is the `compressed_length` newest slots. Mean
    pooling is the paper's simplest compression: 0.982 bits on enwik8, against 0.973 for a convolution with its own loss
    and 0.996 for one trained by the model's loss alone, as everything here is (table 6). Slots have the position ids
    right before the memory, one each, so that position ids are consecutive. As in TransformerXL, keys and values are
    cached instead of hidden states, and the caller stops the gradients.
    Raises ValueError if segment_length or memory_length is not a multiple of `rate`.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        segment_length: PositiveInt,
        memory_length: PositiveInt,
        compressed_length: PositiveInt,
        rate: PositiveInt,
    ):
        super().__init__(width, heads)
        for name, length in (("segment_length", segment_length), ("memory_length", memory_length)):
            if length % rate:
                raise ValueError(f"{name}={length} must be a multiple of the compression's rate={rate}")
        self.segment_length = segment_length
        self.memory_length = memory_length
        self.compressed_length = compressed_length
        self.rate = rate

    def initial_state(self, x: Tensor) -> CompressiveState:
        nothing = self.no_tokens(x)
        return CompressiveState(nothing, nothing, nothing, nothing, torch.tensor(0))

    def forward(
        self, x: Tensor, position: Position, state: CompressiveState | None = None
    ) -> tuple[Tensor, CompressiveState]:
        query, key, value = self.project(x)
        state = state or self.initial_state(key)
        key = torch.cat([state.keys.to(key.dtype), key], dim=2)
        value = torch.cat([state.values.to(value.dtype), value], dim=2)
        seen = int(state.seen) + x.shape[1]
        leaving = max(0, key.shape[2] - self.memory_length - seen % self.segment_length)
        slot_key = torch.cat([state.compressed_keys.to(key.dtype), self.compress(key[:, :, :leaving])], dim=2)
        slot_value = torch.cat([state.compressed_values.to(value.dtype), self.compress(value[:, :, :leaving])], dim=2)

        slots = state.compressed_keys.shape[2]  # those that the first segment sees
        opened = int(state.seen) % self.segment_length
        if opened + x.shape[1] <= self.segment_length:
            key_seen = torch.cat([slot_key[:, :, :slots], key], dim=2)
            value_seen = torch.cat([slot_value[:, :, :slots], value], dim=2)
            query_positions = position_ids(0, x.shape[1], x.device)
            positions = position_ids(x.shape[1] - key_seen.shape[2], x.shape[1], x.device)
            query, key_seen = position.rotate(query, query_positions), position.rotate(key_seen, positions)
            y = attend(query, key_seen, value_seen, position, query_positions, positions)
        else:
            y = self.all_segments(query, (slot_key, slot_value), (key, value), position, opened, slots)
        newest = max(0, slot_key.shape[2] - self.compressed_length)
        compressed = slot_key[:, :, newest:], slot_value[:, :, newest:]
        return self.merge(y), CompressiveState(
            *compressed, key[:, :, leaving:], value[:, :, leaving:], torch.tensor(seen)
        )

    def compress(self, x: Tensor) -> Tensor:
        """Compress keys or values (B, H, n · rate, d) to slots (B, H, n, d)."""
        return x.unflatten(2, (-1, self.rate)).mean(dim=3) if x.shape[2] else x

    def all_segments(
        self,
        query: Tensor,
        slots: tuple[Tensor, Tensor],
        tokens: tuple[Tensor, Tensor],
        position: Position,
        opened: int,
        before: int,
    ) -> Tensor:
        """The attention output (B, H, T, d) for the queries of new tokens that span several segments.

        slots: keys and values of all slots; the first `before` of them precede the first segment. tokens: keys and
        values of the memory, of the incomplete segment (`opened` tokens) and of the new tokens.
        """
        batch, length = query.shape[0], query.shape[2]
        size, count = self.segment_length, -(-(opened + length) // self.segment_length)
        missing = count * size - opened - length  # tokens that the last segment lacks
        lacking = self.memory_length - (tokens[0].shape[2] - opened - length)  # and the memory, at the stream's start
        empty = self.compressed_length - before + lacking // self.rate  # and slots of the compressed memory

        query = F.pad(query, (0, 0, opened, missing)).unflatten(2, (count, size)).transpose(1, 2).flatten(0, 1)
        remembered = [F.pad(x, (0, 0, lacking, missing)) for x in tokens]
        compressed = [F.pad(x, (0, 0, empty, 0)) for x in slots]
        key, value = (
            torch.cat(
                [
                    windows(x, count, self.compressed_length, size // self.rate),
                    windows(y, count, self.memory_length + size, size),
                ],
                dim=2,
            )
            for x, y in zip(compressed, remembered)
        )  # (B · segments, H, compressed + memory + S, d)

        inside = position_ids(-self.compressed_length - self.memory_length, size, query.device)
        query_positions = position_ids(0, size, query.device)
        start = torch.arange(count, device=query.device)[:, None] * size
        slot, token = inside[: self.compressed_length] - inside[0], inside[self.compressed_length :]
        exists = torch.cat([start // self.rate + slot >= empty, start + token + self.memory_length >= lacking], dim=1)
        valid = exists.repeat(batch, 1)[:, None, None]
        query, key = position.rotate(query, query_positions), position.rotate(key, inside)
        y = attend(query, key, value, position, query_positions, inside, valid=valid)
        y = y.unflatten(0, (batch, count)).transpose(1, 2).flatten(2, 3)
        return y[:, :, opened : opened + length]


def windows(x: Tensor, count: int, size: int, step: int) -> Tensor:
    """The first `count` windows of x (B, H, t, d), `step` tokens apart: (B · count, H, size, d)."""
    cut = x[:, :, : (count - 1) * step + size].unfold(2, size, step)  # (B, H, count, d, size)
    return cut.permute(0, 2, 1, 4, 3).flatten(0, 1)

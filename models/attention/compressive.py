"""Compressive Transformer: old memories are compressed instead of forgotten."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from models.attention.base import Attention, attend
from models.positions import Position, places


class CompressiveState(NamedTuple):
    """What the next token may attend to, each (B, H, t, d) and not rotated, and how many tokens came before it."""

    compressed_keys: Tensor
    compressed_values: Tensor
    keys: Tensor  # of the memory, then of the segment that is not full yet
    values: Tensor
    seen: Tensor  # () int64, kept on the CPU: it decides shapes


class Compressive(Attention):
    """A segment attends to itself, to a memory and to a compressed memory (Rae et al. 2019, section 3).

    The memory is the `memory_length` tokens before the segment. Every `rate` tokens that leave it become one slot, the
    mean of their keys and of their values; the `compressed_length` newest slots are the compressed memory. Mean pooling
    is the paper's simplest compression: 0.982 bits on enwik8 against 0.973 of a convolution with a loss of its own,
    and 0.996 of one that, as everything here, is trained by the model's loss alone (table 6). Slots take the places
    right before the memory, one each, so that a scheme sees consecutive positions. As in TransformerXL keys and values
    are kept instead of hidden states and gradients are cut by the caller.
    Raises ValueError for a segment or memory that is not made of whole slots.
    """

    def __init__(
        self, width: int, heads: int, segment_length: int, memory_length: int, compressed_length: int, rate: int
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

        slots = state.compressed_keys.shape[2]  # what the first segment sees
        opened = int(state.seen) % self.segment_length
        if opened + x.shape[1] <= self.segment_length:
            key_seen = torch.cat([slot_key[:, :, :slots], key], dim=2)
            value_seen = torch.cat([slot_value[:, :, :slots], value], dim=2)
            here = places(0, x.shape[1], x.device)
            positions = places(x.shape[1] - key_seen.shape[2], x.shape[1], x.device)
            query, key_seen = position.rotate(query, here), position.rotate(key_seen, positions)
            y = attend(query, key_seen, value_seen, position, here, positions)
        else:
            y = self.all_segments(query, (slot_key, slot_value), (key, value), position, opened, slots)
        newest = max(0, slot_key.shape[2] - self.compressed_length)
        compressed = slot_key[:, :, newest:], slot_value[:, :, newest:]
        return self.merge(y), CompressiveState(
            *compressed, key[:, :, leaving:], value[:, :, leaving:], torch.tensor(seen)
        )

    def compress(self, x: Tensor) -> Tensor:
        """Slots (B, H, n, d) for keys or values (B, H, n · rate, d)."""
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
        """What new tokens of several segments see, (B, H, T, d) as query.

        slots and tokens: keys and values of all slots, the first `before` of them from before the first segment, and
        of memory, open segment (`opened` tokens) and new tokens.
        """
        batch, length = query.shape[0], query.shape[2]
        size, count = self.segment_length, -(-(opened + length) // self.segment_length)
        missing = count * size - opened - length  # places of the last segment that no token fills
        lacking = self.memory_length - (tokens[0].shape[2] - opened - length)  # of the memory, at a stream's begin
        empty = self.compressed_length - before + lacking // self.rate  # of the compressed memory

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

        inside = places(-self.compressed_length - self.memory_length, size, query.device)
        here = places(0, size, query.device)
        start = torch.arange(count, device=query.device)[:, None] * size
        slot, token = inside[: self.compressed_length] - inside[0], inside[self.compressed_length :]
        exists = torch.cat([start // self.rate + slot >= empty, start + token + self.memory_length >= lacking], dim=1)
        valid = exists.repeat(batch, 1)[:, None, None]
        query, key = position.rotate(query, here), position.rotate(key, inside)
        y = attend(query, key, value, position, here, inside, valid=valid)
        y = y.unflatten(0, (batch, count)).transpose(1, 2).flatten(2, 3)
        return y[:, :, opened : opened + length]


def windows(x: Tensor, count: int, size: int, step: int) -> Tensor:
    """The first `count` windows of x (B, H, t, d), one every `step` places: (B · count, H, size, d)."""
    cut = x[:, :, : (count - 1) * step + size].unfold(2, size, step)  # (B, H, count, d, size)
    return cut.permute(0, 2, 1, 4, 3).flatten(0, 1)

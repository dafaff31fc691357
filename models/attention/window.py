"""Sliding-window attention."""

from typing import NamedTuple

import torch
from pydantic import PositiveInt
from torch import Tensor

from models.attention.base import Attention
from models.attention.local import segment_attention
from models.positions import Position


class WindowState(NamedTuple):
    """Keys and values of the last window - 1 tokens, each (B, H_kv, t, d) and not rotated."""

    keys: Tensor
    values: Tensor


class SlidingWindow(Attention):
    """Every token attends to itself and the `window` - 1 tokens before it (Beltagy et al. 2020, causal)."""

    def __init__(self, width: int, heads: int, window: PositiveInt):
        super().__init__(width, heads)
        self.window = window

    def initial_state(self, x: Tensor) -> WindowState:
        return WindowState(self.no_tokens(x), self.no_tokens(x))

    def forward(self, x: Tensor, position: Position, state: WindowState | None = None) -> tuple[Tensor, WindowState]:
        query, key, value = self.project(x)
        if state is not None:
            key = torch.cat([state.keys.to(key.dtype), key], dim=2)
            value = torch.cat([state.values.to(value.dtype), value], dim=2)
        y = segment_attention(
            query, key, value, position, self.window, memory_length=self.window - 1, window=self.window
        )
        first = max(0, key.shape[2] - (self.window - 1))
        return self.merge(y), WindowState(key[:, :, first:], value[:, :, first:])

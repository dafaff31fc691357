"""Full attention: causal with a key-value cache, and bidirectional."""

from typing import NamedTuple

import torch
from torch import Tensor

from models.attention.base import Attention, attend
from models.positions import Position, position_ids


class Cache(NamedTuple):
    """Rotated keys and values of all tokens so far, each (B, H_kv, t, d)."""

    keys: Tensor
    values: Tensor


class Full(Attention):
    """Every token attends to itself and to all tokens before it (Vaswani et al. 2017, equation 1)."""

    def initial_state(self, x: Tensor) -> Cache:
        return Cache(self.no_tokens(x), self.no_tokens(x))

    def forward(self, x: Tensor, position: Position, state: Cache | None = None) -> tuple[Tensor, Cache]:
        query, key, value = self.project(x)
        before = 0 if state is None else state.keys.shape[2]
        end = before + x.shape[1]
        query_positions = position_ids(before, end, x.device)
        query, key = position.rotate(query, query_positions), position.rotate(key, query_positions)
        if state is not None:
            key = torch.cat([state.keys.to(key.dtype), key], dim=2)
            value = torch.cat([state.values.to(value.dtype), value], dim=2)
        y = attend(query, key, value, position, query_positions, position_ids(0, end, x.device))
        return self.merge(y), Cache(key, value)


class Bidirectional(Attention):
    """Every token attends to its whole sequence; there is no state."""

    def forward(self, x: Tensor, position: Position, state: None = None) -> tuple[Tensor, None]:
        query, key, value = self.project(x)
        positions = position_ids(0, x.shape[1], x.device)
        query, key = position.rotate(query, positions), position.rotate(key, positions)
        return self.merge(attend(query, key, value, position, positions, positions)), None

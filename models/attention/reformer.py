"""Reformer's attention: a token attends to the earlier tokens that a random hash puts into its own bucket."""

from functools import lru_cache
from typing import Annotated, NamedTuple

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from models.attention.base import Attention, attend
from models.positions import Position, position_ids

CHUNK = 256  # queries compared with all keys at a time


class ReformerState(NamedTuple):
    """Rotated keys and values of all tokens so far, each (B, H, t, d), and their buckets in each round."""

    keys: Tensor
    values: Tensor
    buckets: Tensor  # (B, H, rounds, t) int16


Buckets = Annotated[int, Field(ge=2, lt=2**15)]  # the state holds their numbers as int16


class Reformer(Attention):
    """Locality-sensitive hashing attention with shared queries and keys (Kitaev et al. 2020, section 2).

    A key is its query scaled to length 1. A token's bucket is the index of the largest component of [xR; -xR], where x
    is its query before rotation and R is a fixed random matrix per head and round. A token attends to the earlier
    tokens that share a bucket with it in at least one round, and to itself only if there are none (equations 2-3 and
    the text after them). The result is exact and does not depend on how a sequence is cut into calls. The paper also
    cuts the sorted buckets into chunks, which loses distant tokens but is faster: here every query is compared with all
    keys, as in full attention. Raises ValueError for an odd number of buckets.
    """

    def __init__(self, width: int, heads: int, buckets: Buckets, rounds: PositiveInt):
        super().__init__(width, heads)
        if buckets % 2:
            raise ValueError(f"attention.buckets={buckets} is odd; it must be even, two buckets for each direction")
        self.buckets = buckets
        self.rounds = rounds
        del self.query_key_value
        self.query_value = nn.Linear(width, 2 * width, bias=False)

    def initial_state(self, x: Tensor) -> ReformerState:
        nothing = self.no_tokens(x)
        buckets = torch.zeros(x.shape[0], self.heads, self.rounds, 0, dtype=torch.int16, device=x.device)
        return ReformerState(nothing, nothing, buckets)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query, value = self.query_value(x).unflatten(2, (2, self.heads, self.head_width)).permute(2, 0, 3, 1, 4)
        return query, F.rms_norm(query, query.shape[-1:]), value  # keys of length √d; `attend` divides by √d

    def forward(
        self, x: Tensor, position: Position, state: ReformerState | None = None
    ) -> tuple[Tensor, ReformerState]:
        query, key, value = self.project(x)
        state = state or self.initial_state(key)
        before, length = state.keys.shape[2], x.shape[1]
        query_positions = position_ids(before, before + length, x.device)
        bucket = torch.cat([state.buckets, self.hash(query)], dim=3)
        query, key = position.rotate(query, query_positions), position.rotate(key, query_positions)
        key = torch.cat([state.keys.to(key.dtype), key], dim=2)
        value = torch.cat([state.values.to(value.dtype), value], dim=2)
        pieces = []
        for start in range(before, before + length, CHUNK):
            end = min(start + CHUNK, before + length)
            own, positions = position_ids(start, end, x.device), position_ids(0, end, x.device)
            visible = shares_bucket(bucket[..., :end], own, positions)
            chunk = query[:, :, start - before : end - before]
            pieces.append(attend(chunk, key[:, :, :end], value[:, :, :end], position, own, positions, valid=visible))
        return self.merge(torch.cat(pieces, dim=2)), ReformerState(key, value, bucket)

    def hash(self, query: Tensor) -> Tensor:
        """The bucket of each query (B, H, T, d) in each round: (B, H, rounds, T)."""
        directions = rotations(self.heads, self.rounds, self.head_width, self.buckets // 2).to(query)
        projected = query.detach()[:, :, None] @ directions  # (B, H, rounds, T, buckets / 2)
        return torch.cat([projected, -projected], dim=-1).argmax(dim=-1).to(torch.int16)


@lru_cache
def rotations(heads: int, rounds: int, width: int, directions: int) -> Tensor:
    """R for each head and round, (H, rounds, d, directions): the same in every layer, model and process."""
    return torch.randn(heads, rounds, width, directions, generator=torch.Generator().manual_seed(0))


def shares_bucket(bucket: Tensor, query_positions: Tensor, key_positions: Tensor) -> Tensor:
    """The attention mask (B, H, Tq, Tk) of the last Tq tokens, given the buckets (B, H, rounds, Tk) of all tokens."""
    shared = (bucket[..., -len(query_positions) :, None] == bucket[..., None, :]).any(dim=2)
    distance = query_positions[:, None] - key_positions
    earlier = shared & (distance > 0)
    return earlier | ((distance == 0) & ~earlier.any(dim=-1, keepdim=True))

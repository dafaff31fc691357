"""Linear attention: a feature map instead of the softmax, and a state of constant size instead of cached keys."""

import contextlib
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from models.attention.base import Attention, repeat_key_values
from models.positions import Position, position_ids

CHUNK = 64  # tokens that attend to each other directly; they attend to earlier tokens through the state


class LinearState(NamedTuple):
    """Sums over all tokens so far, in float32 or wider, and the number of tokens."""

    memory: Tensor  # Σ φ(k) vᵀ (B, H_kv, d, d)
    normalizer: Tensor  # Σ φ(k) (B, H_kv, d)
    seen: Tensor  # () int64 on the CPU


class Linear(Attention):
    """φ(q) Σ φ(k) vᵀ / φ(q) Σ φ(k) over the tokens so far, φ = ELU + 1 (Katharopoulos et al. 2020, equation 12).

    Rotary schemes rotate φ(q) and φ(k) in the numerator only, so that the denominator stays positive (Su et al. 2021,
    equation 19). There are no scores and no softmax: `check` rejects schemes that change the scores.
    """

    def check(self, position: Position) -> None:
        if type(position).bias is not Position.bias or position.temperature != 1:
            raise ValueError(
                f"linear attention has no scores, which {type(position).__name__} changes: choose position=none, "
                "learned, sinusoidal, rope or rope_ntk"
            )

    def initial_state(self, x: Tensor) -> LinearState:
        wide = torch.promote_types(x.dtype, torch.float32)
        shape = (x.shape[0], self.key_value_heads, self.head_width)
        return LinearState(
            x.new_zeros(*shape, self.head_width, dtype=wide), x.new_zeros(*shape, dtype=wide), torch.tensor(0)
        )

    def forward(self, x: Tensor, position: Position, state: LinearState | None = None) -> tuple[Tensor, LinearState]:
        query, key, value = self.project(x)
        state = state or self.initial_state(key)
        with contextlib.nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False):
            y, state = self.mix(query, key, value, position, state)
        return self.merge(y.to(value.dtype)), state

    def mix(
        self, query: Tensor, key: Tensor, value: Tensor, position: Position, state: LinearState
    ) -> tuple[Tensor, LinearState]:
        """The output (B, H, T, d) for query (B, H, T, d), key and value (B, H_kv, T, d), and the next state."""
        wide, seen, length = state.memory.dtype, int(state.seen), query.shape[2]
        query, key, value = F.elu(query.to(wide)) + 1, F.elu(key.to(wide)) + 1, value.to(wide)
        normalizers = state.normalizer[:, :, None] + key.cumsum(dim=2)
        weight = (query * repeat_key_values(normalizers, self.heads)).sum(dim=-1, keepdim=True)
        positions = position_ids(seen, seen + length, query.device)
        query, key = position.rotate(query, positions), position.rotate(key, positions)
        query, key, value = (self.split(x) for x in (query, key, value))  # (…, n, CHUNK, d)
        additions = torch.cat([state.memory[:, :, None], key.transpose(-1, -2) @ value], dim=2)
        memories = additions.cumsum(dim=2)  # before each chunk, and after the last
        earlier, key, value = (repeat_key_values(x, self.heads) for x in (memories[:, :, :-1], key, value))
        y = query @ earlier + (query @ key.transpose(-1, -2)).tril() @ value
        y = y.flatten(2, 3)[:, :, :length] / weight
        return y, LinearState(memories[:, :, -1], normalizers[:, :, -1], torch.tensor(seen + length))

    def split(self, x: Tensor) -> Tensor:
        """(B, H, T, d) as chunks (B, H, n, CHUNK, d), padded with zeros; one chunk of T tokens if T < CHUNK."""
        chunk = min(CHUNK, x.shape[2])
        return F.pad(x, (0, 0, 0, -x.shape[2] % chunk)).unflatten(2, (-1, chunk))

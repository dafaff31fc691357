"""Infini-attention: local attention in each segment and a compressive memory of all segments before it."""

import contextlib
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from models.attention.base import Attention, repeat_key_values
from models.attention.local import segment_attention
from models.positions import Position
from models.recomputation import recomputed

SIGMAS: dict[str, Callable[[Tensor], Tensor]] = {
    "elu": lambda x: F.elu(x) + 1,  # the paper's
    "softplus": F.softplus,
}
EMPTY = 1e-6  # lower bound of the normaliser, which is zero for an empty memory


class InfiniState(NamedTuple):
    """The compressive memory, in float32 or wider, and the keys and values of the incomplete segment."""

    memory: Tensor  # M (B, H_kv, d, d)
    normalizer: Tensor  # z (B, H_kv, d)
    keys: Tensor  # (B, H_kv, t, d), t below the segment length, not rotated
    values: Tensor


class Infini(Attention):
    """Infini-attention (Munkhdalai et al. 2024, equations 6-11) with the linear or the linear + delta update.

    Each segment reads the memory of all segments before it, then is added to the memory. The memory has no position
    information. One gate β per query head mixes the retrieved values with local attention; heads that share keys and
    values share a memory. The paper does not define equation 7 for an empty memory, where it is 0/0: here the first
    segment uses local attention alone, as if its gate were closed. The products of a segment have the dtype of its
    keys, which autocast may have narrowed; their sums are in float32 or wider. The memories before each segment are
    not kept for the backward pass, which computes them again.

    sigma: σ, which makes queries and keys positive. truncation: the gradient through the memory is stopped after every
    so many segments of a call, so that it never leaves its block of segments; None never stops it.
    Raises ValueError for a truncation below 1.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        segment_length: PositiveInt,
        update: Literal["linear", "delta"] = "linear",
        initial_gate: float = 0.0,
        key_value_heads: PositiveInt | None = None,
        sigma: Literal["elu", "softplus"] = "elu",
        truncation: PositiveInt | None = None,
    ):
        super().__init__(width, heads, key_value_heads)
        if truncation is not None and truncation < 1:
            raise ValueError(f"attention.truncation={truncation} must be at least 1 segment, or null")
        self.segment_length = segment_length
        self.update = update
        self.sigma = SIGMAS[sigma]
        self.truncation = truncation
        self.gate = nn.Parameter(torch.full((heads,), float(initial_gate)))

    def initial_state(self, x: Tensor) -> InfiniState:
        wide = torch.promote_types(x.dtype, torch.float32)
        shape = (x.shape[0], self.key_value_heads, self.head_width)
        memory = x.new_zeros(*shape, self.head_width, dtype=wide)
        return InfiniState(memory, x.new_zeros(*shape, dtype=wide), self.no_tokens(x), self.no_tokens(x))

    def forward(self, x: Tensor, position: Position, state: InfiniState | None = None) -> tuple[Tensor, InfiniState]:
        query, key, value = self.project(x)
        state = state or self.initial_state(key)
        opened, length = state.keys.shape[2], x.shape[1]
        if opened:
            key = torch.cat([state.keys.to(key.dtype), key], dim=2)
            value = torch.cat([state.values.to(value.dtype), value], dim=2)
        local = segment_attention(query, key, value, position, self.segment_length, opened)  # eq. 6
        stored = (opened + length) // self.segment_length * self.segment_length
        y, memory, normalizer = recomputed(self.mix, query, key[:, :, :stored], value[:, :, :stored], local, state)
        return self.merge(y), InfiniState(memory, normalizer, key[:, :, stored:], value[:, :, stored:])

    def mix(
        self, query: Tensor, key: Tensor, value: Tensor, local: Tensor, state: InfiniState
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Local attention mixed with what the memory gives (B, H, T, d), and memory and normaliser after all segments.

        key and value (B, H_kv, n · S, d) are of the n segments that are complete.
        """
        opened = state.keys.shape[2]
        memories, normalizers = state.memory[:, :, None], state.normalizer[:, :, None]
        if key.shape[2]:
            memories, normalizers = self.store(key, value, state)
        shared = repeat_key_values(memories, self.heads), repeat_key_values(normalizers, self.heads)
        retrieved, empty = self.retrieve(query, *shared, opened)
        gate = torch.sigmoid(self.gate).view(-1, 1, 1).to(local.dtype)
        y = torch.lerp(local, retrieved, gate.masked_fill(empty, 0.0))  # eq. 10
        return y, memories[:, :, -1], normalizers[:, :, -1]

    def repeat(self, state: InfiniState, before: InfiniState, after: InfiniState, times: Tensor) -> InfiniState:
        def grown(now: Tensor, old: Tensor, new: Tensor) -> Tensor:
            return now + torch.tensordot(times[:, None].to(now.dtype), new - old, dims=1)

        with exact(times):
            memory = grown(state.memory, before.memory, after.memory)
            return state._replace(
                memory=memory, normalizer=grown(state.normalizer, before.normalizer, after.normalizer)
            )

    def store(self, key: Tensor, value: Tensor, state: InfiniState) -> tuple[Tensor, Tensor]:
        """Store n complete segments of keys and values (B, H_kv, n · S, d).

        Returns the memory (B, H_kv, n + 1, d, d) and the normaliser (B, H_kv, n + 1, d) before each segment and after
        the last.
        """
        wide = state.memory.dtype
        feature = self.feature(self.split(key))  # σ(K), (B, H_kv, n, S, d)
        additions = (feature.transpose(-1, -2) @ self.split(value)).to(wide)  # σ(K)ᵀ V
        normalizers = self.running_sums(state.normalizer, feature.sum(dim=-2, dtype=wide))  # eq. 8
        if self.update == "linear":
            return self.running_sums(state.memory, additions), normalizers  # eq. 8
        # Eq. 9, M + σ(K)ᵀ (V - σ(K) M / σ(K) z), equals (I - G) M + σ(K)ᵀ V, where G does not depend on M. So only
        # products of d × d matrices remain to be done one after the other.
        before = normalizers[:, :, :-1, :, None].to(feature.dtype)
        weight = (feature @ before).clamp(min=EMPTY)  # σ(K) z before the segment
        share = feature * weight.rsqrt()
        erased = (share.transpose(-1, -2) @ share).to(wide)  # G
        retained = torch.eye(self.head_width, dtype=wide, device=key.device) - erased  # I - G
        memories = [state.memory.flatten(0, 1)]
        with exact(key):
            for index, pair in enumerate(zip(additions.flatten(0, 1).unbind(1), retained.flatten(0, 1).unbind(1))):
                memory = torch.baddbmm(pair[0], pair[1], memories[-1])
                memories.append(memory.detach() if self.truncated_after(index) else memory)
        return torch.stack(memories, dim=1).unflatten(0, key.shape[:2]), normalizers

    def running_sums(self, start: Tensor, additions: Tensor) -> Tensor:
        """The sums (B, H_kv, n + 1, …) of start (B, H_kv, …) and the first 0, 1, …, n additions (B, H_kv, n, …)."""
        sums = [start[:, :, None]]
        for block in additions.split(self.truncation or max(1, additions.shape[2]), dim=2):
            rising = sums[-1][:, :, -1:] + block.cumsum(dim=2)
            if self.truncated_after(block.shape[2] - 1):
                rising = torch.cat([rising[:, :, :-1], rising[:, :, -1:].detach()], dim=2)
            sums.append(rising)
        return torch.cat(sums, dim=2)

    def truncated_after(self, index: int) -> bool:
        """Whether the gradient stops after segment `index` of a call."""
        return self.truncation is not None and (index + 1) % self.truncation == 0

    def retrieve(self, query: Tensor, memories: Tensor, normalizers: Tensor, opened: int) -> tuple[Tensor, Tensor]:
        """A_mem (B, H, T, d) of equation 7, and a mask (B, H, T, 1) of the tokens whose memory was empty."""
        length = query.shape[2]
        segments = -(-(opened + length) // self.segment_length)
        feature = self.feature(query)  # σ(Q)
        if segments > 1:
            missing = segments * self.segment_length - opened - length
            feature = self.split(F.pad(feature, (0, 0, opened, missing)))
        else:
            feature = feature[:, :, None]
        weight = feature @ normalizers[:, :, :segments, :, None].to(feature.dtype)  # σ(Q) z
        retrieved = feature @ memories[:, :, :segments].to(feature.dtype) / weight.clamp(min=EMPTY)
        empty = (normalizers[:, :, :segments].sum(-1) == 0)[..., None, None].expand_as(weight)
        if segments > 1:
            retrieved, empty = (x.flatten(2, 3)[:, :, opened : opened + length] for x in (retrieved, empty))
            return retrieved, empty
        return retrieved[:, :, 0], empty[:, :, 0]

    def feature(self, x: Tensor) -> Tensor:
        """σ(x) in the dtype of x, computed in float32 or wider, where 1 + (exp(x) - 1) is accurate for small values."""
        return self.sigma(x.to(torch.promote_types(x.dtype, torch.float32))).to(x.dtype)

    def split(self, x: Tensor) -> Tensor:
        """(B, H, n · S, d) as (B, H, n, S, d)."""
        return x.reshape(*x.shape[:2], x.shape[2] // self.segment_length, self.segment_length, x.shape[-1])


def exact(x: Tensor) -> contextlib.AbstractContextManager[Any]:
    """A context without autocast, which would round the memory; the meta device has no autocast."""
    return contextlib.nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False)

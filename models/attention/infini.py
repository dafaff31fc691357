"""Infini-attention: local attention in each segment and a compressive memory of all segments before it."""

import contextlib
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.attention.base import Attention, for_queries
from models.attention.local import segment_attention
from models.positions import Position

SIGMAS: dict[str, Callable[[Tensor], Tensor]] = {
    "elu": lambda x: F.elu(x) + 1,  # the paper's
    "softplus": F.softplus,
}
EMPTY = 1e-6  # below this a normaliser is taken for that of an empty memory


class InfiniState(NamedTuple):
    """The compressive memory, float32 or wider, and the tokens of the segment that is not full yet."""

    memory: Tensor  # M (B, H_kv, d, d)
    normalizer: Tensor  # z (B, H_kv, d)
    keys: Tensor  # (B, H_kv, t, d), t below the segment length, not rotated
    values: Tensor


class Infini(Attention):
    """Infini-attention (Munkhdalai et al. 2024, equations 6-11) with the linear or the linear + delta update.

    Each segment reads the memory of all segments before it, then adds itself. The memory sees no positions. One gate
    β per query head mixes what is read with local attention; heads that share keys and values share their memory. The
    paper leaves open what holds before anything is stored, where equation 7 is 0/0: here the first segment is local
    attention alone, as if its gate were shut. A segment's products are made in the type of its keys, which autocast may
    have narrowed; they are summed up in float32 or wider.

    sigma: σ, which makes queries and keys positive. truncation: after so many segments of a call the gradient through
    the memory is cut, so that it reaches no further back than to the start of its own such block; None never cuts it.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        segment_length: int,
        update: Literal["linear", "delta"] = "linear",
        initial_gate: float = 0.0,
        key_value_heads: int | None = None,
        sigma: Literal["elu", "softplus"] = "elu",
        truncation: int | None = None,
    ):
        super().__init__(width, heads, key_value_heads)
        if truncation is not None and truncation < 1:
            raise ValueError(f"the gradient is cut after at least one segment, not after {truncation}")
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

        full = (opened + length) // self.segment_length
        stored = full * self.segment_length
        memories, normalizers = state.memory[:, :, None], state.normalizer[:, :, None]
        if full:
            memories, normalizers = self.write(key[:, :, :stored], value[:, :, :stored], state)
        shared = for_queries(memories, self.heads), for_queries(normalizers, self.heads)
        retrieved, empty = self.read(query, *shared, opened)
        gate = torch.sigmoid(self.gate).view(-1, 1, 1).to(local.dtype)
        y = torch.lerp(local, retrieved, gate.masked_fill(empty, 0.0))  # eq. 10
        kept = InfiniState(memories[:, :, -1], normalizers[:, :, -1], key[:, :, stored:], value[:, :, stored:])
        return self.merge(y), kept

    def repeat(self, state: InfiniState, before: InfiniState, after: InfiniState, times: Tensor) -> InfiniState:
        def grown(now: Tensor, old: Tensor, new: Tensor) -> Tensor:
            return now + torch.tensordot(times[:, None].to(now.dtype), new - old, dims=1)

        with exact(times):
            memory = grown(state.memory, before.memory, after.memory)
            return state._replace(
                memory=memory, normalizer=grown(state.normalizer, before.normalizer, after.normalizer)
            )

    def write(self, key: Tensor, value: Tensor, state: InfiniState) -> tuple[Tensor, Tensor]:
        """Store the full segments: the memory (B, H_kv, n + 1, d, d) and normaliser (B, H_kv, n + 1, d) before each of
        them and after the last."""
        wide = state.memory.dtype
        feature = self.feature(self.split(key))  # σ(K), (B, H_kv, n, S, d)
        additions = (feature.transpose(-1, -2) @ self.split(value)).to(wide)  # σ(K)ᵀ V
        normalizers = self.running(state.normalizer, feature.sum(dim=-2, dtype=wide))  # eq. 8
        if self.update == "linear":
            return self.running(state.memory, additions), normalizers  # eq. 8
        # Eq. 9, M + σ(K)ᵀ (V - σ(K) M / σ(K) z), is (I - G) M + σ(K)ᵀ V with a G that no M enters: all that is left to
        # do in sequence is d × d.
        before = normalizers[:, :, :-1, :, None].to(feature.dtype)
        weight = (feature @ before).clamp(min=EMPTY)  # σ(K) z before the segment
        share = feature * weight.rsqrt()
        erased = (share.transpose(-1, -2) @ share).to(wide)  # G
        kept = torch.eye(self.head_width, dtype=wide, device=key.device) - erased
        memories = [state.memory.flatten(0, 1)]
        with exact(key):
            for index, pair in enumerate(zip(additions.flatten(0, 1).unbind(1), kept.flatten(0, 1).unbind(1))):
                memory = torch.baddbmm(pair[0], pair[1], memories[-1])
                memories.append(memory.detach() if self.cut_after(index) else memory)
        return torch.stack(memories, dim=1).unflatten(0, key.shape[:2]), normalizers

    def running(self, start: Tensor, additions: Tensor) -> Tensor:
        """start (B, H_kv, …), and what it has become after each of the additions (B, H_kv, n, …): n + 1 of them."""
        sums = [start[:, :, None]]
        for block in additions.split(self.truncation or max(1, additions.shape[2]), dim=2):
            rising = sums[-1][:, :, -1:] + block.cumsum(dim=2)
            if self.cut_after(block.shape[2] - 1):
                rising = torch.cat([rising[:, :, :-1], rising[:, :, -1:].detach()], dim=2)
            sums.append(rising)
        return torch.cat(sums, dim=2)

    def cut_after(self, index: int) -> bool:
        """Whether the gradient is cut after a segment of a call."""
        return self.truncation is not None and (index + 1) % self.truncation == 0

    def read(self, query: Tensor, memories: Tensor, normalizers: Tensor, opened: int) -> tuple[Tensor, Tensor]:
        """A_mem (B, H, T, d) of equation 7, and where the memory was still empty, (1 or B, 1 or H, T, 1)."""
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
        """σ(x) in the type of x, computed in one where 1 + (exp(x) - 1) keeps what is small."""
        return self.sigma(x.to(torch.promote_types(x.dtype, torch.float32))).to(x.dtype)

    def split(self, x: Tensor) -> Tensor:
        """(B, H, n · S, d) as (B, H, n, S, d)."""
        return x.reshape(*x.shape[:2], x.shape[2] // self.segment_length, self.segment_length, x.shape[-1])


def exact(x: Tensor) -> contextlib.AbstractContextManager[Any]:
    """Where autocast rounds no memory; there is none on the meta device, where modules are only measured."""
    return contextlib.nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False)

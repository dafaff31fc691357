"""Cross-attention to the highest-scoring of any number of encoded tokens."""

from typing import Any

import torch
from torch import Tensor, nn


class Retrieval(nn.Module):
    """Unlimiformer's cross-attention (Bertsch et al. 2023) with the weights of a cross-attention of transformers.

    Each head of each query attends to the `retrieved` encoded tokens with the highest scores. The key projection is
    applied to the query instead of the tokens (equation 2), (q W_q) W_kᵀ · h, and the value projection to their
    weighted mean. So all heads and layers share the encoded tokens, and no keys or values are stored. The search is
    exact. returns: number of values that the calling layer expects.
    """

    def __init__(self, attention: Any, retrieved: int, returns: int):
        super().__init__()
        self.heads, self.retrieved, self.returns = attention.num_heads, retrieved, returns
        self.q_proj, self.k_proj = attention.q_proj, attention.k_proj
        self.v_proj, self.out_proj = attention.v_proj, attention.out_proj

    def forward(
        self, hidden_states: Tensor, key_value_states: Tensor, attention_mask: Tensor | None = None, **unused: Any
    ) -> tuple[Tensor | None, ...]:
        """Attention of the decoder's tokens (B, T, width) to the encoded tokens (B, S, width): (B, T, width)."""
        encoded = key_value_states[:, None]  # (B, 1, S, width)
        query = self.by_head(self.q_proj(hidden_states))  # (B, H, T, d)
        query = query * query.shape[-1] ** -0.5
        folded = query @ self.of_heads(self.k_proj.weight)  # (B, H, T, width)
        scores = folded @ encoded.transpose(-1, -2) + query @ self.of_heads(self.k_proj.bias)[..., None]
        if attention_mask is not None:  # boolean, or added to the scores
            hidden = attention_mask.logical_not() if attention_mask.dtype == torch.bool else attention_mask < 0
            scores = scores.masked_fill(hidden, torch.finfo(scores.dtype).min)
        if scores.shape[-1] > self.retrieved:
            weakest = scores.topk(self.retrieved, dim=-1).values[..., -1:]
            scores = scores.masked_fill(scores < weakest, torch.finfo(scores.dtype).min)
        seen = (
            scores.softmax(dim=-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(encoded.dtype) @ encoded
        )
        values = seen @ self.of_heads(self.v_proj.weight).transpose(-1, -2) + self.of_heads(self.v_proj.bias)[:, None]
        return self.out_proj(values.transpose(1, 2).flatten(2)), *[None] * (self.returns - 1)

    def by_head(self, x: Tensor) -> Tensor:
        """(B, T, width) as (B, H, T, d)."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def of_heads(self, weight: Tensor) -> Tensor:
        """A projection's weight (width, …) or bias (width,) as each head's, (H, d, …)."""
        return weight.unflatten(0, (self.heads, -1))

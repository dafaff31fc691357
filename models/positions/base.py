"""The interface of a position scheme."""

from functools import lru_cache

import torch
from torch import Tensor, nn


@lru_cache(maxsize=8)
def position_ids(start: int, end: int, device: torch.device) -> Tensor:
    """The position ids from start to end - 1, (end - start,). Do not change the tensor: it is cached.

    Equal arguments give the same tensor object, so that a scheme can cache what it computes from it across layers and
    training steps.
    """
    return torch.arange(start, end, device=device)


class Position(nn.Module):
    """A position scheme: three hooks that do nothing unless a subclass overrides them (no positions).

    Position ids are consecutive integers; the caller accounts for offsets, segments and caches. All layers of a model
    share one scheme. causal: whether a query sees no keys after its own position.
    """

    limit: int | None = None  # the longest sequence that the scheme is defined for; None for no limit
    temperature: float = 1.0  # `rotate` also multiplies by this factor

    def __init__(self, width: int, heads: int, causal: bool = True):
        super().__init__()
        self.width = width
        self.heads = heads
        self.head_width = width // heads
        self.causal = causal

    def embed(self, x: Tensor, positions: Tensor) -> Tensor:
        """The token embeddings x (B, T, width) with the scheme's embedding of `positions` (T,) added."""
        return x

    def rotate(self, x: Tensor, positions: Tensor) -> Tensor:
        """The queries or keys x (B, H, T, d), rotated according to `positions` (T,)."""
        return x

    def bias(self, query: Tensor, key: Tensor, query_positions: Tensor, key_positions: Tensor) -> Tensor | None:
        """The bias added to the scores, (H, Tq, Tk) or (B, H, Tq, Tk); None for no bias.

        It is added to the scores after their division by √d. Schemes may depend on the content of the queries
        (B, H, Tq, d) and keys (B, H, Tk, d).
        """
        return None

    @property
    def trains_bias(self) -> bool:
        """Whether the bias gets gradients."""
        has_bias = type(self).bias is not Position.bias and torch.is_grad_enabled()
        return has_bias and any(parameter.requires_grad for parameter in self.parameters())

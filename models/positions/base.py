"""The interface of a position scheme, and the scheme that does nothing."""

from functools import lru_cache

import torch
from torch import Tensor, nn


@lru_cache(maxsize=8)
def places(start: int, end: int, device: torch.device) -> Tensor:
    """The positions from start to end - 1, (end - start,): the same tensor for the same ones, not to be changed.

    So what a scheme computes from positions can serve all layers, and all steps of a training.
    """
    return torch.arange(start, end, device=device)


class Position(nn.Module):
    """Three hooks, each of which does nothing unless a scheme says otherwise; as it stands, no positions at all.

    Positions are passed in as consecutive integers, so that offsets, segments and caches are the caller's business. One
    scheme serves all layers of a model. causal: whether keys after their query are hidden from it.
    """

    limit: int | None = None  # the longest sequence that the scheme is defined for, if there is one
    temperature: float = 1.0  # what `rotate` multiplies by beside turning

    def __init__(self, width: int, heads: int, causal: bool = True):
        super().__init__()
        self.width = width
        self.heads = heads
        self.head_width = width // heads
        self.causal = causal

    def embed(self, x: Tensor, positions: Tensor) -> Tensor:
        """Add to the token embeddings x (B, T, width) at `positions` (T,)."""
        return x

    def rotate(self, x: Tensor, positions: Tensor) -> Tensor:
        """Rotate queries or keys x (B, H, T, d) at `positions` (T,)."""
        return x

    def bias(self, query: Tensor, key: Tensor, query_positions: Tensor, key_positions: Tensor) -> Tensor | None:
        """What to add to the scores, (H, Tq, Tk) or (B, H, Tq, Tk).

        The queries (B, H, Tq, d) and keys (B, H, Tk, d) are there for schemes that depend on content; the scores that
        the bias is added to are divided by √d before.
        """
        return None

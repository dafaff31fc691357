"""The interface of a position scheme, and the scheme that does nothing."""

from torch import Tensor, nn


class Position(nn.Module):
    """Three hooks, each of which does nothing unless a scheme says otherwise; as it stands, no positions at all.

    Positions are passed in as integers, so that offsets, segments and caches are the caller's business. One scheme
    serves all layers of a model.
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.width = width
        self.heads = heads

    def embed(self, x: Tensor, positions: Tensor) -> Tensor:
        """Add to the token embeddings x (B, T, width) at `positions` (T,)."""
        return x

    def rotate(self, x: Tensor, positions: Tensor) -> Tensor:
        """Rotate queries or keys x (B, H, T, d) at `positions` (T,)."""
        return x

    def bias(self, query: Tensor, query_positions: Tensor, key_positions: Tensor) -> Tensor | None:
        """What to add to the scores: (H, Tq, Tk) or (B, H, Tq, Tk), from the queries (B, H, Tq, d) if need be."""
        return None

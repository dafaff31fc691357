"""A carried state as transformers' cache: what its generate() hands from token to token."""

from typing import Any

from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

from models.state import leaves, rebuild


class StateLayer(CacheLayerMixin):
    """One state in place of a layer's keys and values, and how many tokens it has seen.

    Of a layer of a Llama or of a whole decoder: a mechanism reads `state`, and calls `carry` with the one that follows.
    """

    is_sliding = False

    def __init__(self, state: Any = None, seen: int = 0):
        super().__init__()
        self.state, self.seen = state, seen

    def carry(self, state: Any, tokens: int) -> None:
        """Go on from `state`, which has seen so many tokens more."""
        self.state, self.seen = state, self.seen + tokens

    def get_seq_length(self) -> int:
        return self.seen

    def get_max_length(self) -> int:
        return -1  # none

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return query_length, self.seen  # no mask is needed for what the state holds

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Take over the states of these rows (beam search)."""
        rows = [leaf.index_select(0, beam_idx.to(leaf.device)) if leaf.ndim else leaf for leaf in leaves(self.state)]
        self.state = rebuild(self.state, iter(rows))

    def reset(self) -> None:
        self.state, self.seen = None, 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        raise TypeError("a carried state is no place for keys and values")

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        raise TypeError("a carried state is no place for keys and values")


def state_layer(cache: Cache, index: int) -> StateLayer:
    """The cache's layer for a state, put in the place of one for keys and values if that is still empty.

    Raises ValueError for a cache that another model has filled.
    """
    while len(cache.layers) <= index:
        cache.layers.append(StateLayer())
    layer = cache.layers[index]
    if not isinstance(layer, StateLayer):
        if layer.get_seq_length():  # type: ignore[union-attr]
            raise ValueError("the cache holds keys and values of another model: start with an empty one, or none")
        layer = cache.layers[index] = StateLayer()
    return layer


def check_unpadded(mask: Tensor | None) -> None:
    """Raise ValueError for a mask of transformers, (B, T) or (B, 1, Tq, Tk), that hides tokens from the last one.

    A carried state holds whatever comes in.
    """
    if mask is None:
        return
    last = mask[..., -1, :] if mask.ndim == 4 else mask
    hidden = last < 0 if last.is_floating_point() else last == 0
    if bool(hidden.any()):
        raise ValueError("padding cannot be hidden from a carried state: give sequences of one length")

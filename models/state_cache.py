"""A model's state as a cache of transformers, which generate() passes from token to token."""

from typing import Any

from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

from models.state import leaves, rebuild


class StateLayer(CacheLayerMixin):
    """A cache layer that holds a state instead of keys and values, and the number of tokens that the state has seen.

    The state belongs to one layer of a Llama or to a whole decoder, which reads `state` and calls `advance` with the
    next one.
    """

    is_sliding = False

    def __init__(self, state: Any = None, seen: int = 0):
        super().__init__()
        self.state, self.seen = state, seen

    def advance(self, state: Any, tokens: int) -> None:
        """Replace the state by the one after `tokens` more tokens."""
        self.state, self.seen = state, self.seen + tokens

    def get_seq_length(self) -> int:
        return self.seen

    def get_max_length(self) -> int:
        return -1  # none

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return query_length, self.seen  # no mask is needed for what the state holds

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Select the states of these rows (beam search)."""
        rows = [leaf.index_select(0, beam_idx.to(leaf.device)) if leaf.ndim else leaf for leaf in leaves(self.state)]
        self.state = rebuild(self.state, iter(rows))

    def reset(self) -> None:
        self.state, self.seen = None, 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        raise TypeError("a StateLayer cannot store keys and values")

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        raise TypeError("a StateLayer cannot store keys and values")


def state_layer(cache: Cache, index: int) -> StateLayer:
    """The StateLayer at this index of the cache; replaces an empty layer for keys and values.

    Raises ValueError if the cache holds keys and values of another model.
    """
    while len(cache.layers) <= index:
        cache.layers.append(StateLayer())
    layer = cache.layers[index]
    if not isinstance(layer, StateLayer):
        if layer.get_seq_length():  # type: ignore[union-attr]
            raise ValueError("the cache holds keys and values of another model: pass an empty cache, or none")
        layer = cache.layers[index] = StateLayer()
    return layer


def check_unpadded(mask: Tensor | None) -> None:
    """Raise ValueError if a mask of transformers, (B, T) or (B, 1, Tq, Tk), hides tokens from the last token.

    A state contains every token that the model has read.
    """
    if mask is None:
        return
    last = mask[..., -1, :] if mask.ndim == 4 else mask
    hidden = last < 0 if last.is_floating_point() else last == 0
    if bool(hidden.any()):
        raise ValueError("a state cannot exclude padding tokens: pass sequences of equal length, without padding")

"""The interface of an attention mechanism and the one function that all of them attend with."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.positions import Position

# On a CPU three plain operations beat torch's fused attention up to so many keys, 2 to 6 times at 32 to 128 and 2 times
# at 1,024 to 2,048, and at any length, 2 to 4 times, where a bias is trained.
SHORT = 2048
CHUNK = 512  # queries that they take at a time, so that a good part of the keys after them is never looked at


class Attention(nn.Module):
    """`forward(x, position, state) -> (y, state)` over x (B, T, width).

    The state is a NamedTuple of tensors, a value like any other: what `initial_state` gives before the first token,
    then what the last call returned. Gradients flow through it; whoever carries it on detaches it. A whole sequence,
    a piece of it or a single token is the same call.

    key_value_heads: how many heads have keys and values of their own, each read by the queries of heads /
    key_value_heads neighbouring heads (grouped-query attention, Ainslie et al. 2023); all of them unless told.
    Raises ValueError for numbers that do not divide.
    """

    def __init__(self, width: int, heads: int, key_value_heads: int | None = None):
        super().__init__()
        if width % heads:
            raise ValueError(f"a width of {width} cannot be split over {heads} heads")
        self.heads = heads
        self.key_value_heads = heads if key_value_heads is None else key_value_heads
        if self.key_value_heads < 1 or heads % self.key_value_heads:
            raise ValueError(f"{heads} heads cannot share {key_value_heads} key-value heads evenly")
        self.head_width = width // heads
        self.query_key_value = nn.Linear(width, (heads + 2 * self.key_value_heads) * self.head_width, bias=False)
        self.output = nn.Linear(width, width, bias=False)

    def at_layer(self, index: int, layers: int) -> "Attention":
        """What stands at a layer of so many: this, unless a mechanism is not the same in all of them."""
        return self

    def check(self, position: Position) -> None:
        """Raise ValueError for a position scheme that the mechanism cannot work with."""

    def initial_state(self, x: Tensor) -> Any:
        """The state before the first token, for the batch size, device and type of x."""
        raise TypeError(f"{type(self).__name__} does not define initial_state")

    def repeat(self, state: Any, before: Any, after: Any, times: Tensor) -> Any:
        """The state with what led from `before` to `after`, both of one sequence, written `times` (B,) over besides.

        As it is, unless the mechanism adds up its past.
        """
        return state

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (B, H, T, d), and keys and values of the key-value heads, each (B, H_kv, T, d)."""
        stacked = self.query_key_value(x).unflatten(2, (-1, self.head_width)).transpose(1, 2)
        query, key, value = stacked.split([self.heads, self.key_value_heads, self.key_value_heads], dim=1)
        return query, key, value

    def merge(self, y: Tensor) -> Tensor:
        """The heads' outputs y (B, H, T, d) side by side and projected: (B, T, width)."""
        return self.output(y.transpose(1, 2).flatten(2))

    def no_tokens(self, x: Tensor) -> Tensor:
        """Keys or values of no token at all, (B, H_kv, 0, d)."""
        return x.new_zeros(x.shape[0], self.key_value_heads, 0, self.head_width)


def for_queries(x: Tensor, heads: int) -> Tensor:
    """What key-value heads hold, (B, H_kv, …), for each of the query heads that read it: (B, H, …), k0 k0 k1 k1."""
    return x if x.shape[1] == heads else x.repeat_interleave(heads // x.shape[1], dim=1)


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    position: Position,
    query_positions: Tensor,
    key_positions: Tensor,
    reach: int | None = None,
    valid: Tensor | None = None,
) -> Tensor:
    """Softmax attention of query (B, H, Tq, d) over key and value (B, H_kv, Tk, d).

    Where the scheme is causal, a query sees the keys at or before its own position: all of them, or the last `reach`;
    `valid`, if given, says which keys exist, (B, 1, 1, Tk). The last query stands where the last key does. Queries and
    keys come rotated; the position's bias is added to the scores here.
    """
    key, value = (for_queries(x.to(query.dtype), query.shape[1]) for x in (key, value))
    on_cpu = query.device.type == "cpu"
    if on_cpu and position.causal and valid is None and query.shape[2] > CHUNK and key.shape[2] <= SHORT:
        pieces = []
        for start in range(0, query.shape[2], CHUNK):
            own, end = slice(start, start + CHUNK), key.shape[2] - query.shape[2] + start + CHUNK
            seen = key[:, :, :end], value[:, :, :end]
            pieces.append(attend(query[:, :, own], *seen, position, query_positions[own], key_positions[:end], reach))
        return torch.cat(pieces, dim=2)
    bias = position.bias(query, key, query_positions, key_positions)
    trained = bias is not None and bias.requires_grad
    plain = on_cpu and (key.shape[2] <= SHORT or trained)
    square, everything = query.shape[2] == key.shape[2], not position.causal or query.shape[2] == 1
    if not plain and bias is None and reach is None and valid is None and (square or everything):
        return F.scaled_dot_product_attention(query, key, value, is_causal=not everything)
    if not everything or reach is not None or valid is not None:
        distance = query_positions[:, None] - key_positions[None, :]
        visible = (distance >= 0) | (not position.causal)
        if reach is not None:
            visible = visible & (distance < reach)
        if valid is not None:
            visible = visible & valid
        if bias is None:
            bias = torch.zeros((), dtype=query.dtype, device=query.device)
        bias = bias.masked_fill(~visible, -torch.inf)
    if plain:
        scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
        return torch.softmax(scores if bias is None else scores + bias, dim=-1).to(value.dtype) @ value
    if bias is not None:
        bias = bias.expand(query.shape[0], query.shape[1], -1, -1)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=bias)

"""The interface of an attention mechanism, and the softmax attention that the mechanisms share."""

from typing import Any

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from models.positions import Position

# On a CPU, three plain operations (product, softmax, product) are faster than torch's fused attention up to this number
# of keys: at 64 to 128 keys 1.2 to 1.4 times in float32 and 2 to 7 times in bfloat16. At 512 keys in float32 the fused
# attention is 1.2 to 1.9 times faster, and it keeps no scores. With a trained bias the plain operations are 2 to 4
# times faster at any length.
SHORT, SHORT_BF16 = 256, 2048
CHUNK = 512  # queries per block of the plain operations; each block skips the keys after its last query


class Attention(nn.Module):
    """`forward(x, position, state) -> (y, state)` over x (B, T, width).

    The state is a NamedTuple of tensors. It starts as `initial_state`; each call takes the state that the last call
    returned. Gradients flow through the state; the caller detaches it. The same call reads a whole sequence, a piece of
    one or a single token.

    key_value_heads: number of heads with their own keys and values, each shared by heads / key_value_heads neighbouring
    query heads (grouped-query attention, Ainslie et al. 2023). None means `heads`.
    Raises ValueError if `width` is not divisible by `heads`, or `heads` by `key_value_heads`.
    """

    def __init__(self, width: int, heads: int, key_value_heads: PositiveInt | None = None):
        super().__init__()
        if width % heads:
            raise ValueError(f"the width, {width}, is not divisible by the number of heads, {heads}")
        self.heads = heads
        self.key_value_heads = heads if key_value_heads is None else key_value_heads
        if self.key_value_heads < 1 or heads % self.key_value_heads:
            raise ValueError(f"{heads} heads cannot share {key_value_heads} key-value heads evenly")
        self.head_width = width // heads
        self.query_key_value = nn.Linear(width, (heads + 2 * self.key_value_heads) * self.head_width, bias=False)
        self.output = nn.Linear(width, width, bias=False)

    def at_layer(self, index: int, layers: int) -> "Attention":
        """The attention of layer `index` of `layers`: this one, unless the mechanism differs between layers."""
        return self

    def check(self, position: Position) -> None:
        """Raise ValueError if the mechanism does not support this position scheme."""

    def initial_state(self, x: Tensor) -> Any:
        """The state before the first token, for the batch size, device and dtype of x."""
        raise TypeError(f"{type(self).__name__} does not define initial_state")

    def repeat(self, state: Any, before: Any, after: Any, times: Tensor) -> Any:
        """The state (B rows) plus `times` (B,) times the change from `before` to `after`, states of one sequence.

        The state is returned unchanged unless the mechanism keeps sums over past tokens.
        """
        return state

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (B, H, T, d), and keys and values of the key-value heads, each (B, H_kv, T, d)."""
        # Two products: of one, the backward pass would keep queries and keys too, though it needs the rotated ones.
        values = self.key_value_heads * self.head_width
        both, last = self.query_key_value.weight.tensor_split([-values])
        stacked, value = (
            F.linear(x, part).unflatten(2, (-1, self.head_width)).transpose(1, 2) for part in (both, last)
        )
        query, key = stacked.split([self.heads, self.key_value_heads], dim=1)
        return query, key, value

    def merge(self, y: Tensor) -> Tensor:
        """Concatenate the heads' outputs y (B, H, T, d) and project them: (B, T, width)."""
        return self.output(y.transpose(1, 2).flatten(2))

    def no_tokens(self, x: Tensor) -> Tensor:
        """Empty keys or values, (B, H_kv, 0, d)."""
        return x.new_zeros(x.shape[0], self.key_value_heads, 0, self.head_width)


def repeat_key_values(x: Tensor, heads: int) -> Tensor:
    """Repeat each key-value head of x (B, H_kv, …) for the query heads that share it: (B, H, …), as k0 k0 k1 k1."""
    return x if x.shape[1] == heads else x.repeat_interleave(heads // x.shape[1], dim=1)


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    position: Position,
    query_positions: Tensor,
    key_positions: Tensor,
    window: int | None = None,
    valid: Tensor | None = None,
) -> Tensor:
    """Softmax attention of query (B, H, Tq, d) over key and value (B, H_kv, Tk, d).

    If the scheme is causal, a query sees the keys at or before its own position: all of them, or the last `window`.
    The last query and the last key have the same position. Queries and keys must already be rotated; the position bias
    is added here. valid: mask of the keys that exist, broadcastable to (B, H, Tq, Tk); None for all.
    """
    key, value = (repeat_key_values(x.to(query.dtype), query.shape[1]) for x in (key, value))
    on_cpu = query.device.type == "cpu"
    short = SHORT_BF16 if query.dtype == torch.bfloat16 else SHORT
    plain = on_cpu and (key.shape[2] <= short or position.trains_bias)
    if plain and position.causal and valid is None and query.shape[2] > CHUNK:
        pieces = []
        for start in range(0, query.shape[2], CHUNK):
            own, end = slice(start, start + CHUNK), key.shape[2] - query.shape[2] + start + CHUNK
            seen = key[:, :, :end], value[:, :, :end]
            pieces.append(attend(query[:, :, own], *seen, position, query_positions[own], key_positions[:end], window))
        return torch.cat(pieces, dim=2)
    bias = position.bias(query, key, query_positions, key_positions)
    square, everything = query.shape[2] == key.shape[2], not position.causal or query.shape[2] == 1
    if not plain and bias is None and window is None and valid is None and (square or everything):
        return F.scaled_dot_product_attention(query, key, value, is_causal=not everything)
    if not everything or window is not None or valid is not None:
        distance = query_positions[:, None] - key_positions[None, :]
        visible = (distance >= 0) | (not position.causal)
        if window is not None:
            visible = visible & (distance < window)
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

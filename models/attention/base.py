"""The interface of an attention mechanism and the one function that all of them attend with."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.positions import Position

# On a CPU three plain operations beat torch's fused attention up to so many keys, 2 to 6 times at 32 to 128, and at any
# length, 2 to 4 times, where a bias is trained.
SHORT = 512


class Attention(nn.Module):
    """`forward(x, position, state) -> (y, state)` over x (B, T, width).

    The state is a NamedTuple of tensors, a value like any other: what `initial_state` gives before the first token,
    then what the last call returned. Gradients flow through it; whoever carries it on detaches it. A whole sequence,
    a piece of it or a single token is the same call.
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        if width % heads:
            raise ValueError(f"a width of {width} cannot be split over {heads} heads")
        self.heads = heads
        self.head_width = width // heads
        self.query_key_value = nn.Linear(width, 3 * width, bias=False)
        self.output = nn.Linear(width, width, bias=False)

    def check(self, position: Position) -> None:
        """Raise ValueError for a position scheme that the mechanism cannot work with."""

    def initial_state(self, x: Tensor) -> Any:
        """The state before the first token, for the batch size, device and type of x."""
        raise TypeError(f"{type(self).__name__} does not define initial_state")

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each (B, H, T, d)."""
        batch, length, _ = x.shape
        stacked = self.query_key_value(x).view(batch, length, 3, self.heads, self.head_width)
        query, key, value = stacked.permute(2, 0, 3, 1, 4)
        return query, key, value

    def merge(self, y: Tensor) -> Tensor:
        """The heads' outputs y (B, H, T, d) side by side and projected: (B, T, width)."""
        return self.output(y.transpose(1, 2).flatten(2))

    def no_tokens(self, x: Tensor) -> Tensor:
        """Keys or values of no token at all, (B, H, 0, d)."""
        return x.new_zeros(x.shape[0], self.heads, 0, self.head_width)


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
    """Softmax attention of query (B, H, Tq, d) over key and value (B, H, Tk, d).

    Where the scheme is causal, a query sees the keys at or before its own position: all of them, or the last `reach`;
    `valid`, if given, says which keys exist, (B, 1, 1, Tk). The last query stands where the last key does. Queries and
    keys come rotated; the position's bias is added to the scores here.
    """
    value, key = value.to(query.dtype), key.to(query.dtype)
    bias = position.bias(query, key, query_positions, key_positions)
    trained = bias is not None and bias.requires_grad
    plain = query.device.type == "cpu" and (key.shape[2] <= SHORT or trained)
    square, everything = query.shape[2] == key.shape[2], not position.causal or query.shape[2] == 1
    if not plain and bias is None and reach is None and valid is None and (square or everything):
        return F.scaled_dot_product_attention(query, key, value, is_causal=not everything)
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
        scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2) + bias
        return torch.softmax(scores, dim=-1).to(value.dtype) @ value
    bias = bias.expand(query.shape[0], query.shape[1], -1, -1)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=bias)

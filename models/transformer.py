"""Transformers, decoder and encoder, put together from a position scheme, an attention mechanism and a feed-forward."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from models.attention import Attention
from models.generation import generate
from models.positions import Position, places


class DecoderState(NamedTuple):
    """What a decoder carries from one piece of a sequence to the next."""

    seen: Tensor  # () int64 on the CPU: how many tokens came before
    layers: tuple[Any, ...]  # one attention state a layer


class Block(nn.Module):
    """x + attention(norm(x)), then x + feed-forward(norm(x))."""

    def __init__(self, width: int, attention: Attention, feedforward: nn.Module):
        super().__init__()
        self.attention_norm = nn.RMSNorm(width)
        self.attention = attention
        self.feedforward_norm = nn.RMSNorm(width)
        self.feedforward = feedforward

    def forward(self, x: Tensor, position: Position, state: Any) -> tuple[Tensor, Any]:
        mixed, state = self.attention(self.attention_norm(x), position, state)
        x = x + mixed
        return x + self.feedforward(self.feedforward_norm(x)), state


class Transformer(nn.Module):
    """Embedding, position scheme, blocks and norm, with tied input and output embeddings.

    `attention`, `feedforward`, `activation` and `position` build their parts: position(width, heads, causal),
    attention(width, heads), feedforward(width, activation) and, inside it, activation(channels).
    Raises ValueError for parts that do not fit each other.
    """

    causal = True  # whether a token is hidden from those before it

    def __init__(
        self,
        vocabulary_size: int,
        width: int,
        heads: int,
        layers: int,
        position: Callable[..., Position],
        attention: Callable[..., Attention],
        feedforward: Callable[..., nn.Module],
        activation: Callable[..., nn.Module],
    ):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary_size, width)
        self.position = position(width=width, heads=heads, causal=self.causal)
        self.blocks = nn.ModuleList(
            Block(
                width,
                attention(width=width, heads=heads).at_layer(index, layers),
                feedforward(width=width, activation=activation),
            )
            for index in range(layers)
        )
        self.norm = nn.RMSNorm(width)
        for block in self.blocks:
            block.attention.check(self.position)  # type: ignore[union-attr, operator]

    @property
    def limit(self) -> int | None:
        """The longest sequence that the model is defined for; None if there is no such limit."""
        return self.position.limit

    def logits(self, x: Tensor) -> Tensor:
        """Logits (B, T, vocabulary) for the last block's output x (B, T, width)."""
        return nn.functional.linear(self.norm(x), self.embedding.weight)


class Decoder(Transformer):
    """A pre-norm decoder; see Transformer for its parts."""

    def initial_state(self, batch_size: int) -> DecoderState:
        """The state before the first token of `batch_size` sequences."""
        x = self.embedding.weight.new_zeros(batch_size, 0, self.embedding.embedding_dim)
        layers = tuple(block.attention.initial_state(x) for block in self.blocks)  # type: ignore[union-attr, operator]
        return DecoderState(torch.tensor(0), layers)

    def forward(
        self, tokens: Tensor, state: DecoderState | None = None, target: Tensor | None = None
    ) -> tuple[Tensor, DecoderState]:
        """Logits (B, T, vocabulary) for tokens (B, T) that follow those in `state`, and the state after them.

        With a target (B, S): its logits instead, (B, S, vocabulary), each token's after `tokens` and those before it.
        """
        source_length = tokens.shape[1]
        if target is not None:
            tokens = torch.cat([tokens, target[:, :-1]], dim=1)
        seen = 0 if state is None else int(state.seen)
        positions = places(seen, seen + tokens.shape[1], tokens.device)
        x = self.position.embed(self.embedding(tokens), positions)
        layers = []
        for index, block in enumerate(self.blocks):
            x, layer = block(x, self.position, None if state is None else state.layers[index])
            layers.append(layer)
        if target is not None:
            x = x[:, source_length - 1 :]
        return self.logits(x), DecoderState(torch.tensor(seen + tokens.shape[1]), tuple(layers))

    def period(self, tokens: Tensor) -> tuple[DecoderState, DecoderState]:
        """The states before and after a text's period `tokens` (1, T), when it is read for the second time.

        T holds whole segments, so that every later reading writes about the same to a memory as this one.
        """
        _, before = self(tokens)
        _, after = self(tokens, before)
        return before, after

    def skip(self, state: DecoderState, period: tuple[DecoderState, DecoderState], times: Tensor) -> DecoderState:
        """The state (B rows) as if a period had been read `times` (B,) over, without reading it: a device of training.

        Memories that add up, as Infini-attention's, hold so many times more of what the period wrote, and gradient
        reaches those who wrote it. Where no lower layer reads a memory and the update is linear this is what reading
        leaves; else it is near it. All other state, and the count of tokens, stays as it is. `state` is at the end of
        a segment.
        """
        mechanisms = [block.attention for block in self.blocks]
        four = zip(mechanisms, state.layers, *(end.layers for end in period))
        layers = [mechanism.repeat(own, before, after, times) for mechanism, own, before, after in four]  # type: ignore[union-attr, operator]
        return state._replace(layers=tuple(layers))

    def answer(self, source: Tensor, steps: int, end: int | None = None) -> Tensor:
        """The most likely continuation (B, up to `steps`) of source (B, T), token by token, to `end` at the latest."""
        return generate(self, source, steps, end=end)


class Encoder(Transformer):
    """An encoder as BERT's (Devlin et al. 2019), pre-norm: every token sees all others; see Transformer for its parts.

    Its attention must be one that looks both ways.
    """

    causal = False

    def forward(self, tokens: Tensor, state: None = None) -> tuple[Tensor, None]:
        """Logits (B, T, vocabulary) for tokens (B, T); nothing is carried on."""
        x = self.position.embed(self.embedding(tokens), places(0, tokens.shape[1], tokens.device))
        for block in self.blocks:
            x, _ = block(x, self.position, None)
        return self.logits(x), None

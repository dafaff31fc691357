"""Transformers, decoder and encoder, built from a position scheme, an attention mechanism and a feed-forward layer."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from models.attention import Attention
from models.functions import RMSNorm
from models.generation import generate
from models.positions import Position, position_ids
from models.ranges import Layers, Width
from models.recomputation import recomputed


class DecoderState(NamedTuple):
    """The state of a decoder between two pieces of a sequence."""

    seen: Tensor  # () int64 on the CPU: number of tokens read
    layers: tuple[Any, ...]  # one attention state per layer


class Block(nn.Module):
    """x + attention(norm(x)), then x + feed-forward(norm(x))."""

    def __init__(self, width: int, attention: Attention, feedforward: nn.Module):
        super().__init__()
        self.attention_norm = RMSNorm(width)
        self.attention = attention
        self.feedforward_norm = RMSNorm(width)
        self.feedforward = feedforward
        self.is_recomputed = False

    def recompute_layers(self) -> int:
        """See models.recomputation.recompute_layers."""
        self.is_recomputed = True
        return 1

    def forward(self, x: Tensor, position: Position, state: Any) -> tuple[Tensor, Any]:
        return recomputed(self.read, x, position, state) if self.is_recomputed else self.read(x, position, state)

    def read(self, x: Tensor, position: Position, state: Any) -> tuple[Tensor, Any]:
        mixed, state = self.attention(self.attention_norm(x), position, state)
        x = x + mixed
        return x + self.feedforward(self.feedforward_norm(x)), state


class Transformer(nn.Module):
    """Embedding, position scheme, blocks and final norm, with tied input and output embeddings.

    The parts are built by position(width, heads, causal), attention(width, heads), feedforward(width, activation) and,
    within it, activation(channels). Raises ValueError if the parts do not fit each other.
    """

    causal = True  # whether tokens see no later tokens

    def __init__(
        self,
        vocabulary_size: int,
        width: Width,
        heads: PositiveInt,
        layers: Layers,
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
        self.norm = RMSNorm(width)
        for block in self.blocks:
            block.attention.check(self.position)  # type: ignore[union-attr, operator]

    @property
    def limit(self) -> int | None:
        """The longest sequence that the model is defined for; None for no limit."""
        return self.position.limit

    def logits(self, x: Tensor) -> Tensor:
        """Logits (B, T, vocabulary) from the last block's output x (B, T, width)."""
        return nn.functional.linear(self.norm(x), self.embedding.weight)


class Decoder(Transformer):
    """A pre-norm decoder; see Transformer for its parameters."""

    def initial_state(self, batch_size: int) -> DecoderState:
        """The state before the first token of `batch_size` sequences."""
        x = self.embedding.weight.new_zeros(batch_size, 0, self.embedding.embedding_dim)
        layers = tuple(block.attention.initial_state(x) for block in self.blocks)  # type: ignore[union-attr, operator]
        return DecoderState(torch.tensor(0), layers)

    def forward(
        self, tokens: Tensor, state: DecoderState | None = None, target: Tensor | None = None
    ) -> tuple[Tensor, DecoderState]:
        """Logits (B, T, vocabulary) for tokens (B, T) that follow `state`, and the state after them.

        With a target (B, S), which follows `tokens`: the logits (B, S, vocabulary) that predict each target token.
        """
        source_length = tokens.shape[1]
        if target is not None:
            tokens = torch.cat([tokens, target[:, :-1]], dim=1)
        seen = 0 if state is None else int(state.seen)
        positions = position_ids(seen, seen + tokens.shape[1], tokens.device)
        x = self.position.embed(self.embedding(tokens), positions)
        layers = []
        for index, block in enumerate(self.blocks):
            x, layer = block(x, self.position, None if state is None else state.layers[index])
            layers.append(layer)
        if target is not None:
            x = x[:, source_length - 1 :]
        return self.logits(x), DecoderState(torch.tensor(seen + tokens.shape[1]), tuple(layers))

    def period(self, tokens: Tensor) -> tuple[DecoderState, DecoderState]:
        """The states before and after the second reading of `tokens` (1, T), the period of a periodic text.

        T is a multiple of the segment length, so that every later reading adds about the same to a memory.
        """
        _, before = self(tokens)
        _, after = self(tokens, before)
        return before, after

    def skip(self, state: DecoderState, period: tuple[DecoderState, DecoderState], times: Tensor) -> DecoderState:
        """The state (B rows) as if a period had been read `times` (B,) times, without reading it; used in training.

        Adds to additive memories, such as Infini-attention's, the change made by one period times `times`; gradients
        flow through it. This is exact if the update is linear and no lower layer reads a memory, and approximate
        otherwise. Other states and the number of tokens do not change. `state` must be at the end of a segment.
        """
        mechanisms = [block.attention for block in self.blocks]
        four = zip(mechanisms, state.layers, *(end.layers for end in period))
        layers = [mechanism.repeat(own, before, after, times) for mechanism, own, before, after in four]  # type: ignore[union-attr, operator]
        return state._replace(layers=tuple(layers))

    def answer(self, source: Tensor, steps: int, end: int | None = None) -> Tensor:
        """Generate at most `steps` tokens greedily after source (B, T), up to `end`: (B, ≤ steps)."""
        return generate(self, source, steps, end=end)


class Encoder(Transformer):
    """A pre-norm encoder like BERT (Devlin et al. 2019): every token sees all others.

    See Transformer for its parameters. The attention must be bidirectional.
    """

    causal = False

    def forward(self, tokens: Tensor, state: None = None) -> tuple[Tensor, None]:
        """Logits (B, T, vocabulary) for tokens (B, T); there is no state."""
        x = self.position.embed(self.embedding(tokens), position_ids(0, tokens.shape[1], tokens.device))
        for block in self.blocks:
            x, _ = block(x, self.position, None)
        return self.logits(x), None

"""Recurrent Memory Transformer: memory tokens are passed from segment to segment through the whole network."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from models.attention import Attention
from models.positions import Position, position_ids
from models.ranges import Layers, Width
from models.transformer import Decoder


class RecurrentMemoryState(NamedTuple):
    """The memory, and the layers' states within the incomplete segment."""

    seen: Tensor  # () int64 on the CPU: number of tokens read
    memory: Tensor  # (B, p, width), read at the start of the current segment
    layers: tuple[Any, ...]


class RecurrentMemory(Decoder):
    """A decoder that reads one segment at a time, between `memory_tokens` read tokens and as many write tokens.

    The input of a segment is [memory, tokens, memory]. Under the causal mask its tokens see the first memory; the
    second memory sees everything and becomes the memory of the next segment (Bulatov et al. 2022, section 3.2). The
    memory is the output of the final norm, scaled to the size of an embedding, so that it stays bounded. Position ids
    start at 0 in each segment's input. The first memory is a trained table. Gradients flow through the memory; they are
    stopped after every `truncation` segments, or never if None. Raises ValueError if the position scheme is not defined
    for a whole input.
    """

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
        memory_tokens: PositiveInt,
        segment_length: PositiveInt,
        truncation: PositiveInt | None = None,
    ):
        super().__init__(vocabulary_size, width, heads, layers, position, attention, feedforward, activation)
        self.first_memory = nn.Embedding(memory_tokens, width)
        self.segment_length = segment_length
        self.truncation = truncation
        needed, limit = segment_length + 2 * memory_tokens, self.position.limit
        if limit is not None and limit < needed:
            raise ValueError(
                f"a segment and its memory tokens need {needed} positions and the position scheme has {limit}: use a "
                "longer table (position.max_length), shorter segments or another scheme"
            )

    @property
    def limit(self) -> None:
        """Sequences may be of any length."""

    def initial_state(self, batch_size: int) -> RecurrentMemoryState:  # type: ignore[override]
        memory = self.first_memory.weight.expand(batch_size, -1, -1)
        return RecurrentMemoryState(torch.tensor(0), memory, super().initial_state(batch_size).layers)

    def forward(  # type: ignore[override]
        self, tokens: Tensor, state: RecurrentMemoryState | None = None, target: Tensor | None = None
    ) -> tuple[Tensor, RecurrentMemoryState]:
        """As in Decoder: logits (B, T, vocabulary) for tokens (B, T), or of the target, and the state after them."""
        source_length = tokens.shape[1]
        if target is not None:
            tokens = torch.cat([tokens, target[:, :-1]], dim=1)
        state = state or self.initial_state(tokens.shape[0])
        first = self.segment_length - int(state.seen) % self.segment_length
        outputs = []
        for piece in (tokens[:, :first], *tokens[:, first:].split(self.segment_length, dim=1)):
            if piece.shape[1]:
                output, state = self.read(self.embedding(piece), state)
                outputs.append(output)
        x = torch.cat(outputs, dim=1)
        if target is not None:
            x = x[:, source_length - 1 :]
        return self.logits(x), state

    def read(self, x: Tensor, state: RecurrentMemoryState) -> tuple[Tensor, RecurrentMemoryState]:
        """The last block's output for embedded tokens x (B, T, width) of one segment, and the state after them.

        The last token of the segment is followed by the write tokens, whose output is the next memory.
        """
        count, length = state.memory.shape[1], x.shape[1]
        opened, seen = int(state.seen) % self.segment_length, int(state.seen) + length
        full = seen % self.segment_length == 0
        start = count + opened if opened else 0
        x = torch.cat([*([] if opened else [state.memory]), x, *([state.memory] if full else [])], dim=1)
        x = self.position.embed(x, position_ids(start, start + x.shape[1], x.device))
        layers = []
        for block, carried in zip(self.blocks, state.layers):
            x, layer = block(x, self.position, carried)
            layers.append(layer)
        begin = 0 if opened else count
        output, written = x[:, begin : begin + length], x[:, begin + length :]
        if not full:
            return output, RecurrentMemoryState(torch.tensor(seen), state.memory, tuple(layers))
        memory = self.norm(written) * x.shape[2] ** -0.5
        if self.truncation and seen // self.segment_length % self.truncation == 0:
            memory = memory.detach()
        return output, RecurrentMemoryState(torch.tensor(seen), memory, super().initial_state(x.shape[0]).layers)

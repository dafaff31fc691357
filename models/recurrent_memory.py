"""Recurrent Memory Transformer: memory tokens that go through the whole network, from segment to segment."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from models.attention import Attention
from models.positions import Position, places
from models.transformer import Decoder


class RecurrentMemoryState(NamedTuple):
    """The memory and the layers' states of the segment that is not full yet."""

    seen: Tensor  # () int64 on the CPU: how many tokens came before
    memory: Tensor  # (B, p, width), read at the start of the current segment
    layers: tuple[Any, ...]


class RecurrentMemory(Decoder):
    """A decoder that sees one segment at a time, between `memory_tokens` to read and as many to write.

    The segment's input is [memory, tokens, memory]; under the causal mask its tokens see the first, and the second see
    them all and become the memory of the next segment (Bulatov et al. 2022, section 3.2). The memory is the output of
    the last norm, in the size of an embedding, so that it stays bounded however many segments there are. Positions
    count from the start of each input. Before the first segment the memory is a trained table. Gradient flows through
    the memory; it is cut after every `truncation` segments, counted from the first, or never for None.
    Raises ValueError where a position scheme does not hold a whole input.
    """

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
        memory_tokens: int,
        segment_length: int,
        truncation: int | None = None,
    ):
        super().__init__(vocabulary_size, width, heads, layers, position, attention, feedforward, activation)
        self.first_memory = nn.Embedding(memory_tokens, width)
        self.segment_length = segment_length
        self.truncation = truncation
        needed, held = segment_length + 2 * memory_tokens, self.position.limit
        if held is not None and held < needed:
            raise ValueError(
                f"a segment and its memory tokens need {needed} places and the position scheme holds {held}"
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
        """As Decoder's: logits (B, T, vocabulary) for tokens (B, T), or those of a target, and the state after them."""
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

        With the segment's last token its memory is written.
        """
        count, length = state.memory.shape[1], x.shape[1]
        opened, seen = int(state.seen) % self.segment_length, int(state.seen) + length
        full = seen % self.segment_length == 0
        start = count + opened if opened else 0
        x = torch.cat([*([] if opened else [state.memory]), x, *([state.memory] if full else [])], dim=1)
        x = self.position.embed(x, places(start, start + x.shape[1], x.device))
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

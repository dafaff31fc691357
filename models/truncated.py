"""A decoder that reads only the start of a source, like encoder-decoders with a window."""

from collections.abc import Callable

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from models.attention import Attention
from models.positions import Position
from models.ranges import Layers, Width
from models.transformer import Decoder, DecoderState


class TruncatedDecoder(Decoder):
    """A decoder that truncates a source to `window` tokens: its first tokens and its last one, the separator.

    padding: the token that pads sources on the left. See Transformer for the other parameters.
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
        window: PositiveInt,
        padding: int = 0,
    ):
        super().__init__(vocabulary_size, width, heads, layers, position, attention, feedforward, activation)
        self.window, self.padding = window, padding

    def truncate(self, source: Tensor) -> Tensor:
        """Truncate sources (B, T) to (B, ≤ window). Sources shorter than the window keep part of their padding."""
        length = source.shape[1]
        if length <= self.window:
            return source
        first = (source != self.padding).long().argmax(dim=1, keepdim=True).clamp(max=length - self.window)
        index = first + torch.arange(self.window, device=source.device)
        index[:, -1] = length - 1
        return source.gather(1, index)

    def forward(
        self, tokens: Tensor, state: DecoderState | None = None, target: Tensor | None = None
    ) -> tuple[Tensor, DecoderState]:
        return super().forward(tokens if target is None else self.truncate(tokens), state, target)

    def answer(self, source: Tensor, steps: int, end: int | None = None) -> Tensor:
        return super().answer(self.truncate(source), steps, end)

"""A decoder that reads the beginning of a source, as encoder-decoders with a window do."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from models.attention import Attention
from models.positions import Position
from models.transformer import Decoder, DecoderState


class TruncatedDecoder(Decoder):
    """A decoder that reads `window` tokens of a source at most, its first ones and the last, which ends it.

    padding: the token that fills up sources in front. See Transformer for the other parts.
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
        window: int,
        padding: int = 0,
    ):
        super().__init__(vocabulary_size, width, heads, layers, position, attention, feedforward, activation)
        self.window, self.padding = window, padding

    def beginning(self, source: Tensor) -> Tensor:
        """What is read of sources (B, T), (B, at most `window`); shorter ones keep what fills them up."""
        length = source.shape[1]
        if length <= self.window:
            return source
        first = (source != self.padding).long().argmax(dim=1, keepdim=True).clamp(max=length - self.window)
        place = first + torch.arange(self.window, device=source.device)
        place[:, -1] = length - 1
        return source.gather(1, place)

    def forward(
        self, tokens: Tensor, state: DecoderState | None = None, target: Tensor | None = None
    ) -> tuple[Tensor, DecoderState]:
        return super().forward(tokens if target is None else self.beginning(tokens), state, target)

    def answer(self, source: Tensor, steps: int, end: int | None = None) -> Tensor:
        return super().answer(self.beginning(source), steps, end)

"""Encoder-decoder models of transformers, built without pretrained weights."""

import torch
from torch import Tensor, nn


class Bart(nn.Module):
    """BART (Lewis et al. 2020) of transformers at a chosen size, behind the calls of a decoder.

    window: how many tokens of a source its encoder reads; longer ones are cut, as the paper's is at 1,024.
    padding: the token that fills up sources in front; it also starts the decoder.
    """

    def __init__(
        self,
        vocabulary_size: int,
        width: int,
        heads: int,
        encoder_layers: int,
        decoder_layers: int,
        window: int,
        expansion: float = 4.0,
        padding: int = 0,
        end: int = 2,
    ):
        super().__init__()
        from transformers import BartConfig, BartForConditionalGeneration

        self.window, self.padding = window, padding
        config = BartConfig(
            vocab_size=vocabulary_size,
            d_model=width,
            encoder_layers=encoder_layers,
            decoder_layers=decoder_layers,
            encoder_attention_heads=heads,
            decoder_attention_heads=heads,
            encoder_ffn_dim=round(expansion * width),
            decoder_ffn_dim=round(expansion * width),
            max_position_embeddings=window,
            dropout=0.0,
            init_std=width**-0.5,
            pad_token_id=padding,
            bos_token_id=padding,
            eos_token_id=end,
            decoder_start_token_id=padding,
            forced_eos_token_id=None,
        )
        self.bart = BartForConditionalGeneration(config)

    def cut(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """The first `window` tokens of each source (B, T) without its padding, and which of them exist."""
        padded = (source != self.padding).long().argmax(dim=1, keepdim=True)
        place = padded + torch.arange(min(self.window, source.shape[1]), device=source.device)
        exists = place < source.shape[1]
        return source.gather(1, place.clamp(max=source.shape[1] - 1)), exists

    def forward(self, tokens: Tensor, state: None = None, target: Tensor | None = None) -> tuple[Tensor, None]:
        """Logits (B, S, vocabulary) of each token of target (B, S) after the source `tokens` (B, T)."""
        if target is None:
            raise ValueError("an encoder-decoder needs a target to score")
        source, exists = self.cut(tokens)
        start = target.new_full((len(target), 1), self.padding)
        shifted = torch.cat([start, target[:, :-1]], dim=1)
        output = self.bart(input_ids=source, attention_mask=exists.long(), decoder_input_ids=shifted, use_cache=False)
        return output.logits, None

    def answer(self, source: Tensor, steps: int, end: int) -> Tensor:
        """The most likely target (B, up to `steps`), token by token, to `end` at the latest."""
        tokens, exists = self.cut(source)
        written = self.bart.generate(  # type: ignore[misc]
            tokens, attention_mask=exists.long(), max_new_tokens=steps, do_sample=False, num_beams=1, eos_token_id=end
        )
        return written[:, 1:]

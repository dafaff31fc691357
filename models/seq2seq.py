"""Encoder-decoder models of transformers with the interface of a decoder; they read a window of a source, or all."""

from pathlib import Path
from typing import Any

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from models.ranges import Factor, Layers, Width
from models.retrieval import Retrieval


class EncoderDecoder(nn.Module):
    """BART (Lewis et al. 2020) or LED (Beltagy et al. 2020), from transformers; PRIMERA (Xiao et al. 2022) is an LED.

    window: source tokens that the encoder reads at once; longer sources are truncated, in the papers at 1,024 (BART)
    and 4,096 (PRIMERA). attention_window: LED's tokens attend to this many tokens around them, and the first token
    attends globally; None for BART, with full attention. target_length: longest target of LED; that of BART is
    `window`. retrieved: number of encoded tokens of the whole source that each head of the decoder's cross-attention
    attends to (Unlimiformer, Bertsch et al. 2023), or None. The source is then encoded in chunks of `window` tokens
    that overlap by half, and the middle half of each chunk is used. Training follows the paper's cheapest method: it
    truncates sources to the window; only evaluation retrieves. checkpoint, revision: folder or hub id of a pretrained
    model, which determines sizes, special tokens and weights; None trains a model of the sizes given here from scratch.
    padding: token that pads sources on the left; it also starts the decoder. Raises ValueError for a checkpoint whose
    vocabulary is not the task's.
    """

    def __init__(
        self,
        vocabulary_size: int,
        width: Width,
        heads: PositiveInt,
        encoder_layers: Layers,
        decoder_layers: Layers,
        window: PositiveInt,
        expansion: Factor = 4.0,
        attention_window: PositiveInt | None = None,
        target_length: PositiveInt = 1024,
        retrieved: PositiveInt | None = None,
        checkpoint: str | None = None,
        revision: str = "main",
        padding: int = 0,
        end: int = 2,
    ):
        super().__init__()
        self.window, self.retrieved, self.pretrained = window, retrieved, checkpoint is not None
        if checkpoint:
            self.model = pretrained(checkpoint, revision, vocabulary_size)
        else:
            sizes = {
                "vocab_size": vocabulary_size,
                "d_model": width,
                "encoder_layers": encoder_layers,
                "decoder_layers": decoder_layers,
                "encoder_attention_heads": heads,
                "decoder_attention_heads": heads,
                "encoder_ffn_dim": round(expansion * width),
                "decoder_ffn_dim": round(expansion * width),
                "dropout": 0.0,
                "init_std": width**-0.5,
                "pad_token_id": padding,
                "bos_token_id": padding,
                "eos_token_id": end,
                "decoder_start_token_id": padding,
            }
            self.model = (
                bart(sizes, window) if attention_window is None else led(sizes, window, attention_window, target_length)
            )
        config = self.model.config
        self.padding, self.start = config.pad_token_id, config.decoder_start_token_id
        self.is_led = config.model_type == "led"
        if retrieved is not None:
            for layer in self.model.get_decoder().layers:
                layer.encoder_attn = Retrieval(layer.encoder_attn, retrieved, returns=3 if self.is_led else 2)

    def unpadded(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """Sources (B, T) shifted so that their padding is on the right, and a mask (B, T) of the tokens that exist."""
        padded = (source != self.padding).long().argmax(dim=1, keepdim=True)
        index = padded + torch.arange(source.shape[1], device=source.device)
        exists = index < source.shape[1]
        return source.gather(1, index.clamp(max=source.shape[1] - 1)), exists

    def read(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """The encoded tokens (B, S, width) of sources (B, T) for the decoder, and a mask (B, S) of those that exist."""
        tokens, exists = self.unpadded(source)
        if self.retrieved is None or self.training or tokens.shape[1] <= self.window:
            tokens, exists = tokens[:, : self.window], exists[:, : self.window]
            return self.encode(tokens, exists), exists
        stride, quarter = self.window // 2, self.window // 4
        chunks = -(-(tokens.shape[1] - self.window) // stride) + 1
        missing = (chunks - 1) * stride + self.window - tokens.shape[1]
        tokens = nn.functional.pad(tokens, (0, missing), value=self.padding)
        exists = nn.functional.pad(exists, (0, missing))
        pieces = zip(*(x.unfold(1, self.window, stride).unbind(1) for x in (tokens, exists)))
        states = torch.stack([self.encode(*piece) for piece in pieces], dim=1)  # (B, chunks, window, width)
        middles = states[:, :, quarter : quarter + stride].flatten(1, 2)
        return torch.cat([states[:, 0, :quarter], middles, states[:, -1, quarter + stride :]], dim=1), exists

    def recompute_layers(self) -> int:
        """See models.recomputation.recompute_layers."""
        self.model.activation_checkpointing_enable({"use_reentrant": False})
        return self.model.config.encoder_layers + self.model.config.decoder_layers

    def encode(self, tokens: Tensor, exists: Tensor) -> Tensor:
        """The encoder's output (B, S, width) for tokens (B, S) that fit into its window."""
        width = tokens.shape[1]
        exists = exists | ~exists.any(dim=1, keepdim=True)  # avoids NaN in chunks after the end, which `read` masks
        global_attention = {}
        if self.is_led:
            missing = -width % max(self.model.config.attention_window)
            tokens = nn.functional.pad(tokens, (0, missing), value=self.padding)
            exists = nn.functional.pad(exists, (0, missing))
            first = torch.arange(width + missing, device=tokens.device) == 0
            global_attention["global_attention_mask"] = first.long().expand_as(tokens)
        states = self.model.get_encoder()(tokens, attention_mask=exists.long(), **global_attention).last_hidden_state
        return states[:, :width]

    def forward(self, tokens: Tensor, state: None = None, target: Tensor | None = None) -> tuple[Tensor, None]:
        """Logits (B, S, vocabulary) of the target (B, S), given the source `tokens` (B, T)."""
        if target is None:
            raise ValueError("an encoder-decoder needs a target to score")
        states, exists = self.read(tokens)
        shifted = torch.cat([target.new_full((len(target), 1), self.start), target[:, :-1]], dim=1)
        output = self.model(
            encoder_outputs=(states,), attention_mask=exists.long(), decoder_input_ids=shifted, use_cache=False
        )
        return output.logits, None

    def answer(self, source: Tensor, steps: int, end: int) -> Tensor:
        """Generate at most `steps` tokens greedily for source (B, T), up to `end`: (B, ≤ steps)."""
        from transformers.modeling_outputs import BaseModelOutput

        states, exists = self.read(source)
        generated = self.model.generate(
            encoder_outputs=BaseModelOutput(last_hidden_state=states),
            attention_mask=exists.long(),
            max_new_tokens=steps,
            do_sample=False,
            num_beams=1,
            eos_token_id=end,
        )
        return generated[:, 1:]


def bart(sizes: dict[str, Any], window: int) -> Any:
    """A BART of these sizes."""
    from transformers import BartConfig, BartForConditionalGeneration

    return BartForConditionalGeneration(BartConfig(**sizes, max_position_embeddings=window, forced_eos_token_id=None))


def led(sizes: dict[str, Any], window: int, attention_window: int, target_length: int) -> Any:
    """An LED of these sizes."""
    from transformers import LEDConfig, LEDForConditionalGeneration

    return LEDForConditionalGeneration(
        LEDConfig(
            **sizes,
            attention_window=attention_window,
            max_encoder_position_embeddings=window,
            max_decoder_position_embeddings=target_length,
        )
    )


def pretrained(checkpoint: str, revision: str, vocabulary_size: int) -> Any:
    """The pretrained model, without the generation settings of its checkpoint (such as beam search).

    Raises ValueError if it cannot be loaded, lacks a tensor or has another vocabulary size. A folder is read as in
    `models.model_folder`; code that comes with a model is never run.
    """
    from transformers import AutoModelForSeq2SeqLM, GenerationConfig

    from models.model_folder import check_settings, check_weights

    folder = Path(checkpoint)
    try:
        if folder.is_dir():
            check_weights(checkpoint, folder)
            check_settings(checkpoint, folder)
        model, info = AutoModelForSeq2SeqLM.from_pretrained(
            checkpoint,
            revision=revision,
            trust_remote_code=False,
            attn_implementation=None,
            experts_implementation=None,
            output_loading_info=True,
        )
    except Exception as error:  # the libraries that it calls raise many types of errors for damaged files
        if torch.get_default_device().type == "meta":
            raise  # only a sketch of the model was wanted, and there are no weights to sketch
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"model.checkpoint={checkpoint} cannot be loaded: {reason}") from error
    if info["missing_keys"]:
        raise ValueError(f"model.checkpoint={checkpoint} lacks tensors, such as {min(info['missing_keys'])}")
    config = model.config
    if config.vocab_size != vocabulary_size:
        raise ValueError(
            f"{checkpoint} has a vocabulary of {config.vocab_size} tokens and the task one of {vocabulary_size}: set "
            f"task.tokenizer={checkpoint}"
        )
    model.generation_config = GenerationConfig(
        pad_token_id=config.pad_token_id, decoder_start_token_id=config.decoder_start_token_id
    )
    return model

"""Models of transformers that were trained elsewhere, with their own tokenizers, behind the calls of the tasks."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer, GenerationConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING

from models.infini_llama import InfiniLlamaConfig
from models.pretrained import DecoderConfig
from models.pretrained import build as build_decoder

WEIGHTS = (".safetensors", ".bin")
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json", "vocab.txt", "spiece.model")


class Tokenizer:
    """A fast tokenizer of transformers. Text that spells out a special token is text.

    opening: the token for the beginning of a text or, as for GPT-2, the one between two texts.
    """

    def __init__(self, tokenizer: Any):
        self.tokenizer = tokenizer
        self.end: int | None = tokenizer.eos_token_id
        self.opening: int | None = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else self.end

    def call(self, text: str, **settings: Any) -> Any:
        return self.tokenizer(text, split_special_tokens=True, verbose=False, **settings)

    def encode(self, text: str) -> list[int]:
        return self.call(text, add_special_tokens=False).input_ids

    def sized(self, text: str) -> tuple[list[int], list[int]]:
        """The tokens and the bytes of text that each adds to those before it; a character's go to its first token."""
        encoded = self.call(text, add_special_tokens=False, return_offsets_mapping=True)
        sizes, done = [], 0
        for _, end in encoded.offset_mapping:
            sizes.append(len(text[done:end].encode()))
            done = max(done, end)
        return encoded.input_ids, sizes

    def source(self, tokens: list[int]) -> list[int]:
        """Tokens with the special ones that this tokenizer puts around a text."""
        bare, full = self.encode("a"), self.call("a").input_ids
        place = next((i for i in range(len(full)) if full[i : i + len(bare)] == bare), 0)
        return [*full[:place], *tokens, *full[place + len(bare) :]]

    def decode(self, tokens: list[int]) -> str:
        return self.tokenizer.decode(tokens, skip_special_tokens=True)


class Foreign(nn.Module):
    """A model that answers the tasks' calls, greedily. Rows of a batch are of one length: there is no padding."""

    def __init__(self, model: Any, padding: int):
        super().__init__()
        self.model, self.padding = model, padding

    def answer(self, source: Tensor, steps: int, end: int | None) -> Tensor:
        """The most likely tokens (B, up to `steps`) after source (B, T), to `end` at the latest."""
        settings = GenerationConfig(
            max_new_tokens=steps,
            do_sample=False,
            num_beams=1,
            eos_token_id=end,
            pad_token_id=self.padding,
            decoder_start_token_id=self.model.generation_config.decoder_start_token_id,
        )
        written = self.model.generate(source, attention_mask=torch.ones_like(source), generation_config=settings)
        return written[:, 1 if self.model.config.is_encoder_decoder else source.shape[1] :]

    def forward(self, tokens: Tensor, state: None = None) -> tuple[Tensor, None]:
        """Logits (B, T, vocabulary) for tokens (B, T) that nothing precedes."""
        return self.model(input_ids=tokens, use_cache=False).logits, None


@dataclass
class Source:
    """A model that lies in a folder or on the hub, not loaded yet.

    encoder: whether it is a sequence-to-sequence model. limit: the longest sequence it is defined for, None if there is
    no such limit. fingerprint: of its weights, configuration and tokenizer.
    """

    name: str
    config: Any
    tokenizer: Tokenizer
    encoder: bool
    limit: int | None
    fingerprint: str

    def load(self) -> Foreign:
        """The model with its weights, in the type they are stored in. Raises ValueError."""
        kind = AutoModelForSeq2SeqLM if self.encoder else AutoModelForCausalLM
        model = read(self.name, "weights", kind.from_pretrained, dtype="auto").eval()
        if not self.encoder and not is_causal(model):
            raise ValueError(f"model={self.name} sees tokens that are still to come: it is no causal model")
        padding = self.tokenizer.tokenizer.pad_token_id
        return Foreign(model, self.tokenizer.end or 0 if padding is None else padding)


@torch.no_grad()
def is_causal(model: Any) -> bool:
    """Whether the last token of a few leaves the logits before it as they are."""
    tokens = torch.arange(8).repeat(2, 1) % model.config.get_text_config().vocab_size
    tokens[1, -1] = 0
    first, second = model(input_ids=tokens, use_cache=False).logits[:, :-1].float()
    return torch.allclose(first, second, rtol=1e-3, atol=1e-3)


def find(name: str) -> Source:
    """The model of a folder or hub id with its tokenizer. Code that comes with a model is never run.

    Raises ValueError, in one line, for what is not there, is damaged, or is no language model.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        name = str(folder)
        for wanted, patterns in (("config.json", ["config.json"]), ("weights", [f"*{end}" for end in WEIGHTS])):
            if not any(any(folder.glob(pattern)) for pattern in patterns):
                raise ValueError(
                    f"model={name} holds no {wanted}: give a folder that save_pretrained wrote, or a hub id"
                )
        if not any((folder / file).exists() for file in TOKENIZERS):
            raise ValueError(
                f"model={name} holds no tokenizer: put the model's own there by AutoTokenizer.from_pretrained(…)"
                f".save_pretrained('{name}'); for a run of ours, python -m models.pretrained saves it along"
            )
    elif folder.exists() or name.count("/") != 1 or name.startswith((".", "~", "/")):
        raise ValueError(f"model={name} is not there; it must be a folder that save_pretrained wrote, or a hub id")
    config = read(name, "config.json", AutoConfig.from_pretrained)
    encoder = type(config) in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING and bool(config.is_encoder_decoder)
    if not encoder and type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ValueError(
            f"model={name} is of type {config.model_type}, neither a causal nor a sequence-to-sequence model"
        )
    tokenizer = read(name, "tokenizer", AutoTokenizer.from_pretrained)
    if not tokenizer.is_fast:
        raise ValueError(
            f"model={name} has a slow tokenizer; one with a tokenizer.json is needed, for it knows its bytes"
        )
    vocabulary = getattr(config.get_text_config(), "vocab_size", None)
    if vocabulary is not None and len(tokenizer) > vocabulary:
        raise ValueError(
            f"model={name} knows {vocabulary} tokens and its tokenizer {len(tokenizer)}: they do not belong together"
        )
    return Source(name, config, Tokenizer(tokenizer), encoder, limit_of(config), fingerprint_of(folder, name, config))


def read(name: str, what: str, call: Any, **settings: Any) -> Any:
    """What from_pretrained gives. Raises ValueError in one line for all that can be wrong with a folder or the hub."""
    try:
        return call(name, trust_remote_code=False, **settings)
    except Exception as error:  # each library behind it has errors of its own for a file that is damaged
        reason = " ".join(str(error).split())
        if "trust_remote_code" in reason:
            reason = "it comes with code of its own, which is never run here"
        elif not Path(name).is_dir() and os.environ.get("HF_HUB_OFFLINE") == "1":
            reason = "it is no folder, and this run is offline: set HF_HUB_OFFLINE=0 to load it from the hub"
        raise ValueError(f"model={name}: cannot read its {what}: {reason[:300]}") from error


def limit_of(config: Any) -> int | None:
    """The longest sequence that a model is defined for, None if there is no such limit."""
    if isinstance(config, DecoderConfig):
        with torch.device("meta"):
            decoder: Any = build_decoder(config.model, config.vocab_size)
        return getattr(decoder, "limit", None)
    if isinstance(config, InfiniLlamaConfig):
        return None  # its memory has no positions
    return getattr(config.get_text_config(), "max_position_embeddings", None)


def fingerprint_of(folder: Path, name: str, config: Any) -> str:
    """The SHA-256 of a folder's weights, configuration and tokenizer; of a hub's model the commit it comes from."""
    if not folder.is_dir():
        return f"{name}@{config._commit_hash}"
    digest = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        if file.suffix in WEIGHTS or file.suffix == ".json" or file.name in TOKENIZERS:
            with open(file, "rb") as opened:
                digest.update(file.name.encode() + hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()[:16]

"""External models: pretrained models of transformers and their tokenizers, with the interface that tasks need."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedConfig,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING

from models.infini_llama import InfiniLlamaConfig
from models.model_folder import find_folder, fingerprint_of, load_weights, reading
from models.pretrained import DecoderConfig
from models.pretrained import build as build_decoder

POSITIONS = ("max_position_embeddings", "max_seq_len", "max_target_positions")  # number of positions, by configuration
PADDED = {  # models that count positions from the padding token's number + 1, so that they have fewer than they say
    *("camembert", "data2vec-text", "prophetnet", "roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl"),
    "xmod",
}
SAMPLING = ("dropout", "alpha", "nbest_size")  # of BPE and Unigram: another encoding at every call


class Tokenizer:
    """A fast tokenizer of transformers.

    What its files ask for beside the tokens of a text is off: padding, truncation, sampling, cleaning of decoded text.
    Special tokens spelled out in a text are encoded as text.
    opening: the token at the start of a text or, as in GPT-2, between two texts; None if there is none. end: likewise.
    """

    def __init__(self, tokenizer: Any):
        self.tokenizer = tokenizer
        backend = tokenizer.backend_tokenizer.model
        for setting in {*SAMPLING} & {*dir(backend)}:
            setattr(backend, setting, None)
        self.end: int | None = tokenizer.eos_token_id
        self.opening: int | None = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else self.end

    def call(self, text: str, **settings: Any) -> Any:
        return self.tokenizer(
            text, split_special_tokens=True, padding=False, truncation=False, verbose=False, **settings
        )

    def encode(self, text: str) -> list[int]:
        return self.call(text, add_special_tokens=False).input_ids

    def encode_with_bytes(self, text: str) -> tuple[list[int], list[int]]:
        """The tokens of a text and the number of bytes of each; a character counts for its first token."""
        encoded = self.call(text, add_special_tokens=False, return_offsets_mapping=True)
        sizes, done = [], 0
        for _, end in encoded.offset_mapping:
            sizes.append(len(text[done:end].encode()))
            done = max(done, end)
        return encoded.input_ids, sizes

    def source(self, tokens: list[int]) -> list[int]:
        """Tokens with the special tokens that this tokenizer adds around a text."""
        bare, full = self.encode("a"), self.call("a").input_ids
        start = next((i for i in range(len(full)) if full[i : i + len(bare)] == bare), 0)
        return [*full[:start], *tokens, *full[start + len(bare) :]]

    def decode(self, tokens: list[int]) -> str:
        return self.tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)


class ExternalModel(nn.Module):
    """An external model that decodes greedily. All rows of a batch have the same length: there is no padding."""

    def __init__(self, model: Any, padding: int):
        super().__init__()
        self.model, self.padding = model, padding

    def answer(self, source: Tensor, steps: int, end: int | None) -> Tensor:
        """Generate at most `steps` tokens greedily after source (B, T), up to `end`: (B, ≤ steps)."""
        settings = GenerationConfig(
            max_new_tokens=steps,
            do_sample=False,
            num_beams=1,
            eos_token_id=end,
            pad_token_id=self.padding,
            decoder_start_token_id=self.model.generation_config.decoder_start_token_id,
        )
        generated = self.model.generate(source, attention_mask=torch.ones_like(source), generation_config=settings)
        return generated[:, 1 if self.model.config.is_encoder_decoder else source.shape[1] :]

    def forward(self, tokens: Tensor, state: None = None) -> tuple[Tensor, None]:
        """Logits (B, T, vocabulary) for tokens (B, T) at the start of a text."""
        return self.model(input_ids=tokens, use_cache=False).logits, None


@dataclass
class Source:
    """An external model in a folder or on the hub that is not loaded yet.

    encoder: whether it is a sequence-to-sequence model. limit: the longest sequence that it reads, answer_limit: the
    longest that it writes, for a decoder both in one; None for no limit. fingerprint: of its weights, configuration and
    tokenizer.
    """

    name: str
    folder: Path
    config: Any
    tokenizer: Tokenizer
    encoder: bool
    limit: int | None
    answer_limit: int | None
    fingerprint: str

    def load(self) -> ExternalModel:
        """The model with its weights in their stored dtype, and without the generation settings that it came with.

        Raises ValueError if it is damaged or not causal, or if its weights are not those of the model that its
        configuration describes.
        """
        load_weights(self.name, self.folder)
        kind = AutoModelForSeq2SeqLM if self.encoder else AutoModelForCausalLM
        own = {"attn_implementation": None, "experts_implementation": None}  # those of transformers, chosen for torch
        with reading(self.name, "weights"):
            model, info = kind.from_pretrained(
                self.folder,
                config=self.config,
                dtype="auto",
                use_safetensors=True,
                ignore_mismatched_sizes=True,  # check_complete names them
                trust_remote_code=False,
                output_loading_info=True,
                **own,
            )
        check_complete(self.name, model, info)
        start = model.eval().generation_config.decoder_start_token_id
        if self.encoder and start is None:
            raise ValueError(f"model={self.name} has no decoder_start_token_id: add it to its generation_config.json")
        model.generation_config = GenerationConfig(decoder_start_token_id=start)
        if not self.encoder and not is_causal(model):
            raise ValueError(f"model={self.name} is not causal: its logits depend on later tokens")
        padding = self.tokenizer.tokenizer.pad_token_id
        return ExternalModel(model, self.tokenizer.end or 0 if padding is None else padding)


def check_complete(name: str, model: Any, info: dict[str, Any]) -> None:
    """Raise ValueError unless the tensors in a model's files are those of the model, each in its place and shape.

    A missing tensor would be random, and one without a place belongs to another model, or to a part that is not read.
    """
    missing = sorted([*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])])
    found = sorted(info["unexpected_keys"])
    prefix = next((other.removesuffix(key) for key in missing for other in found if other.endswith(f".{key}")), "")
    if missing:
        hint = f"; there are others, such as {found[0]}" if found else ""
        hint = f"; its tensors begin with '{prefix}': save them without" if prefix else hint
        raise ValueError(
            f"model={name}: {len(missing)} tensors are missing or of another shape, such as {missing[0]}{hint}"
        )
    if found:
        raise ValueError(
            f"model={name}: {len(found)} tensors have no place in the model of its config.json, such as {found[0]}"
        )
    untied = model.get_expanded_tied_weights_keys(all_submodels=True).keys() - model.all_tied_weights_keys.keys()
    if untied and can_untie(model.config):
        raise ValueError(
            f"model={name}: its config.json ties {min(untied)} to another tensor, but its files hold two that differ: "
            "set tie_word_embeddings to false, or save it without one of them"
        )
    broken = [key for key, tensor in model.named_parameters() if not bool(tensor.isfinite().all())]
    if broken:
        raise ValueError(f"model={name}: {len(broken)} tensors hold NaN or infinite numbers, such as {broken[0]}")


def can_untie(config: Any) -> bool:
    """Whether a configuration can say that its tables are not tied; T5's cannot, so its files decide."""
    return not type(config).from_dict({**config.to_dict(), "tie_word_embeddings": False}).tie_word_embeddings


@torch.no_grad()
def is_causal(model: Any) -> bool:
    """Whether changing the last token leaves the logits before it unchanged."""
    tokens = torch.arange(8).repeat(2, 1) % model.config.get_text_config().vocab_size
    tokens[1, -1] = 0
    first, second = model(input_ids=tokens, use_cache=False).logits[:, :-1].float()
    return torch.allclose(first, second, rtol=1e-3, atol=1e-3)


def find(name: str) -> Source:
    """Find the model and the tokenizer of a folder or hub id. Code that comes with a model is never run.

    Raises ValueError, with a message of one line, if either is missing or damaged, or is not a language model.
    """
    folder = find_folder(name)
    with reading(name, "config.json"):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        limits = limits_of(config)
    encoder = type(config) in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING and bool(config.is_encoder_decoder)
    if not encoder and type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ValueError(
            f"model={name} has type {config.model_type}; it must be a causal or a sequence-to-sequence model"
        )
    with reading(name, "tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    if not tokenizer.is_fast:
        raise ValueError(
            f"model={name} has a slow tokenizer; a fast one (with a tokenizer.json) is needed to count bytes"
        )
    vocabulary = getattr(config.get_text_config(), "vocab_size", None)
    if vocabulary is not None and len(tokenizer) > vocabulary:
        raise ValueError(
            f"model={name} has {vocabulary} tokens and its tokenizer {len(tokenizer)}: they do not belong together"
        )
    return Source(name, folder, config, Tokenizer(tokenizer), encoder, *limits, fingerprint_of(name, folder))


def limits_of(config: Any) -> tuple[int | None, int | None]:
    """The longest sequences that a model reads and writes, in tokens; None for no limit."""
    if isinstance(config, DecoderConfig):
        with torch.device("meta"):
            decoder: Any = build_decoder(config.model, config.vocab_size)
        return (getattr(decoder, "limit", None),) * 2
    if isinstance(config, InfiniLlamaConfig):
        return None, None  # local attention is limited to a segment, and the memory has no positions
    encoder = getattr(config, "encoder", None)
    reads = encoder if isinstance(encoder, PreTrainedConfig) else config.get_text_config()
    writes = config.get_text_config(decoder=True)
    return positions(reads, "max_encoder_position_embeddings"), positions(writes, "max_decoder_position_embeddings")


def positions(config: Any, *own: str) -> int | None:
    """The number of positions that a configuration gives under one of its `own` names or under a usual one, if any."""
    known = (getattr(config, name, None) for name in (*own, *POSITIONS))
    count = next((value for value in known if value is not None and value > 0), None)  # XLNet says -1 for none
    return count - config.pad_token_id - 1 if count and config.model_type in PADDED else count

"""The longest inputs of models of many kinds, and tokenizers whose files switch something on."""

from pathlib import Path

import pytest
import torch
from tokenizers.models import BPE
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    BartConfig,
    BertConfig,
    BloomConfig,
    EncoderDecoderConfig,
    GPT2Config,
    LEDConfig,
    MptConfig,
    OPTConfig,
    PreTrainedConfig,
    ProphetNetConfig,
    RobertaConfig,
    T5Config,
    WhisperConfig,
    XLMRobertaXLConfig,
    XLNetConfig,
    XmodConfig,
)

from models.external import Tokenizer, limits_of
from tasks.summarization import pretrained_vocabulary
from tests.test_evaluate import tokenizer_of

pytestmark = pytest.mark.slow

SMALL = {"vocab_size": 40, "d_model": 16, "decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 16}
SMALL_ENCODER = {"encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 16}
BERT = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
LONGEST = {"max_position_embeddings": 24, "is_decoder": True}
LIMITS: dict[str, tuple[PreTrainedConfig, int | None, int | None]] = {  # a model, what it reads and writes at most
    "gpt2": (GPT2Config(vocab_size=40, n_embd=16, n_layer=1, n_head=2, n_positions=24), 24, 24),
    "opt": (OPTConfig(**BERT, ffn_dim=16, max_position_embeddings=24, word_embed_proj_dim=16), 24, 24),
    "mpt": (MptConfig(vocab_size=40, d_model=16, n_heads=2, n_layers=1, max_seq_len=24), 24, 24),
    "bert": (BertConfig(**BERT, **LONGEST), 24, 24),
    "roberta": (RobertaConfig(**BERT, **LONGEST, pad_token_id=1), 22, 22),
    "xlm-roberta-xl": (XLMRobertaXLConfig(**BERT, **LONGEST, pad_token_id=3), 20, 20),
    "xmod": (XmodConfig(**BERT, **LONGEST, pad_token_id=1, languages=["en_XX"], default_language="en_XX"), 22, 22),
    "whisper": (WhisperConfig(**SMALL, **SMALL_ENCODER, max_target_positions=24, pad_token_id=1), 24, 24),
    "bloom": (BloomConfig(vocab_size=40, hidden_size=16, n_layer=1, n_head=2), None, None),
    "xlnet": (XLNetConfig(vocab_size=40, d_model=16, n_layer=1, n_head=2, d_inner=16), None, None),
    "t5": (T5Config(vocab_size=40, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2), None, None),
    "bart": (BartConfig(**SMALL, **SMALL_ENCODER, max_position_embeddings=24), 24, 24),
    "led": (
        LEDConfig(
            **SMALL,
            **SMALL_ENCODER,
            attention_window=4,
            max_encoder_position_embeddings=24,
            max_decoder_position_embeddings=12,
        ),
        24,
        12,
    ),
    "bert2bert": (
        EncoderDecoderConfig.from_encoder_decoder_configs(
            BertConfig(**BERT, max_position_embeddings=24),
            BertConfig(**BERT, max_position_embeddings=12, is_decoder=True, add_cross_attention=True),
        ),
        24,
        12,
    ),
}


@pytest.mark.parametrize("kind", LIMITS)
def test_the_longest_input_of_a_model_is_as_long_as_it_takes_and_no_longer(kind: str) -> None:
    config, reads, writes = LIMITS[kind]
    assert limits_of(config) == (reads, writes)
    torch.manual_seed(0)
    both = config.is_encoder_decoder and kind != "whisper"
    model = (AutoModelForSeq2SeqLM if both else AutoModelForCausalLM).from_config(config).eval()

    def call(read: int, written: int) -> None:
        tokens = torch.full((1, read), 5)
        model(input_ids=tokens, **({"decoder_input_ids": torch.full((1, written), 5)} if both else {}))

    call(reads or 100, writes or 100)
    if reads:
        with pytest.raises((IndexError, RuntimeError, ValueError)):
            call(reads + 1, writes or 100)
    if both and writes:
        with pytest.raises((IndexError, RuntimeError, ValueError)):
            call(reads or 100, writes + 1)


def test_the_positions_of_prophetnet_are_fewer_than_it_says() -> None:
    """It reads longer texts too, but gives all further tokens one position."""
    assert limits_of(ProphetNetConfig(max_position_embeddings=24, pad_token_id=0)) == (23, 23)


@pytest.mark.parametrize("state", ["padding", "truncation", "dropout"])
def test_what_a_tokenizers_file_switches_on_is_off(state: str, tmp_path: Path) -> None:
    saved = tokenizer_of("bytes")
    backend = saved.backend_tokenizer
    text = "The grass is green. </s> " * 20
    if state == "padding":
        backend.enable_padding(length=1000)
    elif state == "truncation":
        backend.enable_truncation(7)
    else:
        assert isinstance(backend.model, BPE)
        backend.model.dropout = 0.9
    saved.save_pretrained(tmp_path)
    content = (tmp_path / "tokenizer.json").read_text()
    assert f'"{state}": null' not in content and f'"{state}":null' not in content
    backend.no_padding()
    backend.no_truncation()
    backend.model.dropout = None
    backend.encode_special_tokens = True
    expected = backend.encode(text, add_special_tokens=False).ids
    vocabulary = pretrained_vocabulary(str(tmp_path), "main")
    (found,) = vocabulary.tokenizer.encode_batch_fast([text], add_special_tokens=False)
    assert found.ids == expected
    loaded = type(saved).from_pretrained(tmp_path)
    assert Tokenizer(loaded).encode(text) == expected

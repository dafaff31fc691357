"""Models from outside are loaded whole, decode greedily, and read a text the same, whatever their files ask for."""

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    GenerationConfig,
    LlamaForCausalLM,
)

from models.external import Source, find
from models.model_folder import fingerprint_of
from tests.test_evaluate import SIZE, folders, tokenizer_of

__all__ = ["folders"]

pytestmark = pytest.mark.slow

Change = Callable[[dict[str, Tensor]], dict[str, Tensor]]


def change(file: Path, **settings: Any) -> None:
    """Change settings in a JSON file, or write them."""
    file.write_text(json.dumps((json.loads(file.read_text()) if file.exists() else {}) | settings))


@pytest.fixture(scope="module")
def kinds(folders: Path) -> Path:
    """A folder with `llama`, `tied` (a Llama with one table), `t5` and `bart`, both with one."""
    config = LlamaForCausalLM.from_pretrained(folders / "llama").config
    config.tie_word_embeddings = True
    LlamaForCausalLM(config).save_pretrained(folders / "tied")
    sizes = {f"{part}_{name}": size for part in ("encoder", "decoder") for name, size in BART.items()}
    tokens = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2, "decoder_start_token_id": 1}
    own = BartConfig(vocab_size=SIZE, d_model=32, max_position_embeddings=600, **sizes, **tokens)
    BartForConditionalGeneration(own).save_pretrained(folders / "bart")
    tokenizer_of("bytes").save_pretrained(folders / "tied")
    tokenizer_of("bytes", ends=True).save_pretrained(folders / "bart")
    return folders


BART = {"layers": 2, "attention_heads": 4, "ffn_dim": 48}
KINDS = ["llama", "tied", "t5", "bart"]
LAST = re.compile(r"\b(layers|block)\.1\.")  # the second of two layers


def renamed(prefix: str) -> Change:
    return lambda tensors: {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


def without(part: str) -> Change:
    return lambda tensors: {name: tensor for name, tensor in tensors.items() if not re.search(part, name)}


def with_third_layer(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return tensors | {LAST.sub(r"\1.2.", name): tensor.clone() for name, tensor in tensors.items()}


def narrowed(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    name = max(tensors)
    return tensors | {name: tensors[name][:1].clone()}


def poisoned(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    name = max(tensors)
    return tensors | {name: tensors[name] * float("nan")}


MISSING, PLACELESS = "tensors are missing or of another shape, such as ", "tensors have no place in the model"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (renamed("module."), f"{MISSING}.*; its tensors begin with 'module.': save them without"),
        (renamed("_orig_mod."), f"{MISSING}.*; its tensors begin with '_orig_mod.': save them without"),
        (renamed("_fsdp_wrapped_module."), f"{MISSING}.*; its tensors begin with '_fsdp_wrapped_module.'"),
        (renamed("base_model.model."), f"{MISSING}.*; its tensors begin with 'base_model.model.'"),
        (without(LAST.pattern), MISSING),
        (without("norm"), MISSING),
        (without("embed_tokens|shared"), MISSING),
        (narrowed, MISSING),
        (lambda tensors: {"other": torch.zeros(1)}, f"{MISSING}.*; there are others, such as other"),
        (lambda tensors: tensors | {"other": torch.zeros(1)}, f"{PLACELESS} of its config.json, such as other"),
        (lambda tensors: tensors | {f"{max(tensors)}.lora_A": torch.zeros(1)}, PLACELESS),
        (with_third_layer, PLACELESS),
        (poisoned, "1 tensors hold NaN or infinite numbers"),
    ],
    ids=[
        *("data parallel", "compiled", "sharded", "adapted", "no second layer", "no norms", "no table", "narrower"),
        *("unrelated", "one unrelated", "an adapter inside", "a third layer", "NaN"),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    change: Change, message: str, kind: str, kinds: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        rewritten(kinds / kind, tmp_path / kind, change).load()
    assert "\n" not in str(caught.value)


def rewritten(folder: Path, copy: Path, change: Change) -> Source:
    """A copy of a model whose tensors are changed."""
    shutil.copytree(folder, copy)
    save_file(change(load_file(copy / "model.safetensors")), copy / "model.safetensors", {"format": "pt"})
    return find(str(copy))


@pytest.mark.parametrize("kind", KINDS)
def test_a_head_is_needed_unless_it_is_the_table(kind: str, kinds: Path, tmp_path: Path) -> None:
    """The weights of a base model, saved without its head."""
    headless = lambda tensors: {name.removeprefix("model."): x for name, x in tensors.items() if "lm_head" not in name}
    found = rewritten(kinds / kind, tmp_path / "headless", headless)
    if kind == "llama":
        with pytest.raises(ValueError, match=f"1 {MISSING}lm_head"):
            found.load()
    else:
        expected = find(str(kinds / kind)).load().state_dict()
        assert all(torch.equal(tensor, expected[name]) for name, tensor in found.load().state_dict().items())


@pytest.mark.parametrize("kind", ["tied", "bart"])
def test_a_second_table_of_a_tied_model_is_refused(kind: str, kinds: Path, tmp_path: Path) -> None:
    second = lambda tensors: tensors | {"lm_head.weight": torch.randn(SIZE, 32)}
    with pytest.raises(ValueError, match=r"ties lm_head\.weight to another tensor, but its files hold two"):
        rewritten(kinds / kind, tmp_path / kind, second).load()


def greedy(model: Any, source: Tensor, steps: int) -> Tensor:
    """The likeliest next token, `steps` times, without a cache or generate()."""
    if not model.config.is_encoder_decoder:
        tokens = source
        for _ in range(steps):
            tokens = torch.cat([tokens, model(tokens, use_cache=False).logits[:, -1:].argmax(-1)], dim=1)
        return tokens[:, source.shape[1] :]
    tokens = torch.full((len(source), 1), model.generation_config.decoder_start_token_id)
    for _ in range(steps):
        logits = model(input_ids=source, decoder_input_ids=tokens, use_cache=False).logits
        tokens = torch.cat([tokens, logits[:, -1:].argmax(-1)], dim=1)
    return tokens[:, 1:]


ASKED: dict[str, Any] = {  # what a generation_config.json may ask for, each far from greedy or from all steps
    "max_length": 18,
    "max_new_tokens": 1,
    "min_length": 40,
    "min_new_tokens": 30,
    "early_stopping": True,
    "max_time": 1e-9,
    "stop_strings": ["e", "a", " "],
    "do_sample": True,
    "num_beams": 4,
    "use_mtp": True,
    "use_cache": False,
    "cache_implementation": "static",
    "cache_config": {"backend": "quanto", "nbits": 2},
    "max_cache_len": 4,
    "temperature": 9.0,
    "top_k": 2,
    "top_p": 0.1,
    "min_p": 0.9,
    "top_h": 0.1,
    "typical_p": 0.1,
    "epsilon_cutoff": 0.5,
    "eta_cutoff": 0.5,
    "repetition_penalty": 9.0,
    "encoder_repetition_penalty": 9.0,
    "length_penalty": -9.0,
    "no_repeat_ngram_size": 1,
    "bad_words_ids": [[token] for token in range(40, 300)],
    "renormalize_logits": True,
    "forced_bos_token_id": 77,
    "forced_eos_token_id": 77,
    "remove_invalid_values": True,
    "exponential_decay_length_penalty": [1, 9.0],
    "suppress_tokens": list(range(40, 300)),
    "begin_suppress_tokens": list(range(40, 300)),
    "sequence_bias": [[[77], 99.0]],
    "token_healing": True,
    "guidance_scale": 9.0,
    "watermarking_config": {"bias": 99.0, "seeding_scheme": "selfhash"},
    "num_return_sequences": 3,
    "output_attentions": True,
    "output_hidden_states": True,
    "output_scores": True,
    "output_logits": True,
    "return_dict_in_generate": True,
    "pad_token_id": 77,
    "bos_token_id": 77,
    "eos_token_id": list(range(SIZE)),
    "encoder_no_repeat_ngram_size": 1,
    "is_assistant": True,
    "num_assistant_tokens": 3,
    "num_assistant_tokens_schedule": "heuristic",
    "assistant_confidence_threshold": 0.9,
    "prompt_lookup_num_tokens": 3,
    "max_matching_ngram_size": 2,
    "assistant_early_exit": 1,
    "assistant_lookbehind": 3,
    "target_lookbehind": 3,
    "assistant_ensemble_weight": 0.9,
    "speculation_type": "dflash",
    "disable_compile": True,
    "low_memory": True,
    "penalty_alpha": 0.9,
    "dola_layers": "high",
    "diversity_penalty": 9.0,
    "num_beam_groups": 2,
    "constraints": [[77]],
    "force_words_ids": [[77]],
    "prefill_chunk_size": 2,
}
MODEL = {"decoder_start_token_id"}
NO_CHOICE = {"transformers_version", "continuous_batching_config", "compile_config"}  # the last two are never in a file


def test_every_field_of_a_generation_config_is_tried() -> None:
    """decoder_start_token_id belongs to the model: every text begins with it."""
    fields = {name for name in vars(GenerationConfig()) if not name.startswith("_")}
    assert fields - NO_CHOICE == ASKED.keys() | MODEL


@pytest.mark.parametrize("kind", ["llama", "t5"])
def test_greedy_means_greedy_whatever_the_model_asks_for(kind: str, folders: Path, tmp_path: Path) -> None:
    source = torch.arange(4, 20).repeat(2, 1)
    model = find(str(folders / kind)).load()
    expected = greedy(model.model, source, 12)
    assert torch.equal(model.answer(source, 12, end=None), expected)
    copy = shutil.copytree(folders / kind, tmp_path / kind)
    original = {file: (copy / file).read_text() for file in ("config.json", "generation_config.json")}
    for file, text in original.items():  # config.json is where older models keep these settings
        for name, value in [*ASKED.items(), ("unheard_of", 1)]:
            (copy / file).write_text(text)
            if file == "config.json" and name in json.loads(text):
                continue
            change(copy / file, **{name: value})
            try:
                answered = find(str(copy)).load().answer(source, 12, end=None)
            except ValueError as error:  # transformers refuses a few combinations
                assert f"`{name}`" in str(error) and "\n" not in str(error)
            else:
                assert torch.equal(answered, expected), f"{name} in {file}"
        (copy / file).write_text(text)


PADDING = {"strategy": {"Fixed": 64}, "direction": "Left", "pad_id": 2, "pad_type_id": 0, "pad_token": "<pad>"}
TRUNCATION = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
ENDS = [{"SpecialToken": {"id": token, "type_id": 0}} for token in ("<s>", "</s>")]
BOTH_ENDS = {
    "type": "TemplateProcessing",
    "single": [ENDS[0], {"Sequence": {"id": "A", "type_id": 0}}, ENDS[1]],
    "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
    "special_tokens": {
        token: {"id": token, "ids": [index], "tokens": [token]} for index, token in enumerate(("<s>", "</s>"))
    },
}


def with_dropout(settings: dict[str, Any]) -> dict[str, Any]:
    return {"model": settings["model"] | {"dropout": 0.5}}


@pytest.mark.parametrize(
    ("file", "asked"),
    [
        ("tokenizer.json", {"padding": PADDING | {"pad_to_multiple_of": None}}),
        ("tokenizer.json", {"padding": PADDING | {"pad_to_multiple_of": 8, "strategy": "BatchLongest"}}),
        ("tokenizer.json", {"truncation": TRUNCATION}),
        ("tokenizer.json", {"truncation": TRUNCATION | {"direction": "Left"}}),
        ("tokenizer.json", {"post_processor": BOTH_ENDS}),
        ("tokenizer.json", with_dropout),
        ("tokenizer_config.json", {"add_bos_token": True, "add_eos_token": True}),
        ("tokenizer_config.json", {"padding_side": "left", "truncation_side": "left", "model_max_length": 4}),
        ("tokenizer_config.json", {"max_length": 4, "truncation": True, "padding": "max_length", "stride": 1}),
        ("tokenizer_config.json", {"split_special_tokens": False}),
        ("tokenizer_config.json", {"clean_up_tokenization_spaces": True}),
        ("tokenizer_config.json", {"clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output": True}),
        ("tokenizer_config.json", {"chat_template": "{{ bos_token }}{{ messages }}", "add_prefix_space": True}),
        ("tokenizer_config.json", {"return_tensors": "pt", "return_token_type_ids": True}),
    ],
)
def test_a_text_is_read_the_same_whatever_the_tokenizer_asks_for(
    file: str, asked: Any, folders: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(folders / "llama", tmp_path / "llama")
    settings = json.loads((copy / file).read_text())
    change(copy / file, **(asked(settings) if callable(asked) else asked))
    if "clean_up" in str(asked):
        change(copy / file, clean_up_tokenization_spaces=True)
    own, other = (find(str(folder)).tokenizer for folder in (folders / "llama", copy))
    for text in ("The grass is green . <s> I do n't know</s>", "", "a", "über naïve 日本語 " * 9):
        for _ in range(3):  # with dropout, each time would be another
            assert other.encode(text) == own.encode(text)
            assert other.encode_with_bytes(text) == own.encode_with_bytes(text)
        assert sum(other.encode_with_bytes(text)[1]) == len(text.encode())
        assert other.decode(own.encode(text)) == text
    assert (other.opening, other.end) == (own.opening, own.end)


def test_special_tokens_are_put_around_every_source(folders: Path) -> None:
    tokenizer = find(str(folders / "t5")).tokenizer
    for tokens in ([], [7], [7, 8, 9] * 20):
        assert tokenizer.source(tokens) == [*tokens, 1]


@pytest.mark.parametrize(
    "file",
    [
        *("model.safetensors", "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"),
        *("merges.txt", "vocab.json", "tokenizer.model", "sentencepiece.bpe.model", "source.spm", "added_tokens.json"),
    ],
)
def test_one_id_is_one_content(file: str, folders: Path, tmp_path: Path) -> None:
    """A copy is the same model; other bytes are another, even if neither size nor time says so."""
    copy = shutil.copytree(folders / "llama", tmp_path / "llama")
    if not (copy / file).exists():
        (copy / file).write_text("{} ")
    fingerprint, times = fingerprint_of(str(copy), copy), (copy / file).stat()
    again = shutil.copytree(copy, tmp_path / "again", copy_function=shutil.copyfile)
    assert fingerprint_of(str(again), again) == fingerprint
    (copy / file).write_bytes((copy / file).read_bytes()[:-1] + b"!")
    os.utime(copy / file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert fingerprint_of(str(copy), copy) != fingerprint

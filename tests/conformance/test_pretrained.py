"""The bridge to transformers: our decoders by from_pretrained and generate()."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file
from support import choices, composed, decoder, decoder_config
from tokenizers import Tokenizer
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache, PreTrainedTokenizerFast

import models.pretrained
from experiments.conformance.contracts import assert_close
from experiments.conformance.tiny import SEGMENT, VOCABULARY, WIDTH, random_tokens
from experiments.recording.record import records
from models.generation import generate
from models.pretrained import DecoderConfig, DecoderForCausalLM
from models.state import leaves, save_tensors
from tasks.data.tokens import DOCUMENT, END, train_tokenizer
from tests.conftest import ROOT, Program, tiny

pytestmark = pytest.mark.slow

CHOSEN = [("full", position) for position in choices("position")]
CHOSEN += [(name, "none") for name in choices("attention") if name != "full"]
every_choice = pytest.mark.parametrize(("attention", "position"), CHOSEN)


def saved(folder: Path, attention: str = "infini_delta", position: str = "rope") -> Any:
    """A tiny decoder that lies in `folder` too."""
    model = decoder(attention, position)
    settings = OmegaConf.to_container(decoder_config(attention, position).model, resolve=True)
    models.pretrained.save(model, settings, folder)
    return model


@every_choice
def test_a_decoder_comes_back_with_its_logits_and_generates_the_same(
    attention: str, position: str, tmp_path: Path
) -> None:
    model, prompt = saved(tmp_path, attention, position), random_tokens(3, 2 * SEGMENT + 1)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert type(loaded) is DecoderForCausalLM and loaded.dtype == torch.float64
    assert_close(loaded(prompt).logits, model(prompt)[0], 1e-12)
    written = loaded.generate(prompt, max_new_tokens=SEGMENT + 2, do_sample=False)
    assert torch.equal(written, torch.cat([prompt, generate(model, prompt, SEGMENT + 2)], dim=1))


@every_choice
def test_the_cache_carries_the_state(attention: str, position: str, tmp_path: Path) -> None:
    model, tokens = saved(tmp_path, attention, position), random_tokens(2, 3 * SEGMENT)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    first = loaded(tokens[:, :5])
    second = loaded(tokens[:, 5:], past_key_values=first.past_key_values)
    whole, state = model(tokens)
    assert_close(torch.cat([first.logits, second.logits], dim=1), whole)
    for leaf, expected in zip(leaves(second.past_key_values.layers[0].state), leaves(state), strict=True):
        assert_close(leaf, expected)
    assert second.past_key_values.get_seq_length() == 3 * SEGMENT
    assert loaded(tokens, use_cache=False).past_key_values is None


def test_tied_embeddings_are_saved_once_and_come_back_tied(tmp_path: Path) -> None:
    model = saved(tmp_path)
    tables = [name for name, tensor in load_file(tmp_path / "model.safetensors").items() if VOCABULARY in tensor.shape]
    assert tables == ["decoder.embedding.weight"]
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    with torch.no_grad():
        for table in (model.embedding.weight, loaded.get_input_embeddings().weight):
            table[3] += 1
    tokens = torch.tensor([[3, 5, 3, 3, 9]])
    assert_close(loaded(tokens).logits, model(tokens)[0], 1e-12)
    again = tmp_path / "again"
    loaded.save_pretrained(again)
    assert_close(AutoModelForCausalLM.from_pretrained(again)(tokens).logits, model(tokens)[0], 1e-12)


def test_the_loss_is_that_of_the_next_token_and_its_gradient_reaches_every_weight(tmp_path: Path) -> None:
    model, tokens = saved(tmp_path), random_tokens(2, 2 * SEGMENT)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    labels = tokens.masked_fill(tokens == tokens[0, 1], -100)
    loss = loaded(tokens, labels=labels).loss
    expected = F.cross_entropy(model(tokens)[0][:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    assert_close(loss.double(), expected, 1e-6)
    loss.backward()
    assert all(parameter.grad is not None for parameter in loaded.parameters())
    assert len(loaded(tokens, labels=labels, return_dict=False)) == 3


@pytest.mark.parametrize("settings", [{"num_beams": 3}, {"num_return_sequences": 2, "do_sample": True}], ids=str)
def test_every_way_to_decode_equals_itself_without_a_cache(settings: dict[str, Any], tmp_path: Path) -> None:
    saved(tmp_path)
    loaded, prompt = AutoModelForCausalLM.from_pretrained(tmp_path), random_tokens(2, SEGMENT + 1)
    texts = []
    for use_cache in (True, False):
        torch.manual_seed(0)
        texts.append(loaded.generate(prompt, max_new_tokens=2 * SEGMENT, use_cache=use_cache, **settings))
    assert torch.equal(*texts)


def test_a_long_prompt_is_read_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = saved(tmp_path)
    loaded, prompt, lengths = AutoModelForCausalLM.from_pretrained(tmp_path), random_tokens(1, 9000), []
    loaded.decoder.register_forward_pre_hook(lambda module, inputs: lengths.append(inputs[0].shape[1]))
    written = loaded.generate(prompt, max_new_tokens=2, do_sample=False)
    assert lengths == [4096, 4096, 808, 1]
    assert torch.equal(written[:, 9000:], model.answer(prompt, 2))


def test_padding_and_the_cache_of_another_model_are_refused(tmp_path: Path) -> None:
    saved(tmp_path)
    loaded, tokens = AutoModelForCausalLM.from_pretrained(tmp_path), random_tokens(2, 5)
    mask = torch.tensor([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1]])
    with pytest.raises(ValueError, match="a state cannot exclude padding tokens"):
        loaded(tokens, attention_mask=mask)
    with pytest.raises(ValueError, match="a state cannot exclude padding tokens"):
        loaded.generate(tokens, attention_mask=mask, max_new_tokens=1)
    cache = DynamicCache()
    cache.update(torch.zeros(2, 2, 3, 8), torch.zeros(2, 2, 3, 8), 0)
    with pytest.raises(ValueError, match="keys and values of another model"):
        loaded(tokens, past_key_values=cache)


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "torch.hub.load",
        "torch.nn.modules.module.torch.hub.load",
        "models.pretrained.torch.load",
        "models.pretrained.export",
        "models.generation.generate",
        "${oc.env:HOME}",
        7,
    ],
)
def test_a_folder_cannot_have_anything_else_called(target: Any) -> None:
    settings = OmegaConf.to_container(decoder_config("full", "rope").model, resolve=True)
    for place in (settings, settings["activation"]):  # type: ignore[index, call-overload]
        honest, place["_target_"] = place["_target_"], target
        with pytest.raises(ValueError, match="a saved model can contain only"):
            DecoderForCausalLM(DecoderConfig(model=settings, vocab_size=VOCABULARY))
        place["_target_"] = honest


@pytest.mark.parametrize("group", ["attention", "position", "feedforward", "activation"])
def test_a_folder_can_hold_every_part_that_the_configuration_offers(group: str) -> None:
    for choice in choices(group):
        settings = OmegaConf.to_container(composed("model=decoder", f"{group}={choice}").model, resolve=True)
        models.pretrained.check_targets(settings)


def test_what_is_no_decoder_is_refused() -> None:
    encoder = OmegaConf.to_container(composed("model=encoder", f"model.width={WIDTH}").model, resolve=True)
    with pytest.raises(ValueError, match="Encoder has no state"):
        DecoderForCausalLM(DecoderConfig(model=encoder, vocab_size=VOCABULARY))
    with pytest.raises(ValueError, match="has no settings under `model`"):
        DecoderForCausalLM(DecoderConfig())
    settings = OmegaConf.to_container(decoder_config("full", "none").model, resolve=True)
    with pytest.raises(ValueError, match="not divisible by the number of heads, 3"):
        DecoderForCausalLM(DecoderConfig(model={**settings, "heads": 3}, vocab_size=VOCABULARY))  # type: ignore[dict-item]


SCRIPT = """
import sys, torch, transformers
import models.pretrained
model = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1])
prompt = torch.tensor([[int(token) for token in sys.argv[2].split()]])
print(*model.generate(prompt, max_new_tokens=8, do_sample=False)[0].tolist())
assert not any(name.split(".")[0] in ("experiments", "tasks") for name in sys.modules)
"""


def in_another_process(folder: Path, prompt: torch.Tensor) -> torch.Tensor:
    """What a process that knows transformers and our models makes of a folder and a prompt."""
    command = [sys.executable, "-c", SCRIPT, str(folder), " ".join(map(str, prompt[0].tolist()))]
    offline = {**os.environ, "HF_HUB_OFFLINE": "1"}
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, env=offline)
    assert ended.returncode == 0, ended.stderr
    return torch.tensor([[int(token) for token in ended.stdout.split()]])


def test_another_process_generates_from_the_folder(tmp_path: Path) -> None:
    model, prompt = saved(tmp_path), random_tokens(1, 2 * SEGMENT + 1)
    written = in_another_process(tmp_path, prompt)
    assert torch.equal(written, torch.cat([prompt, generate(model, prompt, 8)], dim=1))


def test_a_finished_run_is_exported(program: Program, tmp_path: Path) -> None:
    run = tiny(tmp_path, "attention=infini_delta", "attention.key_value_heads=1", "tracking=none", "training.steps=2")
    assert program(*run).returncode == 0
    (record,) = records(tmp_path)
    ended = program(str(record.folder), str(tmp_path / "exported"), module="models.pretrained")
    assert ended.returncode == 0, ended.stderr
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "exported")
    trained = load_file(record.checkpoint_file)
    for name, tensor in loaded.decoder.state_dict().items():
        assert torch.equal(tensor, trained[f"model/{name}"])
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "exported")
    own = Tokenizer.from_file(str(record.folder / "tokenizer.json"))
    assert tokenizer.encode("def f(x): return 'né'") == own.encode("def f(x): return 'né'").ids
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (DOCUMENT, END)
    prompt = torch.arange(1, 10)[None]
    written = in_another_process(tmp_path / "exported", prompt)
    assert torch.equal(written[:, 9:], generate(loaded.decoder, prompt, 8))


def test_an_export_begins_and_ends_as_its_documents_do(tmp_path: Path) -> None:
    """A prompt may begin with the first token of a document, and generate() stops at the next one, or at an end."""
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=train_tokenizer(["a b"], 259), **models.pretrained.SPECIAL)
    settings: Any = OmegaConf.to_container(decoder_config("full", "rope").model, resolve=True)
    models.pretrained.save(decoder("full", "rope"), settings, tmp_path, tokenizer)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    prompt = torch.tensor([[DOCUMENT, 5, END, 7, DOCUMENT], [DOCUMENT, 8, 9, 7, 6]])
    assert loaded.generate(prompt, max_new_tokens=3, min_new_tokens=3, do_sample=False).shape == (2, 8)
    assert AutoTokenizer.from_pretrained(tmp_path).pad_token_id != DOCUMENT
    for last in (DOCUMENT, END):
        favour = lambda module, inputs, output, last=last: output.logits[..., last].fill_(1e9) and None
        hook = loaded.register_forward_hook(favour)
        assert loaded.generate(prompt[1:], max_new_tokens=9, do_sample=False)[0, 5:].tolist() == [last]
        hook.remove()


def test_a_cache_of_other_rows_is_refused(tmp_path: Path) -> None:
    saved(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    cache = loaded(random_tokens(2, 5)).past_key_values
    with pytest.raises(ValueError, match="the state is of 2 sequences and the prompt has 3"):
        loaded(random_tokens(3, 5), past_key_values=cache)


def test_what_cannot_be_exported_is_told_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def told(folder: Path) -> str:
        assert models.pretrained.main([str(folder), str(tmp_path / "exported")]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ")
        return line

    assert "is not the folder of a finished run" in told(tmp_path)
    (tmp_path / "status.json").write_text(json.dumps({"status": "failed"}))
    assert "is not the folder of a finished run" in told(tmp_path)
    (tmp_path / "status.json").write_text(json.dumps({"status": "finished"}))
    (tmp_path / "config.yaml").write_text("model: {_target_: torch.nn.Identity}")
    assert "checkpoint.safetensors" in told(tmp_path)
    (tmp_path / "checkpoint.safetensors").write_bytes(b"half of it")
    assert "is damaged" in told(tmp_path)
    (tmp_path / "checkpoint.safetensors").unlink()
    save_tensors(tmp_path / "checkpoint.safetensors", {"model/weight": torch.zeros(2)})
    assert "has trained no decoder" in told(tmp_path)
    assert models.pretrained.main([]) == 2

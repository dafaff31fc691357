"""Infini-attention in a Llama: the original's outputs while the gates are shut, and Infini-attention's else."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from support import composed
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from experiments.conformance.contracts import assert_close
from experiments.conformance.tiny import SEGMENT, VOCABULARY, noise, random_tokens
from experiments.recording.record import Record
from experiments.training.loop import parameter_groups, train
from models.attention.infini import Infini
from models.infini_llama import InfiniLlamaAttention, InfiniLlamaForCausalLM, LlamaDecoder
from models.pretrained import add_infini
from models.state import leaves, load_state, save_state
from tasks.base import Evaluation

pytestmark = pytest.mark.slow

SHUT = -60.0
SCALED = {"rope_type": "llama3", "rope_theta": 10_000.0, "factor": 4.0, "low_freq_factor": 1.0}
SCALED |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 8}
KINDS: dict[str, dict[str, Any]] = {
    "heads of their own": {},
    "two share": {"num_key_value_heads": 2},
    "all share": {"num_key_value_heads": 1},
    "wide heads": {"num_key_value_heads": 2, "head_dim": 12},
    "biases": {"attention_bias": True},
    "tied": {"tie_word_embeddings": True},
    "scaled rotary": {"rope_parameters": SCALED},
    "eager": {"attn_implementation": "eager"},
}
EXACT = {kind: 1e-12 for kind in KINDS} | {"eager": 1e-5}  # eager attention takes its softmax in float32
every_kind = pytest.mark.parametrize("kind", KINDS)
every_update = pytest.mark.parametrize("update", ["linear", "delta"])


def small_llama(kind: str = "two share", **settings: Any) -> LlamaForCausalLM:
    """A random Llama in float64, with biases that are not zero."""
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    names = {"vocab_size": VOCABULARY, "bos_token_id": None, "eos_token_id": None, "initializer_range": 0.2}
    torch.manual_seed(0)
    llama = LlamaForCausalLM(LlamaConfig(**{**sizes, **names, **KINDS[kind], **settings})).double().eval()
    with torch.no_grad():
        for name, parameter in llama.named_parameters():
            if name.endswith("bias"):
                parameter.normal_()
    return llama


@every_update
@every_kind
@pytest.mark.parametrize("length", [1, 9, 16])
def test_with_gates_shut_one_segment_equals_the_original(kind: str, update: Any, length: int) -> None:
    llama, tokens = small_llama(kind), random_tokens(2, length)
    expected = llama(tokens).logits
    assert_close(add_infini(llama, 16, update, SHUT)(tokens).logits, expected, EXACT[kind])


@every_kind
def test_with_gates_open_or_more_segments_it_does_not(kind: str) -> None:
    tokens = random_tokens(2, 20)
    expected = small_llama(kind)(tokens).logits
    changed = (add_infini(small_llama(kind), SEGMENT)(tokens).logits - expected).abs().amax(dim=(0, 2))
    assert changed[:SEGMENT].max() < EXACT[kind] and changed[SEGMENT:].min() > 1e-3


@every_update
@every_kind
def test_longer_sequences_equal_our_own_infini_attention(kind: str, update: Any) -> None:
    model, x = add_infini(small_llama(kind), SEGMENT, update, 0.5), noise(2, 4 * SEGMENT + 3, 32)
    theirs: Any = model.model.layers[1].self_attn
    width, shared = theirs.heads * theirs.head_width, theirs.key_value_heads
    ours = Infini(width, theirs.heads, SEGMENT, update, 0.5, shared).double()
    if width != 32:
        ours.output = torch.nn.Linear(width, 32, bias=False).double()
    projections = [theirs.q_proj, theirs.k_proj, theirs.v_proj]
    with torch.no_grad():
        ours.output.weight.copy_(theirs.o_proj.weight)
    if kind == "biases":
        ours.output.bias = theirs.o_proj.bias

    def project(x: Any) -> Any:
        return [part(x).unflatten(2, (-1, ours.head_width)).transpose(1, 2) for part in projections]

    ours.project = project  # type: ignore[method-assign]
    assert_close(theirs(x)[0], ours(x, theirs.position)[0])


@every_update
@every_kind
def test_cached_pieces_equal_the_whole(kind: str, update: Any) -> None:
    """To the precision of the Llama's angles, which are float32."""
    model, tokens = add_infini(small_llama(kind), SEGMENT, update), random_tokens(2, 3 * SEGMENT + 2)
    whole = model(tokens, use_cache=True)
    for sizes in ([1] * 14, [3, 1, 7, 3]):
        cache, parts = None, []
        for start, end in pairwise([0, *torch.tensor(sizes).cumsum(0).tolist()]):
            output = model(tokens[:, start:end], past_key_values=cache, use_cache=True)
            cache = output.past_key_values
            parts.append(output.logits)
        assert_close(torch.cat(parts, dim=1), whole.logits, 1e-5)
        for layer, expected in zip(cache.layers, whole.past_key_values.layers, strict=True):
            for leaf, other in zip(leaves(layer.state), leaves(expected.state), strict=True):
                assert_close(leaf, other, 1e-5)
        assert cache.layers[0].state.memory.shape[1] == model.config.num_key_value_heads


@every_kind
@pytest.mark.parametrize("settings", [{}, {"num_beams": 3}, {"prefill_chunk_size": 3}], ids=str)
def test_generate_carries_the_state(kind: str, settings: dict[str, int]) -> None:
    model, prompt = add_infini(small_llama(kind), SEGMENT), random_tokens(3, 2 * SEGMENT + 1)
    written = model.generate(prompt, max_new_tokens=SEGMENT + 2, do_sample=False, **settings)
    plain = {name: value for name, value in settings.items() if name == "num_beams"}
    expected = model.generate(prompt, max_new_tokens=SEGMENT + 2, do_sample=False, use_cache=False, **plain)
    assert torch.equal(written, expected)


def test_the_weights_are_the_originals_own_and_each_query_head_has_a_gate() -> None:
    llama = small_llama()
    before = dict(llama.named_parameters())
    model = add_infini(llama, SEGMENT, initial_gate=0.25)
    after = dict(model.named_parameters())
    assert all(after[name] is parameter for name, parameter in before.items())
    added = after.keys() - before.keys()
    assert added == {f"model.layers.{index}.self_attn.gate" for index in range(2)}
    assert all(torch.equal(after[name], torch.full((4,), 0.25).double()) for name in added)


@every_kind
def test_it_comes_back_from_a_folder_with_the_same_outputs(kind: str, tmp_path: Path) -> None:
    model, tokens = add_infini(small_llama(kind), SEGMENT, "linear", 0.5), random_tokens(2, 3 * SEGMENT + 1)
    with torch.no_grad():
        for index, layer in enumerate(model.model.layers):
            layer.self_attn.gate += torch.arange(4) - index  # type: ignore[union-attr, operator]
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert type(loaded) is InfiniLlamaForCausalLM and loaded.config.memory_update == "linear"
    assert_close(loaded(tokens).logits, model(tokens).logits, 1e-12)


def test_the_folder_of_a_llama_gains_gates_as_it_is_read(tmp_path: Path) -> None:
    llama, tokens = small_llama(), random_tokens(2, 3 * SEGMENT + 1)
    llama.save_pretrained(tmp_path)
    loaded = InfiniLlamaForCausalLM.from_pretrained(tmp_path, segment_length=SEGMENT, initial_gate=0.5)
    assert_close(loaded(tokens).logits, add_infini(llama, SEGMENT, initial_gate=0.5)(tokens).logits, 1e-12)


def test_a_step_of_training_moves_gates_and_weights() -> None:
    model, tokens = LlamaDecoder(add_infini(small_llama(), SEGMENT)).train(), random_tokens(2, 4 * SEGMENT)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    decayed, plain, gates = parameter_groups(model, composed().training.groups)
    expected = [layer.self_attn.gate for layer in model.llama.model.layers]
    assert [id(gate) for gate in gates["params"]] == [id(gate) for gate in expected]
    assert gates["weight_decay"] == 0 and gates["lr"] == 0.03
    optimizer = torch.optim.AdamW([decayed, plain, gates], lr=1e-3)
    logits, _ = model(tokens[:, :-1])
    F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).backward()
    assert all(float(gate.grad.abs().max()) > 1e-4 for gate in expected)
    optimizer.step()
    assert not any(torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())


class Counting:
    """A task of the loop: to count on, from step to step, with the state carried along."""

    model_arguments = {"vocabulary_size": VOCABULARY}  # noqa: RUF012, of no instance's own
    length = 3 * SEGMENT

    def batch(self, step: int) -> dict[str, Tensor]:
        count = torch.arange(step * self.length, (step + 1) * self.length + 1) + torch.tensor([[0], [5]])
        return {"tokens": count[:, :-1] % VOCABULARY, "targets": count[:, 1:] % VOCABULARY}

    def loss(self, model: Any, batch: dict[str, Tensor], state: Any) -> tuple[Tensor, Any]:
        logits, state = model(batch["tokens"], state)
        return F.cross_entropy(logits.flatten(0, 1), batch["targets"].flatten()), state

    def evaluate(self, model: Any) -> Evaluation:
        return Evaluation({"loss": float(self.loss(model, self.batch(100), None)[0])})


def trained(folder: Path, steps: int, kind: str) -> LlamaDecoder:
    """A Llama with Infini-attention after so many steps of the loop, from the checkpoint on if there is one."""
    folder.mkdir(exist_ok=True)
    model = LlamaDecoder(add_infini(small_llama(kind), SEGMENT))
    optimizer = torch.optim.AdamW(parameter_groups(model, composed().training.groups), lr=3e-3)
    settings = {"steps": steps, "evaluate_at": [0], "checkpoint_every": 4, "log_every": 1, "clip": 1.0}
    constant = lambda step, steps: 1.0
    console = Console(quiet=True)
    train(model, Counting(), optimizer, constant, settings, "fp32", Record(folder), None, console)
    return model


@pytest.mark.parametrize("kind", ["two share", "tied"])
def test_the_loop_trains_it_further_and_goes_on_from_a_checkpoint(kind: str, tmp_path: Path) -> None:
    whole = trained(tmp_path / "whole", 12, kind)
    trained(tmp_path / "cut", 6, kind)
    resumed = trained(tmp_path / "cut", 12, kind)
    for (name, parameter), other in zip(resumed.named_parameters(), whole.parameters(), strict=True):
        assert torch.equal(parameter, other), name
    losses = [row["loss"] for row in Record(tmp_path / "whole").metrics() if "loss" in row]
    assert losses[-1] < losses[0] - 0.5
    gates = torch.stack([layer.self_attn.gate for layer in whole.llama.model.layers])  # type: ignore[union-attr, arg-type]
    assert (gates.abs() > 0.01).all()


def test_behind_the_calls_of_a_decoder_it_is_the_same_model(tmp_path: Path) -> None:
    llama, tokens = add_infini(small_llama(), SEGMENT), random_tokens(2, 3 * SEGMENT + 2)
    model = LlamaDecoder(llama)
    first, state = model(tokens[:, :6])
    save_state(tmp_path / "state.safetensors", state)
    second, state = model(tokens[:, 6:], load_state(tmp_path / "state.safetensors", model, 2))
    assert_close(torch.cat([first, second], dim=1), llama(tokens).logits, 1e-5)
    assert int(state.seen) == 3 * SEGMENT + 2
    assert_close(model(tokens[:, :6], target=tokens[:, 6:])[0], llama(tokens).logits[:, 5:-1], 1e-10)
    written = llama.generate(tokens, max_new_tokens=5, do_sample=False)
    assert torch.equal(written[:, 3 * SEGMENT + 2 :], model.answer(tokens, 5))


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("two share", {"attention_dropout": 0.1}, "no attention dropout"),
        (
            "two share",
            {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}},
            "rope_type=dynamic",
        ),
    ],
)
def test_what_a_llama_cannot_keep_is_refused(kind: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        add_infini(small_llama(kind, **settings), SEGMENT)


def test_wrong_settings_and_models_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one token, not 0"):
        add_infini(small_llama(), 0)
    with pytest.raises(ValueError, match="linear or delta, not quadratic"):
        add_infini(small_llama(), SEGMENT, "quadratic")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="not to a InfiniLlamaForCausalLM"):
        add_infini(add_infini(small_llama(), SEGMENT), SEGMENT)


@every_kind
def test_padding_is_refused(kind: str) -> None:
    model, tokens = add_infini(small_llama(kind), SEGMENT), random_tokens(2, 5)
    mask = torch.tensor([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1]])
    with pytest.raises(ValueError, match="a state cannot exclude padding tokens"):
        model(tokens, attention_mask=mask)
    assert isinstance(model.model.layers[0].self_attn, InfiniLlamaAttention)
    assert_close(model(tokens, attention_mask=torch.ones_like(mask)).logits, model(tokens).logits)

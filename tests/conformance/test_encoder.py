"""The encoder looks both ways under every position scheme, and learns from what is hidden from it alone."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hydra
import numpy as np
import pytest
import torch
from support import choices, composed, decoder
from test_tasks import Books

from experiments.config.errors import ConfigError
from experiments.conformance.contracts import assert_close
from experiments.conformance.tiny import HEADS, VOCABULARY, WIDTH, noise, random_tokens, shake
from experiments.training.checks import check_causal
from models.initialization import initialize
from models.positions.relative import RelativeBias
from tasks.masked_language_modeling import MaskedLanguageModeling
from tasks.scoring import IGNORED

every_position = pytest.mark.parametrize("position", choices("position"))


def encoder(position: str, layers: int = 2) -> Any:
    size = [f"model.width={WIDTH}", f"model.heads={HEADS}", f"model.layers={layers}"]
    config = composed("model=encoder", f"position={position}", "extension=2", "trained_length=1024", *size)
    model = hydra.utils.instantiate(config.model, vocabulary_size=VOCABULARY)
    initialize(model, 0)
    shake(model)
    return model.double()


def test_a_model_that_sees_what_it_predicts_is_refused() -> None:
    task = SimpleNamespace(predicts_next=True, length=64, model_arguments={"vocabulary_size": VOCABULARY})
    check_causal(decoder(), task)
    check_causal(encoder("rope"), SimpleNamespace())
    with pytest.raises(ConfigError, match="sees the tokens that it is to predict"):
        check_causal(encoder("rope"), task)


@pytest.mark.slow
@every_position
def test_every_token_sees_every_other(position: str) -> None:
    model, tokens = encoder(position), random_tokens(1, 9)
    for place in (0, 4, 8):
        other = tokens.clone()
        other[0, place] = (other[0, place] + 1) % VOCABULARY
        assert (model(other)[0] != model(tokens)[0]).any(dim=-1).all()


@pytest.mark.slow
@every_position
def test_without_positions_and_only_then_permuted_tokens_give_permuted_outputs(position: str) -> None:
    model, tokens = encoder(position), random_tokens(2, 9)
    order = torch.tensor([3, 7, 0, 5, 1, 6, 2, 4, 8])
    same = torch.allclose(model(tokens[:, order])[0], model(tokens)[0][:, order], rtol=0, atol=1e-10)
    assert same == (position == "none")


@every_position
def test_before_and_after_are_told_apart(position: str) -> None:
    """A sequence read backwards is another one; ALiBi's penalty is symmetric, and cannot tell."""
    model, tokens = encoder(position), random_tokens(2, 9)
    same = torch.allclose(model(tokens.flip(1))[0].flip(1), model(tokens)[0], rtol=0, atol=1e-10)
    assert same == (position in ("none", "alibi"))


@pytest.mark.slow
@pytest.mark.parametrize(("buckets", "max_distance"), [(32, 128), (8, 20), (16, 64)])
def test_buckets_of_both_directions_equal_those_of_t5(buckets: int, max_distance: int) -> None:
    from transformers.models.t5.modeling_t5 import T5Attention

    distance = torch.arange(-3000, 3000)
    scheme = RelativeBias(WIDTH, HEADS, buckets, max_distance, causal=False)
    expected = T5Attention._relative_position_bucket(-distance, True, buckets, max_distance)
    assert torch.equal(scheme.prepare(distance), expected)


@every_position
def test_the_fused_attention_equals_the_plain_one(position: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokens = encoder(position), random_tokens(2, 18)
    plain = model(tokens)[0]
    monkeypatch.setattr("models.attention.base.SHORT", 0)
    with torch.no_grad():
        assert_close(model(tokens)[0], plain)


def masked(cache: Path, **settings: Any) -> MaskedLanguageModeling:
    given = {"length": 8, "batch_size": 4, "vocabulary_size": 270, "evaluation_tokens": 400}
    return MaskedLanguageModeling(Books(), seed=0, cache=str(cache), **(given | settings))


def test_fifteen_percent_are_asked_for_and_hidden_as_bert_hides_them(tmp_path: Path) -> None:
    task = masked(tmp_path, length=200, batch_size=200)
    batch, rows = task.batch(0), np.full((200, 200), 5)
    batch = task.hide(rows, np.random.default_rng(0))
    asked = batch["targets"] != IGNORED
    assert float(asked.double().mean()) == pytest.approx(0.15, abs=0.01)
    assert (batch["targets"][asked] == 5).all() and (batch["tokens"][~asked] == 5).all()
    shown = batch["tokens"][asked]
    assert float((shown == task.mask).double().mean()) == pytest.approx(0.8, abs=0.02)
    assert float((shown == 5).double().mean()) == pytest.approx(0.1, abs=0.02)
    assert shown.max() == task.mask == task.model_arguments["vocabulary_size"] - 1


def test_only_hidden_tokens_count_in_the_loss(tmp_path: Path) -> None:
    task = masked(tmp_path)
    batch = task.batch(3)
    assert all(torch.equal(batch[name], task.batch(3)[name]) for name in batch)  # a function of the step
    assert not torch.equal(batch["tokens"], task.batch(4)["tokens"])
    logits = noise(4, 8, task.mask + 1)
    loss, _ = task.loss(lambda tokens: (logits, None), batch, None)
    chances, asked = torch.log_softmax(logits, dim=-1), batch["targets"] != IGNORED
    assert float(loss) == pytest.approx(-float(chances[asked].gather(1, batch["targets"][asked][:, None]).mean()))


def test_every_model_is_asked_for_the_same_tokens(tmp_path: Path) -> None:
    class Guess(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bias = torch.nn.Parameter(torch.zeros(task.mask + 1))
            self.read: list[torch.Tensor] = []

        def forward(self, tokens: torch.Tensor) -> tuple[torch.Tensor, None]:
            self.read.append(tokens)
            return self.bias.expand(*tokens.shape, -1), None

    task, other = masked(tmp_path), masked(tmp_path)
    first, second = Guess(), Guess()
    found = task.evaluate(first)
    assert found.metrics["masked/loss"] == pytest.approx(float(np.log(task.mask + 1)), rel=1e-6)
    other.seed = 7
    other.evaluate(second)
    assert all(torch.equal(a, b) for a, b in zip(first.read, second.read, strict=True))

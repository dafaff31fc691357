"""What the backward pass computes again: the same bytes, in less memory, for every mechanism."""

from typing import Any

import pytest
import torch
from support import INFINI, choices, composed, decoder
from torch import Tensor, nn

from experiments.benchmarks import peers
from experiments.config.build import build
from experiments.config.errors import ConfigError
from experiments.conformance.contracts import assert_close
from experiments.conformance.tiny import SEGMENT, VOCABULARY, noise, random_tokens
from experiments.cost.memory import step_bytes
from experiments.measurements.tensor_memory import peak_bytes
from experiments.recording.record import essential_settings
from experiments.training import checks
from models.attention import infini
from models.functions import RMSNorm
from models.recomputation import recompute_layers

LENGTH = 4 * SEGMENT + 1


def gradients(model: nn.Module) -> list[Tensor]:
    """Logits of two pieces of a text, and the gradient of every weight, also through the state between them."""
    tokens, importance = random_tokens(2, LENGTH), noise(2, LENGTH, VOCABULARY)
    first, state = model(tokens[:, : LENGTH // 2])
    logits = torch.cat([first, model(tokens[:, LENGTH // 2 :], state)[0]], dim=1)
    return [logits, *torch.autograd.grad((logits * importance).sum(), list(model.parameters()))]


@pytest.mark.slow
@pytest.mark.parametrize("attention", choices("attention"))
def test_recomputed_layers_give_the_same_bytes(attention: str) -> None:
    model = decoder(attention)
    kept = gradients(model)
    assert recompute_layers(model) == len(model.blocks)
    assert all(map(torch.equal, gradients(model), kept))


@pytest.mark.parametrize("attention", INFINI)
def test_memories_that_are_computed_again_are_the_same(attention: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = decoder(attention, "rope")
    found = gradients(model)
    monkeypatch.setattr(infini, "recomputed", lambda function, *arguments: function(*arguments))
    assert all(map(torch.equal, gradients(model), found))


def training_peak(segment: int, length: int, recompute: bool = False) -> int:
    """The peak bytes of a training step of Infini-attention on 1,024 tokens in rows of this length."""
    model = peers.ours(32, segment, "attention=infini_delta")
    if recompute:
        recompute_layers(model)
    tokens = peers.text(length)[: 1024 // length]
    return peak_bytes(peers.next_token(model, tokens, "fp32"))


def test_longer_rows_need_no_more_memory_and_recomputed_layers_less(monkeypatch: pytest.MonkeyPatch) -> None:
    assert training_peak(64, 1024) < 1.02 * training_peak(64, 128)
    again = training_peak(64, 1024)
    assert training_peak(64, 1024, recompute=True) < 0.9 * again
    monkeypatch.setattr(infini, "recomputed", lambda function, *arguments: function(*arguments))
    assert again < 0.95 * training_peak(64, 1024)


class Task:
    """Has batches and a loss, of which a step is made."""

    def batch(self, step: int) -> dict[str, Tensor]:
        return {"tokens": torch.zeros(4, 256, dtype=torch.long)}

    def loss(self, model: nn.Module, batch: dict[str, Tensor], state: None) -> tuple[Tensor, None]:
        return model(batch["tokens"])[0].logsumexp(-1).sum(), None


def deep_decoder(device: str) -> Any:
    """A decoder of eight layers."""
    config = composed("model.width=64", "model.heads=2", "model.layers=8")
    with torch.device(device):
        return build(config.model, vocabulary_size=64)


def recomputed_on_meta(**training: Any) -> bool:
    """Whether a step of the deep decoder is recomputed with these settings of the training."""
    return checks.is_recomputed(deep_decoder("meta"), Task(), {"model": 0, "task": {}, "training": training}, "fp32")


@pytest.mark.parametrize("asked", [None, False, True])
def test_layers_are_recomputed_where_a_step_would_not_fit(asked: bool | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "known", {})
    assert recomputed_on_meta(recompute=asked) is bool(asked)
    assert not recomputed_on_meta(recompute=False)
    whole = max(step.saved for step in checks.known.values())
    monkeypatch.setattr(checks, "free_bytes", lambda: 0.7 * whole)
    if asked is False:
        with pytest.raises(ConfigError, match="GB are free: choose a smaller model"):
            recomputed_on_meta(recompute=asked)
    else:
        assert recomputed_on_meta(recompute=asked)
    monkeypatch.setattr(checks, "free_bytes", lambda: 0.1 * whole)
    with pytest.raises(ConfigError, match="GB are free: choose a smaller model"):
        recomputed_on_meta(recompute=asked)


def test_what_is_foreseen_is_what_a_recomputed_step_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Within a factor of two, as for steps that keep everything."""
    model, foreseen = deep_decoder("cpu"), list[Any]()
    recompute_layers(model)
    real = peak_bytes(lambda: Task().loss(model, Task().batch(0), None)[0].backward())
    monkeypatch.setattr(checks, "step_bytes", lambda *given: foreseen.append(step_bytes(*given)) or 0)
    recomputed_on_meta(recompute=True)
    assert real / 2 < foreseen[-1] < 2 * real


def test_a_model_without_layers_is_named() -> None:
    config = {"model": 1, "task": {}, "training": {"recompute": True}}
    with pytest.raises(ConfigError, match="recompute=true needs a model with layers, such as model=decoder"):
        checks.is_recomputed(nn.Linear(8, 8, device="meta"), Task(), config, "fp32")


def test_a_run_is_the_same_run_with_it() -> None:
    config = {"training": {"steps": 1}}
    assert essential_settings({"training": {"steps": 1, "recompute": True}}) == essential_settings(config)


@pytest.mark.parametrize("model", ["bart", "primera"])
def test_encoder_decoders_are_recomputed(model: str) -> None:
    config = composed("experiment=summarization", "scale=smoke", f"model={model}")
    made = build(config.model, vocabulary_size=300, padding=0)
    source, target = torch.arange(60)[None] % 300, torch.arange(9)[None]
    kept = torch.autograd.grad(made(source, target=target)[0].sum(), list(made.parameters()), allow_unused=True)
    assert recompute_layers(made) == made.model.config.encoder_layers + made.model.config.decoder_layers
    again = torch.autograd.grad(made(source, target=target)[0].sum(), list(made.parameters()), allow_unused=True)
    assert all(x is y is None or torch.equal(x, y) for x, y in zip(kept, again))


def test_the_norm_is_torchs() -> None:
    """With its gradients, which are our own."""
    ours, torchs = RMSNorm(5).double(), nn.RMSNorm(5).double()
    with torch.no_grad():
        torchs.weight.copy_(ours.weight.copy_(noise(5)))
    results = []
    for norm in (ours, torchs):
        x = noise(3, 7, 5, seed=1).requires_grad_()
        y = norm(x)
        results.append([y, *torch.autograd.grad((y * noise(3, 7, 5, seed=2)).sum(), [x, norm.weight])])
    for own, other in zip(*results):
        assert_close(own, other)

"""Training over gaps: what is skipped counts as read, its gradient arrives, and evaluation skips nothing."""

from typing import Any

import numpy as np
import pytest
import torch
from support import INFINI, choices, task_decoder
from torch import Tensor

from experiments.conformance.contracts import assert_close
from models.state import leaves
from tasks.passkey import Passkey, words

SEGMENT = 64
GAPS = [{"steps": 10, "shortest": 4, "doublings": 0, "gap": 20_000}]


def passkey(**settings: Any) -> Passkey:
    given = {"seed": 0, "tokens_per_batch": 4096, "stages": GAPS, "language_weight": 0.0, "prompts": 2}
    return Passkey(segment_length=SEGMENT, evaluation_lengths=[256, 512], **(given | settings))


def decoder(attention: str, layers: int = 1) -> Any:
    """A small decoder; only its last layer reads its memory."""
    model = task_decoder(passkey(), attention, f"model.layers={layers}")
    for block in model.blocks[:-1]:
        if attention in INFINI:
            block.attention.gate.data.fill_(-torch.inf)
    return model


def beginning_and_period(task: Passkey) -> tuple[Tensor, Tensor]:
    """Two segments of a prompt, and the period of filler that follows them."""
    prompt = torch.from_numpy(task.prompt(2 * SEGMENT + task.period + 200, 54321, 2 * SEGMENT + task.period))[None]
    return prompt[:, : 2 * SEGMENT], prompt[:, 2 * SEGMENT : 2 * SEGMENT + task.period]


@pytest.mark.slow
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize(("attention", "tolerance"), [("infini_linear", 1e-9), ("infini_delta", 0.05)])
def test_what_is_skipped_is_what_reading_writes(attention: str, tolerance: float, layers: int) -> None:
    """Exactly with the linear update, also in its gradient; with the delta rule near it."""
    model, (beginning, period) = decoder(attention, layers), beginning_and_period(passkey())
    _, state = model(beginning)
    skipped = model.skip(state, model.period(period), torch.tensor([12.0]))
    _, read = model(torch.cat([beginning, *[period] * 12], dim=1))
    for own, expected in zip(leaves(skipped.layers), leaves(read.layers), strict=True):
        assert (own - expected).norm() <= tolerance * expected.norm()
    if attention == "infini_linear":
        weights = [block.attention.query_key_value.weight for block in model.blocks]
        found = [torch.autograd.grad(end.layers[-1].memory.square().mean(), weights) for end in (skipped, read)]
        for gradient, expected in zip(*found):
            assert expected.any()
            assert_close(gradient, expected, 1e-9)


def test_the_loss_over_gaps_is_that_of_the_whole_prompt() -> None:
    task, model = passkey(), decoder("infini_linear")
    batch = {name: tensor[:3] for name, tensor in task.batch(3).items()}
    assert (batch["times"] > 0).any()
    read = []
    for row in range(3):
        cuts, filler = batch["cuts"][row].tolist(), batch["skipped"][row]
        first, second, third = batch["prompt"][row].tensor_split(cuts)
        before, after = (filler.repeat(int(times)) for times in batch["times"][row])
        whole = {"prompt": torch.cat([first, before, second, after, third])[None], "answer": batch["answer"][row, None]}
        read.append(task.loss(model, whole, None)[0])
    loss, _ = task.loss(model, batch, None)
    assert_close(loss, torch.stack(read).mean(), 1e-9)
    gradients = [torch.autograd.grad(value, list(model.parameters())) for value in (loss, torch.stack(read).mean())]
    for gradient, expected in zip(*gradients):
        assert_close(gradient, expected, 1e-7)


@pytest.mark.parametrize("wording", ["infini", "landmark"])
def test_gaps_lie_in_filler_at_the_ends_of_segments(wording: str) -> None:
    task = passkey(wording=wording)
    names = {token: word for word, token in task.identifiers.items()}
    longest, without = 0.0, []
    for step in range(50):
        batch = task.batch(step)
        longest = max(longest, float(batch["times"].max()))
        without.append(float((batch["times"].sum(dim=1) == 0).float().mean()))
        for prompt, cuts, times in zip(*(batch[name] for name in ("prompt", "cuts", "times"))):
            assert not (cuts % SEGMENT).any() and 0 < cuts[0] < cuts[1] < len(prompt)
            digits = np.flatnonzero([names[int(token)].isdigit() for token in prompt])
            sentence = range(digits[0] - 4, digits[-1] + 1 + len(words(" is the pass key.")))
            for cut, often in zip(cuts.tolist(), times.tolist()):
                inside = cut in sentence[1:] or cut < len(task.introduction) or cut > len(prompt) - len(task.question)
                assert not (inside and often)
    assert 0.2 * 20_000 / task.period < longest <= 20_000 / task.period
    assert 0.25 < np.mean(without) < 0.75


@pytest.mark.slow
@pytest.mark.parametrize("attention", [name for name in choices("attention") if name not in INFINI])
def test_other_mechanisms_read_the_short_prompt(attention: str) -> None:
    task, model = passkey(), decoder(attention)
    batch = {name: tensor[:2] for name, tensor in task.batch(3).items()}
    tokens = torch.cat([batch["prompt"], batch["answer"]], dim=1)[:, :-1]
    assert_close(task.logits(model, tokens, batch), model(tokens)[0], 1e-9)


def test_evaluation_reads_every_token(monkeypatch: pytest.MonkeyPatch) -> None:
    task, model = passkey(prompts=1, control_length=256), decoder("infini_delta")

    def refuse(*anything: Any) -> None:
        raise AssertionError("filler was skipped")

    monkeypatch.setattr(model, "skip", refuse)
    monkeypatch.setattr(model, "period", refuse)
    tokens, forward = [], model.forward
    monkeypatch.setattr(model, "forward", lambda x, *rest: (tokens.append(x.numel()), forward(x, *rest))[1])
    task.evaluate(model)
    asked = 3 * sum(task.evaluation_lengths) + 3 * 256  # with memory on, and off
    asked += 256 + task.period  # to see whether the state grows
    assert sum(tokens) == asked
    with pytest.raises(AssertionError, match="skipped"):
        task.loss(model, task.batch(0), None)


@pytest.mark.parametrize("wrong", [{"shortest": 2}, {"gap": 100}])
def test_a_stage_that_has_no_room_for_gaps_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="at least 3 segments and gaps of at least 192 tokens"):
        passkey(stages=[GAPS[0] | wrong])

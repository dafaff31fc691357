"""What holds for every attention with every position scheme: causality, one result however it is fed, bounded state."""

from itertools import product
from typing import Any

import hydra
import pytest
import torch
from hydra.errors import InstantiationException
from support import INFINI, PAIRS, UNFIT, choices, composed, decoder, reach, state_floats

from experiments.conformance.contracts import (
    PIECES,
    assert_a_state_is_a_value,
    assert_cached_generation_equals_the_whole,
    assert_causal,
    assert_close,
    assert_pieces_equal_the_whole,
    assert_rows_do_not_meet,
)
from experiments.conformance.tiny import HEADS, LAYERS, SEGMENT, SMALL, VOCABULARY, WIDTH, noise, random_tokens, shake
from models.initialization import initialize

every_attention = pytest.mark.parametrize("attention", choices("attention"))
every_pair = pytest.mark.parametrize(("attention", "position"), PAIRS)
HEAD = WIDTH // HEADS
GROWING = {"full", "reformer"}  # attentions whose state holds every token
FILLING = {"compressive", "memorizing"}  # those whose memory takes some segments to be full


@pytest.mark.slow
@every_pair
@pytest.mark.parametrize("changed", [SEGMENT, SEGMENT + 2, 2 * SEGMENT - 1], ids=["first", "inside", "last"])
def test_no_token_changes_a_logit_before_it(attention: str, position: str, changed: int) -> None:
    assert_causal(decoder(attention, position), changed)


@pytest.mark.slow
@pytest.mark.parametrize(("feedforward", "activation"), list(product(choices("feedforward"), choices("activation"))))
def test_no_token_changes_a_logit_before_it_through_the_feed_forward(feedforward: str, activation: str) -> None:
    assert_causal(decoder(feedforward=feedforward, activation=activation), SEGMENT + 1)


@pytest.mark.slow
@every_pair
def test_rows_of_a_batch_do_not_meet(attention: str, position: str) -> None:
    assert_rows_do_not_meet(decoder(attention, position))


@pytest.mark.slow
@every_pair
def test_a_state_is_a_value(attention: str, position: str) -> None:
    assert_a_state_is_a_value(decoder(attention, position))


@pytest.mark.slow
@every_pair
@pytest.mark.parametrize("pieces", PIECES.values(), ids=PIECES)
def test_pieces_equal_the_whole(attention: str, position: str, pieces: list[int]) -> None:
    assert_pieces_equal_the_whole(decoder(attention, position), pieces)


@pytest.mark.slow
@every_pair
def test_fused_attention_equals_the_plain_operations(
    attention: str, position: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few keys are attended to by plain operations, for some queries (here: 5) at a time, many by torch's kernel."""
    model, tokens, importance = decoder(attention, position), random_tokens(2, 18), noise(2, 18, VOCABULARY)
    results = []
    for short, chunk in ((512, 512), (512, 5), (0, 512)):
        monkeypatch.setattr("models.attention.base.SHORT", short)
        monkeypatch.setattr("models.attention.base.CHUNK", chunk)
        _, state = model(tokens[:, :7])
        whole, rest = model(tokens)[0], model(tokens[:, 7:], state)[0]
        score = (whole * importance).sum() + (rest * importance[:, 7:]).sum()
        results.append([whole, rest, *torch.autograd.grad(score, list(model.parameters()))])
    for plain, chunked, fused in zip(*results, strict=True):
        assert_close(chunked, plain, 1e-8)
        assert_close(fused, plain, 1e-8)


@pytest.mark.slow
@every_pair
@pytest.mark.parametrize("length", [SEGMENT - 1, SEGMENT, 2 * SEGMENT + 2])
def test_cached_generation_equals_generation_from_scratch(attention: str, position: str, length: int) -> None:
    assert_cached_generation_equals_the_whole(decoder(attention, position), length)


@pytest.mark.slow
@every_attention
def test_what_prompts_have_in_common_is_read_once(attention: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.generation.PREFILL", SEGMENT)
    model, prompt = decoder(attention), random_tokens(3, 3 * SEGMENT + 3)
    prompt[:, : 2 * SEGMENT + 2] = prompt[0, : 2 * SEGMENT + 2]
    alone = torch.cat([model.answer(row[None], SEGMENT) for row in prompt])
    read, forward = [], model.forward
    monkeypatch.setattr(model, "forward", lambda tokens, *rest: (read.append(tokens.shape), forward(tokens, *rest))[1])
    assert torch.equal(model.answer(prompt, SEGMENT), alone)
    assert read[0] == (1, 2 * SEGMENT) and read[1] == (3, SEGMENT + 3)


@pytest.mark.slow
@every_pair
def test_a_target_is_scored_after_its_source(attention: str, position: str) -> None:
    model, text = decoder(attention, position), random_tokens(2, 3 * SEGMENT)
    scored, _ = model(text[:, :5], target=text[:, 5:])
    assert_close(scored, model(text)[0][:, 4:-1])


@pytest.mark.parametrize(("attention", "position"), UNFIT)
def test_a_pair_that_cannot_work_is_refused_as_it_is_built(attention: str, position: str) -> None:
    with pytest.raises(InstantiationException, match=r"no scores.* choose position="):
        decoder(attention, position)


@pytest.mark.slow
@every_attention
def test_the_bytes_of_carried_state_do_not_grow(attention: str) -> None:
    """From the first segment on, or from when the memory is full."""
    model, tokens, first = decoder(attention), random_tokens(1, 1003 * SEGMENT), 16 if attention in FILLING else 4
    with torch.no_grad():
        after = {n: state_floats(model(tokens[:, :n])[1]) for n in (first, first + 3, 4000, 4003)}
    grown = after[4000] > after[first] or after[4003] > after[first + 3]
    assert grown == (attention in GROWING)


@pytest.mark.slow
@every_attention
def test_the_state_has_the_size_of_the_papers_table(attention: str) -> None:
    """d_key (d_value + 1) H l for Infini-attention, (d_key + d_value) H N l for kept keys and values.

    The table counts the hidden states of the Compressive Transformer, d_model (c + N) l; here keys and values are kept,
    which is twice that. For RMT it counts the memory tokens' keys and values in every layer, 2 d_model p l; what is
    carried from segment to segment is d_model p. Memorizing Transformers have a cache in all layers, a memory in one.
    """
    token = 2 * HEAD * HEADS  # the floats of a key and a value
    formulas = {
        "full": token * 5 * SEGMENT * LAYERS,
        "reformer": token * 5 * SEGMENT * LAYERS,
        "window": token * (SEGMENT - 1) * LAYERS,
        "transformer_xl": token * SEGMENT * LAYERS,
        "compressive": 2 * WIDTH * (SEGMENT + SEGMENT) * LAYERS,
        "memorizing": token * SEGMENT * LAYERS + token * SEGMENT,
        "recurrent_memory": WIDTH * SMALL["memory_tokens"],
    }
    formulas |= dict.fromkeys([*INFINI, "linear"], HEAD * (HEAD + 1) * HEADS * LAYERS)
    _, state = decoder(attention)(random_tokens(1, 5 * SEGMENT))
    assert state_floats(state) == formulas[attention]


@pytest.mark.slow
@pytest.mark.parametrize("pieces", [19, 1, 5])
@pytest.mark.parametrize(("segment", "memory"), [(4, 4), (4, 2), (2, 4), (3, 5), (5, 3), (1, 3), (6, 1), (2, 7)])
def test_transformer_xl_reaches_its_segment_and_its_memory(segment: int, memory: int, pieces: int) -> None:
    overrides = (f"attention.segment_length={segment}", f"attention.memory_length={memory}")
    model = decoder("transformer_xl", "none", *overrides)
    time = torch.arange(19)
    earliest = time // segment * segment - memory
    expected = (time[:, None] <= time) & (time[:, None] >= earliest)
    assert torch.equal(reach(model, 19, pieces), expected)


@pytest.mark.parametrize("pieces", [19, 1, 5])
@pytest.mark.parametrize("window", [1, 2, 5, 30])
def test_a_window_reaches_exactly_so_many_tokens(window: int, pieces: int) -> None:
    model = decoder("window", "none", f"attention.window={window}")
    distance = torch.arange(19) - torch.arange(19)[:, None]
    assert torch.equal(reach(model, 19, pieces), (distance >= 0) & (distance < window))


@pytest.mark.parametrize("attention", ["full", "linear", *INFINI])
def test_everything_before_is_in_reach(attention: str) -> None:
    assert torch.equal(reach(decoder(attention), 19, 7), torch.ones(19, 19).triu().bool())


@pytest.mark.slow
@every_pair
def test_every_pair_runs_under_autocast(attention: str, position: str) -> None:
    model, tokens = decoder(attention, position).float(), random_tokens(2, 3 * SEGMENT + 1)
    with torch.autocast("cpu", torch.bfloat16):
        first, state = model(tokens[:, :7])
        second, _ = model(tokens[:, 7:], state)
    together, exact = torch.cat([first, second], dim=1).float(), model(tokens)[0]
    assert together.isfinite().all()
    far = (together - exact).abs() > 0.3 + 0.1 * exact.abs()
    assert float(far.float().mean()) <= (0.1 if attention == "reformer" else 0)  # rounding turns a token's bucket


@pytest.fixture
def bart() -> Any:
    sizes = ("width=16", "heads=2", "encoder_layers=1", "decoder_layers=1", "window=8")
    config = composed("model=bart", *(f"model.{size}" for size in sizes))
    model = hydra.utils.instantiate(config.model, vocabulary_size=VOCABULARY)
    initialize(model, 0)
    shake(model)
    return model.double().eval()


@pytest.mark.slow
def test_bart_sees_no_target_before_it_is_written(bart: Any) -> None:
    source, target = random_tokens(2, 6) % 20 + 3, random_tokens(2, 6, seed=1)
    others = torch.cat([target[:, :3], (target[:, 3:] + 1) % VOCABULARY], dim=1)
    before, after = bart(source, target=target)[0], bart(source, target=others)[0]
    assert torch.equal(before[:, :4], after[:, :4])  # the fourth logits are of the first changed token
    assert (before[:, 4] != after[:, 4]).any(dim=-1).all()


def test_bart_writes_what_it_scores_highest(bart: Any) -> None:
    source = random_tokens(4, 6) % 20 + 3
    written = torch.empty(4, 0, dtype=torch.long)
    for _ in range(5):
        scores = bart(source, target=torch.cat([written, source[:, :1]], dim=1))[0]
        written = torch.cat([written, scores[:, -1:].argmax(dim=-1)], dim=1)
    assert torch.equal(bart.answer(source, 5, end=VOCABULARY - 1), written)


def test_bart_reads_its_window_and_no_padding(bart: Any) -> None:
    source, target = random_tokens(2, 12) % 20 + 3, random_tokens(2, 4, seed=1)
    scores = bart(source, target=target)[0]
    padded = torch.cat([torch.zeros(2, 3, dtype=torch.long), source], dim=1)
    assert_close(bart(padded, target=target)[0], scores)
    assert_close(bart(source[:, :8], target=target)[0], scores)
    assert not torch.equal(bart(source[:, :7], target=target)[0], scores)

"""What holds for every attention with every position scheme: causality, one result however it is fed, bounded state."""

from itertools import product
from typing import Any

import hydra
import pytest
import torch
from hydra.errors import InstantiationException
from support import (
    HEADS,
    INFINI,
    LAYERS,
    PAIRS,
    PIECES,
    SEGMENT,
    UNFIT,
    VOCABULARY,
    WIDTH,
    assert_cached_generation_equals_the_whole,
    assert_causal,
    assert_close,
    assert_pieces_equal_the_whole,
    choices,
    composed,
    decoder,
    noise,
    random_tokens,
    shake,
    state_floats,
)
from torch import Tensor

from models.initialization import initialize
from models.positions import Position
from models.state import leaves

every_attention = pytest.mark.parametrize("attention", choices("attention"))
every_pair = pytest.mark.parametrize(("attention", "position"), PAIRS)
HEAD = WIDTH // HEADS
GROWING = {"full"}  # attentions whose state holds every token


@every_pair
@pytest.mark.parametrize("changed", [SEGMENT, SEGMENT + 2, 2 * SEGMENT - 1], ids=["first", "inside", "last"])
def test_no_token_changes_a_logit_before_it(attention: str, position: str, changed: int) -> None:
    assert_causal(decoder(attention, position), changed)


@pytest.mark.parametrize(("feedforward", "activation"), list(product(choices("feedforward"), choices("activation"))))
def test_no_token_changes_a_logit_before_it_through_the_feed_forward(feedforward: str, activation: str) -> None:
    assert_causal(decoder(feedforward=feedforward, activation=activation), SEGMENT + 1)


@every_pair
def test_rows_of_a_batch_do_not_meet(attention: str, position: str) -> None:
    model, tokens = decoder(attention, position), random_tokens(3, 4 * SEGMENT + 1)
    alone = torch.cat([model(row[None])[0] for row in tokens])
    assert_close(model(tokens)[0], alone)


@every_pair
def test_a_state_is_a_value(attention: str, position: str) -> None:
    """A call neither changes the state it is given nor leaves anything in the model."""
    model = decoder(attention, position)
    _, state = model(random_tokens(2, 2 * SEGMENT + 1))
    copies = [leaf.clone() for leaf in leaves(state)]
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    tokens = random_tokens(2, SEGMENT + 2, seed=1)
    first = model(tokens, state)[0]
    model(random_tokens(3, 3 * SEGMENT, seed=2))
    assert torch.equal(model(tokens, state)[0], first)
    assert all(torch.equal(leaf, copy) for leaf, copy in zip(leaves(state), copies, strict=True))
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())
    assert not list(model.buffers())


@every_pair
@pytest.mark.parametrize("pieces", PIECES.values(), ids=PIECES)
def test_pieces_equal_the_whole(attention: str, position: str, pieces: list[int]) -> None:
    assert_pieces_equal_the_whole(decoder(attention, position), pieces)


@every_pair
def test_fused_attention_equals_the_plain_operations(
    attention: str, position: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few keys are attended to by plain operations, many (here: any) by torch's fused kernel."""
    model, tokens, importance = decoder(attention, position), random_tokens(2, 18), noise(2, 18, VOCABULARY)
    results = []
    for short in (512, 0):
        monkeypatch.setattr("models.attention.base.SHORT", short, raising=False)
        _, state = model(tokens[:, :7])
        whole, rest = model(tokens)[0], model(tokens[:, 7:], state)[0]
        score = (whole * importance).sum() + (rest * importance[:, 7:]).sum()
        results.append([whole, rest, *torch.autograd.grad(score, list(model.parameters()))])
    for plain, fused in zip(*results, strict=True):
        assert_close(fused, plain, 1e-8)


@every_pair
@pytest.mark.parametrize("length", [SEGMENT - 1, SEGMENT, 2 * SEGMENT + 2])
def test_cached_generation_equals_generation_from_scratch(attention: str, position: str, length: int) -> None:
    assert_cached_generation_equals_the_whole(decoder(attention, position), length)


@every_pair
def test_a_target_is_scored_after_its_source(attention: str, position: str) -> None:
    model, text = decoder(attention, position), random_tokens(2, 3 * SEGMENT)
    scored, _ = model(text[:, :5], target=text[:, 5:])
    assert_close(scored, model(text)[0][:, 4:-1])


@pytest.mark.parametrize(("attention", "position"), UNFIT)
def test_a_pair_that_cannot_work_is_refused_as_it_is_built(attention: str, position: str) -> None:
    with pytest.raises(InstantiationException, match=r"no scores .* choose position="):
        decoder(attention, position)


@every_attention
def test_the_bytes_of_carried_state_do_not_grow(attention: str) -> None:
    model, tokens = decoder(attention), random_tokens(1, 1003 * SEGMENT)
    with torch.no_grad():
        after = {length: state_floats(model(tokens[:, :length])[1]) for length in (4, 7, 4000, 4003)}
    grown = after[4000] > after[4] or after[4003] > after[7]
    assert grown == (attention in GROWING)


@every_attention
def test_the_state_has_the_size_of_the_papers_table(attention: str) -> None:
    """d_key (d_value + 1) H l for Infini-attention, (d_key + d_value) H N l for kept keys and values."""
    formulas = {
        "full": 2 * HEAD * 5 * SEGMENT,
        "window": 2 * HEAD * (SEGMENT - 1),
        "transformer_xl": 2 * HEAD * SEGMENT,
    }
    formulas |= dict.fromkeys([*INFINI, "linear"], HEAD * (HEAD + 1))
    _, state = decoder(attention)(random_tokens(1, 5 * SEGMENT))
    assert state_floats(state) == formulas[attention] * HEADS * LAYERS


def reach(model: Any, length: int, pieces: int) -> Tensor:
    """Which token (first index) changes which output (second index) of the first attention."""
    x = noise(1, length, WIDTH).expand(length, -1, -1)
    changed = x + torch.eye(length).double()[:, :, None]
    state, parts = None, []
    for piece in torch.cat([x[:1], changed]).split(pieces, dim=1):
        y, state = model.blocks[0].attention(piece, Position(WIDTH, HEADS), state)
        parts.append(y)
    y = torch.cat(parts, dim=1)
    return ((y[1:] - y[:1]).abs() > 1e-12).any(dim=-1)


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


@every_pair
def test_every_pair_runs_under_autocast(attention: str, position: str) -> None:
    model, tokens = decoder(attention, position).float(), random_tokens(2, 3 * SEGMENT + 1)
    with torch.autocast("cpu", torch.bfloat16):
        first, state = model(tokens[:, :7])
        second, _ = model(tokens[:, 7:], state)
    together = torch.cat([first, second], dim=1).float()
    torch.testing.assert_close(together, model(tokens)[0], rtol=0.1, atol=0.3)


@pytest.fixture
def bart() -> Any:
    sizes = ("width=16", "heads=2", "encoder_layers=1", "decoder_layers=1", "window=8")
    config = composed("model=bart", *(f"model.{size}" for size in sizes))
    model = hydra.utils.instantiate(config.model, vocabulary_size=VOCABULARY)
    initialize(model, 0)
    shake(model)
    return model.double().eval()


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

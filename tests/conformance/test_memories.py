"""The memories that Infini-attention is compared with, each against a loop written straight from its paper."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hydra.errors import InstantiationException
from support import choices, composed, decoder, default_decoder, reach
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.conformance.contracts import assert_close
from experiments.conformance.tiny import SEGMENT, VOCABULARY, WIDTH, noise, random_tokens
from experiments.training.loop import parameter_groups
from models.attention.compressive import Compressive
from models.attention.memorizing import Memorizing
from models.attention.reformer import Reformer, rotations
from models.attention.transformer_xl import TransformerXL
from models.generation import read_prompt
from models.positions import Position
from models.recurrent_memory import RecurrentMemory

pytestmark = pytest.mark.slow

every_position = pytest.mark.parametrize("position", choices("position"))
MEMORIES = ["compressive", "memorizing", "recurrent_memory"]
LENGTH = 27


def attended(position: Position, Q: Tensor, K: Tensor, V: Tensor, head: int, visible: Tensor | None = None) -> Tensor:
    """softmax(QKᵀ/√d) V for the last tokens Q of one head, with K at consecutive places up to the last one's.

    visible (Tq, Tk): which keys a query sees, if not all up to its own.
    """
    query_places, key_places = torch.arange(len(K) - len(Q), len(K)), torch.arange(len(K))
    rotated_Q, rotated_K = position.rotate(Q[None, None], query_places), position.rotate(K[None, None], key_places)
    scores = (rotated_Q @ rotated_K.transpose(2, 3))[0, 0] / Q.shape[1] ** 0.5
    heads = (t.expand(1, position.heads, -1, -1) for t in (rotated_Q, rotated_K))
    bias = position.bias(*heads, query_places, key_places)
    if bias is not None:
        scores = scores + bias.flatten(0, -3)[head]
    visible = query_places[:, None] >= key_places if visible is None else visible
    return torch.softmax(scores.masked_fill(~visible, -torch.inf), dim=-1) @ V


def loop(attention: Any, x: Tensor, projection: nn.Linear, one_head: Callable[..., Tensor]) -> Tensor:
    """y (B, T, width), where one_head(Q, K, V, head) gives (T, d) from each (T, d), one row and head after the other.

    projection: of Q, K and V, or of as many as one_head takes.
    """
    weights = projection.weight.view(-1, attention.heads, attention.head_width, WIDTH)
    rows = [
        torch.cat([one_head(*(row @ part[head].T for part in weights), head) for head in range(attention.heads)], dim=1)
        for row in x
    ]
    return torch.stack(rows) @ attention.output.weight.T


@every_position
@pytest.mark.parametrize(
    ("segment", "memory", "compressed", "rate"), [(4, 4, 4, 2), (4, 2, 3, 2), (2, 5, 3, 1), (6, 3, 2, 3), (4, 8, 1, 4)]
)
def test_compressive_equals_its_loop(position: str, segment: int, memory: int, compressed: int, rate: int) -> None:
    scheme, x = decoder("full", position).position, noise(2, LENGTH, WIDTH)
    attention = Compressive(WIDTH, 2, segment, memory, compressed, rate).double()

    def one_head(Q: Tensor, K: Tensor, V: Tensor, head: int) -> Tensor:
        pieces = []
        for start in range(0, LENGTH, segment):
            slots = range(0, max(0, start - memory), rate)[-compressed:]
            here, kept = slice(start, start + segment), slice(max(0, start - memory), start + segment)
            seen = [torch.stack([*(t[i : i + rate].mean(dim=0) for i in slots), *t[kept]]) for t in (K, V)]
            pieces.append(attended(scheme, Q[here], *seen, head))
        return torch.cat(pieces)

    expected = loop(attention, x, attention.query_key_value, one_head)
    assert_close(attention(x, scheme)[0], expected)
    first, state = attention(x[:, :11], scheme)
    assert_close(torch.cat([first, attention(x[:, 11:], scheme, state)[0]], dim=1), expected)


@pytest.mark.parametrize("pieces", [19, 1, 5])
@pytest.mark.parametrize(("memory", "compressed", "rate"), [(4, 4, 2), (4, 1, 4), (2, 3, 1)])
def test_compressive_reaches_its_memory_and_what_was_compressed(
    memory: int, compressed: int, rate: int, pieces: int
) -> None:
    lengths = {"memory_length": memory, "compressed_length": compressed, "rate": rate}
    model = decoder("compressive", "none", *(f"attention.{key}={value}" for key, value in lengths.items()))
    time = torch.arange(19)
    earliest = time // SEGMENT * SEGMENT - memory - compressed * rate
    assert torch.equal(reach(model, 19, pieces), (time[:, None] <= time) & (time[:, None] >= earliest))


@pytest.mark.parametrize("lengths", [(6, 4, 4, 4), (4, 6, 4, 4)])
def test_a_compression_that_cuts_a_segment_or_memory_is_refused(lengths: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"=6 must be a multiple of the compression's rate=4"):
        Compressive(WIDTH, 2, *lengths)


@every_position
@pytest.mark.parametrize(
    ("segment", "cache", "memory", "neighbours"),
    [(4, 4, 8, 2), (4, 2, 30, 3), (3, 5, 4, 1), (2, 1, 5, 9), (5, 0, 7, 2)],
)
def test_memorizing_equals_its_loop(position: str, segment: int, cache: int, memory: int, neighbours: int) -> None:
    scheme, x = decoder("full", position).position, noise(2, LENGTH, WIDTH)
    attention = Memorizing(WIDTH, 2, segment, cache, memory, neighbours).double()
    nn.init.normal_(attention.gate)

    def one_head(Q: Tensor, K: Tensor, V: Tensor, head: int) -> Tensor:
        gate, pieces = torch.sigmoid(attention.gate[head]), []
        for start in range(0, LENGTH, segment):
            kept = max(0, start - cache)
            here, seen = slice(start, start + segment), slice(kept, start + segment)
            y = attended(scheme, Q[here], K[seen], V[seen], head)
            for offset, query in enumerate(Q[here]):
                score = {i: float(query @ K[i]) for i in range(max(0, kept - memory), kept)}
                if best := sorted(score, key=score.__getitem__, reverse=True)[:neighbours]:
                    found = torch.softmax(K[best] @ query / len(query) ** 0.5, dim=0) @ V[best]
                    y[offset] = gate * found + (1 - gate) * y[offset]
            pieces.append(y)
        return torch.cat(pieces)

    with torch.no_grad():
        expected = loop(attention, x, attention.query_key_value, one_head)
        assert_close(attention(x, scheme)[0], expected)
        first, state = attention(x[:, :11], scheme)
        assert_close(torch.cat([first, attention(x[:, 11:], scheme, state)[0]], dim=1), expected)


def test_no_gradient_enters_the_memory_of_the_nearest() -> None:
    """The last token's output depends on what the memory holds and sends no gradient there; its query gets one."""
    attention, x = Memorizing(WIDTH, 2, 4, 4, 12, neighbours=12).double(), noise(1, 20, WIDTH).requires_grad_()
    plain = Position(WIDTH, 2)
    (gradient,) = torch.autograd.grad(attention(x, plain)[0][:, -1].square().sum(), x)
    assert gradient[0].any(dim=-1).tolist() == [False] * 12 + [True] * 8
    with torch.no_grad():
        attention.gate.fill_(60.0)  # the memory alone
    parts = attention.query_key_value.weight
    (gradient,) = torch.autograd.grad(attention(x, plain)[0][:, -1].square().sum(), parts)
    assert [bool(part.any()) for part in gradient.split(WIDTH)] == [True, False, False]


@pytest.mark.parametrize("pieces", [19, 1, 5])
@pytest.mark.parametrize("memory", [1, 6, 30])
def test_the_nearest_are_sought_in_the_newest_tokens_before_the_cache(memory: int, pieces: int) -> None:
    settings = (f"attention.memory_length={memory}", "attention.neighbours=30")
    model, time = decoder("memorizing", "none", *settings, layers=1), torch.arange(19)
    earliest = time // SEGMENT * SEGMENT - SEGMENT - memory
    assert torch.equal(reach(model, 19, pieces), (time[:, None] <= time) & (time[:, None] >= earliest))


@pytest.mark.parametrize(("layers", "index"), [(1, 0), (2, 1), (3, 2), (4, 2), (12, 8)])
def test_one_layer_has_a_memory(layers: int, index: int) -> None:
    """The 9th of 12, as in the paper's code."""
    kinds = [type(block.attention) for block in decoder("memorizing", layers=layers).blocks]
    assert kinds == [Memorizing if layer == index else TransformerXL for layer in range(layers)]


def test_the_gate_of_the_memory_can_move_and_has_its_own_rate() -> None:
    model, tokens = default_decoder("memorizing"), random_tokens(4, 129)
    F.cross_entropy(model(tokens[:, :-1])[0].flatten(0, 1), tokens[:, 1:].flatten()).backward()
    (gate,) = (parameter for name, parameter in model.named_parameters() if name.endswith("gate"))
    assert gate.shape == (model.blocks[-1].attention.heads,)
    assert float(gate.grad.abs().max()) > 1e-4
    group = parameter_groups(model, composed().training.groups)[-1]
    assert group["params"] == [gate] and group["weight_decay"] == 0 and group["lr"] == 0.03


@every_position
@pytest.mark.parametrize(("buckets", "rounds", "chunk"), [(4, 2, 256), (8, 1, 5), (2, 3, 1), (32, 4, 7)])
def test_reformer_equals_its_loop(
    position: str, buckets: int, rounds: int, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.attention.reformer.CHUNK", chunk)
    scheme, x = decoder("full", position).position, noise(2, LENGTH, WIDTH)
    attention = Reformer(WIDTH, 2, buckets, rounds).double()

    def one_head(Q: Tensor, V: Tensor, head: int) -> Tensor:
        K = Q / Q.square().mean(dim=1, keepdim=True).sqrt()
        visible = torch.zeros(LENGTH, LENGTH, dtype=torch.bool)
        for R in rotations(2, rounds, WIDTH // 2, buckets // 2)[head].double():
            bucket = [int(torch.cat([query @ R, -query @ R]).argmax()) for query in Q]
            for i in range(LENGTH):
                for j in range(i):
                    visible[i, j] |= bucket[i] == bucket[j]
        for i in range(LENGTH):
            visible[i, i] = not visible[i].any()
        return attended(scheme, Q, K, V, head, visible)

    expected = loop(attention, x, attention.query_value, one_head)
    assert_close(attention(x, scheme)[0], expected)
    first, state = attention(x[:, :11], scheme)
    assert_close(torch.cat([first, attention(x[:, 11:], scheme, state)[0]], dim=1), expected)


def test_reformer_has_an_even_number_of_buckets() -> None:
    with pytest.raises(ValueError, match="5 is odd"):
        Reformer(WIDTH, 2, buckets=5, rounds=1)


@every_position
def test_recurrent_memory_equals_its_loop(position: str) -> None:
    """[memory, segment, memory] through the blocks, without a cache; what is written is read next."""
    model, tokens = decoder("recurrent_memory", position), random_tokens(2, LENGTH)
    memory = model.first_memory.weight.expand(2, -1, -1)
    count, outputs = memory.shape[1], []
    for segment in tokens.split(SEGMENT, dim=1):
        x = torch.cat([memory, model.embedding(segment), memory], dim=1)
        x = model.position.embed(x, torch.arange(x.shape[1]))
        for block in model.blocks:
            x, _ = block(x, model.position, None)
        outputs.append(model.logits(x[:, count:-count]))
        memory = model.norm(x[:, -count:]) / WIDTH**0.5
    assert_close(model(tokens)[0], torch.cat(outputs, dim=1))


@pytest.mark.parametrize("piece", [1, SEGMENT, 7 * SEGMENT])
@pytest.mark.parametrize("truncation", ["null", "1", "2", "3"])
def test_gradient_of_recurrent_memory_reaches_as_many_segments_as_asked(truncation: str, piece: int) -> None:
    """From every segment to all before it, back to the last cut; the memory it starts from gets it from there only."""
    model, tokens = decoder("recurrent_memory", "rope", f"model.truncation={truncation}"), random_tokens(1, 7 * SEGMENT)
    embedded: list[Tensor] = []
    model.embedding.register_forward_hook(lambda module, inputs, output: embedded.append(output))
    state, parts = None, []
    for part in tokens.split(piece, dim=1):
        logits, state = model(part, state)
        parts.append(logits)
    outputs = torch.cat(parts, dim=1).split(SEGMENT, dim=1)
    cut = 7 if truncation == "null" else int(truncation)
    for index, output in enumerate(outputs):
        inputs = [model.first_memory.weight, *embedded]
        first, *found = torch.autograd.grad(output.square().sum(), inputs, retain_graph=True, allow_unused=True)
        start = index // cut * cut
        zeros = [torch.zeros_like(x) if gradient is None else gradient for x, gradient in zip(embedded, found)]
        reached = torch.cat(zeros, dim=1)[0].any(dim=-1).view(7, SEGMENT).all(dim=1)
        assert reached.tolist() == [start <= segment <= index for segment in range(7)]
        assert (first is not None and bool(first.any())) == (start == 0)


def test_everything_before_reaches_through_recurrent_memory() -> None:
    model, tokens = decoder("recurrent_memory"), random_tokens(1, 6 * SEGMENT)
    others = torch.cat([(tokens[:, :1] + 1) % VOCABULARY, tokens[:, 1:]], dim=1)
    assert ((model(tokens)[0] - model(others)[0]).abs().amax(dim=-1) > 1e-9).all()


def test_recurrent_memory_stays_bounded() -> None:
    """The root mean square of a memory token is that of the norm's weights, over √width as an embedding's."""
    model = decoder("recurrent_memory", shaken=False)
    with torch.no_grad():
        _, state = model(random_tokens(1, 500 * SEGMENT))
    assert_close(state.memory.square().sum(dim=-1), torch.ones(1, state.memory.shape[1]).double(), 1e-4)


def test_recurrent_memory_needs_places_for_its_tokens() -> None:
    with pytest.raises(InstantiationException, match="need 10 positions and the position scheme has 9"):
        decoder("recurrent_memory", "learned", "position.max_length=9")
    model = decoder("recurrent_memory", "learned", "position.max_length=10")
    assert isinstance(model, RecurrentMemory) and model.limit is None
    assert model(random_tokens(1, 100))[0].isfinite().all()


@pytest.mark.parametrize("attention", MEMORIES)
def test_generation_depends_on_the_first_segment_of_a_long_prompt(attention: str) -> None:
    model, prompt = decoder(attention, "rope", layers=1), random_tokens(16, 3 * SEGMENT)
    other = torch.cat([(prompt[:, :SEGMENT] + 1) % VOCABULARY, prompt[:, SEGMENT:]], dim=1)
    for piece in (5, SEGMENT, 4096):
        scores, others = (read_prompt(model, tokens, piece)[0] for tokens in (prompt, other))
        assert ((scores - others).abs().amax(dim=-1) > 1e-9).any()

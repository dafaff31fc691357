"""Infini-attention's compressive memory: its equations, its gate, its gradient, its precision, and what it may see."""

import math
from collections.abc import Iterator
from functools import partial
from itertools import accumulate
from typing import Any

import hydra
import pytest
import torch
from omegaconf.errors import InterpolationResolutionError
from support import INFINI, Shifted, choices, composed, decoder, default_decoder
from torch import Tensor
from torch.nn import functional as F

from experiments.config.choices import CONF
from experiments.conformance.contracts import assert_close
from experiments.conformance.tiny import LAYERS, SEGMENT, noise, random_tokens
from experiments.training.loop import parameter_groups
from models.attention.infini import Infini
from models.generation import read_prompt
from models.positions import Position

pytestmark = pytest.mark.slow

every_infini = pytest.mark.parametrize("attention", INFINI)
every_position = pytest.mark.parametrize("position", choices("position"))
GATES_OPEN, GATES_SHUT = 60.0, -60.0  # sigmoid(±60) is 1 or 0 to 26 digits


def reference(attention: Infini, position: Position, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Equations 6-11 as printed, one row, one head and one segment after the other: y, and M and z at the end."""
    heads, d = attention.heads, attention.head_width
    weights = attention.query_key_value.weight.view(3, heads, d, -1)
    outputs, memories, normalizers = [], [], []
    for row in range(len(x)):
        for head in range(heads):
            A, M, z = one_head(attention, position, x[row], weights[:, head], head)
            outputs.append(A)
            memories.append(M)
            normalizers.append(z)
    y, M, z = (torch.stack(parts).unflatten(0, (len(x), heads)) for parts in (outputs, memories, normalizers))
    return y.transpose(1, 2).flatten(2) @ attention.output.weight.T, M, z  # eq. 11


def one_head(
    attention: Infini, position: Position, x: Tensor, weights: Tensor, head: int
) -> tuple[Tensor, Tensor, Tensor]:
    """A (T, d) of equation 10 for one row x (T, width), with M (d, d) and z (d,) after its last full segment."""
    d, gate, pieces = attention.head_width, torch.sigmoid(attention.gate[head]), []
    M, z = x.new_zeros(d, d), x.new_zeros(d)
    for segment in x.split(attention.segment_length):
        Q, K, V = (segment @ weight.T for weight in weights)
        σQ, σK = (attention.sigma(t) for t in (Q, K))
        A = local(position, Q, K, head) @ V
        if pieces:  # nothing is stored before: the first segment is local attention alone
            A = gate * (σQ @ M) / (σQ @ z)[:, None] + (1 - gate) * A  # eq. 7 and 10
        if len(segment) == attention.segment_length:
            known = (σK @ M) / (σK @ z)[:, None] if attention.update == "delta" and pieces else 0
            M, z = M + σK.T @ (V - known), z + σK.sum(dim=0)  # eq. 8, and 9 for delta
        pieces.append(A)
    return torch.cat(pieces), M, z


def local(position: Position, Q: Tensor, K: Tensor, head: int) -> Tensor:
    """softmax(QKᵀ/√d) of equation 6 under the causal mask, with the positions of one segment."""
    places = torch.arange(len(Q))
    rotated_Q, rotated_K = (position.rotate(t[None, None], places)[0, 0] for t in (Q, K))
    scores = rotated_Q @ rotated_K.T / Q.shape[1] ** 0.5
    bias = position.bias(*(t.expand(1, position.heads, -1, -1) for t in (Q, K)), places, places)
    if bias is not None:
        scores = scores + bias.flatten(0, -3)[head]
    return torch.softmax(scores.masked_fill(places[:, None] < places, -torch.inf), dim=-1)


@every_position
@every_infini
def test_every_layer_row_and_head_equals_the_equations(attention: str, position: str) -> None:
    model, calls = decoder(attention, position), []
    for block in model.blocks:
        block.attention.register_forward_hook(lambda module, inputs, output: calls.append((module, inputs[0], output)))
    model(random_tokens(3, 4 * SEGMENT + 2))
    assert len(calls) == LAYERS
    for module, x, (y, state) in calls:
        expected, memory, normalizer = reference(module, model.position, x)
        assert_close(y, expected)
        assert_close(state.memory, memory)
        assert_close(state.normalizer, normalizer)


@every_infini
@pytest.mark.parametrize("sigma", ["elu", "softplus"])
def test_every_sigma_equals_the_equations_with_it(attention: str, sigma: str) -> None:
    model, x = decoder(attention, "rope", f"attention.sigma={sigma}"), noise(2, 4 * SEGMENT + 2, 16)
    module, t = model.blocks[0].attention, torch.tensor([-2.0, 0.0, 3.0]).double()
    formulas = {
        "elu": [math.exp(-2), 1, 4],
        "softplus": [math.log1p(math.exp(v)) for v in (-2, 0, 3)],
    }
    assert_close(module.sigma(t), torch.tensor(formulas[sigma], dtype=torch.float64))
    assert_close(module(x, model.position)[0], reference(module, model.position, x)[0])


@every_infini
@pytest.mark.parametrize("truncation", [1, 3, 8, None])
def test_gradient_stops_where_truncation_says(attention: str, truncation: int | None) -> None:
    """Through the memory a segment sees those before it of its own block of so many, and of all without truncation."""
    setting = "null" if truncation is None else truncation
    model, x = decoder(attention, "none", f"attention.truncation={setting}"), noise(1, 8 * SEGMENT, 16).requires_grad_()
    whole = decoder(attention, "none").blocks[0].attention(x, model.position)[0]
    y, _ = model.blocks[0].attention(x, model.position)
    assert_close(y, whole)  # values do not change
    for segment in range(8):
        (gradient,) = torch.autograd.grad(y[:, (segment + 1) * SEGMENT - 1].square().sum(), x, retain_graph=True)
        reached = gradient[0].view(8, SEGMENT, -1).abs().amax(dim=(1, 2)) > 1e-9
        first = 0 if truncation is None else segment // truncation * truncation
        assert reached.tolist() == [first <= other <= segment for other in range(8)]


@every_infini
def test_gradients_equal_those_of_the_equations(attention: str) -> None:
    """Through the memory's write path too, of every weight and every input."""
    model, x = decoder(attention, "rope"), noise(2, 4 * SEGMENT + 2, 16).requires_grad_()
    module, importance = model.blocks[0].attention, noise(2, 4 * SEGMENT + 2, 16, seed=1)
    inputs = [x, *module.parameters()]
    found = torch.autograd.grad((module(x, model.position)[0] * importance).sum(), inputs)
    expected = torch.autograd.grad((reference(module, model.position, x)[0] * importance).sum(), inputs)
    for gradient, other in zip(found, expected, strict=True):
        assert_close(gradient, other, 1e-9)


@every_infini
@pytest.mark.parametrize("carried", [False, True], ids=["one call", "carried state"])
def test_gradient_reaches_the_first_write_from_twenty_segments_later(attention: str, carried: bool) -> None:
    model, x = decoder(attention), noise(2, 20 * SEGMENT, 16).requires_grad_()
    state = None
    for piece in x.split(SEGMENT if carried else x.shape[1], dim=1):
        y, state = model.blocks[0].attention(piece, model.position, state)
    (gradient,) = torch.autograd.grad(y[:, -1].square().sum(), x)
    assert (gradient[:, :SEGMENT].norm(dim=-1) > 1e-6).all()


@every_infini
def test_the_gate_can_move_in_every_layer_from_the_start(attention: str) -> None:
    model, tokens = default_decoder(attention), torch.randint(256, (4, 129), generator=torch.Generator().manual_seed(0))
    F.cross_entropy(model(tokens[:, :-1])[0].flatten(0, 1), tokens[:, 1:].flatten()).backward()
    for block in model.blocks:
        assert block.attention.gate.shape == (block.attention.heads,)
        assert float(block.attention.gate.grad.abs().max()) > 1e-4


@every_infini
def test_gates_are_a_parameter_group_without_decay(attention: str) -> None:
    model = default_decoder(attention)
    groups = parameter_groups(model, composed().training.groups)
    gates = {id(block.attention.gate) for block in model.blocks}
    (group,) = [group for group in groups if gates & {id(parameter) for parameter in group["params"]}]
    assert {id(parameter) for parameter in group["params"]} == gates
    assert group["weight_decay"] == 0 and group["lr"] == 0.03
    everything = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(everything) == sorted(id(parameter) for parameter in model.parameters())


def gated_recipes() -> Iterator[Any]:
    """The shipped experiments that train gates, at every scale they are planned for but the smallest."""
    for file in sorted((CONF / "experiment").glob("*.yaml")):
        for scale in ("laptop", "gpu", "paper"):
            text = file.read_text()
            if (
                any(name in text for name in INFINI) and "\n  steps: 0\n" not in text
            ):  # that measures, and trains nothing
                yield pytest.param([f"experiment={file.stem}", f"scale={scale}"], id=f"{file.stem}-{scale}")


@pytest.mark.parametrize("overrides", [*gated_recipes(), pytest.param([], id="default")])
def test_the_shipped_recipes_can_open_or_shut_a_gate(overrides: list[str]) -> None:
    """The way an Adam of constant sign goes, the sum of its learning rates, is at least 4."""
    config = composed(*overrides)
    try:
        steps = config.training.steps
    except InterpolationResolutionError as error:
        assert "is not available for this experiment" in str(error)  # the experiment has no recipe at this scale
        return
    schedule = hydra.utils.instantiate(config.schedule)
    rates = (config.training.groups.gates.lr * schedule(step, steps) for step in range(steps))
    assert any(way >= 4 for way in accumulate(rates))


@every_position
@every_infini
def test_the_first_segment_is_local_attention_alone(attention: str, position: str) -> None:
    """The documented rule for the empty memory, where equation 7 is 0/0."""
    model, full = decoder(attention, position), decoder("full", position)
    tokens = random_tokens(2, SEGMENT + 1)
    assert_close(model(tokens)[0][:, :SEGMENT], full(tokens)[0][:, :SEGMENT])
    assert not torch.allclose(model(tokens)[0][:, SEGMENT], full(tokens)[0][:, SEGMENT])


@pytest.mark.parametrize("length", [1, SEGMENT - 1, SEGMENT, SEGMENT + 1, 3 * SEGMENT])
@every_infini
def test_outputs_and_gradients_are_finite_from_the_first_token(attention: str, length: int) -> None:
    model, x = decoder(attention).float(), noise(2, length, 16).float().requires_grad_()
    module = model.blocks[0].attention
    y, state = module(x, model.position)
    gradients = torch.autograd.grad(y.sum() + state.memory.sum(), [x, *module.parameters()])
    assert all(tensor.isfinite().all() for tensor in (y, *state, *gradients))
    if length <= SEGMENT:
        gate = [name for name, _ in module.named_parameters()].index("gate")
        assert not gradients[1 + gate].any()  # a shut gate has no say


@every_position
@every_infini
def test_the_memory_sees_no_positions(attention: str, position: str) -> None:
    """Neither what is written nor what is read changes with the scheme or an offset; local attention does."""
    module, scheme, x = decoder(attention).blocks[0].attention, decoder("full", position).position, noise(2, 19, 16)
    plain = Position(scheme.width, scheme.heads)
    shut, opened = torch.full_like(module.gate, GATES_SHUT), torch.full_like(module.gate, GATES_OPEN)
    run = partial(torch.func.functional_call, module)
    read, written = run({"gate": opened}, (x, plain))
    for same in (scheme, Shifted(scheme, 1000)):
        y, state = run({"gate": opened}, (x, same))
        assert torch.equal(state.memory, written.memory) and torch.equal(state.normalizer, written.normalizer)
        assert_close(y[:, SEGMENT:], read[:, SEGMENT:])
    local_changes = not torch.allclose(run({"gate": shut}, (x, scheme))[0], run({"gate": shut}, (x, plain))[0])
    assert local_changes == (position not in ("none", "learned", "sinusoidal"))


@pytest.mark.parametrize("half", ["autocast", "weights"])
@every_infini
def test_the_memory_is_kept_and_summed_in_float32(attention: str, half: str) -> None:
    """Keys, values and each segment's product may be bfloat16; the memory equals a float64 sum over these products to
    float32's precision, however many there are."""
    model, x = decoder(attention).float(), noise(2, 64 * SEGMENT, 16).float()
    module = model.blocks[0].attention
    if half == "weights":
        module, x = module.bfloat16(), x.bfloat16()
    with torch.autocast("cpu", torch.bfloat16, enabled=half == "autocast"):
        _, state = module(x, model.position)
        _, key, value = module.project(x)
        _, state_by_token = module(x[:, :1], model.position, state)
    assert key.dtype == torch.bfloat16
    assert {tensor.dtype for tensor in (*state[:2], *state_by_token[:2])} == {torch.float32}
    feature, values = (F.elu(key.float()) + 1).bfloat16(), value.unflatten(2, (-1, SEGMENT))
    assert_close(state.normalizer.double(), feature.double().sum(dim=2), 1e-5)
    if module.update == "linear":
        products = feature.unflatten(2, (-1, SEGMENT)).transpose(3, 4) @ values
        assert_close(state.memory.double(), products.double().sum(dim=2), 1e-5)


@every_infini
def test_generation_depends_on_the_first_segment_of_a_long_prompt(attention: str) -> None:
    model, prompt = decoder(attention, "rope", layers=1), random_tokens(16, 3 * SEGMENT)
    other = torch.cat([(prompt[:, :SEGMENT] + 1) % 23, prompt[:, SEGMENT:]], dim=1)
    assert not torch.equal(model.answer(prompt, 4), model.answer(other, 4))
    for piece in (5, SEGMENT, 4096):
        scores, others = (read_prompt(model, tokens, piece)[0] for tokens in (prompt, other))
        assert ((scores - others).abs().amax(dim=-1) > 1e-6).all()

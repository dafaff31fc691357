"""Scaled rotary positions and ALiBi: equal to transformers' own, to the formulas, and refused where undefined."""

from typing import Any

import pytest
import torch
from hydra.errors import InstantiationException
from support import decoder
from torch import Tensor

from experiments.conformance.contracts import assert_close
from experiments.conformance.tiny import HEADS, WIDTH, noise, random_tokens
from models.positions.relative import ALiBi, Shaw, TransformerXLRelative
from models.positions.rotary import Rotary, rotation_matrix
from models.positions.rotary_scaling import (
    DynamicNTKRotary,
    InterpolatedRotary,
    NTKAwareRotary,
    YaRNRotary,
)

TRAINED = 256


def transformers_rope(kind: str, head_width: int, factor: float, base: float, length: int) -> tuple[Tensor, float]:
    """Frequencies and temperature of transformers' own scaling."""
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
    from transformers.models.llama.modeling_llama import LlamaConfig

    rope: dict[str, Any] = {"rope_type": kind, "rope_theta": base, "factor": factor}
    if kind == "yarn":
        rope["original_max_position_embeddings"] = TRAINED
    config = LlamaConfig(
        hidden_size=head_width, num_attention_heads=1, max_position_embeddings=TRAINED, rope_parameters=rope
    )
    frequencies, temperature = ROPE_INIT_FUNCTIONS[kind](config, torch.device("cpu"), seq_len=length)
    return frequencies.double(), temperature


@pytest.mark.parametrize("base", [10_000.0, 500_000.0])
@pytest.mark.parametrize("factor", [1.0, 2.0, 8.0])
@pytest.mark.parametrize("head_width", [8, 32, 128])
@pytest.mark.parametrize("kind", ["linear", "dynamic", "yarn"])
def test_scalings_equal_those_of_transformers(kind: str, head_width: int, factor: float, base: float) -> None:
    scheme: Rotary = {
        "linear": lambda: InterpolatedRotary(head_width, 1, factor, base),
        "dynamic": lambda: DynamicNTKRotary(head_width, 1, factor, TRAINED, base),
        "yarn": lambda: YaRNRotary(head_width, 1, factor, TRAINED, base),
    }[kind]()
    for length in (100, TRAINED, 3 * TRAINED):
        frequencies, temperature = transformers_rope(kind, head_width, factor, base, length)
        torch.testing.assert_close(scheme.frequencies(torch.tensor([length - 1])), frequencies, rtol=2e-6, atol=0)
        assert scheme.temperature == pytest.approx(temperature)


@pytest.mark.parametrize("factor", [2.0, 8.0])
def test_ntk_aware_scaling_is_transformers_dynamic_one_at_that_length(factor: float) -> None:
    frequencies, _ = transformers_rope("dynamic", 32, 1.0, 10_000.0, round(factor * TRAINED))
    scheme = NTKAwareRotary(32, 1, factor)
    torch.testing.assert_close(scheme.frequencies(), frequencies, rtol=2e-6, atol=0)
    plain = Rotary(32, 1).frequencies()
    assert float(scheme.frequencies()[0]) == 1.0  # the fastest pair turns as before
    assert float(plain[-1] / scheme.frequencies()[-1]) == pytest.approx(factor)


@pytest.mark.parametrize("make", [InterpolatedRotary, NTKAwareRotary, DynamicNTKRotary, YaRNRotary])
def test_a_factor_of_one_changes_nothing_and_one_below_is_refused(make: Any) -> None:
    more = {"trained_length": TRAINED} if make in (DynamicNTKRotary, YaRNRotary) else {}
    x, places = noise(1, 2, 30, 8), torch.arange(30)
    assert_close(make(16, 2, factor=1.0, **more).rotate(x, places), Rotary(16, 2).rotate(x, places))
    with pytest.raises(ValueError, match=r"scaling factor .* at least 1, not 0\.5"):
        make(16, 2, factor=0.5, **more)


@pytest.mark.parametrize("head_width", [2, 8, 64])
def test_the_element_wise_rotation_equals_the_matrix_and_has_its_gradient(head_width: int) -> None:
    scheme, x = Rotary(head_width, 1), noise(1, 1, 5, head_width).requires_grad_()
    positions = torch.arange(3, 8)
    matrices = torch.stack([rotation_matrix(scheme.frequencies(), int(place)) for place in positions])
    expected = (matrices @ x[0, 0, :, :, None])[..., 0]
    assert_close(scheme.rotate(x, positions)[0, 0], expected)
    weights = noise(5, head_width, seed=1)
    found = torch.autograd.grad((scheme.rotate(x, positions)[0, 0] * weights).sum(), x)[0]
    assert_close(found, torch.autograd.grad((expected * weights).sum(), x)[0])


def test_dynamic_scaling_reads_a_long_sequence_at_once_and_refuses_to_go_on_from_a_cache() -> None:
    model, tokens = decoder("full", "rope_dynamic", "trained_length=8"), random_tokens(1, 12)
    plain = decoder("full", "rope")
    assert_close(model(tokens[:, :8])[0], plain(tokens[:, :8])[0])
    assert not torch.allclose(model(tokens)[0], plain(tokens)[0])
    _, state = model(tokens[:, :7])
    model(tokens[:, 7:8], state)
    with pytest.raises(ValueError, match=r"grows beyond 8, .* 9 tokens from a cache: .* choose rope_ntk$"):
        model(tokens[:, 7:9], state)


@pytest.mark.parametrize("heads", [1, 2, 8, 12, 20])
def test_alibi_slopes_and_biases_equal_those_of_transformers(heads: int) -> None:
    from transformers.models.bloom.modeling_bloom import build_alibi_tensor

    scheme, length = ALiBi(4 * heads, heads), 9
    absolute = build_alibi_tensor(torch.ones(1, length, dtype=torch.long), heads, torch.float64)[:, 0]  # slope · key
    query, key = noise(2, 1, heads, length, 4)
    bias = scheme.bias(query, key, torch.arange(length), torch.arange(length))
    lower = torch.ones(length, length).tril().bool()
    expected = absolute[:, None, :] - scheme.slopes()[:, None, None] * torch.arange(length)[:, None]
    torch.testing.assert_close(bias[:, lower], expected.expand(-1, length, -1)[:, lower], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("queries", "keys"), [(5, 5), (1, 7), (4, 9)])
def test_shaw_scores_equal_equation_4(queries: int, keys: int, causal: bool) -> None:
    scheme = Shaw(WIDTH, HEADS, max_distance=3, causal=causal).double()
    torch.nn.init.normal_(scheme.table)
    d = WIDTH // HEADS
    query, key = noise(2, HEADS, queries, d), noise(2, HEADS, keys, d, seed=1)
    query_places, key_places = torch.arange(keys - queries, keys), torch.arange(keys)
    found = query @ key.transpose(2, 3) / d**0.5 + scheme.bias(query, key, query_places, key_places)
    lowest = 0 if causal else -3
    for i, j in torch.cartesian_prod(torch.arange(queries), torch.arange(keys)).tolist():
        distance = int(query_places[i] - key_places[j])
        if distance >= 0 or not causal:
            vector = scheme.table[min(3, max(lowest, distance)) - lowest]
            assert_close(found[:, :, i, j], (query[:, :, i] * (key[:, :, j] + vector)).sum(-1) / d**0.5)


@pytest.mark.parametrize(("queries", "keys"), [(5, 5), (1, 7), (4, 9)])
def test_transformer_xl_scores_equal_its_four_terms(queries: int, keys: int) -> None:
    scheme = TransformerXLRelative(WIDTH, HEADS).double()
    for parameter in scheme.parameters():
        torch.nn.init.normal_(parameter)
    d = WIDTH // HEADS
    query, key = noise(2, HEADS, queries, d), noise(2, HEADS, keys, d, seed=1)
    query_places, key_places = torch.arange(keys - queries, keys), torch.arange(keys)
    found = query @ key.transpose(2, 3) / d**0.5 + scheme.bias(query, key, query_places, key_places)
    u, v = scheme.content_bias.view(HEADS, d), scheme.distance_bias.view(HEADS, d)
    for i, j in torch.cartesian_prod(torch.arange(queries), torch.arange(keys)).tolist():
        distance = float(query_places[i] - key_places[j])
        angles = distance / 10_000 ** (torch.arange(0, WIDTH, 2).double() / WIDTH)
        encoded = scheme.relative(torch.cat([angles.sin(), angles.cos()])).view(HEADS, d)
        terms = (query[:, :, i] + u) * key[:, :, j] + (query[:, :, i] + v) * encoded
        assert_close(found[:, :, i, j], terms.sum(-1) / d**0.5)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["position=rope", "position.base=1"], "must be above 1, not 1"),
        (["position=rope_yarn", "extension=0"], "at least 1, not 0"),
        (["position=rope", "model.width=6"], "head width must be even, not 3"),
    ],
)
def test_a_rotation_that_does_not_exist_is_refused_as_it_is_built(overrides: list[str], message: str) -> None:
    with pytest.raises(InstantiationException, match=message):
        decoder("full", "none", *overrides)

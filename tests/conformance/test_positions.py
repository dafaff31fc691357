"""What holds for the position schemes: one at a time, the published formulas, shift invariance, clear limits."""

import math
from typing import Any

import hydra
import pytest
import torch
from support import PAIRS, Shifted, choices, composed, decoder, scheme_of
from torch import Tensor

from experiments.conformance.contracts import assert_close
from experiments.conformance.tiny import HEADS, WIDTH, noise, random_tokens
from models.positions import Position
from models.positions.absolute import Learned
from models.positions.relative import RelativeBias
from models.positions.rotary import Rotary

every_position = pytest.mark.parametrize("position", choices("position"))


def signals(scheme: Position, length: int = 7) -> dict[str, bool]:
    """Which hooks of a scheme do anything."""
    places, x = torch.arange(1, 1 + length), noise(2, length, WIDTH)
    query, key = noise(2, 2, HEADS, length, WIDTH // HEADS)
    return {
        "embed": not torch.equal(scheme.embed(x, places), x),
        "rotate": not torch.equal(scheme.rotate(query, places), query),
        "bias": scheme.bias(query, key, places, places) is not None,
    }


def scores(scheme: Position, query: Tensor, key: Tensor, offset: int) -> Tensor:
    """The scores of all queries and keys, with all positions moved by `offset`."""
    places = torch.arange(query.shape[2]) + offset
    products = scheme.rotate(query, places) @ scheme.rotate(key, places).transpose(2, 3)
    bias = scheme.bias(query, key, places, places)
    return products if bias is None else products + bias


@every_position
def test_a_scheme_gives_one_signal_and_none_gives_none(position: str) -> None:
    assert sum(signals(scheme_of(position)).values()) == (position != "none")


@every_position
def test_a_model_holds_the_parameters_of_its_own_scheme_only(position: str) -> None:
    shared = set(decoder("full", "none").state_dict())
    own = {f"position.{name}" for name, _ in scheme_of(position).named_parameters()}
    model = decoder("full", position)
    assert not any(name.startswith("position") for name in shared)
    assert set(model.state_dict()) == shared | own
    assert sum(isinstance(module, Position) for module in model.modules()) == 1


@pytest.mark.slow
@every_position
def test_earlier_tokens_without_positions_are_a_set(position: str) -> None:
    """Behind the causal mask of one layer, the last token sees the order of those before it by their positions only."""
    model, tokens = decoder("full", position, layers=1), random_tokens(3, 9)
    order = torch.tensor([3, 7, 0, 5, 1, 6, 2, 4, 8])
    last, permuted = model(tokens)[0][:, -1], model(tokens[:, order])[0][:, -1]
    assert torch.allclose(last, permuted, rtol=0, atol=1e-10) == (position == "none")


@every_position
def test_scores_do_not_change_with_an_offset_of_all_positions(position: str) -> None:
    scheme, query, key = scheme_of(position), *noise(2, 2, HEADS, 9, WIDTH // HEADS)
    for offset in (1, 17, 900):
        assert_close(scores(scheme, query, key, offset), scores(scheme, query, key, 0))


@every_position
def test_embeddings_change_with_an_offset_or_not_at_all(position: str) -> None:
    scheme, x = scheme_of(position), noise(1, 9, WIDTH)
    there, shifted = (scheme.embed(x, torch.arange(9) + offset) for offset in (0, 17))
    changed = ((there - shifted).abs() > 1e-6).any(dim=-1)
    assert changed.all() if signals(scheme)["embed"] else torch.equal(there, x) and torch.equal(shifted, x)


@every_position
def test_rotation_preserves_norms(position: str) -> None:
    x, scheme = noise(2, HEADS, 50, WIDTH // HEADS), scheme_of(position)
    turned = scheme.rotate(x, torch.arange(50) + 900)
    assert_close(turned.norm(dim=-1), scheme.temperature * x.norm(dim=-1))  # YaRN's changes all norms alike


@pytest.mark.slow
@pytest.mark.parametrize(("attention", "position"), PAIRS)
def test_values_are_never_rotated(attention: str, position: str) -> None:
    """A token that sees only itself gives its value, wherever it stands."""
    module, x = decoder(attention).blocks[0].attention, noise(2, 1, WIDTH)
    value = module.project(x)[2]
    for offset in (0, 1, 500):
        assert_close(module(x, Shifted(scheme_of(position), offset))[0], module.merge(value))


@pytest.mark.parametrize("base", [10_000, 500_000])
@pytest.mark.parametrize("head_width", [8, 64, 128])
def test_rotary_angles_equal_those_of_transformers(head_width: int, base: int) -> None:
    cos, sin, frequencies = llama(head_width, base, torch.arange(2000))
    scheme = Rotary(head_width, 1, base)
    assert_close(scheme.frequencies().float(), frequencies, 1e-6)
    x = torch.zeros(1, 1, 2000, head_width)
    x[..., : head_width // 2] = 1.0  # turns into (cos, sin)
    turned = scheme.rotate(x, torch.arange(2000))[0, 0]
    assert_close(turned, torch.cat([cos[..., : head_width // 2], sin[..., head_width // 2 :]], dim=-1), 5e-4)


@pytest.mark.parametrize("head_width", [8, 64])
def test_rotation_equals_that_of_transformers(head_width: int) -> None:
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    places, query, key = torch.arange(40) * 7, *noise(2, 2, 3, 40, head_width)
    scheme = Rotary(3 * head_width, 3)
    angles = torch.outer(places.double(), 10_000.0 ** (-torch.arange(0, head_width, 2).double() / head_width))
    cos, sin = (wave(torch.cat([angles, angles], dim=1))[None] for wave in (torch.cos, torch.sin))
    expected = apply_rotary_pos_emb(query, key, cos, sin)
    assert_close(scheme.rotate(query, places), expected[0])
    assert_close(scheme.rotate(key, places), expected[1])


def llama(head_width: int, base: int, places: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """cos and sin (T, d) and the frequencies (d / 2,) of transformers' Llama."""
    from transformers.models.llama.modeling_llama import LlamaConfig, LlamaRotaryEmbedding

    rope = {"rope_type": "default", "rope_theta": float(base)}
    config = LlamaConfig(hidden_size=head_width, num_attention_heads=1, rope_parameters=rope)
    embedding = LlamaRotaryEmbedding(config)
    cos, sin = embedding(torch.zeros(1), places[None])
    return cos[0], sin[0], embedding.inv_freq


def test_rotary_turns_every_component_by_a_visible_angle() -> None:
    """From the configuration: the default head of 32 turns by a radian a token at first and by 1e-4 or so at last."""
    config = composed("position=rope")
    scheme = hydra.utils.instantiate(config.position)(width=config.model.width, heads=config.model.heads)
    width = config.model.width // config.model.heads
    turned = scheme.rotate(torch.ones(1, 1, 1, width).double(), torch.tensor([100]))
    assert ((turned - 1).abs() > 1e-3).all()
    assert len(scheme.frequencies()) == width // 2 and float(scheme.frequencies()[0]) == 1.0


def test_rotary_is_exact_at_a_million_tokens() -> None:
    query, key = noise(2, 1, HEADS, 2, WIDTH // HEADS).float()
    scheme, far = scheme_of("rope"), torch.tensor([1_000_000, 1_000_003])
    near = scheme.rotate(query, far - far[0]) @ scheme.rotate(key, far - far[0]).transpose(2, 3)
    assert_close(scheme.rotate(query, far) @ scheme.rotate(key, far).transpose(2, 3), near, 1e-5)


@pytest.mark.parametrize("settings", [{"width": 6, "heads": 2}, {"width": 8, "heads": 2, "base": 1.0}])
def test_rotary_refuses_what_it_cannot_turn(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="rotary"):
        Rotary(**settings)


@pytest.mark.parametrize(("buckets", "max_distance"), [(32, 128), (32, 1000), (8, 20), (16, 64)])
def test_relative_buckets_equal_those_of_t5(buckets: int, max_distance: int) -> None:
    from transformers.models.t5.modeling_t5 import T5Attention

    distance = torch.arange(-50, 3000)
    scheme = RelativeBias(WIDTH, HEADS, buckets, max_distance)
    expected = T5Attention._relative_position_bucket(-distance, False, buckets, max_distance)
    assert torch.equal(scheme.prepare(distance), expected)


def test_relative_bias_is_the_tables_number_for_head_and_bucket() -> None:
    scheme = scheme_of("relative_bias")
    query_places, key_places = torch.arange(100, 160), torch.arange(20, 130)
    query, key = noise(1, HEADS, 60, WIDTH // HEADS), noise(1, HEADS, 110, WIDTH // HEADS)
    bias = scheme.bias(query, key, query_places, key_places)
    buckets = scheme.prepare(query_places[:, None] - key_places)
    assert_close(bias, torch.stack([scheme.table[buckets, head] for head in range(HEADS)]))


@pytest.mark.parametrize("width", [8, 16])
def test_sinusoidal_waves_equal_their_formula(width: int) -> None:
    """Sines and cosines of position / 10,000^(2i/width), in the size of the embeddings they are added to."""
    scheme = hydra.utils.instantiate(composed("position=sinusoidal").position)(width=width, heads=2)
    found = scheme.embed(torch.zeros(1, 3, width).double(), torch.tensor([0, 5, 4321]))[0] * math.sqrt(width)
    for row, place in zip(found, (0, 5, 4321)):
        angles = [place / 10_000 ** (2 * i / width) for i in range(width // 2)]
        waves = [math.sin(angle) for angle in angles] + [math.cos(angle) for angle in angles]
        assert_close(row, torch.tensor(waves).double(), 1e-6)


def test_learned_positions_are_rows_of_their_table() -> None:
    scheme, x, places = Learned(WIDTH, HEADS, 12), torch.zeros(2, 3, WIDTH), torch.tensor([4, 5, 11])
    assert torch.equal(scheme.embed(x, places), scheme.table.weight[places].expand(2, -1, -1))


def test_learned_positions_past_their_table_are_refused() -> None:
    model, tokens = decoder("full", "learned", "position.max_length=8"), random_tokens(1, 9)
    _, state = model(tokens[:, :8])
    for call in (lambda: model(tokens), lambda: model(tokens[:, 8:], state), lambda: model.answer(tokens[:, :4], 9)):
        with pytest.raises(ValueError, match=r"has 8 entries .* needs 9"):
            call()
    assert model.answer(tokens[:, :4], 5).shape == (1, 5)  # the last token written is not read


@pytest.mark.slow
@every_position
def test_schemes_without_a_table_have_no_limit(position: str) -> None:
    if position != "learned":
        assert decoder("window", position)(random_tokens(1, 3000))[0].isfinite().all()

"""Grouped-query heads: which key-value head a query head reads, and everything that holds for heads of their own."""

from itertools import product
from typing import Any

import hydra
import pytest
import torch
from hydra.errors import InstantiationException
from support import PAIRS, choices, composed, decoder, settings, state_floats
from torch import nn
from torch.nn import functional as F
from transformers.models.llama.modeling_llama import repeat_kv

from experiments.conformance.contracts import (
    PIECES,
    assert_cached_generation_equals_the_whole,
    assert_causal,
    assert_close,
    assert_pieces_equal_the_whole,
)
from experiments.conformance.tiny import LAYERS, SEGMENT, WIDTH, noise, random_tokens
from models.attention.base import attend, repeat_key_values
from models.attention.linear import Linear
from models.initialization import initialize
from models.positions import Position, position_ids
from models.state import leaves

pytestmark = pytest.mark.slow

HEADS, HEAD = 4, WIDTH // 4
GROUPED = [name for name in choices("attention") if "key_value_heads" in settings("attention", name)]
every_grouped = pytest.mark.parametrize(
    ("attention", "position", "shared"),
    [(attention, position, shared) for (attention, position), shared in product(PAIRS, (1, 2)) if attention in GROUPED],
)


def grouped(attention: str, position: str, shared: int | None) -> Any:
    """A tiny decoder of 4 heads that share so many key-value heads."""
    return decoder(attention, position, f"model.heads={HEADS}", f"attention.key_value_heads={shared or 'null'}")


@every_grouped
def test_no_token_changes_a_logit_before_it(attention: str, position: str, shared: int) -> None:
    assert_causal(grouped(attention, position, shared), SEGMENT + 2)


@every_grouped
@pytest.mark.parametrize("pieces", PIECES.values(), ids=PIECES)
def test_pieces_equal_the_whole(attention: str, position: str, shared: int, pieces: list[int]) -> None:
    assert_pieces_equal_the_whole(grouped(attention, position, shared), pieces)


@every_grouped
def test_cached_generation_equals_generation_from_scratch(attention: str, position: str, shared: int) -> None:
    assert_cached_generation_equals_the_whole(grouped(attention, position, shared), SEGMENT + 1)


@every_grouped
def test_shared_heads_equal_heads_with_the_same_weights(attention: str, position: str, shared: int) -> None:
    """k0 k0 k1 k1 against a model whose four key and value heads are copies, in the same order."""
    model, plain = grouped(attention, position, shared), grouped(attention, position, None)
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for index in range(LAYERS):
        name = f"blocks.{index}.attention.query_key_value.weight"
        weights[name] = repeated(weights[name], shared)
    plain.load_state_dict(weights)
    tokens = random_tokens(2, 4 * SEGMENT + 2)
    (logits, state), (expected, plain_state) = model(tokens), plain(tokens)
    assert_close(logits, expected)
    for leaf, other in zip(leaves(state), leaves(plain_state), strict=True):
        assert_close(repeat_key_values(leaf, HEADS) if leaf.ndim > 1 else leaf, other)


def repeated(stacked: torch.Tensor, shared: int) -> torch.Tensor:
    """The weights of queries, keys and values with each key and value head written out for all that read it."""
    query, key, value = stacked.view(-1, HEAD, WIDTH).split([HEADS, shared, shared])
    copies = [head[:, None].expand(-1, HEADS // shared, -1, -1).flatten(0, 1) for head in (key, value)]
    return torch.cat([query, *copies]).flatten(0, 1)


@pytest.mark.parametrize("shared", [1, 2, 4])
def test_query_heads_line_up_as_in_torch_and_transformers(shared: int) -> None:
    query, key, value = noise(2, 4, 5, 8), noise(2, shared, 5, 8, seed=1), noise(2, shared, 5, 8, seed=2)
    query_positions = position_ids(0, 5, query.device)
    expected = F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
    assert_close(attend(query, key, value, Position(32, 4), query_positions, query_positions), expected)
    assert torch.equal(repeat_key_values(key, 4), repeat_kv(key, 4 // shared))


@pytest.mark.parametrize("attention", GROUPED)
def test_the_state_is_as_much_smaller_as_there_are_fewer_heads(attention: str) -> None:
    tokens = random_tokens(1, 4 * SEGMENT + 1)
    sizes = {shared: state_floats(grouped(attention, "rope", shared)(tokens)[1]) for shared in (1, 2, 4)}
    assert sizes[4] == 2 * sizes[2] == 4 * sizes[1]


@pytest.mark.parametrize("shared", [1, 2])
def test_linear_attention_shares_heads_too(shared: int) -> None:
    modules = [Linear(WIDTH, HEADS, heads).double() for heads in (shared, HEADS)]
    with torch.no_grad():
        modules[1].query_key_value.weight.copy_(repeated(modules[0].query_key_value.weight, shared))
        modules[1].output.weight.copy_(modules[0].output.weight)
    position, x = decoder("full", "rope", f"model.heads={HEADS}").position, noise(2, 150, WIDTH)
    results = []
    for module in modules:
        first, state = module(x[:, :70], position)
        second, state = module(x[:, 70:], position, state)
        results.append((torch.cat([first, second], dim=1), state))
    assert_close(results[0][0], results[1][0])
    assert results[0][1].memory.shape == (2, shared, HEAD, HEAD)


@pytest.mark.parametrize("attention", GROUPED)
def test_all_weights_but_those_of_shared_heads_are_those_of_the_same_seed(attention: str) -> None:
    models = []
    for shared in ("null", 1):
        config = composed(f"attention={attention}", f"attention.key_value_heads={shared}")
        models.append(hydra.utils.instantiate(config.model, vocabulary_size=23))
        initialize(models[-1], 0)
    plain, grouped = (dict(nn.Module.named_parameters(model)) for model in models)
    assert plain.keys() == grouped.keys()
    differing = {name for name in plain if plain[name].shape != grouped[name].shape}
    assert all(name.endswith("query_key_value.weight") for name in differing) and differing
    assert all(torch.equal(plain[name], grouped[name]) for name in plain.keys() - differing)


@pytest.mark.parametrize("attention", GROUPED)
@pytest.mark.parametrize("shared", [3, 8, 0])
def test_heads_that_cannot_be_shared_evenly_are_refused(attention: str, shared: int) -> None:
    with pytest.raises(InstantiationException, match=f"4 heads cannot share {shared} key-value heads evenly"):
        decoder(attention, "rope", f"model.heads={HEADS}", f"attention.key_value_heads={shared}")

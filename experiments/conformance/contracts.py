"""The contracts. Each is a function that raises AssertionError where a model or an activation breaks it."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from experiments.conformance.tiny import SEGMENT, VOCABULARY, noise, random_tokens
from models.generation import read_prompt
from models.state import leaves

PIECES = {"segments": [4, 4, 4, 4, 2], "tokens": [1] * 18, "ragged": [3, 1, 7, 5, 2]}


def assert_close(actual: Tensor, expected: Tensor, tolerance: float = 1e-10) -> None:
    """Same shape, type and values, up to `tolerance` absolute and relative."""
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


def assert_causal(model: Any, changed: int) -> None:
    """No token from the one at `changed` on shows in a logit before it, and that one shows in its own."""
    tokens = random_tokens(2, 3 * SEGMENT)
    others = torch.cat([tokens[:, :changed], (tokens[:, changed:] + 1) % VOCABULARY], dim=1)
    before, after = model(tokens)[0], model(others)[0]
    assert torch.equal(before[:, :changed], after[:, :changed]), "a later token changes an earlier logit"
    assert (before[:, changed] != after[:, changed]).any(dim=-1).all(), "a token does not show in its own logits"


def assert_pieces_equal_the_whole(model: Any, pieces: list[int]) -> None:
    """A sequence fed in these pieces with carried state has the logits, final state and gradients of one call."""
    tokens, importance = random_tokens(2, sum(pieces)), noise(2, sum(pieces), VOCABULARY)
    parameters = list(model.parameters())
    whole, whole_state = model(tokens)
    whole_gradients = torch.autograd.grad((whole * importance).sum(), parameters)

    state, parts = None, []
    for piece in tokens.split(pieces, dim=1):
        logits, state = model(piece, state)
        parts.append(logits)
    joined = torch.cat(parts, dim=1)
    assert_close(joined, whole)
    for leaf, expected in zip(leaves(state), leaves(whole_state), strict=True):
        assert_close(leaf, expected)
    gradients = torch.autograd.grad((joined * importance).sum(), parameters)
    for gradient, expected in zip(gradients, whole_gradients, strict=True):
        assert_close(gradient, expected, 1e-8)


def assert_cached_generation_equals_the_whole(model: Any, length: int) -> None:
    """Token after token from a prompt of this length is what reading all of the text again for each token gives."""
    prompt = text = random_tokens(4, length)
    for _ in range(SEGMENT + 2):
        text = torch.cat([text, model(text)[0][:, -1:].argmax(dim=-1)], dim=1)
    assert torch.equal(model.answer(prompt, SEGMENT + 2), text[:, length:]), "another text with a cache than without"
    in_pieces, _ = read_prompt(model, prompt, piece=3)
    assert_close(in_pieces, model(prompt)[0][:, -1])


def assert_a_state_is_a_value(model: Any) -> None:
    """A call neither changes the state it is given nor leaves anything in the model."""
    _, state = model(random_tokens(2, 2 * SEGMENT + 1))
    copies = [leaf.clone() for leaf in leaves(state)]
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    tokens = random_tokens(2, SEGMENT + 2, seed=1)
    first = model(tokens, state)[0]
    model(random_tokens(3, 3 * SEGMENT, seed=2))
    assert torch.equal(model(tokens, state)[0], first), "the same call gives another result"
    kept = all(torch.equal(leaf, copy) for leaf, copy in zip(leaves(state), copies, strict=True))
    assert kept, "a call changes the state that it is given"
    unchanged = all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())
    assert unchanged, "a call changes a weight or a buffer"
    assert not list(model.buffers()), "a buffer is no part of the state"


def assert_rows_do_not_meet(model: Any) -> None:
    """A sequence has the same logits alone as in a batch."""
    tokens = random_tokens(3, 4 * SEGMENT + 1)
    alone = torch.cat([model(row[None])[0] for row in tokens])
    assert_close(model(tokens)[0], alone)


def assert_keeps_type(model: Any) -> None:
    """Weights of a type give finite logits of this type."""
    for dtype in (torch.float32, torch.bfloat16):
        logits, _ = model.to(dtype)(random_tokens(2, 2 * SEGMENT + 1))
        assert logits.dtype == dtype, f"logits are {logits.dtype} where weights are {dtype}"
        assert logits.isfinite().all(), f"logits are not finite in {dtype}"
    model.double()


def assert_trains(model: Any) -> None:
    """Every parameter has a finite gradient, and not zero in all of its values."""
    logits, _ = model(random_tokens(2, 4 * SEGMENT + 1))
    (logits * noise(*logits.shape)).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), f"{name} has no gradient"
        assert parameter.grad.isfinite().all(), f"the gradient of {name} is not finite"


def assert_element_wise(build: Callable[..., nn.Module]) -> None:
    """The output has the input's shape and type, and each value depends on the input's value there alone, with the
    channels last as in a transformer or second as in a convolutional network."""
    for shape, dimension in (((2, 5, 3), -1), ((2, 3, 4, 4), 1)):
        function = build(3, channel_dimension=dimension).double()
        x = noise(*shape)
        y = function(x)
        assert y.shape == x.shape, f"the output has the shape {tuple(y.shape)} for an input of {tuple(x.shape)}"
        assert y.dtype == x.dtype, f"the output is {y.dtype} for an input of {x.dtype}"
        changed = x.clone()
        changed[0, 1, 2] += 1
        moved = (function(changed) != y).nonzero()
        assert all(tuple(place[:3]) == (0, 1, 2) for place in moved.tolist()), "a value changes the output elsewhere"


def assert_right_gradient(build: Callable[..., nn.Module]) -> None:
    """The gradient is that of finite differences, in float64."""
    x = noise(4, 3).requires_grad_()
    assert torch.autograd.gradcheck(build(3).double(), (x,), raise_exception=False), "the gradient is not the slope"


def assert_finite(build: Callable[..., nn.Module]) -> None:
    """The output and its gradient are finite from -50 to 50."""
    x = torch.linspace(-50, 50, 303).view(101, 3).requires_grad_()
    y = build(3)(x)
    assert y.isfinite().all(), "the output is not finite between -50 and 50"
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert gradient.isfinite().all(), "the gradient is not finite between -50 and 50"

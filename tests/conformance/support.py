"""What the conformance tests share: every variant that the configuration offers, at a tiny size and in float64."""

import functools
import zlib
from itertools import product
from typing import Any

import hydra
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from experiments.config import cache
from experiments.config.choices import CONF, groups
from experiments.config.composition import compose_unchecked
from models.generation import read_prompt
from models.initialization import initialize
from models.positions import Position
from models.state import leaves

VOCABULARY, WIDTH, HEADS, LAYERS = 23, 16, 2, 2
SEGMENT = 4
SMALL = {  # settings of an attention, and what they are shrunk to
    **dict.fromkeys(["segment_length", "memory_length", "cache_length", "compressed_length", "window"], SEGMENT),
    "neighbours": 2,
    "buckets": 4,
    "rounds": 2,
    "memory_tokens": 3,
}


def choices(group: str) -> list[str]:
    """The variants of a group of the configuration."""
    return groups()[group]


def settings(group: str, choice: str) -> Any:
    """One variant's own file."""
    return OmegaConf.load(CONF / group / f"{choice}.yaml")


def parts(attention: str) -> dict[str, Any]:
    """What an attention's file sets, by its place in the configuration: a mechanism that is a model sets both."""
    file = settings("attention", attention)
    return {"attention": file} if "_target_" in file else dict(file)


@functools.cache
def composed(*overrides: str) -> DictConfig:
    """The configuration for these overrides; the same object for the same ones, not to be changed."""
    if any(override.startswith(("+", "~")) or "'" in override for override in overrides):
        return compose_unchecked(overrides)  # what only Hydra's own grammar reads
    return cache.merged(["seed=0", "outputs=outputs", *overrides])


INFINI = [name for name in choices("attention") if parts(name)["attention"]._target_.endswith(".Infini")]


def decoder(
    attention: str = "full",
    position: str = "none",
    *overrides: str,
    feedforward: str = "mlp",
    activation: str = "gelu",
    layers: int = LAYERS,
    shaken: bool = True,
) -> Any:
    """A tiny decoder in float64 with the initial weights of seed 0, through the real configuration.

    shaken: what starts as a constant (gates, norms, β, biases of positions) is moved and what blocks add is enlarged,
    so that all of it shows in the output; a new decoder's most likely next token is the last one again.
    """
    chosen = [f"feedforward={feedforward}", f"activation={activation}", f"model.layers={layers}"]
    config = decoder_config(attention, position, *chosen, *overrides)
    model = hydra.utils.instantiate(config.model, vocabulary_size=VOCABULARY)
    initialize(model, 0)
    if shaken:
        shake(model)
    return model.double()


def decoder_config(attention: str, position: str, *overrides: str) -> DictConfig:
    """The configuration of such a decoder."""
    chosen = [f"attention={attention}", f"position={position}"]
    size = [f"model.width={WIDTH}", f"model.heads={HEADS}", f"model.layers={LAYERS}"]
    shrunk = [f"{node}.{key}={SMALL[key]}" for node, keys in parts(attention).items() for key in keys if key in SMALL]
    return composed("model=decoder", "extension=2", "trained_length=1024", *chosen, *size, *shrunk, *overrides)


def task_decoder(task: Any, attention: str, *overrides: str) -> Any:
    """A small decoder in float64 with the real segment length, which knows the words of a task."""
    chosen = [f"attention={attention}", "model.width=32", "model.heads=2", "model.layers=1", *overrides]
    model = hydra.utils.instantiate(composed(*chosen).model, **task.model_arguments)
    initialize(model, 0)
    return model.double()


def default_decoder(attention: str) -> Any:
    """The decoder of the shipped configuration as a run builds it, with shorter segments."""
    config = composed(f"attention={attention}", "attention.segment_length=16")
    model = hydra.utils.instantiate(config.model, vocabulary_size=256)
    initialize(model, 0)
    return model


@torch.no_grad()
def shake(model: nn.Module) -> None:
    """Add noise to every parameter, drawn from its name: the same in two models that share it. See `decoder`."""
    for name, parameter in model.named_parameters():
        generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
        scale = 0.5 if parameter.ndim == 1 or not parameter.any() else 0.1 * float(parameter.std())
        parameter.add_(scale * torch.randn(parameter.shape, generator=generator))
        if name.endswith((".output.weight", ".down.weight")):
            parameter.mul_(8)


def random_tokens(rows: int, length: int, seed: int = 0) -> Tensor:
    """Tokens (rows, length)."""
    return torch.randint(VOCABULARY, (rows, length), generator=torch.Generator().manual_seed(seed))


def noise(*shape: int, seed: int = 0) -> Tensor:
    """Normal numbers in float64."""
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def assert_close(actual: Tensor, expected: Tensor, tolerance: float = 1e-10) -> None:
    """Same shape, type and values, up to `tolerance` absolute and relative."""
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


@functools.cache
def scheme_of(position: str) -> Position:
    """A position scheme of the configuration."""
    return decoder("full", position).position


def works_on_scores(position: str) -> bool:
    """Whether a scheme adds a bias to the scores or sets the temperature of their softmax."""
    scheme = scheme_of(position)
    return type(scheme).bias is not Position.bias or scheme.temperature != 1


UNFIT = [("linear", position) for position in choices("position") if works_on_scores(position)]  # no scores there
PAIRS = [pair for pair in product(choices("attention"), choices("position")) if pair not in UNFIT]


class Shifted(Position):
    """Another scheme with the same offset added to all positions."""

    def __init__(self, scheme: Position, offset: int):
        super().__init__(scheme.width, scheme.heads, scheme.causal)
        self.scheme, self.offset = scheme, offset

    def embed(self, x: Tensor, positions: Tensor) -> Tensor:
        return self.scheme.embed(x, positions + self.offset)

    def rotate(self, x: Tensor, positions: Tensor) -> Tensor:
        return self.scheme.rotate(x, positions + self.offset)

    def bias(self, query: Tensor, key: Tensor, query_positions: Tensor, key_positions: Tensor) -> Tensor | None:
        return self.scheme.bias(query, key, query_positions + self.offset, key_positions + self.offset)


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


PIECES = {"segments": [4, 4, 4, 4, 2], "tokens": [1] * 18, "ragged": [3, 1, 7, 5, 2]}


def assert_causal(model: Any, changed: int) -> None:
    """No token from the one at `changed` on shows in a logit before it, and that one shows in its own."""
    tokens = random_tokens(2, 3 * SEGMENT)
    others = torch.cat([tokens[:, :changed], (tokens[:, changed:] + 1) % VOCABULARY], dim=1)
    before, after = model(tokens)[0], model(others)[0]
    assert torch.equal(before[:, :changed], after[:, :changed])
    assert (before[:, changed] != after[:, changed]).any(dim=-1).all()


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
    assert torch.equal(model.answer(prompt, SEGMENT + 2), text[:, length:])
    in_pieces, _ = read_prompt(model, prompt, piece=3)
    assert_close(in_pieces, model(prompt)[0][:, -1])


def state_floats(state: Any) -> int:
    """How many numbers a carried state holds."""
    return sum(leaf.numel() for leaf in leaves(state) if leaf.is_floating_point())

"""What the conformance tests share: every variant that the configuration offers, at a tiny size and in float64."""

import zlib
from functools import cache
from itertools import product
from typing import Any

import hydra
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from experiments.config import CONF, compose_unchecked, groups
from models.initialization import initialize
from models.positions import Position

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


@cache
def composed(*overrides: str) -> DictConfig:
    """The configuration for these overrides; the same object for the same ones, not to be changed."""
    return compose_unchecked(overrides)


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
    chosen = [
        f"attention={attention}",
        f"position={position}",
        f"feedforward={feedforward}",
        f"activation={activation}",
    ]
    size = [f"model.width={WIDTH}", f"model.heads={HEADS}", f"model.layers={layers}"]
    shrunk = [f"{node}.{key}={SMALL[key]}" for node, keys in parts(attention).items() for key in keys if key in SMALL]
    config = composed("model=decoder", "extension=2", "trained_length=1024", *chosen, *size, *shrunk, *overrides)
    model = hydra.utils.instantiate(config.model, vocabulary_size=VOCABULARY)
    initialize(model, 0)
    if shaken:
        shake(model)
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


@cache
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

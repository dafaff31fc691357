"""What the conformance tests share: every variant that the configuration offers, at a tiny size and in float64."""

import functools
from itertools import product
from typing import Any

import hydra
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from experiments.config import cache
from experiments.config.choices import CONF, groups
from experiments.config.composition import compose_unchecked
from experiments.conformance.tiny import HEADS, LAYERS, SMALL, VOCABULARY, WIDTH, noise, shake
from models.initialization import initialize
from models.positions import Position
from models.state import leaves


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


def state_floats(state: Any) -> int:
    """How many numbers a carried state holds."""
    return sum(leaf.numel() for leaf in leaves(state) if leaf.is_floating_point())

"""A tiny decoder in float64, in which every part shows in the output, and its inputs."""

import zlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from models.activations import GELU
from models.attention.full import Full
from models.feedforward import MLP
from models.initialization import initialize
from models.positions import Position
from models.transformer import Decoder

VOCABULARY, WIDTH, HEADS, LAYERS = 23, 16, 2, 2
SEGMENT = 4
SMALL = {  # settings of a part, and what they are in a tiny decoder
    **dict.fromkeys(["segment_length", "memory_length", "cache_length", "compressed_length", "window"], SEGMENT),
    "neighbours": 2,
    "buckets": 4,
    "rounds": 2,
    "memory_tokens": 3,
}


def tiny_decoder(**parts: Callable[..., nn.Module]) -> Any:
    """A decoder without positions, with softmax attention, an MLP and GELU, and with these parts in their places."""
    chosen: dict[str, Any] = {"position": Position, "attention": Full, "feedforward": MLP, "activation": GELU} | parts
    model = Decoder(VOCABULARY, WIDTH, HEADS, LAYERS, **chosen)
    initialize(model, 0)
    shake(model)
    return model.double()


@torch.no_grad()
def shake(model: nn.Module) -> None:
    """Add noise to every parameter, drawn from its name: the same in two models that share it.

    What starts as a constant (gates, norms, β, biases of positions) is moved and what blocks add is enlarged, so that
    all of it shows in the output.
    """
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

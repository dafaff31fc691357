"""Exact properties of our models, computed without training, in float64 or by counting."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
from torch import nn

from experiments.measurements.activation_properties import functions, monotonicity, swish_by_beta, swish_shape
from experiments.measurements.attention_by_rows import attention_by_rows
from experiments.measurements.position_properties import (
    cached_decoding,
    position_similarity,
    rotary_distance,
    rotary_matrix,
    rotary_reach,
    three_apart,
)
from experiments.measurements.published_tables import published_counts
from models.attention import Attention
from models.attention.full import Full
from models.attention.infini import Infini, InfiniState
from models.attention.memorizing import Memorizing
from models.attention.transformer_xl import TransformerXL
from models.feedforward import MLP
from models.positions import Position
from models.recurrent_memory import RecurrentMemory
from models.state import leaves
from models.transformer import Decoder
from tasks.base import Evaluation, Measurement

PropertyName = Literal[
    "swish_shape",
    "functions",
    "monotonicity",
    "swish_by_beta",
    "published_counts",
    "rotary_distance",
    "rotary_matrix",
    "rotary_reach",
    "cached_decoding",
    "position_similarity",
    "three_apart",
    "memory_size",
    "delta_rewrite",
    "attention_by_rows",
]


class Property(Measurement):
    """A task that computes one property."""

    def __init__(self, property: PropertyName):
        self.property: Callable[[], Evaluation] = PROPERTIES[property]

    def evaluate(self, model: nn.Module) -> Evaluation:
        return self.property()


def memory_size() -> Evaluation:
    """M2: floats of memory at the paper's sizes (12 layers, 8 heads of width 128, segments of 2,048), without weights.

    For RMT with 100 memory tokens, both the state between segments and the number in the paper's table: the keys and
    values of the memory tokens in every layer. share: M1, Infini-attention's floats over those of another mechanism,
    RMT's as in the paper's table; off_border: of all that is kept one token before a segment ends.
    """
    layers, heads, segment, memory = 12, 8, 2048, 65_000
    width = 128 * heads
    attentions: dict[str, Callable[..., Attention]] = {
        "infini": partial(Infini, segment_length=segment),
        "transformer_xl": partial(TransformerXL, segment_length=segment, memory_length=segment),
        "memorizing": partial(
            Memorizing, segment_length=segment, cache_length=segment, memory_length=memory, neighbours=32
        ),
    }
    parts: dict[str, Any] = {
        "vocabulary_size": 256,
        "width": width,
        "heads": heads,
        "layers": layers,
        "position": Position,
        "feedforward": MLP,
        "activation": nn.Identity,
    }
    metrics = {}
    with torch.device("meta"):
        tokens = torch.zeros(1, (memory // segment + 3) * segment, dtype=torch.long)
        models = {name: Decoder(attention=attention, **parts) for name, attention in attentions.items()}
        recurrent = RecurrentMemory(attention=Full, memory_tokens=100, segment_length=segment, **parts)
    off_border = {}
    for name, model in models.items():
        metrics[f"floats/{name}"] = float(floats(model(tokens)[1]))
        off_border[name] = float(floats(model(tokens[:, :-1])[1]))
    metrics["floats/recurrent_memory"] = float(floats(recurrent(tokens[:, :segment])[1]))
    of_layers = leaves(recurrent(tokens[:, :1])[1].layers)  # for the memory tokens and one token after them
    metrics["floats/recurrent_memory_in_layers"] = float(floats([leaf[:, :, :-1] for leaf in of_layers]))
    off_border["recurrent_memory_in_layers"] = float(floats(recurrent(tokens[:, : segment - 1])[1].layers))
    for name in ("transformer_xl", "memorizing", "recurrent_memory_in_layers"):
        metrics[f"share/{name}"] = metrics["floats/infini"] / metrics[f"floats/{name}"]
        metrics[f"share_off_border/{name}"] = off_border["infini"] / off_border[name]
    counted = {name.removeprefix("floats/"): value for name, value in metrics.items() if name.startswith("floats/")}
    return Evaluation(metrics, {"memory": [{"mechanism": name, "floats": value} for name, value in counted.items()]})


def floats(state: Any) -> int:
    """The number of floating-point numbers in a state."""
    return sum(leaf.numel() for leaf in leaves(state) if leaf.is_floating_point())


def delta_rewrite() -> Evaluation:
    """M7: the change of the memory when the same segment is stored again, relative to the first time.

    For keys that are orthogonal under ELU + 1, whose values can be retrieved exactly, and for as many random keys as a
    head has channels, whose values cannot.
    """
    width = 64
    generator = torch.Generator().manual_seed(0)
    value = torch.randn(1, 1, width, width, generator=generator, dtype=torch.float64)
    orthogonal = torch.full((width, width), -40.0, dtype=torch.float64).fill_diagonal_(1.0)[None, None]
    random = torch.randn(1, 1, width, width, generator=generator, dtype=torch.float64)
    metrics, rows = {}, []
    for update in ("linear", "delta"):
        infini = Infini(width, 1, segment_length=width, update=update).double()  # type: ignore[arg-type]
        for keys, key in (("orthogonal", orthogonal), ("random", random)):
            states: list[InfiniState] = [infini.initial_state(key[:, 0])]
            for _ in range(2):
                memories, normalizers = infini.store(key, value, states[-1])
                states.append(states[-1]._replace(memory=memories[:, :, -1], normalizer=normalizers[:, :, -1]))
            empty, once, twice = (state.memory for state in states)
            share = float((twice - once).norm() / (once - empty).norm())
            metrics[f"second_write/{update}/{keys}"] = share
            rows.append({"update": update, "keys": keys, "second write / first": share})
    return Evaluation(metrics, {"rewrites": rows})


PROPERTIES: dict[PropertyName, Callable[[], Evaluation]] = {
    "swish_shape": swish_shape,
    "functions": functions,
    "monotonicity": monotonicity,
    "swish_by_beta": swish_by_beta,
    "published_counts": published_counts,
    "rotary_distance": rotary_distance,
    "rotary_matrix": rotary_matrix,
    "rotary_reach": rotary_reach,
    "cached_decoding": cached_decoding,
    "position_similarity": position_similarity,
    "three_apart": three_apart,
    "memory_size": memory_size,
    "delta_rewrite": delta_rewrite,
    "attention_by_rows": attention_by_rows,
}

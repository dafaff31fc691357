"""The interface of a task."""

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

Batch = dict[str, Tensor]


@dataclass
class Evaluation:
    """The result of evaluating a model: metrics, and tables as lists of rows with the same keys."""

    metrics: dict[str, float] = field(default_factory=dict)
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def finite(self) -> "Evaluation":
        """What of it is finite: these metrics, and the rows of tables without any other number."""
        metrics = {name: value for name, value in self.metrics.items() if math.isfinite(value)}
        tables = {
            name: [row for row in rows if all(map(is_finite, row.values()))] for name, rows in self.tables.items()
        }
        return Evaluation(metrics, tables)


def is_finite(value: Any) -> bool:
    """Whether a value is anything but a number that is NaN or infinite."""
    return not isinstance(value, float) or math.isfinite(value)


class Reading(NamedTuple):
    """Equal model calls of an evaluation, described before they are made, to estimate their cost.

    A batch of `rows` sequences (or images) is read in `pieces` of `tokens` tokens each, with the state passed along;
    then `generated` tokens are decoded one by one. This is repeated `times` times.
    """

    rows: int
    tokens: int
    times: float = 1.0
    pieces: int = 1
    generated: int = 0


class Task(Protocol):
    """What a model is trained and evaluated on. Tasks are independent of configuration, tracking and records.

    model_arguments: constructor arguments that fit a model to the task, such as the vocabulary size. A task of
    sequences also has `length`, the longest sequence in tokens that a model must support, and one that asks for each
    next token says so by `predicts_next`, so that a model that sees later tokens is refused.
    """

    model_arguments: dict[str, int]

    def batch(self, step: int) -> Batch:
        """The global batch of a step, a pure function of (seed, step); each rank takes its share of the rows."""

    def loss(self, model: nn.Module, batch: Batch, state: Any) -> tuple[Tensor, Any]:
        """The loss to differentiate, and the state for the next step (None if there is none)."""

    def evaluate(self, model: nn.Module) -> Evaluation:
        """Evaluate the model on held-out data."""

    def readings(self, model: nn.Module) -> list[Reading]:
        """The model calls that `evaluate` makes. The model may be on the meta device."""


class Measurement:
    """A task without training, only an evaluation."""

    model_arguments: dict[str, int] = {}  # noqa: RUF012, never changed

    def batch(self, step: int) -> Batch:
        return {}

    def loss(self, model: nn.Module, batch: Batch, state: Any) -> tuple[Tensor, Any]:
        return torch.zeros(()), None

    def readings(self, model: nn.Module) -> list[Reading]:
        return []


def random_generator(*key: int) -> np.random.Generator:
    """A random generator seeded with a key such as (seed, step)."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))


def device_of(model: nn.Module):
    """The device of the model's parameters."""
    return next(model.parameters()).device

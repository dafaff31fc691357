"""The interface of a task."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

Batch = dict[str, Tensor]


@dataclass
class Evaluation:
    """What a task found out about a model: numbers, and tables as lists of rows with the same keys."""

    metrics: dict[str, float] = field(default_factory=dict)
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)


class Reading(NamedTuple):
    """Calls of a model in an evaluation that are all alike, known before they are made: what they will cost.

    `rows` sequences side by side, of `tokens` each, or images where a task is of images: in one piece or, with the
    state carried along, in `pieces` of so many tokens one after the other; then as many tokens are `written` one by
    one. All of it `times` over.
    """

    rows: int
    tokens: int
    times: float = 1.0
    pieces: int = 1
    written: int = 0


class Task(Protocol):
    """A task knows nothing of how it is configured, tracked or recorded.

    model_arguments: what a model must be told to fit the task, such as its vocabulary's size. A task of sequences has a
    `length` too, the tokens of the longest that a model must be defined for.
    """

    model_arguments: dict[str, int]

    def batch(self, step: int) -> Batch:
        """The whole global batch of a step, a pure function of (seed, step); ranks take their share of its rows."""

    def loss(self, model: nn.Module, batch: Batch, state: Any) -> tuple[Tensor, Any]:
        """The loss to differentiate and the state to hand to the next step, None if nothing is carried."""

    def evaluate(self, model: nn.Module) -> Evaluation:
        """Judge the model on data that it was not trained on."""

    def readings(self, model: nn.Module) -> list[Reading]:
        """What `evaluate` asks of the model, which may be on the meta device."""


class Measurement:
    """A task that trains nothing: its evaluation is all there is to it."""

    model_arguments: dict[str, int] = {}  # noqa: RUF012, of no instance's own

    def batch(self, step: int) -> Batch:
        return {}

    def loss(self, model: nn.Module, batch: Batch, state: Any) -> tuple[Tensor, Any]:
        return torch.zeros(()), None

    def readings(self, model: nn.Module) -> list[Reading]:
        return []


def random_generator(*key: int) -> np.random.Generator:
    """A generator for this key alone, such as (seed, step)."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))


def device_of(model: nn.Module):
    """The device that the model's parameters lie on."""
    return next(model.parameters()).device

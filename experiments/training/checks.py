"""Checks of a model before a run starts: a step fits into memory, and the model does not see what it predicts."""

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from accelerate.utils.memory import should_reduce_batch_size
from hydra.errors import InstantiationException
from torch import nn

from experiments.config.errors import ConfigError, first_line
from experiments.cost.memory import MOMENTS, first_piece, free_bytes, step_bytes, step_of
from experiments.cost.op_tracer import Trace, trace
from experiments.recording.processes import processes
from models.recomputation import recompute_layers

PROBED = 32  # tokens of the sequence that shows whether a model looks ahead
EQUAL = 1e-3  # of the largest logit: differences up to it are rounding
INPUTS = 0.06  # of what a layer keeps for the backward pass is its input: 0.04 to 0.06 in the models measured
NOTHING = Trace(np.zeros(3), 0, 0)
known: dict[str, Trace] = {}  # steps of this process's runs: those of other seeds need the same


def outline(build: Callable[[], nn.Module]) -> nn.Module | None:
    """The model on the meta device, without weights; None for one that loads its own."""
    try:
        with torch.device("meta"):
            return build()
    except (RuntimeError, InstantiationException):
        return None


def is_recomputed(model: nn.Module, task: Any, config: dict[str, Any], precision: str) -> bool:
    """Whether the layers of a model are to be recomputed: if that is asked for, or if nothing is and a training step
    needs more memory otherwise than there is. The model lies on the meta device, and is recomputed from here on.

    Raises ConfigError where a step still needs too much, or where a model that is to be recomputed has no layers.
    """
    training = config["training"]
    weights = sum(parameter.nbytes for parameter in model.parameters())
    kept = (1 + MOMENTS) * weights / (processes() if training.get("shard") else 1)
    pieces = processes() * (training.get("accumulation") or 1)
    step, asked, layers = traced(model, task, config, pieces, 0), training.get("recompute"), 0
    if asked or (asked is None and kept + step_bytes(step, weights, precision) > free_bytes()):
        layers = recompute_layers(model)
    if asked and not layers:
        raise ConfigError("training.recompute=true needs a model with layers, such as model=decoder")
    if layers:
        outside = traced(model, task, config, pieces, layers).saved
        step = step._replace(saved=outside + (step.saved - outside) * (INPUTS + 1 / layers))
    needed = step_bytes(step, weights, precision)
    if kept + needed > free_bytes():
        raise ConfigError(
            f"a training step needs {kept / 1e9:,.1f} GB for weights and optimizer and {needed / 1e9:,.1f} GB for "
            f"gradients, activations and state, and {free_bytes() / 1e9:,.1f} GB are free: choose a smaller model, "
            "shorter sequences, a smaller batch or a smaller memory"
        )
    return layers > 0


def traced(model: nn.Module, task: Any, config: dict[str, Any], pieces: int, layers: int) -> Trace:
    """What a training step needs that recomputes so many layers; nothing of a model whose code cannot be followed on
    the meta device."""
    kind = json.dumps([config["model"], config["task"] | {"seed": None}, pieces, layers])
    if kind not in known:
        known[kind] = NOTHING
        with contextlib.suppress(RuntimeError):
            known[kind] = trace(step_of(model, task, first_piece(task.batch(0), pieces)), torch.cuda.is_available())
    model.zero_grad()
    return known[kind]


@torch.no_grad()
def check_causal(model: nn.Module, task: Any) -> None:
    """Raise ConfigError if a model to be asked for each next token sees it: its logits depend on a later token."""
    if not getattr(task, "predicts_next", False):
        return
    tokens = torch.arange(min(task.length, PROBED))[None] % task.model_arguments["vocabulary_size"]
    changed = tokens.clone()
    changed[:, -1] = (tokens[:, -1] + 1) % task.model_arguments["vocabulary_size"]
    training = model.training
    with torch.random.fork_rng(devices=[]):
        before, after = (model.eval()(each)[0][:, :-1] for each in (tokens, changed))
    model.train(training)
    if (before - after).abs().max() > EQUAL * before.abs().max():
        raise ConfigError(
            "the model sees the tokens that it is to predict, since its logits depend on later ones: choose a decoder "
            "with model=decoder and causal attention, or task=masked_language_modeling"
        )


@contextlib.contextmanager
def memory_errors_named() -> Iterator[None]:
    """Raise MemoryError that says what to do, where torch or numpy could not get the memory that a run needs."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not (isinstance(error, MemoryError) or should_reduce_batch_size(error)):
            raise
        raise MemoryError(
            f"there is not enough memory ({first_line(error)}): choose a smaller model, shorter sequences or a smaller "
            "batch"
        ) from error

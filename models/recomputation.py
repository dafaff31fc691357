"""Recomputation: the backward pass computes again what it needs, instead of keeping it in memory."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint


def recomputed(function: Callable[..., Any], *arguments: Any) -> Any:
    """function(*arguments), of which only the arguments are kept: the backward pass computes the rest from them again.

    Values and gradients are the same bytes (Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost"). The
    function must not draw random numbers.
    """
    if not torch.is_grad_enabled():
        return function(*arguments)
    if arguments[0].is_meta:  # where there are no values, only what is kept is of interest
        with saved_tensors_hooks(lambda x: x, lambda x: x):
            return function(*arguments)
    return checkpoint(function, *arguments, use_reentrant=False, preserve_rng_state=False)


def recompute_layers(model: nn.Module) -> int:
    """Let the layers of a model keep only their inputs for the backward pass; returns how many layers these are.

    A step takes about a third longer. The layers are those of the parts that have a method of this name; 0 if none has.
    """
    return sum(module.recompute_layers() for module in model.modules() if hasattr(module, "recompute_layers"))  # type: ignore[operator]

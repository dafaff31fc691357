"""Initial weights, which depend only on the seed and on the name of the parameter."""

import hashlib
import math

import torch
from torch import nn


@torch.no_grad()
def initialize(model: nn.Module, seed: int, gain: float = 1.0) -> None:
    """Draw the weights of all linear, embedding and convolution layers of `model`, in place.

    Each parameter has its own generator, seeded with (seed, name). So two models that differ in one part have equal
    weights in all other parts, and runs with the same seed can be compared in pairs. Linear and embedding weights are
    normal with variance 1 / width; layers named `output` or `down`, which end a residual branch, are divided by
    √(2 · blocks). Convolutions follow He et al. 2015. All are multiplied by `gain`. Biases of these layers are zero;
    other parameters (norms, gates, β) are not changed, and neither is a model with `pretrained` set.
    """
    if getattr(model, "pretrained", False):
        return
    branches = 2 * max(1, len(getattr(model, "blocks", ())))
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            scale = 1 / math.sqrt(module.in_features)
            if name.endswith((".output", ".down")):
                scale /= math.sqrt(branches)
        elif isinstance(module, nn.Embedding):
            scale = 1 / math.sqrt(module.embedding_dim)
        elif isinstance(module, nn.Conv2d):
            scale = math.sqrt(2 * module.groups / (module.out_channels * math.prod(module.kernel_size)))
        else:
            continue
        digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
        drawn = torch.empty(module.weight.shape).normal_(0.0, gain * scale, generator=generator)
        module.weight.copy_(drawn)
        if getattr(module, "bias", None) is not None:
            module.bias.zero_()

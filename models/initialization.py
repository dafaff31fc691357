"""Initial weights that depend on the seed and on a parameter's own name, and on nothing else."""

import hashlib
import math

import torch
from torch import nn


@torch.no_grad()
def initialize(model: nn.Module, seed: int, gain: float = 1.0) -> None:
    """Draw the weights of every linear, embedding and convolution layer of `model` in place.

    Each parameter has a generator of its own, seeded with (seed, name): two models that differ in one part share the
    weights of all others, which is what makes runs of one seed a pair. Linear layers and embeddings are normal with
    variance 1 / width, layers named `output` or `down`, which end a residual branch, smaller by √(2 · blocks);
    convolutions follow He et al. 2015. All of them times `gain`. All else (norms, gates, β, biases) keeps the constants
    it was built with. A model that is `pretrained` keeps all of its weights.
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

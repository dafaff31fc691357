"""Statistics of learned parameters: the β of Swish by channel (S9), the gates of Infini-attention by head (M6)."""

import torch
from torch import nn

from experiments.training.distributed import whole
from models.activations import Activation
from tasks.base import Evaluation

BIN = 0.1


def trained_beta(model: nn.Module) -> Evaluation:
    """Metrics and a histogram of all β of a model; empty if there are none."""
    activations = [module for module in model.modules() if isinstance(module, Activation)]
    betas = [whole(p.detach()) for module in activations for name, p in module.named_parameters() if name == "beta"]
    if not betas:
        return Evaluation({})
    beta = torch.cat(betas).double().cpu()
    bins, counts = torch.unique((beta / BIN).round().long(), return_counts=True)
    metrics = {
        "beta/channels": len(beta),
        "beta/mean": float(beta.mean()),
        "beta/deviation": float(beta.std()),
        "beta/share_0_to_1.5": float(((beta >= 0) & (beta <= 1.5)).double().mean()),
        "beta/peak": BIN * int(bins[counts.argmax()]),
    }
    rows = [{"beta": BIN * index, "share": count / len(beta)} for index, count in zip(bins.tolist(), counts.tolist())]
    return Evaluation(metrics, {"beta": rows})


def gates(model: nn.Module) -> dict[str, float]:
    """The gate σ(β), the share of memory in the output, of every head and layer, and its spread; empty without gates.

    Specialised means below 0.1 or above 0.9, undecided within 0.1 of a half (Munkhdalai et al. 2024, figure 3).
    """
    found = [whole(p.detach()).double().cpu() for name, p in model.named_parameters() if name.endswith(".gate")]
    if not found:
        return {}
    shares = torch.sigmoid(torch.stack(found))  # (layers, heads)
    metrics = {
        "gates/deviation": float(shares.std(correction=0)),
        "gates/specialised": float(((shares < 0.1) | (shares > 0.9)).double().mean()),
        "gates/undecided": float(((shares - 0.5).abs() < 0.1).double().mean()),
        "gates/largest_beta": float(torch.stack(found).abs().max()),
    }
    indices = torch.cartesian_prod(*(torch.arange(size) for size in shares.shape)).tolist()
    return metrics | {f"gates/layer_{layer}/head_{head}": float(shares[layer, head]) for layer, head in indices}

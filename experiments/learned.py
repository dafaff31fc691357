"""What training made of the β of Swish: its distribution over the channels of all layers (S9)."""

import torch
from torch import nn

from models.activations import Activation
from tasks.base import Evaluation

BIN = 0.1


def trained_beta(model: nn.Module) -> Evaluation:
    """Metrics and histogram of every β in a model; none if there is no β."""
    activations = [module for module in model.modules() if isinstance(module, Activation)]
    betas = [p.detach() for module in activations for name, p in module.named_parameters() if name == "beta"]
    if not betas:
        return Evaluation({})
    beta = torch.cat(betas).double().cpu()
    bins, counts = torch.unique((beta / BIN).round().long(), return_counts=True)
    metrics = {
        "beta/mean": float(beta.mean()),
        "beta/deviation": float(beta.std()),
        "beta/share_0_to_1.5": float(((beta >= 0) & (beta <= 1.5)).double().mean()),
        "beta/peak": BIN * int(bins[counts.argmax()]),
    }
    rows = [{"beta": BIN * place, "share": count / len(beta)} for place, count in zip(bins.tolist(), counts.tolist())]
    return Evaluation(metrics, {"beta": rows})

"""How gradients come through a deep network: their norms by layer, and units that are dead."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from tasks.base import Evaluation, device_of
from tasks.image_classification import AT_ONCE, ImageClassification

WORST = 30.0  # decades of imbalance that count for gradients that are zero or not finite
STARTED = 50.0  # percent of the images classified by a network whose training has started; chance is 10
DEAD = 1e-6  # standard deviation of a unit's output over the images, below which it is dead


class GradientFlow(ImageClassification):
    """Classify images with a PlainNetwork, and look at its gradients (S10, S11); see ImageClassification.

    imbalance: decades between the norms of the gradients of the first and the last hidden layer's weights, on one batch
    of training images. dead_units: share of the hidden units whose output is the same for all images that are scored.
    failed: 1 where fewer than half of the images are classified, else 0.
    """

    def evaluate(self, model: nn.Module) -> Evaluation:
        result = super().evaluate(model)
        norms = self.gradient_norms(model)
        rows = [{"layer": index + 1, "norm": norm} for index, norm in enumerate(norms)]
        found = {
            "imbalance": imbalance(norms[0], norms[-1]),
            "dead_units": self.dead_units(model),
            "failed": float(result.metrics["accuracy"] < STARTED),
        }
        return Evaluation(result.metrics | found, result.tables | {"gradients": rows})

    def gradient_norms(self, model: Any) -> list[float]:
        """The norm of the gradient of each hidden layer's weights."""
        batch = {name: tensor.to(device_of(model)) for name, tensor in self.batch(0).items()}
        with torch.enable_grad():
            loss, _ = self.loss(model, batch, None)
            gradients = torch.autograd.grad(loss, [layer.weight for layer in model.layers])
        return [float(gradient.norm()) for gradient in gradients]

    @torch.no_grad()
    def dead_units(self, model: Any) -> float:
        """The share of the hidden units whose output does not depend on the image."""
        outputs: list[Tensor] = []
        hooks = [part.register_forward_hook(lambda *call: outputs.append(call[2])) for part in model.activations]
        model(self.normalize(self.test.pixels[:AT_ONCE]).to(device_of(model)))
        for hook in hooks:
            hook.remove()
        deviations = torch.stack([output.float().std(dim=0) for output in outputs])
        return float((deviations.nan_to_num(0.0) < DEAD).float().mean())


def imbalance(first: float, last: float) -> float:
    """The decades between two norms, at most WORST, which also stands for norms that are zero or not finite."""
    if not all(math.isfinite(norm) and norm > 0 for norm in (first, last)):
        return WORST
    return min(WORST, abs(math.log10(first / last)))

"""A deep network without shortcuts or normalization, in which gradients can vanish and explode."""

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F

from models.ranges import Layers, Width

SIDE = 8  # pixels of the image that is seen


class PlainNetwork(nn.Module):
    """`depth` fully connected layers, each with an activation, and a linear classifier.

    Images (B, channels, H, W), reduced to 8 × 8 pixels, to logits (B, classes). width: units of every layer.
    """

    def __init__(self, channels: int, classes: int, depth: Layers, width: Width, activation: Callable[..., nn.Module]):
        super().__init__()
        if depth < 1 or width < 1:
            raise ValueError(f"model.depth={depth} and model.width={width} must be 1 or more")
        inputs = [channels * SIDE**2, *[width] * (depth - 1)]
        self.layers = nn.ModuleList(nn.Linear(size, width) for size in inputs)
        self.activations = nn.ModuleList(activation(width) for _ in inputs)
        self.classifier = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.adaptive_avg_pool2d(x, SIDE).flatten(1)
        for layer, activation in zip(self.layers, self.activations):
            x = activation(layer(x))
        return self.classifier(x)

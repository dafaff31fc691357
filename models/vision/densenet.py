"""Densely connected networks for small images."""

from collections.abc import Callable

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from models.ranges import Layers, Width


class DenseLayer(nn.Module):
    """Appends `growth` new channels to x: conv(act(norm(x))) (Huang et al. 2017, equation 2).

    bottleneck: a 1 × 1 convolution to 4 × growth channels comes first (section 3, "Bottleneck layers").
    """

    def __init__(self, channels: int, growth: int, bottleneck: bool, activation: Callable[..., nn.Module]):
        super().__init__()
        inputs, steps = channels, []
        if bottleneck:
            inputs = 4 * growth
            steps = [norm_and_activation(channels, activation), nn.Conv2d(channels, inputs, 1, bias=False)]
        last = nn.Conv2d(inputs, growth, 3, padding=1, bias=False)
        self.new = nn.Sequential(*steps, norm_and_activation(inputs, activation), last)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.new(x)], dim=1)


class Transition(nn.Module):
    """act(norm(x)), a 1 × 1 convolution and 2 × 2 average pooling (Huang et al. 2017, section 3, "Pooling layers").

    Pooling comes first here: the two commute, and the convolution then needs a quarter of the operations.
    """

    def __init__(self, channels: int, out_channels: int, activation: Callable[..., nn.Module]):
        super().__init__()
        self.before = norm_and_activation(channels, activation)
        self.conv = nn.Conv2d(channels, out_channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.avg_pool2d(self.before(x), 2))


def norm_and_activation(channels: int, activation: Callable[..., nn.Module]) -> nn.Sequential:
    """act(norm(x))."""
    return nn.Sequential(nn.BatchNorm2d(channels), activation(channels, channel_dimension=1))


class DenseNet(nn.Module):
    """A DenseNet with `depth` layers in three dense blocks: 3n + 4, or 6n + 4 with bottlenecks and compression (BC).

    Huang et al. 2017, section 3, without dropout. Images (B, channels, H, W) to logits (B, classes).
    growth: channels that each of a block's n layers adds, the paper's k. BC also halves the channels between two blocks
    and starts with 2 × growth channels instead of 16. stem_stride: a stride of 2 needs a quarter of the operations.
    Raises ValueError for a depth that is not of this form.
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        depth: Layers,
        growth: Width,
        bottleneck_compression: bool,
        activation: Callable[..., nn.Module],
        stem_stride: PositiveInt = 1,
    ):
        super().__init__()
        period, name = (6, "DenseNet-BC") if bottleneck_compression else (3, "plain DenseNet")
        if depth < period + 4 or (depth - 4) % period:
            valid = ", ".join(str(period * n + 4) for n in (1, 2, 3))
            raise ValueError(f"model.depth={depth}: a {name} has {period}n + 4 layers ({valid}, …)")
        current = 2 * growth if bottleneck_compression else 16
        self.stem = nn.Conv2d(channels, current, 3, stem_stride, padding=1, bias=False)
        body: list[nn.Module] = []
        for block in range(3):
            if block:
                out = current // 2 if bottleneck_compression else current
                body.append(Transition(current, out, activation))
                current = out
            for _ in range((depth - 4) // period):
                body.append(DenseLayer(current, growth, bottleneck_compression, activation))
                current += growth
        self.body = nn.Sequential(*body)
        self.last = norm_and_activation(current, activation)
        self.classifier = nn.Linear(current, classes)

    def forward(self, images: Tensor) -> Tensor:
        x = images.contiguous(memory_format=torch.channels_last)  # a quarter faster on CPUs
        x = self.last(self.body(self.stem(x)))
        return self.classifier(torch.mean(x, dim=(2, 3)))

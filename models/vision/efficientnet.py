"""EfficientNet: inverted bottlenecks with squeeze-and-excitation, scaled in width and depth."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from models.ranges import Factor


class Stage(NamedTuple):
    """A row of Tan & Le 2019, table 1. stride: that of its first block."""

    expansion: int
    kernel: int
    stride: int
    channels: int
    layers: int


STEM, HEAD = 32, 1280  # channels of the first and the last convolution
STAGES = (
    Stage(1, 3, 1, 16, 1),
    Stage(6, 3, 2, 24, 2),
    Stage(6, 5, 2, 40, 2),
    Stage(6, 3, 2, 80, 3),
    Stage(6, 5, 1, 112, 3),
    Stage(6, 5, 2, 192, 4),
    Stage(6, 3, 1, 320, 1),
)
REDUCTIONS = (1, 2, 4, 8, 16, 32)


class SqueezeExcitation(nn.Module):
    """Multiplies each channel by σ(W₂ act(W₁ m)), where m are the channel means (Hu et al. 2018, equation 3)."""

    def __init__(self, channels: int, squeezed: int, activation: Callable[..., nn.Module]):
        super().__init__()
        self.squeeze = nn.Linear(channels, squeezed)
        self.activation = activation(squeezed, channel_dimension=1)
        self.excite = nn.Linear(squeezed, channels)

    def forward(self, x: Tensor) -> Tensor:
        gate = torch.sigmoid(self.excite(self.activation(self.squeeze(x.mean((2, 3))))))  # (B, C)
        return x * gate[:, :, None, None]


class InvertedBottleneck(nn.Module):
    """MBConv: expansion, depthwise convolution, squeeze-and-excitation, projection; a residual if the shapes are equal.

    The squeeze has a quarter of the channels of the block's input (Tan & Le 2019, section 4, and their code).
    """

    def __init__(
        self,
        channels: int,
        out_channels: int,
        expansion: int,
        kernel: int,
        stride: int,
        activation: Callable[..., nn.Module],
    ):
        super().__init__()
        inner = channels * expansion
        self.expand = normed_convolution(channels, inner, 1, 1, activation) if expansion > 1 else nn.Identity()
        self.filter = normed_convolution(inner, inner, kernel, stride, activation, groups=inner)
        self.gating = SqueezeExcitation(inner, max(1, channels // 4), activation)
        self.project = nn.Sequential(nn.Conv2d(inner, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels))
        self.residual = stride == 1 and channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(self.gating(self.filter(self.expand(x))))
        return x + y if self.residual else y


def normed_convolution(
    channels: int, out_channels: int, kernel: int, stride: int, activation: Callable[..., nn.Module], groups: int = 1
) -> nn.Sequential:
    """act(norm(conv(x)))."""
    conv = nn.Conv2d(channels, out_channels, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels), activation(out_channels, channel_dimension=1))


def multiple_of_eight(channels: float) -> int:
    """The nearest multiple of 8 that is at least 8 and at least 0.9 × channels, as in the authors' code."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def strides_for(reduction: int) -> list[int]:
    """The strides of the stem and the stages, whose product is `reduction`: the first strides of 2 become 1."""
    strides: list[int] = []
    for stride in reversed([2, *(stage.stride for stage in STAGES)]):
        strides.insert(0, min(stride, reduction))
        reduction //= strides[0]
    return strides


class EfficientNet(nn.Module):
    """EfficientNet-B0 with `width` times its channels and `depth` times its layers (Tan & Le 2019, equation 3).

    Without dropout and stochastic depth. Images (B, channels, H, W) to logits (B, classes).
    reduction: factor by which the sides of an image shrink; 32 as published, for 224 × 224. A smaller one replaces the
    first strides of 2 by 1, for small images. Raises ValueError for an invalid width, depth or reduction.
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        width: Factor,
        depth: Factor,
        reduction: PositiveInt,
        activation: Callable[..., nn.Module],
    ):
        super().__init__()
        if width <= 0 or depth <= 0:
            raise ValueError(f"model.width={width} and model.depth={depth} must be above 0: they are factors")
        if reduction not in REDUCTIONS:
            raise ValueError(f"model.reduction={reduction} must be one of {', '.join(map(str, REDUCTIONS))}")
        current = multiple_of_eight(STEM * width)
        first_stride, *strides = strides_for(reduction)
        self.stem = normed_convolution(channels, current, 3, first_stride, activation)
        body: list[nn.Module] = []
        for stage, stride in zip(STAGES, strides):
            out = multiple_of_eight(stage.channels * width)
            for _ in range(math.ceil(stage.layers * depth)):
                body.append(InvertedBottleneck(current, out, stage.expansion, stage.kernel, stride, activation))
                current, stride = out, 1
        self.body = nn.Sequential(*body)
        head = multiple_of_eight(HEAD * width)
        self.head = normed_convolution(current, head, 1, 1, activation)
        self.classifier = nn.Linear(head, classes)

    def forward(self, images: Tensor) -> Tensor:
        x = self.head(self.body(self.stem(images)))
        return self.classifier(torch.mean(x, dim=(2, 3)))

"""Pre-activation residual networks for small images."""

from collections.abc import Callable, Sequence

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from models.ranges import Layers, Width


class PreActivationBlock(nn.Module):
    """x + conv(act(norm(conv(act(norm(x)))))) (He et al. 2016, "Identity Mappings", figure 4e)."""

    def __init__(self, channels: int, out_channels: int, stride: int, activation: Callable[..., nn.Module]):
        super().__init__()
        self.norm1 = nn.BatchNorm2d(channels)
        self.activation1 = activation(channels, channel_dimension=1)
        self.conv1 = nn.Conv2d(channels, out_channels, 3, stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.activation2 = activation(out_channels, channel_dimension=1)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.stride, self.widening = stride, out_channels - channels

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x
        if self.stride > 1 or self.widening:  # option A: subsample, and zeros for the new channels
            shortcut = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.widening))
        x = self.conv1(self.activation1(self.norm1(x)))
        return shortcut + self.conv2(self.activation2(self.norm2(x)))


class BottleneckBlock(nn.Module):
    """x + f(act(norm(x))), where f is 1 × 1, 3 × 3 and 1 × 1 convolutions with a quarter of the channels inside.

    If the number of channels changes, a projection of act(norm(x)) replaces x, as in the authors' code (He et al. 2016,
    "Identity Mappings").
    """

    def __init__(self, channels: int, out_channels: int, stride: int, activation: Callable[..., nn.Module]):
        super().__init__()
        inner = out_channels // 4
        self.norm1 = nn.BatchNorm2d(channels)
        self.activation1 = activation(channels, channel_dimension=1)
        self.conv1 = nn.Conv2d(channels, inner, 1, stride, bias=False)
        self.norm2 = nn.BatchNorm2d(inner)
        self.activation2 = activation(inner, channel_dimension=1)
        self.conv2 = nn.Conv2d(inner, inner, 3, padding=1, bias=False)
        self.norm3 = nn.BatchNorm2d(inner)
        self.activation3 = activation(inner, channel_dimension=1)
        self.conv3 = nn.Conv2d(inner, out_channels, 1, bias=False)
        self.projection = None
        if channels != out_channels:
            self.projection = nn.Conv2d(channels, out_channels, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        activated = self.activation1(self.norm1(x))
        shortcut = x if self.projection is None else self.projection(activated)
        x = self.conv2(self.activation2(self.norm2(self.conv1(activated))))
        return shortcut + self.conv3(self.activation3(self.norm3(x)))


class ThreeStages(nn.Module):
    """A 3 × 3 convolution, three stages of blocks (the last two start with a stride of 2) and a linear classifier.

    Images (B, channels, H, W) to logits (B, classes). stem: channels of the first convolution. widths: channels of the
    stages, each with `blocks` blocks of class `block`. stem_stride: a stride of 2 needs a quarter of the operations.
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        stem: int,
        widths: Sequence[int],
        blocks: int,
        block: type[nn.Module],
        stem_stride: int,
        activation: Callable[..., nn.Module],
    ):
        super().__init__()
        self.stem = nn.Conv2d(channels, stem, 3, stem_stride, padding=1, bias=False)
        body: list[nn.Module] = []
        current = stem
        for stage, out in enumerate(widths):
            for index in range(blocks):
                body.append(block(current, out, 2 if stage and not index else 1, activation))
                current = out
        self.body = nn.Sequential(*body)
        self.norm = nn.BatchNorm2d(current)
        self.activation = activation(current, channel_dimension=1)
        self.classifier = nn.Linear(current, classes)

    def forward(self, images: Tensor) -> Tensor:
        x = images.contiguous(memory_format=torch.channels_last)  # up to a sixth faster on CPUs
        x = self.activation(self.norm(self.body(self.stem(x))))
        return self.classifier(torch.mean(x, dim=(2, 3)))


class ResNet(ThreeStages):
    """A pre-activation ResNet with stages of `width`, 2 × `width` and 4 × `width` channels.

    Bottleneck blocks have 4 times as many. depth: number of layers, 6n + 2 with basic blocks and 9n + 2 with
    bottlenecks, for n blocks per stage. Raises ValueError for a depth that is not of this form.
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        depth: Layers,
        width: Width,
        bottleneck: bool,
        activation: Callable[..., nn.Module],
        stem_stride: PositiveInt = 1,
    ):
        period, name = (9, "bottlenecks") if bottleneck else (6, "basic blocks")
        if depth < period + 2 or (depth - 2) % period:
            valid = ", ".join(str(period * n + 2) for n in (1, 2, 3))
            raise ValueError(f"model.depth={depth}: a ResNet of {name} has {period}n + 2 layers ({valid}, …)")
        block, expansion = (BottleneckBlock, 4) if bottleneck else (PreActivationBlock, 1)
        widths = [width * expansion * 2**stage for stage in range(3)]
        super().__init__(channels, classes, width, widths, (depth - 2) // period, block, stem_stride, activation)

"""Pre-activation residual networks for small images."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


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


class ResNet(nn.Module):
    """A pre-activation ResNet of `depth` = 6n + 2 layers in three stages of n blocks, `width`, 2 and 4 × as wide.

    images (B, channels, H, W) to logits (B, classes). Raises ValueError for a depth the family does not have.
    """

    def __init__(self, channels: int, classes: int, depth: int, width: int, activation: Callable[..., nn.Module]):
        super().__init__()
        if depth < 8 or (depth - 2) % 6:
            raise ValueError(f"a ResNet of basic blocks has 6n + 2 layers (8, 14, 20, …), not {depth}")
        self.stem = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        blocks: list[nn.Module] = []
        current = width
        for stage in range(3):
            for index in range((depth - 2) // 6):
                out = width * 2**stage
                blocks.append(PreActivationBlock(current, out, 2 if stage and not index else 1, activation))
                current = out
        self.body = nn.Sequential(*blocks)
        self.norm = nn.BatchNorm2d(current)
        self.activation = activation(current, channel_dimension=1)
        self.classifier = nn.Linear(current, classes)

    def forward(self, images: Tensor) -> Tensor:
        x = self.activation(self.norm(self.body(self.stem(images))))
        return self.classifier(torch.mean(x, dim=(2, 3)))

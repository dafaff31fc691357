"""Wide residual networks for small images."""

from collections.abc import Callable

from pydantic import PositiveInt
from torch import Tensor, nn

from models.ranges import Layers, Width
from models.vision.resnet import ThreeStages


class WideBlock(nn.Module):
    """x + conv(act(norm(conv(act(norm(x)))))), without dropout.

    If the number of channels changes, a projection of act(norm(x)) replaces x (Zagoruyko & Komodakis 2016, figure 1c,
    and their code).
    """

    def __init__(self, channels: int, out_channels: int, stride: int, activation: Callable[..., nn.Module]):
        super().__init__()
        self.norm1 = nn.BatchNorm2d(channels)
        self.activation1 = activation(channels, channel_dimension=1)
        self.conv1 = nn.Conv2d(channels, out_channels, 3, stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.activation2 = activation(out_channels, channel_dimension=1)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.projection = None
        if channels != out_channels:
            self.projection = nn.Conv2d(channels, out_channels, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        activated = self.activation1(self.norm1(x))
        shortcut = x if self.projection is None else self.projection(activated)
        return shortcut + self.conv2(self.activation2(self.norm2(self.conv1(activated))))


class WideResNet(ThreeStages):
    """A wide ResNet with `depth` = 6n + 4 layers: three stages of n blocks with 16, 32 and 64 × `width` channels.

    Zagoruyko & Komodakis 2016, table 1. Raises ValueError for an invalid depth or width.
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        depth: Layers,
        width: Width,
        activation: Callable[..., nn.Module],
        stem_stride: PositiveInt = 1,
    ):
        if depth < 10 or (depth - 4) % 6:
            raise ValueError(f"model.depth={depth}: a wide ResNet has 6n + 4 layers (10, 16, 22, …)")
        if width < 1:
            raise ValueError(f"model.width={width} must be 1 or more: it is a factor")
        widths = [16 * width * 2**stage for stage in range(3)]
        super().__init__(channels, classes, 16, widths, (depth - 4) // 6, WideBlock, stem_stride, activation)

"""Residual networks for small images, as they were published.

They are those of He et al. 2016a for CIFAR (20 to 110 layers), the pre-activation ResNet-18 (2016b), and ResNeXt-29 of
Xie et al. 2017 (table 7 and section 5.3).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


def initialise(net: nn.Module) -> None:
    """Initialise convolutions as torchvision does: He et al. 2015, by fan out."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def _conv(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut without parameters (option A): every other pixel, new channels zero."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = _conv(inputs, outputs, stride), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = _conv(outputs, outputs), nn.BatchNorm2d(outputs)
        self.stride, self.added = stride, outputs - inputs

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.stride > 1 or self.added:
            x = x[:, :, :: self.stride, :: self.stride]
            x = F.pad(x, (0, 0, 0, 0, self.added // 2, self.added - self.added // 2))
        return F.relu(out + x)


class CifarResNet(nn.Module):
    """A network of 6n + 2 layers: a convolution, n blocks each of 16, 32 and 64 channels, pooling, a linear layer."""

    def __init__(self, depth: int, classes: int) -> None:
        super().__init__()
        blocks, rest = divmod(depth - 2, 6)
        if rest or blocks < 1:
            raise ValueError(f"depth must be 6 n + 2 (20, 32, 44, 56, 110, ...), got {depth}")
        self.conv, self.bn = _conv(3, 16), nn.BatchNorm2d(16)
        layers, channels = [], 16
        for width in (16, 32, 64):
            for block in range(blocks):
                layers.append(BasicBlock(channels, width, 2 if block == 0 and width > 16 else 1))
                channels = width
        self.blocks = nn.Sequential(*layers)
        self.fc = nn.Linear(64, classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(F.relu(self.bn(self.conv(x))))
        return self.fc(x.mean((2, 3)))  # type: ignore[no-any-return]


class PreActBlock(nn.Module):
    """A block with normalisation and ReLU before each convolution, and a projection, if any, after the first ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(inputs), _conv(inputs, outputs, stride)
        self.bn2, self.conv2 = nn.BatchNorm2d(outputs), _conv(outputs, outputs)
        self.shortcut: nn.Module | None = None
        if stride > 1 or inputs != outputs:
            self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        active = F.relu(self.bn1(x))
        shortcut = x if self.shortcut is None else self.shortcut(active)
        return self.conv2(F.relu(self.bn2(self.conv1(active)))) + shortcut  # type: ignore[no-any-return]


class PreActResNet(nn.Module):
    """ResNet-18's four stages of two blocks (64 to 512 channels), a 3x3 stem, and the last normalisation and ReLU."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv = _conv(3, 64)
        layers, channels = [], 64
        for width, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
            layers += [PreActBlock(channels, width, stride), PreActBlock(width, width, 1)]
            channels = width
        self.blocks = nn.Sequential(*layers)
        self.bn = nn.BatchNorm2d(512)
        self.fc = nn.Linear(512, classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn(self.blocks(self.conv(x))))
        return self.fc(x.mean((2, 3)))  # type: ignore[no-any-return]


class _Bottleneck(nn.Module):
    def __init__(self, inputs: int, groups: int, width: int, outputs: int, stride: int) -> None:
        super().__init__()
        inner = groups * width
        self.conv1, self.bn1 = nn.Conv2d(inputs, inner, 1, bias=False), nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, 1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3, self.bn3 = nn.Conv2d(inner, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn3(self.conv3(F.relu(self.bn2(self.conv2(out)))))
        return F.relu(out + self.shortcut(x))


class ResNeXt29(nn.Module):
    """Three stages of three blocks with 256, 512 and 1024 outputs.

    Args:
        groups: Paths of the first stage's grouped convolution (its cardinality).
        width: Channels of a path in the first stage; they double from stage to stage.
    """

    def __init__(self, groups: int, width: int, classes: int) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64)
        layers, channels = [], 64
        for stage in range(3):
            outputs = 256 << stage
            for block in range(3):
                stride = 2 if stage and block == 0 else 1
                layers.append(_Bottleneck(channels, groups, width << stage, outputs, stride))
                channels = outputs
        self.blocks = nn.Sequential(*layers)
        self.fc = nn.Linear(channels, classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(F.relu(self.bn(self.conv(x))))
        return self.fc(x.mean((2, 3)))  # type: ignore[no-any-return]

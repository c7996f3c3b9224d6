"""ResNeXt-29 for CIFAR, Xie et al. 2017, table 7 and section 5.3."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from crossfade.lab.nets.resnet import initialise


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
        classes: Outputs.
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

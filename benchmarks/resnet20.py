"""ResNet-20 for CIFAR-10 after He et al. (2015), section 4.2, with the shortcuts of option A: nothing to learn."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Block(nn.Module):
    """Two 3x3 convolutions; where the width doubles, the shortcut takes every second pixel and pads channels."""

    def __init__(self, width_in: int, width_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width_out, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width_out)
        self.conv2 = nn.Conv2d(width_out, width_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width_out)
        self.stride = stride
        self.missing = width_out - width_in

    def forward(self, x: Tensor) -> Tensor:
        """Return [n, width_out, h / stride, w / stride]."""
        shortcut = x
        if self.missing:
            half = self.missing // 2
            shortcut = functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, half, half))
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(y)) + shortcut)


class ResNet20(nn.Module):
    """Three stages of three blocks, of 16, 32 and 64 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = self._stage(16, 16, 1)
        self.layer2 = self._stage(16, 32, 2)
        self.layer3 = self._stage(32, 64, 2)
        self.linear = nn.Linear(64, 10)

    @staticmethod
    def _stage(width_in: int, width_out: int, stride: int) -> nn.Sequential:
        rest = (Block(width_out, width_out, 1) for _ in range(2))
        return nn.Sequential(Block(width_in, width_out, stride), *rest)

    def forward(self, x: Tensor) -> Tensor:
        """Return [n, 10] logits of [n, 3, 32, 32] normalised RGB."""
        x = torch.relu(self.bn1(self.conv1(x)))
        return self.linear(self.layer3(self.layer2(self.layer1(x))).mean((2, 3)))


def resnet20() -> nn.Module:
    """Return the network, without weights."""
    return ResNet20()

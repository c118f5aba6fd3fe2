"""PyTorch factories that the tests name as `tests.sources.models_under_test:...`."""

from __future__ import annotations

import torch
from torch import nn


class Tiny(nn.Module):
    """Two-class CNN with a constant, two convolutions and BatchNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.depthwise = nn.Conv2d(4, 4, 3, groups=4)
        self.head = nn.Linear(4, 2)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.norm(self.conv(image)))
        return self.head(self.depthwise(hidden).mean((2, 3))) + torch.tensor([1.0, 2.0])


class TwoInputs(nn.Module):
    """An image-like output beside a class output; one integer input."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(8, 3)
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, image: torch.Tensor, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        code = self.table(ids).mean(1)
        mapped = self.conv(image) * code[:, :, None, None]
        return mapped, mapped.mean((2, 3))


class BatchOfTwo(nn.Module):
    """A module that works for two samples only."""

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return rows.reshape(2, 3) * 2


class Block(nn.Module):
    """Residual block of the CIFAR ResNets with the parameter-free shortcut (He et al. 2015, section 4.2)."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outside)
        self.stride, self.pad = stride, (outside - inside) // 2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        short = x[:, :, :: self.stride, :: self.stride]
        short = nn.functional.pad(short, (0, 0, 0, 0, self.pad, self.pad))
        return torch.relu(self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x))))) + short)


class ResNet20(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        widths = (16, 16, 32, 64)
        stages = [
            nn.Sequential(
                Block(widths[i], widths[i + 1], 1 if i == 0 else 2),
                *(Block(widths[i + 1], widths[i + 1], 1) for _ in range(2)),
            )
            for i in range(3)
        ]
        self.layer1, self.layer2, self.layer3 = stages
        self.linear = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))


def tiny() -> nn.Module:
    torch.manual_seed(1)
    return Tiny()


def two_inputs() -> nn.Module:
    torch.manual_seed(1)
    return TwoInputs()


def batch_of_two() -> nn.Module:
    return BatchOfTwo()


def resnet20() -> nn.Module:
    return ResNet20()


def broken() -> nn.Module:
    raise RuntimeError("no such dataset")


def not_a_module() -> int:
    return 3

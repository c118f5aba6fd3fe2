"""The models of `coreml.py`: CNNs, a residual net, depthwise nets, one that upsamples, recurrent ones, transformers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


class Residual(nn.Module):
    """Two convolutions with batch norm, and a shortcut."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(),
            nn.Conv2d(channels_out, channels_out, 3, 1, 1, bias=False),
            nn.BatchNorm2d(channels_out),
        )
        self.shortcut = nn.Sequential(
            nn.Conv2d(channels_in, channels_out, 1, stride, bias=False), nn.BatchNorm2d(channels_out)
        )

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.body(x) + self.shortcut(x))


class Inverted(nn.Module):
    """An inverted residual: wide, depthwise, narrow."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        inner = channels * width
        self.body = nn.Sequential(
            nn.Conv2d(channels, inner, 1, bias=False),
            nn.BatchNorm2d(inner),
            nn.ReLU6(),
            nn.Conv2d(inner, inner, 3, 1, 1, groups=inner, bias=False),
            nn.BatchNorm2d(inner),
            nn.Hardswish(),
            nn.Conv2d(inner, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class Upsampling(nn.Module):
    """Two heads over transposed convolution, resampling, instance and group norm."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(3, 8, 3, 2, 1)
        self.instance = nn.InstanceNorm2d(8, affine=True)
        self.up = nn.ConvTranspose2d(8, 8, 3, 2, 1, output_padding=1)
        self.group = nn.GroupNorm(2, 8)
        self.out = nn.Conv2d(8, 2, 3, padding=1, padding_mode="reflect")
        self.slope = nn.PReLU(8)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        low = self.down(x)
        y = self.slope(self.instance(low))
        y = functional.interpolate(y, scale_factor=2, mode="bilinear", align_corners=False) + self.up(low)
        y = functional.leaky_relu(self.group(y), 0.1)
        return self.out(
            y + functional.interpolate(functional.avg_pool2d(y, 2), scale_factor=2.0)
        ), functional.pixel_shuffle(low, 2)


class Recurrent(nn.Module):
    """A bidirectional LSTM, then a GRU: Core ML gets the second one as a loop."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.LSTM(8, 16, batch_first=True, bidirectional=True)
        self.second = nn.GRU(32, 12, batch_first=True)
        self.head = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.second(self.first(x)[0])[0][:, -1])


class Encoder(nn.Module):
    """A text classifier on nn.TransformerEncoder: embedding, two layers of four heads, norms first, gelu."""

    def __init__(self, words: int = 100, width: int = 64, length: int = 16) -> None:
        super().__init__()
        self.embed = nn.Embedding(words, width)
        self.places = nn.Parameter(torch.randn(1, length, width) * 0.1)
        layers = [self._layer(width) for _ in range(2)]
        self.layers = nn.ModuleList(layers)
        self.head = nn.Linear(width, 5)

    @staticmethod
    def _layer(width: int) -> nn.TransformerEncoderLayer:
        return nn.TransformerEncoderLayer(
            width, 4, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens) + self.places
        for layer in self.layers:
            x = layer(x)
        return self.head(x.mean(1))


class Attention(nn.Module):
    """A vision transformer's block with one matrix for query, key and value, and gelu by its tanh formula."""

    def __init__(self, width: int = 64, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.feed = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        parts = self.qkv(self.first(x)).reshape(batch, length, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(query, key, value).transpose(1, 2)
        x = x + self.out(seen.reshape(batch, length, width))
        return x + self.feed(self.second(x))


def _warmed(module: nn.Module, shape: Sequence[int]) -> nn.Module:
    """Return the module with batch statistics of random images, in evaluation mode."""
    module.train()
    with torch.no_grad():
        for _ in range(4):
            module(torch.randn(8, *shape))
    return module.eval()


def build() -> dict[str, tuple[nn.Module, tuple[Tensor, ...]]]:
    """Return every model with the example that it is exported with."""
    resnet = nn.Sequential(
        nn.Conv2d(3, 16, 3, 1, 1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        Residual(16, 16, 1),
        Residual(16, 32, 2),
        Residual(32, 64, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 10),
    )
    depthwise = nn.Sequential(
        nn.Conv2d(3, 24, 3, 2, 1),
        nn.BatchNorm2d(24),
        nn.SiLU(),
        Inverted(24, 4),
        nn.MaxPool2d(2),
        Inverted(24, 6),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(24, 10),
    )
    return {
        "resnet": (_warmed(resnet, (3, 32, 32)), (torch.randn(1, 3, 32, 32),)),
        "depthwise": (_warmed(depthwise, (3, 48, 48)), (torch.randn(1, 3, 48, 48),)),
        "upsampling": (Upsampling().eval(), (torch.randn(1, 3, 24, 24),)),
        "recurrent": (Recurrent().eval(), (torch.randn(1, 10, 8),)),
        "encoder": (Encoder().eval(), (torch.randint(0, 100, (1, 16)),)),
        "attention": (nn.Sequential(Attention(), Attention()).eval(), (torch.randn(1, 16, 64),)),
    }

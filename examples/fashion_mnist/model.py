"""A depthwise-separable CNN for 28x28 grey images, built the way it will be quantized and deployed.

Every convolution is followed by batch normalisation (which converters fold away) and ReLU. Nearly all of
the parameters sit in wide 1x1 convolutions, where one int8 scale per output channel costs little beside them.
"""

from __future__ import annotations

from torch import Tensor, nn

INPUT_SHAPE = (1, 1, 28, 28)

# (input channels, output channels, stride) of each depthwise-separable block. The stem halves 28x28 to 14x14;
# the blocks end at 4x4, where wide layers hold many parameters for few multiplications and training is short.
BLOCKS = ((64, 256, 2), (256, 512, 2), (512, 896, 1))
STEM_CHANNELS = 32


def conv_bn_relu(
    channels_in: int, channels_out: int, *, kernel: int, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    """Return convolution, batch normalisation and ReLU; each side is divided by `stride` and rounded up."""
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(),
    )


class SeparableNet(nn.Module):
    """Two ordinary convolutions, three depthwise-separable blocks, global average and one linear layer."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        # The second layer is an ordinary convolution on purpose. A depthwise one right behind the stem sees
        # one channel only, so nothing averages the int8 rounding of that channel and of its nine weights.
        # Measured with such a layer: both roundings together outweighed those of all later layers.
        layers = [
            conv_bn_relu(1, STEM_CHANNELS, kernel=3, stride=2),
            conv_bn_relu(STEM_CHANNELS, BLOCKS[0][0], kernel=3),
        ]
        for channels_in, channels_out, stride in BLOCKS:
            layers.append(conv_bn_relu(channels_in, channels_in, kernel=3, stride=stride, groups=channels_in))
            layers.append(conv_bn_relu(channels_in, channels_out, kernel=1))
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classify = nn.Linear(BLOCKS[-1][1], classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return float32 logits [N, classes] of float32 images [N, 1, 28, 28] in 0..1."""
        logits: Tensor = self.classify(self.pool(self.features(images)).flatten(1))
        return logits


def create() -> nn.Module:
    """Return the untrained network in evaluation mode; load `model.safetensors` into it."""
    return SeparableNet().eval()

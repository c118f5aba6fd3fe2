"""The sample's network: a depthwise-separable CNN for 8x8 grey images of the ten digits."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

CLASSES = 10
STEM_CHANNELS = 32
# (input channels, output channels, stride) of each depthwise-separable block; 8x8 becomes 4x4 in the second.
BLOCKS = ((32, 64, 1), (64, 128, 2), (128, 192, 1))


def create() -> nn.Module:
    """Return the untrained network in evaluation mode.

    It maps float32 images [N, 1, 8, 8] in 0..1 to float32 logits [N, 10]. Layers are named by what they do,
    as the names appear in the weights file and in per-layer figures.
    """
    from torch import nn

    net = nn.Sequential()

    def add(
        name: str, channels_in: int, channels_out: int, *, kernel: int, stride: int = 1, groups: int = 1
    ) -> None:
        padding = kernel // 2
        conv = nn.Conv2d(channels_in, channels_out, kernel, stride, padding, groups=groups, bias=False)
        net.add_module(name, conv)
        net.add_module(f"{name}_norm", nn.BatchNorm2d(channels_out))
        net.add_module(f"{name}_relu", nn.ReLU())

    add("stem", 1, STEM_CHANNELS, kernel=3)
    for number, (channels_in, channels_out, stride) in enumerate(BLOCKS, start=1):
        add(f"depthwise{number}", channels_in, channels_in, kernel=3, stride=stride, groups=channels_in)
        add(f"pointwise{number}", channels_in, channels_out, kernel=1)
    net.add_module("pool", nn.AdaptiveAvgPool2d(1))
    net.add_module("flatten", nn.Flatten())
    net.add_module("classify", nn.Linear(BLOCKS[-1][1], CLASSES))
    return net.eval()


def trained() -> nn.Module:
    """Return the network with the weights of the sample, in evaluation mode."""
    from safetensors.torch import load_file

    from edgewright.sample import WEIGHTS

    net = create()
    net.load_state_dict(load_file(WEIGHTS))
    return net

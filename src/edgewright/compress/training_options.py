"""How the built-in training trains: its options, the learning rate of each step, and the augmentation of images."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from edgewright.core.errors import UnknownNameError, UsageError
from edgewright.core.tensors import Layout

if TYPE_CHECKING:
    from torch import Tensor

OPTIMIZERS = ("sgd", "adamw")
SCHEDULES = ("onecycle", "cosine", "constant")
AUGMENTATIONS = ("none", "shift", "flip", "shift+flip")
_WARMUP_SHARE = 0.2
_START_SHARE = 1 / 25


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """How the built-in trainer trains.

    Attributes:
        batch_size: samples a step; the incomplete batch at the end of an epoch is left out.
        learning_rate: the highest of the schedule.
        optimizer: "sgd" with Nesterov momentum, or "adamw" (Loshchilov and Hutter, 2019).
        schedule: "onecycle" rises over the first fifth of the steps and falls to 0 as a cosine, "cosine" only
            falls, "constant" does neither.
        weight_decay: of weights; biases and normalisations (at most one axis) have none.
        momentum: of SGD, and the first moment of AdamW.
        label_smoothing: share of the target that is spread over all classes (Szegedy et al., 2016).
        augment: "shift" moves each image by up to `shift_pixels` on both axes, zeros come in; "flip" mirrors half
            of them left to right.
        clip_norm: the L2 norm that the gradient of a step is cut to; None does not cut.
        seed: of the order of samples, augmentation and dropout.
        threads: of PyTorch while it trains; None leaves them as they are. Other counts give other roundings.
    """

    batch_size: int = 128
    learning_rate: float = 0.05
    optimizer: Literal["sgd", "adamw"] = "sgd"
    schedule: Literal["onecycle", "cosine", "constant"] = "onecycle"
    weight_decay: float = 5e-4
    momentum: float = 0.9
    label_smoothing: float = 0.0
    augment: Literal["none", "shift", "flip", "shift+flip"] = "none"
    shift_pixels: int = 2
    clip_norm: float | None = None
    seed: int = 0
    threads: int | None = None

    def __post_init__(self) -> None:
        for kind, got, known in (
            ("optimizer", self.optimizer, OPTIMIZERS),
            ("schedule", self.schedule, SCHEDULES),
            ("augmentation", self.augment, AUGMENTATIONS),
        ):
            if got not in known:
                raise UnknownNameError.of(kind, got, known)
        ranges: tuple[tuple[str, float | None, float, float], ...] = (
            ("batch_size", self.batch_size, 1, 1 << 20),
            ("weight_decay", self.weight_decay, 0, 10),
            ("momentum", self.momentum, 0, 0.9999),
            ("label_smoothing", self.label_smoothing, 0, 0.9999),
            ("shift_pixels", self.shift_pixels, 1, 64),
            ("threads", self.threads, 1, 1024),
        )
        for name, value, low, high in ranges:
            if value is not None and not low <= value <= high:
                raise UsageError(f"{name} is {value}; {low:g}..{high:g} is expected.")
        for name, value in (("learning_rate", self.learning_rate), ("clip_norm", self.clip_norm)):
            if value is not None and not 0 < value < math.inf:
                raise UsageError(f"{name} is {value}; a number above 0 is expected.")


def learning_rate(options: TrainingOptions, step: int, steps: int) -> float:
    """Return the learning rate of `step`, 0..steps-1."""
    if options.schedule == "constant":
        return options.learning_rate
    warm = _WARMUP_SHARE * steps if options.schedule == "onecycle" else 0.0
    if step < warm:
        share = _START_SHARE + (1 - _START_SHARE) * (step / warm)
    else:
        share = 0.5 * (1 + math.cos(math.pi * (step - warm) / (steps - warm)))
    return options.learning_rate * share


def augment(images: Tensor, options: TrainingOptions, layout: Layout) -> Tensor:
    """Return `images`, float [n, ...] of rank 4 in `layout`, shifted and flipped at random as `options` say."""
    import torch

    changed = images.permute(0, 3, 1, 2) if layout == "nhwc" else images
    count, _, height, width = changed.shape
    index = torch.arange(count)[:, None, None]
    margin = options.shift_pixels if "shift" in options.augment else 0
    rows = torch.arange(height).expand(count, height)
    columns = torch.arange(width).expand(count, width)
    if "flip" in options.augment:
        columns = torch.where(torch.rand(count, 1) < 0.5, columns.flip(1), columns)
    if margin:
        changed = torch.nn.functional.pad(changed, (margin,) * 4)
        rows = rows + torch.randint(0, 2 * margin + 1, (count, 1))
        columns = columns + torch.randint(0, 2 * margin + 1, (count, 1))
    moved = changed.permute(0, 2, 3, 1)[index, rows[:, :, None], columns[:, None, :]]
    return moved if layout == "nhwc" else moved.permute(0, 3, 1, 2).contiguous()

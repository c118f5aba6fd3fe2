"""What the LeNet benchmark trains: the two networks, Fashion-MNIST, a teacher's answers, and one training loop."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from edgewright.data.idx import find_idx, read_idx_pair

HELD_OUT_IMAGES = 5_000
EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "fashion_mnist"


class LeNet300(nn.Module):
    """LeNet-300-100: three linear layers with ReLU between them; 266,610 parameters at full width."""

    chain = (("fc1", True), ("fc2", True), ("fc3", False))  # the layers in order, and whether ReLU follows

    def __init__(self, widths: Sequence[int] = (300, 100)) -> None:
        super().__init__()
        first, second = widths
        self.fc1 = nn.Linear(784, first)
        self.fc2 = nn.Linear(first, second)
        self.fc3 = nn.Linear(second, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits [n, 10] of images [n, 1, 28, 28] in 0..1."""
        hidden = functional.relu(self.fc1(images.flatten(1)))
        logits: Tensor = self.fc3(functional.relu(self.fc2(hidden)))
        return logits


class LeNet5(nn.Module):
    """LeNet-5 as Caffe has it, no ReLU behind the convolutions; 431,080 parameters at full width."""

    chain = (("conv1", False), ("conv2", False), ("fc1", True), ("fc2", False))

    def __init__(self, widths: Sequence[int] = (20, 50, 500)) -> None:
        super().__init__()
        first, second, third = widths
        self.conv1 = nn.Conv2d(1, first, 5)
        self.conv2 = nn.Conv2d(first, second, 5)
        self.fc1 = nn.Linear(second * 16, third)
        self.fc2 = nn.Linear(third, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits [n, 10] of images [n, 1, 28, 28] in 0..1."""
        pooled = functional.max_pool2d(self.conv1(images), 2)
        pooled = functional.max_pool2d(self.conv2(pooled), 2)
        logits: Tensor = self.fc2(functional.relu(self.fc1(pooled.flatten(1))))
        return logits


Net = LeNet300 | LeNet5


def without_dead_units(net: Net) -> Net:
    """Return `net` without the neurons and channels that no weight reaches or that reach nothing.

    The function stays the same, to the rounding of float32: what a unit without inputs gives is a constant, which
    goes into the biases behind it (no layer pads, so each output sees it equally often).
    """
    layers = [net.get_submodule(name) for name, _ in net.chain]
    weights = [_tensor(layer, "weight").clone() for layer in layers]
    biases = [_tensor(layer, "bias").clone() for layer in layers]
    before: list[int] = []
    while before != (sizes := [len(weight) for weight in weights]):
        before = sizes
        for place, (_, has_relu) in enumerate(net.chain[:-1]):
            units = len(weights[place])
            behind = weights[place + 1].reshape(len(weights[place + 1]), units, -1)
            is_fed, is_used = weights[place].flatten(1).any(1), behind.any(2).any(0)
            constant = biases[place].relu() if has_relu else biases[place]
            biases[place + 1] += behind.sum(2) @ (constant * ~is_fed)
            kept = is_fed & is_used
            if not kept.any():
                kept[0] = True
            shape = weights[place + 1].shape
            weights[place], biases[place] = weights[place][kept], biases[place][kept]
            weights[place + 1] = behind[:, kept].reshape(shape[0], -1, *shape[2:])
    smaller = type(net)([len(weight) for weight in weights[:-1]])
    for (name, _), weight, bias in zip(net.chain, weights, biases, strict=True):
        layer = smaller.get_submodule(name)
        layer.register_parameter("weight", nn.Parameter(weight.contiguous()))
        layer.register_parameter("bias", nn.Parameter(bias))
    return smaller.eval()


def _tensor(layer: nn.Module, name: str) -> Tensor:
    value = getattr(layer, name)
    assert isinstance(value, Tensor)
    return value.detach()


@dataclass(frozen=True, kw_only=True)
class Images:
    """Images float32 [n, 1, 28, 28] in 0..1, labels int64 [n], and what the teacher says of them.

    Attributes:
        taught: float32 [2, n, 10], the teacher's logits of each image and of its mirror image; None without one.
    """

    images: Tensor
    labels: Tensor
    taught: Tensor | None = None

    def slice(self, start: int, end: int) -> Images:
        """Return the samples start..end."""
        taught = None if self.taught is None else self.taught[:, start:end]
        return Images(images=self.images[start:end], labels=self.labels[start:end], taught=taught)


def read_images(folder: Path, prefix: str) -> Images:
    """Return the split "train" or "t10k" of the IDX files in `folder`."""
    pixels, labels = read_idx_pair(find_idx(folder, prefix))
    images = torch.from_numpy(pixels.astype(np.float32) / np.float32(255)).unsqueeze(1)
    return Images(images=images, labels=torch.from_numpy(labels))


def teacher_logits(images: Tensor, data: Path, work: Path, weights: Path | None) -> Tensor:
    """Return float32 [2, n, 10]: the logits of the example's separable CNN for `images` and their mirror images.

    Its weights are `weights`, or trained by the example's own script into `work` (minutes); the logits are kept.
    """
    kept = work / "teacher.npy"
    if not kept.is_file():
        if weights is None:
            weights = work / "teacher" / "model.safetensors"
            if not weights.is_file():
                command = [sys.executable, str(EXAMPLE / "train.py"), "--data", str(data)]
                subprocess.run([*command, "--threads", "1", "--out", str(weights.parent)], check=True)
        sys.path.insert(0, str(EXAMPLE))
        from model import create

        teacher: nn.Module = create()
        teacher.load_state_dict(load_file(weights))
        with torch.inference_mode():
            views = [
                torch.cat([teacher(part) for part in view.split(500)]) for view in (images, images.flip(3))
            ]
        np.save(kept, torch.stack(views).numpy())
    return torch.from_numpy(np.load(kept))


@dataclass(frozen=True, kw_only=True)
class Loop:
    """A training loop as a user has one: `Loop(...).train` is called with (module, epochs).

    SGD with Nesterov momentum on images, some mirrored at random, in bfloat16 with float32 weights. The rate falls from
    `rate` to 0 along a cosine; a single epoch, as between two steps of pruning, runs at `steady_rate`, if given.

    Attributes:
        samples: with `taught`, the loss is `alpha` of the divergence to the teacher at `temperature` (times its
            square, Hinton, Vinyals, Dean 2015) and the rest of the cross-entropy.
        mirrored: share of the images that are mirrored. It helps a network with weights to spare; one of few weights
            has none for views that the test does not show.
        clip_norm: the L2 norm that the gradient of a step is cut to; None does not cut.
        dropout: share of the inputs of each linear layer that are set to zero, the image's excepted.
    """

    samples: Images
    rate: float
    steady_rate: float | None = None
    weight_decay: float = 0.0
    dropout: float = 0.0
    mirrored: float = 0.5
    clip_norm: float | None = None
    batch: int = 256
    temperature: float = 4.0
    alpha: float = 0.9

    def function(self) -> Callable[[nn.Module, int], None]:
        """Return the loop as `train(module, epochs)`."""
        images = self.samples.images.bfloat16()
        views = torch.stack([images, images.flip(3)])

        def train(module: nn.Module, epochs: int) -> None:
            hooks = self._add_dropout(module)
            self._train(module, views, epochs)
            for hook in hooks:
                hook.remove()

        return train

    def _train(self, module: nn.Module, views: Tensor, epochs: int) -> None:
        optimizer = torch.optim.SGD(
            module.parameters(),
            lr=self.rate,
            momentum=0.9,
            nesterov=True,
            weight_decay=self.weight_decay,
            fused=True,
        )
        module.train()
        count = len(self.samples.labels)
        batches = count // self.batch
        total, done = batches * epochs, 0
        for _ in range(epochs):
            mirrored = (torch.rand(count) < self.mirrored).long()
            order = torch.randperm(count)
            for chosen in order[: batches * self.batch].split(self.batch):
                rate = self._rate_at(done / total)
                if epochs == 1 and self.steady_rate is not None:
                    rate = self.steady_rate
                for group in optimizer.param_groups:
                    group["lr"] = rate
                with torch.autocast("cpu", torch.bfloat16):
                    logits = module(views[mirrored[chosen], chosen])
                optimizer.zero_grad(set_to_none=True)
                self._loss(logits.float(), chosen, mirrored[chosen]).backward()  # type: ignore[no-untyped-call]
                if self.clip_norm is not None:
                    nn.utils.clip_grad_norm_(module.parameters(), self.clip_norm)
                optimizer.step()
                done += 1
        module.eval()

    def _rate_at(self, progress: float) -> float:
        warm_up = min(1.0, progress / 0.03 + 0.01)
        return self.rate * warm_up * (1 + math.cos(math.pi * progress)) / 2

    def _loss(self, logits: Tensor, chosen: Tensor, mirrored: Tensor) -> Tensor:
        hard = functional.cross_entropy(logits, self.samples.labels[chosen])
        if self.samples.taught is None:
            return hard
        wanted = functional.log_softmax(self.samples.taught[mirrored, chosen] / self.temperature, 1)
        given = functional.log_softmax(logits / self.temperature, 1)
        soft = functional.kl_div(given, wanted, reduction="batchmean", log_target=True)
        return (1 - self.alpha) * hard + self.alpha * self.temperature**2 * soft

    def _add_dropout(self, module: nn.Module) -> list[torch.utils.hooks.RemovableHandle]:
        if self.dropout == 0:
            return []
        layers = [
            layer for layer in module.modules() if isinstance(layer, nn.Linear) and layer.in_features != 784
        ]

        def drop(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return (functional.dropout(inputs[0], self.dropout), *inputs[1:])

        return [layer.register_forward_pre_hook(drop) for layer in layers]


def accuracy(module: nn.Module, samples: Images) -> float:
    """Return the share of samples whose largest logit is the labelled class, 0..1."""
    module.eval()
    with torch.inference_mode():
        parts = zip(samples.images.split(1000), samples.labels.split(1000), strict=True)
        hits = sum(int((module(images).argmax(1) == labels).sum()) for images, labels in parts)
    return hits / len(samples.labels)

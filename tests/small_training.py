"""A model that trains in a second, and training functions that behave in every way a user's may."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import torch
from torch import nn

from edgewright import sample

BATCH = 64


def create() -> nn.Module:
    """Return a small network for 8x8 images, with the same weights every time."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(128, 10)
    ).eval()


def create_for_five() -> nn.Module:
    """Return a network with another number of classes."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 5)).eval()


def train(module: nn.Module, epochs: int) -> None:
    """Train on the digits of the demo, as a user's loop would."""
    import numpy as np

    with np.load(sample.CALIBRATION_DATA) as data:
        images, labels = torch.from_numpy(data["inputs"]), torch.from_numpy(data["labels"])
    optimiser = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    module.train()
    for _ in range(epochs):
        for start in range(0, len(labels), BATCH):
            optimiser.zero_grad()
            loss = nn.functional.cross_entropy(
                module(images[start : start + BATCH]), labels[start : start + BATCH]
            )
            loss.backward()
            optimiser.step()
    module.eval()


def train_to_nan(module: nn.Module, epochs: int) -> None:
    """Leave NaN in the weights."""
    with torch.no_grad():
        next(iter(module.parameters())).fill_(float("nan"))


def train_and_return_nan(module: nn.Module, epochs: int) -> float:
    """Return a loss that is no number."""
    return float("nan")


def train_and_crash(module: nn.Module, epochs: int) -> None:
    """Fail as a user's code does."""
    raise ValueError("no more batches")


def train_and_be_killed_once(module: nn.Module, epochs: int) -> None:
    """Be killed by the system the first time that $EDGEWRIGHT_TEST_MARKER does not exist; train after that."""
    marker = Path(os.environ["EDGEWRIGHT_TEST_MARKER"])
    if not marker.exists():
        marker.write_text("killed")
        os.kill(os.getpid(), signal.SIGKILL)
    train(module, epochs)

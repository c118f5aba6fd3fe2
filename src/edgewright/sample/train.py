"""Train the sample and rebuild its files: `python -m edgewright.sample.train [--out FOLDER]`.

It needs scikit-learn, torch and safetensors. The data are the UCI "Optical Recognition of Handwritten Digits"
as scikit-learn ships them (1797 images of 8x8 pixels, grey levels 0..16). They are split once, seeded and
with equal class shares, into 1200 training and 597 evaluation images. The evaluation part takes no decision:
the number of epochs and every rate are fixed beforehand.
"""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgewright.sample import CALIBRATION_DATA, EVAL_DATA, WEIGHTS
from edgewright.sample.digits import create

if TYPE_CHECKING:
    import torch

SEED = 7
EPOCHS = 60
BATCH = 32
EVAL_IMAGES = 597
PEAK_LEARNING_RATE = 0.05
WEIGHT_DECAY = 5e-4
LABEL_SMOOTHING = 0.05
GREY_LEVELS = 16


@dataclass(frozen=True, kw_only=True)
class Split:
    """Inputs float32 [N, 1, 8, 8] in 0..1 and labels int64 [N]."""

    inputs: np.ndarray
    labels: np.ndarray

    def save(self, path: Path) -> None:
        """Write both arrays to `path` as a compressed .npz."""
        np.savez_compressed(path, inputs=self.inputs, labels=self.labels)


def load_splits(seed: int = SEED) -> tuple[Split, Split]:
    """Return the training and the evaluation part of the digits."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    inputs = (digits.images / GREY_LEVELS).astype(np.float32)[:, None]
    labels = digits.target.astype(np.int64)
    parts = train_test_split(inputs, labels, test_size=EVAL_IMAGES, stratify=labels, random_state=seed)
    return Split(inputs=parts[0], labels=parts[2]), Split(inputs=parts[1], labels=parts[3])


def shifted(inputs: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Return `inputs` [N, 1, 8, 8], each moved by -1, 0 or 1 pixel both ways; zeros come in at the border."""
    import torch

    side = inputs.shape[-1]
    padded = torch.nn.functional.pad(inputs, (1, 1, 1, 1))[:, 0]
    rows, columns = torch.randint(0, 3, (2, len(inputs), 1), generator=generator) + torch.arange(side)
    index = torch.arange(len(inputs))[:, None, None]
    return padded[index, rows[:, :, None], columns[:, None, :]].unsqueeze(1)


def train(split: Split, *, epochs: int = EPOCHS, seed: int = SEED) -> torch.nn.Module:
    """Return the network trained on `split`, in evaluation mode; print the loss of every tenth epoch."""
    import torch

    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    inputs, labels = torch.from_numpy(split.inputs), torch.from_numpy(split.labels)
    model = create().train()
    batches = max(1, len(labels) // BATCH)
    optimiser = torch.optim.SGD(
        model.parameters(), lr=PEAK_LEARNING_RATE, momentum=0.9, weight_decay=WEIGHT_DECAY, nesterov=True
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=PEAK_LEARNING_RATE, total_steps=epochs * batches + 1, cycle_momentum=False
    )
    loss_of = torch.nn.CrossEntropyLoss(label_smoothing=LABEL_SMOOTHING)
    for epoch in range(1, epochs + 1):
        order = torch.randperm(len(labels), generator=generator)
        loss_sum = 0.0
        for step in range(batches):
            chosen = order[step * BATCH : (step + 1) * BATCH]
            optimiser.zero_grad()
            loss = loss_of(model(shifted(inputs[chosen], generator)), labels[chosen])
            loss.backward()
            optimiser.step()
            schedule.step()
            loss_sum += loss.item()
        if epoch % 10 == 0 or epoch == epochs:
            print(f"epoch {epoch}/{epochs}: mean loss {loss_sum / batches:.4f}", flush=True)
    return model.eval()


def accuracy(model: torch.nn.Module, split: Split) -> float:
    """Return the share of images whose largest logit is the labelled class, 0..1."""
    import torch

    with torch.inference_mode():
        predicted = model(torch.from_numpy(split.inputs)).argmax(1).numpy()
    return float((predicted == split.labels).mean())


def main(arguments: list[str] | None = None) -> int:
    """Train, print the accuracy on the evaluation part, write the three files."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument(
        "--out", type=Path, default=WEIGHTS.parent, help="folder to write to (default: the package's)"
    )
    out = parser.parse_args(arguments).out
    # Waiting threads must not spin: the layers are tiny, the cores may be shared. Torch reads it on import.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    import torch
    from safetensors.torch import save

    # One thread: the sums then have one order, and the weights can be reproduced.
    torch.set_num_threads(1)
    training, evaluation = load_splits()
    start_s = time.monotonic()
    model = train(training)
    train_s = time.monotonic() - start_s
    parameters = sum(parameter.numel() for parameter in model.parameters())

    out.mkdir(parents=True, exist_ok=True)
    # The batch counters are int64 scalars that only training reads; strict loading still expects them.
    (out / WEIGHTS.name).write_bytes(save(model.state_dict()))
    evaluation.save(out / EVAL_DATA.name)
    training.save(out / CALIBRATION_DATA.name)
    top1 = accuracy(model, evaluation)
    print(f"{parameters} parameters, {train_s:.0f} s; top-1 {top1:.2%} of {len(evaluation.labels)} images")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

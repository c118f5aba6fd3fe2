"""Train the depthwise-separable CNN on Fashion-MNIST and write what `edgewright build` needs.

    python examples/fashion_mnist/train.py --data FOLDER --out out/fashion

FOLDER holds the four `.gz` files of https://github.com/zalandoresearch/fashion-mnist (MIT). Written to --out:
model.safetensors, eval.npz (all 10,000 test images and labels), calibration.npz (512 training images) and
metrics.json. The same seed and thread count on the same machine give the same weights.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import struct
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

# Busy-waiting OpenMP threads stall each other when other work shares the cores (measured: epochs 10x slower).
# It has to be set before torch loads OpenMP.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import torch
from model import create
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[2]
DEFAULT_DATA = ROOT.parent / "shared" / "assets" / "data" / "fashion-mnist"
SIDE = 28
MAX_SHIFT_PIXELS = 2
CALIBRATION_IMAGES = 512


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What, besides the data, decides the trained weights."""

    epochs: int
    seed: int
    threads: int
    batch: int = 128
    peak_learning_rate: float = 0.1
    warmup_fraction: float = 0.2
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.05


@dataclass(frozen=True, kw_only=True)
class Split:
    """Images float32 [N, 1, 28, 28] in 0..1 and labels int64 [N]."""

    images: Tensor
    labels: Tensor


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Return the uint8 array of a gzipped IDX file.

    Its header is big-endian: two zero bytes, type 8 (unsigned bytes), the rank, one uint32 per dimension.

    Raises:
        ValueError: the file is not gzip, not IDX of bytes, or shorter or longer than its header says.
    """
    try:
        content = gzip.decompress(path.read_bytes())
    except (EOFError, gzip.BadGzipFile) as err:
        raise ValueError(f"{path} is not a complete gzip file ({err}). Download it again.") from err
    if len(content) < 4 or content[:3] != b"\x00\x00\x08":
        raise ValueError(
            f"{path} starts with {content[:4]!r}, expected an IDX file of unsigned bytes (00 00 08)."
        )
    rank = content[3]
    header_bytes = 4 + 4 * rank
    if len(content) < header_bytes:
        raise ValueError(f"{path} ends inside its IDX header. Download it again.")
    shape = struct.unpack(f">{rank}I", content[4:header_bytes])
    values = np.frombuffer(content, np.uint8, offset=header_bytes)
    if values.size != int(np.prod(shape)):
        raise ValueError(
            f"{path} holds {values.size} values, but its header says {shape}. Download it again."
        )
    return values.reshape(shape)


def read_split(folder: Path, prefix: str) -> Split:
    """Return the split `prefix` ("train" or "t10k") of the IDX files in `folder`.

    Raises:
        ValueError: images and labels do not match, or are not 28x28 images with classes 0..9.
    """
    images = read_idx(folder / f"{prefix}-images-idx3-ubyte.gz")
    labels = read_idx(folder / f"{prefix}-labels-idx1-ubyte.gz")
    if images.ndim != 3 or images.shape[1:] != (SIDE, SIDE) or labels.shape != images.shape[:1]:
        raise ValueError(
            f"{folder}: got images {images.shape} and labels {labels.shape}, expected [N, 28, 28] and [N]."
        )
    if labels.size == 0 or labels.max() > 9:
        raise ValueError(f"{folder}: {prefix} labels must be a non-empty list of classes 0..9.")
    # Division by 255 keeps the 256 grey levels on one uniform grid, so that an 8-bit input loses nothing.
    scaled = torch.from_numpy(images.astype(np.float32) / np.float32(255)).unsqueeze(1)
    return Split(images=scaled, labels=torch.from_numpy(labels.astype(np.int64)))


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Return `images` [N, 1, 28, 28], each mirrored with probability 1/2 and shifted by up to 2 pixels."""
    count = len(images)
    mirrored = torch.rand(count, 1, 1, 1, generator=generator) < 0.5
    images = torch.where(mirrored, images.flip(3), images)
    padded = nn.functional.pad(images, (MAX_SHIFT_PIXELS,) * 4)[:, 0]
    shifts = torch.randint(0, 2 * MAX_SHIFT_PIXELS + 1, (2, count, 1), generator=generator)
    rows, columns = shifts + torch.arange(SIDE)
    index = torch.arange(count)[:, None, None]
    return padded[index, rows[:, :, None], columns[:, None, :]].unsqueeze(1)


def train(split: Split, recipe: Recipe) -> nn.Module:
    """Return the network trained on `split`, in evaluation mode; prints the loss and the time left."""
    torch.manual_seed(recipe.seed)
    generator = torch.Generator().manual_seed(recipe.seed)
    model = create().train()
    # Channels-last is a quarter faster for these layers on CPUs; it changes the memory order, not the shapes.
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    batches = max(1, len(split.labels) // recipe.batch)
    steps = batches * recipe.epochs
    optimiser = torch.optim.SGD(
        model.parameters(),
        lr=recipe.peak_learning_rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=True,
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser,
        max_lr=recipe.peak_learning_rate,
        total_steps=steps + 1,
        pct_start=recipe.warmup_fraction,
        cycle_momentum=False,
    )
    loss_of = nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)
    start_s = time.monotonic()
    done, left_s = 0, 0.0
    for epoch in range(1, recipe.epochs + 1):
        order = torch.randperm(len(split.labels), generator=generator)
        loss_sum = 0.0
        for step in range(batches):
            chosen = order[step * recipe.batch : (step + 1) * recipe.batch]
            images = augment(split.images[chosen], generator).contiguous(memory_format=torch.channels_last)
            optimiser.zero_grad()
            loss = loss_of(model(images), split.labels[chosen])
            loss.backward()
            optimiser.step()
            schedule.step()
            loss_sum += loss.item()
            done += 1
            left_s = (time.monotonic() - start_s) / done * (steps - done)
            if done % 50 == 0 or step + 1 == batches:
                show_progress(
                    f"epoch {epoch}/{recipe.epochs}  loss {loss_sum / (step + 1):.4f}  {left_s:.0f} s left"
                )
        if not sys.stdout.isatty():
            print(
                f"epoch {epoch}/{recipe.epochs}  loss {loss_sum / batches:.4f}  {left_s:.0f} s left",
                flush=True,
            )
    show_progress("")
    return model.eval()


def show_progress(line: str) -> None:
    """Rewrite the terminal's last line; a log file gets one line an epoch instead."""
    if sys.stdout.isatty():
        print(f"\r{line:<60}", end="", flush=True)


def accuracy(model: nn.Module, split: Split) -> float:
    """Return the share of images whose largest logit is the labelled class, 0..1."""
    with torch.inference_mode():
        hits = [
            (model(images).argmax(1) == labels).sum().item()
            for images, labels in zip(
                torch.split(split.images, 500), torch.split(split.labels, 500), strict=True
            )
        ]
    return float(sum(hits)) / len(split.labels)


def write_npz(path: Path, split: Split) -> None:
    """Write `inputs` float32 [N, 1, 28, 28] and `labels` int64 [N]."""
    np.savez_compressed(path, inputs=split.images.numpy(), labels=split.labels.numpy())


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, help="folder with the four IDX .gz files")
    parser.add_argument("--out", type=Path, default=Path("out/fashion_mnist"), help="folder to write to")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Train, evaluate, write the files; return the exit code (2: unusable data or options)."""
    options = parse(arguments)
    if options.epochs < 1 or options.threads < 1:
        print("error: --epochs and --threads must be at least 1.", file=sys.stderr)
        return 2
    torch.set_num_threads(options.threads)
    try:
        training, evaluation = read_split(options.data, "train"), read_split(options.data, "t10k")
    except (OSError, ValueError) as err:
        print(f"error: {err}", file=sys.stderr)
        return 2
    recipe = Recipe(epochs=options.epochs, seed=options.seed, threads=options.threads)
    start_s = time.monotonic()
    model = train(training, recipe)
    train_s = time.monotonic() - start_s
    top1 = accuracy(model, evaluation)

    options.out.mkdir(parents=True, exist_ok=True)
    weights = {name: value.contiguous() for name, value in model.state_dict().items()}
    (options.out / "model.safetensors").write_bytes(save(weights))
    write_npz(options.out / "eval.npz", evaluation)
    chosen = np.random.default_rng(recipe.seed).permutation(len(training.labels))[:CALIBRATION_IMAGES]
    write_npz(
        options.out / "calibration.npz", Split(images=training.images[chosen], labels=training.labels[chosen])
    )
    metrics = {
        "top1": top1,
        "eval_images": len(evaluation.labels),
        "train_images": len(training.labels),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "train_s": round(train_s, 1),
        "torch": torch.__version__,
        "recipe": asdict(recipe),
    }
    (options.out / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    print(
        f"top-1 {top1:.2%} of {len(evaluation.labels)} images; trained {train_s:.0f} s; wrote {options.out}"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""Quantization-aware training that survives the export: the trained network against its artifacts, in real runtimes.

    python benchmarks/compression/qat.py --work out/compression/qat

The depthwise-separable CNN of examples/fashion_mnist (trained first, where --weights gives none) is trained further
with quantization, in w8a8 and w4a8, and in w8a8 from a network that lost channels by structured pruning. The top-1
accuracy of the trained network, still in PyTorch and fake-quantized, is compared on the same 10,000 test images with
that of the artifact built from the exported program, run by each runtime itself, one image at a time. Intervals are
those of paired samples (95 %). Asked for: at most 0.1 points between the two in every runtime, and w4a8 at most 1
point below the float network.

--tune trains without the last 5,000 training images and reports on them (a float network from elsewhere may have seen
them). No choice was made on the test images. What was trained stays in --work, so that a second run only prints.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

# Busy threads of OpenMP stall each other when other work shares the cores; read when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples" / "fashion_mnist"))
from model import create
from reporting import REPOSITORY, conditions, parser_for, print_table, write_json

from edgewright.backends import registry
from edgewright.compress.pruning import prune
from edgewright.compress.qat import quantize_aware
from edgewright.compress.training import Trainer, TrainingOptions
from edgewright.core.target import Precision, Target
from edgewright.core.tensors import Array
from edgewright.data.datasets import Dataset, make_dataset
from edgewright.data.idx import find_idx, read_idx_pair
from edgewright.measure.accuracy import Drop, compare_scores
from edgewright.sources.load import load

EXAMPLE = REPOSITORY / "examples" / "fashion_mnist"
RUNTIMES = ("litert", "onnxruntime", "openvino", "executorch")
EXPORT_POINTS = 0.1
LOW_BITS_POINTS = 1.0
HELD_OUT = 5_000
CALIBRATION_IMAGES = 512
BATCH = 32
SEED = 0


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How one network is trained; the rates are the highest of a one-cycle schedule of SGD.

    Attributes:
        count: training images, taken once; a trained network needs few to get used to its rounding.
        macs: share that is left by structured pruning before; None prunes nothing.
        pruned_count: training images between pruning and quantization.
    """

    title: str
    precision: str
    count: int = 9_600
    rate: float = 0.004
    macs: float | None = None
    pruned_count: int = 19_200
    pruned_rate: float = 0.02


PLANS = (
    Plan(title="w8a8", precision="w8a8"),
    Plan(title="w4a8", precision="w4a8"),
    Plan(title="pruned, w8a8", precision="w8a8", macs=0.7, pruned_count=9_600),
)


@dataclass(frozen=True, kw_only=True)
class Images:
    """What is trained on and what is reported on."""

    training: Dataset
    evaluation: Dataset


def read_images(assets: Path, *, is_tuning: bool) -> Images:
    """Return float32 [n, 1, 28, 28] images in 0..1, and their labels."""

    def split(prefix: str) -> Dataset:
        images, labels = read_idx_pair(find_idx(assets / "data" / "fashion-mnist", prefix))
        scaled = images[:, np.newaxis].astype(np.float32) / np.float32(255)
        return make_dataset(
            {"images": scaled}, labels.astype(np.int64), description=f"Fashion-MNIST {prefix}"
        )

    training = split("train")
    if not is_tuning:
        return Images(training=training, evaluation=split("t10k"))
    count = training.count - HELD_OUT
    return Images(
        training=part(training, 0, count),
        evaluation=part(training, count, training.count),
    )


def part(data: Dataset, start: int, end: int) -> Dataset:
    """Return the samples start..end-1."""
    assert data.labels is not None
    inputs = {name: array[start:end] for name, array in data.inputs.items()}
    return make_dataset(inputs, data.labels[start:end], description=data.description)


def trainer_of(data: Dataset, rate: float) -> Trainer:
    """Return a trainer that tells how far it is."""
    told_s = [time.monotonic()]

    def report(line: str, share: float | None) -> None:
        if time.monotonic() - told_s[0] > 20 or share == 1.0:
            told_s[0] = time.monotonic()
            print(f"  {line}", file=sys.stderr, flush=True)

    options = TrainingOptions(
        learning_rate=rate,
        weight_decay=1e-4,
        label_smoothing=0.05,
        augment="shift+flip",
        seed=SEED,
        threads=1,
    )
    return Trainer(data, options, report=report)


def outputs_of(module: torch.nn.Module, images: Array) -> Array:
    """Return the scores float32 [n, classes] of `module`, as it is."""
    with torch.no_grad():
        batches = [module(torch.from_numpy(images[i : i + 250])).numpy() for i in range(0, len(images), 250)]
    return np.concatenate(batches)


def trained(plan: Plan, float_net: torch.nn.Module, images: Images, folder: Path) -> tuple[Path, Array]:
    """Return the exported program and the scores of the fake-quantized network; both are kept in `folder`."""
    path, kept = folder / "quantized.pt2", folder / "trained.npy"
    if path.is_file() and kept.is_file():
        return path, np.load(kept)
    folder.mkdir(parents=True, exist_ok=True)
    inputs = torch.from_numpy(images.training.inputs["images"])
    chosen = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(SEED))[:CALIBRATION_IMAGES]
    network, example = float_net, (inputs[:2],)
    if plan.macs is not None:
        print(f"{plan.title}: pruning to {plan.macs:.0%} of the MACs", file=sys.stderr, flush=True)
        network = prune(
            network,
            example,
            macs=plan.macs,
            train=trainer_of(part(images.training, 0, plan.pruned_count), plan.pruned_rate),
            epochs=1,
            checkpoints=folder / "pruned",
        )
    trainer = trainer_of(part(images.training, 0, plan.count), plan.rate)
    found: list[Array] = []

    def train(module: torch.nn.Module, epochs: int) -> None:
        trainer(module, epochs)
        found.append(outputs_of(module.eval(), images.evaluation.inputs["images"]))

    print(f"{plan.title}: training with quantization", file=sys.stderr, flush=True)
    exported = quantize_aware(
        network,
        example,
        precision="w4a8" if plan.precision == "w4a8" else "w8a8",
        train=train,
        calibration=[(batch,) for batch in inputs[chosen].split(BATCH)],
        seed=SEED,
    )
    torch.export.save(exported, path)
    np.save(kept, found[0])
    return path, found[0]


def built(path: Path, runtime: str, precision: str, images: Array, folder: Path) -> Array:
    """Return the scores of the artifact for `runtime`, built and run in a fresh process; kept in `folder`."""
    kept = folder / f"{runtime}.npy"
    if not kept.is_file():
        print(f"{folder.name}: {runtime}", file=sys.stderr, flush=True)
        np.save(folder / "images.npy", images)
        command = [
            sys.executable,
            __file__,
            "--only",
            runtime,
            "--precision",
            precision,
            "--work",
            str(folder),
        ]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    return np.load(kept)


def run_only(runtime: str, precision: str, folder: Path) -> None:
    """Build quantized.pt2 in `folder` for `runtime` and write its scores of images.npy, one image at a time."""
    images = np.load(folder / "images.npy")
    made = folder / f"{runtime}-artifact"
    made.mkdir(exist_ok=True)
    program = load(str(folder / "quantized.pt2"), workdir=made)
    assert program.precision == precision, f"the program is read as {program.precision}"
    backend, target = registry.get(runtime), Target(runtime=runtime, precision=Precision.parse(precision))
    artifact = backend.convert(program, target, None, made)
    session = backend.open(artifact, target)
    name = artifact.inputs[0].name
    rows = [next(iter(session.run({name: images[i : i + 1]}).values())) for i in range(len(images))]
    session.close()
    np.save(folder / f"{runtime}.npy", np.concatenate(rows))


def float_network(weights: Path | None, work: Path, data: Path) -> torch.nn.Module:
    """Return the trained float network, in evaluation mode."""
    if weights is None:
        weights = work / "float" / "model.safetensors"
    if not weights.is_file():
        command = [
            sys.executable,
            str(EXAMPLE / "train.py"),
            "--data",
            str(data),
            "--out",
            str(work / "float"),
        ]
        subprocess.run(command, check=True, stdout=sys.stderr)
    network = create()
    network.load_state_dict(load_file(weights))
    return network.eval()


def hits(scores: Array, labels: Array) -> Array:
    """Return 1.0 where the largest score is the label's, else 0.0."""
    return (scores.argmax(1) == labels).astype(np.float64)


def row_of(model: str, where: str, drop: Drop, scores: Array, before: Array) -> dict[str, object]:
    """Return one row of the table."""
    return {
        "model": model,
        "runs in": where,
        "top1": drop.value,
        "drop_points": drop.drop_points,
        "drop_ci95": list(drop.drop_ci95),
        "same_class": float((scores.argmax(1) == before.argmax(1)).mean()),
        "largest_difference": float(np.abs(scores - before).max() / np.ptp(before)),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, build, compare; return 1 when a mark is missed."""
    parser = parser_for(__doc__)
    parser.add_argument(
        "--work", type=Path, default=Path("out/compression/qat"), help="where models are kept"
    )
    parser.add_argument("--weights", type=Path, metavar="FILE", help="model.safetensors of the float network")
    parser.add_argument("--tune", action="store_true", help="report on held-out training images")
    parser.add_argument(
        "--only", choices=RUNTIMES, help="run quantized.pt2 in --work; used by the script itself"
    )
    parser.add_argument("--precision", default="w8a8", help="of --only")
    options = parser.parse_args(arguments)
    if options.only:
        run_only(options.only, options.precision, options.work)
        return 0
    torch.set_num_threads(1)
    images = read_images(options.assets, is_tuning=options.tune)
    labels = images.evaluation.labels
    assert labels is not None
    pictures = images.evaluation.inputs["images"]
    network = float_network(options.weights, options.work, options.assets / "data" / "fashion-mnist")
    digest = hashlib.sha256(b"".join(value.numpy().tobytes() for value in network.state_dict().values()))
    before = outputs_of(network, pictures)
    rows, failures = [], []
    for plan in PLANS:
        settings = json.dumps(
            [asdict(plan), digest.hexdigest(), images.training.sha256, images.evaluation.sha256]
        )
        folder = options.work / hashlib.sha256(settings.encode()).hexdigest()[:12]
        path, after = trained(plan, network, images, folder)
        drop = compare_scores(hits(before, labels), hits(after, labels))
        rows.append(row_of(plan.title, "PyTorch, fake-quantized", drop, after, before))
        if plan.precision == "w4a8" and drop.drop_points > LOW_BITS_POINTS:
            failures.append(f"{plan.title} is {drop.drop_points:.2f} points below float")
        for runtime in RUNTIMES:
            scores = built(path, runtime, plan.precision, pictures, folder)
            drop = compare_scores(hits(after, labels), hits(scores, labels))
            rows.append(row_of(plan.title, runtime, drop, scores, after))
            if abs(drop.drop_points) > EXPORT_POINTS:
                failures.append(f"{plan.title} on {runtime} differs by {drop.drop_points:.2f} points")
            low = compare_scores(hits(before, labels), hits(scores, labels))
            if plan.precision == "w4a8" and low.drop_points > LOW_BITS_POINTS:
                failures.append(f"{plan.title} on {runtime} is {low.drop_points:.2f} points below float")
    base = float(hits(before, labels).mean())
    what = f"{len(labels):,} {'held-out training' if options.tune else 'test'} images"
    print(f"float network: {base:.2%} top-1 on {what}\n")
    print_table(
        ("model", "runs in", "top-1", "points lost", "95 % interval", "same class", "largest difference"),
        [
            (
                row["model"],
                row["runs in"],
                f"{row['top1']:.2%}",
                f"{row['drop_points']:+.2f}",
                "{:+.2f}..{:+.2f}".format(*row["drop_ci95"]),
                f"{row['same_class']:.2%}",
                f"{row['largest_difference']:.2%}",
            )
            for row in rows
        ],
    )
    print("\nPoints lost: fake-quantized against float; artifacts against fake-quantized.")
    print("Largest difference: of a score, as a share of the range of all scores.")
    print("FAILS: " + "; ".join(failures) if failures else "HOLDS")
    record = {"float_top1": base, "images": len(labels), "is_tuning": options.tune, "rows": rows}
    record |= {"plans": [asdict(plan) for plan in PLANS], "failures": failures, "conditions": conditions()}
    write_json(options.json, record)
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())

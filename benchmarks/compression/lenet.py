"""LeNet-300-100 and LeNet-5 on Fashion-MNIST: bytes of real files against accuracy.

    python benchmarks/compression/lenet.py --work out/compression/lenet

Each network is trained in float, then pruned step by step (`sparsify`) while a larger network teaches it, clustered
(`cluster`), rid of neurons that nothing reaches, exported to ONNX in float32, and packed losslessly (`.ewz`). Sizes
are those of the files: graph, tables and biases included, against the ONNX file of the float network. Accuracies are
of the unpacked file, run by ONNX Runtime on the 10,000 test images. Asked for, on both networks: at least 40 times
smaller with no loss against the float network trained without a teacher, and at least 120 times within 0.5 points.

Everything is trained on the first 55,000 training images; --tune reports on the other 5,000 instead of the test
images, and choices were made that way.
Trained weights stay in --work, so a second run only prints.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

# Busy-waiting OpenMP threads stall each other when other work shares the cores; set before torch loads OpenMP.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import torch
from lenet_models import (
    HELD_OUT_IMAGES,
    Images,
    LeNet5,
    LeNet300,
    Loop,
    Net,
    read_images,
    teacher_logits,
    without_dead_units,
)
from lenet_plans import PLANS, Plan, Point, longer
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from reporting import conditions, parser_for, print_table, write_json

from edgewright.backends.onnxruntime import OnnxRuntimeBackend
from edgewright.compress.clustering import cluster
from edgewright.compress.sparsifying import sparsify
from edgewright.core.artifact import Artifact
from edgewright.core.files import sha256_of_files
from edgewright.core.target import Target
from edgewright.ewz import pack, unpack
from edgewright.sources.torch_export import export_module

NO_LOSS_RATIO = 40.0
SMALL_RATIO = 120.0
SMALL_DROP_POINTS = 0.5
TARGET = Target(runtime="onnxruntime")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One file of the curve.

    Attributes:
        weights: those that are not zero, over all layers.
        file_bytes: the ONNX file; packed_bytes: its `.ewz`, the download.
        correct: images of `images` that the unpacked file classifies rightly in ONNX Runtime.
    """

    what: str
    sparsity: float
    weights: int
    file_bytes: int
    packed_bytes: int
    correct: int
    images: int

    @property
    def top1(self) -> float:
        return 100 * self.correct / self.images


class Cache:
    """Weights on disk, named by what made them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def net(self, name: str, settings: object, make: Callable[[Path], Net]) -> tuple[Net, str]:
        """Return what `make` returns, or returned before for the same settings, and its key.

        `make` gets a folder for checkpoints, which is kept until it is done.
        """
        key = f"{name}-{hashlib.sha256(json.dumps([name, settings]).encode()).hexdigest()[:10]}"
        path = self.folder / f"{key}.safetensors"
        if path.is_file():
            return _loaded(path), key
        print(f"  training {key}", file=sys.stderr, flush=True)
        net = make(self.folder / f"{key}.steps")
        save_file({name: value.contiguous() for name, value in net.state_dict().items()}, path)
        return net, key

    def row(self, what: str, net: Net, key: str, tested: Images, *, whole: Net | None = None) -> Row:
        """Return what `measure` says of the network `key`, now or before."""
        path = self.folder / f"{key}-{len(tested.labels)}.json"
        if path.is_file():
            return Row(**json.loads(path.read_text()))
        row = measure(what, net, tested, whole=whole)
        path.write_text(json.dumps(asdict(row)))
        print(f"  {what}: {row.packed_bytes:,} bytes, {row.top1:.2f} %", file=sys.stderr, flush=True)
        return row


def _loaded(path: Path) -> Net:
    tensors = load_file(path)
    network: type[Net] = LeNet5 if "conv1.weight" in tensors else LeNet300
    net = network([len(tensors[f"{name}.weight"]) for name, _ in network.chain[:-1]])
    net.load_state_dict(tensors)
    return net.eval()


def compress(plan: Plan, samples: Images, tested: Images, cache: Cache) -> tuple[list[Row], list[Row]]:
    """Return the rows of the float networks (plain, taught), and those of the curve."""
    untaught = replace(samples, taught=None)
    training = [len(samples.labels), torch.__version__]

    def train_float(folder: Path) -> Net:
        torch.manual_seed(0)
        net = _fast(plan.network())
        loop = Loop(
            samples=untaught,
            rate=plan.float_rate,
            weight_decay=plan.float_decay,
            dropout=plan.float_dropout,
        )
        loop.function()(net, plan.float_epochs)
        return net

    settings = [training, plan.float_epochs, plan.float_rate, plan.float_decay, plan.float_dropout]
    net, key = cache.net(f"{plan.title}-float", settings, train_float)
    floats = [cache.row("float32", net, key, tested)]
    if plan.taught_epochs:

        def train_taught(folder: Path) -> Net:
            torch.manual_seed(1)
            net = _fast(plan.network())
            loop = Loop(
                samples=samples,
                rate=plan.taught_rate,
                weight_decay=plan.taught_decay,
            )
            loop.function()(net, plan.taught_epochs)
            return net

        settings = [training, plan.taught_epochs, plan.taught_rate, plan.taught_decay]
        net, key = cache.net(f"{plan.title}-taught", settings, train_taught)
        floats.append(cache.row("float32, taught", net, key, tested))
    rows = []
    fine_tuning = Loop(
        samples=samples,
        rate=plan.rate,
        steady_rate=plan.steady_rate,
        weight_decay=plan.decay,
        mirrored=0.0,
        clip_norm=plan.clip_norm,
        alpha=plan.alpha,
        temperature=plan.temperature,
    )
    pruning = fine_tuning.function()
    how = [plan.rate, plan.steady_rate, plan.decay, plan.clip_norm, plan.alpha, plan.temperature]
    pruned = {0.0: (net, key)}
    for point in plan.points:
        net, key = pruned[point.after]

        def prune(folder: Path, net: Net = net, point: Point = point) -> Net:
            sparse = sparsify(
                _fast(net),
                sparsity=point.sparsity,
                scope="lamp",
                steps=point.steps,
                train=pruning,
                epochs=1,
                final_epochs=point.final_epochs - 1,
                checkpoints=folder,
            )
            assert isinstance(sparse, LeNet300 | LeNet5)
            return sparse

        settings = [key, point.sparsity, point.steps, point.final_epochs, *how]
        net, key = pruned[point.sparsity] = cache.net(f"{plan.title}-pruned", settings, prune)
        for bits in point.bits:
            epochs = point.cluster_epochs if bits <= plan.cluster_bits else 0

            def share(
                folder: Path, net: Net = net, point: Point = point, bits: int = bits, epochs: int = epochs
            ) -> Net:
                shared = cluster(
                    _fast(without_dead_units(net)),
                    bits=bits,
                    bias_bits=plan.bias_bits,
                    train=replace(
                        fine_tuning, rate=point.cluster_rate, steady_rate=None, weight_decay=0.0
                    ).function(),
                    epochs=epochs,
                    checkpoints=folder,
                )
                assert isinstance(shared, LeNet300 | LeNet5)
                return shared

            settings = [key, bits, plan.bias_bits, epochs, point.cluster_rate, *how]
            shared, made = cache.net(f"{plan.title}-clustered", settings, share)
            rows.append(
                cache.row(
                    f"{point.sparsity:.1%} zeros, {bits} bits", shared, made, tested, whole=plan.network()
                )
            )
    return floats, rows


def _fast(net: Net) -> Net:
    """Return `net` in the memory order in which convolutions train faster; the numbers stay."""
    made: Net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return made


def measure(what: str, net: Net, tested: Images, *, whole: Net | None = None) -> Row:
    """Export, pack, unpack and run `net`; `whole` is the network at full width, whose weights count."""
    backend = OnnxRuntimeBackend()
    net = net.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    with TemporaryDirectory() as name:
        folder = Path(name)
        program = export_module(net, (tested.images[:2],), workdir=folder, origin="lenet")
        artifact = backend.convert(program, TARGET, None, folder)
        packed = pack(artifact.files[0], folder / "lenet.ewz")
        (unpacked,) = unpack(packed.path, folder / "unpacked").files
        if unpacked.read_bytes() != artifact.files[0].read_bytes():
            raise AssertionError(f"{what}: unpacking did not give the same file")
        correct = _correct(
            backend, replace(artifact, files=(unpacked,), sha256=sha256_of_files((unpacked,))), tested
        )
        file_bytes = artifact.files[0].stat().st_size
    used = sum(int(value.count_nonzero()) for value in net.state_dict().values() if value.ndim > 1)
    full = sum(value.numel() for value in (whole or net).state_dict().values() if value.ndim > 1)
    return Row(
        what=what,
        sparsity=1 - used / full,
        weights=used,
        file_bytes=file_bytes,
        packed_bytes=packed.packed_bytes,
        correct=correct,
        images=len(tested.labels),
    )


def _correct(backend: OnnxRuntimeBackend, artifact: Artifact, tested: Images) -> int:
    session = backend.open(artifact, TARGET)
    try:
        given, wanted = session.inputs[0].name, session.outputs[0].name
        batches = zip(tested.images.split(500), tested.labels.split(500), strict=True)
        return sum(
            int((np.argmax(session.run({given: images.numpy()})[wanted], 1) == labels.numpy()).sum())
            for images, labels in batches
        )
    finally:
        session.close()


def report(plan: Plan, floats: Sequence[Row], rows: Sequence[Row]) -> list[tuple[str, bool]]:
    """Print one network's curve and return its claims."""
    base = floats[0]
    table = [
        (
            row.what,
            f"{row.weights:,}",
            f"{row.file_bytes:,}",
            f"{row.packed_bytes:,}",
            f"{base.file_bytes / row.packed_bytes:.1f}x",
            f"{row.top1:.2f}",
            f"{row.top1 - base.top1:+.2f}",
        )
        for row in (*floats, *rows)
    ]
    print(f"\n{plan.title}: {base.images:,} images")
    print_table(("network", "weights", "ONNX bytes", ".ewz bytes", "smaller", "top-1 %", "points"), table)
    best = max(
        (base.file_bytes / row.packed_bytes for row in rows if row.correct >= base.correct), default=0.0
    )
    allowed = base.top1 - SMALL_DROP_POINTS
    small = max((base.file_bytes / row.packed_bytes for row in rows if row.top1 >= allowed), default=0.0)
    return [
        (f"{plan.title}: {best:.1f}x with no loss (asked for: {NO_LOSS_RATIO:g}x)", best >= NO_LOSS_RATIO),
        (
            f"{plan.title}: {small:.1f}x within {SMALL_DROP_POINTS} points (asked for: {SMALL_RATIO:g}x)",
            small >= SMALL_RATIO,
        ),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0 when every claim holds, 1 when one does not."""
    parser = parser_for(__doc__)
    parser.add_argument(
        "--work", type=Path, default=Path("out/compression/lenet"), help="for trained weights"
    )
    parser.add_argument("--teacher", type=Path, help="weights of the example's CNN; trained where absent")
    parser.add_argument("--networks", nargs="+", choices=sorted(PLANS), default=sorted(PLANS))
    parser.add_argument("--patience", type=int, default=1, help="fine-tune so many times longer (default: 1)")
    parser.add_argument("--tune", action="store_true", help="report on held-out training images")
    options = parser.parse_args(arguments)
    data = options.assets / "data" / "fashion-mnist"
    if not data.is_dir():
        print(f"skipped: {data} is not there")
        return 0
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    options.work.mkdir(parents=True, exist_ok=True)
    samples, tested = read_images(data, "train"), read_images(data, "t10k")
    taught = teacher_logits(samples.images, data, options.work, options.teacher)
    samples = replace(samples, taught=taught)
    end = len(samples.labels) - HELD_OUT_IMAGES
    if options.tune:
        tested = samples.slice(end, end + HELD_OUT_IMAGES)
    samples = samples.slice(0, end)
    cache = Cache(options.work)
    claims, record = [], {}
    for name in options.networks:
        plan = longer(PLANS[name], options.patience)
        floats, rows = compress(plan, samples, tested, cache)
        claims += report(plan, floats, rows)
        record[name] = {
            "settings": {key: value for key, value in asdict(plan).items() if key != "network"},
            "float": [asdict(row) for row in floats],
            "curve": [asdict(row) for row in rows],
        }
    print()
    for text, holds in claims:
        print(f"{'holds' if holds else 'FAILS'}: {text}")
    images = "held-out training images" if options.tune else "test images"
    write_json(options.json, {"conditions": conditions(), "images": images, "networks": record})
    return 0 if all(holds for _, holds in claims) else 1


if __name__ == "__main__":
    raise SystemExit(main())

"""Bit-exactness of C models to LiteRT Micro on this machine, and their arenas, for the int8 models of the assets.

    python benchmarks/microcontrollers/exactness.py --runs 1000 --json exactness.json

Inputs: for kws 400 real clips (MFCC features), for models of images crops of photos as one half; the rest is random
over the whole range of int8. `distinct` counts the different outputs. Arenas are compared with the interpreter's
activations; vww must be 40 % below them. Flash and instructions are devices.py's.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from edgewright.core.tensors import Array
from edgewright.microcontrollers import host, oracle
from edgewright.microcontrollers.emit import CModel, compile_model, write_sources

MODELS = {
    "kws": "mlperf-tiny/kws_dscnn_int8.tflite",
    "resnet8": "mlperf-tiny/ic_resnet8_int8.tflite",
    "vww": "mlperf-tiny/vww_mobilenet_96_int8.tflite",
    "person_detect": "tflite-micro/person_detect.tflite",
    "micro_speech": "tflite-micro/micro_speech_quantized.tflite",
    "hello_world": "tflite-micro/hello_world_int8.tflite",
    "lstm": "tflite-micro/trained_lstm_int8.tflite",
}
CLIPS = "data/speech-commands-mfcc-int8"
PHOTOS = "data/coco-mini/images"
IMAGE_MODELS = ("resnet8", "vww", "person_detect")
# What the arena may take of the interpreter's activations.
ARENA_SHARES = {"vww": 0.6}
CHUNK = 250


def main() -> int:
    """Print the table; the exit code is 1 when an output differs or an arena is larger than the interpreter's."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--assets", type=Path, default=Path("../shared/assets"))
    parser.add_argument("--only", default="", help="names, separated by commas")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if not oracle.is_installed():
        sys.exit("the interpreter is not installed; run: edgewright toolchain install tflm")
    rows = []
    print(
        f"{'model':<14}{'exact':>12}{'distinct':>9}{'arena':>9}{'LiteRT Micro':>14}{'share':>7}{'limit':>7}{'':>6}"
        f"{'weights':>9}{'stack':>7}{'MACs':>12}"
    )
    for name in chosen(arguments.only):
        row = measure(name, arguments.assets / "models" / MODELS[name], arguments.assets, arguments.runs)
        rows.append(row)
        print(
            f"{name:<14}{row['exact']:>7,}/{row['runs']:<4}{row['distinct_outputs']:>9,}{row['arena_bytes']:>9,}"
            f"{row['activation_bytes']:>14,}{row['arena_share']:>7.2f}{row['arena_limit']:>7}"
            f"{'' if row['is_within_arena'] else 'OVER':>6}{row['weight_bytes']:>9,}{row['stack_bytes']:>7,}"
            f"{row['macs']:>12,}",
            flush=True,
        )
    if arguments.json:
        arguments.json.write_text(json.dumps({"interpreter": oracle.version(), "rows": rows}, indent=1))
    print(f"\nnot exact: {_names(row for row in rows if row['exact'] != row['runs'])}")
    print(f"arena over its limit: {_names(row for row in rows if not row['is_within_arena'])}")
    return 1 if any(row["exact"] != row["runs"] or row["arena_share"] > 1 for row in rows) else 0


def chosen(only: str) -> list[str]:
    """Return the names of the models in the comma-separated `only`, all where it is empty."""
    names = only.split(",") if only else list(MODELS)
    unknown = [name for name in names if name not in MODELS]
    if unknown:
        sys.exit(f"unknown models {', '.join(unknown)}; known: {', '.join(MODELS)}")
    return names


def _names(rows: Iterable[Mapping[str, object]]) -> str:
    return ", ".join(str(row["name"]) for row in rows) or "none"


def measure(name: str, path: Path, assets: Path, runs: int) -> dict[str, Any]:
    """Return one row of the table."""
    model = compile_model(path, name=name)
    inputs = _inputs(name, model, assets, runs)
    own: list[Array] = []
    right: list[Array] = []
    with tempfile.TemporaryDirectory() as folder:
        source, _ = write_sources(model, Path(folder))
        made = host.HostModel(source, graph=model.graph, folder=Path(folder))
        # A model with a state begins anew with each chunk, in the C model as in the interpreter.
        for first in range(0, len(inputs), CHUNK):
            chunk = [[one] for one in inputs[first : first + CHUNK]]
            found = oracle.run(path, chunk)
            assert not found.refusal, found.refusal
            right += [outputs[0] for outputs in found.outputs]
            made.reset()
            own += [made.run(row)[0] for row in chunk]
    share, limit = model.plan.arena_bytes / found.activation_bytes, ARENA_SHARES.get(name, 1.0)
    return {
        "name": name, "runs": len(inputs),
        "exact": sum(a.tobytes() == b.tobytes() for a, b in zip(own, right, strict=True)),
        "distinct_outputs": len({one.tobytes() for one in right}), "arena_bytes": model.plan.arena_bytes,
        "activation_bytes": found.activation_bytes, "arena_share": share, "arena_limit": limit,
        "is_within_arena": share <= limit, "weight_bytes": model.weight_bytes, "table_bytes": model.table_bytes,
        "stack_bytes": model.stack_bytes, "macs": model.macs,
    }  # fmt: skip


def _inputs(name: str, model: CModel, assets: Path, runs: int) -> list[Array]:
    tensor = model.graph.tensor(model.graph.inputs[0])
    draw = np.random.default_rng(20240229)
    real: list[Array] = []
    if name == "kws":
        files = sorted((assets / CLIPS).glob("*.bin"))[:runs]
        real = [np.fromfile(file, dtype=np.int8).reshape(tensor.shape) for file in files]
    elif name in IMAGE_MODELS:
        real = _crops(assets / PHOTOS, tensor.shape, runs // 2, draw)
    drawn = [draw.integers(-128, 128, tensor.shape).astype(np.int8) for _ in range(runs - len(real))]
    return [*real, *drawn]


def _crops(folder: Path, shape: tuple[int, ...], count: int, draw: np.random.Generator) -> list[Array]:
    """Return `count` random crops of the photos, int8 = pixel - 128, as [1, height, width, 1 or 3]."""
    _, height, width, channels = shape
    photos = [
        Image.open(file).convert("L" if channels == 1 else "RGB") for file in sorted(folder.glob("*.jpg"))
    ]
    crops: list[Array] = []
    for number in range(count):
        photo = photos[number % len(photos)]
        side = int(draw.integers(min(photo.size) // 4, min(photo.size)))
        left, top = (int(draw.integers(0, size - side + 1)) for size in photo.size)
        crop = photo.crop((left, top, left + side, top + side)).resize(
            (width, height), Image.Resampling.BILINEAR
        )
        crops.append((np.asarray(crop, dtype=np.int16) - 128).astype(np.int8).reshape(shape))
    return crops


if __name__ == "__main__":
    sys.exit(main())

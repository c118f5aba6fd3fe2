"""Accuracy of C models on real data beside LiteRT's: keyword clips, handwritten digits, hand gestures.

    python benchmarks/microcontrollers/accuracy.py --json accuracy.json

kws takes the MFCC features of 400 real clips; the digits are the sample's evaluation images, through a model that
`edgewright convert --to c --precision w8a8` makes first; the gestures are landmarks, through a float32 model. LiteRT
Micro runs the same files, and so does LiteRT, with its reference kernels and with those that it chooses itself, which
round some products differently.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from edgewright.core.tensors import Array
from edgewright.microcontrollers import host, oracle
from edgewright.microcontrollers.emit import compile_model, write_sources

KWS = "models/mlperf-tiny/kws_dscnn_int8.tflite"
CLIPS = "data/speech-commands-mfcc-int8"
GESTURES = "models/hand-gesture/keypoint_classifier.tflite"
LANDMARKS = "data/hand-gesture/keypoint.csv"
_GESTURE_COUNT = 1000


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table.

    Attributes:
        accuracy: of the C model, and of each interpreter.
        same_classes, same_bits: samples on which an interpreter gives the C model's class, and its very outputs.
    """

    name: str
    samples: int
    accuracy: dict[str, float]
    same_classes: dict[str, int]
    same_bits: dict[str, int]


def main() -> int:
    """Print the table; the exit code is 1 when an accuracy is not LiteRT Micro's."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--assets", type=Path, default=Path("../shared/assets"))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = [_kws(arguments.assets), _digits(), _gestures(arguments.assets)]
    print(f"{'model':<10}{'':<14}{'top-1':>8}{'same class':>12}{'same bits':>11}")
    for row in rows:
        for name, accuracy in row.accuracy.items():
            same = f"{row.same_classes[name]:>12}{row.same_bits[name]:>11}" if name in row.same_bits else ""
            print(f"{row.name:<10}{name:<14}{accuracy:>8.4f}{same or f'{row.samples:>12}{row.samples:>11}'}")
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))
    return 1 if any(row.accuracy["C"] != row.accuracy["LiteRT Micro"] for row in rows) else 0


def _kws(assets: Path) -> Row:
    files = sorted((assets / CLIPS).glob("*.bin"))
    inputs = [np.fromfile(file, dtype=np.int8) for file in files]
    labels = [int(file.stem.rsplit("_", 1)[1]) for file in files]
    return measure("kws", assets / KWS, inputs, labels)


def _digits() -> Row:
    from edgewright.sample import data

    with tempfile.TemporaryDirectory() as name:
        command = [
            str(Path(sys.executable).parent / "edgewright"), "convert", "edgewright.sample.digits:trained", "--to", "c",
            "--precision", "w8a8", "--input-shape", "1x1x8x8", "--data", "edgewright.sample.data:evaluation",
            "--calibration", "edgewright.sample.data:training", "--out", name,
        ]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True)
        (path,) = Path(name).rglob("*.tflite")
        images, labels = data.evaluation()
        return measure("digits", path, list(np.asarray(images)), [int(label) for label in labels])


def _gestures(assets: Path) -> Row:
    table = np.loadtxt(assets / LANDMARKS, delimiter=",", dtype=np.float32)
    chosen = table[np.random.default_rng(1).permutation(len(table))[:_GESTURE_COUNT]]
    labels = [int(label) for label in chosen[:, 0]]
    return measure("gestures", assets / GESTURES, list(chosen[:, 1:]), labels)


def measure(name: str, path: Path, inputs: list[Array], labels: list[int]) -> Row:
    """Return what the C model and LiteRT make of `inputs`, each of them reshaped to the model's input."""
    model = compile_model(path, name=name)
    tensor = model.graph.tensor(model.graph.inputs[0])
    rows = [np.ascontiguousarray(one.reshape(tensor.shape)) for one in inputs]
    with tempfile.TemporaryDirectory() as folder:
        source, _ = write_sources(model, Path(folder))
        made = host.HostModel(source, graph=model.graph, folder=Path(folder))
        own = [made.run([row])[0] for row in rows]
    others = {
        "LiteRT Micro": _micro(path, rows),
        "reference": _litert(path, rows, is_reference=True),
        "LiteRT": _litert(path, rows, is_reference=False),
    }
    return Row(
        name=name,
        samples=len(rows),
        accuracy={key: _hits(outputs, labels) for key, outputs in {"C": own, **others}.items()},
        same_classes={
            key: sum(int(a.argmax() == b.argmax()) for a, b in zip(own, outputs, strict=True))
            for key, outputs in others.items()
        },
        same_bits={
            key: sum(a.tobytes() == b.tobytes() for a, b in zip(own, outputs, strict=True))
            for key, outputs in others.items()
        },
    )


def _micro(path: Path, rows: list[Array]) -> list[Array]:
    found = oracle.run(path, [[row] for row in rows])
    assert not found.refusal, found.refusal
    return [outputs[0] for outputs in found.outputs]


def _hits(outputs: list[Array], labels: list[int]) -> float:
    return float(np.mean([int(one.argmax()) == label for one, label in zip(outputs, labels, strict=True)]))


def _litert(path: Path, rows: list[Array], *, is_reference: bool) -> list[Array]:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    kind = OpResolverType.BUILTIN_REF if is_reference else OpResolverType.AUTO
    interpreter = Interpreter(model_path=str(path), experimental_op_resolver_type=kind, num_threads=1)
    interpreter.allocate_tensors()
    source, result = (
        interpreter.get_input_details()[0]["index"],
        interpreter.get_output_details()[0]["index"],
    )
    outputs = []
    for row in rows:
        interpreter.set_tensor(source, row)
        interpreter.invoke()
        outputs.append(interpreter.get_tensor(result).copy())
    return outputs


if __name__ == "__main__":
    sys.exit(main())

"""Bit-exactness of C models to LiteRT Micro on the host, and their memory, for the int8 models of the assets.

    python benchmarks/microcontrollers/exactness.py --runs 1000 --json exactness.json

Inputs are random over the whole range of int8; kws gets the 400 real clips first (MFCC features), and its accuracy on
them is printed for the C model and for the interpreter. Flash is measured where arm-none-eabi-gcc is installed.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

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
FLASH_BUDGET = 20 * 1024  # over the model's own weights
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
    rows = []
    print(
        f"{'model':<14}{'exact':>12}{'arena':>9}{'LiteRT Micro':>14}{'weights':>9}{'flash M4':>10}"
        f"{'stack':>7}{'MACs':>12}  accuracy C / interpreter"
    )
    for name, file in MODELS.items():
        if arguments.only and name not in arguments.only.split(","):
            continue
        row = measure(name, arguments.assets / "models" / file, arguments.assets, arguments.runs)
        rows.append(row)
        accuracy = (
            f"{row['accuracy_c']:.4f} / {row['accuracy_interpreter']:.4f}" if "accuracy_c" in row else ""
        )
        print(
            f"{name:<14}{row['exact']:>6}/{row['runs']:<5}{row['arena_bytes']:>9}{row['activation_bytes']:>14}"
            f"{row['weight_bytes']:>9}{row['flash_bytes'] or '-':>10}{row['stack_bytes']:>7}{row['macs']:>12}"
            f"  {accuracy}"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps({"version": oracle.version(), "rows": rows}, indent=1))
    wrong = [
        row for row in rows if row["exact"] != row["runs"] or row["arena_bytes"] > row["activation_bytes"]
    ]
    large = [row["name"] for row in rows if row["flash_bytes"] > row["weight_bytes"] + FLASH_BUDGET]
    print(f"larger than their weights + 20 KiB: {', '.join(map(str, large)) or 'none'}")
    return 1 if wrong else 0


def measure(name: str, path: Path, assets: Path, runs: int) -> dict[str, int | float | str]:
    """Return one row of the table."""
    model = compile_model(path, name=name)
    inputs, labels = _inputs(name, model, assets, runs)
    own: list[Array] = []
    right: list[Array] = []
    with tempfile.TemporaryDirectory() as folder:
        source, _ = write_sources(model, Path(folder))
        flash = _flash_bytes(source)
        made = host.HostModel(source, graph=model.graph, folder=Path(folder))
        # A model with a state begins anew with each chunk, in the C model as in the interpreter.
        for first in range(0, len(inputs), CHUNK):
            chunk = [[one] for one in inputs[first : first + CHUNK]]
            found = oracle.run(path, chunk)
            assert not found.refusal, found.refusal
            right += [outputs[0] for outputs in found.outputs]
            made.reset()
            own += [made.run(row)[0] for row in chunk]
    row: dict[str, int | float | str] = {
        "name": name, "runs": len(inputs),
        "exact": sum(a.tobytes() == b.tobytes() for a, b in zip(own, right, strict=True)),
        "distinct_outputs": len({one.tobytes() for one in right}), "arena_bytes": model.plan.arena_bytes,
        "activation_bytes": found.activation_bytes, "weight_bytes": model.weight_bytes,
        "table_bytes": model.table_bytes,
        "flash_bytes": flash, "stack_bytes": model.stack_bytes, "macs": model.macs,
    }  # fmt: skip
    if labels:
        for key, outputs in (("accuracy_c", own), ("accuracy_interpreter", right)):
            hits = [int(one.argmax()) == label for one, label in zip(outputs, labels, strict=False)]
            row[key] = float(np.mean(hits))
    return row


def _inputs(name: str, model: CModel, assets: Path, runs: int) -> tuple[list[Array], list[int]]:
    tensor = model.graph.tensor(model.graph.inputs[0])
    real: list[Array] = []
    labels: list[int] = []
    if name == "kws":
        files = sorted((assets / CLIPS).glob("*.bin"))[:runs]
        real = [np.fromfile(file, dtype=np.int8).reshape(tensor.shape) for file in files]
        labels = [int(file.stem.rsplit("_", 1)[1]) for file in files]
    draw = np.random.default_rng(20240229)
    drawn = [draw.integers(-128, 128, tensor.shape).astype(np.int8) for _ in range(runs - len(real))]
    return [*real, *drawn], labels


def _flash_bytes(source: Path) -> int:
    """Return .text and .rodata for a Cortex-M4, 0 where there is no cross compiler."""
    compiler, size = shutil.which("arm-none-eabi-gcc"), shutil.which("arm-none-eabi-size")
    if compiler is None or size is None:
        return 0
    made = source.with_suffix(".o")
    flags = ["-mcpu=cortex-m4", "-mthumb", "-O2", *host.WARNINGS]
    subprocess.run([compiler, *flags, "-c", str(source), "-o", str(made)], check=True)
    said = subprocess.run([size, str(made)], capture_output=True, text=True, check=True).stdout
    return int(said.splitlines()[1].split()[0])


if __name__ == "__main__":
    sys.exit(main())

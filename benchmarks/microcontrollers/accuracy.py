"""Accuracy of C models on real data beside LiteRT's with the same int8 model: keyword clips and digits.

    python benchmarks/microcontrollers/accuracy.py --json accuracy.json

kws reads the 400 keyword clips as MFCC features; digits is the sample that comes with the package, quantized here with
its calibration set and judged on its evaluation set. LiteRT is run twice: with its reference kernels, whose arithmetic
LiteRT Micro and the C model share, and as it runs by default on this processor (XNNPACK), which rounds otherwise.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import edgewright
from edgewright import sample
from edgewright.core.errors import EdgewrightError
from edgewright.core.tensors import Array

CLIPS = "data/speech-commands-mfcc-int8"
KWS = "models/mlperf-tiny/kws_dscnn_int8.tflite"
CLIP_SHAPE = (49, 10, 1)
RUNTIMES = ("litert", "c")


def main() -> int:
    """Print a line for each model; the exit code is 1 when C is not as accurate as the reference kernels."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--assets", type=Path, default=Path("../shared/assets"))
    parser.add_argument("--only", default="", help="kws or digits")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = []
    print(
        f"{'model':<10}{'samples':>8}{'C':>9}{'LiteRT reference':>18}{'LiteRT default':>16}  C is the reference's"
    )
    for name in arguments.only.split(",") if arguments.only else ("kws", "digits"):
        with tempfile.TemporaryDirectory() as folder:
            row = measure(name, arguments.assets, Path(folder) / "out")
        rows.append(row)
        figures = f"{row['c']:>9.4f}{row['litert_reference']:>18.4f}{row['litert']:>16.4f}"
        print(
            f"{name:<10}{row['samples']:>8}{figures}  {'yes' if row['is_equal'] else 'NO'}",
            flush=True,
        )
    if arguments.json:
        arguments.json.write_text(json.dumps({"rows": rows}, indent=1), encoding="utf-8")
    return 0 if all(row["is_equal"] for row in rows) else 1


def measure(name: str, assets: Path, out: Path) -> dict[str, Any]:
    """Return the samples and the top-1 of C, LiteRT's reference kernels and LiteRT."""
    if name == "kws":
        files = sorted((assets / CLIPS).glob("*.bin"))
        inputs = np.stack([np.fromfile(file, dtype=np.int8).reshape(CLIP_SHAPE) for file in files])
        labels = np.array([int(file.stem.rsplit("_", 1)[1]) for file in files])
        found = edgewright.build(
            assets / KWS, data=(inputs, labels), to=RUNTIMES, precision=("w8a8",), metric="top1", out=out
        )
    elif name == "digits":
        with np.load(sample.EVAL_DATA, allow_pickle=False) as archive:
            inputs, labels = archive["inputs"], archive["labels"]
        found = edgewright.build(
            sample.MODEL,
            weights=sample.WEIGHTS,
            input_shapes=("x".join(map(str, sample.INPUT_SHAPE)),),
            data=(inputs, labels),
            calibration=sample.CALIBRATION_DATA,
            to=RUNTIMES,
            precision=("w8a8",),
            metric="top1",
            out=out,
        )
    else:
        sys.exit(f"unknown model {name}; known: kws, digits")
    values: dict[str, float] = {}
    for result in found.results:
        if result.metric is None or result.artifact is None:
            raise EdgewrightError(f"{name}: {result.id} was not measured: {result.reason}")
        values[result.target.runtime] = result.metric.value
        if result.target.runtime == "litert":
            values["litert_reference"] = reference_top1(out / result.artifact, inputs, labels)
    is_equal = values["c"] == values["litert_reference"]
    return {"name": name, "samples": len(labels), **values, "is_equal": is_equal}


def reference_top1(model: Path, inputs: Array, labels: Array) -> float:
    """Return the accuracy of LiteRT's reference kernels."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(
        str(model), experimental_op_resolver_type=OpResolverType.BUILTIN_REF, num_threads=1
    )
    interpreter.allocate_tensors()
    (entry,), (end,) = interpreter.get_input_details(), interpreter.get_output_details()
    hits = 0
    for one, label in zip(inputs, labels, strict=True):
        given = one.reshape(entry["shape"]).astype(entry["dtype"], casting="safe")
        interpreter.set_tensor(entry["index"], given)
        interpreter.invoke()
        hits += int(interpreter.get_tensor(end["index"]).argmax()) == int(label)
    return hits / len(labels)


if __name__ == "__main__":
    sys.exit(main())

"""Core ML off macOS: what the written `.mlpackage` computes, beside the source in its own framework.

`python benchmarks/coreml.py [--fashion DIR] [--samples N] [--json FILE]`

Each model is converted in every precision, the package is read back from disk and run operator by operator by our
interpreter, and its outputs are compared with PyTorch's over N seeded inputs (real images for the digits). The claims:
at most 1e-4 in fp32 and 1e-2 in fp16. The compressed precisions change the weights: for them the signal-to-noise
ratio is printed, and how large the file is.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.table import Table

from edgewright.backends.coreml import CoremlBackend
from edgewright.backends.reference import ReferenceBackend
from edgewright.compress.quantize import quantize_pt2e
from edgewright.core.artifact import Proof
from edgewright.core.contracts import Calibration
from edgewright.core.errors import ConversionError
from edgewright.core.files import sha256_of
from edgewright.core.program import Program
from edgewright.core.target import Precision, Target
from edgewright.sources.load import load
from edgewright.sources.torch_export import export_module

if TYPE_CHECKING:
    import torch
    from torch import nn

SEED = 20240229
LIMITS = {Precision.FP32: 1e-4, Precision.FP16: 1e-2}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One model in one precision; differences are over all outputs and samples."""

    model: str
    precision: str
    size_bytes: int
    operators: int
    max_abs: float
    largest: float
    snr_db: float
    samples: int
    seconds: float
    notes: tuple[str, ...]
    refusal: str = ""

    @property
    def holds(self) -> bool | None:
        """True or False for a claimed precision, None for one without a claim."""
        limit = LIMITS.get(Precision(self.precision))
        return None if limit is None else not self.refusal and self.max_abs <= limit


def main() -> None:
    """Print the table; exit with 1 when a claim does not hold."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--fashion", type=Path, help="folder with the trained example's model.py and weights")
    parser.add_argument("--samples", type=int, default=24)
    parser.add_argument("--only", nargs="*", help="names of models")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    rows = []
    with tempfile.TemporaryDirectory(prefix="edgewright-coreml-") as folder:
        for name, program, samples in programs(Path(folder), arguments.fashion, arguments.samples):
            if arguments.only and name not in arguments.only:
                continue
            for precision in Precision:
                rows.append(tried(name, program, samples, precision, Path(folder) / name / precision))
                print_row(rows[-1])
    print_table(rows)
    if arguments.json:
        arguments.json.write_text(
            json.dumps([asdict(row) | {"holds": row.holds} for row in rows if not row.refusal], indent=2)
            + "\n"
        )
    broken = [row for row in rows if row.holds is False]
    claims = [row for row in rows if row.holds is not None]
    word = "FAILS" if broken else "HOLDS"
    print(
        f"{word}: {len(claims) - len(broken)} of {len(claims)} models x precisions within 1e-4 (fp32) and 1e-2 (fp16)"
    )
    sys.exit(1 if broken else 0)


def tried(
    name: str, program: Program, samples: list[list[np.ndarray]], precision: Precision, folder: Path
) -> Row:
    """Return what was measured, or why it was refused."""
    try:
        return measured(name, program, samples, precision, folder)
    except ConversionError as err:
        return Row(
            model=name,
            precision=str(precision),
            size_bytes=0,
            operators=0,
            max_abs=math.inf,
            largest=0.0,
            snr_db=-math.inf,
            samples=0,
            seconds=0.0,
            notes=(),
            refusal=str(err),
        )


def measured(
    name: str, program: Program, samples: list[list[np.ndarray]], precision: Precision, folder: Path
) -> Row:
    """Convert, read back, interpret and compare."""
    folder.mkdir(parents=True)
    backend, target = CoremlBackend(), Target(runtime="coreml", precision=precision)
    source = program
    if precision is Precision.W8A8:
        calibration = _calibration(program, samples, folder)
        source = quantize_pt2e(program, precision=precision, calibration=calibration, workdir=folder)
    start = time.perf_counter()
    artifact = backend.convert(source, target, None, folder)
    assert artifact.proof in (Proof.INTERPRETED, Proof.RUN), artifact.notes
    session = backend.open(artifact, target)
    reference, plain = ReferenceBackend(), Target(runtime="reference")
    truth = reference.open(reference.convert(program, plain, None, folder), plain)
    most, largest, signal, noise = 0.0, 0.0, 0.0, 0.0
    for row in samples:
        want = truth.run({spec.name: value for spec, value in zip(program.inputs, row, strict=True)})
        have = session.run({spec.name: value for spec, value in zip(artifact.inputs, row, strict=True)})
        for expected, got in zip(want.values(), have.values(), strict=True):
            wide = expected.astype(np.float64)
            error = got.astype(np.float64) - wide
            most, largest = max(most, float(np.abs(error).max())), max(largest, float(np.abs(wide).max()))
            signal, noise = signal + float(np.square(wide).sum()), noise + float(np.square(error).sum())
    from edgewright.sources.inspect_coreml import inspect_coreml

    return Row(
        model=name,
        precision=str(precision),
        size_bytes=artifact.size_bytes,
        operators=sum(inspect_coreml(artifact.path.parent).operators.values()),
        max_abs=most,
        largest=largest,
        snr_db=10 * math.log10(signal / noise) if noise else math.inf,
        samples=len(samples),
        seconds=time.perf_counter() - start,
        notes=artifact.notes,
    )


def programs(
    folder: Path, fashion: Path | None, count: int
) -> list[tuple[str, Program, list[list[np.ndarray]]]]:
    """Return name, program and inputs of every model."""
    from edgewright.sample import EVAL_DATA, INPUT_SHAPE, MODEL, WEIGHTS

    found = []
    digits = load(MODEL, workdir=folder / "digits-source", weights=WEIGHTS, input_shapes=[_text(INPUT_SHAPE)])
    with np.load(EVAL_DATA) as data:
        found.append(("digits", digits, [[image[None]] for image in data["inputs"][:count]]))
    if fashion is not None:
        sys.path.insert(0, str(fashion))
        program = load(
            "model:create",
            workdir=folder / "fashion-source",
            weights=fashion / "model.safetensors",
            input_shapes=["1x1x28x28"],
        )
        with np.load(fashion / "eval.npz") as data:
            images = data[data.files[0]][:count].astype(np.float32)
        found.append(("fashion", program, [[image[None]] for image in images]))
    for name, (module, example) in modules().items():
        workdir = folder / f"{name}-source"
        workdir.mkdir()
        program = export_module(module, example, workdir=workdir, origin=name, layout=None)
        found.append((name, program, _random(program, count)))
    return found


def modules() -> dict[str, tuple[nn.Module, tuple[torch.Tensor, ...]]]:
    """Return the untrained models, with batch statistics that are not trivial."""
    import torch

    from benchmarks import coreml_models

    torch.manual_seed(SEED)
    return coreml_models.build()


def _random(program: Program, count: int) -> list[list[np.ndarray]]:
    draw = np.random.default_rng(SEED)
    rows = []
    for _ in range(count):
        row = []
        for spec in program.inputs:
            shape = [size or 1 for size in spec.shape]
            if spec.dtype == "float32":
                row.append(draw.normal(size=shape).astype(np.float32))
            else:
                row.append(draw.integers(0, 100, shape).astype(spec.dtype))
        rows.append(row)
    return rows


def _calibration(program: Program, samples: list[list[np.ndarray]], folder: Path) -> Calibration:
    path = folder / "calibration.npz"
    columns = {spec.name: [row[i] for row in samples] for i, spec in enumerate(program.inputs)}
    np.savez(path, **{name: np.stack(values)[:, 0] for name, values in columns.items()})
    return Calibration(
        path=path, count=len(samples), sha256=sha256_of(path), description="the samples themselves"
    )


def _text(shape: tuple[int, ...]) -> str:
    return "x".join(str(size) for size in shape)


def print_row(row: Row) -> None:
    """Tell one result as it comes, on standard error."""
    told = row.refusal or f"{row.max_abs:.2e}, {row.snr_db:.1f} dB"
    print(f"{row.model} {row.precision}: {told}", file=sys.stderr)


def print_table(rows: list[Row]) -> None:
    """Print all results."""
    table = Table(title="Core ML packages, interpreted, beside the source in PyTorch")
    for column in ("model", "precision", "KiB", "operators", "max abs", "of", "SNR dB", "claim"):
        table.add_column(column, justify="left" if column in ("model", "precision", "claim") else "right")
    words = {True: "holds", False: "FAILS", None: ""}
    for row in rows:
        table.add_row(
            row.model,
            row.precision,
            f"{row.size_bytes / 1024:.1f}",
            str(row.operators),
            *(
                ["refused", "", ""]
                if row.refusal
                else [f"{row.max_abs:.1e}", f"{row.largest:.2f}", f"{row.snr_db:.1f}"]
            ),
            words[row.holds],
        )
    Console(width=110).print(table)
    for row in rows:
        if row.refusal:
            print(f"{row.model} {row.precision} refused: {row.refusal}")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    main()

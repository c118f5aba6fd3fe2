"""The proof of a C model: what this machine computes with it is, bit by bit, what LiteRT Micro gives."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgewright.core.errors import ConversionError
from edgewright.core.tensors import Array
from edgewright.microcontrollers import host, oracle
from edgewright.microcontrollers.emit import CModel
from edgewright.microcontrollers.graph import Tensor
from edgewright.microcontrollers.reader import read_graph

# Where the model has exponentials of float32, of which every library rounds some differently.
ROUNDING = 1e-5
Rows = Sequence[Sequence[Array]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Proven:
    """Outputs for some inputs.

    Attributes:
        oracle_version: of the interpreter that gave the same; empty where it is not installed.
    """

    outputs: Rows
    oracle_version: str


def prove(model: CModel, source: Path, stored: Path, rows: Rows) -> Proven:
    """Return the outputs of the C model for `rows`, compared with the interpreter's where it is installed.

    Args:
        source: NAME.c, with NAME.h beside it.
        stored: the `.tflite` that `model` was made of.
        rows: inputs as the C model takes them.
    Raises:
        UnavailableError: there is no C compiler.
        ConversionError: the outputs differ, or the interpreter refuses the model.
    """
    with tempfile.TemporaryDirectory(prefix="edgewright-c-") as folder:
        made = host.HostModel(source, graph=model.graph, folder=Path(folder))
        own = [made.run(row) for row in rows]
    if not oracle.is_installed():
        return Proven(outputs=own, oracle_version="")
    right = oracle_outputs(model, stored, rows)
    for number, (mine, theirs) in enumerate(zip(own, right, strict=True)):
        for have, want in zip(mine, theirs, strict=True):
            if not agree(have, want, is_exact=model.is_exact):
                count = int((have != want).sum())
                raise ConversionError(
                    f"the C code of {stored.name} differs from LiteRT Micro in run {number}: {count} of {have.size} "
                    "values. Report it with the model, and use --to litert."
                )
    return Proven(outputs=own, oracle_version=oracle.version())


def oracle_outputs(model: CModel, stored: Path, rows: Rows) -> list[tuple[Array, ...]]:
    """Return the interpreter's outputs as the C model gives them.

    Where the file has float ends and the C model has integers, they are converted; that loses nothing: a real number
    made of an integer becomes that integer again.
    """
    graph, whole = model.graph, read_graph(stored)
    inputs = [(graph.tensor(a), whole.tensor(b)) for a, b in zip(graph.inputs, whole.inputs, strict=True)]
    outputs = [(graph.tensor(a), whole.tensor(b)) for a, b in zip(graph.outputs, whole.outputs, strict=True)]
    given = [
        [
            array if own.dtype == file.dtype else _real(array, own)
            for array, (own, file) in zip(row, inputs, strict=True)
        ]
        for row in rows
    ]
    run = oracle.run(stored, given)
    if run.refusal:
        raise ConversionError(
            f"LiteRT Micro does not take {stored.name}, so that nothing can be compared: {run.refusal[:300]}. "
            "Use --to litert."
        )
    return [
        tuple(
            array if own.dtype == file.dtype else _integers(array, own)
            for array, (own, file) in zip(row, outputs, strict=True)
        )
        for row in run.outputs
    ]


def agree(have: Array, want: Array, *, is_exact: bool) -> bool:
    """Return whether an output is the interpreter's: bit by bit, or within `ROUNDING` of its largest value."""
    if is_exact:
        return have.tobytes() == want.tobytes()
    finite = np.isfinite(want)
    if not np.array_equal(have[~finite], want[~finite], equal_nan=True):
        return False
    largest = float(np.abs(want[finite].astype(np.float64)).max(initial=0.0))
    return bool(np.allclose(have[finite], want[finite], rtol=ROUNDING, atol=ROUNDING * largest))


def _real(array: Array, tensor: Tensor) -> Array:
    levels = np.subtract(array, tensor.zero_point, dtype=np.int64, casting="unsafe").astype(np.float32)
    return np.asarray(levels * np.float32(tensor.scale), dtype=np.float32)


def _integers(array: Array, tensor: Tensor) -> Array:
    levels = np.rint(array.astype(np.float64) / tensor.scale) + tensor.zero_point
    return np.asarray(levels).astype(tensor.dtype)

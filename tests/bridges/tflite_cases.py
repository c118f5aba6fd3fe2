"""Files of single LiteRT operators, and their comparison: ONNX Runtime, optimised, against LiteRT's kernels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tests.bridges.tflite_files import Flat, Step, const, write

from edgewright.bridges import tflite_run
from edgewright.bridges.tflite_onnx import TfliteToOnnx
from edgewright.core.tensors import Array
from edgewright.sources.tflite import read_tflite

F = Flat
X = F(shape=(2, 5, 6, 4))
Case = tuple[str, Sequence[Flat | None], Sequence[Flat], str, int, dict[str, object]]
DRAW = np.random.default_rng(3)


def floats(*shape: int) -> Flat:
    return const(DRAW.standard_normal(shape), "float32")


def int8(*shape: int, scale: float = 0.05, zero: int = 3) -> Flat:
    return F(shape=shape, dtype="int8", scale=[scale], zero=[zero])


def weights8(*shape: int, axis: int, dtype: str = "int8") -> Flat:
    n = shape[axis]
    value = DRAW.integers(-127, 128, shape).astype(dtype)
    return F(
        shape=shape,
        dtype=dtype,
        value=value,
        scale=list(DRAW.uniform(0.005, 0.02, n)),
        zero=[0] * n,
        axis=axis,
    )


def bias32(weights: Flat, scale: float) -> Flat:
    n = len(weights.scale)
    value = DRAW.integers(-500, 500, n).astype(np.int32)
    return F(shape=(n,), dtype="int32", value=value, scale=[scale * s for s in weights.scale], zero=[0] * n)


def build(
    path: Path,
    name: str,
    reads: Sequence[Flat | None],
    makes: Sequence[Flat],
    kind: str = "",
    version: int = 1,
    **options: object,
) -> Path:
    """Write a file with this operator alone; tensors without a value are its inputs."""
    return build_all(path, [(name, reads, makes, kind, version, options)])


def build_all(path: Path, cases: Sequence[Case]) -> Path:
    """Write a file with these operators side by side."""
    tensors: dict[str, Flat] = {}
    steps = []
    for number, (name, reads, makes, kind, version, options) in enumerate(cases):
        tensors |= {f"x{number}.{i}": one for i, one in enumerate(reads) if one is not None}
        tensors |= {f"y{number}.{i}": one for i, one in enumerate(makes)}
        step = Step(
            name=name,
            reads=tuple("" if one is None else f"x{number}.{i}" for i, one in enumerate(reads)),
            makes=tuple(f"y{number}.{i}" for i in range(len(makes))),
            kind=kind,
            options=options,
            version=version,
        )
        steps.append(step)
    inputs = [n for n, one in tensors.items() if n[0] == "x" and one.value is None and not one.is_variable]
    return write(path, tensors, steps, inputs, [n for n in tensors if n[0] == "y"])


def check(path: Path, *, steps: int = 1) -> None:
    """Convert the file and compare it in ONNX Runtime with LiteRT on fresh inputs."""
    import onnxruntime as ort

    made = TfliteToOnnx().convert(read_tflite(path, spec=str(path)), path.parent / "onnx")
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(str(made.path), options, providers=["CPUExecutionProvider"])
    reference = tflite_run.Reference(path, name=path.name)
    random = np.random.default_rng(11)
    row = [
        tflite_run.random_array(random, np.dtype(spec.dtype), tuple(size or 3 for size in spec.shape))
        for spec in made.inputs
    ]
    got = session.run(
        [spec.name for spec in made.outputs],
        {spec.name: array for spec, array in zip(made.inputs, row, strict=True)},
    )
    for have, want in zip(got, reference.run(row), strict=True):
        compare(have, want, steps)


def compare(have: Array, want: Array, steps: int) -> None:
    assert have.dtype == want.dtype
    assert have.shape == want.shape
    if want.dtype.kind == "f":
        np.testing.assert_allclose(have, want, rtol=2e-5, atol=2e-6 * float(np.abs(want).max(initial=1.0)))
    elif want.dtype.itemsize == 1 and want.dtype.kind != "b":
        assert np.abs(have.astype(int) - want.astype(int)).max(initial=0) <= steps
    else:
        np.testing.assert_array_equal(have, want)

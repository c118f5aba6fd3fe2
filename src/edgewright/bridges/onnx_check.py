"""The proof of the bridge: the exported program against ONNX Runtime on random inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgewright.core.errors import ConversionError, first_line
from edgewright.core.program import Program
from edgewright.core.tensors import Array, TensorSpec

if TYPE_CHECKING:
    import onnx
    from torch.export import ExportedProgram

_SEED = 20261121
# float32 sums in another order keep 1e-6 of the largest value in a deep network; a wrong constant, mode or rounding
# does not come below these. float16 models are computed in float32 here and in float16 there.
_RTOL = {"fp16": 2e-2}
_ATOL_OF_MAX = {"fp16": 5e-3, "w8": 1e-3, "w8a8": 5e-2, "w4a8": 5e-2}
_STEPS = {"w8a8": 1, "w4a8": 1}  # by which integers may differ
_DEFAULT_RTOL, _DEFAULT_ATOL_OF_MAX = 1e-4, 2e-5
_ATOL = 1e-6  # for outputs that are all small, such as probabilities, behind values of about 1

Samples = Sequence[Sequence[Array]]
Run = Callable[[Sequence[Array]], Sequence[Array]]


def samples(specs: Sequence[TensorSpec], shapes: Sequence[tuple[int, ...]]) -> Samples:
    """Return two sets of random inputs: of both signs, and positive ones without 0.

    Wide integers are 0 or 1, as indices are, and in the second set 1, by which all can be divided.

    Raises:
        ConversionError: an input holds neither numbers nor bool.
    """
    texts = [spec.name for spec in specs if spec.dtype == "string"]
    if texts:
        raise ConversionError(f"the inputs {', '.join(texts)} hold strings, which no tensor program takes.")
    random = np.random.default_rng(_SEED)
    return [
        [
            _random(random, np.dtype(spec.dtype), shape, is_signed)
            for spec, shape in zip(specs, shapes, strict=True)
        ]
        for is_signed in (True, False)
    ]


def _random(
    random: np.random.Generator, dtype: np.dtype[np.generic], shape: tuple[int, ...], is_signed: bool
) -> Array:
    if dtype.kind == "f":
        return np.asarray(random.standard_normal(shape) if is_signed else random.random(shape)).astype(dtype)
    if dtype.itemsize == 1 and dtype.kind != "b":
        lowest = (-128 if dtype.kind == "i" else 0) if is_signed else 1
        highest = 127 if dtype.kind == "i" else 255
        return random.integers(lowest, highest, shape, endpoint=True).astype(dtype)
    is_bool = dtype.kind == "b"
    return np.asarray(random.integers(0 if is_signed or is_bool else 1, 2, shape)).astype(dtype)


def compare(
    program: Program, model: onnx.ModelProto, exported: ExportedProgram, inputs: Samples, *, is_half: bool
) -> None:
    """Check that `exported` gives what the ONNX file gives in ONNX Runtime, or in ONNX's reference where that refuses.

    A sample that the model cannot take (a division by zero, an index out of range) is left out, while one is left.

    Args:
        is_half: the model computes in half precision.
    Raises:
        ConversionError: they differ, or no sample could be compared.
    """
    import torch

    module = exported.module()
    kind = "fp16" if is_half else program.precision
    compared, failure = 0, ""
    for row in inputs:
        try:
            results = [
                value.numpy() for value in module(*[torch.from_numpy(np.array(value)) for value in row])
            ]
        except Exception as err:  # before ONNX Runtime, which dies of an integer divided by zero
            failure = f"torch: {first_line(err)}"
            continue
        for source in (_runtime, _reference):
            try:
                wanted = source(program, model)(row)
            except Exception as err:  # either raises its own classes
                failure = first_line(err)
                continue
            for spec, got, want in zip(program.outputs, results, wanted, strict=True):
                _compare(kind, spec, got, want)
            compared += 1
            break
    if not compared:
        raise ConversionError(
            f"{program.path.name} cannot be compared with its conversion: neither ONNX Runtime nor the reference ran "
            f"both on random inputs ({failure})."
        )


def _runtime(program: Program, model: onnx.ModelProto) -> Run:
    from edgewright.backends.onnx_session import OnnxSession

    session = OnnxSession(program.path, program.inputs, program.outputs, threads=1, is_optimised=False)
    names = [spec.name for spec in program.inputs]

    def run(row: Sequence[Array]) -> Sequence[Array]:
        results = session.run(dict(zip(names, row, strict=True)))
        return [results[spec.name] for spec in program.outputs]

    return run


def _reference(program: Program, model: onnx.ModelProto) -> Run:
    from onnx.reference import ReferenceEvaluator

    evaluator = ReferenceEvaluator(model)
    names = [spec.name for spec in program.inputs]

    def run(row: Sequence[Array]) -> Sequence[Array]:
        with np.errstate(all="ignore"):
            results = evaluator.run(
                [spec.name for spec in program.outputs], dict(zip(names, row, strict=True))
            )
        return [np.asarray(value) for value in results]

    return run


def _compare(kind: str, spec: TensorSpec, got: Array, want: Array) -> None:
    what = f"output {spec.name!r} of the converted program"
    if got.shape != want.shape or got.dtype != want.dtype:
        raise ConversionError(
            f"{what} is {got.dtype}{list(got.shape)}, but the ONNX model gives {want.dtype}{list(want.shape)}. "
            "It is not converted; this is a fault of the bridge."
        )
    if got.dtype.kind != "f":
        difference = np.abs(got.astype(np.float64) - want.astype(np.float64))
        allowed: Array = np.asarray(float(_STEPS.get(kind, 0)))
    else:
        wide, true = got.astype(np.float64), want.astype(np.float64)
        finite = np.isfinite(true)
        largest = float(np.abs(true[finite]).max(initial=0.0))
        with np.errstate(invalid="ignore"):
            same = (wide == true) | (np.isnan(wide) & np.isnan(true))
            # ONNX Runtime's Attention hides a score behind the lowest float, where ONNX's definition says -inf.
            same |= (wide == -np.inf) & (true == np.finfo(np.float32).min)
            difference = np.where(same, 0.0, np.abs(wide - true))
        allowed = np.where(
            finite,
            _ATOL
            + _ATOL_OF_MAX.get(kind, _DEFAULT_ATOL_OF_MAX) * largest
            + _RTOL.get(kind, _DEFAULT_RTOL) * np.abs(np.where(finite, true, 0.0)),
            0.0,
        )
    if not np.all(difference <= allowed):
        worst = float(np.nanmax(difference)) if not np.all(np.isnan(difference)) else float("nan")
        raise ConversionError(
            f"{what} differs by {worst:.3g} from ONNX Runtime on random inputs. It is not converted; this is a "
            "fault of the bridge."
        )

"""Give an ONNX model the input shapes that the user says, for runtimes that need them fixed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgewright.core.errors import ConversionError, UsageError, first_line
from edgewright.core.files import sha256_of, write_aside
from edgewright.core.program import Program
from edgewright.core.tensors import TensorSpec
from edgewright.sources.shapes import InputShape, parse_input_shapes

if TYPE_CHECKING:
    import onnx

_MAX_INLINE_BYTES = (2 << 30) - 1


def fix_onnx_shapes(program: Program, texts: Sequence[str], workdir: Path) -> Program:
    """Return `program` with the shapes that `texts` say (see `sources.shapes`) in a new file below `workdir`.

    Inputs that no text names keep their shape. The outputs get the shapes that one run on zeros gives them; where
    the model does not take zeros, they stay as they were, with a note.

    Raises:
        UsageError: an unknown input, another rank or dtype, or a size that contradicts a fixed one.
        ConversionError: the model is too large for one file.
    """
    import onnx

    specs = _fixed(program.inputs, parse_input_shapes(texts))
    try:
        model = onnx.load(program.path)
    except Exception as err:  # external data that cannot be read: protobuf, OS and onnx errors
        raise ConversionError(f"{program.path} cannot be read whole: {first_line(err)}.") from err
    for value in model.graph.input:
        for spec in specs:
            if spec.name == value.name:
                _set_shape(value, spec)
    del model.graph.value_info[:]  # written for other shapes
    if model.ByteSize() > _MAX_INLINE_BYTES:
        raise ConversionError(
            f"{program.path} is larger than 2 GB; its shapes can only be fixed by its exporter."
        )
    notes = [note for note in program.notes if " is dynamic in " not in note]
    try:
        shapes = _output_shapes(model, specs, [spec.name for spec in program.outputs])
    except ConversionError as err:
        # A branch that zeros lead into may not take these sizes, though the one that real inputs take does.
        notes.append(f"the shapes of the outputs are left open: {err}")
        shapes = [spec.shape for spec in program.outputs]
    outputs = tuple(replace(spec, shape=shape) for spec, shape in zip(program.outputs, shapes, strict=True))
    for value, spec in zip(model.graph.output, outputs, strict=True):
        _set_shape(value, spec)
    path = workdir / "fixed.onnx"
    with write_aside(path) as aside:
        aside.write_bytes(model.SerializeToString(deterministic=True))
    said = ", ".join(f"{spec.name}={'x'.join(map(str, spec.shape)) or 'scalar'}" for spec in specs)
    return replace(
        program,
        path=path,
        inputs=specs,
        outputs=outputs,
        sha256=sha256_of(path),
        history=(*program.history, f"shapes fixed: {said}"),
        notes=tuple(notes),
    )


def _fixed(inputs: Sequence[TensorSpec], shapes: Sequence[InputShape]) -> tuple[TensorSpec, ...]:
    named = {shape.name: shape for shape in shapes if shape.name is not None}
    if not named:
        if len(shapes) > len(inputs):
            raise UsageError(f"{len(shapes)} input shapes are given, but the model has {len(inputs)} inputs.")
        named = {spec.name: shape for spec, shape in zip(inputs, shapes, strict=False)}
    unknown = [name for name in named if name not in {spec.name for spec in inputs}]
    if unknown:
        have = ", ".join(map(str, inputs))
        raise UsageError(f"--input-shape names {unknown[0]!r}, but the model has {have}.")
    return tuple(_agreed(spec, named[spec.name]) if spec.name in named else spec for spec in inputs)


def _agreed(spec: TensorSpec, wanted: InputShape) -> TensorSpec:
    shape = () if not spec.shape and wanted.shape == (1,) else wanted.shape
    fits = len(shape) == len(spec.shape) and all(
        have in (None, want) for have, want in zip(spec.shape, shape, strict=True)
    )
    if not fits or (wanted.dtype != "float32" and wanted.dtype != spec.dtype):
        raise UsageError(
            f"--input-shape {'x'.join(map(str, wanted.shape))}:{wanted.dtype} does not fit input {spec}. "
            "Give each dynamic dimension a size, and leave the others as they are."
        )
    return replace(spec, shape=shape)


def _set_shape(value: onnx.ValueInfoProto, spec: TensorSpec) -> None:
    dims = value.type.tensor_type.shape.dim
    del dims[:]
    for position, size in enumerate(spec.shape):
        dim = dims.add()
        if size is None:
            dim.dim_param = f"{spec.name}_{position}"
        else:
            dim.dim_value = size


def _output_shapes(
    model: onnx.ModelProto, inputs: Sequence[TensorSpec], names: Sequence[str]
) -> list[tuple[int | None, ...]]:
    """Return the shapes of the outputs; a dimension that follows a dynamic one of the input stays dynamic."""
    found = _run_shapes(model, inputs, names, free=1)
    if all(spec.is_static for spec in inputs):
        return list(found)
    other = _run_shapes(model, inputs, names, free=2)
    return [
        tuple(a if a == b else None for a, b in zip(one, two, strict=True))
        for one, two in zip(found, other, strict=True)
    ]


def _run_shapes(
    model: onnx.ModelProto, inputs: Sequence[TensorSpec], names: Sequence[str], *, free: int
) -> list[tuple[int, ...]]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    zeros = {
        spec.name: np.zeros([free if size is None else size for size in spec.shape], spec.dtype)
        for spec in inputs
    }
    try:
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        results = session.run(list(names), zeros)
    except Exception as err:  # onnxruntime has one class per status code, without a common base
        raise ConversionError(f"the model does not run on zeros of these sizes: {first_line(err)}") from err
    return [tuple(np.shape(result)) for result in results]

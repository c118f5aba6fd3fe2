"""Inspection: what a model file holds (signature, parameters, MACs, operators, layers).

MACs are multiply-accumulates of one inference (a dynamic first dimension counts as 1, a static one as it is):

- convolution: output elements x kernel elements x input channels of one group
- transposed convolution: input elements x kernel elements x output channels of one group
- fully connected, matrix product: output elements x length of the summed dimension
- recurrent cell: steps x elements of the input and recurrent matrices

Padding counts as if it were data; biases, activations, pooling, normalisation, additions and multiplications
of whole tensors count nothing. This is the convention of the MLPerf Tiny reference figures.

Parameters are the elements of constant weights and biases; shapes, axes, scales and zero points are none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgewright.core.errors import FormatMismatchError
from edgewright.core.program import Program, specs_from_json
from edgewright.core.tensors import TensorSpec

Shape = tuple[int | None, ...]


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One operator of the graph; `macs` is None where a shape that it needs is not known."""

    name: str
    operator: str
    output_shape: Shape
    parameters: int
    macs: int | None


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """What a model file holds.

    Attributes:
        macs: None when unknown; `macs_reason` then says why.
        operators: name -> how often, most frequent first.
        dynamic_dims: e.g. "input: dimension 0".
    """

    name: str
    format: str
    sha256: str
    size_bytes: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    parameters: int
    macs: int | None
    macs_reason: str
    operators: Mapping[str, int]
    layers: tuple[Layer, ...]
    precision: str
    dynamic_dims: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, object]:
        """Return the record as JSON values."""
        return {
            "name": self.name,
            "format": self.format,
            "sha256": self.sha256,
            "size_bytes": self.size_bytes,
            "inputs": [spec.to_json() for spec in self.inputs],
            "outputs": [spec.to_json() for spec in self.outputs],
            "parameters": self.parameters,
            "macs": self.macs,
            "macs_reason": self.macs_reason,
            "operators": dict(self.operators),
            "layers": [
                {
                    "name": layer.name,
                    "operator": layer.operator,
                    "output_shape": list(layer.output_shape),
                    "parameters": layer.parameters,
                    "macs": layer.macs,
                }
                for layer in self.layers
            ],
            "precision": self.precision,
            "dynamic_dims": list(self.dynamic_dims),
            "notes": list(self.notes),
        }

    @staticmethod
    def from_json(record: Mapping[str, object]) -> Inspection:
        """Return the inspection that `to_json` wrote."""
        operators, layers = record["operators"], record["layers"]
        dims, notes = record["dynamic_dims"], record["notes"]
        assert isinstance(operators, dict)
        assert isinstance(layers, list)
        assert isinstance(dims, list)
        assert isinstance(notes, list)
        macs = record["macs"]
        return Inspection(
            name=str(record["name"]),
            format=str(record["format"]),
            sha256=str(record["sha256"]),
            size_bytes=int(str(record["size_bytes"])),
            inputs=specs_from_json(record["inputs"]),
            outputs=specs_from_json(record["outputs"]),
            parameters=int(str(record["parameters"])),
            macs=None if macs is None else int(str(macs)),
            macs_reason=str(record["macs_reason"]),
            operators={str(name): int(count) for name, count in operators.items()},
            layers=tuple(
                Layer(
                    name=str(layer["name"]),
                    operator=str(layer["operator"]),
                    output_shape=tuple(None if dim is None else int(dim) for dim in layer["output_shape"]),
                    parameters=int(layer["parameters"]),
                    macs=None if layer["macs"] is None else int(layer["macs"]),
                )
                for layer in layers
            ),
            precision=str(record["precision"]),
            dynamic_dims=tuple(str(dim) for dim in dims),
            notes=tuple(str(note) for note in notes),
        )


def inspect_program(program: Program) -> Inspection:
    """Return the description of `program`; runs in a worker."""
    layers, parameters = _layers(program)
    return summary(
        name=Path(program.origin).name,
        model_format=program.format,
        sha256=program.sha256,
        size_bytes=size_of(program.path, program.format),
        inputs=program.inputs,
        outputs=program.outputs,
        layers=layers,
        parameters=parameters,
        precision=program.precision,
        notes=program.notes,
    )


def _layers(program: Program) -> tuple[list[Layer], int]:
    if program.format == "keras":
        from edgewright.sources.inspect_keras import keras_layers

        return keras_layers(program)
    if program.format in ("saved_model", "graph_def"):
        from edgewright.sources.inspect_saved_model import graph_layers

        return graph_layers(program)
    if program.format == "torchscript":
        from edgewright.sources.inspect_torchscript import torchscript_layers

        return torchscript_layers(program.path, program.inputs)
    return layers_of(program.path, program.format)


def layers_of(path: Path, model_format: str) -> tuple[list[Layer], int]:
    """Return the layers in graph order and the number of parameters."""
    if model_format == "tflite":
        from edgewright.sources.inspect_tflite import tflite_layers

        return tflite_layers(path)
    if model_format == "onnx":
        from edgewright.sources.inspect_onnx import onnx_layers

        return onnx_layers(path)
    if model_format == "pt2":
        from edgewright.sources.inspect_torch import torch_layers

        return torch_layers(path)
    raise FormatMismatchError(f"{path} has format {model_format!r}; pt2, onnx and tflite are inspected.")


def size_of(path: Path, model_format: str) -> int:
    """Return the bytes on disk, external data included."""
    if model_format == "saved_model":
        from edgewright.sources.inspect_saved_model import saved_model_size

        return saved_model_size(path)
    size_bytes = path.stat().st_size
    if model_format == "onnx":
        from edgewright.sources.onnx import external_files, parse_onnx

        size_bytes += sum(file.stat().st_size for file in external_files(parse_onnx(path), path))
    return size_bytes


def summary(
    *,
    name: str,
    model_format: str,
    sha256: str,
    size_bytes: int,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    layers: Sequence[Layer],
    parameters: int,
    precision: str,
    notes: Sequence[str],
) -> Inspection:
    """Return the inspection with the totals of `layers`."""
    unknown = [f"{layer.name} ({layer.operator})" for layer in layers if layer.macs is None]
    macs = None if unknown else sum(layer.macs or 0 for layer in layers)
    reason = ""
    if unknown:
        reason = f"shapes or repeats of {len(unknown)} layers are not known, e.g. {unknown[0]}"
    dynamic = [
        f"{spec.name}: dimension {axis}"
        for spec in inputs
        for axis, dim in enumerate(spec.shape)
        if dim is None
    ]
    return Inspection(
        name=name,
        format=model_format,
        sha256=sha256,
        size_bytes=size_bytes,
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        parameters=parameters,
        macs=macs,
        macs_reason=reason,
        operators=dict(Counter(layer.operator for layer in layers).most_common()),
        layers=tuple(layers),
        precision=precision,
        dynamic_dims=tuple(dynamic),
        notes=tuple(notes),
    )


def product(shape: Sequence[int | None] | None) -> int | None:
    """Return the number of elements, or None when the shape or a dimension is not known."""
    if shape is None:
        return None
    count = 1
    for dim in shape:
        if dim is None or dim < 0:
            return None
        count *= dim
    return count


def times(*factors: int | None) -> int | None:
    """Return the product of `factors`, or None when one is not known."""
    return product(factors)

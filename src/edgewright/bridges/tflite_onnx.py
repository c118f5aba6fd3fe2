"""LiteRT -> ONNX: every operator of a `.tflite` written as ONNX, and the two compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from edgewright.backends import onnx_graph, vendor
from edgewright.bridges import tflite_check, tflite_graph, tflite_layout, tflite_model
from edgewright.bridges.tflite_builder import Builder
from edgewright.bridges.tflite_ops import handlers, write_operations
from edgewright.core.contracts import Support
from edgewright.core.errors import ConversionError, FormatMismatchError
from edgewright.core.files import sha256_of
from edgewright.core.program import Program
from edgewright.core.tensors import TensorSpec

_PACKAGES = ("ai-edge-litert", "onnx", "onnxruntime")
_STEP = "tflite -> onnx (edgewright)"
_EDGE_TPU = "edgetpu-custom-op"


class TfliteToOnnx:
    """Writes a `.tflite` as ONNX: floats as they are, integers between QuantizeLinear and DequantizeLinear.

    Inputs and outputs keep names, order, dtypes and their channels-last layout; a dynamic batch stays dynamic where
    LiteRT itself runs the file with more than one sample.
    """

    name = "tflite-to-onnx"
    reads: tuple[str, ...] = ("tflite",)
    writes = "onnx"
    environment = ""

    def probe(self) -> Support:
        """Say whether LiteRT, onnx and onnxruntime are here."""
        return vendor.support(_PACKAGES, extra="default")

    def convert(self, program: Program, workdir: Path) -> Program:
        """Return the program as an `.onnx` in `workdir`.

        Raises:
            FormatMismatchError: the program is not a `.tflite`.
            IntegrityError: the file is broken.
            ConversionError: operators have no translation (all are named), names cannot be kept, LiteRT does not run
                the file, or ONNX Runtime gives other numbers than LiteRT.
        """
        if program.format != "tflite":
            raise FormatMismatchError(
                f"{self.name} reads tflite, but {program.path.name} is {program.format}."
            )
        workdir.mkdir(parents=True, exist_ok=True)
        inputs, outputs = ([spec.name for spec in specs] for specs in (program.inputs, program.outputs))
        _check_names(program, inputs, outputs)
        _check_operators(program)
        model = tflite_model.read(program, workdir)
        builder = Builder(model, inputs, outputs)
        write_operations(builder, program.path.name)
        graph = tflite_layout.optimised(tflite_graph.pruned(builder.finish()))
        path = workdir / f"{program.path.stem}.onnx"
        onnx_graph.save(tflite_graph.to_onnx(tflite_graph.labelled(graph)), path)
        made = replace(
            program,
            path=path,
            format=self.writes,
            sha256=sha256_of(path),
            inputs=_with_shapes(program.inputs, model, model.inputs),
            outputs=_with_shapes(program.outputs, model, model.outputs),
            history=(*program.history, _STEP),
            notes=(*program.notes, *model.notes, *builder.notes),
        )
        found = tflite_check.compare(program, model, made, workdir)
        return replace(made, notes=(*made.notes, *found))


def _check_names(program: Program, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    both = sorted(set(inputs) & set(outputs))
    if both:
        raise ConversionError(
            f"{program.path.name} has the tensors {', '.join(both)} as inputs and as outputs, for which ONNX has one "
            "name only. Name them apart when the file is written."
        )


def _check_operators(program: Program) -> None:
    names = tflite_model.operator_names(program.path)
    unknown = sorted({name for name in names if name not in handlers()})
    if f"custom {_EDGE_TPU}" in unknown:
        raise ConversionError(
            f"{program.path.name} is compiled for the Edge TPU ({_EDGE_TPU}): its layers are machine code of that "
            "chip and run nowhere else. Give the .tflite from before edgetpu_compiler."
        )
    if unknown:
        raise ConversionError(
            f"{program.path.name} cannot become ONNX: there is no translation of {', '.join(unknown)}. "
            "Replace them in the model, or choose LiteRT."
        )


def _with_shapes(
    specs: Sequence[TensorSpec], model: tflite_model.Model, indices: Sequence[int]
) -> tuple[TensorSpec, ...]:
    return tuple(
        replace(spec, shape=model.tensors[index].shape) for spec, index in zip(specs, indices, strict=True)
    )

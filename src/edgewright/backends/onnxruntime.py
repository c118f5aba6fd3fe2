"""ONNX Runtime on the CPU."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgewright.backends import onnx_graph, onnx_qdq
from edgewright.backends.onnx_session import OnnxSession
from edgewright.backends.trace_onnx import trace_onnx
from edgewright.backends.vendor import (
    LOW_BITS_NOTE,
    calibration_samples,
    load_exported,
    quiet,
    refuses_low_bits,
    support,
    versions,
)
from edgewright.core.artifact import Artifact
from edgewright.core.contracts import Calibration, Session, Support, TracedLayer
from edgewright.core.errors import ConversionError, FormatMismatchError, first_line
from edgewright.core.files import copy_files, sha256_of_files
from edgewright.core.program import Program
from edgewright.core.target import INTEGER_PRECISIONS, Precision, Quantizer, Target
from edgewright.core.tensors import Arrays, Layout, TensorSpec

if TYPE_CHECKING:
    from onnx import ModelProto
    from torch.export import ExportedProgram

_PACKAGES = ("onnx", "onnxruntime", "onnxscript")
FILE_NAME = "model.onnx"


class OnnxRuntimeBackend:
    """Exports PyTorch programs with torch's own exporter, and takes ONNX files as they are."""

    name = "onnxruntime"
    environment = ""
    runtime_module = "onnxruntime"
    consumes: tuple[str, ...] = ("pt2", "onnx")
    precisions: tuple[Precision, ...] = (Precision.FP32, Precision.FP16, Precision.W8, *INTEGER_PRECISIONS)

    def probe(self) -> Support:
        """Say whether ONNX Runtime and the exporter's packages are installed."""
        return support(_PACKAGES, extra="onnxruntime")

    def refuses(self, program: Program, target: Target) -> str | None:
        """Return why this pair cannot be done, or None."""
        if program.format not in self.consumes:
            return f"onnxruntime reads {', '.join(self.consumes)}, but the program is {program.format}."
        if target.accelerator != ("cpu",):
            return f"onnxruntime runs on cpu in this version, not on {', '.join(target.accelerator)}."
        if program.precision not in (Precision.FP32, target.precision):
            return (
                f"the source is already {program.precision}, so it cannot be made {target.precision}: "
                f"ask for {program.precision}, or give the float model."
            )
        if target.precision not in self.precisions:
            return f"onnxruntime makes {', '.join(self.precisions)}, not {target.precision}."
        if target.quantizer is Quantizer.ACCURACY:
            return "onnxruntime has no accuracy-controlled quantization: use pt2e or native."
        if target.quantizer is Quantizer.PT2E and target.precision is Precision.W8:
            return "PT2E quantizes weights and activations (w8a8); w8 is made by the native quantizer."
        low_bits = refuses_low_bits(program, target)
        if low_bits is not None:
            return f"{low_bits}."
        if (
            target.quantizer is Quantizer.PT2E
            and target.precision is Precision.W8A8
            and program.format != "pt2"
        ):
            return f"PT2E quantizes PyTorch programs, not {program.format}: use the native quantizer."
        if target.layout is not None and any(
            len(spec.shape) == 4 and spec.layout is None for spec in program.inputs
        ):
            return f"the layout of the source's inputs is not known, so it cannot be made {target.layout}."
        return None

    def quantizer(self, program: Program, target: Target) -> Quantizer | None:
        """Return who quantizes: for w8a8 PT2E for PyTorch programs unless the target says otherwise."""
        if program.precision != Precision.FP32:
            return None
        if target.precision is Precision.W8:
            return Quantizer.NATIVE
        if target.precision in INTEGER_PRECISIONS:
            default = Quantizer.PT2E if program.format == "pt2" else Quantizer.NATIVE
            return target.quantizer or default
        return None

    def convert(
        self, program: Program, target: Target, calibration: Calibration | None, workdir: Path
    ) -> Artifact:
        """Write `model.onnx` into `workdir`.

        Raises:
            FormatMismatchError: `refuses` gives a reason.
            DataError: w8a8 needs a calibration and there is none, or it does not fit.
            ConversionError: the exporter or the quantizer refused, with every unsupported operator by name.
        """
        reason = self.refuses(program, target)
        if reason is not None:
            raise FormatMismatchError(reason)
        moved = _moved_layouts(program, target)
        is_as_given = program.format == "onnx" and program.precision == target.precision and not moved
        path = workdir / FILE_NAME
        notes: tuple[str, ...] = ()
        if is_as_given:
            model = onnx_graph.load(program.path)
            onnx_graph.refuse_misread(model, program.path.name)
            listed = onnx_graph.drop_listed_initialisers(model)
            if listed:
                # ONNX Runtime folds no initialiser that a caller might feed: UltraFace runs 3 times slower with them
                notes = (
                    f"{listed} initialisers are no longer listed as inputs, so that the runtime can fold them",
                )
                onnx_graph.save(model, path)
            else:
                _copy_as(program.path, model, path)
        else:
            model = self._made(program, target, calibration, workdir)
            onnx_graph.with_layout(model, moved)
            onnx_graph.save(model, path)
        inputs, outputs = onnx_graph.signature(model)
        return Artifact(
            files=(path,),
            target=target,
            inputs=_paired(inputs, program.inputs, moved, what=f"inputs of {path.name}"),
            outputs=_paired(outputs, program.outputs, moved, what=f"outputs of {path.name}"),
            sha256=sha256_of_files((path,)),
            source_sha256=program.sha256,
            toolchain=versions((*_PACKAGES, "torch") if program.format == "pt2" else _PACKAGES),
            notes=(*notes, *((LOW_BITS_NOTE,) if target.precision is Precision.W4A8 else ())),
        )

    def _made(
        self, program: Program, target: Target, calibration: Calibration | None, workdir: Path
    ) -> ModelProto:
        model = export(program) if program.format == "pt2" else onnx_graph.load(program.path)
        if _is_from_pt2e(program):
            onnx_qdq.lower_pt2e(model)
            return model
        onnx_graph.drop_listed_initialisers(model)
        if target.precision is Precision.FP16:
            return onnx_graph.to_float16(model)
        if target.precision is Precision.W8 and program.precision == Precision.FP32:
            return onnx_graph.quantize_weights(model)
        if target.precision is Precision.W8A8 and program.precision == Precision.FP32:
            model = onnx_graph.with_opset(model, onnx_graph.PER_AXIS_OPSET)
            names = [spec.name for spec in onnx_graph.signature(model)[0]]
            return onnx_qdq.quantize_native(model, names, calibration_samples(program, calibration), workdir)
        return model

    def open(self, artifact: Artifact, target: Target, *, profile: bool = False) -> Session:
        """Load the artifact with the threads of `target`.

        Raises:
            ConversionError: the runtime refuses the file.
            IntegrityError: the file has other tensors than the artifact.
        """
        # Weight-only int8 is there for the size of the file: without this the runtime would turn the weights into
        # float again at every inference (3 times slower) instead of once when the file is loaded.
        settings = {"session.disable_quant_qdq": "1"} if target.precision is Precision.W8 else {}
        return OnnxSession(
            artifact.path,
            artifact.inputs,
            artifact.outputs,
            threads=target.threads,
            settings=settings,
            profile=profile,
        )

    def trace(
        self, artifact: Artifact, target: Target, batches: Iterable[Arrays], *, max_bytes: int
    ) -> Iterator[Sequence[TracedLayer]]:
        """Yield for each batch the layers in the order of execution, see `core.contracts.Traceable`."""
        return trace_onnx(artifact, target.threads, batches, max_bytes)


def _is_from_pt2e(program: Program) -> bool:
    return program.format == "pt2" and program.precision in INTEGER_PRECISIONS


def _copy_as(source: Path, model: ModelProto, path: Path) -> None:
    """Copy the file of `model` unchanged to `path`; a model with data in other files becomes one file."""
    import onnx
    from onnx.external_data_helper import uses_external_data

    bare = onnx.load(source, load_external_data=False)
    if any(uses_external_data(tensor) for tensor in bare.graph.initializer):
        onnx_graph.save(model, path)
        return
    (copied,) = copy_files({source.name: source}, path.parent)
    if copied != path:
        copied.replace(path)


def export(program: Program) -> ModelProto:
    """Return the ONNX model of a `.pt2` program; dynamic dimensions are kept.

    Raises:
        ConversionError: the exporter has no ONNX operator for some of the program's.
    """
    import torch

    exported = load_exported(program)
    names = [spec.name for spec in (*program.inputs, *program.outputs)]
    is_distinct = len(set(names)) == len(names)
    try:
        with quiet():
            made = torch.onnx.export(
                exported,
                dynamo=True,
                external_data=False,
                input_names=[spec.name for spec in program.inputs] if is_distinct else None,
                output_names=[spec.name for spec in program.outputs] if is_distinct else None,
                verbose=False,
            )
    except Exception as err:
        raise ConversionError(_why_not_exported(program, exported, err)) from err
    assert made is not None
    model: ModelProto = made.model_proto
    return model


def _why_not_exported(program: Program, exported: ExportedProgram, err: Exception) -> str:
    missing = _unsupported_operators(exported)
    if missing:
        return (
            f"{program.path.name} cannot become ONNX: there is no ONNX operator for {', '.join(missing)}. "
            "Replace them in the model, or choose a runtime that has them."
        )
    cause: BaseException = err
    while cause.__cause__ is not None:
        cause = cause.__cause__
    return f"torch.onnx.export failed on {program.path.name}: {type(cause).__name__}: {first_line(cause)}"


def _unsupported_operators(exported: ExportedProgram) -> list[str]:
    """Return the ATen operators without an ONNX translation; the exporter itself stops at the first."""
    import torch
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    try:
        with quiet():
            graph = exported.run_decompositions().graph
            registry = ONNXRegistry.from_torchlib()
    except Exception:  # this is only the search for a better message: the exporter's own stays
        return []
    targets = {node.target for node in graph.nodes if isinstance(node.target, torch._ops.OpOverload)}
    return sorted(str(target) for target in targets if not registry.is_registered(target))


def _moved_layouts(program: Program, target: Target) -> dict[str, Layout]:
    """Return name -> layout of the rank-4 tensors whose layout the target changes; known layouts only."""
    if target.layout is None:
        return {}
    return {
        spec.name: target.layout
        for spec in (*program.inputs, *program.outputs)
        if len(spec.shape) == 4 and spec.layout is not None and spec.layout != target.layout
    }


def _paired(
    have: tuple[TensorSpec, ...], want: tuple[TensorSpec, ...], moved: dict[str, Layout], *, what: str
) -> tuple[TensorSpec, ...]:
    """Return the file's names with the program's shapes, which the file may leave open; checks the pairing.

    Raises:
        ConversionError: another number of tensors, another rank, dtype or size than the program's.
    """
    if len(have) != len(want):
        raise ConversionError(f"{what}: there are {len(have)}, but the source has {len(want)}.")
    paired = []
    for got, expected in zip(have, want, strict=True):
        shape, layout = expected.shape, moved.get(expected.name, expected.layout)
        if expected.name in moved:
            axes = (0, 2, 3, 1) if layout == "nhwc" else (0, 3, 1, 2)
            shape = tuple(shape[axis] for axis in axes)
        fits = not got.shape or (
            len(got.shape) == len(shape)
            and all(a is None or b is None or a == b for a, b in zip(got.shape, shape, strict=True))
        )
        if got.dtype != expected.dtype or not fits:
            raise ConversionError(f"{what}: the file has {got}, but the source has {expected}.")
        paired.append(replace(got, shape=shape, layout=layout))
    return tuple(paired)

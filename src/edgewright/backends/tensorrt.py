"""TensorRT on NVIDIA GPUs: an engine where a GPU and the package are here, else everything to build it elsewhere.

An engine runs on the GPU and the TensorRT version it was built with. Without them the artifact is the ONNX model in
the types that the engine shall have, int8 as Q/DQ without zero points, and the `trtexec` command that builds it: the
engine is not built, so the status is `unavailable`. The part that needs a GPU has not been run so far.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgewright.backends import cuda_driver, onnx_graph, onnx_qdq, vendor
from edgewright.backends.onnxruntime import export
from edgewright.backends.tensorrt_engine import MAX_BATCH, TensorrtSession, build_engine
from edgewright.core.artifact import Artifact, Proof
from edgewright.core.contracts import Calibration, Support
from edgewright.core.errors import ConversionError, FormatMismatchError
from edgewright.core.files import sha256_of_files, write_text
from edgewright.core.program import Program
from edgewright.core.target import Precision, Quantizer, Target
from edgewright.core.tensors import TensorSpec
from edgewright.workers.cache import default_root

if TYPE_CHECKING:
    from onnx import ModelProto

_PACKAGES = ("onnx", "onnxruntime", "onnxscript")
_RUNTIME = ("tensorrt",)
_MODEL, _SCRIPT, _ENGINE = "model.onnx", "build.sh", "model.engine"
_NOTES = {
    Precision.FP32: "float32 without TF32",
    Precision.FP16: "float16 weights and arithmetic, float32 inputs and outputs",
    Precision.W8A8: "int8 weights (per channel) and activations before convolutions and linear layers, both symmetric "
    "(Q/DQ by ONNX Runtime's quantizer); the rest is float32",
}
_UNTESTED = "Edgewright's own TensorRT session has not been run on a GPU so far"


class TensorrtBackend:
    """NVIDIA's runtime for GPUs; a target's default accelerator, cpu, stands for the GPU, as it runs nowhere else."""

    name = "tensorrt"
    environment = ""
    runtime_module = "tensorrt"
    consumes: tuple[str, ...] = ("pt2", "onnx")
    precisions: tuple[Precision, ...] = (Precision.FP32, Precision.FP16, Precision.W8A8)

    def probe(self) -> Support:
        """Say whether the ONNX model can be made; TensorRT itself is only needed for the engine."""
        found = vendor.support(_PACKAGES, extra="onnxruntime")
        return Support(
            is_available=found.is_available,
            versions=found.versions | vendor.versions(_RUNTIME),
            reason=found.reason,
            is_installed=bool(vendor.versions(_RUNTIME)),
        )

    def refuses(self, program: Program, target: Target) -> str | None:
        """Return why this pair cannot be done, or None."""
        if program.format not in self.consumes:
            return f"tensorrt reads {', '.join(self.consumes)}, but the program is {program.format}"
        if target.precision not in self.precisions:
            return (
                f"tensorrt makes {', '.join(self.precisions)} here, not {target.precision}: its int8 is of weights "
                "and activations"
            )
        if target.accelerator not in (("cpu",), ("gpu",)):
            return f"tensorrt runs on a GPU, not on {', '.join(target.accelerator)}"
        layouts = {spec.layout for spec in program.inputs if spec.layout is not None}
        if target.layout is not None and layouts != {target.layout}:
            return f"the source's layout is {', '.join(sorted(layouts)) or 'not known'}, and it is kept"
        if program.precision not in (Precision.FP32, target.precision):
            return f"the source is already {program.precision}; only --precision {program.precision} keeps what it is"
        if target.precision is Precision.W8A8 and (
            target.quantizer is Quantizer.PT2E
            or (program.format == "pt2" and program.precision != Precision.FP32)
        ):
            return (
                "TensorRT takes int8 without zero points, and PT2E gives activations one; use quantizer native on the "
                "float model"
            )
        if target.quantizer is Quantizer.ACCURACY:
            return "accuracy-controlled quantization is OpenVINO's; use quantizer native"
        return None

    def quantizer(self, program: Program, target: Target) -> Quantizer | None:
        """Return the native one for w8a8 of a float model: what PT2E makes, TensorRT does not read."""
        is_float = program.precision == Precision.FP32
        return Quantizer.NATIVE if target.precision is Precision.W8A8 and is_float else None

    def convert(
        self, program: Program, target: Target, calibration: Calibration | None, workdir: Path
    ) -> Artifact:
        """Write `model.engine`, or without a GPU `model.onnx` and `build.sh`, into `workdir`.

        Raises:
            FormatMismatchError: `refuses` gives a reason.
            ConversionError: ONNX cannot be made, TensorRT refuses it, or a Q/DQ source has zero points.
        """
        reason = self.refuses(program, target)
        if reason is not None:
            raise FormatMismatchError(f"{reason}.")
        for spec in program.inputs:
            vendor.static_shape(spec)
        workdir.mkdir(parents=True, exist_ok=True)
        model = _model(program, target, calibration, workdir)
        names = onnx_graph.signature(model)
        _check_names(names, program)
        path = workdir / _MODEL
        onnx_graph.save(model, path)
        packages = (*_PACKAGES, "torch") if program.format == "pt2" else _PACKAGES
        files, notes, proof = _built(path, program.inputs, workdir)
        return Artifact(
            files=files,
            target=target,
            inputs=program.inputs,
            outputs=program.outputs,
            sha256=sha256_of_files(files),
            source_sha256=program.sha256,
            toolchain=vendor.versions((*packages, *_RUNTIME)),
            notes=(_NOTES[target.precision], *notes),
            proof=proof,
        )

    def open(self, artifact: Artifact, target: Target, *, profile: bool = False) -> TensorrtSession:
        """Load the engine on the first GPU.

        Raises:
            UnavailableError: there is none.
            ConversionError, IntegrityError: TensorRT refuses the file, or it has other tensors.
        """
        return TensorrtSession(artifact.path, artifact.inputs, artifact.outputs, profile=profile)


def build_command(inputs: Sequence[TensorSpec]) -> str:
    """Return the command line that builds `model.engine` of `model.onnx` (TensorRT 10 and 11)."""
    words = ["trtexec", f"--onnx={_MODEL}", f"--saveEngine={_ENGINE}", "--stronglyTyped", "--noTF32"]
    if any(spec.has_dynamic_batch for spec in inputs):
        for flag, batch in (("--minShapes", 1), ("--optShapes", 1), ("--maxShapes", MAX_BATCH)):
            words.append(f"{flag}={','.join(_spelled(spec, batch) for spec in inputs)}")
    return shlex.join(words)


def _spelled(spec: TensorSpec, batch: int) -> str:
    sizes = [batch if axis == 0 and size is None else size or 1 for axis, size in enumerate(spec.shape)]
    is_plain = not set(spec.name) & set(":,' ")
    name = spec.name if is_plain else f"'{spec.name}'"  # as trtexec wants names with a colon
    return f"{name}:{'x'.join(map(str, sizes))}"


def _model(program: Program, target: Target, calibration: Calibration | None, workdir: Path) -> ModelProto:
    model = export(program) if program.format == "pt2" else onnx_graph.load(program.path)
    onnx_graph.drop_listed_initialisers(model)
    if program.precision == Precision.W8A8:
        shifted = onnx_qdq.asymmetric(model)
        if shifted:
            raise ConversionError(
                f"{program.path.name} is quantized with zero points or unsigned ({len(shifted)} tensors, e.g. "
                f"{', '.join(shifted[:3])}), and TensorRT takes int8 with a zero point of 0. Give the float model."
            )
        return model
    if target.precision is Precision.FP16:
        return onnx_graph.to_float16(model)
    if target.precision is Precision.W8A8:
        model = onnx_graph.with_opset(model, onnx_graph.PER_AXIS_OPSET)
        names = [spec.name for spec in onnx_graph.signature(model)[0]]
        samples = vendor.calibration_samples(program, calibration)
        model = onnx_qdq.quantize_symmetric(model, names, samples, workdir)
        assert not onnx_qdq.asymmetric(model), "the quantizer gave zero points"
    return model


def _check_names(names: tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]], program: Program) -> None:
    for have, want, kind in zip(names, (program.inputs, program.outputs), ("inputs", "outputs"), strict=True):
        if [spec.name for spec in have] != [spec.name for spec in want]:
            raise ConversionError(
                f"the ONNX model of {program.path.name} has the {kind} {', '.join(spec.name for spec in have)}, the "
                f"source has {', '.join(spec.name for spec in want)}. Remove unused inputs and repeated outputs."
            )


def _built(
    model: Path, inputs: Sequence[TensorSpec], workdir: Path
) -> tuple[tuple[Path, ...], tuple[str, ...], Proof]:
    """Return the files, the notes and the proof: the engine where it can be built, else what builds it elsewhere."""
    installed = vendor.versions(_RUNTIME)
    if installed and cuda_driver.device_count() > 0:
        device = cuda_driver.Device()
        gpu = device.name
        device.close()
        kept = "-".join(("timing", installed["tensorrt"], gpu.replace(" ", "_").replace("/", "_")))
        engine = workdir / _ENGINE
        engine.write_bytes(build_engine(model, inputs, default_root() / "tensorrt" / kept))
        model.unlink()
        note = f"built on {gpu} with TensorRT {installed['tensorrt']}: it runs on this pair alone"
        return (engine,), (note, _UNTESTED), Proof.RUN
    lacks = "no NVIDIA GPU is here" if installed else "TensorRT is not installed here"
    command = build_command(inputs)
    script = workdir / _SCRIPT
    write_text(
        script,
        f"#!/bin/sh\n# Run beside {_MODEL} on the machine with the GPU that shall run it.\nset -e\n{command}\n",
    )
    note = f"the engine is not built, for {lacks}; on the GPU that shall run it: {command}"
    return (model, script), (note, _UNTESTED), Proof.RECIPE

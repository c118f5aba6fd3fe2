"""LiteRT Micro: the model as a C array with the resolver, the arena and an example, run by the real interpreter.

The interpreter for this machine lives in the toolchain environment `tflm`. It runs the bytes of the C array itself, in
the arena that the header states, so that what is compared with the source is what goes to the device.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np

from edgewright.backends import device_model, tflm_files, tflm_measure, vendor
from edgewright.backends.litert import LiteRTBackend
from edgewright.backends.signed import SignedSession
from edgewright.backends.tflm_files import Port, TflmModel
from edgewright.core.artifact import Artifact, Proof
from edgewright.core.contracts import Calibration, LayerCost, Support
from edgewright.core.errors import (
    ConversionError,
    DataError,
    FormatMismatchError,
    IntegrityError,
    UnavailableError,
    first_line,
)
from edgewright.core.files import sha256_of, sha256_of_files
from edgewright.core.program import Program
from edgewright.core.target import Precision, Quantizer, Target
from edgewright.core.tensors import Array, Arrays, TensorSpec, check_arrays
from edgewright.microcontrollers.names import identifier

if TYPE_CHECKING:
    from edgewright.backends.litert_file import Model

_MAX_REFUSALS = 20
_CHECKED_NOTE = "the C++ is type-checked against stubs of LiteRT Micro's declarations, not built"
_UNCHECKED_NOTE = "the C++ was not type-checked, for no C++ compiler is here"
_UNMEASURED_NOTE = (
    "neither run nor measured, for the interpreter is not installed: edgewright toolchain install tflm"
)
_TIME_NOTE = (
    "its time here is of the reference kernels on this machine, and says nothing of a microcontroller"
)


class Interpreter(Protocol):
    """What is used of the interpreter."""

    def set_input(self, input_data: Array, index: int) -> None: ...
    def get_output(self, index: int) -> Array: ...
    def get_input_details(self, index: int) -> dict[str, object]: ...
    def get_output_details(self, index: int) -> dict[str, object]: ...
    def invoke(self) -> int: ...
    def reset(self) -> int: ...


class TflmBackend:
    """The interpreter for microcontrollers (TensorFlow Lite for Microcontrollers); its conversion is LiteRT's."""

    name = "tflm"
    environment = ""  # of the conversion; what it makes runs in `tflm`
    runtime_module = "tflite_micro.python.tflite_micro.runtime"
    consumes: tuple[str, ...] = ("pt2", "tflite")
    precisions: tuple[Precision, ...] = (Precision.FP32, Precision.W8A8)

    def __init__(self) -> None:
        self._litert = LiteRTBackend()

    def probe(self) -> Support:
        """Say whether LiteRT's converters are here, and whether the interpreter is."""
        support = self._litert.probe()
        if not support.is_available:
            return support
        version = tflm_measure.version()
        if version:
            return replace(support, versions=support.versions | {tflm_measure.PACKAGE: version})
        reason = (
            f"the interpreter is not installed; run: edgewright toolchain install {tflm_measure.TOOLCHAIN}"
        )
        return replace(support, is_installed=False, reason=reason)

    def refuses(self, program: Program, target: Target) -> str | None:
        """Return why this pair cannot be done, or None."""
        if target.precision not in self.precisions:
            return f"tflm makes {', '.join(self.precisions)}, not {target.precision}"
        if target.threads != 1:
            return f"a microcontroller has one thread, not {target.threads}"
        return device_model.refuses(program, target, self.consumes)

    def quantizer(self, program: Program, target: Target) -> Quantizer | None:
        """Return who quantizes this pair, as for LiteRT."""
        return vendor.quantizer(program, target)

    def convert(
        self, program: Program, target: Target, calibration: Calibration | None, workdir: Path
    ) -> Artifact:
        """Write the C array, its header, the resolver, an example and a README into `workdir`.

        Raises:
            ConversionError: LiteRT Micro has no kernel for operators (all of them by name), or refuses the model.
        """
        reason = self.refuses(program, target)
        if reason:
            raise FormatMismatchError(
                f"tflm cannot make {target.precision} of {program.path.name}: {reason}."
            )
        workdir.mkdir(parents=True, exist_ok=True)
        name = identifier(_stem(program))
        with tempfile.TemporaryDirectory(prefix=".tflm-", dir=workdir) as folder:
            lowered = device_model.lower(program, target, calibration, Path(folder), is_rewritten=False)
            made = lowered.path
            content, digest = made.read_bytes(), sha256_of(made)
            model = _described(made, name, content, digest, program)
            defines = [] if model.arena else [f"{model.macro}_ARENA_BYTES=4096"]
            files = _write(model, Path(folder) / "files")
            is_checked = _type_check(files, Path(folder) / "stubs", defines)
            files = tuple(file.replace(workdir / file.name) for file in files)
        notes = [
            _figures(model),
            _TIME_NOTE if model.arena else _UNMEASURED_NOTE,
            _CHECKED_NOTE if is_checked else _UNCHECKED_NOTE,
        ]
        version = {tflm_measure.PACKAGE: model.interpreter} if model.interpreter else {}
        return Artifact(
            files=files,
            target=target,
            inputs=lowered.inputs,
            outputs=lowered.outputs,
            sha256=sha256_of_files(files),
            source_sha256=program.sha256,
            toolchain=dict(lowered.toolchain) | version,
            notes=(*notes, *lowered.notes),
            proof=Proof.RUN if model.arena else Proof.CONVERTED,
            environment=tflm_measure.TOOLCHAIN,
        )

    def open(self, artifact: Artifact, target: Target, *, profile: bool = False) -> TflmSession:
        """Load the C array into the interpreter; there is no profile, so `layers` is empty.

        Raises:
            IntegrityError: the files are not what this version writes.
            ConversionError: the interpreter refuses the model.
        """
        return TflmSession(artifact)


class TflmSession(SignedSession):
    """One model in the interpreter, in the arena that its header states."""

    def __init__(self, artifact: Artifact) -> None:
        self._artifact = artifact
        content, arena_bytes = tflm_files.read_delivered(artifact.path)
        if not 0 < arena_bytes <= tflm_measure.MAX_ARENA_BYTES:
            raise IntegrityError(
                f"{artifact.path} comes with no measured arena. Build it again with the interpreter installed."
            )
        self._interpreter: Interpreter | None = _interpreter(content, arena_bytes, artifact.path.name)
        self._inputs = [_port(self._interpreter.get_input_details(i)) for i in range(len(artifact.inputs))]
        self._outputs = [_port(self._interpreter.get_output_details(i)) for i in range(len(artifact.outputs))]

    def run(self, inputs: Arrays) -> Arrays:
        """Return copies of the outputs for one batch; floats are quantized as the header's functions do it.

        Raises:
            DataError: an input is missing or does not fit the signature.
        """
        interpreter = self._interpreter
        if interpreter is None:
            raise DataError("the session is closed. Open the artifact again.")
        check_arrays(inputs, self.inputs, what=f"input of {self._artifact.path.name}")
        interpreter.reset()  # every run is a sample of its own, as in the runtimes without hidden state
        for position, (spec, port) in enumerate(zip(self.inputs, self._inputs, strict=True)):
            given = np.ascontiguousarray(inputs[spec.name])
            if port.is_quantized and given.dtype == np.float32:
                given = quantized(given, port)
            interpreter.set_input(given, position)
        try:
            interpreter.invoke()
        except RuntimeError as err:
            raise ConversionError(
                f"LiteRT Micro cannot run {self._artifact.path.name}: {first_line(err)}."
            ) from err
        results: dict[str, Array] = {}
        for position, (spec, port) in enumerate(zip(self.outputs, self._outputs, strict=True)):
            array = np.array(interpreter.get_output(position), copy=True)
            results[spec.name] = (
                _real(array, port) if spec.dtype == "float32" and port.is_quantized else array
            )
        return results

    def layers(self, inputs: Arrays) -> Sequence[LayerCost]:
        """Return nothing: the interpreter's Python package tells no times."""
        return ()

    def close(self) -> None:
        """Free the model."""
        self._interpreter = None


def quantized(values: Array, port: Port) -> Array:
    """Return float32 `values` as integers of `port`, bit by bit what NAME_quantize_input returns."""
    limits = np.iinfo(port.dtype)
    low, high = np.float32(limits.min - port.zero_point), np.float32(limits.max - port.zero_point)
    steps = np.asarray(values, dtype=np.float32) / np.float32(port.scale)
    steps = np.clip(np.where(np.isnan(steps), low, steps), low, high)
    whole = np.trunc(steps)
    rest = steps - whole
    whole = whole + (rest >= 0.5) - (rest <= -0.5)
    return np.asarray(whole.astype(np.int32) + port.zero_point).astype(port.dtype)


def _real(integers: Array, port: Port) -> Array:
    levels = np.subtract(integers, port.zero_point, dtype=np.int64, casting="unsafe").astype(np.float32)
    return np.asarray(levels * np.float32(port.scale), dtype=np.float32)


def _interpreter(content: bytes, arena_bytes: int, what: str) -> Interpreter:
    try:
        from tflite_micro.python.tflite_micro import runtime
    except ImportError as err:
        raise UnavailableError(
            f"the interpreter of {what} is not here; run: edgewright toolchain install {tflm_measure.TOOLCHAIN}"
        ) from err
    try:
        return cast(Interpreter, runtime.Interpreter.from_bytes(content, arena_size=arena_bytes))
    except (RuntimeError, ValueError) as err:
        raise ConversionError(
            f"LiteRT Micro cannot load {what} in {arena_bytes} bytes: {first_line(err)}. Build it again."
        ) from err


def _port(details: dict[str, object]) -> Port:
    quantization = details["quantization_parameters"]
    assert isinstance(quantization, dict)
    scales, zeros = np.asarray(quantization["scales"]), np.asarray(quantization["zero_points"])
    is_one = scales.size == 1 and zeros.size == 1
    return Port(
        name="",
        shape=tuple(int(size) for size in np.asarray(details["shape"])),
        dtype=np.dtype(cast(type, details["dtype"])).name,
        scale=float(scales[0]) if is_one else 0.0,
        zero_point=int(zeros[0]) if is_one else 0,
    )


def _described(path: Path, name: str, content: bytes, sha256: str, program: Program) -> TflmModel:
    """Return what the files are made of, after everything that refuses a model had its say."""
    from edgewright.backends import litert_file
    from edgewright.backends.tflm_operators import methods_of, refusals_of
    from edgewright.sources.tflite_file import read_flatbuffer

    if len(content) > tflm_files.MAX_MODEL_BYTES:
        raise ConversionError(
            f"{program.path.name} has {len(content):,} bytes; at most {tflm_files.MAX_MODEL_BYTES:,} become a C array."
        )
    flat = read_flatbuffer(path)
    refused = refusals_of(flat)
    if refused:
        more = f"; and {len(refused) - _MAX_REFUSALS} more" if len(refused) > _MAX_REFUSALS else ""
        raise ConversionError(
            f"LiteRT Micro cannot run {program.path.name}. {'; '.join(refused[:_MAX_REFUSALS])}{more}. "
            "Change these operators, or use --to litert."
        )
    model = litert_file.read(path)
    inputs, outputs = litert_file.signature(model)
    graph = model.subgraphs[0]
    arena = (
        tflm_measure.measure_arena(content, what=program.path.name) if tflm_measure.is_installed() else None
    )
    return TflmModel(
        name=name,
        content=content,
        sha256=sha256,
        inputs=tuple(_described_port(model, int(i), s) for i, s in zip(graph.inputs, inputs, strict=True)),
        outputs=tuple(_described_port(model, int(i), s) for i, s in zip(graph.outputs, outputs, strict=True)),
        methods=tuple(methods_of(flat)),
        arena=arena,
        interpreter=tflm_measure.version() if arena else "",
    )


def _described_port(model: Model, index: int, spec: TensorSpec) -> Port:
    if spec.dtype not in tflm_files.DTYPES:
        raise ConversionError(
            f"LiteRT Micro's example takes and gives {', '.join(tflm_files.DTYPES)}, but {spec} is {spec.dtype}."
        )
    shape = vendor.static_shape(spec)
    quantization = model.subgraphs[0].tensors[index].quantization
    scales = () if quantization is None or quantization.scale is None else quantization.scale
    zeros = () if quantization is None or quantization.zeroPoint is None else quantization.zeroPoint
    is_one = len(scales) == 1 and len(zeros) == 1 and np.isfinite(scales[0]) and scales[0] > 0
    return Port(
        name=spec.name,
        shape=shape,
        dtype=spec.dtype,
        scale=float(scales[0]) if is_one else 0.0,
        zero_point=int(zeros[0]) if is_one else 0,
    )


def _write(model: TflmModel, folder: Path) -> tuple[Path, ...]:
    folder.mkdir()
    files = []
    for file_name, text in tflm_files.file_texts(model).items():
        files.append(folder / file_name)
        files[-1].write_text(text, encoding="utf-8")
    return tuple(files)


def _type_check(files: Sequence[Path], folder: Path, defines: Sequence[str]) -> bool:
    from edgewright.backends.tflm_stubs import type_check

    return type_check([file for file in files if file.suffix == ".cc"], folder=folder, defines=defines)


def _figures(model: TflmModel) -> str:
    arena = model.arena
    measured = (
        f"arena {arena.total_bytes:,} bytes, of it {arena.activation_bytes:,} for tensors and scratch "
        f"(LiteRT Micro {model.interpreter}, 64-bit, reference kernels)"
        if arena
        else "arena not measured"
    )
    return f"{measured}; model {len(model.content):,} bytes of flash; {len(model.methods)} kinds of operators"


def _stem(program: Program) -> str:
    origin = Path(program.origin).stem if ":" not in program.origin else program.origin.rpartition(":")[2]
    return origin or "model"

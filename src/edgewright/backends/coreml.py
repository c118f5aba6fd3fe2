"""Core ML: `.mlpackage` files with an ML Program, run for real on macOS and by our own interpreter elsewhere."""

from __future__ import annotations

import gc
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol, cast

import numpy as np

from edgewright.backends import vendor
from edgewright.backends.coreml_file import Package, package_of, read_package
from edgewright.backends.coreml_interpreter import Interpreter, operations_of, unsupported
from edgewright.backends.coreml_records import Feature
from edgewright.backends.signed import SignedSession
from edgewright.core.artifact import Artifact, Proof
from edgewright.core.contracts import Calibration, LayerCost, Session, Support
from edgewright.core.errors import ConversionError, DataError, FormatMismatchError, IntegrityError, first_line
from edgewright.core.files import sha256_of_files
from edgewright.core.program import Program
from edgewright.core.target import INTEGER_PRECISIONS, Precision, Quantizer, Target
from edgewright.core.tensors import Array, Arrays, TensorSpec, check_arrays

_PACKAGES = ("coremltools", "torch")
FOLDER_NAME = "model.mlpackage"
_INPUT_DTYPES = ("float16", "float32", "int32", "int64")
_OUTPUT_DTYPES = (*_INPUT_DTYPES, "bool")
_IS_MACOS = sys.platform == "darwin"
_NOTES = {
    Precision.FP32: "weights and arithmetic are float32: on a device this keeps the model off the Neural Engine",
    Precision.FP16: "weights and arithmetic are float16; inputs and outputs stay as the source's",
    Precision.W8: "weights are int8 per channel, arithmetic is float16; tensors below 512 weights stay float16",
    Precision.W4: "weights are 4-bit palettes (k-means, one per 16 output channels), arithmetic is float16; weights of "
    "at most 16 values, as after cluster, keep them in one palette of 1, 2 or 4 bits; other depthwise filters, and "
    "tensors below 512 weights, stay float16",
    Precision.PRUNED: "the smaller half of each weight tensor is zero and not stored, without training afterwards; "
    "arithmetic is float16; depthwise filters and tensors below 512 weights stay whole",
    Precision.W8A8: "int8 weights and activations by PT2E; what is not int8 is float16",
    Precision.W4A8: f"{vendor.LOW_BITS_NOTE}; int8 activations by PT2E; what is not int8 is float16",
}
_TARGET_NOTE = "needs iOS 18 or macOS 15, for which the weights' compressed forms exist"
_INTERPRETED_NOTE = (
    "Core ML runs on Apple's systems alone: here the written file is run by an interpreter of ours, which rounds to "
    "the types of the file after every operator and accumulates in float32"
)


class _Predictor(Protocol):
    def predict(self, data: dict[str, Array]) -> dict[str, Array]: ...


class CoremlBackend:
    """Apple's runtime, written by coremltools."""

    name = "coreml"
    environment = ""
    runtime_module = "coremltools" if _IS_MACOS else "numpy"
    consumes: tuple[str, ...] = ("pt2", "torchscript")
    precisions: tuple[Precision, ...] = tuple(Precision)

    def probe(self) -> Support:
        """Say whether coremltools is installed; it converts on every system."""
        return vendor.support(_PACKAGES, extra="coreml")

    def refuses(self, program: Program, target: Target) -> str | None:
        """Return why this pair cannot be done, or None."""
        for specs, known, what in (
            (program.inputs, _INPUT_DTYPES, "inputs"),
            (program.outputs, _OUTPUT_DTYPES, "outputs"),
        ):
            strange = sorted({spec.dtype for spec in specs} - set(known))
            if strange:
                return f"Core ML has no {what} of {', '.join(strange)}; it has {', '.join(known)}"
        if program.precision not in (Precision.FP32, target.precision):
            return f"the source is already {program.precision}; only --precision {program.precision} keeps what it is"
        if target.precision in INTEGER_PRECISIONS and target.quantizer is Quantizer.NATIVE:
            return "coremltools finds the ranges of activations on macOS alone; PT2E finds them here (quantizer pt2e)"
        if target.precision in INTEGER_PRECISIONS and program.format != "pt2":
            return f"{target.precision} is made by PT2E of exported programs, but the program is {program.format}"
        return vendor.refuses(program, target, self.consumes)

    def quantizer(self, program: Program, target: Target) -> Quantizer | None:
        """Return who quantizes: PT2E for w8a8, coremltools for weights alone."""
        if program.precision != Precision.FP32:
            return None
        if target.precision in INTEGER_PRECISIONS:
            return Quantizer.PT2E
        is_float = target.precision in (Precision.FP32, Precision.FP16)
        return None if is_float else Quantizer.NATIVE

    def convert(
        self, program: Program, target: Target, calibration: Calibration | None, workdir: Path
    ) -> Artifact:
        """Write `model.mlpackage` into `workdir`; a dynamic batch becomes 1.

        Raises:
            FormatMismatchError: `refuses` gives a reason.
            ConversionError: the converter refused, with every unsupported operator by name.
        """
        reason = self.refuses(program, target)
        if reason is not None:
            raise FormatMismatchError(
                f"coreml cannot make {target.precision} of {program.path.name}: {reason}."
            )
        if target.precision in INTEGER_PRECISIONS and program.precision != target.precision:
            raise ConversionError(
                "coreml lowers a program that PT2E has quantized, but was given a float one. "
                "Quantize it first (compress.quantize_pt2e)."
            )
        from edgewright.backends import coreml_convert

        workdir.mkdir(parents=True, exist_ok=True)
        model = coreml_convert.to_coreml(program, target.precision)
        if target.precision in (Precision.W8, Precision.W4, Precision.PRUNED):
            model = coreml_convert.compressed(model, target.precision)
        files = coreml_convert.write(model, workdir / FOLDER_NAME)
        package = read_package(workdir / FOLDER_NAME)
        notes = [_NOTES[target.precision], _TARGET_NOTE, *_compressed(package, target.precision)]
        if any(not spec.is_static for spec in program.inputs):
            notes.append("batch made static: 1")
        if any(spec.dtype in ("int64", "bool") for spec in (*program.inputs, *program.outputs)):
            notes.append("the file's integers are int32; values are converted at its inputs and outputs")
        proof, told = _proof(package)
        return Artifact(
            files=files,
            target=target,
            inputs=_paired(package.model.inputs, program.inputs, "inputs"),
            outputs=_paired(package.model.outputs, program.outputs, "outputs"),
            sha256=sha256_of_files(files),
            source_sha256=program.sha256,
            toolchain=vendor.versions(
                (*_PACKAGES, *(("torchao",) if program.precision in INTEGER_PRECISIONS else ()))
            ),
            notes=(*notes, told),
            proof=proof,
        )

    def open(self, artifact: Artifact, target: Target, *, profile: bool = False) -> Session:
        """Load the package: into Core ML on macOS, else into our interpreter, which has no threads and no profile.

        Raises:
            ConversionError: it has operators that the interpreter does not execute, by name; or Core ML refuses it.
            IntegrityError: the package is broken, or is not the one that was recorded.
        """
        package = read_package(package_of(artifact.path))
        _paired(package.model.inputs, artifact.inputs, "inputs")
        _paired(package.model.outputs, artifact.outputs, "outputs")
        _check_names(package)
        return MacosSession(artifact, package) if _IS_MACOS else InterpretedSession(artifact, package)


class InterpretedSession(SignedSession):
    """The written package behind the Session contract, run by our interpreter."""

    def __init__(self, artifact: Artifact, package: Package) -> None:
        self._artifact = artifact
        self._features = {feature.name: feature for feature in package.model.inputs}
        self._interpreter: Interpreter | None = Interpreter(package)

    def run(self, inputs: Arrays) -> Arrays:
        """Return the outputs for one batch.

        Raises:
            DataError: the arrays do not fit the signature, or an integer does not fit into the file's int32.
            ConversionError: an operator fails.
        """
        assert self._interpreter is not None, "the session is closed"
        check_arrays(inputs, self.inputs, what=f"input of {self._artifact.path.parent.name}")
        given = {name: _narrowed(inputs[name], feature) for name, feature in self._features.items()}
        return _widened(self._interpreter.run(given), self.outputs)

    def layers(self, inputs: Arrays) -> Sequence[LayerCost]:
        """Return nothing: the time of an interpreter says nothing of a device."""
        return ()

    def close(self) -> None:
        """Free the model; `run` must not be called any more."""
        self._interpreter = None
        gc.collect()


class MacosSession(SignedSession):
    """The package in Core ML itself, on macOS. Written after coremltools' documentation; never run by its authors."""

    def __init__(self, artifact: Artifact, package: Package) -> None:
        self._artifact = artifact
        self._features = {feature.name: feature for feature in package.model.inputs}
        with vendor.quiet():
            import coremltools as ct

            try:
                self._model: _Predictor | None = cast(_Predictor, ct.models.MLModel(str(package.folder)))
            except Exception as err:
                raise ConversionError(
                    f"Core ML cannot load {package.folder.name}: {first_line(err)}"
                ) from err

    def run(self, inputs: Arrays) -> Arrays:
        """Return the outputs for one batch.

        Raises:
            DataError: the arrays do not fit the signature.
            ConversionError: Core ML failed.
        """
        assert self._model is not None, "the session is closed"
        check_arrays(inputs, self.inputs, what=f"input of {self._artifact.path.parent.name}")
        given = {name: _narrowed(inputs[name], feature) for name, feature in self._features.items()}
        try:
            results = self._model.predict(given)
        except Exception as err:
            raise ConversionError(f"Core ML failed to run the model: {first_line(err)}") from err
        return _widened(results, self.outputs)

    def layers(self, inputs: Arrays) -> Sequence[LayerCost]:
        """Return nothing: Core ML's profiler is in Xcode."""
        return ()

    def close(self) -> None:
        """Free the model."""
        self._model = None


def _compressed(package: Package, precision: Precision) -> list[str]:
    """Return a note on how many weight tensors are stored in a compressed form; nothing for float precisions."""
    if precision in (Precision.FP32, Precision.FP16):
        return []
    kinds = Counter(
        operation.kind
        for operation in operations_of(package.model.main.block)
        if operation.kind.startswith("constexpr_")
    )
    if not kinds:
        return [
            f"no tensor has enough weights to be compressed: this file is that of fp16, named {precision}"
        ]
    return [f"compressed tensors: {', '.join(f'{count} by {kind}' for kind, count in sorted(kinds.items()))}"]


def _proof(package: Package) -> tuple[Proof, str]:
    """Return what can be shown of the package on this machine, and a note on it."""
    if _IS_MACOS:
        return Proof.RUN, "run by Core ML itself"
    missing = unsupported(package.model.main.block)
    if missing:
        return (
            Proof.CONVERTED,
            f"our interpreter does not execute {', '.join(missing)}: nothing here has run it",
        )
    return Proof.INTERPRETED, _INTERPRETED_NOTE


def _paired(features: Sequence[Feature], specs: Sequence[TensorSpec], what: str) -> tuple[TensorSpec, ...]:
    """Return the source's specs with the names and static shapes of the file's features, in the same order.

    Raises:
        IntegrityError: the file has another number of them, or other shapes.
    """
    if len(features) != len(specs):
        raise IntegrityError(
            f"the package has {len(features)} {what}, but {len(specs)} are expected. Convert the model again; "
            "unused inputs and repeated outputs must not be in it."
        )
    pairs = []
    for feature, spec in zip(features, specs, strict=True):
        shape = feature.shape or tuple(1 if size is None else size for size in spec.shape)
        fits = len(shape) == len(spec.shape) and all(
            want is None or want == have for want, have in zip(spec.shape, shape, strict=True)
        )
        if not fits:
            raise IntegrityError(
                f"the package has {feature.name!r} of shape {list(shape)}, but {spec} is expected."
            )
        pairs.append(replace(spec, name=feature.name, shape=shape))
    return tuple(pairs)


def _check_names(package: Package) -> None:
    """Check that the program takes and gives what the package tells an app.

    Raises:
        IntegrityError: another name.
    """
    model = package.model
    taken, given = {named.name for named in model.main.inputs}, set(model.main.block.outputs)
    if taken != {feature.name for feature in model.inputs} or given != {
        feature.name for feature in model.outputs
    }:
        raise IntegrityError(
            f"{package.folder.name} promises other inputs or outputs than its program has: {sorted(taken)} and "
            f"{sorted(given)}. Convert the model again."
        )


def _narrowed(array: Array, feature: Feature) -> Array:
    """Return an input in the file's own type."""
    if array.dtype.kind in "iu" and feature.dtype == "int32" and array.size:
        limits = np.iinfo(np.int32)
        if not limits.min <= int(array.min()) <= int(array.max()) <= limits.max:
            raise DataError(f"input {feature.name!r} has values beyond int32, which is what Core ML takes.")
    return array.astype(feature.dtype, copy=False)


def _widened(results: Arrays, specs: Sequence[TensorSpec]) -> dict[str, Array]:
    """Return the outputs in the artifact's own types."""
    return {
        spec.name: np.ascontiguousarray(results[spec.name])
        .astype(spec.dtype, copy=False)
        .reshape([size or 1 for size in spec.shape])
        for spec in specs
    }

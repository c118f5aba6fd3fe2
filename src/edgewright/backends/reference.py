"""The reference: the source program itself, run as plainly as its own library can."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgewright.backends import tensorflow_session
from edgewright.backends.onnx_session import OnnxSession
from edgewright.backends.signed import SignedSession
from edgewright.backends.torchscript_session import TorchScriptSession
from edgewright.backends.trace_litert import trace_litert
from edgewright.backends.trace_onnx import trace_onnx
from edgewright.backends.vendor import keeps_state, load_exported_file, quiet, support, versions
from edgewright.core.artifact import Artifact
from edgewright.core.contracts import Calibration, LayerCost, Session, Support, TracedLayer
from edgewright.core.errors import ConversionError, FormatMismatchError, IntegrityError, first_line
from edgewright.core.files import read_json, sha256_of_files, write_json
from edgewright.core.program import Program
from edgewright.core.target import Precision, Quantizer, Target
from edgewright.core.tensors import Array, Arrays, TensorSpec, check_arrays
from edgewright.workers import environments

if TYPE_CHECKING:
    import torch
    from ai_edge_litert.interpreter import Interpreter

_PACKAGES = {
    "pt2": ("torch",),
    "torchscript": ("torch",),
    "onnx": ("onnxruntime",),
    "tflite": ("ai-edge-litert",),
}
_TENSORFLOW = tensorflow_session.FORMATS
_RECORD = "tensorflow.json"


def reference_environment(model_format: str) -> str:
    """Return the toolchain environment in which a program of this format runs; empty for Edgewright's own."""
    return tensorflow_session.ENVIRONMENT if model_format in _TENSORFLOW else ""


class ReferenceBackend:
    """Runs a `.pt2` or TorchScript in torch, an `.onnx` in unoptimised ONNX Runtime, a `.tflite` in LiteRT's kernels,
    Keras and TensorFlow files in TensorFlow: these in the environment that `reference_environment` names.
    """

    name = "reference"
    environment = ""
    runtime_module = ""  # one of four frameworks, by the format of the source
    consumes: tuple[str, ...] = ("pt2", "torchscript", "onnx", "tflite", *_TENSORFLOW)
    precisions: tuple[Precision, ...] = (Precision.FP32,)

    def probe(self) -> Support:
        """Say whether at least one format can be run; each format needs its own package."""
        every = support([package for packages in _PACKAGES.values() for package in packages], extra="default")
        there = environments.support_versions(tensorflow_session.ENVIRONMENT)
        found = {name: there[name] for name in tensorflow_session.PACKAGES if name in there} | every.versions
        return replace(every, versions=found, is_available=bool(found))

    def refuses(self, program: Program, target: Target) -> str | None:
        """Return why this pair cannot be done, or None."""
        if program.format not in self.consumes:
            return f"reference runs {', '.join(self.consumes)}, but the program is {program.format}."
        if target.precision is not Precision.FP32:
            return f"reference runs the source as it is: ask for fp32, not {target.precision}."
        if target.layout is not None and any(
            spec.layout not in (None, target.layout) for spec in program.inputs
        ):
            return "reference keeps the layout of the source."
        return None

    def quantizer(self, program: Program, target: Target) -> Quantizer | None:
        """Return None: the source is never quantized here."""
        return None

    def convert(
        self,
        program: Program,
        target: Target,
        calibration: Calibration | None,
        workdir: Path,
    ) -> Artifact:
        """Return the source's own file as the artifact; for TensorFlow's formats a record of the source is written.

        Raises:
            FormatMismatchError: the program's format cannot be run here.
        """
        reason = self.refuses(program, target)
        if reason is not None:
            raise FormatMismatchError(reason)
        path, packages = program.path, _PACKAGES.get(program.format, tensorflow_session.PACKAGES)
        if program.format in _TENSORFLOW:  # a folder, a signature, trust: more than a file can say
            path = workdir / _RECORD
            write_json(path, program.to_json())
        return Artifact(
            files=(path,),
            target=target,
            inputs=program.inputs,
            outputs=program.outputs,
            sha256=sha256_of_files((path,)),
            source_sha256=program.sha256,
            toolchain=versions(packages),
            environment=reference_environment(program.format),
        )

    def open(self, artifact: Artifact, target: Target, *, profile: bool = False) -> Session:
        """Load the source into its own library; `profile` works for ONNX alone.

        Raises:
            FormatMismatchError: the file is of no known format.
            ConversionError: its library cannot load it.
        """
        form = artifact.path.suffix.removeprefix(".")
        if form == "pt2":
            return TorchSession(artifact, threads=target.threads)
        if form == "torchscript":
            return TorchScriptSession(artifact, threads=target.threads)
        if form == "onnx":
            return OnnxSession(
                artifact.path,
                artifact.inputs,
                artifact.outputs,
                threads=target.threads,
                is_optimised=False,
                profile=profile,
            )
        if form == "tflite":
            return TfliteSession(artifact, threads=target.threads)
        if artifact.path.name == _RECORD:
            source = Program.from_json(read_json(artifact.path))
            return tensorflow_session.TensorflowSession(source, threads=target.threads)
        raise FormatMismatchError(
            f"reference runs .pt2, .torchscript, .onnx, .tflite and TensorFlow's files, but got {artifact.path.name}."
        )

    def trace(
        self, artifact: Artifact, target: Target, batches: Iterable[Arrays], *, max_bytes: int
    ) -> Iterator[Sequence[TracedLayer]]:
        """Yield for each batch the layers in the order of execution, see `core.contracts.Traceable`."""
        form = artifact.path.suffix.removeprefix(".")
        if form == "onnx":
            return trace_onnx(artifact, target.threads, batches, max_bytes)
        if form == "tflite":
            return trace_litert(artifact, target.threads, batches, max_bytes)
        raise FormatMismatchError(f"reference traces .onnx and .tflite files, but got {artifact.path.name}.")


class TorchSession(SignedSession):
    """An exported program in torch, in float32 on the CPU."""

    def __init__(self, artifact: Artifact, *, threads: int) -> None:
        import torch
        from torch.utils import _pytree

        torch.set_num_threads(threads)
        self._artifact = artifact
        exported = load_exported_file(artifact.path)
        self._structure = exported.call_spec.in_spec
        expected = self._structure.num_leaves
        if expected != len(artifact.inputs):
            raise IntegrityError(
                f"{artifact.path.name} takes {expected} inputs, but {len(artifact.inputs)} were recorded. "
                "Load the source again."
            )
        with quiet():
            self._call: torch.nn.Module | None = exported.module()
        self._unflatten = _pytree.tree_unflatten
        self._leaves = _pytree.tree_leaves

    def run(self, inputs: Arrays) -> Arrays:
        """Return the outputs for one batch.

        Raises:
            DataError: the arrays do not fit the signature.
            ConversionError: torch failed, or gave another number of outputs than recorded.
        """
        import torch

        assert self._call is not None, "the session is closed"
        check_arrays(inputs, self.inputs, what=f"input of {self._artifact.path.name}")
        # Torch takes only writable arrays, and the program may write into its inputs.
        given = [torch.from_numpy(np.array(inputs[spec.name])) for spec in self.inputs]
        arguments, keywords = self._unflatten(given, self._structure)
        try:
            with torch.no_grad():
                results = self._call(*arguments, **keywords)
        except Exception as err:
            raise ConversionError(
                f"torch failed to run {self._artifact.path.name}: {first_line(err)}"
            ) from err
        tensors = [value for value in self._leaves(results) if isinstance(value, torch.Tensor)]
        if len(tensors) != len(self.outputs):
            raise ConversionError(
                f"{self._artifact.path.name} gave {len(tensors)} outputs; {len(self.outputs)} are expected."
            )
        return {
            spec.name: value.detach().contiguous().numpy()
            for spec, value in zip(self.outputs, tensors, strict=True)
        }

    def layers(self, inputs: Arrays) -> Sequence[LayerCost]:
        """Return nothing: the reference is there for its numbers, not for its time."""
        return ()

    def close(self) -> None:
        """Free the model; `run` must not be called any more."""
        self._call = None
        gc.collect()


class TfliteSession(SignedSession):
    """A `.tflite` file in LiteRT's own kernels, without delegates."""

    def __init__(self, artifact: Artifact, *, threads: int) -> None:
        self._artifact = artifact
        self._interpreter: Interpreter | None = _load_tflite(artifact.path, threads)
        self._keeps_state = keeps_state(self._interpreter)
        self._input_slots = self._slots(self._interpreter.get_input_details(), artifact.inputs)
        self._output_slots = self._slots(self._interpreter.get_output_details(), artifact.outputs)

    def _slots(self, details: Sequence[dict[str, object]], specs: Sequence[TensorSpec]) -> list[int]:
        """Return the tensor index of each spec: by name where all names fit, else by position."""
        if len(details) != len(specs):
            raise IntegrityError(
                f"{self._artifact.path.name} has {len(details)} tensors, but {len(specs)} were recorded. "
                "Load the source again."
            )
        by_name = {str(detail["name"]): int(str(detail["index"])) for detail in details}
        if all(spec.name in by_name for spec in specs):
            return [by_name[spec.name] for spec in specs]
        return [int(str(detail["index"])) for detail in details]

    def run(self, inputs: Arrays) -> Arrays:
        """Return the outputs for one batch.

        Raises:
            DataError: the arrays do not fit the signature.
            ConversionError: LiteRT failed on this graph.
        """
        check_arrays(inputs, self.inputs, what=f"input of {self._artifact.path.name}")
        interpreter = self._interpreter
        assert interpreter is not None, "the session is closed"
        try:
            self._resize(interpreter, inputs)
            for slot, spec in zip(self._input_slots, self.inputs, strict=True):
                interpreter.set_tensor(slot, inputs[spec.name])
            if self._keeps_state:
                interpreter.reset_all_variables()
            interpreter.invoke()
            results = [interpreter.get_tensor(slot) for slot in self._output_slots]
        except Exception as err:
            raise ConversionError(
                f"LiteRT failed to run {self._artifact.path.name}: {first_line(err)}"
            ) from err
        return {spec.name: np.array(value) for spec, value in zip(self.outputs, results, strict=True)}

    def _resize(self, interpreter: Interpreter, inputs: Arrays) -> None:
        changed = False
        for slot, spec in zip(self._input_slots, self.inputs, strict=True):
            array: Array = inputs[spec.name]
            if not spec.is_static and tuple(interpreter._get_tensor_details(slot, 0)["shape"]) != array.shape:
                interpreter.resize_tensor_input(slot, array.shape)
                changed = True
        if changed:
            interpreter.allocate_tensors()

    def layers(self, inputs: Arrays) -> Sequence[LayerCost]:
        """Return nothing: LiteRT has no profiler in Python."""
        return ()

    def close(self) -> None:
        """Free the model; `run` must not be called any more."""
        self._interpreter = None
        gc.collect()


def _load_tflite(path: Path, threads: int) -> Interpreter:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    # The reference kernels miss some operators, and those without delegates have all of them.
    failure: Exception | None = None
    for resolver in (OpResolverType.BUILTIN_REF, OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES):
        try:
            interpreter = Interpreter(
                model_path=str(path), num_threads=threads, experimental_op_resolver_type=resolver
            )
            interpreter.allocate_tensors()
        except Exception as err:
            failure = err
        else:
            return interpreter
    assert failure is not None
    raise ConversionError(f"LiteRT cannot load {path.name}: {first_line(failure)}") from failure

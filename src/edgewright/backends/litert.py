"""LiteRT on the CPU: `.pt2` through litert-torch and `.tflite`, quantized by PT2E or ai-edge-quantizer."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np

from edgewright.backends import litert_file, vendor
from edgewright.backends.litert_unsigned import unsigned_types
from edgewright.backends.signed import SignedSession
from edgewright.backends.trace_litert import trace_litert
from edgewright.core.artifact import Artifact
from edgewright.core.contracts import Calibration, LayerCost, Support, TracedLayer
from edgewright.core.errors import (
    ConversionError,
    DataError,
    EdgewrightError,
    FormatMismatchError,
    first_line,
)
from edgewright.core.files import sha256_of
from edgewright.core.program import Program
from edgewright.core.target import INTEGER_PRECISIONS, Precision, Quantizer, Target
from edgewright.core.tensors import Array, Arrays, TensorSpec

if TYPE_CHECKING:
    from torch import Tensor, nn

_RUNTIME = ("ai-edge-litert",)
_CONVERTER = ("litert-torch", "litert-converter", "torch", "torchao")
_QUANTIZER = ("ai-edge-quantizer",)
_FILE_NAME = "model.tflite"
# Seen with litert-torch 0.10: 64-bit MUL and DIV become CAST, a 32-bit operator, CAST; sums and comparisons do not.
_INT64_NOTE = "the converter computes products and quotients of int64 in 32 bits"
_BATCH_NOTE = "batch made static: 1"


class Interpreter(Protocol):
    """What is used of the runtime's interpreter."""

    def allocate_tensors(self) -> None: ...
    def get_input_details(self) -> list[dict[str, object]]: ...
    def get_output_details(self) -> list[dict[str, object]]: ...
    def set_tensor(self, tensor_index: int, value: Array) -> None: ...
    def get_tensor(self, tensor_index: int) -> Array: ...
    def invoke(self) -> None: ...
    def reset_all_variables(self) -> None: ...


class LiteRTBackend:
    """The runtime of `.tflite` files (formerly TensorFlow Lite), with XNNPACK kernels."""

    name = "litert"
    environment = ""
    runtime_module = "ai_edge_litert.interpreter"
    consumes: tuple[str, ...] = ("pt2", "tflite")
    precisions: tuple[Precision, ...] = (Precision.FP32, Precision.FP16, Precision.W8, *INTEGER_PRECISIONS)

    def probe(self) -> Support:
        """Say whether the runtime and its converters are installed."""
        return vendor.support((*_RUNTIME, *_QUANTIZER, *_CONVERTER), extra="litert")

    def refuses(self, program: Program, target: Target) -> str | None:
        """Return why this pair cannot be done, or None."""
        if target.precision not in self.precisions:
            return f"litert makes {', '.join(self.precisions)}, not {target.precision}"
        return vendor.refuses(program, target, self.consumes)

    def quantizer(self, program: Program, target: Target) -> Quantizer | None:
        """Return who quantizes this pair: PT2E by default for PyTorch, else ai-edge-quantizer."""
        return vendor.quantizer(program, target)

    def convert(
        self, program: Program, target: Target, calibration: Calibration | None, workdir: Path
    ) -> Artifact:
        """Write `model.tflite` into `workdir`; inputs and outputs stay float where the source's are.

        Raises:
            ConversionError: the converter or the runtime refused, with the operators by name.
        """
        reason = self.refuses(program, target)
        if reason:
            raise FormatMismatchError(
                f"litert cannot make {target.precision} of {program.path.name}: {reason}."
            )
        workdir.mkdir(parents=True, exist_ok=True)
        path = workdir / _FILE_NAME
        is_quantized = program.precision != Precision.FP32
        notes: list[str] = []
        if program.format == "pt2":
            model = _lower(program, target, workdir / "lowered.tflite")
            is_int64 = any(spec.dtype == "int64" for spec in (*program.inputs, *program.outputs))
            notes += [_INT64_NOTE] if is_int64 else []
            notes += [_BATCH_NOTE] if any(spec.has_dynamic_batch for spec in program.inputs) else []
        else:
            model = litert_file.read(program.path)
            _order_like(model, program)
            litert_file.normalise(model)
        toolchain = vendor.versions((*_RUNTIME, *(_CONVERTER if program.format == "pt2" else ())))
        if not is_quantized and target.precision is Precision.FP16:
            count = litert_file.cast_weights_to_float16(model)
            notes.append(
                f"{count} weight tensors are float16, expanded to float32 at load; computed in float32"
            )
        elif not is_quantized and target.precision in (Precision.W8, Precision.W8A8):
            model = _quantize(model, program, target, calibration, workdir)
            toolchain |= vendor.versions(_QUANTIZER)
            notes.append(_QUANTIZED_NOTES[target.precision])
        if program.format == "pt2" or not is_quantized:
            _float_io_where_the_source_has_it(model, program)
        notes += [vendor.LOW_BITS_NOTE] if target.precision is Precision.W4A8 else []
        if target.precision in INTEGER_PRECISIONS and not litert_file.has_int8_compute(model):
            notes.append("no layer computes in int8: nothing here could be quantized")
        notes += litert_file.quantized_io(model)
        litert_file.write(model, path)
        _try(path, litert_file.custom_operators(model))
        inputs, outputs = litert_file.signature(model)
        return Artifact(
            files=(path,),
            target=target,
            inputs=_named(inputs, program.inputs),
            outputs=_named(outputs, program.outputs),
            sha256=sha256_of(path),
            source_sha256=program.sha256,
            toolchain=toolchain,
            notes=tuple(notes),
        )

    def open(self, artifact: Artifact, target: Target, *, profile: bool = False) -> LiteRTSession:
        """Load the artifact; `profile` changes nothing, for the runtime shows no layer times to Python."""
        return LiteRTSession(artifact, threads=target.threads)

    def trace(
        self, artifact: Artifact, target: Target, batches: Iterable[Arrays], *, max_bytes: int
    ) -> Iterator[Sequence[TracedLayer]]:
        """Yield for each batch the layers in the order of execution, see `core.contracts.Traceable`."""
        return trace_litert(artifact, target.threads, batches, max_bytes)


_QUANTIZED_NOTES = {
    Precision.W8: "weights are int8 per channel, dequantized explicitly; activations and arithmetic are float32",
    Precision.W8A8: "quantized by ai-edge-quantizer: int8 per channel weights, int8 activations from min and max",
}


class LiteRTSession(SignedSession):
    """One interpreter with fixed shapes."""

    def __init__(self, artifact: Artifact, *, threads: int) -> None:
        self._artifact = artifact
        self._interpreter: Interpreter | None = _interpreter(artifact.path, threads, artifact.path.name)
        self._inputs = _indices(self._interpreter.get_input_details(), artifact.inputs)
        self._outputs = _indices(self._interpreter.get_output_details(), artifact.outputs)
        self._keeps_state = vendor.keeps_state(self._interpreter)

    def run(self, inputs: Arrays) -> Arrays:
        """Return copies of the outputs for one batch.

        Raises:
            DataError: an input is missing or does not fit the signature.
        """
        interpreter = self._interpreter
        if interpreter is None:
            raise DataError("the session is closed. Open the artifact again.")
        try:
            for name, index in self._inputs:
                interpreter.set_tensor(index, inputs[name])
            if self._keeps_state:  # every run is a sample of its own, as in the runtimes without hidden state
                interpreter.reset_all_variables()
            interpreter.invoke()
        except (KeyError, ValueError, RuntimeError) as err:
            raise DataError(f"litert cannot run {self._artifact.path.name}: {first_line(err)}") from err
        return {name: interpreter.get_tensor(index) for name, index in self._outputs}

    def layers(self, inputs: Arrays) -> Sequence[LayerCost]:
        """Return nothing: the runtime's Python package has no profiler of layers."""
        return ()

    def close(self) -> None:
        """Free the model."""
        self._interpreter = None


def _indices(details: list[dict[str, object]], specs: Sequence[TensorSpec]) -> list[tuple[str, int]]:
    if len(details) != len(specs):
        raise ConversionError(f"the file has {len(details)} tensors where {len(specs)} were recorded.")
    return [(spec.name, cast(int, detail["index"])) for spec, detail in zip(specs, details, strict=True)]


def _interpreter(path: Path, threads: int, what: str) -> Interpreter:
    from ai_edge_litert.interpreter import Interpreter as Runtime

    try:
        interpreter = cast(Interpreter, Runtime(model_path=str(path), num_threads=threads))
        interpreter.allocate_tensors()
    except Exception as err:  # the runtime raises ValueError and RuntimeError, and whatever pybind11 makes
        raise ConversionError(
            f"the LiteRT runtime cannot load {what}: {first_line(err)}. "
            "Convert the model again, or leave this runtime out."
        ) from err
    return interpreter


def _try(path: Path, custom: Sequence[str]) -> None:
    """Load the new file into the runtime: it tells what it has no kernel for."""
    try:
        _interpreter(path, 1, path.name)
    except ConversionError as err:
        path.unlink(missing_ok=True)
        names = f" Custom operators in the model: {', '.join(custom)}." if custom else ""
        raise ConversionError(f"{err}{names}") from err


def _named(specs: Sequence[TensorSpec], source: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
    """Return `specs` with the names and layouts of the source, which are unique."""
    if len(specs) != len(source):
        raise ConversionError(
            f"the converted model has {len(specs)} inputs or outputs, but the source has {len(source)}. "
            "Remove unused inputs and repeated outputs from the model."
        )
    return tuple(
        replace(spec, name=own.name, layout=own.layout) for spec, own in zip(specs, source, strict=True)
    )


def _order_like(model: litert_file.Model, program: Program) -> None:
    """Give the graph's inputs and outputs the order of the program's, where the names tell it."""
    graph = model.subgraphs[0]
    aliases = {
        entry.tensorIndex: entry.name.decode() if isinstance(entry.name, bytes) else str(entry.name)
        for signature in model.signatureDefs or ()
        for entry in (*(signature.inputs or ()), *(signature.outputs or ()))
        if signature.subgraphIndex == 0
    }
    for have, specs in (("inputs", program.inputs), ("outputs", program.outputs)):
        indices = [int(index) for index in getattr(graph, have)]
        for names in (
            {litert_file.tensor_name(graph, index): index for index in indices},
            {aliases.get(index, ""): index for index in indices},
        ):
            if len(names) == len(indices) and all(spec.name in names for spec in specs):
                ordered = [names[spec.name] for spec in specs]
                if ordered != indices:
                    setattr(graph, have, np.asarray(ordered, dtype=np.int32))
                break


def _float_io_where_the_source_has_it(model: litert_file.Model, program: Program) -> None:
    if all(spec.dtype == "float32" for spec in (*program.inputs, *program.outputs)):
        litert_file.float_io(model)


def _lower(program: Program, target: Target, path: Path) -> litert_file.Model:
    """Return the program lowered by litert-torch with a static batch, its tensors named like the source's."""
    import torch

    empty = [str(spec) for spec in (*program.inputs, *program.outputs) if 0 in spec.shape]
    if empty:
        raise ConversionError(
            f"LiteRT has no tensors without elements, but the model has {', '.join(empty)}."
        )
    example = tuple(
        torch.zeros(vendor.static_shape(spec), dtype=getattr(torch, spec.dtype)) for spec in program.inputs
    )
    exported = vendor.load_exported(program)
    module = exported.module()
    # A module from torch.export refuses eval(), which is already frozen in; the flag is all the converter looks at.
    module.training = False
    # Without this the converter makes 64-bit inputs and outputs 32-bit ones, which is another signature.
    is_wide = any(spec.dtype in ("int64", "float64") for spec in (*program.inputs, *program.outputs))
    _convert(module, example, path, is_quantized=program.precision != Precision.FP32, is_wide=is_wide)
    model = litert_file.read(path)
    path.unlink()
    _natural_order(model)
    names = [[spec.name for spec in specs] for specs in (program.inputs, program.outputs)]
    graph = model.subgraphs[0]
    if (len(graph.inputs), len(graph.outputs)) != (len(names[0]), len(names[1])):
        raise ConversionError(
            f"litert-torch made {len(graph.inputs)} inputs and {len(graph.outputs)} outputs of "
            f"{len(names[0])} and {len(names[1])}. Remove unused inputs and repeated outputs from the model."
        )
    litert_file.rename(model, *names)
    return model


def _convert(
    module: nn.Module, example: tuple[Tensor, ...], path: Path, *, is_quantized: bool, is_wide: bool
) -> None:
    os.environ["LITERT_TORCH_SHOW_PROGRESS"] = "n"
    with vendor.quiet():
        import litert_torch
        from litert_torch.quantize.pt2e_quantizer import PT2EQuantizer, get_symmetric_quantization_config
        from litert_torch.quantize.quant_config import QuantConfig

        scheme = None
        if is_quantized:
            # Not quantized again: this only puts the converter into the mode that folds quantized constants.
            config = get_symmetric_quantization_config(is_per_channel=True)
            scheme = QuantConfig(pt2e_quantizer=PT2EQuantizer().set_global(config))
        try:
            with unsigned_types():
                litert_torch.convert(module, example, quant_config=scheme, enable_x64=is_wide).export(
                    str(path)
                )
        except EdgewrightError:
            raise
        except Exception as err:  # torch, MLIR and the converter each have their own classes
            raise ConversionError(_explain(err)) from err
    vendor.require_file(path)


_UNSUPPORTED = (
    re.compile(r"[Ll]owering not found: ([\w.:]+)"),
    re.compile(r"(?:not supported|[Uu]nsupported|failed to legalize)[^'\n]*'([\w.:]+)'"),
    re.compile(r"\b(aten[.:]+[\w.]+)"),
)


def _explain(err: Exception) -> str:
    text = str(err)
    names: list[str] = []
    for pattern in _UNSUPPORTED:
        names = sorted(set(pattern.findall(text)))
        if names:
            break
    if names:
        return (
            f"litert-torch cannot lower the operator{'s' if len(names) > 1 else ''} {', '.join(names)}. "
            "Replace them in the model, or leave this runtime out."
        )
    return (
        f"litert-torch cannot convert the model: {first_line(err)}. "
        "Leave this runtime out, or change the model."
    )


def _natural_order(model: litert_file.Model) -> None:
    """Order the graph by the converter's own names, args_0, args_1, ..., output_0, ..., where it uses them."""
    graph = model.subgraphs[0]
    for signature in model.signatureDefs or ():
        for have, entries in (("inputs", signature.inputs), ("outputs", signature.outputs)):
            numbers: list[tuple[int, int]] = []
            for position, entry in enumerate(entries or ()):
                name = entry.name.decode() if isinstance(entry.name, bytes) else entry.name
                match = re.fullmatch(r"(?:args|output)_(\d+)", name)
                numbers.append((int(match[1]) if match else position, int(entry.tensorIndex)))
            ordered = [index for _, index in sorted(numbers)]
            if sorted(ordered) == sorted(int(i) for i in getattr(graph, have)):
                setattr(graph, have, np.asarray(ordered, dtype=np.int32))


def _quantize(
    model: litert_file.Model,
    program: Program,
    target: Target,
    calibration: Calibration | None,
    workdir: Path,
) -> litert_file.Model:
    """Return the float model quantized by ai-edge-quantizer: weights only (w8), or weights and activations (w8a8)."""
    samples = [] if target.precision is Precision.W8 else vendor.calibration_samples(program, calibration)
    source, result = workdir / "float.tflite", workdir / "quantized.tflite"
    litert_file.write(model, source)
    with vendor.quiet():
        from ai_edge_quantizer import calibrator, quantizer, recipe, recipe_manager
        from ai_edge_quantizer.utils import qsv_utils

        try:
            is_static = target.precision is Precision.W8A8
            steps = recipe.static_wi8_ai8() if is_static else recipe.weight_only_wi8_afp32()
            tool = quantizer.Quantizer(str(source), steps)
            ranges = None
            if is_static:
                manager = recipe_manager.RecipeManager()
                manager.load_quantization_recipe(steps)
                # The tool's default keeps 95 % of the old range at each sample: with few samples the ranges hang on
                # the first one and cut the others off. Minimum and maximum over all samples is what was asked for.
                watcher = calibrator.Calibrator(
                    str(source),
                    num_threads=1,
                    qsv_update_func=cast(Callable[..., object], qsv_utils.min_max_update),
                )
                names = [spec.name for spec in litert_file.signature(model)[0]]
                keys = _signature_names(model, names)
                watcher.calibrate(
                    {"serving_default": [dict(zip(keys, row, strict=True)) for row in samples]}, manager
                )
                ranges = watcher.get_model_qsvs()
            tool.quantize(ranges).export_model(str(result), overwrite=True)
        except Exception as err:  # the tool raises ValueError, RuntimeError and KeyError alike
            raise ConversionError(
                f"ai-edge-quantizer cannot quantize the model: {first_line(err)}. Leave this precision out."
            ) from err
    vendor.require_file(result)
    quantized = litert_file.read(result)
    source.unlink()
    result.unlink()
    return quantized


def _signature_names(model: litert_file.Model, inputs: Sequence[str]) -> list[str]:
    """Return the names that the first signature gives to the graph's inputs, in the graph's order."""
    graph = model.subgraphs[0]
    names: Mapping[int, str] = {
        int(entry.tensorIndex): entry.name.decode() if isinstance(entry.name, bytes) else entry.name
        for entry in (model.signatureDefs or [])[0].inputs or ()
    }
    return [names.get(int(index), name) for index, name in zip(graph.inputs, inputs, strict=True)]

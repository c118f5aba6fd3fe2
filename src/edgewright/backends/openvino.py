"""OpenVINO on the CPU: `.pt2`, `.onnx` and `.tflite`, quantized by PT2E or NNCF."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Protocol, cast

import numpy as np

from edgewright.backends import litert_file, openvino_file, vendor
from edgewright.backends.openvino_errors import explain, reason_of
from edgewright.backends.trace_openvino import trace_openvino
from edgewright.core.artifact import Artifact
from edgewright.core.contracts import Calibration, LayerCost, Support, TracedLayer
from edgewright.core.errors import ConversionError, DataError
from edgewright.core.files import sha256_of_files
from edgewright.core.program import Program
from edgewright.core.target import Precision, Quantizer, Target
from edgewright.core.tensors import Array, Arrays, TensorSpec, check_arrays

_RUNTIME = ("openvino",)
_QUANTIZER = ("nncf",)
_FILE_NAME = "model.xml"
_FLOAT_NOTE = (
    "what is not int8 is computed in float32 (INFERENCE_PRECISION_HINT=f32), not in the CPU's default"
)
_NOTES = {
    Precision.FP32: "computed in float32 (INFERENCE_PRECISION_HINT=f32), not in the CPU's default, often bfloat16",
    Precision.FP16: "weights are float16, expanded to float32 at load; computed in float32 "
    "(INFERENCE_PRECISION_HINT=f32), for x86 has float16 arithmetic on few CPUs",
    Precision.W8: "weights are int8 per channel, dequantized at load; activations and arithmetic are float32",
    Precision.W8A8: _FLOAT_NOTE,
}


class PortTensor(Protocol):
    """The descriptor of a tensor."""

    def set_names(self, names: set[str]) -> None: ...


class Port(Protocol):
    """An input or output of a model."""

    names: set[str]
    partial_shape: Sequence[Dimension]
    element_type: ElementType

    def get_tensor(self) -> PortTensor: ...
    def get_node(self) -> Node: ...


class Dimension(Protocol):
    """A dimension, known or not."""

    is_static: bool

    def get_length(self) -> int: ...


class ElementType(Protocol):
    """A dtype of OpenVINO."""

    def to_dtype(self) -> type: ...


class Node(Protocol):
    """An operation."""

    def get_type_name(self) -> str: ...


class Model(Protocol):
    """A model in memory."""

    inputs: list[Port]
    outputs: list[Port]

    def reshape(self, shapes: Mapping[int, object]) -> None: ...
    def get_parameters(self) -> list[Node]: ...
    def get_results(self) -> list[Node]: ...
    def get_sinks(self) -> list[Node]: ...
    def get_variables(self) -> list[object]: ...


class Profile(Protocol):
    """What the runtime tells of one node."""

    node_name: str
    node_type: str
    exec_type: str
    real_time: timedelta


class HostTensor(Protocol):
    """Memory of one input or output of a request."""

    data: Array
    shape: object


class Request(Protocol):
    """One inference request."""

    profiling_info: list[Profile]

    def get_input_tensor(self, index: int) -> HostTensor: ...
    def get_output_tensor(self, index: int) -> HostTensor: ...
    def infer(self, *, share_outputs: bool) -> Mapping[int, Array]: ...


class Compiled(Protocol):
    """A model compiled for a device."""

    def create_infer_request(self) -> Request: ...
    def get_property(self, name: str) -> object: ...


class Core(Protocol):
    """The runtime."""

    def compile_model(self, model: str, device: str, config: Mapping[str, object]) -> Compiled: ...


class OpenVINOBackend:
    """Intel's runtime; this version uses its CPU plug-in."""

    name = "openvino"
    environment = ""
    runtime_module = "openvino"
    consumes: tuple[str, ...] = ("pt2", "onnx", "tflite")
    precisions: tuple[Precision, ...] = (Precision.FP32, Precision.FP16, Precision.W8, Precision.W8A8)

    def probe(self) -> Support:
        """Say whether the runtime and its quantizer are installed."""
        return vendor.support((*_RUNTIME, *_QUANTIZER), extra="openvino")

    def refuses(self, program: Program, target: Target) -> str | None:
        """Return why this pair cannot be done, or None."""
        return vendor.refuses(program, target, self.consumes)

    def quantizer(self, program: Program, target: Target) -> Quantizer | None:
        """Return who quantizes this pair: PT2E by default for PyTorch, else NNCF."""
        return vendor.quantizer(program, target)

    def convert(
        self, program: Program, target: Target, calibration: Calibration | None, workdir: Path
    ) -> Artifact:
        """Write `model.xml` and `model.bin` into `workdir`; a dynamic batch stays dynamic.

        Raises:
            ConversionError: the converter refused, with the operators by name.
        """
        reason = self.refuses(program, target)
        if reason:
            raise ConversionError(
                f"openvino cannot make {target.precision} of {program.path.name}: {reason}."
            )
        workdir.mkdir(parents=True, exist_ok=True)
        model = _read(program, workdir)
        _sign(model, program)
        model = _arrange(model, program)
        toolchain = vendor.versions((*_RUNTIME, *(("torch", "torchao") if program.format == "pt2" else ())))
        notes = [_NOTES[target.precision]]
        if program.precision == Precision.FP32 and target.precision in (Precision.W8, Precision.W8A8):
            model = _quantize(model, program, target, calibration)
            toolchain |= vendor.versions(_QUANTIZER)
            if target.precision is Precision.W8A8:
                notes.insert(0, "quantized by NNCF: symmetric weights, fast bias correction")
        files = _save(model, workdir / _FILE_NAME, is_half=target.precision is Precision.FP16)
        notes += _left_float(files[0], target.precision)
        inputs, outputs = _specs(model.inputs, program.inputs), _specs(model.outputs, program.outputs)
        artifact = Artifact(
            files=files,
            target=target,
            inputs=inputs,
            outputs=outputs,
            sha256=sha256_of_files(files),
            source_sha256=program.sha256,
            toolchain=toolchain,
            notes=tuple(notes),
        )
        (workdir / "normalised.tflite").unlink(missing_ok=True)
        _compile(artifact.path, threads=1, profile=False)
        return artifact

    def open(self, artifact: Artifact, target: Target, *, profile: bool = False) -> OpenVINOSession:
        """Load the artifact with the threads of `target`, one stream; `profile` counts the time of each layer."""
        return OpenVINOSession(artifact, threads=target.threads, profile=profile)

    def trace(
        self, artifact: Artifact, target: Target, batches: Iterable[Arrays], *, max_bytes: int
    ) -> Iterator[Sequence[TracedLayer]]:
        """Yield for each batch the layers in the order of execution, see `core.contracts.Traceable`."""
        _keep_telemetry_off()
        return trace_openvino(artifact, target.threads, batches, max_bytes)


class OpenVINOSession:
    """One compiled model and one inference request."""

    def __init__(self, artifact: Artifact, *, threads: int, profile: bool) -> None:
        self._artifact = artifact
        self._is_profiled = profile
        self._compiled = _compile(artifact.path, threads=threads, profile=profile)
        self._request: Request | None = self._compiled.create_infer_request()
        self._names = [spec.name for spec in artifact.inputs]
        self._outputs = list(enumerate(spec.name for spec in artifact.outputs))
        self._memory: list[tuple[str, Array]] = []  # views of the request's inputs, good while shapes stay

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The signature, in the order of the artifact's inputs."""
        return self._artifact.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The signature, in the order of the artifact's outputs."""
        return self._artifact.outputs

    def run(self, inputs: Arrays) -> Arrays:
        """Return copies of the outputs for one batch.

        Raises:
            DataError: an input is missing or does not fit the signature.
        """
        request = self._request
        if request is None:
            raise DataError("the session is closed. Open the artifact again.")
        try:
            # Filling the request's own memory: handing arrays to `infer` costs 25 us of Python per call.
            if any(inputs[name].shape != view.shape for name, view in self._memory):
                self._memory = []
            for name, view in self._memory or self._resize(request, inputs):
                np.copyto(view, inputs[name], casting="no")  # any other casting is done without a word
            request.infer(share_outputs=True)
            return {name: request.get_output_tensor(index).data.copy() for index, name in self._outputs}
        except (KeyError, TypeError, ValueError, RuntimeError) as err:
            name = self._artifact.path.name
            raise DataError(
                f"openvino cannot run {name}: {reason_of(err)}. Inputs are {self._names}."
            ) from err

    def _resize(self, request: Request, inputs: Arrays) -> list[tuple[str, Array]]:
        """Give the request's inputs the shapes of `inputs`; return their memory by name.

        Raises:
            DataError: the arrays do not fit the signature.
        """
        specs = self._artifact.inputs
        check_arrays(inputs, specs, what=f"input of {self._artifact.path.name}")
        for index, spec in enumerate(specs):
            tensor = request.get_input_tensor(index)
            tensor.shape = inputs[spec.name].shape
            self._memory.append((spec.name, tensor.data))
        return self._memory

    def layers(self, inputs: Arrays) -> Sequence[LayerCost]:
        """Return the cost of each layer of one inference; nothing unless opened with `profile`."""
        self.run(inputs)
        if not self._is_profiled or self._request is None:
            return ()
        return [
            LayerCost(
                name=row.node_name,
                operator=row.node_type,
                time_us=row.real_time / timedelta(microseconds=1),
                implementation=row.exec_type,
            )
            for row in self._request.profiling_info
            if row.real_time > timedelta(0)
        ]

    def property(self, name: str) -> object:
        """Return a property of the compiled model, as the runtime reports it."""
        return self._compiled.get_property(name)

    def close(self) -> None:
        """Free the model."""
        self._memory = []
        self._request = None


class _SilentTelemetry:
    """Stands where the vendor's telemetry would: takes every call and sends nothing."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __getattr__(self, name: str) -> object:
        return lambda *_, **__: None


def _keep_telemetry_off() -> None:
    """Keep the converter and NNCF from sending usage statistics and from writing their consent files."""
    loaded = sys.modules.get("openvino_telemetry")
    if loaded is None:
        # None makes the import fail, for which both tools fall back to a stub.
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    else:
        loaded.Telemetry = _SilentTelemetry  # type: ignore[attr-defined]


@cache
def _core() -> Core:
    _keep_telemetry_off()
    with vendor.quiet():
        import openvino

        return cast(Core, openvino.Core())


def _compile(path: Path, *, threads: int, profile: bool) -> Compiled:
    """Return the model compiled for latency: one stream of `threads` threads.

    Threads are not pinned to cores: the operating system (or whoever measures) places them, as with other runtimes.
    """
    openvino_file.parse_xml(path)
    config: dict[str, object] = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": "1",
        "ENABLE_CPU_PINNING": False,
        "PERF_COUNT": profile,
    }
    try:
        return _core().compile_model(str(path), "CPU", config)
    except Exception as err:  # the binding raises RuntimeError and its own kin
        raise ConversionError(
            f"the OpenVINO runtime cannot load {path.name}: {reason_of(err)}. "
            "Build it again, or leave this runtime out."
        ) from err


def _read(program: Program, workdir: Path) -> Model:
    _keep_telemetry_off()
    source: object = str(program.path)
    if program.format == "pt2":
        source = vendor.load_exported(program)
    elif program.format == "tflite" and vendor.versions(["ai-edge-litert"]):
        source = str(_normalised(program.path, workdir))
    with vendor.quiet():
        import openvino

        try:
            return cast(Model, openvino.convert_model(source))
        except Exception as err:  # each front end has its own classes
            raise ConversionError(explain(err, program.path.name)) from err


def _normalised(path: Path, workdir: Path) -> Path:
    """Return `path`, or a copy in `workdir` without the faults of old converters that this front end stumbles over."""
    model = litert_file.read(path)
    if not litert_file.normalise(model, is_batch_static=False):
        return path
    copy = workdir / "normalised.tflite"
    litert_file.write(model, copy)
    return copy


def _sign(model: Model, program: Program) -> None:
    """Give the model the order, names and shapes of the program's signature.

    Raises:
        ConversionError: it has another number of inputs or outputs, or the shapes do not fit.
    """
    import openvino

    for kind, ports, specs in (
        ("inputs", model.inputs, program.inputs),
        ("outputs", model.outputs, program.outputs),
    ):
        if len(ports) != len(specs):
            raise ConversionError(
                f"OpenVINO made {len(ports)} {kind} of the model's {len(specs)}. "
                "Remove unused inputs and repeated outputs from the model."
            )
    shapes = {
        index: openvino.PartialShape([-1 if size is None else size for size in spec.shape])
        for index, spec in zip(_order(model.inputs, program.inputs), program.inputs, strict=True)
    }
    try:
        model.reshape(shapes)
    except Exception as err:  # RuntimeError of a node that does not fit
        raise ConversionError(f"OpenVINO cannot give the model its shapes: {reason_of(err)}.") from err


def _order(ports: Sequence[Port], specs: Sequence[TensorSpec]) -> list[int]:
    """Return for each spec the position of its port: by name where every name is known, else the same position."""
    found = [[index for index, port in enumerate(ports) if spec.name in port.names] for spec in specs]
    if all(len(indices) == 1 for indices in found) and len({indices[0] for indices in found}) == len(ports):
        return [indices[0] for indices in found]
    return list(range(len(specs)))


def _arrange(model: Model, program: Program) -> Model:
    """Return the model with ports in the program's order and under its names."""
    import openvino

    inputs, outputs = _order(model.inputs, program.inputs), _order(model.outputs, program.outputs)
    if inputs != sorted(inputs) or outputs != sorted(outputs):
        parameters, results = model.get_parameters(), model.get_results()
        model = cast(
            Model,
            openvino.Model(
                [results[i] for i in outputs],
                model.get_sinks(),
                [parameters[i] for i in inputs],
                model.get_variables(),
                "model",
            ),
        )
    for ports, specs in ((model.inputs, program.inputs), (model.outputs, program.outputs)):
        for port, spec in zip(ports, specs, strict=True):
            is_passed_through = ports is not model.inputs and port.get_node().get_type_name() == "Parameter"
            names = {spec.name} | (port.names if is_passed_through else set())
            port.get_tensor().set_names(names)
    return model


def _quantize(model: Model, program: Program, target: Target, calibration: Calibration | None) -> Model:
    """Return the model with int8 weights (w8), or with int8 weights and activations (w8a8), both by NNCF."""
    samples = [] if target.precision is Precision.W8 else vendor.calibration_samples(program, calibration)
    with vendor.quiet():
        import nncf
        from nncf.quantization.range_estimator import RangeEstimatorParametersSet

        nncf.set_log_level(logging.ERROR)
        try:
            if target.precision is Precision.W8:
                return cast(Model, nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_SYM))
            rows = [tuple(row) for row in samples]
            return cast(
                Model,
                nncf.quantize(
                    model,
                    nncf.Dataset([row if len(row) > 1 else row[0] for row in rows]),
                    # Mixed: activations with a zero point where they are not centred, as after anything but ReLU.
                    preset=nncf.QuantizationPreset.MIXED,
                    subset_size=len(rows),
                    fast_bias_correction=True,
                    # The default takes the mean of each sample's extremes, which clips half of the samples.
                    advanced_parameters=nncf.AdvancedQuantizationParameters(
                        activations_range_estimator_params=RangeEstimatorParametersSet.HISTOGRAM
                    ),
                ),
            )
        except Exception as err:  # nncf has its own classes, and passes on OpenVINO's
            raise ConversionError(
                f"NNCF cannot quantize the model: {reason_of(err)}. Leave this precision out."
            ) from err


def _save(model: Model, path: Path, *, is_half: bool) -> tuple[Path, Path]:
    """Write the model as IR and return its two files."""
    import openvino

    raw = path.with_name("raw.xml")
    try:
        openvino.save_model(model, str(raw), compress_to_fp16=is_half)
    except Exception as err:  # RuntimeError of the serializer
        raise ConversionError(
            f"OpenVINO cannot write the model: {reason_of(err)}. Check the free space."
        ) from err
    weights = path.with_suffix(".bin")
    raw.with_suffix(".bin").replace(weights)
    openvino_file.normalise_xml(raw, path)
    raw.unlink()
    return path, weights


def _left_float(path: Path, precision: Precision) -> list[str]:
    """Return a note when a good part of the weights did not become what the precision says."""
    sizes = openvino_file.weight_precisions(path)
    left = sizes.get("f32", 0) + (sizes.get("f16", 0) if precision is not Precision.FP16 else 0)
    share = left / max(1, sum(sizes.values()))
    # Biases and scales are float in every scheme, and a few percent of the bytes.
    if precision is Precision.FP32 or share < 0.15:
        return []
    return [f"{share:.0%} of the bytes of the weights are still float: OpenVINO left those layers alone"]


def _specs(ports: Sequence[Port], source: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
    """Return the specs of `ports` with the names and layouts of the source."""
    return tuple(
        TensorSpec(
            name=own.name,
            shape=tuple(d.get_length() if d.is_static else None for d in port.partial_shape),
            dtype=np.dtype(port.element_type.to_dtype()).name,
            layout=own.layout,
        )
        for port, own in zip(ports, source, strict=True)
    )

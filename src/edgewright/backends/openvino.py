"""OpenVINO on the CPU: PyTorch, ONNX, LiteRT and TensorFlow sources; int8 by PT2E or NNCF, weights in 8 and 4 bits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol, cast

import numpy as np

from edgewright.backends import litert_file, openvino_file, vendor
from edgewright.backends.openvino_errors import explain, reason_of
from edgewright.backends.openvino_quantize import quantize
from edgewright.backends.openvino_session import OpenVINOSession, compile_file, keep_telemetry_off
from edgewright.backends.openvino_weights import Compressed, compress
from edgewright.backends.trace_openvino import trace_openvino
from edgewright.core.artifact import Artifact
from edgewright.core.contracts import Calibration, Support, TracedLayer
from edgewright.core.errors import ConversionError, FormatMismatchError
from edgewright.core.files import sha256_of_files
from edgewright.core.program import Program
from edgewright.core.target import INTEGER_PRECISIONS, Precision, Quantizer, Target
from edgewright.core.tensors import Arrays, TensorSpec

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
    Precision.W4A8: f"{vendor.LOW_BITS_NOTE}; {_FLOAT_NOTE}",
    Precision.W4: "weights are 4-bit in groups of 32, dequantized at load; activations and arithmetic are float32",
}
_WEIGHT_BITS = {Precision.W8: 8, Precision.W4: 4}
_DEFAULT_SIGNATURE = "serving_default"


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


class OpenVINOBackend:
    """Intel's runtime; this version uses its CPU plug-in."""

    name = "openvino"
    environment = ""
    runtime_module = "openvino"
    consumes: tuple[str, ...] = ("pt2", "onnx", "tflite", "saved_model", "graph_def")
    precisions: tuple[Precision, ...] = (
        Precision.FP32,
        Precision.FP16,
        Precision.W8,
        *INTEGER_PRECISIONS,
        Precision.W4,
    )

    def probe(self) -> Support:
        """Say whether the runtime and its quantizer are installed."""
        return vendor.support((*_RUNTIME, *_QUANTIZER), extra="openvino")

    def refuses(self, program: Program, target: Target) -> str | None:
        """Return why this pair cannot be done, or None."""
        if target.precision not in self.precisions:
            return f"openvino makes {', '.join(self.precisions)}, not {target.precision}"
        if program.format == "saved_model" and program.signature not in ("", _DEFAULT_SIGNATURE):
            return f"OpenVINO reads the signature {_DEFAULT_SIGNATURE} alone, not {program.signature}"
        return vendor.refuses(program, target, self.consumes, quantizers=tuple(Quantizer))

    def quantizer(self, program: Program, target: Target) -> Quantizer | None:
        """Return who quantizes this pair: PT2E by default for PyTorch, else NNCF; weights alone Edgewright."""
        if target.precision is Precision.W4 and program.precision == Precision.FP32:
            return Quantizer.NATIVE
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
            raise FormatMismatchError(
                f"openvino cannot make {target.precision} of {program.path.name}: {reason}."
            )
        workdir.mkdir(parents=True, exist_ok=True)
        model = _read(program, workdir)
        _sign(model, program)
        model = _arrange(model, program)
        toolchain = vendor.versions((*_RUNTIME, *(("torch", "torchao") if program.format == "pt2" else ())))
        notes = [_NOTES[target.precision]]
        compressed = None
        if program.precision == Precision.FP32 and target.precision in _WEIGHT_BITS:
            compressed = compress(model, bits=_WEIGHT_BITS[target.precision])
        elif program.precision == Precision.FP32 and target.precision is Precision.W8A8:
            samples = vendor.calibration_samples(program, calibration)
            is_controlled = target.quantizer is Quantizer.ACCURACY
            model, how = quantize(model, samples, is_controlled=is_controlled)
            toolchain |= vendor.versions(_QUANTIZER)
            notes = [*how, *notes]
        files = _save(model, workdir / _FILE_NAME, is_half=target.precision is Precision.FP16)
        notes += _left_wider(files[0], target.precision, compressed)
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
        compile_file(artifact.path, threads=1, profile=False)
        return artifact

    def open(self, artifact: Artifact, target: Target, *, profile: bool = False) -> OpenVINOSession:
        """Load the artifact with the threads of `target`, one stream; `profile` counts the time of each layer."""
        return OpenVINOSession(artifact, threads=target.threads, profile=profile)

    def trace(
        self, artifact: Artifact, target: Target, batches: Iterable[Arrays], *, max_bytes: int
    ) -> Iterator[Sequence[TracedLayer]]:
        """Yield for each batch the layers in the order of execution, see `core.contracts.Traceable`."""
        keep_telemetry_off()
        return trace_openvino(artifact, target.threads, batches, max_bytes)


def signature(arguments: dict[str, object]) -> dict[str, object]:
    """Return what the model in an `.xml` takes and gives, read from the file.

    Arguments: path.
    Result: inputs, outputs (specs).
    """
    path = Path(str(arguments["path"]))
    openvino_file.parse_xml(path)
    keep_telemetry_off()
    with vendor.quiet():
        import openvino

        try:
            model = cast(Model, openvino.Core().read_model(str(path)))
        except Exception as err:  # RuntimeError of whatever is wrong with the file
            raise FormatMismatchError(
                f"OpenVINO cannot read {path.name}: {reason_of(err)}. Export it again."
            ) from err
    return {
        "inputs": [spec.to_json() for spec in _own_specs(model.inputs, "input")],
        "outputs": [spec.to_json() for spec in _own_specs(model.outputs, "output")],
    }


def _own_specs(ports: Sequence[Port], what: str) -> tuple[TensorSpec, ...]:
    """Return the specs of `ports` by the first of the names that each has."""
    names = [min(port.names, default=f"{what}{index}") for index, port in enumerate(ports)]
    return _specs(ports, [TensorSpec(name=name, shape=(), dtype="float32") for name in names])


def _read(program: Program, workdir: Path) -> Model:
    keep_telemetry_off()
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
        if program.format in ("saved_model", "graph_def") and len(specs) > 1 and not _names_all(ports, specs):
            raise ConversionError(
                f"OpenVINO gives the {kind} of {program.path.name} other names than its signature, so that their "
                "order is not known. Convert the model to LiteRT or ONNX first."
            )
    shapes = {
        index: openvino.PartialShape([-1 if size is None else size for size in spec.shape])
        for index, spec in zip(_order(model.inputs, program.inputs), program.inputs, strict=True)
    }
    try:
        model.reshape(shapes)
    except Exception as err:  # RuntimeError of a node that does not fit
        raise ConversionError(f"OpenVINO cannot give the model its shapes: {reason_of(err)}.") from err


def _names_all(ports: Sequence[Port], specs: Sequence[TensorSpec]) -> bool:
    return all(sum(spec.name in port.names for port in ports) == 1 for spec in specs)


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


def _left_wider(path: Path, precision: Precision, compressed: Compressed | None) -> list[str]:
    """Return a note when a good part of the weights did not become what the precision says."""
    if compressed is not None:
        bits = _WEIGHT_BITS[precision]
        shares = [
            f"{compressed.share(w):.0%} have {w}"
            for w in (8, 32)
            if w != bits and compressed.share(w) > 0.005
        ]
        return (
            [f"{compressed.share(bits):.0%} of the weights have {bits} bits, {', '.join(shares)}"]
            if shares
            else []
        )
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

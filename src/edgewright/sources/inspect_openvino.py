"""Layers and signature of an OpenVINO IR (`.xml`), read as XML without OpenVINO."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

from edgewright.core.errors import FormatMismatchError, IntegrityError
from edgewright.core.files import sha256_of_files
from edgewright.core.tensors import TensorSpec
from edgewright.sources.inspection import Inspection, Layer, Shape, product, summary, times

MAX_XML_BYTES = 256 << 20
# As constants and parameters spell them; ports spell f32 "FP32" and i8 "I8".
_DTYPES = {
    "f16": "float16",
    "f32": "float32",
    "f64": "float64",
    "i8": "int8",
    "u8": "uint8",
    "i16": "int16",
    "u16": "uint16",
    "i32": "int32",
    "u32": "uint32",
    "i64": "int64",
    "u64": "uint64",
    "boolean": "bool",
    "bool": "bool",
    "string": "string",
}
_WEIGHT_TYPES = ("f32", "f16", "bf16", "f64", "i8", "u8", "i4", "u4", "nf4")
_RECURRENT = ("LSTMSequence", "GRUSequence", "RNNSequence", "LSTMCell", "GRUCell", "RNNCell")
_LOOPS = ("TensorIterator", "Loop", "If")
_STRUCTURE = ("Parameter", "Const", "Result")


def inspect_openvino(path: Path) -> Inspection:
    """Return the description of the IR at `path`; its weights are expected beside it (`.bin`).

    Raises:
        FormatMismatchError: not an OpenVINO IR, or too large.
        IntegrityError: damaged XML, or XML with a document type or entities, which are not read.
    """
    net = _parse(path)
    nodes = {layer.get("id", ""): _Node(layer) for layer in net.iterfind("./layers/layer")}
    for edge in net.iterfind("./edges/edge"):
        source, target = nodes.get(edge.get("from-layer", "")), nodes.get(edge.get("to-layer", ""))
        if source is None or target is None:
            raise IntegrityError(f"{path}: an edge joins layers that are not there. Convert the model again.")
        target.sources.append(source)
    files = [path, *([path.with_suffix(".bin")] if path.with_suffix(".bin").is_file() else [])]
    layers = [node.layer() for node in nodes.values() if node.kind not in _STRUCTURE]
    return summary(
        name=path.name,
        model_format="openvino",
        sha256=sha256_of_files(files),
        size_bytes=sum(file.stat().st_size for file in files),
        inputs=[node.spec() for node in nodes.values() if node.kind == "Parameter"],
        outputs=[node.sources[0].spec() for node in nodes.values() if node.kind == "Result" and node.sources],
        layers=layers,
        parameters=sum(layer.parameters for layer in layers),
        precision=_precision(list(nodes.values())),
        notes=[],
    )


def _parse(path: Path) -> ElementTree.Element:
    size = path.stat().st_size
    if size > MAX_XML_BYTES:
        raise FormatMismatchError(f"{path} has {size} bytes; an IR of at most {MAX_XML_BYTES} bytes is read.")
    content = path.read_bytes()
    # Entities can blow a small file up to gigabytes or read other files; an IR has none. Other encodings than
    # UTF-8, which could hide them from this search, have zero bytes.
    if b"<!" in content.replace(b"<!--", b"") or b"\0" in content:
        raise IntegrityError(f"{path} has a document type, an entity or zero bytes; such XML is not read.")
    try:
        net = ElementTree.fromstring(content)
    except (ElementTree.ParseError, ValueError, RecursionError, LookupError) as err:
        raise IntegrityError(f"{path} is damaged XML: {err}. Convert the model again.") from err
    if net.tag != "net" or net.find("./layers/layer") is None:
        raise FormatMismatchError(f"{path} is XML, but not an OpenVINO IR: its root is <{net.tag[:40]}>.")
    return net


class _Node:
    """One <layer> with the layers that feed it, in port order."""

    def __init__(self, element: ElementTree.Element) -> None:
        self.name = element.get("name", "")
        self.kind = element.get("type", "")
        self.sources: list[_Node] = []
        data = element.find("data")
        self.attributes = dict(data.attrib) if data is not None else {}
        self.inputs = [_port_shape(port) for port in element.iterfind("./input/port")]
        ports = list(element.iterfind("./output/port"))
        self.output: Shape | None = _port_shape(ports[0]) if ports else None
        # a constant's port may leave its shape out: an attribute has it too
        if self.kind == "Const" and not self.output:
            self.output = tuple(
                int(size) for size in re.findall(r"\d{1,15}", self.attributes.get("shape", ""))
            )
        self.output_name = (ports[0].get("names") or self.name).split(",")[0] if ports else self.name
        spelled = self.attributes.get("element_type") or (ports[0].get("precision") if ports else "")
        self.element_type = re.sub("^fp", "f", (spelled or "").lower())
        self.is_counted = False

    def spec(self) -> TensorSpec:
        dtype = _DTYPES.get(self.element_type)
        if dtype is None:
            raise FormatMismatchError(
                f"{self.output_name!r} has dtype {self.element_type}, which is not read."
            )
        return TensorSpec(name=self.output_name, shape=self.output or (), dtype=dtype)

    def layer(self) -> Layer:
        return Layer(
            name=self.name,
            operator=self.kind,
            output_shape=self.output or (),
            parameters=self._parameters(),
            macs=self._macs(),
        )

    def _parameters(self) -> int:
        """Return the elements of the constants that feed this layer, through Convert, scale and shift."""
        if self.kind in ("FakeQuantize", "Convert") or self._is_scaling():
            return 0
        total = 0
        for source in self.sources:
            constant = source._weights()
            if constant is not None and not constant.is_counted:
                constant.is_counted = True
                total += product(constant.output) or 0
        return total

    def _weights(self) -> _Node | None:
        if self.kind == "Const":
            return self if self.element_type in _WEIGHT_TYPES else None
        if self.sources and (self.kind in ("Convert", "Reshape", "FakeQuantize") or self._is_scaling()):
            return self.sources[0]._weights()
        return None

    def _is_scaling(self) -> bool:
        if self.kind not in ("Multiply", "Subtract") or len(self.sources) != 2:
            return False
        return self.sources[1].kind in ("Const", "Convert") and self.sources[0]._weights() is not None

    def _macs(self) -> int | None:
        kind, shapes = self.kind, self.inputs
        if kind in _LOOPS:
            return None
        if len(shapes) < 2:
            return 0
        data, weights = shapes[0], shapes[1]
        if kind in ("Convolution", "GroupConvolution"):
            return times(product(self.output), product(weights[1 if kind == "Convolution" else 2 :]))
        if kind in ("ConvolutionBackpropData", "GroupConvolutionBackpropData"):
            return times(product(data), product(weights[1 if kind == "ConvolutionBackpropData" else 2 :]))
        if kind == "MatMul":
            is_transposed = self.attributes.get("transpose_a") == "true" and len(data) > 1
            return times(product(self.output), data[-2 if is_transposed else -1])
        if kind in _RECURRENT:
            rank = 3 if kind.endswith("Sequence") else 2
            matrices = [shape for shape in shapes[1:] if len(shape) == rank and product(shape) is not None]
            # Of the matrices, the states come first; W and R are the last two of this rank.
            return times(product(data[:-1]), sum(product(shape) or 0 for shape in matrices[-2:]))
        return 0


def _port_shape(port: ElementTree.Element) -> Shape:
    dims = []
    for dim in port.iterfind("dim"):
        text = (dim.text or "").strip()
        dims.append(int(text) if text.isdigit() and len(text) < 16 else None)
    return tuple(dims)


def _precision(nodes: list[_Node]) -> str:
    types = [node.element_type for node in nodes if node.kind == "Const"]
    has_integer_weights = any(
        node.kind == "Const" and node.element_type in ("i8", "u8") and len(node.output or ()) > 1
        for node in nodes
    )
    if has_integer_weights:
        return "w8a8" if any(node.kind == "FakeQuantize" for node in nodes) else "w8"
    floats = [kind for kind in types if kind in ("f32", "f16")]
    return "fp16" if floats.count("f16") > floats.count("f32") else "fp32"

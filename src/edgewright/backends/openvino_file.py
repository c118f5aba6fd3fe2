"""Writing OpenVINO IR (`model.xml`, `model.bin`) so that the same model always gives the same bytes, and small ones.

The serializer writes what depends on the process and not on the model: counters in generated names, the versions and
paths of the tools. It also writes indentation, and shapes that the runtime infers anew: half of a small topology.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

from edgewright.core.errors import FormatMismatchError, IntegrityError
from edgewright.core.files import require_model_file, write_aside

# "Convolution_1234": OpenVINO names nodes without a name by their type and a counter of the process.
_GENERATED = re.compile(r"\b([A-Z][A-Za-z0-9]*)_(\d+)\b")
_MAX_XML_BYTES = 256 << 20
# The PyTorch front end names a node "relu_3/aten.relu.default/Relu": the graph's node, its operator, OpenVINO's type.
_TORCH_OPERATOR = re.compile(r"/(?:aten|quantized_decomposed)\.[\w.]+/")
# Attributes of a node that record where it came from, not what it computes.
_ORIGIN_ATTRIBUTES = frozenset({"fused_names", "original_precision", "origin"})
# Ends of the types of layers whose cost is read from the shapes of their operands.
_MULTIPLYING = ("Convolution", "ConvolutionBackpropData", "MatMul", "Cell", "Sequence")


def normalise_xml(source: Path, destination: Path) -> None:
    """Write the IR topology of `source` to `destination`, free of counters, versions, paths and repetition.

    What is computed, offsets into the .bin, the names of layers with a time of their own, and names and shapes of
    inputs and outputs stay.
    """
    root = parse_xml(source)
    root.set("name", "model")
    for info in root.findall("rt_info"):
        root.remove(info)
    numbers: dict[str, int] = {}

    def renumbered(match: re.Match[str]) -> str:
        return f"{match[1]}_{numbers.setdefault(match[0], len(numbers))}"

    public = set(_public_ports(root))
    for layer in root.iter("layer"):
        kind, name = layer.get("type"), layer.get("name", "")
        is_public = kind in ("Parameter", "Result")
        if kind == "Const":
            layer.set("name", f"const_{layer.get('id')}")
        elif not is_public or _GENERATED.fullmatch(name):
            layer.set("name", _GENERATED.sub(renumbered, _TORCH_OPERATOR.sub("/", name)))
        for info in layer.iter("rt_info"):
            for attribute in info.findall("attribute"):
                if attribute.get("name") in _ORIGIN_ATTRIBUTES:
                    info.remove(attribute)
    constant = _constant_layers(root)
    for layer in root.findall("layers/layer"):
        if layer.get("id") in constant and layer.get("type") != "Const":
            layer.set("name", f"weight_{layer.get('id')}")
            for port in layer.findall("output/port"):
                _drop_shape(port)
        _drop_what_follows_from_the_rest(layer, public)
    _share_constants(root)
    for element in root.iter():
        element.tail = None
        if element.text is not None and not element.text.strip():
            element.text = None
    with write_aside(destination) as aside:
        # "<" and ">" inside attributes are escaped, so this space is always the one before the end of a tag.
        content = ElementTree.tostring(root, encoding="utf-8").replace(b" />", b"/>")
        aside.write_bytes(b'<?xml version="1.0"?>' + content)


def _drop_what_follows_from_the_rest(layer: ElementTree.Element, public: set[tuple[str, str]]) -> None:
    """Drop shapes and dtypes of ports that the runtime infers anew, and the names of inner tensors.

    Kept, for who reads the file: the shape of every result that is not a mere conversion, and the operands' shapes of
    layers whose multiplications follow from them.
    """
    if any(
        child.tag.endswith("body") for child in layer
    ):  # loops and branches map their ports to an inner graph
        return
    kind, content = layer.get("type", ""), layer.find("data")
    if content is not None and content.get("auto_broadcast") == "numpy":
        del content.attrib["auto_broadcast"]  # the default
    for port in layer.findall("input/port"):
        port.attrib.pop("precision", None)
        if not kind.endswith(_MULTIPLYING):
            _drop_shape(port)
    for port in layer.findall("output/port"):
        if kind == "Parameter" or (layer.get("id", ""), port.get("id", "")) in public:
            continue
        port.attrib.pop("names", None)  # the dtype stays: the reader takes a port without one for damaged
        if kind in ("Const", "FakeQuantize", "Convert"):  # a constant has its shape among its attributes too
            _drop_shape(port)


def _constant_layers(root: ElementTree.Element) -> set[str]:
    """Return the ids of layers computed from constants alone: they are folded at load and never timed."""
    sources: dict[str, set[str]] = {}
    for edge in root.findall("edges/edge"):
        sources.setdefault(edge.get("to-layer", ""), set()).add(edge.get("from-layer", ""))
    found: set[str] = set()
    for layer in root.findall("layers/layer"):  # in the order of execution
        own = layer.get("id", "")
        if layer.get("type") == "Const" or (own in sources and sources[own] <= found):
            found.add(own)
    return found


def _drop_shape(port: ElementTree.Element) -> None:
    for dim in port.findall("dim"):
        port.remove(dim)


def _share_constants(root: ElementTree.Element) -> None:
    """Let all users of a constant read one layer: ranges of quantization are written twice for every tensor."""
    layers, edges = root.find("layers"), root.find("edges")
    if layers is None or edges is None:
        return
    first: dict[bytes, str] = {}
    replaced: dict[str, str] = {}
    for layer in layers.findall("layer"):
        if layer.get("type") != "Const":
            continue
        own = layer.get("id", "")
        key = b"".join(ElementTree.tostring(child).strip() for child in layer)
        if first.setdefault(key, own) != own:
            replaced[own] = first[key]
            layers.remove(layer)
    for edge in edges.findall("edge"):
        source = edge.get("from-layer", "")
        edge.set("from-layer", replaced.get(source, source))


def parse_xml(path: Path) -> ElementTree.Element:
    """Return the root of an IR topology.

    Raises:
        UsageError: missing or empty.
        FormatMismatchError: not XML, or XML of something else.
        IntegrityError: larger than 256 MiB, or with a document type, which IR never has and entities hide in.
    """
    require_model_file(path)
    if path.stat().st_size > _MAX_XML_BYTES:
        raise IntegrityError(f"{path} is larger than {_MAX_XML_BYTES} bytes; it is not an IR topology.")
    content = path.read_bytes()
    if b"<!DOCTYPE" in content or b"<!ENTITY" in content:
        raise IntegrityError(
            f"{path} declares a document type, which no OpenVINO topology does. Do not open it."
        )
    try:
        root = ElementTree.fromstring(content)
    except ElementTree.ParseError as err:
        raise FormatMismatchError(f"{path} is not XML: {err}. Build the artifact again.") from err
    if root.tag != "net":
        raise FormatMismatchError(f"{path} has the root <{root.tag}>, but an OpenVINO topology has <net>.")
    return root


def weight_precisions(path: Path) -> dict[str, int]:
    """Return element type -> bytes of all constants of an IR topology."""
    sizes: dict[str, int] = {}
    for layer in parse_xml(path).findall("layers/layer"):
        content = layer.find("data")
        if layer.get("type") == "Const" and content is not None:
            kind = content.get("element_type", "?")
            sizes[kind] = sizes.get(kind, 0) + int(content.get("size", "0"))
    return sizes


def _public_ports(root: ElementTree.Element) -> Iterator[tuple[str, str]]:
    """Yield (layer, port) of what feeds a Result: their tensor names are the names of the model's outputs."""
    results = {layer.get("id") for layer in root.findall("layers/layer") if layer.get("type") == "Result"}
    for edge in root.findall("edges/edge"):
        if edge.get("to-layer") in results:
            yield edge.get("from-layer", ""), edge.get("from-port", "")

"""TensorFlow graphs read from their wire format into plain records, without TensorFlow.

Field numbers: tensorflow/core/framework/{graph,node_def,function,attr_value,tensor_shape,tensor,types}.proto.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgewright.backends.coreml_wire import decoded, entry, fields, integer, message, text
from edgewright.core.errors import FormatMismatchError, IntegrityError, UsageError
from edgewright.core.tensors import MAX_RANK

Shape = tuple[int | None, ...]

MAX_PROTO_BYTES = 2 << 30
MAX_NODES = 1_000_000
_DTYPES = {
    1: "float32",
    2: "float64",
    3: "int32",
    4: "uint8",
    5: "int16",
    6: "int8",
    7: "string",
    9: "int64",
    10: "bool",
    17: "uint16",
    19: "float16",
    22: "uint32",
    23: "uint64",
}
_REFERENCE = 100  # DT_FLOAT_REF is DT_FLOAT + 100
_RESOURCES = {20: "resource", 21: "variant"}


@dataclass(frozen=True, kw_only=True)
class GraphNode:
    """One operator.

    Attributes:
        inputs: as the file spells them: "node", "node:1", "node:output:0" in functions, "^node" for order alone.
        shape: of a variable, a placeholder or a constant; None when the file does not tell.
        output_shapes: of its outputs, where the file tells.
        functions: names of the functions that it calls.
        flags: the boolean attributes that are set.
    """

    name: str
    operator: str
    inputs: tuple[str, ...] = ()
    dtype: str = ""
    shape: Shape | None = None
    output_shapes: tuple[Shape | None, ...] = ()
    functions: tuple[str, ...] = ()
    flags: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class GraphFunction:
    """A function of the graph's library; `returns` are references as in GraphNode.inputs, in order."""

    name: str
    arguments: tuple[str, ...]
    returns: tuple[str, ...]
    nodes: tuple[GraphNode, ...]


@dataclass(frozen=True, kw_only=True)
class Graph:
    """A whole graph with its library."""

    nodes: tuple[GraphNode, ...]
    functions: dict[str, GraphFunction]

    @property
    def all_nodes(self) -> Iterator[GraphNode]:
        """Every node of the graph and of its functions."""
        yield from self.nodes
        for function in self.functions.values():
            yield from function.nodes


def read_proto(path: Path) -> memoryview:
    """Return the bytes of a protobuf file.

    Raises:
        FormatMismatchError: it is larger than a protobuf file can be.
    """
    size = path.stat().st_size
    if size > MAX_PROTO_BYTES:
        raise FormatMismatchError(
            f"{path} has {size} bytes, but a protobuf file has at most {MAX_PROTO_BYTES}."
        )
    return memoryview(path.read_bytes())


def read_graph_def(path: Path) -> Graph:
    """Return the graph in a frozen `.pb` file.

    Raises:
        FormatMismatchError: the file is no GraphDef.
        IntegrityError: it is damaged.
    """
    try:
        graph = parse_graph(read_proto(path))
    except IntegrityError as err:
        raise IntegrityError(f"{path} is not a whole GraphDef: {err} Export it again.") from err
    if not graph.nodes or not all(node.name and node.operator for node in graph.nodes):
        raise FormatMismatchError(f"{path} is no GraphDef: it has no operators. Give a frozen graph.")
    return graph


def parse_graph(data: memoryview) -> Graph:
    """Return the records of a GraphDef message."""
    nodes: list[GraphNode] = []
    functions: dict[str, GraphFunction] = {}
    for number, value in fields(data):
        if number == 1:
            nodes.append(_node(message(value)))
            _bound(len(nodes))
        elif number == 2:
            for inner, body in fields(message(value)):
                if inner == 1:
                    function = _function(message(body))
                    functions[function.name] = function
                    _bound(len(functions))
    return Graph(nodes=tuple(nodes), functions=functions)


def _bound(count: int) -> None:
    if count > MAX_NODES:
        raise IntegrityError(f"the graph has more than {MAX_NODES} operators.")


def _node(data: memoryview) -> GraphNode:
    name = operator = ""
    inputs: list[str] = []
    dtype, shape = "", None
    output_shapes: tuple[Shape | None, ...] = ()
    functions: list[str] = []
    flags: list[str] = []
    for number, value in fields(data):
        if number == 1:
            name = text(value)
        elif number == 2:
            operator = text(value)
        elif number == 3:
            inputs.append(text(value))
        elif number == 5:
            key, body = entry(message(value))
            for kind, content in fields(body):
                if kind == 6 and key in ("dtype", "T"):
                    dtype = dtype_name(integer(content)) if key == "dtype" or not dtype else dtype
                elif kind == 7 and key == "shape":
                    shape = parse_shape(message(content))
                elif kind == 8 and key == "value":
                    shape = _tensor_shape(message(content))
                elif kind == 5 and integer(content):
                    flags.append(key)
                elif kind == 1 and key in ("_output_shapes", "output_shapes"):
                    output_shapes = tuple(
                        parse_shape(message(item)) for place, item in fields(message(content)) if place == 7
                    )
                elif kind in (1, 10):
                    functions += _functions(kind, message(content))
    return GraphNode(
        name=name,
        operator=operator,
        inputs=tuple(inputs),
        dtype=dtype,
        shape=shape,
        output_shapes=output_shapes,
        functions=tuple(functions),
        flags=frozenset(flags),
    )


def _functions(kind: int, content: memoryview) -> Iterator[str]:
    """Yield the names of the functions in an attribute: a list (kind 1) or a single one (kind 10)."""
    calls = [content] if kind == 10 else [message(body) for place, body in fields(content) if place == 9]
    for call in calls:
        for place, body in fields(call):
            if place == 1:
                yield text(body)


def _function(data: memoryview) -> GraphFunction:
    name = ""
    arguments: list[str] = []
    outputs: list[str] = []
    nodes: list[GraphNode] = []
    returns: dict[str, str] = {}
    for number, value in fields(data):
        if number == 1:
            for place, body in fields(message(value)):
                if place == 1:
                    name = text(body)
                elif place in (2, 3):
                    (arguments if place == 2 else outputs).append(_argument(message(body)))
        elif number == 3:
            nodes.append(_node(message(value)))
            _bound(len(nodes))
        elif number == 4:
            key, body = entry(message(value))
            returns[key] = decoded(body)
    return GraphFunction(
        name=name,
        arguments=tuple(arguments),
        returns=tuple(returns.get(output, "") for output in outputs),
        nodes=tuple(nodes),
    )


def _argument(data: memoryview) -> str:
    return next((text(value) for number, value in fields(data) if number == 1), "")


def parse_shape(data: memoryview) -> Shape | None:
    """Return the shape of a TensorShapeProto, None for an unknown rank."""
    dims: list[int | None] = []
    for number, value in fields(data):
        if number == 2:
            size = next((integer(body) for place, body in fields(message(value)) if place == 1), 0)
            dims.append(None if size < 0 else size)
            if len(dims) > 255:
                raise IntegrityError("a tensor has more than 255 dimensions.")
        elif number == 3 and integer(value):
            return None
    return tuple(dims)


def _tensor_shape(data: memoryview) -> Shape | None:
    shapes = [parse_shape(message(value)) for number, value in fields(data) if number == 2]
    return shapes[0] if shapes else ()


def dtype_name(number: int) -> str:
    """Return the name of a DataType; what no tensor here can hold gets a name of its own."""
    plain = number - _REFERENCE if number > _REFERENCE else number
    return _DTYPES.get(plain) or _RESOURCES.get(plain) or f"DataType {number}"


def require_readable(name: str, dtype: str, shape: Shape | None, path: Path) -> Shape:
    """Return the shape of an input or output that this package can feed.

    Raises:
        FormatMismatchError: strings, resources, or a dtype that is not read.
        UsageError: the rank is not known.
    """
    if dtype == "string":
        raise FormatMismatchError(
            f"{path}: {name!r} holds strings, which no runtime here takes. Export the model without its text "
            "preprocessing, with numbers as input."
        )
    if dtype not in _DTYPES.values():
        raise FormatMismatchError(f"{path}: {name!r} is of {dtype}, which is not read.")
    if shape is None:
        raise UsageError(
            f"{path}: {name!r} has no rank. Give the shape of each input, e.g. --input-shape {name}=1x32x32x3."
        )
    if len(shape) > MAX_RANK:
        raise FormatMismatchError(f"{path}: {name!r} has rank {len(shape)}; at most {MAX_RANK} is read.")
    return shape

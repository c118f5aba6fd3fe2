"""Read an ONNX file into a Graph: shapes by ONNX's own inference, type variables by its operator schemas."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from edgewright.explain.graph import Attribute, Graph, Operation, Shape, Value
from edgewright.sources.inspect_onnx import onnx_layers
from edgewright.sources.onnx import parse_onnx

if TYPE_CHECKING:
    import onnx

_STANDARD = ("", "ai.onnx")
_MAX_DEPTH = 16
_MAX_PARTS = 1000
_MAX_LISTED = 64  # longer lists of an attribute say nothing about support


def read_onnx_graph(path: Path) -> Graph:
    """Return the operators of the ONNX file at `path`, those of the bodies of control flow included."""
    import onnx

    model = parse_onnx(path)
    # A model of custom operators has shapes that cannot be inferred: their values then have no type.
    with suppress(onnx.shape_inference.InferenceError, RuntimeError, ValueError):
        model = onnx.shape_inference.infer_shapes(model, data_prop=True)
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    functions = {(function.domain, function.name) for function in model.functions}
    reader = _Reader(opsets, functions)
    reader.read(model.graph, {}, {}, 0)
    fed = [value.name for value in model.graph.input if not reader.known[value.name].is_constant]
    return Graph(
        format="onnx",
        operations=_with_costs(reader.operations, path),
        parts=tuple(reader.parts),
        inputs=tuple(reader.known[name] for name in fed),
        uses=tuple(tuple(reader.uses.get(name, ())) for name in fed),
        opsets=opsets,
    )


def _with_costs(operations: list[Operation], path: Path) -> tuple[Operation, ...]:
    layers, _ = onnx_layers(path)
    costs = {layer.name: layer for layer in layers}
    counted = []
    for operation in operations:
        layer = costs.pop(operation.name, None)
        counted.append(
            operation if layer is None else replace(operation, macs=layer.macs, parameters=layer.parameters)
        )
    return tuple(counted)


class _Reader:
    """Collects operations; names of values are those of the graph at hand and of the graphs around it."""

    def __init__(
        self, opsets: Mapping[str, int], functions: set[tuple[str, str]], *, is_inside: bool = False
    ) -> None:
        self._is_inside = is_inside
        self._opsets = opsets
        self._functions = functions
        self.operations: list[Operation] = []
        self.parts: list[Operation] = []
        self.uses: dict[str, list[tuple[int, int]]] = {}
        self.known: dict[str, Value] = {}

    def read(
        self, graph: onnx.GraphProto, known: dict[str, Value], makers: dict[str, int], depth: int
    ) -> None:
        """Add the operations of `graph`."""
        known = dict(known)
        makers = dict(makers)
        held = {tensor.name for tensor in graph.initializer}
        for value in (*graph.value_info, *graph.output, *graph.input):
            known[value.name] = _value(value, is_constant=value.name in held)
        for tensor in graph.initializer:
            known[tensor.name] = Value(
                dtype=_dtype(tensor.data_type), shape=tuple(tensor.dims), is_constant=True
            )
        if depth == 0:
            self.known = known
        for index, node in enumerate(graph.node):
            if node.op_type == "Constant" and node.domain in _STANDARD and node.output:
                constant = known.get(node.output[0], Value(dtype="", shape=None))
                known[node.output[0]] = replace(constant, is_constant=True)
                continue
            bodies = [body for entry in node.attribute for body in (entry.g, *entry.graphs) if body.node]
            position = len(self.operations)
            self.operations.append(self._operation(node, index, known, makers, depth))
            for place, name in enumerate(node.input):
                self.uses.setdefault(name, []).append((position, place))
            if not self._is_inside:
                self._add_parts(node, known, position)
            # What is computed from constants alone is folded by every converter here.
            is_folded = all(known[name].is_constant for name in node.input if name in known) and not bodies
            for name in node.output:
                makers[name] = position
                if is_folded and node.input and all(name in known for name in node.input if name):
                    known[name] = replace(known.get(name, Value(dtype="", shape=None)), is_constant=True)
            if depth < _MAX_DEPTH:
                for body in bodies:
                    self.read(body, known, makers, depth + 1)

    def _add_parts(self, node: onnx.NodeProto, known: Mapping[str, Value], position: int) -> None:
        """Add what the operator is made of, where ONNX defines it by others."""
        import onnx

        version = self._opsets.get(node.domain, self._opsets.get(node.domain or "ai.onnx", 0))
        types = [_type(known.get(name)) for name in node.input]
        body = _body(node, types, version)
        if body is None or len(body.node) > _MAX_PARTS:
            return
        names = list(body.input)[: len(node.input)]
        inputs = [
            onnx.ValueInfoProto(name=name, type=kind)
            for name, kind, given in zip(names, types, node.input, strict=False)
            if given
        ]
        # Attributes that the body takes from the node do not matter for the names and types inside.
        graph = onnx.helper.make_graph(
            list(body.node), "body", inputs, [onnx.ValueInfoProto(name=name) for name in body.output]
        )
        model = onnx.helper.make_model(graph, opset_imports=list(body.opset_import))
        with suppress(Exception):  # types that cannot be inferred are simply not known
            model = onnx.shape_inference.infer_shapes(model)
        reader = _Reader({entry.domain: entry.version for entry in body.opset_import}, set(), is_inside=True)
        reader.read(model.graph, {}, {}, 1)
        self.parts += [replace(part, part_of=position, sources=()) for part in reader.operations]

    def _operation(
        self,
        node: onnx.NodeProto,
        index: int,
        known: Mapping[str, Value],
        makers: Mapping[str, int],
        depth: int,
    ) -> Operation:
        domain = "" if node.domain in _STANDARD else node.domain
        version = self._opsets.get(node.domain, self._opsets.get(domain or "ai.onnx", 0))
        variables, since = _variables(node, domain, version)
        unknown = Value(dtype="", shape=None)
        inputs = tuple(
            None if not name else replace(known.get(name, unknown), variable=variable)
            for name, variable in zip(node.input, variables[0], strict=True)
        )
        outputs = tuple(
            replace(known.get(name, unknown), variable=variable)
            for name, variable in zip(node.output, variables[1], strict=True)
            if name
        )
        attributes: dict[str, Attribute] = {entry.name: _attribute(entry) for entry in node.attribute}
        if (node.domain, node.op_type) in self._functions:
            attributes["is_function"] = 1
        return Operation(
            name=node.name or (node.output[0] if node.output else f"node_{index}"),
            operator=f"{domain}.{node.op_type}" if domain else node.op_type,
            version=since,
            inputs=inputs,
            outputs=outputs,
            sources=tuple(sorted({makers[name] for name in node.input if name in makers})),
            attributes=attributes,
            depth=depth,
        )


def _body(node: onnx.NodeProto, types: list[onnx.TypeProto], version: int) -> onnx.FunctionProto | None:
    """Return the function that defines the operator of `node` for these types, or None where it is primitive."""
    import onnx

    try:
        # The package's type stubs leave these methods out.
        schema = cast(_Schema, onnx.defs.get_schema(node.op_type, version, node.domain))
        if schema.has_function:
            content = schema.get_function_with_opset_version(version)
        elif schema.has_context_dependent_function:
            kinds = [kind.SerializeToString() for kind in types]
            content = schema.get_context_dependent_function_with_opset_version(
                version, node.SerializeToString(), kinds
            )
        else:
            return None
    except (
        Exception
    ):  # a definition that does not fit the node: there is no body, and the node stands for itself
        return None
    if not content:
        return None
    body = onnx.FunctionProto()
    body.ParseFromString(content)
    return body


class _Schema(Protocol):
    """What is used of ONNX's operator schemas."""

    has_function: bool
    has_context_dependent_function: bool

    def get_function_with_opset_version(self, version: int) -> bytes: ...
    def get_context_dependent_function_with_opset_version(
        self, version: int, node: bytes, types: list[bytes]
    ) -> bytes: ...


def _variables(node: onnx.NodeProto, domain: str, version: int) -> tuple[tuple[list[str], list[str]], int]:
    """Return the type variables of the node's inputs and outputs, and the version of its definition.

    Where no definition is known, these are empty texts and the version of the domain.
    """
    import onnx

    try:
        schema = onnx.defs.get_schema(node.op_type, version, domain)
    except onnx.defs.SchemaError:
        return ([""] * len(node.input), [""] * len(node.output)), version

    def names(count: int, formal: list[str]) -> list[str]:
        # The last formal parameter stands for all that follow it (variadic).
        return [formal[min(index, len(formal) - 1)] if formal else "" for index in range(count)]

    inputs = names(len(node.input), [formal.type_str for formal in schema.inputs])
    outputs = names(len(node.output), [formal.type_str for formal in schema.outputs])
    return (inputs, outputs), schema.since_version


def _value(value: onnx.ValueInfoProto, *, is_constant: bool) -> Value:
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        return Value(dtype=(kind or "").removesuffix("_type"), shape=None)
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return Value(dtype=_dtype(tensor.elem_type), shape=None, is_constant=is_constant)
    shape: Shape = tuple(d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim)
    return Value(dtype=_dtype(tensor.elem_type), shape=shape, is_constant=is_constant)


def _type(value: Value | None) -> onnx.TypeProto:
    """Return ONNX's type of `value`; an empty one where nothing is known."""
    import numpy as np
    import onnx

    if value is None or not value.dtype:
        return onnx.TypeProto()
    try:
        code = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(value.dtype))
    except (KeyError, ValueError, TypeError):
        return onnx.TypeProto()
    return onnx.helper.make_tensor_type_proto(code, value.shape)


def _dtype(code: int) -> str:
    import onnx

    if code == onnx.TensorProto.STRING:
        return "string"
    try:
        return onnx.helper.tensor_dtype_to_np_dtype(code).name
    except (KeyError, ValueError, TypeError):
        return ""


def _attribute(entry: onnx.AttributeProto) -> Attribute:
    import onnx

    kinds = onnx.AttributeProto
    if entry.type == kinds.INT:
        return entry.i
    if entry.type == kinds.FLOAT:
        return entry.f if math.isfinite(entry.f) else str(entry.f)
    if entry.type == kinds.STRING:
        return entry.s.decode(errors="replace")
    if entry.type == kinds.INTS and len(entry.ints) <= _MAX_LISTED:
        return tuple(entry.ints)
    if entry.type == kinds.FLOATS and len(entry.floats) <= _MAX_LISTED:
        return tuple(value if math.isfinite(value) else 0.0 for value in entry.floats)
    if entry.type == kinds.STRINGS and len(entry.strings) <= _MAX_LISTED:
        return tuple(text.decode(errors="replace") for text in entry.strings)
    return None

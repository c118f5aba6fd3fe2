"""Read a `.pt2` file into a Graph: its own operators, and the core ATen operators that each is made of."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from edgewright.backends.vendor import load_exported_file, quiet
from edgewright.core.errors import ConversionError, first_line
from edgewright.explain.graph import Attribute, Graph, Operation, Shape, Value
from edgewright.sources.inspect_torch import exported_layers

if TYPE_CHECKING:
    from torch.export import ExportedProgram
    from torch.fx import Node

_MAX_LISTED = 64


def read_torch_graph(path: Path) -> Graph:
    """Return the operators of the program at `path`, before and after torch's own core decompositions."""
    return torch_graph(load_exported_file(path), title=path.name)


def torch_graph(exported: ExportedProgram, *, title: str) -> Graph:
    """Return the same of a program in memory; `title` is what messages call it."""
    layers, _ = exported_layers(exported)
    costs = {layer.name: (layer.macs, layer.parameters) for layer in layers}
    operations = tuple(_operations(exported, costs, {}))
    positions = {operation.name: index for index, operation in enumerate(operations)}
    try:
        with quiet():
            decomposed = exported.run_decompositions()
    except Exception as err:  # a program with a broken graph fails in any of torch's passes
        raise ConversionError(f"torch cannot decompose {title}: {first_line(err)}.") from err
    return Graph(
        format="pt2",
        operations=operations,
        parts=tuple(_operations(decomposed, {}, positions)),
        inputs=_inputs(exported),
        passes_through=_passes_through(exported),
    )


# What leaves a tensor as it is.
_COPIES = ("alias", "clone", "contiguous", "detach", "dropout", "lift_fresh_copy", "to")


def _passes_through(exported: ExportedProgram) -> bool:
    """Return whether an output is an input, perhaps copied."""
    signature = exported.graph_signature
    fed = set(signature.user_inputs)
    nodes = {node.name: node for node in exported.graph.nodes}
    for name in signature.user_outputs:
        node = nodes.get(str(name))
        while node is not None and node.op == "call_function" and node.all_input_nodes:
            if _operator(node.target).split(".")[1] not in _COPIES:
                break
            before, after = (
                _values(node.all_input_nodes[0], is_constant=False),
                _values(node, is_constant=False),
            )
            if before != after:
                break
            node = node.all_input_nodes[0]
        if node is not None and node.name in fed:
            return True
    return False


def _operations(
    exported: ExportedProgram, costs: dict[str, tuple[int | None, int]], whole: dict[str, int]
) -> Iterator[Operation]:
    """Yield the operations; `whole`: name -> position of the operations before the decomposition."""
    import torch

    signature = exported.graph_signature
    held = {*signature.inputs_to_parameters, *signature.inputs_to_buffers}
    held |= {*signature.inputs_to_lifted_tensor_constants}
    makers: dict[Node, int] = {}
    constants = {node for node in exported.graph.nodes if node.op == "placeholder" and node.name in held}
    position = 0
    for node in exported.graph.nodes:
        if node.op != "call_function":
            continue
        sources = list(node.all_input_nodes)
        if node.target.__class__.__name__ == "builtin_function_or_method":
            # getitem and arithmetic of sizes: no operators of a model, but values pass through them.
            made = [makers[source] for source in sources if source in makers]
            if made:
                makers[node] = max(made)
            continue
        if sources and all(source in constants for source in sources):
            constants.add(node)
        arguments, attributes = _arguments(node, constants)
        macs, parameters = costs.get(node.name, (0, 0))
        yield Operation(
            name=node.name,
            operator=_operator(node.target),
            inputs=arguments,
            outputs=tuple(_values(node, is_constant=node in constants)),
            sources=tuple(sorted({makers[source] for source in sources if source in makers})),
            attributes=attributes,
            macs=macs,
            parameters=parameters,
            part_of=_origin(node, whole) if whole else None,
            depth=0 if isinstance(node.target, torch._ops.OpOverload) else 1,
        )
        makers[node] = position
        position += 1


def _operator(target: object) -> str:
    import torch

    if isinstance(target, torch._ops.OpOverload):
        return str(target)
    return f"control.{getattr(target, '__name__', target)}"


def _origin(node: Node, whole: dict[str, int]) -> int | None:
    """Return the position of the operation that `node` was made from."""
    for source in node.meta.get("from_node") or ():
        if source.name in whole:
            return whole[source.name]
    return whole.get(node.name)


def _arguments(node: Node, constants: set[Node]) -> tuple[tuple[Value | None, ...], dict[str, Attribute]]:
    """Return the tensors that go in, in the order of the schema, and everything else by argument name."""
    import torch

    schema = getattr(node.target, "_schema", None)
    names = [argument.name for argument in schema.arguments] if schema else []
    named = [
        (names[index] if index < len(names) else f"argument_{index}", value)
        for index, value in enumerate(node.args)
    ]
    named += list(node.kwargs.items())
    tensors: list[Value | None] = []
    attributes: dict[str, Attribute] = {}
    for name, value in named:
        if isinstance(value, torch.fx.Node):
            tensors += _values(value, is_constant=value in constants)
        elif isinstance(value, (list, tuple)) and any(isinstance(item, torch.fx.Node) for item in value):
            for item in value:
                if isinstance(item, torch.fx.Node):
                    tensors += _values(item, is_constant=item in constants)
        else:
            attributes[name] = _attribute(value)
    return tuple(tensors), attributes


def _attribute(value: object) -> Attribute:
    if isinstance(value, (list, tuple)):
        items = [_attribute(item) for item in value[:_MAX_LISTED]]
        return tuple(item if isinstance(item, (int, float)) else str(item) for item in items)  # type: ignore[return-value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON has no name for it
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value).removeprefix("torch.")


def _values(node: Node, *, is_constant: bool) -> list[Value]:
    """Return the tensors that `node` makes; none for a size."""
    import torch

    value = node.meta.get("val")
    values = value if isinstance(value, (list, tuple)) else [value]
    return [
        Value(
            dtype=str(item.dtype).removeprefix("torch."),
            shape=_shape(item),
            is_constant=is_constant,
            is_data_dependent=_is_data_dependent(item),
        )
        for item in values
        if isinstance(item, torch.Tensor)
    ]


def _shape(tensor: object) -> Shape:
    return tuple(size if isinstance(size, int) else None for size in tensor.shape)  # type: ignore[attr-defined]


def _is_data_dependent(tensor: object) -> bool:
    from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols

    return bool(free_unbacked_symbols(tensor.shape))  # type: ignore[attr-defined]


def _inputs(exported: ExportedProgram) -> tuple[Value, ...]:
    nodes = {node.name: node for node in exported.graph.nodes if node.op == "placeholder"}
    names = exported.graph_signature.user_inputs
    return tuple(
        value
        for name in names
        if isinstance(name, str) and name in nodes
        for value in _values(nodes[name], is_constant=False)
    )

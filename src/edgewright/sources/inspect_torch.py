"""Layers of a `.pt2` program, with the shapes that torch.export recorded."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from edgewright.sources.inspection import Layer, Shape, product, times

if TYPE_CHECKING:
    from torch.export import ExportedProgram
    from torch.fx import Node

_CONVOLUTIONS = ("conv1d", "conv2d", "conv3d", "convolution", "_convolution")
_TRANSPOSED = ("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
_PRODUCTS = {
    "mm": (0, 1),
    "bmm": (0, 1),
    "matmul": (0, 1),
    "linear": (0, 1),
    "addmm": (1, 2),
    "baddbmm": (1, 2),
}
_RECURRENT = ("lstm", "gru", "rnn_tanh", "rnn_relu")
# Between a parameter and the operator that it belongs to.
_PASSING = (
    "quantize_",
    "dequantize_",
    "permute",
    "transpose",
    "t",
    "_to_copy",
    "to",
    "detach",
    "lift_fresh_copy",
)


def torch_layers(path: Path) -> tuple[list[Layer], int]:
    """Return the operators of the program, and its parameters (torch.nn.Parameter, and folded weights)."""
    from edgewright.sources.torch import load_exported

    return exported_layers(load_exported(path, title=path.name))


def exported_layers(exported: ExportedProgram) -> tuple[list[Layer], int]:
    """Return the same of a program in memory."""
    sizes = _parameter_sizes(exported)
    total = sum(sizes.values())
    layers = []
    for node in exported.graph.nodes:
        if node.op != "call_function":
            continue
        name = _operator(node)
        held = [] if _is_passing(name) else [_origin(argument) for argument in node.all_input_nodes]
        layers.append(
            Layer(
                name=node.name,
                operator=name,
                output_shape=_shape(node) or (),
                parameters=sum(sizes.pop(origin, 0) for origin in held),
                macs=_macs(node, name),
            )
        )
    return layers, total


def _parameter_sizes(exported: ExportedProgram) -> dict[str, int]:
    """Return placeholder name -> elements."""
    signature = exported.graph_signature
    targets = dict(signature.inputs_to_parameters)
    targets |= {n: t for n, t in signature.inputs_to_buffers.items() if t.startswith("_frozen_param")}
    used = {node.name for node in exported.graph.nodes if node.op == "placeholder" and node.users}
    seen: set[int] = set()
    sizes = {}
    for name, target in targets.items():
        # A folded program still carries the float weights that it no longer uses.
        if name not in used:
            continue
        tensor = exported.state_dict[target]
        # Tied weights are one tensor under two names.
        sizes[name] = 0 if id(tensor) in seen else tensor.numel()
        seen.add(id(tensor))
    return sizes


def _operator(node: Node) -> str:
    import torch

    if isinstance(node.target, torch._ops.OpOverload):
        # aten.conv2d.default: the namespace and the overload say nothing to a reader.
        return str(node.target).split(".")[1]
    return str(getattr(node.target, "__name__", node.target))


def _is_passing(name: str) -> bool:
    return name in _PASSING or name.startswith(("quantize_", "dequantize_"))


def _origin(node: Node) -> str:
    while node.op == "call_function" and _is_passing(_operator(node)) and node.all_input_nodes:
        node = node.all_input_nodes[0]
    return str(node.name)


def _shape(node: Node) -> Shape | None:
    """Return the shape of a node's (first) result; dynamic dimensions are None."""
    dims = _dims(node)
    return None if dims is None else tuple(dim if isinstance(dim, int) else None for dim in dims)


def _dims(node: object) -> tuple[object, ...] | None:
    import torch

    value = node.meta.get("val") if isinstance(node, torch.fx.Node) else None
    if isinstance(value, (list, tuple)) and value:
        value = value[0]
    return tuple(value.shape) if isinstance(value, torch.Tensor) else None


def _sizes(node: object) -> Shape | None:
    """Return the shape with every symbol (the batch) set to 1."""
    import torch

    dims = _dims(node)
    if dims is None:
        return None
    known: list[int | None] = []
    for dim in dims:
        if isinstance(dim, torch.SymInt):
            value = dim.node.expr.subs(dict.fromkeys(dim.node.expr.free_symbols, 1))
            known.append(int(value) if value.is_integer and math.isfinite(float(value)) else None)
        else:
            known.append(int(str(dim)))
    return tuple(known)


def _macs(node: Node, name: str) -> int | None:
    output = product(_sizes(node))
    if name in _CONVOLUTIONS or name in _TRANSPOSED:
        weight = _sizes(node.args[1])
        is_transposed = name in _TRANSPOSED or (name.endswith("convolution") and bool(node.args[6]))
        data = product(_sizes(node.args[0])) if is_transposed else output
        return times(data, product(weight[1:]) if weight else None)
    if name in _PRODUCTS:
        left = _sizes(node.args[_PRODUCTS[name][0]])
        return times(output, left[-1] if left else None)
    if name == "scaled_dot_product_attention":
        # Two products: query x key over the head size, and scores x value over the keys.
        query, key, values = _sizes(node.args[0]), _sizes(node.args[1]), _sizes(node.args[2])
        if not query or not key or not values:
            return None
        per_row = times(key[-2], (query[-1] or 0) + (values[-1] or 0))
        return times(product(query[:-1]), per_row)
    if name in _RECURRENT:
        # lstm(input, hidden, weights, ...) and gru(input, hidden, weights, ...)
        series, names = _sizes(node.args[0]), node.args[2]
        if not series or not isinstance(names, (list, tuple)):
            return None
        matrices = [shape for shape in (_sizes(item) for item in names) if shape and len(shape) == 2]
        return times(product(series[:-1]), sum(product(shape) or 0 for shape in matrices))
    return 0

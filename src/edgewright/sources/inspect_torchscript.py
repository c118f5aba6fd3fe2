"""Layers of a TorchScript archive: its graph is read and shapes are propagated through it; forward does not run."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgewright.backends import vendor
from edgewright.backends.torchscript_session import load_script
from edgewright.core.errors import IntegrityError, first_line
from edgewright.core.files import sha256_of
from edgewright.core.tensors import TensorSpec
from edgewright.sources.inspection import Inspection, Layer, Shape, product, summary, times
from edgewright.sources.torchscript_archive import write_safe_copy

if TYPE_CHECKING:
    import torch

_CONVOLUTIONS = ("conv1d", "conv2d", "conv3d", "convolution", "_convolution")
_PRODUCTS = {"mm": 0, "bmm": 0, "matmul": 0, "linear": 0, "addmm": 1, "baddbmm": 1}
_RECURRENT = ("lstm", "gru", "rnn_tanh", "rnn_relu")
_MAX_DEPTH = 64


def torchscript_layers(path: Path, inputs: Sequence[TensorSpec]) -> tuple[list[Layer], int]:
    """Return the operators of a checked archive, and its parameters.

    Args:
        inputs: their shapes are propagated through the graph, a dynamic batch as 1.
    """
    return _described(load_script(path), inputs)


def inspect_ptl(path: Path) -> Inspection:
    """Return the description of a `.ptl` file, from the code that it carries beside the bytecode.

    Raises:
        FormatMismatchError, IntegrityError: see `sources.torchscript_archive`; or it carries no code.
    """
    return _without_shapes(path, "ptl")


def inspect_torchscript(path: Path) -> Inspection:
    """Return the description of an archive of torch.jit.save, without the shapes that only the user can give.

    Raises:
        FormatMismatchError, IntegrityError: see `sources.torchscript_archive`.
    """
    return _without_shapes(path, "torchscript")


def _without_shapes(path: Path, model_format: str) -> Inspection:
    with tempfile.TemporaryDirectory(prefix="edgewright-") as folder:
        copy = Path(folder) / "model.torchscript"
        write_safe_copy(path, copy)
        module = load_script(copy)
        layers, parameters = _described(module, ())
        schema = module._c._get_method("forward").schema
    returned = [leaf for value in schema.returns for leaf in _leaves(value.type)]
    names = ["output"] if len(returned) == 1 else [f"output_{place}" for place in range(len(returned))]
    given = [(str(value.name).split(".")[0], value.type) for value in schema.arguments[1:]]
    return summary(
        name=path.name,
        model_format=model_format,
        sha256=sha256_of(path),
        size_bytes=path.stat().st_size,
        inputs=[TensorSpec(name=name, shape=(), dtype=_dtype(kind)) for name, kind in given],
        outputs=[
            TensorSpec(name=name, shape=(), dtype=_dtype(kind))
            for name, kind in zip(names, returned, strict=True)
        ],
        layers=layers,
        parameters=parameters,
        precision="fp32",
        notes=(
            "TorchScript holds neither shapes nor types of tensors: those of inputs, outputs and layers are not known"
            + ("" if model_format == "ptl" else "; give --input-shape for them"),
        ),
    )


def _leaves(kind: torch._C.JitType) -> list[torch._C.JitType]:
    """Return the types inside a tuple, at any depth; else the type itself."""
    if kind.kind() != "TupleType":
        return [kind]
    return [leaf for inner in kind.elements() for leaf in _leaves(inner)]  # type: ignore[attr-defined]


def _dtype(kind: torch._C.JitType) -> str:
    return {"IntType": "int64", "BoolType": "bool", "FloatType": "float64"}.get(kind.kind(), "float32")


def _described(module: torch.jit.ScriptModule, inputs: Sequence[TensorSpec]) -> tuple[list[Layer], int]:
    import torch

    parameters = sum(tensor.numel() for tensor in module.parameters())
    try:
        with vendor.quiet():
            frozen = torch.jit.freeze(module)
            graph = frozen.graph.copy()
            torch._C._jit_pass_inline(graph)
            if inputs:
                values = list(graph.inputs())[-len(inputs) :]
                for value, spec in zip(values, inputs, strict=True):
                    example = torch.zeros(vendor.static_shape(spec), dtype=getattr(torch, spec.dtype))
                    value.inferTypeFrom(example)
                torch._C._jit_pass_propagate_shapes_on_graph(graph)
    except Exception as err:
        raise IntegrityError(f"the graph of the archive cannot be read: {first_line(err)}.") from err
    layers = []
    held = 0
    for number, node in enumerate(_nodes(graph, 0)):
        own = _own_parameters(node)
        held += own
        layers.append(_layer(node, number, own))
    # What freezing made a constant of the graph is no parameter of the module any more.
    return layers, max(parameters, held)


def _nodes(block: torch._C.Graph | torch._C.Block, depth: int) -> Iterator[torch._C.Node]:
    if depth > _MAX_DEPTH:
        raise IntegrityError(f"the code nests blocks more than {_MAX_DEPTH} deep; it is not read.")
    for node in block.nodes():
        if node.kind().startswith("aten::"):
            yield node
        for inner in node.blocks():
            yield from _nodes(inner, depth + 1)


def _layer(node: torch._C.Node, number: int, own: int) -> Layer:
    name = node.kind().removeprefix("aten::").rstrip("_")
    output = next(iter(node.outputs()), None)
    shape = _shape(output)
    return Layer(
        name=f"{number}:{name}",
        operator=name,
        output_shape=shape or (),
        parameters=own,
        macs=_macs(node, name, shape),
    )


def _own_parameters(node: torch._C.Node) -> int:
    """Return the elements of the constants that the node reads, which freezing made of parameters."""
    total = 0
    for value in node.inputs():
        made = value.node()
        is_constant = made.kind() == "prim::Constant" and made.hasAttribute("value")
        if is_constant and value.type().kind() == "TensorType" and made.kindOf("value") == "t":
            tensor = made.t("value")
            total += tensor.numel() if tensor.is_floating_point() and tensor.ndim else 0
    return total


def _shape(value: torch._C.Value | None) -> Shape | None:
    if value is None or value.type().kind() != "TensorType":
        return None
    made = value.node()
    if made.kind() == "prim::Constant" and made.hasAttribute("value"):
        return tuple(made.t("value").shape)
    sizes = value.type().sizes()  # type: ignore[attr-defined]
    return None if sizes is None else tuple(sizes)


def _macs(node: torch._C.Node, name: str, output: Shape | None) -> int | None:
    given = list(node.inputs())
    if name in _CONVOLUTIONS:
        weight = _shape(given[1])
        is_transposed = name == "_convolution" and _constant(given[6])
        data = product(_shape(given[0]) if is_transposed else output)
        return times(data, product(weight[1:]) if weight else None)
    if name in _PRODUCTS:
        left = _shape(given[_PRODUCTS[name]])
        return times(product(output), left[-1] if left else None)
    if name in _RECURRENT or name == "scaled_dot_product_attention":
        return None
    return 0


def _constant(value: torch._C.Value) -> bool:
    return bool(value.toIValue())

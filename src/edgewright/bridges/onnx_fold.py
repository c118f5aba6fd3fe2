"""Nodes computed at conversion: shapes of tensors, and operators whose inputs are all known."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from edgewright.bridges import onnx_values
from edgewright.bridges.onnx_ops import MAX_ELEMENTS, Handler, OnnxNode, handler_of
from edgewright.core.errors import ConversionError, EdgewrightError
from edgewright.core.tensors import Array

if TYPE_CHECKING:
    import torch

# The bound is on what one small node can ask for; larger results come from nodes whose own inputs were that large.
_GROWING = ("ConstantOfShape", "Expand", "Tile", "Range", "OneHot", "Pad", "EyeLike", "Resize", "Upsample")
_LOOKS = (
    "__get__",
    "size",
    "dim",
    "numel",
    "is_floating_point",
    "is_complex",
    "stride",
    "__len__",
    "ndimension",
)
RANDOM = (
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
    "Bernoulli",
    "Multinomial",
)


def shape_of(node: OnnxNode, shapes: Sequence[tuple[int, ...] | None]) -> Array | None:
    """Return what Shape and Size give, which is known whatever the values are; None for other operators."""
    if node.domain != "" or not shapes or shapes[0] is None:
        return None
    if node.op_type == "Size":
        return np.asarray(int(np.prod(shapes[0], dtype=np.int64)), dtype=np.int64)
    if node.op_type == "Shape":
        rank = len(shapes[0])
        start, end = node.integer("start", 0), node.integer("end", rank)
        return np.asarray(shapes[0][_clamped(start, rank) : _clamped(end, rank)], dtype=np.int64)
    return None


def _clamped(index: int, rank: int) -> int:
    return min(max(index + rank if index < 0 else index, 0), rank)


def call(
    handler: Handler, node: OnnxNode, arguments: Sequence[torch.Tensor | None]
) -> tuple[torch.Tensor, ...]:
    """Return the outputs of a handler.

    Raises:
        ConversionError: it refused, or torch did; the message names the operator.
    """
    import torch

    try:
        results = handler(node, *arguments)
    except EdgewrightError:
        raise
    except Exception as err:  # torch raises RuntimeError, IndexError, TypeError and its own classes
        text = next((line.strip() for line in str(err).splitlines() if line.strip()), type(err).__name__)
        raise node.refusal(f"torch cannot compute it: {text[:200].rstrip('.')}") from err
    return (results,) if isinstance(results, torch.Tensor) else tuple(results)


@contextmanager
def watched() -> Iterator[set[int]]:
    """Collect the ids of the tensors that torch functions are called with; looking at a shape does not count."""
    import torch
    from torch.overrides import TorchFunctionMode
    from torch.utils import _pytree

    read: set[int] = set()

    class Watch(TorchFunctionMode):
        def __torch_function__(
            self,
            func: Callable[..., object],
            types: object,
            args: tuple[object, ...] = (),
            kwargs: dict[str, object] | None = None,
        ) -> object:
            if getattr(func, "__name__", "") not in _LOOKS:
                leaves = _pytree.tree_leaves((args, kwargs))
                read.update(id(leaf) for leaf in leaves if isinstance(leaf, torch.Tensor))
            return func(*args, **(kwargs or {}))

    with Watch():
        yield read


def fold(node: OnnxNode) -> list[Array]:
    """Return the outputs of a node all of whose inputs are known.

    Raises:
        ConversionError: nothing here can compute it.
    """
    import torch

    if node.op_type in RANDOM:
        raise node.refusal("it is random; a converted model must give the same output each time")
    handler = handler_of(node.domain, node.op_type)
    refusal = node.refusal("it has no conversion")
    is_numeric = all(value is None or value.dtype.kind in "biuf" for value in node.constants)
    if handler is not None and is_numeric:
        arguments = [None if value is None else onnx_values.tensor_of(value) for value in node.constants]
        try:
            with torch.no_grad():
                return [value.contiguous().numpy() for value in call(handler, node, arguments)]
        except ConversionError as err:
            refusal = err
    if node.op_type in _GROWING:
        raise refusal
    return _reference(node, refusal)


def _reference(node: OnnxNode, refusal: ConversionError) -> list[Array]:
    """Compute a node with ONNX's own reference implementation, for what no handler computes."""
    import onnx
    from onnx.reference import ReferenceEvaluator

    if node.domain not in ("", "ai.onnx.ml"):
        raise refusal
    names = [f"i{index}" if value is not None else "" for index, value in enumerate(node.constants)]
    outputs = [f"o{index}" for index in range(max(node.n_outputs, 1))]
    try:
        proto = onnx.helper.make_node(node.op_type, names, outputs, domain=node.domain)
        for name, value in node.attributes.items():
            plain = onnx.numpy_helper.from_array(value) if isinstance(value, np.ndarray) else value
            proto.attribute.append(onnx.helper.make_attribute(name, plain))
        feeds = {name: value for name, value in zip(names, node.constants, strict=True) if name}
        with np.errstate(all="ignore"):
            graph = onnx.helper.make_graph(
                [proto],
                "folded",
                [onnx.helper.make_value_info(name, onnx.TypeProto()) for name in feeds],
                [onnx.helper.make_value_info(name, onnx.TypeProto()) for name in outputs],
            )
            model = onnx.helper.make_model(
                graph, opset_imports=[onnx.helper.make_opsetid(node.domain, node.opset)]
            )
            results = ReferenceEvaluator(model).run(None, feeds)
    except Exception as err:  # the reference raises whatever its numpy code does
        raise refusal from err
    arrays = [onnx_values.carried(np.asarray(value)) for value in results]
    if any(not isinstance(value, np.ndarray | np.generic) for value in results) or any(
        value.size > MAX_ELEMENTS for value in arrays
    ):
        raise refusal
    return arrays

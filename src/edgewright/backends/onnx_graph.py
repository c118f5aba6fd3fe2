"""Work on ONNX graphs: signature, clean and deterministic files, fp16 and int8 weights."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgewright.backends.vendor import quiet
from edgewright.core.errors import ConversionError, first_line
from edgewright.core.files import write_aside
from edgewright.core.tensors import Array, Layout, TensorSpec

if TYPE_CHECKING:
    from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto

# Below this a float weight is not worth a scale per channel: the file would hardly shrink.
MIN_QUANTIZED_ELEMENTS = 64
PER_AXIS_OPSET = 13
FLOAT16_MAX = 65504.0
_TO_NHWC = (0, 2, 3, 1)
_TO_NCHW = (0, 3, 1, 2)


def load(path: Path) -> ModelProto:
    """Return the model in the file at `path`, with external data.

    Raises:
        ConversionError: it is not an ONNX file.
    """
    import onnx

    try:
        return onnx.load(path)
    except Exception as err:
        raise ConversionError(
            f"{path.name} cannot be read as ONNX: {first_line(err)}. Export it again."
        ) from err


def refuse_misread(model: ModelProto, name: str) -> None:
    """Check that `model` holds nothing that ONNX Runtime is known to compute otherwise than the standard says.

    The reference of an ONNX source is ONNX Runtime too, so no comparison would show it. What is refused here was found
    by the node tests of the onnx package (benchmarks/onnx_conformance.py), with onnxruntime 1.31.

    Raises:
        ConversionError: with the operators by name.
    """
    constants = {tensor.name: tensor for graph in _graphs(model.graph) for tensor in graph.initializer}
    found = []
    for graph in _graphs(model.graph):
        for node in graph.node:
            third = node.input[2] if len(node.input) > 2 else ""
            if node.op_type == "MaxUnpool" and third:
                found.append(
                    f"MaxUnpool {node.name or node.output[0]!r} with an output_shape, whose places are mistaken"
                )
            is_off = third in constants and not any(numpy_of(constants[third]).ravel())
            if node.op_type == "Dropout" and third and not is_off:
                found.append(f"Dropout {node.name or node.output[0]!r} in its training mode, which is random")
    if found:
        raise ConversionError(
            f"ONNX Runtime gives other numbers for {name} than ONNX's standard: {'; '.join(found)}. Export the model "
            "for inference, without these operators."
        )


def numpy_of(tensor: TensorProto) -> Array:
    """Return the values of an initialiser."""
    from onnx import numpy_helper

    values: Array = numpy_helper.to_array(tensor)
    return values


def save(model: ModelProto, path: Path) -> None:
    """Check `model` and write it to `path`; the same model always gives the same bytes.

    Raises:
        ConversionError: the ONNX checker finds the model invalid.
    """
    import onnx

    strip(model)
    sort_nodes(model.graph)
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as err:
        raise ConversionError(f"{path.name} is not valid ONNX after conversion: {first_line(err)}") from err
    with write_aside(path) as aside:
        aside.write_bytes(model.SerializeToString(deterministic=True))


def strip(model: ModelProto) -> None:
    """Remove notes of the exporter (stack traces with paths), and give dynamic dimensions plain names."""
    model.doc_string = ""
    del model.metadata_props[:]
    for graph in _graphs(model.graph):
        graph.doc_string = ""
        del graph.metadata_props[:]
        for part in (*graph.node, *graph.input, *graph.output, *graph.initializer):
            part.doc_string = ""
            del part.metadata_props[:]
        del graph.value_info[:]
    symbols: dict[str, str] = {}
    for value in (*model.graph.input, *model.graph.output):
        for position, dim in enumerate(value.type.tensor_type.shape.dim):
            if dim.dim_param:
                fresh = "batch" if position == 0 and "batch" not in symbols.values() else f"d{len(symbols)}"
                dim.dim_param = symbols.setdefault(dim.dim_param, fresh)


def sort_nodes(graph: GraphProto) -> None:
    """Bring the nodes into an order in which each comes after what it reads; otherwise the order is kept.

    What inner graphs read from outside counts as read by the node that holds them.
    """
    made_by = {name: position for position, node in enumerate(graph.node) for name in node.output if name}
    readers: list[list[int]] = [[] for _ in graph.node]
    waits = [0] * len(graph.node)
    for position, node in enumerate(graph.node):
        for source in {made_by[name] for name in _reads(node) if name in made_by} - {position}:
            readers[source].append(position)
            waits[position] += 1
    ready = [position for position, count in enumerate(waits) if count == 0]
    order = []
    while ready:
        position = heapq.heappop(ready)
        order.append(position)
        for reader in readers[position]:
            waits[reader] -= 1
            if waits[reader] == 0:
                heapq.heappush(ready, reader)
    assert len(order) == len(graph.node), "the graph has a cycle"
    nodes = [graph.node[position] for position in order]
    del graph.node[:]
    graph.node.extend(nodes)


def _reads(node: NodeProto) -> set[str]:
    names = set(node.input)
    for attribute in node.attribute:
        for inner in _graphs_of(attribute):
            for inner_node in inner.node:
                names |= _reads(inner_node)
            names |= {value.name for value in inner.output}
    return names


def drop_listed_initialisers(model: ModelProto) -> int:
    """Take initialisers off the list of inputs, where old files have them, and return how many: tools see constants."""
    held = {tensor.name for tensor in model.graph.initializer}
    kept = [value for value in model.graph.input if value.name not in held]
    dropped = len(model.graph.input) - len(kept)
    del model.graph.input[:]
    model.graph.input.extend(kept)
    return dropped


def signature(model: ModelProto) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Return the inputs and outputs in file order; initialisers that are listed as inputs are none."""
    held = {tensor.name for tensor in model.graph.initializer}
    inputs = tuple(_spec(value) for value in model.graph.input if value.name not in held)
    return inputs, tuple(_spec(value) for value in model.graph.output)


def _spec(value: ValueInfoProto) -> TensorSpec:
    from onnx import helper

    tensor = value.type.tensor_type
    shape = tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim)
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    return TensorSpec(name=value.name, shape=shape, dtype="string" if dtype.hasobject else str(dtype))


def _graphs(graph: GraphProto) -> Iterator[GraphProto]:
    """Yield `graph` and every graph inside the nodes of it."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in _graphs_of(attribute):
                yield from _graphs(inner)


def _graphs_of(attribute: AttributeProto) -> list[GraphProto]:
    from onnx import AttributeProto

    if attribute.type == AttributeProto.GRAPH:
        return [attribute.g]
    return list(attribute.graphs)


def with_opset(model: ModelProto, at_least: int) -> ModelProto:
    """Return `model` in opset `at_least` or newer.

    Raises:
        ConversionError: the version converter cannot bring it there.
    """
    from onnx import version_converter

    have = max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=1)
    if have >= at_least:
        return model
    try:
        return version_converter.convert_version(model, at_least)
    except Exception as err:
        raise ConversionError(
            f"the model has opset {have}, but {at_least} is needed and cannot be reached: {first_line(err)}. "
            "Export it again with a newer opset."
        ) from err


def with_layout(model: ModelProto, moved: dict[str, Layout]) -> None:
    """Put a Transpose at each rank-4 input and output of `moved` (name -> layout that it shall have)."""
    from onnx import helper

    graph = model.graph
    for value in graph.input:
        if value.name not in moved:
            continue
        inner = f"{value.name}_inner"
        _rename_uses(graph, value.name, inner)
        axes = _TO_NCHW if moved[value.name] == "nhwc" else _TO_NHWC
        graph.node.insert(0, helper.make_node("Transpose", [value.name], [inner], name=inner, perm=axes))
        _permute_dims(value, moved[value.name])
    for value in graph.output:
        if value.name not in moved:
            continue
        inner = f"{value.name}_inner"
        _rename_uses(graph, value.name, inner)
        for node in graph.node:
            node.output[:] = [inner if name == value.name else name for name in node.output]
        axes = _TO_NHWC if moved[value.name] == "nhwc" else _TO_NCHW
        graph.node.append(helper.make_node("Transpose", [inner], [value.name], name=inner, perm=axes))
        _permute_dims(value, moved[value.name])


def _rename_uses(graph: GraphProto, old: str, new: str) -> None:
    for inner in _graphs(graph):
        for node in inner.node:
            node.input[:] = [new if name == old else name for name in node.input]


def _permute_dims(value: ValueInfoProto, layout: Layout) -> None:
    dims = list(value.type.tensor_type.shape.dim)
    axes = _TO_NHWC if layout == "nhwc" else _TO_NCHW
    kept = [dims[axis].SerializeToString() for axis in axes]
    for dim, content in zip(value.type.tensor_type.shape.dim, kept, strict=True):
        dim.ParseFromString(content)


def to_float16(model: ModelProto) -> ModelProto:
    """Return `model` with float16 weights and compute; inputs and outputs stay float32.

    Raises:
        ConversionError: a weight is beyond the range of float16 (65504), or the converter failed.
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16

    for name, value in _float_weights(model):
        largest = float(np.abs(value[np.isfinite(value)]).max(initial=0.0))
        if largest > FLOAT16_MAX:
            raise ConversionError(
                f"weight {name!r} holds {largest:.6g}, but float16 ends at {FLOAT16_MAX:g}. "
                "Use fp32, or scale the layer."
            )
    try:
        with quiet():
            made: ModelProto = convert_float_to_float16(model, keep_io_types=True)
    except Exception as err:
        raise ConversionError(f"the fp16 converter of ONNX Runtime failed: {first_line(err)}") from err
    return made


def _float_weights(model: ModelProto) -> Iterator[tuple[str, Array]]:
    from onnx import TensorProto, numpy_helper

    for graph in _graphs(model.graph):
        for tensor in graph.initializer:
            if tensor.data_type == TensorProto.FLOAT:
                yield tensor.name, numpy_helper.to_array(tensor)
        for node in graph.node:
            if node.op_type == "Constant":
                for attribute in node.attribute:
                    if attribute.name == "value" and attribute.t.data_type == TensorProto.FLOAT:
                        yield node.output[0], numpy_helper.to_array(attribute.t)


def _weight_axis(node: NodeProto, position: int, rank: int) -> int | None:
    """Return the output-channel axis of weight input `position` of `node`, or None if it is none."""
    attributes = {attribute.name: attribute for attribute in node.attribute}
    if node.op_type == "Conv" and position == 1:
        return 0
    if node.op_type == "ConvTranspose" and position == 1:
        return 1
    if node.op_type == "Gemm" and position == 1:
        is_transposed = "transB" in attributes and attributes["transB"].i == 1
        return 0 if is_transposed else 1
    if node.op_type == "MatMul" and position == 1 and rank >= 2:
        return rank - 1
    if node.op_type in ("LSTM", "GRU", "RNN") and position in (1, 2):
        return 1
    if node.op_type == "Gather" and position == 0 and rank == 2:
        return 0
    return None


def quantize_weights(model: ModelProto) -> ModelProto:
    """Return `model` with int8 weights, each followed by a DequantizeLinear; activations stay float32.

    Symmetric, one scale per output channel: scale = max|w| / 127, w8 = round(w / scale).

    Raises:
        ConversionError: there is no weight to quantize.
    """
    from onnx import TensorProto, helper, numpy_helper

    model = with_opset(model, PER_AXIS_OPSET)
    count = 0
    for graph in _graphs(model.graph):
        _constants_to_initialisers(graph)
        held = {tensor.name: tensor for tensor in graph.initializer}
        axes: dict[str, set[int | None]] = {}
        for inner in _graphs(graph):
            for node in inner.node:
                for position, name in enumerate(node.input):
                    tensor = held.get(name)
                    if tensor is not None:
                        axes.setdefault(name, set()).add(_weight_axis(node, position, len(tensor.dims)))
        added = []
        for name, used in axes.items():
            tensor = held[name]
            axis = next(iter(used))
            elements = int(np.prod(tensor.dims))
            if tensor.data_type != TensorProto.FLOAT or len(used) != 1 or axis is None:
                continue
            if elements < MIN_QUANTIZED_ELEMENTS or elements < 2 * tensor.dims[axis]:
                continue
            values = numpy_helper.to_array(tensor)
            if not np.isfinite(values).all():
                raise ConversionError(f"weight {name!r} holds NaN or infinity. Repair the model first.")
            others = tuple(other for other in range(values.ndim) if other != axis)
            scale = (np.abs(values).max(axis=others) / np.float32(127)).astype(np.float32)
            scale = np.where(scale == 0, np.float32(1), scale).astype(np.float32)
            shape = [-1 if other == axis else 1 for other in range(values.ndim)]
            steps = np.clip(np.rint(values / scale.reshape(shape)), -127, 127).astype(np.int8)
            quantized, scales = f"{name}_int8", f"{name}_scale"
            tensor.CopyFrom(numpy_helper.from_array(steps, quantized))
            graph.initializer.append(numpy_helper.from_array(scale, scales))
            added.append(
                helper.make_node(
                    "DequantizeLinear", [quantized, scales], [name], name=f"{name}_dequantize", axis=axis
                )
            )
            count += 1
        nodes = [*added, *graph.node]
        del graph.node[:]
        graph.node.extend(nodes)
    if count == 0:
        raise ConversionError(
            "the model has no float weight of a convolution, linear or recurrent layer to quantize. Use fp32."
        )
    return model


def _constants_to_initialisers(graph: GraphProto) -> None:
    """Turn Constant nodes that hold a tensor into initialisers, as the quantizer looks for weights there."""
    kept = []
    for node in graph.node:
        value = next((a for a in node.attribute if a.name == "value"), None)
        if node.op_type == "Constant" and value is not None and value.HasField("t"):
            value.t.name = node.output[0]
            graph.initializer.append(value.t)
        else:
            kept.append(node)
    del graph.node[:]
    graph.node.extend(kept)

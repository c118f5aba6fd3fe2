"""ONNX tensors, element types and attributes as numpy, torch and Python values.

float16 and bfloat16 are carried in float32, which holds their values exactly; 2 and 4 bit integers in 8 bits. float64
is carried in float32 too where it depends on the model's inputs: no runtime of a device computes in it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from edgewright.bridges.onnx_ops import MAX_ELEMENTS, torch_dtype
from edgewright.core.errors import ConversionError
from edgewright.core.tensors import Array

if TYPE_CHECKING:
    import onnx
    import torch

    from edgewright.bridges.onnx_ops import Attribute

FLOAT, FLOAT16, DOUBLE, BFLOAT16, STRING = 1, 10, 11, 16, 8  # numbers of onnx.TensorProto.DataType
CARRIED_IN_FLOAT = (FLOAT16, BFLOAT16, DOUBLE)
_CARRIED = {
    "bfloat16": "float32",
    "float16": "float32",
    "int4": "int8",
    "uint4": "uint8",
    "int2": "int8",
    "uint2": "uint8",
}


def is_half(element_type: int) -> bool:
    """Return whether values of this type have fewer digits than float32."""
    return element_type in (FLOAT16, BFLOAT16)


def array_of(tensor: onnx.TensorProto) -> Array:
    """Return the value of a tensor in the file, in the dtype that carries it.

    Raises:
        ConversionError: the tensor is too large, or its bytes do not fit its shape.
    """
    from onnx import numpy_helper

    if math.prod(tensor.dims) > MAX_ELEMENTS or any(size < 0 for size in tensor.dims):
        raise ConversionError(
            f"tensor {tensor.name!r} has shape {list(tensor.dims)}; at most {MAX_ELEMENTS} elements are read."
        )
    try:
        value = numpy_helper.to_array(tensor)
    except Exception as err:  # ValueError, TypeError and others of numpy
        raise ConversionError(
            f"tensor {tensor.name!r} cannot be read: {err}. Export the model again."
        ) from err
    return carried(value)


def carried(value: Array) -> Array:
    """Return `value` in the dtype that carries it here."""
    dtype = _CARRIED.get(value.dtype.name)
    return value if dtype is None else value.astype(dtype)


def dense_of(sparse: onnx.SparseTensorProto) -> Array:
    """Return a sparse tensor of the file as a dense one."""
    shape = tuple(sparse.dims)
    if math.prod(shape) > MAX_ELEMENTS or any(size < 0 for size in shape):
        raise ConversionError(
            f"sparse tensor {sparse.values.name!r} has shape {list(shape)}; that is not read."
        )
    values, indices = array_of(sparse.values), array_of(sparse.indices).astype(np.int64)
    dense: Array = np.zeros(shape, dtype=values.dtype)
    places = indices if indices.ndim == 1 else np.ravel_multi_index(tuple(indices.T), shape)
    dense.reshape(-1)[places] = values
    return dense


def element_type_of(value: torch.Tensor | Array) -> int:
    """Return the number of the ONNX element type that a value's own dtype is, 0 if there is none."""
    import onnx

    name = str(value.dtype).removeprefix("torch.")
    if name in ("object",) or name.startswith("<U"):
        return STRING
    names = {"float32": "FLOAT", "float64": "DOUBLE"}
    return int(dict(onnx.TensorProto.DataType.items()).get(names.get(name, name.upper()), 0))


def carrier_of(element_type: int) -> torch.dtype:
    """Return the torch dtype that carries an ONNX element type.

    Raises:
        ConversionError: none does.
    """
    import onnx

    try:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(element_type)
    except (KeyError, ValueError, TypeError) as err:
        raise ConversionError(f"the element type {element_type} is unknown.") from err
    if element_type == STRING or dtype.name.startswith("float8") or dtype.name.startswith("float4"):
        names = {number: name for name, number in onnx.TensorProto.DataType.items()}
        raise ConversionError(f"tensors of {names.get(element_type, element_type)} are not converted.")
    return torch_dtype(np.dtype(_CARRIED.get(dtype.name, dtype.name)))


def tensor_of(value: Array) -> torch.Tensor:
    """Return a torch tensor of an array's own dtype; it shares no memory with it."""
    import torch

    if value.dtype.kind not in "biuf":
        raise ConversionError(f"a tensor of {value.dtype.name} is computed with; only numbers and bool are.")
    return torch.from_numpy(np.array(value, order="C"))


def widened(value: torch.Tensor) -> torch.Tensor:
    """Return all floats as float32, all others as they are."""
    import torch

    is_other = value.dtype.is_floating_point and value.dtype is not torch.float32
    return value.float() if is_other else value


def element_types(graph: onnx.GraphProto) -> dict[str, int]:
    """Return the ONNX element type of every value whose type the graph tells."""
    return {
        value.name: value.type.tensor_type.elem_type
        for value in (*graph.input, *graph.value_info, *graph.output)
        if value.type.WhichOneof("value") == "tensor_type"
    }


def attribute_value(attribute: onnx.AttributeProto) -> Attribute:
    """Return an attribute as a Python value, a numpy array or a graph.

    Raises:
        ConversionError: it is of a kind that no operator of numbers has.
    """
    import onnx

    kinds = onnx.AttributeProto
    kind = attribute.type
    if kind == kinds.INT:
        return int(attribute.i)
    if kind == kinds.FLOAT:
        return float(attribute.f)
    if kind == kinds.STRING:
        return attribute.s.decode("utf-8", "replace")
    if kind == kinds.TENSOR:
        return array_of(attribute.t)
    if kind == kinds.SPARSE_TENSOR:
        return dense_of(attribute.sparse_tensor)
    if kind == kinds.GRAPH:
        return attribute.g
    if kind == kinds.INTS:
        return tuple(int(value) for value in attribute.ints)
    if kind == kinds.FLOATS:
        return tuple(float(value) for value in attribute.floats)
    if kind == kinds.STRINGS:
        return tuple(text.decode("utf-8", "replace") for text in attribute.strings)
    raise ConversionError(
        f"attribute {attribute.name!r} is of kind {kinds.AttributeType.Name(kind)}; that is not read."
    )

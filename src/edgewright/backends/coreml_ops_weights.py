"""Core ML's constexpr operators: compressed weights, turned into dense ones once, when a program is opened.

Formulas are those of the MIL operator documentation; an operator of iOS 16 takes flat bytes and a shape, its
namesake of iOS 18 takes tensors of small integers.
"""

from __future__ import annotations

import numpy as np

from edgewright.backends.coreml_call import Call, Floats, Operator, axis_of, computable, limit
from edgewright.backends.coreml_records import unpack_bits
from edgewright.core.tensors import Array

_PALETTE_TYPES = {2: "uint1", 4: "uint2", 8: "uint3", 16: "uint4", 64: "uint6", 256: "uint8"}


def _affine_dequantize(call: Call) -> Array:
    """scale * (data - zero_point), both scalars or vectors along `axis`."""
    data = call.array("quantized_data")
    axis = axis_of(call.integer("axis"), data.ndim)
    shape = [-1 if place == axis else 1 for place in range(data.ndim)]

    def along(values: Floats) -> Floats:
        return values.reshape(shape) if values.ndim else values

    centred = data.astype(np.float32) - along(call.array("zero_point").astype(np.float32))
    return np.asarray(centred * along(call.floats("scale")))


def _blocks(values: Floats, shape: tuple[int, ...], call: Call) -> Floats:
    """Return one value per block repeated over the elements of its block, so that it has `shape`."""
    if values.ndim != len(shape):
        raise call.refuse(f"has blocks {list(values.shape)} for data {list(shape)}")
    for axis, (count, size) in enumerate(zip(values.shape, shape, strict=True)):
        if count == 0 or size % count:
            raise call.refuse(f"has blocks {list(values.shape)} for data {list(shape)}")
        if count != size:
            values = np.repeat(values, size // count, axis=axis)
    return values


def _blockwise_shift_scale(call: Call) -> Array:
    """scale * (data - offset), one scale and offset per block."""
    data = call.array("data")
    centred = computable(data).astype(np.float32)
    if call.has("offset"):
        centred = centred - _blocks(call.array("offset").astype(np.float32), data.shape, call)
    return np.asarray(centred * _blocks(call.floats("scale"), data.shape, call))


def _looked_up(indices: Array, palettes: Array, call: Call) -> Array:
    """Return the palette entries of `indices`; `palettes` is [*blocks, entries, length of a vector]."""
    if palettes.ndim != indices.ndim + 2:
        raise call.refuse(f"has a table {list(palettes.shape)} for indices {list(indices.shape)}")
    entries, length = palettes.shape[-2:]
    if indices.size and int(indices.max()) >= entries:
        raise call.refuse(f"has the index {int(indices.max())} for a table of {entries} entries")
    # The number of the block that each element lies in, along each axis.
    places = []
    for axis, (size, count) in enumerate(zip(indices.shape, palettes.shape, strict=False)):
        if count == 0 or size % count:
            raise call.refuse(f"has a table {list(palettes.shape)} for indices {list(indices.shape)}")
        numbers = np.arange(size) // (size // count) if size else np.arange(0)
        places.append(numbers.reshape([-1 if place == axis else 1 for place in range(indices.ndim)]))
    limit([*indices.shape, length])
    vectors = palettes[(*places, indices.astype(np.int64))]
    if length == 1 and not call.has("vector_axis"):
        return np.asarray(vectors[..., 0])
    axis = axis_of(call.integer("vector_axis"), indices.ndim)
    shape = [size * (length if place == axis else 1) for place, size in enumerate(indices.shape)]
    return np.moveaxis(vectors, -1, axis + 1).reshape(shape)


def _lut_to_dense(call: Call) -> Array:
    indices, palettes = call.array("indices"), call.array("lut")
    if not call.has("shape"):
        return _looked_up(indices, palettes, call)
    shape = limit(call.integers("shape"))
    dtype = _PALETTE_TYPES.get(palettes.size)
    if dtype is None or palettes.ndim != 1:
        raise call.refuse(f"has a table of {palettes.size} entries")
    count = int(np.prod(shape, dtype=np.int64))
    numbers = indices.reshape(-1)[:count] if dtype == "uint8" else unpack_bits(indices, count, dtype)
    return np.asarray(palettes[numbers].reshape(shape))


def _sparse_to_dense(call: Call) -> Array:
    values, mask = call.array("nonzero_data"), call.array("mask")
    if call.has("shape"):
        shape = limit(call.integers("shape"))
        mask = unpack_bits(mask, int(np.prod(shape, dtype=np.int64)), "uint1").reshape(shape)
    return _filled(values, mask, call)


def _filled(values: Array, mask: Array, call: Call) -> Array:
    is_set = mask != 0
    if values.ndim != 1 or int(is_set.sum()) != values.size:
        raise call.refuse(f"has {values.size} values for {int(is_set.sum())} places")
    dense = np.zeros(mask.shape, values.dtype)
    dense[is_set] = values
    return dense


def _lut_to_sparse(call: Call) -> tuple[Array, ...]:
    mask = call.array("indices_mask")
    indices = _filled(call.array("indices_nonzero_data"), mask, call)
    dense = _looked_up(indices, call.array("lut"), call)
    length = call.array("lut").shape[-1]
    if call.has("vector_axis"):
        mask = np.repeat(mask, length, axis=axis_of(call.integer("vector_axis"), mask.ndim))
    return mask, dense[mask != 0]


def _sparse_blockwise_shift_scale(call: Call) -> tuple[Array, ...]:
    mask = call.array("data_mask")
    centred = _filled(call.array("nonzero_data"), mask, call).astype(np.float32)
    if call.has("offset"):
        centred = centred - _blocks(call.array("offset").astype(np.float32), mask.shape, call)
    dense = centred * _blocks(call.floats("scale"), mask.shape, call)
    return mask, np.asarray(dense[mask != 0])


def _cast(call: Call) -> Array:
    if call.text("output_dtype") != "fp32":
        raise call.refuse("makes fp32 alone")
    return call.floats("source_val")


OPERATORS: dict[str, Operator] = {
    "constexpr_affine_dequantize": _affine_dequantize,
    "constexpr_blockwise_shift_scale": _blockwise_shift_scale,
    "constexpr_cast": _cast,
    "constexpr_lut_to_dense": _lut_to_dense,
    "constexpr_lut_to_sparse": _lut_to_sparse,
    "constexpr_sparse_blockwise_shift_scale": _sparse_blockwise_shift_scale,
    "constexpr_sparse_to_dense": _sparse_to_dense,
}

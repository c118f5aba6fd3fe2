"""LiteRT -> ONNX: shapes, joins, splits, pads, blocks."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from edgewright.bridges.tflite_builder import MAX_ELEMENTS, Builder, axis_of, sizes
from edgewright.bridges.tflite_model import Operation, Shape
from edgewright.bridges.tflite_ops import operator
from edgewright.bridges.tflite_ops_convolution import FIRST, LAST
from edgewright.core.errors import IntegrityError


@operator("RESHAPE", "SQUEEZE", "EXPAND_DIMS")
def reshape(b: Builder, operation: Operation) -> None:
    """The shape that LiteRT worked out; where two sizes follow the batch, the shape that the model computes."""
    tensor, result = b.source(operation, 0), b.result(operation)
    value = b.real(tensor)
    if sum(size is None for size in result.shape) > 1 and b.has(operation, 1) and operation.name == "RESHAPE":
        shape = b.cast(b.stored(b.source(operation, 1)), "int64")
        b.put(result, b.node("Reshape", [value, shape]))
        return
    b.put(result, b.reshaped(value, result.shape))


@operator("TRANSPOSE")
def transpose(b: Builder, operation: Operation) -> None:
    """Axes in another order."""
    tensor = b.source(operation, 0)
    axes = [axis_of(axis, len(tensor.shape)) for axis in b.known_integers(operation, 1)]
    if sorted(axes) != list(range(len(tensor.shape))):
        raise IntegrityError(f"TRANSPOSE of rank {len(tensor.shape)} with the axes {axes}.")
    b.put(b.result(operation), b.transposed(b.real(tensor), axes))


@operator("CONCATENATION")
def concatenation(b: Builder, operation: Operation) -> None:
    """Parts of one axis."""
    result = b.result(operation)
    parts = [b.real(b.source(operation, position)) for position in range(len(operation.inputs))]
    axis = axis_of(operation.integer("axis"), len(result.shape))
    value = b.node("Concat", parts, {"axis": axis})
    b.put(result, b.activated(value, operation.integer("fusedActivationFunction"), result))


@operator("PACK")
def pack(b: Builder, operation: Operation) -> None:
    """Along a new axis."""
    result = b.result(operation)
    axis = axis_of(operation.integer("axis"), len(result.shape))
    parts = [
        b.node("Unsqueeze", [b.real(b.source(operation, position)), b.integers([axis])])
        for position in range(len(operation.inputs))
    ]
    b.put(result, b.node("Concat", parts, {"axis": axis}))


@operator("UNPACK")
def unpack(b: Builder, operation: Operation) -> None:
    """One tensor for each index of an axis."""
    tensor = b.source(operation, 0)
    axis = axis_of(operation.integer("axis"), len(tensor.shape))
    value = b.real(tensor)
    for position in range(len(operation.outputs)):
        index = b.constant(np.asarray(position, dtype=np.int64))
        b.put(b.result(operation, position), b.node("Gather", [value, index], {"axis": axis}))


@operator("SPLIT", "SPLIT_V")
def split(b: Builder, operation: Operation) -> None:
    """Into the sizes that the results have; SPLIT has the axis first, SPLIT_V last."""
    place, axis_place = (1, 0) if operation.name == "SPLIT" else (0, 2)
    tensor = b.source(operation, place)
    axis = axis_of(b.known_integers(operation, axis_place)[0], len(tensor.shape))
    parts = [
        sizes(b.result(operation, position).shape, [axis])[0] for position in range(len(operation.outputs))
    ]
    values = b.nodes("Split", [b.real(tensor), b.integers(parts)], len(parts), {"axis": axis})
    for position, value in enumerate(values):
        b.put(b.result(operation, position), value)


@operator("PAD", "PADV2", "MIRROR_PAD")
def pad(b: Builder, operation: Operation) -> None:
    """With zeros, a value, or mirrored with or without the edge."""
    tensor, result = b.source(operation, 0), b.result(operation)
    table = b.known(operation, 1).astype(np.int64)
    if table.shape != (len(tensor.shape), 2) or table.min(initial=0) < 0:
        raise IntegrityError(f"{operation.name} of rank {len(tensor.shape)} with the pads {table.tolist()}.")
    value = b.real(tensor)
    if operation.name == "MIRROR_PAD" and operation.integer("mode") == 1:
        b.put(result, _mirrored(b, value, tensor.shape, table.tolist()))
        return
    inputs = [value, b.integers([*table[:, 0].tolist(), *table[:, 1].tolist()])]
    mode = "reflect" if operation.name == "MIRROR_PAD" else "constant"
    if operation.name == "PADV2":
        filler = b.source(operation, 2)
        inputs.append(b.reshaped(b.real(filler), ()) if filler.shape else b.real(filler))
    b.put(result, b.node("Pad", inputs, {"mode": mode}))


def _mirrored(b: Builder, value: str, shape: Shape, table: Sequence[Sequence[int]]) -> str:
    """Return `value` mirrored with its edges repeated, which ONNX has no mode for: indices say it."""
    for axis, (before, after) in enumerate(table):
        if before or after:
            (size,) = sizes(shape, [axis])
            if max(before, after) > size:
                raise IntegrityError(f"MIRROR_PAD of {size} values by {before} and {after}.")
            indices = np.pad(np.arange(size), (before, after), mode="symmetric")
            value = b.node("Gather", [value, b.constant(indices.astype(np.int64))], {"axis": axis})
    return value


@operator("TILE")
def tile(b: Builder, operation: Operation) -> None:
    """Repeated along each axis."""
    repeats = b.cast(b.stored(b.source(operation, 1)), "int64")
    b.put(b.result(operation), b.node("Tile", [b.real(b.source(operation, 0)), repeats]))


@operator("BROADCAST_TO")
def broadcast_to(b: Builder, operation: Operation) -> None:
    """To a shape."""
    shape = b.cast(b.stored(b.source(operation, 1)), "int64")
    b.put(b.result(operation), b.node("Expand", [b.real(b.source(operation, 0)), shape]))


@operator("SHAPE")
def shape_of(b: Builder, operation: Operation) -> None:
    """The sizes as integers."""
    result = b.result(operation)
    value = b.node("Shape", [b.ordered(b.source(operation, 0))])
    b.put_stored(result, value if result.dtype == "int64" else b.cast(value, result.dtype))


@operator("RANK")
def rank_of(b: Builder, operation: Operation) -> None:
    """The number of axes."""
    b.put_stored(b.result(operation), b.scalar(len(b.source(operation, 0).shape), "int32"))


@operator("FILL")
def fill(b: Builder, operation: Operation) -> None:
    """One value in a shape."""
    shape = b.cast(b.stored(b.source(operation, 0)), "int64")
    b.put(b.result(operation), b.node("Expand", [b.real(b.source(operation, 1)), shape]))


@operator("RANGE")
def arange(b: Builder, operation: Operation) -> None:
    """From a start to a limit in steps."""
    values = [b.stored(b.source(operation, position)) for position in range(3)]
    b.put_stored(b.result(operation), b.node("Range", values))


@operator("SPACE_TO_DEPTH", "DEPTH_TO_SPACE")
def depth_blocks(b: Builder, operation: Operation) -> None:
    """Blocks of an image become channels or the other way round: (row, column, channel)."""
    tensor = b.source(operation, 0)
    block = operation.integer("blockSize")
    if len(tensor.shape) != 4 or block < 1:
        raise IntegrityError(f"{operation.name} of rank {len(tensor.shape)} with blocks of {block}.")
    image = b.transposed(b.real(tensor), FIRST[4])
    if operation.name == "SPACE_TO_DEPTH":
        value = b.node("SpaceToDepth", [image], {"blocksize": block})
    else:
        value = b.node("DepthToSpace", [image], {"blocksize": block, "mode": "DCR"})
    b.put(b.result(operation), b.transposed(value, LAST[4]))


@operator("SPACE_TO_BATCH_ND", "BATCH_TO_SPACE_ND")
def batch_blocks(b: Builder, operation: Operation) -> None:
    """Blocks of the axes 1.. become samples of the batch, slowest first, or the other way round."""
    tensor, result = b.source(operation, 0), b.result(operation)
    blocks = b.known_integers(operation, 1)
    table = b.known(operation, 2).astype(np.int64)
    count = len(blocks)
    if not 1 <= count < len(tensor.shape) or table.shape != (count, 2) or min(blocks) < 1:
        raise IntegrityError(f"{operation.name} of rank {len(tensor.shape)} with blocks {blocks}.")
    if table.min(initial=0) < 0 or math.prod(blocks) > MAX_ELEMENTS:
        raise IntegrityError(f"{operation.name} with blocks {blocks} and margins {table.tolist()}.")
    rest = sizes(tensor.shape, range(1 + count, len(tensor.shape)))
    inner = sizes(tensor.shape, range(1, 1 + count))
    tail = range(1 + 2 * count, 1 + 2 * count + len(rest))
    value = b.real(tensor)
    if operation.name == "SPACE_TO_BATCH_ND":
        if table.any():
            none = [0] * len(rest)
            pads = [0, *table[:, 0].tolist(), *none, 0, *table[:, 1].tolist(), *none]
            value = b.node("Pad", [value, b.integers(pads)])
        padded = [size + int(row.sum()) for size, row in zip(inner, table, strict=True)]
        if any(size % block for size, block in zip(padded, blocks, strict=True)):
            raise IntegrityError(f"SPACE_TO_BATCH_ND of {padded} in blocks of {blocks}.")
        parts = [(size // block, block) for size, block in zip(padded, blocks, strict=True)]
        value = b.reshaped(value, (tensor.shape[0], *(n for part in parts for n in part), *rest))
        axes = [*range(2, 2 + 2 * count, 2), 0, *range(1, 1 + 2 * count, 2), *tail]
        value = b.reshaped(b.transposed(value, axes), result.shape)
        b.put(result, value)
        return
    value = b.reshaped(value, (*blocks, result.shape[0], *inner, *rest))
    axes = [count, *(n for i in range(count) for n in (count + 1 + i, i)), *tail]
    value = b.transposed(value, axes)
    grown = [size * block for size, block in zip(inner, blocks, strict=True)]
    value = b.reshaped(value, (result.shape[0], *grown, *rest))
    if table.any():
        ends = [size - int(row[1]) for size, row in zip(grown, table, strict=True)]
        value = b.sliced(value, table[:, 0].tolist(), ends, range(1, 1 + count), [1] * count)
    b.put(result, value)

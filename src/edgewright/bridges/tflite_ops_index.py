"""LiteRT -> ONNX: slices, gathers, scatters, one-hot codes."""

from __future__ import annotations

import numpy as np

from edgewright.bridges.tflite_builder import MAX_ELEMENTS, Builder, UnsupportedError, axis_of
from edgewright.bridges.tflite_model import Operation
from edgewright.bridges.tflite_ops import operator
from edgewright.core.errors import IntegrityError

_FAR = (1 << 31) - 1  # beyond every size, in either direction


@operator("SLICE")
def cut(b: Builder, operation: Operation) -> None:
    """From a begin, as many as a size says; -1 is the rest."""
    tensor, result = b.source(operation, 0), b.result(operation)
    begin, size = b.source(operation, 1), b.source(operation, 2)
    rank = len(tensor.shape)
    if begin.value is None or size.value is None:
        first, count = (b.cast(b.stored(part), "int64") for part in (begin, size))
        is_rest = b.node("Less", [count, b.integers([0])])
        last = b.node("Where", [is_rest, b.integers([_FAR]), b.node("Add", [first, count])])
        b.put(result, b.node("Slice", [b.real(tensor), first, last, b.integers(range(rank))]))
        return
    starts, counts = b.known_integers(operation, 1), b.known_integers(operation, 2)
    if len(starts) != rank or len(counts) != rank:
        raise IntegrityError(f"SLICE of rank {rank} from {starts} of sizes {counts}.")
    axes = [axis for axis in range(rank) if starts[axis] != 0 or counts[axis] not in (-1, tensor.shape[axis])]
    ends = [_FAR if counts[axis] == -1 else starts[axis] + counts[axis] for axis in axes]
    value = b.real(tensor)
    if axes:
        value = b.sliced(value, [starts[axis] for axis in axes], ends, axes, [1] * len(axes))
    b.put(result, value)


@operator("STRIDED_SLICE")
def strided_slice(b: Builder, operation: Operation) -> None:
    """Python's x[begin:end:stride], one entry per axis.

    Bits of the masks: begin and end of an entry do not count; an entry stands for all axes that no other one names;
    an entry makes a new axis; an entry picks one index and drops the axis. With `offset`, end counts from begin.
    """
    tensor, result = b.source(operation, 0), b.result(operation)
    begins, ends, strides = (b.known_integers(operation, position) for position in (1, 2, 3))
    rank, count = len(tensor.shape), len(begins)
    if len(ends) != count or len(strides) != count or 0 in strides:
        raise IntegrityError(f"STRIDED_SLICE from {begins} to {ends} in steps of {strides}.")
    masks = {
        name: operation.integer(f"{name}Mask")
        for name in ("begin", "end", "ellipsis", "newAxis", "shrinkAxis")
    }
    if operation.flag("offset"):
        ends = [begin + end for begin, end in zip(begins, ends, strict=True)]
    new_axes = sum(masks["newAxis"] >> i & 1 and not masks["ellipsis"] >> i & 1 for i in range(count))
    cuts: list[tuple[int, int, int, int]] = []
    axis = 0
    for i in range(count):
        if masks["ellipsis"] >> i & 1:
            later = sum(not masks["newAxis"] >> j & 1 for j in range(i + 1, count))
            axis = max(axis, rank - later)
            continue
        if masks["newAxis"] >> i & 1:
            continue
        if axis >= rank:
            raise IntegrityError(
                f"STRIDED_SLICE of rank {rank} with {count} entries and {new_axes} new axes."
            )
        size, step = tensor.shape[axis], strides[i]
        if masks["shrinkAxis"] >> i & 1:
            first = 0 if masks["begin"] >> i & 1 else begins[i]
            cuts.append((first, first + 1 or _FAR, axis, 1))
        else:
            start = None if masks["begin"] >> i & 1 else begins[i]
            stop = None if masks["end"] >> i & 1 else ends[i]
            if size is None:
                if step < 0 and (start, stop) != (None, None):
                    raise UnsupportedError("a step backwards over the batch")
                far = _FAR if step > 0 else -_FAR
                cuts.append((start or (0 if step > 0 else _FAR), far if stop is None else stop, axis, step))
            else:
                first, last, step = slice(start, stop, step).indices(size)
                cuts.append((first, last if last >= 0 else -_FAR, axis, step))
        axis += 1
    cuts = [cut for cut in cuts if cut[0] != 0 or cut[3] != 1 or cut[1] not in (_FAR, tensor.shape[cut[2]])]
    value = b.real(tensor)
    if cuts:
        value = b.sliced(value, *(list(part) for part in zip(*cuts, strict=True)))
    if masks["newAxis"] or masks["shrinkAxis"]:
        value = b.reshaped(value, result.shape)
    b.put(result, value)


@operator("GATHER", "EMBEDDING_LOOKUP")
def gather(b: Builder, operation: Operation) -> None:
    """Slices of one axis at indices; with batch axes only where the axis is the first behind them."""
    places = (0, 1) if operation.name == "GATHER" else (1, 0)
    tensor, indices = (b.source(operation, position) for position in places)
    result = b.result(operation)
    rank = len(tensor.shape)
    axis = axis_of(operation.integer("axis"), rank) if operation.name == "GATHER" else 0
    batch = operation.integer("batchDims") if operation.name == "GATHER" else 0
    batch += len(indices.shape) if batch < 0 else 0
    value, at = b.real(tensor), b.stored(indices)
    if batch == 0:
        at = at if indices.dtype in ("int32", "int64") else b.cast(at, "int64")
        b.put(result, b.node("Gather", [value, at], {"axis": axis}))
        return
    if axis != batch:
        raise UnsupportedError(f"axis {axis} with {batch} batch axes")
    at = b.node("Unsqueeze", [b.cast(at, "int64"), b.integers([-1])])
    b.put(result, b.node("GatherND", [value, at], {"batch_dims": batch}))


@operator("GATHER_ND")
def gather_nd(b: Builder, operation: Operation) -> None:
    """Slices at index vectors."""
    at = b.cast(b.stored(b.source(operation, 1)), "int64")
    b.put(b.result(operation), b.node("GatherND", [b.real(b.source(operation, 0)), at]))


@operator("SCATTER_ND")
def scatter_nd(b: Builder, operation: Operation) -> None:
    """Sums of updates at index vectors, in zeros."""
    result, updates = b.result(operation), b.source(operation, 1)
    at = b.cast(b.stored(b.source(operation, 0)), "int64")
    shape = b.cast(b.stored(b.source(operation, 2)), "int64")
    dtype = "float32" if updates.scheme is not None else updates.dtype
    if dtype == "bool":
        raise UnsupportedError("bool updates")
    zeros = b.node("Expand", [b.scalar(0, dtype), shape])
    value = b.node("ScatterND", [zeros, at, b.real(updates)], {"reduction": "add"})
    b.put(result, value)


@operator("ONE_HOT")
def one_hot(b: Builder, operation: Operation) -> None:
    """The one value where the index is the position on a new axis; ONNX's own operator wraps negative indices."""
    indices, result = b.source(operation, 0), b.result(operation)
    (depth,) = b.known_integers(operation, 1)
    if not 0 <= depth <= MAX_ELEMENTS:
        raise IntegrityError(f"ONE_HOT of depth {depth}.")
    rank = len(result.shape)
    axis = axis_of(operation.integer("axis", -1), rank)
    positions = np.arange(depth, dtype=indices.dtype).reshape([-1 if a == axis else 1 for a in range(rank)])
    spread = b.node("Unsqueeze", [b.stored(indices), b.integers([axis])])
    is_it = b.node("Equal", [spread, b.constant(positions)])
    on, off = (b.real(b.source(operation, position)) for position in (2, 3))
    b.put(result, b.node("Where", [is_it, on, off]))


@operator("REVERSE_V2")
def reverse(b: Builder, operation: Operation) -> None:
    """Axes back to front."""
    tensor = b.source(operation, 0)
    axes = [axis_of(axis, len(tensor.shape)) for axis in b.known_integers(operation, 1)]
    n = len(axes)
    value = b.real(tensor)
    if n:
        value = b.sliced(value, [-1] * n, [-_FAR] * n, axes, [-1] * n)
    b.put(b.result(operation), value)


@operator("REVERSE_SEQUENCE")
def reverse_sequence(b: Builder, operation: Operation) -> None:
    """The first n values of each sequence back to front."""
    time, batch = operation.integer("seqDim"), operation.integer("batchDim")
    if sorted((time, batch)) != [0, 1]:
        raise UnsupportedError(f"the time axis {time} and the batch axis {batch}")
    lengths = b.cast(b.stored(b.source(operation, 1)), "int64")
    value = b.node(
        "ReverseSequence", [b.real(b.source(operation, 0)), lengths], {"time_axis": time, "batch_axis": batch}
    )
    b.put(b.result(operation), value)

"""Generated models that move values: one operator each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from made_draws import Draw, int8s, scale_of, shape_of, zero_of
from made_models import Maker


def concatenation(draw: Draw, path: Path) -> None:
    """Two or three tensors side by side."""
    made = Maker()
    shape = shape_of(draw)
    axis = int(draw.integers(0, len(shape)))
    scale, zero = scale_of(draw), zero_of(draw)
    parts = [
        (*shape[:axis], int(draw.integers(1, 5)), *shape[axis + 1 :]) for _ in range(int(draw.integers(2, 4)))
    ]
    # Every tenth file has inputs of another scale, which must be refused.
    odd = draw.random() < 0.1
    inputs = [made.tensor(part, scale=scale * (1 + odd * i), zero=zero) for i, part in enumerate(parts)]
    total = (*shape[:axis], sum(part[axis] for part in parts), *shape[axis + 1 :])
    y = made.tensor(total, scale=scale, zero=zero)
    options = {"axis": axis if draw.random() < 0.5 else axis - len(shape), "fusedActivationFunction": 0}
    made.operator("CONCATENATION", inputs, [y], table="ConcatenationOptions", options=options, version=2)
    made.write(path, inputs, [y])


def pack(draw: Draw, path: Path) -> None:
    """Tensors along a new axis."""
    made = Maker()
    shape = shape_of(draw, high=4)
    axis = int(draw.integers(0, len(shape) + 1))
    count = int(draw.integers(2, 4))
    scale, zero = scale_of(draw), zero_of(draw)
    inputs = [made.tensor(shape, scale=scale, zero=zero) for _ in range(count)]
    y = made.tensor((*shape[:axis], count, *shape[axis:]), scale=scale, zero=zero)
    made.operator("PACK", inputs, [y], table="PackOptions", options={"valuesCount": count, "axis": axis})
    made.write(path, inputs, [y])


def unpack(draw: Draw, path: Path) -> None:
    """Slices along an axis."""
    made = Maker()
    shape = shape_of(draw, low=2)
    axis = int(draw.integers(0, len(shape)))
    scale, zero = scale_of(draw), zero_of(draw)
    x = made.tensor(shape, scale=scale, zero=zero)
    rest = (*shape[:axis], *shape[axis + 1 :])
    outputs = [made.tensor(rest, scale=scale, zero=zero) for _ in range(shape[axis])]
    made.operator("UNPACK", [x], outputs, table="UnpackOptions", options={"num": shape[axis], "axis": axis})
    made.write(path, [x], outputs)


def pad(draw: Draw, path: Path) -> None:
    """Padding, with a given value now and then."""
    made = Maker()
    shape = shape_of(draw)
    around = draw.integers(0, 4, (len(shape), 2))
    scale, zero = scale_of(draw), zero_of(draw)
    x = made.tensor(shape, scale=scale, zero=zero)
    p = made.tensor(around.shape, "int32", value=around)
    y = made.tensor(
        tuple(int(s + a + b) for s, (a, b) in zip(shape, around, strict=True)), scale=scale, zero=zero
    )
    if draw.random() < 0.4:
        if made.is_wide:
            v = made.tensor((1,), "int16", scale=scale / 200, value=draw.integers(-32768, 32768, (1,)))
        else:
            v = made.tensor((1,), scale=scale, zero=zero, value=int8s(draw, (1,)))
        made.operator("PADV2", [x, p, v], [y], table="PadV2Options", version=2)
    else:
        made.operator("PAD", [x, p], [y], table="PadOptions", version=2)
    made.write(path, [x], [y])


def transpose(draw: Draw, path: Path) -> None:
    """Axes in another order."""
    made = Maker()
    shape = shape_of(draw)
    order = draw.permutation(len(shape))
    scale, zero = scale_of(draw), zero_of(draw)
    x = made.tensor(shape, scale=scale, zero=zero)
    p = made.tensor(order.shape, "int32", value=order)
    y = made.tensor(tuple(shape[i] for i in order), scale=scale, zero=zero)
    made.operator("TRANSPOSE", [x, p], [y], table="TransposeOptions", version=2)
    made.write(path, [x], [y])


def slice_(draw: Draw, path: Path) -> None:
    """A block of a tensor."""
    made = Maker()
    shape = shape_of(draw)
    begin = np.array([draw.integers(0, s) for s in shape])
    size = np.array([draw.integers(1, s - b + 1) for s, b in zip(shape, begin, strict=True)])
    stored = np.where((begin + size == shape) & (draw.random(len(shape)) < 0.5), -1, size)
    scale, zero = scale_of(draw), zero_of(draw)
    x = made.tensor(shape, scale=scale, zero=zero)
    b, s = (made.tensor((len(shape),), "int32", value=value) for value in (begin, stored))
    y = made.tensor(tuple(map(int, size)), scale=scale, zero=zero)
    made.operator("SLICE", [x, b, s], [y], table="SliceOptions", version=2)
    made.write(path, [x], [y])


def strided_slice(draw: Draw, path: Path) -> None:
    """Every n-th value, backwards too, with masks."""
    made = Maker()
    shape = shape_of(draw)
    begin, end, step, result = [], [], [], []
    masks = {"beginMask": 0, "endMask": 0, "shrinkAxisMask": 0}
    for axis, size in enumerate(shape):
        stride = int(draw.choice([1, 1, 2, 3, -1, -2]))
        first = int(draw.integers(0, size))
        last = int(draw.integers(first + 1, size + 1)) if stride > 0 else int(draw.integers(-1, first))
        bits = [draw.random() < 0.2 for _ in range(3)]
        if bits[2]:
            stride, last = 1, first + 1
            masks["shrinkAxisMask"] |= 1 << axis
        elif bits[0]:
            masks["beginMask"] |= 1 << axis
        if bits[1] or last < 0:
            masks["endMask"] |= 1 << axis
        begin.append(first - size if draw.random() < 0.3 else first)
        end.append(max(last, 0))
        step.append(stride)
        begin_at = (0 if stride > 0 else size - 1) if masks["beginMask"] >> axis & 1 else first
        stop = (size if stride > 0 else -1) if masks["endMask"] >> axis & 1 else last
        if not bits[2]:
            result.append(len(range(begin_at, stop, stride)))
    scale, zero = scale_of(draw), zero_of(draw)
    x = made.tensor(shape, scale=scale, zero=zero)
    given = [made.tensor((len(shape),), "int32", value=np.array(value)) for value in (begin, end, step)]
    y = made.tensor(tuple(result), scale=scale, zero=zero)
    made.operator("STRIDED_SLICE", [x, *given], [y], table="StridedSliceOptions", options=masks, version=2)
    made.write(path, [x], [y])


def split(draw: Draw, path: Path) -> None:
    """Equal parts."""
    made = Maker()
    shape = list(shape_of(draw))
    axis, count = int(draw.integers(0, len(shape))), int(draw.integers(1, 4))
    part = tuple(shape)
    shape[axis] *= count
    scale, zero = scale_of(draw), zero_of(draw)
    a = made.tensor((1,) if draw.random() < 0.5 else (), "int32", value=np.array([axis]))
    x = made.tensor(shape, scale=scale, zero=zero)
    outputs = [made.tensor(part, scale=scale, zero=zero) for _ in range(count)]
    made.operator("SPLIT", [a, x], outputs, table="SplitOptions", options={"numSplits": count}, version=2)
    made.write(path, [x], outputs)


def resize_nearest_neighbor(draw: Draw, path: Path) -> None:
    """Another size by the nearest pixel."""
    _resize(draw, path, "RESIZE_NEAREST_NEIGHBOR", "ResizeNearestNeighborOptions")


def resize_bilinear(draw: Draw, path: Path) -> None:
    """Another size by interpolation."""
    _resize(draw, path, "RESIZE_BILINEAR", "ResizeBilinearOptions")


def _resize(draw: Draw, path: Path, name: str, table: str) -> None:
    made = Maker()
    n, h, w, c = (int(draw.integers(1, 3)), *(int(draw.integers(1, 9)) for _ in range(3)))
    size = draw.integers(1, 14, 2)
    scale, zero = scale_of(draw), zero_of(draw)
    x = made.tensor((n, h, w, c), scale=scale, zero=zero)
    s = made.tensor((2,), "int32", value=size)
    y = made.tensor((n, int(size[0]), int(size[1]), c), scale=scale, zero=zero)
    kind = draw.choice(["plain", "corners", "half"])
    options = {"alignCorners": bool(kind == "corners"), "halfPixelCenters": bool(kind == "half")}
    made.operator(name, [x, s], [y], table=table, options=options, version=3)
    made.write(path, [x], [y])


def space_to_depth(draw: Draw, path: Path) -> None:
    """Blocks of pixels into channels."""
    _blocks(draw, path, "SPACE_TO_DEPTH", "SpaceToDepthOptions")


def depth_to_space(draw: Draw, path: Path) -> None:
    """Channels into blocks of pixels."""
    _blocks(draw, path, "DEPTH_TO_SPACE", "DepthToSpaceOptions")


def _blocks(draw: Draw, path: Path, name: str, table: str) -> None:
    made = Maker()
    n, h, w, c = (int(draw.integers(1, 3)), *(int(draw.integers(1, 5)) for _ in range(3)))
    block = int(draw.integers(1, 4))
    wide, deep = (n, h * block, w * block, c), (n, h, w, c * block * block)
    scale, zero = scale_of(draw), zero_of(draw)
    ends = (wide, deep) if name == "SPACE_TO_DEPTH" else (deep, wide)
    x, y = (made.tensor(shape, scale=scale, zero=zero) for shape in ends)
    made.operator(name, [x], [y], table=table, options={"blockSize": block}, version=2)
    made.write(path, [x], [y])


def space_to_batch_nd(draw: Draw, path: Path) -> None:
    """Pixels at a distance into batches, with paddings."""
    made = Maker()
    blocks = draw.integers(1, 4, 2 if draw.random() < 0.7 else 1)
    # Now and then there are paddings, which are refused.
    around = draw.integers(0, 3, (len(blocks), 2)) * (draw.random() < 0.2)
    n, c = int(draw.integers(1, 3)), int(draw.integers(1, 5))
    inner = draw.integers(1, 5, len(blocks))
    sizes = inner * blocks - around.sum(axis=1)
    around[sizes < 1] = 0
    sizes = inner * blocks - around.sum(axis=1)
    scale, zero = scale_of(draw), zero_of(draw)
    x = made.tensor((n, *map(int, sizes), c), scale=scale, zero=zero)
    given = [
        made.tensor(blocks.shape, "int32", value=blocks),
        made.tensor(around.shape, "int32", value=around),
    ]
    y = made.tensor((n * int(blocks.prod()), *map(int, inner), c), scale=scale, zero=zero)
    made.operator("SPACE_TO_BATCH_ND", [x, *given], [y], table="SpaceToBatchNDOptions", version=2)
    made.write(path, [x], [y])


def batch_to_space_nd(draw: Draw, path: Path) -> None:
    """Batches into pixels at a distance, with crops."""
    made = Maker()
    blocks = draw.integers(1, 4, 2 if draw.random() < 0.7 else 1)
    n, c = int(draw.integers(1, 3)), int(draw.integers(1, 5))
    inner = draw.integers(1, 5, len(blocks))
    crops = draw.integers(0, 2, (len(blocks), 2))
    crops[inner * blocks - crops.sum(axis=1) < 1] = 0
    sizes = inner * blocks - crops.sum(axis=1)
    scale, zero = scale_of(draw), zero_of(draw)
    x = made.tensor((n * int(blocks.prod()), *map(int, inner), c), scale=scale, zero=zero)
    given = [
        made.tensor(blocks.shape, "int32", value=blocks),
        made.tensor(crops.shape, "int32", value=crops),
    ]
    y = made.tensor((n, *map(int, sizes), c), scale=scale, zero=zero)
    made.operator("BATCH_TO_SPACE_ND", [x, *given], [y], table="BatchToSpaceNDOptions", version=2)
    made.write(path, [x], [y])


def mirror_pad(draw: Draw, path: Path) -> None:
    """Edges mirrored."""
    made = Maker()
    shape = shape_of(draw)
    mode = int(draw.integers(0, 2))
    most = [size - 1 if mode == 0 else size for size in shape]
    around = np.array([[draw.integers(0, reach + 1) for _ in range(2)] for reach in most])
    scale, zero = scale_of(draw), zero_of(draw)
    x = made.tensor(shape, scale=scale, zero=zero)
    p = made.tensor(around.shape, "int32", value=around)
    want = tuple(int(size + sum(pair)) for size, pair in zip(shape, around, strict=True))
    y = made.tensor(want, scale=scale, zero=zero)
    made.operator("MIRROR_PAD", [x, p], [y], table="MirrorPadOptions", options={"mode": mode})
    made.write(path, [x], [y])


def broadcast_to(draw: Draw, path: Path) -> None:
    """A tensor repeated along axes of size 1."""
    made = Maker()
    shape = shape_of(draw)
    want = tuple(int(draw.integers(1, 5)) if size == 1 or draw.random() < 0.4 else size for size in shape)
    have = tuple(size if size == other else 1 for size, other in zip(shape, want, strict=True))
    scale, zero = scale_of(draw), zero_of(draw)
    x = made.tensor(have, scale=scale, zero=zero)
    s = made.tensor((len(want),), "int32", value=np.array(want))
    y = made.tensor(want, scale=scale, zero=zero)
    made.operator("BROADCAST_TO", [x, s], [y], table="BroadcastToOptions", version=2)
    made.write(path, [x], [y])


def gather(draw: Draw, path: Path) -> None:
    """Slices by constant indices, or by indices that another operator computes."""
    made = Maker()
    shape = shape_of(draw)
    axis = int(draw.integers(0, len(shape)))
    scale, zero = scale_of(draw), zero_of(draw)
    is_table = draw.random() < 0.3 and not made.is_wide  # as of an embedding
    x = made.tensor(shape, scale=scale, zero=zero, value=int8s(draw, shape) if is_table else None)
    inputs = [] if is_table else [x]
    lead = shape_of(draw, high=3)
    if not is_table and draw.random() < 0.6:
        indices = made.tensor(lead, "int32", value=draw.integers(0, shape[axis], lead))
    else:
        which = made.tensor((*lead, shape[axis]), scale=0.1)
        last = made.tensor((), "int32", value=np.array(len(lead)))
        indices = made.tensor(lead, "int32")
        made.operator("ARG_MAX", [which, last], [indices], table="ArgMaxOptions")
        inputs.append(which)
    y = made.tensor((*shape[:axis], *lead, *shape[axis + 1 :]), scale=scale, zero=zero)
    made.operator("GATHER", [x, indices], [y], table="GatherOptions", options={"axis": axis}, version=2)
    made.write(path, inputs, [y])


def split_v(draw: Draw, path: Path) -> None:
    """Parts of given sizes."""
    made = Maker()
    shape = shape_of(draw)
    axis = int(draw.integers(0, len(shape)))
    sizes = draw.integers(1, 5, int(draw.integers(1, 4)))
    whole = (*shape[:axis], int(sizes.sum()), *shape[axis + 1 :])
    scale, zero = scale_of(draw), zero_of(draw)
    x = made.tensor(whole, scale=scale, zero=zero)
    given = [made.tensor(sizes.shape, "int32", value=sizes), made.tensor((), "int32", value=np.array(axis))]
    outputs = [
        made.tensor((*shape[:axis], int(size), *shape[axis + 1 :]), scale=scale, zero=zero) for size in sizes
    ]
    options = {"numSplits": len(sizes)}
    made.operator("SPLIT_V", [x, *given], outputs, table="SplitVOptions", options=options, version=2)
    made.write(path, [x], outputs)


def reshape(draw: Draw, path: Path) -> None:
    """The same values in another shape: the model's input is its output."""
    _view(draw, path, "RESHAPE")


def squeeze(draw: Draw, path: Path) -> None:
    """Axes of size 1 away."""
    _view(draw, path, "SQUEEZE")


def expand_dims(draw: Draw, path: Path) -> None:
    """A new axis of size 1."""
    _view(draw, path, "EXPAND_DIMS")


def _view(draw: Draw, path: Path, name: str) -> None:
    made = Maker()
    shape = shape_of(draw)
    axis = int(draw.integers(0, len(shape) + 1))
    long = (*shape[:axis], 1, *shape[axis:])
    scale, zero = scale_of(draw), zero_of(draw)
    ends = {"RESHAPE": (shape, shape[::-1]), "SQUEEZE": (long, shape), "EXPAND_DIMS": (shape, long)}[name]
    x, y = (made.tensor(one, scale=scale, zero=zero) for one in ends)
    inputs, options, table = [x], {}, "ReshapeOptions"
    if name == "RESHAPE":
        inputs.append(made.tensor((len(shape),), "int32", value=np.array(ends[1])))
        options = {"newShape": list(ends[1])}
    elif name == "SQUEEZE":
        table, options = "SqueezeOptions", {"squeezeDims": [axis]}
    else:
        table = "ExpandDimsOptions"
        inputs.append(made.tensor((1,), "int32", value=np.array([axis])))
    made.operator(name, inputs, [y], table=table, options=options)
    made.write(path, [x], [y])


def reverse_v2(draw: Draw, path: Path) -> None:
    """The other way round along an axis."""
    made = Maker()
    shape = shape_of(draw)
    axis = int(draw.integers(0, len(shape)))
    scale, zero = scale_of(draw), zero_of(draw)
    x, y = (made.tensor(shape, scale=scale, zero=zero) for _ in range(2))
    a = made.tensor((1,), "int32", value=np.array([axis]))
    made.operator("REVERSE_V2", [x, a], [y], table="ReverseV2Options")
    made.write(path, [x], [y])

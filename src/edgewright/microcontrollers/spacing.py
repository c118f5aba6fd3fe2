"""Operators that put blocks of an image into channels or batches, mirror or repeat a tensor, or pick slices of it.

Source: the layouts that the LiteRT operators of these names document. All but GATHER are copies along strides.
"""

from __future__ import annotations

import itertools
from math import prod

from edgewright.microcontrollers.layer import Layer, Site, render, require
from edgewright.microcontrollers.shaping import (
    Copy,
    axis_of,
    constant_integers,
    copying,
    same_scheme,
    strides,
)

_MOST_COPIES = 128

_GATHER = """\
static void @(const {{ c_type }} *in, const int32_t *indices, {{ c_type }} *out)
{
    int32_t n, o, i;
    for (n = 0; n < {{ batches }}; ++n, indices += {{ count }}) {
        for (o = 0; o < {{ outer }}; ++o, in += {{ size * inner }}) {
            for (i = 0; i < {{ count }}; ++i, out += {{ inner }}) {
                memcpy(out, in + {{ "indices[i]" if is_constant else "clamped(indices[i], 0, %d)" % (size - 1) }} * \
{{ inner }}, {{ inner }} * sizeof *out);
            }
        }
    }
}
"""


def space_to_depth(site: Site) -> Layer:
    """Return SPACE_TO_DEPTH: blocks of pixels become channels."""
    source, output = site.input(0), site.output()
    block = _block(site)
    _check_types(site)
    require(len(source.shape) == 4, "a rank other than 4")
    n, height, width, depth = source.shape
    require(height % block == 0 and width % block == 0, "an image that is not made of whole blocks")
    rows, columns = height // block, width // block
    require(output.shape == (n, rows, columns, depth * block * block), "a wrong output shape")
    wide, deep = width * depth, depth * block * block
    copy = Copy(
        sizes=(n, rows, block, columns, block, depth),
        reads=(height * wide, block * wide, wide, block * depth, depth, 1),
        writes=(rows * columns * deep, columns * deep, block * depth, deep, depth, 1),
    )
    return copying(site, [source], [copy])


def depth_to_space(site: Site) -> Layer:
    """Return DEPTH_TO_SPACE: channels become blocks of pixels."""
    source, output = site.input(0), site.output()
    block = _block(site)
    _check_types(site)
    require(len(source.shape) == 4, "a rank other than 4")
    n, height, width, channels = source.shape
    require(channels % (block * block) == 0, "channels that are not made of whole blocks")
    depth = channels // (block * block)
    require(output.shape == (n, height * block, width * block, depth), "a wrong output shape")
    wide = width * block * depth
    copy = Copy(
        sizes=(n, height, block, width, block, depth),
        reads=(height * width * channels, width * channels, block * depth, channels, depth, 1),
        writes=(height * block * wide, block * wide, wide, block * depth, depth, 1),
    )
    return copying(site, [source], [copy])


def _block(site: Site) -> int:
    block = site.operator.integer("BlockSize")
    require(1 <= block <= 1 << 12, f"a block of {block}")
    return block


def space_to_batch(site: Site) -> Layer:
    """Return SPACE_TO_BATCH_ND of one or two axes with constant blocks and without paddings.

    The interpreter pads with whatever its memory holds, so that there is nothing to agree with.
    """
    source, output = site.input(0), site.output()
    blocks, around = constant_integers(site, 1), constant_integers(site, 2)
    _check_blocks(site, blocks, around)
    require(not any(around), "paddings, whose value the interpreter leaves open")
    sizes, rest = source.shape[1 : 1 + len(blocks)], source.shape[1 + len(blocks) :]
    require(all(size % block == 0 for size, block in zip(sizes, blocks, strict=True)), "blocks with a rest")
    inner = tuple(size // block for size, block in zip(sizes, blocks, strict=True))
    require(output.shape == (source.shape[0] * prod(blocks), *inner, *rest), "a wrong output shape")
    read, write = strides(source.shape), strides(output.shape)
    apart = read[1 : 1 + len(blocks)]
    batches = source.shape[0] * write[0]
    copy = Copy(
        sizes=(*blocks, *source.shape[:1], *inner, *rest),
        reads=(
            *apart,
            read[0],
            *(step * block for step, block in zip(apart, blocks, strict=True)),
            *read[1 + len(blocks) :],
        ),
        writes=(*(batches * step for step in strides(blocks)), *write),
    )
    return copying(site, [source], [copy])


def batch_to_space(site: Site) -> Layer:
    """Return BATCH_TO_SPACE_ND of one or two axes with constant blocks and crops."""
    source, output = site.input(0), site.output()
    blocks, crops = constant_integers(site, 1), constant_integers(site, 2)
    _check_blocks(site, blocks, crops)
    require(source.shape[0] % prod(blocks) == 0, "batches that are not made of whole blocks")
    batches = source.shape[0] // prod(blocks)
    sizes = tuple(
        source.shape[1 + axis] * block - crops[2 * axis] - crops[2 * axis + 1]
        for axis, block in enumerate(blocks)
    )
    rest = source.shape[1 + len(blocks) :]
    require(output.shape == (batches, *sizes, *rest) and min(sizes) > 0, "a wrong output shape")
    read, write = strides(source.shape), strides(output.shape)
    copies = []
    for number, place in enumerate(itertools.product(*map(range, blocks))):
        first_read, first_write = number * batches * read[0], 0
        counts = []
        for axis, (at, block) in enumerate(zip(place, blocks, strict=True)):
            before = crops[2 * axis]
            # Pixel p of the input goes to p * block + at - before.
            first = max(0, -((at - before) // block))
            last = (sizes[axis] - 1 - at + before) // block
            counts.append(max(0, min(last, source.shape[1 + axis] - 1) - first + 1))
            first_read += first * read[1 + axis]
            first_write += (first * block + at - before) * write[1 + axis]
        if min(counts) == 0:
            continue
        copies.append(
            Copy(
                sizes=(batches, *counts, *rest),
                reads=read,
                writes=(
                    write[0],
                    *(step * block for step, block in zip(write[1:], blocks, strict=False)),
                    *write[1 + len(blocks) :],
                ),
                first_read=first_read,
                first_write=first_write,
            )
        )
    return copying(site, [source], copies)


def _check_blocks(site: Site, blocks: tuple[int, ...], around: tuple[int, ...]) -> None:
    _check_types(site)
    rank = len(site.input(0).shape)
    require(3 <= rank <= 4, f"rank {rank}; 3 and 4 are made")
    require(1 <= len(blocks) <= 2 and rank > len(blocks), f"{len(blocks)} blocks of rank {rank}")
    require(min(blocks) >= 1 and prod(blocks) <= _MOST_COPIES, f"blocks of {list(blocks)}")
    require(len(around) == 2 * len(blocks) and min(around) >= 0, "paddings or crops of another rank")


def _check_types(site: Site, *known: str) -> None:
    """Check that input and output are of one type that the interpreter takes here, and of one scale."""
    source, output = site.input(0), site.output()
    types = known or ("int8", "float32")
    require(
        source.dtype == output.dtype and source.dtype in types,
        f"types {source.dtype}/{output.dtype}; {', '.join(types)} are made",
    )
    require(same_scheme(source, output), "an output whose quantization is not the input's")


def mirror_pad(site: Site) -> Layer:
    """Return MIRROR_PAD: the edges mirrored, with the outermost value (symmetric) or without it (reflect)."""
    source, output = site.input(0), site.output()
    _check_types(site)
    around = constant_integers(site, 1)
    rank = len(source.shape)
    require(len(around) == 2 * rank and min(around, default=0) >= 0, "paddings of another rank")
    require(len(output.shape) == rank, "an output of another rank")
    inset = 1 if site.operator.integer("Mode") == 0 else 0
    for axis, size in enumerate(source.shape):
        reach = max(around[2 * axis : 2 * axis + 2])
        require(reach <= size - inset, "paddings wider than what is mirrored")
        require(output.shape[axis] == size + sum(around[2 * axis : 2 * axis + 2]), "a wrong output shape")
    read, write = strides(source.shape), strides(output.shape)
    # Of each axis: first position read, step, count, first position written.
    parts: list[list[tuple[int, int, int, int]]] = []
    for axis, size in enumerate(source.shape):
        before, after = around[2 * axis : 2 * axis + 2]
        known = [(before - 1 + inset, -1, before, 0), (0, 1, size, before)]
        known.append((size - 1 - inset, -1, after, before + size))
        parts.append([part for part in known if part[2] > 0])
    require(prod(map(len, parts)) <= _MOST_COPIES, "paddings along too many axes")
    copies = [
        Copy(
            sizes=tuple(part[2] for part in place),
            reads=tuple(step * part[1] for step, part in zip(read, place, strict=True)),
            writes=write,
            first_read=sum(step * part[0] for step, part in zip(read, place, strict=True)),
            first_write=sum(step * part[3] for step, part in zip(write, place, strict=True)),
        )
        for place in itertools.product(*parts)
    ]
    return copying(site, [source], copies)


def broadcast_to(site: Site) -> Layer:
    """Return BROADCAST_TO a constant shape."""
    source, output = site.input(0), site.output()
    _check_types(site, "int8", "int16", "float32")
    require(constant_integers(site, 1) == output.shape, "a shape that is not the output's")
    require(len(source.shape) <= len(output.shape), "an output of lower rank")
    shape = (1,) * (len(output.shape) - len(source.shape)) + source.shape
    fits = all(have in (1, want) for have, want in zip(shape, output.shape, strict=True))
    require(fits, f"a shape {list(source.shape)} for {list(output.shape)}")
    steps = tuple(step if size > 1 else 0 for step, size in zip(strides(shape), shape, strict=True))
    return copying(site, [source], [Copy(sizes=output.shape, reads=steps, writes=strides(output.shape))])


def reverse(site: Site) -> Layer:
    """Return REVERSE_V2 along constant axes."""
    source, output = site.input(0), site.output()
    _check_types(site, "int8", "int16", "float32")
    rank = len(source.shape)
    axes = {axis_of(axis, rank) for axis in constant_integers(site, 1)}
    require(source.shape == output.shape, "a wrong output shape")
    steps = strides(source.shape)
    copy = Copy(
        sizes=source.shape,
        reads=tuple(-step if axis in axes else step for axis, step in enumerate(steps)),
        writes=steps,
        first_read=sum((source.shape[axis] - 1) * steps[axis] for axis in axes),
    )
    return copying(site, [source], [copy])


def gather(site: Site) -> Layer:
    """Return GATHER: slices along an axis, by indices that are constant, or computed and kept within the axis."""
    source, indices, output = site.input(0), site.input(1), site.output()
    _check_types(site)
    require(indices.dtype == "int32", f"indices of {indices.dtype}; int32 is made")
    rank = len(source.shape)
    axis = axis_of(site.operator.integer("Axis"), rank)
    shared = site.operator.integer("BatchDims")
    require(0 <= shared <= min(axis, len(indices.shape)), f"{shared} batch axes")
    require(source.shape[:shared] == indices.shape[:shared], "batch axes of different sizes")
    want = source.shape[:axis] + indices.shape[shared:] + source.shape[axis + 1 :]
    require(output.shape == want and output.count > 0, "a wrong output shape")
    size = source.shape[axis]
    if indices.value is not None:
        require(int(indices.value.min()) >= 0 and int(indices.value.max()) < size, "indices out of range")
    values: dict[str, object] = {
        "c_type": output.c_type, "batches": prod(source.shape[:shared]), "outer": prod(source.shape[shared:axis]),
        "count": prod(indices.shape[shared:]), "size": size, "inner": prod(source.shape[axis + 1 :]),
        "is_constant": indices.value is not None,
    }  # fmt: skip
    return Layer(
        operator=site.operator,
        text=render(_GATHER, values),
        reads=(source.index, indices.index),
        writes=(output.index,),
        needs=() if indices.value is not None else ("clamped",),
    )

"""Operators that move values without changing them, or only look at them in another shape; of every type.

All of them are copies along strides: axes that lie one behind the other on both sides become one, and what remains
innermost is one memcpy where both sides are dense.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgewright.microcontrollers.graph import ITEM_BYTES, Tensor
from edgewright.microcontrollers.layer import Layer, Site, UnsupportedError, float_literal, render, require
from edgewright.microcontrollers.padding import padded_image

_MAX_RANK = 8
_COPY = """\
static void @({% for i in range(inputs) %}const {{ c_type }} *in{{ i }}, {% endfor %}{% for i in range(outputs) %}\
{{ c_type }} *out{{ i }}{{ ", " if not loop.last }}{% endfor %})
{
{% if depth %}
    int32_t {% for i in range(depth) %}i{{ i }}{{ ", " if not loop.last }}{% endfor %};
{% endif %}
{% for fill in fills %}
{% if fill.is_byte %}
    memset(out0, {{ fill.value if type_bytes == 1 else 0 }}, {{ fill.count }} * sizeof *out0);
{% else %}
    for (i0 = 0; i0 < {{ fill.count }}; ++i0) {
        out0[i0] = {{ fill.value }};
    }
{% endif %}
{% endfor %}
{% for copy in copies %}
{% for axis in copy.axes %}
{{ "    " * loop.index }}for (i{{ axis.index }} = 0; i{{ axis.index }} < {{ axis.size }}; ++i{{ axis.index }}) {
{% endfor %}
{{ "    " * (copy.axes | length + 1) }}{{ copy.statement }}
{% for axis in copy.axes %}
{{ "    " * (copy.axes | length - loop.index0) }}}
{% endfor %}
{% endfor %}
}
"""


@dataclass(frozen=True, kw_only=True)
class Copy:
    """Values of input number `source` that go to output number `target`: sizes, strides and first indices."""

    source: int = 0
    target: int = 0
    sizes: tuple[int, ...]
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    first_read: int = 0
    first_write: int = 0


def reshape(site: Site) -> Layer:
    """Return RESHAPE, SQUEEZE or EXPAND_DIMS: the same memory under another shape."""
    source, output = site.input(0), site.output()
    require(source.dtype == output.dtype, f"types {source.dtype}/{output.dtype}")
    require(source.count == output.count, f"{source.count} values into a shape of {output.count}")
    require(source.value is None, "a constant")
    return Layer(operator=site.operator, reads=(source.index,), writes=(output.index,), is_view=True)


def transpose(site: Site) -> Layer:
    """Return TRANSPOSE."""
    source, output = site.input(0), site.output()
    order = constant_integers(site, 1)
    require(sorted(order) == list(range(len(source.shape))), f"the order {list(order)}")
    require(output.shape == tuple(source.shape[axis] for axis in order), "a wrong output shape")
    steps = strides(source.shape)
    return copying(
        site,
        [source],
        [Copy(sizes=output.shape, reads=tuple(steps[axis] for axis in order), writes=strides(output.shape))],
    )


def concatenation(site: Site) -> Layer:
    """Return CONCATENATION of tensors with one quantization."""
    output = site.output()
    sources = [site.input(position) for position in range(len(site.operator.inputs))]
    require(site.operator.integer("FusedActivationFunction") == 0, "a fused activation")
    axis = axis_of(site.operator.integer("Axis"), len(output.shape))
    copies, at = [], 0
    for number, source in enumerate(sources):
        require(same_scheme(source, output), "inputs whose quantization is not the output's")
        fits = (
            source.shape[:axis] + source.shape[axis + 1 :] == output.shape[:axis] + output.shape[axis + 1 :]
        )
        require(len(source.shape) == len(output.shape) and fits, "shapes that do not fit")
        writes = strides(output.shape)
        copies.append(
            Copy(
                source=number, sizes=source.shape, reads=strides(source.shape), writes=writes,
                first_write=at * writes[axis],
            )
        )  # fmt: skip
        at += source.shape[axis]
    require(at == output.shape[axis], "a wrong output shape")
    return copying(site, sources, copies)


def pack(site: Site) -> Layer:
    """Return PACK: inputs side by side along a new axis."""
    output = site.output()
    sources = [site.input(position) for position in range(len(site.operator.inputs))]
    axis = axis_of(site.operator.integer("Axis"), len(output.shape))
    rest = output.shape[:axis] + output.shape[axis + 1 :]
    steps = strides(output.shape)
    require(len(sources) == output.shape[axis], "a wrong output shape")
    copies = []
    for number, source in enumerate(sources):
        require(same_scheme(source, output), "inputs whose quantization is not the output's")
        require(source.shape == rest, "shapes that do not fit")
        copies.append(
            Copy(
                source=number, sizes=rest, reads=strides(rest), writes=steps[:axis] + steps[axis + 1 :],
                first_write=number * steps[axis],
            )
        )  # fmt: skip
    return copying(site, sources, copies)


def unpack(site: Site) -> Layer:
    """Return UNPACK: slices along an axis, each an output."""
    source = site.input(0)
    axis = axis_of(site.operator.integer("Axis"), len(source.shape))
    rest = source.shape[:axis] + source.shape[axis + 1 :]
    steps = strides(source.shape)
    require(len(site.operator.outputs) == source.shape[axis], "a wrong number of outputs")
    copies = []
    for number in range(len(site.operator.outputs)):
        require(site.output(number).shape == rest, "a wrong output shape")
        copies.append(
            Copy(
                target=number, sizes=rest, reads=steps[:axis] + steps[axis + 1 :], writes=strides(rest),
                first_read=number * steps[axis],
            )
        )  # fmt: skip
    return copying(site, [source], copies)


def split(site: Site) -> Layer:
    """Return SPLIT: equal parts along a constant axis."""
    return _split(site, site.input(1), constant_integers(site, 0))


def split_v(site: Site) -> Layer:
    """Return SPLIT_V: parts of given sizes, which the outputs' shapes tell."""
    return _split(site, site.input(0), constant_integers(site, 2))


def _split(site: Site, source: Tensor, axes: tuple[int, ...]) -> Layer:
    require(len(axes) == 1, "more than one axis")
    axis = axis_of(axes[0], len(source.shape))
    steps = strides(source.shape)
    copies, at = [], 0
    for number in range(len(site.operator.outputs)):
        part = site.output(number)
        fits = part.shape[:axis] + part.shape[axis + 1 :] == source.shape[:axis] + source.shape[axis + 1 :]
        require(len(part.shape) == len(source.shape) and fits, "shapes that do not fit")
        copies.append(
            Copy(
                target=number,
                sizes=part.shape,
                reads=steps,
                writes=strides(part.shape),
                first_read=at * steps[axis],
            )
        )
        at += part.shape[axis]
    require(at == source.shape[axis], "parts that are not the whole")
    return copying(site, [source], copies)


def slice_(site: Site) -> Layer:
    """Return SLICE with constant begin and size."""
    source, output = site.input(0), site.output()
    begins, sizes = constant_integers(site, 1), constant_integers(site, 2)
    ranks = {len(begins), len(sizes), len(source.shape), len(output.shape)}
    require(len(ranks) == 1, "begin, size or output of another rank")
    for begin, size, have, want in zip(begins, sizes, source.shape, output.shape, strict=True):
        real = have - begin if size == -1 else size
        require(begin >= 0 and real == want and begin + real <= have, "a slice that reaches over the edge")
    steps = strides(source.shape)
    first = sum(begin * step for begin, step in zip(begins, steps, strict=True))
    return copying(
        site,
        [source],
        [Copy(sizes=output.shape, reads=steps, writes=strides(output.shape), first_read=first)],
    )


def strided_slice(site: Site) -> Layer:
    """Return STRIDED_SLICE with constant begin, end and strides; without ellipsis and new axes."""
    source, output = site.input(0), site.output()
    begins, ends, steps = (constant_integers(site, position) for position in (1, 2, 3))
    rank = len(source.shape)
    require(len(begins) == len(ends) == len(steps) == rank, "begin, end and strides of another rank")
    for mask in ("EllipsisMask", "NewAxisMask", "Offset"):
        require(site.operator.integer(mask) == 0, mask)
    masks = [site.operator.integer(name) for name in ("BeginMask", "EndMask", "ShrinkAxisMask")]
    dense = strides(source.shape)
    sizes, reads, first = [], [], 0
    for axis, (begin, end, step, size) in enumerate(zip(begins, ends, steps, source.shape, strict=True)):
        require(step != 0, "a stride of 0")
        low, high = (0, size) if step > 0 else (-1, size - 1)
        start = begin + size if begin < 0 else begin
        start = (low if step > 0 else high) if masks[0] >> axis & 1 else min(max(start, low), high)
        stop = end + size if end < 0 else end
        stop = (high if step > 0 else low) if masks[1] >> axis & 1 else min(max(stop, low), high)
        if masks[2] >> axis & 1:
            require(0 <= start < size and step > 0, "a shrunk axis out of range")
            first += start * dense[axis]
            continue
        count = max(0, -((start - stop) // step) if step > 0 else -((stop - start) // -step))
        sizes.append(count)
        reads.append(step * dense[axis])
        first += start * dense[axis]
    shape = tuple(sizes)
    require(
        shape == output.shape and output.count > 0,
        f"an output of shape {list(output.shape)}, not {list(shape)}",
    )
    copy = Copy(sizes=shape, reads=tuple(reads), writes=strides(shape), first_read=first)
    return copying(site, [source], [copy])


def pad(site: Site) -> Layer:
    """Return PAD or PADV2 with constant paddings."""
    source, output = site.input(0), site.output()
    around = constant_integers(site, 1)
    require(len(around) == 2 * len(source.shape) and min(around, default=0) >= 0, "paddings of another rank")
    before, after = around[0::2], around[1::2]
    want = tuple(a + size + b for a, size, b in zip(before, source.shape, after, strict=True))
    require(want == output.shape, "a wrong output shape")
    require(same_scheme(source, output), "an output whose quantization is not the input's")
    if site.has_input(2):
        given = site.input(2)
        require(given.value is not None and given.count == 1, "a value that is no constant")
        require(same_scheme(given, output), "a value whose quantization is not the output's")
        assert given.value is not None
        first = given.value.reshape(-1)[0]
        value = float_literal(float(first)) if output.dtype == "float32" else str(int(first))
    else:
        value = str(output.zero_point) if output.is_quantized else "0"
    require(source.dtype == output.dtype, f"types {source.dtype}/{output.dtype}")
    by_rows = padded_image(site, before, after, value, is_zero=float(value.rstrip("f")) == 0.0)
    if by_rows is not None:
        return by_rows
    steps = strides(output.shape)
    first = sum(at * step for at, step in zip(before, steps, strict=True))
    copy = Copy(sizes=source.shape, reads=strides(source.shape), writes=steps, first_write=first)
    return copying(site, [source], [copy], fill=value)


def copying(
    site: Site, sources: Sequence[Tensor], copies: Sequence[Copy], *, fill: str | None = None
) -> Layer:
    """Return the layer that makes `copies` from `sources` to the operator's outputs.

    Args:
        fill: a value for the whole first output beforehand, as C.
    """
    outputs = [site.output(number) for number in range(len(site.operator.outputs))]
    for tensor in (*sources, *outputs):
        require(tensor.dtype == outputs[0].dtype, f"types {tensor.dtype}/{outputs[0].dtype}")
        require(tensor.count > 0, "an empty tensor")
        require(len(tensor.shape) <= _MAX_RANK, f"rank {len(tensor.shape)}")
    item = ITEM_BYTES[outputs[0].dtype]
    described = [_described(copy, item) for copy in copies]
    is_byte = fill is not None and (item == 1 or float(fill.rstrip("f")) == 0.0)
    fills = [] if fill is None else [{"value": fill, "count": outputs[0].count, "is_byte": is_byte}]
    depth = max([len(one["axes"]) for one in described] + [0 if is_byte or not fills else 1])
    values: dict[str, object] = {
        "inputs": len(sources), "outputs": len(outputs), "c_type": outputs[0].c_type, "copies": described,
        "fills": fills, "type_bytes": item, "depth": depth,
    }  # fmt: skip
    return Layer(
        operator=site.operator,
        text=render(_COPY, values),
        reads=tuple(source.index for source in sources),
        writes=tuple(output.index for output in outputs),
    )


def constant_integers(site: Site, position: int) -> tuple[int, ...]:
    """Return the values of a constant input of integers.

    Raises:
        UnsupportedError: it is computed at run time.
    """
    tensor = site.input(position)
    if tensor.value is None or tensor.dtype not in ("int32", "int64"):
        raise UnsupportedError(f"input {position} is computed at run time")
    return tuple(int(value) for value in tensor.value.reshape(-1))


def axis_of(axis: int, rank: int) -> int:
    """Return `axis` counted from the front.

    Raises:
        UnsupportedError: there is no such axis.
    """
    require(-rank <= axis < rank, f"axis {axis} of rank {rank}")
    return axis % rank


def strides(shape: Sequence[int]) -> tuple[int, ...]:
    """Return how far apart neighbours along each axis of a dense tensor are."""
    step, made = 1, []
    for size in reversed(shape):
        made.append(step)
        step *= size
    return tuple(made[::-1])


def same_scheme(one: Tensor, other: Tensor) -> bool:
    """Return whether both tensors stand for the same numbers."""
    if not one.is_quantized or not other.is_quantized:
        return one.is_quantized == other.is_quantized
    return (
        len(one.scales) == len(other.scales) == 1
        and one.scale == other.scale
        and one.zero_point == other.zero_point
    )


def _described(copy: Copy, item: int) -> dict[str, list[dict[str, int]]]:
    axes: list[tuple[int, int, int]] = []
    for size, read, write in zip(copy.sizes, copy.reads, copy.writes, strict=True):
        if size == 1:
            continue
        # An axis whose step is the whole extent of the next one on both sides is one axis with it.
        if axes and axes[-1][1] == size * read and axes[-1][2] == size * write:
            axes[-1] = (axes[-1][0] * size, read, write)
        else:
            axes.append((size, read, write))
    run = axes.pop()[0] if axes and axes[-1][1] == 1 and axes[-1][2] == 1 else 1
    source = _address(f"in{copy.source}", copy.first_read, [read for _, read, _ in axes])
    target = _address(f"out{copy.target}", copy.first_write, [write for _, _, write in axes])
    statement = f"memcpy({target}, {source}, {run * item});" if run > 1 else f"*({target}) = *({source});"
    described: dict[str, object] = {
        "axes": [{"index": number, "size": size} for number, (size, _, _) in enumerate(axes)],
        "statement": statement,
    }
    return described  # type: ignore[return-value]


def _address(base: str, first: int, steps: Sequence[int]) -> str:
    terms = [base] + ([str(first)] if first else [])
    terms += [
        f"i{number} * {step}" if step >= 0 else f"i{number} * ({step})" for number, step in enumerate(steps)
    ]
    return " + ".join(terms)

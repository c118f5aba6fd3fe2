"""Core ML operators with weights or windows: convolution, pooling, products of matrices, normalisation, attention.

A convolution is a sum over the positions of its kernel, each a product of matrices: no copy of all windows is made, and
nothing of the frameworks that the source is run by takes part. Sums accumulate in float32.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Sequence

import numpy as np

from edgewright.backends.coreml_call import Call, Floats, Operator, as_floats, axis_of, computable, limit
from edgewright.backends.coreml_ops_math import softmax
from edgewright.core.tensors import Array

_EQUATION = re.compile(r"[A-Za-z]*(,[A-Za-z]*)*->[A-Za-z]*")


def _paddings(
    call: Call, sizes: Sequence[int], kernel: Sequence[int], strides: Sequence[int]
) -> list[tuple[int, int]]:
    """Return the padding before and after each spatial dimension; `kernel` has its dilation in it.

    `same` gives ceil(size / stride) outputs and puts an odd row at the end, `same_lower` at the beginning.
    """
    kind = call.text("pad_type", "valid").lower()
    if kind == "valid":
        return [(0, 0)] * len(sizes)
    if kind == "custom":
        pads = call.integers("pad", [0] * (2 * len(sizes)))
        if len(pads) != 2 * len(sizes) or any(pad < 0 for pad in pads):
            raise call.refuse(f"has the padding {pads[:8]} for {len(sizes)} dimensions")
        return list(zip(pads[::2], pads[1::2], strict=True))
    if kind in ("same", "same_lower"):
        result = []
        for size, width, stride in zip(sizes, kernel, strides, strict=True):
            total = max((-(-size // stride) - 1) * stride + width - size, 0)
            small, large = total // 2, total - total // 2
            result.append((small, large) if kind == "same" else (large, small))
        return result
    raise call.refuse(f"has the unknown pad_type {kind!r}")


def _padded(x: Floats, pads: Sequence[tuple[int, int]], fill: float) -> Floats:
    limit([*x.shape[:2], *(size + sum(pad) for size, pad in zip(x.shape[2:], pads, strict=True))])
    return np.pad(x, [(0, 0), (0, 0), *pads], constant_values=np.float32(fill))


def _taps(
    x: Floats, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int], out: Sequence[int]
) -> Iterator[Floats]:
    """Yield for each position of the kernel, row by row, what meets it: a view [n, c, *out] of the padded `x`."""
    for place in itertools.product(*(range(size) for size in kernel)):
        window = tuple(
            slice(at * dilation, at * dilation + (count - 1) * stride + 1, stride)
            for at, dilation, stride, count in zip(place, dilations, strides, out, strict=True)
        )
        yield x[(slice(None), slice(None), *window)]


def _conv(call: Call) -> Array:
    x, weight, bias = call.floats("x"), call.floats("weight"), call.optional("bias")
    rank = x.ndim - 2
    if not 1 <= rank <= 3 or weight.ndim != x.ndim:
        raise call.refuse(f"has an input of rank {x.ndim} and a weight of rank {weight.ndim}")
    strides = call.sizes("strides", [1] * rank, rank)
    dilations = call.sizes("dilations", [1] * rank, rank)
    groups = call.integer("groups", 1)
    channels_out, channels_in = weight.shape[:2]
    if groups < 1 or channels_out % groups or x.shape[1] != channels_in * groups:
        raise call.refuse(f"has {x.shape[1]} channels, {groups} groups and a weight {list(weight.shape)}")
    kernel = weight.shape[2:]
    widths = [(size - 1) * dilation + 1 for size, dilation in zip(kernel, dilations, strict=True)]
    padded = _padded(x, _paddings(call, x.shape[2:], widths, strides), 0.0)
    out = [
        (size - width) // stride + 1
        for size, width, stride in zip(padded.shape[2:], widths, strides, strict=True)
    ]
    if any(size < 1 for size in out):
        raise call.refuse(f"has a kernel {list(kernel)} larger than its input {list(x.shape)}")
    limit([x.shape[0], channels_out, *out])
    pixels = math.prod(out)
    result = np.zeros((x.shape[0], groups, channels_out // groups, pixels), np.float32)
    taps = weight.reshape(groups, channels_out // groups, channels_in, -1)
    for place, seen in enumerate(_taps(padded, kernel, strides, dilations, out)):
        columns = seen.reshape(x.shape[0], groups, channels_in, pixels)
        factors = taps[..., place]
        result += factors * columns if channels_in == 1 else np.matmul(factors, columns)
    result = result.reshape(x.shape[0], channels_out, *out)
    return _biased(result, bias)


def _biased(result: Floats, bias: Floats | None) -> Floats:
    if bias is None:
        return result
    return result + bias.reshape([-1 if axis == 1 else 1 for axis in range(result.ndim)])


def _conv_transpose(call: Call) -> Array:
    """Each input is spread over the outputs by the kernel; then the padding is cut off."""
    x, weight, bias = call.floats("x"), call.floats("weight"), call.optional("bias")
    rank = x.ndim - 2
    if not 1 <= rank <= 3 or weight.ndim != x.ndim or weight.shape[0] != x.shape[1]:
        raise call.refuse(f"has an input {list(x.shape)} and a weight {list(weight.shape)}")
    strides = call.sizes("strides", [1] * rank, rank)
    dilations = call.sizes("dilations", [1] * rank, rank)
    groups = call.integer("groups", 1)
    if groups < 1 or x.shape[1] % groups:
        raise call.refuse(f"has {x.shape[1]} channels in {groups} groups")
    kernel = weight.shape[2:]
    full = [
        (size - 1) * stride + (width - 1) * dilation + 1
        for size, stride, width, dilation in zip(x.shape[2:], strides, kernel, dilations, strict=True)
    ]
    batch, channels_in, channels_out = x.shape[0], x.shape[1] // groups, weight.shape[1]
    limit([batch, groups * channels_out, *full])
    spread = np.zeros((batch, groups * channels_out, *full), np.float32)
    inputs = x.reshape(batch, groups, channels_in, -1)
    taps = weight.reshape(groups, channels_in, channels_out, -1)
    for place, view in enumerate(_taps(spread, kernel, strides, dilations, x.shape[2:])):
        factors = taps[..., place].transpose(0, 2, 1)
        view += np.matmul(factors, inputs).reshape(view.shape)
    return _biased(_cut(call, spread, x.shape[2:], strides), bias)


def _cut(call: Call, spread: Floats, sizes: Sequence[int], strides: Sequence[int]) -> Floats:
    """Return the part of a transposed convolution that its padding leaves; zeros where it asks for more."""
    kind = call.text("pad_type", "valid").lower()
    full, rank = spread.shape[2:], len(sizes)
    begins, wanted = [0] * rank, list(full)
    if kind == "custom":
        pads = call.integers("pad", [0] * (2 * rank))
        if len(pads) != 2 * rank or any(pad < 0 for pad in pads):
            raise call.refuse(f"has the padding {pads[:8]} for {rank} dimensions")
        begins = pads[::2]
        wanted = [size - before - after for size, before, after in zip(full, begins, pads[1::2], strict=True)]
    elif kind == "same":
        wanted = [size * stride for size, stride in zip(sizes, strides, strict=True)]
        begins = [max(size - want, 0) // 2 for size, want in zip(full, wanted, strict=True)]
    elif kind != "valid":
        raise call.refuse(f"has the unknown pad_type {kind!r}")
    if call.has("output_shape"):
        wanted = call.integers("output_shape")[-rank:]
        if kind == "same":
            begins = [max(size - want, 0) // 2 for size, want in zip(full, wanted, strict=True)]
    if any(want < 1 for want in wanted):
        raise call.refuse(f"would have the output size {wanted}")
    limit([*spread.shape[:2], *wanted])
    window = tuple(slice(begin, begin + want) for begin, want in zip(begins, wanted, strict=True))
    kept = spread[(slice(None), slice(None), *window)]
    missing = [(0, want - size) for want, size in zip(wanted, kept.shape[2:], strict=True)]
    return np.pad(kept, [(0, 0), (0, 0), *missing])


def _pool(call: Call, kind: str) -> Array:
    x = call.floats("x")
    rank = x.ndim - 2
    kernel = call.sizes("kernel_sizes", [], rank)
    strides = call.sizes("strides", [1] * rank, rank)
    pads = _paddings(call, x.shape[2:], kernel, strides)
    is_ceil = call.flag("ceil_mode", False)
    out, extra = [], []
    for size, width, stride, pad in zip(x.shape[2:], kernel, strides, pads, strict=True):
        room = size + sum(pad) - width
        count = (-(-room // stride) if is_ceil else room // stride) + 1
        if is_ceil and max(pad) and (count - 1) * stride >= size + pad[0]:
            count -= 1  # the last window would begin in the padding
        if count < 1 or room < 0:
            raise call.refuse(f"has a window {kernel} larger than its input {list(x.shape)}")
        out.append(count)
        extra.append(max((count - 1) * stride + width - size - sum(pad), 0))
    around = [(before, after + more) for (before, after), more in zip(pads, extra, strict=True)]
    padded = _padded(x, around, -np.inf if kind == "max" else 0.0)
    ones = [1] * rank
    views = _taps(padded, kernel, strides, ones, out)
    if kind == "max":
        result = next(views).copy()
        for view in views:
            np.maximum(result, view, out=result)
        return result
    total = np.zeros((*x.shape[:2], *out), np.float32)
    for view in views:
        total += np.square(view) if kind == "l2" else view
    if kind == "l2":
        return np.sqrt(total)
    # What counts: the input alone, or its padding too, but never the rows that rounding up adds.
    counts_padding = not call.flag("exclude_padding_from_average", False)
    inner = np.ones((1, 1, *x.shape[2:]), np.float32)
    counted = _padded(
        _padded(inner, pads, 1.0 if counts_padding else 0.0), [(0, more) for more in extra], 0.0
    )
    share = np.zeros((1, 1, *out), np.float32)
    for view in _taps(counted, kernel, strides, ones, out):
        share += view
    return total / share


def _linear(call: Call) -> Array:
    x, weight, bias = call.floats("x"), call.floats("weight"), call.optional("bias")
    limit([*x.shape[:-1], weight.shape[0]])
    result = np.asarray(np.matmul(x, weight.T), np.float32)
    return result if bias is None else result + bias


def _matmul(call: Call) -> Array:
    x, y = computable(call.array("x")), computable(call.array("y"))
    if call.flag("transpose_x", False) and x.ndim > 1:
        x = np.swapaxes(x, -1, -2)
    if call.flag("transpose_y", False) and y.ndim > 1:
        y = np.swapaxes(y, -1, -2)
    if x.ndim > 1 and y.ndim > 1:
        limit([*np.broadcast_shapes(x.shape[:-2], y.shape[:-2]), x.shape[-2], y.shape[-1]])
    return np.asarray(np.matmul(x, y))


def _einsum(call: Call) -> Array:
    equation = call.text("equation").replace(" ", "")
    values = [computable(value) for value in call.arrays("values")]
    if not _EQUATION.fullmatch(equation):
        raise call.refuse(f"has the equation {equation[:80]!r}; letters, commas and one arrow are read")
    sizes: dict[str, int] = {}
    left, right = equation.split("->")
    for letters, value in zip(left.split(","), values, strict=True):
        sizes |= dict(zip(letters, value.shape, strict=True))
    limit([sizes.get(letter, 0) for letter in right])
    return np.asarray(np.einsum(equation, *values, optimize=False))


def _scale_and_shift(x: Floats, gamma: Floats | None, beta: Floats | None, shape: Sequence[int]) -> Floats:
    if gamma is not None:
        x = x * gamma.reshape(shape)
    return x if beta is None else x + beta.reshape(shape)


def _batch_norm(call: Call) -> Array:
    x = call.floats("x")
    shape = [-1 if axis == 1 else 1 for axis in range(x.ndim)]
    spread = np.sqrt(call.floats("variance").reshape(shape) + call.number("epsilon", 1e-5))
    normal = (x - call.floats("mean").reshape(shape)) / spread
    return _scale_and_shift(normal, call.optional("gamma"), call.optional("beta"), shape)


def _normalised(x: Floats, axes: tuple[int, ...], epsilon: np.float32) -> Floats:
    centred = x - x.mean(axis=axes, keepdims=True)
    variance = np.square(centred).mean(axis=axes, keepdims=True)
    return np.asarray(centred / np.sqrt(variance + epsilon), np.float32)


def _instance_norm(call: Call) -> Array:
    x = call.floats("x")
    normal = _normalised(x, tuple(range(2, x.ndim)), call.number("epsilon", 1e-5))
    shape = [-1 if axis == 1 else 1 for axis in range(x.ndim)]
    return _scale_and_shift(normal, call.optional("gamma"), call.optional("beta"), shape)


def _layer_norm(call: Call) -> Array:
    x = call.floats("x")
    axes = tuple(sorted(axis_of(axis, x.ndim) for axis in call.integers("axes", range(x.ndim))))
    normal = _normalised(x, axes, call.number("epsilon", 1e-5))
    shape = [size if axis in axes else 1 for axis, size in enumerate(x.shape)]
    return _scale_and_shift(normal, call.optional("gamma"), call.optional("beta"), shape)


def _l2_norm(call: Call) -> Array:
    x = call.floats("x")
    squares = np.square(x).sum(axis=(-3, -2, -1), keepdims=True)
    return np.asarray(x / np.sqrt(squares + call.number("epsilon", 1e-6)))


def _local_response_norm(call: Call) -> Array:
    """x / (k + alpha / size * sum of the squares of `size` neighbouring channels)^beta"""
    x, size = call.floats("x"), call.integer("size")
    if size < 1 or size % 2 == 0:
        raise call.refuse(f"has a window of {size} channels; only odd ones have a centre that is documented")
    limit([x.shape[0], x.shape[1] + size, *x.shape[2:]])
    half = size // 2
    squares = np.pad(np.square(x), [(0, 0), (half, half)] + [(0, 0)] * (x.ndim - 2))
    total = np.zeros_like(x)
    for start in range(min(size, squares.shape[1])):
        total += squares[:, start : start + x.shape[1]]
    scale = call.number("k", 1.0) + call.number("alpha", 1e-4) / np.float32(size) * total
    return np.asarray(x / np.power(scale, call.number("beta", 0.75)))


def _attention(call: Call) -> Array:
    """softmax(query key^T / sqrt(E) + mask) value, all in float32; a false element of a boolean mask is left out."""
    query, key, value = call.floats("query"), call.floats("key"), call.floats("value")
    limit([*query.shape[:-1], key.shape[-2]])
    scores = np.matmul(query, np.swapaxes(key, -1, -2)) / np.float32(math.sqrt(query.shape[-1]))
    if call.has("attn_mask"):
        mask = call.array("attn_mask")
        added = np.where(mask, np.float32(0), np.float32(-np.inf)) if mask.dtype == bool else as_floats(mask)
        scores = scores + added
    return np.asarray(np.matmul(softmax(scores, scores.ndim - 1), value))


OPERATORS: dict[str, Operator] = {
    "avg_pool": lambda call: _pool(call, "avg"),
    "batch_norm": _batch_norm,
    "conv": _conv,
    "conv_transpose": _conv_transpose,
    "einsum": _einsum,
    "instance_norm": _instance_norm,
    "l2_norm": _l2_norm,
    "l2_pool": lambda call: _pool(call, "l2"),
    "layer_norm": _layer_norm,
    "linear": _linear,
    "local_response_norm": _local_response_norm,
    "matmul": _matmul,
    "max_pool": lambda call: _pool(call, "max"),
    "scaled_dot_product_attention": _attention,
}

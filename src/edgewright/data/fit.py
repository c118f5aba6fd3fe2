"""Check that an array of samples is what one model input takes, and say what to do when it is not."""

from __future__ import annotations

import math

import numpy as np

from edgewright.core.errors import DataError
from edgewright.core.tensors import Array, TensorSpec

_TO_FLOAT32 = ("float16", "float64")


def sample_shapes(spec: TensorSpec) -> list[tuple[int | None, ...]]:
    """Return the shapes one sample of `spec` may have: without a batch of 1 or ?, or in full when static."""
    full = tuple(spec.shape)
    if full and full[0] is None:
        return [full[1:]]
    if full and full[0] == 1:
        return [full[1:], full]
    return [full]


def fit_array(array: Array, spec: TensorSpec, *, what: str) -> tuple[Array, str]:
    """Return `array` ([n, ...]) in the dtype of `spec`, with a note where it was cast.

    Raises:
        DataError: the shape or the dtype does not fit; the message says how to change it.
    """
    _require_shape(array, spec, what=what)
    have = str(array.dtype.newbyteorder("="))
    native = array.astype(array.dtype.newbyteorder("="), copy=False)
    if have == spec.dtype:
        return native, ""
    if spec.dtype == "float32" and have in _TO_FLOAT32:
        with np.errstate(over="ignore"):
            cast = native.astype(np.float32)
        return cast, f"{spec.name!r} cast from {have} to float32"
    raise DataError(
        f"{what}: {spec.name!r} has dtype {have}, but the model takes {spec}. {_dtype_advice(have, spec)}"
    )


def _dtype_advice(have: str, spec: TensorSpec) -> str:
    if spec.dtype.startswith("float") and not have.startswith("float"):
        return (
            "Cast and scale it as in training (for 8-bit images often x.astype('float32') / 255); "
            "the scale is not guessed."
        )
    if spec.dtype in ("int8", "uint8") and have.startswith("float"):
        return "The input is quantized: give the raw integers, round(x / scale) + zero_point."
    if {have, spec.dtype} == {"int8", "uint8"}:
        return (
            "Both are 8 bit, but 128 apart: give the values that the model takes (often uint8 - 128 = int8)."
        )
    return f"Cast it first: x.astype({spec.dtype!r})."


def _require_shape(array: Array, spec: TensorSpec, *, what: str) -> None:
    got = tuple(array.shape[1:])
    wanted = sample_shapes(spec)
    if any(matches(got, want) for want in wanted):
        return
    raise DataError(
        f"{what}: {spec.name!r} has shape {_show(array.shape)}, sample axis first, but the model takes "
        f"{spec}. {_shape_advice(tuple(array.shape), wanted[0], spec)}"
    )


def _shape_advice(shape: tuple[int, ...], want: tuple[int | None, ...], spec: TensorSpec) -> str:
    got = shape[1:]
    aim = _show((shape[0], *want))
    if len(got) == len(want) == 3:
        if matches((got[2], got[0], got[1]), want):
            return (
                f"The data is channels last, the model channels first: x.transpose(0, 3, 1, 2) gives {aim}."
            )
        if matches((got[1], got[2], got[0]), want):
            return (
                f"The data is channels first, the model channels last: x.transpose(0, 2, 3, 1) gives {aim}."
            )
    if len(got) == len(want) == 2 and matches((got[1], got[0]), want):
        return f"The axes are the other way round: x.transpose(0, 2, 1) gives {aim}."
    for axis, size in enumerate(want):
        if size == 1 and matches(got, want[:axis] + want[axis + 1 :]):
            return f"Add the channel axis: numpy.expand_dims(x, {axis + 1}) gives {aim}."
    for axis, size in enumerate(got):
        if size == 1 and matches(got[:axis] + got[axis + 1 :], want):
            return f"Remove the axis of size 1: x.squeeze({axis + 1}) gives {aim}."
    if matches(shape, want):
        return f"The sample axis is missing: this is one sample; x[None] gives {_show((1, *want))}."
    if spec.shape and spec.shape[0] not in (1, None) and matches(got, tuple(spec.shape[1:])):
        return (
            f"The model's batch is fixed at {spec.shape[0]}: export it with batch 1 or a dynamic batch, "
            f"or give samples of shape {_show(want)}."
        )
    sizes = [size for size in want if size is not None]
    if len(sizes) == len(want) and math.prod(sizes) == math.prod(got):
        return f"The element count fits: if the order is right, use x.reshape({aim})."
    return f"Samples of shape {_show(want)} are expected."


def matches(got: tuple[int | None, ...], want: tuple[int | None, ...]) -> bool:
    """Return whether the sizes `got` are those of `want`, where None stands for any."""
    return len(got) == len(want) and all(w is None or g == w for g, w in zip(got, want, strict=True))


def _show(shape: tuple[int | None, ...]) -> str:
    return "[" + ", ".join("?" if size is None else str(size) for size in shape) + "]"

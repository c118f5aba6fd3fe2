"""Core ML operators that resample the last two dimensions.

How a grid is laid over the input is MIL's `sampling_mode`; the formulas are those of `resize_bilinear`'s documentation.
"""

from __future__ import annotations

import math

import numpy as np

from edgewright.backends.coreml_call import Call, Floats, Operator, limit
from edgewright.core.tensors import Array


def _grid(size: int, count: int, mode: str, call: Call) -> Floats:
    """Return the `count` places, between 0 and size - 1, at which a line of `size` values is read."""
    steps = np.arange(count, dtype=np.float64)
    if mode in ("STRICT_ALIGN_CORNERS", "ALIGN_CORNERS"):
        if count == 1:
            places = steps + ((size - 1) / 2 if mode == "ALIGN_CORNERS" else 0.0)
        else:
            places = steps * (size - 1) / (count - 1)
    elif mode == "DEFAULT":
        places = steps * size / count
    elif mode == "OFFSET_CORNERS":
        delta = max(1, size - 1) / count
        places = 0.5 * delta + steps * delta
    elif mode == "UNALIGN_CORNERS":
        places = (steps + 0.5) * size / count - 0.5
    else:
        raise call.refuse(f"has the unknown sampling_mode {mode!r}")
    return np.clip(places, 0, size - 1).astype(np.float32)


def _linear_along(x: Floats, axis: int, places: Floats) -> Floats:
    size = x.shape[axis]
    low = np.floor(places).astype(np.int64)
    high = np.minimum(low + 1, size - 1)
    part = (places - low).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(x.ndim)])
    return np.asarray(
        np.take(x, low, axis=axis) * (1 - part) + np.take(x, high, axis=axis) * part, np.float32
    )


def _bilinear(x: Floats, sizes: tuple[int, int], mode: str, call: Call) -> Array:
    if x.ndim < 2 or 0 in x.shape or min(sizes) < 1:
        raise call.refuse(f"makes {list(sizes)} of {list(x.shape)}")
    limit([*x.shape[:-2], max(sizes[0], x.shape[-2]), max(sizes[1], x.shape[-1])])
    for axis, count in zip((x.ndim - 2, x.ndim - 1), sizes, strict=True):
        x = _linear_along(x, axis, _grid(x.shape[axis], count, mode, call))
    return x


def _nearest(x: Array, sizes: tuple[int, int], call: Call) -> Array:
    """Element i is read at floor(i * size / count)."""
    if x.ndim < 2 or 0 in x.shape or min(sizes) < 1:
        raise call.refuse(f"makes {list(sizes)} of {list(x.shape)}")
    limit([*x.shape[:-2], *sizes])
    for axis, count in zip((x.ndim - 2, x.ndim - 1), sizes, strict=True):
        x = np.take(x, np.arange(count) * x.shape[axis] // count, axis=axis)
    return x


def _scaled(x: Array, call: Call) -> tuple[int, int]:
    sizes = []
    for axis, name in ((-2, "scale_factor_height"), (-1, "scale_factor_width")):
        factor = float(call.array(name).reshape(-1)[0]) if call.has(name) else 1.0
        if not 0 < factor < 1e6:
            raise call.refuse(f"has the factor {factor}")
        sizes.append(math.floor(factor * x.shape[axis]))
    return sizes[0], sizes[1]


def _upsample_bilinear(call: Call) -> Array:
    x = call.floats("x")
    aligns = call.flag("align_corners", True)
    is_half = call.flag("half_pixel_centers", not aligns)
    if aligns and is_half:
        raise call.refuse("has both align_corners and half_pixel_centers")
    mode = "STRICT_ALIGN_CORNERS" if aligns else "UNALIGN_CORNERS" if is_half else "DEFAULT"
    return _bilinear(x, _scaled(x, call), mode, call)


def _target(call: Call) -> tuple[int, int]:
    return call.integer("target_size_height", 1), call.integer("target_size_width", 1)


def _resize(call: Call) -> Array:
    """The last `resized_dims` sizes are those of `shape`, where 0 keeps the input's."""
    x, shape, count = call.array("x"), call.integers("shape"), call.integer("resized_dims")
    if not 0 <= count <= min(len(shape), x.ndim, 2) or x.ndim < 2:
        raise call.refuse(f"resizes {count} dimensions of a tensor of rank {x.ndim}; at most 2 are")
    sizes = list(x.shape[x.ndim - count :]) if count else []
    wanted = [want or have for want, have in zip(shape[len(shape) - count :], sizes, strict=True)]
    height, width = (x.shape[-2], x.shape[-1], *wanted)[-2:]
    mode, sampling = call.text("interpolation_mode", "LINEAR"), call.text("sampling_mode", "DEFAULT")
    if mode == "LINEAR":
        return _bilinear(call.floats("x"), (height, width), sampling, call)
    if mode == "NEAREST_NEIGHBOR" and sampling == "DEFAULT":
        return _nearest(x, (height, width), call)
    raise call.refuse(f"with {mode} and {sampling} is not documented well enough to be executed")


def _crop(call: Call) -> Array:
    x = call.array("x")
    top, bottom = call.integers("crop_height")
    left, right = call.integers("crop_width")
    if (
        x.ndim < 2
        or min(top, bottom, left, right) < 0
        or top + bottom > x.shape[-2]
        or left + right > x.shape[-1]
    ):
        raise call.refuse(f"cuts {[top, bottom, left, right]} off a tensor {list(x.shape)}")
    return x[..., top : x.shape[-2] - bottom, left : x.shape[-1] - right]


def _resample(call: Call) -> Array:
    """Each output is read at its own place (x, y) of the image, bilinearly or at the nearest element."""
    x, places = call.floats("x"), call.array("coordinates").astype(np.float32)
    if x.ndim != 4 or places.ndim != 4 or places.shape[-1] != 2 or len(places) != len(x) or 0 in x.shape:
        raise call.refuse(f"reads {list(x.shape)} at {list(places.shape)}")
    limit([*x.shape[:2], *places.shape[1:3]])
    height, width = x.shape[2:]
    across = _pixels(places[..., 0], width, call)
    down = _pixels(places[..., 1], height, call)
    sampling = call.text("sampling_mode")
    if sampling == "nearest":
        return _read(x, np.round(down), np.round(across), call)
    if sampling != "bilinear":
        raise call.refuse(f"has the unknown sampling_mode {sampling!r}")
    top, left = np.floor(down), np.floor(across)
    low, far = (down - top)[:, None], (across - left)[:, None]
    above = _read(x, top, left, call) * (1 - far) + _read(x, top, left + 1, call) * far
    below = _read(x, top + 1, left, call) * (1 - far) + _read(x, top + 1, left + 1, call) * far
    return np.asarray(above * (1 - low) + below * low)


def _pixels(places: Floats, size: int, call: Call) -> Floats:
    """Return coordinates as pixels, moved inside where the padding repeats the border."""
    mode = call.text("coordinates_mode")
    if mode != "unnormalized":
        if mode == "normalized_minus_one_to_one":
            places = (places + np.float32(1)) / np.float32(2)
        elif mode != "normalized_zero_to_one":
            raise call.refuse(f"has the unknown coordinates_mode {mode!r}")
        is_aligned = call.flag("align_corners", True)
        places = np.asarray(
            places * (size - 1) if is_aligned else places * size - np.float32(0.5), np.float32
        )
    return (
        np.asarray(np.clip(places, 0, size - 1), np.float32)
        if call.text("padding_mode") == "border"
        else places
    )


def _read(x: Floats, down: Floats, across: Floats, call: Call) -> Floats:
    """Return [n, c, h, w] of the pixels at whole places [n, h, w]; outside is the padding's value."""
    padding = call.text("padding_mode")
    if padding not in ("constant", "border"):
        raise call.refuse(f"with padding_mode {padding!r} is not executed here")
    height, width = x.shape[2:]
    is_inside = (down >= 0) & (down <= height - 1) & (across >= 0) & (across <= width - 1)
    rows = np.clip(np.nan_to_num(down), 0, height - 1).astype(np.int64)
    columns = np.clip(np.nan_to_num(across), 0, width - 1).astype(np.int64)
    images = np.arange(len(x))[:, None, None]
    values = x.transpose(0, 2, 3, 1)[images, rows, columns].transpose(0, 3, 1, 2)
    if padding == "border":
        return np.asarray(values, np.float32)
    return np.asarray(np.where(is_inside[:, None], values, call.number("padding_value", 0.0)), np.float32)


OPERATORS: dict[str, Operator] = {
    "crop": _crop,
    "resample": _resample,
    "resize": _resize,
    "resize_bilinear": lambda call: _bilinear(
        call.floats("x"), _target(call), call.text("sampling_mode", "DEFAULT"), call
    ),
    "resize_nearest_neighbor": lambda call: _nearest(call.array("x"), _target(call), call),
    "upsample_bilinear": _upsample_bilinear,
    "upsample_nearest_neighbor": lambda call: _nearest(call.array("x"), _scaled(call.array("x"), call), call),
}

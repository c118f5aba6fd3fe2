"""Resampling of images along one axis: which pixels make an output pixel, and with which weights.

uint8 images are resampled in integers, so that every implementation of these definitions gives the same bytes.

Point sampling (bilinear and bicubic without antialias): an output pixel i lies at the source position

    half_pixel  ((2 i + 1) size - out) / (2 out)        pixels are areas (OpenCV, Pillow, TF2, torch)
    asymmetric  i size / out                            TF1 resize_bilinear, half_pixel_centers=False
    align       i (size - 1) / (out - 1); 0 if out is 1  TF1 and torch, align_corners=True

a fraction of whole numbers, whose floor f and remainder t are exact. Weights have 11 bits a direction, the sum over
both directions is rounded once: (sum + 2**21) >> 22, clamped to 0..255. A pixel outside is the nearest inside.

Filtering (antialias, area): weights of 22 bits, columns first, each direction rounded to uint8:
(sum + 2**21) >> 22, clamped. The filter is stretched by size / out where that is above 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt

from edgewright.core.tensors import Array
from edgewright.processing.step import Floats, floats

Method = Literal["nearest", "bilinear", "bicubic", "area"]
Corners = Literal["half_pixel", "align", "asymmetric"]
POINT_BITS = 11
FILTER_BITS = 22
_CUBIC_POINT = -0.75  # OpenCV, torch
_CUBIC_FILTER = -0.5  # Pillow; Keys, "Cubic convolution interpolation", 1981


@dataclass(frozen=True, kw_only=True, eq=False)
class Taps:
    """What makes each output pixel along one axis.

    Attributes:
        indices: int64 [out, taps], pixels of the source; what does not take part has weight 0.
        fixed: int32 [out, taps], weights in 2**-bits.
        weights: float64 [out, taps], the same before they are rounded.
    """

    indices: npt.NDArray[np.int64]
    fixed: npt.NDArray[np.int32]
    weights: npt.NDArray[np.float64]


def nearest_indices(size: int, out: int, corners: Corners) -> npt.NDArray[np.int64]:
    """Return the source pixel of each output pixel, int64 [out].

    half_pixel: floor((2 i + 1) size / (2 out)), as Pillow. asymmetric: floor(i size / out), as OpenCV and TF1.
    align: i (size - 1) / (out - 1), rounded half up.
    """
    i = np.arange(out, dtype=np.int64)
    if corners == "half_pixel":
        return (2 * i + 1) * size // (2 * out)
    if corners == "asymmetric":
        return i * size // out
    last = max(out - 1, 1)
    return (2 * i * (size - 1) + last) // (2 * last)


@lru_cache(maxsize=64)
def point_taps(size: int, out: int, method: Method, corners: Corners) -> Taps:
    """Return the 2 (bilinear) or 4 (bicubic) taps of point sampling; `fixed` has 11 bits and sums up to 2**11."""
    i = np.arange(out, dtype=np.int64)
    if corners == "half_pixel":
        position, unit = (2 * i + 1) * size - out, 2 * out
    elif corners == "asymmetric":
        position, unit = i * size, out
    else:
        position, unit = i * (size - 1), max(out - 1, 1)
    floor, rest = position // unit, position % unit
    if method == "bilinear":
        right = (2 * rest * (1 << POINT_BITS) + unit) // (2 * unit)
        fixed = np.stack([(1 << POINT_BITS) - right, right], axis=1)
        t = rest / unit
        weights = np.stack([1.0 - t, t], axis=1)
        indices = floor[:, None] + np.arange(2)
    else:
        t = rest / unit
        weights = np.stack([_cubic(t + 1, _CUBIC_POINT), _cubic(t, _CUBIC_POINT),
                            _cubic(1 - t, _CUBIC_POINT), _cubic(2 - t, _CUBIC_POINT)], axis=1)  # fmt: skip
        fixed = np.floor(weights * (1 << POINT_BITS) + 0.5).astype(np.int64)
        # The nearer of the two middle taps takes what rounding lost: a flat image stays flat.
        near = np.where(2 * rest < unit, 1, 2)
        fixed[i, near] += (1 << POINT_BITS) - fixed.sum(axis=1)
        indices = floor[:, None] + np.arange(-1, 3)
    return Taps(indices=np.clip(indices, 0, size - 1), fixed=fixed.astype(np.int32), weights=weights)


@lru_cache(maxsize=64)
def filter_taps(size: int, out: int, method: Method) -> Taps:
    """Return the taps of a filter over the area of each output pixel; `fixed` has 22 bits.

    bilinear, bicubic: with scale = size / out, centre = (i + 0.5) scale, stretch = max(scale, 1) and
    support = stretch (bilinear) or 2 stretch (bicubic), the taps are int(centre - support + 0.5) up to
    int(centre + support + 0.5) inside the image; the weight of x is kernel((x + 0.5 - centre) / stretch) over the sum
    of all, in float64; rounded half away from zero. The kernel is 1 - |x|, or Keys' cubic with a = -0.5.
    area: the part of the output pixel's area [i scale, (i + 1) scale) that lies in pixel x, a fraction of whole
    numbers, rounded half up.
    """
    i = np.arange(out, dtype=np.int64)
    if method == "area":
        first = i * size // out
        count = int((((i + 1) * size + out - 1) // out - first).max())
        x = first[:, None] + np.arange(count)
        low, high = np.maximum(x * out, i[:, None] * size), np.minimum((x + 1) * out, (i[:, None] + 1) * size)
        part = np.maximum(high - low, 0)
        fixed = (2 * part * (1 << FILTER_BITS) + size) // (2 * size)
        return Taps(indices=np.minimum(x, size - 1), fixed=fixed.astype(np.int32), weights=part / size)
    scale = size / out
    stretch = max(scale, 1.0)
    support = stretch if method == "bilinear" else 2.0 * stretch
    centre = (i + 0.5) * scale
    first = np.maximum(np.trunc(centre - support + 0.5), 0.0).astype(np.int64)
    last = np.minimum(np.trunc(centre + support + 0.5), size).astype(np.int64)
    x = first[:, None] + np.arange(int((last - first).max()))
    away = np.abs((x + 0.5 - centre[:, None]) * (1.0 / stretch))
    weights = np.maximum(1.0 - away, 0.0) if method == "bilinear" else _cubic(away, _CUBIC_FILTER)
    weights = np.where(x < last[:, None], weights, 0.0)
    # Summed from left to right, as a loop does: numpy's own sum goes by pairs.
    weights = weights / np.cumsum(weights, axis=1)[:, -1:]
    scaled = weights * (1 << FILTER_BITS)
    fixed = np.trunc(scaled + np.where(weights < 0, -0.5, 0.5)).astype(np.int32)
    return Taps(indices=np.minimum(x, size - 1), fixed=fixed, weights=weights)


def _cubic(x: npt.NDArray[np.float64], a: float) -> npt.NDArray[np.float64]:
    """Return Keys' cubic of x >= 0."""
    inner = ((a + 2.0) * x - (a + 3.0)) * x * x + 1
    outer = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, inner, np.where(x < 2, outer, 0.0))


def resample(
    image: Array, height: int, width: int, *, method: Method, antialias: bool, corners: Corners
) -> Array:
    """Return `image` [h, w, channels] as [height, width, channels]; uint8 in integers, else float32.

    Float images: the weights rounded to float32, columns first, the taps from left to right, each product rounded
    before it is added.
    """
    have_height, have_width = image.shape[:2]
    if method == "nearest":
        rows, columns = (
            nearest_indices(have_height, height, corners), nearest_indices(have_width, width, corners)
        )  # fmt: skip
        return np.ascontiguousarray(image[rows][:, columns])
    if (have_height, have_width) == (height, width):
        return image
    is_filter = antialias or method == "area"
    if is_filter:
        across, down = filter_taps(have_width, width, method), filter_taps(have_height, height, method)
    else:
        across = point_taps(have_width, width, method, corners)
        down = point_taps(have_height, height, method, corners)
    if image.dtype != np.uint8:
        return _float_pass(_float_pass(image, across, axis=1), down, axis=0)
    if is_filter:
        return _rounded(_sum(_rounded(_sum(image, across, axis=1)), down, axis=0))
    # Nothing is rounded in between, so that the order does not matter; this one touches fewer pixels.
    return _rounded(_sum(_sum(image, down, axis=0), across, axis=1))


def _sum(image: Array, taps: Taps, *, axis: int) -> npt.NDArray[np.int32]:
    """Return the weighted sum along `axis`, int32."""
    # Lines that lie together in memory are gathered several times as fast as single pixels.
    lines = np.ascontiguousarray(image.swapaxes(0, axis))
    weights = taps.fixed.reshape(*taps.fixed.shape, 1, 1)
    total = np.multiply(lines.take(taps.indices[:, 0], axis=0), weights[:, 0], dtype=np.int32)
    part = np.empty_like(total)
    for tap in range(1, taps.fixed.shape[1]):
        np.multiply(lines.take(taps.indices[:, tap], axis=0), weights[:, tap], out=part, dtype=np.int32)
        total += part
    return total.swapaxes(0, axis)


def _rounded(total: npt.NDArray[np.int32]) -> Array:
    return np.clip((total + (1 << (FILTER_BITS - 1))) >> FILTER_BITS, 0, 255).astype(np.uint8, order="C")


def _float_pass(image: Array, taps: Taps, *, axis: int) -> Floats:
    weights = taps.weights.astype(np.float32)
    shape = (-1, 1) if axis == 1 else (-1, 1, 1)
    total: Floats | None = None
    for tap in range(weights.shape[1]):
        part = floats(image.take(taps.indices[:, tap], axis=axis)) * weights[:, tap].reshape(shape)
        total = part if total is None else np.add(total, part, out=total)
    assert total is not None
    return total

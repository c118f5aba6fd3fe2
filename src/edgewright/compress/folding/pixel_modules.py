"""Resizing of images as operators of the graph: the same taps and weights as the reference's.

The runtimes' own resize operators do not agree with one another, and none filters. Rows and columns that are gathered,
weighted and summed are the same everywhere. Pixels stay whole numbers below 2**24, which float32 holds exactly: where
the reference's sums have 30 bits, their upper and their lower bits are summed apart. So the pixels are the reference's,
to the bit. Values have a batch axis of 1 in front and the channels last.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from edgewright.compress.folding.places import Placed
from edgewright.compress.folding.rules import Resampling, taps_of
from edgewright.processing.resampling import FILTER_BITS, POINT_BITS, Taps, nearest_indices
from edgewright.processing.resize import Letterbox
from edgewright.processing.values import ValueType

Operator = Callable[[torch.Tensor], torch.Tensor]

_ROWS, _COLUMNS = 1, 2
_LOW_BITS = 10  # of a weight: 64 pixels times that are below 2**24
_LOW = 2**_LOW_BITS


def resized(given: ValueType, asked: Resampling) -> Operator:
    """Return the operators that make an image of the size `asked` of one of type `given`, hwc, its size known."""
    assert given.height is not None and given.width is not None
    if asked.method == "nearest":
        rows = torch.from_numpy(nearest_indices(given.height, asked.height, asked.corners))
        columns = torch.from_numpy(nearest_indices(given.width, asked.width, asked.corners))
        return lambda x: x.index_select(_ROWS, rows).index_select(_COLUMNS, columns)
    if (given.height, given.width) == (asked.height, asked.width):
        return _same
    across, down = taps_of(given, asked)
    if given.dtype != "uint8":
        first, second = _sum(across.weights, across, _COLUMNS), _sum(down.weights, down, _ROWS)
        return lambda x: second(first(x))
    if asked.is_filter:
        first, second = _filtered(across, _COLUMNS), _filtered(down, _ROWS)
        return lambda x: second(first(x.to(torch.float32)))
    return _pointed(down, across)


def letterboxed(step: Letterbox, given: ValueType) -> Operator:
    """Return the operators of `step` for an image of type `given`, hwc, its size known."""
    assert given.height is not None and given.width is not None
    top, left, height, width = step.place(given.height, given.width)
    inner = resized(
        given, Resampling(height=height, width=width, method=step.method, antialias=step.antialias)
    )
    below, right = step.height - top - height, step.width - left - width
    fill = torch.tensor(step.fill, dtype=torch.float32)

    def letterbox(x: torch.Tensor) -> torch.Tensor:
        # A pad takes one number for all channels.
        return functional.pad(inner(x.to(torch.float32)) - fill, (0, 0, left, right, top, below)) + fill

    return letterbox


def placed_mask(step: Placed, given: ValueType) -> Operator:
    """Return the operators that make a mask [1, height, width] as large as the image that the model takes."""
    rows, columns = given.shape
    assert rows is not None and columns is not None
    y, x = step.places(rows, columns)
    is_outside = ((y < 0) | (y >= rows))[:, None] | ((x < 0) | (x >= columns))[None, :]
    down, across = (torch.from_numpy(p.clip(0, n - 1)) for p, n in ((y, rows), (x, columns)))
    outside = torch.from_numpy(is_outside)

    def place(mask: torch.Tensor) -> torch.Tensor:
        made = mask.index_select(_ROWS, down).index_select(_COLUMNS, across)
        return torch.where(outside, step.fill, made) if is_outside.any() else made

    return place


def _filtered(taps: Taps, axis: int) -> Operator:
    """Return (sum of weight * pixel + 2**21) >> 22 along `axis`, as 0..255."""
    upper, lower = _sum(taps.fixed >> _LOW_BITS, taps, axis), _sum(taps.fixed & (_LOW - 1), taps, axis)

    def run(x: torch.Tensor) -> torch.Tensor:
        return _rounded(upper(x) + torch.floor(lower(x) / _LOW), FILTER_BITS - _LOW_BITS)

    return run


def _pointed(down: Taps, across: Taps) -> Operator:
    """Return (sum of weight * weight * pixel + 2**21) >> 22 over both axes, as 0..255."""
    rows, columns = _sum(down.fixed, down, _ROWS), _sum(across.fixed, across, _COLUMNS)
    one = 2**POINT_BITS

    def run(x: torch.Tensor) -> torch.Tensor:
        total = rows(x.to(torch.float32))
        upper = torch.floor(total / one)
        return _rounded(columns(upper) + torch.floor(columns(total - upper * one) / one), POINT_BITS)

    return run


def _sum(numbers: npt.NDArray[np.generic], taps: Taps, axis: int) -> Operator:
    """Return the sum along `axis` of the pixels at the places of `taps`, weighted with `numbers` [out, taps]."""
    shape = (-1, 1) if axis == _COLUMNS else (-1, 1, 1)
    parts = [
        (torch.from_numpy(places.copy()), torch.from_numpy(weights.astype(np.float32)).reshape(shape))
        for places, weights in zip(taps.indices.T, numbers.T, strict=True)
    ]

    def run(x: torch.Tensor) -> torch.Tensor:
        return sum(x.index_select(axis, places) * weights for places, weights in parts)  # type: ignore[return-value]

    return run


def _rounded(total: torch.Tensor, bits: int) -> torch.Tensor:
    """Return total / 2**bits as the nearest pixel, half up."""
    return torch.floor((total + 2 ** (bits - 1)) / 2**bits).clamp(0, 255)


def _same(x: torch.Tensor) -> torch.Tensor:
    return x

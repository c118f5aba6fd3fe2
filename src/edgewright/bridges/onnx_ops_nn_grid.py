"""Sampling at fractional places that the model computes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce

import torch

from edgewright.bridges.onnx_ops import OnnxNode, handles
from edgewright.bridges.onnx_ops_nn_window import MAX_TAPS

Tensor = torch.Tensor
_CUBIC = -0.75  # the factor of the cubic kernel (Keys 1981) that ONNX and torch take
_MODES = {
    "linear": "linear",
    "bilinear": "linear",
    "cubic": "cubic",
    "bicubic": "cubic",
    "nearest": "nearest",
}


@handles("GridSample")
def _grid_sample(node: OnnxNode, value: Tensor, grid: Tensor) -> Tensor:
    """Sample value [N, C, *spatial] at grid [N, *out, rank], whose last axis names the last spatial axis first."""
    mode = _MODES.get(node.text("mode", "linear"))
    padding = node.text("padding_mode", "zeros")
    if mode is None or padding not in ("zeros", "border", "reflection"):
        raise node.refusal(f"mode {node.text('mode', 'linear')!r} with padding_mode {padding!r} is unknown")
    sizes = list(value.shape[2:])
    rank = len(sizes)
    if grid.shape[-1] != rank or grid.dim() != rank + 2:
        raise node.refusal(f"a grid of shape {list(grid.shape)} does not fit {rank} spatial axes")
    is_aligned = node.integer("align_corners", 0) == 1
    batch, channels = value.shape[:2]
    flat = value.reshape(batch, channels, math.prod(sizes))
    per_axis: list[list[tuple[Tensor, Tensor]]] = []
    for axis, size in enumerate(sizes):
        place = grid.select(-1, rank - 1 - axis).reshape(batch, -1)
        per_axis.append(_taps(place, size, mode, padding, is_aligned=is_aligned))
    if math.prod(map(len, per_axis)) > MAX_TAPS:
        raise node.refusal(f"it has {rank} spatial axes; that is not converted")
    result = _summed(flat, per_axis, sizes)
    return result.reshape(batch, channels, *grid.shape[1:-1])


def _summed(
    flat: Tensor, per_axis: Sequence[Sequence[tuple[Tensor, Tensor]]], sizes: Sequence[int]
) -> Tensor:
    """Return the weighted sum over all combinations of the axes' taps."""
    batch, channels = flat.shape[:2]
    combined: list[tuple[Tensor, Tensor]] = list(per_axis[0])
    for pairs, size in zip(per_axis[1:], sizes[1:], strict=True):
        combined = [(at * size + tap, share * own) for at, share in combined for tap, own in pairs]
    terms: list[Tensor] = []
    for at, share in combined:
        places = at.to(torch.int64).unsqueeze(1).expand(batch, channels, at.shape[1])
        terms.append(torch.gather(flat, 2, places) * share.unsqueeze(1))
    return reduce(torch.add, terms)


def _taps(
    place: Tensor, size: int, mode: str, padding: str, *, is_aligned: bool
) -> list[tuple[Tensor, Tensor]]:
    """Return which inputs along one axis (whole numbers, in float) count, and how much, for places in -1 to 1."""
    x = (place + 1) / 2 * (size - 1) if is_aligned else ((place + 1) * size - 1) / 2
    low, high = (0.0, size - 1.0) if is_aligned else (-0.5, size - 0.5)
    if mode == "nearest":
        x = torch.round(x)
    if padding == "border":
        x = x.clamp(0, size - 1)
    elif padding == "reflection":
        x = _reflected(x, low, high)
    if mode == "nearest":
        pairs = [(x, torch.ones_like(x))]
    else:
        base = torch.floor(x)
        part = x - base
        if mode == "linear":
            pairs = [(base, 1 - part), (base + 1, part)]
        else:
            pairs = [
                (base - 1, _far(1 + part)),
                (base, _near(part)),
                (base + 1, _near(1 - part)),
                (base + 2, _far(2 - part)),
            ]
    return [_inside(at, share, size, padding, low, high) for at, share in pairs]


def _inside(
    at: Tensor, share: Tensor, size: int, padding: str, low: float, high: float
) -> tuple[Tensor, Tensor]:
    if padding == "zeros":
        is_inside = torch.logical_and(at >= 0, at <= size - 1)
        share = torch.where(is_inside, share, torch.zeros_like(share))
    elif padding == "reflection":
        at = _reflected(at, low, high)
    return at.clamp(0, size - 1), share


def _reflected(x: Tensor, low: float, high: float) -> Tensor:
    """Return places mirrored at both ends until they lie between them."""
    span = high - low
    if span <= 0:
        return torch.zeros_like(x)
    turn = torch.abs(x - low)
    turn = turn - torch.floor(turn / (2 * span)) * (2 * span)
    mirrored = torch.minimum(turn, 2 * span - turn) + low
    return torch.where(torch.logical_or(x < low, x > high), mirrored, x)


def _near(distance: Tensor) -> Tensor:
    return ((_CUBIC + 2) * distance - (_CUBIC + 3)) * distance * distance + 1


def _far(distance: Tensor) -> Tensor:
    return ((distance - 5) * distance + 8) * distance * _CUBIC - 4 * _CUBIC

"""Resize and Upsample: one axis after the other, by constant indices or a constant matrix.

Every interpolation of ONNX is separable. An output at the place x of the input is the sum of the inputs around it,
weighted by a kernel of their distance; beyond the edges the edge goes on. Where torch's own `interpolate` means the
same, it is called, as runtimes have an operator for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from edgewright.bridges.onnx_ops import OnnxNode, handles
from edgewright.bridges.onnx_ops_math import wide
from edgewright.bridges.onnx_values import tensor_of

Tensor = torch.Tensor
Floats = npt.NDArray[np.float64]
_HALF_PIXEL = ("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel")
_PLACES = (*_HALF_PIXEL, "align_corners", "asymmetric", "tf_crop_and_resize")
_ROUNDINGS = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
_EXACT = 1e-6


@dataclass(frozen=True, kw_only=True, eq=False)
class _Axis:
    """How one axis is resized; `places` [size] are where in the input its outputs lie, in float64."""

    axis: int
    length: int
    size: int
    scale: float
    places: Floats

    @property
    def is_kept(self) -> bool:
        """Whether nothing changes along this axis."""
        return self.size == self.length and bool(np.array_equal(self.places, np.arange(self.length)))


@handles("Resize")
def _resize(
    node: OnnxNode,
    value: Tensor,
    roi: Tensor | None = None,
    scales: Tensor | None = None,
    sizes: Tensor | None = None,
) -> Tensor:
    if node.opset < 11:
        return _resized(node, value, _axes(node, value, _old_scales(node), None, None))
    listed = [node.axis(axis, value.dim()) for axis in node.integers("axes", range(value.dim()))]
    factors = _floats(node, 2, scales, len(listed))
    wanted = _floats(node, 3, sizes, len(listed))
    if (factors is None) == (wanted is None):
        raise node.refusal("one of scales and sizes must be given")
    region = None
    if node.text("coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize":
        region = _floats(node, 1, roi, 2 * len(listed))
        if region is None:
            raise node.refusal("tf_crop_and_resize needs a roi")
    if wanted is not None:
        factors, wanted = _kept_aspect(node, value, listed, wanted)
    assert factors is not None
    full = np.ones(value.dim())
    full[listed] = factors
    full_sizes = None
    if wanted is not None:
        full_sizes = np.asarray(value.shape, dtype=np.float64)
        full_sizes[listed] = wanted
    full_region = None
    if region is not None:
        full_region = np.stack([np.zeros(value.dim()), np.ones(value.dim())])
        full_region[:, listed] = region.reshape(2, -1)
    return _resized(node, value, _axes(node, value, full, full_sizes, full_region))


def _floats(node: OnnxNode, index: int, given: Tensor | None, count: int) -> Floats | None:
    """Return a constant input as float64, None where it is left out or empty."""
    if given is None or given.numel() == 0:
        return None
    found: Floats = node.constant(index).reshape(-1).astype(np.float64)
    if found.size != count or not np.all(np.isfinite(found)):
        raise node.refusal(f"input {index} has {found.size} values, but {count} numbers are expected")
    return found


def _kept_aspect(
    node: OnnxNode, value: Tensor, listed: Sequence[int], wanted: Floats
) -> tuple[Floats, Floats]:
    """Return the scales and the sizes that `keep_aspect_ratio_policy` makes of the sizes given."""
    lengths = np.asarray([value.shape[axis] for axis in listed], dtype=np.float64)
    if not np.all(lengths > 0):
        raise node.refusal("its input is empty")
    factors = wanted / lengths
    policy = node.text("keep_aspect_ratio_policy", "stretch")
    if policy == "stretch":
        return factors, wanted
    if policy not in ("not_larger", "not_smaller"):
        raise node.refusal(f"keep_aspect_ratio_policy {policy!r} is unknown")
    factor = factors.min() if policy == "not_larger" else factors.max()
    return np.full(len(listed), factor), np.floor(factor * lengths + 0.5)


@handles("Upsample")
def _upsample(node: OnnxNode, value: Tensor, scales: Tensor | None = None) -> Tensor:
    return _resized(node, value, _axes(node, value, _old_scales(node), None, None))


def _old_scales(node: OnnxNode) -> Floats:
    if node.opset >= 9:
        factors: Floats = node.constant(1).reshape(-1).astype(np.float64)
        return factors
    if node.has("scales"):
        return np.asarray(node.numbers("scales"))
    return np.asarray([1.0, 1.0, node.number("height_scale", 1.0), node.number("width_scale", 1.0)])


def _axes(
    node: OnnxNode, value: Tensor, scales: Floats, sizes: Floats | None, region: Floats | None
) -> list[_Axis]:
    if scales.size != value.dim() or not np.all(scales > 0):
        raise node.refusal(f"its scales are {scales.tolist()[:8]} for rank {value.dim()}")
    wide_scales = scales.astype(np.float64)
    full = [
        int(size)
        for size in (np.floor(wide_scales * np.asarray(value.shape)) if sizes is None else sizes).tolist()
    ]
    node.checked_size(full)
    if any(size < 1 for size in full) or any(size < 1 for size in value.shape):
        raise node.refusal(f"it resizes {list(value.shape)} to {full}")
    is_old = node.opset < 11 or node.op_type == "Upsample"
    default = "asymmetric" if is_old else "half_pixel"
    mode = node.text("coordinate_transformation_mode", default)
    if mode not in _PLACES:
        raise node.refusal(f"coordinate_transformation_mode {mode!r} is unknown")
    return [
        _Axis(
            axis=axis,
            length=length,
            size=size,
            scale=float(scale),
            places=_places(mode, length, size, float(scale), None if region is None else region[:, axis]),
        )
        for axis, (length, size, scale) in enumerate(zip(value.shape, full, wide_scales, strict=True))
    ]


def _places(mode: str, length: int, size: int, scale: float, region: Floats | None) -> Floats:
    """Return where in the input each output lies.

    Source: the table of coordinate_transformation_mode in ONNX's Resize. The resized length there is a fraction:
    `scale * length`.
    """
    outputs = np.arange(size, dtype=np.float64)
    resized = scale * length
    if mode == "align_corners":
        return outputs * 0 if resized == 1 else outputs * (length - 1) / (resized - 1)
    if mode == "asymmetric":
        return outputs / scale
    if mode == "tf_crop_and_resize":
        assert region is not None
        start, end = float(region[0]), float(region[1])
        if resized == 1:
            return np.full(size, 0.5 * (start + end) * (length - 1))
        return start * (length - 1) + outputs * (end - start) * (length - 1) / (resized - 1)
    if mode == "pytorch_half_pixel" and resized == 1:
        return np.full(size, -0.5)
    shift = length / 2 * (1 - size / resized) if mode == "half_pixel_symmetric" else 0.0
    return shift + (outputs + 0.5) / scale - 0.5


def _resized(node: OnnxNode, value: Tensor, axes: Sequence[_Axis]) -> Tensor:
    kind = node.text("mode", "nearest")
    changed = [axis for axis in axes if not axis.is_kept]
    if not changed:
        return value.clone()
    if kind == "nearest":
        result = _nearest(node, value, changed)
    elif kind in ("linear", "bilinear", "cubic"):
        if not value.dtype.is_floating_point:
            raise node.refusal(f"mode {kind!r} of {value.dtype}; only floats are interpolated")
        result = _interpolated(node, value, changed, is_cubic=kind == "cubic")
    else:
        raise node.refusal(f"mode {kind!r} is unknown")
    if node.text("coordinate_transformation_mode", "") == "tf_crop_and_resize":
        outside: npt.NDArray[np.bool_] = np.zeros([1] * value.dim(), dtype=bool)
        for axis in changed:
            shape = [-1 if index == axis.axis else 1 for index in range(value.dim())]
            beyond = (axis.places < 0) | (axis.places > axis.length - 1)
            outside = outside | beyond.reshape(shape)
        if outside.any():
            fill = torch.full((), node.number("extrapolation_value", 0.0), dtype=result.dtype)
            result = torch.where(tensor_of(outside), fill, result)
    return result


def _rounding(node: OnnxNode, axis: _Axis) -> str:
    if node.op_type == "Upsample":
        return "floor"
    if node.opset < 11:  # undefined there; this is what ONNX's tests of it and ONNX Runtime do
        return "ceil" if axis.scale < 1 else "floor"
    kind = node.text("nearest_mode", "round_prefer_floor")
    if kind not in _ROUNDINGS:
        raise node.refusal(f"nearest_mode {kind!r} is unknown")
    return kind


def _nearest(node: OnnxNode, value: Tensor, axes: Sequence[_Axis]) -> Tensor:
    found: list[npt.NDArray[np.int64]] = []
    for axis in axes:
        kind = _rounding(node, axis)
        if kind == "floor":
            at = np.floor(axis.places)
        elif kind == "ceil":
            at = np.ceil(axis.places)
        elif kind == "round_prefer_floor":
            at = np.ceil(axis.places - 0.5)
        else:
            at = np.floor(axis.places + 0.5)
        found.append(at.clip(0, axis.length - 1).astype(np.int64))
    # torch's "nearest" takes floor(i * length / size), which whole factors make exact in any precision.
    is_plain = all(
        axis.size % axis.length == 0
        and np.array_equal(at, np.arange(axis.size) // (axis.size // axis.length))
        for axis, at in zip(axes, found, strict=True)
    )
    if is_plain and value.dim() == 4 and value.dtype.is_floating_point and _are_spatial(axes):
        return functional.interpolate(value, _plane(value, axes), mode="nearest")
    for axis, at in zip(axes, found, strict=True):
        value = wide(value).index_select(axis.axis, tensor_of(at)).to(value.dtype)
    return value


def _are_spatial(axes: Sequence[_Axis]) -> bool:
    return all(axis.axis >= 2 for axis in axes)


def _plane(value: Tensor, axes: Sequence[_Axis]) -> list[int]:
    """Return the height and the width after resizing."""
    sizes = list(value.shape)
    for axis in axes:
        sizes[axis.axis] = axis.size
    return sizes[2:]


def _interpolated(node: OnnxNode, value: Tensor, axes: Sequence[_Axis], *, is_cubic: bool) -> Tensor:
    has_filter = node.integer("antialias", 0) == 1 and node.opset >= 18
    is_inner = node.integer("exclude_outside", 0) == 1
    shrinks = has_filter and any(axis.scale < 1 for axis in axes)
    if not is_cubic and not is_inner and not shrinks and value.dim() == 4 and _are_spatial(axes):
        for is_aligned in (False, True):
            if all(_is_torch(axis, is_aligned=is_aligned) for axis in axes):
                sizes = _plane(value, axes)
                return functional.interpolate(value, sizes, mode="bilinear", align_corners=is_aligned)
    factor = node.number("cubic_coeff_a", -0.75)
    for axis in axes:
        width = min(axis.scale, 1.0) if has_filter else 1.0
        node.checked_size([axis.size, axis.length])
        matrix = _matrix(axis, width, factor if is_cubic else None, is_inner=is_inner)
        value = _along(value, axis.axis, tensor_of(matrix).to(value.dtype))
    return value


def _is_torch(axis: _Axis, *, is_aligned: bool) -> bool:
    """Return whether torch's bilinear interpolation takes the same places."""
    outputs = np.arange(axis.size, dtype=np.float64)
    if is_aligned:
        if axis.size == 1:
            return False
        own = outputs * (axis.length - 1) / (axis.size - 1)
    else:
        own = (outputs + 0.5) * axis.length / axis.size - 0.5
    limit = axis.length - 1
    return bool(np.allclose(own.clip(0, limit), axis.places.clip(0, limit), rtol=0, atol=_EXACT))


def _matrix(axis: _Axis, width: float, factor: float | None, *, is_inner: bool) -> Floats:
    """Return [size, length]: the share of each input in each output.

    Args:
        width: by which the kernel is stretched (divided), below 1 where it filters against aliasing.
        factor: of the cubic kernel (Keys 1981), None for the linear one.
        is_inner: inputs beyond the edge count nothing, and the others more, instead of the edge going on.
    """
    reach = (1 if factor is None else 2) / width
    first = np.floor(axis.places - reach).astype(np.int64)
    matrix: Floats = np.zeros((axis.size, axis.length), dtype=np.float64)
    rows = np.arange(axis.size)
    for tap in range(int(np.ceil(2 * reach)) + 2):
        at = first + tap
        distance = np.abs(at - axis.places) * width
        share = np.clip(1 - distance, 0, None) if factor is None else _cubic(distance, factor)
        if is_inner:
            share = np.where((at < 0) | (at >= axis.length), 0.0, share)
        np.add.at(matrix, (rows, at.clip(0, axis.length - 1)), share)
    total = matrix.sum(axis=1, keepdims=True)
    normal: Floats = matrix / np.where(total == 0, 1.0, total)
    return normal


def _cubic(distance: Floats, factor: float) -> Floats:
    near = ((factor + 2) * distance - (factor + 3)) * distance**2 + 1
    far = ((distance - 5) * distance + 8) * distance * factor - 4 * factor
    share: Floats = np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))
    return share


def _along(value: Tensor, axis: int, matrix: Tensor) -> Tensor:
    """Return `matrix` [size, length] multiplied with `value` along an axis."""
    if axis == value.dim() - 1:
        return functional.linear(value, matrix)
    if axis == value.dim() - 2:
        return torch.matmul(matrix, value)
    moved = functional.linear(value.transpose(axis, -1), matrix)
    return moved.transpose(axis, -1)

"""Fourier transforms as products with constant matrices, windows and mel filters."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from edgewright.bridges.onnx_ops import OnnxNode, handles
from edgewright.bridges.onnx_ops_nn_window import padded
from edgewright.bridges.onnx_values import FLOAT, carrier_of, tensor_of

Tensor = torch.Tensor
Floats = npt.NDArray[np.float64]


def _waves(node: OnnxNode, length: int, bins: int) -> tuple[Floats, Floats]:
    """Return the cosines and the sines [bins, length] of a transform of `length`."""
    node.checked_size([bins, length])
    # The product is taken modulo the length before it becomes an angle: that is exact.
    turns = np.outer(np.arange(bins), np.arange(length)) % length
    angles = 2 * np.pi * turns / length
    return np.cos(angles), np.sin(angles)


def _transformed(real: Tensor, imaginary: Tensor | None, waves: tuple[Floats, Floats]) -> Tensor:
    """Return the transform of the last axis: [..., bins, 2] of [..., length]."""
    cosines, sines = (tensor_of(wave).to(real.dtype) for wave in waves)
    across, up = functional.linear(real, cosines), -functional.linear(real, sines)
    if imaginary is not None:
        across = across + functional.linear(imaginary, sines)
        up = up + functional.linear(imaginary, cosines)
    return torch.stack((across, up), dim=-1)


@handles("DFT")
def _dft(node: OnnxNode, value: Tensor, length: Tensor | None = None, axis: Tensor | None = None) -> Tensor:
    rank = value.dim()
    if node.opset >= 20:
        where = node.axis(node.ints_at(2)[0] if axis is not None else -2, rank)
    else:
        where = node.axis(node.integer("axis", 1), rank)
    if where == rank - 1 or value.shape[-1] not in (1, 2):
        raise node.refusal(f"it transforms axis {where} of the shape {list(value.shape)}")
    is_inverse, is_half = node.integer("inverse", 0) == 1, node.integer("onesided", 0) == 1
    own = value.shape[where]
    default = 2 * (own - 1) if is_inverse and is_half else own
    size = default if length is None else node.ints_at(1)[0]
    if size < 1:
        raise node.refusal(f"its length is {size}, but must be at least 1")
    moved = value.transpose(where, rank - 2) if where != rank - 2 else value
    needed = size // 2 + 1 if is_inverse and is_half else size
    moved = padded(moved, [0, 0], [needed - own, 0])
    real = moved.select(-1, 0)
    imaginary = moved.select(-1, 1) if value.shape[-1] == 2 else None
    if is_inverse and is_half:
        result = _real_inverse(node, real, imaginary, size)
    else:
        waves = _waves(node, size, size // 2 + 1 if is_half else size)
        if is_inverse:
            waves = (waves[0], -waves[1])
        result = _transformed(real, imaginary, waves)
        if is_inverse:  # after the sum, in which whole numbers then stay whole
            result = result / size
    return result.transpose(where, rank - 2) if where != rank - 2 else result


def _real_inverse(node: OnnxNode, real: Tensor, imaginary: Tensor | None, size: int) -> Tensor:
    """Return the real signal [..., size, 1] of its one-sided spectrum [..., size // 2 + 1]."""
    bins = size // 2 + 1
    cosines, sines = _waves(node, size, bins)
    times = np.full(
        (bins, 1), 2.0
    )  # every bin stands for its mirror image too, but the first and, if even, the last
    times[0] = 1.0
    if size % 2 == 0:
        times[-1] = 1.0
    result = functional.linear(real, tensor_of((cosines * times / size).T).to(real.dtype))
    if imaginary is not None:
        result = result - functional.linear(imaginary, tensor_of((sines * times / size).T).to(real.dtype))
    return result.unsqueeze(-1)


@handles("STFT")
def _stft(
    node: OnnxNode,
    signal: Tensor,
    frame_step: Tensor,
    window: Tensor | None = None,
    frame_length: Tensor | None = None,
) -> Tensor:
    """Return [N, frames, bins, 2] of the signal [N, length, 1 or 2]."""
    step = node.ints_at(1)[0]
    if signal.dim() == 2:
        signal = signal.unsqueeze(-1)
    total = signal.shape[1]
    default = total if window is None else window.shape[0]
    size = default if frame_length is None else node.ints_at(3)[0]
    if step < 1 or not 1 <= size <= total or (window is not None and tuple(window.shape) != (size,)):
        raise node.refusal(f"it cuts {total} values into frames of {size} every {step}")
    frames = (total - size) // step + 1
    is_half = node.integer("onesided", 1) == 1 and signal.shape[-1] == 1
    node.checked_size([signal.shape[0], frames, size, 2])
    places = tensor_of(np.add.outer(np.arange(frames) * step, np.arange(size)).reshape(-1))
    cut: list[Tensor] = []
    for part in range(signal.shape[-1]):
        rows = signal.select(-1, part).index_select(1, places).reshape(signal.shape[0], frames, size)
        cut.append(rows if window is None else rows * window)
    waves = _waves(node, size, size // 2 + 1 if is_half else size)
    return _transformed(cut[0], cut[1] if len(cut) > 1 else None, waves)


@handles("HannWindow", "HammingWindow", "BlackmanWindow")
def _window(node: OnnxNode, size: Tensor) -> Tensor:
    """Return a sum of cosines; the factors are those that ONNX gives."""
    (count,) = node.checked_size(node.ints_at(0))
    period = count if node.integer("periodic", 1) else count - 1
    angles = 2 * np.pi * np.arange(count) / max(period, 1)
    if node.op_type == "HannWindow":
        values = 0.5 - 0.5 * np.cos(angles)
    elif node.op_type == "HammingWindow":
        values = 25 / 46 - 21 / 46 * np.cos(angles)
    else:
        values = 0.42 - 0.5 * np.cos(angles) + 0.08 * np.cos(2 * angles)
    return tensor_of(values).to(carrier_of(node.integer("output_datatype", FLOAT)))


@handles("MelWeightMatrix")
def _mel_weights(node: OnnxNode, *inputs: Tensor) -> Tensor:
    """Return [length // 2 + 1, bins]: triangles on the mel scale, m = 2595 * log10(1 + f / 700)."""
    bins, length, rate = (node.ints_at(index)[0] for index in range(3))
    low, high = (node.constant(index).reshape(-1)[0] for index in (3, 4))
    if min(bins, length, rate) < 1:
        raise node.refusal(f"it has {bins} bins of a length of {length} at a rate of {rate}")
    rows, columns = node.checked_size([length // 2 + 1, bins])
    first, last = (2595 * np.log1p(edge / 700) / np.log(10) for edge in (low, high))
    mels = np.arange(bins + 2) * ((last - first) / (bins + 2)) + first
    edges = ((length + 1) * (700 * np.expm1(mels / 2595 * np.log(10))) // rate).astype(np.int64)
    at = np.arange(rows)[:, None]
    left, centre, right = edges[None, :-2], edges[None, 1:-1], edges[None, 2:]
    rise = (at - left) / np.maximum(centre - left, 1)
    fall = (right - at) / np.maximum(right - centre, 1)
    matrix = np.where((at >= left) & (at <= centre), np.where(centre == left, 1.0, rise), 0.0)
    matrix = np.where((at >= centre) & (at < right), fall, matrix)
    assert math.prod(matrix.shape) == rows * columns
    return tensor_of(matrix).to(carrier_of(node.integer("output_datatype", FLOAT)))

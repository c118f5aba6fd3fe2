"""Weights of an OpenVINO model in 8 or 4 bits; activations and arithmetic stay float32.

NNCF's own `compress_weights` keeps scales in float16 and leaves convolutions at 8 bits. On ResNet-8 and FastestDet,
whose channels differ by factors of thousands, that costs 9 to 20 dB against scales in float32, which are written here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from edgewright.core.errors import ConversionError

if TYPE_CHECKING:
    import openvino

Floats = npt.NDArray[np.float32]

GROUP = 32
# Below these a weight is not worth its scales: the file would hardly shrink.
_MIN_ELEMENTS = 64
_MIN_NIBBLES = 1024
_LEVELS = {8: 127, 4: 7}
# Shares of the largest magnitude that are tried as the range of a group of 4-bit weights.
_RANGES = np.linspace(0.6, 1.0, 17, dtype=np.float32)
_KEPT_AXES: dict[str, dict[int, tuple[int, ...]]] = {
    "Convolution": {1: (0,)},
    "GroupConvolution": {1: (0, 1)},
    "ConvolutionBackpropData": {1: (1,)},
    "GroupConvolutionBackpropData": {1: (0, 2)},
    "LSTMSequence": {4: (0, 1), 5: (0, 1)},
    "GRUSequence": {3: (0, 1), 4: (0, 1)},
    "RNNSequence": {3: (0, 1), 4: (0, 1)},
    "Gather": {0: (0,)},
}


@dataclass(frozen=True, kw_only=True)
class Compressed:
    """How many weights have how many bits now; biases and the like are not counted."""

    elements: dict[int, int]

    def share(self, bits: int) -> float:
        """Return the share of the weights that have `bits` bits."""
        return self.elements.get(bits, 0) / max(1, sum(self.elements.values()))


def compress(model: openvino.Model, *, bits: int) -> Compressed:
    """Turn the constant weights of convolutions, linear, recurrent and embedding layers into integers, in place.

    8 bits: symmetric, one scale per output channel, scale = max|w| / 127. 4 bits: symmetric, one scale per group of 32
    weights of a channel, the one of 17 that has the least squared error; small layers (under 1024 weights), the first
    and the last stay at 8.

    Raises:
        ConversionError: there is no weight to compress, or none that is large enough for 4 bits.
    """
    from openvino.passes import ConstantFolding, Manager

    manager = Manager()
    manager.register_pass(ConstantFolding())  # a weight may come as a product of constants, batch norm folded
    manager.run_passes(model)
    found = _weights(model)
    layers = sorted({place for place, *_ in found if not _is_lookup(model, place)})
    ends = {layers[0], layers[-1]} if len(layers) > 2 else set()
    elements: dict[int, int] = {}
    made: dict[tuple[str, tuple[int, ...], int], openvino.Node] = {}
    nodes = model.get_ordered_ops()
    for place, index, kept in found:
        source = nodes[place].input_value(index).get_node()
        values: Floats = np.asarray(source.data, dtype=np.float32)
        if not np.isfinite(values).all():
            raise ConversionError(
                f"weight {source.get_friendly_name()!r} holds NaN or infinity. Repair the model first."
            )
        width = 4 if bits == 4 and place not in ends and values.size >= _MIN_NIBBLES else 8
        key = (source.get_friendly_name(), kept, width)
        if key not in made:
            made[key] = _nibbles(values, kept) if width == 4 else _bytes(values, kept)
            elements[width] = elements.get(width, 0) + values.size
        nodes[place].input(index).replace_source_output(made[key].output(0))
    model.validate_nodes_and_infer_types()
    if bits not in elements:
        small = f", none of {_MIN_NIBBLES} weights between the first and the last" if bits == 4 else ""
        raise ConversionError(
            f"the model has no weight of a convolution, linear or recurrent layer to store in {bits} bits{small}. "
            "Use a wider precision."
        )
    for node in nodes:
        if node.get_type_name() in _KEPT_AXES or node.get_type_name() == "MatMul":
            for position in range(node.get_input_size()):
                left = node.input_value(position).get_node()
                if left.get_type_name() == "Constant" and left.get_element_type().is_real():
                    elements[32] = elements.get(32, 0) + int(np.prod(left.get_output_shape(0)))
    return Compressed(elements=elements)


def _weights(model: openvino.Model) -> list[tuple[int, int, tuple[int, ...]]]:
    """Return (position of the node, position of its input, axes that keep scales of their own) of every weight."""
    found = []
    for place, node in enumerate(model.get_ordered_ops()):
        kind = node.get_type_name()
        inputs = _matrix_axes(node) if kind == "MatMul" else _KEPT_AXES.get(kind, {})
        for index, kept in inputs.items():
            source = node.input_value(index).get_node()
            if source.get_type_name() != "Constant" or source.get_element_type().get_type_name() != "f32":
                continue
            shape = list(source.get_output_shape(0))
            channels = int(np.prod([shape[axis] for axis in kept])) if len(shape) > max(kept) else 0
            elements = int(np.prod(shape))
            is_table = kind != "Gather" or len(shape) == 2
            if channels and is_table and elements >= _MIN_ELEMENTS and elements >= 2 * channels:
                found.append((place, index, kept))
    return found


def _matrix_axes(node: openvino.Node) -> dict[int, tuple[int, ...]]:
    attributes = node.get_attributes()
    axes = {}
    for index, is_transposed in ((0, not attributes["transpose_a"]), (1, attributes["transpose_b"])):
        rank = len(node.input_value(index).get_partial_shape())
        if rank >= 2:  # the summed axis is the last one of A and the one before it of B
            kept = rank - 2 if is_transposed else rank - 1
            axes[index] = (*range(rank - 2), kept)
    return axes


def _is_lookup(model: openvino.Model, place: int) -> bool:
    return bool(model.get_ordered_ops()[place].get_type_name() == "Gather")


def _bytes(values: Floats, kept: tuple[int, ...]) -> openvino.Node:
    import openvino.opset13 as ops

    axes = tuple(axis for axis in range(values.ndim) if axis not in kept)
    scale = np.abs(values).max(axis=axes, keepdims=True) / np.float32(_LEVELS[8])
    scale = np.where(scale == 0, np.float32(1), scale).astype(np.float32)
    steps = np.clip(np.rint(values / scale), -_LEVELS[8], _LEVELS[8]).astype(np.int8)
    return ops.multiply(ops.convert(ops.constant(steps), "f32"), ops.constant(scale))


def _nibbles(values: Floats, kept: tuple[int, ...]) -> openvino.Node:
    """Return `values` as 4-bit groups; channel axes come first in the file and are moved back where they do not."""
    import openvino
    import openvino.opset13 as ops

    order = (*kept, *(axis for axis in range(values.ndim) if axis not in kept))
    moved = np.ascontiguousarray(values.transpose(order))
    channels = int(np.prod(moved.shape[: len(kept)]))
    rows = moved.reshape(channels, -1)
    group = GROUP if rows.shape[1] % GROUP == 0 else rows.shape[1]
    grouped = rows.reshape(channels, -1, group)
    scale = _best_scale(grouped)
    steps = np.clip(np.rint(grouped / scale), -_LEVELS[4] - 1, _LEVELS[4]).astype(np.int8)
    flat = steps.reshape(-1)
    if flat.size % 2:
        flat = np.append(flat, np.int8(0))
    packed = ((flat[0::2] & 15) | ((flat[1::2] & 15) << 4)).astype(np.uint8)
    # A tensor over `packed` would not keep it alive: this one has memory of its own.
    tensor = openvino.Tensor(openvino.Type.i4, openvino.Shape(list(grouped.shape)))
    tensor.data[:] = packed.reshape(tensor.data.shape)
    made = ops.multiply(ops.convert(ops.constant(tensor), "f32"), ops.constant(scale))
    made = ops.reshape(made, ops.constant(np.array(moved.shape, dtype=np.int64)), special_zero=False)
    if order == tuple(range(values.ndim)):
        return made
    return ops.transpose(made, ops.constant(np.argsort(order).astype(np.int64)))


def _best_scale(grouped: Floats) -> Floats:
    """Return the scale of each group [channels, groups, 1] whose rounding error has the least sum of squares."""
    largest = np.abs(grouped).max(axis=2, keepdims=True) / np.float32(_LEVELS[4])
    largest = np.where(largest == 0, np.float32(1), largest).astype(np.float32)
    best, least = largest, np.full(largest.shape, np.inf, dtype=np.float32)
    for share in _RANGES:
        scale = largest * share
        steps = np.clip(np.rint(grouped / scale), -_LEVELS[4] - 1, _LEVELS[4])
        error = np.square(grouped - steps * scale).sum(axis=2, keepdims=True)
        best = np.where(error < least, scale, best)
        least = np.minimum(error, least)
    return best.astype(np.float32)

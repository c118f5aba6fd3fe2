"""Which function makes which operator into C."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from edgewright.microcontrollers import (
    convolution,
    depthwise,
    elementwise,
    pooling,
    recurrent,
    reducing,
    resizing,
    shaping,
    softmax,
    tables,
    transposed,
)
from edgewright.microcontrollers.layer import Layer, Site

Kernel = Callable[[Site], Layer]

KERNELS: Mapping[str, Kernel] = {
    "ADD": elementwise.add,
    "AVERAGE_POOL_2D": pooling.average_pool,
    "CONCATENATION": shaping.concatenation,
    "CONV_2D": convolution.convolution,
    "DEPTHWISE_CONV_2D": depthwise.depthwise_convolution,
    "DEQUANTIZE": tables.dequantize,
    "EXPAND_DIMS": shaping.reshape,
    "FULLY_CONNECTED": convolution.fully_connected,
    "HARD_SWISH": tables.hard_swish,
    "LEAKY_RELU": tables.leaky_relu,
    "LOGISTIC": tables.logistic,
    "MAX_POOL_2D": pooling.max_pool,
    "MEAN": reducing.mean,
    "MUL": elementwise.multiply,
    "PACK": shaping.pack,
    "PAD": shaping.pad,
    "PADV2": shaping.pad,
    "QUANTIZE": tables.quantize,
    "RELU": tables.relu,
    "RELU6": tables.relu6,
    "RESHAPE": shaping.reshape,
    "RESIZE_BILINEAR": resizing.resize_bilinear,
    "RESIZE_NEAREST_NEIGHBOR": resizing.resize_nearest,
    "SLICE": shaping.slice_,
    "SOFTMAX": softmax.softmax,
    "SPLIT": shaping.split,
    "SPLIT_V": shaping.split_v,
    "SQUEEZE": shaping.reshape,
    "STRIDED_SLICE": shaping.strided_slice,
    "SUB": elementwise.subtract,
    "TANH": tables.tanh,
    "TRANSPOSE": shaping.transpose,
    "TRANSPOSE_CONV": transposed.transpose_convolution,
    "UNIDIRECTIONAL_SEQUENCE_LSTM": recurrent.lstm,
    "UNPACK": shaping.unpack,
}

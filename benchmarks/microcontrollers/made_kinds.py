"""The kinds of models in the conformance sweep, and how many of each are written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import made_layers as layers
import made_moves as moves
import numpy as np
from made_draws import Draw
from made_graphs import graph
from made_images import image
from made_models import Maker
from made_values import Write, several, unary


@dataclass(frozen=True, kw_only=True)
class Case:
    """A model that was written."""

    name: str
    operator: str
    path: Path


def cases(folder: Path, *, each: int, seed: int, only: str = "") -> Iterator[Case]:
    """Write `each` models for every kind and yield them; the same ones for the same seed."""
    for kind, write in KINDS.items():
        if only and kind not in only.split(","):
            continue
        for number in range(each):
            draw = np.random.default_rng([seed, number, *kind.encode()])
            path = folder / f"{kind}_{number}.tflite"
            write(draw, path)
            yield Case(name=path.stem, operator=kind.upper(), path=path)


def _as_wide(write: Write) -> Write:
    """Return the writer of the same models with int16 activations."""

    def written(draw: Draw, path: Path) -> None:
        Maker.is_wide = True
        try:
            write(draw, path)
        finally:
            Maker.is_wide = False

    return written


def _as_floats(write: Write) -> Write:
    """Return the writer of the same models in float32."""

    def written(draw: Draw, path: Path) -> None:
        Maker.is_float = True
        try:
            write(draw, path)
        finally:
            Maker.is_float = False

    return written


KINDS: dict[str, Write] = {
    "conv_2d": layers.conv_2d,
    "depthwise_conv_2d": layers.depthwise_conv_2d,
    "fully_connected": layers.fully_connected,
    "average_pool_2d": layers.average_pool_2d,
    "max_pool_2d": layers.max_pool_2d,
    "add": several("ADD", "AddOptions", has_activation=True),
    "sub": several("SUB", "SubOptions", has_activation=True),
    "mul": several("MUL", "MulOptions", scaled="product", has_activation=True),
    "softmax": layers.softmax,
    "relu": unary("RELU"),
    "relu6": unary("RELU6", same=True),
    "leaky_relu": unary("LEAKY_RELU", table="LeakyReluOptions"),
    "logistic": unary("LOGISTIC", scale=1 / 256, zero=-128),
    "tanh": unary("TANH", scale=1 / 128, zero=0),
    "hard_swish": unary("HARD_SWISH"),
    "quantize": unary("QUANTIZE"),
    "quantize_float": unary("QUANTIZE", "float32", "int8", scale=0.01),
    "quantize_float_int16": unary("QUANTIZE", "float32", "int16", scale=3e-5),
    "quantize_int8_int16": unary("QUANTIZE", "int8", "int16"),
    "quantize_int16_int8": unary("QUANTIZE", "int16", "int8"),
    "quantize_int16": unary("QUANTIZE", "int16"),
    "quantize_int8_int32": unary("QUANTIZE", "int8", "int32"),
    "quantize_int16_int32": unary("QUANTIZE", "int16", "int32"),
    "quantize_int32_int8": unary("QUANTIZE", "int32", "int8"),
    "quantize_int32_int16": unary("QUANTIZE", "int32", "int16"),
    "dequantize": unary("DEQUANTIZE", "int8", "float32"),
    "dequantize_int16": unary("DEQUANTIZE", "int16", "float32"),
    "unidirectional_sequence_lstm": layers.unidirectional_sequence_lstm,
    "concatenation": moves.concatenation,
    "pack": moves.pack,
    "unpack": moves.unpack,
    "pad": moves.pad,
    "transpose": moves.transpose,
    "slice": moves.slice_,
    "strided_slice": moves.strided_slice,
    "split": moves.split,
    "split_v": moves.split_v,
    "reshape": moves.reshape,
    "squeeze": moves.squeeze,
    "expand_dims": moves.expand_dims,
    "resize_nearest_neighbor": moves.resize_nearest_neighbor,
    "resize_bilinear": moves.resize_bilinear,
    "mean": layers.mean,
    "transpose_conv": layers.transpose_conv,
    "abs": unary("ABS"),
    "elu": unary("ELU"),
    "rsqrt": unary("RSQRT", source_zero=-128),
    "prelu": several("PRELU", "", scaled="prelu"),
    "maximum": several("MAXIMUM", "MaximumMinimumOptions", scaled="same"),
    "minimum": several("MINIMUM", "MaximumMinimumOptions", scaled="same"),
    "squared_difference": several("SQUARED_DIFFERENCE", "", scaled="square"),
    "equal": several("EQUAL", "EqualOptions", result="bool"),
    "not_equal": several("NOT_EQUAL", "NotEqualOptions", result="bool"),
    "less": several("LESS", "LessOptions", result="bool"),
    "less_equal": several("LESS_EQUAL", "LessEqualOptions", result="bool"),
    "greater": several("GREATER", "GreaterOptions", result="bool"),
    "greater_equal": several("GREATER_EQUAL", "GreaterEqualOptions", result="bool"),
    "logical_and": several("LOGICAL_AND", "", "bool"),
    "logical_or": several("LOGICAL_OR", "", "bool"),
    "logical_not": unary("LOGICAL_NOT", "bool"),
    "select_v2": several("SELECT_V2", "", scaled="same", count=3, kinds={0: "bool"}),
    "cast_int8_float": unary("CAST", "int8", "float32"),
    "cast_int8_int32": unary("CAST", "int8", "int32"),
    "cast_int16_int8": unary("CAST", "int16", "int8"),
    "sum": layers.sum_,
    "reduce_max": layers.reduce_max,
    "reduce_min": layers.reduce_min,
    "arg_max": layers.arg_max,
    "arg_min": layers.arg_min,
    "batch_matmul": layers.batch_matmul,
    "l2_normalization": layers.l2_normalization,
    "log_softmax": layers.log_softmax,
    "space_to_depth": moves.space_to_depth,
    "depth_to_space": moves.depth_to_space,
    "space_to_batch_nd": moves.space_to_batch_nd,
    "batch_to_space_nd": moves.batch_to_space_nd,
    "mirror_pad": moves.mirror_pad,
    "broadcast_to": moves.broadcast_to,
    "gather": moves.gather,
    "reverse_v2": moves.reverse_v2,
    "svdf": layers.svdf,
    "graph": graph,
    "image": image,
    # int16 activations, int8 weights
    "int16_abs": unary("ABS", "int16"),
    "int16_prelu": several("PRELU", "", "int16", scaled="prelu", kinds={1: "int8"}),
    "int16_maximum": several("MAXIMUM", "MaximumMinimumOptions", "int16", scaled="same"),
    "int16_squared_difference": several("SQUARED_DIFFERENCE", "", "int16", scaled="square"),
    "int16_add": several("ADD", "AddOptions", "int16", has_activation=True),
    "int16_sub": several("SUB", "SubOptions", "int16", has_activation=True),
    "int16_mul": several("MUL", "MulOptions", "int16", scaled="product", has_activation=True),
    "int16_relu": unary("RELU", "int16"),
    "int16_relu6": unary("RELU6", "int16", same=True),
    "int16_leaky_relu": unary("LEAKY_RELU", "int16", table="LeakyReluOptions"),
    "int16_logistic": unary("LOGISTIC", "int16", scale=2.0**-15, power=True),
    "int16_tanh": unary("TANH", "int16", scale=2.0**-15, power=True),
    "int16_hard_swish": unary("HARD_SWISH", "int16"),
    # float32
    "float_abs": unary("ABS", "float32"),
    "float_neg": unary("NEG", "float32"),
    "float_square": unary("SQUARE", "float32"),
    "float_sqrt": unary("SQRT", "float32", squared=True),
    "float_rsqrt": unary("RSQRT", "float32", squared=True),
    "float_exp": unary("EXP", "float32"),
    "float_log": unary("LOG", "float32", squared=True),
    "float_elu": unary("ELU", "float32"),
    "float_floor": unary("FLOOR", "float32"),
    "float_ceil": unary("CEIL", "float32"),
    "float_round": unary("ROUND", "float32"),
    "float_prelu": several("PRELU", "", "float32"),
    "float_maximum": several("MAXIMUM", "MaximumMinimumOptions", "float32"),
    "float_minimum": several("MINIMUM", "MaximumMinimumOptions", "float32"),
    "float_squared_difference": several("SQUARED_DIFFERENCE", "", "float32"),
    "float_div": several("DIV", "DivOptions", "float32", has_activation=True),
    "float_less": several("LESS", "LessOptions", "float32", result="bool"),
    "float_equal": several("EQUAL", "EqualOptions", "float32", result="bool"),
    "float_select_v2": several("SELECT_V2", "", "float32", count=3, kinds={0: "bool"}),
    "float_add": several("ADD", "AddOptions", "float32", has_activation=True),
    "float_sub": several("SUB", "SubOptions", "float32", has_activation=True),
    "float_mul": several("MUL", "MulOptions", "float32", has_activation=True),
    "float_relu": unary("RELU", "float32"),
    "float_relu6": unary("RELU6", "float32"),
    "float_leaky_relu": unary("LEAKY_RELU", "float32", table="LeakyReluOptions"),
    "float_hard_swish": unary("HARD_SWISH", "float32"),
    "float_logistic": unary("LOGISTIC", "float32"),
    "float_tanh": unary("TANH", "float32"),
}
for _kind in (
    "conv_2d depthwise_conv_2d fully_connected average_pool_2d max_pool_2d mean concatenation pad softmax "
    "resize_nearest_neighbor resize_bilinear transpose_conv unidirectional_sequence_lstm "
    "sum reduce_max reduce_min arg_max batch_matmul l2_normalization log_softmax space_to_depth depth_to_space "
    "space_to_batch_nd batch_to_space_nd mirror_pad broadcast_to gather reverse_v2 svdf graph image"
).split():
    KINDS[f"float_{_kind}"] = _as_floats(KINDS[_kind])
for _kind in (
    "conv_2d depthwise_conv_2d fully_connected concatenation transpose strided_slice average_pool_2d max_pool_2d "
    "mean softmax pad transpose_conv pack unpack split slice resize_nearest_neighbor resize_bilinear "
    "unidirectional_sequence_lstm sum batch_matmul reverse_v2 gather mirror_pad broadcast_to graph split_v reshape "
    "image"
).split():
    KINDS[f"int16_{_kind}"] = _as_wide(KINDS[_kind])

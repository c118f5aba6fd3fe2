"""LiteRT -> ONNX, one operator after another: ONNX Runtime, optimised, gives what LiteRT's reference kernels give."""

# ruff: noqa: E501  a case is one line of a table

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.bridges.tflite_cases import (
    DRAW,
    Case,
    F,
    X,
    bias32,
    build,
    build_all,
    check,
    floats,
    int8,
    weights8,
)
from tests.bridges.tflite_files import Flat, Step, const, write

from edgewright.bridges.tflite_onnx import TfliteToOnnx
from edgewright.bridges.tflite_ops import handlers
from edgewright.core.errors import ConversionError
from edgewright.sources.tflite import read_tflite

pytestmark = pytest.mark.toolchain("ai_edge_litert", "onnx", "onnxruntime")

BROADCAST = [F(shape=(2, 5, 6, 4)), F(shape=(6, 1))]
I32 = [F(shape=(3, 4), dtype="int32"), F(shape=(3, 4), dtype="int32")]
CASES: dict[str, Case] = {
    "conv": ("CONV_2D", [X, floats(8, 3, 3, 4), floats(8)], [F()], "Conv2DOptions", 1, {"padding": 0, "strideW": 2, "strideH": 2, "fusedActivationFunction": 3}),
    "conv dilated": ("CONV_2D", [X, floats(8, 3, 2, 4), floats(8)], [F()], "Conv2DOptions", 2, {"padding": 1, "strideW": 1, "strideH": 1, "dilationHFactor": 2, "dilationWFactor": 3}),
    "conv grouped": ("CONV_2D", [X, floats(6, 3, 3, 2), floats(6)], [F()], "Conv2DOptions", 6, {"padding": 1, "strideW": 1, "strideH": 1}),
    "depthwise": ("DEPTHWISE_CONV_2D", [X, floats(1, 3, 3, 8), floats(8)], [F()], "DepthwiseConv2DOptions", 1, {"padding": 0, "strideW": 2, "strideH": 2, "depthMultiplier": 2, "fusedActivationFunction": 1}),
    "conv 3d": ("CONV_3D", [F(shape=(1, 4, 5, 6, 2)), floats(2, 3, 2, 2, 3), floats(3)], [F()], "Conv3DOptions", 1, {"padding": 0, "strideD": 2, "strideH": 1, "strideW": 2}),
    "transpose conv same": ("TRANSPOSE_CONV", [const([2, 10, 12, 3]), floats(3, 3, 3, 4), X], [F()], "TransposeConvOptions", 1, {"padding": 0, "strideW": 2, "strideH": 2}),
    "transpose conv odd": ("TRANSPOSE_CONV", [const([2, 9, 11, 3]), floats(3, 3, 3, 4), X, floats(3)], [F()], "TransposeConvOptions", 3, {"padding": 0, "strideW": 2, "strideH": 2}),
    "transpose conv valid": ("TRANSPOSE_CONV", [const([2, 11, 13, 3]), floats(3, 3, 3, 4), X], [F()], "TransposeConvOptions", 1, {"padding": 1, "strideW": 2, "strideH": 2}),
    "average pool": ("AVERAGE_POOL_2D", [X], [F()], "Pool2DOptions", 1, {"padding": 0, "strideW": 2, "strideH": 2, "filterWidth": 3, "filterHeight": 3}),
    "max pool": ("MAX_POOL_2D", [X], [F()], "Pool2DOptions", 1, {"padding": 0, "strideW": 2, "strideH": 1, "filterWidth": 2, "filterHeight": 3, "fusedActivationFunction": 1}),
    "l2 pool": ("L2_POOL_2D", [X], [F()], "Pool2DOptions", 1, {"padding": 1, "strideW": 2, "strideH": 1, "filterWidth": 2, "filterHeight": 3}),
    "global pool": ("AVERAGE_POOL_2D", [X], [F()], "Pool2DOptions", 1, {"padding": 1, "strideW": 1, "strideH": 1, "filterWidth": 6, "filterHeight": 5}),
    "lrn": ("LOCAL_RESPONSE_NORMALIZATION", [F(shape=(1, 3, 4, 8))], [F()], "LocalResponseNormalizationOptions", 1, {"radius": 2, "bias": 1.0, "alpha": 0.3, "beta": 0.7}),
    "dense": ("FULLY_CONNECTED", [F(shape=(3, 7)), floats(5, 7), floats(5)], [F()], "FullyConnectedOptions", 1, {"fusedActivationFunction": 1}),
    "dense flattens": ("FULLY_CONNECTED", [X, floats(5, 60), None], [F()], "FullyConnectedOptions", 6, {}),
    "dense keeps axes": ("FULLY_CONNECTED", [F(shape=(2, 3, 7)), floats(5, 7), floats(5)], [F(shape=(2, 3, 5))], "FullyConnectedOptions", 5, {"keepNumDims": True}),
    "matmul": ("BATCH_MATMUL", [F(shape=(2, 3, 4)), F(shape=(2, 4, 5))], [F()], "BatchMatMulOptions", 1, {}),
    "matmul transposed": ("BATCH_MATMUL", [F(shape=(2, 4, 3)), F(shape=(5, 4))], [F()], "BatchMatMulOptions", 1, {"adjX": True, "adjY": True}),
    "add": ("ADD", BROADCAST, [F()], "AddOptions", 1, {"fusedActivationFunction": 1}),
    "sub": ("SUB", BROADCAST, [F()], "SubOptions", 1, {"fusedActivationFunction": 2}),
    "mul": ("MUL", BROADCAST, [F()], "MulOptions", 1, {"fusedActivationFunction": 3}),
    "div": ("DIV", [X, const(DRAW.uniform(0.5, 2, (6, 4)), "float32")], [F()], "DivOptions", 1, {}),
    "div integers": ("DIV", [I32[0], const([[3, -2, 1, 5]])], [F(dtype="int32")], "DivOptions", 1, {}),
    "floor div": ("FLOOR_DIV", [X, const([2.5, -0.3, 0.7, 1.1], "float32")], [F()], "FloorDivOptions", 2, {}),
    "floor div integers": ("FLOOR_DIV", [F(shape=(2, 4), dtype="int32"), const([3, -2, 1, -1])], [F(dtype="int32")], "", 1, {}),
    "floor mod": ("FLOOR_MOD", [X, const([2.5, -0.3, 0.7, 1.1], "float32")], [F()], "FloorModOptions", 1, {}),
    "squared difference": ("SQUARED_DIFFERENCE", BROADCAST, [F()], "", 1, {}),
    "maximum": ("MAXIMUM", BROADCAST, [F()], "", 1, {}),
    "minimum": ("MINIMUM", I32, [F(dtype="int32")], "", 1, {}),
    "pow": ("POW", [F(shape=(3, 4), dtype="int32"), const([2, 3, 0, 1])], [F(dtype="int32")], "", 1, {}),
    "add n": ("ADD_N", [X, X, X], [F()], "", 1, {}),
    "atan-free comparison": ("LESS", BROADCAST, [F(dtype="bool")], "", 1, {}),
    "logical and": ("LOGICAL_AND", [F(shape=(4,), dtype="bool"), F(shape=(4,), dtype="bool")], [F(dtype="bool")], "", 1, {}),
    "logical not": ("LOGICAL_NOT", [F(shape=(4,), dtype="bool")], [F(dtype="bool")], "", 1, {}),
    "not equal": ("NOT_EQUAL", I32, [F(dtype="bool")], "", 1, {}),
    "rsqrt of squares": ("SQUARE", [X], [F()], "", 1, {}),
    "leaky relu": ("LEAKY_RELU", [X], [F()], "LeakyReluOptions", 1, {"alpha": 0.1}),
    "prelu": ("PRELU", [X, floats(1, 1, 4)], [F()], "", 1, {}),
    "gelu": ("GELU", [X], [F()], "GeluOptions", 1, {}),
    "gelu approximate": ("GELU", [X], [F()], "GeluOptions", 1, {"approximate": True}),
    "softmax": ("SOFTMAX", [F(shape=(3, 7))], [F()], "SoftmaxOptions", 1, {"beta": 0.5}),
    "log softmax": ("LOG_SOFTMAX", [F(shape=(3, 7))], [F()], "", 1, {}),
    "l2 normalization": ("L2_NORMALIZATION", [X], [F()], "L2NormOptions", 1, {}),
    "cast": ("CAST", [X], [F(dtype="int32")], "CastOptions", 1, {"inDataType": 0, "outDataType": 2}),
    "select": ("SELECT", [F(shape=(3,), dtype="bool"), F(shape=(3, 4)), F(shape=(3, 4))], [F()], "", 1, {}),
    "select v2": ("SELECT_V2", [F(shape=(3, 1), dtype="bool"), F(shape=(3, 4)), F(shape=(4,))], [F()], "", 1, {}),
    "zeros like": ("ZEROS_LIKE", [X], [F()], "", 1, {}),
    "fake quant": ("FAKE_QUANT", [X], [F()], "FakeQuantOptions", 1, {"min": -1.5, "max": 2.0, "numBits": 8}),
    "reshape": ("RESHAPE", [X, const([2, -1])], [F()], "ReshapeOptions", 1, {"newShape": [2, -1]}),
    "squeeze": ("SQUEEZE", [F(shape=(1, 3, 1, 2))], [F()], "SqueezeOptions", 1, {"squeezeDims": [0, 2]}),
    "expand dims": ("EXPAND_DIMS", [F(shape=(3, 2)), const(-1)], [F()], "", 1, {}),
    "transpose": ("TRANSPOSE", [X, const([3, 0, 2, 1])], [F()], "", 1, {}),
    "concatenation": ("CONCATENATION", [X, F(shape=(2, 5, 6, 3))], [F()], "ConcatenationOptions", 1, {"axis": -1}),
    "pack": ("PACK", [F(shape=(3, 4)), F(shape=(3, 4))], [F()], "PackOptions", 1, {"valuesCount": 2, "axis": 1}),
    "unpack": ("UNPACK", [F(shape=(3, 2))], [F(), F()], "UnpackOptions", 1, {"num": 2, "axis": -1}),
    "split": ("SPLIT", [const(1), F(shape=(2, 6))], [F(), F(), F()], "SplitOptions", 1, {"numSplits": 3}),
    "split v": ("SPLIT_V", [F(shape=(2, 6)), const([1, -1, 2]), const(1)], [F(), F(), F()], "SplitVOptions", 1, {"numSplits": 3}),
    "pad v2": ("PADV2", [X, const([[0, 0], [1, 2], [0, 3], [0, 0]]), const(-2.5, "float32")], [F()], "", 1, {}),
    "mirror reflect": ("MIRROR_PAD", [X, const([[0, 0], [1, 2], [2, 3], [0, 0]])], [F()], "MirrorPadOptions", 1, {"mode": 0}),
    "mirror symmetric": ("MIRROR_PAD", [X, const([[0, 0], [1, 2], [2, 3], [0, 0]])], [F()], "MirrorPadOptions", 1, {"mode": 1}),
    "tile": ("TILE", [F(shape=(2, 3)), const([2, 1])], [F()], "", 1, {}),
    "broadcast to": ("BROADCAST_TO", [F(shape=(2, 1)), const([3, 2, 4])], [F()], "", 2, {}),
    "fill": ("FILL", [const([2, 3]), F(shape=())], [F()], "", 1, {}),
    "space to depth": ("SPACE_TO_DEPTH", [F(shape=(1, 4, 6, 3))], [F()], "SpaceToDepthOptions", 1, {"blockSize": 2}),
    "depth to space": ("DEPTH_TO_SPACE", [F(shape=(1, 4, 6, 12))], [F()], "DepthToSpaceOptions", 1, {"blockSize": 2}),
    "space to batch": ("SPACE_TO_BATCH_ND", [X, const([3, 2]), const([[0, 1], [1, 1]])], [F()], "", 1, {}),
    "batch to space": ("BATCH_TO_SPACE_ND", [F(shape=(12, 2, 4, 3)), const([3, 2]), const([[1, 0], [0, 2]])], [F()], "", 1, {}),
    "space to batch 3": ("SPACE_TO_BATCH_ND", [F(shape=(2, 5, 4)), const([3]), const([[0, 1]])], [F()], "", 1, {}),
    "slice": ("SLICE", [X, const([0, 1, 2, 0]), const([2, -1, 3, 2])], [F()], "", 1, {}),
    "gather": ("GATHER", [X, const([[1, 0], [3, 2]])], [F()], "GatherOptions", 1, {"axis": 1}),
    "gather batched": ("GATHER", [F(shape=(2, 5, 3)), const([[1, 0], [3, 2]])], [F()], "GatherOptions", 5, {"axis": 1, "batchDims": 1}),
    "gather nd": ("GATHER_ND", [X, const([[1, 0], [0, 2]])], [F()], "", 1, {}),
    "scatter nd": ("SCATTER_ND", [const([[1], [3], [1]]), F(shape=(3, 4)), const([5, 4])], [F()], "", 1, {}),
    "embedding": ("EMBEDDING_LOOKUP", [F(shape=(4,), dtype="int32"), floats(6, 3)], [F()], "", 1, {}),
    "one hot": ("ONE_HOT", [const([[0, 2], [5, -1]]), const(3), F(shape=()), F(shape=())], [F()], "OneHotOptions", 1, {"axis": -1}),
    "reverse": ("REVERSE_V2", [X, const([2])], [F()], "", 1, {}),
    "reverse sequence": ("REVERSE_SEQUENCE", [F(shape=(3, 5)), const([2, 5, 0])], [F()], "ReverseSequenceOptions", 1, {"seqDim": 1, "batchDim": 0}),
    "mean": ("MEAN", [X, const([1, 2])], [F()], "ReducerOptions", 1, {}),
    "mean kept": ("MEAN", [X, const([-1, 1])], [F()], "ReducerOptions", 1, {"keepDims": True}),
    "sum": ("SUM", [X, const([0, 3])], [F()], "ReducerOptions", 1, {}),
    "reduce max": ("REDUCE_MAX", [X, const(1)], [F()], "ReducerOptions", 1, {}),
    "reduce min": ("REDUCE_MIN", [X, const([2])], [F()], "ReducerOptions", 1, {"keepDims": True}),
    "reduce prod": ("REDUCE_PROD", [X, const([2])], [F()], "ReducerOptions", 1, {}),
    "reduce any": ("REDUCE_ANY", [F(shape=(3, 4), dtype="bool"), const([1])], [F(dtype="bool")], "ReducerOptions", 1, {}),
    "reduce all": ("REDUCE_ALL", [F(shape=(3, 4), dtype="bool"), const([1])], [F(dtype="bool")], "ReducerOptions", 1, {}),
    "arg max": ("ARG_MAX", [X, const(3)], [F(dtype="int32")], "ArgMaxOptions", 1, {"outputType": 2}),
    "arg min": ("ARG_MIN", [X, const(-2)], [F(dtype="int64")], "ArgMinOptions", 1, {"outputType": 4}),
    "top k": ("TOPK_V2", [F(shape=(3, 9)), const(4)], [F(), F(dtype="int32")], "", 1, {}),
    "cumsum": ("CUMSUM", [X, const(1)], [F()], "CumsumOptions", 1, {"exclusive": True, "reverse": True}),
    "bilinear": ("RESIZE_BILINEAR", [X, const([11, 4])], [F()], "ResizeBilinearOptions", 1, {}),
    "bilinear corners": ("RESIZE_BILINEAR", [X, const([11, 4])], [F()], "ResizeBilinearOptions", 1, {"alignCorners": True}),
    "bilinear centres": ("RESIZE_BILINEAR", [X, const([11, 4])], [F()], "ResizeBilinearOptions", 3, {"halfPixelCenters": True}),
    "nearest": ("RESIZE_NEAREST_NEIGHBOR", [X, const([11, 4])], [F()], "ResizeNearestNeighborOptions", 1, {}),
    "nearest corners": ("RESIZE_NEAREST_NEIGHBOR", [X, const([11, 4])], [F()], "ResizeNearestNeighborOptions", 1, {"alignCorners": True}),
    "nearest centres": ("RESIZE_NEAREST_NEIGHBOR", [X, const([10, 4])], [F()], "ResizeNearestNeighborOptions", 3, {"halfPixelCenters": True}),
}  # fmt: skip
UNARY = "ABS CEIL COS EXP FLOOR LOGISTIC NEG ROUND SIGN SIN TANH HARD_SWISH ELU RELU RELU6 RELU_N1_TO_1 RELU_0_TO_1"
for name in UNARY.split():
    CASES[name.lower()] = (name, [X], [F()], "", 1, {})


@pytest.mark.parametrize("group", range(4))
def test_float_operators(tmp_path: Path, group: int) -> None:
    check(build_all(tmp_path / "float.tflite", list(CASES.values())[group::4]))


def test_a_normalization_that_the_reference_kernel_gets_wrong(tmp_path: Path) -> None:
    path = build_all(tmp_path / "lrn.tflite", [CASES["lrn"]])
    made = TfliteToOnnx().convert(read_tflite(path, spec=str(path)), tmp_path / "onnx")
    assert made.outputs[0].shape == (1, 3, 4, 8)


@pytest.mark.parametrize("name", ["SQRT", "RSQRT", "LOG"])
def test_functions_of_positive_numbers(tmp_path: Path, name: str) -> None:
    tensors = {"x": X, "square": X, "one": const(0.1, "float32"), "positive": X, "y": X}
    steps = [
        Step(name="SQUARE", reads=("x",), makes=("square",)),
        Step(name="ADD", reads=("square", "one"), makes=("positive",), kind="AddOptions"),
        Step(name=name, reads=("positive",), makes=("y",)),
    ]
    check(write(tmp_path / "one.tflite", tensors, steps, ["x"], ["y"]))


W = weights8(8, 3, 3, 4, axis=0)
D = weights8(1, 3, 3, 4, axis=3)
K = weights8(5, 60, axis=0)
Q = int8(2, 5, 6, 4)
U = F(shape=(2, 5, 6, 4), dtype="uint8", scale=[0.03], zero=[120])
U_WEIGHTS = F(
    shape=(8, 3, 3, 4),
    dtype="uint8",
    value=DRAW.integers(0, 256, (8, 3, 3, 4)).astype(np.uint8),
    scale=[0.01],
    zero=[131],
)
U_BIAS = F(
    shape=(8,),
    dtype="int32",
    value=DRAW.integers(-900, 900, 8).astype(np.int32),
    scale=[0.03 * 0.01],
    zero=[0],
)
PROBABILITY = F(dtype="int8", scale=[1 / 256], zero=[-128])
QUANTIZED: dict[str, Case] = {
    "conv": ("CONV_2D", [Q, W, bias32(W, 0.05)], [int8(scale=0.2)], "Conv2DOptions", 3, {"padding": 0, "strideW": 2, "strideH": 1, "fusedActivationFunction": 3}),
    "conv relu at the end of the range": ("CONV_2D", [Q, W, bias32(W, 0.05)], [int8(scale=0.1, zero=-128)], "Conv2DOptions", 3, {"padding": 0, "strideW": 1, "strideH": 1, "fusedActivationFunction": 1}),
    "depthwise": ("DEPTHWISE_CONV_2D", [Q, D, bias32(D, 0.05)], [int8(scale=0.1)], "DepthwiseConv2DOptions", 3, {"padding": 0, "strideW": 1, "strideH": 1, "depthMultiplier": 1}),
    "transpose conv": ("TRANSPOSE_CONV", [const([2, 10, 12, 8]), W, Q, bias32(W, 0.05)], [int8(scale=0.2)], "TransposeConvOptions", 3, {"padding": 0, "strideW": 2, "strideH": 2}),
    "dense": ("FULLY_CONNECTED", [int8(3, 60), K, bias32(K, 0.05)], [int8(scale=0.2)], "FullyConnectedOptions", 5, {}),
    "conv uint8": ("CONV_2D", [U, U_WEIGHTS, U_BIAS], [F(dtype="uint8", scale=[0.1], zero=[128])], "Conv2DOptions", 1, {"padding": 0, "strideW": 1, "strideH": 1}),
    "matmul": ("BATCH_MATMUL", [int8(2, 3, 4), int8(2, 4, 5)], [int8(scale=0.1)], "BatchMatMulOptions", 2, {}),
    "add": ("ADD", [Q, int8(6, 1, scale=0.02)], [int8(scale=0.06)], "AddOptions", 2, {"fusedActivationFunction": 1}),
    "mul": ("MUL", [Q, int8(6, 4, scale=0.02)], [int8(scale=0.06)], "MulOptions", 2, {}),
    "sub": ("SUB", [Q, int8(6, 4, scale=0.02)], [int8(scale=0.06)], "SubOptions", 2, {}),
    "average pool": ("AVERAGE_POOL_2D", [Q], [int8()], "Pool2DOptions", 2, {"padding": 0, "strideW": 1, "strideH": 1, "filterWidth": 2, "filterHeight": 2}),
    "max pool": ("MAX_POOL_2D", [Q], [int8()], "Pool2DOptions", 2, {"padding": 0, "strideW": 2, "strideH": 2, "filterWidth": 2, "filterHeight": 2}),
    "softmax": ("SOFTMAX", [int8(3, 7)], [PROBABILITY], "SoftmaxOptions", 2, {"beta": 1.0}),
    "logistic": ("LOGISTIC", [Q], [PROBABILITY], "", 2, {}),
    "tanh": ("TANH", [Q], [int8(scale=1 / 128, zero=0)], "", 2, {}),
    "hard swish": ("HARD_SWISH", [Q], [int8(scale=0.05)], "", 1, {}),
    "leaky relu": ("LEAKY_RELU", [Q], [int8(scale=0.05)], "LeakyReluOptions", 2, {"alpha": 0.1}),
    "mean": ("MEAN", [Q, const([1, 2])], [int8()], "ReducerOptions", 2, {"keepDims": True}),
    "concatenation": ("CONCATENATION", [Q, Q], [int8()], "ConcatenationOptions", 2, {"axis": 3}),
    "pad": ("PAD", [Q, const([[0, 0], [1, 2], [0, 3], [0, 0]])], [int8()], "", 2, {}),
    "bilinear": ("RESIZE_BILINEAR", [Q, const([11, 4])], [int8()], "ResizeBilinearOptions", 2, {}),
    "quantize": ("QUANTIZE", [X], [int8(scale=0.03)], "", 1, {}),
    "requantize": ("QUANTIZE", [Q], [F(dtype="uint8", scale=[0.05], zero=[131])], "", 2, {}),
    "dequantize": ("DEQUANTIZE", [Q], [F()], "", 2, {}),
    "arg max": ("ARG_MAX", [Q, const(3)], [F(dtype="int32")], "ArgMaxOptions", 2, {"outputType": 2}),
    "gather": ("GATHER", [Q, const([1, 0])], [int8()], "GatherOptions", 2, {"axis": 2}),
    "strided slice": ("STRIDED_SLICE", [Q, const([0, 1, 0, 0]), const([2, 5, 6, 4]), const([1, 2, 1, 1])], [int8()], "StridedSliceOptions", 2, {"shrinkAxisMask": 8}),
}  # fmt: skip


@pytest.mark.parametrize("group", range(2))
def test_quantized_operators_are_at_most_one_step_off(tmp_path: Path, group: int) -> None:
    check(build_all(tmp_path / "int8.tflite", list(QUANTIZED.values())[group::2]))


def test_int16_activations_get_the_opset_that_has_them(tmp_path: Path) -> None:
    import onnx

    weights = weights8(8, 3, 3, 4, axis=0)
    value = DRAW.integers(-500, 500, 8).astype(np.int64)
    bias = F(shape=(8,), dtype="int64", value=value, scale=[0.001 * s for s in weights.scale], zero=[0] * 8)
    image = F(shape=(1, 5, 6, 4), dtype="int16", scale=[0.001], zero=[0])
    result = F(dtype="int16", scale=[0.002], zero=[0])
    options = {"padding": 0, "strideW": 1, "strideH": 1}
    path = build(
        tmp_path / "one.tflite", "CONV_2D", [image, weights, bias], [result], "Conv2DOptions", 4, **options
    )
    made = TfliteToOnnx().convert(read_tflite(path, spec=str(path)), tmp_path / "onnx")
    assert made.inputs[0].dtype == made.outputs[0].dtype == "int16"
    assert onnx.load(made.path).opset_import[0].version == 21


def test_float16_weights_stay_small_in_the_file(tmp_path: Path) -> None:
    half = F(
        shape=(64, 3, 3, 4), dtype="float16", value=DRAW.standard_normal((64, 3, 3, 4)).astype(np.float16)
    )
    tensors = {"x": X, "half": half, "w": F(shape=half.shape), "b": floats(64), "y": F()}
    steps = [
        Step(name="DEQUANTIZE", reads=("half",), makes=("w",), version=3),
        Step(
            name="CONV_2D",
            reads=("x", "w", "b"),
            makes=("y",),
            kind="Conv2DOptions",
            options={"padding": 0, "strideW": 1, "strideH": 1},
        ),
    ]
    path = write(tmp_path / "half.tflite", tensors, steps, ["x"], ["y"])
    check(path)
    assert (tmp_path / "onnx" / "half.onnx").stat().st_size < 2 * 64 * 36 + 2000


def test_a_residual_network_keeps_one_transpose_at_either_end(tmp_path: Path) -> None:
    import onnx

    options = {"padding": 0, "strideW": 1, "strideH": 1, "fusedActivationFunction": 1}
    tensors = {
        "x": F(shape=(1, 8, 8, 3), is_batched=True),
        "w1": floats(4, 3, 3, 3),
        "w2": floats(4, 3, 3, 4),
        "b": floats(4),
        "scale": floats(4),
        "a": F(is_batched=True),
        "c": F(is_batched=True),
        "d": F(is_batched=True),
        "e": F(is_batched=True),
        "pads": const([[0, 0], [1, 1], [0, 0], [2, 0]]),
        "f": F(is_batched=True),
        "y": F(is_batched=True),
    }
    tensors = {n: replace(t, shape=(1, 8, 8, 4)) if t.shape == () else t for n, t in tensors.items()}
    steps = [
        Step(name="CONV_2D", reads=("x", "w1", "b"), makes=("a",), kind="Conv2DOptions", options=options),
        Step(name="CONV_2D", reads=("a", "w2", "b"), makes=("c",), kind="Conv2DOptions", options=options),
        Step(name="ADD", reads=("a", "c"), makes=("d",), kind="AddOptions"),
        Step(name="MUL", reads=("d", "scale"), makes=("e",), kind="MulOptions"),
        Step(name="PAD", reads=("e", "pads"), makes=("f",)),
        Step(
            name="CONCATENATION",
            reads=("f", "f"),
            makes=("y",),
            kind="ConcatenationOptions",
            options={"axis": 3},
        ),
    ]
    path = write(tmp_path / "residual.tflite", tensors, steps, ["x"], ["y"])
    check(path)
    made = onnx.load(tmp_path / "onnx" / "residual.onnx")
    kinds = [node.op_type for node in made.graph.node]
    assert kinds == ["Transpose", "Conv", "Relu", "Conv", "Relu", "Add", "Mul", "Pad", "Concat", "Transpose"]
    assert made.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


def lstm(*, steps: int, clip: float, peephole: bool = False) -> tuple[dict[str, Flat], Step]:
    reads = ["x"]
    tensors = {"x": F(shape=(1, steps, 3))}
    for kind, shape in (("w", (5, 3)), ("r", (5, 5))):
        for gate in "ifco":
            tensors[f"{kind}{gate}"] = floats(*shape)
            reads.append(f"{kind}{gate}")
    reads += ["", "pf" if peephole else "", ""]
    tensors |= {"pf": floats(5)} if peephole else {}
    for gate in "ifco":
        tensors[f"b{gate}"] = floats(5)
        reads.append(f"b{gate}")
    for state in ("h", "c"):
        tensors[state] = F(shape=(1, 5), is_variable=True)
    reads += ["", "", "h", "c", "", "", "", ""]
    tensors["y"] = F(shape=(1, steps, 5))
    step = Step(
        name="UNIDIRECTIONAL_SEQUENCE_LSTM",
        reads=tuple(reads),
        makes=("y",),
        kind="UnidirectionalSequenceLSTMOptions",
        options={"fusedActivationFunction": 4, "cellClip": clip, "timeMajor": False},
    )
    return tensors, step


@pytest.mark.parametrize(("steps", "clip"), [(6, 10.0), (6, 0.5), (40, 0.0)])
def test_lstm_with_and_without_a_clipped_cell(tmp_path: Path, steps: int, clip: float) -> None:
    tensors, step = lstm(steps=steps, clip=clip)
    check(write(tmp_path / "lstm.tflite", tensors, [step], ["x"], ["y"]))


def test_rnn(tmp_path: Path) -> None:
    reads = [F(shape=(2, 6, 3)), floats(5, 3), const(DRAW.standard_normal((5, 5)) / 4, "float32"), floats(5)]
    state = F(shape=(2, 5), is_variable=True)
    options = {"fusedActivationFunction": 4}
    path = build(
        tmp_path / "rnn.tflite",
        "UNIDIRECTIONAL_SEQUENCE_RNN",
        [*reads, state],
        [F()],
        "SequenceRNNOptions",
        **options,
    )
    check(path)


def test_what_cannot_be_written_is_refused_by_name_all_at_once(tmp_path: Path) -> None:
    tensors, step = lstm(steps=4, clip=0.0, peephole=False)
    tensors |= {
        "flag": F(shape=(4,), dtype="bool"),
        "where": F(shape=(4, 1), dtype="int64"),
        "z": F(shape=(1, 4, 5)),
    }
    steps = [
        step,
        Step(name="WHERE", reads=("flag",), makes=("where",)),
        Step(name="Mystery", reads=("y",), makes=("z",)),
    ]
    path = write(tmp_path / "odd.tflite", tensors, steps, ["x", "flag"], ["z", "where"])
    with pytest.raises(ConversionError, match=r"odd\.tflite .* no translation of WHERE, custom Mystery"):
        TfliteToOnnx().convert(read_tflite(path, spec=str(path)), tmp_path / "onnx")


def test_the_order_of_the_program_is_kept_not_that_of_the_file(tmp_path: Path) -> None:
    import onnxruntime as ort

    tensors = {"a": F(shape=(2, 3)), "b": F(shape=(2, 3)), "less": F(shape=(2, 3)), "more": F(shape=(2, 3))}
    steps = [
        Step(name="SUB", reads=("a", "b"), makes=("less",), kind="SubOptions"),
        Step(name="ADD", reads=("a", "b"), makes=("more",), kind="AddOptions"),
    ]
    path = write(tmp_path / "two.tflite", tensors, steps, ["a", "b"], ["less", "more"])
    program = read_tflite(path, spec=str(path))
    turned = replace(program, inputs=program.inputs[::-1], outputs=program.outputs[::-1])
    made = TfliteToOnnx().convert(turned, tmp_path / "onnx")
    session = ort.InferenceSession(str(made.path), providers=["CPUExecutionProvider"])
    assert [value.name for value in session.get_inputs()] == ["b", "a"]
    assert [value.name for value in session.get_outputs()] == ["more", "less"]
    more, less = session.run(None, {"a": np.full((2, 3), 5, np.float32), "b": np.full((2, 3), 3, np.float32)})
    assert (more[0, 0], less[0, 0]) == (8, 2)


def test_every_handler_is_an_operator_of_litert() -> None:
    from ai_edge_litert import schema_py_generated as schema

    assert [name for name in handlers() if not hasattr(schema.BuiltinOperator, name)] in ([], [POSTPROCESS])


POSTPROCESS = "custom TFLite_Detection_PostProcess"

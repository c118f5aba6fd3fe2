"""Which operators LiteRT Micro has, and what its resolver calls them."""

from __future__ import annotations

from collections.abc import Mapping

from edgewright.microcontrollers.names import numbered
from edgewright.sources.tflite_file import FlatGraph, FlatModel, FlatOperator

# Operator of the schema -> method of MicroMutableOpResolver; those whose kernels the locked interpreter has.
_METHODS = (
    "ABS Abs, ADD Add, ADD_N AddN, ARG_MAX ArgMax, ARG_MIN ArgMin, AVERAGE_POOL_2D AveragePool2D, "
    "BATCH_MATMUL BatchMatMul, BATCH_TO_SPACE_ND BatchToSpaceNd, BROADCAST_ARGS BroadcastArgs, "
    "BROADCAST_TO BroadcastTo, CAST Cast, CEIL Ceil, CONCATENATION Concatenation, CONV_2D Conv2D, COS Cos, "
    "CUMSUM CumSum, DEPTH_TO_SPACE DepthToSpace, DEPTHWISE_CONV_2D DepthwiseConv2D, DEQUANTIZE Dequantize, "
    "DIV Div, DYNAMIC_UPDATE_SLICE DynamicUpdateSlice, ELU Elu, EMBEDDING_LOOKUP EmbeddingLookup, "
    "EQUAL Equal, EXP Exp, EXPAND_DIMS ExpandDims, FILL Fill, FLOOR Floor, FLOOR_DIV FloorDiv, "
    "FLOOR_MOD FloorMod, FULLY_CONNECTED FullyConnected, GATHER Gather, GATHER_ND GatherNd, GREATER Greater, "
    "GREATER_EQUAL GreaterEqual, HARD_SWISH HardSwish, IF If, L2_NORMALIZATION L2Normalization, "
    "L2_POOL_2D L2Pool2D, LEAKY_RELU LeakyRelu, LESS Less, LESS_EQUAL LessEqual, LOG Log, "
    "LOG_SOFTMAX LogSoftmax, LOGICAL_AND LogicalAnd, LOGICAL_NOT LogicalNot, LOGICAL_OR LogicalOr, "
    "LOGISTIC Logistic, MAX_POOL_2D MaxPool2D, MAXIMUM Maximum, MEAN Mean, MINIMUM Minimum, "
    "MIRROR_PAD MirrorPad, MUL Mul, NEG Neg, NOT_EQUAL NotEqual, PACK Pack, PAD Pad, PADV2 PadV2, "
    "PRELU Prelu, QUANTIZE Quantize, REDUCE_ALL ReduceAll, REDUCE_MAX ReduceMax, REDUCE_MIN ReduceMin, "
    "RELU Relu, RELU6 Relu6, RESHAPE Reshape, RESIZE_BILINEAR ResizeBilinear, "
    "RESIZE_NEAREST_NEIGHBOR ResizeNearestNeighbor, REVERSE_V2 ReverseV2, ROUND Round, RSQRT Rsqrt, "
    "SELECT_V2 SelectV2, SHAPE Shape, SIN Sin, SLICE Slice, SOFTMAX Softmax, "
    "SPACE_TO_BATCH_ND SpaceToBatchNd, SPACE_TO_DEPTH SpaceToDepth, SPLIT Split, SPLIT_V SplitV, SQRT Sqrt, "
    "SQUARE Square, SQUARED_DIFFERENCE SquaredDifference, SQUEEZE Squeeze, STRIDED_SLICE StridedSlice, "
    "SUB Sub, SUM Sum, SVDF Svdf, TANH Tanh, TRANSPOSE Transpose, TRANSPOSE_CONV TransposeConv, "
    "UNIDIRECTIONAL_SEQUENCE_LSTM UnidirectionalSequenceLSTM, UNPACK Unpack, WHILE While, "
    "ZEROS_LIKE ZerosLike"
)
_CUSTOM_METHODS = (
    "CIRCULAR_BUFFER CircularBuffer, SignalDelay Delay, SignalEnergy Energy, "
    "SignalFftAutoScale FftAutoScale, SignalFilterBank FilterBank, SignalFilterBankLog FilterBankLog, "
    "SignalFilterBankSpectralSubtraction FilterBankSpectralSubtraction, "
    "SignalFilterBankSquareRoot FilterBankSquareRoot, SignalFramer Framer, SignalIrfft Irfft, "
    "SignalOverlapAdd OverlapAdd, SignalPCAN PCAN, SignalRfft Rfft, SignalStacker Stacker, "
    "SignalWindow Window, TFLite_Detection_PostProcess DetectionPostprocess"
)


def _table(text: str) -> Mapping[str, str]:
    pairs = (entry.split() for entry in text.split(", "))
    return {name: f"Add{method}" for name, method in pairs}


METHODS = _table(_METHODS)
CUSTOM_METHODS = _table(_CUSTOM_METHODS)
_WEIGHTED = (
    "CONV_2D",
    "DEPTHWISE_CONV_2D",
    "FULLY_CONNECTED",
    "TRANSPOSE_CONV",
    "BATCH_MATMUL",
    "SVDF",
    "LSTM",
)
_VARIABLES = ("VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE", "CALL_ONCE")
_NO_KERNELS = ("float16", "bfloat16", "float64")


def methods_of(model: FlatModel) -> list[str]:
    """Return the methods that a resolver for `model` calls, each once, sorted."""
    operators = [operator for graph in model.graphs for operator in graph.operators]
    return sorted({_method(operator) or "" for operator in operators})


def refusals_of(model: FlatModel) -> list[str]:
    """Return what LiteRT Micro cannot run of `model`: "RFFT2D (operator 3): no kernel", equal reasons once."""
    found: dict[tuple[str, str], list[int]] = {}
    for graph in model.graphs:
        for position, operator in enumerate(graph.operators):
            reason = _refusal(graph, operator)
            if reason:
                found.setdefault((operator.name, reason), []).append(position)
    return [f"{numbered(name, places)}: {reason}" for (name, reason), places in found.items()]


def _method(operator: FlatOperator) -> str | None:
    return (CUSTOM_METHODS if operator.is_custom else METHODS).get(operator.name)


def _refusal(graph: FlatGraph, operator: FlatOperator) -> str:
    if operator.name in _VARIABLES:
        return "resource variables, which the example does not set up"
    if _method(operator) is None:
        return "a custom operator without a kernel" if operator.is_custom else "no kernel"
    tensors = [graph.tensors[i] for i in (*operator.inputs, *operator.outputs) if i >= 0]
    without = sorted({tensor.dtype for tensor in tensors if tensor.dtype in _NO_KERNELS})
    if without:
        return f"no kernel for {', '.join(without)}"
    is_weighted = operator.name.rpartition("SEQUENCE_")[2] in _WEIGHTED
    if is_weighted and any(tensor.dtype == "uint8" for tensor in tensors):
        return "no kernel for uint8"
    is_float = bool(tensors) and tensors[0].dtype == "float32"
    has_integers = any(t.data_bytes and t.is_quantized and t.dtype in ("int8", "int4") for t in tensors)
    if is_weighted and is_float and has_integers:
        return "hybrid (int8 weights with float activations)"
    return ""

"""Generated models of layers: convolutions, pools, softmax, mean, LSTM, with odd shapes, windows and quantization."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from made_draws import Draw, int8s, scale_of, shape_of, zero_of
from made_models import Maker

ACTIVATIONS = (0, 0, 1, 2, 3)
SAME, VALID = 0, 1


def conv_2d(draw: Draw, path: Path) -> None:
    """A convolution."""
    _window(draw, path, is_depthwise=False)


def depthwise_conv_2d(draw: Draw, path: Path) -> None:
    """A depthwise convolution, with multipliers."""
    _window(draw, path, is_depthwise=True)


def _window(draw: Draw, path: Path, *, is_depthwise: bool) -> None:
    made = Maker()
    n, h, w = int(draw.choice([1, 1, 1, 2])), int(draw.integers(1, 12)), int(draw.integers(1, 12))
    groups = 1 if is_depthwise or draw.random() < 0.8 else int(draw.choice([2, 3]))
    depth = int(draw.integers(1, 9)) * groups
    padding = int(draw.choice([SAME, VALID]))
    ky, kx = int(draw.integers(1, 5)), int(draw.integers(1, 5))
    dy, dx = (int(draw.integers(1, 4)) for _ in range(2)) if draw.random() < 0.3 else (1, 1)
    sy, sx = int(draw.integers(1, 4)), int(draw.integers(1, 4))
    if padding == VALID:
        ky, kx = min(ky, (h - 1) // dy + 1), min(kx, (w - 1) // dx + 1)
    reach_y, reach_x = (ky - 1) * dy + 1, (kx - 1) * dx + 1
    oh = -(-h // sy) if padding == SAME else (h - reach_y + sy) // sy
    ow = -(-w // sx) if padding == SAME else (w - reach_x + sx) // sx
    multiplier = int(draw.choice([1, 1, 1, 2, 3]))
    channels = depth * multiplier if is_depthwise else int(draw.integers(1, 9)) * groups
    shape = (1, ky, kx, channels) if is_depthwise else (channels, ky, kx, depth // groups)
    is_per_axis = draw.random() < 0.8
    scales = [scale_of(draw) for _ in range(channels if is_per_axis else 1)]
    in_scale = scale_of(draw)
    x = made.tensor((n, h, w, depth), scale=in_scale, zero=zero_of(draw))
    weights = made.tensor(shape, scale=scales, axis=3 if is_depthwise else 0, value=int8s(draw, shape))
    inputs = [x, weights]
    if is_depthwise or draw.random() < 0.8:
        large = draw.random() < 0.1
        bias = draw.integers(-(2**31) if large else -5000, 2**31 if large else 5000, channels)
        inputs.append(made.tensor((channels,), "int32", scale=[in_scale * s for s in scales], value=bias))
    spread = np.sqrt(ky * kx * depth) * 60 * 60 / 100
    out_scale = float(in_scale * np.median(scales) * spread * np.exp(draw.uniform(-1.5, 1)))
    y = made.tensor((n, oh, ow, channels), scale=out_scale, zero=zero_of(draw))
    options = {
        "padding": padding,
        "strideW": sx,
        "strideH": sy,
        "dilationWFactor": dx,
        "dilationHFactor": dy,
        "fusedActivationFunction": int(draw.choice(ACTIVATIONS)),
    }
    if is_depthwise:
        options["depthMultiplier"] = multiplier
    name = "DEPTHWISE_CONV_2D" if is_depthwise else "CONV_2D"
    table = "DepthwiseConv2DOptions" if is_depthwise else "Conv2DOptions"
    made.operator(name, inputs, [y], table=table, options=options, version=3)
    made.write(path, [x], [y])


def fully_connected(draw: Draw, path: Path) -> None:
    """A fully connected layer."""
    made = Maker()
    rows, depth, channels = (int(draw.integers(1, 5)), int(draw.integers(1, 40)), int(draw.integers(1, 20)))
    shape = (rows, depth) if draw.random() < 0.6 else (1, rows, depth)
    in_scale = scale_of(draw)
    scales = [scale_of(draw) for _ in range(channels if draw.random() < 0.3 else 1)]
    zero = zero_of(draw) if len(scales) == 1 and draw.random() < 0.3 else 0
    x = made.tensor(shape, scale=in_scale, zero=zero_of(draw))
    w = made.tensor((channels, depth), scale=scales, zero=zero, value=int8s(draw, (channels, depth)))
    inputs = [x, w]
    if draw.random() < 0.8:
        bias = draw.integers(-5000, 5000, channels)
        inputs.append(made.tensor((channels,), "int32", scale=[in_scale * s for s in scales], value=bias))
    elif draw.random() < 0.5:
        inputs.append(-1)
    keep = len(shape) == 3 and draw.random() < 0.5
    out_scale = float(in_scale * np.median(scales) * np.sqrt(depth) * 36 * np.exp(draw.uniform(-1.5, 1)))
    y = made.tensor((1, rows, channels) if keep else (rows, channels), scale=out_scale, zero=zero_of(draw))
    options = {"fusedActivationFunction": int(draw.choice(ACTIVATIONS)), "keepNumDims": keep}
    made.operator("FULLY_CONNECTED", inputs, [y], table="FullyConnectedOptions", options=options, version=4)
    made.write(path, [x], [y])


def average_pool_2d(draw: Draw, path: Path) -> None:
    """An average pool."""
    _pool(draw, path, "AVERAGE_POOL_2D")


def max_pool_2d(draw: Draw, path: Path) -> None:
    """A maximum pool."""
    _pool(draw, path, "MAX_POOL_2D")


def _pool(draw: Draw, path: Path, name: str) -> None:
    made = Maker()
    n, h, w, c = (int(draw.integers(1, 3)), *(int(draw.integers(1, 11)) for _ in range(3)))
    padding = int(draw.choice([SAME, VALID]))
    ky, kx, sy, sx = (int(draw.integers(1, 5)) for _ in range(4))
    if padding == VALID:
        ky, kx = min(ky, h), min(kx, w)
    oh = -(-h // sy) if padding == SAME else (h - ky + sy) // sy
    ow = -(-w // sx) if padding == SAME else (w - kx + sx) // sx
    scale, zero = scale_of(draw), zero_of(draw)
    x = made.tensor((n, h, w, c), scale=scale, zero=zero)
    y = made.tensor((n, oh, ow, c), scale=scale, zero=zero)
    options = {
        "padding": padding,
        "strideW": sx,
        "strideH": sy,
        "filterWidth": kx,
        "filterHeight": ky,
        "fusedActivationFunction": int(draw.choice(ACTIVATIONS)),
    }
    made.operator(name, [x], [y], table="Pool2DOptions", options=options, version=2)
    made.write(path, [x], [y])


def softmax(draw: Draw, path: Path) -> None:
    """A softmax."""
    made = Maker()
    lead = tuple(int(draw.integers(1, 6)) for _ in range(int(draw.integers(0, 3))))
    shape = (*lead, 2 if draw.random() < 0.25 else int(draw.integers(1, 80)))
    if made.is_wide:
        x = made.tensor(shape, "int16", scale=scale_of(draw) / 256)
        y = made.tensor(shape, "int16", scale=2.0**-15)
    else:
        x = made.tensor(shape, scale=scale_of(draw), zero=zero_of(draw))
        y = made.tensor(shape, scale=1 / 256, zero=-128)
    beta = 1.0 if draw.random() < 0.7 else float(draw.uniform(0.1, 3))
    made.operator("SOFTMAX", [x], [y], table="SoftmaxOptions", options={"beta": beta}, version=2)
    made.write(path, [x], [y])


def mean(draw: Draw, path: Path) -> None:
    """A mean over some axes."""
    _reduced(draw, path, "MEAN")


def sum_(draw: Draw, path: Path) -> None:
    """A sum over some axes."""
    _reduced(draw, path, "SUM")


def reduce_max(draw: Draw, path: Path) -> None:
    """The largest values over some axes."""
    _reduced(draw, path, "REDUCE_MAX")


def reduce_min(draw: Draw, path: Path) -> None:
    """The smallest values over some axes."""
    _reduced(draw, path, "REDUCE_MIN")


def arg_max(draw: Draw, path: Path) -> None:
    """Where the largest value is."""
    _argument(draw, path, "ARG_MAX", "ArgMaxOptions")


def arg_min(draw: Draw, path: Path) -> None:
    """Where the smallest value is."""
    _argument(draw, path, "ARG_MIN", "ArgMinOptions")


def _argument(draw: Draw, path: Path, name: str, table: str) -> None:
    made = Maker()
    shape = shape_of(draw, size=8)
    axis = int(draw.integers(0, len(shape)))
    x = made.tensor(shape, scale=scale_of(draw), zero=zero_of(draw))
    a = made.tensor((), "int32", value=np.array(axis if draw.random() < 0.6 else axis - len(shape)))
    y = made.tensor((*shape[:axis], *shape[axis + 1 :]), "int32")
    made.operator(name, [x, a], [y], table=table, options={"outputType": 2}, version=2)
    made.write(path, [x], [y])


def batch_matmul(draw: Draw, path: Path) -> None:
    """A product of two computed matrices, with batches."""
    made = Maker()
    rows, depth, columns = (int(draw.integers(1, 8)) for _ in range(3))
    batches = tuple(int(draw.integers(1, 4)) for _ in range(int(draw.integers(0, 3))))
    adjoint = [bool(draw.random() < 0.4) for _ in range(2)]
    left = (depth, rows) if adjoint[0] else (rows, depth)
    right = (columns, depth) if adjoint[1] else (depth, columns)
    scales = [scale_of(draw), scale_of(draw)]
    a = made.tensor((*batches, *left), scale=scales[0], zero=zero_of(draw))
    value, own = None, batches
    if draw.random() < 0.3:
        own = () if draw.random() < 0.5 else tuple(1 for _ in batches)
    if draw.random() < 0.2 and not made.is_wide:
        value = int8s(draw, (*own, *right))
    b = made.tensor((*own, *right), scale=scales[1], zero=zero_of(draw), value=value)
    scale = float(scales[0] * scales[1] * np.sqrt(depth) * 60 * np.exp(draw.uniform(-1, 1)))
    y = made.tensor((*batches, rows, columns), scale=scale, zero=zero_of(draw))
    options = {"adjX": adjoint[0], "adjY": adjoint[1]}
    made.operator("BATCH_MATMUL", [a, b], [y], table="BatchMatMulOptions", options=options, version=3)
    made.write(path, [a, b] if value is None else [a], [y])


def l2_normalization(draw: Draw, path: Path) -> None:
    """Rows of unit length."""
    made = Maker()
    shape = shape_of(draw, size=9)
    x = made.tensor(shape, scale=scale_of(draw), zero=zero_of(draw))
    y = made.tensor(shape, scale=1 / 128)
    made.operator("L2_NORMALIZATION", [x], [y], table="L2NormOptions", version=2)
    made.write(path, [x], [y])


def log_softmax(draw: Draw, path: Path) -> None:
    """The logarithm of softmax."""
    made = Maker()
    shape = shape_of(draw, size=9)
    x = made.tensor(shape, scale=scale_of(draw), zero=zero_of(draw))
    y = made.tensor(shape, scale=16 / 256, zero=127)
    made.operator("LOG_SOFTMAX", [x], [y], table="LogSoftmaxOptions", version=2)
    made.write(path, [x], [y])


def _reduced(draw: Draw, path: Path, name: str) -> None:
    made = Maker()
    shape = shape_of(draw, low=2, size=8)
    if draw.random() < 0.5:
        shape, axes = (*shape_of(draw, 4, 5, 9),), np.array([1, 2])
    else:
        count = int(draw.integers(1, len(shape)))
        axes = np.sort(draw.permutation(len(shape))[:count])
    keep = bool(draw.random() < 0.5)
    result = tuple(1 if i in axes else s for i, s in enumerate(shape) if keep or i not in axes)
    scale, zero = scale_of(draw), zero_of(draw)
    x = made.tensor(shape, scale=scale, zero=zero)
    a = made.tensor(axes.shape, "int32", value=axes if draw.random() < 0.7 else axes - len(shape))
    if draw.random() < 0.5 or name.startswith("REDUCE"):
        y = made.tensor(result, scale=scale, zero=zero)
    else:
        y = made.tensor(result, scale=float(scale * np.exp(draw.uniform(-1.5, 0.5))), zero=zero_of(draw))
    made.operator(name, [x, a], [y], table="ReducerOptions", options={"keepDims": keep}, version=2)
    made.write(path, [x], [y])


def transpose_conv(draw: Draw, path: Path) -> None:
    """A transposed convolution."""
    made = Maker()
    n, h, w = int(draw.choice([1, 1, 2])), int(draw.integers(1, 7)), int(draw.integers(1, 7))
    depth, channels = int(draw.integers(1, 7)), int(draw.integers(1, 7))
    ky, kx, sy, sx = (int(draw.integers(1, 5)) for _ in range(4))
    padding = int(draw.choice([SAME, VALID]))
    if padding == SAME:
        oh, ow = h * sy, w * sx
    else:
        oh, ow = (h - 1) * sy + ky, (w - 1) * sx + kx
    shape = (channels, ky, kx, depth)
    scales = [scale_of(draw) for _ in range(channels)]
    in_scale = scale_of(draw)
    target = made.tensor((4,), "int32", value=np.array([n, oh, ow, channels]))
    weights = made.tensor(shape, scale=scales, value=int8s(draw, shape))
    x = made.tensor((n, h, w, depth), scale=in_scale, zero=zero_of(draw))
    inputs = [target, weights, x]
    if draw.random() < 0.6:
        bias = draw.integers(-5000, 5000, channels)
        inputs.append(made.tensor((channels,), "int32", scale=[in_scale * s for s in scales], value=bias))
    spread = np.sqrt(ky * kx * depth) * 60 * 60 / 100
    out_scale = float(in_scale * np.median(scales) * spread * np.exp(draw.uniform(-1.5, 1)))
    y = made.tensor((n, oh, ow, channels), scale=out_scale, zero=zero_of(draw))
    options = {"padding": padding, "strideW": sx, "strideH": sy}
    made.operator("TRANSPOSE_CONV", inputs, [y], table="TransposeConvOptions", options=options, version=3)
    made.write(path, [x], [y])


def unidirectional_sequence_lstm(draw: Draw, path: Path) -> None:
    """An LSTM over a short sequence; its state goes on from run to run."""
    made = Maker()
    most = 9 if draw.random() < 0.5 else 49
    batch, times, depth, units = (int(draw.integers(1, high)) for high in (3, 7, most, most))
    is_time_major = bool(draw.random() < 0.3)
    in_scale, hidden_scale, hidden_zero = (
        scale_of(draw),
        float(draw.uniform(0.004, 0.009)),
        int(draw.integers(-20, 20)),
    )
    cell_scale = 2.0 ** -int(draw.choice([11, 12, 13, 15]) if draw.random() < 0.5 else 12)
    lead = (times, batch) if is_time_major else (batch, times)
    x = made.tensor((*lead, depth), scale=in_scale, zero=zero_of(draw))
    inputs = [x]
    scales = []
    for columns in (depth, units):
        for _ in range(4):
            scales.append(float(draw.uniform(0.002, 0.02)))
            inputs.append(
                made.tensor((units, columns), scale=scales[-1], value=int8s(draw, (units, columns)))
            )
    inputs += [-1, -1, -1]
    for gate in range(4):
        bias = draw.integers(-20000, 20000, units)
        inputs.append(made.tensor((units,), "int32", scale=in_scale * scales[gate], value=bias))
    inputs += [-1, -1]
    inputs.append(made.tensor((batch, units), scale=hidden_scale, zero=hidden_zero, is_variable=True))
    cell_type = "float32" if made.is_float else "int16"
    inputs.append(made.tensor((batch, units), cell_type, scale=cell_scale, is_variable=True))
    inputs += [-1] * 4
    middle = [made.tensor((0,), "float32") for _ in range(4)]
    middle.append(made.tensor((0,), "int8", scale=hidden_scale, zero=hidden_zero))
    y = made.tensor((*lead, units), scale=hidden_scale, zero=hidden_zero)
    options = {
        "fusedActivationFunction": 4,
        "timeMajor": is_time_major,
        "cellClip": float(draw.choice([0.0, 2.0, 10.0])),
    }
    made.operator(
        "UNIDIRECTIONAL_SEQUENCE_LSTM", inputs, [y], table="UnidirectionalSequenceLSTMOptions", options=options,
        intermediates=middle, version=3,
    )  # fmt: skip
    made.write(path, [x], [y])


def svdf(draw: Draw, path: Path) -> None:
    """A layer over time; its state goes on from run to run."""
    made = Maker()
    batch, depth, rank = int(draw.integers(1, 3)), int(draw.integers(1, 20)), int(draw.integers(1, 4))
    units, memory = int(draw.integers(1, 9)), int(draw.integers(2, 9))
    filters = units * rank
    is_short = made.is_float or draw.random() < 0.5
    in_scale, feature_scale, time_scale = (float(draw.uniform(0.005, 0.05)) for _ in range(3))
    state_scale = in_scale * feature_scale * float(np.sqrt(depth) * draw.uniform(20, 120))
    x = made.tensor((batch, depth), scale=in_scale, zero=zero_of(draw))
    w = made.tensor((filters, depth), scale=feature_scale, value=int8s(draw, (filters, depth)))
    if is_short:
        t = made.tensor((filters, memory), scale=time_scale, value=int8s(draw, (filters, memory)))
    else:
        state_scale, time_scale = state_scale / 256, time_scale / 256
        value = draw.integers(-3000, 3000, (filters, memory))
        t = made.tensor((filters, memory), "int16", scale=time_scale, value=value)
    zero = zero_of(draw) if is_short and draw.random() < 0.2 else 0
    bias = -1
    if draw.random() < 0.9:
        value = draw.integers(-5000, 5000, units)
        bias = made.tensor((units,), "int32", scale=state_scale * time_scale, value=value)
    kind = "int8" if is_short else "int16"
    state = made.tensor((batch, filters * memory), kind, scale=state_scale, zero=zero, is_variable=True)
    spread = (40 if is_short else 2e6) * np.sqrt(rank * memory) * np.exp(draw.uniform(-1, 1))
    y = made.tensor((batch, units), scale=float(state_scale * time_scale * spread), zero=zero_of(draw))
    options = {"rank": rank, "fusedActivationFunction": 0}
    made.operator("SVDF", [x, w, t, bias, state], [y], table="SVDFOptions", options=options, version=3)
    made.write(path, [x], [y])

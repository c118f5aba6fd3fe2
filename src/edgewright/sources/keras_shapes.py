"""Shapes and MACs of a Keras model from its configuration alone.

Source of the rules: the output shapes documented for each class of keras.layers. What is not among them takes the
shape that Keras 3 wrote beside the tensor, or stays unknown. MACs are counted as in `sources.inspection`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from edgewright.sources.keras_config import KerasLayer, KerasModel, Reference, Shape, input_shape

_UNCHANGED = frozenset(
    """
    Activation ActivityRegularization AlphaDropout BatchNormalization BatchNormalizationV1 BatchNormalizationV2
    Dropout ELU GaussianDropout GaussianNoise GroupNormalization Identity LayerNormalization LeakyReLU Masking
    Normalization PReLU RMSNormalization ReLU Rescaling Softmax SpatialDropout1D SpatialDropout2D SpatialDropout3D
    SyncBatchNormalization ThresholdedReLU UnitNormalization
    """.split()
)
_BROADCAST = frozenset("Add Average Divide Maximum Minimum Multiply Subtract TrueDivide Power".split())
_RECURRENT = frozenset("LSTM LSTMV1 LSTMV2 GRU GRUV1 GRUV2 SimpleRNN".split())
_GATES = {"LSTM": 4, "GRU": 3, "Simple": 1}
_SPATIAL = {"1D": 1, "2D": 2, "3D": 3}


@dataclass(frozen=True, kw_only=True)
class Traced:
    """One call of a layer; `macs` is None where a shape that it needs is not known."""

    layer: KerasLayer
    outputs: tuple[Shape | None, ...]
    macs: int | None


Result = tuple[tuple[Shape | None, ...], int | None]
_UNKNOWN: Result = ((None,), None)
_Place = tuple[str, int, int]


def trace(model: KerasModel, inputs: Sequence[Shape | None]) -> tuple[list[Traced], tuple[Shape | None, ...]]:
    """Return each call of a layer in an order in which they can run, and the shapes of the model's outputs."""
    hints = {
        (r.layer, r.node, r.tensor): r.shape for layer in model.layers for call in layer.calls for r in call
    }
    known: dict[_Place, Shape | None] = {}
    traced: list[Traced] = []
    given = {r.layer: shape for r, shape in zip(model.inputs, inputs, strict=False)}
    calls: list[tuple[KerasLayer, int, tuple[Reference, ...]]] = []
    for layer in model.layers:
        if layer.class_name == "InputLayer":
            known[layer.name, 0, 0] = given.get(layer.name) or input_shape(layer)
        else:
            calls += [(layer, node, call) for node, call in enumerate(layer.calls)]
    while calls:
        waiting = []
        for layer, node, call in calls:
            if any((r.layer, r.node, r.tensor) not in known for r in call):
                waiting.append((layer, node, call))
                continue
            outputs, macs = _infer(layer, [known[r.layer, r.node, r.tensor] or r.shape for r in call], traced)
            for place, shape in enumerate(outputs):
                known[layer.name, node, place] = shape or hints.get((layer.name, node, place))
            shapes = tuple(known[layer.name, node, place] for place in range(len(outputs)))
            traced.append(Traced(layer=layer, outputs=shapes, macs=macs))
        if len(waiting) == len(calls):  # they wait for outputs of unknown number, or for one another
            for layer, node, _ in waiting:
                known[layer.name, node, 0] = hints.get((layer.name, node, 0))
                traced.append(Traced(layer=layer, outputs=(known[layer.name, node, 0],), macs=None))
            break
        calls = waiting
    return traced, tuple(known.get((r.layer, r.node, r.tensor)) for r in model.outputs)


def _infer(layer: KerasLayer, shapes: Sequence[Shape | None], traced: list[Traced]) -> Result:
    """Return the outputs of one call and its MACs; the layers of an inner model are appended to `traced`."""
    if layer.model is not None:
        inner, outputs = trace(layer.model, shapes)
        traced += inner
        return outputs, 0
    name = layer.class_name
    if not shapes or any(shape is None for shape in shapes):
        shapes = [layer.input_shape] if layer.input_shape is not None and len(shapes) == 1 else shapes
    read = [shape for shape in shapes if shape is not None]
    if not read or len(read) != len(shapes):
        return (None,), 0 if name in _UNCHANGED or name in _BROADCAST else None
    try:
        return _rule(name)(name, layer.config, read)
    except (KeyError, TypeError, ValueError, IndexError, ZeroDivisionError, AttributeError):
        return _UNKNOWN  # a configuration that does not fit its own class: Keras will refuse it


_Rule = Callable[[str, Mapping[str, object], Sequence[Shape]], Result]


def _rule(name: str) -> _Rule:
    if name in _UNCHANGED:
        return _same
    if name in _BROADCAST:
        return _broadcast
    if name in _RECURRENT:
        return _recurrent
    if name.startswith(("Conv", "Depthwise", "Separable")) and name[-2:] in _SPATIAL and "LSTM" not in name:
        return _convolution
    if name.endswith("Transpose") and name.startswith("Conv"):
        return _transposed
    if name.startswith("Global"):
        return _global_pool
    if name.startswith(("MaxPool", "AveragePool")):
        return _pool
    if name.startswith(("ZeroPadding", "Cropping", "UpSampling")):
        return _resized
    return _RULES.get(name, _unknown)


def _unknown(name: str, config: Mapping[str, object], shapes: Sequence[Shape]) -> Result:
    return (None,), None


def _same(name: str, config: Mapping[str, object], shapes: Sequence[Shape]) -> Result:
    return (shapes[0],), 0


def _count(shape: Sequence[int | None]) -> int | None:
    """Return the elements of one sample: a dynamic first dimension counts as 1."""
    sizes = [1 if axis == 0 and size is None else size for axis, size in enumerate(shape)]
    known = [size for size in sizes if size is not None]
    return math.prod(known) if len(known) == len(sizes) else None


def _times(first: int | None, *others: int | None) -> int | None:
    factors = [first, *others]
    known = [factor for factor in factors if factor is not None]
    return math.prod(known) if len(known) == len(factors) else None


def _broadcast(name: str, config: Mapping[str, object], shapes: Sequence[Shape]) -> Result:
    rank = max(len(shape) for shape in shapes)
    padded = [(1,) * (rank - len(shape)) + tuple(shape) for shape in shapes]
    output: list[int | None] = []
    for sizes in zip(*padded, strict=True):
        larger = [size for size in sizes if size != 1]
        output.append(next((s for s in larger if s is not None), None) if larger else 1)
    return (tuple(output),), 0


def _integers(value: object, count: int) -> list[int]:
    if isinstance(value, int):
        return [value] * count
    if isinstance(value, dict):
        value = value["items"]
    assert isinstance(value, list)
    return [int(size) for size in value][:count]


def _is_first(config: Mapping[str, object]) -> bool:
    return config.get("data_format") == "channels_first"


def _split(shape: Shape, config: Mapping[str, object]) -> tuple[int | None, list[int | None], int | None]:
    """Return batch, spatial sizes and channels."""
    if _is_first(config):
        return shape[0], list(shape[2:]), shape[1]
    return shape[0], list(shape[1:-1]), shape[-1]


def _joined(
    batch: int | None, sizes: Sequence[int | None], channels: int | None, config: Mapping[str, object]
) -> Shape:
    return (batch, channels, *sizes) if _is_first(config) else (batch, *sizes, channels)


def _window(size: int | None, kernel: int, stride: int, dilation: int, padding: object) -> int | None:
    if size is None:
        return None
    if padding in ("same", "causal"):
        return -(-size // stride)
    return (size - dilation * (kernel - 1) - 1) // stride + 1


def _windows(
    sizes: Sequence[int | None], kernel: Sequence[int], config: Mapping[str, object]
) -> list[int | None]:
    count = len(sizes)
    strides = _integers(config.get("strides") or list(kernel), count)
    dilations = _integers(config.get("dilation_rate", 1), count)
    return [
        _window(size, k, s, d, config.get("padding", "valid"))
        for size, k, s, d in zip(sizes, kernel, strides, dilations, strict=True)
    ]


def _convolution(name: str, config: Mapping[str, object], shapes: Sequence[Shape]) -> Result:
    batch, sizes, channels = _split(shapes[0], config)
    kernel = _integers(config["kernel_size"], len(sizes))
    given = {"strides": 1, **config}
    output = _windows(sizes, kernel, given)
    area = math.prod(kernel)
    if channels is None:
        return _UNKNOWN
    if name.startswith("Conv"):
        filters = int(str(config["filters"]))
        shape = _joined(batch, output, filters, config)
        return (shape,), _times(_count(shape), area * channels // int(str(config.get("groups", 1))))
    middle = channels * int(str(config.get("depth_multiplier", 1)))
    depthwise = _joined(batch, output, middle, config)
    if name.startswith("Depthwise"):
        return (depthwise,), _times(_count(depthwise), area)
    shape = _joined(batch, output, int(str(config["filters"])), config)
    first, second = _times(_count(depthwise), area), _times(_count(shape), middle)
    return (shape,), None if first is None or second is None else first + second


def _transposed(name: str, config: Mapping[str, object], shapes: Sequence[Shape]) -> Result:
    batch, sizes, channels = _split(shapes[0], config)
    kernel = _integers(config["kernel_size"], len(sizes))
    strides = _integers(config.get("strides", 1), len(sizes))
    if config.get("output_padding") is not None or channels is None:
        return _UNKNOWN
    is_same = config.get("padding") == "same"
    output = [
        None if size is None else size * s if is_same else size * s + max(k - s, 0)
        for size, k, s in zip(sizes, kernel, strides, strict=True)
    ]
    filters = int(str(config["filters"]))
    return (_joined(batch, output, filters, config),), _times(_count(shapes[0]), math.prod(kernel), filters)


def _global_pool(name: str, config: Mapping[str, object], shapes: Sequence[Shape]) -> Result:
    batch, sizes, channels = _split(shapes[0], config)
    if config.get("keepdims"):
        return (_joined(batch, [1] * len(sizes), channels, config),), 0
    return ((batch, channels),), 0


def _pool(name: str, config: Mapping[str, object], shapes: Sequence[Shape]) -> Result:
    batch, sizes, channels = _split(shapes[0], config)
    kernel = _integers(config["pool_size"], len(sizes))
    return (_joined(batch, _windows(sizes, kernel, config), channels, config),), 0


def _resized(name: str, config: Mapping[str, object], shapes: Sequence[Shape]) -> Result:
    batch, sizes, channels = _split(shapes[0], config)
    if name.startswith("UpSampling"):
        factors = _integers(config["size"], len(sizes))
        output = [None if s is None else s * f for s, f in zip(sizes, factors, strict=True)]
        return (_joined(batch, output, channels, config),), 0
    is_padding = name.startswith("Zero")
    amount = config["padding" if is_padding else "cropping"]
    edges = (
        [amount] if len(sizes) == 1 and isinstance(amount, list) and isinstance(amount[0], int) else amount
    )
    if isinstance(edges, list):
        pairs = [sum(_integers(pair, 2)) for pair in edges]
    else:
        pairs = [2 * int(str(edges))] * len(sizes)
    sign = 1 if is_padding else -1
    output = [None if s is None else s + sign * p for s, p in zip(sizes, pairs, strict=True)]
    return (_joined(batch, output, channels, config),), 0


def _dense(name: str, config: Mapping[str, object], shapes: Sequence[Shape]) -> Result:
    shape = (*shapes[0][:-1], int(str(config["units"])))
    return (shape,), _times(_count(shape), shapes[0][-1])


def _embedding(name: str, config: Mapping[str, object], shapes: Sequence[Shape]) -> Result:
    return ((*shapes[0], int(str(config["output_dim"]))),), 0


def _flatten(name: str, config: Mapping[str, object], shapes: Sequence[Shape]) -> Result:
    return ((shapes[0][0], _count((1, *shapes[0][1:]))),), 0


def _reshape(name: str, config: Mapping[str, object], shapes: Sequence[Shape]) -> Result:
    target = config["target_shape"]
    sizes = _integers(target, 64)
    total = _count((1, *shapes[0][1:]))
    if -1 in sizes:
        rest = -math.prod(sizes)
        return (
            (shapes[0][0], *(s if s != -1 else None if total is None else total // rest for s in sizes)),
        ), 0
    return ((shapes[0][0], *sizes),), 0


def _permute(name: str, config: Mapping[str, object], shapes: Sequence[Shape]) -> Result:
    return ((shapes[0][0], *(shapes[0][axis] for axis in _integers(config["dims"], 64))),), 0


def _repeat(name: str, config: Mapping[str, object], shapes: Sequence[Shape]) -> Result:
    return ((shapes[0][0], int(str(config["n"])), shapes[0][1]),), 0


def _concatenate(name: str, config: Mapping[str, object], shapes: Sequence[Shape]) -> Result:
    axis = int(str(config.get("axis", -1))) % len(shapes[0])
    sizes = [shape[axis] for shape in shapes]
    known = [size for size in sizes if size is not None]
    total = sum(known) if len(known) == len(sizes) else None
    return ((*shapes[0][:axis], total, *shapes[0][axis + 1 :]),), 0


def _recurrent(name: str, config: Mapping[str, object], shapes: Sequence[Shape]) -> Result:
    batch, steps, features = shapes[0]
    units = int(str(config["units"]))
    gates = next(count for prefix, count in _GATES.items() if name.startswith(prefix))
    output: Shape = (batch, steps, units) if config.get("return_sequences") else (batch, units)
    macs = None if features is None else _times(steps, batch or 1, gates * units * (features + units))
    states = (2 if name.startswith("LSTM") else 1) if config.get("return_state") else 0
    return (output, *((batch, units) for _ in range(states))), macs


def _inner(config: Mapping[str, object], key: str) -> KerasLayer:
    record = config[key]
    assert isinstance(record, dict)
    return KerasLayer(
        name=key, class_name=str(record["class_name"]), config=record["config"], calls=(), input_shape=None
    )


def _bidirectional(name: str, config: Mapping[str, object], shapes: Sequence[Shape]) -> Result:
    layer = _inner(config, "layer")
    outputs, macs = _rule(layer.class_name)(layer.class_name, layer.config, shapes)
    if len(outputs) != 1 or outputs[0] is None:
        return _UNKNOWN
    mode, shape = config.get("merge_mode"), outputs[0]
    both = _times(macs, 2)
    if mode == "concat":
        return ((*shape[:-1], None if shape[-1] is None else 2 * shape[-1]),), both
    return ((shape, shape) if mode is None else (shape,)), both


def _time_distributed(name: str, config: Mapping[str, object], shapes: Sequence[Shape]) -> Result:
    layer = _inner(config, "layer")
    batch, steps = shapes[0][:2]
    outputs, macs = _rule(layer.class_name)(layer.class_name, layer.config, [(batch, *shapes[0][2:])])
    shape = outputs[0]
    return (None if shape is None else (batch, steps, *shape[1:]),), 0 if macs == 0 else _times(macs, steps)


_RULES: Mapping[str, _Rule] = {
    "Dense": _dense,
    "Embedding": _embedding,
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Permute": _permute,
    "RepeatVector": _repeat,
    "Concatenate": _concatenate,
    "Bidirectional": _bidirectional,
    "TimeDistributed": _time_distributed,
}

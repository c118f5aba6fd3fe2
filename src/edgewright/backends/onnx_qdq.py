"""Quantized ONNX graphs: what torch exports of a PT2E program, made small and fast; and ONNX Runtime's quantizer."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgewright.backends.vendor import quiet
from edgewright.core.errors import ConversionError, first_line
from edgewright.core.tensors import Array

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto

_SIGN_SHIFT = 128
_LINEAR = ("Conv", "ConvTranspose", "Gemm", "MatMul")


class _Graph:
    """A graph with an index of its initialisers, of the maker and of the readers of each tensor."""

    def __init__(self, graph: GraphProto) -> None:
        self.graph = graph
        self.held: dict[str, TensorProto] = {tensor.name: tensor for tensor in graph.initializer}
        self.maker: dict[str, NodeProto] = {name: node for node in graph.node for name in node.output}
        self.readers: dict[str, list[NodeProto]] = defaultdict(list)
        for node in graph.node:
            for name in node.input:
                self.readers[name].append(node)
        self.results = {value.name for value in graph.output}

    def value(self, name: str) -> Array | None:
        """Return the constant called `name`, or None where it is computed."""
        from onnx import numpy_helper

        tensor = self.held.get(name)
        return None if tensor is None else numpy_helper.to_array(tensor)

    def hold(self, array: Array, name: str) -> str:
        """Add a constant and return its name."""
        from onnx import numpy_helper

        if name not in self.held:
            self.graph.initializer.append(numpy_helper.from_array(array, name))
            self.held[name] = self.graph.initializer[-1]
        return name

    def remove(self, nodes: list[NodeProto]) -> None:
        """Remove `nodes`, and every constant that nobody reads after that."""
        gone = {id(node) for node in nodes}
        kept = [node for node in self.graph.node if id(node) not in gone]
        used = {name for node in kept for name in node.input} | self.results
        tensors = [tensor for tensor in self.graph.initializer if tensor.name in used]
        copies = [type(tensor).FromString(tensor.SerializeToString()) for tensor in tensors]
        kept_copies = [type(node).FromString(node.SerializeToString()) for node in kept]
        del self.graph.node[:]
        del self.graph.initializer[:]
        self.graph.node.extend(kept_copies)
        self.graph.initializer.extend(copies)


def lower_pt2e(model: ModelProto) -> None:
    """Make the export of an unfolded PT2E program what ONNX Runtime runs fastest, with the same numbers.

    Weights become int8 constants; activations become uint8 with every zero point raised by 128, which are the same
    real values.

    Raises:
        ConversionError: the program has no quantized weight.
    """
    if fold_weights(model) == 0:
        raise ConversionError(
            "the exported program has no quantized weight, although it should be w8a8. Quantize it again."
        )
    fold_transposes(model)
    make_activations_unsigned(model)


def fold_weights(model: ModelProto) -> int:
    """Replace QuantizeLinear (and Clip) of constants by their int8 results; return how many there were.

    q = clip(round_half_even(w / scale) + zero_point). Source: ONNX operator QuantizeLinear.
    """
    graph = _Graph(model.graph)
    done: list[NodeProto] = []
    for node in model.graph.node:
        weights = graph.value(node.input[0]) if node.op_type == "QuantizeLinear" else None
        if weights is None or len(node.input) < 3:
            continue
        scale, zero_point = graph.value(node.input[1]), graph.value(node.input[2])
        if scale is None or zero_point is None or zero_point.dtype not in (np.int8, np.uint8):
            continue
        last = node
        limits = (-128, 127) if zero_point.dtype == np.int8 else (0, 255)
        readers = graph.readers[node.output[0]]
        if len(readers) == 1 and readers[0].op_type == "Clip":
            low, high = (graph.value(name) for name in readers[0].input[1:3])
            if low is None or high is None:
                continue
            last, limits = readers[0], (int(low), int(high))
            done.append(last)
        done.append(node)
        steps = _steps(weights, scale, zero_point, axis=_axis(node), limits=limits)
        name = graph.hold(steps, f"{node.input[0]}_{zero_point.dtype}")
        for reader in graph.readers[last.output[0]]:
            reader.input[:] = [name if given == last.output[0] else given for given in reader.input]
    graph.remove(done)
    return sum(1 for node in done if node.op_type == "QuantizeLinear")


def _steps(weights: Array, scale: Array, zero_point: Array, *, axis: int, limits: tuple[int, int]) -> Array:
    shape = [-1 if other == axis else 1 for other in range(weights.ndim)] if scale.ndim else []
    divisors = scale.astype(np.float32).reshape(shape)
    steps = np.rint(weights.astype(np.float32) / divisors) + zero_point.astype(np.float32).reshape(shape)
    clipped: Array = np.clip(steps, *limits).astype(zero_point.dtype)
    return clipped


def fold_transposes(model: ModelProto) -> None:
    """Store weights transposed where the graph transposes them after DequantizeLinear, as linear layers on 3-D do."""
    graph = _Graph(model.graph)
    done: list[NodeProto] = []
    for node in model.graph.node:
        source = graph.maker.get(node.input[0]) if node.op_type == "Transpose" else None
        if source is None or source.op_type != "DequantizeLinear" or len(graph.readers[node.input[0]]) != 1:
            continue
        weights = graph.value(source.input[0])
        if weights is None:
            continue
        order = next((list(a.ints) for a in node.attribute if a.name == "perm"), [*range(weights.ndim)][::-1])
        source.input[0] = graph.hold(np.ascontiguousarray(weights.transpose(order)), f"{source.input[0]}_t")
        for attribute in source.attribute:
            if attribute.name == "axis":
                attribute.i = order.index(_axis(source))
        source.output[0] = node.output[0]
        done.append(node)
    graph.remove(done)


def make_activations_unsigned(model: ModelProto) -> None:
    """Turn int8 activations into uint8: zero points and stored steps are raised by 128, real values stay.

    ONNX Runtime multiplies uint8 by int8 about twice as fast as int8 by int8 on x86 (dot products of that kind).
    """
    graph = _Graph(model.graph)
    for node in list(model.graph.node):
        if node.op_type != "QuantizeLinear" or len(node.input) < 3:
            continue
        readers = graph.readers[node.output[0]]
        pair = [node, *readers]
        zero_points = [graph.value(one.input[2]) if len(one.input) > 2 else None for one in pair]
        if node.output[0] in graph.results or any(one.op_type != "DequantizeLinear" for one in readers):
            continue
        if any(value is None or value.dtype != np.int8 or value.ndim for value in zero_points):
            continue
        for one, value in zip(pair, zero_points, strict=True):
            assert value is not None
            raised = np.array(int(value) + _SIGN_SHIFT, dtype=np.uint8)
            one.input[2] = graph.hold(raised, f"zero_point_uint8_{int(raised)}")
    graph.remove([])


def quantize_native(
    model: ModelProto, inputs: Sequence[str], samples: Sequence[Sequence[Array]], workdir: Path
) -> ModelProto:
    """Return `model` as ONNX Runtime's own static quantizer writes it: QDQ, uint8 activations, int8 weights.

    Weights are symmetric with one scale per channel; ranges of activations are the smallest and largest values seen.

    Args:
        inputs: names of the inputs.
        samples: calibration, each sample in the order of `inputs`.
    Raises:
        ConversionError: the quantizer failed, or found nothing to quantize.
    """
    return _quantize(model, inputs, samples, workdir, is_symmetric=False)


def quantize_symmetric(
    model: ModelProto, inputs: Sequence[str], samples: Sequence[Sequence[Array]], workdir: Path
) -> ModelProto:
    """Return `model` with QDQ as TensorRT reads it: int8 without zero points, before linear layers, biases in float.

    Source: TensorRT documentation, "Explicit Quantization". Arguments and errors as of `quantize_native`.
    """
    return _quantize(model, inputs, samples, workdir, is_symmetric=True)


def _quantize(
    model: ModelProto,
    inputs: Sequence[str],
    samples: Sequence[Sequence[Array]],
    workdir: Path,
    *,
    is_symmetric: bool,
) -> ModelProto:
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._left = iter(samples)

        def get_next(self) -> dict[str, Array] | None:
            sample = next(self._left, None)
            return None if sample is None else dict(zip(inputs, sample, strict=True))

    options: dict[str, object] = {"WeightSymmetric": True, "ActivationSymmetric": is_symmetric}
    if is_symmetric:
        options |= {"QuantizeBias": False, "OpTypesToExcludeOutputQuantization": list(_LINEAR)}
    workdir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=workdir, prefix=".quantize-") as folder:
        given, prepared, written = (
            Path(folder) / f"{name}.onnx" for name in ("given", "prepared", "written")
        )
        onnx.save(model, given)
        try:
            with quiet():
                # The graph is optimised before (batch norm folded), as the session would do; symbolic shapes would
                # need sympy and fail on dynamic models, and the quantizer does not use them.
                quant_pre_process(given, prepared, skip_symbolic_shape=True)
                quantize_static(
                    prepared,
                    written,
                    Reader(),
                    quant_format=QuantFormat.QDQ,
                    op_types_to_quantize=list(_LINEAR) if is_symmetric else None,
                    per_channel=True,
                    activation_type=QuantType.QInt8 if is_symmetric else QuantType.QUInt8,
                    weight_type=QuantType.QInt8,
                    extra_options=options,
                )
        except Exception as err:
            raise ConversionError(
                f"the quantizer of ONNX Runtime failed: {type(err).__name__}: {first_line(err)}. "
                "Use w8, or exclude the operator that it names."
            ) from err
        quantized = onnx.load(written)
    if not any(node.op_type == "DequantizeLinear" for node in quantized.graph.node):
        raise ConversionError(
            "the quantizer of ONNX Runtime found no operator that it can quantize. Use w8 or fp16."
        )
    return quantized


def asymmetric(model: ModelProto) -> list[str]:
    """Return the quantized tensors of `model` that are not int8 with a zero point of 0, sorted."""
    graph = _Graph(model.graph)
    found = set()
    for node in model.graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        zero_point = graph.value(node.input[2]) if len(node.input) > 2 and node.input[2] else None
        if zero_point is None:
            given = graph.value(node.input[0])  # without a zero point QuantizeLinear gives uint8
            is_fine = node.op_type == "DequantizeLinear" and (given is None or given.dtype == np.int8)
        else:
            is_fine = zero_point.dtype == np.int8 and not zero_point.any()
        if not is_fine:
            found.add(node.input[0])
    return sorted(found)


def _axis(node: NodeProto) -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)
